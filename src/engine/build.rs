//! Building: Dockerfile to graph, graph to snapshots, snapshots to an image and whatever else was asked for.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::future::try_join_all;

use crate::cache::BuildCache;
use crate::cache::portable::INLINE_FIELD;
use crate::context::{Archive, ChecksumMemo, FileStamp, LocalContext, SeenMemo, StdinInput, sniff_stdin};
use crate::diag::{Diagnostic, Secret, SourceFile};
use crate::executor::{self, Environment, FailedSlot, FileTimes, StepSettings};
use crate::graph::{
    BuildGraph, CheckScope, ContextName, Entitlements, GitSource, NamedContext, NamedContexts, NetworkMode, Op, PlanRequest, Planned,
    RemoteTree, ResolvedImages, SOURCE_DATE_EPOCH, SourceOp, plan,
};
use crate::image::blobs::ensure_manifest;
use crate::image::load::Layout;
use crate::oci::{Descriptor, Platform, Reference};
use crate::parser::{Checks, ParseOptions, parse_with};
use crate::progress::Progress;
use crate::store::{ActiveSnapshot, ImageRecord, Store};
use crate::task::{CancellationToken, blocking};

use super::build_cache::{CacheDestination, CacheSource, CacheTarget};
use super::cache_export::add_inline;
use super::call::{CHECK_ARGUMENT, LazyRules, SYNTAX_ARGUMENT, warnings_of};
use super::epoch::{Epoch, Origins, build_epoch, with_commit_times};
use super::network::networks;
use super::outputs::{self, BuildResult, Output, given_names, kept_names};
use super::remote::{GIT_AGENT, Remotes};
use super::sources::PullPolicy;
use super::verify::{compare, starting_time};
use super::{Engine, Error};

/// Where the files of a build come from.
#[derive(Debug)]
pub enum ContextSource {
    /// A directory.
    Directory(PathBuf),
    /// Standard input: a tar archive, or a Dockerfile without files.
    Stdin,
    /// A git repository, or what a web server has: an archive, or a Dockerfile without files.
    Remote(RemoteTree),
}

/// What `--build-context NAME=…` gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildContext {
    /// A directory.
    Directory(PathBuf),
    /// An image.
    Image(Reference),
    /// An image in a directory.
    Layout(Layout),
    /// Nothing.
    Scratch,
    /// Files of a git repository or from a web server.
    Remote(RemoteTree),
}

/// Where the Dockerfile is.
#[derive(Clone, Debug)]
pub enum DockerfileSource {
    /// `Dockerfile` in the context.
    Default,
    /// A path; a relative one is tried from the current directory, then from the context.
    Path(PathBuf),
    /// Standard input.
    Stdin,
}

/// A build.
#[derive(Debug)]
pub struct BuildRequest {
    /// The files.
    pub context: ContextSource,
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// What takes the place of stages and images, by their names.
    pub named_contexts: Vec<(ContextName, BuildContext)>,
    /// The image's names.
    pub tags: Vec<Reference>,
    /// The stage to build.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// Whether nothing is taken from the cache.
    pub no_cache: bool,
    /// The stages that take nothing from the cache, by name or number.
    pub no_cache_filter: Vec<String>,
    /// The caches of other machines that steps are looked up in.
    pub cache_from: Vec<CacheSource>,
    /// Where the steps go for other machines.
    pub cache_to: Vec<CacheTarget>,
    /// Whether what became of each step's lookup is told.
    pub explain: bool,
    /// Whether base images are looked up again although they are here.
    pub pull: bool,
    /// The network of `RUN` steps that do not name one.
    pub network: NetworkMode,
    /// The platform to build for; without one it is this machine's, or that of the base image.
    pub platform: Option<Platform>,
    /// Secrets, by name.
    pub secrets: BTreeMap<String, Secret<Vec<u8>>>,
    /// What `RUN` may ask for beyond its sandbox.
    pub entitlements: Entitlements,
    /// What all `RUN` steps get.
    pub steps: StepSettings,
    /// Where the first `RUN` step that fails is left, where somebody wants to look at it.
    pub failed: Option<FailedSlot>,
    /// What becomes of the result; nothing named means [`Output::store`].
    pub outputs: Vec<Output>,
    /// Whether the result is to be the same wherever and whenever it is built: times are those of `SOURCE_DATE_EPOCH`, or else of the context's git commit.
    pub reproducible: bool,
    /// Whether it is built twice, without the cache, and fails where that gives two results.
    pub verify_reproducible: bool,
    /// A command that is run in the image when it is built: where it fails, the image is named and sent nowhere.
    pub test: Option<String>,
    /// Whether the outcome is to have the manifest, even if its layers must be compressed for that alone.
    pub want_manifest: bool,
}

