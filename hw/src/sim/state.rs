//! The board's state, what drives it, and the exact solution between.

use std::f64::consts::TAU;
use std::time::Duration;

use super::noise::{self, Stream};
use super::{Conditions, Mains, Moment, STEP};
use crate::units::Rpm;

/// Processors of the simulated board.
pub(crate) const CORES: u32 = 4;

// A Raspberry Pi 5 with a heat sink, a small fan and a two-cell battery, roughly.
const IDLE_WATTS: f64 = 2.4;
const FULL_LOAD_WATTS: f64 = 8.0;
const HEAT_CAPACITY_JOULES_PER_KELVIN: f64 = 20.0;
const STILL_KELVIN_PER_WATT: f64 = 9.0;
const BLOWN_KELVIN_PER_WATT: f64 = 4.0;
/// The board takes this much of the processor's warmth, this much later.
const BOARD_SHARE: f64 = 0.4;
const BOARD_SECONDS: f64 = 600.0;
const AMBIENT_SWING_KELVIN: f64 = 4.0;

/// Apart, lest the fan start and stop with every degree.
const FAN_ON_CELSIUS: f64 = 60.0;
const FAN_OFF_CELSIUS: f64 = 45.0;

const BATTERY_WATT_HOURS: f64 = 20.0;
const CHARGE_WATTS: f64 = 10.0;
/// Below this the pack's own protection would cut it off.
const BATTERY_RESERVE: f64 = 0.05;
const OUTAGES_A_DAY: f64 = 3.0;
const OUTAGE_SECONDS_MAX: f64 = 2400.0;

/// The Raspberry Pi's firmware warns below this.
const UNDERVOLTAGE_VOLTS: f64 = 4.63;
const RAIL_OHMS: f64 = 0.22;

const DAY_SECONDS: f64 = 86_400.0;
const LOAD_SECONDS: [f64; 3] = [60.0, 300.0, 900.0];

/// What time changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct State {
    cpu_celsius: f64,
    board_celsius: f64,
    fan: bool,
    /// Load beyond what the hour asks for.
    walk: f64,
    battery: f64,
    outage_seconds: f64,
    busy_seconds: f64,
    load_averages: [f64; 3],
    received_bytes: f64,
    sent_bytes: f64,
}

/// What is constant over a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drive {
    load: f64,
    ambient_celsius: f64,
    mains: bool,
    fan: bool,
    battery_watts: f64,
    /// How much of the day has passed, 0 to 1.
    day: f64,
}

impl State {
    pub(super) fn first(seed: u64, conditions: Conditions) -> State {
        let ambient = conditions.ambient.get();
        State {
            cpu_celsius: ambient,
            board_celsius: ambient,
            fan: false,
            walk: noise::unit(seed, Stream::Walk, u64::MAX) * 0.2 - 0.1,
            battery: 0.9,
            outage_seconds: 0.0,
            busy_seconds: 0.0,
            load_averages: [0.0; 3],
            received_bytes: 0.0,
            sent_bytes: 0.0,
        }
    }

    pub(super) fn drive(&self, step: u64, seed: u64, conditions: Conditions) -> Drive {
        let seconds = (step * STEP.as_secs()) as f64;
        let started = noise::unit(seed, Stream::Hour, 0) * DAY_SECONDS;
        let day = ((seconds + started) / DAY_SECONDS).fract();
        // Busiest and, the room being slow, warmest in the afternoon.
        let busyness = (1.0 - ((day - 0.08) * TAU).cos()) / 2.0;
        let warmth = -((day - 0.14) * TAU).cos();
        let burst = if noise::unit(seed, Stream::Burst, step / 30) < 0.04 { 0.4 } else { 0.0 };
        let load = (0.08 + 0.3 * busyness + self.walk + burst).clamp(0.01, 1.0);
        let mains = match conditions.mains {
            Mains::Steady => true,
            Mains::Failing => self.outage_seconds <= 0.0,
            Mains::Absent => false,
        };
        let battery_watts = if !mains {
            watts(load)
        } else if self.battery < 1.0 {
            -CHARGE_WATTS
        } else {
            0.0
        };
        let ambient_celsius = conditions.ambient.get() + AMBIENT_SWING_KELVIN * warmth;
        Drive { load, ambient_celsius, mains, fan: self.fan, battery_watts, day }
    }

