//! `--cache-from` and `--cache-to`: where caches are, and how they are read.
//!
//! At import only manifest and config are fetched. A cache that is missing, unreachable or not what it should be is one warning and no failure.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};

use crate::cache::portable::{CONFIG_TYPE, DocumentError, INLINE_FIELD, ImportedCache, MAX_DOCUMENT};
use crate::cache::{CacheKey, Imports};
use crate::diag::with_causes;
use crate::executor::{CacheFailure, CacheLayers, StepResult};
use crate::image::layer::CompressionSpec;
use crate::image::load::{Layout, fetch_from_layout, manifest_of_layout};
use crate::image::pull::fetch_blob;
use crate::oci::{Descriptor, ImageConfig, Manifest, ManifestOrIndex, MediaType, Platform, Reference};
use crate::progress::{Progress, StepOutcome};
use crate::registry::{Client, RetryPolicy};
use crate::store::Store;
use crate::task::blocking;

use super::{Engine, Error};

/// How large an image's config may be that an inline cache is looked for in.
const MAX_CONFIG: u64 = 8 << 20;

/// How deep indexes may be nested.
const MAX_NESTING: usize = 4;

/// What BuildKit's own caches have as their config.
const BUILDKIT_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

/// A repository of a registry that holds a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRepository {
    /// The cache's name.
    pub reference: Reference,
    /// Whether the registry may be spoken to without TLS, or with a certificate that nobody vouches for.
    pub insecure: bool,
}

/// One `--cache-from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheSource {
    /// An OCI layout in a directory.
    Local(Layout),
    /// A cache in a registry, or an image with a cache in it.
    Registry(CacheRepository),
}

/// One `--cache-to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTarget {
    /// Where the cache goes.
    pub to: CacheDestination,
    /// Which layers go with it.
    pub mode: CacheMode,
    /// What layers without a blob are compressed with; gzip where nothing is said.
    pub compression: Option<CompressionSpec>,
    /// Whether layers with a blob are compressed so too.
    pub force: bool,
    /// Whether a cache that cannot be written is a warning.
    pub ignore_error: bool,
}

/// Where a cache goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CacheDestination {
    /// An OCI layout in a directory.
    Local {
        /// The directory.
        dir: PathBuf,
        /// The cache's tag in it.
        tag: String,
        /// Whether all else goes from it.
        reset: bool,
    },
    /// A registry.
    Registry(CacheRepository),
    /// The image itself.
    Inline,
}

/// Which layers go with a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Those of the result.
    #[default]
    Min,
    /// Those of all steps.
    Max,
}

impl std::fmt::Display for CacheSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CacheSource::Local(layout) => {
                write!(f, "{}", layout.dir.display())?;
                match (&layout.digest, &layout.tag) {
                    (Some(digest), _) => write!(f, "@{digest}"),
                    (None, Some(tag)) => write!(f, ":{tag}"),
                    (None, None) => Ok(()),
                }
            }
            CacheSource::Registry(repository) => f.write_str(&repository.reference.familiar()),
        }
    }
}

impl std::fmt::Display for CacheDestination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CacheDestination::Local { dir, .. } => write!(f, "{}", dir.display()),
            CacheDestination::Registry(repository) => f.write_str(&repository.reference.familiar()),
            CacheDestination::Inline => f.write_str("the image"),
        }
    }
}

