//! `brain quarantine`: actors that failed too often, and messages that made them.

use brain::api::{DeadLetterContent, DeadLetterView, Quarantined, WriteAnswer};
use serde_json::json;
use ureq::http::Method;

use super::client::{Client, ClientArgs};
use super::output::{self, Output};
use super::tree::encode;

#[derive(Debug, clap::Subcommand)]
pub(super) enum QuarantineCommand {
    /// List the actors that failed too often, and the messages that killed theirs three times
    List {
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Let an actor out: it starts at once, with a clean record
    Release {
        /// Its path, as the list shows it
        path: String,
    },
    /// Show a message with what is in it
    Show {
        /// Its id, as the list shows it
        id: String,
    },
    /// Hand a message to its actor again, for instance after an update
    Replay {
        /// Its id, as the list shows it
        id: String,
    },
    /// Throw a message away for good
    Discard {
        /// Its id, as the list shows it
        id: String,
    },
}

pub(super) fn run(client: &ClientArgs, command: QuarantineCommand) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    let message = |id: &str| format!("/api/v1/quarantine/messages/{}", encode(id));
    match command {
        QuarantineCommand::List { output } => list(&client, output)?,
        QuarantineCommand::Release { path } => {
            let target = format!("/api/v1/quarantine/{}/release", encode(&path));
            client.order(Method::POST, &target)?;
            eprintln!("{path} is let out; `brain tree --below {path}` shows how it does");
        }
        QuarantineCommand::Show { id } => {
            let letter: DeadLetterContent = client.get(&message(&id))?;
            println!("{}", serde_json::to_string_pretty(&letter)?);
        }
        QuarantineCommand::Replay { id } => {
            let target = format!("{}/replay", message(&id));
            let WriteAnswer { version, .. } = client.call(Method::POST, &target, None)?;
            eprintln!("{id} was handled; the device's state is at version {version}");
        }
        QuarantineCommand::Discard { id } => {
            client.order(Method::DELETE, &message(&id))?;
            eprintln!("{id} is thrown away");
        }
    }
    Ok(())
}

fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let nodes: Vec<Quarantined> = client.get("/api/v1/quarantine")?;
    let letters: Vec<DeadLetterView> = client.get("/api/v1/quarantine/messages")?;
    if output == Output::Json {
        println!("{}", json!({ "actors": nodes, "messages": letters }));
        return Ok(());
    }
    let dash = || "-".to_owned();
    if nodes.is_empty() {
        println!("no actor is quarantined");
    } else {
        let heading = ["path", "kind", "for", "handling", "reason"];
        let rows = nodes.into_iter().map(|node| {
            let lasting = output::duration(node.remaining_ms);
            let message = node.message.unwrap_or_else(dash);
            [node.path, node.kind, lasting, message, node.reason.unwrap_or_else(dash)]
        });
        println!("{}", output::table(heading, rows));
    }
    if letters.is_empty() {
        println!("no message is set aside");
    } else {
        let heading = ["message", "kind", "bytes", "set aside", "its actor died of"];
        let rows = letters.into_iter().map(|letter| {
            let fault = letter.fault.map_or_else(dash, |fault| output::shortened(&fault, 60));
            let (size, at) = (letter.size.to_string(), output::time(letter.at_ms));
            [letter.id, letter.message, size, at, fault]
        });
        println!("{}", output::table(heading, rows));
    }
    Ok(())
}
