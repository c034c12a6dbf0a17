//! `strake run`: makes a container, starts it, and is its terminal until it ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::render::{ProgressMode, progress};
use crate::cli::{Global, env, report, settler};
use crate::engine::{ContainerInfo, Engine, Error, MountRequest, RunImage, RunNetwork, RunRequest, parse_bytes, parse_tmpfs, parse_volume};
use crate::oci::Platform;
use crate::parser::signals;
use crate::runtime::container::{self, Attachment, HostAddress, LocalIo, Mode, Outcome, PumpOptions, StdinMode};
use crate::runtime::{Capabilities, CgroupSpec, TerminalSize};

use super::exec::{DetachKeys, detach_keys_value};
use super::step_flags::{host_address, split_host};

/// The exit status of `run` where Strake itself failed.
pub(in crate::cli) const FAILED: u8 = 125;

/// How long the command that started a container has to remove it.
const GRACE: Duration = Duration::from_millis(500);

/// Flags of `strake run`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RunArgs {
    /// The image
    image: String,
    /// The command and its arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// Remove the container when it has ended
    #[arg(long)]
    rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Run in the background, and show the container's ID
    #[arg(short, long)]
    detach: bool,
    /// A variable; without `=`, that of the environment (may be given several times)
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A file with variables, one a line (may be given several times)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// A volume or a directory: `[SOURCE:]TARGET[:ro]` (may be given several times)
    #[arg(short, long = "volume", value_name = "SPEC", value_parser = parse_volume)]
    volume: Vec<MountRequest>,
    /// A file system in memory: `TARGET[:OPTIONS]` (may be given several times)
    #[arg(long, value_name = "SPEC", value_parser = parse_tmpfs)]
    tmpfs: Vec<MountRequest>,
    /// The working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The user: `NAME|UID[:GROUP|GID]`
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// In place of the image's entry point; an empty one takes it away
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// The container's name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The network
    #[arg(long, visible_alias = "net", value_enum, default_value = "default")]
    network: Network,
    /// A name for /etc/hosts: `NAME:ADDRESS`, where the address may be `host-gateway` (may be given several times)
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = host)]
    add_host: Vec<(String, HostAddress)>,
    /// The host name
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Run a small init as PID 1, which forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Mount the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Allow everything
    #[arg(long)]
    privileged: bool,
    /// Add a capability (may be given several times)
    #[arg(long, value_name = "NAME", value_parser = capability, value_delimiter = ',')]
    cap_add: Vec<Capabilities>,
    /// Take a capability away (may be given several times)
    #[arg(long, value_name = "NAME", value_parser = capability, value_delimiter = ',')]
    cap_drop: Vec<Capabilities>,
    /// The memory that it may use, such as `512m`
    #[arg(short, long, value_name = "BYTES", value_parser = parse_bytes)]
    memory: Option<u64>,
    /// The processors that it may use, such as `1.5`
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<u64>,
    /// The number of processes that it may have
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// The size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    shm_size: Option<u64>,
    /// A label (may be given several times)
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// The signal that asks it to stop
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    stop_signal: Option<i32>,
    /// Seconds after that until it is killed
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u64>,
    /// When to ask the registry for the image
    #[arg(long, value_enum, default_value = "missing")]
    pull: Pull,
    /// The platform of the image
    #[arg(long, env = env::DEFAULT_PLATFORM, hide_env = true, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Show no progress while the image is fetched
    #[arg(short, long)]
    quiet: bool,
    /// Pass signals on to the container; with `=false` they end this command only
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set, value_name = "BOOL")]
    sig_proxy: bool,
    /// The keys that leave the container running [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS", value_parser = detach_keys_value)]
    detach_keys: Option<DetachKeys>,
    /// Write the container's ID to a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
}

/// `--network`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Network {
    /// A private one where possible
    #[value(alias = "bridge")]
    Default,
    /// None
    None,
    /// This machine's
    Host,
}

/// `--pull`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pull {
    /// Each time
    Always,
    /// If it is not here
    Missing,
    /// Not at all
    Never,
}

fn capability(name: &str) -> Result<Capabilities, String> {
    Capabilities::named(name).ok_or_else(|| format!("there is no capability `{name}`"))
}

/// Reads the name or number of a signal.
pub(super) fn signal(name: &str) -> Result<i32, String> {
    signals::number(name).ok_or_else(|| format!("there is no signal `{name}`"))
}

