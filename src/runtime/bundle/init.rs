//! What happens in a bundle's container between its birth and its command.
//!
//! ```text
//!   create                                 first                           init (the container's first process)
//!     |-- clone ---------------------------->|
//!     |-- Go (it is in the groups) --------->| joins namespaces
//!     |<- Map, -> Go (IDs are mapped) -------| makes namespaces
//!     |<- Init(pid) -------------------------|-- clone ------------------->|
//!     |                                      ends                          |
//!     |<- Devices, -> Go (network devices have moved in) ------------------| mounts, devices
//!     |<- Hooks, -> Go (prestart, createRuntime have run) -----------------| createContainer hooks
//!     |<- the terminal ----------------------------------------------------| root, terminal, is the command there?
//!     |<- Ready, -> Go (it is on record) ----------------------------------|
//!   start                                                                  | waits at the socket
//!     |-- connect, Start ------------------------------------------------->|
//!     |<- Started ---------------------------------------------------------| startContainer hooks, credentials
//!     |<- Program, -> Go (connected to who is asked about system calls) ----|
//!     |<- Failed, or the end of the stream --------------------------------| execve
//! ```
//!
//! `exec` is the same without mounts and hooks: its stream ends when the command runs. Whoever loses the other side ends: a `create` that is killed leaves no process.

use std::convert::Infallible;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, move_mount};
use rustix::net::{SocketFlags, accept_with};
use rustix::process::DumpableBehavior;
use serde::{Deserialize, Serialize};

use super::config::{Config, Hook};
use super::namespaces::Namespaces;
use super::process::Plan;
use super::state::{Report, Status};
use super::{filesystem, hooks};
use crate::runtime::error::Failure;
use crate::runtime::terminal::{Console, Streams};
use crate::runtime::{Stdio, rootfs, wire};
use crate::sys::process::{Cloned, bring_loopback_up, clone_process, exit_now};
use crate::sys::signals::SignalPipe;

/// The most that one message has.
pub(super) const MAX_MESSAGE: usize = 64 << 10;

/// What the container's processes say.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// The IDs of the new user namespace are to be mapped.
    Map,
    /// The container's first process.
    Init(u32),
    /// The network devices are to be moved in.
    Devices,
    /// The hooks of this moment are to be run.
    Hooks,
    /// A path of the host is to be opened, which this process may not reach: in its own mount namespace.
    Open(PathBuf),
    /// Who is asked about system calls is to be connected to, at this socket.
    Program(PathBuf),
    /// All is set up.
    Ready,
    /// `start` has been heard.
    Started,
    /// It cannot go on.
    Failed(Failure),
    /// A hook failed: moment, program, reason.
    Hook(String, String, String),
}

/// What they wait for.
pub(super) const GO: &[u8] = b"go";
/// What `start` says.
pub(super) const START: &[u8] = b"start";

/// Everything that the first processes need.
pub(super) struct Setup<'a> {
    pub(super) namespaces: Namespaces,
    pub(super) plan: Plan,
    pub(super) socket: OwnedFd,
    /// What makes it a new container; without it, the command enters one.
    pub(super) new: Option<New<'a>>,
}

/// What only a new container has.
pub(super) struct New<'a> {
    pub(super) config: &'a Config,
    pub(super) filesystem: filesystem::Plan<'a>,
    /// The state as hooks get it.
    pub(super) state: Report,
    /// Where it waits for `start`.
    pub(super) listener: OwnedFd,
    /// Whether the root is changed instead of exchanged.
    pub(super) no_pivot: bool,
}

/// Sends a message; a side that is gone does not hear it.
pub(super) fn say(socket: BorrowedFd<'_>, message: &Message) {
    if let Ok(bytes) = serde_json::to_vec(message) {
        let _ = wire::send(socket, &bytes, &[]);
    }
}

