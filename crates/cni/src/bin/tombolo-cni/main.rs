//! The CNI plugin: what a container runtime executes for each pod. It checks what it is given and
//! hands it to the agent; it keeps nothing and starts in well under a millisecond.
//!
//! Success prints one JSON document or nothing and exits with 0. Failure prints one JSON document
//! and exits with 1. Both go to stdout, since that is what runtimes read; stderr stays empty.
//!
//! Under the name `loopback` it is the plugin of that name: see `loopback.rs`.

mod add;
mod check;
mod client;
mod del;
mod gc;
mod input;
mod loopback;
mod status;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use tombolo_cni::error::{Error, Result, code};
use tombolo_cni::{Command, Config, Environment, Version, VersionInfo};

fn main() -> ExitCode {
    let environment: add::Environment = Environment::new(|name| std::env::var_os(name));
    let mut version = Version::CURRENT;
    match run(&environment, &mut version) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Whoever closed stdout has no use for a second error; the exit status says enough.
            let _ = print(&error.to_json(version));
            ExitCode::FAILURE
        }
    }
}

/// `version` becomes the one that an error is to be printed in.
fn run(environment: &add::Environment, version: &mut Version) -> Result<()> {
    let command = environment.command()?;
    let loopback = std::env::args_os()
        .next()
        .is_some_and(|program| loopback::is_meant(&program));
    let stdin = match input::read_stdin(patience(command)) {
        // Runtimes pass a version on stdin, but the answer is due also where they do not.
        Err(_) if command == Command::Version => Vec::new(),
        stdin => stdin?,
    };
    *version = Config::version_for_errors(&stdin);
    match command {
        Command::Version => return print_document(&VersionInfo::new(*version)),
        Command::Check => require(Version::V0_4_0, command, &stdin)?,
        Command::Status | Command::Gc => require(Version::V1_1_0, command, &stdin)?,
        Command::Add | Command::Del => {}
    }
    match command {
        command if loopback => loopback::run(command, environment, &stdin),
        Command::Add => add::run(environment, &stdin),
        Command::Del => del::run(environment, &stdin),
        Command::Check => check::run(environment, &stdin),
        Command::Status => status::run(&stdin),
        Command::Gc => gc::run(&stdin),
        Command::Version => Ok(()),
    }
}

fn patience(command: Command) -> Duration {
    match command {
        Command::Version => input::VERSION_PATIENCE,
        _ => input::PATIENCE,
    }
}

/// Refuses an operation that the configuration's version does not have.
fn require(since: Version, command: Command, stdin: &[u8]) -> Result<()> {
    let version = Config::parse(stdin)?.version;
    if version >= since {
        return Ok(());
    }
    let command = command.as_str();
    Err(Error::new(
        code::INCOMPATIBLE_VERSION,
        format!("CNI version {version} has no {command}"),
        format!("{command} came with {since}; set the configuration's \"cniVersion\" to that or a later one"),
    ))
}

fn print_document(document: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string(document)
        .map_err(|error| Error::new(code::IO, "cannot encode the answer", error.to_string()))?;
    print(&text).map_err(stdout_failed)
}

/// Writes the one document. A failure may have left a part of it there.
fn print(document: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(document.as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

fn stdout_failed(error: io::Error) -> Error {
    Error::new(
        code::IO,
        "cannot write the answer to stdout",
        format!("{error}; the container runtime must read it"),
    )
}
