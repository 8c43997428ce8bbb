//! The agent by itself, as its tests run it. Users run `tombolo agent`, which is the same.

use std::process::ExitCode;

use clap::Parser;
use tombolo_agent::{Args, run, runtime};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

/// Runs it.
pub fn main() -> ExitCode {
    let Command { args } = Command::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    let ran = runtime()
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(run(args)).map_err(|error| error.to_string()));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
