//! The network of a container as JSON, in the shape that Docker gives it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::runtime::container::{ContainerSpec, EndpointSpec, HostAddress, NetworkRequest, State};
use crate::runtime::network::{BoundPort, EndpointState, PortRequest, builtin_id};

use super::ContainerInfo;

/// A hardware address as it is written.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The ID of a container's place on a network.
pub fn endpoint_id(container: &str, network: &str) -> String {
    Sha256::digest(format!("{container} {network}")).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Things as they are written.
pub(super) fn texts<T: ToString>(all: &[T]) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

/// `HostConfig.NetworkMode`.
pub(super) fn network_mode(spec: &ContainerSpec) -> String {
    match &spec.network {
        NetworkRequest::Host => "host".to_owned(),
        NetworkRequest::None => "none".to_owned(),
        NetworkRequest::Container { id, .. } => format!("container:{id}"),
        NetworkRequest::Networks(endpoints) => endpoints.first().map_or_else(|| "none".to_owned(), |endpoint| endpoint.plan.name.clone()),
    }
}

/// `HostConfig.ExtraHosts`.
pub(super) fn extra_hosts(spec: &ContainerSpec) -> Value {
    let text = |(name, address): &(String, HostAddress)| match address {
        HostAddress::Address(address) => format!("{name}:{address}"),
        HostAddress::Gateway => format!("{name}:host-gateway"),
    };
    let all: Vec<String> = spec.names.extra_hosts.iter().map(text).collect();
    if all.is_empty() { Value::Null } else { json!(all) }
}

/// `HostConfig.PortBindings`: what was asked for.
pub(super) fn port_bindings(ports: &[PortRequest]) -> Value {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in ports {
        let host_port = match port.host_ports {
            None => String::new(),
            Some((first, last)) if first == last => first.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        let key = format!("{}/{}", port.container_port, port.protocol.word());
        let host_ip = port.host_ip.map_or_else(String::new, |ip| ip.to_string());
        all.entry(key).or_default().push(json!({ "HostIp": host_ip, "HostPort": host_port }));
    }
    json!(all)
}

/// `NetworkSettings.Ports`: what there is, and `null` for a port that the container listens at and that is not published.
fn ports(spec: &ContainerSpec, bound: &[BoundPort]) -> Value {
    let mut all: BTreeMap<String, Value> = spec.written.ports.iter().map(|port| (port.clone(), Value::Null)).collect();
    for port in bound {
        let value = json!({ "HostIp": port.host_ip.to_string(), "HostPort": port.host_port.to_string() });
        match all.entry(format!("{}/{}", port.container_port, port.protocol.word())).or_insert(Value::Null) {
            Value::Array(known) => known.push(value),
            other => *other = json!([value]),
        }
    }
    json!(all)
}

/// `NetworkSettings`.
pub(super) fn network_settings(info: &ContainerInfo, spec: &ContainerSpec) -> Value {
    let (states, bound): (&[EndpointState], &[BoundPort]) = match &info.state {
        Some(State::Running { networks, ports, .. }) => (networks, ports),
        _ => (&[], &[]),
    };
    let mut networks = Map::new();
    let mut builtin = |name: &str| drop(networks.insert(name.to_owned(), builtin_network(spec, name, info.is_running())));
    match &spec.network {
        NetworkRequest::Host => builtin("host"),
        NetworkRequest::None => builtin("none"),
        NetworkRequest::Container { .. } => {}
        NetworkRequest::Networks(endpoints) => {
            for endpoint in endpoints {
                let state = states.iter().find(|state| state.network == endpoint.plan.id);
                networks.insert(endpoint.plan.name.clone(), network(spec, endpoint, state));
            }
        }
    }
    let running = !bound.is_empty() || info.is_running();
    let shared = states.iter().find(|state| state.network == builtin_id("bridge"));
    let mut value = json!({ "Bridge": "", "SandboxID": "", "SandboxKey": "", "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0, "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null, "Ports": if running { ports(spec, bound) } else { json!({}) } });
    if let (Some(value), Value::Object(place)) = (value.as_object_mut(), place(shared)) {
        value.extend(place);
        value.insert("EndpointID".into(), json!(shared.map_or_else(String::new, |state| endpoint_id(&spec.id, &state.network))));
        value.insert("Networks".into(), Value::Object(networks));
    }
    value
}

/// Where a container is on a network.
fn place(state: Option<&EndpointState>) -> Value {
    let ipv6 = state.and_then(|state| state.ipv6);
    json!({
        "Gateway": state.map_or_else(String::new, |state| state.gateway.to_string()),
        "IPAddress": state.map_or_else(String::new, |state| state.address.address.to_string()),
        "IPPrefixLen": state.map_or(0, |state| state.address.prefix),
        "IPv6Gateway": state.and_then(|state| state.ipv6_gateway).map_or_else(String::new, |gateway| gateway.to_string()),
        "GlobalIPv6Address": ipv6.map_or_else(String::new, |net| net.address.to_string()),
        "GlobalIPv6PrefixLen": ipv6.map_or(0, |net| net.prefix),
        "MacAddress": state.map_or_else(String::new, |state| mac_text(state.mac)),
    })
}

/// A container's place on `host` or `none`, which has no address but all the fields: scripts ask for one on whatever networks there are.
fn builtin_network(spec: &ContainerSpec, name: &str, runs: bool) -> Value {
    let id = builtin_id(name);
    let endpoint = if runs { endpoint_id(&spec.id, &id) } else { String::new() };
    let mut value = json!({ "IPAMConfig": null, "Links": null, "Aliases": null, "DriverOpts": null, "GwPriority": 0, "NetworkID": id, "EndpointID": endpoint });
    if let (Some(value), Value::Object(place)) = (value.as_object_mut(), place(None)) {
        value.extend(place);
        value.insert("DNSNames".into(), Value::Null);
    }
    value
}

fn network(spec: &ContainerSpec, endpoint: &EndpointSpec, state: Option<&EndpointState>) -> Value {
    let request = &endpoint.request;
    let mut asked = Map::new();
    if let Some(address) = request.ipv4 {
        asked.insert("IPv4Address".into(), json!(address.to_string()));
    }
    if let Some(address) = request.ipv6 {
        asked.insert("IPv6Address".into(), json!(address.to_string()));
    }
    let mut names = Vec::new();
    if !endpoint.plan.is_default() {
        names = vec![spec.name.clone()];
        names.extend(request.aliases.iter().cloned());
        names.push(spec.id.chars().take(12).collect());
        if !names.contains(&spec.sandbox.hostname) {
            names.push(spec.sandbox.hostname.clone());
        }
    }
    let mut value = json!({
        "IPAMConfig": if asked.is_empty() { Value::Null } else { Value::Object(asked) },
        "Links": null,
        "Aliases": if request.aliases.is_empty() { Value::Null } else { json!(request.aliases) },
        "DriverOpts": request.link.as_ref().map(|link| json!({ "com.docker.network.endpoint.ifname": link })),
        "GwPriority": request.priority,
        "NetworkID": endpoint.plan.id,
        "EndpointID": state.map_or_else(String::new, |state| endpoint_id(&spec.id, &state.network)),
    });
    if let (Some(value), Value::Object(place)) = (value.as_object_mut(), place(state)) {
        value.extend(place);
        value.insert("DNSNames".into(), if names.is_empty() { Value::Null } else { json!(names) });
    }
    value
}
