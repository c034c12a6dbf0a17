//! Containers that another OCI runtime runs (`run --runtime runc`), while the supervisor, the network, the log and everything else stay ours.
//!
//! The other runtime works in a PID and mount namespace of its own. The first process there is a **guardian** of ours: it mounts the container's root, writes the bundle,
//! calls `create` and `start`, then reaps, and at last calls `delete` and ends as the container did. So to the supervisor such a container is a child like any other. When
//! the guardian is killed, or its parent is, the kernel ends the container, and the mounts and the other runtime's records go with the namespaces: only control groups
//! are left, and those have the container's ID as their name.
//!
//! ```text
//!   supervisor ---- clone ----> guardian (PID 1, private mounts) ---- runc create, start, delete ----> the container
//!       |  exec: a process of ours that joins the guardian ---------- runc exec ---------------------> a command in it
//! ```
//!
//! Signals go to the container's process by its descriptor, and limits and pauses to its control groups: both are the kernel's, whoever made the container. What the other
//! runtime says of a failure is the failure's reason. This folder does not know what a config looks like (`bundle::of_sandbox` does) nor the supervisor.

mod call;
mod exec;
mod guardian;
mod init;
mod stage;

use std::ffi::OsStr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::bundle::planned_groups;
use super::cgroup::{Cgroup, path_for_others};
use super::namespaces::Sharing;
use super::spec::{ProcessSpec, SandboxSpec};
use super::wire;

pub(super) use exec::exec;
pub(super) use guardian::{Guarded, start};
pub use init::{INIT, init_main};

/// The runtime of a container that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForeignRuntime {
    /// As the user named it, for display.
    pub name: String,
    /// Its program, absolute.
    #[serde(with = "wire::path")]
    pub program: PathBuf,
    /// What comes before the verbs of its command line.
    #[serde(default)]
    pub arguments: Vec<String>,
}

impl ForeignRuntime {
    /// Our own for bundles (`strake oci`), which does what a sandbox of ours does not: hooks.
    ///
    /// # Errors
    /// The kernel does not tell which program this is.
    pub fn own() -> std::io::Result<ForeignRuntime> {
        Ok(ForeignRuntime { name: "strake".to_owned(), program: std::env::current_exe()?, arguments: vec!["oci".to_owned()] })
    }

    /// Why it cannot run such a container, if it cannot.
    ///
    /// # Errors
    /// A sentence without its end, for the user.
    pub fn can_run(&self, sandbox: &SandboxSpec) -> Result<(), String> {
        if !crate::sys::privilege::in_initial_user_namespace() {
            return Err("it needs root: without, containers are in a user namespace that only their own runtime knows".to_owned());
        }
        if sandbox.namespaces.pid != Sharing::Own {
            // Among the processes of others nothing would end such a container when its guardian is killed.
            return Err("its containers have processes of their own, so --pid cannot be given".to_owned());
        }
        self.can_execute(&sandbox.process)
    }

    /// Removes the control groups of a container that has ended: its supervisor did, unless it was killed.
    pub fn forget(&self, id: &str, sandbox: &SandboxSpec) {
        drop(Cgroup::adopt(planned_groups(&path_for_others(sandbox.cgroup.as_ref(), id))));
    }

    /// Why it cannot run such a process, if it cannot.
    ///
    /// # Errors
    /// A sentence without its end, for the user.
    pub fn can_execute(&self, process: &ProcessSpec) -> Result<(), String> {
        let words = process.args.iter().chain(&process.env).map(|word| word.as_os_str());
        match words.chain([process.cwd.as_os_str()]).find(|word| word.to_str().is_none()) {
            Some(word) => Err(format!("`{}` is not UTF-8, and its config.json can hold nothing else", OsStr::to_string_lossy(word))),
            None => Ok(()),
        }
    }
}
