//! One tree of a conversation: its keeper, and what is to be signed.

use std::time::Duration;

use actors::supervise::{Address, AskError};
use protocol::TreeId;
use protocol::history::LogId;
use protocol::session::{Input, Output};
use protocol::wire::LogPosition;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Step, Talk};
use crate::status::Board;
use crate::track::{self, News, Revision};

/// A head is signed so long after the first unsigned entry, at the latest.
const SEAL_DELAY: Duration = Duration::from_secs(1);
/// Or after so many entries.
const SEAL_ENTRIES: u64 = 256;

/// How long the keeper of a shared tree may take.
const SHARED_PATIENCE: Duration = Duration::from_secs(5);

/// One tree of a conversation.
pub(crate) struct Topic {
    pub(super) track: Address<track::Msg>,
    /// Where the own log durably stands.
    pub(super) position: watch::Receiver<Option<LogPosition>>,
    /// How often the logs of a shared tree have changed.
    pub(super) logs: watch::Receiver<Revision>,
    /// Up to where the session was told of that.
    told: Revision,
    /// Whether the tree said who its members are.
    pub(super) had_members: bool,
    pub(super) seal_due: Option<Instant>,
    /// The number of the last own entry under a seal, and the log that it is in.
    pub(super) sealed: u64,
    log: Option<LogId>,
    /// How often the brain refused something.
    pub(super) refusals: u32,
}

impl Topic {
    pub(super) fn new(track: Address<track::Msg>, board: &Board) -> Self {
        let position = board.watch_position();
        Self {
            track,
            position,
            logs: board.watch_logs(),
            told: 0,
            had_members: false,
            seal_due: None,
            sealed: 0,
            log: None,
            refusals: 0,
        }
    }

    /// The own log durably stands here: says when it is to be signed.
    fn moved(&mut self, position: &LogPosition) {
        if self.log.replace(position.log) != Some(position.log) {
            self.sealed = 0;
        }
        let unsealed = position.seq.saturating_sub(self.sealed.max(position.sealed));
        if unsealed >= SEAL_ENTRIES {
            self.seal_due = Some(Instant::now());
        } else if unsealed > 0 {
            self.seal_due.get_or_insert_with(|| Instant::now() + SEAL_DELAY);
        }
    }
}

