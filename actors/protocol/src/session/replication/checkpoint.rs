//! Checkpoints, in place of entries that are kept no longer.
//!
//! The side that kept entries longer than it keeps them now has a *floor*. Where the peer stands
//! below it, the checkpoint goes out before anything else of the tree, and entries go on after it.
//! Only the side that calls takes one: it is the answering side that vouches for histories.

use super::{Failure, Output, Replication};
use crate::ErrorCode;
use crate::codec;
use crate::history::{CHECKPOINT_BYTES_MAX, Checkpoint};
use crate::wire::{self, CheckpointPart, Message, PART_BYTES_MAX};

/// What has come of a checkpoint.
#[derive(Debug, Default)]
pub(super) struct Parts {
    bytes: Vec<u8>,
    next: u32,
}

impl Replication {
    /// Whether the peer stands below what this side has entries of.
    pub(super) fn peer_lacks_checkpoint(&self) -> bool {
        self.replica.floor.iter().any(|(log, floor)| {
            self.logs.get(log).is_some_and(|log| !log.refused && log.sent < floor.min(log.ours))
        })
    }

    /// Sends a checkpoint and goes on with what comes after it.
    pub(super) fn send_checkpoint(&mut self, checkpoint: &Checkpoint, outputs: &mut Vec<Output>) {
        self.reads_checkpoint = false;
        let bytes = codec::encode(checkpoint);
        let parts = bytes.chunks(PART_BYTES_MAX).len() as u32;
        for (part, bytes) in (0..).zip(bytes.chunks(PART_BYTES_MAX)) {
            let tree = self.replica.tree;
            let part = CheckpointPart { tree, part, parts, bytes: bytes.to_vec() };
            let message = Message::Checkpoint(part);
            let frame = wire::encode(&message, self.terms.version, self.terms.compression);
            outputs.push(Output::Send(frame));
        }
        for (id, seq) in checkpoint.vector().iter() {
            let log = self.logs.entry(*id).or_default();
            log.sent = log.sent.max(seq);
            log.shared = log.shared.max(seq);
        }
        // What this one does not reach, none does: asking again would not change that.
        self.replica.floor = checkpoint.vector();
        self.pump(outputs);
    }

    /// Takes the next part of the peer's checkpoint.
    pub(super) fn take_part(
        &mut self,
        part: CheckpointPart,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        let malformed = |text: &str| Failure::new(ErrorCode::Malformed, "take checkpoint", text);
        if !self.terms.pings {
            let text = "this side takes no checkpoints";
            return Err(Failure::new(ErrorCode::UnexpectedFrame, "take checkpoint", text));
        }
        let CheckpointPart { part: number, parts, bytes, .. } = part;
        if number != self.parts.next || number >= parts || bytes.len() > PART_BYTES_MAX {
            return Err(malformed("its parts are not in order"));
        }
        if self.parts.bytes.len() + bytes.len() > CHECKPOINT_BYTES_MAX {
            let text = format!("checkpoint is over {CHECKPOINT_BYTES_MAX} bytes");
            return Err(Failure::new(ErrorCode::TooLarge, "take checkpoint", text));
        }
        self.parts.next += 1;
        self.parts.bytes.extend_from_slice(&bytes);
        if self.parts.next < parts {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.parts).bytes;
        let checkpoint: Checkpoint = codec::decode(&bytes)
            .map_err(|error| Failure::new(error.code(), "take checkpoint", error.to_string()))?;
        if checkpoint.tree != self.replica.tree {
            return Err(malformed("it is of another tree"));
        }
        // Whether who vouches for it may is for the shell to say.
        checkpoint.verify(|_| true).map_err(|error| {
            let text = crate::session::with_causes(&error);
            Failure::new(ErrorCode::BadSignature, "take checkpoint", text)
        })?;
        for (id, seq) in checkpoint.vector().iter() {
            let log = self.logs.entry(*id).or_default();
            // The peer has what it vouches for.
            log.sent = log.sent.max(seq);
            log.shared = log.shared.max(seq);
        }
        outputs.push(Output::TakeCheckpoint(Box::new(checkpoint)));
        Ok(())
    }
}
