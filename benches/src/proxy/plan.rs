//! Which fault happens to which unit: pure, and the same whenever the seed is.
//!
//! A *unit* is a WebSocket frame where the proxy can see frames, else a segment of the stream
//! whose length the plan draws as well. So the decisions of one connection and direction depend
//! on its number, on the seed and on what is sent, and never on how TCP delivers it.

use clap::{Args, ValueEnum};
use serde::Serialize;
use sim::random::Random;

use super::Level;

/// The shortest and the longest segment of a byte stream.
const SEGMENT_BYTES: std::ops::Range<u64> = 16..1_024;
/// A unit is delivered in so many pieces at most.
const PIECES_MAX: u64 = 16;

/// Which way a unit goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the device to the brain.
    ToBrain,
    /// From the brain to the device.
    ToDevice,
}

/// What happens to a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// It passes.
    None,
    /// It never arrives.
    Drop,
    /// It arrives twice.
    Duplicate,
    /// It arrives after so many later ones.
    Reorder {
        /// How many overtake it.
        behind: u32,
    },
    /// A frame arrives without its end; a stream is cut there.
    Truncate {
        /// How many bytes of its payload, or of the segment, arrive.
        keep: usize,
    },
    /// It arrives in pieces.
    Split {
        /// How long each is, in bytes.
        piece: usize,
    },
    /// It and what follows wait.
    Delay {
        /// How long, in milliseconds.
        ms: u64,
    },
    /// From here on nothing arrives, and nobody is told.
    HalfOpen {
        /// Whether the other direction falls silent with this one.
        both: bool,
    },
    /// One of its bits is flipped.
    Corrupt {
        /// Which, counted from the first bit of the payload or segment.
        bit: usize,
    },
}

impl Fault {
    /// The fault's name, under which it is counted.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "passed",
            Self::Drop => "dropped",
            Self::Duplicate => "duplicated",
            Self::Reorder { .. } => "reordered",
            Self::Truncate { .. } => "truncated",
            Self::Split { .. } => "split",
            Self::Delay { .. } => "delayed",
            Self::HalfOpen { .. } => "half_open",
            Self::Corrupt { .. } => "corrupted",
        }
    }
}

/// How often what happens: of a thousand units each, together a thousand at most.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Rates {
    /// Units of a thousand that are dropped; needs --level frames
    #[arg(long = "drop", value_name = "PERMILLE", default_value_t = 0)]
    pub drop_permille: u32,
    /// Units of a thousand that arrive twice; needs --level frames
    #[arg(long = "duplicate", value_name = "PERMILLE", default_value_t = 0)]
    pub duplicate_permille: u32,
    /// Units of a thousand that later ones overtake; needs --level frames
    #[arg(long = "reorder", value_name = "PERMILLE", default_value_t = 0)]
    pub reorder_permille: u32,
    /// Frames of a thousand that lose their end, or segments in which the stream is cut
    #[arg(long = "truncate", value_name = "PERMILLE", default_value_t = 0)]
    pub truncate_permille: u32,
    /// Units of a thousand that arrive in pieces
    #[arg(long = "split", value_name = "PERMILLE", default_value_t = 0)]
    pub split_permille: u32,
    /// Units of a thousand that wait, and all behind them
    #[arg(long = "delay", value_name = "PERMILLE", default_value_t = 0)]
    pub delay_permille: u32,
    /// Units of a thousand from which on nothing arrives and nobody is told
    #[arg(long = "half-open", value_name = "PERMILLE", default_value_t = 0)]
    pub half_open_permille: u32,
    /// Units of a thousand in which a bit is flipped
    #[arg(long = "corrupt", value_name = "PERMILLE", default_value_t = 0)]
    pub corrupt_permille: u32,
    /// The longest that a unit waits, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 200)]
    pub delay_ms_max: u64,
    /// How many later units overtake one at most
    #[arg(long, value_name = "UNITS", default_value_t = 3)]
    pub behind_max: u32,
    /// How many units of each connection and direction pass unharmed first
    #[arg(long, value_name = "UNITS", default_value_t = 0)]
    pub spare: u64,
    /// Harm one direction only
    #[arg(long)]
    pub only: Option<Direction>,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            drop_permille: 0,
            duplicate_permille: 0,
            reorder_permille: 0,
            truncate_permille: 0,
            split_permille: 0,
            delay_permille: 0,
            half_open_permille: 0,
            corrupt_permille: 0,
            delay_ms_max: 200,
            behind_max: 3,
            spare: 0,
            only: None,
        }
    }
}

