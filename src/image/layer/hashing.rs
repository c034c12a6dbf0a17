//! Hashes a stream in chunks while somebody else works on the same chunks.
//!
//! Hashing is the slowest thing between a page cache and a tar stream, so from the second chunk on it runs in a thread of its own. Chunks are
//! shared, not copied, and a handful of them goes round: memory is constant.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::oci::{Algorithm, Digest, Hasher};

use super::Error;

/// The size of a chunk: large enough that handing it over costs nothing, small enough for the second-level cache.
pub(super) const CHUNK: usize = 256 << 10;

/// How many chunks may wait for the hasher.
const QUEUE: usize = 4;

/// A hash over shared chunks.
struct ChunkHasher {
    state: State,
    chunks: u64,
}

enum State {
    Inline(Box<Hasher>),
    Thread { chunks: SyncSender<Arc<Vec<u8>>>, thread: JoinHandle<Hasher> },
    Off,
}

impl ChunkHasher {
    fn new(algorithm: Algorithm) -> ChunkHasher {
        ChunkHasher { state: State::Inline(Box::new(Hasher::new(algorithm))), chunks: 0 }
    }

    fn update(&mut self, chunk: &Arc<Vec<u8>>) {
        self.chunks += 1;
        if self.chunks == 2 && !matches!(self.state, State::Off) {
            self.state = start_thread(std::mem::replace(&mut self.state, State::Off));
        }
        match &mut self.state {
            State::Inline(hasher) => hasher.update(chunk),
            // The thread only ends when this side hangs up.
            State::Thread { chunks, .. } => chunks.send(Arc::clone(chunk)).unwrap_or_default(),
            State::Off => {}
        }
    }

    fn finish(self) -> Digest {
        match self.state {
            State::Inline(hasher) => hasher.finish(),
            State::Thread { chunks, thread } => {
                drop(chunks);
                thread.join().expect("hashing bytes does not panic").finish()
            }
            State::Off => Digest::sha256(b""),
        }
    }
}

fn start_thread(state: State) -> State {
    let State::Inline(hasher) = state else { return state };
    let (sender, receiver) = sync_channel(QUEUE);
    let spare = hasher.clone();
    match std::thread::Builder::new().name("layer-hash".to_owned()).spawn(move || hash_all(*hasher, &receiver)) {
        Ok(thread) => State::Thread { chunks: sender, thread },
        Err(_) => State::Inline(spare),
    }
}

fn hash_all(mut hasher: Hasher, chunks: &Receiver<Arc<Vec<u8>>>) -> Hasher {
    while let Ok(chunk) = chunks.recv() {
        hasher.update(&chunk);
    }
    hasher
}

/// A few chunks that go round.
struct Ring {
    slots: Vec<Arc<Vec<u8>>>,
}

impl Ring {
    /// A chunk that nobody reads any more, with what is in it.
    fn take(&mut self) -> Vec<u8> {
        for at in 0..self.slots.len() {
            if Arc::strong_count(&self.slots[at]) == 1 {
                if let Ok(chunk) = Arc::try_unwrap(self.slots.swap_remove(at)) {
                    return chunk;
                }
                break;
            }
        }
        Vec::with_capacity(CHUNK)
    }

    fn give(&mut self, chunk: Arc<Vec<u8>>) {
        if self.slots.len() < QUEUE + 2 {
            self.slots.push(chunk);
        }
    }
}

/// A reader that hashes everything that is read from the one inside, in chunks that are looked at in place.
pub(super) struct HashingReader<R> {
    inner: R,
    hasher: ChunkHasher,
    ring: Ring,
    chunk: Arc<Vec<u8>>,
    /// How much of `chunk` was consumed.
    used: usize,
    /// How many bytes were consumed in all.
    position: u64,
    /// What went wrong behind `chunk`.
    failed: Option<io::Error>,
}

impl<R: Read> HashingReader<R> {
    pub(super) fn new(inner: R, algorithm: Algorithm) -> HashingReader<R> {
        HashingReader {
            inner,
            hasher: ChunkHasher::new(algorithm),
            ring: Ring { slots: Vec::new() },
            chunk: Arc::new(Vec::new()),
            used: 0,
            position: 0,
            failed: None,
        }
    }

    /// Reads `inner` without hashing it.
    pub(super) fn unhashed(inner: R) -> HashingReader<R> {
        let mut reader = HashingReader::new(inner, Algorithm::default());
        reader.hasher.state = State::Off;
        reader
    }

    /// How many bytes were consumed.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What can be consumed now; empty only at the end of the stream.
    pub(super) fn peek(&mut self) -> Result<&[u8], Error> {
        if self.used == self.chunk.len() {
            self.fill()?;
        }
        Ok(&self.chunk[self.used..])
    }

    /// Consumes `count` of the bytes that [`HashingReader::peek`] showed.
    pub(super) fn consume(&mut self, count: usize) {
        self.used = (self.used + count).min(self.chunk.len());
        self.position += count as u64;
    }

    /// Fills `buffer`, or as much of it as there is; says how much.
    pub(super) fn read_full(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut done = 0;
        while done < buffer.len() {
            let available = self.peek()?;
            if available.is_empty() {
                break;
            }
            let count = available.len().min(buffer.len() - done);
            buffer[done..done + count].copy_from_slice(&available[..count]);
            self.consume(count);
            done += count;
        }
        Ok(done)
    }

