//! The user namespace that all containers of an ordinary user are in, so that one can have the network or the processes of another, and all can be on one bridge.
//!
//! In a user namespace its own processes may do everything, and those in namespaces beside it nothing. So whoever is to start a container enters the one in which others of the
//! user are already, and makes one only where nobody is. Each process of it tells that it is there by a file that it holds locked:
//!
//! ```text
//! <run_dir>/namespace/<PID>-<START>      held (exclusive) by that process
//! <run_dir>/namespace                    held (exclusive) while somebody looks for others, or comes
//! ```
//!
//! What counts is the lock, as everywhere: a file without one was left by a process that was killed. The last to leave takes the directory away.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use super::container::start_ticks;
use super::rootless::{IdMap, present_map};
use super::{Result, enter_user_namespace};
use crate::sys::process::unshare;

/// The directory in which the members meet, below the run directory.
const PLACE: &str = "namespace";
/// How often somebody may take the directory away while it is made.
const ATTEMPTS: u32 = 100;

/// That this process is in the namespace, for as long as it is held.
#[derive(Debug)]
pub struct Member {
    place: PathBuf,
    file: PathBuf,
    _lock: File,
}

/// Puts this process, which has one thread, into the user namespace of the user's containers as its root, and into a new mount namespace.
///
/// # Errors
/// There can be no user namespace.
pub(super) fn enter(run_dir: &Path) -> Result<(IdMap, Option<Member>)> {
    let place = run_dir.join(PLACE);
    // Who has no place to meet others is alone.
    let Ok(_meeting) = meet(&place) else { return Ok((enter_user_namespace()?, None)) };
    let namespace = namespace_of_others(&place);
    let map = match namespace.is_some_and(|namespace| join(&namespace).is_ok()) {
        true => present_map(),
        false => enter_user_namespace()?,
    };
    // Another one finds the namespace by this process, which the kernel hides since it became root.
    let shown = set_dumpable_behavior(DumpableBehavior::Dumpable);
    let member = if shown.is_ok() { come(&place).ok() } else { None };
    Ok((map, member))
}

/// The same for one who does not want others to come to it, and needs nobody to meet.
///
/// # Errors
/// There can be no user namespace.
pub(super) fn visit(run_dir: &Path) -> Result<IdMap> {
    let place = run_dir.join(PLACE);
    let joined = place.is_dir()
        && meet(&place).is_ok_and(|_meeting| {
            let joined = namespace_of_others(&place).is_some_and(|namespace| join(&namespace).is_ok());
            // Killed ones have left it.
            tidy(&place);
            joined
        });
    if joined { Ok(present_map()) } else { enter_user_namespace() }
}

impl Member {
    /// Tells others that this process is in the namespace: it was executed by one that is.
    ///
    /// # Errors
    /// There is no place for that.
    pub fn of_namespace(run_dir: &Path) -> io::Result<Member> {
        let place = run_dir.join(PLACE);
        let _meeting = meet(&place)?;
        come(&place)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let Ok(_meeting) = meet(&self.place) else { return };
        let _ = std::fs::remove_file(&self.file);
        // What killed ones have left goes as well, and the directories once they are empty.
        let _ = namespace_of_others(&self.place);
        tidy(&self.place);
    }
}

/// Removes the place and what it is in, unless there is something. Only while nobody else comes or goes.
fn tidy(place: &Path) {
    if std::fs::remove_dir(place).is_ok() {
        let _ = place.parent().map(std::fs::remove_dir);
    }
}

/// Waits until nobody else comes or goes. The directory is made where it is not there.
pub(super) fn meet(place: &Path) -> io::Result<OwnedFd> {
    for _ in 0..ATTEMPTS {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(place)?;
        let Ok(directory) = rustix::fs::open(place, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else { continue };
        rustix::io::retry_on_intr(|| flock(&directory, FlockOperation::LockExclusive))?;
        // Whoever had it before may have been the last to leave.
        let (held, there) = (rustix::fs::fstat(&directory)?, rustix::fs::stat(place));
        if there.is_ok_and(|there| (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino)) {
            return Ok(directory);
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

fn come(place: &Path) -> io::Result<Member> {
    let pid = std::process::id();
    let file = place.join(format!("{pid}-{}", start_ticks(pid).ok_or(io::ErrorKind::NotFound)?));
    let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&file)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    Ok(Member { place: place.to_owned(), file, _lock: lock })
}

/// The namespace of one that is there. Files of those that are not any more are removed.
fn namespace_of_others(place: &Path) -> Option<OwnedFd> {
    std::fs::read_dir(place).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        let lock = File::open(&path).ok()?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = std::fs::remove_file(&path);
            return None;
        }
        let name = entry.file_name().into_string().ok()?;
        let (pid, began) = name.split_once('-')?;
        let pid: u32 = pid.parse().ok()?;
        let namespace = File::open(format!("/proc/{pid}/ns/user")).ok()?;
        // Opened first, then asked whose it is: another process may have the number by now.
        (start_ticks(pid) == began.parse().ok()).then(|| namespace.into())
    })
}

fn join(namespace: &OwnedFd) -> io::Result<()> {
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWUSER)?;
    unshare(libc::CLONE_NEWNS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_leave_takes_the_place_away_with_what_killed_ones_left() {
        let dir = tempfile::tempdir().unwrap();
        let run_dir = dir.path().join("run");
        let place = run_dir.join(PLACE);
        let member = Member::of_namespace(&run_dir).unwrap();
        std::fs::write(place.join("1-1"), "").unwrap();
        let here = File::from(namespace_of_others(&place).unwrap()).metadata().unwrap();
        let own = std::fs::metadata("/proc/self/ns/user").unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&here), std::os::unix::fs::MetadataExt::ino(&own));
        drop(member);
        assert!(!run_dir.exists());
    }
}
