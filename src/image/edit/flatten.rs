//! All layers in one.
//!
//! The merged tree is written as one archive and unpacked again, so that the result is a layer like any other. What was deleted on the way is not in it.

use std::io::BufWriter;

use crate::image::Error;
use crate::image::assemble::complete_one;
use crate::image::layer::{ApplyOptions, Devices, apply, inherit_directories, write_rootfs_tar};
use crate::oci::{ChainId, HistoryEntry};
use crate::path::RootPath;
use crate::store::view::MergedView;
use crate::store::{SnapshotId, SnapshotMeta, Store};

use super::draft::{Draft, DraftLayer};

/// Makes one layer of all layers, whose snapshots are `snapshots`. The history stays, as that of one layer: its steps are told, and the last entry has the
/// layer.
///
/// # Errors
/// The store.
pub fn flatten(store: &Store, draft: &mut Draft, snapshots: &[SnapshotId], created_by: &str) -> Result<(), Error> {
    if draft.layers.len() < 2 {
        return Ok(());
    }
    let id = merge(store, snapshots)?;
    let layer = complete_one(store, id, &[])?;
    let chain = ChainId::extend(None, &layer.diff_id);
    // The same files again are the same snapshot.
    let snapshots = match store.chain(&chain)? {
        Some(known) => known,
        None => {
            store.record_chain(&chain, &[id])?;
            vec![id]
        }
    };
    draft.layers = vec![DraftLayer::alone(layer.diff_id, draft.config.platform(), snapshots)];
    let created = draft.config.history.last().and_then(|entry| entry.created.clone()).or_else(|| draft.config.created.clone());
    draft.config.history.iter_mut().for_each(|entry| entry.empty_layer = true);
    draft.config.history.push(HistoryEntry { created, created_by: Some(created_by.to_owned()), ..HistoryEntry::default() });
    Ok(())
}

/// A snapshot of all that `snapshots` show together.
fn merge(store: &Store, snapshots: &[SnapshotId]) -> Result<SnapshotId, Error> {
    let failed = |source| Error::Layer { layer: "of all layers".into(), source };
    let io = |action| move |source| Error::Io { action, path: "the image's files".into(), source };
    let layers: Vec<_> = snapshots.iter().rev().map(|id| store.snapshot_path(*id)).collect();
    let tree = MergedView::new(layers.clone(), store.marks()).map_err(io("open"))?;
    let active = store.prepare()?;
    let (reader, writer) = std::io::pipe().map_err(io("pass on"))?;
    let devices = if store.userxattr() { Devices::Skip } else { Devices::Create };
    let options = ApplyOptions { marks: store.marks(), devices, ..ApplyOptions::default() };
    let applied = std::thread::scope(|scope| {
        let written = scope.spawn(|| write_rootfs_tar(&tree, &mut BufWriter::with_capacity(1 << 20, writer), None));
        let applied = apply(reader, &active.fs_path(), &options);
        match (written.join().expect("writing a tree does not panic"), applied) {
            // Where unpacking gave up, the other half only says that nobody reads any more.
            (_, Err(error)) => Err(error),
            // What was written until it failed may look like a whole archive.
            (Err(error), _) => Err(error),
            (Ok(_), Ok(applied)) => Ok(applied),
        }
    });
    let applied = applied.map_err(failed)?;
    // The archive has no entry for the root.
    inherit_directories(&active.fs_path(), &[RootPath::root()], &layers, store.marks()).map_err(failed)?;
    let meta = SnapshotMeta { diff_id: None, size: applied.unpacked_size, description: "all layers of an image".to_owned() };
    Ok(active.commit(meta)?.id)
}
