//! `edge simulate`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use edge::config::{Config, SpoolKind};
use edge::simulate::{self, Progress, Simulation};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;

use super::{UsageError, asked_to_end, block_on};

/// Each device has a socket, a spool and its log.
const FILES_PER_DEVICE: u64 = 5;
const FILES_OF_THE_PROCESS: u64 = 200;
/// Writes wait for one disk; more threads would only wait in more places.
const DISK_THREADS: usize = 16;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How many devices.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// The number of the first device; a number is the same device in every run.
    #[arg(long, value_name = "N", default_value_t = 1)]
    first: u32,
    /// The brain's address, wss://HOST:PORT.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// A token that admits so many devices.
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<String>,
    /// A file with the token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Over how long the devices' starts are spread [default: 10 ms for each].
    #[arg(long, value_name = "MS")]
    spread_ms: Option<u64>,
    /// Where each device keeps its entries.
    #[arg(long, value_name = "KIND")]
    spool: Option<SpoolKind>,
}

pub(super) fn run(config: &Config, arguments: Arguments) -> anyhow::Result<()> {
    let token = match (&arguments.token, &arguments.token_file) {
        (Some(token), _) => token.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the token from {}", file.display()))?,
        (None, None) => {
            return Err(UsageError("give the token with --token or --token-file").into());
        }
    };
    let server = arguments.server.as_ref().or(config.server_url.as_ref());
    let Some(server) = server.cloned() else {
        return Err(UsageError("give the brain's address with --server wss://HOST:PORT").into());
    };
    let count = arguments.count;
    allow_files(u64::from(count) * FILES_PER_DEVICE + FILES_OF_THE_PROCESS);
    let simulation = Simulation {
        count,
        first: arguments.first,
        server,
        token,
        data_dir: config.data_dir.clone(),
        spread: Duration::from_millis(arguments.spread_ms.unwrap_or(10 * u64::from(count))),
        spool: arguments.spool.unwrap_or(config.spool.kind),
        sense: config.sense.clone(),
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    block_on(threads, DISK_THREADS, async {
        let stop = watch::Sender::new(false);
        let mut told = None;
        let tell = |progress: Progress| {
            // What is written and waiting moves all the time, and is not worth a line each time.
            let now = (progress.started, progress.enrolled, progress.online);
            if told.replace(now) != Some(now) {
                tell(progress, count);
            }
        };
        let running = simulate::run(simulation, stop.subscribe(), tell);
        tokio::pin!(running);
        tokio::select! {
            ended = &mut running => return Ok(ended?),
            reason = asked_to_end() => {
                eprintln!("{} received, stopping", reason?);
            }
        }
        stop.send_replace(true);
        Ok(running.await?)
    })
}

fn tell(progress: Progress, count: u32) {
    let Progress { started, enrolled, online, queue_depth, entries_written } = progress;
    eprintln!(
        "{started}/{count} started, {enrolled} enrolled, {online} online, \
         {entries_written} entries written, {queue_depth} waiting"
    );
}

/// Raises the process's own limit as far as it may.
fn allow_files(needed: u64) {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        let wanted = maximum.map_or(needed, |maximum| needed.min(maximum));
        let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
        if raised.is_err() || wanted < needed {
            tracing::warn!(
                needed,
                allowed = wanted,
                "too few open files are allowed; see ulimit -n"
            );
        }
    }
}
