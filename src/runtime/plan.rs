//! Which mount points a sandbox needs: a pure function of its spec.
//!
//! The writable layer of a sandbox must hold nothing but what its process wrote, so the runtime creates no mount points. Who prepares the root file system
//! asks here what must exist, and adds it in a layer of its own below the writable one.

use crate::path::RootPath;

use super::spec::{MountSpec, SandboxSpec};

/// What a mount point must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountPointKind {
    /// A directory.
    Directory,
    /// A file that is not a directory.
    File,
}

/// The file systems that every sandbox has directly on its root.
const SYSTEM: [&str; 3] = ["/proc", "/dev", "/sys"];

/// The mount points that must exist in the root file system, without those that lie on another mount of the sandbox (which are made there).
pub fn mount_targets(spec: &SandboxSpec) -> Vec<(RootPath, MountPointKind)> {
    let mut targets: Vec<_> = SYSTEM.iter().map(|path| (RootPath::new(path), MountPointKind::Directory)).collect();
    for (index, mount) in spec.mounts.iter().enumerate() {
        let target = mount.target();
        let on_mount = spec.mounts[..index].iter().any(|earlier| target.starts_with(earlier.target()));
        if !is_made_by_runtime(target) && !on_mount {
            targets.push((target.clone(), mount_point_kind(mount)));
        }
    }
    targets
}

/// What `mount` is mounted on.
pub(super) fn mount_point_kind(mount: &MountSpec) -> MountPointKind {
    match mount {
        MountSpec::Bind { is_file: true, .. } | MountSpec::Overlay { is_file: true, .. } => MountPointKind::File,
        _ => MountPointKind::Directory,
    }
}

/// Whether the mount point at `target` is in a file system that is made anew for each sandbox, so that the runtime makes it.
pub(super) fn is_made_by_runtime(target: &RootPath) -> bool {
    target.starts_with(&RootPath::new("/dev"))
}
