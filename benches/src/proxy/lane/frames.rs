//! A stream of WebSocket frames in plain text (RFC 6455), after its HTTP upgrade.
//!
//! Frames stay under the mask under which their sender put them: a mask is XOR, so a frame that
//! loses its end or has a bit flipped is still unmasked to what it should be. Only whole binary
//! messages are harmed; what belongs to the connection itself passes.

use std::io::Cursor;
use std::time::Duration;

use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::super::plan::{Direction, Fault};
use super::{Plan, Step, flip, in_pieces};

/// The longest HTTP head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The longest frame: more than any that the product takes.
const FRAME_BYTES_MAX: u64 = 1 << 20;
/// How many bytes of frames wait to be overtaken. With more of them, frames keep their order.
const HELD_BYTES_MAX: usize = 256 << 10;

/// Where a stream stands.
pub(super) struct Frames {
    stage: Stage,
    /// What came of the head or frame that is not complete.
    unread: Vec<u8>,
    held: Vec<Held>,
    held_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Request,
    Response,
    Frames,
    /// The upgrade was refused: what follows is the reason.
    Refused,
}

/// A frame that others overtake.
struct Held {
    bytes: Vec<u8>,
    behind: u32,
}

impl Frames {
    pub(super) fn new(direction: Direction) -> Self {
        let stage = match direction {
            Direction::ToBrain => Stage::Request,
            Direction::ToDevice => Stage::Response,
        };
        Self { stage, unread: Vec::new(), held: Vec::new(), held_bytes: 0 }
    }

    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    pub(super) fn release(&mut self) -> Vec<Step> {
        self.held_bytes = 0;
        self.held.drain(..).map(|held| Step::Send(held.bytes)).collect()
    }

    pub(super) fn feed(&mut self, bytes: &[u8], plan: &mut Plan) -> Vec<Step> {
        let mut steps = Vec::new();
        self.unread.extend_from_slice(bytes);
        loop {
            let taken = match self.stage {
                Stage::Request | Stage::Response => self.head(plan, &mut steps),
                Stage::Frames => self.frame(plan, &mut steps),
                Stage::Refused => {
                    steps.push(Step::Send(std::mem::take(&mut self.unread)));
                    false
                }
            };
            if !taken {
                return steps;
            }
        }
    }

    /// Takes the HTTP head, if all of it is here.
    fn head(&mut self, plan: &Plan, steps: &mut Vec<Step>) -> bool {
        let begins: &[u8] = if self.stage == Stage::Request { b"GET " } else { b"HTTP/1.1 " };
        let compared = begins.len().min(self.unread.len());
        if self.unread[..compared] != begins[..compared] {
            steps.extend(plan.give_up("this is no HTTP: frames are only seen in plain text"));
            return false;
        }
        let end = self.unread.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end.map(|end| end + 4) else {
            if self.unread.len() > HEAD_BYTES_MAX {
                steps.extend(plan.give_up("the HTTP head is too long"));
            }
            return false;
        };
        let refused = self.stage == Stage::Response && !self.unread.starts_with(b"HTTP/1.1 101 ");
        self.stage = if refused { Stage::Refused } else { Stage::Frames };
        steps.push(Step::Send(self.unread.drain(..end).collect()));
        true
    }

