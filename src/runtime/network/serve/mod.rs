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
//! Where a program carries the container's packets (`userspace`), the service makes the namespace, starts the program, and has a process inside (`inside.rs`) that makes
//! its sockets there. When the program ends, so does the service. Build steps have such a service as well, without ports: as they are started by a process with threads, that one is this binary again.
//!
//! Whoever killed it or the program: the supervisor hears of its end, and starts another with the same ports (`container/networking.rs`).
//!
//! It stays in the host's network namespace, where the ports and the other DNS servers are, and reaches the container over the bridge, or by sockets from inside. It ends with the supervisor,
//! however that ends, and with it its ports, its tables and its sockets.

mod datagrams;
mod dns;
mod inside;
mod message;
mod poller;
mod relay;
mod run;

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use super::ports::{BoundPort, PortRequest};
use super::publish::Target;
use super::userspace::{Carrier, Place, Userspace};
use super::{Error, Unavailable};

use crate::runtime::wire;
use crate::sys::THIS_PROGRAM;
use crate::sys::process::{Cloned, clone_process, close_from, exit_now, reap, signal_pidfd};
pub(super) use inside::Inside;

/// Where a container finds its DNS server.
pub const DNS_ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(127, 0, 0, 11);

/// How long its own processes may take to end.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The longest message between the two.
const MAX_MESSAGE: usize = 128 << 10;

/// What may change while a container runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where published ports lead.
    pub target: Option<Target>,
    /// Whether packets from outside may be led there by the packet filter.
    pub direct: bool,
    /// Whether there is a DNS server.
    pub names: bool,
    /// The networks whose names count, and their run directories.
    pub directories: Vec<(String, PathBuf)>,
    /// The servers that know all other names.
    pub dns_servers: Vec<IpAddr>,
}

impl Settings {
    /// Those of a container whose packets a program carries: all names are other servers'.
    pub fn of_carried(dns_servers: Vec<IpAddr>) -> Settings {
        Settings { names: true, dns_servers, ..Settings::default() }
    }
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
    /// What is between the container and the host.
    pub behind: Behind<'a>,
}

/// What is between a container and the host.
#[derive(Clone, Debug)]
pub enum Behind<'a> {
    /// A bridge.
    Bridge {
        /// The container's network namespace.
        container: BorrowedFd<'a>,
        /// The namespace that has the bridge, where that is not the host's.
        common: Option<BorrowedFd<'a>>,
    },
    /// A program, in a namespace that the service makes.
    Program {
        /// What is wanted of it.
        wanted: Userspace,
        /// The namespace of an earlier service, and what it had got there.
        again: Option<(BorrowedFd<'a>, &'a Place)>,
    },
}

/// What the service says.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Report {
    /// With a place comes the descriptor of its namespace.
    Ready {
        ports: Vec<BoundPort>,
        place: Option<Place>,
    },
    Port {
        port: String,
        reason: String,
        hint: String,
    },
    Program {
        program: String,
        words: String,
    },
    Unavailable {
        reason: String,
        hint: String,
    },
    Failed(String),
}

