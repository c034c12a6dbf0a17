//! Writes a snapshot in overlay form above a base, without mounting the two.
//!
//! An [`UpperDir`] is a directory of the new layer together with the merged directory below it. Opening one copies the directory up if only the base has
//! it. Its final owner, mode, attributes and times are set when the last handle is dropped, and a handle keeps those of the directories above it: so a
//! directory is finished after everything in it, by whichever thread is last, and nothing inherits from a parent (set-group-ID, ACLs) by accident. What
//! fails then is kept for [`Upper::finish`]. A layer that was not finished without error is garbage.
//!
//! Whatever gets no time of its own gets one and the same: that at which the layer was begun.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::copy::Owner;
use super::error::Error;
use crate::image::layer::DirectoryHead;
use crate::path::RootPath;
use crate::store::view::{MergedDir, MergedView, pipe_time};
use crate::sys::inode::{self, Xattrs};
use crate::sys::tree::{Kind, Metadata};
use crate::sys::{Links, RootDir, owner};

/// What an entry of the new layer gets.
#[derive(Clone, Debug)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    pub(super) xattrs: Xattrs,
}

/// When an entry was modified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mtime {
    /// When the layer was begun.
    Now,
    /// At this time.
    At((i64, u32)),
    /// At this time, unless the directory got a new entry meanwhile: then it is [`Mtime::Now`].
    Unchanged((i64, u32)),
}

/// What a directory gets that is made on the way to something else. Below a directory with set-group-ID it has that bit too, as `mkdir(2)` makes it, and the
/// group unless it gets an owner.
#[derive(Clone, Copy, Debug)]
pub(super) struct MadeDirectory {
    pub(super) mode: u32,
    /// `None` is root.
    pub(super) owner: Option<Owner>,
    pub(super) mtime: Mtime,
}

impl MadeDirectory {
    pub(super) fn below(&self, parent: &UpperDir) -> Attributes {
        let inherited = parent.passes_group();
        let mode = if inherited.is_some() { self.mode | 0o2000 } else { self.mode };
        let owner = self.owner.unwrap_or(Owner { uid: 0, gid: inherited.unwrap_or(0) });
        Attributes { mode, uid: owner.uid, gid: owner.gid, mtime: self.mtime, xattrs: Vec::new() }
    }
}

/// What happens to a directory that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It keeps its attributes.
    Keep,
    /// One of the base keeps its attributes except for the mode.
    KeepAllBut {
        /// The new one.
        mode: u32,
    },
    /// It gets the new ones.
    Overwrite,
}

/// What a new entry may replace, if it is no directory itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Anything but a directory: COPY.
    Files,
    /// Directories too, with all that is in them: archives.
    Anything,
}

/// A layer being written.
pub(super) struct Upper<'a> {
    base: &'a MergedView,
    tree: RootDir,
    root: Arc<UpperDir>,
    shared: Arc<Shared>,
    umask: u32,
    process: (u32, u32),
}

/// A directory of the layer.
pub(super) struct UpperDir {
    fd: OwnedFd,
    path: RootPath,
    lower: Option<Arc<MergedDir>>,
    setgid: bool,
    last: Mutex<Option<Attributes>>,
    /// The time of one that was there before this layer's writer entered it, where it gets another.
    retimed: Mutex<Option<Mtime>>,
    changed: AtomicBool,
    /// What was said of it before it was finished.
    promised: Mutex<Option<DirectoryHead>>,
    shared: Arc<Shared>,
    /// Kept so that it is finished after this one.
    parent: Option<Arc<UpperDir>>,
}

#[derive(Default)]
struct Shared {
    /// When the layer was begun: seconds and nanoseconds since the epoch.
    begun: (i64, u32),
    failure: Mutex<Option<Error>>,
    warnings: Mutex<Vec<String>>,
    dropped_xattrs: AtomicBool,
    /// A directory has not become what was promised.
    broken_promise: AtomicBool,
}

/// What is to be said of a layer that is finished.
pub(super) struct FinishedLayer {
    pub(super) warnings: Vec<String>,
    /// Whether everything in it has become what was said of it meanwhile.
    pub(super) as_promised: bool,
}

