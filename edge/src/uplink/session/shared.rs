//! Trees that the brain shares with this device.
//!
//! They come and go on a link that stays: one whose keeper fails is left, and the brain offers it
//! again.

use actors::supervise::AskError;
use protocol::TreeId;
use protocol::history::{Genesis, VersionVector};
use protocol::session::{Input, Output, Replica};
use protocol::wire::LogPosition;

use super::{Talk, Topic};
use crate::shares::{Share, ShareError};
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
    /// The brain shares a tree: it is opened here as well.
    pub(super) async fn offered(
        &mut self,
        genesis: Genesis,
        logs: Vec<LogPosition>,
        root: [u8; 32],
    ) -> Vec<Output> {
        let (tree, group) = (genesis.tree_id(), genesis.name.clone());
        if genesis.fleet != self.around.fleet {
            tracing::warn!(group, "brain shares a tree of another fleet");
            return Vec::new();
        }
        match self.take_up(genesis, logs, root).await {
            Ok(outputs) => {
                tracing::info!(group, "tree of a group is shared");
                outputs
            }
            Err(error) => {
                let error = protocol::session::with_causes(&error);
                tracing::error!(group, error, "tree of a group is not shared");
                self.shared.remove(&tree);
                self.handle(Input::Leave(tree))
            }
        }
    }

    async fn take_up(
        &mut self,
        genesis: Genesis,
        logs: Vec<LogPosition>,
        root: [u8; 32],
    ) -> Result<Vec<Output>, OfferError> {
        let share = self.open(&genesis).await?;
        let topic = Topic::new(share.track.clone(), &share.board);
        let tree = genesis.tree_id();
        let patience = Self::patience(Some(tree));
        if let Some(brain) = self.brain {
            share.track.cast(track::Msg::MetBrain(brain), patience).await.ok();
        }
        // The same logs come to the same leaves, unless something was lost on the way.
        let compare = |reply| track::Msg::Compare(logs.clone(), root, reply);
        share.track.ask(compare, patience).await??;
        // A log that turned out to have ended must have ended before the session sends of it.
        let ask = |reply| track::Msg::PeerHeads(logs, reply);
        let outcomes = share.track.ask(ask, patience).await??;
        let view = share.track.ask(track::Msg::View, patience).await?;
        let author = self.around.own_key;
        let root = view.root;
        let floor = VersionVector::default();
        let replica = Box::new(Replica { tree, logs: view.positions, floor, author });
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

    /// The keeper of a tree that the brain shares. Where there is no room, those go that this device
    /// is in no more.
    async fn open(&self, genesis: &Genesis) -> Result<Share, OfferError> {
        let shares = self.around.shares;
        if shares.is_full(&genesis.name) {
            let own = self.around.track.ask(track::Msg::State, track::PATIENCE).await?;
            shares.forget_others(&own.state).await;
        }
        let (shares, genesis) = (shares.clone(), genesis.clone());
        Ok(tokio::task::spawn_blocking(move || shares.open(&genesis)).await??)
    }

    /// Speaks of a shared tree no longer; the brain offers it again after a while.
    pub(super) fn leave(&mut self, tree: TreeId, why: &str) -> Vec<Output> {
        tracing::warn!(tree = %tree, why, "a shared tree is left for now");
        self.shared.remove(&tree);
        self.handle(Input::Leave(tree))
    }
}
