//! Writes a committed snapshot's directory as a layer's tar stream.
//!
//! The directory is what overlayfs left: it holds what was changed, but also what was only copied up. What equals the layers below is left out: files by
//! metadata and content, directories by metadata except their times, unless something inside them changed (then they are there with their own metadata). A deletion
//! counts only where the layers below have something to delete.
//!
//! The tree is read by a thread of its own, ahead of the one that writes the stream ([`super::record`]), as soon as there is more than one batch of it. Names are
//! opened from their directory's descriptor, which costs the kernel one step, and everything is asked of the open file.
//!
//! Of extended attributes a layer carries `security.capability` and `user.*`: others (labels of the host, ACLs, `trusted.*`) belong to the machine.
//! Whiteouts have no time: theirs says when a build ran, and nobody reads it.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::mpsc::sync_channel;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::oci::{Algorithm, DiffId};
use crate::path::RootPath;
use crate::store::view::{LayerStack, Marks, is_whiteout_stat};
use crate::sys::{Links, RootDir, descriptor_path, owner, xattr};

use super::known::{KnownFile, KnownFiles};
use super::lower::{Found, LowerLayers};
use super::record::{Batch, Content, Head, SMALL};
use super::tar_writer::TarWriter;
use super::{Error, Xattrs, is_overlay_attribute};

/// How many batches may wait to be written.
const AHEAD: usize = 4;

/// How many directories on the way down stay open.
const MAX_OPEN: usize = 64;

/// How to write a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerOptions {
    /// Times later than this (seconds since the epoch) become this.
    pub latest_time: Option<i64>,
    /// The marks of the layers.
    pub marks: Marks,
    /// What the stream is hashed by: that of the diff ID that it is to be compared with.
    pub algorithm: Algorithm,
    /// What happens to the layer while it is read.
    pub meanwhile: Meanwhile,
}

/// What others do to a layer while it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Meanwhile {
    /// Nothing: nobody has it.
    #[default]
    Nothing,
    /// Whatever they like, as processes of a container may. Then nothing is opened before it is known to be a file or a directory.
    Anything,
}

/// A layer that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerWritten {
    /// The digest of the stream.
    pub diff_id: DiffId,
    /// The size of the stream.
    pub size: u64,
    /// How many entries it has, whiteouts included.
    pub entries: u64,
}

/// Writes the changes that `layer` makes to `lower` as an uncompressed tar stream.
pub fn write_layer(layer: &Path, lower: &LayerStack, out: &mut impl Write, options: &LayerOptions) -> Result<LayerWritten, Error> {
    write_all(Differ::open(layer, lower, options)?, layer, out)
}

fn write_all(mut differ: Differ, layer: &Path, out: &mut impl Write) -> Result<LayerWritten, Error> {
    let mut tar = TarWriter::new(out, differ.options.algorithm);
    let first = differ.batch()?;
    first.write(&mut tar, layer)?;
    if !differ.is_done() {
        write_rest(&mut differ, &mut tar, layer)?;
    }
    let (digest, size, entries) = tar.finish()?;
    Ok(LayerWritten { diff_id: DiffId::new(digest), size, entries })
}

/// Reads on one thread and writes on this one.
fn write_rest<W: Write>(differ: &mut Differ, tar: &mut TarWriter<W>, layer: &Path) -> Result<(), Error> {
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel(AHEAD);
        let reader = &mut *differ;
        let read = move || {
            while !reader.is_done() {
                let batch = reader.batch();
                let failed = batch.is_err();
                // Nobody takes it where writing failed.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        if std::thread::Builder::new().name("layer-read".to_owned()).spawn_scoped(scope, read).is_err() {
            return Ok(());
        }
        batches.into_iter().try_for_each(|batch| batch?.write(tar, layer))
    })?;
    // Where no thread can be made, this one does all the work.
    while !differ.is_done() {
        differ.batch()?.write(tar, layer)?;
    }
    Ok(())
}

/// What [`write_layer`] would write, without writing it anywhere.
pub fn diff_id_only(layer: &Path, lower: &LayerStack, options: &LayerOptions) -> Result<LayerWritten, Error> {
    write_layer(layer, lower, &mut io::sink(), options)
}

