//! What the brain keeps of one tree: its twin, and the connections that it is spoken of on.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use actors::device::{Fencing, Ingested, Twin, Verdict};
use actors::ports::{CommitError, LinkEvent, TreeCommit, TreeStore};
use protocol::history::{Change, Entry, LogId, Provenance, Refusal};
use protocol::session::{Now, Replica, error};
use protocol::wire::{LogPosition, PLAIN_BYTES_MAX};
use protocol::{DeviceId, EntryId, ErrorCode, SyncError, TreeId};

use super::groups::Share;
use super::{BrainEvent, SimBrain, denied};
use crate::fleet::{self, Whose};
use crate::network::LinkId;

/// How long the brain's own entries stay unsigned.
pub(super) const SEAL_DELAY_MS: u64 = 200;
/// How long a device waits whose commit failed.
pub(super) const RETRY_MS: u32 = 5_000;

/// The place of one tree.
#[derive(Debug, Default)]
pub(super) struct Seat {
    pub(super) twin: Option<Twin>,
    /// Which loading of the twin this is: what an earlier one still has queued is not counted.
    life: u64,
    /// The connections, by number. A device has one.
    pub(super) links: BTreeMap<u64, LinkId>,
    fencing: Fencing,
    pub(super) in_flight: usize,
    pub(super) seal_due_ms: Option<u64>,
}

/// A commit that the store has dealt with.
pub(super) struct Completion {
    whose: Whose,
    life: u64,
    /// The connections that hear of it.
    ears: Vec<LinkId>,
    /// The one whose message brought it about.
    origin: Option<LinkId>,
    news: Vec<LinkEvent>,
    answer: Option<Answer>,
    result: Result<(), CommitError>,
}

/// Who waits for a commit beside the connection.
pub(super) enum Answer {
    Attach { link: LinkId, number: u64, replica: Replica },
    Write(EntryId),
    Share(Share),
    Member { id: EntryId, device: DeviceId },
}

impl Seat {
    fn has(&self, link: LinkId) -> bool {
        self.links.values().any(|known| *known == link)
    }
}

/// How sessions call a tree.
fn of(whose: Whose) -> Option<TreeId> {
    match whose {
        Whose::Device(_) => None,
        Whose::Group(_) => Some(whose.tree()),
    }
}

impl SimBrain {
    /// A device that has proved its key wants to be connected.
    pub(super) fn attach(&mut self, device: DeviceId, link: LinkId) -> Result<(), SyncError> {
        let whose = Whose::Device(device);
        self.ensure_twin(whose)?;
        let now = self.now();
        self.next_connection += 1;
        let number = self.next_connection;
        let Some(seat) = self.seats.get_mut(&whose) else { return Ok(()) };
        let before = seat.links.last_key_value().map(|(number, link)| (*number, *link));
        let before = before.filter(|(_, link)| self.connections.contains_key(link));
        match seat.fencing.on_attach(before.map(|(number, _)| number), number, now.mono_ms) {
            Verdict::Attach => {}
            Verdict::Stale => return Err(denied(ErrorCode::Fenced, "a newer connection is here")),
            Verdict::Cloned { retry_after_ms } => {
                seat.links.clear();
                let error = denied(ErrorCode::ClonedIdentity, "two machines, one identity");
                if let Some((_, old)) = before {
                    self.close(old, error.clone(), Some(retry_after_ms));
                }
                return Err(error);
            }
        }
        seat.links = [(number, link)].into();
        if let Some((_, old)) = before {
            self.close(old, denied(ErrorCode::Fenced, "a newer connection took over"), None);
        }
        let Some(seat) = self.seats.get_mut(&whose) else { return Ok(()) };
        let Some(twin) = &seat.twin else { return Ok(()) };
        // What a new connection is told must be on disk: it counts as acknowledged.
        let replica = twin.replica();
        let settle = (seat.in_flight > 0).then(|| twin.settle());
        match settle {
            None => self.attached(whose, link, number, replica),
            Some(commit) => {
                let answer = Answer::Attach { link, number, replica };
                self.commit(whose, commit, None, Vec::new(), Some(answer));
            }
        }
        Ok(())
    }

