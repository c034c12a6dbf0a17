//! Making a container of a bundle, and further commands in it: the side of the caller.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::cgroups::Groups;
use super::config::{Config, Process, Resources};
use super::init::{self, GO, MAX_MESSAGE, Message, New, Setup};
use super::namespaces::{Namespaces, map_ids};
use super::process::{FIRST_PASSED, Plan};
use super::state::{Containers, Dir, ProcessName, Record, Report, Status, parse, replace};
use super::systemd::{SystemdManager, Unit};
use super::{Error, check, filesystem, hooks, id_mapped, listener, net_devices, resources, scheduling, systemd};
use crate::runtime::container::boot_id;
use crate::runtime::error::Failure;
use crate::runtime::{self, terminal, wire};
use crate::sys::process::{Cloned, clone_process, close_on_exec_from, exit_now, is_inherited, reap};

/// What `create` is asked for beyond the bundle.
#[derive(Clone, Debug, Default)]
pub struct CreateOptions {
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The file that gets the first process's number.
    pub pid_file: Option<PathBuf>,
    /// The socket that gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// The socket that gets a descriptor of the first process.
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors beyond the standard ones are passed on.
    pub preserve_fds: u32,
    /// How many of them are sockets that are listened at, for a command that a manager of services starts (`LISTEN_FDS`).
    pub listen_fds: u32,
    /// Whether the root is changed instead of exchanged.
    pub no_pivot: bool,
    /// Whether the caller's keys stay in reach.
    pub no_new_keyring: bool,
    /// Who makes the control group, if it is systemd.
    pub systemd: Option<SystemdManager>,
}

/// A process that was made, and what should be said about it.
#[derive(Debug)]
pub struct Made {
    /// Its number, as the host sees it. It is a child of this process.
    pub pid: u32,
    /// What of its config was not done.
    pub warnings: Vec<String>,
    /// Its terminal, where nobody else was to get it.
    pub terminal: Option<OwnedFd>,
}

/// The side of the caller while a process is made.
struct Conversation<'a> {
    socket: OwnedFd,
    first: u32,
    init: Option<u32>,
    console: Option<UnixStream>,
    terminal: Option<OwnedFd>,
    config: &'a Config,
    /// The state as hooks get it; only of a new container.
    state: Option<Report>,
}

/// Makes a container, whose first process waits for [`start`](super::start). This process must have one thread; it becomes the parent of what it makes.
///
/// # Errors
/// The bundle makes no sense, or what it asks for cannot be had. Then nothing is left of it.
pub fn create(containers: &Containers, id: &str, options: &CreateOptions) -> Result<Made, Error> {
    let bundle = options.bundle.canonicalize().map_err(Error::file("open the bundle", &options.bundle))?;
    let path = bundle.join("config.json");
    let config: Config = parse(&path, &std::fs::read(&path).map_err(Error::file("read", &path))?)?;
    let process = config.process.as_ref().ok_or_else(|| Error::invalid("process", "it is missing"))?;
    check::check(&config)?;
    let rootfs = rootfs(&bundle, &config)?;
    let (mut plan, warnings) = Plan::new(process, &config)?;
    plan.preserve_fds = passed_on(options.preserve_fds, options.listen_fds)?;
    if options.listen_fds > 0 {
        plan.add_listen_fds(options.listen_fds);
    }
    plan.keep_keyring = options.no_new_keyring;
    let namespaces = Namespaces::open(&config)?;
    let console = console(plan.terminal, options.console_socket.as_deref())?;
    let dir = containers.claim(id)?;
    let mut record = Record {
        id: id.to_owned(),
        rootfs,
        annotations: config.annotations.clone(),
        created: jiff::Timestamp::now().to_string(),
        owner: rustix::process::getuid().as_raw(),
        boot_id: boot_id(),
        creator: ProcessName::of(std::process::id()).unwrap_or(ProcessName { pid: 0, start_ticks: 0 }),
        init: None,
        groups: Groups::default(),
        bundle,
    };
    let made = make(&dir, &mut record, &config, plan, namespaces, console, options);
    match made {
        Ok((pid, terminal)) => Ok(Made { pid, warnings, terminal }),
        Err(error) => {
            // The failure matters more than what may be left of the container, or what the hooks say.
            let _ = record.groups.destroy();
            let _ = dir.remove();
            // What hooks have made so far, others take back: the life of a container ends with them however it ends (runtime.md, "Lifecycle").
            hooks::run_all("poststop", &config.hooks.poststop, &record.report(Status::Stopped, 0));
            Err(error)
        }
    }
}