/// The same, given files that need not be read.
pub fn diff_id_knowing(layer: &Path, lower: &LayerStack, options: &LayerOptions, known: KnownFiles) -> Result<LayerWritten, Error> {
    let differ = Differ::open(layer, lower, options)?;
    write_all(Differ { known: Some(known), ..differ }, layer, &mut io::sink())
}

pub(super) struct Differ {
    layer: RootDir,
    lower: LowerLayers,
    options: LayerOptions,
    /// The directories on the way to the current entry; none at the end.
    levels: Vec<Level>,
    /// Those of them that are not written yet, because nothing in them changed so far.
    pending: Vec<Head>,
    /// Files with several names: where the first one is.
    links: HashMap<(u64, u64), RootPath>,
    /// The inodes of files with several names in this layer, once somebody asked.
    several: OnceCell<HashSet<u64>>,
    /// Whether files may get more names yet: the layer is still being written.
    growing: bool,
    /// Files that need not be looked at.
    known: Option<KnownFiles>,
    batch: Batch,
}

/// A directory being walked.
struct Level {
    path: RootPath,
    /// Closed while the walk is far below.
    fd: Option<OwnedFd>,
    /// The names that are left, last first.
    names: Vec<(CString, FileType)>,
    /// The lower layers whose directories show through here.
    merged: Vec<usize>,
}

/// What is at a path of the layer.
struct Seen {
    stat: Stat,
    xattrs: Xattrs,
    opaque: bool,
    /// Regular files and directories, open.
    fd: Option<OwnedFd>,
    /// What else is there, opened as a place, in a layer that somebody changes.
    place: Option<OwnedFd>,
}

impl Differ {
    fn open(layer: &Path, lower: &LayerStack, options: &LayerOptions) -> Result<Differ, Error> {
        let fail = |source| Error::Entry { action: "open", path: RootPath::root(), root: layer.to_owned(), source };
        let mut differ = Differ {
            layer: RootDir::open(layer).map_err(fail)?,
            lower: LowerLayers::new(lower, options.marks),
            options: options.clone(),
            levels: Vec::new(),
            pending: Vec::new(),
            links: HashMap::new(),
            several: OnceCell::new(),
            growing: false,
            known: None,
            batch: Batch::default(),
        };
        let root = RootPath::root();
        let fd = differ.open_directory(&root)?;
        let mut merged = differ.lower.all();
        if !merged.is_empty() && differ.attributes(&root, &fd)?.1 {
            differ.whiteout(&root, b".wh..opq");
            merged.clear();
        }
        differ.levels.push(differ.level(root, fd, merged)?);
        Ok(differ)
    }

    /// For a layer that is being written, and is looked at entry by entry.
    pub(super) fn open_growing(layer: &Path, lower: &LayerStack, options: &LayerOptions) -> Result<Differ, Error> {
        let differ = Differ::open(layer, lower, options)?;
        Ok(Differ { levels: Vec::new(), growing: true, ..differ })
    }

