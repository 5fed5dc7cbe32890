//! What authors sign: the heads of their logs, and the ends of them.

use serde::{Deserialize, Serialize};

use super::LogId;
use crate::canonical::Writer;
use crate::keys::{BadSignature, Keypair, verify};
use crate::{EntryId, PublicKey, Signature, TreeId};

/// The last entry of a log, at some moment. Its hash chain vouches for all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The tree.
    pub tree: TreeId,
    /// The log.
    pub log: LogId,
    /// The last entry's number.
    pub seq: u64,
    /// The last entry's id.
    pub id: EntryId,
}

/// A head under its author's signature: all entries up to it are *sealed*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// The head.
    pub head: Head,
    /// By the log's author.
    pub signature: Signature,
}

impl Head {
    fn canonical(&self) -> Vec<u8> {
        let mut writer = Writer::new("fleet-head-v1");
        writer.raw(&self.tree.0);
        self.log.write_canonical(&mut writer);
        writer.u64(self.seq).raw(&self.id.0);
        writer.finish()
    }
}

impl SignedHead {
    /// Signs a head with its author's key.
    pub fn sign(author: &Keypair, head: Head) -> Self {
        Self { head, signature: author.sign(&head.canonical()) }
    }

    /// Checks the signature against the log's author.
    pub fn verify(&self) -> Result<(), BadSignature> {
        verify(self.head.log.author, &self.head.canonical(), &self.signature)
    }
}

/// The end of a log: entries above `last_seq` do not count, whoever holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The tree.
    pub tree: TreeId,
    /// The log that ends.
    pub log: LogId,
    /// The number of its last entry; 0 if none counts.
    pub last_seq: u64,
    /// That entry's id; zeros if none counts.
    pub last_id: EntryId,
    /// Who ended it and by what right.
    pub cause: CutCause,
}

/// By what right a log is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CutCause {
    /// Its author goes on in a new epoch.
    Sealed {
        /// By the log's author.
        signature: Signature,
    },
    /// The fleet withdrew the author's key.
    Revoked {
        /// A certified brain, or the root.
        authority: PublicKey,
        /// By the authority.
        signature: Signature,
    },
    /// The author signed two histories.
    Equivocation {
        /// Two signed heads of the log that cannot both hold.
        heads: Box<[SignedHead; 2]>,
    },
}

impl CutCause {
    /// Adds the cause, signatures included, to canonical bytes.
    pub(super) fn write_canonical(&self, writer: &mut Writer) {
        writer.u8(self.number());
        match self {
            Self::Sealed { signature } => {
                writer.raw(&signature.0);
            }
            Self::Revoked { authority, signature } => {
                writer.raw(&authority.0).raw(&signature.0);
            }
            Self::Equivocation { heads } => {
                for signed in heads.iter() {
                    writer.raw(&signed.head.canonical()).raw(&signed.signature.0);
                }
            }
        }
    }

    fn number(&self) -> u8 {
        match self {
            Self::Sealed { .. } => 1,
            Self::Revoked { .. } => 2,
            Self::Equivocation { .. } => 3,
        }
    }
}

/// Why a cut does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CutError {
    /// A signature does not verify.
    #[error("cut is not signed by who may cut the log")]
    BadSignature(#[source] BadSignature),
    /// The key has no right to revoke.
    #[error("key {0:?} has no authority to revoke")]
    NoAuthority(PublicKey),
    /// The two heads do not contradict each other.
    #[error("the two heads do not prove two histories")]
    NoFork,
}

impl Cut {
    /// Ends a log of one's own.
    pub fn seal(
        author: &Keypair,
        tree: TreeId,
        log: LogId,
        last_seq: u64,
        last_id: EntryId,
    ) -> Self {
        let mut cut = Self {
            tree,
            log,
            last_seq,
            last_id,
            cause: CutCause::Sealed { signature: Signature([0; 64]) },
        };
        cut.cause = CutCause::Sealed { signature: author.sign(&cut.canonical()) };
        cut
    }

