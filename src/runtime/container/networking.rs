//! The network of a container, from its supervisor's side: the namespace with its places on networks, the process that serves its ports and names, and the files by
//! which it finds names.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::journal::{Journal, Recorded};
use super::links::{self, Link, Linked};
use super::state::{self, ContainerDir, State};
use super::supervisor::{StartError, Surroundings, chain};
use super::{ContainerSpec, Error, HostAddress, NetworkRequest, load_spec, load_state};
use crate::runtime::network::{
    self, Behind, BoundPort, Carrier, DNS_ADDRESS, EndpointRequest, EndpointSpec, EndpointState, Namespace, Overview, Place, PortRequest,
    Program, ResolvFlags, ResolvMode, Seat, Service, ServiceRequest, Settings, Uplink, Userspace, builtin_id, carried_resolv_conf,
    host_address, hosts_file, is_for_us, name_servers, no_program, probe_tun, resolv_conf_of,
};
use crate::runtime::{NetworkMode, UserNamespace};

/// How a container finds names, and by which others find it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameSettings {
    /// Names beyond the container's own for its `hosts` file.
    pub extra_hosts: Vec<(String, HostAddress)>,
    /// Other containers that it finds under names of its own.
    #[serde(default)]
    pub links: Vec<Link>,
    /// The domain that it is in.
    #[serde(default)]
    pub domain: Option<String>,
    /// What the user wants in its `resolv.conf`.
    #[serde(default)]
    pub resolv: ResolvFlags,
    /// The host's `/etc/resolv.conf`, and where the servers are if that names a local stub.
    #[serde(default)]
    pub resolv_conf: (PathBuf, PathBuf),
}

impl NameSettings {
    /// The container's own name as it stands in `hosts`.
    pub fn own_name(&self, hostname: &str) -> String {
        match &self.domain {
            Some(domain) => format!("{hostname}.{domain} {hostname}"),
            // The short name as well, as with Docker.
            None => match hostname.split_once('.') {
                Some((short, _)) if !short.is_empty() => format!("{hostname} {short}"),
                _ => hostname.to_owned(),
            },
        }
    }

    /// Its `resolv.conf` in a private network, with a DNS server of its own or without.
    pub fn resolv_conf(&self, own_server: bool) -> String {
        let (host, upstream) = &self.resolv_conf;
        let text = std::fs::read_to_string(host).unwrap_or_default();
        let alternative = std::fs::read_to_string(upstream).ok();
        let mode = ResolvMode::Private { alternative: alternative.as_deref() };
        resolv_conf_of(&text, mode, &self.resolv, own_server.then_some(IpAddr::V4(DNS_ADDRESS)))
    }

    /// The same where a program carries the container's packets: our own server knows all of the host's, also those at its loopback.
    fn resolv_conf_of_carried(&self) -> String {
        let text = std::fs::read_to_string(&self.resolv_conf.0).unwrap_or_default();
        carried_resolv_conf(&text, &self.resolv)
    }

    fn servers(&self) -> Vec<IpAddr> {
        name_servers(&std::fs::read_to_string(&self.resolv_conf.0).unwrap_or_default(), &self.resolv)
    }
}

/// What the container's network is now.
#[derive(Debug)]
enum Kind {
    Host,
    /// Nothing but `lo`, in a namespace that is there already or will be the sandbox's.
    None(Option<Namespace>),
    /// That of another container.
    Joined(OwnedFd),
    Own(Box<Seat>),
    /// One that a program connects with the host's.
    Carried(Box<Carried>),
}

/// A network that was made before anything was known of the container but what its starter expects.
#[derive(Debug, Default)]
pub(super) enum SpareNetwork {
    #[default]
    Nothing,
    /// A namespace with nothing in it but `lo`.
    Empty(Namespace),
    /// One with these places.
    Seat(Vec<EndpointSpec>, Box<Seat>),
}

