//! Can this host give processes a network of their own? Looked at before anything is changed, so that a "no" leaves no trace.
//!
//! What cannot be seen from here: a rule of others that drops some packets and not all, and one of legacy iptables, which is not part of nf_tables and of which only the policy is looked at.
//! There the namespaces come up and stay without a way out; `--network=host` is the answer.

use std::ffi::OsStr;
use std::path::Path;

use capctl::{Cap, CapState};

use super::{Error, NetworkPlan, Unavailable, passes};
use crate::sys::netlink::Netlink;
use crate::sys::xtables::drops_forwarded;

/// The switch that makes the host a router.
pub(super) const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

fn unavailable(reason: impl Into<String>, hint: impl Into<String>) -> Unavailable {
    Unavailable { reason: reason.into(), hint: hint.into() }
}

/// The same for IPv6.
const IPV6_INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// Looks for what [`super::Network::open`] needs, and names the chains of others that it adds rules to.
pub(super) fn probe() -> Result<Vec<String>, Unavailable> {
    permitted()?;
    may_ignore_routers(super::BRIDGE, false)?;
    let plan = NetworkPlan::default_bridge();
    if let Some(why) = cut_off(&plan)? {
        return Err(why);
    }
    closed(&plan).map(|closed| closed.by_us)
}

/// Why what leaves the network is not forwarded, where that is so and we cannot help it.
///
/// # Errors
/// The host's network cannot be changed at all.
pub(super) fn cut_off(plan: &NetworkPlan) -> Result<Option<Unavailable>, Unavailable> {
    let closed = closed(plan)?;
    let legacy = || {
        let ipv6 = [false, true].into_iter().take(if plan.v6.is_some() { 2 } else { 1 });
        ipv6.filter(|ipv6| drops_forwarded(*ipv6, &plan.bridge)).map(|ipv6| legacy_drops(ipv6, &plan.bridge)).next()
    };
    let foreign = || closed.for_good.first().map(|chain| foreign_drops(chain, &plan.bridge));
    Ok(forwarding_possible().err().or_else(foreign).or_else(legacy))
}

fn legacy_drops(ipv6: bool, bridge: &str) -> Unavailable {
    let program = if ipv6 { "ip6tables-legacy" } else { "iptables-legacy" };
    unavailable(
        format!("the chain FORWARD of `{program}` drops forwarded packets"),
        format!(
            "rules of iptables-legacy are left alone: have Docker and others use nf_tables (`update-alternatives --set iptables /usr/sbin/iptables-nft`), or let it accept what comes from and goes to `{bridge}` (`{program} -I FORWARD -i {bridge} -j ACCEPT` and the same with `-o`; with Docker in the chain DOCKER-USER), or use `--network=host`"
        ),
    )
}

fn foreign_drops(chain: &str, bridge: &str) -> Unavailable {
    let accept = match chain.starts_with("inet firewalld ") {
        true => format!("`firewall-cmd --permanent --zone=trusted --add-interface={bridge}` and `firewall-cmd --reload`"),
        false => format!("`nft insert rule {chain} iifname {bridge} accept` and the same with `oifname`"),
    };
    unavailable(
        format!("the packet filter's chain `{chain}` drops forwarded packets"),
        format!(
            "another program (a firewall, a VPN) owns it and its rules are left alone; let it accept what comes from and goes to `{bridge}` ({accept}), or use `--network=host`"
        ),
    )
}

/// What a chain has that would not let us write to it.
pub(super) fn refused(error: &std::io::Error, plan: &NetworkPlan) -> Unavailable {
    unavailable(
        format!("another program's firewall drops forwarded packets, and no rule about `{}` can be added to it: {error}", plan.bridge),
        "let it accept what comes from and goes to that bridge, or use `--network=host`",
    )
}

/// Makes the host a router of IPv6. A router does not listen to others any more unless it is told to: links that do now go on.
pub(super) fn forward_ipv6() -> Result<(), Error> {
    let all = Path::new(IPV6_INTERFACES).join("all/forwarding");
    let value = std::fs::read_to_string(&all).map_err(Error::file("read", &all))?;
    if value.trim() != "0" {
        return Ok(());
    }
    // What links are made with later is not changed, nor what is the port of a bridge: there containers would be heard.
    let is_own = |name: &OsStr| name != "all" && name != "default" && !Path::new("/sys/class/net").join(name).join("master").exists();
    for entry in std::fs::read_dir(IPV6_INTERFACES).into_iter().flatten().flatten().filter(|entry| is_own(&entry.file_name())) {
        let path = entry.path().join("accept_ra");
        if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == "1") {
            let _ = std::fs::write(&path, "2");
        }
    }
    std::fs::write(&all, "1").map_err(Error::file("write", &all))
}

