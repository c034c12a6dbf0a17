//! ADD of a plain tar archive whose entries do not get in each other's way.
//!
//! An archive may replace what it made before, link to it, or lead names through links that it made: so entries are made in its order ([`super::add_archive`]).
//! Most archives do nothing of that kind, and then it does not matter in which order they are unpacked. That of the layer's stream is chosen, with each file read
//! from where it stands in the archive: so several threads share the work, and the diff ID comes out on the way, as when a directory is copied.
//!
//! The archive is read twice for that, first for its headers, so it must be neither compressed nor large; and it must have the destination to itself. What makes a
//! plan impossible, a mistake in the archive included, is left to [`super::add_archive`].

use std::cmp::Ordering;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering as AtomicOrdering};

use super::add_archive::{MAX_HEADER, entry_path};
use super::crew;
use super::error::Error;
use super::layer_diff::LayerDiff;
use super::upper::{Attributes, Existing, Over, Upper, UpperDir};
use crate::image::layer::{Compression, DirectoryHead, Error as LayerError, LayerEntries, Member, MemberKind, TarReader, sniff};
use crate::path::RootPath;
use crate::store::write_all;

/// A larger archive is not read twice.
const MAX_ARCHIVE: u64 = 256 << 20;
/// What is remembered of an archive: this many entries, each less deep than this, since each directory on the way is open.
const MAX_ENTRIES: usize = 200_000;
const MAX_DEPTH: usize = 64;
/// How many bytes the names of links and the attributes may take in all.
const MAX_EXTRAS: usize = 16 << 20;

/// How many entries make one piece, and of how many directories they may be: each is open.
const PIECE: usize = 64;
const PIECE_DIRECTORIES: usize = 16;
/// How much content of one piece is kept for the diff ID, in bytes.
const PIECE_CONTENT: usize = 4 << 20;
/// From how many pieces on a second thread is worth its start.
const HELP_FROM: usize = 4;
/// How much of a larger file is moved at once.
const CHUNK: usize = 256 << 10;

/// What an archive makes, in the order of a layer's stream.
pub(super) struct Plan {
    entries: Vec<Planned>,
    /// How many entries the archive has.
    pub(super) members: u64,
    /// How many bytes its files have.
    pub(super) bytes: u64,
}

struct Planned {
    path: RootPath,
    what: What,
    attributes: Attributes,
}

enum What {
    Directory,
    /// So many bytes, from there on in the archive.
    File {
        at: u64,
        size: u64,
    },
    Symlink(OsString),
}

impl Plan {
    /// Reads what `archive` makes in the directory `root`, if it can be told before it is made. Directories that no entry describes become as `implied`.
    pub(super) fn read(archive: &File, root: &RootPath, implied: &Attributes, attributes: impl Fn(&Member) -> Attributes) -> Option<Plan> {
        let metadata = archive.metadata().ok()?;
        let mut start = [0; 8];
        archive.read_exact_at(&mut start, 0).ok()?;
        if !metadata.is_file() || metadata.len() > MAX_ARCHIVE || sniff(&start) != Compression::Uncompressed {
            return None;
        }
        let mut reader = TarReader::unhashed(archive, MAX_HEADER);
        let (mut entries, mut members, mut bytes, mut extras) = (Vec::new(), 0, 0, 0);
        while let Some(member) = reader.next().ok()? {
            members += 1;
            let path = entry_path(&member.name);
            if path.is_root() {
                continue;
            }
            let attributes = attributes(&member);
            extras += member.link.len() + attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            let what = match member.kind {
                MemberKind::Directory => What::Directory,
                MemberKind::File if member.sparse.is_none() => What::File { at: reader.position(), size: member.size },
                MemberKind::Symlink => What::Symlink(OsString::from_vec(member.link)),
                _ => return None,
            };
            if entries.len() >= MAX_ENTRIES || extras > MAX_EXTRAS || path.components().count() > MAX_DEPTH {
                return None;
            }
            bytes += if let What::File { size, .. } = what { size } else { 0 };
            entries.push(Planned { path: root.join(path.relative()), what, attributes });
        }
        Some(Plan { entries: in_order(entries, root, implied)?, members, bytes })
    }

