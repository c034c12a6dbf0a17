//! Which URL a registry's name stands for, and what is remembered about each registry.
//!
//! Loopback hosts are tried with plain HTTP first: what listens there is nearly always a test registry, and nobody can listen in. A server there
//! that speaks TLS is recognised by how it answers. All others get TLS, unless the caller named them.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OnceCell, Semaphore};
use url::{Origin, Url};

use crate::oci::DOCKER_HUB;

use super::auth::AuthState;
use super::credentials::Credential;
use super::error::Error;

/// What is remembered about one registry.
#[derive(Debug)]
pub(super) struct Host {
    /// The name as references have it: `docker.io`, `localhost:5000`.
    pub(super) name: String,
    /// Whether its certificate does not count, and it need not speak TLS (`insecure` of registries.conf).
    pub(super) insecure: bool,
    /// The root of the API, once it is known: `https://registry-1.docker.io/`.
    pub(super) base: OnceCell<Url>,
    /// Blobs that may move at once.
    pub(super) permits: Arc<Semaphore>,
    /// Scheme and tokens. Held while a token is fetched, so that it is fetched once.
    pub(super) auth: tokio::sync::Mutex<AuthState>,
    /// Credentials by repository, looked up once each (a helper may be slow, or ask the user).
    pub(super) credentials: tokio::sync::Mutex<HashMap<String, Option<Credential>>>,
    /// What a credential helper failed with.
    pub(super) helper_failure: Mutex<Option<String>>,
}

/// All registries that were spoken to.
#[derive(Debug, Default)]
pub(super) struct Hosts(Mutex<HashMap<(String, bool), Arc<Host>>>);

impl Hosts {
    pub(super) fn get(&self, name: &str, insecure: bool, permits: usize) -> Arc<Host> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let host = hosts.entry((name.to_owned(), insecure)).or_insert_with(|| {
            Arc::new(Host {
                name: name.to_owned(),
                insecure,
                base: OnceCell::new(),
                permits: Arc::new(Semaphore::new(permits.max(1))),
                auth: tokio::sync::Mutex::default(),
                credentials: tokio::sync::Mutex::default(),
                helper_failure: Mutex::default(),
            })
        });
        host.clone()
    }
}

/// How to find out the scheme of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Http,
    Https,
    /// Ask it.
    Probe,
}

pub(super) fn scheme_of(name: &str, plain_http: &[String]) -> Scheme {
    if plain_http.iter().any(|pattern| matches_host(pattern, name)) {
        Scheme::Http
    } else if is_loopback(name) {
        Scheme::Probe
    } else {
        Scheme::Https
    }
}

/// The root of the API of the registry `name`.
pub(super) fn base_url(name: &str, scheme: &str) -> Result<Url, Error> {
    let bad = || Error::BadHost { host: super::error::tame(name, 200) };
    let target = match name {
        DOCKER_HUB | "index.docker.io" => "registry-1.docker.io",
        other => other,
    };
    if target.is_empty() || target.contains(['/', '@', '?', '#', '\\']) {
        return Err(bad());
    }
    let url = Url::parse(&format!("{scheme}://{target}/")).map_err(|_| bad())?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad());
    }
    Ok(url)
}

/// `host` of `host:port` and of `[::1]:port`.
pub(super) fn without_port(name: &str) -> &str {
    if let Some(rest) = name.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    name.rsplit_once(':').map_or(name, |(host, _)| host)
}

/// Whether `name` is this machine: `localhost`, `127.0.0.0/8` or `::1`.
pub(super) fn is_loopback(name: &str) -> bool {
    let host = without_port(name);
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether the registry `name` is meant by `pattern`: `host`, `host:port`, `*.suffix` or `*`.
pub(super) fn matches_host(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_ascii_lowercase(), name.to_ascii_lowercase());
    match pattern.strip_prefix('*') {
        Some("") => true,
        Some(suffix) => suffix.starts_with('.') && (name.ends_with(suffix) || without_port(&name).ends_with(suffix)),
        None => pattern == name || pattern == without_port(&name),
    }
}

/// Where a `Location` of an upload leads. A registry behind a proxy that ends TLS often calls itself `http`; that is put right.
pub(super) fn join_location(current: &Url, base: &Url, location: &str) -> Option<Url> {
    let mut next = current.join(location).ok()?;
    if !matches!(next.scheme(), "http" | "https") {
        return None;
    }
    let same_host = next.host_str() == base.host_str() && (next.port().is_none() || next.port() == base.port());
    if base.scheme() == "https" && next.scheme() == "http" && same_host {
        next.set_scheme("https").ok()?;
        next.set_port(base.port()).ok()?;
    }
    Some(next)
}

/// Whether both URLs are of one server: scheme, host and port.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    let (a, b): (Origin, Origin) = (a.origin(), b.origin());
    a.is_tuple() && a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_named_hosts_may_do_without_tls() {
        let plain = vec!["reg.lan:5000".to_owned(), "*.test".to_owned()];
        for (name, scheme) in [
            ("localhost:5000", Scheme::Probe),
            ("127.0.0.1", Scheme::Probe),
            ("127.9.9.9:1", Scheme::Probe),
            ("[::1]:5000", Scheme::Probe),
            ("128.0.0.1", Scheme::Https),
            ("localhost.example.com", Scheme::Https),
            ("docker.io", Scheme::Https),
            ("reg.lan:5000", Scheme::Http),
            ("reg.lan:5001", Scheme::Https),
            ("a.test:80", Scheme::Http),
            ("test", Scheme::Https),
        ] {
            assert_eq!(scheme_of(name, &plain), scheme, "{name}");
        }
    }

    #[test]
    fn docker_hub_is_at_its_own_address() {
        assert_eq!(base_url("docker.io", "https").unwrap().as_str(), "https://registry-1.docker.io/");
        for bad in ["", "a b", "user@host", "host/path", "host?x"] {
            assert!(base_url(bad, "https").is_err(), "{bad}");
        }
    }

    #[test]
    fn locations_are_relative_or_absolute_and_stay_encrypted() {
        let base = Url::parse("https://reg.example:8443/").unwrap();
        let at = base.join("v2/a/blobs/uploads/").unwrap();
        let join = |location: &str| join_location(&at, &base, location).map(|url| url.to_string());
        assert_eq!(join("/v2/a/blobs/uploads/1?_state=x").unwrap(), "https://reg.example:8443/v2/a/blobs/uploads/1?_state=x");
        assert_eq!(join("http://reg.example/v2/up?x=1").unwrap(), "https://reg.example:8443/v2/up?x=1");
        assert_eq!(join("https://other.example/up").unwrap(), "https://other.example/up");
        assert_eq!(join("ftp://reg.example/up"), None);
    }
}
