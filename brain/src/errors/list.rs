//! The list itself: what is the same error, which pass, which have to go.

use std::collections::BTreeMap;

use protocol::{ErrorCode, SyncError};

use super::{ErrorStatus, NoticedError, Standing};

/// So many errors are kept; those that are over go first, the eldest of them before others.
const ERRORS_MAX: usize = 1_000;

/// What makes two errors the same: code, layer, component and operation, and what they are about.
type Key = (ErrorCode, String, Option<String>);

/// Errors by what makes them the same.
#[derive(Debug, Default)]
pub(super) struct ErrorList {
    errors: BTreeMap<Key, NoticedError>,
    last_id: u64,
}

impl ErrorList {
    pub(super) fn iter(&self) -> impl Iterator<Item = &NoticedError> {
        self.errors.values()
    }

    pub(super) fn happened(
        &mut self,
        error: &SyncError,
        subject: Option<String>,
        now_ms: u64,
    ) -> NoticedError {
        self.note(error, subject, ErrorStatus::Over, now_ms)
    }

    /// Returns what changed.
    pub(super) fn stand(&mut self, standing: Vec<Standing>, now_ms: u64) -> Vec<NoticedError> {
        let keys: Vec<_> =
            standing.iter().map(|Standing { subject, error }| key(error, subject)).collect();
        let mut changed = Vec::new();
        for (key, error) in &mut self.errors {
            if error.status == ErrorStatus::Open && !keys.contains(key) {
                (error.status, error.last_ms) = (ErrorStatus::Over, now_ms);
                changed.push(error.clone());
            }
        }
        for (key, Standing { subject, error }) in keys.iter().zip(standing) {
            let known = self.errors.get(key);
            // What lasts is noticed once.
            if known.is_none_or(|known| known.status == ErrorStatus::Over) {
                changed.push(self.note(&error, subject, ErrorStatus::Open, now_ms));
            }
        }
        changed
    }

    fn note(
        &mut self,
        error: &SyncError,
        subject: Option<String>,
        status: ErrorStatus,
        now_ms: u64,
    ) -> NoticedError {
        let key = key(error, &subject);
        if !self.errors.contains_key(&key) {
            self.make_room();
            self.last_id += 1;
        }
        let noticed = self.errors.entry(key).or_insert_with(|| NoticedError {
            id: self.last_id,
            code: error.code,
            source: error.origin.clone(),
            subject,
            message: String::new(),
            causes: Vec::new(),
            status,
            count: 0,
            first_ms: now_ms,
            last_ms: now_ms,
        });
        noticed.message = error.message.clone();
        noticed.causes = error.causes();
        noticed.status = status;
        noticed.count += 1;
        noticed.last_ms = now_ms;
        noticed.clone()
    }

    fn make_room(&mut self) {
        if self.errors.len() < ERRORS_MAX {
            return;
        }
        let by_age = |(key, error): (&Key, &NoticedError)| {
            let is_open = error.status == ErrorStatus::Open;
            ((is_open, error.last_ms, error.id), key.clone())
        };
        if let Some((_, eldest)) = self.errors.iter().map(by_age).min() {
            self.errors.remove(&eldest);
        }
    }
}

fn key(error: &SyncError, subject: &Option<String>) -> Key {
    let place = &error.origin;
    let place = format!("{}/{}/{}", place.layer, place.component, place.operation);
    (error.code, place, subject.clone())
}

#[cfg(test)]
mod tests {
    use protocol::{ErrorSource, Layer};

    use super::*;

    fn error(code: ErrorCode) -> SyncError {
        SyncError::new(code, ErrorSource::new(Layer::Store, "commit", "write"), "text")
    }

    fn full() -> Vec<Standing> {
        vec![Standing { subject: None, error: error(ErrorCode::DiskFull) }]
    }

    #[test]
    fn what_lasts_is_one_error_that_opens_passes_and_opens_again() {
        let mut list = ErrorList::default();
        let first = list.stand(full(), 1);
        assert_eq!((first.len(), first[0].status, first[0].count), (1, ErrorStatus::Open, 1));
        assert_eq!(list.stand(full(), 2), []);
        let passed = list.stand(Vec::new(), 3);
        assert_eq!((passed[0].id, passed[0].status), (first[0].id, ErrorStatus::Over));
        assert_eq!(list.stand(Vec::new(), 4), []);
        let again = list.stand(full(), 5);
        assert_eq!((again[0].id, again[0].count, again[0].first_ms), (first[0].id, 2, 1));
    }

    #[test]
    fn what_happens_again_to_the_same_is_counted_and_to_another_is_another() {
        let mut list = ErrorList::default();
        let subject = |name: &str| Some(name.to_owned());
        list.happened(&error(ErrorCode::Forbidden), subject("a"), 1);
        let again = list.happened(&error(ErrorCode::Forbidden), subject("a"), 2);
        assert_eq!((again.id, again.count, again.status), (1, 2, ErrorStatus::Over));
        assert_eq!(list.happened(&error(ErrorCode::Forbidden), subject("b"), 3).id, 2);
    }

    #[test]
    fn there_are_never_too_many_and_what_is_still_so_stays() {
        let mut list = ErrorList::default();
        list.stand(full(), 0);
        for n in 0..2 * ERRORS_MAX as u64 {
            list.happened(&error(ErrorCode::Forbidden), Some(n.to_string()), n);
        }
        assert_eq!(list.iter().count(), ERRORS_MAX);
        assert!(list.iter().any(|error| error.code == ErrorCode::DiskFull));
        assert!(list.iter().all(|error| error.subject.as_deref() != Some("0")));
    }
}
