//! The scheduler: one task that owns the state of every node.
//!
//! ```text
//!            probe                 demand                 inputs done               work reports
//! (all nodes) ----> Hit / Missed -------> Hit: Done at once; Missed: Waiting -----> Running ----> Done / error
//! ```
//!
//! Only the targets are demanded at first; a miss demands its inputs, a hit demands nothing. The first error cancels all that runs; it is returned when
//! everything has stopped.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::task::JoinSet;

use crate::cache::key::merge_key;
use crate::cache::portable::OfferedLayer;
use crate::cache::{CacheKey, Components, MissReason, Offer, Output, StepSlot};
use crate::diag::with_causes;
use crate::graph::{BuildGraph, CopySource, NodeId, Op, RemoteTree, SourceOp, Step};
use crate::image::imported::unpack_layer;
use crate::oci::Digest;
use crate::path::RootPath;
use crate::progress::{StepOutcome, StepProgress, StepUsage};
use crate::store::SnapshotId;
use crate::store::view::MergedView;
use crate::sys::process::{ProcessIo, thread_usage};
use crate::sys::tree::Tree;
use crate::task::blocking;

use super::explain::{self, FoundBy};
use super::probe::{
    Hit, Probe, Remotes, components, content_components, context_of, contexts_read, hold, is_context, never_used, probe_all, slots,
};
use super::told::{StepResult, step_name};
use super::{CacheFailure, Download, Environment, Error, mounted, ops};

/// What a build came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The targets' file systems, in their order.
    pub outputs: Vec<Output>,
    /// What each step gave that was needed: its snapshots, bottom first.
    pub results: HashMap<NodeId, Vec<crate::store::SnapshotId>>,
    /// How many steps were taken from the cache.
    pub cached: usize,
    /// How many steps ran.
    pub executed: usize,
    /// What is known of each step, each after those it reads, where that was asked for.
    pub steps: Vec<StepResult>,
}

/// Where a node is.
#[derive(Clone, Debug)]
pub(super) enum NodeState {
    /// It is needed and its inputs are not all there.
    Waiting,
    /// Its work is under way.
    Running,
    /// Its result is there.
    Done(Output),
}

pub(super) struct Scheduler {
    pub(super) graph: Arc<BuildGraph>,
    pub(super) environment: Arc<Environment>,
    pub(super) probes: Arc<HashMap<NodeId, Probe>>,
    remotes: Arc<Remotes>,
    /// The nodes whose layers the targets have: their diff IDs will be asked for.
    in_target: Arc<HashSet<NodeId>>,
    /// What imported caches have of the nodes, as far as it has turned out to be of use.
    pub(super) offers: HashMap<NodeId, Offer>,
    /// What the keys of steps that ran were made of, where they are told of.
    pub(super) ran: HashMap<NodeId, Components>,
    /// The nodes that are needed.
    pub(super) states: HashMap<NodeId, NodeState>,
    /// How many of the inputs that a waiting node needs are not there yet.
    missing: HashMap<NodeId, usize>,
    /// The waiting nodes that miss none, in the order of the Dockerfile.
    ready: BTreeSet<NodeId>,
    tasks: JoinSet<(NodeId, Result<Finished, Error>)>,
    /// Layers of caches on their way before anybody asks for them.
    fetches: JoinSet<()>,
    cached: usize,
    executed: usize,
}

/// What a node's work reports.
enum Finished {
    /// The result is there.
    Done {
        /// The result.
        output: Output,
        /// Whether it was found in the cache after all.
        cached: bool,
        /// What the key was made of (steps only).
        components: Option<Components>,
    },
    /// What a cache offered is of no use: the node needs all of its inputs now.
    Rejected,
}

