//! What the command line says about all RUN steps of a build, and no Dockerfile does. None of it is part of a key.

use std::collections::BTreeMap;

use crate::runtime::container::HostAddress;
use crate::runtime::{AppArmor, CgroupSpec, Rlimit};

use super::ssh::SshAgent;

/// Settings of every RUN step of a build.
#[derive(Clone, Debug, Default)]
pub struct StepSettings {
    /// `--add-host`: lines of `/etc/hosts`, in order; a name may have several addresses. (The names are in the key, by way of the graph.)
    pub extra_hosts: Vec<(String, HostAddress)>,
    /// `--shm-size`: bytes of `/dev/shm`, where it is not the default.
    pub shm_size: Option<u64>,
    /// `--ulimit`.
    pub rlimits: Vec<Rlimit>,
    /// `--memory` and the like, and `--cgroup-parent`.
    pub cgroup: CgroupSpec,
    /// `--security-opt apparmor=`.
    pub apparmor: AppArmor,
    /// Whether steps run by chroot(2) alone, without namespaces and mounts.
    pub chroot: bool,
    /// `--ssh`: agents by their IDs.
    pub ssh: BTreeMap<String, SshAgent>,
}
