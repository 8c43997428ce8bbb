//! The client: one run, one number.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use socket2::{Domain, Socket, Type};

use super::{DEADLINE, Mode, pin, set_up};

/// How much is written at once, in bytes.
const PIECE: usize = 64 << 10;

/// The part of a run that comes first and does not count: windows grow and caches fill.
const WARM_UP: u32 = 4;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    mode: Mode,
    #[arg(long)]
    server: SocketAddr,
    #[arg(long)]
    milliseconds: u64,
}

/// Prints bits or transactions in a second.
pub fn run(args: &Args) -> Result<()> {
    pin()?;
    drop(first_connection(args.server)?);
    let duration = Duration::from_millis(args.milliseconds);
    let warm_up = duration / WARM_UP;
    let rate = match args.mode {
        Mode::Stream => {
            stream(args.server, warm_up)?;
            stream(args.server, duration)?
        }
        Mode::RequestResponse => {
            let mut connection = connect(args.server)?;
            let mut exchange = || exchange(&mut connection, args.mode);
            repeat(warm_up, &mut exchange)?;
            repeat(duration, exchange)?
        }
        Mode::ConnectRequestResponse => {
            let exchange = || exchange(&mut connect(args.server)?, args.mode);
            repeat(warm_up, exchange)?;
            repeat(duration, exchange)?
        }
    };
    println!("{rate}");
    Ok(())
}

fn stream(server: SocketAddr, duration: Duration) -> Result<f64> {
    let mut connection = connect(server)?;
    let piece = vec![Mode::Stream.byte(); PIECE];
    let start = Instant::now();
    while start.elapsed() < duration {
        connection.write_all(&piece)?;
    }
    connection.shutdown(Shutdown::Write)?;
    // What arrived, and when all of it had.
    let mut total = [0; 8];
    connection.read_exact(&mut total)?;
    Ok(u64::from_be_bytes(total) as f64 * 8.0 / start.elapsed().as_secs_f64())
}

fn exchange(connection: &mut TcpStream, mode: Mode) -> Result<()> {
    connection.write_all(&[mode.byte()])?;
    Ok(connection.read_exact(&mut [0])?)
}

fn repeat(duration: Duration, mut transaction: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    let mut count = 0_u64;
    while start.elapsed() < duration {
        transaction()?;
        count += 1;
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

fn connect(server: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, None)?;
    set_up(&socket)?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

/// Waits for the server and the path.
fn first_connection(server: SocketAddr) -> Result<TcpStream> {
    let end = Instant::now() + DEADLINE;
    loop {
        match TcpStream::connect_timeout(&server, Duration::from_secs(1)) {
            Ok(stream) => return Ok(stream),
            Err(error) if Instant::now() > end => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}
