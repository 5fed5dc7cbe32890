//! A stream that cannot be read, because it is TLS or anything else.

use std::time::Duration;

use super::super::plan::{Fault, segment_bytes};
use super::{Plan, Step, flip, in_pieces};

/// Where a stream stands in its current segment.
#[derive(Debug)]
pub(super) struct Segments {
    fault: Fault,
    n: u64,
    len: usize,
    /// How many of its bytes have come.
    came: usize,
}

impl Default for Segments {
    fn default() -> Self {
        Self { fault: Fault::None, n: 0, len: 0, came: 0 }
    }
}

impl Segments {
    pub(super) fn feed(&mut self, mut bytes: &[u8], plan: &mut Plan) -> Vec<Step> {
        let mut steps = Vec::new();
        while !bytes.is_empty() {
            if self.came == self.len {
                self.begin(plan, &mut steps);
            }
            let (part, rest) = bytes.split_at(bytes.len().min(self.len - self.came));
            if self.part(part, plan, &mut steps) {
                // What comes later goes nowhere.
                return steps;
            }
            self.came += part.len();
            bytes = rest;
        }
        steps
    }

    fn begin(&mut self, plan: &mut Plan, steps: &mut Vec<Step>) {
        let len = segment_bytes(plan.random());
        let (fault, n) = plan.next(len);
        *self = Self { fault, n, len, came: 0 };
        match fault {
            Fault::Delay { ms } => {
                steps.extend([plan.note(n, len, fault), Step::Pause(Duration::from_millis(ms))]);
            }
            Fault::Split { .. } => steps.push(plan.note(n, len, fault)),
            _ => {}
        }
    }

    /// Deals with bytes of the current segment. Says whether that was the end of the stream.
    fn part(&self, part: &[u8], plan: &Plan, steps: &mut Vec<Step>) -> bool {
        match self.fault {
            Fault::Truncate { keep } if keep < self.came + part.len() => {
                steps.push(Step::Send(part[..keep - self.came].to_vec()));
                steps.extend([plan.note(self.n, self.len, self.fault), Step::Cut]);
                return true;
            }
            Fault::HalfOpen { both } => {
                let note = plan.note(self.n, self.len, self.fault);
                steps.extend([note, Step::FallSilent { both }]);
                return true;
            }
            Fault::Corrupt { bit } if (self.came..self.came + part.len()).contains(&(bit / 8)) => {
                let mut part = part.to_vec();
                flip(&mut part, bit - 8 * self.came);
                steps.extend([plan.note(self.n, self.len, self.fault), Step::Send(part)]);
            }
            Fault::Split { piece } => in_pieces(part, piece, steps),
            _ => steps.push(Step::Send(part.to_vec())),
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::plan::{Direction, Rates};
    use super::super::super::{Event, Level};
    use super::super::{Lane, Step};

    fn lane(rates: Rates) -> Lane {
        Lane::new(Level::Bytes, 7, rates, 1, Direction::ToBrain)
    }

    fn sent(steps: &[Step]) -> Vec<u8> {
        let sent = steps.iter().filter_map(|step| match step {
            Step::Send(bytes) => Some(bytes.clone()),
            _ => None,
        });
        sent.flatten().collect()
    }

    fn notes(steps: &[Step]) -> Vec<Event> {
        let notes = steps.iter().filter_map(|step| match step {
            Step::Note(event) => Some(event.clone()),
            _ => None,
        });
        notes.collect()
    }

    fn text() -> Vec<u8> {
        (0..50_000u32).flat_map(u32::to_be_bytes).collect()
    }

    #[test]
    fn decisions_do_not_depend_on_how_the_bytes_come() {
        let rates = || Rates {
            split_permille: 200,
            delay_permille: 200,
            corrupt_permille: 200,
            ..Rates::default()
        };
        let text = text();
        let at_once = lane(rates()).feed(&text, true);
        let (mut lane, mut steps) = (lane(rates()), Vec::new());
        let mut rest = &text[..];
        for length in (1..).map(|n| 1 + n * 37 % 900) {
            let (part, after) = rest.split_at(length.min(rest.len()));
            steps.extend(lane.feed(part, true));
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(sent(&steps), sent(&at_once));
        assert_eq!(notes(&steps), notes(&at_once));
        assert!(notes(&steps).len() > 100);
        assert_ne!(sent(&steps), text, "bits were flipped");
    }

    #[test]
    fn a_cut_stream_ends_inside_and_a_silent_one_says_no_more() {
        let text = text();
        let cut = lane(Rates { truncate_permille: 50, ..Rates::default() }).feed(&text, true);
        assert_eq!(cut.last(), Some(&Step::Cut));
        let arrived = sent(&cut);
        assert!(arrived.len() < text.len() && text.starts_with(&arrived));
        let silent = lane(Rates { half_open_permille: 50, ..Rates::default() }).feed(&text, true);
        assert!(matches!(silent.last(), Some(Step::FallSilent { .. })));
        assert!(text.starts_with(&sent(&silent)));
    }

    #[test]
    fn a_healed_stream_is_left_as_it_is() {
        let mut lane = lane(Rates { corrupt_permille: 1_000, ..Rates::default() });
        let text = text();
        let steps = lane.feed(&text, false);
        assert_eq!((sent(&steps), notes(&steps)), (text, Vec::new()));
    }
}
