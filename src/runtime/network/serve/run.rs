//! The life of the service: it takes the ports, then waits for everything at once, until the supervisor or the program that carries the container's packets is gone.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::super::names::Directory;
use super::super::ports::{self, BoundPort, Listener, Protocol};
use super::super::publish::{PortTables, redirect_dns};
use super::datagrams::{self, Sessions};
use super::dns::{self, Kinds, Turn};
use super::inside::{Inside, Reach};
use super::poller::{Interest, Poller, Token, Watched};
use super::relay::Relay;
use super::{Behind, DNS_ADDRESS, Report, ServiceRequest, Settings, listen, tell};
use crate::runtime::network::netns::own_netns;
use crate::runtime::network::userspace::{self, Addresses, Starting};
use crate::runtime::network::{Error, Place, Target, Unavailable};
use crate::sys::netlink::Netlink;

const CONTROL: u8 = 0;
const PORT: u8 = 1;
const RELAY: u8 = 2;
const SESSION: u8 = 3;
const DNS: Kinds = Kinds { datagrams: 4, listener: 5, passed: 6, client: 7 };
const LINKS: u8 = 8;

/// How much is passed on at once, in bytes.
const BUFFER: usize = 64 << 10;
/// Connections that are taken before it is somebody else's turn.
const TURNS: usize = 64;

/// Serves until the supervisor or the program is gone.
pub(super) fn run(request: &ServiceRequest<'_>, settings: &Settings, control: &OwnedFd) {
    if let Ok(null) = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty()) {
        // Whoever waits for the supervisor's word does not wait for ours.
        let _ = rustix::stdio::dup2_stdin(&null).and_then(|()| rustix::stdio::dup2_stdout(&null));
    }
    // Every connection takes two descriptors.
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let mut work = match Work::begin(request, control) {
        Ok(work) => work,
        Err(error) => return drop(tell(control, &failure(error), None)),
    };
    // While the program gets ready the rest is made.
    let report = match work.apply(settings) {
        Report::Ready { .. } => work.connect(&request.behind).unwrap_or_else(failure),
        failed => failed,
    };
    let namespace = work.place.as_ref().map(|_| &work.netns);
    if tell(control, &report, namespace).is_ok() {
        work.serve(control);
    }
}

fn failure(error: Error) -> Report {
    match error {
        Error::Port { port, reason, hint } => Report::Port { port, reason, hint },
        Error::Program { program, words } => Report::Program { program: program.to_owned(), words },
        Error::Unavailable(Unavailable { reason, hint }) => Report::Unavailable { reason, hint },
        other => {
            let source = std::error::Error::source(&other).map_or_else(String::new, |source| format!(": {source}"));
            Report::Failed(format!("{other}{source}"))
        }
    }
}

/// All that is served.
struct Work {
    poller: Poller,
    _control: Watched<OwnedFd>,
    netns: OwnedFd,
    reach: Reach,
    starting: Option<(Starting, Addresses)>,
    place: Option<Place>,
    /// Tells of changes of the container's links, where one of them is a program's.
    links: Option<Watched<OwnedFd>>,
    ports: Vec<(BoundPort, Watched<OwnedFd>)>,
    tables: Option<PortTables>,
    settings: Settings,
    relays: HashMap<u32, Relay>,
    next: u32,
    sessions: Sessions,
    dns: Option<dns::Server>,
    buffer: Vec<u8>,
}

impl Work {
    fn begin(request: &ServiceRequest<'_>, control: &OwnedFd) -> Result<Work, Error> {
        let failed = || Error::kernel("wait for connections");
        let poller = Poller::new().map_err(failed())?;
        let by_rules = matches!(request.behind, Behind::Bridge { common: None, .. });
        if let Some(port) = request.ports.iter().find(|port| port.protocol == Protocol::Sctp && !by_rules) {
            return Err(Error::Port {
                port: format!("{} (sctp)", port.container_port),
                reason: "without root only TCP and UDP are passed on".to_owned(),
                hint: "publish it as root, whose packet filter leads it to the container".to_owned(),
            });
        }
        let listeners = ports::take_all(request.ports, request.publish_at)?;
        let mut ports = Vec::new();
        for (index, Listener { port, socket }) in listeners.into_iter().enumerate() {
            if port.protocol == Protocol::Udp {
                datagrams::prepare(&socket, port.host_ip.is_ipv6()).map_err(|errno| failed()(errno.into()))?;
            }
            let token = Token::new(PORT, u32::try_from(index).unwrap_or(u32::MAX));
            ports.push((port, Watched::reading(socket, token, &poller).map_err(failed())?));
        }
        let watched = Watched::reading(control.try_clone().map_err(failed())?, Token::new(CONTROL, 0), &poller).map_err(failed())?;
        let (mut starting, mut tables) = (None, None);
        let (netns, reach) = match &request.behind {
            Behind::Bridge { container, common: Some(common) } => {
                let inside = Inside::begin(Some(*common))?;
                (container.try_clone_to_owned().map_err(failed())?, Reach::Inside(inside))
            }
            Behind::Bridge { container, common: None } => {
                if !ports.is_empty() {
                    // A kernel that cannot have tables of this kind has the process alone.
                    tables = PortTables::new(request.container).ok();
                }
                (container.try_clone_to_owned().map_err(failed())?, Reach::Bridge)
            }
            Behind::Program { wanted, again } => {
                let inside = Inside::begin(again.map(|(netns, _)| netns))?;
                let namespace = inside.namespace().map_err(Error::namespace)?;
                userspace::bind(&namespace)?;
                let addresses = match again {
                    Some((_, place)) => {
                        let before = Addresses::of(place);
                        inside.wait_for_room(before);
                        before
                    }
                    None => Addresses::choose()?,
                };
                let program = wanted.programs.first().ok_or(Error::ServiceEnded)?;
                starting = Some((Starting::new(program, addresses, wanted.mac)?, addresses));
                (namespace, Reach::Inside(inside))
            }
        };
        Ok(Work {
            poller,
            _control: watched,
            netns,
            reach,
            starting,
            place: None,
            links: None,
            ports,
            tables,
            settings: Settings::default(),
            relays: HashMap::new(),
            next: 0,
            sessions: Sessions::new(SESSION),
            dns: None,
            buffer: vec![0; BUFFER],
        })
    }

