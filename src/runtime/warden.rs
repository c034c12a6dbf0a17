//! The parent of a sandbox whose processes are in no PID namespace of their own: it ends with the command, and takes all of its descendants with it.
//!
//! The kernel does that where the command is PID 1. Here whatever loses its parent is given to the warden (`PR_SET_CHILD_SUBREAPER`), which kills until nothing is left. It
//! stays outside of the sandbox's mounts, owns nothing but a socket whose end tells that whoever started it is gone, and holds more capabilities than the command where that
//! is possible, so that it cannot be traced. A command that joins a container by chroot has a warden of its own, which also ends when the container's own command does.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};

use super::cgroup::Cgroup;
use super::chroot::Stage;
use super::error::Failure;
use super::io::SandboxIo;
use super::launch::{self, PROCESS};
use super::namespaces::Sharing;
use super::seccomp::Filter;
use super::spec::Isolation;
use super::{SandboxSpec, init, situation, wire};
use crate::sys::process::{Cloned, close_from, exit_now, reset_signals};

/// The spec of a sandbox that needs a warden, with what differs from what was asked for; `None` where it needs none.
pub(super) fn guarded(spec: &SandboxSpec) -> Option<SandboxSpec> {
    let in_namespaces = spec.isolation == Isolation::Namespaces;
    if in_namespaces && (spec.namespaces.pid != Sharing::Own || !situation::shares_processes()) {
        return None;
    }
    let mut spec = spec.clone();
    spec.namespaces.pid = Sharing::Host;
    Some(spec)
}

/// The life of the warden: makes the sandbox's init, and watches over it. `life` is closed on the other side when all is to end.
pub(super) fn run(
    spec: &SandboxSpec,
    mut io: SandboxIo,
    cgroup: Option<Cgroup>,
    filter: Option<&Filter>,
    status: OwnedFd,
    life: OwnedFd,
) -> ! {
    let joined = io.join.take();
    let stage = match spec.isolation {
        Isolation::Namespaces => Ok(None),
        Isolation::Chroot { .. } if joined.is_some() => Stage::of_running(spec).map(Some),
        Isolation::Chroot { .. } => Stage::set_up(spec).map(Some),
    };
    let started = stage.and_then(|stage| match start(spec, io, stage.as_ref(), cgroup, filter, &status) {
        Ok((command, signals)) => Ok((stage, command, signals)),
        Err(failure) => {
            let _ = stage.map_or(Ok(()), Stage::take_down);
            Err(failure)
        }
    });
    let (stage, command, signals) = match started {
        Ok(started) => started,
        Err(failure) => init::fail(&failure, &status),
    };
    let mut keep = vec![life.as_fd(), signals.as_fd()];
    keep.extend(joined.as_ref().map(AsFd::as_fd));
    keep.extend(stage.iter().flat_map(Stage::descriptors));
    let _ = close_from(0, &keep);
    // Closed above, like all else.
    std::mem::forget(status);
    let ends: Vec<&OwnedFd> = joined.iter().chain([&life]).collect();
    let end = watch(command, &ends, &signals);
    end_all();
    if let Some(Err(failure)) = stage.map(Stage::take_down) {
        let _ = rustix::net::send(&life, &serde_json::to_vec(&failure).unwrap_or_default(), rustix::net::SendFlags::NOSIGNAL);
    }
    match end {
        Some(WaitStatus::Exited(_, code)) => exit_now(code),
        Some(WaitStatus::Signaled(_, signal, _)) => end_by(signal),
        _ => end_by(Signal::SIGKILL),
    }
}

/// What the warden at the other side of `life`, which has ended, had to say of a failure.
pub(super) fn last_words(life: &OwnedFd) -> Option<Failure> {
    let mut buffer = [0; 16 << 10];
    let (length, _) = rustix::net::recv(life, &mut buffer, rustix::net::RecvFlags::DONTWAIT).ok()?;
    serde_json::from_slice(&buffer[..length]).ok()
}

