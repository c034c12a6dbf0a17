//! Cache records: what a step gave, found by any of its keys. What keys and outputs mean is the business of `cache`.
//!
//! A record lives exactly as long as all snapshots that it names: whoever removes one removes its records in the same transaction, so a hit
//! never names what is gone. Times of last use are gathered in memory and written by [`Store::flush`].

use rusqlite::{OptionalExtension, Transaction, params};

use super::database::Fault;
use super::open::{USE_GRANULARITY, Used, now, stale_use};
use super::snapshot::{pack, unpack};
use super::{Error, SnapshotId, Store};

/// What a step gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry {
    /// The digest of what it gave, which goes into the keys of the steps after it.
    pub result: [u8; 32],
    /// Whatever else the step gave; not read here.
    pub output: Vec<u8>,
    /// The snapshots that it gave.
    pub snapshots: Vec<SnapshotId>,
}

impl Store {
    /// The record that was put under `key`.
    pub fn cache_get(&self, key: &[u8; 32]) -> Result<Option<CacheEntry>, Error> {
        Ok(self.cache_get_many(std::slice::from_ref(key))?.pop().flatten())
    }

    /// What the record under `key` gave, without the snapshots of it: of a step that is built upon a thousand others, those are most of the record.
    pub fn cache_result(&self, key: &[u8; 32]) -> Result<Option<[u8; 32]>, Error> {
        let old = now() - USE_GRANULARITY;
        let found = self.database().read("look a cache record up", |db| {
            let sql = "SELECT result, last_used, id FROM cache_keys JOIN cache_records ON id = record WHERE key = ?";
            db.prepare_cached(sql)?.query_row([key], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))).optional()
        })?;
        let Some((result, last_used, id)) = found else { return Ok(None) };
        if last_used < old {
            self.used().cache_records.insert(id);
        }
        Ok(Some(result))
    }

    /// The record of each of `keys`, as of one instant.
    pub fn cache_get_many(&self, keys: &[[u8; 32]]) -> Result<Vec<Option<CacheEntry>>, Error> {
        let mut stale: Vec<i64> = Vec::new();
        let is_stale = stale_use(now());
        let found = self.database().read_together("look cache records up", |db| {
            let sql = "SELECT result, output, snapshots, last_used, id FROM cache_keys JOIN cache_records ON id = record WHERE key = ?";
            let mut query = db.prepare_cached(sql)?;
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                let entry = query.query_row([key], |row| {
                    if is_stale(row.get(3)?) {
                        stale.push(row.get(4)?);
                    }
                    Ok(CacheEntry { result: row.get(0)?, output: row.get(1)?, snapshots: unpack(row, 2)? })
                });
                found.push(entry.optional()?);
            }
            Ok(found)
        })?;
        if !stale.is_empty() {
            self.used().cache_records.extend(stale);
        }
        Ok(found)
    }

    /// All keys of the record that is found by `key`, that one first; at most `limit`.
    pub fn cache_keys_with(&self, key: &[u8; 32], limit: usize) -> Result<Vec<[u8; 32]>, Error> {
        self.database().read("look cache keys up", |db| {
            let sql =
                "SELECT key FROM cache_keys WHERE record = (SELECT record FROM cache_keys WHERE key = ?1) ORDER BY key <> ?1, key LIMIT ?2";
            db.prepare_cached(sql)?.query_map(params![key, limit.cast_signed() as i64], |row| row.get(0))?.collect()
        })
    }

    /// Puts one record under all of `keys`, instead of whatever was there. Its snapshots must be committed.
    pub fn cache_put(&self, keys: &[[u8; 32]], entry: &CacheEntry) -> Result<(), Error> {
        self.cache_put_many(&[(keys, entry)])
    }

    /// The same for several records, in one transaction.
    pub fn cache_put_many(&self, records: &[(&[[u8; 32]], &CacheEntry)]) -> Result<(), Error> {
        self.database().write("write cache records", |tx| records.iter().try_for_each(|(keys, entry)| self.put_record(tx, keys, entry)))
    }

    fn put_record(&self, tx: &Transaction<'_>, keys: &[[u8; 32]], entry: &CacheEntry) -> Result<(), Fault> {
        self.check_snapshots(tx, &entry.snapshots)?;
        let sql = "INSERT INTO cache_records (result, output, snapshots, created_at, last_used) VALUES (?1, ?2, ?3, ?4, ?4)";
        tx.prepare_cached(sql)?.execute(params![entry.result, entry.output, pack(&entry.snapshots), now()])?;
        let record = tx.last_insert_rowid();
        let mut look = tx.prepare_cached("SELECT record FROM cache_keys WHERE key = ?")?;
        let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO cache_keys (key, record) VALUES (?, ?)")?;
        let mut orphan =
            tx.prepare_cached("DELETE FROM cache_records WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM cache_keys WHERE record = ?1)")?;
        for key in keys {
            let before: Option<i64> = look.query_row([key], |row| row.get(0)).optional()?;
            insert.execute(params![key, record])?;
            // A record without a key cannot be found again, and would only hold its snapshots.
            if let Some(before) = before
                && before != record
            {
                orphan.execute([before])?;
            }
        }
        Ok(())
    }

    /// What the last build of the step in `slot` was made of.
    pub fn step_components(&self, slot: &[u8; 32]) -> Result<Option<Vec<u8>>, Error> {
        self.database().read("read a step's components", |db| {
            let mut query = db.prepare_cached("SELECT components FROM steps WHERE slot = ?")?;
            query.query_row([slot], |row| row.get(0)).optional()
        })
    }

    /// Records what steps were made of, so that a later miss can say what changed. Steps that are as they were cost no write.
    pub fn put_step_components(&self, steps: &[([u8; 32], &[u8])]) -> Result<(), Error> {
        let changed = self.database().read_together("read steps' components", |db| {
            let mut query = db.prepare_cached("SELECT 1 FROM steps WHERE slot = ? AND components = ? AND used_at > ?")?;
            let recent = now() - USE_GRANULARITY * 60;
            let mut changed = Vec::new();
            for (slot, components) in steps {
                if !query.exists(params![slot, components, recent])? {
                    changed.push((slot, components));
                }
            }
            Ok(changed)
        })?;
        if changed.is_empty() {
            return Ok(());
        }
        self.database().write("write steps' components", |tx| {
            let mut insert = tx.prepare_cached("INSERT OR REPLACE INTO steps (slot, components, used_at) VALUES (?, ?, ?)")?;
            for (slot, components) in changed {
                insert.execute(params![slot, components, now()])?;
            }
            Ok(())
        })
    }

    /// Forgets all cache records and steps; gives the number of records. Prune frees their snapshots.
    pub fn cache_clear(&self) -> Result<usize, Error> {
        self.used().cache_records.clear();
        self.database().write("clear the cache", |tx| {
            let records = tx.execute("DELETE FROM cache_records", [])?;
            tx.execute("DELETE FROM steps", [])?;
            Ok(records)
        })
    }

    /// Writes when cache records and chains were last used. Called once at the end of a command; [`Store::settle`] does it too.
    pub fn flush(&self) -> Result<(), Error> {
        let used: Used = std::mem::take(&mut *self.used());
        if self.read_only().is_some() || (used.cache_records.is_empty() && used.chains.is_empty()) {
            return Ok(());
        }
        self.database().write("write what was used", |tx| {
            let now = now();
            let mut update = tx.prepare_cached("UPDATE cache_records SET last_used = ? WHERE id = ?")?;
            for id in &used.cache_records {
                update.execute(params![now, id])?;
            }
            let mut update = tx.prepare_cached("UPDATE chains SET last_used = ? WHERE chain = ?")?;
            for chain in &used.chains {
                update.execute(params![now, chain])?;
            }
            Ok(())
        })
    }
}
