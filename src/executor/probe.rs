//! Identities: what every node's result would be called, and whether it is there already, before anything runs.
//!
//! A node's identity is the key of its record where one is found, and its own key where none is (then that is what its result will be called). So one pass
//! over the graph finds every hit of an unchanged build, without touching a layer.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::cache::key::{self, InputIdentity, InputLabel};
use crate::cache::{CacheKey, Components, MAX_REMEMBERED_FILES, Offer, Output, StepSlot};
use crate::context::{ChecksumOptions, EntryFacts, Excluding, LocalContext, RootEntry, checksum};
use crate::graph::{BuildGraph, CopyOp, CopySource, Node, NodeId, Op, SourceOp};
use crate::path::RootPath;
use crate::store::{Resource, SnapshotId};
use crate::sys::tree::{Kind, Tree};

use super::ops;
use super::{Download, Environment, Error, FileTimes};

/// What is known of a node before it runs.
#[derive(Clone, Debug)]
pub(super) struct Probe {
    /// What its result is called, or will be.
    pub(super) key: CacheKey,
    /// The result, where it is there.
    pub(super) hit: Option<Hit>,
    /// What an imported cache has, where the result is not here.
    pub(super) offer: Option<Offer>,
    /// The imported cache that has it, whether the result is here or not, and the keys that it is found by there.
    pub(super) listed: Option<(usize, Vec<CacheKey>)>,
    /// What the key is made of (steps only).
    pub(super) components: Option<Components>,
    /// How many bytes of files were hashed to find that out.
    pub(super) hashed: u64,
}

/// A result that is there.
#[derive(Clone, Debug)]
pub(super) enum Hit {
    /// It is found under this key. A result names all snapshots that it is made of, so those of a thousand steps that are built upon each other would be half a
    /// million; most are never asked for.
    Under(CacheKey),
    /// Its snapshots are known, and held by a lease when all nodes are probed.
    Held(Output),
}

/// What the servers that a build reads from have at this moment, by node.
#[derive(Debug, Default)]
pub(super) struct Remotes {
    /// Files.
    pub(super) downloads: HashMap<NodeId, Download>,
    /// What file systems are called.
    pub(super) trees: HashMap<NodeId, CacheKey>,
}

/// Probes all nodes.
pub(super) fn probe_all(graph: &BuildGraph, environment: &Environment, remotes: &Remotes) -> Result<HashMap<NodeId, Probe>, Error> {
    let mut probes: HashMap<NodeId, Probe> = HashMap::new();
    for id in graph.nodes() {
        if environment.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let node = graph.node(id);
        let inputs: Vec<Option<CacheKey>> = graph.inputs(id).iter().map(|input| probes.get(input).map(|probe| probe.key)).collect();
        let before = environment.checksums.hashed_so_far();
        if let Some(probe) = probe_node(graph, id, node, &inputs, environment, remotes)? {
            probes.insert(id, Probe { hashed: environment.checksums.hashed_so_far() - before, ..probe });
        }
    }
    hold_hits(graph, environment, &mut probes)?;
    Ok(probes)
}

/// Takes a lease on snapshots; false where one of them has been pruned.
pub(super) fn hold(environment: &Environment, snapshots: &[SnapshotId]) -> Result<bool, Error> {
    let resources: Vec<Resource> = snapshots.iter().map(|id| Resource::Snapshot(*id)).collect();
    Ok(environment.lease.add_all(&resources)?.into_iter().all(|present| present))
}

