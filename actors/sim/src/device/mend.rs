//! What the device does when its log cannot go on as it is.

use protocol::ErrorCode;
use protocol::clock::{ClockQuality, Hlc};
use protocol::history::{Checkpoint, LogId};
use protocol::session::Input;
use protocol::wire::Refuse;

use super::{DeviceEvent, SimDevice};

/// What a round trip may make of two equal clocks.
const CLOCK_NOISE_MS: u64 = 1_000;

impl SimDevice {
    /// Deals with an entry that the brain does not take.
    pub(super) fn refused(&mut self, refuse: Refuse) {
        let Refuse { log, seq, error, now_ms, .. } = refuse;
        let is_cut = self.tree().log(&log).and_then(|state| state.cut.as_ref());
        if is_cut.is_some_and(|cut| seq > cut.last_seq) {
            // It was under way when the log was cut.
            return;
        }
        let own = self.keypair.public();
        match error.code {
            ErrorCode::ClockAhead if log.author == own => {
                self.offset_ms += now_ms as i64 - self.now().wall_ms as i64;
                self.reissue(log, seq.saturating_sub(1))
            }
            // An earlier life ended the log, before the disk went back in time.
            ErrorCode::LogCut if log.author == own => self.reissue(log, seq.saturating_sub(1)),
            code => {
                let text = format!("the brain refused an entry with {code}");
                self.leave(ErrorCode::GoingAway, &text);
            }
        }
    }

    /// Ends an own log and writes what followed again, in a new epoch.
    fn reissue(&mut self, log: LogId, last_seq: u64) {
        self.sync();
        let Some((cut, lost)) = self.disk.cut(&self.keypair, log, last_seq) else {
            return;
        };
        if log == self.disk.log() {
            let epoch = self.random.next_u64();
            // The clock forgets the old log's timestamps: they are what was refused.
            self.disk.open_log(LogId { epoch, ..log }, Hlc::default());
        }
        let now = self.now();
        for old in &lost {
            self.disk.reissue(old, now);
        }
        self.disk.sync();
        self.seal_due_ms.get_or_insert(now.mono_ms + super::SEAL_DELAY_MS);
        self.events.push(DeviceEvent::Reissued(lost.len() as u64));
        self.feed(Input::CutMade(cut));
        let log = self.disk.log();
        let position = self.position(log);
        self.feed(Input::Stored { log, position, consumed_bytes: 0 });
    }

    /// Takes a checkpoint in place of entries that the brain keeps no longer.
    pub(super) fn take_checkpoint(&mut self, checkpoint: &Checkpoint) {
        self.sync();
        let (own, log) = (self.keypair.public(), self.disk.log());
        let before = self.position(log).seq;
        let acked = self.acked.clone();
        let stored = |log: &LogId| acked.get(log).map_or(0, |(stored, _)| *stored);
        let Ok((again, anew)) = self.disk.merge(checkpoint, own, stored) else { return };
        if anew {
            self.acked.clear();
        }
        for state in checkpoint.logs.iter().filter(|state| state.log.author == own) {
            self.acknowledged(state.log, state.seq, state.sealed());
        }
        // An earlier life ended it, which this disk knew nothing of.
        let is_over = self.tree().has_ended(&log);
        if anew || is_over || checkpoint.vector().get(&log) > before {
            self.open_epoch();
        }
        let now = self.now();
        for old in &again {
            self.disk.reissue(old, now);
        }
        self.disk.sync();
        self.seal_due_ms.get_or_insert(now.mono_ms + super::SEAL_DELAY_MS);
        self.events.push(DeviceEvent::Checkpoint { anew });
        if !again.is_empty() {
            self.events.push(DeviceEvent::Reissued(again.len() as u64));
        }
        if anew {
            return self.leave(ErrorCode::GoingAway, "everything begins anew from a checkpoint");
        }
        for state in &checkpoint.logs {
            let (log, consumed_bytes) = (state.log, 0);
            let position = self.position(log);
            self.feed(Input::Stored { log, position, consumed_bytes });
        }
        self.after_sync();
    }

    /// Goes on in a new epoch; the log so far stays as it is.
    pub(super) fn open_epoch(&mut self) {
        let log = LogId { epoch: self.random.next_u64(), ..self.disk.log() };
        let last = self.disk.last_timestamp();
        self.disk.open_log(log, last);
        self.disk.sync();
    }

    /// Follows the brain's clock, unless the own one is said to be synchronised.
    pub(super) fn clock_error(&mut self, error_ms: i64) {
        let believed = self.now().quality == ClockQuality::Synchronised && self.offset_ms == 0;
        if !believed && error_ms.unsigned_abs() >= CLOCK_NOISE_MS {
            self.offset_ms += error_ms;
        }
    }
}
