//! Datagrams of UDP: who sends one to a published port gets a socket of its own towards the container, by which the answers find back. A socket that is silent for a
//! while is closed.
//!
//! An answer leaves from the address that the question was sent to: a client takes none from another.

use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};

use super::inside::Reach;
use super::poller::{Poller, Token, Watched};

/// How long a conversation may be silent.
const SILENCE: Duration = Duration::from_secs(90);
/// How many conversations there may be; beyond that the one that is silent longest goes.
const MAX_SESSIONS: usize = 1024;
/// How many datagrams are taken before it is somebody else's turn.
const TURNS: usize = 64;

/// Asks for the address that each datagram was sent to.
pub(super) fn prepare(socket: impl AsFd, is_v6: bool) -> nix::Result<()> {
    match is_v6 {
        false => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true),
        true => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true),
    }
}

/// One conversation: who sends, to which listener, to which address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Peer {
    listener: u32,
    from: SocketAddr,
    local: Option<IpAddr>,
}

#[derive(Debug)]
struct Session {
    peer: Peer,
    socket: Watched<UdpSocket>,
    heard: Instant,
}

/// All conversations.
#[derive(Debug)]
pub(super) struct Sessions {
    kind: u8,
    by_peer: HashMap<Peer, u32>,
    sessions: HashMap<u32, Session>,
    next: u32,
}

impl Sessions {
    /// None; the sockets of conversations will have tokens of that kind.
    pub(super) fn new(kind: u8) -> Sessions {
        Sessions { kind, by_peer: HashMap::new(), sessions: HashMap::new(), next: 0 }
    }

    /// Passes on what has come to a published port.
    pub(super) fn incoming(
        &mut self,
        (listener, socket): (u32, &OwnedFd),
        (reach, to): (&Reach, Option<SocketAddr>),
        buffer: &mut [u8],
        poller: &Poller,
    ) {
        for _ in 0..TURNS {
            let Ok((length, from, local)) = receive(socket, buffer) else { return };
            let (Some(from), Some(to)) = (from, to) else { continue };
            let Some(session) = self.session(Peer { listener, from, local }, (reach, to), poller) else { continue };
            session.heard = Instant::now();
            // A datagram may get lost.
            let _ = session.socket.io.send(&buffer[..length]);
        }
    }

    fn session(&mut self, peer: Peer, (reach, to): (&Reach, SocketAddr), poller: &Poller) -> Option<&mut Session> {
        if let Some(id) = self.by_peer.get(&peer) {
            return self.sessions.get_mut(id);
        }
        if self.sessions.len() >= MAX_SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.heard).map(|(id, _)| *id)?;
            self.close(oldest);
        }
        let socket = UdpSocket::from(reach.socket(to, false).ok()?);
        socket.connect(to).ok()?;
        while self.sessions.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        let socket = Watched::reading(socket, Token::new(self.kind, id), poller).ok()?;
        self.by_peer.insert(peer, id);
        self.sessions.insert(id, Session { peer, socket, heard: Instant::now() });
        self.sessions.get_mut(&id)
    }

    /// Passes on what the container answers. Gives the listener that it leaves by to `listener_of`.
    pub(super) fn outgoing<'a>(&mut self, id: u32, buffer: &mut [u8], listener_of: impl Fn(u32) -> Option<&'a OwnedFd>) {
        for _ in 0..TURNS {
            let Some(session) = self.sessions.get_mut(&id) else { return };
            match session.socket.io.recv(buffer) {
                Ok(length) => {
                    session.heard = Instant::now();
                    if let Some(socket) = listener_of(session.peer.listener) {
                        let _ = answer(socket, &buffer[..length], session.peer);
                    }
                }
                // Nobody listens there yet: the next datagram may find somebody.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    }

    /// Closes what has been silent for long, and says when to look again.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Duration> {
        let silent: Vec<u32> =
            self.sessions.iter().filter(|(_, session)| now.duration_since(session.heard) >= SILENCE).map(|(id, _)| *id).collect();
        silent.into_iter().for_each(|id| self.close(id));
        let oldest = self.sessions.values().map(|session| session.heard).min()?;
        Some((oldest + SILENCE).saturating_duration_since(now).max(Duration::from_secs(1)))
    }

    /// Closes everything: the container has another address.
    pub(super) fn clear(&mut self) {
        self.by_peer.clear();
        self.sessions.clear();
    }

    fn close(&mut self, id: u32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.by_peer.remove(&session.peer);
        }
    }
}

/// A datagram: how long it is, who sent it, and to which address.
fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> nix::Result<(usize, Option<SocketAddr>, Option<IpAddr>)> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::MSG_DONTWAIT)?;
    let local = message.cmsgs().ok().and_then(|mut parts| {
        parts.find_map(|part| match part {
            ControlMessageOwned::Ipv4PacketInfo(info) => Some(IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)))),
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::V6(info.ipi6_addr.s6_addr.into())),
            _ => None,
        })
    });
    let from = message.address.and_then(|address| match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(SocketAddr::from(std::net::SocketAddrV4::from(*v4))),
        (_, Some(v6)) => Some(SocketAddr::from(std::net::SocketAddrV6::from(*v6))),
        _ => None,
    });
    Ok((message.bytes, from, local))
}

fn answer(socket: &OwnedFd, bytes: &[u8], peer: Peer) -> nix::Result<usize> {
    let slices = [IoSlice::new(bytes)];
    let fd = socket.as_raw_fd();
    match (peer.from, peer.local) {
        (SocketAddr::V4(to), Some(IpAddr::V4(local))) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from(local).to_be() },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            sendmsg(fd, &slices, &[ControlMessage::Ipv4PacketInfo(&info)], MsgFlags::MSG_DONTWAIT, Some(&SockaddrIn::from(to)))
        }
        (SocketAddr::V6(to), Some(IpAddr::V6(local))) => {
            // Addresses of a link need to know it, and the sender's says which.
            let index = if local.is_unicast_link_local() { to.scope_id() } else { 0 };
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: index };
            sendmsg(fd, &slices, &[ControlMessage::Ipv6PacketInfo(&info)], MsgFlags::MSG_DONTWAIT, Some(&SockaddrIn6::from(to)))
        }
        (SocketAddr::V4(to), _) => sendmsg(fd, &slices, &[], MsgFlags::MSG_DONTWAIT, Some(&SockaddrIn::from(to))),
        (SocketAddr::V6(to), _) => sendmsg(fd, &slices, &[], MsgFlags::MSG_DONTWAIT, Some(&SockaddrIn6::from(to))),
    }
}
