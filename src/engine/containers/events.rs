//! What happened to containers and volumes, as `strake events` tells it.

use crate::runtime::container::journal::{Journal, Recorded};

use super::super::{Engine, Error};
use super::ContainerInfo;

pub use crate::runtime::container::journal::{Event, EventOptions};

impl Engine {
    /// Records what was done to a container. What cannot be recorded is done all the same.
    pub(super) fn event(&self, kind: &str, action: &str, info: &ContainerInfo, more: &[(&str, &str)]) {
        let image = info.spec.as_ref().map_or("", |spec| spec.image.as_str());
        let mut attributes = info.spec.as_ref().map_or_else(Default::default, |spec| spec.labels.clone());
        attributes.insert("image".to_owned(), image.to_owned());
        attributes.insert("name".to_owned(), info.record.name.clone());
        attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.journal().write(&Recorded { kind, action, id: &info.record.id, attributes: &attributes });
    }

    /// Records what was done to a volume.
    pub(super) fn volume_event(&self, action: &str, name: &str) {
        let attributes = std::iter::once(("driver".to_owned(), "local".to_owned())).collect();
        self.journal().write(&Recorded { kind: "volume", action, id: name, attributes: &attributes });
    }

    /// Records that all was removed of a kind that nobody needed: `container`, `image`, `volume`, `network`, `builder`.
    pub fn pruned(&self, kind: &str, reclaimed: u64) {
        let attributes = std::iter::once(("reclaimed".to_owned(), reclaimed.to_string())).collect();
        self.journal().write(&Recorded { kind, action: "prune", id: "", attributes: &attributes });
    }

    /// Where it is recorded.
    pub(super) fn journal(&self) -> Journal {
        Journal::new(&self.store().journal_path())
    }

    /// Gives what happened, and with no `until` what goes on happening, to `sink` until that says `false`.
    pub fn events(&self, options: &EventOptions, sink: &mut dyn FnMut(&Event) -> bool) -> Result<(), Error> {
        let path = self.store().journal_path();
        self.journal().read(options, sink).map_err(|source| Error::Io { action: "read", path, source })
    }
}
