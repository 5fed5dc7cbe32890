//! Versions as entity tags, and other conditions of writes.

use actors::device::Precondition;
use axum::extract::{FromRequestParts, Query as UrlQuery};
use axum::http::request::Parts;
use axum::http::{HeaderName, header};
use protocol::query::Query;
use protocol::state::Version;
use serde::Deserialize;

use super::Problem;

/// What a caller makes a condition: `If-Match` with a version, and `?if=` with a query over the
/// device's tree.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OnlyIf(pub(super) Precondition);

#[derive(Debug, Deserialize)]
struct Parameters {
    r#if: Option<String>,
}

/// The header that says which version an answer is of.
pub(super) fn etag(version: Version) -> [(HeaderName, String); 1] {
    [(header::ETAG, format!("\"{version}\""))]
}

impl<S: Sync> FromRequestParts<S> for OnlyIf {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let version = parts.headers.get(header::IF_MATCH).map(version_of).transpose()?.flatten();
        let given = UrlQuery::<Parameters>::try_from_uri(&parts.uri);
        let UrlQuery(Parameters { r#if: text }) =
            given.map_err(|error| Problem::bad_request("parse query", error.to_string()))?;
        let query = text.map(|text| parse_query(&text)).transpose()?;
        if query.as_ref().is_some_and(|query| query.looks_at().at_name) {
            return Err(Problem::bad_request(
                "check condition",
                "a condition of a write cannot ask for a name",
            ));
        }
        Ok(Self(Precondition { version, query }))
    }
}

/// Refuses a condition where there is none to give.
pub(super) struct NoCondition;

impl<S: Sync> FromRequestParts<S> for NoCondition {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let OnlyIf(condition) = OnlyIf::from_request_parts(parts, state).await?;
        match condition == Precondition::default() {
            true => Ok(Self),
            false => {
                Err(Problem::bad_request("check condition", "this request takes no condition"))
            }
        }
    }
}

/// The query in a text.
pub(super) fn parse_query(text: &str) -> Result<Query, Problem> {
    text.parse()
        .map_err(|error| Problem::bad_request("parse query", format!("query {text:?}: {error}")))
}

fn version_of(given: &axum::http::HeaderValue) -> Result<Option<Version>, Problem> {
    let text = given.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let version = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let version = version.unwrap_or(text).parse().map_err(|_| {
        Problem::bad_request(
            "parse condition",
            "If-Match takes one version, as the ETag of the state gave it",
        )
    })?;
    Ok(Some(version))
}
