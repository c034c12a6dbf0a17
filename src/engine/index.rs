//! Indexes at registries: put together of images that are anywhere, and changed.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::image::copy::{Source, Target, collect_at, to_registry};
use crate::image::index::IndexDraft;
pub use crate::image::index::{AddOptions, Selector};
use crate::oci::{Descriptor, Digest, Platform, Reference};
use crate::progress::{Progress, StepOutcome, StepProgress};
use crate::registry::Client;

use super::copy::Failure;
use super::{Engine, Error, Place};

/// The index that is begun with.
#[derive(Clone, Debug)]
pub enum IndexBase {
    /// One of a registry.
    Existing(Reference),
    /// One of nothing, with Docker's media type where it says so.
    Empty {
        /// Whether it is a manifest list.
        docker_types: bool,
    },
}

/// Something that is done to an index.
#[derive(Clone, Debug)]
pub enum IndexEdit {
    /// Images are added; those for the same platforms are replaced.
    Add(Vec<Place>, AddOptions),
    /// Entries are taken away.
    Remove(Vec<Selector>),
    /// All entries but those for these platforms are taken away.
    Keep(Vec<Platform>),
    /// Annotations of the index, or of entries, are set and taken away.
    Annotate {
        /// The entry; without it, the index itself.
        entry: Option<Selector>,
        /// What is set.
        set: BTreeMap<String, String>,
        /// What is taken away.
        unset: Vec<String>,
    },
    /// Annotations of all entries are set.
    AnnotateAll(BTreeMap<String, String>),
    /// What an entry is said to be for changes.
    Platform(Selector, PlatformChange),
}

/// Parts of a platform that are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlatformChange {
    /// All of it.
    pub whole: Option<Platform>,
    /// The operating system.
    pub os: Option<String>,
    /// The processor.
    pub architecture: Option<String>,
    /// Its variant; an empty one is none.
    pub variant: Option<String>,
    /// The version of the operating system; an empty one is none.
    pub os_version: Option<String>,
    /// Features of the operating system.
    pub os_features: Option<Vec<String>>,
}

/// What is done to which index.
#[derive(Clone, Debug)]
pub struct IndexRequest {
    /// What is begun with.
    pub base: IndexBase,
    /// What is done, in this order.
    pub edits: Vec<IndexEdit>,
    /// The names that the result gets; none for a result that is only shown.
    pub to: Vec<Reference>,
    /// Whether one image alone gets the names itself, without an index.
    pub prefer_manifest: bool,
}

/// The result.
#[derive(Clone, Debug)]
pub struct IndexOutcome {
    /// What points at the index.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Engine {
    /// Puts an index together and sends it, with the images that it names.
    ///
    /// # Errors
    /// Where the images are, the registry; an entry that is not there.
    pub async fn index(&self, request: &IndexRequest, progress: &Progress) -> Result<IndexOutcome, Error> {
        let _lease = self.hold().await?;
        let client = self.client()?;
        let name = match (&request.base, request.to.first()) {
            (IndexBase::Existing(reference), _) | (_, Some(reference)) => reference.written().to_owned(),
            _ => "an index".to_owned(),
        };
        let step = progress.start(format!("index {name}"), None);
        let result = self.index_now(request, &client, &name, &step, progress).await;
        step.finish(if result.is_ok() { StepOutcome::Done } else { StepOutcome::Failed });
        for warning in client.take_warnings() {
            progress.warn(warning);
        }
        result.map_err(|failure| failure.of("change", &name))
    }

    async fn index_now(
        &self,
        request: &IndexRequest,
        client: &Client,
        name: &str,
        step: &StepProgress,
        progress: &Progress,
    ) -> Result<IndexOutcome, Failure> {
        let mut draft = match &request.base {
            IndexBase::Existing(reference) => IndexDraft::of_source(&registry(client, reference)).await?,
            IndexBase::Empty { docker_types } => IndexDraft::empty(*docker_types),
        };
        for edit in &request.edits {
            self.edit_index(&mut draft, edit, client, name, progress).await?;
        }
        let alone = if request.prefer_manifest { draft.only_manifest().await? } else { None };
        let (descriptor, bytes) = alone.unwrap_or_else(|| draft.finish());
        let sender = self.other_client()?;
        for reference in &request.to {
            for entry in &draft.entries {
                send_entry(&entry.source, &entry.descriptor, &sender, reference, step).await?;
            }
            sender.put_manifest(reference, bytes.clone(), &descriptor.media_type).await.map_err(crate::image::Error::from)?;
        }
        Ok(IndexOutcome { descriptor, bytes })
    }

