//! One private network namespace: how it is made, and what a caller holds.
//!
//! The making happens on a thread of its own, which ends right after: a thread that has unshared its network stays in the new one, and none of the
//! caller's threads may. Nothing is undone step by step: the kernel takes a namespace down with its last descriptor and process, and the veth pair with it.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, unshare};

use super::lease::AddressLease;
use super::links::{self, VethPair};
use super::{Error, Inner, Ipv4Net};
use crate::sys::netlink::Netlink;

/// The link inside of the namespace.
const INNER: &str = "eth0";

/// Settings of the new namespace that containers expect: anyone may ping and listen on low ports, as in Docker's.
const SETTINGS: [(&str, &str); 2] =
    [("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"), ("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")];

/// A network namespace with an address and a way out. Dropping it gives the address back; the namespace itself goes with its last process.
#[derive(Debug)]
pub struct Netns {
    // Dropped in this order: the namespace before the right to its address, and that before the network.
    fd: OwnedFd,
    lease: AddressLease,
    gateway: Ipv4Addr,
    mtu: u32,
    _network: Arc<Inner>,
}

impl Netns {
    /// The namespace, for `setns(2)`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The address inside, with the length of the subnet's prefix.
    pub fn address(&self) -> Ipv4Net {
        self.lease.address
    }

    /// The host's address on the same subnet (what `host.docker.internal` means).
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// The largest packet that fits on the way out, in bytes.
    pub fn mtu(&self) -> u32 {
        self.mtu
    }

    /// Makes a namespace with the address of `lease`.
    pub(super) fn make(network: &Arc<Inner>, lease: AddressLease) -> Result<Netns, Error> {
        let (address, inner) = (lease.address, Arc::clone(network));
        let maker = std::thread::Builder::new().name("netns".to_owned()).spawn(move || connected(&inner, address));
        let maker = maker.map_err(Error::kernel("start a thread"))?;
        let fd = maker.join().map_err(|_| Error::PoolEnded)??;
        Ok(Netns::new(network, lease, fd))
    }

    fn new(network: &Arc<Inner>, lease: AddressLease, fd: OwnedFd) -> Netns {
        Netns { fd, lease, gateway: network.gateway.address, mtu: network.mtu, _network: Arc::clone(network) }
    }
}

/// Moves this thread into a new namespace and connects that with the bridge.
fn connected(network: &Inner, address: Ipv4Net) -> Result<OwnedFd, Error> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::kernel("make a network namespace")(errno.into()))?;
    let netns = own_netns()?;
    plug_in(network, address, &netns).map_err(Error::kernel(format!("make a veth pair for {}", address.address)))?;
    configure(network, address).map_err(Error::kernel(format!("configure the network namespace of {}", address.address)))?;
    apply_settings();
    Ok(netns)
}

/// Makes the settings of this thread's network namespace those that containers expect.
pub(super) fn apply_settings() {
    for (path, value) in SETTINGS {
        // Comfort only, and not there on every kernel.
        let _ = std::fs::write(path, value);
    }
}

/// The namespace that this thread is in.
pub(super) fn own_netns() -> Result<OwnedFd, Error> {
    let path = Path::new("/proc/thread-self/ns/net");
    File::open(path).map(OwnedFd::from).map_err(Error::file("open", path))
}

fn plug_in(network: &Inner, address: Ipv4Net, netns: &OwnedFd) -> io::Result<()> {
    make_veth(network, address, INNER, links::hardware_address(address.address), netns)
}

/// Makes the veth pair of an address, with `inner` in the namespace.
pub(super) fn make_veth(network: &Inner, address: Ipv4Net, inner: &str, inner_mac: [u8; 6], netns: &OwnedFd) -> io::Result<()> {
    let outer = network.plan.port(address);
    let pair = VethPair { outer: &outer, inner, inner_mac, bridge: network.bridge, group: network.plan.group(), mtu: network.mtu };
    let mut sockets = network.sockets();
    let made = match links::make_veth(&mut sockets.route, &pair, netns.as_fd()) {
        // We own the address, so this is what a dead owner left and the kernel has not yet taken down.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            links::delete_link(&mut sockets.route, &outer)?;
            links::make_veth(&mut sockets.route, &pair, netns.as_fd())
        }
        other => other,
    };
    made?;
    if !network.plan.isolated {
        return Ok(());
    }
    // The other end is still down, so nothing has passed.
    links::isolate(&mut sockets.route, &outer).inspect_err(|_| {
        let _ = links::delete_link(&mut sockets.route, &outer);
    })
}

fn configure(network: &Inner, address: Ipv4Net) -> io::Result<()> {
    let mut inside = Netlink::route()?;
    let links = links::links(&mut inside)?;
    let link = links.iter().find(|link| link.name == INNER).ok_or(io::ErrorKind::NotFound)?.index;
    inside.requests(vec![
        links::loopback_up(),
        links::add_address(link, address),
        links::link_up(link),
        links::default_route(link, network.gateway.address),
    ])
}
