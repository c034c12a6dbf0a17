//! What has changed in a copied tree, as a layer in overlay form.

use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, Stat};
use rustix::io::Errno;

use super::entry::{copy, copy_directory, is_directory, limit_time, names, open_directory, open_top, stat};
use super::record::Record;
use super::{CopiedRoot, failed};
use crate::path::RootPath;
use crate::store::Error;
use crate::store::content::ContentCopier;
use crate::store::view::{Marks, MergedDir, MergedView};
use crate::sys::tree::Kind;
use crate::sys::{Links, RootDir};

impl CopiedRoot {
    /// Writes to the directory `layer`, which is empty, what has changed in the tree since it was copied from `base`. Nothing that changed is later than
    /// `latest` (seconds since the epoch) then, where that is given. What is remembered stays as it was: see [`CopiedRoot::renew`].
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn changes(&self, base: &MergedView, layer: &Path, latest: Option<i64>) -> Result<(), Error> {
        let tree = RootDir::open(&self.path).map_err(Error::io("open", &self.path))?;
        let upper = RootDir::open(layer).map_err(Error::io("open", layer))?;
        let mut walk = Walk {
            record: &self.record,
            marks: self.marks,
            base,
            latest,
            tree,
            upper,
            copier: ContentCopier::default(),
            links: HashMap::new(),
            levels: Vec::new(),
        };
        let begin = || -> io::Result<Level> {
            let (tree, upper) = (open_top(&self.path)?, open_top(layer)?);
            let names = names(&tree)?;
            Ok(Level { path: RootPath::root(), name: c".".to_owned(), tree, names, base: Some(base.root()), upper: Some(upper) })
        };
        walk.levels.push(begin().map_err(failed("find the changes in", &self.path, &RootPath::root()))?);
        loop {
            let Some(level) = walk.levels.last_mut() else { return Ok(()) };
            let (path, outcome) = match level.names.pop() {
                Some(name) => {
                    let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
                    (path.clone(), walk.visit(name, path))
                }
                None => {
                    let (path, above) = (level.path.clone(), walk.levels.len() - 1);
                    let outcome = walk.leave();
                    walk.levels.truncate(above);
                    (path, outcome)
                }
            };
            match outcome {
                // A container may be at work there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(failed("find the changes in", &self.path, &path))?,
            }
        }
    }

    /// Takes the tree as it is now for what later changes are changes of.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn renew(&mut self) -> Result<(), Error> {
        let absent = std::mem::take(&mut self.record.absent);
        self.record = Record::of(&self.path)?;
        self.record.absent = absent;
        Ok(())
    }
}

/// A directory on the way.
struct Level {
    path: RootPath,
    name: CString,
    tree: OwnedFd,
    /// The names that are left, last first.
    names: Vec<CString>,
    /// What was copied here; `None` where the directory is new.
    base: Option<Arc<MergedDir>>,
    /// The directory in the layer, once something in it has changed.
    upper: Option<OwnedFd>,
}

struct Walk<'a> {
    record: &'a Record,
    marks: Marks,
    base: &'a MergedView,
    latest: Option<i64>,
    tree: RootDir,
    upper: RootDir,
    copier: ContentCopier,
    /// Files with several new names: where the first one is.
    links: HashMap<u64, RootPath>,
    levels: Vec<Level>,
}

