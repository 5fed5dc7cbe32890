//! Zones and coolers of the kernel's thermal class.
//!
//! Files and units: Documentation/driver-api/thermal/sysfs-api.rst.

use std::path::{Path, PathBuf};

use super::Effort;
use crate::names::{Found, Names, clean};
use crate::reading::{Fault, Faults};
use crate::units::Celsius;
use crate::{Root, files};

/// Each zone's folder and its sensor, named by the zone's type.
///
/// A zone without a temperature file is left out.
pub(super) fn list(root: &Root, names: &Names, faults: &mut Faults) -> Vec<(PathBuf, Found)> {
    folders(root, "thermal_zone", faults)
        .into_iter()
        .filter(|dir| dir.join("temp").exists())
        .map(|dir| {
            let found = named_by_type(&dir, "temp", names, faults);
            (dir, found)
        })
        .collect()
}

/// Each cooling device, named by its type; the path is that of its state.
pub(super) fn coolers(root: &Root, names: &Names, faults: &mut Faults) -> Vec<Found> {
    folders(root, "cooling_device", faults)
        .iter()
        .map(|dir| named_by_type(dir, "cur_state", names, faults))
        .collect()
}

pub(super) fn effort(cur_state: &Path, device: &str, faults: &mut Faults) -> Option<Effort> {
    let max_state = cur_state.with_file_name("max_state");
    let step = faults.note(device, cur_state, step(cur_state)).flatten()?;
    let steps = faults.note(device, &max_state, self::step(&max_state)).flatten()?;
    let within = if step <= steps {
        Ok(Effort::Step { step, steps })
    } else {
        Err(Fault::malformed("a step up to max_state", &step.to_string()))
    };
    faults.note(device, cur_state, within)
}

/// A zone's warning and critical temperatures, out of its trip points.
///
/// Throttling begins at the first passive trip; a `hot` one is where the
/// driver itself wants people to be told, and goes before it.
pub(super) fn limits(
    dir: &Path,
    sensor: &str,
    faults: &mut Faults,
) -> (Option<Celsius>, Option<Celsius>) {
    let (mut hot, mut passive, mut critical) = (None, None, None);
    let files = faults.note(sensor, dir, files::names(dir)).unwrap_or_default();
    for number in files.iter().filter_map(|file| files::index(file, "trip_point_", "_type")) {
        let path = dir.join(format!("trip_point_{number}_type"));
        let kind = faults.note(sensor, &path, files::attribute(&path)).flatten();
        let lowest = match kind.as_deref() {
            Some("hot") => &mut hot,
            Some("passive") => &mut passive,
            Some("critical") => &mut critical,
            Some("active") | None => continue,
            Some(raw) => {
                let fault = Fault::malformed("a kind of trip point", raw);
                faults.note::<()>(sensor, &path, Err(fault));
                continue;
            }
        };
        let path = dir.join(format!("trip_point_{number}_temp"));
        let raw = faults.note(sensor, &path, files::integer(&path)).flatten();
        if let Some(trip) = raw.and_then(limit) {
            *lowest = Some(lowest.map_or(trip, |lowest| trip.min(lowest)));
        }
    }
    (hot.or(passive), critical)
}

/// An upper limit, or nothing where it is not set.
///
/// Drivers have many ways to say so: 0, below absolute zero (the thermal
/// core's own), 65261 °C (NVMe). None is a fault of the sensor.
pub(super) fn limit(raw: i64) -> Option<Celsius> {
    Celsius::from_milli(raw).ok().filter(|limit| limit.get() > 0.0)
}

/// Whether the class has no folder of this kind.
pub(super) fn none(root: &Root, kind: &str) -> bool {
    folders(root, kind, &mut Faults::default()).is_empty()
}

/// The temperature files that zones lack.
pub(super) fn without_temperature(root: &Root) -> impl Iterator<Item = PathBuf> {
    folders(root, "thermal_zone", &mut Faults::default())
        .into_iter()
        .map(|dir| dir.join("temp"))
        .filter(|path| !path.exists())
}

fn folders(root: &Root, kind: &str, faults: &mut Faults) -> Vec<PathBuf> {
    let class = root.class("thermal");
    let listed = faults.note("thermal", &class, files::names(&class)).unwrap_or_default();
    let of_kind = listed.iter().filter(|name| files::index(name, kind, "").is_some());
    of_kind.map(|name| class.join(name)).collect()
}

fn named_by_type(dir: &Path, value: &str, names: &Names, faults: &mut Faults) -> Found {
    let path = dir.join(value);
    let listed = clean(files::file_name(dir));
    let kind = dir.join("type");
    let base = match faults.note(&listed, &kind, files::attribute(&kind)).flatten() {
        Some(kind) => name(&kind),
        None => names.base(&path).map_or(listed, str::to_owned),
    };
    Found { path, base }
}

/// `cpu-thermal` is the processor; that it is a temperature says the unit.
fn name(kind: &str) -> String {
    let name = clean(kind);
    name.strip_suffix("_thermal").map_or(name.clone(), str::to_owned)
}

fn step(path: &Path) -> Result<Option<u32>, Fault> {
    let step =
        |raw: i64| u32::try_from(raw).map_err(|_| Fault::malformed("a step", &raw.to_string()));
    files::integer(path)?.map(step).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_not_set_is_none() {
        for raw in [0, -274_000, -1, 65_261_850, i64::MAX, i64::MIN] {
            assert_eq!(limit(raw), None, "{raw}");
        }
        assert_eq!(limit(85_000), Celsius::new(85.0).ok());
    }

    #[test]
    fn zones_are_named_by_what_they_measure() {
        assert_eq!(name("cpu-thermal"), "cpu");
        assert_eq!(name("thermal"), "thermal");
        assert_eq!(name("x86_pkg_temp"), "x86_pkg_temp");
        assert_eq!(name("-thermal"), "thermal");
    }
}
