//! The directory that a layer is unpacked into: makes, replaces and finishes entries, one name at a time.
//!
//! Every system call gets a directory that was opened step by step without following anything, and one name in it. A link of the layer on the way is
//! followed by reading it and starting again at the layer's root, as a container would see it; so nothing outside of the layer can be reached,
//! whatever the names and links say.
//!
//! Directories keep mode 0700 until [`Target::finish`]: only then nothing more is made inside them, and their own times hold.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::path::RootPath;
use crate::store::view::{Marks, is_whiteout_stat, pipe_time};
use crate::sys::{RootDir, owner, xattr};

use super::{Error, Xattrs};

/// How many open directories are remembered.
const CACHED: usize = 24;

/// How many links one path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// How many bytes the paths of a layer's directories and deletions may have together.
const MAX_PATH_BYTES: usize = 512 << 20;

/// What entries of all kinds have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
}

/// A directory under construction.
struct Directory {
    /// `None` as long as the layer only implies it.
    attributes: Option<Attributes>,
    /// Attributes that would change what is made inside (default ACLs).
    late_xattrs: Xattrs,
}

/// The directory that a layer is unpacked into.
pub(super) struct Target {
    root: RootDir,
    marks: Marks,
    root_fd: Rc<OwnedFd>,
    cache: Vec<(RootPath, Rc<OwnedFd>)>,
    next_slot: usize,
    directories: BTreeMap<RootPath, Directory>,
    /// What was deleted from the layers below; a directory made in its place must hide the one below.
    whiteouts: BTreeSet<RootPath>,
    /// How many directories may still be made, and how many bytes of paths remembered.
    max_entries: u64,
    entries_left: u64,
    path_bytes_left: usize,
    /// The owner that new files have by themselves.
    own: Option<(u32, u32)>,
}

/// An open directory of the layer and where it really is.
pub(super) struct Parent {
    fd: Rc<OwnedFd>,
    path: RootPath,
}