impl SpareNetwork {
    /// Makes one with these places if they can be had. Who is not root of the host's network could not come back from the namespace; what else keeps it from being made, the start
    /// says.
    pub(super) fn make(endpoints: &[EndpointSpec]) -> SpareNetwork {
        if is_for_us() {
            return SpareNetwork::Nothing;
        }
        // The kernel takes its time for it.
        match Namespace::make_on_only_thread(None) {
            Err(_) => SpareNetwork::Nothing,
            Ok(empty) if endpoints.is_empty() => SpareNetwork::Empty(empty),
            Ok(empty) => match Seat::here(endpoints, false, None, Some(empty)) {
                Ok(seat) => SpareNetwork::Seat(endpoints.to_vec(), Box::new(seat)),
                Err(_) => SpareNetwork::Nothing,
            },
        }
    }

    fn empty(self) -> Option<Namespace> {
        match self {
            SpareNetwork::Empty(namespace) => Some(namespace),
            SpareNetwork::Nothing | SpareNetwork::Seat(..) => None,
        }
    }
}

impl Default for Kind {
    fn default() -> Kind {
        Kind::None(None)
    }
}

/// What a program carries the packets of.
#[derive(Debug)]
struct Carried {
    state: EndpointState,
    place: Place,
    netns: OwnedFd,
    /// What was wanted of a program.
    wanted: Userspace,
    /// Whether the user named the program.
    is_asked_for: bool,
}

impl Carried {
    /// The name of the program that is asked first.
    fn program(&self) -> &'static str {
        self.wanted.programs.first().map_or("a program", |program| program.carrier.name())
    }
}

/// A service has ended that a container still wants.
#[derive(Debug)]
struct Lost {
    /// When it is to be started anew.
    next: Instant,
    /// How long after that it is tried again.
    wait: Duration,
    /// Whether that it could not be was said.
    told: bool,
}

/// The file with the servers that know names.
const RESOLV_CONF: &str = "resolv.conf";

/// The longest file about names that is read to see what somebody in the container has written: a longer one is the container's own.
const MAX_EDITED: u64 = 1 << 20;

/// How long a service has to live to be started anew at once, and how often it is tried where it cannot be.
const WAITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];
/// How long after a change of the packet filter it is looked at: who changes it does so many times in a row.
const FILTER_SETTLES: Duration = Duration::from_millis(200);
/// The same where it was looked at just now: some change it all the time, and there may be hundreds of containers that look.
const FILTER_RESTS: Duration = Duration::from_secs(1);

/// A running container's network. Dropped in this order: who serves it, then all places on networks.
#[derive(Debug, Default)]
pub(super) struct Networked {
    service: Option<Service>,
    kind: Kind,
    linked: Vec<Linked>,
    /// The ports that the first service took: those after it take the same.
    taken: Vec<PortRequest>,
    /// When the service was started.
    served_since: Option<Instant>,
    lost: Option<Lost>,
    /// When the packet filter is to be looked at, which somebody has changed.
    filter_due: Option<Instant>,
    /// When it was looked at last.
    filter_seen: Option<Instant>,
    around: Surroundings,
    /// What was last written to the container's files about names: what is there beyond that, somebody in the container has written.
    written: BTreeMap<&'static str, String>,
}

