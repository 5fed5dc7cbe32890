//! The files of the journal.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{CrashQuery, CrashRecord, JournalLimits};

/// All bytes are spread over so many files, the oldest of which goes.
const FILES: u64 = 8;
const PREFIX: &str = "crashes-";
const SUFFIX: &str = ".jsonl";

/// The files, of which the last one is written to.
pub(super) struct Files {
    folder: PathBuf,
    limits: JournalLimits,
    number: u64,
    file: File,
    bytes: u64,
}

impl Files {
    pub(super) fn open(folder: &Path, limits: JournalLimits) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let number = numbers(folder)?.last().copied().unwrap_or(1);
        let (file, bytes) = open(folder, number)?;
        let mut files = Self { folder: folder.to_owned(), limits, number, file, bytes };
        files.clear_out(SystemTime::now())?;
        Ok(files)
    }

    pub(super) fn append(&mut self, record: &CrashRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.limits.bytes_max / FILES {
            self.number += 1;
            (self.file, self.bytes) = open(&self.folder, self.number)?;
            self.clear_out(SystemTime::now())?;
        }
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // The next line must not follow half a one.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Removes what is too much or too old, never the file that is written to.
    pub(super) fn clear_out(&mut self, now: SystemTime) -> io::Result<()> {
        for number in numbers(&self.folder)? {
            let path = path(&self.folder, number);
            let age = fs::metadata(&path)?.modified().map(|at| now.duration_since(at));
            let too_old = matches!(age, Ok(Ok(age)) if age > self.limits.age_max);
            if number + FILES <= self.number || (too_old && number < self.number) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// The records that a query asks for, newest first.
pub(super) fn read(folder: &Path, query: &CrashQuery) -> io::Result<Vec<CrashRecord>> {
    let mut found = Vec::new();
    for number in numbers(folder)?.into_iter().rev() {
        let bytes = match fs::read(path(folder, number)) {
            Ok(bytes) => bytes,
            // It went meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        // What cannot be read is damaged or being written; the rest is still of use.
        let records = bytes.split(|byte| *byte == b'\n').rev();
        let records = records.filter_map(|line| serde_json::from_slice::<CrashRecord>(line).ok());
        let left = query.limit.saturating_sub(found.len());
        found.extend(records.filter(|record| query.takes(record)).take(left));
        if found.len() >= query.limit {
            break;
        }
    }
    Ok(found)
}

/// The numbers of the files, oldest first.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(folder)? {
        let name = file?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens a file to write at the end of its last whole line.
fn open(folder: &Path, number: u64) -> io::Result<(File, u64)> {
    let path = path(folder, number);
    let file = OpenOptions::new().create(true).append(true).open(&path)?;
    let whole = fs::read(&path)?;
    let end = whole.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    if end < whole.len() as u64 {
        file.set_len(end)?;
    }
    // The file's name has to last as well.
    File::open(folder)?.sync_all()?;
    Ok((file, end))
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{PREFIX}{number:08}{SUFFIX}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record(at_ms: u64, path: &str) -> CrashRecord {
        CrashRecord {
            at_ms,
            path: path.into(),
            child: "7".into(),
            kind: "device".into(),
            incarnation: at_ms,
            message: Some("write".into()),
            digest: None,
            fault: "panic".into(),
            text: "x".repeat(100),
            location: Some("device.rs:1:2".into()),
            trace_id: None,
            uptime_ms: 3,
            failures: 1,
            decision: "restart".into(),
            delay_ms: Some(0),
        }
    }

    fn all(limit: usize) -> CrashQuery {
        CrashQuery { path: None, since_ms: 0, limit }
    }

    fn times(folder: &Path, query: &CrashQuery) -> Vec<u64> {
        read(folder, query).expect("reads").iter().map(|record| record.at_ms).collect()
    }

    #[test]
    fn crashes_are_read_newest_first_by_path_and_time() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut files = Files::open(folder.path(), JournalLimits::default()).expect("opens");
        for (at_ms, path) in [(1, "brain/a"), (2, "brain/ab"), (3, "brain/a/7"), (4, "brain/a")] {
            files.append(&record(at_ms, path)).expect("writes");
        }
        assert_eq!(times(folder.path(), &all(3)), [4, 3, 2]);
        let query = CrashQuery { path: Some("brain/a".into()), since_ms: 2, limit: 10 };
        assert_eq!(times(folder.path(), &query), [4, 3]);
        let again = read(folder.path(), &all(1)).expect("reads");
        assert_eq!(again, [record(4, "brain/a")]);
    }

    #[test]
    fn a_torn_line_is_cut_off_and_the_rest_stays() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mut files = Files::open(folder.path(), JournalLimits::default()).expect("opens");
        files.append(&record(1, "brain/a")).expect("writes");
        files.append(&record(2, "brain/a")).expect("writes");
        drop(files);
        let path = path(folder.path(), 1);
        let bytes = fs::read(&path).expect("reads");
        fs::write(&path, &bytes[..bytes.len() - 20]).expect("torn");
        let mut files = Files::open(folder.path(), JournalLimits::default()).expect("opens");
        files.append(&record(3, "brain/a")).expect("writes");
        assert_eq!(times(folder.path(), &all(10)), [3, 1]);
    }

    #[test]
    fn the_oldest_go_by_size_and_by_age() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let limits = JournalLimits { bytes_max: 16_000, ..JournalLimits::default() };
        let mut files = Files::open(folder.path(), limits).expect("opens");
        (1..=200).for_each(|n| files.append(&record(n, "brain/a")).expect("writes"));
        let kept = times(folder.path(), &all(1_000));
        assert!(kept.first() == Some(&200) && (20..60).contains(&kept.len()), "{}", kept.len());
        let bytes: u64 = fs::read_dir(folder.path())
            .expect("listed")
            .map(|file| file.and_then(|file| file.metadata()).expect("there").len())
            .sum();
        assert!(bytes <= limits.bytes_max, "{bytes}");
        let young = JournalLimits { age_max: Duration::ZERO, ..limits };
        drop(Files::open(folder.path(), young).expect("opens"));
        assert_eq!(numbers(folder.path()).expect("listed").len(), 1, "only the one written to");
    }
}
