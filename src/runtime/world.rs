//! Everything that is mounted in a sandbox, in order: the kernel's file systems, the spec's mounts, and the masks over what must not be seen.
//!
//! Sources on the host are opened before anything changes ([`Sources::open`]); targets are resolved by the kernel inside of the root.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags};

use super::error::{Failure, MAP_OWNERS, OPEN_MOUNT_POINT, OPEN_TO_MASK};
use super::hierarchies::{mount_groups, own_groups};
use super::mounts::{
    Change, Target, TargetLinks, attach, change_and_attach, clone_host_mount, clone_mount, descriptor_path, mount_new, new_filesystem,
};
use super::namespaces::Sharing;
use super::plan::{is_made_by_runtime, mount_point_kind};
use super::rootfs::{Detached, RootOptions, attach_root, made_elsewhere, mount_detached, pivot};
use super::spec::{AccessTimes, BindSource, MountOptions, MountSpec, Privileges, Propagation, SandboxSpec, SystemPaths};
use super::users::UserNamespace;
use super::{device_rules, devices};
use crate::path::RootPath;
use crate::sys::mount_attr::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};
use crate::sys::{Links, RootDir, RootfsMount};

/// Covered by something empty. (`/sys/devices/system/cpu/cpu*/thermal_throttle` is added per CPU.)
pub const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// The attributes of parts of `/proc` and `/sys` that must not be written.
const SYSTEM_READ_ONLY: u64 = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

/// Not to be written.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Detached copies of what the spec mounts from the host, in the spec's order (tmpfs have none).
pub(super) struct Sources(VecDeque<Detached>);

impl Sources {
    /// Opens the sources while the mounts still have the host's propagation, so that slaves get what the host mounts later.
    /// `filesystems` are those of [`filesystems`].
    pub(super) fn open(
        spec: &SandboxSpec,
        copies: Vec<OwnedFd>,
        filesystems: Vec<OwnedFd>,
        users: Option<&UserNamespace>,
    ) -> Result<Sources, Failure> {
        let (mut copies, mut filesystems) = (copies.into_iter(), filesystems.into_iter());
        let mut sources = VecDeque::new();
        for mount in &spec.mounts {
            match mount {
                MountSpec::Bind { source: BindSource::Path(path), recursive, options, .. } => {
                    let copy = clone_host_mount(path, *recursive).map_err(Failure::step("open the mount source", path.display()))?;
                    if let Some(users) = users.filter(|_| options.mapped) {
                        users.map(copy.as_fd(), *recursive).map_err(Failure::step(MAP_OWNERS, path.display()))?;
                    }
                    sources.push_back(Detached { mount: copy, change: Change::default() });
                }
                MountSpec::Bind { source: BindSource::Below { directory, path }, recursive, options, .. } => {
                    let shown = directory.join(path.relative());
                    let fail = || Failure::step("open the mount source", shown.display());
                    let root = RootDir::open(directory).map_err(fail())?;
                    let found = root.open_at(path.relative(), OFlags::PATH, Mode::empty(), Links::Follow).map_err(fail())?;
                    let copy = clone_mount(found.as_fd(), Path::new(""), *recursive).map_err(fail())?;
                    if let Some(users) = users.filter(|_| options.mapped) {
                        users.map(copy.as_fd(), *recursive).map_err(Failure::step(MAP_OWNERS, shown.display()))?;
                    }
                    sources.push_back(Detached { mount: copy, change: Change::default() });
                }
                MountSpec::Bind { source: BindSource::Descriptor(_), .. } => {
                    let copy = copies.next().ok_or(Failure::Invalid { spec: false })?;
                    sources.push_back(Detached { mount: copy, change: Change::default() });
                }
                MountSpec::Overlay { rootfs, .. } => {
                    let writable = rootfs.is_writable();
                    let options = RootOptions { read_only: !writable, volatile: writable, devices: false, users, limits: None };
                    sources.push_back(mount_detached(rootfs, options)?);
                }
                MountSpec::Filesystem { target, .. } => {
                    let mount = filesystems.next().ok_or(Failure::Invalid { spec: false })?;
                    users.map_or(Ok(()), |users| users.map(mount.as_fd(), false)).map_err(Failure::step(MAP_OWNERS, target))?;
                    sources.push_back(Detached { mount, change: Change::default() });
                }
                MountSpec::Tmpfs { .. } => {}
            }
        }
        Ok(Sources(sources))
    }
}

