//! Waiting for many descriptors at once, each with the number of whom it belongs to.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

/// What a descriptor is waited for.
pub(super) type Interest = EventFlags;
pub(super) const READ: Interest = EventFlags::IN;
pub(super) const WRITE: Interest = EventFlags::OUT;
pub(super) const BROKEN: Interest = EventFlags::ERR;

/// Whose a descriptor is: what kind of thing, and which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: u8,
    pub(super) id: u32,
    /// Which end of a connection.
    pub(super) side: u8,
}

impl Token {
    pub(super) fn new(kind: u8, id: u32) -> Token {
        Token { kind, id, side: 0 }
    }

    fn number(self) -> u64 {
        u64::from(self.kind) << 40 | u64::from(self.side) << 32 | u64::from(self.id)
    }

    fn of(number: u64) -> Token {
        let [kind, side] = [(number >> 40) as u8, (number >> 32) as u8];
        Token { kind, id: number as u32, side }
    }
}

/// The kernel's list of descriptors that are waited for.
#[derive(Debug)]
pub(super) struct Poller(OwnedFd);

impl Poller {
    pub(super) fn new() -> io::Result<Poller> {
        Ok(Poller(epoll::create(CreateFlags::CLOEXEC)?))
    }

    /// Waits, and gives what has something to say.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> Vec<(Token, Interest)> {
        let timeout = timeout.map(|time| Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() });
        let mut events = Vec::with_capacity(64);
        // Interrupted or out of memory: the next round asks again.
        let _ = epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events), timeout.as_ref());
        events.iter().map(|event| (Token::of(event.data.u64()), event.flags)).collect()
    }
}

/// A descriptor that is waited for, until it is dropped.
#[derive(Debug)]
pub(super) struct Watched<T> {
    pub(super) io: T,
    token: Token,
    interest: Interest,
}

impl<T: AsFd> Watched<T> {
    /// One that is not waited for yet.
    pub(super) fn new(io: T, token: Token) -> Watched<T> {
        Watched { io, token, interest: Interest::empty() }
    }

    /// One that is waited for.
    pub(super) fn reading(io: T, token: Token, poller: &Poller) -> io::Result<Watched<T>> {
        let mut watched = Watched::new(io, token);
        watched.want(poller, READ)?;
        Ok(watched)
    }

    /// Says what it is waited for from now on. For nothing means that not even its end is told, which would otherwise be told again and again.
    pub(super) fn want(&mut self, poller: &Poller, interest: Interest) -> io::Result<()> {
        if interest == self.interest {
            return Ok(());
        }
        let data = EventData::new_u64(self.token.number());
        if self.interest.is_empty() {
            epoll::add(&poller.0, &self.io, data, interest)?;
        } else if interest.is_empty() {
            epoll::delete(&poller.0, &self.io)?;
        } else {
            epoll::modify(&poller.0, &self.io, data, interest)?;
        }
        self.interest = interest;
        Ok(())
    }

    /// The descriptor, which nobody waits for any more.
    pub(super) fn release(mut self, poller: &Poller) -> io::Result<T> {
        self.want(poller, Interest::empty())?;
        Ok(self.io)
    }
}
