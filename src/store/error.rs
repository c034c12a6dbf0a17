//! What can go wrong in the store. Every variant names the thing: a path, a digest, a name.
//!
//! A full disk, a read-only file system and missing permission are ordinary here: they arrive as [`Error::Io`] or [`Error::Database`], leave the store
//! as it was, and [`Error::hint`] says what to do about them.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::oci::{Digest, ImageId};

use super::SnapshotId;

/// Why the store could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file system refused something.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `create`, `rename`, …
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The database refused something.
    #[error("cannot {action} in the store's database `{}`", path.display())]
    Database {
        /// What was tried.
        action: &'static str,
        /// The database's file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// Another process held the database's write lock for too long.
    #[error("cannot {action}: another process has kept the store's database `{}` locked for half a minute", path.display())]
    DatabaseBusy {
        /// What was tried.
        action: &'static str,
        /// The database's file.
        path: PathBuf,
    },
    /// The store can be read, and not written.
    #[error("cannot {action}: the store `{}` can only be read", root.display())]
    ReadOnly {
        /// What was tried.
        action: &'static str,
        /// The store.
        root: PathBuf,
        /// Why it cannot be written.
        source: io::Error,
    },
    /// What should be the store's directory is none.
    #[error("the store `{}` {what}", root.display())]
    NoDirectory {
        /// The path.
        root: PathBuf,
        /// What is there.
        what: String,
    },
    /// The store was made by a newer version.
    #[error("the store `{}` has format {found}, and this version knows formats up to {known}", root.display())]
    NewerFormat {
        /// The store.
        root: PathBuf,
        /// The format that it is in.
        found: u32,
        /// The newest format that we know.
        known: u32,
    },
    /// The file `version` holds something else than a number.
    #[error("`{}` does not hold a store's version but `{found}`", path.display())]
    BadVersion {
        /// The file.
        path: PathBuf,
        /// What it holds (its beginning).
        found: String,
    },
    /// A blob is not in the store.
    #[error("blob {digest} is not in the store `{}`", root.display())]
    NoBlob {
        /// The blob.
        digest: Digest,
        /// The store.
        root: PathBuf,
    },
    /// A blob is larger than what reads it can take.
    #[error("blob {digest} has {size} bytes, more than the {limit} that are allowed here")]
    BlobTooLarge {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// What was allowed.
        limit: u64,
    },
    /// A name that would be taken for an ID.
    #[error("`{name}` cannot be the name of an image: it would be taken for an ID")]
    LikeDigest {
        /// The name.
        name: String,
    },
    /// A name with a digest is to stand for something else.
    #[error("the digest of `{name}` is not that of the image {}", image.digest().short())]
    OtherDigest {
        /// The name.
        name: String,
        /// The image.
        image: ImageId,
    },
    /// Bytes that were received are not those that were asked for.
    #[error("blob {expected} does not match its digest: received {actual}, {size} bytes")]
    DigestMismatch {
        /// What was asked for.
        expected: Box<Digest>,
        /// What came.
        actual: Box<Digest>,
        /// How much came.
        size: u64,
    },
    /// More or fewer bytes were received than were promised.
    #[error("blob {digest} does not have its size: expected {expected} bytes, received {actual}")]
    SizeMismatch {
        /// The blob.
        digest: Digest,
        /// What was promised.
        expected: u64,
        /// What came.
        actual: u64,
    },
    /// A snapshot is not in the store.
    #[error("snapshot {id} is not in the store `{}`", root.display())]
    NoSnapshot {
        /// The snapshot.
        id: SnapshotId,
        /// The store.
        root: PathBuf,
    },
    /// An image is not in the store.
    #[error("image {id} is not in the store `{}`", root.display())]
    NoImage {
        /// The image.
        id: ImageId,
        /// The store.
        root: PathBuf,
    },
    /// The beginning of an ID fits several things.
    #[error("`{prefix}` is the beginning of several IDs: {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Some of the IDs that begin so.
        candidates: Vec<String>,
    },
    /// A name is taken.
    #[error("the {what} name `{name}` is in use")]
    NameTaken {
        /// `container`, `volume` or `network`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name cannot be a file name in the store.
    #[error("`{name}` is not a {what} name: expected a letter or digit, then letters, digits, `_`, `.` and `-`")]
    BadName {
        /// `container`, `volume` or `network`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// The kernel gave no random bytes.
    #[error("cannot make a random name")]
    NoRandom {
        /// What the kernel said.
        source: io::Error,
    },
}

impl Error {
    /// Wraps an I/O error with what was tried, and with what.
    pub(crate) fn io<E: Into<io::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
        move |source| Error::Io { action, path: path.to_owned(), source: source.into() }
    }

    /// Whether the cause is a full disk or an exhausted quota.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Error::Io { source, .. } => matches!(errno(source), Some(Errno::NOSPC | Errno::DQUOT)),
            Error::Database { source, path, .. } => match source.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DiskFull) => true,
                // Of a log or its index that cannot be made SQLite says no more than that.
                Some(rusqlite::ErrorCode::SystemIoFailure | rusqlite::ErrorCode::CannotOpen) => is_full(path),
                _ => false,
            },
            _ => false,
        }
    }

    /// What to do about it, where we know.
    pub fn hint(&self) -> Option<String> {
        if self.is_disk_full() {
            return Some("the disk (or its inodes, or your quota) is full; `strake prune` frees what is not in use".to_owned());
        }
        match self {
            // What `/proc` says of a directory, all of whose parents are there.
            Error::Io { action: "create", path, source } if source.kind() == io::ErrorKind::NotFound => {
                let there = path.ancestors().find(|above| above.is_dir()).unwrap_or(path);
                Some(format!("nothing can be made in `{}`; `--root` or `STRAKE_ROOT` names another store", there.display()))
            }
            Error::Io { path, source, .. } => io_hint(path, source),
            Error::ReadOnly { root, source, .. } => io_hint(root, source),
            Error::NoDirectory { .. } => Some("`--root` or `STRAKE_ROOT` names another".to_owned()),
            Error::Database { source, path, .. } if is_damage(source) || !path.exists() => {
                Some("the database is damaged; `strake system check --repair` makes a new one of what can be read".to_owned())
            }
            Error::Database { source, path, .. } => match source.sqlite_error_code()? {
                rusqlite::ErrorCode::ReadOnly | rusqlite::ErrorCode::PermissionDenied | rusqlite::ErrorCode::CannotOpen => {
                    Some(format!("`{}` must be writable by this user; `--root` or `STRAKE_ROOT` names another store", path.display()))
                }
                _ => None,
            },
            Error::DatabaseBusy { .. } => Some("look for a `strake` process that hangs or is stopped".to_owned()),
            Error::NewerFormat { .. } => {
                Some("use a newer version of strake, or name another store with `--root` or `STRAKE_ROOT`".to_owned())
            }
            Error::BadVersion { .. } => {
                Some("is this the directory that you mean? `--root` or `STRAKE_ROOT` names another store".to_owned())
            }
            Error::Ambiguous { .. } => Some("give more digits".to_owned()),
            _ => None,
        }
    }
}

