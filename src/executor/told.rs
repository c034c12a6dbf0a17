//! What a build tells of its steps when it is over, for caches that are exported.

use std::collections::HashMap;

use crate::cache::portable::StepName;
use crate::cache::{CacheKey, Components, Offer};
use crate::graph::{BuildGraph, NodeId, Op, Step};
use crate::store::SnapshotId;

use super::probe::Hit;
use super::scheduler::{NodeState, Scheduler};

/// What is known of one step.
#[derive(Clone, Debug)]
pub struct StepResult {
    /// Which step it is.
    pub name: StepName,
    /// The keys that it is found by.
    pub keys: Vec<CacheKey>,
    /// The cache that has it, and the keys that it is found by there.
    pub offered: Option<(usize, Vec<CacheKey>)>,
    /// What its result is called in later steps' keys.
    pub result: CacheKey,
    /// The layer that it added.
    pub layer: StepLayerAt,
    /// What its key is made of.
    pub components: Components,
    /// For each target, which of the layers that it adds to its base image this is; `None` for a step of a stage that is only read.
    pub in_targets: Vec<Option<usize>>,
}

/// Where a step's layer is.
#[derive(Clone, Debug)]
pub enum StepLayerAt {
    /// In the store: the topmost of these snapshots.
    Stack(Vec<SnapshotId>),
    /// In an imported cache, from which nobody needed it.
    Cache(Box<Offer>),
}

/// The place of a step in its Dockerfile.
pub(super) fn step_name(step: &Step) -> StepName {
    let platform = step.platforms.first().cloned();
    StepName { stage: step.stage.to_string(), text: step.text.clone(), position: step.position.0, platform }
}

impl Scheduler {
    /// What is known of every step that has a result.
    pub(super) fn tell(&self) -> Vec<StepResult> {
        let of_target = |target| layers_of(&self.graph, target).into_iter().zip(0..).collect();
        let places: Vec<HashMap<NodeId, usize>> = self.graph.target_nodes().into_iter().map(of_target).collect();
        let told = |id: NodeId| {
            let (components, result, layer) = self.result_of(id)?;
            let keys = self.environment.cache.keys_with(&components.key());
            let name = step_name(&self.graph.node(id).step);
            let offered = self.probes.get(&id).and_then(|probe| probe.listed.clone());
            Some(StepResult {
                name,
                keys,
                offered,
                result,
                layer,
                components,
                in_targets: places.iter().map(|places| places.get(&id).copied()).collect(),
            })
        };
        self.graph.nodes().filter_map(told).collect()
    }

    fn result_of(&self, id: NodeId) -> Option<(Components, CacheKey, StepLayerAt)> {
        let probe = self.probes.get(&id)?;
        let components = self.ran.get(&id).or(probe.components.as_ref())?.clone();
        let output = match self.states.get(&id) {
            Some(NodeState::Done(output)) => Some(output),
            _ => match &probe.hit {
                Some(Hit::Held(output)) => Some(output),
                _ => None,
            },
        };
        match (output, self.offers.get(&id)) {
            (Some(output), _) => Some((components, output.key, StepLayerAt::Stack(output.snapshots.clone()))),
            (None, Some(offer)) => Some((components, probe.key, StepLayerAt::Cache(Box::new(offer.clone())))),
            (None, None) => None,
        }
    }
}

/// The steps whose layers make up the file system of `id`, bottom first.
fn layers_of(graph: &BuildGraph, id: NodeId) -> Vec<NodeId> {
    let mut layers = Vec::new();
    // From the top down, and turned around at the end: a chain may be thousands of steps long.
    let mut todo = vec![id];
    while let Some(id) = todo.pop() {
        let inputs = graph.inputs(id);
        match &graph.node(id).op {
            Op::Source(_) => {}
            Op::Merge => todo.extend(inputs),
            Op::Copy(op) if op.link => layers.push(id),
            Op::Copy(_) | Op::Exec(_) | Op::Mkdir(_) => {
                layers.push(id);
                todo.extend(inputs.first());
            }
        }
    }
    layers.reverse();
    layers
}