/// Runs what the targets of `graph` need.
///
/// # Errors
/// The first failure, after everything else has stopped. What was finished before stays in the cache.
pub async fn run(graph: Arc<BuildGraph>, environment: Arc<Environment>) -> Result<Outcome, Error> {
    let remotes = Arc::new(ask_servers(&graph, &environment).await?);
    let probes = {
        let progress = environment.progress.clone();
        let mut phase = progress.phase("probe");
        let checksums = environment.checksums.clone();
        let before = checksums.hashed_so_far();
        let (graph, environment, remotes) = (graph.clone(), environment.clone(), remotes.clone());
        let probes = Arc::new(blocking(move || probe_all(&graph, &environment, &remotes)).await?);
        phase.hashed(checksums.hashed_so_far() - before);
        probes
    };
    let offers = probes.iter().filter_map(|(id, probe)| Some((*id, probe.offer.clone()?))).collect();
    let targets = graph.target_nodes();
    let in_target = Arc::new(graph.layers_of_targets());
    let mut scheduler = Scheduler {
        graph,
        environment,
        probes,
        remotes,
        in_target,
        offers,
        ran: HashMap::new(),
        states: HashMap::new(),
        missing: HashMap::new(),
        ready: BTreeSet::new(),
        tasks: JoinSet::new(),
        fetches: JoinSet::new(),
        cached: 0,
        executed: 0,
    };
    scheduler.demand(targets);
    scheduler.report_hits();
    scheduler.drive().await
}

/// Asks the servers that the build reads from what they have: that decides the keys. Files are fetched, file systems only identified.
async fn ask_servers(graph: &BuildGraph, environment: &Environment) -> Result<Remotes, Error> {
    let (mut files, mut trees) = (Vec::new(), Vec::new());
    for id in graph.nodes() {
        match &graph.node(id).op {
            Op::Source(SourceOp::Http { url, checksum, .. }) => files.push(download(graph, environment, id, url, checksum.as_ref())),
            Op::Source(SourceOp::Remote(tree)) => trees.push(async move {
                let key = environment.sources.identify(tree, &environment.cancel).await;
                key.map(|key| (id, key)).map_err(|error| error.needed_by(reader(graph, id)))
            }),
            _ => {}
        }
    }
    let all = futures_util::future::try_join(try_join_all(files), try_join_all(trees));
    let (downloads, trees) = tokio::select! {
        found = all => found?,
        () = environment.cancel.cancelled() => return Err(Error::Cancelled),
    };
    Ok(Remotes { downloads: downloads.into_iter().collect(), trees: trees.into_iter().collect() })
}

/// The first step that reads what `id` is, with its place in the Dockerfile.
fn reader(graph: &BuildGraph, id: NodeId) -> Option<&Step> {
    graph.nodes().filter(|node| graph.inputs(*node).contains(&id)).map(|node| &graph.node(node).step).find(|step| step.source.is_some())
}

/// Fetches what `ADD` reads from a web server.
async fn download(
    graph: &BuildGraph,
    environment: &Environment,
    id: NodeId,
    url: &str,
    checksum: Option<&Digest>,
) -> Result<(NodeId, Download), Error> {
    let step = &graph.node(id).step;
    let progress = environment.progress.start(step.text.clone(), None);
    let download = match environment.sources.download(url, checksum, &progress).await {
        Ok(download) => download,
        Err(error) => {
            progress.finish(StepOutcome::Failed);
            return Err(error.needed_by(reader(graph, id)));
        }
    };
    if let Some(expected) = checksum.filter(|expected| **expected != download.digest) {
        progress.finish(StepOutcome::Failed);
        return Err(Error::Refused {
            step: Box::new(reader(graph, id).unwrap_or(step).clone()),
            reason: format!("the content hashes to {}, not to {expected}", download.digest),
            hint: Some("the file has changed on the server; check it, and correct --checksum".into()),
        });
    }
    progress.finish(if download.was_here { StepOutcome::Cached } else { StepOutcome::Done });
    Ok((id, download))
}

impl Scheduler {
    /// Marks the nodes `todo` as needed, and what they need.
    fn demand(&mut self, mut todo: Vec<NodeId>) {
        let mut waiting = Vec::new();
        while let Some(id) = todo.pop() {
            if self.states.contains_key(&id) {
                continue;
            }
            match self.hit(id) {
                Some(output) => {
                    self.states.insert(id, NodeState::Done(output));
                }
                None => {
                    self.states.insert(id, NodeState::Waiting);
                    self.fetch_ahead(id);
                    waiting.push(id);
                    todo.extend(self.needs(id));
                }
            }
        }
        for id in waiting {
            self.wait_for_inputs(id);
        }
    }

