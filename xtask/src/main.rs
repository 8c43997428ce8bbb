//! Tasks that cargo alone cannot do.
//!
//! - `cargo xtask bpf`: rebuilds the kernel side, `crates/datapath/object/`.
//! - `cargo xtask bpf --check`: fails when a committed object is not what the source builds to.

mod bpf;

use std::process::ExitCode;

/// What is printed for a task that there is none of.
const USAGE: &str = "usage: cargo xtask bpf [--check]";

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let task = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bpf"] => bpf::rebuild(),
        ["bpf", "--check"] => bpf::check(),
        _ => Err(USAGE.to_owned()),
    };
    match task {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
