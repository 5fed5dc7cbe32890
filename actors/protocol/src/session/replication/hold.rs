//! Entries that came before their causes.
//!
//! What a device passes on of one log comes in pieces, each up to a signature of its author. Two
//! authors that heard of each other in between have pieces of which neither can come wholly first:
//! the receiving side puts their entries in order. What waits here is bounded by the credit.

use std::collections::{BTreeMap, VecDeque};

use super::Replication;
use crate::EntryId;
use crate::history::{Entry, LogId};
use crate::session::Output;

/// What waits for causes, by log.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<LogId, VecDeque<Piece>>);

#[derive(Debug)]
struct Piece {
    entries: VecDeque<(EntryId, Entry)>,
    /// The credit that goes back with the last of them.
    bytes: u32,
}

impl Replication {
    /// Whether what the peer sends may come before its causes. A brain puts it in order.
    pub(super) fn holds(&self) -> bool {
        self.is_shared && !self.terms.peer_is_brain
    }

    pub(super) fn hold(&mut self, log: LogId, entries: Vec<(EntryId, Entry)>, bytes: u32) {
        let piece = Piece { entries: entries.into(), bytes };
        self.held.0.entry(log).or_default().push_back(piece);
    }

    /// Hands out what has all its causes.
    pub(super) fn release(&mut self, outputs: &mut Vec<Output>) {
        let mut is_done = self.held.0.is_empty();
        while !is_done {
            is_done = true;
            for id in self.held.0.keys().copied().collect::<Vec<_>>() {
                if self.release_of(id, outputs) {
                    is_done = false;
                }
            }
            self.held.0.retain(|_, pieces| !pieces.is_empty());
        }
    }

    /// Hands out what has its causes of the first piece of a log. Returns whether that was any.
    fn release_of(&mut self, id: LogId, outputs: &mut Vec<Output>) -> bool {
        let Some(piece) = self.held.0.get(&id).and_then(VecDeque::front) else { return false };
        let ready = piece.entries.iter().take_while(|(_, entry)| self.has_causes_of(entry)).count();
        if ready == 0 {
            return false;
        }
        let Some(pieces) = self.held.0.get_mut(&id) else { return false };
        let Some(piece) = pieces.front_mut() else { return false };
        let entries: Vec<_> = piece.entries.drain(..ready).collect();
        let is_whole = piece.entries.is_empty();
        let bytes = if is_whole { piece.bytes } else { 0 };
        if is_whole {
            pieces.pop_front();
        }
        let log = self.logs.entry(id).or_default();
        let last_seq = entries.last().map_or(0, |(_, entry)| entry.seq);
        log.released = log.released.max(last_seq);
        let seal = log.seal_held.take_if(|signed| signed.head.seq <= last_seq);
        outputs.push(Output::Ingest { log: id, entries, bytes });
        outputs.extend(seal.map(Output::TakeSignedHead));
        true
    }

    fn has_causes_of(&self, entry: &Entry) -> bool {
        entry.seen.iter().all(|(id, seq)| {
            self.logs.get(id).is_some_and(|log| {
                // Of a log that ended, what lies above the end is no cause.
                let ends = [log.end, log.end_heard].into_iter().flatten();
                log.released >= ends.fold(seq, u64::min)
            })
        })
    }
}
