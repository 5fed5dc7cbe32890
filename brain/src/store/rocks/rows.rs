//! Rows of the database in the order of their keys.

use actors::ports::ReadError;
use rocksdb::{Direction, IteratorMode, ReadOptions};
use serde::de::DeserializeOwned;

use super::{Reach, Rocks, read_error};
use crate::store::record;

/// A row whose key is known also where its record is damaged.
type Keyed<T> = (Box<[u8]>, Result<T, ReadError>);

/// A row as it lies there.
type Raw = (Box<[u8]>, Box<[u8]>);

impl Rocks {
    /// The records from `from` on, upwards or downwards, with their keys.
    pub(in crate::store) fn scan<'a, T: DeserializeOwned>(
        &'a self,
        family: &'static str,
        from: &[u8],
        direction: Direction,
    ) -> impl Iterator<Item = Result<(Box<[u8]>, T), ReadError>> + use<'a, T> {
        self.scan_from(Reach::Disk, family, from, direction)
    }

    pub(in crate::store) fn scan_from<'a, T: DeserializeOwned>(
        &'a self,
        reach: Reach,
        family: &'static str,
        from: &[u8],
        direction: Direction,
    ) -> impl Iterator<Item = Result<(Box<[u8]>, T), ReadError>> + use<'a, T> {
        let mode = IteratorMode::From(from, direction);
        self.rows(family, mode, reach.options()).map(move |row| {
            let (key, value) = row.map_err(read_error)?;
            let value = record::open(family, &key, &value)?;
            Ok((key, value))
        })
    }

    /// The records whose keys begin with `prefix`, with their keys also where the record is damaged;
    /// ends after an error of the database itself.
    pub(in crate::store) fn below<'a, T: DeserializeOwned>(
        &'a self,
        family: &'static str,
        prefix: &'a [u8],
    ) -> impl Iterator<Item = Result<Keyed<T>, ReadError>> + use<'a, T> {
        self.keyed(family, prefix)
            .take_while(move |row| row.as_ref().map_or(true, |(key, _)| key.starts_with(prefix)))
    }

    /// The records from the key `from` on, with their keys also where the record is damaged.
    pub(in crate::store) fn keyed<'a, T: DeserializeOwned>(
        &'a self,
        family: &'static str,
        from: &[u8],
    ) -> impl Iterator<Item = Result<Keyed<T>, ReadError>> + use<'a, T> {
        let mode = IteratorMode::From(from, Direction::Forward);
        self.rows(family, mode, ReadOptions::default()).map(move |row| {
            let (key, value) = row.map_err(read_error)?;
            let value = record::open(family, &key, &value);
            Ok((key, value))
        })
    }

    /// Whether any key of a family begins with `prefix`, whatever lies there.
    pub(in crate::store) fn has_below(
        &self,
        family: &'static str,
        prefix: &[u8],
    ) -> Result<bool, ReadError> {
        let mode = IteratorMode::From(prefix, Direction::Forward);
        let first = self.rows(family, mode, ReadOptions::default()).next();
        let first = first.transpose().map_err(read_error)?;
        Ok(first.is_some_and(|(key, _)| key.starts_with(prefix)))
    }

    fn rows<'a>(
        &'a self,
        family: &'static str,
        mode: IteratorMode<'_>,
        options: ReadOptions,
    ) -> impl Iterator<Item = Result<Raw, rocksdb::Error>> + use<'a> {
        let handle = self.db.cf_handle(family);
        let rows = handle.map(|handle| self.db.iterator_cf_opt(handle, options, mode));
        rows.into_iter().flatten()
    }

    /// Every record of a family, with its key.
    pub(in crate::store) fn scan_all<T: DeserializeOwned>(
        &self,
        family: &'static str,
    ) -> impl Iterator<Item = Result<(Box<[u8]>, T), ReadError>> {
        self.scan(family, &[], Direction::Forward)
    }

    /// Whether each record of a family matches its checksum, with its key. An error without a key
    /// is the database's own, and the last: what comes after it cannot be read.
    pub(in crate::store) fn checked(
        &self,
        family: &'static str,
    ) -> impl Iterator<Item = (Option<Box<[u8]>>, Result<(), ReadError>)> {
        let rows = self.rows(family, IteratorMode::Start, ReadOptions::default());
        rows.map(move |row| match row {
            Ok((key, value)) => {
                let checked = record::check(family, &key, &value).map(drop);
                (Some(key), checked)
            }
            Err(error) => (None, Err(read_error(error))),
        })
    }
}
