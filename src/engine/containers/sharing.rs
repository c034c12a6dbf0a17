//! Namespaces that a container shares, as the user names them, and users that it does not share.

use std::path::PathBuf;

use crate::executor::ops::ProcessUser;
use crate::runtime::container::NetworkRequest;
use crate::runtime::{Capabilities, Namespaces, Privileges, Propagation, Sharing, Situation, UserRange, situation};

use super::super::{Engine, Error};
use super::{MountRequest, RunRequest};

impl Engine {
    /// The namespaces of a container that is made: other containers by ID, so that a new name means no other one.
    pub(super) fn namespaces(&self, request: &RunRequest) -> Result<Namespaces, Error> {
        let mut namespaces = request.namespaces.clone();
        if let Sharing::Container(name) = &namespaces.pid {
            let other = self.container(name)?;
            // What enters there, or starts, is seen by whoever traces before it is no more than its command, and in its own root.
            let traces =
                |privileges: Privileges| privileges != Privileges::Insecure && privileges.capabilities().contains(Capabilities::SYS_PTRACE);
            let guest = Privileges::Default { add: request.cap_add, drop: request.cap_drop };
            if other.spec.as_ref().is_some_and(|spec| traces(spec.sandbox.privileges)) || (!request.privileged && traces(guest)) {
                let message =
                    "a container that may trace processes (SYS_PTRACE) could take over what starts among those of another".to_owned();
                let hint = format!("give SYS_PTRACE to `{name}` alone, and trace in it by `strake exec`");
                return Err(Error::Usage { message, hint: Some(hint) });
            }
            namespaces.pid = Sharing::Container(other.record.id);
        }
        if let Sharing::Container(name) = &namespaces.ipc {
            let other = self.container(name)?;
            if other.spec.as_ref().is_none_or(|spec| !spec.sandbox.namespaces.ipc_shareable) {
                let message = format!("the inter-process communication of the container `{name}` is its own");
                return Err(Error::Usage { message, hint: Some("make that one with `--ipc shareable`".to_owned()) });
            }
            namespaces.ipc = Sharing::Container(other.record.id);
        }
        if namespaces.uts == Sharing::Host && request.hostname.is_some() {
            let message = "--hostname and `--uts host` contradict each other".to_owned();
            return Err(Error::Usage { message, hint: Some("leave one of them out".to_owned()) });
        }
        Ok(namespaces)
    }

    /// Where the host's IDs for users of its own are taken from, where the container has such.
    pub(super) fn own_users(&self, request: &RunRequest, network: &NetworkRequest, user: &ProcessUser) -> Result<Option<PathBuf>, Error> {
        if !request.own_users {
            return Ok(None);
        }
        let usage = |message: String, hint: &str| Err(Error::Usage { message, hint: Some(hint.to_owned()) });
        if situation() != Some(Situation::Root) {
            let message = "only root of this machine gives containers users of their own".to_owned();
            return usage(message, "leave `--userns` out: a container of an ordinary user is in a user namespace anyway");
        }
        let namespaces = &request.namespaces;
        let shared = [
            ("--privileged", request.privileged),
            ("--runtime", request.runtime.is_some()),
            ("--pid", namespaces.pid != Sharing::Own),
            ("--ipc", matches!(namespaces.ipc, Sharing::Host | Sharing::Container(_)) || namespaces.ipc_shareable),
            ("--uts", namespaces.uts != Sharing::Own),
            // What is mounted by other users never travels back (mount_namespaces(7)).
            ("rshared", request.mounts.iter().any(|mount| matches!(mount, MountRequest::Bind { propagation: Propagation::Shared, .. }))),
            (
                "--network",
                match network {
                    NetworkRequest::None => false,
                    NetworkRequest::Networks(endpoints) => endpoints.iter().any(|endpoint| endpoint.plan.carrier().is_some()),
                    NetworkRequest::Host | NetworkRequest::Container { .. } => true,
                },
            ),
        ];
        if let Some((flag, _)) = shared.into_iter().find(|(_, shared)| *shared) {
            let message = format!("a container with users of its own cannot have what this `{flag}` gives: it belongs to other users");
            return usage(message, "leave one of them out, or say `--userns host`");
        }
        has_users(user, "another user with `--user`, or say `--userns host`")?;
        for mount in &request.mounts {
            if let MountRequest::Tmpfs { owner: (uid, gid), .. } = mount {
                has([*uid, *gid], "another owner with `--tmpfs`, or say `--userns host`")?;
            }
        }
        Ok(Some(self.options().run_dir.join("users")))
    }
}

/// Fails unless a container with users of its own has this one and its groups; `instead` says what can be named in place of it.
pub(super) fn has_users(user: &ProcessUser, instead: &str) -> Result<(), Error> {
    has([user.uid, user.gid].into_iter().chain(user.additional_gids.iter().copied()), instead)
}

fn has(ids: impl IntoIterator<Item = u32>, instead: &str) -> Result<(), Error> {
    let Some(id) = ids.into_iter().find(|id| *id >= UserRange::SIZE) else { return Ok(()) };
    let message = format!("a container with users of its own has {} of them, and no user or group {id}", UserRange::SIZE);
    Err(Error::Usage { message, hint: Some(format!("name {instead}")) })
}
