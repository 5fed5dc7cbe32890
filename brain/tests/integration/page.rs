//! The status page in a real browser.

use std::process::Command;
use std::time::Duration;

use benches::brain::Brain;
use protocol::state::Value;

use crate::browser::Browser;
use crate::harness::{BRAIN, brain, device};

/// Text that would run if it were ever taken for markup.
const HOSTILE: &str =
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_logs_in_and_sees_the_fleet_at_both_widths() {
    let brain = brain();
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    device.write("reported/note", Value::from(HOSTILE)).expect("valid");
    device.offer().await.expect("offers");
    let stored = |device: &benches::device::LightDevice| device.stored() == 1;
    device.run_until(stored, Duration::from_secs(10)).await.expect("stored");
    let name = device.membership.device.short();
    let serve = tokio::spawn(async move {
        let _ = device.run_until(|_| false, Duration::from_secs(120)).await;
    });
    tokio::task::spawn_blocking(move || look(&brain, &name)).await.expect("the page works");
    serve.abort();
}

fn look(brain: &Brain, name: &str) {
    let browser = Browser::start();
    let page = format!("http://{}/", brain.api);
    for width in [360, 1440] {
        browser.open(&page, width);
        browser.run("sessionStorage.clear(); location.reload()");
        browser.wait_for_text(|text| text.contains("Log in") && !text.contains("Devices"));
        browser.type_into("#code", "WRONG");
        browser.click("#login button");
        browser.wait_for_text(|text| text.contains("wrong, was used, or has expired"));
        browser.type_into("#code", &brain.token().expect("a token"));
        browser.click("#login button");
        browser.wait_for_text(|text| {
            text.contains(name)
                && text.contains("1 of 1 devices online")
                && !text.contains("Log in")
        });
        browser.click("#devices tr");
        browser.wait_for_text(|text| text.contains("reported/note") && text.contains("<script>"));
        let wide = browser.run("return document.documentElement.scrollWidth > window.innerWidth");
        assert_eq!(wide, false, "the page fits {width} pixels");
        assert_eq!(browser.run("return document.title"), "Fleet brain", "nothing was executed");
        if let Ok(folder) = std::env::var("FLEET_SCREENSHOTS") {
            let png =
                data_encoding::BASE64.decode(browser.screenshot().as_bytes()).expect("base64");
            std::fs::write(format!("{folder}/page-{width}.png"), png).expect("writes");
        }
    }
    let complaints = browser.complaints();
    let violations: Vec<_> =
        complaints.iter().filter(|text| text.contains("Content Security Policy")).collect();
    assert!(violations.is_empty(), "{violations:?}");
}

#[test]
fn the_description_of_the_api_is_shown_without_anything_from_elsewhere() {
    let brain = brain();
    let browser = Browser::start();
    browser.open(&format!("http://{}/api/v1/docs/", brain.api), 1440);
    browser.wait_for_text(|text| text.contains("/api/v1/devices/{id}/history"));
    let foreign = browser.run(
        "return performance.getEntriesByType('resource').map(e => e.name)\
         .filter(name => !name.startsWith(location.origin) && !name.startsWith('data:'))",
    );
    assert_eq!(foreign, serde_json::json!([]));
}

#[test]
fn a_login_code_works_in_the_page_once() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let folder = tempfile::tempdir().expect("temporary folder");
    let init = Command::new(BRAIN).args(["init", "--data-dir"]).arg(folder.path()).output();
    assert!(init.expect("runs").status.success());
    let mut process = Command::new(BRAIN)
        .args(["serve", "--login-code", "--device-listen", "127.0.0.1:0"])
        .args(["--api-listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(process.stdout.take().expect("piped")).lines();
    let said: Vec<String> = lines.map_while(Result::ok).take(2).collect();
    let after = |prefix| said.iter().find_map(|line| line.strip_prefix(prefix)).expect("printed");
    let (page, code) = (after("page: "), after("one-time code: "));
    let browser = Browser::start();
    browser.open(page, 1440);
    browser.wait_for_text(|text| text.contains("Log in"));
    browser.type_into("#code", code);
    browser.click("#login button");
    browser.wait_for_text(|text| text.contains("0 of 0 devices online"));
    browser.click("#log-out");
    browser.type_into("#code", code);
    browser.click("#login button");
    browser.wait_for_text(|text| text.contains("wrong, was used, or has expired"));
    process.kill().expect("kills");
    process.wait().expect("is gone");
}
