//! The maps, and the constants that the loader sets.

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray},
    macros::btf_map,
};
use tombolo_abi::{
    Addr, Affinity, AffinityKey, Backend, COUNTER_SLOTS, Config, Counter, Endpoint, FlowKey, FlowState,
    Frontend, FrontendKey, MacKey, NeighbourFlow, Route, RouteKey, SlabRow, Timeouts, capacity,
};

use crate::{
    answer::Scratch,
    flows::FlowScratch,
    fragments::{FragmentKey, Ports},
    icmp::Bucket,
    tracking::Tracking,
};

/// Memory is taken as entries come, so that what is not used costs next to nothing.
const AS_NEEDED: usize = BPF_F_NO_PREALLOC as usize;

/// A [`tombolo_abi::SourceRangeKey`] past its length.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SourceRange {
    /// The ranges' number.
    pub ranges: u32,
    /// The client.
    pub address: Addr,
}

/// A table of flows, of whichever version.
pub type FlowTable<V> = HashMap<FlowKey, V, { capacity::FLOWS }, AS_NEEDED>;

/// Pods of this node.
#[btf_map]
pub static ENDPOINTS: HashMap<Addr, Endpoint, { capacity::ENDPOINTS }> = HashMap::new();

/// Blocks and addresses of all nodes.
#[btf_map]
pub static ROUTES: HashMap<RouteKey, Route, { capacity::ROUTES }> = HashMap::new();

/// MACs that nodes' uplinks send from.
#[btf_map]
pub static UPLINK_MACS: HashMap<MacKey, u32, { capacity::UPLINK_MACS }> = HashMap::new();

/// The node's configuration, at index 0.
#[btf_map]
pub static CONFIG: Array<Config, 1> = Array::new();

/// What became of packets, by hook and outcome.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counter, COUNTER_SLOTS> = PerCpuArray::new();

/// Tracked flows. A row is never overwritten, but removed and made anew: where a row has a timer, some kernels end
/// it while they hold the lock that the timer's callback may wait for.
#[btf_map]
pub static FLOWS: FlowTable<FlowState> = FlowTable::new();

/// `FLOWS` of the ABI version that is taken over from. The loader makes none: it puts that version's in its
/// place while `READ_THROUGH` is set.
#[btf_map]
pub static NEIGHBOUR_FLOWS: FlowTable<NeighbourFlow> = FlowTable::new();

/// Where Services are reached.
#[btf_map]
pub static FRONTENDS: HashMap<FrontendKey, Frontend, { capacity::FRONTENDS }, AS_NEEDED> = HashMap::new();

/// The backends of frontends, by their ids.
#[btf_map]
pub static SLABS: Array<SlabRow, { capacity::SLAB_ROWS }> = Array::new();

/// Backends, by their ids.
#[btf_map]
pub static BACKENDS: Array<Backend, { capacity::BACKENDS }> = Array::new();

/// Clients that keep their backends. The least recently seen are forgotten when there is no room.
#[btf_map]
pub static AFFINITY: LruHashMap<AffinityKey, Affinity, { capacity::AFFINITY }> = LruHashMap::new();

/// Clients that Services let in.
#[btf_map]
pub static SOURCE_RANGES: LpmTrie<SourceRange, u32, { capacity::SOURCE_RANGES }> = LpmTrie::new();

/// Ports of packets of which fragments are on their way. Private to the programs.
#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Ports, 8192> = LruHashMap::new();

/// Of the packet in hand. Private to the programs.
#[btf_map]
pub static TRACKING: PerCpuArray<Tracking, 1> = PerCpuArray::new();

/// Where rows of flows are put together; too large for the stack. Private to the programs.
#[btf_map]
pub static FLOW_SCRATCH: PerCpuArray<FlowScratch, 1> = PerCpuArray::new();

/// Where answers are put together; too large for the stack. Private to the programs.
#[btf_map]
pub static ANSWER_SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// What limits ICMP errors. Private to the programs.
#[btf_map]
pub static ICMP_BUCKET: PerCpuArray<Bucket, 1> = PerCpuArray::new();

/// 1: flows are tracked. Read-only once loaded, so the verifier removes the branch not taken.
#[unsafe(no_mangle)]
pub static TRACK_FLOWS: Global<u32> = Global::new(0);

/// When flows end. Read-only, as `TRACK_FLOWS`.
#[unsafe(no_mangle)]
pub static TIMEOUTS: Global<Timeouts> = Global::new(Timeouts::DEFAULT);

/// 1: programs of another ABI version may run at other hooks. Read-only, as `TRACK_FLOWS`.
#[unsafe(no_mangle)]
pub static READ_THROUGH: Global<u32> = Global::new(0);
