//! Leaves the waiting for the disk at the end of a command that made something to a process of its own.
//!
//! What was built or pulled is visible and whole at once; the flush makes it outlive a power cut, and takes longer than many a build (of a pull it was 40
//! %), as the kernel then writes what all programs left to write. So this binary is started once more for it, and ends by itself. Where it is killed
//! first, the next command that changes the store does its work; a power cut before that costs what was made, and nothing else.

use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::engine::{Engine, Error, settle_in_background, shorten_log_in_background};

use super::env;

/// The first argument by which [`super::main`] knows that this process makes durable what was made; the second is the store's directory.
const SETTLER: &str = "strake-settler";

/// The same for one that only shortens the database's log.
const SHORTENER: &str = "strake-log-shortener";

/// Ends a command that may have made something: that becomes durable soon after this process has ended; at once where no process outlives this one.
pub(super) fn finish_later(engine: &Engine) -> Result<(), Error> {
    engine.finish(false)?;
    if engine.store().is_settled()? {
        return Ok(());
    }
    if !start(SETTLER, engine.store().root()) {
        engine.finish(true)?;
    }
    Ok(())
}

/// Has the database's log written back where it is long: commands about containers write to it and make nothing that must be durable, and each command reads all of it.
/// (One after the other, `run` made it that long eight times in 70 ms. As each of the next hundred started a process that waits a second and then for all disks, they were up to a quarter slower.)
pub(super) fn shorten_log(engine: &Engine) {
    if engine.store().log_is_due() {
        // Where nothing runs in the background, SQLite does it in the end.
        start(SHORTENER, engine.store().root());
    }
}

/// [`finish_later`] for who must not block.
pub(super) async fn finish(engine: Engine) -> Result<(), Error> {
    crate::task::blocking(move || finish_later(&engine)).await
}

/// Starts the process; not where it would not outlive this one.
fn start(task: &str, root: &Path) -> bool {
    // The first process of a container, and often the shell that it is, takes all others with it. And a test that kills this process means this one.
    if env::fault_points_are_armed() || std::process::id() == 1 || parent_id() == 1 {
        return false;
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg(task).arg(root).env_clear().current_dir("/");
    // In a group of its own: an interrupt that is meant for the next command does not stop it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().is_ok()
}

/// Runs this process as one of these, if that is what it was started for.
pub(super) fn settler() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let task = match args.next()?.to_str()? {
        SETTLER => settle_in_background,
        SHORTENER => shorten_log_in_background,
        _ => return None,
    };
    let root = PathBuf::from(args.next()?);
    // Nobody listens: the next command that settles says what is wrong.
    Some(if task(&root).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
