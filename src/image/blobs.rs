//! The blobs and the manifest of an image, made when they are first wanted: a layer that was built here is a directory until it is pushed or saved.

use std::collections::BTreeMap;

use crate::oci::{Descriptor, DiffId, Digest, Manifest, MediaType};
use crate::store::{ImageRecord, LayerBlob, Store};

use super::Error;
use super::layer::{Compression, CompressionSpec, LayerOptions, compress, decompressor, write_compressed_layer};

/// A manifest with its bytes; config and layers are blobs of the store.
#[derive(Clone, Debug)]
pub struct ImageManifest {
    /// The manifest.
    pub manifest: Manifest,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What points at it.
    pub descriptor: Descriptor,
}

/// How an image is packed: what its layers are compressed with, and what its manifest says besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// What layers are compressed with; without it each is as it came, or gzip where it was made here.
    pub compression: Option<CompressionSpec>,
    /// Whether the base image's layers are compressed so too, and not left as they came.
    pub force: bool,
    /// How many layers are the base image's.
    pub base_layers: usize,
    /// Whether the manifest is in Docker's format (schema 2) instead of OCI's.
    pub docker_types: bool,
    /// The time that `rewrite-timestamp` has held the files of all layers above the base's to, in seconds since the epoch.
    pub rewritten: Option<i64>,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of what points at the manifest.
    pub descriptor_annotations: BTreeMap<String, String>,
}

/// By which BuildKit says that `rewrite-timestamp` has made a layer, and for which time.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

impl Packing {
    /// Whether nothing special is asked for.
    pub fn is_default(&self) -> bool {
        *self == Packing { base_layers: self.base_layers, ..Packing::default() }
    }
}

/// The manifest of an image: the one that it was pulled with where all of its blobs are there, a new one otherwise (whose layers are compressed now).
pub fn ensure_manifest(store: &Store, image: &ImageRecord) -> Result<ImageManifest, Error> {
    match known_manifest(store, image)? {
        Some(found) => Ok(found),
        None => complete_manifest(store, image, default_layers(store, image)?),
    }
}

/// The manifest that an image has, where all of its blobs are there.
fn known_manifest(store: &Store, image: &ImageRecord) -> Result<Option<ImageManifest>, Error> {
    image.manifest.as_ref().map_or(Ok(None), |digest| stored_manifest(store, digest))
}

fn default_layers(store: &Store, image: &ImageRecord) -> Result<Vec<Descriptor>, Error> {
    (0..image.diff_ids.len()).map(|position| ensure_layer(store, image, position)).collect()
}

/// Packs an image as it is asked for; this is the image's manifest from now on.
pub fn pack(store: &Store, image: &ImageRecord, packing: &Packing) -> Result<ImageManifest, Error> {
    if packing.is_default() {
        return ensure_manifest(store, image);
    }
    let packed = pack_aside(store, image, packing)?;
    remember(store, image, &packed)?;
    Ok(packed)
}

/// As [`pack`], of an image that the store does not list: it is only one of those of an index.
pub fn pack_aside(store: &Store, image: &ImageRecord, packing: &Packing) -> Result<ImageManifest, Error> {
    if packing.is_default() {
        return match known_manifest(store, image)? {
            Some(found) => Ok(found),
            None => put_manifest(store, image, default_layers(store, image)?, packing),
        };
    }
    let layer = |position| match packing.compression {
        Some(spec) if packing.force || position >= packing.base_layers => ensure_layer_as(store, image, position, spec),
        _ => ensure_layer(store, image, position),
    };
    let layers = (0..image.diff_ids.len()).map(layer).collect::<Result<_, _>>()?;
    put_manifest(store, image, layers, packing)
}

/// Makes the manifest of an image whose layers are blobs, and remembers it.
pub(super) fn complete_manifest(store: &Store, image: &ImageRecord, layers: Vec<Descriptor>) -> Result<ImageManifest, Error> {
    let manifest = put_manifest(store, image, layers, &Packing::default())?;
    remember(store, image, &manifest)?;
    Ok(manifest)
}

/// Notes that this is the image's manifest.
fn remember(store: &Store, image: &ImageRecord, manifest: &ImageManifest) -> Result<(), Error> {
    Ok(store.put_image(&ImageRecord { manifest: Some(manifest.descriptor.digest.clone()), ..image.clone() })?)
}

