//! The server: one connection at a time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Result;
use socket2::{Domain, Socket, Type};

use super::{Mode, pin, set_up};

/// How much is read at once, in bytes.
const PIECE: usize = 256 << 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    listen: SocketAddr,
}

/// Serves until it is killed.
pub fn run(args: &Args) -> Result<()> {
    pin()?;
    let socket = Socket::new(Domain::for_address(args.listen), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // What is accepted inherits it.
    set_up(&socket)?;
    socket.bind(&args.listen.into())?;
    socket.listen(128)?;
    let listener = TcpListener::from(socket);
    let mut buffer = vec![0; PIECE];
    loop {
        let (stream, _) = listener.accept()?;
        match serve(stream, &mut buffer) {
            Err(error) if !matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                return Err(error.into());
            }
            _ => {}
        }
    }
}

fn serve(mut stream: TcpStream, buffer: &mut [u8]) -> std::io::Result<()> {
    let mut mode = [0];
    if stream.read(&mut mode)? == 0 {
        return Ok(());
    }
    if mode[0] == Mode::Stream.byte() {
        let mut total = 0_u64;
        loop {
            match stream.read(buffer)? {
                0 => return stream.write_all(&total.to_be_bytes()),
                count => total += count as u64,
            }
        }
    }
    // The byte was the first request.
    loop {
        stream.write_all(&mode)?;
        if stream.read(&mut mode)? == 0 {
            return Ok(());
        }
    }
}
