//! Calls over D-Bus (its specification, "Message Protocol"), as far as systemd needs them: methods with a few types of values, their replies, and signals.
//!
//! By hand, as the alternatives bring an asynchronous runtime with threads, and `create` must have one thread: what is needed of the protocol is less than what
//! would be needed to keep such a library quiet. A connection lives for one operation.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::{Deserialize, Serialize};

/// How long the other side may take for an answer, and to let somebody in.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is said first; nobody waits for the answers before all of it is said.
const ENTER: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";

/// The longest message that is taken.
const MAX_MESSAGE: usize = 16 << 20;

const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// A socket that a bus listens at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BusSocket {
    /// A file.
    Path(PathBuf),
    /// A name of the network namespace.
    Abstract(Vec<u8>),
}

impl BusSocket {
    /// The sockets of a list of addresses ("Server Addresses"), in the order in which they are to be tried: `unix:path=` and `unix:abstract=`. Other transports are none that systemd is on, and what
    /// is malformed leads nowhere.
    pub fn of_addresses(text: &str) -> Vec<BusSocket> {
        let socket = |address: &str| {
            let mut entries = address.strip_prefix("unix:")?.split(',').filter_map(|entry| entry.split_once('='));
            entries.find_map(|(key, value)| match key {
                "path" => Some(BusSocket::Path(OsString::from_vec(unescaped(value)?).into())),
                "abstract" => Some(BusSocket::Abstract(unescaped(value)?)),
                _ => None,
            })
        };
        text.split(';').filter_map(socket).collect()
    }

    fn address(&self) -> io::Result<SocketAddrUnix> {
        Ok(match self {
            BusSocket::Path(path) => SocketAddrUnix::new(path)?,
            BusSocket::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
        })
    }
}

/// A value of an address: `%` and two hexadecimal digits are a byte.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let digit = |bytes: &mut std::str::Bytes<'_>| char::from(bytes.next()?).to_digit(16);
    let mut all = Vec::new();
    while let Some(byte) = bytes.next() {
        all.push(match byte {
            b'%' => (digit(&mut bytes)? * 16 + digit(&mut bytes)?) as u8,
            other => other,
        });
    }
    Some(all)
}

/// A value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Texts(Vec<String>),
    Bool(bool),
    I32(i32),
    I64(i64),
    U32(u32),
    U32s(Vec<u32>),
    U64(u64),
    Bytes(Vec<u8>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Value::Text(_) => "s",
            Value::Texts(_) => "as",
            Value::Bool(_) => "b",
            Value::I32(_) => "i",
            Value::I64(_) => "x",
            Value::U32(_) => "u",
            Value::U32s(_) => "au",
            Value::U64(_) => "t",
            Value::Bytes(_) => "ay",
        }
    }
}

/// Bytes of a message, each value at a multiple of its size.
#[derive(Debug, Default)]
pub(super) struct Body(Vec<u8>);

impl Body {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    pub(super) fn u32(&mut self, number: u32) -> &mut Body {
        self.align(4);
        self.0.extend(number.to_le_bytes());
        self
    }

