//! Whether a tree is what its history comes to.

use super::rocks::TREES;
use super::{Store, keys};
use actors::ports::{ReadError, TreeNumber, TreeRecord};

/// What a look at a tree came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeChecked {
    /// The tree.
    pub number: TreeNumber,
    /// Whose it is; empty where the row that says so is damaged.
    pub name: String,
    /// What differs, if anything does.
    pub differs: Option<String>,
}

impl Store {
    /// Looks at the trees above a number, at most so many. Blocks.
    pub fn check_trees(
        &self,
        after: TreeNumber,
        count: usize,
    ) -> Result<Vec<TreeChecked>, ReadError> {
        let from = keys::tree(after.saturating_add(1));
        let mut checked = Vec::new();
        for row in self.rocks.keyed::<TreeRecord>(TREES, &from).take(count) {
            let (key, record) = row?;
            let Ok(number) = key.as_ref().try_into().map(TreeNumber::from_be_bytes) else {
                continue;
            };
            let name = record.as_ref().map(|record| record.genesis.name.clone());
            let name = name.unwrap_or_default();
            let differs = match record.and_then(|_| self.differs(number)) {
                Ok(differs) => differs,
                Err(error @ ReadError::Corrupt { .. }) => Some(error.to_string()),
                Err(error) => return Err(error),
            };
            // One that was retired meanwhile is no finding.
            let differs = differs.filter(|_| self.is_there(number));
            checked.push(TreeChecked { number, name, differs });
        }
        Ok(checked)
    }

    /// Whether a tree has a row, readable or not.
    fn is_there(&self, number: TreeNumber) -> bool {
        self.rocks.has_below(TREES, &keys::tree(number)).unwrap_or(true)
    }

    /// What differs between a tree's leaves and its history since the last snapshot.
    fn differs(&self, number: TreeNumber) -> Result<Option<String>, ReadError> {
        let Some((record, kept)) = self.replica(number)? else { return Ok(None) };
        let (folded, version, ..) = self.fold(number, &record, record.version)?;
        if version != record.version {
            return Ok(Some(format!(
                "its history ends at version {version}, not {}",
                record.version
            )));
        }
        if folded.root() == kept.root() {
            return Ok(None);
        }
        let differs = |path: &&_| folded.value(path) != kept.value(path);
        let paths = folded.leaves().keys().chain(kept.leaves().keys());
        let first = paths.filter(differs).min();
        let leaf = first.map_or_else(|| "a side of a conflict".to_owned(), ToString::to_string);
        Ok(Some(format!("version {version}: {leaf} is not what the history comes to")))
    }
}

#[cfg(test)]
mod tests {
    use protocol::DeviceId;
    use protocol::history::Leaf;
    use protocol::state::{Path, Value};
    use rocksdb::WriteBatch;

    use super::*;
    use crate::store::rocks::LEAVES;
    use crate::store::written::{open, write};

    #[test]
    fn a_leaf_that_was_altered_with_a_right_checksum_is_found_and_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = open(folder.path());
        // Over a snapshot, and before the first.
        let numbers = [400, 20].map(|count| write(&store, DeviceId([count as u8; 16]), count));
        let checked = store.check_trees(0, 10).expect("reads");
        assert!(checked.iter().all(|checked| checked.differs.is_none()), "{checked:?}");
        assert_eq!(checked.iter().map(|c| c.number).collect::<Vec<_>>(), numbers);
        for number in numbers {
            let path = Path::new("desired/3").expect("a path");
            let key = keys::leaf(number, &path);
            let mut leaf: Leaf = store.rocks.get(LEAVES, &key).expect("reads").expect("a leaf");
            leaf.candidates[0].value = Some(Value::from(-1));
            let mut batch = WriteBatch::default();
            store.rocks.put(&mut batch, LEAVES, &key, &leaf);
            store.rocks.write(batch).expect("writes");
        }
        for checked in store.check_trees(0, 10).expect("reads") {
            let what = checked.differs.expect("it differs");
            assert!(what.contains("desired/3"), "{what}");
        }
        assert_eq!(store.check_trees(numbers[0], 10).expect("reads").len(), 1);
        // A row that cannot be read is a finding as well, and hides no other.
        let mut batch = WriteBatch::default();
        store.rocks.put(&mut batch, TREES, &keys::tree(numbers[0]), &0u8);
        store.rocks.write(batch).expect("writes");
        let checked = store.check_trees(0, 10).expect("reads");
        assert_eq!(checked.iter().map(|c| c.number).collect::<Vec<_>>(), numbers);
        assert!(checked.iter().all(|checked| checked.differs.is_some()), "{checked:?}");
        store.shut_down();
    }
}
