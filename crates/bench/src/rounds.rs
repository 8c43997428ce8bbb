//! Rounds: each contender once, by turns, so that what else the machine does hits all alike.

use anyhow::Result;

use crate::interrupt;

/// How much to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Enough for the figures of docs/benchmarks.md.
    Full,
    /// Enough to see that everything runs.
    Quick,
}

impl Effort {
    /// `full`, or a few.
    pub fn rounds(self, full: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => full.min(5),
        }
    }
}

/// Takes one sample of each contender in every round, each second round in the reverse order. Gives the samples
/// of each contender; those at the same place are of the same round.
pub fn alternate(
    rounds: usize,
    contenders: usize,
    mut sample: impl FnMut(usize) -> Result<f64>,
) -> Result<Vec<Vec<f64>>> {
    let mut samples = vec![Vec::with_capacity(rounds); contenders];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..contenders).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for contender in order {
            interrupt::check()?;
            samples[contender].push(sample(contender)?);
        }
    }
    Ok(samples)
}
