//! Whether a container is well: a command that is run in it now and then by its supervisor.
//!
//! Each probe is a process of its own, a copy of the supervisor as in `exec.rs`, which waits for the command, ends one that takes too long, and leaves what it saw in a
//! pipe. The rules are Docker's: failures while a container is starting do not count before its start period is over; some in a row make it unhealthy; one success
//! makes it healthy. What is known is in `health.json` of the container's directory, which is replaced after each probe.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};

use super::exec::{Chronicle, Joined};
use super::state::{self, ContainerDir};
use super::streams::null;
use super::supervisor::{StartError, chain};
use super::{Error, pause};
use crate::runtime::{SandboxIo, Stdio, wire};
use crate::sys::process::{Cloned, clone_process, close_from, exit_now, reap, signal_pidfd};

/// How many probes are remembered.
const REMEMBERED: usize = 5;
/// How much of a probe's output is kept, in bytes.
const OUTPUT: usize = 4096;

/// How a container's health is found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The command and its arguments; 0 is healthy.
    #[serde(with = "wire::names")]
    pub command: Vec<OsString>,
    /// As the image or the user wrote it: `["CMD-SHELL", "…"]`, for display.
    pub written: Vec<String>,
    /// From the end of one probe to the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// For how long after the start failures do not count.
    pub start_period: Duration,
    /// The interval meanwhile.
    pub start_interval: Duration,
    /// How many failures in a row make it unhealthy.
    pub retries: u32,
}

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// It was never healthy, and has not failed often enough.
    Starting,
    /// Its last probe succeeded, or the ones after that have not failed often enough.
    Healthy,
    /// It failed too often.
    Unhealthy,
}

impl HealthStatus {
    /// In a word, as Docker says it.
    pub fn word(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }
}