/// The service of a running container. Dropping it ends it.
#[derive(Debug)]
pub struct Service {
    control: OwnedFd,
    pid: u32,
    pidfd: OwnedFd,
    ports: Vec<BoundPort>,
    place: Option<(Place, OwnedFd)>,
    /// Whether it has processes of its own, which it ends.
    has_children: bool,
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
                let _ = match &request.behind {
                    Behind::Bridge { container, common: None } => close_from(3, &[theirs.as_fd(), *container]),
                    Behind::Bridge { container, common: Some(common) } => close_from(3, &[theirs.as_fd(), *container, *common]),
                    Behind::Program { again: None, .. } => close_from(3, &[theirs.as_fd()]),
                    Behind::Program { again: Some((netns, _)), .. } => close_from(3, &[theirs.as_fd(), netns.as_fd()]),
                };
                let _ = rustix::thread::set_name(c"strake-net");
                run::run(request, settings, &theirs);
                exit_now(0)
            }
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                let has_children = !matches!(request.behind, Behind::Bridge { common: None, .. });
                Service { control, pid, pidfd, ports: Vec::new(), place: None, has_children }.begun()
            }
        }
    }

    /// Starts one without ports for a caller with threads, by executing this binary again.
    ///
    /// # Errors
    /// The program cannot do it ([`Error::Program`]).
    pub fn spawn(wanted: &Userspace, settings: &Settings) -> Result<Service, Error> {
        let failed = |error: std::io::Error| Error::kernel("start the process that serves a network")(error);
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).map_err(|errno| failed(errno.into()))?;
        let mut command = Command::new(THIS_PROGRAM);
        command.arg(SERVICE).env_clear().current_dir("/");
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(failed)?;
        // Holds a copy of the other end, whose close must be seen.
        drop(command);
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        let service = Service { control, pid: child.id(), pidfd, ports: Vec::new(), place: None, has_children: true };
        tell(&service.control, &(wanted, settings), None).map_err(|_| Error::ServiceEnded)?;
        service.begun()
    }

    fn begun(mut self) -> Result<Service, Error> {
        (self.ports, self.place) = self.hear()?;
        Ok(self)
    }

    /// What the container got, and its network namespace, where a program carries its packets.
    pub fn place(&self) -> Option<(&Place, BorrowedFd<'_>)> {
        self.place.as_ref().map(|(place, netns)| (place, netns.as_fd()))
    }

    /// What becomes readable when it has ended.
    pub fn end(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The ports that it has taken.
    pub fn ports(&self) -> &[BoundPort] {
        &self.ports
    }

    /// Tells it what has changed, and returns when it has taken that in.
    pub fn update(&self, settings: &Settings) -> Result<(), Error> {
        tell(&self.control, settings, None).map_err(|_| Error::ServiceEnded)?;
        self.hear().map(drop)
    }

    fn hear(&self) -> Result<Heard, Error> {
        let Ok(Some((message, mut descriptors))) = wire::receive(self.control.as_fd(), MAX_MESSAGE) else {
            return Err(Error::ServiceEnded);
        };
        match serde_json::from_slice(&message) {
            Ok(Report::Ready { ports, place }) => Ok((ports, place.zip(descriptors.pop()))),
            Ok(Report::Port { port, reason, hint }) => Err(Error::Port { port, reason, hint }),
            Ok(Report::Program { program, words }) => {
                Err(Error::Program { program: Carrier::parse(&program).map_or("the program", Carrier::name), words })
            }
            Ok(Report::Unavailable { reason, hint }) => Err(Error::Unavailable(Unavailable { reason, hint })),
            Ok(Report::Failed(reason)) => {
                Err(Error::Kernel { step: "serve the container's ports and names".to_owned(), source: std::io::Error::other(reason) })
            }
            Err(_) => Err(Error::ServiceEnded),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.has_children {
            let _ = shutdown(&self.control, Shutdown::Both);
            let _ = poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&PATIENCE));
        }
        // It has nothing else to tidy up that the kernel does not.
        let _ = signal_pidfd(self.pidfd.as_fd(), libc::SIGKILL);
        let _ = reap(self.pid);
    }
}

/// The first argument by which `main` knows that this process is the service of a network ([`Service::spawn`]).
pub const SERVICE: &str = "strake-network";

/// The `main` of such a process, which has one thread. Its standard input is the socket to whoever started it.
pub fn service_main() {
    let _ = close_from(3, &[]);
    // An interrupt is meant for the build, which ends this process when it is done with it.
    let _ = rustix::process::setsid();
    let _ = crate::sys::signals::ignore(nix::sys::signal::Signal::SIGPIPE);
    let Ok(control) = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3) else { return };
    let Ok(Some((wanted, settings))) = listen::<(Userspace, Settings)>(&control) else { return };
    let request = ServiceRequest { container: "", ports: &[], publish_at: None, behind: Behind::Program { wanted, again: None } };
    run::run(&request, &settings, &control);
}

/// What a service has made: its ports, and where a program carries the container's packets what that got, with its namespace.
type Heard = (Vec<BoundPort>, Option<(Place, OwnedFd)>);

fn tell(socket: &OwnedFd, message: &impl Serialize, descriptor: Option<&OwnedFd>) -> std::io::Result<()> {
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.iter().map(|fd| fd.as_fd()).collect();
    wire::send(socket.as_fd(), &serde_json::to_vec(message)?, &descriptors)
}

/// The next message; `None` at the end.
fn listen<T: serde::de::DeserializeOwned>(socket: &OwnedFd) -> std::io::Result<Option<T>> {
    let received = wire::receive(socket.as_fd(), MAX_MESSAGE)?;
    Ok(received.map(|(message, _)| serde_json::from_slice(&message)).transpose()?)
}
