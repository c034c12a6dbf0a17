//! Private networks: namespaces behind one bridge of the host, with NAT to the outside.
//!
//! ```text
//!   namespace           host                                     outside
//!   eth0 10.x.80.7 ---- strk7 -- strake0 10.x.80.1 -- (nft: masquerade) -- eth0
//! ```
//!
//! There is no daemon: the first process that opens the network makes the bridge and the packet filter's table, the last one to close it removes both, and
//! what a killed process leaves behind is used again by the next. All processes must name the same run directory, one for each network namespace of a host
//! (`/run/strake/network`); `lease.rs` has the layout.
//!
//! IPv4 only: a private namespace has no IPv6 address but the link's own. This folder starts no external programs and touches no table but its own. Apart from that it
//! changes one thing of the host, and leaves it so: IP forwarding is switched on.

mod dns;
mod error;
mod lease;
mod links;
mod nat;
mod netns;
mod pool;
mod probe;
mod subnet;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use dns::{ResolvMode, hosts_file, resolv_conf};
pub use error::{Error, Unavailable};
pub use netns::Netns;
pub use pool::NetnsPool;
pub use subnet::Ipv4Net;

use crate::sys::netlink::Netlink;
use lease::{AddressLease, Lock, RunDir};
use links::{Link, Route};

/// The bridge's name.
pub const BRIDGE: &str = "strake0";
/// How the names of the bridge's ports begin.
const PORT_PREFIX: &str = "strk";
/// Used where the host has no default route to take it from.
const ETHERNET_MTU: u32 = 1500;

/// The network of this host's sandboxes, open. Clones are the same network; the last one to go closes it.
#[derive(Clone, Debug)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    run_dir: RunDir,
    /// The bridge's address, with the subnet's prefix.
    gateway: Ipv4Net,
    /// The bridge's index.
    bridge: u32,
    mtu: u32,
    /// Where the search for a free address goes on: an address comes back as late as possible.
    next: AtomicU32,
    sockets: Mutex<Sockets>,
    /// Holds our place among the users; `None` only while dropping.
    users: Option<Lock>,
}

/// Sockets into the host's network namespace, whatever thread uses them.
#[derive(Debug)]
struct Sockets {
    route: Netlink,
    filter: Netlink,
}

impl Network {
    /// Says whether [`Network::open`] can work here, without changing anything.
    pub fn probe() -> Result<(), Unavailable> {
        probe::probe()
    }

    /// Opens the network, making what is not there yet. [`Error::Unavailable`] means that this host cannot have it.
    pub fn open(run_dir: &Path) -> Result<Network, Error> {
        probe::probe().map_err(Error::Unavailable)?;
        let run_dir = RunDir::open(run_dir)?;
        let mut sockets = Sockets {
            route: Netlink::route().map_err(Error::kernel("open a netlink socket"))?,
            filter: Netlink::netfilter().map_err(Error::kernel("open a netfilter socket"))?,
        };
        let setup = run_dir.lock_setup()?;
        let unused = run_dir.is_unused()?;
        switch_forwarding_on()?;
        let host = Host::look(&mut sockets.route).map_err(Error::kernel("list the links and routes of the host"))?;
        let (bridge, gateway) = ensure_bridge(&mut sockets, &host, unused)?;
        let users = Some(run_dir.join_users()?);
        drop(setup);
        let next = AtomicU32::new(std::process::id().wrapping_mul(7));
        Ok(Network(Arc::new(Inner { run_dir, gateway, bridge, mtu: host.mtu, next, sockets: Mutex::new(sockets), users })))
    }

    /// Makes a namespace. Takes about a millisecond; [`NetnsPool`] has some ready.
    pub fn acquire(&self) -> Result<Netns, Error> {
        Netns::make(&self.0, self.lease()?)
    }

    /// Makes a namespace without starting a thread, for a process that has one and must keep it so (even a thread that was joined lingers for an
    /// instant). After an error the thread may be in another network namespace than before.
    pub fn acquire_on_only_thread(&self) -> Result<Netns, Error> {
        Netns::make_here(&self.0, self.lease()?)
    }

    fn lease(&self) -> Result<AddressLease, Error> {
        let start = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.run_dir.take_address(self.0.gateway.network(), start)
    }

    /// The bridge's address and subnet.
    pub fn gateway(&self) -> Ipv4Net {
        self.0.gateway
    }
}

impl Inner {
    fn sockets(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the bridge and the table if nobody else uses them.
    fn close(&mut self) -> Result<(), Error> {
        let _setup = self.run_dir.lock_setup()?;
        self.users = None;
        if !self.run_dir.is_unused()? {
            return Ok(());
        }
        let mut sockets = self.sockets();
        remove_bridge(&mut sockets.route)?;
        nat::delete_table(&mut sockets.filter).map_err(Error::kernel("remove the packet filter's table `ip strake`"))?;
        self.run_dir.forget_addresses();
        Ok(())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            // What stays is used by the next process or removed by it.
            tracing::debug!(%error, "the network was not taken down");
        }
    }
}

