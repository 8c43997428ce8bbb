//! Services: what is for one of them is given to a backend, and what answers gets the address back that the client
//! knows.
//!
//! What happens once in a flow is out of line.

use aya_ebpf::bindings::__sk_buff;
use tombolo_abi::{Addr, Backend, Config, Direction, FlowKey, GATEWAY_V4, GATEWAY_V6, Outcome, RouteKind};

use crate::{
    deliver::{Entry, deliver},
    expiry, fib,
    flows::{self, FlowScratch, Made},
    forward::forward,
    frontends,
    icmp::{self, Error},
    maps::{BACKENDS, FLOW_SCRATCH, TRACK_FLOWS},
    parse::{Packet, protocol},
    refuse,
    resolve::{self, Place, resolve},
    skb::Skb,
    source_ports,
    tracking::{Found, Tracking},
    translate::Translation,
    transport::tcp,
    verdict::Verdict,
};

/// From where a packet comes, and so which backends are for it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Client {
    /// A pod of this node.
    Pod = 0,
    /// Anybody else.
    External = 1,
}

/// Whether Services are to be looked for.
#[inline(always)]
pub fn are_on() -> bool {
    resolve::config().is_some_and(|config| config.flags & Config::SERVICES != 0)
}

/// Where a packet goes; what becomes of it is then known.
///
/// # Errors
/// Of [`Tracking::find`] and [`begin`], answered.
#[inline(always)]
pub fn place(skb: Skb, packet: &Packet, client: Client, tracking: &mut Tracking) -> Result<Place, Verdict> {
    if !are_on() && TRACK_FLOWS.load() == 0 {
        return Ok(resolve(&packet.destination));
    }
    let found = find(skb, packet, tracking)?;
    let place = resolve(tracking.to.destination(packet));
    let Found::Key { tcp_flags } = found else {
        return Ok(place);
    };
    if are_on() && place.may_be_a_service() && begin(skb, packet, tcp_flags, client, tracking)? {
        return Ok(resolve(&tracking.to.ends.destination));
    }
    if are_on() && tcp_flags & (tcp::SYN | tcp::ACK) == tcp::SYN {
        flows::begin_beside(tracking);
    }
    if TRACK_FLOWS.load() != 0 && !matches!(place, Place::Services) {
        flows::begin_untranslated(tracking)?;
    }
    Ok(place)
}

/// What arrived at an address that no pod has, and is a Service's all the same, or answers what went out for one;
/// `None`: it is neither. `check` holds who claims to be a pod to the way that a pod's packets take.
///
/// # Errors
/// As [`place`]; and those of `check`.
#[inline(always)]
pub fn arrived(
    skb: Skb,
    packet: &Packet,
    tracking: &mut Tracking,
    check: impl FnOnce() -> Result<(), Outcome>,
) -> Result<Option<Verdict>, Verdict> {
    if !are_on() {
        return Ok(None);
    }
    if let Found::Key { tcp_flags } = find(skb, packet, tracking)? {
        begin(skb, packet, tcp_flags, Client::External, tracking)?;
    }
    if !tracking.to.is_set() {
        return Ok(None);
    }
    let to = &tracking.to;
    if to.flags & Translation::FROM_POD != 0 {
        check()?;
    }
    match resolve(&to.ends.destination) {
        Place::Endpoint(endpoint) => deliver(skb, packet, to, endpoint, Entry::Forwarded).map(Some),
        Place::Remote(route) if route.kind == RouteKind::Pods as u8 => {
            forward(skb, packet, to, route).map(Some)
        }
        Place::Remote(_) | Place::Outside => fib::send(skb, packet, to).map(Some),
        Place::OwnNode => {
            to.apply(skb, packet)?;
            skb.clear_resolved();
            Ok(Some(Verdict::pass(Outcome::ToStack)))
        }
        Place::OwnBlock => Err(Outcome::UnknownEndpoint.into()),
        Place::Services => Err(Outcome::NoService.into()),
    }
}

/// What becomes of a packet of a flow that is there; none begins but one whose packets stay as they are.
#[inline(always)]
pub fn goes_on(skb: Skb, packet: &Packet, tracking: &mut Tracking) -> Result<(), Verdict> {
    if !are_on() && TRACK_FLOWS.load() == 0 {
        return Ok(());
    }
    if matches!(find(skb, packet, tracking)?, Found::Key { .. }) && TRACK_FLOWS.load() != 0 {
        flows::begin_untranslated(tracking)?;
    }
    Ok(())
}

/// Whether a packet is an ICMP error about one of a flow that is there; what becomes of it is then known.
#[inline(always)]
pub fn is_about_a_flow(skb: Skb, packet: &Packet, tracking: &mut Tracking) -> bool {
    are_on() && tracking.find(skb, packet).is_ok() && tracking.to.is_quoting()
}

