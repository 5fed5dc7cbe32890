//! The beginnings, seals and ends of the device's own logs.

use protocol::clock::Hlc;
use protocol::history::{Author, Cut, Entry, Head, LogId, SignedHead};
use protocol::session::Now;
use protocol::{EntryId, FleetId};

use super::{Replica, genesis};
use crate::spool::AuthorState;
use crate::track::{WriteError, account};

impl Replica {
    /// Signs the own log's head, where it is not signed yet.
    ///
    /// Nobody need remember it: the same head can be signed again.
    pub fn seal(&mut self) -> Option<SignedHead> {
        let log = self.own_log();
        let state = self.tree.log(&log).filter(|state| state.seq > state.sealed())?;
        let head = Head { tree: self.tree.id(), log, seq: state.seq, id: state.head };
        let signed = SignedHead::sign(&self.identity.keypair, head);
        self.tree.take_signed_head(signed);
        if let Some(number) = self.tree.log_number(&log) {
            self.note(number);
        }
        Some(signed)
    }

    /// Goes on in a new epoch; the log so far stays as it is.
    pub fn open_epoch(&mut self, epoch: u64) {
        let log = LogId { author: self.identity.keypair.public(), epoch };
        let last = self.author.clock_mut().last();
        self.author = Author::new(log, last);
        self.author_state.epoch = epoch;
        self.stage_author();
    }

    /// Ends an own log after `last_seq` and writes `lost`, which followed it, again.
    ///
    /// If the log is the one that is written now, that goes on in `epoch`, with a clock that has
    /// forgotten the old one's timestamps.
    pub fn end_log(
        &mut self,
        log: LogId,
        last_seq: u64,
        last_id: EntryId,
        lost: &[Entry],
        epoch: u64,
        now: Now,
    ) -> Result<Cut, WriteError> {
        let cut = Cut::seal(&self.identity.keypair, self.tree.id(), log, last_seq, last_id);
        let touched = self.tree.take_cut(cut.clone());
        self.stage_end(log, last_seq, &touched, account::REWRITTEN);
        if log == self.own_log() {
            let log = LogId { author: log.author, epoch };
            self.author = Author::new(log, Hlc::default());
            self.author_state.epoch = epoch;
            self.author_state.clock_floor_ms = 0;
            self.stage_author();
        }
        self.write_again(lost, now)?;
        Ok(cut)
    }

    /// Leaves the tree for that of `fleet`, and writes `written` there again, in order, in a new
    /// epoch.
    pub fn join(
        &mut self,
        fleet: FleetId,
        epoch: u64,
        written: &[Entry],
        now: Now,
    ) -> Result<(), WriteError> {
        let (identity, state) = (self.identity.clone(), self.author_state);
        let brains = std::mem::take(&mut self.brains);
        let last = self.author.clock_mut().last();
        let mut account = self.queue.account.clone();
        account.withdraw(account.queued, account::REWRITTEN);
        let genesis = genesis(fleet, identity.device);
        *self = Self::begin(identity, genesis, epoch, self.limits);
        self.queue.account = account;
        self.author = Author::new(self.own_log(), last);
        self.author_state = AuthorState { epoch, ..state };
        self.brains = brains;
        self.stage_author();
        self.write_again(written, now)
    }
}
