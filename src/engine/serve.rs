//! Serving a registry, and collecting its garbage. Neither needs the store.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::registry::{Client, ClientOptions, Credentials, RetryPolicy};
pub use crate::server::{Access as RegistryAccess, Collected, Event as RegistryEvent, Events as RegistryEvents, Server as RegistryServer};
use crate::server::{Options, collect};
use crate::task::blocking;

use super::{EngineOptions, Error};

/// How a registry is to be served.
pub struct ServeRequest {
    /// Where to listen; port 0 is any free one.
    pub address: String,
    /// The directory with everything that it keeps.
    pub storage: PathBuf,
    /// The file with those who may come in.
    pub htpasswd: Option<PathBuf>,
    /// Certificate chain and key.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether nothing is ever written.
    pub readonly: bool,
    /// The registry to stand for, perhaps as a URL.
    pub mirror: Option<String>,
    /// How often garbage is collected.
    pub collect_every: Option<Duration>,
    /// How long what nobody needs stays.
    pub grace: Duration,
    /// Whether every request is told of.
    pub log_requests: bool,
    /// Who is told what happens.
    pub events: RegistryEvents,
}

/// A mirror has clients that wait, so it gives up on its upstream sooner than a command does.
const MIRROR_RETRY: RetryPolicy = RetryPolicy {
    attempts: 3,
    first_pause: Duration::from_millis(200),
    longest_pause: Duration::from_secs(2),
    longest_retry_after: Duration::from_secs(10),
};

/// Opens a registry's storage and listens; [`RegistryServer::run`] then serves. `options` say how a mirror reaches its upstream.
///
/// # Errors
/// The storage, a file, the address or the credentials cannot be used.
pub async fn bind_registry(options: &EngineOptions, request: ServeRequest) -> Result<RegistryServer, Error> {
    let mirror = request.mirror.as_deref().map(|upstream| upstream_of(options, upstream)).transpose()?;
    let server = RegistryServer::bind(Options {
        address: request.address,
        storage: request.storage,
        htpasswd: request.htpasswd,
        tls: request.tls,
        readonly: request.readonly,
        mirror,
        collect_every: request.collect_every,
        grace: request.grace,
        log_requests: request.log_requests,
        events: request.events,
    });
    Ok(server.await?)
}

/// The upstream's name, and a client that reaches it as its URL says.
fn upstream_of(options: &EngineOptions, text: &str) -> Result<(String, Client), Error> {
    // Nobody's password belongs on a command line, or into a message.
    let address = text.split_once("://").map_or(text, |(_, rest)| rest);
    if let Some((_, host)) = address.split('/').next().and_then(|authority| authority.rsplit_once('@')) {
        let message = format!("the registry to mirror, at `{host}`, is named without a user and a password");
        return Err(Error::Usage { message, hint: Some(format!("`strake login {host}` keeps them for the mirror")) });
    }
    let mut client = ClientOptions { credentials: Credentials::load(&options.credentials)?, retry: MIRROR_RETRY, ..options.client.clone() };
    let name = match text.split_once("://") {
        Some(("http", rest)) => {
            client.plain_http.push(rest.split('/').next().unwrap_or(rest).to_owned());
            rest
        }
        Some(("https", rest)) => rest,
        Some(_) => return Err(crate::server::Error::Upstream { upstream: text.to_owned() }.into()),
        None => text,
    };
    let failed = |source| Error::Registry { action: "mirror", name: name.to_owned(), source };
    Ok((name.to_owned(), Client::new(client).map_err(failed)?))
}

/// Collects the garbage of a registry's storage, also while it is served; `None` where another process is at it.
///
/// # Errors
/// The storage cannot be used.
pub async fn collect_registry(storage: &Path, grace: Duration) -> Result<Option<Collected>, Error> {
    let storage = storage.to_owned();
    Ok(blocking(move || collect(&storage, grace)).await?)
}