/// The first process that is cloned. Never returns.
pub(super) fn first(setup: Setup<'_>) -> ! {
    let socket = setup.socket.as_fd();
    match enter(&setup) {
        Ok(Cloned::Parent { pid, .. }) => {
            say(socket, &Message::Init(pid));
            exit_now(0)
        }
        Ok(Cloned::Child) => init(setup),
        Err(failure) => {
            say(socket, &Message::Failed(failure));
            exit_now(1)
        }
    }
}

fn enter(setup: &Setup<'_>) -> Result<Cloned, Failure> {
    let socket = setup.socket.as_fd();
    wait_for_go(socket);
    setup.plan.affinity.in_the_group()?;
    if let Some(score) = setup.plan.spec.oom_score_adjust {
        const FILE: &str = "/proc/self/oom_score_adj";
        std::fs::write(FILE, score.to_string()).map_err(Failure::step("write", FILE))?;
    }
    setup.namespaces.enter(|| {
        say(socket, &Message::Map);
        wait_for_go(socket);
        Ok(())
    })?;
    clone_process(0, None).map_err(Failure::step("fork", "into the namespaces"))
}

/// Has the other side open something that this process may not reach, which has more rights outside of the container than its root.
fn ask(socket: BorrowedFd<'_>, message: &Message) -> Option<OwnedFd> {
    say(socket, message);
    match wire::receive(socket, MAX_MESSAGE) {
        Ok(Some((message, mut descriptors))) if message == GO => descriptors.pop(),
        _ => exit_now(1),
    }
}

/// Waits until the other side lets this one go on; ends where that is gone.
fn wait_for_go(socket: BorrowedFd<'_>) {
    match wire::receive(socket, MAX_MESSAGE) {
        Ok(Some((message, _))) if message == GO => {}
        _ => exit_now(1),
    }
}

fn init(setup: Setup<'_>) -> ! {
    // Nothing that runs in the container may look into this process while it still holds what is the host's.
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Failure::step("hide", "the init process"));
    let Setup { namespaces, mut plan, socket, new } = setup;
    let Err(failure) = hidden.and_then(|()| match new {
        Some(new) => become_container(&namespaces, &mut plan, socket.as_fd(), new),
        None => become_exec(&mut plan, socket.as_fd()),
    });
    say(socket.as_fd(), &Message::Failed(failure));
    exit_now(1)
}

/// The standard streams: those of the caller, or a terminal that is still to be made.
fn streams(terminal: bool) -> Result<Streams, Failure> {
    let fail = || Failure::step::<std::io::Error>("copy", "standard streams");
    let stdio = match terminal {
        true => Stdio::Terminal,
        false => Stdio::Descriptors {
            stdin: rustix::stdio::stdin().try_clone_to_owned().map_err(fail())?,
            stdout: rustix::stdio::stdout().try_clone_to_owned().map_err(fail())?,
            stderr: rustix::stdio::stderr().try_clone_to_owned().map_err(fail())?,
        },
    };
    Streams::prepare(stdio)
}

fn become_exec(plan: &mut Plan, socket: BorrowedFd<'_>) -> Result<Infallible, Failure> {
    let streams = streams(plan.terminal)?.open_terminal(&plan.spec, socket, Console::Keep)?;
    streams.install(&plan.spec)?;
    plan.add_home();
    plan.become_command(socket)
}

