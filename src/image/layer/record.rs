//! What the differ found, in batches: read on one thread, written to the tar stream by another.
//!
//! Reading a small file costs three system calls and more time than hashing it, so the two overlap. Small files' bytes travel in the batch; large files travel
//! open and are read where they are written. A batch is bounded, and few of them wait: memory is constant.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{FileType, Stat};

use crate::path::RootPath;
use crate::sys::owner;

use super::tar_writer::{Entry, EntryKind, TarWriter};
use super::{Error, Xattrs};

/// Files up to this size travel in the batch.
pub(super) const SMALL: u64 = 64 << 10;

/// How much a batch holds.
const MAX_ENTRIES: usize = 512;
const MAX_DATA: usize = 512 << 10;
/// Each is an open descriptor.
const MAX_LARGE: usize = 16;

/// An entry's name and metadata.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) path: RootPath,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Whole seconds since the epoch.
    pub(super) mtime: i64,
    pub(super) xattrs: Xattrs,
}

impl Head {
    pub(super) fn new(path: &RootPath, stat: &Stat, xattrs: Xattrs, latest_time: Option<i64>) -> Head {
        let mtime = latest_time.map_or(stat.st_mtime, |latest| stat.st_mtime.min(latest));
        let (uid, gid) = owner::of(stat);
        Head { path: path.clone(), mode: stat.st_mode & 0o7777, uid, gid, mtime, xattrs }
    }

    pub(super) fn entry<'a>(&'a self, kind: EntryKind<'a>) -> Entry<'a> {
        let Head { path, mode, uid, gid, mtime, xattrs } = self;
        Entry { path: &path.as_bytes()[1..], kind, mode: *mode, uid: *uid, gid: *gid, mtime: *mtime, xattrs }
    }

    /// The mark of a deletion. It has no time: its own says when a build ran, and nobody reads it.
    pub(super) fn whiteout(path: RootPath) -> Head {
        Head { path, mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() }
    }
}

/// What an entry is, with what only that kind has.
#[derive(Debug)]
pub(super) enum Content {
    Directory,
    /// A file whose bytes, this many, come next in the batch.
    Small(usize),
    /// A file of this size.
    Large(File, u64),
    Symlink(Vec<u8>),
    HardLink(RootPath),
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
    Fifo,
}

impl Content {
    /// A device or pipe; `None` for what no archive can carry.
    pub(super) fn of_node(stat: &Stat) -> Option<Content> {
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice => Some(Content::CharDevice(device.0, device.1)),
            FileType::BlockDevice => Some(Content::BlockDevice(device.0, device.1)),
            FileType::Fifo => Some(Content::Fifo),
            // A socket without its process is nothing; no format can carry it.
            _ => None,
        }
    }
}

/// Entries in the order of the stream.
#[derive(Debug, Default)]
pub(super) struct Batch {
    entries: Vec<(Head, Content)>,
    data: Vec<u8>,
    large: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= MAX_ENTRIES || self.data.len() >= MAX_DATA || self.large >= MAX_LARGE
    }

    pub(super) fn push(&mut self, head: Head, content: Content) {
        self.large += usize::from(matches!(content, Content::Large(..)));
        self.entries.push((head, content));
    }

    /// Adds a file with its content.
    pub(super) fn push_small(&mut self, head: Head, content: &[u8]) {
        self.data.extend_from_slice(content);
        self.push(head, Content::Small(content.len()));
    }

    /// Reads `size` bytes, for a [`Content::Small`] that is pushed next; false where there are fewer.
    pub(super) fn read(&mut self, file: &File, size: usize) -> io::Result<bool> {
        let start = self.data.len();
        self.data.resize(start + size, 0);
        let mut end = start;
        while end < self.data.len() {
            match rustix::io::read(file, &mut self.data[end..]) {
                Ok(0) => return Ok(false),
                Ok(count) => end += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(true)
    }

    /// Writes all entries, of the layer in the directory `root`.
    pub(super) fn write<W: Write>(self, tar: &mut TarWriter<W>, root: &Path) -> Result<(), Error> {
        let mut data = &self.data[..];
        for (head, content) in self.entries {
            let entry = |kind| head.entry(kind);
            match content {
                Content::Small(size) => {
                    let (bytes, rest) = data.split_at(size);
                    data = rest;
                    tar.small_file(&entry(EntryKind::File(size as u64)), bytes)?;
                }
                Content::Large(mut file, size) => match tar.file(&entry(EntryKind::File(size)), &mut file) {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => return Err(Error::Changed { path: head.path }),
                    Ok(Err(error)) => return Err(error),
                    Err(source) => return Err(Error::Entry { action: "read", path: head.path, root: root.to_owned(), source }),
                },
                Content::Directory => tar.entry(&entry(EntryKind::Directory))?,
                Content::Symlink(target) => tar.entry(&entry(EntryKind::Symlink(&target)))?,
                Content::HardLink(first) => tar.entry(&entry(EntryKind::HardLink(&first.as_bytes()[1..])))?,
                Content::CharDevice(major, minor) => tar.entry(&entry(EntryKind::CharDevice(major, minor)))?,
                Content::BlockDevice(major, minor) => tar.entry(&entry(EntryKind::BlockDevice(major, minor)))?,
                Content::Fifo => tar.entry(&entry(EntryKind::Fifo))?,
            }
        }
        Ok(())
    }
}
