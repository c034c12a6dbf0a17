//! Referrers: the signatures, bills of materials and other artifacts that name a manifest as their subject.
//!
//! Registries without the referrers API keep the list under the tag `sha256-HEX` (distribution-spec 1.1, "Referrers Tag Schema"), which is asked for
//! where the API is missing, and kept up to date by [`Client::put_referrer`].

use std::collections::HashSet;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderValue, LINK};

use crate::diag::SafeUrl;
use crate::oci::{Descriptor, Digest, Index, ManifestOrIndex, MediaType, Reference};

use super::auth::Scope;
use super::client::Client;
use super::error::Error;
use super::headers::next_link;
use super::manifests::next_url;
use super::transport::Call;

/// More pages than any manifest has.
const PAGES: usize = 1000;

/// More referrers than any manifest has.
const REFERRERS: usize = 100_000;

impl Client {
    /// The manifests of the repository of `reference` whose subject is `subject`, perhaps only those of one artifact type.
    ///
    /// # Errors
    /// The registry cannot be reached or refuses, or its list cannot be read. A subject without referrers is an empty list, known or not.
    pub async fn referrers(&self, reference: &Reference, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, Error> {
        let reference = &self.options().registries.location(reference)?;
        let mut found = match self.referrers_by_api(reference, subject, artifact_type).await {
            Ok(found) => found,
            Err(error) if matches!(error.status(), Some(400 | 404 | 405 | 501)) => self.referrers_by_tag(reference, subject).await?,
            Err(error) => return Err(error),
        };
        if let Some(wanted) = artifact_type {
            found.retain(|descriptor| descriptor.artifact_type.as_deref() == Some(wanted));
        }
        Ok(found)
    }

    async fn referrers_by_api(
        &self,
        reference: &Reference,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, Error> {
        let host = self.host_of(reference);
        let mut url = self.repository_url(reference, &format!("referrers/{subject}")).await?;
        if let Some(artifact_type) = artifact_type {
            url.query_pairs_mut().append_pair("artifactType", artifact_type);
        }
        let scopes = vec![Scope::repository(reference.repository(), &["pull"])];
        let mut call = Call::new(Method::GET, url, reference.repository(), scopes);
        call.headers.insert(ACCEPT, HeaderValue::from_str(MediaType::OciIndex.as_str()).expect("known media types are header values"));
        let (mut found, mut visited) = (Vec::new(), HashSet::new());
        loop {
            let (what, url) = ("a list of referrers", || SafeUrl::new(call.url.as_str()));
            if visited.len() >= PAGES || found.len() > REFERRERS {
                return Err(Error::TooManyPages { what, url: url(), names: found.len() });
            }
            if !visited.insert(call.url.clone()) {
                return Err(Error::EndlessPages { what, url: url() });
            }
            let answer = self.collect(&host, &call, self.options().manifest_limit).await?;
            found.extend(self.parse_index(&answer.body, answer.safe_url())?.manifests);
            let Some(next) = answer.header(LINK.as_str()).and_then(next_link) else { return Ok(found) };
            call.url = next_url(&call.url, next)?;
        }
    }

    /// Stores a manifest that is about `subject`. Where the registry does not keep the list of referrers itself, the list under the tag is brought up to date
    /// (another writer at the same time may undo that: the specification has no way to prevent it).
    ///
    /// # Errors
    /// As [`Client::put_manifest`].
    pub async fn put_referrer(
        &self,
        reference: &Reference,
        bytes: Bytes,
        media_type: &MediaType,
        subject: &Digest,
    ) -> Result<Digest, Error> {
        let stored = self.put(reference, bytes.clone(), media_type).await?;
        if !stored.knows_subject {
            let entry = referrer(&bytes, media_type, &stored.digest);
            self.list_by_tag(reference, subject, entry).await?;
        }
        Ok(stored.digest)
    }

    /// Adds an entry to the list that is kept under a tag.
    async fn list_by_tag(&self, reference: &Reference, subject: &Digest, entry: Descriptor) -> Result<(), Error> {
        let tag = list_tag(reference, subject)?;
        let mut index = match self.fetch_manifest_at(&tag).await {
            Ok(fetched) => self.parse_index(&fetched.bytes, SafeUrl::new(&tag.to_string()))?,
            Err(error) if error.is_not_found() => Index::empty(),
            Err(error) => return Err(error),
        };
        if index.manifests.iter().any(|known| known.digest == entry.digest) {
            return Ok(());
        }
        index.manifests.push(entry);
        let bytes = serde_json::to_vec(&index).expect("an index holds nothing that JSON cannot");
        self.put(&tag, bytes.into(), &MediaType::OciIndex).await.map(drop)
    }

    /// Takes a manifest that was deleted out of the list that is kept under a tag, where the registry keeps no list itself (distribution-spec 1.1, "Deleting Manifests").
    pub(super) async fn unlist(&self, reference: &Reference, subject: &Digest, deleted: &Digest) -> Result<(), Error> {
        match self.referrers_by_api(reference, subject, None).await {
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.status(), Some(400 | 404 | 405 | 501)) => {}
            Err(error) => return Err(error),
        }
        let tag = list_tag(reference, subject)?;
        let mut index = match self.fetch_manifest_at(&tag).await {
            Ok(fetched) => self.parse_index(&fetched.bytes, SafeUrl::new(&tag.to_string()))?,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error),
        };
        let before = index.manifests.len();
        index.manifests.retain(|entry| entry.digest != *deleted);
        if index.manifests.len() == before {
            return Ok(());
        }
        let bytes = serde_json::to_vec(&index).expect("an index holds nothing that JSON cannot");
        self.put(&tag, bytes.into(), &MediaType::OciIndex).await.map(drop)
    }

