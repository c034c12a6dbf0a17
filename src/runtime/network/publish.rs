//! The tables of published ports, and the one that leads a container to its DNS server.
//!
//! A published port is served twice: by a process that listens at it (`serve`), for whoever is on this host, and by a table that leads packets from outside straight
//! to the container, so that it sees who they are from. That table belongs to the socket that made it: the kernel removes it with its owner, however that ends.
//!
//! ```text
//! table ip strake-p-CONTAINER {
//!     flags owner
//!     chain prerouting { type nat hook prerouting priority dstnat; policy accept;
//!         iifname != BRIDGE fib daddr type local tcp dport 8080 dnat to 10.239.96.2:80 }
//! }
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::nat::TABLE;
use super::ports::{BoundPort, Protocol};
use super::rules::{
    Family, HOOK_OUTPUT, HOOK_PREROUTING, TABLE_OWNED, Table, commit, destined_for, destined_for_host, differs, input_link, link_name,
    redirect_to, to_port,
};
use crate::sys::netlink::{Message, Netlink};

/// Before routing decides.
const PRIORITY_DSTNAT: i32 = -100;
/// Rules beyond this make a message that the kernel does not take; such ports are served by the process alone.
const MAX_RULES: usize = 400;

/// Where a container's ports lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The bridge that the container is behind.
    pub bridge: String,
    /// Its address there.
    pub v4: Option<Ipv4Addr>,
    /// Its IPv6 address, where it has one.
    pub v6: Option<Ipv6Addr>,
}

/// The tables of one container's ports; they go with it.
#[derive(Debug)]
pub(super) struct PortTables {
    netlink: Netlink,
    name: String,
}

impl PortTables {
    /// Opens the socket that they will belong to.
    pub(super) fn new(container: &str) -> io::Result<PortTables> {
        Ok(PortTables { netlink: Netlink::netfilter()?, name: format!("{TABLE}-p-{}", container.get(..12).unwrap_or(container)) })
    }

    /// Makes the rules those of `ports` to `target`.
    pub(super) fn set(&mut self, ports: &[BoundPort], target: Option<&Target>) -> io::Result<()> {
        let mut messages = Vec::new();
        for family in [Family::V4, Family::V6] {
            let table = Table::new(family, &self.name);
            let rules: Vec<Message> = target.map_or_else(Vec::new, |target| rules(table, family, ports, target));
            if rules.is_empty() || rules.len() > MAX_RULES {
                table.remove(&mut self.netlink)?;
                continue;
            }
            messages.extend(table.replace(TABLE_OWNED));
            messages.push(table.chain("prerouting", "nat", HOOK_PREROUTING, PRIORITY_DSTNAT));
            messages.extend(rules);
        }
        if messages.is_empty() { Ok(()) } else { commit(&mut self.netlink, messages) }
    }
}

fn rules(table: Table<'_>, family: Family, ports: &[BoundPort], target: &Target) -> Vec<Message> {
    let to: Option<IpAddr> = match family {
        Family::V4 => target.v4.map(IpAddr::V4),
        Family::V6 => target.v6.map(IpAddr::V6),
    };
    let Some(to) = to else { return Vec::new() };
    // What is on the loopback link comes to the process: no packet from outside has such an address.
    let from_outside = |port: &&BoundPort| port.host_ip.is_ipv4() == to.is_ipv4() && !port.host_ip.is_loopback();
    let rule = |port: &BoundPort| {
        let to_host = if port.host_ip.is_unspecified() { destined_for_host() } else { destined_for(port.host_ip) };
        let other_link = vec![input_link(), differs(&link_name(&target.bridge))];
        let matches = to_port(port.protocol.number(), port.host_port);
        table.rule("prerouting", [other_link, to_host, matches, redirect_to(to, port.container_port)].concat())
    };
    ports.iter().filter(from_outside).map(rule).collect()
}

/// Leads what the container of this network namespace sends to port 53 of `at` to `port` there. `netlink` is a socket of that namespace.
pub(super) fn redirect_dns(netlink: &mut Netlink, at: Ipv4Addr, port: u16) -> io::Result<()> {
    let table = Table::new(Family::V4, "strake-dns");
    let mut messages = table.replace(0);
    messages.push(table.chain("output", "nat", HOOK_OUTPUT, PRIORITY_DSTNAT));
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let matches = [destined_for(at.into()), to_port(protocol.number(), 53)].concat();
        messages.push(table.rule("output", [matches, redirect_to(at.into(), port)].concat()));
    }
    commit(netlink, messages)
}
