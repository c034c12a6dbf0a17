//! ADD of an archive: unpacks a tar, compressed or not, into a directory of the new layer.
//!
//! Names are resolved with the destination as their root, links on the way included, because Docker unpacks in a `chroot`. What an entry finds in its place is
//! replaced, also a directory or a link to one; only directories merge with directories. A hard link's own header has the last word about the inode.
//! Whiteout names mean nothing here. Directories get their attributes at the end, since they may be filled at any time.
//!
//! Names are made in the order of the archive by one thread; another one fills small files and gives them their attributes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use super::copy::{Copied, CopyRequest, Owner};
use super::error::{BadEntry, Error};
use super::fill::{Filler, NewFile};
use super::upper::{Attributes, Existing, Mtime, Over, Upper, UpperDir};
use crate::image::layer::{ApplyOptions, Error as LayerError, KnownFiles, Member, MemberKind, TarReader, decompressor};
use crate::path::RootPath;
use crate::store::ContentCopier;
use crate::sys::tree::{Kind, Metadata, Tree};

/// How large an extended header may be: paths and attributes have kernel limits far below.
pub(super) const MAX_HEADER: u64 = 1024 * 1024;
/// The times that Docker gives what it unpacks, in seconds (those that fit into 64 bits of nanoseconds); others become 0.
const TIMES: std::ops::RangeInclusive<i64> = 0..=i64::MAX / 1_000_000_000;
/// How many links one name may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// Whether the file's content is a tar archive, plain or compressed. One without entries is none.
pub(super) fn is_archive(file: File) -> bool {
    let Ok(stream) = decompressor(file, None) else { return false };
    matches!(TarReader::unhashed(stream, MAX_HEADER).next(), Ok(Some(_)))
}

/// Unpacks `file` into `directory`, and keeps what small files hold for `known`.
pub(super) fn unpack(
    upper: &Upper<'_>,
    directory: &Arc<UpperDir>,
    file: File,
    request: &CopyRequest,
    known: Option<KnownFiles>,
) -> Result<(Copied, Option<KnownFiles>), Error> {
    let stream = decompressor(file, None).map_err(Error::OpenArchive)?;
    let mut archive = TarReader::unhashed(stream, MAX_HEADER);
    let implied = implied(request);
    let mut copied = Copied::default();
    let known = std::thread::scope(|scope| {
        let (root, chown, filler) = (Arc::clone(directory), request.chown, Filler::new(scope, upper, known));
        let mut unpacker = Unpacker { upper, root, implied, chown, late: BTreeMap::new(), last: None, filler };
        while let Some(member) = archive.next().map_err(|source| Error::ReadArchive { entries: copied.entries, source })? {
            let limit = limit(request);
            if copied.bytes.saturating_add(member.size) > limit {
                return Err(Error::ReadArchive { entries: copied.entries, source: LayerError::TooLarge { limit } });
            }
            copied.bytes += unpacker.member(&member, &mut archive, copied.entries)?;
            copied.entries += 1;
        }
        // The checksums of compressed archives are at their end.
        archive.finish().map_err(|source| Error::ReadArchive { entries: copied.entries, source })?;
        unpacker.finish()
    })?;
    Ok((copied, known))
}

/// How many bytes the files of an archive may have together, holes included: as a layer's.
pub(super) fn limit(request: &CopyRequest) -> u64 {
    request.max_unpacked.unwrap_or_else(|| ApplyOptions::default().max_unpacked_size)
}

/// What directories get that no entry describes.
pub(super) fn implied(request: &CopyRequest) -> Attributes {
    Attributes { mode: 0o755, uid: 0, gid: 0, mtime: request.created_time.map_or(Mtime::Now, Mtime::At), xattrs: Vec::new() }
}

