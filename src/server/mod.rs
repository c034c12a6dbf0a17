//! A registry: the server's side of the distribution protocol (distribution-spec 1.1), in this process, on one directory.
//!
//! It serves pulls, pushes, lists, deletions and referrers, or stands for another registry and keeps what it fetches ([`Options::mirror`]). What it promises to have is durable
//! (`storage`), and garbage goes while it serves. It has its own storage, not the store: a registry keeps bytes for others, the store what this machine unpacks.
//!
//! Layers, top down: [`Server`] (sockets, TLS, connections), `route` (which path means what), `api` (the protocol), `mirror` (the upstream, by [`registry`](crate::registry)),
//! `storage` (files and tables). This folder prints nothing: what happens is told to [`Options::events`].

mod api;
mod auth;
mod body;
mod error;
mod listen;
mod metrics;
mod mirror;
mod range;
mod reply;
mod request;
mod route;
mod storage;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::registry::Client;

pub use error::Error;
pub use listen::Server;
pub use storage::Collected;

#[cfg(test)]
mod tests;

/// Who is told what happens. Called from any thread, and should return soon.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// How a registry is to be served.
pub struct Options {
    /// Where to listen: `127.0.0.1:5000`; port 0 is any free one.
    pub address: String,
    /// The directory with everything that it keeps; made if it is not there.
    pub storage: PathBuf,
    /// The file with those who may come in; `None`: everybody.
    pub htpasswd: Option<PathBuf>,
    /// Certificate chain and key, both PEM; `None`: plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether nothing is ever written.
    pub readonly: bool,
    /// The registry to stand for (`ghcr.io`, `ghcr.io/acme`), and how to reach it.
    pub mirror: Option<(String, Client)>,
    /// How often garbage is collected; `None`: never.
    pub collect_every: Option<Duration>,
    /// How long what nobody needs stays: blobs that no manifest names, uploads to which nothing comes.
    pub grace: Duration,
    /// Whether every request is an [`Event::Access`].
    pub log_requests: bool,
    /// Who is told what happens.
    pub events: Events,
}

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// A request is done.
    Access(Access),
    /// Garbage was collected.
    Collected(Collected),
    /// Something of our own went wrong, such as a disk that is full.
    Problem(String),
}

/// A request that is done.
#[derive(Debug)]
pub struct Access {
    /// Who asked.
    pub client: SocketAddr,
    /// As whom.
    pub user: Option<String>,
    /// How.
    pub method: String,
    /// For what: the path with its parameters.
    pub path: String,
    /// The status of the answer.
    pub status: u16,
    /// Bytes of the answer's body that were sent.
    pub bytes: u64,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
    /// Whether the answer was sent to its end.
    pub complete: bool,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.user.as_deref().unwrap_or("-");
        let Access { client, method, path, status, bytes, duration, .. } = self;
        write!(f, "{client} {user} \"{method} {path}\" {status} {bytes} {:.1}ms", duration.as_secs_f64() * 1e3)?;
        if self.complete { Ok(()) } else { f.write_str(" (cut)") }
    }
}

/// Collects the garbage of a storage that may be served meanwhile; `None` where another process is at it.
///
/// # Errors
/// The storage cannot be used. What is garbage then goes the next time.
pub fn collect(storage: &Path, grace: Duration) -> Result<Option<Collected>, Error> {
    if !storage.join("registry.db").exists() {
        return Err(Error::NoStorage { path: storage.to_owned() });
    }
    storage::Storage::open(storage, storage::Access::Write)?.collect(grace)
}
