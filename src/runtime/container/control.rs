//! What any process can do with a running container, through the supervisor's socket. Signals go through the supervisor, which is the container's parent: it cannot hit another
//! process that got the same PID.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::protocol::{ClientFrame, Incoming, MAX_PAYLOAD, ServerFrame};
use super::start::Report;
use super::state::ContainerDir;
use super::{Attachment, Error, ExecRequest, State, load_spec, load_state};
use crate::runtime::TerminalSize;

const SIGKILL: i32 = 9;

/// Attaches to a running container: its output from now on.
pub fn attach(dir: &Path) -> Result<Attachment, Error> {
    let stream = connect(dir)?;
    send(&stream, &ClientFrame::Subscribe)?;
    Ok(Attachment::new(dir, stream))
}

/// Sends a signal to the container's PID 1; returns when it is sent, or where that is SIGKILL, when the container has ended, as with Docker (or does not end at once). A container that stands still goes
/// on, as it could not hear it otherwise.
pub fn kill(dir: &Path, signal: i32) -> Result<(), Error> {
    if !(1..=64).contains(&signal) {
        return Err(Error::NoSuchSignal(signal));
    }
    tell(dir, &ClientFrame::Signal(signal))?;
    if let (Ok(State::Running { cgroups, .. }), Some(id)) = (load_state(dir), dir.file_name().and_then(|id| id.to_str())) {
        super::pause::unpause(id, &cgroups)?;
    }
    if signal == SIGKILL {
        // One of `--rm` may be gone by now.
        let _ = unlocked(dir, PROMPT);
    }
    Ok(())
}

/// Lets a running container take in what its spec says of networks and names, and returns when it has.
///
/// # Errors
/// [`Error::Networks`]: one of them cannot be had.
pub fn change_networks(dir: &Path) -> Result<(), Error> {
    let mut stream = connect(dir)?;
    send(&stream, &ClientFrame::Networks)?;
    let (mut incoming, mut buffer) = (Incoming::default(), [0; 4096]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(Error::NotRunning),
            Ok(length) => incoming.push(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::socket("hear from")(error)),
        }
        match incoming.next_of_server() {
            Ok(None) => {}
            Ok(Some(ServerFrame::Networks([]))) => return Ok(()),
            Ok(Some(ServerFrame::Networks(message))) => {
                return Err(Error::Networks { message: String::from_utf8_lossy(message).into_owned() });
            }
            // It has just ended.
            Ok(Some(ServerFrame::Exited { .. })) => return Err(Error::NotRunning),
            Ok(Some(_)) | Err(_) => return Err(Error::socket("understand")(std::io::Error::from(std::io::ErrorKind::InvalidData))),
        }
    }
}

/// Gives the container's terminal a size.
pub fn resize(dir: &Path, size: TerminalSize) -> Result<(), Error> {
    tell(dir, &ClientFrame::Resize(size))
}

/// Gives the terminal of a command in the container a size.
pub(super) fn resize_exec(dir: &Path, id: &str, size: TerminalSize) -> Result<(), Error> {
    match super::exec::addressed(id, &ClientFrame::Resize(size)) {
        Some(frame) => tell_bytes(dir, &frame),
        None => Ok(()),
    }
}

