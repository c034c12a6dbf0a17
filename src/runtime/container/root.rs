//! The files of a container, as it sees them itself, for whoever copies them in or out.
//!
//! Those of a container that runs are reached through the root of its first process, which rootless its supervisor must open; those of another are mounted for this process alone, while the container's lock
//! keeps it from being started. Either way all paths are to be resolved by the kernel inside of that root: the container may change its links at any time.

use std::path::Path;

use super::state::{ContainerDir, RunLock, start_ticks};
use super::{Error, State, control, load_spec, load_state};
use crate::runtime::users::write_as;
use crate::runtime::{self, WritingAs};
use crate::sys::{RootDir, descriptor_path};

/// The root of a container's files.
#[derive(Debug)]
pub struct ContainerRoot {
    root: RootDir,
    /// The host's ID of its root, where its users are not the host's.
    first: u32,
    /// Keeps a container that does not run from being started.
    _lock: Option<RunLock>,
}

impl ContainerRoot {
    /// The root.
    pub fn dir(&self) -> &RootDir {
        &self.root
    }

    /// What is to be added to IDs of the container for those that its files have here.
    pub fn first_id(&self) -> u32 {
        self.first
    }

    /// Lets this process, which must have one thread, make files there until that is dropped.
    ///
    /// # Errors
    /// This process is not root.
    pub fn write(&self) -> std::io::Result<Option<WritingAs>> {
        (self.first != 0).then(|| write_as(self.first)).transpose()
    }
}

/// Opens the files of the container in `dir`. For one that does not run this process, which must have one thread, gets a mount namespace of its own.
///
/// # Errors
/// They cannot be mounted, or reached.
pub fn open_root(dir: &Path) -> Result<ContainerRoot, Error> {
    if let State::Running { pid, start_ticks: started, .. } = load_state(dir)? {
        let path = Path::new("/proc").join(pid.to_string()).join("root");
        let root = match RootDir::open(&path) {
            // Rootless, each command is in a user namespace of its own.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let given = control::root(dir)?;
                RootDir::open(&descriptor_path(&given))
            }
            other => other,
        };
        let root = root.map_err(Error::file("open", &path))?;
        // The process may have ended, and another have its number.
        if start_ticks(pid) != Some(started) {
            return Err(Error::NotRunning);
        }
        let map = load_spec(dir)?.users.map(|_| std::fs::read_to_string(format!("/proc/{pid}/uid_map")));
        let map = map.transpose().map_err(Error::file("read the users of", &path))?;
        // `0 FIRST COUNT` (user_namespaces(7)).
        let first = map.and_then(|map| map.split_ascii_whitespace().nth(1)?.parse().ok()).unwrap_or(0);
        return Ok(ContainerRoot { root, first, _lock: None });
    }
    let lock = ContainerDir::new(dir).lock()?;
    let root = runtime::mount_files(&load_spec(dir)?.sandbox)?;
    Ok(ContainerRoot { root, first: 0, _lock: Some(lock) })
}
