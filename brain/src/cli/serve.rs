//! `brain serve`.

mod reload;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brain::config::{Config, Overrides};
use brain::identity::Identity;
use brain::serve::{Running, Start};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::DataDir;
use super::logging::Logging;

use reload::Reload;

/// A handler that blocks its thread stops sockets for no longer than this.
const PULSE: Duration = Duration::from_millis(10);
/// How long the root of the supervision tree may handle no message.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// How many threads read from the disk at once. What they touched of their stacks stays resident
/// when they end, and a disk gains nothing from more.
const BLOCKING_THREADS_MAX: usize = 32;

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    #[command(flatten)]
    data: DataDir,
    /// A file of settings, in TOML
    #[arg(long, env = "FLEET_BRAIN_CONFIG")]
    config: Option<PathBuf>,
    /// Where devices connect [default: 0.0.0.0:7443]
    #[arg(long)]
    device_listen: Option<SocketAddr>,
    /// Where the API and the page are [default: 127.0.0.1:7480]
    #[arg(long)]
    api_listen: Option<SocketAddr>,
    /// A name or address by which devices know this machine; may be given again
    #[arg(long = "name")]
    names: Vec<String>,
    /// Start although acknowledged data is missing, and go on without it
    #[arg(long)]
    accept_loss: bool,
    /// Print a one-time code to log in with
    #[arg(long)]
    login_code: bool,
    /// Take devices without TLS, on a loopback address
    #[cfg(feature = "plain-text")]
    #[arg(long)]
    plain_text: bool,
}

pub(super) fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let overrides = Overrides {
        device_listen: args.device_listen,
        api_listen: args.api_listen,
        names: args.names.clone(),
    };
    let config = Config::read(args.config.as_deref(), &overrides)?;
    let logging = Logging::start(&config)?;
    let identity = Identity::load(&args.data.data_dir)?;
    let telemetry = logging.telemetry(identity.brain.to_string())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .enable_all()
        .build()?;
    let meters = telemetry.meters().clone();
    let served = runtime.block_on(async {
        // From now on they do not end the process, but have it stopped in good order.
        let (hangup, ends) = (signal(SignalKind::hangup())?, Asked::listen()?);
        let asked = Start {
            accept_loss: args.accept_loss,
            #[cfg(feature = "plain-text")]
            plain_text: args.plain_text,
        };
        let running = brain::serve::start(&args.data.data_dir, &config, asked, meters).await?;
        tracing::info!(devices = %running.device_address, api = running.page_url(), "the brain is ready");
        if args.login_code {
            let (page, code) = (running.page_url(), running.login_code());
            // It runs on where nobody reads any more.
            let _ = writeln!(std::io::stdout(), "page: {page}\none-time code: {code}");
        }
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        watch(&running)?;
        let reload = Reload {
            file: args.config.clone(),
            overrides,
            live: running.settings(),
            log: logging.level(),
        };
        reload.listen(hangup);
        running.run_until(ends.times(1), ends.times(2)).await?;
        tracing::info!("the brain has stopped");
        Ok(())
    });
    telemetry.shutdown();
    served
}

/// `brain config`.
pub(super) fn print_config(file: Option<&Path>) -> anyhow::Result<()> {
    let config = Config::read(file, &Overrides::default())?;
    print!("{}", toml::to_string_pretty(&config)?);
    Ok(())
}

/// Ends the process when nothing moves any more, for the service manager to start it again; and
/// shows the service manager that it does, where that wants to know.
fn watch(running: &Running) -> std::io::Result<()> {
    let asked = sd_notify::watchdog_enabled();
    let patience = asked.map_or(STALLED_AFTER, |asked| asked.min(STALLED_AFTER));
    let alive = || {
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
    };
    running.watch(patience, PULSE, alive, move || {
        tracing::error!(?patience, "nothing moves any more; the process ends");
        // Whatever is to be waited for now would not come.
        std::process::abort();
    })
}

/// Counts how often the process was asked to end, by SIGTERM or SIGINT.
pub(super) struct Asked(watch::Receiver<u32>);

impl Asked {
    /// Listens from now on. To be called in a runtime.
    pub(super) fn listen() -> anyhow::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (count, asked) = watch::channel(0);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                tracing::info!("stopping");
                // Without a service manager there is nobody to tell.
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
                count.send_modify(|count| *count += 1);
            }
        });
        Ok(Self(asked))
    }

    /// Comes back when it was asked so many times.
    pub(super) fn times(&self, times: u32) -> impl Future<Output = ()> + use<> {
        let mut asked = self.0.clone();
        async move {
            // The one that counts never ends.
            let _ = asked.wait_for(|count| *count >= times).await;
        }
    }
}
