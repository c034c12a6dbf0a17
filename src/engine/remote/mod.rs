//! What a build reads from elsewhere: git repositories, archives and files from web servers.
//!
//! Each address is asked once in a build, so that all its steps see one state of it. What it is *now* (a commit, a digest) decides the cache key; the files
//! themselves become a snapshot under that key, made by one build at a time, which later builds find without asking for more than the commit or the digest.

mod git;
mod git_command;
mod git_error;
mod http;
mod http_error;
mod input;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::cache::key::{git_key, remote_context_key};
use crate::cache::{BuildCache, CacheKey, Output};
use crate::diag::SafeUrl;
use crate::executor::{Download, Error as BuildError, SshAgent, ops};
use crate::graph::{GitSource, RemoteTree};
use crate::oci::Digest;
use crate::progress::{Progress, StepProgress};
use crate::registry::Client;
use crate::store::{Lease, Resource, SnapshotId, SnapshotMeta, Store};
use crate::task::{CancellationToken, blocking};

use git::{GitAccess, Resolved, Secrets};
use git_error::GitError;
use http::Web;

use super::{Engine, EngineOptions, Error};

/// How long to wait before looking again whether another build has fetched what is wanted.
const PAUSE: Duration = Duration::from_millis(20);

/// What one build reads from elsewhere.
pub(super) struct Remotes {
    store: Store,
    cache: BuildCache,
    lease: Option<Arc<Lease>>,
    client: Box<dyn Fn() -> Result<Client, Error> + Send + Sync>,
    access: Arc<GitAccess>,
    secrets: Arc<Secrets>,
    progress: Progress,
    known: Mutex<HashMap<RemoteTree, Arc<OnceCell<Identified>>>>,
}

/// What an address means in this build.
#[derive(Clone)]
enum Identified {
    /// A commit.
    Git(GitSource, Resolved),
    /// A file, which is here, and what it is called in messages.
    File(String, Download),
}

impl Identified {
    /// The key under which its files are kept.
    fn key(&self) -> CacheKey {
        match self {
            Identified::Git(source, resolved) => git_key(source, resolved.identity(source), resolved.reference.as_deref()),
            Identified::File(_, file) => remote_context_key(&file.digest),
        }
    }
}

/// The ID of `--ssh` whose agent git may ask, as in BuildKit.
pub(super) const GIT_AGENT: &str = "default";

impl Engine {
    /// The remote files of a build. Without a `lease`, nothing can be fetched.
    pub(super) fn remotes(&self, lease: Option<Arc<Lease>>, secrets: Secrets, ssh_agent: Option<SshAgent>, progress: &Progress) -> Remotes {
        let (options, made) = (self.options.clone(), self.client.clone());
        Remotes {
            store: self.store.clone(),
            cache: BuildCache::new(self.store.clone()),
            lease,
            client: Box::new(move || super::client_of(&options, &made)),
            access: Arc::new(access(&self.options, ssh_agent)),
            secrets: Arc::new(secrets),
            progress: progress.clone(),
            known: Mutex::default(),
        }
    }
}

fn access(options: &EngineOptions, ssh_agent: Option<SshAgent>) -> GitAccess {
    GitAccess { programs: options.credentials.helper_dirs.clone(), proxies: options.client.proxies.clone(), ssh_agent }
}

impl Remotes {
    /// The file at `url`.
    pub(super) async fn download(&self, url: &str, checksum: Option<&Digest>, progress: &StepProgress) -> Result<Download, BuildError> {
        let client = (self.client)().map_err(|error| {
            let hint = error.hint();
            BuildError::Source { what: format!("`{}`", SafeUrl::new(url)), step: None, source: Box::new(error), hint }
        })?;
        let web = Web { store: &self.store, lease: self.lease.as_ref(), client, secrets: &self.secrets };
        web.download(url, checksum, progress).await.map_err(|error| {
            let hint = error.hint();
            BuildError::Source { what: format!("`{}`", SafeUrl::new(url)), step: None, source: Box::new(error), hint }
        })
    }

    /// The key under which the files of `tree` are kept.
    pub(super) async fn identify(&self, tree: &RemoteTree, cancel: &CancellationToken) -> Result<CacheKey, BuildError> {
        Ok(self.identified(tree, cancel).await?.key())
    }

    async fn identified(&self, tree: &RemoteTree, cancel: &CancellationToken) -> Result<Identified, BuildError> {
        let cell = self.known.lock().unwrap_or_else(PoisonError::into_inner).entry(tree.clone()).or_default().clone();
        cell.get_or_try_init(|| self.ask(tree, cancel)).await.cloned()
    }

