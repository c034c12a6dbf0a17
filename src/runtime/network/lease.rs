//! Who uses what, on disk: one lock file for each address, one for "somebody uses the network", one for set-up and teardown.
//!
//! ```text
//! <run_dir>/setup.lock          held (exclusive) while the bridge and the table are made or removed
//! <run_dir>/users               held (shared) by every process with the network open; whoever can have it exclusively is alone
//! <run_dir>/addresses/10.1.2.3  held (exclusive) by the owner of that address
//! <run_dir>/names/<ID>          by which names the owner of an address is found (`names.rs`)
//! ```
//!
//! The file `users` is removed by the last user: where it is there and nobody holds it, somebody was killed.
//!
//! What counts is the `flock`, never the file: the kernel drops the lock with its owner, however that died, so there is nothing to repair and no
//! process id to mistake for another. The files are removed only by the last user, who knows that nobody holds or waits for one; an ordinary user's with the directory, so whoever waited for
//! `setup.lock` looks whether it is still there.

use std::fs::{File, OpenOptions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Stat, flock};
use rustix::io::Errno;

use super::{Error, Ipv4Net, Ipv6Net, is_for_us};

/// How many addresses of a network are tried before it counts as full; only IPv6 networks have more.
const TRIES: u32 = 1 << 24;

/// How often an address that is asked for is tried: who only looks whether somebody has it holds it for an instant.
const LOOKS: u32 = 20;

/// How often somebody may take a directory away in which another is made.
const ATTEMPTS: u32 = 100;

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

/// The right to use one IPv6 address.
#[derive(Debug)]
pub(super) struct Ipv6Lease {
    /// The address with the subnet's prefix.
    pub(super) address: Ipv6Net,
    _lock: Lock,
}

/// A lock that is held. It is released by name and not only closed: a child that this process is just starting has the descriptor too, until its `execve`,
/// and would keep the lock for that long.
#[derive(Debug)]
pub(super) struct Lock(Option<File>);

impl Lock {
    /// The lock that `file` holds.
    pub(super) fn of(file: File) -> Lock {
        Lock(Some(file))
    }

    /// The file with the lock, which is held as long as somebody has it open.
    pub(super) fn into_file(mut self) -> Option<File> {
        self.0.take()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(file) = &self.0 {
            // Cannot fail on an open file; closing releases it in any case.
            let _ = flock(file, FlockOperation::Unlock);
        }
    }
}

impl RunDir {
    /// Uses the directory, which is made if need be.
    pub(super) fn open(path: &Path) -> Result<RunDir, Error> {
        let run_dir = RunDir::at(path);
        run_dir.make()?;
        Ok(run_dir)
    }

    /// The directory, whether it is there or not.
    pub(super) fn at(path: &Path) -> RunDir {
        RunDir { path: path.to_owned() }
    }

    /// Whether somebody uses it, or was killed.
    pub(super) fn has_users(&self) -> bool {
        self.path.join("users").exists()
    }

