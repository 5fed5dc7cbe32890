//! How often to sample, and what change is worth reporting.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// No sensor is read more often.
pub const PERIOD_MS_MIN: u64 = 100;
/// Once a day is the least.
pub const PERIOD_MS_MAX: u64 = 86_400_000;

/// The settings of all groups of sensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SenseSettings {
    /// Temperatures and coolers.
    pub thermal: Thermal,
    /// Supplies and rails.
    pub power: Power,
    /// Processor, memory and disk.
    pub machine: Machine,
}

/// The settings for temperatures and coolers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thermal {
    /// Between samples, in milliseconds.
    pub period_ms: u64,
    /// A value that moved less is reported after so many milliseconds.
    pub max_silence_ms: u64,
    /// For temperatures.
    pub dead_band_celsius: f64,
    /// For fans.
    pub dead_band_rpm: f64,
}

/// The settings for supplies and rails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Power {
    /// Between samples, in milliseconds.
    pub period_ms: u64,
    /// A value that moved less is reported after so many milliseconds.
    pub max_silence_ms: u64,
    /// For voltages.
    pub dead_band_volts: f64,
    /// For currents.
    pub dead_band_amperes: f64,
    /// For powers.
    pub dead_band_watts: f64,
    /// For how full a battery is.
    pub dead_band_percent: f64,
}

/// The settings for processor, memory, disk and clock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Machine {
    /// Between samples, in milliseconds.
    pub period_ms: u64,
    /// A value that moved less is reported after so many milliseconds.
    pub max_silence_ms: u64,
    /// For the processors' time, in percent.
    pub dead_band_cpu_percent: f64,
    /// For available memory, in percent of the whole.
    pub dead_band_memory_percent: f64,
    /// For available disk space, in percent of the whole.
    pub dead_band_disk_percent: f64,
    /// For the load average, in tasks.
    pub dead_band_load: f64,
    /// For the clock's error, in milliseconds.
    pub dead_band_offset_ms: f64,
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SettingError {
    /// No such setting.
    #[error("there is no setting {name}")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// Of another type.
    #[error("{name} cannot be {found}")]
    Type {
        /// The setting.
        name: String,
        /// What was given.
        found: Json,
    },
    /// Out of range.
    #[error("{name} is {found}; {least} to {most} are allowed")]
    Range {
        /// The setting.
        name: String,
        /// What was given.
        found: f64,
        /// The least.
        least: f64,
        /// The most.
        most: f64,
    },
}

impl SenseSettings {
    /// These settings with one changed, named like `thermal/period_ms`.
    pub fn with(&self, name: &str, value: &Json) -> Result<Self, SettingError> {
        let unknown = || SettingError::Unknown { name: name.to_owned() };
        let mut json = serde_json::to_value(self).map_err(|_| unknown())?;
        let place = json.pointer_mut(&format!("/{name}")).ok_or_else(unknown)?;
        if place.is_object() {
            return Err(unknown());
        }
        place.clone_from(value);
        let changed: Self = serde_json::from_value(json)
            .map_err(|_| SettingError::Type { name: name.to_owned(), found: value.clone() })?;
        changed.check()?;
        Ok(changed)
    }

    /// The value of a setting, named like `thermal/period_ms`.
    pub fn value_of(&self, name: &str) -> Option<Json> {
        let json = serde_json::to_value(self).ok()?;
        json.pointer(&format!("/{name}")).filter(|value| !value.is_object()).cloned()
    }

    /// Refuses periods and bands that make no sense.
    pub fn check(&self) -> Result<(), SettingError> {
        let Ok(Json::Object(groups)) = serde_json::to_value(self) else { return Ok(()) };
        for (group, settings) in &groups {
            for (setting, value) in settings.as_object().into_iter().flatten() {
                let found = value.as_f64().unwrap_or(f64::NAN);
                let (least, most) = match setting.as_str() {
                    "period_ms" => (PERIOD_MS_MIN as f64, PERIOD_MS_MAX as f64),
                    _ => (0.0, f64::from(u32::MAX)),
                };
                if !(least..=most).contains(&found) {
                    let name = format!("{group}/{setting}");
                    return Err(SettingError::Range { name, found, least, most });
                }
            }
        }
        Ok(())
    }
}

/// A drift that stays inside its band is seen four times an hour.
const MAX_SILENCE_MS: u64 = 900_000;

impl Default for Thermal {
    fn default() -> Self {
        Self {
            period_ms: 5_000,
            max_silence_ms: MAX_SILENCE_MS,
            dead_band_celsius: 0.5,
            dead_band_rpm: 100.0,
        }
    }
}

impl Default for Power {
    fn default() -> Self {
        Self {
            period_ms: 10_000,
            max_silence_ms: MAX_SILENCE_MS,
            dead_band_volts: 0.05,
            dead_band_amperes: 0.05,
            dead_band_watts: 0.5,
            dead_band_percent: 1.0,
        }
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            period_ms: 10_000,
            max_silence_ms: MAX_SILENCE_MS,
            dead_band_cpu_percent: 5.0,
            dead_band_memory_percent: 1.0,
            dead_band_disk_percent: 0.5,
            dead_band_load: 0.25,
            dead_band_offset_ms: 50.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_setting_changes_alone() {
        let before = SenseSettings::default();
        let after = before.with("thermal/period_ms", &json!(250)).expect("allowed");
        assert_eq!(after.thermal.period_ms, 250);
        assert_eq!(after.power, before.power);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let settings = SenseSettings::default();
        let error = |name, value| settings.with(name, &value).expect_err("refused");
        assert!(matches!(error("thermal/perod_ms", json!(1)), SettingError::Unknown { .. }));
        assert!(matches!(error("thermal", json!(1)), SettingError::Unknown { .. }));
        assert!(matches!(error("thermal/period_ms", json!("5 s")), SettingError::Type { .. }));
        assert!(matches!(error("thermal/period_ms", json!(1)), SettingError::Range { .. }));
        assert!(matches!(error("machine/dead_band_load", json!(-1.0)), SettingError::Range { .. }));
    }
}
