//! Volumes and networks: what is known of them by name. A volume's bytes are `volumes/<name>/_data`; a network's config is not read here.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use rusqlite::{OptionalExtension, Row, params};

use crate::task::fault_point;

use super::container::check_name;
use super::lock::Kind;
use super::open::{from_micros, make_dir, now, set_mode};
use super::remove::{move_to_trash, remove_tree};
use super::settle::file_names;
use super::{Error, Store};

/// The file with a volume's options, where it has any.
const OPTIONS: &str = "options.json";

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its name.
    pub name: String,
    /// Whether it was made for one container, without a name of the user's.
    pub anonymous: bool,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Where its files are, if not here: the options of Docker's local driver.
    pub options: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: SystemTime,
}

impl Store {
    /// Makes a volume unless there is one of that name; says whether it is new.
    /// Its `options` are kept in a file beside its own files.
    pub fn ensure_volume(
        &self,
        name: &str,
        anonymous: bool,
        labels: &BTreeMap<String, String>,
        options: &BTreeMap<String, String>,
    ) -> Result<bool, Error> {
        check_name("volume", name)?;
        let _shared = self.lock_store(Kind::Shared)?;
        let dir = self.layout().volume(name);
        let data = dir.join("_data");
        if data.is_dir() && self.volume(name)?.is_some() {
            return Ok(false);
        }
        make_dir(&dir, 0o711)?;
        make_dir(&data, 0o755)?;
        set_mode(&data, 0o755)?;
        let kept = dir.join(OPTIONS);
        match options.is_empty() {
            // What a killed command has left says nothing of this one.
            true => drop(std::fs::remove_file(&kept)),
            false => {
                let write = |mut file: File| file.write_all(&serde_json::to_vec(options)?).and_then(|()| file.sync_all());
                File::create(&kept).and_then(write).map_err(Error::io("write", &kept))?;
            }
        }
        fault_point("volume:made");
        // A volume of the user's outlives everything; one that was made for a container need not be more durable than the container.
        for path in [&dir, &self.layout().volumes()].into_iter().filter(|_| !anonymous) {
            File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", path))?;
        }
        let labels = serde_json::to_string(labels).unwrap_or_default();
        let record = |tx: &rusqlite::Transaction<'_>| {
            let sql = "INSERT OR IGNORE INTO volumes (name, anonymous, labels, created_at) VALUES (?, ?, ?, ?)";
            Ok(tx.prepare_cached(sql)?.execute(params![name, anonymous, labels, now()])? > 0)
        };
        match anonymous {
            true => self.database().write("record a volume", record),
            false => self.database().write_durably("record a volume", record),
        }
    }

    /// The directory of a volume's files. Whether it exists is not asked.
    pub fn volume_path(&self, name: &str) -> PathBuf {
        self.layout().volume(name).join("_data")
    }

    /// The volume `name`, where there is one.
    pub fn volume(&self, name: &str) -> Result<Option<VolumeRecord>, Error> {
        self.database()
            .read("look a volume up", |db| {
                let sql = "SELECT name, anonymous, labels, created_at FROM volumes WHERE name = ?";
                db.prepare_cached(sql)?.query_row([name], volume_from_row).optional()
            })
            .and_then(|found| found.map(|volume| self.with_options(volume)).transpose())
    }

    fn with_options(&self, volume: VolumeRecord) -> Result<VolumeRecord, Error> {
        let path = self.layout().volume(&volume.name).join(OPTIONS);
        match std::fs::read(&path) {
            Ok(bytes) => {
                let options = serde_json::from_slice(&bytes).map_err(Error::io("read", &path))?;
                Ok(VolumeRecord { options, ..volume })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(volume),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, Error> {
        self.database()
            .read("list the volumes", |db| {
                let sql = "SELECT name, anonymous, labels, created_at FROM volumes ORDER BY name";
                db.prepare_cached(sql)?.query_map([], volume_from_row)?.collect::<rusqlite::Result<Vec<_>>>()
            })
            .and_then(|all| all.into_iter().map(|volume| self.with_options(volume)).collect())
    }

    /// Removes a volume with its files; false where there was none. Whether a container uses it is the caller's to know.
    pub fn remove_volume(&self, name: &str) -> Result<bool, Error> {
        check_name("volume", name)?;
        let _shared = self.lock_store(Kind::Shared)?;
        // The files go first: a volume without a row would give its files to the next one of that name. A row without files is an empty volume until prune takes it.
        let trash = move_to_trash(self, &self.layout().volume(name))?;
        fault_point("volume:trashed");
        let removed = self
            .database()
            .write_durably("remove a volume", |tx| Ok(tx.prepare_cached("DELETE FROM volumes WHERE name = ?")?.execute([name])? > 0))?;
        if let Some(trash) = trash {
            remove_tree(&trash)?;
        }
        Ok(removed)
    }

    /// Whether the volume `name` has a directory and nothing in it.
    pub(crate) fn is_unused_volume(&self, name: &str) -> bool {
        let data = self.volume_path(name);
        std::fs::read_dir(&data).map_or_else(|error| error.kind() == std::io::ErrorKind::NotFound, |mut files| files.next().is_none())
    }

    /// What was killed over making or removing a volume left: rows without a directory, which say true, and empty directories without a row.
    pub(crate) fn left_volumes(&self) -> Result<Vec<(String, bool)>, Error> {
        let names: HashSet<String> = file_names(&self.layout().volumes())?.into_iter().collect();
        let recorded: HashSet<String> = self.volumes()?.into_iter().map(|volume| volume.name).collect();
        let rows = recorded.difference(&names).map(|name| (name.clone(), true));
        let directories = names.difference(&recorded).filter(|name| self.is_unused_volume(name)).map(|name| (name.clone(), false));
        Ok(rows.chain(directories).collect())
    }

    /// Removes what [`Store::left_volumes`] tells of; gives how many there were. The caller holds the store's lock exclusively.
    pub(crate) fn take_left_volumes(&self) -> Result<usize, Error> {
        let left = self.left_volumes()?;
        for (name, is_row) in &left {
            match is_row {
                true => drop(self.database().write("forget a volume", |tx| Ok(tx.execute("DELETE FROM volumes WHERE name = ?", [name])?))?),
                // Only what is empty can be removed so.
                false => {
                    let dir = self.layout().volume(name);
                    let _ = std::fs::remove_file(dir.join(OPTIONS));
                    let _ = std::fs::remove_dir(dir.join("_data")).and_then(|()| std::fs::remove_dir(dir));
                }
            }
        }
        Ok(left.len())
    }

    /// Records a network. Fails where the name is taken.
    pub fn create_network(&self, name: &str, config: &[u8]) -> Result<(), Error> {
        check_name("network", name)?;
        self.database().write("record a network", |tx| {
            let sql = "INSERT OR IGNORE INTO networks (name, config, created_at) VALUES (?, ?, ?)";
            if tx.prepare_cached(sql)?.execute(params![name, config, now()])? == 0 {
                return Err(Error::NameTaken { what: "network", name: name.to_owned() }.into());
            }
            Ok(())
        })
    }

    /// The config of the network `name`.
    pub fn network(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.database().read("look a network up", |db| {
            db.prepare_cached("SELECT config FROM networks WHERE name = ?")?.query_row([name], |row| row.get(0)).optional()
        })
    }

    /// All networks with their configs, by name.
    pub fn networks(&self) -> Result<Vec<(String, Vec<u8>)>, Error> {
        self.database().read("list the networks", |db| {
            let mut query = db.prepare_cached("SELECT name, config FROM networks ORDER BY name")?;
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    /// Forgets a network; false where there was none.
    pub fn remove_network(&self, name: &str) -> Result<bool, Error> {
        self.database().write("remove a network", |tx| Ok(tx.prepare_cached("DELETE FROM networks WHERE name = ?")?.execute([name])? > 0))
    }
}

fn volume_from_row(row: &Row<'_>) -> rusqlite::Result<VolumeRecord> {
    let labels = serde_json::from_str(row.get_ref(2)?.as_str()?)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error)))?;
    Ok(VolumeRecord { name: row.get(0)?, anonymous: row.get(1)?, labels, options: BTreeMap::new(), created_at: from_micros(row.get(3)?) })
}
