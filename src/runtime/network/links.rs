//! Links, addresses and routes: what is asked of rtnetlink, as small functions over one socket.
//!
//! A veth pair is made from the host's side with the other end born inside the new namespace, so that no half of it ever shows up on the host under a
//! name that a network daemon might act on. Numbers are those of rtnetlink(7) and `linux/if_link.h`.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::BorrowedFd;

use super::{Ipv4Net, Ipv6Net};
use crate::sys::netlink::{Attributes, Message, NLM_F_CREATE, NLM_F_EXCL, Netlink};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// An IPv6 address counts at once, without a second in which others are asked whether they have it.
const IFA_F_NODAD: u8 = 2;
const IFF_UP: u32 = 1;
const LINK_BODY: usize = 16;
const ADDRESS_BODY: usize = 8;
const ROUTE_BODY: usize = 12;
/// The link group of everything that the default bridge has on the host ("strk"): all of it can be removed in one request, and the kernel's slow wait for
/// packets in flight then happens once and not for each link. Networks with names have groups of their own.
pub(super) const GROUP: u32 = 0x7374_726b;
/// The loopback link is the first of every namespace.
const LOOPBACK: u32 = 1;

/// A link as far as we look at one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mtu: u32,
    pub(super) group: u32,
    /// The bridge (or the like) whose port it is.
    pub(super) master: Option<u32>,
    /// As `bridge` or `veth`; hardware has none.
    pub(super) kind: Option<String>,
    /// Whether it is switched on.
    pub(super) up: bool,
    /// Zeros where it has none.
    pub(super) mac: [u8; 6],
}

/// A hardware address made from an IPv4 address: what takes an address over needs no new neighbour entries.
pub(super) fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x53, a, b, c, d]
}

