//! The handshake with somebody in between who holds no key.
//!
//! A device and a brain each run their real session; the script delivers, changes, drops, repeats,
//! reflects and forges frames between them, and lets the two ends of a connection differ. Nobody
//! may come through who was not there, and nothing of the exchange may begin before.

#![no_main]

use std::collections::VecDeque;

use fuzz::script::{Script, ScriptWriter};
use fuzz::{fleet, memory, must, seeds};
use libfuzzer_sys::fuzz_target;
use protocol::codec::CODEC_ID;
use protocol::session::handshake::HANDSHAKE_FRAME_BYTES_MAX;
use protocol::session::{Input, Output, Session};
use protocol::wire::{self, HEADER_BYTES, VERSION_MAX};
use protocol::{ErrorCode, session};

const HELD_BYTES_MAX: usize = 4 << 20;
const STEPS_MAX: usize = 64;

fuzz_target!(init: seeds::write(seeds), |input: &[u8]| {
    memory::bounded(HELD_BYTES_MAX, || run(Script::new(input)));
});

/// One end: its session, what it said, and what it was told.
struct End {
    session: Session,
    sent: Vec<Vec<u8>>,
    /// What it said and nobody was told yet.
    outbox: VecDeque<Vec<u8>>,
    told: Vec<Vec<u8>>,
    /// The shell has a request to decide.
    asked: bool,
    closed: bool,
}

impl End {
    fn new(session: Session) -> Self {
        let (sent, told) = (Vec::new(), Vec::new());
        Self { session, sent, outbox: VecDeque::new(), told, asked: false, closed: false }
    }
}

struct World {
    device: End,
    brain: End,
    enrols: bool,
    same_connection: bool,
    now_ms: u64,
}

fn run(mut script: Script<'_>) {
    let setting = script.byte();
    let (enrols, same_connection) = (setting & 1 == 1, setting & 2 == 0);
    let mut world = World {
        device: End::new(Session::caller(fleet::caller(enrols, 1))),
        brain: End::new(Session::answerer(fleet::answerer(if same_connection { 1 } else { 2 }))),
        enrols,
        same_connection,
        now_ms: 0,
    };
    world.feed(true, Input::Connected);
    for _ in 0..STEPS_MAX {
        if script.is_over() || world.is_over() {
            break;
        }
        world.step(&mut script);
    }
}

impl World {
    fn is_over(&self) -> bool {
        self.device.closed && self.brain.closed
            || self.device.session.is_established() && self.brain.session.is_established()
    }

    fn end(&mut self, device: bool) -> &mut End {
        if device { &mut self.device } else { &mut self.brain }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let what = script.byte();
        let to_device = what & 0x80 != 0;
        let next = self.end(!to_device).outbox.front().cloned();
        let frame = match (what & 0x7F) % 10 {
            0..=2 => self.end(!to_device).outbox.pop_front(),
            3 => {
                let mut frame = self.end(!to_device).outbox.pop_front();
                if let Some(frame) = frame.as_mut() {
                    let (at, flips) = (usize::from(script.short()), script.byte());
                    let at = at % frame.len();
                    frame[at] ^= flips;
                }
                frame
            }
            4 => {
                self.end(!to_device).outbox.pop_front();
                None
            }
            5 => next,
            6 => self.end(to_device).sent.last().cloned(),
            7 => Some(script.bytes().to_vec()),
            8 => {
                let mut frame = vec![VERSION_MAX, CODEC_ID, script.byte(), script.byte() % 4];
                frame.extend_from_slice(script.bytes());
                Some(frame)
            }
            _ => {
                self.shell(to_device, script);
                None
            }
        };
        if let Some(frame) = frame {
            self.end(to_device).told.push(frame.clone());
            self.feed(to_device, Input::Frame(&frame));
        }
    }

