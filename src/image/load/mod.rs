//! Images out of archives: what the documents say, checked against the bytes.
//!
//! `index.json` goes before `manifest.json`, as it keeps an image's manifest and so its digest; names are taken from both. Every layer is unpacked and
//! hashed before the image is recorded, all layers at once; nothing of an image that is not whole gets a name.

mod layout;
mod root;

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::Deserialize;

use crate::oci::{
    ChainId, Descriptor, DiffId, Digest, ImageConfig, ImageId, Index, Manifest, ManifestOrIndex, MediaType, Platform, Reference,
};
use crate::store::{ActiveSnapshot, ImageRecord, LayerBlob, SnapshotId, Store};
use crate::task::fault_point;

pub use layout::{Layout, fetch_from_layout, load_layout, manifest_of_layout};
pub use root::{archive_root, has_all_of, load_root};

use super::Error;
use super::archive::{Spooled, bad, spool};
use super::import::peek;
use super::layer::{Applied, Compression};
use super::pull::{commit_layer, known_prefix, unpack_reader};

/// How large a manifest or config may be: they are read into memory.
const MAX_JSON: u64 = 8 << 20;

/// How deep indexes may be nested.
const MAX_NESTING: usize = 4;

/// An image that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The image.
    pub image: ImageRecord,
    /// The names that it got.
    pub names: Vec<Reference>,
}

/// What the documents say of one image.
struct Plan {
    /// The index that its names stand for, where the archive has all of it.
    index: Option<Digest>,
    manifest: Option<Digest>,
    config: Digest,
    layers: Vec<LayerBlob>,
    names: Vec<Reference>,
}

impl Plan {
    /// An image by its manifest.
    fn of(digest: Digest, manifest: Manifest, names: Vec<Reference>) -> Plan {
        let blob = |layer: Descriptor| LayerBlob { digest: layer.digest, size: layer.size, media_type: layer.media_type, made_as: None };
        let layers = manifest.layers.into_iter().map(blob).collect();
        Plan { index: None, manifest: Some(digest), config: manifest.config.digest, layers, names }
    }
}

/// An entry of Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerEntry {
    pub(super) config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Option<Vec<String>>,
}

/// Which images of an archive are loaded.
#[derive(Clone, Debug)]
pub enum LoadFor {
    /// All; where one has several platforms, the names stand for this one, or else what there is, and for the index where all of it is in the archive.
    Preferred(Platform),
    /// Those for this platform.
    Only(Platform),
}

/// Loads images of an archive.
pub fn load(store: &Store, archive: impl Read + Send + 'static, wanted: &LoadFor) -> Result<Vec<Loaded>, Error> {
    let spooled = spool(store, archive)?;
    fault_point("load:spooled");
    let mut plans = match spooled.document("index.json") {
        Some(bytes) => plans_of_index(store, bytes, wanted)?,
        None => Vec::new(),
    };
    let entries: Vec<DockerEntry> = match spooled.document("manifest.json") {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|error| bad(format!("its `manifest.json` is malformed: {error}")))?,
        None if plans.is_empty() && spooled.document("index.json").is_none() => {
            return Err(bad("it has neither `manifest.json` nor `index.json`".into()));
        }
        None => Vec::new(),
    };
    for entry in entries {
        add_docker_entry(store, &spooled, &entry, &mut plans)?;
    }
    if plans.is_empty() {
        return Err(bad("it has no image".into()));
    }
    if let LoadFor::Only(platform) = wanted {
        let (mut fitting, mut found) = (Vec::new(), Vec::new());
        for plan in plans {
            let of = config_of(store, &plan)?.platform();
            match of.matches(platform) {
                true => fitting.push(plan),
                false => found.push(of.to_string()),
            }
        }
        plans = fitting;
        if plans.is_empty() {
            return Err(Error::NoPlatform { name: "archive".to_owned(), wanted: platform.clone(), found });
        }
    }
    plans.into_iter().map(|plan| load_one(store, plan)).collect()
}