    fn u64(&mut self, number: u64) -> &mut Body {
        self.align(8);
        self.0.extend(number.to_le_bytes());
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Body {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
        self
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    /// An array, whose items start at multiples of `alignment`.
    fn array(&mut self, alignment: usize, fill: impl FnOnce(&mut Body)) -> &mut Body {
        self.u32(0);
        let length = self.0.len() - 4;
        self.align(alignment);
        let start = self.0.len();
        fill(self);
        let bytes = (self.0.len() - start) as u32;
        self.0[length..length + 4].copy_from_slice(&bytes.to_le_bytes());
        self
    }

    fn variant(&mut self, value: &Value) {
        self.signature(value.signature());
        match value {
            Value::Text(text) => self.text(text),
            Value::Texts(texts) => self.array(4, |body| {
                for text in texts {
                    body.text(text);
                }
            }),
            Value::Bool(is) => self.u32((*is).into()),
            Value::I32(number) => self.u32(number.cast_unsigned()),
            Value::I64(number) => self.u64(number.cast_unsigned()),
            Value::U32(number) => self.u32(*number),
            Value::U32s(numbers) => self.array(4, |body| {
                for number in numbers {
                    body.u32(*number);
                }
            }),
            Value::U64(number) => self.u64(*number),
            Value::Bytes(bytes) => self.array(1, |body| body.0.extend(bytes)),
        };
    }

    /// Names with values: `a(sv)`.
    pub(super) fn properties(&mut self, list: &[(String, Value)]) -> &mut Body {
        self.array(8, |body| {
            for (name, value) in list {
                body.align(8);
                body.text(name).variant(value);
            }
        })
    }

    /// Nothing of what could be told of further units: an empty `a(sa(sv))`.
    pub(super) fn no_units(&mut self) -> &mut Body {
        self.array(8, |_| {})
    }
}

/// Reads values out of a message that came.
#[derive(Debug)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, alignment: usize, length: usize) -> Option<&'a [u8]> {
        let start = self.at.next_multiple_of(alignment);
        let found = self.bytes.get(start..start.checked_add(length)?)?;
        self.at = start + length;
        Some(found)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1, 1)?[0])
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4, 4)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let text = String::from_utf8(self.take(1, length)?.to_vec()).ok()?;
        self.byte().map(|_| text)
    }

    fn signature(&mut self) -> Option<String> {
        let length = self.byte()?.into();
        let text = String::from_utf8(self.take(1, length)?.to_vec()).ok()?;
        self.byte().map(|_| text)
    }
}

/// A message that came.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    member: String,
    error: String,
    reply_to: u32,
    /// The types of what it holds.
    signature: String,
    body: Vec<u8>,
}

impl Message {
    /// The header's fields; those that nobody here asks for are left out.
    fn new(kind: u8, fields: &[u8], body: Vec<u8>) -> Option<Message> {
        let mut message = Message { kind, body, ..Message::default() };
        let mut reader = Reader { bytes: fields, at: 0 };
        while reader.at < fields.len() {
            reader.take(8, 0)?;
            let field = reader.byte()?;
            match (field, reader.signature()?.as_str()) {
                (MEMBER, "s") => message.member = reader.text()?,
                (ERROR_NAME, "s") => message.error = reader.text()?,
                (REPLY_SERIAL, "u") => message.reply_to = reader.u32()?,
                (SIGNATURE, "g") => message.signature = reader.signature()?,
                (_, "s" | "o") => drop(reader.text()?),
                (_, "u") => drop(reader.u32()?),
                (_, "g") => drop(reader.signature()?),
                _ => return None,
            }
        }
        Some(message)
    }

    fn texts(&self) -> Reader<'_> {
        Reader { bytes: &self.body, at: 0 }
    }
}

/// What the other side refused, by the name of its error.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({name})")]
pub(super) struct Refused {
    pub(super) name: String,
    message: String,
}

/// Who is called: a service, one of its objects, and the interface of that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    pub(super) service: &'static str,
    pub(super) path: &'static str,
    pub(super) interface: &'static str,
}

const BUS: Object = Object { service: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };

/// A connection on which all that is waited for together has one deadline.
#[derive(Debug)]
struct Timed {
    stream: UnixStream,
    patience: Duration,
    deadline: Instant,
}

impl Timed {
    fn connect(socket: &BusSocket, patience: Duration) -> io::Result<Timed> {
        let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // One that lets nobody in any more is waited for as well.
        set_socket_timeout(&stream, Timeout::Send, Some(patience))?;
        let timed = Timed { stream: stream.into(), patience, deadline: Instant::now() + patience };
        connect(&timed.stream, &socket.address()?).map_err(|errno| timed.or_late(errno.into()))?;
        Ok(timed)
    }

    /// From here on it is another answer that is waited for.
    fn begin(&mut self) {
        self.deadline = Instant::now() + self.patience;
    }

