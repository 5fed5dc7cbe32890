//! What the brain and a device do not agree on, and what is kept no longer: all of it needs the history.

use actors::device::{CutAnswer, OwnEntries, Twin};
use actors::ports::{LinkEvent, Snapshot, TreeCommit, TreeStore};
use protocol::clock::{Hlc, check_not_ahead};
use protocol::history::{Cut, Entry, Head, SignedHead};
use protocol::session::Now;
use protocol::wire::{PLAIN_BYTES_MAX, Refuse};
use protocol::{ErrorCode, SyncError, TreeId};

use super::seat::{RETRY_MS, SEAL_DELAY_MS};
use super::{SimBrain, denied};
use crate::fleet::Whose;
use crate::network::LinkId;
use crate::store::MemoryStore;

impl SimBrain {
    pub(super) fn take_signed_head(&mut self, whose: Whose, signed: SignedHead) {
        let Head { log, seq, id, .. } = signed.head;
        let twin = self.seats.get_mut(&whose).and_then(|seat| seat.twin.as_mut());
        let Some(twin) = twin else { return };
        let applied = twin.tree().log(&log).is_some_and(|known| seq > 0 && seq <= known.seq);
        let taken = if !applied || twin.id_of(&log, seq).is_some() {
            twin.take_signed_head(signed)
        } else {
            let number = twin.tree().log_number(&log).unwrap_or_default();
            let kept = self.store.range(twin.number(), number, seq - 1, 1).unwrap_or_default();
            let proved = kept.first().is_some_and(|(kept, _)| *kept == id);
            proved.then(|| twin.take_proved_head(signed)).flatten()
        };
        if let Some((commit, position)) = taken {
            let mut news = vec![LinkEvent::stored(position, 0)];
            if let Whose::Group(_) = whose {
                // What was written may go to the other members now, with this to vouch for it.
                news.push(LinkEvent::Sealed(signed));
            }
            self.commit(whose, commit, None, news, None);
        }
    }

    pub(super) fn take_cut(&mut self, whose: Whose, cut: Cut) {
        let now = self.now();
        let told = matches!(whose, Whose::Group(_)).then(|| LinkEvent::CutMade(cut.clone()));
        let Some(seat) = self.seats.get_mut(&whose) else { return };
        let Some(twin) = &mut seat.twin else { return };
        let commit = match twin.take_cut(cut) {
            CutAnswer::Nothing => return,
            CutAnswer::Ends(commit) => *commit,
            // The device sends it again on its next connection.
            CutAnswer::Below(_) if seat.in_flight > 0 => return,
            CutAnswer::Below(cut) => match cut_below(&self.store, twin, *cut, now) {
                Some(commit) => commit,
                None => return,
            },
        };
        self.commit(whose, commit, None, told.into_iter().collect(), None);
    }

    pub(super) fn refused_by_peer(
        &mut self,
        whose: Whose,
        link: LinkId,
        of: Option<TreeId>,
        refuse: Refuse,
    ) {
        let Refuse { log, seq, error, now_ms, .. } = refuse;
        let now = self.now();
        let Some(seat) = self.seats.get_mut(&whose) else { return };
        let Some(twin) = &mut seat.twin else { return };
        let ended = twin.tree().log(&log).and_then(|known| known.cut.as_ref());
        if ended.is_some_and(|cut| cut.last_seq < seq) {
            return;
        }
        let own = twin.own_logs();
        let is_own = own.iter().any(|(own, _)| *own == log);
        let hlc = Hlc { wall_ms: now.wall_ms, counter: 0 };
        let clock_is_right = check_not_ahead(hlc, now_ms).is_ok();
        let close = LinkEvent::Close { error: error.clone(), retry_after_ms: Some(RETRY_MS) };
        // What is queued can only be read when it is durable: the device will come back.
        if error.code != ErrorCode::ClockAhead || !is_own || !clock_is_right || seat.in_flight > 0 {
            return self.link_event(link, of, close);
        }
        let mut written = OwnEntries::new();
        for (log, number) in own {
            let entries = written.entry(log).or_default();
            loop {
                let after = entries.last().map_or(0, |(_, entry): &(_, Entry)| entry.seq);
                let more = self.store.range(twin.number(), number, after, PLAIN_BYTES_MAX);
                match more.unwrap_or_default() {
                    more if more.is_empty() => break,
                    more => entries.extend(more),
                }
            }
        }
        let epoch = self.random.next_u64();
        let Some(reissued) = twin.reissue(log, seq, &written, epoch, now) else {
            return self.link_event(link, of, close);
        };
        seat.seal_due_ms.get_or_insert(now.mono_ms + SEAL_DELAY_MS);
        let mut news: Vec<_> = reissued.cuts.into_iter().map(LinkEvent::CutMade).collect();
        let position = reissued.position;
        news.push(LinkEvent::stored(position, 0));
        self.commit(whose, reissued.commit, None, news, None);
    }