/// A build that succeeded.
#[derive(Clone, Debug)]
pub struct BuildOutcome {
    /// The image.
    pub image: ImageRecord,
    /// The image's manifest, where it was made.
    pub manifest: Option<Descriptor>,
    /// The names under which the image is in the store now.
    pub names: Vec<Reference>,
    /// All the names that it has somewhere: in the store, in an archive, in a registry.
    pub given_names: Vec<Reference>,
    /// How many steps were taken from the cache.
    pub cached: usize,
    /// How many steps ran.
    pub executed: usize,
}

/// What was read of the user's input.
pub(super) struct Input {
    pub(super) file: SourceFile,
    /// The Dockerfile on disk, for its ignore file.
    pub(super) path: Option<PathBuf>,
    pub(super) context: Context,
    pub(super) name: String,
}

/// The files of a build, before it is known whether any step wants them.
pub(super) enum Context {
    Directory(PathBuf),
    /// Unpacked in a snapshot that is never committed.
    Archive(Box<LocalContext>, ActiveSnapshot),
    /// Not on this machine: the graph has it.
    Remote(RemoteTree),
    None,
}

impl Context {
    /// Where the files are, if not on this machine.
    pub(super) fn remote(&self) -> Option<RemoteTree> {
        match self {
            Context::Remote(tree) => Some(tree.clone()),
            _ => None,
        }
    }
}

