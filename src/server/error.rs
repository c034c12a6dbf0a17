//! What can go wrong with the registry server itself: its files, its database, its socket. What a client did wrong is a [`Refusal`](super::reply::Refusal).

use std::io;
use std::path::{Path, PathBuf};

/// Why the registry cannot start, or cannot do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the storage cannot be used.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: `open`, `sync`, `rename`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database of the storage cannot be used.
    #[error("cannot {action} in `{}`", path.display())]
    Database {
        /// What was tried.
        action: &'static str,
        /// The database.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// The storage was written by a newer version of this program.
    #[error("the storage `{}` has format {found}, and this program knows formats up to {known}", path.display())]
    NewerStorage {
        /// The storage.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that is known here.
        known: u32,
    },
    /// A directory that is to be served read-only holds no registry.
    #[error("`{}` holds no registry's storage", path.display())]
    NoStorage {
        /// The directory.
        path: PathBuf,
    },
    /// A blob's file has changed since it was stored.
    #[error("the blob {digest} in `{}` has {found} bytes instead of {expected}", path.display())]
    Damaged {
        /// The blob.
        digest: String,
        /// Its file.
        path: PathBuf,
        /// The file's size.
        found: u64,
        /// The size that was stored.
        expected: u64,
    },
    /// The file with users and passwords cannot be understood.
    #[error("line {line} of `{}` {reason}", path.display())]
    Htpasswd {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A certificate or a key cannot be used.
    #[error("cannot use the {what} in `{}`: {reason}", path.display())]
    Tls {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody can listen at the address.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// The address, as it was given.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The name of the registry to mirror is none.
    #[error(
        "`{upstream}` is no registry that can be mirrored: expected HOST, HOST:PORT or HOST/PREFIX, perhaps after `http://` or `https://`"
    )]
    Upstream {
        /// What was given.
        upstream: String,
    },
    /// The kernel gives no random numbers.
    #[error("cannot get random numbers from the kernel")]
    Random(#[source] io::Error),
}

impl Error {
    /// For `map_err`: names the action and the path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    }

    /// Whether the disk is full.
    pub(super) fn is_full_disk(&self) -> bool {
        match self {
            Error::Io { source, .. } => matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded),
            Error::Database { source, .. } => source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => false,
        }
    }

    /// What the user can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Htpasswd { .. } => Some("write users with `htpasswd -B`: only bcrypt is safe enough to be taken".into()),
            Error::NoStorage { .. } => Some("leave out `--readonly` to make one".into()),
            Error::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => {
                Some("another program listens there: choose another port, or port 0 for any free one".into())
            }
            _ => None,
        }
    }
}
