//! `strake cp`: where files go, by the rules of `docker cp`, which are those of cp(1) with a few more.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use crate::image::layer::decompressor;
use crate::runtime::container::{ContainerRoot, beside, open_root};
use crate::sys::{Links, RootDir};

use super::super::{Engine, Error};
use super::ContainerInfo;
use super::archive::{Owners, Unpacker, pack};

/// How files are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyFiles {
    /// Whether they keep their owners.
    pub archive: bool,
    /// Whether a link that is to be copied is followed.
    pub follow: bool,
}

/// A path below a root, as it was written.
struct Side<'a> {
    root: &'a RootDir,
    /// The container whose root that is.
    container: Option<&'a ContainerRoot>,
    /// Without what leads nowhere; relative to the root.
    path: PathBuf,
    /// Whether it ended with a slash, or a slash and a dot: then it is a directory.
    directory: bool,
    /// Whether it ended with a slash and a dot: then what is in the directory is meant.
    content: bool,
    shown: String,
}

impl<'a> Side<'a> {
    fn new(root: &'a RootDir, written: &Path, shown: String) -> Side<'a> {
        let text = written.as_os_str().to_string_lossy();
        let content = text.ends_with("/.") || text == ".";
        let directory = content || text.ends_with('/');
        Side { root, container: None, path: clean(written), directory, content, shown }
    }

    fn of_container(root: &'a ContainerRoot, path: &str, name: &str) -> Side<'a> {
        Side { container: Some(root), ..Side::new(root.dir(), Path::new(path), format!("{name}:{path}")) }
    }

    /// Where a link at the end of the path leads, inside of the root; the path itself where there is none.
    fn resolved(&self) -> Result<Side<'a>, Error> {
        let mut path = self.path.clone();
        // As deep as the kernel goes.
        for _ in 0..40 {
            let Ok(found) = self.root.open_at(&path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), Links::Follow) else { break };
            let Ok(target) = rustix::fs::readlinkat(&found, "", Vec::new()) else { break };
            let above = path.parent().unwrap_or(Path::new("")).to_owned();
            path = clean(&above.join(OsStr::from_bytes(target.to_bytes())));
        }
        Ok(Side { path, shown: self.shown.clone(), ..*self })
    }

    /// What is there; `None` for nothing.
    fn kind(&self, follow: bool) -> Result<Option<FileType>, Error> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        match self.root.open_at(&self.path, flags, Mode::empty(), Links::Follow) {
            Ok(found) => {
                let stat = rustix::fs::fstat(&found).map_err(|errno| self.failed("look at")(errno.into()))?;
                Ok(Some(FileType::from_raw_mode(stat.st_mode)))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(self.failed("open")(error)),
        }
    }

    /// What is added to the IDs of owners there.
    fn first_id(&self) -> u32 {
        self.container.map_or(0, ContainerRoot::first_id)
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = PathBuf::from(&self.shown);
        move |source| Error::Io { action, path, source }
    }

    fn refuse<T>(&self, why: &str) -> Result<T, Error> {
        Err(Error::Usage { message: format!("`{}` {why}", self.shown), hint: None })
    }

    fn name(&self) -> Option<&OsStr> {
        self.path.file_name()
    }
}

impl Engine {
    /// Copies what is at `path` of a container to this machine; gives the bytes of the files.
    pub fn copy_from_container(&self, info: &ContainerInfo, path: &str, to: &Path, flags: CopyFiles) -> Result<u64, Error> {
        let root = open_root(&info.dir).map_err(|source| info.failed("copy from", source))?;
        let from = Side::of_container(&root, path, &info.record.name);
        let owners = if flags.archive { Owners::Keep } else { Owners::Caller };
        let host = host()?;
        let to = Side::new(&host, &absolute(to)?, to.display().to_string());
        let copied = copy(&from, &to, flags.follow, Links::Refuse, owners)?;
        self.event("container", "archive-path", info, &[]);
        Ok(copied)
    }

    /// Writes what is at `path` of a container as a tar archive.
    pub fn archive_from_container(&self, info: &ContainerInfo, path: &str, flags: CopyFiles, out: &mut dyn Write) -> Result<(), Error> {
        let root = open_root(&info.dir).map_err(|source| info.failed("copy from", source))?;
        let from = Side::of_container(&root, path, &info.record.name);
        let follow = flags.follow || from.directory;
        if from.kind(follow)?.is_none() {
            return from.refuse("is not there");
        }
        let name = if from.content { Path::new(".") } else { from.name().map_or(Path::new(""), Path::new) };
        pack(from.root, from.first_id(), &from.path, name, follow, out).map_err(from.failed("copy"))?;
        self.event("container", "archive-path", info, &[]);
        Ok(())
    }

