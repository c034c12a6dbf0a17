//! What happens in a sandbox between its birth and its command: named steps in order, in the new process.
//!
//! The process reports to its parent over a `SOCK_SEQPACKET` socket that `execve` closes: the terminal (if there is one), then either a [`Failure`] or, by the
//! end of the stream, that the command runs. With [`SandboxSpec::init`] the steps after the mounts happen in a child of PID 1, which then only reaps.

use std::convert::Infallible;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::DumpableBehavior;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};

use super::apparmor::Door;
use super::capabilities::Capabilities;
use super::cgroup::Cgroup;
use super::chroot::Stage;
use super::error::Failure;
use super::io::SandboxIo;
use super::namespaces::Sharing;
use super::seccomp::Filter;
use super::spec::{NetworkMode, Privileges, ProcessSpec, SandboxSpec, Seccomp};
use super::terminal::Console;
use super::world::{Outside, Parked};
use super::{credentials, exec, namespaces, reaper, seccomp, terminal, users, wire, world};
use crate::path::RootPath;
use crate::sys::privilege;
use crate::sys::process::{Cloned, OneThread, clone_process, close_from, close_on_exec_from, exit_now, reset_signals, unshare};

/// The system call filter that the spec asks for.
pub(super) fn filter(spec: &SandboxSpec) -> Option<Filter> {
    match (&spec.seccomp, spec.privileges) {
        (Seccomp::Rules(rules), _) => Some(seccomp::filter(rules)),
        (Seccomp::Unconfined, _) | (Seccomp::Default, Privileges::Insecure) => None,
        (Seccomp::Default, Privileges::Default { .. }) => Some(seccomp::default_filter(spec.privileges.capabilities())),
    }
}

/// Sets the sandbox up and executes its command; `parked` is what was mounted for it already. Never returns.
pub(super) fn run(
    spec: &SandboxSpec,
    io: SandboxIo,
    parked: Option<Parked>,
    cgroup: Option<&Cgroup>,
    filter: Option<&Filter>,
    status: OwnedFd,
) -> ! {
    let Err(failure) = set_up(spec, io, parked, cgroup, filter, &status);
    fail(&failure, &status)
}

/// Tells the parent why there will be no command.
pub(super) fn fail(failure: &Failure, status: &OwnedFd) -> ! {
    if let Ok(message) = serde_json::to_vec(failure) {
        let _ = wire::send(status.as_fd(), &message, &[]);
    }
    exit_now(125)
}

/// Executes the command in the root of `stage`, in no namespace of its own. Never returns.
pub(super) fn run_on_stage(
    spec: &SandboxSpec,
    io: SandboxIo,
    stage: &Stage,
    groups: Option<&Cgroup>,
    filter: Option<&Filter>,
    status: &OwnedFd,
) -> ! {
    let Err(failure) = set_up_on_stage(spec, io, stage, groups, filter, status);
    self::fail(&failure, status)
}

fn set_up_on_stage(
    spec: &SandboxSpec,
    io: SandboxIo,
    stage: &Stage,
    groups: Option<&Cgroup>,
    filter: Option<&Filter>,
    status: &OwnedFd,
) -> Result<Infallible, Failure> {
    die_with_parent(status)?;
    reset_signals().map_err(Failure::step("reset", "signals"))?;
    groups.map_or(Ok(()), Cgroup::join)?;
    let door = spec.apparmor.before_exec()?;
    let stdio = terminal::Streams::prepare(io.stdio)?.open_terminal(&spec.process, status.as_fd(), Console::Keep)?;
    adjust_oom_score(spec.process.oom_score_adjust)?;
    stdio.install(&spec.process)?;
    // There will be no list of them any more.
    close_on_exec_from(3).map_err(Failure::step("close", "descriptors"))?;
    stage.enter()?;
    // Whoever may not do it otherwise may with "no new privileges", which is not for steps to have unasked. The filter of the container around this holds in any case.
    let filter = filter.filter(|_| spec.process.no_new_privileges || privilege::may_mount());
    become_process(spec, filter, door, status)
}

