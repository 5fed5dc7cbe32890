//! Trees that both sides hold.
//!
//! They come and go on a link that stays: one whose keeper fails is left, and shared again later.
//! A brain offers what the device is to share. Two devices share the trees of which each of them
//! knows that both are members; of others they do not speak.

use actors::supervise::AskError;
use protocol::TreeId;
use protocol::history::{Genesis, VersionVector};
use protocol::session::{Input, Output, Replica};
use protocol::wire::LogPosition;
use tokio::time::Instant;

use super::{Partner, SWEEP, Step, Talk, Topic};
use crate::shares::{self, Share, ShareError};
use crate::track::{self, Outcome, WriteError};

/// Why a shared tree is not taken up.
#[derive(Debug, thiserror::Error)]
enum OfferError {
    #[error(transparent)]
    Share(#[from] ShareError),
    #[error("its keeper does not answer")]
    Track(#[from] AskError),
    #[error("its keeper cannot write")]
    Write(#[from] WriteError),
    #[error("opening it was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl Talk<'_> {
    /// The other side shares a tree: it is opened here as well.
    pub(super) async fn offered(
        &mut self,
        genesis: Genesis,
        logs: Vec<LogPosition>,
        root: [u8; 32],
    ) -> Vec<Output> {
        let (tree, group) = (genesis.tree_id(), genesis.name.clone());
        if genesis.fleet != self.around.fleet {
            tracing::warn!(group, "a tree of another fleet is offered");
            return Vec::new();
        }
        if !self.may_share(&genesis).await {
            tracing::warn!(group, "a tree is offered by no member of it");
            return Vec::new();
        }
        match self.take_up(genesis, Some((logs, root))).await {
            Ok(outputs) => {
                tracing::info!(group, "tree of a group is shared");
                outputs
            }
            Err(error) => self.not_taken_up(tree, &group, &error),
        }
    }

    /// Shares with another device what both are members of, and leaves what they are not.
    pub(super) async fn share_what_both_have(&mut self) -> Step {
        let Partner::Peer(peer) = &self.partner else { return Ok(None) };
        if !self.session.is_established() {
            return Ok(None);
        }
        self.sweep_due = Some(Instant::now() + SWEEP);
        let mutual = self.around.shares.mutual(&peer.key, &self.around.own_key);
        let ended = self.shared.keys().copied();
        let ended: Vec<TreeId> =
            ended.filter(|tree| !mutual.iter().any(|genesis| genesis.tree_id() == *tree)).collect();
        let mut outputs = Vec::new();
        for tree in ended {
            // One that is about to be filled knows no members yet.
            let topic = self.shared.get(&tree);
            if topic.is_some_and(|topic| topic.had_members) {
                outputs.extend(self.leave(tree, "it has not both as members any more"));
            }
        }
        for genesis in mutual {
            let (tree, group) = (genesis.tree_id(), genesis.name.clone());
            if let Some(topic) = self.shared.get_mut(&tree) {
                topic.had_members = true;
                continue;
            }
            outputs.extend(match self.take_up(genesis, None).await {
                Ok(outputs) => outputs,
                Err(error) => self.not_taken_up(tree, &group, &error),
            });
        }
        self.perform(outputs).await
    }

    /// Whether the other side may see this tree: a brain may see all; a device, those that both are
    /// members of. A device that has just become one learns from the others who they are.
    async fn may_share(&mut self, genesis: &Genesis) -> bool {
        let Partner::Peer(peer) = &self.partner else { return true };
        let shares = self.around.shares;
        if shares.mutual(&peer.key, &self.around.own_key).contains(genesis) {
            return true;
        }
        shares.has_no_members(genesis)
            && self
                .around
                .own_track
                .ask(track::Msg::State, Self::patience(None))
                .await
                .is_ok_and(|own| shares::is_in(&own.state, &genesis.name))
    }

    fn not_taken_up(&mut self, tree: TreeId, group: &str, error: &OfferError) -> Vec<Output> {
        let error = protocol::session::with_causes(error);
        tracing::error!(group, error, "tree of a group is not shared");
        self.shared.remove(&tree);
        self.handle(Input::Leave(tree))
    }

    async fn take_up(
        &mut self,
        genesis: Genesis,
        offered: Option<(Vec<LogPosition>, [u8; 32])>,
    ) -> Result<Vec<Output>, OfferError> {
        let share = self.open(&genesis).await?;
        let mut topic = Topic::new(share.track.clone(), &share.board);
        let tree = genesis.tree_id();
        let patience = Self::patience(Some(tree));
        let mut outcomes = Vec::new();
        if let (Partner::Brain(brain), Some((logs, root))) = (&self.partner, offered) {
            if let Some(brain) = brain.key {
                share.track.cast(track::Msg::MetBrain(brain), patience).await.ok();
            }
            // The same logs come to the same leaves, unless something was lost on the way.
            let compare = |reply| track::Msg::Compare(logs.clone(), root, reply);
            share.track.ask(compare, patience).await??;
            // A log that turned out to have ended must have ended before the session sends of it.
            let ask = |reply| track::Msg::PeerHeads(logs, reply);
            outcomes = share.track.ask(ask, patience).await??;
        }
        topic.had_members = !self.around.shares.has_no_members(&genesis);
        let view = share.track.ask(track::Msg::View, patience).await?;
        let author = self.around.own_key;
        let root = view.root;
        let floor = VersionVector::default();
        let replica =
            Box::new(Replica { tree, logs: view.positions, floor, ends: Vec::new(), author });
        self.shared.insert(tree, topic);
        let mut outputs = self.handle(Input::Share { genesis, replica, root });
        for outcome in outcomes {
            if let Outcome::Reissued { .. } = outcome {
                outputs.extend(self.reissued(Some(tree), outcome));
            }
        }
        outputs.extend(self.introduce(Some(tree)).await?);
        Ok(outputs)
    }

    /// The keeper of a shared tree. Where there is no room, those go that this device is in no
    /// more.
    async fn open(&mut self, genesis: &Genesis) -> Result<Share, OfferError> {
        let shares = self.around.shares;
        if shares.is_full(&genesis.name) {
            let own = self.around.own_track.ask(track::Msg::State, track::PATIENCE).await?;
            shares.forget_others(&own.state).await;
        }
        let (shares, genesis) = (shares.clone(), genesis.clone());
        Ok(tokio::task::spawn_blocking(move || shares.open(&genesis)).await??)
    }

    /// Speaks of a shared tree no longer; it is offered again after a while.
    pub(super) fn leave(&mut self, tree: TreeId, why: &str) -> Vec<Output> {
        tracing::warn!(tree = %tree, why, "a shared tree is left for now");
        self.shared.remove(&tree);
        self.handle(Input::Leave(tree))
    }
}
