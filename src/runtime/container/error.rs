//! What can go wrong with a container's life.

use std::io;
use std::path::{Path, PathBuf};

/// A failure around one container.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the container's directory could not be used.
    #[error("cannot {verb} `{}`", path.display())]
    File {
        /// What was being done.
        verb: &'static str,
        /// To which file.
        path: PathBuf,
        /// What stopped it.
        source: io::Error,
    },
    /// A file of the container's directory has no sense.
    #[error("`{}` is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The container runs already.
    #[error("the container is running")]
    Running,
    /// The container does not run.
    #[error("the container is not running")]
    NotRunning,
    /// The container's directory has been removed.
    #[error("the container is gone")]
    Gone,
    /// The supervisor could not be started.
    #[error("cannot start the supervisor `{}`", program.display())]
    Spawn {
        /// What was executed.
        program: PathBuf,
        /// What stopped it.
        source: io::Error,
    },
    /// The supervisor ended before it said anything.
    #[error("the container's supervisor ended without a word")]
    SupervisorDied,
    /// The supervisor could not start the container.
    #[error("{message}")]
    Start {
        /// The failure and its causes, joined.
        message: String,
        /// 125 a failure of ours, 126 the command cannot be executed, 127 there is no such command.
        code: u8,
        /// What to do.
        hint: Option<String>,
    },
    /// The conversation with the supervisor broke.
    #[error("cannot {verb} the container's supervisor")]
    Socket {
        /// What was being done.
        verb: &'static str,
        /// What stopped it.
        source: io::Error,
    },
    /// A container whose namespaces are to be shared does not run.
    #[error("the container `{}`, whose namespaces are to be shared, is not running", id.chars().take(12).collect::<String>())]
    OtherNotRunning {
        /// Its ID.
        id: String,
    },
    /// The supervisor stands still: somebody has sent it SIGSTOP.
    #[error("the container's supervisor (process {pid}) is stopped")]
    Stopped {
        /// The supervisor.
        pid: i32,
    },
    /// The local terminal or streams could not be used.
    #[error("cannot {verb}")]
    Local {
        /// What was being done.
        verb: &'static str,
        /// What stopped it.
        source: io::Error,
    },
    /// The sandbox could not be signalled or waited for.
    #[error(transparent)]
    Sandbox(#[from] crate::runtime::Error),
    /// Nothing here can make processes stand still.
    #[error("this machine has no freezer for the container's processes")]
    NoFreezer,
    /// A running container could not get the networks that it is to have now.
    #[error("{message}")]
    Networks {
        /// The failure and its causes, joined.
        message: String,
    },
    /// There is no such signal.
    #[error("no signal number {0}")]
    NoSuchSignal(i32),
}

impl Error {
    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Start { hint, .. } => hint.clone(),
            Error::NoFreezer => Some("it needs a control group of version 2, or the `freezer` controller of version 1".to_owned()),
            Error::OtherNotRunning { id } => Some(format!("`strake start {}` starts it", id.chars().take(12).collect::<String>())),
            Error::Stopped { pid } => Some(format!("`kill -CONT {pid}` lets it go on; `strake rm -f` removes the container as it is")),
            _ => None,
        }
    }

    /// The exit code of `docker run` for this failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Start { code, .. } => *code,
            _ => 125,
        }
    }

    pub(super) fn file(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { verb, path, source }
    }

    pub(super) fn socket<E: Into<io::Error>>(verb: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Socket { verb, source: source.into() }
    }

    pub(super) fn local<E: Into<io::Error>>(verb: &'static str) -> impl FnOnce(E) -> Error {
        move |source| Error::Local { verb, source: source.into() }
    }
}
