//! Temperatures, and what cools the board.

mod linux;
mod sim;
mod zones;

use std::time::Duration;

pub use linux::Linux;
pub(crate) use sim::Simulated;

use crate::units::{Celsius, Rpm};
use crate::{Missing, Readings};

/// The board's thermometers and coolers.
pub trait Thermal: Send {
    /// Reads every thermometer. `now` is the time since the caller started.
    ///
    /// A sensor keeps its name from call to call.
    fn read(&mut self, now: Duration) -> Readings<Vec<Temperature>>;

    /// Reads the state of every fan and every other cooler.
    fn cooling(&mut self, now: Duration) -> Readings<Vec<Cooler>>;

    /// What this board lacks, and the sensors that were there once and went.
    fn missing(&self) -> Vec<Missing>;
}

/// What one thermometer shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Temperature {
    /// Lower case letters, digits and `_`; unique among temperatures.
    pub sensor: String,
    /// The temperature.
    pub celsius: Celsius,
    /// Where the driver says it becomes too warm: throttling begins.
    pub warning: Option<Celsius>,
    /// Where the driver says it becomes dangerous: the kernel shuts down.
    pub critical: Option<Celsius>,
}

/// What one cooler does.
#[derive(Clone, Debug, PartialEq)]
pub struct Cooler {
    /// Lower case letters, digits and `_`; unique among coolers.
    pub device: String,
    /// How hard it works.
    pub effort: Effort,
}

/// How hard a cooler works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// A fan that tells its speed.
    Speed(Rpm),
    /// A step out of `steps`, 0 for idle. A throttled processor is a cooler
    /// too: its steps take away speed.
    Step {
        /// The step it is on; not above `steps`.
        step: u32,
        /// The last step.
        steps: u32,
    },
}
