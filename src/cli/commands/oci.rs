//! `strake oci`: the OCI runtime that other engines call. Also what this program is where it is called by the name `strake-oci` or `strake-runtime`.
//!
//! Verbs, flags, output and exit codes are those that callers know from runc: 0 or 1, and of `run` and `exec` in the foreground those of the process. It has a parser of its
//! own, as its flags mean other things than those of `strake`, and runs before anything else is set up: an engine calls it several times for each container.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::oci_log::{Format as LogFormat, Log};
use crate::cli::table::Table;
use crate::cli::{env, report};
use crate::parser::signals;
use crate::runtime::bundle::{self, Containers, CreateOptions, ExecOptions, Made, Process, Resources, Status, SystemdManager};
use crate::runtime::{self, container::LocalIo};

/// By which names this program is an OCI runtime.
const NAMES: [&str; 2] = ["strake-oci", "strake-runtime"];

/// In the words of `runc`, which engines look for.
static VERSION: LazyLock<String> = LazyLock::new(|| format!("version {}\nspec: {}", env!("CARGO_PKG_VERSION"), bundle::OCI_VERSION));

// What stands behind flags that belong to `strake`, where `oci` is not looked for.
#[derive(Debug, Args)]
pub(in crate::cli) struct Misplaced {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    _rest: Vec<OsString>,
}

/// Tells where the flags belong.
pub(in crate::cli) fn misplaced() -> ExitCode {
    report::tell("error: flags of `strake oci` follow its name\nhint: `strake oci --root DIR state ID`");
    ExitCode::from(2)
}

/// Be the OCI runtime that another engine calls.
#[derive(Debug, Parser)]
#[command(name = "strake oci", version = VERSION.as_str(), disable_help_subcommand = true, arg_required_else_help = true, args_override_self = true)]
struct Arguments {
    /// Where containers are on record [default: /run/strake/oci as root, $XDG_RUNTIME_DIR/strake/oci otherwise]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// The file that failures are written to
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// How
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Say more; there is nothing more to say
    #[arg(long)]
    debug: bool,
    /// Have systemd make control groups: `cgroupsPath` is SLICE:PREFIX:NAME then
    #[arg(long)]
    systemd_cgroup: bool,
    /// Whether this is an ordinary user's: found out by itself
    #[arg(long, value_name = "auto|true|false", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    rootless: Option<String>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a container, whose command waits for `start`
    Create(CreateArgs),
    /// Let the command of a container run
    Start(IdArgs),
    /// Show the state of a container
    State(IdArgs),
    /// Send a signal to a container
    Kill(KillArgs),
    /// Remove a container
    Delete(DeleteArgs),
    /// Make a container, start it, and wait for its end
    Run(RunArgs),
    /// Run one more command in a container
    Exec(Box<ExecArgs>),
    /// List the containers
    List(ListArgs),
    /// List the processes of a container
    Ps(PsArgs),
    /// Make all processes of a container stand still
    Pause(IdArgs),
    /// Let a container go on that stands still
    Resume(IdArgs),
    /// Change the limits of a container
    Update(Box<UpdateArgs>),
    /// Show what a container uses
    Events(EventsArgs),
    /// Show what this runtime can do
    Features,
    /// Write a config.json to begin with
    Spec(SpecArgs),
    /// Not supported
    #[command(hide = true)]
    Checkpoint(UnsupportedArgs),
    /// Not supported
    #[command(hide = true)]
    Restore(UnsupportedArgs),
}

#[derive(Debug, Args)]
struct IdArgs {
    /// The container
    id: String,
}

#[derive(Debug, Args)]
struct UnsupportedArgs {
    /// Whatever others take
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0..)]
    _rest: Vec<OsString>,
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The container's ID
    id: String,
    /// The bundle
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// The socket that gets the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// The file that gets the first process's number
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// The socket that gets a descriptor of the first process
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// Change the root instead of exchanging it
    #[arg(long)]
    no_pivot: bool,
    /// Leave the caller's keys in reach
    #[arg(long)]
    no_new_keyring: bool,
    /// Pass so many descriptors on beyond the standard ones
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    preserve_fds: u32,
}