/// Takes a lease on every hit that is needed, from the target down. What was pruned since it was looked up is none, but may still be in a cache.
fn hold_hits(graph: &BuildGraph, environment: &Environment, probes: &mut HashMap<NodeId, Probe>) -> Result<(), Error> {
    // Who tells of all steps needs all results. The layers of images are few.
    let targets = graph.target_nodes();
    let is_needed = |id: &NodeId| environment.tell_steps || targets.contains(id) || matches!(graph.node(*id).op, Op::Source(_));
    let mut todo: Vec<NodeId> = graph.nodes().filter(is_needed).collect();
    let mut seen: HashSet<NodeId> = todo.iter().copied().collect();
    while !todo.is_empty() {
        let mut outputs = Vec::new();
        let mut missed = Vec::new();
        for id in todo.drain(..) {
            let output = match probes.get(&id).and_then(|probe| probe.hit.as_ref()) {
                Some(Hit::Held(output)) => Some(output.clone()),
                Some(Hit::Under(key)) => environment.cache.get(key),
                None => None,
            };
            match output {
                Some(output) => outputs.push((id, output)),
                None => missed.push(id),
            }
        }
        let snapshots: HashSet<SnapshotId> = outputs.iter().flat_map(|(_, output)| output.snapshots.iter().copied()).collect();
        let resources: Vec<Resource> = snapshots.iter().map(|id| Resource::Snapshot(*id)).collect();
        let present = environment.lease.add_all(&resources)?;
        let gone: HashSet<SnapshotId> = snapshots.into_iter().zip(present).filter(|(_, present)| !present).map(|(id, _)| id).collect();
        for (id, output) in outputs {
            let is_gone = !gone.is_empty() && output.snapshots.iter().any(|id| gone.contains(id));
            match probes.get_mut(&id) {
                Some(probe) if !is_gone => probe.hit = Some(Hit::Held(output)),
                _ => missed.push(id),
            }
        }
        for id in missed {
            if let Some(probe) = probes.get_mut(&id)
                && probe.hit.take().is_some()
            {
                probe.offer = probe.components.as_ref().and_then(|components| environment.imports.find(components, probe.key));
            }
            todo.extend(graph.inputs(id).into_iter().filter(|input| seen.insert(*input)));
        }
    }
    Ok(())
}

/// Probes one node, whose inputs are called `inputs`. The build context has no identity of its own: `None`.
fn probe_node(
    graph: &BuildGraph,
    id: NodeId,
    node: &Node,
    inputs: &[Option<CacheKey>],
    environment: &Environment,
    remotes: &Remotes,
) -> Result<Option<Probe>, Error> {
    let whole = |key: CacheKey, snapshots: Option<Vec<_>>| {
        let hit = snapshots.map(|snapshots| Hit::Held(Output { key, snapshots }));
        Ok(Some(Probe { key, hit, offer: None, listed: None, components: None, hashed: 0 }))
    };
    match &node.op {
        Op::Source(SourceOp::Scratch) => whole(key::scratch_key(), Some(Vec::new())),
        Op::Source(SourceOp::Image { id, .. }) => whole(key::image_key(id), environment.sources.unpacked(id)),
        Op::Source(SourceOp::Http { name, .. }) => match remotes.downloads.get(&id) {
            Some(download) => whole(key::download_key(&download.digest, name), Some(Vec::new())),
            None => Ok(None),
        },
        Op::Source(SourceOp::Remote(_)) => match remotes.trees.get(&id) {
            Some(key) => {
                let hit = environment.cache.find(key).map(|_| Hit::Under(*key));
                Ok(Some(Probe { key: *key, hit, offer: None, listed: None, components: None, hashed: 0 }))
            }
            None => Ok(None),
        },
        Op::Source(SourceOp::Context { .. }) => Ok(None),
        Op::Merge => match inputs {
            [Some(below), Some(above)] => {
                let key = key::merge_key(below, above);
                environment.imports.derive(key, |name| key::merge_key(&name(*below), &name(*above)));
                whole(key, None)
            }
            _ => Ok(None),
        },
        Op::Exec(_) | Op::Copy(_) | Op::Mkdir(_) => {
            let Some(components) = components(graph, id, node, inputs, environment)? else { return Ok(None) };
            let key = components.key();
            if node.step.ignore_cache {
                // Nothing that reads its result can be there already, also where that is to be taken from the cache.
                let key = never_used(&key)?;
                return Ok(Some(Probe { key, hit: None, offer: None, listed: None, components: Some(components), hashed: 0 }));
            }
            let found = environment.cache.find(&key);
            let hit = found.map(|_| Hit::Under(key));
            let key = found.unwrap_or(key);
            // Also where the result is here: what is above it may be in the cache only, under the cache's name of this.
            let offer = environment.imports.find(&components, key);
            let listed = offer.as_ref().map(|offer| (offer.cache, offer.keys.clone()));
            Ok(Some(Probe { key, offer: offer.filter(|_| hit.is_none()), listed, hit, components: Some(components), hashed: 0 }))
        }
    }
}

/// A name for the result of a step that takes nothing from the cache: none that any result had before.
pub(super) fn never_used(key: &CacheKey) -> Result<CacheKey, Error> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| Error::Io {
        action: "read",
        path: "/dev/urandom".into(),
        source: std::io::Error::other(error.to_string()),
    })?;
    Ok(key::fresh_key(key, &nonce))
}

