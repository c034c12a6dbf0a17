//! Trees of files as tar archives, read from and written below a directory that nothing leads out of: what `strake cp` moves.
//!
//! Both sides may be hostile: a container changes its links while it is read, and an archive from it may hold any name. So every name is resolved by the kernel below the
//! root; where the files go to this machine, no link below the destination is followed at all.
//!
//! Names may be exchanged at any time, so each is used once: it is opened as a place (`O_PATH`), and what is read there, and the owner, mode and times of what was made, go by
//! that descriptor. Trees are as deep as they like: nothing recurses, and few directories are open at a time.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Stat, StatxAttributes, StatxFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use crate::runtime::UserRange;
use crate::sys::{Links, RootDir, descriptor_path};

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
    packer.tree(&found, name)?;
    packer.tar.into_inner()?.flush()?;
    Ok(packer.bytes)
}

/// Opens for use what was opened as a place only.
fn reopen(found: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(descriptor_path(found), flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// The ID that the kernel shows for those that a user namespace has not (`/proc/sys/kernel/overflowuid`).
const NOBODY: u32 = 65_534;

/// How many directories on the way down stay open.
const MAX_OPEN: usize = 64;

/// A directory being packed.
struct Level {
    /// Closed while the walk is far below.
    dir: Option<OwnedFd>,
    id: Identity,
    /// The names that are left, last first.
    names: Vec<OsString>,
}

/// What an inode is known by: its device and number.
type Identity = (u64, u64);

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

impl Level {
    fn open(found: &OwnedFd, stat: &Stat) -> io::Result<Level> {
        let dir = reopen(found, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names: Vec<OsString> = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let entry = entry?;
            let entry = entry.file_name().to_bytes();
            if entry != b"." && entry != b".." {
                names.push(OsString::from_vec(entry.to_vec()));
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Level { dir: Some(dir), id: identity(stat), names })
    }

    /// Opens one of its names as a place; `None` where it is gone since the directory was read.
    fn place(&self, name: &OsStr) -> io::Result<Option<OwnedFd>> {
        let dir = self.dir.as_ref().ok_or(Errno::BADF)?;
        match place(dir, name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        }
    }

    /// Opens it again from a directory in it. Where that has been moved meanwhile, what is above it may be outside of the root.
    fn come_back(&mut self, below: &Level) -> io::Result<()> {
        if let (None, Some(below)) = (&self.dir, &below.dir) {
            let dir = rustix::fs::openat(below, "..", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            if identity(&rustix::fs::fstat(&dir)?) != self.id {
                return Err(io::Error::other("it was moved while it was copied"));
            }
            self.dir = Some(dir);
        }
        Ok(())
    }
}

struct Packer<W: Write> {
    tar: Builder<W>,
    first: u32,
    /// Files with several names.
    links: HashMap<Identity, PathBuf>,
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
    /// Writes what was opened as a place, with all that is below.
    fn tree(&mut self, found: &OwnedFd, name: &Path) -> io::Result<()> {
        let mut path = name.to_owned();
        let mut levels: Vec<Level> = self.entry(found, &path)?.into_iter().collect();
        while let Some(mut level) = levels.pop() {
            let Some(entry) = level.names.pop() else {
                if let Some(above) = levels.last_mut() {
                    above.come_back(&level).map_err(|error| at(&path, &error))?;
                    path.pop();
                }
                continue;
            };
            path.push(&entry);
            let found = level.place(&entry).map_err(|error| at(&path, &error))?;
            levels.push(level);
            let below = found.map_or(Ok(None), |found| self.entry(&found, &path))?;
            let Some(below) = below else {
                path.pop();
                continue;
            };
            if let Some(far) = levels.len().checked_sub(MAX_OPEN) {
                levels[far].dir = None;
            }
            levels.push(below);
        }
        Ok(())
    }

    /// Writes what was opened as a place; gives the directory that it is.
    fn entry(&mut self, found: &OwnedFd, name: &Path) -> io::Result<Option<Level>> {
        let stat = rustix::fs::fstat(found)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                if !name.as_os_str().is_empty() {
                    let mut shown = name.as_os_str().to_owned();
                    shown.push("/");
                    self.tar.append_data(&mut header(self.first, &stat, EntryType::Directory), shown, io::empty())?;
                }
                return Level::open(found, &stat).map(Some).map_err(|error| at(name, &error));
            }
            FileType::RegularFile => {
                if stat.st_nlink > 1 {
                    if let Some(first) = self.links.get(&identity(&stat)) {
                        let first = first.clone();
                        self.tar.append_link(&mut header(self.first, &stat, EntryType::Link), name, first)?;
                        return Ok(None);
                    }
                    self.links.insert(identity(&stat), name.to_owned());
                }
                let file = reopen(found, OFlags::RDONLY | OFlags::NONBLOCK).map_err(|error| at(name, &error))?;
                self.file(File::from(file), &stat, name)?;
            }
            FileType::Symlink => self.link(&rustix::fs::readlinkat(found, "", Vec::new())?.into_bytes(), &stat, name)?,
            kind => self.special(kind, &stat, name)?,
        }
        Ok(None)
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
        let base = RootDir::open(&descriptor_path(&base))?;
        // Times of directories last, since every file in them changes them.
        let mut times: Vec<(PathBuf, Identity, u64)> = Vec::new();
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = sane(&entry.path()?)?;
            let Some(name) = path.file_name().map(OsStr::to_owned) else { continue };
            let time = entry.header().mtime()?;
            let made =
                self.parent(&base, path.parent().unwrap_or(Path::new(""))).and_then(|parent| self.make(&base, &parent, &name, &mut entry));
            if let Some(made) = made.map_err(|error| at(&path, &error))? {
                times.push((path, made, time));
            }
        }
        for (path, made, time) in times.iter().rev() {
            if let (Ok(parent), Some(name)) = (self.parent(&base, path.parent().unwrap_or(Path::new(""))), path.file_name())
                && let Ok(place) = place(&parent, name)
                && rustix::fs::fstat(&place).is_ok_and(|stat| identity(&stat) == *made)
            {
                let _ = set_times(&place, *time);
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
        let open = |path: &Path| root.open_at(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), self.links);
        let (mut above, mut missing) = (full.as_path(), Vec::new());
        let mut dir = loop {
            match open(above) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && missing.len() < path.components().count() => {}
                other => break other?,
            }
            missing.extend(above.file_name());
            above = above.parent().unwrap_or(Path::new(""));
        };
        for name in missing.into_iter().rev() {
            rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755))?;
            dir = rustix::fs::openat(&dir, name, PLACE | OFlags::DIRECTORY, Mode::empty())?;
        }
        Ok(dir)
    }

    /// Makes what the entry says; gives the directory that it is.
    fn make(&self, base: &RootDir, parent: &OwnedFd, name: &OsStr, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Option<Identity>> {
        let kind = entry.header().entry_type();
        let there = match place(parent, name) {
            Ok(found) => Some((FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode), found)),
            Err(_) => None,
        };
        match (&there, kind.is_dir()) {
            (Some((FileType::Directory, _)), false) => return Err(io::Error::other("a directory is in the place of a file")),
            // A link to a directory serves as one, where links lead on.
            (Some((FileType::Symlink, _)), true) if self.links == Links::Follow => return Ok(None),
            (Some((FileType::Directory, found)), true) => return self.finish(found, entry.header()).map(Some),
            (None, _) => {}
            (Some(_), true) => return Err(io::Error::other("a file is in the place of a directory")),
            // Something is mounted on it: it gets another content. To remove it would take the mount off, as that is another namespace's.
            (Some((FileType::RegularFile, found)), false) if kind.is_file() && is_mounted(found)? => {
                let mut file = File::from(reopen(found, OFlags::WRONLY | OFlags::TRUNC)?);
                return io::copy(entry, &mut file).map(|_| None);
            }
            (Some(_), false) => rustix::fs::unlinkat(parent, name, AtFlags::empty())?,
        }
        let node = |kind: FileType, device: u64| {
            rustix::fs::mknodat(parent, name, kind, AS_MADE, device)?;
            made(parent, name, kind, device)
        };
        let place = match kind {
            EntryType::Directory => {
                rustix::fs::mkdirat(parent, name, AS_MADE)?;
                made(parent, name, FileType::Directory, 0)?
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?);
                io::copy(entry, &mut file)?;
                Some(file.into())
            }
            EntryType::Symlink => {
                let target = entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?.into_owned();
                rustix::fs::symlinkat(target.as_os_str(), parent, name)?;
                made(parent, name, FileType::Symlink, 0)?
            }
            EntryType::Link => {
                let target = sane(&entry.link_name()?.ok_or(io::ErrorKind::InvalidData)?)?;
                let from = self.parent(base, target.parent().unwrap_or(Path::new("")))?;
                let linked = target.file_name().ok_or(io::ErrorKind::InvalidData)?;
                rustix::fs::linkat(&from, linked, parent, name, AtFlags::empty())?;
                None
            }
            EntryType::Fifo => node(FileType::Fifo, 0)?,
            EntryType::Char | EntryType::Block => {
                let header = entry.header();
                let (major, minor) = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
                let kind = if kind == EntryType::Char { FileType::CharacterDevice } else { FileType::BlockDevice };
                node(kind, rustix::fs::makedev(major, minor))?
            }
            _ => None,
        };
        let Some(place) = place else { return Ok(None) };
        let finished = self.finish(&place, entry.header())?;
        Ok(kind.is_dir().then_some(finished))
    }

    /// Gives what was opened its owner, mode and times.
    fn finish(&self, place: &OwnedFd, header: &Header) -> io::Result<Identity> {
        let number = |value: io::Result<u64>| value.map(|value| u32::try_from(value).unwrap_or(0));
        let owner = match self.owners {
            Owners::Caller => None,
            Owners::Set(uid, gid) => Some((uid, gid)),
            Owners::Keep => Some((number(header.uid())?, number(header.gid())?)),
        };
        if let Some((uid, gid)) = owner {
            let set = rustix::fs::chownat(place, "", Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::EMPTY_PATH);
            set.map_err(|errno| match errno {
                Errno::INVAL => io::Error::new(io::ErrorKind::InvalidInput, format!("the container has no user {uid} or no group {gid}")),
                errno => errno.into(),
            })?;
        }
        let stat = rustix::fs::fstat(place)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            // After the owner, whose change clears some of it.
            rustix::fs::chmod(descriptor_path(place), Mode::from_raw_mode(header.mode()? & 0o7777))?;
        }
        set_times(place, header.mtime()?)?;
        Ok(identity(&stat))
    }
}

