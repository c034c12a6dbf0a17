//! Writes a whole file tree, all layers merged: as one tar stream (`-o type=tar`, `export`) or into a directory (`-o type=local`).
//!
//! The stream is as canonical as a layer's. The directory gets what BuildKit's local exporter gives: modes and times are kept, what was there before is
//! replaced where the tree has the same name and left alone elsewhere, and everything belongs to whoever runs the export unless asked otherwise. Then
//! set-user-ID bits are dropped too, since they would hand out the wrong user's rights. Links of either tree are never followed out of the directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::FileType;

use crate::oci::{Algorithm, DiffId};
use crate::path::RootPath;
use crate::progress::Meter;
use crate::store::view::Marks;
use crate::sys::tree::{Kind, Metadata, Tree};

use super::diff::in_layers;
use super::tar_writer::{Entry, EntryKind, TarWriter};
use super::target::{Attributes, Target};
use super::{Error, Xattrs};

/// A tree that was written as a tar stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootfsWritten {
    /// The digest of the stream.
    pub diff_id: DiffId,
    /// The size of the stream.
    pub size: u64,
    /// How many entries it has.
    pub entries: u64,
}

/// Writes all of `tree`, its root directory excepted, as an uncompressed tar stream. Everything gets the time `time` (seconds since the epoch), if
/// there is one.
pub fn write_rootfs_tar(tree: &dyn Tree, out: &mut impl Write, time: Option<i64>) -> Result<RootfsWritten, Error> {
    let mut tar = TarWriter::new(out, Algorithm::default());
    let mut links = HashMap::new();
    walk(tree, |path, metadata| {
        let first = first_name(&mut links, path, metadata);
        let xattrs = match first {
            None => xattrs(tree, path, in_layers)?,
            Some(_) => Vec::new(),
        };
        let link = match metadata.kind {
            Kind::Symlink if first.is_none() => read_link(tree, path)?,
            _ => Vec::new(),
        };
        let kind = match (&first, metadata.kind) {
            (Some(first), _) => EntryKind::HardLink(&first.as_bytes()[1..]),
            (None, Kind::File) => EntryKind::File(metadata.size),
            (None, Kind::Directory) => EntryKind::Directory,
            (None, Kind::Symlink) => EntryKind::Symlink(&link),
            (None, Kind::CharDevice) => EntryKind::CharDevice(metadata.rdev.0, metadata.rdev.1),
            (None, Kind::BlockDevice) => EntryKind::BlockDevice(metadata.rdev.0, metadata.rdev.1),
            (None, Kind::Fifo) => EntryKind::Fifo,
            (None, Kind::Socket) => return Ok(()),
        };
        let mtime = time.unwrap_or(metadata.mtime.0);
        let (mode, uid, gid) = (metadata.mode, metadata.uid, metadata.gid);
        let entry = Entry { path: &path.as_bytes()[1..], kind, mode, uid, gid, mtime, xattrs: &xattrs };
        if !matches!(kind, EntryKind::File(1..)) {
            return tar.entry(&entry);
        }
        let mut file = tree.open(path).map_err(|source| fail(path, source))?;
        match tar.file(&entry, &mut file).map_err(|source| fail(path, source))?? {
            true => Ok(()),
            false => Err(Error::Changed { path: path.clone() }),
        }
    })?;
    let (digest, size, entries) = tar.finish()?;
    Ok(RootfsWritten { diff_id: DiffId::new(digest), size, entries })
}

/// Whom the files of an exported directory belong to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Owners {
    /// The user who runs the export, as with BuildKit.
    #[default]
    Caller,
    /// The owners that they have in the tree, which needs root; device nodes are then made as well.
    Keep,
}

/// How to write a tree into a directory.
#[derive(Clone, Default)]
pub struct CopyOptions {
    /// Whom the files belong to.
    pub owners: Owners,
    /// The time that everything gets (seconds since the epoch), instead of the one that it has.
    pub time: Option<i64>,
    /// Counts the bytes of files.
    pub meter: Option<Meter>,
}

/// A tree that was written into a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many entries were made.
    pub entries: u64,
    /// The sizes of all files together; a file with several names counts once.
    pub bytes: u64,
    /// Sockets, and device nodes where owners are not kept: they were left out.
    pub skipped: Vec<RootPath>,
}

/// Writes all of `tree` into the directory `destination`, which exists and may hold other things. The directory's own metadata stays.
pub fn copy_tree_to_dir(tree: &dyn Tree, destination: &Path, options: &CopyOptions) -> Result<Copied, Error> {
    let mut copier = Copier {
        tree,
        target: Target::open(destination, Marks::Trusted, u64::MAX)?,
        options,
        links: HashMap::new(),
        copied: Copied::default(),
    };
    walk(tree, |path, metadata| copier.copy(path, metadata))?;
    copier.target.finish(None)?;
    Ok(copier.copied)
}