impl Talk<'_> {
    /// The device's tree, and those that it shares.
    pub(super) fn topics(&self) -> Vec<Option<TreeId>> {
        let own = self.partner.own().map(|_| None);
        own.into_iter().chain(self.shared.keys().copied().map(Some)).collect()
    }

    pub(super) fn topic(&mut self, of: Option<TreeId>) -> Option<&mut Topic> {
        match of {
            Some(tree) => self.shared.get_mut(&tree),
            None => self.partner.own_mut(),
        }
    }

    /// How long the keeper of a tree may take: the device's own tree waits for no other.
    pub(super) fn patience(of: Option<TreeId>) -> Duration {
        if of.is_some() { SHARED_PATIENCE } else { track::PATIENCE }
    }

    /// The keeper of a tree; none where it is shared no longer.
    pub(super) fn track(&mut self, of: Option<TreeId>) -> Option<Address<track::Msg>> {
        self.topic(of).map(|topic| topic.track.clone())
    }

    pub(super) async fn tell(&mut self, of: Option<TreeId>, message: track::Msg) {
        if let Some(track) = self.track(of) {
            // Whoever does not take it is restarting, and learns the same from the next session.
            let _ = track.cast(message, Self::patience(of)).await;
        }
    }

    /// The own log of the device's tree durably stands further than before.
    pub(super) async fn moved(&mut self) -> Step {
        let Some(topic) = self.topic(None) else { return Ok(None) };
        let Some(position) = *topic.position.borrow_and_update() else { return Ok(None) };
        topic.moved(&position);
        let stored = Input::Stored { log: position.log, position, consumed_bytes: 0 };
        self.feed_of(None, stored).await
    }

    /// Shared trees may have moved, and so may who their members are.
    pub(super) async fn shared_moved(&mut self) -> Step {
        let moved = |(_, topic): &(&TreeId, &Topic)| topic.logs.has_changed().unwrap_or(false);
        let moved: Vec<_> = self.shared.iter().filter(moved).map(|(tree, _)| *tree).collect();
        for tree in moved {
            let outputs = match self.tell_news(tree).await {
                Ok(outputs) => outputs,
                // The device's own tree goes on without it.
                Err(error) => self.leave(tree, &error.to_string()),
            };
            if let Some(ended) = self.perform(outputs).await? {
                return Ok(Some(ended));
            }
        }
        if self.around.shares.members_changed(&mut self.members) {
            return self.share_what_both_have().await;
        }
        Ok(None)
    }

    /// Tells the session what of a shared tree's logs has changed, whoever wrote them.
    async fn tell_news(&mut self, tree: TreeId) -> Result<Vec<Output>, AskError> {
        let of = Some(tree);
        let own_key = self.around.own_key;
        let Some(topic) = self.topic(of) else { return Ok(Vec::new()) };
        topic.logs.mark_unchanged();
        let (track, told) = (topic.track.clone(), topic.told);
        let ask = |reply| track::Msg::News(told, reply);
        let News { revision, positions, cuts, seals } = track.ask(ask, Self::patience(of)).await?;
        let Some(topic) = self.topic(of) else { return Ok(Vec::new()) };
        topic.told = revision;
        for position in positions.iter().filter(|position| position.log.author == own_key) {
            topic.moved(position);
        }
        let mut outputs = Vec::new();
        for cut in cuts {
            outputs.extend(self.handle_of(of, Input::CutMade(cut)));
        }
        for position in positions {
            let (log, consumed_bytes) = (position.log, 0);
            outputs.extend(self.handle_of(of, Input::Stored { log, position, consumed_bytes }));
        }
        for signed in seals {
            outputs.extend(self.handle_of(of, Input::Sealed(signed)));
        }
        Ok(outputs)
    }

    pub(super) async fn seal(&mut self, of: Option<TreeId>) -> Step {
        let Some(topic) = self.topic(of) else { return Ok(None) };
        topic.seal_due = None;
        let track = topic.track.clone();
        match (track.ask(track::Msg::Seal, Self::patience(of)).await, of) {
            (Ok(Some(signed)), _) => {
                if let Some(topic) = self.topic(of) {
                    (topic.sealed, topic.log) = (signed.head.seq, Some(signed.head.log));
                }
                self.feed_of(of, Input::Sealed(signed)).await
            }
            (Ok(None), _) => Ok(None),
            (Err(error), None) => Err(error),
            (Err(error), Some(tree)) => {
                let outputs = self.leave(tree, &error.to_string());
                self.perform(outputs).await
            }
        }
    }

    /// Gives the session an event of a tree and carries out what follows.
    pub(super) async fn feed_of(&mut self, of: Option<TreeId>, input: Input<'_>) -> Step {
        let outputs = self.handle_of(of, input);
        self.perform(outputs).await
    }

    pub(super) fn handle_of(&mut self, of: Option<TreeId>, input: Input<'_>) -> Vec<Output> {
        match of {
            Some(tree) => self.handle(Input::OfShared { tree, input: Box::new(input) }),
            None => self.handle(input),
        }
    }

    /// Tells the session of what a tree has: what was written, signed and ended before.
    pub(super) async fn introduce(&mut self, of: Option<TreeId>) -> Result<Vec<Output>, AskError> {
        let Some(track) = self.track(of) else { return Ok(Vec::new()) };
        let sealed = track.ask(track::Msg::Seal, Self::patience(of)).await?;
        if let Some(topic) = self.topic(of) {
            topic.sealed = sealed.map_or(0, |signed| signed.head.seq);
            topic.log = sealed.map(|signed| signed.head.log);
        }
        if let Some(tree) = of {
            return self.tell_news(tree).await;
        }
        let view = track.ask(track::Msg::View, Self::patience(of)).await?;
        let mut outputs = Vec::new();
        for cut in view.cuts {
            outputs.extend(self.handle(Input::CutMade(cut)));
        }
        for position in view.positions {
            if position.log.author == self.around.own_key {
                let (log, consumed_bytes) = (position.log, 0);
                outputs.extend(self.handle(Input::Stored { log, position, consumed_bytes }));
            }
        }
        for signed in view.seals {
            outputs.extend(self.handle(Input::Sealed(signed)));
        }
        Ok(outputs)
    }
}
