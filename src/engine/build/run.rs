//! The whole of a build, from the request to the outcome.

use std::sync::{Arc, Mutex};

use crate::cache::BuildCache;
use crate::cache::portable::INLINE_FIELD;
use crate::context::SeenMemo;
use crate::diag::Diagnostic;
use crate::engine::build_cache::{CacheDestination, CacheFetcher};
use crate::engine::cache_export::add_inline;
use crate::engine::call::{CHECK_ARGUMENT, LazyRules, SYNTAX_ARGUMENT, warnings_of};
use crate::engine::epoch::Origins;
use crate::engine::network::networks;
use crate::engine::outputs::{self, BuildResult, Output, PlatformResult, given_names, kept_names};
use crate::engine::remote::{GIT_AGENT, Remotes};
use crate::engine::sources::{BuildSources, PullPolicy};
use crate::engine::verify::{compare, starting_time};
use crate::engine::{Engine, Error};
use crate::executor::{self, Environment, FileTimes, Outcome};
use crate::graph::{BuildGraph, CheckScope, ContextName, PlanRequest, SOURCE_DATE_EPOCH};
use crate::oci::Platform;
use crate::parser::{Checks, ParseOptions, Parsed, parse_with};
use crate::progress::Progress;
use crate::store::{ImageRecord, Lease};
use crate::task::{CancellationToken, blocking};

use super::input::{Input, check_named, dated, keep_git_dir, layouts, named_contexts, open_context, open_named, remote_contexts};
use super::memo::StoreMemo;
use super::planning::{Plan, Platforms};
use super::{BuildContext, BuildOutcome, BuildRequest, ContextSource, DockerfileSource, PlatformOutcome};

/// What was read for a build.
struct Read {
    input: Input,
    parsed: Parsed,
    checks: Checks,
    /// `--build-context`.
    given: Vec<(ContextName, BuildContext)>,
}

impl Read {
    /// All that there is to tell of the Dockerfile, where planning found `graph`.
    fn found(&self, graph: &[Diagnostic]) -> Vec<Diagnostic> {
        warnings_of(&self.checks, &self.parsed.dockerfile, &self.parsed.diagnostics, graph)
    }
}

