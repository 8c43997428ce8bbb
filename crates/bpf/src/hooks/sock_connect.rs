//! What a process connects a socket to.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use tombolo_abi::{Hook, Outcome};

use crate::{
    parse::protocol,
    peers,
    socket::{Socket, answered},
    socket_services::Caller,
};

/// Of IPv4.
#[cgroup_sock_addr(connect4)]
pub fn sock_connect4(context: SockAddrContext) -> i32 {
    answered(Hook::SockConnect, connect(Socket::<true>::new(&context)))
}

/// Of IPv6.
#[cgroup_sock_addr(connect6)]
pub fn sock_connect6(context: SockAddrContext) -> i32 {
    answered(Hook::SockConnect, connect(Socket::<false>::new(&context)))
}

#[inline(always)]
fn connect<const V4: bool>(socket: Socket<V4>) -> Result<Outcome, Outcome> {
    let Some(caller) = Caller::of(socket) else {
        return Ok(Outcome::NotOurs);
    };
    let (address, port) = (socket.address(), socket.port());
    let is_udp = caller.protocol == protocol::UDP;
    let chosen = if is_udp && !caller.is_node() {
        // A pod's packets move on with the backends, though its process never connects again.
        None
    } else {
        caller.choose(&address, port)?
    };
    let Some((id, backend)) = chosen else {
        peers::connects_itself(socket, &address, port);
        return Ok(Outcome::NotOurs);
    };
    if is_udp {
        peers::keep(socket.cookie(), &address, port, id, backend);
    } else {
        peers::connects(socket, &address, port, backend);
    }
    socket.set(&backend.address, backend.port);
    Ok(Outcome::Translated)
}
