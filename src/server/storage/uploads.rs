//! Uploads under way: one file each, whose name says to which repository it goes.
//!
//! The file is all there is: its length is how far the upload has come, its lock (`flock`) says that somebody writes to it just now, and its age when it is
//! garbage. So an upload survives the server, may go on at another process, and costs no transaction. The hash of what has come is remembered by this process only;
//! where that is missing, the file is read again.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::oci::{Algorithm, Digest, Hasher};

use super::{Error, Storage};

/// How long a request waits for the one before it, whose connection may have been cut without its end.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Uploads whose hashes are remembered.
const MAX_HASHES: usize = 4096;

/// The name of an upload: 128 random bits, written as a UUID of version 4.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct UploadId(String);

impl UploadId {
    fn random() -> Result<UploadId, Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| Error::Random(std::io::Error::other(error.to_string())))?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(UploadId([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")))
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UploadId {
    type Err = ();

    fn from_str(text: &str) -> Result<UploadId, ()> {
        let word = |byte: u8| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 36 && text.bytes().all(word) { Ok(UploadId(text.to_owned())) } else { Err(()) }
    }
}

/// The hashes of uploads, and up to which byte each has come.
#[derive(Default)]
pub(super) struct Hashes(Mutex<HashMap<UploadId, (u64, Hasher)>>);

impl Hashes {
    fn take(&self, id: &UploadId, length: u64) -> Option<Hasher> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id)?;
        (found.0 == length).then_some(found.1)
    }

    fn keep(&self, id: &UploadId, length: u64, hasher: Hasher) {
        let mut hashes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if hashes.len() >= MAX_HASHES {
            // Clients that went away; whoever comes back after all has his file read again.
            hashes.clear();
        }
        hashes.insert(id.clone(), (length, hasher));
    }
}

/// An upload that this request alone may write to.
pub(crate) struct Upload {
    id: UploadId,
    repository: String,
    path: PathBuf,
    file: File,
    length: u64,
    hasher: Option<Hasher>,
}

/// What came of asking for an upload.
pub(crate) enum Opened {
    /// It is ours until it is dropped.
    Upload(Box<Upload>),
    /// Another request writes to it.
    Busy,
    /// There is none of that name in that repository.
    Unknown,
}

impl Upload {
    /// Its name.
    pub(crate) fn id(&self) -> &UploadId {
        &self.id
    }

    /// How many bytes have come.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Takes back what came after the first `length` bytes.
    pub(crate) fn truncate(&mut self, length: u64) -> Result<(), Error> {
        self.file.set_len(length).map_err(Error::io("truncate", &self.path))?;
        self.file.seek(SeekFrom::Start(length)).map_err(Error::io("seek in", &self.path))?;
        (self.length, self.hasher) = (length, None);
        Ok(())
    }

    /// Another handle on its bytes, for reading at positions while it grows.
    pub(crate) fn reader(&self) -> Result<File, Error> {
        File::open(&self.path).map_err(Error::io("open", &self.path))
    }

    /// Adds bytes. What was written before an error stays.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        self.length += bytes.len() as u64;
        Ok(())
    }
}

impl Storage {
    fn upload_path(&self, repository: &str, id: &UploadId) -> PathBuf {
        // Names hold slashes and may be long, so the file has the name's hash.
        let hash = Digest::sha256(repository.as_bytes()).hex();
        self.upload_dir().join(format!("{}.{}", id.as_str(), &hash[..16]))
    }

    /// Begins an upload to a repository.
    pub(crate) fn begin_upload(&self, repository: &str, algorithm: Algorithm) -> Result<Box<Upload>, Error> {
        let id = UploadId::random()?;
        let path = self.upload_path(repository, &id);
        let file =
            OpenOptions::new().write(true).read(true).create_new(true).mode(0o600).open(&path).map_err(Error::io("create", &path))?;
        file.lock().map_err(Error::io("lock", &path))?;
        Ok(Box::new(Upload { id, repository: repository.to_owned(), path, file, length: 0, hasher: Some(Hasher::new(algorithm)) }))
    }

    /// Takes up an upload again. `algorithm` is the one to hash with where nothing has come yet.
    pub(crate) fn open_upload(&self, repository: &str, id: &UploadId, algorithm: Algorithm) -> Result<Opened, Error> {
        let path = self.upload_path(repository, id);
        let mut file = match OpenOptions::new().write(true).read(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Opened::Unknown),
            Err(error) => return Err(Error::io("open", &path)(error)),
        };
        let mut tries = 0;
        while let Err(error) = file.try_lock() {
            match error {
                TryLockError::WouldBlock if tries < LOCK_TRIES => std::thread::sleep(LOCK_PAUSE),
                TryLockError::WouldBlock => return Ok(Opened::Busy),
                TryLockError::Error(error) => return Err(Error::io("lock", &path)(error)),
            }
            tries += 1;
        }
        // Whoever had the lock before may have made a blob of it, or removed it.
        if !path.exists() {
            return Ok(Opened::Unknown);
        }
        let length = file.seek(SeekFrom::End(0)).map_err(Error::io("seek in", &path))?;
        let hasher = if length == 0 { Some(Hasher::new(algorithm)) } else { self.hashes.take(id, length) };
        Ok(Opened::Upload(Box::new(Upload { id: id.clone(), repository: repository.to_owned(), path, file, length, hasher })))
    }

    /// How far an upload has come; `None` where there is none. Takes no lock: this is how a client asks after a cut.
    pub(crate) fn upload_length(&self, repository: &str, id: &UploadId) -> Result<Option<u64>, Error> {
        let path = self.upload_path(repository, id);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("stat", &path)(error)),
        }
    }

    /// Lets an upload rest until the next request.
    pub(crate) fn pause_upload(&self, mut upload: Upload) {
        if let Some(hasher) = upload.hasher.take() {
            self.hashes.keep(&upload.id, upload.length, hasher);
        }
    }

    /// Makes an upload a blob of its repository if it is `expected`; otherwise it is removed, and the digest that it has is told.
    pub(crate) fn commit_upload(&self, mut upload: Upload, expected: &Digest) -> Result<Option<Digest>, Error> {
        let hasher = match upload.hasher.take() {
            Some(hasher) if algorithm_of(&hasher) == expected.algorithm() => hasher,
            _ => hash_file(&mut upload, expected.algorithm())?,
        };
        let actual = hasher.finish();
        if actual != *expected {
            self.cancel_upload(upload)?;
            return Ok(Some(actual));
        }
        upload.file.sync_all().map_err(Error::io("sync", &upload.path))?;
        self.adopt_blob(&upload.path, &upload.repository, expected, upload.length)?;
        Ok(None)
    }

    /// Gives an upload up.
    pub(crate) fn cancel_upload(&self, upload: Upload) -> Result<(), Error> {
        std::fs::remove_file(&upload.path).map_err(Error::io("remove", &upload.path))
    }
}

fn algorithm_of(hasher: &Hasher) -> Algorithm {
    match hasher {
        Hasher::Sha256(_) => Algorithm::Sha256,
        Hasher::Sha512(_) => Algorithm::Sha512,
    }
}

fn hash_file(upload: &mut Upload, algorithm: Algorithm) -> Result<Hasher, Error> {
    let mut hasher = Hasher::new(algorithm);
    upload.file.seek(SeekFrom::Start(0)).map_err(Error::io("seek in", &upload.path))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match upload.file.read(&mut buffer) {
            Ok(0) => return Ok(hasher),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", &upload.path)(error)),
        }
    }
}
