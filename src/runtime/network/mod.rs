//! Private networks: namespaces behind one bridge of the host, with NAT to the outside.
//!
//! ```text
//!   namespace           host                                     outside
//!   eth0 10.x.80.7 ---- strk7 -- strake0 10.x.80.1 -- (nft: masquerade) -- eth0
//! ```
//!
//! Containers may be on several networks, each with a bridge of its own, and with names, by which the containers of one find each other.
//!
//! There is no daemon: the first process that opens a network makes its bridge and its table of the packet filter, the last one to close it removes both, and
//! what a killed process leaves behind is used again by the next, or removed by [`sweep()`]. All processes must name the same run directory, one for each network
//! (`/run/strake/net` for the default bridge, `/run/strake/nets/ID` for others); `lease.rs` has the layout.
//!
//! Where the host's network cannot be changed, a program of the user's may carry a namespace's packets instead (`userspace`), or those of a namespace that has the bridges of all of the user's
//! containers (`uplink`).
//!
//! Apart from that program, and itself (`caretaker.rs`), this folder starts none. In tables of others it adds rules about its own bridges where packets would not get through, removes these and touches no
//! other (`passes.rs`). Apart from that it changes one thing of the host, and leaves it so: IP forwarding is switched on.

mod attach;
mod caretaker;
mod devices;
mod dns;
mod error;
mod lease;
mod links;
mod names;
mod nat;
mod netns;
mod passes;
mod plan;
mod pool;
mod ports;
mod probe;
mod publish;
mod rules;
mod seat;
mod serve;
mod subnet;
mod sweep;
mod uplink;
mod userspace;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use attach::{EndpointRequest, EndpointState, Namespace};
pub use caretaker::{CARETAKER, caretaker_main};
pub(in crate::runtime) use devices::move_device;
pub use dns::{ResolvFlags, ResolvMode, carried_resolv_conf, hosts_file, name_servers, resolv_conf, resolv_conf_of};
pub use error::{Error, Unavailable};
pub use netns::Netns;
pub use plan::{DEFAULT_NETWORK, NetworkPlan, Subnet, builtin_id};
pub use pool::NetnsPool;
pub use ports::{BoundPort, PortRequest, Protocol, parse_publish};
pub use publish::Target;
pub use seat::{EndpointSpec, Overview, Seat};
pub use serve::{Behind, DNS_ADDRESS, SERVICE, Service, ServiceRequest, Settings, service_main};
pub use subnet::{Ipv4Net, Ipv6Net, NotANetwork};
pub use sweep::{forget, free_subnet, shared_subnet, sweep};
pub use uplink::Uplink;
pub use userspace::{CARRIED_LINK, Carrier, Place, Program, Userspace, host_address, is_for_us, no_program, probe_tun};

use crate::sys::netlink::Netlink;
use lease::{AddressLease, Lock, RunDir};
use links::{Link, Route};

/// The bridge's name.
pub const BRIDGE: &str = "strake0";
/// How the names of the bridge's ports begin.
const PORT_PREFIX: &str = "strk";
/// Used where the host has no default route to take it from.
const ETHERNET_MTU: u32 = 1500;
/// The link-local address of a bridge with IPv6, beside the one that the kernel makes: that one counts only after a second or two, and until then the kernel drops what it
/// should forward to a container whose hardware address it must ask for.
const LINK_LOCAL: Ipv6Net = Ipv6Net::new(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 64);

/// The network of this host's sandboxes, open. Clones are the same network; the last one to go closes it.
#[derive(Clone, Debug)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    plan: NetworkPlan,
    run_dir: RunDir,
    /// The bridge's address, with the subnet's prefix.
    gateway: Ipv4Net,
    /// Why nothing leads out of it, where that is so.
    no_way_out: Option<Unavailable>,
    /// The bridge's index.
    bridge: u32,
    mtu: u32,
    /// Where the search for a free address goes on: an address comes back as late as possible.
    next: AtomicU32,
    sockets: Mutex<Sockets>,
    /// Holds our place among the users; `None` only while dropping.
    users: Option<Lock>,
    /// Whether the last user leaves its removal to a [`caretaker`].
    lingers: bool,
}

/// Sockets into the host's network namespace, whatever thread uses them.
#[derive(Debug)]
struct Sockets {
    route: Netlink,
    filter: Netlink,
}

