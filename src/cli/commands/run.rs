//! `strake run`: makes a container, starts it, and is its terminal until it ends.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, ValueEnum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::render::{ProgressMode, progress};
use crate::cli::{Global, env, report};
use crate::engine::{Ahead, ContainerInfo, Engine, Error, Healed, RootDriver, RunImage, RunRequest};
use crate::oci::Platform;
use crate::runtime::container::{self, Attachment, HeldSignals, LocalIo, Mode, Outcome, PumpOptions, StdinMode};

use super::build::BuildArgs;
use super::container_flags::{ContainerFlags, Pull};
use super::containers::open;
use super::exec::{DetachKeys, detach_keys_value};

/// The exit status of `run` where Strake itself failed.
pub(in crate::cli) const FAILED: u8 = 125;

// Flags of `strake run`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    #[command(flatten)]
    container: ContainerFlags,
    /// Run in the background, and show the container's ID
    #[arg(short, long)]
    detach: bool,
    /// The streams to pass on: `stdin`, `stdout` or `stderr` (may be given several times) [default: stdout and stderr, with -i also stdin]
    #[arg(short, long, value_name = "STREAM", value_enum, ignore_case = true, conflicts_with = "detach")]
    attach: Vec<Stream>,
    /// Pass signals on to the container; with `=false` they end this command only
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
    /// The keys that leave the container running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", value_parser = detach_keys_value)]
    detach_keys: Option<DetachKeys>,
    /// With -d: return when the container is healthy, and fail if it becomes unhealthy or ends
    #[arg(long, requires = "detach")]
    wait: bool,
    /// How many seconds to wait for that [default: for ever]
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    wait_timeout: Option<u64>,
    /// Build this context first, and run the image: what follows the flags is the command
    #[arg(long, value_name = "CONTEXT")]
    build: Option<PathBuf>,
    /// With --build: the Dockerfile
    #[arg(short, long, value_name = "PATH", requires = "build")]
    file: Option<PathBuf>,
    /// With --build: the stage to build
    #[arg(long, value_name = "STAGE", requires = "build")]
    target: Option<String>,
    /// With --build: a build argument (may be given several times)
    #[arg(long, value_name = "NAME[=VALUE]", requires = "build")]
    build_arg: Vec<String>,
}

// Flags of `strake create`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CreateArgs {
    #[command(flatten)]
    container: ContainerFlags,
    /// Not for this command
    #[arg(long, hide = true)]
    build: Option<PathBuf>,
}

/// Runs `strake run`.
pub(in crate::cli) fn run(global: &Global, args: RunArgs) -> ExitCode {
    match start(global, args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report::error(&error);
            ExitCode::from(failure_code(&error))
        }
    }
}

/// 126 for a command that cannot be executed and 127 for one that is not there, as Docker has it; 125 for all else.
pub(super) fn failure_code(error: &Error) -> u8 {
    match error {
        Error::Container { source, .. } => source.exit_code(),
        _ => FAILED,
    }
}

/// What is said to one who asks for a terminal and has none.
pub(super) fn no_terminal() -> Error {
    let hint = Some("leave -t out where input comes from a pipe or a file".into());
    Error::Usage { message: "the input device is not a TTY".into(), hint }
}