    /// Copies files of this machine to `path` of a container; gives their bytes.
    pub fn copy_to_container(&self, info: &ContainerInfo, from: &Path, path: &str, flags: CopyFiles) -> Result<u64, Error> {
        let root = open_root(&info.dir).map_err(|source| info.failed("copy to", source))?;
        let to = Side::of_container(&root, path, &info.record.name);
        let host = host()?;
        let from = Side::new(&host, &absolute(from)?, from.display().to_string());
        let owners = if flags.archive { Owners::Keep } else { Owners::Set(0, 0) };
        let copied = copy(&from, &to, flags.follow, Links::Follow, owners)?;
        self.event("container", "extract-to-dir", info, &[]);
        Ok(copied)
    }

    /// Puts the files of a tar archive, which may be compressed, into the directory at `path` of a container.
    pub fn archive_to_container(&self, info: &ContainerInfo, archive: impl Read + Send + 'static, path: &str) -> Result<(), Error> {
        let root = open_root(&info.dir).map_err(|source| info.failed("copy to", source))?;
        let to = Side::of_container(&root, path, &info.record.name);
        if to.kind(true)? != Some(FileType::Directory) {
            return to.refuse("is not a directory");
        }
        let mut archive = decompressor(archive, None).map_err(to.failed("copy to"))?;
        let unpacker = Unpacker { root: to.root, base: &to.path, links: Links::Follow, owners: Owners::Keep };
        let unpacked = root.act(|| unpacker.unpack(&mut archive), || ()).and_then(|(unpacked, ())| unpacked);
        unpacked.map_err(to.failed("copy to"))?;
        self.event("container", "extract-to-dir", info, &[]);
        Ok(())
    }
}

fn host() -> Result<RootDir, Error> {
    RootDir::open(Path::new("/")).map_err(|source| Error::Io { action: "open", path: "/".into(), source })
}

/// An absolute path that ends as it was written.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    let failed = |source| Error::Io { action: "find", path: path.to_owned(), source };
    let here = std::path::absolute(".").map_err(failed)?;
    // `join` keeps a slash or a dot at the end.
    Ok(here.join(path))
}

/// A path without what leads nowhere, relative to the root.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir => clean = PathBuf::new(),
            _ => {}
        }
    }
    clean
}

/// Copies from one side to the other.
fn copy(from: &Side<'_>, to: &Side<'_>, follow: bool, links: Links, owners: Owners) -> Result<u64, Error> {
    let follow = follow || from.directory;
    let Some(kind) = from.kind(follow)? else { return from.refuse("is not there") };
    let is_directory = kind == FileType::Directory;
    if from.directory && !is_directory {
        return from.refuse("is not a directory");
    }
    let to = &to.resolved()?;
    let (base, name) = target(from, to, is_directory)?;
    let failed = |source| Error::Io { action: "make a pipe for", path: PathBuf::from(&from.shown), source };
    let (reader, writer) = io::pipe().map_err(failed)?;
    let pack = || {
        let mut writer = io::BufWriter::new(writer);
        let packed = pack(from.root, from.first_id(), &from.path, &name, follow, &mut writer);
        packed.and_then(|bytes| writer.flush().map(|()| bytes))
    };
    let unpack = || Unpacker { root: to.root, base: &base, links, owners }.unpack(io::BufReader::new(reader));
    let (unpacked, packed) = match to.container {
        Some(container) => container.act(unpack, pack).map_err(to.failed("copy to"))?,
        None => beside(unpack, pack),
    };
    match (packed, unpacked) {
        // What stopped the reader stops the writer too.
        (Err(error), _) if error.kind() != io::ErrorKind::BrokenPipe => Err(from.failed("copy")(error)),
        (_, Err(error)) => Err(to.failed("copy to")(error)),
        (packed, Ok(())) => packed.map_err(from.failed("copy")),
    }
}

/// The directory that is copied into, and the name there; an empty one puts what is in a directory straight into it.
fn target(from: &Side<'_>, to: &Side<'_>, is_directory: bool) -> Result<(PathBuf, PathBuf), Error> {
    let parent = || to.path.parent().unwrap_or(Path::new("")).to_owned();
    let named = || PathBuf::from(to.name().unwrap_or_default());
    match to.kind(true)? {
        Some(FileType::Directory) if is_directory && from.content => Ok((to.path.clone(), PathBuf::new())),
        Some(FileType::Directory) => Ok((to.path.clone(), from.name().map_or_else(PathBuf::new, PathBuf::from))),
        Some(_) if is_directory => to.refuse("is a file: a directory cannot be copied to it"),
        Some(_) if to.directory => to.refuse("is not a directory"),
        Some(_) => Ok((parent(), named())),
        None if to.directory && !is_directory => to.refuse("is not there: the directory to copy a file into must be"),
        None => {
            let above = Side { path: parent(), directory: true, content: false, shown: to.shown.clone(), ..*to };
            if above.kind(true)? != Some(FileType::Directory) {
                return to.refuse("cannot be made: the directory above it is not there");
            }
            Ok((parent(), named()))
        }
    }
}