    /// Takes a frame, if all of it is here.
    fn frame(&mut self, plan: &mut Plan, steps: &mut Vec<Step>) -> bool {
        let mut cursor = Cursor::new(&self.unread);
        let (header, payload_bytes) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return false,
            Err(_) => {
                steps.extend(plan.give_up("this is no WebSocket frame"));
                return false;
            }
        };
        if payload_bytes > FRAME_BYTES_MAX {
            steps.extend(plan.give_up("the frame is too long"));
            return false;
        }
        let payload_at = cursor.position() as usize;
        let end = payload_at + payload_bytes as usize;
        if self.unread.len() < end {
            return false;
        }
        let mut frame: Vec<u8> = self.unread.drain(..end).collect();
        if header.is_final && header.opcode == OpCode::Data(Data::Binary) {
            let payload = frame.split_off(payload_at);
            self.harm(&header, frame, payload, plan, steps)
        } else {
            steps.push(Step::Send(frame));
            true
        }
    }

    /// Deals with a whole message. Says whether the stream goes on.
    fn harm(
        &mut self,
        header: &FrameHeader,
        mut frame: Vec<u8>,
        mut payload: Vec<u8>,
        plan: &mut Plan,
        steps: &mut Vec<Step>,
    ) -> bool {
        let len = payload.len();
        let (fault, n) = plan.next(len);
        let fault = match fault {
            // No room to wait in: the frame keeps its place.
            Fault::Reorder { .. } if self.held_bytes + len > HELD_BYTES_MAX => Fault::None,
            fault => fault,
        };
        if fault != Fault::None {
            steps.push(plan.note(n, len, fault));
        }
        match fault {
            Fault::Truncate { keep } => {
                payload.truncate(keep);
                frame = with_length(header, keep);
            }
            Fault::Corrupt { bit } => flip(&mut payload, bit),
            Fault::Delay { ms } => steps.push(Step::Pause(Duration::from_millis(ms))),
            Fault::HalfOpen { both } => {
                steps.push(Step::FallSilent { both });
                return false;
            }
            _ => {}
        }
        frame.append(&mut payload);
        match fault {
            Fault::Drop => {}
            Fault::Reorder { behind } => {
                self.held_bytes += len;
                self.held.push(Held { bytes: frame, behind });
                // It does not overtake itself.
                return true;
            }
            Fault::Duplicate => steps.extend([Step::Send(frame.clone()), Step::Send(frame)]),
            Fault::Split { piece } => in_pieces(&frame, piece, steps),
            _ => steps.push(Step::Send(frame)),
        }
        self.overtaken(steps);
        true
    }

    /// A frame has passed all that wait: some of them have waited enough.
    fn overtaken(&mut self, steps: &mut Vec<Step>) {
        for held in &mut self.held {
            held.behind = held.behind.saturating_sub(1);
        }
        let (due, waiting): (Vec<_>, _) = self.held.drain(..).partition(|held| held.behind == 0);
        self.held = waiting;
        self.held_bytes = self.held.iter().map(|held| held.bytes.len()).sum();
        steps.extend(due.into_iter().map(|held| Step::Send(held.bytes)));
    }
}

