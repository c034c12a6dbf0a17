//! Images from one place to another, without unpacking anything: a registry, the store, an OCI layout, an archive.
//!
//! First the documents: [`collect`] follows the manifest (or index) that is meant to everything that belongs to it and makes a [`Collection`] of that. Then
//! the bytes: a sink ([`to_registry`], [`to_layout`], [`to_archive`], [`all_to_store`]) takes the blobs as streams, then the manifests, those that others point at first; the
//! name comes last. Documents keep their bytes, so digests stay what they are. Every byte is hashed on its way.

mod convert;
mod files;
mod registry;
mod source;
mod store;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::oci::{Descriptor, Digest, Manifest, ManifestOrIndex, MediaType, Platform, Reference};

use super::Error;

pub use convert::{ManifestFormat, convert};
pub use files::{ArchiveSink, Name, to_archive, to_dir, to_layout};
pub(super) use registry::tagged_as;
pub use registry::{Target, to_registry};
use source::plain;
pub use source::{LayoutSource, Source};
pub use store::{all_to_store, to_store};

/// How deep indexes may be nested.
const MAX_NESTING: usize = 4;

/// How many manifests one copy may have; all of them are held in memory.
const MAX_MANIFESTS: usize = 10_000;

/// How large a manifest may be.
pub(super) const MAX_MANIFEST: u64 = 16 << 20;

/// How large all manifests together may be.
const MAX_MANIFESTS_SIZE: u64 = 128 << 20;

/// Which of the images of an index are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The index itself, with all that it names.
    All,
    /// The image for one platform.
    Platform(Platform),
}

/// A manifest or an index as it is sent.
#[derive(Clone, Debug)]
pub struct Document {
    /// What points at it.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Bytes,
    /// The manifest that it is about (referrers).
    pub subject: Option<Descriptor>,
}

/// All that belongs to what is copied.
#[derive(Clone, Debug)]
pub struct Collection {
    /// What the name stands for at the destination.
    pub root: Descriptor,
    /// The manifests and indexes, each after those that it points at.
    pub documents: Vec<Document>,
    /// The blobs, each once.
    pub blobs: Vec<Descriptor>,
    /// The top-level documents that are only there because they are about another one.
    pub referrers: Vec<Descriptor>,
}

impl Collection {
    /// The platform of the image that a name of the whole stands for: `wanted`, or else that of the first one.
    pub fn platform_for(&self, wanted: &Platform) -> Platform {
        let root = self.documents.iter().find(|document| document.descriptor.digest == self.root.digest);
        match root.map(|root| ManifestOrIndex::parse(&root.bytes, Some(&root.descriptor.media_type))) {
            Some(Ok(ManifestOrIndex::Index(index))) if index.select(wanted).is_none() => {
                let mut platforms = index.manifests.iter().filter_map(|entry| entry.platform.clone());
                platforms.find(|platform| platform.os != "unknown").unwrap_or_else(|| wanted.clone())
            }
            _ => wanted.clone(),
        }
    }
}

/// Whether what `source` means may be called `name`: a name with a digest is that of the manifest or index that has it, and of nothing else.
///
/// # Errors
/// The source; the digest is another.
pub async fn check_digest(source: &Source, name: &Reference, platform: &Platform) -> Result<(), Error> {
    if name.digest().is_none() {
        return Ok(());
    }
    let found = image_manifest(source, platform).await?;
    same_digest(name, &[&found.top.digest, &found.descriptor.digest])
}

/// Refuses a name with another digest than one of `actual`.
///
/// # Errors
/// The digest is another.
pub fn same_digest(name: &Reference, actual: &[&Digest]) -> Result<(), Error> {
    match name.digest() {
        Some(wanted) if !actual.contains(&wanted) => {
            let actual = actual.iter().map(|digest| (*digest).clone()).collect();
            Err(Error::OtherDigest { name: name.written().to_owned(), actual })
        }
        _ => Ok(()),
    }
}

/// Follows what `source` means to all that belongs to it; with `referrers`, also to what is about any of it.
///
/// # Errors
/// The source; documents that are none, or too many; with [`Wanted::Platform`], an index without that platform.
pub async fn collect(source: &Source, wanted: &Wanted, referrers: bool) -> Result<Collection, Error> {
    let mut found = Collector { source, documents: Vec::new(), seen: HashSet::new(), blobs: Vec::new(), known: HashMap::new(), size: 0 };
    let root = match wanted {
        Wanted::All => source.root().await?,
        Wanted::Platform(platform) => image_manifest(source, platform).await?.descriptor,
    };
    found.add(root.clone(), 0).await?;
    let mut about = Vec::new();
    if referrers {
        // What is about a referrer is found in the same way: the list grows while it is read.
        let mut at = 0;
        while let Some(subject) = found.documents.get(at).map(|document| document.descriptor.digest.clone()) {
            for referrer in source.referrers(&subject).await? {
                if !found.seen.contains(&referrer.digest) {
                    about.push(referrer.clone());
                    found.add(referrer, 0).await?;
                }
            }
            at += 1;
        }
    }
    Ok(Collection { root, documents: found.documents, blobs: found.blobs, referrers: about })
}

/// Follows a manifest or an index of `source` to all that belongs to it.
///
/// # Errors
/// As [`collect`].
pub async fn collect_at(source: &Source, at: &Descriptor) -> Result<Collection, Error> {
    let root = plain(at);
    let mut found = Collector { source, documents: Vec::new(), seen: HashSet::new(), blobs: Vec::new(), known: HashMap::new(), size: 0 };
    found.add(root.clone(), 0).await?;
    Ok(Collection { root, documents: found.documents, blobs: found.blobs, referrers: Vec::new() })
}

