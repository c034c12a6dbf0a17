//! Starting a sandbox from a process with a single thread, and being its parent.
//!
//! [`begin`] returns as soon as init exists, so that one process can have many sandboxes on their way; [`launch`] waits until the command runs.

use std::convert::Infallible;
use std::io::PipeReader;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::cgroup::Cgroup;
use super::error::Failure;
use super::io::Stdio;
use super::namespaces::{PidNamespace, must_own_parameters};
use super::spec::{Isolation, NetworkMode};
use super::{
    Error, Exit, ExitStatus, Result, SandboxIo, SandboxSpec, device_rules, fuse, init, situation, terminal, users, warden, wire, world,
};
use crate::sys::RootfsMount;
use crate::sys::process::{Cloned, ProcessIo, clone_process, reap, signal_pidfd, wait_for_end};

/// Long enough for any failure: paths are bounded by the kernel.
const MAX_STATUS: usize = 64 << 10;

/// A sandbox that this process is the parent of. Dropping it kills the sandbox.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    cgroup: Option<Cgroup>,
    /// The process that counts, where this one is only its parent and ends as it does.
    process: Option<(u32, OwnedFd)>,
    /// The end of a connection whose closing tells that parent to end everything, where it is a [`warden`].
    life: Option<OwnedFd>,
    /// Where that parent leaves what its control groups counted, before they are removed.
    usage: Option<PipeReader>,
    /// What went wrong after the end of the command, where that is known.
    failure: Option<Failure>,
    /// Whether its other processes outlive PID 1, so that they are killed by their group.
    outlived: bool,
    exit: Option<Exit>,
    /// The program that shows the root, where one does.
    server: Option<fuse::Server>,
}

/// A sandbox whose init is at work.
#[derive(Debug)]
pub(super) struct Starting {
    /// Closed before the child's end is waited for: a warden that was slower than its init to say something waits for the answer.
    status: OwnedFd,
    child: Child,
}

/// Where a start has got to.
pub(super) enum Progress {
    Starting(Starting),
    Running(Child),
    Failed(Failure),
}

/// Starts a sandbox and returns when its command runs. The caller must have a single thread (the [`Spawner`](super::Spawner) is for all others);
/// host paths in the spec are absolute.
pub fn launch(spec: &SandboxSpec, io: SandboxIo) -> Result<Child> {
    wait_started(begin(spec, io)?)
}

/// The message that carries a descriptor of the process that counts, and the answer to it.
pub(super) const PROCESS: &[u8] = b"process";

