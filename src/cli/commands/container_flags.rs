//! The flags of `strake run` and `strake create` that say what a container is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser as _};
use clap::{Args, ValueEnum};

use crate::cli::env;
use crate::engine::{
    Error, HealthRequest, MountRequest, RunRequest, VolumesFrom, parse_bytes, parse_mount, parse_tmpfs, parse_volume, parse_volumes_from,
};
use crate::oci::Platform;
use crate::parser::{duration, signals};
use crate::path::RootPath;
use crate::runtime::container::{RestartPolicy, StdinMode};
use crate::runtime::{Capabilities, DeviceSpec, Rlimit, TerminalSize, cdi, namespace_of_parameter};

use super::containers::patience;
use super::isolation_flags::IsolationFlags;
use super::limit_flags::LimitFlags;
use super::log_flags::LogFlags;
use super::network_flags::NetworkFlags;
use super::runtime_flag::runtime;
use super::step_flags::ulimit;

// What a container is.
#[derive(Debug, Args)]
pub(super) struct ContainerFlags {
    /// The image; with `--build` in its place, the first word of the command
    #[arg(required_unless_present = "build")]
    pub(super) image: Option<String>,
    /// The command and its arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(super) command: Vec<String>,
    /// Remove the container when it has ended
    #[arg(long)]
    pub(super) rm: bool,
    /// Pass standard input on
    #[arg(short, long)]
    pub(super) interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(super) tty: bool,
    /// A variable; without `=`, that of the environment (may be given several times)
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// A file with variables, one a line (may be given several times)
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// A volume or a directory: `[SOURCE:]TARGET[:OPTIONS]`, where the options are `ro`, `nocopy` and a propagation such as `rslave` (may be given several times)
    #[arg(short, long = "volume", value_name = "SPEC", value_parser = parse_volume)]
    volume: Vec<MountRequest>,
    /// A mount: `type=bind|volume|tmpfs|image,source=…,target=…` (may be given several times)
    #[arg(long, value_name = "SPEC", value_parser = parse_mount)]
    mount: Vec<MountRequest>,
    /// All volumes of another container: `CONTAINER[:ro]` (may be given several times)
    #[arg(long, value_name = "CONTAINER", value_parser = parse_volumes_from)]
    volumes_from: Vec<VolumesFrom>,
    /// A file system in memory: `TARGET[:OPTIONS]` (may be given several times)
    #[arg(long, value_name = "SPEC", value_parser = tmpfs)]
    tmpfs: Vec<(String, MountRequest)>,
    /// The working directory, as a whole path
    #[arg(short, long, value_name = "DIR", value_parser = directory)]
    workdir: Option<String>,
    /// The user: `NAME|UID[:GROUP|GID]`
    #[arg(short, long, value_name = "USER", allow_negative_numbers = true)]
    user: Option<String>,
    /// A group beside the user's, by name or number (may be given several times)
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// In place of the image's entry point; an empty one takes it away
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// The container's name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    #[command(flatten)]
    network: NetworkFlags,
    /// The host name
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Run a small init as PID 1, which forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// The OCI runtime that runs it, such as `runc` or `crun`: a name in PATH, or a path [default: strake]
    #[arg(long, value_name = "RUNTIME")]
    runtime: Option<String>,
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
    #[command(flatten)]
    isolation: IsolationFlags,
    /// A device of this machine, or all devices in a directory: `PATH[:TARGET[:rwm]]`; or a device that a CDI specification describes: `VENDOR/CLASS=NAME` (may be given several times)
    #[arg(long, value_name = "DEVICE", value_parser = device)]
    device: Vec<Device>,
    /// A kernel parameter of the container's namespaces (may be given several times)
    #[arg(long, value_name = "NAME=VALUE", value_parser = sysctl)]
    sysctl: Vec<(String, String)>,
    /// A limit of each process: `NAME=SOFT[:HARD]` (may be given several times)
    #[arg(long, value_name = "LIMIT", value_parser = ulimit)]
    ulimit: Vec<Rlimit>,
    #[command(flatten)]
    limits: LimitFlags,
    /// The size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    shm_size: Option<u64>,
    /// How likely it is to be killed when memory runs out: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    oom_score_adj: Option<i32>,
    /// A label (may be given several times)
    #[arg(short, long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// A file with labels, one a line (may be given several times)
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// When it is started again after its end: `no`, `always`, `unless-stopped` or `on-failure[:TIMES]`
    #[arg(long, value_name = "POLICY", default_value = "no", value_parser = restart_policy)]
    restart: RestartPolicy,
    #[command(flatten)]
    health: HealthFlags,
    #[command(flatten)]
    log: LogFlags,
    /// The signal that asks it to stop
    #[arg(long, value_name = "SIGNAL", value_parser = signal)]
    stop_signal: Option<i32>,
    /// Seconds after that until it is killed; `-1` is never
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = patience)]
    stop_timeout: Option<Duration>,
    /// When to ask the registry for the image
    #[arg(long, value_enum, default_value = "missing")]
    pub(super) pull: Pull,
    /// The platform of the image
    #[arg(long, env = env::if_set(env::DEFAULT_PLATFORM), hide_env = true, value_name = "OS/ARCH")]
    pub(super) platform: Option<Platform>,
    /// Show no progress while the image is fetched
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Something about the container that others read in `strake inspect` (may be given several times)
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = annotation)]
    annotation: Vec<(String, String)>,
    /// Write the container's ID to a file
    #[arg(long, value_name = "FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub(super) cidfile: Option<PathBuf>,
    /// Show how to use this command
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

