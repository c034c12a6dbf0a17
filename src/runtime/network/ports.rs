//! Published ports: how they are written, and the sockets that make them ours.
//!
//! A port is taken by listening at it, so that two containers cannot have it, no other program can, and whoever asks for one that is taken is told so.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, listen, socket_with, sockopt};
use serde::{Deserialize, Serialize};

use super::Error;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 4096;
/// How often another port is tried where any will do, and the one that the kernel chose is taken in the other family.
const ATTEMPTS: u32 = 64;

/// The protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP, for which there are rules of the packet filter alone: nobody passes it on.
    Sctp,
}

impl Protocol {
    /// As it is written after a port.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// Its number in a packet.
    pub(super) fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is another.
    pub fn parse(text: &str) -> Result<Protocol, String> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            _ => Err(format!("`{text}` is not a protocol: expected tcp, udp or sctp")),
        }
    }
}

/// A port of a container that is to be reached at the host's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRequest {
    /// At which address; `None` is at all of them, of both families.
    pub host_ip: Option<IpAddr>,
    /// The first and the last port of the host that will do; `None` is any that is free.
    pub host_ports: Option<(u16, u16)>,
    /// The port that the container listens at.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A port of the host that leads to one of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BoundPort {
    /// The port that the container listens at.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// At which address of the host.
    pub host_ip: IpAddr,
    /// At which port of the host.
    pub host_port: u16,
}

impl From<BoundPort> for PortRequest {
    /// What gives just this port again.
    fn from(port: BoundPort) -> PortRequest {
        PortRequest {
            host_ip: Some(port.host_ip),
            host_ports: Some((port.host_port, port.host_port)),
            container_port: port.container_port,
            protocol: port.protocol,
        }
    }
}

/// Reads `[[IP:][HOST[-LAST]]:]CONTAINER[-LAST][/PROTOCOL]`, or the same in words (`published=8080,target=80,protocol=udp`).
///
/// # Errors
/// What is wrong with it.
pub fn parse_publish(text: &str) -> Result<Vec<PortRequest>, String> {
    let spelled = if text.contains('=') { in_short(text)? } else { text.to_owned() };
    let (ports, protocol) = spelled.split_once('/').unwrap_or((&spelled, "tcp"));
    let protocol = Protocol::parse(protocol)?;
    let (rest, container) = ports.rsplit_once(':').map_or((None, ports), |(rest, container)| (Some(rest), container));
    let (ip, host) = match rest {
        None => (None, ""),
        // A bare port, or an address and a port; colons are the address's own.
        Some(rest) => rest.rsplit_once(':').map_or((None, rest), |(ip, host)| (Some(ip), host)),
    };
    let host_ip = match ip {
        None | Some("") => None,
        Some(ip) => {
            let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
            Some(bare.parse().map_err(|_| format!("`{ip}` is not an address"))?)
        }
    };
    let (first, last) = range(container)?.ok_or("the container's port is missing: expected [[IP:]HOST:]CONTAINER[/PROTOCOL]")?;
    if first == 0 {
        return Err("a container has no port 0".to_owned());
    }
    // Port 0 is how programs say "any".
    let host_ports = range(host)?.filter(|ports| *ports != (0, 0));
    let request = |container_port, host_ports| PortRequest { host_ip, host_ports, container_port, protocol };
    match host_ports {
        Some(host_ports) if first == last => Ok(vec![request(first, Some(host_ports))]),
        Some((from, to)) if to - from == last - first => {
            Ok((first..=last).zip(from..=to).map(|(port, host)| request(port, Some((host, host)))).collect())
        }
        Some((from, to)) => Err(format!("the ranges {from}-{to} and {first}-{last} differ in length")),
        None => Ok((first..=last).map(|port| request(port, None)).collect()),
    }
}

/// The long form as the short one.
fn in_short(text: &str) -> Result<String, String> {
    let (mut published, mut target, mut protocol) = (String::new(), None, "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("published", value)) => value.clone_into(&mut published),
            Some(("target", value)) => target = Some(value),
            Some(("protocol", value)) => protocol = value,
            Some(("mode", "host" | "ingress")) => {}
            _ => return Err(format!("`{field}` says nothing about a port: expected published=, target= or protocol=")),
        }
    }
    let target = target.ok_or("the container's port is missing: say target=PORT")?;
    Ok(format!("{published}:{target}/{protocol}"))
}

