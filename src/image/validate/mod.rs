//! Whether an image is whole: every manifest, config and layer against the digest and the size that point at it, every layer against its diff ID.
//!
//! What is wrong is collected, not thrown: one damaged blob says nothing of the next. Only where the image itself cannot be found is that an error. Nothing is
//! written, and nothing that the store remembers is believed: all bytes are read again.
//!
//! The bytes come from a place of [`copy`](super::copy) ([`validate`]), out of an archive ([`validate_archive`]), or from the store ([`validate_stored`]), whose
//! layers need not be blobs.

mod archive;
mod bytes;
mod stored;

use std::collections::HashSet;

use futures_util::StreamExt as _;

use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, Manifest, ManifestOrIndex, MediaType, Platform};

use super::Error;
use super::copy::{Source, Wanted};

pub use archive::{Reopen, validate_archive};
pub use stored::validate_stored;

/// How deep indexes may be nested.
const MAX_NESTING: usize = 4;

/// How large a config may be.
const MAX_CONFIG: u64 = 8 << 20;

/// How many blobs are read at once.
const AT_ONCE: usize = 4;

/// How much is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// All bytes.
    Bytes,
    /// Manifests and configs; of layers, whether they are there and how large they are.
    Documents,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Validation {
    /// How many manifests and indexes were looked at.
    pub manifests: usize,
    /// How many configs and layers, each once.
    pub blobs: usize,
    /// How many bytes the blobs are announced with.
    pub size: u64,
    /// What is wrong.
    pub bad: Vec<Bad>,
}

/// Something that is not what it should be.
#[derive(Debug)]
pub struct Bad {
    /// Which manifest or blob.
    pub digest: Digest,
    /// What it is in the image: `layer 2 of linux/amd64`.
    pub what: String,
    /// What is wrong with it.
    pub fault: Fault,
}

