//! What the cache compares of a selection of a tree.
//!
//! | an entry counts by | and not by |
//! |---|---|
//! | its name below the selection, kind, mode, owner and group | times, inode, number of links |
//! | a file's content, size and attributes (`security.capability`, and all outside of `security.` and `system.`) | a directory's or link's size |
//! | a link's target, a device's numbers | a link's mode |
//!
//! The content of a file is remembered by what `stat(2)` says of it ([`FileStamp`]), together with its attributes, whose change moves `ctime` too. As in git,
//! a file that was touched just before it is hashed is not remembered: it could change again without a change of its times.
//!
//! A large tree is listed by several threads, level by level: an unchanged context costs little else.
//!
//! Changing what is hashed invalidates users' caches, so count [`VERSION`] up.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering as Memory};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::path::RootPath;
use crate::sys::inode;
use crate::sys::tree::{Kind, Metadata, Tree};

use super::error::Error;

/// Starts every checksum.
const VERSION: &[u8] = b"strake tree 1\0";

/// How old the times of a file have to be for its content to be remembered: the coarsest clock of a file system (FAT) counts in two seconds.
const SETTLED_SECONDS: i64 = 2;

/// How much of a file is read at once.
const BUFFER: usize = 256 * 1024;

/// From how many bytes or files on hashing is worth more than one thread.
const PARALLEL_BYTES: u64 = 4 << 20;
const PARALLEL_FILES: usize = 128;

/// From how many directories of one level on they are listed by several threads.
const PARALLEL_DIRECTORIES: usize = 16;

/// How many threads work at most.
const MAX_THREADS: usize = 16;

/// What `stat(2)` says of a regular file, by which its content is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileStamp {
    /// The device.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
    /// The size in bytes.
    pub size: u64,
    /// Last modification: seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    /// Last change of the inode: seconds and nanoseconds since the epoch.
    pub ctime: (i64, u32),
}

/// Remembers the digests of files from one build to the next.
///
/// [`checksum`] asks once for all files of a selection and tells once what it had to hash. A memo that has lost something answers `None`; it never fails.
pub trait ChecksumMemo: Send + Sync {
    /// The digests of these files, in order; `None` for what is not known.
    fn get_many(&self, stamps: &[FileStamp]) -> Vec<Option<[u8; 32]>>;

    /// Remembers the digests of these files.
    fn put_many(&self, digests: &[(FileStamp, [u8; 32])]);

    /// So many bytes were hashed because their digests were not known.
    fn hashed(&self, _bytes: u64) {}

    /// How many bytes that were in all, where they are counted.
    fn hashed_so_far(&self) -> u64 {
        0
    }

    /// The digest of a file that this build asked for, or told, before.
    fn known(&self, _stamp: &FileStamp) -> Option<[u8; 32]> {
        None
    }
}

/// A memo that keeps at hand what went through it, for [`ChecksumMemo::known`].
#[derive(Debug)]
pub struct SeenMemo<M> {
    inner: M,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    digests: Vec<(FileStamp, [u8; 32])>,
    /// Whoever asks first after something was added sorts them.
    sorted: bool,
}

impl<M> SeenMemo<M> {
    /// Keeps what goes through `inner`.
    pub fn new(inner: M) -> SeenMemo<M> {
        SeenMemo { inner, seen: Mutex::default() }
    }

    fn add(&self, digests: impl Iterator<Item = (FileStamp, [u8; 32])>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.digests.extend(digests);
        seen.sorted = false;
    }
}

impl<M: ChecksumMemo> ChecksumMemo for SeenMemo<M> {
    fn get_many(&self, stamps: &[FileStamp]) -> Vec<Option<[u8; 32]>> {
        let found = self.inner.get_many(stamps);
        self.add(stamps.iter().zip(&found).filter_map(|(stamp, digest)| Some((*stamp, (*digest)?))));
        found
    }

    fn put_many(&self, digests: &[(FileStamp, [u8; 32])]) {
        self.add(digests.iter().copied());
        self.inner.put_many(digests);
    }

    fn hashed(&self, bytes: u64) {
        self.inner.hashed(bytes);
    }

    fn hashed_so_far(&self) -> u64 {
        self.inner.hashed_so_far()
    }

