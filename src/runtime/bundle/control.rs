//! What is done with a container that is made: starting it, asking and telling it, and removing it.
//!
//! Every operation works on what is on record and on what the kernel says, never on what an earlier process meant to do: whatever was killed in between, `delete --force` removes.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::cgroups::Groups;
use super::config::Resources;
use super::init::{GO, MAX_MESSAGE, Message, START};
use super::state::{Containers, Dir, ProcessName, Record, Report, Status, ended_within};
use super::{Error, hooks, listener, resources};
use crate::runtime::error::Failure;
use crate::runtime::{self, wire};
use crate::sys::process::signal_pidfd;

/// How long a killed process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A container that is there, with what is known of it.
struct Known {
    dir: Dir,
    record: Option<Record>,
}

fn find(containers: &Containers, id: &str) -> Result<Known, Error> {
    let dir = containers.find(id)?;
    let record = dir.record()?;
    Ok(Known { dir, record })
}

/// One whose `create` got far enough to say what it makes.
fn recorded(containers: &Containers, id: &str) -> Result<(Dir, Record), Error> {
    let known = find(containers, id)?;
    let record = known.record.ok_or_else(|| Error::WrongStatus { verb: "use", id: id.to_owned(), status: "creating" })?;
    Ok((known.dir, record))
}

/// The state of a container.
///
/// # Errors
/// There is none.
pub fn state(containers: &Containers, id: &str) -> Result<Report, Error> {
    let (dir, record) = recorded(containers, id)?;
    Ok(report(&dir, &record))
}

fn report(dir: &Dir, record: &Record) -> Report {
    let (status, process) = dir.status(record);
    let pid = record.init.filter(|_| process.is_some()).map_or(0, |init| init.pid);
    record.report(status, pid)
}

/// The states of all containers.
pub fn list(containers: &Containers) -> Vec<Report> {
    // What is removed meanwhile is none.
    containers.ids().iter().filter_map(|id| state(containers, id).ok()).collect()
}

/// Lets the command of a container run, and gives what should be said about it. Returns when it runs.
///
/// # Errors
/// The container does not wait for it, the command cannot be executed, or a hook failed.
pub fn start(containers: &Containers, id: &str) -> Result<Vec<String>, Error> {
    let (dir, record) = recorded(containers, id)?;
    let wrong = |status: Status| Error::WrongStatus { verb: "start", id: id.to_owned(), status: status.name() };
    let (status, _) = dir.status(&record);
    if status != Status::Created {
        return Err(wrong(status));
    }
    let socket = dir.connect().ok_or_else(|| wrong(Status::Running))?;
    wire::send(socket.as_fd(), START, &[]).map_err(Error::kernel("tell the container to start"))?;
    let mut started = false;
    loop {
        match wire::receive(socket.as_fd(), MAX_MESSAGE) {
            Ok(Some((message, _))) => match serde_json::from_slice(&message) {
                Ok(Message::Started) => started = true,
                Ok(Message::Program(path)) => {
                    let program = listener::connect(&path)?;
                    wire::send(socket.as_fd(), GO, &[program.as_fd()]).map_err(Error::kernel("tell the container to start"))?;
                }
                Ok(Message::Failed(failure)) => return Err(runtime::Error::from(failure).into()),
                Ok(Message::Hook(moment, path, reason)) => return Err(Error::Hook { moment, path, reason }),
                _ => return Err(runtime::Error::from(Failure::Clone { errno: libc::EPROTO }).into()),
            },
            // Another one has started it meanwhile.
            Ok(None) | Err(_) if !started => return Err(wrong(Status::Running)),
            Ok(None) | Err(_) => break,
        }
    }
    let config = dir.config()?;
    let failures = hooks::run_all("poststart", &config.hooks.poststart, &report(&dir, &record));
    Ok(failures.iter().map(|error| crate::diag::with_causes(error)).collect())
}

/// Sends a signal to a container's first process, or to all processes of it.
///
/// # Errors
/// It does not run.
pub fn kill(containers: &Containers, id: &str, signal: i32, all: bool) -> Result<(), Error> {
    let (dir, record) = recorded(containers, id)?;
    let not_running = || Error::NotRunning(id.to_owned());
    let (_, process) = dir.status(&record);
    // Without a PID namespace of its own the others go on when its first process has ended. In a group that was there before it, others are too.
    let shares = || dir.config().is_ok_and(|config| !config.linux.namespaces.iter().any(|one| one.kind == "pid" && one.path.is_empty()));
    if all || signal == libc::SIGKILL && record.groups.are_own() && shares() {
        if process.is_none() && record.groups.processes().is_empty() {
            // Who wants all of them gone has what it wants.
            return if all { Ok(()) } else { Err(not_running()) };
        }
        record.groups.signal(signal);
        if signal == libc::SIGKILL && record.groups.is_frozen() {
            record.groups.freeze(false)?;
        }
        if record.groups.groups.is_empty() {
            let _ = process.map(|process| signal_pidfd(process.as_fd(), signal));
        }
        return Ok(());
    }
    let process = process.ok_or_else(not_running)?;
    match signal_pidfd(process.as_fd(), signal) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Err(not_running()),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(Error::Unsupported(format!("there is no signal {signal}"))),
        other => other.map_err(Error::kernel("send the signal")),
    }?;
    if signal == libc::SIGKILL && record.groups.is_frozen() {
        // What stands still on v1 does not even die.
        record.groups.freeze(false)?;
    }
    Ok(())
}

