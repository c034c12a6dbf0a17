//! Files from web servers: fetched once, then asked for with what the server said of them (`ETag`, `Last-Modified`), so that an unchanged file is not sent
//! again.
//!
//! A file is kept as a snapshot with one file in it, found by its address, and by that and its content; so it is pruned, leased and counted like all else. A cut
//! transfer goes on where it was, if the server can tell that the file is the same; failures that pass are tried again for a bounded time. A credential goes
//! to the server that it is for, and never where that server leads.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    AUTHORIZATION, CONTENT_RANGE, ETAG, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, LOCATION, RANGE,
    RETRY_AFTER,
};
use reqwest::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::cache::CacheKey;
use crate::cache::key::{download_address_key, download_content_key};
use crate::diag::SafeUrl;
use crate::executor::Download;
use crate::oci::{Algorithm, Digest, Hasher};
use crate::progress::StepProgress;
use crate::registry::Client;
use crate::store::{ActiveSnapshot, CacheEntry, Lease, Resource, SnapshotMeta, Store};
use crate::task::blocking;

use super::git::{Secrets, header_value};
use super::http_error::HttpError;

/// The name of the file in its snapshot.
const CONTENT: &str = "content";
/// How many times a server may lead somewhere else.
const MAX_REDIRECTS: usize = 10;
/// How many bytes are gathered before they are written.
const BATCH: usize = 1 << 20;
/// How often a server is tried that cannot be connected to at all.
const CONNECT_ATTEMPTS: u32 = 3;

/// What is known of a file that is here.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<String>,
}

/// A file that is here.
#[derive(Clone, Debug)]
struct Kept {
    record: Record,
    download: Download,
}

/// Fetches files for one build.
pub(super) struct Web<'a> {
    pub(super) store: &'a Store,
    pub(super) lease: Option<&'a Arc<Lease>>,
    pub(super) client: Client,
    pub(super) secrets: &'a Secrets,
}

