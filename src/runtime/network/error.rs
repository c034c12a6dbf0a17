//! What can go wrong with a private network, and the one case that callers treat as an answer: the host cannot have one.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why this host cannot give processes a network of their own. The caller uses the host's network instead and says so once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    /// What is missing or in the way.
    pub reason: String,
    /// What to do about it.
    pub hint: String,
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.reason)
    }
}

/// A failure of the network part.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host cannot have private networks.
    #[error("private networks are not available: {0}")]
    Unavailable(Unavailable),
    /// The kernel refused one step of the set-up.
    #[error("cannot {step}")]
    Kernel {
        /// What was being done, as `make the bridge strake0`.
        step: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file of the run directory could not be used.
    #[error("cannot {verb} `{}`", path.display())]
    File {
        /// What was being done.
        verb: &'static str,
        /// To which file.
        path: PathBuf,
        /// What stopped it.
        source: io::Error,
    },
    /// Every candidate overlaps a network of the host.
    #[error("no free private subnet: every candidate overlaps a route or an address of this host")]
    NoSubnet,
    /// All addresses are in use.
    #[error("all addresses of {subnet} are in use")]
    Exhausted {
        /// The subnet of the bridge.
        subnet: String,
    },
    /// Somebody has the address that was asked for.
    #[error("the address {address} is in use")]
    Taken {
        /// The address.
        address: std::net::IpAddr,
    },
    /// The address that was asked for cannot be had in that network.
    #[error("the network `{network}` cannot give the address {address}: {reason}")]
    Address {
        /// The network.
        network: String,
        /// The address.
        address: std::net::IpAddr,
        /// Why not.
        reason: String,
    },
    /// The container has a link of the name that its link of the network was to have.
    #[error("cannot connect with the network `{network}`: the container has another link of the name `{link}`")]
    LinkTaken {
        /// The network.
        network: String,
        /// The name.
        link: String,
    },
    /// The host has something in the network's subnet.
    #[error("the subnet {subnet} of the network `{network}` overlaps {other}, which this host has at `{link}`")]
    Overlap {
        /// The network.
        network: String,
        /// Its subnet.
        subnet: String,
        /// What is in the way.
        other: String,
        /// The link that it is at.
        link: String,
    },
    /// The bridge's name is that of a link of another program.
    #[error("the link `{link}` of this host is not the bridge of the network `{network}`")]
    ForeignLink {
        /// The link.
        link: String,
        /// The network.
        network: String,
    },
    /// A port of the host cannot be had.
    #[error("cannot publish the port {port}: {reason}")]
    Port {
        /// The port, as `0.0.0.0:8080 (tcp)`.
        port: String,
        /// Why not.
        reason: String,
        /// What to do about it.
        hint: String,
    },
    /// The program that was to carry a container's packets cannot.
    #[error("`{program}` cannot connect the container with the host's network: {words}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What it says.
        words: String,
    },
    /// The process that serves ports and names is gone.
    #[error("the process that serves the container's ports and names ended early")]
    ServiceEnded,
    /// What a process in another network namespace could not do.
    #[error("{message}")]
    Told {
        /// The failure and its causes, joined.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
    /// A worker of the pool is gone.
    #[error("the thread that makes network namespaces ended early")]
    PoolEnded,
}

impl Error {
    /// A namespace that was made cannot be passed on.
    pub fn namespace(source: io::Error) -> Error {
        Error::Kernel { step: "pass a network namespace on".to_owned(), source }
    }

    /// What to do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Unavailable(why) => Some(why.hint.clone()),
            Error::NoSubnet => Some("use the host's network with `--network=host`".to_owned()),
            Error::Port { hint, .. } => Some(hint.clone()),
            Error::Told { hint, .. } => hint.clone(),
            Error::Program { .. } => Some("use the host's network with `--network=host`, or none with `--network=none`".to_owned()),
            Error::Overlap { .. } => Some("make the network again with another `--subnet`".to_owned()),
            Error::LinkTaken { .. } => Some("name another with the option `com.docker.network.endpoint.ifname`".to_owned()),
            Error::ForeignLink { .. } => Some("name another with `-o com.docker.network.bridge.name=`".to_owned()),
            _ => None,
        }
    }

    /// Wraps a refusal of the kernel. Refusals that mean "this host cannot do it at all" become [`Error::Unavailable`].
    pub(super) fn kernel(step: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        use rustix::io::Errno;
        let step = step.into();
        move |source| match Errno::from_io_error(&source) {
            Some(Errno::PERM | Errno::ACCESS) => Error::Unavailable(Unavailable {
                reason: format!("not permitted to {step}"),
                hint: "run as root with CAP_NET_ADMIN and CAP_SYS_ADMIN, or use `--network=host`".to_owned(),
            }),
            Some(Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT | Errno::NOSYS) => Error::Unavailable(Unavailable {
                reason: format!("this kernel cannot {step}"),
                hint: "load the kernel modules bridge, veth and nf_tables (with nft_masq), or use `--network=host`".to_owned(),
            }),
            _ => Error::Kernel { step, source },
        }
    }

    pub(super) fn file(verb: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Error {
        let path = path.to_owned();
        move |source| Error::File { verb, path, source }
    }
}
