//! The marks in a layer's directory: what says that something of the layers below is gone or hidden. The only place that knows how they look.
//!
//! Overlayfs has a character device 0/0 for a deletion (a whiteout), and an attribute for a directory that hides the one below it (an opaque one). Not every file
//! system can keep them: an overlay lets nobody make that device, and some have no attributes. There a deletion is an empty pipe without permissions and with
//! a time that no other has, and an opaque directory holds such a pipe called `.strake-opaque`. (The names that layers as archives have for this will not do: fuse-overlayfs
//! would take them, and the device, for marks of its own.) Both are recognised by `stat` alone, and a deletion in either form is one in every store, so that a store may be moved. What an image brings is kept from looking like that
//! ([`pipe_time`]); a command that makes such a pipe deletes a file of its own image.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use crate::sys::tree::{Kind, Metadata};
use crate::sys::{inode, xattr};

/// When a pipe that stands for a deletion was modified: whole seconds, for file systems that keep no more.
const PIPE_TIME: (i64, u32) = (226_377_737, 0);

/// What an opaque directory holds where there is no attribute for it.
const OPAQUE: &str = ".strake-opaque";

const TRUSTED: &str = "trusted.overlay.opaque";
const USER: &str = "user.overlay.opaque";

/// The marks that layers of a store are given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Marks {
    /// Those of overlayfs, with attributes that are root's.
    #[default]
    Trusted,
    /// Those of overlayfs, with attributes that any user may set: the kernel refuses the others in a user namespace.
    User,
    /// Those that every file system can keep. The kernel cannot mount such layers.
    Portable,
}

impl Marks {
    /// Whether overlayfs understands them.
    pub fn are_native(self) -> bool {
        self != Marks::Portable
    }

    /// Whether a directory, which was opened for reading, hides the one below it.
    pub fn is_opaque(self, directory: impl AsFd) -> io::Result<bool> {
        match self {
            Marks::Trusted => inode::has_xattr(directory, TRUSTED, b"y"),
            Marks::User => inode::has_xattr(directory, USER, b"y"),
            Marks::Portable => self.is_opaque_at(directory.as_fd(), Path::new(".")),
        }
    }

    /// The same of the directory `path` below one that was opened in any way. What is no directory hides nothing in this sense.
    pub fn is_opaque_at(self, directory: BorrowedFd<'_>, path: &Path) -> io::Result<bool> {
        let has = |name: &str| Ok::<_, io::Error>(xattr::get(directory, path, name.as_ref())?.as_deref() == Some(b"y"));
        match self {
            Marks::Trusted => has(TRUSTED),
            Marks::User => has(USER),
            // A store that was moved may have the others, too.
            Marks::Portable => match rustix::fs::statat(directory, path.join(OPAQUE), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Ok(is_whiteout_stat(&stat)),
                Err(Errno::NOENT) => Ok(has(TRUSTED)? || has(USER)?),
                Err(Errno::NOTDIR) => Ok(false),
                Err(errno) => Err(errno.into()),
            },
        }
    }

    /// Whether a deletion of this name, in a form that every file system keeps, stands for the directory that it is in.
    pub(crate) fn is_opaque_name(name: &OsStr) -> bool {
        name == OPAQUE
    }

    /// Makes the directory `path` below an open one hide what lies below it.
    pub fn set_opaque_at(self, directory: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
        match self {
            Marks::Trusted => xattr::set(directory, path, TRUSTED.as_ref(), b"y"),
            Marks::User => xattr::set(directory, path, USER.as_ref(), b"y"),
            Marks::Portable => match make_pipe(directory, &path.join(OPAQUE)) {
                Err(Errno::EXIST) if self.is_opaque_at(directory, path)? => Ok(()),
                other => Ok(other?),
            },
        }
    }

    /// Makes `name` in an open directory say that there is nothing.
    pub fn make_whiteout(self, directory: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<()> {
        match self {
            Marks::Trusted | Marks::User => rustix::fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0),
            Marks::Portable => make_pipe(directory, Path::new(name)),
        }
    }

    /// Whether the file system of an open directory, in which nothing is called `name`, can keep these marks.
    pub(crate) fn can_be_kept(self, directory: BorrowedFd<'_>, name: &OsStr) -> bool {
        let path = Path::new(name);
        let deletion = self.make_whiteout(directory, name);
        let _ = rustix::fs::unlinkat(directory, path, AtFlags::empty());
        if deletion.is_err() || rustix::fs::mkdirat(directory, path, Mode::RWXU).is_err() {
            return false;
        }
        let kept = self.set_opaque_at(directory, path).is_ok() && self.is_opaque_at(directory, path).unwrap_or(false);
        let _ = rustix::fs::unlinkat(directory, path.join(OPAQUE), AtFlags::empty());
        let _ = rustix::fs::unlinkat(directory, path, AtFlags::REMOVEDIR);
        kept
    }
}