/// What can be wrong with a manifest or a blob.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It is not there.
    #[error("it is missing")]
    Missing,
    /// It cannot be had.
    #[error("it cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Other bytes.
    #[error("its bytes hash to {actual}")]
    Digest {
        /// What they hash to.
        actual: Digest,
    },
    /// Another size.
    #[error("it has {actual} bytes, not the {announced} that are announced")]
    Size {
        /// What its descriptor says.
        announced: u64,
        /// What it has.
        actual: u64,
    },
    /// It is longer than announced; how long is not known.
    #[error("it has more than the {announced} bytes that are announced")]
    Endless {
        /// What its descriptor says.
        announced: u64,
    },
    /// A layer that is no layer.
    #[error("it cannot be unpacked")]
    Archive(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A layer of other files.
    #[error("unpacked it hashes to {actual}, and the config says {expected}")]
    DiffId {
        /// What the config says.
        expected: DiffId,
        /// What it is.
        actual: DiffId,
    },
    /// No manifest.
    #[error("it is no manifest")]
    Manifest(#[source] crate::oci::ManifestError),
    /// No config.
    #[error("it is no config")]
    Config(#[source] serde_json::Error),
    /// A document that nobody would read.
    #[error("it is announced with {0} bytes, which is too much")]
    TooLarge(u64),
    /// Indexes in indexes.
    #[error("it is in an index of indexes, more than {MAX_NESTING} deep")]
    Nested,
    /// The config is of another image.
    #[error("its manifest has {layers} layers, the config {diff_ids}")]
    Layers {
        /// How many layers the manifest has.
        layers: usize,
        /// How many diff IDs the config has.
        diff_ids: usize,
    },
    /// The history is of another image.
    #[error("its history has {history} layers, and there are {layers}")]
    History {
        /// How many entries of the history have a layer.
        history: usize,
        /// How many layers there are.
        layers: usize,
    },
    /// The index promises another platform.
    #[error("it is for {actual}, and the index says {announced}")]
    Platform {
        /// What the index says.
        announced: Platform,
        /// What the config says.
        actual: Platform,
    },
}

/// Looks at all that `source` means, or at its image for one platform.
///
/// # Errors
/// What is meant cannot be found.
pub async fn validate(source: &Source, wanted: &Wanted, depth: Depth) -> Result<Validation, Error> {
    let mut validator = Validator { source, wanted, depth, seen: HashSet::new(), found: Validation::default() };
    let root = source.root().await?;
    validator.document(&root, 0).await?;
    Ok(validator.found)
}

struct Validator<'a> {
    source: &'a Source,
    wanted: &'a Wanted,
    depth: Depth,
    seen: HashSet<Digest>,
    found: Validation,
}

impl Validator<'_> {
    /// Looks at a manifest or index and at all that it points at.
    async fn document(&mut self, at: &Descriptor, nesting: usize) -> Result<(), Error> {
        if !self.seen.insert(at.digest.clone()) {
            return Ok(());
        }
        self.found.manifests += 1;
        let what = if at.media_type.is_index() { "index".to_owned() } else { format!("manifest{}", of_platform(at.platform.as_ref())) };
        let bytes = match self.source.manifest(at).await {
            Ok(bytes) => bytes,
            // What was asked for is not there at all.
            Err(error) if nesting == 0 && !is_damage(&error) => return Err(error),
            Err(error) => {
                self.found.note(&at.digest, &what, fault_of(error));
                return Ok(());
            }
        };
        if let Some(fault) = bytes::check(at, &bytes) {
            self.found.note(&at.digest, &what, fault);
            return Ok(());
        }
        match ManifestOrIndex::parse(&bytes, Some(&at.media_type)) {
            Err(error) => self.found.note(&at.digest, &what, Fault::Manifest(error)),
            Ok(ManifestOrIndex::Manifest(manifest)) => self.manifest(&manifest, at.platform.as_ref()).await,
            Ok(ManifestOrIndex::Index(_)) if nesting == MAX_NESTING => self.found.note(&at.digest, &what, Fault::Nested),
            Ok(ManifestOrIndex::Index(index)) => {
                let entries = match self.wanted {
                    Wanted::All => index.manifests.iter().collect(),
                    Wanted::Platform(platform) => vec![index.select(platform).ok_or_else(|| self.source.no_platform(&index, platform))?],
                };
                for entry in entries {
                    if entry.media_type.is_manifest() || entry.media_type.is_index() {
                        Box::pin(self.document(entry, nesting + 1)).await?;
                    } else {
                        self.blobs(vec![("entry of the index".to_owned(), entry.clone(), None)]).await;
                    }
                }
            }
        }
        Ok(())
    }

    async fn manifest(&mut self, manifest: &Manifest, platform: Option<&Platform>) {
        let config = self.config(manifest, platform).await;
        let platform = platform.cloned().or_else(|| config.as_ref().map(ImageConfig::platform));
        let diff_ids = config.map(|config| config.rootfs.diff_ids).filter(|ids| ids.len() == manifest.layers.len()).unwrap_or_default();
        let layers = manifest.layers.iter().enumerate().filter(|(_, layer)| !layer.is_elsewhere());
        let named = |(at, layer): (usize, &Descriptor)| {
            let what = format!("layer {}{}", at + 1, of_platform(platform.as_ref()));
            (what, layer.clone(), diff_ids.get(at).filter(|_| layer.media_type.is_layer()).cloned())
        };
        self.blobs(layers.map(named).collect()).await;
    }

    /// Looks at the config; gives it where it is an image's, and good.
    async fn config(&mut self, manifest: &Manifest, platform: Option<&Platform>) -> Option<ImageConfig> {
        let at = &manifest.config;
        let is_image = matches!(at.media_type, MediaType::OciConfig | MediaType::DockerConfig);
        if !is_image {
            self.blobs(vec![("config".to_owned(), at.clone(), None)]).await;
            return None;
        }
        if self.seen.insert(at.digest.clone()) {
            self.found.count(at);
        }
        let bytes = if at.size > MAX_CONFIG { Err(Fault::TooLarge(at.size)) } else { bytes::read(self.source, at).await };
        let config = bytes.and_then(|bytes| serde_json::from_slice::<ImageConfig>(&bytes).map_err(Fault::Config));
        let what = format!("config{}", of_platform(platform));
        match config {
            Ok(config) => {
                let faults = config_faults(&config, manifest.layers.len(), platform);
                faults.into_iter().for_each(|fault| self.found.note(&at.digest, &what, fault));
                Some(config)
            }
            Err(fault) => {
                self.found.note(&at.digest, &what, fault);
                None
            }
        }
    }

    /// Looks at blobs, several at once; each once.
    async fn blobs(&mut self, blobs: Vec<(String, Descriptor, Option<DiffId>)>) {
        let new: Vec<_> = blobs.into_iter().filter(|(_, blob, _)| self.seen.insert(blob.digest.clone())).collect();
        new.iter().for_each(|(_, blob, _)| self.found.count(blob));
        let (source, depth) = (self.source, self.depth);
        let checks = new.into_iter().map(|(what, blob, diff_id)| async move {
            let fault = match depth {
                Depth::Bytes => bytes::layer(source, &blob, diff_id).await,
                Depth::Documents => bytes::presence(source, &blob).await,
            };
            (what, blob, fault)
        });
        let mut checked = futures_util::stream::iter(checks).buffered(AT_ONCE);
        while let Some((what, blob, fault)) = checked.next().await {
            if let Some(fault) = fault {
                self.found.note(&blob.digest, &what, fault);
            }
        }
    }
}

