//! What a bundle is made of, in the guardian's mount namespace: a file system in memory with the root, the sources of all mounts, and `config.json`.
//!
//! Sources are mounted there with the attributes that they are to have (read-only and the like, also of mounts below them), so that the other runtime has only to bind them.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode};
use rustix::mount::{MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, move_mount, unmount};

use crate::runtime::bundle::{Surroundings, of_sandbox};
use crate::runtime::cgroup::is_unified;
use crate::runtime::error::Failure;
use crate::runtime::mounts::{Change, Target, TargetLinks, change_and_attach, clone_host_mount, clone_mount, new_filesystem};
use crate::runtime::namespaces::Sharing;
use crate::runtime::rootfs::{Detached, RootOptions, mount_detached};
use crate::runtime::spec::{MountSpec, SandboxSpec};
use crate::runtime::world;
use crate::sys::RootDir;
use crate::sys::mount_attr::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, MOUNT_ATTR_RDONLY};

/// Where things are mounted.
pub(super) struct Staged {
    /// The sources of the spec's mounts, in its order.
    pub(super) sources: Vec<PathBuf>,
    /// A `/dev/shm` that is not the container's own.
    pub(super) shm: Option<PathBuf>,
    /// The init, where the container wants one.
    pub(super) init: Option<PathBuf>,
}

/// Mounts everything at `dir`, in this process's own mount namespace; `shm` is the `/dev/shm` of another container, `program` the file of this program.
pub(super) fn mount(spec: &SandboxSpec, dir: &Path, shm: Option<OwnedFd>, program: Option<&Path>) -> Result<Staged, Failure> {
    let devices = spec.has_nodes();
    // While the mounts of the host have their propagation, so that what is to follow it does.
    let options = RootOptions { read_only: false, volatile: spec.volatile, devices, users: None, limits: spec.cgroup.as_ref() };
    let root = mount_detached(&spec.rootfs, options)?;
    let sources = world::detached(spec)?;
    let init = if spec.init { Some(program_for_init(program)?) } else { None };
    let shm = match (&spec.namespaces.ipc, shm) {
        (Sharing::Host, _) => Some(clone_host_mount(Path::new("/dev/shm"), false).map_err(Failure::step("mount the host's", "/dev/shm"))?),
        (_, shm) => shm,
    };
    let receive = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", receive).map_err(Failure::step("change the propagation of", "/"))?;
    let sealed = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let memory = new_filesystem("tmpfs", &[("mode", Some("700"))], sealed).map_err(Failure::step("mount tmpfs on", dir.display()))?;
    place(Detached { mount: memory, change: Change::default() }, dir)?;
    make_directory(&dir.join("state"))?;
    make_directory(&dir.join("rootfs"))?;
    place(root, &dir.join("rootfs"))?;
    let staged = sources.into_iter().zip(&spec.mounts).enumerate();
    let staged = staged.map(|(index, (source, mount))| stage_source(source, mount, dir.join(format!("mount{index}"))));
    let sources = staged.collect::<Result<_, Failure>>()?;
    let shm = shm.map(|mount| stage_shm(mount, dir.join("shm"))).transpose()?;
    let init = init.map(|mount| stage_init(mount, dir.join("init"))).transpose()?;
    hide_second_hierarchy();
    // Of this PID namespace: the other runtime looks for its processes there.
    let guarded = sealed | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let proc = new_filesystem("proc", &[], guarded).map_err(Failure::step("mount proc on", "/proc"))?;
    place(Detached { mount: proc, change: Change::default() }, Path::new("/proc"))?;
    Ok(Staged { sources, shm, init })
}

fn program_for_init(program: Option<&Path>) -> Result<OwnedFd, Failure> {
    let unknown =
        || Failure::Foreign { code: 125, message: "there is no init for the container: the file of this program is not known".to_owned() };
    let program = program.ok_or_else(unknown)?;
    clone_host_mount(program, false).map_err(Failure::step("mount", program.display()))
}

fn stage_init(mount: OwnedFd, at: PathBuf) -> Result<PathBuf, Failure> {
    make_place(&mount, &at)?;
    let set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
    let change = Change { set, propagation: libc::MS_PRIVATE, recursive: false, top: 0 };
    place(Detached { mount, change }, &at)?;
    Ok(at)
}

/// Writes the config of the bundle at `dir`.
pub(super) fn write_config(spec: &SandboxSpec, dir: &Path, surroundings: &Surroundings<'_>) -> Result<(), Failure> {
    let refused = |error: crate::runtime::bundle::Error| Failure::Foreign { code: 125, message: crate::diag::with_causes(&error) };
    let config = of_sandbox(spec, surroundings).map_err(refused)?;
    let path = dir.join("config.json");
    let bytes = serde_json::to_vec(&config).map_err(|error| Failure::step("write", path.display())(std::io::Error::from(error)))?;
    std::fs::write(&path, bytes).map_err(Failure::step("write", path.display()))
}

/// Takes the v2 hierarchy away that lies beside those of v1: some runtimes refuse to work where it has controllers, and none needs it.
fn hide_second_hierarchy() {
    let beside = Path::new("/sys/fs/cgroup/unified");
    let controllers = std::fs::read_to_string(beside.join("cgroup.controllers")).unwrap_or_default();
    if !is_unified() && !controllers.trim().is_empty() {
        // One that stays is a failure of the runtime, which says so.
        let _ = unmount(beside, UnmountFlags::DETACH);
    }
}

fn stage_source(source: Detached, mount: &MountSpec, at: PathBuf) -> Result<PathBuf, Failure> {
    make_place(&source.mount, &at)?;
    place(source, &at)?;
    let MountSpec::Overlay { subpath, .. } = mount else { return Ok(at) };
    if subpath.is_root() {
        return Ok(at);
    }
    // Found inside of it, as links of an image may lead anywhere.
    let fail = || Failure::step("find the mount source", subpath);
    let root = RootDir::open(&at).map_err(fail())?;
    let inner = Target { root: &root, path: subpath, links: TargetLinks::Follow }.open().map_err(fail())?;
    let part = clone_mount(inner.as_fd(), Path::new(""), false).map_err(fail())?;
    let at = at.with_extension("part");
    make_place(&part, &at)?;
    place(Detached { mount: part, change: Change::default() }, &at)?;
    Ok(at)
}

fn stage_shm(mount: OwnedFd, at: PathBuf) -> Result<PathBuf, Failure> {
    make_directory(&at)?;
    let change = Change { set: 0, propagation: libc::MS_PRIVATE, recursive: false, top: 0 };
    place(Detached { mount, change }, &at)?;
    Ok(at)
}

/// Makes what `mount` can be mounted on.
fn make_place(mount: &OwnedFd, at: &Path) -> Result<(), Failure> {
    let stat = rustix::fs::fstat(mount).map_err(Failure::step("look at", "a mount source"))?;
    if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
        return make_directory(at);
    }
    std::fs::write(at, "").map_err(Failure::step("make", at.display()))
}

fn make_directory(at: &Path) -> Result<(), Failure> {
    rustix::fs::mkdir(at, Mode::RWXU).map_err(Failure::step("make", at.display()))
}

fn place(detached: Detached, at: &Path) -> Result<(), Failure> {
    let Detached { mount, change } = detached;
    let attach = || Ok(move_mount(&mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?);
    let done = if change == Change::default() { attach() } else { change_and_attach(mount.as_fd(), change, attach) };
    done.map_err(Failure::step("mount on", at.display()))
}