impl Web<'_> {
    /// The file at `url`. Where `checksum` is demanded and this address has given it, nobody is asked. What another address gave does not count: whoever changes
    /// the address and forgets the checksum must be told.
    pub(super) async fn download(&self, url: &str, checksum: Option<&Digest>, progress: &StepProgress) -> Result<Download, HttpError> {
        if let Some(checksum) = checksum
            && let Some(kept) = self.kept(download_content_key(url, checksum)).await?
        {
            return Ok(kept.download);
        }
        let place = Url::parse(url).map_err(|error| HttpError::Address(error.to_string()))?;
        // Known by its address, but with another content than is demanded: that one is of no use.
        let kept = self.kept(download_address_key(url)).await?.filter(|_| checksum.is_none());
        let policy = self.client.options().retry;
        let mut transfer = None;
        let (mut failures, mut last) = (0, 0);
        loop {
            let error = match self.attempt(&place, kept.as_ref(), &mut transfer, progress).await {
                Ok(Answer::Unchanged) => return kept.map(|kept| kept.download).ok_or(HttpError::Redirects),
                Ok(Answer::Whole) => break,
                Err(error) => error,
            };
            let offset = transfer.as_ref().map_or(0, |transfer: &Transfer| transfer.offset);
            // Progress makes up for failures.
            if offset >= last + BATCH as u64 {
                failures = 0;
            }
            last = offset;
            failures += 1;
            let attempts = if error.is_connect() { policy.attempts.min(CONNECT_ATTEMPTS) } else { policy.attempts };
            if !error.is_retryable() || failures >= attempts {
                return Err(error);
            }
            let own = policy.first_pause.saturating_mul(1 << failures.min(16)).min(policy.longest_pause) / 2;
            let pause = error.retry_after().unwrap_or(own);
            if pause > policy.longest_retry_after {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
        let transfer = transfer.ok_or(HttpError::Redirects)?;
        let (store, url) = (self.store.clone(), url.to_owned());
        blocking(move || transfer.commit(&store, &url)).await
    }

    /// The file that is kept under `key`, with a lease on it.
    async fn kept(&self, key: CacheKey) -> Result<Option<Kept>, HttpError> {
        let (store, lease) = (self.store.clone(), self.lease.cloned());
        blocking(move || {
            let Some(entry) = store.cache_get(&key.0)? else { return Ok(None) };
            let [snapshot] = entry.snapshots[..] else { return Ok(None) };
            // What an other version wrote is not known.
            let Ok(record) = serde_json::from_slice::<Record>(&entry.output) else { return Ok(None) };
            if let Some(lease) = lease
                && lease.add_all(&[Resource::Snapshot(snapshot)])? != [true]
            {
                return Ok(None);
            }
            let path = store.snapshot_path(snapshot).join(CONTENT);
            let modified = record.modified.as_deref().and_then(seconds_of);
            let download = Download { digest: record.digest.clone(), path, modified, was_here: true };
            Ok(Some(Kept { record, download }))
        })
        .await
    }

    /// One request, with those that it is led to.
    async fn attempt(
        &self,
        url: &Url,
        kept: Option<&Kept>,
        transfer: &mut Option<Transfer>,
        progress: &StepProgress,
    ) -> Result<Answer, HttpError> {
        let response = self.request(url, kept, transfer.as_ref()).await?;
        match response.status() {
            StatusCode::NOT_MODIFIED if kept.is_some() && transfer.is_none() => return Ok(Answer::Unchanged),
            StatusCode::PARTIAL_CONTENT if let Some(begun) = transfer.as_mut().filter(|begun| begun.goes_on(&response)) => {
                return begun.receive(response, self.client.options().idle_timeout, progress).await;
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
                *transfer = None;
                return Err(HttpError::Cut("the server does not go on where it stopped".into()));
            }
            status if status.is_success() => {}
            status => return Err(HttpError::Status { status: status.as_u16(), retry_after: retry_after(&response) }),
        }
        // Some servers send what has not changed all the same.
        if let (Some(kept), None) = (kept, &transfer)
            && let Some(tag) = header(&response, &ETAG)
            && !tag.starts_with("W/")
            && kept.record.etag.as_ref() == Some(&tag)
        {
            return Ok(Answer::Unchanged);
        }
        let store = self.store.clone();
        let begun = transfer.insert(blocking(move || Transfer::begin(&store)).await?);
        begun.etag = header(&response, &ETAG);
        begun.modified = header(&response, &LAST_MODIFIED);
        begun.receive(response, self.client.options().idle_timeout, progress).await
    }

    async fn request(&self, url: &Url, kept: Option<&Kept>, transfer: Option<&Transfer>) -> Result<Response, HttpError> {
        let credential = self.credential(url)?;
        let mut at = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let connection = self.client.connection(&at).await.map_err(|error| HttpError::Setup(Box::new(error)))?;
            let mut request = connection.get(at.clone());
            if let Some(value) = credential.as_ref().filter(|_| at.origin() == url.origin()) {
                request = request.header(AUTHORIZATION, value.clone());
            }
            if let Some((validator, transfer)) = transfer.and_then(|transfer| Some((transfer.validator()?, transfer))) {
                request = request.header(RANGE, format!("bytes={}-", transfer.offset)).header(IF_RANGE, validator);
            } else if let (Some(kept), None) = (kept, transfer) {
                match (&kept.record.etag, &kept.record.modified) {
                    (Some(tag), _) => request = request.header(IF_NONE_MATCH, tag),
                    (None, Some(date)) => request = request.header(IF_MODIFIED_SINCE, date),
                    (None, None) => {}
                }
            }
            let sent = tokio::time::timeout(self.client.options().idle_timeout, request.send()).await;
            let response = sent.map_err(|_| HttpError::Silent)?.map_err(HttpError::transport)?;
            let leads_on = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let Some(location) = header(&response, &LOCATION).filter(|_| leads_on) else { return Ok(response) };
            let next = at.join(&location).ok().filter(|next| matches!(next.scheme(), "http" | "https"));
            at = next.ok_or(HttpError::BadRedirect)?;
        }
        Err(HttpError::Redirects)
    }

    /// What logs in at the server: `HTTP_AUTH_TOKEN_HOST`, else `HTTP_AUTH_HEADER_HOST`.
    fn credential(&self, url: &Url) -> Result<Option<HeaderValue>, HttpError> {
        let host = url.host_str().unwrap_or_default();
        let value = |name: String, scheme: &str| {
            let Some(secret) = self.secrets.get(&name) else { return Ok(None) };
            let bad = || HttpError::BadSecret { name: name.clone() };
            let text = header_value(&name, secret).map_err(|_| bad())?;
            let mut value = HeaderValue::from_str(&format!("{scheme}{text}")).map_err(|_| bad())?;
            value.set_sensitive(true);
            Ok(Some(value))
        };
        match value(format!("HTTP_AUTH_TOKEN_{host}"), "Bearer ")? {
            Some(token) => Ok(Some(token)),
            None => value(format!("HTTP_AUTH_HEADER_{host}"), ""),
        }
    }
}

