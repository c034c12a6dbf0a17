//! The process that is in the namespace of a container whose packets a program carries: it hands out sockets of that namespace.
//!
//! Who has left the host's network namespace without being root there cannot come back, so that the service does not go in: it has somebody there. This is also the
//! first process of a PID namespace, of which all that the service starts afterwards is part. When the service ends, its end of the socket closes, this process ends,
//! and the kernel ends the rest.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socket_with, socketpair};
use serde::{Deserialize, Serialize};

use super::run::dns_sockets;
use crate::runtime::network::netns::{apply_settings, own_netns};
use crate::runtime::network::userspace::{Addresses, Place, look};
use crate::runtime::network::{Error, Ipv4Net};
use crate::runtime::wire;
use crate::sys::netlink::Netlink;
use crate::sys::process::{Cloned, bring_loopback_up, clone_process, close_from, exit_now, unshare};
use crate::sys::signals;

/// Longer than any of its messages.
const MAX_MESSAGE: usize = 4096;
/// How long the link of an earlier program may take to go.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is wanted of it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Wish {
    /// The namespace.
    Namespace,
    /// A socket that nothing is bound to.
    Socket { v6: bool, stream: bool },
    /// The sockets of a DNS server in the namespace that comes along: for datagrams, and for connections.
    Dns,
    /// A socket that tells of changes of links.
    Watch,
    /// What the namespace has got.
    Look { own: Ipv4Net, gateway: std::net::Ipv4Addr },
}

/// What it says, with the descriptors that were wanted.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done,
    Place(Place),
    Failed { errno: i32, text: String },
}

/// The process, for as long as this is held.
#[derive(Debug)]
pub(in crate::runtime::network) struct Inside {
    socket: OwnedFd,
}

impl Inside {
    /// Makes a network namespace, or enters the one that is `there`, and the process in it. What this process starts from here on ends with that one. The process has
    /// one thread.
    pub(in crate::runtime::network) fn begin(there: Option<BorrowedFd<'_>>) -> Result<Inside, Error> {
        let step = || Error::kernel(if there.is_some() { "enter a network namespace" } else { "make a network namespace" });
        unshare(libc::CLONE_NEWPID).map_err(step())?;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(|errno| step()(errno.into()))?;
        let new = if there.is_some() { 0 } else { libc::CLONE_NEWNET as u64 };
        match clone_process(new, None).map_err(step())? {
            Cloned::Child => {
                drop(ours);
                let _ = rustix::thread::set_name(c"strake-inside");
                // Orphans of the namespace are its children; nobody wants to know how they ended.
                let _ = signals::ignore(nix::sys::signal::Signal::SIGCHLD);
                match there {
                    // One that cannot enter does not serve, which is how the other side hears of it.
                    Some(netns) if setns(netns, CloneFlags::CLONE_NEWNET).is_err() => exit_now(1),
                    // The container has made its own settings since.
                    Some(_) => {}
                    None => {
                        let _ = bring_loopback_up();
                        apply_settings();
                    }
                }
                let _ = close_from(3, &[theirs.as_fd()]);
                serve(&theirs);
                exit_now(0)
            }
            Cloned::Parent { .. } => Ok(Inside { socket: ours }),
        }
    }

    fn ask(&self, wish: Wish) -> io::Result<(Answer, Vec<OwnedFd>)> {
        self.ask_about(wish, &[])
    }

