//! Manifests and indexes (image-spec 1.1, "Image Manifest" and "Image Index"; Docker's schema 2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Descriptor, MediaType, Platform};

/// A manifest of one image: its config and its layers, bottom first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// The manifest's own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The config blob.
    pub config: Descriptor,
    /// The layers, bottom first. Go writes an empty list as `null`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one is about (referrers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A list of manifests, one for each platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// The index's own media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The manifests (or nested indexes).
    #[serde(default, deserialize_with = "null_is_empty")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this one is about (referrers).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form remarks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Descriptor>, D::Error> {
    Ok(Option::<Vec<Descriptor>>::deserialize(deserializer)?.unwrap_or_default())
}

/// What a reference led to: one image, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestOrIndex {
    /// One image.
    Manifest(Box<Manifest>),
    /// A list of images.
    Index(Box<Index>),
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes are not the JSON that was expected.
    #[error("the manifest is malformed")]
    Json(#[source] serde_json::Error),
    /// A Docker schema 1 manifest.
    #[error("the manifest has Docker's schema 1, which no client since 2017 writes: push the image again with a current tool")]
    Schema1,
    /// The media type is of something else.
    #[error("the manifest has the media type `{0}`: expected an image manifest or an image index")]
    UnknownType(MediaType),
    /// Both a manifest's and an index's fields: such documents are read differently by different clients (CVE-2021-41190).
    #[error("the manifest has both `manifests` and `layers` or `config`: it is ambiguous, so it is refused")]
    Ambiguous,
}

/// The fields that tell manifests apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: u32,
    media_type: Option<MediaType>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl ManifestOrIndex {
    /// Parses a manifest or an index. `content_type` is what the transport said, used where the document does not say itself.
    ///
    /// # Errors
    /// Malformed JSON, schema 1, an unknown type, or a document that is both kinds at once.
    pub fn parse(bytes: &[u8], content_type: Option<&MediaType>) -> Result<ManifestOrIndex, ManifestError> {
        let shape: Shape = serde_json::from_slice(bytes).map_err(ManifestError::Json)?;
        if shape.schema_version == 1 {
            return Err(ManifestError::Schema1);
        }
        if shape.manifests.is_some() && (shape.layers.is_some() || shape.config.is_some()) {
            return Err(ManifestError::Ambiguous);
        }
        let declared = shape.media_type.as_ref().or(content_type);
        let is_index = match declared {
            Some(kind) if kind.is_index() => true,
            Some(kind) if kind.is_manifest() => false,
            Some(MediaType::DockerSchema1) => return Err(ManifestError::Schema1),
            // `application/json` and the like: old registries send it for everything.
            Some(kind) if shape.media_type.is_some() => return Err(ManifestError::UnknownType(kind.clone())),
            _ => shape.manifests.is_some(),
        };
        if is_index {
            serde_json::from_slice(bytes).map(Box::new).map(ManifestOrIndex::Index).map_err(ManifestError::Json)
        } else {
            serde_json::from_slice(bytes).map(Box::new).map(ManifestOrIndex::Manifest).map_err(ManifestError::Json)
        }
    }

    /// The media type to send this document under.
    pub fn media_type(&self) -> MediaType {
        match self {
            ManifestOrIndex::Manifest(manifest) => manifest.media_type.clone().unwrap_or(MediaType::OciManifest),
            ManifestOrIndex::Index(index) => index.media_type.clone().unwrap_or(MediaType::OciIndex),
        }
    }
}