fn set_up(
    spec: &SandboxSpec,
    io: SandboxIo,
    parked: Option<Parked>,
    cgroup: Option<&Cgroup>,
    filter: Option<&Filter>,
    status: &OwnedFd,
) -> Result<Infallible, Failure> {
    die_with_parent(status)?;
    reset_signals().map_err(Failure::step("reset", "signals"))?;
    if let Some(cgroup) = cgroup {
        cgroup.join()?;
    }
    if let Some(process) = &io.join {
        spec.apparmor.on_exec()?;
        let users = pid_of(process).and_then(users::foreign_users).map_err(Failure::step("look at", "the users of the sandbox"))?;
        if let Some((_, ids)) = &users {
            let user = &spec.process.user;
            let outside = |id: u32| ids.start.checked_add(id).filter(|id| ids.contains(id));
            // What the namespace has no number for is refused when the command is to become it.
            if let Some((uid, gid)) = outside(user.uid).zip(outside(user.gid)) {
                terminal::give_pipes(&io.stdio, uid, gid);
            }
        }
        let stdio = terminal::Streams::prepare(io.stdio)?;
        // With users of its own, what traces there has no rights over this process.
        if users.is_none() && spec.privileges.capabilities().contains(Capabilities::SYS_PTRACE) {
            return join_unseen(spec, process, &io.join_cgroups, stdio, filter, status);
        }
        join(Some(&spec.process), process, &io.join_cgroups)?;
        let stdio = stdio.open_terminal(&spec.process, status.as_fd(), Console::Keep)?;
        stdio.install(&spec.process)?;
        return become_process(spec, filter, None, status);
    }
    let has_users = io.users.is_some();
    let mut door = if spec.init {
        // For its child, which ends with it.
        spec.apparmor.on_exec()?;
        spec.apparmor.door()?
    } else {
        spec.apparmor.before_exec()?
    };
    // While the directories of root of the host are this process's own.
    let outside = parked.map(Parked::take).transpose()?;
    if has_users {
        users::become_root()?;
    }
    let filesystems = if outside.is_some() { Vec::new() } else { world::filesystems(spec)? };
    enter_namespaces(spec, &io)?;
    let SandboxIo { stdio, mount_fds, root, netns, users, shared, join: _, join_cgroups: _ } = io;
    drop((netns, users));
    let stdio = terminal::Streams::prepare(stdio)?;
    let outside = outside.map_or_else(|| Outside::mount(spec, mount_fds, filesystems, root, None), Ok)?;
    outside.enter(spec, shared.shm)?;
    let stdio = stdio.open_terminal(&spec.process, status.as_fd(), Console::Replace)?;
    // With users of its own the porter has done it, who had the right to.
    adjust_oom_score(spec.process.oom_score_adjust.filter(|_| !has_users))?;
    if spec.init {
        reaper::take_name();
        match clone_process(0, None).map_err(Failure::step("fork", "the init process"))? {
            Cloned::Parent { pid, .. } => {
                become_init(spec, door, status)?;
                reaper::run(pid)
            }
            Cloned::Child => door = None,
        }
    }
    stdio.install(&spec.process)?;
    become_process(spec, filter, door, status)
}

/// Makes this process an init that has no more than the command: its user, its capabilities and its profile. Nobody else may look into it, since its memory and its program are the engine's.
fn become_init(spec: &SandboxSpec, door: Option<Door>, status: &OwnedFd) -> Result<(), Failure> {
    let (process, keep) = (&spec.process, spec.privileges.capabilities());
    // Its command line names the store. Where it cannot be written over (`/proc` is somebody else's), it stays.
    let _ = crate::sys::process::set_command_line(b"strake-init");
    credentials::limit_bounding_set(keep)?;
    credentials::change_user(process)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(Failure::step("forbid", "new privileges"))?;
    }
    credentials::set_final_capabilities(keep, process.user.uid, false)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(Failure::step("hide", "the init process"))?;
    spec.apparmor.enter(door)?;
    // A change of user has taken it back.
    die_with_parent(status)
}

