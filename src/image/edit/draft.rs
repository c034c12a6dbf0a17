//! An image that is being edited.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use crate::image::Error;
use crate::image::blobs::{as_docker, as_oci, ensure_layer, stored_manifest};
use crate::image::copy::{ImageAt, Source, image_manifest, manifest_of_entry};
use crate::oci::{Descriptor, DiffId, Digest, ImageConfig, ImageId, Manifest, ManifestOrIndex, MediaType, Platform};
use crate::store::{ImageRecord, LayerBlob, SnapshotId, Store};

/// How large a config may be.
const MAX_CONFIG: u64 = 8 << 20;

/// How large a manifest may be.
const MAX_MANIFEST: u64 = 16 << 20;

/// An image that is being edited. Cheap to clone.
#[derive(Clone)]
pub struct Draft {
    /// The config. Its diff IDs are those of `layers` when the draft is finished.
    pub config: ImageConfig,
    /// The layers, bottom first.
    pub layers: Vec<DraftLayer>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Whether manifest and layers have Docker's media types.
    pub docker_types: bool,
    /// What the image stood for where it was: its manifest, and the index that it is in.
    pub digests: Vec<Digest>,
    /// How messages call it.
    pub name: String,
    subject: Option<Descriptor>,
    /// Config and manifest as they came: what is not changed keeps its bytes.
    original: Option<Arc<Original>>,
}

struct Original {
    config: (ImageConfig, Bytes),
    manifest: Option<(Manifest, Bytes)>,
}

/// A layer of a draft.
#[derive(Clone)]
pub struct DraftLayer {
    /// What it unpacks to.
    pub diff_id: DiffId,
    /// Where it is.
    pub from: LayerFrom,
}

/// Where a layer is.
#[derive(Clone)]
pub enum LayerFrom {
    /// A blob, and where it is read.
    Blob(Box<Descriptor>, Box<Source>),
    /// A layer of an image of the store, by its position; it may have to be compressed.
    Stored(Arc<ImageRecord>, usize),
}

impl Draft {
    /// An image of nothing.
    pub fn scratch(platform: &Platform) -> Draft {
        let config = ImageConfig { created: Some("1970-01-01T00:00:00Z".to_owned()), ..ImageConfig::empty(platform) };
        let name = "scratch".to_owned();
        Draft {
            config,
            layers: Vec::new(),
            annotations: BTreeMap::new(),
            docker_types: false,
            digests: Vec::new(),
            name,
            subject: None,
            original: None,
        }
    }

    /// Opens the image of `source` for `platform`.
    ///
    /// # Errors
    /// The source; it is no image.
    pub async fn of_source(source: &Source, platform: &Platform) -> Result<Draft, Error> {
        Draft::of_image(source, image_manifest(source, platform).await?).await
    }

    /// Opens the image of `source` that an entry of the index `top` points at.
    ///
    /// # Errors
    /// As [`Draft::of_source`].
    pub async fn of_entry(source: &Source, top: &Descriptor, entry: &Descriptor) -> Result<Draft, Error> {
        Draft::of_image(source, manifest_of_entry(source, top, entry).await?).await
    }