impl Sockets {
    fn open() -> Result<Sockets, Error> {
        Ok(Sockets {
            route: Netlink::route().map_err(Error::kernel("open a netlink socket"))?,
            filter: Netlink::netfilter().map_err(Error::kernel("open a netfilter socket"))?,
        })
    }
}

impl Network {
    /// Says whether [`Network::open`] can work here, without changing anything, and names the chains of other programs that it lets its packets through.
    pub fn probe() -> Result<Vec<String>, Unavailable> {
        probe::probe()
    }

    /// Opens the network that containers share, making what is not there yet. [`Error::Unavailable`] means that this host cannot have it.
    pub fn open(run_dir: &Path) -> Result<Network, Error> {
        Network::open_as(run_dir, &NetworkPlan::default_bridge(), false)
    }

    /// Opens a network, making what is not there yet. Where another program drops what would leave it, it is opened all the same if `even_cut_off`, and
    /// [`Network::no_way_out`] tells.
    pub fn open_as(run_dir: &Path, plan: &NetworkPlan, even_cut_off: bool) -> Result<Network, Error> {
        probe::permitted().map_err(Error::Unavailable)?;
        probe::may_ignore_routers(&plan.bridge, plan.v6.is_some()).map_err(Error::Unavailable)?;
        let no_way_out = match probe::cut_off(plan).map_err(Error::Unavailable)? {
            Some(_) if plan.internal => None,
            Some(why) if !even_cut_off => return Err(Error::Unavailable(why)),
            other => other,
        };
        let run_dir = RunDir::open(run_dir)?;
        let mut sockets = Sockets::open()?;
        let setup = run_dir.lock_setup()?;
        let unused = run_dir.is_unused()?;
        if !plan.internal && no_way_out.is_none() {
            switch_forwarding_on(plan)?;
        }
        let host = Host::look(&mut sockets.route, plan).map_err(Error::kernel("list the links and routes of the host"))?;
        let (bridge, gateway) = ensure_bridge(&mut sockets, &host, plan, unused)?;
        if !plan.is_default() {
            sweep::remember(&run_dir, plan)?;
        }
        let users = Some(run_dir.join_users()?);
        let let_through = let_through(&mut sockets, plan);
        drop(setup);
        let first = if plan.is_default() { std::process::id().wrapping_mul(7) } else { 0 };
        let (plan, mtu, next, sockets) = (plan.clone(), host.mtu, AtomicU32::new(first), Mutex::new(sockets));
        let mut inner = Inner { plan, run_dir, gateway, no_way_out, bridge, mtu, next, sockets, users, lingers: false };
        if let Err(error) = let_through {
            let why = probe::refused(&error, &inner.plan);
            // What was made goes with `inner`.
            if !even_cut_off && !inner.plan.internal {
                return Err(Error::Unavailable(why));
            }
            inner.no_way_out = inner.no_way_out.take().or_else(|| (!inner.plan.internal).then_some(why));
        }
        Ok(Network(Arc::new(inner)))
    }

    /// Has other programs' firewalls let its packets through, where they do not any more: whoever makes their rules anew removes ours, and who removes all tables (`nft flush ruleset`) that of the
    /// network as well. `false` if somebody just sets the network up or takes it down, and it should be tried again.
    pub fn let_through_again(&self) -> Result<bool, Error> {
        let Inner { run_dir, plan, gateway, .. } = &*self.0;
        let Some(_setup) = run_dir.try_lock_setup()? else { return Ok(false) };
        let mut sockets = self.0.sockets();
        ensure_tables(&mut sockets, plan, gateway.network(), false)?;
        let_through(&mut sockets, plan).map_err(Error::kernel("let packets through another program's firewall"))?;
        Ok(true)
    }

