//! Further commands in a running container (`strake exec`).
//!
//! ```text
//!   client                      supervisor                     exec process (a copy of the supervisor)           the command
//!     |-- RequestPart, Exec ------>|-- clone3 ---------------------->| joins the container, launches ----------------->|
//!     |<= Started, frames ========================================== | serves this one client, as the supervisor does
//!     |-- ToExec(ID, Resize) ----->|-- over a pair of sockets ------>|
//! ```
//!
//! The command is not a child of the client, so it goes on when that is killed. Only a descendant of the supervisor may enter the container where that is in a user
//! namespace. The copy closes everything of the supervisor's but the client's connection: above all the lock, which says that the supervisor lives. Its command dies
//! with the container, whose PID 1 the kernel ends together with all that is in the namespace.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::chronicle::journal;
use super::log::LogWriter;
use super::protocol::{ClientFrame, EXEC_ID, ServerFrame};
use super::serve::{Client, Served, Service};
use super::start::Report;
use super::state::ContainerDir;
use super::streams::Streams;
use super::supervisor::{StartError, chain};
use super::{ContainerSpec, LogDriver, LogSettings, StdinMode, late};
use crate::runtime::{self, Child, Privileges, ProcessSpec, SandboxIo, SandboxSpec, foreign, launch};
use crate::sys::process::{Cloned, clone_process, close_from, exit_now, reap};

/// The largest request that a supervisor takes: more than the kernel lets a process have as arguments and environment.
pub(super) const MAX_REQUEST: usize = 8 << 20;

/// How long after the container's end its commands may take to be gone.
const LAST: Duration = Duration::from_secs(1);

/// How long after a failure the container's own end may become visible.
const MOMENT: Duration = Duration::from_millis(200);

/// A command that is to run in a running container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// Its ID: 64 hexadecimal digits.
    pub id: String,
    /// What runs, and as whom.
    pub process: ProcessSpec,
    /// Whether it may do everything, whatever the container may.
    pub privileged: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Whether it reads what the client sends.
    pub stdin: bool,
    /// Whether nobody listens.
    pub detach: bool,
}

/// A command that runs.
#[derive(Debug)]
struct RunningExec {
    id: String,
    pid: u32,
    pidfd: OwnedFd,
    /// What other connections have to say to it.
    control: UnixStream,
}

/// The commands that run in a container beside its own; each has an empty file of its ID's name in `execs` of the container's directory.
#[derive(Debug)]
pub(super) struct Execs {
    directory: PathBuf,
    running: Vec<RunningExec>,
}

impl Execs {
    pub(super) fn new(dir: &ContainerDir) -> Execs {
        let directory = dir.file("execs");
        // What an earlier run left is not running.
        let _ = std::fs::remove_dir_all(&directory);
        Execs { directory, running: Vec::new() }
    }

    /// What becomes readable when the command ends, in the order of [`Execs::ended`].
    pub(super) fn descriptors(&self) -> impl Iterator<Item = &OwnedFd> {
        self.running.iter().map(|exec| &exec.pidfd)
    }

    /// The command at `index` has ended.
    pub(super) fn ended(&mut self, index: usize) {
        if index < self.running.len() {
            let exec = self.running.remove(index);
            let _ = reap(exec.pid);
            let _ = std::fs::remove_file(self.directory.join(exec.id));
        }
    }

    /// Passes a frame on. A command that has just ended needs none; one that does not listen loses it.
    pub(super) fn tell(&self, id: &[u8; EXEC_ID], frame: &[u8]) {
        if let Some(exec) = self.running.iter().find(|exec| exec.id.as_bytes() == id) {
            let _ = (&exec.control).write_all(frame);
        }
    }

    /// Starts a command for `client`. Returns in the supervisor only, whose copy of the connection is closed when `client` is dropped.
    pub(super) fn start(&mut self, request: &[u8], client: Client, container: Joined<'_>) {
        let Ok(request) = serde_json::from_slice::<ExecRequest>(request) else { return };
        let Ok((ours, theirs)) = UnixStream::pair() else { return };
        // Neither side may wait for the other.
        let _ = ours.set_nonblocking(true);
        // Before the command, which a client may look for at once.
        let _ = std::fs::create_dir_all(&self.directory).and_then(|()| std::fs::write(self.directory.join(&request.id), ""));
        match clone_process(0, None) {
            Ok(Cloned::Child) => run(&request, client, theirs, &container),
            Ok(Cloned::Parent { pid, pidfd }) => self.running.push(RunningExec { id: request.id, pid, pidfd, control: ours }),
            Err(_) => drop(std::fs::remove_file(self.directory.join(&request.id))),
        }
    }