/// What comes from outside of a sandbox: its root and the sources of its mounts, attached to nothing yet.
pub(super) struct Outside {
    root: Detached,
    sources: Sources,
}

impl Outside {
    /// Mounts it, with `copies` of what the spec names by descriptor, with its [`filesystems`], and with the root unless that is given. This process has a mount namespace of its own, which is made private.
    pub(super) fn mount(
        spec: &SandboxSpec,
        copies: Vec<OwnedFd>,
        filesystems: Vec<OwnedFd>,
        root: Option<OwnedFd>,
        users: Option<&UserNamespace>,
    ) -> Result<Outside, Failure> {
        // An overlay of other users' files is mounted by way of places that nobody else may see. What the host mounts later still comes here.
        if users.is_some() {
            change_propagation(MountPropagationFlags::DOWNSTREAM)?;
        }
        let sources = Sources::open(spec, copies, filesystems, users)?;
        change_propagation(MountPropagationFlags::PRIVATE)?;
        let devices = spec.has_nodes();
        let options = RootOptions { read_only: spec.read_only_root, volatile: spec.volatile, devices, users, limits: spec.cgroup.as_ref() };
        let root = root.map_or_else(|| mount_detached(&spec.rootfs, options), |mount| Ok(made_elsewhere(mount, options)))?;
        Ok(Outside { root, sources })
    }

    /// Makes it the world of this process, which is in the sandbox's namespaces.
    pub(super) fn enter(self, spec: &SandboxSpec, shm: Option<OwnedFd>) -> Result<(), Failure> {
        let root = attach_root(self.root)?;
        // Modes of what is made in /dev are as given.
        rustix::process::umask(Mode::empty());
        mount_all(&root, spec, self.sources, shm)?;
        pivot(&root)
    }
}

/// The same, parked at places of this process's mount namespace, for a sandbox that gets a copy of that with less rights: the kernel locks attributes of the mounts in it (`nodev`,
/// `ro`), so that root there cannot take them back (mount_namespaces(7), "Restrictions on mount namespaces").
pub(super) struct Parked {
    /// A file system in memory with the places, which are numbered.
    directory: PathBuf,
    count: usize,
}

impl Outside {
    /// Parks it over a directory that is not needed any more: one that the root is made of.
    pub(super) fn park(self, spec: &SandboxSpec) -> Result<Parked, Failure> {
        let directory = match &spec.rootfs {
            RootfsMount::Overlay { upper: Some(upper), .. } => upper.upper.clone(),
            RootfsMount::Overlay { lower, .. } => lower.first().cloned().ok_or(Failure::Invalid { spec: true })?,
            RootfsMount::Bind { source, .. } => source.clone(),
            RootfsMount::Fuse { changes, .. } => changes.upper.clone(),
        };
        let nodev = spec.privileges != Privileges::Insecure;
        let sourced = spec.mounts.iter().filter(|mount| !matches!(mount, MountSpec::Tmpfs { .. }));
        let sources = self.sources.0.into_iter().zip(sourced).map(|(source, mount)| match mount {
            MountSpec::Bind { .. } => bound(mount, source.mount, nodev),
            _ => source,
        });
        let all: Vec<Detached> = std::iter::once(self.root).chain(sources).collect();
        park(&directory, &all).map_err(Failure::step("park mounts at", directory.display()))?;
        Ok(Parked { directory, count: all.len() })
    }
}