    /// What was noted and not yet taken.
    pub(super) fn take_batch(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    /// Goes to `path`: the directories that it is not in are left.
    pub(super) fn go_to(&mut self, path: &RootPath) {
        while self.pending.last().is_some_and(|head| !is_above(&head.path, path)) {
            self.pending.pop();
        }
    }

    /// Enters a directory that will be as `head` says.
    pub(super) fn enter(&mut self, head: Head) -> Result<(), Error> {
        let below = self.lower.find(&head.path)?;
        let unchanged = match &below {
            Some(found) => {
                let stat = &found.stat;
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
                    && (stat.st_mode & 0o7777, owner::of(stat)) == (head.mode, (head.uid, head.gid))
                    && head.xattrs == layer_xattrs(self.lower.root(found.layer)?, &head.path)?
            }
            None => false,
        };
        self.pending.push(head);
        if !unchanged {
            self.note_pending();
        }
        Ok(())
    }

    /// Notes what is at `path` and no directory, if it is a change.
    pub(super) fn visit_path(&mut self, path: RootPath, kind: FileType) -> Result<(), Error> {
        let below = self.lower.find(&path)?;
        let name = CString::new(path.relative().as_os_str().as_bytes()).map_err(|_| Error::Changed { path: path.clone() })?;
        let seen = self.look(self.layer.as_fd(), &name, kind, &path)?;
        let is_directory = FileType::from_raw_mode(seen.stat.st_mode) == FileType::Directory;
        match &below {
            _ if is_directory || is_whiteout_stat(&seen.stat) => Err(Error::Changed { path }),
            Some(found) if self.same(&path, &seen, found)? => Ok(()),
            _ => self.note(path, seen),
        }
    }

    fn is_done(&self) -> bool {
        self.levels.is_empty()
    }

    /// Goes on until a batch is full or the tree ends.
    fn batch(&mut self) -> Result<Batch, Error> {
        while !self.batch.is_full()
            && let Some(mut level) = self.levels.pop()
        {
            let Some((name, kind)) = level.names.pop() else {
                if self.pending.last().is_some_and(|head| head.path == level.path) {
                    self.pending.pop();
                }
                continue;
            };
            if level.fd.is_none() {
                level.fd = Some(self.open_directory(&level.path)?);
            }
            let below = self.visit(&level, &name, kind)?;
            let depth = self.levels.len();
            self.levels.push(level);
            if let Some(below) = below {
                if let Some(far) = depth.checked_sub(MAX_OPEN) {
                    self.levels[far].fd = None;
                }
                self.levels.push(below);
            }
        }
        Ok(std::mem::take(&mut self.batch))
    }

    /// Notes what is called `name` if it is a change; gives the level below where it is a directory.
    fn visit(&mut self, level: &Level, name: &CString, kind: FileType) -> Result<Option<Level>, Error> {
        let directory = level.fd.as_ref().map(AsFd::as_fd).unwrap_or(self.layer.as_fd());
        let file_name = OsStr::from_bytes(name.to_bytes());
        let path = level.path.join(file_name);
        let below = if level.merged.is_empty() { None } else { self.lower.find_in(&level.merged, &path)? };
        let is_new_file = below.is_none() && kind == FileType::RegularFile && !name.to_bytes().starts_with(b".wh.");
        if let Some(known) = self.known.as_mut().filter(|_| is_new_file).and_then(|known| known.take(&path)) {
            self.note_known(known);
            return Ok(None);
        }
        let seen = self.look(directory, name, kind, &path)?;
        if is_whiteout_stat(&seen.stat) {
            if below.is_some() {
                self.whiteout(&level.path, name.to_bytes());
            }
            return Ok(None);
        }
        if name.to_bytes().starts_with(b".wh.") {
            return Err(Error::ReservedName { path });
        }
        if FileType::from_raw_mode(seen.stat.st_mode) == FileType::Directory {
            return self.visit_directory(path, seen, below).map(Some);
        }
        if let Some((found, _)) = &below
            && self.same(&path, &seen, found)?
        {
            return Ok(None);
        }
        self.note(path, seen)?;
        Ok(None)
    }

    fn visit_directory(&mut self, path: RootPath, seen: Seen, below: Option<(Found, Vec<usize>)>) -> Result<Level, Error> {
        let (found, mut merged) = below.map_or((None, Vec::new()), |(found, merged)| (Some(found), merged));
        let hides = !merged.is_empty() && seen.opaque;
        let unchanged = match &found {
            Some(found) if !hides => self.same(&path, &seen, found)?,
            _ => false,
        };
        let Seen { stat, xattrs, fd, .. } = seen;
        self.pending.push(Head::new(&path, &stat, xattrs, self.options.latest_time));
        if !unchanged {
            self.note_pending();
        }
        if hides {
            self.whiteout(&path, b".wh..opq");
            merged.clear();
        }
        let fd = fd.map_or_else(|| self.open_directory(&path), Ok)?;
        self.level(path, fd, merged)
    }

    fn whiteout(&mut self, parent: &RootPath, name: &[u8]) {
        self.note_pending();
        let path = parent.join(OsString::from_vec([b".wh.", name].concat()));
        self.batch.push(Head::whiteout(path), Content::Small(0));
    }

    pub(super) fn note_pending(&mut self) {
        for head in self.pending.drain(..) {
            self.batch.push(head, Content::Directory);
        }
    }

    /// Notes something that is no directory.
    fn note(&mut self, path: RootPath, seen: Seen) -> Result<(), Error> {
        let Seen { stat, xattrs, fd, place, .. } = seen;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if matches!(kind, FileType::Socket | FileType::Directory | FileType::Unknown) {
            return Ok(());
        }
        self.note_pending();
        let mut head = Head::new(&path, &stat, xattrs, self.options.latest_time);
        if stat.st_nlink > 1 || self.growing {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                head.xattrs.clear();
                self.batch.push(head, Content::HardLink(first.clone()));
                return Ok(());
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        let content = match kind {
            FileType::Symlink => Some(Content::Symlink(self.link(&path, place.as_ref())?)),
            FileType::RegularFile => Some(self.content(&path, u64::try_from(stat.st_size).unwrap_or_default(), fd)?),
            _ => Content::of_node(&stat),
        };
        if let Some(content) = content {
            self.batch.push(head, content);
        }
        Ok(())
    }

    fn note_known(&mut self, known: KnownFile) {
        self.note_pending();
        let KnownFile { mut head, content } = known;
        head.mtime = self.options.latest_time.map_or(head.mtime, |latest| head.mtime.min(latest));
        self.batch.push_small(head, &content);
    }

    fn content(&mut self, path: &RootPath, size: u64, fd: Option<OwnedFd>) -> Result<Content, Error> {
        if size == 0 {
            return Ok(Content::Small(0));
        }
        let file = fd.map_or_else(|| open_file(&self.layer, path), |fd| Ok(File::from(fd)))?;
        if size > SMALL {
            return Ok(Content::Large(file, size));
        }
        let small = usize::try_from(size).unwrap_or_default();
        match self.batch.read(&file, small) {
            Ok(true) => Ok(Content::Small(small)),
            Ok(false) => Err(Error::Changed { path: path.clone() }),
            Err(source) => Err(self.fail(path, source)),
        }
    }

    /// Whether `path` is in the layer what it is below: in kind, metadata, attributes, and, only then read, content.
    fn same(&self, path: &RootPath, seen: &Seen, found: &Found) -> Result<bool, Error> {
        let (stat, below) = (&seen.stat, &found.stat);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let directory = kind == FileType::Directory;
        let equal = stat.st_mode == below.st_mode
            && (stat.st_uid, stat.st_gid, stat.st_rdev) == (below.st_uid, below.st_gid, below.st_rdev)
            // A directory's time tells only that something came or went; what stayed so is there by itself, and BuildKit leaves the rest out, too.
            && (directory || (stat.st_mtime, stat.st_mtime_nsec) == (below.st_mtime, below.st_mtime_nsec))
            && (directory || stat.st_size == below.st_size);
        if !equal || (!directory && stat.st_nlink > 1 && self.has_other_name(stat)?) {
            return Ok(false);
        }
        let root = self.lower.root(found.layer)?;
        if seen.xattrs != layer_xattrs(root, path)? {
            return Ok(false);
        }
        match kind {
            FileType::RegularFile => {
                if (stat.st_dev, stat.st_ino) == (below.st_dev, below.st_ino) {
                    return Ok(true);
                }
                let opened;
                let ours = match &seen.fd {
                    Some(fd) => fd,
                    None => {
                        opened = OwnedFd::from(open_file(&self.layer, path)?);
                        &opened
                    }
                };
                let mut theirs = open_file(root, path)?;
                same_content(&mut FromStart { file: ours, at: 0 }, &mut theirs).map_err(|source| self.fail(path, source))
            }
            FileType::Symlink => Ok(self.link(path, seen.place.as_ref())? == read_link(root, path)?),
            _ => Ok(true),
        }
    }

    /// Whether a file has several names in this layer. It may have others in layers that share it.
    fn has_other_name(&self, stat: &Stat) -> Result<bool, Error> {
        let known = match self.several.get() {
            Some(known) => known,
            None => {
                let found = self.inodes_with_several_names()?;
                self.several.get_or_init(|| found)
            }
        };
        Ok(known.contains(&stat.st_ino))
    }

    fn inodes_with_several_names(&self) -> Result<HashSet<u64>, Error> {
        let (mut once, mut several) = (HashSet::new(), HashSet::new());
        let mut todo = vec![RootPath::root()];
        while let Some(path) = todo.pop() {
            let fd = self.open_directory(&path)?;
            for entry in rustix::fs::Dir::new(fd).map_err(|errno| self.fail(&path, errno))? {
                let entry = entry.map_err(|errno| self.fail(&path, errno))?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                match entry.file_type() {
                    _ if name == "." || name == ".." => {}
                    FileType::Directory => todo.push(path.join(name)),
                    _ if !once.insert(entry.ino()) => drop(several.insert(entry.ino())),
                    _ => {}
                }
            }
        }
        Ok(several)
    }

    /// Finds out what is called `name` in `directory`. Files and directories are opened first and asked then; all else is not opened, for that could do anything.
    fn look(&self, directory: BorrowedFd<'_>, name: &CString, kind: FileType, path: &RootPath) -> Result<Seen, Error> {
        if self.options.meanwhile == Meanwhile::Anything {
            return self.look_twice(directory, name, path);
        }
        let opened = match kind {
            FileType::RegularFile => rustix::fs::openat(directory, name, READ | OFlags::NOFOLLOW, Mode::empty()).ok(),
            FileType::Directory => rustix::fs::openat(directory, name, READ | OFlags::NOFOLLOW | OFlags::DIRECTORY, Mode::empty()).ok(),
            _ => None,
        };
        if let Some(fd) = opened {
            return self.seen(path, fd);
        }
        let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| self.fail(path, errno))?;
        if is_whiteout_stat(&stat) {
            return Ok(Seen { stat, xattrs: Vec::new(), opaque: false, fd: None, place: None });
        }
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let opaque = is_directory
            && self.options.marks.is_opaque_at(self.layer.as_fd(), path.relative()).map_err(|source| self.fail(path, source))?;
        Ok(Seen { stat, xattrs: layer_xattrs(&self.layer, path)?, opaque, fd: None, place: None })
    }

    /// The same where names may be exchanged at any time, for nodes too: a name is opened as a place, and that is asked what it is, and then opened.
    fn look_twice(&self, directory: BorrowedFd<'_>, name: &CString, path: &RootPath) -> Result<Seen, Error> {
        let place = rustix::fs::openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| self.fail(path, errno))?;
        let stat = rustix::fs::fstat(&place).map_err(|errno| self.fail(path, errno))?;
        if matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Directory) {
            let fd = rustix::fs::open(descriptor_path(&place), READ, Mode::empty()).map_err(|errno| self.fail(path, errno))?;
            return self.seen(path, fd);
        }
        // By the name in its own directory, whatever is there now: no link leads on.
        let own = Path::new(OsStr::from_bytes(name.to_bytes()));
        let xattrs = if is_whiteout_stat(&stat) { Vec::new() } else { layer_xattrs_at(directory, own, path, &self.layer)? };
        Ok(Seen { stat, xattrs, opaque: false, fd: None, place: Some(place) })
    }

    /// Asks an open file or directory.
    fn seen(&self, path: &RootPath, fd: OwnedFd) -> Result<Seen, Error> {
        let stat = rustix::fs::fstat(&fd).map_err(|errno| self.fail(path, errno))?;
        let (xattrs, opaque) = self.attributes(path, &fd)?;
        Ok(Seen { stat, xattrs, opaque, fd: Some(fd), place: None })
    }

    /// Where a link of the layer leads, which may be opened as a place.
    fn link(&self, path: &RootPath, place: Option<&OwnedFd>) -> Result<Vec<u8>, Error> {
        let Some(place) = place else { return read_link(&self.layer, path) };
        Ok(rustix::fs::readlinkat(place, "", Vec::new()).map_err(|errno| self.fail(path, errno))?.into_bytes())
    }

    /// The attributes that a layer carries of an open file or directory, and whether it hides what is below it.
    fn attributes(&self, path: &RootPath, fd: &OwnedFd) -> Result<(Xattrs, bool), Error> {
        let fail = |source| self.fail(path, source);
        let names = xattr::list_open(fd).map_err(fail)?;
        // Most entries have no attributes at all.
        let marked = !names.is_empty() || !self.options.marks.are_native();
        let opaque = marked && self.options.marks.is_opaque(fd).map_err(fail)?;
        Ok((select(path, names, |name| xattr::get_open(fd, name).map_err(fail))?, opaque))
    }

    fn open_directory(&self, path: &RootPath) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        self.layer.open_at(path.relative(), flags, Mode::empty(), Links::Refuse).map_err(|source| self.fail(path, source))
    }

    fn level(&self, path: RootPath, fd: OwnedFd, merged: Vec<usize>) -> Result<Level, Error> {
        let mut names = Vec::new();
        let entries = rustix::fs::Dir::read_from(&fd).map_err(|errno| self.fail(&path, errno))?;
        for entry in entries {
            let entry = entry.map_err(|errno| self.fail(&path, errno))?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push((name.to_owned(), entry.file_type()));
            }
        }
        names.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        Ok(Level { path, fd: Some(fd), names, merged })
    }

    fn fail(&self, path: &RootPath, source: impl Into<io::Error>) -> Error {
        fail(&self.layer, path, source)
    }
}

