//! What the kernel holds this process for: root in earnest, root of a user namespace, or root by name only.
//!
//! This is the one place that answers "is this root?". A user ID of 0 alone says nothing: root of a container that was given no privileges may neither mount nor make namespaces.

use rustix::thread::{CapabilitySet, capabilities};

/// The number of the machine's own user namespace below `/proc/self/ns`, the same on every Linux (`PROC_USER_INIT_INO` of the kernel).
const INITIAL_USER_NAMESPACE: u64 = 0xEFFF_FFFD;

/// The capabilities in force, in this process's own user namespace; none where the kernel does not say.
pub fn effective() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective)
}

/// Whether this process may mount and make namespaces.
pub fn may_mount() -> bool {
    effective().contains(CapabilitySet::SYS_ADMIN)
}

/// Whether this process is root and has what belongs to that, in its user namespace.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root() && may_mount()
}

/// Whether this process is in the user namespace of the machine itself, where root is root. (All IDs can be mapped elsewhere too.)
pub fn in_initial_user_namespace() -> bool {
    match rustix::fs::stat("/proc/self/ns/user") {
        Ok(stat) => stat.st_ino == INITIAL_USER_NAMESPACE,
        // Without `/proc`, or in a kernel without user namespaces, where there is but one.
        Err(_) => true,
    }
}
