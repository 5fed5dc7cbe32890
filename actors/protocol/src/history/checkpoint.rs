//! What a tree had come to, in place of the entries that brought it there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{CutError, LEAVES_MAX, LOGS_MAX, Leaf, LogState, VersionVector};
use crate::canonical::Writer;
use crate::keys::{BadSignature, Keypair, verify};
use crate::state::Path;
use crate::{PublicKey, Signature, TreeId};

/// The most bytes of an encoded checkpoint. A tree that comes to more keeps its entries.
pub const CHECKPOINT_BYTES_MAX: usize = crate::codec::DECODE_BYTES_MAX;

/// The logs and leaves of a tree at one time, under a brain's signature.
///
/// Whoever lacks entries that are kept nowhere any more [merges](super::Tree::merge) it and goes on
/// with the entries after it. A replica that held all those entries and one that merged are the
/// same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The tree.
    pub tree: TreeId,
    /// The logs, in the order that the candidates refer to.
    pub logs: Vec<LogState>,
    /// The leaves, with all their candidates.
    pub leaves: BTreeMap<Path, Leaf>,
    /// The brain that vouches for it.
    pub authority: PublicKey,
    /// By that brain.
    pub signature: Signature,
}

/// Why a checkpoint does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The signature does not verify, or that of a head or of a cut in it.
    #[error("checkpoint is not signed by who vouches for it")]
    BadSignature(#[from] BadSignature),
    /// A log ends in it by the word of somebody who may not end it.
    #[error("a log ends in it without a right to")]
    BadCut(#[from] CutError),
    /// The key is no brain's.
    #[error("key {0:?} may not vouch for a checkpoint")]
    NoAuthority(PublicKey),
    /// It is no state of a tree.
    #[error("checkpoint is malformed: {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Checkpoint {
    /// Signs what a tree had come to.
    pub fn sign(
        authority: &Keypair,
        tree: TreeId,
        logs: Vec<LogState>,
        leaves: BTreeMap<Path, Leaf>,
    ) -> Self {
        let signature = Signature([0; 64]);
        let mut this = Self { tree, logs, leaves, authority: authority.public(), signature };
        this.signature = authority.sign(&this.digest());
        this
    }

    /// About how many bytes the checkpoint of these takes.
    pub fn size_bytes(logs: &[LogState], leaves: &BTreeMap<Path, Leaf>) -> usize {
        crate::codec::encode(&logs).len() + crate::codec::encode(leaves).len() + 256
    }

    /// Checks its shape and every signature in it. `has_authority` tells the brains of the fleet.
    pub fn verify(&self, has_authority: impl Fn(PublicKey) -> bool) -> Result<(), CheckpointError> {
        if !has_authority(self.authority) {
            return Err(CheckpointError::NoAuthority(self.authority));
        }
        self.check_shape().map_err(|what| CheckpointError::Malformed { what })?;
        verify(self.authority, &self.digest(), &self.signature)?;
        for signed in self.logs.iter().filter_map(|log| log.signed) {
            signed.verify()?;
        }
        for cut in self.logs.iter().filter_map(|log| log.cut.as_ref()) {
            cut.verify(&has_authority)?;
        }
        Ok(())
    }

    /// How far each log is part of it.
    pub fn vector(&self) -> VersionVector {
        self.logs.iter().map(|state| (state.log, state.seq)).collect()
    }

    fn check_shape(&self) -> Result<(), &'static str> {
        if self.logs.len() > LOGS_MAX || self.leaves.len() > LEAVES_MAX {
            return Err("more logs or leaves than a tree may have");
        }
        let distinct: BTreeSet<_> = self.logs.iter().map(|state| state.log).collect();
        if distinct.len() < self.logs.len() {
            return Err("a log is named twice");
        }
        let ends_too_early =
            |state: &LogState| state.cut.as_ref().is_some_and(|cut| cut.last_seq < state.seq);
        let is_of_another = |state: &LogState| {
            let signed = state.signed.as_ref().map(|signed| (signed.head.tree, signed.head.log));
            let cut = state.cut.as_ref().map(|cut| (cut.tree, cut.log));
            [signed, cut].into_iter().flatten().any(|of| of != (self.tree, state.log))
        };
        if self.logs.iter().any(|state| {
            state.sealed() > state.seq || ends_too_early(state) || is_of_another(state)
        }) {
            return Err("a log's head or end does not fit the log");
        }
        let stray = |leaf: &Leaf| {
            let known = |log: u32| self.logs.get(log as usize);
            leaf.candidates.is_empty()
                || leaf.candidates.iter().any(|c| known(c.log).is_none_or(|log| c.seq > log.seq))
        };
        if self.leaves.values().any(stray) {
            return Err("a leaf names an entry that no log has");
        }
        Ok(())
    }

    /// What the signature covers.
    fn digest(&self) -> [u8; 32] {
        let mut writer = Writer::new("fleet-checkpoint-v1");
        writer.raw(&self.tree.0).raw(&self.authority.0).len(self.logs.len());
        for LogState { log, seq, head, hlc, context, signed, cut } in &self.logs {
            log.write_canonical(&mut writer);
            writer.u64(*seq).raw(&head.0).u64(hlc.wall_ms).u32(hlc.counter);
            context.write_canonical(&mut writer);
            match signed {
                Some(signed) => {
                    writer.u8(1).u64(signed.head.seq).raw(&signed.head.id.0);
                    writer.raw(&signed.signature.0);
                }
                None => {
                    writer.u8(0);
                }
            }
            match cut {
                Some(cut) => {
                    writer.u8(1).u64(cut.last_seq).raw(&cut.last_id.0);
                    cut.cause.write_canonical(&mut writer);
                }
                None => {
                    writer.u8(0);
                }
            }
        }
        writer.len(self.leaves.len());
        for (path, leaf) in &self.leaves {
            writer.text(path.as_str()).len(leaf.candidates.len());
            for candidate in &leaf.candidates {
                candidate.write_canonical(&mut writer);
            }
        }
        writer.hash()
    }
}