const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a name as a place: what is there is neither followed nor touched.
fn place(parent: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, PLACE, Mode::empty())?)
}

/// The mode that things are made with which making does not open. Hardly anything else has it, so they are known by it.
const AS_MADE: Mode = Mode::empty();

/// Opens what has just been made under a name. `None` where it is like that and yet not as it was made: either the file system keeps no modes, or somebody has put another in its
/// place, which stays as it is.
fn made(parent: &OwnedFd, name: &OsStr, kind: FileType, device: u64) -> io::Result<Option<OwnedFd>> {
    let found = place(parent, name)?;
    let stat = rustix::fs::fstat(&found)?;
    if FileType::from_raw_mode(stat.st_mode) != kind || (device != 0 && stat.st_rdev != device) {
        return Err(io::Error::other("it was exchanged while it was copied"));
    }
    Ok(Some(found).filter(|_| kind == FileType::Symlink || Mode::from_raw_mode(stat.st_mode & 0o777) == AS_MADE))
}

/// Whether something is mounted there (statx(2), `STATX_ATTR_MOUNT_ROOT`).
fn is_mounted(found: &OwnedFd) -> io::Result<bool> {
    let found = rustix::fs::statx(found, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn set_times(place: &OwnedFd, seconds: u64) -> io::Result<()> {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(0), tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    // The link of that descriptor is followed, and no other.
    Ok(rustix::fs::utimensat(CWD, descriptor_path(place), &times, AtFlags::empty())?)
}

/// An error with where it happened. Of a long path the beginning tells.
pub(super) fn at(path: &Path, error: &io::Error) -> io::Error {
    let (shown, length) = (path.display().to_string(), path.as_os_str().len());
    let place = match shown.char_indices().nth(200) {
        Some((end, _)) => format!("{}…, a path of {length} bytes", &shown[..end]),
        None => shown,
    };
    io::Error::new(error.kind(), format!("{place}: {error}"))
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use rustix::fs::{RenameFlags, renameat_with};

    use super::*;

    fn unpack(root: &Path, archive: &[u8]) -> io::Result<()> {
        let root = RootDir::open(root).unwrap();
        Unpacker { root: &root, base: Path::new(""), links: Links::Refuse, owners: Owners::Caller }.unpack(archive)
    }

    fn archive(name: &str, kind: EntryType) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o777);
        header.set_mtime(0);
        header.set_size(0);
        tar.append_data(&mut header, name, io::empty()).unwrap();
        tar.into_inner().unwrap()
    }

    #[test]
    fn what_is_put_in_the_place_of_a_directory_that_was_just_made_stays_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let (made, other) = (temp.path().join("made"), temp.path().join("other"));
        let archive = archive("made", EntryType::Directory);
        for round in 0..1000 {
            fs::create_dir(&other).unwrap();
            fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
            let inode = fs::metadata(&other).unwrap().ino();
            std::thread::scope(|scope| {
                let exchange = scope.spawn(|| {
                    let started = std::time::Instant::now();
                    while renameat_with(CWD, &made, CWD, &other, RenameFlags::EXCHANGE).is_err() {
                        assert!(started.elapsed().as_secs() < 60);
                    }
                });
                let _ = unpack(temp.path(), &archive);
                exchange.join().unwrap();
            });
            assert_eq!(fs::metadata(&made).unwrap().ino(), inode);
            assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o700, "in round {round}");
            fs::remove_dir(&made).unwrap();
            fs::remove_dir(&other).unwrap();
        }
    }

    /// Counts what is open while it is written to.
    struct Counting {
        bytes: Vec<u8>,
        writes: u32,
        most: usize,
    }

    impl Write for Counting {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.writes += 1;
            if self.writes.is_multiple_of(64) {
                self.most = self.most.max(fs::read_dir("/proc/self/fd")?.count());
            }
            self.bytes.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_tree_is_as_deep_as_it_likes() {
        const DEPTH: usize = 2000;
        let temp = tempfile::tempdir().unwrap();
        let mut dir = rustix::fs::open(temp.path(), PLACE, Mode::empty()).unwrap();
        for level in 0..DEPTH {
            rustix::fs::mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).unwrap();
            // What comes after what is below.
            if level % 100 == 0 {
                rustix::fs::symlinkat("somewhere", &dir, "z").unwrap();
            }
            dir = rustix::fs::openat(&dir, "d", PLACE, Mode::empty()).unwrap();
        }
        let root = RootDir::open(temp.path()).unwrap();
        let mut out = Counting { bytes: Vec::new(), writes: 0, most: 0 };
        let packed = pack(&root, 0, Path::new(""), Path::new(""), false, &mut out);
        std::process::Command::new("rm").arg("-rf").arg(temp.path().join("d")).status().unwrap();
        packed.unwrap();
        let mut archive = tar::Archive::new(&out.bytes[..]);
        let lengths: Vec<usize> = archive.entries().unwrap().map(|entry| entry.unwrap().path_bytes().len()).collect();
        // `d/`, `d/d/`, …, and on the way back `…/z`.
        let down = (1..=DEPTH).map(|level| 2 * level);
        let up = (0..DEPTH).rev().filter(|level| level % 100 == 0).map(|level| 2 * level + 1);
        assert_eq!(lengths, down.chain(up).collect::<Vec<_>>());
        assert!(out.most > 0 && out.most < 500, "{} descriptors", out.most);
    }

    #[test]
    fn directories_that_an_archive_implies_are_made_however_many_and_the_end_of_paths_is_told() {
        let temp = tempfile::tempdir().unwrap();
        unpack(temp.path(), &archive(&"d/".repeat(1000), EntryType::Directory)).unwrap();
        assert!(temp.path().join("d/".repeat(900)).is_dir());
        let error = unpack(temp.path(), &archive(&"d/".repeat(2100), EntryType::Directory)).unwrap_err().to_string();
        assert!(error.starts_with("d/d/d/") && error.contains("a path of 4199 bytes: File name too long") && error.len() < 300, "{error}");
        std::process::Command::new("rm").arg("-rf").arg(temp.path().join("d")).status().unwrap();
    }
}
