//! Which Service a packet is for, and which of its backends takes it.

use core::ffi::{c_long, c_void};

use aya_ebpf::{
    bindings::BPF_ANY,
    btf_maps::lpm_trie::Key,
    helpers::{bpf_get_prandom_u32, bpf_loop},
};
use tombolo_abi::{
    Addr, Affinity, AffinityKey, BackendState, FlowKey, Frontend, FrontendKey, Outcome, Route, SLAB_ROW, Slab,
};

use crate::{
    flows::now,
    maps::{AFFINITY, BACKENDS, FRONTENDS, SLABS, SOURCE_RANGES, SourceRange},
    resolve,
};

/// Backends that are looked at when the chosen one has just ceased to serve.
const CHOICES: u32 = 4;
/// Bits of a [`SourceRange`].
const SOURCE_RANGE_BITS: u32 = 32 + 128;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// Finds the frontend of a packet; what is looked up is written to `wanted`. Out of line, for the room on the stack.
#[inline(never)]
pub fn find(key: &FlowKey, wanted: &mut FrontendKey) -> Option<&'static Frontend> {
    // Somebody made it up: it is no host's but the sender's own.
    if key.destination.is_loopback() {
        return None;
    }
    *wanted = FrontendKey {
        address: key.destination,
        port: key.destination_port,
        protocol: key.protocol,
        pad: 0,
    };
    if let Some(frontend) = at(wanted) {
        return Some(frontend);
    }
    wanted.address = any(key);
    let frontend = at(wanted)?;
    let route = resolve::node(&key.destination)?;
    let takes = route.flags & Route::NODE_PORTS != 0 || frontend.flags & Frontend::HOST_PORT != 0;
    (resolve::is_local(route) && takes).then_some(frontend)
}

/// Finds the host port that the node's own sockets reach at a loopback address; as [`find`].
#[inline(never)]
pub fn find_at_loopback(key: &FlowKey, wanted: &mut FrontendKey) -> Option<&'static Frontend> {
    *wanted = FrontendKey {
        address: key.destination,
        port: key.destination_port,
        protocol: key.protocol,
        pad: 0,
    };
    if let Some(frontend) = at(wanted) {
        return Some(frontend);
    }
    wanted.address = any(key);
    at(wanted).filter(|frontend| frontend.flags & Frontend::HOST_PORT != 0)
}

/// What stands for all of the node's addresses of a family.
#[inline(always)]
fn any(key: &FlowKey) -> Addr {
    if key.destination.is_v4() {
        Addr::from_v4_word(0)
    } else {
        Addr::UNSPECIFIED
    }
}

/// Whether this is an address of Services, none of which has the port; as [`find`].
#[inline(always)]
pub fn is_address(key: &FlowKey, wanted: &mut FrontendKey) -> bool {
    *wanted = FrontendKey {
        address: key.destination,
        port: 0,
        protocol: 0,
        pad: 0,
    };
    at(wanted).is_some()
}

#[inline(always)]
fn at(key: &FrontendKey) -> Option<&'static Frontend> {
    // SAFETY: the memory stays mapped for the whole run of a program, and a frontend is used at once. One that is
    // removed meanwhile sends one flow more to where it did.
    unsafe { FRONTENDS.get(key) }
}

/// Whether a client is let in. Out of line, for the room on the stack.
#[inline(never)]
pub fn lets_in(frontend: &Frontend, client: &Addr) -> bool {
    if frontend.source_ranges == 0 {
        return true;
    }
    let client = SourceRange {
        ranges: frontend.source_ranges.to_be(),
        address: *client,
    };
    SOURCE_RANGES.get(&Key::new(SOURCE_RANGE_BITS, client)).is_some()
}

/// Chooses a backend for a new flow.
///
/// # Errors
/// `NoBackend`, `BackendElsewhere`: there is none.
#[inline(always)]
pub fn choose(frontend: &Frontend, key: &FlowKey, external: bool) -> Result<u32, Outcome> {
    let id = chosen(frontend, key, external);
    let drops = if external {
        Frontend::DROP_EXTERNAL
    } else {
        Frontend::DROP_INTERNAL
    };
    match id {
        0 if frontend.flags & drops != 0 => Err(Outcome::BackendElsewhere),
        0 => Err(Outcome::NoBackend),
        id => Ok(id),
    }
}

/// The backend's id; 0: there is none. Out of line, for the room on the stack.
#[inline(never)]
fn chosen(frontend: &Frontend, key: &FlowKey, external: bool) -> u32 {
    // Read once, whole: the slab that it names stays as it is for longer than a program runs.
    // SAFETY: an aligned word of the map's.
    let slab = unsafe {
        if external {
            core::ptr::read_volatile(&raw const frontend.external)
        } else {
            core::ptr::read_volatile(&raw const frontend.internal)
        }
    };
    if slab.is_empty() {
        return 0;
    }
    if frontend.affinity != 0
        && let Some(id) = kept(frontend, key, slab)
    {
        return id;
    }
    let len = u32::from(slab.len()).max(1);
    let first = if external && frontend.flags & Frontend::MAGLEV_EXTERNAL != 0 {
        flow_hash(key, frontend.affinity != 0) % len
    } else {
        // SAFETY: a helper call.
        let random = u64::from(unsafe { bpf_get_prandom_u32() });
        ((random * u64::from(len)) >> 32) as u32
    };
    let mut id = 0;
    for step in 0..CHOICES {
        let index = first + step;
        id = entry(slab, if index >= len { index % len } else { index });
        if id != 0 {
            break;
        }
    }
    if id != 0 && frontend.affinity != 0 {
        keep(frontend, key, id);
    }
    id
}

