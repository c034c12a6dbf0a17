//! Copies single entries between two directories, with all that belongs to them.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::store::content::ContentCopier;
use crate::store::view::pipe_time;
use crate::sys::inode::{self, Xattrs};
use crate::sys::xattr;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens the directory `name`.
pub(super) fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?)
}

/// Opens the directory `path` of this machine.
pub(super) fn open_top(path: &Path) -> io::Result<OwnedFd> {
    open_directory(rustix::fs::CWD, path)
}

/// The names in a directory, last first.
pub(super) fn names(directory: &OwnedFd) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

pub(super) fn stat(directory: impl AsFd, name: &CStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(super) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(super) fn ctime(stat: &Stat) -> (i64, i64) {
    (stat.st_ctime, stat.st_ctime_nsec as i64)
}

/// Copies the entry `name`, which is no directory, to where nothing has that name. False for a device that this user may not make.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd, name: &CStr, stat: &Stat, copier: &ContentCopier) -> io::Result<bool> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let file_name = OsStr::from_bytes(name.to_bytes());
    match kind {
        FileType::RegularFile => {
            let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let mut source = File::from(rustix::fs::openat(from, name, read, Mode::empty())?);
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = rustix::fs::openat(to, name, write, Mode::RUSR | Mode::WUSR)?;
            copier.copy(&mut source, stat.st_dev, u64::try_from(stat.st_size).unwrap_or(0), &target)?;
            let (uid, gid) = owner(stat);
            rustix::fs::fchown(&target, uid, gid)?;
            rustix::fs::fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
            set_xattrs(&inode::xattrs_of(&source)?, |name, value| inode::set_xattr(&target, name, value))?;
            rustix::fs::futimens(&target, &times((stat.st_mtime, stat.st_mtime_nsec as u32)))?;
            return Ok(true);
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target.as_c_str(), to, name)?;
        }
        _ => match rustix::fs::mknodat(to, name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev) {
            Err(Errno::PERM) if matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) => return Ok(false),
            other => other?,
        },
    }
    let (uid, gid) = owner(stat);
    rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        rustix::fs::chmodat(to, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    set_xattrs(&inode::xattrs_at(from.as_fd(), file_name)?, |attribute, value| {
        inode::set_xattr_at(to.as_fd(), file_name, attribute, value)
    })?;
    let mut mtime = (stat.st_mtime, stat.st_mtime_nsec as u32);
    if kind == FileType::Fifo {
        mtime = pipe_time(stat.st_mode, mtime);
    }
    rustix::fs::utimensat(to, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(true)
}

/// Gives an open directory the owner, mode, attributes and times of another one.
pub(super) fn copy_directory(from: &OwnedFd, to: &OwnedFd, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(to, uid, gid)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    set_xattrs(&inode::xattrs_of(from)?, |name, value| inode::set_xattr(to, name, value))?;
    Ok(rustix::fs::futimens(to, &times((stat.st_mtime, stat.st_mtime_nsec as u32)))?)
}

/// Takes all attributes from an open directory; some bear on what is made in it.
pub(super) fn clear_xattrs(directory: &OwnedFd) -> io::Result<()> {
    for name in xattr::list_open(directory)? {
        match rustix::fs::fremovexattr(directory, name.as_os_str()) {
            // The kernel's own, such as labels, stay.
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Sets what can be set: what the layer could have, this directory can; labels of this machine are its own matter.
fn set_xattrs(xattrs: &Xattrs, set: impl Fn(&OsStr, &[u8]) -> io::Result<()>) -> io::Result<()> {
    for (name, value) in xattrs {
        match set(name, value).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)) {
            Ok(()) | Err(Errno::NOTSUP | Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Lowers the time of an entry to `latest` (seconds since the epoch); gives what the kernel says of it then.
pub(super) fn limit_time(directory: BorrowedFd<'_>, name: &CStr, found: Stat, latest: Option<i64>) -> io::Result<Stat> {
    match latest {
        Some(latest) if (found.st_mtime, found.st_mtime_nsec as i64) > (latest, 0) => {
            rustix::fs::utimensat(directory, name, &times((latest, 0)), AtFlags::SYMLINK_NOFOLLOW)?;
            stat(directory, name)
        }
        _ => Ok(found),
    }
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

/// A time of last modification, for calls that set two.
pub(super) fn times(mtime: (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.0, tv_nsec: i64::from(mtime.1) },
    }
}
