//! A container's directory, and the truth about whether it runs.
//!
//! ```text
//! <dir>/config.json    ContainerSpec, replaced by renaming
//! <dir>/state.json     State, replaced by renaming
//! <dir>/lock           flock()ed by the supervisor from before the start until the exit is on record; then it holds the exit code
//! <dir>/attach.sock    where the supervisor listens
//! <dir>/hosts          /etc/hosts of the container, where it has a private network
//! <dir>/container.log  output; older parts are container.log.1, .2, ...
//! <dir>/health.json    Health, where the container is probed; replaced by renaming
//! <dir>/runtime        where another runtime of the container works, in a mount namespace of its own: empty from outside
//! <dir>/execs/<ID>     an empty file for each command that runs in it beside its own
//! ```
//!
//! `state.json` may lie (its writer can be killed); the lock cannot. So a state that says "running" counts only while the lock is held; whoever notices that it is not puts the end on record
//! (`chronicle`).

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, flock};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ContainerSpec, Error, late};
use crate::runtime::network::{BoundPort, EndpointState};
use crate::sys::descriptor_path;

/// How far a container's life has come. Times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum State {
    /// It has not run yet.
    Created,
    /// It runs.
    Running {
        /// Its PID 1, as the host sees it.
        pid: u32,
        /// When that process started, in clock ticks since boot: with `pid` and `boot_id` it names the process for ever.
        start_ticks: u64,
        /// The boot that it runs in.
        boot_id: String,
        /// When.
        started_at: String,
        /// What it is on its networks.
        #[serde(default)]
        networks: Vec<EndpointState>,
        /// The ports that it has published.
        #[serde(default)]
        ports: Vec<BoundPort>,
        /// The directories of its control groups, where it has any of its own.
        #[serde(default)]
        cgroups: Vec<PathBuf>,
        /// How often its restart policy has started it again.
        #[serde(default)]
        restarts: u32,
    },
    /// It has ended, and will be started again by its restart policy.
    Restarting {
        /// Its exit code.
        code: u8,
        /// Whether it was killed for want of memory.
        oom_killed: bool,
        /// When it started.
        started_at: String,
        /// When it ended.
        finished_at: String,
        /// How often it has been started again.
        restarts: u32,
    },
    /// It has ended.
    Exited {
        /// Its exit code; 137 also where nobody saw the end (its supervisor was killed).
        code: u8,
        /// Whether it was killed for want of memory.
        oom_killed: bool,
        /// When it started; `None` where it could not be started.
        started_at: Option<String>,
        /// When it ended; `None` where nobody saw it.
        finished_at: Option<String>,
        /// Why it could not be started, or that its end was not seen.
        error: Option<String>,
        /// How often its restart policy had started it again.
        #[serde(default)]
        restarts: u32,
        /// Whether a user ended it.
        #[serde(default)]
        by_hand: bool,
    },
}

/// The code of a container whose end nobody saw.
const UNSEEN: u8 = 137;

/// A container's directory.
#[derive(Clone, Debug)]
pub(super) struct ContainerDir {
    path: PathBuf,
}

