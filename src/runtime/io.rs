//! The descriptors that go into a sandbox.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::namespaces::SharedNamespaces;
use super::users::UserNamespace;

/// What a sandbox gets beside its spec. Nothing else that is open in the caller can be reached inside.
#[derive(Debug)]
pub struct SandboxIo {
    /// Standard input, output and error.
    pub stdio: Stdio,
    /// The network namespace for [`NetworkMode::Joined`](super::NetworkMode::Joined).
    pub netns: Option<OwnedFd>,
    /// The users of the sandbox, where those are not the caller's. It shares no namespace with others then.
    pub users: Option<UserNamespace>,
    /// The sandboxes whose namespaces are shared.
    pub shared: SharedNamespaces,
    /// A process (its pidfd) of a running sandbox to join: the command runs in its namespaces and root, as in `docker exec`. Of the spec only the process and
    /// what it may do count then.
    pub join: Option<OwnedFd>,
    /// The control groups that the command enters with `join`: those of the sandbox, so that its limits hold.
    pub join_cgroups: Vec<PathBuf>,
    /// Files and directories for [`BindSource::Descriptor`](super::BindSource::Descriptor). At most 200.
    pub mount_fds: Vec<OwnedFd>,
    /// The root, where it is mounted already.
    pub(super) root: Option<OwnedFd>,
}

/// Standard input, output and error of a process.
#[derive(Debug)]
pub enum Stdio {
    /// These descriptors.
    Descriptors {
        /// Input.
        stdin: OwnedFd,
        /// Output.
        stdout: OwnedFd,
        /// Errors.
        stderr: OwnedFd,
    },
    /// A new terminal of the sandbox, which is also its controlling terminal. Its other side is given to the caller.
    Terminal,
}

impl SandboxIo {
    /// Only standard streams.
    pub fn new(stdio: Stdio) -> SandboxIo {
        SandboxIo {
            stdio,
            netns: None,
            users: None,
            shared: SharedNamespaces::default(),
            join: None,
            join_cgroups: Vec::new(),
            mount_fds: Vec::new(),
            root: None,
        }
    }
}
