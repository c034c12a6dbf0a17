//! Starting a sandbox from a process with a single thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::{Error, Exit, Result, SandboxIo, SandboxSpec};

/// A sandbox that this process is the parent of. Dropping it kills the sandbox.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: OwnedFd,
}

/// Starts a sandbox and returns when its command runs. The caller must have a single thread (the [`Spawner`](super::Spawner) is for all others).
pub fn launch(spec: &SandboxSpec, io: SandboxIo) -> Result<Child> {
    let _ = (spec, io);
    Err(Error::SpawnerGone)
}

impl Child {
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

impl AsFd for Child {
    /// Becomes readable when PID 1 has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}
