//! Compresses layers, on all cores and always to the same bytes.
//!
//! gzip is made of members of exactly 1 MiB of input each (RFC 1952 allows any number), compressed independently of each other; zstd always runs in its
//! multi-threaded mode, whose output does not depend on the number of threads. So neither the number of cores nor the sizes of reads and writes show in
//! the digest. A new version of either library may: the golden digests in the tests tell.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use libdeflater::{CompressionLvl, Compressor};

use crate::oci::{Algorithm, DiffId, Digest};
use crate::store::view::LayerStack;

use super::diff::{LayerOptions, LayerWritten, write_layer};
use super::hashing::{CHUNK, HashingReader, HashingWriter};
use super::{Compression, Error};

/// How much input a gzip member holds. Part of the output's format: another size gives other digests.
const MEMBER: usize = 1 << 20;

/// The level of gzip where none is given.
const GZIP_LEVEL: u32 = 6;

/// The level of zstd where none is given.
const ZSTD_LEVEL: u32 = 3;

/// How to compress a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompressionSpec {
    /// The format: none, gzip or zstd.
    pub kind: Compression,
    /// The level; what is above the format's highest is that.
    pub level: Option<u32>,
}

impl CompressionSpec {
    /// What names the bytes that this makes: `gzip`, `zstd:19`.
    pub fn name(self) -> String {
        self.level.map_or_else(|| self.kind.name().to_owned(), |level| format!("{}:{level}", self.kind.name()))
    }
}

/// A layer that was compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// The digest of the compressed bytes.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
    /// The digest of what was read.
    pub diff_id: DiffId,
    /// The size of what was read.
    pub uncompressed_size: u64,
}

/// Compresses all of `reader`, whose diff ID is by `algorithm`, to `writer` with up to `threads` threads beside this one.
pub fn compress(
    reader: impl Read,
    writer: impl Write,
    spec: CompressionSpec,
    threads: usize,
    algorithm: Algorithm,
) -> Result<Compressed, Error> {
    let mut input = HashingReader::new(reader, algorithm);
    let mut output = HashingWriter::new(writer, Algorithm::default());
    match spec.kind {
        Compression::Uncompressed => loop {
            let bytes = input.peek()?;
            if bytes.is_empty() {
                break;
            }
            output.put(bytes)?;
            let count = bytes.len();
            input.consume(count);
        },
        Compression::Gzip => gzip(&mut input, &mut output, spec.level.unwrap_or(GZIP_LEVEL), threads)?,
        Compression::Zstd => zstd(&mut input, &mut output, spec.level.unwrap_or(ZSTD_LEVEL), threads)?,
        Compression::Bzip2 | Compression::Xz => return Err(Error::Format { format: spec.kind.name() }),
    }
    let (digest, size) = output.finish()?;
    let (diff_id, uncompressed_size) = input.finish()?;
    Ok(Compressed { digest, size, diff_id: DiffId::new(diff_id), uncompressed_size })
}

/// Writes the changes that `layer` makes to `lower` as a compressed blob; both halves run at the same time.
pub fn write_compressed_layer(
    layer: &Path,
    lower: &LayerStack,
    writer: impl Write,
    options: &LayerOptions,
    spec: CompressionSpec,
    threads: usize,
) -> Result<(LayerWritten, Compressed), Error> {
    let (sender, chunks) = sync_channel(4);
    std::thread::scope(|scope| {
        let written = scope.spawn(move || write_layer(layer, lower, &mut ChunkSender(sender), options));
        let compressed = compress(ChunkReceiver { chunks, chunk: Vec::new(), used: 0 }, writer, spec, threads, options.algorithm);
        let written = written.join().expect("writing a layer does not panic");
        match (written, compressed) {
            // Where the compressor gave up, the other half only says that nobody reads any more.
            (_, Err(error)) => Err(error),
            (Err(error), _) => Err(error),
            (Ok(written), Ok(compressed)) => Ok((written, compressed)),
        }
    })
}

struct ChunkSender(SyncSender<Vec<u8>>);

impl Write for ChunkSender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct ChunkReceiver {
    chunks: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    used: usize,
}

