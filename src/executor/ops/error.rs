//! What can go wrong when a step reads or writes files.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use crate::path::RootPath;

/// The longest path that a system call takes, without the byte that ends it (`PATH_MAX`).
pub(super) const MAX_PATH: usize = 4095;

/// Why files could not be copied, unpacked or made, or a user not be found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source without wildcards names nothing.
    #[error("`{path}` was not found")]
    Missing {
        /// The path in the source tree.
        path: RootPath,
        /// A name in the same directory that is nearly the same.
        near: Option<String>,
    },
    /// A pattern of a source or of `--exclude` is wrong.
    #[error("cannot select the files to copy")]
    Select(#[source] crate::context::Error),
    /// A file of the source cannot be read.
    #[error("cannot read `{path}` of the source")]
    Read {
        /// The path in the source tree.
        path: RootPath,
        /// Why.
        source: io::Error,
    },
    /// A file to add cannot be read.
    #[error("cannot read `{}`", path.display())]
    ReadHost {
        /// The file on this machine.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The root file system that is copied to cannot be read.
    #[error("cannot read `{path}` of the root file system")]
    ReadBase {
        /// The path in the root file system.
        path: RootPath,
        /// Why.
        source: io::Error,
    },
    /// The new layer's directory cannot be opened.
    #[error("cannot open the layer `{}`", path.display())]
    OpenLayer {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An entry cannot be made in the new layer.
    #[error("cannot write `{path}`")]
    Write {
        /// The path in the root file system.
        path: RootPath,
        /// Why.
        source: io::Error,
    },
    /// A directory is too deep for the kernel: no process could be started there.
    #[error("the path of the directory is longer than a path may be: {length} bytes, and {MAX_PATH} are the most")]
    PathTooLong {
        /// The length of the path.
        length: usize,
    },
    /// A directory should go where something else is.
    #[error("cannot make the directory `{path}`: something else is there")]
    NotADirectory {
        /// The path in the root file system.
        path: RootPath,
    },
    /// Something should replace a directory.
    #[error("cannot replace the directory `{path}` by a file")]
    IsADirectory {
        /// The path in the root file system.
        path: RootPath,
    },
    /// An archive is damaged, or ends too early.
    #[error("cannot read the archive after {entries} entries")]
    ReadArchive {
        /// How many entries were fine.
        entries: u64,
        /// Why.
        source: crate::image::layer::Error,
    },
    /// An archive cannot be read at all.
    #[error("cannot read the archive")]
    OpenArchive(#[source] io::Error),
    /// An entry of an archive cannot be made.
    #[error("cannot unpack `{entry}`: {reason}")]
    BadEntry {
        /// The entry's name as in the archive.
        entry: String,
        /// What is wrong with it.
        reason: BadEntry,
    },
    /// `USER` names a user that the root file system does not have.
    #[error("no user `{name}` in `/etc/passwd`")]
    UnknownUser {
        /// The name.
        name: String,
        /// A name that is nearly the same.
        near: Option<String>,
    },
    /// `USER` names a group that the root file system does not have.
    #[error("no group `{name}` in `/etc/group`")]
    UnknownGroup {
        /// The name.
        name: String,
        /// A name that is nearly the same.
        near: Option<String>,
    },
    /// A user or group is not what one can be.
    #[error("`{spec}` is no user: {reason}")]
    BadUser {
        /// The whole text.
        spec: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A line of a file of users or groups has a number that nobody can have.
    #[error("the number of `{name}` in `{file}` is none that a user or a group can have")]
    UserNumber {
        /// The user or the group.
        name: String,
        /// The file in the root file system.
        file: &'static str,
    },
    /// A file of users or groups is too large, or no file.
    #[error("cannot use `{path}`: {reason}")]
    UserFile {
        /// The path in the root file system.
        path: RootPath,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// What is wrong with an entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// A hard link to something that is not there.
    #[error("its link target `{}` does not exist", .0.display())]
    LinkTarget(OsString),
    /// A hard link to a directory.
    #[error("its link target `{}` is a directory", .0.display())]
    LinkToDirectory(OsString),
    /// More links than the kernel would follow.
    #[error("too many symbolic links on the way")]
    TooManyLinks,
}

impl Error {
    /// What the user could do about it, where we know.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Missing { near: Some(near), .. } => Some(format!("there is `{near}`")),
            Error::UnknownUser { near: Some(near), .. } | Error::UnknownGroup { near: Some(near), .. } => {
                Some(format!("did you mean `{near}`?"))
            }
            Error::UnknownUser { .. } | Error::UnknownGroup { .. } => Some("use a number, or create it in an earlier RUN".to_owned()),
            Error::NotADirectory { .. } => Some("remove it in an earlier RUN, or choose another destination".to_owned()),
            Error::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(crate::context::VANISHED.to_owned()),
            Error::Select(source) => source.hint(),
            Error::ReadArchive { source, .. } => source.hint(),
            _ => None,
        }
    }
}