/// Starts a command in a running container; gives its process ID, as the host sees it, and the connection to it.
pub fn exec(dir: &Path, request: &ExecRequest) -> Result<(u32, Attachment), Error> {
    let mut stream = connect(dir)?;
    let json = serde_json::to_vec(request).map_err(|source| Error::Damaged { path: dir.to_owned(), source })?;
    let mut bytes = Vec::with_capacity(json.len() + 64);
    json.chunks(MAX_PAYLOAD).for_each(|piece| ClientFrame::RequestPart(piece).encode(&mut bytes));
    ClientFrame::Exec.encode(&mut bytes);
    stream.write_all(&bytes).map_err(|source| match source.kind() {
        // It has ended before it took the connection.
        std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => Error::NotRunning,
        _ => Error::Socket { verb: "tell", source },
    })?;
    // Byte by byte as far as this frame goes: what follows belongs to the attachment.
    let mut incoming = Incoming::default();
    let mut byte = [0; 1];
    let _ = stream.set_read_timeout(Some(PROMPT));
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return Err(Error::NotRunning),
            Ok(_) => incoming.push(&byte),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // A command may take its time to start; a supervisor that stands still starts none.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => match supervisor_of(dir) {
                Some((pid, _)) if is_stopped(pid) => return Err(Error::Stopped { pid }),
                _ => continue,
            },
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Err(Error::NotRunning),
            Err(error) => return Err(Error::socket("hear from")(error)),
        }
        match incoming.next_of_server() {
            Ok(None) => {}
            Ok(Some(ServerFrame::Started(pid))) => {
                let _ = stream.set_read_timeout(None);
                return Ok((pid, Attachment::of_exec(dir, stream, &request.id)));
            }
            // It has ended before it read what is asked of it.
            Ok(Some(ServerFrame::Exited { .. })) => return Err(Error::NotRunning),
            Ok(Some(ServerFrame::Failed(report))) => match serde_json::from_slice(report) {
                Ok(Report::Failed { code, message, hint }) => return Err(Error::Start { message, code, hint }),
                _ => return Err(Error::socket("understand")(std::io::Error::from(std::io::ErrorKind::InvalidData))),
            },
            Ok(Some(_)) | Err(_) => return Err(Error::socket("understand")(std::io::Error::from(std::io::ErrorKind::InvalidData))),
        }
    }
}

/// The root directory of a running container, which its supervisor can open where this process is in another user namespace.
pub(super) fn root(dir: &Path) -> Result<OwnedFd, Error> {
    let stream = connect(dir)?;
    send(&stream, &ClientFrame::Root)?;
    let _ = stream.set_read_timeout(Some(PROMPT));
    let answer = crate::runtime::wire::receive(stream.as_fd(), 16).map_err(Error::socket("hear from"))?;
    answer.and_then(|(_, mut descriptors)| descriptors.pop()).ok_or(Error::NotRunning)
}

/// The IDs of the commands that run in a running container beside its own.
pub fn execs(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir.join("execs")) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Asks the container to stop, kills it after a while, and gives its exit code. `None` takes the signal and the time that it was made with.
pub fn stop(dir: &Path, signal: Option<i32>, timeout: Option<Duration>) -> Result<u8, Error> {
    let spec = load_spec(dir).map_err(|error| if dir.exists() { error } else { Error::Gone })?;
    let stream = match connect(dir) {
        Err(Error::NotRunning) => return wait(dir),
        other => other?,
    };
    send(&stream, &ClientFrame::Signal(signal.unwrap_or(spec.stop_signal)))?;
    let exited = match timeout.unwrap_or(spec.stop_timeout) {
        Duration::ZERO => false,
        // As Docker has it, a time that is too long for a clock means for ever.
        time => wait_exited(&stream, Some(time))?,
    };
    if !exited {
        drop(stream);
        destroy(dir)?;
    }
    wait(dir)
}

/// How long a supervisor may take for what it does at once.
const PROMPT: Duration = Duration::from_secs(5);

/// Ends a container whatever happens, and leaves alone what has ended or is gone: by SIGKILL, or where its supervisor does not answer (somebody has stopped it), together with that.
pub fn destroy(dir: &Path) -> Result<(), Error> {
    match connect(dir) {
        Ok(stream) => {
            if send(&stream, &ClientFrame::Signal(SIGKILL)).is_ok() && wait_exited(&stream, Some(PROMPT))? && unlocked(dir, PROMPT)? {
                return Ok(());
            }
        }
        Err(Error::NotRunning) if unlocked(dir, Duration::ZERO)? => return Ok(()),
        // It is starting, or ending.
        Err(_) if unlocked(dir, PROMPT)? => return Ok(()),
        Err(_) => {}
    }
    // The kernel kills the container with its parent.
    if let Some((_, supervisor)) = supervisor_of(dir) {
        let _ = crate::sys::process::signal_pidfd(supervisor.as_fd(), SIGKILL);
    }
    if unlocked(dir, PROMPT)? { Ok(()) } else { Err(Error::Socket { verb: "end", source: std::io::ErrorKind::TimedOut.into() }) }
}