impl<'a> Upper<'a> {
    /// Opens the directory `upper`. Its root gets the base's attributes.
    pub(super) fn open(base: &'a MergedView, upper: &Path) -> Result<Upper<'a>, Error> {
        let failed = |source: io::Error| Error::OpenLayer { path: upper.to_owned(), source };
        let tree = RootDir::open(upper).map_err(failed)?;
        let fd = tree.open_at(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty(), Links::Refuse).map_err(failed)?;
        let lower = base.root();
        let shared = Arc::new(Shared { begun: now(), ..Shared::default() });
        let last = if base.layers().is_empty() {
            // A layer of its own: the root is as any image has it, not as the directory was made.
            Attributes { mode: 0o755, uid: 0, gid: 0, mtime: Mtime::Now, xattrs: Vec::new() }
        } else {
            copied_up(&lower).map_err(|source| Error::ReadBase { path: RootPath::root(), source })?
        };
        let root = Arc::new(UpperDir {
            fd,
            path: RootPath::root(),
            lower: Some(lower),
            setgid: false,
            last: Mutex::new(Some(last)),
            retimed: Mutex::default(),
            changed: AtomicBool::new(false),
            promised: Mutex::default(),
            shared: Arc::clone(&shared),
            parent: None,
        });
        Ok(Upper { base, tree, root, shared, umask: umask(), process: owner::own() })
    }

    pub(super) fn root(&self) -> Arc<UpperDir> {
        Arc::clone(&self.root)
    }

    pub(super) fn base(&self) -> &'a MergedView {
        self.base
    }

    pub(super) fn warn(&self, text: String) {
        self.shared.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Closes the layer; all other handles must be gone.
    pub(super) fn finish(self) -> Result<FinishedLayer, Error> {
        let Upper { root, shared, .. } = self;
        drop(root);
        if let Some(failure) = shared.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(failure);
        }
        let warnings = std::mem::take(&mut *shared.warnings.lock().unwrap_or_else(PoisonError::into_inner));
        let as_promised = !shared.broken_promise.load(Ordering::Relaxed) && !shared.dropped_xattrs.load(Ordering::Relaxed);
        Ok(FinishedLayer { warnings, as_promised })
    }

    /// What `name` in `directory` is now.
    pub(super) fn entry(&self, directory: &UpperDir, name: &OsStr) -> Result<Option<Metadata>, Error> {
        match rustix::fs::statat(&directory.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => inode::metadata(&stat).map(Some).map_err(|source| directory.write_error(name, source)),
            Err(Errno::NOENT) => directory.lower_entry(name),
            Err(error) => Err(directory.write_error(name, error.into())),
        }
    }

    /// Whether the layer itself has `name` in `directory`.
    pub(super) fn has_own(&self, directory: &UpperDir, name: &OsStr) -> Result<bool, Error> {
        match rustix::fs::statat(&directory.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(directory.write_error(name, error.into())),
        }
    }

    /// The target of the link `name` in `directory`.
    pub(super) fn read_link(&self, directory: &UpperDir, name: &OsStr) -> Result<std::ffi::OsString, Error> {
        use std::os::unix::ffi::OsStringExt;
        let failed = |source| Error::ReadBase { path: directory.path.join(name), source };
        match (rustix::fs::readlinkat(&directory.fd, name, Vec::new()), &directory.lower) {
            (Ok(target), _) => Ok(std::ffi::OsString::from_vec(target.into_bytes())),
            (Err(Errno::NOENT), Some(lower)) => lower.read_link(name).map_err(failed),
            (Err(error), _) => Err(failed(error.into())),
        }
    }

