//! One direction of one connection, without I/O: bytes in, steps out.

mod frames;
mod segments;

use std::time::Duration;

use sim::random::Random;

use super::plan::{Direction, Fault, Rates, decide, random_of};
use super::{Event, Level};

use frames::Frames;
use segments::Segments;

/// How long the parts of a unit are apart that is delivered in pieces.
const PIECE_PAUSE: Duration = Duration::from_millis(1);

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Pass these bytes on.
    Send(Vec<u8>),
    /// Wait.
    Pause(Duration),
    /// Pass nothing on any more in this direction, or in both.
    FallSilent {
        /// In both.
        both: bool,
    },
    /// End the connection.
    Cut,
    /// Note what happened.
    Note(Event),
}

/// A direction of a connection.
pub(super) struct Lane {
    source: Source,
    plan: Plan,
}

enum Source {
    Bytes(Segments),
    Frames(Frames),
}

/// What is left of the plan for one direction.
pub(super) struct Plan {
    random: Random,
    rates: Rates,
    connection: u64,
    direction: Direction,
    units: u64,
    harms: bool,
}

impl Lane {
    pub(super) fn new(
        level: Level,
        seed: u64,
        rates: Rates,
        connection: u64,
        direction: Direction,
    ) -> Self {
        let source = match level {
            Level::Bytes => Source::Bytes(Segments::default()),
            Level::Frames => Source::Frames(Frames::new(direction)),
        };
        let random = random_of(seed, connection, direction);
        let plan = Plan { random, rates, connection, direction, units: 0, harms: true };
        Self { source, plan }
    }

    /// What to do about bytes that came. While nothing `harms`, the plan goes on and all passes.
    pub(super) fn feed(&mut self, bytes: &[u8], harms: bool) -> Vec<Step> {
        self.plan.harms = harms;
        match &mut self.source {
            Source::Bytes(segments) => segments.feed(bytes, &mut self.plan),
            Source::Frames(frames) => frames.feed(bytes, &mut self.plan),
        }
    }

    /// Whether a unit waits for others to overtake it.
    pub(super) fn holds(&self) -> bool {
        matches!(&self.source, Source::Frames(frames) if frames.holds())
    }

    /// Passes on what waits: nothing more came that could overtake it.
    pub(super) fn release(&mut self) -> Vec<Step> {
        match &mut self.source {
            Source::Frames(frames) => frames.release(),
            Source::Bytes(_) => Vec::new(),
        }
    }
}

impl Plan {
    /// The next unit: what happens to it, and its number.
    fn next(&mut self, len: usize) -> (Fault, u64) {
        let n = self.units;
        self.units += 1;
        let fault = decide(&mut self.random, self.direction, n, len, &self.rates);
        (if self.harms { fault } else { Fault::None }, n)
    }

    fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    fn note(&self, n: u64, len: usize, fault: Fault) -> Step {
        let Self { connection, direction, .. } = *self;
        Step::Note(Event::Harmed { connection, direction, n, len, fault })
    }

    fn give_up(&self, why: &'static str) -> [Step; 2] {
        let Self { connection, direction, .. } = *self;
        [Step::Note(Event::GaveUp { connection, direction, why }), Step::Cut]
    }
}

/// The steps that deliver a unit in pieces.
fn in_pieces(bytes: &[u8], piece: usize, steps: &mut Vec<Step>) {
    for (n, piece) in bytes.chunks(piece.max(1)).enumerate() {
        if n > 0 {
            steps.push(Step::Pause(PIECE_PAUSE));
        }
        steps.push(Step::Send(piece.to_vec()));
    }
}

fn flip(bytes: &mut [u8], bit: usize) {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}
