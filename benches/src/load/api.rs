//! The API as a client of a person's would use it: one connection, kept open.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;
use ureq::Agent;
use ureq::http::Request;

use crate::brain::Brain;

const TIME_MAX: Duration = Duration::from_secs(60);

/// A connection to the API.
#[derive(Clone)]
pub(super) struct Api {
    agent: Agent,
    base: String,
    authorisation: String,
}

/// What a call took.
pub(super) struct Called {
    pub(super) time_us: u64,
    pub(super) body: Vec<u8>,
}

/// What an answer of many lines took.
pub(super) struct Lined {
    pub(super) first_us: u64,
    pub(super) all_us: u64,
    pub(super) lines: u64,
    pub(super) bytes: u64,
}

impl Api {
    /// Connects at the first call.
    pub(super) fn of(brain: &Brain) -> anyhow::Result<Self> {
        let config = Agent::config_builder().timeout_global(Some(TIME_MAX));
        Ok(Self {
            agent: config.http_status_as_error(false).build().into(),
            base: format!("http://{}/api/v1", brain.api),
            authorisation: format!("Bearer {}", brain.token()?),
        })
    }

    /// Reads a path below `/api/v1`.
    pub(super) fn get(&self, path: &str) -> anyhow::Result<Called> {
        self.call("GET", path, Vec::new())
    }

    /// Changes what is at a path below `/api/v1`.
    pub(super) fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Called> {
        self.call("PATCH", path, serde_json::to_vec(body)?)
    }

    /// Reads lines from a path below `/api/v1` as they come.
    pub(super) fn lines(&self, path: &str) -> anyhow::Result<Lined> {
        let request = self.request("GET", path, Vec::new())?;
        let began = Instant::now();
        let mut response = self.agent.run(request)?;
        if !response.status().is_success() {
            bail!("GET {path}: {} {}", response.status(), response.body_mut().read_to_string()?);
        }
        let since = || began.elapsed().as_micros() as u64;
        let mut lined = Lined { first_us: 0, all_us: 0, lines: 0, bytes: 0 };
        let (mut body, mut line) = (BufReader::new(response.body_mut().as_reader()), Vec::new());
        while body.read_until(b'\n', &mut line)? > 0 {
            if lined.lines == 0 {
                lined.first_us = since();
            }
            lined.lines += 1;
            lined.bytes += line.len() as u64;
            line.clear();
        }
        lined.all_us = since();
        Ok(lined)
    }

    fn request(&self, method: &str, path: &str, body: Vec<u8>) -> anyhow::Result<Request<Vec<u8>>> {
        Ok(Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("authorization", &self.authorisation)
            .header("content-type", "application/json")
            .body(body)?)
    }

    fn call(&self, method: &str, path: &str, body: Vec<u8>) -> anyhow::Result<Called> {
        let request = self.request(method, path, body)?;
        let began = Instant::now();
        let mut response = self.agent.run(request)?;
        let body = response.body_mut().with_config().limit(64 << 20).read_to_vec()?;
        let time_us = began.elapsed().as_micros() as u64;
        if !response.status().is_success() {
            bail!("{method} {path}: {} {}", response.status(), String::from_utf8_lossy(&body));
        }
        Ok(Called { time_us, body })
    }
}
