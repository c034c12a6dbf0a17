//! The spawner's side: one thread, one poll loop, and the sandboxes whose parent it is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::super::cgroup::Cgroup;
use super::super::error::Failure;
use super::super::io::{SandboxIo, Stdio};
use super::super::launch::{Child, Progress, Starting, begin};
use super::super::{SandboxSpec, wire};
use super::{Header, Report};
use crate::sys::process::{block_signals, close_from};

/// A spec that is larger than this is not one.
const MAX_SPEC: u64 = 64 << 20;

/// How long a group that is still in use is left alone before the next try to remove it.
const RETRY: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// How often that is tried.
const TRIES: u32 = 500;

/// A sandbox and the client that wants to know of it.
struct Sandbox {
    socket: OwnedFd,
    /// Whether the client has gone, so that the sandbox was killed and nobody reads reports.
    orphaned: bool,
    state: State,
}

enum State {
    Starting(Starting),
    Running(Child),
}

impl State {
    /// What becomes readable when there is something to do.
    fn event(&self) -> BorrowedFd<'_> {
        match self {
            State::Starting(starting) => starting.status(),
            State::Running(child) => child.as_fd(),
        }
    }

    fn kill(&self) {
        match self {
            State::Starting(starting) => starting.kill(),
            State::Running(child) => drop(child.kill(libc::SIGKILL)),
        }
    }
}

/// Serves requests until the client has gone. Sandboxes that are left then are killed.
pub(super) fn serve(common: OwnedFd) -> io::Result<()> {
    let common = detach(common)?;
    let mut sandboxes: Vec<Sandbox> = Vec::new();
    let mut groups: Vec<(Cgroup, u32)> = Vec::new();
    loop {
        let (requested, ready) = wait(&common, &sandboxes, !groups.is_empty())?;
        // From the end, so that removing one does not move those that are still to be looked at.
        for (index, (client_gone, event)) in ready.into_iter().enumerate().rev() {
            let sandbox = &mut sandboxes[index];
            if client_gone && !sandbox.orphaned {
                sandbox.orphaned = true;
                sandbox.state.kill();
            }
            if event {
                let sandbox = sandboxes.swap_remove(index);
                sandboxes.extend(advance(sandbox, &mut groups));
            }
        }
        remove(&mut groups);
        if requested {
            match wire::receive(common.as_fd(), 4096) {
                Ok(Some((message, descriptors))) => sandboxes.extend(accept(&message, descriptors)),
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break,
                // A packet that cannot be taken in: its client sees its socket closed.
                Err(_) => {}
            }
        }
    }
    sandboxes.iter().for_each(|sandbox| sandbox.state.kill());
    Ok(())
}

/// Leaves everything that belongs to the client: its terminal's signals, its descriptors, its directory.
fn detach(common: OwnedFd) -> io::Result<OwnedFd> {
    block_signals()?;
    rustix::process::setsid()?;
    let _ = rustix::thread::set_name(c"strake-spawner");
    let common = rustix::io::fcntl_dupfd_cloexec(&common, 3).inspect(|_| std::mem::forget(common))?;
    close_from(0, &[common.as_fd()])?;
    for _ in 0..3 {
        // The lowest free numbers: standard input, output and error.
        std::mem::forget(rustix::fs::open("/dev/null", OFlags::RDWR, Mode::empty())?);
    }
    rustix::process::chdir("/")?;
    Ok(common)
}