/// Removes a container that has ended, or with `force` any; gives what should be said about it.
///
/// # Errors
/// There is none (which with `force` is fine), it runs, or something of it cannot be removed.
pub fn delete(containers: &Containers, id: &str, force: bool) -> Result<Vec<String>, Error> {
    let known = match find(containers, id) {
        Err(Error::NoSuchContainer(_)) if force => return Ok(Vec::new()),
        // What is damaged is removed all the same.
        Err(Error::Parse { .. }) if force => {
            let dir = containers.find(id)?;
            let (init, groups) = dir.remains();
            init.and_then(ProcessName::open).map_or(Ok(()), |process| end(id, &process, &groups))?;
            groups.destroy()?;
            Known { dir, record: None }
        }
        other => other?,
    };
    let Some(record) = known.record else {
        // `create` was killed before it made anything but the directory.
        known.dir.remove()?;
        return Ok(Vec::new());
    };
    let (status, process) = known.dir.status(&record);
    if status != Status::Stopped {
        if !force {
            return Err(Error::WrongStatus { verb: "delete", id: id.to_owned(), status: status.name() });
        }
        let process = if status == Status::Creating { record.creator.open() } else { process };
        if let Some(process) = process {
            end(id, &process, &record.groups)?;
        }
    }
    record.groups.destroy()?;
    let hooks = known.dir.config().map(|config| config.hooks.poststop).unwrap_or_default();
    known.dir.remove()?;
    let failures = hooks::run_all("poststop", &hooks, &record.report(Status::Stopped, 0));
    Ok(failures.iter().map(|error| crate::diag::with_causes(error)).collect())
}

/// Kills the first process of a container that is to be removed.
fn end(id: &str, process: &OwnedFd, groups: &Groups) -> Result<(), Error> {
    let _ = signal_pidfd(process.as_fd(), libc::SIGKILL);
    let _ = groups.is_frozen().then(|| groups.freeze(false));
    match ended_within(process, PATIENCE) {
        true => Ok(()),
        false => {
            Err(Error::Unsupported(format!("cannot delete the container `{id}`: its first process does not end, although it was killed")))
        }
    }
}

/// A container that runs, for what makes no sense otherwise.
fn running(containers: &Containers, id: &str, verb: &'static str, fits: &[Status]) -> Result<Record, Error> {
    let (dir, record) = recorded(containers, id)?;
    match dir.status(&record).0 {
        status if fits.contains(&status) => Ok(record),
        Status::Stopped => Err(Error::NotRunning(id.to_owned())),
        status => Err(Error::WrongStatus { verb, id: id.to_owned(), status: status.name() }),
    }
}

/// Makes all processes of a container stand still.
///
/// # Errors
/// It does not run, or there is no freezer.
pub fn pause(containers: &Containers, id: &str) -> Result<(), Error> {
    running(containers, id, "pause", &[Status::Running, Status::Created])?.groups.freeze(true)
}

/// Lets a container go on.
///
/// # Errors
/// It does not stand still.
pub fn resume(containers: &Containers, id: &str) -> Result<(), Error> {
    running(containers, id, "resume", &[Status::Paused])?.groups.freeze(false)
}

/// Changes the limits of a container; what is not named stays.
///
/// # Errors
/// It has ended, or the kernel refuses a limit.
pub fn update(containers: &Containers, id: &str, limits: &Resources) -> Result<(), Error> {
    let record = running(containers, id, "update", &[Status::Running, Status::Created, Status::Paused])?;
    if let Some(unit) = &record.groups.unit {
        unit.set(&resources::properties(limits)?)?;
    }
    resources::apply(&record.groups, limits, false)
}

/// The processes of a container, as the host sees them.
///
/// # Errors
/// It does not exist.
pub fn processes(containers: &Containers, id: &str) -> Result<Vec<u32>, Error> {
    let (dir, record) = recorded(containers, id)?;
    let alive = dir.status(&record).1.is_some();
    Ok(match record.groups.processes() {
        none if none.is_empty() => record.init.filter(|_| alive).map(|init| init.pid).into_iter().collect(),
        found => found,
    })
}

/// What a container uses, in the form that callers of `events` know.
///
/// # Errors
/// It has ended.
pub fn stats(containers: &Containers, id: &str) -> Result<serde_json::Value, Error> {
    let record = running(containers, id, "measure", &[Status::Running, Status::Created, Status::Paused])?;
    Ok(serde_json::json!({ "type": "stats", "id": id, "data": super::stats::of(&record.groups) }))
}
