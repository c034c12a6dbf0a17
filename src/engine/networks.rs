//! Networks as the user manages them: which there are, what is on them, and what becomes of those that nobody uses.
//!
//! A network is a row of the store with a document of ours in it. Its bridge and its rules are there only while a container runs on it (`runtime::network`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::runtime::container::{self, EndpointSpec, NetworkRequest, State, save_spec};
use crate::runtime::network::{
    DEFAULT_NETWORK, EndpointRequest, EndpointState, Ipv4Net, Ipv6Net, NetworkPlan, Subnet, builtin_id, forget, free_subnet, shared_subnet,
};

use super::containers::ContainerInfo;
use super::{Engine, Error};

/// How often another subnet is chosen where somebody else has chosen the same at the same time.
const ATTEMPTS: u32 = 16;

/// What is kept of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// What it is on the host.
    pub plan: NetworkPlan,
    /// `bridge`; `host` and `null` are those of the networks that every host has.
    pub driver: String,
    /// When it was made: RFC 3339.
    pub created: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The driver's options, as the user wrote them.
    pub options: BTreeMap<String, String>,
    /// Accepted for compatibility.
    pub attachable: bool,
    /// Whether the user chose its IPv4 subnet.
    pub own_subnet: bool,
}

/// A network, and who is on it.
#[derive(Clone, Debug)]
pub struct NetworkInfo {
    /// What it is.
    pub config: NetworkConfig,
    /// Whether every host has it.
    pub builtin: bool,
    /// The containers that run on it.
    pub members: Vec<NetworkMember>,
    /// The names of all containers that are to run on it.
    pub users: Vec<String>,
}

/// A container on a network.
#[derive(Clone, Debug)]
pub struct NetworkMember {
    /// Its ID.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is there; nothing where the network is the host's, or none.
    pub state: Option<EndpointState>,
}

/// What a new network is to be.
#[derive(Clone, Debug, Default)]
pub struct NetworkRequestOptions {
    /// Its name.
    pub name: String,
    /// Its subnets: at most one of each family.
    pub subnets: Vec<String>,
    /// The host's addresses in them.
    pub gateways: Vec<IpAddr>,
    /// The parts of them that addresses are given out of.
    pub ranges: Vec<String>,
    /// Addresses in them that are never given out, by names that mean nothing here.
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// Whether nothing leads out of it.
    pub internal: bool,
    /// Whether it has an IPv6 subnet.
    pub ipv6: bool,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Options of the driver.
    pub options: BTreeMap<String, String>,
    /// Accepted for compatibility.
    pub attachable: bool,
}

fn usage(message: impl Into<String>, hint: Option<String>) -> Error {
    Error::Usage { message: message.into(), hint }
}

/// Whether every host has a network of that name, or none may have.
fn is_predefined(name: &str) -> bool {
    matches!(name, DEFAULT_NETWORK | "host" | "none" | "default")
}

/// A place on the network of containers that ask for none and for nothing there.
pub(super) fn default_endpoint(run_dir: &Path) -> EndpointSpec {
    let plan = builtin(DEFAULT_NETWORK, "bridge").plan;
    EndpointSpec { run_dir: network_dir(run_dir, &plan), plan, request: EndpointRequest::default() }
}

fn network_dir(run_dir: &Path, plan: &NetworkPlan) -> PathBuf {
    match plan.is_default() {
        true => run_dir.join("net"),
        false => run_dir.join("nets").join(&plan.id),
    }
}

fn builtin(name: &str, driver: &str) -> NetworkConfig {
    let plan = NetworkPlan { id: builtin_id(name), name: name.to_owned(), ..NetworkPlan::default_bridge() };
    NetworkConfig {
        plan,
        driver: driver.to_owned(),
        created: Timestamp::UNIX_EPOCH.to_string(),
        labels: BTreeMap::new(),
        options: BTreeMap::new(),
        attachable: false,
        own_subnet: false,
    }
}

impl NetworkInfo {
    /// The first twelve digits of the ID.
    pub fn short_id(&self) -> &str {
        self.config.plan.id.get(..12).unwrap_or(&self.config.plan.id)
    }

    /// The subnet and the host's address in it; those of the bridge that all containers share are known while it is there.
    pub fn ipv4(&self) -> Option<(Ipv4Net, std::net::Ipv4Addr, Option<Ipv4Net>)> {
        match self.config.plan.v4 {
            Some(subnet) => Some((subnet.net, subnet.gateway, subnet.range)),
            None if self.config.driver == "bridge" => shared_subnet().map(|net| (net.network(), net.address, None)),
            None => None,
        }
    }
}