impl CreateArgs {
    fn options(&self, systemd: Option<SystemdManager>) -> CreateOptions {
        CreateOptions {
            bundle: self.bundle.clone(),
            pid_file: self.pid_file.clone(),
            console_socket: self.console_socket.clone(),
            pidfd_socket: self.pidfd_socket.clone(),
            preserve_fds: self.preserve_fds,
            listen_fds: env::listen_fds(),
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            systemd,
        }
    }
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    create: CreateArgs,
    /// Return when it runs
    #[arg(short, long)]
    detach: bool,
    /// Do not remove it when it has ended
    #[arg(long)]
    keep: bool,
    /// Has no effect here
    #[arg(long, hide = true)]
    no_subreaper: bool,
}

#[derive(Debug, Args)]
struct KillArgs {
    /// The container
    id: String,
    /// The signal, by name or number
    #[arg(default_value = "SIGTERM", value_parser = signal, allow_hyphen_values = true)]
    signal: i32,
    /// To all of its processes
    #[arg(short, long)]
    all: bool,
}

fn signal(name: &str) -> Result<i32, String> {
    signals::number(name).ok_or_else(|| format!("there is no signal `{name}`"))
}

#[derive(Debug, Args)]
struct DeleteArgs {
    /// The container
    id: String,
    /// Kill it first
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// How
    #[arg(short, long, value_enum, default_value = "table")]
    format: ListFormat,
    /// Only IDs
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ListFormat {
    Table,
    Json,
}

#[derive(Debug, Args)]
struct PsArgs {
    /// The container
    id: String,
    /// How
    #[arg(short, long, value_enum, default_value = "table")]
    format: ListFormat,
}

#[derive(Debug, Args)]
struct EventsArgs {
    /// The container
    id: String,
    /// Once, and no more
    #[arg(long)]
    stats: bool,
    /// How often, such as `5s`
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    Ok(Duration::from_nanos(crate::parser::duration::parse(text)?.unsigned_abs()))
}

#[derive(Debug, Args)]
struct SpecArgs {
    /// Where it is written
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    bundle: PathBuf,
    /// For an ordinary user
    #[arg(long)]
    rootless: bool,
}

#[derive(Debug, Args)]
struct UpdateArgs {
    /// The container
    id: String,
    /// A file with limits as in config.json; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// The memory, such as `50M`; `-1` is any
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = amount)]
    memory: Option<i64>,
    /// Memory and swap together, such as `50M`; `-1` is any
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = amount)]
    memory_swap: Option<i64>,
    /// The memory that it keeps when there is too little, such as `50M`; `-1` is any
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = amount)]
    memory_reservation: Option<i64>,
    /// The share of CPU time
    #[arg(long, visible_alias = "cpu-share", value_name = "NUMBER")]
    cpu_shares: Option<u64>,
    /// The period, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// The time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// Whether it runs only where nobody else wants to: 1, or 0
    #[arg(long, value_name = "NUMBER")]
    cpu_idle: Option<i64>,
    /// The time saved up that it may use at once, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// The period of real-time processes, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// The time of real-time processes in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// The CPUs
    #[arg(long, value_name = "CPUS")]
    cpuset_cpus: Option<String>,
    /// The memory nodes
    #[arg(long, value_name = "NODES")]
    cpuset_mems: Option<String>,
    /// The number of processes
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// The weight of disks
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
}

#[derive(Debug, Args)]
struct ExecArgs {
    /// The container
    id: String,
    /// The command and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// A file that describes the process, as in config.json
    #[arg(short, long, value_name = "FILE", conflicts_with = "command")]
    process: Option<PathBuf>,
    /// Return when it runs
    #[arg(short, long)]
    detach: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// The file that gets its number
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// The socket that gets a descriptor of it
    #[arg(long, value_name = "SOCKET")]
    pidfd_socket: Option<PathBuf>,
    /// In which control group below the container's it is (may be given several times)
    #[arg(long, value_name = "[CONTROLLER,...:]PATH")]
    cgroup: Vec<String>,
    /// Have it wait until a container that is paused goes on
    #[arg(long)]
    ignore_paused: bool,
    /// The socket that gets the terminal
    #[arg(long, value_name = "SOCKET")]
    console_socket: Option<PathBuf>,
    /// The working directory
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,
    /// A variable (may be given several times)
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// The user: `UID[:GID]`
    #[arg(short, long, value_name = "UID[:GID]", value_parser = user)]
    user: Option<(u32, Option<u32>)>,
    /// A group beside the user's (may be given several times)
    #[arg(short = 'g', long, value_name = "GID")]
    additional_gids: Vec<u32>,
    /// A capability beyond those of the container (may be given several times)
    #[arg(short, long, value_name = "NAME")]
    cap: Vec<String>,
    /// Whether set-user-ID programs gain nothing
    #[arg(long)]
    no_new_privs: bool,
    /// The AppArmor profile that it is in
    #[arg(long, value_name = "PROFILE")]
    apparmor: Option<String>,
    /// The SELinux label that it has
    #[arg(long, value_name = "LABEL")]
    process_label: Option<String>,
    /// Pass so many descriptors on beyond the standard ones
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    preserve_fds: u32,
}

