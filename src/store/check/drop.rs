//! Taking what is broken out of the store. Each problem loses what it names; what depended on that is a problem of the next look.

use rusqlite::{OptionalExtension, params};

use crate::oci::{Digest, Reference};
use crate::store::database::{Fault, parsed};
use crate::store::lock::Kind;
use crate::store::remove::discard;
use crate::store::settle::remove_snapshots;
use crate::store::snapshot::{pack, unpack};
use crate::store::{ActiveSnapshot, Error, SnapshotId, Store};

use super::database::record_volumes;
use super::{BlobUse, Problem, Record};

impl Store {
    /// Takes out of the store what the problem names, and says what that was; nothing is left that has this problem. A container is not taken: its files are the
    /// user's, and whoever knows whether it runs removes it.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn drop_broken(&self, problem: &Problem) -> Result<String, Error> {
        match problem {
            Problem::Database { path, .. } => Err(Error::io("mend", path)(std::io::Error::from(std::io::ErrorKind::InvalidData))),
            Problem::Place { path, .. } => {
                self.mend_place(path)?;
                Ok(format!("`{}` is as it should be again", path.display()))
            }
            Problem::BlobContent { digest, .. } | Problem::BlobSize { digest, .. } | Problem::BlobUnreadable { digest, .. } => {
                self.drop_blob(digest)?;
                Ok(format!("dropped blob {digest}"))
            }
            Problem::BlobMissing { digest, needed } => self.drop_use(digest, needed),
            Problem::LayerMissing { image, .. } => self.drop_record(&Record::Image(image.to_string())),
            Problem::SnapshotMissing { id, .. } | Problem::SnapshotAltered { id, .. } => {
                let _exclusive = self.lock_store(Kind::Exclusive)?;
                self.database().write("drop a snapshot", |tx| Ok(remove_snapshots(tx, &[*id].into())?))?;
                discard(self, &self.layout().snapshot(*id))?;
                Ok(format!("dropped snapshot {id}, and what the build cache says of it"))
            }
            Problem::VolumeUnrecorded { name } => {
                let made = self.database().write_durably("record volumes", |tx| record_volumes(tx, vec![name.clone()]))?;
                Ok(format!("recorded the volume `{}`", made.join("`, `")))
            }
            Problem::Dangling { record, .. } | Problem::Unreadable { record, .. } => self.drop_record(record),
        }
    }

    /// Takes a blob's file away; rows that name it stay.
    ///
    /// # Errors
    /// The file cannot be moved.
    pub fn drop_blob(&self, digest: &Digest) -> Result<(), Error> {
        let _exclusive = self.lock_store(Kind::Exclusive)?;
        self.discard_blob(digest)
    }

    /// The same for who holds the store's lock exclusively.
    pub(crate) fn discard_blob(&self, digest: &Digest) -> Result<(), Error> {
        for path in [self.layout().settled_blob(digest), self.layout().fresh_blob(digest)] {
            discard(self, &path)?;
        }
        Ok(())
    }

    fn drop_use(&self, digest: &Digest, needed: &BlobUse) -> Result<String, Error> {
        let digest = digest.to_string();
        match needed {
            BlobUse::Config(id) => self.drop_record(&Record::Image(id.to_string())),
            BlobUse::Manifest(id) => {
                self.write_rows("UPDATE images SET manifest = NULL WHERE id = ?1 AND manifest = ?2", &[&id.to_string(), &digest])?;
                Ok(format!("image {id} has no manifest any more: the next push or save makes one"))
            }
            BlobUse::Named(name) => {
                self.write_rows("UPDATE names SET manifest = NULL WHERE name = ?1 AND manifest = ?2", &[&name.to_string(), &digest])?;
                Ok(format!("`{name}` stands for its image alone"))
            }
            BlobUse::Layer(diff_id) => self.drop_record(&Record::LayerBlob { diff_id: diff_id.to_string(), digest }),
        }
    }

    fn drop_record(&self, record: &Record) -> Result<String, Error> {
        match record {
            Record::Image(id) => return self.drop_image(id),
            Record::Name(name) => self.write_rows("DELETE FROM names WHERE name = ?", &[name])?,
            Record::Chain(chain) => self.write_rows("DELETE FROM chains WHERE chain = ?", &[chain])?,
            Record::CacheRecord(id) => self.write_rows("DELETE FROM cache_records WHERE id = ?", &[id])?,
            Record::CacheKey(key) => self.write_rows("DELETE FROM cache_keys WHERE key = ?", &[key])?,
            Record::LayerBlob { diff_id, digest } => {
                self.write_rows("DELETE FROM layer_blobs WHERE diff_id = ? AND digest = ?", &[diff_id, digest])?;
            }
            Record::Container(id) => self.write_rows("DELETE FROM containers WHERE id = ?", &[id])?,
        }
        Ok(format!("dropped {record}"))
    }

    /// Drops an image with its names. One that has its layers as a recorded stack, or as blobs, only loses the snapshots that are not there.
    fn drop_image(&self, id: &str) -> Result<String, Error> {
        let names = self.database().write("drop an image", |tx| {
            let sql = "SELECT diff_ids, snapshots, manifest FROM images WHERE id = ?";
            let from_row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, unpack(row, 1)?, row.get(2)?));
            let found: Option<(String, Vec<SnapshotId>, Option<String>)> = tx.query_row(sql, [id], from_row).optional()?;
            let Some((diff_ids, stack, manifest)) = found else { return Ok(Some(Vec::new())) };
            let mut exists = tx.prepare("SELECT 1 FROM snapshots WHERE id = ?")?;
            let mut whole = true;
            for snapshot in &stack {
                whole &= exists.exists([snapshot.sql()])?;
            }
            if !whole {
                let mut recorded = tx.prepare("SELECT 1 FROM layer_blobs WHERE diff_id = ?")?;
                let mut packed = manifest.is_some();
                for diff_id in diff_ids.split_whitespace() {
                    packed &= recorded.exists([diff_id])?;
                }
                tx.execute("UPDATE images SET snapshots = ? WHERE id = ?", params![pack(&[]), id])?;
                if packed {
                    return Ok::<_, Fault>(None);
                }
            }
            let names = "DELETE FROM names WHERE image = ? RETURNING name";
            let names: Vec<Reference> = tx.prepare(names)?.query_map([id], |row| parsed(row, 0))?.flatten().collect();
            tx.execute("UPDATE names SET settled_image = NULL, settled_manifest = NULL WHERE settled_image = ?", [id])?;
            tx.execute("DELETE FROM images WHERE id = ?", [id])?;
            Ok(Some(names))
        })?;
        Ok(match names {
            None => format!("image {id} will be unpacked again from its blobs"),
            Some(names) if names.is_empty() => format!("dropped image {id}"),
            Some(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("`{}`", name.familiar())).collect();
                format!("dropped image {id}, which was {}", names.join(", "))
            }
        })
    }

    /// Puts `active` in the place of the files of the snapshot `id`, whose row and name stay: whatever is made of it finds it whole again.
    ///
    /// # Errors
    /// There is no such snapshot, or the store cannot be written.
    pub fn replace_snapshot(&self, id: SnapshotId, active: ActiveSnapshot) -> Result<(), Error> {
        let _exclusive = self.lock_store(Kind::Exclusive)?;
        if self.snapshot(id)?.is_none() {
            return Err(Error::NoSnapshot { id, root: self.root().to_owned() });
        }
        discard(self, &self.layout().snapshot(id))?;
        active.take_place(&self.layout().snapshot(id))?;
        self.write_rows("UPDATE snapshots SET settled = 0 WHERE id = ?", &[&id.sql()])
    }

    /// The snapshots below `id` in some stack that the store knows, bottom first; `None` where it is in none.
    ///
    /// # Errors
    /// The store's database.
    pub fn stack_below(&self, id: SnapshotId) -> Result<Option<Vec<SnapshotId>>, Error> {
        self.database().read("look for the layers below", |db| {
            for sql in [
                "SELECT snapshots FROM images",
                "SELECT snapshots FROM chains",
                "SELECT snapshots FROM cache_records",
                "SELECT snapshots FROM containers",
            ] {
                let mut query = db.prepare_cached(sql)?;
                let mut rows = query.query([])?;
                while let Some(row) = rows.next()? {
                    let stack = unpack(row, 0)?;
                    if let Some(at) = stack.iter().position(|other| *other == id) {
                        return Ok(Some(stack[..at].to_vec()));
                    }
                }
            }
            Ok(None)
        })
    }

    /// The names that stand for something in a registry, each with the manifest or index that it stands for.
    ///
    /// # Errors
    /// The store's database.
    pub fn origins(&self) -> Result<Vec<(Reference, Digest)>, Error> {
        self.database().read("look for where images came from", |db| {
            let sql = "SELECT name, manifest FROM names WHERE manifest IS NOT NULL
                UNION SELECT name, images.manifest FROM names JOIN images ON image = id WHERE images.manifest IS NOT NULL AND names.manifest IS NOT NULL
                UNION SELECT name, digest FROM remote_manifests";
            let mut query = db.prepare(sql)?;
            query.query_map([], |row| Ok((parsed(row, 0)?, parsed(row, 1)?)))?.collect()
        })
    }

    /// All blobs.
    ///
    /// # Errors
    /// Their directories cannot be listed.
    pub fn blobs(&self) -> Result<Vec<Digest>, Error> {
        let settled = self.settled_blobs()?;
        Ok(settled.iter().filter_map(|name| name.parse().ok()).chain(self.fresh_blobs()?).collect())
    }

    fn write_rows(&self, sql: &str, values: &[&dyn rusqlite::ToSql]) -> Result<(), Error> {
        self.database().write("drop a row", |tx| {
            tx.execute(sql, values)?;
            Ok(())
        })
    }
}