/// Whether no supervisor holds the container's lock, at the latest after a while.
fn unlocked(dir: &Path, patience: Duration) -> Result<bool, Error> {
    let (dir, deadline) = (ContainerDir::new(dir), Instant::now() + patience);
    loop {
        if !dir.is_locked()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The process that holds the container's lock, which the kernel tells in `/proc/locks`.
fn supervisor_of(dir: &Path) -> Option<(i32, OwnedFd)> {
    let inode = std::fs::metadata(ContainerDir::new(dir).file("lock")).ok()?.ino().to_string();
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let holder = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let at = fields.iter().position(|field| *field == "FLOCK")?;
        (fields.get(at + 4)?.rsplit(':').next()? == inode).then(|| fields.get(at + 3)?.parse::<i32>().ok()).flatten()
    })?;
    let process = rustix::process::pidfd_open(rustix::process::Pid::from_raw(holder)?, rustix::process::PidfdFlags::empty()).ok()?;
    // Another file may have that number on another disk: a supervisor names its container.
    let line = std::fs::read(format!("/proc/{holder}/cmdline")).ok()?;
    let id = dir.file_name()?.to_str()?;
    let is_ours = String::from_utf8_lossy(&line).split('\0').any(|argument| argument.ends_with(id));
    is_ours.then_some((holder, process))
}

/// Whether a process has been stopped by a signal, as `/proc/PID/stat` tells behind its name.
fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
}

/// Waits for the container's end and gives its exit code, also where it removes itself then.
pub fn wait(dir: &Path) -> Result<u8, Error> {
    let left = ContainerDir::new(dir).wait_unlocked()?;
    match (load_state(dir), left) {
        (Ok(State::Exited { code, .. }), _) | (Err(Error::Gone), Some(code)) => Ok(code),
        (Ok(State::Created | State::Running { .. } | State::Restarting { .. }), _) => Err(Error::NotRunning),
        (Err(error), _) => Err(error),
    }
}

pub(super) fn connect(dir: &Path) -> Result<UnixStream, Error> {
    let (_open, path) = ContainerDir::new(dir).socket()?;
    UnixStream::connect(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Error::NotRunning,
        _ => Error::Socket { verb: "reach", source },
    })
}

fn send(mut stream: &UnixStream, frame: &ClientFrame<'_>) -> Result<(), Error> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    stream.write_all(&bytes).map_err(Error::socket("tell"))
}

/// Says one thing over a connection of its own, and returns when it was heard.
fn tell(dir: &Path, frame: &ClientFrame<'_>) -> Result<(), Error> {
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    tell_bytes(dir, &bytes)
}

fn tell_bytes(dir: &Path, frame: &[u8]) -> Result<(), Error> {
    let mut stream = connect(dir)?;
    stream.write_all(frame).map_err(Error::socket("tell"))?;
    stream.shutdown(Shutdown::Write).map_err(Error::socket("tell"))?;
    // The supervisor closes when it has read to our end; one that breaks off has an ended container. One that was stopped will hear it later.
    let _ = stream.set_read_timeout(Some(PROMPT));
    let _ = std::io::copy(&mut &stream, &mut std::io::sink());
    Ok(())
}

/// Waits until the supervisor reports the exit or goes away; `false` when that takes longer than `timeout`.
fn wait_exited(mut stream: &UnixStream, timeout: Option<Duration>) -> Result<bool, Error> {
    // A time that is too long for the clock never comes.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let (mut incoming, mut buffer) = (Incoming::default(), [0; 256]);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        stream.set_read_timeout(left).map_err(Error::socket("wait for"))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(length) => incoming.push(&buffer[..length]),
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => continue,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(true),
            Err(error) => return Err(Error::socket("wait for")(error)),
        }
        if matches!(incoming.next_of_server(), Ok(Some(ServerFrame::Exited { .. })) | Err(_)) {
            return Ok(true);
        }
    }
}