    /// Takes new settings in.
    fn apply(&mut self, settings: &Settings) -> Report {
        if self.settings.target != settings.target {
            self.sessions.clear();
        }
        self.settings = settings.clone();
        // Where the container is known here only.
        self.settings.target = settings.target.clone().or_else(|| self.place.as_ref().map(target));
        let ports: Vec<BoundPort> = self.ports.iter().map(|(port, _)| *port).collect();
        if let Some(tables) = &mut self.tables {
            let target = settings.target.as_ref().filter(|_| settings.direct);
            if let Err(error) = tables.set(&ports, target) {
                tracing::debug!(%error, "packets from outside go through the process");
            }
        }
        if settings.names && self.dns.is_none() {
            match self.open_dns() {
                Ok(server) => self.dns = Some(server),
                Err(error) => return failure(error),
            }
        }
        if let Some(dns) = &mut self.dns {
            let directories: Result<Vec<Directory>, Error> =
                settings.directories.iter().map(|(network, run_dir)| Directory::new(network, run_dir)).collect();
            match directories {
                Ok(directories) => dns.set(directories, settings.dns_servers.clone()),
                Err(error) => return failure(error),
            }
        }
        Report::Ready { ports, place: self.place.clone() }
    }

    /// Waits until the program carries packets, where there is one; where it cannot, the next one is tried.
    fn connect(&mut self, behind: &Behind<'_>) -> Result<Report, Error> {
        let ports = self.ports.iter().map(|(port, _)| *port).collect();
        let (Some((starting, addresses)), Behind::Program { wanted, .. }) = (self.starting.take(), behind) else {
            return Ok(Report::Ready { ports, place: None });
        };
        let mut outcome = starting.wait();
        for program in wanted.programs.iter().skip(1) {
            if outcome.is_err() {
                // What the first one said counts where none can do it.
                outcome = Starting::new(program, addresses, wanted.mac).and_then(Starting::wait).or(outcome);
            }
        }
        outcome?;
        if let Reach::Inside(inside) = &self.reach {
            let looked = || Error::kernel("look at the container's link");
            let links = Watched::reading(inside.watch().map_err(looked())?, Token::new(LINKS, 0), &self.poller);
            self.links = Some(links.map_err(looked())?);
            let place = inside.look(addresses).map_err(looked())?;
            self.settings.target = Some(target(&place));
            self.place = Some(place);
        }
        Ok(Report::Ready { ports, place: self.place.clone() })
    }

