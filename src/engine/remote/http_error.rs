//! What can go wrong with a file from a web server.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a file cannot be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::engine) enum HttpError {
    /// It is no address.
    #[error("the address is malformed: {0}")]
    Address(String),
    /// The server refused.
    #[error("the server answered {status}")]
    Status {
        /// The status.
        status: u16,
        /// How long to wait before the next try.
        retry_after: Option<Duration>,
    },
    /// The server led in circles.
    #[error("the server leads from one address to another without an end")]
    Redirects,
    /// The server led to what is no web address.
    #[error("the server leads to an address that is none")]
    BadRedirect,
    /// The transfer ended too soon.
    #[error("the transfer was cut: {0}")]
    Cut(String),
    /// Nothing came for too long.
    #[error("the server fell silent")]
    Silent,
    /// No connection, or a broken one.
    #[error("cannot talk to the server")]
    Transport(#[source] reqwest::Error),
    /// The connection cannot be set up.
    #[error("cannot set up the connection")]
    Setup(#[source] Box<crate::registry::Error>),
    /// A credential that cannot be sent.
    #[error("the secret `{name}` has bytes that a header cannot have")]
    BadSecret {
        /// Its name.
        name: String,
    },
    /// The file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

impl HttpError {
    /// A failure of the connection; the address is left out, since it may hold a password.
    pub(super) fn transport(error: reqwest::Error) -> HttpError {
        HttpError::Transport(error.without_url())
    }

    /// Whether the same may go well a little later.
    pub(super) fn is_retryable(&self) -> bool {
        match self {
            HttpError::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            HttpError::Cut(_) | HttpError::Silent | HttpError::Transport(_) => true,
            _ => false,
        }
    }

    /// Whether there was no connection at all.
    pub(super) fn is_connect(&self) -> bool {
        matches!(self, HttpError::Transport(error) if error.is_connect())
    }

    /// How long the server wants us to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            HttpError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What to do about it, where we know.
    pub(in crate::engine) fn hint(&self) -> Option<String> {
        match self {
            HttpError::Status { status: 401 | 403, .. } => {
                Some("the server wants a credential: give it with `--secret id=HTTP_AUTH_TOKEN_HOST,env=…`".into())
            }
            HttpError::Store(error) => error.hint(),
            HttpError::Setup(error) => error.hint(),
            HttpError::Write { .. } | HttpError::BadSecret { .. } => None,
            _ => Some("check the address, and that this machine can reach it".into()),
        }
    }
}
