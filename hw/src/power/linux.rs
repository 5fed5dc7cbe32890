//! Supplies and rails as the kernel shows them.

use std::time::Duration;

use super::{Power, PowerReading, PowerSource, Rail, RailLevel, supplies};
use crate::hwmon;
use crate::names::{Found, Names};
use crate::reading::{Fault, Faults};
use crate::units::{Amperes, Volts, Watts};
use crate::{Missing, Readings, Root};

/// Flags by which a chip says that a voltage is too low, from
/// Documentation/hwmon/sysfs-interface.rst. The Raspberry Pi's firmware is
/// such a chip, `rpi_volt`, with this flag alone.
const UNDERVOLTAGE_SUFFIXES: [&str; 2] = ["_lcrit_alarm", "_min_alarm"];

/// The power supply class, and voltages, currents and powers of the hardware
/// monitoring class.
///
/// A chip that only repeats a supply is left out.
pub struct Linux {
    root: Root,
    supplies: Names,
    rails: Names,
}

#[derive(Clone, Copy)]
enum Quantity {
    Voltage,
    Current,
    Power,
}

impl Quantity {
    const ALL: [Quantity; 3] = [Quantity::Voltage, Quantity::Current, Quantity::Power];

    fn file_prefix(self) -> &'static str {
        match self {
            Quantity::Voltage => "in",
            Quantity::Current => "curr",
            Quantity::Power => "power",
        }
    }

    fn level(self, raw: i64) -> Result<RailLevel, Fault> {
        Ok(match self {
            Quantity::Voltage => RailLevel::Voltage(Volts::from_milli(raw)?),
            Quantity::Current => RailLevel::Current(Amperes::from_milli(raw)?),
            Quantity::Power => RailLevel::Power(Watts::from_micro(raw)?),
        })
    }
}

impl Linux {
    /// Touches no file.
    pub fn new(root: &Root) -> Linux {
        Linux { root: root.clone(), supplies: Names::default(), rails: Names::default() }
    }

    fn rails(&mut self, faults: &mut Faults) -> (Vec<Rail>, Option<bool>) {
        let mut undervoltage = None;
        let mut all: Vec<(Found, Quantity)> = Vec::new();
        for chip in hwmon::chips(&self.root, faults).iter().filter(|chip| !chip.repeats_supply()) {
            for suffix in UNDERVOLTAGE_SUFFIXES {
                if let Some(low) = chip.any_flag("in", suffix, faults) {
                    undervoltage = Some(low || undervoltage == Some(true));
                }
            }
            for quantity in Quantity::ALL {
                let inputs = chip.inputs(quantity.file_prefix(), &self.rails, faults);
                all.extend(inputs.into_iter().map(|(_, found)| (found, quantity)));
            }
        }
        let (found, quantities): (Vec<Found>, Vec<Quantity>) = all.into_iter().unzip();
        let names = self.rails.assign(&found);
        let mut rails = Vec::new();
        for ((found, quantity), name) in found.iter().zip(quantities).zip(names) {
            let level = hwmon::input(&name, found, |raw| quantity.level(raw), faults);
            rails.extend(level.map(|level| Rail { name, level }));
        }
        (rails, undervoltage)
    }
}

impl Power for Linux {
    fn read(&mut self, _now: Duration) -> Readings<PowerReading> {
        let mut faults = Faults::default();
        let supplies = supplies::read(&self.root, &mut self.supplies, &mut faults);
        let (rails, undervoltage) = self.rails(&mut faults);
        let source = PowerSource::among(&supplies);
        faults.beside(PowerReading { supplies, rails, source, undervoltage })
    }

    fn missing(&self) -> Vec<Missing> {
        let mut unheard = Faults::default();
        let chips = hwmon::chips(&self.root, &mut unheard);
        let any_rail = chips.iter().any(|chip| {
            Quantity::ALL.iter().any(|quantity| chip.has(quantity.file_prefix(), "_input"))
        });
        let any_alarm = chips
            .iter()
            .any(|chip| UNDERVOLTAGE_SUFFIXES.iter().any(|suffix| chip.has("in", suffix)));
        let any_supply = !supplies::list(&self.root, &mut unheard).is_empty();
        let absent = [
            (any_supply, "power supply", "power_supply"),
            (any_rail, "voltage, current or power rail", "hwmon"),
            (any_alarm, "under-voltage alarm", "hwmon"),
        ];
        let absent = absent.into_iter().filter(|(any, _, _)| !any);
        let mut missing: Vec<Missing> = absent
            .map(|(_, what, class)| Missing { what, looked_at: self.root.class(class) })
            .collect();
        missing.extend(self.supplies.gone("power supply that was here"));
        missing.extend(self.rails.gone("rail that was here"));
        missing
    }
}