    fn known(&self, stamp: &FileStamp) -> Option<[u8; 32]> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.sorted {
            seen.digests.sort_unstable();
            seen.digests.dedup();
            seen.sorted = true;
        }
        let at = seen.digests.binary_search_by(|(known, _)| known.cmp(stamp)).ok()?;
        seen.digests.get(at).map(|(_, digest)| *digest)
    }
}

/// Remembers nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMemo;

impl ChecksumMemo for NoMemo {
    fn get_many(&self, stamps: &[FileStamp]) -> Vec<Option<[u8; 32]>> {
        vec![None; stamps.len()]
    }

    fn put_many(&self, _digests: &[(FileStamp, [u8; 32])]) {}
}

/// Whether the entry that a selection names counts itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RootEntry {
    /// It does: mode and owner of a selected directory matter.
    #[default]
    Counts,
    /// A selected directory only stands for what is in it. Makes no difference for other kinds.
    ContentsOnly,
}

/// Says of a path in the tree whether it is selected; what is below a directory that is not, is not either.
pub type Filter<'a> = &'a (dyn Fn(&RootPath, Kind) -> bool + Sync);

/// What to select, and how to work.
#[derive(Clone, Copy, Default)]
pub struct ChecksumOptions<'a> {
    /// Leaves things out. Not asked about the root of the selection.
    pub filter: Option<Filter<'a>>,
    /// Whether the root of the selection counts.
    pub root: RootEntry,
    /// How many threads may hash files; 0 for one per processor.
    pub threads: usize,
}

/// The content of a selection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeChecksum {
    /// The digest of everything.
    pub digest: [u8; 32],
    /// The digest of each entry by its path in the tree, sorted by path.
    pub files: Vec<(RootPath, [u8; 32])>,
    /// What each of `files` is, in the same order, to tell what about it changed.
    pub facts: Vec<EntryFacts>,
}

/// What an entry is, apart from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryFacts {
    /// The letter of its kind: `f`, `d`, `l`, `c`, `b`, `p` or `s`.
    pub kind: char,
    /// Its mode; of links none.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The beginning of the digest of all else: content, target, numbers, attributes.
    pub content: [u8; 8],
}

/// A difference between two selections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is only in the new one.
    Added(RootPath),
    /// It is only in the old one.
    Removed(RootPath),
    /// It is not the same in both.
    Modified(RootPath),
}

struct Item {
    path: RootPath,
    metadata: Metadata,
    /// Of the content and attributes; regular files only.
    content: [u8; 32],
}

/// Computes the checksum of what is at `path` in `tree` and below. The names of links are not resolved.
pub fn checksum(tree: &dyn Tree, path: &RootPath, options: &ChecksumOptions<'_>, memo: &dyn ChecksumMemo) -> Result<TreeChecksum, Error> {
    let mut items = collect(tree, path, options)?;
    hash_contents(tree, &mut items, options.threads, memo)?;
    // A stable sort is linear where most is in order, as here.
    items.sort_by(|a, b| a.path.cmp(&b.path));
    let mut all = blake3::Hasher::new();
    all.update(VERSION);
    let mut files = Vec::with_capacity(items.len());
    let mut facts = Vec::with_capacity(items.len());
    let mut encoded = Vec::new();
    for item in items {
        let is_root = item.path == *path;
        if is_root && item.metadata.kind == Kind::Directory && options.root == RootEntry::ContentsOnly {
            continue;
        }
        encoded.clear();
        encode(tree, &item, &mut encoded)?;
        let digest = *blake3::hash(&encoded).as_bytes();
        let name = if is_root { &[][..] } else { relative(&item.path, path) };
        all.update(&(name.len() as u64).to_le_bytes());
        all.update(name);
        all.update(&digest);
        facts.push(EntryFacts::of(&item, &encoded));
        files.push((item.path, digest));
    }
    Ok(TreeChecksum { digest: *all.finalize().as_bytes(), files, facts })
}

impl EntryFacts {
    /// The facts of an entry that was written down as `encoded`.
    fn of(item: &Item, encoded: &[u8]) -> EntryFacts {
        let Metadata { mode, uid, gid, .. } = item.metadata;
        let start = |digest: &[u8; 32]| digest.first_chunk().copied().unwrap_or_default();
        let content = match item.metadata.kind {
            Kind::File => start(&item.content),
            _ => start(blake3::hash(encoded.get(ENCODED_OWNER..).unwrap_or_default()).as_bytes()),
        };
        let kind = encoded.first().copied().map_or('?', char::from);
        EntryFacts { kind, mode: if item.metadata.kind == Kind::Symlink { 0 } else { mode }, uid, gid, content }
    }
}

