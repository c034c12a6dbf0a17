//! One directory of a merged view: the directories of the layers that make it up, topmost first.
//!
//! Looking a name up asks the layers in turn until one knows it, so that the usual case costs one `stat`. Only a directory's own merge needs all of them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::iter::Peekable;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::catalogue::Listed;
use super::listed::ListedDir;
use super::marks::{Marks, is_whiteout};
use crate::sys::inode;
use crate::sys::tree::{DirEntry, Kind, Metadata};

/// A directory as the merged view shows it.
#[derive(Debug)]
pub struct MergedDir {
    /// Layer (index from the top) and directory, of the layers that have to be asked.
    parts: Vec<(usize, OwnedFd)>,
    /// What the other layers have here, where the stack has a catalogue.
    listed: Option<ListedDir>,
}

/// An entry, and where it comes from.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) metadata: Metadata,
    pub(super) layer: usize,
    pub(super) directory: LayerDir<'a>,
}

/// A layer's directory, open.
#[derive(Debug)]
pub(super) enum LayerDir<'a> {
    /// One that stays open.
    Kept(BorrowedFd<'a>),
    /// One that was opened for this.
    Opened(std::sync::Arc<OwnedFd>),
}

impl AsFd for LayerDir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            LayerDir::Kept(fd) => *fd,
            LayerDir::Opened(fd) => (**fd).as_fd(),
        }
    }
}

impl MergedDir {
    pub(super) fn new(parts: Vec<(usize, OwnedFd)>, listed: Option<ListedDir>) -> MergedDir {
        MergedDir { parts, listed }
    }

    pub(super) fn descriptors(&self) -> usize {
        self.parts.len() + usize::from(self.listed.is_some())
    }

    /// The topmost layer that has the directory.
    pub(super) fn topmost(&self) -> io::Result<Option<(usize, LayerDir<'_>)>> {
        match (self.parts.first(), &self.listed) {
            (Some((layer, fd)), Some(listed)) if *layer < listed.first() => Ok(Some((*layer, LayerDir::Kept(fd.as_fd())))),
            (_, Some(listed)) => Ok(Some((listed.first(), LayerDir::Opened(listed.open(listed.first())?)))),
            (first, None) => Ok(first.map(|(layer, fd)| (*layer, LayerDir::Kept(fd.as_fd())))),
        }
    }

