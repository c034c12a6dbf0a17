//! What can be said of a build without building: the build checks, what it takes, and which targets there are.
//!
//! Nothing is run and no layer is fetched. The checks ask for the configs of base images, as a build would; where one cannot be had, that is told, and the rest is
//! checked with an empty one in its place. The outline only looks at images that are here, and the targets need none.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::context::{IgnoreRules, LocalContext};
use crate::diag::{Diagnostic, SourceFile, Span};
use crate::graph::{self, CheckScope, ImageNeed, PlanRequest, Planned, ResolvedImage, ResolvedImages};
use crate::oci::{Digest, ImageConfig, ImageId, Platform};
use crate::parser::{Checks, Dockerfile, ParseOptions, lint, parse_with};
use crate::progress::Progress;
use crate::task::CancellationToken;

use super::build::{BuildRequest, Context, ContextSource, Input, Platforms, keep_git_dir, layouts, named_contexts};
use super::remote::GIT_AGENT;
use super::sources::{BuildSources, PullPolicy};
use super::{DockerfileSource, Engine, Error};

/// What to say of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// What the build checks find.
    Check,
    /// The arguments, secrets and more that the target takes.
    Outline,
    /// The stages that can be built.
    Targets,
}

/// The lines of an instruction, counted from 1.
pub type Lines = RangeInclusive<usize>;

/// What was to be said.
#[derive(Debug)]
pub enum CallOutcome {
    /// For [`Call::Check`].
    Check(CheckReport),
    /// For [`Call::Outline`].
    Outline(SourceFile, graph::Outline),
    /// For [`Call::Targets`].
    Targets(SourceFile, Vec<graph::Target>),
}

/// What the build checks found.
#[derive(Debug)]
pub struct CheckReport {
    /// The Dockerfile.
    pub file: SourceFile,
    /// The findings, in the order of the file; each has a rule.
    pub findings: Vec<(Diagnostic, Lines)>,
    /// What is odd but breaks no rule.
    pub notes: Vec<Diagnostic>,
    /// Why this cannot be built, if it cannot, and where.
    pub error: Option<(Error, Option<Lines>)>,
}

impl Engine {
    /// Says something of a build.
    ///
    /// # Errors
    /// The Dockerfile cannot be read, or (but for the checks, which report it) has mistakes.
    pub async fn call(&self, request: BuildRequest, call: Call, progress: &Progress) -> Result<CallOutcome, Error> {
        // Files from elsewhere need a store that can be written.
        let is_remote = matches!(request.context, ContextSource::Remote(_)) || matches!(request.dockerfile, DockerfileSource::Url(_));
        let lease = if is_remote { Some(Arc::new(self.store.lease()?)) } else { None };
        let agent = request.steps.ssh.get(GIT_AGENT).cloned();
        let remotes = self.remotes(lease, request.secrets.clone(), agent, progress);
        let context = keep_git_dir(request.context, &request.build_args);
        let input = self.read_input(context, request.dockerfile, &remotes, &CancellationToken::new()).await?;
        let syntax = request.build_args.get(SYNTAX_ARGUMENT).map(String::as_str);
        let parsed = parse_with(&input.file, ParseOptions { syntax });
        let argument = request.build_args.get(CHECK_ARGUMENT).map(String::as_str);
        let checks = Checks::new(&parsed.dockerfile, argument).map_err(|error| Error::Diagnostics(vec![error]));
        let file = input.file.clone();
        let broken = parsed.diagnostics.iter().any(Diagnostic::is_error);
        if broken && call != Call::Check {
            return Err(Error::Diagnostics(parsed.diagnostics.into_iter().filter(Diagnostic::is_error).collect()));
        }
        if call == Call::Targets {
            return Ok(CallOutcome::Targets(file, graph::targets(&parsed.dockerfile)));
        }
        let contexts = named_contexts(&request.named_contexts).with_main(input.context.remote());
        let platforms = Platforms::of(&request.platforms, &request.build_args)?;
        let plan_request = PlanRequest {
            dockerfile: &parsed.dockerfile,
            target: request.target.as_deref(),
            build_args: &request.build_args,
            labels: &request.labels,
            contexts: &contexts,
            target_platform: platforms.all[0].clone(),
            implicit_platform: platforms.implicit,
            one_of_several: platforms.all.len() > 1,
            build_platform: Platform::host(),
            network: request.network,
            extra_hosts: std::sync::Arc::default(),
            // Who only asks about a Dockerfile runs nothing.
            entitlements: graph::Entitlements::ALL,
            no_cache: request.no_cache,
            no_cache_filter: &request.no_cache_filter,
            checks: CheckScope::default(),
        };
        let sources = self.build_sources(layouts(&request.named_contexts), remotes);
        if call == Call::Outline {
            let outline = outline(&plan_request, &sources, &file).map_err(|error| Error::Diagnostics(vec![*error]))?;
            return Ok(CallOutcome::Outline(file, outline));
        }
        let checks = checks?;
        let mut found = Found { diagnostics: parsed.diagnostics, image: None };
        found.diagnostics.extend(lint(&parsed.dockerfile));
        if !broken {
            let rules = LazyRules::new(&input);
            let ignored = |path: &str| rules.hide(path);
            let all_stages = request.target.as_deref().is_none_or(str::is_empty);
            let checks = CheckScope { all_stages, ignored: Some(&ignored) };
            let policy = if request.pull { PullPolicy::Always } else { PullPolicy::Missing };
            for platform in &platforms.all {
                let plan_request = PlanRequest { checks, target_platform: platform.clone(), ..plan_request.clone() };
                check(&plan_request, &sources, policy, progress, &mut found).await;
            }
            if platforms.all.len() > 1 {
                found.once();
            }
        }
        Ok(CallOutcome::Check(report(&file, &checks, found)))
    }
}

