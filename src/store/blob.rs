//! Blobs: immutable bytes named by their digest.
//!
//! A blob that was just made is in `fresh/` and moves to `blobs/` when it is settled (see `settle`), so that storing one never waits for the disk, and a
//! name in `blobs/` still promises whole bytes after a power cut. Readers look in both places.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::oci::Digest;
use crate::task::fault_point;

use super::lock::{Kind, wait_for_file};
use super::{Error, Store};

impl Store {
    /// The size of a blob; `None` where it is not in the store.
    pub fn blob_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        self.find_blob(digest, "stat", |path| fs::symlink_metadata(path).map(|metadata| metadata.len()))
    }

    /// Opens a blob for reading. What is open stays readable even if it is pruned.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let file = self.find_blob(digest, "open", |path| File::open(path))?;
        file.ok_or_else(|| self.no_blob(digest))
    }

    /// Reads a whole blob of at most `limit` bytes. Bytes are hashed when they enter the store, not again here.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>, Error> {
        let mut file = self.open_blob(digest)?;
        let path = self.layout().settled_blob(digest);
        let size = file.metadata().map_err(Error::io("stat", &path))?.len();
        if size > limit {
            return Err(Error::BlobTooLarge { digest: digest.clone(), size, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        file.read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        Ok(bytes)
    }

    /// Stores `bytes` and gives their SHA-256 digest. Costs a hash and a `stat` where they are stored already.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::sha256(bytes);
        self.put_hashed(bytes, &digest)?;
        Ok(digest)
    }

    /// Stores `bytes` that others name by `digest`, whatever its algorithm.
    ///
    /// # Errors
    /// They do not hash to it.
    pub fn put_blob_as(&self, bytes: &[u8], digest: &Digest) -> Result<(), Error> {
        let actual = Digest::of(digest.algorithm(), bytes);
        if actual != *digest {
            let (expected, size) = (Box::new(digest.clone()), bytes.len() as u64);
            return Err(Error::DigestMismatch { expected, actual: Box::new(actual), size });
        }
        self.put_hashed(bytes, digest)
    }

    fn put_hashed(&self, bytes: &[u8], digest: &Digest) -> Result<(), Error> {
        if self.hold_blob(digest)? {
            return Ok(());
        }
        let temporary = self.layout().new_ingest()?;
        // Locked, so that prune sees that somebody is at it.
        let mut file = wait_for_file(&temporary, Kind::Exclusive)?;
        let written = file.write_all(bytes).map_err(Error::io("write", &temporary)).and_then(|()| {
            fault_point("blob:written");
            self.name_blob(&temporary, digest)
        });
        if written.is_err() {
            // Half a file helps nobody, least of all on a full disk.
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    /// Gives the whole and checked file `temporary` its name.
    pub(super) fn name_blob(&self, temporary: &Path, digest: &Digest) -> Result<(), Error> {
        let _shared = self.lock_store(Kind::Shared)?;
        let path = self.layout().fresh_blob(digest);
        self.hold(format_args!("blob {digest}"))?;
        fault_point("blob:held");
        fs::rename(temporary, &path).map_err(Error::io("create", &path))?;
        fault_point("blob:named");
        Ok(())
    }

    /// Whether a blob is in the store; if so, this process's leases hold it from now on.
    pub(super) fn hold_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let _shared = self.lock_store(Kind::Shared)?;
        let found = self.blob_size(digest)?.is_some();
        if found {
            self.hold(format_args!("blob {digest}"))?;
        }
        Ok(found)
    }

    /// Where a blob's bytes are now, to be opened at once: they move when they are settled.
    pub fn blob_path(&self, digest: &Digest) -> Result<std::path::PathBuf, Error> {
        let found = self.find_blob(digest, "stat", |path| fs::metadata(path).map(|_| path.to_owned()))?;
        found.ok_or_else(|| self.no_blob(digest))
    }

    /// Calls `f` with the path that a blob has now; `None` where it has none.
    pub(super) fn find_blob<T>(
        &self,
        digest: &Digest,
        action: &'static str,
        f: impl Fn(&Path) -> io::Result<T>,
    ) -> Result<Option<T>, Error> {
        let settled = self.layout().settled_blob(digest);
        let fresh = self.layout().fresh_blob(digest);
        // The third look finds a blob that was settled between the first two.
        for path in [&settled, &fresh, &settled] {
            match f(path) {
                Ok(value) => return Ok(Some(value)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(action, path)(error)),
            }
        }
        Ok(None)
    }

    pub(super) fn no_blob(&self, digest: &Digest) -> Error {
        Error::NoBlob { digest: digest.clone(), root: self.root().to_owned() }
    }
}
