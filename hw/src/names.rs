//! Sensor names: clean, unique, and the same from one pass to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::Missing;

/// Long enough for chip and label, short enough for a segment of a path.
const NAME_BYTES_MAX: usize = 48;

/// A sensor as one pass over the files finds it.
pub(crate) struct Found {
    /// The file that gives its value.
    pub(crate) path: PathBuf,
    /// The name it would have if no other sensor wanted it.
    pub(crate) base: String,
}

/// Remembers which sensor has which name.
#[derive(Default)]
pub(crate) struct Names {
    known: BTreeMap<PathBuf, Known>,
}

struct Known {
    base: String,
    name: String,
}

impl Names {
    /// Names for `found`, in its order and all different.
    ///
    /// A sensor keeps its name while its file keeps its base. Others take the
    /// first free one of `base`, `base_2`, `base_3`, also one whose file has
    /// gone: a driver that is loaded again comes back under another number,
    /// and its sensors should come back under their old names.
    pub(crate) fn assign(&mut self, found: &[Found]) -> Vec<String> {
        let mut taken = BTreeSet::new();
        let kept: Vec<Option<String>> = found
            .iter()
            .map(|sensor| {
                let known = self.known.get(&sensor.path)?;
                (known.base == sensor.base && taken.insert(known.name.clone()))
                    .then(|| known.name.clone())
            })
            .collect();
        let names: Vec<String> = found
            .iter()
            .zip(kept)
            .map(|(sensor, kept)| kept.unwrap_or_else(|| take_free(&sensor.base, &mut taken)))
            .collect();
        self.known.retain(|_, known| !taken.contains(&known.name));
        for (sensor, name) in found.iter().zip(&names) {
            let known = Known { base: sensor.base.clone(), name: name.clone() };
            self.known.insert(sensor.path.clone(), known);
        }
        names
    }

    /// The base of the sensor at `path`, for when it cannot be read again.
    pub(crate) fn base(&self, path: &Path) -> Option<&str> {
        self.known.get(path).map(|known| known.base.as_str())
    }

    /// The files of sensors that were there once and are not now.
    pub(crate) fn gone(&self, what: &'static str) -> impl Iterator<Item = Missing> {
        let gone = self.known.keys().filter(|path| !path.exists());
        gone.map(move |path| Missing { what, looked_at: path.clone() })
    }
}

/// Lower case letters, digits and single underscores between them.
pub(crate) fn clean(raw: &str) -> String {
    let mut name = String::new();
    for character in raw.chars() {
        if name.len() >= NAME_BYTES_MAX {
            break;
        }
        match character.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9') => name.push(letter),
            _ if name.is_empty() || name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    let name = name.trim_end_matches('_');
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

fn take_free(base: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = base.to_owned();
    let mut number = 1_u64;
    while !taken.insert(name.clone()) {
        number += 1;
        name = format!("{base}_{number}");
    }
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(list: &[(&str, &str)]) -> Vec<Found> {
        list.iter()
            .map(|(path, base)| Found { path: path.into(), base: (*base).to_owned() })
            .collect()
    }

    #[test]
    fn names_are_cleaned() {
        for (raw, name) in [
            ("cpu-thermal", "cpu_thermal"),
            ("  Package id 0\n", "package_id_0"),
            ("+3.3V", "3_3v"),
            ("__", "unnamed"),
            ("", "unnamed"),
            ("température", "temp_rature"),
        ] {
            assert_eq!(clean(raw), name);
        }
    }

    #[test]
    fn a_sensor_keeps_its_name_when_a_sibling_goes() {
        let mut names = Names::default();
        names.assign(&found(&[("a", "nvme"), ("b", "nvme")]));
        assert_eq!(names.assign(&found(&[("b", "nvme")])), ["nvme_2"]);
    }

    #[test]
    fn a_returning_sensor_gets_its_old_name_under_a_new_path() {
        let mut names = Names::default();
        names.assign(&found(&[("hwmon1", "nvme"), ("hwmon2", "ina219")]));
        assert_eq!(names.assign(&found(&[("hwmon2", "ina219")])), ["ina219"]);
        assert_eq!(names.assign(&found(&[("hwmon2", "ina219"), ("hwmon3", "nvme")]))[1], "nvme");
        assert_eq!(names.gone("sensor").count(), 2, "neither file exists on this disk");
    }

    #[test]
    fn another_chip_under_an_old_path_gets_its_own_name() {
        let mut names = Names::default();
        names.assign(&found(&[("hwmon1", "nvme")]));
        assert_eq!(names.assign(&found(&[("hwmon1", "tmp102")])), ["tmp102"]);
    }

    proptest! {
        #[test]
        fn clean_names_stay_in_their_alphabet(raw in ".*") {
            let name = clean(&raw);
            prop_assert!(!name.is_empty() && name.len() <= NAME_BYTES_MAX);
            prop_assert!(name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_')));
            prop_assert_eq!(clean(&name), name);
        }

        #[test]
        fn names_are_unique_and_stable(
            passes in prop::collection::vec(
                prop::collection::btree_map(0_u8..8, "(a|a_2|b)", 0..8), 1..6),
        ) {
            let mut names = Names::default();
            for pass in passes {
                let sensors: Vec<Found> = pass
                    .into_iter()
                    .map(|(path, base)| Found { path: path.to_string().into(), base })
                    .collect();
                let first = names.assign(&sensors);
                let unique: BTreeSet<&String> = first.iter().collect();
                prop_assert_eq!(unique.len(), first.len());
                prop_assert_eq!(names.assign(&sensors), first);
            }
        }
    }
}