fn fail(root: &RootDir, path: &RootPath, source: impl Into<io::Error>) -> Error {
    Error::Entry { action: "read", path: path.clone(), root: root.path().to_owned(), source: source.into() }
}

/// The attributes that a layer carries, sorted by name.
fn layer_xattrs(root: &RootDir, path: &RootPath) -> Result<Xattrs, Error> {
    layer_xattrs_at(root.as_fd(), path.relative(), path, root)
}

/// The same of `name` in `directory`, which is `path` of `root`.
fn layer_xattrs_at(directory: BorrowedFd<'_>, name: &Path, path: &RootPath, root: &RootDir) -> Result<Xattrs, Error> {
    let fail = |source| fail(root, path, source);
    let names = xattr::list(directory, name).map_err(fail)?;
    select(path, names, |attribute| xattr::get(directory, name, attribute).map_err(fail))
}

/// Gets those of an entry's attributes that a layer carries, sorted by name.
fn select(path: &RootPath, names: Vec<OsString>, get: impl Fn(&OsStr) -> Result<Option<Vec<u8>>, Error>) -> Result<Xattrs, Error> {
    let mut out = Vec::new();
    for name in names {
        if in_layers(name.as_bytes()) {
            let value = get(&name)?;
            out.extend(value.map(|value| (name.into_vec(), value)));
        } else {
            refuse_overlay_feature(path, &name)?;
        }
    }
    out.sort_unstable();
    Ok(out)
}

