//! What a root file system is made of: the store produces it, the runtime mounts it.

use std::path::PathBuf;

/// How to mount a root file system. Where `store` and `runtime` meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootfsMount {
    /// An overlay.
    Overlay {
        /// The read-only layers, topmost first.
        lower: Vec<PathBuf>,
        /// Where changes go; `None` makes the whole overlay read-only.
        upper: Option<OverlayUpper>,
        /// Whether overlay attributes are in `user.overlay.*` (rootless) instead of `trusted.overlay.*`.
        userxattr: bool,
    },
    /// A directory as it is.
    Bind {
        /// The directory.
        source: PathBuf,
        /// Whether writes are refused.
        read_only: bool,
    },
    /// Layers that the program `fuse-overlayfs` shows as one.
    Fuse {
        /// The program.
        program: PathBuf,
        /// The read-only layers, topmost first, with marks that it knows.
        lower: Vec<PathBuf>,
        /// Where changes go, in a directory that has nothing else; the marks there are the program's own.
        changes: OverlayUpper,
    },
}

impl RootfsMount {
    /// Whether it takes changes.
    pub fn is_writable(&self) -> bool {
        match self {
            RootfsMount::Overlay { upper, .. } => upper.is_some(),
            RootfsMount::Bind { read_only, .. } => !read_only,
            RootfsMount::Fuse { .. } => true,
        }
    }
}

/// The writable part of an overlay. Both directories are on one file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayUpper {
    /// Where changes go.
    pub upper: PathBuf,
    /// The overlay's work directory: empty, beside `upper`.
    pub work: PathBuf,
}
