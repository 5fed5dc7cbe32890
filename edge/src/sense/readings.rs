//! What the board gave, as leaves.

use hw::MachineIdentity;
use hw::machine::Usage;
use hw::power::{PowerReading, PowerSource, Supply, SupplyStatus};
use hw::thermal::{Cooler, Effort, Temperature};
use protocol::state::{Path, Value};

use super::detector::{Band, Reading};
use super::settings::{Machine, Power, Thermal};

/// Leaves with their dead bands, in the making.
#[derive(Debug, Default)]
pub struct Sample {
    readings: Vec<Reading>,
}

impl Sample {
    /// The leaves.
    pub fn into_readings(self) -> Vec<Reading> {
        self.readings
    }

    /// Adds a leaf. A name that makes no path is left out: the board gives none such.
    pub fn add(&mut self, path: &str, value: impl Into<Value>, band: Band) {
        if let Ok(path) = Path::new(path) {
            self.readings.push(Reading { path, value: value.into(), band });
        }
    }

    fn number(&mut self, path: &str, value: f64, band: f64) {
        // The board gives no other.
        if let Ok(value) = Value::float(value) {
            self.add(path, value, Band::Within(band));
        }
    }

    /// Adds temperatures and coolers.
    pub fn thermal(&mut self, sensors: &[Temperature], coolers: &[Cooler], settings: &Thermal) {
        for Temperature { sensor, celsius, .. } in sensors {
            let path = format!("reported/thermal/{sensor}_celsius");
            self.number(&path, celsius.get(), settings.dead_band_celsius);
        }
        for Cooler { device, effort } in coolers {
            match effort {
                Effort::Speed(rpm) => {
                    let path = format!("reported/thermal/{device}_rpm");
                    let band = Band::Within(settings.dead_band_rpm);
                    self.add(&path, i64::from(rpm.get()), band);
                }
                Effort::Step { step, .. } => {
                    let path = format!("reported/thermal/{device}_step");
                    self.add(&path, i64::from(*step), Band::Exact);
                }
            }
        }
    }

    /// Adds supplies and rails.
    pub fn power(&mut self, power: &PowerReading, settings: &Power) {
        self.add("reported/power/source", source(power.source), Band::Exact);
        if let Some(undervoltage) = power.undervoltage {
            self.add("reported/power/undervoltage", undervoltage, Band::Exact);
        }
        for supply in &power.supplies {
            self.supply(supply, settings);
        }
        for rail in &power.rails {
            let unit = rail.level.unit();
            let band = match unit {
                "volts" => settings.dead_band_volts,
                "amperes" => settings.dead_band_amperes,
                _ => settings.dead_band_watts,
            };
            let path = format!("reported/power/rails/{}_{unit}", rail.name);
            self.number(&path, rail.level.get(), band);
        }
    }

    fn supply(&mut self, supply: &Supply, settings: &Power) {
        let leaf = |name: &str| format!("reported/power/supplies/{}/{name}", supply.name);
        for (name, flag) in [("present", supply.present), ("online", supply.online)] {
            if let Some(flag) = flag {
                self.add(&leaf(name), flag, Band::Exact);
            }
        }
        if let Some(status) = supply.status {
            self.add(&leaf("status"), self::status(status), Band::Exact);
        }
        let numbers = [
            ("capacity_percent", supply.capacity.map(f64::from), settings.dead_band_percent),
            ("volts", supply.voltage.map(f64::from), settings.dead_band_volts),
            ("amperes", supply.current.map(f64::from), settings.dead_band_amperes),
            ("watts", supply.power.map(f64::from), settings.dead_band_watts),
        ];
        for (name, number, band) in numbers {
            if let Some(number) = number {
                self.number(&leaf(name), number, band);
            }
        }
    }

    /// Adds what of the machine is in use.
    pub fn machine(&mut self, usage: &Usage, settings: &Machine) {
        let leaf = |name: &str| format!("reported/machine/{name}");
        if let Some(cpu) = usage.cpu_percent {
            let tenths = (cpu.get() * 10.0).round() / 10.0;
            self.number(&leaf("cpu_percent"), tenths, settings.dead_band_cpu_percent);
        }
        if let Some(load) = usage.load {
            self.number(&leaf("load1"), load.load1.get(), settings.dead_band_load);
        }
        if let Some(cores) = usage.cores {
            self.add(&leaf("cores"), i64::from(cores), Band::Exact);
        }
        for (name, capacity, percent) in [
            ("memory", usage.memory, settings.dead_band_memory_percent),
            ("disk", usage.disk, settings.dead_band_disk_percent),
        ] {
            let Some(capacity) = capacity else { continue };
            let (total, available) = (capacity.total().get(), capacity.available().get());
            let band = Band::Within(total as f64 * percent / 100.0);
            let count = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            self.add(&leaf(&format!("{name}_available_bytes")), count(available), band);
            self.add(&leaf(&format!("{name}_total_bytes")), count(total), Band::Exact);
        }
    }

    /// Adds how good the clock is.
    pub fn time(&mut self, synchronised: bool, error_ms: Option<i64>, settings: &Machine) {
        self.add("reported/time/synchronised", synchronised, Band::Exact);
        if let Some(error_ms) = error_ms {
            let band = Band::Within(settings.dead_band_offset_ms);
            self.add("reported/time/offset_ms", error_ms, band);
        }
    }

    /// Adds what does not change while the agent runs.
    pub fn system(&mut self, machine: &MachineIdentity, boot_id: Option<&str>) {
        let facts = [
            ("hostname", machine.hostname.as_deref()),
            ("model", machine.model.as_deref()),
            ("kernel", machine.kernel_release.as_deref()),
            ("architecture", Some(machine.architecture.as_str())),
            ("edge_version", Some(env!("CARGO_PKG_VERSION"))),
            ("boot_id", boot_id),
        ];
        for (name, fact) in facts {
            if let Some(fact) = fact {
                self.add(&format!("reported/system/{name}"), fact, Band::Exact);
            }
        }
    }
}

fn source(source: PowerSource) -> &'static str {
    match source {
        PowerSource::Mains => "mains",
        PowerSource::Battery => "battery",
        PowerSource::Usb => "usb",
        PowerSource::Unknown => "unknown",
    }
}

fn status(status: SupplyStatus) -> &'static str {
    match status {
        SupplyStatus::Charging => "charging",
        SupplyStatus::Discharging => "discharging",
        SupplyStatus::NotCharging => "not_charging",
        SupplyStatus::Full => "full",
        SupplyStatus::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_simulated_board_gives_leaves_under_reported() {
        let mut board = hw::Board::simulated(1);
        let mut sample = Sample::default();
        let now = Duration::from_secs(10);
        let temperatures = board.thermal.read(now).values;
        sample.thermal(&temperatures, &board.thermal.cooling(now).values, &Thermal::default());
        sample.power(&board.power.read(now).values, &Power::default());
        sample.machine(&board.machine.read(now).values, &Machine::default());
        sample.system(&MachineIdentity::simulated(1), None);
        let readings = sample.into_readings();
        let paths: Vec<_> = readings.iter().map(|reading| reading.path.as_str()).collect();
        assert!(paths.contains(&"reported/thermal/cpu_celsius"), "{paths:?}");
        assert!(paths.contains(&"reported/machine/memory_total_bytes"), "{paths:?}");
        assert!(paths.iter().all(|path| path.starts_with("reported/")));
    }
}
