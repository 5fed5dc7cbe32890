//! Paths of leaves.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest path, in bytes of UTF-8.
pub const PATH_BYTES_MAX: usize = 256;
/// The most segments a path may have.
pub const PATH_DEPTH_MAX: usize = 12;

/// The address of a leaf, such as `reported/thermal/cpu_celsius`.
///
/// One to [`PATH_DEPTH_MAX`] segments joined by `/`, [`PATH_BYTES_MAX`] bytes at most. A segment
/// is any text without control characters that is not empty, `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Arc<str>);

/// A text that is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Too many bytes.
    #[error("path has {bytes} bytes, the limit is {PATH_BYTES_MAX}")]
    TooLong {
        /// How many it has.
        bytes: usize,
    },
    /// Too many segments.
    #[error("path has {depth} segments, the limit is {PATH_DEPTH_MAX}")]
    TooDeep {
        /// How many it has.
        depth: usize,
    },
    /// A segment that is empty, `.` or `..`.
    #[error("segment {index} of the path is empty, '.' or '..'")]
    BadSegment {
        /// Which one, from 0.
        index: usize,
    },
    /// A control character.
    #[error("path has a control character at byte {at}")]
    ControlCharacter {
        /// Where.
        at: usize,
    },
}

impl Path {
    /// Checks a text and makes it a path.
    pub fn new(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong { bytes: text.len() });
        }
        if let Some(at) = text.find(char::is_control) {
            return Err(PathError::ControlCharacter { at });
        }
        let mut depth = 0;
        for (index, segment) in text.split('/').enumerate() {
            if matches!(segment, "" | "." | "..") {
                return Err(PathError::BadSegment { index });
            }
            depth = index + 1;
        }
        if depth > PATH_DEPTH_MAX {
            return Err(PathError::TooDeep { depth });
        }
        Ok(Self(text.into()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The segments, first to last.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The first segment, which says whose the leaf is.
    pub fn first_segment(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The path below `prefix`, when it lies there: `reported/a/b` below `reported` is `a/b`.
    pub fn below(&self, prefix: &str) -> Option<&str> {
        self.0.strip_prefix(prefix)?.strip_prefix('/')
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::new(text)
    }
}

impl Serialize for Path {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Path {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_paths_are_told_apart() {
        assert_eq!(Path::new(""), Err(PathError::BadSegment { index: 0 }));
        assert_eq!(Path::new("a//b"), Err(PathError::BadSegment { index: 1 }));
        assert_eq!(Path::new("a/../b"), Err(PathError::BadSegment { index: 1 }));
        assert_eq!(Path::new("a/b\n"), Err(PathError::ControlCharacter { at: 3 }));
        assert_eq!(Path::new(&"x".repeat(257)), Err(PathError::TooLong { bytes: 257 }));
        assert_eq!(Path::new(&["x"; 13].join("/")), Err(PathError::TooDeep { depth: 13 }));
    }

    #[test]
    fn below_respects_segment_borders() {
        let path = Path::new("reported/thermal/cpu").expect("valid");
        assert_eq!(path.below("reported"), Some("thermal/cpu"));
        assert_eq!(path.below("report"), None);
        assert_eq!(path.first_segment(), "reported");
    }
}