/// Gives what the node's stack answers for a Service the address that the client knows; `false`: it does not answer.
#[inline(always)]
pub fn stack_answers(skb: Skb, packet: &Packet) -> Result<bool, Verdict> {
    if !are_on() {
        return Ok(false);
    }
    let tracking = Tracking::begin()?;
    match tracking.find(skb, packet) {
        Ok(Found::Flow) if tracking.to.is_reply() => {
            tracking.to.apply(skb, packet)?;
            Ok(true)
        }
        Err(reason @ Outcome::BackendGone) => Err(reason.into()),
        _ => Ok(false),
    }
}

#[inline(always)]
fn find(skb: Skb, packet: &Packet, tracking: &mut Tracking) -> Result<Found, Verdict> {
    tracking
        .find(skb, packet)
        .map_err(|reason| refused(skb, packet, reason))
}

/// Begins the flow of a packet that is for a Service; `false`: it is for none.
///
/// # Errors
/// What [`start`] has, answered.
#[inline(always)]
fn begin(
    skb: Skb,
    packet: &Packet,
    tcp_flags: u8,
    client: Client,
    tracking: &mut Tracking,
) -> Result<bool, Verdict> {
    let facts = client as u32 | u32::from(tcp_flags) << 8;
    tracking.backend = 0;
    let tracking = tracking.shared();
    let mut returned = service_choose(facts);
    let tracking = tracking.shared();
    if returned == 0 && tracking.backend != 0 {
        returned = service_begin(skb.as_ptr(), facts);
    }
    let tracking = tracking.shared();
    match Outcome::from_number(returned as u8) {
        Some(reason) if returned != 0 => Err(refused(skb, packet, reason)),
        _ => Ok(tracking.to.is_set()),
    }
}

/// What is said to the sender of a packet to an address of Services that is for none.
#[inline(always)]
pub fn unknown(skb: Skb, packet: &Packet) -> Verdict {
    if packet.is_later_fragment() {
        return Outcome::UnknownFragment.into();
    }
    refused(skb, packet, Outcome::NoService)
}

/// What is said to the sender of a packet that a Service does not take.
#[inline(always)]
pub fn refused(skb: Skb, packet: &Packet, reason: Outcome) -> Verdict {
    match reason {
        Outcome::NoBackend | Outcome::NoService | Outcome::BackendGone | Outcome::UnknownFlow => {
            if packet.protocol == protocol::TCP {
                refuse::reset(skb, packet, reason)
            } else {
                icmp::answer(skb, packet, Error::PortUnreachable, reason)
            }
        }
        reason => reason.into(),
    }
}

/// Chooses a backend. Public by name, so that the verifier looks at it once. `facts`: the [`Client`] in the lowest
/// byte, TCP's flags in the next. Returns an outcome's number, or 0: a backend was chosen, or the packet is for no
/// Service.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn service_choose(facts: u32) -> i32 {
    match Tracking::current() {
        Some(tracking) => match choose(tracking, facts) {
            Ok(()) => 0,
            Err(reason) => reason as i32,
        },
        None => 0,
    }
}

/// # Errors
/// `NoService`, `SourceRange`, `UnknownFlow`, `NoBackend`, `BackendElsewhere`.
#[inline(always)]
fn choose(tracking: &mut Tracking, facts: u32) -> Result<(), Outcome> {
    // Most of what the node itself is sent: its stack knows its connections, and resets those of nobody.
    if !may_begin(tracking, core::hint::black_box(facts))
        && resolve::node(&tracking.key.destination).is_some_and(resolve::is_local)
    {
        return Ok(());
    }
    let Some(frontend) = frontends::find(&tracking.key, &mut tracking.frontend) else {
        return if frontends::is_address(&tracking.key, &mut tracking.frontend) {
            Err(Outcome::NoService)
        } else {
            Ok(())
        };
    };
    if !frontends::lets_in(frontend, &tracking.key.source) {
        return Err(Outcome::SourceRange);
    }
    // Asked again: what is remembered past calls, the verifier of Linux 6.1 may take for always so.
    if !may_begin(tracking, facts) {
        return Err(Outcome::UnknownFlow);
    }
    tracking.backend = frontends::choose(frontend, &tracking.key, is_external(facts))?;
    Ok(())
}

/// Whether a packet may be the first of its flow.
#[inline(always)]
const fn may_begin(tracking: &Tracking, facts: u32) -> bool {
    let flags = (facts >> 8) as u8;
    tracking.key.protocol != protocol::TCP || flags & (tcp::SYN | tcp::ACK | tcp::RST) == tcp::SYN
}

const fn is_external(facts: u32) -> bool {
    facts & 0xff == Client::External as u32
}

/// Begins a flow to the chosen backend, as `service_choose`. Returns an outcome's number, or 0: what becomes of the
/// packet is known.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn service_begin(context: *mut __sk_buff, facts: u32) -> i32 {
    match Tracking::current() {
        Some(tracking) => match start(Skb::new(context), tracking, is_external(facts)) {
            Ok(()) => 0,
            Err(reason) => reason as i32,
        },
        None => 0,
    }
}

