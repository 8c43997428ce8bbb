//! The binary `tombolo`: node agent, operator, probe, and the lab.
//!
//! Exit status: 0 done; 1 failed, with one line on standard error that says what failed, on what, and what
//! to do; 2 wrong usage; 3 the check that was asked for found something wrong (`connectivity`, `status`,
//! `probe check`).

#![expect(
    clippy::print_stderr,
    reason = "errors and progress are for whoever runs the command"
)]

mod args;
#[cfg(feature = "lab")]
mod connectivity;
mod error;
#[cfg(feature = "lab")]
mod lab;
mod logging;
mod node;
mod output;
mod probe;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::error::Error;

/// The exit status of a check that ran and found something wrong.
const FOUND_WRONG: u8 = 3;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tombolo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode, Error> {
    match command {
        #[cfg(feature = "lab")]
        Command::Lab(command) => lab::run(command),
        #[cfg(feature = "lab")]
        Command::LabServe(args) => lab::serve(args),
        #[cfg(feature = "lab")]
        Command::Connectivity(args) => runtime()?.block_on(connectivity::run(&args)),
        Command::Agent(args) => {
            logging::start(args.log_format == tombolo_agent::LogFormat::Json);
            tombolo_agent::runtime()
                .map_err(Error::Runtime)?
                .block_on(tombolo_agent::run(args))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::AgentUninstall(args) => node::uninstall(&args),
        Command::Operator(args) => {
            logging::start(false);
            runtime()?.block_on(tombolo_operator::run(args))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status(args) => runtime()?.block_on(node::status(&args)),
        Command::Get(command) => runtime()?.block_on(node::get(&command)),
        Command::Probe(command) => probe::run(command),
    }
}

/// The runtime of commands that wait.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Error::Runtime)
}
