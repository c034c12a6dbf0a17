//! Containers for which the kernel mounts no overlays: their root file system is a copy, or `fuse-overlayfs` makes it.
//!
//! Of a copy, all their files are in `root` of the container's directory, with what the user finds there first; `copied` beside it tells what that was. What a container has changed is found
//! when somebody asks, and written as a layer that goes when it has been looked at. What
//! `fuse-overlayfs` is given and has written is in `fuse` beside it, with marks of its own, and is read in the same way.

use std::path::{Path, PathBuf};

use crate::executor::RootDriver;
use crate::store::view::MergedView;
use crate::store::{ActiveSnapshot, CopiedRoot, SnapshotId};
use crate::sys::{OverlayUpper, RootfsMount};

use super::super::{Engine, Error, StorageDriver, root_driver};
use super::ContainerInfo;

/// The directory with all files.
const ROOT: &str = "root";

/// The directory with what `fuse-overlayfs` writes.
const FUSE: &str = "fuse";

/// What is remembered of how they were.
const RECORD: &str = "copied";

/// What a container has changed, as a layer's directory.
pub(super) struct ContainerLayer {
    pub(super) path: PathBuf,
    _made: Option<ActiveSnapshot>,
}

impl Engine {
    /// How root file systems are made here.
    ///
    /// # Errors
    /// The user's settings cannot be read.
    pub fn root_driver(&self) -> Result<RootDriver, Error> {
        let (wanted, programs) = ((self.options().storage_driver)()?, &self.options().programs);
        if wanted == Some(StorageDriver::Fuse)
            && let Err((reason, fix)) = root_driver::fuse_overlayfs(programs)
        {
            return Err(Error::Usage { message: format!("cannot use fuse-overlayfs: {reason}"), hint: Some(fix.to_owned()) });
        }
        Ok(root_driver::choose(self.store(), wanted, programs))
    }

    /// The root file system of a container that `program` makes, with `upper` above its image and the mount points `stubs`.
    pub(super) fn fuse_container_root(
        &self,
        dir: &Path,
        snapshots: &[SnapshotId],
        (upper, stubs): (&Path, &Path),
        program: PathBuf,
    ) -> Result<RootfsMount, Error> {
        let made = dir.join(FUSE);
        let changes = OverlayUpper { upper: made.join("fs"), work: made.join("work") };
        let make = |path: &Path| std::fs::create_dir(path).map_err(|source| Error::Io { action: "make", path: path.to_owned(), source });
        make(&made)?;
        std::fs::rename(upper, &changes.upper).map_err(|source| Error::Io { action: "make", path: changes.upper.clone(), source })?;
        make(&changes.work)?;
        let mut lower = vec![stubs.to_owned()];
        for (number, id) in snapshots.iter().rev().enumerate() {
            let linked = dir.join(format!("layer-{number}"));
            lower.push(if self.store().link_for_fuse(*id, &linked)? { linked } else { self.store().snapshot_path(*id) });
        }
        Ok(RootfsMount::Fuse { program, lower, changes })
    }

    /// Copies the root file system of a container, with `upper` above its image and the mount points `stubs`.
    pub(super) fn copy_container_root(
        &self,
        dir: &Path,
        snapshots: &[SnapshotId],
        (upper, stubs): (&Path, &Path),
    ) -> Result<RootfsMount, Error> {
        let path = dir.join(ROOT);
        std::fs::create_dir(&path).map_err(|source| Error::Io { action: "make", path: path.clone(), source })?;
        let mut root = self.store().copy_root(snapshots, &path)?;
        root.put(upper)?;
        root.put_stubs(stubs)?;
        root.settle()?;
        root.save(&dir.join(RECORD))?;
        Ok(RootfsMount::Bind { source: path, read_only: false })
    }

    /// Copies the files of an image that a container mounts.
    pub(super) fn copy_mounted_image(&self, dir: &Path, snapshots: &[SnapshotId]) -> Result<RootfsMount, Error> {
        let path = (0..).map(|number| dir.join(format!("image-{number}"))).find(|path| !path.exists()).unwrap_or_default();
        std::fs::create_dir(&path).map_err(|source| Error::Io { action: "make", path: path.clone(), source })?;
        self.store().copy_root(snapshots, &path)?;
        Ok(RootfsMount::Bind { source: path, read_only: true })
    }

    /// What a container has changed.
    pub(super) fn container_layer(&self, info: &ContainerInfo) -> Result<ContainerLayer, Error> {
        let (root, fuse) = (info.dir.join(ROOT), info.dir.join(FUSE));
        if fuse.exists() {
            let made = self.store().prepare()?;
            self.store().link_from_fuse(&fuse.join("fs"), &self.store().view(&info.record.snapshots)?, &made.fs_path())?;
            return Ok(ContainerLayer { path: made.fs_path(), _made: Some(made) });
        }
        if !root.exists() {
            return Ok(ContainerLayer { path: info.dir.join("fs"), _made: None });
        }
        let copied = CopiedRoot::open(self.store(), &root, &info.dir.join(RECORD))?;
        let made = self.store().prepare()?;
        copied.changes(&self.store().view(&info.record.snapshots)?, &made.fs_path(), None)?;
        Ok(ContainerLayer { path: made.fs_path(), _made: Some(made) })
    }

    /// Looks something up in the files of a container as they are now; what is mounted in it is not among them.
    pub(super) fn in_container<T>(&self, info: &ContainerInfo, look: impl FnOnce(&MergedView) -> T) -> Result<T, Error> {
        let root = info.dir.join(ROOT);
        if root.exists() {
            return Ok(look(&self.view_of(vec![root])?));
        }
        let layer = self.container_layer(info)?;
        Ok(look(&self.view_with(&layer.path, info)?))
    }

    /// The files of a container with `layer` for what it has changed.
    pub(super) fn view_with(&self, layer: &Path, info: &ContainerInfo) -> Result<MergedView, Error> {
        let below = info.record.snapshots.iter().rev().map(|id| self.store().snapshot_path(*id));
        self.view_of(std::iter::once(layer.to_owned()).chain(below).collect())
    }

    fn view_of(&self, layers: Vec<PathBuf>) -> Result<MergedView, Error> {
        let path = layers.first().cloned().unwrap_or_default();
        let opened = MergedView::new(layers, self.store().marks());
        opened.map(MergedView::while_it_changes).map_err(|source| Error::Io { action: "read", path, source })
    }
}
