//! PID 1 of a sandbox that asked for an init: forwards signals to the command and reaps orphans.
//!
//! It runs this program's code but owns nothing: no descriptors, nothing to write to, and no more capabilities than the command. It cannot be dumped, so that who lacks
//! CAP_SYS_PTRACE can neither trace it nor reach the program's binary through `/proc/1/exe` (ptrace(2), "ptrace access mode checking").

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::cgroup::Room;
use crate::sys::process::{block_signals, close_from, exit_now};

/// Takes the name by which the command sees its init; before the command is cloned, so that it never sees another.
pub(super) fn take_name() {
    let _ = rustix::thread::set_name(c"strake-init");
}

/// Waits for the command with the process ID `command` and ends as it did: with its code, or 128 and the signal's number.
pub(super) fn run(command: u32) -> ! {
    // The kernel kills everything else in the PID namespace.
    exit_now(wait_for(command, &[]))
}

/// The same for a command that `helper`, a child of this process, makes its sibling: it says which one in `told` and ends. Then what had `room` for it is closed.
pub(super) fn run_sibling(helper: u32, told: &OwnedFd, room: Option<Room>) -> ! {
    let keep: Vec<_> = std::iter::once(told.as_fd()).chain(room.as_ref().map(Room::as_fd)).collect();
    if block_signals().is_err() || close_from(0, &keep).is_err() {
        exit_now(125);
    }
    let mut number = [0; 4];
    let said = rustix::io::read(told, &mut number).is_ok_and(|length| length == number.len());
    room.into_iter().for_each(Room::close);
    let command = u32::from_ne_bytes(number);
    // What was made could have said it as well: only a child of this process will do.
    let is_child = |pid: u32| {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(0));
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        pid.as_raw() > 0 && nix::sys::wait::waitid(nix::sys::wait::Id::Pid(pid), flags).is_ok()
    };
    if said && command != helper && is_child(command) {
        run(command)
    }
    // It has told the parent why there is none.
    exit_now(crate::sys::process::reap(helper).map_or(125, |_| 125))
}

/// Waits for the command and gives how it ended. Of this process's descriptors only those of `keep` stay open.
pub(super) fn wait_for(command: u32, keep: &[BorrowedFd<'_>]) -> i32 {
    let command = Pid::from_raw(command as i32);
    if block_signals().is_err() || close_from(0, keep).is_err() {
        exit_now(125);
    }
    loop {
        if let Some(code) = reap(command) {
            return code;
        }
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) | Err(_) => {}
            Ok(signal) => {
                let _ = kill(command, signal);
            }
        }
    }
}

/// Removes every child that has ended; gives the command's code when it is among them.
fn reap(command: Pid) -> Option<i32> {
    loop {
        let status = waitpid(None, Some(WaitPidFlag::WNOHANG)).ok()?;
        match status {
            WaitStatus::Exited(pid, code) if pid == command => return Some(code),
            WaitStatus::Signaled(pid, signal, _) if pid == command => return Some(128 + signal as i32),
            WaitStatus::StillAlive => return None,
            _ => {}
        }
    }
}
