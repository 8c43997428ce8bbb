//! Who a process is told has sent a datagram.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{peers, socket::Socket};

/// Of IPv4.
#[cgroup_sock_addr(recvmsg4)]
pub fn sock_recvmsg4(context: SockAddrContext) -> i32 {
    peers::name(Socket::<true>::new(&context));
    1
}

/// Of IPv6, and of IPv4 to a socket of IPv6.
#[cgroup_sock_addr(recvmsg6)]
pub fn sock_recvmsg6(context: SockAddrContext) -> i32 {
    peers::name(Socket::<false>::new(&context));
    1
}