// How its health is found out.
#[derive(Debug, Args)]
struct HealthFlags {
    /// The command that tells whether it is well, for the image's shell
    #[arg(long, value_name = "COMMAND", conflicts_with = "no_healthcheck")]
    health_cmd: Option<String>,
    /// The time from one check to the next, such as `30s`
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    health_interval: Option<Duration>,
    /// How long one may take
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    health_timeout: Option<Duration>,
    /// How many failures in a row make it unhealthy
    #[arg(long, value_name = "NUMBER")]
    health_retries: Option<u32>,
    /// For how long after the start failures do not count
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    health_start_period: Option<Duration>,
    /// The time from one check to the next meanwhile
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    health_start_interval: Option<Duration>,
    /// Do not check its health, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
}

/// `--pull`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Pull {
    /// Each time
    Always,
    /// If it is not here
    Missing,
    /// Not at all
    Never,
}

/// Reads `--restart`.
pub(super) fn restart_policy(text: &str) -> Result<RestartPolicy, String> {
    match text.split_once(':') {
        None if text == "no" || text.is_empty() => Ok(RestartPolicy::No),
        None if text == "always" => Ok(RestartPolicy::Always),
        None if text == "unless-stopped" => Ok(RestartPolicy::UnlessStopped),
        None if text == "on-failure" => Ok(RestartPolicy::OnFailure(0)),
        Some(("on-failure", times)) => {
            times.parse().map(RestartPolicy::OnFailure).map_err(|_| format!("`{times}` is not a number of times"))
        }
        Some(("no" | "always" | "unless-stopped", _)) => Err("only on-failure takes a number of times".to_owned()),
        _ => Err("expected no, always, unless-stopped or on-failure[:TIMES]".to_owned()),
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    let nanoseconds = duration::parse(text)?;
    match u64::try_from(nanoseconds).map(Duration::from_nanos) {
        Err(_) => Err(format!("`{text}` is negative")),
        Ok(time) if !time.is_zero() && time < SHORTEST => Err(format!("`{text}` is shorter than 1ms")),
        Ok(time) => Ok(time),
    }
}

/// What Docker takes for a health check at least.
const SHORTEST: Duration = Duration::from_millis(1);

/// Reads `--tmpfs`, and keeps its options as they were written.
fn tmpfs(text: &str) -> Result<(String, MountRequest), String> {
    let options = text.split_once(':').map_or("", |(_, options)| options);
    Ok((options.to_owned(), parse_tmpfs(text)?))
}

/// Reads `--workdir`.
fn directory(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('/') {
        return Ok(text.to_owned());
    }
    Err(format!("the working directory '{text}' is invalid, it needs to be an absolute path"))
}

fn annotation(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        None if !text.is_empty() => Ok((text.to_owned(), String::new())),
        _ => Err("expected KEY[=VALUE]".to_owned()),
    }
}

