//! What a caller can choose about the client.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::diag::Secret;

use super::conf::Registries;
use super::credentials::Credentials;

/// How a [`Client`](super::Client) behaves. `Default` is right for nearly everyone.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where credentials come from.
    pub credentials: Credentials,
    /// Registries that may be spoken to without TLS: `host`, `host:port`, `*.suffix` or `*`. Loopback hosts need not be named: they are tried with
    /// plain HTTP first and with TLS if that is what they speak.
    pub plain_http: Vec<String>,
    /// Registries whose certificates are not checked; patterns as above.
    pub skip_tls_verify: Vec<String>,
    /// Registries that may have any certificate, and need not speak TLS: it is tried first. Patterns as above.
    pub insecure: Vec<String>,
    /// What we call ourselves.
    pub user_agent: String,
    /// Folders in the form of Docker's `certs.d`: `<folder>/<host>/{*.crt, *.cert + *.key}`.
    pub certs_dirs: Vec<PathBuf>,
    /// The folder of one registry (`host` or `host:port`), which is asked for in place of the others.
    pub certs_folder: Option<(String, PathBuf)>,
    /// Certificates for single registries (`host` or `host:port`), beside those of the folders.
    pub certificates: BTreeMap<String, CertificateFiles>,
    /// Blobs that are moved at once to or from one registry.
    pub max_concurrency_per_host: usize,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long nothing may arrive (or leave) before a connection is given up.
    pub idle_timeout: Duration,
    /// The largest manifest that is accepted, in bytes.
    pub manifest_limit: u64,
    /// Headers for every request to a registry, such as `HttpHeaders` of `config.json`.
    pub extra_headers: Vec<(String, Secret<String>)>,
    /// Proxies.
    pub proxies: Proxies,
    /// Where names are looked for, what is blocked, and what is insecure.
    pub registries: Registries,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            credentials: Credentials::default(),
            plain_http: Vec::new(),
            skip_tls_verify: Vec::new(),
            insecure: Vec::new(),
            user_agent: concat!("strake/", env!("CARGO_PKG_VERSION")).to_owned(),
            certs_dirs: Vec::new(),
            certs_folder: None,
            certificates: BTreeMap::new(),
            max_concurrency_per_host: 6,
            retry: RetryPolicy::default(),
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            manifest_limit: 4 << 20,
            extra_headers: Vec::new(),
            proxies: Proxies::default(),
            registries: Registries::default(),
        }
    }
}

/// Certificates in files, all of them PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Authorities that are trusted beside those of the system.
    pub authorities: Vec<PathBuf>,
    /// Our own certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// When and how often to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many times one thing is tried without getting any further.
    pub attempts: u32,
    /// The pause after the first failure; it doubles with each further one. The real pause is between half of it and all of it.
    pub first_pause: Duration,
    /// The longest pause of our own.
    pub longest_pause: Duration,
    /// The longest `Retry-After` that we wait for; a longer one is an error at once.
    pub longest_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            attempts: 6,
            first_pause: Duration::from_millis(300),
            longest_pause: Duration::from_secs(10),
            longest_retry_after: Duration::from_secs(120),
        }
    }
}

/// Proxies by URL, in the sense of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. Loopback hosts are never proxied.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For `http://` URLs.
    pub http: Option<Secret<String>>,
    /// For `https://` URLs.
    pub https: Option<Secret<String>>,
    /// Hosts that are reached directly, comma-separated.
    pub no_proxy: Option<String>,
}
