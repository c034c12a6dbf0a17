//! All images of an index, edited one by one, and the index of what has become of them.

use std::collections::HashSet;

use crate::image::Error;
use crate::image::copy::{Collection, Document, Source};
use crate::oci::{Descriptor, Digest, Index, ManifestOrIndex, MediaType};
use crate::store::Store;
use crate::task::blocking;

use super::draft::Draft;

/// The images of an index as drafts, each with its entry. What is about an image as it was (provenance) is none of them: it would not be true of another.
///
/// # Errors
/// The source; it is no index of images.
pub async fn open_all(source: &Source) -> Result<(Index, Vec<(Descriptor, Draft)>), Error> {
    let root = source.root().await?;
    let bytes = source.manifest(&root).await?;
    let named = |error| Error::Manifest { name: source.name(), source: error };
    let ManifestOrIndex::Index(index) = ManifestOrIndex::parse(&bytes, Some(&root.media_type)).map_err(named)? else {
        return Err(Error::NotAnIndex { name: source.name(), reason: "it is one image".to_owned() });
    };
    let mut drafts = Vec::with_capacity(index.manifests.len());
    for entry in index.manifests.iter().filter(|entry| !entry.is_remark()) {
        drafts.push((entry.clone(), Draft::of_entry(source, &root, entry).await?));
    }
    Ok((*index, drafts))
}

/// What a copy of the edited images and of their index consists of, and where that is read. The documents go into the store. `name` is how messages call it.
///
/// # Errors
/// The store; layers that cannot be compressed.
pub async fn collect_all(
    store: &Store,
    name: &str,
    mut index: Index,
    drafts: Vec<(Descriptor, Draft)>,
) -> Result<(Source, Collection), Error> {
    let (mut sources, mut documents, mut blobs) = (Vec::new(), Vec::new(), Vec::<Descriptor>::new());
    let (mut seen, mut sent) = (HashSet::new(), HashSet::new());
    index.manifests.clear();
    for (entry, draft) in drafts {
        let (source, what, _) = draft.into_collection(store).await?;
        let (media_type, digest, size) = (what.root.media_type.clone(), what.root.digest.clone(), what.root.size);
        index.manifests.push(Descriptor { media_type, digest, size, ..entry });
        documents.extend(what.documents.into_iter().filter(|document| seen.insert(document.descriptor.digest.clone())));
        blobs.extend(what.blobs.into_iter().filter(|blob| sent.insert(blob.digest.clone())));
        sources.push(source);
    }
    let kind = index.media_type.clone().unwrap_or(MediaType::OciIndex);
    let bytes = serde_json::to_vec(&index).expect("an index holds nothing that JSON cannot");
    let root = Descriptor::new(kind, Digest::sha256(&bytes), bytes.len() as u64);
    let (keeper, kept) = (store.clone(), bytes.clone());
    blocking(move || keeper.put_blob(&kept)).await?;
    documents.push(Document { descriptor: root.clone(), bytes: bytes.into(), subject: index.subject });
    let source = Source::merged(store, root.clone(), name, sources);
    Ok((source, Collection { root, documents, blobs, referrers: Vec::new() }))
}