    /// What a session asked for whose peer lacks what was pruned.
    pub(super) fn fetch_checkpoint(&mut self, whose: Whose, link: LinkId, of: Option<TreeId>) {
        let twin = self.seats.get(&whose).and_then(|seat| seat.twin.as_ref());
        let Some(twin) = twin else { return };
        match read_base(&self.store, twin).and_then(|snapshot| twin.checkpoint(snapshot)) {
            Some(checkpoint) => self.checkpoint(link, of, checkpoint),
            None => {
                let error = denied(ErrorCode::NotFound, "the checkpoint is not there yet");
                let close = LinkEvent::Close { error, retry_after_ms: Some(RETRY_MS) };
                self.link_event(link, of, close);
            }
        }
    }

    /// Lets the history of a tree begin with the snapshot that `choose` takes of those on disk;
    /// makes one where there is none yet. Returns whether it was pruned.
    pub(super) fn prune_now(
        &mut self,
        whose: Whose,
        choose: impl FnOnce(usize) -> usize,
        now: Now,
    ) -> Result<bool, SyncError> {
        self.ensure_twin(whose)?;
        let Some(seat) = self.seats.get_mut(&whose) else { return Ok(false) };
        let Some(twin) = &mut seat.twin else { return Ok(false) };
        let begins = twin.base().map_or(0, |base| base.version);
        let versions: Vec<_> = self.store.with_tree(twin.tree().id(), |tree| {
            tree.map_or(Vec::new(), |tree| tree.snapshots().filter(|v| *v > begins).collect())
        });
        if versions.is_empty() {
            if twin.version() > begins {
                let commit = twin.snapshot();
                self.commit(whose, commit, None, Vec::new(), None);
            }
            return Ok(false);
        }
        let version = versions[choose(versions.len())];
        let snapshot = self.store.snapshot(twin.number(), version).ok().flatten();
        let pruned = snapshot.and_then(|snapshot| twin.prune(&snapshot, Vec::new(), now).ok());
        let Some(commit) = pruned else { return Ok(false) };
        let news = vec![LinkEvent::Pruned(twin.floor())];
        self.commit(whose, commit, None, news, None);
        Ok(true)
    }
}

/// Ends a log below entries that are in the store; none where it has another entry there.
fn cut_below(store: &MemoryStore, twin: &mut Twin, cut: Cut, now: Now) -> Option<TreeCommit> {
    let Cut { log, last_seq, last_id, .. } = cut;
    let read = |log: u32, after: u64, bytes: usize, tree: u64| {
        store.range(tree, log, after, bytes).unwrap_or_default()
    };
    let (tree, number) = (twin.number(), twin.tree().log_number(&log)?);
    if last_seq > 0 && read(number, last_seq - 1, 1, tree).first()?.0 != last_id {
        return None;
    }
    let mut refold = twin.cut_below(cut);
    if let Some(Snapshot { logs, leaves, .. }) = read_base(store, twin) {
        refold.start_from(twin.tree(), &logs, &leaves);
    }
    for number in 0..twin.tree().logs().len() as u32 {
        let mut after = 0;
        loop {
            let page = read(number, after, PLAIN_BYTES_MAX, tree);
            let Some((_, last)) = page.last() else { break };
            after = last.seq;
            page.iter().for_each(|(_, entry)| refold.take(twin.tree(), entry));
        }
    }
    Some(twin.refolded(refold, now))
}

/// The snapshot that a pruned history begins with.
fn read_base(store: &MemoryStore, twin: &Twin) -> Option<Snapshot> {
    store.snapshot(twin.number(), twin.base()?.version).ok().flatten()
}