/// So many bytes, also with a unit; a negative number is any amount.
fn amount(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(number) => Ok(number),
        Err(_) => i64::try_from(crate::engine::parse_bytes(text)?).map_err(|_| format!("`{text}` is too much")),
    }
}

fn user(text: &str) -> Result<(u32, Option<u32>), String> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("`{text}` is no number"));
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

/// Runs this process as an OCI runtime, if that is what it was called as. The process has one thread.
pub(in crate::cli) fn main(program: Option<&OsStr>) -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1).peekable();
    let name = program.and_then(|program| Path::new(program).file_name());
    if !NAMES.iter().any(|known| name == Some(OsStr::new(known))) && args.next_if(|first| first == "oci").is_none() {
        return None;
    }
    let arguments = match Arguments::try_parse_from(std::iter::once(OsString::from("strake oci")).chain(args)) {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return Some(ExitCode::from(u8::from(error.use_stderr())));
        }
    };
    let log = Log { path: arguments.log.clone(), format: arguments.log_format };
    if matches!(arguments.verb, Verb::Create(_) | Verb::Run(_) | Verb::Exec(_))
        && let Err(error) = runtime::seal_this_process(std::env::args_os())
    {
        log.error(&format!("cannot start again as a program that nobody can write to: {error}"));
        return Some(ExitCode::FAILURE);
    }
    Some(match run(arguments, &log) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            log.error(&failure.message);
            ExitCode::from(failure.code)
        }
    })
}

/// Why the command failed, in one line, and the exit code.
struct Failure {
    message: String,
    code: u8,
}

impl From<bundle::Error> for Failure {
    fn from(error: bundle::Error) -> Failure {
        Failure { message: crate::diag::with_causes(&error), code: 1 }
    }
}

impl Failure {
    fn file(verb: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
        let what = format!("cannot {verb} `{}`", path.display());
        move |error| Failure { message: format!("{what}: {error}"), code: 1 }
    }

    fn usage(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), code: 1 }
    }
}

fn run(arguments: Arguments, log: &Log) -> Result<u8, Failure> {
    let containers = Containers::new(arguments.root.unwrap_or_else(env::oci_root));
    let systemd = arguments.systemd_cgroup.then(env::systemd_manager);
    let warn = |warnings: &[String]| warnings.iter().for_each(|warning| log.warning(warning));
    match arguments.verb {
        Verb::Create(args) => {
            let made = create(&containers, &args, systemd, true)?;
            warn(&made.warnings);
        }
        Verb::Start(args) => warn(&bundle::start(&containers, &args.id)?),
        Verb::State(args) => report::result(&pretty(&bundle::state(&containers, &args.id)?)),
        Verb::Kill(args) => bundle::kill(&containers, &args.id, args.signal, args.all)?,
        Verb::Delete(args) => warn(&bundle::delete(&containers, &args.id, args.force)?),
        Verb::Run(args) => return run_container(&containers, &args, systemd, &warn),
        Verb::Exec(args) => return exec(&containers, *args, &warn).map_err(|failure| Failure { code: 255, ..failure }),
        Verb::List(args) => list(&containers, &args),
        Verb::Ps(args) => ps(&containers, &args)?,
        Verb::Pause(args) => bundle::pause(&containers, &args.id)?,
        Verb::Resume(args) => bundle::resume(&containers, &args.id)?,
        Verb::Update(args) => bundle::update(&containers, &args.id, &args.limits()?)?,
        Verb::Events(args) => events(&containers, &args)?,
        Verb::Checkpoint(_) | Verb::Restore(_) => return Err(Failure::usage("checkpoints of containers are not supported")),
        Verb::Features => report::result(&pretty(&bundle::features())),
        Verb::Spec(args) => {
            let path = args.bundle.join("config.json");
            if path.exists() {
                return Err(Failure::usage(format!("`{}` exists already", path.display())));
            }
            let template = if args.rootless { bundle::template_without_root() } else { bundle::template() };
            std::fs::write(&path, pretty(&template) + "\n").map_err(Failure::file("write", &path))?;
        }
    }
    Ok(0)
}

