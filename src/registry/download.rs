//! Downloads: a blob as a stream that survives cuts and ends only if every byte was right.
//!
//! After a cut the rest is asked for by range, from the registry anew (a signed URL that it redirected to may have expired). A server that ignores
//! ranges sends all of it again, and what we have is skipped. The digest is computed over what was handed out, across all connections and, with
//! [`Client::resume_blob`], across processes.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::Stream;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use url::Url;

use crate::diag::SafeUrl;
use crate::oci::{Descriptor, Digest, Hasher, Reference};

use super::auth::Scope;
use super::client::Client;
use super::credentials::Credentials;
use super::error::{Error, tame};
use super::headers::content_range;
use super::host::{Host, Scheme, scheme_of};
use super::options::ClientOptions;
use super::retry::Backoff;
use super::transport::{Call, Reply, SLOW, SLOW_BYTES};

/// How long to wait for bytes that should not come.
const EXTRA_WAIT: Duration = Duration::from_millis(200);

/// How fast bytes come while somebody waits for them.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Notes that `bytes` came after `waited`; says whether less than [`SLOW_BYTES`] came in the last `window` of waiting.
    fn too_slow(&mut self, waited: Duration, bytes: usize, window: Duration) -> bool {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.waited < window {
            return false;
        }
        let slow = self.bytes < SLOW_BYTES;
        *self = Pace::default();
        slow
    }
}

/// A blob that is arriving. The bytes are right if, and only if, the stream ends with `Ok(None)`.
///
/// While it is connected it counts against the limit of its registry, so do not hold many open without reading them.
pub struct BlobStream {
    client: Client,
    host: Arc<Host>,
    call: Call,
    digest: Digest,
    size: u64,
    /// Bytes handed out, of all processes.
    position: u64,
    /// `None` once the digest has been checked, or something failed for good.
    hasher: Option<Hasher>,
    verified: bool,
    reply: Option<Reply>,
    /// Bytes of the current answer that we have already.
    skip: u64,
    pace: Pace,
    ranges: bool,
    backoff: Backoff,
    permit: Option<OwnedSemaphorePermit>,
}

impl fmt::Debug for BlobStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobStream({}, {} of {} bytes)", self.digest, self.position, self.size)
    }
}

impl Client {
    /// Opens a blob of the repository of `reference`. Waits while the registry's limit of blobs is reached.
    ///
    /// # Errors
    /// There is no such blob, or the registry cannot be reached or refuses.
    pub async fn fetch_blob(&self, reference: &Reference, blob: &Descriptor) -> Result<BlobStream, Error> {
        self.resume_blob(reference, blob, 0, Hasher::new(blob.digest.algorithm())).await
    }

    /// The size of a blob of the repository of `reference`; `None` where there is no such blob, or the registry does not tell.
    ///
    /// # Errors
    /// The registry cannot be reached or refuses.
    pub async fn blob_size(&self, reference: &Reference, digest: &Digest) -> Result<Option<u64>, Error> {
        let by_digest = reference.only_digest(digest.clone());
        match self.at_places(&by_digest, |client, place| async move { client.blob_size_at(&place, digest).await }).await {
            Err(error) if error.is_not_found() => Ok(None),
            result => result,
        }
    }

