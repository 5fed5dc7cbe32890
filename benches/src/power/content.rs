//! What a power cut leaves of a file's content.
//!
//! Only writes that no sync covers are in question. A disk writes sectors: each has the content
//! that it had after one of the writes to it, or before all of them, whatever the others have.
//! The size is that after one of the writes, or before all of them; a sector that is inside the
//! size and was never written is zero.

use std::collections::BTreeMap;

use sim::random::Random;

use super::Loss;
use super::journal::{Change, ChangeKind};

const SECTOR_BYTES: u64 = 512;

/// What became of the unsynced changes of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// All are lost.
    Lost,
    /// All have reached the disk.
    Kept,
    /// The first have, the others have not.
    CutShort,
    /// Some sectors have, others have not.
    Torn,
}

/// A change whose new content is known as well.
struct Done {
    kind: ChangeKind,
    new: Vec<u8>,
}

impl Done {
    fn apply(&self, content: &mut Vec<u8>) {
        match self.kind {
            ChangeKind::Write { offset, .. } => {
                let (from, to) = (offset as usize, offset as usize + self.new.len());
                if content.len() < to && !self.new.is_empty() {
                    content.resize(to, 0);
                }
                if !self.new.is_empty() {
                    content[from..to].copy_from_slice(&self.new);
                }
            }
            ChangeKind::Resize { size } => content.resize(size as usize, 0),
        }
    }
}

/// Plays the cut on `content`, to which `changes` have been made and none of them synced.
pub(super) fn cut(
    content: Vec<u8>,
    changes: &[Change],
    loss: Loss,
    random: &mut Random,
) -> (Vec<u8>, Fate) {
    let kept = content.clone();
    let (base, done) = undo(content, changes);
    let left = match loss {
        Loss::Everything => base.clone(),
        Loss::Mix => match random.below(5) {
            0 => base.clone(),
            1 => kept.clone(),
            2 => prefix(base.clone(), &done, random),
            _ => torn(base.clone(), &done, random),
        },
    };
    let fate = if left == kept {
        Fate::Kept
    } else if left == base {
        Fate::Lost
    } else if is_prefix(&left, base, &done) {
        Fate::CutShort
    } else {
        Fate::Torn
    };
    (left, fate)
}

/// The content before all changes, and what each of them brought.
fn undo(mut content: Vec<u8>, changes: &[Change]) -> (Vec<u8>, Vec<Done>) {
    let mut done = Vec::with_capacity(changes.len());
    for change in changes.iter().rev() {
        let (from, new) = match change.kind {
            ChangeKind::Write { offset, length } => {
                // A process that died at the write may have done a part of it, or nothing.
                let end = content.len().min((offset + length) as usize);
                (offset, content.get(offset as usize..end).unwrap_or_default().to_vec())
            }
            ChangeKind::Resize { size } => (size, Vec::new()),
        };
        done.push(Done { kind: change.kind, new });
        content.resize(change.size_before as usize, 0);
        let from = from as usize;
        if !change.old.is_empty() {
            content[from..from + change.old.len()].copy_from_slice(&change.old);
        }
    }
    done.reverse();
    (content, done)
}

fn prefix(mut content: Vec<u8>, done: &[Done], random: &mut Random) -> Vec<u8> {
    let count = random.below(done.len() as u64 + 1) as usize;
    done[..count].iter().for_each(|done| done.apply(&mut content));
    content
}

fn is_prefix(left: &[u8], mut content: Vec<u8>, done: &[Done]) -> bool {
    done.iter().any(|done| {
        done.apply(&mut content);
        content == left
    })
}

/// Everything up to some change of the size is whole; of the writes behind it, each sector has
/// its own.
fn torn(mut content: Vec<u8>, done: &[Done], random: &mut Random) -> Vec<u8> {
    let resize = |done: &Done| matches!(done.kind, ChangeKind::Resize { .. });
    let resizes = done.iter().filter(|done| resize(done)).count() as u64;
    let mut whole = random.below(resizes + 1);
    let mut rest = done;
    while whole > 0 {
        let (first, others) = rest.split_first().expect("there are as many changes of size");
        whole -= u64::from(resize(first));
        first.apply(&mut content);
        rest = others;
    }
    let writes = rest.iter().take_while(|done| !resize(done)).collect::<Vec<_>>();
    let mut sizes = vec![content.len()];
    let mut versions = BTreeMap::<u64, u64>::new();
    for write in &writes {
        let size = extent(write).map_or(0, |(_, to)| to as usize);
        sizes.push(size.max(*sizes.last().expect("there is one")));
        for sector in sectors(write) {
            *versions.entry(sector).or_default() += 1;
        }
    }
    for version in versions.values_mut() {
        *version = random.below(*version + 1);
    }
    for write in &writes {
        for sector in sectors(write) {
            let left = versions.get_mut(&sector).expect("every sector has a version");
            if *left > 0 {
                *left -= 1;
                apply_sector(&mut content, write, sector);
            }
        }
    }
    content.resize(sizes[random.below(sizes.len() as u64) as usize], 0);
    content
}

