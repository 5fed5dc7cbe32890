//! Hands commits to a store, not too many at once.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use actors::ports::{CommitError, TreeCommit, TreeStore};
use anyhow::Context;
use brain::store::Store;

/// How long a commit may take.
const TIME_MAX: Duration = Duration::from_secs(120);

/// The writing end of a store.
pub(super) struct Scribe {
    store: Store,
    under_way_max: usize,
    under_way: usize,
    done: Sender<Result<(), CommitError>>,
    news: Receiver<Result<(), CommitError>>,
}

impl Scribe {
    /// One that leaves so many commits without an answer at most.
    pub(super) fn new(store: &Store, under_way_max: usize) -> Self {
        let (done, news) = channel();
        Self { store: store.clone(), under_way_max, under_way: 0, done, news }
    }

    /// Hands over a commit, when there is room for it.
    pub(super) fn commit(&mut self, commit: TreeCommit) -> anyhow::Result<()> {
        self.wait(self.under_way_max - 1)?;
        let done = self.done.clone();
        // Nobody waits any more where an earlier one failed.
        self.store.commit(commit, Box::new(move |result| drop(done.send(result))));
        self.under_way += 1;
        Ok(())
    }

    /// Waits until everything is durable.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.wait(0)
    }

    fn wait(&mut self, left: usize) -> anyhow::Result<()> {
        while self.under_way > left {
            self.news.recv_timeout(TIME_MAX).context("a commit is not answered")??;
            self.under_way -= 1;
        }
        Ok(())
    }
}