    /// Waits a moment for all of them to be gone, after the container has ended.
    pub(super) fn finish(&mut self) {
        let deadline = std::time::Instant::now() + LAST;
        while let Some(exec) = self.running.first() {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            let mut fds = [PollFd::new(&exec.pidfd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => break,
                _ => self.ended(0),
            }
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The container that a command enters.
#[derive(Debug)]
pub(super) struct Joined<'a> {
    pub(super) process: &'a Child,
    pub(super) spec: &'a ContainerSpec,
}

impl Joined<'_> {
    /// Starts the process of `sandbox` in the container, by whatever runtime that has.
    pub(super) fn launch(&self, sandbox: &SandboxSpec, io: SandboxIo) -> Result<Child, StartError> {
        let process = self.process.joinable().try_clone_to_owned().map_err(|error| StartError::Kernel("duplicate a descriptor", error))?;
        let mut groups = self.process.cgroups().to_vec();
        late::add(&self.spec.id, &mut groups);
        let io = SandboxIo { join: Some(process), join_cgroups: groups, ..io };
        Ok(match &self.spec.runtime {
            None => launch(sandbox, io)?,
            Some(runtime) => foreign::exec(runtime, &self.spec.id, sandbox, io)?,
        })
    }
}

/// The life of the copy.
fn run(request: &ExecRequest, mut client: Client, control: UnixStream, container: &Joined<'_>) -> ! {
    let _ = close_from(3, &[client.as_fd(), control.as_fd(), container.process.joinable()]);
    let _ = rustix::thread::set_name(c"strake-exec");
    // The supervisor's names the store, and the container will see it.
    let _ = crate::sys::process::set_command_line(b"strake-exec");
    let Err(error) = serve(request, &mut client, control, container);
    let code = match &error {
        // As Docker has it: what the command's sandbox refuses (a working directory) means that it cannot be executed.
        StartError::Sandbox(error) if error.exit_code() == 125 => 126,
        StartError::Sandbox(error) => error.exit_code(),
        _ => 125,
    };
    if !matches!(error, StartError::Sandbox(runtime::Error::Exec(_))) && has_ended(container) {
        // Hanging up says that the container does not run.
        exit_now(i32::from(code));
    }
    let report = Report::Failed { code, message: chain(&error), hint: error.hint() };
    client.send(&ServerFrame::Failed(&serde_json::to_vec(&report).unwrap_or_default()));
    client.flush_to_the_end();
    exit_now(i32::from(code))
}

/// Whether the container has ended, or does so within a moment: what it takes with it goes before its end can be seen.
fn has_ended(container: &Joined<'_>) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: MOMENT.subsec_nanos().into() };
    let process = container.process.joinable();
    matches!(poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&timeout)), Ok(1..))
}

fn serve(request: &ExecRequest, client: &mut Client, control: UnixStream, container: &Joined<'_>) -> Result<Infallible, StartError> {
    let mut sandbox = container.spec.sandbox.clone();
    sandbox.process = request.process.clone();
    sandbox.init = false;
    if request.privileged {
        sandbox.privileges = Privileges::Insecure;
    }
    let stdin = if request.stdin { StdinMode::Once } else { StdinMode::Closed };
    let streams = match request.detach && !request.tty {
        true => Streams::nowhere(),
        false => Streams::new(request.tty, stdin),
    };
    let streams = streams.map_err(|error| StartError::Kernel("make pipes", error))?;
    let (inner, ends) = streams.split();
    let chronicle = Chronicle { spec: container.spec, id: &request.id, args: &request.process.args };
    chronicle.tell("exec_create");
    let child = container.launch(&sandbox, SandboxIo::new(inner))?;
    chronicle.tell("exec_start");
    client.send(&ServerFrame::Started(child.pid()));
    let settings = LogSettings { driver: LogDriver::None, ..LogSettings::default() };
    let log = LogWriter::open(&PathBuf::new(), settings)?;
    let served = Served::new(child, ends, stdin, None, log)?;
    let clients = vec![client.become_starter(!request.detach)?, Client::new(control, false)];
    let mut service = Service::new(served, clients, stdin);
    let ended = service.run();
    chronicle.tell_of_end(i32::from(ended.code));
    let slow = service.say_goodbye(ended.code, ended.oom_killed);
    slow.serve_to_the_end();
    exit_now(i32::from(ended.code))
}

/// Puts on record what becomes of a command in a container.
#[derive(Debug)]
pub(super) struct Chronicle<'a> {
    pub(super) spec: &'a ContainerSpec,
    pub(super) id: &'a str,
    pub(super) args: &'a [OsString],
}

impl Chronicle<'_> {
    /// That it is made or started.
    pub(super) fn tell(&self, action: &str) {
        let line: Vec<_> = self.args.iter().map(|word| word.to_string_lossy()).collect();
        journal(self.spec, &format!("{action}: {}", line.join(" ")), &[("execID", self.id.to_owned())]);
    }

    /// That it has ended.
    pub(super) fn tell_of_end(&self, code: i32) {
        journal(self.spec, "exec_die", &[("execID", self.id.to_owned()), ("exitCode", code.to_string())]);
    }
}

/// A frame for the command `id`, as another connection sends it.
pub(super) fn addressed(id: &str, frame: &ClientFrame<'_>) -> Option<Vec<u8>> {
    let (mut inner, mut out) = (Vec::new(), Vec::new());
    frame.encode(&mut inner);
    ClientFrame::ToExec(id.as_bytes().try_into().ok()?, &inner).encode(&mut out);
    Some(out)
}