fn make(
    dir: &Dir,
    record: &mut Record,
    config: &Config,
    mut plan: Plan,
    namespaces: Namespaces,
    console: Option<UnixStream>,
    options: &CreateOptions,
) -> Result<(u32, Option<OwnedFd>), Error> {
    let none = Resources::default();
    let limits = config.linux.resources.as_ref().unwrap_or(&none);
    record.groups = match &options.systemd {
        Some(manager) => Groups::of_unit(Unit::plan(manager, &config.linux.cgroups_path, &record.id)?)?,
        None => Groups::plan(&config.linux.cgroups_path, &record.id)?,
    };
    dir.write_config(config)?;
    dir.write_record(record)?;
    let properties = match &record.groups.unit {
        Some(_) => [resources::properties(limits)?, systemd::of_annotations(config.annotations.iter())?].concat(),
        None => {
            record.groups.make(!resources::has_limits(limits))?;
            resources::apply(&record.groups, limits, true)?;
            Vec::new()
        }
    };
    let listener = dir.listen()?;
    let (bundle, rootfs, groups) = (record.bundle.clone(), record.rootfs.clone(), record.groups.clone());
    let filesystem = filesystem::Plan {
        config,
        bundle: &bundle,
        rootfs: &rootfs,
        groups: &groups,
        id_mapped: id_mapped::sources(config, &bundle)?,
        in_user_namespace: namespaces.has_users() || !crate::sys::privilege::in_initial_user_namespace(),
    };
    let state = record.report(Status::Creating, 0);
    if let Some(listener) = &mut plan.listener {
        listener.state = Some(state.clone());
    }
    let new = New { config, filesystem, state: state.clone(), listener, no_pivot: options.no_pivot };
    let (first, socket) = begin(|socket| Setup { namespaces, plan, socket, new: Some(new) })?;
    let mut conversation = Conversation { socket, first, init: None, console, terminal: None, config, state: Some(state) };
    let joined = match &record.groups.unit {
        // A scope begins with the processes that are in it.
        Some(unit) => unit.start(first, properties).and_then(|()| {
            record.groups.clone().make(false)?;
            resources::apply(&record.groups, limits, true)
        }),
        None => record.groups.join(first),
    };
    let made = joined.and_then(|()| conversation.run()).and_then(|pid| {
        record.init = ProcessName::of(pid);
        dir.write_record(record)?;
        if let Some(path) = &options.pid_file {
            replace(path, pid.to_string().as_bytes(), 0o644)?;
        }
        hand_over_process(options.pidfd_socket.as_deref(), pid)?;
        conversation.go()?;
        Ok(pid)
    });
    if made.is_err() {
        conversation.end();
    }
    made.map(|pid| (pid, conversation.terminal))
}

/// What `exec` is asked for.
#[derive(Clone, Debug, Default)]
pub struct ExecOptions {
    /// The file that gets the process's number.
    pub pid_file: Option<PathBuf>,
    /// The socket that gets the terminal.
    pub console_socket: Option<PathBuf>,
    /// The socket that gets a descriptor of the process.
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors beyond the standard ones are passed on.
    pub preserve_fds: u32,
    /// In which control groups below the container's it is: `PATH`, or `CONTROLLER[,…]:PATH`.
    pub cgroups: Vec<String>,
    /// Whether it waits in a container that is paused.
    pub ignore_paused: bool,
}

