//! Where traces and metrics are sent.

use std::fmt;
use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue, Uri};
use serde::Deserialize;

/// An OTLP/HTTP endpoint, with what every request carries.
///
/// Headers may hold secrets, so they are shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Otlp {
    base: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    ca_file: Option<PathBuf>,
    spans_waiting_max: usize,
}

/// Headers as settings give them: `name=value,name=value`, the values percent-encoded as in the
/// standard. They may hold secrets, so they are shown nowhere.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct HeaderList(String);

impl fmt::Debug for HeaderList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeaderList(..)")
    }
}

/// An endpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// It is no address.
    #[error("otlp_endpoint {given:?} is no address such as http://127.0.0.1:4318")]
    Address {
        /// What was given.
        given: String,
    },
    /// A header is none.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The authority's certificates cannot be read.
    #[error("{file} cannot be read as certificates (PEM)")]
    Authority {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Headers that are not understood. What they hold is not repeated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the OTLP headers are no list such as name=value,other=value: see item {item}")]
pub struct HeaderError {
    /// Which of them, from 1.
    pub item: usize,
}

/// How many spans may wait to be sent, unless the binary says otherwise.
const SPANS_WAITING_MAX: usize = 2_048;

impl Otlp {
    /// The endpoint of the settings or, where they name none, of the standard variables
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` and `OTEL_EXPORTER_OTLP_HEADERS`; none where neither does.
    pub fn configured(
        endpoint: Option<&str>,
        headers: Option<&HeaderList>,
    ) -> Result<Option<Self>, EndpointError> {
        let headers = headers.map(|list| list.0.as_str());
        Self::from(endpoint, headers, |name| std::env::var(name).ok())
    }

    fn from(
        endpoint: Option<&str>,
        headers: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, EndpointError> {
        let given = |own: Option<&str>, name: &str| {
            own.map(str::to_owned).or_else(|| variable(name)).filter(|text| !text.is_empty())
        };
        let Some(base) = given(endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT") else { return Ok(None) };
        let base = base.trim_end_matches('/').to_owned();
        let usable = base.parse::<Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
        });
        if !usable {
            return Err(EndpointError::Address { given: base });
        }
        let headers = given(headers, "OTEL_EXPORTER_OTLP_HEADERS");
        let headers = headers.as_deref().map(parse_headers).transpose()?.unwrap_or_default();
        let ca_file = variable("OTEL_EXPORTER_OTLP_CERTIFICATE").map(PathBuf::from);
        Ok(Some(Self { base, headers, ca_file, spans_waiting_max: SPANS_WAITING_MAX }))
    }

    /// The same, with room for only so many spans that wait: the room is taken at once.
    pub fn with_spans_waiting_max(mut self, spans: usize) -> Self {
        self.spans_waiting_max = spans.max(1);
        self
    }

    pub(crate) fn url(&self, signal: &str) -> String {
        format!("{}/v1/{signal}", self.base)
    }

    pub(crate) fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    pub(crate) fn spans_waiting_max(&self) -> usize {
        self.spans_waiting_max
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Otlp").field("base", &self.base).field("headers", &names).finish()
    }
}

fn parse_headers(list: &str) -> Result<Vec<(HeaderName, HeaderValue)>, HeaderError> {
    let items = list.split(',').map(str::trim).enumerate().filter(|(_, item)| !item.is_empty());
    items
        .map(|(at, item)| {
            let parsed = item.split_once('=').and_then(|(name, value)| {
                let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
                let mut value = HeaderValue::from_bytes(&percent_decoded(value.trim())?).ok()?;
                value.set_sensitive(true);
                Some((name, value))
            });
            parsed.ok_or(HeaderError { item: at + 1 })
        })
        .collect()
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            rest = after;
            let digits = std::str::from_utf8(digits).ok()?;
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            decoded.push(*first);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_variables(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn without_an_endpoint_nothing_is_exported() {
        assert_eq!(Otlp::from(None, Some("a=b"), no_variables).expect("valid"), None);
    }

    #[test]
    fn settings_beat_the_standard_variables() {
        let variables = |name: &str| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some("http://variable:4318".to_owned()),
            "OTEL_EXPORTER_OTLP_HEADERS" => Some("from=variable".to_owned()),
            _ => None,
        };
        let otlp = Otlp::from(Some("https://own:4318/base/"), None, variables);
        let otlp = otlp.expect("valid").expect("an endpoint");
        assert_eq!(otlp.url("traces"), "https://own:4318/base/v1/traces");
        assert_eq!(otlp.headers()[0].1, "variable");
        let otlp = Otlp::from(None, Some("from=setting"), variables);
        let otlp = otlp.expect("valid").expect("an endpoint");
        assert_eq!(otlp.url("metrics"), "http://variable:4318/v1/metrics");
        assert_eq!(otlp.headers()[0].1, "setting");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for given in ["127.0.0.1:4318", "ftp://x", "http://", "x y"] {
            let refused = Otlp::from(Some(given), None, no_variables);
            assert!(matches!(refused, Err(EndpointError::Address { .. })), "{given}");
        }
    }

    #[test]
    fn headers_are_decoded_and_never_shown() {
        let list = "authorization=Bearer%20s3cret, x-scope = a=b";
        let otlp = Otlp::from(Some("http://h:1"), Some(list), no_variables);
        let otlp = otlp.expect("valid").expect("an endpoint");
        let values: Vec<_> = otlp.headers().iter().map(|(_, value)| value.as_bytes()).collect();
        assert_eq!(values, [&b"Bearer s3cret"[..], b"a=b"]);
        let shown = format!("{otlp:?}");
        assert!(!shown.contains("s3cret") && shown.contains("authorization"), "{shown}");
        let error = Otlp::from(Some("http://h:1"), Some("ok=1,s3cret"), no_variables);
        let shown = error.expect_err("no list").to_string();
        assert!(shown.contains("item 2") && !shown.contains("s3cret"), "{shown}");
    }
}
