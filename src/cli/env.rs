//! Every environment variable that Strake reads, and what follows from it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use crate::diag::Secret;
use crate::engine::{DoctorRequest, EngineOptions, Error, NetworkFiles, RegistrySettings, StorageDriver};
use crate::oci::Platform;
use crate::registry::{ClientOptions, CredentialFiles, Proxies, RegistriesFiles};
use crate::runtime::bundle::{BusSocket, SystemdManager};
use crate::runtime::container::Surroundings;
use crate::runtime::network::Program;
use crate::runtime::{Situation, situation};
use crate::task::{FAULT_POINTS, FaultPlan};

use super::Global;
use super::config::{Config, Users};

/// The store's directory; `--root` wins.
pub(super) const ROOT: &str = "STRAKE_ROOT";
/// The shell that asks what a command line may go on with; only for what `strake completion` writes.
pub(super) const COMPLETE: &str = "STRAKE_COMPLETE";
/// Where users keep data: the store of an ordinary user is `strake` in it.
const XDG_DATA_HOME: &str = "XDG_DATA_HOME";
/// The name of the user.
const USER: &str = "USER";
/// Where users keep what does not outlive a login.
const XDG_RUNTIME_DIR: &str = "XDG_RUNTIME_DIR";
/// Where a supervisor finds others of the user's; only for those.
const RUN_DIR: &str = "STRAKE_RUN_DIR";
/// Where a supervisor finds the file of this program; only for those.
const PROGRAM: &str = "STRAKE_PROGRAM";
/// Where users keep settings.
const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
/// The file with the user's settings.
const CONFIG: &str = "STRAKE_CONFIG";
/// Whose users containers have, where no flag says it. An ordinary user's are in a user namespace anyway.
///
/// # Errors
/// Settings that cannot be read.
pub(super) fn users() -> Result<Users, Error> {
    let wanted = config()?.containers.userns;
    Ok(wanted.filter(|_| situation() == Some(Situation::Root)).unwrap_or(Users::Host))
}

/// Whether builds are to give the same wherever they run; `--reproducible` wins, and this wins over the settings.
const REPRODUCIBLE: &str = "STRAKE_REPRODUCIBLE";
/// The time of a build, for `--build-arg SOURCE_DATE_EPOCH`; the flag wins.
const SOURCE_DATE_EPOCH: &str = crate::engine::SOURCE_DATE_EPOCH;
/// How root file systems are made: `overlay` or `copy`; this wins over the settings.
const STORAGE_DRIVER: &str = "STRAKE_STORAGE_DRIVER";
/// How many sockets a manager of services passes on.
const LISTEN_FDS: &str = "LISTEN_FDS";
/// To which process.
const LISTEN_PID: &str = "LISTEN_PID";
/// The home directory.
const HOME: &str = "HOME";
/// The directory of Docker's `config.json`.
const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
/// Where Docker's daemon listens: `unix://PATH`.
const DOCKER_HOST: &str = "DOCKER_HOST";
/// Credentials as JSON, in the format of `config.json`.
const DOCKER_AUTH_CONFIG: &str = "DOCKER_AUTH_CONFIG";
/// The file with credentials of podman and its relatives.
const REGISTRY_AUTH_FILE: &str = "REGISTRY_AUTH_FILE";
/// To how much a layer may unpack: a size such as `50GB`.
const MAX_LAYER_SIZE: &str = "STRAKE_MAX_LAYER_SIZE";
/// Proxies for registries, each in two spellings.
const PROXIES: [[&str; 2]; 3] = [["HTTP_PROXY", "http_proxy"], ["HTTPS_PROXY", "https_proxy"], ["NO_PROXY", "no_proxy"]];
/// The file about registries of podman and its relatives.
const CONTAINERS_REGISTRIES_CONF: &str = "CONTAINERS_REGISTRIES_CONF";
/// How progress is shown; `--progress` wins.
pub(super) const PROGRESS: &str = "BUILDKIT_PROGRESS";
/// Where credential helpers and other programs are looked for.
const PATH: &str = "PATH";
/// What terminal this is; `dumb` is one without colours and without a cursor that moves.
const TERM: &str = "TERM";
/// No colours, whatever its value.
pub(super) const NO_COLOR: &str = "NO_COLOR";
/// The platform to build for; `--platform` wins.
pub(super) const DEFAULT_PLATFORM: &str = "DOCKER_DEFAULT_PLATFORM";

