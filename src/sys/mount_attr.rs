//! `mount_setattr(2)`: changes the attributes of a mount, or of a tree of mounts, by descriptor.

#![expect(unsafe_code, reason = "the system calls have no safe wrapper in the libraries")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// What to change of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountChange {
    /// Attributes to set, `MOUNT_ATTR_*`.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// The propagation type (`MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`), 0 for no change.
    pub propagation: u64,
    /// Whether mounts below are changed as well.
    pub recursive: bool,
}

/// Writes are refused.
pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// Set-user-ID bits are ignored.
pub const MOUNT_ATTR_NOSUID: u64 = 0x2;
/// Device nodes cannot be opened.
pub const MOUNT_ATTR_NODEV: u64 = 0x4;
/// Nothing can be executed.
pub const MOUNT_ATTR_NOEXEC: u64 = 0x8;

/// Changes the mount that `mount` (its root, opened or detached) is on. Needs Linux 5.12.
pub fn mount_setattr(mount: BorrowedFd<'_>, change: MountChange) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: change.set, attr_clr: change.clear, propagation: change.propagation, userns_fd: 0 };
    set_attributes(mount, attr, change.recursive)
}

/// Shows the files of a detached mount with the owners that their IDs have in the user namespace `users`. Needs Linux 5.12, and a file system that can do it.
pub fn map_owners(mount: BorrowedFd<'_>, users: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
    let attr = libc::mount_attr { attr_set: MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd: users.as_raw_fd() as u64 };
    set_attributes(mount, attr, recursive)
}

fn set_attributes(mount: BorrowedFd<'_>, attr: libc::mount_attr, recursive: bool) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty NUL-terminated string and `attr` is valid for reads of the size given; both outlive the call, as does the descriptor.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(&attr),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
