//! Durability: what was made is visible at once, and on the disk once it is settled.
//!
//! Settling is one `syncfs`, after which fresh blobs move to `blobs/` and rows lose their mark, in that order; the transaction that takes the marks is
//! flushed itself. Only what was there before the `syncfs` is settled. After a reboot, [`Store::recover`] drops what still has its mark: it may be torn.
//! A name that had moved falls back to where it pointed when it was last settled.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, Transaction, params};

use crate::oci::Digest;
use crate::task::fault_point;

use super::layout::parse_flat_name;
use super::lock::Kind;
use super::open::make_dir;
use super::remove::discard;
use super::snapshot::{pack, unpack};
use super::stamp::is_due;
use super::{Error, SnapshotId, Store};

/// How often at most a process is started that shortens the database's log.
const LOG_INTERVAL: Duration = Duration::from_millis(200);

/// What is not settled yet.
#[derive(Default)]
struct Unsettled {
    blobs: Vec<Digest>,
    snapshots: Vec<i64>,
    images: Vec<String>,
    /// Names with where they pointed.
    names: Vec<(String, String)>,
}

impl Unsettled {
    fn is_empty(&self) -> bool {
        self.blobs.is_empty() && self.snapshots.is_empty() && self.images.is_empty() && self.names.is_empty()
    }
}

impl Store {
    /// Makes everything in the store durable that was made so far, by any process. Call it at the end of a command, off the critical path.
    pub fn settle(&self) -> Result<(), Error> {
        if self.read_only().is_some() {
            return Ok(());
        }
        self.flush()?;
        let unsettled = self.unsettled()?;
        if !unsettled.is_empty() {
            self.sync_file_system()?;
            fault_point("settle:synced");
            let _shared = self.lock_store(Kind::Shared)?;
            self.move_fresh_blobs(&unsettled.blobs)?;
            fault_point("settle:moved");
            self.database().write_durably("settle", |tx| Ok(mark_settled(tx, &unsettled)?))?;
            fault_point("settle:marked");
        }
        self.keep_reserve();
        self.database().checkpoint_if_long()
    }

    /// Makes the blobs that were stored so far durable, by one `syncfs`.
    pub fn sync(&self) -> Result<(), Error> {
        let blobs = self.fresh_blobs()?;
        if blobs.is_empty() {
            return Ok(());
        }
        self.sync_file_system()?;
        let _shared = self.lock_store(Kind::Shared)?;
        self.move_fresh_blobs(&blobs)
    }

    fn sync_file_system(&self) -> Result<(), Error> {
        let root = File::open(self.root()).map_err(Error::io("open", self.root()))?;
        rustix::fs::syncfs(root).map_err(Error::io("sync the file system of", self.root()))
    }

    fn unsettled(&self) -> Result<Unsettled, Error> {
        // Rows first: what they name was in place before they were written, so it is listed here or settled already.
        let rows = self.database().read_together("look for what is not settled", |db| {
            let strings = |sql: &str| db.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>();
            let snapshots = db
                .prepare_cached("SELECT id FROM snapshots WHERE settled = 0")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            let mut names = db.prepare_cached("SELECT name, image FROM names WHERE settled = 0")?;
            let names = names.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
            Ok(Unsettled { blobs: Vec::new(), snapshots, images: strings("SELECT id FROM images WHERE settled = 0")?, names })
        })?;
        Ok(Unsettled { blobs: self.fresh_blobs()?, ..rows })
    }

    /// Whether [`Store::settle`] has nothing to do: there is nothing in the store that a power cut would take, and the database's log is short.
    pub fn is_settled(&self) -> Result<bool, Error> {
        Ok(!self.database().has_long_log() && self.unsettled()?.is_empty())
    }

    /// Whether somebody should call [`Store::shorten_log`]: the database's log is so long that reading it takes a while, which the first of the processes
    /// that have the database open does; and this was not said to another just now.
    pub fn log_is_due(&self) -> bool {
        // Where nothing can be written, nothing is to be shortened.
        self.database().has_long_log() && is_due(&self.layout().log_stamp(), LOG_INTERVAL).unwrap_or(false)
    }

    /// Writes the database's log back where it is long. Makes nothing durable.
    pub fn shorten_log(&self) -> Result<(), Error> {
        self.database().checkpoint_if_long()
    }

    pub(crate) fn fresh_blobs(&self) -> Result<Vec<Digest>, Error> {
        let names = file_names(&self.layout().fresh())?;
        Ok(names.iter().filter_map(|name| parse_flat_name(name)).collect())
    }

    /// Gives blobs that are on the disk their final names, and waits for those to be on the disk.
    fn move_fresh_blobs(&self, blobs: &[Digest]) -> Result<(), Error> {
        let mut directories = HashSet::new();
        for digest in blobs {
            let (from, to) = (self.layout().fresh_blob(digest), self.layout().settled_blob(digest));
            match fs::rename(&from, &to) {
                Ok(()) => {
                    directories.insert(digest.algorithm().name());
                    fault_point("settle:moved-one");
                }
                // Another process settled or pruned it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("create", &to)(error)),
            }
        }
        for name in directories {
            let path = self.layout().blobs().join(name);
            File::open(&path).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", &path))?;
        }
        Ok(())
    }

