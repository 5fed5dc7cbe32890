//! Commands and their arguments.

mod audit;
mod backup;
mod client;
mod conflict;
mod constraint;
mod dev;
mod device;
mod error;
mod fleet;
mod group;
mod init;
mod logging;
mod output;
mod quarantine;
mod refused;
mod replay;
mod retire;
mod serve;
mod token;
mod tree;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use client::ClientArgs;
use output::Output;
use refused::Refused;

/// The fleet brain: keeps the state of a fleet's devices, and what they are to do.
#[derive(Debug, Parser)]
#[command(name = "brain", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a fleet: its root key, this brain's certificate, and an empty store
    Init(init::InitArgs),
    /// Run the brain
    Serve(serve::ServeArgs),
    /// Run everything at once on this machine: a brain, this machine's edge, simulated edges
    Dev(dev::DevArgs),
    /// Look at devices and set what they are to do
    Device {
        #[command(flatten)]
        client: ClientArgs,
        #[command(subcommand)]
        command: device::DeviceCommand,
    },
    /// Make and list the tokens with which devices join
    EnrollToken {
        #[command(flatten)]
        client: ClientArgs,
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Look at the actors: who runs, who failed, who waits; kill or restart one
    Tree {
        #[command(flatten)]
        client: ClientArgs,
        #[command(flatten)]
        view: tree::TreeView,
        #[command(subcommand)]
        command: Option<tree::TreeCommand>,
    },
    /// List what failed, and what was decided about it, newest first
    Crashes {
        #[command(flatten)]
        client: ClientArgs,
        #[command(flatten)]
        args: tree::CrashesArgs,
    },
    /// See the errors that the brain noticed and nobody asked for
    Error {
        #[command(flatten)]
        client: ClientArgs,
        #[command(subcommand)]
        command: error::ErrorCommand,
    },
    /// See and release what failed too often: actors, and messages that killed theirs
    Quarantine {
        #[command(flatten)]
        client: ClientArgs,
        #[command(subcommand)]
        command: quarantine::QuarantineCommand,
    },
    /// Check every record, chain, signature and state in a data folder, and name what is damaged
    Verify(verify::VerifyArgs),
    /// Make, fetch, check and restore backups of the whole brain
    Backup {
        #[command(subcommand)]
        command: backup::BackupCommand,
    },
    /// Say why a device's leaves are what they are: who set them, over what, and what holds them
    Why {
        #[command(flatten)]
        client: ClientArgs,
        #[command(flatten)]
        args: conflict::WhyArgs,
    },
    /// Go through a device's history from its first entry, and compare what it comes to with what is
    /// kept
    Replay {
        #[command(flatten)]
        client: ClientArgs,
        #[command(flatten)]
        args: replay::ReplayArgs,
    },
    /// See and set what leaves may be
    Constraint {
        #[command(flatten)]
        client: ClientArgs,
        #[command(subcommand)]
        command: constraint::ConstraintCommand,
    },
    /// See who changed what through the API, and check that nobody altered the list
    Audit {
        #[command(flatten)]
        client: ClientArgs,
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// See conflicts, and how they are decided
    Conflict {
        #[command(flatten)]
        client: ClientArgs,
        #[command(subcommand)]
        command: conflict::ConflictCommand,
    },
    /// Look at the whole fleet, or the part of it that a query means
    Fleet {
        #[command(flatten)]
        client: ClientArgs,
        #[command(subcommand)]
        command: fleet::FleetCommand,
    },
    /// See groups, who is in them, and what their members share
    Group {
        #[command(flatten)]
        client: ClientArgs,
        #[command(subcommand)]
        command: group::GroupCommand,
    },
    /// Exchange a one-time code for a token and remember it for later commands
    Login {
        #[command(flatten)]
        client: ClientArgs,
        /// The code, as the brain printed it
        code: String,
    },
    /// Print the settings in force, as a file of settings
    Config {
        /// A file of settings, in TOML
        #[arg(long, env = "FLEET_BRAIN_CONFIG")]
        config: Option<PathBuf>,
    },
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Where the brain keeps its files.
#[derive(Debug, clap::Args)]
struct DataDir {
    /// The folder of keys and store
    #[arg(long, env = "FLEET_BRAIN_DATA_DIR", default_value = "/var/lib/fleet-brain")]
    data_dir: PathBuf,
}

/// Runs the command line: 0 is success, 1 a failure, 2 a wrong call.
pub(crate) fn run() -> ExitCode {
    let matches = Cli::command().get_matches();
    let command = match Cli::from_arg_matches(&matches) {
        Ok(Cli { command }) => command,
        Err(error) => error.format(&mut Cli::command()).exit(),
    };
    if !matches!(command, Command::Serve(_) | Command::Dev(_)) {
        // Whoever reads only the beginning of a list has not made a mistake.
        sigpipe::reset();
    }
    let result = match command {
        Command::Init(args) => init::run(&args),
        Command::Serve(args) => serve::run(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Device { client, command } => device::run(&client, command),
        Command::EnrollToken { client, command } => token::run(&client, command),
        Command::Tree { client, view, command } => tree::tree(&client, command, &view),
        Command::Crashes { client, args } => tree::crashes(&client, &args),
        Command::Error { client, command } => error::run(&client, command),
        Command::Quarantine { client, command } => quarantine::run(&client, command),
        Command::Verify(args) => verify::run(&args),
        Command::Backup { command } => backup::run(command),
        Command::Why { client, args } => conflict::why(&client, &args),
        Command::Replay { client, args } => replay::run(&client, &args),
        Command::Constraint { client, command } => constraint::run(&client, command),
        Command::Audit { client, command } => audit::run(&client, command),
        Command::Conflict { client, command } => conflict::run(&client, command),
        Command::Fleet { client, command } => fleet::run(&client, command),
        Command::Group { client, command } => group::run(&client, command),
        Command::Login { client, code } => client::log_in(&client, &code),
        Command::Config { config } => serve::print_config(config.as_deref()),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "brain", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("brain: {error:#}");
            if let Some(refused) = error.downcast_ref::<Refused>()
                && wants_json(&matches)
            {
                println!("{}", refused.problem());
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether the answer is for a program.
fn wants_json(matches: &ArgMatches) -> bool {
    let here = matches.try_get_one::<Output>("output").ok().flatten();
    let below = matches.subcommand().is_some_and(|(_, below)| wants_json(below));
    here == Some(&Output::Json) || below
}
