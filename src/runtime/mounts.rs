//! Mounts by descriptor: makes them detached, then attaches them to a directory or file that the kernel resolved inside of the new root.
//!
//! Nothing here takes a path below the new root as a string that the kernel would follow by itself: see [`Target`]. Linux 5.6 is the oldest kernel that works.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::error::Failure;
use super::plan::MountPointKind;
use crate::path::RootPath;
use crate::sys::mount_attr::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY, MountChange, mount_setattr};
use crate::sys::{Links, RootDir};

/// A new file system of type `name`, mounted nowhere yet. A key without a value is a flag.
pub(super) fn new_filesystem(name: &str, options: &[(&str, Option<&str>)], attributes: MountAttrFlags) -> io::Result<OwnedFd> {
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // What mount tables show: without it, `none`.
    if options.iter().all(|(key, _)| *key != "source") {
        fsconfig_set_string(&context, "source", name)?;
    }
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(&context, *key, *value)?,
            None => fsconfig_set_flag(&context, *key)?,
        }
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A copy of the mount that `path` below `dir` is on, with `path` as its root; with the mounts below it where `recursive` is set.
pub(super) fn clone_mount(dir: BorrowedFd<'_>, path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(open_tree(dir, path, flags)?)
}

/// A copy of a mount of the host by path.
pub(super) fn clone_host_mount(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    clone_mount(CWD, path, recursive)
}

/// Attaches the detached `mount` to `target`.
pub(super) fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_mount(mount, "", target, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)?)
}

/// What a mount is to be like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// `MOUNT_ATTR_*` to set.
    pub(super) set: u64,
    /// `MS_PRIVATE`, `MS_SLAVE` or `MS_SHARED`; 0 is no change.
    pub(super) propagation: u64,
    /// Whether mounts below are changed as well.
    pub(super) recursive: bool,
    /// `MOUNT_ATTR_*` to set of the mount alone, whatever is below.
    pub(super) top: u64,
}

/// Changes a detached mount; attaches it in any case by way of `attach`. Where there is no `mount_setattr` (before Linux 5.12), it is changed after that, and
/// mounts below it keep their attributes.
pub(super) fn change_and_attach(mount: BorrowedFd<'_>, change: Change, attach: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let Change { set, propagation, recursive, top } = change;
    let changed = mount_setattr(mount, MountChange { set, clear: 0, propagation, recursive }).and_then(|()| match top {
        0 => Ok(()),
        set => mount_setattr(mount, MountChange { set, ..MountChange::default() }),
    });
    match changed {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            attach()?;
            change_attached(mount, change)
        }
        other => {
            other?;
            attach()
        }
    }
}

/// Changes an attached mount by the name of its descriptor, which leads to its root whatever is mounted where.
fn change_attached(mount: BorrowedFd<'_>, change: Change) -> io::Result<()> {
    let path = descriptor_path(mount);
    if change.propagation != 0 {
        let mut flags = MountPropagationFlags::from_bits_retain(change.propagation as u32);
        flags.set(MountPropagationFlags::REC, change.recursive);
        rustix::mount::mount_change(path.as_str(), flags)?;
    }
    // The first flags of both interfaces have the same numbers: read-only, nosuid, nodev, noexec. A remount replaces all of them, so those that the mount has
    // (in the numbers of statvfs(3), again the same) are kept.
    const SHARED: u64 = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    let now = rustix::fs::fstatvfs(mount)?.f_flag.bits() & SHARED;
    let flags = MountFlags::BIND | MountFlags::from_bits_retain((now | change.set | change.top) as u32);
    Ok(rustix::mount::mount_remount(path.as_str(), flags, "")?)
}

/// How many links may be on the way to a mount point, as for the kernel.
const MAX_LINKS: u32 = 40;

/// What symbolic links on the way to a mount point do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetLinks {
    /// They are followed inside of the root.
    Follow,
    /// They are an error: the place must be what its name says.
    Refuse,
}

/// A place in the new root.
pub(super) struct Target<'a> {
    pub(super) root: &'a RootDir,
    pub(super) path: &'a RootPath,
    pub(super) links: TargetLinks,
}

impl Target<'_> {
    /// Opens the place without side effects.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        let links = match self.links {
            TargetLinks::Follow => Links::Follow,
            TargetLinks::Refuse => Links::Refuse,
        };
        self.root.open_at(self.path.relative(), OFlags::PATH, Mode::empty(), links)
    }

    /// Opens the place for a mount that the spec asks for. A file of `/proc` or `/sys` is refused: what is mounted there could change what this
    /// process writes to them.
    pub(super) fn open_outside_of_proc(&self) -> io::Result<OwnedFd> {
        const PROC_SUPER_MAGIC: i64 = 0x9fa0;
        let fd = self.open()?;
        if rustix::fs::fstatfs(&fd)?.f_type as i64 == PROC_SUPER_MAGIC {
            return Err(Errno::PERM.into());
        }
        Ok(fd)
    }

    /// Makes the place and what leads to it. Only for file systems that belong to the sandbox alone.
    pub(super) fn create(&self, kind: MountPointKind) -> io::Result<()> {
        let mut rest: VecDeque<OsString> = self.path.components().map(OsStr::to_owned).collect();
        let (mut at, mut links) = (RootPath::root(), 0);
        while let Some(name) = rest.pop_front() {
            let dir = self.root.open_at(at.relative(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), Links::Follow)?;
            if name == ".." {
                at = at.parent().unwrap_or_else(RootPath::root);
                continue;
            }
            // One that leads to nothing yet is followed as well.
            if self.links == TargetLinks::Follow
                && let Ok(target) = rustix::fs::readlinkat(&dir, &name, Vec::new())
            {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                if target.is_absolute() {
                    at = RootPath::root();
                }
                let parts = target.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
                for part in parts.rev() {
                    rest.push_front(part.as_os_str().to_owned());
                }
                continue;
            }
            let made = if rest.is_empty() && kind == MountPointKind::File {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                rustix::fs::openat(&dir, &name, flags, Mode::from_raw_mode(0o644)).map(drop)
            } else {
                rustix::fs::mkdirat(&dir, &name, Mode::from_raw_mode(0o755))
            };
            match made {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            at = at.join(&name);
        }
        Ok(())
    }
}

/// Mounts a new file system on `path` of the root. The place must be a real directory there.
pub(super) fn mount_new(
    root: &RootDir,
    path: &RootPath,
    name: &str,
    options: &[(&str, Option<&str>)],
    attributes: MountAttrFlags,
) -> Result<(), Failure> {
    let mount = new_filesystem(name, options, attributes).map_err(Failure::step(format!("mount {name} on"), path))?;
    let target = Target { root, path, links: TargetLinks::Refuse }.open().map_err(Failure::step("open the mount point", path))?;
    attach(mount.as_fd(), target.as_fd()).map_err(Failure::step(format!("mount {name} on"), path))
}

/// The name of an open descriptor for interfaces that only take paths. Valid while `/proc` of the host is in reach.
pub(super) fn descriptor_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