fn start(
    spec: &SandboxSpec,
    io: SandboxIo,
    stage: Option<&Stage>,
    mut cgroup: Option<Cgroup>,
    filter: Option<&Filter>,
    status: &OwnedFd,
) -> Result<(Pid, SignalFd), Failure> {
    let _ = rustix::thread::set_name(c"strake-warden");
    reset_signals().map_err(Failure::step("reset", "signals"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(Failure::step("adopt", "the orphans of a sandbox"))?;
    let child = match launch::clone_init(spec, &io, &mut cgroup)? {
        Cloned::Child => {
            if let Some(stage) = stage {
                init::run_on_stage(spec, io, stage, cgroup.as_ref(), filter, status);
            }
            let theirs = status.try_clone().map_err(Failure::step("copy", "a descriptor"))?;
            init::run(spec, io, None, cgroup.as_ref(), filter, theirs)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    // They are removed by who made them.
    std::mem::forget(cgroup);
    let signals = SigSet::all();
    let failed = |errno: nix::Error| Failure::step("watch", "signals")(std::io::Error::from(errno));
    signals.thread_set_mask().map_err(failed)?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
    let (pid, pidfd) = child;
    // It must not be reaped before the other side knows its number. Where that has gone, or has heard of a failure, there is nothing to wait for.
    let _ = wire::send(status.as_fd(), PROCESS, &[pidfd.as_fd()]).and_then(|()| wire::receive(status.as_fd(), PROCESS.len()));
    Ok((Pid::from_raw(pid.cast_signed()), signals))
}

/// Waits for the command, or until one of `ends` is readable: who wanted it, or the container that it is in, is gone. Gives how the command ended.
fn watch(command: Pid, ends: &[&OwnedFd], signals: &SignalFd) -> Option<WaitStatus> {
    loop {
        if let Some(end) = reap_until(command) {
            return Some(end);
        }
        let mut fds = vec![PollFd::new(signals, PollFlags::IN)];
        fds.extend(ends.iter().map(|end| PollFd::new(*end, PollFlags::IN)));
        let _ = poll(&mut fds, None);
        if fds.iter().skip(1).any(|end| !end.revents().is_empty()) {
            return None;
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            match Signal::try_from(signal.ssi_signo.cast_signed()) {
                Ok(Signal::SIGCHLD) | Err(_) => {}
                Ok(signal) => drop(kill(command, signal)),
            }
        }
    }
}

/// Removes every child that has ended, until it is the command's turn; gives how that ended.
fn reap_until(command: Pid) -> Option<WaitStatus> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return None,
            Ok(status) if status.pid() == Some(command) => return Some(status),
            Ok(_) => {}
            Err(nix::Error::EINTR) => {}
            Err(_) => return Some(WaitStatus::StillAlive),
        }
    }
}

/// Kills all descendants of this process until there is none.
fn end_all() {
    let own = std::process::id();
    for round in 0u32.. {
        for pid in descendants(own) {
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) | Err(nix::Error::EINTR) => {}
                // No children: and whose parents had died would be children by now.
                Err(_) => return,
            }
        }
        // What is killed takes a moment; what is killed while it forks leaves one more for the next round.
        std::thread::sleep(Duration::from_micros(if round < 20 { 200 } else { 5000 }));
    }
}

/// The processes below `ancestor`, by `/proc`.
fn descendants(ancestor: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name, in brackets, may hold anything; behind it are the state and the parent.
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut pending = vec![ancestor];
    while let Some(pid) = pending.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend(&below);
        pending.extend(below);
    }
    found
}

/// Ends this process by a signal, as the command was ended.
fn end_by(signal: Signal) -> ! {
    let nothing = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Core, nothing);
    let _ = reset_signals();
    let _ = raise(signal);
    exit_now(128 + signal as i32)
}
