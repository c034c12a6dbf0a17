//! Networks for those who may not change the host's: a program of the user's opens sockets on the host for whatever leaves the container's namespace. `pasta` (of passt)
//! and `slirp4netns` are such programs; either is used where it is found, and nothing else of the project needs one.
//!
//! ```text
//!   namespace                               host's namespace
//!   eth0 10.0.2.100 (tap) ---- frames ----- pasta ---- its own sockets ---- outside
//!   127.0.0.11 (names) -------------------- service (`serve`) ------------- the host's name servers
//!   sockets to 10.0.2.100 ----------------- service ----------------------- published ports
//! ```
//!
//! The program carries what leaves, and no more: ports and names are served by our own process, as they are for root, so that both programs give the same. The host's
//! loopback is out of reach. The program lives in a PID namespace that ends with the service, so that nobody can leave it behind.

mod program;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::{Error, Ipv4Net, Ipv6Net, Unavailable, links, subnet};
use crate::sys::netlink::Netlink;

pub(super) use program::{Starting, bind};

/// The device by which a program is a link of a network namespace.
const TUN: &str = "/dev/net/tun";
/// The link inside of the namespace.
pub const CARRIED_LINK: &str = "eth0";
/// The network inside where the host does not use it: what both programs are known for.
const USUAL: Ipv4Net = Ipv4Net::new(Ipv4Addr::new(10, 0, 2, 0), 24);
/// Which of its addresses are whose.
const OWN: u32 = 100;
const GATEWAY: u32 = 2;

/// Programs that carry a namespace's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Carrier {
    /// `pasta`, of passt.
    Pasta,
    /// `slirp4netns`.
    Slirp4netns,
}

impl Carrier {
    /// All, the better one first.
    pub const ALL: [Carrier; 2] = [Carrier::Pasta, Carrier::Slirp4netns];

    /// The program's name, which is also that of the network that it makes.
    pub fn name(self) -> &'static str {
        match self {
            Carrier::Pasta => "pasta",
            Carrier::Slirp4netns => "slirp4netns",
        }
    }

    /// The package that has it.
    pub fn package(self) -> &'static str {
        match self {
            Carrier::Pasta => "passt",
            Carrier::Slirp4netns => "slirp4netns",
        }
    }

    /// That of a name.
    pub fn parse(name: &str) -> Option<Carrier> {
        Carrier::ALL.into_iter().find(|carrier| carrier.name() == name)
    }
}

/// A program that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Which.
    pub carrier: Carrier,
    /// Where.
    pub path: PathBuf,
}

impl Program {
    /// Those of these directories, the better one first.
    pub fn find(directories: &[PathBuf]) -> Vec<Program> {
        use std::os::unix::fs::PermissionsExt;
        let is_program = |path: &PathBuf| path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
        let found = |carrier: Carrier| {
            // A relative one would depend on who starts the container from where.
            let mut paths = directories.iter().filter(|directory| directory.is_absolute()).map(|directory| directory.join(carrier.name()));
            paths.find(is_program).map(|path| Program { carrier, path })
        };
        Carrier::ALL.into_iter().filter_map(found).collect()
    }
}

/// Whether programs can carry packets on this machine.
///
/// # Errors
/// What is in the way.
pub fn probe_tun() -> Result<(), Unavailable> {
    match rustix::fs::open(TUN, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Unavailable {
            reason: format!("`{TUN}` cannot be opened: {}", std::io::Error::from(errno)),
            hint: format!("as root `modprobe tun && chmod 666 {TUN}`, or use `--network=host`"),
        }),
    }
}

/// What is wanted of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Userspace {
    /// Those that may do it; the next where one cannot.
    pub programs: Vec<Program>,
    /// The hardware address that the container wants.
    pub mac: Option<[u8; 6]>,
}

/// What a namespace got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its address, with the length of the network's prefix.
    pub address: Ipv4Net,
    /// The way out.
    pub gateway: Ipv4Addr,
    /// Its IPv6 address, where the host has one.
    pub ipv6: Option<Ipv6Net>,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// The addresses that a namespace is to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub(super) own: Ipv4Net,
    pub(super) gateway: Ipv4Addr,
}

impl Addresses {
    /// Those that a namespace had before.
    pub(super) fn of(place: &Place) -> Addresses {
        Addresses { own: place.address, gateway: place.gateway }
    }

