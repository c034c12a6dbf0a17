//! Devices of the host that move into another network namespace.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns};

use super::Error;
use super::links::{self, KeptAddress, Link, addresses_of, link_up, links};
use crate::sys::netlink::Netlink;

/// The namespace of this thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// A device that has moved, with what it takes to move it back.
#[derive(Debug)]
pub(in crate::runtime) struct MovedDevice {
    outside: String,
    inside: String,
    addresses: Vec<KeptAddress>,
    was_up: bool,
}

/// Moves a device into a namespace, where it has another name, keeps the addresses that are not for this machine alone and do not expire, and is switched on; where that
/// fails, it is where it was. This process must have one thread.
pub(in crate::runtime) fn move_device(name: &str, inside: &str, namespace: &impl AsFd) -> Result<MovedDevice, Error> {
    let step = || Error::kernel(format!("move the network device `{name}`"));
    let mut here = Netlink::route().map_err(step())?;
    let link = named(&mut here, name).map_err(step())?;
    let mut there = route_in(namespace).map_err(step())?;
    // The kernel would move it all the same, and leave it there without its new name.
    if links(&mut there).map_err(step())?.iter().any(|link| link.name == inside) {
        return Err(step()(io::Error::from_raw_os_error(libc::EEXIST)));
    }
    let addresses = addresses_of(&mut here, link.index).map_err(step())?;
    here.request(links::moved(link.index, inside, namespace.as_fd())).map_err(step())?;
    let moved = MovedDevice { outside: name.to_owned(), inside: inside.to_owned(), addresses, was_up: link.up };
    match settle(&mut there, inside, &moved.addresses, true) {
        Ok(()) => Ok(moved),
        Err(error) => {
            moved.move_back(namespace);
            Err(step()(error))
        }
    }
}

impl MovedDevice {
    /// Moves it back to this namespace, as far as that is possible.
    pub(in crate::runtime) fn move_back(&self, namespace: &impl AsFd) {
        let back = || -> io::Result<()> {
            let own = File::open(OWN)?;
            let mut there = route_in(namespace)?;
            let link = named(&mut there, &self.inside)?;
            there.request(links::moved(link.index, &self.outside, own.as_fd()))?;
            settle(&mut Netlink::route()?, &self.outside, &self.addresses, self.was_up)
        };
        // What failed before is what is told.
        let _ = back();
    }
}

fn named(netlink: &mut Netlink, name: &str) -> io::Result<Link> {
    links(netlink)?.into_iter().find(|link| link.name == name).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// Gives a device that has moved its addresses again.
fn settle(netlink: &mut Netlink, name: &str, addresses: &[KeptAddress], up: bool) -> io::Result<()> {
    let link = named(netlink, name)?.index;
    addresses.iter().try_for_each(|address| netlink.request(address.for_link(link)))?;
    if up { netlink.request(link_up(link)) } else { Ok(()) }
}

/// A socket is of the namespace that it was made in.
fn route_in(namespace: &impl AsFd) -> io::Result<Netlink> {
    let own = File::open(OWN)?;
    setns(namespace, CloneFlags::CLONE_NEWNET)?;
    let netlink = Netlink::route();
    setns(own, CloneFlags::CLONE_NEWNET)?;
    netlink
}
