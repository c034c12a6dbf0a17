//! A container's places on networks, wherever they are made: by its supervisor, or, where that is not root of the host, by a process in the network namespace that the user's containers have in common
//! (`uplink`).
//!
//! ```text
//!   supervisor (host's namespace)        strake-bridge (common namespace)
//!     |-- Wish ---------------------------->| bridges, addresses, packet filter: as for root
//!     |<- Answer (container's namespace) ---|
//!     |   (socket closes: takes all back)   |
//! ```
//!
//! Whichever of the processes is killed, the supervisor starts another: what the container has stays, or is made again as it was.
//!
//! Who has left the host's network namespace without being root there cannot come back, so that the supervisor stays: it has somebody there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, recv, shutdown, socketpair};
use serde::{Deserialize, Serialize};

use super::uplink::Uplink;
use super::userspace::Program;
use super::{EndpointRequest, EndpointState, Error, Namespace, Network, NetworkPlan, Target, Unavailable};
use crate::runtime::wire;
use crate::sys::netlink::Netlink;
use crate::sys::process::{Cloned, clone_process, close_from, exit_now, reap, signal_pidfd};

/// The longest message between the two.
const MAX_MESSAGE: usize = 128 << 10;
/// How long it may take to give all back.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// A place on a network that a container is to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// The network.
    pub plan: NetworkPlan,
    /// Its run directory (see [`Network`]).
    pub run_dir: PathBuf,
    /// What the container wants to be there.
    pub request: EndpointRequest,
}

/// What a container is on its networks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Overview {
    /// Its places, in the order in which it came to them.
    pub endpoints: Vec<EndpointState>,
    /// Their networks.
    pub networks: Vec<NetworkPlan>,
    /// Why nothing leads out of the network that the way out goes through.
    pub no_way_out: Option<Unavailable>,
    /// Where published ports lead.
    pub target: Option<Target>,
}

impl Overview {
    fn of(namespace: &Namespace) -> Overview {
        Overview {
            endpoints: namespace.endpoints().cloned().collect(),
            networks: namespace.networks().cloned().collect(),
            no_way_out: namespace.no_way_out().cloned(),
            target: namespace.target(),
        }
    }
}

/// A container's network namespace with its places. Dropping it gives them back.
#[derive(Debug)]
pub struct Seat {
    netns: OwnedFd,
    overview: Overview,
    maker: Maker,
}

#[derive(Debug)]
enum Maker {
    /// With a socket that tells of changes of the packet filter.
    Here(Box<Namespace>, Option<OwnedFd>),
    There {
        agent: Agent,
        uplink: Uplink,
    },
}

impl Seat {
    /// Makes it by this process, which has one thread and may change the host's network; in the namespace `made`, or where there is none in `spare`, or in a new one.
    /// `even_cut_off` is as for [`Network::open_as`].
    ///
    /// # Errors
    /// One of the places cannot be had.
    pub fn here(
        endpoints: &[EndpointSpec],
        even_cut_off: bool,
        made: Option<BorrowedFd<'_>>,
        spare: Option<Namespace>,
    ) -> Result<Seat, Error> {
        // From before the look of those who open the networks.
        let watch = Netlink::watch_filter().ok();
        let networks = open(endpoints, even_cut_off)?.into_iter().map(Network::lingering).collect();
        let namespace = match (made, spare) {
            (None, Some(spare)) => spare,
            (made, _) => Namespace::make_on_only_thread(made)?,
        };
        let namespace = sit(networks, endpoints, namespace)?;
        let netns = namespace.fd().try_clone_to_owned().map_err(Error::namespace)?;
        Ok(Seat { netns, overview: Overview::of(&namespace), maker: Maker::Here(Box::new(namespace), watch) })
    }

    /// Makes it by a process in the namespace that the user's containers have in common. This process has one thread.
    ///
    /// # Errors
    /// One of the places cannot be had.
    pub fn among(uplink: Uplink, endpoints: &[EndpointSpec]) -> Result<Seat, Error> {
        let agent = Agent::start(&uplink)?;
        let (overview, netns) = agent.ask(&Wish::Sit(endpoints.to_vec()), &[])?;
        Ok(Seat { netns: netns.ok_or(Error::ServiceEnded)?, overview, maker: Maker::There { agent, uplink } })
    }