    pub(super) fn ingest(
        &mut self,
        whose: Whose,
        link: LinkId,
        log: LogId,
        entries: Vec<(EntryId, Entry)>,
        bytes: u32,
    ) {
        let now = self.now();
        let seat = self.seats.get_mut(&whose).filter(|seat| seat.has(link));
        let Some(seat) = seat else { return };
        let Some(twin) = &mut seat.twin else { return };
        let Ingested { commit, position, known, mut refused, .. } = twin.ingest(entries, now);
        if let Some(seq) = contradicted(&self.store, twin, &log, &known) {
            refused = Some((seq, Refusal::Equivocation { log, seq }));
        }
        let mut news = vec![LinkEvent::stored(position, bytes)];
        if let Some((seq, refusal)) = &refused {
            news.push(refusal_news(log, *seq, refusal));
            self.events.push(BrainEvent::Refused(refusal.code()));
        }
        let commit = commit.or_else(|| (seat.in_flight > 0).then(|| twin.settle()));
        match commit {
            Some(commit) => self.commit(whose, commit, Some(link), news, None),
            None => self.deliver(link, of(whose), news),
        }
    }

    pub(super) fn fetch(
        &mut self,
        whose: Whose,
        log: LogId,
        after: u64,
        bytes_max: usize,
    ) -> Vec<Entry> {
        let twin = self.seats.get(&whose).and_then(|seat| seat.twin.as_ref());
        let Some(twin) = twin else { return Vec::new() };
        let Some(number) = twin.tree().log_number(&log) else { return Vec::new() };
        let entries = self.store.range(twin.number(), number, after, bytes_max);
        let last = twin.tree().log(&log).map_or(0, |known| known.seq);
        let entries = entries.unwrap_or_default().into_iter().map(|(_, entry)| entry);
        entries.filter(|entry| entry.seq <= last).collect()
    }

    pub(super) fn write_now(
        &mut self,
        whose: Whose,
        changes: Vec<Change>,
        provenance: Provenance,
        now: Now,
    ) -> Result<(), SyncError> {
        self.ensure_twin(whose)?;
        let Some(seat) = self.seats.get_mut(&whose) else { return Ok(()) };
        let Some(twin) = &mut seat.twin else { return Ok(()) };
        let written = twin.write(changes, provenance, now);
        let written = written.map_err(|refusal| denied(refusal.code(), &refusal.to_string()))?;
        if let Some(written) = written {
            let position: LogPosition = written.position;
            let (news, answer) = (LinkEvent::stored(position, 0), Answer::Write(written.id));
            self.commit(whose, written.commit, None, vec![news], Some(answer));
            self.seal_soon(whose, now);
        }
        Ok(())
    }

    pub(super) fn seal_soon(&mut self, whose: Whose, now: Now) {
        if let Some(seat) = self.seats.get_mut(&whose) {
            seat.seal_due_ms.get_or_insert(now.mono_ms + SEAL_DELAY_MS);
        }
    }

    pub(super) fn seal(&mut self, whose: Whose) {
        let Some(seat) = self.seats.get_mut(&whose) else { return };
        seat.seal_due_ms = None;
        if let Some((commit, signed, _)) = seat.twin.as_mut().and_then(|twin| twin.seal()) {
            self.commit(whose, commit, None, vec![LinkEvent::Sealed(signed)], None);
        }
    }

    pub(super) fn completed(&mut self, completion: Completion) {
        let Completion { whose, life, ears, origin, news, answer, result } = completion;
        let is_current = self.seats.get(&whose).is_some_and(|seat| seat.life == life);
        if let Some(seat) = self.seats.get_mut(&whose).filter(|_| is_current) {
            seat.in_flight -= 1;
        }
        match result {
            Ok(()) => {
                for ear in ears.into_iter().filter(|ear| Some(*ear) != origin) {
                    let copies = news.iter().filter_map(LinkEvent::for_everybody).collect();
                    self.deliver(ear, of(whose), copies);
                }
                if let Some(origin) = origin {
                    self.deliver(origin, of(whose), news);
                }
                match answer {
                    Some(Answer::Attach { link, number, replica }) => {
                        self.attached(whose, link, number, replica);
                    }
                    Some(Answer::Share(share)) => self.attached_to_group(share),
                    Some(Answer::Write(id)) => self.events.push(BrainEvent::Written(whose, id)),
                    Some(Answer::Member { id, device }) => {
                        self.events.push(BrainEvent::Written(whose, id));
                        let seat = self.seats.get(&Whose::Device(device));
                        let links = seat
                            .map_or_else(Vec::new, |seat| seat.links.values().copied().collect());
                        for link in links {
                            self.look_at_groups(link);
                        }
                    }
                    None => {}
                }
            }
            Err(failure) => {
                let error = failure.to_sync_error();
                if let Whose::Device(_) = whose {
                    for ear in ears {
                        self.close(ear, error.clone(), Some(RETRY_MS));
                    }
                }
                match answer {
                    Some(Answer::Attach { link, .. }) => self.deny(link, error),
                    Some(Answer::Write(_) | Answer::Member { .. }) => self.write_failed(error.code),
                    Some(Answer::Share(_)) | None => {}
                }
                if is_current {
                    self.drop_twin(whose);
                }
            }
        }
    }