/// The images of `index.json`, each once, with all the names that it has there.
fn plans_of_index(store: &Store, bytes: &[u8], wanted: &LoadFor) -> Result<Vec<Plan>, Error> {
    let (LoadFor::Preferred(platform) | LoadFor::Only(platform)) = wanted;
    let index: Index = serde_json::from_slice(bytes).map_err(|error| bad(format!("its `index.json` is malformed: {error}")))?;
    let mut plans: Vec<Plan> = Vec::new();
    for entry in &index.manifests {
        let Some((digest, manifest)) = find_manifest(store, entry, platform, MAX_NESTING)? else { continue };
        let name = name_of(entry);
        let whole = matches!(wanted, LoadFor::Preferred(_)) && digest != entry.digest && has_all_of(store, &entry.digest)?;
        let index = whole.then(|| entry.digest.clone());
        if let Some(known) = plans.iter_mut().find(|plan| plan.manifest.as_ref() == Some(&digest) && plan.index == index) {
            known.names.extend(name.filter(|name| !known.names.contains(name)));
            continue;
        }
        plans.push(Plan { index, ..Plan::of(digest, manifest, name.into_iter().collect()) });
    }
    Ok(plans)
}

/// The manifest that a descriptor leads to; `None` where the archive does not have it (that of another platform, say) or it is no image's.
fn find_manifest(store: &Store, at: &Descriptor, platform: &Platform, depth: usize) -> Result<Option<(Digest, Manifest)>, Error> {
    match store.blob_size(&at.digest)? {
        None => return Ok(None),
        Some(actual) if actual != at.size => {
            return Err(Error::Size { name: "archive".to_owned(), digest: at.digest.clone(), announced: at.size, actual });
        }
        Some(_) => {}
    }
    let bytes = store.read_blob(&at.digest, MAX_JSON)?;
    let name = at.digest.to_string();
    match ManifestOrIndex::parse(&bytes, Some(&at.media_type)).map_err(|source| Error::Manifest { name, source })? {
        ManifestOrIndex::Manifest(manifest) => {
            let is_image = matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig);
            // What builders say about images (provenance) has the form of images.
            Ok((is_image && !at.is_remark()).then(|| (at.digest.clone(), *manifest)))
        }
        ManifestOrIndex::Index(_) if depth == 0 => Err(Error::NestedTooDeep { name: at.digest.to_string(), limit: MAX_NESTING }),
        ManifestOrIndex::Index(index) => {
            let first = index.select(platform).into_iter();
            for entry in first.chain(&index.manifests) {
                if let Some(found) = find_manifest(store, entry, platform, depth - 1)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        }
    }
}

/// The name that an entry of an index has, where it is a whole one: a mere tag says nothing of the repository.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let full = entry.annotations.get("io.containerd.image.name");
    let short = || entry.annotations.get("org.opencontainers.image.ref.name").filter(|name| name.contains([':', '/']));
    let name: Reference = full.or_else(short)?.parse().ok()?;
    (name.digest().is_none() && !name.is_like_digest()).then_some(name)
}

/// An entry of `manifest.json`: the names of an image that `index.json` has, or one more image.
fn add_docker_entry(store: &Store, spooled: &Spooled, entry: &DockerEntry, plans: &mut Vec<Plan>) -> Result<(), Error> {
    let missing = |file: &str| bad(format!("the file `{}` is missing", file.chars().take(200).collect::<String>()));
    let config = spooled.blob(&entry.config).ok_or_else(|| missing(&entry.config))?.clone();
    let mut names = Vec::new();
    for tag in entry.repo_tags.iter().flatten() {
        let name: Reference = tag.parse().map_err(|error: crate::oci::ReferenceError| bad(error.to_string()))?;
        if name.digest().is_some() || name.is_like_digest() {
            return Err(bad(format!("it calls an image `{tag}`, and a digest is no tag")));
        }
        names.push(name);
    }
    // What stands for an index does not stand for one of its images alone.
    let (all, whole) = (names.len(), |plan: &Plan| plan.index.is_some() || plan.config == config);
    names.retain(|name| !plans.iter().any(|plan| whole(plan) && plan.names.contains(name)));
    if all > 0 && names.is_empty() {
        return Ok(());
    }
    if let Some(known) = plans.iter_mut().find(|plan| plan.config == config && plan.index.is_none()) {
        known.names.extend(names);
        return Ok(());
    }
    let mut layers = Vec::new();
    for file in entry.layers.iter().flatten() {
        let digest = spooled.blob(file).ok_or_else(|| missing(file))?.clone();
        let failed = |source| Error::Archive { source: super::layer::Error::Read { source } };
        let media_type = match peek(store.open_blob(&digest)?).map_err(failed)?.0 {
            Compression::Uncompressed => MediaType::OciLayer,
            Compression::Gzip => MediaType::OciLayerGzip,
            Compression::Zstd => MediaType::OciLayerZstd,
            other => return Err(bad(format!("a layer is compressed with {}", other.name()))),
        };
        let size = store.blob_size(&digest)?.unwrap_or(0);
        layers.push(LayerBlob { digest, size, media_type, made_as: None });
    }
    plans.push(Plan { index: None, manifest: None, config, layers, names });
    Ok(())
}

