//! Users of a sandbox that are not the host's: a user namespace of its own for a sandbox of root.
//!
//! Root of the sandbox is then an ID that nobody has on the host, so what a process there may do, it may do to the sandbox alone. All other namespaces belong to that of the
//! users. What the kernel grants to root of the host only (files shown as another user's, a namespace's IDs) is done by a **porter**: a process between the caller and init, which mounts
//! what comes from outside, enters the user namespace, makes init as its sibling and ends. On disk nothing is the users': layers and volumes are shown as theirs, by mounts
//! that map owners, and keep the IDs that they have in images.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{CapabilitySets, LinkNameSpaceType, capabilities, set_capabilities};

use super::cgroup::Cgroup;
use super::container::start_ticks;
use super::error::Failure;
use super::world::{self, Outside, Parked};
use super::{Error, Result, SandboxIo, SandboxSpec, credentials, init, launch, terminal};
use crate::sys::mount_attr::map_owners;
use crate::sys::process::{Cloned, clone_process, exit_now, reap};

/// The first ID that is given to sandboxes, and the first that is not any more. Ordinary and subordinate users, and those of systemd's containers, end below
/// (systemd's "Users, Groups, UIDs and GIDs"), and the IDs of foreign images begin above.
const FIRST: u32 = 0x7000_0000;
const END: u32 = 0x7ffe_0000;

/// IDs of the host that one sandbox has, and nobody else as long as this lives.
#[derive(Debug)]
pub struct UserRange {
    first: u32,
    /// Locked. It says who had the range last.
    file: File,
}

impl UserRange {
    /// How many users a sandbox has: those that an ordinary image names.
    pub const SIZE: u32 = 65_536;

    /// Takes a range that nobody has. `directory` is where all sandboxes of the host take theirs: a file for each range, which its owner has locked.
    ///
    /// # Errors
    /// The directory cannot be used, or all ranges are taken.
    pub fn take(directory: &Path) -> Result<UserRange> {
        let failed = |path: &Path| {
            let step = format!("use `{}`", path.display());
            move |source| Error::UserNamespace { step, source }
        };
        std::fs::create_dir_all(directory).map_err(failed(directory))?;
        for first in (FIRST..END).step_by(Self::SIZE as usize) {
            let path = directory.join(first.to_string());
            let file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed(&path))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if !is_used(&file) => return Ok(UserRange { first, file }),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(failed(&path)(errno.into())),
            }
        }
        Err(Error::UserNamespace { step: "find IDs that nobody has".into(), source: Errno::USERS.into() })
    }

    /// Records the first process that has these IDs: where it outlives this one, nobody else gets them.
    pub(super) fn is_of(&self, pid: u32) -> io::Result<()> {
        let ticks = start_ticks(pid).unwrap_or(0);
        self.file.set_len(0)?;
        self.file.write_all_at(format!("{pid} {ticks}").as_bytes(), 0)
    }
}

/// Whether the process of the last owner still lives. (It is killed with that, unless it has set-user-ID rights or has asked for something else: prctl(2), `PR_SET_PDEATHSIG`.)
fn is_used(file: &File) -> bool {
    let mut text = String::new();
    let mut file = file;
    if file.read_to_string(&mut text).is_err() {
        return false;
    }
    let mut numbers = text.split(' ').map_while(|number| number.parse::<u64>().ok());
    let process = numbers.next().and_then(|pid| u32::try_from(pid).ok()).zip(numbers.next());
    process.is_some_and(|(pid, ticks)| start_ticks(pid) == Some(ticks))
}

/// A user namespace of a sandbox.
#[derive(Debug)]
pub struct UserNamespace {
    users: OwnedFd,
    /// A network namespace that belongs to it.
    network: OwnedFd,
    /// The host's ID of its root.
    first: u32,
}

/// Makes namespaces by a process that is gone when this returns, and gives its number to who takes hold of them meanwhile. This process must have one thread.
pub(super) fn with_namespaces<T>(flags: libc::c_int, hold: impl FnOnce(u32) -> T) -> io::Result<T> {
    let (end, begin) = io::pipe()?;
    let pid = match clone_process(flags as u64, None)? {
        Cloned::Child => {
            drop(begin);
            // Until the other side is closed.
            let _ = (&end).read(&mut [0]);
            exit_now(0)
        }
        Cloned::Parent { pid, .. } => pid,
    };
    let held = hold(pid);
    drop(begin);
    reap(pid)?;
    Ok(held)
}