    async fn of_image(source: &Source, found: ImageAt) -> Result<Draft, Error> {
        let (name, manifest) = (source.name(), found.manifest);
        if !matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig) {
            let kind = manifest.artifact_type.as_deref().unwrap_or(manifest.config.media_type.as_str());
            return Err(Error::NotAnImage { name, reason: format!("it is an artifact of the type `{kind}`") });
        }
        let config_bytes = source.small_blob(&manifest.config, MAX_CONFIG).await?;
        let config = parse_config(&name, &manifest.config.digest, &config_bytes)?;
        let layers = blob_layers(&name, &config, &manifest, source)?;
        let mut digests = vec![found.top.digest];
        digests.extend(Some(found.descriptor.digest).filter(|digest| *digest != digests[0]));
        Ok(Draft {
            layers,
            annotations: manifest.annotations.clone(),
            docker_types: found.descriptor.media_type == MediaType::DockerManifest,
            digests,
            name,
            subject: manifest.subject.clone(),
            original: Some(Arc::new(Original { config: (config.clone(), config_bytes), manifest: Some((manifest, found.bytes)) })),
            config,
        })
    }

    /// Opens an image of the store, which messages call `name`.
    ///
    /// # Errors
    /// The store.
    pub fn of_stored(store: &Store, image: &ImageRecord, name: &str) -> Result<Draft, Error> {
        let config_bytes: Bytes = store.read_blob(image.id.digest(), MAX_CONFIG)?.into();
        let config = parse_config(name, image.id.digest(), &config_bytes)?;
        let manifest = match &image.manifest {
            Some(digest) if store.blob_size(digest)?.is_some() => Some((digest, Bytes::from(store.read_blob(digest, MAX_MANIFEST)?))),
            _ => None,
        };
        let parsed = match &manifest {
            Some((digest, bytes)) => match ManifestOrIndex::parse(bytes, None) {
                Ok(ManifestOrIndex::Manifest(manifest)) if manifest.config.digest == *image.id.digest() => {
                    Some((*manifest, bytes.clone(), (*digest).clone()))
                }
                _ => None,
            },
            None => None,
        };
        let packed = image.manifest.as_ref().map(|digest| stored_manifest(store, digest)).transpose()?.flatten();
        let layers = match (&packed, &parsed) {
            (Some(packed), Some(_)) => {
                let source = Source::Store { store: store.clone(), root: packed.descriptor.clone(), name: name.to_owned() };
                blob_layers(name, &config, &packed.manifest, &source)?
            }
            _ => {
                let image = Arc::new(image.clone());
                let layer = |(at, diff_id): (usize, &DiffId)| DraftLayer::stored(diff_id.clone(), &image, at);
                image.diff_ids.iter().enumerate().map(layer).collect()
            }
        };
        let manifest = parsed.as_ref().map(|(manifest, ..)| manifest);
        Ok(Draft {
            layers,
            annotations: manifest.map(|manifest| manifest.annotations.clone()).unwrap_or_default(),
            docker_types: manifest.is_some_and(|manifest| manifest.media_type == Some(MediaType::DockerManifest)),
            digests: parsed.iter().map(|(_, _, digest)| digest.clone()).collect(),
            name: name.to_owned(),
            subject: manifest.and_then(|manifest| manifest.subject.clone()),
            original: Some(Arc::new(Original {
                config: (config.clone(), config_bytes),
                manifest: parsed.map(|(manifest, bytes, _)| (manifest, bytes)),
            })),
            config,
        })
    }

    /// The diff IDs of the layers.
    pub fn diff_ids(&self) -> Vec<DiffId> {
        self.layers.iter().map(|layer| layer.diff_id.clone()).collect()
    }

    /// Adds an entry to the history for a layer that is added on top. A history that says nothing of the layers before is not begun in the middle.
    pub(super) fn add_history(&mut self, entry: crate::oci::HistoryEntry) {
        let told = self.config.history.iter().filter(|entry| !entry.empty_layer).count();
        if told + 1 == self.layers.len() {
            self.config.history.push(entry);
        }
    }

    /// The config to store, and its bytes.
    pub(super) fn config_bytes(&self) -> (ImageConfig, Bytes) {
        let mut config = self.config.clone();
        config.rootfs.diff_ids = self.diff_ids();
        match &self.original {
            Some(original) if original.config.0 == config => original.config.clone(),
            _ => {
                let bytes = config.to_bytes().into();
                (config, bytes)
            }
        }
    }

    /// The manifest of the config `config` and of `layers`, and its bytes.
    pub(super) fn manifest_bytes(&self, config: Descriptor, layers: Vec<Descriptor>) -> (Manifest, Bytes) {
        let known = self.original.as_ref().and_then(|original| original.manifest.as_ref());
        let kind = if self.docker_types { MediaType::DockerManifest } else { MediaType::OciManifest };
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(kind.clone()),
            artifact_type: known.and_then(|(manifest, _)| manifest.artifact_type.clone()),
            config,
            layers,
            subject: self.subject.clone(),
            annotations: self.annotations.clone(),
        };
        match known {
            // A manifest may leave out what it is.
            Some((original, bytes)) if (Manifest { media_type: Some(kind), ..original.clone() }) == manifest => {
                (original.clone(), bytes.clone())
            }
            _ => {
                let bytes = serde_json::to_vec(&manifest).expect("a manifest holds nothing that JSON cannot");
                (manifest, bytes.into())
            }
        }
    }

    /// Whether the manifest can be written without compressing anything, or must be there because it says what the config cannot.
    pub(super) fn wants_manifest(&self) -> bool {
        let packed = self.layers.iter().all(|layer| matches!(layer.from, LayerFrom::Blob(..)));
        packed || self.docker_types || !self.annotations.is_empty() || self.subject.is_some()
    }
}

impl DraftLayer {
    /// A layer of an image of the store.
    fn stored(diff_id: DiffId, image: &Arc<ImageRecord>, position: usize) -> DraftLayer {
        DraftLayer { diff_id, from: LayerFrom::Stored(image.clone(), position) }
    }

    /// A layer of no image: one that the store has unpacked as `snapshots`, or, where there are none, as the blob of its diff ID.
    pub(super) fn alone(diff_id: DiffId, platform: Platform, snapshots: Vec<SnapshotId>) -> DraftLayer {
        // Of an image only what its one layer takes.
        let image = ImageRecord {
            id: ImageId::new(Digest::sha256(b"")),
            manifest: None,
            platform,
            created_at: SystemTime::UNIX_EPOCH,
            size: 0,
            diff_ids: vec![diff_id.clone()],
            snapshots,
        };
        DraftLayer::stored(diff_id, &Arc::new(image), 0)
    }

    /// What a manifest says of this layer; it is compressed now if it is not.
    pub(super) fn descriptor(&self, store: &Store, docker_types: bool) -> Result<Descriptor, Error> {
        let descriptor = match &self.from {
            LayerFrom::Blob(descriptor, _) => (**descriptor).clone(),
            LayerFrom::Stored(image, position) => ensure_layer(store, image, *position)?,
        };
        let media_type = if docker_types { as_docker(descriptor.media_type) } else { as_oci(descriptor.media_type) };
        Ok(Descriptor { media_type, ..descriptor })
    }

    /// The blob in the store that has this layer.
    pub(super) fn stored_blob(&self, store: &Store) -> Result<LayerBlob, Error> {
        let found = self.descriptor(store, false)?;
        Ok(LayerBlob { digest: found.digest, size: found.size, media_type: found.media_type, made_as: None })
    }
}

fn parse_config(name: &str, digest: &Digest, bytes: &[u8]) -> Result<ImageConfig, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Config { name: name.to_owned(), digest: digest.clone(), source })
}

fn blob_layers(name: &str, config: &ImageConfig, manifest: &Manifest, source: &Source) -> Result<Vec<DraftLayer>, Error> {
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(Error::LayerCount { name: name.to_owned(), layers: manifest.layers.len(), diff_ids: diff_ids.len() });
    }
    let layer = |(diff_id, blob): (&DiffId, &Descriptor)| DraftLayer {
        diff_id: diff_id.clone(),
        from: LayerFrom::Blob(Box::new(blob.clone()), Box::new(source.clone())),
    };
    Ok(diff_ids.iter().zip(&manifest.layers).map(layer).collect())
}
