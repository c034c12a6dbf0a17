//! Manifests and tags: small documents, read whole, with a limit.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, LINK};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use crate::diag::SafeUrl;
use crate::oci::{Algorithm, Descriptor, Digest, ManifestOrIndex, MediaType, Reference, TagOrDigest};

use super::auth::Scope;
use super::client::Client;
use super::error::{Error, tame};
use super::headers::next_link;
use super::host::{Host, same_origin};
use super::transport::{Call, Collected, Payload};

const CONTENT_DIGEST: &str = "docker-content-digest";

/// Says in the answer to a PUT that the registry keeps the list of referrers itself.
const SUBJECT: &str = "oci-subject";

/// Says in the answer to a PUT by digest that a tag was set with it.
const TAG_SET: &str = "oci-tag";

/// The largest page of tags.
const PAGE_LIMIT: u64 = 8 << 20;

/// More pages than any repository or registry has.
const PAGES: usize = 10_000;

/// More names than any list has.
const NAMES: usize = 1_000_000;

/// Answers whose content does not matter.
const SMALL: u64 = 1 << 20;

/// A manifest as it was sent: the digest is of exactly these bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// The document.
    pub bytes: Bytes,
    /// What the registry says it is; the document itself may say otherwise.
    pub media_type: MediaType,
    /// The digest, checked.
    pub digest: Digest,
}

impl FetchedManifest {
    /// The descriptor of this manifest.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.digest.clone(), self.bytes.len() as u64)
    }
}

/// A manifest that a registry has taken.
pub(super) struct Stored {
    /// Its digest.
    pub(super) digest: Digest,
    /// Whether the registry lists it among the referrers of its subject.
    pub(super) knows_subject: bool,
    /// Whether the registry has set the tag that was named beside the digest.
    tag_set: bool,
}

#[derive(Deserialize)]
struct TagPage {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct CatalogPage {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

impl Client {
    /// Finds out what a name stands for now, without fetching it where the registry can tell.
    ///
    /// # Errors
    /// There is no such manifest, or the registry cannot be reached or refuses.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, Error> {
        self.at_places(reference, |client, place| async move { client.resolve_at(&place).await }).await
    }

    async fn resolve_at(&self, reference: &Reference) -> Result<Descriptor, Error> {
        let host = self.host_of(reference);
        let call = self.manifest_call(Method::HEAD, reference).await?;
        match self.collect(&host, &call, SMALL).await {
            Ok(answer) => {
                if let Some(descriptor) = head_descriptor(reference, &answer)? {
                    return Ok(descriptor);
                }
            }
            // Some registries refuse HEAD, and the answer to GET says why.
            Err(error) if matches!(error.status(), Some(400..=499)) && !error.is_not_found() && error.status() != Some(429) => {}
            Err(error) => return Err(error),
        }
        Ok(self.fetch_manifest_at(reference).await?.descriptor())
    }

    /// Fetches a manifest or an index and checks its digest.
    ///
    /// # Errors
    /// There is no such manifest, it is larger than [`ClientOptions::manifest_limit`](super::ClientOptions::manifest_limit), or it is not what its
    /// digest names.
    pub async fn fetch_manifest(&self, reference: &Reference) -> Result<FetchedManifest, Error> {
        self.at_places(reference, |client, place| async move { client.fetch_manifest_at(&place).await }).await
    }

    /// The same from exactly there.
    pub(super) async fn fetch_manifest_at(&self, reference: &Reference) -> Result<FetchedManifest, Error> {
        let host = self.host_of(reference);
        let call = self.manifest_call(Method::GET, reference).await?;
        let answer = self.collect(&host, &call, self.options().manifest_limit).await?;
        let stated = stated_digest(&answer);
        // The reference decides; a registry that states another algorithm for a tag is taken at its word.
        let expected = reference.digest().cloned().or(stated);
        let algorithm = expected.as_ref().map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of(algorithm, &answer.body);
        if let Some(expected) = expected
            && expected != digest
        {
            let size = answer.body.len() as u64;
            return Err(Error::DigestMismatch {
                what: "manifest",
                expected: Box::new(expected),
                actual: Box::new(digest),
                size,
                url: answer.safe_url(),
            });
        }
        let media_type = media_type(&answer);
        Ok(FetchedManifest { bytes: answer.body, media_type, digest })
    }

    /// Stores a manifest under the tag of `reference`, or under its digest where it has no tag.
    ///
    /// Behind a mere tag a registry hashes by sha256. A manifest whose digest is another and is named beside the tag keeps it where the registry sets tags
    /// with digests (the specification of distribution after 1.1, end-7b); elsewhere the tag stands for it by sha256.
    ///
    /// # Errors
    /// The registry refuses it (a blob is missing, for instance), or stores something else.
    pub async fn put_manifest(&self, reference: &Reference, bytes: impl Into<Bytes>, media_type: &MediaType) -> Result<Digest, Error> {
        Ok(self.put(reference, bytes.into(), media_type).await?.digest)
    }

