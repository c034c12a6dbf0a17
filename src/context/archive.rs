//! A build context that comes through a pipe: a tar archive, compressed or not, or just a Dockerfile.
//!
//! An archive keeps its owners, modes and attributes, as in BuildKit, where only files of a local directory become 0:0; its `.dockerignore` hides nothing, as
//! it was for whoever made the archive. Owners and modes are not set on disk, which would take privileges and could make a file unreadable for us, but
//! recorded by inode ([`Owners`]).
//!
//! Entries are hostile: names are cleaned (`..` stays at the root), every path is resolved below the target directory with links taken from there, and a
//! file never is written through a link. Devices are refused.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Cursor, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use tar::EntryType;

use crate::path::RootPath;
use crate::sys::{Links, RootDir};

use super::error::Error;
use super::ignore::IgnoreRules;
use super::local::LocalContext;

/// Who owns the files of a context.
#[derive(Debug, Default)]
pub enum Owners {
    /// Everything is 0:0 and has the mode that it has on disk.
    #[default]
    Root,
    /// Owners, modes and attributes as recorded, by device and inode; they need not be those on disk.
    Recorded(HashMap<(u64, u64), Attributes>),
}

/// What an archive says of an entry and the disk may not be able to hold without privileges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

impl Owners {
    /// Whether the disk does not say it all.
    pub(super) fn are_recorded(&self) -> bool {
        matches!(self, Owners::Recorded(_))
    }

    pub(super) fn of(&self, dev: u64, ino: u64) -> Option<&Attributes> {
        match self {
            Owners::Root => None,
            Owners::Recorded(recorded) => recorded.get(&(dev, ino)),
        }
    }
}

/// What came through the pipe.
#[derive(Debug)]
pub enum StdinInput {
    /// A Dockerfile; there are no files.
    Dockerfile(String),
    /// A context with its Dockerfile in it.
    Archive(Archive),
}

/// A context to be unpacked.
pub struct Archive {
    reader: Box<dyn Read + Send>,
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Archive")
    }
}

const BLOCK: usize = 512;

/// How large a Dockerfile from a pipe may be.
const DOCKERFILE_LIMIT: u64 = 16 << 20;

/// How much memory an xz stream may ask for.
const XZ_MEMORY: u64 = 256 << 20;

/// Tells by its first bytes what comes from `reader`. A Dockerfile is read to its end, an archive is not touched further.
pub fn sniff_stdin(mut reader: impl Read + Send + 'static) -> Result<StdinInput, Error> {
    let read_error = |source| Error::ReadStdin { source };
    let mut head = Vec::with_capacity(BLOCK);
    (&mut reader).take(BLOCK as u64).read_to_end(&mut head).map_err(read_error)?;
    if head.is_empty() {
        return Err(Error::EmptyStdin);
    }
    let compression = Compression::of(&head);
    if compression.is_some() || is_tar_header(&head) {
        let whole = Cursor::new(head).chain(reader);
        let reader: Box<dyn Read + Send> = match compression {
            Some(compression) => compression.decoder(whole).map_err(read_error)?,
            None => Box::new(whole),
        };
        return Ok(StdinInput::Archive(Archive { reader }));
    }
    reader.take(DOCKERFILE_LIMIT).read_to_end(&mut head).map_err(read_error)?;
    if head.len() as u64 > DOCKERFILE_LIMIT {
        return Err(Error::DockerfileTooLarge { limit: DOCKERFILE_LIMIT });
    }
    let text = String::from_utf8(head).map_err(|error| Error::NotText { offset: error.utf8_error().valid_up_to() })?;
    Ok(StdinInput::Dockerfile(text))
}

#[derive(Clone, Copy)]
enum Compression {
    Gzip,
    Bzip2,
    Xz,
    Zstd,
}

impl Compression {
    fn of(head: &[u8]) -> Option<Compression> {
        match head {
            [0x1f, 0x8b, ..] => Some(Compression::Gzip),
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Compression::Bzip2),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Compression::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Compression::Zstd),
            _ => None,
        }
    }

    fn decoder(self, reader: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        let reader = BufReader::with_capacity(64 * 1024, reader);
        Ok(match self {
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(reader)),
            Compression::Xz => {
                let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
                Box::new(liblzma::bufread::XzDecoder::new_stream(reader, stream))
            }
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        })
    }
}

