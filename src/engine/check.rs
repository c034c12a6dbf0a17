//! Whether the whole store is as it promises, and mending it: what came from a registry is fetched again, what came as a blob is unpacked again, and the rest is
//! dropped with what depends on it.
//!
//! Mending goes in rounds. A round takes out or replaces what is broken; the next look finds what has lost something by that. So each rule is about one thing only, and the
//! end is a look that finds nothing.

use std::collections::HashSet;

use crate::image::check::{restore_snapshot, snapshot_fault};
use crate::image::pull::fetch_blob;
use crate::oci::{Descriptor, Digest, ImageConfig, ImageId, Manifest, ManifestOrIndex, MediaType, Reference};
use crate::registry::Client;
use crate::store::{BlobUse, ImageRecord, LayerBlob, PruneOptions, Record, SnapshotId, Store};
pub use crate::store::{CheckDepth, Problem, StoreCheck};
use crate::task::{blocking, in_parallel};

use super::{Engine, EngineOptions, Error};

/// More rounds than anything depends on anything.
const MAX_ROUNDS: usize = 8;

/// How large a manifest may be.
const MAX_MANIFEST: u64 = 16 << 20;

/// What a look at the whole store found, and what was done about it.
#[derive(Debug)]
pub struct CheckOutcome {
    /// What was found at first.
    pub found: StoreCheck,
    /// What was done, a line each.
    pub done: Vec<String>,
    /// What is still wrong.
    pub left: Vec<Problem>,
}

impl Engine {
    /// Opens the store to look at it, whatever state it is in.
    ///
    /// # Errors
    /// There is none, or it cannot be opened.
    pub fn open_to_check(options: EngineOptions) -> Result<Engine, Error> {
        let Some(store) = Store::open_to_check(&options.root)? else {
            let message = format!("there is no store in `{}`", options.root.display());
            return Err(Error::Usage { message, hint: Some("name it with `--root` or `STRAKE_ROOT`".into()) });
        };
        Ok(Engine { options, store, spawner: None, client: std::sync::Arc::default() })
    }

    /// Looks at everything in the store.
    ///
    /// # Errors
    /// What keeps it from looking.
    pub async fn check(&self, depth: CheckDepth) -> Result<CheckOutcome, Error> {
        let found = self.look(depth).await?;
        Ok(CheckOutcome { left: found.problems.clone(), found, done: Vec::new() })
    }

