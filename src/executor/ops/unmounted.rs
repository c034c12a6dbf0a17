//! RUN by chroot(2) alone: what of a step can be had without namespaces and mounts, and what else is told of it.

use std::collections::HashSet;
use std::path::PathBuf;

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::executor::{Environment, Error, StepNetwork};
use crate::graph::{ExecMountKind, ExecOp, NetworkMode, SecurityMode, Step};
use crate::runtime::{BindSource, CHROOT, MountSpec, obstacle};

/// Says once what such steps lack, and fails where this one asks for what cannot be had.
pub(super) fn check(environment: &Environment, step: &Step, op: &ExecOp) -> Result<(), Error> {
    environment.confinement_told.call_once(|| {
        environment.progress.warn(CHROOT);
        let root = environment.store.root();
        if statvfs(root).is_ok_and(|stat| stat.f_flag.contains(StatVfsMountFlags::NODEV)) {
            let text = format!(
                "no devices in these steps, and a file in the place of /dev/null: the file system of the store `{}` is mounted nodev; put the store elsewhere with --root or STRAKE_ROOT",
                root.display()
            );
            environment.progress.warn(text);
        }
    });
    let refused = |what: String| {
        let reason = format!("{what} cannot be had where steps run by chroot alone");
        Err(Error::Refused { step: Box::new(step.clone()), reason, hint: Some(obstacle().fix) })
    };
    if op.network == NetworkMode::None {
        return refused("a step without network".to_owned());
    }
    if op.security == SecurityMode::Insecure {
        return refused("`--security=insecure`".to_owned());
    }
    if environment.steps.shm_size.is_some() {
        return refused("a limit of /dev/shm (`--shm-size`)".to_owned());
    }
    let mut caches = HashSet::new();
    for mount in &op.mounts {
        match &mount.kind {
            ExecMountKind::Cache { id, subpath: Some(path), .. } => {
                return refused(format!("the directory `{path}` of the cache `{id}` alone"));
            }
            ExecMountKind::Cache { id, seed, mode, uid, gid, .. } if !caches.insert((id, seed, (mode, uid, gid))) => {
                return refused(format!("the cache `{id}` in a second place, `{}`,", mount.target));
            }
            ExecMountKind::Tmpfs { size: Some(_), .. } => {
                let text =
                    format!("the file system in memory on `{}` is a directory on the disk, without a limit of its size", mount.target);
                environment.progress.warn(text);
            }
            _ => {}
        }
    }
    Ok(())
}

/// The network, which is that of the surroundings.
pub(super) fn network(environment: &Environment, hostname: &str) -> Result<StepNetwork, Error> {
    (environment.network)(NetworkMode::Host, hostname)
}

/// Which of the mounts, by number, are caches that may be moved into the root of the step: they are locked for it alone.
pub(super) fn lent(mounts: &[MountSpec], caches: impl Iterator<Item = PathBuf>) -> Vec<usize> {
    let caches: Vec<PathBuf> = caches.collect();
    let is_cache = |mount: &MountSpec| match mount {
        MountSpec::Bind { source: BindSource::Path(path), read_only: false, .. } => caches.contains(path),
        _ => false,
    };
    mounts.iter().enumerate().filter(|(_, mount)| is_cache(mount)).map(|(number, _)| number).collect()
}
