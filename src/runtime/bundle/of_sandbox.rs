//! One of our sandboxes as the config of a bundle, for another runtime: the mounts, devices, rights and limits that ours has, in the specification's words.

use std::path::{Path, PathBuf};

use super::Error;
use super::config::{
    BlockIo, CapabilityLists, Config, ConsoleSize, Cpu, Device, DeviceRule, Linux, Memory, Mount, Namespace, Pids, Process, Resources,
    RlimitEntry, Root, ThrottleDevice, User,
};
use crate::runtime::cgroup::{bandwidth, memory_and_swap};
use crate::runtime::credentials::held;
use crate::runtime::devices::NOT_SHARED;
use crate::runtime::namespaces::Sharing;
use crate::runtime::spec::{AccessTimes, MountOptions, MountSpec, Propagation, SandboxSpec, Seccomp, SystemPaths, ThrottleKind};
use crate::runtime::{Capabilities, CgroupSpec, DeviceNode, Privileges, device_rules, seccomp, world};

/// The version of the specification that a config is written for: what all runtimes in use follow.
const VERSION: &str = "1.0.2";

/// What a config says beside the sandbox.
pub(in crate::runtime) struct Surroundings<'a> {
    /// Whether there is a terminal.
    pub(in crate::runtime) tty: bool,
    /// The control group, in each hierarchy.
    pub(in crate::runtime) cgroups_path: &'a str,
    /// Where the sources of the sandbox's mounts are, with the attributes that the mounts are to have.
    pub(in crate::runtime) sources: &'a [PathBuf],
    /// A `/dev/shm` that is not the sandbox's own.
    pub(in crate::runtime) shm: Option<&'a Path>,
    /// A program for the sandbox, and where it is to be.
    pub(in crate::runtime) init: Option<(&'a Path, &'a str)>,
    /// The network namespace; a new one where it is empty, and that of the caller where it is `None`.
    pub(in crate::runtime) network: Option<&'a str>,
}

/// The config of a sandbox whose root is mounted at `rootfs` of the bundle. Namespaces of other containers that it shares are those of who calls the runtime.
///
/// # Errors
/// A device or a path cannot be put into words.
pub(in crate::runtime) fn of_sandbox(spec: &SandboxSpec, around: &Surroundings<'_>) -> Result<Config, Error> {
    let insecure = spec.privileges == Privileges::Insecure;
    let mut devices = if insecure { host_devices(Path::new("/dev")) } else { Vec::new() };
    for device in &spec.devices {
        devices.push(match &device.node {
            Some(node) => made(node, &device.target.to_string()),
            None => device_of(&device.source, &device.target.to_string())?,
        });
    }
    let masked = !insecure && spec.system_paths == SystemPaths::Masked;
    let paths = |paths: &[&str]| if masked { paths.iter().map(|path| (*path).to_owned()).collect() } else { Vec::new() };
    let own_name = spec.namespaces.uts == Sharing::Own;
    let mounts = mounts(spec, around)?;
    Ok(Config {
        oci_version: VERSION.to_owned(),
        process: Some(process_of_sandbox(spec, around.tty)),
        root: Some(Root { path: "rootfs".to_owned(), readonly: spec.read_only_root }),
        hostname: if own_name { spec.hostname.clone() } else { String::new() },
        mounts,
        linux: Linux {
            sysctl: spec.sysctls.iter().cloned().collect(),
            resources: Some(resources(spec.cgroup.as_ref(), insecure, device_rules::given(spec))),
            cgroups_path: around.cgroups_path.to_owned(),
            namespaces: namespaces(spec, around),
            devices,
            seccomp: match &spec.seccomp {
                Seccomp::Rules(rules) => Some(seccomp::document(rules)),
                Seccomp::Default if !insecure => Some(seccomp::default_document(spec.privileges.capabilities())),
                Seccomp::Default | Seccomp::Unconfined => None,
            },
            rootfs_propagation: propagation(spec).to_owned(),
            masked_paths: paths(&world::MASKED),
            readonly_paths: paths(&world::READ_ONLY),
            ..Linux::default()
        },
        annotations: spec.annotations.clone(),
        hooks: spec.hooks.clone(),
        ..Config::default()
    })
}

