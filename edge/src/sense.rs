//! Reading the board, and reporting what changed.
//!
//! Each group of sensors is sampled at a period of its own. What of a sample left its dead band
//! goes to [`track`](crate::track) as one draft. Sensors that a board lacks are named once.

mod detector;
mod faults;
mod readings;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actors::supervise::{Address, Context, Node, NodeError, Timer};
use actors::trace::{Sampler, context_of};
use hw::{MachineIdentity, Missing, ReadError, Root};
use protocol::clock::ClockQuality;
use protocol::history::{Change, Draft, Provenance};
use protocol::state::{Scalar, StateSource, Value};
use protocol::trace::TraceContext;
use tokio::sync::watch;

pub use detector::{Band, Detector, Reading};
pub use readings::Sample;
pub use settings::{
    Machine, PERIOD_MS_MAX, PERIOD_MS_MIN, Power, SenseSettings, SettingError, Thermal,
};

use crate::clock::Clock;
use crate::status::Board as StatusBoard;
use crate::track::{self, WriteError};

/// The longest list of missing sensors that one leaf takes comfortably.
const MISSING_MAX: usize = 64;

/// Which board to read.
#[derive(Debug, Clone)]
pub enum BoardSource {
    /// The one whose kernel shows its files here.
    Linux(Root),
    /// The simulated one of this seed.
    Simulated(u64),
}

/// What sensing is built from.
#[derive(Debug, Clone)]
pub struct Args {
    /// The board.
    pub board: BoardSource,
    /// Follows the settings.
    pub settings: watch::Receiver<SenseSettings>,
    /// Where changes go.
    pub track: Address<track::Msg>,
    /// Where the clock's error is shown.
    pub status: StatusBoard,
    /// The time.
    pub clock: Clock,
    /// Which samples are traced.
    pub sampler: Sampler,
}

/// What sensing is told.
pub enum Msg {
    /// Read what does not change.
    ReadSystem,
    /// Sample a group.
    Sample(Group),
    /// Settings have changed.
    SettingsChanged,
}

/// A group of sensors that are sampled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Temperatures and coolers.
    Thermal,
    /// Supplies and rails.
    Power,
    /// Processor, memory, disk and clock.
    Machine,
}

impl Group {
    const ALL: [Self; 3] = [Self::Thermal, Self::Power, Self::Machine];

    fn name(self) -> &'static str {
        match self {
            Self::Thermal => "thermal",
            Self::Power => "power",
            Self::Machine => "machine",
        }
    }

    fn period(self, settings: &SenseSettings) -> Duration {
        Duration::from_millis(match self {
            Self::Thermal => settings.thermal.period_ms,
            Self::Power => settings.power.period_ms,
            Self::Machine => settings.machine.period_ms,
        })
    }

    fn max_silence_ms(self, settings: &SenseSettings) -> u64 {
        match self {
            Self::Thermal => settings.thermal.max_silence_ms,
            Self::Power => settings.power.max_silence_ms,
            Self::Machine => settings.machine.max_silence_ms,
        }
    }
}

impl BoardSource {
    /// What tells the machine from others. Touches the disk.
    pub fn machine_identity(&self) -> MachineIdentity {
        match self {
            Self::Linux(root) => MachineIdentity::read(root).values,
            Self::Simulated(seed) => MachineIdentity::simulated(*seed),
        }
    }

    fn open(&self) -> hw::Board {
        match self {
            Self::Linux(root) => hw::Board::linux(root),
            Self::Simulated(seed) => hw::Board::simulated(*seed),
        }
    }

    /// The file with the kernel's name for this boot.
    fn boot_id_file(&self) -> Option<PathBuf> {
        match self {
            Self::Linux(root) => Some(root.proc.join("sys/kernel/random/boot_id")),
            Self::Simulated(_) => None,
        }
    }
}

