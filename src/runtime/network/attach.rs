//! The network namespace of a container, and its places on networks.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns, unshare};
use serde::{Deserialize, Serialize};

use super::lease::{AddressLease, Ipv6Lease};
use super::links;
use super::names::{Names, Published, publish};
use super::netns::{apply_settings, make_veth, own_netns};
use super::{Error, Ipv4Net, Network, NetworkPlan};
use crate::sys::netlink::Netlink;

/// What a container wants to be on a network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRequest {
    /// The address that it wants.
    #[serde(default)]
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 address that it wants.
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
    /// The hardware address that it wants.
    #[serde(default)]
    pub mac: Option<[u8; 6]>,
    /// Names beside its own.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// How much this network's way out is preferred to that of others.
    #[serde(default)]
    pub priority: i32,
    /// The name that its link is to have in the container.
    #[serde(default)]
    pub link: Option<String>,
}

/// What it is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    /// The network's ID.
    pub network: String,
    /// The network's name.
    pub name: String,
    /// Its address, with the length of the subnet's prefix.
    pub address: Ipv4Net,
    /// The host's address there.
    pub gateway: Ipv4Addr,
    /// Its IPv6 address, where it has one.
    #[serde(default)]
    pub ipv6: Option<super::Ipv6Net>,
    /// The host's IPv6 address there.
    #[serde(default)]
    pub ipv6_gateway: Option<Ipv6Addr>,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// The link in the container.
    pub link: String,
}

/// A place on a network. Dropped in this order: the names, the addresses, the network.
#[derive(Debug)]
struct Endpoint {
    published: Option<Published>,
    state: EndpointState,
    priority: i32,
    _address: AddressLease,
    _ipv6: Option<Ipv6Lease>,
    network: Network,
}

/// A container's network namespace. Dropping it gives its addresses back; the namespace itself goes with its last process.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
    /// A socket inside.
    inside: Netlink,
    endpoints: Vec<Endpoint>,
}

impl Namespace {
    /// Makes one that only has a loopback link (or takes `made`, which has no more), without starting a thread: for a process that has one and must keep it so (even a thread that
    /// was joined lingers for an instant). After an error the thread may be in another network namespace than before.
    pub fn make_on_only_thread(made: Option<BorrowedFd<'_>>) -> Result<Namespace, Error> {
        let own = own_netns()?;
        let entered = made.map_or_else(|| unshare(CloneFlags::CLONE_NEWNET), |made| setns(made, CloneFlags::CLONE_NEWNET));
        entered.map_err(|errno| Error::kernel("make a network namespace")(errno.into()))?;
        let made = begin();
        setns(&own, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::kernel("return to the host's network namespace")(errno.into()))?;
        let (fd, inside) = made?;
        Ok(Namespace { fd, inside, endpoints: Vec::new() })
    }

    /// Removes a link that another process has made in it, where it is still there.
    pub(super) fn remove_link(&mut self, name: &str) {
        let _ = links::delete_link(&mut self.inside, name);
    }

    /// The namespace, for `setns(2)`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What the container is on its networks, in the order in which it came to them.
    pub fn endpoints(&self) -> impl Iterator<Item = &EndpointState> {
        self.endpoints.iter().map(|endpoint| &endpoint.state)
    }

    /// The networks that it is on.
    pub fn networks(&self) -> impl Iterator<Item = &NetworkPlan> {
        self.endpoints.iter().map(|endpoint| endpoint.network.plan())
    }

    /// Why nothing leads out of the network that the way out goes through.
    pub fn no_way_out(&self) -> Option<&super::Unavailable> {
        self.way_out().and_then(|endpoint| endpoint.network.no_way_out())
    }

    /// The place that packets for elsewhere leave by, and that published ports lead to: of those on networks that lead out the most preferred, and the first of these.
    fn way_out(&self) -> Option<&Endpoint> {
        // The last of the greatest is found.
        self.endpoints.iter().rev().filter(|endpoint| !endpoint.network.plan().internal).max_by_key(|endpoint| endpoint.priority)
    }

    /// Where published ports lead.
    pub fn target(&self) -> Option<super::Target> {
        let endpoint = self.way_out()?;
        let state = &endpoint.state;
        let bridge = endpoint.network.plan().bridge.clone();
        Some(super::Target { bridge, v4: Some(state.address.address), v6: state.ipv6.map(|net| net.address) })
    }