/// A process of a sandbox.
pub(in crate::runtime) fn process_of_sandbox(spec: &SandboxSpec, tty: bool) -> Process {
    let (process, privileges) = (&spec.process, spec.privileges);
    let text = |list: &[std::ffi::OsString]| list.iter().map(|item| item.to_string_lossy().into_owned()).collect();
    let names = |set: Capabilities| set.names().map(|name| format!("CAP_{name}")).collect::<Vec<_>>();
    // Ours gives what there is, where others fail for what there is not.
    let all = privileges.capabilities().intersection(held());
    // As where the kernel has taken them away with the change of the user.
    let own = if process.user.uid == 0 { all } else { Capabilities::NONE };
    Process {
        terminal: tty,
        console_size: process.terminal.filter(|_| tty).map(|size| ConsoleSize { height: size.rows, width: size.columns }),
        user: User {
            uid: process.user.uid,
            gid: process.user.gid,
            umask: Some(process.umask),
            additional_gids: process.user.additional_gids.clone(),
        },
        args: text(&process.args),
        env: text(&process.env),
        cwd: process.cwd.to_string(),
        capabilities: Some(CapabilityLists {
            bounding: names(all),
            effective: names(own),
            permitted: names(own),
            ..CapabilityLists::default()
        }),
        rlimits: process
            .rlimits
            .iter()
            .map(|limit| RlimitEntry { kind: format!("RLIMIT_{:?}", limit.resource).to_uppercase(), hard: limit.hard, soft: limit.soft })
            .collect(),
        no_new_privileges: process.no_new_privileges,
        apparmor_profile: spec.apparmor.for_others().to_owned(),
        oom_score_adj: process.oom_score_adjust,
        ..Process::default()
    }
}

fn namespaces(spec: &SandboxSpec, around: &Surroundings<'_>) -> Vec<Namespace> {
    let shared = &spec.namespaces;
    let wanted = [("pid", &Sharing::Own), ("mount", &Sharing::Own), ("ipc", &shared.ipc), ("uts", &shared.uts), ("cgroup", &shared.cgroup)];
    let own = wanted.into_iter().filter(|(_, sharing)| **sharing == Sharing::Own);
    let own = own.map(|(kind, _)| Namespace { kind: kind.to_owned(), path: String::new() });
    own.chain(around.network.map(|path| Namespace { kind: "network".to_owned(), path: path.to_owned() })).collect()
}

/// How mounts of the root travel: as far as one of those on it wants.
fn propagation(spec: &SandboxSpec) -> &'static str {
    let wants = |wanted: Propagation| {
        spec.mounts.iter().any(|mount| matches!(mount, MountSpec::Bind { propagation, .. } if *propagation == wanted))
    };
    match (wants(Propagation::Shared), wants(Propagation::Slave)) {
        (true, _) => "shared",
        (false, true) => "slave",
        (false, false) => "",
    }
}

fn mount(destination: impl Into<String>, kind: &str, source: impl Into<String>, options: &[&str]) -> Mount {
    let options = options.iter().filter(|option| !option.is_empty()).map(|option| (*option).to_owned()).collect();
    Mount { destination: destination.into(), kind: kind.to_owned(), source: source.into(), options, ..Mount::default() }
}

fn mounts(spec: &SandboxSpec, around: &Surroundings<'_>) -> Result<Vec<Mount>, Error> {
    let insecure = spec.privileges == Privileges::Insecure;
    let (sealed, noexec) = if insecure { ("rw", "") } else { ("ro", "noexec") };
    let mut all = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", noexec, "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sealed]),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", sealed]),
    ];
    let size = format!("size={}", spec.shm_size);
    match around.shm {
        _ if spec.namespaces.no_shm => {}
        Some(path) => all.push(mount("/dev/shm", "bind", text(path)?, &["bind", "rprivate", "nosuid", "noexec", "nodev"])),
        None => all.push(mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size])),
    }
    for (one, source) in spec.mounts.iter().zip(around.sources) {
        let target = one.target().to_string();
        let plain = MountOptions { nodev: true, ..MountOptions::default() };
        let (recursive, propagation, read_only, options) = match one {
            MountSpec::Bind { recursive, propagation, read_only, options, .. } => (*recursive, *propagation, *read_only, *options),
            MountSpec::Tmpfs { tuning, read_only, options, .. } => (false, tuning.propagation, *read_only, *options),
            MountSpec::Filesystem { read_only, flags, .. } => (false, Propagation::Private, *read_only, *flags),
            MountSpec::Overlay { rootfs, .. } => (false, Propagation::Private, !rootfs.is_writable(), plain),
        };
        let propagation = match propagation {
            Propagation::Private => "rprivate",
            Propagation::Slave => "rslave",
            Propagation::Shared => "rshared",
            Propagation::Unbindable => "runbindable",
        };
        let mut words = vec![if recursive { "rbind" } else { "bind" }, propagation];
        // The source has these attributes, but some runtimes take away what is not asked for.
        let attributes = [(read_only, "ro"), (options.nosuid, "nosuid"), (options.nodev || !insecure, "nodev"), (options.noexec, "noexec")];
        words.extend(attributes.into_iter().filter(|(on, _)| *on).map(|(_, word)| word));
        if let MountSpec::Tmpfs { tuning, .. } = one {
            let times =
                [("noatime", tuning.access_times == AccessTimes::Never), ("strictatime", tuning.access_times == AccessTimes::Strict)];
            words.extend(times.into_iter().chain([("nodiratime", tuning.nodiratime)]).filter(|(_, on)| *on).map(|(word, _)| word));
        }
        all.push(mount(target, "bind", text(source)?, &words));
    }
    if let Some((program, place)) = around.init {
        all.push(mount(place, "bind", text(program)?, &["bind", "rprivate", "ro", "nosuid", "nodev"]));
    }
    Ok(all)
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::Unsupported(format!("`{}` is not UTF-8, and a config.json can hold nothing else", path.display())))
}