    async fn blob_size_at(&self, reference: &Reference, digest: &Digest) -> Result<Option<u64>, Error> {
        let host = self.host_of(reference);
        let url = self.repository_url(reference, &format!("blobs/{digest}")).await?;
        let scopes = vec![Scope::repository(reference.repository(), &["pull"])];
        let answer = self.collect(&host, &Call::new(Method::HEAD, url, reference.repository(), scopes), 0).await?;
        Ok(answer.header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok()))
    }

    /// Opens a blob of which the first `offset` bytes are there already; `hasher` has seen exactly those.
    ///
    /// # Errors
    /// As [`Client::fetch_blob`]; also when `offset` is beyond the blob's size.
    pub async fn resume_blob(&self, reference: &Reference, blob: &Descriptor, offset: u64, hasher: Hasher) -> Result<BlobStream, Error> {
        let by_digest = reference.only_digest(blob.digest.clone());
        let hasher = &hasher;
        let found = self
            .at_places(&by_digest, |client, place| async move { client.resume_blob_at(&place, blob, offset, hasher.clone()).await })
            .await;
        match found {
            Err(error) if error.is_not_found() && blob.is_elsewhere() => self.resume_elsewhere(blob, offset, hasher, error).await,
            found => found,
        }
    }

    async fn resume_blob_at(&self, reference: &Reference, blob: &Descriptor, offset: u64, hasher: Hasher) -> Result<BlobStream, Error> {
        let url = self.repository_url(reference, &format!("blobs/{}", blob.digest)).await?;
        let scopes = vec![Scope::repository(reference.repository(), &["pull"])];
        self.open_blob(self.host_of(reference), Call::new(Method::GET, url, reference.repository(), scopes), blob, offset, hasher).await
    }

    /// Opens a blob at the first of the addresses that its descriptor names. They are anybody's, so no credentials go there, and what may not do without TLS has it.
    async fn resume_elsewhere(&self, blob: &Descriptor, offset: u64, hasher: &Hasher, missing: Error) -> Result<BlobStream, Error> {
        let options = ClientOptions { credentials: Credentials::default(), extra_headers: Vec::new(), ..self.options().clone() };
        let stranger = Client::make(options, false)?;
        let mut last = missing;
        for url in blob.urls.iter().filter_map(|url| Url::parse(url).ok()) {
            let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
            let plain_ok = scheme_of(authority, &self.options().plain_http) != Scheme::Https;
            if !(url.scheme() == "https" || (url.scheme() == "http" && plain_ok)) {
                continue;
            }
            let host = stranger.host(authority);
            match stranger.open_blob(host, Call::new(Method::GET, url, "", Vec::new()), blob, offset, hasher.clone()).await {
                Err(error) => last = error,
                found => return found,
            }
        }
        Err(last)
    }

    async fn open_blob(&self, host: Arc<Host>, call: Call, blob: &Descriptor, offset: u64, hasher: Hasher) -> Result<BlobStream, Error> {
        let permit = host.permits.clone().acquire_owned().await.ok();
        let url = &call.url;
        if offset > blob.size {
            let url = SafeUrl::new(url.as_str());
            return Err(Error::SizeMismatch { digest: blob.digest.clone(), expected: blob.size, actual: offset, at_least: false, url });
        }
        let mut call = call;
        // A proxy that compresses would change the size, and ranges with it.
        call.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let mut stream = BlobStream {
            client: self.clone(),
            host,
            call,
            digest: blob.digest.clone(),
            size: blob.size,
            position: offset,
            hasher: Some(hasher),
            verified: false,
            reply: None,
            skip: 0,
            pace: Pace::default(),
            ranges: true,
            backoff: Backoff::new(self.retry),
            permit,
        };
        if offset < blob.size {
            stream.connect().await?;
        }
        Ok(stream)
    }
}