impl Index {
    /// An index of nothing.
    pub fn empty() -> Index {
        Index {
            schema_version: 2,
            media_type: Some(MediaType::OciIndex),
            artifact_type: None,
            manifests: Vec::new(),
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    /// What the images of this index run on, as far as it says.
    pub fn platforms(&self) -> Vec<String> {
        let images = self.manifests.iter().filter(|entry| entry.media_type.is_manifest() || entry.media_type.is_index());
        images.filter_map(|entry| entry.platform.as_ref()).map(ToString::to_string).collect()
    }

    /// The manifest for `wanted`: an exact match, else the nearest that runs there (a lower variant of `arm`; no platform given at all).
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        let images = || self.manifests.iter().filter(|d| d.media_type.is_manifest() || d.media_type.is_index());
        let exact = images().find(|d| d.platform.as_ref().is_some_and(|p| p.matches(wanted)));
        let other = || runs_also(wanted).and_then(|other| lower_variant(images(), &other));
        exact.or_else(|| lower_variant(images(), wanted)).or_else(other).or_else(|| {
            // An index of one image without a platform (as `oras` and old tools write) is that image.
            let mut plain = images().filter(|d| d.platform.is_none());
            match (plain.next(), plain.next()) {
                (Some(only), None) => Some(only),
                _ => None,
            }
        })
    }
}

/// The older processor whose programs run on one for `wanted`, as containerd has it.
fn runs_also(wanted: &Platform) -> Option<Platform> {
    match wanted.normalised().architecture.as_str() {
        "amd64" => Some(Platform::new(&wanted.os, "386", None)),
        "arm64" => Some(Platform::new(&wanted.os, "arm", Some("v8"))),
        _ => None,
    }
}

/// `arm/v7` runs images for `arm/v6` and `arm/v5`; the highest that fits is taken.
fn lower_variant<'a>(images: impl Iterator<Item = &'a Descriptor>, wanted: &Platform) -> Option<&'a Descriptor> {
    let wanted = wanted.normalised();
    let limit = wanted.variant.clone().unwrap_or_default();
    images
        .filter_map(|d| Some((d, d.platform.as_ref()?.normalised())))
        .filter(|(_, p)| p.os == wanted.os && p.architecture == wanted.architecture && p.has_version_of(&wanted))
        .filter(|(_, p)| p.variant.clone().unwrap_or_default() <= limit)
        .max_by_key(|(_, p)| p.variant.clone())
        .map(|(d, _)| d)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Digest;

    fn index(platforms: &[&str]) -> Index {
        let manifests = platforms.iter().enumerate().map(|(i, p)| Descriptor {
            platform: Some(p.parse().unwrap()),
            ..Descriptor::new(MediaType::OciManifest, Digest::sha256(&[i as u8]), 1)
        });
        Index {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            manifests: manifests.collect(),
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn index_selects_exact_platform_then_lower_variant() {
        let index = index(&["linux/amd64", "linux/arm/v5", "linux/arm/v6", "linux/arm64"]);
        let pick = |p: &str| index.select(&p.parse().unwrap()).map(|d| d.digest.clone());
        assert_eq!(pick("linux/arm64"), Some(Digest::sha256(&[3])));
        assert_eq!(pick("linux/arm/v7"), Some(Digest::sha256(&[2])));
        assert_eq!(pick("linux/riscv64"), None);
    }

    #[test]
    fn a_version_of_windows_is_the_same_up_to_its_build_and_no_other_takes_its_place() {
        let index = index(&["windows(10.0.17763.5)/amd64", "windows(10.0.20348.7)/amd64", "windows(10.0.26100.1)/amd64"]);
        let pick = |p: &str| index.select(&p.parse().unwrap()).map(|d| d.digest.clone());
        assert_eq!(pick("windows(10.0.20348)/amd64"), Some(Digest::sha256(&[1])));
        assert_eq!(pick("windows(10.0.20348.9)/amd64"), Some(Digest::sha256(&[1])));
        assert_eq!(pick("windows(10.0.99999)/amd64"), None);
        assert_eq!(pick("windows/amd64"), Some(Digest::sha256(&[0])));
    }

    #[test]
    fn a_64_bit_processor_takes_the_32_bit_image_where_there_is_no_other() {
        let index = index(&["linux/386", "linux/arm/v6", "linux/arm/v7", "windows/amd64"]);
        let pick = |p: &str| index.select(&p.parse().unwrap()).map(|d| d.digest.clone());
        assert_eq!(pick("linux/amd64"), Some(Digest::sha256(&[0])));
        assert_eq!(pick("linux/amd64/v3"), Some(Digest::sha256(&[0])));
        assert_eq!(pick("linux/arm64"), Some(Digest::sha256(&[2])));
        assert_eq!(pick("linux/386"), Some(Digest::sha256(&[0])));
        assert_eq!(pick("linux/arm/v5"), None);
    }

    #[test]
    fn a_lower_variant_of_amd64_is_the_nearest() {
        let index = index(&["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"]);
        let pick = |p: &str| index.select(&p.parse().unwrap()).map(|d| d.digest.clone());
        assert_eq!(pick("linux/amd64/v3"), Some(Digest::sha256(&[1])));
        assert_eq!(pick("linux/amd64"), Some(Digest::sha256(&[0])));
    }

    #[test]
    fn null_layers_are_no_layers() {
        let config = Descriptor::new(MediaType::OciConfig, Digest::sha256(b"{}"), 2);
        let text = format!(r#"{{"schemaVersion":2,"config":{},"layers":null}}"#, serde_json::to_string(&config).unwrap());
        let ManifestOrIndex::Manifest(manifest) = ManifestOrIndex::parse(text.as_bytes(), None).unwrap() else { panic!() };
        assert!(manifest.layers.is_empty());
    }

    #[test]
    fn ambiguous_and_schema_1_documents_are_refused() {
        let both = br#"{"schemaVersion":2,"manifests":[],"layers":[]}"#;
        assert!(matches!(ManifestOrIndex::parse(both, None), Err(ManifestError::Ambiguous)));
        let old = br#"{"schemaVersion":1,"name":"x"}"#;
        assert!(matches!(ManifestOrIndex::parse(old, None), Err(ManifestError::Schema1)));
    }
}