/// # Errors
/// `SctpPort`, `NoSourcePort`, `FlowTableFull`, `NoRoute`.
#[inline(always)]
fn start(skb: Skb, tracking: &mut Tracking, external: bool) -> Result<(), Outcome> {
    let Tracking { key, to, .. } = tracking;
    let key: &FlowKey = key;
    let source = service_ends(u32::from(external));
    if source < 0 {
        return Err(Outcome::from_number(-source as u8).unwrap_or(Outcome::NoRoute));
    }
    let port = source_ports::allocate(skb, key.source_port, source == OF_NODE)?;
    let scratch = FLOW_SCRATCH.get_ptr_mut(0).ok_or(Outcome::FlowTableFull)?;
    // SAFETY: the scratch is this CPU's own, and programs of one CPU do not interleave here.
    let FlowScratch {
        original, answers, ..
    } = unsafe { &mut *scratch };
    if key.protocol == protocol::SCTP && port != key.source_port {
        flows::end(answers, answers);
        return Err(Outcome::SctpPort);
    }
    original.source_port = port;
    match flows::make(key, original) {
        Made::Done => {
            expiry::arm(key);
            to.set(key, original);
            Ok(())
        }
        // Another CPU has begun the same flow.
        Made::Taken => {
            flows::end(answers, answers);
            let row = flows::row(key).ok_or(Outcome::FlowTableFull)?;
            // SAFETY: as in `tracking`.
            to.set(key, unsafe { &*row });
            Ok(())
        }
        Made::Full => {
            flows::end(answers, answers);
            Err(Outcome::FlowTableFull)
        }
    }
}

/// The source that a backend sees is an address of this node.
const OF_NODE: i32 = 1;

/// Puts together what becomes of the packets of a new flow, in the scratch; all but the source port. Public by name, so
/// that the verifier looks at it once. Returns [`OF_NODE`] or 0, or an outcome's number, negative.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn service_ends(external: u32) -> i32 {
    match (Tracking::current(), FLOW_SCRATCH.get_ptr_mut(0)) {
        (Some(tracking), Some(scratch)) => {
            // SAFETY: the scratch is this CPU's own, and programs of one CPU do not interleave here.
            match write_ends(tracking, unsafe { &mut *scratch }, external != 0) {
                Ok(of_node) => i32::from(of_node) * OF_NODE,
                Err(reason) => -(reason as i32),
            }
        }
        _ => -(Outcome::FlowTableFull as i32),
    }
}

/// # Errors
/// `NoBackend`, `SctpPort`, `NoRoute`.
#[inline(always)]
fn write_ends(tracking: &Tracking, scratch: &mut FlowScratch, external: bool) -> Result<bool, Outcome> {
    let key = &tracking.key;
    let backend = BACKENDS.get(tracking.backend).ok_or(Outcome::NoBackend)?;
    if key.protocol == protocol::SCTP && backend.port != key.destination_port {
        return Err(Outcome::SctpPort);
    }
    let FlowScratch {
        original,
        answering,
        answers,
        ..
    } = scratch;
    original.last_seen = flows::now();
    original.original = 1;
    original.backend = tracking.backend;
    let of_node = write_source(&mut original.source, key, backend, external)?;
    original.destination = backend.address;
    original.destination_port = backend.port;
    original.flags = from_pod(&key.source);
    answering.last_seen = 0;
    answering.original = 0;
    answering.backend = tracking.backend;
    answering.source = key.destination;
    answering.destination = key.source;
    answering.source_port = key.destination_port;
    answering.destination_port = key.source_port;
    answering.flags = from_pod(&backend.address);
    answers.source = backend.address;
    answers.destination = original.source;
    answers.source_port = backend.port;
    answers.destination_port = key.source_port;
    answers.protocol = key.protocol;
    answers.pad = [0; 3];
    Ok(of_node)
}

/// Writes the source that a backend sees; returns whether it is the node's. It is the client's own, but where the
/// answer would not come back this way: from another node to somebody who is not on this one; and where a pod is its
/// own backend, and would take the answer for its own.
#[inline(always)]
fn write_source(
    source: &mut Addr,
    key: &FlowKey,
    backend: &Backend,
    external: bool,
) -> Result<bool, Outcome> {
    let v4 = key.source.is_v4();
    *source = key.source;
    if !external {
        if backend.address == key.source {
            *source = if v4 {
                Addr::from_v4_word(u32::from_ne_bytes(GATEWAY_V4))
            } else {
                Addr::from_bytes(GATEWAY_V6)
            };
        }
        return Ok(false);
    }
    if matches!(resolve(&backend.address), Place::Endpoint(_) | Place::OwnNode) {
        return Ok(false);
    }
    let config = resolve::config().ok_or(Outcome::NoRoute)?;
    *source = if v4 { config.node_v4 } else { config.node_v6 };
    if source.is_unspecified() {
        return Err(Outcome::NoRoute);
    }
    Ok(true)
}

/// What a direction of a flow is to know of who sends in it.
#[inline(always)]
fn from_pod(source: &Addr) -> u32 {
    match resolve::route(source) {
        Some(route) if route.kind == RouteKind::Pods as u8 && !resolve::is_local(route) => {
            Direction::FROM_POD
        }
        _ => 0,
    }
}
