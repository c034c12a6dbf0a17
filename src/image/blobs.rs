//! The blobs and the manifest of an image, made when they are first wanted: a layer that was built here is a directory until it is pushed or saved.

use std::collections::BTreeMap;

use crate::oci::{Descriptor, DiffId, Digest, Manifest, MediaType};
use crate::store::{ImageRecord, LayerBlob, Store};

use super::Error;
use super::layer::{Compression, CompressionSpec, LayerOptions, compress, write_compressed_layer};

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

/// The manifest of an image: the one that it was pulled with where all of its blobs are there, a new one otherwise (whose layers are compressed now).
pub fn ensure_manifest(store: &Store, image: &ImageRecord) -> Result<ImageManifest, Error> {
    if let Some(digest) = &image.manifest
        && let Some(found) = stored_manifest(store, digest)?
    {
        return Ok(found);
    }
    let layers = (0..image.diff_ids.len()).map(|position| ensure_layer(store, image, position)).collect::<Result<_, _>>()?;
    complete_manifest(store, image, layers)
}

/// Makes the manifest of an image whose layers are blobs, and remembers it.
pub(super) fn complete_manifest(store: &Store, image: &ImageRecord, layers: Vec<Descriptor>) -> Result<ImageManifest, Error> {
    let config_size = store.blob_size(image.id.digest())?.unwrap_or(0);
    let config = Descriptor::new(MediaType::OciConfig, image.id.digest().clone(), config_size);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OciManifest),
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest holds nothing that JSON cannot");
    let digest = store.put_blob(&bytes)?;
    let descriptor = Descriptor::new(MediaType::OciManifest, digest.clone(), bytes.len() as u64);
    store.put_image(&ImageRecord { manifest: Some(digest), ..image.clone() })?;
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

/// The compressed blob of an image's layer: the one that is there, or a new one.
pub(super) fn ensure_layer(store: &Store, image: &ImageRecord, position: usize) -> Result<Descriptor, Error> {
    let diff_id = &image.diff_ids[position];
    if let Some(known) = compressed_blob(store, diff_id)? {
        return Ok(known);
    }
    // Two pushes of the same image at once compress each layer once.
    let _lock = store.lock_key(blake3::hash(format!("compress {diff_id}").as_bytes()).as_bytes())?;
    if let Some(known) = compressed_blob(store, diff_id)? {
        return Ok(known);
    }
    let failed = |source| Error::Layer { layer: diff_id.to_string(), source };
    let spec = CompressionSpec { kind: Compression::Gzip, level: None };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut writer = store.ingest_new()?;
    // Where the layer came as a tar, its bytes are what the diff ID is of: another program's archive cannot be made again from its files.
    let (actual, compressed) = match store.layer_blobs(diff_id)?.into_iter().find(|blob| is_plain(blob, diff_id)) {
        Some(tar) => {
            let compressed = compress(store.open_blob(&tar.digest)?, &mut writer, spec, threads).map_err(failed)?;
            (compressed.diff_id.clone(), compressed)
        }
        None => {
            let snapshot = *image.snapshots.get(position).ok_or_else(|| Error::LayerGone { diff_id: diff_id.clone() })?;
            let lower: Vec<_> = image.snapshots[..position].iter().rev().map(|id| store.snapshot_path(*id)).collect();
            let options = LayerOptions { latest_time: None, userxattr: store.userxattr() };
            let layer = store.snapshot_path(snapshot);
            let (written, compressed) = write_compressed_layer(&layer, &lower, &mut writer, &options, spec, threads).map_err(failed)?;
            (written.diff_id, compressed)
        }
    };
    if &actual != diff_id {
        return Err(Error::DiffId { digest: compressed.digest, expected: diff_id.clone(), actual });
    }
    writer.commit(&compressed.digest, compressed.size)?;
    let blob = LayerBlob { digest: compressed.digest, size: compressed.size, media_type: MediaType::OciLayerGzip };
    store.record_layer_blob(diff_id, &blob)?;
    Ok(Descriptor::new(blob.media_type, blob.digest, blob.size))
}

/// The compressed blob of a layer that is in the store already.
fn compressed_blob(store: &Store, diff_id: &DiffId) -> Result<Option<Descriptor>, Error> {
    let blob = store.layer_blobs(diff_id)?.into_iter().find(|blob| !is_plain(blob, diff_id));
    Ok(blob.map(|blob| Descriptor::new(as_oci(blob.media_type), blob.digest, blob.size)))
}

/// Whether a blob is the tar itself. Its digest tells, not its type: registries call compressed layers uncompressed at times.
fn is_plain(blob: &LayerBlob, diff_id: &DiffId) -> bool {
    &blob.digest == diff_id.digest()
}

/// The OCI name of a layer's type: an OCI manifest with Docker's names in it confuses some clients.
fn as_oci(kind: MediaType) -> MediaType {
    match kind {
        MediaType::DockerLayer => MediaType::OciLayer,
        MediaType::DockerLayerGzip => MediaType::OciLayerGzip,
        MediaType::DockerLayerZstd => MediaType::OciLayerZstd,
        other => other,
    }
}