    /// Reads to the end of the stream; gives the digest of all of it and its size.
    pub(super) fn finish(mut self) -> Result<(Digest, u64), Error> {
        loop {
            let rest = self.peek()?.len();
            if rest == 0 {
                return Ok((self.hasher.finish(), self.position));
            }
            self.consume(rest);
        }
    }

    fn fill(&mut self) -> Result<(), Error> {
        if let Some(source) = self.failed.take() {
            return Err(Error::Read { source });
        }
        let old = std::mem::replace(&mut self.chunk, Arc::new(Vec::new()));
        if old.capacity() > 0 {
            self.ring.give(old);
        }
        self.used = 0;
        let mut chunk = self.ring.take();
        match refill_chunk(&mut self.inner, &mut chunk) {
            Ok(()) => {}
            Err(source) if chunk.is_empty() => return Err(Error::Read { source }),
            // What came before it counts first: an archive with damage at its end is one.
            Err(source) => self.failed = Some(source),
        }
        self.chunk = Arc::new(chunk);
        if !self.chunk.is_empty() {
            self.hasher.update(&self.chunk);
        }
        Ok(())
    }
}

/// Reads until `chunk` has `limit` bytes or the stream ends; says how many it read.
pub(super) fn fill_chunk(reader: &mut impl Read, chunk: &mut Vec<u8>, limit: usize) -> io::Result<usize> {
    let missing = limit.saturating_sub(chunk.len());
    reader.by_ref().take(missing as u64).read_to_end(chunk)
}

/// Reads until `chunk` has [`CHUNK`] bytes or the stream ends, in the place of what is in it.
///
/// A chunk that goes round is given as it was: its memory is zeroed once, where [`fill_chunk`] does it each time for readers that only take initialised
/// memory, as decompressors do (5 % of a pull).
pub(super) fn refill_chunk(reader: &mut impl Read, chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.resize(CHUNK, 0);
    let mut end = 0;
    let result = loop {
        match reader.read(&mut chunk[end..]) {
            Ok(0) => break Ok(()),
            Ok(count) => end += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    chunk.truncate(end);
    result
}

/// A writer that hashes everything on its way to the one inside.
pub(super) struct HashingWriter<W> {
    inner: W,
    hasher: ChunkHasher,
    ring: Ring,
    chunk: Vec<u8>,
    /// How many bytes were handed on.
    sent: u64,
}

impl<W: Write> HashingWriter<W> {
    pub(super) fn new(inner: W, algorithm: Algorithm) -> HashingWriter<W> {
        let ring = Ring { slots: Vec::new() };
        HashingWriter { inner, hasher: ChunkHasher::new(algorithm), ring, chunk: Vec::with_capacity(CHUNK), sent: 0 }
    }

    /// Appends `bytes`.
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let count = bytes.len().min(CHUNK - self.chunk.len());
            self.chunk.extend_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.send_full()?;
        }
        Ok(())
    }

    /// Appends up to `size` bytes of `reader` without copying them about; says how many there were.
    pub(super) fn put_from(&mut self, reader: &mut impl Read, size: u64) -> io::Result<Result<u64, Error>> {
        let mut left = size;
        while left > 0 {
            let room = (CHUNK - self.chunk.len()).min(usize::try_from(left).unwrap_or(CHUNK));
            let limit = self.chunk.len() + room;
            let count = fill_chunk(reader, &mut self.chunk, limit)?;
            left -= count as u64;
            if let Err(error) = self.send_full() {
                return Ok(Err(error));
            }
            if count < room {
                break;
            }
        }
        Ok(Ok(size - left))
    }

    /// Writes what is left; gives the digest of all bytes and their number.
    pub(super) fn finish(mut self) -> Result<(Digest, u64), Error> {
        self.send()?;
        self.inner.flush().map_err(|source| Error::Write { source })?;
        Ok((self.hasher.finish(), self.sent))
    }

    fn send_full(&mut self) -> Result<(), Error> {
        if self.chunk.len() == CHUNK { self.send() } else { Ok(()) }
    }

    fn send(&mut self) -> Result<(), Error> {
        let chunk = Arc::new(std::mem::take(&mut self.chunk));
        self.hasher.update(&chunk);
        let written = self.inner.write_all(&chunk);
        self.sent += chunk.len() as u64;
        self.ring.give(chunk);
        self.chunk = self.ring.take();
        self.chunk.clear();
        written.map_err(|source| Error::Write { source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_and_writer_agree_on_the_digest_of_any_size() {
        for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK * 9 + 17] {
            let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
            for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
                let expected = Digest::of(algorithm, &bytes);
                let mut copy = Vec::new();
                let mut writer = HashingWriter::new(&mut copy, algorithm);
                let half = size / 2;
                writer.put(&bytes[..half]).unwrap();
                assert_eq!(writer.put_from(&mut &bytes[half..], (size - half) as u64).unwrap().unwrap(), (size - half) as u64);
                assert_eq!(writer.finish().unwrap(), (expected.clone(), size as u64));
                assert!(copy == bytes);
                assert_eq!(HashingReader::new(&bytes[..], algorithm).finish().unwrap(), (expected, size as u64));
            }
        }
    }
}
