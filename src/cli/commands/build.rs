//! `strake build`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args, Subcommand};

use crate::cli::call::{self, CallFlag, call_flag};
use crate::cli::render::{Observer, Profile, ProgressMode, Summary, observed, progress};
use crate::cli::{Global, env, report, settler};
use crate::engine::{BuildContext, BuildOutcome, BuildRequest, Call, ContextSource, DockerfileSource, Engine, Error, Output};
use crate::engine::{CacheDestination, CacheTarget, PlatformOutcome};
use crate::executor::{FailedSlot, StepSettings};
use crate::graph::ContextName;
use crate::oci::{Platform, Reference};
use crate::progress::Progress;
use crate::runtime::Spawner;
use crate::task::CancellationToken;

use super::build_cache::{Sources as CacheSources, cache_from, cache_to};
use super::build_context::main_context;
use super::build_logs::BuildLogsArgs;
use super::failed_shell::{self, OnError};
use super::legacy_flags::LegacyFlags;
use super::secret_flag::{self, SecretFlag};
use super::step_flags::StepFlags;
use super::{STOPPED, outputs, with_any_store, with_engine};

// Flags of `strake build`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(in crate::cli) struct BuildArgs {
    #[command(subcommand)]
    command: Option<BuildCommand>,
    /// The files to build from: a directory, `-` for an archive or a Dockerfile on standard input, a git repository (`https://HOST/PATH.git#REF:DIR`),
    /// or the address of an archive or a Dockerfile
    #[arg(required = true)]
    context: Option<PathBuf>,
    /// A name of the image, `NAME[:TAG]` (may be given several times)
    #[arg(short, long = "tag", value_name = "NAME[:TAG]", value_parser = reference)]
    tag: Vec<Reference>,
    /// The Dockerfile [default: Dockerfile in the context]; `-` is standard input, an address of a web server a file there
    #[arg(short, long, value_name = "FILE", value_parser = path())]
    file: Option<PathBuf>,
    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Run this in the image when it is built, by its shell or, as a JSON array, as it is; where it fails, the build fails, and nothing is tagged, sent or written
    #[arg(long, value_name = "COMMAND")]
    test: Option<String>,
    /// A value of an ARG; without `=`, that of the environment (may be given several times)
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// What stands in for a stage or image: a directory, `docker-image://REF`, `oci-layout://DIR[:TAG|@DIGEST]`, or the address of a git repository or
    /// an archive (may be given several times)
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::build_context::parse)]
    build_context: Vec<(ContextName, BuildContext)>,
    /// A label of the image (may be given several times)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Take no step from the cache
    #[arg(long, value_name = "BOOL", value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true)]
    no_cache: bool,
    /// Take no step of these stages from the cache: names or numbers (comma-separated; may be given several times)
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// A cache to take steps from: `type=local,src=DIR[,tag=TAG|,digest=DIGEST]`, `type=registry,ref=NAME`, or NAME (may be given several times)
    #[arg(long, value_name = "SPEC", value_parser = cache_from)]
    cache_from: Vec<CacheSources>,
    /// Where the cache goes: `type=local,dest=DIR`, `type=registry,ref=NAME` or `type=inline`, with `mode=min|max` and other keys (may be given several times)
    #[arg(long, value_name = "SPEC", value_parser = cache_to)]
    cache_to: Vec<Option<CacheTarget>>,
    /// Say of every step whether and how it was found in a cache, and all that is different where it was not
    #[arg(long, value_name = "BOOL", value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true)]
    explain: bool,
    /// Give the same image wherever and whenever it is built: times are those of SOURCE_DATE_EPOCH, or else of the context's git commit
    #[arg(long, value_name = "BOOL", value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    reproducible: Option<bool>,
    /// Build twice, without the cache, and fail if the results differ, naming the step and the files
    #[arg(long, value_name = "BOOL", value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true)]
    verify_reproducible: bool,
    /// Look the base images up in their registries, even those that are here
    #[arg(long, value_name = "BOOL", value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true)]
    pull: bool,
    /// How to show progress
    #[arg(long, value_enum, default_value = "auto", env = env::if_set(env::PROGRESS), hide_env = true)]
    progress: ProgressMode,
    /// Show nothing but the image's ID
    #[arg(short, long, value_name = "BOOL", value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true)]
    quiet: bool,
    /// Write the image's ID to a file
    #[arg(long, value_name = "FILE", value_parser = path())]
    iidfile: Option<PathBuf>,
    /// Where the result goes: `type=local|tar|oci|docker|image|registry|cacheonly[,dest=PATH][,KEY=VALUE…]`, or a directory, or `-` (may be given several
    /// times) [default: the store]
    #[arg(short, long, value_name = "SPEC", value_parser = outputs::output_if_set)]
    output: Vec<Option<Output>>,
    /// Push the image to the registries of its names
    #[arg(long, value_name = "BOOL", value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true)]
    push: bool,
    /// Keep the image in the store, also where there are other outputs
    #[arg(long, value_name = "BOOL", value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true)]
    load: bool,
    /// An annotation: `KEY=VALUE`, or `PLACE[,PLACE…]:KEY=VALUE` with `manifest`, `manifest-descriptor`, `index`, `index-descriptor`, of which each may have a `[PLATFORM]`
    /// (may be given several times)
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    /// Write what came of the build (digests, names) to a file, as JSON
    #[arg(long, value_name = "FILE", value_parser = path())]
    metadata_file: Option<PathBuf>,
    #[command(flatten)]
    steps: StepFlags,
    /// What to do when a RUN step fails
    #[arg(long, value_enum, default_value = "fail", value_name = "ACTION")]
    on_error: OnError,
    /// The platforms to build for [default: this machine's]; for several, the result is an index (comma-separated; may be given several times)
    #[arg(long, env = env::if_set(env::DEFAULT_PLATFORM), hide_env = true, value_name = "OS/ARCH", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// What to do: `build`, or without building `check`, `outline` or `targets`; with `,format=json` the answer is JSON
    #[arg(long, value_name = "CALL", default_value = "build", value_parser = call_flag)]
    call: CallFlag,
    /// Run the build checks only, as `--call=check`
    #[arg(long, value_name = "BOOL", value_parser = boolean, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", hide_default_value = true)]
    check: bool,
    /// Write a profile of the build to a file: a Chrome trace, for the web page ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// A secret for RUN --mount=type=secret: `id=NAME[,src=FILE|,env=VARIABLE]` (may be given several times)
    #[arg(long, value_name = "SPEC", value_parser = secret_flag::secret)]
    secret: Vec<Option<SecretFlag>>,
    /// Only `false`: nothing is said about how the image was made
    #[arg(long, value_name = "BOOL", value_parser = attested)]
    provenance: Option<bool>,
    /// Only `false`: no list of what is in the image is made
    #[arg(long, value_name = "BOOL", value_parser = attested)]
    sbom: Option<bool>,
    #[command(flatten)]
    legacy: LegacyFlags,
}

