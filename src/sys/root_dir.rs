//! Access to a tree whose names and links are not trusted: every path is resolved by the kernel below one directory (`openat2(2)`, Linux 5.6).

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};

/// A directory that nothing resolved through it can leave: not by `..`, absolute links, magic links or races.
#[derive(Debug)]
pub struct RootDir {
    fd: OwnedFd,
    path: PathBuf,
}

/// What symbolic links on the way (and at the end) of a path do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// They are followed, absolute ones from the root directory.
    Follow,
    /// They are an error (`ELOOP`).
    Refuse,
}

impl RootDir {
    /// Opens the directory `path` of the host.
    pub fn open(path: &Path) -> io::Result<RootDir> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(RootDir { fd, path: path.to_owned() })
    }

    /// The path that the directory was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens `path` (relative to the directory; `.` is the directory itself). `CLOEXEC` is added.
    pub fn open_at(&self, path: &Path, flags: OFlags, mode: Mode, links: Links) -> io::Result<OwnedFd> {
        let resolve = match links {
            Links::Follow => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            Links::Refuse => ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS,
        };
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        loop {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, mode, resolve) {
                // The kernel asks for another try when something was renamed while it resolved `..`.
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Opens the directory that holds `path`, and gives it with the last name. Fails with `EINVAL` where `path` has no last name.
    pub fn open_parent<'a>(&self, path: &'a Path, links: Links) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or_else(|| io::Error::from(rustix::io::Errno::INVAL))?;
        let parent = path.parent().unwrap_or(Path::new("."));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        Ok((self.open_at(parent, flags, Mode::empty(), links)?, name))
    }
}

impl AsFd for RootDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_cannot_leave_the_root() {
        let tree = tempfile::tempdir().unwrap();
        std::fs::write(tree.path().join("passwd"), "inside").unwrap();
        symlink("/passwd", tree.path().join("absolute")).unwrap();
        symlink("../../../passwd", tree.path().join("dots")).unwrap();
        let root = RootDir::open(tree.path()).unwrap();
        for name in ["absolute", "dots"] {
            let fd = root.open_at(Path::new(name), OFlags::RDONLY, Mode::empty(), Links::Follow).unwrap();
            let text = std::io::read_to_string(std::fs::File::from(fd)).unwrap();
            assert_eq!(text, "inside");
            assert!(root.open_at(Path::new(name), OFlags::RDONLY, Mode::empty(), Links::Refuse).is_err());
        }
        assert!(root.open_at(Path::new("../x"), OFlags::RDONLY, Mode::empty(), Links::Refuse).is_err());
    }
}
