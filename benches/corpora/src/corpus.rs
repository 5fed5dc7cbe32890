//! The four corpora.

pub mod device_states;
pub mod json;
pub mod logs;
pub mod metrics;

use serde::{Deserialize, Serialize};

use device_states::DeviceStates;
use json::Documents;
use logs::Logs;
use metrics::Metrics;

/// When every corpus begins: a Monday at 00:00 UTC, in milliseconds since the Unix epoch.
pub const BEGIN_MS: u64 = 1_767_571_200_000;

/// What a corpus is of.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Kind {
    /// Samples of one board's metrics, all of them each minute.
    Metrics,
    /// Lines of the services on one board.
    Logs,
    /// Documents in which boards describe themselves.
    Json,
    /// Entries of one device's tree, as the agent writes them.
    DeviceStates,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Metrics, Self::Logs, Self::Json, Self::DeviceStates];

    /// The name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Metrics => "metrics",
            Self::Logs => "logs",
            Self::Json => "json",
            Self::DeviceStates => "device_states",
        }
    }

    /// How many records are measured where nobody says otherwise: some megabytes.
    pub fn usual_count(self) -> usize {
        match self {
            Self::Metrics => 1_440 * metrics::SERIES,
            Self::Logs | Self::DeviceStates => 20_000,
            Self::Json => 4_000,
        }
    }

    /// The first `count` records as lines of JSON, each with its end of line.
    pub fn json_lines(self, seed: u64, count: usize) -> Vec<Vec<u8>> {
        match self {
            Self::Metrics => Metrics::new(seed).take(count).map(|m| line(&m)).collect(),
            Self::Logs => Logs::new(seed).take(count).map(|log| line(&log)).collect(),
            Self::Json => {
                Documents::new(seed).take(count).map(|document| line(&document)).collect()
            }
            Self::DeviceStates => DeviceStates::new(seed)
                .take(count)
                .map(|entry| line(&device_states::Readable::from(&entry)))
                .collect(),
        }
    }
}

fn line<T: Serialize>(record: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(record).expect("plain data is JSON");
    line.push(b'\n');
    line
}