    /// Asks the server.
    async fn ask(&self, tree: &RemoteTree, cancel: &CancellationToken) -> Result<Identified, BuildError> {
        let step = self.progress.start(format!("[internal] resolve {tree}"), None);
        let found = match tree {
            RemoteTree::Git(source) => {
                let (store, access, secrets) = (self.store.clone(), self.access.clone(), self.secrets.clone());
                let (asked, cancel, shown) = (source.clone(), cancel.clone(), git::shown(source));
                let found = blocking(move || git::resolve(&store, &access, &secrets, &asked, &cancel)).await;
                found.map(|resolved| Identified::Git(source.clone(), resolved)).map_err(|error| failed(shown, error))
            }
            RemoteTree::Http { url } => {
                self.download(url, None, &step).await.map(|file| Identified::File(SafeUrl::new(url).to_string(), file))
            }
        };
        step.finish(if found.is_ok() { crate::progress::StepOutcome::Done } else { crate::progress::StepOutcome::Failed });
        found
    }

    /// The files of `tree`: from the store, or fetched now.
    pub(super) async fn fetch(&self, tree: &RemoteTree, cancel: &CancellationToken) -> Result<Output, BuildError> {
        let identified = self.identified(tree, cancel).await?;
        let key = identified.key();
        loop {
            if let Some(output) = self.held(&key)? {
                return Ok(output);
            }
            if cancel.is_cancelled() {
                return Err(BuildError::Cancelled);
            }
            let Some(lock) = self.store.try_lock_key(&key.0)? else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            // Whoever had the lock may just have made it.
            if let Some(output) = self.held(&key)? {
                return Ok(output);
            }
            let snapshot = self.make(identified, cancel).await?;
            let output = Output { key, snapshots: vec![snapshot] };
            self.cache.put(&[key], &output)?;
            drop(lock);
            return Ok(output);
        }
    }

    /// What is kept under `key`, with a lease on it.
    fn held(&self, key: &CacheKey) -> Result<Option<Output>, BuildError> {
        let Some(output) = self.cache.get(key) else { return Ok(None) };
        let resources: Vec<Resource> = output.snapshots.iter().map(|id| Resource::Snapshot(*id)).collect();
        let present = match &self.lease {
            Some(lease) => lease.add_all(&resources)?.into_iter().all(|present| present),
            None => true,
        };
        Ok(present.then_some(output))
    }

    async fn make(&self, identified: Identified, cancel: &CancellationToken) -> Result<SnapshotId, BuildError> {
        let (store, access, secrets, cancel) = (self.store.clone(), self.access.clone(), self.secrets.clone(), cancel.clone());
        match identified {
            Identified::Git(source, resolved) => {
                let shown = git::shown(&source);
                let made = blocking(move || git::checkout(&store, &access, &secrets, &source, &resolved, &cancel)).await;
                made.map_err(|error| failed(shown, error))
            }
            Identified::File(what, file) => blocking(move || unpack(&store, &what, &file)).await,
        }
    }
}

fn failed(what: String, error: GitError) -> BuildError {
    match error {
        GitError::Cancelled => BuildError::Cancelled,
        error => {
            let hint = error.hint();
            BuildError::Source { what, step: None, source: Box::new(error), hint }
        }
    }
}

/// The files of an archive; what is none becomes the one file `context`.
fn unpack(store: &Store, what: &str, file: &Download) -> Result<SnapshotId, BuildError> {
    let below = ops::view(store, &[])?;
    let snapshot = store.prepare()?;
    let source = ops::CopySource::HostFile {
        path: file.path.clone(),
        name: "context".to_owned(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Some((file.modified.unwrap_or(0), 0)),
    };
    let max_unpacked = store.layer_limit();
    let request = ops::CopyRequest { unpack: ops::Unpack::Always, max_unpacked, ..ops::CopyRequest::fill(source) };
    let failed = |error: ops::Error| {
        let hint = error.hint();
        BuildError::Source { what: format!("`{what}`"), step: None, source: Box::new(error), hint }
    };
    let copied = ops::copy(&below, &snapshot.fs_path(), &request).map_err(failed)?;
    let meta = SnapshotMeta { diff_id: None, size: copied.bytes, description: format!("files of {what}") };
    Ok(snapshot.commit(meta)?.id)
}
