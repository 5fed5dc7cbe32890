//! Making a backup of a running brain.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::backup::archive::Writer;
use crate::backup::folder::{self, BackupFile, Mine};
use crate::backup::{BackupError, BackupSettings, FORMAT, Manifest, Recipients};
use crate::config::Live;
use crate::files;
use crate::identity::Identity;
use crate::store::{Store, folder_in};

/// Where the database's copy is while a backup is being made.
const SCRATCH: &str = "backup.scratch";
/// Where backups lie if the settings name no folder.
const FOLDER: &str = "backups";

/// Makes backups of a data folder. Clones are the same.
#[derive(Clone)]
pub struct Backups(Arc<Inner>);

struct Inner {
    data: PathBuf,
    store: Store,
    identity: Arc<Identity>,
    settings: Live,
    mine: Mine,
    busy: AtomicBool,
    /// What the last one on schedule failed of; none where it did not.
    failed: Mutex<Option<String>>,
}

/// One backup at a time.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Backups {
    /// Of the data folder `data`, in which `store` lies.
    pub fn new(data: &Path, store: Store, identity: Arc<Identity>, settings: Live) -> Self {
        let (busy, failed) = (AtomicBool::new(false), Mutex::new(None));
        // Of one that was being made when the process ended.
        if let Err(error) = remove_folder(&data.join(SCRATCH)) {
            tracing::warn!(%error, "what is left of a backup cannot be removed");
        }
        let (data, mine) = (data.to_owned(), Mine::of(identity.brain));
        Self(Arc::new(Inner { data, store, identity, settings, mine, busy, failed }))
    }

    /// The settings in force.
    pub fn settings(&self) -> BackupSettings {
        self.0.settings.get().backup.clone()
    }

    /// Where backups lie.
    pub fn folder(&self) -> PathBuf {
        self.settings().folder.unwrap_or_else(|| self.0.data.join(FOLDER))
    }

    /// The backups that are there, newest first. Blocks.
    pub fn list(&self) -> Result<Vec<BackupFile>, BackupError> {
        self.0.mine.list(&self.folder())
    }

    /// The file of a backup. Blocks.
    pub fn path_of(&self, name: &str) -> Result<PathBuf, BackupError> {
        let missing = || BackupError::NotFound { name: name.to_owned() };
        self.0.mine.path_of(&self.folder(), name).ok_or_else(missing)
    }

    /// Whether one is being made.
    pub fn is_busy(&self) -> bool {
        self.0.busy.load(Ordering::Acquire)
    }

    /// What the last one on schedule failed of.
    pub fn failed(&self) -> Option<String> {
        self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note_failed(&self, failed: Option<String>) {
        *self.0.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
    }

    /// Makes a backup, encrypted to the keys of the settings and to no other: whoever may ask for one
    /// need not be who may read the fleet's keys. Blocks for as long as it takes to read the database.
    pub fn make(&self, scheduled: bool, now_ms: u64) -> Result<BackupFile, BackupError> {
        let settings = self.settings();
        let recipients = Recipients::parse(&settings.recipients)?;
        if self.0.busy.swap(true, Ordering::AcqRel) {
            return Err(BackupError::Busy);
        }
        let _turn = Turn(&self.0.busy);
        let target = self.folder();
        files::create_folder(&target).map_err(BackupError::file(&target))?;
        let scratch = self.0.data.join(SCRATCH);
        let mine = &self.0.mine;
        remove_folder(&scratch)?;
        mine.remove_parts(&target)?;
        let name = mine.name_at(now_ms, scheduled);
        let (part, path) = (target.join(format!("{name}.{}", folder::PART)), target.join(&name));
        let made = self.write(&scratch, &part, &recipients, now_ms);
        let cleared = remove_folder(&scratch);
        let made = made
            .and(cleared)
            .and_then(|()| files::rename(&part, &path).map_err(BackupError::file(&path)));
        if let Err(error) = made {
            // What is left of it is no use to anybody; what it failed of says more.
            let _ = fs::remove_file(&part);
            return Err(error);
        }
        if scheduled {
            mine.let_old_go(&target, settings.keep, now_ms)?;
        }
        let bytes = fs::metadata(&path).map_err(BackupError::file(&path))?.len();
        tracing::info!(backup = name, bytes, "a backup was made");
        Ok(BackupFile { name, bytes, created: now_ms, scheduled })
    }

    fn write(
        &self,
        scratch: &Path,
        part: &Path,
        recipients: &Recipients,
        now_ms: u64,
    ) -> Result<(), BackupError> {
        let Inner { data, store, identity, .. } = &*self.0;
        // Before the copy, which holds at least this much.
        let last_write = store.last_write();
        let devices = store.devices()?.len() as u64;
        let last_audit = store.audit(u64::MAX, 1)?.first().map_or(0, |row| row.number);
        store.checkpoint(scratch).map_err(BackupError::Checkpoint)?;
        // After it: a key that the database names is in the backup.
        let small = small_files(data, &self.folder())?;
        let large = files_below(scratch)?;
        let bytes = small.iter().map(|(_, content)| content.len() as u64).sum::<u64>()
            + large.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let manifest = Manifest {
            format: FORMAT,
            fleet: identity.fleet,
            brain: identity.brain,
            created: now_ms,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            last_write,
            devices,
            last_audit,
            bytes,
        };
        let reserve_bytes = self.0.settings.get().disk_reserve_bytes;
        check_room(part, bytes.saturating_add(reserve_bytes))?;
        let mut archive = Writer::create(part, recipients, &manifest)?;
        for (name, content) in &small {
            archive.add_bytes(name, content)?;
        }
        let store_folder = folder_in(Path::new(""));
        for (name, bytes) in &large {
            archive.add(&store_folder.join(name), &scratch.join(name), *bytes)?;
        }
        archive.finish()
    }
}

