//! A brain process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

const START_TIME_MAX: Duration = Duration::from_secs(60);

/// A brain with its data folder. Dropped, it is killed and the folder removed.
pub struct Brain {
    binary: PathBuf,
    folder: Folder,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    process: Option<Child>,
    /// Where devices connect.
    pub devices: SocketAddr,
    /// Where the API is.
    pub api: SocketAddr,
}

enum Folder {
    Own(TempDir),
    Given(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Given(path) => path,
        }
    }
}

impl Brain {
    /// Makes a fleet in a temporary folder and starts its brain from `binary`.
    pub fn start(binary: impl Into<PathBuf>) -> anyhow::Result<Self> {
        Self::start_with(binary, &[])
    }

    /// The same, with environment variables for the brain.
    pub fn start_with(
        binary: impl Into<PathBuf>,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::start_in(binary, Folder::Own(tempfile::tempdir()?), environment, &[])
    }

    /// The same, in a folder of the caller's.
    pub fn start_at(
        binary: impl Into<PathBuf>,
        folder: impl Into<PathBuf>,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        Self::start_in(binary, Folder::Given(folder.into()), environment, &[])
    }

    /// The same, with arguments that only one of the binaries takes.
    pub fn start_asking(
        binary: impl Into<PathBuf>,
        folder: impl Into<PathBuf>,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        Self::start_in(binary, Folder::Given(folder.into()), environment, arguments)
    }

    fn start_in(
        binary: impl Into<PathBuf>,
        folder: Folder,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let binary = binary.into();
        let init = Command::new(&binary)
            .args(["init", "--data-dir"])
            .arg(folder.path())
            .envs(environment.iter().copied())
            .output()
            .context("brain init does not run")?;
        if !init.status.success() {
            bail!("brain init failed: {}", String::from_utf8_lossy(&init.stderr));
        }
        let mut brain = Self::not_started(binary, folder, environment, arguments);
        brain.restart()?;
        Ok(brain)
    }

    /// A brain whose folder holds a fleet already. It does not run yet.
    pub fn at(
        binary: impl Into<PathBuf>,
        folder: impl Into<PathBuf>,
        environment: &[(&str, &str)],
    ) -> Self {
        Self::not_started(binary.into(), Folder::Given(folder.into()), environment, &[])
    }

