//! The agent by itself, as its tests run it. Users run `tombolo agent`, which is the same.

use clap::Parser;
use tombolo_agent::{Args, run, runtime};

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

/// Runs it.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Command { args } = Command::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .init();
    Ok(runtime()?.block_on(run(args))?)
}
