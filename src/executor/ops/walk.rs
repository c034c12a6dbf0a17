//! Copies a directory's contents into a directory of the new layer.
//!
//! One thread walks the tree in the order of a layer's stream, makes the directories and cuts the rest into pieces, which helpers copy too once a tree turns
//! out to be large ([`super::crew`]). Few pieces wait, so that hardly more descriptors are open than the tree is deep.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::copy::Owner;
use super::crew;
use super::error::Error;
use super::layer_diff::LayerDiff;
use super::share::Sharing;
use super::upper::{Attributes, Existing, Mtime, Over, Upper, UpperDir};
use crate::context::{DirectoryState, IgnoreRules};
use crate::graph::FileMode;
use crate::image::layer::{DirectoryHead, LayerEntries};
use crate::path::RootPath;
use crate::store::ContentCopier;
use crate::sys::inode::{self, Xattrs};
use crate::sys::tree::{DirEntry, Kind, Metadata, Tree};

/// From how many entries on a second thread is worth its start.
const HELP_FROM: u64 = 256;
/// How many entries make one piece. What is left of a directory goes with it, up to the second number: two threads in one directory wait for each other.
const PIECE: usize = 64;
const LARGE_PIECE: usize = 256;
/// How much content of one piece is kept for the diff ID, in bytes.
const PIECE_CONTENT: usize = 4 << 20;
/// From how many directories the entries of one piece may be: each is open.
const PIECE_DIRECTORIES: usize = 16;

/// What applies to everything that one instruction copies.
pub(super) struct Rules {
    pub(super) chown: Option<Owner>,
    pub(super) chmod: Option<FileMode>,
    pub(super) exclude: IgnoreRules,
    pub(super) existing: Existing,
}

/// Copies from one tree into one layer.
pub(super) struct Walk<'a> {
    pub(super) upper: &'a Upper<'a>,
    pub(super) tree: &'a dyn Tree,
    pub(super) rules: &'a Rules,
    pub(super) content: &'a ContentCopier,
    /// An earlier snapshot to share files with.
    pub(super) sharing: Option<&'a Sharing<'a>>,
    /// Where the diff ID is found out meanwhile. Whoever sets it has taken what comes before the first directory's contents to it, as number 0.
    pub(super) diff: Option<LayerDiff>,
    /// Where the patterns of `exclude` start.
    pub(super) base: RootPath,
    entries: AtomicU64,
    bytes: AtomicU64,
    /// The first file that was found changed since it was listed.
    changed: Mutex<Option<RootPath>>,
    /// The first name of each file that has several.
    links: Mutex<HashMap<(u64, u64), RootPath>>,
}

/// A directory on the way down.
struct Level {
    source: RootPath,
    directory: Arc<UpperDir>,
    /// Those that are left.
    entries: std::vec::IntoIter<DirEntry>,
    state: DirectoryState,
}

/// Entries that come one after the other in the stream.
struct Piece {
    number: usize,
    parts: Vec<Part>,
}

enum Part {
    /// A directory that was made, and what it will be.
    Directory(RootPath, Option<DirectoryHead>),
    /// Entries of the directory `source` that are none themselves, to be copied.
    Entries { source: RootPath, directory: Arc<UpperDir>, entries: Vec<DirEntry> },
}

/// Where something goes: a directory of the layer, and a name in it.
pub(super) type Place<'a> = (&'a UpperDir, &'a OsStr);