/// `--device`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Device {
    /// One of the host, by its path.
    Path(DeviceSpec),
    /// One that a specification describes.
    Named(String),
}

fn device(text: &str) -> Result<Device, String> {
    if cdi::is_name(text) {
        return Ok(Device::Named(text.to_owned()));
    }
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, may) = match parts[..] {
        [source] => (source, source, "rwm"),
        [source, may] if !may.starts_with('/') => (source, source, may),
        [source, target] => (source, target, "rwm"),
        [source, target, may] => (source, target, may),
        _ => return Err("expected PATH[:TARGET[:rwm]] or VENDOR/CLASS=NAME".to_owned()),
    };
    // As it is without `..`: the container's other directories are not for devices.
    let place = RootPath::new(target);
    if !source.starts_with('/')
        || !target.starts_with('/')
        || place.components().next() != Some("dev".as_ref())
        || place.components().count() < 2
    {
        return Err("expected a path and a target below /dev, or VENDOR/CLASS=NAME".to_owned());
    }
    Ok(Device::Path(DeviceSpec { access: may.parse()?, ..DeviceSpec::new(source.into(), place) }))
}

fn sysctl(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected NAME=VALUE")?;
    let name = name.replace('/', ".");
    if matches!(namespace_of_parameter(&name), Some("ipc" | "network")) {
        return Ok((name, value.to_owned()));
    }
    Err(format!("`{name}` is not a parameter of a container's own namespaces"))
}

fn capability(name: &str) -> Result<Capabilities, String> {
    Capabilities::named(name).ok_or_else(|| format!("there is no capability `{name}`"))
}

/// Reads the name or number of a signal.
pub(super) fn signal(name: &str) -> Result<i32, String> {
    signals::number(name).ok_or_else(|| format!("there is no signal `{name}`"))
}

impl ContainerFlags {
    /// Whether it will be on the network of containers that ask for none, and for nothing there.
    pub(super) fn is_on_bridge(&self) -> bool {
        self.network.is_plain() && !self.isolation.wants_own_users()
    }

    /// The container that is asked for, made of `image`.
    pub(super) fn request(self, image: String, stdin: StdinMode) -> Result<RunRequest, Error> {
        if self.rm && self.restart != RestartPolicy::No {
            let hint = Some("a container that removes itself is not there to be started again".to_owned());
            return Err(Error::Usage { message: "--rm and --restart contradict each other".to_owned(), hint });
        }
        let union = |sets: &[Capabilities]| sets.iter().fold(Capabilities::NONE, |all, one| all.union(*one));
        let terminal = terminal_size(self.tty);
        let (log, log_options) = self.log.settings()?;
        let mut request = RunRequest {
            args: self.command,
            entrypoint: self.entrypoint,
            // Docker shows names with a slash in front, so scripts give them so.
            // An empty one is none.
            name: self.name.filter(|name| !name.is_empty()).map(|name| name.strip_prefix('/').map(str::to_owned).unwrap_or(name)),
            env: variables(&self.env_file, &self.env)?,
            labels: labels(&self.label_file, &self.label)?,
            workdir: self.workdir,
            user: self.user,
            group_add: self.group_add,
            hostname: self.hostname.filter(|name| !name.is_empty()),
            tty: self.tty,
            terminal,
            stdin,
            auto_remove: self.rm,
            tmpfs_options: self.tmpfs.iter().map(|(options, mount)| (mount.target().to_string(), options.clone())).collect(),
            mount_targets: self.mount.iter().map(|mount| mount.target().clone()).collect(),
            mounts: self.volume.into_iter().chain(self.mount).chain(self.tmpfs.into_iter().map(|(_, mount)| mount)).collect(),
            annotations: self.annotation.into_iter().collect(),
            cidfile: self.cidfile.map_or_else(String::new, |path| path.display().to_string()),
            volumes_from: self.volumes_from,
            runtime: self.runtime.as_deref().map(runtime).transpose()?.flatten(),
            init: self.init,
            read_only: self.read_only,
            privileged: self.privileged,
            cap_add: union(&self.cap_add),
            cap_drop: union(&self.cap_drop),
            devices: self
                .device
                .iter()
                .filter_map(|device| if let Device::Path(spec) = device { Some(spec.clone()) } else { None })
                .collect(),
            named_devices: self
                .device
                .into_iter()
                .filter_map(|device| if let Device::Named(name) = device { Some(name) } else { None })
                .collect(),
            sysctls: self.sysctl,
            rlimits: self.ulimit,
            oom_score_adjust: self.oom_score_adj,
            limits: self.limits.over(self.isolation.group())?,
            shm_size: self.shm_size,
            restart: self.restart,
            health: self.health.request(),
            log,
            log_options,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            platform: self.platform,
            ..RunRequest::new(image)
        };
        self.isolation.over(&mut request)?;
        self.network.apply(&mut request)?;
        Ok(request)
    }
}

