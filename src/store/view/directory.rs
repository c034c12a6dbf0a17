//! One directory of a merged view: the directories of the layers that make it up, topmost first.
//!
//! Looking a name up asks the layers in turn until one knows it, so that the usual case costs one `stat`. Only a directory's own merge needs all of them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

use crate::sys::inode;
use crate::sys::tree::{DirEntry, Kind, Metadata};

/// A directory as the merged view shows it.
#[derive(Debug)]
pub struct MergedDir {
    /// Layer (index from the top) and directory.
    parts: Vec<(usize, OwnedFd)>,
}

/// An entry, and where it comes from.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) metadata: Metadata,
    pub(super) layer: usize,
    pub(super) directory: BorrowedFd<'a>,
}

impl MergedDir {
    pub(super) fn new(parts: Vec<(usize, OwnedFd)>) -> MergedDir {
        MergedDir { parts }
    }

    pub(super) fn descriptors(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn topmost(&self) -> Option<(usize, BorrowedFd<'_>)> {
        self.parts.first().map(|(index, fd)| (*index, fd.as_fd()))
    }

    /// The layer's directory, if no other layer has it.
    pub(super) fn only(&self) -> Option<BorrowedFd<'_>> {
        match self.parts.as_slice() {
            [(_, fd)] => Some(fd.as_fd()),
            _ => None,
        }
    }

    /// The metadata of the directory itself. That of a root without layers is made up: 0755, owned by root, at the epoch.
    pub fn metadata(&self) -> io::Result<Metadata> {
        match self.topmost() {
            Some((_, fd)) => inode::metadata(&rustix::fs::fstat(fd)?),
            None => Ok(Metadata {
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
            }),
        }
    }

    /// The extended attributes of the directory itself.
    pub fn xattrs(&self) -> io::Result<inode::Xattrs> {
        self.topmost().map_or(Ok(Vec::new()), |(_, fd)| inode::xattrs_of(fd))
    }

    /// What `name` is; `None` where nothing is.
    pub fn entry(&self, name: &OsStr) -> io::Result<Option<Metadata>> {
        Ok(self.find(name)?.map(|found| found.metadata))
    }

    /// The target of the link `name`.
    pub fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        let found = self.find(name)?.ok_or(Errno::NOENT)?;
        let target = rustix::fs::readlinkat(found.directory, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    pub(super) fn find(&self, name: &OsStr) -> io::Result<Option<Found<'_>>> {
        for (layer, fd) in &self.parts {
            match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let metadata = inode::metadata(&stat)?;
                    return Ok((!is_whiteout(&metadata)).then_some(Found { metadata, layer: *layer, directory: fd.as_fd() }));
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Merges the directories called `name`. The lowest layer's is not asked whether it is opaque: there is nothing to hide.
    pub(super) fn merge_child(&self, name: &OsStr, opaque: &str) -> io::Result<Option<MergedDir>> {
        let mut parts = Vec::new();
        let last = self.parts.len().saturating_sub(1);
        for (position, (layer, fd)) in self.parts.iter().enumerate() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(fd, name, flags, Mode::empty()) {
                Ok(child) => {
                    let stop = position < last && inode::has_xattr(&child, opaque, b"y")?;
                    parts.push((*layer, child));
                    if stop {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                // A whiteout, a file or a link: the kernel stops looking here, too.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok((!parts.is_empty()).then(|| MergedDir::new(parts)))
    }

    /// The entries, sorted by name.
    pub fn read(&self) -> io::Result<Vec<DirEntry>> {
        if let [(_, only)] = self.parts.as_slice() {
            let mut entries = Vec::new();
            for_each_entry(only, |name, kind| {
                entries.extend(kind.map(|kind| DirEntry { name: OsStr::from_bytes(name).to_owned(), kind }))
            })?;
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            return Ok(entries);
        }
        let mut merged: BTreeMap<OsString, Option<Kind>> = BTreeMap::new();
        for (_, fd) in &self.parts {
            for_each_entry(fd, |name, kind| {
                merged.entry(OsStr::from_bytes(name).to_owned()).or_insert(kind);
            })?;
        }
        Ok(merged.into_iter().filter_map(|(name, kind)| kind.map(|kind| DirEntry { name, kind })).collect())
    }
}

/// Whether an entry of a layer says that there is nothing.
fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.kind == Kind::CharDevice && metadata.rdev == (0, 0)
}

/// Calls `visit` with each name and its kind, `None` for a whiteout.
fn for_each_entry(directory: &OwnedFd, mut visit: impl FnMut(&[u8], Option<Kind>)) -> io::Result<()> {
    // A descriptor of its own: the offset of the cached one would be shared between threads.
    let fd = rustix::fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 32768];
    let mut entries = RawDir::new(&fd, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match inode::kind(entry.file_type()) {
            Some(kind) if kind != Kind::CharDevice => Some(kind),
            // A device may be a whiteout, and some file systems do not say what an entry is.
            _ => {
                let metadata = inode::metadata(&rustix::fs::statat(&fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?)?;
                (!is_whiteout(&metadata)).then_some(metadata.kind)
            }
        };
        visit(name, kind);
    }
    Ok(())
}
