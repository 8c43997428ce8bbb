//! One request to the agent: HTTP/1.1 over its unix socket, one connection, one deadline.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use serde::Serialize;
use tombolo_cni::Config;
use tombolo_cni::agent::ErrorBody;
use tombolo_cni::error::{Error, code};

/// The longest answer read, in bytes.
const ANSWER_MAX: usize = 1 << 20;

/// How many headers an answer may have.
const HEADERS_MAX: usize = 32;

/// Where the agent is and how long it may take.
pub struct Client<'a> {
    pub socket: &'a Path,
    pub timeout: Duration,
}

/// Why there is no answer of the wanted kind.
#[derive(Debug)]
pub enum Failure {
    /// The agent is not there, or ended before its answer did.
    Down { socket: PathBuf, cause: io::Error },
    /// The agent is there but did not answer in time.
    Hung { socket: PathBuf, timeout: Duration },
    /// The answer is not one that an agent gives.
    Nonsense { socket: PathBuf, reason: String },
    /// The agent says what is wrong.
    Refused(ErrorBody),
}

impl<'a> Client<'a> {
    /// As the configuration has it.
    pub fn of(config: &'a Config) -> Self {
        Self {
            socket: &config.socket,
            timeout: config.timeout,
        }
    }

    /// Sends a request in JSON, and returns the body of the answer with status 200.
    pub fn post(&self, path: &str, request: &impl Serialize) -> Result<Vec<u8>, Failure> {
        let body = serde_json::to_vec(request).map_err(|error| self.nonsense(error))?;
        self.exchange("POST", path, &body)
    }

    /// Sends a request and returns the body of the answer with status 200.
    pub fn exchange(&self, method: &str, path: &str, body: &[u8]) -> Result<Vec<u8>, Failure> {
        let deadline = Instant::now() + self.timeout;
        let answer = self
            .transfer(method, path, body, deadline)
            .map_err(|cause| match cause.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Failure::Hung {
                    socket: self.socket.to_owned(),
                    timeout: self.timeout,
                },
                io::ErrorKind::InvalidData => self.nonsense(cause),
                _ => Failure::Down {
                    socket: self.socket.to_owned(),
                    cause,
                },
            })?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(match serde_json::from_slice(&answer.body) {
                Ok(body) => Failure::Refused(body),
                Err(error) => {
                    self.nonsense(format!("status {status} with a body that says no error: {error}"))
                }
            }),
        }
    }

    /// The failure to understand an answer.
    pub fn nonsense(&self, reason: impl ToString) -> Failure {
        Failure::Nonsense {
            socket: self.socket.to_owned(),
            reason: reason.to_string(),
        }
    }

    fn transfer(&self, method: &str, path: &str, body: &[u8], deadline: Instant) -> io::Result<Answer> {
        let mut stream = self.connect(deadline)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        let mut rest = request.as_slice();
        while !rest.is_empty() {
            stream.set_write_timeout(Some(left(deadline)?))?;
            match stream.write(rest) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => rest = &rest[sent?..],
            }
        }

        let mut received = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if let Some(answer) = Answer::parse(&received)? {
                return Ok(answer);
            }
            if received.len() > ANSWER_MAX {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the answer is longer than a mebibyte",
                ));
            }
            stream.set_read_timeout(Some(left(deadline)?))?;
            match stream.read(&mut chunk) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the answer was cut off",
                    ));
                }
                Ok(count) => received.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Connects within the deadline, also when the agent's queue is full: the library's own
    /// connect would wait for ever.
    fn connect(&self, deadline: Instant) -> io::Result<UnixStream> {
        let stream = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        setsockopt(&stream, sockopt::SendTimeout, &time_value(left(deadline)?))?;
        let address = UnixAddr::new(self.socket)?;
        loop {
            match connect(std::os::fd::AsRawFd::as_raw_fd(&stream), &address) {
                Ok(()) => return Ok(UnixStream::from(stream)),
                Err(nix::Error::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Answer {
    /// The answer, once all of it is received.
    fn parse(received: &[u8]) -> io::Result<Option<Self>> {
        let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let parsed = head
            .parse(received)
            .map_err(|error| invalid(format!("it is not HTTP: {error}")))?;
        let (httparse::Status::Complete(head_length), Some(status)) = (parsed, head.code) else {
            return Ok(None);
        };
        let length = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case("content-length"))
            .ok_or_else(|| invalid("it has no Content-Length".to_owned()))?;
        let length = std::str::from_utf8(length.value)
            .ok()
            .and_then(|text| text.trim().parse::<usize>().ok());
        let length = length
            .filter(|length| *length <= ANSWER_MAX)
            .ok_or_else(|| invalid("its Content-Length is not a number, or too large".to_owned()))?;
        let body = received[head_length..].get(..length);
        Ok(body.map(|body| Self {
            status,
            body: body.to_vec(),
        }))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(body) => body.into(),
            Failure::Down { socket, cause } => Self::new(
                code::TRY_AGAIN,
                "the Tombolo agent of this node is not reachable",
                format!(
                    "{}: {cause}; see that the agent runs on this node and look at its log, then try again",
                    socket.display()
                ),
            ),
            Failure::Hung { socket, timeout } => Self::new(
                code::TRY_AGAIN,
                "the Tombolo agent of this node does not answer",
                format!(
                    "{}: no answer within {timeout:?}; look at the agent's log, then try again",
                    socket.display()
                ),
            ),
            Failure::Nonsense { socket, reason } => Self::new(
                code::AGENT_ANSWER,
                "the answer of the Tombolo agent makes no sense",
                format!(
                    "{}: {reason}; see that plugin and agent are of the same release",
                    socket.display()
                ),
            ),
        }
    }
}

/// The time left; an error once there is none, since a timeout of zero would mean none at all.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left < Duration::from_millis(1) {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

fn time_value(duration: Duration) -> TimeVal {
    use nix::sys::time::TimeValLike;
    TimeVal::microseconds(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
}
