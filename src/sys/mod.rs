//! The kernel: one-syscall wrappers, guards for descriptors and mounts, and access to trees that are not trusted. The only folder with unsafe code.
//!
//! A wrapper here is one system call with owned or borrowed descriptors and `io::Result`; policy lives with its callers.

pub mod bpf;
mod content;
mod descriptor_path;
pub mod inode;
mod mount;
pub mod mount_attr;
pub mod netlink;
pub mod owner;
pub mod privilege;
pub mod process;
mod program;
mod rename;
mod root_dir;
pub mod scheduling;
pub mod signals;
pub mod tree;
pub mod xattr;
pub mod xtables;

pub use content::copy_content;
pub use descriptor_path::descriptor_path;
pub use mount::{OverlayUpper, RootfsMount};
pub use program::{SealedProgram, THIS_PROGRAM, is_sealed};
pub use rename::rename_new;
pub use root_dir::{Links, RootDir};