/// The sensing node.
pub struct Sense {
    args: Arc<Args>,
    board: Arc<Mutex<hw::Board>>,
    detectors: BTreeMap<Group, Detector>,
    timers: BTreeMap<Group, Timer>,
    faulty: BTreeSet<String>,
}

impl Node for Sense {
    const KIND: &'static str = "sense";
    type Msg = Msg;
    type Args = Args;

    fn start(args: &Arc<Args>, ctx: &Context<Msg>) -> Result<Self, NodeError> {
        ctx.cast_self(Msg::ReadSystem);
        for group in Group::ALL {
            ctx.cast_self(Msg::Sample(group));
        }
        let (mut settings, address) = (args.settings.clone(), ctx.address().clone());
        ctx.spawn("follow_settings", async move {
            while settings.changed().await.is_ok() {
                // A full mailbox holds one of these already, or will be looked at soon.
                let _ = address.try_cast(Msg::SettingsChanged);
            }
            Ok(())
        });
        Ok(Self {
            board: Arc::new(Mutex::new(args.board.open())),
            args: args.clone(),
            detectors: BTreeMap::new(),
            timers: BTreeMap::new(),
            faulty: BTreeSet::new(),
        })
    }

    async fn handle(&mut self, ctx: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        match msg {
            Msg::ReadSystem => self.read_system().await?,
            Msg::Sample(group) => {
                let period = group.period(&self.args.settings.borrow());
                let timer = ctx.cast_after(period, Msg::Sample(group));
                if let Some(superseded) = self.timers.insert(group, timer) {
                    superseded.cancel();
                }
                self.sample(group).await?;
            }
            Msg::SettingsChanged => {
                for group in Group::ALL {
                    let period = group.period(&self.args.settings.borrow());
                    let timer = ctx.cast_after(period, Msg::Sample(group));
                    if let Some(superseded) = self.timers.insert(group, timer) {
                        superseded.cancel();
                    }
                }
            }
        }
        Ok(())
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::ReadSystem => "read_system",
            Msg::Sample(Group::Thermal) => "sample_thermal",
            Msg::Sample(Group::Power) => "sample_power",
            Msg::Sample(Group::Machine) => "sample_machine",
            Msg::SettingsChanged => "settings_changed",
        }
    }
}

impl Sense {
    async fn sample(&mut self, group: Group) -> Result<(), NodeError> {
        let settings = self.args.settings.borrow().clone();
        let (args, board, of) = (self.args.clone(), self.board.clone(), settings.clone());
        // Where there is no randomness nothing is traced.
        let traced = getrandom::u64().is_ok_and(|random| self.args.sampler.samples(random));
        let span = traced.then(|| read_span(group));
        let (readings, faults) =
            tokio::task::spawn_blocking(move || read(group, &args, &board, &of)).await?;
        let trace = span.as_ref().and_then(context_of);
        drop(span);
        self.args.status.metrics().sensors_read(group.name(), faults.len());
        self.name_faults(group, &faults);
        let now_ms = self.args.clock.mono_ms();
        let detector = self.detectors.entry(group).or_default();
        let changes = detector.detect(&readings, now_ms, group.max_silence_ms(&settings));
        if changes.is_empty() {
            return Ok(());
        }
        let provenance = provenance(group.name(), "sampled");
        if write(&self.args.track, changes.clone(), provenance, trace).await {
            detector.confirm(&changes, now_ms);
        }
        Ok(())
    }

    async fn read_system(&mut self) -> Result<(), NodeError> {
        let (args, board) = (self.args.clone(), self.board.clone());
        let (readings, missing) = tokio::task::spawn_blocking(move || {
            let mut sample = Sample::default();
            let boot_id = args.board.boot_id_file().and_then(|file| {
                std::fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
            });
            sample.system(&args.board.machine_identity(), boot_id.as_deref());
            let board = board.lock().unwrap_or_else(PoisonError::into_inner);
            let mut missing = board.thermal.missing();
            missing.extend(board.power.missing());
            missing.extend(board.machine.missing());
            sample.add("reported/sensors/missing", list(&missing), Band::Exact);
            (sample.into_readings(), missing)
        })
        .await?;
        for Missing { what, looked_at } in &missing {
            tracing::info!(what, looked_at = %looked_at.display(), "board lacks a sensor");
        }
        let changes = readings.into_iter().map(|reading| (reading.path, Some(reading.value)));
        write(&self.args.track, changes.collect(), provenance("system", "agent started"), None)
            .await;
        Ok(())
    }

