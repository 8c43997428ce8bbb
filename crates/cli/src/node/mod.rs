//! `tombolo status` and `tombolo get`: what this node's agent says.

mod client;
mod services;
mod tables;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use comfy_table::Table;
use serde::Serialize;
use serde::de::DeserializeOwned;
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

/// The options of `tombolo get services`.
#[derive(Debug, Args)]
pub struct ServicesArgs {
    /// Say what becomes of this client, should it come to this node
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    #[command(flatten)]
    agent: AgentArgs,
}

/// A table of the node.
#[derive(Debug, Subcommand)]
pub enum GetCommand {
    /// The pods' interfaces on this node
    Endpoints(AgentArgs),
    /// The node's blocks, and who holds which address
    Addresses(AgentArgs),
    /// Where packets to pods, nodes and Services go
    Routes(AgentArgs),
    /// Where Services are reached, and the backends that take it from there
    Services(ServicesArgs),
    /// How many packets were dropped, where and why
    Drops(AgentArgs),
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
pub async fn get(command: &GetCommand) -> Result<ExitCode, Error> {
    match command {
        GetCommand::Endpoints(args) => show(args, agent::ENDPOINTS_PATH, tables::endpoints).await?,
        GetCommand::Addresses(args) => {
            let addresses: agent::Addresses = Agent::new(&args.socket).get(agent::ADDRESSES_PATH).await?;
            if args.json {
                print_json(&addresses)?;
            } else {
                print_table(&tables::blocks(&addresses.blocks))?;
                print("")?;
                print_table(&tables::allocations(&addresses.allocations))?;
            }
        }
        GetCommand::Routes(args) => show(args, agent::ROUTES_PATH, tables::routes).await?,
        GetCommand::Services(ServicesArgs { client: None, agent }) => {
            show(agent, agent::SERVICES_PATH, services::table).await?;
        }
        GetCommand::Services(ServicesArgs {
            client: Some(client),
            agent,
        }) => {
            let path = format!("{}?client={client}", agent::SERVICES_PATH);
            show(agent, &path, services::table).await?;
        }
        GetCommand::Drops(args) => show(args, agent::DROPS_PATH, tables::drops).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn show<T>(args: &AgentArgs, path: &str, table: fn(&[T]) -> Table) -> Result<(), Error>
where
    T: Serialize + DeserializeOwned,
{
    let rows: Vec<T> = Agent::new(&args.socket).get(path).await?;
    if args.json {
        print_json(&rows)
    } else {
        print_table(&table(&rows))
    }
}
