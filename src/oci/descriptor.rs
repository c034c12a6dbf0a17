//! Descriptors: how one blob points at another (image-spec 1.1, "Content Descriptors").

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Digest, MediaType, Platform};

/// A pointer to content: what it is, its digest and its size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    pub media_type: MediaType,
    /// The digest of the content.
    pub digest: Digest,
    /// The size of the content in bytes.
    pub size: u64,
    /// Where else the content may be fetched (foreign layers).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free-form remarks, sorted by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The content itself, in base64, where it was small enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The platform that the image runs on (in an index).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The type of an artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// Whether this is a layer that may not be given away: it is where its `urls` say, and registries need not have it.
    pub fn is_elsewhere(&self) -> bool {
        let kind = self.media_type.as_str();
        let is_foreign =
            self.media_type == MediaType::DockerForeignLayer || kind.starts_with("application/vnd.oci.image.layer.nondistributable.v1.tar");
        is_foreign && !self.urls.is_empty()
    }

    /// Whether builders say by an annotation that this entry of an index is no image but a remark about one (its provenance, for instance).
    pub fn is_remark(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type") || self.remark_about().is_some()
    }

    /// The digest of the image that such a remark is about.
    pub fn remark_about(&self) -> Option<&str> {
        self.annotations.get("vnd.docker.reference.digest").map(String::as_str)
    }

    /// A descriptor with nothing but the three required fields.
    pub fn new(media_type: MediaType, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type,
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
        }
    }
}