impl Read for ChunkReceiver {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.used == self.chunk.len() {
            // The other side hangs up at the end, and also when it fails; then its error counts.
            let Ok(chunk) = self.chunks.recv() else { return Ok(0) };
            self.chunk = chunk;
            self.used = 0;
        }
        let count = buffer.len().min(self.chunk.len() - self.used);
        buffer[..count].copy_from_slice(&self.chunk[self.used..self.used + count]);
        self.used += count;
        Ok(count)
    }
}

/// One member's input and where its output goes.
type Job = (Vec<u8>, SyncSender<Result<Vec<u8>, Error>>);

fn gzip<R: Read, W: Write>(input: &mut HashingReader<R>, output: &mut HashingWriter<W>, level: u32, threads: usize) -> Result<(), Error> {
    let level = CompressionLvl::new(i32::try_from(level).unwrap_or(i32::MAX).min(12)).unwrap_or_default();
    let threads = threads.clamp(1, 64);
    let (jobs, queue) = sync_channel::<Job>(threads);
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        let mut running = 0;
        let mut waiting: VecDeque<Receiver<Result<Vec<u8>, Error>>> = VecDeque::new();
        let mut here = Compressor::new(level);
        let mut first = true;
        loop {
            let mut block = vec![0; MEMBER];
            let count = input.read_full(&mut block)?;
            block.truncate(count);
            // An empty layer is one empty member: no bytes at all would be no gzip stream.
            if count == 0 && !first {
                break;
            }
            let last = count < MEMBER;
            if first && last {
                // Threads would take longer to start than this does to compress.
                return output.put(&gzip_member(&mut here, &block)?);
            }
            first = false;
            if running < threads {
                running += 1;
                scope.spawn(|| gzip_worker(&queue, level));
            }
            let (sender, result) = sync_channel(1);
            jobs.send((block, sender)).expect("the workers live as long as the queue");
            waiting.push_back(result);
            if waiting.len() > threads * 2 {
                write_next(&mut waiting, output)?;
            }
            if last {
                break;
            }
        }
        drop(jobs);
        while !waiting.is_empty() {
            write_next(&mut waiting, output)?;
        }
        Ok(())
    })
}

fn write_next<W: Write>(waiting: &mut VecDeque<Receiver<Result<Vec<u8>, Error>>>, output: &mut HashingWriter<W>) -> Result<(), Error> {
    let Some(result) = waiting.pop_front() else { return Ok(()) };
    output.put(&result.recv().expect("a worker answers every job")?)
}

fn gzip_worker(queue: &Mutex<Receiver<Job>>, level: CompressionLvl) {
    let mut compressor = Compressor::new(level);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((block, result)) = job else { return };
        // Nobody waits any more where writing has failed.
        let _ = result.send(gzip_member(&mut compressor, &block));
    }
}

fn gzip_member(compressor: &mut Compressor, block: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = vec![0; compressor.gzip_compress_bound(block.len())];
    let failed = |error: libdeflater::CompressionError| Error::Compress { format: "gzip", source: io::Error::other(error) };
    let count = compressor.gzip_compress(block, &mut out).map_err(failed)?;
    out.truncate(count);
    Ok(out)
}

fn zstd<R: Read, W: Write>(input: &mut HashingReader<R>, output: &mut HashingWriter<W>, level: u32, threads: usize) -> Result<(), Error> {
    let failed = |source| Error::Compress { format: "zstd", source };
    let level = i32::try_from(level).unwrap_or(i32::MAX).min(22);
    let mut encoder = zstd::stream::raw::Encoder::new(level).map_err(failed)?;
    let workers = u32::try_from(threads.clamp(1, 64)).unwrap_or(1);
    encoder.set_parameter(zstd::stream::raw::CParameter::NbWorkers(workers)).map_err(failed)?;
    encoder.set_parameter(zstd::stream::raw::CParameter::ChecksumFlag(true)).map_err(failed)?;
    let mut buffer = vec![0; CHUNK];
    use zstd::stream::raw::Operation;
    loop {
        let bytes = input.peek()?;
        if bytes.is_empty() {
            break;
        }
        let status = encoder.run_on_buffers(bytes, &mut buffer).map_err(failed)?;
        output.put(&buffer[..status.bytes_written])?;
        input.consume(status.bytes_read);
    }
    loop {
        let mut space = zstd::stream::raw::OutBuffer::around(&mut buffer[..]);
        let left = encoder.finish(&mut space, true).map_err(failed)?;
        let written = space.pos();
        output.put(&buffer[..written])?;
        if left == 0 {
            return Ok(());
        }
    }
}
