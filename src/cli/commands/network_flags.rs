//! The flags of `strake run` and `strake create` about networks, names and ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::Args;

use crate::cli::report;
use crate::engine::{Error, NetworkChoice, RunNetwork, RunRequest};
use crate::runtime::container::HostAddress;
use crate::runtime::network::{DEFAULT_NETWORK, EndpointRequest, PortRequest, ResolvFlags, parse_publish};

use super::step_flags::{host_address, split_host};

// What a container is to have on a network.
#[derive(Debug, Args)]
pub(super) struct AddressFlags {
    /// The IPv4 address on the network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<Ipv4Addr>,
    /// The IPv6 address on the network
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<Ipv6Addr>,
    /// The hardware address on the network
    #[arg(long, value_name = "ADDRESS", value_parser = mac_address)]
    mac_address: Option<[u8; 6]>,
}

impl AddressFlags {
    fn is_empty(&self) -> bool {
        self.ip.is_none() && self.ip6.is_none() && self.mac_address.is_none()
    }

    /// Adds to what is asked for already; that counts more.
    pub(super) fn add_to(&self, request: &mut EndpointRequest) {
        request.ipv4 = request.ipv4.or(self.ip);
        request.ipv6 = request.ipv6.or(self.ip6);
        request.mac = request.mac.or(self.mac_address);
    }
}

// How a container reaches others, and is reached.
#[derive(Debug, Args)]
pub(super) struct NetworkFlags {
    /// The network: `bridge`, `host`, `none`, `container:NAME`, `pasta`, `slirp4netns`, or one of `strake network`, perhaps with options
    /// (`NAME,alias=…,ip=…,ip6=…,mac-address=…,gw-priority=…,driver-opt=…`; may be given several times)
    #[arg(long, visible_alias = "net", value_name = "NETWORK", value_parser = network)]
    network: Vec<Chosen>,
    /// A name by which other containers of the network find this one (may be given several times)
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    #[command(flatten)]
    addresses: AddressFlags,
    /// A port that is reached at this machine's addresses: `[[IP:]HOST[-LAST]:]CONTAINER[-LAST][/tcp|udp]`; without a host's port, or with 0, any that is free (may be
    /// given several times)
    #[arg(short, long, value_name = "PORT", value_parser = parse_publish)]
    publish: Vec<Vec<PortRequest>>,
    /// All ports that the image or --expose names, each at any port that is free
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// A port that the container listens at: `PORT[-LAST][/PROTOCOL]` (may be given several times)
    #[arg(long, value_name = "PORT", value_parser = ports)]
    expose: Vec<Vec<String>>,
    /// A name for /etc/hosts: `NAME:ADDRESS`, where the address may be `host-gateway` (may be given several times)
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = host)]
    add_host: Vec<(String, HostAddress)>,
    /// A DNS server, in place of this machine's (may be given several times)
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<IpAddr>,
    /// A domain in which short names are looked for; `.` is none (may be given several times)
    #[arg(long, value_name = "DOMAIN", value_parser = word)]
    dns_search: Vec<String>,
    /// An option of the resolver, such as `ndots:2` (may be given several times)
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION", value_parser = word)]
    dns_option: Vec<String>,
    /// The domain that the host name is in
    #[arg(long, value_name = "DOMAIN", value_parser = word)]
    domainname: Option<String>,
    /// Another container that is found under this name, and on the shared bridge told of in variables; it must run (may be given several times)
    #[arg(long, value_name = "CONTAINER[:ALIAS]", value_parser = link)]
    link: Vec<(String, String)>,
}

/// `--network`.
#[derive(Clone, Debug)]
enum Chosen {
    Host,
    None,
    Container(String),
    Network(NetworkChoice),
}