impl Plan {
    /// What the image is called in messages.
    fn name(&self) -> String {
        self.names.first().map_or_else(|| self.config.to_string(), Reference::familiar)
    }
}

fn config_of(store: &Store, plan: &Plan) -> Result<ImageConfig, Error> {
    if store.blob_size(&plan.config)?.is_none() {
        return Err(bad(format!("the blob {} of `{}` is missing", plan.config, plan.name())));
    }
    let bytes = store.read_blob(&plan.config, MAX_JSON)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Config { name: plan.name(), digest: plan.config.clone(), source })
}

fn load_one(store: &Store, plan: Plan) -> Result<Loaded, Error> {
    let (name, config) = (plan.name(), config_of(store, &plan)?);
    for layer in &plan.layers {
        if store.blob_size(&layer.digest)?.is_none() {
            return Err(bad(format!("the blob {} of `{name}` is missing", layer.digest)));
        }
    }
    let diff_ids = config.rootfs.diff_ids.clone();
    if diff_ids.len() != plan.layers.len() {
        return Err(Error::LayerCount { name, layers: plan.layers.len(), diff_ids: diff_ids.len() });
    }
    let snapshots = unpack_layers(store, &|position| Ok(plan.layers[position].clone()), &diff_ids)?;
    let mut size = 0;
    for id in &snapshots {
        size += store.snapshot(*id)?.and_then(|snapshot| snapshot.tar_size).unwrap_or(0);
    }
    let image = ImageRecord {
        id: ImageId::new(plan.config),
        manifest: plan.manifest,
        platform: config.platform(),
        created_at: SystemTime::now(),
        size,
        diff_ids,
        snapshots,
    };
    fault_point("load:unpacked");
    store.put_image(&image)?;
    fault_point("load:recorded");
    for name in &plan.names {
        store.tag(name, &image.id, plan.index.as_ref())?;
    }
    Ok(Loaded { image, names: plan.names })
}

/// A layer that is unpacked and not yet committed.
type Unpacked = Result<(ActiveSnapshot, Applied), Error>;

/// Unpacks the layers that are not there, as many at once as there are cores, and commits them in order. `blob_of` is asked for the blobs of those only.
pub(super) fn unpack_layers(
    store: &Store,
    blob_of: &dyn Fn(usize) -> Result<LayerBlob, Error>,
    diff_ids: &[DiffId],
) -> Result<Vec<SnapshotId>, Error> {
    let chain = ChainId::chain(diff_ids);
    let Some(top) = chain.last() else { return Ok(Vec::new()) };
    // The same lock as for a pull: who waited finds it done.
    let _lock = store.lock_key(blake3::hash(format!("unpack {top}").as_bytes()).as_bytes())?;
    let mut snapshots = known_prefix(store, &chain)?;
    let known = snapshots.len();
    let missing: Vec<LayerBlob> = (known..diff_ids.len()).map(blob_of).collect::<Result<_, _>>()?;
    let slots: Vec<Mutex<Option<Unpacked>>> = missing.iter().map(|_| Mutex::new(None)).collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((layer, diff_id)) = missing.get(at).zip(diff_ids.get(known + at)) else { return };
            let unpacked = store
                .open_blob(&layer.digest)
                .map_err(Error::from)
                .and_then(|blob| unpack_reader(store, &layer.digest, diff_id.algorithm(), blob));
            failed.fetch_or(unpacked.is_err(), Ordering::Relaxed);
            *slots[at].lock().unwrap_or_else(PoisonError::into_inner) = Some(unpacked);
        }
    };
    let threads = crate::task::parallelism().min(missing.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let results: Vec<Option<Unpacked>> = slots.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect();
    // The slots after a failure are empty; the failure is before them or is the answer.
    let unpacked: Vec<(ActiveSnapshot, Applied)> = results.into_iter().flatten().collect::<Result<_, _>>()?;
    for ((active, applied), layer) in unpacked.into_iter().zip(&missing) {
        let position = snapshots.len();
        if applied.diff_id != diff_ids[position] {
            let (expected, actual) = (diff_ids[position].clone(), applied.diff_id);
            return Err(Error::DiffId { digest: layer.digest.clone(), expected, actual });
        }
        store.record_layer_blob(&applied.diff_id, layer)?;
        snapshots = commit_layer(store, snapshots, active, applied, Some(&chain[position]))?;
    }
    Ok(snapshots)
}

#[cfg(test)]
mod tests;