/// What changed from `old` to `new`, in the order of the paths. Both are sorted by path, as in [`TreeChecksum::files`].
pub fn diff(old: &[(RootPath, [u8; 32])], new: &[(RootPath, [u8; 32])]) -> Vec<Change> {
    let mut changes = Vec::new();
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.0.cmp(&new.0),
        };
        let before = if order.is_le() { old.next() } else { None };
        let after = if order.is_ge() { new.next() } else { None };
        match (before, after) {
            (Some((path, before)), Some((_, after))) if before != after => changes.push(Change::Modified(path.clone())),
            (Some((path, _)), None) => changes.push(Change::Removed(path.clone())),
            (None, Some((path, _))) => changes.push(Change::Added(path.clone())),
            _ => {}
        }
    }
}

fn relative<'a>(path: &'a RootPath, root: &RootPath) -> &'a [u8] {
    let skip = if root.is_root() { 1 } else { root.as_bytes().len() + 1 };
    path.as_bytes().get(skip..).unwrap_or_default()
}

/// All entries of the selection, almost sorted by path.
fn collect(tree: &dyn Tree, root: &RootPath, options: &ChecksumOptions<'_>) -> Result<Vec<Item>, Error> {
    let metadata = tree.metadata(root).map_err(|source| Error::Read { path: root.clone(), source })?;
    let metadata = metadata.ok_or_else(|| Error::Missing { path: root.clone() })?;
    let root = Item { path: root.clone(), metadata, content: [0; 32] };
    if root.metadata.kind != Kind::Directory {
        return Ok(vec![root]);
    }
    // The entries of each directory; directories are numbered level by level, and within one in the order in which they are met.
    let mut listings: Vec<Vec<Item>> = Vec::new();
    let mut level: Vec<RootPath> = vec![root.path.clone()];
    while !level.is_empty() {
        let found = list_all(tree, &level, options)?;
        let directories = found.iter().flatten().filter(|item| item.metadata.kind == Kind::Directory);
        level = directories.map(|item| item.path.clone()).collect();
        listings.extend(found);
    }
    Ok(in_order(root, listings))
}

/// Puts the entries of each directory behind it; no recursion, however deep the tree is.
fn in_order(root: Item, listings: Vec<Vec<Item>>) -> Vec<Item> {
    let mut items = Vec::with_capacity(1 + listings.iter().map(Vec::len).sum::<usize>());
    // The number of each directory's first subdirectory: they are numbered in the order of the listings.
    let mut next = 1;
    let mut listings: Vec<(usize, std::vec::IntoIter<Item>)> = listings
        .into_iter()
        .map(|listing| {
            let first = next;
            next += listing.iter().filter(|item| item.metadata.kind == Kind::Directory).count();
            (first, listing.into_iter())
        })
        .collect();
    items.push(root);
    let mut path = vec![0];
    while let Some(&directory) = path.last() {
        let (below, rest) = &mut listings[directory];
        let Some(item) = rest.next() else {
            path.pop();
            continue;
        };
        if item.metadata.kind == Kind::Directory {
            path.push(*below);
            *below += 1;
        }
        items.push(item);
    }
    items
}

/// Lists directories, several at once where there are many. Of several failures, the one of the first directory is reported.
fn list_all(tree: &dyn Tree, directories: &[RootPath], options: &ChecksumOptions<'_>) -> Result<Vec<Vec<Item>>, Error> {
    let threads = if directories.len() < PARALLEL_DIRECTORIES { 1 } else { threads(options.threads, directories.len()) };
    if threads == 1 {
        return directories.iter().map(|path| list(tree, path, options)).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(directories.len()));
    in_parallel(threads, &|| {
        let mut listed = Vec::new();
        while let index = next.fetch_add(1, Memory::Relaxed)
            && let Some(path) = directories.get(index)
        {
            listed.push((index, list(tree, path, options)));
        }
        done.lock().unwrap_or_else(PoisonError::into_inner).extend(listed);
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, listed)| listed).collect()
}

