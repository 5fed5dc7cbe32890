//! The kernel's power supply class.
//!
//! Files, words and units: Documentation/ABI/testing/sysfs-class-power.

use std::path::{Path, PathBuf};

use super::{Supply, SupplyKind, SupplyStatus};
use crate::names::{Found, Names, clean};
use crate::reading::{Fault, Faults};
use crate::units::{Amperes, OutOfRange, Percent, Volts, Watts};
use crate::{Root, files};

/// Each supply, named by its folder; the path is that of its type, which every
/// supply has.
pub(super) fn list(root: &Root, faults: &mut Faults) -> Vec<Found> {
    let class = root.class("power_supply");
    let listed = faults.note("power_supply", &class, files::names(&class)).unwrap_or_default();
    let found = |name: &String| Found { path: class.join(name).join("type"), base: clean(name) };
    listed.iter().map(found).collect()
}

/// Reads all supplies; an attribute that fails leaves its field empty.
pub(super) fn read(root: &Root, names: &mut Names, faults: &mut Faults) -> Vec<Supply> {
    let found = list(root, faults);
    let names = names.assign(&found);
    let dirs = found.iter().filter_map(|found| found.path.parent());
    dirs.zip(names).map(|(dir, name)| supply(dir, name, faults)).collect()
}

fn supply(dir: &Path, name: String, faults: &mut Faults) -> Supply {
    let mut attributes = Attributes { dir, name: &name, faults };
    let kind = attributes.word("type", kind).unwrap_or(SupplyKind::Unknown);
    let feeds_board = attributes.word("scope", feeds_board).unwrap_or(true);
    let present = attributes.number("present", boolean);
    let online = attributes.number("online", online);
    let mut supply = Supply {
        name: String::new(),
        kind,
        feeds_board,
        present,
        online,
        status: None,
        capacity: None,
        voltage: None,
        current: None,
        power: None,
    };
    // An empty battery bay answers everything else with an error.
    if present != Some(false) {
        supply.status = attributes.word("status", status);
        supply.capacity = attributes.number("capacity", |raw| Ok(Percent::new(raw as f64)?));
        supply.voltage = attributes.measure("voltage_now", Volts::from_micro);
        supply.current = attributes.measure("current_now", Amperes::from_micro);
        supply.power = attributes.measure("power_now", Watts::from_micro);
    }
    supply.name = name;
    supply
}

struct Attributes<'a> {
    dir: &'a Path,
    name: &'a str,
    faults: &'a mut Faults,
}

impl Attributes<'_> {
    fn word<T>(&mut self, file: &str, parse: impl FnOnce(&str) -> Result<T, Fault>) -> Option<T> {
        let path = self.path(file);
        let outcome =
            files::attribute(&path).and_then(|text| text.as_deref().map(parse).transpose());
        self.faults.note(self.name, &path, outcome).flatten()
    }

    fn number<T>(&mut self, file: &str, parse: impl FnOnce(i64) -> Result<T, Fault>) -> Option<T> {
        self.word(file, |text| files::parse_integer(text).and_then(parse))
    }

    fn measure<T>(
        &mut self,
        file: &str,
        convert: impl FnOnce(i64) -> Result<T, OutOfRange>,
    ) -> Option<T> {
        self.number(file, |raw| Ok(convert(raw)?))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }
}

fn kind(text: &str) -> Result<SupplyKind, Fault> {
    match text {
        "Mains" => Ok(SupplyKind::Mains),
        "Battery" => Ok(SupplyKind::Battery),
        "UPS" => Ok(SupplyKind::Ups),
        "Wireless" => Ok(SupplyKind::Wireless),
        "Unknown" => Ok(SupplyKind::Unknown),
        // USB_DCP, USB_PD, BrickID: ports differ in what they may deliver.
        "BrickID" => Ok(SupplyKind::Usb),
        usb if usb.starts_with("USB") => Ok(SupplyKind::Usb),
        raw => Err(Fault::malformed("a kind of supply", raw)),
    }
}

fn status(text: &str) -> Result<SupplyStatus, Fault> {
    match text {
        "Charging" => Ok(SupplyStatus::Charging),
        "Discharging" => Ok(SupplyStatus::Discharging),
        "Not charging" => Ok(SupplyStatus::NotCharging),
        "Full" => Ok(SupplyStatus::Full),
        "Unknown" => Ok(SupplyStatus::Unknown),
        raw => Err(Fault::malformed("a status of a supply", raw)),
    }
}

fn feeds_board(scope: &str) -> Result<bool, Fault> {
    match scope {
        "System" | "Unknown" => Ok(true),
        "Device" => Ok(false),
        raw => Err(Fault::malformed("a scope of a supply", raw)),
    }
}

fn boolean(raw: i64) -> Result<bool, Fault> {
    match raw {
        0 => Ok(false),
        1 => Ok(true),
        raw => Err(Fault::malformed("0 or 1", &raw.to_string())),
    }
}

/// 2 means online at a voltage that can be programmed.
fn online(raw: i64) -> Result<bool, Fault> {
    if raw == 2 { Ok(true) } else { boolean(raw) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_known() {
        assert_eq!(kind("USB_PD_DRP"), Ok(SupplyKind::Usb));
        assert_eq!(kind("Mains"), Ok(SupplyKind::Mains));
        assert_eq!(status("Not charging"), Ok(SupplyStatus::NotCharging));
        assert_eq!(feeds_board("Device"), Ok(false));
        assert_eq!(online(2), Ok(true));
    }

    #[test]
    fn other_words_are_faults() {
        assert!(kind("mains").is_err());
        assert!(status("").is_err());
        assert!(feeds_board("Board").is_err());
        assert!(online(3).is_err());
        assert!(boolean(-1).is_err());
    }
}
