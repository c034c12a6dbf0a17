//! `--cache-to`: a build's steps as an OCI artifact, in a directory or a registry, or in the image itself.
//!
//! What has a blob is not compressed again, and what an imported cache has is only fetched where the destination lacks it. The manifest comes last, so that a
//! name never leads to what is not there.

use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

use crate::cache::CacheKey;
use crate::cache::portable::{ARTIFACT_TYPE, CONFIG_TYPE, Document, INLINE_FIELD, Record};
use crate::diag::with_causes;
use crate::executor::{CacheLayers as _, StepLayerAt, StepResult};
use crate::image::archive::{LayoutLock, is_whole, write_artifact};
use crate::image::imported::{StepLayer, pack_layer};
use crate::image::push::push_artifact;
use crate::oci::{Descriptor, Digest, ImageConfig, Manifest, MediaType};
use crate::progress::{Progress, StepOutcome};
use crate::store::Store;
use crate::task::blocking;

use super::build_cache::{CacheDestination, CacheFetcher, CacheMode, CacheTarget};
use super::{Engine, Error};

/// A cache, packed: its manifest, and the layers that are only in an imported cache.
struct Packed {
    manifest: Manifest,
    bytes: Vec<u8>,
    elsewhere: Vec<(usize, Descriptor)>,
}

