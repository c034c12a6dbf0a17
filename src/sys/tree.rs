//! A read-only view of a file tree: what COPY reads from and cache keys are made of, whether it is a build context, an image or a stage.
//!
//! Paths are [`RootPath`]s taken literally: an implementation never follows a link on the way (a path through a link does not exist); following links inside
//! the tree is [`resolve`]'s job, so that there is one rule for all trees.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;

use super::inode::Xattrs;
use crate::path::RootPath;

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// What `lstat(2)` says of an entry, as it is in the tree (owners as inside of the root file system).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with setuid, setgid and sticky: at most 0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes (files; the target's length for links).
    pub size: u64,
    /// Time of last modification: seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    /// Time of last change of the inode: seconds and nanoseconds since the epoch.
    pub ctime: (i64, u32),
    /// Major and minor number (devices).
    pub rdev: (u32, u32),
    /// The device that the inode is on.
    pub dev: u64,
    /// The inode's number on that device; with `dev` it tells hard links of one file.
    pub ino: u64,
    /// Number of hard links.
    pub nlink: u64,
}

impl Metadata {
    /// A directory that no entry describes: everyone's to read, root's, and as old as time.
    pub const IMPLIED_DIRECTORY: Metadata = Metadata {
        kind: Kind::Directory,
        mode: 0o755,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: (0, 0),
        ctime: (0, 0),
        rdev: (0, 0),
        dev: 0,
        ino: 0,
        nlink: 2,
    };
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name.
    pub name: OsString,
    /// What it is.
    pub kind: Kind,
}

/// A read-only file tree.
pub trait Tree: Send + Sync {
    /// What is at `path`; `None` where nothing is (also where a parent is missing, a link or no directory).
    fn metadata(&self, path: &RootPath) -> io::Result<Option<Metadata>>;

    /// The entries of a directory, sorted by the bytes of their names, without `.` and `..`.
    fn read_dir(&self, path: &RootPath) -> io::Result<Vec<DirEntry>>;

    /// The target of a symbolic link.
    fn read_link(&self, path: &RootPath) -> io::Result<OsString>;

    /// Opens a regular file for reading.
    fn open(&self, path: &RootPath) -> io::Result<File>;

    /// The extended attributes of an entry, sorted by name, without those of overlayfs itself.
    fn xattrs(&self, path: &RootPath) -> io::Result<Vec<(OsString, Vec<u8>)>>;

    /// Whether [`Tree::xattrs`] gives no more than what checksums of the tree count.
    fn checksums_cover_xattrs(&self) -> bool {
        false
    }

    /// Whether others may write to files while the tree is read, so that [`Tree::metadata`] and [`Tree::open`] may tell of different times.
    fn is_shared(&self) -> bool {
        false
    }

    /// What [`Tree::read_dir`] lists, with what [`Tree::metadata`] says of each entry; what vanished meanwhile is left out.
    fn examine_dir(&self, path: &RootPath) -> io::Result<Vec<(OsString, Metadata)>> {
        let examine = |entry: DirEntry| Ok(self.metadata(&path.join(&entry.name))?.map(|metadata| (entry.name, metadata)));
        self.read_dir(path)?.into_iter().filter_map(|entry| examine(entry).transpose()).collect()
    }

    /// What [`Tree::open`] and [`Tree::xattrs`] give of a regular file, which is opened once. [`Tree::metadata`] has told that it is there.
    fn open_with_xattrs(&self, path: &RootPath) -> io::Result<(File, Xattrs)> {
        Ok((self.open(path)?, self.xattrs(path)?))
    }
}

/// How many links one path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// What to do with a link that a path ends at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// It is followed.
    Follow,
    /// It is the result.
    Keep,
}

/// Resolves links in `path` inside the tree: absolute targets start at the tree's root and `..` cannot leave it. What does not exist is taken
/// literally, so that the result may be created. Fails with `ELOOP` after 40 links.
pub fn resolve(tree: &dyn Tree, path: &RootPath, last: LastLink) -> io::Result<RootPath> {
    resolve_by(tree, path, last, |_| ())
}

/// As [`resolve`], and tells of each link that is followed where it is.
pub fn resolve_by(tree: &dyn Tree, path: &RootPath, last: LastLink, mut followed: impl FnMut(&RootPath)) -> io::Result<RootPath> {
    let mut done = RootPath::root();
    let mut todo: Vec<OsString> = path.components().rev().map(OsStr::to_owned).collect();
    let mut links = 0;
    // How many of the last components are not there: nothing is below them either, so that nobody need look.
    let mut missing = 0usize;
    while let Some(name) = todo.pop() {
        if name == ".." {
            done = done.parent().unwrap_or_else(RootPath::root);
            missing = missing.saturating_sub(1);
            continue;
        }
        let next = done.join(&name);
        if missing > 0 {
            missing += 1;
            done = next;
            continue;
        }
        let is_last = todo.is_empty();
        let follow = !is_last || last == LastLink::Follow;
        match tree.metadata(&next)? {
            Some(metadata) if metadata.kind == Kind::Symlink && follow => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(rustix::io::Errno::LOOP.into());
                }
                followed(&next);
                let target = tree.read_link(&next)?;
                if target.as_encoded_bytes().first() == Some(&b'/') {
                    done = RootPath::root();
                }
                // Kept in pieces and not cleaned: `..` after a link means the parent of where the link leads.
                todo.extend(pieces(&target).rev().map(OsStr::to_owned));
            }
            found => {
                missing = usize::from(found.is_none());
                done = next;
            }
        }
    }
    Ok(done)
}

fn pieces(path: &OsStr) -> impl DoubleEndedIterator<Item = &OsStr> {
    use std::os::unix::ffi::OsStrExt;
    path.as_bytes().split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").map(OsStr::from_bytes)
}
