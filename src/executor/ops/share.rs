//! Shares the files of a COPY that is made again with its earlier snapshot, instead of copying what did not change.
//!
//! Beside its files, a snapshot has a list of them: the content that each was copied from, by the hash of its path. A file that has the same content now, and
//! would get the mode, owner and time that it has there, becomes the same file: a reflink where the file system has them, a hard link otherwise. Committed
//! snapshots are never written, and overlayfs copies a file before it writes to it, so nobody can tell.
//!
//! Content is known by the checksums of the build's cache keys, so nothing is read for this. Files with several names are left alone: a file has the same
//! one path in every layer that it is in, and whoever looks for hard links by inode finds only those that are meant. What cannot be shared, for whatever
//! reason, is copied.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::error::Error;
use super::upper::{Attributes, Mtime, Over, Upper, UpperDir};
use crate::context::{ChecksumMemo, FileStamp};
use crate::path::RootPath;
use crate::sys::tree::Metadata;
use crate::sys::{Links, RootDir, inode, owner};

/// Starts every list.
const HEADER: &[u8] = b"strake sources 1\n";

/// From how many files or bytes on a list is worth writing.
const WORTH_FILES: usize = 32;
const WORTH_BYTES: u64 = 4 << 20;

/// How many files a list may have: more would take too much memory.
const MAX_FILES: usize = 500_000;

/// The beginning of the hash of a path in the layer, and the checksum of the content that was copied there.
type Record = ([u8; 16], [u8; 32]);
const RECORD: usize = 48;

/// What one COPY shares, and what the next one may share with it.
pub struct Sharing<'a> {
    memo: &'a dyn ChecksumMemo,
    earlier: Option<Earlier>,
    made: Mutex<Vec<Record>>,
}

/// The snapshot that the same instruction made before.
struct Earlier {
    root: RootDir,
    /// Sorted.
    records: Vec<Record>,
    /// The directory that was asked for last: files come in the order of directories.
    last: Mutex<Option<(RootPath, Option<Arc<OwnedFd>>)>>,
    no_reflinks: AtomicBool,
}

impl<'a> Sharing<'a> {
    /// Shares with nothing yet. `memo` knows what files hold.
    pub fn new(memo: &'a dyn ChecksumMemo) -> Sharing<'a> {
        Sharing { memo, earlier: None, made: Mutex::default() }
    }

    /// Shares with the snapshot whose files are in `root` and whose list is `list`. One that cannot be read is none.
    pub fn with(mut self, root: &Path, list: &Path) -> Sharing<'a> {
        let records = std::fs::read(list).ok().and_then(|bytes| parse(&bytes));
        self.earlier = records.and_then(|records| {
            let root = RootDir::open(root).ok()?;
            Some(Earlier { root, records, last: Mutex::default(), no_reflinks: AtomicBool::new(false) })
        });
        self
    }

    /// What the file with these metadata holds, where that is known and may be shared.
    pub(super) fn content(&self, metadata: &Metadata) -> Option<[u8; 32]> {
        if metadata.nlink != 1 {
            return None;
        }
        self.memo.known(&FileStamp::of(metadata)?)
    }

    /// Makes `name` in `directory` the earlier snapshot's file of this content; false where there is none such.
    pub(super) fn share(
        &self,
        upper: &Upper<'_>,
        directory: &UpperDir,
        name: &OsStr,
        (content, size): (&[u8; 32], u64),
        attributes: &Attributes,
    ) -> Result<bool, Error> {
        let Some(earlier) = &self.earlier else { return Ok(false) };
        let record = (hash_of(&directory.path().join(name)), *content);
        if earlier.records.binary_search(&record).is_err() {
            return Ok(false);
        }
        let Some(from) = earlier.directory(directory.path()) else { return Ok(false) };
        if !is_same(&from, name, size, attributes) {
            return Ok(false);
        }
        let shared = earlier.reflink(&from, upper, directory, name, attributes)? || link(&from, upper, directory, name)?;
        if shared {
            self.made().push(record);
        }
        Ok(shared)
    }

    /// Notes that the file at `path` was copied from this content.
    pub(super) fn copied(&self, path: &RootPath, content: [u8; 32]) {
        self.made().push((hash_of(path), content));
    }

