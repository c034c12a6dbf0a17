//! What any process can do with a running container, through the supervisor's socket. Signals go through the supervisor, which is the container's parent: it cannot hit another
//! process that got the same PID.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::protocol::{ClientFrame, Incoming, ServerFrame};
use super::state::ContainerDir;
use super::{Attachment, Error, State, load_spec, load_state};
use crate::runtime::TerminalSize;

const SIGKILL: i32 = 9;

/// Attaches to a running container: its output from now on.
pub fn attach(dir: &Path) -> Result<Attachment, Error> {
    let stream = connect(dir)?;
    send(&stream, &ClientFrame::Subscribe)?;
    Ok(Attachment::new(dir, stream))
}

/// Sends a signal to the container's PID 1; returns when it is sent.
pub fn kill(dir: &Path, signal: i32) -> Result<(), Error> {
    if !(1..=64).contains(&signal) {
        return Err(Error::NoSuchSignal(signal));
    }
    tell(dir, &ClientFrame::Signal(signal))
}

/// Gives the container's terminal a size.
pub fn resize(dir: &Path, size: TerminalSize) -> Result<(), Error> {
    tell(dir, &ClientFrame::Resize(size))
}

/// Asks the container to stop, kills it after a while, and gives its exit code. `None` takes the signal and the time that it was made with.
pub fn stop(dir: &Path, signal: Option<i32>, timeout: Option<Duration>) -> Result<u8, Error> {
    let spec = load_spec(dir)?;
    let stream = match connect(dir) {
        Err(Error::NotRunning { .. }) => return wait(dir),
        other => other?,
    };
    send(&stream, &ClientFrame::Signal(signal.unwrap_or(spec.stop_signal)))?;
    let exited = wait_exited(&stream, Some(timeout.unwrap_or(spec.stop_timeout)))?;
    if !exited {
        send(&stream, &ClientFrame::Signal(SIGKILL))?;
        wait_exited(&stream, None)?;
    }
    wait(dir)
}

/// Waits for the container's end and gives its exit code.
pub fn wait(dir: &Path) -> Result<u8, Error> {
    ContainerDir::new(dir).wait_unlocked()?;
    match load_state(dir)? {
        State::Exited { code, .. } => Ok(code),
        State::Created | State::Running { .. } => Err(Error::NotRunning { dir: dir.to_owned() }),
    }
}

pub(super) fn connect(dir: &Path) -> Result<UnixStream, Error> {
    let (_open, path) = ContainerDir::new(dir).socket()?;
    UnixStream::connect(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => Error::NotRunning { dir: dir.to_owned() },
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
    let stream = connect(dir)?;
    send(&stream, frame)?;
    stream.shutdown(Shutdown::Write).map_err(Error::socket("tell"))?;
    // The supervisor closes when it has read to our end; one that breaks off has an ended container.
    let _ = std::io::copy(&mut &stream, &mut std::io::sink());
    Ok(())
}

/// Waits until the supervisor reports the exit or goes away; `false` when that takes longer than `timeout`.
fn wait_exited(mut stream: &UnixStream, timeout: Option<Duration>) -> Result<bool, Error> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
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
