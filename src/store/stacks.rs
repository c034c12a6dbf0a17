//! Stacks of snapshots as file trees. Deep ones share what is known of their layers: each is mostly the one before with a layer more.

use std::sync::PoisonError;

use super::view::{GrowingStack, LayerStack, MergedView};
use super::{Error, SnapshotId, Store};

/// Up to this depth asking each layer costs less than listing it.
const SHALLOW: usize = 16;

/// How many deep stacks are remembered.
const KEPT: usize = 8;

/// A stack that was asked for, or that a longer one was made of.
pub(super) struct KeptStack {
    snapshots: Vec<SnapshotId>,
    stack: GrowingStack,
}

impl Store {
    /// The files of a stack of committed snapshots (bottom first).
    pub fn view(&self, snapshots: &[SnapshotId]) -> Result<MergedView, Error> {
        let opened = MergedView::new(self.stack(snapshots)?, self.marks());
        opened.map_err(|source| self.layer_error(snapshots, source))
    }

    /// The layers of a stack of committed snapshots (bottom first).
    pub fn stack(&self, snapshots: &[SnapshotId]) -> Result<LayerStack, Error> {
        if snapshots.len() <= SHALLOW {
            return Ok(snapshots.iter().rev().map(|id| self.snapshot_path(*id)).collect::<Vec<_>>().into());
        }
        // A catalogue that could not grow has fewer layers than its list says, so it is taken out while it grows.
        let mut kept = self.kept_stacks().lock().unwrap_or_else(PoisonError::into_inner);
        let common = |other: &KeptStack| other.snapshots.iter().zip(snapshots).take_while(|(a, b)| a == b).count();
        let best = kept.iter().enumerate().map(|(at, other)| (common(other), at)).max();
        let mut chosen = match best {
            Some((shared, at)) if shared == snapshots.len() || shared == kept[at].snapshots.len() => kept.remove(at),
            Some((shared, at)) if shared > 0 => KeptStack { snapshots: snapshots[..shared].to_vec(), stack: kept[at].stack.branch(shared) },
            _ => KeptStack { snapshots: Vec::new(), stack: GrowingStack::default() },
        };
        if let Some(new) = snapshots.get(chosen.snapshots.len()..).filter(|new| !new.is_empty()) {
            let paths = new.iter().map(|id| self.snapshot_path(*id));
            chosen.stack.grow(paths, self.marks()).map_err(|source| self.layer_error(snapshots, source))?;
            chosen.snapshots.extend(new);
        }
        let stack = chosen.stack.stack(snapshots.len());
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push(chosen);
        Ok(stack)
    }

    fn layer_error(&self, snapshots: &[SnapshotId], source: std::io::Error) -> Error {
        Error::io("open", &snapshots.last().map(|id| self.snapshot_path(*id)).unwrap_or_default())(source)
    }
}
