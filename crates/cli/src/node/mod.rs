//! `tombolo status` and `tombolo get`: what this node's agent says.

mod client;
mod tables;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use tombolo_agent::UninstallArgs;
use tombolo_cni::agent::{self, DEFAULT_SOCKET};

use self::client::Agent;
use crate::FOUND_WRONG;
use crate::error::Error;
use crate::output::{print, print_json, print_table};

/// How to reach the agent, and how to show its answer.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The agent's socket
    #[arg(long, value_name = "FILE", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The options of `tombolo status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    agent: AgentArgs,
}

/// The options of `tombolo get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Which table
    #[arg(value_enum)]
    what: What,
    #[command(flatten)]
    agent: AgentArgs,
}

/// A table of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// The pods' interfaces on this node
    Endpoints,
    /// The node's blocks, and who holds which address
    Addresses,
    /// Where packets to pods and nodes go
    Routes,
    /// How many packets were dropped, where and why
    Drops,
}

/// Says whether the node is healthy.
pub async fn status(args: &StatusArgs) -> Result<ExitCode, Error> {
    let status: agent::Status = Agent::new(&args.agent.socket).get(agent::STATUS_PATH).await?;
    if args.agent.json {
        print_json(&status)?;
    } else {
        let word = if status.ready { "ready" } else { "NOT ready" };
        print(format_args!("node {}: {word}", status.node))?;
        for message in &status.messages {
            print(format_args!("  - {message}"))?;
        }
        let blocks: Vec<String> = status.blocks.iter().map(ToString::to_string).collect();
        print(format_args!("blocks:    {}", blocks.join(", ")))?;
        print(format_args!("endpoints: {}", status.endpoints))?;
        print(format_args!("pod MTU:   {}", status.pod_mtu))?;
        match status.shapes {
            Some(true) => print("bandwidth: annotated pods are shaped by the plugin chained after ours")?,
            Some(false) => print("bandwidth: annotated pods run unshaped; see docs/chaining.md")?,
            None => {}
        }
        print(format_args!("agent:     {}", status.version))?;
    }
    Ok(if status.ready {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FOUND_WRONG)
    })
}

/// Takes off the node what its agent has installed for the container runtime.
pub fn uninstall(args: &UninstallArgs) -> Result<ExitCode, Error> {
    let changed = tombolo_agent::uninstall(&args.state_dir)?;
    for path in &changed {
        print(format_args!("{} is as it was before", path.display()))?;
    }
    if changed.is_empty() {
        print(format_args!(
            "nothing is installed, by what {} says",
            args.state_dir.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a table.
pub async fn get(args: &GetArgs) -> Result<ExitCode, Error> {
    let agent = Agent::new(&args.agent.socket);
    match args.what {
        What::Endpoints => {
            let endpoints: Vec<agent::Endpoint> = agent.get(agent::ENDPOINTS_PATH).await?;
            if args.agent.json {
                print_json(&endpoints)?
            } else {
                print_table(&tables::endpoints(&endpoints))?
            }
        }
        What::Addresses => {
            let addresses: agent::Addresses = agent.get(agent::ADDRESSES_PATH).await?;
            if args.agent.json {
                print_json(&addresses)?;
            } else {
                print_table(&tables::blocks(&addresses.blocks))?;
                print("")?;
                print_table(&tables::allocations(&addresses.allocations))?;
            }
        }
        What::Routes => {
            let routes: Vec<agent::Route> = agent.get(agent::ROUTES_PATH).await?;
            if args.agent.json {
                print_json(&routes)?
            } else {
                print_table(&tables::routes(&routes))?
            }
        }
        What::Drops => {
            let drops: Vec<agent::Drop> = agent.get(agent::DROPS_PATH).await?;
            if args.agent.json {
                print_json(&drops)?
            } else {
                print_table(&tables::drops(&drops))?
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
