//! A hop between devices and a brain that harms what passes, as a seed has it.
//!
//! On the level of *bytes* it takes any stream, TLS included: it cuts it, delivers it in pieces,
//! delays it, flips bits, and falls silent without a word. On the level of *frames* it reads
//! plain-text WebSocket and also drops, repeats, reorders and shortens whole frames. TCP does
//! nothing of the latter, and no session promises to live through it: only that nothing is lost
//! and nobody's state differs when the connection ended and another one resumes.
//!
//! What happens to which unit is decided in [`plan`], for each connection and direction from the
//! run's seed and the connection's number. What is done about it are the steps of `lane`, both
//! without I/O; `connection` carries them out. So a run repeats from its seed as far as the same
//! bytes are sent; when they are sent is up to both ends and the machine.

mod connection;
mod lane;
pub mod plan;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;
use sim::fired::Fired;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use plan::{Direction, Fault, Rates, RatesError};

/// With so many connections, more wait to be taken.
const CONNECTIONS_MAX: usize = 4_096;
/// How long to wait when the system refuses a connection, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the proxy can see of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Bytes, as of TLS.
    Bytes,
    /// Frames of WebSocket in plain text.
    Frames,
}

/// What a proxy does.
#[derive(Clone)]
pub struct Settings {
    /// Where devices connect; port 0 takes any.
    pub listen: SocketAddr,
    /// The brain's device listener.
    pub brain: SocketAddr,
    /// What decides about everything that is left to chance.
    pub seed: u64,
    /// What is seen of the streams.
    pub level: Level,
    /// How often what happens.
    pub rates: Rates,
    /// After this time everything passes; none for never.
    pub faults_for: Option<Duration>,
    /// Is told what happens, when it happens. It must be quick.
    pub log: Option<Log>,
}

/// Who is told what a proxy does.
pub type Log = Arc<dyn Fn(&Event) + Send + Sync>;

/// What a proxy did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A device connected.
    Opened {
        /// The number of the connection: they count from 1.
        connection: u64,
    },
    /// A fault happened.
    Harmed {
        /// The connection.
        connection: u64,
        /// Which way the unit went.
        direction: Direction,
        /// Its number in this connection and direction, from 0.
        n: u64,
        /// How many bytes it has.
        len: usize,
        /// What happened to it.
        #[serde(flatten)]
        fault: Fault,
    },
    /// A connection was ended because it cannot be read, or because the brain is away.
    GaveUp {
        /// The connection.
        connection: u64,
        /// The direction.
        direction: Direction,
        /// What is wrong.
        why: &'static str,
    },
    /// Both ends are gone, or the proxy cut the connection.
    Closed {
        /// The connection.
        connection: u64,
    },
}

/// Why a proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The address is taken or not this machine's.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The rates make no sense.
    #[error(transparent)]
    Rates(#[from] RatesError),
}

/// A running proxy. Dropped, it ends with all its connections.
pub struct Proxy {
    /// Where devices connect.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

struct Shared {
    settings: Settings,
    faults_until: Option<Instant>,
    harms: AtomicBool,
    connections: AtomicU64,
    fired: Mutex<Fired>,
}

impl Proxy {
    /// Starts to take connections. Nothing about them is left to chance but by the seed.
    pub async fn start(settings: Settings) -> Result<Self, ProxyError> {
        settings.rates.check(settings.level)?;
        let refused = |source| ProxyError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let shared = Arc::new(Shared {
            faults_until: settings.faults_for.map(|time| Instant::now() + time),
            settings,
            harms: AtomicBool::new(true),
            connections: AtomicU64::new(0),
            fired: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(shared.clone(), listener));
        Ok(Self { address, shared, accepting })
    }

    /// Turns faults on or off. Off, all that comes passes; a connection that fell silent stays so.
    pub fn set_harmful(&self, harms: bool) {
        self.shared.harms.store(harms, Ordering::Relaxed);
    }

    /// How many faults of each kind have happened.
    pub fn fired(&self) -> Fired {
        self.shared.fired().clone()
    }

    /// How many connections were taken.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn harms(&self) -> bool {
        let in_time = self.faults_until.is_none_or(|until| Instant::now() < until);
        in_time && self.harms.load(Ordering::Relaxed)
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Harmed { fault, .. } => self.fired().count(fault.name()),
            Event::GaveUp { .. } => self.fired().count("gave_up"),
            Event::Opened { .. } | Event::Closed { .. } => {}
        }
        if let Some(log) = &self.settings.log {
            log(event);
        }
    }

    fn fired(&self) -> MutexGuard<'_, Fired> {
        self.fired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener) {
    // Dropped with this task, and its connections with it.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        let device: TcpStream = match listener.accept().await {
            Ok((device, _)) => device,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        connections.spawn(connection::serve(shared.clone(), number, device));
    }
}
