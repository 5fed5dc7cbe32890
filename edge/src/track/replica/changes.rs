//! What changed, for links that follow a tree.

use std::collections::BTreeMap;

use crate::track::Revision;

/// When each log changed last.
#[derive(Debug, Clone)]
pub(super) struct Changes {
    first: Revision,
    revision: Revision,
    logs: BTreeMap<u32, Revision>,
}

impl Default for Changes {
    fn default() -> Self {
        Self::after(0)
    }
}

impl Changes {
    /// None yet, in a life that follows one that came to this revision.
    pub(super) fn after(revision: Revision) -> Self {
        Self { first: revision + 1, revision: revision + 1, logs: BTreeMap::new() }
    }

    /// A log changed.
    pub(super) fn note(&mut self, log: u32) {
        self.revision += 1;
        self.logs.insert(log, self.revision);
    }

    pub(super) fn revision(&self) -> Revision {
        self.revision
    }

    /// The logs that changed after `revision`. None stands for all: a revision that is not of this
    /// life says nothing of those that were here before.
    pub(super) fn since(&self, revision: Revision) -> Option<Vec<u32>> {
        let is_known = (self.first..=self.revision).contains(&revision);
        let changed = || self.logs.iter().filter(|(_, at)| **at > revision);
        is_known.then(|| changed().map(|(log, _)| *log).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_log_is_told_once_after_its_last_change() {
        let mut changes = Changes::default();
        for log in [0, 1, 0, 2] {
            changes.note(log);
        }
        assert_eq!(changes.since(0), None, "nobody was told of any");
        assert_eq!(changes.since(changes.revision() - 2), Some(vec![0, 2]));
        assert_eq!(changes.since(changes.revision()), Some(vec![]));
        let mut next = Changes::after(changes.revision());
        next.note(1);
        assert_eq!(next.since(changes.revision()), None, "of an earlier life");
    }
}
