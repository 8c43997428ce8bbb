//! The tables, for people, and the facts without which they say nothing.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::figure::{Bound, Figure, Unit};
use crate::load::CONGESTION_CONTROL;
use crate::statistics::Estimate;

const BEGIN: &str = "<!-- figures: written by tombolo-bench -->";
const END: &str = "<!-- end of figures -->";

/// All figures as a table, below the facts of the machine.
pub fn markdown(figures: &[Figure]) -> Result<String> {
    let mut text = facts()?;
    text.push_str("\n| what | ours | compared to | theirs | ratio (95 %) | bound | reached |\n");
    text.push_str("| --- | ---: | --- | ---: | ---: | --- | --- |\n");
    for figure in figures {
        let (peer, theirs, ratio) = match &figure.peer {
            Some((name, theirs)) => (
                name.as_str(),
                value(*theirs, figure.unit),
                format!(
                    "{:.3} ({:.3} to {:.3})",
                    figure.judged.median, figure.judged.low, figure.judged.high
                ),
            ),
            None => ("", String::new(), range(figure.judged, figure.unit)),
        };
        let reached = match figure.reached() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        writeln!(
            text,
            "| {} | {} | {peer} | {theirs} | {ratio} | {} | {reached} |",
            figure.what,
            value(figure.ours, figure.unit),
            bound(figure),
        )?;
    }
    Ok(text)
}

/// Puts the text between the markers of a file.
pub fn write(file: &Path, text: &str) -> Result<()> {
    let name = file.display();
    let old = fs::read_to_string(file).with_context(|| format!("read {name}"))?;
    let split = old
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        split.with_context(|| format!("{name} has no place for the figures: the lines {BEGIN} and {END}"))?;
    fs::write(file, format!("{before}{BEGIN}\n{text}{END}{after}")).with_context(|| format!("write {name}"))
}

fn facts() -> Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown", |(_, name)| name);
    let count = info.lines().filter(|l| l.starts_with("processor")).count();
    let system = nix::sys::utsname::uname()?;
    let date = Command::new("date")
        .args(["--utc", "+%Y-%m-%d %H:%M"])
        .output()?
        .stdout;
    let command: Vec<String> = std::env::args().skip(1).collect();
    let mut text = String::new();
    writeln!(text, "- CPU: {model}, {count} of them; client and server on one")?;
    writeln!(text, "- kernel: {}", system.release().to_string_lossy())?;
    writeln!(
        text,
        "- TCP congestion control, on every socket of every side: {CONGESTION_CONTROL}"
    )?;
    writeln!(text, "- date: {} UTC", String::from_utf8_lossy(&date).trim())?;
    writeln!(
        text,
        "- command: `{}`",
        ["tombolo-bench".into(), command.join(" ")].join(" ").trim()
    )?;
    Ok(text)
}

fn value(estimate: Estimate, unit: Unit) -> String {
    number(estimate.median, unit)
}

fn range(estimate: Estimate, unit: Unit) -> String {
    format!(
        "{} to {}",
        number(estimate.low, unit),
        number(estimate.high, unit)
    )
}

fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Milliseconds => format!("{value:.2} ms"),
        Unit::Seconds => format!("{value:.2} s"),
        Unit::GigabitsPerSecond => format!("{value:.2} Gbit/s"),
        Unit::PerSecond => format!("{value:.0} /s"),
        Unit::MebiBytes => format!("{value:.2} MiB"),
    }
}

fn bound(figure: &Figure) -> String {
    let limit = |limit: f64| match figure.peer {
        Some(_) => format!("{limit:.3}"),
        None => number(limit, figure.unit),
    };
    match figure.bound {
        Bound::AtMost(most) => format!("≤ {}", limit(most)),
        Bound::AtLeast(least) => format!("≥ {}", limit(least)),
        Bound::Open => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("figures.md");
        fs::write(&file, format!("before\n{BEGIN}\nold\n{END}\nafter\n")).unwrap();
        write(&file, "new\n").unwrap();
        assert_eq!(
            fs::read_to_string(&file).unwrap(),
            format!("before\n{BEGIN}\nnew\n{END}\nafter\n")
        );
        fs::write(&file, "nothing").unwrap();
        write(&file, "new\n").unwrap_err();
        assert_eq!(fs::read_to_string(&file).unwrap(), "nothing");
    }

    #[test]
    fn a_bound_holds_when_the_worse_end_does() {
        let bound = |bound| Figure::alone("x", Unit::Seconds, &[1.0, 2.0, 3.0], bound).reached();
        assert_eq!(bound(Bound::AtMost(2.5)), Some(false));
        assert_eq!(bound(Bound::AtMost(3.0)), Some(true));
        assert_eq!(bound(Bound::AtLeast(1.5)), Some(false));
        assert_eq!(bound(Bound::AtLeast(1.0)), Some(true));
        assert_eq!(bound(Bound::Open), None);
    }
}
