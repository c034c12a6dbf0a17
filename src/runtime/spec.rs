//! What a sandbox is to be: the complete, typed description that [`launch`](super::launch()) and the [`Spawner`](super::Spawner) apply.
//!
//! A spec holds plain values and serialises to JSON, because it travels to the spawner and is kept with a container. Names that Linux treats as bytes
//! (paths, arguments, environment) stay bytes: they are written as a string where they are UTF-8 and as an array of numbers otherwise.
//! Descriptors are not part of it; they travel beside it in [`SandboxIo`](super::SandboxIo).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::apparmor::AppArmor;
use super::bundle::{DeviceRule, Hooks};
use super::capabilities::Capabilities;
use super::namespaces::Namespaces;
use super::seccomp::SeccompRules;
use super::wire;
use crate::path::RootPath;
use crate::sys::RootfsMount;

/// A process and the world that it sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The root file system. Every one of [`mount_targets`](super::mount_targets) must exist in it.
    #[serde(with = "wire::rootfs")]
    pub rootfs: RootfsMount,
    /// Whether the overlay may skip syncing (`volatile`): right where a crash throws the writable layer away, as in build steps.
    pub volatile: bool,
    /// Whether the root file system is mounted read-only (mounts on it keep their own mode).
    pub read_only_root: bool,
    /// The host name inside.
    pub hostname: String,
    /// What runs.
    pub process: ProcessSpec,
    /// Mounts beyond those that every sandbox has, in the order in which they are made.
    pub mounts: Vec<MountSpec>,
    /// The size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Devices of the host that the sandbox gets beyond the default ones.
    pub devices: Vec<DeviceSpec>,
    /// Rules about the use of devices beyond those, in order. With any, nodes that the sandbox makes on its root and in `/dev` work as far as rules allow.
    #[serde(default)]
    pub device_rules: Vec<DeviceRule>,
    /// Kernel parameters of the sandbox's namespaces, written to `/proc/sys` (`net.ipv4.ip_forward`, value).
    pub sysctls: Vec<(String, String)>,
    /// The network.
    pub network: NetworkMode,
    /// The other namespaces.
    #[serde(default)]
    pub namespaces: Namespaces,
    /// What the process may do.
    pub privileges: Privileges,
    /// The system call filter. That of [`Seccomp::Default`] is none with [`Privileges::Insecure`].
    pub seccomp: Seccomp,
    /// The AppArmor profile. What was made before there were any goes on without.
    #[serde(default = "AppArmor::of_earlier_versions")]
    pub apparmor: AppArmor,
    /// Whether the kernel's sensitive files are masked (never with [`Privileges::Insecure`]).
    pub system_paths: SystemPaths,
    /// The control group; `None` goes without limits, and uses one only where that is cheap.
    pub cgroup: Option<CgroupSpec>,
    /// How the process is kept apart from what is around it.
    #[serde(default)]
    pub isolation: Isolation,
    /// Whether PID 1 is a small init that forwards signals and reaps orphans, with the process as its child.
    pub init: bool,
    /// What another runtime is told of it.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// What such a runtime executes on the way.
    #[serde(default)]
    pub hooks: Hooks,
}

/// The size that `/dev/shm` has by default: 64 MiB.
pub const DEFAULT_SHM_SIZE: u64 = 64 << 20;

impl SandboxSpec {
    /// A spec with the defaults of a build step or container: private namespaces, no network, default privileges.
    pub fn new(rootfs: RootfsMount, process: ProcessSpec) -> SandboxSpec {
        SandboxSpec {
            rootfs,
            volatile: false,
            read_only_root: false,
            hostname: "localhost".to_owned(),
            process,
            mounts: Vec::new(),
            shm_size: DEFAULT_SHM_SIZE,
            devices: Vec::new(),
            device_rules: Vec::new(),
            sysctls: Vec::new(),
            network: NetworkMode::None,
            namespaces: Namespaces::default(),
            privileges: Privileges::default(),
            seccomp: Seccomp::Default,
            apparmor: AppArmor::Default,
            system_paths: SystemPaths::Masked,
            cgroup: None,
            isolation: Isolation::Namespaces,
            init: false,
            annotations: BTreeMap::new(),
            hooks: Hooks::default(),
        }
    }