fn put_manifest(store: &Store, image: &ImageRecord, mut layers: Vec<Descriptor>, packing: &Packing) -> Result<ImageManifest, Error> {
    let (kind, config_kind) = match packing.docker_types {
        true => (MediaType::DockerManifest, MediaType::DockerConfig),
        false => (MediaType::OciManifest, MediaType::OciConfig),
    };
    if packing.docker_types {
        layers.iter_mut().for_each(|layer| layer.media_type = as_docker(layer.media_type.clone()));
    }
    if let Some(seconds) = packing.rewritten {
        for layer in layers.iter_mut().skip(packing.base_layers) {
            layer.annotations.insert(REWRITTEN.to_owned(), seconds.to_string());
        }
    }
    let config_size = store.blob_size(image.id.digest())?.unwrap_or(0);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(kind.clone()),
        artifact_type: None,
        config: Descriptor::new(config_kind, image.id.digest().clone(), config_size),
        layers,
        subject: None,
        annotations: packing.annotations.clone(),
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest holds nothing that JSON cannot");
    let digest = store.put_blob(&bytes)?;
    let mut descriptor = Descriptor::new(kind, digest, bytes.len() as u64);
    descriptor.annotations.clone_from(&packing.descriptor_annotations);
    Ok(ImageManifest { manifest, bytes, descriptor })
}

/// The manifest `digest`, where it and all of its blobs are in the store.
pub(super) fn stored_manifest(store: &Store, digest: &Digest) -> Result<Option<ImageManifest>, Error> {
    if store.blob_size(digest)?.is_none() {
        return Ok(None);
    }
    let bytes = store.read_blob(digest, 16 << 20)?;
    let Ok(crate::oci::ManifestOrIndex::Manifest(manifest)) = crate::oci::ManifestOrIndex::parse(&bytes, None) else { return Ok(None) };
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        if store.blob_size(&blob.digest)?.is_none() {
            return Ok(None);
        }
    }
    let kind = manifest.media_type.clone().unwrap_or(MediaType::OciManifest);
    let descriptor = Descriptor::new(kind, digest.clone(), bytes.len() as u64);
    Ok(Some(ImageManifest { manifest: *manifest, bytes, descriptor }))
}

/// How layers that are made here are compressed unless something else is asked for.
pub(super) const DEFAULT: CompressionSpec = CompressionSpec { kind: Compression::Gzip, level: None };

/// The compressed blob of an image's layer: the one that is there, or a new one. What was compressed otherwise for somebody who asked is not taken, so that
/// the result does not depend on what was done before.
pub(super) fn ensure_layer(store: &Store, image: &ImageRecord, position: usize) -> Result<Descriptor, Error> {
    let diff_id = &image.diff_ids[position];
    let received = |blob: &LayerBlob| blob.made_as.is_none() && !is_plain(blob, diff_id);
    layer_blob(store, image, position, DEFAULT, &received)
}

/// A layer's blob, compressed by `spec`.
pub(super) fn ensure_layer_as(store: &Store, image: &ImageRecord, position: usize, spec: CompressionSpec) -> Result<Descriptor, Error> {
    let diff_id = &image.diff_ids[position];
    let fits = |blob: &LayerBlob| match spec.kind {
        Compression::Uncompressed => is_plain(blob, diff_id),
        kind => {
            spec.level.is_none() && blob.made_as.is_none() && !is_plain(blob, diff_id) && compression_of(&blob.media_type) == Some(kind)
        }
    };
    layer_blob(store, image, position, spec, &fits)
}

/// The blob that was made by `spec`, another one that fits, or a new one.
pub(super) fn layer_blob(
    store: &Store,
    image: &ImageRecord,
    position: usize,
    spec: CompressionSpec,
    fits: &dyn Fn(&LayerBlob) -> bool,
) -> Result<Descriptor, Error> {
    let diff_id = &image.diff_ids[position];
    let find = || -> Result<Option<Descriptor>, Error> {
        let mut blobs = store.layer_blobs(diff_id)?;
        let made = blobs.iter().position(|blob| blob.made_as == Some(spec.name()));
        let found = made.or_else(|| blobs.iter().position(fits)).map(|at| blobs.swap_remove(at));
        Ok(found.map(|blob| Descriptor::new(as_oci(blob.media_type), blob.digest, blob.size)))
    };
    if let Some(known) = find()? {
        return Ok(known);
    }
    // Two pushes of the same image at once compress each layer once.
    let _lock = store.lock_key(blake3::hash(format!("compress {diff_id} {}", spec.name()).as_bytes()).as_bytes())?;
    match find()? {
        Some(known) => Ok(known),
        None => make_layer_blob(store, image, position, spec),
    }
}

