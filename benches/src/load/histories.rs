//! `load histories`: long histories, and many of them, in the brain's store on disk.
//!
//! Histories are put into the store by the code of devices and twins, in this process and without
//! connections, so that a million entries take seconds. What reads them is the store itself or a
//! brain process over the same folder, beside RocksDB alone with the same files and options.

mod bytes;
mod diary;
mod fill;
mod fleet;
mod home;
mod progress;
mod rows;
mod scribe;
mod start;
mod state;

use clap::ValueEnum;

use super::report::Section;
use super::{Settings, Workspace};

/// What of the scenario is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// States of one long history at random versions and times
    State,
    /// The states of a fleet at a time
    Fleet,
    /// Starts over the data of many devices
    Start,
    /// What an entry takes on disk, and what is written for it
    Bytes,
}

/// Runs the parts that are asked for.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Vec<Section>> {
    let run = |part: &Part| match part {
        Part::State => state::run(settings, workspace),
        Part::Fleet => fleet::run(settings, workspace),
        Part::Start => start::run(settings, workspace),
        Part::Bytes => bytes::run(settings, workspace),
    };
    settings.parts.iter().map(run).collect()
}

/// What a verdict says.
fn met(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

/// The time of this machine, in milliseconds since the Unix epoch.
fn now_ms() -> u64 {
    crate::device::now(std::time::Instant::now()).wall_ms
}