    /// Whether device nodes on the root and in `/dev` work that the sandbox did not get: where nothing forbids it, or rules of its control group do.
    pub(super) fn has_nodes(&self) -> bool {
        self.privileges == Privileges::Insecure || !self.device_rules.is_empty()
    }
}

/// How a process is kept apart from what is around it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// By namespaces and mounts.
    #[default]
    Namespaces,
    /// By its root directory alone. That holds all files, and what would be mounted is put into it for as long as the process runs.
    Chroot {
        /// Which of the mounts, by number, are directories that may be moved there and back, as nobody else uses them meanwhile, or files whose copy may be written.
        lent: Vec<usize>,
    },
}

/// The process that a sandbox runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// The command and its arguments. The command is looked up in the `PATH` of `env` unless it has a slash.
    #[serde(with = "wire::names")]
    pub args: Vec<OsString>,
    /// The whole environment, `NAME=value` each.
    #[serde(with = "wire::names")]
    pub env: Vec<OsString>,
    /// The working directory, which must exist.
    #[serde(with = "wire::root_path")]
    pub cwd: RootPath,
    /// Who it runs as.
    pub user: Credentials,
    /// The size of the terminal, where it has one ([`Stdio::Terminal`](super::Stdio::Terminal)).
    pub terminal: Option<TerminalSize>,
    /// Whether set-user-ID programs gain nothing.
    pub no_new_privileges: bool,
    /// The file mode creation mask.
    pub umask: u32,
    /// Resource limits; those that are not named are inherited.
    pub rlimits: Vec<Rlimit>,
    /// How readily the process is killed when memory runs out (-1000 to 1000).
    pub oom_score_adjust: Option<i32>,
}

impl ProcessSpec {
    /// A process with these arguments and environment, as root in `/`.
    pub fn new(args: Vec<OsString>, env: Vec<OsString>) -> ProcessSpec {
        ProcessSpec {
            args,
            env,
            cwd: RootPath::root(),
            user: Credentials::default(),
            terminal: None,
            no_new_privileges: false,
            umask: 0o022,
            rlimits: Vec::new(),
            oom_score_adjust: None,
        }
    }
}

/// User and groups of a process, as numbers. Names are resolved by who makes the spec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The supplementary groups.
    pub additional_gids: Vec<u32>,
}

/// Rows and columns of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters per line.
    pub columns: u16,
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit in force; `u64::MAX` is none.
    pub soft: u64,
    /// How far the process may raise it; `u64::MAX` is none.
    pub hard: u64,
}

/// What `setrlimit(2)` can limit, by the names of `--ulimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Address space.
    As,
    /// Core file size.
    Core,
    /// CPU time in seconds.
    Cpu,
    /// Data segment.
    Data,
    /// File size.
    Fsize,
    /// File locks.
    Locks,
    /// Locked memory.
    Memlock,
    /// Bytes in POSIX message queues.
    Msgqueue,
    /// Nice priority ceiling.
    Nice,
    /// Open files.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Resident set.
    Rss,
    /// Real-time priority ceiling.
    Rtprio,
    /// CPU time of a real-time process.
    Rttime,
    /// Pending signals.
    Sigpending,
    /// Stack size.
    Stack,
}

/// One mount of a sandbox. Targets are resolved inside of the root; links in an image cannot lead them out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MountSpec {
    /// A file or directory of the host.
    Bind {
        /// What is mounted.
        source: BindSource,
        /// Where.
        #[serde(with = "wire::root_path")]
        target: RootPath,
        /// Whether `source` is not a directory: the kind of mount point that it needs.
        is_file: bool,
        /// Whether writes are refused.
        read_only: bool,
        /// Whether mounts below the source come along.
        recursive: bool,
        /// How later mounts travel between host and sandbox.
        propagation: Propagation,
        /// Options beyond these.
        options: MountOptions,
    },
    /// A new, empty file system in memory.
    Tmpfs {
        /// Where.
        #[serde(with = "wire::root_path")]
        target: RootPath,
        /// The size limit in bytes; `None` is the kernel's (half of the memory).
        size: Option<u64>,
        /// How many files it may have; `None` is the kernel's limit.
        #[serde(default)]
        inodes: Option<u64>,
        /// Permissions of its root directory.
        mode: u32,
        /// Owner and group of its root directory.
        owner: (u32, u32),
        /// Whether writes are refused.
        read_only: bool,
        /// Options beyond these.
        options: MountOptions,
        /// What is seldom asked for.
        #[serde(default)]
        tuning: TmpfsTuning,
    },
    /// A file system of a device or a server, mounted for this sandbox alone.
    Filesystem {
        /// Its type: `nfs`, `ext4`.
        kind: String,
        /// Its device, or what the type takes for one.
        source: String,
        /// What it is told: keys, most with a value.
        options: Vec<(String, Option<String>)>,
        /// Where.
        #[serde(with = "wire::root_path")]
        target: RootPath,
        /// Whether writes are refused.
        read_only: bool,
        /// Options of the mount.
        flags: MountOptions,
    },
    /// An overlay of other directories, such as another image's root: read-only, unless it has a directory for the changes.
    Overlay {
        /// What is mounted.
        #[serde(with = "wire::rootfs")]
        rootfs: RootfsMount,
        /// The directory in it that is wanted.
        #[serde(with = "wire::root_path")]
        subpath: RootPath,
        /// Where.
        #[serde(with = "wire::root_path")]
        target: RootPath,
        /// Whether what is wanted is not a directory.
        is_file: bool,
    },
}

