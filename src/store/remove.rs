//! Removes trees. A tree is first renamed into `trash/`, so that being killed leaves garbage but never half of something with a name.
//!
//! Works on descriptors and never follows a link. Depth costs neither stack nor descriptors without bound: what lies very deep is first moved up.
//! Directories without permissions are opened up where this user owns them.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::sys::rename_new;
use crate::task::fault_point;

use super::layout::random_name;
use super::{Error, Store};

/// How deep the removal goes before it moves what is deeper up to the top.
const MAX_DEPTH: usize = 64;

/// Moves the tree `path` out of the way and removes it; gives the bytes that this freed. What does not exist is no error.
pub(crate) fn discard(store: &Store, path: &Path) -> Result<u64, Error> {
    match move_to_trash(store, path)? {
        Some(trash) => {
            fault_point("trash:moved");
            remove_tree(&trash)
        }
        None => Ok(0),
    }
}

/// Moves the file or tree `path` into `trash/`; `None` where there is nothing to move.
pub(crate) fn move_to_trash(store: &Store, path: &Path) -> Result<Option<PathBuf>, Error> {
    let trash = store.layout().trash().join(random_name()?);
    match rename_new(CWD, path, CWD, &trash) {
        Ok(()) => Ok(Some(trash)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(Error::io("move away", path)(error)),
    }
}

/// Removes the file or tree `path` and gives the bytes that this freed. What does not exist (any more) is no error: others may be at it too.
pub(crate) fn remove_tree(path: &Path) -> Result<u64, Error> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| Error::io("remove", path)(io::Error::from(error)))?;
    let is_dir = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory,
        Err(Errno::NOENT) => return Ok(0),
        Err(error) => return Err(Error::io("stat", path)(error)),
    };
    let mut removal = Removal { freed: 0, moved: 0 };
    if !is_dir {
        removal.remove_file(CWD, &name, &|| path.to_owned())?;
        return Ok(removal.freed);
    }
    loop {
        let moved = removal.moved;
        let top = match open_dir(CWD, &name) {
            Ok(top) => top,
            Err(Errno::NOENT) => return Ok(removal.freed),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        removal.empty(top.as_fd(), top.as_fd(), path, 0)?;
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(removal.freed),
            // What was moved up to the top lies there now, and goes in the next round.
            Err(Errno::NOTEMPTY | Errno::EXIST) if removal.moved > moved => {}
            Err(error) => return Err(Error::io("remove", path)(error)),
        }
    }
}

/// Removes the file or tree `name` in an open directory. What does not exist is no error.
pub(crate) fn remove_tree_at(directory: impl AsFd, name: &std::ffi::OsStr) -> io::Result<()> {
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    }
    let path = std::path::Path::new(&crate::sys::descriptor_path(&directory)).join(name);
    remove_tree(&path).map(drop).map_err(io::Error::other)
}

/// One removal under way.
struct Removal {
    freed: u64,
    moved: u64,
}

impl Removal {
    /// Empties the directory `dir`, whose path is only for messages.
    fn empty(&mut self, top: BorrowedFd<'_>, dir: BorrowedFd<'_>, path: &Path, depth: usize) -> Result<(), Error> {
        let mut buffer = Vec::with_capacity(16 * 1024);
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                // Another process that is at it has removed the directory.
                Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(Error::io("list", path)(error)),
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let entry_path = || path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
            if entry.file_type() == rustix::fs::FileType::Directory {
                self.remove_dir(top, dir, name, &entry_path(), depth)?;
            } else {
                self.remove_file(dir, name, &entry_path)?;
            }
        }
        Ok(())
    }

    fn remove_file(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &dyn Fn() -> PathBuf) -> Result<(), Error> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Error::io("remove", &path())(error)),
        }
        // Only the last link of a file frees its bytes.
        if let Ok(stat) = stat
            && stat.st_nlink == 1
        {
            self.freed += stat.st_blocks.cast_unsigned() * 512;
        }
        Ok(())
    }

    fn remove_dir(&mut self, top: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr, path: &Path, depth: usize) -> Result<(), Error> {
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {}
            Err(error) => return Err(Error::io("remove", path)(error)),
        }
        if depth >= MAX_DEPTH {
            self.moved += 1;
            let up = random_name()?;
            return match rustix::fs::renameat(dir, name, top, up.as_str()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(Error::io("move", path)(error)),
            };
        }
        let child = match open_dir(dir, name) {
            Ok(child) => child,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(Error::io("open", path)(error)),
        };
        self.empty(top, child.as_fd(), path, depth + 1)?;
        drop(child);
        fault_point("trash:emptied");
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::io("remove", path)(error)),
        }
    }
}

/// Opens a directory to be emptied: one that refuses its owner is given permissions first.
fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, name, flags, Mode::empty());
    let needs_permissions = match &opened {
        Err(Errno::ACCESS) => true,
        // Readable, but its entries cannot be removed.
        Ok(fd) => !rustix::process::geteuid().is_root() && rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_mode & 0o700 != 0o700),
        Err(_) => false,
    };
    if !needs_permissions {
        return opened;
    }
    // `chmodat` follows links, but a link would have failed with another error, and nobody else writes to the trash.
    rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}