impl UserNamespace {
    /// Makes one with these IDs, by a process that is gone when this returns. The caller must be root and have one thread.
    pub fn make(range: &UserRange) -> Result<UserNamespace> {
        let fail = |step: &str| {
            let step = step.to_owned();
            move |source: io::Error| Error::UserNamespace { step, source }
        };
        with_namespaces(libc::CLONE_NEWUSER | libc::CLONE_NEWNET, |pid| {
            for map in ["gid_map", "uid_map"] {
                let path = format!("/proc/{pid}/{map}");
                std::fs::write(&path, format!("0 {} {}", range.first, UserRange::SIZE)).map_err(fail(&format!("write {path}")))?;
            }
            let open = |kind: &str| {
                let path = format!("/proc/{pid}/ns/{kind}");
                rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|errno| fail(&format!("open {path}"))(errno.into()))
            };
            Ok(UserNamespace { users: open("user")?, network: open("net")?, first: range.first })
        })
        .map_err(fail("make it"))?
    }

    /// A network namespace without links that belongs to it.
    pub fn network(&self) -> BorrowedFd<'_> {
        self.network.as_fd()
    }

    /// Shows the files of a detached mount as those of its users.
    pub(super) fn map(&self, mount: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
        map_owners(mount, self.users.as_fd(), recursive)
    }

    /// Lets this process write to files that are shown as those of its users: as their root, with all that root of the host may do.
    pub(super) fn write_as_root(&self) -> std::result::Result<WritingAs, Failure> {
        write_as(self.first).map_err(Failure::step("write as", self.first))
    }
}

/// Until it is dropped, files that this process makes, which has one thread, are another user's.
#[derive(Debug)]
pub(super) struct WritingAs(());

fn write_as(id: u32) -> io::Result<WritingAs> {
    setfsuid(Uid::from_raw(id));
    setfsgid(Gid::from_raw(id));
    let guard = WritingAs(());
    // The kernel has taken away what root may do to files (capabilities(7), "Effect of user ID changes").
    let now = capabilities(None)?;
    set_capabilities(None, CapabilitySets { effective: now.permitted, ..now })?;
    Ok(guard)
}

impl Drop for WritingAs {
    fn drop(&mut self) {
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
    }
}

/// The user namespace of the process `pid`, and the host's IDs of its users; `None` where that is this process's own.
pub(super) fn foreign_users(pid: u32) -> io::Result<Option<(OwnedFd, Range<u32>)>> {
    let path = format!("/proc/{pid}/ns/user");
    if std::fs::read_link(&path)? == std::fs::read_link("/proc/self/ns/user")? {
        return Ok(None);
    }
    let users = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // `0 FIRST COUNT` (user_namespaces(7)).
    let map = std::fs::read_to_string(format!("/proc/{pid}/uid_map"))?;
    let mut numbers = map.split_ascii_whitespace().skip(1).map_while(|number| number.parse::<u32>().ok());
    let (first, count) = numbers.next().zip(numbers.next()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((users, first..first.saturating_add(count))))
}

/// Does `inside` as root of the user namespace `users`, in a process that has no more rights than that, and `meanwhile` here. This process must be root, and have one thread.
pub(super) fn act_as_root<T>(
    users: BorrowedFd<'_>,
    inside: impl FnOnce() -> io::Result<()>,
    meanwhile: impl FnOnce() -> T,
) -> io::Result<(io::Result<()>, T)> {
    let (mut told, mut tell) = io::pipe()?;
    match clone_process(0, None)? {
        Cloned::Child => {
            // What only the other side has open must end when it does.
            drop((told, meanwhile));
            let entered = rustix::thread::move_into_link_name_space(users, Some(LinkNameSpaceType::User)).map_err(io::Error::from);
            let done =
                entered.and_then(|()| become_root().map_err(|failure| io::Error::other(Error::from(failure)))).and_then(|()| inside());
            let said = done.as_ref().err().map(|error| tell.write_all(error.to_string().as_bytes()));
            exit_now(i32::from(said.is_some()))
        }
        Cloned::Parent { pid, .. } => {
            drop((tell, inside));
            let result = meanwhile();
            let mut text = String::new();
            told.read_to_string(&mut text)?;
            let done = match reap(pid)?.status {
                Ok(0) => Ok(()),
                _ if text.is_empty() => Err(io::Error::other("the process that did it was killed")),
                _ => Err(io::Error::other(text)),
            };
            Ok((done, result))
        }
    }
}

