//! Which proxy a request takes: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` as programs written in Go read them, Docker among them.

use std::net::IpAddr;

use url::{Host, Url};

use crate::diag::SafeUrl;

use super::error::{Error, tame};
use super::options::Proxies;

/// The proxies of a client, ready to choose from.
#[derive(Clone, Debug, Default)]
pub(super) struct Chooser {
    http: Option<Url>,
    https: Option<Url>,
    direct: Vec<Direct>,
}

/// An entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Direct {
    /// `*`.
    Everything,
    /// `10.0.0.0/8`.
    Network { address: IpAddr, bits: u8 },
    /// `10.0.0.1`, `10.0.0.1:80`, `[::1]:80`.
    Address { address: IpAddr, port: Option<u16> },
    /// `example.com` (with all below it), `.example.com` and `*.example.com` (only what is below it), each with or without `:port`.
    Domain { suffix: String, itself: bool, port: Option<u16> },
}

impl Chooser {
    /// Reads the settings.
    ///
    /// # Errors
    /// A proxy that is no `http` or `https` URL (`host:port` will do).
    pub(super) fn new(settings: &Proxies) -> Result<Chooser, Error> {
        let proxy = |url: &Option<crate::diag::Secret<String>>| url.as_ref().map(|url| parse_proxy(url.expose())).transpose();
        let direct = settings.no_proxy.as_deref().unwrap_or_default();
        let direct = direct.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).filter_map(parse_direct).collect();
        Ok(Chooser { http: proxy(&settings.http)?, https: proxy(&settings.https)?, direct })
    }

    /// The proxy for `url`; `None` where it is reached directly.
    pub(super) fn choose(&self, url: &Url) -> Option<Url> {
        let proxy = if url.scheme() == "https" { &self.https } else { &self.http };
        let proxy = proxy.as_ref()?;
        let port = url.port_or_known_default();
        let host = url.host()?;
        let (name, address) = match &host {
            Host::Domain(name) => (name.trim_end_matches('.').to_ascii_lowercase(), None),
            Host::Ipv4(address) => (address.to_string(), Some(IpAddr::V4(*address))),
            Host::Ipv6(address) => (address.to_string(), Some(IpAddr::V6(*address))),
        };
        // Some callers hand an address over as a name.
        let address = address.or_else(|| name.trim_matches(['[', ']']).parse().ok());
        if name == "localhost" || name.ends_with(".localhost") || address.is_some_and(|address| address.is_loopback()) {
            return None;
        }
        let direct = self.direct.iter().any(|entry| entry.fits(&name, address, port));
        (!direct).then(|| proxy.clone())
    }
}

impl Direct {
    fn fits(&self, name: &str, address: Option<IpAddr>, port: Option<u16>) -> bool {
        let port_fits = |wanted: &Option<u16>| wanted.is_none() || *wanted == port;
        match self {
            Direct::Everything => true,
            Direct::Network { address: network, bits } => address.is_some_and(|address| in_network(address, *network, *bits)),
            Direct::Address { address: wanted, port } => address == Some(*wanted) && port_fits(port),
            Direct::Domain { suffix, itself, port } => {
                let below = name.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1);
                (below || (*itself && name == suffix)) && port_fits(port)
            }
        }
    }
}

fn in_network(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let bits = u32::from(bits);
    match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(32 - bits.min(32)).unwrap_or(0) == 0,
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(128 - bits.min(128)).unwrap_or(0) == 0,
        _ => false,
    }
}

fn parse_direct(entry: &str) -> Option<Direct> {
    let entry = entry.to_ascii_lowercase();
    if entry == "*" {
        return Some(Direct::Everything);
    }
    if let Some((network, bits)) = entry.split_once('/') {
        let address: IpAddr = network.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        return (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Direct::Network { address, bits });
    }
    if let Ok(address) = entry.trim_matches(['[', ']']).parse() {
        return Some(Direct::Address { address, port: None });
    }
    let (host, port) = match entry.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (entry.as_str(), None),
    };
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Some(Direct::Address { address, port });
    }
    let below = host.strip_prefix("*.").or_else(|| host.strip_prefix('.'));
    let suffix = below.unwrap_or(host).trim_end_matches('.');
    (!suffix.is_empty()).then(|| Direct::Domain { suffix: suffix.to_owned(), itself: below.is_none(), port })
}

