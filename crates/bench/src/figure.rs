//! One figure: ours, a peer's, and whether a bound holds.

use crate::statistics::{Estimate, estimate};

/// What samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Milliseconds,
    Seconds,
    GigabitsPerSecond,
    PerSecond,
    MebiBytes,
}

/// What must be reached. It is, when the worse end of the interval is.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// For comparison only.
    Open,
}

/// A figure.
#[derive(Debug)]
pub struct Figure {
    pub what: String,
    pub unit: Unit,
    pub ours: Estimate,
    /// The peer's name and its own figure; none where the bound is on ours.
    pub peer: Option<(String, Estimate)>,
    /// What the bound is on: the ratio of ours to the peer's in each round, or ours.
    pub judged: Estimate,
    pub bound: Bound,
}

impl Figure {
    /// Ours compared to a peer's of the same rounds.
    pub fn compared(
        what: &str,
        unit: Unit,
        ours: &[f64],
        (peer, theirs): (&str, &[f64]),
        bound: Bound,
    ) -> Self {
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        Self {
            what: what.into(),
            unit,
            ours: estimate(ours),
            peer: Some((peer.into(), estimate(theirs))),
            judged: estimate(&ratios),
            bound,
        }
    }

    /// Ours alone.
    pub fn alone(what: &str, unit: Unit, ours: &[f64], bound: Bound) -> Self {
        let ours = estimate(ours);
        Self {
            what: what.into(),
            unit,
            ours,
            peer: None,
            judged: ours,
            bound,
        }
    }

    /// Whether the bound holds; none where there is none.
    pub fn reached(&self) -> Option<bool> {
        match self.bound {
            Bound::AtMost(most) => Some(self.judged.high <= most),
            Bound::AtLeast(least) => Some(self.judged.low >= least),
            Bound::Open => None,
        }
    }
}
