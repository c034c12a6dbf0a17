//! The graph of a build for several platforms: those of each of them, where what they have in common is there once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use petgraph::stable_graph::StableDiGraph;

use crate::parser::Text;

use super::op::{BuildGraph, BuildTarget, Node, NodeId, Op, Step};

/// Where a node that does the same as another would be found: what it reads, and its place in the Dockerfile.
type Place = (Vec<NodeId>, Text, usize);

impl BuildGraph {
    /// Joins the graphs of one Dockerfile for several platforms; the targets keep their order. What does the same with the same inputs becomes one node, however many
    /// platforms need it. A warning that all of them have is told once.
    pub fn join(mut graphs: Vec<BuildGraph>) -> BuildGraph {
        if graphs.len() == 1 {
            return graphs.remove(0);
        }
        let mut joint: StableDiGraph<Node, usize> = StableDiGraph::new();
        let mut known: HashMap<Place, Vec<NodeId>> = HashMap::new();
        let (mut targets, mut warnings) = (Vec::new(), Vec::new());
        for graph in graphs {
            let mut places: HashMap<NodeId, NodeId> = HashMap::new();
            for id in graph.nodes() {
                let node = graph.node(id);
                let inputs: Vec<NodeId> = graph.inputs(id).iter().map(|input| places[input]).collect();
                let same = known.entry((inputs.clone(), node.step.stage.clone(), node.step.position.0)).or_default();
                let found = same.iter().copied().find(|other| is_same(&joint[*other], node));
                let place = found.unwrap_or_else(|| {
                    let new = joint.add_node(node.clone());
                    for (position, input) in inputs.iter().enumerate() {
                        joint.add_edge(*input, new, position);
                    }
                    same.push(new);
                    new
                });
                if found.is_some() {
                    share(&mut joint[place].step, &node.step);
                }
                places.insert(id, place);
            }
            targets.extend(graph.targets.into_iter().map(|target| BuildTarget { node: places[&target.node], ..target }));
            warnings.extend(graph.warnings);
        }
        let mut told = HashSet::new();
        warnings.retain(|warning| told.insert((warning.span, warning.message.clone())));
        BuildGraph::joint(joint, targets, warnings)
    }
}

/// Whether two nodes with the same inputs give the same. Only a command heeds for which platform it runs.
fn is_same(one: &Node, other: &Node) -> bool {
    let runs = matches!(one.op, Op::Exec(_));
    one.op == other.op && one.step.ignore_cache == other.step.ignore_cache && (!runs || one.platform == other.platform)
}

/// Notes that a step does for another platform too. One that is called after a single platform by all of them keeps that in its title.
fn share(step: &mut Step, other: &Step) {
    let new: Vec<String> = other.platforms.iter().filter(|name| !step.platforms.contains(name)).cloned().collect();
    if !new.is_empty() {
        step.platforms = step.platforms.iter().cloned().chain(new).collect::<Arc<[String]>>();
        step.tells_platform = false;
    }
}
