//! A file that only takes space. Whoever removes something on a full disk gives it up first: to forget what is removed, the database must grow a little.

use std::fs::{self, File};

use rustix::fs::FallocateFlags;

use super::Store;
use super::error::is_full;

/// How much is kept: more than a transaction that removes thousands of rows writes.
const RESERVE: u64 = 1 << 20;

/// How much must be free for a new reserve, so that it is not the last straw.
const PLENTY: u64 = 16 * RESERVE;

impl Store {
    /// Gives the reserve up where nothing is left. Called before something is removed.
    pub fn make_room(&self) {
        if is_full(&self.layout().database()) {
            // Without a reserve, what follows says that the disk is full.
            let _ = fs::remove_file(self.layout().reserve());
        }
    }

    /// Makes the reserve where there is none and plenty of space.
    pub(crate) fn keep_reserve(&self) {
        let path = self.layout().reserve();
        if path.exists() || self.disk_space().is_ok_and(|disk| disk.free < PLENTY) {
            return;
        }
        // A store without a reserve works as well as long as the disk is not full.
        if let Ok(file) = File::create(&path) {
            let _ = rustix::fs::fallocate(file, FallocateFlags::empty(), 0, RESERVE);
        }
    }
}
