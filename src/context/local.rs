//! A directory of this machine as a build context.
//!
//! What the ignore rules hide does not exist here, except for the directories above something that is brought back. A directory is listed once and its
//! entries are examined through its descriptor (one `getdents64` loop, one `fstatat` each), then kept in memory: a build sees one state of each entry,
//! and an unchanged context costs hardly more than these calls. Everything is opened below the root without following links.
//!
//! Owners are 0:0, as for Docker, so that a build does not depend on who checked the files out; an unpacked archive keeps those it had ([`Owners`]).

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use crate::path::RootPath;
use crate::sys::tree::{DirEntry, Kind, Metadata, Tree};
use crate::sys::{Links, RootDir, xattr};

use super::archive::{Attributes, Owners};
use super::error::Error;
use super::ignore::{DirectoryState, IgnoreRules};

/// A directory of this machine, without what is ignored.
#[derive(Debug)]
pub struct LocalContext {
    root: RootDir,
    root_metadata: Metadata,
    rules: IgnoreRules,
    ignore_file: Option<PathBuf>,
    owners: Owners,
    directories: RwLock<HashMap<RootPath, Arc<Directory>>>,
}

/// What is known of a directory.
#[derive(Debug)]
struct Directory {
    state: DirectoryState,
    /// Sorted by name; only what is visible.
    entries: Vec<Entry>,
    attributes: Vec<(OsString, Vec<u8>)>,
}

#[derive(Debug)]
struct Entry {
    name: OsString,
    metadata: Metadata,
    /// Where a link leads.
    target: Option<OsString>,
}

/// A directory that is being looked into.
struct Listing {
    path: RootPath,
    directory: Directory,
    /// Ignored directories that may hold something visible.
    hidden: Vec<Entry>,
}

impl Directory {
    fn find(&self, name: &OsStr) -> Option<&Entry> {
        let index = self.entries.binary_search_by(|entry| entry.name.as_bytes().cmp(name.as_bytes())).ok()?;
        self.entries.get(index)
    }
}

impl LocalContext {
    /// Opens the directory `dir`. Its ignore rules are those of `<dockerfile>.dockerignore` if that exists, or else of `.dockerignore` in `dir`.
    pub fn open(dir: &Path, dockerfile: Option<&Path>) -> Result<LocalContext, Error> {
        let mut context = LocalContext::bare(dir, Owners::Root)?;
        if let Some((path, text)) = context.read_ignore_file(dockerfile)? {
            context.rules = IgnoreRules::parse_bytes(&text, &path.display().to_string())?;
            context.ignore_file = Some(path);
        }
        Ok(context)
    }

    /// Opens the directory `dir` with these rules and owners, whatever ignore files are in it.
    pub fn with_rules(dir: &Path, rules: IgnoreRules, owners: Owners) -> Result<LocalContext, Error> {
        Ok(LocalContext { rules, ..LocalContext::bare(dir, owners)? })
    }