struct Copier<'a> {
    tree: &'a dyn Tree,
    target: Target,
    options: &'a CopyOptions,
    links: HashMap<(u64, u64), RootPath>,
    copied: Copied,
}

impl Copier<'_> {
    fn copy(&mut self, path: &RootPath, metadata: &Metadata) -> Result<(), Error> {
        let keep = self.options.owners == Owners::Keep;
        let device = matches!(metadata.kind, Kind::CharDevice | Kind::BlockDevice);
        if metadata.kind == Kind::Socket || (device && !keep) {
            self.copied.skipped.push(path.clone());
            return Ok(());
        }
        self.copied.entries += 1;
        let attributes = self.attributes(metadata);
        let wanted = |name: &[u8]| in_layers(name) && (keep || name.starts_with(b"user."));
        let xattrs = xattrs(self.tree, path, wanted)?;
        if metadata.kind == Kind::Directory {
            return self.target.declare_directory(path, attributes, xattrs).map(drop);
        }
        // The tree's own names never lead through links, but the destination's may.
        let (parent, real) = self.target.locate(path)?;
        if let Some(first) = first_name(&mut self.links, path, metadata) {
            return self.target.link(&parent, &real, &first, &attributes);
        }
        match metadata.kind {
            Kind::Symlink => {
                let target = read_link(self.tree, path)?;
                self.target.create_symlink(&parent, &real, &target, &attributes)?;
            }
            Kind::File => {
                let mut source = self.tree.open(path).map_err(|source| fail(path, source))?;
                let mut file = File::from(self.target.create_file(&parent, &real)?);
                let size = io::copy(&mut source, &mut file).map_err(|source| self.target.fail("write", &real, source))?;
                self.copied.bytes += size;
                if let Some(meter) = &self.options.meter {
                    meter.add(size);
                }
                self.target.finish_file(&OwnedFd::from(file), &real, &attributes, &xattrs)?;
                return Ok(());
            }
            kind => {
                let kind = match kind {
                    Kind::CharDevice => FileType::CharacterDevice,
                    Kind::BlockDevice => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                self.target.create_node(&parent, &real, kind, metadata.rdev, &attributes)?;
            }
        }
        self.target.set_xattrs(&parent, &real, &xattrs).map(drop)
    }

    fn attributes(&self, metadata: &Metadata) -> Attributes {
        let mtime = self.options.time.map_or(metadata.mtime, |seconds| (seconds, 0));
        match self.options.owners {
            Owners::Keep => Attributes { mode: metadata.mode, uid: metadata.uid, gid: metadata.gid, mtime },
            Owners::Caller => {
                let (uid, gid) = Target::own_owner();
                Attributes { mode: metadata.mode, uid, gid, mtime }
            }
        }
    }
}

/// Visits everything below the root: parents before children, names in the order of their bytes.
fn walk(tree: &dyn Tree, mut visit: impl FnMut(&RootPath, &Metadata) -> Result<(), Error>) -> Result<(), Error> {
    let children = |path: &RootPath| -> Result<Vec<RootPath>, Error> {
        let entries = tree.read_dir(path).map_err(|source| fail(path, source))?;
        Ok(entries.iter().rev().map(|entry| path.join(&entry.name)).collect())
    };
    // What is left to visit, next last.
    let mut pending = children(&RootPath::root())?;
    while let Some(path) = pending.pop() {
        let Some(metadata) = tree.metadata(&path).map_err(|source| fail(&path, source))? else {
            return Err(Error::Changed { path });
        };
        visit(&path, &metadata)?;
        if metadata.kind == Kind::Directory {
            pending.extend(children(&path)?);
        }
    }
    Ok(())
}

/// The first name of a file that has several and was visited before.
fn first_name(links: &mut HashMap<(u64, u64), RootPath>, path: &RootPath, metadata: &Metadata) -> Option<RootPath> {
    if metadata.nlink < 2 || metadata.kind == Kind::Directory {
        return None;
    }
    match links.entry((metadata.dev, metadata.ino)) {
        std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
        std::collections::hash_map::Entry::Vacant(free) => {
            free.insert(path.clone());
            None
        }
    }
}

fn xattrs(tree: &dyn Tree, path: &RootPath, wanted: impl Fn(&[u8]) -> bool) -> Result<Xattrs, Error> {
    let all = tree.xattrs(path).map_err(|source| fail(path, source))?;
    let mut out: Vec<_> = all.into_iter().map(|(name, value)| (name.into_vec(), value)).filter(|(name, _)| wanted(name)).collect();
    out.sort_unstable();
    Ok(out)
}

fn read_link(tree: &dyn Tree, path: &RootPath) -> Result<Vec<u8>, Error> {
    tree.read_link(path).map(|target| target.as_bytes().to_vec()).map_err(|source| fail(path, source))
}

fn fail(path: &RootPath, source: io::Error) -> Error {
    Error::Tree { path: path.clone(), source }
}
