//! A collection in the other format: OCI's documents as Docker's, or the other way round. Blobs stay what they are; documents, and so digests, change.

use std::collections::HashMap;

use crate::image::Error;
use crate::image::blobs::{as_docker, as_oci};
use crate::oci::{Descriptor, Digest, Index, Manifest, ManifestOrIndex, MediaType};

use super::{Collection, Document};

/// In which format manifests and indexes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManifestFormat {
    /// The OCI image specification's.
    Oci,
    /// Docker's schema 2 and manifest lists.
    Docker,
}

impl ManifestFormat {
    fn manifest(self) -> MediaType {
        if self == ManifestFormat::Oci { MediaType::OciManifest } else { MediaType::DockerManifest }
    }

    fn index(self) -> MediaType {
        if self == ManifestFormat::Oci { MediaType::OciIndex } else { MediaType::DockerManifestList }
    }

    fn config(self) -> MediaType {
        if self == ManifestFormat::Oci { MediaType::OciConfig } else { MediaType::DockerConfig }
    }

    fn layer(self, kind: MediaType) -> MediaType {
        if self == ManifestFormat::Oci { as_oci(kind) } else { as_docker(kind) }
    }
}

/// Makes all documents of a collection, which messages call `name`, ones of `format`; those that are keep their bytes.
///
/// # Errors
/// Something that the format has no word for: artifacts, what is about another manifest.
pub fn convert(what: Collection, format: ManifestFormat, name: &str) -> Result<Collection, Error> {
    let mut converted = Converted { format, name, known: HashMap::new() };
    let mut documents = Vec::with_capacity(what.documents.len());
    // Each comes after those that it points at.
    for document in what.documents {
        let was = document.descriptor.digest.clone();
        let document = converted.document(document)?;
        converted.known.insert(was, document.descriptor.clone());
        documents.push(document);
    }
    if !what.referrers.is_empty() && converted.known.iter().any(|(was, now)| *was != now.digest) {
        return Err(converted.impossible("signatures and the like are about the manifests as they are"));
    }
    let root = converted.known.get(&what.root.digest).cloned().unwrap_or(what.root);
    Ok(Collection { root, documents, blobs: what.blobs, referrers: what.referrers })
}

struct Converted<'a> {
    format: ManifestFormat,
    name: &'a str,
    /// What has become of the documents so far.
    known: HashMap<Digest, Descriptor>,
}

impl Converted<'_> {
    fn impossible(&self, reason: &str) -> Error {
        let format = if self.format == ManifestFormat::Oci { "OCI's format" } else { "Docker's format" };
        Error::NotAnImage { name: self.name.to_owned(), reason: format!("it cannot be in {format}: {reason}") }
    }

    fn document(&self, document: Document) -> Result<Document, Error> {
        let named = |source| Error::Manifest { name: self.name.to_owned(), source };
        let parsed = ManifestOrIndex::parse(&document.bytes, Some(&document.descriptor.media_type)).map_err(named)?;
        let (kind, bytes) = match parsed {
            ManifestOrIndex::Manifest(manifest) => {
                let kind = self.format.manifest();
                if manifest.media_type.as_ref() == Some(&kind) {
                    return Ok(document);
                }
                (kind, serde_json::to_vec(&self.manifest(*manifest)?))
            }
            ManifestOrIndex::Index(index) => {
                let kind = self.format.index();
                if index.media_type.as_ref() == Some(&kind)
                    && index.manifests.iter().all(|entry| self.known.get(&entry.digest).is_none_or(|now| now.digest == entry.digest))
                {
                    return Ok(document);
                }
                (kind, serde_json::to_vec(&self.index(*index)?))
            }
        };
        let bytes = bytes.expect("a document holds nothing that JSON cannot");
        let descriptor =
            Descriptor { platform: document.descriptor.platform, ..Descriptor::new(kind, Digest::sha256(&bytes), bytes.len() as u64) };
        Ok(Document { descriptor, bytes: bytes.into(), subject: document.subject })
    }

    fn manifest(&self, mut manifest: Manifest) -> Result<Manifest, Error> {
        if !matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig) || manifest.artifact_type.is_some() {
            return Err(self.impossible("it is an artifact"));
        }
        if self.format == ManifestFormat::Docker {
            if manifest.subject.is_some() {
                return Err(self.impossible("it is about another manifest"));
            }
            if let Some(layer) = manifest.layers.iter().find(|layer| matches!(layer.media_type, MediaType::Other(_) | MediaType::OciEmpty))
            {
                return Err(self.impossible(&format!("it has a layer of the type `{}`", layer.media_type)));
            }
            manifest.annotations.clear();
        }
        manifest.media_type = Some(self.format.manifest());
        manifest.config.media_type = self.format.config();
        for layer in &mut manifest.layers {
            layer.media_type = self.format.layer(layer.media_type.clone());
            if self.format == ManifestFormat::Docker {
                layer.annotations.clear();
            }
        }
        Ok(manifest)
    }

    fn index(&self, mut index: Index) -> Result<Index, Error> {
        if self.format == ManifestFormat::Docker {
            if index.subject.is_some() || index.artifact_type.is_some() {
                return Err(self.impossible("its index is an artifact, or about another manifest"));
            }
            index.annotations.clear();
        }
        index.media_type = Some(self.format.index());
        for entry in &mut index.manifests {
            if let Some(now) = self.known.get(&entry.digest) {
                (entry.media_type, entry.digest, entry.size) = (now.media_type.clone(), now.digest.clone(), now.size);
            }
            if self.format == ManifestFormat::Docker {
                entry.annotations.clear();
            }
        }
        Ok(index)
    }
}
