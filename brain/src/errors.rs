//! Errors that the brain noticed and that nobody asked for.
//!
//! A store that takes no writes, a tree that is not what its history comes to, an actor that is left
//! alone, entries that a device sends and nobody takes: each is in one bounded list, once for its code,
//! place and subject, with how often and since when. The list is in memory: what it tells of is either
//! still so after a start, and noticed again, or kept elsewhere with all that belongs to it.

mod list;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::error::Cause;
use protocol::{ErrorCode, ErrorSource, SyncError};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use utoipa::ToSchema;

use list::ErrorList;

pub use watch::{ErrorWatch, ErrorWatchArgs, ErrorWatchMsg};

/// So many news may wait for a slow reader.
const NEWS: usize = 256;

/// An error that was noticed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NoticedError {
    /// Its number, from 1 since the start.
    pub id: u64,
    /// What went wrong.
    #[schema(value_type = String)]
    pub code: ErrorCode,
    /// Where.
    #[schema(value_type = Object)]
    pub source: ErrorSource,
    /// What it is about: a device's id, a group's name, or an actor's path.
    pub subject: Option<String>,
    /// What was said the last time.
    pub message: String,
    /// How it came about the last time.
    #[schema(value_type = Vec<Object>)]
    pub causes: Vec<Cause>,
    /// Whether it is still so.
    pub status: ErrorStatus,
    /// How often it was noticed.
    pub count: u64,
    /// When it was noticed first, in milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// When it was noticed last.
    pub last_ms: u64,
}

/// Whether an error is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorStatus {
    /// It is.
    Open,
    /// It has passed, or it was a single event.
    Over,
}

/// What is so now and should not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// What it is about.
    pub(crate) subject: Option<String>,
    /// What is wrong.
    pub(crate) error: SyncError,
}

/// The list, as whoever shows or notices errors sees it. Clones are the same.
#[derive(Debug, Clone)]
pub struct Errors {
    list: Arc<Mutex<ErrorList>>,
    news: broadcast::Sender<NoticedError>,
}

impl Default for Errors {
    fn default() -> Self {
        Self { list: Arc::default(), news: broadcast::Sender::new(NEWS) }
    }
}

impl Errors {
    /// Every error, the last noticed first.
    pub fn all(&self) -> Vec<NoticedError> {
        let mut all: Vec<_> = self.list().iter().cloned().collect();
        all.sort_by_key(|error| std::cmp::Reverse((error.last_ms, error.id)));
        all
    }

    /// The error of this number.
    pub fn get(&self, id: u64) -> Option<NoticedError> {
        self.list().iter().find(|error| error.id == id).cloned()
    }

    /// Errors as they are noticed, or noticed again, or pass.
    pub fn news(&self) -> broadcast::Receiver<NoticedError> {
        self.news.subscribe()
    }

    /// Something happened, and is over.
    pub fn happened(&self, error: &SyncError, subject: Option<String>, now_ms: u64) {
        let noticed = self.list().happened(error, subject, now_ms);
        self.tell(vec![noticed]);
    }

    /// This is so now; whatever stood before and is not among it has passed.
    pub(crate) fn stand(&self, standing: Vec<Standing>, now_ms: u64) {
        let changed = self.list().stand(standing, now_ms);
        self.tell(changed);
    }

    fn tell(&self, changed: Vec<NoticedError>) {
        for error in changed {
            // Nobody may be listening.
            let _ = self.news.send(error);
        }
    }

    fn list(&self) -> MutexGuard<'_, ErrorList> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
