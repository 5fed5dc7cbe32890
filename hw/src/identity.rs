//! Which machine this is, as far as it can tell.
//!
//! Not a proof of anything: whoever owns the disk owns these files. Their use
//! is to notice that a disk image has been copied to another machine.

use std::path::PathBuf;

use crate::names::clean;
use crate::reading::{Fault, Faults};
use crate::sim::mix;
use crate::{Readings, Root, files};

/// What firmware makers leave where a serial number belongs.
const PLACEHOLDERS: [&str; 14] = [
    "chassis serial number",
    "default",
    "default string",
    "empty",
    "invalid",
    "n/a",
    "none",
    "not applicable",
    "not available",
    "not specified",
    "o.e.m.",
    "system product name",
    "system serial number",
    "unknown",
];

/// What tells this machine from others; a field is empty where its file is
/// missing, faulty or holds a placeholder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineIdentity {
    /// 32 lower case hexadecimal digits, of the installation: machine-id(5).
    /// Reveals the machine to others: hash it before it leaves.
    pub machine_id: Option<String>,
    /// The maker's number of the board, from the device tree or from DMI.
    pub board_serial: Option<String>,
    /// The maker's name of the board, from the device tree or from DMI.
    pub model: Option<String>,
    /// The kernel's host name.
    pub hostname: Option<String>,
    /// The kernel's architecture, such as `aarch64`; that of this program
    /// where the kernel, before 6.1, does not tell.
    pub architecture: String,
    /// The kernel's release, such as `6.12.34+rpt-rpi-v8`.
    pub kernel_release: Option<String>,
}

impl MachineIdentity {
    /// Reads the identity of the machine under `root`.
    ///
    /// Device tree: Documentation/ABI/testing/sysfs-firmware-ofw; DMI:
    /// Documentation/ABI/testing/sysfs-class-dmi. A DMI serial number is for
    /// root to read, so it is a [`Fault::Denied`] for others.
    pub fn read(root: &Root) -> Readings<MachineIdentity> {
        let mut faults = Faults::default();
        let tree = root.proc.join("device-tree");
        let dmi = root.class("dmi").join("id");
        let kernel = root.proc.join("sys/kernel");
        let mut first = |sensor: &str, places: &[PathBuf], accept: fn(String) -> Accepted| {
            places.iter().find_map(|path| {
                let outcome = files::attribute(path).and_then(|text| match text {
                    Some(text) => accept(text),
                    None => Ok(None),
                });
                faults.note(sensor, path, outcome).flatten()
            })
        };
        let identity = MachineIdentity {
            machine_id: first("machine_id", &[root.etc.join("machine-id")], machine_id),
            board_serial: first(
                "board_serial",
                &[tree.join("serial-number"), dmi.join("product_serial")],
                meaningful,
            ),
            model: first("model", &[tree.join("model"), dmi.join("product_name")], meaningful),
            hostname: first("hostname", &[kernel.join("hostname")], line),
            architecture: first("architecture", &[kernel.join("arch")], line)
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            kernel_release: first("kernel_release", &[kernel.join("osrelease")], line),
        };
        faults.beside(identity)
    }

    /// The identity of the simulated board of this seed.
    pub fn simulated(seed: u64) -> MachineIdentity {
        let serial = mix(seed);
        MachineIdentity {
            machine_id: Some(format!("{:016x}{:016x}", serial, mix(serial))),
            board_serial: Some(format!("{serial:016x}")),
            model: Some("Simulated Board".to_owned()),
            hostname: Some(clean(&format!("sim {seed}")).replace('_', "-")),
            architecture: std::env::consts::ARCH.to_owned(),
            kernel_release: None,
        }
    }
}

type Accepted = Result<Option<String>, Fault>;

/// systemd writes `uninitialized` while the first boot goes on, and images are
/// shipped with the file empty: both will be an id later.
fn machine_id(text: String) -> Accepted {
    if text.is_empty() || text == "uninitialized" {
        return Ok(None);
    }
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let null = text.bytes().all(|byte| byte == b'0');
    if digits && !null && text.len() == 32 {
        Ok(Some(text))
    } else {
        Err(Fault::malformed("a machine id", &text))
    }
}

/// A maker's text that says something.
fn meaningful(text: String) -> Accepted {
    Ok(line(text)?.filter(|text| !placeholder(text)))
}

/// One line of text; device tree strings end in a NUL. The kernel says
/// `(none)` where no host name was set.
fn line(text: String) -> Accepted {
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    if text.chars().any(char::is_control) {
        return Err(Fault::malformed("a line of text", text));
    }
    Ok((!text.is_empty() && text != "(none)").then(|| text.to_owned()))
}

fn placeholder(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut characters = lower.chars();
    let first = characters.next();
    // 0000000000000000, ffffffff, ........, and nothing at all.
    let monotone = characters.all(|character| Some(character) == first);
    monotone
        || PLACEHOLDERS.contains(&lower.as_str())
        || lower.contains("to be filled")
        || (lower.len() > 3
            && ("1234567890".starts_with(&lower) || "0123456789".starts_with(&lower)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_no_serial_numbers() {
        for text in [
            "To be filled by O.E.M.",
            "Default string",
            "None",
            "0",
            "0000000000000000\0",
            "ffffffff",
            "........",
            "0123456789",
            "123456789",
            "",
            "\0",
        ] {
            assert_eq!(meaningful(text.to_owned()), Ok(None), "{text}");
        }
        for text in ["10000000abcdef01\0", "C02XL0GYJGH5", "Raspberry Pi 5 Model B Rev 1.0\0"] {
            let clean = text.trim_end_matches('\0').to_owned();
            assert_eq!(meaningful(text.to_owned()), Ok(Some(clean)));
        }
    }

    #[test]
    fn a_short_host_name_is_a_name() {
        assert_eq!(line("a".to_owned()), Ok(Some("a".to_owned())));
        assert_eq!(line("(none)".to_owned()), Ok(None));
        assert!(line("two\nlines".to_owned()).is_err());
    }

    #[test]
    fn only_a_finished_machine_id_is_one() {
        let id = "3d1219c7c4c5404aaa1f6d2a48adfda4";
        assert_eq!(machine_id(id.to_owned()), Ok(Some(id.to_owned())));
        assert_eq!(machine_id("uninitialized".to_owned()), Ok(None));
        assert_eq!(machine_id(String::new()), Ok(None));
        for text in ["3D1219C7C4C5404AAA1F6D2A48ADFDA4", "3d12", &"0".repeat(32), "é"] {
            assert!(machine_id(text.to_owned()).is_err(), "{text}");
        }
    }

    #[test]
    fn simulated_machines_differ_by_seed() {
        let (one, other) = (MachineIdentity::simulated(1), MachineIdentity::simulated(2));
        assert_ne!(one.machine_id, other.machine_id);
        assert_ne!(one.board_serial, other.board_serial);
        let id = one.machine_id.expect("a simulated machine has an id");
        assert_eq!(machine_id(id.clone()), Ok(Some(id)));
    }
}
