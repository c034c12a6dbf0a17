//! Tells compressed streams apart and decompresses them.
//!
//! All formats may consist of several members or frames, one after the other. A stream that ends inside one, or has something else behind the last one, is
//! an error; behind gzip's anything is passed over, as by the tools that everybody else reads it with. Memory is bounded whatever the stream's headers ask for.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, sync_channel};

use flate2::bufread::GzDecoder;

use super::hashing::{CHUNK, fill_chunk, refill_chunk};

/// How a stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    Uncompressed,
    /// gzip (RFC 1952).
    Gzip,
    /// Zstandard (RFC 8878).
    Zstd,
    /// bzip2; only archives for ADD.
    Bzip2,
    /// xz; only archives for ADD.
    Xz,
}

/// How many bytes [`sniff`] wants to see.
const SNIFFED: usize = 6;

/// What xz may use.
const XZ_MEMORY: u64 = 256 << 20;

/// Base-2 logarithm of the largest zstd window: what the `zstd` tool accepts without being told otherwise.
const ZSTD_WINDOW: u32 = 27;

impl Compression {
    /// The format's name.
    pub fn name(self) -> &'static str {
        match self {
            Compression::Uncompressed => "no compression",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
            Compression::Bzip2 => "bzip2",
            Compression::Xz => "xz",
        }
    }
}

/// Tells a stream's format from its first bytes.
pub fn sniff(start: &[u8]) -> Compression {
    match start {
        [0x1f, 0x8b, 8, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Compression::Bzip2,
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
        _ => Compression::Uncompressed,
    }
}

/// Decompresses `reader`; what `compression` does not tell, the first bytes do. Decompression runs in a thread of its own, a few chunks ahead.
///
/// A layer's media type is sometimes wrong (registries hold gzip layers that are called uncompressed), so pass `None` for those too.
pub fn decompressor(mut reader: impl Read + Send + 'static, compression: Option<Compression>) -> io::Result<Box<dyn Read + Send>> {
    let mut start = Vec::with_capacity(SNIFFED);
    fill_chunk(&mut reader, &mut start, SNIFFED)?;
    let compression = compression.unwrap_or_else(|| sniff(&start));
    let whole = BufReader::with_capacity(CHUNK, io::Cursor::new(start).chain(reader));
    Ok(match compression {
        Compression::Uncompressed => Box::new(whole),
        Compression::Gzip => read_ahead(GzipMembers { member: Some(GzDecoder::new(whole)) }),
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
            decoder.window_log_max(ZSTD_WINDOW)?;
            read_ahead(decoder)
        }
        Compression::Bzip2 => read_ahead(bzip2::bufread::MultiBzDecoder::new(whole)),
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
            read_ahead(liblzma::bufread::XzDecoder::new_stream(whole, stream))
        }
    })
}

/// The members of a gzip stream, and no more of what is behind them than that it is there.
struct GzipMembers<R> {
    /// The one being read; `None` at the end.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while let Some(member) = &mut self.member {
            let count = member.read(out)?;
            if count > 0 || out.is_empty() {
                return Ok(count);
            }
            let Some(mut rest) = self.member.take().map(GzDecoder::into_inner) else { break };
            if rest.fill_buf()?.first() == Some(&0x1f) {
                self.member = Some(GzDecoder::new(rest));
            } else {
                // Whoever hashes the stream wants all of it.
                io::copy(&mut rest, &mut io::sink())?;
            }
        }
        Ok(0)
    }
}

/// Reads `reader` in a thread of its own, a few chunks ahead; the first chunk is read at once. The thread ends when the result is dropped and `reader` returns from what it is doing.
pub fn read_ahead(mut reader: impl Read + Send + 'static) -> Box<dyn Read + Send> {
    let mut first = Vec::new();
    // Most streams are small: those need no thread.
    let head = fill_chunk(&mut reader, &mut first, CHUNK);
    match head {
        Ok(CHUNK) => {}
        Ok(_) => return Box::new(io::Cursor::new(first)),
        Err(error) => return Box::new(io::Cursor::new(first).chain(Failed(Some(error)))),
    }
    let (sender, chunks) = sync_channel(4);
    let (give_back, returned) = sync_channel(8);
    let ahead = Ahead { chunks, give_back, chunk: Vec::new(), used: 0, ended: false };
    let work = move || {
        let mut next = Ok(first);
        loop {
            let ended = next.as_ref().map_or(true, Vec::is_empty);
            if sender.send(next).is_err() || ended {
                return;
            }
            let mut chunk: Vec<u8> = returned.try_recv().unwrap_or_default();
            next = refill_chunk(&mut reader, &mut chunk).map(|()| chunk);
        }
    };
    match std::thread::Builder::new().name("layer-read".to_owned()).spawn(work) {
        Ok(_) => Box::new(ahead),
        Err(error) => Box::new(Failed(Some(error))),
    }
}

/// Reads the chunks of another thread.
struct Ahead {
    chunks: Receiver<io::Result<Vec<u8>>>,
    give_back: std::sync::mpsc::SyncSender<Vec<u8>>,
    chunk: Vec<u8>,
    used: usize,
    ended: bool,
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used == self.chunk.len() && !self.ended {
            // A reader that vanished without an end or an error has panicked.
            let next = self.chunks.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe)).flatten();
            self.ended = next.as_ref().map_or(true, Vec::is_empty);
            let _ = self.give_back.try_send(std::mem::replace(&mut self.chunk, next?));
            self.used = 0;
        }
        let count = buffer.len().min(self.chunk.len() - self.used);
        buffer[..count].copy_from_slice(&self.chunk[self.used..self.used + count]);
        self.used += count;
        Ok(count)
    }
}

/// A reader that could not be started.
struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()))
    }
}
