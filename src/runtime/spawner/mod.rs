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
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::MemfdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};

use super::error::Failure;
use super::io::Stdio;
use super::launch::kill;
use super::{Error, Exit, Result, SandboxIo, SandboxSpec, wire};
use crate::sys::process::{Cloned, clone_process, exit_now, reap};

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

/// A helper process with one thread that starts sandboxes for this one.
#[derive(Debug)]
pub struct Spawner {
    pid: u32,
    /// `None` only while it is dropped.
    socket: Option<OwnedFd>,
    /// Whether it was asked for a sandbox.
    is_used: AtomicBool,
}

impl Spawner {
    /// Starts the helper. Call it at the start of `main`: it fails when this process already has more than one thread.
    pub fn start() -> Result<Spawner> {
        let fail = |error| Error::Spawner("start", error);
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(|errno| fail(errno.into()))?;
        match clone_process(0, None).map_err(fail)? {
            Cloned::Child => {
                drop(ours);
                exit_now(if server::serve(theirs).is_ok() { 0 } else { 1 })
            }
            Cloned::Parent { pid, .. } => Ok(Spawner { pid, socket: Some(ours), is_used: AtomicBool::new(false) }),
        }
    }

    /// The helper's process ID.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Starts a sandbox and returns when its command runs. Blocks for some milliseconds; may be called from any number of threads. Host paths in the
    /// spec are absolute.
    pub fn spawn(&self, spec: &SandboxSpec, io: SandboxIo) -> Result<Running> {
        let common = self.socket.as_ref().ok_or(Error::SpawnerGone)?;
        self.is_used.store(true, Ordering::Relaxed);
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

impl Drop for Spawner {
    fn drop(&mut self) {
        self.socket.take();
        // It ends when it has killed what is left, which takes no longer than that. Where there is nothing, nobody waits: that is a third of a millisecond, and many
        // on a busy machine.
        if *self.is_used.get_mut() {
            let _ = reap(self.pid);
        }
    }
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
