//! The supervisor's loop: waits for the container's streams, its clients and its end, all at once, in one thread.
//!
//! Nothing here blocks. Bytes that a client cannot take yet wait in its backlog, input that the container does not read yet in one buffer; both are bounded by not
//! reading from where they come, or by cutting the client off. The end is reported after the last byte of output: pipes at their end, a terminal at EIO; where a
//! process outside of the sandbox holds on to a stream, a short while after the exit.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::termios::Winsize;

use super::chronicle::journal;
use super::exec::{Execs, Joined, MAX_REQUEST};
use super::health::Monitor;
use super::log::{LogStream, LogWriter};
use super::networking::Networked;
use super::pause::unpause;
use super::protocol::{ClientFrame, Incoming, MAX_PAYLOAD, ServerFrame};
use super::state::{ContainerDir, State, load_state};
use super::streams::{Ends, Output};
use super::supervisor::{StartError, chain};
use super::{ContainerSpec, StdinMode};
use crate::runtime::{Child, TerminalSize, wire};
use crate::sys::signals::SignalPipe;

/// How far a client may fall behind, in bytes.
pub(super) const CLIENT_BACKLOG: usize = 1 << 20;
/// How far the starter may fall behind before the container has to wait for it.
const STARTER_BACKLOG: usize = 256 << 10;
/// How much input is held for a container that does not read it.
const INPUT_BACKLOG: usize = 64 << 10;
/// How long nothing may happen until the program's pages are given back.
const IDLE: Duration = Duration::from_secs(1);

/// How long after the exit output is still waited for.
const LINGER: Duration = Duration::from_secs(2);
/// How long clients other than the starter may take to hear the end.
const GOODBYE: Duration = Duration::from_secs(2);
/// Signals by which a user ends a container, beside its own: it is not started again then.
const ENDING: [i32; 4] = [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];
/// How long a client may take to pass on the signal that the supervisor got as well: a unit that is stopped sends it to all of its processes, and the container is to see it once.
const PASSED_ON: Duration = Duration::from_millis(500);
/// Connections beyond this are refused.
const MAX_CLIENTS: usize = 128;

/// What a running container consists of for the one who serves it.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) child: Child,
    pub(super) outputs: Vec<Output>,
    /// The side of its input that is written to.
    pub(super) input: Option<OwnedFd>,
    /// The user's side of its terminal.
    pub(super) terminal: Option<OwnedFd>,
    /// Where clients come from; the only client of a command in a container is there from the start.
    pub(super) listener: Option<UnixListener>,
    pub(super) log: LogWriter,
}

impl Served {
    /// A process that has just begun to run, with our ends of its streams.
    pub(super) fn new(
        mut child: Child,
        ends: Ends,
        stdin: StdinMode,
        listener: Option<UnixListener>,
        log: LogWriter,
    ) -> Result<Served, StartError> {
        let Ends { mut outputs, mut input } = ends;
        let terminal = child.take_terminal();
        if let Some(terminal) = &terminal {
            let both = terminal.try_clone().and_then(|output| Ok((output, terminal.try_clone()?)));
            let (output, typed) = both.map_err(|error| StartError::Kernel("duplicate a descriptor", error))?;
            outputs = vec![Output { fd: output, stream: LogStream::Stdout }];
            input = (stdin != StdinMode::Closed).then_some(typed);
        }
        for fd in outputs.iter().map(|output| &output.fd).chain(&input) {
            rustix::io::ioctl_fionbio(fd, true).map_err(|errno| StartError::Kernel("set up a stream", errno.into()))?;
        }
        Ok(Served { child, outputs, input, terminal, listener, log })
    }
}

/// How the container ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) code: u8,
    pub(super) oom_killed: bool,
    /// Whether a user asked it to.
    pub(super) by_hand: bool,
    /// Whether its supervisor was asked to end, and so it ended too.
    pub(super) with_supervisor: bool,
}

