//! The DNS server of a container: names of the containers on its networks are answered from what their supervisors published, all else is passed on to the servers
//! that the host uses, or that the user named.
//!
//! A question that is passed on has a socket and a number of its own, so that nobody else can answer it. A server that is silent, fails or refuses is given up for the next.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::message::{self, A, AAAA, PTR, Question, Record, SERVER_FAILURE};
use super::poller::{Poller, Token, Watched};
use crate::runtime::network::names::{Directory, merged};

/// How long an answer from a name counts, in seconds: containers come and go.
const TTL: u32 = 1;
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many questions may be with other servers at once.
const MAX_PASSED: usize = 256;
/// How many connections there may be.
const MAX_CLIENTS: usize = 64;
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(10);
/// Questions that are taken before it is somebody else's turn.
const TURNS: usize = 32;
/// The longest answer by UDP.
const MAX_ANSWER: usize = 8192;
/// The port of DNS servers.
const PORT: u16 = 53;

/// The kinds of tokens that the server's descriptors have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kinds {
    pub(super) datagrams: u8,
    pub(super) listener: u8,
    pub(super) passed: u8,
    pub(super) client: u8,
}

/// A question that another server has.
#[derive(Debug)]
struct Passed {
    socket: Watched<UdpSocket>,
    question: Question,
    message: Vec<u8>,
    id: u16,
    client: SocketAddr,
    /// Which of the servers has it.
    server: usize,
    deadline: Instant,
}

/// A connection, until its first question is read.
#[derive(Debug)]
struct Client {
    stream: Watched<TcpStream>,
    incoming: Vec<u8>,
    heard: Instant,
}

/// What becomes of a connection.
pub(super) enum Turn {
    /// It goes on.
    Goes,
    /// It is over.
    Ends,
    /// It is another server's from here on; these bytes first.
    Passes(OwnedFd, SocketAddr, Vec<u8>),
}

/// The server.
#[derive(Debug)]
pub(super) struct Server {
    kinds: Kinds,
    datagrams: Watched<UdpSocket>,
    listener: Watched<TcpListener>,
    directories: Vec<Directory>,
    servers: Vec<IpAddr>,
    passed: HashMap<u32, Passed>,
    clients: HashMap<u32, Client>,
    next: u32,
}

impl Server {
    pub(super) fn new(datagrams: UdpSocket, listener: TcpListener, kinds: Kinds, poller: &Poller) -> std::io::Result<Server> {
        datagrams.set_nonblocking(true)?;
        listener.set_nonblocking(true)?;
        Ok(Server {
            kinds,
            datagrams: Watched::reading(datagrams, Token::new(kinds.datagrams, 0), poller)?,
            listener: Watched::reading(listener, Token::new(kinds.listener, 0), poller)?,
            directories: Vec::new(),
            servers: Vec::new(),
            passed: HashMap::new(),
            clients: HashMap::new(),
            next: 0,
        })
    }

    /// From now on these are the networks whose names count, and the servers that know all else.
    pub(super) fn set(&mut self, directories: Vec<Directory>, servers: Vec<IpAddr>) {
        (self.directories, self.servers) = (directories, servers);
    }

    /// Answers what has come by UDP, or passes it on.
    pub(super) fn on_datagrams(&mut self, buffer: &mut [u8], poller: &Poller) {
        for _ in 0..TURNS {
            let Ok((length, client)) = self.datagrams.io.recv_from(buffer) else { return };
            let message = &buffer[..length];
            let answer = match message::question(message) {
                None => message::refusal(message),
                Some(question) => match self.known(&question) {
                    Some(records) => Some(question.answer(&records, TTL, true)),
                    None => self.pass(question, message.to_vec(), client, poller),
                },
            };
            if let Some(answer) = answer {
                let _ = self.datagrams.io.send_to(&answer, client);
            }
        }
    }

    /// The records of a name or address of ours; `None` where it is none.
    fn known(&mut self, question: &Question) -> Option<Vec<Record>> {
        if !question.is_internet() {
            return None;
        }
        if question.kind == PTR {
            let address = question.address()?;
            let found = self.directories.iter_mut().find_map(|directory| Some((directory.at(address)?, directory.network.clone())))?;
            let (names, network) = found;
            return Some(names.names.first().map(|name| Record::Name(format!("{name}.{network}"))).into_iter().collect());
        }
        let name = question.name.as_deref().filter(|name| !name.is_empty())?;
        let mut found = self.directories.iter_mut().flat_map(|directory| directory.named(name)).collect();
        found = merged(found);
        if found.is_empty() {
            return None;
        }
        // Each of several gets its share of those who take the first.
        let first = usize::from(random()) % found.len();
        found.rotate_left(first);
        Some(match question.kind {
            A => found.iter().map(|names| Record::Address(names.v4.into())).collect(),
            AAAA => found.iter().filter_map(|names| names.v6).map(|address| Record::Address(address.into())).collect(),
            _ => Vec::new(),
        })
    }

    /// Passes a question on; gives the answer where there is nobody to pass it on to.
    fn pass(&mut self, question: Question, message: Vec<u8>, client: SocketAddr, poller: &Poller) -> Option<Vec<u8>> {
        if self.servers.is_empty() || self.passed.len() >= MAX_PASSED {
            return Some(question.failure(SERVER_FAILURE));
        }
        let id = self.free_id();
        for server in 0..self.servers.len() {
            if let Some((socket, number)) = self.ask(server, &message, id, poller) {
                let deadline = Instant::now() + PATIENCE;
                self.passed.insert(id, Passed { socket, question, message, id: number, client, server, deadline });
                return None;
            }
        }
        Some(question.failure(SERVER_FAILURE))
    }