fn network(text: &str) -> Result<Chosen, String> {
    match text {
        "host" => return Ok(Chosen::Host),
        "none" => return Ok(Chosen::None),
        _ => {}
    }
    if let Some(name) = text.strip_prefix("container:") {
        return if name.is_empty() {
            Err("the container is missing: expected container:NAME".to_owned())
        } else {
            Ok(Chosen::Container(name.to_owned()))
        };
    }
    let mut choice = NetworkChoice::default();
    for (at, field) in text.split(',').enumerate() {
        match field.split_once('=') {
            None if at == 0 => field.clone_into(&mut choice.network),
            Some(("name", value)) => value.clone_into(&mut choice.network),
            Some((key, value)) => endpoint_option(&mut choice.request, key, value)?,
            None => return Err(format!("`{field}` says nothing about a network: expected KEY=VALUE")),
        }
    }
    match choice.network.as_str() {
        "" => return Err("the network's name is missing".to_owned()),
        "default" => DEFAULT_NETWORK.clone_into(&mut choice.network),
        "host" | "none" => return Err(format!("the network `{}` has no options", choice.network)),
        _ => {}
    }
    Ok(Chosen::Network(choice))
}

fn endpoint_option(request: &mut EndpointRequest, key: &str, value: &str) -> Result<(), String> {
    let address = |_| format!("`{value}` is not an address");
    match key {
        "alias" => request.aliases.push(value.to_owned()),
        "ip" => request.ipv4 = Some(value.parse().map_err(address)?),
        "ip6" => request.ipv6 = Some(value.parse().map_err(address)?),
        "mac-address" => request.mac = Some(mac_address(value)?),
        "gw-priority" => request.priority = value.parse().map_err(|_| format!("`{value}` is not a priority: expected a whole number"))?,
        "driver-opt" => request.link = Some(link_name(value)?),
        _ => {
            let known = "alias, ip, ip6, mac-address, gw-priority or driver-opt";
            return Err(format!("the option `{key}` of a network is not supported: expected {known}"));
        }
    }
    Ok(())
}

/// Reads the one option that there is of a place on a network: the name of its link.
pub(super) fn link_name(text: &str) -> Result<String, String> {
    const OPTION: &str = "com.docker.network.endpoint.ifname";
    const ALLOWED: &str = "characters of ASCII, without blanks, `/`, `:` and `%`";
    let (key, name) = text.split_once('=').unwrap_or((text, ""));
    if key != OPTION {
        return Err(format!("the option `{key}` of a place on a network is not supported: expected {OPTION}"));
    }
    let fits = name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%'));
    match name {
        "" | "." | ".." | "lo" | "all" | "default" => Err(format!("`{name}` cannot be the name of a link")),
        _ if !fits || name.len() > 15 => Err(format!("`{name}` cannot be the name of a link: expected at most 15 {ALLOWED}")),
        _ => Ok(name.to_owned()),
    }
}

/// Reads a hardware address; one of a group is none of a container.
fn mac_address(text: &str) -> Result<[u8; 6], String> {
    let part = |part: &str| u8::from_str_radix(part, 16).ok().filter(|_| part.len() == 2);
    let bytes: Option<Vec<u8>> = text.split([':', '-']).map(part).collect();
    let bytes = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    bytes
        .filter(|bytes| bytes[0] & 1 == 0 && *bytes != [0; 6])
        .ok_or_else(|| format!("`{text}` is not a hardware address such as 92:d0:c6:0a:29:33"))
}

/// Reads what must be one word of a line.
fn word(text: &str) -> Result<String, String> {
    let is_word = !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#');
    if is_word { Ok(text.to_owned()) } else { Err(format!("`{text}` is not one word")) }
}

/// The ports of `--expose`, each for itself.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    match (number(first), number(last), protocol) {
        (Some(first), Some(last), "tcp" | "udp" | "sctp") if first <= last => {
            Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
        }
        _ => Err("expected PORT[-PORT][/tcp|udp|sctp]".to_owned()),
    }
}

fn host(text: &str) -> Result<(String, HostAddress), String> {
    let (name, address) = split_host(text)?;
    Ok((name.to_owned(), host_address(address)?))
}

/// Reads `--link`.
fn link(text: &str) -> Result<(String, String), String> {
    let (container, alias) = text.split_once(':').unwrap_or((text, text));
    let (container, alias) = (container.trim_start_matches('/'), alias.trim_start_matches('/'));
    if container.is_empty() || alias.is_empty() || alias.contains(|c: char| c == ':' || c == '#' || c.is_whitespace() || c.is_control()) {
        return Err("expected CONTAINER[:ALIAS]".to_owned());
    }
    Ok((container.to_owned(), alias.to_owned()))
}

fn usage(message: impl Into<String>, hint: Option<&str>) -> Error {
    Error::Usage { message: message.into(), hint: hint.map(str::to_owned) }
}