impl Engine {
    /// Where a network's files are that do not outlive a reboot.
    pub(super) fn network_dir(&self, plan: &NetworkPlan) -> PathBuf {
        network_dir(&self.options().run_dir, plan)
    }

    fn network_configs(&self) -> Result<Vec<NetworkConfig>, Error> {
        let mut all = vec![builtin(DEFAULT_NETWORK, "bridge"), builtin("host", "host"), builtin("none", "null")];
        for (name, text) in self.store().networks()? {
            let damaged = |error: serde_json::Error| usage(format!("what the store has of the network `{name}` is damaged: {error}"), None);
            all.push(serde_json::from_slice(&text).map_err(damaged)?);
        }
        all.sort_by(|a, b| a.plan.name.cmp(&b.plan.name));
        Ok(all)
    }

    /// All networks, by name.
    pub fn networks(&self) -> Result<Vec<NetworkInfo>, Error> {
        let containers = self.containers()?;
        Ok(self.network_configs()?.into_iter().map(|config| info(config, &containers)).collect())
    }

    /// The network of that name, ID, or beginning of an ID.
    pub fn network(&self, text: &str) -> Result<NetworkInfo, Error> {
        Ok(info(self.find_network(text)?, &self.containers()?))
    }

    /// The same without those who are on it.
    pub(super) fn find_network(&self, text: &str) -> Result<NetworkConfig, Error> {
        let text = if text == "default" { DEFAULT_NETWORK } else { text };
        let all = self.network_configs()?;
        let exact = all.iter().find(|config| config.plan.name == text || config.plan.id == text);
        let begins = |config: &&NetworkConfig| !text.is_empty() && config.plan.id.starts_with(text);
        match exact {
            Some(config) => Ok(config.clone()),
            None => match all.iter().filter(begins).collect::<Vec<_>>()[..] {
                [config] => Ok(config.clone()),
                [] => Err(usage(format!("no such network: `{text}`"), Some("`strake network ls` lists all networks".into()))),
                _ => Err(usage(format!("several networks have an ID that begins with `{text}`"), None)),
            },
        }
    }

    /// Whether that network is still there, and no other under its name.
    pub(super) fn has_network(&self, plan: &NetworkPlan) -> Result<bool, Error> {
        let found = self.store().network(&plan.name)?.and_then(|text| serde_json::from_slice::<NetworkConfig>(&text).ok());
        Ok(found.is_some_and(|config| config.plan.id == plan.id))
    }

    /// Makes a network; gives its ID.
    pub fn create_network(&self, request: &NetworkRequestOptions) -> Result<String, Error> {
        let name = &request.name;
        if is_predefined(name) {
            return Err(usage(format!("the network `{name}` is predefined: another cannot have its name"), None));
        }
        for _ in 0..ATTEMPTS {
            let others = self.network_configs()?;
            if others.iter().any(|other| other.plan.name == *name) {
                let hint = Some(format!("remove it with `strake network rm {name}`, or give this one another name"));
                return Err(usage(format!("a network with the name `{name}` exists"), hint));
            }
            let config = self.network_config(request, &others)?;
            let text = serde_json::to_vec(&config).unwrap_or_default();
            self.store().create_network(name, &text).map_err(|error| match error {
                error @ (crate::store::Error::BadName { .. } | crate::store::Error::NameTaken { .. }) => usage(error.to_string(), None),
                other => other.into(),
            })?;
            // Somebody may have chosen the same subnet meanwhile: one of the two gives way.
            let rival = self.network_configs()?.into_iter().find(|other| {
                other.plan.id > config.plan.id
                    && overlap(&other.plan, &config.plan)
                    && !others.iter().any(|known| known.plan.id == other.plan.id)
            });
            if rival.is_none() || config.own_subnet {
                self.network_event("create", &config);
                return Ok(config.plan.id);
            }
            self.store().remove_network(name)?;
        }
        Err(usage(format!("no subnet could be chosen for the network `{name}`"), Some("name one with --subnet".into())))
    }