    async fn edit_index(
        &self,
        draft: &mut IndexDraft,
        edit: &IndexEdit,
        client: &Client,
        name: &str,
        progress: &Progress,
    ) -> Result<(), Failure> {
        match edit {
            IndexEdit::Add(places, options) => {
                for place in places {
                    let source = self.source(place, client).await?;
                    for replaced in draft.add(&source, options).await? {
                        let platform = replaced.platform.map(|platform| platform.to_string()).unwrap_or_default();
                        progress.warn(format!("`{place}` takes the place of {}, which was for {platform} too", replaced.digest));
                    }
                }
            }
            IndexEdit::Remove(which) => {
                for selector in which {
                    draft.remove(selector, name)?;
                }
            }
            IndexEdit::Keep(platforms) => draft.keep(platforms, name)?,
            IndexEdit::Annotate { entry, set, unset } => {
                let targets = match entry {
                    Some(selector) => draft.find(selector, name)?,
                    None => Vec::new(),
                };
                let change = |annotations: &mut BTreeMap<String, String>| {
                    annotations.retain(|key, _| !unset.contains(key));
                    annotations.extend(set.clone());
                };
                targets.iter().for_each(|at| change(&mut draft.entries[*at].descriptor.annotations));
                if entry.is_none() {
                    change(&mut draft.annotations);
                }
            }
            IndexEdit::AnnotateAll(set) => {
                draft.entries.iter_mut().for_each(|entry| entry.descriptor.annotations.extend(set.clone()));
            }
            IndexEdit::Platform(selector, change) => {
                for at in draft.find(selector, name)? {
                    let entry = &mut draft.entries[at].descriptor;
                    entry.platform = Some(change.apply(entry.platform.as_ref()));
                }
            }
        }
        Ok(())
    }

    /// What entry of an index a text means: its digest, its platform, or a name that stands for it at its registry.
    ///
    /// # Errors
    /// It is none of these; there is no such name.
    pub async fn selector(&self, text: &str) -> Result<Selector, Error> {
        if let Ok(digest) = text.parse::<Digest>() {
            return Ok(Selector::Digest(digest));
        }
        if let Ok(platform) = text.parse::<Platform>() {
            return Ok(Selector::Platform(platform));
        }
        let usage = |error: crate::oci::ReferenceError| Error::Usage { message: error.to_string(), hint: None };
        Ok(Selector::Digest(self.remote_digest(&text.parse().map_err(usage)?).await?.digest))
    }
}

impl PlatformChange {
    fn apply(&self, known: Option<&Platform>) -> Platform {
        let mut platform = self.whole.clone().or_else(|| known.cloned()).unwrap_or_else(|| Platform::new("linux", "", None));
        let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        if let Some(os) = &self.os {
            platform.os.clone_from(os);
        }
        if let Some(architecture) = &self.architecture {
            platform.architecture.clone_from(architecture);
        }
        if self.variant.is_some() {
            platform.variant = text(&self.variant);
        }
        if self.os_version.is_some() {
            platform.os_version = text(&self.os_version);
        }
        if let Some(features) = &self.os_features {
            platform.os_features.clone_from(features);
        }
        platform
    }
}

fn registry(client: &Client, reference: &Reference) -> Source {
    Source::Registry { client: client.clone(), reference: reference.clone() }
}

/// Sees to it that what an entry names is in the repository of `to`.
async fn send_entry(source: &Source, entry: &Descriptor, client: &Client, to: &Reference, step: &StepProgress) -> Result<(), Failure> {
    if let Source::Registry { reference, .. } = source
        && (reference.registry(), reference.repository()) == (to.registry(), to.repository())
    {
        return Ok(());
    }
    let what = collect_at(source, entry).await?;
    let target = Target { client: client.clone(), reference: to.only_digest(entry.digest.clone()) };
    Ok(to_registry(source, &what, &target, step).await?)
}
