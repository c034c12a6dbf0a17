//! Processes in sandboxes: the RUN steps of builds and the processes of containers.
//!
//! A [`SandboxSpec`] says everything; [`launch()`] applies it from a process with a single thread, and a [`Spawner`] does so on behalf of a process with many.
//! Both make the sandbox's init with `clone3(2)`, and as the caller has one thread, init runs ordinary code until it executes the command:
//!
//! ```text
//!   engine (threads)                     spawner (one thread)                    init (PID 1 of the sandbox)
//!     | memfd(spec), stdio, netns, socket   |                                       |
//!     |------------------------------------>| cgroup, clone3 ---------------------->| namespaces, mounts, pivot_root
//!     |                                     |<-- terminal, failed step, or EOF -----| credentials, capabilities, filter, execve
//!     |<-- started / failed ----------------|                                       |
//!     |        (socket closes: SIGKILL)     |                                       |
//!     |<-- exited, with its usage ----------|<-- wait ------------------------------|
//! ```
//!
//! Invariants: nothing is ever created in the writable layer (mount points exist already, see [`mount_targets`]); every target is resolved by the kernel
//! inside of the new root, so no link of an image leads out of it; when PID 1 ends, all of the sandbox ends. This folder does not know images or builds.

pub mod apparmor;
mod borrowed;
pub mod bundle;
mod capabilities;
pub mod cdi;
mod cgroup;
mod chroot;
pub mod container;
mod credentials;
mod device_rules;
mod devices;
mod error;
mod exec;
mod exit;
mod files;
mod foreign;
mod fuse;
mod hierarchies;
mod household;
mod init;
mod io;
mod launch;
mod mounts;
mod namespaces;
pub mod network;
mod plan;
mod reaper;
mod rootfs;
mod rootless;
mod scope;
mod seal;
mod seccomp;
mod situation;
mod spawner;
mod spec;
mod terminal;
mod trial;
mod users;
mod warden;
mod wire;
mod world;

pub use apparmor::AppArmor;
pub use capabilities::Capabilities;
pub use cgroup::is_unified;
pub use device_rules::parse_rule as parse_device_rule;
pub use error::{Error, ExecError};
pub use exit::{Exit, ExitStatus};
pub use files::mount_files;
pub use foreign::{ForeignRuntime, INIT, init_main};
pub use household::Member;
pub use io::{SandboxIo, Stdio};
pub use launch::{Child, launch};
pub use namespaces::{Namespaces, SharedNamespaces, Sharing, namespace_of_parameter};
pub use plan::{MountPointKind, mount_targets};
pub use rootless::{IdMap, enter_user_namespace};
pub use scope::lender;
pub use seal::seal_this_process;
pub(in crate::runtime) use seccomp::compile_default_filter;
pub use seccomp::{SeccompHost, SeccompProfile, SeccompProfileError, SeccompRules};
pub use situation::{
    CHROOT, Obstacle, SHARED_PROCESSES, Situation, can_chroot, can_mount_roots, establish, establish_among, establish_beside, foresee,
    is_root, missing_capabilities, obstacle, shares_processes, situation,
};
pub use spawner::{Running, SPAWNER, Spawner, spawner_main};
pub use spec::{
    AccessTimes, BindSource, CgroupSpec, Credentials, DEFAULT_SHM_SIZE, DeviceAccess, DeviceNode, DeviceSpec, Isolation, MountOptions,
    MountSpec, NetworkMode, NodeKind, Privileges, ProcessSpec, Propagation, Resource, Rlimit, SandboxSpec, Seccomp, SystemPaths,
    TerminalSize, Throttle, ThrottleKind, TmpfsTuning,
};
pub use trial::{TRIAL, trial_main, try_mount};
pub use users::{UserNamespace, UserRange};
pub use world::{MASKED, READ_ONLY};

/// A result of this folder.
pub type Result<T> = std::result::Result<T, Error>;

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests;