    /// Those of a network that this host has nothing in.
    pub(super) fn choose() -> Result<Addresses, Error> {
        let mut taken = Vec::new();
        // One who may not look takes the usual ones.
        if let Ok(mut netlink) = Netlink::route() {
            taken.extend(links::addresses(&mut netlink).unwrap_or_default().iter().map(|(_, net)| *net));
            taken.extend(links::routes(&mut netlink).unwrap_or_default().iter().map(|route| route.to).filter(|net| net.prefix > 0));
        }
        let is_free = |net: &Ipv4Net| !taken.iter().any(|other| other.overlaps(*net));
        let net = Some(USUAL).filter(is_free).or_else(|| subnet::choose(&taken)).ok_or(Error::NoSubnet)?;
        // As large as the usual one, whatever was free: slirp4netns takes no larger ones.
        let net = Ipv4Net::new(net.address, USUAL.prefix.max(net.prefix));
        let own = net.host(OWN).ok_or(Error::NoSubnet)?;
        Ok(Addresses { own, gateway: net.host(GATEWAY).ok_or(Error::NoSubnet)?.address })
    }
}

/// What the namespace of the calling process has got; `ENODEV` where it has no link of a program.
pub(super) fn look(addresses: Addresses) -> std::io::Result<Place> {
    let mut netlink = Netlink::route()?;
    let all = links::links(&mut netlink)?;
    let link = all.iter().find(|link| link.name == CARRIED_LINK).ok_or(rustix::io::Errno::NODEV)?;
    let found = links::addresses(&mut netlink)?.into_iter().find(|(index, _)| *index == link.index).map(|(_, net)| net);
    let ipv6 = std::fs::read_to_string("/proc/thread-self/net/if_inet6").ok().and_then(|text| global_ipv6(&text));
    let address = found.unwrap_or(Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0));
    Ok(Place { address, gateway: addresses.gateway, ipv6, mac: link.mac })
}

/// The first address of [`CARRIED_LINK`] that counts everywhere, in the kernel's list of IPv6 addresses.
fn global_ipv6(text: &str) -> Option<Ipv6Net> {
    const GLOBAL: &str = "00";
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, prefix, GLOBAL, _, CARRIED_LINK] = fields[..] else { return None };
        let address = u128::from_str_radix(address, 16).ok()?;
        Some(Ipv6Net::new(address.into(), u8::from_str_radix(prefix, 16).ok()?))
    })
}

/// The address by which what this host offers is reached from such a namespace: its own, towards the outside.
pub fn host_address() -> Option<IpAddr> {
    let mut netlink = Netlink::route().ok()?;
    let link = links::default_link(&links::routes(&mut netlink).ok()?)?;
    links::addresses(&mut netlink).ok()?.into_iter().find(|(index, _)| *index == link).map(|(_, net)| net.address.into())
}

/// Why an ordinary user has no network of their own here.
pub fn no_program(wanted: Option<Carrier>) -> Unavailable {
    match wanted {
        Some(carrier) => Unavailable {
            reason: format!("`{}` is not in the PATH", carrier.name()),
            hint: format!("install it (`apt-get install {}`), or use `--network=host`", carrier.package()),
        },
        None => Unavailable {
            reason: "the host's network cannot be changed without root, and neither pasta nor slirp4netns is in the PATH".to_owned(),
            hint: "run as root, install one of them (`apt-get install passt`), or use `--network=host`".to_owned(),
        },
    }
}

/// Whether programs are of use to this process: it is root of a user namespace only.
pub fn is_for_us() -> bool {
    !crate::sys::privilege::in_initial_user_namespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_the_order_of_their_worth_and_only_where_they_can_be_executed() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| dir.path().join(name));
        std::fs::create_dir_all(&first).unwrap();
        std::fs::create_dir_all(&second).unwrap();
        let put = |path: PathBuf, mode| {
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        put(first.join("slirp4netns"), 0o755);
        put(first.join("pasta"), 0o644);
        put(second.join("pasta"), 0o755);
        let names = |dirs: &[PathBuf]| Program::find(dirs).into_iter().map(|program| program.path).collect::<Vec<_>>();
        assert_eq!(names(&[first.clone(), second.clone()]), [second.join("pasta"), first.join("slirp4netns")]);
        assert_eq!(names(&[PathBuf::from("relative")]), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_address_that_counts_is_told_from_those_of_the_link() {
        let text = "00000000000000000000000000000001 01 80 10 80       lo\n\
                    fe800000000000000000000000000001 02 40 20 80     eth0\n\
                    20010db8000000000000000000000002 02 40 00 80     eth0\n";
        assert_eq!(global_ipv6(text).unwrap().to_string(), "2001:db8::2/64");
        assert_eq!(global_ipv6(""), None);
    }
}