/// The build argument that replaces `# check=`.
pub(super) const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// The build argument that replaces `# syntax=`.
pub(super) const SYNTAX_ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// What came up so far.
struct Found {
    diagnostics: Vec<Diagnostic>,
    /// The first image that cannot be had.
    image: Option<Error>,
}

impl Found {
    /// Keeps of what was found for several platforms each thing once.
    fn once(&mut self) {
        let mut told = HashSet::new();
        self.diagnostics.retain(|found| told.insert((found.span, found.message.clone(), found.rule.map(|rule| rule.0))));
    }
}

/// Plans as a build would, with an empty image in place of each that cannot be had.
async fn check(request: &PlanRequest<'_>, sources: &BuildSources, policy: PullPolicy, progress: &Progress, found: &mut Found) {
    let mut images = ResolvedImages::new();
    loop {
        match graph::plan(request, &images) {
            Ok(Planned::Ready(graph)) => {
                found.diagnostics.extend(graph.warnings.iter().cloned());
                break;
            }
            Ok(Planned::NeedsImages(needs)) => {
                let resolved = futures_util::future::join_all(needs.iter().map(|need| sources.resolve(need, policy, progress))).await;
                for (need, image) in needs.into_iter().zip(resolved) {
                    let image = image.unwrap_or_else(|error| {
                        found.image.get_or_insert(error);
                        unknown_image(&need)
                    });
                    images.insert(need.key(), image);
                }
            }
            Err(diagnostics) => {
                found.diagnostics.extend(diagnostics);
                break;
            }
        }
    }
    if found.image.is_some() {
        let undefined = found.diagnostics.iter_mut().filter(|d| d.rule.is_some_and(|rule| rule.0 == "UndefinedVar"));
        undefined.filter(|d| d.hint.is_none()).for_each(|d| d.hint = Some("a base image that is not known may set it".to_owned()));
    }
}

/// What stands for an image that cannot be had.
fn unknown_image(need: &ImageNeed) -> ResolvedImage {
    let digest = Digest::sha256(need.reference.to_string().as_bytes());
    ResolvedImage { id: ImageId::new(digest.clone()), manifest: digest, config: ImageConfig::empty(&need.platform) }
}

