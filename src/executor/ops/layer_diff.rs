//! The diff ID of a layer that several threads write: their batches come in any order and are put in that of the stream.
//!
//! Whoever brings the batch that is next goes on with all that wait for it, while the others go on writing. Somebody who is far ahead is asked to keep no content,
//! so that memory stays bounded however long one file takes; the stream reads it from the layer then. Should anything go wrong, there is no result, and the
//! layer is read when its diff ID is needed.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::image::layer::{LayerEntries, LayerStream, LayerWritten};

/// How many bytes of content may wait.
const MAX_WAITING: usize = 16 << 20;

/// Collects what is written to a layer.
pub(super) struct LayerDiff(Mutex<Collected>);

struct Collected {
    /// The number of the batch that the stream goes on with.
    next: usize,
    waiting: BTreeMap<usize, LayerEntries>,
    /// The content of those, in bytes.
    waiting_bytes: usize,
    stream: Stream,
}

enum Stream {
    Idle(Box<LayerStream>),
    /// Somebody writes it.
    Busy,
    GivenUp,
}

impl LayerDiff {
    pub(super) fn new(stream: LayerStream) -> LayerDiff {
        LayerDiff(Mutex::new(Collected { next: 0, waiting: BTreeMap::new(), waiting_bytes: 0, stream: Stream::Idle(Box::new(stream)) }))
    }

    /// Whether the next batch should have content.
    pub(super) fn wants_content(&self) -> bool {
        let collected = self.lock();
        !matches!(collected.stream, Stream::GivenUp) && collected.waiting_bytes < MAX_WAITING
    }

    /// Takes the batch `number`. They are numbered from 0 on in the order of the stream.
    pub(super) fn take(&self, number: usize, entries: LayerEntries) {
        let mut collected = self.lock();
        if matches!(collected.stream, Stream::GivenUp) {
            return;
        }
        collected.waiting_bytes += entries.content_size();
        collected.waiting.insert(number, entries);
        let mut stream = match std::mem::replace(&mut collected.stream, Stream::Busy) {
            Stream::Idle(stream) => stream,
            other => {
                collected.stream = other;
                return;
            }
        };
        loop {
            let next = collected.next;
            let Some(entries) = collected.waiting.remove(&next) else {
                collected.stream = Stream::Idle(stream);
                return;
            };
            collected.waiting_bytes -= entries.content_size();
            drop(collected);
            let written = stream.write(entries);
            collected = self.lock();
            collected.next += 1;
            if let Err(error) = written {
                tracing::debug!(%error, "the diff ID cannot be found out on the way");
                *collected = Collected { next, waiting: BTreeMap::new(), waiting_bytes: 0, stream: Stream::GivenUp };
                return;
            }
        }
    }

    /// The finished stream; `None` where it was given up.
    pub(super) fn finish(self) -> Option<LayerWritten> {
        let collected = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        match collected.stream {
            Stream::Idle(stream) if collected.waiting.is_empty() => stream.finish().ok(),
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