    /// Has other programs' firewalls let packets of its networks through, where they do not any more. `false` if that should be tried again.
    pub(super) fn let_through_again(&self) -> bool {
        let again = |endpoint: &Endpoint| {
            // What they refuse now they will refuse later.
            endpoint.network.let_through_again().unwrap_or_else(|error| {
                tracing::debug!(%error, network = endpoint.state.name, "nothing is let through");
                true
            })
        };
        // All of them, whatever becomes of the first.
        self.endpoints.iter().filter(|endpoint| !again(endpoint)).count() == 0
    }

    /// Puts it on a network.
    pub fn attach(&mut self, network: Network, request: &EndpointRequest) -> Result<&EndpointState, Error> {
        let plan = network.plan();
        let address = match request.ipv4 {
            None => network.lease()?,
            Some(asked) => {
                check(plan, network.gateway(), asked)?;
                network.0.run_dir.take_this(network.gateway().network(), asked)?
            }
        };
        let ipv6 = take_ipv6(&network, request.ipv6)?;
        let is_free = |name: &String| !self.endpoints.iter().any(|known| known.state.link == *name);
        let link = request.link.clone().or_else(|| (0..).map(|number| format!("eth{number}")).find(is_free)).unwrap_or_default();
        let mac = request.mac.unwrap_or_else(|| links::hardware_address(address.address.address));
        let state = EndpointState {
            network: plan.id.clone(),
            name: plan.name.clone(),
            address: address.address,
            gateway: network.gateway().address,
            ipv6: ipv6.as_ref().map(|lease| lease.address),
            ipv6_gateway: network.ipv6_gateway().map(|net| net.address),
            mac,
            link,
        };
        let failed = || Error::kernel(format!("connect with the network `{}`", plan.name));
        make_veth(&network.0, address.address, &state.link, mac, &self.fd).map_err(|error| match error.kind() {
            // The other end's name is of an address that is ours.
            io::ErrorKind::AlreadyExists => Error::LinkTaken { network: plan.name.clone(), link: state.link.clone() },
            _ => failed()(error),
        })?;
        if let Err(error) = configure(&mut self.inside, &state) {
            self.remove_link(&state.link);
            return Err(failed()(error));
        }
        let before = self.way_out().map(|endpoint| endpoint.state.clone());
        self.endpoints.push(Endpoint { published: None, state, priority: request.priority, _address: address, _ipv6: ipv6, network });
        if self.way_out().map(|endpoint| &endpoint.state) != before.as_ref()
            && let Err(error) = self.find_way_out(before.as_ref())
        {
            if let Some(endpoint) = self.endpoints.pop() {
                self.remove_link(&endpoint.state.link);
            }
            let _ = self.find_way_out(None);
            return Err(error);
        }
        self.endpoints.last().map(|endpoint| &endpoint.state).ok_or(Error::ServiceEnded)
    }

    /// Takes it off a network; `false` where it is not on it.
    pub fn detach(&mut self, network: &str) -> Result<bool, Error> {
        let Some(at) = self.endpoints.iter().position(|endpoint| endpoint.state.network == network) else { return Ok(false) };
        let was_out = self.way_out().is_some_and(|endpoint| endpoint.state.network == network);
        let removed = links::delete_link(&mut self.inside, &self.endpoints[at].state.link);
        removed.map_err(Error::kernel(format!("disconnect from the network `{}`", self.endpoints[at].state.name)))?;
        drop(self.endpoints.remove(at));
        if was_out {
            self.find_way_out(None)?;
        }
        Ok(true)
    }

    /// Lets others on its networks find it by its names; on the default bridge there are none.
    pub fn publish(&mut self, id: &str, names: impl Fn(&str) -> Vec<String>) -> Result<(), Error> {
        for endpoint in self.endpoints.iter_mut().filter(|endpoint| !endpoint.network.plan().is_default()) {
            let (v4, v6) = (endpoint.state.address.address, endpoint.state.ipv6.map(|net| net.address));
            let names = Names { id: id.to_owned(), names: names(&endpoint.state.network), v4, v6 };
            let published = publish(&endpoint.network.0.run_dir, &names)?;
            // The one before has the same file, which must stay.
            if let Some(before) = endpoint.published.replace(published) {
                std::mem::forget(before);
            }
        }
        Ok(())
    }

