//! Trees that the brain shares with this device.
//!
//! They come and go on a link that stays: one whose keeper fails is left, and the brain offers it
//! again.

use actors::supervise::AskError;
use protocol::TreeId;
use protocol::history::Genesis;
use protocol::session::{Input, Output, Replica};
use protocol::wire::LogPosition;

use super::{Talk, Topic};
use crate::shares::ShareError;
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
    ) -> Vec<Output> {
        let (tree, group) = (genesis.tree_id(), genesis.name.clone());
        if genesis.fleet != self.around.fleet {
            tracing::warn!(group, "brain shares a tree of another fleet");
            return Vec::new();
        }
        match self.take_up(genesis, logs).await {
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
    ) -> Result<Vec<Output>, OfferError> {
        let (shares, opening) = (self.around.shares.clone(), genesis.clone());
        let share = tokio::task::spawn_blocking(move || shares.open(&opening)).await??;
        let topic = Topic::new(share.track.clone(), &share.board);
        let tree = genesis.tree_id();
        if let Some(brain) = self.brain {
            share.track.cast(track::Msg::MetBrain(brain), track::PATIENCE).await.ok();
        }
        // A log that turned out to have ended must have ended before the session sends of it.
        let ask = |reply| track::Msg::PeerHeads(logs, reply);
        let outcomes = share.track.ask(ask, track::PATIENCE).await??;
        let view = share.track.ask(track::Msg::View, track::PATIENCE).await?;
        let author = self.around.own_key;
        let replica = Box::new(Replica { tree, logs: view.positions, author });
        self.shared.insert(tree, topic);
        let mut outputs = Vec::new();
        let mut shared = self.handle(Input::Share { genesis, replica });
        outputs.append(&mut shared);
        for outcome in outcomes {
            if let Outcome::Reissued { .. } = outcome {
                outputs.extend(self.reissued(Some(tree), outcome));
            }
        }
        outputs.extend(self.introduce(Some(tree)).await?);
        Ok(outputs)
    }

    /// Speaks of a shared tree no longer; the brain offers it again after a while.
    pub(super) fn leave(&mut self, tree: TreeId, why: &str) -> Vec<Output> {
        tracing::warn!(tree = %tree, why, "a shared tree is left for now");
        self.shared.remove(&tree);
        self.handle(Input::Leave(tree))
    }
}