/// Mounts a file system in memory on the directory, and the mounts in it under their numbers.
fn park(directory: &Path, mounts: &[Detached]) -> io::Result<()> {
    let places = new_filesystem("tmpfs", &[("mode", Some("700"))], guarded())?;
    let at = rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    attach(places.as_fd(), at.as_fd())?;
    for (number, Detached { mount, change }) in mounts.iter().enumerate() {
        let name = number.to_string();
        match FileType::from_raw_mode(rustix::fs::fstat(mount)?.st_mode) {
            FileType::Directory => rustix::fs::mkdirat(&places, &name, Mode::RWXU)?,
            _ => drop(rustix::fs::openat(&places, &name, OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, Mode::RUSR)?),
        }
        let place = rustix::fs::openat(&places, &name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let attach = || attach(mount.as_fd(), place.as_fd());
        if *change == Change::default() { attach()? } else { change_and_attach(mount.as_fd(), *change, attach)? }
    }
    Ok(())
}

impl Parked {
    /// Copies of what is parked, in the mount namespace of the sandbox.
    pub(super) fn take(self) -> Result<Outside, Failure> {
        let copy = |number: usize| {
            let place = self.directory.join(number.to_string());
            let mount = clone_host_mount(&place, true).map_err(Failure::step("take the mount that is parked at", place.display()))?;
            Ok(Detached { mount, change: Change::default() })
        };
        Ok(Outside { root: copy(0)?, sources: Sources((1..self.count).map(copy).collect::<Result<_, _>>()?) })
    }
}

/// Changes how mounts travel between this process's mount namespace and others.
fn change_propagation(to: MountPropagationFlags) -> Result<(), Failure> {
    rustix::mount::mount_change("/", to | MountPropagationFlags::REC)
        .map_err(Failure::step("change the propagation of the mounts below", "/"))
}

/// The file systems of devices and servers that the spec mounts, in its order. To be made where the host's files are seen, and for servers before another network is entered.
pub(super) fn filesystems(spec: &SandboxSpec) -> Result<Vec<OwnedFd>, Failure> {
    let nodev = spec.privileges != Privileges::Insecure;
    let mut all = Vec::new();
    for mount in &spec.mounts {
        let MountSpec::Filesystem { kind, source, options, target, read_only, flags } = mount else { continue };
        let mut values = vec![("source", Some(source.as_str()))];
        values.extend(read_only.then_some(("ro", None)));
        values.extend(options.iter().map(|(key, value)| (key.as_str(), value.as_deref())));
        let attributes = MountAttrFlags::from_bits_retain(attributes(*flags, *read_only, nodev) as u32);
        all.push(new_filesystem(kind, &values, attributes).map_err(Failure::step("mount the file system of the volume at", target))?);
    }
    Ok(all)
}

/// Copies of the mounts that the spec names by descriptor, in its order. To be made in the mount namespace that the descriptors are from: in another one
/// the kernel refuses them.
pub(super) fn copy_descriptors(spec: &SandboxSpec, descriptors: &[OwnedFd]) -> Result<Vec<OwnedFd>, Failure> {
    let mut copies = Vec::new();
    for mount in &spec.mounts {
        if let MountSpec::Bind { source: BindSource::Descriptor(index), recursive, target, .. } = mount {
            let fd = descriptors.get(*index).ok_or(Failure::Invalid { spec: false })?;
            copies.push(clone_mount(fd.as_fd(), Path::new(""), *recursive).map_err(Failure::step("open the source of", target))?);
        }
    }
    Ok(copies)
}

/// Mounts below `root` what the spec mounts from the host.
pub(super) fn mount_sources(root: &RootDir, spec: &SandboxSpec, mut sources: Sources) -> Result<(), Failure> {
    let mut done: Vec<&RootPath> = Vec::new();
    for mount in &spec.mounts {
        apply(root, spec, mount, &mut sources, &done)?;
        done.push(mount.target());
    }
    Ok(())
}

/// Mounts all of it below `root`.
fn mount_all(root: &RootDir, spec: &SandboxSpec, mut sources: Sources, shm: Option<OwnedFd>) -> Result<(), Failure> {
    mount_proc(root, spec)?;
    devices::mount(root, spec, shm)?;
    mount_sys(root, spec)?;
    let mut done: Vec<&RootPath> = Vec::new();
    for mount in &spec.mounts {
        apply(root, spec, mount, &mut sources, &done)?;
        done.push(mount.target());
    }
    write_sysctls(root, spec)?;
    if spec.system_paths == SystemPaths::Masked && spec.privileges != Privileges::Insecure {
        mask(root)?;
    }
    Ok(())
}

fn guarded() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

fn mount_proc(root: &RootDir, spec: &SandboxSpec) -> Result<(), Failure> {
    let proc = RootPath::new("/proc");
    match mount_new(root, &proc, "proc", &[], guarded()) {
        // The host's processes belong to another user namespace (rootless): the host's view is the right one. So it is of a container whose processes are the host's.
        Err(Failure::Step { errno: libc::EPERM, .. }) if spec.namespaces.shares_processes() => mount_hosts(root, &proc, 0),
        other => other,
    }
}

/// Mounts what the host has at a path at the same path.
fn mount_hosts(root: &RootDir, path: &RootPath, set: u64) -> Result<(), Failure> {
    let fail = || Failure::step("mount the host's", path);
    let copy = clone_host_mount(&path.to_path_buf(), true).map_err(fail())?;
    let target = Target { root, path, links: TargetLinks::Refuse }.open().map_err(fail())?;
    let change = Change { set, propagation: libc::MS_PRIVATE, recursive: true, top: 0 };
    change_and_attach(copy.as_fd(), change, || attach(copy.as_fd(), target.as_fd())).map_err(fail())
}

fn mount_sys(root: &RootDir, spec: &SandboxSpec) -> Result<(), Failure> {
    let sys = RootPath::new("/sys");
    let writable = spec.privileges == Privileges::Insecure;
    let attributes = if writable { guarded() } else { guarded() | MountAttrFlags::MOUNT_ATTR_RDONLY };
    match mount_new(root, &sys, "sysfs", &[], attributes) {
        // The network namespace belongs to another user namespace (rootless, host network): the host's view is the right one.
        Err(Failure::Step { errno: libc::EPERM, .. }) => mount_hosts(root, &sys, SYSTEM_READ_ONLY)?,
        other => other?,
    }
    // A program looks for its own limits there. What cannot be mounted is left out: an empty directory is taken for a system without limits, which is better than a
    // wrong view of them.
    let groups = RootPath::new("/sys/fs/cgroup");
    if super::cgroup::is_unified() {
        let _ = mount_new(root, &groups, "cgroup2", &[], attributes);
        return Ok(());
    }
    let seen = own_groups(spec.namespaces.cgroup == Sharing::Own, attributes);
    if seen.is_empty() {
        return Ok(());
    }
    let directories = mount_groups(root, &groups, &seen, guarded())?;
    let change = Change { set: if writable { 0 } else { MOUNT_ATTR_RDONLY }, ..Change::default() };
    change_and_attach(directories.as_fd(), change, || Ok(())).map_err(Failure::step("make read-only", groups))
}

/// Detached mounts of what the spec mounts, each with what is to be changed of it, in the order of the spec's mounts; of an overlay all of it.
pub(super) fn detached(spec: &SandboxSpec) -> Result<Vec<Detached>, Failure> {
    let mut sources = Sources::open(spec, Vec::new(), filesystems(spec)?, None)?;
    let nodev = spec.privileges != Privileges::Insecure;
    spec.mounts.iter().map(|mount| whole(mount, &mut sources, nodev)).collect()
}

/// One mount of the spec.
fn whole(mount: &MountSpec, sources: &mut Sources, nodev: bool) -> Result<Detached, Failure> {
    let mut next = || sources.0.pop_front().ok_or(Failure::Invalid { spec: false });
    Ok(match mount {
        MountSpec::Bind { .. } => bound(mount, next()?.mount, nodev),
        MountSpec::Tmpfs { target, size, inodes, mode, owner, read_only, options, tuning } => {
            let (mode, uid, gid) = (format!("{mode:o}"), owner.0.to_string(), owner.1.to_string());
            let (size, inodes) = (size.map(|size| size.to_string()), inodes.map(|inodes| inodes.to_string()));
            let mut values = vec![("mode", Some(mode.as_str())), ("uid", Some(uid.as_str())), ("gid", Some(gid.as_str()))];
            values.extend(size.as_deref().map(|size| ("size", Some(size))));
            values.extend(inodes.as_deref().map(|inodes| ("nr_inodes", Some(inodes))));
            values.extend(tuning.settings.iter().map(|(key, value)| (key.as_str(), value.as_deref())));
            let mut attributes = MountAttrFlags::from_bits_retain(attributes(*options, *read_only, nodev) as u32);
            attributes |= match tuning.access_times {
                AccessTimes::Relative => MountAttrFlags::MOUNT_ATTR_RELATIME,
                AccessTimes::Never => MountAttrFlags::MOUNT_ATTR_NOATIME,
                AccessTimes::Strict => MountAttrFlags::MOUNT_ATTR_STRICTATIME,
            };
            attributes.set(MountAttrFlags::MOUNT_ATTR_NODIRATIME, tuning.nodiratime);
            let mount = new_filesystem("tmpfs", &values, attributes).map_err(Failure::step("mount tmpfs on", target))?;
            Detached { mount, change: Change::default() }
        }
        MountSpec::Overlay { .. } | MountSpec::Filesystem { .. } => next()?,
    })
}

/// A bind mount with what is to be changed of it. One of a single node shows nothing else, so that it works if all containers have the device: `/dev/null` over a file.
fn bound(spec: &MountSpec, mount: OwnedFd, nodev: bool) -> Detached {
    let works = nodev && rustix::fs::fstat(&mount).is_ok_and(|node| device_rules::is_for_all(&node));
    Detached { change: change_of(spec, nodev && !works), mount }
}

/// What a bind mount is to be like.
fn change_of(mount: &MountSpec, nodev: bool) -> Change {
    let MountSpec::Bind { read_only, recursive, propagation, options, .. } = mount else { return Change::default() };
    let propagation = propagation_flag(*propagation);
    let sealed_above = *read_only && options.writable_below;
    let top = if sealed_above { MOUNT_ATTR_RDONLY } else { 0 };
    Change { set: attributes(*options, *read_only && !sealed_above, nodev), propagation, recursive: *recursive, top }
}

fn propagation_flag(propagation: Propagation) -> u64 {
    match propagation {
        Propagation::Private => libc::MS_PRIVATE,
        Propagation::Slave => libc::MS_SLAVE,
        Propagation::Shared => libc::MS_SHARED,
        Propagation::Unbindable => libc::MS_UNBINDABLE,
    }
}

/// Makes one mount of the spec.
fn apply(root: &RootDir, spec: &SandboxSpec, mount: &MountSpec, sources: &mut Sources, done: &[&RootPath]) -> Result<(), Failure> {
    let path = mount.target();
    let nodev = spec.privileges != Privileges::Insecure;
    let source = whole(mount, sources, nodev)?;
    let Detached { mount: detached, change } = match mount {
        MountSpec::Overlay { rootfs, subpath, .. } => select(source, subpath, rootfs.is_writable())?,
        // Whoever puts it into place by other means could not, were it like this from the beginning.
        MountSpec::Tmpfs { tuning, .. } if tuning.propagation != Propagation::Private => {
            Detached { change: Change { propagation: propagation_flag(tuning.propagation), ..source.change }, ..source }
        }
        MountSpec::Bind { .. } | MountSpec::Tmpfs { .. } | MountSpec::Filesystem { .. } => source,
    };
    let target = Target { root, path, links: TargetLinks::Follow };
    let at = match target.open_outside_of_proc() {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) && may_create(path, done) => {
            target.create(mount_point_kind(mount)).map_err(Failure::step("make the mount point", path))?;
            target.open_outside_of_proc()
        }
        other => other,
    };
    let at = at.map_err(Failure::step(OPEN_MOUNT_POINT, path))?;
    let attach = || attach(detached.as_fd(), at.as_fd());
    let done = if change == Change::default() { attach() } else { change_and_attach(detached.as_fd(), change, attach) };
    done.map_err(Failure::step("mount on", path))
}

