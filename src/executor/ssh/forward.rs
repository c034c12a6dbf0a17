//! A socket of an agent: made beside a step's layer, mounted into its sandbox, and served by a thread for each connection while the step runs. Git, where it fetches
//! by ssh, gets one too.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::protocol::{Answers, serve};
use super::{Kind, SshAgent};

/// The socket of one mount, or of one repository. Dropping it ends it, with all connections.
#[derive(Debug)]
pub struct AgentSocket {
    path: PathBuf,
    /// The same socket as the thread's.
    listener: UnixListener,
    ended: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl AgentSocket {
    /// Makes the socket `name` in the directory `dir`, with this mode and owner.
    ///
    /// # Errors
    /// The file system.
    pub fn new(agent: &SshAgent, dir: &Path, name: &str, (mode, uid, gid): (u32, u32, u32)) -> io::Result<AgentSocket> {
        let path = dir.join(name);
        let listener = bind(dir, name)?;
        std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        let ended = Arc::new(AtomicBool::new(false));
        let (agent, flag, ours) = (agent.clone(), ended.clone(), listener.try_clone()?);
        let accepting = std::thread::Builder::new().name("ssh-agent".into()).spawn(move || accept(&listener, &agent, &flag))?;
        Ok(AgentSocket { path, listener: ours, ended, accepting: Some(accepting) })
    }

    /// Where it is on the host.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        // Wakes the thread, which then sees that it is over.
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        let _ = std::fs::remove_file(&self.path);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Binds by way of the directory's descriptor: the name of a socket has room for 107 bytes, and the store may be far down.
fn bind(dir: &Path, name: &str) -> io::Result<UnixListener> {
    by_short_name(dir, |dir| UnixListener::bind(dir.join(name)))
}

fn by_short_name<T>(dir: &Path, action: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let dir = std::fs::File::open(dir)?;
    action(Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())))
}

/// The open ends of all connections, by their numbers: closing them is how their threads are stopped.
type Open = Mutex<BTreeMap<u64, Vec<UnixStream>>>;

/// How many connections are served at once: a command in the sandbox may open any number, and each has a thread of this process.
const MAX_CONNECTIONS: usize = 64;

fn accept(listener: &UnixListener, agent: &SshAgent, ended: &AtomicBool) {
    let (open, served) = (Open::default(), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for (number, client) in (0..).zip(listener.incoming()) {
            if ended.load(Ordering::Acquire) {
                break;
            }
            let Ok(mut client) = client else { continue };
            let (open, served) = (&open, &served);
            // One too many sees its connection end, and so does one that gets no thread.
            if served.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
                served.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let thread = std::thread::Builder::new().spawn_scoped(scope, move || {
                // A client that cannot be served sees its connection end.
                let _ = answer(&mut client, agent, number, open, ended);
                let _ = client.shutdown(Shutdown::Both);
                locked(open).remove(&number);
                served.fetch_sub(1, Ordering::AcqRel);
            });
            if thread.is_err() {
                served.fetch_sub(1, Ordering::AcqRel);
            }
        }
        for end in locked(&open).values().flatten() {
            let _ = end.shutdown(Shutdown::Both);
        }
    });
}

fn locked(open: &Open) -> MutexGuard<'_, BTreeMap<u64, Vec<UnixStream>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(client: &mut UnixStream, agent: &SshAgent, number: u64, open: &Open, ended: &AtomicBool) -> io::Result<()> {
    // One that comes while all are closed closes itself.
    let keep = |ends: Vec<UnixStream>| {
        locked(open).insert(number, ends);
        if ended.load(Ordering::Acquire) { Err(io::Error::from(io::ErrorKind::ConnectionAborted)) } else { Ok(()) }
    };
    match &agent.0 {
        Kind::Keys(keys) => {
            keep(vec![client.try_clone()?])?;
            serve(client, Answers::Keys(keys))
        }
        Kind::Socket(path) => {
            let mut agent = connect(path)?;
            keep(vec![client.try_clone()?, agent.try_clone()?])?;
            serve(client, Answers::Agent(&mut agent))
        }
        Kind::Raw(path) => {
            let other = connect(path)?;
            keep(vec![client.try_clone()?, other.try_clone()?])?;
            relay(client, &other)
        }
    }
}

/// Passes bytes on in both directions until both ends have said all.
fn relay(client: &UnixStream, other: &UnixStream) -> io::Result<()> {
    let pass = |mut from: &UnixStream, mut to: &UnixStream| {
        let done = io::copy(&mut from, &mut to).map(drop);
        let _ = to.shutdown(Shutdown::Write);
        done
    };
    std::thread::scope(|scope| {
        let there = std::thread::Builder::new().spawn_scoped(scope, || pass(client, other))?;
        let back = pass(other, client);
        there.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into())).and(back)
    })
}

fn connect(path: &Path) -> io::Result<UnixStream> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => by_short_name(dir, |dir| UnixStream::connect(dir.join(name))),
        _ => UnixStream::connect(path),
    }
}