impl NetworkFlags {
    /// Whether nothing is asked for but what a container has by itself.
    pub(super) fn is_plain(&self) -> bool {
        self.network.is_empty() && self.network_alias.is_empty() && self.addresses.is_empty()
    }

    /// Says it in the request.
    pub(super) fn apply(self, request: &mut RunRequest) -> Result<(), Error> {
        let has_options = !self.network_alias.is_empty() || !self.addresses.is_empty();
        request.network = chosen(&self.network)?;
        match &mut request.network {
            RunNetwork::Networks(choices) if has_options => {
                let Some(first) = choices.first_mut() else { return Ok(()) };
                first.request.aliases.extend(self.network_alias);
                self.addresses.add_to(&mut first.request);
            }
            RunNetwork::Networks(_) => {}
            _ if has_options => {
                return Err(usage("--network-alias, --ip, --ip6 and --mac-address are for networks that users made", None));
            }
            RunNetwork::Host | RunNetwork::None if !self.publish.is_empty() || self.publish_all => {
                report::tell("warning: ports are published for containers with a network of their own only: -p is without effect");
            }
            _ => {}
        }
        for port in self.publish.iter().flatten() {
            let text = format!("{}/{}", port.container_port, port.protocol.word());
            if !matches!(request.network, RunNetwork::Container(_)) && !request.ports.contains(&text) {
                request.ports.push(text);
            }
        }
        request.ports.extend(self.expose.into_iter().flatten());
        request.publish = self.publish.into_iter().flatten().collect();
        request.publish_all = self.publish_all;
        request.extra_hosts = self.add_host;
        request.links = self.link;
        request.domain = self.domainname;
        request.resolv = ResolvFlags { servers: self.dns, search: self.dns_search, options: self.dns_option };
        Ok(())
    }
}

fn chosen(flags: &[Chosen]) -> Result<RunNetwork, Error> {
    match flags {
        [] => Ok(RunNetwork::bridge()),
        [Chosen::Host] => Ok(RunNetwork::Host),
        [Chosen::None] => Ok(RunNetwork::None),
        [Chosen::Container(name)] => Ok(RunNetwork::Container(name.clone())),
        all => {
            let choice = |chosen: &Chosen| match chosen {
                Chosen::Network(choice) => Ok(choice.clone()),
                _ => Err(usage(
                    "a container with the network host, none or container: has no other",
                    Some("name one --network of these, or networks of `strake network`"),
                )),
            };
            Ok(RunNetwork::Networks(all.iter().map(choice).collect::<Result<_, _>>()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_options() {
        let Chosen::Network(choice) = network("front,alias=web,alias=www,ip=10.0.0.7,mac-address=02:00:00:00:00:07").unwrap() else {
            panic!()
        };
        assert_eq!((choice.network.as_str(), choice.request.aliases.len()), ("front", 2));
        assert_eq!((choice.request.ipv4, choice.request.mac), (Some(Ipv4Addr::new(10, 0, 0, 7)), Some([2, 0, 0, 0, 0, 7])));
        for text in ["", "container:", "front,colour=red", "front,web", "front,ip=x", "host,alias=x", "alias=x"] {
            assert!(network(text).is_err(), "{text}");
        }
        let Chosen::Network(choice) =
            network("name=front,ip6=fd00::7,gw-priority=-3,driver-opt=com.docker.network.endpoint.ifname=web0").unwrap()
        else {
            panic!()
        };
        assert_eq!((choice.network.as_str(), choice.request.priority, choice.request.link.as_deref()), ("front", -3, Some("web0")));
        for text in ["gw-priority=x", "driver-opt=x=y", "driver-opt=com.docker.network.endpoint.ifname=a/b"] {
            assert!(network(&format!("front,{text}")).is_err(), "{text}");
        }
    }

    #[test]
    fn hardware_addresses_are_those_of_one_host() {
        assert_eq!(mac_address("92:d0:c6:0a:29:33"), Ok([0x92, 0xd0, 0xc6, 0x0a, 0x29, 0x33]));
        for text in [
            "",
            "92:d0:c6:0a:29",
            "92:d0:c6:0a:29:33:44",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "9:d0:c6:0a:29:33",
            "xx:d0:c6:0a:29:33",
        ] {
            assert!(mac_address(text).is_err(), "{text}");
        }
    }
}
