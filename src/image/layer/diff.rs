//! Writes a committed snapshot's directory as a layer's tar stream.
//!
//! The directory is what overlayfs left: it holds what was changed, but also what was only copied up. What equals the layers below is left out: files by
//! metadata and content, directories by metadata except their times, unless something inside them changed (then they are there with their own metadata). A deletion
//! counts only where the layers below have something to delete.
//!
//! Of extended attributes a layer carries `security.capability` and `user.*`: others (labels of the host, ACLs, `trusted.*`) belong to the machine.
//! Whiteouts have no time: theirs says when a build ran, and nobody reads it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::oci::DiffId;
use crate::path::RootPath;
use crate::sys::{Links, RootDir, xattr};

use super::lower::{Found, LowerLayers, is_whiteout};
use super::tar_writer::{Entry, EntryKind, TarWriter};
use super::{Error, Xattrs, is_opaque, is_overlay_attribute};

/// How to write a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerOptions {
    /// Times later than this (seconds since the epoch) become this.
    pub latest_time: Option<i64>,
    /// Whether overlay attributes are in `user.overlay.*` (rootless) instead of `trusted.overlay.*`.
    pub userxattr: bool,
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

/// Writes the changes that `layer` makes to `lower` (topmost first) as an uncompressed tar stream.
pub fn write_layer(layer: &Path, lower: &[PathBuf], out: &mut impl Write, options: &LayerOptions) -> Result<LayerWritten, Error> {
    let fail = |source| Error::Entry { action: "open", path: RootPath::root(), root: layer.to_owned(), source };
    let mut differ = Differ {
        layer: RootDir::open(layer).map_err(fail)?,
        lower: LowerLayers::open(lower, options.userxattr)?,
        tar: TarWriter::new(out),
        options,
        pending: Vec::new(),
        links: HashMap::new(),
    };
    differ.walk()?;
    let (digest, size, entries) = differ.tar.finish()?;
    Ok(LayerWritten { diff_id: DiffId::new(digest), size, entries })
}

/// What [`write_layer`] would write, without writing it anywhere.
pub fn diff_id_only(layer: &Path, lower: &[PathBuf], options: &LayerOptions) -> Result<LayerWritten, Error> {
    write_layer(layer, lower, &mut io::sink(), options)
}

struct Differ<'a, W> {
    layer: RootDir,
    lower: LowerLayers,
    tar: TarWriter<W>,
    options: &'a LayerOptions,
    /// Directories on the way to the current entry that are not written yet, because nothing in them changed so far.
    pending: Vec<(RootPath, Stat, Xattrs)>,
    /// Files with several names: where the first one is.
    links: HashMap<(u64, u64), RootPath>,
}

/// A directory being walked.
struct Level {
    path: RootPath,
    /// The names that are left, last first.
    names: Vec<OsString>,
    /// The lower layers whose directories show through here.
    merged: Vec<usize>,
}

