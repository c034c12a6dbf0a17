//! A layer once more, with other marks: its directories are made anew, and its files are the same ones under further names.
//!
//! `fuse-overlayfs` has marks of its own for what is gone or hidden, and does not know the portable ones of a store ([`Marks::Portable`]). So it is given layers that have some in a form that it
//! understands, and what it has written is read in ours. Nobody writes to a file by these names.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, Stat};
use rustix::io::Errno;

use super::changes::is_directory_in;
use super::entry::{copy, copy_directory, is_directory, names, open_directory, open_top, stat};
use super::failed;
use crate::path::RootPath;
use crate::store::content::ContentCopier;
use crate::store::view::{FuseMark, Marks, MergedDir, MergedView, is_whiteout_metadata, is_whiteout_stat};
use crate::store::{Error, SnapshotId, Store};

impl Store {
    /// Writes to `target`, which is not there, what `fuse-overlayfs` is to have for a committed snapshot; false where it may have the snapshot as it is.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn link_for_fuse(&self, id: SnapshotId, target: &Path) -> Result<bool, Error> {
        let path = self.snapshot_path(id);
        if self.marks().are_native() || !has_marks(&path)? {
            return Ok(false);
        }
        std::fs::create_dir(target).map_err(Error::io("create", target))?;
        link(&path, target, &ToFuse { marks: self.marks() }, None)?;
        Ok(true)
    }

    /// Writes to the empty directory `target` what `fuse-overlayfs` has written to `changes` above `base`, as a layer of this store.
    ///
    /// # Errors
    /// What cannot be read or written.
    pub fn link_from_fuse(&self, changes: &Path, base: &MergedView, target: &Path) -> Result<(), Error> {
        link(changes, target, &FromFuse { marks: self.marks() }, Some(base))
    }
}

/// What an entry of a layer stands for.
enum Meaning<'a> {
    /// Itself.
    Entry,
    /// There is nothing of this name.
    Deleted(&'a OsStr),
    /// Its directory hides what lies below.
    Opaque,
}

/// A way from one kind of marks to another.
trait Translation {
    fn meaning<'a>(&self, name: &'a OsStr, stat: &Stat) -> Meaning<'a>;
    fn is_opaque(&self, directory: &OwnedFd) -> io::Result<bool>;
    fn delete(&self, directory: &OwnedFd, name: &OsStr) -> io::Result<()>;
    fn set_opaque(&self, directory: &OwnedFd) -> io::Result<()>;
}

struct ToFuse {
    marks: Marks,
}

impl Translation for ToFuse {
    fn meaning<'a>(&self, name: &'a OsStr, stat: &Stat) -> Meaning<'a> {
        match (is_whiteout_stat(stat), Marks::is_opaque_name(name)) {
            (false, _) => Meaning::Entry,
            (true, true) => Meaning::Opaque,
            (true, false) => Meaning::Deleted(name),
        }
    }

    fn is_opaque(&self, directory: &OwnedFd) -> io::Result<bool> {
        self.marks.is_opaque(directory)
    }

    fn delete(&self, directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
        FuseMark::Deleted(name).make(directory.as_fd())
    }

    fn set_opaque(&self, directory: &OwnedFd) -> io::Result<()> {
        FuseMark::Opaque.make(directory.as_fd())
    }
}

struct FromFuse {
    marks: Marks,
}

impl Translation for FromFuse {
    fn meaning<'a>(&self, name: &'a OsStr, stat: &Stat) -> Meaning<'a> {
        match FuseMark::of(name, stat) {
            None => Meaning::Entry,
            Some(FuseMark::Deleted(name)) => Meaning::Deleted(name),
            Some(FuseMark::Opaque) => Meaning::Opaque,
        }
    }

    fn is_opaque(&self, directory: &OwnedFd) -> io::Result<bool> {
        FuseMark::is_opaque(directory.as_fd())
    }

    fn delete(&self, directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
        Ok(self.marks.make_whiteout(directory.as_fd(), name)?)
    }

    fn set_opaque(&self, directory: &OwnedFd) -> io::Result<()> {
        self.marks.set_opaque_at(directory.as_fd(), Path::new("."))
    }
}

