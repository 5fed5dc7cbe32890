//! What a device that proved its key can do to a brain: entries, heads, cuts, acknowledgements
//! and anything else, against the real session and the real twin.
//!
//! Whatever comes, the twin's record and its commits restore the same twin, versions count
//! without gaps, and what the brain sends decodes.

#![no_main]

use std::collections::{BTreeMap, VecDeque};

use actors::device::{BrainAuthor, CutAnswer, Twin};
use actors::ports::{LoadedTree, Segment, TreeCommit, TreeRecord};
use fuzz::fleet::{self, DEVICE, genesis, key};
use fuzz::script::{Script, ScriptWriter};
use fuzz::{memory, must, seeds};
use libfuzzer_sys::fuzz_target;
use protocol::codec::{self, CODEC_ID};
use protocol::compress::Compression;
use protocol::history::{Cut, CutCause, Entry, Head, Leaf, LogId, Provenance, SignedHead};
use protocol::session::{Input, Output, Session, error};
use protocol::state::{Path, StateSource};
use protocol::wire::{self, Ack, Batch, Heads, LogPosition, Message, Refuse, VERSION_MAX};
use protocol::{EntryId, ErrorCode};

/// A session, a twin and what a store keeps of it, for at most so many frames.
const HELD_BYTES_MAX: usize = 32 << 20;
const STEPS_MAX: usize = 48;
/// One input must not make the brain talk without end.
const SENT_BYTES_MAX: usize = 4 << 20;

fuzz_target!(init: seeds::write(seeds), |input: &[u8]| {
    memory::bounded(HELD_BYTES_MAX, || run(Script::new(input)));
});

struct Brain {
    session: Session,
    twin: Twin,
    /// What the store holds: the row, the leaves, and the entries by log.
    record: TreeRecord,
    leaves: BTreeMap<Path, Leaf>,
    entries: BTreeMap<LogId, Vec<Entry>>,
    sent_bytes: usize,
    over: bool,
    now_ms: u64,
}

fn run(mut script: Script<'_>) {
    let mut brain = Brain::connected();
    for _ in 0..STEPS_MAX {
        if script.is_over() || brain.over {
            break;
        }
        brain.step(&mut script);
    }
    let again = twin(brain.record.clone(), brain.leaves.clone());
    assert_eq!(again.tree(), brain.twin.tree(), "the store restores the twin");
    assert_eq!(again.version(), brain.twin.version());
    assert_eq!(again.tree().root(), brain.twin.tree().root());
}

fn twin(record: TreeRecord, leaves: BTreeMap<Path, Leaf>) -> Twin {
    let brain = BrainAuthor { keypair: key(2), epoch: 9, brains: [key(2).public()].into() };
    let loaded = LoadedTree { number: 1, generation: 1, record, leaves, base: None };
    Twin::new(DEVICE, vec![key(3).public()], brain, loaded)
}

