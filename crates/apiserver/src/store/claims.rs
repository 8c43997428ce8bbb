//! Who claims what: an index over the objects, changed only with them.

use std::collections::HashMap;

use serde_json::Value;

use super::Key;

/// What an object claims for itself alone among its kind.
pub type ClaimsOf = fn(&Value) -> Vec<String>;

/// The holders of all claims of all resources.
#[derive(Debug, Default)]
pub struct Claims {
    /// By the index of the resource.
    resources: Vec<OfResource>,
}

#[derive(Debug)]
struct OfResource {
    of: ClaimsOf,
    holders: HashMap<String, Key>,
}

impl Claims {
    /// No claims yet; `of` says of each resource what its objects will claim.
    pub fn new(of: impl IntoIterator<Item = ClaimsOf>) -> Self {
        let resources = of.into_iter().map(|of| OfResource {
            of,
            holders: HashMap::new(),
        });
        Self {
            resources: resources.collect(),
        }
    }

    /// What an object of a resource claims.
    pub(super) fn of(&self, resource: usize, object: &Value) -> Vec<String> {
        self.resources
            .get(resource)
            .map(|r| (r.of)(object))
            .unwrap_or_default()
    }

    /// Who claims this.
    pub(super) fn holder(&self, resource: usize, claim: &str) -> Option<&Key> {
        self.resources.get(resource)?.holders.get(claim)
    }

    /// Follows a change of the object at `key`.
    pub(super) fn follow(&mut self, key: &Key, before: Option<&Value>, after: Option<&Value>) {
        let Some(resource) = self.resources.get_mut(key.resource) else {
            return;
        };
        for claim in before.map(resource.of).into_iter().flatten() {
            if resource.holders.get(&claim) == Some(key) {
                resource.holders.remove(&claim);
            }
        }
        for claim in after.map(resource.of).into_iter().flatten() {
            resource.holders.insert(claim, key.clone());
        }
    }
}