/// `struct ifinfomsg`.
fn link_body(index: u32, up: bool) -> [u8; LINK_BODY] {
    let mut body = [0; LINK_BODY];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        body[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        body[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    body
}

/// All links of the namespace.
pub(super) fn links(netlink: &mut Netlink) -> io::Result<Vec<Link>> {
    let replies = netlink.dump(Message::new(RTM_GETLINK, 0, &link_body(0, false)))?;
    let parse = |reply: &crate::sys::netlink::Reply| {
        let body: [u8; LINK_BODY] = reply.body()?;
        let attributes = reply.attributes(LINK_BODY);
        Some(Link {
            index: u32::from_ne_bytes([body[4], body[5], body[6], body[7]]),
            name: attributes.text(IFLA_IFNAME)?.to_owned(),
            mtu: attributes.number(IFLA_MTU)?,
            group: attributes.number(IFLA_GROUP).unwrap_or(0),
            master: attributes.number(IFLA_MASTER),
            kind: nested(attributes.value(IFLA_LINKINFO)).text(IFLA_INFO_KIND).map(str::to_owned),
            up: u32::from_ne_bytes([body[8], body[9], body[10], body[11]]) & IFF_UP != 0,
            mac: attributes.value(IFLA_ADDRESS).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default(),
        })
    };
    Ok(replies.iter().filter(|reply| reply.kind == RTM_NEWLINK).filter_map(parse).collect())
}

/// All IPv4 addresses of the namespace, each with the index of its link.
pub(super) fn addresses(netlink: &mut Netlink) -> io::Result<Vec<(u32, Ipv4Net)>> {
    let mut body = [0; ADDRESS_BODY];
    body[0] = AF_INET;
    let replies = netlink.dump(Message::new(RTM_GETADDR, 0, &body))?;
    let parse = |reply: &crate::sys::netlink::Reply| {
        let body: [u8; ADDRESS_BODY] = reply.body()?;
        let attributes = reply.attributes(ADDRESS_BODY);
        let address = attributes.value(IFA_LOCAL).or_else(|| attributes.value(IFA_ADDRESS))?;
        let index = u32::from_ne_bytes([body[4], body[5], body[6], body[7]]);
        (body[0] == AF_INET).then_some((index, Ipv4Net::new(ipv4(address)?, body[1])))
    };
    Ok(replies.iter().filter(|reply| reply.kind == RTM_NEWADDR).filter_map(parse).collect())
}

/// An address of a link that goes with it to another namespace.
#[derive(Debug)]
pub(super) struct KeptAddress {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

impl KeptAddress {
    /// The request that gives it to a link.
    pub(super) fn for_link(&self, link: u32) -> Message {
        let mut body = [0; ADDRESS_BODY];
        (body[0], body[1]) = (self.family, self.prefix);
        body[4..8].copy_from_slice(&link.to_ne_bytes());
        let message = Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body);
        self.attributes.iter().fold(message, |message, (kind, value)| message.attribute(*kind, value))
    }
}

/// The addresses of a link, of both families, that are of the whole world and do not expire.
pub(super) fn addresses_of(netlink: &mut Netlink, link: u32) -> io::Result<Vec<KeptAddress>> {
    const IFA_F_PERMANENT: u8 = 0x80;
    const RT_SCOPE_UNIVERSE: u8 = 0;
    let replies = netlink.dump(Message::new(RTM_GETADDR, 0, &[0; ADDRESS_BODY]))?;
    let parse = |reply: &crate::sys::netlink::Reply| {
        let body: [u8; ADDRESS_BODY] = reply.body()?;
        let index = u32::from_ne_bytes([body[4], body[5], body[6], body[7]]);
        let stays = index == link && body[2] & IFA_F_PERMANENT != 0 && body[3] == RT_SCOPE_UNIVERSE;
        let attributes = reply.attributes(ADDRESS_BODY);
        let kept = [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST].iter().filter_map(|kind| Some((*kind, attributes.value(*kind)?.to_vec())));
        stays.then(|| KeptAddress { family: body[0], prefix: body[1], attributes: kept.collect() })
    };
    Ok(replies.iter().filter(|reply| reply.kind == RTM_NEWADDR).filter_map(parse).collect())
}

/// The request that moves a link into another namespace, under another name.
pub(super) fn moved(link: u32, name: &str, netns: BorrowedFd<'_>) -> Message {
    Message::new(RTM_NEWLINK, 0, &link_body(link, false)).descriptor(IFLA_NET_NS_FD, netns).text(IFLA_IFNAME, name)
}

/// An IPv4 route: where to, and through which link.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    pub(super) to: Ipv4Net,
    pub(super) link: Option<u32>,
    pub(super) priority: u32,
}

/// All IPv4 routes of the namespace, of all tables.
pub(super) fn routes(netlink: &mut Netlink) -> io::Result<Vec<Route>> {
    let mut body = [0; ROUTE_BODY];
    body[0] = AF_INET;
    let replies = netlink.dump(Message::new(RTM_GETROUTE, 0, &body))?;
    let parse = |reply: &crate::sys::netlink::Reply| {
        let body: [u8; ROUTE_BODY] = reply.body()?;
        let attributes = reply.attributes(ROUTE_BODY);
        let to = match attributes.value(RTA_DST) {
            Some(bytes) => ipv4(bytes)?,
            None => Ipv4Addr::UNSPECIFIED,
        };
        let priority = attributes.number(RTA_PRIORITY).unwrap_or(0);
        (body[0] == AF_INET).then_some(Route { to: Ipv4Net::new(to, body[1]), link: attributes.number(RTA_OIF), priority })
    };
    Ok(replies.iter().filter(|reply| reply.kind == RTM_NEWROUTE).filter_map(parse).collect())
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
}

/// Makes a bridge, which is down. Its hardware address is given, since a bridge without one takes over that of a port and changes it as ports come and go.
pub(super) fn make_bridge(netlink: &mut Netlink, name: &str, group: u32, mac: [u8; 6], mtu: u32) -> io::Result<()> {
    let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_body(0, false))
        .text(IFLA_IFNAME, name)
        .number(IFLA_MTU, mtu)
        .number(IFLA_GROUP, group)
        .attribute(IFLA_ADDRESS, &mac)
        .nest(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "bridge"));
    netlink.request(message)
}

/// Two ends of a veth pair: the host's is a port of `bridge` and up, the other is `inner` in the namespace `netns`.
pub(super) struct VethPair<'a> {
    pub(super) outer: &'a str,
    pub(super) inner: &'a str,
    pub(super) inner_mac: [u8; 6],
    pub(super) bridge: u32,
    pub(super) group: u32,
    pub(super) mtu: u32,
}

/// Makes a veth pair.
pub(super) fn make_veth(netlink: &mut Netlink, pair: &VethPair<'_>, netns: BorrowedFd<'_>) -> io::Result<()> {
    let peer = |m: Message| {
        m.raw(&link_body(0, false))
            .text(IFLA_IFNAME, pair.inner)
            .number(IFLA_MTU, pair.mtu)
            .attribute(IFLA_ADDRESS, &pair.inner_mac)
            .descriptor(IFLA_NET_NS_FD, netns)
    };
    let message = Message::new(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link_body(0, true))
        .text(IFLA_IFNAME, pair.outer)
        .number(IFLA_MTU, pair.mtu)
        .number(IFLA_GROUP, pair.group)
        .number(IFLA_MASTER, pair.bridge)
        .nest(IFLA_LINKINFO, |m| m.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| m.nest(VETH_INFO_PEER, peer)));
    netlink.request(message)
}

/// Has a bridge pass nothing on from this port to others of which the same was asked (Linux 4.18).
pub(super) fn isolate(netlink: &mut Netlink, port: &str) -> io::Result<()> {
    let message = Message::new(RTM_NEWLINK, 0, &link_body(0, false)).text(IFLA_IFNAME, port).nest(IFLA_LINKINFO, |m| {
        m.text(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |m| m.attribute(IFLA_BRPORT_ISOLATED, &[1]))
    });
    netlink.request(message)
}

