//! What can go wrong with a git repository.

use std::io;
use std::path::PathBuf;

/// Why a repository cannot be had.
#[derive(Debug, thiserror::Error)]
pub(in crate::engine) enum GitError {
    /// There is no git.
    #[error("the program `git` was not found")]
    NoProgram,
    /// git cannot be run.
    #[error("cannot run git")]
    Start(#[source] io::Error),
    /// A command failed.
    #[error("git {action} failed: {said}")]
    Failed {
        /// The command.
        action: String,
        /// What git said of it.
        said: String,
    },
    /// Nothing was heard for too long.
    #[error("git {action} said nothing for {seconds} s")]
    Silent {
        /// The command.
        action: String,
        /// How long.
        seconds: u64,
    },
    /// The answer is longer than anyone needs.
    #[error("the answer of git {action} is too long")]
    TooMuch {
        /// The command.
        action: String,
    },
    /// The answer is no text.
    #[error("the answer of git {action} is no text")]
    NoText {
        /// The command.
        action: String,
    },
    /// The repository has no such reference.
    #[error("the repository has no branch, tag or commit `{reference}`")]
    NoReference {
        /// What was looked for.
        reference: String,
    },
    /// The repository has no branch to begin with.
    #[error("the repository is empty")]
    Empty,
    /// The commit is another one.
    #[error("the checksum `{wanted}` is demanded, but the commit is {found}")]
    Checksum {
        /// What its name must begin with.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// The commit was there and is gone.
    #[error("the repository does not give the commit {commit} away")]
    NoCommit {
        /// Its name.
        commit: String,
    },
    /// There is no such directory.
    #[error("the repository has no directory `{path}`")]
    NoDirectory {
        /// Its path.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Nothing may be used to log in.
    #[error("no ssh agent is given to the build")]
    NoAgent,
    /// A credential that cannot be sent.
    #[error("the secret `{name}` has bytes that a header cannot have")]
    BadSecret {
        /// Its name.
        name: String,
    },
    /// A file of the builder's own.
    #[error("cannot write `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The build was stopped.
    #[error("the build was cancelled")]
    Cancelled,
}

impl GitError {
    /// What to do about it, where we know.
    pub(in crate::engine) fn hint(&self) -> Option<String> {
        match self {
            GitError::NoProgram => Some("install git: repositories are read with it".into()),
            GitError::NoAgent => Some("give the agent with `--ssh default`, or use an https address".into()),
            GitError::Failed { said, .. } => failed_hint(said),
            GitError::NoReference { .. } => Some("`git ls-remote ADDRESS` lists what there is".into()),
            GitError::Checksum { .. } => Some("the reference has moved: check what changed, and correct the checksum".into()),
            GitError::Store(error) => error.hint(),
            _ => None,
        }
    }
}

/// What the words of git usually mean.
fn failed_hint(said: &str) -> Option<String> {
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    if has(&["could not read Username", "Authentication failed", "returned error: 401", "returned error: 403", "terminal prompts disabled"])
    {
        return Some("the repository is private, or not there: give a token with `--secret id=GIT_AUTH_TOKEN,env=…`".into());
    }
    if has(&["Permission denied (publickey"]) {
        return Some("none of the keys of the ssh agent is accepted".into());
    }
    if has(&["transport 'file' not allowed", "not allowed"]) {
        return Some("submodules may be reached by http, https, ssh and git only; `?submodules=false` leaves them out".into());
    }
    if has(&["not found", "does not exist", "Could not resolve host", "unable to access"]) {
        return Some("check the address, and that this machine can reach it".into());
    }
    None
}
