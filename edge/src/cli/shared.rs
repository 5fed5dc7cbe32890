//! `edge shared`.

use anyhow::Context;
use edge::config::Config;
use edge::local_api::{ask, order};
use edge::shares::{Request, ShareStatus};
use serde_json::Value;

use super::{Output, block_on, print_list};

#[derive(Debug, clap::Subcommand)]
pub(super) enum SharedCommand {
    /// Lists the groups whose trees this device holds.
    List,
    /// Shows what the members of a group share.
    Show {
        /// The group.
        group: String,
    },
    /// Writes what the members of a group share, also while the brain is away.
    Set {
        /// The group.
        group: String,
        /// PATH=VALUE below shared/; the value is JSON, or text where it is not; PATH= removes one.
        #[arg(required = true, value_name = "PATH=VALUE")]
        leaves: Vec<String>,
        /// Why, for those who wonder later.
        #[arg(long, default_value = "set on the command line")]
        reason: String,
    },
}

pub(super) fn run(config: &Config, command: SharedCommand, output: Output) -> anyhow::Result<()> {
    let data_dir = &config.data_dir;
    let share: ShareStatus = match command {
        SharedCommand::List => {
            let shares: Vec<ShareStatus> =
                block_on(1, 1, async { Ok(ask(data_dir, "/shared").await?) })?;
            return print_all(&shares, output);
        }
        SharedCommand::Show { group } => {
            let path = format!("/shared/{group}");
            block_on(1, 1, async { Ok(ask(data_dir, &path).await?) })?
        }
        SharedCommand::Set { group, leaves, reason } => {
            let leaves = leaves.iter().map(|leaf| parse(leaf)).collect::<anyhow::Result<_>>()?;
            let request = Request { group, leaves, reason };
            block_on(1, 1, async { Ok(order(data_dir, "/shared", &request).await?) })?
        }
    };
    match output {
        Output::Json => println!("{}", serde_json::to_string(&share)?),
        Output::Table => {
            let text =
                |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let rows = share.shared.iter().map(|(path, value)| [path.clone(), text(value)]);
            print_list(["path", "value"], rows);
        }
    }
    Ok(())
}

fn print_all(shares: &[ShareStatus], output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => println!("{}", serde_json::to_string(shares)?),
        Output::Table if shares.is_empty() => println!("this device is in no group"),
        Output::Table => {
            let heading = ["group", "member", "leaves", "waiting", "root"];
            print_list(heading, shares.iter().map(row));
        }
    }
    Ok(())
}

fn row(share: &ShareStatus) -> [String; 5] {
    [
        share.group.clone(),
        if share.member { "yes" } else { "no" }.to_owned(),
        share.leaves.to_string(),
        share.waiting.to_string(),
        share.root.chars().take(16).collect(),
    ]
}

fn parse(leaf: &str) -> anyhow::Result<(String, Value)> {
    let (path, text) =
        leaf.split_once('=').with_context(|| format!("{leaf:?} is not PATH=VALUE"))?;
    let value = match text {
        "" => Value::Null,
        text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
    };
    Ok((path.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_leaf_is_json_or_text_or_gone() {
        let parsed: BTreeMap<_, _> =
            ["a=1", "b=open", "c="].map(|leaf| parse(leaf).expect("a leaf")).into();
        assert_eq!(parsed["a"], 1);
        assert_eq!(parsed["b"], "open");
        assert_eq!(parsed["c"], Value::Null);
        assert!(parse("d").is_err());
    }
}
