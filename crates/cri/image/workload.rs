//! What containers run in tests of the runtime.
//!
//! ```text
//! workload pause              does nothing, for ever
//! workload serve PORT         answers every TCP connection with the address that it comes from
//! workload ask ADDRESS:PORT   prints the answer of such a server
//! ```

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// How long a server may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["pause"] => loop {
            std::thread::park();
        },
        ["serve", port] => serve(port.parse()?),
        ["ask", server] => ask(server.parse()?),
        _ => Err("usage: workload pause | serve PORT | ask ADDRESS:PORT".into()),
    }
}

fn serve(port: u16) -> Result<(), Box<dyn Error>> {
    // Both families (ipv6(7): IPV6_V6ONLY is off by default).
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    loop {
        let (mut stream, client) = listener.accept()?;
        // A client that has gone away is its own affair.
        let _ = write!(stream, "{}", client.ip().to_canonical());
    }
}

fn ask(server: SocketAddr) -> Result<(), Box<dyn Error>> {
    let mut stream = TcpStream::connect_timeout(&server, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    print!("{answer}");
    Ok(())
}
