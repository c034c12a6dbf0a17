//! The network namespace that the containers of an ordinary user have in common: what the host's is for those of root. Bridges, addresses and rules are made there by the same code, and a program carries
//! what leaves it (`userspace`).
//!
//! ```text
//!   container                common namespace                        host
//!   eth0 10.x.0.2 ---- veth -- st-ID 10.x.0.1 -- (nft) -- eth0 (tap) -- pasta -- outside
//! ```
//!
//! A process of its own holds it, `strake-uplink`, which the first who needs it starts: whoever connects with its socket `<run_dir>/uplink/socket` gets the namespace, and uses it for as long as that
//! connection is open. It ends with the last of them. A program that is killed is started anew; so is this process itself, by those who use the namespace, for the one that they have.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, recv, socket_with,
};
use serde::{Deserialize, Serialize};

use super::serve::Inside;
use super::userspace::{self, Addresses, Program, Starting};
use super::{Error, Unavailable};
use crate::runtime::{household, wire};
use crate::sys::process::{Cloned, clone_process, close_from, exit_now, reap};

/// The directory below the run directory.
const PLACE: &str = "uplink";
/// Its socket.
const SOCKET: &str = "socket";
/// How many may wait to be let in.
const BACKLOG: i32 = 1024;
/// How often the one who holds it may be gone when it is asked.
const ATTEMPTS: u32 = 5;
/// How often a program that does not start is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// Longer than any of its messages.
const MAX_MESSAGE: usize = 16 << 10;

/// The common namespace, and the right to use it.
#[derive(Debug)]
pub struct Uplink {
    pub(super) netns: OwnedFd,
    pub(super) connection: OwnedFd,
}

/// What the one who holds it says.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Answer {
    /// With the namespace.
    Here,
    Unavailable(Unavailable),
    Failed {
        message: String,
        hint: Option<String>,
    },
}

impl Uplink {
    /// Asks for it, and has it made where it is not there: by one of `programs`. This process has one thread, and is in the host's network namespace.
    ///
    /// # Errors
    /// No program can carry its packets.
    pub fn join(run_dir: &Path, programs: &[Program]) -> Result<Uplink, Error> {
        Uplink::join_or_hold(run_dir, programs, None)
    }

    /// The same where the one who held the namespace `there` is gone: another takes its place. What is there may be another namespace, if somebody else was first.
    ///
    /// # Errors
    /// No program can carry its packets.
    pub(super) fn hold_again(run_dir: &Path, programs: &[Program], there: &OwnedFd) -> Result<Uplink, Error> {
        Uplink::join_or_hold(run_dir, programs, Some(there))
    }

    fn join_or_hold(run_dir: &Path, programs: &[Program], there: Option<&OwnedFd>) -> Result<Uplink, Error> {
        let place = run_dir.join(PLACE);
        let failed = || Error::kernel("meet the process that holds the network of this user's containers");
        for _ in 0..ATTEMPTS {
            let meeting = household::meet(&place).map_err(failed())?;
            let connection = match connected(&place) {
                Ok(connection) => connection,
                Err(_) => {
                    start(&place, programs, there)?;
                    connected(&place).map_err(failed())?
                }
            };
            drop(meeting);
            // One that is just ending says nothing any more.
            let Ok(Some((message, mut descriptors))) = wire::receive(connection.as_fd(), MAX_MESSAGE) else { continue };
            return match serde_json::from_slice(&message) {
                Ok(Answer::Here) => Ok(Uplink { netns: descriptors.pop().ok_or(Error::ServiceEnded)?, connection }),
                Ok(Answer::Unavailable(why)) => Err(Error::Unavailable(why)),
                Ok(Answer::Failed { message, hint }) => Err(Error::Told { message, hint }),
                Err(_) => Err(Error::ServiceEnded),
            };
        }
        Err(Error::ServiceEnded)
    }
}