    /// The same, but where it is the one that all containers share, its last user does not wait until it is gone: it stays for a moment, for who comes next, and is then removed by a
    /// process of its own. This binary must know it by [`CARETAKER`].
    pub fn lingering(mut self) -> Network {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.lingers = inner.plan.is_default();
        }
        self
    }

    /// Makes a namespace. Takes about a millisecond; [`NetnsPool`] has some ready.
    pub fn acquire(&self) -> Result<Netns, Error> {
        Netns::make(&self.0, self.lease()?)
    }

    fn lease(&self) -> Result<AddressLease, Error> {
        // Where anyone may look on, an address comes back as late as possible; in a network with a name the first that is free is what its users expect.
        let start = if self.0.plan.is_default() { self.0.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let range = self.0.plan.v4.and_then(|subnet| subnet.range);
        self.0.run_dir.take_address(self.0.gateway.network(), range, &self.0.plan.reserved(self.0.gateway), start)
    }

    /// Why nothing leads out of it, although it is not internal.
    pub fn no_way_out(&self) -> Option<&Unavailable> {
        self.0.no_way_out.as_ref()
    }

    /// What it is.
    pub fn plan(&self) -> &NetworkPlan {
        &self.0.plan
    }

    /// The bridge's IPv6 address and subnet, where it has any.
    pub fn ipv6_gateway(&self) -> Option<Ipv6Net> {
        self.0.plan.v6.map(|subnet| Ipv6Net::new(subnet.gateway, subnet.net.prefix))
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
        if self.lingers {
            self.run_dir.left();
        }
        if !self.run_dir.is_unused()? {
            return Ok(());
        }
        if self.lingers && caretaker::start(&self.run_dir, self.run_dir.join_users()?).is_ok() {
            return Ok(());
        }
        let mut sockets = self.sockets();
        take_down(&mut sockets, &self.plan)?;
        self.run_dir.forget();
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
    fn look(netlink: &mut Netlink, plan: &NetworkPlan) -> std::io::Result<Host> {
        let (links, addresses, routes) = (links::links(netlink)?, links::addresses(netlink)?, links::routes(netlink)?);
        let way_out = links::default_link(&routes);
        let mtu = plan.mtu.unwrap_or_else(|| links.iter().find(|link| Some(link.index) == way_out).map_or(ETHERNET_MTU, |link| link.mtu));
        Ok(Host { links, addresses, routes, mtu })
    }

    /// The networks that the host uses, each with its link, not counting those of the link `except`.
    fn taken(&self, except: Option<u32>) -> Vec<(Ipv4Net, Option<u32>)> {
        let addresses = self.addresses.iter().filter(|(link, _)| Some(*link) != except).map(|(link, net)| (*net, Some(*link)));
        let routes = self.routes.iter().filter(|route| except.is_none() || route.link != except).map(|route| (route.to, route.link));
        addresses.chain(routes).filter(|(net, _)| net.prefix > 0).collect()
    }

    /// The bridge that is there already, where it can be used as it is.
    fn bridge(&self, plan: &NetworkPlan, unused: bool) -> Option<(u32, Ipv4Net)> {
        let link = self.links.iter().find(|link| link.name == plan.bridge)?;
        let (_, address) = *self.addresses.iter().find(|(index, _)| *index == link.index)?;
        // One without users was left by a killed process, maybe before the host got a route (a VPN's) that its subnet is now in the way of.
        let stale = unused && (link.mtu != self.mtu || self.taken(Some(link.index)).iter().any(|(net, _)| net.overlaps(address)));
        let other = plan.v4.is_some_and(|subnet| Ipv4Net::new(subnet.gateway, subnet.net.prefix) != address) || link.group != plan.group();
        (!stale && !other).then_some((link.index, address))
    }

    fn link_name(&self, index: Option<u32>) -> String {
        self.links.iter().find(|link| Some(link.index) == index).map_or_else(|| "a route".to_owned(), |link| link.name.clone())
    }
}

fn switch_forwarding_on(plan: &NetworkPlan) -> Result<(), Error> {
    let path = Path::new(probe::IP_FORWARD);
    let value = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    if value.trim() == "0" {
        std::fs::write(path, "1").map_err(Error::file("write", path))?;
    }
    if plan.v6.is_some() {
        probe::forward_ipv6()?;
    }
    Ok(())
}

/// Makes the bridge and the tables, as far as they are not there. Only under the set-up lock.
fn ensure_bridge(sockets: &mut Sockets, host: &Host, plan: &NetworkPlan, unused: bool) -> Result<(u32, Ipv4Net), Error> {
    let (bridge, fresh) = match host.bridge(plan, unused) {
        Some(bridge) => (bridge, unused),
        None => (make_bridge(&mut sockets.route, host, plan)?, true),
    };
    ensure_tables(sockets, plan, bridge.1.network(), fresh)?;
    Ok(bridge)
}

/// Makes the network's tables where they are not there, or in any case `anew`.
fn ensure_tables(sockets: &mut Sockets, plan: &NetworkPlan, v4: Ipv4Net, anew: bool) -> Result<(), Error> {
    if !anew && nat::tables_exist(&mut sockets.filter, plan).map_err(Error::kernel("list the packet filter's tables"))? {
        return Ok(());
    }
    nat::make_tables(&mut sockets.filter, plan, v4, plan.v6.map(|subnet| subnet.net)).map_err(|error| match error.kind() {
        // What nf_tables says when an expression or a chain type has no module.
        std::io::ErrorKind::NotFound => Error::kernel("make NAT rules")(rustix::io::Errno::OPNOTSUPP.into()),
        _ => Error::kernel(format!("make the packet filter's table `ip {}`", plan.table()))(error),
    })
}

/// The bridge's address: the one that the plan has, or of a subnet that the host does not use.
fn choose_gateway(host: &Host, plan: &NetworkPlan, except: Option<u32>) -> Result<Ipv4Net, Error> {
    let taken = host.taken(except);
    let Some(subnet) = plan.v4 else {
        let nets: Vec<Ipv4Net> = taken.iter().map(|(net, _)| *net).collect();
        return subnet::choose(&nets).and_then(|subnet| subnet.host(1)).ok_or(Error::NoSubnet);
    };
    match taken.iter().find(|(net, _)| net.overlaps(subnet.net)) {
        Some((net, link)) => {
            let (network, subnet, other) = (plan.name.clone(), subnet.net.to_string(), net.to_string());
            Err(Error::Overlap { network, subnet, other, link: host.link_name(*link) })
        }
        None => Ok(Ipv4Net::new(subnet.gateway, subnet.net.prefix)),
    }
}

fn make_bridge(netlink: &mut Netlink, host: &Host, plan: &NetworkPlan) -> Result<(u32, Ipv4Net), Error> {
    let name = &plan.bridge;
    let bridge = host.links.iter().find(|link| link.name == *name);
    if bridge.is_some_and(|link| link.group != plan.group()) {
        return Err(Error::ForeignLink { link: name.clone(), network: plan.name.clone() });
    }
    let bridge = bridge.map(|link| link.index);
    remove_bridge(netlink, plan)?;
    let gateway = choose_gateway(host, plan, bridge)?;
    let step = || format!("make the bridge `{name}`");
    let mac = links::hardware_address(gateway.address);
    links::make_bridge(netlink, name, plan.group(), mac, host.mtu).map_err(Error::kernel(step()))?;
    let links = links::links(netlink).map_err(Error::kernel("list the links of the host"))?;
    let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
    let link = links.iter().find(|link| link.name == *name).ok_or_else(gone).map_err(Error::kernel(step()))?.index;
    probe::ignore_routers(name, plan.v6.is_some())?;
    netlink.request(links::link_up(link)).map_err(Error::kernel(step()))?;
    netlink.request(links::add_address(link, gateway)).map_err(Error::kernel(format!("give `{name}` the address {gateway}")))?;
    if let Some(v6) = plan.v6 {
        let address = Ipv6Net::new(v6.gateway, v6.net.prefix);
        for address in [address, LINK_LOCAL].iter().take(if v6.gateway.is_unicast_link_local() { 1 } else { 2 }) {
            let added = netlink.request(links::add_ipv6_address(link, *address));
            added.map_err(Error::kernel(format!("give `{name}` the address {address}")))?;
        }
    }
    Ok((link, gateway))
}

/// Has other programs' firewalls let the network's packets through. Only under the set-up lock.
fn let_through(sockets: &mut Sockets, plan: &NetworkPlan) -> std::io::Result<()> {
    passes::open(&mut sockets.filter, &mut sockets.route, plan)
}

/// Removes all that the network has on the host.
fn take_down(sockets: &mut Sockets, plan: &NetworkPlan) -> Result<(), Error> {
    remove_bridge(&mut sockets.route, plan)?;
    let removed = passes::close(&mut sockets.filter, &mut sockets.route, plan);
    removed.map_err(Error::kernel(format!("remove the rules about `{}` from other programs' chains", plan.bridge)))?;
    let removed = nat::delete_tables(&mut sockets.filter, plan);
    removed.map_err(Error::kernel(format!("remove the packet filter's table `{}`", plan.table())))
}

/// Removes the bridge with its ports: those of namespaces that the kernel is still taking down.
fn remove_bridge(netlink: &mut Netlink, plan: &NetworkPlan) -> Result<(), Error> {
    links::delete_all(netlink, plan.group()).map_err(Error::kernel(format!("remove the bridge `{}`", plan.bridge)))
}

#[cfg(test)]
mod tests;