impl Engine {
    /// Builds. What there is to tell about the Dockerfile is in `warnings` as soon as it is known, whatever becomes of the build; what an error tells of is not.
    ///
    /// # Errors
    /// Everything that can go wrong with a build. The cache keeps what was finished, the store is good.
    pub async fn build(
        &self,
        request: BuildRequest,
        progress: &Progress,
        cancel: CancellationToken,
        warnings: &mut Vec<Diagnostic>,
    ) -> Result<BuildOutcome, Error> {
        let spawner = self.spawner.clone().ok_or_else(|| Error::Usage { message: "this engine cannot run steps".into(), hint: None })?;
        let mut outputs = if request.outputs.is_empty() { vec![Output::store()] } else { request.outputs };
        outputs::check(&outputs, &request.tags)?;
        let lease = Arc::new(self.store.lease()?);
        let _held = lease.clone();
        let phase = progress.phase("read");
        let agent = request.steps.ssh.get(GIT_AGENT).cloned();
        let remotes = self.remotes(Some(lease.clone()), request.secrets.clone(), agent, progress);
        let context = keep_git_dir(request.context, &request.build_args);
        let has_time = request.reproducible || request.build_args.get(SOURCE_DATE_EPOCH).is_some_and(|value| !value.is_empty());
        let (context, given) = if has_time { dated(context, request.named_contexts) } else { (context, request.named_contexts) };
        let input = self.read_input(context, request.dockerfile, &remotes, &cancel).await?;
        drop(phase);
        let phase = progress.phase("parse");
        let syntax = request.build_args.get(SYNTAX_ARGUMENT).map(String::as_str);
        let parsed = parse_with(&input.file, ParseOptions { syntax });
        let argument = request.build_args.get(CHECK_ARGUMENT).map(String::as_str);
        let checks = match Checks::new(&parsed.dockerfile, argument) {
            Ok(checks) => checks,
            Err(error) => return Err(Error::Diagnostics(parsed.diagnostics.into_iter().chain([error]).collect())),
        };
        let found = |graph: &[Diagnostic]| warnings_of(&checks, &parsed.dockerfile, &parsed.diagnostics, graph);
        if parsed.diagnostics.iter().any(Diagnostic::is_error) {
            return Err(Error::Diagnostics(found(&[])));
        }
        *warnings = found(&[]);
        drop(phase);
        let phase = progress.phase("plan");
        let rules = LazyRules::new(&input);
        let contexts = named_contexts(&given).with_main(input.context.remote());
        let sources = Arc::new(self.build_sources(layouts(&given), remotes));
        let policy = if request.pull { PullPolicy::Always } else { PullPolicy::Missing };
        let ignored = |path: &str| rules.hide(path);
        let plan_request = PlanRequest {
            dockerfile: &parsed.dockerfile,
            target: request.target.as_deref(),
            build_args: &request.build_args,
            labels: &request.labels,
            contexts: &contexts,
            target_platform: request.platform.clone().unwrap_or_else(Platform::host),
            implicit_platform: request.platform.is_none(),
            build_platform: Platform::host(),
            network: request.network,
            extra_hosts: request.steps.extra_hosts.iter().map(|(name, _)| name.clone()).collect(),
            entitlements: request.entitlements,
            no_cache: request.no_cache || request.verify_reproducible,
            no_cache_filter: &request.no_cache_filter,
            checks: CheckScope { all_stages: false, ignored: Some(&ignored) },
        };
        let (named, store) = (remote_contexts(&given), &self.store);
        let origins = Origins { context: &input.context, named: &named, sources: &*sources, store, cancel: &cancel, progress };
        let epoch = build_epoch(&plan_request, request.reproducible, &origins).await;
        let Epoch { seconds: epoch, build_args } = match epoch {
            Err(Error::Diagnostics(errors)) => {
                warnings.clear();
                return Err(Error::Diagnostics(found(&errors)));
            }
            epoch => epoch?,
        };
        let plan_request = PlanRequest { build_args: &build_args, ..plan_request };
        let graph = match self.plan(&plan_request, &sources, policy, progress).await {
            Err(Error::Diagnostics(errors)) => {
                warnings.clear();
                return Err(Error::Diagnostics(found(&errors)));
            }
            planned => Arc::new(planned?),
        };
        *warnings = found(&graph.warnings);
        let rules = checks.fatal(warnings);
        if !rules.is_empty() {
            return Err(Error::Checks { rules, warnings: std::mem::take(warnings) });
        }
        let name = format!("{}\0{}", input.name, request.target.as_deref().unwrap_or(""));
        drop(phase);
        let context = open_context(input.context, input.path.as_deref(), &graph)?;
        let (imports, fetcher) = self.import_caches(&request.cache_from, &plan_request.target_platform, progress).await;
        let cancelled = cancel.clone();
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
            checksums: Arc::new(SeenMemo::new(StoreMemo(self.store.clone(), AtomicU64::new(0)))),
            sources,
            network: networks(&self.options, progress, &request.steps.extra_hosts),
            secrets: request.secrets,
            steps: request.steps,
            failed: request.failed,
            emptied: Mutex::default(),
            confinement_told: std::sync::Once::new(),
            logs: self.store.build_logs()?,
            progress: progress.clone(),
            lease,
            cancel,
        };
        let environment = Arc::new(environment);
        let started = starting_time();
        let mut outcome = executor::run(graph.clone(), environment.clone()).await?;
        if request.verify_reproducible {
            progress.message("building a second time, to compare");
            environment.start_over();
            let second = executor::run(graph.clone(), environment.clone()).await?;
            let latest = environment.times.latest().unwrap_or(started);
            let (store, graph) = (self.store.clone(), graph.clone());
            outcome = blocking(move || compare(&store, &graph, &outcome, &second, latest).map(|()| second)).await?;
        }
        let mut config = graph.config.clone();
        // A cache that came with the base image says nothing of this one.
        config.other.remove(INLINE_FIELD);
        if let Some(target) = request.cache_to.iter().find(|target| target.to == CacheDestination::Inline) {
            let keys = |step: &_| fetcher.keys_for(step, target, &request.tags);
            add_inline(&self.store, &mut config, &outcome.steps, &keys)?;
        }
        let result = BuildResult { config, snapshots: outcome.output.snapshots, epoch };
        let phase = progress.phase("assemble");
        let mut versions = self.versions(&result, &mut outputs, &request.tags, progress).await?;
        drop(phase);
        if let Some(command) = &request.test {
            self.test_image(&versions[0].image, command, &cancelled, progress).await?;
        }
        self.name_versions(&versions)?;
        let named = self.deliver(&mut versions, epoch, &request.tags, &mut outputs, progress).await?;
        // There is always an output, and what the first one is of is the result.
        let mut delivered = versions.swap_remove(0);
        self.export_caches(&request.cache_to, &outcome.steps, &fetcher, progress).await?;
        if request.want_manifest && delivered.manifest.is_none() {
            let (store, image) = (self.store.clone(), delivered.image.clone());
            let failed = |source| Error::Image { action: "pack", name: "the image".into(), source };
            delivered.manifest = Some(blocking(move || ensure_manifest(&store, &image)).await.map_err(failed)?.descriptor);
        }
        let (image, manifest) = (delivered.image, delivered.manifest);
        let mut names = kept_names(&outputs, &request.tags).unwrap_or_default();
        names.extend(named.into_iter().filter(|name| !names.contains(name)).collect::<Vec<_>>());
        let given_names = given_names(&outputs, &request.tags);
        Ok(BuildOutcome { image, manifest, names, given_names, cached: outcome.cached, executed: outcome.executed })
    }

    /// Reads the Dockerfile, wherever it is, and finds the files of the build.
    pub(super) async fn read_input(
        &self,
        context: ContextSource,
        dockerfile: DockerfileSource,
        remotes: &Remotes,
        cancel: &CancellationToken,
    ) -> Result<Input, Error> {
        match context {
            ContextSource::Remote(tree) => remotes.read_input(tree, dockerfile, cancel).await,
            // One small file, read in less time than another thread would need to begin.
            ContextSource::Directory(_) if !matches!(dockerfile, DockerfileSource::Stdin) => read_input(context, dockerfile, &self.store),
            context => {
                let store = self.store.clone();
                blocking(move || read_input(context, dockerfile, &store)).await
            }
        }
    }

    /// Plans, fetching the configs of base images until the graph is complete.
    async fn plan(
        &self,
        request: &PlanRequest<'_>,
        sources: &super::sources::BuildSources,
        policy: PullPolicy,
        progress: &Progress,
    ) -> Result<BuildGraph, Error> {
        let mut images = ResolvedImages::new();
        loop {
            match plan(request, &images).map_err(Error::Diagnostics)? {
                Planned::Ready(graph) => return Ok(*graph),
                Planned::NeedsImages(needs) => {
                    let found = try_join_all(needs.iter().map(|need| sources.resolve(need, policy, progress))).await?;
                    for (need, image) in needs.into_iter().zip(found) {
                        images.insert(need.key(), image);
                    }
                }
            }
        }
    }
}

