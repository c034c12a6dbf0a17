//! `--verify-reproducible`: two builds of the same, compared step by step.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::executor::Outcome;
use crate::graph::{BuildGraph, NodeId, Step};
pub use crate::image::layer::EntryDifference;
use crate::image::layer::{LayerAt, LayerOptions, diff_id_only, differences};
use crate::store::{SnapshotId, Store};

use super::Error;

/// A step that gave two results.
#[derive(Clone, Debug)]
pub struct StepDifference {
    /// The step.
    pub step: Step,
    /// The files that differ, in the order of their paths.
    pub files: Vec<EntryDifference>,
}

/// The steps of a build that gave two results although what they started from was the same.
#[derive(Clone, Debug)]
pub struct NotReproducible {
    /// These, in the order of the Dockerfile.
    pub steps: Vec<StepDifference>,
    /// How many steps were not compared, since they build on these.
    pub not_compared: usize,
}

/// The moment before which all times count, where a build has no time of its own: when it starts. The kernel's clock for files is a little behind.
pub(super) fn starting_time() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    i64::try_from(now).unwrap_or(i64::MAX) - 1
}

/// Compares the steps of two builds of `graph`. Times later than `latest` (seconds since the epoch) count as that.
///
/// # Errors
/// [`Error::NotReproducible`], or a layer that cannot be read.
pub(super) fn compare(store: &Store, graph: &BuildGraph, one: &Outcome, other: &Outcome, latest: i64) -> Result<(), Error> {
    let options = LayerOptions { latest_time: Some(latest), marks: store.marks(), ..LayerOptions::default() };
    let mut differ: HashSet<NodeId> = HashSet::new();
    let mut found = NotReproducible { steps: Vec::new(), not_compared: 0 };
    for id in graph.nodes() {
        let results = (one.results.get(&id), other.results.get(&id));
        if graph.inputs(id).iter().any(|input| differ.contains(input)) {
            differ.insert(id);
            found.not_compared += usize::from(results.0.is_some());
            continue;
        }
        let (Some(one), Some(other)) = results else { continue };
        let step = &graph.node(id).step;
        let failed = |source| Error::Image {
            action: "compare the results of",
            name: step.text.clone(),
            source: crate::image::Error::Layer { layer: "of the step".into(), source },
        };
        let (one, other) = (layer_of(store, one)?, layer_of(store, other)?);
        let id_of = |layer: &LayerAt| diff_id_only(&layer.path, &layer.lower, &options).map_err(failed);
        if id_of(&one)?.diff_id == id_of(&other)?.diff_id {
            continue;
        }
        differ.insert(id);
        let files = differences(&one, &other, &options).map_err(failed)?;
        found.steps.push(StepDifference { step: step.clone(), files });
    }
    if found.steps.is_empty() { Ok(()) } else { Err(Error::NotReproducible(Box::new(found))) }
}

fn layer_of(store: &Store, snapshots: &[SnapshotId]) -> Result<LayerAt, Error> {
    let Some((top, below)) = snapshots.split_last() else { return Ok(LayerAt { path: PathBuf::new(), lower: Vec::new().into() }) };
    Ok(LayerAt { path: store.snapshot_path(*top), lower: store.layers_below(*top, below)? })
}