fn resources(limits: Option<&CgroupSpec>, insecure: bool, devices: Vec<DeviceRule>) -> Resources {
    let none = CgroupSpec::default();
    let limits = limits.unwrap_or(&none);
    let number = |number: u64| i64::try_from(number).unwrap_or(-1);
    let mut rules = vec![DeviceRule { allow: insecure, access: "rwm".to_owned(), ..DeviceRule::default() }];
    if !insecure {
        rules.extend(devices);
    }
    let bandwidth = bandwidth(limits);
    Resources {
        devices: rules,
        memory: Memory {
            limit: limits.memory.map(number),
            swap: limits.memory.map(|memory| memory_and_swap(limits, memory).map_or(-1, number)),
            reservation: limits.memory_reservation.map(number),
            swappiness: limits.swappiness,
            disable_oom_killer: limits.oom_kill_disable.then_some(true),
            ..Memory::default()
        },
        cpu: Cpu {
            shares: limits.cpu_shares,
            quota: bandwidth.and_then(|(quota, _)| quota).map(number),
            period: bandwidth.map(|(_, period)| period),
            cpus: limits.cpuset_cpus.clone().unwrap_or_default(),
            mems: limits.cpuset_mems.clone().unwrap_or_default(),
            ..Cpu::default()
        },
        pids: Pids { limit: limits.pids.map(number) },
        block_io: disks(limits),
        ..Resources::default()
    }
}

fn disks(limits: &CgroupSpec) -> BlockIo {
    let of = |kind: ThrottleKind| {
        let wanted = limits.throttles.iter().filter(|throttle| throttle.kind == kind);
        let device = |throttle: &crate::runtime::Throttle| {
            let (major, minor) = throttle.device;
            ThrottleDevice { major: major.into(), minor: minor.into(), rate: throttle.rate }
        };
        wanted.map(device).collect()
    };
    BlockIo {
        weight: limits.blkio_weight.and_then(|weight| u16::try_from(weight).ok()),
        throttle_read_bps_device: of(ThrottleKind::ReadBytes),
        throttle_write_bps_device: of(ThrottleKind::WriteBytes),
        throttle_read_iops_device: of(ThrottleKind::ReadOperations),
        throttle_write_iops_device: of(ThrottleKind::WriteOperations),
        ..BlockIo::default()
    }
}

fn made(node: &DeviceNode, target: &str) -> Device {
    Device {
        kind: node.kind.letter().to_owned(),
        path: target.to_owned(),
        major: Some(node.major.into()),
        minor: Some(node.minor.into()),
        file_mode: Some(node.mode & 0o7777),
        uid: Some(node.owner.0),
        gid: Some(node.owner.1),
    }
}

fn device_of(source: &Path, target: &str) -> Result<Device, Error> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let meta = std::fs::metadata(source).map_err(Error::file("open the device", source))?;
    let kind = if meta.file_type().is_block_device() { "b" } else { "c" };
    Ok(Device {
        kind: kind.to_owned(),
        path: target.to_owned(),
        major: Some(rustix::fs::major(meta.rdev()).into()),
        minor: Some(rustix::fs::minor(meta.rdev()).into()),
        file_mode: Some(meta.mode() & 0o777),
        uid: Some(meta.uid()),
        gid: Some(meta.gid()),
    })
}