    /// Ends another's log, by the authority of a certified brain or of the root.
    pub fn revoke(
        authority: &Keypair,
        tree: TreeId,
        log: LogId,
        last_seq: u64,
        last_id: EntryId,
    ) -> Self {
        let cause = |signature| CutCause::Revoked { authority: authority.public(), signature };
        let mut cut = Self { tree, log, last_seq, last_id, cause: cause(Signature([0; 64])) };
        cut.cause = cause(authority.sign(&cut.canonical()));
        cut
    }

    /// Checks that whoever cut the log may. `has_authority` tells certified brains and the root.
    pub fn verify(&self, has_authority: impl Fn(PublicKey) -> bool) -> Result<(), CutError> {
        match &self.cause {
            CutCause::Sealed { signature } => verify(self.log.author, &self.canonical(), signature)
                .map_err(CutError::BadSignature),
            CutCause::Revoked { authority, signature } => {
                if !has_authority(*authority) {
                    return Err(CutError::NoAuthority(*authority));
                }
                verify(*authority, &self.canonical(), signature).map_err(CutError::BadSignature)
            }
            CutCause::Equivocation { heads } => {
                let [a, b] = **heads;
                for signed in [a, b] {
                    if signed.head.log != self.log || signed.head.tree != self.tree {
                        return Err(CutError::NoFork);
                    }
                    signed.verify().map_err(CutError::BadSignature)?;
                }
                // Heads of different length may lie on one chain; only equal numbers with
                // different ids contradict each other by themselves.
                if a.head.seq == b.head.seq && a.head.id != b.head.id && self.last_seq < a.head.seq
                {
                    Ok(())
                } else {
                    Err(CutError::NoFork)
                }
            }
        }
    }

    /// Which of two cuts of one log holds: the lowest.
    pub fn lower<'a>(&'a self, other: &'a Self) -> &'a Self {
        if other.last_seq < self.last_seq { other } else { self }
    }

    fn canonical(&self) -> Vec<u8> {
        let mut writer = Writer::new("fleet-cut-v1");
        writer.raw(&self.tree.0);
        self.log.write_canonical(&mut writer);
        writer.u64(self.last_seq).raw(&self.last_id.0);
        writer.u8(self.cause.number());
        writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> Keypair {
        Keypair::from_seed(&[n; 32])
    }

    fn head(author: &Keypair, seq: u64, id: u8) -> Head {
        let log = LogId { author: author.public(), epoch: 7 };
        Head { tree: TreeId([1; 32]), log, seq, id: EntryId([id; 32]) }
    }

    #[test]
    fn only_the_author_signs_a_head() {
        let signed = SignedHead::sign(&key(2), head(&key(1), 3, 3));
        assert!(signed.verify().is_err());
        assert!(SignedHead::sign(&key(1), head(&key(1), 3, 3)).verify().is_ok());
    }

    #[test]
    fn a_seal_holds_for_what_it_names() {
        let author = key(1);
        let Head { tree, log, seq, id } = head(&author, 3, 3);
        let mut cut = Cut::seal(&author, tree, log, seq, id);
        assert_eq!(cut.verify(|_| false), Ok(()));
        cut.last_seq = 2;
        assert!(matches!(cut.verify(|_| true), Err(CutError::BadSignature(_))));
    }

    #[test]
    fn two_heads_of_one_number_prove_a_fork_and_others_do_not() {
        let author = key(1);
        let cut = |a: Head, b: Head| Cut {
            tree: a.tree,
            log: a.log,
            last_seq: 2,
            last_id: EntryId([2; 32]),
            cause: CutCause::Equivocation {
                heads: Box::new([a, b].map(|head| SignedHead::sign(&author, head))),
            },
        };
        let fork = cut(head(&author, 3, 3), head(&author, 3, 4));
        assert_eq!(fork.verify(|_| false), Ok(()));
        let chain = cut(head(&author, 3, 3), head(&author, 4, 4));
        assert_eq!(chain.verify(|_| false), Err(CutError::NoFork));
    }

    #[test]
    fn the_lowest_cut_holds() {
        let author = key(1);
        let Head { tree, log, id, .. } = head(&author, 3, 3);
        let high = Cut::seal(&author, tree, log, 9, id);
        let low = Cut::seal(&author, tree, log, 4, id);
        assert_eq!(high.lower(&low).last_seq, 4);
        assert_eq!(low.lower(&high).last_seq, 4);
    }
}