/// The address of the socket by a short name; valid as long as the descriptor is open.
fn address(place: &Path) -> std::io::Result<(OwnedFd, SocketAddrUnix)> {
    let directory = rustix::fs::open(place, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = format!("/proc/self/fd/{}/{SOCKET}", std::os::fd::AsRawFd::as_raw_fd(&directory));
    Ok((directory, SocketAddrUnix::new(short)?))
}

fn socket() -> std::io::Result<OwnedFd> {
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn connected(place: &Path) -> std::io::Result<OwnedFd> {
    let (_open, address) = address(place)?;
    let socket = socket()?;
    rustix::io::retry_on_intr(|| connect(&socket, &address))?;
    Ok(socket)
}

/// Starts the process that holds it, or what is `there`. Only while nobody else comes or goes.
fn start(place: &Path, programs: &[Program], there: Option<&OwnedFd>) -> Result<(), Error> {
    let step = || Error::kernel("start the process that holds the network of this user's containers");
    let listening = || -> std::io::Result<OwnedFd> {
        // A killed one left it.
        let _ = std::fs::remove_file(place.join(SOCKET));
        let (_open, address) = address(place)?;
        let listener = socket()?;
        bind(&listener, &address)?;
        listen(&listener, BACKLOG)?;
        Ok(listener)
    };
    let listener = listening().map_err(step())?;
    match clone_process(0, None).map_err(step())? {
        Cloned::Child => {
            // Nobody's child: it outlives the container for which it is started.
            if let Ok(Cloned::Child) = clone_process(0, None) {
                let kept: Vec<_> = std::iter::once(listener.as_fd()).chain(there.map(OwnedFd::as_fd)).collect();
                let _ = close_from(3, &kept);
                let _ = rustix::process::setsid();
                let _ = rustix::thread::set_name(c"strake-uplink");
                hold(place, &listener, programs, there);
            }
            exit_now(0)
        }
        Cloned::Parent { pid, .. } => drop(reap(pid)),
    }
    Ok(())
}

/// The life of the process.
fn hold(place: &Path, listener: &OwnedFd, programs: &[Program], there: Option<&OwnedFd>) {
    if let Ok(null) = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        // Whoever waits for the supervisor's word does not wait for ours.
        let _ = rustix::stdio::dup2_stdin(&null).and_then(|()| rustix::stdio::dup2_stdout(&null));
    }
    match Held::begin(place.to_owned(), programs, there) {
        Ok(held) => held.serve(listener),
        Err(error) => refuse(place, listener, error),
    }
}

/// Tells the one who asked why there is none.
fn refuse(place: &Path, listener: &OwnedFd, error: Error) {
    let answer = match error {
        Error::Unavailable(why) => Answer::Unavailable(why),
        other => Answer::Failed { message: crate::diag::with_causes(&other), hint: other.hint() },
    };
    let Ok(_meeting) = household::meet(place) else { return };
    let _ = std::fs::remove_file(place.join(SOCKET));
    let message = serde_json::to_vec(&answer).unwrap_or_default();
    while let Some(connection) = waiting(listener) {
        let _ = wire::send(connection.as_fd(), &message, &[]);
    }
    tidy(place);
}

/// Who waits to be let in.
fn waiting(listener: &OwnedFd) -> Option<OwnedFd> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let someone = poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&now)).is_ok_and(|count| count > 0);
    someone.then(|| accept_with(listener, SocketFlags::CLOEXEC).ok()).flatten()
}

fn tidy(place: &Path) {
    if std::fs::remove_dir(place).is_ok() {
        let _ = place.parent().map(std::fs::remove_dir);
    }
}

struct Held {
    place: PathBuf,
    inside: Inside,
    netns: OwnedFd,
    addresses: Addresses,
    programs: Vec<Program>,
    links: OwnedFd,
    /// When a program that has ended is to be started anew.
    again: Option<Instant>,
    users: Vec<OwnedFd>,
}

impl Held {
    fn begin(place: PathBuf, programs: &[Program], there: Option<&OwnedFd>) -> Result<Held, Error> {
        let inside = Inside::begin(there.map(OwnedFd::as_fd))?;
        let netns = inside.namespace().map_err(Error::namespace)?;
        userspace::bind(&netns)?;
        let links = inside.watch().map_err(Error::kernel("watch the links of a network namespace"))?;
        let addresses = Addresses::choose()?;
        let held = Held { place, inside, netns, addresses, programs: programs.to_vec(), links, again: None, users: Vec::new() };
        held.connect()?;
        Ok(held)
    }

    /// Has the first program that can do it carry what leaves the namespace.
    fn connect(&self) -> Result<(), Error> {
        let mut outcome = Err(Error::ServiceEnded);
        for (at, program) in self.programs.iter().enumerate() {
            let tried = Starting::new(program, self.addresses, None).and_then(Starting::wait);
            // What the first one says counts where none can do it.
            outcome = if at == 0 { tried } else { tried.or(outcome) };
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Lets in who comes, until the last has gone.
    fn serve(mut self, listener: &OwnedFd) {
        loop {
            let timeout = self.again.map(|at| at.saturating_duration_since(Instant::now()));
            let timeout = timeout.map(|time| Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() });
            let mut polled = vec![PollFd::new(listener, PollFlags::IN), PollFd::new(&self.links, PollFlags::IN)];
            polled.extend(self.users.iter().map(|user| PollFd::new(user, PollFlags::IN)));
            if poll(&mut polled, timeout.as_ref()).is_err() {
                continue;
            }
            let ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
            drop(polled);
            let mut gone = ready.iter().skip(2);
            self.users.retain(|_| !gone.next().copied().unwrap_or(false));
            if ready[0] {
                self.let_in(listener);
            }
            if ready[1] {
                let mut told = [0; 4096];
                while recv(&self.links, &mut told[..], RecvFlags::DONTWAIT).is_ok() {}
                if self.again.is_none() && !self.inside.is_carried(self.addresses) {
                    self.again = Some(Instant::now());
                }
            }
            if self.again.is_some_and(|at| at <= Instant::now()) {
                self.again = self.connect().is_err().then(|| Instant::now() + AGAIN);
            }
            if self.users.is_empty() && self.is_over(listener) {
                return;
            }
        }
    }

    fn let_in(&mut self, listener: &OwnedFd) {
        while let Some(connection) = waiting(listener) {
            let message = serde_json::to_vec(&Answer::Here).unwrap_or_default();
            if wire::send(connection.as_fd(), &message, &[self.netns.as_fd()]).is_ok() {
                self.users.push(connection);
            }
        }
    }

    /// Whether nobody comes any more: who looks for the socket from here on finds none.
    fn is_over(&mut self, listener: &OwnedFd) -> bool {
        let Ok(_meeting) = household::meet(&self.place) else { return true };
        self.let_in(listener);
        if !self.users.is_empty() {
            return false;
        }
        let _ = std::fs::remove_file(self.place.join(SOCKET));
        tidy(&self.place);
        true
    }
}
