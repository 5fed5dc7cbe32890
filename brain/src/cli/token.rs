//! `brain enroll-token`.

use brain::api::{NewToken, TokenRequest};
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::{Client, ClientArgs};
use super::output::{self, Output};

const PATH: &str = "/api/v1/enrolment-tokens";

#[derive(Debug, clap::Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is shown this once
    Create {
        /// How many devices may join with it
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How many hours it holds
        #[arg(long, default_value_t = 24)]
        hours: u64,
        /// What to call it
        #[arg(long, default_value = "")]
        label: String,
        /// How to print it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// List the tokens, without their secrets
    List {
        /// How to print them
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

pub(super) fn run(client: &ClientArgs, command: TokenCommand) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    match command {
        TokenCommand::Create { uses, hours, label, output } => {
            let request = TokenRequest { uses, valid_seconds: hours.saturating_mul(3_600), label };
            let made: NewToken = client.call(Method::POST, PATH, Some(json!(request)))?;
            match output {
                Output::Json => println!("{}", json!(made)),
                Output::Table => {
                    println!("{}", made.token);
                    eprintln!("valid until {}; on the device:", output::time(made.expires_ms));
                    eprintln!("  edge enroll --server wss://THIS-HOST:7443 --token TOKEN");
                }
            }
        }
        TokenCommand::List { output } => {
            let tokens: Vec<Value> = client.get(PATH)?;
            match output {
                Output::Json => println!("{}", json!(tokens)),
                Output::Table => {
                    let rows = tokens.iter().map(|token| {
                        [
                            output::value(&token["number"]),
                            output::value(&token["label"]),
                            output::value(&token["uses_left"]),
                            output::time(token["expires_ms"].as_u64().unwrap_or(0)),
                        ]
                    });
                    println!(
                        "{}",
                        output::table(["number", "label", "uses left", "expires"], rows)
                    );
                }
            }
        }
    }
    Ok(())
}