    fn not_started(
        binary: PathBuf,
        folder: Folder,
        environment: &[(&str, &str)],
        arguments: &[&str],
    ) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        let environment = environment.iter().map(owned).collect();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { binary, folder, environment, arguments, process: None, devices: any, api: any }
    }

    /// Sets an environment variable of the processes that are started from now on.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.unset(name);
        self.environment.push((name.to_owned(), value.into()));
    }

    /// Takes an environment variable back.
    pub fn unset(&mut self, name: &str) {
        self.environment.retain(|(known, _)| known != name);
    }

    /// How the process ended, if it did by itself.
    pub fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let process = self.process.as_mut().context("no brain runs")?;
        Ok(process.try_wait()?)
    }

    /// Starts the process, which must not run, at the addresses that it had before.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let mut process = Command::new(&self.binary)
            .arg("serve")
            .arg("--data-dir")
            .arg(self.data())
            .args(["--device-listen", &self.devices.to_string()])
            .args(["--api-listen", &self.api.to_string()])
            .args(&self.arguments)
            .env("FLEET_BRAIN_LOG_JSON", "true")
            .env("FLEET_BRAIN_DISK_RESERVE_BYTES", "1048576")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stderr(Stdio::piped())
            .spawn()
            .context("brain serve does not run")?;
        let stderr = process.stderr.take().context("standard error is piped")?;
        self.process = Some(process);
        let (line, lines) = mpsc::channel();
        // To its end, so that what it says later does not fill the pipe.
        std::thread::spawn(move || {
            let said = BufReader::new(stderr).lines().map_while(Result::ok);
            // Nobody listens any more once it is ready.
            said.for_each(|text| drop(line.send(text)));
        });
        let deadline = Instant::now() + START_TIME_MAX;
        let mut said = String::new();
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            let event = serde_json::from_str::<Value>(&line).unwrap_or_default();
            let fields = &event["fields"];
            if fields["message"] == "the brain is ready" {
                let text = |name: &str| fields[name].as_str().unwrap_or_default().to_owned();
                self.devices = text("devices").parse()?;
                self.api = text("api").trim_start_matches("http://").parse()?;
                return Ok(());
            }
            said += &line;
            said.push('\n');
        }
        bail!("the brain did not start:\n{said}")
    }

    /// Waits until it answers that it is ready.
    pub fn wait_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_TIME_MAX;
        while Instant::now() < deadline {
            if self.readiness().is_ok_and(|(status, _)| status == 200) {
                return Ok(());
            }
            pause(Duration::from_millis(20));
        }
        bail!("the brain is not ready after {START_TIME_MAX:?}")
    }

    /// What `/readyz` answers.
    pub fn readiness(&self) -> anyhow::Result<(u16, Value)> {
        let mut response = agent().get(format!("http://{}/readyz", self.api)).call()?;
        Ok((response.status().as_u16(), response.body_mut().read_json()?))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits until it has ended.
    pub fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let id = self.pid()?;
        kill_process(id, Signal::TERM)?;
        self.wait()
    }

    /// Waits until the process ends by itself.
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        let mut process = self.process.take().context("no brain runs")?;
        Ok(process.wait()?)
    }

    /// The process.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        let process = self.process.as_ref().context("no brain runs")?;
        Pid::from_raw(i32::try_from(process.id())?).context("a process has a number")
    }

    /// The data folder.
    pub fn data(&self) -> &Path {
        self.folder.path()
    }

    /// The first API token.
    pub fn token(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(self.data().join("admin.token"))?.trim().to_owned())
    }

    /// The TLS authority, as PEM.
    pub fn authority(&self) -> anyhow::Result<Vec<u8>> {
        Ok(fs::read(self.data().join("keys/tls-ca.pem"))?)
    }

    /// Calls the API as the first user: the status, and the body where it is JSON.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(u16, Value)> {
        self.call_with(method, path, body, &[])
    }

    /// The same, with headers.
    pub fn call_with(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> anyhow::Result<(u16, Value)> {
        let mut request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.api))
            .header("authorization", format!("Bearer {}", self.token()?))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let mut response = agent().run(request.body(body)?)?;
        let json = response.body_mut().read_json().unwrap_or_default();
        Ok((response.status().as_u16(), json))
    }

    /// Calls the API and takes only success for an answer.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        match self.call("GET", path, None)? {
            (200, json) => Ok(json),
            (status, json) => bail!("GET {path}: {status} {json}"),
        }
    }

    /// Makes an enrolment token.
    pub fn enrolment_token(&self, uses: u32) -> anyhow::Result<String> {
        let request = serde_json::json!({ "uses": uses });
        let (status, json) = self.call("POST", "/api/v1/enrolment-tokens", Some(&request))?;
        let token = json["token"].as_str().map(str::to_owned);
        token.with_context(|| format!("no token: {status} {json}"))
    }

    /// What `/metrics` answers.
    pub fn metrics(&self) -> anyhow::Result<String> {
        Ok(self.scrape()?.1)
    }

    /// All metrics: the type of the text, and the text.
    pub fn scrape(&self) -> anyhow::Result<(String, String)> {
        let mut response = agent()
            .get(format!("http://{}/metrics", self.api))
            .header("authorization", format!("Bearer {}", self.token()?))
            .call()?;
        let content_type = response.headers().get("content-type").map(|value| value.to_str());
        let content_type = content_type.transpose()?.unwrap_or_default().to_owned();
        Ok((content_type, response.body_mut().read_to_string()?))
    }

    /// The scraped value of a metric, named as it is printed, labels included.
    pub fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let (_, text) = self.scrape()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.with_context(|| format!("no metric {name} in:\n{text}"))?;
        Ok(value.parse()?)
    }
}

impl Drop for Brain {
    fn drop(&mut self) {
        // A test that failed has said so already.
        let _ = self.kill();
    }
}

#[expect(clippy::disallowed_methods, reason = "called from blocking code only")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn agent() -> ureq::Agent {
    let time = Some(Duration::from_secs(30));
    ureq::Agent::config_builder().timeout_global(time).http_status_as_error(false).build().into()
}
