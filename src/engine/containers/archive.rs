//! Trees of files as tar archives, read from and written below a directory that nothing leads out of: what `strake cp` moves.
//!
//! Both sides may be hostile: a container changes its links while it is read, and an archive from it may hold any name. So every name is resolved by the kernel below the
//! root; where the files go to this machine, no link below the destination is followed at all.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, StatxAttributes, StatxFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use crate::runtime::UserRange;
use crate::sys::{Links, RootDir};

/// Whom files belong to at their destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owners {
    /// As in the archive.
    Keep,
    /// This user and group.
    Set(u32, u32),
    /// Whoever runs this.
    Caller,
}

/// Writes what is at `path` below `root` as the archive's `name`, and gives the bytes of its files. `follow` follows a link at the end of the path; owners are counted from `first`.
pub(super) fn pack(root: &RootDir, first: u32, path: &Path, name: &Path, follow: bool, out: impl Write) -> io::Result<u64> {
    let mut packer = Packer { tar: Builder::new(out), first, links: HashMap::new(), bytes: 0 };
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let found = root.open_at(path, flags, Mode::empty(), Links::Follow)?;
    let stat = rustix::fs::fstat(&found)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => packer.directory(&reopen(&found, OFlags::RDONLY | OFlags::DIRECTORY)?, &stat, name)?,
        FileType::RegularFile => packer.file(File::from(reopen(&found, OFlags::RDONLY | OFlags::NONBLOCK)?), &stat, name)?,
        FileType::Symlink => packer.link(&rustix::fs::readlinkat(&found, "", Vec::new())?.into_bytes(), &stat, name)?,
        kind => packer.special(kind, &stat, name)?,
    }
    packer.tar.into_inner()?.flush()?;
    Ok(packer.bytes)
}