/// Reads a port or a range of ports; nothing is nothing.
fn range(text: &str) -> Result<Option<(u16, u16)>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = |part: &str| match part.bytes().all(|byte| byte.is_ascii_digit()) {
        true => part.parse::<u16>().map_err(|_| format!("`{part}` is not a port")),
        false => Err(format!("`{part}` is not a port")),
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first <= last { Ok(Some((first, last))) } else { Err(format!("the range {text} is empty")) }
}

/// The setting of a network namespace that says from which port on anybody may listen.
const UNPRIVILEGED_SETTING: &str = "net.ipv4.ip_unprivileged_port_start";

fn first_unprivileged() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    text.trim().parse().unwrap_or(1024)
}

/// A socket at a published port.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) port: BoundPort,
    pub(super) socket: OwnedFd,
}

/// Takes all ports, or none. Those that name no address are taken at `anywhere`.
pub(super) fn take_all(requests: &[PortRequest], anywhere: Option<IpAddr>) -> Result<Vec<Listener>, Error> {
    let mut taken = Vec::new();
    // Those that can only be had in one place come first: what chooses leaves them alone.
    let mut order: Vec<&PortRequest> = requests.iter().collect();
    order.sort_by_key(|request| request.host_ports.map_or(u32::MAX, |(first, last)| u32::from(last - first)));
    for (index, request) in order.iter().enumerate() {
        if !order[..index].contains(request) || request.host_ports.is_none() {
            taken.extend(take(request, anywhere)?);
        }
    }
    taken.sort_by_key(|listener: &Listener| listener.port);
    Ok(taken)
}

fn take(request: &PortRequest, anywhere: Option<IpAddr>) -> Result<Vec<Listener>, Error> {
    let asked = request.host_ip.or(anywhere);
    let addresses: Vec<IpAddr> =
        asked.map_or_else(|| vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()], |address| vec![address]);
    let candidates: Vec<u16> = match request.host_ports {
        Some((first, last)) => (first..=last).collect(),
        None => vec![0; ATTEMPTS as usize],
    };
    let mut failure = None;
    for port in &candidates {
        match take_at(request, &addresses, *port) {
            Ok(listeners) => return Ok(listeners),
            Err((address, error)) => {
                let in_use = error == Errno::ADDRINUSE;
                failure = Some((SocketAddr::new(address, *port), error));
                if !in_use {
                    break;
                }
            }
        }
    }
    let (address, errno) = failure.unwrap_or((SocketAddr::new(addresses[0], 0), Errno::ADDRINUSE));
    let shown = match request.host_ports {
        Some((first, last)) if first != last && errno == Errno::ADDRINUSE => {
            format!("{}:{first}-{last}", asked.map_or_else(String::new, |ip| ip.to_string()))
        }
        _ => address.to_string(),
    };
    let mut hint = "stop what listens there, or publish another port".to_owned();
    let reason = match errno {
        Errno::ADDRINUSE if candidates.len() > 1 => "none of them is free on this host".to_owned(),
        Errno::ADDRINUSE => "it is in use on this host".to_owned(),
        Errno::ADDRNOTAVAIL => format!("this host does not have the address {}", address.ip()),
        Errno::ACCESS | Errno::PERM => {
            let first = first_unprivileged();
            hint = format!("publish a port from {first} on, or allow it as root: `sysctl -w {UNPRIVILEGED_SETTING}={}`", address.port());
            format!("not permitted: ports below {first} are root's ({UNPRIVILEGED_SETTING})")
        }
        Errno::PROTONOSUPPORT => {
            hint = "load the module that knows it: `modprobe sctp`".to_owned();
            format!("this kernel has no {}", request.protocol.word().to_uppercase())
        }
        other => io::Error::from(other).to_string(),
    };
    Err(Error::Port { port: format!("{shown} ({})", request.protocol.word()), reason, hint })
}

fn take_at(request: &PortRequest, addresses: &[IpAddr], port: u16) -> Result<Vec<Listener>, (IpAddr, Errno)> {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut missing = None;
    for address in addresses {
        // The second family has the port that the kernel chose for the first.
        let port = listeners.first().map_or(port, |listener| listener.port.host_port);
        match open(SocketAddr::new(*address, port), request.protocol) {
            Ok((socket, host_port)) => {
                let port = BoundPort { container_port: request.container_port, protocol: request.protocol, host_ip: *address, host_port };
                listeners.push(Listener { port, socket });
            }
            // A host without one of the families has ports in the other.
            Err(errno @ (Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL)) if addresses.len() > 1 => missing = Some((*address, errno)),
            Err(errno) => return Err((*address, errno)),
        }
    }
    match missing {
        Some(missing) if listeners.is_empty() => Err(missing),
        _ => Ok(listeners),
    }
}

