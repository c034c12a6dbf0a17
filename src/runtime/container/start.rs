//! Starting a container: the supervisor process, and what it says about the start.
//!
//! ```text
//!   starter                              supervisor
//!     |-- exec: SUPERVISOR MODE DIR FD ---->| stdin: a socket
//!     |-- the length of an Outlook, and it->| makes ready what any container needs
//!     |   (makes the container)             |
//!     |-- one byte: GO -------------------->| takes the lock, network, launches
//!     |<-- stdout: one Report, as a line ---|
//!     |<== stdin: the attach protocol =====>| of a starter that is the first client
//! ```
//!
//! So the process is there before its container is, which saves a third of the time that a short `run` takes. Where it is never told to go, it ends,
//! and what a killed `run --rm` has made of the container by then goes with it.
//! The attach connection is there before the container is, too, so its client misses no byte.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{Attachment, EndpointSpec, Error};
use crate::sys::{SealedProgram, THIS_PROGRAM};

/// The first argument by which `main` knows that this process is a supervisor: the others go to [`supervisor_main`](super::supervisor_main).
pub const SUPERVISOR: &str = "strake-supervisor";

/// More than any failure has to say.
const MAX_REPORT: u64 = 1 << 20;

/// Whether the starter is the container's first client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It gets all output and gives the input.
    Attached,
    /// It goes away.
    Detached,
}

impl Mode {
    /// How the mode is spelled in the supervisor's arguments.
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Attached => "attached",
            Mode::Detached => "detached",
        }
    }
}

/// How supervisors are executed.
#[derive(Clone, Debug)]
pub struct Starter {
    /// The program.
    pub program: PathBuf,
    /// Its arguments before the mode and the directory.
    pub args: Vec<OsString>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
}

impl Default for Starter {
    /// This binary again, with an empty environment.
    fn default() -> Starter {
        Starter { program: PathBuf::from(THIS_PROGRAM), args: vec![SUPERVISOR.into()], env: Vec::new() }
    }
}

/// A container that has been started.
#[derive(Debug)]
pub struct Started {
    /// Its PID 1, as the host sees it.
    pub pid: u32,
    /// What the user should know (a network that could not be had).
    pub warnings: Vec<String>,
    /// The connection of [`Mode::Attached`].
    pub attachment: Option<Attachment>,
    supervisor: Child,
}

impl Started {
    /// Collects the supervisor process if it has ended. Only a process that lives much longer than its containers needs to.
    pub fn reap(&mut self) -> bool {
        matches!(self.supervisor.try_wait(), Ok(Some(_)) | Err(_))
    }
}

/// How the start went; one JSON object on the supervisor's standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Report {
    Started {
        pid: u32,
        warnings: Vec<String>,
    },
    Failed {
        code: u8,
        message: String,
        hint: Option<String>,
    },
    /// Another supervisor has the container.
    Running,
}

/// What the starter says when the container is there.
pub(super) const GO: [u8; 1] = *b"\n";

/// What a starter knows of a container before it makes it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outlook {
    /// The places on networks that it will probably have. They are made already; where it gets others, these are given back.
    pub endpoints: Vec<EndpointSpec>,
    /// Whether it makes one that is removed at its end: then this is also the end of one that it was killed over.
    #[serde(default)]
    pub removes_itself: bool,
}

/// A supervisor that waits to be told that its container is there. Dropped, it ends.
#[derive(Debug)]
pub struct Waiting {
    dir: PathBuf,
    mode: Mode,
    supervisor: Option<(Child, UnixStream)>,
}

impl Starter {
    /// Starts the container in `dir`, and returns when its command runs or could not be started.
    ///
    /// # Errors
    /// [`Error::Running`]: it runs, or somebody else is starting it.
    pub fn start(&self, dir: &Path, mode: Mode) -> Result<Started, Error> {
        match dir.canonicalize() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::Gone),
            other => self.ahead(&other.map_err(Error::file("open", dir))?, mode, &Outlook::default())?.go(),
        }
    }

    /// Starts the supervisor of a container that will be in `dir`, an absolute path.
    ///
    /// # Errors
    /// The process cannot be started.
    pub fn ahead(&self, dir: &Path, mode: Mode, outlook: &Outlook) -> Result<Waiting, Error> {
        // Cannot fail: strings and numbers into memory.
        let outlook = serde_json::to_vec(outlook).unwrap_or_default();
        let length = u32::try_from(outlook.len()).unwrap_or_default().to_le_bytes();
        let (mut ours, theirs) = UnixStream::pair().map_err(Error::socket("make a connection to"))?;
        let failed = |source| Error::Spawn { program: self.program.clone(), source };
        let program = SealedProgram::of(&self.program).map_err(failed)?;
        let mut command = Command::new(program.path());
        let number = program.pass_on().map_err(failed)?.to_string();
        command.args(&self.args).arg(mode.name()).arg(dir).arg(number).env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::piped()).stderr(Stdio::null());
        // Taken by the kernel: nobody has to read it yet.
        ours.write_all(&[&length[..], &outlook].concat()).map_err(Error::socket("talk to"))?;
        let supervisor = command.spawn().map_err(failed)?;
        Ok(Waiting { dir: dir.to_owned(), mode, supervisor: Some((supervisor, ours)) })
    }
}

impl Waiting {
    /// Has it start the container, and returns when its command runs or could not be started.
    ///
    /// # Errors
    /// [`Error::Running`]: it runs, or somebody else is starting it.
    pub fn go(mut self) -> Result<Started, Error> {
        let Some((mut supervisor, mut connection)) = self.supervisor.take() else { return Err(Error::SupervisorDied) };
        let told = connection.write_all(&GO);
        let attachment = (self.mode == Mode::Attached).then(|| Attachment::new(&self.dir, connection));
        let report = match supervisor.stdout.take().filter(|_| told.is_ok()) {
            Some(stdout) => read_report(stdout).map_err(Error::socket("hear from"))?,
            None => None,
        };
        match report {
            Some(Report::Started { pid, warnings }) => Ok(Started { pid, warnings, attachment, supervisor }),
            Some(Report::Failed { code, message, hint }) => {
                let _ = supervisor.wait();
                Err(Error::Start { message, code, hint })
            }
            Some(Report::Running) => {
                let _ = supervisor.wait();
                Err(Error::Running)
            }
            None => {
                let _ = supervisor.wait();
                Err(Error::SupervisorDied)
            }
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // It ends when it sees the connection closed, and may wait for others before: nobody waits for it.
        drop(self.supervisor.take());
    }
}

/// The report: the first line that is one. Not read to the end of the pipe, which some other process may hold open.
fn read_report(stdout: impl Read) -> std::io::Result<Option<Report>> {
    let mut lines = BufReader::new(stdout.take(MAX_REPORT));
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        if let Ok(report) = serde_json::from_slice(&line) {
            return Ok(Some(report));
        }
        line.clear();
    }
    Ok(None)
}
