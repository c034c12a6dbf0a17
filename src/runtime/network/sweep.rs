//! What killed processes left of networks, and what the host has of them.

use std::path::Path;

use super::lease::RunDir;
use super::{BRIDGE, Error, Ipv4Net, NetworkPlan, Sockets, is_for_us, links, subnet, take_down};
use crate::sys::netlink::Netlink;

/// Removes what nobody uses any more of the networks below `run_dir` (`net` is the default bridge, `nets/ID` each network with a name). What somebody is just setting
/// up or taking down is left to them. Costs next to nothing where there is nothing to do.
pub fn sweep(run_dir: &Path) {
    let named = std::fs::read_dir(run_dir.join("nets")).into_iter().flatten().flatten();
    for entry in named {
        let id = entry.file_name().to_string_lossy().into_owned();
        sweep_one(&entry.path(), || remembered(&entry.path(), &id));
    }
    sweep_one(&run_dir.join("net"), NetworkPlan::default_bridge);
}

fn sweep_one(run_dir: &Path, plan: impl Fn() -> NetworkPlan) {
    if !RunDir::at(run_dir).has_users() {
        return;
    }
    let removed = || -> Result<(), Error> {
        let run_dir = RunDir::open(run_dir)?;
        let Some(_setup) = run_dir.try_lock_setup()? else { return Ok(()) };
        let is_abandoned = run_dir.is_abandoned();
        // Where the host's network is not ours to change, it has nothing of it: the namespace that has goes with its last user.
        if is_abandoned && !is_for_us() {
            take_down(&mut Sockets::open()?, &plan())?;
        }
        // Who went meanwhile has taken all away, which was made again to be locked.
        if is_abandoned || !run_dir.has_users() {
            run_dir.forget();
        }
        Ok(())
    };
    if let Err(error) = removed() {
        tracing::debug!(%error, "what a killed process left of a network stays");
    }
}

/// Removes all that the host has of a network, with its run directory.
///
/// # Errors
/// Somebody uses it.
pub fn forget(run_dir: &Path, plan: &NetworkPlan) -> Result<bool, Error> {
    if !run_dir.exists() {
        return Ok(true);
    }
    let places = RunDir::open(run_dir)?;
    let _setup = places.lock_setup()?;
    if !places.is_unused()? {
        return Ok(false);
    }
    match Sockets::open().and_then(|mut sockets| take_down(&mut sockets, plan)) {
        // Who cannot have networks has none.
        Ok(()) | Err(Error::Unavailable(_)) => {}
        Err(_) if is_for_us() => {}
        Err(error) => return Err(error),
    }
    places.remove()?;
    Ok(true)
}

/// The file of a run directory in which the network's plan is, for whoever sweeps: it need not know the store that has the network.
const PLAN: &str = "plan.json";

/// Keeps the plan for [`sweep`].
pub(super) fn remember(run_dir: &RunDir, plan: &NetworkPlan) -> Result<(), Error> {
    let path = run_dir.file(PLAN);
    std::fs::write(&path, serde_json::to_vec(plan).unwrap_or_default()).map_err(Error::file("write", &path))
}

fn remembered(run_dir: &Path, id: &str) -> NetworkPlan {
    let read = std::fs::read(run_dir.join(PLAN)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    // All names follow from the ID but one that the user gave the bridge.
    read.unwrap_or_else(|| NetworkPlan {
        id: id.to_owned(),
        bridge: NetworkPlan::bridge_name(id),
        v4: Some(super::Subnet { net: Ipv4Net::new([0, 0, 0, 0].into(), 0), gateway: [0, 0, 0, 0].into(), range: None }),
        ..NetworkPlan::default_bridge()
    })
}

/// A subnet for a network with a name that overlaps neither `taken` nor anything of this host.
///
/// # Errors
/// There is none.
pub fn free_subnet(taken: &[Ipv4Net]) -> Result<Ipv4Net, Error> {
    let mut all = taken.to_vec();
    // One who may not look takes what the others leave.
    if let Ok(mut netlink) = Netlink::route() {
        all.extend(links::addresses(&mut netlink).unwrap_or_default().iter().map(|(_, net)| *net));
        all.extend(links::routes(&mut netlink).unwrap_or_default().iter().map(|route| route.to));
    }
    subnet::choose_named(&all).ok_or(Error::NoSubnet)
}

/// The host's address on the default bridge, while that is there.
pub fn shared_subnet() -> Option<Ipv4Net> {
    let mut netlink = Netlink::route().ok()?;
    let bridge = links::links(&mut netlink).ok()?.into_iter().find(|link| link.name == BRIDGE)?.index;
    links::addresses(&mut netlink).ok()?.into_iter().find(|(link, _)| *link == bridge).map(|(_, net)| net)
}
