//! IPv4 and IPv6 networks, and the choice of one for a bridge.
//!
//! The subnet of the bridge that all containers share is not configured: it is the first candidate that overlaps nothing the host has an address in or a route to. The bridge's own address is the
//! only place where the choice is kept, so it lasts exactly as long as the bridge.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address with the length of its network's prefix. Written, also in JSON, as `10.1.2.3/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Ipv4Net {
    /// The address; for a network, its first.
    pub address: Ipv4Addr,
    /// 0 to 32.
    pub prefix: u8,
}

impl Ipv4Net {
    /// That address in a network with that prefix length (cut at 32).
    pub const fn new(address: Ipv4Addr, prefix: u8) -> Ipv4Net {
        Ipv4Net { address, prefix: if prefix > 32 { 32 } else { prefix } }
    }

    /// The bits that are the network's.
    pub fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// The network that the address is in.
    pub fn network(self) -> Ipv4Net {
        Ipv4Net { address: Ipv4Addr::from(u32::from(self.address) & self.mask()), prefix: self.prefix }
    }

    /// The address that reaches everyone in the network.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !self.mask())
    }

    /// Whether the address is in the network.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        self.overlaps(Ipv4Net::new(address, 32))
    }

    /// Whether some address is in both networks.
    pub fn overlaps(self, other: Ipv4Net) -> bool {
        let mask = self.mask() & other.mask();
        u32::from(self.address) & mask == u32::from(other.address) & mask
    }

    /// The `index`th host of the network with the network's prefix; 0 is the network itself. `None` past the last host.
    pub fn host(self, index: u32) -> Option<Ipv4Net> {
        (index < self.hosts() + 1).then(|| Ipv4Net::new(Ipv4Addr::from((u32::from(self.address) & self.mask()) + index), self.prefix))
    }

    /// How many hosts fit: all addresses but the first and the last.
    pub fn hosts(self) -> u32 {
        (!self.mask()).saturating_sub(1)
    }
}

impl fmt::Display for Ipv4Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Ipv4Net> for String {
    fn from(net: Ipv4Net) -> String {
        net.to_string()
    }
}

impl TryFrom<String> for Ipv4Net {
    type Error = NotANetwork;

    fn try_from(text: String) -> Result<Ipv4Net, NotANetwork> {
        text.parse()
    }
}

impl FromStr for Ipv4Net {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Ipv4Net, NotANetwork> {
        let (address, prefix) = parts::<Ipv4Addr>(text, 32)?;
        Ok(Ipv4Net { address, prefix })
    }
}

/// The text is no address with the length of a prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network: expected one such as 10.1.2.0/24 or fd00:1:2::/64")]
pub struct NotANetwork(String);

fn parts<T: FromStr>(text: &str, longest: u8) -> Result<(T, u8), NotANetwork> {
    let parsed = text.split_once('/').and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
    parsed.filter(|(_, prefix)| *prefix <= longest).ok_or_else(|| NotANetwork(text.to_owned()))
}

/// An IPv6 address with the length of its network's prefix. Written, also in JSON, as `fd00:1::2/64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Ipv6Net {
    /// The address; for a network, its first.
    pub address: Ipv6Addr,
    /// 0 to 128.
    pub prefix: u8,
}

impl Ipv6Net {
    /// That address in a network with that prefix length (cut at 128).
    pub const fn new(address: Ipv6Addr, prefix: u8) -> Ipv6Net {
        Ipv6Net { address, prefix: if prefix > 128 { 128 } else { prefix } }
    }

    /// The bits that are the network's.
    pub fn mask(self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// The network that the address is in.
    pub fn network(self) -> Ipv6Net {
        Ipv6Net { address: Ipv6Addr::from(u128::from(self.address) & self.mask()), prefix: self.prefix }
    }

    /// Whether the address is in the network.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        self.overlaps(Ipv6Net::new(address, 128))
    }

    /// Whether some address is in both networks.
    pub fn overlaps(self, other: Ipv6Net) -> bool {
        let mask = self.mask() & other.mask();
        u128::from(self.address) & mask == u128::from(other.address) & mask
    }

    /// The `index`th address of the network with the network's prefix; 0 is the network itself. `None` past the last.
    pub fn host(self, index: u32) -> Option<Ipv6Net> {
        let last = !self.mask();
        (u128::from(index) <= last)
            .then(|| Ipv6Net::new(Ipv6Addr::from((u128::from(self.address) & self.mask()) + u128::from(index)), self.prefix))
    }

