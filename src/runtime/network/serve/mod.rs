//! The process that serves a container's published ports and names: a copy of its supervisor, with nothing of that but a socket between the two.
//!
//! ```text
//!   supervisor                    service (one thread)                       container's network namespace
//!     |-- clone ------------------->| takes the ports, makes the tables
//!     |<- Report -------------------|------------------- sockets of 127.0.0.11 -->|
//!     |-- Settings (networks) ----->|
//!     |   (socket closes: exit)     |<== connections ========================>| ports
//! ```
//!
//! It stays in the host's network namespace, where the ports and the other DNS servers are, and reaches the container over the bridge. It ends with the supervisor,
//! however that ends, and with it its ports, its tables and its sockets.

mod datagrams;
mod dns;
mod message;
mod poller;
mod relay;
mod run;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use serde::{Deserialize, Serialize};

use super::Error;
use super::ports::{BoundPort, PortRequest};
use super::publish::Target;
use crate::sys::process::{Cloned, clone_process, close_from, exit_now, reap, signal_pidfd};

/// Where a container finds its DNS server.
pub const DNS_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 11);

/// The longest message between the two.
const MAX_MESSAGE: usize = 128 << 10;

/// What may change while a container runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where published ports lead.
    pub target: Option<Target>,
    /// Whether packets from outside may be led there by the packet filter.
    pub direct: bool,
    /// The networks whose names count, and their run directories; with none there is no DNS server.
    pub directories: Vec<(String, PathBuf)>,
    /// The servers that know all other names.
    pub dns_servers: Vec<IpAddr>,
}

/// What does not.
#[derive(Clone, Debug)]
pub struct ServiceRequest<'a> {
    /// The container's ID.
    pub container: &'a str,
    /// The ports that it publishes.
    pub ports: &'a [PortRequest],
    /// Where those are that name no address; `None` is everywhere.
    pub publish_at: Option<IpAddr>,
    /// The container's network namespace.
    pub netns: BorrowedFd<'a>,
}

/// What the service says.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Report {
    Ready(Vec<BoundPort>),
    Port { port: String, reason: String },
    Failed(String),
}

/// The service of a running container. Dropping it ends it.
#[derive(Debug)]
pub struct Service {
    control: OwnedFd,
    pid: u32,
    pidfd: OwnedFd,
    ports: Vec<BoundPort>,
}

impl Service {
    /// Starts it, and returns when the ports are taken. The caller has a single thread.
    ///
    /// # Errors
    /// A port cannot be had ([`Error::Port`]).
    pub fn start(request: &ServiceRequest<'_>, settings: &Settings) -> Result<Service, Error> {
        let failed = |errno: rustix::io::Errno| Error::kernel("make a pair of sockets")(errno.into());
        let (control, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(failed)?;
        match clone_process(0, None).map_err(Error::kernel("start the process that serves ports and names"))? {
            Cloned::Child => {
                drop(control);
                let _ = close_from(3, &[theirs.as_fd(), request.netns]);
                let _ = rustix::thread::set_name(c"strake-net");
                run::run(request, settings, &theirs);
                exit_now(0)
            }
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                let mut service = Service { control, pid, pidfd, ports: Vec::new() };
                service.ports = service.hear()?;
                Ok(service)
            }
        }
    }

    /// The ports that it has taken.
    pub fn ports(&self) -> &[BoundPort] {
        &self.ports
    }

    /// Tells it what has changed, and returns when it has taken that in.
    pub fn update(&self, settings: &Settings) -> Result<(), Error> {
        tell(&self.control, settings).map_err(|_| Error::ServiceEnded)?;
        self.hear().map(drop)
    }

    fn hear(&self) -> Result<Vec<BoundPort>, Error> {
        match listen(&self.control) {
            Ok(Some(Report::Ready(ports))) => Ok(ports),
            Ok(Some(Report::Port { port, reason })) => Err(Error::Port { port, reason }),
            Ok(Some(Report::Failed(reason))) => {
                Err(Error::Kernel { step: "serve the container's ports and names".to_owned(), source: std::io::Error::other(reason) })
            }
            Ok(None) | Err(_) => Err(Error::ServiceEnded),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has nothing to tidy up that the kernel does not.
        let _ = signal_pidfd(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = reap(self.pid);
    }
}

fn tell(socket: impl AsFd, message: &impl Serialize) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    rustix::io::retry_on_intr(|| send(&socket, &bytes, SendFlags::NOSIGNAL))?;
    Ok(())
}

/// The next message; `None` at the end.
fn listen<T: serde::de::DeserializeOwned>(socket: impl AsFd) -> std::io::Result<Option<T>> {
    let mut buffer = vec![0; MAX_MESSAGE];
    let (length, _) = rustix::io::retry_on_intr(|| recv(&socket, &mut buffer[..], RecvFlags::empty()))?;
    match length {
        0 => Ok(None),
        length => Ok(Some(serde_json::from_slice(&buffer[..length])?)),
    }
}
