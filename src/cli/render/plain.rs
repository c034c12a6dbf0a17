//! Progress as lines, one for each event, with the step's number before them: for CI logs and files.
//!
//! Output of steps is passed on line by line; an unfinished line is kept until its rest comes, so that parallel steps do not mix within a line.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::Instant;

use crate::progress::{Event, EventKind, Sink, StepId, StepOutcome};

use super::{explained, seconds, size};

/// Writes progress as plain lines to standard error.
pub(super) struct Plain {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: HashMap<StepId, Step>,
    /// The number that lines of the next step begin with.
    next: usize,
}

/// What is longer, in bytes, is shown as several lines: a command that writes no line ends at all does not fill the memory.
const LONGEST_LINE: usize = 1 << 20;

struct Step {
    number: usize,
    started: Instant,
    partial: Vec<u8>,
    /// What transfers said last, so that each is shown when it begins and ends only.
    transfers: HashMap<String, u64>,
}

impl Plain {
    pub(super) fn new() -> Plain {
        Plain { state: Mutex::new(State { next: 1, ..State::default() }) }
    }
}

impl Sink for Plain {
    fn emit(&self, event: Event) {
        let mut out = Vec::new();
        if let Ok(mut state) = self.state.lock() {
            state.fold(&event, &mut out);
        }
        // A closed standard error is no reason to fail a build.
        let _ = std::io::stderr().lock().write_all(&out);
    }
}

impl State {
    fn fold(&mut self, event: &Event, out: &mut Vec<u8>) {
        match &event.kind {
            EventKind::Started { step, title, reason } => {
                let number = self.next;
                self.next += 1;
                self.steps.insert(*step, Step { number, started: event.at, partial: Vec::new(), transfers: HashMap::new() });
                line(out, number, title);
                if let Some(reason) = reason {
                    line(out, number, &format!("why: {reason}"));
                }
            }
            EventKind::Log { step, bytes, .. } => {
                if let Some(step) = self.steps.get_mut(step) {
                    step.log(event.at, bytes, out);
                }
            }
            EventKind::Bytes { step, what, done, total, .. } => {
                let Some(step) = self.steps.get_mut(step) else { return };
                let finished = total.is_some_and(|total| *done >= total);
                let seen = step.transfers.insert(what.clone(), *done);
                if finished && seen.is_none_or(|seen| seen < *done) {
                    line(out, step.number, &format!("{what} {}", size(*done)));
                }
            }
            EventKind::Finished { step, outcome } => {
                let Some(mut step) = self.steps.remove(step) else { return };
                step.flush(event.at, out);
                let text = match outcome {
                    StepOutcome::Done => format!("DONE {}", seconds(event.at - step.started)),
                    StepOutcome::Cached => "CACHED".to_owned(),
                    StepOutcome::Failed => "ERROR".to_owned(),
                    StepOutcome::Cancelled => "CANCELED".to_owned(),
                };
                line(out, step.number, &text);
            }
            EventKind::Explained(explanation) => {
                for text in explained(explanation) {
                    out.extend_from_slice(format!("{text}\n").as_bytes());
                }
            }
            EventKind::Measured { .. } | EventKind::PhaseBegan { .. } | EventKind::Phase { .. } => {}
            EventKind::Warning(text) => out.extend_from_slice(format!("warning: {text}\n").as_bytes()),
            EventKind::Message(text) => out.extend_from_slice(format!("{text}\n").as_bytes()),
        }
    }
}

impl Step {
    fn log(&mut self, at: Instant, bytes: &[u8], out: &mut Vec<u8>) {
        let prefix = format!("#{} {:.3} ", self.number, (at - self.started).as_secs_f64());
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.partial.is_empty() {
                shown(&prefix, line, out);
            } else {
                self.partial.extend_from_slice(line);
                shown(&prefix, &self.partial, out);
                self.partial.clear();
            }
        }
        self.partial.extend_from_slice(rest);
        if self.partial.len() > LONGEST_LINE {
            self.flush(at, out);
        }
    }

    fn flush(&mut self, at: Instant, out: &mut Vec<u8>) {
        if self.partial.is_empty() {
            return;
        }
        shown(&format!("#{} {:.3} ", self.number, (at - self.started).as_secs_f64()), &self.partial, out);
        self.partial.clear();
    }
}

/// Shows a line of output.
fn shown(prefix: &str, line: &[u8], out: &mut Vec<u8>) {
    // A progress bar of the command: what stands after the last carriage return is what a terminal would show.
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let line = memchr::memrchr(b'\r', line).map_or(line, |at| &line[at + 1..]);
    out.extend_from_slice(prefix.as_bytes());
    out.extend_from_slice(line);
    out.push(b'\n');
}

fn line(out: &mut Vec<u8>, number: usize, text: &str) {
    out.extend_from_slice(format!("#{number} {text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::{Progress, Stream};
    use std::sync::Arc;

    #[derive(Default)]
    struct Collect(Mutex<(State, Vec<u8>)>);

    impl Sink for Collect {
        fn emit(&self, event: Event) {
            let mut inner = self.0.lock().unwrap();
            let (state, out) = &mut *inner;
            state.fold(&event, out);
        }
    }

    #[test]
    fn output_without_line_ends_is_shown_before_it_fills_the_memory() {
        let sink = Arc::new(Collect::default());
        let step = Progress::new(sink.clone()).start("a", None);
        let shown = || sink.0.lock().unwrap().1.iter().filter(|byte| **byte == b'x').count();
        for _ in 0..40 {
            step.log(Stream::Stdout, vec![b'x'; 100_000]);
        }
        assert!((3_000_000..4_000_000).contains(&shown()), "{}", shown());
        step.finish(StepOutcome::Done);
        assert_eq!(shown(), 4_000_000);
    }

    #[test]
    fn lines_of_parallel_steps_do_not_mix() {
        let sink = Arc::new(Collect::default());
        let progress = Progress::new(sink.clone());
        let (a, b) = (progress.start("a", Some("x changed".into())), progress.start("b", None));
        a.log(Stream::Stdout, b"one ".to_vec());
        b.log(Stream::Stdout, b"two\n".to_vec());
        a.log(Stream::Stdout, b"line\nrest".to_vec());
        a.finish(StepOutcome::Done);
        b.finish(StepOutcome::Failed);
        let text = String::from_utf8(sink.0.lock().unwrap().1.clone()).unwrap();
        let bare: Vec<String> = text.lines().map(|l| l.replace(|c: char| c.is_ascii_digit(), "")).collect();
        assert_eq!(bare, ["# a", "# why: x changed", "# b", "# . two", "# . one line", "# . rest", "# DONE .s", "# ERROR"], "{text}");
    }
}