/// The kernel kills this process when its parent ends. A parent that ended before is seen by its side of the socket.
pub(super) fn die_with_parent(status: &OwnedFd) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(Failure::step("bind to", "the parent"))?;
    let mut poll = [rustix::event::PollFd::new(status, rustix::event::PollFlags::empty())];
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    match rustix::event::poll(&mut poll, Some(&now)) {
        Ok(ready) if ready > 0 => exit_now(137),
        _ => Ok(()),
    }
}

fn enter_namespaces(spec: &SandboxSpec, io: &SandboxIo) -> Result<(), Failure> {
    // The group that this process is in by now becomes the root of what it sees. Rootless systems without cgroups lack nothing by it.
    if spec.namespaces.cgroup == Sharing::Own {
        let _ = unshare(libc::CLONE_NEWCGROUP);
    }
    namespaces::enter_shared(&io.shared)?;
    match spec.network {
        NetworkMode::Host => {}
        NetworkMode::None => {
            // A network namespace without `lo` up is still no network.
            let _ = crate::sys::process::bring_loopback_up();
        }
        NetworkMode::Joined => {
            let netns = io.netns.as_ref().ok_or(Failure::Invalid { spec: false })?;
            let kind = Some(LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(netns.as_fd(), kind).map_err(Failure::step("join", "the network namespace"))?;
        }
    }
    if spec.namespaces.uts != Sharing::Own {
        return Ok(());
    }
    match rustix::system::sethostname(spec.hostname.as_bytes()) {
        // The namespace is this sandbox's own, so it is the filter of a container around this one that refuses (podman's does). It has the other's name then.
        Ok(()) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(Failure::step("set the host name", &spec.hostname)(errno)),
    }
}

/// Enters the namespaces of another sandbox's process. The caller's process stays outside of the PID namespace, as it cannot change its own, and reaps for the
/// one that goes on inside. That one is in the sandbox's root from the beginning: who is in there can stop it, and see what its root is.
pub(super) fn join(command: Option<&ProcessSpec>, process: &OwnedFd, groups: &[PathBuf]) -> Result<(), Failure> {
    let fail = || Failure::step::<Errno>("join", "the namespaces of the sandbox");
    let (first, last) = foreign_namespaces(process).map_err(Failure::step("look at", "the namespaces of the sandbox"))?;
    let has_users = last.contains(ThreadNameSpaceType::USER);
    if let Some(command) = command.filter(|_| has_users) {
        credentials::raise_hard_limits(command)?;
    }
    // Nothing that runs there may look into this process while it still has more rights than the command.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(fail())?;
    let thread = OneThread::of_this_process().map_err(Failure::step("look at", "this process"))?;
    let mut group = Cgroup::existing(groups)?;
    adjust_oom_score(command.and_then(|command| command.oom_score_adjust))?;
    rustix::thread::move_into_thread_name_spaces(process.as_fd(), first).map_err(fail())?;
    reaper::take_name();
    let mut cloned = thread.clone_process(0, group.unified());
    if cloned.is_err() && group.join_instead()? {
        cloned = thread.clone_process(0, None);
    }
    match cloned.map_err(Failure::step("fork", "into the sandbox"))? {
        Cloned::Parent { pid, .. } => reaper::run(pid),
        Cloned::Child => {}
    }
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(fail())?;
    group.join()?;
    if !last.is_empty() {
        rustix::thread::move_into_thread_name_spaces(process.as_fd(), last).map_err(fail())?;
    }
    if has_users { users::become_root() } else { Ok(()) }
}

/// Executes a command in the same way, born with no more than it keeps: as a child of the process that made it ready outside of the PID namespace. Processes of a sandbox that
/// may trace have it from its first moment on (CVE-2016-9962). The filter must let that one fork.
fn join_unseen(
    spec: &SandboxSpec,
    process: &OwnedFd,
    groups: &[PathBuf],
    stdio: terminal::Streams,
    filter: Option<&Filter>,
    status: &OwnedFd,
) -> Result<Infallible, Failure> {
    let fail = || Failure::step::<Errno>("join", "the namespaces of the sandbox");
    let (first, last) = foreign_namespaces(process).map_err(Failure::step("look at", "the namespaces of the sandbox"))?;
    let mut group = Cgroup::existing(groups)?;
    let (told, tell) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(Failure::step("make", "a pipe"))?;
    let thread = OneThread::of_this_process().map_err(Failure::step("look at", "this process"))?;
    reaper::take_name();
    // One process that comes to the group and one that is born in it: the limit holds for what runs there.
    let room = Cgroup::make_room(groups);
    let mut cloned = thread.clone_process(0, group.unified());
    if cloned.is_err() && group.join_instead()? {
        cloned = thread.clone_process(0, None);
    }
    match cloned.map_err(Failure::step("fork", "into the sandbox"))? {
        Cloned::Parent { pid, .. } => {
            drop(tell);
            reaper::run_sibling(pid, &told, room)
        }
        Cloned::Child => drop(told),
    }
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL)).map_err(fail())?;
    group.join()?;
    adjust_oom_score(spec.process.oom_score_adjust)?;
    credentials::raise_hard_limits(&spec.process)?;
    if !(first | last).is_empty() {
        rustix::thread::move_into_thread_name_spaces(process.as_fd(), first | last).map_err(fail())?;
    }
    let stdio = stdio.open_terminal(&spec.process, status.as_fd(), Console::Keep)?.connect(&spec.process)?;
    let admin = give_up(spec, filter)?;
    load(filter, admin)?;
    if admin {
        credentials::set_final_capabilities(spec.privileges.capabilities(), spec.process.user.uid, false)?;
    }
    // Nor with descriptors that lead out. Their owners must not be dropped any more.
    close_from(3, &[status.as_fd(), tell.as_fd()]).map_err(Failure::step("close", "descriptors"))?;
    let Err(failure) = be_born(spec, stdio, &thread, &tell, status);
    self::fail(&failure, status)
}