fn make_pipe(directory: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<()> {
    rustix::fs::mknodat(directory, path, FileType::Fifo, Mode::empty(), 0)?;
    let time = Timespec { tv_sec: PIPE_TIME.0, tv_nsec: i64::from(PIPE_TIME.1) };
    rustix::fs::utimensat(directory, path, &Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW)
}

/// The marks of `fuse-overlayfs`, which are those of layers as archives. It makes those of overlayfs instead, or as well, where it can; and it understands them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FuseMark<'a> {
    /// There is nothing of this name.
    Deleted(&'a OsStr),
    /// The directory hides what lies below it.
    Opaque,
}

impl<'a> FuseMark<'a> {
    /// What an entry of a layer is that the program has written.
    pub(crate) fn of(name: &'a OsStr, stat: &Stat) -> Option<FuseMark<'a>> {
        match name.as_bytes().strip_prefix(b".wh.") {
            // The second is what becomes of the first where it makes a device for it.
            Some(b".wh..opq" | b".opq") => Some(FuseMark::Opaque),
            Some(gone) => Some(FuseMark::Deleted(OsStr::from_bytes(gone))),
            None => is_whiteout_stat(stat).then_some(FuseMark::Deleted(name)),
        }
    }

    /// Whether it has marked an open directory as one that hides what lies below.
    pub(crate) fn is_opaque(directory: BorrowedFd<'_>) -> io::Result<bool> {
        for name in [TRUSTED, USER, "user.fuseoverlayfs.opaque"] {
            if inode::has_xattr(directory, name, b"y")? {
                return Ok(true);
            }
        }
        Ok(rustix::fs::accessat(directory, ".wh..wh..opq", rustix::fs::Access::EXISTS, AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }

    /// Makes the mark in an open directory.
    pub(crate) fn make(self, directory: BorrowedFd<'_>) -> io::Result<()> {
        let mut name = std::ffi::OsString::from(".wh.");
        name.push(match self {
            FuseMark::Deleted(gone) => gone,
            FuseMark::Opaque => OsStr::new(".wh..opq"),
        });
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::EXCL | rustix::fs::OFlags::CLOEXEC;
        match rustix::fs::openat(directory, &name, flags, Mode::empty()) {
            Ok(_) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Whether an entry of a layer says that there is nothing.
pub fn is_whiteout(metadata: &Metadata) -> bool {
    match metadata.kind {
        Kind::CharDevice => metadata.rdev == (0, 0),
        Kind::Fifo => metadata.mode == 0 && metadata.mtime == PIPE_TIME,
        _ => false,
    }
}

/// The same of what the kernel says of it.
pub fn is_whiteout_stat(stat: &Stat) -> bool {
    inode::metadata(stat).is_ok_and(|metadata| is_whiteout(&metadata))
}

/// The same of what the standard library says of it.
pub fn is_whiteout_metadata(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let kind = metadata.file_type();
    (kind.is_char_device() && metadata.rdev() == 0)
        || (kind.is_fifo()
            && metadata.mode() & 0o7777 == 0
            && (metadata.mtime(), metadata.mtime_nsec()) == (PIPE_TIME.0, PIPE_TIME.1.into()))
}

/// The time that a pipe of a layer gets that is to have `mode` and `mtime`: another one if it would be taken for a deletion.
pub fn pipe_time(mode: u32, mtime: (i64, u32)) -> (i64, u32) {
    if mode & 0o7777 == 0 && mtime == PIPE_TIME { (mtime.0 + 1, mtime.1) } else { mtime }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::RootDir;

    #[test]
    fn marks_are_recognised_and_what_looks_like_them_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let root = RootDir::open(temp.path()).unwrap();
        let name = OsStr::new("gone");
        assert!(Marks::Portable.can_be_kept(root.as_fd(), name));
        Marks::Portable.make_whiteout(root.as_fd(), name).unwrap();
        assert!(is_whiteout_metadata(&temp.path().join("gone").symlink_metadata().unwrap()));
        assert!(is_whiteout_stat(&rustix::fs::statat(&root, name, AtFlags::SYMLINK_NOFOLLOW).unwrap()));
        // The same pipe with a permission is a pipe.
        rustix::fs::chmodat(&root, name, Mode::RUSR, AtFlags::empty()).unwrap();
        assert!(!is_whiteout_stat(&rustix::fs::statat(&root, name, AtFlags::SYMLINK_NOFOLLOW).unwrap()));
        assert_ne!(pipe_time(0, PIPE_TIME), PIPE_TIME);
        assert_eq!(pipe_time(0o600, PIPE_TIME), PIPE_TIME);
        std::fs::create_dir(temp.path().join("d")).unwrap();
        let directory = || std::fs::File::open(temp.path().join("d")).unwrap();
        assert!(!Marks::Portable.is_opaque(directory()).unwrap());
        for _ in 0..2 {
            Marks::Portable.set_opaque_at(root.as_fd(), Path::new("d")).unwrap();
        }
        assert!(Marks::Portable.is_opaque(directory()).unwrap());
        assert!(!Marks::Portable.is_opaque_at(root.as_fd(), name.as_ref()).unwrap());
    }
}
