//! The stage "tracking": which flow the packet in hand is of, and what becomes of it.
//!
//! What is known of that lies in a map: with all else, it is too large for the stack.

use aya_ebpf::bindings::__sk_buff;
use tombolo_abi::{BackendState, Direction, FlowKey, FrontendKey, Outcome};

use crate::{
    flows,
    fragments::FragmentKey,
    maps::{BACKENDS, TRACKING},
    parse::{Packet, protocol},
    quote::{self, Quote},
    skb::Skb,
    translate::Translation,
    transport::{Transport, tcp},
};

/// What is known of the flow of the packet in hand.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tracking {
    /// The key of its direction.
    pub key: FlowKey,
    /// What becomes of it.
    pub to: Translation,
    /// For look-ups.
    pub fragment: FragmentKey,
    /// For look-ups.
    pub frontend: FrontendKey,
    /// The backend that was chosen for a new flow; 0: none.
    pub backend: u32,
    /// What the packet quotes, where it is an error about a translated one.
    pub quote: Quote,
}

/// What came of looking for a packet's flow.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It has none: ICMP other than echo and errors about a translated packet, or a fragment of which no more is known.
    Flowless,
    /// There is one, or was of the packet that this one quotes, and it is known what becomes of it.
    Flow,
    /// There is none yet, and this is its key; with TCP's flags.
    Key {
        /// Otherwise 0.
        tcp_flags: u8,
    },
}

/// A [`Found`] as a number: nothing else can be returned.
const FLOWLESS: i32 = 0;
const FLOW: i32 = 1;
const KEY: i32 = 2;
const FLAGS_SHIFT: u32 = 8;

impl Tracking {
    /// Of a packet of which nothing is known yet: it stays as it is.
    ///
    /// # Errors
    /// `NoRoute` never happens: an array has its entries.
    #[inline(always)]
    pub fn begin() -> Result<&'static mut Self, Outcome> {
        let tracking = Self::current().ok_or(Outcome::NoRoute)?;
        tracking.to.flags = 0;
        Ok(tracking)
    }

    /// Before and after a call of a function that asks for it by itself: the compiler takes a reference for the only
    /// way to what lies there, and would keep values back.
    #[inline(always)]
    pub fn shared(&mut self) -> &mut Self {
        core::hint::black_box(self)
    }

    /// That of the packet in hand. Functions that are public by name ask for it, and are not handed it: before Linux
    /// 6.2 what is handed to them cannot be the key of a look-up.
    #[inline(always)]
    pub fn current() -> Option<&'static mut Self> {
        // SAFETY: it is this CPU's own, and programs of one CPU do not interleave here.
        TRACKING.get_ptr_mut(0).map(|tracking| unsafe { &mut *tracking })
    }

    /// Finds the flow of a packet, and notes that it lives.
    ///
    /// # Errors
    /// `Malformed`: no room for ports; `BackendGone`: the connection's backend is no more, and the sender is to know.
    #[inline(always)]
    pub fn find(&mut self, skb: Skb, packet: &Packet) -> Result<Found, Outcome> {
        self.shared();
        let found = track(skb.as_ptr(), packet);
        self.shared();
        match found {
            FLOWLESS => Ok(Found::Flowless),
            FLOW => Ok(Found::Flow),
            found if found > 0 => Ok(Found::Key {
                tcp_flags: (found >> FLAGS_SHIFT) as u8,
            }),
            reason if reason == -(Outcome::BackendGone as i32) => Err(Outcome::BackendGone),
            _ => Err(Outcome::Malformed),
        }
    }
}

/// Public by name, so that the verifier looks at it once. Returns what is found, as a number, or an outcome's, negative.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn track(context: *mut __sk_buff, packet: *const Packet) -> i32 {
    // SAFETY: it is called with a reference. The verifier, which looks at it alone, wants it tested.
    match (unsafe { packet.as_ref() }, Tracking::current()) {
        (Some(packet), Some(tracking)) => {
            look(Skb::new(context), packet, tracking).unwrap_or_else(|reason| -(reason as i32))
        }
        _ => FLOWLESS,
    }
}

#[inline(always)]
fn look(skb: Skb, packet: &Packet, tracking: &mut Tracking) -> Result<i32, Outcome> {
    let Some(transport) = Transport::read(skb, packet, &mut tracking.fragment)? else {
        let Tracking { key, to, quote, .. } = tracking;
        return Ok(if quote::find(skb, packet, key, to, quote) {
            FLOW
        } else {
            FLOWLESS
        });
    };
    transport.write_key(packet, &mut tracking.key);
    let key = Ok(KEY | i32::from(transport.flags) << FLAGS_SHIFT);
    let Some(row) = flows::row(&tracking.key) else {
        return key;
    };
    // SAFETY: the memory stays mapped for the whole run of a program. Should the row be another flow's meanwhile, one
    // packet of a flow that ended this very moment is misled.
    let row = unsafe { &mut *row };
    let now = flows::now();
    if row.last_seen != now {
        row.last_seen = now;
    }
    let state = if row.backend == 0 {
        BackendState::Serving as u8
    } else {
        tracking.to.set(&tracking.key, row);
        BACKENDS
            .get(row.backend)
            .map_or(BackendState::Gone as u8, |backend| backend.state)
    };
    let news = news(packet, transport.flags) & !row.flags;
    let begins = transport.flags & tcp::SYN != 0 && row.flags & !Direction::FROM_POD != 0;
    if news == 0 && !begins && state == BackendState::Serving as u8 {
        return Ok(FLOW);
    }
    let turn = flows::turn(&tracking.key, row, news, state, transport.is_syn());
    if turn != flows::Turn::GoesOn {
        tracking.to.flags = 0;
    }
    match turn {
        flows::Turn::GoesOn => Ok(FLOW),
        flows::Turn::BeginsAnew => key,
        flows::Turn::Gone => Err(Outcome::BackendGone),
    }
}

/// What a packet tells of its direction of a flow: bits of [`Direction::FIN`] and those after it.
#[inline(always)]
const fn news(packet: &Packet, flags: u8) -> u32 {
    if packet.protocol != protocol::TCP {
        return 0;
    }
    let mut news = 0;
    if flags & tcp::FIN != 0 {
        news |= Direction::FIN;
    }
    if flags & tcp::RST != 0 {
        news |= Direction::RST;
    }
    if flags & tcp::SYN == 0 {
        news |= Direction::ESTABLISHED;
    }
    news
}
