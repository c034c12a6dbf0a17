//! Uploads: existence check, mount from another repository, and a transfer that survives cuts.
//!
//! The way of a transfer (distribution-spec 1.1, "Pushing blobs"):
//!
//! ```text
//! POST uploads/ ──202──> session ──PUT whole──> 201, done
//!                          │   cut ──> GET session: Range ──> PATCH the rest ──> PUT empty ──> 201, done
//!                          │   413, or PUT with content refused ──> PATCH in pieces ──> PUT empty
//!                          └── session unknown, no Range, or PATCH refused ──> begin again with POST, whole
//! ```
//!
//! One PUT with everything is what every registry takes, so it is tried first; pieces are for what has gone wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE};
use url::Url;

use crate::diag::SafeUrl;
use crate::oci::{Algorithm, Digest, Reference};

use super::auth::Scope;
use super::client::Client;
use super::error::{Error, tame};
use super::headers::upload_range;
use super::host::{Host, join_location};
use super::retry::Backoff;
use super::source::BlobSource;
use super::transport::{Call, Collected, Payload, Slice};

const SMALL: u64 = 64 << 10;

/// The pieces for registries (or proxies before them) that refuse large requests.
const PIECE: u64 = 32 << 20;

/// The smallest pieces that are tried.
const SMALLEST_PIECE: u64 = 256 << 10;

/// Blobs from this size on take a registry a while to store.
const LARGE: u64 = 64 << 20;

/// Is told how many more bytes have been sent. Bytes that are sent again after a cut are not told twice. Must not block.
pub type Progress = Arc<dyn Fn(u64) + Send + Sync>;

/// A blob to upload.
#[derive(Clone)]
pub struct BlobUpload {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its bytes.
    pub source: Arc<dyn BlobSource>,
    /// A repository of the same registry that is likely to have it.
    pub mount_from: Option<Reference>,
    /// Who wants to know how far it is.
    pub progress: Option<Progress>,
}

impl std::fmt::Debug for BlobUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = self.mount_from.as_ref().map(Reference::name);
        f.debug_struct("BlobUpload")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .field("mount_from", &from)
            .finish_non_exhaustive()
    }
}

/// How a blob came to be in a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// It was there already.
    Existed,
    /// The registry took it over from another repository.
    Mounted,
    /// It was sent.
    Sent,
}

/// What became of an attempt to mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountOutcome {
    /// The blob is in the repository now.
    Mounted,
    /// The registry wants the bytes.
    Refused,
}

/// An upload that the registry keeps for us.
#[derive(Clone, Debug)]
struct Session {
    url: Url,
    min_chunk: u64,
}

enum Started {
    Mounted,
    Session(Session),
}

/// How the next request sends the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// All in the PUT.
    Whole,
    /// From `offset` on, in pieces of at most `piece` bytes.
    Pieces { offset: u64, piece: u64 },
    /// Nothing is left to do.
    Done,
}

impl Client {
    /// Whether the repository of `reference` has a blob.
    ///
    /// # Errors
    /// The registry cannot be reached or refuses.
    pub async fn blob_exists(&self, reference: &Reference, digest: &Digest) -> Result<bool, Error> {
        self.blob_exists_for(reference, digest, &["pull"]).await
    }

