//! Volumes as the user manages them: which there are, who uses them, and what becomes of those that nobody does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::store::VolumeRecord;

use super::super::{Engine, Error};
use super::{local_volumes, names};

/// The lengths of all files below a directory; what cannot be read, or vanishes meanwhile, does not count.
fn bytes_below(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.map(size).sum()
}

/// A volume, and who uses it.
#[derive(Clone, Debug)]
pub struct VolumeInfo {
    /// Its row.
    pub record: VolumeRecord,
    /// Where its files are.
    pub path: PathBuf,
    /// The names of the containers that mount it.
    pub users: Vec<String>,
}

impl Engine {
    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<VolumeInfo>, Error> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for info in self.containers()? {
            for name in info.spec.as_ref().map_or_else(Vec::new, |spec| self.volumes_of(spec)) {
                users.entry(name).or_default().push(info.record.name.clone());
            }
        }
        let info = |record: VolumeRecord| VolumeInfo {
            path: self.store().volume_path(&record.name),
            users: users.remove(&record.name).unwrap_or_default(),
            record,
        };
        Ok(self.store().volumes()?.into_iter().map(info).collect())
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Result<VolumeInfo, Error> {
        let found = self.volumes()?.into_iter().find(|volume| volume.record.name == name);
        found.ok_or_else(|| Error::Usage {
            message: format!("no such volume: `{name}`"),
            hint: Some("`strake volume ls` lists all volumes".into()),
        })
    }

    /// The bytes of a volume's files.
    pub fn volume_size(&self, volume: &VolumeInfo) -> u64 {
        bytes_below(&volume.path)
    }

    /// The bytes of what a container has written.
    pub fn container_size(&self, info: &super::ContainerInfo) -> u64 {
        self.container_layer(info).map_or(0, |layer| bytes_below(&layer.path))
    }

    /// The bytes of what a container has written, and of all its files together.
    pub fn container_sizes(&self, info: &super::ContainerInfo) -> (u64, u64) {
        let written = self.container_size(info);
        let image = info.record.image.as_ref().and_then(|id| self.store().image(id).ok().flatten());
        (written, written + image.map_or(0, |image| image.size))
    }

    /// Makes a volume; without a name it gets one of 64 digits. One that is there stays as it is. Gives the name.
    pub fn create_volume(
        &self,
        name: Option<&str>,
        labels: &BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
    ) -> Result<String, Error> {
        local_volumes::check(options)?;
        let (name, anonymous) = match name {
            Some(name) => (name.to_owned(), false),
            None => (names::random_hex()?, true),
        };
        let made = self.store().ensure_volume(&name, anonymous, labels, options);
        let made = made.map_err(|error| match error {
            error @ crate::store::Error::BadName { .. } => Error::Usage { message: error.to_string(), hint: None },
            other => other.into(),
        })?;
        if made {
            self.volume_event("create", &name);
        }
        Ok(name)
    }

    /// Removes a volume that no container uses.
    pub fn remove_volume(&self, volume: &VolumeInfo) -> Result<(), Error> {
        let name = &volume.record.name;
        if let Some(user) = volume.users.first() {
            let hint = Some(format!("remove that container first: `strake rm {user}`"));
            return Err(Error::Usage { message: format!("the volume `{name}` is in use by the container `{user}`"), hint });
        }
        self.store().remove_volume(name)?;
        self.volume_event("destroy", name);
        Ok(())
    }
}