    /// Opens the directory `name` in `parent`, made with `new` if it is missing. Anything else there is an error.
    pub(super) fn enter(
        &self,
        parent: &Arc<UpperDir>,
        name: &OsStr,
        new: impl FnOnce() -> Result<Attributes, Error>,
        existing: Existing,
    ) -> Result<Arc<UpperDir>, Error> {
        let path = parent.path.join(name);
        let read_error = |source| Error::ReadBase { path: parent.path.join(name), source };
        let mut lower = match &parent.lower {
            Some(lower) => self.base.subdirectory(lower, name).map_err(read_error)?,
            None => None,
        };
        let mut setgid = false;
        let last = match rustix::fs::mkdirat(&parent.fd, name, Mode::RWXU) {
            Ok(()) => match &lower {
                Some(lower) if existing == Existing::Overwrite => {
                    let mut new = new()?;
                    // Extended attributes come to those that are there.
                    let kept = lower.xattrs().map_err(read_error)?;
                    new.xattrs
                        .extend(kept.into_iter().filter(|(name, _)| new.xattrs.iter().all(|(other, _)| other != name)).collect::<Vec<_>>());
                    Some(new)
                }
                Some(lower) => {
                    let mut kept = copied_up(lower).map_err(read_error)?;
                    if let Existing::KeepAllBut { mode } = existing {
                        kept.mode = mode;
                    }
                    Some(kept)
                }
                None => {
                    if parent.lower_entry(name)?.is_some() {
                        return Err(Error::NotADirectory { path });
                    }
                    parent.changed.store(true, Ordering::Relaxed);
                    Some(new()?)
                }
            },
            Err(Errno::EXIST) if existing == Existing::Overwrite => Some(new()?),
            Err(Errno::EXIST) => None,
            Err(error) => return Err(parent.write_error(name, error.into())),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&parent.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(Error::NotADirectory { path }),
            Err(error) => return Err(parent.write_error(name, error.into())),
        };
        if last.is_none() {
            let stat = rustix::fs::fstat(&fd).map_err(|error| parent.write_error(name, error.into()))?;
            setgid = stat.st_mode & 0o2000 != 0;
        }
        if lower.is_some() && self.base.marks().is_opaque(&fd).map_err(read_error)? {
            lower = None;
        }
        Ok(self.opened(parent, name, fd, lower, setgid, last))
    }

    fn opened(
        &self,
        parent: &Arc<UpperDir>,
        name: &OsStr,
        fd: OwnedFd,
        lower: Option<Arc<MergedDir>>,
        setgid: bool,
        last: Option<Attributes>,
    ) -> Arc<UpperDir> {
        Arc::new(UpperDir {
            fd,
            path: parent.path.join(name),
            lower,
            setgid,
            last: Mutex::new(last),
            retimed: Mutex::default(),
            changed: AtomicBool::new(false),
            promised: Mutex::default(),
            shared: Arc::clone(&self.shared),
            parent: Some(Arc::clone(parent)),
        })
    }

    /// Opens the directory `path`, taken literally, with its parents; missing ones are made as `new` says.
    pub(super) fn enter_all(&self, path: &RootPath, new: &MadeDirectory) -> Result<Arc<UpperDir>, Error> {
        let mut directory = self.root();
        for name in path.components() {
            directory = self.enter(&directory, name, || Ok(new.below(&directory)), Existing::Keep)?;
        }
        Ok(directory)
    }

    /// Opens the directory `name` in `parent` like [`Upper::enter`]; what is there and no directory is replaced. What it hid stays hidden.
    pub(super) fn enter_over(&self, parent: &Arc<UpperDir>, name: &OsStr, new: &Attributes) -> Result<Arc<UpperDir>, Error> {
        let own = match rustix::fs::statat(&parent.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(parent.write_error(name, error.into())),
        };
        let base_has_directory = parent.lower_entry(name)?.map(|metadata| metadata.kind == Kind::Directory);
        if own == Some(true) || (own.is_none() && base_has_directory != Some(false)) {
            return self.enter(parent, name, || Ok(new.clone()), Existing::Overwrite);
        }
        let fd = self.place(parent, name, Over::Anything, |fd| {
            rustix::fs::mkdirat(fd, name, Mode::RWXU)?;
            rustix::fs::openat(fd, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        })?;
        if base_has_directory == Some(true) {
            let here = Path::new(".");
            self.base.marks().set_opaque_at(fd.as_fd(), here).map_err(|error| parent.write_error(name, error))?;
        }
        Ok(self.opened(parent, name, fd, None, false, Some(new.clone())))
    }

    /// Makes the entry `name` by `make`, in place of what `over` allows.
    pub(super) fn place<T>(
        &self,
        directory: &UpperDir,
        name: &OsStr,
        over: Over,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, Error> {
        let covers = || directory.lower_entry(name).map(|entry| entry.is_some_and(|metadata| metadata.kind == Kind::Directory));
        if over == Over::Files && covers()? {
            return Err(Error::IsADirectory { path: directory.path.join(name) });
        }
        directory.changed.store(true, Ordering::Relaxed);
        loop {
            match make(directory.fd.as_fd()) {
                Ok(made) => return Ok(made),
                Err(Errno::EXIST) => match rustix::fs::unlinkat(&directory.fd, name, AtFlags::empty()) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::ISDIR) if over == Over::Files => return Err(Error::IsADirectory { path: directory.path.join(name) }),
                    Err(Errno::ISDIR) => remove_tree(&directory.fd, name).map_err(|error| directory.write_error(name, error))?,
                    Err(error) => return Err(directory.write_error(name, error.into())),
                },
                Err(Errno::INTR) => {}
                Err(error) => return Err(directory.write_error(name, error.into())),
            }
        }
    }

