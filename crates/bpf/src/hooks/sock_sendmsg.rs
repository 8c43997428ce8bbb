//! What a process sends a datagram to that it names with it.

use aya_ebpf::{macros::cgroup_sock_addr, programs::SockAddrContext};
use tombolo_abi::{Hook, Outcome};

use crate::{
    parse::protocol,
    peers,
    socket::{Socket, answered},
    socket_services::Caller,
};

/// Of IPv4: also by a socket of IPv6, to a mapped address.
#[cgroup_sock_addr(sendmsg4)]
pub fn sock_sendmsg4(context: SockAddrContext) -> i32 {
    answered(Hook::SockSendmsg, sendmsg(Socket::<true>::new(&context)))
}

/// Of IPv6.
#[cgroup_sock_addr(sendmsg6)]
pub fn sock_sendmsg6(context: SockAddrContext) -> i32 {
    answered(Hook::SockSendmsg, sendmsg(Socket::<false>::new(&context)))
}

#[inline(always)]
fn sendmsg<const V4: bool>(socket: Socket<V4>) -> Result<Outcome, Outcome> {
    // (UDP-Lite sends by this hook too.)
    let caller = Caller::of(socket).filter(|caller| caller.protocol == protocol::UDP);
    let Some(caller) = caller else {
        return Ok(Outcome::NotOurs);
    };
    // What a pod has connected stays with the packets, and takes no answer from a backend.
    if !caller.is_node() && socket.is_connected() {
        return Ok(Outcome::NotOurs);
    }
    let (address, port) = (socket.address(), socket.port());
    let cookie = socket.cookie();
    let backend = match peers::kept(caller, cookie, &address, port) {
        Some(backend) => backend,
        None => {
            let Some((id, backend)) = caller.choose(&address, port)? else {
                return Ok(Outcome::NotOurs);
            };
            peers::keep(cookie, &address, port, id, backend);
            caller.takes_answers(socket.source_port(), backend);
            backend
        }
    };
    socket.set(&backend.address, backend.port);
    Ok(Outcome::Translated)
}