/// The bytes of a header whose payload has another length.
fn with_length(header: &FrameHeader, payload_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(header.len(payload_bytes as u64));
    header.format(payload_bytes as u64, &mut bytes).expect("a vector takes all that is written");
    bytes
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;

    use super::super::super::plan::{Direction, Fault, Rates};
    use super::super::super::{Event, Level};
    use super::super::{Lane, Step};
    use super::*;

    const HEAD: &[u8] = b"GET /v1/link HTTP/1.1\r\nHost: x\r\n\r\n";

    fn lane(rates: Rates) -> Lane {
        Lane::new(Level::Frames, 7, rates, 1, Direction::ToBrain)
    }

    /// Frames as a client sends them: each under a mask of its own.
    fn masked(payload: &[u8]) -> Vec<u8> {
        let mut header =
            Frame::message(Vec::new(), OpCode::Data(Data::Binary), true).header().clone();
        let mask = [7, payload.len() as u8, 9, 200];
        header.mask = Some(mask);
        let mut bytes = with_length(&header, payload.len());
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// The payloads in a stream, unmasked.
    fn payloads(mut stream: &[u8]) -> Vec<Vec<u8>> {
        let mut payloads = Vec::new();
        while !stream.is_empty() {
            let mut cursor = Cursor::new(stream);
            let (header, length) =
                FrameHeader::parse(&mut cursor).expect("a header").expect("all of it");
            let (at, mask) = (cursor.position() as usize, header.mask.unwrap_or_default());
            let end = at + length as usize;
            let payload = stream[at..end].iter().zip(mask.iter().cycle());
            payloads.push(payload.map(|(byte, mask)| byte ^ mask).collect());
            stream = &stream[end..];
        }
        payloads
    }

    fn sent(steps: &[Step]) -> Vec<u8> {
        let sent = steps.iter().filter_map(|step| match step {
            Step::Send(bytes) => Some(bytes.clone()),
            _ => None,
        });
        sent.flatten().collect()
    }

    fn faults(steps: &[Step]) -> Vec<(u64, Fault)> {
        let faults = steps.iter().filter_map(|step| match step {
            Step::Note(Event::Harmed { n, fault, .. }) => Some((*n, *fault)),
            _ => None,
        });
        faults.collect()
    }

    fn message(n: u16) -> Vec<u8> {
        // Short ones, and ones whose length takes two more bytes of header.
        n.to_be_bytes().repeat(1 + usize::from(n) % 3 * 50)
    }

    fn stream(count: u16) -> Vec<u8> {
        let mut stream = HEAD.to_vec();
        (0..count).for_each(|n| stream.extend(masked(&message(n))));
        stream
    }

    /// Feeds a stream in odd parts; gives back the steps and the payloads that arrive.
    fn run(rates: Rates, count: u16) -> (Vec<Step>, Vec<Vec<u8>>) {
        let mut lane = lane(rates);
        let mut steps = Vec::new();
        for part in stream(count).chunks(61) {
            steps.extend(lane.feed(part, true));
        }
        steps.extend(lane.release());
        let bytes = sent(&steps);
        let frames = bytes.strip_prefix(HEAD).expect("the upgrade passes");
        let arrived = payloads(frames);
        (steps, arrived)
    }

    #[test]
    fn without_faults_every_byte_passes() {
        let (steps, _) = run(Rates::default(), 100);
        assert_eq!(sent(&steps), stream(100));
    }

    #[test]
    fn dropped_and_repeated_frames_are_those_that_are_noted() {
        let rates = Rates { drop_permille: 300, duplicate_permille: 300, ..Rates::default() };
        let (steps, arrived) = run(rates, 300);
        let mut expected: Vec<_> = (0..300).map(|n| vec![message(n)]).collect();
        for (n, fault) in faults(&steps) {
            match fault {
                Fault::Drop => expected[n as usize].clear(),
                _ => expected[n as usize].push(message(n as u16)),
            }
        }
        assert!(faults(&steps).len() > 100);
        assert_eq!(arrived, expected.concat());
    }

    #[test]
    fn overtaken_frames_arrive_late_and_none_is_lost() {
        let (steps, mut arrived) = run(Rates { reorder_permille: 300, ..Rates::default() }, 300);
        let in_order: Vec<_> = (0..300).map(message).collect();
        assert!(faults(&steps).len() > 50);
        assert_ne!(arrived, in_order);
        let place =
            |arrived: &Vec<Vec<u8>>, n| arrived.iter().position(|other| *other == message(n));
        let (first, Fault::Reorder { behind }) = faults(&steps)[0] else { panic!("a reorder") };
        let moved = place(&arrived, first as u16).expect("arrives") as u64 - first;
        assert!(moved >= u64::from(behind), "{moved} places");
        arrived.sort();
        let mut sorted = in_order;
        sorted.sort();
        assert_eq!(arrived, sorted);
    }

    #[test]
    fn a_shortened_frame_is_a_shorter_message_under_the_same_mask() {
        let (steps, arrived) = run(Rates { truncate_permille: 500, ..Rates::default() }, 200);
        let mut expected: Vec<_> = (0..200).map(message).collect();
        for (n, fault) in faults(&steps) {
            let Fault::Truncate { keep } = fault else { panic!("{fault:?}") };
            expected[n as usize].truncate(keep);
        }
        assert_eq!(arrived, expected);
    }

    #[test]
    fn a_flipped_bit_is_flipped_below_the_mask() {
        let (steps, arrived) = run(Rates { corrupt_permille: 500, ..Rates::default() }, 200);
        let mut expected: Vec<_> = (0..200).map(message).collect();
        for (n, fault) in faults(&steps) {
            let Fault::Corrupt { bit } = fault else { panic!("{fault:?}") };
            flip(&mut expected[n as usize], bit);
        }
        assert_eq!(arrived, expected);
    }

    #[test]
    fn frames_that_wait_take_bounded_memory() {
        let rates = Rates { reorder_permille: 1_000, behind_max: 1_000_000, ..Rates::default() };
        let mut lane = lane(rates);
        lane.feed(HEAD, true);
        let (big, mut held) = (masked(&[1; 60_000]), 0);
        for _ in 0..100 {
            held += big.len();
            held -= sent(&lane.feed(&big, true)).len();
            assert!(held <= HELD_BYTES_MAX + big.len(), "{held}");
        }
        assert!(held > HELD_BYTES_MAX / 2);
    }

    #[test]
    fn pings_and_text_pass_and_are_not_counted() {
        let mut lane = lane(Rates { drop_permille: 1_000, ..Rates::default() });
        let others: Vec<u8> = [&[0x89, 2, 1, 2][..], &[0x81, 1, b'x'], &[0x88, 0]].concat();
        let steps = lane.feed(&[HEAD, &others].concat(), true);
        assert_eq!(sent(&steps), [HEAD, &others].concat());
        assert_eq!(faults(&steps), []);
    }

    #[test]
    fn what_is_no_web_socket_is_cut_and_a_refused_upgrade_passes() {
        for nothing in [&b"\x16\x03\x01\x02\x00"[..], &[HEAD, &[0x83, 0]].concat()] {
            let steps = lane(Rates::default()).feed(nothing, true);
            assert_eq!(steps.last(), Some(&Step::Cut), "{nothing:?}");
        }
        let long = [&b"GET "[..], &[b'x'; HEAD_BYTES_MAX]].concat();
        assert_eq!(lane(Rates::default()).feed(&long, true).last(), Some(&Step::Cut));
        let refusal = b"HTTP/1.1 401 Unauthorized\r\n\r\nX-API-Key is missing";
        let rates = Rates { drop_permille: 1_000, ..Rates::default() };
        let mut lane = Lane::new(Level::Frames, 7, rates, 1, Direction::ToDevice);
        assert_eq!(sent(&lane.feed(refusal, true)), refusal);
    }
}
