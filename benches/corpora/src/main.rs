//! The command line of the corpora.

#![forbid(unsafe_code)]

use std::io::Write;

use anyhow::Context;
use clap::{Parser, Subcommand};
use corpora::corpus::Kind;
use corpora::form::{Form, Records};
use corpora::measure::{BATCH_RECORDS, Method, measure};
use corpora::report::{Output, render};

/// Seeded fleet data, and how well it compresses.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a corpus as lines of JSON.
    Generate {
        /// Which corpus.
        #[arg(long)]
        kind: Kind,
        /// Equal seeds give equal corpora.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many records.
        #[arg(long, default_value_t = 1_000)]
        count: usize,
    },
    /// Compress corpora by every codec, level and batch size, and print what came of it.
    ///
    /// Each batch is compressed by itself. Speeds are of one core's own time. Targets are judged at the batch size of their tier only. The exit code does not
    /// depend on them.
    Compress {
        /// Only these corpora; all if none is given.
        #[arg(long)]
        kind: Vec<Kind>,
        /// Equal seeds give equal corpora.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many records of each; if not given a day of metrics, 20000 of `logs` and
        /// `device_states`, and 4000 of `json`.
        #[arg(long)]
        count: Option<usize>,
        /// How to print.
        #[arg(long, default_value = "table")]
        output: Output,
    },
}

fn main() -> anyhow::Result<()> {
    let text = match Arguments::parse().command {
        Command::Generate { kind, seed, count } => {
            return print(&kind.json_lines(seed, count).concat());
        }
        Command::Compress { kind, seed, count, output } => {
            let kinds = if kind.is_empty() { Kind::ALL.to_vec() } else { kind };
            render(&compress(&kinds, seed, count)?, output)?
        }
    };
    print(format!("{text}\n").as_bytes())
}

fn compress(
    kinds: &[Kind],
    seed: u64,
    count: Option<usize>,
) -> anyhow::Result<Vec<corpora::measure::Row>> {
    let mut rows = Vec::new();
    for kind in kinds.iter().copied() {
        let count = count.unwrap_or(kind.usual_count());
        for form in Form::of(kind).iter().copied() {
            eprintln!("corpora: {} as {}, seed {seed}, {count} records", kind.name(), form.name());
            let records = Records::generate(kind, form, seed, count);
            for method in Method::ALL {
                for size in BATCH_RECORDS {
                    let row = measure((kind, form), &records, method, size);
                    rows.push(row.with_context(|| format!("corpus {}", kind.name()))?);
                }
            }
        }
    }
    Ok(rows)
}

/// A reader that has seen enough is no error.
fn print(bytes: &[u8]) -> anyhow::Result<()> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
