//! Messages at which the actor failed again and again.
//!
//! They are put aside with their bytes, whoever sent them is told, and people may try them again.

use protocol::codec;
use protocol::session::Now;
use protocol::state::StateDelta;
use protocol::wire::{Batch, LogPosition};
use protocol::{ErrorCode, SyncError};
use serde::Serialize;

use super::commits::settling;
use super::links::News;
use super::writes::save_error;
use super::{DeviceMsg, TreeActor, Whose, WriteOutcome, error, not_stored};
use crate::account::{Outcome, Reason};
use crate::ports::{CommitDone, CommitError, DeadLetter, Letter, LinkEvent};
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

impl<W: Whose> TreeActor<W> {
    /// Puts a message aside that is not to be handled, and tells whoever sent it once it is kept.
    pub(super) fn put_aside(
        &mut self,
        ctx: &Context<DeviceMsg>,
        msg: DeviceMsg,
        why: &Condemned,
        now: Now,
    ) {
        let text = format!("it made the device's actor fail three times; kept as {}", why.digest);
        let refusal = error(ErrorCode::DeadLettered, "handle message", text);
        let (letter, news, answer) = match msg {
            DeviceMsg::EntriesCame { connection, log, entries, bytes, in_flight, .. } => {
                let Some(link) = self.links.get_mut(connection) else {
                    return in_flight.refuse(Reason::Code(ErrorCode::Fenced));
                };
                let behind = (entries.len() as u32).saturating_sub(1);
                let code = Some(ErrorCode::DeadLettered);
                let outcome = Outcome::judged(behind + 1, 0, code, behind);
                // Those behind it are not to blame; the device writes them again.
                let first: Vec<_> = entries.into_iter().take(1).map(|(_, entry)| entry).collect();
                let seq = first.first().map_or(0, |entry| entry.seq);
                let Ok(batch) = Batch::pack(&first) else { return };
                link.refused = Some((log, seq));
                let position = LogPosition::of(self.twin_mut().tree(), log);
                let (consumed_bytes, fatal) = (0, false);
                let refused =
                    LinkEvent::Refused { log, seq, error: refusal, consumed_bytes, fatal };
                let news = News::of(connection, vec![LinkEvent::stored(position, bytes), refused]);
                (Letter::Entries(batch), news, settling(in_flight, outcome))
            }
            DeviceMsg::Write { changes, provenance, reply, .. } => {
                (Letter::Write(changes, provenance), News::default(), refused(reply, refusal))
            }
            DeviceMsg::SetState { desired, provenance, reply, .. } => {
                (Letter::SetState(desired, provenance), News::default(), refused(reply, refusal))
            }
            DeviceMsg::SaveState { state, provenance, reply, .. } => {
                (Letter::SaveState(state, provenance), News::default(), refused(reply, refusal))
            }
            // It is kept already.
            DeviceMsg::Replay { reply, .. } => return reply.send(Err(refusal)),
            _ => return,
        };
        let device = self.args.of.clone();
        tracing::error!(%device, message = letter.message(), digest = %why.digest, "message is put aside as a dead letter");
        self.args.store.keep_dead_letter(DeadLetter {
            tree: device.genesis(self.args.fleet),
            at_ms: now.wall_ms,
            digest: why.digest.0,
            fault: why.crash.as_ref().map(|crash| crash.fault.to_string()),
            letter,
        });
        // Queued behind the letter: whoever sent it hears of it when that is on disk.
        let commit = self.twin_mut().settle();
        self.commit(ctx, commit, news, &Spans::default(), Some(answer));
    }

    /// Tries a dead letter again.
    pub(super) fn replay(
        &mut self,
        ctx: &Context<DeviceMsg>,
        letter: Letter,
        reply: Reply<Result<WriteOutcome, SyncError>>,
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
        reply: Reply<Result<WriteOutcome, SyncError>>,
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
            None => {
                Ok(WriteOutcome { version, entry: last, at: None, delta: StateDelta::default() })
            }
        };
        // What is known already may still be on its way to disk.
        let under_way = self.args.commits.any();
        let commit = result.commit.or_else(|| under_way.then(|| self.twin_mut().settle()));
        match commit {
            Some(commit) => {
                let news = News::all(vec![LinkEvent::stored(result.position, 0)]);
                let answer = Box::new(move |committed: Result<(), CommitError>| {
                    let committed = committed.map_err(|error| not_stored(&error, "replay letter"));
                    reply.send(committed.and(answer));
                });
                self.commit(ctx, commit, news, &Spans::default(), Some(answer));
            }
            None => reply.send(answer),
        }
    }
}

/// Answers that a message was put aside, once it is kept.
fn refused(reply: Reply<Result<WriteOutcome, SyncError>>, refusal: SyncError) -> CommitDone {
    Box::new(move |kept: Result<(), CommitError>| {
        reply
            .send(Err(kept.map_or_else(|error| not_stored(&error, "replay letter"), |()| refusal)));
    })
}