    /// A node's result, where it was found.
    fn hit(&self, id: NodeId) -> Option<Output> {
        match self.probes.get(&id)?.hit.as_ref()? {
            Hit::Held(output) => Some(output.clone()),
            // It lies below something that a cache had, and that turned out to be of no use.
            Hit::Under(key) => self.environment.cache.get(key).filter(|output| hold(&self.environment, &output.snapshots).unwrap_or(false)),
        }
    }

    /// Counts what a waiting node misses, whose inputs are demanded.
    fn wait_for_inputs(&mut self, id: NodeId) {
        let is_missing = |input: &NodeId| self.is_result(*input) && !matches!(self.states.get(input), Some(NodeState::Done(_)));
        let missing: BTreeSet<NodeId> = self.needs(id).into_iter().filter(is_missing).collect();
        if missing.is_empty() && self.is_result(id) {
            self.ready.insert(id);
        }
        self.missing.insert(id, missing.len());
    }

    /// Whether a node gives anything. A context or a download is no result: whoever reads it has it at hand.
    fn is_result(&self, id: NodeId) -> bool {
        !matches!(self.graph.node(id).op, Op::Source(SourceOp::Context { .. } | SourceOp::Http { .. }))
    }

    /// The inputs that a node needs: of one that a cache has, only what its layer lies on.
    fn needs(&self, id: NodeId) -> Vec<NodeId> {
        let inputs = self.graph.inputs(id);
        match &self.graph.node(id).op {
            _ if !self.offers.contains_key(&id) => inputs,
            Op::Copy(op) if op.link => Vec::new(),
            _ => inputs.into_iter().take(1).collect(),
        }
    }

    /// Begins to fetch what a cache has of a node, so that layers arrive together though they are unpacked one above the other.
    fn fetch_ahead(&mut self, id: NodeId) {
        let Some(offer) = self.offers.get(&id).cloned() else { return };
        let layers = self.environment.cache_layers.clone();
        // Should it fail, whoever needs the layer asks again, and says why.
        self.fetches.spawn(async move { drop(layers.fetch(offer.cache, &offer.layer.blob).await) });
    }

    /// Says which steps are cached, in the order of the Dockerfile: those that hit, also below a hit.
    fn report_hits(&mut self) {
        for id in self.graph.nodes() {
            let node = self.graph.node(id);
            let is_step = !matches!(
                node.op,
                Op::Merge | Op::Source(SourceOp::Scratch | SourceOp::Context { .. } | SourceOp::Remote(_) | SourceOp::Http { .. })
            );
            let offered = self.offers.contains_key(&id) && !self.states.contains_key(&id);
            let hit = offered || self.probes.get(&id).is_some_and(|probe| probe.hit.is_some());
            if is_step && hit && !node.step.ignore_cache {
                self.environment.progress.cached(node.step.title());
                self.cached += 1;
                if let Some(components) = self.probes.get(&id).and_then(|probe| probe.components.as_ref()) {
                    let cache = self.offers.get(&id).map(|offer| self.environment.imports.name(offer.cache));
                    explain::hit(&self.environment, &node.step, &components.key(), FoundBy::Definition, cache);
                }
            }
        }
    }

