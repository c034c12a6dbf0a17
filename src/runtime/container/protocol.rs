//! What clients and a supervisor say to each other, over `attach.sock` or the socket that the starter passes as the supervisor's standard input.
//!
//! ```text
//!   client                                   supervisor
//!     |-- Subscribe (all output from now on)    |     the starter's own connection is subscribed from the first byte
//!     |-- Stdin(bytes) ... StdinEnd             |---> the container's input
//!     |-- Resize, Signal                        |---> its terminal, its PID 1
//!     |   <-- Stdout(bytes), Stderr(bytes) -----|<--- its output (a terminal's is all Stdout)
//!     |-- Detach, then closes                   |     the input stays open
//!     |-- RequestPart ... Exec                  |     from here on the connection is that of a new command, served by a process of its own (`exec.rs`)
//!     |   <-- Started or Failed ----------------|
//!     |-- Networks                              |     config.json names other networks
//!     |   <-- Networks (how that went) ---------|
//!     |-- Root                                  |     the container's root directory is wanted
//!     |   <-- Root, with a descriptor ----------|     and nothing else is said over this connection
//!     |-- ToExec(ID, frame)                     |---> passed on to that process, over another connection
//!     |   <-- Exited, then closes --------------|     after the last byte of output, to every client, subscribed or not
//! ```
//!
//! A frame is a byte for its kind, the payload's length (32 bits, little-endian), and the payload of at most [`MAX_PAYLOAD`] bytes. Who breaks the rules is cut off.
//! Signals and sizes that must overtake input under way are sent over a second connection.

use crate::runtime::TerminalSize;