    /// Makes all of it in the directory `root`, which is empty and above nothing. `diff` is told of it from the batch 1 on.
    pub(super) fn unpack(self, upper: &Upper<'_>, root: &Arc<UpperDir>, archive: &File, diff: Option<&LayerDiff>) -> Result<(), Error> {
        let cut = AtomicUsize::new(0);
        let work = Work { upper, archive, diff };
        let (mut entries, mut open) = (self.entries.into_iter(), vec![Arc::clone(root)]);
        let next = || {
            let number = cut.fetch_add(1, AtomicOrdering::Relaxed) + 1;
            (!entries.as_slice().is_empty()).then(|| work.piece(number, &mut entries, &mut open))
        };
        crew::run(next, |piece| work.run(piece), || cut.load(AtomicOrdering::Relaxed) >= HELP_FROM)?;
        Ok(())
    }
}

/// The entries in the order of a layer's stream, with the directories that they imply; `None` where one is in another's way.
fn in_order(mut entries: Vec<Planned>, root: &RootPath, implied: &Attributes) -> Option<Vec<Planned>> {
    // Of several entries of one name, the order of the archive stays.
    entries.sort_by(|a, b| stream_order(&a.path, &b.path));
    let mut ordered: Vec<Planned> = Vec::with_capacity(entries.len());
    let mut above = vec![root.clone()];
    for entry in entries {
        if let Some(last) = ordered.last_mut().filter(|last| last.path == entry.path) {
            match (&last.what, &entry.what) {
                (What::Directory, What::Directory) => last.attributes = entry.attributes,
                _ => return None,
            }
            continue;
        }
        // What is below something else than a directory comes directly behind it.
        if ordered.last().is_some_and(|last| !matches!(last.what, What::Directory) && entry.path.starts_with(&last.path)) {
            return None;
        }
        while above.last().is_some_and(|directory| !entry.path.starts_with(directory)) {
            above.pop();
        }
        let depth = above.last()?.components().count();
        let parent = entry.path.parent()?;
        for name in parent.components().skip(depth) {
            let path = above.last()?.join(name);
            above.push(path.clone());
            ordered.push(Planned { path, what: What::Directory, attributes: implied.clone() });
        }
        if matches!(entry.what, What::Directory) {
            above.push(entry.path.clone());
        }
        ordered.push(entry);
    }
    Some(ordered)
}

/// Each directory before what is in it, and in it by the bytes of names: a slash comes before every byte of a name.
fn stream_order(a: &RootPath, b: &RootPath) -> Ordering {
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 };
    a.as_bytes().iter().map(rank).cmp(b.as_bytes().iter().map(rank))
}

/// Entries that come one after the other in the stream.
struct Piece {
    number: usize,
    parts: Vec<Part>,
}

enum Part {
    /// A directory that was made, and what it will be.
    Directory(RootPath, Option<DirectoryHead>),
    /// Something else, to be made in this directory.
    Entry(Arc<UpperDir>, Planned),
}

struct Work<'a> {
    upper: &'a Upper<'a>,
    archive: &'a File,
    diff: Option<&'a LayerDiff>,
}

