//! How root file systems are made here: as overlays where the kernel mounts them, as copies elsewhere. The one place that decides.

use std::path::Path;
use std::str::FromStr;

use crate::executor::RootDriver;
use crate::runtime::{can_mount_roots, try_mount};
use crate::store::Store;
use crate::sys::RootfsMount;

/// What the user wants instead of what is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageDriver {
    /// Overlays, or nothing.
    Overlay,
    /// Copies.
    Copy,
}

impl FromStr for StorageDriver {
    type Err = String;

    /// Reads the name of a driver; `vfs` is what other programs call the one that copies.
    fn from_str(text: &str) -> Result<StorageDriver, String> {
        match text {
            "overlay" | "overlay2" => Ok(StorageDriver::Overlay),
            "copy" | "vfs" => Ok(StorageDriver::Copy),
            other => Err(format!("`{other}` is no storage driver: expected overlay or copy")),
        }
    }
}

/// Chooses for the layers in `store`. Where overlays have been mounted before, that is believed; else it is tried.
pub(super) fn choose(store: &Store, wanted: Option<StorageDriver>) -> RootDriver {
    if wanted == Some(StorageDriver::Copy) {
        return RootDriver::Copy { why: None };
    }
    // What that means is said of the steps and containers themselves.
    if wanted.is_none() && !can_mount_roots() {
        return RootDriver::Copy { why: None };
    }
    let copy = |why: String| RootDriver::Copy { why: Some(why) };
    let root = store.root().display();
    let elsewhere = "put the store on a volume or another disk with --root or STRAKE_ROOT";
    if !store.marks().are_native() {
        let why = "is, or was begun, on a file system that cannot keep what overlays consist of";
        return copy(format!("the store `{root}` {why}; {elsewhere}"));
    }
    // Whoever wants overlays where they cannot be mounted is told so by the kernel.
    if wanted == Some(StorageDriver::Overlay) {
        return RootDriver::Overlay;
    }
    let circumstances = circumstances();
    if store.mounts_overlays(&circumstances) {
        return RootDriver::Overlay;
    }
    match trial(store) {
        Ok(()) => {
            store.remember_overlays(&circumstances);
            RootDriver::Overlay
        }
        Err(Some(error)) => {
            copy(format!("the kernel mounts no overlay on the store `{root}` ({error}); {elsewhere}, or see `strake doctor`"))
        }
        // Whatever is wrong is said by whoever needs it.
        Err(None) => RootDriver::Overlay,
    }
}

/// Mounts an overlay in the store; fails with what the kernel says against it, if it is that.
fn trial(store: &Store) -> Result<(), Option<std::io::Error>> {
    let active = store.prepare().map_err(|_| None)?;
    let rootfs: RootfsMount = store.rootfs(&[], Some(&active), None);
    try_mount(&rootfs).map_err(|error| {
        // What has nothing to do with overlays; their refusals have any number, EIO on FUSE among them.
        let others = [libc::ENOENT, libc::ENOMEM, libc::ENOSPC, libc::EDQUOT, libc::EMFILE, libc::ENFILE, libc::EROFS];
        Some(error).filter(|error| error.raw_os_error().is_some_and(|errno| !others.contains(&errno)))
    })
}

/// What may change the kernel's answer: the kernel, and what this process may do.
fn circumstances() -> String {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
    let status = read("/proc/self/status");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim().to_owned();
    let map = read("/proc/self/uid_map").split_whitespace().collect::<Vec<_>>().join(" ");
    format!("{} {} {} [{map}]", rustix::system::uname().release().to_string_lossy(), field("CapEff:"), field("Seccomp:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_have_the_names_that_users_know() {
        for (name, driver) in [("overlay", StorageDriver::Overlay), ("copy", StorageDriver::Copy), ("vfs", StorageDriver::Copy)] {
            assert_eq!(name.parse(), Ok(driver));
        }
        assert!("btrfs".parse::<StorageDriver>().is_err());
    }
}
