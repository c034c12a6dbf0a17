//! The files by which a process finds names: what `/etc/resolv.conf` and `/etc/hosts` of a sandbox say. Pure text in, text out.

use std::fmt::Write;
use std::net::IpAddr;

/// What network the reader of the file is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolvMode<'a> {
    /// The host's own: the file is taken as it is.
    Host,
    /// A private one, from which the host's loopback cannot be reached.
    Private {
        /// The text of a file with the real servers behind a local stub (`/run/systemd/resolve/resolv.conf`), used when the main one names only loopback.
        alternative: Option<&'a str>,
    },
}

/// Used where the host names no server that a private network can reach, as Docker does.
const PUBLIC_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// The `/etc/resolv.conf` for a sandbox on a host whose own is `host`. Search domains and options stay.
pub fn resolv_conf(host: &str, mode: ResolvMode<'_>) -> String {
    let ResolvMode::Private { alternative } = mode else { return host.to_owned() };
    let text = match alternative {
        Some(other) if reachable_servers(host).is_empty() && !reachable_servers(other).is_empty() => other,
        _ => host,
    };
    let mut servers: Vec<String> = reachable_servers(text).iter().map(ToString::to_string).collect();
    if servers.is_empty() {
        servers = PUBLIC_SERVERS.map(str::to_owned).to_vec();
    }
    let mut out = String::new();
    for server in servers {
        let _ = writeln!(out, "nameserver {server}");
    }
    for line in text.lines().filter(|line| matches!(keyword(line), "search" | "domain" | "options" | "sortlist")) {
        let _ = writeln!(out, "{}", line.trim());
    }
    out
}

fn keyword(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

/// The servers of a resolv.conf that packets from a private IPv4 network can reach: no loopback, and no IPv6, which it has not.
fn reachable_servers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter(|line| keyword(line) == "nameserver").filter_map(|line| line.split_whitespace().nth(1)?.parse().ok());
    servers.filter(|address: &IpAddr| address.is_ipv4() && !address.is_loopback() && !address.is_unspecified()).collect()
}

/// The `/etc/hosts` of a sandbox: `localhost`, the sandbox's own name at `address` (at the loopback where it has no address of its own), and `extra` names.
pub fn hosts_file(hostname: &str, address: Option<IpAddr>, extra: &[(String, IpAddr)]) -> String {
    let mut out = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (name, address) in extra {
        let _ = writeln!(out, "{address}\t{name}");
    }
    if !hostname.is_empty() {
        let address = address.unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        let _ = writeln!(out, "{address}\t{hostname}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUB: &str = "# managed\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch corp.example\n";
    const PRIVATE: ResolvMode<'_> = ResolvMode::Private { alternative: None };

    #[test]
    fn the_host_network_takes_the_file_as_it_is() {
        assert_eq!(resolv_conf(STUB, ResolvMode::Host), STUB);
    }

    #[test]
    fn loopback_servers_are_dropped_and_options_stay() {
        let text = "nameserver 127.0.0.1\nnameserver 10.0.0.2\nnameserver fe80::1%eth0\nnameserver ::1\nsearch a b\n";
        assert_eq!(resolv_conf(text, PRIVATE), "nameserver 10.0.0.2\nsearch a b\n");
    }

    #[test]
    fn the_servers_behind_a_stub_are_used() {
        let alternative = Some("nameserver 192.168.1.1\nsearch corp.example\n");
        assert_eq!(resolv_conf(STUB, ResolvMode::Private { alternative }), "nameserver 192.168.1.1\nsearch corp.example\n");
    }

    #[test]
    fn public_servers_stand_in_where_none_is_left() {
        let expected = "nameserver 8.8.8.8\nnameserver 8.8.4.4\noptions edns0 trust-ad\nsearch corp.example\n";
        assert_eq!(resolv_conf(STUB, ResolvMode::Private { alternative: Some("nameserver 127.0.0.1") }), expected);
        assert_eq!(resolv_conf("", PRIVATE), "nameserver 8.8.8.8\nnameserver 8.8.4.4\n");
    }

    #[test]
    fn hosts_names_the_sandbox_and_the_extra_hosts() {
        let text = hosts_file("web", Some("10.1.2.3".parse().unwrap()), &[("db".to_owned(), "10.9.9.9".parse().unwrap())]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.9.9.9\tdb\n10.1.2.3\tweb\n"));
        assert!(hosts_file("web", None, &[]).ends_with("127.0.0.1\tweb\n"));
    }
}
