//! `tombolo lab`.

mod show;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Subcommand};
use tombolo_lab::{LabDir, NameArgs, ServeArgs, UpArgs};

use crate::error::Error;
use crate::output::{print, print_json};
use crate::{FOUND_WRONG, logging, runtime};

/// The commands of the lab. All need root.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Bring up a cluster on this machine
    Up(UpArgs),
    /// Take a lab down; nothing of it stays, whatever state it is in
    Down(DownArgs),
    /// Show a lab's nodes, blocks, pods and processes
    Status(StatusArgs),
    /// Run a command inside a node, a pod, `outside` or `router`
    Exec(ExecArgs),
    /// Print the path of a lab's kubeconfig
    #[command(after_help = "For example: export KUBECONFIG=$(tombolo lab kubeconfig)")]
    Kubeconfig(KubeconfigArgs),
}

/// The options of `tombolo lab down`.
#[derive(Debug, Args)]
pub struct DownArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Take all labs down
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

/// The options of `tombolo lab status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The options of `tombolo lab exec`.
#[derive(Debug, Args)]
pub struct ExecArgs {
    #[command(flatten)]
    name: NameArgs,
    /// A node, a pod (NAME or NAMESPACE/NAME), `outside` or `router`
    #[arg(value_name = "NODE-OR-POD")]
    place: String,
    /// The command; its exit status is passed on
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// The options of `tombolo lab kubeconfig`.
#[derive(Debug, Args)]
pub struct KubeconfigArgs {
    #[command(flatten)]
    name: NameArgs,
    /// Print the content instead
    #[arg(long)]
    content: bool,
}

/// Runs a command of the lab.
pub fn run(command: LabCommand) -> Result<ExitCode, Error> {
    match command {
        LabCommand::Up(args) => up(&args),
        LabCommand::Down(args) => down(&args),
        LabCommand::Status(args) => status(&args),
        // No runtime: a process enters a mount namespace only while it has one thread.
        LabCommand::Exec(args) => {
            let lab = find(&args.name)?;
            match tombolo_lab::exec(&lab, &args.place, &args.command)? {}
        }
        LabCommand::Kubeconfig(args) => {
            let path = find(&args.name)?.kubeconfig();
            if args.content {
                print(std::fs::read_to_string(&path).map_err(Error::Output)?.trim_end())?;
            } else {
                print(path.display())?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs a lab's control plane.
pub fn serve(args: ServeArgs) -> Result<ExitCode, Error> {
    logging::start(false);
    runtime()?.block_on(tombolo_lab::serve(args))?;
    Ok(ExitCode::SUCCESS)
}

fn find(name: &NameArgs) -> Result<LabDir, Error> {
    Ok(LabDir::find(name.name.as_deref())?)
}

fn up(args: &UpArgs) -> Result<ExitCode, Error> {
    let start = Instant::now();
    let lab = runtime()?.block_on(tombolo_lab::up(args, &mut |step| eprintln!("  {step}")))?;
    let seconds = start.elapsed().as_secs_f64();
    print(format_args!(
        "The lab {:?} is up after {seconds:.1} s.",
        lab.name()
    ))?;
    print(format_args!("  export KUBECONFIG={}", lab.kubeconfig().display()))?;
    Ok(ExitCode::SUCCESS)
}

fn down(args: &DownArgs) -> Result<ExitCode, Error> {
    let all = tombolo_lab::labs()?;
    let names = match &args.name.name {
        Some(name) => vec![name.clone()],
        None if args.all => all,
        None => all.into_iter().take(1).collect(),
    };
    if names.is_empty() {
        print("No lab is up.")?;
    }
    for name in names {
        if tombolo_lab::down(&LabDir::new(&name))? {
            print(format_args!("The lab {name:?} is down; nothing of it is left."))?;
        } else {
            print(format_args!("There is no lab {name:?}."))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn status(args: &StatusArgs) -> Result<ExitCode, Error> {
    let lab = find(&args.name)?;
    let status = runtime()?.block_on(tombolo_lab::status(&lab))?;
    if args.json {
        print_json(&status)?;
    } else {
        show::status(&status)?;
    }
    let healthy = status.problems.is_empty() && status.nodes.iter().all(|node| node.ready);
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FOUND_WRONG)
    })
}