    /// Looks at everything in the store and mends it, until nothing is wrong that can be mended.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub async fn repair(&self, depth: CheckDepth) -> Result<CheckOutcome, Error> {
        let mut found = self.look(depth).await?;
        let mut outcome = CheckOutcome { found: found.clone(), done: Vec::new(), left: Vec::new() };
        let (mut tried, mut rebuilt) = (HashSet::new(), false);
        for _ in 0..MAX_ROUNDS {
            if found.problems.is_empty() {
                break;
            }
            rebuilt |= found.problems.iter().any(|problem| matches!(problem, Problem::Database { .. }));
            // Blobs first: snapshots are unpacked from them.
            found.problems.sort_by_key(|problem| matches!(problem, Problem::SnapshotMissing { .. } | Problem::SnapshotAltered { .. }));
            for problem in &found.problems {
                outcome.done.extend(self.mend(problem, &mut tried).await?);
            }
            found = self.look(depth).await?;
        }
        outcome.left = found.problems;
        // What nothing names could belong to what a lost database knew.
        if outcome.left.is_empty() && !rebuilt && !outcome.found.leftovers.is_empty() {
            let store = self.store.clone();
            blocking(move || store.prune(&PruneOptions::default())).await?;
            outcome.done.push(format!("removed what was left over ({})", outcome.found.leftovers.len()));
        }
        self.store.settle()?;
        Ok(outcome)
    }

    /// One look at everything.
    async fn look(&self, depth: CheckDepth) -> Result<StoreCheck, Error> {
        let store = self.store.clone();
        blocking(move || {
            let mut report = store.check(depth)?;
            let readable = !report.problems.iter().any(|problem| matches!(problem, Problem::Database { .. } | Problem::Place { .. }));
            if depth == CheckDepth::Content && readable {
                check_layers(&store, &mut report)?;
            }
            Ok(report)
        })
        .await
    }

    /// Mends one thing, and says how.
    async fn mend(&self, problem: &Problem, tried: &mut HashSet<Digest>) -> Result<Vec<String>, Error> {
        Ok(match problem {
            Problem::Database { .. } => self.rebuild()?,
            Problem::BlobContent { digest, .. } | Problem::BlobSize { digest, .. } | Problem::BlobUnreadable { digest, .. } => {
                self.store.drop_blob(digest)?;
                vec![self.fetch_again(digest, tried).await.unwrap_or_else(|reason| format!("dropped blob {digest}: {reason}"))]
            }
            Problem::BlobMissing { digest, needed } => match self.fetch_again(digest, tried).await {
                Ok(line) => vec![line],
                // A blob that another problem of this round has brought back.
                Err(_) if self.store.blob_size(digest)?.is_some() => Vec::new(),
                // What a name stands for is not needed to run what it names.
                Err(_) if matches!(needed, BlobUse::Named(_)) => vec![self.store.drop_broken(problem)?],
                Err(reason) => vec![format!("{}: {reason}", self.store.drop_broken(problem)?)],
            },
            Problem::LayerMissing { image, position, diff_id } => match self.layer_blob(image, *position)? {
                Some(layer) if self.fetch_again(&layer.digest, tried).await.is_ok() => {
                    let blob = LayerBlob { digest: layer.digest.clone(), size: layer.size, media_type: layer.media_type, made_as: None };
                    self.store.record_layer_blob(diff_id, &blob)?;
                    vec![format!("blob {}: fetched again", layer.digest)]
                }
                _ => vec![self.store.drop_broken(problem)?],
            },
            Problem::SnapshotMissing { id, .. } | Problem::SnapshotAltered { id, .. } => self.mend_snapshot(*id, problem).await?,
            Problem::Dangling { record: Record::Container(id), .. } => self.drop_container(id)?.into_iter().collect(),
            _ => vec![self.store.drop_broken(problem)?],
        })
    }

    /// Unpacks a snapshot again, or drops it with the containers that are made of it.
    async fn mend_snapshot(&self, id: SnapshotId, problem: &Problem) -> Result<Vec<String>, Error> {
        let store = self.store.clone();
        let restored = blocking(move || restore_snapshot(&store, id)).await;
        let restored = restored.map_err(|source| Error::Image { action: "unpack", name: format!("snapshot {id}"), source })?;
        if let Some(blob) = restored {
            return Ok(vec![format!("snapshot {id}: unpacked again from blob {blob}")]);
        }
        let mut lines = Vec::new();
        for container in self.store.containers()?.into_iter().filter(|container| container.snapshots.contains(&id)) {
            lines.extend(self.drop_container(&container.id)?);
        }
        lines.push(self.store.drop_broken(problem)?);
        Ok(lines)
    }

    /// Removes a container that cannot be started any more.
    fn drop_container(&self, id: &str) -> Result<Option<String>, Error> {
        let Some(record) = self.store.find_container(id)? else { return Ok(None) };
        let name = record.name.clone();
        let info = self.container(id)?;
        if info.is_running() {
            return Ok(Some(format!("the container `{name}` runs without what it was made of: stop it, and repair again")));
        }
        self.remove_container(&info, false, false)?;
        Ok(Some(format!("dropped the container `{name}`: its layers or its files are gone")))
    }

    /// Makes a new database of what can be read of the old one and of the directories.
    fn rebuild(&self) -> Result<Vec<String>, Error> {
        let rebuilt = self.store.rebuild_database()?;
        let mut lines = Vec::new();
        match &rebuilt.aside {
            Some(aside) => {
                lines.push(format!("made a new database with {} rows of the old one, which is now `{}`", rebuilt.kept, aside.display()))
            }
            None => lines.push("made a new database".to_owned()),
        }
        lines.extend(rebuilt.volumes.iter().map(|name| format!("volume `{name}`: found in its directory")));
        for id in self.rescue_images()? {
            lines.push(format!("image {id}: found among the blobs; `strake tag {} NAME` gives it a name", id.digest().short()));
        }
        Ok(lines)
    }

    /// Records the images whose manifest, config and layers are blobs of the store, and that no row is about.
    fn rescue_images(&self) -> Result<Vec<ImageId>, Error> {
        let mut found = Vec::new();
        for digest in self.store.blobs()? {
            let Some((manifest, config)) = image_in(&self.store, &digest)? else { continue };
            let id = ImageId::new(manifest.config.digest.clone());
            if self.store.image(&id)?.is_some() || config.rootfs.diff_ids.len() != manifest.layers.len() {
                continue;
            }
            for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
                let blob =
                    LayerBlob { digest: layer.digest.clone(), size: layer.size, media_type: layer.media_type.clone(), made_as: None };
                self.store.record_layer_blob(diff_id, &blob)?;
            }
            self.store.put_image(&ImageRecord {
                id: id.clone(),
                manifest: Some(digest),
                platform: config.platform(),
                created_at: std::time::SystemTime::now(),
                size: manifest.layers.iter().map(|layer| layer.size).sum(),
                diff_ids: config.rootfs.diff_ids.clone(),
                snapshots: Vec::new(),
            })?;
            found.push(id);
        }
        Ok(found)
    }

    /// What an image's manifest says of one of its layers.
    fn layer_blob(&self, image: &ImageId, position: usize) -> Result<Option<Descriptor>, Error> {
        let manifest = self.store.image(image)?.and_then(|image| image.manifest);
        let Some(manifest) = manifest else { return Ok(None) };
        Ok(match document(&self.store, &manifest)? {
            Some(ManifestOrIndex::Manifest(manifest)) => manifest.layers.get(position).cloned(),
            _ => None,
        })
    }

    /// Fetches a blob again from where it came from, and says from where; or says why not. Each is tried once.
    async fn fetch_again(&self, digest: &Digest, tried: &mut HashSet<Digest>) -> Result<String, String> {
        if !tried.insert(digest.clone()) {
            return Err("it cannot be fetched again".to_owned());
        }
        let origins = origins_of(&self.store, digest).map_err(|error| error.to_string())?;
        let mut reason = "where it came from is not known".to_owned();
        for (name, blob) in origins {
            let client = self.client().map_err(|error| error.to_string())?;
            match fetch(&client, &self.store, &name, digest, blob.as_ref()).await {
                Ok(()) => return Ok(format!("blob {digest}: fetched again from `{}`", name.familiar_name())),
                Err(error) => reason = format!("`{}` does not give it: {}", name.familiar_name(), in_one_line(&error)),
            }
        }
        Err(reason)
    }
}