fn be_born(
    spec: &SandboxSpec,
    stdio: terminal::Connected,
    thread: &OneThread,
    tell: &OwnedFd,
    status: &OwnedFd,
) -> Result<Infallible, Failure> {
    match thread.clone_process(libc::CLONE_PARENT as u64, None).map_err(Failure::step("fork", "into the sandbox"))? {
        Cloned::Parent { pid, pidfd } => {
            std::mem::forget(pidfd);
            rustix::io::write(tell, &pid.to_ne_bytes()).map_err(Failure::step("tell of", "the command"))?;
            exit_now(0)
        }
        Cloned::Child => {}
    }
    stdio.lead()?;
    credentials::set_limits(&spec.process)?;
    close_on_exec_from(3).map_err(Failure::step("close", "descriptors"))?;
    die_with_parent(status)?;
    // Only here, where `/proc/self` is this process.
    let command = exec::prepare(&spec.process).map_err(Failure::Exec)?;
    Err(Failure::Exec(command.execute()))
}

/// The namespaces of a process that are not this one's own, which rootless may be the host's and cannot be joined again: those to enter at first, and those to enter at
/// last. To the latter belong that of control groups, as from inside there is no way into a group, and that of users, where this process has no rights outside.
fn foreign_namespaces(process: &OwnedFd) -> std::io::Result<(ThreadNameSpaceType, ThreadNameSpaceType)> {
    let pid = pid_of(process)?;
    let differs = |name: &str, kind: ThreadNameSpaceType| -> std::io::Result<ThreadNameSpaceType> {
        let (own, other) = (std::fs::read_link(format!("/proc/self/ns/{name}"))?, std::fs::read_link(format!("/proc/{pid}/ns/{name}"))?);
        Ok(if own == other { ThreadNameSpaceType::empty() } else { kind })
    };
    let first = differs("ipc", ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION)?
        | differs("uts", ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME)?
        | differs("net", ThreadNameSpaceType::NETWORK)?
        | differs("pid", ThreadNameSpaceType::PROCESS_ID)?
        | differs("mnt", ThreadNameSpaceType::MOUNT)?;
    let last = differs("cgroup", ThreadNameSpaceType::CONTROL_GROUP)? | differs("user", ThreadNameSpaceType::USER)?;
    Ok((first, last))
}

