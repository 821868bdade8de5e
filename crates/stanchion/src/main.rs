//! One binary, wired together. Nothing is decided here: `up` opens the rooms in order and hands each
//! the ones that it may know.
#![forbid(unsafe_code)]

mod access;
mod apply;
mod backup;
mod cluster_map;
mod config;
mod connection;
mod copy;
mod defaults;
mod doctor;
mod down;
mod format;
mod hands;
mod image;
mod lead;
mod ledger;
mod log;
mod network;
mod node;
mod pki;
mod places;
mod progress;
mod restore;
mod token;
mod up;

use clap::{Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};

/// Persistent storage and stateful workloads with the Kubernetes API, in one binary.
#[derive(Parser)]
#[command(name = "stanchion", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    log: log::Flags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the control plane and one node in this process, in the foreground
    Up(Box<config::Flags>),
    /// Run the control plane only
    Server(Box<config::Flags>),
    /// Run one node of a server elsewhere, in the foreground
    Node(Box<node::Flags>),
    /// Stop every pod of a data dir, unmount and detach everything, keep the data
    Down(config::DataDir),
    /// `down`, then erase the data dir
    Reset(down::ResetFlags),
    /// Look at everything that a data dir holds, and say what is wrong and what to do
    Doctor(config::DataDir),
    /// Write ledger, certificates and keys to a file, while the server runs or not
    Backup(backup::Flags),
    /// Make a backup the ledger of a stopped data dir
    Restore(restore::Flags),
    /// Move a ledger between backends
    #[command(subcommand)]
    Store(copy::Command),
    /// Container images of a data dir
    #[command(subcommand)]
    Image(image::Command),
    /// Tokens with which nodes join
    #[command(subcommand)]
    Token(token::Command),
    /// Print the admin's kubeconfig
    Kubeconfig(config::KubeconfigFlags),
    /// What this program calls itself with, to work on a share without being held up by its server
    #[command(name = volumes::nfs_helper::COMMAND, hide = true)]
    NfsDirectory { job: String },
    /// What this program calls itself with where the kernel has no NFS client: one process a mount
    #[command(name = volumes::nfs_userspace::COMMAND, hide = true)]
    NfsMount { host: String, path: String, target: PathBuf, options: String, alone: String },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.log.start();
    let done = match cli.command {
        Command::Up(flags) => up::run(*flags),
        Command::Server(flags) => up::run(config::Flags { no_node: true, ..*flags }),
        Command::Node(flags) => node::run(&flags),
        Command::Down(data) => down::run(&data),
        Command::Reset(flags) => down::reset(&flags),
        Command::Doctor(data) => doctor::run(&data),
        Command::Backup(flags) => backup::run(&flags),
        Command::Restore(flags) => restore::run(&flags),
        Command::Store(command) => copy::run(&command),
        Command::Image(command) => image::run(&command),
        Command::Token(command) => token::run(&command),
        Command::Kubeconfig(flags) => flags.print(),
        Command::NfsMount { host, path, target, options, alone } => {
            let alone = !alone.is_empty();
            let code = volumes::nfs_userspace::run(&host, &path, &target, &options, alone);
            return ExitCode::from(code);
        }
        Command::NfsDirectory { job } => return ExitCode::from(volumes::nfs_helper::run(&job)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// What was attempted, then each cause once.
fn one_line(error: &anyhow::Error) -> String {
    stdx::one_line(error.as_ref())
}
