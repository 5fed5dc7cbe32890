//! `brain error`: what the brain noticed by itself.

use brain::errors::{ErrorStatus, NoticedError};
use serde_json::json;

use super::client::{Client, ClientArgs};
use super::device::{View, repeat};
use super::output::{self, Output};
use super::tree::encode;

#[derive(Debug, clap::Subcommand)]
pub(super) enum ErrorCommand {
    /// List the errors that nobody asked for, the last noticed first
    List {
        /// Only those that are still so
        #[arg(long)]
        open: bool,
        /// About this device, group or actor alone
        #[arg(long)]
        subject: Option<String>,
        #[command(flatten)]
        view: View,
    },
    /// Show one, with how it came about
    Show {
        /// Its number, as the list shows it
        id: u64,
        #[command(flatten)]
        view: View,
    },
}

pub(super) fn run(client: &ClientArgs, command: ErrorCommand) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    match command {
        ErrorCommand::List { open, subject, view } => {
            let status = open.then(|| "status=open".to_owned());
            let subject = subject.map(|subject| format!("subject={}", encode(&subject)));
            let asked: Vec<_> = status.into_iter().chain(subject).collect();
            let target = format!("/api/v1/errors?{}", asked.join("&"));
            repeat(view, || list(&client, &target, view.output))
        }
        ErrorCommand::Show { id, view } => repeat(view, || show(&client, id, view.output)),
    }
}

fn list(client: &Client, target: &str, output: Output) -> anyhow::Result<()> {
    let errors: Vec<NoticedError> = client.get(target)?;
    match output {
        Output::Json => println!("{}", json!(errors)),
        Output::Table if errors.is_empty() => println!("no error was noticed"),
        Output::Table => {
            let heading = ["id", "status", "code", "where", "about", "times", "last", "message"];
            println!("{}", output::table(heading, errors.iter().map(row)));
        }
    }
    Ok(())
}

fn row(error: &NoticedError) -> [String; 8] {
    [
        error.id.to_string(),
        status(error.status).to_owned(),
        error.code.to_string(),
        format!("{}, {}", error.source.layer, error.source.component),
        error.subject.clone().unwrap_or_else(|| "-".to_owned()),
        error.count.to_string(),
        output::time(error.last_ms),
        output::shortened(&error.message, 60),
    ]
}

fn show(client: &Client, id: u64, output: Output) -> anyhow::Result<()> {
    let error: NoticedError = client.get(&format!("/api/v1/errors/{id}"))?;
    if output == Output::Json {
        println!("{}", json!(error));
        return Ok(());
    }
    println!("{}: {} ({})", error.id, error.message, error.code);
    if let Some(subject) = &error.subject {
        println!("  about {subject}");
    }
    let (first, last) = (output::time(error.first_ms), output::time(error.last_ms));
    println!("  {}, noticed {} times from {first} to {last}", status(error.status), error.count);
    error.causes.iter().for_each(|cause| println!("  from {cause}"));
    Ok(())
}

fn status(status: ErrorStatus) -> &'static str {
    match status {
        ErrorStatus::Open => "open",
        ErrorStatus::Over => "over",
    }
}
