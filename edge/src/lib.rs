//! The agent of one device.
//!
//! It senses the board, keeps the device's tree through power cuts and outages, and links it to
//! its brain. Data flows one way: [`sense`] reads values and drops what did not change,
//! [`track`] writes them as entries and commits them to the [`spool`] before anybody hears of
//! them, [`uplink`] sends what the brain lacks. Desired state flows back over the same link and
//! [`apply`] acts on it.
//!
//! Everything a device needs to come up without a network lies in one data folder: its key
//! ([`identity`]), its place in a fleet ([`enrolment`]), its history ([`spool`]).
//! [`agent::Agent`] is the whole as one value, for the binary, for the simulator and for tests.

#![forbid(unsafe_code)]

pub mod agent;
pub mod apply;
pub mod clock;
pub mod config;
pub mod disk;
pub mod enrolment;
#[cfg(any(test, feature = "failpoints"))]
pub mod failpoints;
pub mod identity;
pub mod local_api;
pub mod metrics;
pub mod overrides;
pub mod peers;
#[cfg(feature = "planted-faults")]
pub mod planted;
pub mod presence;
pub mod retired;
pub mod sense;
pub mod shares;
pub mod simulate;
pub mod spool;
pub mod status;
mod talk;
pub mod tls;
pub mod track;
pub mod uplink;
