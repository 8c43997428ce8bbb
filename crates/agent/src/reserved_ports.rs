//! The ports that translated flows have their sources from, kept out of what the kernel gives the node's own sockets,
//! of both families: reserved (`ip_local_reserved_ports`) beside those that somebody else keeps out, and not in the range
//! that it chooses from (`ip_local_port_range`). Reserved alone, they would have UDP sockets get the range's first port
//! each third time: the kernel looks for the next free one from where it has chosen, and begins anew at the range's end.

use std::fs;
use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use tombolo_abi::SOURCE_PORTS;
use tombolo_netlink::sysctl;

use crate::error::Error;

const RESERVED: &str = "net/ipv4/ip_local_reserved_ports";
const RANGE: &str = "net/ipv4/ip_local_port_range";

/// Where the state folder has what was there before.
const RESERVED_BEFORE: &str = "reserved-ports.before";
const RANGE_BEFORE: &str = "port-range.before";

/// Where the range begins at the latest, so that enough is left of it: where it does by default.
const LATEST_START: u16 = 32_768;

/// Keeps the ports out. What was there before is on the disk first.
///
/// # Errors
/// A setting cannot be read or written, or its record cannot.
pub fn reserve(state_dir: &Path) -> Result<(), Error> {
    // This first: there are ports left to choose from at any time.
    let found = sysctl::read(RANGE)?;
    if let Some(narrowed) = narrowed(&found) {
        record(state_dir.join(RANGE_BEFORE), &found)?;
        sysctl::write(RANGE, &narrowed)?;
    }
    let found = sysctl::read(RESERVED)?;
    let ports = Ports::parse(&found);
    if ports.has_all_of_ours() {
        return Ok(());
    }
    let before = state_dir.join(RESERVED_BEFORE);
    if !before.exists() {
        record(before, &found)?;
    }
    Ok(sysctl::write(RESERVED, &ports.with_ours().to_string())?)
}

/// Whether there is anything to restore.
pub fn is_recorded(state_dir: &Path) -> bool {
    [RESERVED_BEFORE, RANGE_BEFORE]
        .iter()
        .any(|name| state_dir.join(name).exists())
}

/// Gives the ports back, but those that were kept out before; the paths of the settings that were changed.
///
/// # Errors
/// As [`reserve`].
pub fn restore(state_dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let path = |key| Path::new("/proc/sys").join(key);
    let mut changed = Vec::new();
    let file = state_dir.join(RESERVED_BEFORE);
    if let Some(before) = recorded(&file)? {
        let before = Ports::parse(&before);
        let restored = Ports::parse(&sysctl::read(RESERVED)?).with_ours_of(&before);
        sysctl::write(RESERVED, &format!("{restored}\n"))?;
        fs::remove_file(&file).map_err(Error::file("remove", file))?;
        changed.push(path(RESERVED));
    }
    let file = state_dir.join(RANGE_BEFORE);
    if let Some(before) = recorded(&file)? {
        // Unless somebody has set another one since.
        if narrowed(&before)
            .is_some_and(|ours| range(&ours) == sysctl::read(RANGE).ok().as_deref().and_then(range))
        {
            sysctl::write(RANGE, before.trim())?;
            changed.push(path(RANGE));
        }
        fs::remove_file(&file).map_err(Error::file("remove", file))?;
    }
    Ok(changed)
}

/// What the range becomes; none if it has none of our ports.
fn narrowed(found: &str) -> Option<String> {
    let (first, last) = range(found)?;
    let most = *SOURCE_PORTS.start() - 1;
    (last > most).then(|| format!("{} {most}", first.min(LATEST_START)))
}

fn range(text: &str) -> Option<(u16, u16)> {
    let mut ends = text.split_whitespace().map(str::parse);
    Some((ends.next()?.ok()?, ends.next()?.ok()?))
}

fn record(path: PathBuf, found: &str) -> Result<(), Error> {
    let staged = path.with_extension("new");
    fs::write(&staged, found)
        .and_then(|()| fs::rename(&staged, &path))
        .map_err(Error::file("write", path))
}

fn recorded(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(before) => Ok(Some(before)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", path)(error)),
    }
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
    fn the_range_has_none_of_ours() {
        for (before, narrowed) in [
            ("32768\t60999", Some("32768 40959")),
            ("10240 65535", Some("10240 40959")),
            ("49152 65535", Some("32768 40959")),
            ("32768 40959", None),
            ("1024 30000", None),
        ] {
            assert_eq!(super::narrowed(before).as_deref(), narrowed, "{before}");
        }
    }

    #[test]
    fn what_is_there_already_is_enough() {
        assert!(Ports::parse("22,1024-65535").has_all_of_ours());
        assert!(!Ports::parse("40960-50000,50001-65535").has_all_of_ours());
    }
}
