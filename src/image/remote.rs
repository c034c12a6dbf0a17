//! What a registry tells of images: their manifests and configs. Nothing goes into the store.

use bytes::Bytes;

use crate::oci::{Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, MediaType, Platform, Reference};
use crate::registry::Client;

use super::Error;

/// How deep indexes may be nested.
const MAX_NESTING: usize = 4;

/// How large a config may be.
const MAX_CONFIG: u64 = 8 << 20;

/// A manifest or an index with the bytes that the registry sent.
#[derive(Clone, Debug)]
pub struct RemoteDocument {
    /// Its bytes.
    pub bytes: Bytes,
    /// What points at it.
    pub descriptor: Descriptor,
}

/// An image of a registry.
#[derive(Clone, Debug)]
pub struct RemoteImage {
    /// What the name stands for: the manifest, or the index that it is in.
    pub top: Digest,
    /// The manifest.
    pub manifest: Manifest,
    /// The manifest's digest.
    pub digest: Digest,
    /// The bytes of the config.
    pub config_bytes: Bytes,
    /// The config; `None` where this is not an image but another artifact.
    pub config: Option<ImageConfig>,
}

/// The manifest or index that `reference` stands for; with `platform`, the manifest for that.
pub async fn manifest(client: &Client, reference: &Reference, platform: Option<&Platform>) -> Result<RemoteDocument, Error> {
    let name = || reference.written().to_owned();
    let mut at = reference.clone();
    for _ in 0..MAX_NESTING {
        let fetched = client.fetch_manifest(&at).await?;
        let parsed = ManifestOrIndex::parse(&fetched.bytes, Some(&fetched.media_type));
        let parsed = parsed.map_err(|source| Error::Manifest { name: name(), source })?;
        match (parsed, platform) {
            (ManifestOrIndex::Index(index), Some(wanted)) => match index.select(wanted) {
                Some(found) => at = reference.with_digest(found.digest.clone()),
                None => {
                    let found = index.manifests.iter().filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string).collect();
                    return Err(Error::NoPlatform { name: name(), wanted: wanted.clone(), found });
                }
            },
            (parsed, _) => {
                let descriptor = Descriptor::new(parsed.media_type(), fetched.digest, fetched.bytes.len() as u64);
                return Ok(RemoteDocument { bytes: fetched.bytes, descriptor });
            }
        }
    }
    Err(Error::NestedTooDeep { name: name(), limit: MAX_NESTING })
}

/// The image that `reference` stands for on `platform`, with its config.
pub async fn image(client: &Client, reference: &Reference, platform: &Platform) -> Result<RemoteImage, Error> {
    let name = || reference.written().to_owned();
    let top = client.resolve(reference).await?.digest;
    let at = reference.with_digest(top.clone());
    let found = manifest(client, &at, Some(platform)).await?;
    let parsed = ManifestOrIndex::parse(&found.bytes, Some(&found.descriptor.media_type));
    let manifest = match parsed.map_err(|source| Error::Manifest { name: name(), source })? {
        ManifestOrIndex::Manifest(manifest) => *manifest,
        ManifestOrIndex::Index(_) => return Err(Error::NestedTooDeep { name: name(), limit: MAX_NESTING }),
    };
    let config_bytes = read_blob(client, reference, &manifest.config).await?;
    let is_image = matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig);
    let failed = |source| Error::Config { name: name(), digest: manifest.config.digest.clone(), source };
    let config = if is_image { Some(serde_json::from_slice(&config_bytes).map_err(failed)?) } else { None };
    Ok(RemoteImage { top, digest: found.descriptor.digest, config_bytes, config, manifest })
}

/// A small blob, whole.
async fn read_blob(client: &Client, reference: &Reference, blob: &Descriptor) -> Result<Bytes, Error> {
    if blob.size > MAX_CONFIG {
        return Err(Error::TooLarge { what: "config", name: reference.written().to_owned(), size: blob.size });
    }
    let mut stream = client.fetch_blob(reference, blob).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next_chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}