fn start(global: &Global, args: RunArgs) -> Result<u8, Error> {
    let RunArgs { mut container, detach, attach, sig_proxy, detach_keys, wait, wait_timeout, build, file, target, build_arg } = args;
    if container.interactive && container.tty && !detach && !std::io::stdin().is_terminal() {
        // The one mistake of this kind that Docker's client ends with 1 for.
        report::error(&no_terminal());
        return Ok(1);
    }
    let built = match build {
        None => None,
        Some(context) => {
            let more = BuildFirst { context, file, target, build_args: build_arg, quiet: container.quiet };
            container.command.splice(0..0, container.image.take());
            match more.build(global)? {
                Ok(id) => Some(id),
                Err(code) => return Ok(code),
            }
        }
    };
    let mode = if detach { Mode::Detached } else { Mode::Attached };
    let mut ahead = Engine::ahead(&env::engine_options(global), mode, container.is_on_bridge(), container.rm);
    let engine = open(global)?;
    let (interactive, tty, rm, cidfile) = (container.interactive, container.tty, container.rm, container.cidfile.clone());
    let stdin = match (interactive, detach) {
        (false, _) => StdinMode::Closed,
        (true, false) => StdinMode::Once,
        (true, true) => StdinMode::Open,
    };
    let attached = match (detach, attach.is_empty()) {
        (true, _) => [false; 3],
        (false, true) => [interactive, true, true],
        (false, false) => [Stream::Stdin, Stream::Stdout, Stream::Stderr].map(|stream| attach.contains(&stream)),
    };
    let (info, held) = make(&engine, container, built, stdin, attached, &mut ahead)?;
    let started = write_cidfile(cidfile, &info.record.id).and_then(|()| {
        // Signals that come before the container is there to get them wait until it is.
        let held = if detach { held } else { held.or_else(|| Some(container::hold_signals())) };
        let started = match ahead {
            Some(ahead) => engine.start_by_ahead(&info, ahead),
            None => engine.start_container(&info, mode),
        };
        started.map(|started| (started, held.filter(|_| !detach)))
    });
    let (started, held) = match started {
        Ok(started) => started,
        Err(error) => {
            if detach {
                // Who waits for the ID gets it, as with Docker.
                report::result(&info.record.id);
            }
            if rm {
                // The failure matters more than that its container cannot be removed.
                let _ = engine.remove_container(&info, true, true);
            }
            return Err(error);
        }
    };
    for warning in &started.warnings {
        report::tell(&format!("warning: {warning}"));
    }
    let Some(attachment) = started.attachment else {
        if wait {
            wait_healthy(&engine, &info, wait_timeout)?;
        }
        report::result(&info.record.id);
        return Ok(0);
    };
    if !attach.is_empty() && !attach.iter().any(|stream| *stream != Stream::Stdin) {
        // Who hears nothing of it gets its name.
        report::result(&info.record.id);
    }
    let flags = PumpFlags { interactive, tty, forward_signals: sig_proxy, detach_keys, streams: attach };
    // The supervisor removes what is left of the container when it sees this closed.
    let connection = attachment.connection();
    let outcome = pump(&engine, &info, attachment, flags);
    drop(held);
    let (code, ended) = match outcome {
        // A process without a reader is killed by SIGPIPE, and so is the container.
        Err(error) if has_no_reader(&error) => {
            engine.kill_container(&info, libc::SIGKILL)?;
            engine.wait_container(&info)?;
            (NO_READER, true)
        }
        outcome => {
            let pumped = outcome?;
            (pumped.code(), matches!(pumped, Pumped::Ended(_)))
        }
    };
    if rm
        && ended
        && let Err(error) = remove(&engine, &info.record.id, connection.as_ref())
    {
        // The status is the container's all the same.
        report::error(&error);
    }
    Ok(code)
}

/// Makes the container of the flags, with signals held meanwhile that would end this process, of the image that was built for it, or of the one that they name. Where that has to be pulled, nobody
/// waits `ahead`: who does has an address on a network.
fn make(
    engine: &Engine,
    flags: ContainerFlags,
    built: Option<String>,
    stdin: StdinMode,
    attached: [bool; 3],
    ahead: &mut Option<Ahead>,
) -> Result<(ContainerInfo, Option<HeldSignals>), Error> {
    let name = built.clone().or_else(|| flags.image.clone()).unwrap_or_default();
    let wanted = Wanted { name: name.clone(), pull: flags.pull, platform: flags.platform.clone(), quiet: flags.quiet };
    let image = image(engine, &wanted, || drop(ahead.take()))?;
    let id = ahead.as_ref().map(|ahead| ahead.id.clone());
    // Before the container is made: who names a file that is there wants another container's ID kept.
    if let Some(path) = flags.cidfile.as_ref().filter(|path| path.exists()) {
        let message = format!("the file `{}` of --cidfile exists", path.display());
        return Err(Error::Usage { message, hint: Some("remove it, or name another".into()) });
    }
    let driver = engine.root_driver()?;
    match &driver {
        RootDriver::Copy { why: Some(why) } => {
            report::tell(&format!("warning: the files of the container's root file system are copied, which takes time and space: {why}"));
        }
        RootDriver::Fuse { why: Some(why), .. } => {
            report::tell(&format!(
                "warning: fuse-overlayfs makes the container's root file system, which is slower than an overlay: {why}"
            ));
        }
        _ => {}
    }
    let mut request = RunRequest { attached, id, ..flags.request(name, stdin)? };
    match engine.configured_proxies() {
        // Before those that were asked for, which win; each spelling by itself, as with Docker.
        Ok(proxies) => drop(request.env.splice(0..0, proxies.into_iter().map(|(name, value)| (name.to_owned(), Some(value))))),
        Err(error) => report::warning("no proxies are taken from Docker's settings", &error),
    }
    // Nobody has a use for half a container. Where its files are copied, which takes time, the user can end it all the same.
    let held = (!matches!(driver, RootDriver::Copy { .. })).then(container::hold_signals);
    Ok((engine.create_container(&request, &image)?, held))
}

