//! Thermometers and coolers as the kernel shows them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Cooler, Effort, Temperature, Thermal, zones};
use crate::hwmon::{self, Chip};
use crate::names::{Found, Names};
use crate::reading::Faults;
use crate::units::{Celsius, Rpm};
use crate::{Fault, Missing, Readings, Root, files};

/// Thermal zones and the chips of the hardware monitoring class.
///
/// A chip that only repeats a zone is left out.
pub struct Linux {
    root: Root,
    sensors: Names,
    coolers: Names,
}

/// A thermometer that was found, and where its limits stand.
enum Source {
    Zone(PathBuf),
    Chip { warning: PathBuf, critical: PathBuf },
}

impl Linux {
    /// Touches no file.
    pub fn new(root: &Root) -> Linux {
        Linux { root: root.clone(), sensors: Names::default(), coolers: Names::default() }
    }

    fn find(&self, faults: &mut Faults) -> (Vec<Found>, Vec<Source>) {
        let zones = zones::list(&self.root, &self.sensors, faults)
            .into_iter()
            .map(|(dir, found)| (found, Source::Zone(dir)));
        let mut all: Vec<(Found, Source)> = zones.collect();
        for chip in hwmon::chips(&self.root, faults).iter().filter(|chip| !chip.repeats_zone()) {
            for (number, found) in chip.inputs("temp", &self.sensors, faults) {
                let warning = chip.file("temp", number, "_max");
                let critical = chip.file("temp", number, "_crit");
                all.push((found, Source::Chip { warning, critical }));
            }
        }
        all.into_iter().unzip()
    }
}

impl Thermal for Linux {
    fn read(&mut self, _now: Duration) -> Readings<Vec<Temperature>> {
        let mut faults = Faults::default();
        let (found, sources) = self.find(&mut faults);
        let names = self.sensors.assign(&found);
        let mut values = Vec::new();
        for ((found, source), sensor) in found.iter().zip(&sources).zip(names) {
            if diode_broken(&sensor, found, &mut faults) {
                continue;
            }
            let Some(celsius) = hwmon::input(&sensor, found, Celsius::from_milli, &mut faults)
            else {
                continue;
            };
            let (warning, critical) = match source {
                Source::Zone(dir) => zones::limits(dir, &sensor, &mut faults),
                Source::Chip { warning, critical } => {
                    (limit(&sensor, warning, &mut faults), limit(&sensor, critical, &mut faults))
                }
            };
            values.push(Temperature { sensor, celsius, warning, critical });
        }
        faults.beside(values)
    }

    fn cooling(&mut self, _now: Duration) -> Readings<Vec<Cooler>> {
        let mut faults = Faults::default();
        let fans: Vec<Found> = hwmon::chips(&self.root, &mut faults)
            .iter()
            .flat_map(|chip| chip.inputs("fan", &self.coolers, &mut faults))
            .map(|(_, found)| found)
            .collect();
        let fan_count = fans.len();
        let mut found = fans;
        found.extend(zones::coolers(&self.root, &self.coolers, &mut faults));
        let names = self.coolers.assign(&found);
        let mut values = Vec::new();
        for (position, (found, device)) in found.iter().zip(names).enumerate() {
            let effort = if position < fan_count {
                hwmon::input(&device, found, Rpm::new, &mut faults).map(Effort::Speed)
            } else {
                zones::effort(&found.path, &device, &mut faults)
            };
            values.extend(effort.map(|effort| Cooler { device, effort }));
        }
        faults.beside(values)
    }

    fn missing(&self) -> Vec<Missing> {
        let mut unheard = Faults::default();
        let chips = hwmon::chips(&self.root, &mut unheard);
        let no_chip_has = |kind| !chips.iter().any(|chip: &Chip| chip.has(kind, "_input"));
        let (thermal, hwmon) = (self.root.class("thermal"), self.root.class("hwmon"));
        let absent = [
            (zones::none(&self.root, "thermal_zone"), "thermal zone", &thermal),
            (no_chip_has("temp"), "hwmon temperature", &hwmon),
            (no_chip_has("fan"), "hwmon fan", &hwmon),
            (zones::none(&self.root, "cooling_device"), "cooling device", &thermal),
        ];
        let absent = absent.into_iter().filter(|(none, _, _)| *none);
        let absent = absent.map(|(_, what, at)| Missing { what, looked_at: at.clone() });
        let silent = zones::without_temperature(&self.root);
        let silent =
            silent.map(|looked_at| Missing { what: "temperature of a thermal zone", looked_at });
        let mut missing: Vec<Missing> = absent.chain(silent).collect();
        missing.extend(self.sensors.gone("temperature sensor that was here"));
        missing.extend(self.coolers.gone("cooler that was here"));
        missing
    }
}

/// Whether the chip says that the sensor is not there or broken, in which case
/// the number in its input means nothing.
fn diode_broken(sensor: &str, found: &Found, faults: &mut Faults) -> bool {
    let Some(channel) = files::file_name(&found.path).strip_suffix("_input") else {
        return false;
    };
    let path = found.path.with_file_name(format!("{channel}_fault"));
    let broken = faults.note(sensor, &path, files::flag(&path)).flatten() == Some(true);
    if broken {
        faults.note::<()>(sensor, &path, Err(Fault::Broken));
    }
    broken
}

fn limit(sensor: &str, path: &Path, faults: &mut Faults) -> Option<Celsius> {
    let raw = faults.note(sensor, path, files::integer(path)).flatten()?;
    zones::limit(raw)
}
