//! `brain audit`.

use anyhow::bail;
use brain::store::{AuditChecked, AuditRow};
use serde_json::json;

use super::client::{Client, ClientArgs};
use super::output::{self, Output};

#[derive(Debug, clap::Subcommand)]
pub(super) enum AuditCommand {
    /// List who changed what, newest first
    List {
        /// How many at most
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Those before this number
        #[arg(long)]
        before: Option<u64>,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Check that no row was altered or removed since it was written
    Check {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

/// Runs `brain audit`.
pub(super) fn run(client: &ClientArgs, command: AuditCommand) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    match command {
        AuditCommand::List { limit, before, output } => {
            let before = before.map_or_else(String::new, |before| format!("&before={before}"));
            let rows: Vec<AuditRow> =
                client.get(&format!("/api/v1/audit?limit={limit}{before}"))?;
            match output {
                Output::Json => println!("{}", json!(rows)),
                Output::Table => {
                    let heading =
                        ["number", "when", "who", "what", "to", "status", "reason", "entry"];
                    println!("{}", output::table(heading, rows.into_iter().map(row)));
                }
            }
        }
        AuditCommand::Check { output } => {
            let checked: AuditChecked = client.get("/api/v1/audit/check")?;
            match output {
                Output::Json => println!("{}", json!(checked)),
                Output::Table => {
                    println!("{} rows, the last with hash {}", checked.rows, checked.last_hash)
                }
            }
            if let Some(number) = checked.broken_at {
                bail!("row {number} is not what was written, or is missing");
            }
        }
    }
    Ok(())
}

fn row(row: AuditRow) -> [String; 8] {
    let done = row.done;
    [
        row.number.to_string(),
        output::time(done.at_ms),
        done.principal,
        done.operation,
        done.target,
        done.outcome.to_string(),
        done.reason,
        done.entry.map_or_else(|| "-".to_owned(), |entry| entry.short()),
    ]
}
