//! What can be set on the command line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgAction, Args};
use serde::Serialize;

use super::Workspace;
use super::compare::PeerName;
use super::fleet::Plan;
use super::histories::Part;
use super::report::Format;

/// The settings of all scenarios.
#[derive(Debug, Clone, Args)]
pub(super) struct Settings {
    /// How many devices [default: as suits the scenario]
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    devices: Option<u32>,
    /// How many updates of a device may be on their way at once [default: 1 for 64 devices, 16
    /// for 50]
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: Option<u32>,
    /// Updates in a second over all devices; 0 for as fast as they are acknowledged
    #[arg(long, global = true, default_value_t = 0.0)]
    pub(super) rate: f64,
    /// Make every update set a text of so many bytes, instead of a number from a sensor
    #[arg(long, global = true, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    payload: Option<u32>,
    /// How long a round is measured
    #[arg(long, global = true, default_value_t = 5.0)]
    pub(super) seconds: f64,
    /// How many rounds; tables show their median
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rounds: u32,
    /// How many updates each device writes for `history` [default: 20000]
    #[arg(long, global = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) updates: Option<u64>,
    /// How many entries a long history has, for `histories`
    #[arg(long, global = true, default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(1_000..))]
    pub(super) entries: u64,
    /// How many devices the brain has that starts, for `histories`
    #[arg(long, global = true, default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u64).range(100..))]
    pub(super) trees: u64,
    /// The parts of `histories` to run
    #[arg(
        long = "part",
        global = true,
        value_enum,
        value_delimiter = ',',
        default_value = "state,fleet,start,bytes"
    )]
    pub(super) parts: Vec<Part>,
    /// Whether devices connect over TLS [default: both, one after the other]
    #[arg(long, global = true, action = ArgAction::Set)]
    tls: Option<bool>,
    /// The servers to run beside the brain, for `compare`; missing ones are installed
    #[arg(
        long,
        global = true,
        value_enum,
        value_delimiter = ',',
        num_args = 0..=1,
        default_value = "redis,postgresql,nats,mosquitto"
    )]
    pub(super) peers: Vec<PeerName>,
    /// How many devices a client process holds: it needs a socket for each, and some more
    #[arg(long, global = true, hide = true, default_value_t = 15_000,
        value_parser = clap::value_parser!(u32).range(1..))]
    devices_per_client: u32,
    /// What devices write follows from it
    #[arg(long, global = true, default_value_t = 1)]
    pub(super) seed: u64,
    /// The brain that takes devices without TLS [default: brain-lab beside this command]
    #[arg(long, global = true)]
    brain: Option<PathBuf>,
    /// How to print the figures
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub(super) output: Format,
    /// A file for the figures as JSON, beside what is printed
    #[arg(long, global = true)]
    pub(super) json: Option<PathBuf>,
    /// Where to write, to choose the disk [default: the system's folder for temporary files]
    #[arg(long, global = true)]
    pub(super) data_dir: Option<PathBuf>,
}

/// How many devices have how many updates on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Shape {
    pub(super) devices: usize,
    pub(super) in_flight: usize,
}

/// One update at a time.
pub(super) const ONE_BY_ONE: Shape = Shape { devices: 64, in_flight: 1 };
/// Many at a time.
pub(super) const PIPELINED: Shape = Shape { devices: 50, in_flight: 16 };

impl Shape {
    /// How many updates a database that is written to directly takes at once.
    pub(super) fn batch(self) -> usize {
        match self {
            PIPELINED => 1_000,
            Self { devices, in_flight } => devices * in_flight,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.devices, self.in_flight)
    }
}

impl Settings {
    /// The settings, if a run with them makes sense.
    pub(super) fn checked(mut self) -> anyhow::Result<Self> {
        if !(0.1..=3_600.0).contains(&self.seconds) {
            bail!("--seconds must be between 0.1 and 3600");
        }
        if !self.rate.is_finite() || self.rate < 0.0 {
            bail!("--rate must be 0 or more");
        }
        let beside = std::env::current_exe()?.with_file_name("brain-lab");
        let brain = self.brain.take().unwrap_or(beside);
        if !brain.exists() {
            bail!(
                "there is no brain at {}: build it with \
                 `cargo build -p brain --features plain-text --bin brain-lab`",
                brain.display()
            );
        }
        let brain = brain.canonicalize().context("the brain's path cannot be used")?;
        Ok(Self { brain: Some(brain), ..self })
    }

    /// How long a round is measured.
    pub(super) fn round_time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Whether over TLS: one or both, without first.
    pub(super) fn transports(&self) -> Vec<bool> {
        self.tls.map_or_else(|| vec![false, true], |tls| vec![tls])
    }

    /// The devices of a scenario that has so many if nobody says otherwise.
    pub(super) fn devices_or(&self, default: usize) -> usize {
        self.devices.map_or(default, |devices| devices as usize)
    }

    /// The shapes of a scenario of writers.
    pub(super) fn shapes(&self) -> Vec<Shape> {
        if self.devices.is_none() && self.in_flight.is_none() {
            return vec![ONE_BY_ONE, PIPELINED];
        }
        let in_flight = self.in_flight.unwrap_or(1) as usize;
        let usual = [ONE_BY_ONE, PIPELINED].into_iter().find(|shape| shape.in_flight == in_flight);
        let devices = self.devices_or(usual.map_or(64, |shape| shape.devices));
        vec![Shape { devices, in_flight }]
    }

    /// The bytes of the text that an update sets, where it sets a text.
    pub(super) fn payload_bytes(&self) -> Option<usize> {
        self.payload.map(|bytes| bytes as usize)
    }

    /// The brain that is measured.
    pub(super) fn brain(&self) -> &Path {
        self.brain.as_deref().unwrap_or(Path::new("brain-lab"))
    }

    /// A fleet in a new folder.
    pub(super) fn fleet(&self, workspace: &Workspace, devices: usize, tls: bool) -> Plan {
        Plan {
            binary: self.brain().to_owned(),
            folder: workspace.next("brain"),
            devices,
            devices_per_client: self.devices_per_client as usize,
            tls,
            seed: self.seed,
            payload_bytes: self.payload_bytes(),
            otlp_endpoint: None,
            traced_share: 0.0,
            settings: String::new(),
        }
    }
}
