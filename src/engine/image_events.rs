//! What happens to images, on record in the words of `docker events`.
//!
//! What goes over a network is known by its name, all else by the image's ID.

use std::collections::BTreeMap;

use crate::oci::{ImageId, Reference};
use crate::runtime::container::journal::{Journal, Recorded};
use crate::store::ImageRecord;

use super::Engine;

impl Engine {
    /// Records that an image got a name.
    pub(super) fn tagged(&self, image: &ImageRecord, name: &Reference) {
        self.image_event("tag", &image.id.to_string(), &name.familiar(), self.labels_of(image));
    }

    /// Records that names were given to an image.
    pub(super) fn tagged_all(&self, id: &ImageId, names: &[Reference]) {
        if let (false, Ok(Some(image))) = (names.is_empty(), self.store.image(id)) {
            names.iter().for_each(|name| self.tagged(&image, name));
        }
    }

    /// Records what was done to an image as a whole: `load`, `save`, `import`, `untag`, `delete`.
    pub(super) fn done_to_image(&self, action: &str, id: &ImageId, labels: BTreeMap<String, String>) {
        let id = id.to_string();
        self.image_event(action, &id, &id, labels);
    }

    /// Records that an image was pulled or pushed by its name.
    pub(super) fn transferred(&self, action: &str, image: &ImageRecord, name: &Reference) {
        self.image_event(action, &name.familiar(), &name.familiar_name(), self.labels_of(image));
    }

    /// An image's labels, which its events have; none where its config cannot be read.
    pub(super) fn labels_of(&self, image: &ImageRecord) -> BTreeMap<String, String> {
        self.config_of(image).map_or_else(|_| BTreeMap::new(), |config| config.config.labels)
    }

    fn image_event(&self, action: &str, id: &str, name: &str, mut attributes: BTreeMap<String, String>) {
        attributes.insert("name".to_owned(), name.to_owned());
        Journal::new(&self.store.journal_path()).write(&Recorded { kind: "image", action, id, attributes: &attributes });
    }
}
