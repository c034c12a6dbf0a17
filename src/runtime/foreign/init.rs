//! The init of `--init` in a container of another runtime: this binary, which is mounted there read-only at [`PLACE`] and starts the command.
//!
//! It forwards signals and reaps orphans as that of our own runtime does. The command gets a process group of its own, and the terminal where there is one, so that what is
//! typed there reaches it once.

use std::ffi::OsString;

use crate::runtime::exec::prepare;
use crate::runtime::spec::ProcessSpec;
use crate::runtime::{Error, reaper};
use crate::sys::process::{Cloned, clone_process, reset_signals};

/// The first argument by which `main` knows that this process is such an init: the others are the command.
pub const INIT: &str = "strake-init";

/// Where it is in the container: a file system of each container's own, so nothing is left of it in the container's files.
pub(super) const PLACE: &str = "/dev/init";

/// What runs in the container in place of the command `args`.
pub(super) fn in_front_of(args: &[OsString]) -> Vec<OsString> {
    [PLACE, INIT].into_iter().map(OsString::from).chain(args.iter().cloned()).collect()
}

/// The init's `main`: runs the command `args` with the variables `env`, and ends as it does. Comes back only where it cannot be started: with the exit status, and why.
pub fn init_main(args: Vec<OsString>, env: Vec<OsString>) -> (u8, String) {
    let failed = |error: Error| (error.exit_code(), error.to_string());
    let kernel = |error: std::io::Error| (125, format!("cannot start the command: {error}"));
    let process = ProcessSpec::new(args, env);
    let prepared = match prepare(&process) {
        Ok(prepared) => prepared,
        Err(error) => return failed(Error::Exec(error)),
    };
    reaper::take_name();
    match clone_process(0, None) {
        Ok(Cloned::Parent { pid, .. }) => {
            // It keeps nothing of the container's from being unmounted.
            let _ = rustix::process::chdir("/");
            reaper::run(pid)
        }
        Ok(Cloned::Child) => {
            take_terminal();
            match reset_signals() {
                Ok(()) => failed(Error::Exec(prepared.execute())),
                Err(error) => kernel(error),
            }
        }
        Err(error) => kernel(error),
    }
}

/// Makes this process the one that the terminal speaks to; without one, it has a group of its own all the same.
fn take_terminal() {
    let _ = rustix::process::setpgid(None, None);
    let own = rustix::process::getpgrp();
    // Who is not in the foreground yet may not change that unless the signal about it is of no interest.
    let _ = crate::sys::signals::ignore(nix::sys::signal::Signal::SIGTTOU);
    let _ = rustix::termios::tcsetpgrp(std::io::stdin(), own);
}