/// Removes a link by name; the other end of a veth pair goes with it. A link that is not there is fine.
pub(super) fn delete_link(netlink: &mut Netlink, name: &str) -> io::Result<()> {
    delete(netlink, Message::new(RTM_DELLINK, 0, &link_body(0, false)).text(IFLA_IFNAME, name))
}

/// Removes everything of a link group.
pub(super) fn delete_all(netlink: &mut Netlink, group: u32) -> io::Result<()> {
    delete(netlink, Message::new(RTM_DELLINK, 0, &link_body(0, false)).number(IFLA_GROUP, group))
}

fn delete(netlink: &mut Netlink, request: Message) -> io::Result<()> {
    match netlink.request(request) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(()),
        other => other,
    }
}

/// The request that gives a link an address.
pub(super) fn add_address(link: u32, address: Ipv4Net) -> Message {
    let mut body = [0; ADDRESS_BODY];
    body[0] = AF_INET;
    body[1] = address.prefix;
    body[4..8].copy_from_slice(&link.to_ne_bytes());
    let octets = address.address.octets();
    Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body)
        .attribute(IFA_LOCAL, &octets)
        .attribute(IFA_ADDRESS, &octets)
        .attribute(IFA_BROADCAST, &address.broadcast().octets())
}

/// The request that gives a link an IPv6 address.
pub(super) fn add_ipv6_address(link: u32, address: Ipv6Net) -> Message {
    let mut body = [0; ADDRESS_BODY];
    (body[0], body[1], body[2]) = (AF_INET6, address.prefix, IFA_F_NODAD);
    body[4..8].copy_from_slice(&link.to_ne_bytes());
    Message::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body).attribute(IFA_ADDRESS, &address.address.octets())
}

/// The request that makes `lo` work.
pub(super) fn loopback_up() -> Message {
    Message::new(RTM_NEWLINK, 0, &link_body(LOOPBACK, true))
}

/// The request that switches a link on.
pub(super) fn link_up(index: u32) -> Message {
    Message::new(RTM_NEWLINK, 0, &link_body(index, true))
}

/// The request that sends everything else to `gateway`.
pub(super) fn default_route(link: u32, gateway: Ipv4Addr) -> Message {
    route_to(RTM_NEWROUTE, AF_INET, link, &gateway.octets())
}

/// The same for IPv6.
pub(super) fn default_ipv6_route(link: u32, gateway: Ipv6Addr) -> Message {
    route_to(RTM_NEWROUTE, AF_INET6, link, &gateway.octets())
}

/// Takes back what [`default_route`] has made.
pub(super) fn no_default_route(link: u32, gateway: Ipv4Addr) -> Message {
    route_to(RTM_DELROUTE, AF_INET, link, &gateway.octets())
}

/// Takes back what [`default_ipv6_route`] has made.
pub(super) fn no_default_ipv6_route(link: u32, gateway: Ipv6Addr) -> Message {
    route_to(RTM_DELROUTE, AF_INET6, link, &gateway.octets())
}

fn route_to(kind: u16, family: u8, link: u32, gateway: &[u8]) -> Message {
    const RT_TABLE_MAIN: u8 = 254;
    const RTPROT_BOOT: u8 = 3;
    const RTN_UNICAST: u8 = 1;
    let body = [family, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0];
    let flags = if kind == RTM_NEWROUTE { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
    Message::new(kind, flags, &body).attribute(RTA_GATEWAY, gateway).number(RTA_OIF, link)
}

/// The link by which the kernel leaves for addresses that no other route covers, best first.
pub(super) fn default_link(routes: &[Route]) -> Option<u32> {
    routes.iter().filter(|route| route.to.prefix == 0).min_by_key(|route| route.priority).and_then(|route| route.link)
}

/// The bridges that lead to other hosts: that of the default route, and those with a port of hardware. All others have containers or virtual machines behind them.
pub(super) fn bridges_out<'a>(links: &'a [Link], routes: &[Route]) -> Vec<&'a str> {
    const OF_HARDWARE: [&str; 3] = ["bond", "team", "vlan"];
    let way_out = default_link(routes);
    let is_hardware = |link: &Link| link.kind.as_deref().is_none_or(|kind| OF_HARDWARE.contains(&kind));
    let leads_out =
        |bridge: &&Link| Some(bridge.index) == way_out || links.iter().any(|port| port.master == Some(bridge.index) && is_hardware(port));
    links.iter().filter(|link| link.kind.as_deref() == Some("bridge")).filter(leads_out).map(|link| link.name.as_str()).collect()
}

/// The attributes of a message's nest; a convenience for the parsers of nf_tables' answers.
pub(super) fn nested(value: Option<&[u8]>) -> Attributes<'_> {
    Attributes::new(value.unwrap_or_default())
}