fn open(address: SocketAddr, protocol: Protocol) -> Result<(OwnedFd, u16), Errno> {
    let (family, is_v6) = if address.is_ipv4() { (AddressFamily::INET, false) } else { (AddressFamily::INET6, true) };
    let (kind, transport) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        // It has the port, and does not listen: rules lead what comes to the container.
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, kind, flags, Some(transport))?;
    if is_v6 {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of an earlier container that are still being forgotten are not in the way.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        listen(&socket, BACKLOG)?;
    }
    let port = SocketAddr::try_from(getsockname(&socket)?).map_or(address.port(), |address| address.port());
    Ok((socket, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> PortRequest {
        let all = parse_publish(text).unwrap();
        assert_eq!(all.len(), 1, "{text}");
        all[0]
    }

    #[test]
    fn ports_are_written_as_for_docker() {
        let request = |host_ip: Option<&str>, host_ports, container_port, protocol| PortRequest {
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_ports,
            container_port,
            protocol,
        };
        let eighty = Some((80, 80));
        assert_eq!(one("80"), request(None, None, 80, Protocol::Tcp));
        assert_eq!(one("80:8080/udp"), request(None, eighty, 8080, Protocol::Udp));
        assert_eq!(one("127.0.0.1:80:8080"), request(Some("127.0.0.1"), eighty, 8080, Protocol::Tcp));
        assert_eq!(one("127.0.0.1::8080"), request(Some("127.0.0.1"), None, 8080, Protocol::Tcp));
        assert_eq!(one("[::1]:80:8080/TCP"), request(Some("::1"), eighty, 8080, Protocol::Tcp));
        assert_eq!(one("::1:80:8080"), request(Some("::1"), eighty, 8080, Protocol::Tcp));
        assert_eq!(one("0:8080"), request(None, None, 8080, Protocol::Tcp));
        assert_eq!(one("8000-8010:80"), request(None, Some((8000, 8010)), 80, Protocol::Tcp));
        assert_eq!(one("80:8080/sctp"), request(None, eighty, 8080, Protocol::Sctp));
        assert_eq!(one("published=80,target=8080,protocol=udp"), request(None, eighty, 8080, Protocol::Udp));
        let many = parse_publish("8000-8002:90-92").unwrap();
        assert_eq!(
            many.iter().map(|port| (port.host_ports.unwrap().0, port.container_port)).collect::<Vec<_>>(),
            [(8000, 90), (8001, 91), (8002, 92)]
        );
        assert_eq!(parse_publish("90-92").unwrap().len(), 3);
    }

    #[test]
    fn what_is_no_port_is_refused_with_its_text() {
        for (text, said) in [
            ("", "missing"),
            ("80:", "missing"),
            ("x:80", "`x`"),
            ("70000", "`70000`"),
            ("+80", "`+80`"),
            ("80:80/icmp", "`icmp`"),
            ("300.1.1.1:80:80", "`300.1.1.1`"),
            ("9-8:80", "9-8"),
            ("80-82:90-91", "differ"),
            ("0", "port 0"),
            ("published=80,colour=red", "`colour=red`"),
        ] {
            let error = parse_publish(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn a_port_is_had_once_and_the_other_is_told_which() {
        let first = take_all(&[one("127.0.0.1::80")], None).unwrap();
        let port = first[0].port.host_port;
        let again = one(&format!("127.0.0.1:{port}:80"));
        let error = take_all(&[again], None).unwrap_err().to_string();
        assert!(error.contains(&format!("127.0.0.1:{port} (tcp)")) && error.contains("in use"), "{error}");
        let next = port.saturating_add(20);
        let within = take_all(&[one(&format!("127.0.0.1:{port}-{next}:80"))], None).unwrap();
        assert_ne!(within[0].port.host_port, port);
        take_all(&[one(&format!("127.0.0.1:{port}:80/udp"))], None).unwrap();
        drop(first);
        take_all(&[again, again], None).unwrap();
        let both = take_all(&[one("80")], None).unwrap();
        assert!(both.iter().all(|listener| listener.port.host_port == both[0].port.host_port), "{both:?}");
    }
}