    async fn referrers_by_tag(&self, reference: &Reference, subject: &Digest) -> Result<Vec<Descriptor>, Error> {
        let tag = list_tag(reference, subject)?;
        match self.fetch_manifest_at(&tag).await {
            Ok(fetched) => Ok(self.parse_index(&fetched.bytes, SafeUrl::new(&tag.to_string()))?.manifests),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn parse_index(&self, bytes: &[u8], url: SafeUrl) -> Result<Index, Error> {
        match ManifestOrIndex::parse(bytes, Some(&MediaType::OciIndex)) {
            Ok(ManifestOrIndex::Index(index)) => Ok(*index),
            _ => Err(Error::BadAnswer { url, what: "a list of referrers", value: self.beginning(bytes) }),
        }
    }
}

/// The tag under which the list of referrers is kept.
fn list_tag(reference: &Reference, subject: &Digest) -> Result<Reference, Error> {
    let hex = subject.hex();
    let text = format!("{}:{}-{}", reference.name(), subject.algorithm().name(), &hex[..hex.len().min(64)]);
    text.parse().map_err(|_| Error::BadOption { option: "subject", value: subject.to_string() })
}

/// The entry of a manifest in a list of referrers (distribution-spec 1.1, "Pushing Manifests with Subject"): an image without artifact type has that of its config.
fn referrer(bytes: &[u8], media_type: &MediaType, digest: &Digest) -> Descriptor {
    let mut entry = Descriptor::new(media_type.clone(), digest.clone(), bytes.len() as u64);
    match ManifestOrIndex::parse(bytes, Some(media_type)) {
        Ok(ManifestOrIndex::Manifest(manifest)) => {
            entry.artifact_type = Some(manifest.artifact_type.unwrap_or_else(|| manifest.config.media_type.to_string()));
            entry.annotations = manifest.annotations;
        }
        Ok(ManifestOrIndex::Index(index)) => {
            entry.artifact_type = index.artifact_type;
            entry.annotations = index.annotations;
        }
        // What cannot be read was not taken by the registry either.
        Err(_) => {}
    }
    entry
}
