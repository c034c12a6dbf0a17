//! A path for an open descriptor: for system calls that take only paths, or only short ones.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

/// The path by which this process (and no other) can reach what `fd` is open on. Good while the descriptor is open.
pub fn descriptor_path(fd: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}
