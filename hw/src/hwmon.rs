//! Chips of the hardware monitoring class.
//!
//! Files and units: Documentation/hwmon/sysfs-interface.rst of the kernel.

use std::fs;
use std::path::PathBuf;

use crate::names::{Found, Names, clean};
use crate::reading::{Fault, Faults};
use crate::{Root, files};

/// One chip, as one pass over the class finds it.
pub(crate) struct Chip {
    dir: PathBuf,
    name: String,
    name_known: bool,
    device: Option<PathBuf>,
    files: Vec<String>,
}

/// The chips, ordered by the device they belong to.
///
/// The kernel numbers chips in the order in which drivers load, which changes
/// from boot to boot; the device's place on its bus does not. Names with a
/// number behind them are given in this order.
pub(crate) fn chips(root: &Root, faults: &mut Faults) -> Vec<Chip> {
    let class = root.class("hwmon");
    let listed = faults.note("hwmon", &class, files::names(&class)).unwrap_or_default();
    let mut chips: Vec<Chip> = listed
        .iter()
        .filter_map(|listed| {
            let dir = class.join(listed);
            let files = faults.note(&clean(listed), &dir, files::names(&dir))?;
            let device = fs::canonicalize(dir.join("device")).ok();
            let name_path = dir.join("name");
            let name =
                faults.note(&clean(listed), &name_path, files::attribute(&name_path)).flatten();
            let name_known = name.is_some();
            let name = clean(name.as_deref().unwrap_or(listed));
            Some(Chip { dir, name, name_known, device, files })
        })
        .collect();
    chips.sort_by(|one, other| one.device.cmp(&other.device));
    chips
}

impl Chip {
    /// A sensor for each `{kind}{n}_input` of the chip, named by chip and
    /// label, or by chip and channel where the driver gives no label.
    pub(crate) fn inputs(
        &self,
        kind: &str,
        names: &Names,
        faults: &mut Faults,
    ) -> Vec<(u32, Found)> {
        self.channels(kind, "_input")
            .map(|number| {
                let path = self.file(kind, number, "_input");
                let label_path = self.file(kind, number, "_label");
                let label = faults.note(&self.name, &label_path, files::attribute(&label_path));
                // A sensor whose chip cannot tell its name for a moment keeps
                // the one it had.
                let known =
                    if self.name_known && label.is_some() { None } else { names.base(&path) };
                let label = label.flatten().filter(|label| !label.is_empty());
                let base = known.map(str::to_owned).unwrap_or_else(|| {
                    let label = label.unwrap_or_else(|| format!("{kind}{number}"));
                    clean(&format!("{}_{label}", self.name))
                });
                (number, Found { path, base })
            })
            .collect()
    }

    /// Whether any of `{kind}{n}{suffix}`, a flag, is set; nothing where the
    /// chip has none that can be read.
    pub(crate) fn any_flag(&self, kind: &str, suffix: &str, faults: &mut Faults) -> Option<bool> {
        self.channels(kind, suffix)
            .filter_map(|number| {
                let path = self.file(kind, number, suffix);
                faults.note(&self.name, &path, files::flag(&path)).flatten()
            })
            .reduce(|one, other| one || other)
    }

    pub(crate) fn has(&self, kind: &str, suffix: &str) -> bool {
        self.channels(kind, suffix).next().is_some()
    }

    pub(crate) fn file(&self, kind: &str, number: u32, suffix: &str) -> PathBuf {
        self.dir.join(format!("{kind}{number}{suffix}"))
    }

    /// Whether the chip repeats a thermal zone: the thermal core shows each
    /// zone as a chip too (drivers/thermal/thermal_hwmon.c).
    pub(crate) fn repeats_zone(&self) -> bool {
        self.device.as_deref().is_some_and(|device| {
            files::index(files::file_name(device), "thermal_zone", "").is_some()
        })
    }

    /// Whether the chip repeats a power supply
    /// (drivers/power/supply/power_supply_hwmon.c).
    pub(crate) fn repeats_supply(&self) -> bool {
        let parent = self.device.as_deref().and_then(|device| device.parent());
        parent.is_some_and(|parent| files::file_name(parent) == "power_supply")
    }

    fn channels(&self, kind: &str, suffix: &str) -> impl Iterator<Item = u32> {
        self.files.iter().filter_map(move |file| files::index(file, kind, suffix))
    }
}

/// Reads an input that was listed a moment ago; one that has gone since gives
/// no value and no fault, and counts as missing.
pub(crate) fn input<T, E: Into<Fault>>(
    name: &str,
    found: &Found,
    convert: impl FnOnce(i64) -> Result<T, E>,
    faults: &mut Faults,
) -> Option<T> {
    let outcome = files::integer(&found.path)
        .and_then(|raw| raw.map(convert).transpose().map_err(Into::into));
    faults.note(name, &found.path, outcome).flatten()
}