/// What a step's key is made of, given what its inputs are called. `None` where an input has no name.
pub(super) fn components(
    graph: &BuildGraph,
    id: NodeId,
    node: &Node,
    inputs: &[Option<CacheKey>],
    environment: &Environment,
) -> Result<Option<Components>, Error> {
    let nodes = graph.inputs(id);
    let identity = |position: usize| -> Option<InputIdentity> {
        let key = (*inputs.get(position)?)?;
        Some(InputIdentity::Result { key, label: label(graph.node(nodes[position])) })
    };
    let Some(base) = identity(0) else { return Ok(None) };
    match &node.op {
        Op::Mkdir(op) => Ok(Some(held_to_time(key::mkdir(op, &base), &node.op, environment))),
        Op::Exec(op) => {
            let rest: Option<Vec<InputIdentity>> = (1..inputs.len()).map(identity).collect();
            Ok(rest.map(|rest| held_to_time(key::exec(op, &node.platform, &base, &rest), &node.op, environment)))
        }
        Op::Copy(op) => {
            let mut sources = Vec::new();
            let mut files = Vec::new();
            for source in &op.sources {
                sources.push(match source {
                    CopySource::Inline { .. } => None,
                    CopySource::Path { input, pattern } if is_context(graph.node(nodes[*input])) => {
                        let context = context_of(environment, graph.node(nodes[*input]), node)?;
                        let (checksum, found) = checksum_selection(&*context, pattern, op, (graph, id), environment)?;
                        files.extend(found);
                        Some(InputIdentity::Files { checksum })
                    }
                    CopySource::Path { input, .. } | CopySource::Download { input } => match identity(*input) {
                        Some(identity) => Some(identity),
                        None => return Ok(None),
                    },
                });
            }
            let mut components = held_to_time(key::copy(op, &base, &sources), &node.op, environment);
            components.remember_files(files);
            Ok(Some(components))
        }
        Op::Source(_) | Op::Merge => Ok(None),
    }
}

/// The components of a copy with its sources' *content* in place of the identities of the stages that they come from: a stage that was built again to the same
/// files changes nothing. `trees` holds each input's files.
pub(super) fn content_components(
    graph: &BuildGraph,
    id: NodeId,
    node: &Node,
    base: CacheKey,
    trees: &HashMap<usize, Arc<dyn Tree>>,
    environment: &Environment,
) -> Result<Option<Components>, Error> {
    let Op::Copy(op) = &node.op else { return Ok(None) };
    if !op.sources.iter().any(|source| matches!(source, CopySource::Path { .. })) {
        return Ok(None);
    }
    let nodes = graph.inputs(id);
    let base = InputIdentity::Result { key: base, label: label(graph.node(nodes[0])) };
    let mut sources = Vec::new();
    for source in &op.sources {
        sources.push(match source {
            CopySource::Inline { .. } => None,
            // What is downloaded is named by its content already, so the other key serves.
            CopySource::Download { .. } => return Ok(None),
            CopySource::Path { input, pattern } => {
                let Some(tree) = trees.get(input) else { return Ok(None) };
                let (checksum, _) = checksum_selection(&**tree, pattern, op, (graph, id), environment)?;
                Some(InputIdentity::Files { checksum })
            }
        });
    }
    Ok(Some(held_to_time(key::copy(op, &base, &sources), &node.op, environment)))
}

/// A step's components in this build: one with a time of its own gives other results.
pub(super) fn held_to_time(mut components: Components, op: &Op, environment: &Environment) -> Components {
    match environment.times {
        FileTimes::Held(seconds) => components.limit_times(seconds),
        FileTimes::Made(seconds) if !matches!(op, Op::Exec(_)) => components.set_times(seconds),
        FileTimes::Made(_) | FileTimes::Kept => {}
    }
    components
}

/// What a source pattern selects: one checksum over all of it, and the files by path with theirs.
type Selection = ([u8; 32], Vec<(String, String)>);

