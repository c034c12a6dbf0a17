//! The supervisor: one process with one thread for each running container. Starts it, serves its streams, records its end.
//!
//! Slow readers: the starter's own connection is lossless and slows the container down, as a pipe would. Any other client that falls a mebibyte
//! behind is cut off, so that nobody who attaches can stop a container. The log is written before clients are served.
//!
//! This file has the life from start to end; `serve.rs` the loop in between.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use rustix::fs::Mode as FileMode;

use super::chronicle::{self, journal};
use super::exec::Execs;
use super::health::Monitor;
use super::log::{LogStream, LogWriter};
use super::networking::{Networked, SpareNetwork};
use super::restart::{GivenUp, Restarts, wait_out};
use super::serve::{Client, Container, Ended, Served, Service};
use super::start::{GO, Mode, Outlook, Report};
use super::state::{self, ContainerDir, State};
use super::streams::{Ends, Streams, null};
use super::{ContainerSpec, Error, late, load_spec, pause, shared};
use crate::runtime::foreign::{self, Guarded};
use crate::runtime::network::Program;
use crate::runtime::{
    self, BindSource, Capabilities, Child, Isolation, Member, MountSpec, SandboxIo, SandboxSpec, Sharing, UserNamespace, UserRange, launch,
    network,
};
use crate::sys::signals::SignalPipe;
use crate::sys::{RootfsMount, SealedProgram, process, signals};

/// How long the command that started a container has to remove it.
const GRACE: Duration = Duration::from_millis(500);

