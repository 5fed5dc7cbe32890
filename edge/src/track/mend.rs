//! What the keeper does when its log cannot go on as it is: the device joins a fleet, the brain
//! refuses an entry, or the brain turns out to have another history.

use actors::supervise::NodeError;
use protocol::error::LogEnd;
use protocol::history::{Draft, LogId, Provenance};
use protocol::state::StateSource;
use protocol::wire::{LogPosition, Refuse};
use protocol::{ErrorCode, FleetId, PublicKey, RecoveryAction};

use super::keeper::{Track, random_epoch};
use super::{Outcome, WriteError};

/// So many leaves fit one entry, also with long paths and texts.
const LEAVES_AT_ONCE: usize = 32;

impl Track {
    /// Leaves the tree of another fleet, or of none, for that of `fleet`.
    ///
    /// What was written before there was a fleet is written again, in order. Another fleet's
    /// history is not this one's business: there the device's leaves are written as they are.
    pub(super) async fn join(
        &mut self,
        fleet: FleetId,
        issuer: Option<PublicKey>,
    ) -> Result<Result<(), WriteError>, NodeError> {
        self.flush().await?;
        if self.replica()?.tree().genesis().fleet == fleet {
            return Ok(Ok(()));
        }
        let mut written = Vec::new();
        if self.is_provisional() {
            for (number, after) in self.replica()?.unacknowledged() {
                written.extend(self.range(number, after, usize::MAX).await?);
            }
            written.sort_by_key(|entry| entry.hlc);
        }
        let leaves = self.replica()?.own_leaves();
        let (now, epoch) = (self.args.clock.now(), random_epoch()?);
        let replica = self.replica()?;
        let mut joined = replica.join(fleet, epoch, &written, now);
        if written.is_empty() {
            for changes in leaves.chunks(LEAVES_AT_ONCE) {
                let provenance = Provenance::new(StateSource::Edge, "agent", "joined a fleet");
                let changes = changes.to_vec();
                let draft = Draft { changes, provenance, lease_until_ms: None };
                joined = joined.and_then(|()| replica.write(draft, now).map(drop));
            }
        }
        if let Some(issuer) = issuer {
            replica.add_brain(issuer);
        }
        if joined.is_err() {
            self.load().await?;
            return Ok(joined);
        }
        tracing::info!(fleet = %fleet, entries = written.len(), "tree belongs to a fleet now");
        self.flush().await?;
        Ok(Ok(()))
    }

    /// Compares own logs with what the brain has of them.
    ///
    /// What is the same there is delivered. What differs was written by an earlier life on a disk
    /// that has since gone back in time: the log ends at what both are known to have had.
    pub(super) async fn peer_heads(
        &mut self,
        positions: &[LogPosition],
    ) -> Result<Result<Vec<Outcome>, WriteError>, NodeError> {
        self.flush().await?;
        let own = self.args.identity.keypair.public();
        let mut outcomes = Vec::new();
        for theirs in positions.iter().filter(|theirs| theirs.log.author == own) {
            let (log, seq) = (theirs.log, theirs.seq);
            let ours = self.replica()?.position(log);
            let Some(number) = self.replica()?.log_number(&log) else { continue };
            if seq == 0 || seq > ours.seq {
                continue;
            }
            let id_here = if seq == ours.seq {
                Some(ours.id)
            } else {
                let next = self.range(number, seq, 1).await?;
                // Pruned, or never here: a checkpoint took the place of what follows.
                next.first().filter(|next| next.seq == seq + 1).map(|next| next.prev)
            };
            match id_here {
                Some(id) if id == theirs.id => {
                    self.replica()?.acknowledged(log, seq, theirs.sealed.min(seq));
                }
                Some(_) => {
                    tracing::warn!(seq, "brain has another history of an own log");
                    let last_seq = self.replica()?.acknowledged_of(log).min(seq - 1);
                    match self.reissue(log, last_seq, None).await? {
                        Ok(outcome) => outcomes.push(outcome),
                        Err(error) => return Ok(Err(error)),
                    }
                }
                // Pruned: the brain had it before.
                None => {}
            }
        }
        self.show_queue()?;
        Ok(Ok(outcomes))
    }

    /// Deals with an entry that the brain does not take.
    pub(super) async fn refused(
        &mut self,
        refuse: &Refuse,
    ) -> Result<Result<Outcome, WriteError>, NodeError> {
        self.flush().await?;
        let Refuse { log, seq, error, .. } = refuse;
        tracing::warn!(seq, code = %error.code, message = %error.message, "brain refused an entry");
        self.args.board.update(|status| status.last_error = Some(error.to_string()));
        let action = error.recovery_action();
        let RecoveryAction::Reissue { end, drop_refused, correct_clock } = action else {
            // Nothing is known to be wrong with the entry; to send it again loses nothing.
            return Ok(Ok(Outcome::Reconnect));
        };
        if log.author != self.args.identity.keypair.public() {
            return Ok(Ok(Outcome::Reconnect));
        }
        if correct_clock {
            let error_ms = refuse.now_ms as i64 - self.args.clock.wall_ms() as i64;
            let offset_ms = self.args.clock.correct(error_ms);
            tracing::warn!(offset_ms, "clock was ahead and is corrected");
            self.replica()?.set_clock_offset(offset_ms);
        }
        let below = seq.saturating_sub(1);
        let last_seq = match end {
            LogEnd::BelowRefused => below,
            LogEnd::AtAcknowledged => below.min(self.replica()?.acknowledged_of(*log)),
        };
        self.reissue(*log, last_seq, drop_refused.then_some((*seq, error.code))).await
    }

    /// Ends an own log and writes what followed again, but for the entry `without`.
    async fn reissue(
        &mut self,
        log: LogId,
        last_seq: u64,
        without: Option<(u64, ErrorCode)>,
    ) -> Result<Result<Outcome, WriteError>, NodeError> {
        let Some(number) = self.replica()?.log_number(&log) else {
            return Ok(Ok(Outcome::Nothing));
        };
        let mut lost = self.range(number, last_seq, usize::MAX).await?;
        let Some(first) = lost.first() else { return Ok(Ok(Outcome::Nothing)) };
        let last_id = first.prev;
        let before = lost.len();
        lost.retain(|entry| without.is_none_or(|(refused, _)| entry.seq != refused));
        let dropped = (before - lost.len()) as u64;
        self.args.board.update(|status| status.entries_dropped += dropped);
        let (now, epoch) = (self.args.clock.now(), random_epoch()?);
        let ended = self.replica()?.end_log(log, last_seq, last_id, &lost, epoch, now);
        let cut = match ended {
            Ok(cut) => {
                if let Some((_, code)) = without {
                    self.replica()?.left_out(dropped, code);
                }
                Box::new(cut)
            }
            Err(error) => {
                self.load().await?;
                return Ok(Err(error));
            }
        };
        self.flush().await?;
        let replica = self.replica()?;
        let position = replica.position(replica.own_log());
        tracing::info!(entries = lost.len(), "entries are written again in another log");
        Ok(Ok(Outcome::Reissued { cut, position }))
    }
}