// What else than building there is to do with builds.
#[derive(Debug, Subcommand)]
enum BuildCommand {
    /// Show what the steps of a build wrote
    Logs(BuildLogsArgs),
}

/// A path that a script may leave empty, which is none; otherwise clap would refuse it.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// A switch as Docker's flags have it: `--pull`, `--pull=false`.
pub(in crate::cli) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" | "t" | "T" | "1" => Ok(true),
        "false" | "False" | "FALSE" | "f" | "F" | "0" => Ok(false),
        _ => Err("expected true or false".into()),
    }
}

/// `--provenance` and `--sbom`: a switch, or fields of which one may be `disabled=true`.
fn attested(text: &str) -> Result<bool, String> {
    match boolean(text) {
        Ok(false) => Ok(false),
        _ if text.split(',').any(|field| field == "disabled=true") => Ok(false),
        _ => Err("attestations are not supported yet: leave the flag out, or give `false`".into()),
    }
}

fn reference(text: &str) -> Result<Reference, String> {
    let reference: Reference = text.parse().map_err(|error: crate::oci::ReferenceError| error.reason)?;
    if reference.digest().is_some() {
        return Err("an image gets its digest from its content; give a tag".into());
    }
    Ok(reference)
}

/// Runs `strake build`.
pub(in crate::cli) fn run(global: &Global, mut args: BuildArgs) -> ExitCode {
    for path in [&mut args.file, &mut args.iidfile, &mut args.metadata_file] {
        path.take_if(|path| path.as_os_str().is_empty());
    }
    if let Some(BuildCommand::Logs(args)) = &args.command {
        return super::build_logs::run(global, args);
    }
    let mode = args.mode();
    let fail = |error: Error| {
        report::error_as(mode, &error);
        ExitCode::FAILURE
    };
    match called(&args) {
        Ok(Some(flag)) => return answer(global, args, flag),
        Ok(None) => {}
        Err(error) => return fail(error),
    }
    let slot = match failed_shell::slot(args.on_error) {
        Ok(slot) => slot,
        Err(error) => return fail(error),
    };
    let quiet = args.quiet;
    let iidfile = args.iidfile.clone();
    let files = || [&args.iidfile, &args.metadata_file, &args.profile].into_iter().flatten();
    if let Err(error) = files().try_for_each(|path| check_writable(path)).and_then(|()| files().try_for_each(|path| forget(path))) {
        return fail(error);
    }
    // Before the runtime: where the process that starts sandboxes has to be forked, there must be one thread.
    let spawner = match Spawner::new() {
        Ok(spawner) => spawner,
        Err(error) => return fail(Error::Runtime(error)),
    };
    let result = with_engine(global, Some(spawner), |engine| build(engine, args, slot.clone()));
    let id = match result {
        Ok(id) => id,
        Err(error) => {
            let stopped = error.is_interruption();
            let failed = fail(error);
            if let Some(step) = slot.and_then(|slot| slot.take()).filter(|_| !stopped) {
                failed_shell::open(step);
            }
            return if stopped { ExitCode::from(STOPPED) } else { failed };
        }
    };
    if let Some(path) = iidfile
        && let Err(source) = std::fs::write(&path, &id)
    {
        return fail(Error::Io { action: "write", path, source });
    }
    if quiet {
        report::result(&id);
    }
    ExitCode::SUCCESS
}