    /// Makes the DNS server's sockets, which are the container's.
    fn open_dns(&self) -> Result<dns::Server, Error> {
        let enter = |netns: &OwnedFd| {
            setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| Error::kernel("enter a network namespace")(errno.into()))
        };
        let listening = || Error::kernel(format!("listen at {DNS_ADDRESS}"));
        let (datagrams, listener) = match &self.reach {
            Reach::Inside(inside) => inside.dns_sockets(self.netns.as_fd()).map_err(listening())?,
            Reach::Bridge => {
                let own = own_netns()?;
                enter(&self.netns)?;
                let sockets = dns_sockets().map_err(listening());
                enter(&own)?;
                sockets?
            }
        };
        dns::Server::new(datagrams, listener, DNS, &self.poller).map_err(Error::kernel("wait for questions"))
    }

    fn serve(&mut self, control: &OwnedFd) {
        loop {
            let now = Instant::now();
            let waits = [self.sessions.expire(now), self.dns.as_mut().and_then(|dns| dns.expire(now, &self.poller))];
            let timeout: Option<Duration> = waits.into_iter().flatten().min();
            for (token, events) in self.poller.wait(timeout) {
                if token.kind == CONTROL {
                    let Ok(Some(settings)) = listen::<Settings>(control) else { return };
                    let report = self.apply(&settings);
                    if tell(control, &report, None).is_err() {
                        return;
                    }
                } else if token.kind == LINKS {
                    if self.program_has_ended() {
                        return;
                    }
                } else {
                    self.on_event(token, events);
                }
            }
        }
    }

    /// Whether the program has ended, now that some link has changed: its own goes with it.
    fn program_has_ended(&mut self) -> bool {
        let (Some(links), Some(place), Reach::Inside(inside)) = (&self.links, &self.place, &self.reach) else { return false };
        // What is told is not read: how the links are now is what counts.
        while rustix::net::recv(&links.io, &mut self.buffer[..], rustix::net::RecvFlags::empty()).is_ok() {}
        !inside.is_carried(Addresses::of(place))
    }

    fn on_event(&mut self, token: Token, events: Interest) {
        let dns = self.dns.as_mut();
        match token.kind {
            PORT => self.on_port(token.id),
            RELAY => {
                let Some(relay) = self.relays.get_mut(&token.id) else { return };
                if !relay.advance(token.side, events, &mut self.buffer, &self.poller) {
                    self.relays.remove(&token.id);
                }
            }
            SESSION => {
                let ports = &self.ports;
                let listener = |index: u32| ports.get(index as usize).map(|(_, socket)| &socket.io);
                self.sessions.outgoing(token.id, &mut self.buffer, listener);
            }
            kind if kind == DNS.datagrams => dns.into_iter().for_each(|dns| dns.on_datagrams(&mut self.buffer, &self.poller)),
            kind if kind == DNS.listener => dns.into_iter().for_each(|dns| dns.on_connection(&self.poller)),
            kind if kind == DNS.passed => dns.into_iter().for_each(|dns| dns.on_answer(token.id, &mut self.buffer, &self.poller)),
            kind if kind == DNS.client => {
                let turn = dns.map(|dns| dns.on_client(token.id, &mut self.buffer, &self.poller));
                if let Some(Turn::Passes(client, server, first)) = turn {
                    // Other servers are asked from the host's namespace.
                    if let Ok(socket) = Reach::Bridge.socket(server, true) {
                        self.relay(client, socket, server, first);
                    }
                }
            }
            _ => {}
        }
    }

    /// Takes what has come to a published port.
    fn on_port(&mut self, index: u32) {
        let Some((port, socket)) = self.ports.get(index as usize) else { return };
        let to = address(&self.settings, port);
        if port.protocol == Protocol::Sctp {
            return;
        }
        if port.protocol == Protocol::Udp {
            self.sessions.incoming((index, &socket.io), (&self.reach, to), &mut self.buffer, &self.poller);
            return;
        }
        let mut clients = Vec::new();
        for _ in 0..TURNS {
            match rustix::net::accept_with(&socket.io, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(client) => clients.push(client),
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(Errno::MFILE | Errno::NFILE) => {
                    // It will be told again at once: somebody has to go first.
                    std::thread::sleep(Duration::from_millis(5));
                    break;
                }
                Err(_) => break,
            }
        }
        for client in clients {
            if let Some((to, server)) = to.and_then(|to| Some((to, self.reach.socket(to, true).ok()?))) {
                self.relay(client, server, to, Vec::new());
            }
        }
    }

    fn relay(&mut self, client: OwnedFd, server: OwnedFd, to: SocketAddr, first: Vec<u8>) {
        while self.relays.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        if let Ok(relay) = Relay::new(client, server, to, first, Token::new(RELAY, self.next), &self.poller) {
            self.relays.insert(self.next, relay);
        }
    }
}

/// Where the ports of a container lead whose packets a program carries: it has an IPv6 address without having asked for one, so that its servers may know nothing of that.
fn target(place: &Place) -> Target {
    let v4 = Some(place.address.address).filter(|address| !address.is_unspecified());
    Target { bridge: String::new(), v4, v6: place.ipv6.filter(|_| v4.is_none()).map(|net| net.address) }
}

/// Where a port leads: to the container's address of the same family, where it has one, else to that of the other.
fn address(settings: &Settings, port: &BoundPort) -> Option<SocketAddr> {
    let target = settings.target.as_ref()?;
    let (v4, v6) = (target.v4.map(IpAddr::V4), target.v6.map(IpAddr::V6));
    let address = if port.host_ip.is_ipv4() { v4.or(v6) } else { v6.or(v4) };
    Some(SocketAddr::new(address?, port.container_port))
}

/// The sockets of a DNS server of this network namespace: at any port, to which port 53 leads, so that the container may have a DNS server of its own; at port 53
/// itself where that cannot be.
pub(super) fn dns_sockets() -> std::io::Result<(UdpSocket, TcpListener)> {
    let redirected = || -> std::io::Result<(UdpSocket, TcpListener)> {
        let listener = TcpListener::bind((DNS_ADDRESS, 0))?;
        let port = listener.local_addr()?.port();
        let datagrams = UdpSocket::bind((DNS_ADDRESS, port))?;
        redirect_dns(&mut Netlink::netfilter()?, DNS_ADDRESS, port)?;
        Ok((datagrams, listener))
    };
    redirected().or_else(|_| Ok((UdpSocket::bind((DNS_ADDRESS, 53))?, TcpListener::bind((DNS_ADDRESS, 53))?)))
}