impl MountSpec {
    /// Where it is mounted.
    pub fn target(&self) -> &RootPath {
        match self {
            MountSpec::Bind { target, .. }
            | MountSpec::Tmpfs { target, .. }
            | MountSpec::Filesystem { target, .. }
            | MountSpec::Overlay { target, .. } => target,
        }
    }
}

/// What a bind mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindSource {
    /// A path of the host.
    Path(#[serde(with = "wire::path")] PathBuf),
    /// What a path leads to inside of a directory whose content is not trusted: it is looked for once, when it is mounted, and no link leads out.
    Below {
        /// The directory of the host.
        #[serde(with = "wire::path")]
        directory: PathBuf,
        /// The path in it.
        #[serde(with = "wire::root_path")]
        path: RootPath,
    },
    /// An open file or directory: the index in [`SandboxIo::mount_fds`](super::SandboxIo::mount_fds). Safe where the tree is not trusted.
    Descriptor(usize),
}

impl From<PathBuf> for BindSource {
    fn from(path: PathBuf) -> BindSource {
        BindSource::Path(path)
    }
}

/// How mounts made later travel between the host and the sandbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Not at all.
    #[default]
    Private,
    /// From the host into the sandbox.
    Slave,
    /// Both ways.
    Shared,
    /// Not at all, nor can it be mounted elsewhere.
    Unbindable,
}

/// What of a file system in memory is seldom asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsTuning {
    /// When reading a file changes its time of access.
    pub access_times: AccessTimes,
    /// Whether reading a directory does not change its time of access.
    pub nodiratime: bool,
    /// How mounts on it travel to copies of it that the sandbox makes.
    pub propagation: Propagation,
    /// More of its settings, some with a value: `sync`, `mpol`.
    pub settings: Vec<(String, Option<String>)>,
}

/// When reading a file changes its time of access.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessTimes {
    /// Where it was older than the last change, or than a day.
    #[default]
    Relative,
    /// Never.
    Never,
    /// Always.
    Strict,
}

/// Mount options that restrict what can be done on a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountOptions {
    /// Set-user-ID bits are ignored.
    pub nosuid: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// Whether a sandbox with users of its own ([`SandboxIo::users`](super::SandboxIo::users)) sees the files as theirs: right for what belongs to sandboxes alone.
    #[serde(default)]
    pub mapped: bool,
    /// Where writes are refused, mounts that came along below take them all the same.
    #[serde(default)]
    pub writable_below: bool,
}

/// A device of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// The device node of the host.
    #[serde(with = "wire::path")]
    pub source: PathBuf,
    /// Where it appears; below `/dev`.
    #[serde(with = "wire::root_path")]
    pub target: RootPath,
    /// What may be done with it.
    #[serde(default)]
    pub access: DeviceAccess,
    /// The node that is made in its place, where it is not the host's own that appears.
    #[serde(default)]
    pub node: Option<DeviceNode>,
}

impl DeviceSpec {
    /// The host's device `source`, for all uses.
    pub fn new(source: PathBuf, target: RootPath) -> DeviceSpec {
        DeviceSpec { source, target, access: DeviceAccess::ALL, node: None }
    }
}