/// Reads a number of processors, in thousandths.
pub(super) fn cpus(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.001..=1_000_000.0).contains(&number) => Ok((number * 1000.0).round() as u64),
        _ => Err(format!("`{text}` is not a number of processors")),
    }
}

fn host(text: &str) -> Result<(String, HostAddress), String> {
    let (name, address) = split_host(text)?;
    Ok((name.to_owned(), host_address(address)?))
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
    if args.interactive && args.tty && !args.detach && !std::io::stdin().is_terminal() {
        return Err(no_terminal());
    }
    let engine = Engine::open(env::engine_options(global), None)?;
    let image = image(&engine, &args)?;
    let (detach, interactive, rm, cidfile) = (args.detach, args.interactive, args.rm, args.cidfile.clone());
    let (sig_proxy, detach_keys) = (args.sig_proxy, args.detach_keys.clone());
    // Before the container is made: who names a file that is there wants another container's ID kept.
    if let Some(path) = cidfile.as_ref().filter(|path| path.exists()) {
        let message = format!("the file `{}` of --cidfile exists", path.display());
        return Err(Error::Usage { message, hint: Some("remove it, or name another".into()) });
    }
    let request = request(args)?;
    let info = engine.create_container(&request, &image)?;
    let started = write_cidfile(cidfile, &info.record.id).and_then(|()| {
        let mode = if detach { Mode::Detached } else { Mode::Attached };
        // Signals that come before the container is there to get them wait until it is.
        let held = (!detach).then(container::hold_signals);
        engine.start_container(&info, mode).map(|started| (started, held))
    });
    let (started, held) = match started {
        Ok(started) => started,
        Err(error) => {
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
        report::result(&info.record.id);
        return Ok(0);
    };
    let flags = PumpFlags { interactive, tty: request.tty, forward_signals: sig_proxy, detach_keys };
    let outcome = pump(&engine, &info, attachment, flags);
    drop(held);
    let (code, ended) = match outcome {
        // Nobody reads any more (`| head -1`). A process without a reader is killed by SIGPIPE, and so is the container.
        Err(Error::Container { source: container::Error::Local { source, .. }, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => {
            engine.kill_container(&info, libc::SIGKILL)?;
            engine.wait_container(&info)?;
            (128 + SIGPIPE, true)
        }
        outcome => outcome?,
    };
    if rm
        && ended
        && let Err(error) = engine.finish_container(&info.record.id)
    {
        // The status is the container's all the same.
        report::error(&error);
    }
    Ok(code)
}

/// What a supervisor process does when its container has ended: a container that removes itself is removed, unless whoever waits for it does that.
pub(in crate::cli) fn after_supervisor(args: &[OsString]) {
    let [mode, dir] = args else { return };
    let Some((id, root)) = Path::new(dir).file_name().and_then(|id| id.to_str()).zip(env::root()) else { return };
    if mode == "attached" {
        std::thread::sleep(GRACE);
    }
    // Nobody is there to be told of a failure; the next list of containers tries again.
    let _ = Engine::open(env::engine_options(&Global { root: Some(root), ..Global::default() }), None)
        .and_then(|engine| engine.finish_container(id));
}

fn write_cidfile(path: Option<PathBuf>, id: &str) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    std::fs::write(&path, id).map_err(|source| Error::Io { action: "write", path, source })
}

/// The number of the signal that tells of a pipe without a reader.
const SIGPIPE: u8 = 13;

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
}

/// Is the container's standard streams until it ends. Gives the exit status, and whether the container has ended.
pub(super) fn pump(engine: &Engine, info: &ContainerInfo, attachment: Attachment, flags: PumpFlags) -> Result<(u8, bool), Error> {
    let PumpFlags { interactive, tty, forward_signals, detach_keys } = flags;
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let io = LocalIo { stdin: interactive.then(|| stdin.as_fd()), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
    let usual = PumpOptions::default();
    let detach_keys = detach_keys.map_or(usual.detach_keys, |keys| keys.0);
    let options = PumpOptions { tty, forward_signals, detach_keys };
    let name = info.record.name.clone();
    let outcome = attachment.pump(io, &options).map_err(|source| Error::Container { action: "attach to", name, source })?;
    match outcome {
        Outcome::Exited { code, .. } => Ok((code, true)),
        Outcome::Detached => Ok((0, false)),
        Outcome::Interrupted(signal) => {
            if forward_signals {
                // One that has just ended needs no signal.
                let _ = engine.kill_container(info, signal);
            }
            Ok((u8::try_from(128 + signal).unwrap_or(u8::MAX), false))
        }
    }
}

/// The image: the one that is here, or what the registry has.
fn image(engine: &Engine, args: &RunArgs) -> Result<RunImage, Error> {
    if args.pull != Pull::Always
        && let Some(image) = engine.local_image(&args.image, args.platform.as_ref())?
    {
        return Ok(image);
    }
    if args.pull == Pull::Never {
        return Err(Error::NoSuchImage { name: args.image.clone() });
    }
    if !args.quiet && args.pull == Pull::Missing {
        report::tell(&format!("the image `{}` is not here: pulling it", args.image));
    }
    let failed = |source| Error::Io { action: "start", path: "the asynchronous runtime".into(), source };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    let progress = progress(if args.quiet { ProgressMode::Quiet } else { ProgressMode::Auto });
    let image = runtime.block_on(engine.fetch_image(&args.image, args.platform.as_ref(), args.pull == Pull::Always, &progress))?;
    settler::finish_later(engine)?;
    Ok(image)
}

fn request(args: RunArgs) -> Result<RunRequest, Error> {
    let stdin = match (args.interactive, args.detach) {
        (false, _) => StdinMode::Closed,
        (true, false) => StdinMode::Once,
        (true, true) => StdinMode::Open,
    };
    let variables = variables(&args.env_file, &args.env)?;
    let union = |sets: &[Capabilities]| sets.iter().fold(Capabilities::NONE, |all, one| all.union(*one));
    let limits = CgroupSpec {
        memory: args.memory.filter(|bytes| *bytes > 0),
        cpu_millis: args.cpus,
        pids: args.pids_limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0),
        ..CgroupSpec::default()
    };
    let terminal = terminal_size(args.tty);
    Ok(RunRequest {
        image: args.image,
        args: args.command,
        entrypoint: args.entrypoint,
        name: args.name,
        env: variables,
        labels: labels(&args.label)?,
        workdir: args.workdir,
        user: args.user,
        hostname: args.hostname,
        tty: args.tty,
        terminal,
        stdin,
        auto_remove: args.rm,
        mounts: args.volume.into_iter().chain(args.tmpfs).collect(),
        network: match args.network {
            Network::Default => RunNetwork::Private,
            Network::None => RunNetwork::None,
            Network::Host => RunNetwork::Host,
        },
        extra_hosts: args.add_host,
        init: args.init,
        read_only: args.read_only,
        privileged: args.privileged,
        cap_add: union(&args.cap_add),
        cap_drop: union(&args.cap_drop),
        limits,
        shm_size: args.shm_size,
        stop_signal: args.stop_signal,
        stop_timeout: args.stop_timeout.map(Duration::from_secs),
        platform: args.platform,
    })
}

/// The size of the user's terminal, where it is wanted and known.
pub(super) fn terminal_size(tty: bool) -> Option<TerminalSize> {
    let size = tty.then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok()).flatten()?;
    (size.ws_row > 0 && size.ws_col > 0).then_some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// The variables of files and flags, in the order in which they count.
pub(super) fn variables(files: &[PathBuf], flags: &[String]) -> Result<Vec<(String, Option<String>)>, Error> {
    let mut variables = Vec::new();
    for file in files {
        variables.extend(env_file(file)?);
    }
    for entry in flags {
        variables.push(variable(entry)?);
    }
    Ok(variables)
}

/// `NAME=VALUE`; without a value it is taken from the environment, and where that has none, away from the container's.
fn variable(entry: &str) -> Result<(String, Option<String>), Error> {
    let (name, value) = match entry.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (entry, env::variable(entry)),
    };
    if name.is_empty() {
        let hint = Some("write `-e NAME=VALUE`".into());
        return Err(Error::Usage { message: format!("the variable `{entry}` has no name"), hint });
    }
    Ok((name.to_owned(), value))
}

fn env_file(path: &PathBuf) -> Result<Vec<(String, Option<String>)>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.clone(), source })?;
    text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')).map(variable).collect()
}

fn labels(labels: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let pair = |label: &String| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        let hint = || Some("write `--label KEY=VALUE`".into());
        if key.is_empty() {
            return Err(Error::Usage { message: format!("the label `{label}` has no key"), hint: hint() });
        }
        Ok((key.to_owned(), value.to_owned()))
    };
    labels.iter().map(pair).collect()
}
