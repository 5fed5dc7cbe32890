//! The status page: three files without a build, and without anything from elsewhere.

use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Scripts and styles come from here only; nobody may put the page into a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The page of the API description sets styles from its script.
const POLICY_DOCS: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(super) async fn index() -> impl IntoResponse {
    serve("text/html; charset=utf-8", include_str!("page/index.html"))
}

pub(super) async fn script() -> impl IntoResponse {
    serve("text/javascript; charset=utf-8", include_str!("page/app.js"))
}

pub(super) async fn style() -> impl IntoResponse {
    serve("text/css; charset=utf-8", include_str!("page/app.css"))
}

fn serve(kind: &'static str, content: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], content)
}

/// Adds the headers that keep browsers from doing what the page does not need.
pub(super) async fn security_headers(request: Request, next: Next) -> Response {
    let docs = request.uri().path().starts_with("/api/v1/docs");
    let mut response = next.run(request).await;
    let headers = [
        ("content-security-policy", if docs { POLICY_DOCS } else { POLICY }),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
    ];
    for (name, value) in headers {
        let name = HeaderName::from_static(name);
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
