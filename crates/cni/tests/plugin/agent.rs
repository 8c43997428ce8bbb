//! A stand-in for the agent: takes requests, keeps them, gives the answers a test prepared.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tombolo_cni::agent::{AddRequest, AddResponse, Address, ErrorBody, Interface, PodRoute};

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
}

impl Request {
    pub fn add(&self) -> AddRequest {
        assert_eq!(
            (self.method.as_str(), self.path.as_str()),
            ("POST", "/v1/endpoints")
        );
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What to do with a request.
pub enum Reply {
    /// Send these bytes and close.
    Raw(Vec<u8>),
    /// Answer with this status and body.
    Status(u16, Vec<u8>),
    /// Keep the connection open and say nothing.
    Hang,
}

pub struct Agent {
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Agent {
    /// Listens at `socket` until the process ends; the thread holds nothing but its socket.
    pub fn start(socket: &Path, mut reply: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let kept = requests.clone();
        thread::spawn(move || {
            let mut hanging = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read(&mut stream);
                let reply = reply(&request);
                kept.lock().unwrap().push(request);
                // The plugin may be gone already, which is for the test to judge.
                let _ = match reply {
                    Reply::Raw(bytes) => stream.write_all(&bytes),
                    Reply::Status(status, body) => stream.write_all(&response(status, &body)),
                    Reply::Hang => {
                        hanging.push(stream);
                        Ok(())
                    }
                };
            }
        });
        Self { requests }
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn read(stream: &mut UnixStream) -> Request {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut received = Vec::new();
    let mut byte = [0];
    while !received.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        received.push(byte[0]);
    }
    let head = String::from_utf8(received).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    let mut words = head.split(' ');
    Request {
        method: words.next().unwrap().into(),
        path: words.next().unwrap().into(),
        body,
    }
}

pub fn response(status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} Reason\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// What an agent answers to a successful ADD.
pub fn made() -> AddResponse {
    let address = |address: &str, gateway: &str| Address {
        address: address.parse().unwrap(),
        gateway: Some(gateway.parse().unwrap()),
    };
    let route = |dst: &str, gw: Option<&str>| PodRoute {
        dst: dst.parse().unwrap(),
        gw: gw.map(|gw| gw.parse().unwrap()),
    };
    AddResponse {
        host_interface: Interface {
            name: "tmb0123456789ab".into(),
            mac: "02:00:00:00:00:01".into(),
            mtu: Some(1450),
        },
        pod_interface: Interface {
            name: "eth0".into(),
            mac: "02:00:00:00:00:02".into(),
            mtu: Some(1450),
        },
        addresses: vec![
            address("10.244.1.7/32", "169.254.1.1"),
            address("fd00:10:244:1::7/128", "fe80::1"),
        ],
        routes: vec![
            route("169.254.1.1/32", None),
            route("0.0.0.0/0", Some("169.254.1.1")),
            route("::/0", Some("fe80::1")),
        ],
    }
}

/// Makes every pod and removes it again.
pub fn healthy(request: &Request) -> Reply {
    match request.method.as_str() {
        "POST" => Reply::Status(200, serde_json::to_vec(&made()).unwrap()),
        _ => Reply::Status(200, b"{}".to_vec()),
    }
}

/// Refuses everything, as an agent without addresses does.
pub fn refusing(status: u16, code: u32) -> impl Fn(&Request) -> Reply {
    move |_| {
        let body = ErrorBody {
            code,
            msg: "no address is left".into(),
            details: "block 10.244.1.0/24".into(),
        };
        Reply::Status(status, serde_json::to_vec(&body).unwrap())
    }
}