/// Refuses a file that cannot be written at the end of a build before it begins.
fn check_writable(path: &Path) -> Result<(), Error> {
    let refused = |kind: std::io::ErrorKind| Err(Error::Io { action: "write", path: path.to_owned(), source: kind.into() });
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match std::fs::metadata(parent) {
        Ok(found) if !found.is_dir() => refused(std::io::ErrorKind::NotADirectory),
        Err(error) => refused(error.kind()),
        Ok(_) if path.is_dir() => refused(std::io::ErrorKind::IsADirectory),
        Ok(_) => Ok(()),
    }
}

/// Removes what an earlier build wrote: after a build that fails, nobody is to take it for this one's. Pipes and devices stay.
fn forget(path: &Path) -> Result<(), Error> {
    if !std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    std::fs::remove_file(path).map_err(|source| Error::Io { action: "remove", path: path.to_owned(), source })
}

impl BuildArgs {
    /// Whether `--debug` stands behind the command.
    pub(in crate::cli) fn is_debug(&self) -> bool {
        self.legacy.debug
    }

    /// Whether something else than a build is asked for.
    pub(in crate::cli) fn is_call(&self) -> bool {
        self.check || self.call.call.is_some()
    }

    /// How progress, findings and failures are shown.
    fn mode(&self) -> ProgressMode {
        if self.quiet { ProgressMode::Quiet } else { self.progress }
    }
}

/// What is asked for instead of a build, if anything.
fn called(args: &BuildArgs) -> Result<Option<CallFlag>, Error> {
    match (args.check, args.call.call) {
        (false, None) => Ok(None),
        (true, None) => Ok(Some(CallFlag::CHECK)),
        (true, Some(Call::Outline | Call::Targets)) => {
            let hint = Some("`--check` is `--call=check`".to_owned());
            Err(Error::Usage { message: "`--check` and `--call` ask for different things".into(), hint })
        }
        _ => Ok(Some(args.call)),
    }
}

/// Says something of a build instead of building. Flags that are about the result mean nothing here, but for the file that the answer goes to.
fn answer(global: &Global, args: BuildArgs, flag: CallFlag) -> ExitCode {
    let mode = args.mode();
    let metadata_file = args.metadata_file.clone();
    if let Some(path) = &metadata_file
        && let Err(error) = check_writable(path).and_then(|()| forget(path))
    {
        report::error_as(mode, &error);
        return ExitCode::FAILURE;
    }
    let (progress, call) = (progress(mode), flag.call.unwrap_or(Call::Check));
    let outcome = request(args).and_then(|request| {
        with_any_store(global, |engine| async move {
            let outcome = super::until_interrupted(engine.call(request, call, &progress)).await?;
            engine.finish(call == Call::Check)?;
            Ok(outcome)
        })
    });
    let outcome = outcome.and_then(|outcome| {
        metadata_file.map_or(Ok(()), |path| write_metadata(path, &call::metadata(&outcome)))?;
        Ok(outcome)
    });
    match outcome {
        Ok(outcome) => call::show(&outcome, flag),
        // No download is what stopped: the hint is that of a build.
        Err(Error::Interrupted) => {
            report::error_as(mode, &Error::Build(crate::executor::Error::Cancelled));
            ExitCode::from(STOPPED)
        }
        Err(error) => {
            report::error_as(mode, &error);
            ExitCode::FAILURE
        }
    }
}