/// Whether a missing mount point lies on another mount of this sandbox instead of in its root file system.
fn may_create(path: &RootPath, done: &[&RootPath]) -> bool {
    is_made_by_runtime(path) || done.iter().any(|mounted| path.starts_with(mounted))
}

fn attributes(options: MountOptions, read_only: bool, nodev: bool) -> u64 {
    let flags = [
        (read_only, MOUNT_ATTR_RDONLY),
        (options.nosuid, MOUNT_ATTR_NOSUID),
        (options.nodev || nodev, MOUNT_ATTR_NODEV),
        (options.noexec, MOUNT_ATTR_NOEXEC),
    ];
    flags.iter().filter(|(on, _)| *on).fold(0, |set, (_, flag)| set | flag)
}

/// The part of a detached mount that is wanted.
fn select(source: Detached, subpath: &RootPath, writable: bool) -> Result<Detached, Failure> {
    if subpath.is_root() {
        return Ok(source);
    }
    let fail = || Failure::step("find the mount source", subpath);
    // Before Linux 6.14 nothing of a detached mount can be mounted elsewhere, so it is put where nobody looks any more: this `/sys` is the host's.
    let parked = rustix::mount::MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(&source.mount, "", rustix::fs::CWD, "/sys", parked)
        .map_err(Failure::step("find the mount source", subpath))?;
    let root = RootDir::open(Path::new(&descriptor_path(source.mount.as_fd()))).map_err(fail())?;
    let inner = Target { root: &root, path: subpath, links: TargetLinks::Follow }.open().map_err(fail())?;
    let mount = clone_mount(inner.as_fd(), Path::new(""), false).map_err(fail())?;
    let set = if writable { MOUNT_ATTR_NODEV } else { MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV };
    Ok(Detached { mount, change: Change { set, propagation: libc::MS_PRIVATE, recursive: false, top: 0 } })
}

