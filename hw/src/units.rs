//! Numbers with a unit and a physical range.
//!
//! Every constructor refuses NaN, the infinities and what no board can
//! measure, and turns −0 into 0, so that a value is its own canonical form:
//! equal values have equal bits, and ordering is total.

use std::cmp::Ordering;
use std::fmt;

/// A number that is not a measurement of its unit.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{value} {unit} is outside {least} to {most}")]
pub struct OutOfRange {
    /// The unit's name, as in the type's `UNIT`.
    pub unit: &'static str,
    /// What was offered.
    pub value: f64,
    /// The least value taken.
    pub least: f64,
    /// The greatest value taken.
    pub most: f64,
}

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident, $unit:literal, $symbol:literal, $least:expr, $most:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name(f64);

        impl $name {
            /// The unit's name in the plural, fit for the end of a path.
            pub const UNIT: &'static str = $unit;
            /// The least value.
            pub const LEAST: $name = $name($least);
            /// The greatest value.
            pub const MOST: $name = $name($most);

            /// Takes a number in this unit.
            ///
            /// Fails for NaN, an infinity, or a number outside
            /// [`Self::LEAST`] to [`Self::MOST`].
            pub fn new(value: f64) -> Result<$name, OutOfRange> {
                if ($least..=$most).contains(&value) {
                    Ok($name(value + 0.0))
                } else {
                    Err(OutOfRange { unit: $unit, value, least: $least, most: $most })
                }
            }

            /// The number in this unit; finite, and never −0.
            pub fn get(self) -> f64 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.0)
            }
        }

        /// The shortest decimal that reads back as the same number, then the
        /// symbol; a precision (`{:.1}`) is honoured.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)?;
                f.write_str($symbol)
            }
        }

        impl From<$name> for f64 {
            fn from(value: $name) -> f64 {
                value.0
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &$name) -> bool {
                self.cmp(other) == Ordering::Equal
            }
        }

        impl Eq for $name {}

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &$name) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &$name) -> Ordering {
                self.0.total_cmp(&other.0)
            }
        }
    };
}

unit!(
    /// A temperature, from absolute zero to where no board survives.
    Celsius, "celsius", " °C", -273.15, 1000.0
);
unit!(
    /// An electric potential; negative rails exist.
    Volts, "volts", " V", -1000.0, 1000.0
);
unit!(
    /// An electric current; negative where the driver signs the direction.
    Amperes, "amperes", " A", -1000.0, 1000.0
);
unit!(
    /// A power; negative where the driver signs the direction.
    Watts, "watts", " W", -100_000.0, 100_000.0
);
unit!(
    /// A share of a whole, 0 to 100.
    Percent, "percent", " %", 0.0, 100.0
);
unit!(
    /// A mean number of runnable or waiting tasks, as in `/proc/loadavg`.
    LoadAverage, "tasks", "", 0.0, 1_000_000.0
);

// An integer divided by a power of ten is rounded once, so `48312` millidegrees
// prints as `48.312`; multiplying by 0.001 would print `48.312000000000005`.
macro_rules! from_milli {
    ($($name:ident)*) => {$(impl $name {
        /// Takes thousandths of the unit, as hwmon and thermal files give them.
        pub fn from_milli(raw: i64) -> Result<$name, OutOfRange> {
            $name::new(raw as f64 / 1e3)
        }
    })*};
}

macro_rules! from_micro {
    ($($name:ident)*) => {$(impl $name {
        /// Takes millionths of the unit, as power supply files give them.
        pub fn from_micro(raw: i64) -> Result<$name, OutOfRange> {
            $name::new(raw as f64 / 1e6)
        }
    })*};
}

macro_rules! clamped {
    ($($name:ident)*) => {$(impl $name {
        /// The nearest value of this unit: for sums and models whose rounding
        /// may step over an end of the range.
        pub(crate) fn clamped(value: f64) -> $name {
            debug_assert!(!value.is_nan());
            $name(value.clamp($name::LEAST.0, $name::MOST.0) + 0.0)
        }
    })*};
}

from_milli!(Celsius Volts Amperes);
from_micro!(Volts Amperes Watts);
clamped!(Celsius Volts Amperes Watts Percent LoadAverage);

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(u64);

impl Bytes {
    /// The unit's name in the plural, fit for the end of a path.
    pub const UNIT: &'static str = "bytes";

    /// Every count of bytes is one.
    pub const fn new(value: u64) -> Bytes {
        Bytes(value)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.0)
    }
}

/// A fan's turns per minute; 0 means it stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rpm(u32);

impl Rpm {
    /// The unit's name, fit for the end of a path.
    pub const UNIT: &'static str = "rpm";
    /// The greatest value: faster than any fan small enough for a board.
    pub const MOST: Rpm = Rpm(100_000);

    /// Takes turns per minute.
    ///
    /// Fails for a negative number or one above [`Rpm::MOST`].
    pub fn new(value: i64) -> Result<Rpm, OutOfRange> {
        u32::try_from(value).ok().map(Rpm).filter(|rpm| *rpm <= Rpm::MOST).ok_or(OutOfRange {
            unit: Rpm::UNIT,
            value: value as f64,
            least: 0.0,
            most: f64::from(Rpm::MOST.0),
        })
    }

    /// Turns per minute.
    pub fn get(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_board_can_measure_is_refused() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -273.16, 1000.1] {
            assert!(Celsius::new(value).is_err(), "{value}");
        }
        assert!(Percent::new(-0.001).is_err());
        assert!(Percent::new(100.001).is_err());
        assert!(Rpm::new(-1).is_err());
        assert!(Rpm::new(i64::MAX).is_err());
        assert!(Watts::from_micro(i64::MAX).is_err());
    }

    #[test]
    fn the_ends_of_a_range_are_inside() {
        assert_eq!(Celsius::new(-273.15).map(Celsius::get), Ok(-273.15));
        assert_eq!(Percent::new(100.0).map(Percent::get), Ok(100.0));
    }

    #[test]
    fn minus_zero_becomes_zero() {
        let zero = Celsius::new(-0.0).expect("zero is a temperature");
        assert_eq!(zero.get().to_bits(), 0.0_f64.to_bits());
        assert_eq!(zero, Celsius::new(0.0).expect("zero is a temperature"));
        assert_eq!(Volts::clamped(-0.0).get().to_bits(), 0.0_f64.to_bits());
    }

    #[test]
    fn raw_integers_print_as_the_decimals_they_mean() {
        let text = |raw| Celsius::from_milli(raw).expect("in range").to_string();
        assert_eq!(text(48_312), "48.312 °C");
        assert_eq!(text(-500), "-0.5 °C");
        assert_eq!(format!("{:.1}", Celsius::from_milli(48_312).expect("in range")), "48.3 °C");
        assert_eq!(Volts::from_micro(3_999_999).expect("in range").to_string(), "3.999999 V");
    }
}