/// The files of a data folder beside the database, with their content: they are small, and may be
/// replaced at any time.
fn small_files(data: &Path, backups: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, BackupError> {
    let apart = [folder_in(data), data.join(SCRATCH), data.join(FOLDER), backups.to_owned()];
    let apart: Vec<_> = apart.iter().filter_map(|path| path.canonicalize().ok()).collect();
    let enters = |path: &Path| path.canonicalize().is_ok_and(|path| !apart.contains(&path));
    let mut found = Vec::new();
    for (name, _) in walk(data, &enters)? {
        let path = data.join(&name);
        match fs::read(&path) {
            Ok(content) => found.push((name, content)),
            // Replaced by another name meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(BackupError::file(path)(error)),
        }
    }
    Ok(found)
}

fn files_below(folder: &Path) -> Result<Vec<(PathBuf, u64)>, BackupError> {
    walk(folder, &|_| true)
}

/// The files below a folder by their names in it, with their sizes, in order. Sockets and links are
/// no files.
fn walk(folder: &Path, enters: &dyn Fn(&Path) -> bool) -> Result<Vec<(PathBuf, u64)>, BackupError> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(&at).map_err(BackupError::file(&at))? {
            let entry = entry.map_err(BackupError::file(&at))?;
            let path = entry.path();
            let kind = entry.file_type().map_err(BackupError::file(&path))?;
            let is_fresh = path.extension().is_some_and(|extension| extension == "new");
            if kind.is_dir() && enters(&path) {
                open.push(path);
            } else if kind.is_file()
                && !is_fresh
                && let (Ok(name), Ok(known)) = (path.strip_prefix(folder), entry.metadata())
            {
                found.push((name.to_owned(), known.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Refuses to begin what would fill the disk: the database may lie on the same one.
fn check_room(path: &Path, needed_bytes: u64) -> Result<(), BackupError> {
    let folder = path.parent().unwrap_or(path);
    let stat = rustix::fs::statvfs(folder);
    let stat = stat.map_err(|errno| BackupError::file(folder)(errno.into()))?;
    let available_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if available_bytes < needed_bytes {
        let folder = folder.to_owned();
        return Err(BackupError::NoRoom { folder, available_bytes, needed_bytes });
    }
    Ok(())
}

pub(super) fn remove_folder(folder: &Path) -> Result<(), BackupError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(BackupError::file(folder)(error))
        }
        _ => Ok(()),
    }
}
