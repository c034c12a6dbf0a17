//! Standard streams of a sandbox: descriptors of the caller, or a terminal of the sandbox's own `/dev/pts`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Gid, OFlags, Uid};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};

use super::error::Failure;
use super::io::Stdio;
use super::mounts::{Target, TargetLinks, attach, clone_mount};
use super::plan::MountPointKind;
use super::spec::ProcessSpec;
use super::wire;
use crate::path::RootPath;
use crate::sys::RootDir;

/// The message that carries the terminal's other side.
pub(super) const TERMINAL: &[u8] = b"terminal";

/// What becomes of `/dev/console` when a terminal is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Console {
    /// It is the terminal.
    Replace,
    /// It stays that of the sandbox's first process.
    Keep,
}

/// The streams, at numbers that are in nobody's way.
pub(super) enum Streams {
    Descriptors([OwnedFd; 3]),
    /// To be opened when `/dev/pts` is there.
    Wanted,
    Terminal(OwnedFd),
}

impl Streams {
    /// Moves the descriptors above 2, so that none of them is overwritten when they are installed.
    pub(super) fn prepare(stdio: Stdio) -> Result<Streams, Failure> {
        let Stdio::Descriptors { stdin, stdout, stderr } = stdio else { return Ok(Streams::Wanted) };
        let fail = || Failure::step::<Errno>("copy", "standard streams");
        let streams = [fcntl_dupfd_cloexec(&stdin, 3), fcntl_dupfd_cloexec(&stdout, 3), fcntl_dupfd_cloexec(&stderr, 3)];
        // Their old numbers may be 0 to 2, which are overwritten later: nobody must close them then.
        for fd in [stdin, stdout, stderr] {
            std::mem::forget(fd);
        }
        let [stdin, stdout, stderr] = streams;
        Ok(Streams::Descriptors([stdin.map_err(fail())?, stdout.map_err(fail())?, stderr.map_err(fail())?]))
    }

    /// Opens the terminal inside of the root and sends its other side to the parent.
    pub(super) fn open_terminal(self, process: &ProcessSpec, status: BorrowedFd<'_>, console: Console) -> Result<Streams, Failure> {
        let Streams::Wanted = self else { return Ok(self) };
        let fail = || Failure::step::<Errno>("open", "a terminal");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let open = OFlags::from_bits_retain(flags.bits()) | OFlags::NOFOLLOW;
        let ours = rustix::fs::open("/dev/pts/ptmx", open, rustix::fs::Mode::empty()).map_err(fail())?;
        // In a sandbox that runs already, something else may lie there by now.
        const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;
        if !rustix::fs::fstatfs(&ours).is_ok_and(|stat| stat.f_type == DEVPTS_SUPER_MAGIC) {
            return Err(fail()(Errno::NODEV));
        }
        unlockpt(&ours).map_err(fail())?;
        let theirs = ioctl_tiocgptpeer(&ours, flags).map_err(fail())?;
        if let Some(size) = process.terminal {
            let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&ours, size).map_err(fail())?;
        }
        let name = rustix::pty::ptsname(&ours, Vec::new()).map_err(fail())?;
        if console == Console::Replace {
            show_console(Path::new(std::ffi::OsStr::new(&*name.to_string_lossy())))?;
        }
        wire::send(status, TERMINAL, &[ours.as_fd()]).map_err(Failure::step("hand over", "the terminal"))?;
        Ok(Streams::Terminal(theirs))
    }

    /// Makes them the standard streams of this process, which becomes the leader of a new session.
    pub(super) fn install(self, process: &ProcessSpec) -> Result<(), Failure> {
        self.connect(process)?.lead()
    }

    /// Makes them the standard streams of this process.
    pub(super) fn connect(self, process: &ProcessSpec) -> Result<Connected, Failure> {
        let fail = || Failure::step::<Errno>("install", "standard streams");
        let (stdin, stdout, stderr) = match &self {
            Streams::Descriptors([stdin, stdout, stderr]) => (stdin, stdout, stderr),
            Streams::Terminal(terminal) => (terminal, terminal, terminal),
            Streams::Wanted => return Err(Failure::Invalid { spec: false }),
        };
        rustix::stdio::dup2_stdin(stdin).map_err(fail())?;
        rustix::stdio::dup2_stdout(stdout).map_err(fail())?;
        rustix::stdio::dup2_stderr(stderr).map_err(fail())?;
        for fd in [stdin, stdout, stderr] {
            give_to_user(fd.as_fd(), process);
        }
        Ok(Connected { terminal: matches!(self, Streams::Terminal(_)) })
    }
}

/// Standard streams that are in their places, here and in the children of this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connected {
    terminal: bool,
}

impl Connected {
    /// Makes this process the leader of a new session, with the terminal if there is one.
    pub(super) fn lead(self) -> Result<(), Failure> {
        // PID 1 of a new namespace leads no group yet, nor does its child.
        rustix::process::setsid().map_err(Failure::step("begin", "a session"))?;
        if self.terminal {
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).map_err(Failure::step("take", "the terminal"))?;
        }
        Ok(())
    }
}

/// Lets the user open `/dev/stdout` and the like: pipes and terminals belong to who made them. Files of the host stay as they are.
fn give_to_user(fd: BorrowedFd<'_>, process: &ProcessSpec) {
    if process.user.uid == 0 {
        return;
    }
    let Ok(stat) = rustix::fs::fstat(fd) else { return };
    let is_pipe = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo;
    if is_pipe || rustix::termios::isatty(fd) {
        let group = is_pipe.then(|| Gid::from_raw(process.user.gid));
        let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(process.user.uid)), group);
    }
}

/// Gives pipes to a user and group of the host. Files of the host stay as they are.
pub(super) fn give_pipes(stdio: &Stdio, uid: u32, gid: u32) {
    let Stdio::Descriptors { stdin, stdout, stderr } = stdio else { return };
    for fd in [stdin, stdout, stderr] {
        let is_pipe = rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
        if is_pipe {
            // They serve all the same where they cannot be opened by name.
            let _ = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        }
    }
}

fn show_console(terminal: &Path) -> Result<(), Failure> {
    let path = RootPath::new("/dev/console");
    let fail = || Failure::step("mount the terminal on", &path);
    let root = RootDir::open(Path::new("/")).map_err(fail())?;
    let target = Target { root: &root, path: &path, links: TargetLinks::Refuse };
    target.create(MountPointKind::File).map_err(fail())?;
    let at = target.open().map_err(fail())?;
    let copy = clone_mount(rustix::fs::CWD, terminal, false).map_err(fail())?;
    attach(copy.as_fd(), at.as_fd()).map_err(fail())
}