    /// Makes the way out that of the network that it is to go through, in place of the one `before`.
    fn find_way_out(&mut self, before: Option<&EndpointState>) -> Result<(), Error> {
        let Some(state) = self.way_out().map(|endpoint| endpoint.state.clone()) else { return Ok(()) };
        let all = links::links(&mut self.inside).map_err(Error::kernel("list the links of the container"))?;
        let index = |state: &EndpointState| all.iter().find(|link| link.name == state.link).map(|link| link.index);
        let Some(link) = index(&state) else { return Ok(()) };
        if let Some((before, link)) = before.and_then(|before| Some((before, index(before)?))) {
            // Somebody in the container may have taken it away.
            let _ = self.inside.request(links::no_default_route(link, before.gateway));
            let _ = before.ipv6_gateway.map(|gateway| self.inside.request(links::no_default_ipv6_route(link, gateway)));
        }
        let mut requests = vec![links::default_route(link, state.gateway)];
        requests.extend(state.ipv6_gateway.map(|gateway| links::default_ipv6_route(link, gateway)));
        for request in requests {
            match self.inside.request(request) {
                // Somebody in the container has chosen another way out.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(Error::kernel(format!("route through the network `{}`", state.name)))?,
            }
        }
        Ok(())
    }
}

fn begin() -> Result<(OwnedFd, Netlink), Error> {
    let fd = own_netns()?;
    let mut inside = Netlink::route().map_err(Error::kernel("open a netlink socket"))?;
    inside.request(links::loopback_up()).map_err(Error::kernel("switch the loopback link on"))?;
    apply_settings();
    Ok((fd, inside))
}

/// Why an address is not given that `--aux-address` names.
const SET_ASIDE: &str = "it is set aside";

/// Whether a network can give that address.
fn check(plan: &NetworkPlan, gateway: Ipv4Net, asked: Ipv4Addr) -> Result<(), Error> {
    let refused = |reason: String| Error::Address { network: plan.name.clone(), address: IpAddr::V4(asked), reason };
    if !gateway.contains(asked) {
        return Err(refused(format!("its subnet is {}", gateway.network())));
    }
    if plan.auxiliary.values().any(|known| *known == IpAddr::V4(asked)) {
        return Err(refused(SET_ASIDE.to_owned()));
    }
    if plan.reserved(gateway).contains(&asked) || asked == gateway.network().address {
        return Err(refused("it is the network's own".to_owned()));
    }
    Ok(())
}

fn take_ipv6(network: &Network, asked: Option<Ipv6Addr>) -> Result<Option<Ipv6Lease>, Error> {
    let refused =
        |address: Ipv6Addr, reason: String| Error::Address { network: network.plan().name.clone(), address: address.into(), reason };
    match (network.plan().v6, asked) {
        (None, None) => Ok(None),
        (None, Some(address)) => Err(refused(address, "it has no IPv6 subnet".to_owned())),
        (Some(subnet), None) => {
            let reserved = network.plan().reserved_ipv6(subnet.gateway);
            network.0.run_dir.take_ipv6(subnet.net, subnet.range, &reserved).map(Some)
        }
        (Some(subnet), Some(address)) => {
            if !subnet.net.contains(address) || address == subnet.gateway {
                return Err(refused(address, format!("its subnet is {}, and its gateway {}", subnet.net, subnet.gateway)));
            }
            if network.plan().reserved_ipv6(subnet.gateway).contains(&address) {
                return Err(refused(address, SET_ASIDE.to_owned()));
            }
            network.0.run_dir.take_this_ipv6(subnet.net, address).map(Some)
        }
    }
}

fn configure(inside: &mut Netlink, state: &EndpointState) -> io::Result<()> {
    let links = links::links(inside)?;
    let link = links.iter().find(|link| link.name == state.link).ok_or(io::ErrorKind::NotFound)?.index;
    let mut requests = vec![links::add_address(link, state.address)];
    requests.extend(state.ipv6.map(|address| links::add_ipv6_address(link, address)));
    requests.push(links::link_up(link));
    inside.requests(requests)
}