    /// Drops what an earlier boot did not settle. Whoever comes first in a boot does it; `fresh/<boot id>` says that it was done.
    pub(crate) fn recover(&self) -> Result<(), Error> {
        let _exclusive = self.lock_store(Kind::Exclusive)?;
        let fresh = self.layout().fresh();
        if fresh.try_exists().map_err(Error::io("stat", &fresh))? {
            return Ok(());
        }
        let all = self.layout().fresh_of_all_boots();
        for boot in file_names(&all)? {
            discard(self, &all.join(boot))?;
            fault_point("recover:discarded");
        }
        let blobs = self.settled_blobs()?;
        self.database().write_durably("drop what is not settled", |tx| {
            drop_unsettled(tx)?;
            drop_without_blobs(tx, &blobs)?;
            Ok(())
        })?;
        fault_point("recover:dropped");
        make_dir(&fresh, 0o700)
    }

    /// The names of all blobs that are settled.
    pub(crate) fn settled_blobs(&self) -> Result<HashSet<String>, Error> {
        let mut blobs = HashSet::new();
        for algorithm in ["sha256", "sha512"] {
            let names = file_names(&self.layout().blobs().join(algorithm))?;
            blobs.extend(names.into_iter().map(|hex| format!("{algorithm}:{hex}")));
        }
        Ok(blobs)
    }
}

/// The names in a directory of the store; those that are not UTF-8 are not ours.
pub(crate) fn file_names(dir: &Path) -> Result<Vec<String>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", dir)(error)),
    };
    let names = entries.map(|entry| Ok(entry.map_err(Error::io("list", dir))?.file_name().into_string().ok()));
    names.filter_map(Result::transpose).collect()
}

fn mark_settled(tx: &Transaction<'_>, unsettled: &Unsettled) -> rusqlite::Result<()> {
    let mut update = tx.prepare_cached("UPDATE snapshots SET settled = 1 WHERE id = ?")?;
    for id in &unsettled.snapshots {
        update.execute([id])?;
    }
    let mut update = tx.prepare_cached("UPDATE images SET settled = 1 WHERE id = ?")?;
    for id in &unsettled.images {
        update.execute([id])?;
    }
    // A name that has moved since is not settled where it points now.
    let sql = "UPDATE names SET settled = 1, settled_image = NULL, settled_manifest = NULL WHERE name = ? AND image = ?";
    let mut update = tx.prepare_cached(sql)?;
    for (name, image) in &unsettled.names {
        update.execute([name, image])?;
    }
    Ok(())
}

/// Drops the rows that are marked, and whatever names one of them.
fn drop_unsettled(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let mut unsettled = tx.prepare("SELECT id FROM snapshots WHERE settled = 0")?;
    let unsettled = unsettled.query_map([], |row| SnapshotId::from_row(row, 0))?.collect::<Result<_, _>>()?;
    remove_snapshots(tx, &unsettled)?;
    tx.execute_batch(
        "DELETE FROM images WHERE settled = 0;
        DELETE FROM names WHERE settled = 0 AND settled_image IS NULL;
        UPDATE names SET image = settled_image, manifest = settled_manifest, settled = 1, settled_image = NULL, settled_manifest = NULL
            WHERE settled = 0;",
    )
}

/// Removes the rows of snapshots, and all records that name one, so that no record ever names what is gone.
///
/// All records are looked through: an index would have a row for each layer of each record, at the cost of who builds.
pub(crate) fn remove_snapshots(tx: &Connection, snapshots: &HashSet<SnapshotId>) -> rusqlite::Result<()> {
    if snapshots.is_empty() {
        return Ok(());
    }
    for (query, remove) in [
        ("SELECT id, snapshots FROM cache_records", "DELETE FROM cache_records WHERE id = ?"),
        ("SELECT chain, snapshots FROM chains", "DELETE FROM chains WHERE chain = ?"),
    ] {
        let mut naming: Vec<Value> = Vec::new();
        let mut query = tx.prepare(query)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            if unpack(row, 1)?.iter().any(|id| snapshots.contains(id)) {
                naming.push(row.get(0)?);
            }
        }
        let mut remove = tx.prepare(remove)?;
        for name in naming {
            remove.execute([name])?;
        }
    }
    let mut remove = tx.prepare("DELETE FROM snapshots WHERE id = ?")?;
    for id in snapshots {
        remove.execute([id.sql()])?;
    }
    Ok(())
}

/// Mends the rows that name a blob or a snapshot that a power cut took.
fn drop_without_blobs(tx: &Transaction<'_>, blobs: &HashSet<String>) -> rusqlite::Result<()> {
    let mut query = tx.prepare("SELECT DISTINCT digest FROM layer_blobs")?;
    let digests: Vec<String> = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for digest in digests.iter().filter(|digest| !blobs.contains(*digest)) {
        tx.execute("DELETE FROM layer_blobs WHERE digest = ?", [digest])?;
    }
    let mut query = tx.prepare("SELECT id, manifest, snapshots FROM images")?;
    let mut rows = query.query([])?;
    let mut exists = tx.prepare("SELECT 1 FROM snapshots WHERE id = ?")?;
    while let Some(row) = rows.next()? {
        let (id, manifest): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        if !blobs.contains(&id) {
            tx.execute("DELETE FROM images WHERE id = ?", [&id])?;
            continue;
        }
        if manifest.is_some_and(|manifest| !blobs.contains(&manifest)) {
            tx.execute("UPDATE images SET manifest = NULL WHERE id = ?", [&id])?;
        }
        for snapshot in unpack(row, 2)? {
            if !exists.exists([snapshot.sql()])? {
                tx.execute("UPDATE images SET snapshots = ? WHERE id = ?", params![pack(&[]), id])?;
            }
        }
    }
    tx.execute("DELETE FROM names WHERE image NOT IN (SELECT id FROM images)", [])?;
    Ok(())
}