impl ContainerDir {
    pub(super) fn new(path: &Path) -> ContainerDir {
        ContainerDir { path: path.to_owned() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.file("container.log")
    }

    /// A path of the socket that is short enough for a socket address however deep the directory is. Valid while the descriptor is open.
    pub(super) fn socket(&self) -> Result<(OwnedFd, PathBuf), Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.path, flags, Mode::empty()).map_err(|e| self.failed("open", &self.path)(e.into()))?;
        let path = descriptor_path(&dir).join("attach.sock");
        Ok((dir, path))
    }

    pub(super) fn write_state(&self, state: &State) -> Result<(), Error> {
        write(&self.file("state.json"), state)
    }

    /// The same for a container that removes itself, of which nobody asks after a power cut. File systems write a file that replaces
    /// another to the disk at once, to be on the safe side (ext4(5), `auto_da_alloc`), which took up to a fifth of a short `run`.
    pub(super) fn write_passing_state(&self, state: &State) -> Result<(), Error> {
        let path = self.file("state.json");
        let temporary = write_beside(&path, state)?;
        match rustix::fs::renameat_with(CWD, &temporary, CWD, &path, RenameFlags::EXCHANGE) {
            // What is left of it goes with the directory.
            Ok(()) => drop(std::fs::remove_file(&temporary)),
            Err(_) => std::fs::rename(&temporary, &path).map_err(Error::file("rename", &temporary))?,
        }
        Ok(())
    }

    /// A failure with a file of the directory; [`Error::Gone`] where there is no directory any more.
    fn failed(&self, verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let (failed, gone) = (Error::file(verb, path), !self.path.exists());
        move |source| if gone && source.kind() == std::io::ErrorKind::NotFound { Error::Gone } else { failed(source) }
    }

    /// The lock file, opened. Only its owner may: anyone who can read it could lock it.
    fn lock_file(&self) -> Result<(File, PathBuf), Error> {
        let path = self.file("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(|source| self.failed("open", &path)(source))?;
        Ok((file, path))
    }

    /// Becomes the container's supervisor.
    pub(super) fn lock(&self) -> Result<RunLock, Error> {
        let (file, path) = self.lock_file()?;
        let begun = Instant::now();
        loop {
            match rustix::io::retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
                Ok(()) => {
                    // What the run before has left.
                    file.set_len(0).map_err(Error::file("write", &path))?;
                    return Ok(RunLock(file));
                }
                Err(Errno::WOULDBLOCK) if begun.elapsed() < self.patience() => std::thread::sleep(Duration::from_millis(2)),
                Err(Errno::WOULDBLOCK) => return Err(Error::Running),
                Err(errno) => return Err(Error::file("lock", &path)(errno.into())),
            }
        }
    }

    /// How long somebody else's lock is waited for: one who only looks holds it for an instant, a supervisor whose container has ended until its network is gone.
    fn patience(&self) -> Duration {
        match read(&self.file("state.json")) {
            Ok(State::Exited { .. }) => Duration::from_secs(10),
            _ => Duration::from_millis(200),
        }
    }

    /// Whether a supervisor holds the lock. Nobody holds that of a container that is gone.
    pub(super) fn is_locked(&self) -> Result<bool, Error> {
        let (file, path) = match self.lock_file() {
            Err(Error::Gone) => return Ok(false),
            other => other?,
        };
        match rustix::io::retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockShared)) {
            Ok(()) => drop(RunLock(file)),
            Err(Errno::WOULDBLOCK) => return Ok(true),
            Err(errno) => return Err(Error::file("lock", &path)(errno.into())),
        }
        Ok(false)
    }

    /// The lock, as those have it who only look; `None` while a supervisor holds it, and where there is none.
    pub(super) fn share_lock(&self) -> Option<RunLock> {
        let (file, _) = self.lock_file().ok()?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockShared)).ok()?;
        Some(RunLock(file))
    }

    /// Waits until no supervisor holds the lock. Gives the exit code that the last one has left, which is known even where the container has removed itself since.
    pub(super) fn wait_unlocked(&self) -> Result<Option<u8>, Error> {
        let (mut file, path) = self.lock_file()?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockShared)).map_err(|e| Error::file("lock", &path)(e.into()))?;
        let mut code = String::new();
        let read = file.read_to_string(&mut code);
        drop(RunLock(file));
        read.map_err(Error::file("read", &path))?;
        Ok(code.parse().ok())
    }
}

/// The lock that makes a container "running". Released by name: a child that is just being started may have the descriptor too.
#[derive(Debug)]
pub(super) struct RunLock(File);

impl RunLock {
    /// Leaves the exit code for those who wait for the lock.
    pub(super) fn leave(&self, code: u8) {
        // Who waits has the state's file as well, unless the container removes itself.
        let _ = (&self.0).rewind().and_then(|()| (&self.0).write_all(code.to_string().as_bytes()));
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Cannot fail on an open file; closing releases it in any case.
        let _ = flock(self.0.as_fd(), FlockOperation::Unlock);
    }
}

/// Makes `dir` the directory of a container that has not run yet.
pub fn create(dir: &Path, spec: &ContainerSpec) -> Result<(), Error> {
    std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    let dir = ContainerDir::new(dir);
    write(&dir.file("config.json"), spec)?;
    dir.write_state(&State::Created)
}

/// Replaces what the container is, for its next start.
pub fn save_spec(dir: &Path, spec: &ContainerSpec) -> Result<(), Error> {
    write(&dir.join("config.json"), spec)
}

/// Reads what the container is.
pub fn load_spec(dir: &Path) -> Result<ContainerSpec, Error> {
    read(&dir.join("config.json"))
}