/// Runs one more process in a container; returns when its command runs. This process must have one thread; it becomes the parent of what it makes.
///
/// # Errors
/// The container does not run, or the process cannot be made.
pub fn exec(containers: &Containers, id: &str, process: &Process, options: &ExecOptions) -> Result<Made, Error> {
    let dir = containers.find(id)?;
    let not_running = || Error::NotRunning(id.to_owned());
    let record = dir.record()?.ok_or_else(not_running)?;
    let (status, handle) = dir.status(&record);
    match status {
        Status::Running | Status::Created => {}
        Status::Paused if options.ignore_paused => {}
        Status::Stopped => return Err(not_running()),
        Status::Paused | Status::Creating => {
            return Err(Error::WrongStatus { verb: "execute a command in", id: id.to_owned(), status: status.name() });
        }
    }
    let init = record.init.ok_or_else(not_running)?;
    let config = dir.config()?;
    let (mut plan, warnings) = Plan::new(process, &config)?;
    let groups = record.groups.below(&options.cgroups)?;
    plan.preserve_fds = passed_on(options.preserve_fds, 0)?;
    let namespaces = Namespaces::of_process(init.pid)?;
    // Held while its namespaces were opened, so they are its own.
    drop(handle.ok_or_else(not_running)?);
    if init.open().is_none() {
        return Err(not_running());
    }
    let console = console(plan.terminal, options.console_socket.as_deref())?;
    let affinity = process.exec_cpu_affinity.as_ref().or(config.process.as_ref().and_then(|own| own.exec_cpu_affinity.as_ref()));
    plan.affinity = scheduling::affinity(affinity)?;
    if let Some(listener) = &mut plan.listener {
        listener.state = Some(record.report(status, init.pid));
        listener.program = Some(listener::connect(&listener.path)?);
    }
    // The process begins with those of this one.
    plan.affinity.at_first().map_err(runtime::Error::from)?;
    let (first, socket) = begin(|socket| Setup { namespaces, plan, socket, new: None })?;
    let mut conversation = Conversation { socket, first, init: None, console, terminal: None, config: &config, state: None };
    let made = groups.join(first).and_then(|()| conversation.run()).and_then(|pid| {
        if let Some(path) = &options.pid_file {
            replace(path, pid.to_string().as_bytes(), 0o644)?;
        }
        hand_over_process(options.pidfd_socket.as_deref(), pid)?;
        Ok(pid)
    });
    if made.is_err() {
        conversation.end();
    }
    made.map(|pid| Made { pid, warnings, terminal: conversation.terminal })
}

/// How many descriptors beyond the standard ones are passed on to the command, all of which are open. Until it is executed they are kept from other programs, as hooks.
fn passed_on(preserved: u32, listened: u32) -> Result<u32, Error> {
    let wrong = |what: String| {
        Error::Unsupported(format!("cannot pass descriptors on (`--preserve-fds={preserved}`, `LISTEN_FDS={listened}`): {what}"))
    };
    let number = preserved.checked_add(listened).filter(|number| number.checked_add(FIRST_PASSED).is_some());
    let number = number.ok_or_else(|| wrong("there are not so many".to_owned()))?;
    if let Some(closed) = (FIRST_PASSED..FIRST_PASSED + number).find(|number| !is_inherited(*number)) {
        return Err(wrong(format!("this process was not given descriptor {closed}")));
    }
    close_on_exec_from(FIRST_PASSED).map_err(Error::kernel("keep descriptors from hooks"))?;
    Ok(number)
}

/// The process of `exec` as arguments say it, with what they do not say as the container's own has it.
///
/// # Errors
/// There is no such container.
pub fn process_of(containers: &Containers, id: &str) -> Result<Process, Error> {
    Ok(containers.find(id)?.config()?.process.unwrap_or_default())
}

fn rootfs(bundle: &Path, config: &Config) -> Result<PathBuf, Error> {
    let root = config.root.as_ref().filter(|root| !root.path.is_empty()).ok_or_else(|| Error::invalid("root.path", "it is missing"))?;
    let path = bundle.join(&root.path);
    let path = path.canonicalize().map_err(Error::file("open the root file system", &path))?;
    if path.is_dir() { Ok(path) } else { Err(Error::invalid("root.path", format!("`{}` is not a directory", path.display()))) }
}

/// Sends a descriptor of a child of this process to who listens at that socket.
fn hand_over_process(socket: Option<&Path>, pid: u32) -> Result<(), Error> {
    let Some(path) = socket else { return Ok(()) };
    let step = || Error::file("hand the process over to", path);
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).ok_or_else(|| step()(io::ErrorKind::InvalidInput.into()))?;
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).map_err(|errno| step()(errno.into()))?;
    let stream = UnixStream::connect(path).map_err(step())?;
    wire::send(stream.as_fd(), b"pidfd", &[process.as_fd()]).map_err(step())
}

fn console(terminal: bool, socket: Option<&Path>) -> Result<Option<UnixStream>, Error> {
    match (terminal, socket) {
        (true, Some(path)) => UnixStream::connect(path).map(Some).map_err(Error::file("connect to the console socket", path)),
        (true, None) => Ok(None),
        (false, Some(_)) => Err(Error::invalid("process.terminal", "a console socket is given, but the process has no terminal")),
        (false, None) => Ok(None),
    }
}

