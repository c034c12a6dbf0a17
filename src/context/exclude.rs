//! A tree without what ignore rules hide: COPY's `--exclude` over a context, an image or a stage.
//!
//! Rules see paths relative to a base, the root of what is copied. As in a local context, a directory above something that is brought back stays. Outside of
//! the base nothing is hidden.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use crate::path::RootPath;
use crate::sys::inode::Xattrs;
use crate::sys::tree::{DirEntry, Kind, Metadata, Tree};

use super::ignore::{DirectoryState, IgnoreRules};

/// A tree without what is excluded below a base.
pub struct Excluding<'a> {
    tree: &'a dyn Tree,
    base: RootPath,
    rules: &'a IgnoreRules,
    /// By path: what the rules said so far, and the entries that are left.
    directories: Mutex<HashMap<RootPath, Arc<Directory>>>,
}

struct Directory {
    state: DirectoryState,
    entries: Vec<DirEntry>,
}

/// A directory that is being looked into.
struct Listing {
    path: RootPath,
    directory: Directory,
    /// Excluded directories that may hold something that is brought back.
    hidden: Vec<DirEntry>,
}

impl<'a> Excluding<'a> {
    /// Hides what `rules` exclude below `base`.
    pub fn new(tree: &'a dyn Tree, base: RootPath, rules: &'a IgnoreRules) -> Excluding<'a> {
        Excluding { tree, base, rules, directories: Mutex::default() }
    }

    /// `path` as the rules see it; `None` outside of the base.
    fn below_base<'p>(&self, path: &'p RootPath) -> Option<&'p [u8]> {
        if !path.starts_with(&self.base) {
            return None;
        }
        let skip = if self.base.is_root() { 1 } else { self.base.as_bytes().len() + 1 };
        Some(path.as_bytes().get(skip..).unwrap_or_default())
    }

    /// Whether `path` is left.
    fn is_visible(&self, path: &RootPath) -> io::Result<bool> {
        match self.below_base(path) {
            None | Some(b"") => return Ok(true),
            Some(_) => {}
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(true) };
        let Some(directory) = self.directory(&parent)? else { return Ok(false) };
        Ok(directory.entries.binary_search_by(|entry| entry.name.as_bytes().cmp(name.as_bytes())).is_ok())
    }

    /// What is left of a directory in the base; `None` if it is none, or hidden.
    fn directory(&self, path: &RootPath) -> io::Result<Option<Arc<Directory>>> {
        if let Some(known) = self.cached(path) {
            return Ok(Some(known));
        }
        // What is asked for next is mostly just below what is known.
        let mut at = path.clone();
        let mut names = Vec::new();
        let mut known = loop {
            if let Some(known) = self.cached(&at) {
                break Some(known);
            }
            match (at.parent(), at.file_name()) {
                (Some(parent), Some(name)) if at != self.base => {
                    names.push(name.to_owned());
                    at = parent;
                }
                _ => break self.enter(&at, DirectoryState::default())?,
            }
        };
        while let (Some(directory), Some(name)) = (&known, names.pop()) {
            if directory.entries.binary_search_by(|entry| entry.name.as_bytes().cmp(name.as_bytes())).is_err() {
                return Ok(None);
            }
            at = at.join(&name);
            let state = self.rules.enter(&directory.state, self.below_base(&at).unwrap_or_default());
            known = self.enter(&at, state)?;
        }
        Ok(known)
    }

    fn cached(&self, path: &RootPath) -> Option<Arc<Directory>> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// Lists one directory whose state is known, and those in it that are excluded and may hold something that is brought back; without recursion.
    fn enter(&self, path: &RootPath, state: DirectoryState) -> io::Result<Option<Arc<Directory>>> {
        if let Some(known) = self.cached(path) {
            return Ok(Some(known));
        }
        if self.tree.metadata(path)?.is_none_or(|metadata| metadata.kind != Kind::Directory) {
            return Ok(None);
        }
        let mut inner = Vec::new();
        let mut current = self.list(path.clone(), state)?;
        loop {
            if let Some(entry) = current.hidden.last() {
                let below = current.path.join(&entry.name);
                let state = self.rules.enter(&current.directory.state, self.below_base(&below).unwrap_or_default());
                let listing = self.list(below, state)?;
                inner.push(std::mem::replace(&mut current, listing));
                continue;
            }
            let done = self.keep(current);
            current = match inner.pop() {
                Some(parent) => parent,
                None => return Ok(Some(done)),
            };
            if let Some(entry) = current.hidden.pop()
                && !done.entries.is_empty()
            {
                current.directory.entries.push(entry);
            }
        }
    }

    fn list(&self, path: RootPath, state: DirectoryState) -> io::Result<Listing> {
        let (mut entries, mut hidden) = (Vec::new(), Vec::new());
        for entry in self.tree.read_dir(&path)? {
            let entry_path = path.join(&entry.name);
            let below = self.below_base(&entry_path).unwrap_or_default();
            if !self.rules.decide_in(&state, below).ignored {
                entries.push(entry);
            } else if entry.kind == Kind::Directory && self.rules.may_reinclude_below(below) {
                hidden.push(entry);
            }
        }
        Ok(Listing { path, directory: Directory { state, entries }, hidden })
    }

    fn keep(&self, listing: Listing) -> Arc<Directory> {
        let Listing { path, mut directory, .. } = listing;
        directory.entries.sort_unstable();
        let mut known = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(path).or_insert_with(|| Arc::new(directory)).clone()
    }

    fn require_visible(&self, path: &RootPath) -> io::Result<()> {
        if self.is_visible(path)? { Ok(()) } else { Err(Errno::NOENT.into()) }
    }
}

impl Tree for Excluding<'_> {
    fn metadata(&self, path: &RootPath) -> io::Result<Option<Metadata>> {
        if self.is_visible(path)? { self.tree.metadata(path) } else { Ok(None) }
    }

    fn read_dir(&self, path: &RootPath) -> io::Result<Vec<DirEntry>> {
        self.require_visible(path)?;
        match self.below_base(path) {
            None => self.tree.read_dir(path),
            Some(_) => match self.directory(path)? {
                Some(directory) => Ok(directory.entries.clone()),
                None => self.tree.read_dir(path),
            },
        }
    }

    fn read_link(&self, path: &RootPath) -> io::Result<OsString> {
        self.require_visible(path)?;
        self.tree.read_link(path)
    }

    fn open(&self, path: &RootPath) -> io::Result<File> {
        self.require_visible(path)?;
        self.tree.open(path)
    }

    fn xattrs(&self, path: &RootPath) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        self.require_visible(path)?;
        self.tree.xattrs(path)
    }

    fn open_with_xattrs(&self, path: &RootPath) -> io::Result<(File, Xattrs)> {
        self.require_visible(path)?;
        self.tree.open_with_xattrs(path)
    }
}
