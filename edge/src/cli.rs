//! Arguments, and what each command does.

mod emergency;
mod enroll;
mod overrides;
mod peers;
mod run;
mod shared;
mod simulate;
mod status;
mod tree;

use std::future::Future;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use edge::config::Config;
use serde_json::{Value, json};
use telemetry::{Log, LogFile, LogFormat, LogSettings};
use tokio::signal::unix::{SignalKind, signal};

/// Keeps a device's state, through power cuts and outages, and links it to its brain.
///
/// Settings come from flags, then the environment, then a TOML file, then defaults. A variable
/// FLEET_EDGE_SPOOL__KIND is the key `kind` of the file's table `spool`; FLEET_SERVER_URL,
/// FLEET_API_KEY and DEVICE_ID stand for `server_url`, `api_key` and `device_id`.
///
/// Exit codes: 0 done, 1 failed, 2 wrong arguments or configuration.
#[derive(Debug, Parser)]
#[command(name = "edge", version, propagate_version = true, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Common {
    /// The configuration file [default: /etc/fleet-edge/edge.toml, if it is there].
    #[arg(long, global = true, env = "FLEET_EDGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder that holds everything of this device [default: /var/lib/fleet-edge].
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What to log on stderr: error, warn, info, debug, trace, or a filter [default: info].
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<String>,
    /// How log lines look [default: text].
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// How results look on stdout.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

/// How results look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the agent until it is told to stop.
    ///
    /// It comes up without a network, with its last state. Where the device belongs to no fleet
    /// yet and there is a file `enroll.toml` with `server`, `token` and perhaps `name` in the data
    /// folder, it joins by itself.
    Run(run::Arguments),
    /// Joins a fleet with a token, once.
    ///
    /// A running agent notices within seconds.
    Enroll(enroll::Arguments),
    /// Tells how the running agent is doing.
    Status,
    /// Shows the running agent's parts: which run, which failed, what waits.
    Tree,
    /// Lists what failed in the running agent, and what was decided about it, newest first.
    Crashes,
    /// Sets by hand what is desired, for a time, and ends that again.
    Override {
        #[command(subcommand)]
        command: overrides::OverrideCommand,
    },
    /// Shows and writes what the members of this device's groups share.
    Shared {
        #[command(subcommand)]
        command: shared::SharedCommand,
    },
    /// Shows the devices that this one talks to by itself, and where they are reached.
    Peer {
        #[command(subcommand)]
        command: peers::PeerCommand,
    },
    /// Syncs with other devices.
    Sync {
        #[command(subcommand)]
        command: peers::SyncCommand,
    },
    /// Declares an emergency at this device, and ends it again.
    Emergency {
        #[command(subcommand)]
        command: emergency::EmergencyCommand,
    },
    /// Runs many simulated devices in one process, for trials and load tests.
    Simulate(simulate::Arguments),
}

/// Arguments that do not go together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) &'static str);

/// Does what was asked.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { common, command } = arguments;
    let mut flags = common.flags();
    if !matches!(command, Command::Run(_) | Command::Simulate(_)) {
        // Whoever reads only the beginning of a list has not made a mistake.
        sigpipe::reset();
    }
    match command {
        Command::Run(arguments) => {
            flags.extend(arguments.flags());
            let config = Config::load(common.config.as_deref(), &flags)?;
            let log = start_log(&config, &config.log.level)?;
            let again = move || Ok(Config::load(common.config.as_deref(), &flags)?);
            run::run(&config, &log, again)
        }
        Command::Enroll(arguments) => {
            flags.extend(arguments.flags());
            let config = Config::load(common.config.as_deref(), &flags)?;
            start_log(&config, &config.log.level)?;
            enroll::run(&config, &arguments, common.output)
        }
        Command::Status => {
            let config = Config::load(common.config.as_deref(), &flags)?;
            status::run(&config, common.output)
        }
        Command::Tree => {
            let config = Config::load(common.config.as_deref(), &flags)?;
            tree::tree(&config, common.output)
        }
        Command::Crashes => {
            let config = Config::load(common.config.as_deref(), &flags)?;
            tree::crashes(&config, common.output)
        }
        Command::Override { command } => {
            let config = Config::load(common.config.as_deref(), &flags)?;
            overrides::run(&config, command, common.output)
        }
        Command::Shared { command } => {
            let config = Config::load(common.config.as_deref(), &flags)?;
            shared::run(&config, command, common.output)
        }
        Command::Peer { command } => {
            let config = Config::load(common.config.as_deref(), &flags)?;
            peers::run(&config, &command, common.output)
        }
        Command::Sync { command } => {
            let config = Config::load(common.config.as_deref(), &flags)?;
            peers::sync(&config, &command, common.output)
        }
        Command::Emergency { command } => {
            let config = Config::load(common.config.as_deref(), &flags)?;
            emergency::run(&config, &command, common.output)
        }
        Command::Simulate(arguments) => {
            let config = Config::load(common.config.as_deref(), &flags)?;
            if common.data_dir.is_none() {
                return Err(UsageError("`edge simulate` needs --data-dir").into());
            }
            let quiet = common.log_level.is_none() && config.log == Config::default().log;
            let level = if quiet { "warn" } else { &config.log.level };
            start_log(&config, level)?;
            simulate::run(&config, arguments)
        }
    }
}

impl Common {
    fn flags(&self) -> Vec<(&'static str, Value)> {
        let given = [
            ("data_dir", self.data_dir.as_ref().map(|dir| json!(dir))),
            ("log.level", self.log_level.as_ref().map(|level| json!(level))),
            ("log.format", self.log_format.map(|format| json!(format))),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

fn start_log(config: &Config, level: &str) -> anyhow::Result<Log> {
    Ok(Log::start(&LogSettings {
        filter: level.to_owned(),
        format: config.log.format,
        targets: true,
        flat: true,
        traces: config.otlp()?.is_some(),
        file: config.log.file.clone().map(|path| LogFile {
            path,
            bytes_max: config.log.file_bytes,
            files: config.log.files,
        }),
    })?)
}

/// A runtime with few threads for a small board.
fn block_on<T>(
    threads: usize,
    blocking_threads: usize,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(blocking_threads)
        .enable_all()
        .build()?
        .block_on(work)
}

/// Comes back when the process is asked to end.
async fn asked_to_end() -> std::io::Result<&'static str> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
    }
}

/// Prints rows of a name and a value.
fn print_table(rows: &[(&str, String)]) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    for (name, value) in rows {
        table.add_row([name, value.as_str()]);
    }
    println!("{table}");
}

/// A moment, in RFC 3339, to the second.
fn time(ms: u64) -> String {
    let moment = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    moment.map_or_else(|| "-".to_owned(), |moment| format!("{moment:.0}"))
}

/// Prints rows below a heading.
fn print_list<const N: usize>(heading: [&str; N], rows: impl Iterator<Item = [String; N]>) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(heading.map(str::to_uppercase));
    table.add_rows(rows);
    println!("{table}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
