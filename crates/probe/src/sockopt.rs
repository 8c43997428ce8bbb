//! Socket options that socket2 and nix lack.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use libc::c_int;

fn set<T>(socket: &impl AsFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    // SAFETY: the pointer and the length describe one live `T`; the kernel only reads it.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Asks that datagrams be sent whole or not at all (RFC 1191 and RFC 8201 as the kernel does them):
/// larger ones than the known path MTU are refused with `EMSGSIZE`.
pub fn dont_fragment(socket: &impl AsFd, to: IpAddr) -> io::Result<()> {
    match to {
        IpAddr::V4(_) => set(
            socket,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            &libc::IP_PMTUDISC_DO,
        ),
        IpAddr::V6(_) => set(
            socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            &libc::IPV6_PMTUDISC_DO,
        ),
    }
}

/// The MTU that the kernel knows for the path of a connected socket.
pub fn path_mtu(socket: &impl AsFd, to: IpAddr) -> io::Result<u32> {
    let (level, name) = match to {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut mtu: c_int = 0;
    let mut length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the pointers are to a live integer and to its length; the kernel writes no more than that.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            name,
            std::ptr::from_mut(&mut mtu).cast(),
            &mut length,
        )
    };
    if done == 0 {
        Ok(mtu.unsigned_abs())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Makes room for `bytes` of packets that wait to be read, past the system's limit where the process may.
pub fn receive_buffer(socket: &impl AsFd, bytes: u32) {
    let bytes = bytes as c_int;
    if set(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &bytes).is_err() {
        // A smaller buffer only makes loss under load likelier; it is no reason not to start.
        let _ = set(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &bytes);
    }
}

/// Lets a raw ICMP socket receive echo replies alone.
pub fn echo_replies_only(socket: &impl AsFd, family: IpAddr) -> io::Result<()> {
    // linux/icmp.h and linux/icmpv6.h: one bit for each type, set where it is *not* wanted.
    const SOL_RAW: c_int = 255;
    const ICMP_FILTER: c_int = 1;
    const ICMPV6_FILTER: c_int = 1;
    match family {
        IpAddr::V4(_) => set(socket, SOL_RAW, ICMP_FILTER, &!(1u32 << 0)),
        IpAddr::V6(_) => {
            let mut unwanted = [u32::MAX; 8];
            unwanted[129 / 32] &= !(1 << (129 % 32));
            set(socket, libc::IPPROTO_ICMPV6, ICMPV6_FILTER, &unwanted)
        }
    }
}
