//! `/dev` of a sandbox.
//!
//! `/dev` is a `nodev` tmpfs, and each device is a mount of its single node on it. So the devices that are given are the only ones that work, whatever the
//! process makes with `mknod(2)` (a default capability): there is no need for a device cgroup, which costs more than all mounts together (but see `device_rules`). The nodes
//! are made on a tmpfs that `/dev` covers; where making them is not permitted (rootless), the host's are used.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::mount::MountAttrFlags;

use super::error::Failure;
use super::mounts::{Target, TargetLinks, attach, clone_host_mount, clone_mount, mount_new, new_filesystem};
use super::namespaces::Sharing;
use super::plan::MountPointKind;
use super::spec::{DeviceSpec, NodeKind, Privileges, SandboxSpec};
use crate::path::RootPath;
use crate::sys::RootDir;

/// The devices that every sandbox has: name, major and minor number.
const DEFAULT: [(&str, u32, u32); 6] = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What is not a device of the host's `/dev`, or is the sandbox's own.
pub(super) const NOT_SHARED: [&str; 13] =
    ["pts", "shm", "mqueue", "fd", "console", "ptmx", "stdin", "stdout", "stderr", "log", "core", "hugepages", "initctl"];

/// Mounts and fills `/dev`.
pub(super) fn mount(root: &RootDir, spec: &SandboxSpec, shm: Option<OwnedFd>) -> Result<(), Failure> {
    let dev = RootPath::new("/dev");
    let guarded = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let insecure = spec.privileges == Privileges::Insecure;
    let nodes = make_nodes(root, &dev, &spec.devices);
    let attributes = if spec.privileges == Privileges::Insecure {
        MountAttrFlags::MOUNT_ATTR_NOSUID
    } else if spec.has_nodes() {
        guarded
    } else {
        guarded | MountAttrFlags::MOUNT_ATTR_NODEV
    };
    mount_new(root, &dev, "tmpfs", &[("mode", Some("755")), ("size", Some("65536k"))], attributes)?;
    let dir = open_dir(root, &dev)?;
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dir, name).map_err(Failure::step("link", name))?;
    }
    for name in ["pts", "shm", "mqueue"].into_iter().filter(|name| *name != "shm" || !spec.namespaces.no_shm) {
        rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)).map_err(Failure::step("make the mount point", name))?;
    }
    add_default_devices(root, nodes.as_ref())?;
    let pts = [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    let noexec_nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let pts_path = RootPath::new("/dev/pts");
    // The group `tty` has no number in a user namespace with a single ID.
    mount_new(root, &pts_path, "devpts", &pts, noexec_nosuid)
        .or_else(|_| mount_new(root, &pts_path, "devpts", &pts[..3], noexec_nosuid))?;
    mount_shm(root, spec, shm, guarded | MountAttrFlags::MOUNT_ATTR_NODEV)?;
    // Kernels can be without POSIX message queues.
    let _ = mount_new(root, &RootPath::new("/dev/mqueue"), "mqueue", &[], guarded | MountAttrFlags::MOUNT_ATTR_NODEV);
    if insecure {
        add_host_devices(root)?;
    }
    for (number, device) in spec.devices.iter().enumerate() {
        match (&device.node, &nodes) {
            (Some(_), Some(nodes)) => {
                let node = clone_mount(nodes.as_fd(), Path::new(&number.to_string()), false);
                place(root, &device.target, node.map_err(Failure::step("open the device", &device.target))?)?;
            }
            _ => add_device(root, device)?,
        }
    }
    Ok(())
}