fn list(tree: &dyn Tree, directory: &RootPath, options: &ChecksumOptions<'_>) -> Result<Vec<Item>, Error> {
    let entries = tree.examine_dir(directory).map_err(|source| Error::Read { path: directory.clone(), source })?;
    let item = |(name, metadata): (OsString, Metadata)| Item { path: directory.join(&name), metadata, content: [0; 32] };
    let selected = |item: &Item| options.filter.is_none_or(|selects| selects(&item.path, item.metadata.kind));
    Ok(entries.into_iter().map(item).filter(selected).collect())
}

/// Runs `work` on several threads, one of them this. Where no thread can be made, this one does all of it.
fn in_parallel(threads: usize, work: &(dyn Fn() + Sync)) {
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if std::thread::Builder::new().name("checksum".to_owned()).spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
}

/// How many threads to use for so many pieces of work.
fn threads(wanted: usize, pieces: usize) -> usize {
    let wanted = if wanted == 0 { crate::task::parallelism() } else { wanted };
    wanted.clamp(1, MAX_THREADS).min(pieces.max(1))
}

/// Where kind, mode and owner end in what [`encode`] writes.
const ENCODED_OWNER: usize = 1 + 3 * 4;

/// Writes down what counts of an entry, apart from its name.
fn encode(tree: &dyn Tree, item: &Item, out: &mut Vec<u8>) -> Result<(), Error> {
    let metadata = &item.metadata;
    let read_error = |source| Error::Read { path: item.path.clone(), source };
    let kind = match metadata.kind {
        Kind::File => b'f',
        Kind::Directory => b'd',
        Kind::Symlink => b'l',
        Kind::CharDevice => b'c',
        Kind::BlockDevice => b'b',
        Kind::Fifo => b'p',
        Kind::Socket => b's',
    };
    out.push(kind);
    let mode = if metadata.kind == Kind::Symlink { 0 } else { metadata.mode };
    for number in [mode, metadata.uid, metadata.gid] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    match metadata.kind {
        Kind::File => {
            out.extend_from_slice(&metadata.size.to_le_bytes());
            out.extend_from_slice(&item.content);
            return Ok(());
        }
        Kind::Symlink => push_bytes(out, tree.read_link(&item.path).map_err(read_error)?.as_bytes()),
        Kind::CharDevice | Kind::BlockDevice => {
            out.extend_from_slice(&metadata.rdev.0.to_le_bytes());
            out.extend_from_slice(&metadata.rdev.1.to_le_bytes());
        }
        Kind::Directory | Kind::Fifo | Kind::Socket => {}
    }
    encode_attributes(tree.xattrs(&item.path).map_err(read_error)?, out);
    Ok(())
}