/// Whether `head` starts a tar archive: its checksum is right, or it is the empty block that ends one.
fn is_tar_header(head: &[u8]) -> bool {
    let Some(block) = head.first_chunk::<BLOCK>() else { return false };
    if block.iter().all(|byte| *byte == 0) {
        return true;
    }
    let stated = tar::Header::from_byte_slice(block).cksum();
    // The checksum is over the header with blanks in the checksum's place.
    let sum: u32 = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) }).sum();
    stated.is_ok_and(|stated| stated == sum)
}

impl Archive {
    /// Unpacks into `dir`, an empty directory that nobody else writes to, and opens it as a context. The caller removes it after the build.
    pub fn into_context(self, dir: &Path) -> Result<LocalContext, Error> {
        let owners = self.unpack(dir)?;
        LocalContext::with_rules(dir, IgnoreRules::default(), owners)
    }

    /// Unpacks into `dir`.
    pub fn unpack(self, dir: &Path) -> Result<Owners, Error> {
        let root = RootDir::open(dir).map_err(|source| Error::OpenTarget { path: dir.to_owned(), source })?;
        let mut unpacker = Unpacker { root, recorded: HashMap::new(), directories: Vec::new(), parent: None };
        let mut archive = tar::Archive::new(self.reader);
        let entries = archive.entries().map_err(|source| Error::ReadArchive { entries: 0, source })?;
        for (done, entry) in (0..).zip(entries) {
            let mut entry = entry.map_err(|source| Error::ReadArchive { entries: done, source })?;
            unpacker.entry(&mut entry)?;
        }
        unpacker.finish()
    }
}

struct Unpacker {
    root: RootDir,
    recorded: HashMap<(u64, u64), Attributes>,
    /// Directories get their times last: what is created in them changes these.
    directories: Vec<(RootPath, i64)>,
    /// The directory of the last entry.
    parent: Option<(RootPath, OwnedFd)>,
}

type Entry<'a> = tar::Entry<'a, Box<dyn Read + Send>>;

impl Unpacker {
    fn entry(&mut self, entry: &mut Entry<'_>) -> Result<(), Error> {
        let name = entry.path_bytes().into_owned();
        let path = RootPath::new(OsStr::from_bytes(&name));
        let kind = match entry.header().entry_type() {
            // What applies to all entries that follow (git writes its commit there); nothing of it matters.
            EntryType::XGlobalHeader => return Ok(()),
            // Archives older than POSIX tell directories only by the slash.
            EntryType::Regular if name.ends_with(b"/") => EntryType::Directory,
            EntryType::Continuous | EntryType::GNUSparse => EntryType::Regular,
            known @ (EntryType::Regular | EntryType::Directory | EntryType::Symlink | EntryType::Link | EntryType::Fifo) => known,
            other => return Err(Error::UnsupportedEntry { path, kind: char::from(other.as_byte()) }),
        };
        self.create(&path, kind, entry).map_err(|source| Error::Unpack { path, source })
    }