/// The way to the end of a container whose supervisor was asked to end.
#[derive(Clone, Copy, Debug)]
struct Ending {
    /// When the container is asked to end; `None` when it has been.
    ask_at: Option<Instant>,
    /// When it is killed, if ever.
    kill_at: Option<Instant>,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Client {
    stream: UnixStream,
    incoming: Incoming,
    /// Bytes for it, of which `sent` are gone.
    backlog: Vec<u8>,
    sent: usize,
    subscribed: bool,
    /// Whether it is the starter's: lossless.
    starter: bool,
    /// Whether its leaving is the end of input that is given once.
    gives_input: bool,
    gone: bool,
    /// What has come of a request.
    request: Vec<u8>,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Client {
    pub(super) fn new(stream: UnixStream, starter: bool) -> Client {
        // Cannot fail on a socket; a blocking one would only be slower.
        let _ = stream.set_nonblocking(true);
        Client {
            stream,
            incoming: Incoming::default(),
            backlog: Vec::new(),
            sent: 0,
            subscribed: starter,
            starter,
            gives_input: starter,
            gone: false,
            request: Vec::new(),
        }
    }

    /// The same connection, for a process of its own; this value is done with it.
    fn hand_over(&mut self) -> std::io::Result<Client> {
        let mut other = Client::new(self.stream.try_clone()?, false);
        std::mem::swap(&mut other.incoming, &mut self.incoming);
        (self.gone, self.gives_input) = (true, false);
        Ok(other)
    }

    /// The same, with what was asked for.
    fn hand_over_request(&mut self) -> std::io::Result<(Vec<u8>, Client)> {
        Ok((std::mem::take(&mut self.request), self.hand_over()?))
    }

    /// The same connection as that of the starter, or of one who only looks on.
    pub(super) fn become_starter(&mut self, starter: bool) -> Result<Client, StartError> {
        let mut other = self.hand_over().map_err(|error| StartError::Kernel("duplicate a descriptor", error))?;
        (other.starter, other.subscribed, other.gives_input) = (starter, starter, starter);
        std::mem::swap(&mut other.backlog, &mut self.backlog);
        other.sent = self.sent;
        Ok(other)
    }

    /// Sends what is left, as long as it takes.
    pub(super) fn flush_to_the_end(&mut self) {
        let _ = self.stream.set_nonblocking(false);
        self.flush();
    }

    /// The starter, which gets everything from the first byte on.
    pub(super) fn starter(stream: UnixStream) -> Client {
        Client::new(stream, true)
    }

    fn waiting(&self) -> usize {
        self.backlog.len() - self.sent
    }

    pub(super) fn send(&mut self, frame: &ServerFrame<'_>) {
        frame.encode(&mut self.backlog);
        self.flush();
        if !self.starter && self.waiting() > CLIENT_BACKLOG {
            self.gone = true;
        }
    }

    fn flush(&mut self) {
        while self.sent < self.backlog.len() {
            match rustix::net::send(&self.stream, &self.backlog[self.sent..], SendFlags::NOSIGNAL) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.gone = true;
                    break;
                }
            }
        }
        // Kept small without moving the rest about for every write.
        if self.sent == self.backlog.len() || self.sent > STARTER_BACKLOG {
            self.backlog.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// What a descriptor of the poll set is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Exit,
    Listener,
    Output(usize),
    Input,
    Client(usize),
    /// A command in the container that has ended.
    Exec(usize),
    /// A probe of its health that has ended.
    Probe,
    /// The end of a process that serves its ports and names, or makes its networks.
    Network,
    /// The supervisor is asked to end.
    Asked,
}

/// What only a container has, and a command in it has not.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) spec: ContainerSpec,
    pub(super) execs: Execs,
    pub(super) health: Option<Monitor>,
    pub(super) network: Networked,
    pub(super) dir: ContainerDir,
    /// SIGTERM and SIGHUP for the supervisor.
    pub(super) asked: Option<Rc<SignalPipe>>,
}

/// A container that is served.
#[derive(Debug)]
pub(super) struct Service {
    child: Child,
    outputs: Vec<Output>,
    input: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    listener: Option<UnixListener>,
    log: LogWriter,
    clients: Vec<Client>,
    stdin: StdinMode,
    container: Option<Container>,
    /// Whether a user asked it to end.
    by_hand: bool,
    /// Whether it was killed, so that what ends in it says nothing of its health.
    killed: bool,
    /// Set when the supervisor was asked to end.
    ending: Option<Ending>,
    /// Input that the container has not taken yet.
    pending: Vec<u8>,
    input_ended: bool,
    ended: Option<(Ended, Instant)>,
    buffer: Vec<u8>,
    /// When the program's pages are given back unless something happens before; `None` when they have been.
    idle_at: Option<Instant>,
}

impl Service {
    /// Takes a running container over, with its first clients.
    pub(super) fn new(container: Served, clients: Vec<Client>, stdin: StdinMode) -> Service {
        Service {
            child: container.child,
            outputs: container.outputs,
            input: container.input,
            terminal: container.terminal,
            listener: container.listener,
            log: container.log,
            clients,
            stdin,
            container: None,
            by_hand: false,
            killed: false,
            ending: None,
            pending: Vec::new(),
            input_ended: false,
            ended: None,
            buffer: vec![0; MAX_PAYLOAD],
            idle_at: None,
        }
    }

