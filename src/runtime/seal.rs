//! Sees to it that a process which enters sandboxes itself was executed from a file that these cannot write to ([`SealedProgram`]).

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::sys::{SealedProgram, THIS_PROGRAM, is_sealed};

/// Executes this process again, with the same arguments (`args`, the program's name first), where its program could be written to from a sandbox; comes back where that is not so.
/// Call it before anything is changed or read.
///
/// # Errors
/// It cannot be executed again.
pub fn seal_this_process(args: impl IntoIterator<Item = OsString>) -> std::io::Result<()> {
    if is_sealed(THIS_PROGRAM) {
        return Ok(());
    }
    let program = SealedProgram::of(Path::new(THIS_PROGRAM))?;
    let mut args = args.into_iter();
    let mut command = Command::new(program.path());
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    Err(command.args(args).exec())
}
