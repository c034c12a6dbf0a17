//! Base images and downloads of a build: from the store where they are there, from the network otherwise.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};

use futures_util::future::BoxFuture;

use crate::cache::{CacheKey, Output};
use crate::executor::{Download, Error as BuildError, Sources};
use crate::graph::{ImageNeed, RemoteTree, ResolvedImage};
use crate::image::load::{Layout, load_layout};
use crate::image::pull::{self, Resolved};
use crate::oci::{ChainId, Digest, ImageConfig, ImageId, Reference};
use crate::progress::{Progress, StepOutcome, StepProgress};
use crate::registry::Client;
use crate::store::{ImageRecord, SnapshotId, Store};
use crate::task::{CancellationToken, blocking};

use super::remote::Remotes;
use super::stored_index::image_in_index;
use super::{Engine, Error};

/// Whether images are looked up in their registries although they are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PullPolicy {
    /// Only those that are missing.
    Missing,
    /// All (`--pull`).
    Always,
}

/// The base images of one build.
pub(super) struct BuildSources {
    store: Store,
    client: Box<dyn Fn() -> Result<Client, Error> + Send + Sync>,
    images: Mutex<HashMap<ImageId, Base>>,
    /// Named contexts that are directories with an image.
    layouts: BTreeMap<String, Layout>,
    /// What comes from elsewhere than registries.
    remotes: Remotes,
    /// What short names were found to stand for.
    long_names: Mutex<HashMap<String, Reference>>,
}

/// Where a base image's layers are to come from.
#[derive(Clone)]
enum Base {
    /// A registry, by what was resolved there.
    Remote(Box<Resolved>),
    /// The store.
    Local(Box<ImageRecord>),
}

impl BuildSources {
    pub(super) fn new(
        store: Store,
        client: impl Fn() -> Result<Client, Error> + Send + Sync + 'static,
        layouts: BTreeMap<String, Layout>,
        remotes: Remotes,
    ) -> BuildSources {
        BuildSources { store, client: Box::new(client), images: Mutex::default(), layouts, remotes, long_names: Mutex::default() }
    }

    /// Finds out what an image is: its config, and what its layers are called.
    pub(super) async fn resolve(&self, need: &ImageNeed, policy: PullPolicy, progress: &Progress) -> Result<ResolvedImage, Error> {
        let failed = |source| Error::BaseImage { need: Box::new(need.clone()), source };
        if let Some(layout) = need.layout.as_ref().and_then(|name| self.layouts.get(name)) {
            let (store, layout, platform) = (self.store.clone(), layout.clone(), need.platform.clone());
            let record = blocking(move || load_layout(&store, &layout, &platform)).await.map_err(failed)?;
            return self.local(need, record).map_err(failed);
        }
        if policy == PullPolicy::Missing
            && let Some(found) = self.resolve_local(need).map_err(failed)?
        {
            return Ok(found);
        }
        let client = (self.client)()?;
        let long;
        let need = match need.reference.is_short() {
            false => need,
            true => {
                let name = self.long_name(&client, need, policy).await.map_err(|source| failed(source.into()))?;
                self.long_names.lock().unwrap_or_else(PoisonError::into_inner).insert(need.reference.to_string(), name.clone());
                long = ImageNeed { reference: name, ..need.clone() };
                &long
            }
        };
        if policy == PullPolicy::Missing
            && let Some(found) = self.resolve_local(need).map_err(failed)?
        {
            return Ok(found);
        }
        let platform = if need.tells_platform { format!("{} ", need.platform) } else { String::new() };
        let step = progress.start(format!("[{platform}internal] load metadata for {}", need.reference), None);
        let resolved = pull::resolve(&client, &self.store, &need.reference, &need.platform).await;
        for warning in client.take_warnings() {
            progress.warn(warning);
        }
        let resolved = match resolved {
            Ok(resolved) => resolved,
            Err(error) => {
                step.finish(StepOutcome::Failed);
                return Err(failed(error));
            }
        };
        step.finish(StepOutcome::Done);
        let image = ResolvedImage { id: resolved.id.clone(), manifest: resolved.manifest_digest.clone(), config: resolved.config.clone() };
        self.remember(resolved.id.clone(), Base::Remote(Box::new(resolved)));
        Ok(image)
    }

    /// What a short name stands for: an image that is here goes before one that would have to be looked for.
    async fn long_name(&self, client: &Client, need: &ImageNeed, policy: PullPolicy) -> Result<Reference, crate::registry::Error> {
        if policy == PullPolicy::Missing {
            for name in client.options().registries.long_names(&need.reference)? {
                let candidate = ImageNeed { reference: name.clone(), ..need.clone() };
                if self.resolve_local(&candidate).is_ok_and(|found| found.is_some()) {
                    return Ok(name);
                }
            }
        }
        client.long_name(&need.reference).await
    }

    /// As [`BuildSources::resolve`], but only where the image is here.
    pub(super) fn resolve_local(&self, need: &ImageNeed) -> Result<Option<ResolvedImage>, crate::image::Error> {
        let Some(mut record) = self.store.resolve(&need.reference)? else { return Ok(None) };
        if !record.platform.matches(&need.platform) {
            match image_in_index(&self.store, &need.reference.to_string(), &need.platform)? {
                Some(other) => record = other,
                None => return Ok(None),
            }
        }
        if !self.is_complete(&record)? {
            return Ok(None);
        }
        self.local(need, record).map(Some)
    }

