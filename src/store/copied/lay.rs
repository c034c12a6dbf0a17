//! Lays a layer's directory over a tree: what an overlay would show of the two.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, Stat};
use rustix::io::Errno;

use super::entry::{clear_xattrs, copy, copy_directory, is_directory, names, open_directory, open_top, stat};
use super::failed;
use crate::path::RootPath;
use crate::store::Error;
use crate::store::content::ContentCopier;
use crate::store::remove::remove_tree_at;
use crate::store::view::{Marks, is_whiteout_stat};
use crate::sys::{Links, RootDir};

/// A directory on the way, in both.
struct Level {
    path: RootPath,
    from: OwnedFd,
    to: OwnedFd,
    stat: Stat,
    /// The names that are left, last first.
    names: Vec<CString>,
}

struct Laying {
    tree: RootDir,
    marks: Marks,
    copier: ContentCopier,
    /// Files of the layer with several names: where the first one is.
    links: HashMap<(u64, u64), RootPath>,
    absent: Vec<RootPath>,
}

/// Lays the layer `layer` over the directory `tree`; gives the devices that this user may not make.
pub(super) fn lay(layer: &Path, tree: &Path, marks: Marks) -> Result<Vec<RootPath>, Error> {
    let root = RootDir::open(tree).map_err(Error::io("open", tree))?;
    let mut laying = Laying { tree: root, marks, copier: ContentCopier::default(), links: HashMap::new(), absent: Vec::new() };
    let begin = || -> io::Result<Level> {
        let (from, to) = (open_top(layer)?, open_top(tree)?);
        clear_xattrs(&to)?;
        let stat = rustix::fs::fstat(&from)?;
        let names = names(&from)?;
        Ok(Level { path: RootPath::root(), from, to, stat, names })
    };
    let mut levels = vec![begin().map_err(failed("copy", layer, &RootPath::root()))?];
    while let Some(level) = levels.last_mut() {
        match level.names.pop() {
            Some(name) => {
                let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
                let below = laying.visit(level, &name, &path).map_err(failed("copy", layer, &path))?;
                levels.extend(below);
            }
            None => {
                copy_directory(&level.from, &level.to, &level.stat).map_err(failed("copy", layer, &level.path))?;
                levels.pop();
            }
        }
    }
    Ok(laying.absent)
}

impl Laying {
    fn visit(&mut self, level: &Level, name: &CString, path: &RootPath) -> io::Result<Option<Level>> {
        let found = stat(&level.from, name)?;
        if is_whiteout_stat(&found) {
            remove_tree_at(&level.to, OsStr::from_bytes(name.to_bytes()))?;
            return Ok(None);
        }
        if is_directory(&found) {
            return self.enter(level, name, path, found).map(Some);
        }
        remove_tree_at(&level.to, OsStr::from_bytes(name.to_bytes()))?;
        if found.st_nlink > 1 {
            let key = (found.st_dev, found.st_ino);
            if let Some(first) = self.links.get(&key) {
                let (parent, first) = self.tree.open_parent(first.relative(), Links::Refuse)?;
                rustix::fs::linkat(parent, first, &level.to, name, AtFlags::empty())?;
                return Ok(None);
            }
            self.links.insert(key, path.clone());
        }
        if !copy(&level.from, &level.to, name, &found, &self.copier)? {
            self.absent.push(path.clone());
        }
        Ok(None)
    }

    fn enter(&self, level: &Level, name: &CString, path: &RootPath, found: Stat) -> io::Result<Level> {
        let from = open_directory(&level.from, name)?;
        let stays = stat(&level.to, name).is_ok_and(|stat| is_directory(&stat)) && !self.marks.is_opaque(&from)?;
        if !stays {
            remove_tree_at(&level.to, OsStr::from_bytes(name.to_bytes()))?;
            match rustix::fs::mkdirat(&level.to, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        let to = open_directory(&level.to, name)?;
        clear_xattrs(&to)?;
        let names = names(&from)?;
        Ok(Level { path: path.clone(), from, to, stat: found, names })
    }
}