impl<W: Write> Differ<'_, W> {
    fn walk(&mut self) -> Result<(), Error> {
        let root = RootPath::root();
        let mut merged = self.lower.all();
        if self.opaque(&root)? && !merged.is_empty() {
            self.whiteout(&root, b".wh..opq")?;
            merged.clear();
        }
        let mut levels = vec![Level { names: self.names(&root)?, path: root, merged }];
        while let Some(level) = levels.last_mut() {
            let Some(name) = level.names.pop() else {
                let ended = levels.pop();
                if self.pending.last().map(|(path, ..)| path) == ended.as_ref().map(|level| &level.path) {
                    self.pending.pop();
                }
                continue;
            };
            let path = level.path.join(&name);
            let merged = std::mem::take(&mut level.merged);
            let next = self.visit(&path, &name, &merged);
            level.merged = merged;
            if let Some(next) = next? {
                levels.push(next);
            }
        }
        Ok(())
    }

    /// Writes what is at `path` if it is a change; gives the level below where it is a directory.
    fn visit(&mut self, path: &RootPath, name: &OsString, merged: &[usize]) -> Result<Option<Level>, Error> {
        let stat = rustix::fs::statat(&self.layer, path.relative(), AtFlags::SYMLINK_NOFOLLOW).map_err(|errno| self.fail(path, errno))?;
        let below = if merged.is_empty() { None } else { self.lower.find_in(merged, path)? };
        if is_whiteout(&stat) {
            if below.is_some() {
                self.whiteout(&path.parent().unwrap_or_else(RootPath::root), name.as_bytes())?;
            }
            return Ok(None);
        }
        if name.as_bytes().starts_with(b".wh.") {
            return Err(Error::ReservedName { path: path.clone() });
        }
        let xattrs = layer_xattrs(&self.layer, path)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return self.visit_directory(path, stat, xattrs, below).map(Some);
        }
        if let Some((found, _)) = &below
            && self.same(path, &stat, &xattrs, found)?
        {
            return Ok(None);
        }
        self.write(path, &stat, &xattrs)?;
        Ok(None)
    }

    fn visit_directory(&mut self, path: &RootPath, stat: Stat, xattrs: Xattrs, below: Option<(Found, Vec<usize>)>) -> Result<Level, Error> {
        let (found, mut merged) = below.map_or((None, Vec::new()), |(found, merged)| (Some(found), merged));
        let hides = !merged.is_empty() && self.opaque(path)?;
        let unchanged = match &found {
            Some(found) if !hides => self.same(path, &stat, &xattrs, found)?,
            _ => false,
        };
        self.pending.push((path.clone(), stat, xattrs));
        if !unchanged {
            self.write_pending()?;
        }
        if hides {
            self.whiteout(path, b".wh..opq")?;
            merged.clear();
        }
        Ok(Level { path: path.clone(), names: self.names(path)?, merged })
    }

    fn whiteout(&mut self, parent: &RootPath, name: &[u8]) -> Result<(), Error> {
        self.write_pending()?;
        let path = parent.join(OsString::from_vec([b".wh.", name].concat()));
        let entry = Entry { path: &path.as_bytes()[1..], kind: EntryKind::File(0), mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: &[] };
        self.tar.entry(&entry)
    }

    fn write_pending(&mut self) -> Result<(), Error> {
        for (path, stat, xattrs) in std::mem::take(&mut self.pending) {
            self.tar.entry(&self.entry(&path, &stat, &xattrs, EntryKind::Directory))?;
        }
        Ok(())
    }

    fn write(&mut self, path: &RootPath, stat: &Stat, xattrs: &Xattrs) -> Result<(), Error> {
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            // A socket without its process is nothing; no format can carry it.
            FileType::Socket | FileType::Directory | FileType::Unknown => return Ok(()),
            FileType::RegularFile => EntryKind::File(u64::try_from(stat.st_size).unwrap_or_default()),
            FileType::CharacterDevice => EntryKind::CharDevice(device.0, device.1),
            FileType::BlockDevice => EntryKind::BlockDevice(device.0, device.1),
            FileType::Fifo => EntryKind::Fifo,
            FileType::Symlink => EntryKind::Symlink(b""),
        };
        self.write_pending()?;
        if stat.st_nlink > 1 {
            if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                let first = first.clone();
                let entry = self.entry(path, stat, &[], EntryKind::HardLink(&first.as_bytes()[1..]));
                return self.tar.entry(&entry);
            }
            self.links.insert((stat.st_dev, stat.st_ino), path.clone());
        }
        match kind {
            EntryKind::Symlink(_) => {
                let target = read_link(&self.layer, path)?;
                self.tar.entry(&self.entry(path, stat, xattrs, EntryKind::Symlink(&target)))
            }
            EntryKind::File(size) if size > 0 => self.write_file(path, &self.entry(path, stat, xattrs, kind)),
            kind => self.tar.entry(&self.entry(path, stat, xattrs, kind)),
        }
    }

    fn write_file(&mut self, path: &RootPath, entry: &Entry<'_>) -> Result<(), Error> {
        let mut file = open_file(&self.layer, path)?;
        match self.tar.file(entry, &mut file) {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => Err(Error::Changed { path: path.clone() }),
            Ok(Err(error)) => Err(error),
            Err(source) => Err(self.fail(path, source)),
        }
    }

    fn entry<'b>(&self, path: &'b RootPath, stat: &Stat, xattrs: &'b [(Vec<u8>, Vec<u8>)], kind: EntryKind<'b>) -> Entry<'b> {
        let mtime = self.options.latest_time.map_or(stat.st_mtime, |latest| stat.st_mtime.min(latest));
        Entry { path: &path.as_bytes()[1..], kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs }
    }

    /// Whether `path` is in the layer what it is below: in kind, metadata, attributes, and, only then read, content.
    fn same(&self, path: &RootPath, stat: &Stat, xattrs: &Xattrs, found: &Found) -> Result<bool, Error> {
        let below = &found.stat;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let directory = kind == FileType::Directory;
        let equal = stat.st_mode == below.st_mode
            && (stat.st_uid, stat.st_gid, stat.st_rdev) == (below.st_uid, below.st_gid, below.st_rdev)
            // A directory's time tells only that something came or went; what stayed so is there by itself, and BuildKit leaves the rest out, too.
            && (directory || (stat.st_mtime, stat.st_mtime_nsec) == (below.st_mtime, below.st_mtime_nsec))
            && (directory || (stat.st_size == below.st_size && stat.st_nlink == 1));
        let root = self.lower.root(found.layer);
        if !equal || *xattrs != layer_xattrs(root, path)? {
            return Ok(false);
        }
        match kind {
            FileType::RegularFile => {
                if (stat.st_dev, stat.st_ino) == (below.st_dev, below.st_ino) {
                    return Ok(true);
                }
                let (mut ours, mut theirs) = (open_file(&self.layer, path)?, open_file(root, path)?);
                same_content(&mut ours, &mut theirs).map_err(|source| self.fail(path, source))
            }
            FileType::Symlink => Ok(read_link(&self.layer, path)? == read_link(root, path)?),
            _ => Ok(true),
        }
    }

    /// The names in a directory, last first.
    fn names(&self, path: &RootPath) -> Result<Vec<OsString>, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = self.layer.open_at(path.relative(), flags, Mode::empty(), Links::Refuse).map_err(|source| self.fail(path, source))?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(fd).map_err(|errno| self.fail(path, errno))? {
            let entry = entry.map_err(|errno| self.fail(path, errno))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name.to_vec()));
            }
        }
        names.sort_unstable_by(|a, b| b.as_bytes().cmp(a.as_bytes()));
        Ok(names)
    }

    fn opaque(&self, path: &RootPath) -> Result<bool, Error> {
        is_opaque(&self.layer, path.relative(), self.options.userxattr).map_err(|source| self.fail(path, source))
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
    let names = xattr::list(root.as_fd(), path.relative()).map_err(|source| fail(root, path, source))?;
    let mut out = Vec::new();
    for name in names {
        if !in_layers(name.as_bytes()) {
            refuse_overlay_feature(path, &name)?;
            continue;
        }
        let value = xattr::get(root.as_fd(), path.relative(), &name).map_err(|source| fail(root, path, source))?;
        out.extend(value.map(|value| (name.into_vec(), value)));
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

fn open_file(root: &RootDir, path: &RootPath) -> Result<File, Error> {
    let opened = root.open_at(path.relative(), OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty(), Links::Refuse);
    opened.map(File::from).map_err(|source| fail(root, path, source))
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