impl Brain {
    /// A brain whose device has just shaken hands.
    fn connected() -> Self {
        let record = TreeRecord::new(genesis());
        let mut brain = Self {
            session: Session::answerer(fleet::answerer(1)),
            twin: twin(record.clone(), BTreeMap::new()),
            record,
            leaves: BTreeMap::new(),
            entries: BTreeMap::new(),
            sent_bytes: 0,
            over: false,
            now_ms: 0,
        };
        let mut device = Session::caller(fleet::caller(false, 1));
        let mut to_brain: VecDeque<Vec<u8>> = VecDeque::new();
        let said = |outputs: Vec<Output>| {
            outputs.into_iter().filter_map(|output| match output {
                Output::Send(frame) => Some(frame),
                _ => None,
            })
        };
        to_brain.extend(said(device.handle(Input::Connected, fleet::at(0))));
        while let Some(frame) = to_brain.pop_front() {
            for output in brain.session.handle(Input::Frame(&frame), fleet::at(0)) {
                match output {
                    Output::Send(frame) => {
                        to_brain.extend(said(device.handle(Input::Frame(&frame), fleet::at(0))));
                    }
                    Output::Authorise(_) => {
                        let replica = brain.twin.replica();
                        let granted = Input::Authorised { connection: 1, replica };
                        brain.session.handle(granted, fleet::at(0));
                    }
                    other => panic!("an honest handshake ends in {other:?}"),
                }
            }
        }
        assert!(brain.session.is_established());
        brain
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let tree = genesis().tree_id();
        let what = script.below(12);
        let log = LogId { author: key(3).public(), epoch: 1 + u64::from(script.byte() % 2) };
        let message = match what {
            0 => {
                let logs = (0..script.below(5)).map(|_| self.position(script, log)).collect();
                Message::Heads(Heads { tree, logs })
            }
            1..=3 => match self.some_entries(script, log) {
                Some(batch) => Message::Entries(batch),
                None => return,
            },
            4 => {
                let LogPosition { seq, id, .. } = self.position(script, log);
                Message::SignedHead(SignedHead::sign(&key(3), Head { tree, log, seq, id }))
            }
            5 => {
                let LogPosition { seq, id, .. } = self.position(script, log);
                let sealed = Cut::seal(&key(3), tree, log, seq, id);
                Message::Cut(match script.below(3) {
                    0 => {
                        let head = |n: u8| {
                            let seq = seq.saturating_add(1);
                            let id = EntryId([n; 32]);
                            SignedHead::sign(&key(3), Head { tree, log, seq, id })
                        };
                        let heads = Box::new([head(1), head(2)]);
                        Cut { cause: CutCause::Equivocation { heads }, ..sealed }
                    }
                    _ => sealed,
                })
            }
            6 => {
                let LogPosition { log, seq, sealed, .. } = self.position(script, log);
                let credit_bytes = script.number() as u32;
                Message::Ack(Ack { tree, log, stored: seq, sealed, credit_bytes })
            }
            7 => {
                let LogPosition { log, seq, .. } = self.position(script, log);
                let error = error(ErrorCode::ClockAhead, "take", script.text());
                let (now_ms, credit_bytes) = (script.number(), script.number() as u32);
                Message::Refuse(Refuse { tree, log, seq, error, now_ms, credit_bytes })
            }
            8 => {
                let mut frame = vec![VERSION_MAX, CODEC_ID, script.byte(), script.byte() % 4];
                frame.extend_from_slice(script.bytes());
                return self.feed(Input::Frame(&frame));
            }
            9 => return self.write(script),
            10 => {
                self.now_ms += script.number() % 60_000;
                return self.feed(Input::Tick);
            }
            _ => return self.seal(),
        };
        let wanted = [Compression::None, Compression::Gzip, Compression::Zstd][script.below(3)];
        let frame = wire::encode(&message, VERSION_MAX, wanted);
        self.feed(Input::Frame(&frame));
    }

    /// Where a log stands, or something near it.
    fn position(&self, script: &mut Script<'_>, log: LogId) -> LogPosition {
        let own = LogId { author: key(2).public(), epoch: 9 };
        let log = if script.byte() & 1 == 1 { own } else { log };
        let mut position = LogPosition::of(self.twin.tree(), log);
        match script.below(4) {
            0 => position.seq = script.number(),
            1 => position.seq = position.seq.wrapping_add(1),
            2 => position.id = EntryId([script.byte(); 32]),
            _ => {}
        }
        if script.byte() & 1 == 1 {
            position.sealed = script.number();
        }
        position
    }