fn setting_against_routers(has_ipv6: bool) -> (&'static str, &'static str) {
    if has_ipv6 { ("accept_ra", "0") } else { ("disable_ipv6", "1") }
}

/// Whether [`ignore_routers`] can work, for a bridge that may not be there yet.
pub(super) fn may_ignore_routers(bridge: &str, has_ipv6: bool) -> Result<(), Unavailable> {
    let (name, wanted) = setting_against_routers(has_ipv6);
    let interfaces = Path::new(IPV6_INTERFACES);
    let own = interfaces.join(bridge).join(name);
    let path = if own.exists() { own } else { interfaces.join("default").join(name) };
    let is_set = std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == wanted);
    if is_set || !path.exists() || writable(&path) {
        return Ok(());
    }
    Err(unavailable(
        "/proc/sys is read-only, so that a bridge would listen to routers among the containers",
        format!("mount it to be written, have `sysctl -w net.ipv6.conf.default.{name}={wanted}` said outside, or use `--network=host`"),
    ))
}

/// Keeps the host from taking a container for a router: what one says of itself on `bridge` is not believed (CVE-2020-13401). On one without IPv6 the host has none either.
/// Before the bridge is up.
pub(super) fn ignore_routers(bridge: &str, has_ipv6: bool) -> Result<(), Error> {
    let (name, wanted) = setting_against_routers(has_ipv6);
    let path = Path::new(IPV6_INTERFACES).join(bridge).join(name);
    match std::fs::write(&path, wanted) {
        // A kernel without IPv6.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        // Where settings are read-only, what the host has for new links may do.
        Err(_) if std::fs::read_to_string(&path).is_ok_and(|value| value.trim() == wanted) => Ok(()),
        other => other.map_err(Error::file("write", &path)),
    }
}

/// Whether this process may make networks.
pub(super) fn permitted() -> Result<(), Unavailable> {
    let state =
        CapState::get_current().map_err(|error| unavailable(format!("cannot read the capabilities: {error}"), "use `--network=host`"))?;
    for (capability, name) in [(Cap::NET_ADMIN, "CAP_NET_ADMIN"), (Cap::SYS_ADMIN, "CAP_SYS_ADMIN")] {
        if !state.effective.has(capability) {
            return Err(unavailable(format!("{name} is missing"), format!("run as root with {name}, or use `--network=host`")));
        }
    }
    Ok(())
}

fn forwarding_possible() -> Result<(), Unavailable> {
    let value = std::fs::read_to_string(IP_FORWARD)
        .map_err(|error| unavailable(format!("cannot read `{IP_FORWARD}`: {error}"), "mount /proc, or use `--network=host`"))?;
    if value.trim() == "0" && !writable(Path::new(IP_FORWARD)) {
        let hint = "switch it on from outside (`sysctl -w net.ipv4.ip_forward=1`), or use `--network=host`";
        return Err(unavailable("IP forwarding is off and /proc/sys is read-only", hint));
    }
    Ok(())
}

fn writable(path: &Path) -> bool {
    // Opened without truncation, so nothing is written.
    std::fs::OpenOptions::new().write(true).open(path).is_ok()
}

fn closed(plan: &NetworkPlan) -> Result<passes::Closed, Unavailable> {
    let no_filter = |error: std::io::Error| {
        // Capabilities of a user namespace do not reach the network namespace of the host.
        if error.kind() == std::io::ErrorKind::PermissionDenied {
            return unavailable("the host's network cannot be changed without root", "run as root, or accept it with `--network=host`");
        }
        unavailable(format!("nf_tables does not answer: {error}"), "load the kernel module nf_tables, or use `--network=host`")
    };
    let mut netlink = Netlink::netfilter().map_err(no_filter)?;
    passes::closed(&mut netlink, plan).map_err(no_filter)
}