    fn network_config(&self, request: &NetworkRequestOptions, others: &[NetworkConfig]) -> Result<NetworkConfig, Error> {
        let id = super::containers::random_id()?;
        let (v4, v6) = subnets(request)?;
        let own_subnet = v4.is_some();
        let v4 = match v4 {
            Some(subnet) => subnet,
            None => {
                let taken: Vec<Ipv4Net> = others.iter().filter_map(|other| other.plan.v4.map(|subnet| subnet.net)).collect();
                let failed = |error: crate::runtime::network::Error| usage(error.to_string(), Some("name one with --subnet".into()));
                with_gateway(free_subnet(&taken).map_err(failed)?)
            }
        };
        let v6 = v6.or_else(|| request.ipv6.then(|| local_subnet(&id)));
        let mut plan = NetworkPlan {
            bridge: NetworkPlan::bridge_name(&id),
            id,
            name: request.name.clone(),
            v4: Some(v4),
            v6,
            internal: request.internal,
            isolated: false,
            masquerade: true,
            mtu: None,
            publish_at: None,
            auxiliary: auxiliary(request, v4, v6)?,
        };
        for (key, value) in &request.options {
            set_option(&mut plan, key, value)?;
        }
        if let Some(other) = others.iter().find(|other| other.plan.v4.is_some() && overlap(&other.plan, &plan)) {
            let hint = Some("name another with --subnet, or none".to_owned());
            return Err(usage(format!("the subnet of the network `{}` overlaps that of `{}`", request.name, other.plan.name), hint));
        }
        if let Some(other) = others.iter().find(|other| other.plan.v4.is_some() && other.plan.bridge == plan.bridge) {
            return Err(usage(format!("the network `{}` has the bridge `{}`", other.plan.name, plan.bridge), None));
        }
        Ok(NetworkConfig {
            plan,
            driver: "bridge".to_owned(),
            created: Timestamp::now().to_string(),
            labels: request.labels.clone(),
            options: request.options.clone(),
            attachable: request.attachable,
            own_subnet,
        })
    }

    /// Removes a network that no container runs on.
    pub fn remove_network(&self, network: &NetworkInfo) -> Result<(), Error> {
        let name = &network.config.plan.name;
        if network.builtin {
            return Err(usage(format!("the network `{name}` is predefined and cannot be removed"), None));
        }
        let in_use = |user: &str| {
            let hint = Some(format!("stop it, or take it off: `strake network disconnect {name} {user}`"));
            usage(format!("the network `{name}` is in use by the container `{user}`"), hint)
        };
        if let Some(member) = network.members.first() {
            return Err(in_use(&member.name));
        }
        let failed =
            |error: crate::runtime::network::Error| usage(format!("the network `{name}` cannot be removed: {error}"), error.hint());
        if !forget(&self.network_dir(&network.config.plan), &network.config.plan).map_err(failed)? {
            return Err(in_use(network.users.first().map_or("of another command", String::as_str)));
        }
        self.store().remove_network(name)?;
        self.network_event("destroy", &network.config);
        Ok(())
    }

    /// Puts a container on a network, at once where it runs.
    pub fn connect_network(&self, network: &str, container: &str, request: &EndpointRequest) -> Result<(), Error> {
        let info = self.container(container)?;
        let endpoint = self.endpoint(network, request)?;
        self.change_networks(&info, "connect", |endpoints| {
            if endpoints.iter().any(|known| known.plan.id == endpoint.plan.id) {
                let message = format!("the container `{}` is on the network `{}`", info.record.name, endpoint.plan.name);
                return Err(usage(message, None));
            }
            endpoints.push(endpoint);
            Ok(())
        })
    }

    /// Takes a container off a network, at once where it runs. The network itself need not be there any more.
    pub fn disconnect_network(&self, network: &str, container: &str) -> Result<(), Error> {
        let info = self.container(container)?;
        let known = self.network(network).map(|network| network.config.plan.id);
        self.change_networks(&info, "disconnect", |endpoints| {
            // A name goes before the beginning of an ID, also that of a network which is gone.
            let named = endpoints.iter().find(|endpoint| endpoint.plan.name == network || endpoint.plan.id == network);
            let meant = named.map(|endpoint| endpoint.plan.id.clone()).or_else(|| known.as_ref().ok().cloned());
            let before = endpoints.len();
            endpoints.retain(|endpoint| Some(&endpoint.plan.id) != meant.as_ref());
            if endpoints.len() < before {
                return Ok(());
            }
            known?;
            Err(usage(format!("the container `{}` is not on the network `{network}`", info.record.name), None))
        })
    }