/// The checksum of what one source pattern of a copy selects, and the files in it.
fn checksum_selection(
    tree: &dyn Tree,
    pattern: &str,
    op: &CopyOp,
    at: (&BuildGraph, NodeId),
    environment: &Environment,
) -> Result<Selection, Error> {
    let (graph, id) = at;
    let node = graph.node(id);
    let failed = |source: ops::Error| {
        let hint = ops::missing_hint(&contexts_read(graph, id, environment), &source);
        Error::Files { step: Box::new(node.step.clone()), source, hint }
    };
    let roots = ops::select(tree, pattern, ops::Naming::of(op.parents, op.with_way)).map_err(failed)?;
    let mut hasher = blake3::Hasher::new();
    let (mut files, mut too_many) = (Vec::new(), false);
    for root in roots {
        let rules = ops::exclude_rules(&op.exclude).map_err(failed)?;
        let excluding = rules.as_ref().map(|rules| Excluding::new(tree, root.exclude_base(op.parents), rules));
        let tree = excluding.as_ref().map_or(tree, |excluding| excluding);
        let read_error = |source| failed(ops::Error::Read { path: root.path.clone(), source });
        if tree.metadata(&root.path).map_err(read_error)?.is_none() {
            continue;
        }
        // A directory gives its contents only; with `--parents` it is copied itself.
        let contents_only = root.metadata.kind == Kind::Directory && !op.parents;
        let options =
            ChecksumOptions { root: if contents_only { RootEntry::ContentsOnly } else { RootEntry::Counts }, ..Default::default() };
        let sum = checksum(tree, &root.path, &options, &*environment.checksums)
            .map_err(|source| Error::Context { step: Box::new(node.step.clone()), source })?;
        // A file's name at the destination is read too: `COPY *.txt /d/` of a renamed file gives another result.
        let name = if contents_only { &[] } else { root.name.as_bytes() };
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(&sum.digest);
        // More would not be remembered, and so not be compared with.
        if files.len() + sum.files.len() > MAX_REMEMBERED_FILES {
            too_many = true;
            continue;
        }
        for ((path, _), facts) in sum.files.iter().zip(&sum.facts) {
            files.push((shown(path), shown_facts(facts)));
        }
    }
    if too_many {
        files.clear();
    }
    Ok((*hasher.finalize().as_bytes(), files))
}

/// A selected file's path as people write it: relative to the context.
fn shown(path: &RootPath) -> String {
    String::from_utf8_lossy(path.relative().as_os_str().as_bytes()).into_owned()
}

/// What is known of a file, as [`Components::files`] has it.
fn shown_facts(facts: &EntryFacts) -> String {
    let EntryFacts { kind, mode, uid, gid, content } = facts;
    format!("{kind} {mode:o} {uid}:{gid} {:016x}", u64::from_be_bytes(*content))
}

pub(super) fn is_context(node: &Node) -> bool {
    matches!(node.op, Op::Source(SourceOp::Context { .. }))
}

/// The files of the context `source`, which `reader` reads, or an error that there are none.
pub(super) fn context_of(environment: &Environment, source: &Node, reader: &Node) -> Result<Arc<dyn Tree>, Error> {
    let Op::Source(SourceOp::Context { name }) = &source.op else {
        return Err(Error::Refused { step: Box::new(reader.step.clone()), reason: "its source is no context".into(), hint: None });
    };
    match environment.context(name.as_deref()) {
        Some(context) => Ok(context.clone()),
        None => Err(Error::Refused { step: Box::new(reader.step.clone()), reason: "this build has no context".into(), hint: None }),
    }
}

/// The contexts that a node reads.
pub(super) fn contexts_read(graph: &BuildGraph, id: NodeId, environment: &Environment) -> Vec<Arc<LocalContext>> {
    let context = |input| match &graph.node(input).op {
        Op::Source(SourceOp::Context { name }) => environment.context(name.as_deref()).cloned(),
        _ => None,
    };
    graph.inputs(id).into_iter().filter_map(context).collect()
}

pub(super) fn label(node: &Node) -> InputLabel {
    match &node.op {
        Op::Source(SourceOp::Image { reference, manifest, .. }) => InputLabel::Image(reference.familiar(), manifest.clone()),
        _ => InputLabel::Step(node.step.plain_title()),
    }
}

/// The names under which a step's components are remembered, for each platform that it is done for: by its text, and by its place (for when the text changes).
pub(super) fn slots(node: &Node, environment: &Environment) -> Vec<StepSlot> {
    let step = &node.step;
    let place = step.position.0.to_string();
    let name = environment.build_name.as_str();
    let of = |by: &str, what: &str| -> Vec<StepSlot> {
        step.platforms.iter().map(|platform| StepSlot::new(&[by, name, platform, &step.stage, what])).collect()
    };
    [of("text", &step.text), of("place", &place)].concat()
}
