//! The file system of a bundle's container: its root, the mounts of its config in their order, devices, and what is covered or made read-only.
//!
//! Sources on the host are opened before anything changes; mount points are resolved by the kernel inside of the new root. Unlike those of our own containers, mount
//! points that are missing are made in the root file system, as everyone who calls an OCI runtime expects. Attributes of mounts need Linux 5.12.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

use super::cgroups::Groups;
use super::config::{Config, Device, Mount};
use super::copy_up::copy_up;
use super::options::{Options, propagation};
use crate::path::RootPath;
use crate::runtime::error::Failure;
use crate::runtime::hierarchies::{Seen, mount_groups};
use crate::runtime::mounts::{Change, Target, TargetLinks, attach, clone_host_mount, clone_mount, descriptor_path, new_filesystem};
use crate::runtime::plan::MountPointKind;
use crate::runtime::{rootfs, world};
use crate::sys::RootDir;
use crate::sys::mount_attr::{MOUNT_ATTR_RDONLY, MountChange, mount_setattr};

const PROC_SUPER_MAGIC: i64 = 0x9fa0;

/// Files of `/proc` that may be replaced by others, which tell a container about itself.
const REPLACEABLE: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
];

/// The devices that every container has: name, major and minor number.
const DEVICES: [(&str, i64, i64); 6] =
    [("/dev/null", 1, 3), ("/dev/zero", 1, 5), ("/dev/full", 1, 7), ("/dev/random", 1, 8), ("/dev/urandom", 1, 9), ("/dev/tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What the container's file system is made of.
pub(super) struct Plan<'a> {
    pub(super) config: &'a Config,
    pub(super) bundle: &'a Path,
    pub(super) rootfs: &'a Path,
    pub(super) groups: &'a Groups,
    /// For each mount whether it is one with mapped IDs, and then its source.
    pub(super) id_mapped: Vec<Option<OwnedFd>>,
    /// Whether it is in a user namespace, where no devices can be made.
    pub(super) in_user_namespace: bool,
}

/// A root that is ready to be entered.
pub(super) struct Root {
    pub(super) dir: RootDir,
    /// Mounts that become read-only when all is made that goes on them.
    read_only: Vec<OwnedFd>,
}

impl Plan<'_> {
    /// Mounts everything over `/` of this process's own mount namespace. `reach` opens what this process may not, where somebody else may.
    pub(super) fn apply(&self, reach: &dyn Fn(&Path) -> Option<OwnedFd>) -> Result<Root, Failure> {
        let options: Vec<Options> = self.config.mounts.iter().map(|mount| Options::parse(&mount.options)).collect();
        let sources = self.open_sources(&options, reach)?;
        let null =
            rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(Failure::step("open", "/dev/null"))?;
        let private = matches!(self.config.linux.rootfs_propagation.as_str(), "private" | "rprivate");
        let kind = if private { MountPropagationFlags::PRIVATE } else { MountPropagationFlags::DOWNSTREAM };
        rustix::mount::mount_change("/", kind | MountPropagationFlags::REC).map_err(Failure::step("change the propagation of", "/"))?;
        let mount = clone_host_mount(self.rootfs, true).map_err(Failure::step("bind", self.rootfs.display()))?;
        let dir = rootfs::attach_root(rootfs::Detached { mount, change: Change::default() })?;
        rustix::process::umask(Mode::empty());
        let mut root = Root { dir, read_only: Vec::new() };
        for ((mount, options), source) in self.config.mounts.iter().zip(&options).zip(sources) {
            self.mount(&mut root, mount, options, source)?;
        }
        if !self
            .config
            .mounts
            .iter()
            .zip(&options)
            .any(|(mount, options)| RootPath::new(&mount.destination) == RootPath::new("/dev") && options.bind.is_some())
        {
            self.add_devices(&root.dir)?;
        }
        for (name, value) in &self.config.linux.sysctl {
            world::write_sysctl(&root.dir, name, value)?;
        }
        let paths = |paths: &[String]| paths.iter().map(RootPath::new).collect::<Vec<_>>();
        world::make_read_only(&root.dir, &paths(&self.config.linux.readonly_paths), TargetLinks::Follow)?;
        world::cover(&root.dir, &paths(&self.config.linux.masked_paths), TargetLinks::Follow, null.as_fd())?;
        if let Some(process) = &self.config.process {
            let cwd = RootPath::new(&process.cwd);
            let target = Target { root: &root.dir, path: &cwd, links: TargetLinks::Follow };
            if target.open().is_err() {
                target.create(MountPointKind::Directory).map_err(Failure::step("make the working directory", &cwd))?;
            }
        }
        Ok(root)
    }

    /// Copies of what is mounted from the host, while the mounts still have the host's propagation.
    fn open_sources(&self, options: &[Options], reach: &dyn Fn(&Path) -> Option<OwnedFd>) -> Result<Vec<Option<OwnedFd>>, Failure> {
        let open = |((mount, options), mapped): ((&Mount, &Options), &Option<OwnedFd>)| {
            let Some(recursive) = options.bind else { return Ok(None) };
            let path: PathBuf = self.bundle.join(&mount.source);
            let source = match mapped.as_ref().map_or_else(|| clone_host_mount(&path, recursive), OwnedFd::try_clone) {
                // Directories on the way may be closed to root of the container's user namespace, and open to who makes it.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && self.in_user_namespace => match reach(&path) {
                    Some(found) => clone_mount(found.as_fd(), Path::new(""), recursive),
                    None => Err(error),
                },
                other => other,
            };
            let source = source.map_err(Failure::step("open the mount source", path.display()))?;
            let fail = || Failure::step("change the mount of", path.display());
            let shared = options.propagation.iter().any(|(kind, _)| *kind == libc::MS_SHARED);
            if !shared {
                // What the container mounts there must not appear on the host.
                change(&source, MountChange { propagation: libc::MS_SLAVE, recursive: true, ..MountChange::default() }).map_err(fail())?;
            }
            Ok(Some(source))
        };
        self.config.mounts.iter().zip(options).zip(&self.id_mapped).map(open).collect()
    }

    fn mount(&self, root: &mut Root, mount: &Mount, options: &Options, source: Option<OwnedFd>) -> Result<(), Failure> {
        let path = RootPath::new(&mount.destination);
        let fail = || Failure::step("mount on", &path);
        if matches!(mount.kind.as_str(), "cgroup" | "cgroup2") && source.is_none() {
            return self.mount_cgroups(root, &path, options);
        }
        let is_file = source
            .as_ref()
            .is_some_and(|source| rustix::fs::fstat(source).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) != FileType::Directory));
        let (at, is_new) = open_target(&root.dir, mount, &path, is_file, source.as_ref())?;
        let late = source.is_none() && (mount.kind == "tmpfs" || path == RootPath::new("/dev")) && options.own.set & MOUNT_ATTR_RDONLY != 0;
        let detached = match source {
            Some(source) => source,
            None => {
                let set = if late { options.own.set & !MOUNT_ATTR_RDONLY } else { options.own.set };
                let mut values: Vec<(&str, Option<&str>)> =
                    options.data.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
                // A file system in memory has the mode of the directory that it covers.
                let mode = match rustix::fs::fstat(&at) {
                    Ok(stat) if mount.kind == "tmpfs" && !is_new && !values.iter().any(|(key, _)| *key == "mode") => {
                        Some(format!("{:o}", stat.st_mode & 0o7777))
                    }
                    _ => None,
                };
                values.extend(mode.as_deref().map(|mode| ("mode", Some(mode))));
                let context = self.label();
                values.extend(
                    context
                        .as_deref()
                        .filter(|_| matches!(mount.kind.as_str(), "tmpfs" | "devpts" | "mqueue"))
                        .map(|label| ("context", Some(label))),
                );
                let source = if mount.source.is_empty() { &mount.kind } else { &mount.source };
                values.push(("source", Some(source)));
                new_filesystem(&mount.kind, &values, MountAttrFlags::from_bits_retain(set as u32))
                    .map_err(Failure::step(format!("mount {} on", mount.kind), &path))?
            }
        };
        if options.copy_up {
            copy_up(at.as_fd(), detached.as_fd()).map_err(Failure::step("copy up", &path))?;
        }
        if options.bind.is_some() && !options.own.is_empty() {
            change(&detached, MountChange { set: options.own.set, clear: options.own.clear, ..MountChange::default() }).map_err(fail())?;
        }
        if !options.recursive.is_empty() {
            let all = MountChange { set: options.recursive.set, clear: options.recursive.clear, propagation: 0, recursive: true };
            change(&detached, all).map_err(fail())?;
        }
        attach(detached.as_fd(), at.as_fd()).map_err(fail())?;
        for (kind, recursive) in &options.propagation {
            let mut flags = MountPropagationFlags::from_bits_retain(*kind as u32);
            flags.set(MountPropagationFlags::REC, *recursive);
            rustix::mount::mount_change(descriptor_path(detached.as_fd()), flags)
                .map_err(Failure::step("change the propagation of", &path))?;
        }
        if late {
            root.read_only.push(detached);
        }
        Ok(())
    }

    fn label(&self) -> Option<String> {
        let label = &self.config.linux.mount_label;
        (!label.is_empty() && Path::new("/sys/fs/selinux/enforce").exists()).then(|| label.clone())
    }

    /// The container's own groups, at the place of the host's hierarchies.
    fn mount_cgroups(&self, root: &mut Root, path: &RootPath, options: &Options) -> Result<(), Failure> {
        let fail = || Failure::step("mount the control groups on", path);
        let target = Target { root: &root.dir, path, links: TargetLinks::Refuse };
        if target.open().is_err() {
            target.create(MountPointKind::Directory).map_err(fail())?;
        }
        if self.groups.unified && !self.groups.groups.is_empty() {
            let at = target.open().map_err(fail())?;
            let group = self.clone_group(&self.groups.groups[0].path, options).map_err(fail())?;
            return attach(group.as_fd(), at.as_fd()).map_err(fail());
        }
        let mut seen = Vec::new();
        for group in &self.groups.groups {
            let Some(name) = group.mount.file_name().and_then(|name| name.to_str()) else { continue };
            let mount = self.clone_group(&group.path, options).map_err(fail())?;
            seen.push(Seen { name: name.to_owned(), controllers: group.controllers.clone(), mount });
        }
        let attributes = MountAttrFlags::from_bits_retain((options.own.set & !MOUNT_ATTR_RDONLY) as u32);
        let tmpfs = mount_groups(&root.dir, path, &seen, attributes)?;
        if options.own.set & MOUNT_ATTR_RDONLY != 0 {
            root.read_only.push(tmpfs);
        }
        Ok(())
    }

    fn clone_group(&self, path: &Path, options: &Options) -> std::io::Result<OwnedFd> {
        let mount = clone_host_mount(path, false)?;
        change(&mount, MountChange { set: options.own.set, clear: 0, propagation: libc::MS_PRIVATE, recursive: false })?;
        Ok(mount)
    }

    fn add_devices(&self, root: &RootDir) -> Result<(), Failure> {
        let default = DEVICES.iter().map(|(path, major, minor)| Device {
            kind: "c".to_owned(),
            path: (*path).to_owned(),
            major: Some(*major),
            minor: Some(*minor),
            file_mode: Some(0o666),
            uid: None,
            gid: None,
        });
        let named = &self.config.linux.devices;
        for device in default.filter(|device| !named.iter().any(|other| other.path == device.path)).chain(named.iter().cloned()) {
            self.add_device(root, &device)?;
        }
        let dev = RootPath::new("/dev");
        let dir = Target { root, path: &dev, links: TargetLinks::Refuse }.open().map_err(Failure::step("open", &dev))?;
        let core = [("core", "/proc/kcore")].into_iter().filter(|_| Path::new("/proc/kcore").exists());
        for (name, target) in LINKS.into_iter().chain(core) {
            match rustix::fs::symlinkat(target, &dir, name) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Failure::step("link", dev.join(name))(error)),
            }
        }
        Ok(())
    }

    fn add_device(&self, root: &RootDir, device: &Device) -> Result<(), Failure> {
        let path = RootPath::new(&device.path);
        let fail = || Failure::step::<Errno>("make the device", &path);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(fail()(Errno::INVAL)) };
        let target = Target { root, path: &parent, links: TargetLinks::Follow };
        target.create(MountPointKind::Directory).map_err(Failure::step("make", &parent))?;
        let dir = target.open().map_err(Failure::step("open", &parent))?;
        let kind = match device.kind.as_str() {
            "b" => FileType::BlockDevice,
            "p" => FileType::Fifo,
            _ => FileType::CharacterDevice,
        };
        let number = |number: Option<i64>| u32::try_from(number.unwrap_or(0)).unwrap_or(0);
        let mode = Mode::from_raw_mode(device.file_mode.unwrap_or(0o666) & 0o7777);
        let made = match self.in_user_namespace && kind != FileType::Fifo {
            true => Err(Errno::PERM),
            false => rustix::fs::mknodat(&dir, name, kind, mode, rustix::fs::makedev(number(device.major), number(device.minor))),
        };
        match made {
            Err(Errno::PERM) => return bind_device(root, &path),
            // Something was mounted there, or the image has it.
            Err(Errno::EXIST) => return Ok(()),
            other => other.map_err(fail())?,
        }
        let (uid, gid) = (device.uid.map(Uid::from_raw), device.gid.map(Gid::from_raw));
        rustix::fs::chownat(&dir, name, uid.or(Some(Uid::ROOT)), gid.or(Some(Gid::ROOT)), rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            .map_err(fail())?;
        // A change of owner may take bits away.
        rustix::fs::chmodat(&dir, name, mode, rustix::fs::AtFlags::empty()).map_err(fail())
    }
}