    /// As [`Client::put_manifest`], and says whether the registry has seen which subject the manifest has (its answer has `OCI-Subject`).
    pub(super) async fn put(&self, reference: &Reference, bytes: Bytes, media_type: &MediaType) -> Result<Stored, Error> {
        let algorithm = reference.digest().map_or(Algorithm::Sha256, Digest::algorithm);
        let digest = Digest::of(algorithm, &bytes);
        let name = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        if algorithm != Algorithm::Sha256
            && let Some(tag) = reference.tag()
        {
            match self.put_at(reference, &digest, &format!("{digest}?tag={tag}"), bytes.clone(), media_type).await {
                Ok(stored) if stored.tag_set => return Ok(stored),
                // It does not set tags so, or does not know the algorithm.
                Ok(_) => {}
                Err(error) if matches!(error.status(), Some(400 | 404 | 405 | 501)) => {}
                Err(error) => return Err(error),
            }
        }
        self.put_at(reference, &digest, &name, bytes, media_type).await
    }

    async fn put_at(
        &self,
        reference: &Reference,
        digest: &Digest,
        at: &str,
        bytes: Bytes,
        media_type: &MediaType,
    ) -> Result<Stored, Error> {
        let host = self.host_of(reference);
        let digest = digest.clone();
        let url = self.repository_url(reference, &format!("manifests/{at}")).await?;
        if let Some(expected) = reference.digest()
            && *expected != digest
        {
            let (expected, size, url) = (expected.clone(), bytes.len() as u64, SafeUrl::new(url.as_str()));
            return Err(Error::DigestMismatch { what: "manifest", expected: Box::new(expected), actual: Box::new(digest), size, url });
        }
        let scopes = vec![Scope::repository(reference.repository(), &["pull", "push"])];
        let mut call = Call::new(Method::PUT, url, reference.repository(), scopes);
        let content_type = HeaderValue::from_str(media_type.as_str());
        let bad = |_| Error::BadOption { option: "media type", value: tame(media_type.as_str(), 100) };
        call.headers.insert(CONTENT_TYPE, content_type.map_err(bad)?);
        call.payload = Payload::Bytes(bytes);
        call.patience = 5;
        let answer = self.collect(&host, &call, SMALL).await?;
        match stated_digest(&answer) {
            Some(stored) if stored.algorithm() == digest.algorithm() && stored != digest => {
                Err(Error::StoredOther { url: answer.safe_url(), expected: digest, actual: stored.to_string() })
            }
            _ => Ok(Stored { digest, knows_subject: answer.header(SUBJECT).is_some(), tag_set: answer.header(TAG_SET).is_some() }),
        }
    }

    /// Deletes the manifest that the digest of `reference` names, or its tag where it has no digest (which not every registry can). A list of referrers that is kept
    /// under a tag loses it.
    ///
    /// # Errors
    /// There is no such thing, or the registry refuses.
    pub async fn delete_manifest(&self, reference: &Reference) -> Result<(), Error> {
        let host = self.host_of(reference);
        let mut call = self.manifest_call(Method::DELETE, reference).await?;
        call.scopes = vec![Scope::repository(reference.repository(), &["delete", "pull", "push"])];
        let subject = match reference.digest() {
            Some(digest) => self.subject_of(reference).await.map(|subject| (subject, digest)),
            None => None,
        };
        self.collect(&host, &call, SMALL).await?;
        match subject {
            Some((subject, deleted)) => self.unlist(reference, &subject, deleted).await,
            None => Ok(()),
        }
    }

    /// What a manifest is about, as far as it can be known.
    async fn subject_of(&self, reference: &Reference) -> Option<Digest> {
        let fetched = self.fetch_manifest_at(reference).await.ok()?;
        let subject = match ManifestOrIndex::parse(&fetched.bytes, Some(&fetched.media_type)).ok()? {
            ManifestOrIndex::Manifest(manifest) => manifest.subject,
            ManifestOrIndex::Index(index) => index.subject,
        };
        subject.map(|subject| subject.digest)
    }

    /// All tags of the repository of `reference`, in the registry's order.
    ///
    /// # Errors
    /// There is no such repository, or the registry sends pages without end.
    pub async fn tags(&self, reference: &Reference) -> Result<Vec<String>, Error> {
        let reference = &self.options().registries.location(reference)?;
        let host = self.host_of(reference);
        let scopes = vec![Scope::repository(reference.repository(), &["pull"])];
        let url = self.repository_url(reference, "tags/list").await?;
        let call = Call::new(Method::GET, url, reference.repository(), scopes);
        self.pages(&host, call, "a list of tags", |page: TagPage| page.tags.unwrap_or_default()).await
    }