impl Networked {
    /// Makes what the spec asks for, of `spare` where that can be used.
    pub(super) fn set_up(
        dir: &ContainerDir,
        spec: &ContainerSpec,
        around: &Surroundings,
        users: Option<&UserNamespace>,
        spare: SpareNetwork,
        warnings: &mut Vec<String>,
    ) -> Result<Networked, StartError> {
        let (mut networked, programs) = (Networked { around: around.clone(), ..Networked::default() }, &around.programs[..]);
        networked.kind = match &spec.network {
            NetworkRequest::Host => Kind::Host,
            NetworkRequest::None => Kind::None(spare.empty().filter(|_| users.is_none() && spec.runtime.is_none())),
            NetworkRequest::Container { id, dir } => Kind::Joined(namespace_of(id, dir)?),
            NetworkRequest::Networks(endpoints) => {
                let asked = endpoints.iter().find_map(|endpoint| endpoint.plan.carrier());
                let made = match asked {
                    Some(carrier) => networked.carry_by(carrier, programs, &endpoints[0], spec),
                    None => match sit(endpoints, spec, users, spare) {
                        Ok(seat) => Ok(Kind::Own(Box::new(seat))),
                        // Users of its own can only use a network of their own.
                        Err(network::Error::Unavailable(why)) if users.is_none() => networked.carry_instead(why, around, endpoints, spec),
                        Err(error) => Err(error),
                    },
                };
                match made {
                    Ok(kind) => kind,
                    // A container that only wants to be on some network goes on with the host's.
                    Err(network::Error::Unavailable(why)) if asked.is_none() && users.is_none() && is_plain(endpoints, spec) => {
                        warnings.push(format!("{why}: using the host's network"));
                        Kind::Host
                    }
                    Err(error) => return Err(StartError::Network(error)),
                }
            }
        };
        if let Kind::Own(seat) = &networked.kind {
            let Overview { no_way_out, target, .. } = seat.overview();
            if let Some(why) = no_way_out {
                warnings.push(format!("nothing leads out of the container's network: {why} ({})", why.hint));
            }
            if target.is_none() && !spec.ports.is_empty() {
                warnings.push("no port is published: the container is on no network that leads out".to_owned());
            }
            networked.serve(spec).map_err(StartError::Network)?;
        }
        networked.linked = links::resolve(&spec.names.links, &spec.name, &networked.endpoints())?;
        networked.write_files(dir, spec)?;
        Ok(networked)
    }

    /// Has that program connect the container.
    fn carry_by(
        &mut self,
        carrier: Carrier,
        programs: &[Program],
        endpoint: &EndpointSpec,
        spec: &ContainerSpec,
    ) -> Result<Kind, network::Error> {
        let programs: Vec<Program> = programs.iter().filter(|program| program.carrier == carrier).cloned().collect();
        if programs.is_empty() {
            return Err(network::Error::Unavailable(no_program(Some(carrier))));
        }
        self.carry(programs, endpoint, spec)
    }

    /// Has some program connect a container that is on the shared bridge where that can be, and all that are on others together. `why` it cannot.
    fn carry_instead(
        &mut self,
        why: network::Unavailable,
        around: &Surroundings,
        endpoints: &[EndpointSpec],
        spec: &ContainerSpec,
    ) -> Result<Kind, network::Error> {
        match (endpoints, &around.programs[..], &around.run_dir) {
            (_, [], _) if is_for_us() => Err(network::Error::Unavailable(no_program(None))),
            ([endpoint], programs, _) if endpoint.plan.is_default() && is_for_us() => self.carry(programs.to_vec(), endpoint, spec),
            (endpoints, programs, Some(run_dir)) if is_for_us() => {
                probe_tun().map_err(network::Error::Unavailable)?;
                Seat::among(Uplink::join(run_dir, programs)?, endpoints).map(|seat| Kind::Own(Box::new(seat)))
            }
            _ => Err(network::Error::Unavailable(why)),
        }
    }

    fn carry(&mut self, programs: Vec<Program>, endpoint: &EndpointSpec, spec: &ContainerSpec) -> Result<Kind, network::Error> {
        probe_tun().map_err(network::Error::Unavailable)?;
        let mut wanted = Userspace { programs, mac: endpoint.request.mac };
        let behind = Behind::Program { wanted: wanted.clone(), again: None };
        let request = ServiceRequest { container: &spec.id, ports: &spec.ports, publish_at: None, behind };
        let service = Service::start(&request, &Settings::of_carried(spec.names.servers()))?;
        let Some((place, netns)) = service.place() else { return Err(network::Error::ServiceEnded) };
        let netns = netns.try_clone_to_owned().map_err(network::Error::namespace)?;
        let place = place.clone();
        // Another program, should it come to that, makes the same link.
        wanted.mac = Some(place.mac);
        let state = EndpointState {
            network: endpoint.plan.id.clone(),
            name: endpoint.plan.name.clone(),
            address: place.address,
            gateway: place.gateway,
            ipv6: place.ipv6,
            ipv6_gateway: None,
            mac: place.mac,
            link: network::CARRIED_LINK.to_owned(),
        };
        self.served(service);
        let is_asked_for = endpoint.plan.carrier().is_some();
        Ok(Kind::Carried(Box::new(Carried { state, place, netns, wanted, is_asked_for })))
    }

