//! The images that are here: lists, names, removal, and what is known of each.

use std::time::SystemTime;

use crate::oci::{HistoryEntry, ImageConfig, ImageId, Reference};
use crate::store::ImageRecord;

use super::stored_index::complete_index;
use super::{Engine, Error};

/// How large a config may be.
const MAX_CONFIG: u64 = 8 << 20;

/// One image of a list.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    /// The image.
    pub image: ImageRecord,
    /// Its names, with the digest that each stands for in its registry.
    pub names: Vec<NamedAs>,
    /// When it was made; as its config says, so RFC 3339 if it is anything.
    pub created: Option<String>,
}

/// A name of an image.
#[derive(Clone, Debug)]
pub struct NamedAs {
    /// The name.
    pub name: Reference,
    /// What it stands for in its registry, where it came from or went to one.
    pub digest: Option<crate::oci::Digest>,
}

/// Everything about one image.
#[derive(Clone, Debug)]
pub struct ImageDetails {
    /// The image.
    pub image: ImageRecord,
    /// Its names.
    pub names: Vec<NamedAs>,
    /// Its config.
    pub config: ImageConfig,
    /// When it got the latest of its names.
    pub tagged_at: Option<SystemTime>,
}

/// One line of an image's history.
#[derive(Clone, Debug)]
pub struct HistoryLine {
    /// What the config says.
    pub entry: HistoryEntry,
    /// What the layer's files take, in bytes; 0 where there is no layer.
    pub size: u64,
}

/// What removing an image did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name was taken away.
    Untagged(Reference),
    /// An image was removed.
    Deleted(ImageId),
}

/// Whether a removal heeds what stands against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Not where it is used by a container, or has other names than the one that is given.
    Careful,
    /// In any case.
    Forced,
}

impl Engine {
    /// All images, newest first.
    ///
    /// # Errors
    /// The store.
    pub fn images(&self) -> Result<Vec<ImageSummary>, Error> {
        let manifests = self.store.tagged_manifests()?;
        let digest_of = |name: &Reference| manifests.get(&name.to_string()).cloned();
        let mut dates = self.store.image_dates()?;
        let (mut list, mut new) = (Vec::new(), Vec::new());
        for (names, image) in self.store.images()? {
            // A config never changes, so its date is read once. An image whose config cannot be read is listed all the same: how else would one find it.
            let created = dates.remove(&image.id).or_else(|| {
                let created = self.config_of(&image).ok()?.created?;
                new.push((image.id.clone(), created.clone()));
                Some(created)
            });
            let names = names.into_iter().map(|name| NamedAs { digest: digest_of(&name), name }).collect();
            list.push(ImageSummary { names, image, created });
        }
        self.store.remember_image_dates(&new)?;
        // Stable, so that images of the same age stay in the order in which they came.
        list.sort_by(|a, b| b.created.cmp(&a.created));
        Ok(list)
    }

    /// The image that a user means by a name, an ID or the beginning of one.
    ///
    /// # Errors
    /// There is none; the error tells what is named alike.
    pub fn image(&self, text: &str) -> Result<ImageRecord, Error> {
        match self.find_image(text)? {
            Some(image) => Ok(image),
            None => Err(self.no_image(text)?),
        }
    }

    /// The image that a user means, if it is here. A short name that is no image's is looked up as what it stands for at registries.
    ///
    /// # Errors
    /// The beginning of several IDs; the store; files about registries.
    pub(super) fn find_image(&self, text: &str) -> Result<Option<ImageRecord>, Error> {
        if let Some(image) = self.store.find_image(text)? {
            return Ok(Some(image));
        }
        let Ok(reference) = text.parse::<Reference>() else { return Ok(None) };
        Ok(self.find_long_name(&reference)?.map(|(_, image)| image))
    }

    /// An image of the store under one of the names that a short name stands for.
    fn find_long_name(&self, reference: &Reference) -> Result<Option<(Reference, ImageRecord)>, Error> {
        if !reference.is_short() {
            return Ok(None);
        }
        for name in self.long_names(reference)? {
            if let Some(image) = self.store.resolve(&name)? {
                return Ok(Some((name, image)));
            }
        }
        Ok(None)
    }

    /// Everything about an image; `None` where there is no such image.
    ///
    /// # Errors
    /// The store, and a damaged config.
    pub fn image_details(&self, text: &str) -> Result<Option<ImageDetails>, Error> {
        self.find_image(text)?.map(|image| self.details_of(image)).transpose()
    }

    /// Everything about an image of the store.
    ///
    /// # Errors
    /// As [`Engine::image_details`].
    pub fn details_of(&self, image: ImageRecord) -> Result<ImageDetails, Error> {
        let config = self.config_of(&image)?;
        let names = self.named_as(self.store.names_of(&image.id)?)?;
        let tagged_at = self.store.last_tagged(&image.id)?;
        Ok(ImageDetails { image, names, config, tagged_at })
    }

