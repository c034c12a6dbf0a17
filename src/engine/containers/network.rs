//! The network that a new container gets: from what the user asked for to what its supervisor makes.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::oci::RuntimeConfig;
use crate::path::RootPath;
use crate::runtime::MountSpec;
use crate::runtime::Sharing;
use crate::runtime::container::{EndpointSpec, Link, NameSettings, NetworkRequest};
use crate::runtime::network::{
    Carrier, DEFAULT_NETWORK, EndpointRequest, NetworkPlan, PortRequest, Protocol, ResolvMode, hosts_file, resolv_conf_of,
};
use crate::store::ContainerRecord;

use super::super::{Engine, Error};
use super::{ContainerInfo, RunRequest, mounts};

/// The network of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunNetwork {
    /// The host's.
    Host,
    /// None.
    None,
    /// That of another container.
    Container(String),
    /// Networks by name or ID; `bridge` is the one that containers are on that ask for none, or the host's where there can be none.
    Networks(Vec<NetworkChoice>),
}

/// A network, and what the container wants to be there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkChoice {
    /// Its name, ID, or the beginning of its ID.
    pub network: String,
    /// What the container wants to be there.
    pub request: EndpointRequest,
}

impl RunNetwork {
    /// The network of containers that ask for none.
    pub fn bridge() -> RunNetwork {
        RunNetwork::Networks(vec![NetworkChoice { network: DEFAULT_NETWORK.to_owned(), request: EndpointRequest::default() }])
    }
}

/// The network of a new container.
pub(super) struct Network {
    pub(super) request: NetworkRequest,
    pub(super) ports: Vec<PortRequest>,
    pub(super) names: NameSettings,
    /// The container whose network it is.
    other: Option<ContainerInfo>,
}

impl Network {
    /// The host name that the container has: that of the one whose network it has, the host's, or the beginning of its own ID.
    pub(super) fn hostname(&self, request: &RunRequest, record: &ContainerRecord) -> String {
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        if request.namespaces.uts == Sharing::Host {
            return host();
        }
        let other = self.other.as_ref().and_then(|other| other.spec.as_ref());
        match (&request.hostname, other, &self.request) {
            (Some(name), ..) => name.clone(),
            (None, Some(other), _) => other.sandbox.hostname.clone(),
            (None, None, NetworkRequest::Host) => host(),
            (None, None, _) => record.id.chars().take(12).collect(),
        }
    }
}

fn usage(message: impl Into<String>, hint: Option<&str>) -> Error {
    Error::Usage { message: message.into(), hint: hint.map(str::to_owned) }
}

impl Engine {
    /// The network that is asked for.
    pub(super) fn network_of(&self, request: &RunRequest, config: &RuntimeConfig) -> Result<Network, Error> {
        let files = &self.options().network;
        let names = NameSettings {
            extra_hosts: request.extra_hosts.clone(),
            links: self.links(request)?,
            domain: request.domain.clone(),
            resolv: request.resolv.clone(),
            resolv_conf: (files.resolv_conf.clone(), files.upstream_resolv_conf.clone()),
        };
        let (mut other, mut ports) = (None, Vec::new());
        let wanted = match &request.network {
            RunNetwork::Host => NetworkRequest::Host,
            RunNetwork::None => NetworkRequest::None,
            RunNetwork::Container(name) => {
                check_joined(request)?;
                let info = self.container(name)?;
                let joined = NetworkRequest::Container { id: info.record.id.clone(), dir: info.dir.clone() };
                other = Some(info);
                joined
            }
            RunNetwork::Networks(choices) => {
                ports = published(request, config)?;
                let endpoints: Result<Vec<EndpointSpec>, Error> =
                    choices.iter().map(|choice| self.endpoint(&choice.network, &choice.request)).collect();
                let endpoints = endpoints?;
                if let (Some(carrier), true) = (endpoints.iter().find_map(|endpoint| endpoint.plan.carrier()), endpoints.len() > 1) {
                    return Err(usage(format!("a container cannot be on the network `{}` and on others", carrier.name()), None));
                }
                for (at, endpoint) in endpoints.iter().enumerate() {
                    if endpoints[..at].iter().any(|other| other.plan.id == endpoint.plan.id) {
                        return Err(usage(format!("the network `{}` is named twice", endpoint.plan.name), None));
                    }
                }
                NetworkRequest::Networks(endpoints)
            }
        };
        Ok(Network { request: wanted, ports, names, other })
    }

    /// The containers that it is linked to.
    fn links(&self, request: &RunRequest) -> Result<Vec<Link>, Error> {
        if !request.links.is_empty() && !matches!(request.network, RunNetwork::Networks(_)) {
            return Err(usage("--link is for containers on networks of their own", Some("leave --network out, or --link")));
        }
        let link = |(name, alias): &(String, String)| {
            let info = self.container(name)?;
            Ok(Link { id: info.record.id, dir: info.dir, alias: alias.clone() })
        };
        request.links.iter().map(link).collect()
    }

    /// A place on a network, by its name or ID.
    ///
    /// # Errors
    /// There is no such network, or it cannot give what is asked for.
    pub(in crate::engine) fn endpoint(&self, network: &str, request: &EndpointRequest) -> Result<EndpointSpec, Error> {
        let config = match (self.find_network(network), Carrier::parse(network)) {
            (Err(Error::Usage { .. }), Some(carrier)) => return carried(carrier, request),
            (config, _) => config?,
        };
        let name = &config.plan.name;
        if config.driver != "bridge" {
            let message = format!("a container cannot be on the network `{name}` and on others");
            return Err(usage(message, Some("name it alone with --network")));
        }
        if config.plan.is_default() {
            if request.ipv4.is_some() || request.ipv6.is_some() {
                return Err(usage(
                    "an address can be asked for on networks that users made only",
                    Some("make one: `strake network create --subnet …`"),
                ));
            }
            if !request.aliases.is_empty() {
                return Err(usage("aliases are for networks that users made only", Some("make one: `strake network create`")));
            }
        }
        if request.ipv4.is_some() && !config.own_subnet {
            let message = format!("the network `{name}` was made without a subnet, so no address can be asked for");
            return Err(usage(message, Some("make it with `strake network create --subnet …`")));
        }
        Ok(EndpointSpec { plan: config.plan.clone(), run_dir: self.network_dir(&config.plan), request: request.clone() })
    }