    /// The same for a container, in which commands can be started.
    pub(super) fn of_container(served: Served, clients: Vec<Client>, container: Container) -> Service {
        let stdin = container.spec.stdin;
        Service { container: Some(container), idle_at: Some(Instant::now() + IDLE), ..Service::new(served, clients, stdin) }
    }

    /// Serves until the container has ended and its output is drained.
    pub(super) fn run(&mut self) -> Ended {
        loop {
            if let Some((ended, at)) = self.ended
                && (self.outputs.is_empty() || at.elapsed() >= LINGER)
            {
                self.log.finish();
                return ended;
            }
            if let (None, Some(Container { spec, health: Some(health), .. })) = (&self.ended, &mut self.container) {
                health.tick(&Joined { process: &self.child, spec });
            }
            if let (None, Some(Container { spec, network, dir, .. })) = (&self.ended, &mut self.container)
                && let Some(words) = network.tick(dir, spec)
            {
                self.log.write(LogStream::Stderr, words.as_bytes());
            }
            self.press_on();
            let is_idle = self.idle_at.take_if(|at| *at <= Instant::now()).is_some();
            let sources = self.wait(is_idle);
            if self.container.is_some() && !sources.is_empty() {
                self.idle_at = Some(Instant::now() + IDLE);
            }
            for source in sources {
                match source {
                    Source::Exit => self.on_exit(),
                    Source::Listener => self.on_connection(),
                    Source::Output(index) => self.on_output(index),
                    Source::Input => self.give_input(),
                    Source::Client(index) => self.on_client(index),
                    Source::Exec(index) => self.container.iter_mut().for_each(|container| container.execs.ended(index)),
                    Source::Probe => self.on_probe(),
                    Source::Network => self.container.iter_mut().for_each(|container| container.network.has_ended()),
                    Source::Asked => self.on_asked(),
                }
            }
            self.drop_the_gone();
        }
    }

