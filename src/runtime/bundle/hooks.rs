//! Hooks: programs that `config.json` names for certain moments of a container's life (config.md, "POSIX-platform Hooks").
//!
//! Each gets the container's state as JSON at its standard input, the environment that it names and no other (one without `env` has the caller's, or where it is the container's program the command's), and is killed when its time is over. Those of one moment run one
//! after the other; what they write is shown only where they fail.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Error;
use super::config::Hook;
use super::state::Report;

/// How much of what a failing hook wrote is told.
const TOLD: u64 = 4096;

/// Runs the hooks of one moment in the bundle's directory, until one fails.
pub(super) fn run(moment: &str, hooks: &[Hook], state: &Report) -> Result<(), Error> {
    hooks.iter().try_for_each(|hook| run_one(moment, hook, state, Path::new(&state.bundle)))
}

/// The same in the directory `place`, as this process sees it.
pub(super) fn run_in(place: &Path, moment: &str, hooks: &[Hook], state: &Report) -> Result<(), Error> {
    hooks.iter().try_for_each(|hook| run_one(moment, hook, state, place))
}

/// Runs all hooks of one moment, and gives the failures.
pub(super) fn run_all(moment: &str, hooks: &[Hook], state: &Report) -> Vec<Error> {
    hooks.iter().filter_map(|hook| run_one(moment, hook, state, Path::new(&state.bundle)).err()).collect()
}

fn run_one(moment: &str, hook: &Hook, state: &Report, place: &Path) -> Result<(), Error> {
    let failed = |reason: String| Error::Hook { moment: moment.to_owned(), path: hook.path.clone(), reason };
    // Cannot fail: strings and numbers into memory.
    let text = serde_json::to_vec(state).unwrap_or_default();
    let mut command = Command::new(&hook.path);
    if let Some((name, args)) = hook.args.split_first() {
        command.arg0(name).args(args);
    }
    if let Some(env) = &hook.env {
        command.env_clear().envs(env.iter().map(|entry| entry.split_once('=').unwrap_or((entry.as_str(), ""))));
    }
    if place.is_dir() {
        command.current_dir(place);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read it is free to.
        let _ = stdin.write_all(&text);
    }
    let in_time = wait(&child, hook.timeout).map_err(|error| failed(error.to_string()))?;
    if !in_time {
        let _ = child.kill();
        let _ = child.wait();
        return Err(failed(format!("it ran longer than {} s", hook.timeout.unwrap_or_default())));
    }
    let status = child.wait().map_err(|error| failed(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("it exited with {code}"),
        (None, signal) => format!("it was killed by signal {}", signal.unwrap_or_default()),
    };
    let wrote = stderr_of(&mut child);
    Err(failed(if wrote.is_empty() { how } else { format!("{how}: {wrote}") }))
}

/// Waits for the end of a hook; says whether it came in time.
fn wait(child: &Child, timeout: Option<i64>) -> std::io::Result<bool> {
    let Some(seconds) = timeout.filter(|seconds| *seconds > 0) else { return Ok(true) };
    let pid = Pid::from_raw(child.id().cast_signed()).ok_or(std::io::ErrorKind::InvalidInput)?;
    let ended = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = std::time::Instant::now() + Duration::from_secs(seconds.unsigned_abs());
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

/// What a hook that has ended wrote. A process that it left behind may hold the pipe: only what is there counts.
fn stderr_of(child: &mut Child) -> String {
    let Some(stderr) = child.stderr.take() else { return String::new() };
    let _ = rustix::io::ioctl_fionbio(&stderr, true);
    let mut text = Vec::new();
    let _ = stderr.take(TOLD).read_to_end(&mut text);
    String::from_utf8_lossy(&text).trim().to_owned()
}