    /// Makes a regular file, to be written and then given its attributes by [`Upper::finish_file`].
    pub(super) fn create(&self, directory: &UpperDir, name: &OsStr, over: Over, mode: u32) -> Result<OwnedFd, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.place(directory, name, over, |fd| rustix::fs::openat(fd, name, flags, Mode::from_raw_mode(mode & 0o777)))
    }

    /// Gives a file that was just created with the mode of `attributes` the rest of them.
    pub(super) fn finish_file(&self, directory: &UpperDir, name: &OsStr, fd: &OwnedFd, attributes: &Attributes) -> Result<(), Error> {
        let failed = |error: Errno| directory.write_error(name, error.into());
        let owned = (attributes.uid, attributes.gid) == self.process && !directory.setgid;
        if !owned {
            let (uid, gid) = owner::for_kernel(attributes.uid, attributes.gid);
            let refused = |errno| directory.write_error(name, owner::explain(errno, attributes.uid, attributes.gid));
            rustix::fs::fchown(fd, uid, gid).map_err(refused)?;
        }
        // After the owner: changing that clears set-user-ID. What the process's mask took away is given back.
        if attributes.mode & (0o7000 | self.umask) != 0 {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(attributes.mode)).map_err(failed)?;
        }
        if !attributes.xattrs.is_empty() {
            let path = directory.path.join(name);
            self.shared.set_xattrs(&attributes.xattrs, &path, |attribute, value| inode::set_xattr(fd, attribute, value));
        }
        rustix::fs::futimens(fd, &times(attributes.mtime, false, self.shared.begun)).map_err(failed)
    }

    /// Gives a link or node its attributes.
    pub(super) fn finish_node(&self, directory: &UpperDir, name: &OsStr, kind: Kind, attributes: &Attributes) -> Result<(), Error> {
        let failed = |error: Errno| directory.write_error(name, error.into());
        let (uid, gid) = owner::for_kernel(attributes.uid, attributes.gid);
        let refused = |errno| directory.write_error(name, owner::explain(errno, attributes.uid, attributes.gid));
        rustix::fs::chownat(&directory.fd, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(refused)?;
        if kind != Kind::Symlink {
            rustix::fs::chmodat(&directory.fd, name, Mode::from_raw_mode(attributes.mode), AtFlags::empty()).map_err(failed)?;
        }
        let fd = directory.fd.as_fd();
        self.shared
            .set_xattrs(&attributes.xattrs, &directory.path.join(name), |attribute, value| inode::set_xattr_at(fd, name, attribute, value));
        let mtime = match attributes.mtime {
            Mtime::At(time) if kind == Kind::Fifo => Mtime::At(pipe_time(attributes.mode, time)),
            other => other,
        };
        let times = times(mtime, false, self.shared.begun);
        rustix::fs::utimensat(&directory.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)
    }

    /// Makes a symbolic link.
    pub(super) fn symlink(
        &self,
        directory: &UpperDir,
        name: &OsStr,
        over: Over,
        target: &OsStr,
        attributes: &Attributes,
    ) -> Result<(), Error> {
        self.place(directory, name, over, |fd| rustix::fs::symlinkat(target, fd, name))?;
        self.finish_node(directory, name, Kind::Symlink, attributes)
    }

    /// Makes a device or a pipe. Returns whether it could: 0/0 is not a device but says in a layer that there is nothing, and without privileges there are
    /// no devices at all.
    pub(super) fn node(
        &self,
        directory: &UpperDir,
        name: &OsStr,
        over: Over,
        kind: Kind,
        rdev: (u32, u32),
        attributes: &Attributes,
    ) -> Result<bool, Error> {
        let file_type = match kind {
            Kind::CharDevice if rdev != (0, 0) => FileType::CharacterDevice,
            Kind::BlockDevice => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            _ => return Ok(false),
        };
        let device = rustix::fs::makedev(rdev.0, rdev.1);
        let mode = Mode::from_raw_mode(attributes.mode & 0o777);
        let made = self.place(directory, name, over, |fd| match rustix::fs::mknodat(fd, name, file_type, mode, device) {
            Ok(()) => Ok(true),
            Err(Errno::PERM) => Ok(false),
            Err(error) => Err(error),
        })?;
        if !made {
            return Ok(false);
        }
        self.finish_node(directory, name, kind, attributes)?;
        Ok(true)
    }

    /// Makes `name` another name of the entry `target`, which must be in this layer.
    pub(super) fn hard_link(&self, directory: &UpperDir, name: &OsStr, over: Over, target: &RootPath) -> Result<(), Error> {
        let failed = |source| directory.write_error(name, source);
        let (parent, last) = self.tree.open_parent(target.relative(), Links::Refuse).map_err(failed)?;
        self.place(directory, name, over, |fd| rustix::fs::linkat(&parent, last, fd, name, AtFlags::empty()))
    }

    /// Sets the attributes of a directory of this layer that was closed before.
    pub(super) fn reopen_and_set(&self, path: &RootPath, attributes: &Attributes) -> Result<(), Error> {
        let failed = |source: io::Error| Error::Write { path: path.clone(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = match self.tree.open_at(path.relative(), flags, Mode::empty(), Links::Refuse) {
            Ok(fd) => fd,
            // Replaced by something else since.
            Err(error)
                if matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) =>
            {
                return Ok(());
            }
            Err(error) => return Err(failed(error)),
        };
        set_directory(&fd, path, attributes, false, &self.shared).map_err(failed)
    }
}

impl UpperDir {
    pub(super) fn path(&self) -> &RootPath {
        &self.path
    }

    /// The directory's descriptor.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The directories of the layer on the way to this one, which is the last; without the root.
    pub(super) fn way(self: &Arc<UpperDir>) -> Vec<Arc<UpperDir>> {
        let mut way = Vec::new();
        let mut at = self;
        while let Some(parent) = &at.parent {
            way.push(Arc::clone(at));
            at = parent;
        }
        way.reverse();
        way
    }

    /// Whether the base has something under this name.
    pub(super) fn covers(&self, name: &OsStr) -> Result<bool, Error> {
        Ok(self.lower_entry(name)?.is_some())
    }

    /// Whether the base has this directory.
    pub(super) fn in_base(&self) -> bool {
        self.lower.is_some()
    }

    /// Gives the directory this time in the end.
    pub(super) fn set_mtime(&self, mtime: Mtime) {
        match &mut *self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(last) => last.mtime = mtime,
            None => *self.retimed.lock().unwrap_or_else(PoisonError::into_inner) = Some(mtime),
        }
    }

    /// The group that what is made in it gets, if that is its own.
    fn passes_group(&self) -> Option<u32> {
        let (mode, gid) = match &*self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(last) => (last.mode, last.gid),
            None => {
                let stat = rustix::fs::fstat(&self.fd).ok()?;
                (stat.st_mode, owner::of(&stat).1)
            }
        };
        (mode & 0o2000 != 0).then_some(gid)
    }

    /// Says what the directory will be, supposing that it gets new entries or not; whether that comes true is found out in the end. `None` where it was there
    /// before this layer's writer entered it.
    pub(super) fn promise(&self, gets_entries: bool) -> Option<DirectoryHead> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Attributes { mode, uid, gid, mtime, xattrs } = last.as_ref()?;
        let (mtime, _) = mtime.resolve(gets_entries, self.shared.begun);
        let head = DirectoryHead { mode: *mode, uid: *uid, gid: *gid, mtime, xattrs: xattrs.clone() };
        *self.promised.lock().unwrap_or_else(PoisonError::into_inner) = Some(head.clone());
        Some(head)
    }

    /// What the base has under this name.
    pub(super) fn lower_entry(&self, name: &OsStr) -> Result<Option<Metadata>, Error> {
        match &self.lower {
            Some(lower) => lower.entry(name).map_err(|source| Error::ReadBase { path: self.path.join(name), source }),
            None => Ok(None),
        }
    }

    pub(super) fn write_error(&self, name: &OsStr, source: io::Error) -> Error {
        Error::Write { path: self.path.join(name), source }
    }
}