/// Where a test has this process killed: `POINT:N`, or `POINT:N:stop`. Only builds with fault points look at it.
const FAULT: &str = "STRAKE_FAULT";
/// The file that gets the names of the fault points that this process passes.
const FAULT_TRACE: &str = "STRAKE_FAULT_TRACE";

/// The socket of the user's SSH agent, for `--ssh`.
const DBUS_SESSION_BUS_ADDRESS: &str = "DBUS_SESSION_BUS_ADDRESS";
const DBUS_SYSTEM_BUS_ADDRESS: &str = "DBUS_SYSTEM_BUS_ADDRESS";
const SSH_AUTH_SOCK: &str = "SSH_AUTH_SOCK";

/// Whether an OCI runtime is root's.
fn oci_is_roots() -> bool {
    // Engines of ordinary users call it as root of a user namespace, still with the user's name, which somebody who is root of a container does not have.
    let is_roots = text(USER).is_some_and(|name| name == "root") || crate::sys::privilege::in_initial_user_namespace();
    rustix::process::geteuid().is_root() && is_roots
}

/// Where containers of OCI bundles are on record unless the caller says otherwise.
pub(super) fn oci_root() -> PathBuf {
    let run = if oci_is_roots() { None } else { path(XDG_RUNTIME_DIR) };
    run.unwrap_or_else(|| PathBuf::from("/run")).join("strake/oci")
}

/// The systemd that makes control groups of OCI bundles: the machine's for root, otherwise the user's.
pub(super) fn systemd_manager() -> SystemdManager {
    let of_user = !oci_is_roots();
    let address = text(if of_user { DBUS_SESSION_BUS_ADDRESS } else { DBUS_SYSTEM_BUS_ADDRESS }).unwrap_or_default();
    let usual = || match path(XDG_RUNTIME_DIR) {
        Some(run) if of_user => run.join("bus"),
        _ => PathBuf::from("/run/dbus/system_bus_socket"),
    };
    let mut bus = BusSocket::of_addresses(&address);
    if bus.is_empty() {
        bus.push(BusSocket::Path(usual()));
    }
    SystemdManager { bus, of_user }
}

/// Arms the fault points of this process, in builds that have some.
///
/// # Errors
/// What is wrong with the variable.
pub(super) fn arm_fault_points() -> Result<(), Error> {
    if FAULT_POINTS {
        let plan = FaultPlan::parse(text(FAULT).as_deref(), path(FAULT_TRACE));
        plan.map_err(|reason| Error::Usage { message: format!("{FAULT}: {reason}"), hint: None })?.arm();
    }
    Ok(())
}

/// Whether a test interrupts this process.
pub(super) fn fault_points_are_armed() -> bool {
    FAULT_POINTS && (text(FAULT).is_some() || text(FAULT_TRACE).is_some())
}

fn path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How many sockets a manager of services has opened for this process (sd_listen_fds(3)), from the first descriptor beyond the standard ones on.
pub(super) fn listen_fds() -> u32 {
    let number = |name| text(name).and_then(|value| value.parse().ok());
    let are_ours = number(LISTEN_PID) == Some(std::process::id());
    number(LISTEN_FDS).filter(|_| are_ours).unwrap_or(0)
}

/// Whether colours are wanted on standard error.
pub(super) fn colours() -> bool {
    use std::io::IsTerminal;
    std::env::var_os(NO_COLOR).is_none_or(|value| value.is_empty()) && !dumb_terminal() && std::io::stderr().is_terminal()
}

/// Whether the terminal can do nothing but show text.
pub(super) fn dumb_terminal() -> bool {
    std::env::var_os(TERM).is_some_and(|value| value == "dumb")
}

