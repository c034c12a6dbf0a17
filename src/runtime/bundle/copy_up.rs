//! `tmpcopyup`: a new file system in memory begins with what its mount point holds.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::sys::{copy_content, descriptor_path};

/// Copies everything below the directory `from` (opened as a path) into the directory `to`, and the metadata of `from` itself. No link is followed.
pub(in crate::runtime) fn copy_up(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Err(Errno::NOTDIR.into());
    }
    let from = rustix::fs::openat(from, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // A mount that is attached to nothing is open as a path only.
    let to = rustix::fs::openat(to, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    copy_directory(&from, to.as_fd())?;
    rustix::fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    Ok(rustix::fs::fchmod(&to, mode(&stat))?)
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777 as RawMode)
}

fn copy_directory(from: &OwnedFd, to: BorrowedFd<'_>) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            copy_entry(from, to, name)?;
        }
    }
    Ok(())
}

fn copy_entry(from: &OwnedFd, to: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let nofollow = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, Mode::RWXU)?;
            let inner = rustix::fs::openat(from, name, nofollow | OFlags::DIRECTORY, Mode::empty())?;
            let copy = rustix::fs::openat(to, name, nofollow | OFlags::DIRECTORY, Mode::empty())?;
            copy_directory(&inner, copy.as_fd())?;
        }
        FileType::RegularFile => {
            let source = rustix::fs::openat(from, name, nofollow | OFlags::NONBLOCK, Mode::empty())?;
            let copy = rustix::fs::openat(to, name, nofollow | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY, Mode::RUSR)?;
            copy_content(&std::fs::File::from(source), &std::fs::File::from(copy))?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, name)?;
        }
        // Devices and sockets mean nothing in another file system.
        FileType::Fifo => rustix::fs::mknodat(to, name, FileType::Fifo, Mode::RUSR, 0)?,
        _ => return Ok(()),
    }
    rustix::fs::chownat(to, name, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    let time = |sec, nsec: u64| Timespec { tv_sec: sec, tv_nsec: nsec as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime as i64, stat.st_atime_nsec as u64),
        last_modification: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
    };
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // By descriptor: the name could not be told from a link otherwise.
        let file = rustix::fs::openat(to, name, nofollow | OFlags::PATH, Mode::empty())?;
        rustix::fs::chmod(Path::new(&descriptor_path(&file)), mode(&stat))?;
    }
    Ok(rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