/// Rates that cannot be met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RatesError {
    /// More faults than units.
    #[error("the rates add up to {0} of a thousand: lower them")]
    Sum(u32),
    /// A stream has no units to lose, repeat or reorder.
    #[error("to {0} units the proxy must see frames: add --level frames, or leave it out")]
    NeedsFrames(&'static str),
}

/// Makes a fault of a number that decides the rest, and of the unit's length.
type Shape = fn(&Rates, u64, usize) -> Fault;

impl Rates {
    /// Checks that the faults can happen on this level.
    pub fn check(&self, level: Level) -> Result<(), RatesError> {
        let sum = self.each().map(|(permille, _)| permille).iter().sum();
        if sum > 1_000 {
            return Err(RatesError::Sum(sum));
        }
        let of_frames = [
            ("drop", self.drop_permille),
            ("duplicate", self.duplicate_permille),
            ("reorder", self.reorder_permille),
        ];
        match of_frames.into_iter().find(|(_, permille)| *permille > 0) {
            Some((name, _)) if level == Level::Bytes => Err(RatesError::NeedsFrames(name)),
            _ => Ok(()),
        }
    }

    /// Each rate with what it is of.
    fn each(&self) -> [(u32, Shape); 8] {
        [
            (self.drop_permille, |_, _, _| Fault::Drop),
            (self.duplicate_permille, |_, _, _| Fault::Duplicate),
            (self.reorder_permille, |rates, detail, _| Fault::Reorder {
                behind: 1 + (detail % u64::from(rates.behind_max.max(1))) as u32,
            }),
            (self.truncate_permille, |_, detail, len| Fault::Truncate {
                keep: (detail % len as u64) as usize,
            }),
            (self.split_permille, |_, detail, len| Fault::Split {
                piece: len.div_ceil(2 + (detail % (PIECES_MAX - 1)) as usize),
            }),
            (self.delay_permille, |rates, detail, _| Fault::Delay {
                ms: 1 + detail % rates.delay_ms_max.max(1),
            }),
            (self.half_open_permille, |_, detail, _| Fault::HalfOpen {
                both: detail.is_multiple_of(2),
            }),
            (self.corrupt_permille, |_, detail, len| Fault::Corrupt {
                bit: (detail % (8 * len as u64)) as usize,
            }),
        ]
    }
}

/// The generator of one connection and direction.
pub fn random_of(seed: u64, connection: u64, direction: Direction) -> Random {
    let name = match direction {
        Direction::ToBrain => format!("connection {connection} to brain"),
        Direction::ToDevice => format!("connection {connection} to device"),
    };
    Random::new(seed).fork(&name)
}

/// Decides about unit number `n` of a direction, which has `len` bytes.
///
/// Draws as much from `random` whatever the rates are: those that are raised later leave earlier
/// decisions as they were.
pub fn decide(
    random: &mut Random,
    direction: Direction,
    n: u64,
    len: usize,
    rates: &Rates,
) -> Fault {
    let (roll, detail) = (random.below(1_000) as u32, random.next_u64());
    let spared = n < rates.spare || rates.only.is_some_and(|only| only != direction);
    if spared || len == 0 {
        return Fault::None;
    }
    let mut upto = 0;
    for (permille, fault) in rates.each() {
        upto += permille;
        if roll < upto {
            return fault(rates, detail, len);
        }
    }
    Fault::None
}