enum Answer {
    /// The file that is here is the one that the server has.
    Unchanged,
    /// The transfer is at its end.
    Whole,
}

/// A file on its way in.
struct Transfer {
    snapshot: ActiveSnapshot,
    file: Arc<File>,
    hasher: Hasher,
    /// How many bytes are written.
    offset: u64,
    etag: Option<String>,
    modified: Option<String>,
}

impl Transfer {
    fn begin(store: &Store) -> Result<Transfer, HttpError> {
        let snapshot = store.prepare()?;
        let path = snapshot.fs_path().join(CONTENT);
        let file =
            File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(|source| HttpError::Write { path, source })?;
        Ok(Transfer { snapshot, file: Arc::new(file), hasher: Hasher::new(Algorithm::Sha256), offset: 0, etag: None, modified: None })
    }

    /// What tells the server which version of the file is here in part.
    fn validator(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| !tag.starts_with("W/")).or(self.modified.as_deref()).filter(|_| self.offset > 0)
    }

    /// Whether a partial answer begins where this ends, and is of the same version of the file (RFC 9110, section 15.3.7.3): some servers ignore `If-Range`.
    fn goes_on(&self, response: &Response) -> bool {
        let same = match self.etag.as_ref().filter(|tag| !tag.starts_with("W/")) {
            Some(tag) => header(response, &ETAG).as_ref() == Some(tag),
            // Whoever minds `If-Range` need not repeat the date.
            None => header(response, &LAST_MODIFIED).is_none_or(|date| Some(date) == self.modified),
        };
        let start = header(response, &CONTENT_RANGE).and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
        self.validator().is_some() && same && start == Some(self.offset)
    }

    async fn receive(&mut self, mut response: Response, idle: Duration, progress: &StepProgress) -> Result<Answer, HttpError> {
        let meter = response.content_length().map(|length| progress.meter("file", length));
        let mut batch = Vec::new();
        loop {
            let chunk = tokio::time::timeout(idle, response.chunk()).await.map_err(|_| HttpError::Silent);
            let chunk = chunk.and_then(|chunk| chunk.map_err(HttpError::transport));
            if let Ok(Some(bytes)) = &chunk {
                batch.extend_from_slice(bytes);
            }
            let goes_on = matches!(chunk, Ok(Some(_)));
            // What has come before a cut is kept.
            if batch.len() >= BATCH || (!goes_on && !batch.is_empty()) {
                if let Some(meter) = &meter {
                    meter.add(batch.len() as u64);
                }
                self.append(std::mem::take(&mut batch)).await?;
            }
            match chunk {
                Ok(Some(_)) => {}
                Ok(None) => return Ok(Answer::Whole),
                Err(error) => return Err(error),
            }
        }
    }

    async fn append(&mut self, bytes: Vec<u8>) -> Result<(), HttpError> {
        let (file, mut hasher) = (self.file.clone(), self.hasher.clone());
        let length = bytes.len() as u64;
        let hasher = blocking(move || {
            (&*file).write_all(&bytes)?;
            hasher.update(&bytes);
            Ok(hasher)
        });
        let path = || self.snapshot.fs_path().join(CONTENT);
        self.hasher = hasher.await.map_err(|source| HttpError::Write { path: path(), source })?;
        self.offset += length;
        Ok(())
    }

    /// Makes it a snapshot, to be found by its address, and by that and its content.
    fn commit(self, store: &Store, url: &str) -> Result<Download, HttpError> {
        drop(self.file);
        let digest = self.hasher.finish();
        let description = format!("download of {}", SafeUrl::new(url));
        let id = self.snapshot.commit(SnapshotMeta { diff_id: None, size: self.offset, description })?.id;
        let record = Record { digest: digest.clone(), etag: self.etag, modified: self.modified };
        let modified = record.modified.as_deref().and_then(seconds_of);
        let (address, content) = (download_address_key(url), download_content_key(url, &digest));
        let output = serde_json::to_vec(&record).unwrap_or_default();
        store.cache_put(&[address.0, content.0], &CacheEntry { result: content.0, output, snapshots: vec![id] })?;
        Ok(Download { digest, path: store.snapshot_path(id).join(CONTENT), modified, was_here: false })
    }
}

fn header(response: &Response, name: &reqwest::header::HeaderName) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

fn retry_after(response: &Response) -> Option<Duration> {
    header(response, &RETRY_AFTER)?.trim().parse().ok().map(Duration::from_secs)
}

/// An HTTP date in seconds since the epoch.
fn seconds_of(date: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(date).ok()?;
    i64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()
}
