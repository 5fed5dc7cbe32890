//! What a session knows of one log.

use crate::EntryId;
use crate::history::{LogId, SignedHead};
use crate::session::Output;
use crate::wire::LogPosition;

/// One log, as both sides see it.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// Where it stands here.
    pub(super) ours: u64,
    pub(super) id: Option<EntryId>,
    pub(super) sealed: u64,
    /// What the peer had when its heads came.
    pub(super) peers: u64,
    /// What the peer has, or has been sent.
    pub(super) sent: u64,
    /// The highest number that both sides have spoken of: acknowledgements stay within it.
    pub(super) shared: u64,
    /// What the peer has made durable, and what of that is sealed there.
    pub(super) acked: u64,
    pub(super) acked_sealed: u64,
    /// The signed head that the peer has yet to be sent.
    pub(super) seal_due: Option<SignedHead>,
    /// After which entry a read is under way.
    pub(super) fetching: Option<u64>,
    /// What the peer must be sent before the next entry: its cause.
    pub(super) waits_for: Option<(LogId, u64)>,
    /// The peer refused an entry; nothing more goes out.
    pub(super) refused: bool,
    /// Where it ended; whoever ended it vouches for what is left.
    pub(super) end: Option<u64>,
    /// The end that the peer said it has.
    pub(super) end_heard: Option<u64>,
    /// What its author signed, to go with what is passed on of it.
    pub(super) vouch: Option<SignedHead>,
    /// Up to which entry it is here, or was handed out to be stored.
    pub(super) released: u64,
    /// Up to which entry there is a signature for what the peer passes on of it.
    pub(super) vouched: Option<(u64, EntryId)>,
    /// That signature, until the entry is here.
    pub(super) seal_held: Option<SignedHead>,
}

impl Log {
    pub(super) fn at(position: &LogPosition) -> Self {
        Self {
            ours: position.seq,
            id: Some(position.id),
            sealed: position.sealed,
            shared: position.seq,
            released: position.seq,
            ..Self::default()
        }
    }

    /// Notes what the peer has; says so where that is news.
    pub(super) fn acknowledged(
        &mut self,
        id: LogId,
        stored: u64,
        sealed: u64,
        outputs: &mut Vec<Output>,
    ) {
        if stored > self.acked || sealed > self.acked_sealed {
            self.acked = self.acked.max(stored);
            self.acked_sealed = self.acked_sealed.max(sealed);
            let (stored, sealed) = (self.acked, self.acked_sealed);
            outputs.push(Output::Acked { log: id, stored, sealed });
        }
    }
}