fn make_layer_blob(store: &Store, image: &ImageRecord, position: usize, spec: CompressionSpec) -> Result<Descriptor, Error> {
    let diff_id = &image.diff_ids[position];
    let failed = |source| Error::Layer { layer: diff_id.to_string(), source };
    let threads = crate::task::parallelism();
    let mut writer = store.ingest_new()?;
    // Where the layer came as an archive, its bytes are what the diff ID is of: another program's archive cannot be made again from its files.
    let blobs = store.layer_blobs(diff_id)?;
    let source = blobs.iter().find(|blob| is_plain(blob, diff_id)).or_else(|| blobs.iter().find(|blob| blob.made_as.is_none()));
    let (actual, compressed) = match source {
        Some(blob) => {
            let read = |source| Error::Io { action: "read", path: blob.digest.to_string().into(), source };
            let tar = decompressor(store.open_blob(&blob.digest)?, None).map_err(read)?;
            let compressed = compress(tar, &mut writer, spec, threads, diff_id.algorithm()).map_err(failed)?;
            (compressed.diff_id.clone(), compressed)
        }
        None => {
            let snapshot = *image.snapshots.get(position).ok_or_else(|| Error::LayerGone { diff_id: diff_id.clone() })?;
            let lower = store.layers_below(snapshot, &image.snapshots[..position])?;
            let options =
                LayerOptions { latest_time: None, marks: store.marks(), algorithm: diff_id.algorithm(), ..LayerOptions::default() };
            let layer = store.snapshot_path(snapshot);
            let (written, compressed) = write_compressed_layer(&layer, &lower, &mut writer, &options, spec, threads).map_err(failed)?;
            (written.diff_id, compressed)
        }
    };
    if &actual != diff_id {
        return Err(Error::DiffId { digest: compressed.digest, expected: diff_id.clone(), actual });
    }
    writer.commit(&compressed.digest, compressed.size)?;
    let media_type = match spec.kind {
        Compression::Zstd => MediaType::OciLayerZstd,
        Compression::Uncompressed => MediaType::OciLayer,
        _ => MediaType::OciLayerGzip,
    };
    let blob = LayerBlob { digest: compressed.digest, size: compressed.size, media_type, made_as: Some(spec.name()) };
    store.record_layer_blob(diff_id, &blob)?;
    Ok(Descriptor::new(blob.media_type, blob.digest, blob.size))
}

/// What a layer's type says of its compression.
fn compression_of(kind: &MediaType) -> Option<Compression> {
    match kind {
        MediaType::DockerLayerGzip | MediaType::OciLayerGzip => Some(Compression::Gzip),
        MediaType::DockerLayerZstd | MediaType::OciLayerZstd => Some(Compression::Zstd),
        MediaType::DockerLayer | MediaType::OciLayer => Some(Compression::Uncompressed),
        _ => None,
    }
}

/// Whether a blob is the tar itself. Its digest tells, not its type: registries call compressed layers uncompressed at times.
fn is_plain(blob: &LayerBlob, diff_id: &DiffId) -> bool {
    &blob.digest == diff_id.digest()
}

/// The OCI name of a layer's type: an OCI manifest with Docker's names in it confuses some clients.
pub(super) fn as_oci(kind: MediaType) -> MediaType {
    match kind {
        MediaType::DockerLayer => MediaType::OciLayer,
        MediaType::DockerLayerGzip => MediaType::OciLayerGzip,
        MediaType::DockerLayerZstd => MediaType::OciLayerZstd,
        other => other,
    }
}

/// The name of a layer's type in Docker's format.
pub(super) fn as_docker(kind: MediaType) -> MediaType {
    match kind {
        MediaType::OciLayer => MediaType::DockerLayer,
        MediaType::OciLayerGzip => MediaType::DockerLayerGzip,
        MediaType::OciLayerZstd => MediaType::DockerLayerZstd,
        other => other,
    }
}
