//! What feeds the board: supplies, rails, and the source it lives on.

mod linux;
mod sim;
mod supplies;

use std::time::Duration;

pub use linux::Linux;
pub(crate) use sim::Simulated;

use crate::units::{Amperes, Percent, Volts, Watts};
use crate::{Missing, Readings};

/// The board's power sensors.
pub trait Power: Send {
    /// Reads every supply and rail. `now` is the time since the caller started.
    ///
    /// A supply or rail keeps its name from call to call.
    fn read(&mut self, now: Duration) -> Readings<PowerReading>;

    /// What this board lacks, and the sensors that were there once and went.
    fn missing(&self) -> Vec<Missing>;
}

/// The state of the board's power.
#[derive(Clone, Debug, PartialEq)]
pub struct PowerReading {
    /// Adapters, ports and batteries.
    pub supplies: Vec<Supply>,
    /// Measuring points on the board.
    pub rails: Vec<Rail>,
    /// What the board lives on.
    pub source: PowerSource,
    /// Whether a voltage monitor says that its rail is too low: a brown-out.
    /// Nothing where the board has no such monitor.
    pub undervoltage: Option<bool>,
}

/// An adapter, a port or a battery.
#[derive(Clone, Debug, PartialEq)]
pub struct Supply {
    /// Lower case letters, digits and `_`; unique among supplies.
    pub name: String,
    /// What it is.
    pub kind: SupplyKind,
    /// Whether it feeds the board, not only a peripheral such as a mouse.
    pub feeds_board: bool,
    /// Whether it is there; a battery bay may be empty.
    pub present: Option<bool>,
    /// Whether an adapter or port delivers.
    pub online: Option<bool>,
    /// What a battery does.
    pub status: Option<SupplyStatus>,
    /// How full a battery is.
    pub capacity: Option<Percent>,
    /// The voltage at its terminals.
    pub voltage: Option<Volts>,
    /// The current; what its sign means is up to the driver.
    pub current: Option<Amperes>,
    /// The power; what its sign means is up to the driver.
    pub power: Option<Watts>,
}

/// What a supply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupplyKind {
    /// An adapter at the wall.
    Mains,
    /// A battery.
    Battery,
    /// A USB port, of whatever kind.
    Usb,
    /// A battery-backed supply outside the board.
    Ups,
    /// A charging coil.
    Wireless,
    /// The driver does not know, or names a kind the kernel does not document.
    Unknown,
}

/// What a battery does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SupplyStatus {
    /// It takes charge.
    Charging,
    /// It feeds the board.
    Discharging,
    /// It is connected and takes no charge.
    NotCharging,
    /// It is full.
    Full,
    /// The driver does not know.
    Unknown,
}

/// A measuring point on the board.
#[derive(Clone, Debug, PartialEq)]
pub struct Rail {
    /// Lower case letters, digits and `_`; unique among rails.
    pub name: String,
    /// What is measured there.
    pub level: RailLevel,
}

/// A measurement on a rail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RailLevel {
    /// A voltage against ground.
    Voltage(Volts),
    /// A current through it.
    Current(Amperes),
    /// A power drawn over it.
    Power(Watts),
}

impl RailLevel {
    /// The number, in [`RailLevel::unit`].
    pub fn get(self) -> f64 {
        match self {
            RailLevel::Voltage(level) => level.get(),
            RailLevel::Current(level) => level.get(),
            RailLevel::Power(level) => level.get(),
        }
    }

    /// The unit's name in the plural, fit for the end of a path.
    pub fn unit(self) -> &'static str {
        match self {
            RailLevel::Voltage(_) => Volts::UNIT,
            RailLevel::Current(_) => Amperes::UNIT,
            RailLevel::Power(_) => Watts::UNIT,
        }
    }
}

/// What the board lives on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerSource {
    /// The wall, over whatever adapter.
    Mains,
    /// A battery, and nothing else that is known of.
    Battery,
    /// A USB port.
    Usb,
    /// The board's supplies do not tell; most boards have none that would.
    Unknown,
}

impl PowerSource {
    /// The source among `supplies`.
    ///
    /// Mains goes before USB and USB before a battery: a battery that helps a
    /// weak adapter out is not what the board lives on. An uninterruptible
    /// supply counts as mains until it says that it discharges.
    pub fn among(supplies: &[Supply]) -> PowerSource {
        let feeds = |kind, feeds: fn(&Supply) -> bool| {
            supplies.iter().any(|supply| supply.feeds_board && supply.kind == kind && feeds(supply))
        };
        let online = |supply: &Supply| supply.online == Some(true);
        let discharging = |supply: &Supply| supply.status == Some(SupplyStatus::Discharging);
        if feeds(SupplyKind::Mains, online) || feeds(SupplyKind::Wireless, online) {
            PowerSource::Mains
        } else if feeds(SupplyKind::Ups, discharging) {
            PowerSource::Battery
        } else if feeds(SupplyKind::Ups, online) {
            PowerSource::Mains
        } else if feeds(SupplyKind::Usb, online) {
            PowerSource::Usb
        } else if feeds(SupplyKind::Battery, discharging) {
            PowerSource::Battery
        } else {
            PowerSource::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supply(kind: SupplyKind, online: Option<bool>, status: Option<SupplyStatus>) -> Supply {
        Supply {
            name: "supply".to_owned(),
            kind,
            feeds_board: true,
            present: None,
            online,
            status,
            capacity: None,
            voltage: None,
            current: None,
            power: None,
        }
    }

    #[test]
    fn mains_goes_before_a_helping_battery() {
        let mains = supply(SupplyKind::Mains, Some(true), None);
        let battery = supply(SupplyKind::Battery, None, Some(SupplyStatus::Discharging));
        let both = [battery.clone(), mains];
        assert_eq!(PowerSource::among(&both), PowerSource::Mains);
        assert_eq!(PowerSource::among(&[battery]), PowerSource::Battery);
    }

    #[test]
    fn unplugged_adapter_is_no_source() {
        let mains = supply(SupplyKind::Mains, Some(false), None);
        let usb = supply(SupplyKind::Usb, Some(true), None);
        assert_eq!(PowerSource::among(&[mains.clone(), usb]), PowerSource::Usb);
        assert_eq!(PowerSource::among(&[mains]), PowerSource::Unknown);
        assert_eq!(PowerSource::among(&[]), PowerSource::Unknown);
    }

    #[test]
    fn a_peripheral_battery_does_not_feed_the_board() {
        let mut mouse = supply(SupplyKind::Battery, None, Some(SupplyStatus::Discharging));
        mouse.feeds_board = false;
        assert_eq!(PowerSource::among(&[mouse]), PowerSource::Unknown);
    }

    #[test]
    fn a_discharging_ups_is_a_battery() {
        let ups = |status| [supply(SupplyKind::Ups, Some(true), Some(status))];
        assert_eq!(PowerSource::among(&ups(SupplyStatus::Discharging)), PowerSource::Battery);
        assert_eq!(PowerSource::among(&ups(SupplyStatus::Full)), PowerSource::Mains);
    }
}