    fn bare(dir: &Path, owners: Owners) -> Result<LocalContext, Error> {
        let path = || dir.to_owned();
        let root = RootDir::open(dir).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::NotFound { path: path() },
            io::ErrorKind::NotADirectory => Error::NotADirectory { path: path() },
            _ => Error::Open { path: path(), source },
        })?;
        let stat = rustix::fs::fstat(&root).map_err(|errno| Error::Open { path: path(), source: errno.into() })?;
        let root_metadata = metadata_of(&stat, &owners);
        let directories = RwLock::default();
        Ok(LocalContext { root, root_metadata, rules: IgnoreRules::default(), ignore_file: None, owners, directories })
    }

    /// The rules that hide files.
    pub fn rules(&self) -> &IgnoreRules {
        &self.rules
    }

    /// The file that the rules are from.
    pub fn ignore_file(&self) -> Option<&Path> {
        self.ignore_file.as_deref()
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    fn read_ignore_file(&self, dockerfile: Option<&Path>) -> Result<Option<(PathBuf, Vec<u8>)>, Error> {
        if let Some(dockerfile) = dockerfile {
            let mut path = dockerfile.as_os_str().to_owned();
            path.push(".dockerignore");
            let path = PathBuf::from(path);
            match std::fs::read(&path) {
                Ok(text) => return Ok(Some((path, text))),
                Err(source)
                    if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory) => {}
                Err(source) => return Err(Error::ReadIgnoreFile { path, source }),
            }
        }
        let path = self.root.path().join(".dockerignore");
        let mut text = Vec::new();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = self.root.open_at(Path::new(".dockerignore"), flags, Mode::empty(), Links::Follow);
        match opened.and_then(|fd| File::from(fd).read_to_end(&mut text)) {
            Ok(_) => Ok(Some((path, text))),
            // A directory has no rules, as in BuildKit.
            Err(source) if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => Ok(None),
            Err(source) => Err(Error::ReadIgnoreFile { path, source }),
        }
    }

    /// What is known of the directory `path`; `None` if there is no such directory.
    fn directory(&self, path: &RootPath) -> io::Result<Option<Arc<Directory>>> {
        if let Some(known) = self.cached(path) {
            return Ok(Some(known));
        }
        // What is asked for next is mostly just below what is known.
        let mut at = path.clone();
        let mut names = Vec::new();
        let mut directory = loop {
            if let Some(known) = self.cached(&at) {
                break known;
            }
            let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else {
                break self.load(&at, DirectoryState::default())?;
            };
            names.push(name.to_owned());
            at = parent;
        };
        for name in names.into_iter().rev() {
            if directory.find(&name).is_none_or(|entry| entry.metadata.kind != Kind::Directory) {
                return Ok(None);
            }
            at = at.join(&name);
            directory = match self.cached(&at) {
                Some(known) => known,
                None => {
                    let state = self.rules.enter(&directory.state, &at.as_bytes()[1..]);
                    self.load(&at, state)?
                }
            };
        }
        Ok(Some(directory))
    }

    fn cached(&self, path: &RootPath) -> Option<Arc<Directory>> {
        self.directories.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// Lists a directory and examines what is visible in it. Ignored directories are looked into where something may be brought back; without recursion,
    /// since these may be as deep as somebody cares to make them.
    fn load(&self, path: &RootPath, state: DirectoryState) -> io::Result<Arc<Directory>> {
        let mut inner = Vec::new();
        let mut current = self.list(path.clone(), state)?;
        loop {
            if let Some(entry) = current.hidden.last() {
                let below = current.path.join(&entry.name);
                let state = self.rules.enter(&current.directory.state, &below.as_bytes()[1..]);
                match self.list(below, state) {
                    Ok(listing) => inner.push(std::mem::replace(&mut current, listing)),
                    Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound) => {
                        current.hidden.pop();
                    }
                    Err(error) => return Err(error),
                }
                continue;
            }
            let done = self.keep(current);
            current = match inner.pop() {
                Some(parent) => parent,
                None => return Ok(done),
            };
            if let Some(entry) = current.hidden.pop()
                && !done.entries.is_empty()
            {
                current.directory.entries.push(entry);
            }
        }
    }

    fn keep(&self, listing: Listing) -> Arc<Directory> {
        let Listing { path, mut directory, .. } = listing;
        directory.entries.sort_unstable_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
        let mut known = self.directories.write().unwrap_or_else(PoisonError::into_inner);
        // Whoever came first is right: a build sees one state of a directory.
        known.entry(path).or_insert_with(|| Arc::new(directory)).clone()
    }

    /// Examines what is visible, and the ignored directories that may hold something visible.
    fn list(&self, path: RootPath, state: DirectoryState) -> io::Result<Listing> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = self.root.open_at(path.relative(), flags, Mode::empty(), Links::Refuse)?;
        let (mut found, mut hidden) = (Vec::new(), Vec::new());
        let mut entry_path = if path.is_root() { Vec::new() } else { [&path.as_bytes()[1..], b"/"].concat() };
        let prefix = entry_path.len();
        let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 * 1024];
        let mut entries = RawDir::new(&fd, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            entry_path.truncate(prefix);
            entry_path.extend_from_slice(name.to_bytes());
            let ignored = !self.rules.is_empty() && self.rules.decide_in(&state, &entry_path).ignored;
            let may_be_directory = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
            if ignored && !(may_be_directory && self.rules.may_reinclude_below(&entry_path)) {
                continue;
            }
            let Some(examined) = self.examine(fd.as_fd(), name)? else { continue };
            match (ignored, examined.metadata.kind) {
                (false, _) => found.push(examined),
                (true, Kind::Directory) => hidden.push(examined),
                (true, _) => {}
            }
        }
        let attributes = match self.recorded(&rustix::fs::fstat(&fd)?) {
            Some(attributes) => attributes.xattrs.clone(),
            None => attributes_of(fd.as_fd())?,
        };
        Ok(Listing { path, directory: Directory { state, entries: found, attributes }, hidden })
    }

    /// What `name` is; `None` if it is gone by now.
    fn examine(&self, directory: BorrowedFd<'_>, name: &CStr) -> io::Result<Option<Entry>> {
        let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let metadata = metadata_of(&stat, &self.owners);
        let target = match metadata.kind {
            Kind::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
                Some(OsString::from_vec(target.into_bytes()))
            }
            _ => None,
        };
        Ok(Some(Entry { name: OsStr::from_bytes(name.to_bytes()).to_owned(), metadata, target }))
    }

    fn recorded(&self, stat: &Stat) -> Option<&Attributes> {
        self.owners.of(stat.st_dev, stat.st_ino)
    }

    /// Gives `of` the entry at `path`, which is not the root.
    fn with_entry<T>(&self, path: &RootPath, of: impl FnOnce(&Entry) -> T) -> io::Result<Option<T>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        let Some(directory) = self.directory(&parent)? else { return Ok(None) };
        Ok(directory.find(name).map(of))
    }

    /// Opens what is at `path`, which has to be a regular file still.
    fn open_file(&self, path: &RootPath) -> io::Result<OwnedFd> {
        // Should a pipe have taken the file's place, opening it must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let fd = self.root.open_at(path.relative(), flags, Mode::empty(), Links::Refuse)?;
        let stat = rustix::fs::fstat(&fd)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(fd),
            FileType::Directory => Err(Errno::ISDIR.into()),
            _ => Err(Errno::INVAL.into()),
        }
    }
}

