//! What an inode says of itself: `stat(2)` as [`Metadata`], and extended attributes by descriptor or by directory and name.
//!
//! Attributes of links and device nodes can only be reached by path; `/proc/self/fd/<directory>/<name>` is that path, so that no link is followed on the way
//! and nothing is opened that has side effects. Holds no policy but one: attributes of overlayfs itself are never listed.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{FileType, Stat, XattrFlags};
use rustix::io::Errno;

use super::owner;
use super::tree::{Kind, Metadata};

/// Extended attributes: names and values, sorted by name.
pub type Xattrs = Vec<(OsString, Vec<u8>)>;

/// How attributes begin that are the notes of overlayfs, and of `fuse-overlayfs`, to themselves.
const OVERLAYS: [&[u8]; 3] = [b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs."];

/// The kind of a file type; `None` for what Linux does not have.
pub fn kind(file_type: FileType) -> Option<Kind> {
    match file_type {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Directory),
        FileType::Symlink => Some(Kind::Symlink),
        FileType::CharacterDevice => Some(Kind::CharDevice),
        FileType::BlockDevice => Some(Kind::BlockDevice),
        FileType::Fifo => Some(Kind::Fifo),
        FileType::Socket => Some(Kind::Socket),
        FileType::Unknown => None,
    }
}

/// Turns the kernel's answer into ours.
pub fn metadata(stat: &Stat) -> io::Result<Metadata> {
    let kind = kind(FileType::from_raw_mode(stat.st_mode)).ok_or(Errno::INVAL)?;
    let (uid, gid) = owner::of(stat);
    Ok(Metadata {
        kind,
        mode: stat.st_mode & 0o7777,
        uid,
        gid,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
        ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
        rdev: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        dev: stat.st_dev,
        ino: stat.st_ino,
        nlink: stat.st_nlink,
    })
}

/// The path of `name` in an open directory, for calls that take no descriptor. It does not depend on links in the directory's own path.
pub fn proc_path(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    CString::new(path).map_err(|_| Errno::INVAL.into())
}

/// The attributes of `name` in `directory`, a link's own ones.
pub fn xattrs_at(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<Xattrs> {
    let path = proc_path(directory, name)?;
    let names = read_sized(|buffer| rustix::fs::llistxattr(&path, buffer))?;
    collect(names.as_deref().unwrap_or_default(), |attribute| read_sized(|buffer| rustix::fs::lgetxattr(&path, attribute, buffer)))
}

/// The attributes of an open file or directory.
pub fn xattrs_of(fd: impl AsFd) -> io::Result<Xattrs> {
    let names = read_sized(|buffer| rustix::fs::flistxattr(fd.as_fd(), buffer))?;
    collect(names.as_deref().unwrap_or_default(), |attribute| read_sized(|buffer| rustix::fs::fgetxattr(fd.as_fd(), attribute, buffer)))
}

/// Whether an open directory carries the attribute `attribute` with exactly the value `value`.
pub fn has_xattr(fd: impl AsFd, attribute: &str, value: &[u8]) -> io::Result<bool> {
    let mut buffer = [0u8; 16];
    match rustix::fs::fgetxattr(fd.as_fd(), attribute, &mut buffer[..]) {
        Ok(len) => Ok(buffer.get(..len) == Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sets an attribute of an open file or directory.
pub fn set_xattr(fd: impl AsFd, attribute: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(fd.as_fd(), attribute, value, XattrFlags::empty())?)
}

/// Sets an attribute of `name` in `directory`, a link's own one.
pub fn set_xattr_at(directory: BorrowedFd<'_>, name: &OsStr, attribute: &OsStr, value: &[u8]) -> io::Result<()> {
    let path = proc_path(directory, name)?;
    Ok(rustix::fs::lsetxattr(&path, attribute, value, XattrFlags::empty())?)
}

fn collect(names: &[u8], mut get: impl FnMut(&OsStr) -> io::Result<Option<Vec<u8>>>) -> io::Result<Xattrs> {
    let mut out = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if OVERLAYS.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        // One that vanished since it was listed has no value.
        if let Some(value) = get(OsStr::from_bytes(name))? {
            out.push((OsString::from_vec(name.to_vec()), value));
        }
    }
    out.sort();
    Ok(out)
}

/// Reads a value of unknown size; `None` where there is none, or the file system has no attributes.
fn read_sized(mut read: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut small = [0u8; 512];
    let mut large = Vec::new();
    let mut result = read(&mut small);
    loop {
        match result {
            Ok(len) if large.is_empty() => return Ok(small.get(..len).map(<[u8]>::to_vec)),
            Ok(len) => {
                large.truncate(len);
                return Ok(Some(large));
            }
            // The kernel's limit for both names and values is 64 KiB.
            Err(Errno::RANGE) if large.is_empty() => large = vec![0; 65536],
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        result = read(&mut large);
    }
}
