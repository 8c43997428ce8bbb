//! Which endpoints a traffic policy may use.

use super::endpoints::{Endpoint, Hint};
use crate::Facts;

/// The endpoints that each traffic policy may use, as ascending indexes.
///
/// Ready ones; where there is none, those that terminate and still serve, for each policy apart (KEP-1669).
pub(super) struct Usable {
    /// Those of policy Cluster, of which hints may keep to a zone or node (KEP-4444, KEP-3015). Empty only where no
    /// endpoint of the whole cluster is usable.
    pub cluster: Vec<u32>,
    /// Those of policy Local, which hints do not matter to.
    pub local: Vec<u32>,
}

/// Decides which endpoints are usable.
pub(super) fn usable(endpoints: &[Endpoint<'_>], facts: &Facts) -> Usable {
    let preference = Preference::of(endpoints, facts);
    Usable {
        cluster: select(endpoints, |e| e.ready && preference.allows(e, facts))
            .or_else(|| select(endpoints, |e| e.drains()))
            .unwrap_or_default(),
        local: select(endpoints, |e| e.local && e.ready)
            .or_else(|| select(endpoints, |e| e.local && e.drains()))
            .unwrap_or_default(),
    }
}

/// The indexes of what is wanted; none if nothing is.
fn select(endpoints: &[Endpoint<'_>], wanted: impl Fn(&Endpoint<'_>) -> bool) -> Option<Vec<u32>> {
    let all = (0..).zip(endpoints);
    let chosen: Vec<u32> = all.filter(|(_, e)| wanted(e)).map(|(i, _)| i).collect();
    (!chosen.is_empty()).then_some(chosen)
}

/// What the hints of ready endpoints say. They count only if every one has them and one is for here: a set that is
/// being written, or has nothing for here, must not leave anybody without endpoints.
#[derive(Clone, Copy)]
enum Preference {
    Anywhere,
    SameZone,
    SameNode,
}

impl Preference {
    fn of(endpoints: &[Endpoint<'_>], facts: &Facts) -> Self {
        let decides = |hint: &dyn Fn(&Endpoint<'_>) -> Hint| {
            let hints = endpoints.iter().filter(|e| e.ready).map(hint);
            let (mut complete, mut here) = (true, false);
            for hint in hints {
                complete &= hint != Hint::Missing;
                here |= hint == Hint::Here;
            }
            complete && here
        };
        if decides(&|e| e.node_hint(&facts.node)) {
            Self::SameNode
        } else if decides(&|e| e.zone_hint(facts.zone.as_deref())) {
            Self::SameZone
        } else {
            Self::Anywhere
        }
    }

    fn allows(self, endpoint: &Endpoint<'_>, facts: &Facts) -> bool {
        match self {
            Self::Anywhere => true,
            Self::SameZone => endpoint.zone_hint(facts.zone.as_deref()) == Hint::Here,
            Self::SameNode => endpoint.node_hint(&facts.node) == Hint::Here,
        }
    }
}
