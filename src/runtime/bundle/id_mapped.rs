//! Bind mounts whose files are shown as those of other users (config.md, "mounts", `uidMappings` and `gidMappings`).
//!
//! The kernel wants rights over the file system for it, which root of a container's user namespace lacks, and a mount that is nowhere yet. So the creator of the
//! container makes them, and the container's first process puts them where they belong.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::Error;
use super::config::{Config, IdMapping, Mount};
use super::namespaces::map_ids;
use super::options::Options;
use crate::runtime::mounts::clone_host_mount;
use crate::runtime::users::with_namespaces;
use crate::sys::mount_attr::map_owners;

/// For each mount of the config, what is mounted there, if its IDs are mapped.
pub(super) fn sources(config: &Config, bundle: &Path) -> Result<Vec<Option<OwnedFd>>, Error> {
    config.mounts.iter().map(|mount| source(config, bundle, mount)).collect()
}

fn source(config: &Config, bundle: &Path, mount: &Mount) -> Result<Option<OwnedFd>, Error> {
    let options = Options::parse(&mount.options);
    if options.id_mapped.is_none() && mount.uid_mappings.is_empty() {
        return Ok(None);
    }
    let path = bundle.join(&mount.source);
    let source = clone_host_mount(&path, options.bind == Some(true)).map_err(Error::file("open the mount source", &path))?;
    let users = match config.linux.namespaces.iter().find(|namespace| namespace.kind == "user") {
        _ if !mount.uid_mappings.is_empty() => users(&mount.uid_mappings, &mount.gid_mappings)?,
        Some(joined) if !joined.path.is_empty() => open(&joined.path)?,
        _ => users(&config.linux.uid_mappings, &config.linux.gid_mappings)?,
    };
    map_owners(source.as_fd(), users.as_fd(), options.id_mapped == Some(true)).map_err(Error::file("map the IDs of", &path))?;
    Ok(Some(source))
}

/// A user namespace with these IDs.
fn users(users: &[IdMapping], groups: &[IdMapping]) -> Result<OwnedFd, Error> {
    let hold = |pid| {
        map_ids(pid, users, groups)?;
        open(&format!("/proc/{pid}/ns/user"))
    };
    with_namespaces(libc::CLONE_NEWUSER, hold).map_err(Error::kernel("make a user namespace for the mappings of a mount"))?
}

fn open(path: &str) -> Result<OwnedFd, Error> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(Error::file("open the namespace", path))
}
