//! A log in files: a new one when the last is full, and the oldest goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where the log is written, and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// The file that is written to; those before it have `.1`, `.2` and so on at their ends.
    pub path: PathBuf,
    /// How large one may become, in bytes.
    pub bytes_max: u64,
    /// How many there may be, the one that is written to included; at least one.
    pub files: u32,
}

/// The files of a log, open.
#[derive(Debug)]
pub(super) struct Files {
    settings: LogFile,
    file: File,
    bytes: u64,
}

impl Files {
    /// Goes on where the file ends, or makes it, with its folder.
    pub(super) fn open(settings: LogFile) -> io::Result<Self> {
        if let Some(folder) = settings.path.parent().filter(|folder| *folder != Path::new("")) {
            fs::create_dir_all(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&settings.path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { settings, file, bytes })
    }

    fn turn(&mut self) -> io::Result<()> {
        let LogFile { path, files, .. } = &self.settings;
        let last = files.saturating_sub(1);
        for number in (1..=last).rev() {
            let older = if number == 1 { path.clone() } else { numbered(path, number - 1) };
            match fs::rename(older, numbered(path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Where no other is kept, the one that there is begins anew.
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(true);
        self.file = options.open(path)?;
        Ok(())
    }
}

/// A line of the log comes in one piece, and stays in one.
impl Write for Files {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.settings.bytes_max {
            // Where that fails, the file that is open is written on, until it is full once more:
            // a line is worth more than the order of files.
            self.bytes = 0;
            let _ = self.turn();
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_lines_are_kept_whole_and_the_oldest_file_goes() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("logs/brain.log");
        let settings = LogFile { path: path.clone(), bytes_max: 100, files: 3 };
        let mut files = Files::open(settings.clone()).expect("opens");
        for number in 0..50 {
            if number == 25 {
                // A restart goes on in the same file.
                files = Files::open(settings.clone()).expect("opens");
            }
            files
                .write_all(format!("line {number:02} {}\n", "x".repeat(20)).as_bytes())
                .expect("ok");
        }
        let text = |path: PathBuf| fs::read_to_string(path).expect("is there");
        let all = [numbered(&path, 2), numbered(&path, 1), path.clone()].map(text);
        assert!(all.iter().all(|text| text.len() <= 100), "{all:?}");
        let lines: Vec<_> = all.iter().flat_map(|text| text.lines()).collect();
        let numbers: Vec<_> = lines.iter().map(|line| line[5..7].parse::<u32>().ok()).collect();
        let expected: Vec<_> = (50 - lines.len() as u32..50).map(Some).collect();
        assert_eq!(numbers, expected);
        assert!(!numbered(&path, 3).exists() && lines.len() >= 7);
    }

    #[test]
    fn where_no_new_file_can_be_made_the_old_one_is_written_on() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("brain.log");
        let settings = LogFile { path: path.clone(), bytes_max: 10, files: 2 };
        let mut files = Files::open(settings).expect("opens");
        // A folder in the way of what is to be moved aside.
        fs::create_dir_all(numbered(&path, 1).join("in the way")).expect("makes");
        for line in ["one line\n", "two line\n", "three\n"] {
            files.write_all(line.as_bytes()).expect("writes");
        }
        assert_eq!(fs::read_to_string(&path).expect("is there"), "one line\ntwo line\nthree\n");
    }

    #[test]
    fn one_file_alone_begins_anew() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("brain.log");
        let mut files =
            Files::open(LogFile { path: path.clone(), bytes_max: 4, files: 1 }).expect("opens");
        for line in ["a\n", "b\n", "c\n", "a line longer than the file\n"] {
            files.write_all(line.as_bytes()).expect("writes");
        }
        assert_eq!(fs::read_to_string(&path).expect("is there"), "a line longer than the file\n");
        assert!(!numbered(&path, 1).exists());
    }
}
