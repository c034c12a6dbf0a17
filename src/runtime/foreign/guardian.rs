//! The guardian: the process that calls the other runtime, and is the parent of what that makes.

use std::convert::Infallible;
use std::io::{PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio as ProcessStdio;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::call::Caller;
use super::{ForeignRuntime, stage};
use crate::runtime::bundle::{Surroundings, planned_groups};
use crate::runtime::cgroup::{Cgroup, path_for_others};
use crate::runtime::error::Failure;
use crate::runtime::spec::{NetworkMode, ProcessSpec, SandboxSpec};
use crate::runtime::{Child, Error, SandboxIo, Stdio, init, launch, namespaces, reaper, terminal, wire};
use crate::sys::process::{exit_now, reset_signals};

/// The socket by which the other runtime hands a terminal over, in the directory that this process works in. By this name its path is short enough for an address.
const CONSOLE: &str = "console.sock";

/// How long a terminal may be on its way after the other runtime has said that all is well.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A container that another runtime is to run.
pub(in crate::runtime) struct Guarded<'a> {
    /// The other runtime.
    pub(in crate::runtime) runtime: &'a ForeignRuntime,
    /// The container's ID.
    pub(in crate::runtime) id: &'a str,
    /// What it is.
    pub(in crate::runtime) sandbox: &'a SandboxSpec,
    /// A directory of the container's own for the bundle. Outside of the guardian's namespace it stays empty.
    pub(in crate::runtime) dir: &'a Path,
    /// The file of this program, for an init; `None` where it is not known.
    pub(in crate::runtime) program: Option<&'a Path>,
    /// Where what the container writes to its standard error can be read.
    pub(in crate::runtime) stderr: Option<&'a OwnedFd>,
}

/// Starts a container by the other runtime; returns when its command runs. The caller must have a single thread.
pub(in crate::runtime) fn start(guarded: &Guarded<'_>, io: SandboxIo) -> Result<Child, Error> {
    let setup = |step: &str, path: String| {
        let step = step.to_owned();
        move |source| Error::Setup { step, path, source }
    };
    guarded.sandbox.apparmor.ready()?;
    std::fs::create_dir_all(guarded.dir).map_err(setup("make", guarded.dir.display().to_string()))?;
    let (usage, writer) = std::io::pipe().map_err(setup("make", "a pipe".to_owned()))?;
    let cgroups_path = path_for_others(guarded.sandbox.cgroup.as_ref(), guarded.id);
    let groups = Cgroup::adopt(planned_groups(&cgroups_path));
    let flags = (libc::CLONE_NEWNS | libc::CLONE_NEWPID) as u64;
    launch::launch_other(flags, Some(groups), Some(usage), io, |io, groups, status| {
        guard(guarded, io, groups, &cgroups_path, writer, status)
    })
}

/// The guardian's life.
fn guard(
    guarded: &Guarded<'_>,
    io: SandboxIo,
    groups: Option<&Cgroup>,
    cgroups_path: &str,
    mut usage: PipeWriter,
    status: &OwnedFd,
) -> Result<Infallible, Failure> {
    init::die_with_parent(status)?;
    reset_signals().map_err(Failure::step("reset", "signals"))?;
    let _ = rustix::thread::set_name(c"strake-guardian");
    let Guarded { runtime, id, sandbox, dir, program, .. } = guarded;
    let SandboxIo { stdio, netns, shared, .. } = io;
    namespaces::enter_shared(&shared)?;
    let tty = matches!(stdio, Stdio::Terminal);
    let network = match (sandbox.network, &netns) {
        (NetworkMode::Joined, None) => return Err(Failure::Invalid { spec: false }),
        // Not a namespace that this process is in: some runtimes take that for the host's.
        (NetworkMode::Joined, Some(netns)) => Some(format!("/proc/1/fd/{}", netns.as_raw_fd())),
        (NetworkMode::None, _) => Some(String::new()),
        (NetworkMode::Host, _) => None,
    };
    let staged = stage::mount(sandbox, dir, shared.shm, *program)?;
    let surroundings = Surroundings {
        tty,
        cgroups_path,
        sources: &staged.sources,
        shm: staged.shm.as_deref(),
        init: staged.init.as_deref().map(|program| (program, super::init::PLACE)),
        network: network.as_deref(),
    };
    let mut inner = (*sandbox).clone();
    if inner.init {
        inner.process.args = super::init::in_front_of(&inner.process.args);
    }
    stage::write_config(&inner, dir, &surroundings)?;
    rustix::process::chdir(*dir).map_err(Failure::step("enter", dir.display()))?;
    let command = sandbox.process.args.first().map(|word| word.to_string_lossy()).unwrap_or_default();
    let caller = Caller { runtime, records: dir, work: dir, command: &command };
    let console = Console::listen(tty, "/proc/1/cwd")?;
    let mut create = caller.verb("create");
    create.arg("--bundle").arg(dir).arg("--pid-file").arg(dir.join(PID));
    if let Some(console) = &console {
        create.arg("--console-socket").arg(&console.path);
    }
    let said = streams(&mut create, stdio, guarded.stderr)?;
    caller.run("create", create.arg(id), said.as_ref())?;
    // Our copies of the container's streams.
    drop(create);
    if let Some(console) = console {
        console.pass_on(&caller, &sandbox.process, status)?;
    }
    let process = hand_over(&caller, status)?;
    let (said, stderr) = std::io::pipe().map_err(Failure::step("make", "a pipe"))?;
    caller.run("start", caller.verb("start").stderr(stderr).arg(id), Some(&said.into()))?;
    // Closes nearly everything, also the status: the container runs.
    let code = reaper::wait_for(process, &[usage.as_fd()]);
    for _ in 0..3 {
        // The lowest free numbers: the streams of what is called from here on.
        std::mem::forget(rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty()));
    }
    // The groups are gone after the next call.
    let used = groups.map_or((None, false), Cgroup::memory_usage);
    let _ = usage.write_all(&serde_json::to_vec(&used).unwrap_or_default());
    let _ = caller.verb("delete").args(["--force", id]).status();
    exit_now(code)
}