/// Opens for use what was opened as a place only.
fn reopen(found: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(crate::sys::descriptor_path(found), flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// The ID that the kernel shows for those that a user namespace has not (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65_534;

struct Packer<W: Write> {
    tar: Builder<W>,
    first: u32,
    /// Files with several names, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    bytes: u64,
}

fn header(first: u32, stat: &Stat, kind: EntryType) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(stat.st_mode & 0o7777);
    // Who is none of the container's users is nobody there.
    let known = |id: &u32| first == 0 || *id < UserRange::SIZE;
    let id = |id: u32| u64::from(id.checked_sub(first).filter(known).unwrap_or(NOBODY));
    header.set_uid(id(stat.st_uid));
    header.set_gid(id(stat.st_gid));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

impl<W: Write> Packer<W> {
    fn directory(&mut self, dir: &OwnedFd, stat: &Stat, name: &Path) -> io::Result<()> {
        if !name.as_os_str().is_empty() {
            let mut shown = name.as_os_str().to_owned();
            shown.push("/");
            self.tar.append_data(&mut header(self.first, stat, EntryType::Directory), shown, io::empty())?;
        }
        let mut names: Vec<OsString> = Vec::new();
        for entry in rustix::fs::Dir::read_from(dir)? {
            let entry = entry?;
            let entry = entry.file_name().to_bytes();
            if entry != b"." && entry != b".." {
                names.push(OsString::from_vec(entry.to_vec()));
            }
        }
        names.sort_unstable();
        for entry in names {
            self.entry(dir.as_fd(), &entry, &name.join(&entry))?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, entry: &OsStr, name: &Path) -> io::Result<()> {
        let stat = match rustix::fs::statat(dir, entry, AtFlags::SYMLINK_NOFOLLOW) {
            // Gone since the directory was read.
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let open = |flags: OFlags| rustix::fs::openat(dir, entry, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.directory(&open(OFlags::RDONLY | OFlags::DIRECTORY)?, &stat, name),
            FileType::RegularFile => {
                if stat.st_nlink > 1 {
                    if let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
                        let first = first.clone();
                        return self.tar.append_link(&mut header(self.first, &stat, EntryType::Link), name, first);
                    }
                    self.links.insert((stat.st_dev, stat.st_ino), name.to_owned());
                }
                self.file(File::from(open(OFlags::RDONLY | OFlags::NONBLOCK)?), &stat, name)
            }
            FileType::Symlink => self.link(rustix::fs::readlinkat(dir, entry, Vec::new())?.to_bytes(), &stat, name),
            kind => self.special(kind, &stat, name),
        }
    }

    fn file(&mut self, file: File, stat: &Stat, name: &Path) -> io::Result<()> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mut header = header(self.first, stat, EntryType::Regular);
        header.set_size(size);
        self.bytes += size;
        // A file that shrinks meanwhile is filled up: the archive has said how long it is.
        self.tar.append_data(&mut header, name, file.chain(io::repeat(0)).take(size))
    }

    fn link(&mut self, target: &[u8], stat: &Stat, name: &Path) -> io::Result<()> {
        self.tar.append_link(&mut header(self.first, stat, EntryType::Symlink), name, Path::new(OsStr::from_bytes(target)))
    }

    fn special(&mut self, kind: FileType, stat: &Stat, name: &Path) -> io::Result<()> {
        let kind = match kind {
            FileType::Fifo => EntryType::Fifo,
            FileType::CharacterDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            // Sockets mean nothing elsewhere.
            _ => return Ok(()),
        };
        let mut header = header(self.first, stat, kind);
        header.set_device_major(rustix::fs::major(stat.st_rdev))?;
        header.set_device_minor(rustix::fs::minor(stat.st_rdev))?;
        self.tar.append_data(&mut header, name, io::empty())
    }
}

/// Where an archive's files go.
pub(super) struct Unpacker<'a> {
    pub(super) root: &'a RootDir,
    /// The directory below the root, which exists.
    pub(super) base: &'a Path,
    /// Whether links below the base lead on, inside of the root.
    pub(super) links: Links,
    pub(super) owners: Owners,
}

impl Unpacker<'_> {
    /// Makes the archive's files.
    pub(super) fn unpack(&self, archive: impl Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(archive);
        let base = self.root.open_at(self.base, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), Links::Follow)?;
        let base = RootDir::open(&crate::sys::descriptor_path(&base))?;
        // Times of directories last, since every file in them changes them.
        let mut times: Vec<(PathBuf, u64)> = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = sane(&entry.path()?)?;
            let Some(name) = path.file_name().map(OsStr::to_owned) else { continue };
            let parent = self.parent(&base, path.parent().unwrap_or(Path::new("")))?;
            let kind = entry.header().entry_type();
            self.make(&base, &parent, &name, kind, &mut entry)
                .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
            if kind.is_dir() {
                times.push((path, entry.header().mtime()?));
            }
        }
        for (path, time) in times.iter().rev() {
            if let (Ok(parent), Some(name)) = (self.parent(&base, path.parent().unwrap_or(Path::new(""))), path.file_name()) {
                let _ = set_times(parent.as_fd(), name, *time);
            }
        }
        Ok(())
    }

    /// Opens a directory below the base, which is made where it is missing.
    fn parent(&self, base: &RootDir, path: &Path) -> io::Result<OwnedFd> {
        // Links of a container lead on inside of all its root, those of this machine's destination nowhere.
        let (root, full) = match self.links {
            Links::Follow => (self.root, self.base.join(path)),
            Links::Refuse => (base, path.to_owned()),
        };
        let open = || root.open_at(&full, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), self.links);
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.as_os_str().is_empty() => {
                let above = self.parent(base, path.parent().unwrap_or(Path::new("")))?;
                if let Some(name) = path.file_name() {
                    rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755))?;
                }
                open()
            }
            other => other,
        }
    }

    fn make(
        &self,
        base: &RootDir,
        parent: &OwnedFd,
        name: &OsStr,
        kind: EntryType,
        entry: &mut tar::Entry<'_, impl Read>,
    ) -> io::Result<()> {
        let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| FileType::from_raw_mode(stat.st_mode));
        match (there, kind.is_dir()) {
            (Some(FileType::Directory), false) => return Err(io::Error::other("a directory is in the place of a file")),
            // A link to a directory serves as one, where links lead on.
            (Some(FileType::Symlink), true) if self.links == Links::Follow => return Ok(()),
            (Some(FileType::Directory), true) | (None, _) => {}
            (Some(_), true) => return Err(io::Error::other("a file is in the place of a directory")),
            // Something is mounted on it: it gets another content. To remove it would take the mount off, as that is another namespace's.
            (Some(FileType::RegularFile), false) if kind.is_file() && is_mounted(parent, name)? => {
                let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                return io::copy(entry, &mut File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?)).map(drop);
            }
            (Some(_), false) => rustix::fs::unlinkat(parent, name, AtFlags::empty())?,
        }
        let mode = Mode::from_raw_mode(entry.header().mode()? & 0o7777);
        match kind {
            EntryType::Directory if there.is_none() => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?,
            EntryType::Directory => {}
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
                io::copy(entry, &mut file)?;
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?.into_owned();
                rustix::fs::symlinkat(target.as_os_str(), parent, name)?;
            }
            EntryType::Link => {
                let target = sane(&entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?)?;
                let from = self.parent(base, target.parent().unwrap_or(Path::new("")))?;
                let linked = target.file_name().ok_or(io::ErrorKind::InvalidData)?;
                return Ok(rustix::fs::linkat(&from, linked, parent, name, AtFlags::empty())?);
            }
            EntryType::Fifo => rustix::fs::mknodat(parent, name, FileType::Fifo, mode, 0)?,
            EntryType::Char | EntryType::Block => {
                let kind = if kind == EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                let header = entry.header();
                let (major, minor) = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
                rustix::fs::mknodat(parent, name, kind, mode, rustix::fs::makedev(major, minor))?;
            }
            _ => return Ok(()),
        }
        self.finish(parent, name, kind, mode, entry.header())
    }

    fn finish(&self, parent: &OwnedFd, name: &OsStr, kind: EntryType, mode: Mode, header: &Header) -> io::Result<()> {
        let number = |value: io::Result<u64>| value.map(|value| u32::try_from(value).unwrap_or(0));
        let owner = match self.owners {
            Owners::Caller => None,
            Owners::Set(uid, gid) => Some((uid, gid)),
            Owners::Keep => Some((number(header.uid())?, number(header.gid())?)),
        };
        if let Some((uid, gid)) = owner {
            rustix::fs::chownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW).map_err(
                |errno| match errno {
                    Errno::INVAL => {
                        io::Error::new(io::ErrorKind::InvalidInput, format!("the container has no user {uid} or no group {gid}"))
                    }
                    errno => errno.into(),
                },
            )?;
        }
        if kind != EntryType::Symlink {
            // After the owner, whose change clears some of it. By descriptor: the container may put a link there at any time.
            let place = rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            if FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) != FileType::Symlink {
                rustix::fs::chmod(crate::sys::descriptor_path(&place), mode)?;
            }
        }
        set_times(parent.as_fd(), name, header.mtime()?)
    }
}

/// Whether a name is that of a mount (statx(2), `STATX_ATTR_MOUNT_ROOT`).
fn is_mounted(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    let found = rustix::fs::statx(parent, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn set_times(parent: BorrowedFd<'_>, name: &OsStr, seconds: u64) -> io::Result<()> {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(parent, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A name of an archive without what leads nowhere.
fn sane(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the archive has the name `{}`", path.display()))),
        }
    }
    Ok(clean)
}
