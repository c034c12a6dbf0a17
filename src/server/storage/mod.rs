//! What the registry keeps, and the promises about it.
//!
//! ```text
//! registry.db          SQLite (WAL, synchronous=FULL): repositories, tags, manifests with their bytes, which repository has which blob
//! blobs/sha256/<hex>   blobs, each once for all repositories; blobs/sha512 too
//! uploads/<id>.<repo>  uploads under way: the bytes so far, locked by whoever writes to them
//! gc.lock              held by the process that collects garbage
//! ```
//!
//! A row of `blobs` is a promise that the file is whole and durable: the file is hashed, synced and renamed before the row is committed, and it is removed
//! inside the transaction that removes the row, so any number of processes may serve one storage. Killing one at any instant leaves at worst a file without a
//! row, which the next collection removes. A blob is visible in a repository only by a row of `links`.
//!
//! Everything here blocks; the API calls it by [`task::blocking`](crate::task::blocking).

mod blobs;
mod collect;
mod database;
mod lists;
mod manifests;
mod uploads;

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::oci::Digest;

use super::Error;
use database::Database;

pub(super) use blobs::Blob;
pub use collect::Collected;
pub(super) use lists::{Page, Totals, cut};
pub(super) use manifests::{NewManifest, Put, StoredManifest};
pub(super) use uploads::{Opened, Upload, UploadId};

/// Whether the storage may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// All requests are served.
    Write,
    /// Nothing is ever written, so the storage may lie on a read-only file system.
    Read,
}

/// One directory with everything that a registry keeps.
pub(super) struct Storage {
    root: PathBuf,
    database: Database,
    access: Access,
    hashes: uploads::Hashes,
}

impl Storage {
    /// Opens the storage in the directory `root`; it is made where it may be.
    pub(super) fn open(root: &Path, access: Access) -> Result<Storage, Error> {
        if access == Access::Write {
            for name in ["uploads", "blobs/sha256", "blobs/sha512"] {
                let path = root.join(name);
                std::fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
            }
        }
        let database = Database::open(root, access)?;
        Ok(Storage { root: root.to_owned(), database, access, hashes: uploads::Hashes::default() })
    }

    /// Whether it may change.
    pub(super) fn access(&self) -> Access {
        self.access
    }

    fn blob_dir(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs").join(digest.algorithm().name())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blob_dir(digest).join(digest.hex())
    }

    fn upload_dir(&self) -> PathBuf {
        self.root.join("uploads")
    }
}

/// Seconds since the epoch, as the tables keep times.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