impl HealthFlags {
    fn request(self) -> HealthRequest {
        HealthRequest {
            none: self.no_healthcheck,
            command: self.health_cmd,
            interval: self.health_interval,
            timeout: self.health_timeout,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
            retries: self.health_retries,
        }
    }
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
        for line in lines(file)? {
            let name = line.split('=').next().unwrap_or_default();
            if name.contains(char::is_whitespace) {
                let message = format!("the variable `{name}` in `{}` has a blank in its name", file.display());
                return Err(Error::Usage { message, hint: Some("write NAME=VALUE, without blanks around the `=`".into()) });
            }
            variables.push(variable(&line)?);
        }
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

/// The lines of a file that are neither empty nor comments.
fn lines(path: &PathBuf) -> Result<Vec<String>, Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.clone(), source })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let lines = text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}

/// The labels of files and flags.
pub(super) fn labels(files: &[PathBuf], flags: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let pair = |label: &String| {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        let hint = || Some("write `--label KEY=VALUE`".into());
        if key.is_empty() {
            return Err(Error::Usage { message: format!("the label `{label}` has no key"), hint: hint() });
        }
        Ok((key.to_owned(), value.to_owned()))
    };
    let mut all = Vec::new();
    for file in files {
        all.extend(lines(file)?);
    }
    all.iter().chain(flags).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_are_dockers() {
        assert_eq!(restart_policy("on-failure:3"), Ok(RestartPolicy::OnFailure(3)));
        assert_eq!(restart_policy("unless-stopped"), Ok(RestartPolicy::UnlessStopped));
        for text in ["always:3", "on-failure:-1", "on-failure:x", "sometimes"] {
            assert!(restart_policy(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parameters_of_the_whole_machine_are_refused() {
        assert!(sysctl("net.ipv4.ip_forward=1").is_ok() && sysctl("kernel.shmmax=1").is_ok() && sysctl("net/core/somaxconn=1").is_ok());
        for text in ["kernel.core_pattern=|x", "vm.overcommit_memory=1", "net.ipv4.ip_forward", "=1"] {
            assert!(sysctl(text).is_err(), "{text}");
        }
    }

    #[test]
    fn devices_have_a_target_below_dev() {
        let spec = |source: &str, target: &str| Device::Path(DeviceSpec::new(source.into(), RootPath::new(target)));
        assert_eq!(device("/dev/fuse"), Ok(spec("/dev/fuse", "/dev/fuse")));
        assert_eq!(device("/dev/fuse:/dev/x:rwm"), Ok(spec("/dev/fuse", "/dev/x")));
        assert_eq!(device("vendor.com/net=eth0"), Ok(Device::Named("vendor.com/net=eth0".to_owned())));
        let Ok(Device::Path(read_only)) = device("/dev/fuse:/dev/x:r") else { panic!("a device to read") };
        assert_eq!(read_only.access.to_string(), "r");
        for text in ["fuse", "/dev/fuse:/etc/x", "/dev/fuse:/dev/x:q", "/dev/fuse:/dev/x:", "vendor.com/net="] {
            assert!(device(text).is_err(), "{text}");
        }
    }
}