/// Writes down the attributes that count; returns whether there are any.
fn encode_attributes(attributes: Vec<(OsString, Vec<u8>)>, out: &mut Vec<u8>) -> bool {
    let before = out.len();
    for (name, value) in attributes {
        let name = name.as_bytes();
        if name == b"security.capability" || !(name.starts_with(b"security.") || name.starts_with(b"system.")) {
            push_bytes(out, name);
            push_bytes(out, &value);
        }
    }
    out.len() > before
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

impl FileStamp {
    /// The stamp of a regular file; `None` where its tree does not say which inode it is.
    pub fn of(metadata: &Metadata) -> Option<FileStamp> {
        let Metadata { dev, ino, size, mtime, ctime, .. } = *metadata;
        (metadata.kind == Kind::File && ino != 0).then_some(FileStamp { dev, ino, size, mtime, ctime })
    }

    /// The stamp of an open file.
    pub fn of_open(file: &File) -> io::Result<FileStamp> {
        let Metadata { dev, ino, size, mtime, ctime, .. } = inode::metadata(&rustix::fs::fstat(file)?)?;
        Ok(FileStamp { dev, ino, size, mtime, ctime })
    }

    /// Whether the file had been left alone for long enough at the time `now` that its next change will move its times.
    fn is_settled(&self, now: i64) -> bool {
        self.mtime.0.max(self.ctime.0) < now.saturating_sub(SETTLED_SECONDS)
    }
}

/// Fills in the content of the regular files: what the memo knows, and then the rest from the files themselves.
fn hash_contents(tree: &dyn Tree, items: &mut [Item], threads: usize, memo: &dyn ChecksumMemo) -> Result<(), Error> {
    let (asked, stamps): (Vec<usize>, Vec<FileStamp>) =
        items.iter().enumerate().filter_map(|(index, item)| Some((index, FileStamp::of(&item.metadata)?))).unzip();
    let mut known = vec![false; items.len()];
    let answers = if stamps.is_empty() { Vec::new() } else { memo.get_many(&stamps) };
    for (index, answer) in asked.into_iter().zip(answers) {
        if let Some(digest) = answer {
            items[index].content = digest;
            known[index] = true;
        }
    }
    let todo: Vec<usize> = (0..items.len()).filter(|index| items[*index].metadata.kind == Kind::File && !known[*index]).collect();
    if !todo.is_empty() {
        memo.hashed(todo.iter().map(|index| items[*index].metadata.size).sum());
    }
    let mut remembered = Vec::new();
    for (index, hashed) in hash_files(tree, items, &todo, threads)? {
        items[index].content = hashed.digest;
        remembered.extend(hashed.remember.map(|stamp| (stamp, hashed.digest)));
    }
    if !remembered.is_empty() {
        memo.put_many(&remembered);
    }
    Ok(())
}

struct Hashed {
    digest: [u8; 32],
    /// The stamp to remember it by, if it may be remembered.
    remember: Option<FileStamp>,
}

/// Hashes the files `todo`, in no particular order. Of several failures, the one of the first file is reported.
fn hash_files(tree: &dyn Tree, items: &[Item], todo: &[usize], threads: usize) -> Result<Vec<(usize, Hashed)>, Error> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let done = Mutex::new((Vec::with_capacity(todo.len()), Vec::new()));
    let work = || {
        let mut buffer = Vec::new();
        let (mut hashed, mut failures) = (Vec::new(), Vec::new());
        while !failed.load(Memory::Relaxed)
            && let Some(&index) = todo.get(next.fetch_add(1, Memory::Relaxed))
        {
            match hash_file(tree, &items[index], &mut buffer) {
                Ok(file) => hashed.push((index, file)),
                Err(source) => {
                    // Files are taken in order, so that all before this one are being hashed already.
                    failed.store(true, Memory::Relaxed);
                    failures.push((index, source));
                }
            }
        }
        if let Ok(mut done) = done.lock() {
            done.0.extend(hashed);
            done.1.extend(failures);
        }
    };
    in_parallel(thread_count(items, todo, threads), &work);
    let (hashed, failures) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failures.into_iter().min_by_key(|(index, _)| *index) {
        Some((index, source)) => Err(Error::Read { path: items[index].path.clone(), source }),
        None => Ok(hashed),
    }
}

fn thread_count(items: &[Item], todo: &[usize], wanted: usize) -> usize {
    let bytes: u64 = todo.iter().map(|index| items[*index].metadata.size).sum();
    if todo.len() < 2 || (todo.len() < PARALLEL_FILES && bytes < PARALLEL_BYTES) {
        return 1;
    }
    threads(wanted, todo.len())
}

fn hash_file(tree: &dyn Tree, item: &Item, buffer: &mut Vec<u8>) -> io::Result<Hashed> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    let (mut file, attributes) = tree.open_with_xattrs(&item.path)?;
    buffer.resize(BUFFER, 0);
    let mut hasher = blake3::Hasher::new();
    let mut done = 0;
    loop {
        match file.read(buffer) {
            Ok(0) => break,
            Ok(length) => {
                hasher.update(&buffer[..length]);
                done += length as u64;
                // Less than was asked for, and no less than there should be: that was the end, and a small file costs one read.
                if length < buffer.len() && done >= item.metadata.size {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
    let mut digest = *hasher.finalize().as_bytes();
    let mut encoded = Vec::new();
    if encode_attributes(attributes, &mut encoded) {
        let mut hasher = blake3::Hasher::new_derive_key("strake tree 1: a file with extended attributes");
        digest = *hasher.update(&digest).update(&encoded).finalize().as_bytes();
    }
    // Only what did not change while it was read is known by its stamp.
    let stamp = FileStamp::of(&item.metadata).filter(|stamp| stamp.is_settled(now));
    let remember = match stamp {
        Some(stamp) if FileStamp::of_open(&file)? == stamp => Some(stamp),
        _ => None,
    };
    Ok(Hashed { digest, remember })
}