/// Why a cache cannot be read.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    /// It cannot be had.
    #[error(transparent)]
    Image(#[from] crate::image::Error),
    /// A registry cannot be asked.
    #[error(transparent)]
    Client(#[from] Box<Error>),
    /// It says what cannot be believed.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It is something else.
    #[error("{reason}")]
    NotACache {
        /// What it is.
        reason: String,
    },
}

impl From<crate::registry::Error> for ImportError {
    fn from(error: crate::registry::Error) -> ImportError {
        ImportError::Image(error.into())
    }
}

impl From<crate::store::Error> for ImportError {
    fn from(error: crate::store::Error) -> ImportError {
        ImportError::Image(error.into())
    }
}

impl CacheTarget {
    /// Whether this is the very cache `source`; an image is that under one of the names `tags`.
    fn is(&self, source: &CacheSource, tags: &[Reference]) -> bool {
        match (&self.to, source) {
            (CacheDestination::Local { dir, tag, .. }, CacheSource::Local(layout)) => {
                let same = |one: &PathBuf, other: &PathBuf| one == other || one.canonicalize().ok() == other.canonicalize().ok();
                layout.tag.as_ref() == Some(tag) && same(dir, &layout.dir)
            }
            (CacheDestination::Registry(to), CacheSource::Registry(from)) => to.reference == from.reference,
            (CacheDestination::Inline, CacheSource::Registry(from)) => tags.contains(&from.reference),
            _ => false,
        }
    }
}

/// Where the layers of imported caches come from.
pub(super) struct CacheFetcher {
    store: Store,
    sources: Vec<(CacheSource, Option<Client>)>,
}

impl CacheFetcher {
    /// The keys under which `target` is to find a step: those that this build knows, and where it is the cache that gave the step, those that it has there
    /// already. (A copy that hit by its definition has a key by content, which nobody knows here who has not seen the files.)
    pub(super) fn keys_for(&self, step: &StepResult, target: &CacheTarget, tags: &[Reference]) -> Vec<CacheKey> {
        let mut keys = step.keys.clone();
        if let Some((cache, known)) = &step.offered
            && self.sources.get(*cache).is_some_and(|(source, _)| target.is(source, tags))
        {
            keys.extend(known.iter().filter(|key| !step.keys.contains(key)));
        }
        keys
    }
}

impl CacheLayers for CacheFetcher {
    fn fetch<'a>(&'a self, cache: usize, blob: &'a Descriptor) -> BoxFuture<'a, Result<(), CacheFailure>> {
        Box::pin(async move {
            let failed = |error: ImportError| CacheFailure { whole_cache: is_unreachable(&error), source: error.into() };
            let Some((source, client)) = self.sources.get(cache) else { return Ok(()) };
            fetch(&self.store, source, client.as_ref(), blob).await.map_err(failed)
        })
    }
}

/// Whether it is the registry that cannot be asked, and not the content that is missing or damaged.
fn is_unreachable(error: &ImportError) -> bool {
    use crate::registry::Error as E;
    match error {
        ImportError::Image(crate::image::Error::Registry(error)) => {
            !error.is_not_found() && !matches!(error, E::DigestMismatch { .. } | E::SizeMismatch { .. })
        }
        ImportError::Client(_) => true,
        _ => false,
    }
}

/// Brings a blob of a cache into the store.
async fn fetch(store: &Store, source: &CacheSource, client: Option<&Client>, blob: &Descriptor) -> Result<(), ImportError> {
    match (source, client) {
        (CacheSource::Local(layout), _) => {
            let (store, dir, blob) = (store.clone(), layout.dir.clone(), blob.clone());
            Ok(blocking(move || fetch_from_layout(&store, &dir, &blob)).await?)
        }
        (CacheSource::Registry(repository), Some(client)) => Ok(fetch_blob(client, store, &repository.reference, blob).await?),
        (CacheSource::Registry(_), None) => Ok(()),
    }
}

impl Engine {
    /// Reads the caches that a build imports, all at once. Those that cannot be read are left out, each with a warning.
    pub(super) async fn import_caches(
        &self,
        sources: &[CacheSource],
        platforms: &[Platform],
        progress: &Progress,
    ) -> (Arc<Imports>, Arc<CacheFetcher>) {
        let mut caches = Vec::new();
        let mut fetcher = CacheFetcher { store: self.store.clone(), sources: Vec::new() };
        let read = sources.iter().map(|source| async move {
            let step = progress.start(format!("[internal] import the cache {source}"), None);
            let read = self.import_cache(source, platforms).await;
            step.finish(if read.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
            read
        });
        for (source, read) in sources.iter().zip(join_all(read).await) {
            match read {
                Ok((found, client)) => {
                    fetcher.sources.extend(found.iter().map(|_| (source.clone(), client.clone())));
                    caches.extend(found);
                }
                Err(error) => progress.warn(format!("the cache `{source}` is not used: {}", with_causes(&error))),
            }
        }
        (Arc::new(Imports::new(caches)), Arc::new(fetcher))
    }

    /// Reads a cache; one that is in images is as many as there are of them.
    async fn import_cache(
        &self,
        source: &CacheSource,
        platforms: &[Platform],
    ) -> Result<(Vec<ImportedCache>, Option<Client>), ImportError> {
        let client = match source {
            CacheSource::Local(_) => None,
            CacheSource::Registry(repository) => Some(self.cache_client(repository).map_err(Box::new)?),
        };
        let (mut manifests, mut failure) = (Vec::new(), None);
        for platform in platforms {
            match self.cache_manifest(source, client.as_ref(), platform).await {
                Ok(manifest) if manifests.contains(&manifest) => {}
                Ok(manifest) => manifests.push(manifest),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        let mut caches = Vec::new();
        for manifest in manifests {
            match self.read_cache(source, client.as_ref(), manifest).await {
                Ok(cache) => caches.push(cache),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        // What there is for some of the platforms is of use.
        match failure {
            Some(error) if caches.is_empty() => Err(error),
            _ => Ok((caches, client)),
        }
    }

    async fn cache_manifest(&self, source: &CacheSource, client: Option<&Client>, platform: &Platform) -> Result<Manifest, ImportError> {
        match (source, client) {
            (CacheSource::Registry(repository), Some(client)) => remote_manifest(client, &repository.reference, platform).await,
            (CacheSource::Registry(_), None) => Err(ImportError::NotACache { reason: "nobody asks its registry".into() }),
            (CacheSource::Local(layout), _) => {
                let (store, layout, platform) = (self.store.clone(), layout.clone(), platform.clone());
                Ok(blocking(move || manifest_of_layout(&store, &layout, &platform)).await?)
            }
        }
    }

    async fn read_cache(&self, source: &CacheSource, client: Option<&Client>, manifest: Manifest) -> Result<ImportedCache, ImportError> {
        let (config, limit) = (manifest.config.clone(), config_limit(&manifest)?);
        if config.size > limit {
            return Err(DocumentError::TooLarge { size: config.size }.into());
        }
        fetch(&self.store, source, client, &config).await?;
        let (store, digest) = (self.store.clone(), config.digest.clone());
        let bytes = blocking(move || store.read_blob(&digest, limit)).await?;
        let name = source.to_string();
        blocking(move || read_document(name, manifest, &bytes)).await
    }

    /// A client for a cache: one that soon gives up, since a build goes on without it.
    pub(super) fn cache_client(&self, repository: &CacheRepository) -> Result<Client, Error> {
        let mut options = super::client_options(self.options())?;
        options.retry = RetryPolicy { attempts: options.retry.attempts.min(CACHE_ATTEMPTS), ..options.retry };
        if repository.insecure {
            options.insecure.push(repository.reference.registry().to_owned());
        }
        Client::new(options).map_err(|source| Error::Registry { action: "set up", name: "the registry client".into(), source })
    }
}

/// How often a registry is asked for a cache that gives no answer.
const CACHE_ATTEMPTS: u32 = 3;

/// The manifest that `reference` leads to.
async fn remote_manifest(client: &Client, reference: &Reference, platform: &Platform) -> Result<Manifest, ImportError> {
    let mut at = reference.clone();
    for _ in 0..MAX_NESTING {
        let fetched = client.fetch_manifest(&at).await?;
        let named = |source| crate::image::Error::Manifest { name: reference.written().to_owned(), source };
        match ManifestOrIndex::parse(&fetched.bytes, Some(&fetched.media_type)).map_err(named)? {
            ManifestOrIndex::Manifest(manifest) => return Ok(*manifest),
            ManifestOrIndex::Index(index) => match index.select(platform) {
                Some(found) => at = reference.with_digest(found.digest.clone()),
                None if index.manifests.iter().any(|entry| entry.media_type.as_str() == BUILDKIT_CONFIG) => return Err(of_buildkit()),
                None => return Err(ImportError::NotACache { reason: format!("it is an index without anything for {platform}") }),
            },
        }
    }
    Err(crate::image::Error::NestedTooDeep { name: reference.written().to_owned(), limit: MAX_NESTING }.into())
}

fn of_buildkit() -> ImportError {
    ImportError::NotACache { reason: "it is a cache of BuildKit, whose keys mean nothing here: export one with `--cache-to` first".into() }
}

/// How large the config of a manifest may be, where that can be a cache at all.
fn config_limit(manifest: &Manifest) -> Result<u64, ImportError> {
    match &manifest.config.media_type {
        MediaType::OciConfig | MediaType::DockerConfig => Ok(MAX_CONFIG),
        MediaType::Other(kind) if kind == CONFIG_TYPE => Ok(MAX_DOCUMENT),
        MediaType::Other(kind) if kind == BUILDKIT_CONFIG => Err(of_buildkit()),
        kind => {
            Err(ImportError::NotACache { reason: format!("its config is of the type `{kind}`, which is neither a cache's nor an image's") })
        }
    }
}

fn read_document(name: String, manifest: Manifest, bytes: &[u8]) -> Result<ImportedCache, ImportError> {
    let is_image = matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig);
    if !is_image {
        return Ok(ImportedCache::parse(name, bytes, manifest.layers)?);
    }
    let config: ImageConfig = serde_json::from_slice(bytes).map_err(DocumentError::Json)?;
    let Some(value) = config.other.get(INLINE_FIELD) else {
        let reason = "it is an image without a cache in it: build it with `--cache-to type=inline`".to_owned();
        return Err(ImportError::NotACache { reason });
    };
    Ok(ImportedCache::parse_inline(name, value, manifest.layers, config.rootfs.diff_ids)?)
}
