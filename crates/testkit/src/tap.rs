//! Frames as they are on a device.

use std::io;
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::TestNamespace;

/// The longest frame: a segmentation-offload packet of 64 KiB with its headers.
const FRAME_MAX: usize = 1 << 17;

/// Bytes of frames that wait to be looked at: all of a test's, as frames that do not fit are lost.
const RECEIVE_BUFFER: usize = 64 << 20;

/// Sends and receives whole Ethernet frames on a device (packet(7)).
#[derive(Debug)]
pub struct Tap(Socket);

impl Tap {
    /// Starts to listen on a device; frames from now on are kept.
    ///
    /// # Panics
    /// When there is no such device.
    pub fn open(namespace: &TestNamespace, device: &str) -> Self {
        let index = namespace
            .netlink()
            .require_link(device)
            .unwrap_or_else(|error| panic!("{error}"))
            .index;
        let socket = namespace.run(|| -> io::Result<_> {
            // No protocol yet: none of what other devices receive before bind(2).
            let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
            setsockopt(&socket, RcvBufForce, &RECEIVE_BUFFER)?;
            socket.bind(&address(index))?;
            Ok(socket)
        });
        Self(socket.unwrap_or_else(|error| panic!("listen on {device}: {error}")))
    }

    /// Sends a frame, Ethernet header included.
    ///
    /// # Panics
    /// When the device does not take it, as it is down or the frame too long.
    pub fn send(&self, frame: &[u8]) {
        self.0
            .send(frame)
            .unwrap_or_else(|error| panic!("send a frame of {} bytes: {error}", frame.len()));
    }

    /// Waits for the first frame that `matches`, in either direction; none if there is none within `deadline`.
    pub fn receive(&self, deadline: Duration, mut matches: impl FnMut(&[u8]) -> bool) -> Option<Vec<u8>> {
        let end = Instant::now() + deadline;
        let mut buffer = vec![MaybeUninit::uninit(); FRAME_MAX];
        loop {
            let left = end
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())?;
            self.0.set_read_timeout(Some(left)).ok()?;
            let Ok(length) = self.0.recv(&mut buffer) else {
                continue;
            };
            // SAFETY: the kernel has written that many bytes.
            let frame = buffer[..length]
                .iter()
                .map(|byte| unsafe { byte.assume_init() })
                .collect::<Vec<u8>>();
            if matches(&frame) {
                return Some(frame);
            }
        }
    }
}

/// A device, and all protocols.
fn address(index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is large enough for every kind of address, and all-zero is a valid sockaddr_ll.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as libc::sa_family_t;
    link.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    link.sll_ifindex = index.cast_signed();
    // SAFETY: the storage holds a sockaddr_ll, of that length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}
