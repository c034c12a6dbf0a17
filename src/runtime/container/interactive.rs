//! A sandbox at the user's own terminal, without a container around it: raw keys one way, output the other, the size as the local terminal has it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::terminal::{self, RawMode};
use super::{Error, LocalIo};
use crate::runtime::{Exit, Running};
use crate::sys::signals::SignalPipe;

/// How much is read at once.
const CHUNK: usize = 16 << 10;

/// Who has the other side of the terminal.
pub(in crate::runtime) trait Partner: AsFd {
    /// This process got a signal.
    fn signal(&self, signal: i32) -> Result<(), Error>;
    /// The user's input has ended.
    fn input_ended(&self) -> Result<(), Error>;
}

impl Partner for Running {
    fn signal(&self, _signal: i32) -> Result<(), Error> {
        Ok(self.kill(libc::SIGKILL)?)
    }

    fn input_ended(&self) -> Result<(), Error> {
        Ok(self.kill(libc::SIGKILL)?)
    }
}

/// Lets the user talk to a sandbox that was started with a terminal, until it ends. A signal that would end this process, and the end of the input, kill the sandbox.
/// Catches signals meanwhile, so there can be one such talk at a time in a process.
pub fn interact(running: &mut Running, io: LocalIo<'_>) -> Result<Exit, Error> {
    let Some(theirs) = running.take_terminal() else { return Ok(running.wait()?) };
    let talked = talk(running, theirs, io);
    if talked.is_err() {
        let _ = running.kill(libc::SIGKILL);
    }
    let exit = running.wait()?;
    talked?;
    Ok(exit)
}

/// Passes keys and output on until the partner ends or closes its side.
pub(in crate::runtime) fn talk<P: Partner>(partner: &P, theirs: OwnedFd, io: LocalIo<'_>) -> Result<(), Error> {
    let caught = [Signal::SIGWINCH, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];
    let signals = SignalPipe::install(&caught).map_err(Error::local("catch signals"))?;
    let raw = match io.stdin {
        Some(stdin) => RawMode::enter(stdin)?,
        None => None,
    };
    rustix::io::ioctl_fionbio(&theirs, true).map_err(Error::local("use the terminal"))?;
    let mut talk = Talk { theirs, io, signals: &signals, typed: Vec::new(), input_open: io.stdin.is_some() };
    let talked = talk.run(partner);
    drop(raw);
    talked
}

struct Talk<'a> {
    /// The sandbox's terminal, which never blocks: it could wait for us to read while we wait for it to.
    theirs: OwnedFd,
    io: LocalIo<'a>,
    signals: &'a SignalPipe,
    /// What was typed and is not written yet.
    typed: Vec<u8>,
    input_open: bool,
}

impl Talk<'_> {
    fn run<P: Partner>(&mut self, running: &P) -> Result<(), Error> {
        loop {
            let [output, room, signal, ended, input] = self.wait(running)?;
            if output && !self.show()? {
                return Ok(());
            }
            if room {
                self.pass_on()?;
            }
            if signal {
                self.handle_signals(running)?;
            }
            if input {
                self.read_input(running)?;
            }
            if ended && !output {
                // What it wrote last has been shown.
                return Ok(());
            }
        }
    }

    /// Waits until there is something to do: output, room for what was typed, a signal, the end, input.
    fn wait<P: Partner>(&self, running: &P) -> Result<[bool; 5], Error> {
        let interest = if self.typed.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds =
            vec![PollFd::new(&self.theirs, interest), PollFd::new(self.signals, PollFlags::IN), PollFd::new(running, PollFlags::IN)];
        if let Some(stdin) = self.io.stdin.as_ref().filter(|_| self.input_open && self.typed.is_empty()) {
            fds.push(PollFd::new(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::local("wait for input")(errno)),
        }
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        let has = |index: usize, flags| fds.get(index).is_some_and(|fd| fd.revents().intersects(flags));
        Ok([has(0, readable), has(0, PollFlags::OUT), has(1, readable), has(2, readable), has(3, readable)])
    }

    /// Shows what the sandbox wrote; `false` when it has closed its side.
    fn show(&self) -> Result<bool, Error> {
        let mut buffer = vec![0; CHUNK];
        match rustix::io::read(&self.theirs, &mut buffer) {
            Ok(0) | Err(Errno::IO) => Ok(false),
            Ok(count) => write_all(self.io.stdout, &buffer[..count]).map(|()| true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(errno) => Err(Error::local("read from the sandbox's terminal")(errno)),
        }
    }

    fn pass_on(&mut self) -> Result<(), Error> {
        match rustix::io::write(&self.theirs, &self.typed) {
            Ok(count) => {
                self.typed.drain(..count);
                Ok(())
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::IO) => Ok(()),
            Err(errno) => Err(Error::local("write to the sandbox's terminal")(errno)),
        }
    }

    fn handle_signals<P: Partner>(&self, running: &P) -> Result<(), Error> {
        while let Some(signal) = self.signals.take() {
            if signal != Signal::SIGWINCH as i32 {
                running.signal(signal)?;
            } else if let Some(size) = terminal::size(self.io.stdout) {
                let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
                // One that has just ended needs no size.
                let _ = rustix::termios::tcsetwinsize(&self.theirs, size);
            }
        }
        Ok(())
    }

    fn read_input<P: Partner>(&mut self, running: &P) -> Result<(), Error> {
        let Some(stdin) = self.io.stdin else { return Ok(()) };
        let mut buffer = vec![0; CHUNK];
        match rustix::io::read(stdin, &mut buffer) {
            Ok(0) | Err(Errno::IO) => {
                self.input_open = false;
                running.input_ended()?;
            }
            Ok(count) => self.typed.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(Error::local("read the input")(errno)),
        }
        Ok(())
    }
}

fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        match rustix::io::write(to.as_fd(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::local("write to the terminal")(errno)),
        }
    }
    Ok(())
}
