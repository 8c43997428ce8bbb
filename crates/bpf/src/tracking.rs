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
}