/// What matters of the host's own network.
struct Host {
    links: Vec<Link>,
    addresses: Vec<(u32, Ipv4Net)>,
    routes: Vec<Route>,
    /// Of the default route's link.
    mtu: u32,
}

impl Host {
    fn look(netlink: &mut Netlink) -> std::io::Result<Host> {
        let (links, addresses, routes) = (links::links(netlink)?, links::addresses(netlink)?, links::routes(netlink)?);
        let way_out = links::default_link(&routes);
        let mtu = links.iter().find(|link| Some(link.index) == way_out).map_or(ETHERNET_MTU, |link| link.mtu);
        Ok(Host { links, addresses, routes, mtu })
    }

    /// The networks that the host uses, not counting those of the link `except`.
    fn taken(&self, except: Option<u32>) -> Vec<Ipv4Net> {
        let addresses = self.addresses.iter().filter(|(link, _)| Some(*link) != except).map(|(_, net)| *net);
        let routes = self.routes.iter().filter(|route| except.is_none() || route.link != except).map(|route| route.to);
        addresses.chain(routes).collect()
    }

    /// The bridge that is there already, where it can be used as it is.
    fn bridge(&self, unused: bool) -> Option<(u32, Ipv4Net)> {
        let link = self.links.iter().find(|link| link.name == BRIDGE)?;
        let (_, address) = *self.addresses.iter().find(|(index, _)| *index == link.index)?;
        // One without users was left by a killed process, maybe before the host got a route (a VPN's) that its subnet is now in the way of.
        let stale =
            unused && (link.mtu != self.mtu || self.taken(Some(link.index)).iter().any(|net| net.prefix > 0 && net.overlaps(address)));
        (!stale).then_some((link.index, address))
    }
}

fn switch_forwarding_on() -> Result<(), Error> {
    let path = Path::new(probe::IP_FORWARD);
    let value = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    if value.trim() == "0" {
        std::fs::write(path, "1").map_err(Error::file("write", path))?;
    }
    Ok(())
}

/// Makes the bridge and the table, as far as they are not there. Only under the set-up lock.
fn ensure_bridge(sockets: &mut Sockets, host: &Host, unused: bool) -> Result<(u32, Ipv4Net), Error> {
    let (bridge, fresh) = match host.bridge(unused) {
        Some(bridge) => (bridge, unused),
        None => (make_bridge(&mut sockets.route, host)?, true),
    };
    let there = !fresh && nat::table_exists(&mut sockets.filter).map_err(Error::kernel("list the packet filter's tables"))?;
    if !there {
        let made = nat::make_table(&mut sockets.filter, bridge.1.network(), BRIDGE);
        made.map_err(|error| match error.kind() {
            // What nf_tables says when an expression or a chain type has no module.
            std::io::ErrorKind::NotFound => Error::kernel("make NAT rules")(rustix::io::Errno::OPNOTSUPP.into()),
            _ => Error::kernel("make the packet filter's table `ip strake`")(error),
        })?;
    }
    Ok(bridge)
}

fn make_bridge(netlink: &mut Netlink, host: &Host) -> Result<(u32, Ipv4Net), Error> {
    remove_bridge(netlink)?;
    let bridge = host.links.iter().find(|link| link.name == BRIDGE).map(|link| link.index);
    let gateway = subnet::choose(&host.taken(bridge)).and_then(|subnet| subnet.host(1)).ok_or(Error::NoSubnet)?;
    let step = || format!("make the bridge `{BRIDGE}`");
    links::make_bridge(netlink, BRIDGE, links::hardware_address(gateway.address), host.mtu).map_err(Error::kernel(step()))?;
    let links = links::links(netlink).map_err(Error::kernel("list the links of the host"))?;
    let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let link = links.iter().find(|link| link.name == BRIDGE).ok_or_else(gone).map_err(Error::kernel(step()))?.index;
    netlink.request(links::add_address(link, gateway)).map_err(Error::kernel(format!("give `{BRIDGE}` the address {gateway}")))?;
    Ok((link, gateway))
}

/// Removes the bridge with its ports: those of namespaces that the kernel is still taking down.
fn remove_bridge(netlink: &mut Netlink) -> Result<(), Error> {
    let removed = links::delete_all(netlink).and_then(|()| links::delete_link(netlink, BRIDGE));
    removed.map_err(Error::kernel(format!("remove the bridge `{BRIDGE}`")))
}

#[cfg(test)]
mod tests;