/// The context as steps read it, and what must live as long.
struct OpenContext {
    tree: Option<Arc<LocalContext>>,
    _dir: Option<ActiveSnapshot>,
}

/// Opens the context if a step reads it: a build without COPY does not care what is in its directory.
fn open_context(context: Context, dockerfile: Option<&Path>, graph: &BuildGraph) -> Result<OpenContext, Error> {
    let wanted = graph.nodes().any(|id| matches!(graph.node(id).op, Op::Source(SourceOp::Context { name: None })));
    match context {
        Context::Directory(dir) if wanted => Ok(OpenContext { tree: Some(Arc::new(LocalContext::open(&dir, dockerfile)?)), _dir: None }),
        Context::Archive(tree, dir) => Ok(OpenContext { tree: Some(Arc::new(*tree)), _dir: Some(dir) }),
        Context::Directory(_) | Context::Remote(_) | Context::None => Ok(OpenContext { tree: None, _dir: None }),
    }
}

/// The named contexts, as far as the graph knows them.
pub(super) fn named_contexts(given: &[(ContextName, BuildContext)]) -> NamedContexts {
    let kind = |context: &BuildContext| match context {
        BuildContext::Directory(_) => NamedContext::Directory,
        BuildContext::Image(reference) => NamedContext::Image(reference.clone()),
        BuildContext::Layout(_) => NamedContext::Layout,
        BuildContext::Scratch => NamedContext::Scratch,
        BuildContext::Remote(tree) => NamedContext::Remote(tree.clone()),
    };
    given.iter().map(|(name, context)| (name.clone(), kind(context))).collect()
}

/// The named contexts that are directories with an image, by name.
pub(super) fn layouts(given: &[(ContextName, BuildContext)]) -> BTreeMap<String, Layout> {
    let layout = |(name, context): &(ContextName, BuildContext)| match context {
        BuildContext::Layout(layout) => Some((name.to_string(), layout.clone())),
        _ => None,
    };
    given.iter().filter_map(layout).collect()
}

