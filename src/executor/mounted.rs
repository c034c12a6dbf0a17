//! The content key of a `RUN`: what its mounts select of other stages counts by content, so that a stage that was built again to the same files changes nothing. What is
//! written to a mount with `rw` is thrown away, so that it reads the same. (Files of the context come by their content anyway, and an image is what its ID says.)

use std::collections::HashMap;
use std::sync::Arc;

use crate::cache::key::{self, InputIdentity};
use crate::cache::{Components, Output};
use crate::context::{ChecksumOptions, checksum};
use crate::graph::{BuildGraph, ExecMountKind, ExecOp, NodeId, Op};
use crate::path::RootPath;
use crate::sys::tree::{LastLink, Tree, resolve};

use super::probe::{held_to_time, label};
use super::{Environment, Error};

/// The files of each input, by its position.
type Trees = HashMap<usize, Arc<dyn Tree>>;

/// What the command's key is made of with content in place of names; `None` where no mount counts by content.
pub(super) fn content_components(
    graph: &BuildGraph,
    id: NodeId,
    op: &ExecOp,
    inputs: &[Option<Output>],
    trees: &Trees,
    environment: &Environment,
) -> Result<Option<Components>, Error> {
    let nodes = graph.inputs(id);
    let named = |position: usize| {
        let output = inputs.get(position)?.as_ref()?;
        Some(InputIdentity::Result { key: output.key, label: label(graph.node(nodes[position])) })
    };
    let Some(base) = named(0) else { return Ok(None) };
    let mut identities = Vec::with_capacity(nodes.len());
    let mut by_content = false;
    for (position, input) in nodes.iter().enumerate().skip(1) {
        let selected = match trees.get(&position).filter(|_| counts_by_content(graph, *input, op, position)) {
            Some(tree) => selection(graph, id, op, position, &**tree, environment)?,
            None => None,
        };
        by_content |= selected.is_some();
        let Some(identity) = selected.or_else(|| named(position)) else { return Ok(None) };
        identities.push(identity);
    }
    let node = graph.node(id);
    Ok(by_content.then(|| held_to_time(key::exec(op, &node.platform, &base, &identities), &node.op, environment)))
}

/// Whether the input at `position` is a stage that is only mounted.
fn counts_by_content(graph: &BuildGraph, input: NodeId, op: &ExecOp, position: usize) -> bool {
    let node = graph.node(input);
    let is_stage = match &node.op {
        Op::Merge => true,
        Op::Exec(_) | Op::Copy(_) | Op::Mkdir(_) => node.step.position.0 > 0,
        Op::Source(_) => false,
    };
    is_stage
        && op.mounts.iter().all(|mount| match &mount.kind {
            ExecMountKind::Cache { seed: Some((input, _)), .. } => *input != position,
            _ => true,
        })
}

/// The checksum of all that mounts select of the input at `position`; `None` where one selects nothing, which the step itself reports.
fn selection(
    graph: &BuildGraph,
    id: NodeId,
    op: &ExecOp,
    position: usize,
    tree: &dyn Tree,
    environment: &Environment,
) -> Result<Option<InputIdentity>, Error> {
    let step = || Box::new(graph.node(id).step.clone());
    let mut hasher = blake3::Hasher::new();
    for mount in &op.mounts {
        let ExecMountKind::Bind { input, source, .. } = &mount.kind else { continue };
        if *input != position {
            continue;
        }
        let path = RootPath::new(source);
        let Ok(path) = resolve(tree, &path, LastLink::Follow) else { return Ok(None) };
        match checksum(tree, &path, &ChecksumOptions::default(), &*environment.checksums) {
            Ok(sum) => drop(hasher.update(&sum.digest)),
            Err(crate::context::Error::Missing { .. }) => return Ok(None),
            Err(source) => return Err(Error::Context { step: step(), source }),
        }
    }
    Ok(Some(InputIdentity::Files { checksum: *hasher.finalize().as_bytes() }))
}
