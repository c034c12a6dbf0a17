//! The store: one directory with everything that Strake keeps, used by any number of processes at once.
//!
//! Two rules hold at any instant, whoever is killed whenever. A row of the database, or a name in `blobs/`, is a promise that the bytes are there and
//! whole: everything is made under another name and renamed. And what a lease, a container, an image's name or a cache record needs is not pruned.
//! What is made is visible at once and durable when it is settled ([`Store::settle`]).
//!
//! This folder is the only code that knows a path below the root. It does not know what is in a layer, what a cache key means or how a container runs.
//! All of it blocks; none of it prints or reads the environment.

mod blob;
mod cache;
mod cache_mount;
mod check;
mod checksum;
mod container;
mod content;
mod copied;
mod database;
mod error;
mod file_system;
mod filter;
mod gc;
mod image;
mod ingest;
mod layer;
mod layout;
mod lease;
mod lock;
mod logs;
mod needs;
mod open;
mod policy;
mod prune;
mod records;
mod remove;
mod reserve;
mod settle;
mod snapshot;
mod stacks;
mod stamp;
mod usage;
pub mod view;
mod volume;

pub use cache::CacheEntry;
pub use cache_mount::{CacheMount, MountSharing};
pub use check::{BlobUse, CheckDepth, Leftover, Problem, Rebuilt, Record, StoreCheck};
pub use checksum::FileStamp;
pub use container::{ContainerRecord, new_container_id, remove_remains};
pub(crate) use content::{ContentCopier, write_all};
pub use copied::{CopiedRoot, Watched};
pub use error::Error;
pub use filter::{RecordFilter, RecordFilterError};
pub use image::{ImageRecord, RemoteManifest};
pub use ingest::{BusyIngest, Ingest, IngestWriter};
pub use layer::LayerBlob;
pub use layout::container_dir;
pub use lease::{Lease, Resource};
pub use lock::KeyLock;
pub use logs::{BuildLogs, LoggedBuild};
pub use open::Store;
pub use policy::{GcLimits, GcSettings, GcSpace, PruneRule, default_rules, percent};
pub use prune::{PruneImages, PruneOptions, PruneReport};
pub use records::{RecordKind, UsageRecord};
pub use snapshot::{ActiveSnapshot, CommittedSnapshot, SnapshotId, SnapshotIdError, SnapshotMeta};
pub use usage::{DiskSpace, ImageUsage, StoreUsage};
pub use volume::VolumeRecord;

/// The format of stores that this version makes.
pub(crate) const FORMAT: u32 = 3;

#[cfg(test)]
mod tests;
