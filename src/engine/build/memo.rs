//! Checksums of context files that are remembered in the store.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::context::{ChecksumMemo, FileStamp};
use crate::store::Store;

/// The store's table of checksums, as the context wants it. What the store cannot say is computed.
pub(super) struct StoreMemo(Store, AtomicU64);

impl StoreMemo {
    pub(super) fn new(store: &Store) -> StoreMemo {
        StoreMemo(store.clone(), AtomicU64::new(0))
    }
}

impl ChecksumMemo for StoreMemo {
    fn get_many(&self, stamps: &[FileStamp]) -> Vec<Option<[u8; 32]>> {
        let stamps: Vec<_> = stamps.iter().map(store_stamp).collect();
        self.0.checksums(&stamps).unwrap_or_else(|_| vec![None; stamps.len()])
    }

    fn put_many(&self, digests: &[(FileStamp, [u8; 32])]) {
        let digests: Vec<_> = digests.iter().map(|(stamp, digest)| (store_stamp(stamp), *digest)).collect();
        if let Err(error) = self.0.remember_checksums(&digests) {
            tracing::warn!(%error, "checksums cannot be remembered");
        }
    }

    fn hashed(&self, bytes: u64) {
        self.1.fetch_add(bytes, Ordering::Relaxed);
    }

    fn hashed_so_far(&self) -> u64 {
        self.1.load(Ordering::Relaxed)
    }
}

fn store_stamp(stamp: &FileStamp) -> crate::store::FileStamp {
    crate::store::FileStamp { dev: stamp.dev, ino: stamp.ino, size: stamp.size, mtime: stamp.mtime, ctime: stamp.ctime }
}
