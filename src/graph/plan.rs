//! The whole of planning: what is reachable, which images are needed, and then every reachable stage, in the order of the file.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::diag::{Diagnostic, SourceFile, Span};
use crate::oci::{Digest, ImageConfig, ImageId, Platform, Reference};
use crate::parser::{Dockerfile, Instruction, Word};

use super::checks::{CheckScope, check_froms};
use super::lower::{Lowering, StageState};
use super::op::{BuildGraph, NetworkMode};
use super::scope::{BuildArgs, Environment, platform_args};
use super::stages::{Base, FromTarget, StageNames, copy_froms, mount_froms};

/// What to plan.
#[derive(Debug)]
pub struct PlanRequest<'a> {
    /// The parsed Dockerfile, without errors.
    pub dockerfile: &'a Dockerfile,
    /// `--target`.
    pub target: Option<&'a str>,
    /// `--build-arg`.
    pub build_args: &'a BTreeMap<String, String>,
    /// `--label`, in order.
    pub labels: &'a [(String, String)],
    /// The platform of the result.
    pub target_platform: Platform,
    /// The platform that builds.
    pub build_platform: Platform,
    /// `--network`: what `RUN` without `--network` gets.
    pub network: NetworkMode,
    /// `--no-cache`.
    pub no_cache: bool,
    /// What the build checks look at.
    pub checks: CheckScope<'a>,
}

/// An image whose config the graph needs.
#[derive(Clone, Debug)]
pub struct ImageNeed {
    /// Its name.
    pub reference: Reference,
    /// For which platform.
    pub platform: Platform,
    /// Where it is named.
    pub file: SourceFile,
    /// The bytes that name it.
    pub span: Span,
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

/// The answers to [`ImageNeed`]s, by normalised name and platform.
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

struct Planner<'a> {
    request: &'a PlanRequest<'a>,
    names: StageNames<'a>,
    args: BuildArgs<'a>,
    global: Environment,
    warnings: Vec<Diagnostic>,
    target: usize,
    /// Stages that a trigger asked for.
    extra: BTreeSet<usize>,
    /// The base of each reachable stage, with its platform.
    bases: BTreeMap<usize, (Base, Option<Platform>)>,
    /// Images named by `--from`, with the place.
    from_images: Vec<(Reference, Span)>,
}

