//! As much of HTTP as an answer about oneself takes.

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt};

/// No request that is answered here is longer.
const REQUEST_BYTES_MAX: usize = 8 << 10;
const END: &[u8] = b"\r\n\r\n";

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    status: u16,
    content_type: &'static str,
    body: String,
}

impl Response {
    pub(super) fn new(status: u16, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, body }
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.to_owned())
    }

    pub(super) fn json(status: u16, content: &impl Serialize) -> Self {
        match serde_json::to_string(content) {
            Ok(body) => Self::new(status, "application/json", body + "\n"),
            Err(error) => Self::text(500, &format!("{error}\n")),
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let Self { status, content_type, body } = self;
        let reason = match status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            409 => "Conflict",
            405 => "Method Not Allowed",
            503 => "Service Unavailable",
            _ => "Internal Server Error",
        };
        let length = body.len();
        format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\n\
             content-length: {length}\r\nconnection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Without what follows a question mark.
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

/// How it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
}

/// Reads a request.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Request, Response> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(END.len()).position(|bytes| bytes == END) {
            break end + END.len();
        }
        more(stream, &mut bytes).await?;
    };
    let (method, path) = parse_line(&bytes[..head])?;
    let length = content_length(&bytes[..head])?;
    if length > REQUEST_BYTES_MAX - head {
        return Err(Response::text(400, "the request is too long\n"));
    }
    while bytes.len() < head + length {
        more(stream, &mut bytes).await?;
    }
    bytes.truncate(head + length);
    Ok(Request { method, path, body: bytes.split_off(head) })
}

async fn more(stream: &mut (impl AsyncRead + Unpin), bytes: &mut Vec<u8>) -> Result<(), Response> {
    let mut more = [0; 1 << 10];
    match stream.read(&mut more).await {
        Ok(read @ 1..) if bytes.len() + read <= REQUEST_BYTES_MAX => {
            bytes.extend_from_slice(&more[..read]);
            Ok(())
        }
        _ => Err(no_request()),
    }
}

fn no_request() -> Response {
    Response::text(400, "that is no HTTP request\n")
}

fn parse_line(head: &[u8]) -> Result<(Method, String), Response> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = std::str::from_utf8(line).unwrap_or_default().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(target), true) = (target, version.is_some_and(|v| v.starts_with("HTTP/1."))) else {
        return Err(no_request());
    };
    let method = match method {
        Some("GET") => Method::Get,
        Some("POST") => Method::Post,
        _ => return Err(Response::text(405, "only GET and POST are answered here\n")),
    };
    Ok((method, target.split('?').next().unwrap_or_default().to_owned()))
}

fn content_length(head: &[u8]) -> Result<usize, Response> {
    let head = std::str::from_utf8(head).map_err(|_| no_request())?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim())
    });
    length.map_or(Ok(0), |length| length.parse().map_err(|_| no_request()))
}

/// The status of an answer; 200 where it has no head.
pub(super) fn status(answer: &[u8]) -> u16 {
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    status.and_then(|status| status.parse().ok()).unwrap_or(200)
}

/// The body of an answer, which is all of it where it has no head.
pub(super) fn body(answer: &[u8]) -> &[u8] {
    let end = answer.windows(END.len()).position(|bytes| bytes == END);
    end.map_or(answer, |end| &answer[end + END.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_is_read_whole_and_no_further() {
        let request = b"GET /metrics?x=1 HTTP/1.1\r\nhost: edge\r\n\r\n";
        let asked = Request { method: Method::Get, path: "/metrics".into(), body: Vec::new() };
        assert_eq!(read(&mut &request[..]).await, Ok(asked));
        let request = b"POST /x HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}and more";
        let asked = Request { method: Method::Post, path: "/x".into(), body: b"{}".to_vec() };
        assert_eq!(read(&mut &request[..]).await, Ok(asked));
        let cases: [(&[u8], u16); 7] = [
            (b"PUT / HTTP/1.1\r\n\r\n", 405),
            (b"POST / HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nab", 400),
            (b"GET /metrics\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n", 400),
            (b"\xff\xff\r\n\r\n", 400),
        ];
        for (request, status) in cases {
            let refusal = read(&mut &request[..]).await.expect_err("no request");
            assert_eq!(refusal.status, status);
        }
        let endless = vec![b'x'; 2 * REQUEST_BYTES_MAX];
        assert!(read(&mut &endless[..]).await.is_err());
    }

    #[test]
    fn an_answer_has_a_head_and_a_body() {
        let answer = Response::text(503, "not now\n").to_bytes();
        assert!(answer.starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"));
        assert_eq!((body(&answer), status(&answer)), (&b"not now\n"[..], 503));
        assert_eq!(body(b"{}"), b"{}");
    }
}