    /// The same in the namespace `netns`, which the container has already, and in which others made `links`. Where that cannot be, these are gone all the same.
    ///
    /// # Errors
    /// One of the places cannot be had.
    pub fn moved_among(uplink: Uplink, endpoints: &[EndpointSpec], netns: OwnedFd, links: Vec<String>) -> Result<Seat, Error> {
        let agent = Agent::start(&uplink)?;
        let wish = Wish::SitAgain { endpoints: endpoints.to_vec(), links };
        let (overview, _) = agent.ask(&wish, &[netns.as_fd()])?;
        Ok(Seat { netns, overview, maker: Maker::There { agent, uplink } })
    }

    /// What becomes readable when a process has ended that it needs.
    pub fn ends(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let both = match &self.maker {
            Maker::Here(..) => None,
            Maker::There { agent, uplink } => Some([agent.pidfd.as_fd(), uplink.connection.as_fd()]),
        };
        both.into_iter().flatten()
    }

    /// Whether one of them has.
    pub fn is_broken(&self) -> bool {
        self.ends().any(is_readable)
    }

    /// What becomes readable when somebody has changed the packet filter of the host: [`Seat::let_through_again`] is due then.
    pub fn filter_changes(&self) -> Option<BorrowedFd<'_>> {
        match &self.maker {
            Maker::Here(_, watch) => watch.as_ref().map(OwnedFd::as_fd),
            Maker::There { .. } => None,
        }
    }

    /// Has other programs' firewalls let the container's packets through, where they do not any more. `false` if that should be tried again.
    pub fn let_through_again(&self) -> bool {
        let Maker::Here(namespace, watch) = &self.maker else { return true };
        if let Some(watch) = watch {
            let mut told = [0; 1024];
            // What was lost for want of room is a change as well.
            while is_readable(watch.as_fd()) {
                let _ = recv(watch, &mut told[..], RecvFlags::DONTWAIT);
            }
        }
        namespace.let_through_again()
    }

    /// Starts those anew that have ended; says whether the bridges are in another namespace now. This process has one thread, and is in the host's network namespace.
    ///
    /// # Errors
    /// That cannot be: it may be tried again.
    pub fn mend(&mut self, run_dir: &Path, programs: &[Program], endpoints: &[EndpointSpec]) -> Result<bool, Error> {
        let Maker::There { agent, uplink } = &mut self.maker else { return Ok(false) };
        let lost = is_readable(uplink.connection.as_fd());
        let new = lost.then(|| Uplink::hold_again(run_dir, programs, &uplink.netns)).transpose()?;
        let elsewhere = new.as_ref().map_or(Ok(false), |new| is_same(&new.netns, &uplink.netns).map(|same| !same))?;
        if elsewhere || is_readable(agent.pidfd.as_fd()) {
            let there = &self.overview.endpoints;
            // The same places, as far as the networks have them.
            let again = |endpoint: &EndpointSpec| {
                let state = there.iter().find(|state| state.network == endpoint.plan.id);
                let request = state.map_or_else(
                    || endpoint.request.clone(),
                    |state| EndpointRequest {
                        ipv4: Some(state.address.address),
                        ipv6: state.ipv6.map(|net| net.address),
                        mac: Some(state.mac),
                        ..endpoint.request.clone()
                    },
                );
                EndpointSpec { request, ..endpoint.clone() }
            };
            let links: Vec<String> = there.iter().map(|state| state.link.clone()).collect();
            let sit = |endpoints: Vec<EndpointSpec>| {
                let agent = Agent::start(new.as_ref().unwrap_or(uplink))?;
                let wish = Wish::SitAgain { endpoints, links: links.clone() };
                agent.ask(&wish, &[self.netns.as_fd()]).map(|(overview, _)| (agent, overview))
            };
            // One that is in the other namespace still has the addresses.
            agent.end();
            // Others may have them by now.
            let made = sit(endpoints.iter().map(again).collect()).or_else(|_| sit(endpoints.to_vec()))?;
            (*agent, self.overview) = made;
        }
        if let Some(new) = new {
            *uplink = new;
        }
        Ok(elsewhere)
    }

    /// The container's namespace, for `setns(2)`.
    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    /// The namespace that has the bridges, where that is not the host's.
    pub fn common(&self) -> Option<BorrowedFd<'_>> {
        match &self.maker {
            Maker::Here(..) => None,
            Maker::There { uplink, .. } => Some(uplink.netns.as_fd()),
        }
    }

    /// What the container is on its networks.
    pub fn overview(&self) -> &Overview {
        &self.overview
    }

    /// Puts it on one more network.
    ///
    /// # Errors
    /// The place cannot be had.
    pub fn attach(&mut self, endpoint: &EndpointSpec) -> Result<(), Error> {
        self.change(Wish::Attach(Box::new(endpoint.clone())))
    }

    /// Takes it off the network with that ID.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn detach(&mut self, network: &str) -> Result<(), Error> {
        self.change(Wish::Detach(network.to_owned()))
    }

    /// Lets others on its networks find the container `id` by the names that `names` has for the IDs of networks.
    ///
    /// # Errors
    /// They cannot be written down.
    pub fn publish(&mut self, id: &str, names: impl Fn(&str) -> Vec<String>) -> Result<(), Error> {
        let names = self.overview.networks.iter().map(|plan| (plan.id.clone(), names(&plan.id))).collect();
        self.change(Wish::Publish { id: id.to_owned(), names })
    }

    fn change(&mut self, wish: Wish) -> Result<(), Error> {
        // A part may be done of what fails.
        let (done, overview) = match &mut self.maker {
            Maker::Here(namespace, _) => (grant(namespace, wish), Some(Overview::of(namespace))),
            Maker::There { agent, .. } => match agent.ask(&wish, &[]) {
                Ok((overview, _)) => (Ok(()), Some(overview)),
                Err(error) => (Err(error), agent.ask(&Wish::Look, &[]).ok().map(|(overview, _)| overview)),
            },
        };
        if let Some(overview) = overview {
            self.overview = overview;
        }
        done
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0)
}

