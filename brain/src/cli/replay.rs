//! `brain replay`.

use std::io::{BufRead, BufReader, IsTerminal};

use anyhow::{Context, bail};
use brain::api::{ReplayLine, Verdict};

use super::client::{Client, ClientArgs};
use super::device::resolve;
use super::output::{self, Output};

#[derive(Debug, clap::Args)]
pub(super) struct ReplayArgs {
    /// Its id, the beginning of its id, or its name
    device: String,
    /// Up to this version [default: the last]
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
    /// Print only what it comes to
    #[arg(long)]
    quiet: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs `brain replay`.
pub(super) fn run(client: &ClientArgs, args: &ReplayArgs) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    let id = resolve(&client, &args.device)?;
    let mut target = format!("/api/v1/devices/{id}/replay?roots={}", !args.quiet);
    if let Some(to) = args.to {
        target += &format!("&version={to}");
    }
    let shows_progress = args.quiet && std::io::stderr().is_terminal();
    let (mut verdict, mut changes) = (None, 0u64);
    for line in BufReader::new(client.stream(&target)?).lines() {
        let line = line.context("the replay ended before its end; the brain's log says why")?;
        match serde_json::from_str(&line)? {
            ReplayLine::Verdict(found) => verdict = Some(found),
            ReplayLine::Change { change, root } => {
                changes += 1;
                if shows_progress && changes.is_multiple_of(1_000) {
                    eprint!("\r{changes} changes");
                }
                match args.output {
                    _ if args.quiet => {}
                    Output::Json => println!("{line}"),
                    Output::Table => {
                        let leaves = change.change.delta.len();
                        let root: String = root.unwrap_or_default().chars().take(16).collect();
                        let time = output::time(change.change.timestamp);
                        let (version, source) = (change.change.version, change.change.source);
                        let (principal, reason) = (&change.principal, &change.change.reason);
                        println!(
                            "{version}\t{time}\t{root}\t{leaves} leaves\t{source}\t{principal}\t{reason}"
                        );
                    }
                }
            }
        }
    }
    if shows_progress {
        eprintln!("\r{changes} changes");
    }
    let verdict = verdict.context("the replay ended before its end; the brain's log says why")?;
    let Verdict { version, root, kept, same } = &verdict;
    match args.output {
        Output::Json => {
            println!("{}", serde_json::to_string(&ReplayLine::Verdict(verdict.clone()))?)
        }
        Output::Table => println!("version {version}: {changes} changes come to root {root}"),
    }
    if !same {
        bail!(
            "the brain keeps another state of version {version}, root {kept}: see `brain verify`"
        );
    }
    Ok(())
}