/// What keeps a start from succeeding.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Container(#[from] Error),
    #[error(transparent)]
    Sandbox(#[from] runtime::Error),
    #[error("cannot set up the container's network")]
    Network(#[source] network::Error),
    #[error("the container has the host's network, since it could have none of its own")]
    NoOwnNetwork,
    #[error("a container of `--network {0}` is on no other network")]
    OtherCarrier(&'static str),
    #[error("cannot join the network of the container {container}: {reason}")]
    Join { container: String, reason: &'static str },
    #[error("cannot link to the container {container}: {reason}")]
    Link { container: String, reason: &'static str },
    #[error("cannot {0}")]
    Kernel(&'static str, #[source] std::io::Error),
}

/// What a supervisor finds around it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Programs that may carry the container's packets.
    pub programs: Vec<Program>,
    /// Where the containers of an ordinary user meet.
    pub run_dir: Option<PathBuf>,
    /// The file of this program, where a container of another runtime needs it.
    pub program: Option<PathBuf>,
}

/// What became of a supervisor's container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supervised {
    /// It has ended, or could not be started: the exit code of the process.
    Ended(i32),
    /// Nobody was left to say that it is to be started.
    Abandoned {
        /// Whether it was being made, and to be removed at its end.
        removes_itself: bool,
    },
}

/// The supervisor's `main`: `args` are those after [`SUPERVISOR`](super::SUPERVISOR). The process has one thread and has opened nothing yet: all descriptors but the
/// standard ones are closed.
pub fn supervisor_main(args: impl IntoIterator<Item = OsString>, around: &Surroundings) -> Supervised {
    let mut args = args.into_iter();
    let (Some(mode), Some(dir)) = (args.next(), args.next().map(PathBuf::from)) else { return Supervised::Ended(125) };
    let number = args.next().and_then(|number| number.to_str()?.parse().ok());
    // Kept until the end.
    let program = number.and_then(SealedProgram::inherited);
    // What leaked through the starter (a CI runner's pipe, whose end it waits for) must not stay open as long as the container runs. Without it, it does.
    let _ = process::close_from(3, &program.iter().map(AsFd::as_fd).collect::<Vec<_>>());
    let _ = rustix::thread::set_name(c"strake");
    // A new session: no terminal of the starter's reaches us or the container. Fails only where we lead one already.
    let _ = rustix::process::setsid();
    // A container that closes its input is no reason to die. Cannot fail for this signal.
    let _ = signals::ignore(Signal::SIGPIPE);
    // Nothing is to be kept from being unmounted.
    let _ = rustix::process::chdir("/");
    let starter = take_stdin().ok();
    let dir = ContainerDir::new(&dir);
    let shared = around.run_dir.as_deref().filter(|_| network::is_for_us());
    let _member = shared.and_then(|run_dir| Member::of_namespace(run_dir).ok());
    let abandoned = |removes_itself| Supervised::Abandoned { removes_itself };
    let Some(mut starter) = starter else { return abandoned(false) };
    let Some(outlook) = read_outlook(&mut starter) else { return abandoned(false) };
    // What most containers need is made before anything is known of this one, while its starter still makes it.
    runtime::compile_default_filter();
    let spare = SpareNetwork::make(&outlook.endpoints);
    let Some(starter) = wait_for_go(starter) else { return abandoned(outlook.removes_itself) };
    let first = (mode == Mode::Attached.name()).then_some(starter);
    Supervised::Ended(match run(&dir, first, around, spare) {
        Ok(()) => 0,
        Err(StartError::Container(Error::Running)) => {
            report(&Report::Running);
            125
        }
        Err(error) => {
            let code = match &error {
                StartError::Sandbox(error) => error.exit_code(),
                _ => 125,
            };
            report(&Report::Failed { code, message: chain(&error), hint: error.hint() });
            i32::from(code)
        }
    })
}

/// What the starter knows already; `None` where it has ended.
fn read_outlook(starter: &mut UnixStream) -> Option<Outlook> {
    let mut length = [0; 4];
    starter.read_exact(&mut length).ok()?;
    let mut outlook = vec![0; u32::from_le_bytes(length) as usize];
    starter.read_exact(&mut outlook).ok()?;
    serde_json::from_slice(&outlook).ok()
}

/// Waits until the starter says that the container is there; `None` where it ends without.
fn wait_for_go(mut starter: UnixStream) -> Option<UnixStream> {
    let mut word = GO;
    starter.read_exact(&mut word).is_ok().then_some(starter)
}

impl StartError {
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            StartError::Container(error) => error.hint(),
            StartError::Sandbox(error) => error.hint(),
            StartError::Network(error) => error.hint(),
            StartError::Join { container, .. } | StartError::Link { container, reason: "it does not run" } => {
                Some(format!("start that first: `strake start {container}`"))
            }
            StartError::Link { .. } => Some("put both on one network with --network".to_owned()),
            StartError::OtherCarrier(_) => Some("name all its networks when the container is made".to_owned()),
            StartError::NoOwnNetwork | StartError::Kernel(..) => None,
        }
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The whole life of the container, with all its restarts.
fn run(dir: &ContainerDir, first: Option<UnixStream>, around: &Surroundings, spare: SpareNetwork) -> Result<(), StartError> {
    let lock = dir.lock()?;
    let mut spec = load_spec(dir.path())?;
    // What a killed one has left would take in the commands of this run.
    late::forget(&spec.id);
    // Without it, the container is killed when this process is: no better, and no reason not to have one. The end of a login session sends SIGHUP right after SIGTERM.
    let asked = SignalPipe::install(&[Signal::SIGTERM, Signal::SIGHUP]).ok().map(Rc::new);
    let begun = listen(dir).map_err(StartError::from).and_then(|listener| start(dir, &spec, around, listener, spare, 0));
    let mut running = begun.inspect_err(|error| record_failure(dir, error, 0))?;
    let starter = first.as_ref().filter(|_| spec.auto_remove).and_then(|first| first.try_clone().ok());
    let mut clients: Vec<Client> = first.into_iter().map(Client::starter).collect();
    let mut restarts = Restarts::new();
    loop {
        let began = Instant::now();
        let Running { container, started_at, network, health, users: _users, mounts } = running;
        let (execs, dir_of) = (Execs::new(dir), dir.clone());
        let container_of = Container { spec: spec.clone(), execs, health, network, dir: dir_of, asked: asked.clone() };
        let mut service = Service::of_container(container, clients, container_of);
        let ended = service.run();
        let (listener, network) = (service.take_listener(), service.take_network());
        pause::forget(&spec.id);
        let late_oom = late::forget(&spec.id);
        // `update` may have changed it.
        spec = load_spec(dir.path()).unwrap_or(spec);
        let finished_at = Timestamp::now().to_string();
        let Ended { code, oom_killed, by_hand, .. } = ended;
        let oom_killed = oom_killed || late_oom;
        if oom_killed {
            journal(&spec, "oom", &[]);
        }
        network.iter().for_each(|network| network.tell_of_end(&spec));
        chronicle::unmounts(&spec);
        journal(&spec, "die", &[("execDuration", began.elapsed().as_secs().to_string()), ("exitCode", code.to_string())]);
        let restarted = restarts.count;
        let exited = |by_hand| State::Exited {
            code,
            oom_killed,
            started_at: Some(started_at.clone()),
            finished_at: Some(finished_at.clone()),
            error: None,
            restarts: restarted,
            by_hand,
        };
        let Some((delay, listener)) = restarts.next(spec.restart, &ended, began.elapsed()).zip(listener) else {
            if spec.auto_remove {
                record_passing(dir, &exited(by_hand));
            } else {
                record(dir, &exited(by_hand));
            }
            lock.leave(code);
            // Nobody can attach any more; who did hears of the end. From here on the container may be started again.
            let _ = std::fs::remove_file(dir.file("attach.sock"));
            let slow = service.say_goodbye(code, oom_killed);
            // What is left to do ends soon, or may be ended.
            drop(asked);
            // Whoever removes the container waits for the lock: then nothing is left of its mounts and its network either.
            drop(mounts);
            drop(network);
            drop(lock);
            slow.serve_to_the_end();
            starter.into_iter().for_each(wait_for_removal);
            return Ok(());
        };
        let stopped = [exited(true), exited(false)];
        record(dir, &State::Restarting { code, oom_killed, started_at, finished_at, restarts: restarts.count });
        drop(service.say_goodbye(code, oom_killed));
        drop(mounts);
        drop(network);
        if let Err(given_up) = wait_out(&listener, asked.as_deref().map(AsFd::as_fd), delay) {
            let [by_hand, with_supervisor] = &stopped;
            record(dir, if given_up == GivenUp::ByHand { by_hand } else { with_supervisor });
            lock.leave(code);
            let _ = std::fs::remove_file(dir.file("attach.sock"));
            return Ok(());
        }
        match start(dir, &spec, around, listener, SpareNetwork::default(), restarts.count) {
            Ok(again) => running = again,
            Err(error) => {
                record_failure(dir, &error, restarts.count);
                let _ = std::fs::remove_file(dir.file("attach.sock"));
                return Ok(());
            }
        }
        clients = Vec::new();
    }
}

fn record(dir: &ContainerDir, state: &State) {
    dir.write_state(state).unwrap_or_else(not_on_record);
}

fn record_passing(dir: &ContainerDir, state: &State) {
    dir.write_passing_state(state).unwrap_or_else(not_on_record);
}

fn not_on_record(error: Error) {
    tracing::debug!(%error, "the container's state is not on record");
}

/// Waits until the starter has removed its container, or gives up: its end of the connection is closed then.
fn wait_for_removal(starter: UnixStream) {
    let _ = starter.set_nonblocking(false);
    let _ = starter.set_read_timeout(Some(GRACE));
    let (begun, mut rest) = (Instant::now(), [0; 512]);
    // What it has sent since is for nobody any more.
    while (&starter).read(&mut rest).is_ok_and(|length| length > 0) && begun.elapsed() < GRACE {}
}

/// Records that the container could not be started.
fn record_failure(dir: &ContainerDir, error: &StartError, restarts: u32) {
    let code = if let StartError::Sandbox(error) = error { error.exit_code() } else { 125 };
    let finished_at = Some(Timestamp::now().to_string());
    let error = Some(chain(error));
    // The failure itself matters more than that it could not be recorded.
    let _ = dir.write_state(&State::Exited { code, oom_killed: false, started_at: None, finished_at, error, restarts, by_hand: false });
}

/// A container that has just begun to run.
struct Running {
    container: Served,
    started_at: String,
    network: Networked,
    health: Option<Monitor>,
    /// The host's IDs that are its users.
    users: Option<UserRange>,
    mounts: Option<OwnedFd>,
}

fn start(
    dir: &ContainerDir,
    spec: &ContainerSpec,
    around: &Surroundings,
    listener: UnixListener,
    spare: SpareNetwork,
    restarts: u32,
) -> Result<Running, StartError> {
    let log = LogWriter::open(&dir.log(), spec.log)?;
    let mut sandbox = spec.sandbox.clone();
    let mut warnings = Vec::new();
    let range = spec.users.as_deref().map(UserRange::take).transpose()?;
    let users = range.as_ref().map(UserNamespace::make).transpose()?;
    let network = Networked::set_up(dir, spec, around, users.as_ref(), spare, &mut warnings)?;
    sandbox.network = network.mode();
    network.tell_of_links(&mut sandbox.process.env);
    if sandbox.namespaces.pid == Sharing::Own && runtime::shares_processes() {
        warnings.push(runtime::SHARED_PROCESSES.to_owned());
    }
    if sandbox.isolation != Isolation::Namespaces {
        warnings.push(runtime::CHROOT.to_owned());
    }
    let streams = Streams::new(spec.tty, spec.stdin).map_err(|error| StartError::Kernel("make pipes", error))?;
    let (inner, ends) = streams.split();
    let mut io = SandboxIo::new(inner);
    io.netns = network.netns().map_err(|error| StartError::Kernel("duplicate a descriptor", error))?;
    io.shared = shared::open(dir, &sandbox.namespaces)?;
    io.users = users;
    let child = launched(dir, spec, &sandbox, io, &ends, around.program.as_deref())?;
    let (pid, cgroups) = (child.pid(), child.cgroups().to_vec());
    let mounts = held_mounts(dir, spec, pid);
    if let Some(range) = &range {
        range.is_of(pid).map_err(|error| StartError::Kernel("record whose IDs these are", error))?;
    }
    let container = Served::new(child, ends, spec.stdin, Some(listener), log)?;
    let started_at = Timestamp::now().to_string();
    let state = State::Running {
        pid,
        start_ticks: state::start_ticks(pid).unwrap_or(0),
        boot_id: state::boot_id(),
        started_at: started_at.clone(),
        networks: network.endpoints(),
        ports: network.ports(),
        cgroups,
        restarts,
    };
    if spec.auto_remove {
        dir.write_passing_state(&state)?
    } else {
        dir.write_state(&state)?
    }
    // Before anyone can ask for it.
    let health = spec.health.as_ref().map(|check| Monitor::new(dir, check));
    network.tell_of_start(spec);
    chronicle::mounts(spec);
    journal(spec, "start", &[]);
    report(&Report::Started { pid, warnings });
    Ok(Running { container, started_at, network, health, users: range, mounts })
}

/// The container's mounts, which are there as long as this is. PID 1 has not ended for the kernel before its mounts have, of which each waits for other processors: of a short
/// `run` a tenth. Held here, they go when the end was told. Not where one is of files that are not the container's own: those may be wanted elsewhere as soon as it has ended. Nor where a program shows the layers, whose end is waited for.
fn held_mounts(dir: &ContainerDir, spec: &ContainerSpec, pid: u32) -> Option<OwnedFd> {
    let is_own = |mount: &MountSpec| match mount {
        MountSpec::Bind { source: BindSource::Path(path), .. } => path.starts_with(dir.path()),
        MountSpec::Tmpfs { .. } => true,
        MountSpec::Bind { .. } | MountSpec::Filesystem { .. } | MountSpec::Overlay { .. } => false,
    };
    let sandbox = &spec.sandbox;
    let is_overlay = sandbox.isolation == Isolation::Namespaces && matches!(sandbox.rootfs, RootfsMount::Overlay { .. });
    // It may have mounted more.
    let can_mount = sandbox.privileges.capabilities().contains(Capabilities::SYS_ADMIN);
    (is_overlay && !can_mount && sandbox.mounts.iter().all(is_own))
        .then(|| File::open(format!("/proc/{pid}/ns/mnt")).ok().map(OwnedFd::from))
        .flatten()
}

/// Starts the container by its runtime.
fn launched(
    dir: &ContainerDir,
    spec: &ContainerSpec,
    sandbox: &SandboxSpec,
    io: SandboxIo,
    ends: &Ends,
    program: Option<&Path>,
) -> Result<Child, runtime::Error> {
    let Some(runtime) = &spec.runtime else { return launch(sandbox, io) };
    let stderr = ends.outputs.iter().find(|output| output.stream == LogStream::Stderr).map(|output| &output.fd);
    foreign::start(&Guarded { runtime, id: &spec.id, sandbox, dir: &dir.file("runtime"), program, stderr }, io)
}

/// Our standard input as the first client's connection; `/dev/null` takes its place, so that nothing we start can have it.
fn take_stdin() -> std::io::Result<UnixStream> {
    let stream = std::io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(null()?)?;
    Ok(UnixStream::from(stream))
}

/// Tells the starter how it went; the end of our standard output is the end of the message.
fn report(report: &Report) {
    let mut text = vec![b'\n'];
    // Cannot fail: strings and numbers into memory.
    let _ = serde_json::to_writer(&mut text, report);
    text.push(b'\n');
    let stdout = std::io::stdout();
    // A starter that is gone does not change what the container does.
    let _ = stdout.lock().write_all(&text).and_then(|()| stdout.lock().flush());
    if let Ok(null) = null() {
        let _ = rustix::stdio::dup2_stdout(null);
    }
}

fn listen(dir: &ContainerDir) -> Result<UnixListener, Error> {
    let socket = dir.file("attach.sock");
    match std::fs::remove_file(&socket) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(Error::file("remove", &socket)(source)),
        _ => {}
    }
    let (_open, path) = dir.socket()?;
    // Whoever may attach may do anything in the container. The mask is the process's own business: it has one thread.
    let before = rustix::process::umask(FileMode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.map_err(Error::file("create", &socket))?;
    listener.set_nonblocking(true).map_err(Error::file("listen on", &socket))?;
    Ok(listener)
}
