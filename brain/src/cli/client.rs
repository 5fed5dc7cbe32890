//! Talking to a brain's API.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::http::{Method, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use url::Url;

use super::refused::refused;

const TIME_MAX: Duration = Duration::from_secs(30);

/// The longest answer that is read, in bytes: the whole tree of a large fleet.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, clap::Args)]
pub(super) struct ClientArgs {
    /// The address of the brain's API [default: what `brain login` or `brain dev` left, else http://127.0.0.1:7480]
    #[arg(long, env = "FLEET_BRAIN_URL", global = true)]
    url: Option<Url>,
    /// A file with an API token, such as admin.token of the brain's data folder
    #[arg(long, env = "FLEET_BRAIN_TOKEN_FILE", global = true)]
    token_file: Option<PathBuf>,
    /// The certificate authority of the brain, where its API speaks TLS
    #[arg(long, env = "FLEET_BRAIN_CA_FILE", global = true)]
    ca_file: Option<PathBuf>,
}

/// What `brain login` and `brain dev` leave for later commands, readable by its owner only.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Remembered {
    url: Option<Url>,
    token: Option<String>,
    ca_file: Option<PathBuf>,
}

pub(super) struct Client {
    agent: ureq::Agent,
    url: Url,
    token: String,
    ca_file: Option<PathBuf>,
}

impl Client {
    pub(super) fn new(args: &ClientArgs) -> anyhow::Result<Self> {
        let remembered = recall();
        let url = address(args, &remembered)?;
        let token = match (&args.token_file, std::env::var("FLEET_BRAIN_TOKEN"), remembered.token) {
            (Some(file), _, _) => fs::read_to_string(file)
                .with_context(|| format!("{} cannot be read", file.display()))?,
            (None, Ok(token), _) => token,
            (None, Err(_), Some(token)) if args.url.is_none() => token,
            _ => bail!(
                "no API token: run `brain login CODE`, or give --token-file DATA_DIR/admin.token"
            ),
        };
        let ca_file = args.ca_file.clone().or(remembered.ca_file);
        let agent = agent(ca_file.as_deref(), Some(TIME_MAX))?;
        Ok(Self { agent, url, token: token.trim().to_owned(), ca_file })
    }

    /// Of the brain at an address, whose API does not speak TLS.
    pub(super) fn at(url: Url, token: &str) -> anyhow::Result<Self> {
        let agent = agent(None, Some(TIME_MAX))?;
        Ok(Self { agent, url, token: token.to_owned(), ca_file: None })
    }

    /// The same, waiting for answers that much longer.
    pub(super) fn patient(self, longer: Duration) -> anyhow::Result<Self> {
        let agent = agent(self.ca_file.as_deref(), Some(TIME_MAX + longer))?;
        Ok(Self { agent, ..self })
    }

    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.call(Method::GET, path, None)
    }

    /// Asks for something that has no answer but that it is done.
    pub(super) fn order(&self, method: Method, path: &str) -> anyhow::Result<()> {
        send(&self.agent, &self.url, Some(&self.token), method, path, None, None).map(drop)
    }

    /// Opens an answer that goes on for as long as it is read.
    pub(super) fn stream(&self, path: &str) -> anyhow::Result<ureq::BodyReader<'static>> {
        let agent = agent(self.ca_file.as_deref(), None)?;
        let response = send(&agent, &self.url, Some(&self.token), Method::GET, path, None, None)?;
        Ok(response.into_body().into_reader())
    }

    pub(super) fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> anyhow::Result<T> {
        self.call_if(method, path, body, None)
    }

    /// The same, only where the state is at a version.
    pub(super) fn call_if<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        if_version: Option<u64>,
    ) -> anyhow::Result<T> {
        let token = Some(self.token.as_str());
        let mut answer = send(&self.agent, &self.url, token, method, path, body, if_version)?;
        Ok(answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_json()?)
    }
}

/// `brain login`.
pub(super) fn log_in(args: &ClientArgs, code: &str) -> anyhow::Result<()> {
    #[derive(Deserialize)]
    struct LoggedIn {
        token: String,
    }
    let remembered = recall();
    let url = address(args, &remembered)?;
    let ca_file = args.ca_file.clone().or(remembered.ca_file);
    let agent = agent(ca_file.as_deref(), Some(TIME_MAX))?;
    let body = Some(json!({ "code": code }));
    let mut response = send(&agent, &url, None, Method::POST, "/api/v1/login", body, None)?;
    let answer: LoggedIn = response.body_mut().read_json()?;
    let path = remember(&url, &answer.token, ca_file)?;
    eprintln!("logged in to {url}; the token is kept in {}", path.display());
    Ok(())
}

/// Keeps address and token for later commands, and says where.
pub(super) fn remember(
    url: &Url,
    token: &str,
    ca_file: Option<PathBuf>,
) -> anyhow::Result<PathBuf> {
    let path = memory_path()?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let content = Remembered { url: Some(url.clone()), token: Some(token.to_owned()), ca_file };
    brain::replace(&path, &serde_json::to_vec_pretty(&content)?, brain::Readers::Owner)?;
    Ok(path)
}

fn recall() -> Remembered {
    let content = memory_path().ok().and_then(|path| fs::read(path).ok());
    content.and_then(|content| serde_json::from_slice(&content).ok()).unwrap_or_default()
}

fn memory_path() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("FLEET_BRAIN_CLIENT_FILE") {
        return Ok(path.into());
    }
    let home = std::env::var_os("HOME").context("HOME is not set")?;
    Ok(PathBuf::from(home).join(".config/fleet-brain/client.json"))
}

fn address(args: &ClientArgs, remembered: &Remembered) -> anyhow::Result<Url> {
    let given = args.url.clone().or_else(|| remembered.url.clone());
    given.map_or_else(|| Ok(Url::parse("http://127.0.0.1:7480")?), Ok)
}

fn agent(ca_file: Option<&Path>, time_max: Option<Duration>) -> anyhow::Result<ureq::Agent> {
    let mut config =
        ureq::Agent::config_builder().timeout_global(time_max).http_status_as_error(false);
    if let Some(file) = ca_file {
        let pem = fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let authority = Certificate::from_pem(&pem)?;
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&[authority]));
        config = config.tls_config(tls.build());
    }
    Ok(config.build().into())
}

/// Sends a request; an answer that is no success becomes the error that it tells of.
fn send(
    agent: &ureq::Agent,
    url: &Url,
    token: Option<&str>,
    method: Method,
    path: &str,
    body: Option<Value>,
    if_version: Option<u64>,
) -> anyhow::Result<Response<ureq::Body>> {
    let target = url.join(path)?;
    let mut request = ureq::http::Request::builder().method(method).uri(target.as_str());
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    if let Some(version) = if_version {
        request = request.header("if-match", format!("\"{version}\""));
    }
    let body = match &body {
        Some(body) => {
            request = request.header("content-type", "application/json");
            serde_json::to_vec(body)?
        }
        None => Vec::new(),
    };
    let mut response = agent.run(request.body(body)?).with_context(|| {
        format!("no brain answers at {url}: is it running? (`brain serve`, or --url)")
    })?;
    if response.status().is_success() {
        return Ok(response);
    }
    let problem: Value = response.body_mut().read_json().unwrap_or_default();
    Err(refused(url, response.status(), problem))
}
