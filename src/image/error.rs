//! What can go wrong with an image as a whole.

use crate::oci::{DiffId, Digest, ManifestError, Platform};

/// Why an image could not be had, made or given away.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A registry did not give or take something.
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// A layer could not be unpacked or written.
    #[error("layer {layer} cannot be used")]
    Layer {
        /// Its digest or diff ID.
        layer: String,
        /// Why.
        source: super::layer::Error,
    },
    /// An archive of images cannot be read.
    #[error("the archive cannot be read")]
    Archive {
        /// Why.
        source: super::layer::Error,
    },
    /// A file of an image in a directory cannot be read.
    #[error("cannot read `{}`", path.display())]
    Layout {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A Docker daemon cannot be reached, or breaks off.
    #[error("cannot {action} the Docker daemon at `{}`", socket.display())]
    Daemon {
        /// What was tried.
        action: &'static str,
        /// Its socket.
        socket: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A Docker daemon does not give or take an image.
    #[error("the Docker daemon at `{}` answers {status}: {message}", socket.display())]
    DaemonRefused {
        /// Its socket.
        socket: std::path::PathBuf,
        /// The status of its answer.
        status: u16,
        /// What it says.
        message: String,
    },
    /// A file is no archive of images, or a damaged one.
    #[error("this is not an archive of images: {reason}")]
    NotAnArchive {
        /// What is wrong with it.
        reason: String,
    },
    /// A manifest is no manifest.
    #[error("`{name}` has a bad manifest")]
    Manifest {
        /// The image.
        name: String,
        /// Why.
        source: ManifestError,
    },
    /// A config is no config.
    #[error("the config {digest} of `{name}` is malformed")]
    Config {
        /// The image.
        name: String,
        /// The config.
        digest: Digest,
        /// Why.
        source: serde_json::Error,
    },
    /// An index has nothing for the platform.
    #[error("`{name}` has no image for {wanted}")]
    NoPlatform {
        /// The image.
        name: String,
        /// What was wanted.
        wanted: Platform,
        /// What there is.
        found: Vec<String>,
    },
    /// Indexes in indexes, too deep.
    #[error("`{name}` is an index of indexes, more than {limit} deep")]
    NestedTooDeep {
        /// The image.
        name: String,
        /// How deep is allowed.
        limit: usize,
    },
    /// It is something else than an image.
    #[error("`{name}` is not an image: {reason}")]
    NotAnImage {
        /// Its name.
        name: String,
        /// What it is.
        reason: String,
    },
    /// It is something else than an index.
    #[error("`{name}` is not an index: {reason}")]
    NotAnIndex {
        /// Its name.
        name: String,
        /// What it is.
        reason: String,
    },
    /// An index does not have an entry.
    #[error("the index `{name}` has no entry {digest}")]
    NotInIndex {
        /// The index.
        name: String,
        /// The entry.
        digest: Digest,
    },
    /// Config and manifest contradict each other.
    #[error("`{name}` contradicts itself: its manifest has {layers} layers, its config {diff_ids}")]
    LayerCount {
        /// The image.
        name: String,
        /// How many layers the manifest has.
        layers: usize,
        /// How many the config has.
        diff_ids: usize,
    },
    /// A layer is not what the config says.
    #[error("layer {digest} does not match its config: unpacked it hashes to {actual}, not to {expected}")]
    DiffId {
        /// The layer's digest.
        digest: Digest,
        /// What the config says.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// A descriptor announces more than anyone can want.
    #[error("the {what} of `{name}` is announced with {size} bytes, which is too much")]
    TooLarge {
        /// `config`.
        what: &'static str,
        /// The image.
        name: String,
        /// The announced size.
        size: u64,
    },
    /// Bytes are not what their digest says.
    #[error("`{name}` is damaged: {digest} has other bytes than its digest says")]
    Damaged {
        /// Where they are.
        name: String,
        /// What they should be.
        digest: Digest,
    },
    /// A destination's name has the digest of something else.
    #[error("what is copied is {}, and cannot be called `{name}`", actual.first().map(ToString::to_string).unwrap_or_default())]
    OtherDigest {
        /// The name.
        name: String,
        /// The digests that it may have: that of the manifest, and that of the index that it is in.
        actual: Vec<Digest>,
    },
    /// A descriptor announces another size than its blob has.
    #[error("`{name}` announces blob {digest} with {announced} bytes, but it has {actual}")]
    Size {
        /// The image.
        name: String,
        /// The blob.
        digest: Digest,
        /// What the descriptor says.
        announced: u64,
        /// What it is.
        actual: u64,
    },
    /// The history does not fit the layers.
    #[error("the history has {history} layers, the file system {snapshots}: this is a bug in strake")]
    History {
        /// Entries of the history that have a layer.
        history: usize,
        /// Snapshots.
        snapshots: usize,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A snapshot that the build just made or found is gone.
    #[error("snapshot {id} is not in the store any more")]
    SnapshotGone {
        /// Which.
        id: String,
    },
    /// The files of a layer are gone and there is no blob to make them from.
    #[error("layer {diff_id} of the image is not in the store any more")]
    LayerGone {
        /// The layer.
        diff_id: DiffId,
    },
    /// Files for two platforms are to be written to one directory, and both have this one.
    #[error("`{path}` is in the result for {one} and in that for {other}")]
    Overlap {
        /// Its path.
        path: crate::path::RootPath,
        /// The one platform.
        one: String,
        /// The other.
        other: String,
    },
}

impl Error {
    /// What to do about it, where we know.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Registry(source) => source.hint(),
            Error::Store(source) => source.hint(),
            Error::Layer { source, .. } => source.hint(),
            Error::NoPlatform { found, .. } if !found.is_empty() => Some(format!("it has images for {}", found.join(", "))),
            Error::NotAnArchive { reason } if reason.contains("neither") => {
                Some("`strake import` makes an image of an archive with a root file system".into())
            }
            Error::Daemon { action: "ask" | "send to", source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Some("start it, or say with DOCKER_HOST=unix://PATH where it listens".into())
            }
            Error::NotAnIndex { .. } => Some("`strake index create` makes an index of images".into()),
            Error::Overlap { .. } => Some("leave `platform-split=false` out: then each platform has a directory of its own".into()),
            Error::OtherDigest { .. } => Some("name a tag: the digest follows from the content".into()),
            Error::LayerGone { .. } => Some("pull or build the image again".into()),
            _ => None,
        }
    }
}
