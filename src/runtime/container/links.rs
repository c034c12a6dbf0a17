//! Links to other containers (`--link`), as Docker had them before networks had names: an entry in `hosts`, and on the shared bridge variables that say where the other one
//! listens.
//!
//! They are made when the container starts, so the other must run by then, and what it is later comes with the next start.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::runtime::network::{DEFAULT_NETWORK, EndpointState};

use super::supervisor::StartError;
use super::{State, load_spec, load_state};

/// A container that another one is to find under a name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its ID.
    pub id: String,
    /// Its directory.
    pub dir: PathBuf,
    /// What it is called there.
    pub alias: String,
}

/// A link to a container that runs.
#[derive(Clone, Debug)]
pub(super) struct Linked {
    /// The names in `hosts`.
    pub(super) names: String,
    /// Its address.
    pub(super) address: IpAddr,
    /// The variables that tell of it.
    pub(super) variables: Vec<(String, String)>,
}

/// Looks where the containers are that `container` is linked to, which has these places on networks.
pub(super) fn resolve(links: &[Link], container: &str, own: &[EndpointState]) -> Result<Vec<Linked>, StartError> {
    links.iter().map(|link| one(link, container, own)).collect()
}

fn one(link: &Link, container: &str, own: &[EndpointState]) -> Result<Linked, StartError> {
    let refused = |reason| StartError::Link { container: link.id.chars().take(12).collect(), reason };
    let (Ok(spec), Ok(State::Running { networks, .. })) = (load_spec(&link.dir), load_state(&link.dir)) else {
        return Err(refused("it does not run"));
    };
    let shared = networks.iter().find(|other| own.iter().any(|state| state.network == other.network));
    let place = shared.ok_or_else(|| refused("the two have no network in common"))?;
    let address = IpAddr::V4(place.address.address);
    let mut names = format!("{} {}", link.alias, spec.sandbox.hostname);
    if spec.name != link.alias {
        names.push_str(&format!(" {}", spec.name));
    }
    let on_bridge = place.name == DEFAULT_NETWORK;
    let variables = if on_bridge { variables(link, container, address, &spec.written.ports, &spec.written.env) } else { Vec::new() };
    Ok(Linked { names, address, variables })
}

fn variables(link: &Link, container: &str, address: IpAddr, ports: &[String], env: &[String]) -> Vec<(String, String)> {
    let alias = link.alias.to_uppercase().replace('-', "_");
    let mut open: Vec<(u16, &str)> = ports
        .iter()
        .filter_map(|text| text.split_once('/'))
        .flat_map(|(ports, protocol)| {
            let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
            let range = first.parse::<u16>().ok().zip(last.parse::<u16>().ok());
            range.into_iter().flat_map(|(first, last)| first..=last).map(move |port| (port, protocol))
        })
        .collect();
    open.sort_unstable();
    let mut all = Vec::new();
    if let Some((port, protocol)) = open.first() {
        all.push((format!("{alias}_PORT"), format!("{protocol}://{address}:{port}")));
    }
    for (port, protocol) in &open {
        let name = format!("{alias}_PORT_{port}_{}", protocol.to_uppercase());
        all.push((name.clone(), format!("{protocol}://{address}:{port}")));
        all.push((format!("{name}_ADDR"), address.to_string()));
        all.push((format!("{name}_PORT"), port.to_string()));
        all.push((format!("{name}_PROTO"), (*protocol).to_owned()));
    }
    all.push((format!("{alias}_NAME"), format!("/{container}/{}", link.alias)));
    let told = env.iter().filter_map(|entry| entry.split_once('=')).filter(|(name, _)| !matches!(*name, "HOME" | "PATH"));
    all.extend(told.map(|(name, value)| (format!("{alias}_ENV_{name}"), value.to_owned())));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_say_where_the_other_listens_and_what_it_was_told() {
        let link = Link { id: "0".repeat(64), dir: PathBuf::new(), alias: "my-db".into() };
        let ports = ["5432/tcp".to_owned(), "53/udp".to_owned()];
        let env = ["PATH=/bin".to_owned(), "USER=me".to_owned()];
        let all = variables(&link, "web", "172.17.0.5".parse().unwrap(), &ports, &env);
        let text: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let expected = [
            "MY_DB_PORT=udp://172.17.0.5:53",
            "MY_DB_PORT_53_UDP=udp://172.17.0.5:53",
            "MY_DB_PORT_53_UDP_ADDR=172.17.0.5",
            "MY_DB_PORT_53_UDP_PORT=53",
            "MY_DB_PORT_53_UDP_PROTO=udp",
            "MY_DB_PORT_5432_TCP=tcp://172.17.0.5:5432",
            "MY_DB_PORT_5432_TCP_ADDR=172.17.0.5",
            "MY_DB_PORT_5432_TCP_PORT=5432",
            "MY_DB_PORT_5432_TCP_PROTO=tcp",
            "MY_DB_NAME=/web/my-db",
            "MY_DB_ENV_USER=me",
        ];
        assert_eq!(text, expected);
    }
}