/// Whether SQLite says that the database is not what it should be, rather than that it cannot be had now.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode as E;
    let no_table = |text: &str| text.contains("no such table") || text.contains("no such column");
    match error {
        rusqlite::Error::SqliteFailure(failure, message) => {
            matches!(failure.code, E::DatabaseCorrupt | E::NotADatabase | E::TypeMismatch) || message.as_deref().is_some_and(no_table)
        }
        rusqlite::Error::SqlInputError { msg, .. } => no_table(msg),
        rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..) | rusqlite::Error::Utf8Error(..) => true,
        _ => false,
    }
}

/// Whether the file system of `path` has no bytes or no inodes left.
pub(crate) fn is_full(path: &Path) -> bool {
    let stat = path.parent().and_then(|dir| rustix::fs::statvfs(dir).ok());
    // File systems without a number of inodes say that they have none at all.
    stat.is_some_and(|stat| free_bytes(&stat) < LITTLE || (stat.f_files > 0 && stat.f_favail == 0))
}

/// What the index of the database's log takes, and a little more.
pub(crate) const LITTLE: u64 = 64 * 1024;

/// Whether the file system of `path` has no bytes left for the index of the database's log.
pub(crate) fn is_out_of_bytes(path: &Path) -> bool {
    path.parent().and_then(|dir| rustix::fs::statvfs(dir).ok()).is_some_and(|stat| free_bytes(&stat) < LITTLE)
}

/// What an ordinary user may still write. Root may write more on some file systems, and on others what they keep back from everyone is called free, too.
fn free_bytes(stat: &rustix::fs::StatVfs) -> u64 {
    stat.f_bavail * stat.f_frsize
}

fn errno(error: &io::Error) -> Option<Errno> {
    error.raw_os_error().map(Errno::from_raw_os_error)
}

fn io_hint(path: &Path, source: &io::Error) -> Option<String> {
    match errno(source)? {
        Errno::ROFS => Some("the file system is read-only; `--root` or `STRAKE_ROOT` names another store".to_owned()),
        Errno::ACCESS | Errno::PERM => {
            Some(format!("this user may not write to `{}`; `--root` or `STRAKE_ROOT` names another store", path.display()))
        }
        Errno::MFILE | Errno::NFILE => Some("too many files are open; raise the limit with `ulimit -n`".to_owned()),
        _ => None,
    }
}