    fn free_id(&mut self) -> u32 {
        while self.passed.contains_key(&self.next) || self.clients.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        self.next
    }

    fn ask(&self, server: usize, message: &[u8], id: u32, poller: &Poller) -> Option<(Watched<UdpSocket>, u16)> {
        let server = *self.servers.get(server)?;
        let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.set_nonblocking(true).and_then(|()| socket.connect((server, PORT))).ok()?;
        let number = random();
        let mut message = message.to_vec();
        message.get_mut(..2)?.copy_from_slice(&number.to_be_bytes());
        socket.send(&message).ok()?;
        Some((Watched::reading(socket, Token::new(self.kinds.passed, id), poller).ok()?, number))
    }

    /// Gives the client what a server has answered.
    pub(super) fn on_answer(&mut self, id: u32, buffer: &mut [u8], poller: &Poller) {
        let Some(passed) = self.passed.get(&id) else { return };
        let most = buffer.len().min(MAX_ANSWER);
        match passed.socket.io.recv(&mut buffer[..most]) {
            Ok(length) if passed.question.is_answered_by(&buffer[..length], passed.id) => {
                if message::is_given_up(&buffer[..length]) && passed.server + 1 < self.servers.len() {
                    return self.ask_next(id, poller);
                }
                buffer[..2].copy_from_slice(&passed.question.id.to_be_bytes());
                let _ = self.datagrams.io.send_to(&buffer[..length], passed.client);
                self.passed.remove(&id);
            }
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => self.ask_next(id, poller),
            // Not the answer to what was asked.
            _ => {}
        }
    }

    /// Gives a server up for the next one, and the question where there is none.
    fn ask_next(&mut self, id: u32, poller: &Poller) {
        let Some(mut passed) = self.passed.remove(&id) else { return };
        for server in passed.server + 1..self.servers.len() {
            if let Some((socket, number)) = self.ask(server, &passed.message, id, poller) {
                (passed.socket, passed.id, passed.server) = (socket, number, server);
                passed.deadline = Instant::now() + PATIENCE;
                self.passed.insert(id, passed);
                return;
            }
        }
        let _ = self.datagrams.io.send_to(&passed.question.failure(SERVER_FAILURE), passed.client);
    }

    /// Takes connections.
    pub(super) fn on_connection(&mut self, poller: &Poller) {
        for _ in 0..TURNS {
            let Ok((stream, _)) = self.listener.io.accept() else { return };
            if self.clients.len() >= MAX_CLIENTS || stream.set_nonblocking(true).is_err() {
                continue;
            }
            let id = self.free_id();
            if let Ok(stream) = Watched::reading(stream, Token::new(self.kinds.client, id), poller) {
                self.clients.insert(id, Client { stream, incoming: Vec::new(), heard: Instant::now() });
            }
        }
    }

    /// Reads what a connection asks. One whose question is not for us is handed over.
    pub(super) fn on_client(&mut self, id: u32, buffer: &mut [u8], poller: &Poller) -> Turn {
        let turn = self.serve(id, buffer, poller);
        if !matches!(turn, Turn::Goes) {
            self.clients.remove(&id);
        }
        turn
    }

    fn serve(&mut self, id: u32, buffer: &mut [u8], poller: &Poller) -> Turn {
        let Some(client) = self.clients.get_mut(&id) else { return Turn::Ends };
        match client.stream.io.read(buffer) {
            Ok(0) => return Turn::Ends,
            Ok(length) => client.incoming.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Turn::Goes,
            Err(_) => return Turn::Ends,
        }
        client.heard = Instant::now();
        let mut incoming = std::mem::take(&mut client.incoming);
        // Two bytes say how long the message is.
        while let Some((length, rest)) = incoming.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some(message) = rest.get(..length) else { break };
            let Some(question) = message::question(message) else { return Turn::Ends };
            let answer = match self.known(&question) {
                Some(records) => question.answer(&records, TTL, false),
                None => match self.servers.first() {
                    Some(server) => {
                        let Some(client) = self.clients.remove(&id) else { return Turn::Ends };
                        let server = SocketAddr::new(*server, PORT);
                        return client.stream.release(poller).map_or(Turn::Ends, |stream| Turn::Passes(stream.into(), server, incoming));
                    }
                    None => question.failure(SERVER_FAILURE),
                },
            };
            let framed = [&u16::try_from(answer.len()).unwrap_or(0).to_be_bytes()[..], &answer].concat();
            let Some(client) = self.clients.get_mut(&id) else { return Turn::Ends };
            // An answer fits into the buffer of a connection whose client reads; one that does not is cut off.
            if client.stream.io.write_all(&framed).is_err() {
                return Turn::Ends;
            }
            incoming.drain(..2 + length);
        }
        if let Some(client) = self.clients.get_mut(&id) {
            client.incoming = incoming;
        }
        Turn::Goes
    }

    /// Gives up what takes too long, and says when to look again.
    pub(super) fn expire(&mut self, now: Instant, poller: &Poller) -> Option<Duration> {
        let late: Vec<u32> = self.passed.iter().filter(|(_, passed)| passed.deadline <= now).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.ask_next(id, poller));
        self.clients.retain(|_, client| now.duration_since(client.heard) < SILENCE);
        let questions = self.passed.values().map(|passed| passed.deadline);
        let clients = self.clients.values().map(|client| client.heard + SILENCE);
        questions.chain(clients).min().map(|at| at.saturating_duration_since(now).max(Duration::from_millis(10)))
    }
}

/// A number that nobody can guess; where the kernel gives none, one by the clock.
fn random() -> u16 {
    let mut bytes = [0; 2];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u16::from_ne_bytes(bytes),
        Err(_) => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(7, |time| time.subsec_micros() as u16),
    }
}
