//! Names of the store that stand for an index: what `pull --all-platforms` and builds for several platforms leave.
//!
//! Such a name points at one image, which is the one that runs here, and at the index. The other images are blobs only until somebody wants one of them.

use crate::image::Error;
use crate::image::load::load_root;
use crate::oci::{Descriptor, Digest, ManifestOrIndex, MediaType, Platform, Reference};
use crate::store::{ImageRecord, Store};

/// How large an index or a manifest may be.
const MAX_DOCUMENT: u64 = 16 << 20;

/// The index that a name stands for, where the store has all of it: its images with their configs and layers.
///
/// # Errors
/// The store.
pub(super) fn complete_index(store: &Store, reference: &Reference) -> Result<Option<Descriptor>, crate::store::Error> {
    let Some((root, index)) = stored_index(store, reference)? else { return Ok(None) };
    let mut pending: Vec<Digest> = index.manifests.into_iter().map(|entry| entry.digest).collect();
    while let Some(digest) = pending.pop() {
        if store.blob_size(&digest)?.is_none() {
            return Ok(None);
        }
        match ManifestOrIndex::parse(&store.read_blob(&digest, MAX_DOCUMENT)?, None) {
            Ok(ManifestOrIndex::Index(index)) => pending.extend(index.manifests.into_iter().map(|entry| entry.digest)),
            Ok(ManifestOrIndex::Manifest(manifest)) => {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    if !blob.is_elsewhere() && store.blob_size(&blob.digest)?.is_none() {
                        return Ok(None);
                    }
                }
            }
            Err(_) => return Ok(None),
        }
    }
    Ok(Some(root))
}

/// The image for `platform` of the index that a name stands for, unpacked; `None` where it is not here.
///
/// # Errors
/// The store; damaged content.
pub(super) fn image_in_index(store: &Store, name: &str, platform: &Platform) -> Result<Option<ImageRecord>, Error> {
    let Ok(reference) = name.parse::<Reference>() else { return Ok(None) };
    let Some((root, index)) = stored_index(store, &reference)? else { return Ok(None) };
    match index.select(platform) {
        Some(entry) if store.blob_size(&entry.digest)?.is_some() => {
            Ok(Some(load_root(store, &root, platform)?).filter(|image| image.platform.matches(platform)))
        }
        _ => Ok(None),
    }
}

/// The index that a name stands for; what it names may be missing.
fn stored_index(store: &Store, reference: &Reference) -> Result<Option<(Descriptor, crate::oci::Index)>, crate::store::Error> {
    let Some(digest) = store.tagged_manifest(reference)? else { return Ok(None) };
    if store.blob_size(&digest)?.is_none() {
        return Ok(None);
    }
    let bytes = store.read_blob(&digest, MAX_DOCUMENT)?;
    let Ok(ManifestOrIndex::Index(index)) = ManifestOrIndex::parse(&bytes, None) else { return Ok(None) };
    let media_type = index.media_type.clone().unwrap_or(MediaType::OciIndex);
    Ok(Some((Descriptor::new(media_type, digest, bytes.len() as u64), *index)))
}
