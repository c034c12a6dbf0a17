//! What a container is: the sandbox, and everything around it that outlives one run.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{EndpointSpec, HealthCheck, NameSettings};
use crate::oci::HealthConfig;
use crate::runtime::network::PortRequest;
use crate::runtime::{ForeignRuntime, SandboxSpec};

/// A container, as kept in `config.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The container's ID: 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The image as the user named it, for display.
    pub image: String,
    /// The image's ID, for display.
    pub image_id: String,
    /// What runs. The supervisor sets its network by `network`.
    pub sandbox: SandboxSpec,
    /// Whether it has a terminal.
    pub tty: bool,
    /// What its standard input is.
    pub stdin: StdinMode,
    /// Whether it is removed when it has ended. The engine does that; the supervisor does not.
    pub auto_remove: bool,
    /// Where its output is kept.
    pub log: LogSettings,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// How long after that it is killed.
    pub stop_timeout: Duration,
    /// The network that it asks for.
    pub network: NetworkRequest,
    /// When it was made: RFC 3339.
    pub created: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is started again when it has ended.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// How its health is found out.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// What it was made of, as the user and the image wrote it.
    #[serde(default)]
    pub written: Written,
    /// The file that its starts and ends are recorded in.
    #[serde(default)]
    pub journal: Option<PathBuf>,
    /// The ports that it publishes.
    #[serde(default)]
    pub ports: Vec<PortRequest>,
    /// How it finds names, and by which others find it.
    #[serde(default)]
    pub names: NameSettings,
    /// Who runs it; `None` is our own runtime.
    #[serde(default)]
    pub runtime: Option<ForeignRuntime>,
    /// Where IDs of the host are taken for users of its own ([`UserRange`](crate::runtime::UserRange)); `None` is the host's users.
    #[serde(default)]
    pub users: Option<PathBuf>,
}

/// What a container was made of, for display, and for what is made of the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The entry point.
    pub entrypoint: Vec<String>,
    /// The command's arguments after it.
    pub command: Vec<String>,
    /// The user.
    pub user: String,
    /// The working directory.
    pub workdir: String,
    /// The variables; those that every container has may be missing.
    pub env: Vec<String>,
    /// Whether the container's `HOME` is that of its user, rather than one that somebody set.
    pub home_of_user: bool,
    /// The ports that it says it listens at: `80/tcp`.
    pub ports: Vec<String>,
    /// The mounts that volumes of the image and of other containers are.
    pub volumes: Vec<String>,
    /// The options about security, as `inspect` shows them.
    #[serde(default)]
    pub security: Vec<String>,
    /// The signal that asks it to stop, where it was named.
    pub stop_signal: Option<String>,
    /// The options of the log.
    #[serde(default)]
    pub log_options: BTreeMap<String, String>,
    /// What others are to read of it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The volumes that it mounts.
    #[serde(default)]
    pub mounted_volumes: Vec<MountedVolume>,
    /// The devices that it got by names of CDI specifications.
    #[serde(default)]
    pub named_devices: Vec<String>,
    /// The rules about other devices.
    #[serde(default)]
    pub device_rules: Vec<String>,
    /// The groups beside the user's own.
    #[serde(default)]
    pub group_add: Vec<String>,
    /// The containers whose volumes it got: `NAME[:ro]`.
    #[serde(default)]
    pub volumes_from: Vec<String>,
    /// Whether all ports that it listens at are published.
    #[serde(default)]
    pub publish_all: bool,
    /// The options of its file systems in memory, by where each is mounted (`--tmpfs`).
    #[serde(default)]
    pub tmpfs: BTreeMap<String, String>,
    /// What `-v` asked for: `SOURCE:TARGET[:OPTIONS]`.
    #[serde(default)]
    pub binds: Vec<String>,
    /// What `--mount` asked for, in Docker's words.
    #[serde(default)]
    pub mounts: Vec<serde_json::Value>,
    /// The file that its ID was written to.
    #[serde(default)]
    pub cidfile: String,
    /// The triggers of its image.
    #[serde(default)]
    pub on_build: Vec<String>,
    /// The shell of its image.
    #[serde(default)]
    pub shell: Vec<String>,
    /// The streams that whoever made it was attached to: input, output, errors.
    #[serde(default)]
    pub attached: [bool; 3],
    /// The health check as the image and the user wrote it: what nobody says is 0. Containers of earlier versions have none.
    #[serde(default)]
    pub health: Option<HealthConfig>,
}

/// A volume in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedVolume {
    /// Its name.
    pub name: String,
    /// Where it is in the container.
    pub target: String,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// Whether a container is started again when it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Unless a user ended it.
    Always,
    /// The same; a user who ended it meant it beyond the machine's next start.
    UnlessStopped,
    /// If it failed; so often at most, where that is not 0.
    OnFailure(u32),
}

impl ContainerSpec {
    /// A container with the defaults of `docker run`: no terminal, no input, output in a log, SIGTERM and ten seconds.
    pub fn new(id: impl Into<String>, name: impl Into<String>, sandbox: SandboxSpec) -> ContainerSpec {
        ContainerSpec {
            id: id.into(),
            name: name.into(),
            image: String::new(),
            image_id: String::new(),
            sandbox,
            tty: false,
            stdin: StdinMode::Closed,
            auto_remove: false,
            log: LogSettings::default(),
            stop_signal: 15,
            stop_timeout: Duration::from_secs(10),
            network: NetworkRequest::None,
            created: jiff::Timestamp::now().to_string(),
            labels: BTreeMap::new(),
            restart: RestartPolicy::No,
            health: None,
            written: Written::default(),
            journal: None,
            ports: Vec::new(),
            names: NameSettings::default(),
            runtime: None,
            users: None,
        }
    }
}

/// What a container reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StdinMode {
    /// Nothing (`/dev/null`).
    Closed,
    /// What the first attached client sends; its end, or the client's leaving without detaching, is the end of the input (`run -i`).
    Once,
    /// What any attached client sends; it never ends (`run -d -i`).
    Open,
}

/// Where output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSettings {
    /// How.
    pub driver: LogDriver,
    /// Bytes after which a new file is begun.
    pub max_size: Option<u64>,
    /// How many files there may be, with the current one (at least one).
    pub max_files: u32,
    /// Whether older files are compressed.
    #[serde(default)]
    pub compress: bool,
}

impl Default for LogSettings {
    fn default() -> LogSettings {
        LogSettings { driver: LogDriver::JsonFile, max_size: None, max_files: 1, compress: false }
    }
}

impl LogSettings {
    /// What a driver does where nothing else is asked of it.
    pub fn of(driver: LogDriver) -> LogSettings {
        match driver {
            LogDriver::JsonFile | LogDriver::None => LogSettings { driver, ..LogSettings::default() },
            // As with Docker.
            LogDriver::Local => LogSettings { driver, max_size: Some(20 << 20), max_files: 5, compress: true },
        }
    }
}

/// How output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// In `container.log`, one JSON object for each line.
    JsonFile,
    /// The same, in a few files that are compressed when they are full.
    Local,
    /// Not at all.
    None,
}

/// The network that a container asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkRequest {
    /// The host's.
    Host,
    /// Only a loopback interface.
    None,
    /// That of another container, as long as that runs.
    Container {
        /// The other container's ID.
        id: String,
        /// Its directory.
        dir: PathBuf,
    },
    /// Places on these networks, in a namespace of its own that the supervisor makes and that is gone with it.
    Networks(Vec<EndpointSpec>),
}

/// An address for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostAddress {
    /// This one.
    Address(IpAddr),
    /// The host's, as seen from the container (`host-gateway`).
    Gateway,
}
