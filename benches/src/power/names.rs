//! What a power cut leaves of the names in folders.
//!
//! A name that was put into a folder, changed or taken out is durable when that folder is synced
//! afterwards. Of what no sync covers, a folder keeps the first so many changes in their order,
//! as journaling file systems do. A rename from one folder to another happens in both or neither.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

use sim::random::Random;

use super::Loss;
use super::journal::{Act, Event, Inode};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) inode: Inode,
    pub(super) is_folder: bool,
}

/// The names of every folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names(BTreeMap<Inode, BTreeMap<String, Entry>>);

/// A change of names that belongs together.
struct Change {
    at: u64,
    effects: Vec<(Inode, String, Option<Entry>)>,
    is_durable: bool,
}

impl Change {
    fn folders(&self) -> impl Iterator<Item = Inode> {
        self.effects.iter().map(|(folder, ..)| *folder)
    }
}

/// How many changes were lost, and how many were kept without a sync.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) lost: u64,
    pub(super) kept: u64,
}

impl Names {
    /// The names below a folder as they are.
    pub(super) fn scan(folder: &Path) -> io::Result<Self> {
        let mut names = Self::default();
        names.scan_into(folder)?;
        Ok(names)
    }

    fn scan_into(&mut self, folder: &Path) -> io::Result<()> {
        let own = fs::metadata(folder)?.ino();
        self.0.entry(own).or_default();
        for item in fs::read_dir(folder)? {
            let item = item?;
            let metadata = item.metadata()?;
            let entry = Entry { inode: metadata.ino(), is_folder: metadata.is_dir() };
            let name = item.file_name().to_string_lossy().into_owned();
            self.0.entry(own).or_default().insert(name, entry);
            if entry.is_folder {
                self.scan_into(&item.path())?;
            }
        }
        Ok(())
    }

    /// The names of a folder.
    pub(super) fn of(&self, folder: Inode) -> impl Iterator<Item = (&str, Entry)> {
        self.0.get(&folder).into_iter().flatten().map(|(name, entry)| (name.as_str(), *entry))
    }

    /// Plays a cut: from the names at the beginning and all that happened since, those that are
    /// left.
    pub(super) fn cut(&mut self, events: &[Event], loss: Loss, random: &mut Random) -> Counts {
        let mut changes = Vec::<Change>::new();
        // Names as the processes saw them tell what kind of thing a rename moves.
        let mut folders = self.folders();
        for event in events {
            match &event.act {
                Act::Sync { inode, before } => sync(&mut changes, *inode, *before),
                act => {
                    let effects = effects(act, &mut folders);
                    if !effects.is_empty() {
                        changes.push(Change { at: event.at, effects, is_durable: false });
                    }
                }
            }
        }
        let kept = choose(&changes, loss, random);
        let mut counts = Counts::default();
        for (change, kept) in changes.iter().zip(kept) {
            if !change.is_durable {
                *(if kept { &mut counts.kept } else { &mut counts.lost }) += 1;
            }
            if kept {
                change.effects.iter().for_each(|effect| self.apply(effect));
            }
        }
        counts
    }

    fn folders(&self) -> BTreeSet<Inode> {
        let entries = self.0.values().flat_map(BTreeMap::values);
        let folders = entries.filter(|entry| entry.is_folder).map(|entry| entry.inode);
        folders.chain(self.0.keys().copied()).collect()
    }

    fn apply(&mut self, (folder, name, entry): &(Inode, String, Option<Entry>)) {
        let names = self.0.entry(*folder).or_default();
        match entry {
            Some(entry) => names.insert(name.clone(), *entry),
            None => names.remove(name),
        };
    }
}

fn effects(act: &Act, folders: &mut BTreeSet<Inode>) -> Vec<(Inode, String, Option<Entry>)> {
    match act {
        Act::Enter { folder, name, inode, is_folder } => {
            // A number may be given to a file again after a folder had it.
            match is_folder {
                true => folders.insert(*inode),
                false => folders.remove(inode),
            };
            let entry = Entry { inode: *inode, is_folder: *is_folder };
            vec![(*folder, name.clone(), Some(entry))]
        }
        Act::Rename { from, to, inode } => {
            let entry = Entry { inode: *inode, is_folder: folders.contains(inode) };
            vec![(from.0, from.1.clone(), None), (to.0, to.1.clone(), Some(entry))]
        }
        Act::Leave { folder, name } => vec![(*folder, name.clone(), None)],
        Act::Content(..) | Act::Sync { .. } | Act::WeakSync | Act::Unknown { .. } => Vec::new(),
    }
}

