//! A client's side of an attached container: moves bytes between the supervisor and local streams until the container ends or the user detaches.
//!
//! One loop in one thread. Its socket never blocks (input and output could otherwise wait for each other for ever); a slow reader of the local output stops the loop, which is
//! how it slows the container down. Signals and sizes go over connections of their own, since input that nobody reads may be in the way here.

use std::borrow::Cow;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::protocol::{ClientFrame, Incoming, MAX_PAYLOAD, ServerFrame};
use super::terminal::{self, RawMode};
use super::{Error, State, control, load_state};
use crate::sys::signals::SignalPipe;

/// A connection to a container's supervisor that gets the container's output.
#[derive(Debug)]
pub struct Attachment {
    dir: PathBuf,
    stream: UnixStream,
    /// The ID of the command in the container whose streams these are; without one, they are the container's own.
    exec: Option<String>,
}

/// The local streams.
#[derive(Clone, Copy, Debug)]
pub struct LocalIo<'a> {
    /// Where input comes from; `None` sends none.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Where the output goes.
    pub stdout: BorrowedFd<'a>,
    /// Where errors go (nothing with a terminal).
    pub stderr: BorrowedFd<'a>,
}

/// How an attachment behaves.
#[derive(Clone, Debug)]
pub struct PumpOptions {
    /// Whether the container has a terminal: the local one becomes raw, its size follows, and the detach keys work.
    pub tty: bool,
    /// The bytes that detach when typed.
    pub detach_keys: Vec<u8>,
    /// Whether signals to this process go to the container; with a terminal all but SIGHUP, which says that it is gone.
    pub forward_signals: bool,
}

impl Default for PumpOptions {
    /// No terminal, ctrl-p ctrl-q, signals forwarded.
    fn default() -> PumpOptions {
        PumpOptions { tty: false, detach_keys: vec![16, 17], forward_signals: true }
    }
}

/// How an attachment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The container ended; all of its output has been written.
    Exited {
        /// Its exit code.
        code: u8,
        /// Whether it was killed for want of memory.
        oom_killed: bool,
    },
    /// The user typed the detach keys; the container runs on.
    Detached,
    /// This signal came, and was not for the container, which runs on.
    Interrupted(i32),
}

/// Signals that would end this process.
const ENDING: [Signal; 7] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM];

/// Signals of this thread that wait; dropping it lets them come.
#[derive(Debug)]
pub struct HeldSignals(());

/// Makes signals wait that would end this process, so that none is lost between a container's start and the [`pump`](Attachment::pump), which lets them come.
pub fn hold_signals() -> HeldSignals {
    // Cannot fail for a set of known signals; a signal that comes early would end this process, as before.
    let _ = ENDING.into_iter().collect::<SigSet>().thread_block();
    HeldSignals(())
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        let _ = ENDING.into_iter().collect::<SigSet>().thread_unblock();
    }
}

impl Attachment {
    pub(super) fn new(dir: &Path, stream: UnixStream) -> Attachment {
        Attachment { dir: dir.to_owned(), stream, exec: None }
    }

    /// Of a command in a container.
    pub(super) fn of_exec(dir: &Path, stream: UnixStream, id: &str) -> Attachment {
        Attachment { dir: dir.to_owned(), stream, exec: Some(id.to_owned()) }
    }

    /// The connection, which the other side sees closed when this is gone, too.
    pub fn connection(&self) -> Option<OwnedFd> {
        self.stream.try_clone().ok().map(OwnedFd::from)
    }

    /// Pumps until the end. Catches signals meanwhile, so there can be one pump at a time in a process.
    pub fn pump(self, io: LocalIo<'_>, options: &PumpOptions) -> Result<Outcome, Error> {
        self.stream.set_nonblocking(true).map_err(Error::socket("talk to"))?;
        let caught: Vec<Signal> = ENDING.into_iter().chain(options.tty.then_some(Signal::SIGWINCH)).collect();
        let signals = SignalPipe::install(&caught).map_err(Error::local("catch signals"))?;
        // From here on they are caught.
        drop(HeldSignals(()));
        let _raw = match io.stdin {
            Some(stdin) if options.tty => RawMode::enter(stdin)?,
            _ => None,
        };
        let mut pump = Pump {
            interrupts: Interrupts { dir: &self.dir, exec: self.exec.as_deref(), screen: io.stdout, options, signals: &signals },
            stream: &self.stream,
            io,
            incoming: Incoming::default(),
            pending: Vec::new(),
            sent: 0,
            input_open: io.stdin.is_some(),
            keys: DetachKeys { keys: if options.tty { options.detach_keys.clone() } else { Vec::new() }, matched: 0 },
            leaving: false,
            buffer: vec![0; MAX_PAYLOAD],
        };
        if let Some(size) = options.tty.then(|| terminal::size(io.stdout)).flatten() {
            ClientFrame::Resize(size).encode(&mut pump.pending);
        }
        pump.run()
    }
}

