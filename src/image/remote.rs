//! What is told of images where they are, at a registry mostly: their manifests and configs. No image goes into the store.

use bytes::Bytes;

use crate::oci::{Descriptor, Digest, ImageConfig, Manifest, ManifestOrIndex, MediaType, Platform, Reference};
use crate::registry::Client;

use super::Error;
use super::copy::{Source, image_manifest};

/// How deep indexes may be nested.
const MAX_NESTING: usize = 4;

/// How large a config may be.
const MAX_CONFIG: u64 = 8 << 20;

/// A manifest or an index with its bytes as they are.
#[derive(Clone, Debug)]
pub struct RemoteDocument {
    /// Its bytes.
    pub bytes: Bytes,
    /// What points at it.
    pub descriptor: Descriptor,
}

/// An image where it is.
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
async fn manifest(client: &Client, reference: &Reference, platform: Option<&Platform>) -> Result<RemoteDocument, Error> {
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
                    let found = index.platforms();
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

/// The manifest or index that a source means; with `platform`, the manifest for that.
pub async fn document(source: &Source, platform: Option<&Platform>) -> Result<RemoteDocument, Error> {
    match (source, platform) {
        // Asked for at once: the answer to a mere look does not say what is wrong.
        (Source::Registry { client, reference }, _) => manifest(client, reference, platform).await,
        (_, Some(platform)) => {
            let found = image_manifest(source, platform).await?;
            Ok(RemoteDocument { bytes: found.bytes, descriptor: found.descriptor })
        }
        (_, None) => {
            let descriptor = source.root().await?;
            Ok(RemoteDocument { bytes: source.manifest(&descriptor).await?, descriptor })
        }
    }
}

/// The image that a source means on `platform`, with its config.
pub async fn image(source: &Source, platform: &Platform) -> Result<RemoteImage, Error> {
    let found = image_manifest(source, platform).await?;
    let manifest = found.manifest;
    let config_bytes = source.small_blob(&manifest.config, MAX_CONFIG).await?;
    let is_image = matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig);
    let failed = |error| Error::Config { name: source.name(), digest: manifest.config.digest.clone(), source: error };
    let config = if is_image { Some(serde_json::from_slice(&config_bytes).map_err(failed)?) } else { None };
    Ok(RemoteImage { top: found.top.digest, digest: found.descriptor.digest, config_bytes, config, manifest })
}
