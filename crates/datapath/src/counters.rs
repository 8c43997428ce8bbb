//! Counters: summed over the CPUs.

use std::{fs, io, os::fd::OwnedFd};

use tombolo_abi::{COUNTER_SLOTS, Counter, Hook, Outcome, map, slot};

use crate::{Error, Result, bpf};

/// All counters that are not zero, in order of hook and outcome.
pub fn read(map: &OwnedFd) -> Result<Vec<(Hook, Outcome, Counter)>> {
    let failed = |source| Error::Map {
        what: "read",
        map: map::COUNTERS,
        source,
    };
    let per_cpu = possible_cpus().map_err(failed)?;
    let mut sums = vec![Counter::default(); COUNTER_SLOTS];
    for (index, values) in bpf::map::entries::<u32, Counter>(map, per_cpu).map_err(failed)? {
        if let Some(sum) = sums.get_mut(index as usize) {
            sum.packets = values.iter().map(|counter| counter.packets).sum();
            sum.bytes = values.iter().map(|counter| counter.bytes).sum();
        }
    }
    Ok(Hook::ALL
        .iter()
        .flat_map(|hook| Outcome::ALL.iter().map(move |outcome| (*hook, *outcome)))
        .map(|(hook, outcome)| (hook, outcome, sums[slot(hook, outcome) as usize]))
        .filter(|(_, _, counter)| counter.packets != 0)
        .collect())
}

/// CPUs that the kernel keeps per-CPU values for, whether or not they are there.
fn possible_cpus() -> io::Result<usize> {
    let list = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    // Such as "0-3" or "0": the last number is the highest.
    list.trim()
        .rsplit([',', '-'])
        .next()
        .and_then(|last| last.parse::<usize>().ok())
        .map(|last| last + 1)
        .ok_or_else(|| io::Error::other(format!("/sys/devices/system/cpu/possible says \"{list}\"")))
}
