//! The whole of planning: what is reachable, which images are needed, and then every reachable stage, in the order of the file.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::diag::{Diagnostic, SourceFile, Span};
use crate::oci::{Digest, ImageConfig, ImageId, Platform, Reference};
use crate::parser::{Dockerfile, Instruction, Word};

use super::checks::{CheckScope, check_froms};
use super::contexts::NamedContexts;
use super::lower::{Lowering, StageState};
use super::op::{BuildGraph, BuildTarget, NetworkMode};
use super::scope::{BuildArgs, Environment, platform_args};
use super::stages::{Origin, StageFacts, StageNames, circles, froms};

/// What to plan.
#[derive(Clone, Debug)]
pub struct PlanRequest<'a> {
    /// The parsed Dockerfile, without errors.
    pub dockerfile: &'a Dockerfile,
    /// `--target`.
    pub target: Option<&'a str>,
    /// `--build-arg`.
    pub build_args: &'a BTreeMap<String, String>,
    /// `--label`, in order.
    pub labels: &'a [(String, String)],
    /// `--build-context`.
    pub contexts: &'a NamedContexts,
    /// The platform of the result.
    pub target_platform: Platform,
    /// Whether nobody asked for that platform: then the result has that of its base image.
    pub implicit_platform: bool,
    /// Whether it is one of several platforms that are built for: then steps are called after them.
    pub one_of_several: bool,
    /// The platform that builds.
    pub build_platform: Platform,
    /// `--network`: what `RUN` without `--network` gets.
    pub network: NetworkMode,
    /// `--add-host`, the names alone.
    pub extra_hosts: Arc<[String]>,
    /// `--allow`.
    pub entitlements: Entitlements,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: the stages without cache, by name (upper and lower case are the same) or number.
    pub no_cache_filter: &'a [String],
    /// What the build checks look at.
    pub checks: CheckScope<'a>,
}

/// What `RUN` may ask for beyond the usual sandbox (`--allow`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entitlements {
    /// The host's network.
    pub network_host: bool,
    /// All capabilities and devices.
    pub security_insecure: bool,
    /// All devices that CDI specifications describe.
    pub all_devices: bool,
    /// Those of these names, or of these kinds (`vendor.com/class`).
    pub devices: Vec<String>,
}

impl Entitlements {
    /// All of them: for who only looks at a Dockerfile.
    pub const ALL: Entitlements = Entitlements { network_host: true, security_insecure: true, all_devices: true, devices: Vec::new() };

    /// Whether a step may have the device.
    pub(crate) fn device(&self, name: &str) -> bool {
        let is_of = |allowed: &String| allowed == name || name.split_once('=').is_some_and(|(kind, _)| allowed == kind);
        self.all_devices || self.devices.iter().any(is_of)
    }
}

/// An image whose config the graph needs.
#[derive(Clone, Debug)]
pub struct ImageNeed {
    /// Its name.
    pub reference: Reference,
    /// The named context (`oci-layout://`) that has it, instead of a registry.
    pub layout: Option<String>,
    /// For which platform.
    pub platform: Platform,
    /// Whether messages must say for which: there are several.
    pub tells_platform: bool,
    /// Where it is named.
    pub file: SourceFile,
    /// The bytes that name it.
    pub span: Span,
}

impl ImageNeed {
    /// Under what the answer goes into [`ResolvedImages`].
    pub fn key(&self) -> (String, Platform) {
        image_key(&self.reference, self.layout.as_deref(), &self.platform)
    }
}

/// The key of an image in [`ResolvedImages`].
pub(super) fn image_key(reference: &Reference, layout: Option<&str>, platform: &Platform) -> (String, Platform) {
    let name = layout.map_or_else(|| reference.to_string(), |context| format!("oci-layout {context}"));
    (name, platform.clone())
}

/// What a name turned out to be.
#[derive(Clone, Debug)]
pub struct ResolvedImage {
    /// The digest of the image's config.
    pub id: ImageId,
    /// The digest of the image's manifest, for messages.
    pub manifest: Digest,
    /// Its config.
    pub config: ImageConfig,
}

/// The answers to [`ImageNeed`]s, by [`ImageNeed::key`].
pub type ResolvedImages = HashMap<(String, Platform), ResolvedImage>;

/// How far planning came.
#[derive(Debug)]
pub enum Planned {
    /// These images' configs must be known first.
    NeedsImages(Vec<ImageNeed>),
    /// The graph.
    Ready(Box<BuildGraph>),
}