    fn create(&mut self, path: &RootPath, kind: EntryType, entry: &mut Entry<'_>) -> io::Result<()> {
        let attributes = attributes_of(entry)?;
        let mtime = i64::try_from(entry.header().mtime()?).unwrap_or(i64::MAX);
        let Some(name) = path.file_name() else {
            let stat = rustix::fs::fstat(&self.root)?;
            self.recorded.insert((stat.st_dev, stat.st_ino), attributes);
            return Ok(());
        };
        let parent = self.open_parent(path)?;
        let made = self.make_room(&parent, name, kind).and_then(|()| match kind {
            EntryType::Directory => match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                Err(errno) => Err(errno.into()),
            },
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                Ok(rustix::fs::symlinkat(OsStr::from_bytes(&target), &parent, name)?)
            }
            EntryType::Link => {
                let target = RootPath::new(OsStr::from_bytes(&entry.link_name_bytes().unwrap_or_default()));
                let (directory, target_name) = self.root.open_parent(target.relative(), Links::Follow)?;
                Ok(rustix::fs::linkat(directory, target_name, &parent, name, AtFlags::empty())?)
            }
            EntryType::Fifo => Ok(rustix::fs::mknodat(&parent, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?),
            _ => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?;
                io::copy(entry, &mut File::from(file)).map(|_| ())
            }
        });
        let parent_path = path.parent().unwrap_or_else(RootPath::root);
        let finished = made.and_then(|()| self.finish_entry(&parent, path, name, kind, attributes, mtime));
        // Room was made for something else: what is kept may be gone.
        self.parent = Some((parent_path, parent));
        finished
    }

    /// Records what the disk does not hold, and sets the time.
    fn finish_entry(
        &mut self,
        parent: &OwnedFd,
        path: &RootPath,
        name: &OsStr,
        kind: EntryType,
        mut attributes: Attributes,
        mtime: i64,
    ) -> io::Result<()> {
        let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind == EntryType::Link {
            // It is the file that it links to, of which its own header has the last word, as where `ADD` unpacks it.
            let known = self.recorded.remove(&(stat.st_dev, stat.st_ino)).unwrap_or_default();
            if attributes.xattrs.is_empty() {
                attributes.xattrs = known.xattrs;
            }
        }
        self.recorded.insert((stat.st_dev, stat.st_ino), attributes);
        if kind == EntryType::Directory {
            self.directories.push((path.clone(), mtime));
            return Ok(());
        }
        Ok(rustix::fs::utimensat(parent, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Removes what is in the way of an entry: later entries of an archive replace earlier ones.
    fn make_room(&self, parent: &OwnedFd, name: &OsStr, kind: EntryType) -> io::Result<()> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        };
        let flags = match (FileType::from_raw_mode(stat.st_mode), kind) {
            (FileType::Directory, EntryType::Directory) => return Ok(()),
            (FileType::Directory, _) => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        Ok(rustix::fs::unlinkat(parent, name, flags)?)
    }

    /// Opens the directory that `path` goes to; missing ones are made with mode 0755.
    fn open_parent(&mut self, path: &RootPath) -> io::Result<OwnedFd> {
        let parent = path.parent().unwrap_or_else(RootPath::root);
        match self.parent.take() {
            // Only if it is still there: an entry may have replaced it.
            Some((known, fd)) if known == parent && rustix::fs::fstat(&fd)?.st_nlink > 0 => return Ok(fd),
            _ => {}
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.root.open_at(parent.relative(), flags, Mode::empty(), Links::Follow) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut at = RootPath::root();
        let mut directory = self.root.open_at(Path::new("."), flags, Mode::empty(), Links::Follow)?;
        for name in parent.components() {
            at = at.join(name);
            directory = match self.root.open_at(at.relative(), flags, Mode::empty(), Links::Follow) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    rustix::fs::mkdirat(&directory, name, Mode::RWXU)?;
                    let made = self.root.open_at(at.relative(), flags, Mode::empty(), Links::Follow)?;
                    let stat = rustix::fs::fstat(&made)?;
                    self.recorded.insert((stat.st_dev, stat.st_ino), Attributes { mode: 0o755, ..Attributes::default() });
                    made
                }
                other => other?,
            };
        }
        Ok(directory)
    }

    fn finish(self) -> Result<Owners, Error> {
        for (path, mtime) in self.directories.into_iter().rev() {
            let set = || {
                let (parent, name) = self.root.open_parent(path.relative(), Links::Follow)?;
                match rustix::fs::utimensat(parent.as_fd(), name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW) {
                    // A later entry took its place.
                    Ok(()) | Err(Errno::NOENT) => io::Result::Ok(()),
                    Err(errno) => Err(errno.into()),
                }
            };
            set().map_err(|source| Error::Unpack { path: path.clone(), source })?;
        }
        Ok(Owners::Recorded(self.recorded))
    }
}

fn times(mtime: i64) -> Timestamps {
    let omitted = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    Timestamps { last_access: omitted, last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 } }
}

fn attributes_of(entry: &mut Entry<'_>) -> io::Result<Attributes> {
    let id = |value: u64| u32::try_from(value).map_err(|_| io::Error::from(Errno::OVERFLOW));
    let header = entry.header();
    let (mode, uid, gid) = (header.mode()? & 0o7777, id(header.uid()?)?, id(header.gid()?)?);
    let mut xattrs = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        // A record that cannot be read is one that we do not know.
        for extension in extensions.flatten() {
            if let Some(name) = extension.key_bytes().strip_prefix(b"SCHILY.xattr.") {
                xattrs.push((OsStr::from_bytes(name).to_owned(), extension.value_bytes().to_vec()));
            }
        }
    }
    xattrs.sort_unstable();
    Ok(Attributes { mode, uid, gid, xattrs })
}