/// The name of a variable that is set to something, for clap: what pipelines leave empty stands for no flag.
pub(super) fn if_set(name: &'static str) -> Option<&'static str> {
    std::env::var_os(name).is_some_and(|value| !value.is_empty()).then_some(name)
}

/// The platform that is meant where none is named, for commands with another flag in its place.
pub(super) fn default_platform() -> Result<Option<Platform>, Error> {
    let Some(value) = text(DEFAULT_PLATFORM).filter(|value| !value.is_empty()) else { return Ok(None) };
    let bad = |error: crate::oci::PlatformError| Error::Usage { message: format!("{DEFAULT_PLATFORM}: {error}"), hint: None };
    value.parse().map(Some).map_err(bad)
}

/// The value of a variable of the environment, for `--build-arg NAME` and `-e NAME`.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What terminal this is, for programs that run on it.
pub(super) fn term() -> Option<String> {
    text(TERM)
}

/// The socket of Docker's daemon.
///
/// # Errors
/// It listens elsewhere.
pub(super) fn docker_socket() -> Result<PathBuf, String> {
    let Some(host) = text(DOCKER_HOST) else { return Ok(PathBuf::from("/var/run/docker.sock")) };
    match host.strip_prefix("unix://") {
        Some(path) => Ok(PathBuf::from(path)),
        None => {
            Err("a Docker daemon is reached at a socket of this machine only: set DOCKER_HOST to `unix://PATH`, or to nothing".to_owned())
        }
    }
}

/// The socket of the user's SSH agent.
pub(super) fn ssh_auth_sock() -> Option<PathBuf> {
    path(SSH_AUTH_SOCK)
}

/// `SOURCE_DATE_EPOCH`, where it is set to something.
pub(super) fn source_date_epoch() -> Option<(&'static str, String)> {
    text(SOURCE_DATE_EPOCH).map(|value| (SOURCE_DATE_EPOCH, value))
}

/// Whether builds are to give the same wherever they run, where no flag says it: by the environment, or else by the settings.
///
/// # Errors
/// Neither true nor false, and settings that cannot be read.
pub(super) fn reproducible() -> Result<bool, Error> {
    match text(REPRODUCIBLE).as_deref() {
        Some("1" | "true") => Ok(true),
        Some("0" | "false") => Ok(false),
        Some(other) => Err(Error::Usage { message: format!("{REPRODUCIBLE} is `{other}`"), hint: Some("set it to 1 or to 0".into()) }),
        None => Ok(config()?.build.reproducible.unwrap_or(false)),
    }
}

/// How root file systems are made, where somebody says so: by the environment, or else by the settings.
///
/// # Errors
/// No such driver, and settings that cannot be read.
fn storage_driver() -> Result<Option<StorageDriver>, Error> {
    match text(STORAGE_DRIVER) {
        Some(name) => {
            let hint = Some("leave it out to have strake find out what works".to_owned());
            name.parse().map(Some).map_err(|reason| Error::Usage { message: format!("{STORAGE_DRIVER}: {reason}"), hint })
        }
        None => Ok(config()?.storage.driver),
    }
}

/// The user's settings.
///
/// # Errors
/// They cannot be read, or say what has no meaning.
pub(super) fn config() -> Result<Config, Error> {
    match config_file() {
        Some((path, asked)) => Config::load(&path, asked),
        None => Ok(Config::default()),
    }
}

/// The file with the user's settings, and whether it was asked for.
fn config_file() -> Option<(PathBuf, bool)> {
    if let Some(path) = path(CONFIG) {
        return Some((path, true));
    }
    let dir = path(XDG_CONFIG_HOME).or_else(|| path(HOME).map(|home| home.join(".config")))?;
    Some((dir.join("strake/config.toml"), false))
}

/// What the user's settings say of registries.
///
/// # Errors
/// As [`config`].
fn registry_settings() -> Result<RegistrySettings, Error> {
    let file = config_file().map(|(path, _)| path).unwrap_or_default();
    Ok(config()?.registry_settings(file))
}

/// The store's directory.
fn store_root(global: &Global) -> PathBuf {
    let home = || path(HOME).unwrap_or_else(|| PathBuf::from("/"));
    let data = || path(XDG_DATA_HOME).unwrap_or_else(|| home().join(".local/share")).join("strake");
    global.root.clone().unwrap_or_else(|| if global.rootless { data() } else { PathBuf::from("/var/lib/strake") })
}

/// The store's directory, as the environment says.
pub(super) fn root() -> Option<PathBuf> {
    path(ROOT)
}

/// Where processes of one boot find each other.
pub(super) fn run_dir(global: &Global) -> PathBuf {
    match path(XDG_RUNTIME_DIR) {
        _ if !global.rootless => PathBuf::from("/run/strake"),
        Some(dir) => dir.join("strake"),
        None => store_root(global).join("run"),
    }
}

/// All variables, as the init of a container passes them on.
pub(super) fn all() -> Vec<OsString> {
    let entry = |(name, value): (OsString, OsString)| [name, value].join(OsStr::new("="));
    std::env::vars_os().map(entry).collect()
}

/// What the supervisor of a container finds around it.
pub(super) fn surroundings() -> Surroundings {
    Surroundings { programs: Program::find(&program_dirs()), run_dir: path(RUN_DIR), program: path(PROGRAM) }
}

/// Where everything is, from the command line, the environment and the user.
pub(super) fn engine_options(global: &Global) -> EngineOptions {
    let home = path(HOME).unwrap_or_else(|| PathBuf::from("/"));
    let root = store_root(global);
    let mut client = ClientOptions {
        plain_http: global.plain_http.clone(),
        skip_tls_verify: global.tls_skip_verify.clone(),
        user_agent: concat!("strake/", env!("CARGO_PKG_VERSION")).to_owned(),
        certs_dirs: certs_dirs(&home),
        ..ClientOptions::default()
    };
    let proxy = |names: [&str; 2]| names.iter().find_map(|name| text(name));
    client.proxies =
        Proxies { http: proxy(PROXIES[0]).map(Secret::new), https: proxy(PROXIES[1]).map(Secret::new), no_proxy: proxy(PROXIES[2]) };
    let registries = RegistriesFiles {
        asked: path(CONTAINERS_REGISTRIES_CONF),
        user: Some(home.join(".config/containers/registries.conf")),
        system: Some(PathBuf::from("/etc/containers/registries.conf")),
    };
    EngineOptions {
        run_dir: run_dir(global),
        root,
        credentials: credential_files(&home, global),
        client,
        registries,
        registry_settings,
        max_layer_size: text(MAX_LAYER_SIZE),
        network: network_files(),
        programs: program_dirs(),
        storage_driver,
    }
}

/// What `strake doctor` is asked about.
pub(super) fn doctor_request(global: &Global) -> DoctorRequest {
    let EngineOptions { root, credentials, registries, programs, .. } = engine_options(global);
    let settings = credentials
        .asked
        .into_iter()
        .chain(credentials.docker_config)
        .chain(credentials.auth_json)
        .chain(registries.asked)
        .chain(registries.user)
        .chain(registries.system);
    // What is wrong with the settings is said by whoever needs them.
    let storage_driver = storage_driver().ok().flatten();
    DoctorRequest { root, rootless: global.rootless, settings: settings.collect(), programs, storage_driver }
}

/// Where a registry keeps what it has, if the command line does not say.
pub(super) fn registry_storage(global: &Global) -> PathBuf {
    if !global.rootless {
        return PathBuf::from("/var/lib/strake-registry");
    }
    let home = || path(HOME).unwrap_or_else(|| PathBuf::from("/")).join(".local/share");
    path(XDG_DATA_HOME).unwrap_or_else(home).join("strake-registry")
}

/// Where certificates of registries are: the user's first.
fn certs_dirs(home: &std::path::Path) -> Vec<PathBuf> {
    let settings = path(XDG_CONFIG_HOME).unwrap_or_else(|| home.join(".config"));
    let own = ["docker/certs.d", "containers/certs.d"].map(|dir| settings.join(dir));
    own.into_iter().chain(["/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from)).collect()
}

fn credential_files(home: &std::path::Path, global: &Global) -> CredentialFiles {
    let docker = path(DOCKER_CONFIG).unwrap_or_else(|| home.join(".docker"));
    let mut auth_json: Vec<PathBuf> = path(XDG_RUNTIME_DIR).map(|dir| dir.join("containers/auth.json")).into_iter().collect();
    auth_json.push(PathBuf::from(format!("/run/containers/{}/auth.json", nix::unistd::getuid())));
    auth_json.push(home.join(".config/containers/auth.json"));
    CredentialFiles {
        asked: global.authfile.clone().or_else(|| path(REGISTRY_AUTH_FILE)),
        docker_config: Some(docker.join("config.json")),
        auth_json,
        inline: text(DOCKER_AUTH_CONFIG).map(Secret::new),
        helper_dirs: program_dirs(),
    }
}

/// Where programs are looked for.
pub(super) fn program_dirs() -> Vec<PathBuf> {
    std::env::var_os(PATH).map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

fn network_files() -> NetworkFiles {
    NetworkFiles {
        resolv_conf: "/etc/resolv.conf".into(),
        upstream_resolv_conf: "/run/systemd/resolve/resolv.conf".into(),
        hosts: "/etc/hosts".into(),
    }
}
