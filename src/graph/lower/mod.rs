//! One stage after another: instructions to nodes, and to changes of the image config.
//!
//! Only `RUN`, `COPY`, `ADD` and `WORKDIR` make nodes; the rest changes the config, so that a change of `LABEL` or `CMD` never runs a step again.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use petgraph::stable_graph::StableDiGraph;

use crate::diag::{Diagnostic, RuleId, SourceFile, Span, Spanned};
use crate::oci::{HealthConfig, HistoryEntry, ImageConfig, Platform, Reference};
use crate::parser::{self, ExpandError, Expanded, Instruction, Mode, ShellOrExec, Statement, Text, Word};
use crate::path::RootPath;

use super::history::{self, Layer};
use super::op::{Node, NodeId, Op, RemoteTree, SourceOp, Step};
use super::plan::{ImageNeed, PlanRequest, ResolvedImage, ResolvedImages, image_key};
use super::scope::{BuildArgs, DeclaredArgs, Environment};
use super::stages::{FromOf, Origin, StageFacts, StageNames};

mod checks;
mod copy;
mod run;

pub use checks::is_secret;
pub(super) use copy::is_http;

/// The search path of images that have none (BuildKit's and Docker's default).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Arguments that BuildKit reads but never puts into the environment.
const NOT_IN_ENV: &[&str] = &["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Arguments by which a stage knows what the result is for.
const TARGET_ARGS: &[&str] = &["TARGETPLATFORM", "TARGETOS", "TARGETARCH", "TARGETVARIANT"];

/// What a stage has come to.
#[derive(Clone, Debug)]
pub(super) struct StageState {
    /// The node whose file system the stage has.
    pub(super) node: NodeId,
    /// The config so far, without its history.
    pub(super) config: ImageConfig,
    /// The latest entry of its history.
    history: Option<HistoryId>,
    /// What expansion and RUN see. Stages share it until one of them changes it.
    env: Arc<Environment>,
    /// The same as a command gets it, once one has got it.
    exec_env: Option<Arc<[(String, String)]>>,
    /// Where the config has each variable.
    env_index: Arc<HashMap<String, usize>>,
    /// The `ARG`s in order, for history.
    args: Arc<DeclaredArgs>,
    platform: Arc<Platform>,
    /// What its steps are done for ([`Step::platforms`]).
    platforms: Arc<[String]>,
    /// Whether these tell of two platforms.
    crosses: bool,
    /// Whether this stage itself said `CMD`.
    cmd_is_set: bool,
    name: Text,
    position: usize,
    total: usize,
    /// Whether the instruction at hand comes from a trigger.
    is_trigger: bool,
    checks: checks::StageChecks,
}

impl StageState {
    fn workdir(&self) -> RootPath {
        image_path(&self.config, &self.config.config.working_dir)
    }

    /// The variables, to change them.
    fn env_mut(&mut self) -> &mut Environment {
        self.exec_env = None;
        Arc::make_mut(&mut self.env)
    }

    /// Sets a variable of the image, in place where it is there.
    fn set_env(&mut self, key: &str, value: &str) {
        let entry = format!("{key}={value}");
        match self.env_index.get(key) {
            Some(at) => self.config.config.env[*at] = entry,
            None => {
                Arc::make_mut(&mut self.env_index).insert(key.to_owned(), self.config.config.env.len());
                self.config.config.env.push(entry);
            }
        }
    }
}

/// An entry of a stage's history, which leads to the one before it. Stages that start from the same one share what it has.
type HistoryId = usize;

/// The variables that a config sets.
#[derive(Clone)]
struct Variables {
    entries: Arc<[String]>,
    env: Arc<Environment>,
    /// Where each of them stands.
    env_index: Arc<HashMap<String, usize>>,
}

impl Variables {
    fn new(entries: &[String]) -> Variables {
        // The last of several values is the one that commands see, the first is the one that ENV replaces.
        let names = entries.iter().map(|entry| entry.split_once('=').map_or(entry.as_str(), |(name, _)| name).to_owned());
        let env_index = names.enumerate().rev().map(|(at, name)| (name, at)).collect();
        Variables { entries: entries.into(), env: Arc::new(Environment::from_entries(entries)), env_index: Arc::new(env_index) }
    }
}

/// An entry of a history: most belong to stages that are only copied from, and are never asked for.
enum Committed {
    /// What an instruction said.
    Here(String, Layer),
    /// What the base image came with.
    InBase(Box<HistoryEntry>),
}

/// How many undefined variables get a hint to a near name, which costs time.
const MAX_HINTS: usize = 100;

/// Everything that lowering found.
pub(super) struct Outcome {
    pub(super) graph: StableDiGraph<Node, usize>,
    /// The stages that something may still be built from.
    pub(super) stages: BTreeMap<usize, StageState>,
    /// The last node of every stage.
    pub(super) nodes: BTreeMap<usize, NodeId>,
    pub(super) errors: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
    /// Stages that a trigger copies from and that were not reachable before.
    pub(super) missing_stages: Vec<usize>,
    /// Images that a trigger copies from.
    pub(super) missing_images: Vec<ImageNeed>,
}

/// The lowering of the reachable stages.
pub(super) struct Lowering<'a, 'b> {
    request: &'a PlanRequest<'a>,
    names: &'b StageNames<'a>,
    args: &'b mut BuildArgs<'a>,
    global: &'b Environment,
    images: &'b ResolvedImages,
    /// Whether there is one stage only, so that its name need not be shown.
    solo: bool,
    /// How many stages are still to be built from each stage. The last one takes its state: copying it for each of a long chain would take quadratic time.
    heirs: HashMap<usize, usize>,
    /// The file of the instruction at hand: the Dockerfile, or a trigger's text.
    file: SourceFile,
    /// Where mistakes are reported when the instruction comes from a trigger: at the `FROM`.
    trigger_span: Option<Span>,
    stage_index: usize,
    sources: HashMap<String, NodeId>,
    history: Vec<(Option<HistoryId>, Committed)>,
    undefined: usize,
    /// The platform of the result.
    target_platform: Arc<Platform>,
    /// The nodes that are done on another platform for that one.
    crossing: HashSet<NodeId>,
    /// The variables that the last stage began with, for the next one that begins with the same.
    first_variables: Option<Variables>,
    outcome: Outcome,
}

impl<'a, 'b> Lowering<'a, 'b> {
    pub(super) fn new(
        request: &'a PlanRequest<'a>,
        names: &'b StageNames<'a>,
        args: &'b mut BuildArgs<'a>,
        global: &'b Environment,
        images: &'b ResolvedImages,
        heirs: HashMap<usize, usize>,
        solo: bool,
    ) -> Lowering<'a, 'b> {
        let outcome = Outcome {
            graph: StableDiGraph::new(),
            stages: BTreeMap::new(),
            nodes: BTreeMap::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
            missing_stages: Vec::new(),
            missing_images: Vec::new(),
        };
        Lowering {
            request,
            names,
            args,
            global,
            images,
            solo,
            heirs,
            file: request.dockerfile.file.clone(),
            trigger_span: None,
            stage_index: 0,
            sources: HashMap::new(),
            history: Vec::new(),
            undefined: 0,
            target_platform: Arc::new(request.target_platform.clone()),
            crossing: HashSet::new(),
            first_variables: None,
            outcome,
        }
    }

    /// The state of the target, with its whole history, and everything else.
    pub(super) fn finish(mut self, target: usize) -> (Option<StageState>, Outcome) {
        let mut state = self.outcome.stages.remove(&target);
        if let Some(state) = &mut state {
            let mut at = state.history;
            while let Some((before, entry)) = at.and_then(|at| self.history.get(at)) {
                state.config.history.push(match entry {
                    Committed::Here(text, layer) => history::entry(text, *layer),
                    Committed::InBase(entry) => HistoryEntry::clone(entry),
                });
                at = *before;
            }
            state.config.history.reverse();
        }
        (state, self.outcome)
    }

    /// Adds a history entry to the stage's config.
    fn commit(&mut self, state: &mut StageState, text: String, layer: Layer) {
        self.add_history(state, Committed::Here(text, layer));
    }

    fn add_history(&mut self, state: &mut StageState, entry: Committed) {
        self.history.push((state.history, entry));
        state.history = Some(self.history.len() - 1);
    }

    /// Lowers stage number `index`; the stages that it depends on come before it.
    pub(super) fn stage(&mut self, index: usize, facts: &StageFacts) {
        self.stage_index = index;
        let stage = &self.request.dockerfile.stages[index];
        let name = match &stage.from.name {
            Some(name) => name.name.clone(),
            None if self.solo => Text::default(),
            None => format!("stage-{index}").into(),
        };
        let platform = facts.platform.clone().map(Arc::new);
        let span = stage.from.image.span;
        let mut state = match &facts.base {
            Origin::Stage(base) => self.start_from_stage(*base, name),
            Origin::Scratch => self.start_from_scratch(name),
            Origin::Context(context) => self.start_from_context(context, platform, name),
            Origin::Remote(context, tree) => self.start_from_remote(context, tree, platform, name),
            Origin::Image { reference, layout } => match self.start_from_image(reference, layout.as_deref(), platform, name, span) {
                Some(state) => state,
                None => return,
            },
        };
        if facts.replaced {
            state.config.config.on_build.clear();
            self.end_stage(index, state);
            return;
        }
        let triggers = self.triggers(&mut state, stage.from.image.span);
        let makes_node = |s: &&Statement| {
            matches!(s.instruction, Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_))
        };
        state.total += triggers.iter().filter(makes_node).count() + stage.instructions.iter().filter(makes_node).count();
        if let Origin::Image { .. } = facts.base {
            let (total, stage) = (state.total, state.name.clone());
            let step = &mut self.outcome.graph[state.node].step;
            if step.position.1 == 0 {
                step.position = (1, total);
                step.stage = stage;
            }
        }
        state.is_trigger = true;
        for statement in &triggers {
            self.trigger_span = Some(stage.from.image.span);
            self.instruction(&mut state, statement);
        }
        self.trigger_span = None;
        state.is_trigger = false;
        for statement in &stage.instructions {
            self.instruction(&mut state, statement);
        }
        self.end_stage(index, state);
    }

    fn end_stage(&mut self, index: usize, state: StageState) {
        self.outcome.nodes.insert(index, state.node);
        // A stage that is only copied from has no more to give than its files.
        if self.heirs.get(&index).is_some_and(|heirs| *heirs > 0) {
            self.outcome.stages.insert(index, state);
        }
    }

    /// The triggers of the base, parsed. They are used up: the result does not have them.
    fn triggers(&mut self, state: &mut StageState, span: Span) -> Vec<Statement> {
        let texts = std::mem::take(&mut state.config.config.on_build);
        let mut statements = Vec::new();
        for text in texts {
            match parser::parse_trigger(&text, "ONBUILD trigger of the base image") {
                Ok(statement) => statements.push(statement),
                Err(errors) => {
                    let reasons: Vec<String> = errors.into_iter().map(|error| error.message).collect();
                    let message = format!("the base image's ONBUILD trigger `{text}` is malformed: {}", reasons.join("; "));
                    self.outcome.errors.push(Diagnostic::error(&self.request.dockerfile.file, span, message));
                }
            }
        }
        statements
    }

    fn start_from_stage(&mut self, base: usize, name: Text) -> StageState {
        let heirs = self.heirs.entry(base).or_default();
        *heirs = heirs.saturating_sub(1);
        let inherited = if *heirs == 0 { self.outcome.stages.remove(&base) } else { self.outcome.stages.get(&base).cloned() };
        let mut state = match inherited {
            Some(state) => state,
            // The base had errors, which are reported already; an empty one lets the rest of this stage be checked.
            None => self.start_from_scratch(Text::default()),
        };
        state.name = name;
        state.position = 0;
        state.total = 0;
        state.cmd_is_set = false;
        state.checks = state.checks.inherited();
        state
    }

    /// `FROM scratch`: for the target's platform, whatever `--platform` says, as BuildKit has it.
    fn start_from_scratch(&mut self, name: Text) -> StageState {
        let platform = self.target_platform.clone();
        let node = self.scratch();
        self.start_empty(node, platform, name)
    }

    /// A directory given with `--build-context`, in place of an image: its files, and the config of an empty image.
    fn start_from_context(&mut self, context: &str, platform: Option<Arc<Platform>>, name: Text) -> StageState {
        let platform = platform.unwrap_or_else(|| self.target_platform.clone());
        let node = self.context_files(Some(context), "/", &platform, None);
        let mut state = self.start_empty(node, platform, name);
        self.commit(&mut state, format!("[context {context}] load from client"), Layer::Plain);
        state
    }

    /// The same for files that are not on this machine.
    fn start_from_remote(&mut self, context: &str, tree: &RemoteTree, platform: Option<Arc<Platform>>, name: Text) -> StageState {
        let platform = platform.unwrap_or_else(|| self.target_platform.clone());
        let node = self.remote(tree);
        let mut state = self.start_empty(node, platform, name);
        self.commit(&mut state, format!("[context {context}] {tree}"), Layer::Plain);
        state
    }

    fn start_empty(&mut self, node: NodeId, platform: Arc<Platform>, name: Text) -> StageState {
        let mut config = ImageConfig::empty(&platform);
        config.config.working_dir = native_path(&config, &RootPath::root());
        config.config.env.extend(default_path(&config));
        self.start(node, config, platform, name)
    }

    fn start_from_image(
        &mut self,
        reference: &Reference,
        layout: Option<&str>,
        platform: Option<Arc<Platform>>,
        name: Text,
        span: Span,
    ) -> Option<StageState> {
        let is_given = platform.is_some();
        let wanted = platform.unwrap_or_else(|| self.target_platform.clone());
        let image = self.image(reference, layout, &wanted, span)?.clone();
        let found = image.config.platform();
        if !found.architecture.is_empty() && (&found.os, &found.architecture) != (&wanted.os, &wanted.architecture) {
            let message = format!("base image `{}` is for {found}, but {wanted} is expected", reference.written());
            let warning = Diagnostic::warning(&self.request.dockerfile.file, span, message).with_rule(RuleId("InvalidBaseImagePlatform"));
            self.outcome.warnings.push(warning);
        }
        let detect = !is_given && self.request.implicit_platform && !found.architecture.is_empty();
        let platform = if detect { Arc::new(found) } else { wanted };
        let node = self.image_node(reference, &image, platform.clone(), span);
        let mut config = image.config;
        // Like BuildKit, nothing of the base but what the specification names goes into the new image.
        config.other.clear();
        config.config.other.clear();
        config.created = None;
        if !config.config.env.iter().any(|entry| entry.starts_with("PATH=")) {
            let path = default_path(&config);
            config.config.env.extend(path);
        }
        if !config.config.working_dir.is_empty() {
            config.config.working_dir = native_path(&config, &image_path(&config, &config.config.working_dir));
        }
        let mut state = self.start(node, config, platform, name);
        state.position = 1;
        state.total = 1;
        Some(state)
    }

    fn start(&mut self, node: NodeId, mut config: ImageConfig, platform: Arc<Platform>, name: Text) -> StageState {
        let history = std::mem::take(&mut config.history);
        let Variables { env, env_index, .. } = self.variables(&config.config.env);
        let mut state = StageState {
            node,
            env,
            exec_env: None,
            env_index,
            config,
            history: None,
            args: Arc::default(),
            platforms: Arc::new([platform.to_string()]),
            crosses: false,
            platform,
            cmd_is_set: false,
            name,
            position: 0,
            total: 0,
            is_trigger: false,
            checks: checks::StageChecks::default(),
        };
        for entry in history {
            self.add_history(&mut state, Committed::InBase(Box::new(entry)));
        }
        state
    }

    /// The variables of a stage that begins with `entries`.
    fn variables(&mut self, entries: &[String]) -> Variables {
        match &self.first_variables {
            Some(known) if *known.entries == *entries => known.clone(),
            _ => self.first_variables.insert(Variables::new(entries)).clone(),
        }
    }

    /// The config of an image; notes the need where it is not known.
    fn image(&mut self, reference: &Reference, layout: Option<&str>, platform: &Platform, span: Span) -> Option<&'b ResolvedImage> {
        let found = self.images.get(&image_key(reference, layout, platform));
        if found.is_none() {
            let (reference, layout, platform) = (reference.clone(), layout.map(str::to_owned), platform.clone());
            let tells_platform = self.request.one_of_several;
            let need = ImageNeed { reference, layout, platform, tells_platform, file: self.request.dockerfile.file.clone(), span };
            self.outcome.missing_images.push(need);
        }
        found
    }

    fn image_node(&mut self, reference: &Reference, image: &ResolvedImage, platform: Arc<Platform>, span: Span) -> NodeId {
        let key = format!("image {reference} {} {platform}", image.id);
        self.source(&key, platform, Some(span), || {
            let (id, manifest) = (image.id.clone(), image.manifest.clone());
            (SourceOp::Image { reference: reference.clone(), id, manifest }, format!("FROM {reference}"))
        })
    }

    /// The node of a source; the same source is one node, whoever reads it.
    fn source(
        &mut self,
        key: &str,
        platform: Arc<Platform>,
        span: Option<Span>,
        op_and_text: impl FnOnce() -> (SourceOp, String),
    ) -> NodeId {
        if let Some(node) = self.sources.get(key) {
            return *node;
        }
        let (op, text) = op_and_text();
        let step = Step {
            stage: Text::default(),
            position: (0, 0),
            text,
            source: span.map(|span| (self.request.dockerfile.file.clone(), span)),
            ignore_cache: false,
            platforms: Arc::new([platform.to_string()]),
            tells_platform: self.request.one_of_several && matches!(op, SourceOp::Image { .. }),
        };
        let node = self.outcome.graph.add_node(Node { op: Op::Source(op), step, platform });
        self.sources.insert(key.to_owned(), node);
        node
    }

    /// What a `--from` or a mount's `from` names.
    fn origin(&mut self, from: &Spanned<Text>, of: FromOf) -> Option<Origin> {
        let found = self.names.named(from, of).and_then(|origin| match origin {
            Origin::Stage(index) => self.names.check_order(self.stage_index, index, from).map(|()| origin),
            _ => Ok(origin),
        });
        found.map_err(|error| self.error_at(from.span, error.message, error.hint)).ok()
    }

    /// The files of an origin, as a node to copy from.
    fn origin_node(&mut self, origin: &Origin, span: Span) -> Option<NodeId> {
        match origin {
            Origin::Stage(index) => match self.outcome.nodes.get(index) {
                Some(node) => Some(*node),
                None => {
                    self.outcome.missing_stages.push(*index);
                    None
                }
            },
            Origin::Scratch => Some(self.scratch()),
            Origin::Context(name) => Some(self.context(Some(name))),
            Origin::Remote(_, tree) => Some(self.remote(tree)),
            Origin::Image { reference, layout } => {
                let platform = self.target_platform.clone();
                let image = self.image(reference, layout.as_deref(), &platform, span)?.clone();
                Some(self.image_node(reference, &image, platform, span))
            }
        }
    }

    /// Adds a node of the stage at hand; its first input is the stage's file system.
    fn add(&mut self, state: &mut StageState, op: Op, inputs: &[NodeId], statement: &Statement, text: String) -> NodeId {
        state.position += 1;
        let text = if state.is_trigger { format!("ONBUILD {text}") } else { text };
        let crosses = *state.platform != *self.target_platform && (state.crosses || inputs.iter().any(|input| self.is_for_target(*input)));
        let step = Step {
            stage: state.name.clone(),
            position: (state.position, state.total),
            text,
            source: Some((self.request.dockerfile.file.clone(), self.trigger_span.unwrap_or(statement.span))),
            ignore_cache: self.request.no_cache || self.is_filtered(&state.name),
            platforms: if crosses && !state.crosses { self.crossed(state) } else { state.platforms.clone() },
            tells_platform: self.request.one_of_several,
        };
        let node = self.add_node(op, inputs, step, state.platform.clone());
        if crosses {
            self.crossing.insert(node);
        }
        node
    }

    /// Whether a node's result is another one for another target.
    fn is_for_target(&self, id: NodeId) -> bool {
        let node = &self.outcome.graph[id];
        match &node.op {
            Op::Source(SourceOp::Image { .. }) => node.platform == self.target_platform,
            Op::Source(_) => false,
            _ => node.platform == self.target_platform || self.crossing.contains(&id),
        }
    }

    /// What steps on the stage's platform are called that are done for the target's.
    fn crossed(&self, state: &StageState) -> Arc<[String]> {
        let (on, target) = (&*state.platform, &*self.target_platform);
        let target = match on.os == target.os {
            true => target.to_string().split_once('/').map_or_else(String::new, |(_, rest)| rest.to_owned()),
            false => target.to_string(),
        };
        Arc::new([format!("{on}->{target}")])
    }

    /// Whether `--no-cache-filter` names the stage at hand.
    fn is_filtered(&self, name: &str) -> bool {
        if self.request.no_cache_filter.is_empty() {
            return false;
        }
        let index = self.stage_index.to_string();
        self.request.no_cache_filter.iter().any(|filter| filter.eq_ignore_ascii_case(name) || *filter == index)
    }

    fn add_node(&mut self, op: Op, inputs: &[NodeId], step: Step, platform: Arc<Platform>) -> NodeId {
        let node = self.outcome.graph.add_node(Node { op, step, platform });
        for (position, input) in inputs.iter().enumerate() {
            self.outcome.graph.add_edge(*input, node, position);
        }
        node
    }

    fn instruction(&mut self, state: &mut StageState, statement: &Statement) {
        self.check(state, statement);
        match &statement.instruction {
            Instruction::From(_) => {}
            Instruction::Arg(declarations) => self.arg(state, declarations),
            Instruction::Run(run) => self.run(state, statement, run),
            Instruction::Copy(copy) => self.copy(state, statement, copy),
            Instruction::Add(add) => self.add_instruction(state, statement, add),
            Instruction::Workdir(path) => self.workdir(state, statement, path),
            Instruction::Env(pairs) => {
                // Every value sees the environment as it was before the instruction.
                let pairs = self.expand_pairs(state, pairs);
                let mut text = String::from("ENV");
                let env = state.env_mut();
                for (key, value) in &pairs {
                    text.extend([" ", key, "=", value]);
                    env.set(key, value);
                }
                for (key, value) in &pairs {
                    state.set_env(key, value);
                }
                self.commit(state, text, Layer::None);
            }
            Instruction::Label(pairs) => {
                let mut text = String::from("LABEL");
                for (key, value) in self.expand_pairs(state, pairs) {
                    text.extend([" ", &key, "=", &value]);
                    state.config.config.labels.insert(key, value);
                }
                self.commit(state, text, Layer::None);
            }
            Instruction::Maintainer(name) => {
                self.commit(state, format!("MAINTAINER {}", name.text), Layer::None);
                state.config.author = Some(name.text.to_string());
            }
            Instruction::Cmd(command) => {
                let args = with_shell(&state.config, command);
                self.commit(state, format!("CMD {}", history::quoted_list(&args)), Layer::None);
                state.config.config.cmd = args;
                state.config.config.args_escaped = true;
                state.cmd_is_set = true;
            }
            Instruction::Entrypoint(command) => {
                let args = with_shell(&state.config, command);
                self.commit(state, format!("ENTRYPOINT {}", history::quoted_list(&args)), Layer::None);
                state.config.config.entrypoint = args;
                if !state.cmd_is_set {
                    state.config.config.cmd.clear();
                }
            }
            Instruction::Expose(ports) => self.expose(state, ports),
            Instruction::Volume(paths) => self.volume(state, paths),
            Instruction::User(user) => {
                if let Some(user) = self.expand(user, state) {
                    self.commit(state, format!("USER {user}"), Layer::None);
                    state.config.config.user = user;
                }
            }
            Instruction::Onbuild(onbuild) => state.config.config.on_build.push(onbuild.trigger.clone()),
            Instruction::StopSignal(signal) => self.stop_signal(state, signal),
            Instruction::Healthcheck(check) => {
                let config = health_config(check);
                self.commit(state, format!("HEALTHCHECK {}", history::healthcheck(&config)), Layer::None);
                state.config.config.healthcheck = Some(config);
            }
            Instruction::Shell(words) => {
                self.commit(state, format!("SHELL {}", history::plain_list(words)), Layer::None);
                state.config.config.shell = words.iter().map(ToString::to_string).collect();
            }
        }
    }

    fn arg(&mut self, state: &mut StageState, declarations: &[parser::ArgDeclaration]) {
        let mut texts = Vec::new();
        for declaration in declarations {
            // One after another: `ARG a=1 b=$a` gives b the value 1. The name is taken as it is written.
            let name = declaration.name.text.as_str();
            let given = self.args.get(name).map(str::to_owned);
            let value = match (given, &declaration.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => match self.expand(default, state) {
                    Some(value) => Some(value),
                    None => continue,
                },
                (None, None) => self.global.get(name).map(str::to_owned),
            };
            texts.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.to_owned(),
            });
            if let Some(value) = value.as_deref().filter(|_| !NOT_IN_ENV.contains(&name)) {
                state.env_mut().set(name, value);
            }
            if TARGET_ARGS.contains(&name) && *state.platform != *self.target_platform {
                (state.platforms, state.crosses) = (self.crossed(state), true);
            }
            Arc::make_mut(&mut state.args).declare(name, value);
        }
        self.commit(state, format!("ARG {}", texts.join(" ")), Layer::None);
    }

    fn workdir(&mut self, state: &mut StageState, statement: &Statement, path: &Word) {
        let Some(written) = self.expand(path, state) else { return };
        let path = state.workdir().join(unix_spelling(&state.config, &written).as_ref());
        let (is_windows, native) = (is_windows(&state.config), native_path(&state.config, &path));
        let directory = &mut state.config.config.working_dir;
        // As in BuildKit, what is absolute stays as it is written, and nothing changes nothing.
        if written.starts_with('/') && !is_windows {
            *directory = written;
        } else if !written.is_empty() || directory.is_empty() {
            *directory = native;
        }
        let text = if is_windows { format!("WORKDIR {path}") } else { format!("WORKDIR {directory}") };
        if path.is_root() {
            self.commit(state, text, Layer::None);
            return;
        }
        let op = Op::Mkdir(super::op::MkdirOp { path, user: state.config.config.user.clone() });
        let inputs = [state.node];
        state.node = self.add(state, op, &inputs, statement, text.clone());
        self.commit(state, text, Layer::Plain);
    }

    fn expose(&mut self, state: &mut StageState, ports: &[Word]) {
        let mut exposed = Vec::new();
        // BuildKit sorts what was written, not what comes of it; so history has `9-10` before `90`, and `100` before both.
        let mut ports: Vec<&Word> = ports.iter().collect();
        ports.sort_by(|one, other| one.text.cmp(&other.text));
        for word in ports {
            for port in self.expand_words(word, state) {
                match parser::ports::parse_exposed(&port) {
                    Ok(found) => exposed.extend(found),
                    Err(reason) => self.error_at(word.span, format!("`{port}` is not a port: {reason}"), None),
                }
            }
        }
        self.commit(state, format!("EXPOSE {}", history::plain_list(&exposed)), Layer::None);
        for port in exposed {
            state.config.config.exposed_ports.insert(port, serde_json::json!({}));
        }
    }

    fn volume(&mut self, state: &mut StageState, paths: &[Word]) {
        let mut volumes = Vec::new();
        for word in paths {
            match self.expand(word, state) {
                Some(path) if path.is_empty() => self.error_at(word.span, "a volume's path is empty".to_owned(), None),
                Some(path) => volumes.push(path),
                None => {}
            }
        }
        self.commit(state, format!("VOLUME {}", history::plain_list(&volumes)), Layer::None);
        for volume in volumes {
            state.config.config.volumes.insert(volume, serde_json::json!({}));
        }
    }

    fn stop_signal(&mut self, state: &mut StageState, word: &Word) {
        let Some(signal) = self.expand(word, state) else { return };
        // A number is taken as it is, as BuildKit does.
        let valid = signal.parse::<i64>().map_or_else(|_| parser::signals::is_valid(&signal), |number| number != 0);
        if !valid {
            let hint = Some("give a name such as `SIGTERM`, or a number".to_owned());
            self.error_at(word.span, format!("`{signal}` is not a signal"), hint);
            return;
        }
        self.commit(state, format!("STOPSIGNAL {signal}"), Layer::None);
        state.config.config.stop_signal = signal;
    }

    /// Expands keys and values, all with the variables as they are before the instruction.
    fn expand_pairs(&mut self, state: &StageState, pairs: &[parser::KeyValue]) -> Vec<(String, String)> {
        let pair = |pair: &parser::KeyValue| Some((self.expand(&pair.key, state)?, self.expand(&pair.value, state)?));
        pairs.iter().filter_map(pair).collect()
    }

    /// Expands a word to one string; mistakes are noted, and undefined variables warned about.
    fn expand(&mut self, word: &Word, state: &StageState) -> Option<String> {
        self.expand_as(word, state, Mode::Word).map(|expanded| expanded.text)
    }

    /// Expands a word to as many words as it holds then (`EXPOSE $PORTS`).
    fn expand_words(&mut self, word: &Word, state: &StageState) -> Vec<String> {
        self.expand_as(word, state, Mode::Split).map(|expanded| expanded.words).unwrap_or_default()
    }

    fn expand_as(&mut self, word: &Word, state: &StageState, mode: Mode) -> Option<Expanded> {
        match word.expand(self.request.dockerfile.directives.escape, &*state.env, mode) {
            Ok(expanded) => {
                // BuildKit does not look for undefined variables in words that are split.
                if mode == Mode::Word {
                    self.warn_undefined(word, &expanded, state);
                }
                Some(expanded)
            }
            Err(error) => {
                let diagnostic = expansion_error(&self.file, word, &error);
                self.error_at(diagnostic.span, diagnostic.message, diagnostic.hint);
                None
            }
        }
    }

    fn error_at(&mut self, span: Span, message: String, hint: Option<String>) {
        let (span, message) = match self.trigger_span {
            Some(from) => (from, format!("in an ONBUILD trigger of the base: {message}")),
            None => (span, message),
        };
        let mut error = Diagnostic::error(&self.request.dockerfile.file, span, message);
        error.hint = hint;
        self.outcome.errors.push(error);
    }
}

