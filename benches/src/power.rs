//! Power cuts for real processes.
//!
//! A process that runs on a [`Disk`] has a shim in front of its C library, which journals all that
//! is written, renamed and synced below [`Disk::folder`]. After the process was killed,
//! [`Disk::cut`] takes back what no `fsync` covers: everything, or what a seed chooses, down to
//! single sectors. What is left is what the process finds when it is started again.
//!
//! The disk is stricter than most: a new file's name needs the sync of its folder, and a folder
//! keeps unsynced changes in order only within itself. It cannot do everything: writes through a
//! shared mapping are refused as [`CutError::NotJournaled`], streams of the C library
//! (`fopen`) have names here but their content is taken as written.

mod content;
mod journal;
mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use sim::fired::Fired;
use sim::random::Random;
use tempfile::TempDir;

use content::Fate;
use journal::{Act, Change, Inode};
use names::{Entry, Names};

const SHIM: &str = include_str!("power/shim.c");

/// What a power cut takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// All that was not synced.
    Everything,
    /// Of what was not synced, what the seed chooses: a file loses everything, nothing, the last
    /// writes or single sectors; a folder its last changes.
    Mix,
}

/// Why there is no disk or no cut.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The compiler does not run.
    #[error("the shim does not compile: install a C compiler")]
    Compiler(#[source] io::Error),
    /// The compiler refuses the shim.
    #[error("the shim does not compile:\n{said}")]
    Shim {
        /// What the compiler said.
        said: String,
    },
    /// A file of the disk cannot be read or written.
    #[error("{path} cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A process did what the shim cannot undo.
    #[error("a process wrote in a way that cannot be journaled to {what}")]
    NotJournaled {
        /// The file, or its inode's number where it has no name any more.
        what: String,
    },
}

/// A disk that can lose its power.
pub struct Disk {
    base: TempDir,
    /// What is durable since the last cut.
    known: Names,
}

/// What processes have asked of the disk since the last cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Writes and changes of size.
    pub changes: u64,
    /// Syncs that make durable.
    pub syncs: u64,
    /// Syncs that do not.
    pub weak_syncs: u64,
}

/// What a cut did.
#[derive(Debug, Clone, Default)]
pub struct Cut {
    /// How many faults of each kind hit something.
    pub fired: Fired,
    /// What became of each file that had unsynced changes, by its name in the folder.
    pub files: BTreeMap<String, &'static str>,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fired)?;
        for (name, fate) in &self.files {
            write!(f, "\n  {name}: {fate}")?;
        }
        Ok(())
    }
}

impl Disk {
    /// An empty disk.
    ///
    /// # Errors
    /// If there is no C compiler or no room for temporary files.
    pub fn new() -> Result<Self, CutError> {
        let base = tempfile::tempdir()
            .map_err(|source| CutError::File { path: std::env::temp_dir(), source })?;
        for folder in ["disk", "graves"] {
            let path = base.path().join(folder);
            fs::create_dir(&path).map_err(error(&path))?;
        }
        compile(base.path())?;
        let mut disk = Self { base, known: Names::default() };
        disk.settle()?;
        Ok(disk)
    }

    /// The folder whose power can be cut.
    pub fn folder(&self) -> PathBuf {
        self.base.path().join("disk")
    }

    /// The environment of a process that runs on this disk.
    pub fn environment(&self) -> [(&'static str, String); 2] {
        let path = |path: PathBuf| path.to_string_lossy().into_owned();
        [
            ("LD_PRELOAD", path(self.base.path().join("shim.so"))),
            ("POWER_FOLDER", path(self.base.path().to_owned())),
        ]
    }

    /// With this in its environment as well, a process dies in front of its `operation`-th
    /// operation on the disk, from 1.
    pub fn die_at(operation: u64) -> (&'static str, String) {
        ("POWER_DIE_AT", operation.to_string())
    }

    /// What processes have asked of the files whose path in the folder fits, since the last cut.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn calls(&self, fits: impl Fn(&str) -> bool) -> Result<Calls, CutError> {
        let mut names = BTreeMap::<Inode, String>::new();
        self.paths(&mut |inode, path| drop(names.insert(inode, path)))?;
        let mut calls = Calls::default();
        for event in self.events()? {
            let (Act::Content(inode, _) | Act::Sync { inode, .. }) = event.act else {
                calls.weak_syncs += u64::from(event.act == Act::WeakSync);
                continue;
            };
            if names.get(&inode).is_some_and(|name| fits(name)) {
                match event.act {
                    Act::Sync { .. } => calls.syncs += 1,
                    _ => calls.changes += 1,
                }
            }
        }
        Ok(calls)
    }

