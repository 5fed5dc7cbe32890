//! How a twin's changes become durable, and who hears of it.

use super::links::News;
use super::{DISK_FULL_RETRY_MS, DeviceMsg, TreeActor, Whose, not_stored};
use crate::account::{InFlight, Outcome, Reason};
use crate::ports::{CommitDone, CommitError, ConflictChange, LinkEvent, TreeCommit};
use crate::supervise::{Address, Context};
use crate::trace::Spans;
use crate::traced_span;

impl<W: Whose> TreeActor<W> {
    /// Queues a commit; when it is durable, the connections hear `news` and `answer` is called.
    pub(super) fn commit(
        &mut self,
        ctx: &Context<DeviceMsg>,
        commit: TreeCommit,
        mut news: News,
        spans: &Spans,
        answer: Option<CommitDone>,
    ) {
        let to = self.links.ears();
        let changed: Vec<_> = commit.conflicts.iter().map(ConflictChange::news).collect();
        let desk = (!changed.is_empty()).then(|| self.args.conflicts.clone());
        let mut committing = spans.then(|parent| traced_span!(parent, "store.commit"));
        self.queue(
            ctx,
            commit,
            Box::new(move |result| {
                let acknowledge = |parent| traced_span!(parent, "link.acknowledge");
                let spans = std::mem::take(&mut committing).then(acknowledge);
                if result.is_ok() {
                    news.acknowledge_in(spans);
                    news.deliver(&to);
                }
                if let (Ok(()), Some(desk)) = (&result, desk) {
                    changed.into_iter().for_each(|news| news.tell(&*desk));
                }
                if let Some(answer) = answer {
                    answer(result);
                }
            }),
        );
    }

    pub(super) fn queue(&mut self, ctx: &Context<DeviceMsg>, commit: TreeCommit, done: CommitDone) {
        if ctx.is_killed() {
            // Given up while it blocked its thread: another life may have loaded the tree.
            return done(Err(CommitError::Superseded));
        }
        self.args.commits.begin();
        let args = self.args.clone();
        let address = ctx.address().clone();
        let to = self.links.ears();
        self.args.store.commit(
            commit,
            Box::new(move |result| {
                args.commits.end(result.is_ok());
                if let Err(error) = &result {
                    let retry_after_ms = Some(DISK_FULL_RETRY_MS);
                    for ear in to {
                        let error = not_stored(error, "commit");
                        ear.deliver(LinkEvent::Close { error, retry_after_ms });
                    }
                    pass_on(&address, DeviceMsg::CommitFailed(error.clone()));
                }
                done(result);
            }),
        );
    }
}

/// Casts from the store's thread. A twin with a full mailbox or none hears of it when it loads.
pub(super) fn pass_on(address: &Address<DeviceMsg>, msg: DeviceMsg) {
    if let Err(error) = address.try_cast(msg) {
        tracing::debug!(?error, "a twin was not told of its commit");
    }
}

/// Says what became of entries, once their commit has.
pub(super) fn settling(in_flight: InFlight, outcome: Outcome) -> CommitDone {
    Box::new(move |committed| match committed {
        Ok(()) => in_flight.settle(&outcome),
        Err(error) => in_flight.settle(&outcome.not_committed(Reason::from(&error))),
    })
}
