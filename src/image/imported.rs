//! Layers of build caches: from a blob in the store to a snapshot, and from a step's snapshot to a blob.
//!
//! A cache's layer is unpacked by the same code as a pulled one, and must hash to the diff ID that was announced.

use std::time::SystemTime;

use crate::oci::{ChainId, Descriptor, DiffId, Digest, ImageId, Platform};
use crate::store::{ImageRecord, LayerBlob, SnapshotId, Store};

use super::Error;
use super::assemble::complete_one;
use super::blobs::{DEFAULT, ensure_layer_as, layer_blob};
use super::layer::CompressionSpec;
use super::pull::{commit_layer, unpack_reader};

/// A step's layer, ready to be given away.
#[derive(Clone, Debug)]
pub struct StepLayer {
    /// The blob.
    pub blob: Descriptor,
    /// What it hashes to, unpacked.
    pub diff_id: DiffId,
    /// When the step ran.
    pub created: SystemTime,
}

/// Unpacks the layer `blob`, which is in the store, above the snapshots `below`; gives its snapshot.
///
/// # Errors
/// The blob is no layer, tries to leave its directory, or does not hash to `diff_id`; and the store's.
pub fn unpack_layer(
    store: &Store,
    below: &[SnapshotId],
    blob: &Descriptor,
    diff_id: &DiffId,
    created: Option<SystemTime>,
) -> Result<SnapshotId, Error> {
    // Without all diff IDs below (a step that ran here and was never packed), the stack has no name that others could know.
    let mut diff_ids = Vec::with_capacity(below.len() + 1);
    for id in below {
        diff_ids.extend(store.snapshot(*id)?.and_then(|snapshot| snapshot.diff_id));
    }
    diff_ids.push(diff_id.clone());
    let chain = ChainId::chain(&diff_ids).pop().filter(|_| diff_ids.len() == below.len() + 1);
    if let Some(chain) = &chain
        && let Some(known) = store.chain(chain)?.and_then(|known| known.last().copied())
    {
        return Ok(known);
    }
    let (active, applied) = unpack_reader(store, &blob.digest, diff_id.algorithm(), store.open_blob(&blob.digest)?)?;
    if applied.diff_id != *diff_id {
        return Err(Error::DiffId { digest: blob.digest.clone(), expected: diff_id.clone(), actual: applied.diff_id });
    }
    let received = LayerBlob { digest: blob.digest.clone(), size: blob.size, media_type: blob.media_type.clone(), made_as: None };
    store.record_layer_blob(diff_id, &received)?;
    let stack = commit_layer(store, below.to_vec(), active, applied, chain.as_ref())?;
    let top = stack.last().copied().ok_or_else(|| Error::LayerGone { diff_id: diff_id.clone() })?;
    if let Some(created) = created {
        store.date_snapshot(top, created)?;
    }
    Ok(top)
}

/// The blob of the topmost of `stack`'s layers: one that is there, whatever it is compressed with, unless `force`; else a new one.
///
/// # Errors
/// The snapshot is gone, and the store's.
pub fn pack_layer(store: &Store, stack: &[SnapshotId], compression: Option<CompressionSpec>, force: bool) -> Result<StepLayer, Error> {
    let Some((top, below)) = stack.split_last() else { return Err(Error::SnapshotGone { id: "(none)".into() }) };
    let layer = complete_one(store, *top, below)?;
    let position = below.len();
    // Of an image only what packing one of its layers takes: where the files are, and what they hash to.
    let image = ImageRecord {
        id: ImageId::new(Digest::sha256(b"")),
        manifest: None,
        platform: Platform::host(),
        created_at: layer.created_at,
        size: 0,
        diff_ids: vec![layer.diff_id.clone(); stack.len()],
        snapshots: stack.to_vec(),
    };
    let spec = compression.unwrap_or(DEFAULT);
    let blob = if force { ensure_layer_as(store, &image, position, spec)? } else { layer_blob(store, &image, position, spec, &|_| true)? };
    Ok(StepLayer { blob, diff_id: layer.diff_id, created: layer.created_at })
}