    /// All repositories of a registry (`/v2/_catalog`, which is Docker's and not in the OCI specification), in the registry's order.
    ///
    /// # Errors
    /// The registry has no such list, does not show it to this user, or sends pages without end.
    pub async fn catalog(&self, registry: &str) -> Result<Vec<String>, Error> {
        self.options().registries.check_registry(registry)?;
        let host = self.host(registry);
        let url = self.base(&host).await?.join("v2/_catalog").map_err(|_| Error::BadHost { host: registry.to_owned() })?;
        let call = Call::new(Method::GET, url, "", vec![Scope::catalog()]);
        self.pages(&host, call, "a list of repositories", |page: CatalogPage| page.repositories.unwrap_or_default()).await
    }

    /// Follows the links from page to page; each name once.
    async fn pages<P: DeserializeOwned>(
        &self,
        host: &Arc<Host>,
        mut call: Call,
        what: &'static str,
        names: impl Fn(P) -> Vec<String>,
    ) -> Result<Vec<String>, Error> {
        let (mut found, mut seen, mut visited) = (Vec::new(), HashSet::new(), HashSet::new());
        loop {
            let endless = || Error::EndlessPages { what, url: SafeUrl::new(call.url.as_str()) };
            if visited.len() >= PAGES || found.len() > NAMES {
                return Err(Error::TooManyPages { what, url: SafeUrl::new(call.url.as_str()), names: found.len() });
            }
            if !visited.insert(call.url.clone()) {
                return Err(endless());
            }
            let answer = self.collect(host, &call, PAGE_LIMIT).await?;
            let bad = |_| Error::BadAnswer { url: answer.safe_url(), what, value: self.beginning(&answer.body) };
            let page: P = serde_json::from_slice(&answer.body).map_err(bad)?;
            let known = found.len();
            found.extend(names(page).into_iter().filter(|name| seen.insert(name.clone())));
            let Some(next) = answer.header(LINK.as_str()).and_then(next_link) else { return Ok(found) };
            if found.len() == known {
                // A page of nothing new, and yet another one: it would never end.
                return Err(endless());
            }
            call.url = next_url(&call.url, next)?;
        }
    }

    /// The first words of what cannot be used.
    pub(super) fn beginning(&self, body: &[u8]) -> String {
        tame(&self.inner.sent.scrub(&String::from_utf8_lossy(body)), 80)
    }

    async fn manifest_call(&self, method: Method, reference: &Reference) -> Result<Call, Error> {
        let name = match reference.target() {
            TagOrDigest::Tag(tag) => tag.clone(),
            TagOrDigest::Digest { digest, .. } => digest.to_string(),
        };
        let url = self.repository_url(reference, &format!("manifests/{name}")).await?;
        let scopes = vec![Scope::repository(reference.repository(), &["pull"])];
        let mut call = Call::new(method, url, reference.repository(), scopes);
        let kinds = [MediaType::OciIndex, MediaType::OciManifest, MediaType::DockerManifestList, MediaType::DockerManifest];
        // One header with all of them: some registries look at the first one only.
        let accept = kinds.each_ref().map(MediaType::as_str).join(", ");
        call.headers.insert(ACCEPT, HeaderValue::from_str(&accept).expect("known media types are header values"));
        Ok(call)
    }
}

/// What the answer to HEAD tells, if it tells everything.
fn head_descriptor(reference: &Reference, answer: &Collected) -> Result<Option<Descriptor>, Error> {
    let size = answer.header(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
    let (Some(digest), Some(size), true) = (stated_digest(answer), size, answer.header(CONTENT_TYPE.as_str()).is_some()) else {
        return Ok(None);
    };
    match reference.digest() {
        Some(expected) if expected.algorithm() == digest.algorithm() && *expected != digest => Err(Error::DigestMismatch {
            what: "manifest",
            expected: Box::new(expected.clone()),
            actual: Box::new(digest),
            size,
            url: answer.safe_url(),
        }),
        expected => Ok(Some(Descriptor::new(media_type(answer), expected.cloned().unwrap_or(digest), size))),
    }
}

fn stated_digest(answer: &Collected) -> Option<Digest> {
    answer.header(CONTENT_DIGEST)?.trim().parse().ok()
}

fn media_type(answer: &Collected) -> MediaType {
    MediaType::parse(answer.header(CONTENT_TYPE.as_str()).unwrap_or("application/octet-stream"))
}

/// The next page, which must be at the same registry: the token goes with it. A registry behind a proxy may think that it is elsewhere, so of an
/// absolute link only path and query count.
pub(super) fn next_url(current: &Url, link: &str) -> Result<Url, Error> {
    let bad = || Error::BadAnswer { url: SafeUrl::new(current.as_str()), what: "a link", value: tame(link, 100) };
    let joined = current.join(link).map_err(|_| bad())?;
    if same_origin(&joined, current) {
        return Ok(joined);
    }
    let mut next = current.clone();
    next.set_path(joined.path());
    next.set_query(joined.query());
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_at_their_registry() {
        let current = Url::parse("https://reg.example/v2/a/tags/list").unwrap();
        assert_eq!(next_url(&current, "http://inner/v2/a/tags/list?last=b").unwrap().as_str(), "https://reg.example/v2/a/tags/list?last=b");
    }
}