/// Makes the process that becomes init, in the user namespace of `io`; both processes return, init with what was mounted for it in `parked`. What goes wrong before there is
/// an init is told to `status`.
pub(super) fn clone_init(
    spec: &SandboxSpec,
    io: &mut SandboxIo,
    cgroup: &mut Option<Cgroup>,
    status: &OwnedFd,
    parked: &mut Option<Parked>,
) -> std::result::Result<Cloned, Failure> {
    let fail = |error: io::Error| Failure::Clone { errno: error.raw_os_error().unwrap_or(libc::EIO) };
    let (mut number, mut tell) = io::pipe().map_err(fail)?;
    match clone_process(libc::CLONE_NEWNS as u64, None).map_err(fail)? {
        Cloned::Parent { pid: porter, pidfd } => {
            drop(tell);
            let mut pid = [0; 4];
            if number.read_exact(&mut pid).is_err() {
                // It has said why, or was killed: its end is that of the sandbox.
                return Ok(Cloned::Parent { pid: porter, pidfd });
            }
            reap(porter).map_err(fail)?;
            let pid = u32::from_ne_bytes(pid);
            // Its number is its own until it is reaped here.
            let process = Pid::from_raw(pid.cast_signed()).ok_or(Failure::Clone { errno: libc::ESRCH })?;
            let pidfd = pidfd_open(process, PidfdFlags::empty()).map_err(|errno| fail(errno.into()))?;
            Ok(Cloned::Parent { pid, pidfd })
        }
        Cloned::Child => {
            drop(number);
            match carry(spec, io, cgroup) {
                Ok((Cloned::Child, made)) => {
                    *parked = Some(made);
                    Ok(Cloned::Child)
                }
                Ok((Cloned::Parent { pid, .. }, _)) => exit_now(i32::from(tell.write_all(&pid.to_ne_bytes()).is_err())),
                Err(failure) => init::fail(&failure, status),
            }
        }
    }
}

/// The work of the porter.
fn carry(spec: &SandboxSpec, io: &mut SandboxIo, cgroup: &mut Option<Cgroup>) -> std::result::Result<(Cloned, Parked), Failure> {
    let copies = std::mem::take(&mut io.mount_fds);
    let users = io.users.as_ref().ok_or(Failure::Invalid { spec: false })?;
    let filesystems = world::filesystems(spec)?;
    let parked = Outside::mount(spec, copies, filesystems, None, Some(users))?.park(spec)?;
    let user = &spec.process.user;
    terminal::give_pipes(&io.stdio, users.first + user.uid, users.first + user.gid);
    init::adjust_oom_score(spec.process.oom_score_adjust)?;
    credentials::raise_hard_limits(&spec.process)?;
    rustix::thread::move_into_link_name_space(users.users.as_fd(), Some(LinkNameSpaceType::User))
        .map_err(Failure::step("enter", "the user namespace"))?;
    let cloned = launch::clone_into(launch::namespaces(spec) | libc::CLONE_PARENT as u64, cgroup.as_mut())?;
    Ok((cloned, parked))
}

/// Takes the IDs of root in the user namespace that this process has just entered.
pub(super) fn become_root() -> std::result::Result<(), Failure> {
    become_user(0, 0)
}

/// The same as one of its users: who has made it, or entered it, may do everything in it whoever that is.
pub(super) fn become_user(uid: u32, gid: u32) -> std::result::Result<(), Failure> {
    let fail = || Failure::step::<Errno>("become", "root of the user namespace");
    match rustix::thread::set_thread_groups(&[]) {
        // Where groups are denied, those that there are mean nothing inside.
        Err(Errno::PERM) => {}
        other => other.map_err(fail())?,
    }
    let gid = rustix::fs::Gid::from_raw(gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(fail())?;
    let uid = rustix::fs::Uid::from_raw(uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(fail())
}
