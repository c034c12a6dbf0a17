//! What somebody else puts into a copied tree for a while and takes out again, in place of mounts, is no change of the command that ran meanwhile.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, Stat};

use super::CopiedRoot;
use crate::path::RootPath;
use crate::store::Error;
use crate::sys::{Links, RootDir};

/// Entries of a tree that are about to be put aside, and the directories that lead to them, as they are now.
#[derive(Debug, Default)]
pub struct Watched(Vec<(OwnedFd, Stat)>);

impl CopiedRoot {
    /// Looks at what has the place of `targets` and at what leads there.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub fn watch<'a>(&self, targets: impl IntoIterator<Item = &'a RootPath>) -> Result<Watched, Error> {
        let root = RootDir::open(&self.path).map_err(Error::io("open", &self.path))?;
        let mut watched = Watched::default();
        for target in targets {
            let mut path = RootPath::root();
            for name in std::iter::once(OsStr::new("")).chain(target.components()) {
                path = path.join(name);
                // A link itself may be put aside, or what it leads to.
                for flags in [OFlags::PATH, OFlags::PATH | OFlags::NOFOLLOW] {
                    let Ok(entry) = root.open_at(path.relative(), flags, Mode::empty(), Links::Follow) else { continue };
                    let stat = rustix::fs::fstat(&entry).map_err(Error::io("read", &self.path))?;
                    if !watched.0.iter().any(|(_, known)| known.st_ino == stat.st_ino) {
                        watched.0.push((entry, stat));
                    }
                }
            }
        }
        Ok(watched)
    }

    /// Takes those of the entries for unchanged that were, and have but been moved away and back.
    pub fn overlook(&mut self, watched: &Watched) {
        let same = |a: &Stat, b: &Stat| {
            // The size of a directory tells how many names it once had room for.
            let size = |stat: &Stat| if stat.st_mode & libc::S_IFMT == libc::S_IFDIR { 0 } else { stat.st_size };
            (a.st_mode, a.st_uid, a.st_gid, size(a)) == (b.st_mode, b.st_uid, b.st_gid, size(b))
                && (a.st_mtime, a.st_mtime_nsec) == (b.st_mtime, b.st_mtime_nsec)
        };
        for (entry, before) in &watched.0 {
            if let Ok(now) = rustix::fs::fstat(entry)
                && self.record.is_unchanged(before)
                && same(before, &now)
            {
                self.record.note_inode(&now);
            }
        }
    }
}
