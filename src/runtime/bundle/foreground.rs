//! A process of a bundle's container in the foreground: its terminal, the signals that this process gets, and its end.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::{Error, Made};
use crate::runtime::container::{LocalIo, Partner, talk};
use crate::sys::process::{reap, signal_pidfd};
use crate::sys::signals::SignalPipe;

struct Process(OwnedFd);

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Partner for Process {
    fn signal(&self, signal: i32) -> Result<(), crate::runtime::container::Error> {
        // One that has just ended needs no signal.
        let _ = signal_pidfd(self.0.as_fd(), signal);
        Ok(())
    }

    fn input_ended(&self) -> Result<(), crate::runtime::container::Error> {
        Ok(())
    }
}

/// Waits for the end of a process that this one is the parent of, and gives its code: 128 and the signal's number where one ended it. Signals are passed on meanwhile.
///
/// # Errors
/// The local terminal fails.
pub fn wait(made: Made, io: LocalIo<'_>) -> Result<u8, Error> {
    let pid = Pid::from_raw(made.pid.cast_signed()).ok_or(Error::InitEnded)?;
    let process = Process(pidfd_open(pid, PidfdFlags::empty()).map_err(Error::kernel("watch the process"))?);
    let talked = match made.terminal {
        Some(terminal) => talk(&process, terminal, io).map_err(Error::Terminal),
        None => pass_signals(&process),
    };
    if talked.is_err() {
        let _ = signal_pidfd(process.as_fd(), libc::SIGKILL);
    }
    let reaped = reap(made.pid).map_err(Error::kernel("wait for the process"))?;
    talked?;
    Ok(reaped.status.unwrap_or_else(|signal| 128u8.wrapping_add(signal as u8)))
}

fn pass_signals(process: &Process) -> Result<(), Error> {
    let caught = [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGWINCH,
        Signal::SIGCONT,
    ];
    let signals = SignalPipe::install(&caught).map_err(Error::kernel("catch signals"))?;
    loop {
        let mut fds = [PollFd::new(process, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(Error::kernel("wait for the process"))?,
        };
        let ended = !fds[0].revents().is_empty();
        while let Some(signal) = signals.take() {
            let _ = signal_pidfd(process.as_fd(), signal);
        }
        if ended {
            return Ok(());
        }
    }
}
