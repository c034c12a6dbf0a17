//! The standard streams of a container's process, or of a command in it: what the process gets, and the other ends.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::StdinMode;
use super::log::LogStream;
use crate::runtime::Stdio;

/// A stream that a process writes to.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) fd: OwnedFd,
    pub(super) stream: LogStream,
}

/// Our ends; all are empty with a terminal, whose one end comes with the process.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) outputs: Vec<Output>,
    pub(super) input: Option<OwnedFd>,
}

/// Both sides of the standard streams.
#[derive(Debug)]
pub(super) struct Streams {
    inner: Stdio,
    ends: Ends,
}

impl Streams {
    /// Pipes, or a terminal.
    pub(super) fn new(tty: bool, stdin: StdinMode) -> std::io::Result<Streams> {
        if tty {
            return Ok(Streams { inner: Stdio::Terminal, ends: Ends::default() });
        }
        let (stdin, input) = match stdin {
            StdinMode::Closed => (null()?, None),
            StdinMode::Once | StdinMode::Open => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                (read, Some(write))
            }
        };
        let (out, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let outputs = vec![Output { fd: out, stream: LogStream::Stdout }, Output { fd: err, stream: LogStream::Stderr }];
        Ok(Streams { inner: Stdio::Descriptors { stdin, stdout, stderr }, ends: Ends { outputs, input } })
    }

    /// No input, and output that nobody sees.
    pub(super) fn nowhere() -> std::io::Result<Streams> {
        Ok(Streams { inner: Stdio::Descriptors { stdin: null()?, stdout: null()?, stderr: null()? }, ends: Ends::default() })
    }

    /// The process's side and ours.
    pub(super) fn split(self) -> (Stdio, Ends) {
        (self.inner, self.ends)
    }
}

/// `/dev/null`.
pub(super) fn null() -> std::io::Result<OwnedFd> {
    Ok(rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}
