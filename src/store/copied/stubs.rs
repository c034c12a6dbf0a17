//! Mount points in a copied tree: put there before something runs in it, and neither changes nor there afterwards.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::CopiedRoot;
use super::entry::{is_directory, names, open_directory, open_top, stat, times};
use crate::path::RootPath;
use crate::store::Error;
use crate::sys::{Links, RootDir};

impl CopiedRoot {
    /// Puts the mount points in the tree that the directory `stubs` has and the tree has not. Directories do not tell by their times that they were there.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn put_stubs(&mut self, stubs: &Path) -> Result<(), Error> {
        let mut made = Vec::new();
        put(stubs, &self.path, &mut made).map_err(Error::io("make mount points in", &self.path))?;
        // Only now do they stay as they are.
        self.note_stubs(made).map_err(Error::io("read", &self.path))
    }

    /// Takes those away again that are as they were.
    ///
    /// # Errors
    /// What cannot be removed.
    pub fn remove_stubs(&mut self) -> Result<(), Error> {
        let mut stubs: Vec<RootPath> = std::mem::take(&mut self.record.stubs).into_iter().collect();
        // What is in a directory goes before it.
        stubs.sort_unstable_by(|a, b| b.cmp(a));
        self.take_away(stubs).map_err(Error::io("remove mount points from", &self.path))
    }

    fn note_stubs(&mut self, made: Vec<RootPath>) -> io::Result<()> {
        let root = RootDir::open(&self.path)?;
        for path in made {
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let found = rustix::fs::fstat(root.open_at(path.relative(), flags, Mode::empty(), Links::Refuse)?)?;
            self.record.note_inode(&found);
            self.record.stubs.insert(path);
        }
        Ok(())
    }

    fn take_away(&self, stubs: Vec<RootPath>) -> io::Result<()> {
        let root = RootDir::open(&self.path)?;
        let mut unchanged = Vec::new();
        for path in stubs {
            // The command may have put something else there.
            let Ok((parent, name)) = root.open_parent(path.relative(), Links::Refuse) else { continue };
            let Ok(found) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if self.record.is_unchanged(&found) {
                unchanged.push((path, is_directory(&found)));
            }
        }
        for (path, is_directory) in unchanged {
            let (parent, name) = root.open_parent(path.relative(), Links::Refuse)?;
            let before = rustix::fs::fstat(&parent)?;
            let flags = if is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            match rustix::fs::unlinkat(&parent, name, flags) {
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let time = times((before.st_mtime, before.st_mtime_nsec as u32));
            rustix::fs::utimensat(&parent, ".", &time, AtFlags::empty())?;
        }
        Ok(())
    }
}

/// Makes in the directory `tree` what only `stubs` has.
fn put(stubs: &Path, tree: &Path, made: &mut Vec<RootPath>) -> io::Result<()> {
    let mut todo = vec![(RootPath::root(), open_top(stubs)?, open_top(tree)?)];
    while let Some((path, from, to)) = todo.pop() {
        let before = rustix::fs::fstat(&to)?;
        let mut changed = false;
        for name in names(&from)? {
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let is_directory = is_directory(&stat(&from, &name)?);
            if stat(&to, &name).is_err() {
                changed = true;
                if is_directory {
                    rustix::fs::mkdirat(&to, &name, Mode::from_raw_mode(0o755))?;
                    rustix::fs::chmodat(&to, &name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
                } else {
                    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    rustix::fs::openat(&to, &name, flags, Mode::from_raw_mode(0o644))?;
                }
                made.push(path.clone());
            }
            if is_directory {
                todo.push((path, open_directory(&from, &name)?, open_directory(&to, &name)?));
            }
        }
        if changed {
            rustix::fs::futimens(&to, &times((before.st_mtime, before.st_mtime_nsec as u32)))?;
        }
    }
    Ok(())
}
