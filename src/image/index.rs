//! Indexes that are put together: images of several places, one for each platform.
//!
//! An [`IndexDraft`] knows of each entry where it is, so that [`IndexDraft::finish`]'s document can be sent anywhere, with the images that it names. There is one image
//! for a platform: one that is added takes the place of the one before, and of what was said about that (attestations). What is not changed keeps its
//! bytes.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::oci::{Descriptor, Digest, ImageConfig, Index, Manifest, ManifestOrIndex, MediaType, Platform};

use super::Error;
use super::copy::Source;

/// How large a config may be.
const MAX_CONFIG: u64 = 8 << 20;

/// An index that is being put together.
pub struct IndexDraft {
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its entries.
    pub entries: Vec<IndexEntry>,
    docker_types: DockerTypes,
    artifact_type: Option<String>,
    subject: Option<Descriptor>,
    original: Option<(Index, Bytes)>,
}

/// Whether an index is a manifest list of Docker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DockerTypes {
    /// If all that it names is Docker's.
    AsEntries,
    /// It is one, as long as all that it names is Docker's.
    Yes,
    /// It is none.
    No,
}

/// An entry, and where what it names is.
#[derive(Clone)]
pub struct IndexEntry {
    /// The entry.
    pub descriptor: Descriptor,
    /// Where it is.
    pub source: Source,
}

/// How images are added.
#[derive(Clone, Debug, Default)]
pub struct AddOptions {
    /// Only the images for these platforms; all where there are none.
    pub keep: Vec<Platform>,
    /// What a single image is said to be for, whatever its config says.
    pub set_platform: Option<Platform>,
    /// Whether an index is added as it is, and not what it names.
    pub nested: bool,
}

/// What an entry of an index is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// By its digest.
    Digest(Digest),
    /// By its platform.
    Platform(Platform),
}

impl IndexDraft {
    /// An index of nothing; with `docker_types` a manifest list.
    pub fn empty(docker_types: bool) -> IndexDraft {
        IndexDraft {
            annotations: BTreeMap::new(),
            entries: Vec::new(),
            docker_types: if docker_types { DockerTypes::Yes } else { DockerTypes::AsEntries },
            artifact_type: None,
            subject: None,
            original: None,
        }
    }

    /// The index that `source` means.
    ///
    /// # Errors
    /// The source; it is no index.
    pub async fn of_source(source: &Source) -> Result<IndexDraft, Error> {
        let (_, bytes, parsed) = root(source).await?;
        match parsed {
            ManifestOrIndex::Index(index) => Ok(IndexDraft::of_index(*index, bytes, source)),
            ManifestOrIndex::Manifest(_) => {
                let reason = "it is the manifest of one image".to_owned();
                Err(Error::NotAnIndex { name: source.name(), reason })
            }
        }
    }

    fn of_index(index: Index, bytes: Bytes, source: &Source) -> IndexDraft {
        let docker = index.media_type == Some(MediaType::DockerManifestList);
        IndexDraft {
            annotations: index.annotations.clone(),
            entries: entries_of(&index, source),
            docker_types: if docker { DockerTypes::Yes } else { DockerTypes::No },
            artifact_type: index.artifact_type.clone(),
            subject: index.subject.clone(),
            original: Some((index, bytes)),
        }
    }

    /// Adds what `source` means: an image, or the images of an index. Gives the entries that were replaced.
    ///
    /// # Errors
    /// The source; it has nothing for the platforms that are wanted.
    pub async fn add(&mut self, source: &Source, options: &AddOptions) -> Result<Vec<Descriptor>, Error> {
        let (at, bytes, parsed) = root(source).await?;
        let new = match parsed {
            ManifestOrIndex::Index(index) if !options.nested => {
                if self.entries.is_empty() && self.original.is_none() && self.docker_types == DockerTypes::AsEntries {
                    // The first: where nothing else is done, the result is the index as it is.
                    let whole = IndexDraft::of_index((*index).clone(), bytes, source);
                    self.annotations.extend(whole.annotations);
                    (self.original, self.artifact_type, self.subject) = (whole.original, whole.artifact_type, whole.subject);
                }
                if let Some(platform) = &options.set_platform {
                    let reason = format!("it is an index, and not one image that could be listed as {platform}");
                    return Err(Error::NotAnImage { name: source.name(), reason });
                }
                entries_of(&index, source)
            }
            ManifestOrIndex::Index(index) => vec![IndexEntry { descriptor: nested(at, &index), source: source.clone() }],
            ManifestOrIndex::Manifest(manifest) => vec![single(at, &manifest, source, options).await?],
        };
        let found = new.iter().filter_map(|entry| entry.descriptor.platform.as_ref()).map(ToString::to_string).collect();
        let kept = keep(new, &options.keep);
        if kept.is_empty() && !options.keep.is_empty() {
            return Err(Error::NoPlatform { name: source.name(), wanted: options.keep[0].clone(), found });
        }
        let mut replaced = Vec::new();
        for entry in kept {
            replaced.extend(self.put(entry));
        }
        Ok(replaced)
    }

