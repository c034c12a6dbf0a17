//! `strake build`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::render::{ProgressMode, progress};
use crate::cli::{Global, env, report};
use crate::diag::Secret;
use crate::engine::{BuildContext, BuildRequest, ContextSource, DockerfileSource, Engine, Error, Output};
use crate::graph::{ContextName, ContextNameError, NetworkMode};
use crate::image::load::Layout;
use crate::oci::{Platform, Reference};
use crate::runtime::Spawner;
use crate::task::CancellationToken;

use super::with_engine;

/// The exit status of a build that a signal stopped, as a shell has it for SIGINT.
const STOPPED: u8 = 130;

/// Flags of `strake build`.
#[derive(Debug, Args)]
pub(in crate::cli) struct BuildArgs {
    /// The directory with the files to build from, or `-` for an archive or a Dockerfile on standard input
    context: PathBuf,
    /// A name of the image, `NAME[:TAG]` (may be given several times)
    #[arg(short, long = "tag", value_name = "NAME[:TAG]", value_parser = reference)]
    tag: Vec<Reference>,
    /// The Dockerfile [default: Dockerfile in the context]; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// A value of an ARG; without `=`, that of the environment (may be given several times)
    #[arg(long, value_name = "NAME[=VALUE]")]
    build_arg: Vec<String>,
    /// What stands in for a stage or image: a directory, `docker-image://REF` or `oci-layout://DIR[:TAG|@DIGEST]` (may be given several times)
    #[arg(long, value_name = "NAME=VALUE", value_parser = build_context)]
    build_context: Vec<(ContextName, BuildContext)>,
    /// A label of the image (may be given several times)
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Take no step from the cache
    #[arg(long)]
    no_cache: bool,
    /// Look the base images up in their registries, even those that are here
    #[arg(long)]
    pull: bool,
    /// How to show progress
    #[arg(long, value_enum, default_value = "auto", env = env::PROGRESS, hide_env = true)]
    progress: ProgressMode,
    /// Show nothing but the image's ID
    #[arg(short, long)]
    quiet: bool,
    /// Write the image's ID to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Where the result goes: `type=local|tar|oci|docker|image[,dest=PATH]`, or a directory, or `-` (may be given several times)
    #[arg(short, long, value_name = "SPEC", value_parser = output)]
    output: Vec<Output>,
    /// The network of RUN steps
    #[arg(long, value_enum, default_value = "default")]
    network: Network,
    /// The platform to build for [default: this machine's]
    #[arg(long, env = env::DEFAULT_PLATFORM, hide_env = true, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// A secret for RUN --mount=type=secret: `id=NAME[,src=FILE|,env=VARIABLE]` (may be given several times)
    #[arg(long, value_name = "SPEC")]
    secret: Vec<String>,
}

/// `--network`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Network {
    /// A private one where possible
    Default,
    /// None
    None,
    /// This machine's
    Host,
}

fn reference(text: &str) -> Result<Reference, String> {
    let reference: Reference = text.parse().map_err(|error: crate::oci::ReferenceError| error.reason)?;
    if reference.digest().is_some() {
        return Err("an image gets its digest from its content; give a tag".into());
    }
    Ok(reference)
}

/// Reads `--output`.
fn output(text: &str) -> Result<Output, String> {
    if text == "-" {
        return Ok(Output::Tar("-".into()));
    }
    if !text.contains('=') {
        return Ok(Output::Local(text.into()));
    }
    let (mut kind, mut dest) = (None, None);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("type", value)) => kind = Some(value),
            Some(("dest", value)) => dest = Some(PathBuf::from(value)),
            Some((key, _)) => return Err(format!("the key `{key}` is not supported: expected `type` and `dest`")),
            None => return Err(format!("`{field}` has no value")),
        }
    }
    let needed = |dest: Option<PathBuf>| dest.ok_or_else(|| "`dest=` is missing".to_owned());
    match kind.ok_or("`type=` is missing")? {
        "local" => needed(dest).map(Output::Local),
        "tar" => Ok(Output::Tar(dest.unwrap_or_else(|| "-".into()))),
        "oci" => Ok(Output::Oci(dest.unwrap_or_else(|| "-".into()))),
        "docker" => Ok(Output::Docker(dest.unwrap_or_else(|| "-".into()))),
        "image" if dest.is_none() => Ok(Output::Image),
        "image" => Err("`type=image` has no `dest`: it goes into the store".into()),
        other => Err(format!("the type `{other}` is not supported: expected local, tar, oci, docker or image")),
    }
}

/// Reads `--build-context`.
fn build_context(text: &str) -> Result<(ContextName, BuildContext), String> {
    let (name, value) = text.split_once('=').ok_or("expected `NAME=VALUE`")?;
    let name = name.parse().map_err(|error: ContextNameError| error.to_string())?;
    let git = value.starts_with("git@") || ["git://", "ssh://"].iter().any(|scheme| value.starts_with(scheme));
    let is_http = value.starts_with("http://") || value.starts_with("https://");
    let context = match value.split_once("://") {
        Some(("docker-image", "scratch")) => BuildContext::Scratch,
        Some(("docker-image", image)) => BuildContext::Image(image.parse().map_err(|error: crate::oci::ReferenceError| error.to_string())?),
        Some(("oci-layout", layout)) => BuildContext::Layout(oci_layout(layout)?),
        _ if git || is_http => return Err(format!("contexts from {} are not supported yet", if git { "git" } else { "web servers" })),
        _ if value.starts_with("target:") => return Err("`target:` is for bake files only".into()),
        Some((scheme, _)) => {
            return Err(format!("`{scheme}://` is no kind of context: expected a directory, `docker-image://` or `oci-layout://`"));
        }
        None if value.is_empty() => return Err("the context has no value".into()),
        None if value == "-" => return Err("a named context cannot be standard input".into()),
        None => BuildContext::Directory(value.into()),
    };
    Ok((name, context))
}