/// The manifest of one image.
#[derive(Clone, Debug)]
pub(super) struct ImageAt {
    /// What the name stands for: this manifest, or the index that it is in.
    pub(super) top: Descriptor,
    /// What points at the manifest; its media type is what the manifest says.
    pub(super) descriptor: Descriptor,
    pub(super) manifest: Manifest,
    pub(super) bytes: Bytes,
}

/// The manifest of what `source` means, in an index the one for `platform`.
pub(super) async fn image_manifest(source: &Source, platform: &Platform) -> Result<ImageAt, Error> {
    let top = source.root().await?;
    let mut at = top.clone();
    for depth in 0..MAX_NESTING {
        let bytes = source.manifest(&at).await?;
        check_size(source, &at, depth, &bytes)?;
        match parse(source, &at, &bytes)? {
            ManifestOrIndex::Manifest(manifest) => {
                let media_type = manifest.media_type.clone().unwrap_or(MediaType::OciManifest);
                return Ok(ImageAt { top, descriptor: Descriptor { media_type, ..at }, manifest: *manifest, bytes });
            }
            ManifestOrIndex::Index(index) => {
                at = index.select(platform).cloned().ok_or_else(|| source.no_platform(&index, platform))?;
            }
        }
    }
    Err(Error::NestedTooDeep { name: source.name(), limit: MAX_NESTING })
}

/// The manifest that an entry of an index points at.
pub(super) async fn manifest_of_entry(source: &Source, top: &Descriptor, entry: &Descriptor) -> Result<ImageAt, Error> {
    let bytes = source.manifest(entry).await?;
    check_size(source, entry, 1, &bytes)?;
    match parse(source, entry, &bytes)? {
        ManifestOrIndex::Manifest(manifest) => {
            let media_type = manifest.media_type.clone().unwrap_or(MediaType::OciManifest);
            Ok(ImageAt { top: top.clone(), descriptor: Descriptor { media_type, ..entry.clone() }, manifest: *manifest, bytes })
        }
        ManifestOrIndex::Index(_) => {
            Err(Error::NotAnImage { name: source.name(), reason: format!("its entry {} is an index of its own", entry.digest) })
        }
    }
}

/// Compares the size of a document with what announced it. How large the one is that a name stands for, a registry tells before it is asked for it, and some tell it wrong.
fn check_size(source: &Source, at: &Descriptor, depth: usize, bytes: &Bytes) -> Result<(), Error> {
    let actual = bytes.len() as u64;
    if at.size == actual || (depth == 0 && matches!(source, Source::Registry { .. })) {
        return Ok(());
    }
    Err(Error::Size { name: source.name(), digest: at.digest.clone(), announced: at.size, actual })
}

fn parse(source: &Source, at: &Descriptor, bytes: &[u8]) -> Result<ManifestOrIndex, Error> {
    ManifestOrIndex::parse(bytes, Some(&at.media_type)).map_err(|error| Error::Manifest { name: source.name(), source: error })
}

struct Collector<'a> {
    source: &'a Source,
    documents: Vec<Document>,
    seen: HashSet<Digest>,
    blobs: Vec<Descriptor>,
    /// Sizes of blobs: two manifests that announce one blob with two sizes are both wrong.
    known: HashMap<Digest, u64>,
    size: u64,
}

impl Collector<'_> {
    /// Adds a document and all that it points at.
    async fn add(&mut self, at: Descriptor, depth: usize) -> Result<(), Error> {
        if !self.seen.insert(at.digest.clone()) {
            return Ok(());
        }
        if depth > MAX_NESTING {
            return Err(Error::NestedTooDeep { name: self.source.name(), limit: MAX_NESTING });
        }
        let bytes = self.source.manifest(&at).await?;
        check_size(self.source, &at, depth, &bytes)?;
        self.size += bytes.len() as u64;
        if self.seen.len() > MAX_MANIFESTS || self.size > MAX_MANIFESTS_SIZE {
            return Err(Error::TooLarge { what: "list of manifests", name: self.source.name(), size: self.size });
        }
        let parsed = parse(self.source, &at, &bytes)?;
        let media_type = parsed.media_type();
        let subject = match parsed {
            ManifestOrIndex::Manifest(manifest) => {
                for blob in manifest.layers.iter().chain([&manifest.config]) {
                    self.add_blob(blob)?;
                }
                manifest.subject
            }
            ManifestOrIndex::Index(index) => {
                for entry in &index.manifests {
                    // An index may also point at something else than manifests, which then is a blob.
                    match entry.media_type.is_manifest() || entry.media_type.is_index() {
                        true => Box::pin(self.add(entry.clone(), depth + 1)).await?,
                        false => self.add_blob(entry)?,
                    }
                }
                index.subject
            }
        };
        self.documents.push(Document { descriptor: Descriptor { media_type, ..at }, bytes, subject });
        Ok(())
    }

    fn add_blob(&mut self, blob: &Descriptor) -> Result<(), Error> {
        // Layers that may not be given away are where their manifest says.
        if blob.is_elsewhere() {
            return Ok(());
        }
        match self.known.insert(blob.digest.clone(), blob.size) {
            None => self.blobs.push(Descriptor::new(blob.media_type.clone(), blob.digest.clone(), blob.size)),
            Some(size) if size == blob.size => {}
            Some(actual) => {
                let (name, digest) = (self.source.name(), blob.digest.clone());
                return Err(Error::Size { name, digest, announced: blob.size, actual });
            }
        }
        Ok(())
    }
}
