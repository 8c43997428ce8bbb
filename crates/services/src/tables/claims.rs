//! Who gets a frontend that several want.

use std::collections::HashMap;

use tombolo_abi::FrontendKey;

/// An owner's place in the list of all.
pub(super) type Slot = u32;

/// Who claims which frontends.
#[derive(Default)]
pub(super) struct Claims {
    owners: HashMap<FrontendKey, Slot>,
    /// Those who claim what is another's.
    waiting: HashMap<FrontendKey, Vec<Slot>>,
}

impl Claims {
    /// Who has it.
    pub fn owner(&self, key: &FrontendKey) -> Option<Slot> {
        self.owners.get(key).copied()
    }

    /// Who has what.
    pub fn owners(&self) -> impl Iterator<Item = (&FrontendKey, Slot)> {
        self.owners.iter().map(|(key, slot)| (key, *slot))
    }

    /// Who claims it and does not have it.
    pub fn waiting(&self, key: &FrontendKey) -> &[Slot] {
        self.waiting.get(key).map_or(&[], Vec::as_slice)
    }

    /// All that are claimed by several: the key, and those who do not have it.
    pub fn contested(&self) -> impl Iterator<Item = (&FrontendKey, &[Slot])> {
        self.waiting.iter().map(|(k, slots)| (k, slots.as_slice()))
    }

    /// Adds a claim. Returns who does not get the frontend, be it the newcomer or the owner until now.
    pub fn add(&mut self, key: FrontendKey, slot: Slot, before: impl Fn(Slot, Slot) -> bool) -> Option<Slot> {
        let Some(owner) = self.owners.get_mut(&key) else {
            self.owners.insert(key, slot);
            return None;
        };
        let loser = if before(slot, *owner) {
            std::mem::replace(owner, slot)
        } else {
            slot
        };
        self.waiting.entry(key).or_default().push(loser);
        Some(loser)
    }

    /// Takes a claim back. The first of those who wait gets what the owner leaves.
    pub fn remove(&mut self, key: &FrontendKey, slot: Slot, before: impl Fn(Slot, Slot) -> bool) {
        let is_owner = self.owners.get(key) == Some(&slot);
        let Some(waiting) = self.waiting.get_mut(key) else {
            if is_owner {
                self.owners.remove(key);
            }
            return;
        };
        if is_owner {
            let first = (0..waiting.len()).reduce(|a, b| if before(waiting[b], waiting[a]) { b } else { a });
            if let Some(heir) = first {
                self.owners.insert(*key, waiting.swap_remove(heir));
            }
        } else {
            waiting.retain(|w| *w != slot);
        }
        if waiting.is_empty() {
            self.waiting.remove(key);
        }
    }
}