    /// Puts an entry where the one for its platform is, or at the end.
    fn put(&mut self, entry: IndexEntry) -> Vec<Descriptor> {
        let new = &entry.descriptor;
        let same = |old: &Descriptor| {
            let by_platform = || is_image(old) && is_image(new) && same_platform(old.platform.as_ref(), new.platform.as_ref());
            old.digest == new.digest && old.platform == new.platform || by_platform()
        };
        match self.entries.iter().position(|old| same(&old.descriptor)) {
            None => {
                self.entries.push(entry);
                Vec::new()
            }
            Some(at) if self.entries[at].descriptor.digest == new.digest => {
                self.entries[at] = entry;
                Vec::new()
            }
            Some(at) => {
                let old = std::mem::replace(&mut self.entries[at], entry);
                self.entries.retain(|other| !is_about(&other.descriptor, &old.descriptor.digest));
                vec![old.descriptor]
            }
        }
    }

    /// Takes entries away, with what is about them.
    ///
    /// # Errors
    /// There is no such entry.
    pub fn remove(&mut self, which: &Selector, name: &str) -> Result<Vec<Descriptor>, Error> {
        let gone: Vec<Descriptor> = self.find(which, name)?.into_iter().map(|at| self.entries[at].descriptor.clone()).collect();
        self.entries.retain(|entry| {
            let about = |gone: &Descriptor| is_about(&entry.descriptor, &gone.digest);
            !gone.iter().any(|gone| entry.descriptor == *gone || about(gone))
        });
        Ok(gone)
    }

    /// Leaves the entries for these platforms, with what is about them.
    ///
    /// # Errors
    /// There are none; `name` is how the message calls the index.
    pub fn keep(&mut self, platforms: &[Platform], name: &str) -> Result<(), Error> {
        for platform in platforms {
            self.find(&Selector::Platform(platform.clone()), name)?;
        }
        self.entries = keep(std::mem::take(&mut self.entries), platforms);
        Ok(())
    }

    /// The positions of the entries that are meant.
    ///
    /// # Errors
    /// There is none; `name` is how the message calls the index.
    pub fn find(&self, which: &Selector, name: &str) -> Result<Vec<usize>, Error> {
        let fits = |descriptor: &Descriptor| match which {
            Selector::Digest(digest) => descriptor.digest == *digest,
            Selector::Platform(platform) => descriptor.platform.as_ref().is_some_and(|known| known.matches(platform)),
        };
        let found: Vec<usize> = (0..self.entries.len()).filter(|at| fits(&self.entries[*at].descriptor)).collect();
        match (found.is_empty(), which) {
            (false, _) => Ok(found),
            (true, Selector::Digest(digest)) => Err(Error::NotInIndex { name: name.to_owned(), digest: digest.clone() }),
            (true, Selector::Platform(platform)) => {
                let found = self.entries.iter().filter_map(|entry| entry.descriptor.platform.as_ref()).map(ToString::to_string).collect();
                Err(Error::NoPlatform { name: name.to_owned(), wanted: platform.clone(), found })
            }
        }
    }

    /// The document, and what points at it.
    pub fn finish(&self) -> (Descriptor, Bytes) {
        let all_docker = self.entries.iter().all(|entry| entry.descriptor.media_type == MediaType::DockerManifest);
        let docker = match self.docker_types {
            DockerTypes::Yes => true,
            DockerTypes::AsEntries => !self.entries.is_empty() && self.original_type() != Some(&MediaType::OciIndex),
            DockerTypes::No => false,
        };
        let kind = if docker && all_docker && self.annotations.is_empty() { MediaType::DockerManifestList } else { MediaType::OciIndex };
        let index = Index {
            schema_version: 2,
            media_type: Some(kind.clone()),
            artifact_type: self.artifact_type.clone(),
            manifests: self.entries.iter().map(|entry| entry.descriptor.clone()).collect(),
            subject: self.subject.clone(),
            annotations: self.annotations.clone(),
        };
        let bytes = match &self.original {
            // An index may leave out what it is.
            Some((original, bytes)) if (Index { media_type: Some(kind.clone()), ..original.clone() }) == index => bytes.clone(),
            _ => serde_json::to_vec(&index).expect("an index holds nothing that JSON cannot").into(),
        };
        (Descriptor::new(kind, Digest::sha256(&bytes), bytes.len() as u64), bytes)
    }