    async fn drive(mut self) -> Result<Outcome, Error> {
        let mut failure: Option<Error> = None;
        loop {
            if failure.is_none() {
                self.start_ready();
            }
            let Some(joined) = self.tasks.join_next().await else { break };
            let (id, result) = match joined {
                Ok(report) => report,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            };
            match result {
                Ok(finished) => self.finished(id, finished),
                // A step that was stopped because another failed is not the reason.
                Err(Error::Cancelled) if failure.is_some() => {}
                Err(error) => {
                    self.environment.cancel.cancel();
                    failure.get_or_insert(error);
                }
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let steps = if self.environment.tell_steps { self.tell() } else { Vec::new() };
        let results = self.results();
        let output = |target: NodeId| match self.states.get(&target) {
            Some(NodeState::Done(output)) => Ok(output.clone()),
            _ => Err(Error::Cancelled),
        };
        let outputs = self.graph.target_nodes().into_iter().map(output).collect::<Result<_, _>>()?;
        Ok(Outcome { outputs, results, cached: self.cached, executed: self.executed, steps })
    }

    fn results(&self) -> HashMap<NodeId, Vec<crate::store::SnapshotId>> {
        let of_step = |(id, state): (&NodeId, &NodeState)| match (&self.graph.node(*id).op, state) {
            (Op::Exec(_) | Op::Copy(_) | Op::Mkdir(_), NodeState::Done(output)) => Some((*id, output.snapshots.clone())),
            _ => None,
        };
        self.states.iter().filter_map(of_step).collect()
    }

    fn finished(&mut self, id: NodeId, finished: Finished) {
        let Finished::Done { output, cached, components } = finished else {
            self.offers.remove(&id);
            self.states.insert(id, NodeState::Waiting);
            self.demand(self.graph.inputs(id));
            return self.wait_for_inputs(id);
        };
        let counts = matches!(self.graph.node(id).op, Op::Exec(_) | Op::Copy(_) | Op::Mkdir(_));
        if counts {
            if cached { self.cached += 1 } else { self.executed += 1 }
        }
        if self.environment.tell_steps {
            self.ran.extend(components.map(|components| (id, components)));
        }
        self.states.insert(id, NodeState::Done(output));
        for dependent in self.graph.dependents(id) {
            let waits = matches!(self.states.get(&dependent), Some(NodeState::Waiting))
                && (!self.offers.contains_key(&dependent) || self.needs(dependent).contains(&id));
            if let Some(missing) = self.missing.get_mut(&dependent).filter(|_| waits) {
                *missing = missing.saturating_sub(1);
                if *missing == 0 {
                    self.ready.insert(dependent);
                }
            }
        }
    }

    /// Starts every waiting node whose inputs are there.
    fn start_ready(&mut self) {
        while let Some(id) = self.ready.pop_first() {
            let inputs = self.ready_inputs(id);
            self.states.insert(id, NodeState::Running);
            let work = NodeWork {
                id,
                graph: self.graph.clone(),
                environment: self.environment.clone(),
                probes: self.probes.clone(),
                remotes: self.remotes.clone(),
                in_target: self.in_target.contains(&id),
                offer: self.offers.get(&id).cloned(),
                inputs,
            };
            self.tasks.spawn(async move { (id, work.run().await) });
        }
    }

    /// The results of the inputs that a node needs, by position; the context and downloads have none.
    fn ready_inputs(&self, id: NodeId) -> Vec<Option<Output>> {
        let needed: BTreeSet<NodeId> = self.needs(id).into_iter().collect();
        let result = |input: NodeId| match self.states.get(&input) {
            Some(NodeState::Done(output)) if needed.contains(&input) && self.is_result(input) => Some(output.clone()),
            _ => None,
        };
        self.graph.inputs(id).into_iter().map(result).collect()
    }
}

/// The work of one node.
struct NodeWork {
    id: NodeId,
    graph: Arc<BuildGraph>,
    environment: Arc<Environment>,
    probes: Arc<HashMap<NodeId, Probe>>,
    remotes: Arc<Remotes>,
    /// Whether the target has its layer.
    in_target: bool,
    /// What a cache has of it; then only the input that its layer lies on is there.
    offer: Option<Offer>,
    inputs: Vec<Option<Output>>,
}

impl NodeWork {
    async fn run(self) -> Result<Finished, Error> {
        if self.environment.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match &self.graph.node(self.id).op {
            Op::Source(SourceOp::Image { .. }) => self.unpack().await,
            Op::Source(SourceOp::Remote(tree)) => self.fetch(tree).await,
            Op::Source(_) => Err(Error::Cancelled),
            Op::Merge => Ok(self.merge()),
            Op::Exec(_) | Op::Copy(_) | Op::Mkdir(_) => blocking(move || self.step()).await,
        }
    }

    async fn unpack(&self) -> Result<Finished, Error> {
        let node = self.graph.node(self.id);
        let Op::Source(SourceOp::Image { reference, id, .. }) = &node.op else { return Err(Error::Cancelled) };
        let progress = self.environment.progress.start(node.step.title(), None);
        let unpacking = self.environment.sources.unpack(reference, id, &progress);
        let result = tokio::select! {
            result = unpacking => result,
            () = self.environment.cancel.cancelled() => Err(Error::Cancelled),
        };
        match result {
            Ok(snapshots) => {
                if !hold(&self.environment, &snapshots)? {
                    let reason = "its layers were pruned while it was unpacked".to_owned();
                    return Err(Error::Refused { step: Box::new(node.step.clone()), reason, hint: Some("build again".into()) });
                }
                progress.finish(StepOutcome::Done);
                let key = crate::cache::key::image_key(id);
                Ok(Finished::Done { output: Output { key, snapshots }, cached: true, components: None })
            }
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                progress.finish(StepOutcome::Failed);
                Err(error)
            }
        }
    }

    /// Fetches files from elsewhere, unless another build has done so by now.
    async fn fetch(&self, tree: &RemoteTree) -> Result<Finished, Error> {
        let progress = self.environment.progress.start(self.graph.node(self.id).step.text.clone(), None);
        let fetched = self.environment.sources.fetch(tree, &self.environment.cancel).await;
        match fetched.map_err(|error| error.needed_by(reader(&self.graph, self.id))) {
            Ok(output) => {
                progress.finish(StepOutcome::Done);
                Ok(Finished::Done { output, cached: true, components: None })
            }
            Err(Error::Cancelled) => Err(Error::Cancelled),
            Err(error) => {
                progress.finish(StepOutcome::Failed);
                Err(error)
            }
        }
    }

    fn merge(&self) -> Finished {
        let stacks: Vec<&Output> = self.inputs.iter().flatten().collect();
        let key = merge_key(&stacks[0].key, &stacks[1].key);
        let snapshots = stacks.iter().flat_map(|output| output.snapshots.iter().copied()).collect();
        self.environment.imports.derive(key, |name| merge_key(&name(stacks[0].key), &name(stacks[1].key)));
        Finished::Done { output: Output { key, snapshots }, cached: true, components: None }
    }

    /// Does a step, unless its result has turned up: since its inputs became what they are, in another build, or under its content.
    fn step(&self) -> Result<Finished, Error> {
        let node = self.graph.node(self.id);
        let environment = &*self.environment;
        let keys: Vec<Option<CacheKey>> = self.input_keys();
        let probe = self.probes.get(&self.id);
        let same = probe.is_some_and(|_| self.inputs_as_probed(&keys));
        let components = match probe.filter(|_| same).and_then(|probe| probe.components.clone()) {
            Some(components) => components,
            None => components(&self.graph, self.id, node, &keys, environment)?.ok_or(Error::Cancelled)?,
        };
        let key = components.key();
        let slots = slots(node, environment);
        let _lock = self.lock(&key)?;
        if !node.step.ignore_cache {
            if let Some(output) = self.held(environment.cache.get(&key))? {
                environment.progress.cached(node.step.title());
                explain::hit(environment, &node.step, &key, FoundBy::Definition, None);
                return Ok(Finished::Done { output, cached: true, components: Some(components) });
            }
            if let Some(output) = self.by_content(&key)? {
                environment.progress.cached(node.step.title());
                explain::hit(environment, &node.step, &key, FoundBy::Content, None);
                environment.cache.remember(&slots, &components);
                return Ok(Finished::Done { output, cached: true, components: Some(components) });
            }
            if let Some(output) = self.imported(&key, &components)? {
                environment.progress.cached(node.step.title());
                environment.cache.remember(&slots, &components);
                return Ok(Finished::Done { output, cached: true, components: Some(components) });
            }
            if self.offer.is_some() {
                return Ok(Finished::Rejected);
            }
        }
        let reason = self.reason(&slots, &components);
        explain::miss(environment, &node.step, &key, &reason);
        let progress = environment.progress.start(node.step.title(), Some(reason.to_string()));
        let ops::Made { snapshot, changed } = match self.measured(&progress, || self.execute(&progress)) {
            Ok(made) => made,
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(error) => {
                progress.finish(StepOutcome::Failed);
                return Err(error);
            }
        };
        let below = self.inputs[0].as_ref().map_or(&[][..], |base| &base.snapshots);
        let linked = matches!(&node.op, Op::Copy(op) if op.link);
        let mut snapshots = if linked { Vec::new() } else { below.to_vec() };
        snapshots.push(snapshot);
        if let Some(path) = changed {
            return self.step_with_changes(components, snapshots, &path, progress);
        }
        let output = Output { key: self.identity(&key)?, snapshots };
        let mut keys = vec![key];
        keys.extend(self.content_key()?);
        environment.cache.put(&keys, &output)?;
        environment.cache.remember(&slots, &components);
        progress.finish(StepOutcome::Done);
        Ok(Finished::Done { output, cached: false, components: Some(components) })
    }

    /// Ends a step that has copied a file which others changed meanwhile. What it holds is not what its key tells, so nobody may find it by that, nor what builds on it.
    fn step_with_changes(
        &self,
        mut components: Components,
        snapshots: Vec<SnapshotId>,
        path: &RootPath,
        progress: StepProgress,
    ) -> Result<Finished, Error> {
        let (environment, step) = (&*self.environment, &self.graph.node(self.id).step);
        let output = Output { key: never_used(&components.key())?, snapshots };
        let path = path.relative().display();
        environment.progress.warn(format!(
            "{}: `{path}` changed while the build ran; the step has the newer file, and will run again in the next build (`.dockerignore` hides what is written all the time)",
            step.text
        ));
        environment.cache.put(&[output.key], &output)?;
        components.changed_meanwhile(&path.to_string());
        environment.cache.remember(&slots(self.graph.node(self.id), environment), &components);
        progress.finish(StepOutcome::Done);
        Ok(Finished::Done { output, cached: false, components: None })
    }

    /// Why the step runs.
    fn reason(&self, slots: &[StepSlot], components: &Components) -> MissReason {
        if self.graph.node(self.id).step.ignore_cache {
            return MissReason::Disabled;
        }
        let offered = self.probes.get(&self.id).and_then(|probe| probe.offer.as_ref());
        if let Some(offer) = offered.filter(|_| self.offer.is_none()) {
            return MissReason::Unusable(self.environment.imports.name(offer.cache).to_owned());
        }
        match self.environment.cache.explain(slots, components) {
            MissReason::FirstBuild => match self.environment.imports.compare(&step_name(&self.graph.node(self.id).step), components) {
                Some((then, now)) => crate::cache::explain(Some(&then), &now),
                None => MissReason::FirstBuild,
            },
            reason => reason,
        }
    }

    /// Takes the step's layer from an imported cache. What cannot be used is said once, and the step runs.
    fn imported(&self, key: &CacheKey, components: &Components) -> Result<Option<Output>, Error> {
        let environment = &*self.environment;
        if environment.imports.is_empty() {
            return Ok(None);
        }
        let mut keys = vec![*key];
        let mut by = FoundBy::Definition;
        let mut offer = self.offer.clone().or_else(|| environment.imports.find(components, *key));
        if offer.is_none()
            && let Some(content) = self.content_components()?
        {
            keys.push(content.key());
            offer = environment.imports.find(&content, *key);
            by = FoundBy::Content;
        }
        let Some(offer) = offer else { return Ok(None) };
        let linked = matches!(&self.graph.node(self.id).op, Op::Copy(op) if op.link);
        let below = self.inputs[0].as_ref().filter(|_| !linked).map_or(&[][..], |base| &base.snapshots);
        match self.take(&offer, below) {
            Ok(snapshot) => {
                let snapshots = below.iter().copied().chain([snapshot]).collect();
                let output = Output { key: *key, snapshots };
                environment.cache.put(&keys, &output)?;
                let step = &self.graph.node(self.id).step;
                explain::hit(environment, step, key, by, Some(environment.imports.name(offer.cache)));
                Ok(Some(output))
            }
            Err(_) if environment.cancel.is_cancelled() => Err(Error::Cancelled),
            Err(failure) => {
                let name = environment.imports.name(offer.cache);
                if environment.imports.reject(offer.cache, &offer.layer.blob, failure.whole_cache) {
                    let digest = offer.layer.blob.digest.short();
                    let why = with_causes(&*failure.source);
                    environment.progress.warn(format!("the cache `{name}` is not used where it is damaged: layer {digest}: {why}"));
                }
                Ok(None)
            }
        }
    }

    /// Fetches and unpacks a layer of a cache above `below`.
    fn take(&self, offer: &Offer, below: &[SnapshotId]) -> Result<SnapshotId, CacheFailure> {
        let environment = &*self.environment;
        let OfferedLayer { blob, diff_id, created } = &offer.layer;
        let title = format!("[cache {}] layer {}", environment.imports.name(offer.cache), blob.digest.short());
        let progress = environment.progress.start(title, None);
        let cancelled = || CacheFailure { source: "cancelled".into(), whole_cache: false };
        // This is a thread that may block: see `run`.
        let fetched = tokio::runtime::Handle::current().block_on(async {
            tokio::select! {
                fetched = environment.cache_layers.fetch(offer.cache, blob) => fetched,
                () = environment.cancel.cancelled() => Err(cancelled()),
            }
        });
        let unpacked = fetched.and_then(|()| {
            unpack_layer(&environment.store, below, blob, diff_id, *created)
                .map_err(|error| CacheFailure { source: error.into(), whole_cache: false })
        });
        if unpacked.is_ok() {
            progress.finish(StepOutcome::Done);
        }
        unpacked
    }

    /// Does `work` on this thread, and says what it used where somebody wants to know. A sandbox is measured by itself.
    fn measured<T>(&self, progress: &StepProgress, work: impl FnOnce() -> T) -> T {
        if !progress.wants_usage() || matches!(self.graph.node(self.id).op, Op::Exec(_)) {
            return work();
        }
        let now = || (thread_usage(), ProcessIo::of(None), self.environment.checksums.hashed_so_far());
        let ((user, system, _), io, hashed) = now();
        let done = work();
        let ((user_then, system_then, memory), io_then, hashed_then) = now();
        let moved = |of: fn(&ProcessIo) -> u64| Some(of(&io_then?).saturating_sub(of(&io?)));
        let probed = self.probes.get(&self.id).map_or(0, |probe| probe.hashed);
        progress.measured(StepUsage {
            user_time: Some(user_then.saturating_sub(user)),
            system_time: Some(system_then.saturating_sub(system)),
            peak_memory: Some(memory),
            read: moved(|io| io.read),
            written: moved(|io| io.written),
            hashed: Some(probed + (hashed_then - hashed)),
        });
        done
    }

    /// A result that was found, with a lease on it; nothing where it was pruned since.
    fn held(&self, found: Option<Output>) -> Result<Option<Output>, Error> {
        match found {
            Some(output) if hold(&self.environment, &output.snapshots)? => Ok(Some(output)),
            _ => Ok(None),
        }
    }

    /// What the result is called: its key, or a name never used before where the cache is switched off (later steps must not find results of an earlier run).
    fn identity(&self, key: &CacheKey) -> Result<CacheKey, Error> {
        if !self.graph.node(self.id).step.ignore_cache {
            return Ok(*key);
        }
        never_used(key)
    }

    fn input_keys(&self) -> Vec<Option<CacheKey>> {
        let nodes = self.graph.inputs(self.id);
        nodes
            .iter()
            .zip(&self.inputs)
            .map(|(node, output)| match output {
                Some(output) => Some(output.key),
                None => self.probes.get(node).map(|probe| probe.key),
            })
            .collect()
    }

    fn inputs_as_probed(&self, keys: &[Option<CacheKey>]) -> bool {
        let probed = self.graph.inputs(self.id).into_iter().map(|node| self.probes.get(&node).map(|probe| probe.key));
        probed.eq(keys.iter().copied())
    }

    /// Takes the lock of a key, so that one build at a time does the step. A cancelled build stops waiting.
    fn lock(&self, key: &CacheKey) -> Result<crate::store::KeyLock, Error> {
        loop {
            if let Some(lock) = self.environment.store.try_lock_key(&key.0)? {
                return Ok(lock);
            }
            if self.environment.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Looks for a result of the same content, and gives it this step's key too.
    fn by_content(&self, key: &CacheKey) -> Result<Option<Output>, Error> {
        let Some(content) = self.content_key()? else { return Ok(None) };
        let Some(output) = self.held(self.environment.cache.get(&content))? else { return Ok(None) };
        self.environment.cache.put(&[*key, content], &output)?;
        Ok(Some(output))
    }

    fn content_key(&self) -> Result<Option<CacheKey>, Error> {
        Ok(self.content_components()?.map(|components| components.key()))
    }

    /// What the key is made of with the content of what is copied from stages in place of their names.
    fn content_components(&self) -> Result<Option<Components>, Error> {
        let node = self.graph.node(self.id);
        let op = match &node.op {
            Op::Copy(op) => op,
            Op::Exec(op) if self.inputs.len() > 1 => {
                return mounted::content_components(&self.graph, self.id, op, &self.inputs, &self.trees()?, &self.environment);
            }
            _ => return Ok(None),
        };
        let nodes = self.graph.inputs(self.id);
        let from_stage =
            |source: &CopySource| matches!(source, CopySource::Path { input, .. } if !is_context(self.graph.node(nodes[*input])));
        if !op.sources.iter().any(from_stage) {
            return Ok(None);
        }
        let trees = self.trees()?;
        let base = self.inputs[0].as_ref().map_or_else(crate::cache::key::scratch_key, |base| base.key);
        content_components(&self.graph, self.id, node, base, &trees, &self.environment)
    }

    /// The files of each input after the first.
    fn trees(&self) -> Result<HashMap<usize, Arc<dyn Tree>>, Error> {
        let node = self.graph.node(self.id);
        let mut trees: HashMap<usize, Arc<dyn Tree>> = HashMap::new();
        for (position, input) in self.graph.inputs(self.id).into_iter().enumerate().skip(1) {
            if is_context(self.graph.node(input)) {
                trees.insert(position, context_of(&self.environment, self.graph.node(input), node)?);
            } else if let Some(output) = &self.inputs[position] {
                trees.insert(position, Arc::new(self.view(output)?));
            }
        }
        Ok(trees)
    }

    /// The same files with the times that they have in a build with a time of its own. Where it is held to that, files of a context have it, since theirs only say when they came
    /// there, and others keep theirs unless they are later.
    fn dated(&self, mut trees: HashMap<usize, Arc<dyn Tree>>, nodes: &[NodeId]) -> HashMap<usize, Arc<dyn Tree>> {
        let times = self.environment.times;
        let Some(seconds) = times.made() else { return trees };
        for (position, tree) in &mut trees {
            let node = self.graph.node(nodes[*position]);
            let is_context = is_context(node) || matches!(node.op, Op::Source(SourceOp::Remote(_)));
            let rule = if is_context || times.latest().is_none() { ops::Rule::Always } else { ops::Rule::AtMost };
            *tree = ops::dated(tree.clone(), rule, seconds);
        }
        trees
    }

    fn view(&self, output: &Output) -> Result<MergedView, Error> {
        ops::view(&self.environment.store, &output.snapshots)
    }

    /// Runs the op and commits its snapshot.
    fn execute(&self, progress: &StepProgress) -> Result<ops::Made, Error> {
        let node = self.graph.node(self.id);
        let empty = Vec::new();
        let base = self.inputs[0].as_ref().map_or(&empty, |output| &output.snapshots);
        match &node.op {
            Op::Exec(op) => {
                let nothing = || Output { key: crate::cache::key::scratch_key(), snapshots: Vec::new() };
                let inputs: Vec<Output> = self.inputs.iter().map(|input| input.clone().unwrap_or_else(nothing)).collect();
                ops::exec::run(&self.environment, &node.step, op, base, &inputs, progress).map(ops::Made::from)
            }
            Op::Copy(op) => {
                let nodes = self.graph.inputs(self.id);
                let trees = self.dated(self.trees()?, &nodes);
                let download =
                    |input: usize| self.remotes.downloads.get(&nodes[input]).map(|download| (download, &self.graph.node(nodes[input]).op));
                {
                    let contexts = contexts_read(&self.graph, self.id, &self.environment);
                    // Whoever distrusts the cache shares nothing with it either.
                    let earlier =
                        if node.step.ignore_cache { None } else { self.environment.cache.earlier_layer(&slots(node, &self.environment)) };
                    let want = if self.in_target { ops::DiffIdWanted::Yes } else { ops::DiffIdWanted::No };
                    ops::copy_step(&self.environment, &node.step, op, (base, earlier, want), &trees, &contexts, &download)
                }
            }
            Op::Mkdir(op) => ops::mkdir_step(&self.environment, &node.step, op, base).map(ops::Made::from),
            Op::Source(_) | Op::Merge => Err(Error::Cancelled),
        }
    }
}
