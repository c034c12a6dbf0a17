//! Locks between processes, all of them `flock(2)`: the kernel frees them when their owner dies, however it dies.
//!
//! Every lock opens its file anew, because an flock belongs to an open file description: two threads that shared one would share the lock.
//! Lock files are removed by their last owner while it holds the lock, so whoever gets a lock checks that the file still has its name.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::task::fault_point;

use super::layout::hex;
use super::{Error, Store};

/// How a lock is shared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Shared,
    Exclusive,
}

/// Whether to wait for a lock.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    Yes,
    No,
}

/// Locks an open file; false where it is locked already and `wait` is `No`.
pub(crate) fn lock(file: &File, path: &Path, kind: Kind, wait: Wait) -> Result<bool, Error> {
    loop {
        let outcome = match (kind, wait) {
            (Kind::Shared, Wait::Yes) => file.lock_shared().map_err(TryLockError::Error),
            (Kind::Exclusive, Wait::Yes) => file.lock().map_err(TryLockError::Error),
            (Kind::Shared, Wait::No) => file.try_lock_shared(),
            (Kind::Exclusive, Wait::No) => file.try_lock(),
        };
        return match outcome {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
        };
    }
}

/// Opens (and makes) the file `path` and locks it; `None` where it is locked and `wait` is `No`. The file has its name when this returns.
pub(crate) fn lock_file(path: &Path, kind: Kind, wait: Wait) -> Result<Option<File>, Error> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("open", path))?;
        if !lock(&file, path, kind, wait)? {
            return Ok(None);
        }
        if still_named(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// Whether `path` names the open `file`: whoever had the lock before may have renamed or removed it.
pub(crate) fn still_named(file: &File, path: &Path) -> Result<bool, Error> {
    let open = file.metadata().map_err(Error::io("stat", path))?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("stat", path)(error)),
    }
}

/// Opens (and makes) the file `path` and waits for its lock.
pub(crate) fn wait_for_file(path: &Path, kind: Kind) -> Result<File, Error> {
    loop {
        if let Some(file) = lock_file(path, kind, Wait::Yes)? {
            return Ok(file);
        }
    }
}

/// Held while something is made visible (shared) or while prune decides what goes (exclusive). Never held for long.
pub(crate) struct StoreLock {
    /// None where nobody may write here, and nobody ever took the lock.
    _file: Option<File>,
}

/// Held by the process that runs one step, so that two builds do not run it twice. Dropping it frees it.
#[must_use = "the lock is free again as soon as this is dropped"]
#[derive(Debug)]
pub struct KeyLock {
    _file: File,
    path: PathBuf,
}

impl KeyLock {
    /// Waits for the lock that the file `path` stands for.
    pub(crate) fn wait(path: PathBuf) -> Result<KeyLock, Error> {
        let lock = KeyLock { _file: wait_for_file(&path, Kind::Exclusive)?, path };
        fault_point("lock:taken");
        Ok(lock)
    }
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Still locked, so nobody else can be between opening this file and trusting it: see `lock_file`.
        fault_point("lock:released");
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Store {
    pub(crate) fn lock_store(&self, kind: Kind) -> Result<StoreLock, Error> {
        let path = self.layout().store_lock();
        if self.read_only().is_some() {
            let Ok(file) = File::open(&path) else { return Ok(StoreLock { _file: None }) };
            lock(&file, &path, kind, Wait::Yes)?;
            return Ok(StoreLock { _file: Some(file) });
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        lock(&file, &path, kind, Wait::Yes)?;
        Ok(StoreLock { _file: Some(file) })
    }

    /// Waits until no other build (in any process, or in this one) holds `key`, and takes it.
    pub fn lock_key(&self, key: &[u8; 32]) -> Result<KeyLock, Error> {
        KeyLock::wait(self.layout().lock(hex(key)))
    }

    /// Takes `key`; `None` where somebody holds it.
    pub fn try_lock_key(&self, key: &[u8; 32]) -> Result<Option<KeyLock>, Error> {
        let path = self.layout().lock(hex(key));
        let file = lock_file(&path, Kind::Exclusive, Wait::No)?;
        Ok(file.map(|file| KeyLock { _file: file, path }))
    }
}
