//! Adapter, battery and rail of the model.

use std::time::Duration;

use super::{Power, PowerReading, PowerSource, Rail, RailLevel, Supply, SupplyKind, SupplyStatus};
use crate::sim::World;
use crate::units::{Amperes, Percent, Volts, Watts};
use crate::{Missing, Readings};

/// A mains adapter, a battery, and the five-volt rail.
pub(crate) struct Simulated {
    world: World,
}

impl Simulated {
    pub(crate) fn new(world: World) -> Simulated {
        Simulated { world }
    }
}

impl Power for Simulated {
    fn read(&mut self, now: Duration) -> Readings<PowerReading> {
        let moment = self.world.at(now);
        let adapter = Supply {
            name: "ac".to_owned(),
            kind: SupplyKind::Mains,
            feeds_board: true,
            present: None,
            online: Some(moment.mains),
            status: None,
            capacity: None,
            voltage: None,
            current: None,
            power: None,
        };
        let status = if !moment.mains {
            SupplyStatus::Discharging
        } else if moment.battery_watts < 0.0 {
            SupplyStatus::Charging
        } else {
            SupplyStatus::Full
        };
        let battery = Supply {
            name: "battery".to_owned(),
            kind: SupplyKind::Battery,
            present: Some(true),
            online: None,
            status: Some(status),
            // The class gives whole percents.
            capacity: Some(Percent::clamped(moment.battery_percent.round())),
            voltage: Some(Volts::clamped(micro(moment.battery_volts))),
            current: Some(Amperes::clamped(micro(moment.battery_watts / moment.battery_volts))),
            power: Some(Watts::clamped(micro(moment.battery_watts))),
            ..adapter.clone()
        };
        let rail = |name: &str, level| Rail { name: name.to_owned(), level };
        let rails = vec![
            rail("5v_in1", RailLevel::Voltage(Volts::clamped(milli(moment.rail_volts)))),
            rail("5v_curr1", RailLevel::Current(Amperes::clamped(milli(moment.rail_amperes)))),
            rail("5v_power1", RailLevel::Power(Watts::clamped(micro(moment.board_watts)))),
        ];
        let supplies = vec![adapter, battery];
        let source = PowerSource::among(&supplies);
        let undervoltage = Some(moment.undervoltage);
        let values = PowerReading { supplies, rails, source, undervoltage };
        Readings { values, faults: Vec::new() }
    }

    fn missing(&self) -> Vec<Missing> {
        Vec::new()
    }
}

fn milli(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn micro(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