/// Opens the named contexts that a step reads, each with the ignore file that it has itself.
fn open_named(given: &[(ContextName, BuildContext)], graph: &BuildGraph) -> Result<BTreeMap<String, Arc<LocalContext>>, Error> {
    let mut opened = BTreeMap::new();
    let named = |id| match &graph.node(id).op {
        Op::Source(SourceOp::Context { name }) => name.clone(),
        _ => None,
    };
    for wanted in graph.nodes().filter_map(named) {
        // The last one of a name counts.
        let found = given.iter().rev().find(|(name, _)| name.to_string() == wanted);
        let Some((name, BuildContext::Directory(dir))) = found else { continue };
        let context = LocalContext::open(dir, None).map_err(|source| Error::NamedContext { name: name.to_string(), source })?;
        opened.insert(wanted, Arc::new(context));
    }
    Ok(opened)
}

fn read_input(context: ContextSource, dockerfile: DockerfileSource, store: &Store) -> Result<Input, Error> {
    match (context, dockerfile) {
        (ContextSource::Stdin, DockerfileSource::Stdin) => {
            let hint = "one of them must come from a file".to_owned();
            Err(Error::Usage { message: "context and Dockerfile cannot both be standard input".into(), hint: Some(hint) })
        }
        (ContextSource::Stdin, dockerfile) => match sniff_stdin(std::io::stdin())? {
            StdinInput::Dockerfile(text) => {
                Ok(Input { file: SourceFile::new("-", text), path: None, context: Context::None, name: "stdin".into() })
            }
            StdinInput::Archive(archive) => read_archive(archive, dockerfile, store),
        },
        (ContextSource::Remote(tree), _) => Err(Error::Usage { message: format!("`{tree}` is not on this machine"), hint: None }),
        (ContextSource::Directory(dir), DockerfileSource::Stdin) => {
            check_directory(&dir)?;
            let file = read_stdin()?;
            let name = dir.canonicalize().unwrap_or_else(|_| dir.clone()).display().to_string();
            Ok(Input { file, path: None, context: Context::Directory(dir), name })
        }
        (ContextSource::Directory(dir), dockerfile) => {
            check_directory(&dir)?;
            let path = find_dockerfile(&dir, &dockerfile);
            let file = read_dockerfile(&path)?;
            let name = dir.canonicalize().unwrap_or_else(|_| dir.clone());
            let name = format!("{}\0{}", name.display(), path.display());
            Ok(Input { file, path: Some(path), context: Context::Directory(dir), name })
        }
    }
}

/// A Dockerfile from standard input.
pub(super) fn read_stdin() -> Result<SourceFile, Error> {
    let mut bytes = Vec::new();
    read_bounded(std::io::stdin().lock(), &mut bytes).map_err(|source| Error::Dockerfile { path: "-".into(), source })?;
    Ok(SourceFile::from_bytes("-", bytes))
}

