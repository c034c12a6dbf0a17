//! The last user of the network that all containers share does not wait until it is gone: it leaves that to a process of its own, which is a user itself for a moment longer.
//!
//! The kernel takes 20 to 50 ms to remove a bridge (two waits for all processors to be done with it, one of them with the lock held that all changes of links need), which is longer than many a
//! container runs; and where one follows the other, the next would make what has just been removed.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::lease::{Lock, RunDir};
use super::{Error, NetworkPlan, Sockets, take_down};
use crate::sys::THIS_PROGRAM;

/// The first argument of the process; the second is the network's run directory, and its standard input the lock of a user.
pub const CARETAKER: &str = "strake-network-end";

/// How long the network stays for the next user.
const GRACE: Duration = Duration::from_millis(200);

/// Starts the process; `users` is the lock that makes its holder a user.
pub(super) fn start(run_dir: &RunDir, users: Lock) -> std::io::Result<()> {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg(CARETAKER).arg(run_dir.path()).env_clear().current_dir("/");
    // In a group of its own: an interrupt that is meant for the next command does not stop it.
    command.stdin(users.into_file().map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().map(drop)
}

/// The life of the process, whose arguments after [`CARETAKER`] are `args`.
pub fn caretaker_main(args: impl IntoIterator<Item = std::ffi::OsString>) {
    let Some(run_dir) = args.into_iter().next().map(PathBuf::from) else { return };
    let Ok(users) = std::io::stdin().as_fd().try_clone_to_owned() else { return };
    if let Err(error) = end(&run_dir, Lock::of(File::from(users))) {
        // What stays is used by the next process or removed by it.
        tracing::debug!(%error, "the network was not taken down");
    }
}

/// Removes the network when the last user has been gone for long enough, unless there is another by then.
fn end(run_dir: &Path, users: Lock) -> Result<(), Error> {
    let run_dir = RunDir::open(run_dir)?;
    while let Some(left) = run_dir.since_left().and_then(|since| GRACE.checked_sub(since)).filter(|left| !left.is_zero()) {
        std::thread::sleep(left);
    }
    let _setup = run_dir.lock_setup()?;
    drop(users);
    if run_dir.is_unused()? {
        take_down(&mut Sockets::open()?, &NetworkPlan::default_bridge())?;
        run_dir.forget();
    }
    Ok(())
}