/// The devices of a directory of the host and those below it, without what each container has of its own.
fn host_devices(dir: &Path) -> Vec<Device> {
    use std::os::unix::fs::FileTypeExt;
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        if NOT_SHARED.iter().any(|name| entry.file_name() == *name) {
            continue;
        }
        if kind.is_dir() {
            found.extend(host_devices(&path));
        } else if kind.is_block_device() || kind.is_char_device() {
            // One that is gone by now is no failure.
            found.extend(device_of(&path, &path.display().to_string()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::spec::{BindSource, ProcessSpec};
    use crate::sys::RootfsMount;

    fn spec() -> SandboxSpec {
        let rootfs = RootfsMount::Bind { source: "/r".into(), read_only: false };
        SandboxSpec::new(rootfs, ProcessSpec::new(vec!["sh".into()], vec!["A=b".into()]))
    }

    fn around<'a>(sources: &'a [PathBuf], network: Option<&'a str>) -> Surroundings<'a> {
        Surroundings { tty: false, cgroups_path: "/strake/x", sources, shm: None, init: None, network }
    }

    #[test]
    fn namespaces_that_are_shared_are_not_named() {
        let mut spec = spec();
        let kinds = |spec: &SandboxSpec, network| {
            let config = of_sandbox(spec, &around(&[], network)).unwrap();
            let kinds: Vec<String> = config.linux.namespaces.into_iter().map(|one| format!("{}={}", one.kind, one.path)).collect();
            (kinds.join(" "), config.hostname)
        };
        assert_eq!(kinds(&spec, Some("/n")), ("pid= mount= ipc= uts= cgroup= network=/n".to_owned(), "localhost".to_owned()));
        spec.namespaces.uts = Sharing::Host;
        spec.namespaces.ipc = Sharing::Container("a".to_owned());
        assert_eq!(kinds(&spec, None), ("pid= mount= cgroup=".to_owned(), String::new()));
    }

    #[test]
    fn an_init_is_mounted_read_only_and_can_be_executed() {
        let program = PathBuf::from("/b/init");
        let config = of_sandbox(&spec(), &Surroundings { init: Some((&program, "/dev/init")), ..around(&[], None) }).unwrap();
        let last = config.mounts.last().unwrap();
        assert_eq!((last.source.as_str(), last.destination.as_str()), ("/b/init", "/dev/init"));
        assert!(last.options.contains(&"ro".to_owned()) && !last.options.contains(&"noexec".to_owned()));
    }

    #[test]
    fn limits_are_those_of_our_own_groups() {
        let mut spec = spec();
        spec.cgroup = Some(CgroupSpec { memory: Some(1 << 20), cpu_millis: Some(1500), pids: Some(u64::MAX), ..CgroupSpec::default() });
        let resources = of_sandbox(&spec, &around(&[], None)).unwrap().linux.resources.unwrap();
        assert_eq!((resources.memory.limit, resources.memory.swap), (Some(1 << 20), Some(2 << 20)));
        assert_eq!((resources.cpu.quota, resources.cpu.period), (Some(150_000), Some(100_000)));
        assert_eq!(resources.pids.limit, Some(-1));
    }

    #[test]
    fn only_root_has_capabilities_that_count_at_once() {
        let mut spec = spec();
        let lists = |spec: &SandboxSpec| process_of_sandbox(spec, false).capabilities.unwrap();
        let of_root = lists(&spec);
        assert_eq!((&of_root.effective, &of_root.permitted), (&of_root.bounding, &of_root.bounding));
        spec.process.user.uid = 7;
        let lists = lists(&spec);
        assert_eq!((lists.bounding, lists.effective.len(), lists.permitted.len()), (of_root.bounding, 0, 0));
    }

    #[test]
    fn sources_are_bound_from_where_they_are() {
        let mut spec = spec();
        spec.mounts.push(MountSpec::Bind {
            source: BindSource::Path("/elsewhere".into()),
            target: crate::path::RootPath::new("/data"),
            is_file: false,
            read_only: true,
            recursive: true,
            propagation: Propagation::Slave,
            options: MountOptions::default(),
        });
        let sources = [PathBuf::from("/b/mount0")];
        let config = of_sandbox(&spec, &around(&sources, None)).unwrap();
        let last = config.mounts.last().unwrap();
        assert_eq!((last.source.as_str(), last.destination.as_str()), ("/b/mount0", "/data"));
        assert_eq!(last.options, ["rbind", "rslave", "ro", "nodev"]);
        assert_eq!(config.linux.rootfs_propagation, "slave");
    }
}
