//! Looks at the whole store: whether every promise holds that a row or a name makes, and what killed commands left.
//!
//! What rows and names say is compared under the store's exclusive lock, so that no command is seen in the middle of its work; files are read after that, while others go
//! on. What is found is a list of [`Problem`]s; [`Store::drop_broken`] takes what a problem names out of the store, so that the next look finds what depended on it. A
//! [`Leftover`] is none: whoever was killed left it, nobody sees it, and prune frees it.
//!
//! What the files of a layer hash to is not known here: `image::check` compares them.

mod database;
mod drop;
mod files;
mod places;
mod rows;

use std::path::{Path, PathBuf};

use crate::oci::{DiffId, Digest, ImageId, Reference};

use super::lock::Kind;
use super::{Error, SnapshotId, Store};

pub use database::Rebuilt;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckDepth {
    /// All bytes.
    Content,
    /// Names, sizes and rows.
    Structure,
}

/// Something that is not as the store promises.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The database cannot be read, or not all of it.
    #[error("the database `{}` is damaged: {what}", path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// A directory or file of the store that this user cannot use as it must be used, or that is missing.
    #[error("`{}` {what}", path.display())]
    Place {
        /// The path.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A blob's bytes are not those that its name says.
    #[error("blob {digest} is damaged: its {size} bytes hash to {actual}")]
    BlobContent {
        /// The blob.
        digest: Digest,
        /// Its size.
        size: u64,
        /// What they hash to.
        actual: Digest,
    },
    /// A blob has another size than was recorded.
    #[error("blob {digest} is damaged: it has {actual} bytes, and {expected} are recorded")]
    BlobSize {
        /// The blob.
        digest: Digest,
        /// The size that was recorded.
        expected: u64,
        /// The size that it has.
        actual: u64,
    },
    /// A blob that cannot be read, or is no file.
    #[error("blob {digest} cannot be read: {reason}")]
    BlobUnreadable {
        /// The blob.
        digest: Digest,
        /// Why not.
        reason: String,
    },
    /// A blob that something needs is not there.
    #[error("blob {digest} is missing: it is {needed}")]
    BlobMissing {
        /// The blob.
        digest: Digest,
        /// What for.
        needed: BlobUse,
    },
    /// There is no blob and no snapshot of a layer.
    #[error("layer {} of image {} is missing: neither its files nor its blob are here", position + 1, image.digest().short())]
    LayerMissing {
        /// The image.
        image: ImageId,
        /// Which of its layers, from the bottom.
        position: usize,
        /// The layer.
        diff_id: DiffId,
    },
    /// The files of a snapshot are not there.
    #[error("snapshot {id} (`{description}`) is missing")]
    SnapshotMissing {
        /// The snapshot.
        id: SnapshotId,
        /// Where it is from.
        description: String,
    },
    /// The files of a snapshot are not what they were.
    #[error("snapshot {id} (`{description}`) is damaged: {what}")]
    SnapshotAltered {
        /// The snapshot.
        id: SnapshotId,
        /// Where it is from.
        description: String,
        /// What is wrong with it.
        what: String,
    },
    /// A row names what is not there.
    #[error("{record} names {missing}, which is not there")]
    Dangling {
        /// The row.
        record: Record,
        /// What it names.
        missing: String,
    },
    /// A volume has files and no row.
    #[error("the volume `{name}` is not recorded, and has files")]
    VolumeUnrecorded {
        /// Its name.
        name: String,
    },
    /// A row cannot be understood.
    #[error("{record} cannot be understood: {reason}")]
    Unreadable {
        /// The row.
        record: Record,
        /// Why not.
        reason: String,
    },
}

/// What a blob is needed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobUse {
    /// It is an image's config: there is no image without it.
    Config(ImageId),
    /// It is an image's manifest.
    Manifest(ImageId),
    /// A name stands for it in a registry.
    Named(Reference),
    /// It is recorded as the compressed form of a layer.
    Layer(DiffId),
}

impl std::fmt::Display for BlobUse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BlobUse::Config(id) => write!(f, "the config of image {}", id.digest().short()),
            BlobUse::Manifest(id) => write!(f, "the manifest of image {}", id.digest().short()),
            BlobUse::Named(name) => write!(f, "what `{name}` stands for"),
            BlobUse::Layer(diff_id) => write!(f, "recorded for the layer {}", diff_id.digest().short()),
        }
    }
}

/// A row of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A name.
    Name(String),
    /// An image, by its ID.
    Image(String),
    /// The stack of layers of that name.
    Chain(String),
    /// A record of the build cache.
    CacheRecord(i64),
    /// A key of the build cache.
    CacheKey(Vec<u8>),
    /// A layer's blob.
    LayerBlob {
        /// The layer.
        diff_id: String,
        /// The blob.
        digest: String,
    },
    /// A container, by its ID.
    Container(String),
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Record::Name(name) => write!(f, "the name `{name}`"),
            Record::Image(id) => write!(f, "image {id}"),
            Record::Chain(chain) => write!(f, "the record of the layers {chain}"),
            Record::CacheRecord(id) => write!(f, "record {id} of the build cache"),
            Record::CacheKey(key) => write!(f, "the key {} of the build cache", super::layout::hex(key)),
            Record::LayerBlob { diff_id, digest } => write!(f, "the record of {digest} for the layer {diff_id}"),
            Record::Container(id) => write!(f, "the container {id}"),
        }
    }
}

/// What a command that was killed left: in nobody's way, and gone after the next prune.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub what: &'static str,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct StoreCheck {
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What killed commands left.
    pub leftovers: Vec<Leftover>,
    /// How many images were looked at.
    pub images: usize,
    /// How many snapshots.
    pub snapshots: usize,
    /// How many blobs.
    pub blobs: usize,
    /// How many bytes the blobs have.
    pub bytes: u64,
}

impl Store {
    /// Opens the store in `root` to look at it, whatever state it is in; `None` where there is none. Nothing is made or dropped as long as the database is damaged.
    ///
    /// # Errors
    /// As [`Store::open`], but for the database.
    pub fn open_to_check(root: &Path) -> Result<Option<Store>, Error> {
        let store = Store::unopened(root)?;
        // A store that was half made when its maker was killed has no version yet: whoever opens it next completes it.
        let exists = |path: PathBuf| path.symlink_metadata().is_ok();
        if !exists(store.layout().version()) && !exists(store.layout().database()) {
            return Ok(None);
        }
        if store.check_database()?.is_empty() { Store::open(root).map(Some) } else { Ok(Some(store)) }
    }

    /// Looks at everything. Where the database is damaged, or a directory of the store cannot be used, nothing else can be told.
    ///
    /// # Errors
    /// What keeps it from looking: files that cannot be locked or listed.
    pub fn check(&self, depth: CheckDepth) -> Result<StoreCheck, Error> {
        let mut report = StoreCheck { problems: self.check_places()?, ..StoreCheck::default() };
        if report.problems.is_empty() {
            report.problems = self.check_database()?;
        }
        if !report.problems.is_empty() {
            return Ok(report);
        }
        let looked = {
            let _exclusive = self.lock_store(Kind::Exclusive)?;
            report.leftovers = self.leftovers()?;
            self.check_rows(&mut report)?
        };
        self.check_files(&looked, depth, &mut report)?;
        Ok(report)
    }
}