    fn make(&self) -> Result<(), Error> {
        let addresses = self.path.join("addresses");
        let mut made = Ok(());
        for _ in 0..ATTEMPTS {
            made = std::fs::create_dir_all(&addresses);
            // Somebody may just have taken one above away, which was empty.
            if !made.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
                break;
            }
        }
        made.map_err(Error::file("create", &addresses))
    }

    /// Waits until nobody else sets the network up or takes it down.
    pub(super) fn lock_setup(&self) -> Result<Lock, Error> {
        let path = self.path.join("setup.lock");
        loop {
            self.make()?;
            let file = match open(&path) {
                Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => continue,
                other => other?,
            };
            rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive)).map_err(|e| Error::file("lock", &path)(e.into()))?;
            // Whoever had it before may have taken the directory away.
            if is_at(&file, &path) {
                return Ok(Lock::of(file));
            }
        }
    }

    /// The same without waiting; `None` where somebody does.
    pub(super) fn try_lock_setup(&self) -> Result<Option<Lock>, Error> {
        let path = self.path.join("setup.lock");
        Ok(try_lock(&path)?.filter(|lock| lock.0.as_ref().is_some_and(|file| is_at(file, &path))))
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Another file of the directory.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Becomes a user for as long as the lock is held. Only under [`RunDir::lock_setup`], where it never waits.
    pub(super) fn join_users(&self) -> Result<Lock, Error> {
        let path = self.path.join("users");
        let file = open(&path)?;
        rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockShared)).map_err(|e| Error::file("lock", &path)(e.into()))?;
        Ok(Lock::of(file))
    }

    /// Records that a user has gone just now.
    pub(super) fn left(&self) {
        let now = std::time::SystemTime::now();
        // Whoever asks takes it for long ago otherwise.
        let _ = File::open(self.path.join("users")).and_then(|file| file.set_modified(now));
    }

    /// How long ago that was; `None` where it cannot be told.
    pub(super) fn since_left(&self) -> Option<Duration> {
        std::fs::metadata(self.path.join("users")).ok()?.modified().ok()?.elapsed().ok()
    }

    /// Whether nobody uses the network. Only under [`RunDir::lock_setup`], and by one who is no user.
    pub(super) fn is_unused(&self) -> Result<bool, Error> {
        try_lock(&self.path.join("users")).map(|lock| lock.is_some())
    }

    /// Takes an address of `subnet`, or of the `range` of it, that nobody uses and that is none of `reserved`, looking from the `start`th on.
    pub(super) fn take_address(
        &self,
        subnet: Ipv4Net,
        range: Option<Ipv4Net>,
        reserved: &[Ipv4Addr],
        start: u32,
    ) -> Result<AddressLease, Error> {
        let (first, count) = match range {
            Some(range) => (u32::from(range.network().address), (!range.mask()).saturating_add(1)),
            None => (u32::from(subnet.network().address).saturating_add(1), subnet.hosts()),
        };
        for offset in 0..count.min(TRIES) {
            let address = Ipv4Addr::from(first + start.wrapping_add(offset) % count);
            if address == subnet.network().address || address == subnet.broadcast() || reserved.contains(&address) {
                continue;
            }
            if let Some(lock) = try_lock(&self.address(address.into()))? {
                return Ok(AddressLease { address: Ipv4Net::new(address, subnet.prefix), _lock: lock });
            }
        }
        Err(Error::Exhausted { subnet: subnet.to_string() })
    }

    /// Takes that address.
    pub(super) fn take_this(&self, subnet: Ipv4Net, address: Ipv4Addr) -> Result<AddressLease, Error> {
        Ok(AddressLease { address: Ipv4Net::new(address, subnet.prefix), _lock: self.lock_address(address.into())? })
    }

    /// Takes an IPv6 address that nobody uses.
    pub(super) fn take_ipv6(&self, subnet: Ipv6Net, range: Option<Ipv6Net>, reserved: &[std::net::Ipv6Addr]) -> Result<Ipv6Lease, Error> {
        let pool = range.unwrap_or(subnet);
        for index in u32::from(range.is_none())..pool.hosts().min(TRIES) {
            let Some(net) = pool.host(index).filter(|net| !reserved.contains(&net.address) && net.address != subnet.network().address)
            else {
                continue;
            };
            if let Some(lock) = try_lock(&self.address(net.address.into()))? {
                return Ok(Ipv6Lease { address: Ipv6Net::new(net.address, subnet.prefix), _lock: lock });
            }
        }
        Err(Error::Exhausted { subnet: subnet.to_string() })
    }

    /// Takes that IPv6 address.
    pub(super) fn take_this_ipv6(&self, subnet: Ipv6Net, address: std::net::Ipv6Addr) -> Result<Ipv6Lease, Error> {
        Ok(Ipv6Lease { address: Ipv6Net::new(address, subnet.prefix), _lock: self.lock_address(address.into())? })
    }

    fn lock_address(&self, address: IpAddr) -> Result<Lock, Error> {
        for _ in 0..LOOKS {
            if let Some(lock) = try_lock(&self.address(address))? {
                return Ok(lock);
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        Err(Error::Taken { address })
    }

    /// The file of an address.
    pub(super) fn address(&self, address: IpAddr) -> PathBuf {
        self.path.join("addresses").join(address.to_string())
    }

    /// The directory of names.
    pub(super) fn names(&self) -> PathBuf {
        self.path.join("names")
    }

    /// Whether a user was killed and nobody has come since. Only under [`RunDir::lock_setup`].
    pub(super) fn is_abandoned(&self) -> bool {
        let Ok(file) = File::open(self.path.join("users")) else { return false };
        let free = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        drop(Lock::of(file));
        free
    }

    /// Removes all of it. Only under [`RunDir::lock_setup`] with nobody using the network.
    pub(super) fn remove(&self) -> Result<(), Error> {
        std::fs::remove_dir_all(&self.path).map_err(Error::file("remove", &self.path))?;
        // An ordinary user's are nobody else's, and those above go with the last one.
        let above = self.path.parent().filter(|above| is_for_us() && std::fs::remove_dir(above).is_ok());
        let _ = above.and_then(Path::parent).map(std::fs::remove_dir);
        Ok(())
    }

    /// Removes the files of all addresses and names, and that of the users; an ordinary user's with their directory. Only under [`RunDir::lock_setup`] with nobody using the network.
    pub(super) fn forget(&self) {
        if is_for_us() && self.remove().is_ok() {
            return;
        }
        for directory in [self.path.join("addresses"), self.names()] {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                // A file that stays is only clutter.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        let _ = std::fs::remove_file(self.path.join("users"));
    }
}

fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(Error::file("open", path))
}

/// Whether an open file is the one with that name.
fn is_at(file: &File, path: &Path) -> bool {
    let same = |held: Stat, there: Stat| (held.st_dev, held.st_ino) == (there.st_dev, there.st_ino);
    rustix::fs::fstat(file).is_ok_and(|held| rustix::fs::stat(path).is_ok_and(|there| same(held, there)))
}

fn try_lock(path: &Path) -> Result<Option<Lock>, Error> {
    let file = open(path)?;
    match rustix::io::retry_on_intr(|| flock(&file, FlockOperation::NonBlockingLockExclusive)) {
        Ok(()) => Ok(Some(Lock::of(file))),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(Error::file("lock", path)(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_given_once_and_again_after_its_lease_ends() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path()).unwrap();
        let subnet = Ipv4Net::new(Ipv4Addr::new(10, 0, 0, 0), 29);
        let gateway = [Ipv4Addr::new(10, 0, 0, 1)];
        let take = |start| run_dir.take_address(subnet, None, &gateway, start);
        let leases: Vec<_> = (0..5).map(|_| take(3).unwrap()).collect();
        let mut taken: Vec<_> = leases.iter().map(|lease| lease.address.address.octets()[3]).collect();
        taken.sort_unstable();
        assert_eq!(taken, [2, 3, 4, 5, 6]);
        assert!(matches!(take(0), Err(Error::Exhausted { .. })));
        let freed = leases.into_iter().next().unwrap().address;
        assert_eq!(take(0).unwrap().address.prefix, freed.prefix);
    }

    #[test]
    fn addresses_are_taken_out_of_a_range_and_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path()).unwrap();
        let (subnet, range) = ("10.0.0.0/24".parse().unwrap(), "10.0.0.8/30".parse().unwrap());
        let gateway = [Ipv4Addr::new(10, 0, 0, 9)];
        let asked = run_dir.take_this(subnet, Ipv4Addr::new(10, 0, 0, 10)).unwrap();
        assert!(matches!(run_dir.take_this(subnet, Ipv4Addr::new(10, 0, 0, 10)), Err(Error::Taken { .. })));
        let leases: Vec<_> = (0..2).map(|_| run_dir.take_address(subnet, Some(range), &gateway, 0).unwrap()).collect();
        let last: Vec<u8> = leases.iter().map(|lease| lease.address.address.octets()[3]).collect();
        assert_eq!((last, asked.address.prefix), (vec![8, 11], 24));
        assert!(run_dir.take_address(subnet, Some(range), &gateway, 0).is_err());
        let six = "fd00::/64".parse().unwrap();
        let (first, second) = (
            run_dir.take_ipv6(six, None, &["fd00::1".parse().unwrap()]).unwrap(),
            run_dir.take_ipv6(six, None, &["fd00::1".parse().unwrap()]),
        );
        assert_eq!((first.address.to_string().as_str(), second.unwrap().address.to_string().as_str()), ("fd00::2/64", "fd00::3/64"));
    }

    #[test]
    fn the_network_is_unused_when_the_last_user_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = RunDir::open(dir.path()).unwrap();
        let users = (run_dir.join_users().unwrap(), run_dir.join_users().unwrap());
        assert!(!run_dir.is_unused().unwrap());
        drop(users.0);
        assert!(!run_dir.is_unused().unwrap());
        assert!(!run_dir.is_abandoned());
        drop(users.1);
        assert!(run_dir.is_unused().unwrap());
        assert!(run_dir.is_abandoned(), "the file is there");
        run_dir.forget();
        assert!(!run_dir.is_abandoned());
    }
}
