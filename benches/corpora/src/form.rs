//! What a record is before compression.

use protocol::codec;
use protocol::wire::Batch;
use serde::{Deserialize, Serialize};

use crate::corpus::Kind;
use crate::corpus::device_states::DeviceStates;
use crate::corpus::logs::{LogLine, Logs};
use crate::corpus::metrics::{Metric, Metrics};

/// The serialised form that a ratio refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// One line of JSON a record: what collectors and services write.
    JsonLines,
    /// The records of a batch one after the other in the binary codec of the wire, without names
    /// of fields: what a batch of telemetry in that codec takes.
    Binary,
    /// The body of a frame of entries, as links carry it: it writes once what repeats.
    Entries,
}

impl Form {
    /// The forms in which a kind is measured.
    pub fn of(kind: Kind) -> &'static [Self] {
        match kind {
            Kind::Metrics | Kind::Logs => &[Self::JsonLines, Self::Binary],
            Kind::Json => &[Self::JsonLines],
            Kind::DeviceStates => &[Self::Entries],
        }
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::JsonLines => "JSON lines",
            Self::Binary => "binary",
            Self::Entries => "entries frame",
        }
    }
}

/// A corpus in memory, to be cut into batches.
#[derive(Debug)]
pub enum Records {
    /// Lines of JSON.
    Lines(Vec<Vec<u8>>),
    /// Samples, for the binary codec.
    Metrics(Vec<Metric>),
    /// Lines, for the binary codec.
    Logs(Vec<LogLine>),
    /// Entries of one log.
    Entries(Vec<protocol::history::Entry>),
}

impl Records {
    /// The first `count` records of a corpus.
    pub fn generate(kind: Kind, form: Form, seed: u64, count: usize) -> Self {
        match (form, kind) {
            (Form::Binary, Kind::Metrics) => {
                Self::Metrics(Metrics::new(seed).take(count).collect())
            }
            (Form::Binary, Kind::Logs) => Self::Logs(Logs::new(seed).take(count).collect()),
            (Form::Entries, Kind::DeviceStates) => {
                Self::Entries(DeviceStates::new(seed).take(count).collect())
            }
            _ => Self::Lines(kind.json_lines(seed, count)),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Lines(lines) => lines.len(),
            Self::Metrics(metrics) => metrics.len(),
            Self::Logs(logs) => logs.len(),
            Self::Entries(entries) => entries.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whole batches of `size` records each, as bytes. What is left over makes none.
    ///
    /// # Panics
    /// If `size` is 0 or, for entries, more than a frame takes.
    pub fn batches(&self, size: usize) -> Vec<Vec<u8>> {
        match self {
            Self::Lines(lines) => lines.chunks_exact(size).map(|batch| batch.concat()).collect(),
            Self::Metrics(metrics) => {
                metrics.chunks_exact(size).map(|batch| codec::encode(&batch)).collect()
            }
            Self::Logs(logs) => {
                logs.chunks_exact(size).map(|batch| codec::encode(&batch)).collect()
            }
            Self::Entries(entries) => {
                let pack = |batch| Batch::pack(batch).expect("entries of one log, in order");
                entries.chunks_exact(size).map(|batch| codec::encode(&pack(batch))).collect()
            }
        }
    }
}
