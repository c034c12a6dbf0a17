//! Devices of the host that move into another network namespace.

use std::os::fd::AsFd;

use nix::sched::{CloneFlags, setns};

use super::links::{self, addresses_of, link_up, links};
use super::{Error, netns};
use crate::sys::netlink::Netlink;

/// Moves a device into a namespace, where it has another name, keeps the addresses that are not for this machine alone and do not expire, and is switched on. This process
/// must have one thread.
pub(in crate::runtime) fn move_device(name: &str, inside: &str, namespace: &impl AsFd) -> Result<(), Error> {
    let step = || Error::kernel(format!("move the network device `{name}`"));
    let mut here = Netlink::route().map_err(step())?;
    let found = links(&mut here).map_err(step())?.into_iter().find(|link| link.name == name);
    let link = found.ok_or_else(|| step()(std::io::Error::from_raw_os_error(libc::ENODEV)))?;
    let addresses = addresses_of(&mut here, link.index).map_err(step())?;
    here.request(links::moved(link.index, inside, namespace.as_fd())).map_err(step())?;
    let own = netns::own_netns()?;
    let enter = |namespace| setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| step()(errno.into()));
    enter(namespace.as_fd())?;
    // A socket is of the namespace that it was made in.
    let there = Netlink::route();
    enter(own.as_fd())?;
    let mut there = there.map_err(step())?;
    let found = links(&mut there).map_err(step())?.into_iter().find(|link| link.name == inside);
    let link = found.ok_or_else(|| step()(std::io::Error::from_raw_os_error(libc::ENODEV)))?;
    for address in &addresses {
        there.request(address.for_link(link.index)).map_err(step())?;
    }
    there.request(link_up(link.index)).map_err(step())
}