/// Waits for something to do: whether there is a request, and for each sandbox whether its client has gone and whether it has news.
fn wait(common: &OwnedFd, sandboxes: &[Sandbox], retry: bool) -> io::Result<(bool, Vec<(bool, bool)>)> {
    let mut polled = vec![PollFd::new(common, PollFlags::IN)];
    for sandbox in sandboxes {
        // Nothing is ever sent by clients on it: being readable means that it is closed. One that is closed would wake this loop for ever.
        let interest = if sandbox.orphaned { None } else { Some(PollFd::new(&sandbox.socket, PollFlags::IN)) };
        polled.push(interest.unwrap_or_else(|| PollFd::from_borrowed_fd(sandbox.state.event(), PollFlags::IN)));
        polled.push(PollFd::from_borrowed_fd(sandbox.state.event(), PollFlags::IN));
    }
    match poll(&mut polled, retry.then_some(&RETRY)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let happened = |fd: &PollFd<'_>| !fd.revents().is_empty();
    let pairs = polled[1..].chunks(2).map(|pair| (happened(&pair[0]), happened(&pair[1]))).collect();
    Ok((happened(&polled[0]), pairs))
}

/// Takes a request in.
fn accept(message: &[u8], descriptors: Vec<OwnedFd>) -> Option<Sandbox> {
    let header: Header = serde_json::from_slice(message).ok()?;
    let mut descriptors = descriptors.into_iter();
    let (spec, socket) = (descriptors.next()?, descriptors.next()?);
    let started = (|| {
        let io = take_io(header, &mut descriptors).ok_or(Failure::Invalid { spec: false })?;
        let spec = read_spec(spec).ok_or(Failure::Invalid { spec: true })?;
        begin(&spec, io)
    })();
    match started {
        Ok(starting) => Some(Sandbox { socket, orphaned: false, state: State::Starting(starting) }),
        Err(failure) => {
            send(&socket, &Report::Failed(failure), &[]);
            None
        }
    }
}

fn take_io(header: Header, descriptors: &mut std::vec::IntoIter<OwnedFd>) -> Option<SandboxIo> {
    let stdio = if header.streams {
        Stdio::Descriptors { stdin: descriptors.next()?, stdout: descriptors.next()?, stderr: descriptors.next()? }
    } else {
        Stdio::Terminal
    };
    let netns = if header.netns { Some(descriptors.next()?) } else { None };
    let join = if header.join { Some(descriptors.next()?) } else { None };
    let mount_fds: Vec<OwnedFd> = descriptors.take(header.mounts).collect();
    (mount_fds.len() == header.mounts).then_some(SandboxIo { netns, join, mount_fds, ..SandboxIo::new(stdio) })
}

fn read_spec(fd: OwnedFd) -> Option<SandboxSpec> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::from(fd);
    let size = file.metadata().ok()?.len();
    if size > MAX_SPEC {
        return None;
    }
    let mut bytes = vec![0; size as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Handles the news of one sandbox; gives it back unless it has ended.
fn advance(mut sandbox: Sandbox, groups: &mut Vec<(Cgroup, u32)>) -> Option<Sandbox> {
    match sandbox.state {
        State::Starting(starting) => {
            sandbox.state = match starting.advance() {
                Progress::Starting(starting) => State::Starting(starting),
                Progress::Running(mut child) => {
                    let terminal = child.take_terminal();
                    let mut descriptors = vec![child.joinable()];
                    descriptors.extend(terminal.as_ref().map(AsFd::as_fd));
                    send(&sandbox.socket, &Report::Started { pid: child.pid() }, &descriptors);
                    State::Running(child)
                }
                Progress::Failed(failure) => {
                    send(&sandbox.socket, &Report::Failed(failure), &[]);
                    return None;
                }
            };
            Some(sandbox)
        }
        State::Running(mut child) => {
            let report = child.wait().ok().map(Report::Exited).or_else(|| child.take_failure().map(Report::Failed));
            report.iter().for_each(|report| send(&sandbox.socket, report, &[]));
            groups.extend(child.take_cgroup().map(|group| (group, TRIES)));
            None
        }
    }
}

/// A client that has gone does not hear it.
fn send(socket: &OwnedFd, report: &Report, descriptors: &[BorrowedFd<'_>]) {
    if let Ok(message) = serde_json::to_vec(report) {
        let _ = wire::send(socket.as_fd(), &message, descriptors);
    }
}

/// Removes groups of sandboxes that have ended, without waiting for the kernel to be done with them.
fn remove(groups: &mut Vec<(Cgroup, u32)>) {
    groups.retain_mut(|(group, tries)| {
        *tries -= 1;
        !group.try_remove() && *tries > 0
    });
}