/// The name of the file with the number of the process that the other runtime has made.
pub(super) const PID: &str = "pid";

/// Gives the call the container's streams. Gives where to read what the runtime writes to its standard error.
fn streams(create: &mut std::process::Command, stdio: Stdio, stderr: Option<&OwnedFd>) -> Result<Option<OwnedFd>, Failure> {
    match stdio {
        Stdio::Descriptors { stdin, stdout, stderr: error } => {
            create.stdin(stdin).stdout(stdout).stderr(error);
            Ok(stderr.and_then(|fd| fd.try_clone().ok()))
        }
        Stdio::Terminal => {
            let (said, theirs) = std::io::pipe().map_err(Failure::step("make", "a pipe"))?;
            create.stderr(ProcessStdio::from(theirs));
            Ok(Some(said.into()))
        }
    }
}

/// Hands a descriptor of the process that the other runtime has made to the supervisor. Gives the process's number.
pub(super) fn hand_over(caller: &Caller<'_>, status: &OwnedFd) -> Result<u32, Failure> {
    let text = std::fs::read_to_string(caller.work.join(PID)).unwrap_or_default();
    let number = text.trim().parse().ok().and_then(Pid::from_raw);
    let process = number.ok_or_else(|| caller.broken("made no process: its --pid-file holds no number"))?;
    let pidfd = pidfd_open(process, PidfdFlags::empty()).map_err(Failure::step("open", "the container's process"))?;
    let failed = || Failure::step::<std::io::Error>("hand over", "the container's process");
    wire::send(status.as_fd(), launch::PROCESS, &[pidfd.as_fd()]).map_err(failed())?;
    // One that is short-lived must not be reaped before the other side knows its number.
    wire::receive(status.as_fd(), launch::PROCESS.len()).map_err(failed())?;
    Ok(process.as_raw_nonzero().get().cast_unsigned())
}

/// Where the other runtime connects to hand a terminal over.
pub(super) struct Console {
    listener: UnixListener,
    pub(super) path: String,
}

impl Console {
    /// Listens in the directory that this process is in, which `directory` is a short name of; `None` where no terminal is wanted.
    pub(super) fn listen(wanted: bool, directory: &str) -> Result<Option<Console>, Failure> {
        if !wanted {
            return Ok(None);
        }
        let listener = UnixListener::bind(CONSOLE).map_err(Failure::step("make", CONSOLE))?;
        Ok(Some(Console { listener, path: format!("{directory}/{CONSOLE}") }))
    }

    /// Takes the terminal, and hands it to the supervisor.
    pub(super) fn pass_on(self, caller: &Caller<'_>, process: &ProcessSpec, status: &OwnedFd) -> Result<(), Failure> {
        let failed = || Failure::step::<std::io::Error>("take", "the terminal");
        let lacking = || caller.broken("handed no terminal over to its --console-socket");
        if !readable(self.listener.as_fd()) {
            return Err(lacking());
        }
        let (stream, _) = self.listener.accept().map_err(failed())?;
        if !readable(stream.as_fd()) {
            return Err(lacking());
        }
        let received = wire::receive(stream.as_fd(), 4096).map_err(failed())?;
        let theirs = received.and_then(|(_, mut descriptors)| descriptors.pop()).ok_or_else(lacking)?;
        if let Some(size) = process.terminal {
            let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
            let _ = rustix::termios::tcsetwinsize(&theirs, size);
        }
        wire::send(status.as_fd(), terminal::TERMINAL, &[theirs.as_fd()]).map_err(failed())
    }
}

fn readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&PATIENCE)).is_ok_and(|ready| ready > 0)
}
