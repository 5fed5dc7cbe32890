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

/// Reads a request and gives its path, without what follows a question mark.
pub(super) async fn read_path(stream: &mut (impl AsyncRead + Unpin)) -> Result<String, Response> {
    let mut request = Vec::new();
    while !request.windows(END.len()).any(|bytes| bytes == END) {
        let mut more = [0; 1 << 10];
        match stream.read(&mut more).await {
            Ok(read @ 1..) if request.len() + read <= REQUEST_BYTES_MAX => {
                request.extend_from_slice(&more[..read]);
            }
            _ => return Err(Response::text(400, "that is no HTTP request\n")),
        }
    }
    parse(&request)
}

fn parse(request: &[u8]) -> Result<String, Response> {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).unwrap_or_default();
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("GET"), Some(target), Some(version)) if version.starts_with("HTTP/1.") => {
            Ok(target.split('?').next().unwrap_or_default().to_owned())
        }
        (Some(_), Some(_), Some(version)) if version.starts_with("HTTP/1.") => {
            Err(Response::text(405, "only GET is answered here\n"))
        }
        _ => Err(Response::text(400, "that is no HTTP request\n")),
    }
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
        assert_eq!(read_path(&mut &request[..]).await, Ok("/metrics".to_owned()));
        let cases: [(&[u8], u16); 4] = [
            (b"POST / HTTP/1.1\r\n\r\n", 405),
            (b"GET /metrics\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n", 400),
            (b"\xff\xff\r\n\r\n", 400),
        ];
        for (request, status) in cases {
            let refusal = read_path(&mut &request[..]).await.expect_err("no request");
            assert_eq!(refusal.status, status);
        }
        let endless = vec![b'x'; 2 * REQUEST_BYTES_MAX];
        assert!(read_path(&mut &endless[..]).await.is_err());
    }

    #[test]
    fn an_answer_has_a_head_and_a_body() {
        let answer = Response::text(503, "not now\n").to_bytes();
        assert!(answer.starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"));
        assert_eq!(body(&answer), b"not now\n");
        assert_eq!(body(b"{}"), b"{}");
    }
}