    /// Whether all networks of a container are still there.
    pub(super) fn check_networks(&self, info: &ContainerInfo) -> Result<(), Error> {
        let Some(NetworkRequest::Networks(endpoints)) = info.spec.as_ref().map(|spec| &spec.network) else { return Ok(()) };
        for plan in endpoints.iter().map(|endpoint| &endpoint.plan).filter(|plan| !plan.is_default()) {
            if !self.has_network(plan)? {
                let (name, container) = (&plan.name, &info.record.name);
                let hint = format!("take the container off it: `strake network disconnect {name} {container}`");
                return Err(usage(format!("the network `{name}` of the container `{container}` is not there any more"), Some(&hint)));
            }
        }
        Ok(())
    }

    /// The files about names, which belong to the container and not to its image. Its supervisor writes those again that depend on its addresses.
    pub(super) fn name_files(&self, network: &Network, dir: &Path, hostname: &str) -> Result<Vec<MountSpec>, Error> {
        if let Some(other) = &network.other {
            let file = |name: &&str| mounts::bind(other.dir.join(name), RootPath::new(format!("/etc/{name}")), true, false);
            return Ok(["resolv.conf", "hosts", "hostname"].iter().map(file).collect());
        }
        let host = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let (files, names) = (&self.options().network, &network.names);
        let local: IpAddr = std::net::Ipv4Addr::LOCALHOST.into();
        let extra: Vec<(String, IpAddr)> =
            names.extra_hosts.iter().map(|(name, address)| (name.clone(), address.resolved(local))).collect();
        let own = hosts_file(&names.own_name(hostname), &[], &extra);
        let (servers, hosts) = match network.request {
            NetworkRequest::Host => {
                let mut hosts = host(&files.hosts);
                if !hosts.is_empty() && !hosts.ends_with('\n') {
                    hosts.push('\n');
                }
                hosts.extend(extra.iter().map(|(name, address)| format!("{address}\t{name}\n")));
                (resolv_conf_of(&host(&files.resolv_conf), ResolvMode::Host, &names.resolv, None), hosts)
            }
            NetworkRequest::None => (resolv_conf_of("", ResolvMode::Host, &names.resolv, None), own),
            _ => (names.resolv_conf(false), own),
        };
        let mut mounts = Vec::new();
        for (name, content) in [("resolv.conf", servers), ("hosts", hosts), ("hostname", format!("{hostname}\n"))] {
            let path = dir.join(name);
            let failed = |source| Error::Io { action: "write", path: path.clone(), source };
            std::fs::write(&path, content).map_err(failed)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).map_err(failed)?;
            mounts.push(mounts::bind(path, RootPath::new(format!("/etc/{name}")), true, false));
        }
        Ok(mounts)
    }
}

/// A place on a network that a program makes, for one container.
fn carried(carrier: Carrier, request: &EndpointRequest) -> Result<EndpointSpec, Error> {
    if *request != (EndpointRequest { mac: request.mac, priority: request.priority, ..EndpointRequest::default() }) {
        let message = format!("a container has neither aliases, addresses nor links of its choice with --network {}", carrier.name());
        return Err(usage(message, None));
    }
    Ok(EndpointSpec { plan: NetworkPlan::carried(carrier), run_dir: std::path::PathBuf::new(), request: request.clone() })
}

/// What belongs to the network cannot be said where it is another container's.
fn check_joined(request: &RunRequest) -> Result<(), Error> {
    let said = [
        (request.hostname.is_some(), "--hostname"),
        (request.domain.is_some(), "--domainname"),
        (!request.publish.is_empty() || request.publish_all, "-p"),
        (!request.ports.is_empty(), "--expose"),
        (!request.extra_hosts.is_empty(), "--add-host"),
        (request.resolv != crate::runtime::network::ResolvFlags::default(), "--dns"),
    ];
    match said.iter().find(|(said, _)| *said) {
        Some((_, flag)) => {
            let message = format!("{flag} and the network of another container contradict each other");
            Err(usage(message, Some("say it where that container is made")))
        }
        None => Ok(()),
    }
}

/// The ports that are published: those that are named, and with `-P` all others that the container or its image says that it listens at.
fn published(request: &RunRequest, config: &RuntimeConfig) -> Result<Vec<PortRequest>, Error> {
    let mut ports = request.publish.clone();
    if request.publish_all {
        for text in config.exposed_ports.keys().chain(&request.ports) {
            for (port, protocol) in exposed(text)? {
                if !ports.iter().any(|known| known.container_port == port && known.protocol == protocol) {
                    ports.push(PortRequest { host_ip: None, host_ports: None, container_port: port, protocol });
                }
            }
        }
    }
    Ok(ports)
}

/// The ports of `80-82/tcp`.
fn exposed(text: &str) -> Result<Vec<(u16, Protocol)>, Error> {
    let refused = |reason: String| usage(format!("the port `{text}` cannot be published: {reason}"), None);
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = Protocol::parse(protocol).map_err(refused)?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let number = |text: &str| text.parse::<u16>().map_err(|_| refused(format!("`{text}` is not a port")));
    Ok((number(first)?..=number(last)?).map(|port| (port, protocol)).collect())
}
