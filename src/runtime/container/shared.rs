//! Namespaces that a container shares with another one that runs: who that is is found out at each start.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::state::{ContainerDir, start_ticks};
use super::{Error, State, load_state};
use crate::runtime::{Namespaces, SharedNamespaces, Sharing, mounts, wire};
use crate::sys::process::{Cloned, clone_process, exit_now, reap};

/// Opens what `namespaces` says is shared with other containers of the same store.
///
/// # Errors
/// One of them does not run.
pub(super) fn open(dir: &ContainerDir, namespaces: &Namespaces) -> Result<SharedNamespaces, Error> {
    let of = |sharing: &Sharing| match sharing {
        Sharing::Container(id) => process(dir, id).map(Some),
        Sharing::Own | Sharing::Host => Ok(None),
    };
    let (pid, ipc) = (of(&namespaces.pid)?, of(&namespaces.ipc)?);
    let shm = ipc.as_ref().map(shared_memory).transpose().map_err(Error::socket("open the shared memory through"))?;
    Ok(SharedNamespaces { pid, ipc, shm })
}

/// The first process of another container.
fn process(dir: &ContainerDir, id: &str) -> Result<OwnedFd, Error> {
    let stopped = || Error::OtherNotRunning { id: id.to_owned() };
    let other = dir.path().parent().map(|all| all.join(id)).ok_or_else(stopped)?;
    let Ok(State::Running { pid, start_ticks: started, .. }) = load_state(&other) else { return Err(stopped()) };
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(stopped)?;
    let process = pidfd_open(raw, PidfdFlags::empty()).map_err(|_| stopped())?;
    // Not another process that has the same number by now.
    if start_ticks(pid) == Some(started) { Ok(process) } else { Err(stopped()) }
}

/// A copy of the `/dev/shm` that a process has. Only who is in its mount namespace may make one.
fn shared_memory(process: &OwnedFd) -> std::io::Result<OwnedFd> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    match clone_process(0, None)? {
        Cloned::Child => {
            let entered = move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::MOUNT).is_ok();
            let mount = entered.then(|| mounts::clone_host_mount(std::path::Path::new("/dev/shm"), false).ok()).flatten();
            let sent = mount.is_some_and(|mount| wire::send(theirs.as_fd(), b"shm", &[mount.as_fd()]).is_ok());
            exit_now(i32::from(!sent))
        }
        Cloned::Parent { pid, .. } => {
            drop(theirs);
            let received = wire::receive(ours.as_fd(), 16);
            reap(pid)?;
            received?.and_then(|(_, mut descriptors)| descriptors.pop()).ok_or_else(|| std::io::ErrorKind::PermissionDenied.into())
        }
    }
}
