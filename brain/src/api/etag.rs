//! Versions as entity tags.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, header};
use protocol::state::Version;

use super::Problem;

/// The version that a caller makes a condition; none for no condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IfMatch(pub(super) Option<Version>);

/// The header that says which version an answer is of.
pub(super) fn etag(version: Version) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let Some(given) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(None)) };
        let text = given.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        let version = version.unwrap_or(text).parse().map_err(|_| {
            Problem::bad_request("If-Match takes one version, as the ETag of the state gave it")
        })?;
        Ok(Self(Some(version)))
    }
}
