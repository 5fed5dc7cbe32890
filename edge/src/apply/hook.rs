//! Desired state that is carried out by a program of the device's owner.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use protocol::state::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// Whoever takes longer is killed.
const TIMEOUT: Duration = Duration::from_secs(30);
/// So much of what a failed program says goes into the report.
const STDERR_CHARS_MAX: usize = 200;

/// Why a hook did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// No folder with hooks is configured.
    #[error("this device has no hooks folder")]
    NoFolder,
    /// Not the name of a file in the folder.
    #[error("{name:?} is no hook's name: letters, digits, '-' and '_' are allowed")]
    BadName {
        /// The name.
        name: String,
    },
    /// The folder has no such program.
    #[error("there is no hook {name:?}")]
    Missing {
        /// The name.
        name: String,
    },
    /// The program cannot be run.
    #[error("hook does not run")]
    NotRun {
        /// What the system said.
        source: std::io::Error,
    },
    /// It failed.
    #[error("hook ended with {status}: {said}")]
    Failed {
        /// Its exit code, or the signal that ended it.
        status: String,
        /// The end of what it said on stderr.
        said: String,
    },
    /// It took too long.
    #[error("hook took longer than {} s", TIMEOUT.as_secs())]
    TimedOut,
}

/// Runs the hook `name` with the value on its stdin: text as it is, anything else as JSON. No
/// value, because the leaf went, is an empty stdin.
pub(super) async fn run(
    folder: Option<&Path>,
    name: &str,
    value: Option<&Value>,
) -> Result<(), HookError> {
    let program = find(folder, name)?;
    let output = execute(&program, value).await?;
    if output.status.success() { Ok(()) } else { Err(failed(&output)) }
}

/// Whether what the hook `name` made of a value still holds, by its program `name.check`: it ends
/// with 0 where it does and with 1 where it does not. None where there is no such program.
pub(super) async fn holds(
    folder: Option<&Path>,
    name: &str,
    value: &Value,
) -> Result<Option<bool>, HookError> {
    let program = find(folder, name)?.with_added_extension("check");
    if !program.is_file() {
        return Ok(None);
    }
    let output = execute(&program, Some(value)).await?;
    match output.status.code() {
        Some(0) => Ok(Some(true)),
        Some(1) => Ok(Some(false)),
        _ => Err(failed(&output)),
    }
}

/// Runs a program with the value on its stdin.
async fn execute(program: &Path, value: Option<&Value>) -> Result<Output, HookError> {
    let input = match value {
        Some(value) => value.as_str().map_or_else(|| value.to_json().to_string(), str::to_owned),
        None => String::new(),
    };
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| HookError::NotRun { source })?;
    let stdin = child.stdin.take();
    let work = async {
        if let Some(mut stdin) = stdin {
            // A hook need not read what it is given.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    match timeout(TIMEOUT, work).await {
        Ok(output) => output.map_err(|source| HookError::NotRun { source }),
        Err(_) => Err(HookError::TimedOut),
    }
}

fn failed(output: &Output) -> HookError {
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().filter(|c| !c.is_control()).collect();
    let skip = said.chars().count().saturating_sub(STDERR_CHARS_MAX);
    let said = said.chars().skip(skip).collect();
    HookError::Failed { status: output.status.to_string(), said }
}

fn find(folder: Option<&Path>, name: &str) -> Result<PathBuf, HookError> {
    let folder = folder.ok_or(HookError::NoFolder)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(HookError::BadName { name: name.to_owned() });
    }
    let program = folder.join(name);
    if !program.is_file() {
        return Err(HookError::Missing { name: name.to_owned() });
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
    }

    #[tokio::test]
    async fn a_hook_gets_the_value_and_its_failure_is_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let out = dir.path().join("out");
        script(dir.path(), "fan", &format!("cat > {}", out.display()));
        script(dir.path(), "bad", "echo no fan here >&2; exit 3");
        run(Some(dir.path()), "fan", Some(&Value::from("full"))).await.expect("runs");
        assert_eq!(std::fs::read_to_string(out).expect("written"), "full");
        let error = run(Some(dir.path()), "bad", None).await.expect_err("fails");
        assert!(error.to_string().contains("no fan here"), "{error}");
    }

    #[tokio::test]
    async fn a_check_tells_by_its_exit_code_and_need_not_be_there() {
        let dir = tempfile::tempdir().expect("a folder");
        script(dir.path(), "fan", "cat > /dev/null");
        let full = Value::from("full");
        let check = async || holds(Some(dir.path()), "fan", &full).await;
        assert!(matches!(check().await, Ok(None)));
        script(dir.path(), "fan.check", "test \"$(cat)\" = full");
        assert!(matches!(check().await, Ok(Some(true))));
        script(dir.path(), "fan.check", "exit 1");
        assert!(matches!(check().await, Ok(Some(false))));
        script(dir.path(), "fan.check", "exit 2");
        assert!(matches!(check().await, Err(HookError::Failed { .. })));
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in ["../sh", "a/b", "", ".", ".."] {
            assert!(matches!(find(Some(dir.path()), name), Err(HookError::BadName { .. })));
        }
        assert!(matches!(find(Some(dir.path()), "none"), Err(HookError::Missing { .. })));
        assert!(matches!(find(None, "none"), Err(HookError::NoFolder)));
    }
}