    fn served(&mut self, service: Service) {
        if self.taken.is_empty() {
            self.taken = service.ports().iter().map(|port| PortRequest::from(*port)).collect();
        }
        (self.service, self.served_since, self.lost) = (Some(service), Some(Instant::now()), None);
    }

    /// Starts the process that serves ports and names, or tells it what has changed; where there is nothing to serve there is none.
    fn serve(&mut self, spec: &ContainerSpec) -> Result<(), network::Error> {
        let Kind::Own(seat) = &mut self.kind else { return Ok(()) };
        let aliases = |id: &str| names(spec, id);
        seat.publish(&spec.id, aliases)?;
        let settings = settings(seat.overview(), spec);
        match &self.service {
            Some(service) => service.update(&settings),
            None if spec.ports.is_empty() && !settings.names => Ok(()),
            None => {
                let leads_there =
                    |plan: &&network::NetworkPlan| settings.target.as_ref().is_some_and(|target| target.bridge == plan.bridge);
                let publish_at = seat.overview().networks.iter().find(leads_there).and_then(|plan| plan.publish_at);
                // With no network that leads out there is nothing that could be published.
                let wanted = if self.taken.is_empty() { &spec.ports } else { &self.taken };
                let ports = if settings.target.is_some() { &wanted[..] } else { &[] };
                let request = ServiceRequest {
                    container: &spec.id,
                    ports,
                    publish_at,
                    behind: Behind::Bridge { container: seat.netns(), common: seat.common() },
                };
                let service = Service::start(&request, &settings)?;
                self.served(service);
                Ok(())
            }
        }
    }

