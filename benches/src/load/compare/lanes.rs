//! Writers to a server: one for each update that may be on its way.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use protocol::state::Path;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use super::peer::{Peer, Round};
use super::server::Server;
use crate::load::measure::{Latency, usage};
use crate::load::signal::Signal;
use crate::load::{Settings, Shape};

/// The longest time that is told apart, in microseconds.
const TIME_US_MAX: u64 = 600_000_000;
/// Who writes, and why: what the brain's devices say as well.
pub(super) const PRINCIPAL: &str = "sensor:bench";
/// See [`PRINCIPAL`].
pub(super) const REASON: &str = "changed";

/// What is written: a leaf of a device's state, and an entry of its history.
pub(super) struct Update {
    pub(super) device: usize,
    /// Counts the updates of a device.
    pub(super) version: i64,
    pub(super) leaf: Path,
    pub(super) value: String,
    pub(super) at_ms: i64,
}

/// One place for an update that is on its way.
pub(super) trait Lane {
    /// Writes an update, and waits until the server acknowledges it.
    fn write(&mut self, update: Update) -> impl Future<Output = anyhow::Result<()>>;
}

/// A server with its writers. Those of one device share a connection.
pub(super) struct Lanes<L> {
    // Dropped in this order: writers, what serves their connections, the server.
    places: Vec<Place<L>>,
    runtime: Runtime,
    local: LocalSet,
    server: Server,
}

struct Place<L> {
    device: usize,
    version: Rc<Cell<i64>>,
    signal: Signal,
    lane: L,
}

/// What the writers of a round share.
struct Shared {
    stop: Cell<bool>,
    counts: Cell<bool>,
    latency: RefCell<Histogram<u64>>,
}

impl<L: Lane + 'static> Lanes<L> {
    /// Connects a device at a time; `connect` gives a writer for each update in flight.
    pub(super) fn connect(
        server: Server,
        settings: &Settings,
        shape: Shape,
        connect: impl AsyncFn(&Server, usize) -> anyhow::Result<Vec<L>>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let local = LocalSet::new();
        let mut places = Vec::with_capacity(shape.devices * shape.in_flight);
        for device in 0..shape.devices {
            let version = Rc::new(Cell::new(0));
            for lane in local.block_on(&runtime, connect(&server, device))? {
                let seed = settings.seed.wrapping_add(places.len() as u64);
                let signal = Signal::new(seed, settings.payload_bytes())?;
                places.push(Place { device, version: version.clone(), signal, lane });
            }
        }
        Ok(Self { places, runtime, local, server })
    }

    /// The server.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }
}

impl<L: Lane + 'static> Peer for Lanes<L> {
    fn round(&mut self, settings: &Settings) -> anyhow::Result<Round> {
        let time = settings.round_time();
        let shared = Rc::new(Shared {
            stop: Cell::new(false),
            counts: Cell::new(false),
            latency: RefCell::new(Histogram::new_with_max(TIME_US_MAX, 3)?),
        });
        let writers = self.places.drain(..).map(|mut place| {
            let shared = shared.clone();
            self.local.spawn_local(async move {
                let written = place.write(&shared).await;
                (place, written)
            })
        });
        let writers: Vec<_> = writers.collect();
        let (server, pid) = (&self.server, std::process::id());
        let measured = self.local.block_on(&self.runtime, async {
            tokio::time::sleep(time.min(Duration::from_secs(1))).await;
            let before = (Instant::now(), server.usage()?, usage(pid)?);
            shared.counts.set(true);
            tokio::time::sleep(time).await;
            shared.counts.set(false);
            let (began, server_before, client_before) = before;
            let took = began.elapsed();
            anyhow::Ok((took, server.usage()? - server_before, usage(pid)? - client_before))
        });
        shared.stop.set(true);
        let mut failed = None;
        for writer in writers {
            let (place, written) = self.local.block_on(&self.runtime, writer)?;
            self.places.push(place);
            failed = failed.or(written.err());
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let (took, server, client) = measured?;
        let latency = shared.latency.borrow();
        let updates = latency.len() as f64;
        anyhow::ensure!(updates > 0.0, "it acknowledged nothing");
        let values =
            latency.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value()));
        Ok(Round {
            updates_per_second: updates / took.as_secs_f64(),
            latency: Latency::of(values),
            server_cpu_us: server.cpu.as_secs_f64() * 1e6 / updates,
            client_cpu_us: Some(client.cpu.as_secs_f64() * 1e6 / updates),
            disk_bytes: server.written_bytes as f64 / updates,
        })
    }
}

impl<L: Lane> Place<L> {
    async fn write(&mut self, shared: &Shared) -> anyhow::Result<()> {
        while !shared.stop.get() {
            let began = Instant::now();
            let update = self.next();
            self.lane.write(update).await?;
            if shared.counts.get() {
                shared.latency.borrow_mut().saturating_record(began.elapsed().as_micros() as u64);
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Update {
        let (leaf, value) = self.signal.next();
        self.version.set(self.version.get() + 1);
        let value = value.to_json().to_string();
        let at_ms = jiff::Timestamp::now().as_millisecond();
        Update { device: self.device, version: self.version.get(), leaf, value, at_ms }
    }
}
