//! What a network is, as whoever keeps networks hands it down: a bridge, its subnets, and what may pass.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::links::GROUP;
use super::rules::Family;
use super::{BRIDGE, Carrier, Ipv4Net, Ipv6Net, nat};

/// How many digits of a network's ID stand in the names of what it has on the host: what fits into a link's name.
const DIGITS: usize = 12;

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkPlan {
    /// Its ID: 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The bridge's name.
    pub bridge: String,
    /// Its IPv4 subnet; `None` lets the host choose one that it does not use, each time that the bridge is made.
    pub v4: Option<Subnet<Ipv4Net, Ipv4Addr>>,
    /// Its IPv6 subnet, where it has one.
    #[serde(default)]
    pub v6: Option<Subnet<Ipv6Net, Ipv6Addr>>,
    /// Whether nothing leads out of it.
    #[serde(default)]
    pub internal: bool,
    /// Whether its containers do not reach each other.
    #[serde(default)]
    pub isolated: bool,
    /// Whether what leaves it has the host's address.
    pub masquerade: bool,
    /// The largest packet in bytes; `None` takes what the host's way out takes.
    #[serde(default)]
    pub mtu: Option<u32>,
    /// Where ports are published that name no address of the host; `None` is everywhere.
    #[serde(default)]
    pub publish_at: Option<IpAddr>,
    /// Addresses of the subnets that somebody else has, by names that mean nothing here: they are never given out.
    #[serde(default)]
    pub auxiliary: BTreeMap<String, IpAddr>,
}

/// A subnet with the addresses that have a meaning in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet<Net, Address> {
    /// The subnet.
    pub net: Net,
    /// The host's address in it.
    pub gateway: Address,
    /// The part that addresses are given out of, where it is not all.
    pub range: Option<Net>,
}

/// The ID of a network that every host has.
pub fn builtin_id(name: &str) -> String {
    use sha2::Digest;
    let digest = sha2::Sha256::digest(format!("strake network {name}"));
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of the network that containers are in that ask for none.
pub const DEFAULT_NETWORK: &str = "bridge";

impl NetworkPlan {
    /// The network that containers are in that ask for none, and build steps.
    pub fn default_bridge() -> NetworkPlan {
        NetworkPlan {
            id: builtin_id(DEFAULT_NETWORK),
            name: DEFAULT_NETWORK.to_owned(),
            bridge: BRIDGE.to_owned(),
            v4: None,
            v6: None,
            internal: false,
            isolated: false,
            masquerade: true,
            mtu: None,
            publish_at: None,
            auxiliary: BTreeMap::new(),
        }
    }

    /// The network that a program makes for one container.
    pub fn carried(carrier: Carrier) -> NetworkPlan {
        NetworkPlan { id: builtin_id(carrier.name()), name: carrier.name().to_owned(), ..NetworkPlan::default_bridge() }
    }

    /// Which program makes it, where one does in any case.
    pub fn carrier(&self) -> Option<Carrier> {
        Carrier::parse(&self.name).filter(|carrier| builtin_id(carrier.name()) == self.id)
    }

    /// Whether it has neither names nor addresses that could be asked for: [`NetworkPlan::default_bridge`], or one that a program makes.
    pub fn is_default(&self) -> bool {
        self.v4.is_none()
    }

    /// The bridge's name where none is asked for.
    pub fn bridge_name(id: &str) -> String {
        format!("st-{}", id.get(..DIGITS).unwrap_or(id))
    }

    /// The families that it has packets of.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> + use<> {
        [Family::V4].into_iter().chain(self.v6.is_some().then_some(Family::V6))
    }

    /// The packet filter's table.
    pub(super) fn table(&self) -> String {
        match self.is_default() {
            true => nat::TABLE.to_owned(),
            false => format!("{}-{}", nat::TABLE, self.id.get(..DIGITS).unwrap_or(&self.id)),
        }
    }

    /// The link group of all that the network has on the host.
    pub(super) fn group(&self) -> u32 {
        match self.is_default() {
            true => GROUP,
            // Never 0, which is everybody's, nor that of the default bridge.
            false => 0x8000_0000 | u32::from_str_radix(self.id.get(..8).unwrap_or_default(), 16).unwrap_or(1),
        }
    }

    /// The name of the host's end for `address`, which says whose it is. At most 15 bytes: subnets have a prefix of 8 bits at least.
    pub(super) fn port(&self, address: Ipv4Net) -> String {
        let host = u32::from(address.address) & !address.mask();
        match self.is_default() {
            true => format!("{}{host:x}", super::PORT_PREFIX),
            false => format!("sv{}.{host:x}", self.id.get(..6).unwrap_or_default()),
        }
    }

    /// Addresses that are never given out.
    pub(super) fn reserved(&self, gateway: Ipv4Net) -> Vec<Ipv4Addr> {
        let others = self.auxiliary.values().filter_map(|address| if let IpAddr::V4(address) = address { Some(*address) } else { None });
        [gateway.address, gateway.broadcast()].into_iter().chain(others).collect()
    }

    /// The same of an IPv6 subnet, beside its first.
    pub(super) fn reserved_ipv6(&self, gateway: Ipv6Addr) -> Vec<Ipv6Addr> {
        let others = self.auxiliary.values().filter_map(|address| if let IpAddr::V6(address) = address { Some(*address) } else { None });
        std::iter::once(gateway).chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_on_the_host_fit_into_what_the_kernel_takes() {
        let subnet = |text: &str| Some(Subnet { net: text.parse().unwrap(), gateway: Ipv4Addr::UNSPECIFIED, range: None });
        let id = builtin_id("x");
        let bridge = NetworkPlan::bridge_name(&id);
        let plan = NetworkPlan { id, bridge, v4: subnet("10.0.0.0/8"), ..NetworkPlan::default_bridge() };
        let last: Ipv4Net = "10.255.255.254/8".parse().unwrap();
        assert!(plan.bridge.len() <= 15 && plan.port(last).len() <= 15, "{} {}", plan.bridge, plan.port(last));
        assert_ne!(plan.group(), NetworkPlan::default_bridge().group());
        assert_ne!(plan.table(), NetworkPlan::default_bridge().table());
    }
}
