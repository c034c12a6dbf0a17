//! Leaves the waiting for the disk at the end of a command that made something to a process of its own.
//!
//! What was built or pulled is visible and whole at once; the flush makes it outlive a power cut, and takes longer than many a build (of a pull it was 40
//! %), as the kernel then writes what all programs left to write. So this binary is started once more for it, and ends by itself. Where it is killed
//! first, the next command that changes the store does its work; a power cut before that costs what was made, and nothing else.

use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::engine::{Engine, Error, settle_in_background};

use super::env;

/// The first argument by which [`super::main`] knows what this process is for; the second is the store's directory.
const SETTLER: &str = "strake-settler";

/// Ends a command that may have made something: that becomes durable soon after this process has ended; at once where no process outlives this one.
pub(super) fn finish_later(engine: &Engine) -> Result<(), Error> {
    engine.finish(false)?;
    if engine.store().is_settled()? {
        return Ok(());
    }
    if !start(engine.store().root()) {
        engine.finish(true)?;
    }
    Ok(())
}

/// Has the database's log written back where it is long: commands about containers write to it and make nothing that must be durable, and each command reads all of it.
pub(super) fn shorten_log(engine: &Engine) {
    if engine.store().has_long_log() {
        // Where nothing runs in the background, SQLite does it in the end.
        start(engine.store().root());
    }
}

/// [`finish_later`] for who must not block.
pub(super) async fn finish(engine: Engine) -> Result<(), Error> {
    crate::task::blocking(move || finish_later(&engine)).await
}

/// Starts the process; not where it would not outlive this one.
fn start(root: &Path) -> bool {
    // The first process of a container, and often the shell that it is, takes all others with it. And a test that kills this process means this one.
    if env::fault_points_are_armed() || std::process::id() == 1 || parent_id() == 1 {
        return false;
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg(SETTLER).arg(root).env_clear().current_dir("/");
    // In a group of its own: an interrupt that is meant for the next command does not stop it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().is_ok()
}

/// Runs this process as the settler, if that is what it was started for.
pub(super) fn settler() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != SETTLER {
        return None;
    }
    let root = PathBuf::from(args.next()?);
    // Nobody listens: the next command that settles says what is wrong.
    Some(if settle_in_background(&root).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
