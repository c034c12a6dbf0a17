//! A copy of a file or directory of this machine, in the place of a mount that cannot be made: what a command has changed in it goes back afterwards.
//!
//! What was copied is remembered by inode number and time of change, so only what the command has made, changed or removed is. Each file is written beside its place and renamed: whoever is killed
//! leaves each of them as it was or as it is to be. The command is gone by then; the directory of this machine is anybody's, and is reached without following a link.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::sys::{copy_content, descriptor_path};

/// Where something is copied from, and what the copy was like before the command.
#[derive(Debug)]
pub(super) struct Borrowed {
    source: PathBuf,
    /// By path in the copy; the copy itself has none. What was there, and its number and time of change.
    known: BTreeMap<PathBuf, Known>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    is_directory: bool,
    inode: u64,
    changed: (i64, i64),
}

impl Known {
    fn of(stat: &Stat) -> Known {
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Known { is_directory, inode: stat.st_ino, changed: (stat.st_ctime, stat.st_ctime_nsec as i64) }
    }
}

/// How the name of what is being written begins.
const TEMPORARY: &str = ".strake-";

impl Borrowed {
    /// Where it was copied from.
    pub(super) fn source(&self) -> &Path {
        &self.source
    }

    /// Looks at the copy `name` of `source`, which is complete.
    pub(super) fn look(source: &Path, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Borrowed> {
        let mut known = BTreeMap::new();
        let mut left = vec![(PathBuf::new(), name.to_owned())];
        while let Some((path, at)) = left.pop() {
            let stat = stat(parent, &at)?;
            let now = Known::of(&stat);
            known.insert(path.clone(), now);
            if now.is_directory {
                let directory = open_directory(parent, &at)?;
                left.extend(names(&directory)?.into_iter().map(|name| (path.join(&name), join(&at, &name))));
            }
        }
        // The kernel's clock goes in steps: what is changed within the present one could not be told.
        std::thread::sleep(std::time::Duration::from_millis(12));
        Ok(Borrowed { source: source.to_owned(), known })
    }

    /// Writes to the source what has changed in its copy. Goes on where something fails, and gives the first failure.
    pub(super) fn give_back(&self, parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
        let mut failed = None;
        let found = match stat(parent, name) {
            Ok(found) => found,
            // A mount could not have been removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let was_directory = self.known.get(Path::new("")).is_some_and(|known| known.is_directory);
        match (was_directory, Known::of(&found).is_directory) {
            (true, true) => {
                let copy = open_directory(parent, name)?;
                let home = rustix::fs::open(&self.source, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
                // Nothing is removed before what is new is there: it may have been moved. Nor after a failure.
                self.write(&copy, &home, Path::new(""), Part::Alike, &mut failed);
                if failed.is_none() {
                    self.remove(&copy, &home, &mut failed);
                    self.write(&copy, &home, Path::new(""), Part::Unlike, &mut failed);
                }
                if self.has_changed(Path::new(""), &found) {
                    note(&mut failed, take_metadata(&home, &found));
                }
            }
            (false, false) if self.has_changed(Path::new(""), &found) => {
                let above = self.source.parent().ok_or(Errno::INVAL)?;
                let home = rustix::fs::open(above, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
                let to = self.source.file_name().ok_or(Errno::INVAL)?;
                return match put(parent, name, &home, to, &found) {
                    // It is a mount itself, or its directory cannot be written: then as the command would have.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EROFS | libc::EACCES)) => {
                        copy_content(&open_file(parent, name)?, &File::options().write(true).truncate(true).open(&self.source)?)
                    }
                    other => other,
                };
            }
            _ => {}
        }
        failed.map_or(Ok(()), Err)
    }

    fn has_changed(&self, path: &Path, now: &Stat) -> bool {
        self.known.get(path) != Some(&Known::of(now))
    }

    /// Removes what is not there any more, innermost first.
    fn remove(&self, copy: &OwnedFd, home: &OwnedFd, failed: &mut Option<io::Error>) {
        for (path, known) in self.known.iter().rev().filter(|(path, _)| !path.as_os_str().is_empty()) {
            let now = below(copy, path).and_then(|(parent, name)| stat(parent.as_fd(), name));
            let is_gone = match now {
                Ok(now) => Known::of(&now).is_directory != known.is_directory,
                Err(error) => matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)),
            };
            if is_gone {
                let flags = if known.is_directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
                match below(home, path).and_then(|(parent, name)| Ok(rustix::fs::unlinkat(parent, name, flags)?)) {
                    // What somebody else has put into it meanwhile stays.
                    Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTEMPTY | libc::ENOTDIR)) => {
                        note(failed, Err(error))
                    }
                    _ => {}
                }
            }
        }
    }

    fn write(&self, copy: &OwnedFd, home: &OwnedFd, at: &Path, part: Part, failed: &mut Option<io::Error>) {
        let names = match names(copy) {
            Ok(names) => names,
            Err(error) => return note(failed, Err(error)),
        };
        for name in names {
            let path = at.join(&name);
            let mut one = || -> io::Result<()> {
                let found = stat(copy.as_fd(), &name)?;
                let is_directory = Known::of(&found).is_directory;
                let is_unlike = self.known.get(&path).is_some_and(|known| known.is_directory != is_directory);
                let part = match part {
                    Part::Alike if is_unlike => return Ok(()),
                    Part::Unlike if is_unlike => Part::All,
                    Part::Unlike if !is_directory => return Ok(()),
                    part => part,
                };
                if is_directory {
                    match rustix::fs::mkdirat(home, &name, Mode::RWXU) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                    let (from, to) = (open_directory(copy.as_fd(), &name)?, open_directory(home.as_fd(), &name)?);
                    self.write(&from, &to, &path, part, failed);
                    return if self.has_changed(&path, &found) { take_metadata(&to, &found) } else { Ok(()) };
                }
                if self.has_changed(&path, &found) { put(copy.as_fd(), &name, home, &name, &found) } else { Ok(()) }
            };
            let done = one();
            note(failed, done);
        }
    }
}