    /// An image that is in the store.
    fn local(&self, need: &ImageNeed, record: ImageRecord) -> Result<ResolvedImage, crate::image::Error> {
        let bytes = self.store.read_blob(record.id.digest(), 8 << 20)?;
        let digest = record.id.digest().clone();
        let name = need.reference.written().to_owned();
        let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|source| crate::image::Error::Config { name, digest, source })?;
        let manifest = record.manifest.clone().unwrap_or_else(|| record.id.digest().clone());
        let id = record.id.clone();
        self.remember(id.clone(), Base::Local(Box::new(record)));
        Ok(ResolvedImage { id, manifest, config })
    }

    /// Whether the layers are here, unpacked or not.
    fn is_complete(&self, record: &ImageRecord) -> Result<bool, crate::store::Error> {
        if snapshots_of(&self.store, record)?.is_some() {
            return Ok(true);
        }
        for diff_id in &record.diff_ids {
            if self.store.layer_blobs(diff_id)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(record.manifest.is_some())
    }

    fn remember(&self, id: ImageId, base: Base) {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).insert(id, base);
    }

    fn base(&self, id: &ImageId) -> Option<Base> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    async fn fetch(&self, reference: &Reference, id: &ImageId, progress: &StepProgress) -> Result<Vec<SnapshotId>, Error> {
        let failed = |source| Error::Image { action: "pull", name: reference.written().to_owned(), source };
        let client = (self.client)()?;
        let long = self.long_names.lock().unwrap_or_else(PoisonError::into_inner).get(&reference.to_string()).cloned();
        let reference = long.as_ref().unwrap_or(reference);
        let resolved = match self.base(id) {
            Some(Base::Remote(resolved)) => *resolved,
            _ => {
                // Packed in the store: its manifest and config are there, so this asks no registry.
                let by_digest = match self.base(id) {
                    Some(Base::Local(record)) => record.manifest.map(|digest| reference.with_digest(digest)),
                    _ => None,
                };
                let platform = crate::oci::Platform::host();
                match &by_digest {
                    Some(name) => pull::resolve_stored(&client, &self.store, name, &platform).await,
                    None => pull::resolve(&client, &self.store, reference, &platform).await,
                }
                .map_err(failed)?
            }
        };
        let snapshots = pull::unpack(&client, &self.store, reference, &resolved, progress).await.map_err(failed)?;
        pull::record(&self.store, reference, &resolved, &snapshots).map_err(failed)?;
        Ok(snapshots)
    }
}

impl Sources for BuildSources {
    fn unpack<'a>(
        &'a self,
        reference: &'a Reference,
        id: &'a ImageId,
        progress: &'a StepProgress,
    ) -> BoxFuture<'a, Result<Vec<SnapshotId>, BuildError>> {
        Box::pin(async move {
            self.fetch(reference, id, progress).await.map_err(|error| {
                let hint = error.hint();
                BuildError::Source { what: format!("the layers of `{}`", reference.written()), step: None, source: Box::new(error), hint }
            })
        })
    }

    fn unpacked(&self, id: &ImageId) -> Option<Vec<SnapshotId>> {
        match self.base(id)? {
            Base::Local(record) => snapshots_of(&self.store, &record).ok()?,
            Base::Remote(resolved) => chain_of(&self.store, &resolved.config.rootfs.diff_ids).ok()?,
        }
    }

    fn download<'a>(
        &'a self,
        url: &'a str,
        checksum: Option<&'a Digest>,
        progress: &'a StepProgress,
    ) -> BoxFuture<'a, Result<Download, BuildError>> {
        Box::pin(self.remotes.download(url, checksum, progress))
    }

    fn identify<'a>(&'a self, tree: &'a RemoteTree, cancel: &'a CancellationToken) -> BoxFuture<'a, Result<CacheKey, BuildError>> {
        Box::pin(self.remotes.identify(tree, cancel))
    }

    fn fetch<'a>(&'a self, tree: &'a RemoteTree, cancel: &'a CancellationToken) -> BoxFuture<'a, Result<Output, BuildError>> {
        Box::pin(self.remotes.fetch(tree, cancel))
    }
}

/// The snapshots of an image, if all of them are there.
pub(super) fn snapshots_of(store: &Store, record: &ImageRecord) -> Result<Option<Vec<SnapshotId>>, crate::store::Error> {
    if record.snapshots.len() == record.diff_ids.len() {
        let mut all = true;
        for id in &record.snapshots {
            all &= store.snapshot(*id)?.is_some();
        }
        if all {
            return Ok(Some(record.snapshots.clone()));
        }
    }
    chain_of(store, &record.diff_ids)
}

fn chain_of(store: &Store, diff_ids: &[crate::oci::DiffId]) -> Result<Option<Vec<SnapshotId>>, crate::store::Error> {
    match ChainId::chain(diff_ids).last() {
        None => Ok(Some(Vec::new())),
        Some(top) => store.chain(top),
    }
}

impl Engine {
    /// The sources of a build.
    pub(super) fn build_sources(&self, layouts: BTreeMap<String, Layout>, remotes: Remotes) -> BuildSources {
        let (options, made) = (self.options.clone(), self.client.clone());
        BuildSources::new(self.store.clone(), move || super::client_of(&options, &made), layouts, remotes)
    }
}
