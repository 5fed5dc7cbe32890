//! The folder that backups lie in.

use std::io;
use std::path::{Path, PathBuf};

use protocol::BrainId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::BackupError;

/// What the names of backups end with.
const EXTENSION: &str = "backup";
/// What is added to the name of one that is being made.
pub(super) const PART: &str = "part";
/// What the names of those begin with that were made on schedule.
const SCHEDULED: &str = "scheduled-";
/// What the names of the others begin with.
const ASKED_FOR: &str = "fleet-";

/// A backup in the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupFile {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created: u64,
    /// Whether it was made on schedule, and goes when there are too many of those.
    pub scheduled: bool,
}

/// Knows the backups of one brain: a folder may hold those of others as well.
#[derive(Debug, Clone)]
pub(super) struct Mine {
    brain: String,
}

impl Mine {
    pub(super) fn of(brain: BrainId) -> Self {
        Self { brain: brain.short() }
    }

    /// The name of a backup that is made at this time.
    pub(super) fn name_at(&self, now_ms: u64, scheduled: bool) -> String {
        let prefix = if scheduled { SCHEDULED } else { ASKED_FOR };
        let moment = i64::try_from(now_ms).ok();
        let moment = moment.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let moment = moment.unwrap_or_default().strftime("%Y%m%dT%H%M%S%3fZ");
        format!("{prefix}{}-{moment}.{EXTENSION}", self.brain)
    }

    /// The backups in a folder, newest first; none where there is no folder.
    pub(super) fn list(&self, folder: &Path) -> Result<Vec<BackupFile>, BackupError> {
        let error = || BackupError::file(folder);
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(other) => return Err(error()(other)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(error())?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(created) = self.time_of(&name) else { continue };
            let bytes = entry.metadata().map_err(error())?.len();
            let scheduled = name.starts_with(SCHEDULED);
            found.push(BackupFile { name, bytes, created, scheduled });
        }
        found.sort_by_key(|file| std::cmp::Reverse((file.created, file.name.clone())));
        Ok(found)
    }

    /// The path of a backup of this name, where that is the name of one.
    pub(super) fn path_of(&self, folder: &Path, name: &str) -> Option<PathBuf> {
        self.time_of(name).map(|_| folder.join(name)).filter(|path| path.is_file())
    }

    /// Removes what is left of backups that were being made when the process ended.
    pub(super) fn remove_parts(&self, folder: &Path) -> Result<(), BackupError> {
        for entry in std::fs::read_dir(folder).map_err(BackupError::file(folder))? {
            let path = entry.map_err(BackupError::file(folder))?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str());
            let is_part = path.extension().is_some_and(|extension| extension == PART);
            if is_part && name.is_some_and(|name| self.time_of(name).is_some()) {
                std::fs::remove_file(&path).map_err(BackupError::file(&path))?;
            }
        }
        Ok(())
    }

    /// Lets the oldest go of those that were made on schedule; first those that are dated in the
    /// future, when the clock was wrong.
    pub(super) fn let_old_go(
        &self,
        folder: &Path,
        keep: usize,
        now_ms: u64,
    ) -> Result<(), BackupError> {
        let scheduled = self.list(folder)?.into_iter().filter(|file| file.scheduled);
        let (ahead, past): (Vec<_>, Vec<_>) = scheduled.partition(|file| file.created > now_ms);
        for old in past.into_iter().chain(ahead).skip(keep.max(1)) {
            let path = folder.join(&old.name);
            std::fs::remove_file(&path).map_err(BackupError::file(&path))?;
            tracing::info!(backup = old.name, "an old backup was let go");
        }
        Ok(())
    }

    /// When a backup of this name was made; none where it is no name of one of this brain.
    fn time_of(&self, name: &str) -> Option<u64> {
        let name = name.strip_suffix(EXTENSION)?.strip_suffix('.')?;
        let of_brain = name.strip_prefix(SCHEDULED).or_else(|| name.strip_prefix(ASKED_FOR))?;
        let moment = of_brain.strip_prefix(&self.brain)?.strip_prefix('-')?;
        let (seconds, millis) = moment.strip_suffix('Z')?.split_at_checked(15)?;
        let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%S", seconds).ok()?;
        let moment = jiff::tz::Offset::UTC.to_timestamp(civil).ok()?;
        let millis: u64 = millis.parse().ok().filter(|_| millis.len() == 3)?;
        Some(u64::try_from(moment.as_millisecond()).ok()? + millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mine() -> Mine {
        Mine::of(BrainId([7; 16]))
    }

    #[test]
    fn a_name_tells_its_time_and_nothing_else_is_one() {
        let now_ms = 1_795_327_494_827;
        for scheduled in [true, false] {
            let name = mine().name_at(now_ms, scheduled);
            assert_eq!(mine().time_of(&name), Some(now_ms));
            assert_eq!(Mine::of(BrainId([8; 16])).time_of(&name), None, "it is another brain's");
        }
        let others = ["fleet-.backup", "../fleet.json", "fleet-20261122T060000Z", "fleet-é.backup"];
        assert!(others.iter().all(|name| mine().time_of(name).is_none()));
    }

    #[test]
    fn only_what_was_made_on_schedule_goes_and_the_newest_stay() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let write = |name: &str| std::fs::write(folder.path().join(name), "x").expect("writes");
        const BASE_MS: u64 = 1_795_327_494_000;
        for n in 0..6 {
            write(&mine().name_at(BASE_MS + n, n % 2 == 0));
        }
        let others = Mine::of(BrainId([8; 16])).name_at(1, true);
        let notes = ["notes.txt", "notes.part", &others];
        let part = format!("{}.part", mine().name_at(1, true));
        notes.into_iter().chain([part.as_str()]).for_each(write);
        mine().remove_parts(folder.path()).expect("removes");
        assert!(!folder.path().join(part).exists());
        let left = || {
            let files = mine().list(folder.path()).expect("lists");
            files.into_iter().map(|file| file.created - BASE_MS).collect::<Vec<_>>()
        };
        mine().let_old_go(folder.path(), 2, BASE_MS + 9).expect("removes");
        assert_eq!(left(), [5, 4, 3, 2, 1]);
        // What is dated ahead goes before what is not.
        mine().let_old_go(folder.path(), 1, BASE_MS + 3).expect("removes");
        assert_eq!(left(), [5, 3, 2, 1]);
        assert!(notes.iter().all(|name| folder.path().join(name).exists()));
    }
}