    /// The shell of one end says something, perhaps out of turn.
    fn shell(&mut self, device: bool, script: &mut Script<'_>) {
        let replica = session::Replica {
            tree: fleet::genesis().tree_id(),
            logs: Vec::new(),
            floor: protocol::history::VersionVector::default(),
            ends: Vec::new(),
            author: fleet::key(2).public(),
        };
        let in_turn = self.end(device).asked;
        let before = self.end(device).session.is_established();
        match script.below(7) {
            0 => self.feed(device, Input::Authorised { connection: 1, replica }),
            6 => self.feed(device, Input::Admitted { connection: 1 }),
            1 => self.feed(device, Input::EnrolmentGranted(Box::new(fleet::enrolled()))),
            2 => {
                let error = session::error(ErrorCode::Forbidden, "decide", "no");
                self.feed(device, Input::Denied(error));
            }
            3 => {
                self.now_ms += script.number() % 100_000;
                self.feed(device, Input::Tick);
            }
            4 => self.feed(device, Input::Connected),
            _ => {
                let error = session::error(ErrorCode::GoingAway, "stop", "going");
                self.feed(device, Input::Close { error, retry_after_ms: Some(1) });
            }
        }
        let now = self.end(device).session.is_established();
        assert!(before == now || in_turn, "the shell's word alone establishes nothing");
    }

    fn feed(&mut self, device: bool, input: Input<'_>) {
        let now = fleet::at(self.now_ms);
        let end = self.end(device);
        let (was_established, was_closed) = (end.session.is_established(), end.closed);
        let outputs = end.session.handle(input, now);
        assert!(outputs.is_empty() || !was_closed, "a closed session says nothing");
        let established = end.session.is_established();
        for output in outputs {
            self.check(device, output, was_established || established);
        }
    }

    fn check(&mut self, device: bool, output: Output, established: bool) {
        match output {
            Output::Send(frame) => {
                let message = must(wire::decode(&frame), "what a session sends decodes");
                assert!(
                    established || frame.len() <= HANDSHAKE_FRAME_BYTES_MAX,
                    "{message:?} is longer than the other side takes"
                );
                let end = self.end(device);
                end.sent.push(frame.clone());
                end.outbox.push_back(frame);
            }
            Output::Authorise(_) | Output::Enrol(..) => {
                assert!(!device, "a device decides about nobody");
                assert_eq!(matches!(output, Output::Enrol(..)), self.enrols);
                assert!(self.same_connection, "a proof holds on its own connection only");
                // The caller's hello came through unchanged, and the caller has sent its proof.
                let hello = self.device.sent.first();
                assert!(hello.is_some_and(|hello| self.brain.told.contains(hello)));
                assert!(self.device.sent.len() >= 2, "nobody proves itself for another");
                self.brain.asked = true;
            }
            Output::Welcomed { .. } | Output::Enrolled(_) => {
                assert!(device, "a brain is welcomed by nobody");
                assert!(self.same_connection, "a proof holds on its own connection only");
                let reply = self.brain.sent.first();
                assert!(reply.is_some_and(|reply| self.device.told.contains(reply)));
                assert!(self.brain.sent.len() >= 2, "nobody proves itself for another");
            }
            Output::Closed(ended) => {
                assert!(!ended.error.message.is_empty());
                self.end(device).closed = true;
            }
            other => assert!(established, "{other:?} before both are known"),
        }
    }
}

fn seeds() -> Vec<seeds::Seed> {
    // Hello to the brain, reply and proof to the device, proof to the brain, its decision, and
    // the welcome to the device.
    let honest = [0x00, 0x80, 0x80, 0x00];
    let mut all = Vec::new();
    for setting in 0..4u8 {
        let decision = setting & 1;
        let mut script = ScriptWriter::default().byte(setting);
        for (at, step) in honest.into_iter().enumerate() {
            let damaged = script.clone().byte(step | 3).byte(0).byte(HEADER_BYTES as u8).byte(1);
            all.push((format!("damaged_{setting}_{at}"), damaged.finish()));
            script = script.byte(step);
        }
        script = script.byte(9).byte(decision).byte(0x80).byte(0x80).byte(0x00);
        all.push((format!("honest_{setting}"), script.finish()));
    }
    for (name, frame) in seeds::frames().into_iter().filter(|(_, frame)| frame.len() < 2_000) {
        let script = ScriptWriter::default().byte(0).byte(0).byte(0x87).bytes(&frame);
        all.push((format!("forged_{name}"), script.byte(7).bytes(&frame).finish()));
    }
    all
}