    /// The layer's directory, if no other layer has it.
    pub(super) fn only(&self) -> Option<BorrowedFd<'_>> {
        match (self.parts.as_slice(), &self.listed) {
            ([(_, fd)], None) => Some(fd.as_fd()),
            _ => None,
        }
    }

    /// The metadata of the directory itself. That of a root without layers is made up: 0755, owned by root, at the epoch.
    pub fn metadata(&self) -> io::Result<Metadata> {
        match self.topmost()? {
            Some((_, fd)) => inode::metadata(&rustix::fs::fstat(fd)?),
            None => Ok(Metadata::IMPLIED_DIRECTORY),
        }
    }

    /// The extended attributes of the directory itself.
    pub fn xattrs(&self) -> io::Result<inode::Xattrs> {
        self.topmost()?.map_or(Ok(Vec::new()), |(_, fd)| inode::xattrs_of(fd))
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
        let listed = self.listed.as_ref().and_then(|listed| Some((listed, listed.topmost(name)?)));
        for (layer, fd) in &self.parts {
            if listed.is_some_and(|(_, (above, _))| above < *layer) {
                break;
            }
            match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    let metadata = inode::metadata(&stat)?;
                    let directory = LayerDir::Kept(fd.as_fd());
                    return Ok((!is_whiteout(&metadata)).then_some(Found { metadata, layer: *layer, directory }));
                }
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some((listed, (layer, what))) = listed else { return Ok(None) };
        if what == Listed::Whiteout {
            return Ok(None);
        }
        let directory = LayerDir::Opened(listed.open(layer)?);
        let metadata = inode::metadata(&rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)?)?;
        Ok(Some(Found { metadata, layer, directory }))
    }

    /// Merges the directories called `name`. The lowest layer's is not asked whether it is opaque: there is nothing to hide.
    pub(super) fn merge_child(&self, name: &OsStr, marks: Marks) -> io::Result<Option<MergedDir>> {
        let (mut parts, mut first) = (Vec::new(), None);
        let mut lowest = self.listed.as_ref().map_or(0, ListedDir::lowest);
        let mut listed = self.listed.as_ref().map_or_else(Vec::new, |listed| listed.all(name)).into_iter().peekable();
        let mut open = true;
        for (position, (layer, fd)) in self.parts.iter().enumerate() {
            open = merge_listed(&mut listed, *layer, &mut first, &mut lowest);
            if !open {
                break;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            match rustix::fs::openat(fd, name, flags, Mode::empty()) {
                Ok(child) => {
                    let is_last = position + 1 == self.parts.len() && listed.peek().is_none();
                    open = is_last || !marks.is_opaque(&child)?;
                    parts.push((*layer, child));
                }
                Err(Errno::NOENT) => {}
                // A whiteout, a file or a link: the kernel stops looking here, too.
                Err(Errno::NOTDIR | Errno::LOOP) => open = false,
                Err(error) => return Err(error.into()),
            }
            if !open {
                lowest = *layer;
                break;
            }
        }
        if open {
            merge_listed(&mut listed, usize::MAX, &mut first, &mut lowest);
        }
        let listed = self.listed.as_ref().and_then(|listed| Some(listed.child(name, first?, lowest)));
        Ok((!parts.is_empty() || listed.is_some()).then(|| MergedDir::new(parts, listed)))
    }

    /// The entries, sorted by name.
    pub fn read(&self) -> io::Result<Vec<DirEntry>> {
        if let Some(only) = self.only() {
            let mut entries = Vec::new();
            for_each_entry(only, |name, kind| {
                entries.extend(kind.map(|kind| DirEntry { name: OsStr::from_bytes(name).to_owned(), kind }))
            })?;
            entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            return Ok(entries);
        }
        let mut merged: BTreeMap<OsString, (usize, Option<Kind>)> = BTreeMap::new();
        for (name, (layer, what)) in self.listed.iter().flat_map(ListedDir::names) {
            let kind = match what {
                Listed::Whiteout => None,
                Listed::Opaque => Some(Kind::Directory),
                Listed::Entry(kind) => Some(kind),
            };
            merged.insert(name, (layer, kind));
        }
        for (layer, fd) in &self.parts {
            for_each_entry(fd, |name, kind| {
                let known = merged.entry(OsStr::from_bytes(name).to_owned()).or_insert((*layer, kind));
                if *layer < known.0 {
                    *known = (*layer, kind);
                }
            })?;
        }
        Ok(merged.into_iter().filter_map(|(name, (_, kind))| kind.map(|kind| DirEntry { name, kind })).collect())
    }
}

/// Merges what the listed layers above `layer` have under a directory's name, topmost first: `first` becomes the first that has the directory. False where
/// one hides what is below it, which then is the `lowest`.
fn merge_listed(
    listed: &mut Peekable<impl Iterator<Item = (usize, Listed)>>,
    layer: usize,
    first: &mut Option<usize>,
    lowest: &mut usize,
) -> bool {
    while let Some((at, what)) = listed.next_if(|(at, _)| *at < layer) {
        let is_directory = matches!(what, Listed::Opaque | Listed::Entry(Kind::Directory));
        if is_directory {
            first.get_or_insert(at);
        }
        if what != Listed::Entry(Kind::Directory) {
            *lowest = at;
            return false;
        }
    }
    true
}

/// Calls `visit` with each name and its kind, `None` for a whiteout.
pub(super) fn for_each_entry(directory: impl AsFd, mut visit: impl FnMut(&[u8], Option<Kind>)) -> io::Result<()> {
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
            Some(kind) if !matches!(kind, Kind::CharDevice | Kind::Fifo) => Some(kind),
            // A device or a pipe may be a whiteout, and some file systems do not say what an entry is.
            _ => {
                let metadata = inode::metadata(&rustix::fs::statat(&fd, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?)?;
                (!is_whiteout(&metadata)).then_some(metadata.kind)
            }
        };
        visit(name, kind);
    }
    Ok(())
}