impl<'a> Planner<'a> {
    fn new(request: &'a PlanRequest<'a>) -> Result<Planner<'a>, Vec<Diagnostic>> {
        let names = StageNames::new(request.dockerfile);
        let target = names.target(request.target).map_err(|error| vec![error])?;
        let mut args = BuildArgs::new(request.build_args);
        let stage = request.target.unwrap_or("default");
        let global = platform_args(&request.build_platform, &request.target_platform, stage, &mut args);
        let mut planner = Planner {
            request,
            names,
            args,
            global,
            warnings: Vec::new(),
            target,
            extra: if request.checks.all_stages { (0..request.dockerfile.stages.len()).collect() } else { BTreeSet::new() },
            bases: BTreeMap::new(),
            from_images: Vec::new(),
        };
        let predefined = planner.global.clone();
        planner.declare_globals()?;
        planner.warnings = check_froms(request.dockerfile, &predefined, &planner.global);
        Ok(planner)
    }

    /// Gives the `ARG`s before the first `FROM` their values, one after another.
    fn declare_globals(&mut self) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        for statement in &self.request.dockerfile.global_args {
            let Instruction::Arg(declarations) = &statement.instruction else { continue };
            for declaration in declarations {
                let given = self.args.get(&declaration.name.text).map(str::to_owned);
                let value = match (given, &declaration.default) {
                    (Some(given), _) => Some(given),
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

    fn expand_global(&self, word: &Word, errors: &mut Vec<Diagnostic>) -> Option<String> {
        let dockerfile = self.request.dockerfile;
        match super::lower::expand_word(word, dockerfile.directives.escape, &self.global) {
            Ok(expanded) => Some(expanded.text),
            Err(error) => {
                errors.push(super::lower::expansion_error(&dockerfile.file, word, &error));
                None
            }
        }
    }

    /// Finds the stages that the target reaches, what each starts from, and the images that they copy from.
    fn reach(&mut self) -> Result<(), Vec<Diagnostic>> {
        let dockerfile = self.request.dockerfile;
        let mut errors = Vec::new();
        let mut todo: Vec<usize> = self.extra.iter().copied().chain([self.target]).collect();
        self.bases.clear();
        self.from_images.clear();
        while let Some(index) = todo.pop() {
            if self.bases.contains_key(&index) {
                continue;
            }
            let stage = &dockerfile.stages[index];
            let base = self.base_of(index, &mut errors);
            if let Some((Base::Stage(base), _)) = &base {
                todo.push(*base);
            }
            self.bases.insert(index, base.unwrap_or((Base::Scratch, None)));
            for from in copy_froms(stage).cloned().chain(mount_froms(stage)) {
                match self.names.named(index, &from) {
                    Ok(FromTarget::Stage(source)) => todo.push(source),
                    Ok(FromTarget::Image(reference)) => self.from_images.push((reference, from.span)),
                    Ok(FromTarget::Scratch) => {}
                    Err(error) => errors.push(error),
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn base_of(&self, index: usize, errors: &mut Vec<Diagnostic>) -> Option<(Base, Option<Platform>)> {
        let file = &self.request.dockerfile.file;
        let from = &self.request.dockerfile.stages[index].from;
        let name = self.expand_global(&from.image, errors)?;
        if name.is_empty() {
            let message = format!("the base name `{}` is empty once its variables are expanded", from.image.text);
            let hint = "declare the variable with a default (`ARG NAME=value`) before the first FROM, or give it with --build-arg";
            errors.push(Diagnostic::error(file, from.image.span, message).with_hint(hint));
            return None;
        }
        let base = self.names.base(index, &name, &from.image).map_err(|error| errors.push(error)).ok()?;
        let Some(platform) = &from.platform else { return Some((base, None)) };
        let text = self.expand_global(platform, errors)?;
        if text.is_empty() {
            return Some((base, None));
        }
        match text.parse() {
            Ok(platform) => Some((base, Some(platform))),
            Err(error) => {
                let error: crate::oci::PlatformError = error;
                errors.push(Diagnostic::error(file, platform.span, error.to_string()));
                None
            }
        }
    }

    /// Errors, and behind them what was found until then.
    fn with_warnings(&mut self, mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
        errors.append(&mut self.warnings);
        errors
    }

    /// The images that are needed and not known yet.
    fn missing_images(&self, images: &ResolvedImages) -> Vec<ImageNeed> {
        let file = &self.request.dockerfile.file;
        let target = &self.request.target_platform;
        let bases = self.bases.iter().filter_map(|(index, (base, platform))| match base {
            Base::Image(reference) => {
                let span = self.request.dockerfile.stages[*index].from.image.span;
                Some((reference, platform.as_ref().unwrap_or(target), span))
            }
            _ => None,
        });
        let froms = self.from_images.iter().map(|(reference, span)| (reference, target, *span));
        let mut seen = BTreeSet::new();
        bases
            .chain(froms)
            .filter(|(reference, platform, _)| !images.contains_key(&(reference.to_string(), (*platform).clone())))
            .filter(|(reference, platform, _)| seen.insert((reference.to_string(), (*platform).clone())))
            .map(|(reference, platform, span)| ImageNeed {
                reference: reference.clone(),
                platform: platform.clone(),
                file: file.clone(),
                span,
            })
            .collect()
    }

    /// Lowers every reachable stage. `None`: a trigger needs another stage, which is noted.
    fn lower_all(&mut self, images: &ResolvedImages) -> Result<Option<Planned>, Vec<Diagnostic>> {
        let solo = self.bases.len() == 1;
        // The target counts as an heir of itself: its state is the result.
        let mut heirs = HashMap::from([(self.target, 1)]);
        for (base, _) in self.bases.values() {
            if let Base::Stage(base) = base {
                *heirs.entry(*base).or_default() += 1;
            }
        }
        let mut lowering = Lowering::new(self.request, &self.names, &mut self.args, &self.global, images, heirs, solo);
        for (index, (base, platform)) in &self.bases {
            lowering.stage(*index, base, platform.as_ref());
        }
        let outcome = lowering.outcome();
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
        let mut stages = outcome.stages;
        let StageState { node, mut config, .. } = stages.remove(&self.target).expect("the target is reachable from itself");
        for (key, value) in self.request.labels {
            config.config.labels.insert(key.clone(), value.clone());
        }
        self.warnings.extend(outcome.warnings);
        self.warn_unused_args();
        let warnings = std::mem::take(&mut self.warnings);
        Ok(Some(Planned::Ready(Box::new(BuildGraph::new(outcome.graph, node, config, warnings)))))
    }

    fn warn_unused_args(&mut self) {
        let unused = self.args.unused();
        if unused.is_empty() {
            return;
        }
        let names: Vec<String> = unused.iter().map(|name| format!("`{name}`")).collect();
        let message = format!("the build arguments {} were not used: nothing declares them with ARG", names.join(", "));
        let span = self.request.dockerfile.stages[self.target].from.image.span;
        self.warnings.push(Diagnostic::warning(&self.request.dockerfile.file, span, message));
    }
}