    fn change_networks(
        &self,
        info: &ContainerInfo,
        action: &'static str,
        change: impl FnOnce(&mut Vec<container::EndpointSpec>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let name = &info.record.name;
        let Some(before) = &info.spec else { return Err(usage(format!("the container `{name}` is not whole"), None)) };
        let mut spec = before.clone();
        let NetworkRequest::Networks(endpoints) = &mut spec.network else {
            let message = format!("the container `{name}` has no networks of its own: it was made with --network host, none or container:");
            return Err(usage(message, None));
        };
        change(endpoints)?;
        let failed = |source| Error::Container { action, name: name.clone(), source };
        save_spec(&info.dir, &spec).map_err(failed)?;
        if !info.is_running() {
            return Ok(());
        }
        match container::change_networks(&info.dir) {
            // It has ended meanwhile.
            Ok(()) | Err(container::Error::NotRunning) => Ok(()),
            Err(error) => {
                // What it is stays as it was, and so do its places on networks.
                let _ = save_spec(&info.dir, before).and_then(|()| container::change_networks(&info.dir));
                Err(failed(error))
            }
        }
    }

    fn network_event(&self, action: &str, config: &NetworkConfig) {
        let attributes = [("name", config.plan.name.clone()), ("type", config.driver.clone())];
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let recorded =
            crate::runtime::container::journal::Recorded { kind: "network", action, id: &config.plan.id, attributes: &attributes };
        crate::runtime::container::journal::Journal::new(&self.store().journal_path()).write(&recorded);
    }
}

fn info(config: NetworkConfig, containers: &[ContainerInfo]) -> NetworkInfo {
    let (mut members, mut users) = (Vec::new(), Vec::new());
    for container in containers {
        let Some(spec) = &container.spec else { continue };
        let is_on = match (&spec.network, config.driver.as_str()) {
            (NetworkRequest::Host, "host") | (NetworkRequest::None, "null") => true,
            (NetworkRequest::Networks(endpoints), "bridge") => endpoints.iter().any(|endpoint| endpoint.plan.id == config.plan.id),
            _ => false,
        };
        let running = match &container.state {
            Some(State::Running { networks, .. }) => Some(networks.iter().find(|state| state.network == config.plan.id).cloned()),
            _ => None,
        };
        if is_on {
            users.push(container.record.name.clone());
        }
        let state = running.as_ref().and_then(Clone::clone);
        if state.is_some() || running.is_some() && is_on && config.driver != "bridge" {
            members.push(NetworkMember { id: container.record.id.clone(), name: container.record.name.clone(), state });
        }
    }
    NetworkInfo { builtin: is_predefined(&config.plan.name), config, members, users }
}

fn overlap(a: &NetworkPlan, b: &NetworkPlan) -> bool {
    let v4 = a.v4.zip(b.v4).is_some_and(|(a, b)| a.net.overlaps(b.net));
    v4 || a.v6.zip(b.v6).is_some_and(|(a, b)| a.net.overlaps(b.net))
}

/// A subnet with the host at its first address.
fn with_gateway(net: Ipv4Net) -> Subnet<Ipv4Net, std::net::Ipv4Addr> {
    let gateway = net.network().host(1).map_or(net.address, |host| host.address);
    Subnet { net: net.network(), gateway, range: None }
}

/// An IPv6 subnet that nobody else has, by the network's ID (RFC 4193).
fn local_subnet(id: &str) -> Subnet<Ipv6Net, Ipv6Addr> {
    let digit = |at: usize| u16::from_str_radix(id.get(at..at + 4).unwrap_or_default(), 16).unwrap_or(0);
    let first = 0xfd00 | u16::from_str_radix(id.get(..2).unwrap_or_default(), 16).unwrap_or(0);
    let net = Ipv6Net::new(Ipv6Addr::new(first, digit(2), digit(6), digit(10), 0, 0, 0, 0), 64);
    Subnet { net, gateway: net.host(1).map_or(net.address, |host| host.address), range: None }
}

type Subnets = (Option<Subnet<Ipv4Net, std::net::Ipv4Addr>>, Option<Subnet<Ipv6Net, Ipv6Addr>>);

/// The subnets that are asked for, with the gateways and ranges that lie in them.
fn subnets(request: &NetworkRequestOptions) -> Result<Subnets, Error> {
    let (mut v4, mut v6): Subnets = (None, None);
    for text in &request.subnets {
        let twice = |family: &str| usage(format!("`{text}` is the second {family} subnet, and a network has one"), None);
        if let Ok(net) = text.parse::<Ipv4Net>() {
            if !(8..=30).contains(&net.prefix) {
                return Err(usage(format!("a subnet like `{text}` is not supported: its prefix has to be of 8 to 30 bits"), None));
            }
            if v4.replace(with_gateway(net)).is_some() {
                return Err(twice("IPv4"));
            }
            continue;
        }
        let net: Ipv6Net = text.parse().map_err(|error: crate::runtime::network::NotANetwork| usage(error.to_string(), None))?;
        if !(8..=126).contains(&net.prefix) {
            return Err(usage(format!("a subnet like `{text}` is not supported: its prefix has to be of 8 to 126 bits"), None));
        }
        let net = net.network();
        let subnet = Subnet { net, gateway: net.host(1).map_or(net.address, |host| host.address), range: None };
        if v6.replace(subnet).is_some() {
            return Err(twice("IPv6"));
        }
    }
    for (at, gateway) in request.gateways.iter().enumerate() {
        if request.gateways[..at].iter().any(|known| known.is_ipv4() == gateway.is_ipv4()) {
            return Err(usage(format!("{gateway} is the second gateway of a subnet, which has one"), None));
        }
        match (gateway, &mut v4, &mut v6) {
            (IpAddr::V4(address), Some(subnet), _)
                if subnet.net.contains(*address) && *address != subnet.net.address && *address != subnet.net.broadcast() =>
            {
                subnet.gateway = *address;
            }
            (IpAddr::V6(address), _, Some(subnet)) if subnet.net.contains(*address) => subnet.gateway = *address,
            _ => return Err(usage(format!("the gateway {gateway} is no host of a subnet that is named with --subnet"), None)),
        }
    }
    for text in &request.ranges {
        let misses = || usage(format!("the range {text} is not in a subnet that is named with --subnet"), None);
        if let Ok(range) = text.parse::<Ipv4Net>() {
            let subnet = v4.as_mut().filter(|subnet| range.prefix >= subnet.net.prefix && subnet.net.contains(range.address));
            subnet.ok_or_else(misses)?.range = Some(range.network());
            continue;
        }
        let range: Ipv6Net = text.parse().map_err(|error: crate::runtime::network::NotANetwork| usage(error.to_string(), None))?;
        let subnet = v6.as_mut().filter(|subnet| range.prefix >= subnet.net.prefix && subnet.net.contains(range.address));
        subnet.ok_or_else(misses)?.range = Some(range.network());
    }
    Ok((v4, v6))
}

/// The addresses that are never given out.
fn auxiliary(
    request: &NetworkRequestOptions,
    v4: Subnet<Ipv4Net, std::net::Ipv4Addr>,
    v6: Option<Subnet<Ipv6Net, Ipv6Addr>>,
) -> Result<BTreeMap<String, IpAddr>, Error> {
    for (name, address) in &request.auxiliary {
        let refused = |reason: &str| Err(usage(format!("the address `{name}={address}` cannot be set aside: {reason}"), None));
        let (is_inside, gateway) = match address {
            IpAddr::V4(address) => (v4.net.contains(*address) && !request.subnets.is_empty(), v4.gateway == *address),
            IpAddr::V6(address) => v6.map_or((false, false), |subnet| (subnet.net.contains(*address), subnet.gateway == *address)),
        };
        if !is_inside {
            return refused("it is not in a subnet that is named with --subnet");
        }
        if gateway {
            return refused("it is the gateway");
        }
        if request.auxiliary.iter().any(|(other, known)| other < name && known == address) {
            return refused("it is named twice");
        }
    }
    Ok(request.auxiliary.clone())
}

/// Takes an option of Docker's bridge driver in.
fn set_option(plan: &mut NetworkPlan, key: &str, value: &str) -> Result<(), Error> {
    let refused = |expected: &str| usage(format!("`{value}` is no value of the option `{key}`: expected {expected}"), None);
    let boolean = || match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(refused("true or false")),
    };
    match key {
        "com.docker.network.driver.mtu" | "mtu" => {
            plan.mtu = Some(value.parse().ok().filter(|mtu| (68..=65_535).contains(mtu)).ok_or_else(|| refused("68 to 65535"))?);
        }
        "com.docker.network.bridge.name" => {
            let fits = (1..=15).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            if !fits || value.starts_with('.') || value == NetworkPlan::default_bridge().bridge {
                return Err(refused("at most 15 letters, digits, `-`, `_` and `.`"));
            }
            value.clone_into(&mut plan.bridge);
        }
        "com.docker.network.bridge.enable_ip_masquerade" => plan.masquerade = boolean()?,
        "com.docker.network.bridge.host_binding_ipv4" => {
            let address: IpAddr = value.parse().map_err(|_| refused("an address"))?;
            plan.publish_at = Some(address).filter(|address| !address.is_unspecified());
        }
        "com.docker.network.bridge.enable_icc" => plan.isolated = !boolean()?,
        // What is so anyway.
        "com.docker.network.bridge.gateway_mode_ipv4" | "com.docker.network.bridge.gateway_mode_ipv6" if value == "nat" => {}
        _ => {
            let known = "com.docker.network.driver.mtu, and com.docker.network.bridge.name, .enable_ip_masquerade, .host_binding_ipv4 and .enable_icc";
            return Err(usage(format!("the option `{key}` of a network is not supported"), Some(format!("known are {known}"))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(subnets: &[&str], gateways: &[&str], ranges: &[&str]) -> NetworkRequestOptions {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let gateways = gateways.iter().map(|text| text.parse().unwrap()).collect();
        NetworkRequestOptions { subnets: texts(subnets), gateways, ranges: texts(ranges), ..NetworkRequestOptions::default() }
    }

    #[test]
    fn gateways_and_ranges_belong_to_the_subnet_that_they_lie_in() {
        let asked = request(&["10.5.0.0/16", "fd00:5::/64"], &["fd00:5::9", "10.5.9.9"], &["10.5.4.0/24"]);
        let (v4, v6) = subnets(&asked).unwrap();
        assert_eq!(v4.unwrap().gateway.to_string(), "10.5.9.9");
        assert_eq!(v4.unwrap().range.unwrap().to_string(), "10.5.4.0/24");
        assert_eq!(v6.unwrap().gateway.to_string(), "fd00:5::9");
        let (v4, _) = subnets(&request(&["10.5.0.7/24"], &[], &[])).unwrap();
        assert_eq!((v4.unwrap().net.to_string(), v4.unwrap().gateway.to_string()), ("10.5.0.0/24".to_owned(), "10.5.0.1".to_owned()));
    }

    #[test]
    fn what_contradicts_itself_is_refused_with_its_text() {
        for (asked, said) in [
            (request(&["10.5.0.0/16", "10.6.0.0/16"], &[], &[]), "10.6.0.0/16"),
            (request(&["10.5.0.0/31"], &[], &[]), "10.5.0.0/31"),
            (request(&["10.5.0.0/4"], &[], &[]), "10.5.0.0/4"),
            (request(&["10.5.0/16"], &[], &[]), "10.5.0/16"),
            (request(&["10.5.0.0/16"], &["10.6.0.1"], &[]), "10.6.0.1"),
            (request(&["10.5.0.0/16"], &["10.5.255.255"], &[]), "10.5.255.255"),
            (request(&[], &["10.6.0.1"], &[]), "10.6.0.1"),
            (request(&["10.5.0.0/16"], &["10.5.0.7", "10.5.0.8"], &[]), "10.5.0.8"),
            (request(&["10.5.0.0/16"], &[], &["10.6.0.0/24"]), "10.6.0.0/24"),
            (request(&["10.5.0.0/16"], &[], &["10.0.0.0/8"]), "10.0.0.0/8"),
        ] {
            let error = subnets(&asked).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn options_are_dockers() {
        let mut plan = NetworkPlan::default_bridge();
        set_option(&mut plan, "com.docker.network.driver.mtu", "1400").unwrap();
        set_option(&mut plan, "com.docker.network.bridge.name", "br-x").unwrap();
        set_option(&mut plan, "com.docker.network.bridge.enable_icc", "false").unwrap();
        assert_eq!((plan.mtu, plan.bridge.as_str(), plan.isolated), (Some(1400), "br-x", true));
        for (key, value) in [
            ("com.docker.network.driver.mtu", "x"),
            ("com.docker.network.bridge.name", "a b"),
            ("com.docker.network.bridge.enable_icc", "maybe"),
            ("colour", "red"),
        ] {
            assert!(set_option(&mut plan, key, value).is_err(), "{key}={value}");
        }
    }
}
