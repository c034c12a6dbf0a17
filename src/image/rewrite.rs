//! `rewrite-timestamp`: a build's layers again, with no time later than a given one.
//!
//! The layers of the base image stay as they are, so that whoever has them need not fetch them again. The others become snapshots of their own, so that an
//! image with such layers is like any other: it runs, others start from it, and its blobs can be made again. They are found again by the original layers'
//! digests and the time.

use std::io::BufWriter;

use crate::oci::{ChainId, DiffId};
use crate::store::{CacheEntry, SnapshotId, SnapshotMeta, Store};

use super::Error;
use super::assemble::diff_ids;
use super::layer::{ApplyOptions, Devices, LayerOptions, apply, diff_id_only, inherit_directories, write_layer};

/// Makes the snapshots above the first `base_layers` of `snapshots` (bottom first) again where they hold times later than `latest` (seconds since the epoch). Gives all
/// snapshots of the result.
///
/// # Errors
/// The store, and layers that cannot be read.
pub fn rewrite_times(store: &Store, snapshots: &[SnapshotId], base_layers: usize, latest: i64) -> Result<Vec<SnapshotId>, Error> {
    let originals = diff_ids(store, snapshots)?;
    let chain = ChainId::chain(&originals);
    let mut rewritten: Vec<SnapshotId> = snapshots[..base_layers.min(snapshots.len())].to_vec();
    for position in rewritten.len()..snapshots.len() {
        let key = blake3::hash(format!("times until {latest} of {}", chain[position]).as_bytes());
        let _lock = store.lock_key(key.as_bytes())?;
        let known = store.cache_get(key.as_bytes())?.and_then(|entry| entry.snapshots.last().copied());
        let id = match known {
            Some(id) => id,
            None => {
                let id = rewrite_one(store, snapshots, position, &originals[position], &rewritten, latest)?;
                let entry = CacheEntry { result: *key.as_bytes(), output: Vec::new(), snapshots: vec![id] };
                store.cache_put(&[*key.as_bytes()], &entry)?;
                id
            }
        };
        rewritten.push(id);
    }
    Ok(rewritten)
}

fn rewrite_one(
    store: &Store,
    snapshots: &[SnapshotId],
    position: usize,
    original: &DiffId,
    below: &[SnapshotId],
    latest: i64,
) -> Result<SnapshotId, Error> {
    let id = snapshots[position];
    let failed = |source| Error::Layer { layer: format!("snapshot {id}"), source };
    let paths = |ids: &[SnapshotId]| ids.iter().rev().map(|id| store.snapshot_path(*id)).collect::<Vec<_>>();
    let (layer, lower) = (store.snapshot_path(id), store.layers_below(id, &snapshots[..position])?);
    let options =
        LayerOptions { latest_time: Some(latest), marks: store.marks(), algorithm: original.algorithm(), ..LayerOptions::default() };
    // A layer is what it is in comparison with those below: only where these are the same can it be the same itself.
    if below == &snapshots[..position] && &diff_id_only(&layer, &lower, &options).map_err(failed)?.diff_id == original {
        return Ok(id);
    }
    let active = store.prepare()?;
    let pipe = |source| Error::Io { action: "make", path: "a pipe".into(), source };
    let (reader, writer) = std::io::pipe().map_err(pipe)?;
    let devices = if store.userxattr() { Devices::Skip } else { Devices::Create };
    let apply_options = ApplyOptions { marks: store.marks(), devices, ..ApplyOptions::default() };
    let applied = std::thread::scope(|scope| {
        let written = scope.spawn(|| write_layer(&layer, &lower, &mut BufWriter::with_capacity(1 << 20, writer), &options));
        let applied = apply(reader, &active.fs_path(), &apply_options);
        match (written.join().expect("writing a layer does not panic"), applied) {
            // Where unpacking gave up, the other half only says that nobody reads any more.
            (_, Err(error)) => Err(error),
            // What was written until it failed may look like a whole archive.
            (Err(error), _) => Err(error),
            (Ok(_), Ok(applied)) => Ok(applied),
        }
    });
    let applied = applied.map_err(failed)?;
    inherit_directories(&active.fs_path(), &applied.implied_directories, &paths(below), store.marks()).map_err(failed)?;
    let description = store.snapshot(id)?.map(|snapshot| snapshot.description).unwrap_or_default();
    Ok(active.commit(SnapshotMeta { diff_id: None, size: applied.unpacked_size, description })?.id)
}