/// Fails where overlayfs keeps a directory's children or a file's content in another place: reading it here would give half of it.
fn refuse_overlay_feature(path: &RootPath, name: &OsString) -> Result<(), Error> {
    let bytes = name.as_bytes();
    if is_overlay_attribute(bytes) && (bytes.ends_with(b".overlay.redirect") || bytes.ends_with(b".overlay.metacopy")) {
        return Err(Error::OverlayFeature { path: path.clone(), attribute: name.to_string_lossy().into_owned() });
    }
    Ok(())
}

/// Whether layers carry the attribute `name`.
pub(super) fn in_layers(name: &[u8]) -> bool {
    name == b"security.capability" || (name.starts_with(b"user.") && !is_overlay_attribute(name))
}

fn read_link(root: &RootDir, path: &RootPath) -> Result<Vec<u8>, Error> {
    let target = rustix::fs::readlinkat(root, path.relative(), Vec::new()).map_err(|errno| fail(root, path, errno))?;
    Ok(target.into_bytes())
}

/// How files and directories are opened. Where something else is there after all, nothing waits for it.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens a regular file.
fn open_file(root: &RootDir, path: &RootPath) -> Result<File, Error> {
    let opened = root.open_at(path.relative(), READ | OFlags::NOFOLLOW, Mode::empty(), Links::Refuse);
    let file = opened.map_err(|source| fail(root, path, source))?;
    let stat = rustix::fs::fstat(&file).map_err(|errno| fail(root, path, errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Error::Changed { path: path.clone() });
    }
    Ok(File::from(file))
}

/// Reads an open file from its beginning, and leaves it where it is.
struct FromStart<'a> {
    file: &'a OwnedFd,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = rustix::io::pread(self.file, buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Whether `path` is below `directory`.
fn is_above(directory: &RootPath, path: &RootPath) -> bool {
    path.as_bytes().strip_prefix(directory.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'/'))
}

fn same_content(a: &mut impl Read, b: &mut impl Read) -> io::Result<bool> {
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        let count = super::hashing::fill_chunk(a, &mut left, 1 << 16)?;
        super::hashing::fill_chunk(b, &mut right, 1 << 16)?;
        if left != right {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}
