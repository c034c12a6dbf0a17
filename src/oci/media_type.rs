//! Media types of OCI and Docker content.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The media type of a blob or manifest: the ones that we act on, or another's text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MediaType {
    /// OCI image manifest.
    OciManifest,
    /// OCI image index.
    OciIndex,
    /// OCI image config.
    OciConfig,
    /// OCI layer, not compressed.
    OciLayer,
    /// OCI layer, gzip.
    OciLayerGzip,
    /// OCI layer, zstd.
    OciLayerZstd,
    /// The empty JSON object, for artifacts without config.
    OciEmpty,
    /// Docker schema 2 manifest.
    DockerManifest,
    /// Docker manifest list.
    DockerManifestList,
    /// Docker image config.
    DockerConfig,
    /// Docker layer, gzip.
    DockerLayerGzip,
    /// Docker layer, not compressed.
    DockerLayer,
    /// Docker layer, zstd.
    DockerLayerZstd,
    /// Docker layer that is kept elsewhere (Windows bases).
    DockerForeignLayer,
    /// Docker schema 1 manifest, which is refused.
    DockerSchema1,
    /// Anything else.
    Other(String),
}

/// The text of each known type; [`MediaType::as_str`] and parsing both read it.
const KNOWN: &[(MediaType, &str)] = &[
    (MediaType::OciManifest, "application/vnd.oci.image.manifest.v1+json"),
    (MediaType::OciIndex, "application/vnd.oci.image.index.v1+json"),
    (MediaType::OciConfig, "application/vnd.oci.image.config.v1+json"),
    (MediaType::OciLayer, "application/vnd.oci.image.layer.v1.tar"),
    (MediaType::OciLayerGzip, "application/vnd.oci.image.layer.v1.tar+gzip"),
    (MediaType::OciLayerZstd, "application/vnd.oci.image.layer.v1.tar+zstd"),
    (MediaType::OciEmpty, "application/vnd.oci.empty.v1+json"),
    (MediaType::DockerManifest, "application/vnd.docker.distribution.manifest.v2+json"),
    (MediaType::DockerManifestList, "application/vnd.docker.distribution.manifest.list.v2+json"),
    (MediaType::DockerConfig, "application/vnd.docker.container.image.v1+json"),
    (MediaType::DockerLayerGzip, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    (MediaType::DockerLayer, "application/vnd.docker.image.rootfs.diff.tar"),
    (MediaType::DockerLayerZstd, "application/vnd.docker.image.rootfs.diff.tar.zstd"),
    (MediaType::DockerForeignLayer, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"),
    (MediaType::DockerSchema1, "application/vnd.docker.distribution.manifest.v1+prettyjws"),
];

impl MediaType {
    /// Recognises a media type; parameters after `;` are dropped.
    pub fn parse(text: &str) -> MediaType {
        let name = text.split(';').next().unwrap_or(text).trim();
        if name == "application/vnd.docker.distribution.manifest.v1+json" {
            return MediaType::DockerSchema1;
        }
        KNOWN
            .iter()
            .find(|(_, known)| name.eq_ignore_ascii_case(known))
            .map_or_else(|| MediaType::Other(name.to_owned()), |(kind, _)| kind.clone())
    }

    /// The media type as text.
    pub fn as_str(&self) -> &str {
        if let MediaType::Other(text) = self {
            return text;
        }
        KNOWN.iter().find(|(kind, _)| kind == self).map_or("application/octet-stream", |(_, text)| text)
    }

    /// Whether this names a manifest of one image.
    pub fn is_manifest(&self) -> bool {
        matches!(self, MediaType::OciManifest | MediaType::DockerManifest)
    }

    /// Whether this names a list of manifests.
    pub fn is_index(&self) -> bool {
        matches!(self, MediaType::OciIndex | MediaType::DockerManifestList)
    }

    /// Whether this names a file system layer that we can unpack.
    pub fn is_layer(&self) -> bool {
        matches!(
            self,
            MediaType::OciLayer
                | MediaType::OciLayerGzip
                | MediaType::OciLayerZstd
                | MediaType::DockerLayer
                | MediaType::DockerLayerGzip
                | MediaType::DockerLayerZstd
        )
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<MediaType, D::Error> {
        Ok(MediaType::parse(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_type_survives_text() {
        for (kind, text) in KNOWN {
            assert_eq!(&MediaType::parse(text), kind);
            assert_eq!(kind.as_str(), *text);
        }
    }

    #[test]
    fn parameters_are_dropped() {
        assert_eq!(MediaType::parse("application/vnd.oci.image.index.v1+json; charset=utf-8"), MediaType::OciIndex);
    }
}
