//! Who uses what, on disk: one lock file for each address, one for "somebody uses the network", one for set-up and teardown.
//!
//! ```text
//! <run_dir>/setup.lock          held (exclusive) while the bridge and the table are made or removed
//! <run_dir>/users               held (shared) by every process with the network open; whoever can have it exclusively is alone
//! <run_dir>/addresses/10.1.2.3  held (exclusive) by the owner of that address
//! ```
//!
//! What counts is the `flock`, never the file: the kernel drops the lock with its owner, however that died, so there is nothing to repair and no
//! process id to mistake for another. The files are removed only by the last user, who knows that nobody holds or waits for one.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{Error, Ipv4Net};

/// The first host that is given out; the one before it is the bridge.
const FIRST: u32 = 2;

/// The run directory of the network.
#[derive(Debug)]
pub(super) struct RunDir {
    path: PathBuf,
}

/// The right to use one address.
#[derive(Debug)]
pub(super) struct AddressLease {
    /// The address with the subnet's prefix.
    pub(super) address: Ipv4Net,
    _lock: Lock,
}

/// A lock that is held. It is released by name and not only closed: a child that this process is just starting has the descriptor too, until its `execve`,
/// and would keep the lock for that long.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Cannot fail on an open file; closing releases it in any case.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl RunDir {
    /// Uses the directory, which is made if need be.
    pub(super) fn open(path: &Path) -> Result<RunDir, Error> {
        let addresses = path.join("addresses");
        std::fs::create_dir_all(&addresses).map_err(Error::file("create", &addresses))?;
        Ok(RunDir { path: path.to_owned() })
    }

    /// Waits until nobody else sets the network up or takes it down.
    pub(super) fn lock_setup(&self) -> Result<Lock, Error> {
        let path = self.path.join("setup.lock");
        let file = open(&path)?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).map_err(|e| Error::file("lock", &path)(e.into()))?;
        Ok(Lock(file))
    }

    /// Becomes a user for as long as the lock is held. Only under [`RunDir::lock_setup`], where it never waits.
    pub(super) fn join_users(&self) -> Result<Lock, Error> {
        let path = self.path.join("users");
        let file = open(&path)?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockShared)).map_err(|e| Error::file("lock", &path)(e.into()))?;
        Ok(Lock(file))
    }

    /// Whether nobody uses the network. Only under [`RunDir::lock_setup`], and by one who is no user.
    pub(super) fn is_unused(&self) -> Result<bool, Error> {
        try_lock(&self.path.join("users")).map(|lock| lock.is_some())
    }

    /// Takes an address of `subnet` that nobody uses, looking from the `start`th on.
    pub(super) fn take_address(&self, subnet: Ipv4Net, start: u32) -> Result<AddressLease, Error> {
        let count = subnet.hosts().saturating_sub(FIRST - 1);
        for offset in 0..count {
            let Some(address) = subnet.host(FIRST + (start.wrapping_add(offset)) % count) else { continue };
            let path = self.path.join("addresses").join(address.address.to_string());
            if let Some(lock) = try_lock(&path)? {
                return Ok(AddressLease { address, _lock: lock });
            }
        }
        Err(Error::Exhausted { subnet })
    }

    /// Removes the files of all addresses. Only under [`RunDir::lock_setup`] with nobody using the network.
    pub(super) fn forget_addresses(&self) {
        let entries = std::fs::read_dir(self.path.join("addresses")).into_iter().flatten().flatten();
        for entry in entries {
            // A file that stays is only clutter.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(Error::file("open", path))
}

fn try_lock(path: &Path) -> Result<Option<Lock>, Error> {
    let file = open(path)?;
    match rustix::io::retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(Some(Lock(file))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(Error::file("lock", path)(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn an_address_is_given_once_and_again_after_its_lease_ends() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path()).unwrap();
        let subnet = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 29);
        let leases: Vec<_> = (0..5).map(|_| run_dir.take_address(subnet, 3).unwrap()).collect();
        let mut taken: Vec<_> = leases.iter().map(|lease| lease.address.address.octets()[3]).collect();
        taken.sort_unstable();
        assert_eq!(taken, [2, 3, 4, 5, 6]);
        assert!(matches!(run_dir.take_address(subnet, 0), Err(Error::Exhausted { .. })));
        let freed = leases.into_iter().next().unwrap().address;
        assert_eq!(run_dir.take_address(subnet, 0).unwrap().address.prefix, freed.prefix);
    }

    #[test]
    fn the_network_is_unused_when_the_last_user_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path()).unwrap();
        let users = (run_dir.join_users().unwrap(), run_dir.join_users().unwrap());
        assert!(!run_dir.is_unused().unwrap());
        drop(users.0);
        assert!(!run_dir.is_unused().unwrap());
        drop(users.1);
        assert!(run_dir.is_unused().unwrap());
    }
}
