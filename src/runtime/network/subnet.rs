//! IPv4 networks, and the choice of one for the bridge.
//!
//! The subnet is not configured: it is the first candidate that overlaps nothing the host has an address in or a route to. The bridge's own address is the
//! only place where the choice is kept, so it lasts exactly as long as the bridge.

use std::fmt;
use std::net::Ipv4Addr;

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

/// Room for 4094 hosts.
const PREFIX: u8 = 20;

/// The subnets that the bridge may have, in order of preference: parts of the private ranges that other container tools leave alone by default.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let tens = (208..=239).rev().map(|b| Ipv4Addr::new(10, b, 80, 0));
    let others = (18..=31).rev().map(|b| Ipv4Addr::new(172, b, 208, 0));
    tens.chain(others).map(|address| Ipv4Net::new(address, PREFIX))
}

/// The first candidate that overlaps none of `taken`. Default routes (prefix 0) take nothing.
pub(super) fn choose(taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    candidates().find(|candidate| !taken.iter().any(|net| net.prefix > 0 && net.overlaps(*candidate)))
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
    }
}