impl Work<'_> {
    /// Cuts the next piece; makes the directories on the way. `open` has those on the way to the entry before.
    fn piece(&self, number: usize, entries: &mut std::vec::IntoIter<Planned>, open: &mut Vec<Arc<UpperDir>>) -> Result<Piece, Error> {
        let (mut parts, mut directories) = (Vec::with_capacity(PIECE), 0);
        while parts.len() < PIECE
            && directories < PIECE_DIRECTORIES
            && let Some(entry) = entries.next()
        {
            while open.len() > 1 && open.last().is_some_and(|directory| !entry.path.starts_with(directory.path())) {
                open.pop();
            }
            let Some(directory) = open.last() else { break };
            if !matches!(entry.what, What::Directory) {
                parts.push(Part::Entry(Arc::clone(directory), entry));
                continue;
            }
            directories += 1;
            let name = entry.path.file_name().unwrap_or_default();
            let made = self.upper.enter(directory, name, || Ok(entry.attributes), Existing::Overwrite)?;
            if self.diff.is_some() {
                parts.push(Part::Directory(made.path().clone(), made.promise(true)));
            }
            open.push(made);
        }
        Ok(Piece { number, parts })
    }

    /// Makes what is in a piece.
    fn run(&self, piece: Piece) -> Result<(), Error> {
        let keeps_content = self.diff.is_some_and(LayerDiff::wants_content);
        let mut made = if keeps_content { LayerEntries::with_content() } else { LayerEntries::default() };
        for part in piece.parts {
            match part {
                Part::Directory(path, Some(head)) => made.directory(path, head),
                Part::Directory(path, None) => made.unknown(path),
                Part::Entry(directory, entry) => self.make(&directory, entry, &mut made)?,
            }
        }
        if let Some(diff) = self.diff {
            diff.take(piece.number, made);
        }
        Ok(())
    }

    fn make(&self, directory: &UpperDir, entry: Planned, made: &mut LayerEntries) -> Result<(), Error> {
        let Planned { path, what, attributes } = entry;
        let name = path.file_name().unwrap_or_default();
        match what {
            What::Directory => {}
            What::Symlink(target) => {
                self.upper.symlink(directory, name, Over::Anything, &target, &attributes)?;
                made.other(path, false);
            }
            What::File { at, size } => {
                let fd = self.upper.create(directory, name, Over::Anything, attributes.mode)?;
                let is_small = size <= LayerEntries::MAX_FILE && attributes.xattrs.is_empty();
                if is_small && made.keeps_content() && made.content_size() < PIECE_CONTENT {
                    let content = made.content();
                    let start = content.len();
                    self.read(at, size, content)?;
                    write_all(&fd, content.get(start..).unwrap_or_default()).map_err(|error| directory.write_error(name, error))?;
                    self.upper.finish_file(directory, name, &fd, &attributes)?;
                    made.file(path, &fd);
                } else {
                    self.copy(at, size, (directory, name), &fd)?;
                    self.upper.finish_file(directory, name, &fd, &attributes)?;
                    made.other(path, true);
                }
            }
        }
        Ok(())
    }

    /// Appends `size` bytes of the archive from `at` on to `content`.
    fn read(&self, at: u64, size: u64, content: &mut Vec<u8>) -> Result<(), Error> {
        let start = content.len();
        content.resize(start + usize::try_from(size).unwrap_or_default(), 0);
        let read = self.archive.read_exact_at(&mut content[start..], at);
        read.map_err(|source| Error::ReadArchive { entries: 0, source: LayerError::Read { source } })
    }

    /// Writes so many bytes of the archive to a file.
    fn copy(&self, at: u64, size: u64, (directory, name): (&UpperDir, &OsStr), to: &OwnedFd) -> Result<(), Error> {
        let mut buffer = Vec::new();
        let mut done = 0;
        while done < size {
            let count = (size - done).min(CHUNK as u64);
            buffer.clear();
            self.read(at + done, count, &mut buffer)?;
            write_all(to, &buffer).map_err(|error| directory.write_error(name, error))?;
            done += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::ops::upper::Mtime;

    fn attributes(mode: u32) -> Attributes {
        Attributes { mode, uid: 0, gid: 0, mtime: Mtime::Now, xattrs: Vec::new() }
    }

    /// The order of names, each with its mode; a name that ends in a slash is a directory.
    fn order(names: &[&str]) -> Option<Vec<String>> {
        let entry = |(at, name): (usize, &&str)| Planned {
            path: RootPath::new(name),
            what: if name.ends_with('/') { What::Directory } else { What::File { at: 0, size: 0 } },
            attributes: attributes(at as u32 + 1),
        };
        let ordered = in_order(names.iter().enumerate().map(entry).collect(), &RootPath::root(), &attributes(0))?;
        Some(ordered.iter().map(|entry| format!("{} {}", entry.path, entry.attributes.mode)).collect())
    }

    #[test]
    fn entries_are_put_in_the_order_of_a_stream_with_the_directories_that_they_imply() {
        assert_eq!(order(&["b/d/f", "b-", "b/c", "a"]).unwrap(), ["/a 4", "/b 0", "/b/c 3", "/b/d 0", "/b/d/f 1", "/b- 2"]);
        assert_eq!(order(&["d/f", "d/", "d/e/", "d/"]).unwrap(), ["/d 4", "/d/e 3", "/d/f 1"], "the last entry of a directory counts");
        assert_eq!(order(&[]).unwrap(), [""; 0]);
    }

    #[test]
    fn what_replaces_something_cannot_be_planned() {
        for names in [&["f", "f"][..], &["f", "f/g"], &["f/g", "f"], &["f/", "f"], &["f", "f/"], &["a/f", "a/f/b/c"]] {
            assert_eq!(order(names), None, "{names:?}");
        }
        assert!(order(&["f", "f-", "f.d/g"]).is_some());
    }
}