/// Plans a build.
///
/// # Errors
/// All mistakes that were found in what the target reaches: unknown stages, bad variables, wrong values.
pub fn plan(request: &PlanRequest<'_>, images: &ResolvedImages) -> Result<Planned, Vec<Diagnostic>> {
    let mut planner = Planner::new(request)?;
    // A trigger of a base image can bring in stages that nothing else needs; then the round starts again with those.
    loop {
        planner.reach().map_err(|errors| planner.with_warnings(errors))?;
        let needs = planner.missing_images(images);
        if !needs.is_empty() {
            return Ok(Planned::NeedsImages(needs));
        }
        if let Some(planned) = planner.lower_all(images)? {
            return Ok(planned);
        }
    }
}

pub(super) struct Planner<'a> {
    request: &'a PlanRequest<'a>,
    names: StageNames<'a>,
    args: BuildArgs<'a>,
    global: Environment,
    warnings: Vec<Diagnostic>,
    target: usize,
    /// What is known of each stage.
    facts: Vec<StageFacts>,
    /// Stages that a trigger asked for.
    extra: BTreeSet<usize>,
    /// The stages that the target needs.
    reached: BTreeSet<usize>,
}

impl<'a> Planner<'a> {
    pub(super) fn new(request: &'a PlanRequest<'a>) -> Result<Planner<'a>, Vec<Diagnostic>> {
        let names = StageNames::new(request.dockerfile, request.contexts, &request.target_platform);
        let target = names.target(request.target).map_err(|error| vec![error])?;
        let mut args = BuildArgs::new(request.build_args);
        let last = request.dockerfile.stages.last().and_then(|stage| stage.from.name.as_ref()).map(|name| name.name.as_str());
        let stage = request.target.filter(|target| !target.is_empty()).or(last).unwrap_or("default");
        let global = platform_args(&request.build_platform, &request.target_platform, stage, &mut args);
        let mut planner = Planner {
            request,
            names,
            args,
            global,
            warnings: Vec::new(),
            target,
            facts: Vec::new(),
            extra: if request.checks.all_stages { (0..request.dockerfile.stages.len()).collect() } else { BTreeSet::new() },
            reached: BTreeSet::new(),
        };
        let predefined = planner.global.clone();
        planner.declare_globals()?;
        planner.warnings = check_froms(request.dockerfile, &predefined, &planner.global);
        planner.survey().map_err(|errors| planner.with_warnings(errors))?;
        Ok(planner)
    }

    /// What `FROM` lines see.
    pub(super) fn global(&self) -> &Environment {
        &self.global
    }

    /// Gives the `ARG`s before the first `FROM` their values, one after another.
    fn declare_globals(&mut self) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        for statement in &self.request.dockerfile.global_args {
            let Instruction::Arg(declarations) = &statement.instruction else { continue };
            for declaration in declarations {
                let given = self.args.get(&declaration.name.text).map(str::to_owned);
                let value = match (given, &declaration.default) {
                    (Some(given), _) => Some(Cow::Owned(given)),
                    (None, Some(default)) => self.expand_global(default, &mut errors),
                    (None, None) => None,
                };
                if let Some(value) = value {
                    self.global.set(&declaration.name.text, &value);
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn expand_global<'w>(&self, word: &'w Word, errors: &mut Vec<Diagnostic>) -> Option<Cow<'w, str>> {
        let dockerfile = self.request.dockerfile;
        if word.is_plain(dockerfile.directives.escape) {
            return Some(Cow::Borrowed(&word.text));
        }
        match super::lower::expand_word(word, dockerfile.directives.escape, &self.global) {
            Ok(expanded) => Some(Cow::Owned(expanded.text)),
            Err(error) => {
                errors.push(super::lower::expansion_error(&dockerfile.file, word, &error));
                None
            }
        }
    }

    /// Finds out what every stage starts and copies from.
    fn survey(&mut self) -> Result<(), Vec<Diagnostic>> {
        let dockerfile = self.request.dockerfile;
        let mut errors = Vec::new();
        for (index, stage) in dockerfile.stages.iter().enumerate() {
            let platform = self.platform_of(index, &mut errors);
            let base = self.base_of(index, platform.as_ref(), &mut errors).unwrap_or(Origin::Scratch);
            let replacement = match self.names.replacement(stage, platform.as_ref()) {
                Ok(replacement) => replacement,
                Err(error) => {
                    errors.push(error);
                    None
                }
            };
            let mut found = Vec::new();
            for (of, from) in froms(stage) {
                match self.names.named(&from, of) {
                    Ok(Origin::Stage(itself)) if itself == index => errors.extend(self.names.check_order(index, itself, &from).err()),
                    Ok(origin) => found.push((origin, from)),
                    Err(error) => errors.push(error),
                }
            }
            self.facts.push(match replacement {
                Some(base) => StageFacts { base, platform, froms: Vec::new(), replaced: true },
                None => StageFacts { base, platform, froms: found, replaced: false },
            });
        }
        errors.extend(circles(dockerfile, &self.facts));
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Finds the stages that the target reaches.
    fn reach(&mut self) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let mut todo: Vec<usize> = self.extra.iter().copied().chain([self.target]).collect();
        self.reached.clear();
        while let Some(index) = todo.pop() {
            if !self.reached.insert(index) {
                continue;
            }
            let facts = &self.facts[index];
            if let Origin::Stage(base) = facts.base {
                todo.push(base);
            }
            for (origin, from) in &facts.froms {
                let Origin::Stage(found) = origin else { continue };
                match self.names.check_order(index, *found, from) {
                    Ok(()) => todo.push(*found),
                    Err(error) => errors.push(error),
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn base_of(&self, index: usize, platform: Option<&Platform>, errors: &mut Vec<Diagnostic>) -> Option<Origin> {
        let file = &self.request.dockerfile.file;
        let from = &self.request.dockerfile.stages[index].from;
        let name = self.expand_global(&from.image, errors)?;
        if name.is_empty() {
            let message = format!("the base name `{}` is empty once its variables are expanded", from.image.text);
            errors.push(Diagnostic::error(file, from.image.span, message).with_hint(EMPTY_IN_FROM));
            return None;
        }
        self.names.base(index, &name, &from.image, platform).map_err(|error| errors.push(error)).ok()
    }

    fn platform_of(&self, index: usize, errors: &mut Vec<Diagnostic>) -> Option<Platform> {
        let file = &self.request.dockerfile.file;
        let word = self.request.dockerfile.stages[index].from.platform.as_ref()?;
        let text = self.expand_global(word, errors)?;
        if text.is_empty() {
            let message = format!("the platform `{}` is empty once its variables are expanded", word.text);
            errors.push(Diagnostic::error(file, word.span, message).with_hint(EMPTY_IN_FROM));
            return None;
        }
        let parsed: Result<Platform, crate::oci::PlatformError> = text.parse();
        parsed.map_err(|error| errors.push(Diagnostic::error(file, word.span, error.to_string()))).ok()
    }

    /// Errors, and behind them what was found until then.
    fn with_warnings(&mut self, mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
        errors.append(&mut self.warnings);
        errors
    }

    /// The images that are needed and not known yet.
    fn missing_images(&self, images: &ResolvedImages) -> Vec<ImageNeed> {
        let target = &self.request.target_platform;
        let mut seen = BTreeSet::new();
        let mut needs = Vec::new();
        for index in &self.reached {
            let facts = &self.facts[*index];
            let span = self.request.dockerfile.stages[*index].from.image.span;
            let base = (&facts.base, facts.platform.as_ref().unwrap_or(target), span);
            let froms = facts.froms.iter().map(|(origin, from)| (origin, target, from.span));
            for (origin, platform, span) in std::iter::once(base).chain(froms) {
                let Origin::Image { reference, layout } = origin else { continue };
                let key = image_key(reference, layout.as_deref(), platform);
                if !images.contains_key(&key) && seen.insert(key) {
                    let (reference, layout) = (reference.clone(), layout.clone());
                    needs.push(ImageNeed {
                        reference,
                        layout,
                        platform: platform.clone(),
                        tells_platform: self.request.one_of_several,
                        file: self.request.dockerfile.file.clone(),
                        span,
                    });
                }
            }
        }
        needs
    }

    /// Lowers every reachable stage. `None`: a trigger needs another stage, which is noted.
    fn lower_all(&mut self, images: &ResolvedImages) -> Result<Option<Planned>, Vec<Diagnostic>> {
        let solo = self.reached.len() == 1;
        // The target counts as an heir of itself: its state is the result.
        let mut heirs = HashMap::from([(self.target, 1)]);
        for index in &self.reached {
            if let Origin::Stage(base) = self.facts[*index].base {
                *heirs.entry(base).or_default() += 1;
            }
        }
        let mut lowering = Lowering::new(self.request, &self.names, &mut self.args, &self.global, images, heirs, solo);
        for index in &self.reached {
            lowering.stage(*index, &self.facts[*index]);
        }
        let (target, outcome) = lowering.finish(self.target);
        if !outcome.missing_stages.is_empty() {
            let before = self.extra.len();
            self.extra.extend(outcome.missing_stages);
            if self.extra.len() > before {
                return Ok(None);
            }
        }
        if !outcome.errors.is_empty() {
            self.warnings.extend(outcome.warnings);
            return Err(self.with_warnings(outcome.errors));
        }
        if !outcome.missing_images.is_empty() {
            return Ok(Some(Planned::NeedsImages(outcome.missing_images)));
        }
        let StageState { node, mut config, .. } = target.expect("the target is reachable from itself");
        for (key, value) in self.request.labels {
            config.config.labels.insert(key.clone(), value.clone());
        }
        self.set_platform(&mut config);
        self.warnings.extend(outcome.warnings);
        self.warn_of_args();
        self.warn_of_contexts();
        let warnings = std::mem::take(&mut self.warnings);
        Ok(Some(Planned::Ready(Box::new(BuildGraph::new(outcome.graph, BuildTarget { node, config }, warnings)))))
    }

    /// A platform that was asked for is the result's, whatever its base image is for: `FROM --platform=$BUILDPLATFORM` is how things are cross-compiled.
    fn set_platform(&self, config: &mut ImageConfig) {
        let found = config.platform();
        if !self.request.implicit_platform {
            let wanted = &self.request.target_platform;
            let same = wanted.os == found.os && wanted.architecture == found.architecture;
            config.os.clone_from(&wanted.os);
            config.architecture.clone_from(&wanted.architecture);
            if wanted.variant.is_some() || !same {
                config.variant.clone_from(&wanted.variant);
            }
            if wanted.os_version.is_some() || !same {
                config.os_version.clone_from(&wanted.os_version);
            }
            if !wanted.os_features.is_empty() {
                config.os_features.clone_from(&wanted.os_features);
            }
        }
    }

    /// Tells of build arguments that have no effect: those that nothing in the file declares.
    fn warn_of_args(&mut self) {
        let file = &self.request.dockerfile.file;
        let span = self.request.dockerfile.stages[self.target].from.image.span;
        let mut unused = self.args.unused();
        if !unused.is_empty() {
            let declared = self.declared();
            unused.retain(|name| !declared.contains(name));
        }
        if unused.is_empty() {
            return;
        }
        let names: Vec<String> = unused.iter().map(|name| format!("`{name}`")).collect();
        let (arguments, were) = if names.len() == 1 { ("argument", "was") } else { ("arguments", "were") };
        let message = format!(
            "the build {arguments} {} {were} not used: nothing declares {} with ARG",
            names.join(", "),
            if names.len() == 1 { "it" } else { "them" }
        );
        self.warnings.push(Diagnostic::warning(file, span, message));
    }

    /// Tells of named contexts that take no place: a mistyped name has no effect otherwise.
    fn warn_of_contexts(&mut self) {
        let epoch = self.request.build_args.get(super::SOURCE_DATE_EPOCH);
        let file = &self.request.dockerfile.file;
        let span = self.request.dockerfile.stages[self.target].from.image.span;
        for name in self.names.unused_contexts().into_iter().filter(|name| epoch.is_none_or(|value| value != name)) {
            let message = format!("the build context `{name}` was not used: no stage, image or `from` is called so");
            let warning = Diagnostic::warning(file, span, message);
            self.warnings.push(match self.names.near_context(name) {
                Some(near) => warning.with_hint(format!("did you mean `{near}`?")),
                None => warning,
            });
        }
    }

    /// What some `ARG` of the file declares, wherever it stands: an argument for another target is no mistake.
    fn declared(&self) -> HashSet<&'a str> {
        let dockerfile = self.request.dockerfile;
        let statements = dockerfile.global_args.iter().chain(dockerfile.stages.iter().flat_map(|stage| &stage.instructions));
        let declarations = statements.filter_map(|statement| match &statement.instruction {
            Instruction::Arg(declarations) => Some(declarations),
            _ => None,
        });
        declarations.flatten().map(|declaration| declaration.name.text.as_str()).collect()
    }
}

const EMPTY_IN_FROM: &str = "declare the variable with a default (`ARG NAME=value`) before the first FROM, or give it with --build-arg";