fn extent(done: &Done) -> Option<(u64, u64)> {
    match done.kind {
        ChangeKind::Write { offset, .. } if !done.new.is_empty() => {
            Some((offset, offset + done.new.len() as u64))
        }
        _ => None,
    }
}

fn sectors(done: &Done) -> impl Iterator<Item = u64> + use<> {
    let (from, to) = extent(done).unwrap_or((0, 0));
    from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES)
}

fn apply_sector(content: &mut Vec<u8>, done: &Done, sector: u64) {
    let Some((begin, end)) = extent(done) else { return };
    let from = begin.max(sector * SECTOR_BYTES);
    let to = end.min((sector + 1) * SECTOR_BYTES);
    if content.len() < to as usize {
        content.resize(to as usize, 0);
    }
    let part = &done.new[(from - begin) as usize..(to - begin) as usize];
    content[from as usize..to as usize].copy_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes `byte` over a range, and says what undoes it.
    fn write(content: &mut Vec<u8>, offset: usize, length: usize, byte: u8) -> Change {
        let size_before = content.len() as u64;
        let end = (offset + length).min(content.len());
        let old = content.get(offset..end).unwrap_or_default().to_vec();
        content.resize(content.len().max(offset + length), 0);
        content[offset..offset + length].fill(byte);
        let kind = ChangeKind::Write { offset: offset as u64, length: length as u64 };
        Change { kind, size_before, old }
    }

    fn resize(content: &mut Vec<u8>, size: usize) -> Change {
        let size_before = content.len() as u64;
        let old = content.get(size..).unwrap_or_default().to_vec();
        content.resize(size, 0);
        Change { kind: ChangeKind::Resize { size: size as u64 }, size_before, old }
    }

    #[test]
    fn losing_everything_gives_the_content_of_the_last_sync_back() {
        let base: Vec<u8> = (0..3_000).map(|n| n as u8).collect();
        let mut content = base.clone();
        let changes = [
            write(&mut content, 100, 900, 1),
            write(&mut content, 2_900, 700, 2),
            resize(&mut content, 500),
            write(&mut content, 1_200, 10, 3),
            resize(&mut content, 9_000),
        ];
        let lost = cut(content.clone(), &changes, Loss::Everything, &mut Random::new(1));
        assert_eq!(lost, (base, Fate::Lost));
    }

    #[test]
    fn a_write_that_the_death_prevented_is_undone_as_well() {
        let mut content = vec![7; 600];
        let change = write(&mut content.clone(), 512, 1_000, 9);
        content.resize(700, 9);
        let (left, fate) = cut(content, &[change], Loss::Everything, &mut Random::new(1));
        assert_eq!((left, fate), (vec![7; 600], Fate::Lost));
    }

    #[test]
    fn a_torn_file_has_whole_sectors_of_what_was_written_or_was_there() {
        let mut fates = BTreeMap::<String, u32>::new();
        for seed in 0..500 {
            let mut content = vec![b'a'; 4_096];
            let changes = [
                write(&mut content, 0, 2_048, b'b'),
                write(&mut content, 1_024, 2_048, b'c'),
                write(&mut content, 4_096, 1_536, b'd'),
            ];
            let (left, fate) = cut(content, &changes, Loss::Mix, &mut Random::new(seed));
            *fates.entry(format!("{fate:?}")).or_default() += 1;
            assert!([4_096, 5_632].contains(&left.len()), "{}", left.len());
            for (n, sector) in left.chunks(512).enumerate() {
                let possible: &[u8] = match n {
                    0..2 => b"ab",
                    2..4 => b"abc",
                    4..6 => b"ac",
                    6..8 => b"a",
                    _ => b"d\0",
                };
                assert!(sector.iter().all(|byte| *byte == sector[0]), "sector {n} is mixed");
                assert!(possible.contains(&sector[0]), "sector {n} has {}", sector[0]);
            }
        }
        assert_eq!(fates.len(), 4, "every fate is met: {fates:?}");
    }

    #[test]
    fn a_seed_decides_what_is_left() {
        let mut content = vec![0; 10_000];
        let changes: Vec<_> =
            (0..20).map(|n| write(&mut content, n * 450, 700, n as u8 + 1)).collect();
        let left = |seed| cut(content.clone(), &changes, Loss::Mix, &mut Random::new(seed));
        assert!((0..20).all(|seed| left(seed) == left(seed)));
        assert!((0..20).any(|seed| left(seed) != left(seed + 1)));
    }
}