fn mask(root: &RootDir) -> Result<(), Failure> {
    make_read_only(root, &READ_ONLY.map(RootPath::new), TargetLinks::Refuse)?;
    let null = RootPath::new("/dev/null");
    let null = Target { root, path: &null, links: TargetLinks::Refuse }.open().map_err(Failure::step(OPEN_TO_MASK, &null))?;
    let paths: Vec<_> = MASKED.iter().map(RootPath::new).chain(thermal_throttles()).collect();
    cover(root, &paths, TargetLinks::Refuse, null.as_fd())
}

/// Makes those of the paths read-only that are there.
pub(super) fn make_read_only(root: &RootDir, paths: &[RootPath], links: TargetLinks) -> Result<(), Failure> {
    for path in paths {
        let Some(at) = open_if_there(root, path, links)? else { continue };
        let fail = || Failure::step("make read-only", path);
        let copy = clone_mount(at.as_fd(), Path::new(""), true).map_err(fail())?;
        let change = Change { set: SYSTEM_READ_ONLY, propagation: 0, recursive: true, top: 0 };
        change_and_attach(copy.as_fd(), change, || attach(copy.as_fd(), at.as_fd())).map_err(fail())?;
    }
    Ok(())
}

/// Covers those of the paths that are there: directories by an empty one, files by `null`, which is open on the device.
pub(super) fn cover(root: &RootDir, paths: &[RootPath], links: TargetLinks, null: BorrowedFd<'_>) -> Result<(), Failure> {
    let empty = new_filesystem("tmpfs", &[("mode", Some("555")), ("nr_inodes", Some("1"))], guarded() | MountAttrFlags::MOUNT_ATTR_RDONLY)
        .map_err(Failure::step("mount tmpfs for", "masked directories"))?;
    // Copies can only be made of a mount that is somewhere (before Linux 6.14).
    let mut empty_is_used = false;
    for path in paths {
        let Some(at) = open_if_there(root, path, links)? else { continue };
        let fail = || Failure::step("mask", path);
        let stat = rustix::fs::fstat(&at).map_err(Failure::step("mask", path))?;
        let is_directory = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
        if is_directory && !std::mem::replace(&mut empty_is_used, true) {
            attach(empty.as_fd(), at.as_fd()).map_err(fail())?;
            continue;
        }
        let cover = if is_directory { empty.as_fd() } else { null };
        let copy = clone_mount(cover, Path::new(""), false).map_err(fail())?;
        attach(copy.as_fd(), at.as_fd()).map_err(fail())?;
    }
    Ok(())
}