impl Tree for LocalContext {
    fn metadata(&self, path: &RootPath) -> io::Result<Option<Metadata>> {
        if path.is_root() {
            return Ok(Some(self.root_metadata));
        }
        self.with_entry(path, |entry| entry.metadata)
    }

    fn read_dir(&self, path: &RootPath) -> io::Result<Vec<DirEntry>> {
        match self.directory(path)? {
            Some(directory) => {
                Ok(directory.entries.iter().map(|entry| DirEntry { name: entry.name.clone(), kind: entry.metadata.kind }).collect())
            }
            None if self.metadata(path)?.is_some() => Err(Errno::NOTDIR.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn checksums_cover_xattrs(&self) -> bool {
        true
    }

    fn examine_dir(&self, path: &RootPath) -> io::Result<Vec<(OsString, Metadata)>> {
        match self.directory(path)? {
            Some(directory) => Ok(directory.entries.iter().map(|entry| (entry.name.clone(), entry.metadata)).collect()),
            None => self.read_dir(path).map(|_| Vec::new()),
        }
    }

    fn open_with_xattrs(&self, path: &RootPath) -> io::Result<(File, crate::sys::inode::Xattrs)> {
        let file = File::from(self.open_file(path)?);
        let recorded = if self.owners.are_recorded() { Some(self.xattrs(path)?) } else { None };
        let attributes = recorded.map_or_else(|| attributes_of(file.as_fd()), Ok)?;
        Ok((file, attributes))
    }

    fn read_link(&self, path: &RootPath) -> io::Result<OsString> {
        match self.with_entry(path, |entry| entry.target.clone())? {
            Some(Some(target)) => Ok(target),
            Some(None) => Err(Errno::INVAL.into()),
            None => Err(if path.is_root() { Errno::INVAL.into() } else { Errno::NOENT.into() }),
        }
    }

    fn open(&self, path: &RootPath) -> io::Result<File> {
        match self.metadata(path)?.map(|metadata| metadata.kind) {
            Some(Kind::File) => Ok(File::from(self.open_file(path)?)),
            Some(Kind::Directory) => Err(Errno::ISDIR.into()),
            Some(_) => Err(Errno::INVAL.into()),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn xattrs(&self, path: &RootPath) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let metadata = self.metadata(path)?.ok_or(Errno::NOENT)?;
        match metadata.kind {
            Kind::Directory => Ok(self.directory(path)?.map(|directory| directory.attributes.clone()).unwrap_or_default()),
            Kind::File => match self.owners.of(metadata.dev, metadata.ino) {
                Some(recorded) => Ok(recorded.xattrs.clone()),
                None => attributes_of(self.open_file(path)?.as_fd()),
            },
            // The kernel keeps no `user.` attributes on the other kinds, and capabilities only on files.
            _ => Ok(Vec::new()),
        }
    }
}

#[allow(clippy::unnecessary_cast, reason = "some of these are narrower on other architectures")]
fn metadata_of(stat: &Stat, owners: &Owners) -> Metadata {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::RegularFile | FileType::Unknown => Kind::File,
    };
    let (mut mode, mut uid, mut gid) = (stat.st_mode & 0o7777, 0, 0);
    if let Some(recorded) = owners.of(stat.st_dev, stat.st_ino) {
        (mode, uid, gid) = (recorded.mode, recorded.uid, recorded.gid);
    }
    Metadata {
        kind,
        mode,
        uid,
        gid,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
        ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        rdev: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        dev: stat.st_dev,
        ino: stat.st_ino,
        nlink: stat.st_nlink as u64,
    }
}

/// The extended attributes that belong to the file and not to this machine: capabilities and what users set.
fn attributes_of(fd: BorrowedFd<'_>) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in xattr::list_open(fd)? {
        let bytes = name.as_bytes();
        if bytes == b"security.capability" || (bytes.starts_with(b"user.") && !bytes.starts_with(b"user.overlay.")) {
            found.extend(xattr::get_open(fd, &name)?.map(|value| (name, value)));
        }
    }
    found.sort_unstable();
    Ok(found)
}