/// What is done about signals.
#[derive(Clone, Copy)]
struct Interrupts<'a> {
    dir: &'a Path,
    exec: Option<&'a str>,
    screen: BorrowedFd<'a>,
    options: &'a PumpOptions,
    signals: &'a SignalPipe,
}

impl Interrupts<'_> {
    /// Passes on what has arrived; an outcome where it is not for the container.
    fn handle(&self) -> Option<Outcome> {
        while let Some(signal) = self.signals.take() {
            if signal == Signal::SIGWINCH as i32 {
                if let Some(size) = terminal::size(self.screen) {
                    // A container that has just ended needs no size.
                    let _ = match self.exec {
                        None => control::resize(self.dir, size),
                        Some(id) => control::resize_exec(self.dir, id, size),
                    };
                }
            } else if self.options.forward_signals && !(self.options.tty && signal == Signal::SIGHUP as i32) {
                // One that has just ended needs no signal.
                let _ = control::kill(self.dir, signal);
            } else {
                return Some(Outcome::Interrupted(signal));
            }
        }
        None
    }
}

/// The state of one pump.
struct Pump<'a> {
    interrupts: Interrupts<'a>,
    stream: &'a UnixStream,
    io: LocalIo<'a>,
    incoming: Incoming,
    /// Bytes for the supervisor, of which `sent` are gone.
    pending: Vec<u8>,
    sent: usize,
    input_open: bool,
    keys: DetachKeys,
    /// Whether the detach keys were typed.
    leaving: bool,
    buffer: Vec<u8>,
}

impl Pump<'_> {
    fn run(&mut self) -> Result<Outcome, Error> {
        loop {
            self.send()?;
            if self.leaving && self.pending.is_empty() {
                return Ok(Outcome::Detached);
            }
            let [socket, signal, input] = self.wait()?;
            if signal && let Some(outcome) = self.interrupts.handle() {
                return Ok(outcome);
            }
            if socket && let Some(outcome) = self.on_socket()? {
                return Ok(outcome);
            }
            if input {
                self.on_input()?;
            }
        }
    }

    /// Waits until something can be read: from the supervisor, a signal, the local input.
    fn wait(&self) -> Result<[bool; 3], Error> {
        let mut interest = PollFlags::IN;
        if !self.pending.is_empty() {
            interest |= PollFlags::OUT;
        }
        let mut fds = vec![PollFd::new(self.stream, interest), PollFd::new(self.interrupts.signals, PollFlags::IN)];
        if let Some(stdin) = &self.io.stdin
            && self.input_open
            && self.pending.is_empty()
        {
            fds.push(PollFd::new(stdin, PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::local("wait for input")(errno)),
        }
        let readable = |index: usize| {
            let ready = PollFlags::IN | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
            fds.get(index).is_some_and(|fd| fd.revents().intersects(ready))
        };
        Ok([readable(0), readable(1), readable(2)])
    }

    fn send(&mut self) -> Result<(), Error> {
        while self.sent < self.pending.len() {
            match rustix::net::send(self.stream, &self.pending[self.sent..], rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                // The supervisor is closing; what it says last can still be read.
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.input_open = false;
                    break;
                }
                Err(errno) => return Err(Error::socket("write to")(errno)),
            }
        }
        self.pending.clear();
        self.sent = 0;
        Ok(())
    }

    fn on_socket(&mut self) -> Result<Option<Outcome>, Error> {
        let length = match rustix::io::read(self.stream, &mut self.buffer) {
            Ok(0) | Err(Errno::CONNRESET) => return self.lost().map(Some),
            Ok(length) => length,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(errno) => return Err(Error::socket("read from")(errno)),
        };
        self.incoming.push(&self.buffer[..length]);
        loop {
            let interrupted = match self.incoming.next_of_server() {
                Ok(None) => return Ok(None),
                Ok(Some(ServerFrame::Stdout(bytes))) => write_all(self.io.stdout, bytes, self.interrupts)?,
                Ok(Some(ServerFrame::Stderr(bytes))) => write_all(self.io.stderr, bytes, self.interrupts)?,
                Ok(Some(ServerFrame::Exited { code, oom_killed })) => return Ok(Some(Outcome::Exited { code, oom_killed })),
                Ok(Some(ServerFrame::Started(_) | ServerFrame::Failed(_) | ServerFrame::Networks(_))) | Err(_) => {
                    return Err(Error::socket("understand")(io::Error::from(io::ErrorKind::InvalidData)));
                }
            };
            if interrupted.is_some() {
                return Ok(interrupted);
            }
        }
    }

    /// The supervisor went away without a word: it was killed, or had ended before we were let in.
    fn lost(&self) -> Result<Outcome, Error> {
        if self.interrupts.exec.is_some() {
            // A command in the container goes only with that, which ends it by SIGKILL.
            return Ok(Outcome::Exited { code: 137, oom_killed: false });
        }
        let code = control::wait(self.interrupts.dir)?;
        let oom_killed = matches!(load_state(self.interrupts.dir), Ok(State::Exited { oom_killed: true, .. }));
        Ok(Outcome::Exited { code, oom_killed })
    }

    fn on_input(&mut self) -> Result<(), Error> {
        let Some(stdin) = self.io.stdin else { return Ok(()) };
        // Room for the beginning of the detach keys, which may come back out.
        let room = MAX_PAYLOAD - self.keys.keys.len().min(MAX_PAYLOAD / 2);
        match rustix::io::read(stdin, &mut self.buffer[..room]) {
            Ok(length) if length > 0 => {
                let (bytes, detach) = self.keys.filter(&self.buffer[..length]);
                if !bytes.is_empty() {
                    ClientFrame::Stdin(&bytes).encode(&mut self.pending);
                }
                if detach {
                    ClientFrame::Detach.encode(&mut self.pending);
                    (self.leaving, self.input_open) = (true, false);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // A terminal that was hung up gives EIO.
            Ok(_) | Err(_) => {
                ClientFrame::StdinEnd.encode(&mut self.pending);
                self.input_open = false;
            }
        }
        Ok(())
    }
}

/// Writes to a local stream. Signals are handled meanwhile, as a reader that has stopped must not keep them from the container: so no more is written at once than
/// what a pipe that is ready takes without blocking.
fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8], interrupts: Interrupts<'_>) -> Result<Option<Outcome>, Error> {
    const PIPE_BUF: usize = 4096;
    while !bytes.is_empty() {
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT), PollFd::new(interrupts.signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::local("wait for the output's reader")(errno)),
        }
        if fds[1].revents().contains(PollFlags::IN)
            && let Some(outcome) = interrupts.handle()
        {
            return Ok(Some(outcome));
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        match rustix::io::write(fd, &bytes[..bytes.len().min(PIPE_BUF)]) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => return Err(Error::local("write the container's output")(errno)),
        }
    }
    Ok(None)
}