fn pretty(value: &impl serde::Serialize) -> String {
    // Cannot fail: strings and numbers into memory.
    serde_json::to_string_pretty(value).unwrap_or_default()
}

fn create(containers: &Containers, args: &CreateArgs, systemd: Option<SystemdManager>, leaves: bool) -> Result<Made, Failure> {
    let made = bundle::create(containers, &args.id, &args.options(systemd))?;
    if leaves && made.terminal.is_some() {
        let _ = bundle::delete(containers, &args.id, true);
        return Err(Failure::usage("the process has a terminal, and nobody gets it: name a --console-socket"));
    }
    Ok(made)
}

fn local<'a>(stdin: &'a std::io::Stdin, stdout: &'a std::io::Stdout, stderr: &'a std::io::Stderr) -> LocalIo<'a> {
    LocalIo { stdin: Some(stdin.as_fd()), stdout: stdout.as_fd(), stderr: stderr.as_fd() }
}

fn run_container(
    containers: &Containers,
    args: &RunArgs,
    systemd: Option<SystemdManager>,
    warn: &dyn Fn(&[String]),
) -> Result<u8, Failure> {
    let made = create(containers, &args.create, systemd, args.detach)?;
    let id = &args.create.id;
    warn(&made.warnings);
    match bundle::start(containers, id) {
        Ok(warnings) => warn(&warnings),
        Err(error) => {
            let _ = bundle::delete(containers, id, true);
            return Err(error.into());
        }
    }
    if args.detach {
        return Ok(0);
    }
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let code = bundle::wait(made, local(&stdin, &stdout, &stderr));
    if !args.keep {
        warn(&bundle::delete(containers, id, true)?);
    }
    Ok(code?)
}

fn exec(containers: &Containers, args: ExecArgs, warn: &dyn Fn(&[String])) -> Result<u8, Failure> {
    let process = match &args.process {
        Some(path) => {
            let bytes = std::fs::read(path).map_err(Failure::file("read", path))?;
            serde_json::from_slice(&bytes).map_err(|error| Failure::usage(format!("cannot parse `{}`: {error}", path.display())))?
        }
        None => process(containers, &args)?,
    };
    let process = Process { terminal: process.terminal || args.tty, ..process };
    if args.detach && process.terminal && args.console_socket.is_none() {
        return Err(Failure::usage("the process has a terminal, and nobody gets it: name a --console-socket"));
    }
    let options = ExecOptions {
        pid_file: args.pid_file,
        console_socket: args.console_socket,
        pidfd_socket: args.pidfd_socket,
        preserve_fds: args.preserve_fds,
        cgroups: args.cgroup,
        ignore_paused: args.ignore_paused,
    };
    let made = bundle::exec(containers, &args.id, &process, &options)?;
    warn(&made.warnings);
    if args.detach {
        return Ok(0);
    }
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    Ok(bundle::wait(made, local(&stdin, &stdout, &stderr))?)
}

