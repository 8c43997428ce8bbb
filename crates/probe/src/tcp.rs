//! A check over TCP: what the server saw, and an echo of any size with every byte compared.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use crate::check::{Check, Failure, Kind, Success};
use crate::sockopt::path_mtu;
use crate::wire::{Seen, pattern};

/// More than any report of the server has.
const LONGEST_LINE: u64 = 512;

/// Connects, reads what the server saw, and has `check.size` bytes echoed.
pub async fn run(check: &Check) -> Result<Success, Failure> {
    let stream = connect(check).await?;
    let local = stream.local_addr()?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let mut line = String::new();
    (&mut reader).take(LONGEST_LINE).read_line(&mut line).await?;
    let seen: Seen = serde_json::from_str(&line).map_err(|_| {
        Failure::new(
            Kind::Corrupted,
            format!("the server's report is not valid: {line:?}; is it a probe?"),
        )
    })?;
    let send = async {
        let mut buffer = vec![0; check.size.min(64 << 10)];
        let mut sent = 0;
        while sent < check.size {
            let n = buffer.len().min(check.size - sent);
            pattern(sent as u64, &mut buffer[..n]);
            writer.write_all(&buffer[..n]).await?;
            sent += n;
        }
        writer.shutdown().await?;
        Ok::<_, Failure>(())
    };
    let receive = async {
        let (mut buffer, mut expected) = (vec![0; 64 << 10], vec![0; 64 << 10]);
        let mut received = 0;
        loop {
            let n = reader.read(&mut buffer).await?;
            if n == 0 {
                break;
            }
            pattern(received as u64, &mut expected[..n]);
            if buffer[..n] != expected[..n] || received + n > check.size {
                return Err(corrupted(format!("the echo differs after byte {received}")));
            }
            received += n;
        }
        if received == check.size {
            Ok(())
        } else {
            Err(corrupted(format!(
                "the server closed after {received} of {} bytes",
                check.size
            )))
        }
    };
    let ((), ()) = tokio::try_join!(send, receive)?;
    let path_mtu = path_mtu(reader.get_ref().as_ref() as &TcpStream, check.address).ok();
    Ok(Success {
        seen: Some(seen.client),
        server: seen.server,
        local,
        path_mtu,
    })
}

fn corrupted(message: String) -> Failure {
    Failure::new(Kind::Corrupted, message)
}

/// Opens the connection that a check asks for, from its source address where it names one.
pub async fn connect(check: &Check) -> io::Result<TcpStream> {
    let target = SocketAddr::new(check.address, check.port());
    let socket = if target.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = check.source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