fn become_container(namespaces: &Namespaces, plan: &mut Plan, socket: BorrowedFd<'_>, new: New<'_>) -> Result<Infallible, Failure> {
    let New { config, filesystem, mut state, listener, no_pivot } = new;
    if !config.linux.net_devices.is_empty() {
        // Kernel parameters and hooks find them.
        say(socket, &Message::Devices);
        wait_for_go(socket);
    }
    set_names(namespaces, config)?;
    let streams = streams(plan.terminal)?;
    let root = filesystem.apply(&|path| ask(socket, &Message::Open(path.to_owned())))?;
    if !config.hooks.prestart.is_empty() || !config.hooks.create_runtime.is_empty() {
        say(socket, &Message::Hooks);
        wait_for_go(socket);
    }
    state.pid = std::process::id();
    if !config.hooks.create_container.is_empty() {
        // As other runtimes have it: they find the container's root, with all that is mounted in it, where the bundle has it, and are there.
        let place = Path::new(&state.bundle).join(config.root.as_ref().map_or("", |root| root.path.as_str()));
        move_mount(&root.dir, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(Failure::step("move the root to", place.display()))?;
        run_hooks("createContainer", &config.hooks.create_container, &state, &place, socket);
    }
    if no_pivot {
        filesystem::enter_by_chroot(&root.dir)?
    } else {
        rootfs::pivot(&root.dir)?
    }
    filesystem::propagate(config)?;
    let streams = streams.open_terminal(&plan.spec, socket, Console::Replace)?;
    root.finish(config.root.as_ref().is_some_and(|root| root.readonly))?;
    streams.install(&plan.spec)?;
    plan.add_home();
    plan.check()?;
    // Before `create` is told: who has made the container may send a signal at once.
    let signals = SignalPipe::install(&ENDING).map_err(Failure::step("catch", "signals"))?;
    say(socket, &Message::Ready);
    wait_for_go(socket);
    let starter = wait_for_start(&listener, signals)?;
    let mut run = || {
        state.status = Status::Created;
        say(starter.as_fd(), &Message::Started);
        // Their programs are the container's, so they have its environment where they have none of their own.
        let mut hooks = config.hooks.start_container.clone();
        let environment = config.process.as_ref().map_or(&[][..], |process| &process.env);
        for hook in &mut hooks {
            hook.env.get_or_insert_with(|| environment.to_vec());
        }
        run_hooks("startContainer", &hooks, &state, Path::new(&state.bundle), starter.as_fd());
        if let Some(listener) = &mut plan.listener {
            listener.program = ask(starter.as_fd(), &Message::Program(listener.path.clone())).map(UnixStream::from);
        }
        plan.become_command(starter.as_fd())
    };
    let Err(failure) = run();
    say(starter.as_fd(), &Message::Failed(failure));
    exit_now(1)
}

/// Runs hooks in the container's namespaces, in the directory `place`; ends where one fails.
fn run_hooks(moment: &str, list: &[Hook], state: &Report, place: &Path, socket: BorrowedFd<'_>) {
    match hooks::run_in(place, moment, list, state) {
        Ok(()) => {}
        Err(super::Error::Hook { moment, path, reason }) => {
            say(socket, &Message::Hook(moment, path, reason));
            exit_now(1)
        }
        Err(_) => exit_now(1),
    }
}

fn set_names(namespaces: &Namespaces, config: &Config) -> Result<(), Failure> {
    if namespaces.makes(libc::CLONE_NEWNET) {
        // A network namespace without `lo` up is still no network.
        let _ = bring_loopback_up();
    }
    if !config.hostname.is_empty() {
        rustix::system::sethostname(config.hostname.as_bytes()).map_err(Failure::step("set the host name", &config.hostname))?;
    }
    if !config.domainname.is_empty() {
        rustix::system::setdomainname(config.domainname.as_bytes()).map_err(Failure::step("set the domain name", &config.domainname))?;
    }
    Ok(())
}

/// What ends a container that waits for its start. No signal ends a first process unless it catches it.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];

/// Waits for who starts the command, or for a signal that ends this process.
fn wait_for_start(listener: &OwnedFd, signals: SignalPipe) -> Result<OwnedFd, Failure> {
    let fail = || Failure::step::<rustix::io::Errno>("wait for", "the start");
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.map_err(fail())?,
        };
        if let Some(signal) = signals.take() {
            exit_now(128 + signal);
        }
        // Who only asks whether this process waits says nothing.
        if let Ok(starter) = accept_with(listener, SocketFlags::CLOEXEC)
            && let Ok(Some((message, _))) = wire::receive(starter.as_fd(), MAX_MESSAGE)
            && message == START
        {
            return Ok(starter);
        }
    }
}
