//! What can go wrong with a bundle's container, in words that its callers look for.
//!
//! Engines that call an OCI runtime tell failures apart by its message: `does not exist`, `not running`, `executable file not found`, `no such file or directory`,
//! `permission denied`. So the messages here hold these words.

use std::io;
use std::path::PathBuf;

use crate::runtime::{self, ExecError};

/// Why a container of a bundle could not be made, found, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ID cannot be one.
    #[error("invalid container ID `{0}`: it may hold letters, digits, `_`, `+`, `-` and `.`, and has 1024 of them at most")]
    InvalidId(String),
    /// There is such a container.
    #[error("a container with the ID `{0}` exists already")]
    Exists(String),
    /// There is none.
    #[error("the container `{0}` does not exist")]
    NoSuchContainer(String),
    /// It has ended, so nothing can be asked of it.
    #[error("container not running: `{0}` is stopped")]
    NotRunning(String),
    /// It is not in the state that the operation needs.
    #[error("cannot {verb} the container `{id}`: it is {status}")]
    WrongStatus {
        /// What was tried.
        verb: &'static str,
        /// The container.
        id: String,
        /// What it is.
        status: &'static str,
    },
    /// `config.json`, or another document, cannot be parsed.
    #[error("cannot parse `{}`", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A member of `config.json` has a value that makes no sense.
    #[error("config.json: {member}: {reason}")]
    Invalid {
        /// The member (`linux.namespaces`).
        member: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file could not be read, written, made or removed.
    #[error("cannot {verb} `{}`", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Something with a process failed.
    #[error("cannot {0}")]
    Kernel(&'static str, #[source] io::Error),
    /// Something with a unit of systemd failed.
    #[error("cannot {verb} the systemd unit `{unit}`")]
    Unit {
        /// What was tried.
        verb: &'static str,
        /// The unit.
        unit: String,
        /// What the bus or systemd said.
        source: io::Error,
    },
    /// A hook failed.
    #[error("the {moment} hook `{path}` failed: {reason}")]
    Hook {
        /// When it was run.
        moment: String,
        /// The program.
        path: String,
        /// How it ended, with what it wrote.
        reason: String,
    },
    /// The setup in the container's namespaces failed.
    #[error(transparent)]
    Setup(SetupError),
    /// A network device cannot become the container's.
    #[error(transparent)]
    Network(runtime::network::Error),
    /// The local terminal failed.
    #[error(transparent)]
    Terminal(runtime::container::Error),
    /// The container's first process ended before it was set up.
    #[error("the container's init process ended while it was set up")]
    InitEnded,
    /// What was asked for is not supported.
    #[error("{0}")]
    Unsupported(String),
}

/// A failure that every sandbox can have, in the words that callers of OCI runtimes know those of an execution by.
#[derive(Debug)]
pub struct SetupError(runtime::Error);

impl std::fmt::Display for SetupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&wording(&self.0))
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl From<runtime::Error> for Error {
    fn from(error: runtime::Error) -> Error {
        Error::Setup(SetupError(error))
    }
}

impl Error {
    /// A failure with a file, for `map_err`.
    pub(super) fn file<E: Into<io::Error>>(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Error {
        let path = path.into();
        move |source| Error::File { verb, path, source: source.into() }
    }

    /// A failure of a system call, for `map_err`.
    pub(super) fn kernel<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Kernel(what, source.into())
    }

    /// A member of `config.json` that makes no sense.
    pub(super) fn invalid(member: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Invalid { member: member.into(), reason: reason.into() }
    }
}

fn wording(error: &runtime::Error) -> String {
    match error {
        runtime::Error::Exec(ExecError::NotFound { command, path: Some(_) }) => {
            format!("exec `{command}`: executable file not found in $PATH")
        }
        runtime::Error::Exec(ExecError::NotFound { command, path: None }) => format!("exec `{command}`: no such file or directory"),
        runtime::Error::Exec(ExecError::MissingInterpreter { command, interpreter }) => {
            format!("exec `{command}`: its interpreter `{interpreter}`: no such file or directory")
        }
        runtime::Error::Exec(ExecError::IsDirectory { command }) => format!("exec `{command}`: is a directory: permission denied"),
        other => other.to_string(),
    }
}