    /// What has something to say. Outputs come last, the highest index first, so that removing one leaves the others in place.
    fn wait(&self, is_idle: bool) -> Vec<Source> {
        let mut sources = Vec::new();
        let mut polled = Vec::new();
        if self.ended.is_none() {
            sources.push(Source::Exit);
            polled.push(PollFd::new(&self.child, PollFlags::IN));
        }
        if let Some(listener) = &self.listener {
            sources.push(Source::Listener);
            polled.push(PollFd::new(listener, PollFlags::IN));
        }
        if let Some(input) = &self.input
            && !self.pending.is_empty()
        {
            sources.push(Source::Input);
            polled.push(PollFd::new(input, PollFlags::OUT));
        }
        for (index, client) in self.clients.iter().enumerate() {
            let mut interest = PollFlags::empty();
            // One whose input nobody takes is not asked for more.
            if self.pending.len() < INPUT_BACKLOG || !client.gives_input {
                interest |= PollFlags::IN;
            }
            if client.waiting() > 0 {
                interest |= PollFlags::OUT;
            }
            sources.push(Source::Client(index));
            polled.push(PollFd::new(&client.stream, interest));
        }
        if let Some(container) = &self.container {
            // The highest index first: see above.
            let mut execs: Vec<_> = container.execs.descriptors().enumerate().collect();
            execs.reverse();
            for (index, exec) in execs {
                sources.push(Source::Exec(index));
                polled.push(PollFd::new(exec, PollFlags::IN));
            }
            if let Some(probe) = container.health.as_ref().and_then(Monitor::descriptor) {
                sources.push(Source::Probe);
                polled.push(PollFd::new(probe, PollFlags::IN));
            }
        }
        let ends: Vec<BorrowedFd<'_>> = self.container.iter().flat_map(|container| container.network.ends()).collect();
        for end in &ends {
            sources.push(Source::Network);
            polled.push(PollFd::new(end, PollFlags::IN));
        }
        if let Some(asked) = self.container.as_ref().and_then(|container| container.asked.as_deref()) {
            sources.push(Source::Asked);
            polled.push(PollFd::new(asked, PollFlags::IN));
        }
        // After the exit there is only what fits into the pipes, so everyone's backlog stays bounded.
        let hold = self.ended.is_none() && self.clients.iter().any(|client| client.starter && client.waiting() > STARTER_BACKLOG);
        if !hold {
            for (index, output) in self.outputs.iter().enumerate().rev() {
                sources.push(Source::Output(index));
                polled.push(PollFd::new(&output.fd, PollFlags::IN));
            }
        }
        let linger = self.ended.map(|_| Duration::from_millis(100));
        let due = || {
            let container = self.container.as_ref()?;
            let idle = self.idle_at.map(|at| at.saturating_duration_since(Instant::now()));
            let ending = self.ending.and_then(|ending| ending.ask_at.or(ending.kill_at));
            let ending = ending.map(|at| at.saturating_duration_since(Instant::now()));
            [container.health.as_ref().and_then(Monitor::due), container.network.due(), idle, ending].into_iter().flatten().min()
        };
        let timeout =
            linger.or_else(due).map(|time| Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() });
        // There are as many supervisors as containers, and all that most do is wait. Right before that, so that little is executed after it.
        if is_idle {
            // It needs more memory without.
            let _ = crate::sys::process::forget_program_pages();
        }
        // Interrupted or out of memory: the next round asks again.
        if poll(&mut polled, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        sources.into_iter().zip(&polled).filter(|(_, fd)| !fd.revents().is_empty()).map(|(source, _)| source).collect()
    }

    fn on_exit(&mut self) {
        let ended = match self.child.wait() {
            Ok(exit) => self.ended_with(exit.status.code(), exit.oom_killed),
            // What it has changed could not be written back, or it is one whose end nobody saw.
            Err(error) => {
                let words = format!("strake: {}\n", chain(&error));
                self.log.write(LogStream::Stderr, words.as_bytes());
                let frame = ServerFrame::Stderr(words.as_bytes());
                self.clients.iter_mut().filter(|client| client.subscribed && !client.gone).for_each(|client| client.send(&frame));
                self.ended_with(137, false)
            }
        };
        self.ended = Some((ended, Instant::now()));
        self.input = None;
        self.pending.clear();
    }

    fn ended_with(&self, code: u8, oom_killed: bool) -> Ended {
        Ended { code, oom_killed, by_hand: self.by_hand, with_supervisor: self.ending.is_some() }
    }

    /// The supervisor is to end, with its unit, its session or the machine: so is the container, in the order that `stop` has.
    fn on_asked(&mut self) {
        let Some(Container { spec, asked: Some(asked), .. }) = &self.container else { return };
        while asked.take().is_some() {}
        let ask_at = Instant::now() + PASSED_ON;
        self.ending.get_or_insert(Ending { ask_at: Some(ask_at), kill_at: ask_at.checked_add(spec.stop_timeout) });
    }

    /// Does what is due on the way to an end that was asked for.
    fn press_on(&mut self) {
        let (Some(ending), None, Some(container)) = (&mut self.ending, &self.ended, &self.container) else { return };
        let (now, spec) = (Instant::now(), &container.spec);
        let signal = if ending.ask_at.take_if(|at| *at <= now).is_some() {
            // What stands still hears nothing.
            if let Ok(State::Running { cgroups, .. }) = load_state(container.dir.path()) {
                let _ = unpause(&spec.id, &cgroups);
            }
            (!self.by_hand && !spec.stop_timeout.is_zero()).then_some(spec.stop_signal)
        } else {
            let killed = ending.kill_at.take_if(|at| ending.ask_at.is_none() && *at <= now);
            killed.map(|_| libc::SIGKILL)
        };
        if let Some(signal) = signal {
            self.killed |= signal == libc::SIGKILL;
            let _ = self.child.kill(signal);
            journal(spec, "kill", &[("signal", signal.to_string())]);
        }
    }

