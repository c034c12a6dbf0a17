//! The root file systems of RUN steps: overlays of snapshots, or copies of them where the kernel mounts none.
//!
//! A copy costs time and space, so the tree that a step has left serves the next step of the same chain: it *is* what that step's base looks like. It lies in the
//! directory of an active snapshot, which goes with this process, or with the next `prune` if this one is killed.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::path::RootPath;
use crate::progress::Progress;
use crate::runtime::{SandboxSpec, mount_targets};
use crate::store::view::MergedView;
use crate::store::{ActiveSnapshot, CopiedRoot, Error, SnapshotId, Store, Watched};
use crate::sys::RootfsMount;

/// How many trees wait for another step.
const KEPT: usize = 4;

/// How root file systems are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootDriver {
    /// The kernel mounts overlays.
    Overlay,
    /// `fuse-overlayfs` shows the layers of containers as one. RUN steps have copies: the program gives directories new times when a file in them is first written to, which would
    /// get into layers.
    Fuse {
        /// The program.
        program: PathBuf,
        /// Why, and what would change that; `None` where the user wants it so.
        why: Option<String>,
    },
    /// All files are copied.
    Copy {
        /// Why, and what would change that; `None` where the user wants it so.
        why: Option<String>,
    },
}

/// Makes root file systems for one build.
pub struct Roots {
    choose: Box<dyn Fn() -> RootDriver + Send + Sync>,
    chosen: OnceLock<RootDriver>,
    kept: Mutex<Vec<(Vec<SnapshotId>, CopiedTree)>>,
    /// Trees that are only read: what steps mount of other stages.
    read: Mutex<HashMap<Vec<SnapshotId>, Arc<CopiedTree>>>,
}

/// A copied tree, which goes with this value.
#[derive(Debug)]
pub(crate) struct CopiedTree {
    root: CopiedRoot,
    _directory: ActiveSnapshot,
}

impl CopiedTree {
    fn new(store: &Store, base: &[SnapshotId]) -> Result<CopiedTree, Error> {
        let directory = store.prepare()?;
        let root = store.copy_root(base, &directory.fs_path())?;
        Ok(CopiedTree { root, _directory: directory })
    }

    /// How it is mounted.
    pub(crate) fn mount(&self, read_only: bool) -> RootfsMount {
        RootfsMount::Bind { source: self.root.path().to_owned(), read_only }
    }

    /// Prepares it for a command that finds `layer` above what was copied, and the mount points `stubs`.
    pub(crate) fn complete(&mut self, layer: &Path, stubs: &Path) -> Result<(), Error> {
        self.root.put(layer)?;
        self.root.put_stubs(stubs)?;
        self.root.settle()
    }

    /// Looks at what is put aside where the mounts of `spec` are put into the tree itself.
    pub(crate) fn watch(&self, spec: &SandboxSpec) -> Result<Watched, Error> {
        let targets: Vec<RootPath> = mount_targets(spec).into_iter().map(|(target, _)| target).collect();
        self.root.watch(&targets)
    }

    /// What was watched, and is as it was, has not been changed by the command.
    pub(crate) fn overlook(&mut self, watched: &Watched) {
        self.root.overlook(watched);
    }

    /// Writes what a command has changed to `layer`, instead of what is there. Nothing in it is later than `latest` (seconds since the epoch).
    pub(crate) fn collect(&mut self, base: &MergedView, layer: &ActiveSnapshot, latest: Option<i64>) -> Result<(), Error> {
        self.root.remove_stubs()?;
        layer.clear()?;
        self.root.changes(base, &layer.fs_path(), latest)
    }
}

impl Roots {
    /// Asks `choose` once, when the first root is made.
    pub fn new(choose: impl Fn() -> RootDriver + Send + Sync + 'static) -> Roots {
        Roots { choose: Box::new(choose), chosen: OnceLock::new(), kept: Mutex::default(), read: Mutex::default() }
    }

    /// Whether roots are copied. The first answer tells the user why.
    pub(crate) fn are_copied(&self, progress: &Progress) -> bool {
        let chosen = self.chosen.get_or_init(|| {
            let chosen = (self.choose)();
            if let RootDriver::Copy { why: Some(why) } | RootDriver::Fuse { why: Some(why), .. } = &chosen {
                progress.warn(format!("the files of each root file system are copied, which takes time and space: {why}"));
            }
            chosen
        });
        *chosen != RootDriver::Overlay
    }

    /// A tree of the snapshots `base` (bottom first) for one command: the one that the last step of the chain has left, where it is still there.
    pub(crate) fn take(&self, store: &Store, base: &[SnapshotId]) -> Result<CopiedTree, Error> {
        let nearest = {
            let mut kept = self.kept();
            let below = kept.iter().enumerate().filter(|(_, (snapshots, _))| base.starts_with(snapshots));
            let nearest = below.max_by_key(|(_, (snapshots, _))| snapshots.len()).map(|(at, _)| at);
            nearest.map(|at| kept.remove(at))
        };
        let Some((snapshots, mut tree)) = nearest else { return CopiedTree::new(store, base) };
        if let Some(further) = base.get(snapshots.len()..).filter(|further| !further.is_empty()) {
            store.add_layers(&mut tree.root, further)?;
        }
        Ok(tree)
    }

    /// Keeps a tree that looks like `snapshots` (bottom first) now.
    pub(crate) fn keep(&self, snapshots: Vec<SnapshotId>, mut tree: CopiedTree) -> Result<(), Error> {
        tree.root.renew()?;
        let oldest = {
            let mut kept = self.kept();
            kept.push((snapshots, tree));
            (kept.len() > KEPT).then(|| kept.remove(0))
        };
        drop(oldest);
        Ok(())
    }

    /// A tree of the snapshots `base` that nobody writes to.
    pub(crate) fn read_only(&self, store: &Store, base: &[SnapshotId]) -> Result<Arc<CopiedTree>, Error> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = read.get(base) {
            return Ok(Arc::clone(tree));
        }
        let tree = Arc::new(CopiedTree::new(store, base)?);
        read.insert(base.to_vec(), Arc::clone(&tree));
        Ok(tree)
    }

    /// A tree of the snapshots `base` whose changes nobody keeps.
    pub(crate) fn writable(&self, store: &Store, base: &[SnapshotId]) -> Result<CopiedTree, Error> {
        CopiedTree::new(store, base)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<(Vec<SnapshotId>, CopiedTree)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