/// Builds, and says in a line what came of it, or of as much as was done.
async fn build(engine: Engine, args: BuildArgs, failed: Option<FailedSlot>) -> Result<String, Error> {
    let (mode, profile_file) = (args.mode(), args.profile.clone());
    let summary = Arc::new(Summary::new());
    let profile = profile_file.as_ref().map(|_| Arc::new(Profile::new()));
    let observers = profile.iter().map(|profile| profile.clone() as Arc<dyn Observer>).chain([summary.clone() as Arc<dyn Observer>]);
    let progress = observed(mode, observers.collect());
    args.legacy.warnings().into_iter().chain(secret_flag::warnings(&args.secret)).for_each(|text| progress.warn(text));
    let result = build_with(&engine, args, failed, &progress).await;
    progress.close();
    let written =
        profile_file.zip(profile).map(|(path, profile)| profile.write(&path).map_err(|source| Error::Io { action: "write", path, source }));
    if let Some(line) = summary.line(result.as_ref().ok().map(|outcome| outcome.image.size)) {
        report::remark_as(mode, &line);
    }
    let outcome = result?;
    written.transpose()?;
    Ok(outcome.id())
}

async fn build_with(engine: &Engine, args: BuildArgs, failed: Option<FailedSlot>, progress: &Progress) -> Result<BuildOutcome, Error> {
    let mode = args.mode();
    let (metadata_file, gc) = (args.metadata_file.clone(), env::config()?.gc.settings());
    let request = BuildRequest { failed, ..request(args)? };
    let verified = request.verify_reproducible.then_some(request.reproducible);
    let interrupted = CancellationToken::new();
    let watcher = tokio::spawn(watch_signals(interrupted.clone()));
    let mut warnings = Vec::new();
    let outcome = tokio::select! {
        outcome = engine.build(request, progress, interrupted.child_token(), &mut warnings) => outcome,
        () = patience(&interrupted) => Err(Error::Build(crate::executor::Error::Cancelled)),
    };
    watcher.abort();
    // What is written from here on does not go through the renderer, which must not draw over it.
    progress.close();
    report::diagnostics_as(mode, &warnings);
    let outcome = outcome?;
    if !matches!(mode, ProgressMode::Quiet | ProgressMode::RawJson) {
        for name in &outcome.names {
            report::tell(&format!("naming to {name}"));
        }
        result_lines(&outcome).iter().for_each(|line| report::tell(line));
        report::verified(verified, &outcome);
    }
    let phase = progress.phase("settle");
    settler::finish_later(engine)?;
    drop(phase);
    if outcome.executed > 0
        && let Some(settings) = gc
        && let Err(error) = engine.collect_garbage(&settings)
    {
        // The build is done, and the next one tries again.
        report::remark_as(mode, &format!("warning: the build cache could not be pruned: {error}"));
    }
    if let Some(path) = metadata_file {
        write_metadata(path, &metadata(&outcome))?;
    }
    Ok(outcome)
}

fn write_metadata(path: PathBuf, metadata: &serde_json::Value) -> Result<(), Error> {
    std::fs::write(&path, format!("{metadata:#}\n")).map_err(|source| Error::Io { action: "write", path, source })
}

/// What was built: the image, or the index and its images.
fn result_lines(outcome: &BuildOutcome) -> Vec<String> {
    if outcome.platforms.is_empty() {
        return vec![format!("image {}", outcome.image.id)];
    }
    let index = outcome.manifest.iter().map(|index| format!("index {}", index.digest));
    index.chain(outcome.platforms.iter().map(|PlatformOutcome { platform, id }| format!("image {id} for {platform}"))).collect()
}

/// What `--metadata-file` says, in the words of `docker buildx build`.
fn metadata(outcome: &BuildOutcome) -> serde_json::Value {
    let mut metadata = serde_json::json!({});
    if outcome.platforms.is_empty() {
        metadata["containerimage.config.digest"] = outcome.image.id.to_string().into();
    }
    if let Some(manifest) = &outcome.manifest {
        metadata["containerimage.descriptor"] = serde_json::json!(manifest);
        metadata["containerimage.digest"] = manifest.digest.to_string().into();
    }
    if !outcome.given_names.is_empty() {
        let names: Vec<String> = outcome.given_names.iter().map(ToString::to_string).collect();
        metadata["image.name"] = names.join(",").into();
    }
    metadata
}

/// Ends some time after the user stopped the build: what still goes on by then (a read from a pipe that nobody writes to) is left behind.
async fn patience(interrupted: &CancellationToken) {
    interrupted.cancelled().await;
    tokio::time::sleep(PATIENCE).await;
}

