//! Messages that killed their node, and how often.

use crate::supervise::crash::Digest;

/// A message that killed its node so often is not handled again.
const DEADLY: u32 = 3;
/// So many different messages of one node are remembered, the latest.
const SUSPECTS: usize = 16;

/// What a node was handling when it failed, the latest last. Allocates nothing before that.
#[derive(Debug, Default)]
pub(super) struct Suspects(Vec<(Digest, u32)>);

impl Suspects {
    /// A node failed at this message. Says whether that was once too often.
    pub(super) fn blame(&mut self, digest: Digest) -> bool {
        let known = self.0.iter().position(|(known, _)| *known == digest);
        let before = known.map_or(0, |at| self.0.remove(at).1);
        if self.0.len() == SUSPECTS {
            self.0.remove(0);
        }
        self.0.push((digest, before + 1));
        before + 1 == DEADLY
    }

    /// It may be tried again, with a clean record.
    pub(super) fn pardon(&mut self, digest: Digest) {
        self.0.retain(|(known, _)| *known != digest);
    }

    /// Those that are not to be handled any more.
    pub(super) fn condemned(&self) -> Vec<Digest> {
        let deadly = self.0.iter().filter(|(_, failures)| *failures >= DEADLY);
        deadly.map(|(digest, _)| *digest).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest([number; 8])
    }

    #[test]
    fn the_third_time_is_one_too_often() {
        let mut suspects = Suspects::default();
        assert!(!suspects.blame(digest(1)) && !suspects.blame(digest(2)));
        assert!(!suspects.blame(digest(1)));
        assert_eq!(suspects.condemned(), []);
        assert!(suspects.blame(digest(1)));
        assert_eq!(suspects.condemned(), [digest(1)]);
        suspects.pardon(digest(1));
        assert_eq!(suspects.condemned(), []);
        assert!(!suspects.blame(digest(1)), "after a pardon its record is clean");
    }

    #[test]
    fn a_node_that_fails_at_everything_is_remembered_within_bounds() {
        let mut suspects = Suspects::default();
        for number in 0..=255 {
            assert!(!suspects.blame(digest(number)));
        }
        assert_eq!(suspects.0.len(), SUSPECTS);
    }
}
