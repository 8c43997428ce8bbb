//! Tracking: which flows there are, for the translation and the policy that will need to know.
//!
//! Compiled in, and by default switched off. How entries will end is in this crate's README.

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::HashMap,
    helpers::bpf_ktime_get_ns,
};
use tombolo_abi::{FlowKey, FlowState, NeighbourFlow, Outcome, capacity};

use crate::{
    maps::{FLOWS, NEIGHBOUR_FLOWS, READ_THROUGH, TRACK_FLOWS},
    parse::{Packet, protocol},
    skb::Skb,
};

/// ICMP echo reply and request.
const ECHO_V4: [u8; 2] = [0, 8];
/// ICMPv6 echo request and reply.
const ECHO_V6: [u8; 2] = [128, 129];

/// Finds the packet's flow and notes that it lives, or begins one: both directions or none.
/// Fragments past the first and ICMP other than echo belong to no flow.
///
/// # Errors
/// `Malformed`: no room for ports. `FlowTableFull`: only flows that are there go on.
#[inline(always)]
pub fn track(skb: Skb, packet: &Packet) -> Result<(), Outcome> {
    if TRACK_FLOWS.load() == 0 {
        return Ok(());
    }
    let Some((source_port, destination_port)) = ports(skb, packet)? else {
        return Ok(());
    };
    let key = FlowKey {
        source: packet.source,
        destination: packet.destination,
        source_port,
        destination_port,
        protocol: packet.protocol,
        pad: [0; 3],
    };
    // SAFETY: a helper call.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(state) = FLOWS.get_ptr_mut(key) {
        // SAFETY: an aligned word; whichever CPU writes last is right enough.
        unsafe { (*state).last_seen = now };
        return Ok(());
    }
    begin(&key, now)
}

/// Out of line: once in a flow.
#[inline(never)]
fn begin(key: &FlowKey, now: u64) -> Result<(), Outcome> {
    if READ_THROUGH.load() != 0 && goes_on(key, now)? {
        return Ok(());
    }
    insert(&FLOWS, key, |original| FlowState {
        last_seen: now,
        original,
        pad: 0,
        #[cfg(feature = "abi-next")]
        began: now,
    })
}

/// Whether the neighbour's table has the flow, which then goes on there until the table is carried over. A new
/// flow begins there too: until all programs are replaced, its other direction may be the neighbour's.
#[inline(always)]
fn goes_on(key: &FlowKey, now: u64) -> Result<bool, Outcome> {
    if let Some(state) = NEIGHBOUR_FLOWS.get_ptr_mut(key) {
        // SAFETY: as in `track`; this field is where it is in every version.
        unsafe { (*state).last_seen = now };
        return Ok(true);
    }
    insert(&NEIGHBOUR_FLOWS, key, |original| NeighbourFlow {
        last_seen: now,
        original,
        ..NeighbourFlow::default()
    })?;
    Ok(false)
}

/// Makes both directions of a flow in a table, or none.
#[inline(always)]
fn insert<V>(
    table: &HashMap<FlowKey, V, { capacity::FLOWS }>,
    key: &FlowKey,
    state: impl Fn(u32) -> V,
) -> Result<(), Outcome> {
    // Another CPU may have begun the same flow, or its answer: then that one stands.
    if table.insert(key, state(1), u64::from(BPF_NOEXIST)).is_err() {
        return if table.get_ptr(key).is_some() {
            Ok(())
        } else {
            Err(Outcome::FlowTableFull)
        };
    }
    if table
        .insert(key.reversed(), state(0), u64::from(BPF_ANY))
        .is_err()
    {
        let _ = table.remove(key);
        return Err(Outcome::FlowTableFull);
    }
    Ok(())
}

/// Source and destination port, or what stands for them; `None`: this is of no flow.
#[inline(always)]
fn ports(skb: Skb, packet: &Packet) -> Result<Option<(u16, u16)>, Outcome> {
    if packet.later_fragment {
        return Ok(None);
    }
    match packet.protocol {
        protocol::TCP | protocol::UDP => {
            let [a, b, c, d] = skb.load::<[u8; 4]>(packet.transport).ok_or(Outcome::Malformed)?;
            Ok(Some((u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]))))
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let [kind, _, _, _, a, b] = skb.load::<[u8; 6]>(packet.transport).ok_or(Outcome::Malformed)?;
            let echo = if packet.v4 { ECHO_V4 } else { ECHO_V6 };
            let id = u16::from_ne_bytes([a, b]);
            Ok((kind == echo[0] || kind == echo[1]).then_some((id, id)))
        }
        _ => Ok(Some((0, 0))),
    }
}