    /// How many addresses there are beyond the first, as far as they can be counted here.
    pub fn hosts(self) -> u32 {
        u32::try_from(!self.mask()).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for Ipv6Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl From<Ipv6Net> for String {
    fn from(net: Ipv6Net) -> String {
        net.to_string()
    }
}

impl TryFrom<String> for Ipv6Net {
    type Error = NotANetwork;

    fn try_from(text: String) -> Result<Ipv6Net, NotANetwork> {
        text.parse()
    }
}

impl FromStr for Ipv6Net {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Ipv6Net, NotANetwork> {
        let (address, prefix) = parts::<Ipv6Addr>(text, 128)?;
        Ok(Ipv6Net { address, prefix })
    }
}

/// Room for 4094 hosts.
const PREFIX: u8 = 20;

/// The subnets that the bridge may have, in order of preference: parts of the private ranges that other container tools leave alone by default.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let tens = (208..=239).rev().map(|b| Ipv4Addr::new(10, b, 80, 0));
    let others = (18..=31).rev().map(|b| Ipv4Addr::new(172, b, 208, 0));
    tens.chain(others).map(|address| Ipv4Net::new(address, PREFIX))
}

/// The subnets that networks with names get, in order of preference: none of them is a candidate for the bridge that all containers share.
fn named_candidates() -> impl Iterator<Item = Ipv4Net> {
    let tens = (208..=239).rev().flat_map(|b| (6..16).map(move |part| Ipv4Addr::new(10, b, part * 16, 0)));
    let others = (18..=31).rev().flat_map(|b| (0..13).map(move |part| Ipv4Addr::new(172, b, part * 16, 0)));
    tens.chain(others).map(|address| Ipv4Net::new(address, PREFIX))
}

/// The first candidate that overlaps none of `taken`. Default routes (prefix 0) take nothing.
pub(super) fn choose(taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    first_free(candidates(), taken)
}

/// The same for a network with a name.
pub(super) fn choose_named(taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    first_free(named_candidates(), taken)
}

fn first_free(mut candidates: impl Iterator<Item = Ipv4Net>, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    candidates.find(|candidate| !taken.iter().any(|net| net.prefix > 0 && net.overlaps(*candidate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Net {
        let (address, prefix) = text.split_once('/').unwrap();
        Ipv4Net::new(address.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn hosts_are_counted_from_the_network() {
        let subnet = net("10.1.16.7/20").network();
        assert_eq!(subnet, net("10.1.16.0/20"));
        assert_eq!(subnet.hosts(), 4094);
        assert_eq!(subnet.host(1), Some(net("10.1.16.1/20")));
        assert_eq!(subnet.host(4094), Some(net("10.1.31.254/20")));
        assert_eq!(subnet.host(4095), None);
        assert_eq!(subnet.broadcast(), Ipv4Addr::new(10, 1, 31, 255));
        assert_eq!((net("1.2.3.4/0").mask(), net("1.2.3.4/32").hosts()), (0, 0));
    }

    #[test]
    fn the_choice_avoids_what_the_host_uses() {
        let first = choose(&[net("0.0.0.0/0"), net("192.168.1.5/24")]).unwrap();
        let second = choose(&[first.host(9).unwrap()]).unwrap();
        assert!(!first.overlaps(second));
        let third = choose(&[net("10.0.0.0/8")]).unwrap();
        assert_eq!(third.address.octets()[0], 172);
        assert_eq!(choose(&[net("10.0.0.0/8"), net("172.16.0.0/12")]), None);
        let shared: Vec<Ipv4Net> = candidates().collect();
        assert!(named_candidates().all(|named| !shared.iter().any(|other| other.overlaps(named))));
    }

    #[test]
    fn networks_are_read_as_they_are_written() {
        assert_eq!("fd00:1::7/64".parse::<Ipv6Net>().unwrap().network().to_string(), "fd00:1::/64");
        assert_eq!("fd00::/126".parse::<Ipv6Net>().unwrap().hosts(), 3);
        assert_eq!("fd00::/64".parse::<Ipv6Net>().unwrap().host(2).unwrap().to_string(), "fd00::2/64");
        for text in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "fd00::/64", "/8", "10.0.0.0/-1"] {
            assert!(text.parse::<Ipv4Net>().is_err(), "{text}");
        }
        assert!("fd00::/129".parse::<Ipv6Net>().is_err() && "10.0.0.0/8".parse::<Ipv6Net>().is_err());
    }
}