/// How long the next segment of a byte stream is.
pub fn segment_bytes(random: &mut Random) -> usize {
    random.within(&SEGMENT_BYTES) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates() -> Rates {
        Rates {
            drop_permille: 100,
            duplicate_permille: 100,
            reorder_permille: 100,
            truncate_permille: 100,
            split_permille: 100,
            delay_permille: 100,
            half_open_permille: 100,
            corrupt_permille: 100,
            ..Rates::default()
        }
    }

    fn decisions(seed: u64, connection: u64, direction: Direction) -> Vec<Fault> {
        let mut random = random_of(seed, connection, direction);
        (0..500).map(|n| decide(&mut random, direction, n, 100, &rates())).collect()
    }

    #[test]
    fn a_seed_decides_each_connection_and_direction_on_its_own() {
        use Direction::{ToBrain, ToDevice};
        let first = decisions(1, 1, ToBrain);
        assert_eq!(decisions(1, 1, ToBrain), first);
        for other in [decisions(2, 1, ToBrain), decisions(1, 2, ToBrain), decisions(1, 1, ToDevice)]
        {
            assert_ne!(other, first);
        }
    }

    #[test]
    fn every_fault_happens_as_often_as_asked_and_within_its_unit() {
        let mut random = Random::new(1);
        let mut counts = std::collections::BTreeMap::<_, u32>::new();
        for n in 0..100_000 {
            let fault = decide(&mut random, Direction::ToBrain, n, 10, &rates());
            *counts.entry(fault.name()).or_default() += 1;
            match fault {
                Fault::Truncate { keep } => assert!(keep < 10),
                Fault::Split { piece } => assert!((1..10).contains(&piece)),
                Fault::Corrupt { bit } => assert!(bit < 80),
                Fault::Delay { ms } => assert!((1..=200).contains(&ms)),
                Fault::Reorder { behind } => assert!((1..=3).contains(&behind)),
                _ => {}
            }
        }
        assert_eq!(counts.len(), 9);
        for (name, count) in counts {
            let expected = if name == "passed" { 20_000 } else { 10_000 };
            assert!(count.abs_diff(expected) < 500, "{name}: {count}");
        }
    }

    #[test]
    fn the_first_units_and_the_other_direction_are_spared() {
        let rates = Rates { drop_permille: 1_000, spare: 3, ..Rates::default() };
        let of = |direction, rates: &Rates| -> Vec<_> {
            let mut random = Random::new(1);
            (0..5).map(|n| decide(&mut random, direction, n, 1, rates)).collect()
        };
        use Fault::{Drop, None};
        assert_eq!(of(Direction::ToBrain, &rates), [None, None, None, Drop, Drop]);
        let rates = Rates { only: Some(Direction::ToDevice), ..rates };
        assert_eq!(of(Direction::ToBrain, &rates), [None; 5]);
        assert_eq!(of(Direction::ToDevice, &rates), [None, None, None, Drop, Drop]);
    }

    #[test]
    fn rates_that_cannot_be_met_are_refused() {
        let all = Rates { drop_permille: 600, split_permille: 500, ..Rates::default() };
        assert_eq!(all.check(Level::Frames), Err(RatesError::Sum(1_100)));
        assert_eq!(rates().check(Level::Frames), Ok(()));
        assert_eq!(rates().check(Level::Bytes), Err(RatesError::NeedsFrames("drop")));
        let bytes = Rates { truncate_permille: 5, ..Rates::default() };
        assert_eq!(bytes.check(Level::Bytes), Ok(()));
    }

    #[test]
    fn one_byte_can_be_cut_and_split() {
        let mut random = Random::new(1);
        let rates = Rates { truncate_permille: 500, split_permille: 500, ..Rates::default() };
        for n in 0..100 {
            let fault = decide(&mut random, Direction::ToBrain, n, 1, &rates);
            assert!(matches!(fault, Fault::Truncate { keep: 0 } | Fault::Split { piece: 1 }));
        }
        assert_eq!(decide(&mut random, Direction::ToBrain, 0, 0, &rates), Fault::None);
    }
}
