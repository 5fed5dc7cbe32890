//! What the device does when its log cannot go on as it is.

use protocol::clock::{ClockQuality, Hlc};
use protocol::history::{Checkpoint, LogId};
use protocol::session::Input;
use protocol::wire::Refuse;
use protocol::{ErrorCode, TreeId};

use super::{DeviceEvent, SimDevice};

/// What a round trip may make of two equal clocks.
const CLOCK_NOISE_MS: u64 = 1_000;

impl SimDevice {
    /// Deals with an entry of a tree that the brain does not take.
    pub(super) fn refused(&mut self, of: Option<TreeId>, refuse: Refuse) {
        let Refuse { log, seq, error, now_ms, .. } = refuse;
        let Some(holding) = self.holding(of) else { return };
        let is_cut = holding.disk.tree().log(&log).and_then(|state| state.cut.as_ref());
        if is_cut.is_some_and(|cut| seq > cut.last_seq) {
            // It was under way when the log was cut.
            return;
        }
        let is_own = log.author == self.keypair.public();
        match error.code {
            ErrorCode::ClockAhead if is_own => {
                self.offset_ms += now_ms as i64 - self.now().wall_ms as i64;
                self.reissue(of, log, seq.saturating_sub(1))
            }
            // An earlier life ended the log, before the disk went back in time, or the brain did.
            ErrorCode::LogCut if is_own => self.reissue(of, log, seq.saturating_sub(1)),
            code => match of {
                Some(tree) => self.leave_tree(tree),
                None => {
                    let text = format!("the brain refused an entry with {code}");
                    self.leave(ErrorCode::GoingAway, &text);
                }
            },
        }
    }

    /// Ends an own log of a tree and writes what followed again, in a new epoch.
    fn reissue(&mut self, of: Option<TreeId>, log: LogId, last_seq: u64) {
        self.sync(of);
        let (keypair, now, epoch) = (self.keypair.clone(), self.now(), self.random.next_u64());
        let Some(holding) = self.holding_mut(of) else { return };
        if let Some(tree) = of.filter(|_| !holding.disk.may_write()) {
            // It was put out. Its log ends by the brain's word.
            return self.leave_tree(tree);
        }
        let Some((cut, lost)) = holding.disk.cut(&keypair, log, last_seq) else {
            return;
        };
        if log == holding.disk.log() {
            // The clock forgets the old log's timestamps: they are what was refused.
            holding.disk.open_log(LogId { epoch, ..log }, Hlc::default());
        }
        for old in &lost {
            holding.disk.reissue(old, now);
        }
        holding.disk.sync();
        holding.seal_due_ms.get_or_insert(now.mono_ms + super::SEAL_DELAY_MS);
        let log = holding.disk.log();
        self.events.push(DeviceEvent::Reissued(lost.len() as u64));
        self.feed(of, Input::CutMade(cut));
        self.stored(of, log, 0);
    }

    /// Takes a checkpoint in place of entries of a tree that the brain keeps no longer.
    pub(super) fn take_checkpoint(&mut self, of: Option<TreeId>, checkpoint: &Checkpoint) {
        self.sync(of);
        let (own, now) = (self.keypair.public(), self.now());
        let Some(holding) = self.holding_mut(of) else { return };
        let log = holding.disk.log();
        let before = holding.disk.position(log).seq;
        let acked = holding.acked.clone();
        let stored = |log: &LogId| acked.get(log).map_or(0, |(stored, _)| *stored);
        let Ok((again, anew)) = holding.disk.merge(checkpoint, stored, now) else { return };
        if anew {
            holding.acked.clear();
        }
        for state in checkpoint.logs.iter().filter(|state| state.log.author == own) {
            holding.acknowledged(state.log, state.seq, state.sealed());
        }
        // An earlier life ended it, which this disk knew nothing of.
        let is_over = holding.disk.tree().has_ended(&log);
        if anew || is_over || checkpoint.vector().get(&log) > before {
            self.open_epoch(of);
        }
        let Some(holding) = self.holding_mut(of) else { return };
        // Who is no member any more has nothing to say.
        let again = if holding.disk.may_write() { again } else { Vec::new() };
        for old in &again {
            holding.disk.reissue(old, now);
        }
        holding.disk.sync();
        holding.seal_due_ms.get_or_insert(now.mono_ms + super::SEAL_DELAY_MS);
        self.events.push(DeviceEvent::Checkpoint { anew });
        if !again.is_empty() {
            self.events.push(DeviceEvent::Reissued(again.len() as u64));
        }
        match (anew, of) {
            (true, Some(tree)) => return self.leave_tree(tree),
            (true, None) => {
                let text = "everything begins anew from a checkpoint";
                return self.leave(ErrorCode::GoingAway, text);
            }
            (false, _) => {}
        }
        for state in &checkpoint.logs {
            self.stored(of, state.log, 0);
        }
        self.after_sync(of);
    }

    /// Goes on in a new epoch of a tree; the log so far stays as it is.
    pub(super) fn open_epoch(&mut self, of: Option<TreeId>) {
        let epoch = self.random.next_u64();
        let Some(holding) = self.holding_mut(of) else { return };
        let log = LogId { epoch, ..holding.disk.log() };
        let last = holding.disk.last_timestamp();
        holding.disk.open_log(log, last);
        holding.disk.sync();
    }

    /// Follows the brain's clock, unless the own one is said to be synchronised.
    pub(super) fn clock_error(&mut self, error_ms: i64) {
        let believed = self.now().quality == ClockQuality::Synchronised && self.offset_ms == 0;
        if !believed && error_ms.unsigned_abs() >= CLOCK_NOISE_MS {
            self.offset_ms += error_ms;
        }
    }
}