/// What an entry gets, with the owner of `--chown` if there is one.
pub(super) fn attributes(member: &Member, chown: Option<Owner>) -> Attributes {
    let owner = chown.unwrap_or(Owner { uid: member.uid, gid: member.gid });
    let xattrs = member.xattrs.iter().map(|(name, value)| (OsString::from_vec(name.clone()), value.clone())).collect();
    let mtime = Mtime::At(if TIMES.contains(&member.mtime.0) { member.mtime } else { (0, 0) });
    Attributes { mode: member.mode & 0o7777, uid: owner.uid, gid: owner.gid, mtime, xattrs }
}

struct Unpacker<'a, 'env> {
    upper: &'a Upper<'a>,
    /// The destination.
    root: Arc<UpperDir>,
    /// What directories get that no entry describes.
    implied: Attributes,
    chown: Option<Owner>,
    /// What directories get in the end.
    late: BTreeMap<RootPath, Attributes>,
    /// The directory that the entry before went to, by its name in the archive.
    last: Option<(RootPath, Arc<UpperDir>)>,
    filler: Filler<'a, 'env>,
}

impl Unpacker<'_, '_> {
    /// Makes one entry. Returns the number of bytes that were written.
    fn member(&mut self, member: &Member, archive: &mut TarReader<impl std::io::Read>, before: u64) -> Result<u64, Error> {
        let path = entry_path(&member.name);
        // The destination itself keeps its attributes.
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Ok(0) };
        let directory = self.parent(member, &above)?;
        let attributes = attributes(member, self.chown);
        if member.kind == MemberKind::Directory {
            self.make_directory(&directory, name, &attributes)?;
            return Ok(0);
        }
        if let Some(replaced) = self.upper.entry(&directory, name)? {
            self.forget(&directory.path().join(name), replaced.kind)?;
        }
        let over = Over::Anything;
        match member.kind {
            MemberKind::File => {
                let fd = self.upper.create(&directory, name, over, attributes.mode)?;
                if member.sparse.is_none() && member.size <= KnownFiles::MAX_FILE {
                    let content = read_data(member, archive, before)?;
                    self.filler.fill(NewFile { directory, name: name.to_owned(), fd, attributes, content })?;
                    return Ok(member.size);
                }
                write_data(member, archive, &fd, before).map_err(|failure| failure.named(&directory, name))?;
                self.upper.finish_file(&directory, name, &fd, &attributes)?;
                return Ok(member.size);
            }
            MemberKind::Symlink => self.upper.symlink(&directory, name, over, OsStr::from_bytes(&member.link), &attributes)?,
            MemberKind::HardLink => self.hard_link(member, &directory, name, &attributes)?,
            MemberKind::CharDevice | MemberKind::BlockDevice | MemberKind::Fifo => {
                if !self.upper.node(&directory, name, over, node_kind(member.kind), member.rdev, &attributes)? {
                    self.upper.warn(format!("`{path}` of the archive is left out: such a device cannot be made"));
                }
            }
            MemberKind::Directory => {}
        }
        Ok(0)
    }

    fn make_directory(&mut self, parent: &Arc<UpperDir>, name: &OsStr, attributes: &Attributes) -> Result<(), Error> {
        if let Some(replaced) = self.upper.entry(parent, name)?.filter(|metadata| metadata.kind != Kind::Directory) {
            self.forget(&parent.path().join(name), replaced.kind)?;
        }
        let made = self.upper.enter_over(parent, name, attributes)?;
        self.late.insert(made.path().clone(), attributes.clone());
        Ok(())
    }

    /// Makes a hard link. A target that only the base has is copied up first: both names must be in one layer.
    fn hard_link(&mut self, member: &Member, directory: &Arc<UpperDir>, name: &OsStr, attributes: &Attributes) -> Result<(), Error> {
        let link = || OsString::from_vec(member.link.clone());
        let bad = |reason| Error::BadEntry { entry: String::from_utf8_lossy(&member.name).into_owned(), reason };
        let target = entry_path(&member.link);
        let (Some(above), Some(last)) = (target.parent(), target.file_name()) else { return Err(bad(BadEntry::LinkToDirectory(link()))) };
        let holder = self.resolve(member, &above, Missing::Refuse)?.ok_or_else(|| bad(BadEntry::LinkTarget(link())))?;
        let metadata = self.upper.entry(&holder, last)?.ok_or_else(|| bad(BadEntry::LinkTarget(link())))?;
        if metadata.kind == Kind::Directory {
            return Err(bad(BadEntry::LinkToDirectory(link())));
        }
        let path = holder.path().join(last);
        // The link's header has the last word, and the file has two names then.
        self.filler.forget(path.clone())?;
        self.filler.settle()?;
        if path == directory.path().join(name) {
            return self.upper.finish_node(directory, name, metadata.kind, attributes);
        }
        if !self.upper.has_own(&holder, last)? {
            self.copy_up(&holder, last, &metadata)?;
        }
        self.upper.hard_link(directory, name, Over::Anything, &path)?;
        self.upper.finish_node(directory, name, metadata.kind, attributes)
    }

    fn copy_up(&self, directory: &Arc<UpperDir>, name: &OsStr, metadata: &Metadata) -> Result<(), Error> {
        let (base, path) = (self.upper.base(), directory.path().join(name));
        let failed = |source| Error::ReadBase { path: directory.path().join(name), source };
        let xattrs = base.xattrs(&path).map_err(failed)?;
        let attributes = Attributes { mode: metadata.mode, uid: metadata.uid, gid: metadata.gid, mtime: Mtime::At(metadata.mtime), xattrs };
        match metadata.kind {
            Kind::File => {
                let mut from = base.open(&path).map_err(failed)?;
                let to = self.upper.create(directory, name, Over::Files, attributes.mode)?;
                let copier = ContentCopier::default();
                copier.copy(&mut from, metadata.dev, metadata.size, &to).map_err(|error| directory.write_error(name, error))?;
                self.upper.finish_file(directory, name, &to, &attributes)
            }
            Kind::Symlink => {
                let target = base.read_link(&path).map_err(failed)?;
                self.upper.symlink(directory, name, Over::Files, &target, &attributes)
            }
            kind => self.upper.node(directory, name, Over::Files, kind, metadata.rdev, &attributes).map(drop),
        }
    }

    /// The directory that holds an entry, made where it is missing.
    fn parent(&mut self, member: &Member, above: &RootPath) -> Result<Arc<UpperDir>, Error> {
        if let Some((path, directory)) = &self.last
            && path == above
        {
            return Ok(Arc::clone(directory));
        }
        self.last = None;
        let found = self.resolve(member, above, Missing::Make)?;
        let directory = found.ok_or_else(|| Error::NotADirectory { path: self.root.path().join(above.relative()) })?;
        self.last = Some((above.clone(), Arc::clone(&directory)));
        Ok(directory)
    }

    /// Walks down from the destination, following links inside of it.
    fn resolve(&self, member: &Member, path: &RootPath, missing: Missing) -> Result<Option<Arc<UpperDir>>, Error> {
        let mut todo: Vec<OsString> = path.components().rev().map(OsStr::to_owned).collect();
        let mut stack = vec![Arc::clone(&self.root)];
        let mut links = 0;
        while let (Some(name), Some(directory)) = (todo.pop(), stack.last()) {
            if name == ".." {
                if stack.len() > 1 {
                    stack.pop();
                }
                continue;
            }
            let entry = self.upper.entry(directory, &name)?;
            match entry.map(|metadata| metadata.kind) {
                Some(Kind::Symlink) => {
                    links += 1;
                    if links > MAX_LINKS {
                        let entry = String::from_utf8_lossy(&member.name).into_owned();
                        return Err(Error::BadEntry { entry, reason: BadEntry::TooManyLinks });
                    }
                    let target = self.upper.read_link(directory, &name)?;
                    let target = target.as_bytes();
                    if target.first() == Some(&b'/') {
                        stack.truncate(1);
                    }
                    let parts = target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
                    todo.extend(parts.rev().map(|part| OsStr::from_bytes(part).to_owned()));
                }
                Some(Kind::Directory) => {
                    let inner = self.upper.enter(directory, &name, || Ok(self.implied.clone()), Existing::Keep)?;
                    stack.push(inner);
                }
                None if missing == Missing::Make => {
                    let inner = self.upper.enter_over(directory, &name, &self.implied)?;
                    stack.push(inner);
                }
                None => return Ok(None),
                Some(_) if missing == Missing::Make => return Err(Error::NotADirectory { path: directory.path().join(&name) }),
                Some(_) => return Ok(None),
            }
        }
        Ok(stack.pop())
    }

    /// Forgets what was known about an entry that is about to be replaced.
    fn forget(&mut self, path: &RootPath, kind: Kind) -> Result<(), Error> {
        // It may be a directory, or a link that names were resolved through.
        if matches!(kind, Kind::Directory | Kind::Symlink) {
            self.last = None;
            self.late.retain(|known, _| !known.starts_with(path));
        }
        if kind == Kind::Directory { self.filler.forget_all() } else { self.filler.forget(path.clone()) }
    }

    fn finish(self) -> Result<Option<KnownFiles>, Error> {
        drop(self.last);
        let known = self.filler.finish()?;
        // Those inside first: setting one does not touch what is above it, but a reader expects it.
        for (path, attributes) in self.late.iter().rev() {
            self.upper.reopen_and_set(path, attributes)?;
        }
        Ok(known)
    }
}

