//! A tree that is put into a directory of another, otherwise empty one: what `platform-split` makes of a result.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;

use crate::path::RootPath;
use crate::sys::inode::Xattrs;
use crate::sys::tree::{DirEntry, Kind, Metadata, Tree};

/// `tree`, below a directory with a single name. The directory is everyone's to read, belongs to root and is as old as time.
pub(super) struct InDirectory<'a> {
    pub(super) tree: &'a dyn Tree,
    pub(super) name: &'a OsStr,
}

/// What the outer root and the directory in it are like.
const DIRECTORY: Metadata = Metadata {
    kind: Kind::Directory,
    mode: 0o755,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: (0, 0),
    ctime: (0, 0),
    rdev: (0, 0),
    dev: 0,
    ino: 0,
    nlink: 2,
};

impl InDirectory<'_> {
    /// The path in the inner tree; `None` for what is outside of it.
    fn inner(&self, path: &RootPath) -> Option<RootPath> {
        let rest = path.relative().strip_prefix(self.name).ok()?;
        Some(if rest.as_os_str().is_empty() { RootPath::root() } else { RootPath::new(rest) })
    }

    fn existing(&self, path: &RootPath) -> io::Result<RootPath> {
        self.inner(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Tree for InDirectory<'_> {
    fn metadata(&self, path: &RootPath) -> io::Result<Option<Metadata>> {
        match self.inner(path) {
            Some(inner) if !inner.is_root() => self.tree.metadata(&inner),
            Some(_) => Ok(Some(DIRECTORY)),
            None => Ok(path.is_root().then_some(DIRECTORY)),
        }
    }

    fn read_dir(&self, path: &RootPath) -> io::Result<Vec<DirEntry>> {
        if path.is_root() {
            return Ok(vec![DirEntry { name: self.name.to_owned(), kind: Kind::Directory }]);
        }
        self.tree.read_dir(&self.existing(path)?)
    }

    fn read_link(&self, path: &RootPath) -> io::Result<OsString> {
        self.tree.read_link(&self.existing(path)?)
    }

    fn open(&self, path: &RootPath) -> io::Result<File> {
        self.tree.open(&self.existing(path)?)
    }

    fn xattrs(&self, path: &RootPath) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        match self.inner(path) {
            Some(inner) if !inner.is_root() => self.tree.xattrs(&inner),
            _ => Ok(Vec::new()),
        }
    }

    fn open_with_xattrs(&self, path: &RootPath) -> io::Result<(File, Xattrs)> {
        self.tree.open_with_xattrs(&self.existing(path)?)
    }
}
