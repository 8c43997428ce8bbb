//! Readiness probes: whether a container does its work, by asking it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use tokio::sync::mpsc;

use super::handlers::{Action, Target};

/// Asks again and again, and tells when the answer changes, for ever. A container is not ready at first.
pub async fn watch(target: Target, probe: Probe, action: Action, changes: mpsc::Sender<bool>) {
    let seconds = |value: Option<i32>, default: u64| {
        let value = value.and_then(|value| u64::try_from(value).ok());
        Duration::from_secs(value.filter(|value| *value > 0).unwrap_or(default))
    };
    tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
    let timeout = seconds(probe.timeout_seconds, 1);
    let mut ticks = tokio::time::interval(seconds(probe.period_seconds, 10));
    let mut count = Count::new(&probe);
    loop {
        ticks.tick().await;
        let is_well = action.perform(&target, timeout).await;
        if let Some(ready) = count.note(is_well)
            && changes.send(ready).await.is_err()
        {
            return;
        }
    }
}

/// How many answers in a row were the same.
#[derive(Debug)]
struct Count {
    ready: bool,
    last: bool,
    in_a_row: i32,
    /// So many make it ready, and so many make it not.
    thresholds: (i32, i32),
}

impl Count {
    fn new(probe: &Probe) -> Self {
        let threshold = |value: Option<i32>, default| value.filter(|v| *v > 0).unwrap_or(default);
        Self {
            ready: false,
            last: false,
            in_a_row: 0,
            thresholds: (
                threshold(probe.success_threshold, 1),
                threshold(probe.failure_threshold, 3),
            ),
        }
    }

    /// Takes an answer in; what it is now, if that has changed.
    fn note(&mut self, is_well: bool) -> Option<bool> {
        self.in_a_row = if is_well == self.last {
            self.in_a_row.saturating_add(1)
        } else {
            1
        };
        self.last = is_well;
        let (up, down) = self.thresholds;
        let enough = self.in_a_row >= if is_well { up } else { down };
        if is_well == self.ready || !enough {
            return None;
        }
        self.ready = is_well;
        Some(is_well)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_takes_as_many_answers_in_a_row_as_the_thresholds_say() {
        let probe = Probe {
            success_threshold: Some(2),
            ..Probe::default()
        };
        let mut count = Count::new(&probe);
        let mut told = |answers: &str| -> Vec<Option<bool>> {
            answers.chars().map(|answer| count.note(answer == '+')).collect()
        };
        assert_eq!(told("-+-++"), [None, None, None, None, Some(true)]);
        assert_eq!(told("+--+--"), [None; 6]);
        assert_eq!(told("-"), [Some(false)]);
        assert_eq!(told("-+"), [None; 2]);
    }
}