/// Whether two descriptors are of the same namespace.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> Result<bool, Error> {
    let id = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).map_err(|errno| Error::namespace(errno.into()));
    Ok(id(one)? == id(other)?)
}

fn open(endpoints: &[EndpointSpec], even_cut_off: bool) -> Result<Vec<Network>, Error> {
    endpoints.iter().map(|endpoint| Network::open_as(&endpoint.run_dir, &endpoint.plan, even_cut_off)).collect()
}

/// Puts the namespace on all of the networks, or leaves none of their links in it.
fn sit(networks: Vec<Network>, endpoints: &[EndpointSpec], mut namespace: Namespace) -> Result<Namespace, Error> {
    for (network, endpoint) in networks.into_iter().zip(endpoints) {
        if let Err(error) = namespace.attach(network, &endpoint.request) {
            let links: Vec<String> = namespace.endpoints().map(|state| state.link.clone()).collect();
            links.iter().for_each(|link| namespace.remove_link(link));
            return Err(error);
        }
    }
    Ok(namespace)
}

/// The same in the common namespace, for a container with the namespace `there`, where it has one already; `links` are those that others have made in it. No network outlives its last user: the common
/// namespace does not, either.
fn sit_among(endpoints: &[EndpointSpec], there: Option<BorrowedFd<'_>>, links: &[String]) -> Result<Namespace, Error> {
    let networks = open(endpoints, true)?;
    let mut namespace = Namespace::make_on_only_thread(there)?;
    links.iter().for_each(|link| namespace.remove_link(link));
    sit(networks, endpoints, namespace)
}

fn grant(namespace: &mut Namespace, wish: Wish) -> Result<(), Error> {
    match wish {
        Wish::Attach(endpoint) => {
            let network = Network::open_as(&endpoint.run_dir, &endpoint.plan, true)?;
            namespace.attach(network, &endpoint.request).map(drop)
        }
        Wish::Detach(network) => namespace.detach(&network).map(drop),
        Wish::Publish { id, names } => {
            let of = |network: &str| names.iter().find(|(known, _)| known == network).map(|(_, names)| names.clone()).unwrap_or_default();
            namespace.publish(&id, of)
        }
        Wish::Look => Ok(()),
        // Only the first wish.
        Wish::Sit(_) | Wish::SitAgain { .. } => Err(Error::ServiceEnded),
    }
}