    fn ask_about(&self, wish: Wish, what: &[BorrowedFd<'_>]) -> io::Result<(Answer, Vec<OwnedFd>)> {
        wire::send(self.socket.as_fd(), &serde_json::to_vec(&wish)?, what)?;
        let (message, descriptors) = wire::receive(self.socket.as_fd(), MAX_MESSAGE)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        match serde_json::from_slice(&message)? {
            Answer::Failed { errno: 0, text } => Err(io::Error::other(text)),
            Answer::Failed { errno, .. } => Err(io::Error::from_raw_os_error(errno)),
            answer => Ok((answer, descriptors)),
        }
    }

    fn descriptor(&self, wish: Wish) -> io::Result<OwnedFd> {
        self.ask(wish)?.1.pop().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The namespace, for `setns(2)`.
    pub(in crate::runtime::network) fn namespace(&self) -> io::Result<OwnedFd> {
        self.descriptor(Wish::Namespace)
    }

    /// What the namespace has got.
    pub(super) fn look(&self, addresses: Addresses) -> io::Result<Place> {
        match self.ask(Wish::Look { own: addresses.own, gateway: addresses.gateway })?.0 {
            Answer::Place(place) => Ok(place),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// A socket that becomes readable when the links of the namespace change.
    pub(in crate::runtime::network) fn watch(&self) -> io::Result<OwnedFd> {
        self.descriptor(Wish::Watch)
    }

    /// Whether there is a program's link.
    pub(in crate::runtime::network) fn is_carried(&self, addresses: Addresses) -> bool {
        match self.look(addresses) {
            Err(error) => error.raw_os_error() != Some(libc::ENODEV) && error.kind() != io::ErrorKind::UnexpectedEof,
            Ok(_) => true,
        }
    }

    /// Waits until the link of an earlier program, which was killed, has gone.
    pub(super) fn wait_for_room(&self, addresses: Addresses) {
        let begun = Instant::now();
        while self.is_carried(addresses) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The sockets of a DNS server in the namespace `of`.
    pub(super) fn dns_sockets(&self, of: BorrowedFd<'_>) -> io::Result<(std::net::UdpSocket, std::net::TcpListener)> {
        let [datagrams, listener] =
            <[OwnedFd; 2]>::try_from(self.ask_about(Wish::Dns, &[of])?.1).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok((datagrams.into(), listener.into()))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
        // Its end waits for that of all in its PID namespace, and some of them are to be reaped here as well: this process has no other children.
        while !matches!(nix::sys::wait::wait(), Err(nix::errno::Errno::ECHILD)) {}
    }
}

/// From where the service speaks to a container.
#[derive(Debug)]
pub(super) enum Reach {
    /// From the host's namespace, over the bridge.
    Bridge,
    /// From the container's own.
    Inside(Inside),
}

impl Reach {
    /// A socket towards `to`: of a connection, or for datagrams.
    pub(super) fn socket(&self, to: SocketAddr, stream: bool) -> io::Result<OwnedFd> {
        match self {
            Reach::Bridge => Ok(open(to.is_ipv6(), stream)?),
            Reach::Inside(inside) => inside.descriptor(Wish::Socket { v6: to.is_ipv6(), stream }),
        }
    }
}

fn open(v6: bool, stream: bool) -> Result<OwnedFd, Errno> {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let kind = if stream { SocketType::STREAM } else { SocketType::DGRAM };
    socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// Answers until the service is gone.
fn serve(socket: &OwnedFd) {
    while let Ok(Some((message, about))) = wire::receive(socket.as_fd(), MAX_MESSAGE) {
        let Ok(wish) = serde_json::from_slice(&message) else { return };
        let (answer, descriptors) = grant(wish, about)
            .unwrap_or_else(|error| (Answer::Failed { errno: error.raw_os_error().unwrap_or(0), text: error.to_string() }, Vec::new()));
        let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        let Ok(message) = serde_json::to_vec(&answer) else { return };
        if wire::send(socket.as_fd(), &message, &borrowed).is_err() {
            return;
        }
    }
}

fn grant(wish: Wish, mut about: Vec<OwnedFd>) -> io::Result<(Answer, Vec<OwnedFd>)> {
    Ok(match wish {
        Wish::Namespace => (Answer::Done, vec![own_netns().map_err(io::Error::other)?]),
        Wish::Socket { v6, stream } => (Answer::Done, vec![open(v6, stream)?]),
        Wish::Dns => {
            let (of, own) = (about.pop().ok_or(io::ErrorKind::InvalidData)?, own_netns().map_err(io::Error::other)?);
            setns(of, CloneFlags::CLONE_NEWNET)?;
            let sockets = dns_sockets();
            setns(own, CloneFlags::CLONE_NEWNET)?;
            let (datagrams, listener) = sockets?;
            (Answer::Done, vec![datagrams.into(), listener.into()])
        }
        Wish::Watch => (Answer::Done, vec![Netlink::watch_links()?]),
        Wish::Look { own, gateway } => (Answer::Place(look(Addresses { own, gateway })?), Vec::new()),
    })
}