    /// What becomes readable when a process has ended that serves the container, or makes its networks, or when the packet filter has changed.
    pub(super) fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let seat = match &self.kind {
            // Until they are there again there is nothing to hear.
            Kind::Own(seat) if self.lost.is_none() => Some(seat.ends()),
            _ => None,
        };
        let filter = match &self.kind {
            Kind::Own(seat) if self.filter_due.is_none() => seat.filter_changes(),
            _ => None,
        };
        self.service.as_ref().map(Service::end).into_iter().chain(seat.into_iter().flatten()).chain(filter)
    }

    /// One of them has ended, by itself or by somebody else: it is to be started anew, at once unless it hardly began. Or the packet filter has changed: it is looked at, but not as often as it changes.
    pub(super) fn has_ended(&mut self) {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let has_ended = |end: BorrowedFd<'_>| poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0);
        if matches!(&self.kind, Kind::Own(seat) if seat.filter_changes().is_some_and(has_ended)) && self.filter_due.is_none() {
            let now = Instant::now();
            let is_restless = self.filter_seen.is_some_and(|seen| now - seen < 2 * FILTER_RESTS);
            self.filter_due = Some(now + if is_restless { FILTER_RESTS } else { FILTER_SETTLES });
        }
        let is_broken = matches!(&self.kind, Kind::Own(seat) if seat.is_broken());
        if self.service.as_ref().is_some_and(|service| has_ended(service.end())) {
            self.service = None;
        } else if !is_broken || self.lost.is_some() {
            return;
        }
        let next = Instant::now().max(self.served_since.map_or_else(Instant::now, |since| since + WAITS[0]));
        self.lost = Some(Lost { next, wait: WAITS[0], told: false });
    }

    /// How long until there is something to do.
    pub(super) fn due(&self) -> Option<Duration> {
        let next = [self.lost.as_ref().map(|lost| lost.next), self.filter_due].into_iter().flatten().min();
        next.map(|next| next.saturating_duration_since(Instant::now()))
    }

    /// Starts the service anew where it is time for that, and gives what the container's log should say of it.
    pub(super) fn tick(&mut self, dir: &ContainerDir, spec: &ContainerSpec) -> Option<String> {
        if let Kind::Own(seat) = &self.kind
            && self.filter_due.take_if(|due| *due <= Instant::now()).is_some()
        {
            if !seat.let_through_again() {
                self.filter_due = Some(Instant::now() + FILTER_SETTLES);
            }
            self.filter_seen = Some(Instant::now());
        }
        let Lost { wait, told, .. } = *self.lost.as_ref().filter(|lost| lost.next <= Instant::now())?;
        let again = self.mend(dir, spec).and_then(|()| self.serve_again(spec));
        let failure = again.as_ref().err().map(|error| chain(error));
        if let Some(failure) = failure {
            self.lost = Some(Lost { next: Instant::now() + wait, wait: (wait * 2).min(WAITS[1]), told: true });
            if told {
                return None;
            }
            self.record(dir);
            return Some(format!(
                "strake: the process that serves the container's ports and names has ended, and there is no other: {failure}\n"
            ));
        }
        self.lost = None;
        if !told {
            return None;
        }
        self.record(dir);
        Some("strake: the container's ports and names are served again\n".to_owned())
    }

    /// Starts the processes anew that make the container's networks, where they have ended.
    fn mend(&mut self, dir: &ContainerDir, spec: &ContainerSpec) -> Result<(), network::Error> {
        let Kind::Own(seat) = &mut self.kind else { return Ok(()) };
        let (Some(run_dir), NetworkRequest::Networks(endpoints)) = (&self.around.run_dir, &spec.network) else { return Ok(()) };
        if !seat.is_broken() {
            return Ok(());
        }
        if seat.mend(run_dir, &self.around.programs, endpoints)? {
            // It is in the namespace where the bridges were.
            self.service = None;
        }
        // Nothing of it is new unless an address is.
        if let Err(error) = self.write_files(dir, spec) {
            tracing::debug!(%error, "the container's files about names are as they were");
        }
        self.record(dir);
        Ok(())
    }

    fn serve_again(&mut self, spec: &ContainerSpec) -> Result<(), network::Error> {
        let Kind::Carried(carried) = &self.kind else { return self.serve(spec) };
        let behind = Behind::Program { wanted: carried.wanted.clone(), again: Some((carried.netns.as_fd(), &carried.place)) };
        let request = ServiceRequest { container: &spec.id, ports: &self.taken, publish_at: None, behind };
        let service = Service::start(&request, &Settings::of_carried(spec.names.servers()))?;
        self.served(service);
        Ok(())
    }

    /// Puts on record what the container has now, for whoever asks.
    fn record(&self, dir: &ContainerDir) {
        if let Ok(State::Running { pid, start_ticks, boot_id, started_at, cgroups, restarts, .. }) = load_state(dir.path()) {
            let (networks, ports) = (self.endpoints(), self.ports());
            let state = State::Running { pid, start_ticks, boot_id, started_at, networks, ports, cgroups, restarts };
            if let Err(error) = dir.write_state(&state) {
                tracing::debug!(%error, "the container's state is not on record");
            }
        }
    }

    /// Takes in what the spec says now of networks and names: the file may have been replaced.
    pub(super) fn reload(&mut self, dir: &ContainerDir, spec: &mut ContainerSpec) -> Result<(), StartError> {
        let new = load_spec(dir.path())?;
        (spec.name, spec.network) = (new.name, new.network);
        let NetworkRequest::Networks(wanted) = &spec.network else { return Ok(()) };
        match &self.kind {
            Kind::Own(_) => {}
            Kind::Carried(carried) if matches!(&wanted[..], [endpoint] if endpoint.plan.id == carried.state.network) => return Ok(()),
            Kind::Carried(carried) if carried.is_asked_for => return Err(StartError::OtherCarrier(carried.program())),
            Kind::Carried(_) => self.join_others(wanted, spec)?,
            // It has the host's network in place of one of its own, and keeps it until its next start.
            _ if is_plain(wanted, spec) => return Ok(()),
            _ => return Err(StartError::NoOwnNetwork),
        }
        let Kind::Own(seat) = &mut self.kind else { return Ok(()) };
        let there = seat.overview().endpoints.clone();
        for gone in there.iter().filter(|state| !wanted.iter().any(|endpoint| endpoint.plan.id == state.network)) {
            seat.detach(&gone.network).map_err(StartError::Network)?;
            tell(spec, "disconnect", &gone.network, &gone.name, "bridge");
        }
        for new in wanted.iter().filter(|endpoint| !there.iter().any(|state| state.network == endpoint.plan.id)) {
            seat.attach(new).map_err(StartError::Network)?;
            tell(spec, "connect", &new.plan.id, &new.plan.name, "bridge");
        }
        self.serve(spec).map_err(StartError::Network)?;
        self.write_files(dir, spec)?;
        self.record(dir);
        Ok(())
    }

    /// Takes the container from the program that carries its packets to where the bridges of all of the user's containers are. It keeps its namespace and its ports; its address is another, and
    /// what it has connected is cut.
    fn join_others(&mut self, wanted: &[EndpointSpec], spec: &ContainerSpec) -> Result<(), StartError> {
        let Kind::Carried(carried) = &self.kind else { return Ok(()) };
        let run_dir = self.around.run_dir.as_deref().ok_or(StartError::NoOwnNetwork)?;
        let netns = carried.netns.try_clone().map_err(|error| StartError::Network(network::Error::namespace(error)))?;
        let uplink = || Uplink::join(run_dir, &self.around.programs).map_err(StartError::Network);
        let (rehearsed, uplink) = (uplink()?, uplink()?);
        // What cannot be had, as an address that somebody has, cuts nothing.
        drop(Seat::among(rehearsed, wanted).map_err(StartError::Network)?);
        let left = carried.state.clone();
        // Its link goes with the program.
        self.service = None;
        match Seat::moved_among(uplink, wanted, netns, vec![network::CARRIED_LINK.to_owned()]) {
            Ok(seat) => {
                if wanted.iter().all(|endpoint| endpoint.plan.id != left.network) {
                    tell(spec, "disconnect", &left.network, &left.name, "bridge");
                }
                for state in seat.overview().endpoints.iter().filter(|state| state.network != left.network) {
                    tell(spec, "connect", &state.network, &state.name, "bridge");
                }
                self.kind = Kind::Own(Box::new(seat));
                Ok(())
            }
            Err(error) => {
                // As it was, or as soon as the program can be started again.
                if let Err(error) = self.serve_again(spec) {
                    tracing::debug!(%error, "the container is without its network");
                    self.lost = Some(Lost { next: Instant::now(), wait: WAITS[0], told: false });
                }
                Err(StartError::Network(error))
            }
        }
    }

    pub(super) fn mode(&self) -> NetworkMode {
        match self.kind {
            Kind::Host => NetworkMode::Host,
            Kind::None(None) => NetworkMode::None,
            Kind::None(Some(_)) | Kind::Joined(_) | Kind::Own(_) | Kind::Carried(_) => NetworkMode::Joined,
        }
    }

    /// The namespace for [`NetworkMode::Joined`].
    pub(super) fn netns(&self) -> std::io::Result<Option<OwnedFd>> {
        match &self.kind {
            Kind::None(Some(namespace)) => namespace.fd().try_clone_to_owned().map(Some),
            Kind::Joined(netns) => netns.as_fd().try_clone_to_owned().map(Some),
            Kind::Own(seat) => seat.netns().try_clone_to_owned().map(Some),
            Kind::Carried(carried) => carried.netns.try_clone().map(Some),
            Kind::Host | Kind::None(None) => Ok(None),
        }
    }

    pub(super) fn endpoints(&self) -> Vec<EndpointState> {
        match &self.kind {
            Kind::Own(seat) => seat.overview().endpoints.clone(),
            Kind::Carried(carried) => vec![carried.state.clone()],
            _ => Vec::new(),
        }
    }

    /// Gives the command the variables of the container's links, unless it has such of its own.
    pub(super) fn tell_of_links(&self, env: &mut Vec<OsString>) {
        for (name, value) in self.linked.iter().flat_map(|linked| &linked.variables) {
            let prefix = format!("{name}=");
            if !env.iter().any(|entry| entry.as_encoded_bytes().starts_with(prefix.as_bytes())) {
                env.push(format!("{prefix}{value}").into());
            }
        }
    }

    pub(super) fn ports(&self) -> Vec<BoundPort> {
        self.service.as_ref().map_or_else(Vec::new, |service| service.ports().to_vec())
    }

    /// Records that the container is on its networks.
    pub(super) fn tell_of_start(&self, spec: &ContainerSpec) {
        self.tell_of_all(spec, "connect");
    }

    /// Records that it is on them no more.
    pub(super) fn tell_of_end(&self, spec: &ContainerSpec) {
        self.tell_of_all(spec, "disconnect");
    }

    fn tell_of_all(&self, spec: &ContainerSpec, action: &str) {
        match &self.kind {
            Kind::Host => tell(spec, action, &builtin_id("host"), "host", "host"),
            Kind::None(_) => tell(spec, action, &builtin_id("none"), "none", "null"),
            Kind::Joined(_) => {}
            Kind::Own(seat) => seat.overview().endpoints.iter().for_each(|state| tell(spec, action, &state.network, &state.name, "bridge")),
            Kind::Carried(carried) => tell(spec, action, &carried.state.network, &carried.state.name, "bridge"),
        }
    }

    /// Writes the files by which the container finds names, where they depend on its addresses. In place: they may be mounted already. Every user of it reads them.
    fn write_files(&mut self, dir: &ContainerDir, spec: &ContainerSpec) -> Result<(), Error> {
        let mut before = std::mem::take(&mut self.written);
        let mut written = BTreeMap::new();
        let mut write = |name: &'static str, text: String| {
            let path: &Path = &dir.file(name);
            let edited = before.remove(name).and_then(|before| Some((read_edited(path).ok()?, before)));
            let edited = edited.filter(|(there, before)| there.as_ref() != Some(before));
            written.insert(name, text.clone());
            let text = match edited {
                None => text,
                // Servers of somebody's choice are not ours to change.
                Some(_) if name == RESOLV_CONF => return Ok(()),
                Some((None, _)) => return Ok(()),
                Some((Some(there), before)) => merged(&there, &before, &text),
            };
            let written = std::fs::write(path, text);
            written.and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(0o644))).map_err(Error::file("write", path))
        };
        let (addresses, gateway) = match (&self.kind, &spec.network) {
            (Kind::Own(seat), _) => {
                let Overview { endpoints, networks, .. } = seat.overview();
                let own_server = networks.iter().any(|plan| !plan.is_default());
                write(RESOLV_CONF, spec.names.resolv_conf(own_server))?;
                let addresses = endpoints.iter().flat_map(|state| {
                    std::iter::once(IpAddr::V4(state.address.address)).chain(state.ipv6.map(|net| IpAddr::V6(net.address)))
                });
                // Where the bridge is not the host's, what the host offers is at its own address.
                let host = seat.common().and_then(|_| host_address());
                (addresses.collect(), host.or(endpoints.first().map(|state| IpAddr::V4(state.gateway))))
            }
            (Kind::Carried(carried), _) => {
                let state = &carried.state;
                write(RESOLV_CONF, spec.names.resolv_conf_of_carried())?;
                let addresses = [Some(IpAddr::V4(state.address.address)), state.ipv6.map(|net| IpAddr::V6(net.address))];
                // What the host offers is at its own address: the gateway is the program's.
                (addresses.into_iter().flatten().collect(), host_address().or(Some(IpAddr::V4(state.gateway))))
            }
            // It was to have one of its own.
            (Kind::Host, NetworkRequest::Networks(_)) => (Vec::new(), None),
            _ => return Ok(()),
        };
        let gateway = gateway.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut extra: Vec<(String, IpAddr)> =
            spec.names.extra_hosts.iter().map(|(name, address)| (name.clone(), address.resolved(gateway))).collect();
        extra.extend(self.linked.iter().map(|linked| (linked.names.clone(), linked.address)));
        let done = write("hosts", hosts_file(&spec.names.own_name(&spec.sandbox.hostname), &addresses, &extra));
        self.written = written;
        done
    }
}