/// The longest payload of a frame.
pub(super) const MAX_PAYLOAD: usize = 64 * 1024;
const HEADER: usize = 5;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClientFrame<'a> {
    Subscribe,
    Stdin(&'a [u8]),
    StdinEnd,
    Resize(TerminalSize),
    Signal(i32),
    Detach,
    /// A piece of the JSON of an [`ExecRequest`](super::ExecRequest).
    RequestPart(&'a [u8]),
    /// The request is complete.
    Exec,
    /// A frame, encoded, for the command with this ID.
    ToExec(&'a [u8; EXEC_ID], &'a [u8]),
    /// The container's networks or names have changed in its spec.
    Networks,
    /// The container's root directory is wanted, as a descriptor.
    Root,
}

/// The length of a command's ID.
pub(super) const EXEC_ID: usize = 64;

/// What the supervisor says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServerFrame<'a> {
    Stdout(&'a [u8]),
    Stderr(&'a [u8]),
    Exited {
        code: u8,
        oom_killed: bool,
    },
    /// The command runs; its process ID, as the host sees it.
    Started(u32),
    /// It could not be started: a [`Report`](super::start::Report) in JSON.
    Failed(&'a [u8]),
    /// The container is on the networks of its spec; or why it is not, as a message.
    Networks(&'a [u8]),
}

/// The other side broke the rules of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl<'a> ClientFrame<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ClientFrame::Subscribe => frame(out, 0, &[]),
            ClientFrame::Stdin(bytes) => frame(out, 1, bytes),
            ClientFrame::StdinEnd => frame(out, 2, &[]),
            ClientFrame::Resize(size) => {
                let ([a, b], [c, d]) = (size.rows.to_le_bytes(), size.columns.to_le_bytes());
                frame(out, 3, &[a, b, c, d]);
            }
            ClientFrame::Signal(signal) => frame(out, 4, &signal.to_le_bytes()),
            ClientFrame::Detach => frame(out, 5, &[]),
            ClientFrame::RequestPart(bytes) => frame(out, 6, bytes),
            ClientFrame::Exec => frame(out, 7, &[]),
            ClientFrame::ToExec(id, inner) => frame(out, 8, &[id.as_slice(), inner].concat()),
            ClientFrame::Networks => frame(out, 9, &[]),
            ClientFrame::Root => frame(out, 10, &[]),
        }
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<ClientFrame<'a>, Broken> {
        match (kind, payload) {
            (0, []) => Ok(ClientFrame::Subscribe),
            (1, bytes) => Ok(ClientFrame::Stdin(bytes)),
            (2, []) => Ok(ClientFrame::StdinEnd),
            (3, &[a, b, c, d]) => {
                Ok(ClientFrame::Resize(TerminalSize { rows: u16::from_le_bytes([a, b]), columns: u16::from_le_bytes([c, d]) }))
            }
            (4, &[a, b, c, d]) => Ok(ClientFrame::Signal(i32::from_le_bytes([a, b, c, d]))),
            (5, []) => Ok(ClientFrame::Detach),
            (6, bytes) => Ok(ClientFrame::RequestPart(bytes)),
            (7, []) => Ok(ClientFrame::Exec),
            (8, bytes) => bytes.split_first_chunk().map(|(id, inner)| ClientFrame::ToExec(id, inner)).ok_or(Broken),
            (9, []) => Ok(ClientFrame::Networks),
            (10, []) => Ok(ClientFrame::Root),
            _ => Err(Broken),
        }
    }
}

impl<'a> ServerFrame<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            ServerFrame::Stdout(bytes) => frame(out, 1, bytes),
            ServerFrame::Stderr(bytes) => frame(out, 2, bytes),
            ServerFrame::Exited { code, oom_killed } => frame(out, 3, &[*code, u8::from(*oom_killed)]),
            ServerFrame::Started(pid) => frame(out, 4, &pid.to_le_bytes()),
            ServerFrame::Failed(report) => frame(out, 5, report),
            ServerFrame::Networks(message) => frame(out, 6, message),
        }
    }

    fn decode(kind: u8, payload: &'a [u8]) -> Result<ServerFrame<'a>, Broken> {
        match (kind, payload) {
            (1, bytes) => Ok(ServerFrame::Stdout(bytes)),
            (2, bytes) => Ok(ServerFrame::Stderr(bytes)),
            (3, &[code, oom]) => Ok(ServerFrame::Exited { code, oom_killed: oom != 0 }),
            (4, &[a, b, c, d]) => Ok(ServerFrame::Started(u32::from_le_bytes([a, b, c, d]))),
            (5, report) => Ok(ServerFrame::Failed(report)),
            (6, message) => Ok(ServerFrame::Networks(message)),
            _ => Err(Broken),
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    debug_assert!(payload.len() <= MAX_PAYLOAD, "callers read no more at once");
    out.push(kind);
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(payload);
}

/// Bytes that have arrived, and where the next frame begins in them. Holds at most one frame more than what was put in at once.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    start: usize,
}

impl Incoming {
    /// Adds bytes from the socket.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame of a client.
    pub(super) fn next_of_client(&mut self) -> Result<Option<ClientFrame<'_>>, Broken> {
        self.next().map_or(Ok(None), |raw| raw.and_then(|(kind, payload)| ClientFrame::decode(kind, payload)).map(Some))
    }

    /// The next whole frame of a supervisor.
    pub(super) fn next_of_server(&mut self) -> Result<Option<ServerFrame<'_>>, Broken> {
        self.next().map_or(Ok(None), |raw| raw.and_then(|(kind, payload)| ServerFrame::decode(kind, payload)).map(Some))
    }

    fn next(&mut self) -> Option<Result<(u8, &[u8]), Broken>> {
        let header: [u8; HEADER] = self.bytes.get(self.start..self.start + HEADER)?.try_into().ok()?;
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        if length > MAX_PAYLOAD {
            return Some(Err(Broken));
        }
        let begin = self.start + HEADER;
        let payload = self.bytes.get(begin..begin + length)?;
        self.start = begin + length;
        Some(Ok((header[0], payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_however_the_bytes_are_cut() {
        let sent = [
            ClientFrame::Subscribe,
            ClientFrame::Stdin(b"abc"),
            ClientFrame::Resize(TerminalSize { rows: 24, columns: 300 }),
            ClientFrame::Signal(15),
            ClientFrame::StdinEnd,
            ClientFrame::Detach,
            ClientFrame::RequestPart(b"{"),
            ClientFrame::Exec,
            ClientFrame::ToExec(&[b'a'; EXEC_ID], &[2, 0, 0, 0, 0]),
        ];
        let mut bytes = Vec::new();
        sent.iter().for_each(|frame| frame.encode(&mut bytes));
        for size in [1, 2, 7, bytes.len()] {
            let (mut incoming, mut seen) = (Incoming::default(), 0);
            for piece in bytes.chunks(size) {
                incoming.push(piece);
                while let Some(frame) = incoming.next_of_client().unwrap() {
                    assert_eq!(frame, sent[seen]);
                    seen += 1;
                }
            }
            assert_eq!(seen, sent.len());
        }
    }

    #[test]
    fn foreign_bytes_are_refused() {
        for bytes in [&[99, 0, 0, 0, 0][..], &[1, 255, 255, 255, 255], &[4, 1, 0, 0, 0, 7], &[0, 1, 0, 0, 0, 0], &[8, 1, 0, 0, 0, 7]] {
            let mut incoming = Incoming::default();
            incoming.push(bytes);
            assert_eq!(incoming.next_of_client(), Err(Broken), "{bytes:?}");
        }
    }
}