    /// Entries that follow what is there, more or less.
    fn some_entries(&self, script: &mut Script<'_>, log: LogId) -> Option<Batch> {
        let known = self.twin.tree().log(&log);
        let (mut seq, mut prev) = known.map_or((0, Entry::NO_PREV), |log| (log.seq, log.head));
        let mut wall_ms = known.map_or(fleet::BASE_MS, |log| log.hlc.wall_ms);
        if script.below(16) == 15 {
            seq = script.number();
        }
        let mut entries = Vec::new();
        for _ in 0..=script.below(6) {
            seq = seq.checked_add(1)?;
            wall_ms += 1;
            let mut entry = fleet::entry(script, log, seq, prev);
            entry.hlc.wall_ms = wall_ms;
            if script.below(8) != 7 {
                entry.seen = self.twin.tree().vector();
                entry.seen.remove(&log);
            }
            prev = entry.id();
            entries.push(entry);
        }
        Batch::pack(&entries).ok()
    }

    /// An operator writes.
    fn write(&mut self, script: &mut Script<'_>) {
        let mut changes = Vec::new();
        for _ in 0..script.below(4) {
            let value = (script.byte() & 3 != 3).then(|| fleet::value(script));
            if let Some(path) = fleet::path(script) {
                changes.push((path, value));
            }
        }
        let provenance = Provenance::new(StateSource::Operator, "user:ada", &script.text());
        let now = fleet::at(self.now_ms);
        if let Ok(Some(written)) = self.twin.write(changes, provenance, now) {
            let (log, position) = (written.position.log, written.position);
            self.keep(written.commit);
            self.feed(Input::Stored { log, position, consumed_bytes: 0 });
        }
    }

    fn seal(&mut self) {
        if let Some((commit, signed, position)) = self.twin.seal() {
            self.keep(commit);
            let log = position.log;
            self.feed(Input::Sealed(signed));
            self.feed(Input::Stored { log, position, consumed_bytes: 0 });
        }
    }

