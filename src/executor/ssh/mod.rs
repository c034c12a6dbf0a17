//! SSH agents for `RUN --mount=type=ssh`: the user's own, or one of ours that holds the keys of files.
//!
//! ```text
//!   command in the sandbox --- socket of the mount --- [forward] --+-- [protocol] --- the user's agent
//!                                                                  +-- [protocol] --- [key]: keys of files
//!                                                                  +--------------- a socket that is `raw`
//! ```
//!
//! A step never gets the user's socket itself (but for `raw`, where all bytes are passed on): what it asks goes through here, and only listing keys and signing do. A step cannot add keys, remove them or lock the
//! agent. Keys of files stay in this process. The socket is beside the step's layer, not in it, and is gone when the step ends.

mod forward;
mod key;
mod protocol;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use forward::AgentSocket;
use key::PrivateKey;

/// What `--ssh` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SshSource {
    /// The socket of an agent (`SSH_AUTH_SOCK`).
    Agent(PathBuf),
    /// One socket of an agent, or files with private keys.
    Paths(Vec<PathBuf>),
    /// A socket of anything, whose bytes are passed on as they are.
    Raw(PathBuf),
}

/// An agent that steps can ask. Clones are the same agent.
#[derive(Clone, Debug)]
pub struct SshAgent(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// One that runs elsewhere.
    Socket(PathBuf),
    /// Ours.
    Keys(Arc<[PrivateKey]>),
    /// A socket with any protocol.
    Raw(PathBuf),
}

/// Why an agent cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// The socket or file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file is no private key that can be used.
    #[error("cannot use `{}` as a key: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: KeyProblem,
    },
    /// More than one agent, or an agent and keys, under one ID.
    #[error("one ID is either one agent's socket or files with keys, not both")]
    Mixed,
}

/// Why a file is no key that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// It is encrypted.
    #[error("it has a passphrase")]
    Encrypted,
    /// It holds no private key.
    #[error("it holds no private key")]
    NoKey,
    /// It says that it is a key, and is not a whole one.
    #[error("the key in it is damaged")]
    Damaged,
    /// Its algorithm, size or curve cannot be used.
    #[error("keys of this kind are not supported (Ed25519, RSA from 2048 bits, and ECDSA on the curves P-256 and P-384 are)")]
    Unsupported,
}

impl SshError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            SshError::Key { path, reason: KeyProblem::Encrypted | KeyProblem::Unsupported } => {
                Some(format!("give it to an agent, and the agent to the build: `ssh-add {}`, then `--ssh default`", path.display()))
            }
            SshError::Mixed => Some("give each an ID of its own".into()),
            SshError::Read { .. } | SshError::Key { .. } => None,
        }
    }
}

/// The longest file that is taken for a key.
const MAX_KEY: u64 = 100 << 10;

impl SshSource {
    /// Looks at what is named: a socket is an agent, a file a key.
    pub fn open(&self) -> Result<SshAgent, SshError> {
        use std::os::unix::fs::FileTypeExt;
        let (paths, must_be_socket) = match self {
            SshSource::Agent(path) => (std::slice::from_ref(path), true),
            SshSource::Paths(paths) => (paths.as_slice(), false),
            SshSource::Raw(path) => (std::slice::from_ref(path), true),
        };
        let mut keys = Vec::new();
        for path in paths {
            let failed = |source| SshError::Read { path: path.clone(), source };
            let is_socket = std::fs::metadata(path).map_err(failed)?.file_type().is_socket();
            if is_socket && paths.len() == 1 {
                let path = std::path::absolute(path).map_err(failed)?;
                return Ok(SshAgent(if matches!(self, SshSource::Raw(_)) { Kind::Raw(path) } else { Kind::Socket(path) }));
            }
            if is_socket {
                return Err(SshError::Mixed);
            }
            if must_be_socket {
                return Err(failed(io::Error::other("it is not a socket")));
            }
            let text = read_bounded(path).map_err(failed)?;
            let key =
                PrivateKey::parse(&text, &path.display().to_string()).map_err(|reason| SshError::Key { path: path.clone(), reason })?;
            keys.push(key);
        }
        Ok(SshAgent(Kind::Keys(keys.into())))
    }
}

fn read_bounded(path: &std::path::Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(MAX_KEY).read_to_end(&mut text)?;
    Ok(text)
}