fn outline(request: &PlanRequest<'_>, sources: &BuildSources, file: &SourceFile) -> Result<graph::Outline, Box<Diagnostic>> {
    graph::outline(request, &mut |reference, platform| {
        let need = ImageNeed {
            reference: reference.clone(),
            layout: None,
            platform: platform.clone(),
            tells_platform: false,
            file: file.clone(),
            span: Span::new(0, 0),
        };
        sources.resolve_local(&need).ok().flatten().map(|image| image.config.config.env)
    })
}

fn report(file: &SourceFile, checks: &Checks, found: Found) -> CheckReport {
    let shown = checks.apply(found.diagnostics);
    let fatal = checks.fatal(&shown);
    let (errors, warnings): (Vec<_>, Vec<_>) = shown.into_iter().partition(Diagnostic::is_error);
    let (findings, mut notes): (Vec<_>, Vec<_>) = warnings.into_iter().partition(|warning| warning.rule.is_some());
    notes.extend(checks.notes().iter().cloned());
    let error = match (errors.first(), found.image) {
        (Some(first), _) => {
            let lines = checks.lines(first);
            Some((Error::Diagnostics(errors), Some(lines)))
        }
        (None, Some(error)) => {
            let lines = match &error {
                Error::BaseImage { need, .. } => Some(checks.lines_of(need.span)),
                _ => None,
            };
            Some((error, lines))
        }
        (None, None) if !fatal.is_empty() => {
            let lines = findings.first().map(|finding| checks.lines(finding));
            Some((Error::Checks { rules: fatal, warnings: Vec::new() }, lines))
        }
        (None, None) => None,
    };
    let findings = findings.into_iter().map(|finding| (checks.lines(&finding), finding)).map(|(lines, finding)| (finding, lines)).collect();
    CheckReport { file: file.clone(), findings, notes, error }
}

/// The ignore rules of a build context, read when a `COPY` is first looked at.
pub(super) struct LazyRules {
    directory: Option<PathBuf>,
    dockerfile: Option<PathBuf>,
    rules: OnceCell<Option<IgnoreRules>>,
}

impl LazyRules {
    pub(super) fn new(input: &Input) -> LazyRules {
        let (directory, rules) = match &input.context {
            Context::Directory(directory) => (Some(directory.clone()), OnceCell::new()),
            Context::Archive(context, _) => (None, OnceCell::from(Some(context.rules().clone()))),
            Context::Remote(_) => (None, OnceCell::from(None)),
        };
        LazyRules { directory, dockerfile: input.path.clone(), rules }
    }

    /// Whether the rules hide `path`, a cleaned source of `COPY`. Rules with a `!` are too hard to tell: what they hide may hold what they do not.
    pub(super) fn hide(&self, path: &str) -> bool {
        let rules = self.rules.get_or_init(|| self.read());
        let Some(rules) = rules.as_ref().filter(|rules| !rules.is_empty() && !rules.has_negations()) else { return false };
        match path {
            // The root is there whatever is hidden in it, unless that is everything.
            "." | "/" => rules.decide(ANY_NAME).ignored,
            // As in BuildKit, whose patterns have no leading slash.
            path if path.starts_with('/') => false,
            path => rules.decide(path.as_bytes()).ignored,
        }
    }

    fn read(&self) -> Option<IgnoreRules> {
        // What is wrong with the context is told when it is opened to be built from.
        let context = LocalContext::open(self.directory.as_deref()?, self.dockerfile.as_deref().map(Path::new)).ok()?;
        Some(context.rules().clone())
    }
}

/// A name that only a pattern for everything matches.
const ANY_NAME: &[u8] = b"\x01 any name\x02";

/// All that is to be told of a Dockerfile before it is built, ruled and sorted; `graph` is what planning found.
pub(super) fn warnings_of(checks: &Checks, dockerfile: &Dockerfile, parsed: &[Diagnostic], graph: &[Diagnostic]) -> Vec<Diagnostic> {
    let found = parsed.iter().chain(graph).cloned().chain(lint(dockerfile)).collect();
    let mut shown = checks.notes().to_vec();
    shown.extend(checks.apply(found));
    shown
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
