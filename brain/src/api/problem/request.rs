//! Which request a problem is about.

use axum::body::to_bytes;
use axum::extract::{MatchedPath, Request};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use protocol::error::Cause;
use protocol::{ErrorCode, ErrorSource, Layer, SyncError};

use super::{Problem, Told};

/// What the router says by itself is a line.
const REFUSAL_BYTES_MAX: usize = 4 << 10;

/// Adds the request to a problem, and makes problems of what the router and its extractors refuse
/// by themselves.
pub(in crate::api) async fn in_request(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unknown route", MatchedPath::as_str);
    let (operation, component) = (format!("{} {route}", request.method()), component_of(route));
    let mut response = next.run(request).await;
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let allowed = response.headers_mut().remove(header::ALLOW);
    let error = match response.extensions_mut().remove::<Told>() {
        Some(Told(error)) => error,
        None if is_text(&response) => refusal(status, component, response).await,
        None => return response,
    };
    let text = match status.is_server_error() {
        true => "the request failed",
        false => "the request was refused",
    };
    let error = error.within(Cause::new(Layer::Api, component, &operation, text));
    let mut response = Problem { status, error }.into_response();
    if let Some(allowed) = allowed {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// The resource that a route is about.
fn component_of(route: &str) -> &str {
    let resource = route.strip_prefix("/api/v1/").and_then(|rest| rest.split('/').next());
    resource.unwrap_or("router")
}

/// Whether an answer is what a library says by itself: this program answers in JSON.
fn is_text(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"))
}

async fn refusal(status: StatusCode, component: &str, response: Response) -> SyncError {
    let (code, operation) = match status {
        StatusCode::NOT_FOUND => (ErrorCode::NotFound, "route"),
        StatusCode::METHOD_NOT_ALLOWED => (ErrorCode::BadRequest, "route"),
        StatusCode::PAYLOAD_TOO_LARGE => (ErrorCode::TooLarge, "read body"),
        status if status.is_server_error() => (ErrorCode::Internal, "read request"),
        _ => (ErrorCode::BadRequest, "read request"),
    };
    let said = to_bytes(response.into_body(), REFUSAL_BYTES_MAX).await.unwrap_or_default();
    let said = without_type_names(&String::from_utf8_lossy(&said));
    let text = match said.is_empty() {
        true => status.canonical_reason().unwrap_or("refused").to_lowercase(),
        false => said,
    };
    SyncError::new(code, ErrorSource::new(Layer::Api, component, operation), text)
}

/// What a parser expected, without the names that this program has for it.
fn without_type_names(text: &str) -> String {
    let mut words = Vec::new();
    let mut rest = text.split_whitespace();
    while let Some(word) = rest.next() {
        match (words.last(), word) {
            (Some(&"expected"), "struct" | "enum") => {
                words.push(if word == "struct" { "an object" } else { "a name" });
                rest.next();
            }
            _ => words.push(word),
        }
    }
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_parser_says_names_no_types() {
        let said = "invalid type: sequence, expected struct TokenRequest at line 1 column 1";
        let shown = "invalid type: sequence, expected an object at line 1 column 1";
        assert_eq!(without_type_names(said), shown);
        assert_eq!(without_type_names(shown), shown);
        assert_eq!(without_type_names("expected struct"), "expected an object");
    }

    #[test]
    fn a_route_is_about_its_first_name() {
        assert_eq!(component_of("/api/v1/devices/{id}/state"), "devices");
        assert_eq!(component_of("/metrics"), "router");
    }
}
