//! Medians, and how sure they are.

/// A median with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// The median, with the interval between two order statistics that holds the true one with at least 95 %,
/// whatever the distribution (the sign test's). Fewer than six samples do not go that far; the interval is then
/// all that was seen.
pub fn estimate(samples: &[f64]) -> Estimate {
    assert!(!samples.is_empty(), "an estimate needs samples");
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let outside = rank(count);
    Estimate {
        median: f64::midpoint(sorted[(count - 1) / 2], sorted[count / 2]),
        low: sorted[outside],
        high: sorted[count - 1 - outside],
    }
}

/// How many of the smallest samples, and of the largest, lie outside of the interval: the most for which the
/// true median lies outside with at most 5 %, that is, twice the chance that so few of `count` coins show heads.
fn rank(count: usize) -> usize {
    let mut chance = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut below = 0.0;
    for heads in 0..count / 2 {
        below += chance;
        if 2.0 * below > 0.05 {
            return heads.saturating_sub(1);
        }
        chance *= (count - heads) as f64 / (heads + 1) as f64;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of the sign test: for nine samples the second and the second last, and so on.
    #[test]
    fn intervals_are_those_of_the_sign_test() {
        for (count, outside) in [
            (1, 0),
            (5, 0),
            (6, 0),
            (9, 1),
            (12, 2),
            (20, 5),
            (25, 7),
            (40, 13),
            (100, 39),
        ] {
            assert_eq!(rank(count), outside, "{count} samples");
        }
    }

    #[test]
    fn medians_do_not_care_for_order() {
        let odd = estimate(&[3.0, 1.0, 2.0]);
        assert_eq!((odd.median, odd.low, odd.high), (2.0, 1.0, 3.0));
        assert_eq!(estimate(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
    }
}
