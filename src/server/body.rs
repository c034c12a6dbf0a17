//! Bodies of answers: documents, files from the page cache, and files that are still growing.
//!
//! A file is read into buffers that go round: while its pages are in memory they are read where the request is served (`RWF_NOWAIT`, without a change of threads);
//! where they are not, a thread that may block reads. So a blob of any size costs a connection one buffer.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Frame, SizeHint};
use rustix::io::ReadWriteFlags;
use tokio::task::JoinHandle;

/// How much is read at once: large enough to need few system calls, small enough to stay in a core's cache until it is sent.
const PIECE: usize = 256 << 10;

/// Idle buffers that are kept.
const IDLE_BUFFERS: usize = 64;

/// Bytes that come from elsewhere.
pub(super) type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// The body of an answer.
pub(super) enum ReplyBody {
    /// Nothing.
    Empty,
    /// A document.
    Whole(Option<Bytes>),
    /// A part of a file.
    File(FilePart),
    /// So many bytes that are not all here yet.
    Pieces(Pieces, u64),
}

impl ReplyBody {
    /// A document.
    pub(super) fn whole(bytes: Bytes) -> ReplyBody {
        ReplyBody::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = |result: io::Result<Bytes>| result.map(Frame::data);
        match self.get_mut() {
            ReplyBody::Empty => Poll::Ready(None),
            ReplyBody::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            ReplyBody::File(part) => part.poll_read(context).map(|result| result.map(frame)),
            ReplyBody::Pieces(pieces, left) => {
                let result = ready!(pieces.as_mut().poll_next(context));
                if let Some(Ok(bytes)) = &result {
                    *left = left.saturating_sub(bytes.len() as u64);
                }
                Poll::Ready(result.map(frame))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.size_hint().exact() == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            ReplyBody::Empty => 0,
            ReplyBody::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            ReplyBody::File(part) => part.end - part.position,
            ReplyBody::Pieces(_, left) => *left,
        })
    }
}

/// A buffer, and how much of it was filled.
type ReadOutcome = io::Result<(Vec<u8>, usize)>;

/// A part of a file that is being sent.
pub(super) struct FilePart {
    file: Arc<File>,
    position: u64,
    end: u64,
    buffers: Buffers,
    /// A read on another thread.
    reading: Option<JoinHandle<ReadOutcome>>,
}

impl FilePart {
    /// The bytes from `start` up to `end` of a file that has them.
    pub(super) fn new(file: File, start: u64, end: u64, buffers: Buffers) -> FilePart {
        FilePart { file: Arc::new(file), position: start, end, buffers, reading: None }
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.position >= self.end {
            return Poll::Ready(None);
        }
        if self.reading.is_none() {
            let wanted = usize::try_from(self.end - self.position).unwrap_or(PIECE).min(PIECE);
            let mut buffer = self.buffers.take();
            match read_cached(&self.file, &mut buffer[..wanted], self.position) {
                Some(length) => return Poll::Ready(Some(Ok(self.advance(buffer, length)))),
                None => {
                    let (file, position) = (self.file.clone(), self.position);
                    self.reading = Some(crate::task::spawn_blocking(move || {
                        let length = read_some(&file, &mut buffer[..wanted], position)?;
                        Ok((buffer, length))
                    }));
                }
            }
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(None) };
        let result = ready!(Pin::new(reading).poll(context));
        self.reading = None;
        let (buffer, length) = match result.map_err(io::Error::other).flatten() {
            Ok((_, 0)) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
            Ok(read) => read,
            Err(error) => return Poll::Ready(Some(Err(error))),
        };
        Poll::Ready(Some(Ok(self.advance(buffer, length))))
    }

    fn advance(&mut self, buffer: Vec<u8>, length: usize) -> Bytes {
        self.position += length as u64;
        Bytes::from_owner(Filled { buffer, length, home: self.buffers.clone() })
    }
}

/// Reads what is in memory already; `None` where nothing is (or this cannot be told).
fn read_cached(file: &File, buffer: &mut [u8], position: u64) -> Option<usize> {
    let read = rustix::io::preadv2(file, &mut [IoSliceMut::new(buffer)], position, ReadWriteFlags::NOWAIT);
    read.ok().filter(|length| *length > 0)
}

fn read_some(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, position) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Buffers of [`PIECE`] bytes that go round: making a new one for each piece would cost as much as filling it.
#[derive(Clone, Default)]
pub(super) struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_else(|| vec![0; PIECE])
    }
}

/// A buffer on its way to a client; it goes home when it has been sent.
struct Filled {
    buffer: Vec<u8>,
    length: usize,
    home: Buffers,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let mut idle = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_BUFFERS {
            idle.push(std::mem::take(&mut self.buffer));
        }
    }
}