impl<'a> Walk<'a> {
    pub(super) fn new(upper: &'a Upper<'a>, tree: &'a dyn Tree, rules: &'a Rules, content: &'a ContentCopier, base: RootPath) -> Walk<'a> {
        let (entries, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Walk {
            upper,
            tree,
            rules,
            content,
            sharing: None,
            diff: None,
            base,
            entries,
            bytes,
            changed: Mutex::default(),
            links: Mutex::default(),
        }
    }

    /// How many entries were made, and how many bytes were copied.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.entries.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// The first file that was found changed since it was listed.
    pub(super) fn changed(&self) -> Option<RootPath> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the open file is what was listed as `metadata`, and still is.
    pub(super) fn is_as_listed(&self, source: &RootPath, file: &File, metadata: &Metadata) -> bool {
        if !self.tree.is_shared() {
            return true;
        }
        let now = rustix::fs::fstat(file).map_err(std::io::Error::from).and_then(|stat| inode::metadata(&stat));
        // Not `mtime`, for which a build's own time may stand in, nor the inode, whose number some file systems make up: what takes the place of a file has another `ctime`.
        let listed = |now: Metadata| (now.size, now.ctime) == (metadata.size, metadata.ctime);
        let is_as_listed = now.is_ok_and(listed);
        if !is_as_listed {
            self.changed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| source.clone());
        }
        is_as_listed
    }

    /// Copies what is in the directory `source` into `target`.
    pub(super) fn contents(&self, source: &RootPath, target: Arc<UpperDir>) -> Result<(), Error> {
        let state = self.state_above(source, true);
        self.run(self.level(source.clone(), target, state)?)
    }

    /// Copies the directory `source` itself into `parent`, under its own name.
    pub(super) fn directory(&self, source: &RootPath, metadata: &Metadata, parent: &Arc<UpperDir>) -> Result<(), Error> {
        let directory = self.make(source, metadata, parent)?;
        let state = self.state_above(source, false);
        self.run(self.level(source.clone(), directory, state)?)
    }

    /// Copies something else than a directory to a place.
    pub(super) fn file(&self, source: &RootPath, metadata: &Metadata, place: Place<'_>) -> Result<(), Error> {
        self.file_noting(source, metadata, place, None)
    }

    /// The same; `made` is told what was made.
    fn file_noting(&self, source: &RootPath, metadata: &Metadata, place: Place<'_>, made: Option<&mut LayerEntries>) -> Result<(), Error> {
        let (directory, name) = place;
        let mut linked = None;
        if metadata.nlink > 1 && metadata.kind != Kind::Symlink {
            // Held until the file is whole, so that nobody links to half of it.
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(first) = links.get(&(metadata.dev, metadata.ino)) {
                self.entries.fetch_add(1, Ordering::Relaxed);
                self.upper.hard_link(directory, name, Over::Files, first)?;
                return self.note(place, metadata, made);
            }
            links.insert((metadata.dev, metadata.ino), directory.path().join(name));
            linked = Some(links);
        }
        match metadata.kind {
            Kind::File => return self.regular(source, metadata, place, made).map(|()| drop(linked)),
            Kind::Symlink => {
                let attributes = self.attributes(source, metadata)?;
                let target = self.tree.read_link(source).map_err(|error| read_error(source, error))?;
                self.upper.symlink(directory, name, Over::Files, &target, &attributes)?;
            }
            // Without its process it is nothing; BuildKit leaves a file that holds nothing.
            Kind::Socket => {
                let attributes = self.attributes_with(metadata, Vec::new());
                let fd = self.upper.create(directory, name, Over::Files, attributes.mode)?;
                self.upper.finish_file(directory, name, &fd, &attributes)?;
            }
            Kind::Directory => return Ok(()),
            kind => {
                let attributes = self.attributes(source, metadata)?;
                if !self.upper.node(directory, name, Over::Files, kind, metadata.rdev, &attributes)? {
                    self.upper.warn(format!("`{source}` is left out: such a device cannot be made"));
                    return Ok(());
                }
            }
        }
        drop(linked);
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.note(place, metadata, made)
    }

    /// Notes something to be looked at.
    fn note(&self, (directory, name): Place<'_>, metadata: &Metadata, made: Option<&mut LayerEntries>) -> Result<(), Error> {
        let Some(made) = made else { return Ok(()) };
        let path = directory.path().join(name);
        // Whether a file with several names is what the base has depends on all of them.
        if metadata.nlink > 1 && directory.covers(name)? {
            made.unknown(path);
        } else {
            made.other(path, matches!(metadata.kind, Kind::File | Kind::Socket));
        }
        Ok(())
    }

    fn regular(&self, source: &RootPath, metadata: &Metadata, place: Place<'_>, mut made: Option<&mut LayerEntries>) -> Result<(), Error> {
        let (directory, name) = place;
        self.entries.fetch_add(1, Ordering::Relaxed);
        // Only what is new and has one name is known without a look at it.
        let may_keep = made.as_ref().is_some_and(|made| made.keeps_content() && made.content_size() < PIECE_CONTENT)
            && metadata.nlink == 1
            && !directory.covers(name)?;
        let known = self.sharing.and_then(|sharing| Some((sharing, sharing.content(metadata)?)));
        if let Some((sharing, content)) = known {
            let attributes = self.attributes_with(metadata, Vec::new());
            if sharing.share(self.upper, directory, name, (&content, metadata.size), &attributes)? {
                self.bytes.fetch_add(metadata.size, Ordering::Relaxed);
                return match made {
                    Some(made) if may_keep => {
                        made.existing_file(directory.path().join(name), directory.fd(), name);
                        Ok(())
                    }
                    made => self.note(place, metadata, made),
                };
            }
        }
        let (mut from, xattrs) = self.tree.open_with_xattrs(source).map_err(|error| read_error(source, error))?;
        let may_keep = may_keep && xattrs.is_empty() && metadata.size <= LayerEntries::MAX_FILE;
        let attributes = self.attributes_with(metadata, xattrs);
        let to = self.upper.create(directory, name, Over::Files, attributes.mode)?;
        let kept = match &mut made {
            Some(made) if may_keep => self.content.copy_keeping(&from, (metadata.dev, metadata.size), &to, made.content()),
            _ => Ok(None),
        };
        let write_error = |error| directory.write_error(name, error);
        let kept = kept.map_err(write_error)?;
        let copied = match kept {
            Some(length) => length,
            None => self.content.copy(&mut from, metadata.dev, metadata.size, &to).map_err(write_error)?,
        };
        self.bytes.fetch_add(copied, Ordering::Relaxed);
        // Only what did not change since it was hashed is what was hashed.
        if self.is_as_listed(source, &from, metadata)
            && let Some((sharing, content)) = known
        {
            sharing.copied(&directory.path().join(name), content);
        }
        self.upper.finish_file(directory, name, &to, &attributes)?;
        match made {
            Some(made) if kept.is_some() => {
                made.file(directory.path().join(name), &to);
                Ok(())
            }
            made => self.note(place, metadata, made),
        }
    }

    /// What the copy of an entry gets.
    pub(super) fn attributes(&self, source: &RootPath, metadata: &Metadata) -> Result<Attributes, Error> {
        let xattrs = self.tree.xattrs(source).map_err(|error| read_error(source, error))?;
        Ok(self.attributes_with(metadata, xattrs))
    }

    fn attributes_with(&self, metadata: &Metadata, xattrs: Xattrs) -> Attributes {
        let owner = self.rules.chown.unwrap_or(Owner { uid: metadata.uid, gid: metadata.gid });
        let mode = match &self.rules.chmod {
            Some(chmod) if metadata.kind != Kind::Symlink => chmod.apply(metadata.mode, metadata.kind == Kind::Directory),
            _ => metadata.mode,
        };
        Attributes { mode, uid: owner.uid, gid: owner.gid, mtime: Mtime::At(metadata.mtime), xattrs }
    }

    /// Copies what is left of `level` and below.
    fn run(&self, level: Level) -> Result<(), Error> {
        let (mut walk, mut number) = (vec![level], 0);
        let next = move || {
            number += 1;
            (!walk.is_empty()).then(|| self.piece(&mut walk, number))
        };
        crew::run(next, |piece| self.work(piece), || self.entries.load(Ordering::Relaxed) >= HELP_FROM)
    }

    /// Goes on with the walk until a piece is full or all is done; makes the directories on the way.
    fn piece(&self, walk: &mut Vec<Level>, number: usize) -> Result<Piece, Error> {
        let (mut parts, mut entries, mut directories) = (Vec::new(), 0, 0);
        while entries < PIECE
            && directories < PIECE_DIRECTORIES
            && let Some(level) = walk.last_mut()
        {
            let mut files = Vec::new();
            let mut below = None;
            while entries < LARGE_PIECE {
                let Some(entry) = level.entries.next() else { break };
                let Some(state) = self.selects(level, &entry)? else { continue };
                entries += 1;
                if entry.kind == Kind::Directory {
                    below = Some((entry, state));
                    break;
                }
                files.push(entry);
            }
            let is_done = below.is_none() && level.entries.as_slice().is_empty();
            if !files.is_empty() {
                directories += 1;
                parts.push(Part::Entries { source: level.source.clone(), directory: Arc::clone(&level.directory), entries: files });
            }
            if let Some((entry, state)) = below {
                let source = level.source.join(&entry.name);
                // What vanishes while it is copied was not there.
                let Some(metadata) = self.tree.metadata(&source).map_err(|error| read_error(&source, error))? else { continue };
                if metadata.kind != Kind::Directory {
                    let (source, directory) = (level.source.clone(), Arc::clone(&level.directory));
                    parts.push(Part::Entries { source, directory, entries: vec![entry] });
                    continue;
                }
                let directory = self.make(&source, &metadata, &level.directory)?;
                if self.diff.is_some() {
                    parts.push(Part::Directory(directory.path().clone(), directory.promise(true)));
                }
                walk.push(self.level(source, directory, state)?);
            } else if is_done {
                walk.pop();
            }
        }
        Ok(Piece { number, parts })
    }

    /// Makes the directory `source` in `parent`, under its own name.
    fn make(&self, source: &RootPath, metadata: &Metadata, parent: &Arc<UpperDir>) -> Result<Arc<UpperDir>, Error> {
        let name = source.file_name().unwrap_or_default();
        let directory = self.upper.enter(parent, name, || self.attributes(source, metadata), self.rules.existing)?;
        self.entries.fetch_add(1, Ordering::Relaxed);
        Ok(directory)
    }

    fn level(&self, source: RootPath, directory: Arc<UpperDir>, state: DirectoryState) -> Result<Level, Error> {
        let entries = self.tree.read_dir(&source).map_err(|error| read_error(&source, error))?.into_iter();
        Ok(Level { source, directory, entries, state })
    }

    /// Copies the entries of a piece.
    fn work(&self, piece: Piece) -> Result<(), Error> {
        let keeps_content = self.diff.as_ref().is_some_and(|diff| diff.wants_content());
        let mut made = if keeps_content { LayerEntries::with_content() } else { LayerEntries::default() };
        for part in piece.parts {
            match part {
                Part::Directory(path, Some(head)) => made.directory(path, head),
                Part::Directory(path, None) => made.unknown(path),
                Part::Entries { source, directory, entries } => {
                    for entry in entries {
                        let source = source.join(&entry.name);
                        let Some(metadata) = self.tree.metadata(&source).map_err(|error| read_error(&source, error))? else { continue };
                        let noting = self.diff.as_ref().map(|_| &mut made);
                        self.file_noting(&source, &metadata, (&directory, &entry.name), noting)?;
                    }
                }
            }
        }
        if let Some(diff) = &self.diff {
            diff.take(piece.number, made);
        }
        Ok(())
    }

    /// Whether an entry is not excluded; for a directory, with what the patterns say of it.
    fn selects(&self, level: &Level, entry: &DirEntry) -> Result<Option<DirectoryState>, Error> {
        if self.rules.exclude.is_empty() {
            return Ok(Some(DirectoryState::default()));
        }
        let source = level.source.join(&entry.name);
        let relative = self.relative(&source);
        let is_directory = entry.kind == Kind::Directory;
        if self.rules.exclude.decide_in(&level.state, relative).ignored && (!is_directory || !self.keeps_below(&source, &level.state)?) {
            return Ok(None);
        }
        Ok(Some(if is_directory { self.rules.exclude.enter(&level.state, relative) } else { DirectoryState::default() }))
    }

    /// Whether an excluded directory holds something that a later pattern brings back.
    fn keeps_below(&self, directory: &RootPath, above: &DirectoryState) -> Result<bool, Error> {
        let rules = &self.rules.exclude;
        let mut todo = vec![(directory.clone(), above.clone())];
        while let Some((directory, above)) = todo.pop() {
            let relative = self.relative(&directory);
            if !rules.may_reinclude_below(relative) {
                continue;
            }
            let state = rules.enter(&above, relative);
            for entry in self.read(&directory)? {
                let path = directory.join(&entry.name);
                if !rules.decide_in(&state, self.relative(&path)).ignored {
                    return Ok(true);
                }
                if entry.kind == Kind::Directory {
                    todo.push((path, state.clone()));
                }
            }
        }
        Ok(false)
    }

    /// What the patterns of `exclude` say about the directories above `source`, or about it too.
    fn state_above(&self, source: &RootPath, itself: bool) -> DirectoryState {
        let rules = &self.rules.exclude;
        let mut state = DirectoryState::default();
        if rules.is_empty() {
            return state;
        }
        let relative = self.relative(source);
        for (end, _) in relative.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            state = rules.enter(&state, relative.get(..end).unwrap_or_default());
        }
        if itself && !relative.is_empty() {
            state = rules.enter(&state, relative);
        }
        state
    }

    /// Whether `--exclude` leaves out `source` itself, with all that is in it.
    pub(super) fn excludes(&self, source: &RootPath, kind: Kind) -> Result<bool, Error> {
        let rules = &self.rules.exclude;
        if rules.is_empty() || !rules.decide(self.relative(source)).ignored {
            return Ok(false);
        }
        Ok(kind != Kind::Directory || !self.keeps_below(source, &self.state_above(source, false))?)
    }

    fn relative<'p>(&self, path: &'p RootPath) -> &'p [u8] {
        let cut = if self.base.is_root() { 1 } else { self.base.as_bytes().len() + 1 };
        path.as_bytes().get(cut..).unwrap_or_default()
    }

    fn read(&self, directory: &RootPath) -> Result<Vec<DirEntry>, Error> {
        self.tree.read_dir(directory).map_err(|error| read_error(directory, error))
    }
}

fn read_error(path: &RootPath, source: std::io::Error) -> Error {
    Error::Read { path: path.clone(), source }
}
