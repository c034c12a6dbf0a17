//! Whether the files of a snapshot are still those of its layer, and a snapshot's files made again.
//!
//! A layer's tar stream is made again of its files, and hashes to the diff ID. Where it came as another program's archive that is not so, and the archive itself, which
//! the store keeps, is unpacked beside it and compared file by file. A snapshot without a diff ID, of a step whose image nobody made, has nothing to be compared with.

use crate::oci::{DiffId, Digest};
use crate::store::{ActiveSnapshot, CommittedSnapshot, LayerBlob, SnapshotId, Store};

use super::Error;
use super::layer::{LayerAt, LayerOptions, diff_id_only, differences, inherit_directories};
use super::pull::unpack_reader;

/// How many files that differ are named.
const NAMED: usize = 3;

/// What is wrong with the files of a snapshot, in words.
///
/// # Errors
/// The store; files that cannot be read are what is wrong.
pub fn snapshot_fault(store: &Store, snapshot: &CommittedSnapshot) -> Result<Option<String>, Error> {
    let (Some(diff_id), Some(below)) = (&snapshot.diff_id, store.stack_below(snapshot.id)?) else { return Ok(None) };
    let options = LayerOptions { latest_time: None, marks: store.marks(), algorithm: diff_id.algorithm(), ..LayerOptions::default() };
    let path = store.snapshot_path(snapshot.id);
    let lower = store.layers_below(snapshot.id, &below)?;
    let actual = match diff_id_only(&path, &lower, &options) {
        Ok(written) if written.diff_id == *diff_id => return Ok(None),
        Ok(written) => written.diff_id,
        Err(error) => return Ok(Some(in_one_line(&error))),
    };
    // Where nothing can be unpacked, what came as an archive of another program cannot be told from what has changed.
    if store.is_read_only() && !store.layer_blobs(diff_id)?.is_empty() {
        return Ok(None);
    }
    let Some((blob, active)) = unpack_again(store, diff_id, &below)? else {
        return Ok(Some(format!("its files hash to {actual}, and not to {diff_id}")));
    };
    let kept = LayerAt { path: active.fs_path(), lower: lower.clone() };
    let found = match differences(&LayerAt { path, lower }, &kept, &options) {
        Ok(found) => found,
        Err(error) => return Ok(Some(in_one_line(&error))),
    };
    if found.is_empty() {
        return Ok(None);
    }
    let named: Vec<String> = found.iter().take(NAMED).map(|one| format!("`{}`", one.path)).collect();
    let more = if found.len() > NAMED { format!(" and {} more", found.len() - NAMED) } else { String::new() };
    Ok(Some(format!("{}{more} are not as in blob {}", named.join(", "), blob.digest)))
}

/// Unpacks the files of a snapshot again from its layer's blob, in their place; gives that blob, or `None` where there is none that is whole.
///
/// # Errors
/// The store.
pub fn restore_snapshot(store: &Store, id: SnapshotId) -> Result<Option<Digest>, Error> {
    let Some(diff_id) = store.snapshot(id)?.and_then(|snapshot| snapshot.diff_id) else { return Ok(None) };
    let Some(below) = store.stack_below(id)? else { return Ok(None) };
    let Some((blob, active)) = unpack_again(store, &diff_id, &below)? else { return Ok(None) };
    store.replace_snapshot(id, active)?;
    Ok(Some(blob.digest))
}

/// Unpacks one of the blobs of a layer that lies above `below`. A blob that is damaged gives nothing.
fn unpack_again(store: &Store, diff_id: &DiffId, below: &[SnapshotId]) -> Result<Option<(LayerBlob, ActiveSnapshot)>, Error> {
    for blob in store.layer_blobs(diff_id)? {
        let file = store.open_blob(&blob.digest)?;
        let Ok((active, applied)) = unpack_reader(store, &blob.digest, diff_id.algorithm(), file) else { continue };
        if applied.diff_id != *diff_id {
            continue;
        }
        let lower: Vec<_> = below.iter().rev().map(|id| store.snapshot_path(*id)).collect();
        let inherited = inherit_directories(&active.fs_path(), &applied.implied_directories, &lower, store.marks());
        if inherited.is_ok() {
            return Ok(Some((blob, active)));
        }
    }
    Ok(None)
}

fn in_one_line(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