/// Why a cache cannot be exported.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    /// A layer cannot be packed, or the destination written.
    #[error(transparent)]
    Image(#[from] crate::image::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The registry cannot be asked.
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
    /// The registry's client cannot be set up.
    #[error(transparent)]
    Client(#[from] Box<Error>),
    /// The cache that a layer was to come from does not give it.
    #[error("layer {digest} is not in the store, and cannot be fetched from the cache that has it")]
    Missing {
        /// The layer.
        digest: Digest,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Engine {
    /// Exports what `steps` tell to all of `targets` but the image.
    ///
    /// # Errors
    /// A cache cannot be written, and nobody said that this does not matter.
    pub(super) async fn export_caches(
        &self,
        targets: &[CacheTarget],
        steps: &[StepResult],
        fetcher: &CacheFetcher,
        progress: &Progress,
    ) -> Result<(), Error> {
        for target in targets.iter().filter(|target| target.to != CacheDestination::Inline) {
            let step = progress.start(format!("[internal] export the cache to {}", target.to), None);
            let exported = self.export_cache(target, steps, fetcher, &step).await;
            match exported {
                Ok(()) => step.finish(StepOutcome::Done),
                Err(source) => {
                    step.finish(StepOutcome::Failed);
                    if !target.ignore_error {
                        return Err(Error::CacheExport { to: target.to.to_string(), source: Box::new(source) });
                    }
                    progress.warn(format!("the cache is not exported to `{}`: {}", target.to, with_causes(&source)));
                }
            }
        }
        Ok(())
    }

    async fn export_cache(
        &self,
        target: &CacheTarget,
        steps: &[StepResult],
        fetcher: &CacheFetcher,
        progress: &crate::progress::StepProgress,
    ) -> Result<(), ExportError> {
        let keyed = |step: &StepResult| StepResult { keys: fetcher.keys_for(step, target, &[]), ..step.clone() };
        let (store, packing, steps): (_, _, Vec<_>) = (self.store.clone(), target.clone(), steps.iter().map(keyed).collect());
        let packed = blocking(move || pack_cache(&store, &packing, &steps)).await?;
        match &target.to {
            CacheDestination::Inline => Ok(()),
            CacheDestination::Local { dir, tag, reset } => {
                for (cache, blob) in &packed.elsewhere {
                    let there = dir.join("blobs").join(blob.digest.algorithm().name()).join(blob.digest.hex());
                    let looked = blob.clone();
                    if !blocking(move || is_whole(&there, &looked)).await {
                        fetch_missing(&self.store, fetcher, *cache, blob).await?;
                    }
                }
                let (store, dir, tag, reset) = (self.store.clone(), dir.clone(), tag.clone(), *reset);
                blocking(move || {
                    let _lock = LayoutLock::take(&dir)?;
                    Ok(write_artifact(&store, &packed.manifest, &packed.bytes, &dir, &tag, reset)?)
                })
                .await
            }
            CacheDestination::Registry(repository) => {
                let client = self.cache_client(repository).map_err(Box::new)?;
                for (cache, blob) in &packed.elsewhere {
                    if !client.blob_exists(&repository.reference, &blob.digest).await? {
                        fetch_missing(&self.store, fetcher, *cache, blob).await?;
                    }
                }
                let (name, manifest) = (&repository.reference, &packed.manifest);
                Ok(push_artifact(&client, &self.store, name, manifest, packed.bytes, progress).await?)
            }
        }
    }
}

/// Fetches what the destination lacks from the cache that has it.
async fn fetch_missing(store: &Store, fetcher: &CacheFetcher, cache: usize, blob: &Descriptor) -> Result<(), ExportError> {
    if store.blob_size(&blob.digest)?.is_some() {
        return Ok(());
    }
    let missing = |source| ExportError::Missing { digest: blob.digest.clone(), source };
    fetcher.fetch(cache, blob).await.map_err(|failure| missing(failure.source))
}

/// Makes the blobs that are missing, the config and the manifest.
fn pack_cache(store: &Store, target: &CacheTarget, steps: &[StepResult]) -> Result<Packed, crate::image::Error> {
    let mut layers: Vec<StepLayer> = Vec::new();
    let mut places: HashMap<Digest, usize> = HashMap::new();
    let mut elsewhere = Vec::new();
    let mut records = Vec::with_capacity(steps.len());
    for step in steps {
        let mut record = record_of(step);
        if target.mode == CacheMode::Max || step.in_targets.iter().any(Option::is_some) {
            let layer = match &step.layer {
                StepLayerAt::Stack(stack) => pack_layer(store, stack, target.compression, target.force)?,
                StepLayerAt::Cache(offer) => {
                    let layer = offer.layer.clone();
                    if store.blob_size(&layer.blob.digest)?.is_none() {
                        elsewhere.push((offer.cache, layer.blob.clone()));
                    }
                    StepLayer { blob: layer.blob, diff_id: layer.diff_id, created: layer.created.unwrap_or(SystemTime::UNIX_EPOCH) }
                }
            };
            record.created = Some(timestamp(layer.created));
            record.layer = Some(*places.entry(layer.blob.digest.clone()).or_insert_with(|| {
                layers.push(layer);
                layers.len() - 1
            }));
        }
        records.push(record);
    }
    let diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let config = Document::new(diff_ids, records).to_bytes();
    let digest = store.put_blob(&config)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MediaType::OciManifest),
        artifact_type: Some(ARTIFACT_TYPE.into()),
        config: Descriptor::new(MediaType::Other(CONFIG_TYPE.into()), digest, config.len() as u64),
        layers: layers.into_iter().map(|layer| layer.blob).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).expect("a manifest holds nothing that JSON cannot");
    Ok(Packed { manifest, bytes, elsewhere })
}

fn record_of(step: &StepResult) -> Record {
    Record {
        keys: step.keys.clone(),
        result: step.result,
        layer: None,
        created: None,
        step: Some(step.name.clone()),
        components: Some(step.components.clone()),
    }
}

fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Puts the cache of the own steps of the target with this number into the image's config. What others could read of steps there is no more than the history says.
pub(super) fn add_inline(
    store: &Store,
    config: &mut ImageConfig,
    target: usize,
    steps: &[StepResult],
    keys: &dyn Fn(&StepResult) -> Vec<CacheKey>,
) -> Result<(), crate::store::Error> {
    let base_layers = config.rootfs.diff_ids.len();
    let mut records = Vec::new();
    for step in steps {
        let Some(place) = step.in_targets.get(target).copied().flatten() else { continue };
        let created = match &step.layer {
            StepLayerAt::Stack(stack) => {
                stack.last().map(|id| store.snapshot(*id)).transpose()?.flatten().map(|snapshot| snapshot.created_at)
            }
            StepLayerAt::Cache(offer) => offer.layer.created,
        };
        let (layer, created) = (Some(base_layers + place), created.map(timestamp));
        records.push(Record { keys: keys(step), layer, created, components: None, ..record_of(step) });
    }
    config.other.insert(INLINE_FIELD.into(), Document::new(Vec::new(), records).to_value());
    Ok(())
}