    /// The only image that there is, without an index.
    ///
    /// # Errors
    /// Where it is.
    pub async fn only_manifest(&self) -> Result<Option<(Descriptor, Bytes)>, Error> {
        match self.entries.as_slice() {
            [only] if only.descriptor.media_type.is_manifest() => {
                Ok(Some((only.descriptor.clone(), only.source.manifest(&only.descriptor).await?)))
            }
            _ => Ok(None),
        }
    }

    fn original_type(&self) -> Option<&MediaType> {
        self.original.as_ref().map(|(index, _)| index.media_type.as_ref().unwrap_or(&MediaType::OciIndex))
    }
}

async fn root(source: &Source) -> Result<(Descriptor, Bytes, ManifestOrIndex), Error> {
    let at = source.root().await?;
    let bytes = source.manifest(&at).await?;
    let parsed = ManifestOrIndex::parse(&bytes, Some(&at.media_type));
    let parsed = parsed.map_err(|error| Error::Manifest { name: source.name(), source: error })?;
    let at = Descriptor { media_type: parsed.media_type(), size: bytes.len() as u64, ..at };
    Ok((at, bytes, parsed))
}

fn entries_of(index: &Index, source: &Source) -> Vec<IndexEntry> {
    index.manifests.iter().map(|entry| IndexEntry { descriptor: entry.clone(), source: source.clone() }).collect()
}

fn nested(at: Descriptor, index: &Index) -> Descriptor {
    Descriptor { artifact_type: index.artifact_type.clone(), ..Descriptor::new(at.media_type, at.digest, at.size) }
}

/// The entry of one image; its platform is what its config says.
async fn single(at: Descriptor, manifest: &Manifest, source: &Source, options: &AddOptions) -> Result<IndexEntry, Error> {
    let mut descriptor = Descriptor::new(at.media_type, at.digest, at.size);
    if matches!(manifest.config.media_type, MediaType::OciConfig | MediaType::DockerConfig) {
        let bytes = source.small_blob(&manifest.config, MAX_CONFIG).await?;
        let bad = |error| Error::Config { name: source.name(), digest: manifest.config.digest.clone(), source: error };
        descriptor.platform = Some(serde_json::from_slice::<ImageConfig>(&bytes).map_err(bad)?.platform());
    } else {
        let kind = manifest.artifact_type.clone().unwrap_or_else(|| manifest.config.media_type.to_string());
        descriptor.artifact_type = Some(kind);
    }
    if options.set_platform.is_some() {
        descriptor.platform.clone_from(&options.set_platform);
    }
    Ok(IndexEntry { descriptor, source: source.clone() })
}

/// The entries for some platforms, with what is about them; all where no platforms are named.
fn keep(entries: Vec<IndexEntry>, platforms: &[Platform]) -> Vec<IndexEntry> {
    if platforms.is_empty() {
        return entries;
    }
    let wanted =
        |entry: &Descriptor| entry.platform.as_ref().is_some_and(|platform| platforms.iter().any(|wanted| platform.matches(wanted)));
    let kept: Vec<Digest> = entries.iter().filter(|entry| wanted(&entry.descriptor)).map(|entry| entry.descriptor.digest.clone()).collect();
    let stays = |entry: &IndexEntry| wanted(&entry.descriptor) || kept.iter().any(|digest| is_about(&entry.descriptor, digest));
    entries.into_iter().filter(stays).collect()
}

/// Whether an entry is an image that somebody could choose by its platform.
fn is_image(entry: &Descriptor) -> bool {
    entry.platform.as_ref().is_some_and(|platform| platform.os != "unknown") && !entry.is_remark()
}

fn is_about(entry: &Descriptor, digest: &Digest) -> bool {
    entry.remark_about().is_some_and(|about| about == digest.to_string())
}

fn same_platform(one: Option<&Platform>, other: Option<&Platform>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one.normalised() == other.normalised())
}
