//! Which namespaces a sandbox has for itself, and which it shares: with the host, or with another sandbox that runs.
//!
//! A PID namespace is chosen by the parent before the fork ([`PidNamespace`]): a process cannot change its own. The others are entered by init.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
use serde::{Deserialize, Serialize};

use super::error::Failure;
use super::spec::{NetworkMode, SandboxSpec};

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

/// Kernel parameters of the IPC namespace.
const IPC: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.shm_next_id",
];

/// The kind of namespace that a kernel parameter is of, in the words of the OCI runtime specification; `None` for one of the whole host.
pub fn namespace_of_parameter(name: &str) -> Option<&'static str> {
    match name {
        name if IPC.contains(&name) || name.starts_with("fs.mqueue.") => Some("ipc"),
        name if name.starts_with("net.") => Some("network"),
        "kernel.domainname" | "kernel.hostname" => Some("uts"),
        name if name.starts_with("user.") => Some("user"),
        _ => None,
    }
}

/// Fails where a kernel parameter of the sandbox would be the host's, whose namespace it shares.
pub(super) fn must_own_parameters(spec: &SandboxSpec, netns: Option<&OwnedFd>) -> Result<(), Failure> {
    let has = |kind: Option<&str>| match kind {
        Some("network") => match spec.network {
            NetworkMode::Host => false,
            NetworkMode::None => true,
            // That of a container may be the host's.
            NetworkMode::Joined => netns.is_none_or(|netns| !is_own_network(netns)),
        },
        Some("ipc") => spec.namespaces.ipc != Sharing::Host,
        Some("uts") => spec.namespaces.uts != Sharing::Host,
        _ => false,
    };
    let shared = spec.sysctls.iter().map(|(name, _)| name).find(|name| !has(namespace_of_parameter(name)));
    shared.map_or(Ok(()), |name| Err(Failure::HostsParameter { name: name.clone() }))
}

/// Whether a network namespace is that of this process.
fn is_own_network(netns: &OwnedFd) -> bool {
    let number = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let (other, own) = (rustix::fs::fstat(netns).map(number), rustix::fs::stat("/proc/self/ns/net").map(number));
    other.is_ok() && other == own
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
