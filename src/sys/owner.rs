//! Owners of files for a process that can own nothing but as itself: it stands in for root, as in a user namespace that maps its one ID to 0.

use std::io;
use std::sync::OnceLock;

use rustix::fs::{Gid, Stat, Uid};
use rustix::io::Errno;

/// The process's own user and group, where they stand in for root.
static OWN: OnceLock<(u32, u32)> = OnceLock::new();

/// From here on what belongs to this process's user and group counts as root's.
pub fn stand_in_for_root() {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // A second call finds the same.
    let _ = OWN.set(own);
}

/// Whose a file counts as: user and group.
pub fn of(stat: &Stat) -> (u32, u32) {
    match OWN.get() {
        None => (stat.st_uid, stat.st_gid),
        Some((uid, gid)) => (if stat.st_uid == *uid { 0 } else { stat.st_uid }, if stat.st_gid == *gid { 0 } else { stat.st_gid }),
    }
}

/// Whose what this process makes counts as.
pub fn own() -> (u32, u32) {
    if OWN.get().is_some() { (0, 0) } else { (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()) }
}

/// Why an owner cannot be had, where that is for want of IDs.
pub fn explain(errno: Errno, uid: u32, gid: u32) -> io::Error {
    match errno {
        Errno::PERM | Errno::INVAL => io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("the owner {uid}:{gid} cannot be had, as this process has too few ids; `strake doctor` says how to have more"),
        ),
        other => other.into(),
    }
}

/// What the kernel is to be told of an owner.
pub fn for_kernel(uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
    let (own_uid, own_gid) = OWN.get().copied().unwrap_or((0, 0));
    // The number itself has another meaning then: the kernel refuses what is asked for in its place.
    let swapped = |id: u32, own: u32| match id {
        0 => own,
        id if id == own => 0,
        id => id,
    };
    (Some(Uid::from_raw(swapped(uid, own_uid))), Some(Gid::from_raw(swapped(gid, own_gid))))
}
