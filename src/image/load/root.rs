//! What an archive holds, without making an image of it: its blobs go into the store as they are, and the manifest that is meant is found, or made where
//! Docker's old form has none.

use std::collections::{BTreeMap, HashSet};
use std::io::Read;

use crate::image::Error;
use crate::image::archive::{Spooled, bad, spool};
use crate::oci::{Descriptor, Digest, Index, Manifest, ManifestOrIndex, MediaType, Platform, Reference};
use crate::store::{ImageRecord, Store};

use super::{DockerEntry, MAX_NESTING, Plan, add_docker_entry, find_manifest, load_one, name_of};

/// How large an index or a manifest may be that a registry gave.
const MAX_DOCUMENT: u64 = 16 << 20;

/// Reads an archive to its end and finds the image (or index) called `name`, which is a tag or a whole name; without one, the only one that there is.
///
/// # Errors
/// The archive, the store; there is no such image.
pub fn archive_root(store: &Store, archive: impl Read + Send + 'static, name: Option<&str>) -> Result<Descriptor, Error> {
    let spooled = spool(store, archive)?;
    if let Some(bytes) = spooled.document("index.json") {
        let index: Index = serde_json::from_slice(bytes).map_err(|error| bad(format!("its `index.json` is malformed: {error}")))?;
        let mut seen = HashSet::new();
        // An image has an entry for each of its names.
        let found = only(index.manifests.iter(), |entry| match name {
            Some(name) => is_called(entry, name),
            None => seen.insert(&entry.digest),
        });
        return found.cloned().map_err(|count| several(name, count));
    }
    let bytes = spooled.document("manifest.json").ok_or_else(|| bad("it has neither `manifest.json` nor `index.json`".into()))?;
    let entries: Vec<DockerEntry> =
        serde_json::from_slice(bytes).map_err(|error| bad(format!("its `manifest.json` is malformed: {error}")))?;
    let wanted: Option<Reference> = name.and_then(|name| name.parse().ok());
    let found = only(entries.iter(), |entry| {
        let mut tags = entry.repo_tags.iter().flatten().filter_map(|tag| tag.parse::<Reference>().ok());
        name.is_none() || tags.any(|tag| Some(&tag) == wanted.as_ref())
    });
    made_manifest(store, &spooled, found.map_err(|count| several(name, count))?)
}

/// Makes an image of the manifest `root`, or of the one for `platform` in it; all of its blobs are in the store.
///
/// # Errors
/// The store; a blob is missing, or damaged; there is no image for the platform.
pub fn load_root(store: &Store, root: &Descriptor, platform: &Platform) -> Result<ImageRecord, Error> {
    let found = find_manifest(store, root, platform, MAX_NESTING)?;
    let (digest, manifest) = found.ok_or_else(|| bad(format!("it has no image for {platform}")))?;
    Ok(load_one(store, Plan::of(digest, manifest, Vec::new()))?.image)
}

/// Whether all that an index or a manifest names is in the store: its images with their configs and layers.
///
/// # Errors
/// The store.
pub fn has_all_of(store: &Store, root: &Digest) -> Result<bool, crate::store::Error> {
    let (mut pending, mut seen) = (vec![root.clone()], HashSet::new());
    while let Some(digest) = pending.pop() {
        if !seen.insert(digest.clone()) {
            continue;
        }
        if store.blob_size(&digest)?.is_none() {
            return Ok(false);
        }
        match ManifestOrIndex::parse(&store.read_blob(&digest, MAX_DOCUMENT)?, None) {
            Ok(ManifestOrIndex::Index(index)) => pending.extend(index.manifests.into_iter().map(|entry| entry.digest)),
            Ok(ManifestOrIndex::Manifest(manifest)) => {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    if !blob.is_elsewhere() && store.blob_size(&blob.digest)?.is_none() {
                        return Ok(false);
                    }
                }
            }
            Err(_) => return Ok(false),
        }
    }
    Ok(true)
}

fn is_called(entry: &Descriptor, name: &str) -> bool {
    let tagged = entry.annotations.get("org.opencontainers.image.ref.name").is_some_and(|tag| tag == name);
    tagged || name.parse::<Reference>().is_ok_and(|wanted| name_of(entry).as_ref() == Some(&wanted))
}

/// The only one that fits, or how many there are.
fn only<T>(all: impl Iterator<Item = T>, fits: impl FnMut(&T) -> bool) -> Result<T, usize> {
    let mut found: Vec<T> = all.filter(fits).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        count => Err(count),
    }
}

fn several(name: Option<&str>, count: usize) -> Error {
    bad(match (name, count) {
        (Some(name), 0) => format!("it has no image called `{name}`"),
        (None, 0) => "it has no image".to_owned(),
        (_, count) => format!("it has {count} images, so one must be named"),
    })
}

/// The manifest of an image of which the archive only says config and layers.
fn made_manifest(store: &Store, spooled: &Spooled, entry: &DockerEntry) -> Result<Descriptor, Error> {
    let mut plans = Vec::new();
    add_docker_entry(store, spooled, entry, &mut plans)?;
    let plan: Plan = plans.remove(0);
    let size = store.blob_size(&plan.config)?.unwrap_or(0);
    let layers = plan.layers.into_iter().map(|layer| Descriptor::new(layer.media_type, layer.digest, layer.size));
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OciManifest),
        artifact_type: None,
        config: Descriptor::new(MediaType::OciConfig, plan.config, size),
        layers: layers.collect(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest holds nothing that JSON cannot");
    let digest = store.put_blob(&bytes)?;
    Ok(Descriptor::new(MediaType::OciManifest, digest, bytes.len() as u64))
}