impl Drop for UpperDir {
    fn drop(&mut self) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let retimed = self.retimed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let changed = self.changed.load(Ordering::Relaxed);
        let set = match (&last, retimed) {
            (Some(last), _) => set_directory(&self.fd, &self.path, last, changed, &self.shared),
            (None, Some(mtime)) => rustix::fs::futimens(&self.fd, &times(mtime, changed, self.shared.begun)).map_err(io::Error::from),
            (None, None) => return,
        };
        if let Err(source) = set {
            let mut failure = self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert(Error::Write { path: self.path.clone(), source });
        }
        if let Some(head) = self.promised.lock().unwrap_or_else(PoisonError::into_inner).take()
            && !is_kept(&self.fd, &head)
        {
            self.shared.broken_promise.store(true, Ordering::Relaxed);
        }
    }
}

impl Mtime {
    /// The time that is meant in a layer that was begun at `begun`.
    fn resolve(self, changed: bool, begun: (i64, u32)) -> (i64, u32) {
        match self {
            Mtime::Now => begun,
            Mtime::Unchanged(_) if changed => begun,
            Mtime::At(time) | Mtime::Unchanged(time) => time,
        }
    }
}

fn is_kept(directory: &OwnedFd, head: &DirectoryHead) -> bool {
    let Ok(stat) = rustix::fs::fstat(directory) else { return false };
    (stat.st_mode & 0o7777, owner::of(&stat), stat.st_mtime) == (head.mode, (head.uid, head.gid), head.mtime)
}

