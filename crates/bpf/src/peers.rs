//! What sockets know: with which backends they speak, and what their processes call them.

use aya_ebpf::bindings::BPF_ANY;
use tombolo_abi::{Addr, Backend, BackendState, SocketKey, SocketPeer};

use crate::{
    maps::{BACKENDS, CONNECTED_PEERS, SOCKET_PEERS},
    parse::protocol,
    socket::Socket,
    socket_services::Caller,
};

/// Remembers what a TCP socket that is about to connect asks for, in whose place the backend is.
#[inline(always)]
pub fn connects<const V4: bool>(socket: Socket<V4>, service: &Addr, port: u16, backend: &Backend) {
    // SAFETY: the socket is there while its hook runs.
    let row = unsafe { CONNECTED_PEERS.get_or_insert_ptr_mut(&socket.context(), None) };
    // Without memory, the process will see the backend's address.
    if !row.is_null() {
        // SAFETY: the row is the socket's, which is locked.
        unsafe {
            (*row).service = *service;
            (*row).service_port = port;
            (*row).backend = backend.address;
            (*row).backend_port = backend.port;
        }
    }
}

/// Forgets what a socket that is about to connect has asked for before: it means this address itself.
#[inline(always)]
pub fn connects_itself<const V4: bool>(socket: Socket<V4>, address: &Addr, port: u16) {
    if socket.protocol() == u32::from(protocol::TCP) {
        // SAFETY: as in `connects`.
        let row = unsafe { CONNECTED_PEERS.get_ptr_mut(&socket.context()) };
        if !row.is_null() {
            // SAFETY: as in `connects`.
            unsafe { (*row).backend_port = 0 };
        }
        return;
    }
    let key = key(socket.cookie(), SocketKey::FROM_BACKEND, address, port);
    if at(&key).is_some() {
        let _ = SOCKET_PEERS.remove(key);
    }
}

/// Gives the address in hand, of which the socket has heard, the name that its process knows: the Service's.
#[inline(always)]
pub fn name<const V4: bool>(socket: Socket<V4>) {
    let (address, port) = (socket.address(), socket.port());
    if socket.protocol() == u32::from(protocol::TCP) {
        // SAFETY: as in `connects`.
        let row = unsafe { CONNECTED_PEERS.get_ptr_mut(&socket.context()) };
        if row.is_null() {
            return;
        }
        // SAFETY: as in `connects`; but a connection that is closed and begun anew meanwhile may show half of each.
        let row = unsafe { &*row };
        if row.backend_port == port && row.backend == address {
            socket.set(&row.service, row.service_port);
        }
        return;
    }
    let key = key(socket.cookie(), SocketKey::FROM_BACKEND, &address, port);
    if let Some(peer) = at(&key) {
        socket.set(&peer.address, peer.port);
    }
}

/// The backend that a UDP socket has sent to a Service's address before, while it serves that Service.
#[inline(always)]
pub fn kept(caller: Caller, cookie: u64, service: &Addr, port: u16) -> Option<&'static Backend> {
    let peer = at(&key(cookie, SocketKey::TO_SERVICE, service, port))?;
    let backend = BACKENDS.get(peer.backend)?;
    // An id may be another backend's in the end.
    let is_it = backend.address == peer.address && backend.port == peer.port;
    if !is_it || backend.state != BackendState::Serving as u8 || !caller.keeps(service, port, peer.backend) {
        return None;
    }
    // What was asked last is what answers are taken for; and what answers nobody reads is forgotten sooner.
    let answers = key(cookie, SocketKey::FROM_BACKEND, &backend.address, backend.port);
    if at(&answers).is_none_or(|asked| asked.port != port || asked.address != *service) {
        put(&answers, service, port, peer.backend);
    }
    Some(backend)
}

/// Remembers to which backend a UDP socket sends what is for a Service's address.
#[inline(always)]
pub fn keep(cookie: u64, service: &Addr, port: u16, id: u32, backend: &Backend) {
    let to = key(cookie, SocketKey::TO_SERVICE, service, port);
    put(&to, &backend.address, backend.port, id);
    let answers = key(cookie, SocketKey::FROM_BACKEND, &backend.address, backend.port);
    put(&answers, service, port, id);
}

#[inline(always)]
fn put(key: &SocketKey, address: &Addr, port: u16, backend: u32) {
    let peer = SocketPeer {
        address: *address,
        port,
        pad: 0,
        backend,
    };
    // Where that cannot be, the next datagram finds another backend, or the answer shows this one.
    let _ = SOCKET_PEERS.insert(key, peer, u64::from(BPF_ANY));
}

#[inline(always)]
fn at(key: &SocketKey) -> Option<&'static SocketPeer> {
    // SAFETY: read at once; should it be another socket's meanwhile, this one's has not been used for long, and one
    // datagram goes astray.
    unsafe { SOCKET_PEERS.get(key) }
}

#[inline(always)]
const fn key(cookie: u64, way: u16, address: &Addr, port: u16) -> SocketKey {
    SocketKey {
        cookie,
        address: *address,
        port,
        way,
        pad: 0,
    }
}
