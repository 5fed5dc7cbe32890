//! `brain dev`: everything at once, for a first look.

mod sites;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use brain::api::{NewToken, TokenRequest};
use brain::config::{Config, Overrides};
use brain::identity::Identity;
use brain::serve::{ADMIN_TOKEN_FILE, Running, Start};
use serde_json::json;
use telemetry::Telemetry;
use tokio::process::{Child, Command};
use url::Url;

use super::logging::Logging;
use super::{client, serve};

/// How long edges get to seal, say goodbye and sync their disks.
const EDGES_STOP_TIME: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub(super) struct DevArgs {
    /// The folder for everything; a temporary one, removed at the end, if not given
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// How many edges to simulate
    #[arg(long, default_value_t = 5)]
    count: u32,
    /// How many edges to run that talk to each other, each a process of its own
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=50))]
    edges: u32,
    /// Over how many sites they are; those of a site share a group
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=50))]
    sites: u32,
    /// Leave out this machine's own edge
    #[arg(long)]
    no_own_edge: bool,
    /// Where devices connect
    #[arg(long, default_value = "127.0.0.1:7443")]
    device_listen: SocketAddr,
    /// Where the API and the page are
    #[arg(long, default_value = "127.0.0.1:7480")]
    api_listen: SocketAddr,
    /// What is logged, as in RUST_LOG
    #[arg(long, default_value = "warn")]
    log: String,
}

pub(super) fn run(args: &DevArgs) -> anyhow::Result<()> {
    let overrides = Overrides {
        device_listen: Some(args.device_listen),
        api_listen: Some(args.api_listen),
        names: Vec::new(),
    };
    let config = Config { log: args.log.clone(), ..Config::read(None, &overrides)? };
    let logging = Logging::start(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut telemetry = None;
    let result = runtime.block_on(dev(args, &config, &logging, &mut telemetry));
    if let Some(telemetry) = telemetry {
        telemetry.shutdown();
    }
    result
}

async fn dev(
    args: &DevArgs,
    config: &Config,
    logging: &Logging,
    telemetry: &mut Option<Telemetry>,
) -> anyhow::Result<()> {
    let edge = edge_binary()?;
    let (data, temporary) = match &args.data_dir {
        Some(data) => (data.clone(), false),
        None => {
            (std::env::temp_dir().join(format!("fleet-brain-dev-{}", std::process::id())), true)
        }
    };
    let brain_data = data.join("brain");
    std::fs::create_dir_all(&brain_data)
        .with_context(|| format!("{} cannot be made", brain_data.display()))?;
    if brain::serve::needs_init(&brain_data) {
        let folder = brain_data.clone();
        tokio::task::spawn_blocking(move || brain::serve::init(&folder)).await??;
    }
    let identity = Identity::load(&brain_data)?;
    let telemetry = telemetry.insert(logging.telemetry(identity.brain.to_string())?);
    let meters = telemetry.meters().clone();
    let running = brain::serve::start(&brain_data, config, Start::default(), meters).await?;
    let asked = serve::Asked::listen()?;
    let stop = asked.times(1);
    let token = std::fs::read_to_string(brain_data.join(ADMIN_TOKEN_FILE))?;
    let url = Url::parse(&running.page_url())?;
    let remembered = client::remember(&url, token.trim(), None)?;
    let mut edges = start_edges(args, &edge, &data, &running, &url, token.trim()).await?;
    say(&running, &data, &remembered, temporary, &edges);
    if args.edges > 0 {
        let (client, edges, sites) =
            (client::Client::at(url, token.trim())?, args.edges, args.sites);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = sites::gather(&client, edges, sites) {
                tracing::warn!("the edges are in no group: {error:#}");
            }
        });
    }
    let mut crashed = None;
    let result = running
        .run_until(
            async {
                tokio::select! {
                    () = stop => {}
                    ended = first_end(&mut edges) => crashed = Some(ended),
                }
                stop_edges(&mut edges).await;
            },
            asked.times(2),
        )
        .await;
    if temporary {
        std::fs::remove_dir_all(&data)
            .with_context(|| format!("{} could not be removed", data.display()))?;
    }
    result?;
    match crashed {
        Some(ended) => bail!("{ended}"),
        None => Ok(()),
    }
}

struct Edge {
    what: String,
    process: Child,
}

