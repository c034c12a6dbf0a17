//! Names of the store that stand for an index: what `pull --all-platforms`, `load` and builds for several platforms leave.
//!
//! Such a name points at one image, which is the one that runs here, and at the index. The other images are blobs only until somebody wants one of them.
//! An image is taken out by taking its manifest away: the index keeps its bytes, and what it names may be missing.

use std::collections::HashSet;

use crate::image::Error;
use crate::image::load::{has_all_of, load_root};
use crate::oci::{Descriptor, Digest, ImageId, Index, ManifestOrIndex, MediaType, Platform, Reference};
use crate::store::{ImageRecord, Store};
use crate::task::blocking;

use super::images::{Removal, Removed};
use super::{Engine, Error as EngineError};

/// How large an index or a manifest may be.
const MAX_DOCUMENT: u64 = 16 << 20;

/// The index that a name stands for, where the store has all of it: its images with their configs and layers.
///
/// # Errors
/// The store.
pub(super) fn complete_index(store: &Store, reference: &Reference) -> Result<Option<Descriptor>, crate::store::Error> {
    let Some((root, _)) = stored_index(store, reference)? else { return Ok(None) };
    Ok(has_all_of(store, &root.digest)?.then_some(root))
}

/// The image for `platform` of the index that a name stands for, unpacked; `None` where it is not here.
///
/// # Errors
/// The store; damaged content.
pub(super) fn image_in_index(store: &Store, name: &str, platform: &Platform) -> Result<Option<ImageRecord>, Error> {
    let Ok(reference) = name.parse::<Reference>() else { return Ok(None) };
    let Some((root, index)) = stored_index(store, &reference)? else { return Ok(None) };
    match index.select(platform) {
        Some(entry) if store.blob_size(&entry.digest)?.is_some() => {
            Ok(Some(load_root(store, &root, platform)?).filter(|image| image.platform.matches(platform)))
        }
        _ => Ok(None),
    }
}

/// The index that a name stands for; what it names may be missing.
fn stored_index(store: &Store, reference: &Reference) -> Result<Option<(Descriptor, Index)>, crate::store::Error> {
    let Some(digest) = store.tagged_manifest(reference)? else { return Ok(None) };
    if store.blob_size(&digest)?.is_none() {
        return Ok(None);
    }
    let bytes = store.read_blob(&digest, MAX_DOCUMENT)?;
    let Ok(ManifestOrIndex::Index(index)) = ManifestOrIndex::parse(&bytes, None) else { return Ok(None) };
    let media_type = index.media_type.clone().unwrap_or(MediaType::OciIndex);
    Ok(Some((Descriptor::new(media_type, digest, bytes.len() as u64), *index)))
}

/// An image of an index, whose manifest is here.
struct Member {
    entry: Descriptor,
    platform: Platform,
    id: ImageId,
}

/// The images of an index that are here.
fn members(store: &Store, index: &Index) -> Result<Vec<Member>, crate::store::Error> {
    let mut found = Vec::new();
    for entry in index.manifests.iter().filter(|entry| entry.media_type.is_manifest() && !entry.is_remark()) {
        let Some(platform) = entry.platform.clone() else { continue };
        if store.blob_size(&entry.digest)?.is_none() {
            continue;
        }
        let bytes = store.read_blob(&entry.digest, MAX_DOCUMENT)?;
        if let Ok(ManifestOrIndex::Manifest(manifest)) = ManifestOrIndex::parse(&bytes, Some(&entry.media_type)) {
            found.push(Member { entry: entry.clone(), platform, id: ImageId::new(manifest.config.digest) });
        }
    }
    Ok(found)
}

/// Whether the document `from` is the manifest `wanted`, or an index that names it.
fn leads_to(store: &Store, from: &Digest, wanted: &Digest) -> Result<bool, crate::store::Error> {
    let (mut pending, mut seen) = (vec![from.clone()], HashSet::new());
    while let Some(digest) = pending.pop() {
        if digest == *wanted {
            return Ok(true);
        }
        if !seen.insert(digest.clone()) || store.blob_size(&digest)?.is_none() {
            continue;
        }
        if let Ok(ManifestOrIndex::Index(index)) = ManifestOrIndex::parse(&store.read_blob(&digest, MAX_DOCUMENT)?, None) {
            pending.extend(index.manifests.into_iter().map(|entry| entry.digest));
        }
    }
    Ok(false)
}

