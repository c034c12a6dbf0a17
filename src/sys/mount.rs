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
}

impl RootfsMount {
    /// Whether it takes changes.
    pub fn is_writable(&self) -> bool {
        match self {
            RootfsMount::Overlay { upper, .. } => upper.is_some(),
            RootfsMount::Bind { read_only, .. } => !read_only,
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
