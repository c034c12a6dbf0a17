//! Progress: what a command is doing, as typed events to a sink.
//!
//! Whoever works holds a [`Progress`] and emits events; what becomes of them (a redrawn tree, plain lines, nothing) is the renderer's business, in `cli`.
//! Emitting never blocks the work and never fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// Names a step in events; unique within one [`Progress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(u32);

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub at: Instant,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// A step begins.
    Started {
        /// The step.
        step: StepId,
        /// What it is called: `[build 2/5] RUN make`.
        title: String,
        /// Why it was not taken from the cache.
        reason: Option<String>,
    },
    /// A step's output.
    Log {
        /// The step.
        step: StepId,
        /// Where it was written to.
        stream: Stream,
        /// The bytes, not necessarily whole lines.
        bytes: Vec<u8>,
    },
    /// How far a transfer within a step has come.
    Bytes {
        /// The step.
        step: StepId,
        /// What is transferred: `layer 3f2a…`.
        what: String,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, if known.
        total: Option<u64>,
    },
    /// A step has ended.
    Finished {
        /// The step.
        step: StepId,
        /// How.
        outcome: StepOutcome,
    },
    /// Something that the user should know and can act on.
    Warning(String),
    /// A remark.
    Message(String),
}

/// Where output was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// It was done.
    Done,
    /// It was done before.
    Cached,
    /// It failed; the error tells why.
    Failed,
    /// It was stopped because something else failed, or by the user.
    Cancelled,
}

/// Takes events. It must not block.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

/// Where to report progress. Cloning is cheap.
#[derive(Clone)]
pub struct Progress {
    sink: Arc<dyn Sink>,
    next: Arc<AtomicU32>,
}

impl Progress {
    /// Reports to `sink`.
    pub fn new(sink: Arc<dyn Sink>) -> Progress {
        Progress { sink, next: Arc::new(AtomicU32::new(1)) }
    }

    /// Reports to nobody.
    pub fn silent() -> Progress {
        struct Nobody;
        impl Sink for Nobody {
            fn emit(&self, _: Event) {}
        }
        Progress::new(Arc::new(Nobody))
    }

    /// Begins a step.
    pub fn start(&self, title: impl Into<String>, reason: Option<String>) -> StepProgress {
        let step = StepId(self.next.fetch_add(1, Ordering::Relaxed));
        self.emit(EventKind::Started { step, title: title.into(), reason });
        StepProgress { progress: self.clone(), step, ended: false }
    }

    /// Tells of a step that was done before.
    pub fn cached(&self, title: impl Into<String>) {
        self.start(title, None).finish(StepOutcome::Cached);
    }

    /// Warns.
    pub fn warn(&self, text: impl Into<String>) {
        self.emit(EventKind::Warning(text.into()));
    }

    /// Remarks.
    pub fn message(&self, text: impl Into<String>) {
        self.emit(EventKind::Message(text.into()));
    }

    fn emit(&self, kind: EventKind) {
        self.sink.emit(Event { at: Instant::now(), kind });
    }
}

/// A step that is under way. Dropped without [`StepProgress::finish`], it counts as cancelled.
pub struct StepProgress {
    progress: Progress,
    step: StepId,
    ended: bool,
}

impl StepProgress {
    /// Passes output on.
    pub fn log(&self, stream: Stream, bytes: Vec<u8>) {
        self.progress.emit(EventKind::Log { step: self.step, stream, bytes });
    }

    /// Says how far a transfer has come.
    pub fn bytes(&self, what: impl Into<String>, done: u64, total: Option<u64>) {
        self.progress.emit(EventKind::Bytes { step: self.step, what: what.into(), done, total });
    }

    /// Counts the bytes of one transfer within the step.
    pub fn meter(&self, what: impl Into<String>, total: u64) -> Meter {
        let counter = Arc::new(Counter { done: AtomicU64::new(0), shown: AtomicU64::new(0) });
        Meter { progress: self.progress.clone(), step: self.step, what: what.into(), total, counter }
    }

    /// Ends the step.
    pub fn finish(mut self, outcome: StepOutcome) {
        self.ended = true;
        self.progress.emit(EventKind::Finished { step: self.step, outcome });
    }
}

/// Counts the bytes of one transfer. Cloning is cheap; all clones count together.
#[derive(Clone)]
pub struct Meter {
    progress: Progress,
    step: StepId,
    what: String,
    total: u64,
    counter: Arc<Counter>,
}

struct Counter {
    done: AtomicU64,
    /// What was reported last: not every chunk is worth an event.
    shown: AtomicU64,
}

/// How many bytes go by between two reports.
const METER_STEP: u64 = 256 * 1024;

impl Meter {
    /// `count` more bytes have been transferred.
    pub fn add(&self, count: u64) {
        let done = self.counter.done.fetch_add(count, Ordering::Relaxed) + count;
        let shown = self.counter.shown.load(Ordering::Relaxed);
        if done >= shown + METER_STEP && self.counter.shown.compare_exchange(shown, done, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.emit(done);
        }
    }

    /// The transfer is over, or was not necessary.
    pub fn done(&self) {
        self.emit(self.total);
    }

    fn emit(&self, done: u64) {
        let kind = EventKind::Bytes { step: self.step, what: self.what.clone(), done: done.min(self.total), total: Some(self.total) };
        self.progress.emit(kind);
    }
}

impl Drop for StepProgress {
    fn drop(&mut self) {
        if !self.ended {
            self.progress.emit(EventKind::Finished { step: self.step, outcome: StepOutcome::Cancelled });
        }
    }
}
