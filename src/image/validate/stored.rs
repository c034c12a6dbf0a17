//! An image of the store. A layer is there as blobs (one for each way in which it was compressed), or, where it was built here and went nowhere yet, as files.
//! All blobs that are there are read; files are hashed where there is no blob to tell.

use crate::image::Error;
use crate::image::layer::{LayerOptions, diff_id_only};
use crate::oci::{Descriptor, ImageConfig, Manifest, ManifestOrIndex, MediaType};
use crate::store::{ImageRecord, Store};

use super::bytes::{check, diff_id_fault, diff_id_of, hash_of};
use super::{Depth, Fault, MAX_CONFIG, Validation, config_faults, fault_of};

/// How large a manifest may be.
const MAX_MANIFEST: u64 = 16 << 20;

/// Looks at an image of the store.
///
/// # Errors
/// The store's database.
pub fn validate_stored(store: &Store, image: &ImageRecord, depth: Depth) -> Result<Validation, Error> {
    let mut found = Validation::default();
    let manifest = stored_manifest(store, image, &mut found)?;
    stored_config(store, image, manifest.as_ref(), &mut found)?;
    for position in 0..image.diff_ids.len() {
        let named = manifest.as_ref().and_then(|manifest| manifest.layers.get(position));
        stored_layer(store, image, position, named, depth, &mut found)?;
    }
    Ok(found)
}

/// The image's manifest, where the store has one.
fn stored_manifest(store: &Store, image: &ImageRecord, found: &mut Validation) -> Result<Option<Manifest>, Error> {
    let Some(digest) = &image.manifest else { return Ok(None) };
    let Some(size) = store.blob_size(digest)? else { return Ok(None) };
    found.manifests += 1;
    let parsed = store.read_blob(digest, MAX_MANIFEST).map_err(|error| fault_of(Error::Store(error))).and_then(|bytes| {
        let at = Descriptor::new(MediaType::OciManifest, digest.clone(), size);
        match (check(&at, &bytes), ManifestOrIndex::parse(&bytes, None)) {
            (Some(fault), _) => Err(fault),
            (None, Err(error)) => Err(Fault::Manifest(error)),
            (None, Ok(parsed)) => Ok(parsed),
        }
    });
    match parsed {
        Ok(ManifestOrIndex::Manifest(manifest)) => Ok(Some(*manifest)),
        Ok(ManifestOrIndex::Index(_)) => Ok(None),
        Err(fault) => {
            found.note(digest, "manifest", fault);
            Ok(None)
        }
    }
}

fn stored_config(store: &Store, image: &ImageRecord, manifest: Option<&Manifest>, found: &mut Validation) -> Result<(), Error> {
    let digest = image.id.digest();
    let size = store.blob_size(digest)?;
    let announced = manifest.map(|manifest| manifest.config.size).or(size).unwrap_or(0);
    let at = Descriptor::new(MediaType::OciConfig, digest.clone(), announced);
    found.count(&at);
    let bytes = store.read_blob(digest, MAX_CONFIG).map_err(|error| fault_of(Error::Store(error)));
    let checked = bytes.and_then(|bytes| match check(&at, &bytes) {
        Some(fault) => Err(fault),
        None => serde_json::from_slice::<ImageConfig>(&bytes).map_err(Fault::Config),
    });
    let layers = manifest.map_or(image.diff_ids.len(), |manifest| manifest.layers.len());
    let faults = match checked {
        Ok(config) => config_faults(&config, layers, Some(&image.platform)),
        Err(fault) => vec![fault],
    };
    faults.into_iter().for_each(|fault| found.note(digest, "config", fault));
    Ok(())
}

/// Looks at one layer; `named` is what the manifest says of it.
fn stored_layer(
    store: &Store,
    image: &ImageRecord,
    position: usize,
    named: Option<&Descriptor>,
    depth: Depth,
    found: &mut Validation,
) -> Result<(), Error> {
    let (diff_id, what) = (&image.diff_ids[position], format!("layer {}", position + 1));
    let mut blobs: Vec<Descriptor> = named.filter(|layer| !layer.is_elsewhere()).cloned().into_iter().collect();
    for blob in store.layer_blobs(diff_id)? {
        if !blobs.iter().any(|known| known.digest == blob.digest) {
            blobs.push(Descriptor::new(blob.media_type, blob.digest, blob.size));
        }
    }
    let mut present = 0;
    for blob in &blobs {
        let Some(actual) = store.blob_size(&blob.digest)? else { continue };
        present += 1;
        found.count(blob);
        let fault = match (actual == blob.size, depth) {
            (false, _) => Some(Fault::Size { announced: blob.size, actual }),
            (true, Depth::Documents) => None,
            (true, Depth::Bytes) => match hash_of(store.open_blob(&blob.digest)?, blob)? {
                actual if actual != blob.digest => Some(Fault::Digest { actual }),
                _ => diff_id_fault(diff_id_of(store.open_blob(&blob.digest)?, diff_id.algorithm()), diff_id.clone()),
            },
        };
        fault.into_iter().for_each(|fault| found.note(&blob.digest, &what, fault));
    }
    if present == 0 { stored_files(store, image, position, depth, &what, found) } else { Ok(()) }
}

/// Looks at a layer that is there as files only.
fn stored_files(
    store: &Store,
    image: &ImageRecord,
    position: usize,
    depth: Depth,
    what: &str,
    found: &mut Validation,
) -> Result<(), Error> {
    let diff_id = &image.diff_ids[position];
    let snapshot = match image.snapshots.get(position) {
        Some(id) => store.snapshot(*id)?,
        None => None,
    };
    let Some(snapshot) = snapshot else {
        found.note(diff_id.digest(), what, Fault::Missing);
        return Ok(());
    };
    found.blobs += 1;
    found.size += snapshot.tar_size.unwrap_or(snapshot.size);
    if depth == Depth::Bytes {
        let lower = store.layers_below(snapshot.id, &image.snapshots[..position])?;
        let options = LayerOptions { latest_time: None, marks: store.marks(), algorithm: diff_id.algorithm(), ..LayerOptions::default() };
        let written = diff_id_only(&store.snapshot_path(snapshot.id), &lower, &options).map(|written| written.diff_id);
        let fault = diff_id_fault(written, diff_id.clone());
        fault.into_iter().for_each(|fault| found.note(diff_id.digest(), what, fault));
    }
    Ok(())
}
