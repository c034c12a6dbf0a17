//! Finds out whether the kernel mounts an overlay, in a process of its own: this binary executed again, which ends with the mount.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::mount::MountPropagationFlags;

use super::error::Failure;
use super::rootfs::{RootOptions, mount_detached};
use crate::sys::process::unshare;
use crate::sys::{OverlayUpper, RootfsMount, THIS_PROGRAM};

/// The first argument by which `main` knows that this process is such a trial: the others go to [`trial_main`].
pub const TRIAL: &str = "strake-trial";

/// Mounts a writable overlay where nobody sees it, and lets it go.
///
/// # Errors
/// What the kernel says.
pub fn try_mount(rootfs: &RootfsMount) -> io::Result<()> {
    let (kind, upper, lower) = match rootfs {
        RootfsMount::Overlay { lower, upper: Some(upper), userxattr: true } => ("user".as_ref(), upper, lower),
        RootfsMount::Overlay { lower, upper: Some(upper), userxattr: false } => ("trusted".as_ref(), upper, lower),
        RootfsMount::Fuse { program, lower, changes } => (program.as_os_str(), changes, lower),
        _ => return Ok(()),
    };
    let mut command = Command::new(THIS_PROGRAM);
    command.arg(TRIAL).arg(kind).arg(&upper.upper).arg(&upper.work).args(lower);
    let status = command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    match status.code() {
        Some(0) => Ok(()),
        Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        None => Err(io::Error::other(status.to_string())),
    }
}

/// Does what [`try_mount`] asks for; the exit status is the error's number.
pub fn trial_main(mut args: impl Iterator<Item = OsString>) -> u8 {
    let kind = args.next().unwrap_or_default();
    let mut path = || args.next().map(PathBuf::from).unwrap_or_default();
    let upper = OverlayUpper { upper: path(), work: path() };
    let lower = args.map(PathBuf::from).collect();
    let rootfs = match kind.as_encoded_bytes() {
        b"user" => RootfsMount::Overlay { lower, upper: Some(upper), userxattr: true },
        b"trusted" => RootfsMount::Overlay { lower, upper: Some(upper), userxattr: false },
        // Anything else is a program's path.
        _ => RootfsMount::Fuse { program: kind.into(), lower, changes: upper },
    };
    match mount(&rootfs) {
        Ok(()) => 0,
        Err(Failure::Step { errno, .. }) => u8::try_from(errno).unwrap_or(u8::MAX),
        Err(_) => u8::MAX,
    }
}

fn mount(rootfs: &RootfsMount) -> Result<(), Failure> {
    unshare(libc::CLONE_NEWNS).map_err(Failure::step("make", "a mount namespace"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(Failure::step("make private", "/"))?;
    mount_detached(rootfs, RootOptions { read_only: false, volatile: true, devices: false, users: None, limits: None }).map(drop)
}