    /// How an image came to be, newest first.
    ///
    /// # Errors
    /// The store, and a damaged config.
    pub fn history(&self, image: &ImageRecord) -> Result<Vec<HistoryLine>, Error> {
        let config = self.config_of(image)?;
        let mut layers = image.snapshots.iter();
        let mut lines = Vec::with_capacity(config.history.len());
        for entry in config.history {
            let mut size = 0;
            if !entry.empty_layer
                && let Some(id) = layers.next()
            {
                size = self.store.snapshot(*id)?.map_or(0, |snapshot| snapshot.tar_size.unwrap_or(snapshot.size));
            }
            lines.push(HistoryLine { entry, size });
        }
        lines.reverse();
        Ok(lines)
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// There is no such image, the store.
    pub fn tag(&self, source: &str, name: &Reference) -> Result<(), Error> {
        let image = self.image(source)?;
        // A name that stands for an index gives away all of it.
        let index = match source.parse::<Reference>() {
            Ok(known) if self.store.resolve(&known)?.is_some_and(|found| found.id == image.id) => complete_index(&self.store, &known)?,
            _ => None,
        };
        self.store.tag(name, &image.id, index.as_ref().map(|index| &index.digest))?;
        self.tagged(&image, name);
        Ok(())
    }

    /// Takes away the name, or removes the image, that `text` means.
    ///
    /// # Errors
    /// There is no such image; with [`Removal::Careful`], it is in use.
    pub fn remove_image(&self, text: &str, removal: Removal) -> Result<Vec<Removed>, Error> {
        let image = self.image(text)?;
        let names = self.store.names_of(&image.id)?;
        if let Some(name) = self.name_meant(text, &names)?
            && names.len() > 1
        {
            self.store.untag(&name)?;
            self.done_to_image("untag", &image.id, self.labels_of(&image));
            return Ok(vec![Removed::Untagged(name)]);
        }
        if removal == Removal::Careful {
            self.check_unused(text, &image, &names)?;
        }
        let labels = self.labels_of(&image);
        let names = self.store.remove_image(&image.id)?.unwrap_or_default();
        for _ in &names {
            self.done_to_image("untag", &image.id, labels.clone());
        }
        self.done_to_image("delete", &image.id, labels);
        let mut removed: Vec<Removed> = names.into_iter().map(Removed::Untagged).collect();
        removed.push(Removed::Deleted(image.id));
        Ok(removed)
    }

    /// Which of an image's names `text` is, where it is one.
    pub(super) fn name_meant(&self, text: &str, names: &[Reference]) -> Result<Option<Reference>, Error> {
        Ok(match text.parse::<Reference>().ok() {
            Some(name) if names.contains(&name) => Some(name),
            Some(short) => self.find_long_name(&short)?.map(|(name, _)| name).filter(|name| names.contains(name)),
            None => None,
        })
    }

    pub(super) fn check_unused(&self, text: &str, image: &ImageRecord, names: &[Reference]) -> Result<(), Error> {
        let users: Vec<String> =
            self.store.containers()?.into_iter().filter(|c| c.image.as_ref() == Some(&image.id)).map(|c| c.name).collect();
        if let Some(first) = users.first() {
            let more = if users.len() > 1 { format!(" and {} more", users.len() - 1) } else { String::new() };
            let message = format!("the image `{text}` is used by the container `{first}`{more}");
            return Err(Error::Usage { message, hint: Some("remove the container first, or force the removal with -f".into()) });
        }
        if names.len() > 1 {
            let list: Vec<String> = names.iter().map(Reference::familiar).collect();
            let message = format!("the image `{text}` has several names: {}", list.join(", "));
            return Err(Error::Usage { message, hint: Some("remove them by name, or all at once with -f".into()) });
        }
        Ok(())
    }
    /// An image's config.
    pub(super) fn config_of(&self, image: &ImageRecord) -> Result<ImageConfig, Error> {
        let bytes = self.store.read_blob(image.id.digest(), MAX_CONFIG)?;
        let name = image.id.digest().short();
        serde_json::from_slice(&bytes).map_err(|source| Error::Image {
            action: "read",
            name: name.clone(),
            source: crate::image::Error::Config { name, digest: image.id.digest().clone(), source },
        })
    }

    fn named_as(&self, names: Vec<Reference>) -> Result<Vec<NamedAs>, Error> {
        let named = |name: Reference| Ok(NamedAs { digest: self.store.tagged_manifest(&name)?, name });
        names.into_iter().map(named).collect()
    }

    /// The error that there is no image `text`, with what is named alike.
    pub(super) fn no_image(&self, text: &str) -> Result<Error, Error> {
        let mut near: Vec<(usize, String)> = Vec::new();
        for (names, _) in self.store.images()? {
            for name in names {
                let (familiar, limit) = (name.familiar(), 1 + text.len() / 4);
                let whole = distance(text, &familiar);
                let distance = whole.min(distance(text, &name.familiar_name())).min(distance(text, &name.to_string()));
                let other_tag = text.parse::<Reference>().is_ok_and(|wanted| wanted.name() == name.name());
                if other_tag || distance <= limit {
                    near.push((if other_tag { 0 } else { distance }, familiar));
                }
            }
        }
        near.sort();
        near.truncate(3);
        Ok(Error::NoSuchImage { name: text.to_owned(), alike: near.into_iter().map(|(_, name)| format!("`{name}`")).collect() })
    }
}

/// The time that a config or history states.
pub fn parse_time(text: &str) -> Option<SystemTime> {
    text.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
}

/// How many characters must be changed to make one text of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(256).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(256).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_changes() {
        for (a, b, expected) in [("", "", 0), ("abc", "", 3), ("debain", "debian", 2), ("busybox", "busybox:1", 2), ("x", "y", 1)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
