//! Times in builds that are to give the same whenever they run: no file of a layer is later than the build's own time, and what comes without a time that
//! is part of it (files of a context, whose times say when somebody wrote them there) has exactly that one.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};

use crate::path::RootPath;
use crate::store::view::is_whiteout_stat;
use crate::sys::inode::Xattrs;
use crate::sys::tree::{DirEntry, Metadata, Tree};

/// What a build's own time, in seconds since the epoch, does to files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileTimes {
    /// The build has none, and files keep theirs.
    #[default]
    Kept,
    /// What `COPY`, `ADD` and `WORKDIR` make has this time, as in BuildKit with `SOURCE_DATE_EPOCH`; files of archives keep theirs, and so does what commands make.
    Made(i64),
    /// The result is to be the same whenever it is made: no file is later, commands are told of it, and what carries no time from where it comes from has this one.
    Held(i64),
}

impl FileTimes {
    /// The time that no file of the result is later than.
    pub fn latest(self) -> Option<i64> {
        match self {
            FileTimes::Held(seconds) => Some(seconds),
            FileTimes::Kept | FileTimes::Made(_) => None,
        }
    }

    /// The time of what is made without one of its own.
    pub fn made(self) -> Option<i64> {
        match self {
            FileTimes::Made(seconds) | FileTimes::Held(seconds) => Some(seconds),
            FileTimes::Kept => None,
        }
    }
}

/// What the times of a tree become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::executor) enum Rule {
    /// This one, all of them.
    Always,
    /// This one, where they are later.
    AtMost,
}

/// `tree` with times that follow `rule` (seconds since the epoch).
pub(in crate::executor) fn dated(tree: Arc<dyn Tree>, rule: Rule, seconds: i64) -> Arc<dyn Tree> {
    Arc::new(Dated { tree, rule, seconds })
}

struct Dated {
    tree: Arc<dyn Tree>,
    rule: Rule,
    seconds: i64,
}

impl Tree for Dated {
    fn metadata(&self, path: &RootPath) -> io::Result<Option<Metadata>> {
        let mut found = self.tree.metadata(path)?;
        if let Some(metadata) = &mut found
            && (self.rule == Rule::Always || metadata.mtime > (self.seconds, 0))
        {
            metadata.mtime = (self.seconds, 0);
        }
        Ok(found)
    }

    fn read_dir(&self, path: &RootPath) -> io::Result<Vec<DirEntry>> {
        self.tree.read_dir(path)
    }

    fn is_shared(&self) -> bool {
        self.tree.is_shared()
    }

    fn read_link(&self, path: &RootPath) -> io::Result<OsString> {
        self.tree.read_link(path)
    }

    fn open(&self, path: &RootPath) -> io::Result<File> {
        self.tree.open(path)
    }

    fn xattrs(&self, path: &RootPath) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        self.tree.xattrs(path)
    }

    fn open_with_xattrs(&self, path: &RootPath) -> io::Result<(File, Xattrs)> {
        self.tree.open_with_xattrs(path)
    }
}

/// Gives everything in the directory `path`, and the directory itself, the time `seconds` where it has a later one.
///
/// # Errors
/// What cannot be read or set.
pub(super) fn limit_times(path: &Path, seconds: i64) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
    // One descriptor for each level, not a call: how deep a tree is, is the command's choice.
    let mut open: Vec<(OwnedFd, Vec<OsString>)> = Vec::new();
    limit_one(&top, Path::new("."), seconds)?;
    let directories = limit_entries(&top, seconds)?;
    open.push((top, directories));
    while let Some((dir, directories)) = open.last_mut() {
        let Some(name) = directories.pop() else {
            open.pop();
            continue;
        };
        let inner = rustix::fs::openat(&*dir, &name, flags, Mode::empty())?;
        let directories = limit_entries(&inner, seconds)?;
        open.push((inner, directories));
    }
    Ok(())
}

/// Sets the times of a directory's entries; gives those that are directories.
fn limit_entries(dir: &OwnedFd, seconds: i64) -> io::Result<Vec<OsString>> {
    use std::os::unix::ffi::OsStringExt;
    let mut directories = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir)? {
        let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
        if name == "." || name == ".." {
            continue;
        }
        if limit_one(dir, Path::new(&name), seconds)? == FileType::Directory {
            directories.push(name);
        }
    }
    Ok(directories)
}

fn limit_one(dir: &OwnedFd, name: &Path, seconds: i64) -> io::Result<FileType> {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    // What says that something is deleted has no time; that of a pipe is part of what it says.
    if (stat.st_mtime, stat.st_mtime_nsec) > (seconds, 0) && !is_whiteout_stat(&stat) {
        let last_modification = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification };
        rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(FileType::from_raw_mode(stat.st_mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn later_times_are_lowered_of_whatever_there_is_and_earlier_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("a/b/c")).unwrap();
        for name in ["a/new", "a/b/old", "a/b/c/new"] {
            std::fs::write(at(name), name).unwrap();
        }
        symlink("nowhere", at("a/link")).unwrap();
        let old = Timespec { tv_sec: 1000, tv_nsec: 5 };
        rustix::fs::utimensat(CWD, at("a/b/old"), &Timestamps { last_access: old, last_modification: old }, AtFlags::empty()).unwrap();
        limit_times(dir.path(), 1001).unwrap();
        let time = |name: &str| {
            let metadata = std::fs::symlink_metadata(at(name)).unwrap();
            (metadata.mtime(), metadata.mtime_nsec())
        };
        assert_eq!(time("a/b/old"), (1000, 5));
        for name in ["", "a", "a/b", "a/b/c", "a/new", "a/b/c/new", "a/link"] {
            assert_eq!(time(name), (1001, 0), "{name}");
        }
        limit_times(dir.path(), 1000).unwrap();
        assert_eq!(time("a/b/old"), (1000, 0));
    }
}
