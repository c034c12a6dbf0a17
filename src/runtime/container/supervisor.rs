//! The supervisor: one process with one thread for each running container. Starts it, serves its streams, records its end.
//!
//! Slow readers: the starter's own connection is lossless and slows the container down, as a pipe would. Any other client that falls a mebibyte
//! behind is cut off, so that nobody who attaches can stop a container. The log is written before clients are served.
//!
//! This file has the life from start to end; `serve.rs` the loop in between.

use std::ffi::OsString;
use std::io::Write;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{Mode as FileMode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::log::{LogStream, LogWriter};
use super::serve::{Client, Ended, Output, Served, Service};
use super::start::{Mode, Report};
use super::state::{self, ContainerDir, RunLock, State};
use super::{ContainerSpec, Error, HostAddress, NetworkRequest, StdinMode, load_spec};
use crate::runtime::network::{self, Network, hosts_file};
use crate::runtime::{self, NetworkMode, SandboxIo, Stdio, launch};
use crate::sys::{process, signals};

/// What keeps a start from succeeding.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Container(#[from] Error),
    #[error(transparent)]
    Sandbox(#[from] runtime::Error),
    #[error("cannot set up the container's network")]
    Network(#[source] network::Error),
    #[error("cannot {0}")]
    Kernel(&'static str, #[source] std::io::Error),
}

/// The supervisor's `main`: `args` are those after [`SUPERVISOR`](super::SUPERVISOR). The process has one thread and has opened nothing yet: all descriptors but the
/// standard ones are closed. Gives the exit code of the process.
pub fn supervisor_main(args: impl IntoIterator<Item = OsString>) -> i32 {
    let mut args = args.into_iter();
    let (Some(mode), Some(dir)) = (args.next(), args.next().map(PathBuf::from)) else { return 125 };
    // What leaked through the starter (a CI runner's pipe, whose end it waits for) must not stay open as long as the container runs. Without it, it does.
    let _ = process::close_from(3, None);
    // A new session: no terminal of the starter's reaches us or the container. Fails only where we lead one already.
    let _ = rustix::process::setsid();
    // A container that closes its input is no reason to die. Cannot fail for this signal.
    let _ = signals::ignore(nix::sys::signal::Signal::SIGPIPE);
    let first = if mode == Mode::Attached.name() { take_stdin().ok() } else { None };
    let dir = ContainerDir::new(&dir);
    match run(&dir, first) {
        Ok(()) => 0,
        Err(error) => {
            let code = match &error {
                StartError::Sandbox(error) => error.exit_code(),
                _ => 125,
            };
            report(&Report::Failed { code, message: chain(&error), hint: error.hint() });
            i32::from(code)
        }
    }
}

impl StartError {
    fn hint(&self) -> Option<String> {
        match self {
            StartError::Container(error) => error.hint(),
            StartError::Sandbox(error) => error.hint(),
            StartError::Network(error) => error.hint(),
            StartError::Kernel(..) => None,
        }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The whole life of the container.
fn run(dir: &ContainerDir, first: Option<UnixStream>) -> Result<(), StartError> {
    let lock = dir.lock()?;
    let spec = load_spec(dir.path())?;
    match start(dir, &spec) {
        Ok(started) => {
            supervise(dir, &spec, started, first, lock);
            Ok(())
        }
        Err(error) => {
            let code = if let StartError::Sandbox(error) = &error { error.exit_code() } else { 125 };
            let finished_at = Some(Timestamp::now().to_string());
            let state = State::Exited { code, oom_killed: false, started_at: None, finished_at, error: Some(chain(&error)) };
            // The failure itself matters more than that it could not be recorded.
            let _ = dir.write_state(&state);
            Err(error)
        }
    }
}

/// A container that has just begun to run.
struct Running {
    container: Served,
    started_at: String,
    network: Option<network::Netns>,
}

fn start(dir: &ContainerDir, spec: &ContainerSpec) -> Result<Running, StartError> {
    let listener = listen(dir)?;
    let log = LogWriter::open(&dir.log(), spec.log)?;
    let mut sandbox = spec.sandbox.clone();
    let mut warnings = Vec::new();
    let network = join_network(dir, spec, &mut sandbox.network, &mut warnings)?;
    let streams = Streams::new(spec).map_err(|error| StartError::Kernel("make pipes", error))?;
    let mut io = SandboxIo::new(streams.inner);
    if let Some(netns) = &network {
        let fd = netns.fd().try_clone_to_owned();
        io.netns = Some(fd.map_err(|error| StartError::Kernel("duplicate a descriptor", error))?);
    }
    let mut child = launch(&sandbox, io)?;
    let (mut outputs, mut input) = (streams.outputs, streams.input);
    let terminal = child.take_terminal();
    if let Some(terminal) = &terminal {
        let both = terminal.try_clone().and_then(|output| Ok((output, terminal.try_clone()?)));
        let (output, typed) = both.map_err(|error| StartError::Kernel("duplicate a descriptor", error))?;
        outputs = vec![Output { fd: output, stream: LogStream::Stdout }];
        input = (spec.stdin != StdinMode::Closed).then_some(typed);
    }
    for fd in outputs.iter().map(|output| &output.fd).chain(&input) {
        rustix::io::ioctl_fionbio(fd, true).map_err(|errno| StartError::Kernel("set up a stream", errno.into()))?;
    }
    let started_at = Timestamp::now().to_string();
    dir.write_state(&State::Running {
        pid: child.pid(),
        start_ticks: state::start_ticks(child.pid()).unwrap_or(0),
        boot_id: state::boot_id(),
        started_at: started_at.clone(),
        address: network.as_ref().map(|netns| netns.address().address),
    })?;
    report(&Report::Started { pid: child.pid(), warnings });
    Ok(Running { container: Served { child, outputs, input, terminal, listener, log }, started_at, network })
}

/// Serves the container until its end, and records that.
fn supervise(dir: &ContainerDir, spec: &ContainerSpec, running: Running, first: Option<UnixStream>, lock: RunLock) {
    let Running { container, started_at, network } = running;
    let clients = first.into_iter().map(Client::starter).collect();
    let mut service = Service::new(container, clients, spec.stdin);
    let Ended { code, oom_killed } = service.run();
    let finished_at = Some(Timestamp::now().to_string());
    let state = State::Exited { code, oom_killed, started_at: Some(started_at), finished_at, error: None };
    if let Err(error) = dir.write_state(&state) {
        tracing::debug!(%error, "the container's end is not on record");
    }
    // Nobody can attach any more; who did hears of the end. From here on the container may be started again.
    let _ = std::fs::remove_file(dir.file("attach.sock"));
    let slow = service.say_goodbye(code, oom_killed);
    drop(lock);
    drop(network);
    slow.serve_to_the_end();
}

/// Our standard input as the first client's connection; `/dev/null` takes its place, so that nothing we start can have it.
fn take_stdin() -> std::io::Result<UnixStream> {
    let stream = std::io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(null()?)?;
    Ok(UnixStream::from(stream))
}

fn null() -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, FileMode::empty())?)
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

fn join_network(
    dir: &ContainerDir,
    spec: &ContainerSpec,
    mode: &mut NetworkMode,
    warnings: &mut Vec<String>,
) -> Result<Option<network::Netns>, StartError> {
    let (run_dir, extra) = match &spec.network {
        NetworkRequest::Host => {
            *mode = NetworkMode::Host;
            return Ok(None);
        }
        NetworkRequest::None => {
            *mode = NetworkMode::None;
            return Ok(None);
        }
        NetworkRequest::Private { run_dir, extra_hosts } => (run_dir, extra_hosts),
    };
    let netns = match Network::open(run_dir).and_then(|network| network.acquire_on_only_thread()) {
        Ok(netns) => netns,
        Err(network::Error::Unavailable(why)) => {
            warnings.push(format!("{why}: using the host's network"));
            *mode = NetworkMode::Host;
            write_hosts(dir, spec, None, extra)?;
            return Ok(None);
        }
        Err(error) => return Err(StartError::Network(error)),
    };
    *mode = NetworkMode::Joined;
    write_hosts(dir, spec, Some(&netns), extra)?;
    Ok(Some(netns))
}

fn write_hosts(
    dir: &ContainerDir,
    spec: &ContainerSpec,
    netns: Option<&network::Netns>,
    extra: &[(String, HostAddress)],
) -> Result<(), Error> {
    let gateway = netns.map_or(IpAddr::from([127, 0, 0, 1]), |netns| netns.gateway().into());
    let extra: Vec<(String, IpAddr)> = extra
        .iter()
        .map(|(name, address)| match address {
            HostAddress::Address(address) => (name.clone(), *address),
            HostAddress::Gateway => (name.clone(), gateway),
        })
        .collect();
    let address = netns.map(|netns| netns.address().address.into());
    let path: &Path = &dir.file("hosts");
    // In place: the file may be mounted somewhere already. Every user of the container reads it.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    let written = std::fs::write(path, hosts_file(&spec.sandbox.hostname, address, &extra));
    written.and_then(|()| std::fs::set_permissions(path, readable)).map_err(Error::file("write", path))
}

/// The two sides of the container's standard streams.
struct Streams {
    inner: Stdio,
    outputs: Vec<Output>,
    input: Option<OwnedFd>,
}

impl Streams {
    fn new(spec: &ContainerSpec) -> std::io::Result<Streams> {
        if spec.tty {
            return Ok(Streams { inner: Stdio::Terminal, outputs: Vec::new(), input: None });
        }
        let (stdin, input) = match spec.stdin {
            StdinMode::Closed => (null()?, None),
            StdinMode::Once | StdinMode::Open => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                (read, Some(write))
            }
        };
        let (out, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let outputs = vec![Output { fd: out, stream: LogStream::Stdout }, Output { fd: err, stream: LogStream::Stderr }];
        Ok(Streams { inner: Stdio::Descriptors { stdin, stdout, stderr }, outputs, input })
    }
}