fn parse_proxy(text: &str) -> Result<Url, Error> {
    let known = |url: &Url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty());
    let parsed = Url::parse(text).ok().filter(known);
    // `proxy:3128` would be a URL with the scheme `proxy`.
    let parsed = parsed.or_else(|| if text.contains("://") { None } else { Url::parse(&format!("http://{text}")).ok().filter(known) });
    parsed.ok_or_else(|| Error::BadOption { option: "proxy", value: SafeUrl::new(&tame(text, 200)).to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Secret;

    fn chooser(no_proxy: &str) -> Chooser {
        let proxy = |text: &str| Some(Secret::new(text.to_owned()));
        Chooser::new(&Proxies {
            http: proxy("proxy:3128"),
            https: proxy("https://user:pw@secure:3129"),
            no_proxy: Some(no_proxy.to_owned()),
        })
        .unwrap()
    }

    #[track_caller]
    fn check(no_proxy: &str, direct: &[&str], proxied: &[&str]) {
        let chooser = chooser(no_proxy);
        for url in direct {
            assert_eq!(chooser.choose(&Url::parse(url).unwrap()), None, "{no_proxy}: {url}");
        }
        for url in proxied {
            assert!(chooser.choose(&Url::parse(url).unwrap()).is_some(), "{no_proxy}: {url}");
        }
    }

    #[test]
    fn each_scheme_has_its_proxy_and_this_machine_has_none() {
        let chooser = chooser("");
        let of = |url: &str| chooser.choose(&Url::parse(url).unwrap()).map(|url| url.to_string());
        assert_eq!(of("http://reg.example").as_deref(), Some("http://proxy:3128/"));
        assert_eq!(of("https://reg.example").as_deref(), Some("https://user:pw@secure:3129/"));
        for url in ["http://localhost:5000", "https://a.localhost", "http://127.9.9.9", "http://[::1]:5000"] {
            assert_eq!(of(url), None, "{url}");
        }
    }

    #[test]
    fn hosts_networks_and_ports_are_reached_directly() {
        check("*", &["http://a.example", "https://10.0.0.1"], &[]);
        check("example.com", &["http://example.com", "https://a.b.EXAMPLE.com:8443"], &["http://example.org", "http://notexample.com"]);
        check(".example.com", &["http://a.example.com"], &["http://example.com"]);
        check("*.example.com", &["http://a.example.com"], &["http://example.com"]);
        check("example.com:8080", &["http://example.com:8080"], &["http://example.com", "https://example.com"]);
        check("example.com:443", &["https://example.com"], &["http://example.com"]);
        check("10.0.0.0/8, 2001:db8::/32", &["http://10.1.2.3", "http://[2001:db8::7]:5000"], &["http://11.0.0.1", "http://[2001:db9::7]"]);
        check("10.0.0.1", &["http://10.0.0.1:5000"], &["http://10.0.0.11"]);
        check("10.0.0.1:80", &["http://10.0.0.1"], &["http://10.0.0.1:81"]);
        check("[2001:db8::7]:80", &["http://[2001:db8::7]"], &["http://[2001:db8::7]:81"]);
        check("0.0.0.0/0", &["http://10.0.0.1"], &["http://a.example"]);
        check("10.0.0.0/33, a b.example,,", &["http://b.example"], &["http://10.0.0.1"]);
    }

    #[test]
    fn what_is_no_proxy_is_an_error_without_its_password() {
        for text in ["socks5://user:secret@host", "://", "http://"] {
            let settings = Proxies { http: Some(Secret::new(text.to_owned())), ..Proxies::default() };
            let message = Chooser::new(&settings).unwrap_err().to_string();
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