/// `/dev/shm`: what POSIX shared memory is kept in, so it belongs to whom the namespace of inter-process communication belongs to.
fn mount_shm(root: &RootDir, spec: &SandboxSpec, shared: Option<OwnedFd>, attributes: MountAttrFlags) -> Result<(), Failure> {
    let path = RootPath::new("/dev/shm");
    if spec.namespaces.no_shm {
        return Ok(());
    }
    let shared = match &spec.namespaces.ipc {
        Sharing::Own => {
            let size = spec.shm_size.to_string();
            return mount_new(root, &path, "tmpfs", &[("source", Some("shm")), ("mode", Some("1777")), ("size", Some(&size))], attributes);
        }
        Sharing::Host => clone_host_mount(&path.to_path_buf(), false).map_err(Failure::step("open the host's", &path))?,
        Sharing::Container(_) => shared.ok_or(Failure::Invalid { spec: false })?,
    };
    let place = open_dir(root, &path)?;
    attach(shared.as_fd(), place.as_fd()).map_err(Failure::step("mount", &path))
}

fn open_dir(root: &RootDir, path: &RootPath) -> Result<OwnedFd, Failure> {
    Target { root, path, links: TargetLinks::Refuse }.open().map_err(Failure::step("open", path))
}

/// Makes the default devices, and what else programs expect, in a plain directory. Where no device works (`nodev`), there is a file in the place of `null` and nothing in
/// that of the others.
pub(super) fn fill_plain(dir: &OwnedFd) -> Result<(), Failure> {
    let mode = Mode::from_raw_mode(0o666);
    for (name, major, minor) in DEFAULT {
        let (shown, device) = (format!("/dev/{name}"), rustix::fs::makedev(major, minor));
        rustix::fs::mknodat(dir, name, FileType::CharacterDevice, mode, device).map_err(Failure::step("make the device", &shown))?;
    }
    if rustix::fs::openat(dir, "null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).is_err() {
        for (name, ..) in DEFAULT {
            rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty()).map_err(Failure::step("remove the device", name))?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        rustix::fs::openat(dir, "null", flags, mode).map_err(Failure::step("make", "/dev/null"))?;
    }
    for (name, target) in LINKS.into_iter().filter(|(name, _)| *name != "ptmx") {
        rustix::fs::symlinkat(target, dir, name).map_err(Failure::step("link", name))?;
    }
    rustix::fs::mkdirat(dir, "shm", Mode::from_raw_mode(0o1777)).map_err(Failure::step("make", "/dev/shm"))
}

/// Mounts the nodes on empty files.
fn add_default_devices(root: &RootDir, nodes: Option<&OwnedFd>) -> Result<(), Failure> {
    for (name, _, _) in DEFAULT {
        let node = match nodes {
            Some(nodes) => clone_mount(nodes.as_fd(), Path::new(name), false),
            None => clone_host_mount(&Path::new("/dev").join(name), false),
        };
        let path = RootPath::new("/dev").join(name);
        let node = node.map_err(Failure::step("open the device", &path))?;
        place(root, &path, node)?;
    }
    Ok(())
}

