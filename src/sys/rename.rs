//! Renaming to names that are not taken.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, RenameFlags, renameat, renameat_with, statat};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// Renames unless there is something of the new name already, which is `EXIST`. Where the file system cannot do both in one (NFS, many of FUSE), it looks first: for names that nobody else
/// makes meanwhile.
pub fn rename_new(from_dir: impl AsFd, from: impl Arg + Copy, to_dir: impl AsFd, to: impl Arg + Copy) -> Result<()> {
    match renameat_with(&from_dir, from, &to_dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL) => match statat(&to_dir, to, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => renameat(from_dir, from, to_dir, to),
            found => found.and(Err(Errno::EXIST)),
        },
        other => other,
    }
}