impl Engine {
    /// Removes the image for `platform` that `text` means. Of an index that is here with others, that one alone goes, and the name stays; what is for that platform only goes as a
    /// whole.
    ///
    /// # Errors
    /// There is no such image for that platform; it is also what another name means, or the image for another platform; with [`Removal::Careful`], a container uses it; another command is at it.
    pub async fn remove_platform(&self, text: &str, removal: Removal, platform: &Platform) -> Result<Vec<Removed>, EngineError> {
        let image = self.image(text)?;
        let name = self.name_meant(text, &self.store.names_of(&image.id)?)?;
        let index = name.as_ref().map(|name| stored_index(&self.store, name)).transpose()?.flatten();
        let not_here = |here: &str| {
            let message = format!("`{text}` is here for {here}, and not for {platform}");
            EngineError::Usage { message, hint: None }
        };
        if let (Some(name), Some((root, index))) = (name, index) {
            let (going, staying): (Vec<Member>, Vec<Member>) =
                members(&self.store, &index)?.into_iter().partition(|member| member.platform.matches(platform));
            if !staying.is_empty() {
                if going.is_empty() {
                    let here: Vec<String> = staying.iter().map(|member| member.platform.to_string()).collect();
                    return Err(not_here(&here.join(", ")));
                }
                let shared =
                    |member: &&Member| staying.iter().any(|other| other.id == member.id || other.entry.digest == member.entry.digest);
                if let Some(member) = going.iter().find(shared) {
                    let message = format!("the image of `{text}` for {} is also the one for another platform", member.platform);
                    let hint = Some(format!("`strake rmi {}` removes all of it", name.familiar()));
                    return Err(EngineError::Usage { message, hint });
                }
                for member in &going {
                    self.check_goes_alone(text, &name, member, removal)?;
                }
                if going.iter().any(|member| member.id == image.id) {
                    self.point_at_another(&name, &root, &index, &staying).await?;
                }
                return self.drop_members(text, &index, going).await;
            }
        }
        match image.platform.matches(platform) {
            true => self.remove_image(text, removal),
            false => Err(not_here(&image.platform.to_string())),
        }
    }

    /// Whether nothing but `name` needs an image of its index.
    fn check_goes_alone(&self, text: &str, name: &Reference, member: &Member, removal: Removal) -> Result<(), EngineError> {
        let mut others: Vec<Reference> = self.store.names_of(&member.id)?;
        for (other, manifest) in self.store.tagged_manifests()? {
            if leads_to(&self.store, &manifest, &member.entry.digest)? {
                others.extend(other.parse::<Reference>().ok());
            }
        }
        if let Some(other) = others.iter().find(|other| *other != name) {
            let message = format!("the image of `{text}` for {} is also one of `{}`", member.platform, other.familiar());
            let hint = Some(format!("`strake rmi {}` removes that name first", other.familiar()));
            return Err(EngineError::Usage { message, hint });
        }
        match self.store.image(&member.id)? {
            Some(record) if removal == Removal::Careful => self.check_unused(text, &record, &[]),
            _ => Ok(()),
        }
    }

    /// Has a name stand for one of the images of its index that stay.
    async fn point_at_another(&self, name: &Reference, root: &Descriptor, index: &Index, staying: &[Member]) -> Result<(), EngineError> {
        let _lease = self.hold().await?;
        let nearest = index.select(&Platform::host()).and_then(|entry| staying.iter().find(|member| member.entry.digest == entry.digest));
        let Some(next) = nearest.or_else(|| staying.first()) else { return Ok(()) };
        let (store, root_now, platform) = (self.store.clone(), root.clone(), next.platform.clone());
        let failed = |source| EngineError::Image { action: "read", name: name.familiar(), source };
        let image = blocking(move || load_root(&store, &root_now, &platform)).await.map_err(failed)?;
        self.store.tag(name, &image.id, Some(&root.digest))?;
        self.tagged(&image, name);
        Ok(())
    }

    /// Takes images out of their index, with what is said about them.
    async fn drop_members(&self, text: &str, index: &Index, going: Vec<Member>) -> Result<Vec<Removed>, EngineError> {
        let goes = |digest: &str| going.iter().any(|member| member.entry.digest.to_string() == digest);
        let remarks = index.manifests.iter().filter(|entry| entry.remark_about().is_some_and(goes));
        let digests: Vec<Digest> = going.iter().map(|member| &member.entry).chain(remarks).map(|entry| entry.digest.clone()).collect();
        let mut removed = Vec::with_capacity(going.len());
        for member in going {
            if let Some(record) = self.store.image(&member.id)? {
                let labels = self.labels_of(&record);
                self.store.remove_image(&member.id)?;
                self.done_to_image("delete", &member.id, labels);
            }
            removed.push(Removed::Deleted(member.id));
        }
        let store = self.store.clone();
        if !blocking(move || store.remove_manifests(&digests)).await? {
            let message = format!("another command is using what is to be removed of `{text}`");
            return Err(EngineError::Usage { message, hint: Some("try again when it has ended".to_owned()) });
        }
        Ok(removed)
    }
}