    fn feed(&mut self, input: Input<'_>) {
        let outputs = self.session.handle(input, fleet::at(self.now_ms));
        for output in outputs {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        let now = fleet::at(self.now_ms);
        match output {
            Output::Send(frame) => {
                must(wire::decode(&frame), "what a brain sends decodes");
                self.sent_bytes += frame.len();
                assert!(self.sent_bytes <= SENT_BYTES_MAX, "the brain talks without end");
            }
            Output::Ingest { log, entries, bytes } => {
                let ingested = self.twin.ingest(entries, now);
                if let Some(commit) = ingested.commit {
                    self.keep(commit);
                }
                let position = ingested.position;
                self.feed(Input::Stored { log, position, consumed_bytes: bytes });
                if let Some((seq, refusal)) = ingested.refused {
                    let error = error(refusal.code(), "ingest", refusal.to_string());
                    let fatal = refusal.is_fatal();
                    self.feed(Input::Refused { log, seq, error, consumed_bytes: 0, fatal });
                }
            }
            Output::TakeSignedHead(signed) => {
                must(signed.verify(), "a signed head is verified before it is given out");
                if let Some((commit, position)) = self.twin.take_signed_head(signed) {
                    self.keep(commit);
                    let log = position.log;
                    self.feed(Input::Stored { log, position, consumed_bytes: 0 });
                }
            }
            Output::TakeCut(cut) => {
                let log = cut.log;
                let commit = match self.twin.take_cut(cut) {
                    CutAnswer::Nothing => None,
                    CutAnswer::Ends(commit) => Some(*commit),
                    CutAnswer::Below(cut) => {
                        let mut refold = self.twin.cut_below(*cut);
                        for entry in self.entries.values().flatten() {
                            refold.take(self.twin.tree(), entry);
                        }
                        Some(self.twin.refolded(refold, fleet::at(self.now_ms)))
                    }
                };
                if let Some(commit) = commit {
                    self.keep(commit);
                    let position = LogPosition::of(self.twin.tree(), log);
                    self.feed(Input::Stored { log, position, consumed_bytes: 0 });
                }
            }
            Output::Fetch { log, after, .. } => {
                let kept = self.entries.get(&log).map_or(&[][..], Vec::as_slice);
                let entries = kept.iter().filter(|entry| entry.seq > after).cloned().collect();
                self.feed(Input::Fetched { log, entries });
            }
            Output::Closed(_) => self.over = true,
            Output::Authorise(_) | Output::Enrol(..) | Output::Welcomed { .. } => {
                panic!("the handshake is over")
            }
            Output::Enrolled(_)
            | Output::Traced { .. }
            // Nothing is pruned here, and a brain merges nobody's checkpoint.
            | Output::FetchCheckpoint
            | Output::TakeCheckpoint(_)
            | Output::Acked { .. }
            | Output::PeerRefused(_)
            | Output::OwnLogBehind { .. }
            | Output::PeerLogBehind { .. }
            // This side holds no shared tree: what the peer says of one goes nowhere.
            | Output::Offered { .. }
            | Output::Left(_)
            | Output::OfShared { .. }
            | Output::ClockSample { .. } => {}
        }
    }

    /// Makes a commit durable, over the stored form of each record.
    fn keep(&mut self, commit: TreeCommit) {
        let record: TreeRecord = must(codec::decode(&codec::encode(&commit.record)), "a row");
        assert_eq!(record, commit.record);
        let mut version = self.record.version;
        for segment in commit.segments {
            let stored: Segment = must(codec::decode(&codec::encode(&segment)), "a segment");
            assert_eq!(stored, segment);
            assert_eq!(segment.first_version, version + 1, "versions count without gaps");
            version += segment.batch.len() as u64;
            let log = segment.batch.log;
            let entries = must(segment.batch.unpack(), "a stored batch unpacks");
            self.entries.entry(log).or_default().extend(entries.into_iter().map(|(_, e)| e));
        }
        assert_eq!(record.version, version, "versions count without gaps");
        for (path, leaf) in commit.leaves {
            match leaf {
                Some(leaf) => drop(self.leaves.insert(path, leaf)),
                None => drop(self.leaves.remove(&path)),
            }
        }
        self.record = record;
    }
}

fn seeds() -> Vec<seeds::Seed> {
    let heads = |script: ScriptWriter| script.byte(0).byte(0).byte(0).byte(0);
    let entries = |script: ScriptWriter, n: u8| {
        // One entry with one leaf, which has seen everything.
        script
            .byte(1)
            .byte(0)
            .byte(0)
            .byte(0)
            .byte(1)
            .byte(0)
            .byte(0)
            .byte(n % 4)
            .byte(1)
            .byte(1)
            .byte(n)
            .byte(0)
            .byte(0)
            .byte(0)
            .bytes(b"sensor")
            .bytes(b"band")
            .byte(0)
            .byte(0)
            .byte(0)
            .byte(0)
            .byte(0)
            .byte(0)
            .byte(0)
            .byte(0)
            .byte(0)
            .byte(0)
    };
    let mut all = Vec::new();
    let mut script = heads(ScriptWriter::default());
    for n in 0..6 {
        script = entries(script, n);
        all.push((format!("entries_{n}"), script.clone().finish()));
    }
    let sealed = script.clone().byte(4).byte(0).byte(0).byte(3).byte(0).byte(0);
    all.push(("sealed".to_owned(), sealed.finish()));
    let cut = script.clone().byte(5).byte(0).byte(0).byte(3).byte(0).byte(1).byte(0);
    all.push(("cut".to_owned(), cut.finish()));
    let written =
        script.byte(9).byte(0).byte(1).byte(0).byte(0).byte(3).byte(0).byte(0).bytes(b"why");
    all.push(("written".to_owned(), written.byte(11).byte(0).finish()));
    for (name, frame) in seeds::frames() {
        if let [_, _, kind, flags, body @ ..] = frame.as_slice() {
            let script = heads(ScriptWriter::default()).byte(8).byte(0).byte(*kind).byte(*flags);
            all.push((format!("raw_{name}"), script.bytes(body).finish()));
        }
    }
    all
}