    /// Logs a fault when it comes and when it goes, not at every sample.
    fn name_faults(&mut self, group: Group, faults: &[ReadError]) {
        let prefix = format!("{}:", group.name());
        let mut now = BTreeSet::new();
        for ReadError { sensor, path, fault } in faults {
            let key = format!("{prefix}{sensor}:{}", path.display());
            if !self.faulty.contains(&key) {
                tracing::warn!(sensor, path = %path.display(), %fault, "sensor is faulty");
            }
            now.insert(key);
        }
        let over = |key: &String| key.starts_with(&prefix) && !now.contains(key);
        for key in self.faulty.iter().filter(|key| over(key)) {
            tracing::info!(sensor = key, "sensor works again");
        }
        self.faulty.retain(|key| !key.starts_with(&prefix));
        self.faulty.extend(now);
    }
}

fn read_span(group: Group) -> tracing::Span {
    let sensors = group.name();
    tracing::info_span!(target: "fleet::trace", parent: None, "sensor.read", sensors)
}

fn read(
    group: Group,
    args: &Args,
    board: &Mutex<hw::Board>,
    settings: &SenseSettings,
) -> (Vec<Reading>, Vec<ReadError>) {
    let now = Duration::from_millis(args.clock.mono_ms());
    let mut board = board.lock().unwrap_or_else(PoisonError::into_inner);
    let mut sample = Sample::default();
    let faults = match group {
        Group::Thermal => {
            let (sensors, coolers) = (board.thermal.read(now), board.thermal.cooling(now));
            sample.thermal(&sensors.values, &coolers.values, &settings.thermal);
            [sensors.faults, coolers.faults].concat()
        }
        Group::Power => {
            let power = board.power.read(now);
            sample.power(&power.values, &settings.power);
            power.faults
        }
        Group::Machine => {
            let usage = board.machine.read(now);
            sample.machine(&usage.values, &settings.machine);
            let synchronised = args.clock.look() == ClockQuality::Synchronised;
            let error_ms = args.status.status().clock_error_ms;
            sample.time(synchronised, error_ms, &settings.machine);
            usage.faults
        }
    };
    sample.add(&faults::path_of(group), faults::report(group, &faults), Band::Exact);
    (sample.into_readings(), faults)
}

/// Whether the changes were written; otherwise they are reported at the next sample.
async fn write(
    track: &Address<track::Msg>,
    changes: Vec<Change>,
    provenance: Provenance,
    trace: Option<TraceContext>,
) -> bool {
    let draft = Draft { changes, provenance, lease_until_ms: None };
    match track::write(track, draft, trace).await {
        Ok(_) => true,
        // The next sample says it again; the keeper may be restarting or the agent stopping.
        Err(error @ (WriteError::QueueFull { .. } | WriteError::Unavailable(_))) => {
            tracing::debug!(%error, "sample is not written");
            false
        }
        Err(error) => {
            tracing::warn!(error = protocol::session::with_causes(&error), "sample is not written");
            false
        }
    }
}

fn provenance(sensor: &str, reason: &str) -> Provenance {
    Provenance::new(StateSource::Hardware, &format!("sensor:{sensor}"), reason)
}

fn list(missing: &[Missing]) -> Value {
    let text = |missing: &Missing| {
        Scalar::Text(format!("{} at {}", missing.what, missing.looked_at.display()))
    };
    Value::List(missing.iter().take(MISSING_MAX).map(text).collect())
}
