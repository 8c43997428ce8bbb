//! Whom a process is told its socket is connected to.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};

use crate::{peers, socket::Socket};

/// Of IPv4.
#[cgroup_sock_addr(getpeername4)]
pub fn sock_getpeername4(context: SockAddrContext) -> i32 {
    peers::name(Socket::<true>::new(&context));
    1
}

/// Of IPv6.
#[cgroup_sock_addr(getpeername6)]
pub fn sock_getpeername6(context: SockAddrContext) -> i32 {
    peers::name(Socket::<false>::new(&context));
    1
}