/// A tmpfs with the default devices, and under their numbers those of `devices` that are made; `None` where it is not permitted. It is mounted where `/dev` will cover it: before Linux 6.14 nothing of a detached mount
/// can be mounted elsewhere.
fn make_nodes(root: &RootDir, dev: &RootPath, devices: &[DeviceSpec]) -> Option<OwnedFd> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let nodes = new_filesystem("tmpfs", &[("mode", Some("755"))], attributes).ok()?;
    for (name, major, minor) in DEFAULT {
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(&nodes, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device).ok()?;
        // The mask of this process may have taken bits away.
        rustix::fs::chmodat(&nodes, name, Mode::from_raw_mode(0o666), rustix::fs::AtFlags::empty()).ok()?;
    }
    for (number, node) in devices.iter().enumerate().filter_map(|(number, device)| Some((number, device.node.as_ref()?))) {
        let (name, mode) = (number.to_string(), Mode::from_raw_mode(node.mode & 0o7777));
        let kind = match node.kind {
            NodeKind::Block => FileType::BlockDevice,
            NodeKind::Character => FileType::CharacterDevice,
            NodeKind::Pipe => FileType::Fifo,
        };
        rustix::fs::mknodat(&nodes, &name, kind, mode, rustix::fs::makedev(node.major, node.minor)).ok()?;
        let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
        rustix::fs::chownat(&nodes, &name, Some(uid), Some(gid), rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok()?;
        rustix::fs::chmodat(&nodes, &name, mode, rustix::fs::AtFlags::empty()).ok()?;
    }
    // In a user namespace nodes can be made that cannot be opened.
    rustix::fs::openat(&nodes, "null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let place = Target { root, path: dev, links: TargetLinks::Refuse }.open().ok()?;
    attach(nodes.as_fd(), place.as_fd()).ok()?;
    Some(nodes)
}

fn place(root: &RootDir, path: &RootPath, node: OwnedFd) -> Result<(), Failure> {
    let target = Target { root, path, links: TargetLinks::Refuse };
    target.create(MountPointKind::File).map_err(Failure::step("make the mount point", path))?;
    let at = target.open().map_err(Failure::step("open the mount point", path))?;
    attach(node.as_fd(), at.as_fd()).map_err(Failure::step("mount the device", path))
}

fn add_device(root: &RootDir, device: &DeviceSpec) -> Result<(), Failure> {
    let node = clone_host_mount(&device.source, false).map_err(Failure::step("open the device", device.source.display()))?;
    // Where no nodes can be made the host's must do, with its owner and mode; but not as a device that it is not.
    if let Some(wanted) = &device.node {
        let found = rustix::fs::fstat(&node).map_err(Failure::step("look at the device", device.source.display()))?;
        let kind = match FileType::from_raw_mode(found.st_mode) {
            FileType::BlockDevice => NodeKind::Block,
            FileType::Fifo => NodeKind::Pipe,
            _ => NodeKind::Character,
        };
        let found = (kind, rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
        let wanted = (wanted.kind, wanted.major, wanted.minor);
        if wanted != found {
            let shown = |(kind, major, minor): (NodeKind, u32, u32)| format!("{} {major}:{minor}", kind.letter());
            let path = device.source.display().to_string();
            return Err(Failure::OtherDevice { path, wanted: shown(wanted), found: shown(found) });
        }
    }
    place(root, &device.target, node)
}

/// Adds the host's devices, with those in the directories of `/dev`.
fn add_host_devices(root: &RootDir) -> Result<(), Failure> {
    let mut todo = vec![RootPath::new("/dev")];
    while let Some(dir) = todo.pop() {
        // Devices come and go while this looks; what has gone is no failure.
        let Ok(entries) = std::fs::read_dir(dir.to_path_buf()) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let path = dir.join(&name);
            let shared =
                !NOT_SHARED.iter().any(|known| OsStr::new(known) == name) && !DEFAULT.iter().any(|(known, ..)| OsStr::new(known) == name);
            let Ok(kind) = entry.file_type() else { continue };
            if !shared {
                continue;
            }
            if kind.is_dir() {
                todo.push(path);
            } else if is_device(kind) {
                add_node(root, &path)?;
            }
        }
    }
    Ok(())
}

fn is_device(kind: std::fs::FileType) -> bool {
    use std::os::unix::fs::FileTypeExt;
    kind.is_char_device() || kind.is_block_device()
}

/// Copies a node of the host (`/dev` of an insecure sandbox is not `nodev`), or mounts it where that is not permitted.
fn add_node(root: &RootDir, path: &RootPath) -> Result<(), Failure> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    let Ok(stat) = rustix::fs::statat(CWD, path.to_path_buf(), rustix::fs::AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
    let parent_target = Target { root, path: &parent, links: TargetLinks::Refuse };
    parent_target.create(MountPointKind::Directory).map_err(Failure::step("make", &parent))?;
    let dir = parent_target.open().map_err(Failure::step("open", &parent))?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if rustix::fs::mknodat(&dir, name, FileType::from_raw_mode(stat.st_mode), mode, stat.st_rdev).is_ok() {
        let _ = rustix::fs::chmodat(&dir, name, mode, rustix::fs::AtFlags::empty());
        return Ok(());
    }
    add_device(root, &DeviceSpec::new(path.to_path_buf(), path.clone()))
}
