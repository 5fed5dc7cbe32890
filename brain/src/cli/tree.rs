//! `brain tree` and `brain crashes`.

mod follow;
mod policies;

use actors::supervise::{CrashRecord, Rules};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;
use url::form_urlencoded::byte_serialize;

use super::client::{Client, ClientArgs};
use super::output::{self, Output};

/// How to look at the tree, where nothing is to be done to it.
#[derive(Debug, clap::Args)]
pub(super) struct TreeView {
    /// Of this node and all below it
    #[arg(long)]
    below: Option<String>,
    /// Only nodes of this kind, such as device
    #[arg(long)]
    kind: Option<String>,
    /// Go on with what happens, until it is interrupted
    #[arg(long)]
    watch: bool,
    /// Those who left the tree lately instead
    #[arg(long, conflicts_with_all = ["watch", "policies"])]
    dead: bool,
    /// The rules instead: who is restarted when, and what follows when it fails too often
    #[arg(long, conflicts_with_all = ["watch", "kind"])]
    policies: bool,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum TreeCommand {
    /// Kill a node, as a fault would, to see what its supervisor does about it
    Kill {
        /// Its path, as `brain tree` shows it
        path: String,
    },
    /// Stop a node in good order and start it again, with those that depend on it
    Restart {
        /// Its path, as `brain tree` shows it
        path: String,
    },
}

#[derive(Debug, clap::Args)]
pub(super) struct CrashesArgs {
    /// Of this node and all below it
    #[arg(long)]
    below: Option<String>,
    /// How many at most, 1 to 1000
    #[arg(long, default_value_t = 20)]
    limit: usize,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// A node, as the API shows it.
#[derive(Deserialize)]
struct Node {
    path: String,
    kind: String,
    status: String,
    incarnation: u64,
    restarts: u64,
    depth: usize,
    capacity: usize,
    handling: Option<Value>,
    last_crash: Option<Value>,
}

pub(super) fn tree(
    client: &ClientArgs,
    command: Option<TreeCommand>,
    view: &TreeView,
) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    let (path, action) = match command {
        None if view.policies => return policies(&client, view),
        None => return show(&client, view),
        Some(TreeCommand::Kill { path }) => (path, "kill"),
        Some(TreeCommand::Restart { path }) => (path, "restart"),
    };
    client.order(Method::POST, &format!("/api/v1/tree/{}/{action}", encode(&path)))?;
    let done = if action == "kill" { "killed" } else { "asked to restart" };
    eprintln!("{path} is {done}; `brain crashes` and `brain tree --below {path}` show the rest");
    Ok(())
}

pub(super) fn crashes(client: &ClientArgs, args: &CrashesArgs) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    let mut path = format!("/api/v1/crashes?limit={}", args.limit);
    if let Some(below) = &args.below {
        path += &format!("&path={}", encode(below));
    }
    let crashes: Vec<CrashRecord> = client.get(&path)?;
    match args.output {
        Output::Json => println!("{}", json!(crashes)),
        Output::Table if crashes.is_empty() => println!("nothing has crashed"),
        Output::Table => {
            let heading =
                ["time", "path", "life", "lived", "handling", "what happened", "decision"];
            let rows = crashes.iter().map(|crash| {
                [
                    output::time(crash.at_ms),
                    crash.path.clone(),
                    crash.incarnation.to_string(),
                    output::duration(crash.uptime_ms),
                    crash.message.clone().unwrap_or_else(|| "-".into()),
                    what_happened(crash),
                    decision(crash),
                ]
            });
            println!("{}", output::table(heading, rows));
        }
    }
    Ok(())
}

fn policies(client: &Client, view: &TreeView) -> anyhow::Result<()> {
    let mut rules: Vec<Rules> = client.get("/api/v1/tree/policies")?;
    rules.retain(|rules| view.shows(Some(&rules.path), None));
    match view.output {
        Output::Json => println!("{}", json!(rules)),
        Output::Table => println!("{}", policies::table(&rules)),
    }
    Ok(())
}