    fn on_connection(&mut self) {
        if let Some(listener) = &self.listener
            && let Ok((stream, _)) = listener.accept()
            && self.clients.len() < MAX_CLIENTS
        {
            self.clients.push(Client::new(stream, false));
        }
    }

    fn on_output(&mut self, index: usize) {
        let Some(output) = self.outputs.get(index) else { return };
        let stream = output.stream;
        match rustix::io::read(&output.fd, &mut self.buffer) {
            Ok(length) if length > 0 => {
                let bytes = &self.buffer[..length];
                self.log.write(stream, bytes);
                let frame = match stream {
                    LogStream::Stdout => ServerFrame::Stdout(bytes),
                    LogStream::Stderr => ServerFrame::Stderr(bytes),
                };
                self.clients.iter_mut().filter(|client| client.subscribed && !client.gone).for_each(|client| client.send(&frame));
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            // The end of a pipe, or EIO: nobody has the terminal open any more.
            Ok(_) | Err(_) => {
                self.outputs.remove(index);
            }
        }
    }

    /// Passes input on as far as the container takes it.
    fn give_input(&mut self) {
        let Some(input) = &self.input else {
            self.pending.clear();
            return;
        };
        let mut given = 0;
        while given < self.pending.len() {
            match rustix::io::write(input, &self.pending[given..]) {
                Ok(count) => given += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // The container has closed its input.
                Err(_) => {
                    self.pending.clear();
                    self.input = None;
                    return;
                }
            }
        }
        self.pending.drain(..given);
        if self.pending.is_empty() && self.input_ended {
            self.input = None;
        }
    }

    fn on_probe(&mut self) {
        let Some(Container { spec, health: Some(health), .. }) = &mut self.container else { return };
        if let Some(status) = health.ended().filter(|_| !self.killed) {
            journal(spec, &format!("health_status: {}", status.word()), &[]);
        }
    }

    fn on_client(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        client.flush();
        match rustix::net::recv(&client.stream, &mut self.buffer[..], rustix::net::RecvFlags::empty()) {
            Ok((length, _)) if length > 0 => {
                client.incoming.push(&self.buffer[..length]);
                self.on_frames(index);
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => client.gone = true,
        }
    }

    fn on_frames(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        // The first failure to understand ends the conversation.
        loop {
            match client.incoming.next_of_client() {
                Ok(None) => break,
                Ok(Some(ClientFrame::Subscribe)) => client.subscribed = true,
                Ok(Some(ClientFrame::Stdin(bytes))) => {
                    if self.input.is_some() && !self.input_ended {
                        self.pending.extend_from_slice(bytes);
                        client.gives_input = true;
                    }
                }
                Ok(Some(ClientFrame::StdinEnd)) => {
                    // A terminal's input has no end, only an end-of-file key.
                    self.input_ended |= self.stdin == StdinMode::Once && self.terminal.is_none();
                }
                Ok(Some(ClientFrame::Resize(size))) => {
                    resize(self.terminal.as_ref(), size);
                    if let (Some(container), Some(_)) = (&self.container, &self.terminal) {
                        let new = [("height", size.rows.to_string()), ("width", size.columns.to_string())];
                        journal(&container.spec, "resize", &new);
                    }
                }
                Ok(Some(ClientFrame::Signal(signal))) => {
                    // One that has just ended needs no signal.
                    if self.ended.is_none() {
                        let stops = |container: &Container| signal == container.spec.stop_signal || ENDING.contains(&signal);
                        self.killed |= signal == libc::SIGKILL;
                        self.by_hand |= self.container.as_ref().is_some_and(stops);
                        let _ = self.child.kill(signal);
                        if let Some(container) = &self.container {
                            journal(&container.spec, "kill", &[("signal", signal.to_string())]);
                        }
                    }
                }
                Ok(Some(ClientFrame::Root)) => {
                    give_root(client, self.child.pid());
                    client.gone = true;
                    break;
                }
                Ok(Some(ClientFrame::Detach)) => (client.gives_input, client.starter) = (false, false),
                Ok(Some(ClientFrame::RequestPart(bytes))) if client.request.len() + bytes.len() <= MAX_REQUEST => {
                    client.request.extend_from_slice(bytes);
                }
                Ok(Some(ClientFrame::ToExec(id, frame))) => self.container.iter().for_each(|container| container.execs.tell(id, frame)),
                Ok(Some(ClientFrame::Networks)) => {
                    if let Some(Container { spec, network, dir, .. }) = &mut self.container {
                        let said = network.reload(dir, spec).err().map_or_else(String::new, |error| chain(&error));
                        client.send(&ServerFrame::Networks(said.as_bytes()));
                    }
                    break;
                }
                Ok(Some(ClientFrame::Exec)) if self.ended.is_none() => {
                    if let (Some(container), Ok(client)) = (&mut self.container, client.hand_over_request()) {
                        let (request, client) = client;
                        container.execs.start(&request, client, Joined { process: &self.child, spec: &container.spec });
                    }
                    break;
                }
                Ok(Some(ClientFrame::RequestPart(_) | ClientFrame::Exec)) | Err(_) => {
                    client.gone = true;
                    break;
                }
            }
        }
        if !self.pending.is_empty() || self.input_ended {
            self.give_input();
        }
    }

    fn drop_the_gone(&mut self) {
        let once = self.stdin == StdinMode::Once && self.terminal.is_none();
        if once && self.clients.iter().any(|client| client.gone && client.gives_input) {
            self.input_ended = true;
            self.give_input();
        }
        self.clients.retain(|client| !client.gone);
    }

    /// The socket, for whoever serves the container from here on, and what its health was. Its commands have ended.
    pub(super) fn take_listener(&mut self) -> Option<UnixListener> {
        self.container.iter_mut().for_each(|container| {
            container.execs.finish();
            container.health.iter_mut().for_each(Monitor::stop);
        });
        self.listener.take()
    }

    /// The container's network, which is given up when it is dropped.
    pub(super) fn take_network(&mut self) -> Option<Networked> {
        self.container.as_mut().map(|container| std::mem::take(&mut container.network))
    }

    /// Tells every client of the end. Gives back those that have not taken everything yet and must not lose anything.
    pub(super) fn say_goodbye(mut self, code: u8, oom_killed: bool) -> Leftover {
        let frame = ServerFrame::Exited { code, oom_killed };
        self.clients.iter_mut().for_each(|client| client.send(&frame));
        let deadline = Instant::now() + GOODBYE;
        let mut leftover = Leftover { clients: self.clients };
        leftover.serve(Some(deadline));
        leftover.clients.retain(|client| client.starter);
        leftover
    }
}

/// Sends the container's root directory, which only its parent's user namespace reaches. One that has just ended has none.
fn give_root(client: &Client, pid: u32) {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if let Ok(root) = rustix::fs::open(format!("/proc/{pid}/root"), flags, FileMode::empty()) {
        let _ = wire::send(client.stream.as_fd(), b"root", &[root.as_fd()]);
    }
}

fn resize(terminal: Option<&OwnedFd>, size: TerminalSize) {
    let Some(terminal) = terminal else { return };
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // A terminal that refuses a size keeps its own.
    let _ = rustix::termios::tcsetwinsize(terminal.as_fd(), size);
}

/// Clients that still have output to take after the container's end.
#[derive(Debug)]
pub(super) struct Leftover {
    clients: Vec<Client>,
}

impl Leftover {
    /// Serves the starter as long as it takes.
    pub(super) fn serve_to_the_end(mut self) {
        self.serve(None);
    }

    fn serve(&mut self, deadline: Option<Instant>) {
        loop {
            self.clients.iter_mut().for_each(Client::flush);
            self.clients.retain(|client| client.waiting() > 0 && !client.gone);
            if self.clients.is_empty() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return;
            }
            let mut polled: Vec<PollFd<'_>> = self.clients.iter().map(|client| PollFd::new(&client.stream, PollFlags::OUT)).collect();
            let timeout = deadline.map(|_| Timespec { tv_sec: 0, tv_nsec: 100_000_000 });
            let _ = poll(&mut polled, timeout.as_ref());
        }
    }
}
