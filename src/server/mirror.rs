//! A pull-through cache: what is asked for and not there is fetched from another registry, kept, and served from then on.
//!
//! A tag is looked up at the upstream each time (`HEAD`), since it may move; what has a digest never changes and is asked for once. While the upstream cannot be reached, what
//! is there is served. A blob goes to the clients while it still arrives: one download for all who want it, whoever of them stays. Its last byte is held back until its
//! digest was checked, so nobody ever gets a whole blob that is wrong.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::oci::{Descriptor, Digest, MediaType, Reference};
use crate::registry::{BlobStream, Client};
use crate::task::blocking;

use super::Error;
use super::api::manifests;
use super::body::Pieces;
use super::reply::Refusal;
use super::route::Target;
use super::storage::{Blob, Page, Storage, StoredManifest, Upload, cut};

/// How long an upstream that cannot be reached is not asked again for what is here.
const REST: Duration = Duration::from_secs(10);

/// How long to ask the upstream about a tag that is here.
const PATIENCE: Duration = Duration::from_secs(15);

/// What is read or written at once.
const PIECE: usize = 256 << 10;

/// A registry that stands for another.
pub(super) struct Mirror {
    client: Client,
    /// The host, and perhaps the beginning of the repositories' names: `ghcr.io/acme/`.
    upstream: String,
    storage: Arc<Storage>,
    flights: Mutex<HashMap<(String, Digest), Arc<Flight>>>,
    tasks: Mutex<JoinSet<()>>,
    /// Until when the upstream is left alone.
    resting: Mutex<Option<Instant>>,
}

/// A blob, or what is known of it.
pub(super) enum Found {
    /// Its size, for those who only ask.
    Size(u64),
    /// All of it.
    Blob(Blob),
    /// It is on its way.
    Arriving(Arriving),
}

impl Found {
    /// The size of the whole blob.
    pub(super) fn size(&self) -> u64 {
        match self {
            Found::Size(size) => *size,
            Found::Blob(blob) => blob.size,
            Found::Arriving(arriving) => arriving.0.size,
        }
    }
}

/// How far a download is.
#[derive(Clone, Debug)]
enum Progress {
    /// The upstream is being asked.
    Asking,
    /// So many bytes may be read.
    Bytes(u64),
    /// Everything may be read.
    Done,
    /// It is over: the upstream has no such blob.
    Missing,
    /// It is over, and why.
    Failed(String),
}

/// A download, for all who want its blob.
struct Flight {
    size: u64,
    progress: watch::Sender<Progress>,
    file: OnceLock<File>,
}

/// A blob that is arriving.
pub(super) struct Arriving(Arc<Flight>);