/// The number that a process has here, by its descriptor.
pub(super) fn pid_of(process: &OwnedFd) -> std::io::Result<u32> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()))?;
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    Ok(number.ok_or(std::io::ErrorKind::InvalidData)?)
}

pub(super) fn adjust_oom_score(score: Option<i32>) -> Result<(), Failure> {
    let Some(score) = score else { return Ok(()) };
    std::fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(Failure::step("write", "/proc/self/oom_score_adj"))
}

/// Becomes a program of this machine that serves a sandbox, with no more than `spec` says. It lives on when its parent ends.
pub(super) fn become_server(spec: &SandboxSpec) -> Result<Infallible, Failure> {
    let filter = filter(spec);
    let admin = give_up(spec, filter.as_ref())?;
    close_on_exec_from(3).map_err(Failure::step("close", "descriptors"))?;
    let command = exec::prepare(&spec.process).map_err(Failure::Exec)?;
    load(filter.as_ref(), admin)?;
    Err(Failure::Exec(command.execute()))
}

/// Gives up what the command must not have, and becomes it.
fn become_process(spec: &SandboxSpec, filter: Option<&Filter>, door: Option<Door>, status: &OwnedFd) -> Result<Infallible, Failure> {
    let process = &spec.process;
    credentials::set_limits(process)?;
    let admin = give_up(spec, filter)?;
    close_on_exec_from(3).map_err(Failure::step("close", "descriptors"))?;
    // A change of user has taken it back.
    die_with_parent(status)?;
    let command = exec::prepare(process).map_err(Failure::Exec)?;
    spec.apparmor.enter(door)?;
    load(filter, admin)?;
    // From here on the filter judges: nothing but this needs to be in a profile.
    Err(Failure::Exec(command.execute()))
}

/// Gives up what the command must not have. The order matters: see `credentials`. Says whether [`load`] needs CAP_SYS_ADMIN, which can then still be raised.
fn give_up(spec: &SandboxSpec, filter: Option<&Filter>) -> Result<bool, Failure> {
    let (process, keep) = (&spec.process, spec.privileges.capabilities());
    // Kernels without keyrings have nothing to hide; a filter around us that refuses the call (a container) hides them as well.
    let _ = crate::sys::process::join_new_session_keyring();
    credentials::limit_bounding_set(keep)?;
    enter_cwd(&process.cwd)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(process.umask & 0o777));
    credentials::change_user(process)?;
    if process.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(Failure::step("forbid", "new privileges"))?;
    }
    // Without that, loading the filter needs CAP_SYS_ADMIN.
    let admin = filter.is_some() && !process.no_new_privileges;
    credentials::set_final_capabilities(keep, process.user.uid, admin)?;
    Ok(admin)
}

/// Loads the system call filter, and puts away the right to do so.
fn load(filter: Option<&Filter>, admin: bool) -> Result<(), Failure> {
    let Some(filter) = filter else { return Ok(()) };
    if admin {
        credentials::raise_admin()?;
    }
    filter.load().map_err(Failure::step("load", "the system call filter"))
}

/// Changes the directory, and makes sure that it is in the sandbox: a path through a descriptor that leaked from the host would not be.
pub(super) fn enter_cwd(cwd: &RootPath) -> Result<(), Failure> {
    rustix::process::chdir(cwd.as_os_str()).map_err(Failure::step("change to the working directory", cwd))?;
    // The kernel has no path for a directory outside of the root, and says `(unreachable)`.
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        _ => Err(Failure::Step { step: "stay inside with the working directory".into(), path: cwd.to_string(), errno: libc::EPERM }),
    }
}
