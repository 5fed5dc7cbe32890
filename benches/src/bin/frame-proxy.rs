//! A hop between devices and a brain that harms what passes, as a seed has it.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{LineWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use benches::device::random;
use benches::proxy::plan::Rates;
use benches::proxy::{Event, Level, Log, Proxy, Settings};
use clap::{Parser, ValueEnum};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

/// Stands between devices and a brain and harms what passes, as a seed has it.
///
/// On the level of bytes it takes TLS as it comes: it cuts streams, delivers them in pieces,
/// delays them, flips bits, and falls silent without a word. On the level of frames it needs
/// WebSocket in plain text (brain-lab serve --plain-text) and also drops, repeats, reorders and
/// shortens whole frames. Rates are units of a thousand: frames, or segments of 16 to 1024 bytes.
///
/// It runs until Ctrl-C or SIGTERM and then prints how many faults of each kind happened. The
/// same seed decides the same about the same units of the same connection.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// Where devices connect
    #[arg(long, default_value = "127.0.0.1:7444")]
    listen: SocketAddr,
    /// The brain's device listener
    #[arg(long, default_value = "127.0.0.1:7443")]
    brain: SocketAddr,
    /// What the proxy sees of the streams
    #[arg(long, value_enum, default_value = "bytes")]
    level: Level,
    /// What decides about everything; any if not given, and printed
    #[arg(long, env = "FLEET_SEED")]
    seed: Option<u64>,
    #[command(flatten)]
    rates: Rates,
    /// Let everything pass after so many seconds
    #[arg(long, value_name = "SECONDS")]
    faults_for: Option<f64>,
    /// Write what happens as lines of JSON; "-" for standard output
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How to print the counts at the end
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("frame-proxy: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { listen, brain, level, seed, rates, faults_for, log, output } = arguments;
    let any = || u64::from_be_bytes(*random().first_chunk().expect("8 of 32 bytes"));
    let seed = seed.unwrap_or_else(any);
    let faults_for = faults_for.map(Duration::try_from_secs_f64).transpose();
    let faults_for = faults_for.context("--faults-for is a number of seconds")?;
    let log = Some(log_to(log.as_deref())?);
    let settings = Settings { listen, brain, seed, level, rates, faults_for, log };
    let proxy = Proxy::start(settings).await?;
    eprintln!("frame-proxy: {} to {brain}, seed {seed}; Ctrl-C ends it", proxy.address);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    print_counts(&proxy, seed, output);
    Ok(())
}

fn print_counts(proxy: &Proxy, seed: u64, output: Output) {
    let (connections, fired) = (proxy.connections(), proxy.fired());
    match output {
        Output::Text => {
            println!("{:<12} {seed}\n{:<12} {connections}", "seed", "connections");
            fired.iter().for_each(|(kind, count)| println!("{kind:<12} {count}"));
        }
        Output::Json => {
            let fired: serde_json::Map<_, _> =
                fired.iter().map(|(kind, count)| (kind.to_owned(), count.into())).collect();
            let counts = serde_json::json!({
                "seed": seed, "connections": connections, "fired": fired,
            });
            println!("{counts}");
        }
    }
}

/// A line of the log.
#[derive(Serialize)]
struct Line<'a> {
    at_ms: u64,
    #[serde(flatten)]
    event: &'a Event,
}

/// Writes everything to a file, if there is one, and tells what the user has to see.
fn log_to(path: Option<&Path>) -> anyhow::Result<Log> {
    let writer: Box<dyn Write + Send> = match path {
        None => Box::new(std::io::sink()),
        Some(path) if path == Path::new("-") => Box::new(std::io::stdout()),
        Some(path) => {
            let failed = || format!("{} cannot be written", path.display());
            Box::new(LineWriter::new(File::create(path).with_context(failed)?))
        }
    };
    let (started, writer) = (Instant::now(), Mutex::new(writer));
    Ok(Arc::new(move |event| {
        if let Event::GaveUp { connection, why, .. } = event {
            eprintln!("frame-proxy: connection {connection} is ended: {why}");
        }
        let line = Line { at_ms: started.elapsed().as_millis() as u64, event };
        let line = serde_json::to_string(&line).expect("an event has only names and numbers");
        let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = writeln!(writer, "{line}") {
            eprintln!("frame-proxy: the log cannot be written: {error}");
        }
    }))
}