impl BlobStream {
    /// The next bytes; `None` when all have come and their digest is right. May be dropped while it waits, and called again.
    ///
    /// # Errors
    /// The blob cannot be had whole, or is not what its descriptor says. Every further call fails too.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if self.verified {
            return Ok(None);
        }
        if self.hasher.is_none() {
            return Err(self.cut());
        }
        let result = self.advance().await;
        if !matches!(result, Ok(Some(_))) {
            self.reply = None;
            self.permit = None;
            self.hasher = None;
        }
        result
    }

    /// Bytes handed out so far, with those of earlier processes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The size of the whole blob.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The same as a stream of `futures`. It ends after the first error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send {
        futures_util::stream::unfold(Some(self), |stream| async {
            let mut stream = stream?;
            match stream.next_chunk().await {
                Ok(None) => None,
                Ok(Some(bytes)) => Some((Ok(bytes), Some(stream))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn advance(&mut self) -> Result<Option<Bytes>, Error> {
        let idle = self.client.options().idle_timeout;
        loop {
            if self.position == self.size {
                self.finish().await?;
                return Ok(None);
            }
            let Some(reply) = &mut self.reply else {
                self.connect().await?;
                continue;
            };
            let begin = Instant::now();
            let chunk = reply.chunk(idle).await;
            let moved = chunk.as_ref().ok().and_then(Option::as_ref).map_or(0, Bytes::len);
            let too_slow = self.pace.too_slow(begin.elapsed(), moved, idle * SLOW);
            let error = match chunk {
                Ok(Some(_)) if too_slow => Error::Timeout { method: "GET".to_owned(), url: self.url(), after: idle * SLOW },
                Ok(Some(chunk)) => match self.accept(chunk)? {
                    Some(chunk) => return Ok(Some(chunk)),
                    None => continue,
                },
                Ok(None) => self.cut(),
                Err(error) => error,
            };
            self.reply = None;
            self.backoff.pause(error).await?;
        }
    }

    /// Takes what we do not have yet out of a piece.
    fn accept(&mut self, mut chunk: Bytes) -> Result<Option<Bytes>, Error> {
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
        self.skip -= known as u64;
        let _ = chunk.split_to(known);
        if chunk.is_empty() {
            return Ok(None);
        }
        let end = self.position + chunk.len() as u64;
        if end > self.size {
            return Err(self.wrong_size(end, true));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        self.position = end;
        self.backoff.advanced(chunk.len() as u64);
        Ok(Some(chunk))
    }

    /// Asks for the rest, until there is an answer that can be used.
    async fn connect(&mut self) -> Result<(), Error> {
        loop {
            let mut call = self.call.clone();
            if self.position > 0 && self.ranges {
                let range = format!("bytes={}-", self.position);
                call.headers.insert(RANGE, HeaderValue::from_str(&range).expect("digits are a header's value"));
            }
            let error = match self.client.send(&self.host, &call).await {
                Ok(reply) => match self.use_answer(reply)? {
                    true => return Ok(()),
                    false => continue,
                },
                Err(error) => error,
            };
            if error.status() == Some(416) && self.ranges && self.position > 0 {
                self.ranges = false;
                continue;
            }
            self.backoff.pause(error).await?;
        }
    }

    /// Finds out which bytes an answer holds. `false` if they are of no use; then ranges are no longer tried.
    fn use_answer(&mut self, reply: Reply) -> Result<bool, Error> {
        let encoded = reply.header(CONTENT_ENCODING.as_str()).is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity"));
        if encoded {
            let value = tame(reply.header(CONTENT_ENCODING.as_str()).unwrap_or(""), 60);
            return Err(Error::BadAnswer { url: reply.safe_url(), what: "a content encoding", value });
        }
        let start = match reply.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = reply.header(CONTENT_RANGE.as_str()).and_then(content_range);
                match range {
                    Some((_, Some(total))) if total != self.size => {
                        self.call.url = reply.url;
                        return Err(self.wrong_size(total, false));
                    }
                    Some((start, _)) if start <= self.position => start,
                    _ if self.ranges => {
                        self.ranges = false;
                        return Ok(false);
                    }
                    _ => {
                        return Err(Error::BadAnswer { url: reply.safe_url(), what: "a range", value: "not the one asked for".to_owned() });
                    }
                }
            }
            _ => 0,
        };
        if let Some(length) = reply.response.content_length() {
            let end = start.saturating_add(length);
            // A server may answer a range with less than was asked for; the rest is then asked for again.
            if end > self.size || (end < self.size && reply.status() != StatusCode::PARTIAL_CONTENT) {
                return Err(self.wrong_size(end, false));
            }
        }
        self.skip = self.position - start;
        self.reply = Some(reply);
        Ok(true)
    }

    /// Checks the digest, and that nothing follows.
    async fn finish(&mut self) -> Result<(), Error> {
        if let Some(reply) = &mut self.reply
            && reply.response.content_length().is_none()
            && let Ok(Some(extra)) = reply.chunk(EXTRA_WAIT).await
            && !extra.is_empty()
        {
            return Err(self.wrong_size(self.size + extra.len() as u64, true));
        }
        let Some(hasher) = self.hasher.take() else { return Err(self.cut()) };
        let actual = hasher.finish();
        if actual != self.digest {
            let expected = Box::new(self.digest.clone());
            return Err(Error::DigestMismatch { what: "blob", expected, actual: Box::new(actual), size: self.size, url: self.url() });
        }
        self.verified = true;
        Ok(())
    }

    fn url(&self) -> SafeUrl {
        SafeUrl::new(self.reply.as_ref().map_or(self.call.url.as_str(), |reply| reply.url.as_str()))
    }

    fn cut(&self) -> Error {
        Error::Cut { url: self.url(), received: self.position, size: self.size }
    }

    fn wrong_size(&self, actual: u64, at_least: bool) -> Error {
        Error::SizeMismatch { digest: self.digest.clone(), expected: self.size, actual, at_least, url: self.url() }
    }
}