impl Target {
    /// Opens the directory `path`, in which up to `max_entries` directories may be made.
    pub(super) fn open(path: &Path, marks: Marks, max_entries: u64) -> Result<Target, Error> {
        let fail = |source| Error::Entry { action: "open", path: RootPath::root(), root: path.to_owned(), source };
        let root = RootDir::open(path).map_err(fail)?;
        let fd = root.open_at(Path::new("."), OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), crate::sys::Links::Refuse).map_err(fail)?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| fail(errno.into()))?;
        let set_gid = stat.st_mode & 0o2000 != 0;
        let own = Target::own_owner();
        let mut directories = BTreeMap::new();
        directories.insert(RootPath::root(), Directory { attributes: None, late_xattrs: Vec::new() });
        Ok(Target {
            root,
            marks,
            root_fd: Rc::new(fd),
            cache: Vec::new(),
            next_slot: 0,
            directories,
            whiteouts: BTreeSet::new(),
            max_entries,
            entries_left: max_entries,
            path_bytes_left: MAX_PATH_BYTES,
            own: (!set_gid).then_some(own),
        })
    }

    pub(super) fn fail(&self, action: &'static str, path: &RootPath, source: impl Into<io::Error>) -> Error {
        Error::Entry { action, path: path.clone(), root: self.root.path().to_owned(), source: source.into() }
    }

    /// Counts a path that is remembered until the end: one short entry may imply thousands of long ones.
    pub(super) fn charge(&mut self, path: &RootPath) -> Result<(), Error> {
        let left = self.path_bytes_left.checked_sub(path.as_bytes().len());
        self.path_bytes_left = left.ok_or(Error::TooManyEntries { limit: self.max_entries })?;
        Ok(())
    }

    /// Where `path` really is: its directory with all links resolved and made where it is missing, and its last name.
    pub(super) fn locate(&mut self, path: &RootPath) -> Result<(Parent, RootPath), Error> {
        let parent = self.directory(&path.parent().unwrap_or_else(RootPath::root), true)?;
        let real = parent.path.join(path.file_name().unwrap_or_default());
        Ok((parent, real))
    }

    /// Opens the directory `path`, following links of the layer. With `create`, what is missing or in the way is made a directory.
    fn directory(&mut self, path: &RootPath, create: bool) -> Result<Parent, Error> {
        if path.is_root() {
            return Ok(Parent { fd: Rc::clone(&self.root_fd), path: RootPath::root() });
        }
        if let Some((_, fd)) = self.cache.iter().find(|(known, _)| known == path) {
            return Ok(Parent { fd: Rc::clone(fd), path: path.clone() });
        }
        let mut done = Parent { fd: Rc::clone(&self.root_fd), path: RootPath::root() };
        let mut todo: Vec<OsString> = Vec::new();
        let mut base = path.clone();
        while let Some(parent) = base.parent() {
            todo.push(base.file_name().unwrap_or_default().to_owned());
            if let Some((known, fd)) = self.cache.iter().find(|(known, _)| *known == parent) {
                done = Parent { fd: Rc::clone(fd), path: known.clone() };
                break;
            }
            base = parent;
        }
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                let up = done.path.parent().unwrap_or_else(RootPath::root);
                todo.extend(up.components().rev().map(OsStr::to_owned));
                done = Parent { fd: Rc::clone(&self.root_fd), path: RootPath::root() };
                continue;
            }
            match self.step(&done, &name, create)? {
                Step::Directory(next) => done = next,
                Step::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(self.fail("open", path, Errno::LOOP));
                    }
                    if target.first() == Some(&b'/') {
                        done = Parent { fd: Rc::clone(&self.root_fd), path: RootPath::root() };
                    }
                    let names = target.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
                    todo.extend(names.rev().map(|name| OsStr::from_bytes(name).to_owned()));
                }
                Step::Nothing => return Err(Error::NotADirectory { path: path.clone() }),
            }
        }
        Ok(done)
    }

    fn step(&mut self, from: &Parent, name: &OsStr, create: bool) -> Result<Step, Error> {
        let path = from.path.join(name);
        if let Some((_, fd)) = self.cache.iter().find(|(known, _)| *known == path) {
            return Ok(Step::Directory(Parent { fd: Rc::clone(fd), path }));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&from.fd, name, flags, Mode::empty()) {
            Ok(fd) => return Ok(Step::Directory(self.remember(path, fd))),
            Err(Errno::NOENT) if !create => return Ok(Step::Nothing),
            Err(Errno::NOENT) => {}
            // Something else is there.
            Err(Errno::NOTDIR | Errno::LOOP) => match rustix::fs::readlinkat(&from.fd, name, Vec::new()) {
                Ok(target) => return Ok(Step::Link(target.into_bytes())),
                Err(_) if !create => return Ok(Step::Nothing),
                Err(_) => self.remove(from, &path)?,
            },
            Err(errno) => return Err(self.fail("open", &path, errno)),
        }
        // Where a link leads to: the entry's own name was looked at before.
        if name.as_bytes().starts_with(b".wh.") {
            let name = path.as_bytes().escape_ascii().to_string();
            return Err(Error::BadName { name, reason: "a whiteout is no directory" });
        }
        self.make_directory(from, &path)?;
        let fd = rustix::fs::openat(&from.fd, name, flags, Mode::empty()).map_err(|errno| self.fail("open", &path, errno))?;
        Ok(Step::Directory(self.remember(path, fd)))
    }

    fn remember(&mut self, path: RootPath, fd: OwnedFd) -> Parent {
        let fd = Rc::new(fd);
        let slot = (path.clone(), Rc::clone(&fd));
        if self.cache.len() < CACHED {
            self.cache.push(slot);
        } else {
            self.cache[self.next_slot] = slot;
            self.next_slot = (self.next_slot + 1) % CACHED;
        }
        Parent { fd, path }
    }

    fn make_directory(&mut self, parent: &Parent, path: &RootPath) -> Result<(), Error> {
        let name = last_name(path);
        match rustix::fs::mkdirat(&parent.fd, name, Mode::RWXU) {
            Ok(()) => {}
            // A tree may be copied over another one; a layer's own directories do not get here twice.
            Err(Errno::EXIST) if is_directory(parent, name) => {}
            Err(errno) => return Err(self.fail("create", path, errno)),
        }
        self.entries_left = self.entries_left.checked_sub(1).ok_or(Error::TooManyEntries { limit: self.max_entries })?;
        self.charge(path)?;
        self.directories.insert(path.clone(), Directory { attributes: None, late_xattrs: Vec::new() });
        if self.whiteouts.contains(path) {
            self.set_opaque_at(parent, path)?;
        }
        Ok(())
    }

    /// Makes the directory `path`, or takes the one that is there, and gives it its attributes when all is done.
    pub(super) fn declare_directory(&mut self, path: &RootPath, attributes: Attributes, xattrs: Xattrs) -> Result<u64, Error> {
        let (parent, path) = if path.is_root() {
            (Parent { fd: Rc::clone(&self.root_fd), path: RootPath::root() }, RootPath::root())
        } else {
            let (parent, path) = self.locate(path)?;
            if !self.directories.contains_key(&path) {
                self.with_room(&parent, &path, |target| target.make_directory(&parent, &path))?;
            }
            (parent, path)
        };
        // ACLs bear on what is made inside: they wait.
        let (late, now): (Vec<_>, Vec<_>) = xattrs.into_iter().partition(|(name, _)| name.starts_with(b"system."));
        let refused = self.set_xattrs(&parent, &path, &now)?;
        if let Some(directory) = self.directories.get_mut(&path) {
            *directory = Directory { attributes: Some(attributes), late_xattrs: late };
        }
        Ok(refused)
    }

    /// The owner of what this process makes.
    pub(super) fn own_owner() -> (u32, u32) {
        owner::own()
    }

    /// Creates an empty file for writing.
    pub(super) fn create_file(&mut self, parent: &Parent, path: &RootPath) -> Result<OwnedFd, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut made = None;
        self.with_room(parent, path, |target| {
            let mode = Mode::RUSR | Mode::WUSR;
            made = Some(rustix::fs::openat(&parent.fd, last_name(path), flags, mode).map_err(|errno| target.fail("create", path, errno))?);
            Ok(())
        })?;
        made.ok_or_else(|| self.fail("create", path, Errno::EXIST))
    }

    /// Gives an open file its owner, mode, extended attributes and times, in the order in which none undoes another.
    pub(super) fn finish_file(
        &self,
        file: &OwnedFd,
        path: &RootPath,
        attributes: &Attributes,
        xattrs: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<u64, Error> {
        if self.own != Some((attributes.uid, attributes.gid)) {
            let (uid, gid) = kernel_owner(attributes);
            rustix::fs::fchown(file, uid, gid).map_err(|errno| self.fail("change the owner of", path, errno))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(attributes.mode)).map_err(|errno| self.fail("change the mode of", path, errno))?;
        let refused = self.count_refused(path, xattrs, |name, value| xattr::set_open(file, name, value))?;
        rustix::fs::futimens(file, &times(attributes)).map_err(|errno| self.fail("set the times of", path, errno))?;
        Ok(refused)
    }

    /// Creates a symbolic link.
    pub(super) fn create_symlink(&mut self, parent: &Parent, path: &RootPath, to: &[u8], attributes: &Attributes) -> Result<(), Error> {
        self.with_room(parent, path, |target| {
            let made = rustix::fs::symlinkat(OsStr::from_bytes(to), &parent.fd, last_name(path));
            made.map_err(|errno| target.fail("create", path, errno))
        })?;
        self.set_owner(parent, path, attributes)?;
        self.set_times(parent, path, attributes)
    }

    /// Creates a device or a pipe.
    pub(super) fn create_node(
        &mut self,
        parent: &Parent,
        path: &RootPath,
        kind: FileType,
        rdev: (u32, u32),
        attributes: &Attributes,
    ) -> Result<(), Error> {
        let device = rustix::fs::makedev(rdev.0, rdev.1);
        if kind == FileType::CharacterDevice && rdev == (0, 0) {
            // Layers that were packed from an overlay's own directory have these: to the kernel they are no devices but deletions.
            return self.delete(parent, path.clone());
        }
        let mtime = if kind == FileType::Fifo { pipe_time(attributes.mode, attributes.mtime) } else { attributes.mtime };
        let attributes = &Attributes { mtime, ..*attributes };
        self.with_room(parent, path, |target| {
            let made = rustix::fs::mknodat(&parent.fd, last_name(path), kind, Mode::RUSR | Mode::WUSR, device);
            made.map_err(|errno| match (kind, errno) {
                (FileType::Fifo, _) | (_, Errno::EXIST) => target.fail("create", path, errno),
                _ => Error::Device { path: path.clone(), source: errno.into() },
            })
        })?;
        self.set_owner(parent, path, attributes)?;
        self.set_mode(parent, path, attributes)?;
        self.set_times(parent, path, attributes)
    }

    /// Makes `path` another name of `to`, which must be in the layer and no directory. What a file is like is said by the last entry that it has (as in containerd).
    pub(super) fn link(&mut self, parent: &Parent, path: &RootPath, to: &RootPath, attributes: &Attributes) -> Result<(), Error> {
        let missing = || Error::HardLinkTarget { path: path.clone(), target: to.clone() };
        let from = self.directory(&to.parent().unwrap_or_else(RootPath::root), false).map_err(|_| missing())?;
        let real = from.path.join(to.file_name().unwrap_or_default());
        if self.directories.contains_key(&real) || (path.starts_with(&real) && *path != real) {
            return Err(missing());
        }
        let stat = rustix::fs::statat(&from.fd, last_name(&real), AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        if is_whiteout_stat(&stat) {
            return Err(missing());
        }
        if real == *path {
            // GNU tar writes this for a file that it was given twice.
            return Ok(());
        }
        self.with_room(parent, path, |target| {
            let made = rustix::fs::linkat(&from.fd, last_name(&real), &parent.fd, last_name(path), AtFlags::empty());
            made.map_err(|errno| target.fail("create", path, errno))
        })?;
        self.change(parent, path, &stat, attributes)
    }

    /// Gives what is `known` and no directory other attributes. What is so already is left alone: a new owner takes capabilities away, and these come with a file's first entry.
    fn change(&self, parent: &Parent, path: &RootPath, known: &Stat, attributes: &Attributes) -> Result<(), Error> {
        let (uid, gid) = kernel_owner(attributes);
        let is_given = uid.is_some_and(|uid| uid.as_raw() != known.st_uid) || gid.is_some_and(|gid| gid.as_raw() != known.st_gid);
        if is_given {
            let set = rustix::fs::chownat(&parent.fd, last_name(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW);
            set.map_err(|errno| self.fail("change the owner of", path, errno))?;
        }
        let kind = FileType::from_raw_mode(known.st_mode);
        if kind != FileType::Symlink && (is_given || known.st_mode & 0o7777 != attributes.mode) {
            self.set_mode(parent, path, attributes)?;
        }
        let mtime = if kind == FileType::Fifo { pipe_time(attributes.mode, attributes.mtime) } else { attributes.mtime };
        let attributes = &Attributes { mtime, ..*attributes };
        if (known.st_mtime, u64::from(attributes.mtime.1)) == (attributes.mtime.0, known.st_mtime_nsec) {
            return Ok(());
        }
        self.set_times(parent, path, attributes)
    }

    /// Records that `path` is deleted from the layers below. What this layer has there stays, whichever came first: only layers above can delete it (image-spec 1.1,
    /// "Whiteouts").
    pub(super) fn whiteout(&mut self, path: &RootPath) -> Result<(), Error> {
        let (parent, path) = self.locate(path)?;
        match rustix::fs::statat(&parent.fd, last_name(&path), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => self.set_opaque_at(&parent, &path)?,
            Ok(_) => {}
            Err(Errno::NOENT) => return self.delete(&parent, path),
            Err(errno) => return Err(self.fail("look at", &path, errno)),
        }
        self.charge(&path)?;
        self.whiteouts.insert(path);
        Ok(())
    }

    /// Makes the mark of a deletion, in place of what the layer had there.
    fn delete(&mut self, parent: &Parent, path: RootPath) -> Result<(), Error> {
        self.with_room(parent, &path, |target| {
            let made = target.marks.make_whiteout(parent.fd.as_fd(), last_name(&path));
            made.map_err(|errno| target.fail("create", &path, errno))
        })?;
        self.charge(&path)?;
        self.whiteouts.insert(path);
        Ok(())
    }

    /// Makes the directory `path` hide the one below it.
    pub(super) fn set_opaque(&mut self, path: &RootPath) -> Result<(), Error> {
        let directory = self.directory(path, true)?;
        let set = self.marks.set_opaque_at(directory.fd.as_fd(), Path::new("."));
        set.map_err(|source| self.fail("hide what is below", path, source))
    }

    fn set_opaque_at(&self, parent: &Parent, path: &RootPath) -> Result<(), Error> {
        let set = self.marks.set_opaque_at(parent.fd.as_fd(), Path::new(last_name(path)));
        set.map_err(|source| self.fail("hide what is below", path, source))
    }

    pub(super) fn set_xattrs(&self, parent: &Parent, path: &RootPath, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<u64, Error> {
        self.count_refused(path, xattrs, |name, value| xattr::set(parent.fd.as_fd(), Path::new(last_name(path)), name, value))
    }

    /// Sets attributes; counts those that this file system or this user cannot have, which is no error to Docker either.
    fn count_refused(
        &self,
        path: &RootPath,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        set: impl Fn(&OsStr, &[u8]) -> io::Result<()>,
    ) -> Result<u64, Error> {
        let mut refused = 0;
        for (name, value) in xattrs {
            match set(OsStr::from_bytes(name), value) {
                Ok(()) => {}
                Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTSUP | Errno::PERM)) => refused += 1,
                Err(error) => return Err(self.fail("set an attribute of", path, error)),
            }
        }
        Ok(refused)
    }

    fn set_owner(&self, parent: &Parent, path: &RootPath, attributes: &Attributes) -> Result<(), Error> {
        if self.own == Some((attributes.uid, attributes.gid)) {
            return Ok(());
        }
        let (uid, gid) = kernel_owner(attributes);
        let set = rustix::fs::chownat(&parent.fd, last_name(path), uid, gid, AtFlags::SYMLINK_NOFOLLOW);
        set.map_err(|errno| self.fail("change the owner of", path, errno))
    }

    /// Only for what was just made and is no link: the system call follows links.
    fn set_mode(&self, parent: &Parent, path: &RootPath, attributes: &Attributes) -> Result<(), Error> {
        let set = rustix::fs::chmodat(&parent.fd, last_name(path), Mode::from_raw_mode(attributes.mode), AtFlags::empty());
        set.map_err(|errno| self.fail("change the mode of", path, errno))
    }

    fn set_times(&self, parent: &Parent, path: &RootPath, attributes: &Attributes) -> Result<(), Error> {
        let set = rustix::fs::utimensat(&parent.fd, last_name(path), &times(attributes), AtFlags::SYMLINK_NOFOLLOW);
        set.map_err(|errno| self.fail("set the times of", path, errno))
    }

    /// Makes something; where another entry has the name, that one goes first.
    fn with_room(&mut self, parent: &Parent, path: &RootPath, mut make: impl FnMut(&mut Target) -> Result<(), Error>) -> Result<(), Error> {
        match make(self) {
            Err(Error::Entry { action: "create", source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                self.remove(parent, path)?;
                make(self)
            }
            other => other,
        }
    }

    /// Removes whatever the layer has at `path` so far.
    fn remove(&mut self, parent: &Parent, path: &RootPath) -> Result<(), Error> {
        // Any of the remembered directories might be gone afterwards, or be reached another way.
        self.cache.clear();
        self.next_slot = 0;
        let below = self.directories.range(path.clone()..).take_while(|(known, _)| !past(known, path));
        let below: Vec<RootPath> = below.map(|(known, _)| known.clone()).filter(|known| known.starts_with(path)).collect();
        for known in &below {
            self.directories.remove(known);
        }
        let removed = remove_tree(parent.fd.as_fd(), Path::new(last_name(path)));
        removed.map_err(|source| self.fail("replace", path, source))
    }

    /// Gives the directories their attributes, children first; those that were only implied get `implied`, or stay as they are. Says which ones those are,
    /// and how many extended attributes were refused.
    pub(super) fn finish(&mut self, implied_attributes: Option<Attributes>) -> Result<(Vec<RootPath>, u64), Error> {
        let mut implied = Vec::new();
        let mut refused = 0;
        let directories = std::mem::take(&mut self.directories);
        for (path, directory) in directories.into_iter().rev() {
            let parent = if path.is_root() {
                self.directory(&path, false)?
            } else {
                self.directory(&path.parent().unwrap_or_else(RootPath::root), false)?
            };
            if directory.attributes.is_none() {
                implied.push(path.clone());
            }
            let Some(attributes) = directory.attributes.or(implied_attributes) else { continue };
            self.set_owner(&parent, &path, &attributes)?;
            self.set_mode(&parent, &path, &attributes)?;
            refused += self.set_xattrs(&parent, &path, &directory.late_xattrs)?;
            self.set_times(&parent, &path, &attributes)?;
        }
        implied.reverse();
        Ok((implied, refused))
    }
}

fn is_directory(parent: &Parent, name: &OsStr) -> bool {
    let stat = rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

enum Step {
    Directory(Parent),
    Link(Vec<u8>),
    Nothing,
}

/// Whether `known` sorts after everything below `path`.
fn past(known: &RootPath, path: &RootPath) -> bool {
    let prefix = path.as_bytes();
    let at = known.as_bytes();
    !at.starts_with(prefix) || at.get(prefix.len()).is_some_and(|byte| *byte > b'/')
}

fn last_name(path: &RootPath) -> &OsStr {
    path.file_name().unwrap_or(OsStr::new("."))
}

fn kernel_owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    owner::for_kernel(attributes.uid, attributes.gid)
}

fn times(attributes: &Attributes) -> Timestamps {
    let (seconds, nanoseconds) = attributes.mtime;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}

/// Removes `name` in `dir` with all that is below it. Follows nothing, and goes down without recursion: names nest as deep as they like.
fn remove_tree(dir: std::os::fd::BorrowedFd<'_>, name: &Path) -> io::Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => {}
        other => return Ok(other?),
    }
    let mut pending: Vec<PathBuf> = vec![name.to_owned()];
    while let Some(path) = pending.last() {
        match rustix::fs::unlinkat(dir, path, AtFlags::REMOVEDIR) {
            Ok(()) => {
                pending.pop();
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                let path = path.clone();
                empty_directory(dir, &path, &mut pending)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn empty_directory(dir: std::os::fd::BorrowedFd<'_>, path: &Path, pending: &mut Vec<PathBuf>) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(dir, path, flags, Mode::empty())?;
    for entry in rustix::fs::Dir::read_from(&fd)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match rustix::fs::unlinkat(&fd, name, AtFlags::empty()) {
            Ok(()) => {}
            Err(Errno::ISDIR) => pending.push(path.join(name)),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