/// Reads how far the container's life has come. One that says it runs but whose supervisor is gone has ended with 137.
pub fn load_state(dir: &Path) -> Result<State, Error> {
    let dir = ContainerDir::new(dir);
    let path = dir.file("state.json");
    let gone = |error| if dir.path.exists() { error } else { Error::Gone };
    let mut state: State = read(&path).map_err(gone)?;
    if let (State::Running { cgroups, .. }, Some(id)) = (&mut state, dir.path.file_name().and_then(|id| id.to_str())) {
        late::add(id, cgroups);
    }
    if !matches!(state, State::Running { .. } | State::Restarting { .. }) || dir.is_locked()? {
        return Ok(state);
    }
    // The lock is free: either the exit has just been recorded, or nobody is left to do it.
    let killed = Some("the supervisor was killed".to_owned());
    Ok(match read(&path).map_err(gone)? {
        State::Running { started_at, restarts, .. } => State::Exited {
            code: UNSEEN,
            oom_killed: false,
            started_at: Some(started_at),
            finished_at: None,
            error: killed,
            restarts,
            by_hand: false,
        },
        State::Restarting { code, oom_killed, started_at, finished_at, restarts } => State::Exited {
            code,
            oom_killed,
            started_at: Some(started_at),
            finished_at: Some(finished_at),
            error: killed,
            restarts,
            by_hand: false,
        },
        other => other,
    })
}

/// When a process started, in clock ticks since boot: field 22 of `/proc/PID/stat`.
pub(in crate::runtime) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the fields after it are counted from the third.
    stat.rsplit_once(')')?.1.split_whitespace().nth(22 - 3)?.parse().ok()
}

/// Names this boot of the machine.
pub(in crate::runtime) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = std::fs::read(path).map_err(Error::file("read", path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path: path.to_owned(), source })
}

/// Replaces a file by one with `value`: a reader sees the old or the new, never a part.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let temporary = write_beside(path, value)?;
    std::fs::rename(&temporary, path).map_err(Error::file("rename", &temporary))
}

/// Writes a file with `value` that is to take the place of the one at `path`, and gives its path.
fn write_beside<T: Serialize>(path: &Path, value: &T) -> Result<PathBuf, Error> {
    let bytes = serde_json::to_vec(value).map_err(|source| Error::Damaged { path: path.to_owned(), source })?;
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    // The environment may hold what others must not read.
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(Error::file("create", &temporary))?;
    file.write_all(&bytes).map_err(Error::file("write", &temporary))?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running() -> State {
        State::Running {
            pid: 1,
            start_ticks: 2,
            boot_id: boot_id(),
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            networks: Vec::new(),
            ports: Vec::new(),
            cgroups: Vec::new(),
            restarts: 0,
        }
    }

    #[test]
    fn running_counts_only_while_the_lock_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let container = ContainerDir::new(dir.path());
        let lock = container.lock().unwrap();
        container.write_state(&running()).unwrap();
        assert_eq!(load_state(dir.path()).unwrap(), running());
        assert!(matches!(container.lock(), Err(Error::Running)));
        drop(lock);
        assert!(matches!(load_state(dir.path()).unwrap(), State::Exited { code: 137, finished_at: None, .. }));
        assert_eq!(container.wait_unlocked().unwrap(), None);
        container.lock().unwrap();
    }

    #[test]
    fn who_waits_learns_the_exit_code_of_what_has_been_removed() {
        let dir = tempfile::tempdir().unwrap();
        let container = ContainerDir::new(&dir.path().join("it"));
        std::fs::create_dir(container.path()).unwrap();
        let lock = container.lock().unwrap();
        let waiter = std::thread::spawn({
            let container = container.clone();
            move || container.wait_unlocked().unwrap()
        });
        // It has the file open by then.
        let holders = || {
            std::fs::read_dir("/proc/self/fd")
                .unwrap()
                .flatten()
                .filter_map(|fd| std::fs::read_link(fd.path()).ok())
                .filter(|path| path.ends_with("it/lock"))
                .count()
        };
        while holders() < 2 {
            std::thread::yield_now();
        }
        std::fs::remove_dir_all(container.path()).unwrap();
        lock.leave(3);
        drop(lock);
        assert_eq!(waiter.join().unwrap(), Some(3));
        assert!(matches!(container.wait_unlocked(), Err(Error::Gone)));
        assert!(!container.is_locked().unwrap());
    }

    #[test]
    fn a_process_is_named_by_when_it_started() {
        let own = start_ticks(std::process::id()).unwrap();
        assert!(own > 0);
        assert!(start_ticks(1).unwrap() <= own);
        assert_eq!(start_ticks(u32::MAX), None);
    }

    #[test]
    fn a_damaged_state_is_an_error_that_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state.json"), "{").unwrap();
        let error = load_state(dir.path()).unwrap_err().to_string();
        assert!(error.contains("state.json"), "{error}");
    }
}
