//! A real browser, driven over the WebDriver protocol.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::pause;

const PATIENCE: Duration = Duration::from_secs(20);
/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Chromium without a window.
pub(crate) struct Browser {
    driver: Child,
    agent: ureq::Agent,
    base: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub(crate) fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver (Debian package chromium-driver) is installed");
        let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
        let started = lines
            .by_ref()
            .map_while(Result::ok)
            .find(|line| line.contains("started successfully on port"))
            .expect("chromedriver starts");
        std::thread::spawn(move || lines.for_each(drop));
        let port: String = started.chars().filter(char::is_ascii_digit).collect();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        let profile = tempfile::tempdir().expect("temporary folder");
        let mut browser =
            Self { driver, agent, base: format!("http://127.0.0.1:{port}"), _profile: profile };
        let folder = format!("--user-data-dir={}", browser._profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            &folder,
        ];
        let options = json!({ "args": arguments });
        let capabilities = json!({ "alwaysMatch": { "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL" } } });
        let session = browser.post("/session", json!({ "capabilities": capabilities }));
        let id = session["sessionId"].as_str().expect("a session").to_owned();
        browser.base = format!("{}/session/{id}", browser.base);
        browser
    }

    pub(crate) fn open(&self, url: &str, width: u32) {
        self.post("/window/rect", json!({ "width": width, "height": 900 }));
        self.post("/url", json!({ "url": url }));
    }

    /// Types into the element that a selector names.
    pub(crate) fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/value"), json!({ "text": text }));
    }

    pub(crate) fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/click"), json!({}));
    }

    /// Runs a script in the page.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", json!({ "script": script, "args": [] }))
    }

    /// Waits until the page's visible text fits.
    pub(crate) fn wait_for_text(&self, fits: impl Fn(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let text = self.run("return document.body.innerText");
            let text = text.as_str().unwrap_or_default().to_owned();
            if fits(&text) {
                return text;
            }
            assert!(Instant::now() < until, "the page shows: {text}");
            pause();
        }
    }

    /// What the browser complained about, such as a violated content policy.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let log = self.post("/se/log", json!({ "type": "browser" }));
        let entries = log.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| entry["message"].to_string()).collect()
    }

    /// A picture of the page, as base64 of a PNG.
    pub(crate) fn screenshot(&self) -> String {
        let answer = self.agent.get(format!("{}/screenshot", self.base)).call();
        let answer: Value = answer.expect("answers").body_mut().read_json().expect("a picture");
        answer["value"].as_str().expect("base64").to_owned()
    }

    fn element(&self, selector: &str) -> String {
        let query = json!({ "using": "css selector", "value": selector });
        let found = self.post("/element", query);
        found[ELEMENT].as_str().unwrap_or_else(|| panic!("no {selector}: {found}")).to_owned()
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.agent.post(format!("{}{path}", self.base)).send_json(body);
        let answer: Value = answer.expect("answers").body_mut().read_json().expect("JSON");
        assert!(answer["value"]["error"].is_null(), "{path}: {answer}");
        answer["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Closing the session ends the browser; the driver is ended for certain.
        let _ = self.agent.delete(&self.base).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
