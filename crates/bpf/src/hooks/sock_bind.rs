//! What port a process asks for: of those that translated flows have their sources from, none that one has.

use core::ffi::{c_long, c_void};

use aya_ebpf::{helpers::bpf_for_each_map_elem, macros::cgroup_sock_addr, programs::SockAddrContext};
use tombolo_abi::{Addr, FlowKey, FlowState, Hook, Outcome, SOURCE_PORTS};

use crate::{
    maps::FLOWS,
    resolve,
    socket::{Socket, answered},
    socket_services::Caller,
    source_ports::{self, LOOKED_FOR, UNUSED, USED},
};

/// Of IPv4.
#[cgroup_sock_addr(bind4)]
pub fn sock_bind4(context: SockAddrContext) -> i32 {
    answered(Hook::SockBind, bind(Socket::<true>::new(&context)))
}

/// Of IPv6.
#[cgroup_sock_addr(bind6)]
pub fn sock_bind6(context: SockAddrContext) -> i32 {
    answered(Hook::SockBind, bind(Socket::<false>::new(&context)))
}

#[inline(always)]
fn bind<const V4: bool>(socket: Socket<V4>) -> Result<Outcome, Outcome> {
    let port = socket.port();
    // The kernel itself gives none of these ports to who asks for any.
    if u16::from_be(port) < *SOURCE_PORTS.start() {
        return Ok(Outcome::NotOurs);
    }
    let caller = Caller::of(socket).filter(|caller| caller.is_node());
    let Some(caller) = caller else {
        return Ok(Outcome::NotOurs);
    };
    let Some(mark) = source_ports::mark(caller.protocol, port) else {
        return Ok(Outcome::NotOurs);
    };
    // SAFETY: an aligned word of the map's.
    unsafe {
        if mark.read_volatile() == UNUSED {
            return Ok(Outcome::NotOurs);
        }
        mark.write_volatile(LOOKED_FOR);
        if is_in_use(socket.address(), port, caller.protocol) {
            mark.write_volatile(USED);
            return Err(Outcome::PortInUse);
        }
        // Unless a flow has come to it since. (Programs have no compare-and-swap from the compiler.)
        if mark.read_volatile() == LOOKED_FOR {
            mark.write_volatile(UNUSED);
        }
    }
    Ok(Outcome::NotOurs)
}

/// A search among flows.
#[repr(C)]
struct Search {
    address: Addr,
    port: u16,
    protocol: u8,
    found: u8,
}

/// Whether a translated flow has this port of the node's address. That is a look at all flows, which takes milliseconds;
/// but it comes only for a port that a flow has, or has had since the last look.
#[inline(always)]
fn is_in_use(address: Addr, port: u16, protocol: u8) -> bool {
    let mut search = Search {
        address,
        port,
        protocol,
        found: 0,
    };
    let table: *mut c_void = (&raw const FLOWS).cast_mut().cast();
    // SAFETY: a helper call; the callback takes a `Search`, which lives on.
    unsafe { bpf_for_each_map_elem(table, look as *mut c_void, (&raw mut search).cast(), 0) };
    search.found != 0
}

/// Looks at one flow; 1 ends the search.
extern "C" fn look(
    _map: *mut c_void,
    key: *const FlowKey,
    state: *mut FlowState,
    search: *mut Search,
) -> c_long {
    // SAFETY: the kernel calls it with a row's key and value, and what `is_in_use` passes.
    let (key, row, search) = unsafe { (&*key, &(*state).direction, &mut *search) };
    // Answers come to the port.
    if key.destination_port != search.port
        || key.protocol != search.protocol
        || row.original != 0
        || row.backend == 0
        || !resolve::is_node_primary(&key.destination)
    {
        return 0;
    }
    let Addr(asked) = search.address;
    let is_any = asked[0] == 0 && asked[1] == 0 && asked[3] == 0;
    if is_any && (asked[2] == 0 || key.destination.is_v4()) || search.address == key.destination {
        search.found = 1;
        return 1;
    }
    0
}
