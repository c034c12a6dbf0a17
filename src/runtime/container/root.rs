//! The files of a container, as it sees them itself, for whoever copies them in or out.
//!
//! Those of a container that runs are reached through the root of its first process, which rootless its supervisor must open; those of another are mounted for this process alone, while the container's lock
//! keeps it from being started. Either way all paths are to be resolved by the kernel inside of that root: the container may change its links at any time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use super::state::{ContainerDir, RunLock, start_ticks};
use super::{Error, State, control, load_spec, load_state};
use crate::runtime::users::{act_as_root, foreign_users};
use crate::runtime::{self, MountSpec};
use crate::sys::{RootDir, descriptor_path};

/// The root of a container's files.
#[derive(Debug)]
pub struct ContainerRoot {
    root: RootDir,
    /// Its users, where those are not the host's, with the host's ID of its root.
    users: Option<(OwnedFd, u32)>,
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
        self.users.as_ref().map_or(0, |(_, first)| *first)
    }

    /// Does `inside` with the rights that the container's root has to its files (in a process of its own, where those are not this process's), and `meanwhile` with this process's.
    /// It must have one thread.
    ///
    /// # Errors
    /// There can be no such process.
    pub fn act<T: Send>(
        &self,
        inside: impl FnOnce() -> io::Result<()>,
        meanwhile: impl FnOnce() -> T + Send,
    ) -> io::Result<(io::Result<()>, T)> {
        match &self.users {
            Some((users, _)) => act_as_root(users.as_fd(), inside, meanwhile),
            None => Ok(beside(inside, meanwhile)),
        }
    }
}

/// Does one thing here and the other on a thread of its own.
pub fn beside<T: Send>(here: impl FnOnce() -> io::Result<()>, there: impl FnOnce() -> T + Send) -> (io::Result<()>, T) {
    std::thread::scope(|scope| {
        let there = scope.spawn(there);
        let here = here();
        (here, there.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
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
        let users = load_spec(dir)?.users.map_or(Ok(None), |_| foreign_users(pid)).map_err(Error::file("open the users of", &path))?;
        let users = users.map(|(users, ids)| (users, ids.start));
        return Ok(ContainerRoot { root, users, _lock: None });
    }
    let lock = ContainerDir::new(dir).lock()?;
    let spec = load_spec(dir)?;
    let mut sandbox = spec.sandbox;
    if spec.users.is_some() {
        // What is the host's its root may not write to either.
        for mount in &mut sandbox.mounts {
            if let MountSpec::Bind { read_only, options, .. } = mount {
                *read_only |= !options.mapped;
            }
        }
    }
    let root = runtime::mount_files(&sandbox)?;
    Ok(ContainerRoot { root, users: None, _lock: Some(lock) })
}