/// The container's own process, with what the arguments say in its place.
fn process(containers: &Containers, args: &ExecArgs) -> Result<Process, Failure> {
    let own = bundle::process_of(containers, &args.id)?;
    if args.command.is_empty() {
        return Err(Failure::usage("no command: name one, or a file by --process"));
    }
    let mut process = Process { args: args.command.clone(), terminal: false, console_size: None, ..own };
    process.env.extend(args.env.iter().cloned());
    process.no_new_privileges |= args.no_new_privs;
    // One that is empty takes nothing away.
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    process.apparmor_profile = given(&args.apparmor).unwrap_or(process.apparmor_profile);
    process.selinux_label = given(&args.process_label).unwrap_or(process.selinux_label);
    process.user.additional_gids.extend(&args.additional_gids);
    if let Some(cwd) = &args.cwd {
        process.cwd.clone_from(cwd);
    }
    if let Some((uid, gid)) = args.user {
        process.user.uid = uid;
        process.user.gid = gid.unwrap_or(process.user.gid);
    }
    if !args.cap.is_empty() {
        let mut lists = process.capabilities.take().unwrap_or_default();
        // Not to be inherited: files of other users' making could raise it then (CVE-2022-29162).
        for list in [&mut lists.bounding, &mut lists.effective, &mut lists.permitted] {
            list.extend(args.cap.iter().cloned());
        }
        process.capabilities = Some(lists);
    }
    Ok(process)
}

fn list(containers: &Containers, args: &ListArgs) {
    let all = bundle::list(containers);
    if args.quiet {
        all.iter().for_each(|one| report::result(&one.id));
        return;
    }
    if args.format == ListFormat::Json {
        return report::result(&serde_json::to_string(&all).unwrap_or_default());
    }
    let mut table = Table::new(&["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    for one in all {
        let status = one.status.name().to_owned();
        table.row(vec![one.id, one.pid.to_string(), status, one.bundle, one.created, one.owner]);
    }
    report::result(&table.render());
}

fn ps(containers: &Containers, args: &PsArgs) -> Result<(), Failure> {
    let pids = bundle::processes(containers, &args.id)?;
    if args.format == ListFormat::Json {
        report::result(&serde_json::to_string(&pids).unwrap_or_default());
        return Ok(());
    }
    let mut table = Table::new(&["PID", "CMD"]);
    for pid in pids {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        table.row(vec![pid.to_string(), String::from_utf8_lossy(&line).replace('\0', " ").trim_end().to_owned()]);
    }
    report::result(&table.render());
    Ok(())
}

fn events(containers: &Containers, args: &EventsArgs) -> Result<(), Failure> {
    loop {
        report::result(&bundle::stats(containers, &args.id)?.to_string());
        if args.stats {
            return Ok(());
        }
        std::thread::sleep(args.interval);
        if bundle::state(containers, &args.id)?.status == Status::Stopped {
            return Ok(());
        }
    }
}

impl UpdateArgs {
    fn limits(&self) -> Result<Resources, Failure> {
        let mut limits: Resources = match &self.resources {
            None => Resources::default(),
            Some(path) => {
                let mut bytes = Vec::new();
                let read = match path == Path::new("-") {
                    true => std::io::stdin().read_to_end(&mut bytes).map(drop),
                    false => std::fs::read(path).map(|text| bytes = text),
                };
                read.map_err(Failure::file("read", path))?;
                serde_json::from_slice(&bytes).map_err(|error| Failure::usage(format!("cannot parse `{}`: {error}", path.display())))?
            }
        };
        limits.memory.limit = self.memory.or(limits.memory.limit);
        limits.memory.swap = self.memory_swap.or(limits.memory.swap);
        limits.memory.reservation = self.memory_reservation.or(limits.memory.reservation);
        limits.cpu.shares = self.cpu_shares.or(limits.cpu.shares);
        limits.cpu.period = self.cpu_period.or(limits.cpu.period);
        limits.cpu.quota = self.cpu_quota.or(limits.cpu.quota);
        limits.cpu.idle = self.cpu_idle.or(limits.cpu.idle);
        limits.cpu.burst = self.cpu_burst.or(limits.cpu.burst);
        limits.cpu.realtime_period = self.cpu_rt_period.or(limits.cpu.realtime_period);
        limits.cpu.realtime_runtime = self.cpu_rt_runtime.or(limits.cpu.realtime_runtime);
        limits.pids.limit = self.pids_limit.or(limits.pids.limit);
        limits.block_io.weight = self.blkio_weight.or(limits.block_io.weight);
        if let Some(cpus) = &self.cpuset_cpus {
            limits.cpu.cpus.clone_from(cpus);
        }
        if let Some(mems) = &self.cpuset_mems {
            limits.cpu.mems.clone_from(mems);
        }
        Ok(limits)
    }
}