impl Walk<'_> {
    /// Looks at an entry of the innermost directory.
    fn visit(&mut self, name: CString, path: RootPath) -> io::Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let found = stat(&level.tree, &name)?;
        let unchanged = self.record.is_unchanged(&found);
        if unchanged && self.record.stubs.contains(&path) {
            return Ok(());
        }
        if is_directory(&found) {
            return self.enter(name, path, &found, unchanged);
        }
        if unchanged && level.base.is_some() {
            return Ok(());
        }
        let (tree, upper) = self.make_way()?;
        let found = limit_time(tree.as_fd(), &name, found, self.latest)?;
        if found.st_nlink > 1 && self.is_linked(&path, &found)? {
            if let Some(first) = self.links.get(&found.st_ino) {
                let (parent, first) = self.upper.open_parent(first.relative(), Links::Refuse)?;
                return Ok(rustix::fs::linkat(parent, first, &upper, &name, AtFlags::empty())?);
            }
            self.links.insert(found.st_ino, path);
        }
        copy(&tree, &upper, &name, &found, &self.copier).map(drop)
    }

    fn enter(&mut self, name: CString, path: RootPath, found: &Stat, unchanged: bool) -> io::Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let tree = open_directory(&level.tree, &name)?;
        let file_name = OsStr::from_bytes(name.to_bytes());
        let below = match &level.base {
            Some(base) => self.base.subdirectory(base, file_name)?,
            None => None,
        };
        let same = below.is_some() && self.record.is_same_directory(&path, found, &tree);
        let hides = !same && level.base.as_ref().is_some_and(|base| is_directory_in(base, file_name));
        let names = names(&tree)?;
        self.levels.push(Level { path, name, tree, names, base: below.filter(|_| same), upper: None });
        if !unchanged || !same {
            let (_, upper) = self.make_way()?;
            if hides {
                self.marks.set_opaque_at(upper.as_fd(), Path::new("."))?;
            }
        }
        Ok(())
    }

    /// Ends the innermost directory: what was deleted from it is marked, and it gets what it is to have.
    fn leave(&mut self) -> io::Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        // Without a change of its names, nothing went.
        let changed = !self.record.is_unchanged(&rustix::fs::fstat(&level.tree)?);
        if let Some(base) = level.base.clone().filter(|_| changed) {
            let there: HashSet<OsString> =
                names(&level.tree)?.into_iter().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned()).collect();
            let path = level.path.clone();
            for entry in base.read()? {
                if !there.contains(&entry.name) && !self.record.absent.contains(&path.join(&entry.name)) {
                    let (_, upper) = self.make_way()?;
                    self.marks.make_whiteout(upper.as_fd(), &entry.name)?;
                }
            }
        }
        let Some(Level { name, tree, upper: Some(upper), .. }) = self.levels.pop() else { return Ok(()) };
        let found = rustix::fs::fstat(&tree)?;
        let found = match self.levels.last() {
            Some(above) => limit_time(above.tree.as_fd(), &name, found, self.latest)?,
            None => limit_time(tree.as_fd(), &name, found, self.latest)?,
        };
        copy_directory(&tree, &upper, &found)
    }

    /// Makes the directories of the layer down to the innermost; gives that, after the one in the tree.
    fn make_way(&mut self) -> io::Result<(OwnedFd, OwnedFd)> {
        for at in 1..self.levels.len() {
            if self.levels[at].upper.is_some() {
                continue;
            }
            let Some(above) = &self.levels[at - 1].upper else { continue };
            let name = &self.levels[at].name;
            match rustix::fs::mkdirat(above, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.levels[at].upper = Some(open_directory(above, name)?);
        }
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let level = self.levels.last().ok_or_else(missing)?;
        Ok((level.tree.try_clone()?, level.upper.as_ref().ok_or_else(missing)?.try_clone()?))
    }

    /// Whether this name of a file is to share it with others in the layer. Names that shared it before part, as they do in an overlay; but where all of them are left, further
    /// ones were made from one of them.
    fn is_linked(&self, path: &RootPath, found: &Stat) -> io::Result<bool> {
        let before = self.record.names_of(found);
        let Some(first) = before.first() else { return Ok(true) };
        if !before.contains(path) {
            return Ok(true);
        }
        let is_left = |name: &RootPath| match rustix::fs::statat(&self.tree, name.relative(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok::<_, io::Error>(stat.st_ino == found.st_ino),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            Err(errno) => Err(errno.into()),
        };
        if path != first || found.st_nlink <= before.len() as u64 {
            return Ok(false);
        }
        for name in before {
            if !is_left(name)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

pub(super) fn is_directory_in(base: &MergedDir, name: &OsStr) -> bool {
    matches!(base.entry(name), Ok(Some(metadata)) if metadata.kind == Kind::Directory)
}
