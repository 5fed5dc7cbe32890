//! The physical model behind the simulated board.
//!
//! A board in a room: load makes heat, heat flows through a thermal resistance
//! into an ambient that follows the day, a fan lowers that resistance, an
//! adapter feeds all of it and charges a battery, and the battery takes over
//! when the mains fail.
//!
//! Time is cut into steps. Within a step what drives the board (load, ambient,
//! mains, fan) is constant, and then every quantity has an exact solution: an
//! exponential towards a steady state, or a straight line. A moment inside a
//! step is solved from the step's beginning. So the state at `now` is a
//! function of seed and `now` alone, to the last bit: it does not matter how
//! often or in which order anybody looked.

mod noise;
mod state;

use std::time::Duration;

pub(crate) use noise::mix;
pub(crate) use state::CORES;
use state::{Drive, State};

use crate::units::{Celsius, Rpm};

/// How long drivers are constant: short beside the 80 s in which the processor
/// warms up, long enough that a year of catching up takes a moment.
const STEP: Duration = Duration::from_secs(10);

/// After so many steps, three years, the model stands still, lest a nonsensical
/// `now` keep it counting for ever.
const STEPS_MAX: u64 = 3 * 365 * 24 * 360;

/// The surroundings of a simulated board.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Conditions {
    /// The room's mean temperature over a day; it swings 4 °C about it.
    pub ambient: Celsius,
    /// Whether the wall delivers.
    pub mains: Mains,
}

/// Whether the wall delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mains {
    /// Always.
    Steady,
    /// Fails some three times a day, for up to 40 minutes.
    Failing,
    /// Never: the board runs its battery down and then stands at its reserve.
    Absent,
}

impl Default for Conditions {
    /// A room at 22 °C whose mains fail at times.
    fn default() -> Conditions {
        Conditions { ambient: Celsius::clamped(22.0), mains: Mains::Failing }
    }
}

/// A simulated board and its surroundings.
#[derive(Clone, Debug)]
pub(crate) struct World {
    seed: u64,
    conditions: Conditions,
    /// The step that `state` is the beginning of.
    step: u64,
    state: State,
}

/// The board at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moment {
    pub(crate) at: Duration,
    pub(crate) cpu_celsius: f64,
    pub(crate) board_celsius: f64,
    pub(crate) fan: Rpm,
    pub(crate) mains: bool,
    pub(crate) battery_percent: f64,
    pub(crate) battery_volts: f64,
    /// What the battery gives; negative while it charges.
    pub(crate) battery_watts: f64,
    pub(crate) board_watts: f64,
    pub(crate) rail_volts: f64,
    pub(crate) rail_amperes: f64,
    pub(crate) undervoltage: bool,
    /// The integral of the load, 0 to 1, over time.
    pub(crate) busy_seconds: f64,
    pub(crate) load_averages: [f64; 3],
    /// As a share of the whole.
    pub(crate) memory_used: f64,
    /// As a share of the whole.
    pub(crate) disk_used: f64,
    pub(crate) received_bytes: f64,
    pub(crate) sent_bytes: f64,
}

impl World {
    pub(crate) fn new(seed: u64, conditions: Conditions) -> World {
        World { seed, conditions, step: 0, state: State::first(seed, conditions) }
    }

    /// The board at `now` since its start. Looking back is allowed, and costs
    /// as much as getting there again.
    pub(crate) fn at(&mut self, now: Duration) -> Moment {
        let step = (now.as_secs() / STEP.as_secs()).min(STEPS_MAX);
        if step < self.step {
            *self = World::new(self.seed, self.conditions);
        }
        while self.step < step {
            let drive = self.drive();
            self.state = self.state.after(&drive, STEP).at_step(self.step + 1, self.seed, &drive);
            self.step += 1;
        }
        let begun = Duration::from_secs(step * STEP.as_secs());
        let within = now.saturating_sub(begun).min(STEP);
        let drive = self.drive();
        self.state.after(&drive, within).moment(&drive, begun + within)
    }