/// What is written in one pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// All but what has the place of something of another kind.
    Alike,
    /// That alone, with all that is below.
    Unlike,
    All,
}

fn note(failed: &mut Option<io::Error>, outcome: io::Result<()>) {
    if let Err(error) = outcome {
        failed.get_or_insert(error);
    }
}

fn stat(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<Stat> {
    Ok(rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn open_directory(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
}

fn open_file(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(parent, name, flags, Mode::empty())?))
}

fn names(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let mut all = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            all.push(name.to_owned());
        }
    }
    Ok(all)
}

fn join(path: &OsStr, name: &OsStr) -> OsString {
    Path::new(path).join(name).into_os_string()
}

/// The directory that holds `path` below another one, and the last name. No link is followed.
fn below<'a>(directory: &OwnedFd, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
    let mut at = directory.try_clone()?;
    for part in path.parent().unwrap_or(Path::new("")).iter() {
        at = open_directory(at.as_fd(), part)?;
    }
    Ok((at, path.file_name().ok_or(Errno::INVAL)?))
}

/// Puts a copy of `name` into the place of what is called `to` in `home`.
fn put(from: BorrowedFd<'_>, name: &OsStr, home: &OwnedFd, to: &OsStr, found: &Stat) -> io::Result<()> {
    let kind = FileType::from_raw_mode(found.st_mode);
    let mut temporary = OsString::from(format!("{TEMPORARY}{}-", std::process::id()));
    temporary.push(found.st_ino.to_string());
    let _ = rustix::fs::unlinkat(home, &temporary, AtFlags::empty());
    let made = || -> io::Result<()> {
        match kind {
            FileType::RegularFile => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = File::from(rustix::fs::openat(home, &temporary, flags, Mode::RUSR | Mode::WUSR)?);
                copy_content(&open_file(from, name)?, &file)?;
            }
            FileType::Symlink => rustix::fs::symlinkat(rustix::fs::readlinkat(from, name, Vec::new())?, home, &temporary)?,
            FileType::Fifo => rustix::fs::mknodat(home, &temporary, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
            // Devices and sockets mean nothing there.
            _ => return Ok(()),
        }
        let owner = (Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)));
        rustix::fs::chownat(home, &temporary, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            let file = rustix::fs::openat(home, &temporary, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
            rustix::fs::chmodat(CWD, Path::new(&descriptor_path(&file)), Mode::from_raw_mode(found.st_mode & 0o7777), AtFlags::empty())?;
        }
        if kind == FileType::RegularFile
            && let (Ok(content), Ok(file)) = (open_file(from, name), open_file(home.as_fd(), &temporary))
        {
            // A change of owner takes capabilities away.
            copy_attributes(&content, &file);
        }
        rustix::fs::utimensat(home, &temporary, &times(found), AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(rustix::fs::renameat(home, &temporary, home, to)?)
    };
    let done = made();
    if done.is_err() {
        let _ = rustix::fs::unlinkat(home, &temporary, AtFlags::empty());
    }
    done
}

/// Gives a file the extended attributes of another one, as far as it can have them.
fn copy_attributes(from: &File, to: &File) {
    let mut names = vec![0; 64 << 10];
    let Ok(length) = rustix::fs::flistxattr(from, &mut names) else { return };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        if let Ok(length) = rustix::fs::fgetxattr(from, name, &mut value) {
            let _ = rustix::fs::fsetxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty());
        }
    }
}

fn take_metadata(directory: &OwnedFd, found: &Stat) -> io::Result<()> {
    rustix::fs::fchown(directory, Some(Uid::from_raw(found.st_uid)), Some(Gid::from_raw(found.st_gid)))?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(found.st_mode & 0o7777))?;
    Ok(rustix::fs::futimens(directory, &times(found))?)
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: i64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as _ };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as i64),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as i64),
    }
}