/// What is known of a container's health. The names are those of `docker inspect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// How it is.
    pub status: HealthStatus,
    /// Failures since the last success.
    pub failing_streak: u32,
    /// The last probes, oldest first.
    pub log: Vec<Probed>,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Probed {
    /// When it began: RFC 3339.
    pub start: String,
    /// When it ended.
    pub end: String,
    /// Its exit code; -1 where it was ended, or could not be begun.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}

/// Reads what is known of a container's health; `None` where nobody asks for it.
pub fn load_health(dir: &Path) -> Result<Option<Health>, Error> {
    match state::read(&dir.join("health.json")) {
        Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// A probe under way.
#[derive(Debug)]
struct Probe {
    pid: u32,
    pidfd: OwnedFd,
    result: std::io::PipeReader,
}

/// Watches one run of a container.
#[derive(Debug)]
pub(super) struct Monitor {
    file: PathBuf,
    check: HealthCheck,
    started: Instant,
    next: Instant,
    probe: Option<Probe>,
    health: Health,
}

impl Monitor {
    /// Of a container that has just started.
    pub(super) fn new(dir: &ContainerDir, check: &HealthCheck) -> Monitor {
        let health = Health { status: HealthStatus::Starting, failing_streak: 0, log: Vec::new() };
        let now = Instant::now();
        let mut monitor = Monitor { file: dir.file("health.json"), check: check.clone(), started: now, next: now, probe: None, health };
        monitor.next = now + monitor.interval();
        monitor.save();
        monitor
    }

    fn is_in_start_period(&self) -> bool {
        self.health.status == HealthStatus::Starting && self.started.elapsed() < self.check.start_period
    }

    fn interval(&self) -> Duration {
        if self.is_in_start_period() { self.check.start_interval } else { self.check.interval }
    }

    /// How long until there is something to do.
    pub(super) fn due(&self) -> Option<Duration> {
        self.probe.is_none().then(|| self.next.saturating_duration_since(Instant::now()))
    }

    /// What becomes readable when the probe ends.
    pub(super) fn descriptor(&self) -> Option<&OwnedFd> {
        self.probe.as_ref().map(|probe| &probe.pidfd)
    }

    /// Begins a probe if it is time for one. Returns in the supervisor only.
    pub(super) fn tick(&mut self, container: &Joined<'_>) {
        if self.probe.is_some() || Instant::now() < self.next {
            return;
        }
        // One that stands still cannot answer, and its clock stands still as well.
        if pause::is_paused(&container.spec.id, container.process.cgroups()) {
            self.next = Instant::now() + self.interval();
            return;
        }
        let begun = std::io::pipe().and_then(|(result, write)| match clone_process(0, None)? {
            Cloned::Child => run(&self.check, container, write),
            Cloned::Parent { pid, pidfd } => Ok(Probe { pid, pidfd, result }),
        });
        match begun {
            Ok(probe) => self.probe = Some(probe),
            Err(_) => self.next = Instant::now() + self.interval(),
        }
    }

    /// The probe has ended. Gives how the container is where that has changed.
    pub(super) fn ended(&mut self) -> Option<HealthStatus> {
        let mut probe = self.probe.take()?;
        let before = self.health.status;
        let _ = reap(probe.pid);
        let mut bytes = Vec::new();
        let _ = probe.result.read_to_end(&mut bytes);
        if let Ok(probed) = serde_json::from_slice::<Probed>(&bytes) {
            self.count(probed);
            self.save();
        }
        self.next = Instant::now() + self.interval();
        (self.health.status != before).then_some(self.health.status)
    }

    fn count(&mut self, probed: Probed) {
        if probed.exit_code == 0 {
            (self.health.failing_streak, self.health.status) = (0, HealthStatus::Healthy);
        } else if !self.is_in_start_period() {
            self.health.failing_streak = self.health.failing_streak.saturating_add(1);
            if self.health.failing_streak >= self.check.retries {
                self.health.status = HealthStatus::Unhealthy;
            }
        }
        self.health.log.push(probed);
        let old = self.health.log.len().saturating_sub(REMEMBERED);
        self.health.log.drain(..old);
    }

    /// The container has ended, and is not well from here on.
    pub(super) fn stop(&mut self) {
        if let Some(probe) = self.probe.take() {
            let _ = signal_pidfd(probe.pidfd.as_fd(), libc::SIGKILL);
            let _ = reap(probe.pid);
        }
        self.health.status = HealthStatus::Unhealthy;
        self.save();
    }

    fn save(&self) {
        if let Err(error) = state::write(&self.file, &self.health) {
            tracing::debug!(%error, "the container's health is not on record");
        }
    }
}

/// The life of the probe's process.
fn run(check: &HealthCheck, container: &Joined<'_>, mut write: std::io::PipeWriter) -> ! {
    let _ = close_from(3, &[write.as_fd(), container.process.joinable()]);
    let _ = rustix::thread::set_name(c"strake-health");
    let start = Timestamp::now().to_string();
    let (exit_code, output) = match probe(check, container) {
        Ok(seen) => seen,
        Err(error) => (-1, chain(&error).into_bytes()),
    };
    let output = String::from_utf8_lossy(&output).into_owned();
    let probed = Probed { start, end: Timestamp::now().to_string(), exit_code, output };
    let _ = write.write_all(&serde_json::to_vec(&probed).unwrap_or_default());
    exit_now(0)
}

/// Runs the command to its end: its code, and the beginning of its output.
fn probe(check: &HealthCheck, container: &Joined<'_>) -> Result<(i32, Vec<u8>), StartError> {
    let failed = |action| move |error: std::io::Error| StartError::Kernel(action, error);
    let deadline = Instant::now() + check.timeout;
    let mut sandbox = container.spec.sandbox.clone();
    sandbox.process.args = check.command.clone();
    sandbox.process.terminal = None;
    sandbox.init = false;
    let (output, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("make a pipe")(errno.into()))?;
    let stdout = write.try_clone().map_err(failed("duplicate a descriptor"))?;
    let stdin = null().map_err(failed("open /dev/null"))?;
    let id = exec_id().map_err(failed("read random bytes"))?;
    let chronicle = Chronicle { spec: container.spec, id: &id, args: &sandbox.process.args };
    chronicle.tell("exec_create");
    let mut child = container.launch(&sandbox, SandboxIo::new(Stdio::Descriptors { stdin, stdout, stderr: write }))?;
    chronicle.tell("exec_start");
    let (mut kept, mut buffer, mut open) = (Vec::new(), vec![0; OUTPUT], true);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let _ = child.kill(libc::SIGKILL);
            chronicle.tell_of_end(128 + libc::SIGKILL);
            let said = format!("Health check exceeded timeout ({:?})", check.timeout);
            return Ok((-1, said.into_bytes()));
        }
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&child, PollFlags::IN)];
        if open {
            fds.push(PollFd::new(&output, PollFlags::IN));
        }
        let _ = poll(&mut fds, Some(&timeout));
        let ready = |index: usize| fds.get(index).is_some_and(|fd: &PollFd<'_>| !fd.revents().is_empty());
        let (ended, readable) = (ready(0), ready(1));
        if readable {
            match rustix::io::read(&output, &mut buffer) {
                Ok(length @ 1..) => kept.extend_from_slice(&buffer[..length.min(OUTPUT - kept.len())]),
                _ => open = false,
            }
        } else if ended {
            let code = i32::from(child.wait()?.status.code());
            chronicle.tell_of_end(code);
            return Ok((code, kept));
        }
    }
}

/// What the command of a probe is known by in the journal.
fn exec_id() -> std::io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| std::io::Error::other(error.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(start_period: Duration) -> (tempfile::TempDir, Monitor) {
        let dir = tempfile::tempdir().unwrap();
        let check = HealthCheck {
            command: vec!["true".into()],
            written: Vec::new(),
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(1),
            start_period,
            start_interval: Duration::from_secs(5),
            retries: 2,
        };
        let monitor = Monitor::new(&ContainerDir::new(dir.path()), &check);
        (dir, monitor)
    }

    fn probed(exit_code: i32) -> Probed {
        Probed { start: String::new(), end: String::new(), exit_code, output: String::new() }
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let (_dir, mut monitor) = monitor(Duration::ZERO);
        let mut seen = Vec::new();
        for code in [1, 1, 0, 1, 0, 1, 1] {
            monitor.count(probed(code));
            seen.push(monitor.health.status.word());
        }
        assert_eq!(seen, ["starting", "unhealthy", "healthy", "healthy", "healthy", "healthy", "unhealthy"]);
        assert_eq!(monitor.health.log.len(), REMEMBERED);
    }

    #[test]
    fn failures_before_the_end_of_the_start_period_do_not_count() {
        let (_dir, mut monitor) = monitor(Duration::from_secs(3600));
        assert!(monitor.due().unwrap() <= Duration::from_secs(5));
        (0..5).for_each(|_| monitor.count(probed(1)));
        assert_eq!((monitor.health.status, monitor.health.failing_streak), (HealthStatus::Starting, 0));
        monitor.count(probed(0));
        (0..2).for_each(|_| monitor.count(probed(1)));
        assert_eq!(monitor.health.status, HealthStatus::Unhealthy);
    }
}