/// `DIR[:TAG][@DIGEST]`.
fn oci_layout(text: &str) -> Result<Layout, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse().map_err(|error: crate::oci::DigestError| error.to_string())?)),
        None => (text, None),
    };
    let (dir, tag) = match rest.rsplit_once(':') {
        Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag.to_owned())),
        _ => (rest, None),
    };
    if dir.is_empty() {
        return Err("`oci-layout://` needs a directory".into());
    }
    Ok(Layout { dir: dir.into(), tag, digest })
}

/// Runs `strake build`.
pub(in crate::cli) fn run(global: &Global, args: BuildArgs) -> ExitCode {
    let quiet = args.quiet;
    let iidfile = args.iidfile.clone();
    // Before the runtime: the process that starts sandboxes must be forked while there is one thread.
    let spawner = match Spawner::start() {
        Ok(spawner) => spawner,
        Err(error) => {
            report::error(&Error::Runtime(error));
            return ExitCode::FAILURE;
        }
    };
    let result = with_engine(global, Some(spawner), |engine| build(engine, args));
    let id = match result {
        Ok(id) => id,
        Err(error) => {
            report::error(&error);
            let stopped = matches!(error, Error::Build(crate::executor::Error::Cancelled));
            return if stopped { ExitCode::from(STOPPED) } else { ExitCode::FAILURE };
        }
    };
    if let Some(path) = iidfile
        && let Err(source) = std::fs::write(&path, &id)
    {
        report::error(&Error::Io { action: "write", path, source });
        return ExitCode::FAILURE;
    }
    if quiet {
        report::result(&id);
    }
    ExitCode::SUCCESS
}

async fn build(engine: Engine, args: BuildArgs) -> Result<String, Error> {
    let mode = if args.quiet { ProgressMode::Quiet } else { args.progress };
    let progress = progress(mode);
    let quiet = mode == ProgressMode::Quiet;
    let tags = args.tag.clone();
    let request = request(args)?;
    let interrupted = CancellationToken::new();
    let watcher = tokio::spawn(watch_signals(interrupted.clone()));
    let outcome = tokio::select! {
        outcome = engine.build(request, &progress, interrupted.child_token()) => outcome,
        () = patience(&interrupted) => Err(Error::Build(crate::executor::Error::Cancelled)),
    };
    watcher.abort();
    let outcome = outcome?;
    if !quiet {
        report::diagnostics(&outcome.warnings);
        for tag in tags.iter().filter(|_| outcome.kept) {
            report::tell(&format!("naming to {tag}"));
        }
        report::tell(&format!("image {}", outcome.image.id));
    }
    engine.finish(outcome.executed > 0)?;
    Ok(outcome.image.id.to_string())
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
    let context = if args.context == Path::new("-") { ContextSource::Stdin } else { ContextSource::Directory(args.context) };
    let dockerfile = match args.file {
        None => DockerfileSource::Default,
        Some(path) if path == Path::new("-") => DockerfileSource::Stdin,
        Some(path) => DockerfileSource::Path(path),
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
        pull: args.pull,
        network: match args.network {
            Network::Default => NetworkMode::Default,
            Network::None => NetworkMode::None,
            Network::Host => NetworkMode::Host,
        },
        platform: args.platform,
        secrets: secrets(&args.secret)?,
        outputs: args.output,
    })
}

/// `--build-arg NAME=VALUE`; without a value it is taken from the environment, and where that has none there is none.
fn build_args(args: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let mut values = BTreeMap::new();
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

/// `--secret id=NAME[,src=FILE|,env=VARIABLE]`; without a source it is the variable, else the file, of that name.
fn secrets(specs: &[String]) -> Result<BTreeMap<String, Secret<Vec<u8>>>, Error> {
    let mut secrets = BTreeMap::new();
    for spec in specs {
        let usage = |message: String| Error::Usage {
            message,
            hint: Some("write `--secret id=NAME,src=FILE` or `--secret id=NAME,env=VARIABLE`".into()),
        };
        let (mut id, mut file, mut variable) = (None, None, None);
        for field in spec.split(',') {
            match field.split_once('=') {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("src" | "source", value)) => file = Some(PathBuf::from(value)),
                Some(("env", value)) => variable = Some(value.to_owned()),
                Some(("type", "file" | "env")) => {}
                _ => return Err(usage(format!("the field `{field}` of a secret is not known"))),
            }
        }
        let id = id.ok_or_else(|| usage("a secret has no id".into()))?;
        let value = match (file, variable) {
            (Some(path), _) => std::fs::read(&path).map_err(|source| Error::Io { action: "read", path, source })?,
            (None, Some(name)) => {
                env::variable(&name).ok_or_else(|| usage(format!("the variable `{name}` of the secret `{id}` is not set")))?.into_bytes()
            }
            (None, None) => match env::variable(&id) {
                Some(value) => value.into_bytes(),
                None => std::fs::read(&id).map_err(|source| Error::Io { action: "read", path: PathBuf::from(&id), source })?,
            },
        };
        secrets.insert(id, Secret::new(value));
    }
    Ok(secrets)
}