async fn start_edges(
    args: &DevArgs,
    binary: &Path,
    data: &Path,
    running: &Running,
    api: &Url,
    token: &str,
) -> anyhow::Result<Vec<Edge>> {
    let server = format!("wss://{}", running.device_address);
    let mut edges = Vec::new();
    if !args.no_own_edge {
        let folder = data.join("edge");
        let mut command = Command::new(binary);
        command.args(["run", "--log-level", &args.log]).arg("--data-dir").arg(&folder);
        // An edge that joined in an earlier run knows its brain.
        if !folder.join("enrolment.json").exists() {
            let token = enrolment_token(api, token, 1).await?;
            write_enrolment(&folder, &server, &token, None)?;
        }
        edges.push(Edge { what: "this machine's edge".to_owned(), process: spawn(command)? });
    }
    for number in 1..=args.edges {
        let (folder, name) = (sites::folder_of(data, number), sites::name_of(number));
        if !folder.join("enrolment.json").exists() {
            let token = enrolment_token(api, token, 1).await?;
            write_enrolment(&folder, &server, &token, Some(&name))?;
        }
        let command = sites::command(binary, &folder, &args.log);
        edges.push(Edge { what: name, process: spawn(command)? });
    }
    if args.count > 0 {
        let token = enrolment_token(api, token, args.count).await?;
        let mut command = Command::new(binary);
        command.args(["simulate", "--log-level", &args.log]);
        command.args(["--count", &args.count.to_string()]);
        command.args(["--server", &server]).arg("--data-dir").arg(data.join("simulated"));
        // Not as an argument, which every user of the machine could read.
        let file = data.join("simulated.token");
        brain::replace(&file, token.as_bytes(), brain::Readers::Owner)?;
        command.arg("--token-file").arg(&file);
        let what = format!("{} simulated edges", args.count);
        edges.push(Edge { what, process: spawn(command)? });
    }
    Ok(edges)
}

fn write_enrolment(
    folder: &Path,
    server: &str,
    token: &str,
    name: Option<&str>,
) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut content = format!("server = {}\ntoken = {}\n", json!(server), json!(token));
    if let Some(name) = name {
        content += &format!("name = {}\n", json!(name));
    }
    brain::replace(&folder.join("enroll.toml"), content.as_bytes(), brain::Readers::Owner)?;
    Ok(())
}

async fn enrolment_token(api: &Url, token: &str, uses: u32) -> anyhow::Result<String> {
    let url = api.join("/api/v1/enrolment-tokens")?;
    let request = TokenRequest { uses, label: "brain dev".to_owned(), ..TokenRequest::default() };
    let bearer = format!("Bearer {token}");
    let answer = tokio::task::spawn_blocking(move || {
        let mut response =
            ureq::post(url.as_str()).header("authorization", bearer).send_json(request)?;
        response.body_mut().read_json::<NewToken>()
    });
    Ok(answer.await??.token)
}

fn spawn(mut command: Command) -> anyhow::Result<Child> {
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).spawn();
    process.with_context(|| format!("{:?} does not start", command.as_std().get_program()))
}

/// The first edge that ends by itself.
async fn first_end(edges: &mut [Edge]) -> String {
    let ends = edges.iter_mut().map(|edge| {
        Box::pin(async {
            let status = edge.process.wait().await;
            match status {
                Ok(status) => format!("{} ended: {status}", edge.what),
                Err(error) => format!("{} cannot be waited for: {error}", edge.what),
            }
        })
    });
    let ends: Vec<_> = ends.collect();
    if ends.is_empty() {
        return std::future::pending().await;
    }
    futures_util::future::select_all(ends).await.0
}

async fn stop_edges(edges: &mut [Edge]) {
    for edge in edges.iter_mut() {
        let id = edge.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(process) = id.and_then(rustix::process::Pid::from_raw) {
            // It may have ended in this moment.
            let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
    }
    for edge in edges {
        if tokio::time::timeout(EDGES_STOP_TIME, edge.process.wait()).await.is_err() {
            eprintln!("{} does not stop and is killed", edge.what);
        }
    }
}

fn say(running: &Running, data: &Path, remembered: &Path, temporary: bool, edges: &[Edge]) {
    let edges = edges.iter().map(|edge| edge.what.as_str()).collect::<Vec<_>>().join(", ");
    let (page, code, devices) = (running.page_url(), running.login_code(), running.device_address);
    let (data, token) = (data.display(), remembered.display());
    let removed = if temporary { " (removed at the end)" } else { "" };
    // It runs on where nobody reads any more.
    let _ = write!(
        std::io::stdout(),
        "page           {page}
one-time code  {code}
devices        wss://{devices} ({edges})
data           {data}{removed}

In another terminal (the token for it is in {token}):
  brain device list
  brain device history NAME
  brain device set NAME sense/machine/period_ms=2000
  brain tree --watch

Ctrl-C stops everything.
"
    );
}

/// The `edge` beside this binary, else the one in the path.
fn edge_binary() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("edge");
    if beside.exists() {
        return Ok(beside);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join("edge")).find(|edge| edge.exists());
    found.context("no `edge` binary beside `brain` or in PATH: build it with `cargo build -p edge`")
}
