//! The agent of the ABI version that there is none of yet, as the tests of upgrades run it.

#[path = "tombolo-agent.rs"]
mod agent;

fn main() -> std::process::ExitCode {
    agent::main()
}
