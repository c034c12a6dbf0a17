//! Starting sandboxes from a process with many threads, through a helper process that has one.
//!
//! ```text
//!   client                                             spawner
//!     | [header] + spec, socket, streams, netns, join, … |   once per sandbox, on the common socket
//!     |-------------------------------------------------->|
//!     |<-- Started { pid } + pidfd, terminal? ------------|   on the sandbox's own socket
//!     |    (or Failed, and the end of the stream)         |
//!     |<-- Exited(exit) ----------------------------------|
//! ```
//!
//! When the client's side of a sandbox's socket closes, for whatever reason, the spawner kills that sandbox; when the common socket closes, it kills all and
//! ends. When the spawner dies, the kernel kills every sandbox (`PR_SET_PDEATHSIG`).

mod server;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{self, Command};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustix::fs::{Access, MemfdFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};

use super::error::Failure;
use super::io::Stdio;
use super::launch::kill;
use super::{Error, Exit, Result, SandboxIo, SandboxSpec, wire};
use crate::sys::process::{Cloned, clone_process, exit_now, reap};
use crate::sys::{SealedProgram, THIS_PROGRAM};

/// What comes with a request; the descriptors follow in the order of the fields, after the spec and the socket.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Header {
    /// Whether standard streams come along; otherwise the sandbox gets a terminal.
    streams: bool,
    netns: bool,
    join: bool,
    mounts: usize,
}

/// What the spawner says about a sandbox.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Report {
    Started { pid: u32 },
    Failed(Failure),
    Exited(Exit),
}

const MAX_REPORT: usize = 64 << 10;

/// The first argument by which `main` knows that this process is to be a spawner.
pub const SPAWNER: &str = "strake-spawner";

/// The helper process with one thread that starts sandboxes for this one. It is started when the first sandbox is asked for: most builds need none.
#[derive(Debug)]
pub struct Spawner {
    helper: OnceLock<Helper>,
    /// Held by whoever starts the helper.
    starting: Mutex<()>,
}

impl Spawner {
    /// A spawner for this process. Call it while that has one thread: where this program cannot be executed again, for want of `/proc`, the helper is forked here.
    ///
    /// # Errors
    /// The helper had to be forked, and could not be.
    pub fn new() -> Result<Spawner> {
        match rustix::fs::access(THIS_PROGRAM, Access::EXEC_OK) {
            Ok(()) => Ok(Spawner { helper: OnceLock::new(), starting: Mutex::new(()) }),
            Err(_) => Spawner::forked(),
        }
    }

    /// A spawner whose helper is a copy of this process, which must have one thread.
    ///
    /// # Errors
    /// The kernel makes no process, or this one has several threads.
    pub fn forked() -> Result<Spawner> {
        Ok(Spawner { helper: Helper::fork()?.into(), starting: Mutex::new(()) })
    }

    fn helper(&self) -> Result<&Helper> {
        if let Some(helper) = self.helper.get() {
            return Ok(helper);
        }
        // The mutex guards no data.
        let _starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        match self.helper.get() {
            Some(helper) => Ok(helper),
            None => {
                let helper = Helper::execute()?;
                Ok(self.helper.get_or_init(|| helper))
            }
        }
    }

    /// The helper's process ID, if it was started.
    pub fn pid(&self) -> Option<u32> {
        self.helper.get().map(|helper| helper.pid)
    }

