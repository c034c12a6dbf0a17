//! What a copied tree was like: its inodes with their times of change, where its directories were, and which names shared a file.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Stat, StatxFlags};

use super::entry::{ctime, is_directory, names, open_directory, open_top, stat};
use super::failed;
use crate::path::RootPath;
use crate::store::Error;

/// What is remembered of a tree. A file that still has its inode and its time of change has not been written, renamed or linked since.
#[derive(Debug, Default)]
pub(super) struct Record {
    inodes: HashMap<u64, (i64, i64)>,
    /// By path the inode and the time of birth: numbers of inodes are given out again.
    directories: HashMap<RootPath, (u64, (i64, i64))>,
    links: HashMap<u64, Vec<RootPath>>,
    /// Mount points that were put there.
    pub(super) stubs: HashSet<RootPath>,
    /// Devices that the layers have and the tree has not.
    pub(super) absent: HashSet<RootPath>,
    latest: (i64, i64),
}

impl Record {
    /// Walks a tree.
    pub(super) fn of(root: &Path) -> Result<Record, Error> {
        let mut record = Record::default();
        let mut levels = Vec::new();
        let failed = |path: &RootPath| failed("read", root, path);
        let top = open_top(root).map_err(failed(&RootPath::root()))?;
        record.note_directory(&RootPath::root(), &top).map_err(failed(&RootPath::root()))?;
        levels.push((RootPath::root(), names(&top).map_err(failed(&RootPath::root()))?, top));
        while let Some((path, left, fd)) = levels.last_mut() {
            let Some(name) = left.pop() else {
                levels.pop();
                continue;
            };
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            let found = stat(&*fd, &name).map_err(failed(&path))?;
            if !is_directory(&found) {
                record.note(&path, &found);
            } else {
                let fd = open_directory(&*fd, &name).map_err(failed(&path))?;
                record.note_directory(&path, &fd).map_err(failed(&path))?;
                levels.push((path.clone(), names(&fd).map_err(failed(&path))?, fd));
            }
        }
        record.complete();
        Ok(record)
    }

    /// Remembers an entry that is no directory.
    pub(super) fn note(&mut self, path: &RootPath, stat: &Stat) {
        self.note_inode(stat);
        if stat.st_nlink > 1 {
            self.links.entry(stat.st_ino).or_default().push(path.clone());
        }
    }

    /// Remembers what an entry is like, wherever it is.
    pub(super) fn note_inode(&mut self, stat: &Stat) {
        self.latest = self.latest.max(ctime(stat));
        self.inodes.insert(stat.st_ino, ctime(stat));
    }

    /// Remembers a directory.
    pub(super) fn note_directory(&mut self, path: &RootPath, directory: &OwnedFd) -> io::Result<()> {
        let stat = rustix::fs::fstat(directory)?;
        self.note_inode(&stat);
        self.directories.insert(path.clone(), (stat.st_ino, birth(directory)));
        Ok(())
    }

    /// Forgets of files whose other names are elsewhere that they have several.
    pub(super) fn complete(&mut self) {
        self.links.retain(|_, names| names.len() > 1);
    }

    /// The latest time of change of all.
    pub(super) fn latest(&self) -> (i64, i64) {
        self.latest
    }

    /// Whether an entry is one that was there, and is as it was.
    pub(super) fn is_unchanged(&self, stat: &Stat) -> bool {
        self.inodes.get(&stat.st_ino) == Some(&ctime(stat))
    }

    /// Whether the directory at `path` is the one that was there.
    pub(super) fn is_same_directory(&self, path: &RootPath, stat: &Stat, directory: &OwnedFd) -> bool {
        self.directories.get(path).is_some_and(|(inode, born)| *inode == stat.st_ino && *born == birth(directory))
    }

    /// The names that shared the file; none where it had one.
    pub(super) fn names_of(&self, stat: &Stat) -> &[RootPath] {
        self.links.get(&stat.st_ino).map_or(&[], Vec::as_slice)
    }

    /// All of it, for [`Record::from_bytes`].
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Writer(Vec::new());
        out.number(self.inodes.len() as u64);
        for (inode, (seconds, nanoseconds)) in &self.inodes {
            [*inode, seconds.cast_unsigned(), nanoseconds.cast_unsigned()].into_iter().for_each(|number| out.number(number));
        }
        out.number(self.directories.len() as u64);
        for (path, (inode, (seconds, nanoseconds))) in &self.directories {
            out.path(path);
            [*inode, seconds.cast_unsigned(), nanoseconds.cast_unsigned()].into_iter().for_each(|number| out.number(number));
        }
        out.number(self.links.len() as u64);
        for (inode, names) in &self.links {
            out.number(*inode);
            out.paths(names.iter(), names.len());
        }
        out.paths(self.stubs.iter(), self.stubs.len());
        out.paths(self.absent.iter(), self.absent.len());
        out.0
    }

    /// Reads what [`Record::to_bytes`] gave; `None` for anything else.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Record> {
        let mut from = Reader(bytes);
        let mut record = Record::default();
        for _ in 0..from.number()? {
            let (inode, time) = (from.number()?, (from.number()?.cast_signed(), from.number()?.cast_signed()));
            record.latest = record.latest.max(time);
            record.inodes.insert(inode, time);
        }
        for _ in 0..from.number()? {
            let path = from.path()?;
            let (inode, born) = (from.number()?, (from.number()?.cast_signed(), from.number()?.cast_signed()));
            record.directories.insert(path, (inode, born));
        }
        for _ in 0..from.number()? {
            let inode = from.number()?;
            record.links.insert(inode, from.paths()?);
        }
        record.stubs = from.paths()?.into_iter().collect();
        record.absent = from.paths()?.into_iter().collect();
        from.0.is_empty().then_some(record)
    }
}

/// When a directory was made; the same for all where the file system does not tell. There one that took the place of another, and got its number again, passes for the same with all
/// its entries deleted: another layer, which makes the same tree.
fn birth(directory: &OwnedFd) -> (i64, i64) {
    let found = rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME);
    let known = found.ok().filter(|found| StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::BTIME));
    known.map_or((0, 0), |found| (found.stx_btime.tv_sec, i64::from(found.stx_btime.tv_nsec)))
}

/// Numbers of eight bytes, little-endian; a path is its length and its bytes.
struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn path(&mut self, path: &RootPath) {
        self.number(path.as_bytes().len() as u64);
        self.0.extend_from_slice(path.as_bytes());
    }

    fn paths<'a>(&mut self, paths: impl Iterator<Item = &'a RootPath>, count: usize) {
        self.number(count as u64);
        paths.for_each(|path| self.path(path));
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn path(&mut self) -> Option<RootPath> {
        let length = usize::try_from(self.number()?).ok()?;
        let (path, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(RootPath::new(OsStr::from_bytes(path)))
    }

    fn paths(&mut self) -> Option<Vec<RootPath>> {
        (0..self.number()?).map(|_| self.path()).collect()
    }
}
