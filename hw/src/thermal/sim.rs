//! Thermometers and the fan of the model.

use std::time::Duration;

use super::{Cooler, Effort, Temperature, Thermal};
use crate::sim::World;
use crate::units::Celsius;
use crate::{Missing, Readings};

/// A processor and a board thermometer, and one fan.
pub(crate) struct Simulated {
    world: World,
}

impl Simulated {
    pub(crate) fn new(world: World) -> Simulated {
        Simulated { world }
    }
}

impl Thermal for Simulated {
    fn read(&mut self, now: Duration) -> Readings<Vec<Temperature>> {
        let moment = self.world.at(now);
        let temperature = |sensor: &str, celsius: f64, warning: f64, critical: f64| Temperature {
            sensor: sensor.to_owned(),
            // Chips give thousandths.
            celsius: Celsius::clamped((celsius * 1e3).round() / 1e3),
            warning: Some(Celsius::clamped(warning)),
            critical: Some(Celsius::clamped(critical)),
        };
        let values = vec![
            temperature("cpu", moment.cpu_celsius, 80.0, 110.0),
            temperature("board", moment.board_celsius, 70.0, 85.0),
        ];
        Readings { values, faults: Vec::new() }
    }

    fn cooling(&mut self, now: Duration) -> Readings<Vec<Cooler>> {
        let effort = Effort::Speed(self.world.at(now).fan);
        let values = vec![Cooler { device: "fan".to_owned(), effort }];
        Readings { values, faults: Vec::new() }
    }

    fn missing(&self) -> Vec<Missing> {
        Vec::new()
    }
}