impl HostAddress {
    /// The address itself, where the host is at `gateway`.
    pub fn resolved(self, gateway: IpAddr) -> IpAddr {
        match self {
            HostAddress::Address(address) => address,
            HostAddress::Gateway => gateway,
        }
    }
}

/// What is in a file that a container can write to; nothing where that is too long.
fn read_edited(path: &Path) -> std::io::Result<Option<String>> {
    let file = File::open(path)?;
    if file.metadata()?.len() > MAX_EDITED {
        return Ok(None);
    }
    let mut text = String::new();
    // It may grow meanwhile.
    let length = file.take(MAX_EDITED + 1).read_to_string(&mut text)?;
    Ok((length as u64 <= MAX_EDITED).then_some(text))
}

/// A file that was written with the lines of `before` and has been edited since: it loses those of them that `now` has not, and gets those that are new in `now`.
fn merged(there: &str, before: &str, now: &str) -> String {
    let lost = |line: &&str| before.lines().any(|known| known == *line) && now.lines().all(|known| known != *line);
    let kept = there.lines().filter(|line| !lost(line));
    let new = now.lines().filter(|line| before.lines().all(|known| known != *line));
    kept.chain(new).flat_map(|line| [line, "\n"]).collect()
}

/// Whether the host's network would do as well.
fn is_plain(endpoints: &[EndpointSpec], spec: &ContainerSpec) -> bool {
    let [endpoint] = endpoints else { return false };
    endpoint.plan.is_default() && endpoint.request == EndpointRequest::default() && spec.ports.is_empty()
}

