//! Which namespaces a sandbox has for itself, and which it shares: with the host, or with another sandbox that runs.
//!
//! A PID namespace is chosen by the parent before the fork ([`PidNamespace`]): a process cannot change its own. The others are entered by init.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
use serde::{Deserialize, Serialize};

use super::error::Failure;

/// The namespaces of a sandbox beside those of its mounts and its network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Processes.
    pub pid: Sharing,
    /// System V and POSIX inter-process communication, with `/dev/shm`.
    pub ipc: Sharing,
    /// The host's name.
    pub uts: Sharing,
    /// Control groups.
    pub cgroup: Sharing,
    /// Whether others may share `ipc`.
    pub ipc_shareable: bool,
    /// Whether there is no `/dev/shm`.
    pub no_shm: bool,
}

/// Whose a namespace is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// The sandbox's own.
    #[default]
    Own,
    /// The host's.
    Host,
    /// That of a container, by its ID. The descriptor comes along with the start ([`SharedNamespaces`]).
    Container(String),
}

/// Processes (their pidfds) whose namespaces a sandbox shares.
#[derive(Debug, Default)]
pub struct SharedNamespaces {
    /// For [`Namespaces::pid`].
    pub pid: Option<OwnedFd>,
    /// For [`Namespaces::ipc`].
    pub ipc: Option<OwnedFd>,
    /// A copy of that one's `/dev/shm`, attached to nothing.
    pub shm: Option<OwnedFd>,
}

impl Namespaces {
    /// Flags of clone(2) for those that are new.
    pub(super) fn clone_flags(&self) -> i32 {
        let own = |sharing: &Sharing, flag: i32| if *sharing == Sharing::Own { flag } else { 0 };
        own(&self.pid, libc::CLONE_NEWPID) | own(&self.ipc, libc::CLONE_NEWIPC) | own(&self.uts, libc::CLONE_NEWUTS)
    }

    /// Whether the end of the sandbox's first process leaves others alive.
    pub(super) fn shares_processes(&self) -> bool {
        self.pid != Sharing::Own
    }
}

/// Makes children of this process be born in another PID namespace, until it is dropped.
pub(super) struct PidNamespace(Option<OwnedFd>);

impl PidNamespace {
    /// Takes that of `process`, where there is one.
    pub(super) fn enter(process: Option<&OwnedFd>) -> Result<PidNamespace, Failure> {
        let Some(process) = process else { return Ok(PidNamespace(None)) };
        let fail = || Failure::step::<Errno>("join", "the other container's processes");
        let own =
            rustix::fs::open("/proc/self/ns/pid", rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty());
        let own = own.map_err(fail())?;
        rustix::thread::move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::PROCESS_ID).map_err(fail())?;
        Ok(PidNamespace(Some(own)))
    }
}

impl Drop for PidNamespace {
    fn drop(&mut self) {
        if let Some(own) = &self.0 {
            // One's own namespace can always be chosen.
            let _ = rustix::thread::move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID));
        }
    }
}

/// Enters what is shared with another sandbox.
pub(super) fn enter_shared(shared: &SharedNamespaces) -> Result<(), Failure> {
    let Some(process) = &shared.ipc else { return Ok(()) };
    rustix::thread::move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION)
        .map_err(Failure::step::<Errno>("join", "the other container's inter-process communication"))
}