    /// The state when `drive` has lasted for `time`, no longer than a step.
    pub(super) fn after(&self, drive: &Drive, time: Duration) -> State {
        let seconds = time.as_secs_f64();
        let resistance = if drive.fan { BLOWN_KELVIN_PER_WATT } else { STILL_KELVIN_PER_WATT };
        let rise = watts(drive.load) * resistance;
        let cpu_target = drive.ambient_celsius + rise;
        let board_target = drive.ambient_celsius + rise * BOARD_SHARE;
        let cpu_seconds = resistance * HEAT_CAPACITY_JOULES_PER_KELVIN;
        let tasks = drive.load * f64::from(CORES);
        let mut load_averages = self.load_averages;
        for (average, constant) in load_averages.iter_mut().zip(LOAD_SECONDS) {
            *average = approach(*average, tasks, seconds, constant);
        }
        let spent = drive.battery_watts * seconds / (BATTERY_WATT_HOURS * 3600.0);
        State {
            cpu_celsius: approach(self.cpu_celsius, cpu_target, seconds, cpu_seconds),
            board_celsius: approach(self.board_celsius, board_target, seconds, BOARD_SECONDS),
            battery: (self.battery - spent).clamp(BATTERY_RESERVE, 1.0),
            busy_seconds: self.busy_seconds + drive.load * seconds,
            load_averages,
            received_bytes: self.received_bytes + (2_000.0 + 60_000.0 * drive.load) * seconds,
            sent_bytes: self.sent_bytes + (3_000.0 + 25_000.0 * drive.load) * seconds,
            ..*self
        }
    }

    /// What changes at once when `step` begins, after the step of `drive`.
    pub(super) fn at_step(self, step: u64, seed: u64, drive: &Drive) -> State {
        let fan = match drive.fan {
            true => self.cpu_celsius > FAN_OFF_CELSIUS,
            false => self.cpu_celsius > FAN_ON_CELSIUS,
        };
        let walk = 0.98 * self.walk + 0.08 * (noise::unit(seed, Stream::Walk, step) - 0.5);
        let steps_a_day = DAY_SECONDS / STEP.as_secs_f64();
        let outage_seconds = if self.outage_seconds > 0.0 {
            self.outage_seconds - STEP.as_secs_f64()
        } else if noise::unit(seed, Stream::Outage, step) < OUTAGES_A_DAY / steps_a_day {
            noise::unit(seed, Stream::OutageLength, step) * OUTAGE_SECONDS_MAX
        } else {
            0.0
        };
        State { fan, walk, outage_seconds, ..self }
    }

    pub(super) fn moment(&self, drive: &Drive, at: Duration) -> Moment {
        let board_watts = watts(drive.load);
        // The battery's converter gives a little less than the adapter.
        let open_volts = if drive.mains { 5.15 } else { 5.0 };
        let rail_amperes = board_watts / open_volts;
        let rail_volts = open_volts - rail_amperes * RAIL_OHMS;
        let fan = Rpm::new(if drive.fan { 3200 } else { 0 }).unwrap_or(Rpm::MOST);
        Moment {
            at,
            cpu_celsius: self.cpu_celsius,
            board_celsius: self.board_celsius,
            fan,
            mains: drive.mains,
            battery_percent: self.battery * 100.0,
            battery_volts: 6.4 + 2.0 * self.battery,
            battery_watts: drive.battery_watts,
            board_watts,
            rail_volts,
            rail_amperes,
            undervoltage: rail_volts < UNDERVOLTAGE_VOLTS,
            busy_seconds: self.busy_seconds,
            load_averages: self.load_averages,
            memory_used: 0.2 + 0.1 * self.load_averages[1],
            // Logs grow over the day and are cut at its end.
            disk_used: 0.3 + 0.02 * drive.day,
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
        }
    }
}

fn watts(load: f64) -> f64 {
    IDLE_WATTS + (FULL_LOAD_WATTS - IDLE_WATTS) * load
}

/// Where `from` has come on its exponential way to `target`.
fn approach(from: f64, target: f64, seconds: f64, constant_seconds: f64) -> f64 {
    target + (from - target) * (-seconds / constant_seconds).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_long_way_is_two_short_ones() {
        let once = approach(20.0, 80.0, 8.0, 100.0);
        let twice = approach(approach(20.0, 80.0, 3.0, 100.0), 80.0, 5.0, 100.0);
        assert!((once - twice).abs() < 1e-12);
    }

    #[test]
    fn steady_state_is_power_times_resistance() {
        let state = State::first(1, Conditions::default());
        let drive = Drive {
            load: 1.0,
            ambient_celsius: 20.0,
            mains: true,
            fan: true,
            battery_watts: 0.0,
            day: 0.5,
        };
        let settled = state.after(&drive, Duration::from_secs(100_000));
        let expected = 20.0 + FULL_LOAD_WATTS * BLOWN_KELVIN_PER_WATT;
        assert!((settled.cpu_celsius - expected).abs() < 1e-9);
    }
}
