//! Caches that travel: what a build writes down of its steps for another store, and what is believed of such a document.
//!
//! A document lists *records*. A record says under which keys a step is found, what its result was called where it was made (later steps' keys are made of
//! that name), and which layer the step added; the layers below are found by the importing build itself, by its own graph. So a cache can only ever give
//! layers for keys that the build has computed, and the names in it serve for nothing but further lookups in the same cache (see [`super::Imports`]).
//!
//! The document is foreign input: everything in it is bounded and checked before it is used. `docs/cache.md` describes it for other tools.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::oci::{Descriptor, DiffId};

use super::{CacheKey, Components, KEY_VERSION};

/// The media type of the document, which is the config of the cache's manifest.
pub const CONFIG_TYPE: &str = "application/vnd.strake.cache.config.v1+json";

/// The artifact type of the cache's manifest.
pub const ARTIFACT_TYPE: &str = "application/vnd.strake.cache.v1";

/// The field of an image's config that holds the document of an inline cache.
pub const INLINE_FIELD: &str = "strake.cache.v1";

/// How large a document may be, in bytes: it is read into memory.
pub const MAX_DOCUMENT: u64 = 16 << 20;

/// How many records and layers a document may have.
const MAX_RECORDS: usize = 50_000;
const MAX_LAYERS: usize = 10_000;

/// How many keys a record may have. A build knows two: by definition and by content.
pub(super) const MAX_KEYS: usize = 16;

/// How much of a document may be explanations, in bytes.
const EXPLANATIONS: usize = 4 << 20;

/// The version of documents that this version writes and reads.
const VERSION: u32 = 1;

/// What a cache says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    version: u32,
    key_version: u32,
    /// Of each layer of the manifest, in the same order, its diff ID. Empty in an image, whose config lists them itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    layers: Vec<DiffId>,
    records: Vec<Record>,
}

/// What a cache says of one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The keys that the step is found by.
    pub keys: Vec<CacheKey>,
    /// What the result is called in the keys of later steps.
    pub result: CacheKey,
    /// Which layer the step added; a record without one only names the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// When the step ran, RFC 3339, to the microsecond: the image's history says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Which step it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepName>,
    /// What the key was made of, to name the reason of a miss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<Components>,
}

/// A step's place in its Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StepName {
    /// The stage.
    pub stage: String,
    /// The instruction.
    pub text: String,
    /// The number in its stage.
    pub position: usize,
    /// What it was done for, such as `linux/amd64`; older documents do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
}

/// Why a document is not believed.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not the JSON that was expected.
    #[error("its config is malformed")]
    Json(#[source] serde_json::Error),
    /// It is larger than anything that we write.
    #[error("its config has {size} bytes, and more than {MAX_DOCUMENT} are not read")]
    TooLarge {
        /// Its size.
        size: u64,
    },
    /// It is of another version.
    #[error("it has the version {found}, and this version of strake reads {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// Its keys are made otherwise than ours.
    #[error("its keys have the version {found} and ours {KEY_VERSION}, so nothing in it would be found")]
    KeyVersion {
        /// Its version.
        found: u32,
    },
    /// It has too many of something.
    #[error("it has {count} {what}, and more than {limit} are not read")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are read.
        limit: usize,
    },
    /// It does not fit its manifest.
    #[error("its manifest lists {manifest} layers and its config {config}")]
    LayerCount {
        /// Layers of the manifest.
        manifest: usize,
        /// Layers of the config.
        config: usize,
    },
    /// A record names a layer that there is not, or a layer is none.
    #[error("it is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
}

/// A layer that a cache offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedLayer {
    /// The blob.
    pub blob: Descriptor,
    /// What it hashes to, unpacked.
    pub diff_id: DiffId,
    /// When its step ran.
    pub created: Option<SystemTime>,
}

/// A cache that was read and believed.
#[derive(Clone, Debug)]
pub struct ImportedCache {
    /// What it is called in messages.
    pub name: String,
    records: Vec<Record>,
    layers: Vec<(Descriptor, DiffId)>,
    by_key: HashMap<CacheKey, usize>,
}

impl Document {
    /// A document of `records` over the layers `layers`. What would make it too large of the explanations is left out, the largest first.
    pub fn new(layers: Vec<DiffId>, mut records: Vec<Record>) -> Document {
        let mut sizes: Vec<(usize, usize)> = Vec::new();
        for (at, record) in records.iter_mut().enumerate() {
            record.components = record.components.take().map(Components::abridged);
            let size = record.components.as_ref().map_or(0, |components| serde_json::to_vec(components).map_or(0, |bytes| bytes.len()));
            sizes.push((size, at));
        }
        let mut total: usize = sizes.iter().map(|(size, _)| size).sum();
        sizes.sort_unstable();
        while total > EXPLANATIONS
            && let Some((size, at)) = sizes.pop()
        {
            records[at].components = None;
            total -= size;
        }
        Document { version: VERSION, key_version: KEY_VERSION, layers, records }
    }

