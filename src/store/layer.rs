//! What is known of layers: which snapshots make up a chain, and which blobs are a layer's archive.

use std::collections::HashSet;

use rusqlite::{OptionalExtension, params};

use crate::oci::{ChainId, DiffId, Digest, MediaType};

use super::database::parsed;
use super::open::{now, stale_use};
use super::snapshot::{pack, unpack};
use super::{Error, SnapshotId, Store};

/// A blob that holds a layer as an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// The blob.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// How it is compressed, among other things.
    pub media_type: MediaType,
    /// What made it, where it was made here (`gzip`, `zstd:19`); as it came from elsewhere otherwise.
    pub made_as: Option<String>,
}

impl Store {
    /// The snapshots (bottom first) that make up a stack of layers, where all of them are in the store.
    pub fn chain(&self, chain: &ChainId) -> Result<Option<Vec<SnapshotId>>, Error> {
        let chain = chain.to_string();
        let found = self.database().read("look a chain up", |db| {
            let sql = "SELECT snapshots, last_used FROM chains WHERE chain = ?";
            db.prepare_cached(sql)?.query_row([&chain], |row| Ok((unpack(row, 0)?, row.get::<_, i64>(1)?))).optional()
        })?;
        let Some((snapshots, last_used)) = found else { return Ok(None) };
        if stale_use(now())(last_used) {
            self.used().chains.insert(chain);
        }
        Ok(Some(snapshots))
    }

    /// Records the snapshots (bottom first) that make up a stack of layers. All must be committed.
    pub fn record_chain(&self, chain: &ChainId, snapshots: &[SnapshotId]) -> Result<(), Error> {
        // A build with nothing to do writes nothing: what it writes is read again by each command until the log is written back.
        if self.chain(chain)?.is_some_and(|known| known == snapshots) {
            return Ok(());
        }
        let chain = chain.to_string();
        self.database().write("record a chain", |tx| {
            self.check_snapshots(tx, snapshots)?;
            tx.prepare_cached("DELETE FROM chains WHERE chain = ?")?.execute([&chain])?;
            let sql = "INSERT INTO chains (chain, snapshots, last_used) VALUES (?, ?, ?)";
            tx.prepare_cached(sql)?.execute(params![chain, pack(snapshots), now()])?;
            Ok(())
        })
    }

    /// The blobs in the store that hold the layer `diff_id`.
    pub fn layer_blobs(&self, diff_id: &DiffId) -> Result<Vec<LayerBlob>, Error> {
        let mut blobs: Vec<LayerBlob> = self.database().read("look a layer's blobs up", |db| {
            let sql = "SELECT digest, size, media_type, made_as FROM layer_blobs WHERE diff_id = ?";
            db.prepare_cached(sql)?
                .query_map([diff_id.to_string()], |row| {
                    let media_type = MediaType::parse(row.get_ref(2)?.as_str()?);
                    let (digest, size, made_as) = (parsed(row, 0)?, row.get::<_, i64>(1)?.cast_unsigned(), row.get(3)?);
                    Ok(LayerBlob { digest, size, media_type, made_as })
                })?
                .collect()
        })?;
        let mut failure = None;
        blobs.retain(|blob| match self.blob_size(&blob.digest) {
            Ok(size) => size.is_some(),
            Err(error) => {
                failure = Some(error);
                false
            }
        });
        failure.map_or(Ok(blobs), Err)
    }

    /// Records that the blob `digest` holds the layer `diff_id`. Forgotten when the blob is removed.
    pub fn record_layer_blob(&self, diff_id: &DiffId, blob: &LayerBlob) -> Result<(), Error> {
        self.database().write("record a layer's blob", |tx| {
            let sql = "INSERT OR REPLACE INTO layer_blobs (diff_id, digest, size, media_type, made_as) VALUES (?, ?, ?, ?, ?)";
            let (diff_id, digest) = (diff_id.to_string(), blob.digest.to_string());
            let values = params![diff_id, digest, blob.size.cast_signed(), blob.media_type.as_str(), blob.made_as];
            tx.prepare_cached(sql)?.execute(values)?;
            Ok(())
        })
    }

    /// The layer that the blob `digest` holds, where that was recorded.
    pub fn layer_of_blob(&self, digest: &Digest) -> Result<Option<DiffId>, Error> {
        self.database().read("look a blob's layer up", |db| {
            let sql = "SELECT diff_id FROM layer_blobs WHERE digest = ?";
            db.prepare_cached(sql)?.query_row([digest.to_string()], |row| parsed(row, 0)).optional()
        })
    }

    /// Fails where a snapshot is not committed, so that no record outlives what it names.
    pub(super) fn check_snapshots(&self, tx: &rusqlite::Transaction<'_>, ids: &[SnapshotId]) -> Result<(), super::database::Fault> {
        // Each record of a deep stack names nearly all that the one before named, so what was seen is remembered until something is removed.
        let removals = tx.prepare_cached("SELECT count FROM removals")?.query_row([], |row| row.get(0))?;
        let mut seen = self.seen_committed();
        if seen.0 != removals {
            *seen = (removals, HashSet::new());
        }
        let mut query = tx.prepare_cached("SELECT 1 FROM snapshots WHERE id = ?")?;
        for id in ids {
            if *id != SnapshotId::SCRATCH && !seen.1.contains(id) {
                if !query.exists([id.sql()])? {
                    return Err(Error::NoSnapshot { id: *id, root: self.root().to_owned() }.into());
                }
                seen.1.insert(*id);
            }
        }
        Ok(())
    }
}