impl Engine {
    /// Builds. What there is to tell about the Dockerfile is in `warnings` as soon as it is known, whatever becomes of the build; what an error tells of is not.
    ///
    /// # Errors
    /// Everything that can go wrong with a build. The cache keeps what was finished, the store is good.
    pub async fn build(
        &self,
        mut request: BuildRequest,
        progress: &Progress,
        cancel: CancellationToken,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<BuildOutcome, Error> {
        let spawner = self.spawner.clone().ok_or_else(|| Error::Usage { message: "this engine cannot run steps".into(), hint: None })?;
        let platforms = Platforms::of(&request.platforms, &request.build_args)?;
        if request.outputs.is_empty() {
            request.outputs.push(Output::store());
        }
        outputs::check(&request.outputs, &request.tags, &platforms)?;
        check_named(&request.named_contexts)?;
        self.add_proxies(&mut request, progress);
        let lease = Arc::new(self.store.lease()?);
        let _held = lease.clone();
        let (read, remotes) = self.read_build(&mut request, &lease, progress, &cancel).await?;
        if read.parsed.diagnostics.iter().any(Diagnostic::is_error) {
            return Err(Error::Diagnostics(read.found(&[])));
        }
        *warnings = read.found(&[]);
        let phase = progress.phase("plan");
        let sources = Arc::new(self.build_sources(layouts(&read.given), remotes));
        let Plan { graph, epoch } = match self.plan_read(&request, &read, &platforms, &sources, (progress, &cancel)).await {
            Err(Error::Diagnostics(errors)) => {
                warnings.clear();
                return Err(Error::Diagnostics(read.found(&errors)));
            }
            planned => planned?,
        };
        *warnings = read.found(&graph.warnings);
        let rules = read.checks.fatal(warnings);
        if !rules.is_empty() {
            return Err(Error::Checks { rules, warnings: std::mem::take(warnings) });
        }
        drop(phase);
        let Read { input, given, .. } = read;
        let graph = Arc::new(graph);
        let name = format!("{}\0{}", input.name, request.target.as_deref().unwrap_or(""));
        let context = open_context(input.context, input.path.as_deref(), &graph)?;
        let (imports, fetcher) = self.import_caches(&request.cache_from, &platforms.all, progress).await;
        let environment = Environment {
            store: self.store.clone(),
            cache: BuildCache::new(self.store.clone()),
            imports,
            cache_layers: fetcher.clone(),
            tell_steps: !request.cache_to.is_empty(),
            explain: request.explain,
            roots: self.roots()?,
            spawner,
            context: context.tree.clone(),
            named_contexts: open_named(&given, &graph)?,
            build_name: name,
            times: match epoch {
                Some(seconds) if request.reproducible => FileTimes::Held(seconds),
                Some(seconds) => FileTimes::Made(seconds),
                None => FileTimes::Kept,
            },
            checksums: Arc::new(SeenMemo::new(StoreMemo::new(&self.store))),
            sources,
            network: networks(&self.options, progress, &request.steps.extra_hosts),
            secrets: std::mem::take(&mut request.secrets),
            steps: std::mem::take(&mut request.steps),
            failed: request.failed.take(),
            emptied: Mutex::default(),
            confinement_told: std::sync::Once::new(),
            logs: self.store.build_logs()?,
            progress: progress.clone(),
            lease,
            cancel: cancel.clone(),
        };
        let outcome = self.execute(&graph, Arc::new(environment), request.verify_reproducible, progress).await?;
        let parts = self.parts(&graph, &outcome, &platforms, &request, &fetcher)?;
        let result = BuildResult { parts, epoch, indexed: platforms.indexed };
        self.finish_build(result, request, outcome, (&fetcher, progress, &cancel)).await
    }

    /// Gives the build the proxies of Docker's settings, as `docker build` does; a build argument of the same name, however it is spelled, wins.
    fn add_proxies(&self, request: &mut BuildRequest, progress: &Progress) {
        match self.configured_proxies() {
            Ok(proxies) => {
                let args = &mut request.build_args;
                let new: Vec<_> =
                    proxies.into_iter().filter(|(name, _)| !args.keys().any(|given| given.eq_ignore_ascii_case(name))).collect();
                args.extend(new.into_iter().map(|(name, value)| (name.to_owned(), value)));
            }
            // A build may do without them, and whoever cannot read the file may not know of it.
            Err(error) => progress.warn(format!("no proxies are taken from Docker's settings: {error}")),
        }
    }

    /// Reads the Dockerfile, and what there is of the user's files.
    async fn read_build(
        &self,
        request: &mut BuildRequest,
        lease: &Arc<Lease>,
        progress: &Progress,
        cancel: &CancellationToken,
    ) -> Result<(Read, Remotes), Error> {
        let phase = progress.phase("read");
        let agent = request.steps.ssh.get(GIT_AGENT).cloned();
        let remotes = self.remotes(Some(lease.clone()), request.secrets.clone(), agent, progress);
        let context = keep_git_dir(std::mem::replace(&mut request.context, ContextSource::Stdin), &request.build_args);
        let given = std::mem::take(&mut request.named_contexts);
        let has_time = request.reproducible || request.build_args.get(SOURCE_DATE_EPOCH).is_some_and(|value| !value.is_empty());
        let (context, given) = if has_time { dated(context, given) } else { (context, given) };
        let dockerfile = std::mem::replace(&mut request.dockerfile, DockerfileSource::Default);
        let input = self.read_input(context, dockerfile, &remotes, cancel).await?;
        drop(phase);
        let _phase = progress.phase("parse");
        let syntax = request.build_args.get(SYNTAX_ARGUMENT).map(String::as_str);
        let parsed = parse_with(&input.file, ParseOptions { syntax });
        let argument = request.build_args.get(CHECK_ARGUMENT).map(String::as_str);
        match Checks::new(&parsed.dockerfile, argument) {
            Ok(checks) => Ok((Read { input, parsed, checks, given }, remotes)),
            Err(error) => Err(Error::Diagnostics(parsed.diagnostics.into_iter().chain([error]).collect())),
        }
    }

    /// Plans what was read, for all platforms.
    async fn plan_read(
        &self,
        request: &BuildRequest,
        read: &Read,
        platforms: &Platforms,
        sources: &BuildSources,
        (progress, cancel): (&Progress, &CancellationToken),
    ) -> Result<Plan, Error> {
        let rules = LazyRules::new(&read.input);
        let contexts = named_contexts(&read.given).with_main(read.input.context.remote());
        let policy = if request.pull { PullPolicy::Always } else { PullPolicy::Missing };
        let ignored = |path: &str| rules.hide(path);
        let plan_request = PlanRequest {
            dockerfile: &read.parsed.dockerfile,
            target: request.target.as_deref(),
            build_args: &request.build_args,
            labels: &request.labels,
            contexts: &contexts,
            target_platform: platforms.all[0].clone(),
            implicit_platform: platforms.implicit,
            one_of_several: platforms.all.len() > 1,
            build_platform: Platform::host(),
            network: request.network,
            extra_hosts: request.steps.extra_hosts.iter().map(|(name, _)| name.clone()).collect(),
            entitlements: request.entitlements.clone(),
            no_cache: request.no_cache || request.verify_reproducible,
            no_cache_filter: &request.no_cache_filter,
            checks: CheckScope { all_stages: false, ignored: Some(&ignored) },
        };
        let (named, store) = (remote_contexts(&read.given), &self.store);
        let origins = Origins { context: &read.input.context, named: &named, sources, store, cancel, progress };
        self.plan_build(plan_request, platforms, request.reproducible, (sources, policy), &origins).await
    }

    /// Runs the steps; where the result is to be verified, twice.
    async fn execute(
        &self,
        graph: &Arc<BuildGraph>,
        environment: Arc<Environment>,
        verify: bool,
        progress: &Progress,
    ) -> Result<Outcome, Error> {
        let started = starting_time();
        let outcome = executor::run(graph.clone(), environment.clone()).await?;
        if !verify {
            return Ok(outcome);
        }
        progress.message("building a second time, to compare");
        environment.start_over();
        let second = executor::run(graph.clone(), environment.clone()).await?;
        let latest = environment.times.latest().unwrap_or(started);
        let (store, graph) = (self.store.clone(), graph.clone());
        blocking(move || compare(&store, &graph, &outcome, &second, latest).map(|()| second)).await
    }

    /// What the steps came to, for each platform.
    fn parts(
        &self,
        graph: &BuildGraph,
        outcome: &Outcome,
        platforms: &Platforms,
        request: &BuildRequest,
        fetcher: &CacheFetcher,
    ) -> Result<Vec<PlatformResult>, Error> {
        let inline = request.cache_to.iter().find(|target| target.to == CacheDestination::Inline);
        let mut parts = Vec::with_capacity(graph.targets.len());
        for (at, (target, output)) in graph.targets.iter().zip(&outcome.outputs).enumerate() {
            let mut config = target.config.clone();
            // A cache that came with the base image says nothing of this one.
            config.other.remove(INLINE_FIELD);
            if let Some(cache) = inline {
                let keys = |step: &_| fetcher.keys_for(step, cache, &request.tags);
                add_inline(&self.store, &mut config, at, &outcome.steps, &keys)?;
            }
            let platform = if platforms.implicit { config.platform().normalised() } else { platforms.all[at].clone() };
            parts.push(PlatformResult { platform, config, snapshots: output.snapshots.clone() });
        }
        Ok(parts)
    }

    /// Makes the images, and brings them and the cache to where they were asked for.
    async fn finish_build(
        &self,
        result: BuildResult,
        mut request: BuildRequest,
        outcome: Outcome,
        (fetcher, progress, cancel): (&CacheFetcher, &Progress, &CancellationToken),
    ) -> Result<BuildOutcome, Error> {
        let (epoch, tags) = (result.epoch, &request.tags);
        let phase = progress.phase("assemble");
        let mut versions = self.versions(&result, &request.outputs, tags, progress).await?;
        drop(phase);
        if let Some(command) = &request.test {
            for (platform, image) in versions[0].images() {
                let platform = Some(platform).filter(|_| result.parts.len() > 1);
                self.test_image(image, platform, command, cancel, progress).await?;
            }
        }
        self.name_versions(&mut versions, &request.outputs, tags, epoch, progress).await?;
        let named = self.deliver(&mut versions, epoch, tags, &mut request.outputs, progress).await?;
        // There is always an output, and what the first one is of is the result.
        let mut delivered = versions.swap_remove(0);
        self.export_caches(&request.cache_to, &outcome.steps, fetcher, progress).await?;
        let wants_root = request.want_manifest || (result.indexed && request.want_index);
        if wants_root && delivered.root.is_none() {
            let packing = Output::store();
            self.settle(&mut delivered, &packing, epoch, "the image".into(), progress).await?;
        }
        let mut names = kept_names(&request.outputs, tags).unwrap_or_default();
        names.extend(named.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
        let given_names = given_names(&request.outputs, tags);
        let platform = |(platform, image): (&Platform, &ImageRecord)| PlatformOutcome { platform: platform.clone(), id: image.id.clone() };
        let platforms = if result.indexed { delivered.images().map(platform).collect() } else { Vec::new() };
        let (image, manifest) = (delivered.image().clone(), delivered.root);
        Ok(BuildOutcome { image, platforms, manifest, names, given_names, cached: outcome.cached, executed: outcome.executed })
    }
}
