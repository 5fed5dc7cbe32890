//! What a device and its twin do not agree on: signed heads, cuts, refused entries.
//!
//! All of it is rare and needs the history, which the twin does not keep at hand.

use protocol::clock::{Hlc, check_not_ahead};
use protocol::history::{Cut, Entry, Head, LogId, SignedHead};
use protocol::session::Now;
use protocol::wire::{PLAIN_BYTES_MAX, Refuse};
use protocol::{EntryId, ErrorCode};
use tokio::sync::oneshot;

use super::links::News;
use super::{
    CutAnswer, DeviceMsg, OwnEntries, REFUSED_RETRY_MS, Reissued, TreeActor, TreeOf, Whose,
};
use crate::ports::{CommitError, LinkEvent, TreeCommit};
use crate::supervise::{Context, NodeError};
use crate::trace::Spans;

impl<W: Whose> TreeActor<W> {
    pub(super) async fn take_signed_head(
        &mut self,
        ctx: &Context<DeviceMsg>,
        signed: SignedHead,
    ) -> Result<(), NodeError> {
        let Head { log, seq, id, .. } = signed.head;
        let twin = self.twin_mut();
        let applied = twin.tree().log(&log).is_some_and(|known| seq > 0 && seq <= known.seq);
        let taken = if !applied || twin.id_of(&log, seq).is_some() {
            twin.take_signed_head(signed)
        } else {
            // Signed long after it was written, for instance before an earlier connection broke.
            let kept = self.read(ctx, &log, seq - 1, 1).await?;
            let proved = kept.first().is_some_and(|(kept, _)| *kept == id);
            proved.then(|| self.twin_mut().take_proved_head(signed)).flatten()
        };
        if let Some((commit, position)) = taken {
            let mut news = vec![LinkEvent::stored(position, 0)];
            if self.is_shared() {
                // What was written may go to the other members now, with this to vouch for it.
                news.push(LinkEvent::Sealed(signed));
            }
            self.commit(ctx, commit, News::all(news), &Spans::default(), None);
        }
        Ok(())
    }

    pub(super) async fn take_cut(
        &mut self,
        ctx: &Context<DeviceMsg>,
        cut: Cut,
        now: Now,
    ) -> Result<(), NodeError> {
        let told = self.is_shared().then(|| LinkEvent::CutMade(cut.clone()));
        let commit = match self.twin_mut().take_cut(cut) {
            CutAnswer::Nothing => return Ok(()),
            CutAnswer::Ends(commit) => *commit,
            CutAnswer::Below(cut) => match self.cut_below(ctx, *cut, now).await? {
                Some(commit) => commit,
                None => return Ok(()),
            },
        };
        let news = News::all(told.into_iter().collect());
        self.commit(ctx, commit, news, &Spans::default(), None);
        Ok(())
    }

    fn is_shared(&self) -> bool {
        matches!(self.args.of, TreeOf::Group { .. })
    }

    /// Ends a log below entries that are here already; none where the history says otherwise.
    async fn cut_below(
        &mut self,
        ctx: &Context<DeviceMsg>,
        cut: Cut,
        now: Now,
    ) -> Result<Option<TreeCommit>, NodeError> {
        let Cut { log, last_seq, last_id, .. } = cut;
        let device = self.args.of.clone();
        if !self.settled(ctx).await {
            return Ok(None);
        }
        if last_seq > 0 {
            let last = self.read(ctx, &log, last_seq - 1, 1).await?;
            if last.first().is_none_or(|(id, _)| *id != last_id) {
                tracing::warn!(%device, last_seq, "a cut names an entry that its log does not have");
                return Ok(None);
            }
        }
        let mut refold = self.twin_mut().cut_below(cut);
        tracing::warn!(%device, last_seq, "a log ends below entries that are here; folded again without them");
        let logs: Vec<LogId> = match refold.is_empty() {
            // Other entries have replaced all that was cut off.
            true => Vec::new(),
            false => {
                self.start_from_base(ctx, &mut refold).await?;
                self.twin_mut().tree().logs().iter().map(|known| known.log).collect()
            }
        };
        for log in logs {
            let mut after = 0;
            loop {
                let page = self.read(ctx, &log, after, PLAIN_BYTES_MAX).await?;
                let Some((_, last)) = page.last() else { break };
                after = last.seq;
                let tree = self.twin_mut().tree();
                page.iter().for_each(|(_, entry)| refold.take(tree, entry));
            }
        }
        Ok(Some(self.twin_mut().refolded(refold, now)))
    }