/// Finds the detach keys in what is typed, also when they come in several reads.
#[derive(Debug)]
struct DetachKeys {
    /// Empty for none.
    keys: Vec<u8>,
    /// How many of them have been typed so far, and are held back.
    matched: usize,
}

impl DetachKeys {
    /// The bytes to pass on, and whether the keys are complete.
    fn filter<'a>(&mut self, typed: &'a [u8]) -> (Cow<'a, [u8]>, bool) {
        if self.matched == 0 && self.keys.first().is_none_or(|first| !typed.contains(first)) {
            return (Cow::Borrowed(typed), false);
        }
        let mut out = Vec::with_capacity(typed.len() + self.matched);
        for &byte in typed {
            if self.keys.get(self.matched) == Some(&byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    self.matched = 0;
                    return (Cow::Owned(out), true);
                }
                continue;
            }
            out.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(&byte) && self.keys.len() > 1);
            if self.matched == 0 {
                out.push(byte);
            }
        }
        (Cow::Owned(out), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn type_in(pieces: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys { keys: vec![16, 17], matched: 0 };
        let mut passed = Vec::new();
        for piece in pieces {
            let (bytes, done) = keys.filter(piece);
            passed.extend_from_slice(&bytes);
            if done {
                return (passed, true);
            }
        }
        (passed, false)
    }

    #[test]
    fn detach_keys_are_found_across_reads_and_held_back() {
        assert_eq!(type_in(&[b"ls\n", &[16], &[17]]), (b"ls\n".to_vec(), true));
        assert_eq!(type_in(&[&[1, 16, 17, 2]]), (vec![1], true));
    }

    #[test]
    fn other_keys_are_passed_on_whole() {
        assert_eq!(type_in(&[&[16], b"x"]), (vec![16, b'x'], false));
        assert_eq!(type_in(&[&[16, 16], &[17]]), (vec![16], true));
        assert_eq!(type_in(&[&[17, 0, 255]]), (vec![17, 0, 255], false));
        let mut none = DetachKeys { keys: Vec::new(), matched: 0 };
        assert_eq!(none.filter(&[16, 17]), (Cow::Borrowed(&[16, 17][..]), false));
    }
}