/// A backend of a slab; 0: it does not serve.
#[inline(always)]
fn entry(slab: Slab, index: u32) -> u32 {
    let Some(row) = SLABS.get(slab.base() + index / SLAB_ROW as u32) else {
        return 0;
    };
    match row.backends.get(index as usize % SLAB_ROW) {
        Some(id) if serves(*id) => *id,
        _ => 0,
    }
}

#[inline(always)]
fn serves(id: u32) -> bool {
    id != 0
        && BACKENDS
            .get(id)
            .is_some_and(|backend| backend.state == BackendState::Serving as u8)
}

#[inline(always)]
const fn affinity_key(frontend: &Frontend, key: &FlowKey) -> AffinityKey {
    AffinityKey {
        client: key.source,
        affinity: frontend.affinity,
    }
}

/// The backend that a client has kept, if it serves, is one of these, and the client has come back in time.
#[inline(always)]
fn kept(frontend: &Frontend, key: &FlowKey, slab: Slab) -> Option<u32> {
    let row = AFFINITY.get_ptr_mut(affinity_key(frontend, key))?;
    // SAFETY: read at once; should it be another client's meanwhile, this one moves to another backend.
    let (last_seen, id) = unsafe { ((*row).last_seen, (*row).backend) };
    let now = now();
    if now.saturating_sub(last_seen) >= u64::from(frontend.affinity_timeout) * NS_PER_SECOND {
        return None;
    }
    if !serves(id) || !names(slab, id) {
        return None;
    }
    // SAFETY: as above.
    unsafe { (*row).last_seen = now };
    Some(id)
}

/// Notes a client's backend.
#[inline(always)]
fn keep(frontend: &Frontend, key: &FlowKey, id: u32) {
    let row = Affinity {
        last_seen: now(),
        backend: id,
        pad: 0,
    };
    // Where that cannot be, the client's next flow goes elsewhere.
    let _ = AFFINITY.insert(affinity_key(frontend, key), row, u64::from(BPF_ANY));
}

/// Whether a backend is among those that a frontend has for clients of this node.
#[inline(always)]
pub fn has(frontend: &Frontend, id: u32) -> bool {
    // SAFETY: as in `chosen`.
    let slab = unsafe { core::ptr::read_volatile(&raw const frontend.internal) };
    names(slab, id)
}

/// A search in a slab.
#[repr(C)]
struct Search {
    slab: u64,
    id: u32,
    found: u32,
}

/// Whether a slab names a backend.
#[inline(always)]
fn names(slab: Slab, id: u32) -> bool {
    let mut search = Search {
        slab: slab.0,
        id,
        found: 0,
    };
    let rows = u32::from(slab.len()).div_ceil(SLAB_ROW as u32);
    // SAFETY: a helper call; the callback takes a `Search`, which lives on.
    unsafe { bpf_loop(rows, search_row as *mut c_void, (&raw mut search).cast(), 0) };
    search.found != 0
}

/// Looks at one row; 1 ends the search.
extern "C" fn search_row(index: u32, search: *mut Search) -> c_long {
    // SAFETY: `names` passes it.
    let search = unsafe { &mut *search };
    if let Some(row) = SLABS.get(Slab(search.slab).base() + index) {
        for id in row.backends {
            if id == search.id {
                search.found = 1;
                return 1;
            }
        }
    }
    0
}

/// A number that is the same for all packets of a flow, or of a client, on every node (MurmurHash3, 32 bits).
#[inline(always)]
fn flow_hash(key: &FlowKey, of_client: bool) -> u32 {
    let mut hash = 0x746f_6d62;
    for word in key.source.0 {
        hash = mix(hash, word);
    }
    if !of_client {
        for word in key.destination.0 {
            hash = mix(hash, word);
        }
        hash = mix(
            hash,
            u32::from(key.source_port) << 16 | u32::from(key.destination_port),
        );
        hash = mix(hash, u32::from(key.protocol));
    }
    hash ^= hash >> 16;
    hash = hash.wrapping_mul(0x85eb_ca6b);
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

#[inline(always)]
const fn mix(hash: u32, word: u32) -> u32 {
    let word = word
        .wrapping_mul(0xcc9e_2d51)
        .rotate_left(15)
        .wrapping_mul(0x1b87_3593);
    (hash ^ word)
        .rotate_left(13)
        .wrapping_mul(5)
        .wrapping_add(0xe654_6b64)
}