/// Runs `strake create`.
pub(in crate::cli) fn create(global: &Global, args: CreateArgs) -> ExitCode {
    let made = || {
        if args.build.is_some() {
            let hint = Some("build it first: `strake build -t NAME CONTEXT`".to_owned());
            return Err(Error::Usage { message: "--build is a flag of `strake run`".to_owned(), hint });
        }
        let engine = open(global)?;
        let (stdin, cidfile) =
            (if args.container.interactive { StdinMode::Once } else { StdinMode::Closed }, args.container.cidfile.clone());
        let attached = [args.container.interactive, true, true];
        let (info, _held) = make(&engine, args.container, None, stdin, attached, &mut None)?;
        write_cidfile(cidfile, &info.record.id)?;
        report::result(&info.record.id);
        Ok(())
    };
    super::exit(made())
}

/// Waits for `--wait`.
fn wait_healthy(engine: &Engine, info: &ContainerInfo, seconds: Option<u64>) -> Result<(), Error> {
    let name = &info.record.name;
    let said = match engine.wait_healthy(&info.record.id, seconds.map(Duration::from_secs))? {
        Healed::Healthy => return Ok(()),
        Healed::Unhealthy => format!("the container `{name}` is unhealthy"),
        Healed::Ended(code) => format!("the container `{name}` exited with {code}"),
    };
    let hint = Some(format!("`strake logs {name}` shows what it wrote, `strake inspect {name}` what its checks said"));
    Err(Error::Usage { message: said, hint })
}

/// The build of `run --build`.
struct BuildFirst {
    context: PathBuf,
    file: Option<PathBuf>,
    target: Option<String>,
    build_args: Vec<String>,
    quiet: bool,
}

/// The build's command line on its own.
#[derive(Parser)]
struct BuildLine {
    #[command(flatten)]
    args: BuildArgs,
}

impl BuildFirst {
    /// Builds, and gives the image's ID; or the exit status of a build that failed, which has said why.
    fn build(self, global: &Global) -> Result<Result<String, u8>, Error> {
        let scratch = super::Scratch::new()?;
        let iidfile = scratch.0.join("id");
        let mut line: Vec<OsString> = vec!["build".into(), "--iidfile".into(), iidfile.clone().into()];
        for (flag, value) in [("--file", self.file.map(OsString::from)), ("--target", self.target.map(OsString::from))] {
            line.extend(value.into_iter().flat_map(|value| [flag.into(), value]));
        }
        line.extend(self.build_args.into_iter().flat_map(|value| ["--build-arg".into(), OsString::from(value)]));
        if self.quiet {
            line.extend(["--progress".into(), "quiet".into()]);
        }
        line.push("--".into());
        line.push(self.context.into());
        let parsed = BuildLine::try_parse_from(line).map_err(|error| Error::Usage { message: error.to_string(), hint: None })?;
        // `ExitCode` tells nothing: the file does, which is written only where there is an image.
        let _ = super::build::run(global, parsed.args);
        match std::fs::read_to_string(&iidfile) {
            Ok(id) => Ok(Ok(id)),
            Err(_) => Ok(Err(FAILED)),
        }
    }
}

/// Removes a container that has ended, and leaves its files to the supervisor at the other end of the connection, if that still lives.
fn remove(engine: &Engine, id: &str, connection: Option<&OwnedFd>) -> Result<(), Error> {
    let hangs_up = |connection: &OwnedFd| {
        let mut end = [PollFd::new(connection, PollFlags::empty())];
        poll(&mut end, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).map_or(true, |_| !end[0].revents().is_empty())
    };
    engine.forget_container(id)?;
    // Asked afterwards: one that ends from here on looks for the files itself.
    if connection.is_none_or(hangs_up) {
        let _ = crate::engine::remove_remains(engine.store().root(), id);
    }
    Ok(())
}

/// What a supervisor process does when its container has ended, or nobody is left to start it: one that removes itself is removed (`finish`), as far as whoever waited for it has not done
/// that.
pub(in crate::cli) fn after_supervisor(args: &[OsString], finish: impl FnOnce(&Engine, &str) -> Result<(), Error>) {
    let [_, dir, ..] = args else { return };
    let dir = Path::new(dir);
    let root = dir.parent().and_then(Path::parent).map(Path::to_owned);
    let Some((id, root)) = dir.file_name().and_then(|id| id.to_str()).zip(root) else { return };
    // Nobody is there to be told of a failure; the next list of containers tries again, and `prune` finds what is left.
    if dir.exists() {
        let _ = Engine::open(env::engine_options(&Global { root: Some(root.clone()), ..Global::default() }), None)
            .and_then(|engine| finish(&engine, id));
    }
    let _ = crate::engine::remove_remains(&root, id);
}

fn write_cidfile(path: Option<PathBuf>, id: &str) -> Result<(), Error> {
    let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::write(&path, id).map_err(|source| Error::Io { action: "write", path, source })
}

/// The status of a command that failed, where Docker has one for all.
const FAILURE: u8 = 1;