    /// The document as bytes, the same for the same content.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a document holds nothing that JSON cannot")
    }

    /// The document as the value of [`INLINE_FIELD`].
    pub fn to_value(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a document holds nothing that JSON cannot")
    }
}

impl ImportedCache {
    /// Reads the config `bytes` of a cache whose manifest lists `blobs`.
    ///
    /// # Errors
    /// Anything in it that is not as we write it.
    pub fn parse(name: String, bytes: &[u8], blobs: Vec<Descriptor>) -> Result<ImportedCache, DocumentError> {
        let size = bytes.len() as u64;
        if size > MAX_DOCUMENT {
            return Err(DocumentError::TooLarge { size });
        }
        let document: Document = serde_json::from_slice(bytes).map_err(DocumentError::Json)?;
        let diff_ids = document.layers.clone();
        ImportedCache::believe(name, document, blobs, diff_ids)
    }

    /// Reads the document `value` in the config of an image whose layers are `blobs` and `diff_ids`.
    ///
    /// # Errors
    /// Anything in it that is not as we write it.
    pub fn parse_inline(
        name: String,
        value: &serde_json::Value,
        blobs: Vec<Descriptor>,
        diff_ids: Vec<DiffId>,
    ) -> Result<ImportedCache, DocumentError> {
        let document = Document::deserialize(value).map_err(DocumentError::Json)?;
        ImportedCache::believe(name, document, blobs, diff_ids)
    }

    fn believe(name: String, document: Document, blobs: Vec<Descriptor>, diff_ids: Vec<DiffId>) -> Result<ImportedCache, DocumentError> {
        let Document { version, key_version, records, .. } = document;
        if version != VERSION {
            return Err(DocumentError::Version { found: version });
        }
        if key_version != KEY_VERSION {
            return Err(DocumentError::KeyVersion { found: key_version });
        }
        for (what, count, limit) in [("records", records.len(), MAX_RECORDS), ("layers", blobs.len(), MAX_LAYERS)] {
            if count > limit {
                return Err(DocumentError::TooMany { what, count, limit });
            }
        }
        if blobs.len() != diff_ids.len() {
            return Err(DocumentError::LayerCount { manifest: blobs.len(), config: diff_ids.len() });
        }
        let mut by_key = HashMap::with_capacity(records.len());
        for (at, record) in records.iter().enumerate() {
            if record.keys.len() > MAX_KEYS {
                return Err(DocumentError::TooMany { what: "keys in one record", count: record.keys.len(), limit: MAX_KEYS });
            }
            let layer = record.layer.map(|layer| blobs.get(layer));
            if let Some(None) = layer {
                return Err(DocumentError::Damaged {
                    reason: format!("a record names the layer {}, and there are {}", record.layer.unwrap_or(0), blobs.len()),
                });
            }
            if let Some(Some(blob)) = layer
                && !blob.media_type.is_layer()
            {
                return Err(DocumentError::Damaged { reason: format!("a layer has the type `{}`", blob.media_type) });
            }
            for key in &record.keys {
                by_key.entry(*key).or_insert(at);
            }
        }
        Ok(ImportedCache { name, records, layers: blobs.into_iter().zip(diff_ids).collect(), by_key })
    }

    /// The record of a key.
    pub(super) fn record(&self, key: &CacheKey) -> Option<&Record> {
        self.by_key.get(key).map(|at| &self.records[*at])
    }

    /// The layer of a record.
    pub(super) fn layer(&self, record: &Record) -> Option<OfferedLayer> {
        let (blob, diff_id) = self.layers.get(record.layer?)?.clone();
        let created = record.created.as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok()).map(SystemTime::from);
        Some(OfferedLayer { blob, diff_id, created })
    }

    /// What the step of that text, else at that place, was made of.
    pub(super) fn components_of(&self, step: &StepName) -> Option<&Components> {
        let of = |fits: &dyn Fn(&StepName) -> bool| {
            let fits = |known: &StepName| fits(known) && (known.platform.is_none() || known.platform == step.platform);
            self.records.iter().find(|record| record.step.as_ref().is_some_and(fits)).and_then(|record| record.components.as_ref())
        };
        of(&|known| known.stage == step.stage && known.text == step.text)
            .or_else(|| of(&|known| known.stage == step.stage && known.position == step.position))
    }

    /// How many records and how many different layers there are.
    pub fn count(&self) -> (usize, usize) {
        let layers: HashSet<_> = self.layers.iter().map(|(blob, _)| &blob.digest).collect();
        (self.records.len(), layers.len())
    }
}