/// Compares the files of all snapshots with what they should be.
fn check_layers(store: &Store, report: &mut StoreCheck) -> Result<(), Error> {
    let known: HashSet<SnapshotId> = report
        .problems
        .iter()
        .filter_map(|problem| match problem {
            Problem::SnapshotMissing { id, .. } | Problem::SnapshotAltered { id, .. } => Some(*id),
            _ => None,
        })
        .collect();
    let snapshots: Vec<_> = store.snapshots()?.into_iter().filter(|snapshot| !known.contains(&snapshot.id)).collect();
    let faults = in_parallel(&snapshots, |snapshot| snapshot_fault(store, snapshot));
    for (snapshot, fault) in snapshots.into_iter().zip(faults) {
        let name = format!("snapshot {}", snapshot.id);
        let Some(what) = fault.map_err(|source| Error::Image { action: "read", name, source })? else { continue };
        // Removed while it was read, by somebody who may.
        if store.snapshot(snapshot.id)?.is_some() {
            report.problems.push(Problem::SnapshotAltered { id: snapshot.id, description: snapshot.description, what });
        }
    }
    Ok(())
}

/// The manifest or index `digest`, where it is here and whole.
fn document(store: &Store, digest: &Digest) -> Result<Option<ManifestOrIndex>, Error> {
    let bytes = match store.read_blob(digest, MAX_MANIFEST) {
        Ok(bytes) => bytes,
        Err(crate::store::Error::NoBlob { .. } | crate::store::Error::BlobTooLarge { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let whole = Digest::of(digest.algorithm(), &bytes) == *digest;
    Ok(if whole { ManifestOrIndex::parse(&bytes, None).ok() } else { None })
}

/// The image whose manifest the blob `digest` is, where all of it is here.
fn image_in(store: &Store, digest: &Digest) -> Result<Option<(Manifest, ImageConfig)>, Error> {
    if store.blob_size(digest)?.is_none_or(|size| size > MAX_MANIFEST) {
        return Ok(None);
    }
    let Some(ManifestOrIndex::Manifest(manifest)) = document(store, digest)? else { return Ok(None) };
    if !matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig) {
        return Ok(None);
    }
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        if store.blob_size(&blob.digest)?.is_none() {
            return Ok(None);
        }
    }
    let bytes = store.read_blob(&manifest.config.digest, MAX_MANIFEST)?;
    Ok(serde_json::from_slice(&bytes).ok().map(|config| (*manifest, config)))
}

/// The names under which registries had a blob: with its descriptor, or without one where it is a manifest or an index.
fn origins_of(store: &Store, wanted: &Digest) -> Result<Vec<(Reference, Option<Descriptor>)>, Error> {
    let mut found = Vec::new();
    for (name, top) in store.origins()? {
        let (mut todo, mut seen) = (vec![top], HashSet::new());
        while let Some(digest) = todo.pop() {
            if digest == *wanted {
                found.push((name.clone(), None));
                break;
            }
            if !seen.insert(digest.clone()) {
                continue;
            }
            match document(store, &digest)? {
                Some(ManifestOrIndex::Index(index)) => todo.extend(index.manifests.into_iter().map(|entry| entry.digest)),
                Some(ManifestOrIndex::Manifest(manifest)) => {
                    let blob = manifest.layers.into_iter().chain([manifest.config]).find(|blob| blob.digest == *wanted);
                    found.extend(blob.map(|blob| (name.clone(), Some(blob))));
                }
                None => {}
            }
        }
    }
    Ok(found)
}

async fn fetch(
    client: &Client,
    store: &Store,
    name: &Reference,
    digest: &Digest,
    blob: Option<&Descriptor>,
) -> Result<(), crate::image::Error> {
    let at = name.with_digest(digest.clone());
    match blob {
        Some(blob) => fetch_blob(client, store, &at, blob).await,
        None => {
            let fetched = client.fetch_manifest(&at).await?;
            let store = store.clone();
            blocking(move || store.put_blob_as(&fetched.bytes, &fetched.digest)).await?;
            Ok(())
        }
    }
}

fn in_one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