/// The status of a process that SIGPIPE has killed.
pub(super) const NO_READER: u8 = 128 + 13;

/// Whether it is that nobody reads what is written any more (`| head -1`).
pub(super) fn has_no_reader(error: &Error) -> bool {
    matches!(error, Error::Container { source: container::Error::Local { source, .. }, .. } if source.kind() == std::io::ErrorKind::BrokenPipe)
}

/// How a container's streams are passed on.
pub(super) struct PumpFlags {
    /// Whether standard input is.
    pub(super) interactive: bool,
    /// Whether it has a terminal.
    pub(super) tty: bool,
    /// Whether signals are.
    pub(super) forward_signals: bool,
    /// The keys that leave it, if not the usual ones.
    pub(super) detach_keys: Option<DetachKeys>,
    /// Only these streams; none is all.
    pub(super) streams: Vec<Stream>,
}

/// `--attach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Stream {
    /// Input
    Stdin,
    /// Output
    Stdout,
    /// Errors
    Stderr,
}

/// Why a container's streams are no longer passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// The container, or the command in it, has ended with this status.
    Ended(u8),
    /// The user has left by the detach keys.
    Left,
    /// A signal has ended this; the status of that.
    Interrupted(u8),
}

impl Pumped {
    /// The exit status of what has started the container: leaving it is no failure.
    pub(super) fn code(self) -> u8 {
        match self {
            Pumped::Ended(code) | Pumped::Interrupted(code) => code,
            Pumped::Left => 0,
        }
    }

    /// The exit status of what has only come to it: as with Docker, leaving is told, and a failure.
    pub(super) fn code_of_guest(self) -> u8 {
        if self == Pumped::Left {
            report::tell("read escape sequence");
            return FAILURE;
        }
        self.code()
    }
}

/// Is the container's standard streams until it ends, or is left.
pub(super) fn pump(engine: &Engine, info: &ContainerInfo, attachment: Attachment, flags: PumpFlags) -> Result<Pumped, Error> {
    let PumpFlags { interactive, tty, forward_signals, detach_keys, streams } = flags;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let nowhere = std::fs::OpenOptions::new().write(true).open("/dev/null");
    let nowhere = nowhere.map_err(|source| Error::Io { action: "open", path: "/dev/null".into(), source })?;
    let wanted = |stream: Stream| streams.is_empty() || streams.contains(&stream);
    let io = LocalIo {
        stdin: (interactive && wanted(Stream::Stdin)).then(|| stdin.as_fd()),
        stdout: if wanted(Stream::Stdout) { stdout.as_fd() } else { nowhere.as_fd() },
        stderr: if wanted(Stream::Stderr) { stderr.as_fd() } else { nowhere.as_fd() },
    };
    let usual = PumpOptions::default();
    let detach_keys = detach_keys.map_or(usual.detach_keys, |keys| keys.0);
    let options = PumpOptions { tty, forward_signals, detach_keys };
    let name = info.record.name.clone();
    let outcome = attachment.pump(io, &options).map_err(|source| Error::Container { action: "attach to", name, source })?;
    match outcome {
        Outcome::Exited { code, .. } => Ok(Pumped::Ended(code)),
        Outcome::Detached => Ok(Pumped::Left),
        Outcome::Interrupted(signal) => {
            if forward_signals {
                // One that has just ended needs no signal.
                let _ = engine.kill_container(info, signal);
            }
            Ok(Pumped::Interrupted(u8::try_from(128 + signal).unwrap_or(u8::MAX)))
        }
    }
}

/// The image of a container, and how it is come by.
struct Wanted {
    name: String,
    pull: Pull,
    platform: Option<Platform>,
    quiet: bool,
}

/// The image: the one that is here, or what the registry has; `pulls` is called before that is asked.
fn image(engine: &Engine, wanted: &Wanted, pulls: impl FnOnce()) -> Result<RunImage, Error> {
    if wanted.pull != Pull::Always
        && let Some(image) = engine.local_image(&wanted.name, wanted.platform.as_ref())?
    {
        return Ok(image);
    }
    if wanted.pull == Pull::Never {
        return Err(Error::NoSuchImage { name: wanted.name.clone(), alike: Vec::new() });
    }
    if !wanted.quiet && wanted.pull == Pull::Missing {
        report::tell(&format!("the image `{}` is not here: pulling it", wanted.name));
    }
    pulls();
    let failed = |source| Error::Io { action: "start", path: "the asynchronous runtime".into(), source };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    let progress = progress(if wanted.quiet { ProgressMode::Quiet } else { ProgressMode::Auto });
    let image = runtime.block_on(engine.fetch_image(&wanted.name, wanted.platform.as_ref(), wanted.pull == Pull::Always, &progress))?;
    engine.finish(true)?;
    Ok(image)
}