/// Makes the container's places, or takes those that were made.
fn sit(
    endpoints: &[EndpointSpec],
    spec: &ContainerSpec,
    users: Option<&UserNamespace>,
    spare: SpareNetwork,
) -> Result<Seat, network::Error> {
    match spare {
        SpareNetwork::Seat(made, seat) if users.is_none() && made == endpoints => Ok(*seat),
        // Its addresses are given back before others are taken.
        spare => Seat::here(endpoints, !is_plain(endpoints, spec), users.map(UserNamespace::network), spare.empty()),
    }
}

/// The names of the container on a network.
fn names(spec: &ContainerSpec, network: &str) -> Vec<String> {
    let mut names = vec![spec.name.clone()];
    if let NetworkRequest::Networks(endpoints) = &spec.network {
        let aliases = endpoints.iter().filter(|endpoint| endpoint.plan.id == network).flat_map(|endpoint| &endpoint.request.aliases);
        names.extend(aliases.cloned());
    }
    names.push(spec.sandbox.hostname.clone());
    names
}

fn settings(seen: &Overview, spec: &ContainerSpec) -> Settings {
    let NetworkRequest::Networks(endpoints) = &spec.network else { return Settings::default() };
    let named = endpoints.iter().filter(|endpoint| !endpoint.plan.is_default());
    let leads_out = seen.networks.iter().any(|plan| !plan.internal);
    Settings {
        target: seen.target.clone(),
        direct: seen.no_way_out.is_none(),
        names: endpoints.iter().any(|endpoint| !endpoint.plan.is_default()),
        directories: named.map(|endpoint| (endpoint.plan.name.clone(), endpoint.run_dir.clone())).collect(),
        // What may not go out does not ask those who may, either.
        dns_servers: if leads_out { spec.names.servers() } else { Vec::new() },
    }
}

