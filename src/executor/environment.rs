//! What running a build needs from outside, given by the engine.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;

use crate::cache::{BuildCache, CacheKey, Imports, Output};
use crate::context::{ChecksumMemo, LocalContext};
use crate::diag::Secret;
use crate::graph::RemoteTree;
use crate::oci::{Descriptor, Digest, ImageId, Reference};
use crate::progress::{Progress, StepProgress};
use crate::runtime::Spawner;
use crate::store::{BuildLogs, Lease, SnapshotId, Store};
use crate::task::CancellationToken;

use super::{Error, FailedSlot, FileTimes, Roots, StepSettings};

/// Files that come from elsewhere.
pub trait Sources: Send + Sync {
    /// Makes the layers of an image available as snapshots, bottom first: fetched and unpacked where they are missing.
    fn unpack<'a>(
        &'a self,
        reference: &'a Reference,
        id: &'a ImageId,
        progress: &'a StepProgress,
    ) -> BoxFuture<'a, Result<Vec<SnapshotId>, Error>>;

    /// The snapshots of an image, if they are all there already.
    fn unpacked(&self, id: &ImageId) -> Option<Vec<SnapshotId>>;

    /// Fetches a file from a web server. Where its `checksum` is demanded and the file is here, no server is asked.
    fn download<'a>(
        &'a self,
        url: &'a str,
        checksum: Option<&'a Digest>,
        progress: &'a StepProgress,
    ) -> BoxFuture<'a, Result<Download, Error>>;

    /// Finds out what `tree` is at this moment, and under which key its files are kept. Asked again, it gives the same answer.
    fn identify<'a>(&'a self, tree: &'a RemoteTree, cancel: &'a CancellationToken) -> BoxFuture<'a, Result<CacheKey, Error>>;

    /// Makes the files of `tree` available as a snapshot; it is held by the build's lease.
    fn fetch<'a>(&'a self, tree: &'a RemoteTree, cancel: &'a CancellationToken) -> BoxFuture<'a, Result<Output, Error>>;
}

/// A file that was fetched.
#[derive(Clone, Debug)]
pub struct Download {
    /// The digest of its content.
    pub digest: Digest,
    /// Where its content is.
    pub path: PathBuf,
    /// When the server says that it was changed, in seconds since the epoch.
    pub modified: Option<i64>,
    /// Whether it was here before.
    pub was_here: bool,
}

/// The layers of imported caches.
pub trait CacheLayers: Send + Sync {
    /// Fetches a blob of the cache `cache` (by its number in [`Imports`]) into the store.
    fn fetch<'a>(&'a self, cache: usize, blob: &'a Descriptor) -> BoxFuture<'a, Result<(), CacheFailure>>;
}

/// Why a layer of a cache cannot be had.
#[derive(Debug)]
pub struct CacheFailure {
    /// Why.
    pub source: Box<dyn std::error::Error + Send + Sync>,
    /// Whether there is no use in asking this cache for anything else.
    pub whole_cache: bool,
}

/// The network namespace of a step, and the files that go with it.
pub struct StepNetwork {
    /// The namespace to join; `None` is the host's network.
    pub namespace: Option<OwnedFd>,
    /// The content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The content of `/etc/hosts`.
    pub hosts: String,
    /// Keeps the network alive while the step runs.
    pub guard: Option<Box<dyn Send>>,
}

/// Gives a step its network; the text is the step's host name.
pub type NetworkSource = dyn Fn(crate::graph::NetworkMode, &str) -> Result<StepNetwork, Error> + Send + Sync;

/// Everything that running a build needs.
pub struct Environment {
    /// Where snapshots are.
    pub store: Store,
    /// Where results are looked up.
    pub cache: BuildCache,
    /// Where results of other stores are looked up.
    pub imports: Arc<Imports>,
    /// Where their layers come from.
    pub cache_layers: Arc<dyn CacheLayers>,
    /// Whether the outcome is to tell of every step, for a cache that is exported.
    pub tell_steps: bool,
    /// Whether what became of each step's lookup is told.
    pub explain: bool,
    /// Makes the root file systems of RUN steps.
    pub roots: Roots,
    /// Starts sandboxes.
    pub spawner: Arc<Spawner>,
    /// The build context, where there is one.
    pub context: Option<Arc<LocalContext>>,
    /// The directories of named contexts that steps read.
    pub named_contexts: BTreeMap<String, Arc<LocalContext>>,
    /// What the context and Dockerfile are called, to tell one build's steps from another's.
    pub build_name: String,
    /// What the build's own time does to files.
    pub times: FileTimes,
    /// Remembers checksums of context files.
    pub checksums: Arc<dyn ChecksumMemo>,
    /// Images and downloads.
    pub sources: Arc<dyn Sources>,
    /// Networks.
    pub network: Arc<NetworkSource>,
    /// Secrets, by name.
    pub secrets: BTreeMap<String, Secret<Vec<u8>>>,
    /// What all RUN steps get.
    pub steps: StepSettings,
    /// Where the first RUN step that fails is left, for a shell in its sandbox.
    pub failed: Option<FailedSlot>,
    /// The cache mounts that this build has emptied, for `--no-cache`.
    pub emptied: Mutex<HashSet<[u8; 32]>>,
    /// Done once it has been said what sandboxes lack here.
    pub confinement_told: std::sync::Once,
    /// Where whole logs of steps are kept.
    pub logs: BuildLogs,
    /// Where progress goes.
    pub progress: Progress,
    /// Keeps what the build uses from being pruned.
    pub lease: Arc<Lease>,
    /// Stops the build.
    pub cancel: CancellationToken,
}

impl Environment {
    /// Prepares for another run of the same build: its cache mounts start empty once more.
    pub fn start_over(&self) {
        self.emptied.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The files of the named context `name`, or of the build context.
    pub fn context(&self, name: Option<&str>) -> Option<&Arc<LocalContext>> {
        match name {
            Some(name) => self.named_contexts.get(name),
            None => self.context.as_ref(),
        }
    }
}