    async fn blob_exists_for(&self, reference: &Reference, digest: &Digest, actions: &[&str]) -> Result<bool, Error> {
        let host = self.host_of(reference);
        let url = self.repository_url(reference, &format!("blobs/{digest}")).await?;
        let scopes = vec![Scope::repository(reference.repository(), actions)];
        match self.collect(&host, &Call::new(Method::HEAD, url, reference.repository(), scopes), SMALL).await {
            Ok(_) => Ok(true),
            // Where it cannot be asked, sending it does no harm.
            Err(error) if error.is_not_found() || matches!(error.status(), Some(405 | 501)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks the registry to take a blob over from the repository of `from` into that of `reference`.
    ///
    /// # Errors
    /// The registry cannot be reached or refuses writing altogether.
    pub async fn mount_blob(&self, reference: &Reference, digest: &Digest, from: &Reference) -> Result<MountOutcome, Error> {
        let sender = self.sender(reference);
        match sender.start(digest, Some(from)).await? {
            Started::Mounted => Ok(MountOutcome::Mounted),
            Started::Session(session) => {
                // The session is of no use; a registry that cannot drop it lets it expire.
                let call = sender.call(Method::DELETE, session.url);
                let _ = self.collect_once(&sender.host, &call, SMALL).await;
                Ok(MountOutcome::Refused)
            }
        }
    }

    /// Sees to it that the repository of `reference` has a blob: asks for it, then tries to mount it, then sends it.
    ///
    /// # Errors
    /// As [`Client::upload_blob`].
    pub async fn ensure_blob(&self, reference: &Reference, upload: &BlobUpload) -> Result<Uploaded, Error> {
        if self.blob_exists_for(reference, &upload.digest, &["pull", "push"]).await? {
            return Ok(Uploaded::Existed);
        }
        self.send_blob(reference, upload).await
    }

    /// Sends a blob (or mounts it, where [`BlobUpload::mount_from`] is given and the registry agrees) without asking whether it is there. Waits while
    /// the registry's limit of blobs is reached.
    ///
    /// # Errors
    /// The source cannot be read or has another size, or the registry cannot be reached or refuses.
    pub async fn upload_blob(&self, reference: &Reference, upload: &BlobUpload) -> Result<Uploaded, Error> {
        self.send_blob(reference, upload).await
    }

    async fn send_blob(&self, reference: &Reference, upload: &BlobUpload) -> Result<Uploaded, Error> {
        let sender = self.sender(reference);
        let _permit = sender.host.permits.clone().acquire_owned().await.ok();
        let from = upload.mount_from.as_ref().filter(|from| from.registry() == reference.registry());
        let from = from.filter(|from| from.repository() != reference.repository());
        match sender.start(&upload.digest, from).await? {
            Started::Mounted => Ok(Uploaded::Mounted),
            Started::Session(session) => {
                let high = Arc::new(AtomicU64::new(0));
                let backoff = Backoff::new(self.retry);
                let mut transfer = Transfer { sender, upload, session, mode: Mode::Whole, whole_only: false, high, backoff };
                transfer.run().await.map(|()| Uploaded::Sent)
            }
        }
    }

    fn sender(&self, reference: &Reference) -> Sender {
        Sender { client: self.clone(), host: self.host_of(reference), reference: reference.clone() }
    }
}

/// Uploads into one repository.
struct Sender {
    client: Client,
    host: Arc<Host>,
    reference: Reference,
}

impl Sender {
    fn scopes(&self) -> Vec<Scope> {
        vec![Scope::repository(self.reference.repository(), &["pull", "push"])]
    }

    fn call(&self, method: Method, url: Url) -> Call {
        Call::new(method, url, self.reference.repository(), self.scopes())
    }

    /// Opens a session, or mounts.
    async fn start(&self, digest: &Digest, mount_from: Option<&Reference>) -> Result<Started, Error> {
        let url = self.client.repository_url(&self.reference, "blobs/uploads/").await?;
        if let Some(from) = mount_from {
            let mut url = url.clone();
            url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from.repository());
            let mut call = self.call(Method::POST, url);
            call.scopes.push(Scope::repository(from.repository(), &["pull"]));
            match self.client.collect(&self.host, &call, SMALL).await {
                Ok(answer) if answer.status == reqwest::StatusCode::CREATED => return Ok(Started::Mounted),
                Ok(answer) => return self.session(&answer, None).await.map(Started::Session),
                // We may not read the other repository, or the registry cannot mount: then the bytes are sent.
                Err(error) if matches!(error.status(), Some(400..=428)) => {}
                Err(error) => return Err(error),
            }
        }
        self.open(url, digest).await.map(Started::Session)
    }

    async fn open(&self, mut url: Url, digest: &Digest) -> Result<Session, Error> {
        if digest.algorithm() != Algorithm::Sha256 {
            url.query_pairs_mut().append_pair("digest-algorithm", digest.algorithm().name());
        }
        let answer = self.client.collect(&self.host, &self.call(Method::POST, url), SMALL).await?;
        self.session(&answer, None).await
    }

    /// The session as an answer describes it; without a `Location` it stays where it was.
    async fn session(&self, answer: &Collected, before: Option<&Session>) -> Result<Session, Error> {
        let base = self.client.base(&self.host).await?;
        let min_chunk = answer.header("oci-chunk-min-length").and_then(|length| length.trim().parse().ok());
        let min_chunk = min_chunk.or(before.map(|session| session.min_chunk)).unwrap_or(0);
        let bad = |value: &str| Error::BadAnswer {
            url: answer.safe_url(),
            what: "an upload location",
            value: SafeUrl::new(&tame(value, 200)).to_string(),
        };
        match (answer.header(LOCATION.as_str()), before) {
            (Some(location), _) => {
                let url = join_location(&answer.url, &base, location).ok_or_else(|| bad(location))?;
                Ok(Session { url, min_chunk })
            }
            (None, Some(before)) => Ok(Session { url: before.url.clone(), min_chunk }),
            (None, None) => Err(bad("")),
        }
    }
}

/// One blob on its way.
struct Transfer<'a> {
    sender: Sender,
    upload: &'a BlobUpload,
    session: Session,
    mode: Mode,
    /// The registry has refused a piece.
    whole_only: bool,
    /// How far any request has got, for the progress.
    high: Arc<AtomicU64>,
    backoff: Backoff,
}

impl Transfer<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        loop {
            let result = match self.mode {
                Mode::Whole => self.commit(0).await,
                Mode::Pieces { offset, .. } if offset >= self.upload.size => self.commit(offset).await,
                Mode::Pieces { offset, piece } => self.send_piece(offset, piece).await,
                Mode::Done => return Ok(()),
            };
            match result {
                Ok(mode) => self.mode = mode,
                Err(error) => self.mode = self.recover(error).await?,
            }
        }
    }

    /// PUT: the rest from `offset`, and the digest.
    async fn commit(&self, offset: u64) -> Result<Mode, Error> {
        let mut url = self.session.url.clone();
        url.query_pairs_mut().append_pair("digest", &self.upload.digest.to_string());
        let mut call = self.sender.call(Method::PUT, url);
        self.fill(&mut call, offset, self.upload.size - offset);
        // The registry hashes and moves the blob before it answers.
        call.patience = if self.upload.size < LARGE { 2 } else { 10 };
        let answer = self.sender.client.collect_once(&self.sender.host, &call, SMALL).await?;
        match answer.header("docker-content-digest").and_then(|stated| stated.parse::<Digest>().ok()) {
            Some(stored) if stored.algorithm() == self.upload.digest.algorithm() && stored != self.upload.digest => {
                Err(Error::StoredOther { url: answer.safe_url(), expected: self.upload.digest.clone(), actual: stored.to_string() })
            }
            _ => Ok(Mode::Done),
        }
    }

    /// PATCH: one piece from `offset`.
    async fn send_piece(&mut self, offset: u64, piece: u64) -> Result<Mode, Error> {
        let length = (self.upload.size - offset).min(piece.max(self.session.min_chunk));
        let mut call = self.sender.call(Method::PATCH, self.session.url.clone());
        let range = format!("{offset}-{}", offset + length - 1);
        call.headers.insert(HeaderName::from_static("content-range"), HeaderValue::from_str(&range).expect("digits are a header's value"));
        self.fill(&mut call, offset, length);
        call.patience = 5;
        let answer = self.sender.client.collect_once(&self.sender.host, &call, SMALL).await?;
        self.session = self.sender.session(&answer, Some(&self.session)).await?;
        let reached = answer.header(RANGE.as_str()).and_then(upload_range).unwrap_or(offset + length);
        if reached <= offset || reached > self.upload.size {
            let value = format!("{reached} bytes, after {offset} and {length} more");
            self.backoff.pause_anyway(Error::BadAnswer { url: answer.safe_url(), what: "an upload range", value }).await?;
            return self.begin_again(true).await;
        }
        self.backoff.advanced(reached - offset);
        Ok(Mode::Pieces { offset: reached, piece })
    }

    fn fill(&self, call: &mut Call, offset: u64, length: u64) {
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if length == 0 {
            return;
        }
        let (high, progress) = (self.high.clone(), self.upload.progress.clone());
        let sent_to = Arc::new(move |end: u64| {
            let before = high.fetch_max(end, Ordering::Relaxed);
            if let Some(progress) = &progress
                && end > before
            {
                progress(end - before);
            }
        });
        let (digest, source) = (self.upload.digest.clone(), self.upload.source.clone());
        call.payload = Payload::Source(Slice { digest, source, offset, length, sent_to });
    }

    /// Finds the way on after a failure, or gives the error back.
    async fn recover(&mut self, error: Error) -> Result<Mode, Error> {
        let in_pieces = matches!(self.mode, Mode::Pieces { .. });
        let status = error.status();
        match status {
            Some(400 | 405 | 411 | 413 | 415 | 501) if !in_pieces && !self.whole_only && !blames_blob(&error) => {
                self.backoff.pause_anyway(error).await?;
                self.begin_again(false).await?;
                let piece = if status == Some(413) { PIECE.min(self.upload.size / 2) } else { PIECE };
                return Ok(Mode::Pieces { offset: 0, piece: piece.max(SMALLEST_PIECE) });
            }
            Some(413) if self.piece().is_some_and(|piece| piece > SMALLEST_PIECE) => {
                self.smaller_pieces();
                self.backoff.pause_anyway(error).await?;
            }
            Some(416) if in_pieces => self.backoff.pause_anyway(error).await?,
            // It knows no pieces, or has put them together wrongly.
            Some(400 | 404 | 405 | 409 | 411 | 415 | 422 | 501) if in_pieces && !self.whole_only => {
                self.backoff.pause_anyway(error).await?;
                return self.begin_again(true).await;
            }
            // The session has expired, or another server of a farm does not know it.
            Some(404) => {
                self.backoff.pause_anyway(error).await?;
                return self.begin_again(self.whole_only).await;
            }
            _ => self.backoff.pause(error).await?,
        }
        self.look_at_session(in_pieces).await
    }

    /// Asks how much the registry has kept, and goes on from there.
    async fn look_at_session(&mut self, in_pieces: bool) -> Result<Mode, Error> {
        let all_left = self.high.load(Ordering::Relaxed) >= self.upload.size;
        if all_left
            && self.sender.client.blob_exists_for(&self.sender.reference, &self.upload.digest, &["pull", "push"]).await.unwrap_or(false)
        {
            // Only the answer was lost.
            return Ok(Mode::Done);
        }
        if self.whole_only {
            return self.begin_again(true).await;
        }
        let call = self.sender.call(Method::GET, self.session.url.clone());
        let Ok(answer) = self.sender.client.collect_once(&self.sender.host, &call, SMALL).await else {
            return self.begin_again(false).await;
        };
        let kept = answer.header(RANGE.as_str()).and_then(upload_range).unwrap_or(0);
        // `0-0` is one byte, or none: registries differ. So few are sent again.
        if kept <= 1 || kept > self.upload.size {
            let mode = self.begin_again(false).await?;
            return Ok(self.piece().map_or(mode, |piece| Mode::Pieces { offset: 0, piece }));
        }
        self.session = self.sender.session(&answer, Some(&self.session)).await?;
        let piece = match self.mode {
            Mode::Pieces { piece, .. } if in_pieces => piece,
            _ => u64::MAX,
        };
        Ok(Mode::Pieces { offset: kept, piece })
    }

    /// How large pieces are, where the blob goes in pieces.
    fn piece(&self) -> Option<u64> {
        match self.mode {
            Mode::Pieces { offset, piece } => Some(piece.min(self.upload.size - offset)),
            Mode::Whole | Mode::Done => None,
        }
    }

    fn smaller_pieces(&mut self) {
        if let (Some(now), Mode::Pieces { piece, .. }) = (self.piece(), &mut self.mode) {
            *piece = (now / 4).max(SMALLEST_PIECE);
        }
    }

    async fn begin_again(&mut self, whole_only: bool) -> Result<Mode, Error> {
        let url = self.sender.client.repository_url(&self.sender.reference, "blobs/uploads/").await?;
        self.session = self.sender.open(url, &self.upload.digest).await?;
        self.whole_only = whole_only;
        Ok(Mode::Whole)
    }
}

/// Whether a registry says that the bytes are wrong, rather than the way in which they came.
fn blames_blob(error: &Error) -> bool {
    ["DIGEST_INVALID", "SIZE_INVALID", "UNSUPPORTED_DIGEST"].iter().any(|code| error.has_code(code))
}
