//! The layer of mount points: what a sandbox mounts on must exist, and must not end up in the image.
//!
//! It lies directly below the writable layer, holds the missing mount points, and repeats the directories above them with the metadata that they have, since in an
//! overlay the topmost directory's metadata is what is seen. When the command changes such a directory, the kernel copies it up from here, so that the
//! writable layer gets the very metadata of the image.

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid};

use crate::path::RootPath;
use crate::runtime::{MountPointKind, MountSpec, SandboxSpec, mount_targets};
use crate::store::view::MergedView;
use crate::sys::tree::{Kind, LastLink, Metadata, Tree, resolve};

use super::Error;

/// Fills the empty directory `stubs` with the mount points of `spec` that neither `base` nor the writable layer `upper` has.
pub(crate) fn make_stubs(base: &MergedView, upper: &Path, stubs: &Path, spec: &SandboxSpec) -> Result<(), Error> {
    let mut repeated: Vec<(RootPath, Metadata)> = Vec::new();
    let fail = |path: &RootPath| {
        let path = path.clone();
        move |source: std::io::Error| Error::Write { path, source }
    };
    for (target, kind) in mount_targets(spec) {
        // Below another mount, the sandbox itself makes the mount point there.
        let resolved = resolve(base, &target, LastLink::Follow).map_err(fail(&target))?;
        if let Some(found) = base.metadata(&resolved).map_err(fail(&target))? {
            match (kind, found.kind == Kind::Directory) {
                (MountPointKind::Directory, false) => return Err(Error::NotADirectory { path: target }),
                (MountPointKind::File, true) => return Err(Error::IsADirectory { path: target }),
                _ => continue,
            }
        }
        if upper.join(resolved.relative()).symlink_metadata().is_ok() {
            continue;
        }
        let mut path = RootPath::root();
        let parent = resolved.parent().unwrap_or_else(RootPath::root);
        for name in std::iter::once(OsStr::new("")).chain(parent.components()) {
            path = path.join(name);
            let host = stubs.join(path.relative());
            let known = base.metadata(&path).map_err(fail(&path))?;
            if known.as_ref().is_some_and(|found| found.kind != Kind::Directory) {
                return Err(Error::NotADirectory { path });
            }
            if !path.is_root() && !make_directory(&host).map_err(fail(&path))? {
                continue;
            }
            if let Some(metadata) = known.filter(|_| !repeated.iter().any(|(seen, _)| *seen == path)) {
                repeat(base, &path, &host, &metadata).map_err(fail(&path))?;
                repeated.push((path.clone(), metadata));
            }
        }
        let host = stubs.join(resolved.relative());
        match kind {
            MountPointKind::Directory => make_directory(&host).map(|_| ()),
            MountPointKind::File => std::fs::File::create(&host).map(|_| ()),
        }
        .map_err(fail(&target))?;
    }
    // Last, since every entry made in a directory changed its time.
    for (path, metadata) in repeated.iter().rev() {
        set_times(&stubs.join(path.relative()), metadata).map_err(fail(path))?;
    }
    Ok(())
}

/// Gives file systems in memory the modes of the directories of `base` that they cover, as other runtimes do.
pub(super) fn keep_modes(base: &MergedView, mounts: &mut [MountSpec]) -> Result<(), Error> {
    let targets: Vec<RootPath> = mounts.iter().map(|mount| mount.target().clone()).collect();
    for mount in mounts {
        let MountSpec::Tmpfs { target, mode, .. } = mount else { continue };
        // What is on another mount is no directory of the base.
        if targets.iter().any(|other| other != target && target.starts_with(other)) {
            continue;
        }
        let fail = |source: std::io::Error| Error::Write { path: target.clone(), source };
        let covered = resolve(base, target, LastLink::Follow).and_then(|path| base.metadata(&path)).map_err(fail)?;
        if let Some(directory) = covered.filter(|found| found.kind == Kind::Directory) {
            *mode = directory.mode;
        }
    }
    Ok(())
}

/// Makes a directory; tells whether it is new.
fn make_directory(path: &Path) -> std::io::Result<bool> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a repeated directory the owner, mode and attributes of the original.
pub(super) fn repeat(base: &MergedView, path: &RootPath, host: &Path, metadata: &Metadata) -> std::io::Result<()> {
    rustix::fs::chownat(CWD, host, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmod(host, Mode::from_raw_mode(metadata.mode))?;
    for (name, value) in base.xattrs(path)? {
        rustix::fs::lsetxattr(host, name.as_os_str(), &value, rustix::fs::XattrFlags::empty())?;
    }
    Ok(())
}

fn set_times(host: &Path, metadata: &Metadata) -> std::io::Result<()> {
    let time = Timespec { tv_sec: metadata.mtime.0, tv_nsec: i64::from(metadata.mtime.1) };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, host, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
