//! Progress: what a command is doing, as typed events to a sink.
//!
//! Whoever works holds a [`Progress`] and emits events; what becomes of them (a redrawn tree, plain lines, nothing) is the renderer's business, in `cli`.
//! Emitting never blocks the work and never fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

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
        /// Bytes that really went over the network; `done` also counts what was there already.
        moved: u64,
        /// Which way.
        transfer: Transfer,
    },
    /// What a step used, before it ends.
    Measured {
        /// The step.
        step: StepId,
        /// What.
        usage: StepUsage,
    },
    /// A part of the command's work begins that is no step.
    PhaseBegan {
        /// What it is called: `plan`.
        name: &'static str,
    },
    /// Such a part has ended.
    Phase {
        /// What it is called.
        name: &'static str,
        /// When it began.
        began: Instant,
        /// How many bytes were hashed in it, where that is counted.
        hashed: Option<u64>,
    },
    /// A step has ended.
    Finished {
        /// The step.
        step: StepId,
        /// How.
        outcome: StepOutcome,
    },
    /// Why a step was or was not taken from the cache, in full.
    Explained(Box<Explanation>),
    /// Something that the user should know and can act on.
    Warning(String),
    /// A remark.
    Message(String),
}

/// Why a step was or was not taken from the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What the step is called.
    pub title: String,
    /// The key that it is looked up by.
    pub key: String,
    /// What became of the lookup.
    pub verdict: Verdict,
}

/// What became of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The result was found.
    Hit {
        /// By which kind of key: `definition` or `content`.
        by: &'static str,
        /// The imported cache that has it; `None` is this machine's store.
        cache: Option<String>,
    },
    /// The step runs.
    Miss {
        /// Why, in one sentence.
        reason: String,
        /// All that is different.
        differences: Vec<Difference>,
    },
}

/// One thing that is different from when the step ran last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// All of it, for people.
    pub text: String,
    /// What is different: `file src/main.rs`, `env VERSION`, `base`.
    pub what: String,
    /// What it was, where that can be said.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// To this machine.
    Download,
    /// From this machine.
    Upload,
    /// To a place on this machine.
    Export,
}

/// What a step used; `None` where that is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUsage {
    /// CPU time in user mode.
    pub user_time: Option<Duration>,
    /// CPU time in the kernel.
    pub system_time: Option<Duration>,
    /// The most memory used, in bytes.
    pub peak_memory: Option<u64>,
    /// Bytes that were read by system calls.
    pub read: Option<u64>,
    /// Bytes that were written by system calls.
    pub written: Option<u64>,
    /// Bytes of files that were hashed to find out what the step is called.
    pub hashed: Option<u64>,
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

    /// Whether what steps use is of interest, which costs a little to find out.
    fn wants_usage(&self) -> bool {
        false
    }

    /// Shows what is yet to be shown, and nothing any more.
    fn close(&self) {}
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

    /// Explains a lookup.
    pub fn explain(&self, explanation: Explanation) {
        self.emit(EventKind::Explained(Box::new(explanation)));
    }

    /// Tells of a part of the work that is no step, from now until what this returns is dropped.
    pub fn phase(&self, name: &'static str) -> Phase<'_> {
        self.emit(EventKind::PhaseBegan { name });
        Phase { progress: self, name, began: Instant::now(), hashed: None }
    }

    /// Whether what steps use is of interest.
    pub fn wants_usage(&self) -> bool {
        self.sink.wants_usage()
    }

    /// Ends: what is emitted from now on is not shown.
    pub fn close(&self) {
        self.sink.close();
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

/// A part of the work that is under way.
#[must_use = "the phase ends when this is dropped"]
pub struct Phase<'a> {
    progress: &'a Progress,
    name: &'static str,
    began: Instant,
    hashed: Option<u64>,
}

impl Phase<'_> {
    /// So many bytes were hashed in it.
    pub fn hashed(&mut self, bytes: u64) {
        self.hashed = Some(bytes);
    }
}

impl Drop for Phase<'_> {
    fn drop(&mut self) {
        self.progress.emit(EventKind::Phase { name: self.name, began: self.began, hashed: self.hashed });
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

    /// Names the step in events.
    pub fn id(&self) -> StepId {
        self.step
    }

    /// Says what the step used.
    pub fn measured(&self, usage: StepUsage) {
        self.progress.emit(EventKind::Measured { step: self.step, usage });
    }

    /// Whether what the step uses is of interest.
    pub fn wants_usage(&self) -> bool {
        self.progress.wants_usage()
    }

    /// Counts the bytes of one download within the step.
    pub fn meter(&self, what: impl Into<String>, total: u64) -> Meter {
        self.meter_of(what.into(), Some(total), Transfer::Download)
    }

    /// Counts the bytes of one upload within the step.
    pub fn upload_meter(&self, what: impl Into<String>, total: u64) -> Meter {
        self.meter_of(what.into(), Some(total), Transfer::Upload)
    }

    /// Counts the bytes of one result that is written within the step. How many there will be is told by [`Meter::done`].
    pub fn export_meter(&self, what: impl Into<String>) -> Meter {
        self.meter_of(what.into(), None, Transfer::Export)
    }

    fn meter_of(&self, what: String, total: Option<u64>, transfer: Transfer) -> Meter {
        let counter = Arc::new(Counter { done: AtomicU64::new(0), shown: AtomicU64::new(0) });
        Meter { progress: self.progress.clone(), step: self.step, what, total, transfer, counter }
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
    total: Option<u64>,
    transfer: Transfer,
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
        let before = self.counter.done.fetch_add(count, Ordering::Relaxed);
        let done = before + count;
        if before == 0 {
            self.emit(0, self.total);
        }
        let shown = self.counter.shown.load(Ordering::Relaxed);
        if done >= shown + METER_STEP && self.counter.shown.compare_exchange(shown, done, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.emit(done, self.total);
        }
    }

    /// The transfer is over, or was not necessary.
    pub fn done(&self) {
        let all = self.total.unwrap_or_else(|| self.counter.done.load(Ordering::Relaxed));
        self.emit(all, Some(all));
    }

    fn emit(&self, done: u64, total: Option<u64>) {
        self.progress.emit(EventKind::Bytes {
            step: self.step,
            what: self.what.clone(),
            done: total.map_or(done, |total| done.min(total)),
            total,
            moved: self.counter.done.load(Ordering::Relaxed),
            transfer: self.transfer,
        });
    }
}

impl Drop for StepProgress {
    fn drop(&mut self) {
        if !self.ended {
            self.progress.emit(EventKind::Finished { step: self.step, outcome: StepOutcome::Cancelled });
        }
    }
}
