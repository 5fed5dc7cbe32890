//! `edge override`.

use edge::config::Config;
use edge::local_api::{ask, order};
use edge::overrides::{Override, Request};
use jiff::SignedDuration;
use serde_json::Value;

use super::{Output, block_on, print_list, time};

#[derive(Debug, clap::Subcommand)]
pub(super) enum OverrideCommand {
    /// Sets what is desired by hand, for a time: it comes before what the brain says, also while
    /// the brain is away.
    Set {
        /// The path below desired/, such as fan/speed.
        path: String,
        /// The value: JSON, or text where it is not.
        value: String,
        /// For how long, such as 2h or 30m.
        #[arg(long = "for", value_name = "TIME", value_parser = lease_ms)]
        for_ms: u64,
        /// Why, for those who wonder later.
        #[arg(long)]
        reason: String,
    },
    /// Ends an override before its time.
    Clear {
        /// The path below desired/.
        path: String,
        /// Why, for those who wonder later.
        #[arg(long, default_value = "cleared on the command line")]
        reason: String,
    },
    /// Lists the overrides, those that have ended included.
    List,
}

pub(super) fn run(config: &Config, command: OverrideCommand, output: Output) -> anyhow::Result<()> {
    let request = match command {
        OverrideCommand::Set { path, value, for_ms, reason } => {
            let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
            Some(Request { path, value, for_ms: Some(for_ms), reason })
        }
        OverrideCommand::Clear { path, reason } => {
            Some(Request { path, value: Value::Null, for_ms: None, reason })
        }
        OverrideCommand::List => None,
    };
    let data_dir = &config.data_dir;
    let overrides: Vec<Override> = block_on(1, 1, async {
        Ok(match &request {
            Some(request) => order(data_dir, "/overrides", request).await?,
            None => ask(data_dir, "/overrides").await?,
        })
    })?;
    match output {
        Output::Json => println!("{}", serde_json::to_string(&overrides)?),
        Output::Table if overrides.is_empty() => println!("nothing is overridden"),
        Output::Table => {
            let heading = ["path", "value", "desired", "since", "until", "holds"];
            print_list(heading, overrides.into_iter().map(row));
        }
    }
    Ok(())
}

fn row(found: Override) -> [String; 6] {
    let value = |value: &protocol::state::Value| match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_json().to_string(),
    };
    [
        found.path,
        value(&found.value),
        found.desired.as_ref().map_or_else(|| "-".to_owned(), value),
        time(found.since_ms),
        found.until_ms.map_or_else(|| "-".to_owned(), time),
        if found.holds { "yes" } else { "ended" }.to_owned(),
    ]
}

fn lease_ms(text: &str) -> Result<u64, String> {
    let lease: SignedDuration = text.parse().map_err(|error| format!("{error}"))?;
    u64::try_from(lease.as_millis()).map_err(|_| "a time cannot be negative".to_owned())
}
