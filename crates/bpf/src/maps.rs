//! The maps, and the constants that the loader sets.

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, PerCpuArray},
    macros::btf_map,
};
use tombolo_abi::{
    Addr, COUNTER_SLOTS, Config, Counter, Endpoint, FlowKey, FlowState, MacKey, NeighbourFlow, Route,
    RouteKey, capacity,
};

use crate::icmp::{Bucket, Scratch};

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

/// Tracked flows.
#[btf_map]
pub static FLOWS: HashMap<FlowKey, FlowState, { capacity::FLOWS }> = HashMap::new();

/// `FLOWS` of the ABI version that is taken over from. The loader makes none: it puts that version's in its
/// place while `READ_THROUGH` is set.
#[btf_map]
pub static NEIGHBOUR_FLOWS: HashMap<FlowKey, NeighbourFlow, { capacity::FLOWS }> = HashMap::new();

/// Where ICMP errors are put together; too large for the stack. Private to the programs.
#[btf_map]
pub static ICMP_SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// What limits ICMP errors. Private to the programs.
#[btf_map]
pub static ICMP_BUCKET: PerCpuArray<Bucket, 1> = PerCpuArray::new();

/// 1: flows are tracked. Read-only once loaded, so the verifier removes the branch not taken.
#[unsafe(no_mangle)]
pub static TRACK_FLOWS: Global<u32> = Global::new(0);

/// 1: programs of another ABI version may run at other hooks. Read-only, as `TRACK_FLOWS`.
#[unsafe(no_mangle)]
pub static READ_THROUGH: Global<u32> = Global::new(0);