    fn drive(&self) -> Drive {
        self.state.drive(self.step, self.seed, self.conditions)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn world(seed: u64, mains: Mains) -> World {
        World::new(seed, Conditions { mains, ..Conditions::default() })
    }

    fn hours(count: u64) -> Duration {
        Duration::from_secs(count * 3600)
    }

    /// Every ten minutes over `count` hours.
    fn watch(mut world: World, count: u64) -> Vec<Moment> {
        (0..count * 6).map(|tenth| world.at(Duration::from_secs(tenth * 600))).collect()
    }

    proptest! {
        #[test]
        fn a_moment_does_not_depend_on_earlier_looks(
            seed: u64,
            mut looks in prop::collection::vec(0_u64..200_000_000, 0..8),
            at in 0_u64..200_000_000,
        ) {
            let at = Duration::from_millis(at);
            let mut looked_at = world(seed, Mains::Failing);
            for look in looks.drain(..) {
                looked_at.at(Duration::from_millis(look));
            }
            prop_assert_eq!(looked_at.at(at), world(seed, Mains::Failing).at(at));
        }

        #[test]
        fn nothing_jumps_between_two_moments(seed: u64, at in 0_u64..100_000_000) {
            let mut world = world(seed, Mains::Failing);
            let one = world.at(Duration::from_millis(at));
            let next = world.at(Duration::from_millis(at + 100));
            prop_assert!((one.cpu_celsius - next.cpu_celsius).abs() < 0.1);
            prop_assert!((one.battery_percent - next.battery_percent).abs() < 0.1);
            prop_assert!((0.0..=0.1 + 1e-6).contains(&(next.busy_seconds - one.busy_seconds)));
        }
    }

    #[test]
    fn worlds_of_different_seeds_differ() {
        assert_ne!(watch(world(1, Mains::Failing), 2), watch(world(2, Mains::Failing), 2));
    }

    #[test]
    fn load_warms_and_the_fan_cools() {
        let week = watch(world(7, Mains::Failing), 7 * 24);
        let temperatures = || week.iter().map(|moment| moment.cpu_celsius);
        assert!(temperatures().all(|celsius| (20.0..90.0).contains(&celsius)));
        let span = temperatures().fold(0.0, f64::max) - temperatures().fold(100.0, f64::min);
        assert!(span > 10.0, "a week spans only {span} °C");
        assert!(week.iter().any(|moment| moment.fan.get() > 0));
        assert!(week.iter().any(|moment| moment.fan.get() == 0));
        let warmer = |moment: &&Moment| moment.cpu_celsius > moment.board_celsius;
        assert!(week.iter().filter(warmer).count() > week.len() * 9 / 10);
    }

    #[test]
    fn a_warm_room_warms_the_board() {
        let ambient =
            |celsius| Conditions { ambient: Celsius::clamped(celsius), mains: Mains::Steady };
        let mean = |conditions| {
            let week = watch(World::new(7, conditions), 7 * 24);
            week.iter().map(|moment| moment.board_celsius).sum::<f64>() / week.len() as f64
        };
        assert!(mean(ambient(35.0)) - mean(ambient(15.0)) > 5.0);
    }

    #[test]
    fn the_battery_drains_without_mains_and_fills_with_them() {
        let mut world = world(3, Mains::Absent);
        let (start, later) = (world.at(hours(0)), world.at(hours(1)));
        assert!(later.battery_percent < start.battery_percent - 5.0);
        assert!(later.battery_volts < start.battery_volts && later.battery_watts > 0.0);
        assert!((0.0..10.0).contains(&world.at(hours(100)).battery_percent));

        let week = watch(self::world(3, Mains::Failing), 7 * 24);
        assert!(week.iter().any(|moment| !moment.mains));
        assert!(week.iter().filter(|moment| moment.mains).count() > week.len() * 3 / 4);
        assert!(week.iter().any(|moment| moment.battery_watts < 0.0));
        assert!(watch(self::world(3, Mains::Steady), 48).iter().all(|moment| moment.mains));
    }

    #[test]
    fn time_without_end_is_survived() {
        let end = world(1, Mains::Failing).at(Duration::MAX);
        assert!(end.cpu_celsius.is_finite() && end.received_bytes.is_finite());
    }
}