impl Arriving {
    /// Its bytes from `start` up to `end`, as they come.
    pub(super) fn read(self, start: u64, end: u64) -> Pieces {
        let progress = self.0.progress.subscribe();
        Box::pin(futures_util::stream::unfold(Some((self.0, progress, start)), move |state| async move {
            let (flight, mut progress, position) = state?;
            match next_piece(&flight, &mut progress, position, end).await {
                Ok(bytes) if bytes.is_empty() => None,
                Ok(bytes) => {
                    let position = position + bytes.len() as u64;
                    Some((Ok(bytes), Some((flight, progress, position))))
                }
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

async fn next_piece(flight: &Arc<Flight>, progress: &mut watch::Receiver<Progress>, position: u64, end: u64) -> io::Result<Bytes> {
    if position >= end {
        return Ok(Bytes::new());
    }
    let readable = loop {
        let now = progress.borrow_and_update().clone();
        match now {
            Progress::Bytes(length) if length > position => break length,
            Progress::Done => break flight.size,
            Progress::Missing | Progress::Failed(_) => return Err(io::Error::other("the upstream registry did not send the whole blob")),
            Progress::Asking | Progress::Bytes(_) => progress.changed().await.map_err(io::Error::other)?,
        }
    };
    let wanted = usize::try_from(readable.min(end) - position).unwrap_or(PIECE).min(PIECE);
    let flight = flight.clone();
    blocking(move || {
        let file = flight.file.get().ok_or(io::ErrorKind::NotFound)?;
        let mut buffer = vec![0; wanted];
        file.read_exact_at(&mut buffer, position)?;
        Ok(Bytes::from(buffer))
    })
    .await
}

impl Mirror {
    /// A mirror of `upstream` (`HOST` or `HOST/PREFIX`), which keeps what it fetches in `storage`.
    pub(super) fn new(client: Client, upstream: &str, storage: Arc<Storage>) -> Result<Mirror, Error> {
        let upstream = upstream.trim_end_matches('/').to_owned();
        let mirror = Mirror { client, upstream, storage, flights: Mutex::default(), tasks: Mutex::default(), resting: Mutex::default() };
        let upstream = || mirror.upstream.clone();
        // Only a name that has a host in it is somewhere else than at Docker Hub.
        let host = mirror.upstream.split('/').next().unwrap_or_default();
        match format!("{}/probe", mirror.upstream).parse::<Reference>() {
            Ok(reference) if reference.registry() == host || matches!(host, "index.docker.io" | "registry-1.docker.io") => Ok(mirror),
            _ => Err(Error::Upstream { upstream: upstream() }),
        }
    }

    /// The registry that this one stands for.
    pub(super) fn upstream(&self) -> &str {
        &self.upstream
    }

    /// Ends downloads that nobody waits for any more.
    pub(super) fn stop(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
    }

    /// A manifest, from here or from there.
    pub(super) async fn manifest(&self, name: &str, target: &Target) -> Result<Option<StoredManifest>, Refusal> {
        let (repository, wanted) = (name.to_owned(), target.clone());
        let kept = self.with_storage(move |storage| manifests::find(storage, &repository, &wanted)).await?;
        let Ok(reference) = self.reference(name, target) else { return Ok(None) };
        let Some(kept) = kept else { return self.fetch_manifest(name, target, &reference).await };
        if matches!(target, Target::Digest(_)) || self.is_resting() {
            return Ok(Some(kept));
        }
        match tokio::time::timeout(PATIENCE, self.client.resolve(&reference)).await {
            Ok(Ok(now)) if now.digest == kept.digest => Ok(Some(kept)),
            Ok(Ok(_)) => match self.fetch_manifest(name, target, &reference).await {
                // It went down in between.
                Err(_) if self.is_resting() => Ok(Some(kept)),
                outcome => outcome,
            },
            Ok(Err(error)) if error.is_not_found() => {
                let (repository, tag) = (name.to_owned(), target.to_string());
                self.with_storage(move |storage| storage.delete_tag(&repository, &tag)).await?;
                Ok(None)
            }
            Ok(Err(error)) if !is_down(&error) => Err(self.refusal(&error)),
            Ok(Err(_)) | Err(_) => {
                self.rest();
                Ok(Some(kept))
            }
        }
    }

    async fn fetch_manifest(&self, name: &str, target: &Target, reference: &Reference) -> Result<Option<StoredManifest>, Refusal> {
        let fetched = match self.client.fetch_manifest(reference).await {
            Ok(fetched) => fetched,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => {
                if is_down(&error) {
                    self.rest();
                }
                return Err(self.refusal(&error));
            }
        };
        let kind = fetched.media_type.to_string();
        let bytes = fetched.bytes.to_vec();
        let mut manifest = manifests::read(fetched.digest, bytes, Some(&kind)).map_err(|reason| self.bad_gateway(&reason.to_string()))?;
        let stored =
            StoredManifest { digest: manifest.digest.clone(), media_type: manifest.media_type.clone(), bytes: manifest.bytes.clone() };
        // Its blobs come when somebody wants them.
        manifest.required.clear();
        let tags = match target {
            Target::Tag(tag) => vec![tag.clone()],
            Target::Digest(_) => Vec::new(),
        };
        let name = name.to_owned();
        self.with_storage(move |storage| storage.put_manifest(&name, &manifest, &tags)).await?;
        Ok(Some(stored))
    }

    /// The size of a blob, from here or from there.
    pub(super) async fn blob_size(&self, name: &str, digest: &Digest) -> Result<Option<u64>, Refusal> {
        let (repository, wanted) = (name.to_owned(), digest.clone());
        let known = self
            .with_storage(move |storage| match storage.rely_on_blob(&repository, &wanted)? {
                Some(size) => Ok(Some(size)),
                None => storage.named_size(&repository, &wanted),
            })
            .await?;
        match known {
            Some(size) => Ok(Some(size)),
            None => {
                let reference = self.reference(name, &Target::Digest(digest.clone()))?;
                self.client.blob_size(&reference, digest).await.map_err(|error| self.refusal(&error))
            }
        }
    }

    /// A blob, from here or, while it arrives, from there.
    pub(super) async fn blob(self: &Arc<Self>, name: &str, digest: &Digest) -> Result<Option<Found>, Refusal> {
        let (repository, wanted) = (name.to_owned(), digest.clone());
        if let Some(blob) = self.with_storage(move |storage| storage.blob(&repository, &wanted)).await? {
            return Ok(Some(Found::Blob(blob)));
        }
        let Some(size) = self.blob_size(name, digest).await? else { return Ok(None) };
        let flight = self.join(name, digest, size)?;
        let mut progress = flight.progress.subscribe();
        loop {
            let now = progress.borrow_and_update().clone();
            match now {
                Progress::Asking => {
                    if progress.changed().await.is_err() {
                        return Err(self.bad_gateway("the download was given up"));
                    }
                }
                Progress::Bytes(_) | Progress::Done => return Ok(Some(Found::Arriving(Arriving(flight)))),
                Progress::Missing => return Ok(None),
                Progress::Failed(reason) => return Err(self.bad_gateway(&reason)),
            }
        }
    }

    /// The download of a blob; it begins now if it is not under way.
    fn join(self: &Arc<Self>, name: &str, digest: &Digest, size: u64) -> Result<Arc<Flight>, Refusal> {
        let key = (name.to_owned(), digest.clone());
        let reference = self.reference(name, &Target::Digest(digest.clone()))?;
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(&key) {
            return Ok(flight.clone());
        }
        let flight = Arc::new(Flight { size, progress: watch::Sender::new(Progress::Asking), file: OnceLock::new() });
        flights.insert(key.clone(), flight.clone());
        let (mirror, landing) = (self.clone(), flight.clone());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(async move {
            // Forgotten also if this task is given up.
            let _leave = Leave { mirror: mirror.clone(), key };
            let end = match mirror.download(&landing, &reference, &_leave.key).await {
                Ok(end) => end,
                Err(reason) => Progress::Failed(reason),
            };
            landing.progress.send_replace(end);
        });
        Ok(flight)
    }

    async fn download(&self, flight: &Flight, reference: &Reference, key: &(String, Digest)) -> Result<Progress, String> {
        let (name, digest) = key.clone();
        let blob = Descriptor::new(MediaType::Other("application/octet-stream".into()), digest.clone(), flight.size);
        let stream = match self.client.fetch_blob(reference, &blob).await {
            Ok(stream) => stream,
            Err(error) if error.is_not_found() => return Ok(Progress::Missing),
            Err(error) => return Err(error.to_string()),
        };
        let algorithm = digest.algorithm();
        let upload = self.with_storage(move |storage| storage.begin_upload(&name, algorithm)).await.map_err(|error| error.to_string())?;
        let (upload, outcome) = receive(flight, stream, upload).await;
        if let Err(reason) = outcome {
            self.with_storage(move |storage| storage.cancel_upload(*upload)).await.map_err(|error| format!("{reason}; {error}"))?;
            return Err(reason);
        }
        match self.with_storage(move |storage| storage.commit_upload(*upload, &digest)).await {
            Ok(None) => Ok(Progress::Done),
            Ok(Some(actual)) => Err(format!("the blob has the digest {actual}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The tags, from there or, while that cannot be reached, from here.
    pub(super) async fn tags(&self, name: &str, page: &Page) -> Result<Option<(Vec<String>, bool)>, Refusal> {
        let reference = self.reference(name, &Target::Tag("latest".into()))?;
        if !self.is_resting() {
            match self.client.tags(&reference).await {
                Ok(mut tags) => {
                    let key = |tag: &str| (tag.to_ascii_lowercase(), tag.to_owned());
                    let after = page.after.as_deref().map(key);
                    tags.retain(|tag| after.as_ref().is_none_or(|after| key(tag) > *after));
                    tags.sort_by_key(|tag| key(tag));
                    return Ok(Some(cut(tags, page)));
                }
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) if !is_down(&error) => return Err(self.refusal(&error)),
                Err(_) => self.rest(),
            }
        }
        let (name, page) = (name.to_owned(), page.clone());
        Ok(self.with_storage(move |storage| storage.tags(&name, &page)).await?)
    }

    /// The referrers after the digest `after`, from there alone: what is here may not be all of them, and a signature that is missed is no small thing.
    pub(super) async fn referrers(
        &self,
        name: &str,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: Option<&str>,
    ) -> Result<Vec<Descriptor>, Refusal> {
        let reference = self.reference(name, &Target::Digest(subject.clone()))?;
        let mut found = self.client.referrers(&reference, subject, artifact_type).await.map_err(|error| self.refusal(&error))?;
        found.retain(|descriptor| after.is_none_or(|after| descriptor.digest.to_string().as_str() > after));
        found.sort_by_key(|descriptor| descriptor.digest.to_string());
        Ok(found)
    }

    /// What the upstream calls it.
    fn reference(&self, name: &str, target: &Target) -> Result<Reference, Refusal> {
        let separator = if matches!(target, Target::Tag(_)) { ':' } else { '@' };
        format!("{}/{name}{separator}{target}", self.upstream).parse().map_err(|_| Refusal::bad_name(name))
    }

    async fn with_storage<T: Send + 'static>(&self, work: impl FnOnce(&Storage) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let storage = self.storage.clone();
        blocking(move || work(&storage)).await
    }

    fn is_resting(&self) -> bool {
        self.resting.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    fn rest(&self) {
        *self.resting.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
    }

    /// What a client hears when the upstream refuses or fails.
    fn refusal(&self, error: &crate::registry::Error) -> Refusal {
        match error.status() {
            Some(401 | 403) => Refusal::new(StatusCode::FORBIDDEN, "DENIED", format!("{} denies this: {error}", self.upstream)),
            Some(429) => Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TOOMANYREQUESTS", error.to_string()),
            _ => self.bad_gateway(&error.to_string()),
        }
    }

    fn bad_gateway(&self, reason: &str) -> Refusal {
        Refusal::new(StatusCode::BAD_GATEWAY, "UNKNOWN", format!("cannot get this from {}: {reason}", self.upstream))
    }
}

/// Whether this says more about the upstream, or the way to it, than about what was asked for.
fn is_down(error: &crate::registry::Error) -> bool {
    error.is_retryable() || matches!(error.status(), Some(500..))
}

/// Takes a download off the list when its task ends.
struct Leave {
    mirror: Arc<Mirror>,
    key: (String, Digest),
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.mirror.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Writes what arrives, and tells readers how far they may read: never to the end, which is for whoever checks the digest.
async fn receive(flight: &Flight, mut stream: BlobStream, upload: Box<Upload>) -> (Box<Upload>, Result<(), String>) {
    let mut upload = upload;
    match upload.reader() {
        Ok(file) => _ = flight.file.set(file),
        Err(error) => return (upload, Err(error.to_string())),
    }
    flight.progress.send_replace(Progress::Bytes(0));
    let mut gathered: Vec<u8> = Vec::with_capacity(PIECE);
    loop {
        let end = match stream.next_chunk().await {
            Ok(Some(bytes)) => {
                gathered.extend_from_slice(&bytes);
                false
            }
            Ok(None) => true,
            Err(error) => return (upload, Err(error.to_string())),
        };
        if end || gathered.len() >= PIECE {
            let written;
            (upload, gathered, written) = blocking(move || {
                let written = upload.write(&gathered).map_err(|error| error.to_string());
                gathered.clear();
                (upload, gathered, written)
            })
            .await;
            if let Err(reason) = written {
                return (upload, Err(reason));
            }
            flight.progress.send_replace(Progress::Bytes(upload.length().min(flight.size.saturating_sub(1))));
        }
        if end {
            return (upload, Ok(()));
        }
    }
}
