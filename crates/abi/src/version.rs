//! The version of all layouts and meanings in this crate, and what a new one may change.
//!
//! A build takes over the tables of the version before its own, and of the one after, which it has never
//! seen. So versions keep to rules that hold for all of them:
//!
//! - A key stays as it is.
//! - A value only grows, and only at its end. Zero in what was added means what was meant before it was there;
//!   where that cannot be, [`complete`] gives it the value. An older build drops it.
//! - A field never changes its meaning: another meaning is another field.
//! - What cannot keep to this is a new map, named in [`map::ADDED`](crate::map::ADDED); the old one is kept, and
//!   filled, for one version more.
//!
//! Capacities may change.

#[cfg(feature = "abi-next")]
use crate::FlowState;
use crate::map;

/// The version. Maps are pinned below `v<ABI_VERSION>/`.
pub const ABI_VERSION: u32 = if cfg!(feature = "abi-next") { 2 } else { 1 };

/// Gives fields that this version has added, and whose zero is not what was meant before, their values: in a
/// value of a map of the version before, which was extended by zeros to this version's size.
pub fn complete(map: &str, value: &mut [u8]) {
    if map == map::FLOWS {
        complete_flow(value);
    }
}

#[cfg(not(feature = "abi-next"))]
const fn complete_flow(_: &mut [u8]) {}

/// When a flow began is not known: not after it was last seen.
#[cfg(feature = "abi-next")]
fn complete_flow(value: &mut [u8]) {
    let word = size_of::<u64>();
    let (last_seen, began) = (
        core::mem::offset_of!(FlowState, direction.last_seen),
        core::mem::offset_of!(FlowState, began),
    );
    if value.len() >= began + word {
        value.copy_within(last_seen..last_seen + word, began);
    }
}
