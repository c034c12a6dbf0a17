//! What the store takes on the disk, and giving it back: by hand, and by itself after a build.

use crate::store::{GcSettings, PruneOptions, PruneReport, StoreUsage};

use super::{ContainerInfo, Engine, Error};

/// What everything takes, with what only the engine knows of containers and volumes.
#[derive(Clone, Debug)]
pub struct SpaceUsage {
    /// Images, volumes and the build cache.
    pub store: StoreUsage,
    /// The containers, in the order of those in `store`.
    pub containers: Vec<ContainerInfo>,
    /// For each volume of `store`, how many containers mount it.
    pub volume_links: Vec<usize>,
}

impl Engine {
    /// What everything in the store takes on the disk.
    ///
    /// # Errors
    /// The store.
    pub fn space_usage(&self) -> Result<SpaceUsage, Error> {
        let mut store = self.store.usage()?;
        let known = self.containers()?;
        // One that went away in between is no longer of interest.
        store.containers.retain(|(record, _)| known.iter().any(|info| info.record.id == record.id));
        let info = |id: &str| known.iter().find(|info| info.record.id == id).cloned();
        let containers: Vec<ContainerInfo> = store.containers.iter().filter_map(|(record, _)| info(&record.id)).collect();
        let mounted: Vec<Vec<String>> = containers.iter().filter_map(|info| info.spec.as_ref()).map(|spec| self.volumes_of(spec)).collect();
        let links = |name: &String| mounted.iter().filter(|names| names.contains(name)).count();
        let volume_links = store.volumes.iter().map(|(volume, _)| links(&volume.name)).collect();
        Ok(SpaceUsage { store, containers, volume_links })
    }

    /// Frees what the options say and nothing needs.
    ///
    /// # Errors
    /// The store.
    pub fn prune(&self, options: &PruneOptions) -> Result<PruneReport, Error> {
        self.store.make_room();
        // Until a name is settled, the image that it had before is kept, as a power cut would give it back.
        self.store.settle()?;
        let named: Vec<_> =
            self.store.images()?.into_iter().map(|(names, image)| (names.len(), self.labels_of(&image), image.id)).collect();
        let report = self.store.prune(options)?;
        for id in &report.images {
            let known = named.iter().find(|(.., known)| known == id);
            let (names, labels) = known.map(|(names, labels, _)| (*names, labels.clone())).unwrap_or_default();
            (0..names).for_each(|_| self.done_to_image("untag", id, labels.clone()));
            self.done_to_image("delete", id, labels);
        }
        Ok(report)
    }

    /// Applies the default rules to the build cache, if it may be near a limit; `None` where it is not. What
    /// `settings` leave open follows from the disk.
    ///
    /// # Errors
    /// The store.
    pub fn collect_garbage(&self, settings: &GcSettings) -> Result<Option<PruneReport>, Error> {
        Ok(self.store.collect_garbage(settings)?)
    }
}