/// Makes durable what had been done to a folder, and whatever that builds on.
fn sync(changes: &mut [Change], folder: Inode, before: u64) {
    let mut synced = BTreeSet::from([folder]);
    for change in changes.iter_mut().rev().filter(|change| change.at < before) {
        if change.folders().any(|folder| synced.contains(&folder)) {
            change.is_durable = true;
            synced.extend(change.folders());
        }
    }
}

/// Which changes are left.
fn choose(changes: &[Change], loss: Loss, random: &mut Random) -> Vec<bool> {
    let mut pending = BTreeMap::<Inode, u64>::new();
    // In the order in which the folders were met, which a run repeats; their numbers it does not.
    let mut met = Vec::new();
    for change in changes.iter().filter(|change| !change.is_durable) {
        for folder in change.folders().collect::<BTreeSet<_>>() {
            let count = pending.entry(folder).or_insert_with(|| {
                met.push(folder);
                0
            });
            *count += 1;
        }
    }
    for folder in met {
        let count = pending.entry(folder).or_default();
        *count = match loss {
            Loss::Everything => 0,
            Loss::Mix => random.below(*count + 1),
        };
    }
    let mut kept = Vec::with_capacity(changes.len());
    for change in changes {
        if change.is_durable {
            kept.push(true);
            continue;
        }
        let folders = change.folders().collect::<BTreeSet<_>>();
        let is_kept = folders.iter().all(|folder| pending.get(folder).is_some_and(|n| *n > 0));
        for folder in folders {
            let left = pending.entry(folder).or_default();
            // What comes after a change that is lost is lost too.
            *left = if is_kept { *left - 1 } else { 0 };
        }
        kept.push(is_kept);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Inode = 1;

    fn enter(at: u64, folder: Inode, name: &str, inode: Inode, is_folder: bool) -> Event {
        Event { at, act: Act::Enter { folder, name: name.to_owned(), inode, is_folder } }
    }

    fn rename(at: u64, from: (Inode, &str), to: (Inode, &str), inode: Inode) -> Event {
        let own = |(folder, name): (Inode, &str)| (folder, name.to_owned());
        Event { at, act: Act::Rename { from: own(from), to: own(to), inode } }
    }

    fn synced(at: u64, inode: Inode, before: u64) -> Event {
        Event { at, act: Act::Sync { inode, before } }
    }

    fn left(events: &[Event], loss: Loss, seed: u64) -> Vec<(String, Inode)> {
        let mut names = Names(BTreeMap::from([(ROOT, BTreeMap::new())]));
        names.cut(events, loss, &mut Random::new(seed));
        names.of(ROOT).map(|(name, entry)| (name.to_owned(), entry.inode)).collect()
    }

    #[test]
    fn a_replacement_that_was_not_synced_is_undone_and_one_that_was_is_not() {
        let mut events = vec![
            enter(0, ROOT, "a", 10, false),
            synced(1, ROOT, 1),
            enter(2, ROOT, "a.new", 11, false),
            rename(3, (ROOT, "a.new"), (ROOT, "a"), 11),
        ];
        assert_eq!(left(&events, Loss::Everything, 0), [("a".to_owned(), 10)]);
        events.push(synced(4, ROOT, 3));
        let created = [("a".to_owned(), 10), ("a.new".to_owned(), 11)];
        assert_eq!(left(&events, Loss::Everything, 0), created, "the sync began before the rename");
        events.push(synced(5, ROOT, 5));
        assert_eq!(left(&events, Loss::Everything, 0), [("a".to_owned(), 11)]);
    }

    #[test]
    fn a_folder_keeps_the_first_changes_and_none_without_those_before_it() {
        let events: Vec<_> =
            (0..4).map(|n| enter(n, ROOT, &format!("{n}"), 10 + n, false)).collect();
        let mut lengths = BTreeSet::new();
        for seed in 0..100 {
            let left = left(&events, Loss::Mix, seed);
            let all = (0..left.len() as u64).map(|n| (format!("{n}"), 10 + n));
            assert_eq!(left, all.collect::<Vec<_>>());
            lengths.insert(left.len());
        }
        assert_eq!(lengths, (0..=4).collect());
    }

    #[test]
    fn a_rename_between_folders_happens_in_both_or_neither() {
        let events = [
            enter(0, ROOT, "a", 10, false),
            enter(1, ROOT, "sub", 2, true),
            synced(2, ROOT, 2),
            rename(3, (ROOT, "a"), (2, "b"), 10),
        ];
        for seed in 0..50 {
            let mut names = Names(BTreeMap::from([(ROOT, BTreeMap::new())]));
            names.cut(&events, Loss::Mix, &mut Random::new(seed));
            let has = |folder, name| names.of(folder).any(|(known, _)| known == name);
            assert!(has(ROOT, "a") != has(2, "b"));
        }
    }
}
