//! Asking another program about system calls (config-linux.md, "Seccomp"; seccomp_unotify(2)).
//!
//! A process that loads a filter gets a descriptor by which it is asked; that is sent to the program's socket with the state of the container. From then on the filter judges
//! the process that loaded it, which may have to ask before it could send anything. So a helper sends, which has the same descriptors and was made before: it waits until
//! that of the filter is there, and closes it for both. After that only the program has it, and what becomes of it becomes of the system calls.
//!
//! The first calls that are judged are the one that waits for the helper (`wait4`), and the execution.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde::Serialize;

use super::Error;
use super::init::{Message, say};
use super::state::{OCI_VERSION, Report};
use crate::runtime::credentials::set_limit;
use crate::runtime::error::Failure;
use crate::runtime::seccomp::Filter;
use crate::runtime::spec::{Resource, Rlimit};
use crate::runtime::{apparmor, wire};
use crate::sys::process::{Cloned, clone_process, exit_now, inherited_descriptor, reap};

/// What is done with the socket.
const CONNECT: &str = "connect to the socket of `linux.seccomp.listenerPath`";

/// How often the helper looks whether the filter is loaded.
const LOOKS_AGAIN: Duration = Duration::from_micros(200);

/// A program that is asked about system calls.
#[derive(Debug)]
pub(super) struct Listener {
    /// The connection to it, which is made when the command is about to run.
    pub(super) program: Option<UnixStream>,
    pub(super) path: PathBuf,
    metadata: String,
    /// `/proc` as the caller sees it, where this process has the number that the caller knows it by.
    proc: OwnedFd,
    /// The container; its process has no number while that is being made.
    pub(super) state: Option<Report>,
}

/// What the program is told (`ContainerProcessState`).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Told<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: Option<Report>,
}

/// Whether a limit may leave a process without what it takes to hand a filter over.
pub(super) fn is_late(limit: &Rlimit) -> bool {
    matches!(limit.resource, Resource::Nofile | Resource::Nproc)
}

/// Connects to a program's socket.
pub(super) fn connect(path: &Path) -> Result<UnixStream, Error> {
    UnixStream::connect(path).map_err(Error::file(CONNECT, path))
}

impl Listener {
    /// Who listens at a socket, which is connected to when there is something to tell: it may take one after the other.
    pub(super) fn new(path: &str, metadata: &str) -> Result<Listener, Error> {
        let path = PathBuf::from(path);
        let kind = std::fs::metadata(&path).map_err(Error::file(CONNECT, &path))?.file_type();
        if !kind.is_socket() {
            return Err(Error::file(CONNECT, &path)(std::io::Error::from_raw_os_error(libc::ENOTSOCK)));
        }
        let proc = apparmor::host_proc().map_err(Error::file("open", "/proc"))?;
        Ok(Listener { program: None, path, metadata: metadata.to_owned(), proc, state: None })
    }

    /// Loads a filter into this process, and has the program asked. The limits count when it is loaded. That it cannot be is told to `caller` by the helper, which no filter judges.
    pub(super) fn load(&self, filter: &Filter, limits: &[Rlimit], caller: BorrowedFd<'_>) -> Result<(), Failure> {
        let program = self.program.as_ref().ok_or_else(unheard)?;
        let told = self.told()?;
        let own = rustix::process::getpid();
        let (mut numbers, mut number) = std::io::pipe().map_err(Failure::step("make", "a pipe"))?;
        let helper = match clone_process(libc::CLONE_FILES as u64, None).map_err(Failure::step("fork", "to hand the filter over"))? {
            Cloned::Child => {
                let handed_over =
                    hand_over(program, &mut numbers, &told, || limits.iter().try_for_each(|limit| set_limit(Some(own), limit)));
                exit_now(match handed_over {
                    Ok(()) => 0,
                    Err(failure) => {
                        say(caller, &Message::Failed(failure));
                        1
                    }
                })
            }
            Cloned::Parent { pid, .. } => pid,
        };
        let loaded = expect(program, &mut number).and_then(|()| filter.load_with_listener());
        match loaded {
            Ok(listener) => {
                // The helper closes it, in this process as well.
                let _ = listener.into_raw_fd();
                match reap(helper) {
                    Ok(ended) if ended.status != Ok(0) => Err(unheard()),
                    // So ends what is asked about where nobody has the descriptor any more.
                    Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Err(unheard()),
                    // Whether it can be waited for is up to the filter and the program.
                    _ => Ok(()),
                }
            }
            Err(error) => {
                if let Some(pid) = Pid::from_raw(helper.cast_signed()) {
                    let _ = rustix::process::kill_process(pid, Signal::KILL);
                }
                let _ = reap(helper);
                Err(Failure::step("load", "the system call filter")(error))
            }
        }
    }

    fn told(&self) -> Result<Vec<u8>, Failure> {
        let fail = || Failure::step::<std::io::Error>("read", "/proc/self");
        let own = rustix::fs::readlinkat(&self.proc, "self", Vec::new()).map_err(|errno| fail()(errno.into()))?;
        let pid = own.to_str().ok().and_then(|own| own.parse().ok()).ok_or_else(|| fail()(std::io::ErrorKind::InvalidData.into()))?;
        let mut state = self.state.clone();
        if let Some(state) = state.as_mut().filter(|state| state.pid == 0) {
            state.pid = pid;
        }
        let told = Told { oci_version: OCI_VERSION, fds: ["seccompFd"], pid, metadata: &self.metadata, state };
        serde_json::to_vec(&told).map_err(|error| Failure::step("describe", "the container")(std::io::Error::from(error)))
    }
}

/// Tells the helper which number the descriptor of the filter will have: the lowest that is free.
fn expect(program: &UnixStream, number: &mut std::io::PipeWriter) -> std::io::Result<()> {
    let free = rustix::io::fcntl_dupfd_cloexec(program, 0)?.as_raw_fd();
    number.write_all(&free.to_ne_bytes())
}

/// The helper: waits for the descriptor, sends it and closes it. It has the descriptors of the process that loads the filter, so it drops none.
fn hand_over(
    program: &UnixStream,
    numbers: &mut std::io::PipeReader,
    told: &[u8],
    limit: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Failure::step("end", "with the command"))?;
    let mut number = [0; 4];
    numbers.read_exact(&mut number).map_err(Failure::step("read", "a pipe"))?;
    let number = i32::from_ne_bytes(number);
    let listener = loop {
        match inherited_descriptor(number) {
            Some(listener) => break listener,
            None => std::thread::sleep(LOOKS_AGAIN),
        }
    };
    limit()?;
    wire::send(program.as_fd(), told, &[listener.as_fd()]).map_err(|_| unheard())
}

/// The program is not there any more.
fn unheard() -> Failure {
    Failure::step("tell of the filter", "the program of `linux.seccomp.listenerPath`")(std::io::Error::from_raw_os_error(libc::EPIPE))
}
