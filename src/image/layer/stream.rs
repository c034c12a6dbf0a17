//! The diff ID of a layer while it is being written, from what its writer has in hand.
//!
//! Whoever writes a layer in the order of its tar stream (each directory before what is in it, and in it by the bytes of names) tells what was written in
//! batches, [`LayerEntries`], and gives the bytes of small new files along. [`LayerStream`] hashes those instead of reading them again. What the writer is
//! not sure of, because the layers below have something there or because it was not written by itself, is looked at on the disk, by the same rules and the
//! same code as when a finished layer is read ([`write_layer`](super::write_layer)). So the result is the same, or there is none.
//!
//! Of a directory the writer says what it will be in the end, and keeps its word or throws the result away.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use crate::oci::DiffId;
use crate::path::RootPath;
use crate::store::view::LayerStack;
use crate::sys::xattr;

use super::Error;
use super::diff::{Differ, LayerOptions, LayerWritten, in_layers};
use super::record::{Head, SMALL};
use super::tar_writer::{EntryKind, TarWriter};

/// Entries of a layer, in the order of its stream.
#[derive(Debug, Default)]
pub struct LayerEntries {
    entries: Vec<Made>,
    data: Vec<u8>,
    /// Where in `data` the content begins that belongs to no entry yet.
    open: usize,
    keeps_content: bool,
}

#[derive(Debug)]
enum Made {
    Directory(Head),
    /// A file that nothing below has, whose bytes, this many, come next in the batch.
    File(Head, usize),
    /// To be looked at.
    Other(RootPath, FileType),
    /// Something that only the finished layer tells.
    Unknown(RootPath),
}

/// What a directory will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryHead {
    /// Its permission bits, at most 0o7777.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was modified: whole seconds since the epoch.
    pub mtime: i64,
    /// Its extended attributes.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

impl LayerEntries {
    /// The largest file whose content is taken along.
    pub const MAX_FILE: u64 = SMALL;

    /// A batch that takes the content of small files along. [`LayerEntries::default`] is one that does not.
    pub fn with_content() -> LayerEntries {
        LayerEntries { keeps_content: true, ..LayerEntries::default() }
    }

    /// Whether it takes the content of small files along.
    pub fn keeps_content(&self) -> bool {
        self.keeps_content
    }

    /// How much content it has, in bytes.
    pub fn content_size(&self) -> usize {
        self.data.len()
    }

    /// Adds the directory `path`.
    pub fn directory(&mut self, path: RootPath, head: DirectoryHead) {
        let DirectoryHead { mode, uid, gid, mtime, xattrs } = head;
        let carried = xattrs.into_iter().filter(|(name, _)| in_layers(name.as_bytes()));
        let mut xattrs: Vec<_> = carried.map(|(name, value)| (name.as_bytes().to_vec(), value)).collect();
        xattrs.sort_unstable();
        self.entries.push(Made::Directory(Head { path, mode, uid, gid, mtime, xattrs }));
    }

    /// Where the content of the next file goes: bytes are appended, and [`LayerEntries::file`] or [`LayerEntries::other`] is called then.
    pub fn content(&mut self) -> &mut Vec<u8> {
        self.open = self.data.len();
        &mut self.data
    }

    /// Adds the new file `path`, open as `file` and finished, with the content that was just appended; nothing below has this name, and it has no extended attributes.
    pub fn file(&mut self, path: RootPath, file: impl AsFd) {
        let size = self.data.len() - self.open;
        match rustix::fs::fstat(file) {
            Ok(stat) if is_file_of(&stat, size) => self.entries.push(Made::File(Head::new(&path, &stat, Vec::new(), None), size)),
            _ => self.other(path, true),
        }
        self.open = self.data.len();
    }

    /// Adds something that is no directory, perhaps a regular file, which has to be looked at. Content that was appended for it is forgotten.
    pub fn other(&mut self, path: RootPath, is_file: bool) {
        self.data.truncate(self.open);
        self.entries.push(Made::Other(path, if is_file { FileType::RegularFile } else { FileType::Unknown }));
    }

