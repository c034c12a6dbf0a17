//! How root file systems are made here: as overlays where the kernel mounts them; elsewhere those of containers by `fuse-overlayfs`, where it works, and all others as copies. The one place
//! that decides.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;

use crate::executor::RootDriver;
use crate::runtime::{can_mount_roots, try_mount};
use crate::store::{SnapshotId, Store};
use crate::sys::{OverlayUpper, RootfsMount};

/// What the user wants instead of what is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageDriver {
    /// Overlays, or nothing.
    Overlay,
    /// `fuse-overlayfs` for containers, and copies for RUN steps.
    Fuse,
    /// Copies.
    Copy,
}

impl FromStr for StorageDriver {
    type Err = String;

    /// Reads the name of a driver; `vfs` is what other programs call the one that copies.
    fn from_str(text: &str) -> Result<StorageDriver, String> {
        match text {
            "overlay" | "overlay2" => Ok(StorageDriver::Overlay),
            FUSE_OVERLAYFS => Ok(StorageDriver::Fuse),
            "copy" | "vfs" => Ok(StorageDriver::Copy),
            other => Err(format!("`{other}` is no storage driver: expected overlay, fuse-overlayfs or copy")),
        }
    }
}

/// The program, and the name of the driver.
const FUSE_OVERLAYFS: &str = "fuse-overlayfs";

/// The first version that knows the marks of layers that an ordinary user may set.
const OLDEST: (u32, u32) = (1, 7);

/// The number of FUSE in statfs(2).
const FUSE: i64 = 0x6573_5546;

/// Chooses for the layers in `store`; programs are in `directories`. Where overlays have been mounted before, that is believed; else it is tried.
pub(super) fn choose(store: &Store, wanted: Option<StorageDriver>, directories: &[PathBuf]) -> RootDriver {
    if wanted == Some(StorageDriver::Fuse) {
        // Where it cannot be had, whoever starts the container is told why.
        let program = fuse_overlayfs(directories).unwrap_or_else(|_| FUSE_OVERLAYFS.into());
        return RootDriver::Fuse { program, why: None };
    }
    if wanted == Some(StorageDriver::Copy) {
        return RootDriver::Copy { why: None };
    }
    // What that means is said of the steps and containers themselves.
    if wanted.is_none() && !can_mount_roots() {
        return RootDriver::Copy { why: None };
    }
    let circumstances = circumstances();
    let copy = |why: String| {
        let program = fuse_overlayfs(directories).ok().filter(|program| works(store, program, &circumstances));
        match program {
            Some(program) => RootDriver::Fuse { program, why: Some(why) },
            None => RootDriver::Copy { why: Some(why) },
        }
    };
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

/// The program `fuse-overlayfs` in one of `directories`.
///
/// # Errors
/// What is in the way, and what to do about it.
pub(super) fn fuse_overlayfs(directories: &[PathBuf]) -> Result<PathBuf, (String, &'static str)> {
    let found = directories.iter().map(|directory| directory.join(FUSE_OVERLAYFS)).find(|path| path.is_file());
    let Some(program) = found else { return Err(("it is not in the PATH".to_owned(), "apt-get install fuse-overlayfs")) };
    if let Err(error) = std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        return Err((
            format!("`/dev/fuse` cannot be opened: {error}"),
            "modprobe fuse; in a container, have it started with --device /dev/fuse",
        ));
    }
    match version(&program) {
        Some(version) if version >= OLDEST => Ok(program),
        Some((major, minor)) => {
            Err((format!("`{}` is version {major}.{minor}, and 1.7 is the oldest that will do", program.display()), "install a newer one"))
        }
        None => Err((format!("`{} --version` does not tell a version", program.display()), "install fuse-overlayfs 1.7 or newer")),
    }
}

/// The version that the program says it is.
fn version(program: &Path) -> Option<(u32, u32)> {
    let mut command = Command::new(program);
    let output = command.arg("--version").env_clear().stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.lines().find_map(|line| line.strip_prefix("fuse-overlayfs: version "))?;
    let mut numbers = version.trim().split(['.', '-']).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Whether the program shows layers of this store. Where it did before, that is believed.
fn works(store: &Store, program: &Path, circumstances: &str) -> bool {
    // What FUSE has there is another program's, which takes the marks of this one for its own.
    if rustix::fs::statfs(store.root()).is_ok_and(|stat| stat.f_type == FUSE) {
        return false;
    }
    let circumstances = format!("{FUSE_OVERLAYFS} {circumstances}");
    if store.mounts_overlays(&circumstances) {
        return true;
    }
    let tried = || {
        let active = store.prepare().ok()?;
        let changes = OverlayUpper { upper: active.fs_path(), work: active.work_path() };
        let lower = vec![store.snapshot_path(SnapshotId::SCRATCH)];
        try_mount(&RootfsMount::Fuse { program: program.to_owned(), lower, changes }).ok()
    };
    let works = tried().is_some();
    if works {
        store.remember_overlays(&circumstances);
    }
    works
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
        for (name, driver) in [
            ("overlay", StorageDriver::Overlay),
            ("fuse-overlayfs", StorageDriver::Fuse),
            ("copy", StorageDriver::Copy),
            ("vfs", StorageDriver::Copy),
        ] {
            assert_eq!(name.parse(), Ok(driver));
        }
        assert!("btrfs".parse::<StorageDriver>().is_err());
    }
}