impl parser::Variables for Environment {
    fn get(&self, name: &str) -> Option<String> {
        Environment::get(self, name).map(str::to_owned)
    }
}

/// Expands a word to one string.
pub(super) fn expand_word(word: &Word, escape: char, env: &Environment) -> Result<Expanded, ExpandError> {
    word.expand(escape, env, Mode::Word)
}

/// The diagnostic of a word that cannot be expanded.
pub(super) fn expansion_error(file: &SourceFile, word: &Word, error: &ExpandError) -> Diagnostic {
    word.diagnostic(file, error)
}

/// Whether the image is for Windows, where the default shell, search path and spelling of paths are others.
fn is_windows(config: &ImageConfig) -> bool {
    config.os == "windows"
}

/// The search path that an image has without saying so, as an entry of the environment. Windows knows its own.
fn default_path(config: &ImageConfig) -> Option<String> {
    (!is_windows(config)).then(|| format!("PATH={DEFAULT_PATH}"))
}

/// A path of an image as it is written here: for Windows without its drive, and with slashes.
fn unix_spelling<'a>(config: &ImageConfig, path: &'a str) -> Cow<'a, str> {
    if !is_windows(config) {
        return Cow::Borrowed(path);
    }
    let without_drive = path.strip_prefix(|c: char| c.is_ascii_alphabetic()).and_then(|rest| rest.strip_prefix(':'));
    Cow::Owned(without_drive.unwrap_or(path).replace('\\', "/"))
}