    /// Starts a sandbox and returns when its command runs. Blocks for some milliseconds; may be called from any number of threads. Host paths in the
    /// spec are absolute.
    pub fn spawn(&self, spec: &SandboxSpec, io: SandboxIo) -> Result<Running> {
        let common = self.helper()?.socket.as_ref().ok_or(Error::SpawnerGone)?;
        let fail = |error: io::Error| Error::Spawner("reach", error);
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(|errno| fail(errno.into()))?;
        let memory = write_spec(spec).map_err(|error| Error::Spawner("describe a sandbox to", error))?;
        let header = Header {
            streams: matches!(io.stdio, Stdio::Descriptors { .. }),
            netns: io.netns.is_some(),
            join: io.join.is_some(),
            mounts: io.mount_fds.len(),
        };
        let mut descriptors = vec![memory.as_fd(), theirs.as_fd()];
        if let Stdio::Descriptors { stdin, stdout, stderr } = &io.stdio {
            descriptors.extend([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
        }
        descriptors.extend(io.netns.iter().chain(&io.join).chain(&io.mount_fds).map(AsFd::as_fd));
        if descriptors.len() > wire::MAX_DESCRIPTORS {
            return Err(Error::Invalid("too many descriptors for mounts"));
        }
        let message = serde_json::to_vec(&header).map_err(|error| fail(error.into()))?;
        match wire::send(common.as_fd(), &message, &descriptors) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe || error.kind() == io::ErrorKind::ConnectionReset => {
                return Err(Error::SpawnerGone);
            }
            other => other.map_err(fail)?,
        }
        // Ours must be the only ones left: the end of streams and of this sandbox is told by them.
        drop((theirs, memory, io));
        match report(&ours)? {
            (Report::Started { pid }, mut descriptors) if !descriptors.is_empty() => {
                let pidfd = descriptors.remove(0);
                Ok(Running { pid, pidfd, socket: ours, terminal: descriptors.pop(), exit: None })
            }
            (Report::Failed(failure), _) => Err(failure.into()),
            _ => Err(Error::SpawnerGone),
        }
    }
}

/// The process, and the way to it.
#[derive(Debug)]
struct Helper {
    pid: u32,
    /// `None` only while it is dropped.
    socket: Option<OwnedFd>,
}

impl Helper {
    fn fork() -> Result<Helper> {
        let (ours, theirs) = common_socket()?;
        match clone_process(0, None).map_err(start_failed)? {
            Cloned::Child => {
                drop(ours);
                exit_now(if server::serve(theirs).is_ok() { 0 } else { 1 })
            }
            Cloned::Parent { pid, .. } => Ok(Helper { pid, socket: Some(ours) }),
        }
    }

    fn execute() -> Result<Helper> {
        let (ours, theirs) = common_socket()?;
        let program = SealedProgram::of(Path::new(THIS_PROGRAM)).map_err(start_failed)?;
        let mut command = Command::new(program.path());
        command.arg(SPAWNER).env_clear().current_dir("/");
        command.stdin(process::Stdio::from(theirs)).stdout(process::Stdio::null()).stderr(process::Stdio::null());
        let child = command.spawn().map_err(start_failed)?;
        Ok(Helper { pid: child.id(), socket: Some(ours) })
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.socket.take();
        // It ends when it has killed what is left, which takes no longer than that.
        let _ = reap(self.pid);
    }
}

/// Runs this process as a spawner, which it was executed for: the client's socket is its standard input. Gives the exit code.
pub fn spawner_main() -> i32 {
    let Ok(common) = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3) else { return 1 };
    if server::serve(common).is_ok() { 0 } else { 1 }
}

fn common_socket() -> Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(|errno| start_failed(errno.into()))
}

fn start_failed(error: io::Error) -> Error {
    Error::Spawner("start", error)
}

fn write_spec(spec: &SandboxSpec) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("sandbox-spec", MemfdFlags::CLOEXEC)?;
    let mut file = std::fs::File::from(fd);
    io::Write::write_all(&mut file, &serde_json::to_vec(spec)?)?;
    Ok(file.into())
}

fn report(socket: &OwnedFd) -> Result<(Report, Vec<OwnedFd>)> {
    match wire::receive(socket.as_fd(), MAX_REPORT) {
        Ok(Some((message, descriptors))) => {
            let report = serde_json::from_slice(&message).map_err(|error| Error::Spawner("understand", error.into()))?;
            Ok((report, descriptors))
        }
        Ok(None) => Err(Error::SpawnerGone),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Err(Error::SpawnerGone),
        Err(error) => Err(Error::Spawner("reach", error)),
    }
}

/// A sandbox that was started by a [`Spawner`]. Dropping it kills the sandbox.
#[derive(Debug)]
pub struct Running {
    pid: u32,
    pidfd: OwnedFd,
    socket: OwnedFd,
    terminal: Option<OwnedFd>,
    exit: Option<Exit>,
}

impl Running {
    /// The process ID of the sandbox's PID 1, as seen from here.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends `signal` to PID 1. One that has ended already is no failure.
    pub fn kill(&self, signal: i32) -> Result<()> {
        kill(self.pidfd.as_fd(), self.pid, signal)
    }

    /// The other side of the terminal, once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Waits for the end of the sandbox.
    pub fn wait(&mut self) -> Result<Exit> {
        if let Some(exit) = &self.exit {
            return Ok(exit.clone());
        }
        match report(&self.socket)? {
            (Report::Exited(exit), _) => {
                self.exit = Some(exit.clone());
                Ok(exit)
            }
            (Report::Failed(failure), _) => Err(failure.into()),
            _ => Err(Error::SpawnerGone),
        }
    }
}

impl AsFd for Running {
    /// Becomes readable when [`Running::wait`] will not block.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