/// How long a build that the user has cancelled may take to stop.
const PATIENCE: Duration = Duration::from_millis(700);

/// The first signal cancels the build, which then stops in good order; the second ends the process.
async fn watch_signals(interrupted: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let open = |kind| signal(kind).ok();
    let kinds = (open(SignalKind::interrupt()), open(SignalKind::terminate()), open(SignalKind::hangup()));
    let (Some(mut interrupt), Some(mut terminate), Some(mut hang_up)) = kinds else { return };
    for _ in 0..2 {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
        if interrupted.is_cancelled() {
            // Sandboxes die with this process, and the store is good at any instant.
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
        interrupted.cancel();
    }
}

fn request(args: BuildArgs) -> Result<BuildRequest, Error> {
    if args.no_cache && !args.no_cache_filter.is_empty() {
        let hint = Some("`--no-cache` is for all stages: leave one of them out".to_owned());
        return Err(Error::Usage { message: "`--no-cache` and `--no-cache-filter` cannot be used together".into(), hint });
    }
    let context = match args.context {
        Some(path) if path == Path::new("-") => ContextSource::Stdin,
        Some(path) => main_context(path)?,
        None => {
            return Err(Error::Usage { message: "the build has no context".into(), hint: Some("name a directory, such as `.`".into()) });
        }
    };
    let dockerfile = match args.file {
        None => DockerfileSource::Default,
        Some(path) if path == Path::new("-") => DockerfileSource::Stdin,
        Some(path) => match path.to_str().filter(|text| text.starts_with("http://") || text.starts_with("https://")) {
            Some(url) => DockerfileSource::Url(url.to_owned()),
            None => DockerfileSource::Path(path),
        },
    };
    Ok(BuildRequest {
        context,
        dockerfile,
        named_contexts: args.build_context,
        tags: args.tag,
        target: args.target,
        build_args: build_args(&args.build_arg)?,
        labels: labels(&args.label)?,
        no_cache: args.no_cache,
        no_cache_filter: args.no_cache_filter,
        cache_from: args.cache_from.into_iter().flat_map(|sources| sources.0).collect(),
        cache_to: with_inline(args.cache_to.into_iter().flatten().collect(), &args.build_arg),
        explain: args.explain,
        verify_reproducible: args.verify_reproducible,
        test: args.test,
        reproducible: args.reproducible.map_or_else(env::reproducible, Ok)?,
        pull: args.pull,
        network: args.steps.network(),
        entitlements: args.steps.entitlements(),
        steps: StepSettings { apparmor: args.legacy.apparmor()?, ..args.steps.settings()? },
        failed: None,
        platforms: args.platform,
        secrets: secret_flag::values(&args.secret)?,
        outputs: outputs::outputs(args.output.into_iter().flatten().collect(), args.push, args.load, &args.annotation)?,
        want_manifest: args.metadata_file.is_some(),
        want_index: args.quiet || args.iidfile.is_some(),
    })
}

/// The targets of the cache; `BUILDKIT_INLINE_CACHE=1` is another way to ask for one in the image.
fn with_inline(mut targets: Vec<CacheTarget>, build_args: &[String]) -> Vec<CacheTarget> {
    let asked = build_args.iter().rev().find_map(|arg| arg.strip_prefix("BUILDKIT_INLINE_CACHE="));
    let wanted = asked.is_some_and(|value| boolean(value) == Ok(true));
    if wanted && !targets.iter().any(|target| target.to == CacheDestination::Inline) {
        targets.push(super::build_cache::target(CacheDestination::Inline));
    }
    targets
}

/// `--build-arg NAME=VALUE`; without a value it is taken from the environment, and where that has none there is none. `SOURCE_DATE_EPOCH` is taken from there
/// unasked.
fn build_args(args: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let mut values: BTreeMap<String, String> = env::source_date_epoch().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for arg in args {
        let (name, value) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), env::variable(arg)),
        };
        if name.is_empty() {
            let hint = Some("write `--build-arg NAME=VALUE`".into());
            return Err(Error::Usage { message: format!("the build argument `{arg}` has no name"), hint });
        }
        if let Some(value) = value {
            values.insert(name.to_owned(), value);
        }
    }
    Ok(values)
}

fn labels(labels: &[String]) -> Result<Vec<(String, String)>, Error> {
    let mut pairs = Vec::new();
    for label in labels {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        if key.is_empty() {
            let hint = Some("write `--label KEY=VALUE`".into());
            return Err(Error::Usage { message: format!("the label `{label}` has no key"), hint });
        }
        pairs.push((key.to_owned(), value.to_owned()));
    }
    Ok(pairs)
}