    /// Deals with an entry that the device does not take.
    pub(super) async fn refused_by_peer(
        &mut self,
        ctx: &Context<DeviceMsg>,
        connection: u64,
        refuse: Refuse,
        now: Now,
    ) -> Result<(), NodeError> {
        let Refuse { log, seq, error: reason, now_ms, .. } = refuse;
        let twin = self.twin_mut();
        let ended = twin.tree().log(&log).and_then(|known| known.cut.as_ref());
        if ended.is_some_and(|cut| cut.last_seq < seq) {
            return Ok(());
        }
        let own = twin.own_logs();
        let is_own = own.iter().any(|(own, _)| *own == log);
        // While this clock is ahead of the device's, what is written again is refused again.
        let clock_is_right =
            check_not_ahead(Hlc { wall_ms: now.wall_ms, counter: 0 }, now_ms).is_ok();
        if reason.code != ErrorCode::ClockAhead || !is_own || !clock_is_right {
            tracing::error!(device = %self.args.of, code = %reason.code, seq, "the device refused an entry");
            let retry_after_ms = Some(REFUSED_RETRY_MS);
            self.links.send(connection, LinkEvent::Close { error: reason, retry_after_ms });
            return Ok(());
        }
        if !self.settled(ctx).await {
            return Ok(());
        }
        let mut written = OwnEntries::new();
        for (log, _) in own {
            let entries = written.entry(log).or_default();
            loop {
                let after = entries.last().map_or(0, |(_, entry)| entry.seq);
                match self.read(ctx, &log, after, PLAIN_BYTES_MAX).await? {
                    more if more.is_empty() => break,
                    more => entries.extend(more),
                }
            }
        }
        let epoch = (self.args.epochs)();
        let reissued = self.twin_mut().reissue(log, seq, &written, epoch, now);
        let Some(Reissued { cuts, commit, position }) = reissued else {
            let retry_after_ms = Some(REFUSED_RETRY_MS);
            self.links.send(connection, LinkEvent::Close { error: reason, retry_after_ms });
            return Ok(());
        };
        tracing::warn!(device = %self.args.of, logs = cuts.len(), "entries dated ahead are written again");
        let mut news: Vec<_> = cuts.into_iter().map(LinkEvent::CutMade).collect();
        news.push(LinkEvent::stored(position, 0));
        self.commit(ctx, commit, News::all(news), &Spans::default(), None);
        self.seal_soon(ctx);
        Ok(())
    }

    /// Waits until everything queued is durable, and says whether it is.
    pub(super) async fn settled(&mut self, ctx: &Context<DeviceMsg>) -> bool {
        let (done, wait) = oneshot::channel();
        let commit = self.twin_mut().settle();
        let tell = move |result: Result<(), CommitError>| {
            // A failed commit restarts this actor; nobody waits for the answer then.
            let _ = done.send(result.is_ok());
        };
        self.queue(ctx, commit, Box::new(tell));
        ctx.waiting(wait).await.unwrap_or(false)
    }

    /// Reads entries of a log above `after` from the store.
    pub(super) async fn read(
        &mut self,
        ctx: &Context<DeviceMsg>,
        log: &LogId,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<(EntryId, Entry)>, NodeError> {
        let twin = self.twin_mut();
        let tree = twin.number();
        let Some(number) = twin.tree().log_number(log) else { return Ok(Vec::new()) };
        let store = self.args.store.clone();
        let read = move || store.range(tree, number, after, bytes_max);
        Ok(ctx.waiting(tokio::task::spawn_blocking(read)).await??)
    }

    /// Looks up entries that are known by number, and finds the first that is another one.
    pub(super) async fn contradicted(
        &mut self,
        ctx: &Context<DeviceMsg>,
        log: &LogId,
        known: &[(u64, EntryId)],
    ) -> Result<Option<u64>, NodeError> {
        let Some((first, _)) = known.first() else { return Ok(None) };
        let kept = self.read(ctx, log, first - 1, PLAIN_BYTES_MAX).await?;
        let contradiction = known
            .iter()
            .find(|(seq, id)| kept.iter().any(|(kept, entry)| entry.seq == *seq && kept != id));
        Ok(contradiction.map(|(seq, _)| *seq))
    }
}
