//! `strake port`, and the ports of `strake ps`.

use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;

use crate::cli::{Global, report};
use crate::engine::{ContainerInfo, Error};
use crate::runtime::container::State;
use crate::runtime::network::BoundPort;

use super::containers::open;
use super::exit;

// Flags of `strake port`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PortArgs {
    /// The container
    container: String,
    /// Only this port of it: `PORT[/PROTOCOL]`
    port: Option<String>,
}

/// The ports that a container has published.
pub(super) fn published(info: &ContainerInfo) -> &[BoundPort] {
    match &info.state {
        Some(State::Running { ports, .. }) => ports,
        _ => &[],
    }
}

/// Runs `strake port`.
pub(in crate::cli) fn port(global: &Global, args: &PortArgs) -> ExitCode {
    exit(open(global).and_then(|engine| {
        let info = engine.container(&args.container)?;
        let all = published(&info);
        let Some(wanted) = &args.port else {
            for port in all {
                report::result(&format!("{}/{} -> {}", port.container_port, port.protocol.word(), at(port)));
            }
            return Ok(());
        };
        let wanted = if wanted.contains('/') { wanted.to_lowercase() } else { format!("{wanted}/tcp") };
        let mut found = all.iter().filter(|port| format!("{}/{}", port.container_port, port.protocol.word()) == wanted).peekable();
        if found.peek().is_none() {
            let message = format!("the container `{}` has not published the port {wanted}", info.record.name);
            return Err(Error::Usage { message, hint: None });
        }
        found.for_each(|port| report::result(&at(port)));
        Ok(())
    }))
}

fn at(port: &BoundPort) -> String {
    format!("{}:{}", host(port.host_ip), port.host_port)
}

fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

fn range(first: u16, last: u16) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// Protocol, first and last port of `80-82/tcp`.
fn ports_of(text: &str) -> Option<(&str, u16, u16)> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    Some((protocol, first.parse().ok()?, last.parse().ok()?))
}

/// The ports of a container in one line: `0.0.0.0:8080->80/tcp, 443/tcp`. Ports that follow each other are one range.
pub(super) fn summary(info: &ContainerInfo) -> String {
    let all = published(info);
    let mut parts = Vec::new();
    if info.is_running() {
        let is_published = |text: &str| all.iter().any(|port| format!("{}/{}", port.container_port, port.protocol.word()) == text);
        let of_all = info.spec.iter().flat_map(|spec| &spec.written.ports).filter(|text| !is_published(text));
        // Each with the protocol first, so that those which follow each other come together.
        let mut exposed: Vec<(&str, u16, u16)> = of_all.filter_map(|text| ports_of(text)).collect();
        exposed.sort_unstable();
        let joined = exposed.into_iter().fold(Vec::new(), |mut joined: Vec<(&str, u16, u16)>, (protocol, first, last)| {
            match joined.last_mut() {
                Some(before) if before.0 == protocol && before.2.checked_add(1) == Some(first) => before.2 = last,
                _ => joined.push((protocol, first, last)),
            }
            joined
        });
        parts.extend(joined.into_iter().map(|(protocol, first, last)| ((first, ""), format!("{}/{protocol}", range(first, last)))));
    }
    let mut rest: Vec<BoundPort> = all.to_vec();
    rest.sort_by_key(|port| (port.host_ip, port.protocol, port.host_port));
    let mut at = 0;
    while at < rest.len() {
        let first = rest[at];
        let follows = |offset: usize, port: &BoundPort| {
            let offset = u16::try_from(offset).unwrap_or(u16::MAX);
            (port.host_ip, port.protocol) == (first.host_ip, first.protocol)
                && first.host_port.checked_add(offset) == Some(port.host_port)
                && first.container_port.checked_add(offset) == Some(port.container_port)
        };
        let length = rest[at..].iter().enumerate().take_while(|(offset, port)| follows(*offset, port)).count().max(1);
        let last = rest[at + length - 1];
        let (host_ports, ports) = (range(first.host_port, last.host_port), range(first.container_port, last.container_port));
        parts.push((
            (first.container_port, first.protocol.word()),
            format!("{}:{host_ports}->{ports}/{}", host(first.host_ip), first.protocol.word()),
        ));
        at += length;
    }
    parts.sort_by_key(|(port, _)| *port);
    parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", ")
}

/// Whether a container has published one of these ports of the host, for `--filter publish=`.
pub(super) fn publishes(info: &ContainerInfo, wanted: &Ports) -> bool {
    published(info).iter().any(|port| wanted.overlap(port.protocol.word(), (port.host_port, port.host_port)))
}

/// Whether it says that it listens at one of these ports of its own, for `--filter expose=`.
pub(super) fn exposes(info: &ContainerInfo, wanted: &Ports) -> bool {
    let known = info.spec.iter().flat_map(|spec| &spec.written.ports).filter_map(|text| Ports::parse(text).ok());
    known.into_iter().any(|known| wanted.overlap(&known.protocol, (known.first, known.last)))
}

/// `80`, `80/udp` or `8000-8080/tcp`.
pub(super) struct Ports {
    first: u16,
    last: u16,
    protocol: String,
}

impl Ports {
    /// Reads them.
    pub(super) fn parse(text: &str) -> Result<Ports, String> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let numbers = first.parse().ok().zip(last.parse().ok()).filter(|(first, last)| first <= last);
        let (first, last) = numbers.ok_or_else(|| format!("`{text}` is not a port: expected PORT[-PORT][/PROTOCOL]"))?;
        Ok(Ports { first, last, protocol: protocol.to_lowercase() })
    }

    fn overlap(&self, protocol: &str, (first, last): (u16, u16)) -> bool {
        protocol == self.protocol && first <= self.last && self.first <= last
    }
}
