//! What one build gives for several platforms: an index of their images, all of it in the store.

use std::collections::BTreeMap;

use crate::oci::{Descriptor, Digest, Index, MediaType, Platform};
use crate::store::Store;

use super::Error;
use super::blobs::ImageManifest;

/// What a name stands for: a packed image, or an index of some.
#[derive(Clone, Debug)]
pub enum PackedRoot {
    /// An image.
    Image(Box<ImageManifest>),
    /// An index.
    Index(Box<ImageIndex>),
}

/// An index with the images that it names.
#[derive(Clone, Debug)]
pub struct ImageIndex {
    /// The images, in its order.
    pub images: Vec<ImageManifest>,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What points at it.
    pub descriptor: Descriptor,
}

/// What an index is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexForm {
    /// Whether it is a manifest list of Docker's.
    pub docker_types: bool,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Annotations of what points at it.
    pub descriptor_annotations: BTreeMap<String, String>,
}

impl PackedRoot {
    /// What points at it.
    pub fn descriptor(&self) -> &Descriptor {
        match self {
            PackedRoot::Image(image) => &image.descriptor,
            PackedRoot::Index(index) => &index.descriptor,
        }
    }

    /// The image, or those of the index.
    pub fn images(&self) -> &[ImageManifest] {
        match self {
            PackedRoot::Image(image) => std::slice::from_ref(&**image),
            PackedRoot::Index(index) => &index.images,
        }
    }
}

/// Makes the index of packed images, each with its platform.
///
/// # Errors
/// The store.
pub fn put_index(store: &Store, images: Vec<(Platform, ImageManifest)>, form: &IndexForm) -> Result<ImageIndex, Error> {
    let entry = |(platform, image): &(Platform, ImageManifest)| Descriptor { platform: Some(platform.clone()), ..image.descriptor.clone() };
    let kind = if form.docker_types { MediaType::DockerManifestList } else { MediaType::OciIndex };
    let index = Index {
        schema_version: 2,
        media_type: Some(kind.clone()),
        artifact_type: None,
        manifests: images.iter().map(entry).collect(),
        subject: None,
        annotations: form.annotations.clone(),
    };
    let bytes = serde_json::to_vec(&index).expect("an index holds nothing that JSON cannot");
    let digest: Digest = store.put_blob(&bytes)?;
    let mut descriptor = Descriptor::new(kind, digest, bytes.len() as u64);
    descriptor.annotations.clone_from(&form.descriptor_annotations);
    Ok(ImageIndex { images: images.into_iter().map(|(_, image)| image).collect(), bytes, descriptor })
}