/// A device node with numbers and owners of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNode {
    /// What it is.
    pub kind: NodeKind,
    /// The major number; none of a pipe's.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
    /// Its permissions.
    pub mode: u32,
    /// Its user and group.
    pub owner: (u32, u32),
}

/// What a device node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NodeKind {
    /// A block device.
    Block,
    /// A character device.
    Character,
    /// A named pipe.
    Pipe,
}

impl NodeKind {
    /// The letter that stands for it in rules and specifications.
    pub fn letter(self) -> &'static str {
        match self {
            NodeKind::Block => "b",
            NodeKind::Character => "c",
            NodeKind::Pipe => "p",
        }
    }
}

/// What may be done with a device: read it, write to it, make nodes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DeviceAccess(u8);

impl DeviceAccess {
    /// All of it.
    pub const ALL: DeviceAccess = DeviceAccess(7);

    const LETTERS: [char; 3] = ['r', 'w', 'm'];

    /// Whether it cannot be used in full. (Everyone may make nodes.)
    pub fn is_restricted(self) -> bool {
        self.0 & 3 != 3
    }
}

impl Default for DeviceAccess {
    fn default() -> DeviceAccess {
        DeviceAccess::ALL
    }
}

impl FromStr for DeviceAccess {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceAccess, String> {
        let mut bits = 0;
        for letter in text.chars() {
            match DeviceAccess::LETTERS.iter().position(|known| *known == letter) {
                Some(at) => bits |= 1 << at,
                None => return Err(format!("`{text}` says nothing about a device: expected a choice of r, w and m")),
            }
        }
        if bits == 0 { Err("expected a choice of r, w and m".to_owned()) } else { Ok(DeviceAccess(bits)) }
    }
}

impl fmt::Display for DeviceAccess {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = DeviceAccess::LETTERS.iter().enumerate();
        letters.filter(|(at, _)| self.0 & (1 << at) != 0).try_for_each(|(_, letter)| write!(out, "{letter}"))
    }
}

impl From<DeviceAccess> for String {
    fn from(access: DeviceAccess) -> String {
        access.to_string()
    }
}

impl TryFrom<String> for DeviceAccess {
    type Error = String;

    fn try_from(text: String) -> Result<DeviceAccess, String> {
        text.parse()
    }
}

/// The network that a sandbox is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The host's.
    Host,
    /// Its own, with nothing but the loopback interface.
    None,
    /// The namespace in [`SandboxIo::netns`](super::SandboxIo::netns).
    Joined,
}

/// What a process may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privileges {
    /// The 14 default capabilities with `add` and without `drop`.
    Default {
        /// Capabilities beyond the default ones.
        add: Capabilities,
        /// Default capabilities that are taken away (wins over an `add` of all, but what is added by name stays, as with Docker).
        drop: Capabilities,
    },
    /// All capabilities, all devices, no filter, nothing masked, `/sys` and cgroups writable.
    Insecure,
}

impl Default for Privileges {
    fn default() -> Privileges {
        Privileges::Default { add: Capabilities::NONE, drop: Capabilities::NONE }
    }
}

impl Privileges {
    /// The capabilities that the process's bounding set has.
    pub fn capabilities(self) -> Capabilities {
        match self {
            Privileges::Insecure => Capabilities::ALL,
            Privileges::Default { add, drop } if add == Capabilities::ALL => add.without(drop),
            Privileges::Default { add, drop } => Capabilities::DEFAULT.without(drop).union(add),
        }
    }
}

/// The system call filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// The default profile.
    Default,
    /// None.
    Unconfined,
    /// Other rules.
    Rules(Box<SeccompRules>),
}

/// What is done about sensitive files of `/proc` and `/sys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SystemPaths {
    /// They are masked or read-only.
    Masked,
    /// They are as the kernel shows them.
    Unconfined,
}

