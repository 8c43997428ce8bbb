//! The ports that translated flows have their sources from, kept out of what the kernel gives the node's own sockets
//! (`ip_local_reserved_ports`, for both families), beside those that somebody else keeps out.

use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tombolo_abi::SOURCE_PORTS;
use tombolo_netlink::sysctl;

use crate::error::Error;

const KEY: &str = "net/ipv4/ip_local_reserved_ports";

/// Where the state folder has what was there before.
const RECORD: &str = "reserved-ports.before";

/// Keeps the ports out. What was there before is on the disk first.
///
/// # Errors
/// The setting cannot be read or written, or the record cannot.
pub fn reserve(state_dir: &Path) -> Result<(), Error> {
    let found = sysctl::read(KEY)?;
    let ports = Ports::parse(&found);
    if ports.has_all_of_ours() {
        return Ok(());
    }
    let record = state_dir.join(RECORD);
    if !record.exists() {
        let staged = record.with_extension("new");
        fs::write(&staged, &found)
            .and_then(|()| fs::rename(&staged, &record))
            .map_err(Error::file("write", record))?;
    }
    Ok(sysctl::write(KEY, &ports.with_ours().to_string())?)
}

/// Whether there is anything to restore.
pub fn is_recorded(state_dir: &Path) -> bool {
    state_dir.join(RECORD).exists()
}

/// Gives the ports back, but those that were kept out before; the setting's path, if it was changed.
///
/// # Errors
/// As [`reserve`].
pub fn restore(state_dir: &Path) -> Result<Option<PathBuf>, Error> {
    let record = state_dir.join(RECORD);
    let before = match fs::read_to_string(&record) {
        Ok(before) => Ports::parse(&before),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", record)(error)),
    };
    let restored = Ports::parse(&sysctl::read(KEY)?).with_ours_of(&before);
    sysctl::write(KEY, &format!("{restored}\n"))?;
    fs::remove_file(&record).map_err(Error::file("remove", record))?;
    Ok(Some(Path::new("/proc/sys").join(KEY)))
}

/// A set of ports, as the kernel writes it: `22,8000-8010`.
#[derive(Debug, PartialEq, Eq)]
struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    /// What is no port is left out: the kernel writes none.
    fn parse(text: &str) -> Self {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
        };
        Self(text.split(',').filter_map(range).collect())
    }

    fn has_all_of_ours(&self) -> bool {
        let holds =
            |r: &RangeInclusive<u16>| r.start() <= SOURCE_PORTS.start() && SOURCE_PORTS.end() <= r.end();
        self.0.iter().any(holds)
    }

    fn with_ours(&self) -> Self {
        let mut ranges = self.0.clone();
        ranges.push(SOURCE_PORTS);
        Self(ranges)
    }

    /// These without ours, but with those of ours that were there before.
    fn with_ours_of(&self, before: &Self) -> Self {
        let (first, last) = (*SOURCE_PORTS.start(), *SOURCE_PORTS.end());
        let mut ranges = Vec::new();
        for range in &self.0 {
            let (start, end) = (*range.start(), *range.end());
            if start < first {
                ranges.push(start..=end.min(first - 1));
            }
            if let Some(next) = last.checked_add(1).filter(|next| *next <= end) {
                ranges.push(start.max(next)..=end);
            }
        }
        let within = before
            .0
            .iter()
            .map(|r| *r.start().max(&first)..=*r.end().min(&last));
        ranges.extend(within.filter(|r| !r.is_empty()));
        Self(ranges)
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, range) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}-{}", range.start(), range.end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_come_and_go_and_those_of_others_stay() {
        for (before, with, after) in [
            ("", "40960-65535", ""),
            ("22,8000-8010", "22-22,8000-8010,40960-65535", "22-22,8000-8010"),
            (
                "30000-41000",
                "30000-41000,40960-65535",
                "30000-40959,40960-41000",
            ),
            ("50000", "50000-50000,40960-65535", "50000-50000"),
        ] {
            let ports = Ports::parse(before);
            assert!(!ports.has_all_of_ours(), "{before}");
            assert_eq!(ports.with_ours().to_string(), with);
            // The kernel joins what overlaps; another process has added one.
            let now = Ports::parse(&format!("99,{with}"));
            assert!(now.has_all_of_ours());
            let restored = now.with_ours_of(&ports).to_string();
            assert_eq!(
                restored,
                ["99-99", after].join(",").trim_end_matches(',').to_owned(),
                "{before}"
            );
        }
    }

    #[test]
    fn what_is_there_already_is_enough() {
        assert!(Ports::parse("22,1024-65535").has_all_of_ours());
        assert!(!Ports::parse("40960-50000,50001-65535").has_all_of_ours());
    }
}