    /// Takes everything as durable that is there. No process may run on the disk.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn settle(&mut self) -> Result<(), CutError> {
        let folder = self.folder();
        self.known = Names::scan(&folder).map_err(error(&folder))?;
        let graves = self.graves();
        fs::remove_dir_all(&graves).map_err(error(&graves))?;
        fs::create_dir(&graves).map_err(error(&graves))?;
        match fs::remove_file(self.journal()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(CutError::File { path: self.journal(), source })
            }
            _ => Ok(()),
        }
    }

    /// Cuts the power: takes away of what was not synced. No process may run on the disk.
    ///
    /// # Errors
    /// If a process did what cannot be undone, or a file cannot be read or written.
    pub fn cut(&mut self, loss: Loss, random: &mut Random) -> Result<Cut, CutError> {
        let events = self.events()?;
        let mut paths = BTreeMap::<Inode, PathBuf>::new();
        let mut shown = BTreeMap::<Inode, String>::new();
        let graves = self.graves();
        for item in fs::read_dir(&graves).map_err(error(&graves))? {
            let path = item.map_err(error(&graves))?.path();
            paths.insert(inode(&path)?, path);
        }
        let folder = self.folder();
        self.paths(&mut |inode, path| {
            paths.insert(inode, folder.join(&path));
            shown.insert(inode, path);
        })?;
        let mut unsynced = BTreeMap::<Inode, Vec<(u64, Change)>>::new();
        let mut met = Vec::new();
        for event in &events {
            match &event.act {
                Act::Content(inode, change) if change.has_effect() => {
                    let changes = unsynced.entry(*inode).or_insert_with(|| {
                        met.push(*inode);
                        Vec::new()
                    });
                    changes.push((event.at, change.clone()));
                }
                Act::Sync { inode, before } => {
                    if let Some(changes) = unsynced.get_mut(inode) {
                        changes.retain(|(at, _)| at >= before);
                    }
                }
                Act::Unknown { inode } => {
                    let what = shown.get(inode).cloned().unwrap_or_else(|| inode.to_string());
                    return Err(CutError::NotJournaled { what });
                }
                _ => {}
            }
        }
        let mut cut = Cut::default();
        cut.fired.count("cuts");
        // In the order in which the files were met, which a run repeats; their numbers it does not.
        for inode in met {
            let changes = unsynced.remove(&inode).unwrap_or_default();
            let changes: Vec<_> = changes.into_iter().map(|(_, change)| change).collect();
            let Some(path) = paths.get(&inode).filter(|_| !changes.is_empty()) else { continue };
            let old = fs::read(path).map_err(error(path))?;
            let (left, fate) = content::cut(old.clone(), &changes, loss, random);
            if left != old {
                fs::write(path, left).map_err(error(path))?;
            }
            cut.count_file(fate, changes.len() as u64);
            if let Some(name) = shown.get(&inode) {
                cut.files.insert(name.clone(), say(fate));
            }
        }
        let counts = self.known.cut(&events, loss, random);
        cut.fired.add("unsynced_names_lost", counts.lost);
        cut.fired.add("unsynced_names_kept", counts.kept);
        self.make(&paths)?;
        Ok(cut)
    }

    /// Makes the folder what the names say.
    fn make(&mut self, paths: &BTreeMap<Inode, PathBuf>) -> Result<(), CutError> {
        let (folder, next) = (self.folder(), self.base.path().join("next"));
        self.make_folder(inode(&folder)?, &folder, &next, paths)?;
        fs::remove_dir_all(&folder).map_err(error(&folder))?;
        fs::rename(&next, &folder).map_err(error(&next))?;
        self.settle()
    }

    fn make_folder(
        &self,
        inode: Inode,
        like: &Path,
        at: &Path,
        paths: &BTreeMap<Inode, PathBuf>,
    ) -> Result<(), CutError> {
        fs::create_dir(at).map_err(error(at))?;
        // A folder that is gone now and comes back has lost its mode; its owner may do anything.
        let mode = fs::metadata(like).map_or(0o700, |known| known.permissions().mode());
        fs::set_permissions(at, PermissionsExt::from_mode(mode)).map_err(error(at))?;
        for (name, Entry { inode, is_folder }) in self.known.of(inode) {
            let (path, known) = (at.join(name), paths.get(&inode));
            match (is_folder, known) {
                (true, known) => {
                    let like = known.map_or(like, PathBuf::as_path);
                    self.make_folder(inode, like, &path, paths)?;
                }
                (false, Some(known)) => fs::hard_link(known, &path).map_err(error(&path))?,
                // A socket, or what has no content for other reasons.
                (false, None) => {}
            }
        }
        Ok(())
    }

    /// Tells of every file and folder with its path in the folder.
    fn paths(&self, tell: &mut dyn FnMut(Inode, String)) -> Result<(), CutError> {
        fn walk(folder: &Path, base: &Path, tell: &mut dyn FnMut(Inode, String)) -> io::Result<()> {
            for item in fs::read_dir(folder)? {
                let item = item?;
                let (path, metadata) = (item.path(), item.metadata()?);
                if metadata.is_dir() {
                    walk(&path, base, tell)?;
                } else if !metadata.is_file() {
                    continue;
                }
                let shown = path.strip_prefix(base).unwrap_or(&path);
                tell(metadata.ino(), shown.to_string_lossy().into_owned());
            }
            Ok(())
        }
        let folder = self.folder();
        walk(&folder, &folder, tell).map_err(error(&folder))
    }

    fn events(&self) -> Result<Vec<journal::Event>, CutError> {
        journal::read(&self.journal()).map_err(error(&self.journal()))
    }

    fn journal(&self) -> PathBuf {
        self.base.path().join("journal")
    }

    fn graves(&self) -> PathBuf {
        self.base.path().join("graves")
    }
}