/// The control group of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// The directory's name; made up where it is `None`.
    pub name: Option<String>,
    /// The group that it is made in, from the root of the hierarchy; a place that suits the system where it is `None`.
    pub parent: Option<String>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; `u64::MAX` is no limit. Without it, twice `memory`.
    pub memory_swap: Option<u64>,
    /// Bytes of memory that are protected when memory is short.
    pub memory_reservation: Option<u64>,
    /// Thousandths of a CPU per unit of time.
    pub cpu_millis: Option<u64>,
    /// Microseconds of CPU time per `cpu_period`; exact, where `cpu_millis` is comfortable. Used only without that.
    pub cpu_quota: Option<u64>,
    /// Microseconds; 100,000 where it is `None`.
    pub cpu_period: Option<u64>,
    /// Relative weight, as `--cpu-shares` (2 to 262144, 1024 is normal).
    pub cpu_shares: Option<u64>,
    /// The CPUs that may be used (`0-3,7`).
    pub cpuset_cpus: Option<String>,
    /// The memory nodes that may be used.
    pub cpuset_mems: Option<String>,
    /// Number of processes and threads.
    pub pids: Option<u64>,
    /// Relative weight of disk access, 10 to 1000.
    #[serde(default)]
    pub blkio_weight: Option<u64>,
    /// Limits of disks.
    #[serde(default)]
    pub throttles: Vec<Throttle>,
    /// How readily the kernel swaps, 0 to 100; version 1 only.
    #[serde(default)]
    pub swappiness: Option<u64>,
    /// Whether processes wait for memory, rather than being killed, when they reach the limit; version 1 only.
    #[serde(default)]
    pub oom_kill_disable: bool,
}

/// A limit of one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Throttle {
    /// The device's node, for display.
    #[serde(with = "wire::path")]
    pub path: PathBuf,
    /// Its major and minor number.
    pub device: (u32, u32),
    /// What is limited.
    pub kind: ThrottleKind,
    /// Bytes or operations in a second.
    pub rate: u64,
}

/// What is limited of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThrottleKind {
    /// Bytes that are read.
    ReadBytes,
    /// Bytes that are written.
    WriteBytes,
    /// Reads.
    ReadOperations,
    /// Writes.
    WriteOperations,
}

impl CgroupSpec {
    /// The limits that differ from those of `before`; a number of processes without a limit is the largest number.
    pub fn changed_from(&self, before: &CgroupSpec) -> CgroupSpec {
        fn changed<T: PartialEq + Clone>(new: &Option<T>, old: &Option<T>) -> Option<T> {
            new.clone().filter(|_| new != old)
        }
        let swap = changed(&self.memory_swap, &before.memory_swap);
        CgroupSpec {
            // The kernel knows the two together only.
            memory: changed(&self.memory, &before.memory).or(self.memory.filter(|_| swap.is_some())),
            memory_swap: self.memory_swap,
            memory_reservation: changed(&self.memory_reservation, &before.memory_reservation),
            cpu_millis: changed(&self.cpu_millis, &before.cpu_millis),
            cpu_quota: changed(&self.cpu_quota, &before.cpu_quota),
            cpu_period: changed(&self.cpu_period, &before.cpu_period),
            cpu_shares: changed(&self.cpu_shares, &before.cpu_shares),
            cpuset_cpus: changed(&self.cpuset_cpus, &before.cpuset_cpus),
            cpuset_mems: changed(&self.cpuset_mems, &before.cpuset_mems),
            pids: changed(&self.pids, &before.pids).or(before.pids.filter(|_| self.pids.is_none()).map(|_| u64::MAX)),
            blkio_weight: changed(&self.blkio_weight, &before.blkio_weight),
            throttles: self.throttles.iter().filter(|throttle| !before.throttles.contains(throttle)).cloned().collect(),
            swappiness: changed(&self.swappiness, &before.swappiness),
            oom_kill_disable: self.oom_kill_disable && !before.oom_kill_disable,
            name: None,
            parent: None,
        }
    }

    /// Whether any limit is asked for.
    pub fn has_limits(&self) -> bool {
        let CgroupSpec {
            name: _,
            parent: _,
            memory,
            memory_swap,
            memory_reservation,
            cpu_millis,
            cpu_quota,
            cpu_period,
            cpu_shares,
            cpuset_cpus,
            cpuset_mems,
            pids,
            blkio_weight,
            throttles,
            swappiness,
            oom_kill_disable,
        } = self;
        [blkio_weight, swappiness, memory, memory_swap, memory_reservation, cpu_millis, cpu_quota, cpu_period, cpu_shares, pids]
            .iter()
            .any(|limit| limit.is_some())
            || cpuset_cpus.is_some()
            || cpuset_mems.is_some()
            || !throttles.is_empty()
            || *oom_kill_disable
    }

    /// Whether a group of its own is asked for, with limits or in a place.
    pub fn is_wanted(&self) -> bool {
        self.parent.is_some() || self.has_limits()
    }
}
