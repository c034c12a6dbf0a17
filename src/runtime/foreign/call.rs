//! Calling the other runtime, and what it says when it fails.
//!
//! It is told to log to a file, since its standard error is the container's own while it creates one. What it wrote there nevertheless counts where the log is empty.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use super::ForeignRuntime;
use crate::runtime::error::Failure;

/// Where programs are that the other runtime may call.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of what it says is passed on, in bytes.
const MOST: u64 = 4096;

/// The name of its log in the directory that it works in.
const LOG: &str = "log";

/// How a container's runtime is called.
pub(super) struct Caller<'a> {
    pub(super) runtime: &'a ForeignRuntime,
    /// The guardian's directory, in which it keeps its records.
    pub(super) records: &'a Path,
    /// The directory that this process works in.
    pub(super) work: &'a Path,
    /// The command that is to run in the container.
    pub(super) command: &'a str,
}

impl Caller<'_> {
    /// A call, with nothing of our environment and streams.
    pub(super) fn verb(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.runtime.program);
        command.env_clear().env("PATH", PATH).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.args(&self.runtime.arguments).arg("--root").arg(self.records.join("state")).arg("--log").arg(self.work.join(LOG));
        command.args(["--log-format", "json", verb]);
        command
    }

    /// Makes the call. What it says of a failure is the failure's reason: in its log, or else in `said`, whose other end its standard error is.
    pub(super) fn run(&self, verb: &str, command: &mut Command, said: Option<&OwnedFd>) -> Result<(), Failure> {
        let log = self.work.join(LOG);
        let _ = std::fs::remove_file(&log);
        let name = &self.runtime.name;
        let program = self.runtime.program.display();
        let status = command
            .status()
            .map_err(|error| Failure::Foreign { code: 125, message: format!("cannot execute the OCI runtime `{program}`: {error}") })?;
        if status.success() {
            return Ok(());
        }
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let reason = logged(&text).or_else(|| said.and_then(written)).unwrap_or_else(|| ended(status));
        let code = exit_code(self.command, &reason);
        Err(Failure::Foreign { code, message: format!("the OCI runtime `{name}` failed to {verb} the container: {reason}") })
    }

    /// It did not do what it said it did.
    pub(super) fn broken(&self, what: &str) -> Failure {
        Failure::Foreign { code: 125, message: format!("the OCI runtime `{}` {what}", self.runtime.name) }
    }
}

/// The last error in a log; its last line where it is not JSON.
fn logged(text: &str) -> Option<String> {
    let errors = text.lines().rev().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let fatal = ["error", "fatal", "panic"].iter().any(|level| line["level"] == *level);
        fatal.then(|| line["msg"].as_str().map(|message| message.trim().to_owned()))?
    });
    errors.or_else(|| text.lines().rev().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('{')).map(str::to_owned))
}

/// What is in a pipe, on one line.
fn written(pipe: &OwnedFd) -> Option<String> {
    rustix::io::ioctl_fionbio(pipe, true).ok()?;
    let mut bytes = Vec::new();
    // Ends with an error where something still holds the other end.
    let _ = std::fs::File::from(pipe.try_clone().ok()?).take(MOST).read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

fn ended(status: ExitStatus) -> String {
    format!("it said nothing ({status})")
}

/// The code of a failure, as `docker run` has it: 127 where the command is not there, 126 where it cannot be executed, 125 for anything else.
fn exit_code(command: &str, reason: &str) -> u8 {
    let lower = reason.to_lowercase();
    let about_command = (!command.is_empty() && reason.contains(command)) || lower.contains("open executable");
    let says = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if says(&["executable file not found", "not found in $path"]) || (about_command && says(&["no such file or directory"])) {
        127
    } else if about_command && says(&["permission denied", "is a directory", "exec format error", "not executable"]) {
        126
    } else {
        125
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_counts() {
        let log = r#"{"level":"warning","msg":"a"}
{"level":"error","msg":"first"}
{"level":"error","msg":"second\n"}
{"level":"info","msg":"b"}"#;
        assert_eq!(logged(log).as_deref(), Some("second"));
        assert_eq!(logged("a\nlast words\n\n").as_deref(), Some("last words"));
        assert_eq!(logged(r#"{"level":"debug","msg":"a"}"#), None);
    }

    #[test]
    fn failures_to_execute_the_command_have_codes_of_their_own() {
        for (reason, code) in [
            (r#"unable to start container process: exec: "nope": executable file not found in $PATH"#, 127),
            ("executable file `nope` not found in $PATH: No such file or directory", 127),
            (r#"exec: "nope": permission denied"#, 126),
            ("open executable: Permission denied", 126),
            ("stat /bundle/config.json: no such file or directory", 125),
            ("mkdir /sys/fs/cgroup/x: permission denied", 125),
        ] {
            assert_eq!(exit_code("nope", reason), code, "{reason}");
        }
    }
}
