//! Blobs on their way in: bytes are hashed while they are written, and get a name only if the hash is right.
//!
//! A download whose digest is known is a file of that name in `ingest/`, locked by its writer; what a killed writer left is resumed by the next one, who
//! hashes what is there and goes on at its end. Bytes of unknown digest get a name of their own and are never resumed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use crate::oci::{Algorithm, Digest, Hasher};
use crate::task::fault_point;

use super::lock::{Kind, Wait, lock_file, wait_for_file};
use super::{Error, Store};

/// What came of asking to write a blob.
#[derive(Debug)]
pub enum Ingest {
    /// It is this caller's to write.
    Ready(IngestWriter),
    /// It is in the store already, with this size.
    Present(u64),
    /// Somebody else (another process, or a thread of this one) is writing it.
    Busy(BusyIngest),
}

/// A blob that somebody else is writing.
#[derive(Debug)]
pub struct BusyIngest {
    store: Store,
    digest: Digest,
}

impl BusyIngest {
    /// Blocks until the other writer is done or dead, then says what is to be done now (never `Busy`).
    pub fn wait(self) -> Result<Ingest, Error> {
        self.store.ingest_known(&self.digest, Wait::Yes)
    }
}

/// Writes one blob. Dropping it keeps what a later process can resume.
#[derive(Debug)]
pub struct IngestWriter {
    store: Store,
    path: PathBuf,
    /// Taken by whatever ends the ingest.
    file: Option<File>,
    hasher: HasherState,
    offset: u64,
    expected: Option<Digest>,
}

struct HasherState(Hasher);

impl std::fmt::Debug for HasherState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

impl IngestWriter {
    /// How many bytes are there already: where to go on after a cut.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The hash of the bytes that are there already.
    pub fn hasher(&self) -> Hasher {
        self.hasher.0.clone()
    }

    /// Writes and hashes `bytes`.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(bytes)
        {
            // Part of `bytes` may be written. Back to what is hashed, so that the caller may go on there.
            let _ = file.set_len(self.offset).and_then(|()| io::Seek::seek(file, io::SeekFrom::Start(self.offset)));
            let error = Error::io("write", &self.path)(error);
            if error.is_disk_full() {
                // Half a blob helps nobody on a full disk, where it takes the space that others need to make some.
                let _ = self.restart();
            }
            return Err(error);
        }
        self.hasher.0.update(bytes);
        self.offset += bytes.len() as u64;
        fault_point("ingest:appended");
        Ok(())
    }

    /// Throws away what was written, for a server that starts over.
    pub fn restart(&mut self) -> Result<(), Error> {
        if let Some(file) = &mut self.file {
            file.set_len(0).map_err(Error::io("truncate", &self.path))?;
            io::Seek::rewind(file).map_err(Error::io("rewind", &self.path))?;
        }
        let algorithm = self.expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        self.hasher = HasherState(Hasher::new(algorithm));
        self.offset = 0;
        Ok(())
    }

    /// Ends the blob, if it is what was expected; otherwise everything that was written is removed.
    pub fn commit(mut self, expected_digest: &Digest, expected_size: u64) -> Result<(), Error> {
        let actual = self.hasher.0.clone().finish();
        let outcome = if self.offset != expected_size {
            Err(Error::SizeMismatch { digest: expected_digest.clone(), expected: expected_size, actual: self.offset })
        } else if &actual != expected_digest {
            Err(Error::DigestMismatch { expected: Box::new(expected_digest.clone()), actual: Box::new(actual), size: self.offset })
        } else {
            self.store.name_blob(&self.path, expected_digest)
        };
        if outcome.is_ok() {
            self.file = None;
        } else {
            self.remove();
        }
        outcome
    }

    /// Ends the blob under whatever digest its bytes have.
    pub fn commit_as_is(mut self) -> Result<Digest, Error> {
        let digest = self.hasher.0.clone().finish();
        self.store.name_blob(&self.path, &digest)?;
        self.file = None;
        Ok(digest)
    }

    /// Ends the blob and removes what was written.
    pub fn abort(mut self) {
        self.remove();
    }

    fn remove(&mut self) {
        // Removed before it is unlocked: the next writer sees that its file has no name and makes another.
        if self.file.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
        self.file = None;
    }
}

impl Drop for IngestWriter {
    fn drop(&mut self) {
        if self.expected.is_none() {
            self.remove();
        }
    }
}

impl Write for IngestWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.append(bytes).map_err(|error| io::Error::new(kind_of(&error), error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn kind_of(error: &Error) -> io::ErrorKind {
    match error {
        Error::Io { source, .. } => source.kind(),
        _ => io::ErrorKind::Other,
    }
}

impl Store {
    /// Starts (or resumes) writing the blob `expected`, or one whose digest is not known yet. Resuming reads what is there.
    pub fn ingest(&self, expected: Option<&Digest>) -> Result<Ingest, Error> {
        match expected {
            Some(digest) => self.ingest_known(digest, Wait::No),
            None => self.ingest_new().map(Ingest::Ready),
        }
    }

    /// Starts writing a blob whose digest is not known yet.
    pub fn ingest_new(&self) -> Result<IngestWriter, Error> {
        let path = self.layout().new_ingest()?;
        let file = Some(wait_for_file(&path, Kind::Exclusive)?);
        let hasher = HasherState(Hasher::new(Algorithm::Sha256));
        fault_point("ingest:opened");
        Ok(IngestWriter { store: self.clone(), path, file, hasher, offset: 0, expected: None })
    }

    fn ingest_known(&self, digest: &Digest, wait: Wait) -> Result<Ingest, Error> {
        if let Some(size) = self.present(digest)? {
            return Ok(Ingest::Present(size));
        }
        let path = self.layout().ingest(digest);
        let Some(mut file) = lock_file(&path, Kind::Exclusive, wait)? else {
            return Ok(Ingest::Busy(BusyIngest { store: self.clone(), digest: digest.clone() }));
        };
        // Whoever had the lock before may have brought the blob in.
        if let Some(size) = self.present(digest)? {
            let _ = std::fs::remove_file(&path);
            return Ok(Ingest::Present(size));
        }
        fault_point("ingest:opened");
        let mut hasher = Hasher::new(digest.algorithm());
        let offset = hash_all(&mut file, &mut hasher).map_err(Error::io("read", &path))?;
        Ok(Ingest::Ready(IngestWriter {
            store: self.clone(),
            path,
            file: Some(file),
            hasher: HasherState(hasher),
            offset,
            expected: Some(digest.clone()),
        }))
    }

    fn present(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let Some(size) = self.blob_size(digest)? else { return Ok(None) };
        Ok(self.hold_blob(digest)?.then_some(size))
    }
}

/// Hashes a file to its end, which is where it is written next.
fn hash_all(file: &mut File, hasher: &mut Hasher) -> io::Result<u64> {
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(length) => {
                hasher.update(&buffer[..length]);
                total += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