impl Root {
    /// Makes read-only what is to be, when nothing is made any more.
    pub(super) fn finish(self, read_only_root: bool) -> Result<(), Failure> {
        let read_only = MountChange { set: MOUNT_ATTR_RDONLY, ..MountChange::default() };
        for mount in &self.read_only {
            change(mount, read_only).map_err(Failure::step("make read-only", "a mount"))?;
        }
        if read_only_root {
            change(&self.dir, read_only).map_err(Failure::step("make read-only", "/"))?;
        }
        Ok(())
    }
}

fn change(mount: &impl AsFd, change: MountChange) -> std::io::Result<()> {
    mount_setattr(mount.as_fd(), change)
}

/// Mounts the host's device, where none can be made.
fn bind_device(root: &RootDir, path: &RootPath) -> Result<(), Failure> {
    let node = clone_host_mount(&path.to_path_buf(), false).map_err(Failure::step("open the device", path))?;
    let target = Target { root, path, links: TargetLinks::Refuse };
    target.create(MountPointKind::File).map_err(Failure::step("make the mount point", path))?;
    let at = target.open().map_err(Failure::step("open the mount point", path))?;
    attach(node.as_fd(), at.as_fd()).map_err(Failure::step("mount the device", path))
}

/// Opens a mount point, which is made where it is missing, and says whether it was. What could change how this process and its successors see `/proc` is refused.
fn open_target(
    root: &RootDir,
    mount: &Mount,
    path: &RootPath,
    is_file: bool,
    source: Option<&OwnedFd>,
) -> Result<(OwnedFd, bool), Failure> {
    let fail = || Failure::step::<Errno>("mount on", path);
    let is_proc = |fd: &OwnedFd| rustix::fs::fstatfs(fd).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC);
    let links = if matches!(mount.kind.as_str(), "proc" | "sysfs") { TargetLinks::Refuse } else { TargetLinks::Follow };
    let target = Target { root, path, links };
    let kind = if is_file { MountPointKind::File } else { MountPointKind::Directory };
    let (at, is_new) = match target.open() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
            target.create(kind).map_err(Failure::step("make the mount point", path))?;
            (target.open(), true)
        }
        other => (other, false),
    };
    let at = at.map_err(Failure::step("open the mount point", path))?;
    if *path == RootPath::new("/proc") {
        let fits = mount.kind == "proc" || source.is_some_and(is_proc);
        return if fits { Ok((at, is_new)) } else { Err(fail()(Errno::PERM)) };
    }
    let replaceable = REPLACEABLE.iter().any(|known| RootPath::new(known) == *path) && is_file;
    if is_proc(&at) && !replaceable { Err(fail()(Errno::PERM)) } else { Ok((at, is_new)) }
}

/// What `rootfsPropagation` says, once the root is entered.
pub(super) fn propagate(config: &Config) -> Result<(), Failure> {
    let Some((kind, recursive)) = propagation(&config.linux.rootfs_propagation) else { return Ok(()) };
    let mut flags = MountPropagationFlags::from_bits_retain(kind as u32);
    flags.set(MountPropagationFlags::REC, recursive);
    rustix::mount::mount_change("/", flags).map_err(Failure::step("change the propagation of", "/"))
}

/// Enters the root without exchanging it, for hosts whose root cannot be exchanged: what is mounted below stays reachable for who may change its root again.
pub(super) fn enter_by_chroot(root: &RootDir) -> Result<(), Failure> {
    let fail = || Failure::step::<Errno>("enter", "the new root");
    rustix::process::fchdir(root).map_err(fail())?;
    rustix::process::chroot(".").map_err(fail())?;
    rustix::process::chdir("/").map_err(fail())
}
