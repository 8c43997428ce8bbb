//! `tombolo probe`.

use std::process::ExitCode;

use clap::Subcommand;
use tombolo_probe::check::Answer;
use tombolo_probe::serve::Server;
use tombolo_probe::{check, flood, serve};

use crate::FOUND_WRONG;
use crate::error::Error;
use crate::output::{print, print_json};

/// The commands of the probe.
#[derive(Debug, Subcommand)]
pub enum ProbeCommand {
    /// Answer over TCP, UDP and HTTP with the addresses that were seen
    Serve(serve::Args),
    /// Make the checks that standard input lists as a JSON array, all at once
    #[command(after_help = "\
A check: {\"id\": \"a\", \"protocol\": \"tcp|udp|icmp|http\", \"address\": \"10.244.1.2\", \"port\": 7070, \"size\": 64,
\"dontFragment\": false, \"deadlineMs\": 3000, \"source\": \"10.244.0.2\"}; all from `port` on may be left out.
ICMP needs root. The report goes to standard output as JSON; exit status 3 if a check failed.")]
    Check,
    /// Send numbered UDP packets at a steady rate and count those that do not come back
    Flood(flood::Args),
}

/// Runs a command of the probe.
pub fn run(command: ProbeCommand) -> Result<ExitCode, Error> {
    // One thread does: a lab has many of these, and a flood must not wait for a second one.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::Runtime)?;
    match command {
        ProbeCommand::Serve(args) => runtime.block_on(async {
            let server = Server::bind(&args)?;
            print(format_args!(
                "serving TCP and UDP on port {}, HTTP on port {}",
                args.port, args.http_port
            ))?;
            server.run().await?;
            Ok(ExitCode::SUCCESS)
        }),
        ProbeCommand::Check => {
            let report = runtime.block_on(check::from_stdin())?;
            print_json(&report)?;
            let all_good = report
                .results
                .iter()
                .all(|one| matches!(one.answer, Answer::Success(_)));
            Ok(if all_good {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(FOUND_WRONG)
            })
        }
        ProbeCommand::Flood(args) => {
            let tally = flood::run(&args)?;
            print_json(&tally)?;
            Ok(if tally.lost == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(FOUND_WRONG)
            })
        }
    }
}
