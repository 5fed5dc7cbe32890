//! Messages at which the actor failed again and again.
//!
//! They are put aside with their bytes, whoever sent them is told, and people may try them again.

use protocol::ErrorCode;
use protocol::codec;
use protocol::history::LogId;
use protocol::session::Now;
use protocol::state::StateDelta;
use protocol::wire::{Batch, LogPosition};
use serde::Serialize;

use super::{DeviceActor, DeviceMsg, WriteOutcome, error, save_error};
use crate::account::Reason;
use crate::ports::{DeadLetter, Letter, LinkEvent};
use crate::supervise::{Condemned, Context, Digest, Reply};
use crate::trace::Spans;

/// What tells a message from others, where the actor may fail at what is in it.
pub(super) fn digest(msg: &DeviceMsg) -> Option<Digest> {
    match msg {
        // A device sends again what is not acknowledged: the first one's id tells that.
        DeviceMsg::EntriesCame { entries, .. } => {
            let (id, _) = entries.first()?;
            id.0.first_chunk().map(|beginning| Digest(*beginning))
        }
        DeviceMsg::Write { changes, provenance, .. } => hash("write", &(changes, provenance)),
        DeviceMsg::SetState { desired, provenance, .. } => {
            hash("set state", &(desired, provenance))
        }
        DeviceMsg::SaveState { state, provenance, .. } => hash("save state", &(state, provenance)),
        DeviceMsg::Replay { letter, .. } => letter_digest(letter),
        _ => None,
    }
}

fn letter_digest(letter: &Letter) -> Option<Digest> {
    match letter {
        Letter::Entries(batch) => {
            let entries = batch.clone().unpack().ok()?;
            entries.first()?.0.0.first_chunk().map(|beginning| Digest(*beginning))
        }
        Letter::Write(changes, provenance) => hash("write", &(changes, provenance)),
        Letter::SetState(desired, provenance) => hash("set state", &(desired, provenance)),
        Letter::SaveState(state, provenance) => hash("save state", &(state, provenance)),
    }
}

fn hash(kind: &str, content: &impl Serialize) -> Option<Digest> {
    let hash = blake3::hash(&codec::encode(&(kind, content)));
    hash.as_bytes().first_chunk().map(|beginning| Digest(*beginning))
}

/// Fails where an entry names one of these leaves, for tests of the whole.
#[cfg(feature = "chaos")]
pub(super) fn fail_at(leaves: &[&str], entries: &[(protocol::EntryId, protocol::history::Entry)]) {
    let mut changes = entries.iter().flat_map(|(_, entry)| entry.delta.changes());
    let poisoned = changes.any(|(path, _)| leaves.contains(&path.as_str()));
    assert!(!poisoned, "chaos: a poisoned entry");
}

impl DeviceActor {
    /// Puts a message aside that is not to be handled, and tells whoever sent it.
    pub(super) fn put_aside(&mut self, msg: DeviceMsg, why: &Condemned) {
        let refusal = || {
            let text =
                format!("it made the device's actor fail three times; kept as {}", why.digest);
            error(ErrorCode::DeadLettered, "handle message", text)
        };
        let letter = match msg {
            DeviceMsg::EntriesCame { log, entries, bytes, in_flight, .. } => {
                in_flight.refuse(Reason::Code(ErrorCode::DeadLettered));
                // Those behind it are not to blame; the device writes them again.
                let entries: Vec<_> = entries.into_iter().take(1).map(|(_, entry)| entry).collect();
                let seq = entries.first().map_or(0, |entry| entry.seq);
                let position = self.position(log);
                self.send(LinkEvent::stored(position, bytes));
                let (error, consumed_bytes) = (refusal(), 0);
                self.send(LinkEvent::Refused { log, seq, error, consumed_bytes, fatal: false });
                let Ok(batch) = Batch::pack(&entries) else { return };
                Letter::Entries(batch)
            }
            DeviceMsg::Write { changes, provenance, reply, .. } => {
                reply.send(Err(refusal()));
                Letter::Write(changes, provenance)
            }
            DeviceMsg::SetState { desired, provenance, reply, .. } => {
                reply.send(Err(refusal()));
                Letter::SetState(desired, provenance)
            }
            DeviceMsg::SaveState { state, provenance, reply, .. } => {
                reply.send(Err(refusal()));
                Letter::SaveState(state, provenance)
            }
            // It is kept already.
            DeviceMsg::Replay { reply, .. } => return reply.send(Err(refusal())),
            _ => return,
        };
        let device = self.args.device;
        tracing::error!(%device, message = letter.message(), digest = %why.digest, "message is put aside as a dead letter");
        self.args.store.keep_dead_letter(DeadLetter {
            device,
            at_ms: self.args.clock.now().wall_ms,
            digest: why.digest.0,
            fault: why.crash.as_ref().map(|crash| crash.fault.to_string()),
            letter,
        });
    }

    /// Tries a dead letter again.
    pub(super) fn replay(
        &mut self,
        ctx: &Context<DeviceMsg>,
        letter: Letter,
        reply: Reply<Result<WriteOutcome, protocol::SyncError>>,
        now: Now,
    ) {
        match letter {
            Letter::Entries(batch) => self.replay_entries(ctx, batch, reply, now),
            Letter::Write(changes, provenance) => {
                self.write(ctx, changes, provenance, None, reply, now);
            }
            Letter::SetState(desired, provenance) => {
                let changes = self.twin_mut().replace_desired(&desired);
                self.write(ctx, changes, provenance, None, reply, now);
            }
            Letter::SaveState(state, provenance) => {
                match self.twin_mut().save(state.version, &state.state) {
                    Ok(changes) => self.write(ctx, changes, provenance, None, reply, now),
                    Err(refused) => reply.send(Err(save_error(&refused))),
                }
            }
        }
    }

    fn replay_entries(
        &mut self,
        ctx: &Context<DeviceMsg>,
        batch: Batch,
        reply: Reply<Result<WriteOutcome, protocol::SyncError>>,
        now: Now,
    ) {
        let entries = match batch.unpack() {
            Ok(entries) => entries,
            Err(refused) => {
                return reply.send(Err(error(refused.code(), "replay", refused.to_string())));
            }
        };
        #[cfg(feature = "chaos")]
        fail_at(&["reported/chaos/deadly"], &entries);
        let last = entries.last().map(|(id, _)| *id);
        let result = self.twin_mut().ingest(entries, now);
        let version = self.twin_mut().version();
        let answer = match result.refused {
            Some((_, refusal)) => Err(error(refusal.code(), "replay", refusal.to_string())),
            None => Ok(WriteOutcome { version, entry: last, delta: StateDelta::default() }),
        };
        match result.commit {
            Some(commit) => {
                let news = vec![LinkEvent::stored(result.position, 0)];
                let answer = Box::new(move |committed: Result<(), crate::ports::CommitError>| {
                    let committed = committed.map_err(|error| error.to_sync_error());
                    reply.send(committed.and(answer));
                });
                self.commit(ctx, commit, news, &Spans::default(), Some(answer));
            }
            None => reply.send(answer),
        }
    }

    fn position(&mut self, log: LogId) -> LogPosition {
        LogPosition::of(self.twin_mut().tree(), log)
    }
}
