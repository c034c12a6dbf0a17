//! Images of a Docker daemon, over the socket of its API: the requests of `docker save` and `docker load`, and nothing else of it.
//!
//! One connection for each request, which the answer ends. An archive is asked for by HTTP/1.0, so that it comes without frames; that it is whole, its content tells. One that
//! is sent goes in chunks while it is made, as nobody knows its size before.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::registry::tame;

use super::Error;

/// The longest answer that is read, of which most is progress.
const LIMIT: u64 = 16 << 20;

/// The longest line of an answer's head, and the most lines.
const HEAD: u64 = 64 << 10;

/// How much is sent at once.
const CHUNK: usize = 256 << 10;

/// A Docker daemon, or what speaks as one (`podman system service`).
#[derive(Clone, Debug)]
pub struct Daemon {
    socket: PathBuf,
}

impl Daemon {
    /// The one that listens at a socket.
    pub fn at(socket: &Path) -> Daemon {
        Daemon { socket: socket.to_owned() }
    }

    /// The archive of an image that a name or an ID means, as `docker save` writes it.
    ///
    /// # Errors
    /// There is no daemon, or no such image.
    pub fn save(&self, name: &str) -> Result<impl Read + Send + 'static, Error> {
        // By its name alone a repository would come with all its tags. It may be the beginning of an ID as well.
        let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        let latest = if has_tag { None } else { self.get(&format!("{name}:latest")).ok() };
        latest.map_or_else(|| self.get(name), Ok)
    }

    fn get(&self, name: &str) -> Result<impl Read + Send + 'static + use<>, Error> {
        let failed = |source| self.failed("ask", source);
        let mut stream = UnixStream::connect(&self.socket).map_err(failed)?;
        write!(stream, "GET /images/{name}/get HTTP/1.0\r\nHost: docker\r\n\r\n").map_err(failed)?;
        let mut answer = Answer::read(stream).map_err(failed)?;
        match answer.status {
            200 => Ok(answer.body),
            _ => Err(self.refusal(&mut answer)),
        }
    }

    /// Loads an archive, which `write` makes, as `docker load` does.
    ///
    /// # Errors
    /// There is no daemon, it does not take the archive; those of `write`.
    pub fn load(&self, write: impl FnOnce(&mut dyn Write) -> Result<(), Error>) -> Result<(), Error> {
        let failed = |source| self.failed("send to", source);
        let mut stream = UnixStream::connect(&self.socket).map_err(failed)?;
        let head = "Host: docker\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n";
        write!(stream, "POST /images/load?quiet=1 HTTP/1.1\r\n{head}\r\n").map_err(failed)?;
        let reading = stream.try_clone().map_err(failed)?;
        let mut out = BufWriter::with_capacity(CHUNK, Chunks { out: stream, broken: false });
        let sent = write(&mut out).and_then(|()| out.flush().map_err(failed));
        // What is left in the buffer after an error is not sent.
        let (Chunks { mut out, broken }, _) = out.into_parts();
        let sent = sent.and_then(|()| out.write_all(b"0\r\n\r\n").map_err(failed));
        if let Err(error) = sent {
            // A daemon that refuses may do so before it has read everything; what it says is better than that the connection broke.
            let said = if broken { Answer::read(reading).ok() } else { None };
            return Err(match said.filter(|answer| answer.status != 200) {
                Some(mut answer) => self.refusal(&mut answer),
                None => error,
            });
        }
        let mut answer = Answer::read(reading).map_err(failed)?;
        if answer.status != 200 {
            return Err(self.refusal(&mut answer));
        }
        let said = answer.text().map_err(failed)?;
        // One object a line; what fails while it loads comes with status 200.
        let errors = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        match errors.filter_map(|said| said["error"].as_str().map(str::to_owned)).next() {
            None => Ok(()),
            Some(message) => Err(self.refused(answer.status, &message)),
        }
    }

    fn failed(&self, action: &'static str, source: io::Error) -> Error {
        Error::Daemon { action, socket: self.socket.clone(), source }
    }

    fn refused(&self, status: u16, message: &str) -> Error {
        Error::DaemonRefused { socket: self.socket.clone(), status, message: tame(message, 500) }
    }

    /// What an answer that is no success says.
    fn refusal(&self, answer: &mut Answer) -> Error {
        let said = answer.text().unwrap_or_default();
        let message = serde_json::from_str::<serde_json::Value>(&said).ok();
        let message = message.and_then(|message| message["message"].as_str().map(str::to_owned));
        self.refused(answer.status, &message.unwrap_or(said))
    }
}

/// An answer, whose head has been read.
struct Answer {
    status: u16,
    body: Box<dyn Read + Send>,
}

impl Answer {
    fn read(stream: UnixStream) -> io::Result<Answer> {
        let mut stream = BufReader::with_capacity(CHUNK, stream);
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "what answers does not speak HTTP");
        let mut head = (&mut stream).take(HEAD);
        let mut line = String::new();
        head.read_line(&mut line)?;
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).and_then(|status| status.trim().parse().ok());
        let status = status.ok_or_else(bad)?;
        let mut chunked = false;
        loop {
            line.clear();
            head.read_line(&mut line)?;
            match line.trim_end() {
                "" if line.ends_with('\n') => break,
                "" => return Err(bad()),
                field => chunked |= field.to_ascii_lowercase().replace(' ', "") == "transfer-encoding:chunked",
            }
        }
        let body: Box<dyn Read + Send> = if chunked { Box::new(Unchunked { stream, left: 0, ended: false }) } else { Box::new(stream) };
        Ok(Answer { status, body })
    }

    fn text(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        (&mut self.body).take(LIMIT).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Sends what is written in chunks (RFC 9112, section 7.1).
struct Chunks {
    out: UnixStream,
    /// Whether nobody takes any more.
    broken: bool,
}

impl Chunks {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        write!(self.out, "{:x}\r\n", bytes.len())?;
        self.out.write_all(bytes)?;
        self.out.write_all(b"\r\n")
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !bytes.is_empty() {
            self.send(bytes).inspect_err(|_| self.broken = true)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads such chunks.
struct Unchunked<R> {
    stream: R,
    left: u64,
    ended: bool,
}

impl<R: BufRead> Read for Unchunked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the answer's chunks are malformed");
        while self.left == 0 {
            if self.ended {
                return Ok(0);
            }
            let mut line = String::new();
            (&mut self.stream).take(64).read_line(&mut line)?;
            // The end of the chunk before.
            if line == "\r\n" {
                continue;
            }
            let size = line.trim_end().split(';').next().unwrap_or_default();
            self.left = u64::from_str_radix(size, 16).map_err(|_| bad())?;
            self.ended = self.left == 0;
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.stream.read(buffer.get_mut(..length).unwrap_or_default())?;
        if length == 0 && !buffer.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together_again() {
        let read = |bytes: &'static [u8]| {
            let mut text = String::new();
            let unchunked = Unchunked { stream: bytes, left: 0, ended: false };
            BufReader::new(unchunked).read_to_string(&mut text).map(|_| text).map_err(|error| error.kind())
        };
        assert_eq!(read(b"3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\n\r\n").unwrap(), "abc0123456789");
        assert_eq!(read(b"0\r\n\r\n").unwrap(), "");
        assert_eq!(read(b"5\r\nabc").unwrap_err(), io::ErrorKind::UnexpectedEof);
        assert_eq!(read(b"zz\r\nabc").unwrap_err(), io::ErrorKind::InvalidData);
        assert_eq!(read(b"").unwrap_err(), io::ErrorKind::InvalidData);
    }
}