impl Cut {
    fn count_file(&mut self, fate: Fate, changes: u64) {
        let kind = match fate {
            Fate::Lost => "files_back_at_last_sync",
            Fate::Kept => "files_kept_unsynced",
            Fate::CutShort => "files_cut_short",
            Fate::Torn => "files_torn",
        };
        self.fired.count(kind);
        let kind = match fate {
            Fate::Lost => "unsynced_writes_lost",
            Fate::Kept => "unsynced_writes_kept",
            Fate::CutShort | Fate::Torn => "unsynced_writes_in_doubt",
        };
        self.fired.add(kind, changes);
    }
}

fn say(fate: Fate) -> &'static str {
    match fate {
        Fate::Lost => "back at its last sync",
        Fate::Kept => "kept",
        Fate::CutShort => "without its last writes",
        Fate::Torn => "torn",
    }
}

fn compile(base: &Path) -> Result<(), CutError> {
    let (source, library) = (base.join("shim.c"), base.join("shim.so"));
    fs::write(&source, SHIM).map_err(error(&source))?;
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-pthread", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output()
        .map_err(CutError::Compiler)?;
    match compiled.status.success() {
        true => Ok(()),
        false => Err(CutError::Shim { said: String::from_utf8_lossy(&compiled.stderr).into() }),
    }
}

fn inode(path: &Path) -> Result<Inode, CutError> {
    fs::symlink_metadata(path).map(|metadata| metadata.ino()).map_err(error(path))
}

fn error(path: &Path) -> impl Fn(io::Error) -> CutError {
    let path = path.to_owned();
    move |source| CutError::File { path: path.clone(), source }
}