/// The network namespace of a running container.
fn namespace_of(id: &str, dir: &Path) -> Result<OwnedFd, StartError> {
    let short = id.get(..12).unwrap_or(id);
    let refused = |reason| StartError::Join { container: short.to_owned(), reason };
    let Ok(State::Running { pid, start_ticks, .. }) = load_state(dir) else { return Err(refused("it does not run")) };
    let netns = File::open(format!("/proc/{pid}/ns/net")).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied if is_for_us() => StartError::Network(network::Error::Unavailable(network::Unavailable {
            reason: format!("the container {short} is in another user namespace, which only root can enter from here"),
            hint: format!("start both again, `{short}` first"),
        })),
        _ => refused("its namespace cannot be opened"),
    })?;
    // Opened first, then asked whose it is: another process may have the number by now.
    if state::start_ticks(pid) != Some(start_ticks) {
        return Err(refused("it has just ended"));
    }
    Ok(netns.into())
}

/// Records that the container came to a network, or left it.
fn tell(spec: &ContainerSpec, action: &str, id: &str, name: &str, driver: &str) {
    let Some(path) = &spec.journal else { return };
    let attributes = [("container", spec.id.as_str()), ("name", name), ("type", driver)];
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Journal::new(path).write(&Recorded { kind: "network", action, id, attributes: &attributes });
}