    /// Writes the list of what was made, where it is worth it.
    pub fn write(self, list: &Path, bytes: u64) -> io::Result<()> {
        let mut records = self.made.into_inner().unwrap_or_else(PoisonError::into_inner);
        if (records.len() < WORTH_FILES && bytes < WORTH_BYTES) || records.len() > MAX_FILES || records.is_empty() {
            return Ok(());
        }
        records.sort_unstable();
        // Of two sources for one path the later won, and which that was is not known here.
        let twice = |at: usize| records.get(at).map(|record| record.0);
        let keep = |at: usize| twice(at) != twice(at + 1) && (at == 0 || twice(at) != twice(at - 1));
        let mut out = Vec::with_capacity(HEADER.len() + records.len() * RECORD);
        out.extend_from_slice(HEADER);
        for (path, content) in (0..records.len()).filter(|at| keep(*at)).filter_map(|at| records.get(at)) {
            out.extend_from_slice(path);
            out.extend_from_slice(content);
        }
        std::fs::write(list, out)
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Vec<Record>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash_of(path: &RootPath) -> [u8; 16] {
    let hash = blake3::hash(path.as_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hash.as_bytes()[..16]);
    short
}

/// Reads a list; `None` if it is none.
fn parse(bytes: &[u8]) -> Option<Vec<Record>> {
    let (records, rest) = bytes.strip_prefix(HEADER)?.as_chunks::<RECORD>();
    if !rest.is_empty() || records.len() > MAX_FILES {
        return None;
    }
    let read = |record: &[u8; RECORD]| Some((*record.first_chunk()?, *record.last_chunk()?));
    let records: Vec<Record> = records.iter().filter_map(read).collect();
    records.is_sorted().then_some(records)
}

impl Earlier {
    fn directory(&self, path: &RootPath) -> Option<Arc<OwnedFd>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, fd)) = &*last
            && known == path
        {
            return fd.clone();
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = self.root.open_at(path.relative(), flags, Mode::empty(), Links::Refuse).ok().map(Arc::new);
        *last = Some((path.clone(), fd.clone()));
        fd
    }

    fn reflink(
        &self,
        from: &OwnedFd,
        upper: &Upper<'_>,
        directory: &UpperDir,
        name: &OsStr,
        attributes: &Attributes,
    ) -> Result<bool, Error> {
        if self.no_reflinks.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(from, name, flags, Mode::empty()) else { return Ok(false) };
        let Ok(xattrs) = inode::xattrs_of(&file) else { return Ok(false) };
        let to = upper.create(directory, name, Over::Files, attributes.mode)?;
        if rustix::fs::ioctl_ficlone(&to, &file).is_err() {
            // The empty file is replaced by what comes next.
            self.no_reflinks.store(true, Ordering::Relaxed);
            return Ok(false);
        }
        upper.finish_file(directory, name, &to, &Attributes { xattrs, ..attributes.clone() })?;
        Ok(true)
    }
}

/// Whether `name` in `directory` is a file of this size with these attributes.
fn is_same(directory: &OwnedFd, name: &OsStr, size: u64, attributes: &Attributes) -> bool {
    let Ok(stat) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { return false };
    let Mtime::At((seconds, nanoseconds)) = attributes.mtime else { return false };
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && u64::try_from(stat.st_size) == Ok(size)
        && stat.st_mode & 0o7777 == attributes.mode
        && owner::of(&stat) == (attributes.uid, attributes.gid)
        && (stat.st_mtime, i64::try_from(stat.st_mtime_nsec)) == (seconds, Ok(i64::from(nanoseconds)))
}

/// Makes `name` in `directory` another name of the one in `from`, where the file system allows it: it may have too many names already.
fn link(from: &OwnedFd, upper: &Upper<'_>, directory: &UpperDir, name: &OsStr) -> Result<bool, Error> {
    upper.place(directory, name, Over::Files, |fd| match rustix::fs::linkat(from, name, fd, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(error @ (Errno::EXIST | Errno::INTR)) => Err(error),
        Err(_) => Ok(false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_list_is_none() {
        let record = [7; RECORD];
        let whole = [HEADER, &record].concat();
        assert_eq!(parse(&whole), Some(vec![([7; 16], [7; 32])]));
        assert_eq!(parse(&whole[..whole.len() - 1]), None);
        assert_eq!(parse(b"something else\n"), None);
        assert_eq!(parse(&[HEADER, &[9; RECORD][..], &record].concat()), None, "not sorted");
    }
}
