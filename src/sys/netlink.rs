//! Netlink: building messages, and the request/answer conversation with the kernel over one socket.
//!
//! A socket belongs to the network namespace in which it was opened, for ever; whoever wants to act on two namespaces from one thread opens two sockets.
//! This file knows the framing (headers, attributes, acknowledgements, dumps) and no family's messages: what a message means lives with its caller.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// The message is a request; every message of ours is.
const NLM_F_REQUEST: u16 = 1;
/// An acknowledgement is asked for.
const NLM_F_ACK: u16 = 4;
/// Everything that matches is asked for (`NLM_F_ROOT | NLM_F_MATCH`).
const NLM_F_DUMP: u16 = 0x300;
/// Fail with `EEXIST` where the object exists.
pub const NLM_F_EXCL: u16 = 0x200;
/// Make the object where it does not exist.
pub const NLM_F_CREATE: u16 = 0x400;
/// Put the object at the end of its list (rules).
pub const NLM_F_APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The first type that belongs to a family; those below are the framing's own.
const NLMSG_MIN_TYPE: u16 = 16;
const HEADER: usize = 16;
const NLA_F_NESTED: u16 = 0x8000;
/// Strips the flags off an attribute's type.
const NLA_TYPE_MASK: u16 = 0x3fff;
/// As large as the kernel makes its answers.
const BUFFER: usize = 64 * 1024;
/// The group of those who are told about links (rtnetlink(7)).
const RTMGRP_LINK: u32 = 1;
/// The same for tables, chains and rules of nf_tables (`NFNLGRP_NFTABLES`, of which this is the bit).
const GROUP_NFTABLES: u32 = 1 << 6;
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// One request under construction: a header, a fixed body, then attributes.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of type `kind` with more `flags` than the obvious, and the fixed `body` of its family.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Message {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(body);
        pad(&mut bytes);
        Message { bytes }
    }

    /// Adds an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Message {
        put(&mut self.bytes, kind, value);
        self
    }

    /// Adds an attribute that is a number in the host's order (rtnetlink).
    pub fn number(self, kind: u16, value: u32) -> Message {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds an attribute that names an open descriptor of this process, which must be open until the message has been sent.
    pub fn descriptor(self, kind: u16, fd: BorrowedFd<'_>) -> Message {
        self.attribute(kind, &fd.as_raw_fd().to_ne_bytes())
    }

    /// Adds an attribute that is a number in the network's order (nf_tables).
    pub fn number_be(self, kind: u16, value: u32) -> Message {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that is a NUL-terminated string.
    pub fn text(self, kind: u16, value: &str) -> Message {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an attribute made of attributes; `fill` adds them.
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Message) -> Message) -> Message {
        let start = self.bytes.len();
        put(&mut self.bytes, kind | NLA_F_NESTED, &[]);
        let mut filled = fill(self);
        let length = u16::try_from(filled.bytes.len() - start).unwrap_or(u16::MAX);
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// Adds a fixed structure in the middle of a nest (the header of a veth's peer).
    pub fn raw(mut self, value: &[u8]) -> Message {
        self.bytes.extend_from_slice(value);
        pad(&mut self.bytes);
        self
    }

    fn finish(mut self, sequence: u32, flags: u16, out: &mut Vec<u8>) {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | flags;
        self.bytes[0..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&self.bytes);
    }
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
    bytes.extend_from_slice(&length.to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(value);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One object of a dump.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The message's type.
    pub kind: u16,
    /// The fixed body and the attributes.
    pub payload: Vec<u8>,
}

impl Reply {
    /// The fixed body, where the message is long enough for it.
    pub fn body<const N: usize>(&self) -> Option<[u8; N]> {
        self.payload.get(..N)?.try_into().ok()
    }

    /// The attributes after a body of `skip` bytes.
    pub fn attributes(&self, skip: usize) -> Attributes<'_> {
        Attributes::new(self.payload.get(skip.next_multiple_of(4)..).unwrap_or_default())
    }
}

/// Walks over attributes: their types without flags, and their values. Stops at the first that is not whole.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// The attributes in `bytes`, such as the value of a nest.
    pub fn new(bytes: &'a [u8]) -> Attributes<'a> {
        Attributes { rest: bytes }
    }

    /// The value of the first attribute of that type.
    pub fn value(&self, kind: u16) -> Option<&'a [u8]> {
        Attributes::new(self.rest).find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// That attribute as a number in the host's order.
    pub fn number(&self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.value(kind)?.try_into().ok()?))
    }

    /// That attribute as a number in the network's order.
    pub fn number_be(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.value(kind)?.try_into().ok()?))
    }

    /// That attribute as a long number in the network's order.
    pub fn long_be(&self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.value(kind)?.try_into().ok()?))
    }

    /// That attribute as a string.
    pub fn text(&self, kind: u16) -> Option<&'a str> {
        let value = self.value(kind)?;
        std::str::from_utf8(value.strip_suffix(&[0]).unwrap_or(value)).ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.rest.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.rest.get(2..4)?.try_into().ok()?) & NLA_TYPE_MASK;
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// A conversation with one family of the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket for links, addresses and routes.
    pub fn route() -> io::Result<Netlink> {
        Netlink::open(None)
    }

    /// Opens a socket for netfilter.
    pub fn netfilter() -> io::Result<Netlink> {
        Netlink::open(Some(NETFILTER))
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Netlink> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        // The kernel answers at once; waiting without end for an answer that some version leaves out would be worse than an error.
        rustix::net::sockopt::set_socket_timeout(&fd, rustix::net::sockopt::Timeout::Recv, Some(ANSWER_WITHIN))?;
        Ok(Netlink { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Opens a socket that becomes readable when a link comes, goes or changes. Reading it does not block.
    pub fn watch_links() -> io::Result<OwnedFd> {
        Netlink::watch(None, RTMGRP_LINK)
    }

    /// Opens a socket that becomes readable when somebody changes the packet filter. Reading it does not block.
    pub fn watch_filter() -> io::Result<OwnedFd> {
        Netlink::watch(Some(NETFILTER), GROUP_NFTABLES)
    }

    fn watch(protocol: Option<rustix::net::Protocol>, group: u32) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, group))?;
        Ok(fd)
    }

    /// Sends one request and waits until the kernel has done it.
    pub fn request(&mut self, message: Message) -> io::Result<()> {
        self.requests(vec![message])
    }

    /// Sends requests in one go and waits until the kernel has done them all. Those after a failed one are still done; the first failure is reported.
    pub fn requests(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let first = self.sequence + 1;
        let mut bytes = Vec::with_capacity(messages.len() * 128);
        for message in messages {
            self.sequence += 1;
            message.finish(self.sequence, NLM_F_ACK, &mut bytes);
        }
        self.send(&bytes)?;
        self.acknowledged(first, self.sequence)
    }

    /// Sends `messages` between `begin` and `end` as one transaction: all of it happens or nothing.
    pub fn transaction(&mut self, begin: Message, messages: Vec<Message>, end: Message) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(messages.len() * 256);
        self.sequence += 1;
        begin.finish(self.sequence, 0, &mut bytes);
        let first = self.sequence + 1;
        for message in messages {
            self.sequence += 1;
            message.finish(self.sequence, NLM_F_ACK, &mut bytes);
        }
        let last = self.sequence;
        self.sequence += 1;
        end.finish(self.sequence, 0, &mut bytes);
        self.send(&bytes)?;
        self.acknowledged(first, last)
    }

    /// Asks for one object.
    pub fn ask(&mut self, message: Message) -> io::Result<Reply> {
        self.sequence += 1;
        let sequence = self.sequence;
        let mut bytes = Vec::new();
        message.finish(sequence, NLM_F_ACK, &mut bytes);
        self.send(&bytes)?;
        let mut found = None;
        loop {
            for frame in self.receive()?.into_iter().filter(|frame| frame.sequence == sequence) {
                match frame.kind {
                    NLMSG_ERROR => return frame.result().and_then(|()| found.ok_or_else(|| io::ErrorKind::NotFound.into())),
                    kind if kind >= NLMSG_MIN_TYPE => found = Some(Reply { kind, payload: frame.payload }),
                    _ => {}
                }
            }
        }
    }

    /// Asks for all objects that match `message`.
    pub fn dump(&mut self, message: Message) -> io::Result<Vec<Reply>> {
        let mut replies = Vec::new();
        self.dump_each(message, |reply| replies.push(reply))?;
        Ok(replies)
    }

    /// The same, one after the other: there may be tens of thousands.
    pub fn dump_each(&mut self, message: Message, mut each: impl FnMut(Reply)) -> io::Result<()> {
        self.sequence += 1;
        let sequence = self.sequence;
        let mut bytes = Vec::new();
        message.finish(sequence, NLM_F_DUMP, &mut bytes);
        self.send(&bytes)?;
        loop {
            for frame in self.receive()? {
                if frame.sequence != sequence {
                    continue;
                }
                match frame.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => frame.result()?,
                    kind if kind >= NLMSG_MIN_TYPE => each(Reply { kind, payload: frame.payload }),
                    _ => {}
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(&self.fd, bytes, SendFlags::empty()))?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Waits for the answers to the requests `first..=last`. The kernel answers in order; nf_tables answers a broken transaction's
    /// framing (no such subsystem, no permission) under the number of the message before `first`, and then says nothing more.
    fn acknowledged(&mut self, first: u32, last: u32) -> io::Result<()> {
        let mut outcome = Ok(());
        if first > last {
            return outcome;
        }
        loop {
            for frame in self.receive()? {
                if frame.kind != NLMSG_ERROR || frame.sequence + 1 < first || frame.sequence > last {
                    continue;
                }
                let result = frame.result();
                if frame.sequence < first {
                    return result;
                }
                outcome = outcome.and(result);
                if frame.sequence == last {
                    return outcome;
                }
            }
        }
    }

    fn receive(&mut self) -> io::Result<Vec<Frame>> {
        let fd = &self.fd;
        let buffer = &mut self.buffer;
        let (length, _) = rustix::io::retry_on_intr(|| rustix::net::recv(fd, &mut buffer[..], RecvFlags::empty()))?;
        Ok(frames(self.buffer.get(..length).unwrap_or_default()))
    }
}

/// One message from the kernel.
struct Frame {
    kind: u16,
    sequence: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// What an `NLMSG_ERROR` says; zero is the acknowledgement.
    fn result(&self) -> io::Result<()> {
        let code = self.payload.get(..4).and_then(|b| b.try_into().ok()).map_or(0, i32::from_ne_bytes);
        if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code.saturating_neg())) }
    }
}

fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    while let Some(header) = bytes.get(..HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(payload) = bytes.get(HEADER..length) else { break };
        found.push(Frame {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload: payload.to_vec(),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_of_a_nest_are_read_back() {
        let message = Message::new(16, 0, &[1, 2, 3, 4]).text(3, "eth0").nest(18, |m| m.number(1, 7).text(2, "veth"));
        let reply = Reply { kind: 16, payload: message.bytes[HEADER..].to_vec() };
        assert_eq!(reply.body::<4>(), Some([1, 2, 3, 4]));
        assert_eq!(reply.attributes(4).text(3), Some("eth0"));
        let inner = Attributes::new(reply.attributes(4).value(18).unwrap());
        assert_eq!((inner.number(1), inner.text(2)), (Some(7), Some("veth")));
    }

    #[test]
    fn cut_attributes_end_the_walk() {
        for bytes in [&[][..], &[8], &[8, 0, 1, 0, 1], &[0, 0, 1, 0], &[3, 0, 1, 0, 9, 9, 9, 9]] {
            assert_eq!(Attributes::new(bytes).count(), 0, "{bytes:?}");
        }
        assert!(frames(&[255; 20]).is_empty());
    }

    #[test]
    fn the_loopback_link_is_in_a_dump() {
        let mut netlink = Netlink::route().unwrap();
        let links = netlink.dump(Message::new(18, 0, &[0; 16])).unwrap();
        assert!(links.iter().any(|link| link.attributes(16).text(3) == Some("lo")));
    }

    #[test]
    fn a_refused_request_is_an_error_with_the_kernel_s_number() {
        let mut netlink = Netlink::route().unwrap();
        let delete = Message::new(17, 0, &[0; 16]).text(3, "no-such-link");
        assert!(netlink.request(delete).unwrap_err().raw_os_error().is_some());
    }
}