impl Validation {
    fn count(&mut self, blob: &Descriptor) {
        self.blobs += 1;
        self.size += blob.size;
    }

    fn note(&mut self, digest: &Digest, what: &str, fault: Fault) {
        self.bad.push(Bad { digest: digest.clone(), what: what.to_owned(), fault });
    }
}

/// What in a config contradicts the manifest that it belongs to, or the index that it is in.
fn config_faults(config: &ImageConfig, layers: usize, platform: Option<&Platform>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let diff_ids = config.rootfs.diff_ids.len();
    if diff_ids != layers {
        faults.push(Fault::Layers { layers, diff_ids });
    }
    let history = config.history.iter().filter(|entry| !entry.empty_layer).count();
    // Some images have layers without history; the other way about, nobody can tell which entry has made which layer.
    if history > layers {
        faults.push(Fault::History { history, layers });
    }
    let actual = config.platform();
    if let Some(announced) = platform.filter(|announced| !actual.matches(announced)) {
        faults.push(Fault::Platform { announced: announced.clone(), actual });
    }
    faults
}

fn of_platform(platform: Option<&Platform>) -> String {
    platform.map(|platform| format!(" of {platform}")).unwrap_or_default()
}

/// Whether what is there is wrong, and not only out of reach.
fn is_damage(error: &Error) -> bool {
    use crate::registry::Error as E;
    matches!(error, Error::Damaged { .. } | Error::Registry(E::DigestMismatch { .. } | E::SizeMismatch { .. }))
}

/// A failure to read as what it says of what was read.
fn fault_of(error: Error) -> Fault {
    use crate::registry::Error as E;
    match error {
        Error::Registry(E::DigestMismatch { actual, .. }) => Fault::Digest { actual: *actual },
        Error::Registry(E::SizeMismatch { expected, actual, at_least: false, .. }) => Fault::Size { announced: expected, actual },
        Error::Registry(E::SizeMismatch { expected, .. }) => Fault::Endless { announced: expected },
        Error::Registry(error) if error.is_not_found() => Fault::Missing,
        Error::Store(crate::store::Error::NoBlob { .. }) => Fault::Missing,
        Error::Layout { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Fault::Missing,
        Error::TooLarge { size, .. } => Fault::TooLarge(size),
        other => Fault::Unreadable(Box::new(other)),
    }
}
