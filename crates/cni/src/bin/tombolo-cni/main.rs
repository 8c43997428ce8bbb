//! The CNI plugin: what a container runtime executes for each pod. It checks what it is given and
//! hands it to the agent; it keeps nothing and starts in well under a millisecond.
//!
//! Success prints one JSON document or nothing and exits with 0. Failure prints one JSON document
//! and exits with 1. Both go to stdout, since that is what runtimes read; stderr stays empty.

mod add;
mod client;
mod del;
mod input;

use std::io::{self, Write};
use std::process::ExitCode;

use tombolo_cni::error::{Error, Result, code};
use tombolo_cni::{Command, Config, Environment, Version, VersionInfo, invalid};

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
    if command == Command::Version {
        // Runtimes pass a version on stdin, but the answer is due also where they do not.
        let stdin = input::read_stdin(input::VERSION_PATIENCE).unwrap_or_default();
        return print_document(&VersionInfo::new(Config::version_for_errors(&stdin)));
    }
    let stdin = input::read_stdin(input::PATIENCE)?;
    *version = Config::version_for_errors(&stdin);
    match command {
        Command::Add => add::run(environment, &stdin),
        Command::Del => del::run(environment, &stdin),
        Command::Check => Err(not_yet(command, &Config::parse(&stdin)?, Version::V0_4_0)),
        _ => Err(not_yet(command, &Config::parse(&stdin)?, Version::V1_1_0)),
    }
}

fn not_yet(command: Command, config: &Config, since: Version) -> Error {
    let command = command.as_str();
    if config.version < since {
        return Error::new(
            code::INCOMPATIBLE_VERSION,
            format!("CNI version {} has no {command}", config.version),
            format!(
                "{command} came with {since}; set the configuration's \"cniVersion\" to that or a later one"
            ),
        );
    }
    let mut error = invalid(
        "CNI_COMMAND",
        command,
        "is not supported yet; ADD, DEL and VERSION are",
    );
    error.msg = format!("CNI_COMMAND {command} is not supported yet");
    error
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