    /// Adds something of which the stream can only be made when the layer is finished.
    pub fn unknown(&mut self, path: RootPath) {
        self.entries.push(Made::Unknown(path));
    }

    /// Adds the file `name` in `directory`, which is `path` in the layer and that nothing below has, and reads it if it is small.
    pub fn existing_file(&mut self, path: RootPath, directory: impl AsFd, name: &OsStr) {
        self.open = self.data.len();
        match self.read_back(&path, directory, name) {
            Ok(Some((head, size))) => self.entries.push(Made::File(head, size)),
            // Whoever looks at it will say what is wrong.
            Ok(None) | Err(_) => self.other(path, true),
        }
        self.open = self.data.len();
    }

    fn read_back(&mut self, path: &RootPath, directory: impl AsFd, name: &OsStr) -> io::Result<Option<(Head, usize)>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?);
        let stat = rustix::fs::fstat(&file)?;
        let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
        if size as u64 > SMALL || !is_file_of(&stat, size) || xattr::list_open(&file)?.iter().any(|name| in_layers(name.as_bytes())) {
            return Ok(None);
        }
        let end = self.open + size;
        self.data.resize(end, 0);
        let mut at = self.open;
        while at < end {
            match rustix::io::read(&file, &mut self.data[at..]) {
                Ok(0) => return Ok(None),
                Ok(count) => at += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Some((Head::new(path, &stat, Vec::new(), None), size)))
    }
}

fn is_file_of(stat: &rustix::fs::Stat, size: usize) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && u64::try_from(stat.st_size) == Ok(size as u64)
}

/// A layer's stream, of which only the digest and the length are kept.
pub struct LayerStream {
    differ: Differ,
    tar: TarWriter<io::Sink>,
    layer: PathBuf,
    latest_time: Option<i64>,
}

impl LayerStream {
    /// Begins with the layer in the directory `layer`, which is empty yet, above `lower`.
    pub fn open(layer: &Path, lower: &LayerStack, options: &LayerOptions) -> Result<LayerStream, Error> {
        let differ = Differ::open_growing(layer, lower, options)?;
        Ok(LayerStream {
            differ,
            tar: TarWriter::new(io::sink(), options.algorithm),
            layer: layer.to_owned(),
            latest_time: options.latest_time,
        })
    }

    /// Goes on with what was written next. After an error there is no result.
    pub fn write(&mut self, entries: LayerEntries) -> Result<(), Error> {
        let mut data = &entries.data[..];
        for made in entries.entries {
            match made {
                Made::Directory(mut head) => {
                    self.begin(&head.path)?;
                    self.limit(&mut head);
                    self.differ.enter(head)?;
                }
                Made::File(mut head, size) => {
                    let (content, rest) = data.split_at(size);
                    data = rest;
                    self.begin(&head.path)?;
                    self.limit(&mut head);
                    self.differ.note_pending();
                    self.flush()?;
                    self.tar.small_file(&head.entry(EntryKind::File(size as u64)), content)?;
                }
                Made::Other(path, kind) => {
                    self.begin(&path)?;
                    self.differ.visit_path(path, kind)?;
                    self.flush()?;
                }
                Made::Unknown(path) => return Err(Error::Changed { path }),
            }
        }
        self.flush()
    }

    /// Ends the stream.
    pub fn finish(self) -> Result<LayerWritten, Error> {
        let (digest, size, entries) = self.tar.finish()?;
        Ok(LayerWritten { diff_id: DiffId::new(digest), size, entries })
    }

    fn begin(&mut self, path: &RootPath) -> Result<(), Error> {
        if path.file_name().is_none_or(|name| name.as_bytes().starts_with(b".wh.")) {
            return Err(Error::ReservedName { path: path.clone() });
        }
        self.differ.go_to(path);
        Ok(())
    }

    fn limit(&self, head: &mut Head) {
        head.mtime = self.latest_time.map_or(head.mtime, |latest| head.mtime.min(latest));
    }

    fn flush(&mut self) -> Result<(), Error> {
        let batch = self.differ.take_batch();
        if batch.is_empty() { Ok(()) } else { batch.write(&mut self.tar, &self.layer) }
    }
}
