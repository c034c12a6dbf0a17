//! Starting sandboxes from a process with many threads.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Error, Exit, Result, SandboxIo, SandboxSpec};

/// A helper process with one thread that starts sandboxes for this one.
#[derive(Debug)]
pub struct Spawner {
    socket: OwnedFd,
}

impl Spawner {
    /// Starts the helper. Call it at the start of `main`: it fails when this process already has more than one thread.
    pub fn start() -> Result<Spawner> {
        Err(Error::SpawnerGone)
    }

    /// Starts a sandbox and returns when its command runs. Blocks for some milliseconds; may be called from any number of threads.
    pub fn spawn(&self, spec: &SandboxSpec, io: SandboxIo) -> Result<Running> {
        let _ = (spec, io, &self.socket);
        Err(Error::SpawnerGone)
    }
}

/// A sandbox that was started by a [`Spawner`]. Dropping it kills the sandbox.
#[derive(Debug)]
pub struct Running {
    pid: u32,
    socket: OwnedFd,
}

impl Running {
    /// The process ID of the sandbox's PID 1, as seen from here.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends `signal` to PID 1.
    pub fn kill(&self, signal: i32) -> Result<()> {
        let _ = signal;
        Err(Error::SpawnerGone)
    }

    /// The other side of the terminal, once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        None
    }

    /// Waits for the end of the sandbox.
    pub fn wait(&mut self) -> Result<Exit> {
        Err(Error::SpawnerGone)
    }
}

impl AsFd for Running {
    /// Becomes readable when [`Running::wait`] will not block.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
