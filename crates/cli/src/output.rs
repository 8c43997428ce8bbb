//! How results are shown: tables for people, JSON for machines.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::error::Error;

/// A table without lines, as kubectl's.
pub fn table(heading: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(heading.iter().map(|word| word.to_uppercase()));
    table
}

/// Prints lines; a reader that has gone away, such as `head`, is no failure.
pub fn print(text: impl std::fmt::Display) -> Result<(), Error> {
    tolerate(writeln!(io::stdout().lock(), "{text}"))
}

/// Prints a table without spaces at the ends of lines.
pub fn print_table(table: &Table) -> Result<(), Error> {
    table
        .lines()
        .try_for_each(|line| print(line.trim_end().strip_prefix(' ').unwrap_or(&line).trim_end()))
}

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) -> Result<(), Error> {
    print(serde_json::to_string_pretty(value).map_err(|error| Error::Output(error.into()))?)
}

fn tolerate(written: io::Result<()>) -> Result<(), Error> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Output(error)),
        _ => Ok(()),
    }
}