    pub(super) fn write_failed(&mut self, code: ErrorCode) {
        self.events.push(BrainEvent::WriteFailed(code));
    }

    /// What is in memory is ahead of the disk: the next who needs the twin loads it anew.
    fn drop_twin(&mut self, whose: Whose) {
        let Some(seat) = self.seats.get_mut(&whose) else { return };
        let life = seat.life + 1;
        let before = std::mem::replace(seat, Seat { life, ..Seat::default() });
        let links: Vec<_> = before.links.into_values().collect();
        match whose {
            Whose::Device(_) => {
                for link in links {
                    let text = "the device's actor restarts";
                    self.close(link, denied(ErrorCode::GoingAway, text), None);
                }
            }
            Whose::Group(_) => self.group_failed(whose, links),
        }
    }

    pub(super) fn ensure_twin(&mut self, whose: Whose) -> Result<(), SyncError> {
        let seat = self.seats.entry(whose).or_default();
        if seat.twin.is_some() {
            return Ok(());
        }
        let loaded = self.store.load(&whose.genesis());
        let loaded = loaded.map_err(|failure| failure.to_sync_error())?;
        let random = &mut self.random;
        let author = self.author.clone().in_open_log(&loaded.record.logs, || random.next_u64());
        seat.twin = Some(match whose {
            Whose::Device(device) => {
                let key = fleet::device_key(device.0[15]).public();
                Twin::new(device, vec![key], author, loaded)
            }
            Whose::Group(_) => Twin::of_group(author, loaded),
        });
        Ok(())
    }

    fn attached(&mut self, whose: Whose, link: LinkId, number: u64, replica: Replica) {
        let Some(seat) = self.seats.get(&whose) else { return };
        if seat.links.get(&number) != Some(&link) {
            return;
        }
        let signed: Vec<_> = seat.twin.as_ref().map_or(Vec::new(), |twin| {
            twin.tree().logs().iter().filter_map(|log| log.signed).collect()
        });
        self.authorised(link, number, replica);
        self.deliver(link, None, signed.into_iter().map(LinkEvent::Sealed).collect());
    }

    /// Queues a commit. `origin` hears all of the news, the other connections what concerns them.
    pub(super) fn commit(
        &mut self,
        whose: Whose,
        commit: TreeCommit,
        origin: Option<LinkId>,
        news: Vec<LinkEvent>,
        answer: Option<Answer>,
    ) {
        let Some(seat) = self.seats.get_mut(&whose) else { return };
        seat.in_flight += 1;
        let (life, ears) = (seat.life, seat.links.values().copied().collect());
        let completions = self.completions.clone();
        let done = move |result| {
            let completion = Completion { whose, life, ears, origin, news, answer, result };
            completions.lock().unwrap_or_else(PoisonError::into_inner).push_back(completion);
        };
        self.store.commit(commit, Box::new(done));
    }
}

fn refusal_news(log: LogId, seq: u64, refusal: &Refusal) -> LinkEvent {
    let fatal = refusal.is_fatal();
    let error = error(refusal.code(), "ingest", refusal.to_string());
    LinkEvent::Refused { log, seq, error, consumed_bytes: 0, fatal }
}

/// Finds the first entry that is known by number and is another one.
fn contradicted(
    store: &crate::store::MemoryStore,
    twin: &Twin,
    log: &LogId,
    known: &[(u64, EntryId)],
) -> Option<u64> {
    let (first, _) = known.first()?;
    let number = twin.tree().log_number(log)?;
    let kept = store.range(twin.number(), number, first - 1, PLAIN_BYTES_MAX).unwrap_or_default();
    let differs = |(seq, id): &&(u64, EntryId)| {
        kept.iter().any(|(kept, entry)| entry.seq == *seq && kept != id)
    };
    known.iter().find(differs).map(|(seq, _)| *seq)
}