/// Opens a path, such as one of `/proc` or `/sys` that not every kernel has; `None` where it is not there.
fn open_if_there(root: &RootDir, path: &RootPath, links: TargetLinks) -> Result<Option<OwnedFd>, Failure> {
    match (Target { root, path, links }).open() {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(Failure::step("open", path)(error)),
    }
}

/// Their counters tell sandboxes about each other's load. Most virtual machines have none.
fn thermal_throttles() -> Vec<RootPath> {
    let cpus = RootPath::new("/sys/devices/system/cpu");
    if !std::fs::exists("/sys/devices/system/cpu/cpu0/thermal_throttle").unwrap_or(false) {
        return Vec::new();
    }
    let Ok(entries) = std::fs::read_dir(cpus.to_path_buf()) else { return Vec::new() };
    entries.flatten().map(|entry| cpus.join(entry.file_name()).join("thermal_throttle")).collect()
}

/// Writes the spec's kernel parameters, before `/proc/sys` becomes read-only.
fn write_sysctls(root: &RootDir, spec: &SandboxSpec) -> Result<(), Failure> {
    spec.sysctls.iter().try_for_each(|(name, value)| write_sysctl(root, name, value))
}

/// Writes one kernel parameter.
pub(super) fn write_sysctl(root: &RootDir, name: &str, value: &str) -> Result<(), Failure> {
    if name == "kernel.domainname" {
        // The file belongs to root of the host, whoever the namespace belongs to.
        return rustix::system::setdomainname(value.as_bytes()).map_err(Failure::step("set the domain name", value));
    }
    let path = RootPath::new("/proc/sys").join(name.replace('.', "/"));
    let file = root.open_at(path.relative(), OFlags::WRONLY, Mode::empty(), Links::Refuse).map_err(Failure::step("set", &path))?;
    rustix::io::write(&file, value.as_bytes()).map_err(Failure::step("set", &path))?;
    Ok(())
}
