//! Connections of TCP: whatever one side says, the other hears, and each may end what it says while it still listens.
//!
//! A side is read only while all that it said before is with the other, so that a slow reader costs one buffer and then slows the sender down, as it would without us.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, connect, sockopt};

use super::poller::{BROKEN, Interest, Poller, READ, Token, WRITE, Watched};

/// How often a side is read before it is somebody else's turn.
const TURNS: usize = 4;

/// One connection: its client, and the server that it is passed on to.
#[derive(Debug)]
pub(super) struct Relay {
    sides: [Side; 2],
    connecting: bool,
}

#[derive(Debug)]
struct Side {
    socket: Watched<OwnedFd>,
    /// What it has not taken yet.
    pending: Vec<u8>,
    /// It says no more.
    ended: bool,
    /// It has been told that the other says no more.
    told: bool,
}

const CLIENT: usize = 0;
const SERVER: usize = 1;

impl Relay {
    /// Passes `client` on over the socket `server`, which is still to be connected, to the server at `to`. That hears `first` before all that the client goes on to say.
    pub(super) fn new(
        client: OwnedFd,
        server: OwnedFd,
        to: SocketAddr,
        first: Vec<u8>,
        token: Token,
        poller: &Poller,
    ) -> io::Result<Relay> {
        match connect(&server, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        for socket in [&client, &server] {
            rustix::io::ioctl_fionbio(socket, true)?;
            // What is small must not wait for more.
            let _ = sockopt::set_tcp_nodelay(socket, true);
            // A peer that vanished is found out in the end.
            let _ = sockopt::set_socket_keepalive(socket, true);
        }
        let side = |socket, number, pending| Side {
            socket: Watched::new(socket, Token { side: number, ..token }),
            pending,
            ended: false,
            told: false,
        };
        let mut relay = Relay { sides: [side(client, 0, Vec::new()), side(server, 1, first)], connecting: true };
        relay.watch(poller)?;
        Ok(relay)
    }

    /// Does what can be done on one side now. `false`: the connection is over.
    pub(super) fn advance(&mut self, side: u8, events: Interest, buffer: &mut [u8], poller: &Poller) -> bool {
        let side = usize::from(side).min(SERVER);
        if self.connecting && side == SERVER {
            if let Ok(Err(_)) | Err(_) = sockopt::socket_error(&self.sides[SERVER].socket.io) {
                self.reset();
                return false;
            }
            self.connecting = false;
        }
        let done = self.write(side).and_then(|()| self.read(side, events, buffer)).and_then(|()| self.watch(poller));
        match done {
            Ok(()) => !self.is_over(),
            Err(_) => {
                self.reset();
                false
            }
        }
    }

    fn is_over(&self) -> bool {
        self.sides.iter().all(|side| side.ended && side.told)
    }

    /// What one side broke off is broken off for the other, too.
    fn reset(&self) {
        for side in &self.sides {
            let _ = sockopt::set_socket_linger(&side.socket.io, Some(Duration::ZERO));
        }
    }

    /// Says what is left to a side; after the last of it, that there is no more.
    fn write(&mut self, to: usize) -> io::Result<()> {
        let from_ended = self.sides[1 - to].ended;
        let side = &mut self.sides[to];
        let sent = send(&side.socket.io, &side.pending)?;
        side.pending.drain(..sent);
        if side.pending.is_empty() {
            // Connections are many, and most are silent.
            side.pending = Vec::new();
            if from_ended && !side.told {
                side.told = true;
                match rustix::net::shutdown(&side.socket.io, Shutdown::Write) {
                    // It has gone meanwhile.
                    Err(Errno::NOTCONN) | Ok(()) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, from: usize, events: Interest, buffer: &mut [u8]) -> io::Result<()> {
        let to = 1 - from;
        for _ in 0..TURNS {
            let blocked = !self.sides[to].pending.is_empty() || to == SERVER && self.connecting;
            if self.sides[from].ended || blocked {
                // Nobody reads what is left, and there is an error: that is the end.
                return if events.contains(BROKEN) { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) };
            }
            match rustix::net::recv(&self.sides[from].socket.io, &mut *buffer, rustix::net::RecvFlags::empty()) {
                Ok((0, _)) => self.sides[from].ended = true,
                Ok((length, _)) => {
                    let sent = send(&self.sides[to].socket.io, &buffer[..length])?;
                    self.sides[to].pending.extend_from_slice(&buffer[sent..length]);
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(errno) => return Err(errno.into()),
            }
            if self.sides[from].ended {
                return self.write(to);
            }
        }
        Ok(())
    }

    fn watch(&mut self, poller: &Poller) -> io::Result<()> {
        for at in [CLIENT, SERVER] {
            let connecting = self.connecting && at == SERVER;
            let takes = self.sides[1 - at].pending.is_empty() && !self.connecting;
            let side = &mut self.sides[at];
            let mut interest = Interest::empty();
            if takes && !side.ended {
                interest |= READ;
            }
            if connecting || !side.pending.is_empty() {
                interest |= WRITE;
            }
            side.socket.want(poller, interest)?;
        }
        Ok(())
    }
}

/// Sends what can be sent now.
fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match rustix::net::send(&socket, &bytes[sent..], SendFlags::NOSIGNAL) {
            Ok(length) => sent += length,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(sent)
}