/// A directory on the way.
struct Level {
    path: RootPath,
    from: OwnedFd,
    to: OwnedFd,
    /// The names that are left, last first.
    names: Vec<CString>,
    /// What the layers below have here, where that counts.
    base: Option<Arc<MergedDir>>,
}

/// Writes the layer `from` to the directory `to`. With a `base`, marks of what that does not have are left out: `fuse-overlayfs` leaves some.
fn link(from: &Path, to: &Path, translation: &dyn Translation, base: Option<&MergedView>) -> Result<(), Error> {
    let root = RootPath::root();
    let begin = || {
        let (from, to) = (open_top(from)?, open_top(to)?);
        enter(root.clone(), from, to, base.map(MergedView::root), false, translation)
    };
    let copier = ContentCopier::default();
    let mut levels = vec![begin().map_err(failed("read the layer", from, &root))?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            let done =
                rustix::fs::fstat(&level.from).map_err(io::Error::from).and_then(|stat| copy_directory(&level.from, &level.to, &stat));
            done.map_err(failed("write the directory", from, &level.path))?;
            levels.pop();
            continue;
        };
        let path = level.path.join(OsStr::from_bytes(name.to_bytes()));
        match visit(level, &name, &path, translation, base, &copier) {
            Ok(Some(below)) => levels.push(below),
            Ok(None) => {}
            // A container may be at work there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("write", from, &path)(error)),
        }
    }
    Ok(())
}

fn visit(
    level: &Level,
    name: &CString,
    path: &RootPath,
    translation: &dyn Translation,
    base: Option<&MergedView>,
    copier: &ContentCopier,
) -> io::Result<Option<Level>> {
    let file_name = OsStr::from_bytes(name.to_bytes());
    let found = stat(&level.from, name)?;
    match translation.meaning(file_name, &found) {
        // It was asked for when the directory was entered.
        Meaning::Opaque => return Ok(None),
        Meaning::Deleted(gone) => {
            let was_there = match (base, &level.base) {
                (None, _) => true,
                (Some(_), below) => below.as_ref().map_or(Ok(None), |below| below.entry(gone))?.is_some(),
            };
            if was_there {
                translation.delete(&level.to, gone)?;
            }
            return Ok(None);
        }
        Meaning::Entry => {}
    }
    if is_directory(&found) {
        rustix::fs::mkdirat(&level.to, name, Mode::RWXU)?;
        let (from, to) = (open_directory(&level.from, name)?, open_directory(&level.to, name)?);
        let below = match (base, &level.base) {
            (Some(base), Some(parent)) => base.subdirectory(parent, file_name)?,
            _ => None,
        };
        let may_hide = base.is_none() || level.base.as_ref().is_some_and(|base| is_directory_in(base, file_name));
        return enter(path.clone(), from, to, below, may_hide, translation).map(Some);
    }
    match rustix::fs::linkat(&level.from, name, &level.to, name, AtFlags::empty()) {
        // It has as many names as a file can have, or this file system gives it no further one.
        Err(Errno::MLINK | Errno::PERM | Errno::XDEV | Errno::OPNOTSUPP) => copy(&level.from, &level.to, name, &found, copier).map(drop)?,
        other => other?,
    }
    Ok(None)
}

fn enter(
    path: RootPath,
    from: OwnedFd,
    to: OwnedFd,
    base: Option<Arc<MergedDir>>,
    may_hide: bool,
    translation: &dyn Translation,
) -> io::Result<Level> {
    let hides = translation.is_opaque(&from)?;
    if hides && may_hide {
        translation.set_opaque(&to)?;
    }
    let names = names(&from)?;
    // What it hides cannot be deleted.
    Ok(Level { path, from, to, names, base: base.filter(|_| !hides) })
}

/// Whether anything in the layer is a mark.
fn has_marks(layer: &Path) -> Result<bool, Error> {
    for entry in walkdir::WalkDir::new(layer).min_depth(1) {
        let found = entry.and_then(|entry| entry.metadata()).map_err(Error::io("read the layer", layer))?;
        if is_whiteout_metadata(&found) {
            return Ok(true);
        }
    }
    Ok(false)
}