fn show(client: &Client, view: &TreeView) -> anyhow::Result<()> {
    if view.dead {
        return dead(client, view);
    }
    // Listening first: nothing that happens in between is missed.
    let events = view.watch.then(|| client.stream(follow::PATH)).transpose()?;
    let nodes: Vec<Value> = client.get("/api/v1/tree")?;
    let nodes: Vec<Value> = nodes
        .into_iter()
        .filter(|node| view.shows(node["path"].as_str(), node["kind"].as_str()))
        .collect();
    match view.output {
        Output::Json => println!("{}", json!(nodes)),
        Output::Table => {
            let nodes: Vec<Node> = serde_json::from_value(json!(nodes))?;
            let heading =
                ["path", "kind", "status", "life", "restarts", "queue", "now", "last crash"];
            println!("{}", output::table(heading, nodes.iter().map(row)));
        }
    }
    match events {
        Some(events) => follow::follow(client, events, view),
        None => Ok(()),
    }
}

fn dead(client: &Client, view: &TreeView) -> anyhow::Result<()> {
    let mut nodes: Vec<Value> = client.get("/api/v1/tree/dead")?;
    nodes.retain(|node| view.shows(node["path"].as_str(), node["kind"].as_str()));
    match view.output {
        Output::Json => println!("{}", json!(nodes)),
        Output::Table if nodes.is_empty() => println!("nobody left the tree"),
        Output::Table => {
            let heading = ["path", "kind", "left", "restarts", "last crash"];
            let text = |node: &Value, name: &str| output::value(&node[name]);
            let rows = nodes.iter().map(|node| {
                let ago = output::duration(node["ago_ms"].as_u64().unwrap_or_default());
                let crash = (!node["last_crash"].is_null()).then_some(&node["last_crash"]);
                [
                    text(node, "path"),
                    text(node, "kind"),
                    format!("{ago} ago"),
                    text(node, "restarts"),
                    last_crash(crash),
                ]
            });
            println!("{}", output::table(heading, rows));
        }
    }
    Ok(())
}

impl TreeView {
    fn shows(&self, path: Option<&str>, kind: Option<&str>) -> bool {
        let below = self.below.as_deref().is_none_or(|below| {
            let rest = path.and_then(|path| path.strip_prefix(below));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        below && self.kind.as_deref().is_none_or(|wanted| kind == Some(wanted))
    }
}

fn row(node: &Node) -> [String; 8] {
    let dash = || "-".to_owned();
    let depth = node.path.matches('/').count();
    let name = node.path.rsplit('/').next().unwrap_or_default();
    let now = node.handling.as_ref().map_or_else(dash, |handling| {
        let lasting = output::duration(handling["lasting_ms"].as_u64().unwrap_or_default());
        format!("{} for {lasting}", output::value(&handling["label"]))
    });
    [
        format!("{}{name}", "  ".repeat(depth)),
        node.kind.clone(),
        node.status.clone(),
        node.incarnation.to_string(),
        node.restarts.to_string(),
        if node.capacity == 0 { dash() } else { format!("{}/{}", node.depth, node.capacity) },
        now,
        last_crash(node.last_crash.as_ref()),
    ]
}

fn last_crash(crash: Option<&Value>) -> String {
    crash.map_or_else(
        || "-".to_owned(),
        |crash| {
            let fault = &crash["fault"];
            let text = fault["message"].as_str().or(fault["fault"].as_str());
            output::shortened(text.unwrap_or_default(), 40)
        },
    )
}

fn what_happened(crash: &CrashRecord) -> String {
    let text = output::shortened(&crash.text, 60);
    match &crash.location {
        Some(location) => format!("{text} ({location})"),
        None => text,
    }
}

fn decision(crash: &CrashRecord) -> String {
    let delay = crash.delay_ms.map(output::duration);
    match (crash.decision.as_str(), delay) {
        ("restart", Some(delay)) => format!("restart in {delay}, failure {}", crash.failures),
        ("quarantine", Some(delay)) => format!("quarantine for {delay}"),
        (other, _) => other.replace('_', " "),
    }
}

/// A text as part of an address.
pub(super) fn encode(text: &str) -> String {
    // In a path a plus is a plus; no name has a space.
    byte_serialize(text.as_bytes()).collect()
}
