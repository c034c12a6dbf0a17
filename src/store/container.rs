//! Containers: their names, their directories and what they hold. What is in the directory (config, state, log) is the business of whoever runs them.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{OptionalExtension, Row, params};

use crate::oci::ImageId;
use crate::task::fault_point;

use super::database::parsed_option;
use super::layout::{hex, random_bytes, trash};
use super::lock::Kind;
use super::open::{from_micros, make_dir, now};
use super::remove::{discard, remove_tree};
use super::snapshot::{pack, unpack};
use super::{Error, SnapshotId, Store};

/// A container in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Its ID: 64 hexadecimal digits.
    pub id: String,
    /// Its name, which no other container has.
    pub name: String,
    /// The image that it was made of.
    pub image: Option<ImageId>,
    /// The layers below its own, bottom first; they stay as long as it does, even if the image is removed.
    pub snapshots: Vec<SnapshotId>,
    /// When it was made.
    pub created_at: SystemTime,
}

const SELECT: &str = "SELECT id, name, image, snapshots, created_at FROM containers";

/// Makes up an ID for a container.
pub fn new_container_id() -> Result<String, Error> {
    Ok(hex(&random_bytes::<32>()?))
}

impl Store {
    /// Makes a container: its row, and its directory with `fs` and `work` for what it writes. `id` is one that was made up for it ([`new_container_id`]).
    pub fn create_container(
        &self,
        id: String,
        name: &str,
        image: Option<&ImageId>,
        snapshots: &[SnapshotId],
    ) -> Result<ContainerRecord, Error> {
        check_name("container", name)?;
        let created_at = now();
        let _shared = self.lock_store(Kind::Shared)?;
        let dir = self.layout().container(&id);
        make_dir(&dir, 0o711)?;
        fault_point("container:made");
        let made = make_dir(&dir.join("fs"), 0o755).and_then(|()| make_dir(&dir.join("work"), 0o700)).and_then(|()| {
            self.database().write("record a container", |tx| {
                if tx.prepare_cached("SELECT 1 FROM containers WHERE name = ?")?.exists([name])? {
                    return Err(Error::NameTaken { what: "container", name: name.to_owned() }.into());
                }
                self.check_snapshots(tx, snapshots)?;
                let sql = "INSERT INTO containers (id, name, image, snapshots, created_at) VALUES (?, ?, ?, ?, ?)";
                let image = image.map(ImageId::to_string);
                tx.prepare_cached(sql)?.execute(params![id, name, image, pack(snapshots), created_at])?;
                Ok(())
            })
        });
        if let Err(error) = made {
            let _ = discard(self, &dir);
            return Err(error);
        }
        fault_point("container:recorded");
        let record = ContainerRecord {
            id,
            name: name.to_owned(),
            image: image.cloned(),
            snapshots: snapshots.to_vec(),
            created_at: from_micros(created_at),
        };
        Ok(record)
    }

    /// A container's directory. `fs` and `work` in it are its writable layer.
    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.layout().container(id)
    }

    /// The file in which what happens to containers and volumes is recorded; it need not be there. What is in it is the business of whoever writes it.
    pub fn journal_path(&self) -> PathBuf {
        self.layout().root().join("events.log")
    }

    /// The container that a user means: by name, by ID or by the beginning of an ID. A beginning that fits several is an error.
    pub fn find_container(&self, text: &str) -> Result<Option<ContainerRecord>, Error> {
        // Docker shows names with a slash in front.
        let text = text.strip_prefix('/').unwrap_or(text);
        let mut found = self.database().read("look a container up", |db| {
            let named =
                db.prepare_cached(&format!("{SELECT} WHERE id = ?1 OR name = ?1"))?.query_row([text], container_from_row).optional()?;
            if named.is_some() || text.is_empty() || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return Ok(named.into_iter().collect::<Vec<_>>());
            }
            let sql = format!("{SELECT} WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT 5");
            db.prepare_cached(&sql)?.query_map([text], container_from_row)?.collect()
        })?;
        if found.len() > 1 {
            let candidates = found.iter().map(|container| container.id.chars().take(12).collect()).collect();
            return Err(Error::Ambiguous { prefix: text.to_owned(), candidates });
        }
        Ok(found.pop())
    }

    /// All containers, newest first.
    pub fn containers(&self) -> Result<Vec<ContainerRecord>, Error> {
        self.database().read("list the containers", |db| {
            db.prepare_cached(&format!("{SELECT} ORDER BY created_at DESC, id"))?.query_map([], container_from_row)?.collect()
        })
    }

    /// Gives a container another name.
    pub fn rename_container(&self, id: &str, name: &str) -> Result<(), Error> {
        check_name("container", name)?;
        self.database().write("rename a container", |tx| {
            if tx.prepare_cached("SELECT 1 FROM containers WHERE name = ? AND id != ?")?.exists([name, id])? {
                return Err(Error::NameTaken { what: "container", name: name.to_owned() }.into());
            }
            tx.prepare_cached("UPDATE containers SET name = ? WHERE id = ?")?.execute([name, id])?;
            Ok(())
        })
    }

    /// Removes a container with its directory; false where there was none. It must not run any more.
    pub fn remove_container(&self, id: &str) -> Result<bool, Error> {
        let removed = self.delete_container(id)?;
        if removed {
            discard(self, &self.layout().container(id))?;
        }
        Ok(removed)
    }

    /// The same, but moves the directory only out of the way: somebody calls [`remove_remains`], or `prune` finds it.
    pub fn forget_container(&self, id: &str) -> Result<bool, Error> {
        let removed = self.delete_container(id)?;
        if removed {
            let (dir, trash) = (self.layout().container(id), self.layout().trash().join(id));
            match std::fs::rename(&dir, &trash) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("move away", &dir)(error)),
                _ => {}
            }
        }
        Ok(removed)
    }

    fn delete_container(&self, id: &str) -> Result<bool, Error> {
        let delete = || {
            let sql = "DELETE FROM containers WHERE id = ?";
            self.database().write("remove a container", |tx| Ok(tx.prepare_cached(sql)?.execute([id])? > 0))
        };
        self.make_room();
        let removed = match delete() {
            // Nothing can be written, perhaps because of this very container: its files go first, which makes room.
            Err(error) if error.is_disk_full() => {
                discard(self, &self.layout().container(id))?;
                delete()?
            }
            other => other?,
        };
        if removed {
            fault_point("container:forgotten");
        }
        Ok(removed)
    }
}

/// Removes what is left of a container that was forgotten in the store below `root`.
pub fn remove_remains(root: &Path, id: &str) -> Result<(), Error> {
    remove_tree(&trash(root).join(id)).map(drop)
}

fn container_from_row(row: &Row<'_>) -> rusqlite::Result<ContainerRecord> {
    Ok(ContainerRecord {
        id: row.get(0)?,
        name: row.get(1)?,
        image: parsed_option(row, 2)?,
        snapshots: unpack(row, 3)?,
        created_at: from_micros(row.get(4)?),
    })
}

/// Refuses names that Docker refuses: they are file names here.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && name.len() <= 255 && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        Ok(())
    } else {
        Err(Error::BadName { what, name: name.to_owned() })
    }
}