impl Shared {
    /// Sets extended attributes. One that cannot be set is left out, as everywhere in this field: the file system may not have them, or not allow them.
    fn set_xattrs(&self, xattrs: &Xattrs, path: &RootPath, set: impl Fn(&OsStr, &[u8]) -> io::Result<()>) {
        for (attribute, value) in xattrs {
            // A label of this machine's policy means nothing in an image, and an archive must not tell overlayfs what to do.
            let name = attribute.as_encoded_bytes();
            if name == b"security.selinux" || name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                continue;
            }
            let Err(error) = set(attribute, value) else { continue };
            if !self.dropped_xattrs.swap(true, Ordering::Relaxed) {
                let text = format!(
                    "cannot set the extended attribute `{}` of `{path}` ({error}); it is left out there and elsewhere",
                    attribute.display()
                );
                self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(text);
            }
        }
    }
}

fn set_directory(fd: &OwnedFd, path: &RootPath, attributes: &Attributes, changed: bool, shared: &Shared) -> io::Result<()> {
    let (uid, gid) = owner::for_kernel(attributes.uid, attributes.gid);
    rustix::fs::fchown(fd, uid, gid).map_err(|errno| owner::explain(errno, attributes.uid, attributes.gid))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(attributes.mode))?;
    shared.set_xattrs(&attributes.xattrs, path, |attribute, value| inode::set_xattr(fd, attribute, value));
    Ok(rustix::fs::futimens(fd, &times(attributes.mtime, changed, shared.begun))?)
}

fn copied_up(lower: &MergedDir) -> io::Result<Attributes> {
    let metadata = lower.metadata()?;
    let mtime = Mtime::Unchanged(metadata.mtime);
    Ok(Attributes { mode: metadata.mode, uid: metadata.uid, gid: metadata.gid, mtime, xattrs: lower.xattrs()? })
}

fn times(mtime: Mtime, changed: bool, begun: (i64, u32)) -> Timestamps {
    let (seconds, nanoseconds) = mtime.resolve(changed, begun);
    let time = Timespec { tv_sec: seconds, tv_nsec: i64::from(nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

fn now() -> (i64, u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(now.as_secs()).unwrap_or(i64::MAX), now.subsec_nanos())
}

/// Removes a directory with all that is in it. Not recursive, for its depth is the archive's choice.
fn remove_tree(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut open = vec![(rustix::fs::openat(parent, name, flags, Mode::empty())?, name.to_owned())];
    while let Some((fd, _)) = open.last() {
        let mut inner = None;
        for entry in rustix::fs::Dir::read_from(fd)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            match rustix::fs::unlinkat(fd, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => match rustix::fs::unlinkat(fd, name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(Errno::NOTEMPTY | Errno::EXIST) => {
                        inner = Some((rustix::fs::openat(fd, name, flags, Mode::empty())?, name.to_owned()));
                        break;
                    }
                    Err(error) => return Err(error.into()),
                },
                Err(error) => return Err(error.into()),
            }
        }
        if let Some(inner) = inner {
            open.push(inner);
            continue;
        }
        let Some((_, name)) = open.pop() else { break };
        let above = open.last().map_or(parent, |(fd, _)| fd);
        rustix::fs::unlinkat(above, &name, AtFlags::REMOVEDIR)?;
    }
    Ok(())
}

/// The bits that the kernel clears in the mode of what this process makes. Reading the mask by setting it would race with other threads.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    line.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).unwrap_or(0o777)
}
