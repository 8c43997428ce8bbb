//! What is known of the flow of the packet in hand. It lies in a map: with all else, it is too large for the stack.

use tombolo_abi::{FlowKey, FrontendKey, Outcome};

use crate::{fragments::FragmentKey, maps::TRACKING, translate::Translation};

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
}

impl Tracking {
    /// Of a packet of which nothing is known yet: it stays as it is.
    ///
    /// # Errors
    /// `NoRoute` never happens: an array has its entries.
    #[inline(always)]
    pub fn begin() -> Result<&'static mut Self, Outcome> {
        let tracking = TRACKING.get_ptr_mut(0).ok_or(Outcome::NoRoute)?;
        // SAFETY: it is this CPU's own, and programs of one CPU do not interleave here.
        let tracking = unsafe { &mut *tracking };
        tracking.to.flags = 0;
        Ok(tracking)
    }
}