/// `--build-arg BUILDKIT_CONTEXT_KEEP_GIT_DIR`: the context keeps its `.git`.
pub(super) fn keep_git_dir(context: ContextSource, build_args: &BTreeMap<String, String>) -> ContextSource {
    let is_on = build_args.get(KEEP_GIT_ARGUMENT).is_some_and(|value| matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"));
    match context {
        ContextSource::Remote(RemoteTree::Git(source)) if is_on => {
            ContextSource::Remote(RemoteTree::Git(GitSource { keep_git_dir: Some(true), ..source }))
        }
        context => context,
    }
}

/// Contexts with the time of the commit where they are from git.
fn dated(context: ContextSource, named: Vec<(ContextName, BuildContext)>) -> (ContextSource, Vec<(ContextName, BuildContext)>) {
    let context = match context {
        ContextSource::Remote(tree) => ContextSource::Remote(with_commit_times(tree)),
        context => context,
    };
    let dated = |context| match context {
        BuildContext::Remote(tree) => BuildContext::Remote(with_commit_times(tree)),
        context => context,
    };
    (context, named.into_iter().map(|(name, context)| (name, dated(context))).collect())
}

/// The named contexts that are not on this machine, by name.
fn remote_contexts(given: &[(ContextName, BuildContext)]) -> BTreeMap<String, RemoteTree> {
    let remote = |(name, context): &(ContextName, BuildContext)| match context {
        BuildContext::Remote(tree) => Some((name.to_string(), tree.clone())),
        _ => None,
    };
    given.iter().filter_map(remote).collect()
}

/// The build argument that keeps `.git` in a context from git.
const KEEP_GIT_ARGUMENT: &str = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";

fn check_directory(dir: &Path) -> Result<(), Error> {
    // Opening says what is wrong with it in words, whether a step reads it or not.
    LocalContext::with_rules(dir, crate::context::IgnoreRules::default(), crate::context::Owners::Root)?;
    Ok(())
}

pub(super) fn find_dockerfile(dir: &Path, dockerfile: &DockerfileSource) -> PathBuf {
    match dockerfile {
        DockerfileSource::Path(path) if path.is_absolute() || path.exists() || !dir.join(path).exists() => path.clone(),
        DockerfileSource::Path(path) => dir.join(path),
        _ => {
            let (upper, lower) = (dir.join("Dockerfile"), dir.join("dockerfile"));
            if !upper.exists() && lower.exists() { lower } else { upper }
        }
    }
}

/// How large a Dockerfile may be: far more than anyone writes, and far less than `/dev/zero`.
const MAX_DOCKERFILE: u64 = 256 << 20;

pub(super) fn read_bounded(reader: impl Read, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    reader.take(MAX_DOCKERFILE + 1).read_to_end(bytes)?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", MAX_DOCKERFILE >> 20)));
    }
    Ok(())
}

pub(super) fn read_dockerfile(path: &Path) -> Result<SourceFile, Error> {
    let failed = |source| Error::Dockerfile { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    read_bounded(std::fs::File::open(path).map_err(failed)?, &mut bytes).map_err(failed)?;
    let name = path.strip_prefix("./").unwrap_or(path).display().to_string();
    Ok(SourceFile::from_bytes(name, bytes))
}

fn read_archive(archive: Archive, dockerfile: DockerfileSource, store: &Store) -> Result<Input, Error> {
    let dir = store.prepare()?;
    let context = archive.into_context(&dir.fs_path())?;
    let relative = match dockerfile {
        DockerfileSource::Path(path) => path,
        _ => PathBuf::from("Dockerfile"),
    };
    // Read through the tree, so that a link in the archive cannot name a file of this machine.
    let in_tree = crate::path::RootPath::new(&relative);
    let failed = |source| Error::Dockerfile { path: relative.clone(), source };
    let resolved = crate::sys::tree::resolve(&context, &in_tree, crate::sys::tree::LastLink::Follow).map_err(failed)?;
    let file = crate::sys::tree::Tree::open(&context, &resolved).map_err(failed)?;
    let mut bytes = Vec::new();
    read_bounded(file, &mut bytes).map_err(failed)?;
    let file = SourceFile::from_bytes(relative.display().to_string(), bytes);
    Ok(Input { file, path: None, context: Context::Archive(Box::new(context), dir), name: "stdin".into() })
}

/// The store's table of checksums, as the context wants it. What the store cannot say is computed.
struct StoreMemo(Store, AtomicU64);

impl ChecksumMemo for StoreMemo {
    fn get_many(&self, stamps: &[FileStamp]) -> Vec<Option<[u8; 32]>> {
        let stamps: Vec<_> = stamps.iter().map(store_stamp).collect();
        self.0.checksums(&stamps).unwrap_or_else(|_| vec![None; stamps.len()])
    }

    fn put_many(&self, digests: &[(FileStamp, [u8; 32])]) {
        let digests: Vec<_> = digests.iter().map(|(stamp, digest)| (store_stamp(stamp), *digest)).collect();
        if let Err(error) = self.0.remember_checksums(&digests) {
            tracing::warn!(%error, "checksums cannot be remembered");
        }
    }

    fn hashed(&self, bytes: u64) {
        self.1.fetch_add(bytes, Ordering::Relaxed);
    }

    fn hashed_so_far(&self) -> u64 {
        self.1.load(Ordering::Relaxed)
    }
}

fn store_stamp(stamp: &FileStamp) -> crate::store::FileStamp {
    crate::store::FileStamp { dev: stamp.dev, ino: stamp.ino, size: stamp.size, mtime: stamp.mtime, ctime: stamp.ctime }
}
