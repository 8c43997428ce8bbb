//! Fragments past the first have no ports: these are remembered from the first.

use aya_ebpf::bindings::BPF_ANY;
use tombolo_abi::Addr;

use crate::{maps::FRAGMENTS, parse::Packet};

/// What the fragments of a packet share (RFC 791; RFC 8200, section 4.5).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FragmentKey {
    source: Addr,
    destination: Addr,
    id: u32,
    protocol: u32,
}

/// Source and destination port, in network byte order.
pub type Ports = [u16; 2];

impl FragmentKey {
    #[inline(always)]
    fn set(&mut self, packet: &Packet) {
        // Field by field, as elsewhere: a whole value would be put together on the stack first.
        self.source = packet.source;
        self.destination = packet.destination;
        self.id = packet.fragment_id;
        self.protocol = u32::from(packet.protocol);
    }
}

/// Remembers the ports of a first fragment for those that follow. The key is written here.
#[inline(always)]
pub fn note(packet: &Packet, key: &mut FragmentKey, ports: Ports) {
    key.set(packet);
    // Where there is no room, the others will be dropped, and the packet is lost as any may be.
    let key: &FragmentKey = key;
    let _ = FRAGMENTS.insert(key, ports, u64::from(BPF_ANY));
}

/// The ports of a later fragment, if the first has been here. The key is written here.
#[inline(always)]
pub fn ports(packet: &Packet, key: &mut FragmentKey) -> Option<Ports> {
    key.set(packet);
    let key: &FragmentKey = key;
    // SAFETY: read at once; should the entry be another packet's by then, this one is misled as if it were of its
    // flow, and is put together with nothing.
    unsafe { FRAGMENTS.get(key) }.copied()
}
