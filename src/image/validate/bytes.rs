//! The bytes of one blob, read to their end: what they hash to, how many there are, and what they hash to unpacked.

use std::io::{self, Read};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use crate::image::Error;
use crate::image::copy::Source;
use crate::image::layer::{Error as LayerError, TarReader, decompressor};
use crate::oci::{Algorithm, Descriptor, DiffId, Digest, Hasher};
use crate::registry::ByteStream;
use crate::task::blocking;

use super::{Fault, fault_of};

/// How long an extended header of a layer may be.
const MAX_HEADER: u64 = 1 << 20;

/// What is wrong with bytes that are in memory.
pub(super) fn check(at: &Descriptor, bytes: &[u8]) -> Option<Fault> {
    let (actual, length) = (Digest::of(at.digest.algorithm(), bytes), bytes.len() as u64);
    match actual == at.digest {
        false => Some(Fault::Digest { actual }),
        true => (length != at.size).then_some(Fault::Size { announced: at.size, actual: length }),
    }
}

/// The bytes of a small blob, checked.
pub(super) async fn read(source: &Source, blob: &Descriptor) -> Result<Bytes, Fault> {
    let mut bytes = Vec::new();
    let mut stream = open(source, blob).await?;
    while let Some(chunk) = stream.next().await {
        bytes.extend_from_slice(&chunk.map_err(io_fault)?);
        if bytes.len() as u64 > blob.size {
            return Err(Fault::Endless { announced: blob.size });
        }
    }
    match check(blob, &bytes) {
        None => Ok(bytes.into()),
        Some(fault) => Err(fault),
    }
}

/// What is wrong with a blob, which is a layer where a diff ID is given.
pub(super) async fn layer(source: &Source, blob: &Descriptor, diff_id: Option<DiffId>) -> Option<Fault> {
    match open(source, blob).await {
        Ok(stream) => stream_fault(stream, blob, diff_id).await,
        Err(fault) => Some(fault),
    }
}

/// What can be told of a blob without reading it: whether it is there, and its size.
pub(super) async fn presence(source: &Source, blob: &Descriptor) -> Option<Fault> {
    let size = match source.blob_size(blob).await {
        Ok(size) => size,
        Err(error) => return Some(fault_of(error)),
    };
    match size {
        None => Some(Fault::Missing),
        Some(actual) => (actual != blob.size).then_some(Fault::Size { announced: blob.size, actual }),
    }
}

async fn open(source: &Source, blob: &Descriptor) -> Result<ByteStream, Fault> {
    let blob = source.blob(blob);
    blocking(move || blob.open_at(0)).await.map_err(io_fault)
}

/// Hashes a stream, and at the same time what it unpacks to. A layer that cannot be unpacked is hashed to its end all the same: damage explains it.
pub(super) async fn stream_fault(mut stream: ByteStream, blob: &Descriptor, diff_id: Option<DiffId>) -> Option<Fault> {
    let (sender, receiver) = mpsc::channel::<Bytes>(16);
    let mut sender = diff_id.is_some().then_some(sender);
    let unpacking = diff_id
        .as_ref()
        .map(DiffId::algorithm)
        .map(|algorithm| crate::task::spawn_blocking(move || diff_id_of(Chunks { receiver, chunk: Bytes::new() }, algorithm)));
    let (mut hasher, mut size) = (Hasher::new(blob.digest.algorithm()), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = match chunk {
            Ok(chunk) => chunk,
            Err(error) => return Some(io_fault(error)),
        };
        size += chunk.len() as u64;
        if size > blob.size {
            return Some(Fault::Endless { announced: blob.size });
        }
        hasher.update(&chunk);
        if let Some(open) = &sender
            && open.send(chunk).await.is_err()
        {
            sender = None;
        }
    }
    drop(sender);
    let actual = hasher.finish();
    if size != blob.size {
        return Some(Fault::Size { announced: blob.size, actual: size });
    }
    if actual != blob.digest {
        return Some(Fault::Digest { actual });
    }
    let unpacked = match unpacking?.await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    diff_id_fault(unpacked, diff_id?)
}

/// What is wrong with a layer of which it is known what it unpacks to.
pub(super) fn diff_id_fault(unpacked: Result<DiffId, LayerError>, expected: DiffId) -> Option<Fault> {
    match unpacked {
        Err(error) => Some(Fault::Archive(Box::new(error))),
        Ok(actual) if actual != expected => Some(Fault::DiffId { expected, actual }),
        Ok(_) => None,
    }
}

/// The diff ID by `algorithm` of a layer, compressed or not, whose archive is read through.
pub(super) fn diff_id_of(layer: impl Read + Send + 'static, algorithm: Algorithm) -> Result<DiffId, LayerError> {
    let mut tar = TarReader::new(decompressor(layer, None).map_err(|source| LayerError::Read { source })?, MAX_HEADER, algorithm);
    while tar.next()?.is_some() {}
    Ok(DiffId::new(tar.finish()?.0))
}

/// What the bytes of a blob of the store hash to.
pub(super) fn hash_of(mut from: impl Read, blob: &Descriptor) -> Result<Digest, Error> {
    let mut hasher = Hasher::new(blob.digest.algorithm());
    let mut buffer = vec![0; 256 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(source) => return Err(Error::Io { action: "read", path: blob.digest.to_string().into(), source }),
        }
    }
}

/// An error of a stream: what the registry or the layout said is inside.
fn io_fault(error: io::Error) -> Fault {
    let kind = error.kind();
    match error.downcast::<crate::registry::Error>() {
        Ok(error) => fault_of(Error::Registry(error)),
        Err(error) => match error.downcast::<Error>() {
            Ok(error) => fault_of(error),
            Err(error) => match error.downcast::<crate::store::Error>() {
                Ok(error) => fault_of(Error::Store(error)),
                Err(_) if kind == io::ErrorKind::NotFound => Fault::Missing,
                Err(error) => Fault::Unreadable(Box::new(error)),
            },
        },
    }
}

/// Chunks of another task as a blocking reader.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.receiver.blocking_recv() {
                None => return Ok(0),
                Some(chunk) => self.chunk = chunk,
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}