/// Starts a process with the life `life`, which is to be the parent of a sandbox that is made in another way: it sends what init sends (the terminal, a [`Failure`], or the
/// end of the stream when the command runs), and [`PROCESS`]. `cgroup` is what is removed after its end, and `usage` where it says what that has counted. The caller must have
/// a single thread.
pub(super) fn launch_other(
    namespaces: u64,
    cgroup: Option<Cgroup>,
    usage: Option<PipeReader>,
    io: SandboxIo,
    life: impl FnOnce(SandboxIo, Option<&Cgroup>, &OwnedFd) -> std::result::Result<Infallible, Failure>,
) -> Result<Child> {
    let fail = |errno: std::io::Error| Failure::Clone { errno: errno.raw_os_error().unwrap_or(libc::EIO) };
    let (status, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(|errno| fail(errno.into()))?;
    match clone_process(namespaces, None).map_err(fail)? {
        Cloned::Child => {
            drop(status);
            let Err(failure) = life(io, cgroup.as_ref(), &theirs);
            init::fail(&failure, &theirs)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            // With our copy of where `usage` is written to, whose end is waited for.
            drop(life);
            close_streams(io);
            let child = Child {
                pid,
                pidfd,
                terminal: None,
                cgroup,
                process: None,
                life: None,
                usage,
                failure: None,
                outlived: false,
                exit: None,
                server: None,
            };
            wait_started(Starting { child, status })
        }
    }
}

fn wait_started(starting: Starting) -> Result<Child> {
    let mut progress = Progress::Starting(starting);
    loop {
        progress = match progress {
            Progress::Starting(starting) => starting.advance(),
            Progress::Running(child) => return Ok(child),
            Progress::Failed(failure) => return Err(failure.into()),
        }
    }
}

/// Makes a sandbox's init.
pub(super) fn begin(spec: &SandboxSpec, mut io: SandboxIo) -> std::result::Result<Starting, Failure> {
    let fail = |errno: std::io::Error| Failure::Clone { errno: errno.raw_os_error().unwrap_or(libc::EIO) };
    let in_namespaces = spec.isolation == Isolation::Namespaces;
    if in_namespaces {
        if !situation::can_mount_roots() {
            return Err(Failure::no_sandbox());
        }
        io.mount_fds = world::copy_descriptors(spec, &io.mount_fds)?;
    }
    if io.join.is_none() {
        must_own_parameters(spec, io.netns.as_ref())?;
    }
    spec.apparmor.ready()?;
    // Compiled here, so that the next sandbox finds it: what init compiles is lost with it.
    let filter = init::filter(spec);
    let guarded = if in_namespaces && io.join.is_some() { None } else { warden::guarded(spec) };
    let (spec, is_guarded) = (guarded.as_ref().unwrap_or(spec), guarded.is_some());
    let outlived = io.join.is_none() && spec.namespaces.shares_processes();
    let mut cgroup = match io.join {
        None => {
            let devices = if in_namespaces { device_rules::of_sandbox(spec, io.users.is_some())? } else { None };
            Cgroup::prepare(spec.cgroup.as_ref(), outlived, devices.as_deref())?
        }
        Some(_) if in_namespaces => None,
        Some(_) => Some(Cgroup::existing(&io.join_cgroups)?),
    };
    let (status, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(|errno| fail(errno.into()))?;
    let mut server = None;
    if in_namespaces && io.join.is_none() && matches!(spec.rootfs, RootfsMount::Fuse { .. }) && io.users.is_none() {
        let (root, started) = fuse::serve(&spec.rootfs, false, spec.cgroup.as_ref())?;
        (io.root, server) = (Some(root), Some(started));
    }
    let (mut life, mut parked) = (None, None);
    let cloned = if io.users.is_some() {
        // What has no namespaces, or shares them, cannot have users of its own.
        if is_guarded || outlived {
            return Err(Failure::Invalid { spec: true });
        }
        users::clone_init(spec, &mut io, &mut cgroup, &theirs, &mut parked)?
    } else if is_guarded {
        let ends = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (ours, warden) = ends.map_err(|errno| fail(errno.into()))?;
        let cloned = clone_process(0, None).map_err(fail)?;
        if matches!(cloned, Cloned::Child) {
            drop((ours, status));
            warden::run(spec, io, cgroup, filter.as_ref(), theirs, warden)
        }
        life = Some(ours);
        cloned
    } else {
        clone_init(spec, &io, &mut cgroup)?
    };
    match cloned {
        Cloned::Child => {
            drop(status);
            init::run(spec, io, parked, cgroup.as_ref(), filter.as_ref(), theirs)
        }
        Cloned::Parent { pid, pidfd } => {
            drop(theirs);
            // With our copy of the root, whose last use is waited for.
            close_streams(io);
            let child =
                Child { pid, pidfd, terminal: None, cgroup, process: None, life, usage: None, failure: None, outlived, exit: None, server };
            Ok(Starting { child, status })
        }
    }
}

/// Makes the process that becomes init, in its namespaces and its group; both processes return.
pub(super) fn clone_init(spec: &SandboxSpec, io: &SandboxIo, cgroup: &mut Option<Cgroup>) -> std::result::Result<Cloned, Failure> {
    let namespaces = if io.join.is_some() { 0 } else { namespaces(spec) };
    let shared = PidNamespace::enter(io.shared.pid.as_ref())?;
    let cloned = clone_into(namespaces, cgroup.as_mut())?;
    if matches!(cloned, Cloned::Child) {
        std::mem::forget(shared);
    }
    Ok(cloned)
}

/// Copies this process into its group.
pub(super) fn clone_into(flags: u64, cgroup: Option<&mut Cgroup>) -> std::result::Result<Cloned, Failure> {
    let mut cloned = clone_process(flags, cgroup.as_ref().and_then(|group| group.unified()));
    if let (Err(_), Some(group)) = (&cloned, cgroup)
        && group.join_instead()?
    {
        cloned = clone_process(flags, None);
    }
    cloned.map_err(|errno| Failure::Clone { errno: errno.raw_os_error().unwrap_or(libc::EIO) })
}

pub(super) fn namespaces(spec: &SandboxSpec) -> u64 {
    if spec.isolation != Isolation::Namespaces {
        return 0;
    }
    let flags = libc::CLONE_NEWNS | spec.namespaces.clone_flags();
    let network = if spec.network == NetworkMode::None { libc::CLONE_NEWNET } else { 0 };
    (flags | network) as u64
}

fn close_streams(io: SandboxIo) {
    if let Stdio::Descriptors { stdin, stdout, stderr } = io.stdio {
        drop((stdin, stdout, stderr));
    }
}

impl Starting {
    /// What becomes readable when [`Starting::advance`] will not block.
    pub(super) fn status(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }

    /// Takes in the next message of init.
    pub(super) fn advance(mut self) -> Progress {
        match wire::receive(self.status.as_fd(), MAX_STATUS) {
            Ok(None) => Progress::Running(self.child),
            Ok(Some((message, mut descriptors))) if message == terminal::TERMINAL => {
                self.child.terminal = descriptors.pop();
                Progress::Starting(self)
            }
            Ok(Some((message, mut descriptors))) if message == PROCESS => {
                let process = descriptors.pop().and_then(|process| Some((init::pid_of(&process).ok()?, process)));
                let Some(process) = process else { return Progress::Failed(Failure::Clone { errno: libc::ESRCH }) };
                self.child.process = Some(process);
                self.child.cgroup.iter_mut().for_each(Cgroup::adopted);
                // It may be reaped from here on.
                let _ = wire::send(self.status.as_fd(), PROCESS, &[]);
                Progress::Starting(self)
            }
            Ok(Some((message, _))) => {
                self.let_it_end();
                Progress::Failed(serde_json::from_slice(&message).unwrap_or(Failure::Clone { errno: libc::EPROTO }))
            }
            Err(error) => Progress::Failed(Failure::Clone { errno: error.raw_os_error().unwrap_or(libc::EIO) }),
        }
    }

    /// Waits a moment for the end of what has failed. Where it entered a sandbox, its parent reaps it; killed before that, it would leave it to the sandbox's init, and not
    /// every command is one that reaps.
    fn let_it_end(&self) {
        const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        let _ = poll(&mut [PollFd::new(&self.child.pidfd, PollFlags::IN)], Some(&PATIENCE));
    }

    /// Kills the sandbox, whatever it is doing.
    pub(super) fn kill(&self) {
        self.child.end();
    }
}

impl Child {
    /// The process ID of the sandbox's PID 1, as seen from here.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(self.pid, |(pid, _)| *pid)
    }

    /// Sends `signal` to PID 1. One that has ended already is no failure.
    pub fn kill(&self, signal: i32) -> Result<()> {
        let (pid, pidfd) = self.process.as_ref().map_or((self.pid, &self.pidfd), |(pid, pidfd)| (*pid, pidfd));
        kill(pidfd.as_fd(), pid, signal)
    }

    /// Kills all of it. A warden is told to do that itself.
    fn end(&self) {
        match &self.life {
            Some(life) => drop(rustix::net::shutdown(life, rustix::net::Shutdown::Both)),
            None => drop(kill(self.pidfd.as_fd(), self.pid, libc::SIGKILL)),
        }
    }

    /// What further commands join: the sandbox, or the parent of one that was made in another way.
    pub(super) fn joinable(&self) -> BorrowedFd<'_> {
        match (&self.life, &self.process) {
            (Some(_), Some((_, process))) => process.as_fd(),
            _ => self.pidfd.as_fd(),
        }
    }

    /// The other side of the terminal, once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Waits for the end of the sandbox.
    pub fn wait(&mut self) -> Result<Exit> {
        if let Some(exit) = &self.exit {
            return Ok(exit.clone());
        }
        let failed = |source| Error::Process { action: "wait for", pid: self.pid, source };
        // What it moved can be asked for until it is reaped.
        wait_for_end(self.pid).map_err(failed)?;
        let io = ProcessIo::of(Some(self.pid));
        let reaped = reap(self.pid).map_err(failed)?;
        if let Some(group) = self.cgroup.as_ref().filter(|_| self.outlived) {
            group.kill_all();
        }
        if let Some(server) = self.server.take() {
            server.wait();
        }
        // The warden has closed its side by ending.
        self.failure = self.life.as_ref().and_then(warden::last_words);
        if let Some(failure) = &self.failure {
            return Err(failure.clone().into());
        }
        let counted = || self.cgroup.as_ref().map_or((None, false), Cgroup::memory_usage);
        let (peak, oom_killed) = self.usage.take().and_then(|usage| serde_json::from_reader(usage).ok()).unwrap_or_else(counted);
        let exit = Exit {
            status: reaped.status.map_or_else(ExitStatus::Signal, ExitStatus::Code),
            peak_memory: peak.or(Some(reaped.max_rss)),
            oom_killed,
            user_time: reaped.user_time,
            system_time: reaped.system_time,
            io,
        };
        self.exit = Some(exit.clone());
        Ok(exit)
    }

    /// The directories of its control groups, where it has any of its own.
    pub fn cgroups(&self) -> &[PathBuf] {
        self.cgroup.as_ref().map_or(&[], Cgroup::directories)
    }

    /// What went wrong after the end of the command, once.
    pub(super) fn take_failure(&mut self) -> Option<Failure> {
        self.failure.take()
    }

    /// The groups, for a parent that has no time to wait until they can be removed.
    pub(super) fn take_cgroup(&mut self) -> Option<Cgroup> {
        self.cgroup.take()
    }
}

/// Sends a signal to a sandbox that may have ended.
pub(super) fn kill(pidfd: BorrowedFd<'_>, pid: u32, signal: i32) -> Result<()> {
    match signal_pidfd(pidfd, signal) {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(Error::Process { action: "signal", pid, source: error }),
        _ => Ok(()),
    }
}

impl AsFd for Child {
    /// Becomes readable when all has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.end();
            let _ = self.wait();
        }
    }
}