/// Clones the first process, which gets the other end of the socket that is returned. What becomes of the container later is a child of this one, which takes in what its children leave.
fn begin<'a>(setup: impl FnOnce(OwnedFd) -> Setup<'a>) -> Result<(u32, OwnedFd), Error> {
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(Error::kernel("make a socket"))?;
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).map_err(Error::kernel("become the parent of the container"))?;
    match clone_process(0, None).map_err(Error::kernel("clone the container's first process"))? {
        Cloned::Child => {
            // With a copy of this end, it would not hear that this process is gone.
            drop(ours);
            init::first(setup(theirs))
        }
        Cloned::Parent { pid, .. } => Ok((pid, ours)),
    }
}

impl Conversation<'_> {
    /// Serves the processes until all is set up, or for `exec` until the command runs; gives the one that counts.
    fn run(&mut self) -> Result<u32, Error> {
        self.go()?;
        let mut wants_devices = false;
        loop {
            // Who speaks may be heard before who tells of it.
            if wants_devices && let Some(pid) = self.init {
                net_devices::give(&self.config.linux.net_devices, pid)?;
                self.go()?;
                wants_devices = false;
            }
            let received =
                wire::receive(self.socket.as_fd(), MAX_MESSAGE).map_err(Error::kernel("hear from the container's init process"))?;
            let Some((message, mut descriptors)) = received else {
                // The stream's end tells of an execution.
                return self.init.filter(|_| self.state.is_none()).ok_or(Error::InitEnded);
            };
            if message == terminal::TERMINAL {
                self.take_terminal(descriptors.pop())?;
                continue;
            }
            match serde_json::from_slice(&message) {
                Ok(Message::Map) => {
                    map_ids(self.first, &self.config.linux.uid_mappings, &self.config.linux.gid_mappings)?;
                    self.go()?;
                }
                Ok(Message::Init(pid)) => {
                    self.init = Some(pid);
                    let _ = reap(self.first);
                }
                Ok(Message::Devices) => wants_devices = true,
                Ok(Message::Hooks) => {
                    self.run_hooks()?;
                    self.go()?;
                }
                Ok(Message::Open(path)) => self.open(&path)?,
                Ok(Message::Ready) => return self.init.ok_or(Error::InitEnded),
                Ok(Message::Failed(failure)) => return Err(runtime::Error::from(failure).into()),
                Ok(Message::Hook(moment, path, reason)) => return Err(Error::Hook { moment, path, reason }),
                Ok(Message::Started | Message::Program(_)) | Err(_) => {
                    return Err(runtime::Error::from(Failure::Clone { errno: libc::EPROTO }).into());
                }
            }
        }
    }

    fn go(&self) -> Result<(), Error> {
        match wire::send(self.socket.as_fd(), GO, &[]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Error::InitEnded),
            other => other.map_err(Error::kernel("tell the container's init process")),
        }
    }

    /// Opens a path in the mount namespace of the container's first process, by a child that enters it, and hands it over; nothing where it cannot be opened.
    fn open(&self, path: &Path) -> Result<(), Error> {
        let namespace = format!("/proc/{}/ns/mnt", self.init.unwrap_or(self.first));
        let step = || Error::kernel("open a mount source in the container's mount namespace");
        match clone_process(0, None).map_err(step())? {
            Cloned::Child => {
                let found = std::fs::File::open(namespace).ok().and_then(|namespace| {
                    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount)).ok()?;
                    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
                });
                let found: Vec<_> = found.iter().map(AsFd::as_fd).collect();
                let _ = wire::send(self.socket.as_fd(), GO, &found);
                exit_now(0)
            }
            Cloned::Parent { pid, .. } => match reap(pid).map_err(step())?.status {
                Ok(0) => Ok(()),
                // It was killed before it could answer.
                _ => self.go(),
            },
        }
    }

    fn run_hooks(&self) -> Result<(), Error> {
        let Some(state) = &self.state else { return Ok(()) };
        let state = Report { pid: self.init.unwrap_or(0), ..state.clone() };
        hooks::run("prestart", &self.config.hooks.prestart, &state)?;
        hooks::run("createRuntime", &self.config.hooks.create_runtime, &state)
    }

    /// Hands the terminal to who asked for it.
    fn take_terminal(&mut self, terminal: Option<OwnedFd>) -> Result<(), Error> {
        let (Some(terminal), Some(console)) = (&terminal, &self.console) else {
            self.terminal = terminal;
            return Ok(());
        };
        wire::send(console.as_fd(), b"/dev/ptmx", &[terminal.as_fd()]).map_err(Error::kernel("hand over the terminal"))
    }

    /// Ends what was begun.
    fn end(&self) {
        for pid in [Some(self.first), self.init].into_iter().flatten() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) {
                // Both are children of this process, so nobody else has their numbers.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            let _ = reap(pid);
        }
    }
}