/// What is wanted of the other process.
#[derive(Debug, Serialize, Deserialize)]
enum Wish {
    Sit(Vec<EndpointSpec>),
    /// In a namespace that was made before, and that comes with it.
    SitAgain {
        endpoints: Vec<EndpointSpec>,
        links: Vec<String>,
    },
    Attach(Box<EndpointSpec>),
    Detach(String),
    /// Nothing but to know what there is.
    Look,
    Publish {
        id: String,
        names: Vec<(String, Vec<String>)>,
    },
}

/// What it says; to the first wish with the container's namespace.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Done(Overview),
    Unavailable(Unavailable),
    Failed { message: String, hint: Option<String> },
}

/// The process in the common namespace.
#[derive(Debug)]
struct Agent {
    socket: OwnedFd,
    pid: u32,
    pidfd: OwnedFd,
}

impl Agent {
    fn start(uplink: &Uplink) -> Result<Agent, Error> {
        let step = || Error::kernel("start the process that makes networks");
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (socket, theirs) = pair.map_err(|errno| step()(errno.into()))?;
        match clone_process(0, None).map_err(step())? {
            Cloned::Child => {
                drop(socket);
                let _ = rustix::thread::set_name(c"strake-bridge");
                // The connection tells whoever holds the namespace that it is in use.
                if setns(&uplink.netns, CloneFlags::CLONE_NEWNET).is_ok()
                    && close_from(3, &[theirs.as_fd(), uplink.connection.as_fd()]).is_ok()
                {
                    serve(&theirs);
                }
                exit_now(0)
            }
            Cloned::Parent { pid, pidfd } => Ok(Agent { socket, pid, pidfd }),
        }
    }

    fn ask(&self, wish: &Wish, about: &[BorrowedFd<'_>]) -> Result<(Overview, Option<OwnedFd>), Error> {
        let ended = |_: std::io::Error| Error::ServiceEnded;
        let bytes = serde_json::to_vec(wish).map_err(|_| Error::ServiceEnded)?;
        wire::send(self.socket.as_fd(), &bytes, about).map_err(ended)?;
        let (message, mut descriptors) = wire::receive(self.socket.as_fd(), MAX_MESSAGE).map_err(ended)?.ok_or(Error::ServiceEnded)?;
        match serde_json::from_slice(&message) {
            Ok(Answer::Done(overview)) => Ok((overview, descriptors.pop())),
            Ok(Answer::Unavailable(why)) => Err(Error::Unavailable(why)),
            Ok(Answer::Failed { message, hint }) => Err(Error::Told { message, hint }),
            Err(_) => Err(Error::ServiceEnded),
        }
    }
}

impl Agent {
    /// Has it give all back, and end.
    fn end(&self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
        let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&PATIENCE));
        let _ = signal_pidfd(self.pidfd.as_fd(), libc::SIGKILL);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
        let _ = reap(self.pid);
    }
}

/// Does what is wanted until the supervisor is gone; then all is given back.
fn serve(socket: &OwnedFd) {
    let mut namespace: Option<Namespace> = None;
    while let Ok(Some((message, about))) = wire::receive(socket.as_fd(), MAX_MESSAGE) {
        let Ok(wish) = serde_json::from_slice(&message) else { return };
        let done = match (wish, &mut namespace) {
            (Wish::Sit(endpoints), None) => sit_among(&endpoints, None, &[]).map(|made| drop(namespace.replace(made))),
            (Wish::SitAgain { endpoints, links }, None) => {
                let there = about.first().map(OwnedFd::as_fd);
                sit_among(&endpoints, there, &links).map(|made| drop(namespace.replace(made)))
            }
            (wish, Some(namespace)) => grant(namespace, wish),
            (_, None) => Err(Error::ServiceEnded),
        };
        let answer = match (done, &namespace) {
            (Ok(()), Some(namespace)) => Answer::Done(Overview::of(namespace)),
            (Ok(()), None) => return,
            (Err(Error::Unavailable(why)), _) => Answer::Unavailable(why),
            (Err(error), _) => Answer::Failed { message: crate::diag::with_causes(&error), hint: error.hint() },
        };
        let netns: Vec<BorrowedFd<'_>> = namespace.iter().map(Namespace::fd).collect();
        let Ok(message) = serde_json::to_vec(&answer) else { return };
        if wire::send(socket.as_fd(), &message, &netns).is_err() {
            return;
        }
    }
}
