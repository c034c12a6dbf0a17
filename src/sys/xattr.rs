//! Extended attributes of entries named by a directory and a path.
//!
//! The system calls that take a directory came with Linux 6.13; until then `/proc/self/fd/N/path` does the same. The last name is never followed. Paths
//! must not lead through links that are not trusted: callers pass single names, or paths in trees that nobody changes.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// What most entries' attributes fit in, so that one call tells all.
const FIRST_TRY: usize = 1024;

/// The names of all attributes of `path` in `dir`, in the kernel's order. A file system without attributes has none.
pub fn list(dir: BorrowedFd<'_>, path: &Path) -> io::Result<Vec<OsString>> {
    let path = proc_path(dir, path);
    let found = grow(|buffer| rustix::fs::llistxattr(&path, buffer), FIRST_TRY);
    match found {
        Ok(names) => Ok(split_names(&names)),
        Err(Errno::NOTSUP) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// The names of all attributes of an open file or directory, in the kernel's order. A file system without attributes has none.
pub fn list_open(file: impl AsFd) -> io::Result<Vec<OsString>> {
    // Most entries have none, so most calls make no memory.
    let mut few = [0; 256];
    match rustix::fs::flistxattr(file.as_fd(), &mut few[..]) {
        Ok(length) => return Ok(split_names(few.get(..length).unwrap_or_default())),
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(split_names(&grow(|buffer| rustix::fs::flistxattr(file.as_fd(), buffer), FIRST_TRY)?))
}

/// The value of the attribute `name` of an open file or directory; `None` where it has none of that name.
pub fn get_open(file: impl AsFd, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    match grow(|buffer| rustix::fs::fgetxattr(file.as_fd(), name, buffer), FIRST_TRY) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The value of the attribute `name` of `path` in `dir`; `None` where it has none of that name.
pub fn get(dir: BorrowedFd<'_>, path: &Path, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let path = proc_path(dir, path);
    match grow(|buffer| rustix::fs::lgetxattr(&path, name, buffer), FIRST_TRY) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Sets the attribute `name` of `path` in `dir`.
pub fn set(dir: BorrowedFd<'_>, path: &Path, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(proc_path(dir, path), name, value, XattrFlags::empty())?)
}

/// Sets the attribute `name` of an open file.
pub fn set_open(file: impl AsFd, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())?)
}

fn proc_path(dir: BorrowedFd<'_>, path: &Path) -> PathBuf {
    let mut out = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    // Pushing `.` would be lost, and with it the last component that `l*xattr` must not follow.
    let bytes = path.as_os_str().as_bytes();
    let name = if bytes.is_empty() { b"." } else { bytes };
    let whole = out.as_mut_os_string();
    whole.push("/");
    whole.push(OsStr::from_bytes(name));
    out
}

fn grow(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>, first: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; first];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            // 64 KiB is the kernel's limit for a value and for the list of names.
            Err(Errno::RANGE) if buffer.len() < 1 << 17 => buffer.resize(buffer.len() * 4, 0),
            Err(error) => return Err(error),
        }
    }
}

fn split_names(list: &[u8]) -> Vec<OsString> {
    list.split(|b| *b == 0).filter(|name| !name.is_empty()).map(|name| OsString::from_vec(name.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::RootDir;

    #[test]
    fn a_value_is_read_back() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("file"), "").unwrap();
        let root = RootDir::open(tree.path()).unwrap();
        let (path, name) = (Path::new("file"), OsStr::new("user.test"));
        if let Err(error) = set(root.as_fd(), path, name, &[7; 2000]) {
            eprintln!("skipped: no user attributes here: {error}");
            return;
        }
        assert_eq!(get(root.as_fd(), path, name).unwrap(), Some(vec![7; 2000]));
        assert!(list(root.as_fd(), path).unwrap().contains(&name.to_owned()));
        assert_eq!(get(root.as_fd(), path, OsStr::new("user.none")).unwrap(), None);
        assert!(list(root.as_fd(), Path::new(".")).is_ok());
    }
}
