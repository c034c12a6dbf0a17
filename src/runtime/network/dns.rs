//! The files by which a process finds names: what `/etc/resolv.conf` and `/etc/hosts` of a sandbox say. Pure text in, text out.

use std::fmt::Write;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::DNS_ADDRESS;

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

/// What the user wants in the file in place of what the host has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvFlags {
    /// The servers.
    pub servers: Vec<IpAddr>,
    /// The domains in which short names are looked for; `.` alone means none.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
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

/// The same with the user's wishes. With `server` that is the only server: it knows the others ([`name_servers`]).
pub fn resolv_conf_of(host: &str, mode: ResolvMode<'_>, flags: &ResolvFlags, server: Option<IpAddr>) -> String {
    let text = resolv_conf(host, mode);
    if *flags == ResolvFlags::default() && server.is_none() {
        return text;
    }
    let of = |word: &'static str| text.lines().filter(move |line| keyword(line) == word);
    let mut lines: Vec<String> = match server {
        Some(server) => vec![format!("nameserver {server}")],
        None if flags.servers.is_empty() => of("nameserver").map(str::to_owned).collect(),
        None => flags.servers.iter().map(|server| format!("nameserver {server}")).collect(),
    };
    match &flags.search[..] {
        [] => lines.extend(of("search").chain(of("domain")).map(str::to_owned)),
        [only] if only == "." => {}
        domains => lines.push(format!("search {}", domains.join(" "))),
    }
    let mut options = match flags.options.is_empty() {
        true => of("options").flat_map(|line| line.split_whitespace().skip(1)).map(str::to_owned).collect(),
        false => flags.options.clone(),
    };
    // Short names are names of containers: they are asked for as they are.
    if server.is_some() && !options.iter().any(|option| option.starts_with("ndots:")) {
        options.push("ndots:0".to_owned());
    }
    if !options.is_empty() {
        lines.push(format!("options {}", options.join(" ")));
    }
    lines.join("\n") + "\n"
}

/// That of a sandbox whose packets a program carries: the user's servers, else our own ([`DNS_ADDRESS`]), which asks those of [`name_servers`] from the host's network.
pub fn carried_resolv_conf(host: &str, flags: &ResolvFlags) -> String {
    let servers = if flags.servers.is_empty() { vec![DNS_ADDRESS.into()] } else { flags.servers.clone() };
    resolv_conf_of(host, ResolvMode::Private { alternative: None }, &ResolvFlags { servers, ..flags.clone() }, None)
}

/// The servers that a DNS server in the host's network asks: the user's, else all of the host's, also those at its loopback.
pub fn name_servers(host: &str, flags: &ResolvFlags) -> Vec<IpAddr> {
    if !flags.servers.is_empty() {
        return flags.servers.clone();
    }
    let lines = host.lines().filter(|line| keyword(line) == "nameserver");
    let servers: Vec<IpAddr> = lines.filter_map(|line| line.split_whitespace().nth(1)?.parse().ok()).collect();
    if servers.is_empty() { PUBLIC_SERVERS.iter().filter_map(|server| server.parse().ok()).collect() } else { servers }
}

fn keyword(line: &str) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

/// The servers of a resolv.conf that packets from a private IPv4 network can reach: no loopback, and no IPv6, which it has not.
fn reachable_servers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter(|line| keyword(line) == "nameserver").filter_map(|line| line.split_whitespace().nth(1)?.parse().ok());
    servers.filter(|address: &IpAddr| address.is_ipv4() && !address.is_loopback() && !address.is_unspecified()).collect()
}

/// The `/etc/hosts` of a sandbox: `localhost`, the sandbox's own name at its addresses (at the loopback where it has none of its own), and `extra` names.
pub fn hosts_file(hostname: &str, addresses: &[IpAddr], extra: &[(String, IpAddr)]) -> String {
    let mut out = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for (name, address) in extra {
        let _ = writeln!(out, "{address}\t{name}");
    }
    if !hostname.is_empty() {
        let loopback = [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)];
        for address in if addresses.is_empty() { &loopback } else { addresses } {
            let _ = writeln!(out, "{address}\t{hostname}");
        }
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
    fn the_user_s_wishes_take_the_place_of_the_host_s() {
        let host = "nameserver 10.0.0.2\nsearch a b\noptions rotate\n";
        let flags = ResolvFlags { servers: vec!["1.2.3.4".parse().unwrap()], search: vec!["c".into()], options: vec!["ndots:2".into()] };
        let none = ResolvFlags::default();
        let server = Some("127.0.0.11".parse().unwrap());
        assert_eq!(resolv_conf_of(host, PRIVATE, &flags, None), "nameserver 1.2.3.4\nsearch c\noptions ndots:2\n");
        assert_eq!(resolv_conf_of(host, PRIVATE, &none, server), "nameserver 127.0.0.11\nsearch a b\noptions rotate ndots:0\n");
        assert_eq!(resolv_conf_of(host, PRIVATE, &flags, server), "nameserver 127.0.0.11\nsearch c\noptions ndots:2\n");
        let no_search = ResolvFlags { search: vec![".".into()], ..ResolvFlags::default() };
        assert_eq!(resolv_conf_of(host, PRIVATE, &no_search, None), "nameserver 10.0.0.2\noptions rotate\n");
        assert_eq!(name_servers(STUB, &none), ["127.0.0.53".parse::<IpAddr>().unwrap()]);
        assert_eq!(name_servers(STUB, &flags), flags.servers);
        assert_eq!(name_servers("", &none).len(), 2);
    }

    #[test]
    fn whose_packets_a_program_carries_asks_our_server_unless_the_user_names_others() {
        let none = ResolvFlags::default();
        assert_eq!(carried_resolv_conf(STUB, &none), "nameserver 127.0.0.11\nsearch corp.example\noptions edns0 trust-ad\n");
        let flags = ResolvFlags { servers: vec!["1.2.3.4".parse().unwrap()], ..none };
        assert_eq!(carried_resolv_conf("nameserver 10.0.0.2\n", &flags), "nameserver 1.2.3.4\n");
    }

    #[test]
    fn hosts_names_the_sandbox_and_the_extra_hosts() {
        let text = hosts_file("web", &["10.1.2.3".parse().unwrap()], &[("db".to_owned(), "10.9.9.9".parse().unwrap())]);
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
        assert!(text.ends_with("10.9.9.9\tdb\n10.1.2.3\tweb\n"));
        assert!(hosts_file("web", &[], &[]).ends_with("127.0.0.1\tweb\n"));
    }
}