fn image_path(config: &ImageConfig, path: &str) -> RootPath {
    RootPath::new(unix_spelling(config, path).as_ref())
}

/// A path as the image's config has it.
fn native_path(config: &ImageConfig, path: &RootPath) -> String {
    let path = path.to_string();
    if is_windows(config) { path.replace('/', "\\") } else { path }
}

/// A command's words: the shell form goes to the shell that is set at this line.
fn with_shell(config: &ImageConfig, command: &ShellOrExec) -> Vec<String> {
    match command {
        ShellOrExec::Exec(words) => words.iter().map(ToString::to_string).collect(),
        ShellOrExec::Shell(line) => shell_words(config, line.text.to_string()),
    }
}

fn shell_words(config: &ImageConfig, line: String) -> Vec<String> {
    let mut words = config.config.shell.clone();
    if words.is_empty() {
        let default: &[&str] = if is_windows(config) { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
        words = default.iter().map(ToString::to_string).collect();
    }
    words.push(line);
    words
}

fn health_config(check: &parser::Healthcheck) -> HealthConfig {
    match check {
        parser::Healthcheck::None => HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() },
        parser::Healthcheck::Command { command, interval, timeout, start_period, start_interval, retries } => {
            let test = match command {
                ShellOrExec::Shell(line) => vec!["CMD-SHELL".to_owned(), line.text.to_string()],
                ShellOrExec::Exec(words) => std::iter::once("CMD".to_owned()).chain(words.iter().map(ToString::to_string)).collect(),
            };
            HealthConfig {
                test,
                interval: interval.unwrap_or(0),
                timeout: timeout.unwrap_or(0),
                start_period: start_period.unwrap_or(0),
                start_interval: start_interval.unwrap_or(0),
                retries: retries.unwrap_or(0),
            }
        }
    }
}