    /// What is left of the time, as the kernel wants to be told it: none at all would be for ever.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.late()) } else { Ok(Some(left)) }
    }

    fn late(&self) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, format!("the bus has not answered within {:?}", self.patience))
    }

    fn or_late(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::WouldBlock { self.late() } else { error }
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(into).map_err(|error| self.or_late(error))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes).map_err(|error| self.or_late(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection to a bus.
#[derive(Debug)]
pub(super) struct Bus {
    stream: Timed,
    serial: u32,
    /// Signals that came while a reply was waited for.
    signals: Vec<Message>,
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what came from the bus is no D-Bus message")
}

impl Bus {
    /// Connects to the bus that listens at the first of these sockets where there is one. Who this is, the other side asks the kernel.
    pub(super) fn connect(sockets: &[BusSocket]) -> io::Result<Bus> {
        let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "no address of a bus is known"));
        for socket in sockets {
            outcome = Bus::connect_within(socket, PATIENCE);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn connect_within(socket: &BusSocket, patience: Duration) -> io::Result<Bus> {
        let mut stream = Timed::connect(socket, patience)?;
        stream.write_all(ENTER)?;
        for expected in ["DATA", "OK"] {
            let line = line(&mut stream)?;
            if !line.starts_with(expected) {
                return Err(io::Error::other(format!("the bus does not let this process in: `{}`", line.trim_end())));
            }
        }
        let mut bus = Bus { stream, serial: 0, signals: Vec::new() };
        bus.call(BUS, "Hello", "", &Body::default())?;
        Ok(bus)
    }

    /// Asks for a signal, whose text arguments [`signal`](Bus::signal) gives.
    pub(super) fn listen(&mut self, interface: &str, member: &str) -> io::Result<()> {
        let mut rule = Body::default();
        rule.text(&format!("type='signal',interface='{interface}',member='{member}'"));
        self.call(BUS, "AddMatch", "s", &rule).map(drop)
    }

    /// Calls a method, and gives the first value of its reply, if that is a text (or one in a variant).
    pub(super) fn call(&mut self, object: Object, member: &str, signature: &str, body: &Body) -> io::Result<String> {
        self.serial += 1;
        let mut message = Body::default();
        message.0.extend([b'l', METHOD_CALL, 0, 1]);
        message.u32(body.0.len() as u32).u32(self.serial);
        message.array(8, |fields| {
            let mut field = |code: u8, signature: &str, value: &str| {
                fields.align(8);
                fields.0.push(code);
                fields.signature(signature);
                match signature {
                    "g" => fields.signature(value),
                    _ => {
                        fields.text(value);
                    }
                }
            };
            field(PATH, "o", object.path);
            field(INTERFACE, "s", object.interface);
            field(MEMBER, "s", member);
            field(DESTINATION, "s", object.service);
            if !signature.is_empty() {
                field(SIGNATURE, "g", signature);
            }
        });
        message.align(8);
        message.0.extend(&body.0);
        self.stream.begin();
        self.stream.write_all(&message.0)?;
        loop {
            let message = self.receive()?;
            match message.kind {
                METHOD_RETURN if message.reply_to == self.serial => {
                    let mut texts = message.texts();
                    // A text, or a variant that holds one.
                    let found = match message.signature.as_str() {
                        "s" | "o" => texts.text(),
                        "v" => texts.signature().and_then(|_| texts.text()),
                        _ => None,
                    };
                    return Ok(found.unwrap_or_default());
                }
                ERROR if message.reply_to == self.serial => {
                    let text = message.texts().text().unwrap_or_default();
                    return Err(io::Error::other(Refused { name: message.error, message: text }));
                }
                SIGNAL => self.signals.push(message),
                _ => {}
            }
        }
    }

    /// The next signal with that name: a number, and the texts after it.
    pub(super) fn signal(&mut self, member: &str) -> io::Result<Vec<String>> {
        self.stream.begin();
        loop {
            let message = if self.signals.is_empty() { self.receive()? } else { self.signals.remove(0) };
            if message.kind == SIGNAL && message.member == member {
                let mut reader = message.texts();
                reader.u32().ok_or_else(malformed)?;
                return Ok(std::iter::from_fn(|| reader.text()).collect());
            }
        }
    }

    fn receive(&mut self) -> io::Result<Message> {
        let mut head = [0; 16];
        self.stream.read_exact(&mut head)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let (body, fields) = (number(4), number(12));
        if head[0] != b'l' || body > MAX_MESSAGE || fields > MAX_MESSAGE {
            return Err(malformed());
        }
        let mut bytes = vec![0; fields.next_multiple_of(8) + body];
        self.stream.read_exact(&mut bytes)?;
        let body = bytes.split_off(fields.next_multiple_of(8));
        Message::new(head[1], &bytes[..fields], body).ok_or_else(malformed)
    }
}

/// A line of what goes before the first message; not a byte more, as that follows at once.
fn line(stream: &mut impl Read) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < 1024 {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn addresses_are_lists_of_sockets_with_escaped_bytes() {
        let path = |text: &str| BusSocket::Path(text.into());
        for (text, expected) in [
            ("unix:path=/run/user/7/bus", vec![path("/run/user/7/bus")]),
            ("unix:path=/a%20b%2c%3B/%C3%a9,guid=0123", vec![path("/a b,;/\u{e9}")]),
            ("unix:guid=0123,abstract=/tmp/dbus-%41", vec![BusSocket::Abstract(b"/tmp/dbus-A".to_vec())]),
            ("tcp:host=localhost,port=1;unix:abstract=x;unix:path=/y;", vec![BusSocket::Abstract(b"x".to_vec()), path("/y")]),
            ("unix:path=/a%2;unix:path=/a%zz;unix:runtime=yes;autolaunch:;", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(BusSocket::of_addresses(text), expected, "{text}");
        }
    }

    /// A bus that lets anybody in, and says of itself what `says` has it say; the address of none before it.
    fn bus(name: &str, says: impl FnOnce(UnixStream) + Send + 'static) -> Vec<BusSocket> {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("strake-test-{name}-{}", std::process::id());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; ENTER.len()]).unwrap();
            stream.write_all(b"DATA\r\nOK 0123\r\n").unwrap();
            says(stream);
        });
        BusSocket::of_addresses(&format!("unix:path=/nowhere%20at%20all;unix:abstract={name}"))
    }

    /// What a bus says to `Hello`.
    fn welcome() -> Vec<u8> {
        let mut message = Body::default();
        message.0.extend([b'l', METHOD_RETURN, 0, 1]);
        message.u32(0).u32(1);
        message.array(8, |fields| {
            fields.0.push(REPLY_SERIAL);
            fields.signature("u");
            fields.u32(1);
        });
        message.align(8);
        message.0
    }

    #[test]
    fn the_first_socket_with_a_bus_is_taken() {
        let sockets = bus("first", |mut stream| {
            stream.write_all(&welcome()).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        });
        Bus::connect(&sockets).unwrap();
        assert_eq!(Bus::connect(&sockets[..1]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn one_that_answers_a_byte_at_a_time_is_not_waited_for_without_end() {
        let sockets = bus("slow", |mut stream| {
            for byte in welcome() {
                std::thread::sleep(Duration::from_millis(100));
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
            }
        });
        let begun = Instant::now();
        let error = Bus::connect_within(&sockets[1], Duration::from_millis(500)).unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::TimedOut, "the bus has not answered within 500ms".to_owned()));
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }

    #[test]
    fn values_stand_at_multiples_of_their_sizes() {
        let mut body = Body::default();
        body.text("a").properties(&[("Max".to_owned(), Value::U64(5))]).no_units();
        let expected: &[u8] = b"\x01\0\0\0a\0\0\0\x18\0\0\0\0\0\0\0\x03\0\0\0Max\0\x01t\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        assert_eq!(body.0, expected, "{:?}", body.0);
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let mut fields = Body::default();
        for (code, value) in [(MEMBER, "JobRemoved"), (PATH, "/x")] {
            fields.align(8);
            fields.0.push(code);
            fields.signature(if code == PATH { "o" } else { "s" });
            fields.text(value);
        }
        let mut body = Body::default();
        body.u32(7).text("/job/7").text("a.scope").text("done");
        let message = Message::new(SIGNAL, &fields.0, body.0).unwrap();
        assert_eq!(message.member, "JobRemoved");
        let mut reader = message.texts();
        assert_eq!(
            (reader.u32(), reader.text(), reader.text(), reader.text(), reader.text()),
            (Some(7), Some("/job/7".into()), Some("a.scope".into()), Some("done".into()), None)
        );
        assert!(Message::new(SIGNAL, b"\x03\x01s\0\xff\xff\xff\xff", Vec::new()).is_none());
    }
}
