//! The files of a sandbox that does not run: its root and what it mounts from the host, in a mount namespace of this process.

use rustix::mount::MountPropagationFlags;

use super::error::Failure;
use super::spec::{BindSource, MountSpec, SandboxSpec};
use super::world::Sources;
use super::{Result, rootfs, world};
use crate::sys::RootDir;
use crate::sys::process::unshare;

/// Mounts them and opens the root. This process, which must have one thread, keeps its own root, and the mounts go with it.
pub fn mount_files(spec: &SandboxSpec) -> Result<RootDir> {
    Ok(mount(spec)?)
}

fn mount(spec: &SandboxSpec) -> std::result::Result<RootDir, Failure> {
    // File systems in memory are made anew at each start, and descriptors were those of its start.
    let lasting = |mount: &MountSpec| {
        matches!(mount, MountSpec::Bind { source: BindSource::Path(_) | BindSource::Below { .. }, .. } | MountSpec::Overlay { .. })
    };
    let mounts = spec.mounts.iter().filter(|mount| lasting(mount)).cloned().collect();
    let spec = SandboxSpec { mounts, ..spec.clone() };
    unshare(libc::CLONE_NEWNS).map_err(Failure::step("make", "a mount namespace"))?;
    let sources = Sources::open(&spec, Vec::new(), world::filesystems(&spec)?, None)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(Failure::step("make private", "/"))?;
    let options =
        rootfs::RootOptions { read_only: spec.read_only_root, volatile: spec.volatile, devices: false, users: None, limits: None };
    let root = rootfs::attach_root(rootfs::mount_detached(&spec.rootfs, options)?)?;
    world::mount_sources(&root, &spec, sources)?;
    Ok(root)
}
