//! The load bench: one command a scenario.
//!
//! The parent process starts a brain and as many client processes as its devices need, tells
//! them what to do, and reads what the kernel and the brain say of it.

mod ack;
mod api;
mod brain_metrics;
mod client;
mod coldstart;
mod compare;
mod conflicts;
mod crowd;
mod database;
mod fanout;
mod faults;
mod fleet;
mod histories;
mod history;
mod idle;
mod measure;
mod order;
mod report;
mod settings;
mod signal;
mod storm;
mod supervision;
mod tracing;
mod twins;
mod workspace;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};

use measure::Machine;
use report::{Report, Section};
use settings::{Settings, Shape};
use workspace::Workspace;

/// Measures a brain under load. Every scenario starts a brain of its own in an empty folder, and
/// says in its output which commit, machine and file system its figures are of.
#[derive(Debug, Parser)]
#[command(name = "load", version)]
struct Arguments {
    #[command(subcommand)]
    scenario: Scenario,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Scenario {
    /// Devices connect and keep silent: memory, and what a connect costs
    Idle,
    /// Devices write; the brain acknowledges what is on its disk
    Ack,
    /// All devices disconnect, and all come back at once
    Storm,
    /// An operator tells every device something
    Fanout,
    /// Devices write long histories, and somebody reads them
    History,
    /// A million entries of one device, and a million devices: states of any time, starts, bytes
    Histories,
    /// A killed brain comes back over the data of its fleet
    Coldstart,
    /// Every update is a conflict: how soon it is decided, in this process
    Conflicts,
    /// The brain beside databases and brokers that acknowledge the same updates
    Compare,
    /// What it costs to trace one update in a hundred
    Tracing,
    /// Actors of some devices are killed while others write: what do these notice
    Supervision,
    /// Every fault in every kind of actor while others write, by a brain built with `brain/chaos`
    Faults,
    /// Device actors in this process: how soon they are back after a crash, and what they take
    Twins,
    /// All of these but `faults` and `histories`, one after the other
    All,
    /// A process full of devices; the bench starts it itself
    #[command(hide = true)]
    Client,
}

/// What `all` runs, in this order. `faults` needs a brain of its own, and `histories` takes as long
/// as all the others together.
const ALL: [Scenario; 11] = [
    Scenario::Idle,
    Scenario::Ack,
    Scenario::Storm,
    Scenario::Fanout,
    Scenario::History,
    Scenario::Coldstart,
    Scenario::Tracing,
    Scenario::Supervision,
    Scenario::Twins,
    Scenario::Conflicts,
    Scenario::Compare,
];

/// Runs the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(Arguments { scenario, settings }: Arguments) -> anyhow::Result<()> {
    if scenario == Scenario::Client {
        return client::run();
    }
    let settings = settings.checked()?;
    raise_open_files()?;
    let workspace = Workspace::make(settings.data_dir.as_deref())?;
    let machine = Machine::look(workspace.path())?;
    let report = Report {
        command: command(),
        sections: sections(scenario, &settings, &workspace, &machine)?,
        machine,
    };
    if let Some(path) = &settings.json {
        fs::write(path, format!("{:#}\n", report.to_json()))
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    println!("{}", report.to_text(settings.output).trim_end());
    Ok(())
}

fn sections(
    scenario: Scenario,
    settings: &Settings,
    workspace: &Workspace,
    machine: &Machine,
) -> anyhow::Result<Vec<Section>> {
    Ok(match scenario {
        Scenario::Idle => vec![idle::run(settings, workspace, machine)?],
        Scenario::Ack => vec![ack::run(settings, workspace)?],
        Scenario::Storm => vec![storm::run(settings, workspace)?],
        Scenario::Fanout => vec![fanout::run(settings, workspace)?],
        Scenario::History => vec![history::run(settings, workspace)?],
        Scenario::Histories => histories::run(settings, workspace)?,
        Scenario::Coldstart => vec![coldstart::run(settings, workspace)?],
        Scenario::Tracing => vec![tracing::run(settings, workspace)?],
        Scenario::Supervision => vec![supervision::run(settings, workspace)?],
        Scenario::Faults => vec![faults::run(settings, workspace)?],
        Scenario::Twins => vec![twins::run(settings, workspace)?],
        Scenario::Conflicts => vec![conflicts::run(settings, workspace)?],
        Scenario::Compare => compare::run(settings, workspace)?,
        Scenario::All => {
            let mut all = Vec::new();
            for scenario in ALL {
                all.extend(sections(scenario, settings, workspace, machine)?);
            }
            all
        }
        Scenario::Client => Vec::new(),
    })
}

/// Every device is a socket here and one in the brain, which inherits the limit.
fn raise_open_files() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).context("the limit of open files cannot be raised")
}

/// The command as it was given.
fn command() -> String {
    let arguments = std::env::args().skip(1);
    std::iter::once("load".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// Tells the person in front of the terminal how far it is.
fn note(text: String) {
    eprintln!("load: {text}");
}

#[expect(clippy::disallowed_methods, reason = "the bench itself has no runtime to block")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}
