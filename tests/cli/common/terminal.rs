//! A pseudo-terminal with the command under test on it, as a user has it before them.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::termios::{Termios, tcgetattr};

use super::{Run, wait_for};

/// How long something may take to appear.
const PATIENCE: Duration = Duration::from_secs(60);

/// The user's side.
pub(crate) struct Terminal {
    master: File,
    slave: OwnedFd,
    output: Receiver<Vec<u8>>,
    seen: String,
    pub(crate) child: Child,
}

impl Terminal {
    /// Runs the command on a new terminal of that size.
    pub(crate) fn start(mut run: Run, rows: u16, columns: u16) -> Terminal {
        let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(Some(&size), None).unwrap();
        let ends = || -> OwnedFd { pty.slave.try_clone().unwrap() };
        let child = run.command().stdin(Stdio::from(ends())).stdout(Stdio::from(ends())).stderr(Stdio::from(ends())).spawn().unwrap();
        let master = File::from(pty.master);
        let mut reader = master.try_clone().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                let _ = sender.send(buffer[..length].to_vec());
            }
        });
        Terminal { master, slave: pty.slave, output, seen: String::new(), child }
    }

    /// Types.
    pub(crate) fn type_in(&mut self, bytes: impl AsRef<[u8]>) {
        self.master.write_all(bytes.as_ref()).unwrap();
    }

    /// Waits until this has been shown after what was expected before.
    #[track_caller]
    pub(crate) fn expect(&mut self, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(what) {
                self.seen.drain(..at + what.len());
                return;
            }
            assert!(Instant::now() < deadline, "`{what}` is not in `{}`", self.seen);
            if let Ok(bytes) = self.output.recv_timeout(Duration::from_millis(200)) {
                self.seen += &String::from_utf8_lossy(&bytes);
            }
        }
    }

    /// Makes the window another size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
        // The terminal is not the controlling one of the command, which it has from this test; so the kernel tells nobody.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGWINCH).unwrap();
    }

    /// The terminal's settings.
    pub(crate) fn settings(&self) -> Termios {
        tcgetattr(self.slave.as_fd()).unwrap()
    }

    /// Waits for the command's end.
    #[track_caller]
    pub(crate) fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the end of the command", PATIENCE.as_secs(), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}