/// What to do about a directory that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Make,
    Refuse,
}

/// The path of a name in an archive, below the destination: above that there is nothing to climb to.
pub(super) fn entry_path(name: &[u8]) -> RootPath {
    RootPath::new(OsStr::from_bytes(name))
}

fn node_kind(kind: MemberKind) -> Kind {
    match kind {
        MemberKind::CharDevice => Kind::CharDevice,
        MemberKind::BlockDevice => Kind::BlockDevice,
        _ => Kind::Fifo,
    }
}

/// Why data could not be moved from an archive to a file.
enum DataFailure {
    Read(Error),
    Write(rustix::io::Errno),
}

impl DataFailure {
    fn named(self, directory: &UpperDir, name: &OsStr) -> Error {
        match self {
            DataFailure::Read(error) => error,
            DataFailure::Write(error) => directory.write_error(name, error.into()),
        }
    }
}

/// Reads the data of a small entry.
fn read_data(member: &Member, archive: &mut TarReader<impl std::io::Read>, before: u64) -> Result<Vec<u8>, Error> {
    let size = usize::try_from(member.size).unwrap_or(usize::MAX);
    let mut content = Vec::with_capacity(size.min(KnownFiles::MAX_FILE as usize));
    while content.len() < size {
        let data = archive.data().map_err(|source| Error::ReadArchive { entries: before, source })?;
        let count = data.len().min(size - content.len());
        if count == 0 {
            break;
        }
        content.extend_from_slice(data.get(..count).unwrap_or_default());
        archive.consume(count);
    }
    Ok(content)
}

/// Writes the data of an entry, leaving out what is a hole.
fn write_data(member: &Member, archive: &mut TarReader<impl std::io::Read>, fd: &OwnedFd, before: u64) -> Result<(), DataFailure> {
    let whole = [(0, member.size)];
    let pieces = member.sparse.as_deref().unwrap_or(&whole);
    for (start, length) in pieces {
        let (mut position, end) = (*start, start.saturating_add(*length));
        while position < end {
            let data = archive.data().map_err(|source| DataFailure::Read(Error::ReadArchive { entries: before, source }))?;
            let count = data.len().min(usize::try_from(end - position).unwrap_or(usize::MAX));
            if count == 0 {
                break;
            }
            match rustix::io::pwrite(fd, data.get(..count).unwrap_or_default(), position) {
                Ok(written) => {
                    archive.consume(written);
                    position += written as u64;
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(DataFailure::Write(error)),
            }
        }
    }
    if member.sparse.is_some() {
        rustix::fs::ftruncate(fd, member.size).map_err(DataFailure::Write)?;
    }
    Ok(())
}
