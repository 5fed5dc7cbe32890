//! Patterns of paths.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::state::{PATH_BYTES_MAX, Path};

/// Which paths a rule is for: segments as they are, `*` for any one segment, and, as the last,
/// `**` for any number of further ones, none included.
///
/// `desired/thermal/*` is for `desired/thermal/limit`, not for `desired/thermal/cpu/limit`;
/// `desired/**` is for both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(String);

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// An empty segment, or more bytes than a path may have.
    #[error(
        "{given:?} is no pattern: it needs segments joined by '/', {PATH_BYTES_MAX} bytes at most"
    )]
    Malformed {
        /// The text.
        given: String,
    },
    /// A star that is not a whole segment, or `**` before the end.
    #[error("{given:?} is no pattern: '*' stands for one whole segment, '**' only at the end")]
    Star {
        /// The text.
        given: String,
    },
}

impl PathPattern {
    /// Checks a text and makes it a pattern.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let given = || text.to_owned();
        if text.len() > PATH_BYTES_MAX || text.split('/').any(str::is_empty) {
            return Err(PatternError::Malformed { given: given() });
        }
        let mut segments = text.split('/').peekable();
        while let Some(segment) = segments.next() {
            let is_last = segments.peek().is_none();
            let fits = segment == "*" || (segment == "**" && is_last) || !segment.contains('*');
            if !fits {
                return Err(PatternError::Star { given: given() });
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether it is for this path.
    pub fn matches(&self, path: &Path) -> bool {
        let mut segments = path.segments();
        for wanted in self.0.split('/') {
            if wanted == "**" {
                return true;
            }
            match segments.next() {
                Some(segment) if wanted == "*" || wanted == segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for PathPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let pattern = PathPattern::new(pattern).expect("a pattern");
        pattern.matches(&Path::new(path).expect("a path"))
    }

    #[test]
    fn stars_stand_for_whole_segments() {
        let cases = [
            ("a/b", "a/b", true),
            ("a/b", "a", false),
            ("a/b", "a/b/c", false),
            ("a/*", "a/b", true),
            ("a/*", "a", false),
            ("a/*", "a/b/c", false),
            ("*/limit", "thermal/limit", true),
            ("a/**", "a", true),
            ("a/**", "a/b/c", true),
            ("a/**", "ab/c", false),
            ("**", "anything/at/all", true),
        ];
        for (pattern, path, is_match) in cases {
            assert_eq!(matches(pattern, path), is_match, "{pattern} {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in ["", "a//b", "/a", "a/"] {
            let refused = PathPattern::new(text);
            assert!(matches!(refused, Err(PatternError::Malformed { .. })), "{text}");
        }
        for text in ["a*", "**/a", "a/***", "a/b*c"] {
            let refused = PathPattern::new(text);
            assert!(matches!(refused, Err(PatternError::Star { .. })), "{text}");
        }
    }
}
