//! Progress as a live tree on a terminal: one line for each running step with its time, its transfers and its last lines of output, and finished steps above.
//!
//! `indicatif` owns the terminal. Lines of output are cut to the terminal's width and stripped of control characters: a step cannot move the cursor.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::progress::{Event, EventKind, Sink, StepId, StepOutcome};

use super::{seconds, size};

/// How many lines of a running step's output are shown.
const TAIL: usize = 5;

/// Draws progress on standard error.
pub(super) struct Tty {
    bars: MultiProgress,
    steps: Mutex<HashMap<StepId, Step>>,
    colours: bool,
}

struct Step {
    bar: ProgressBar,
    title: String,
    reason: Option<String>,
    started: Instant,
    tail: VecDeque<String>,
    partial: Vec<u8>,
    transfers: Vec<(String, u64, Option<u64>)>,
}

impl Tty {
    pub(super) fn new(colours: bool) -> Tty {
        Tty { bars: MultiProgress::new(), steps: Mutex::new(HashMap::new()), colours }
    }

    fn print(&self, text: &str) {
        // Where the terminal is gone there is nobody to tell.
        let _ = self.bars.println(text);
    }
}

impl Sink for Tty {
    fn emit(&self, event: Event) {
        let Ok(mut steps) = self.steps.lock() else { return };
        match event.kind {
            EventKind::Started { step, title, reason } => {
                let bar = self.bars.add(ProgressBar::new_spinner());
                // The message holds the lines below the title, each after a line break.
                let template =
                    if self.colours { "{spinner:.blue} {prefix} {elapsed:.dim}{msg}" } else { "{spinner} {prefix} {elapsed}{msg}" };
                bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()));
                bar.enable_steady_tick(Duration::from_millis(100));
                bar.set_prefix(fit(&title, 12));
                let step_state =
                    Step { bar, title, reason, started: event.at, tail: VecDeque::new(), partial: Vec::new(), transfers: Vec::new() };
                steps.insert(step, step_state);
            }
            EventKind::Log { step, bytes, .. } => {
                if let Some(step) = steps.get_mut(&step) {
                    step.log(&bytes);
                }
            }
            EventKind::Bytes { step, what, done, total } => {
                if let Some(step) = steps.get_mut(&step) {
                    step.transfer(what, done, total);
                }
            }
            EventKind::Finished { step, outcome } => {
                if let Some(step) = steps.remove(&step) {
                    step.bar.finish_and_clear();
                    self.bars.remove(&step.bar);
                    self.print(&step.last_line(event.at, outcome, self.colours));
                }
            }
            EventKind::Warning(text) => self.print(&format!("{} {}", paint("33", "warning:", self.colours), clean(&text))),
            EventKind::Message(text) => self.print(&clean(&text)),
        }
    }
}

impl Step {
    fn log(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|b| *b == b'\n' || *b == b'\r') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || piece.ends_with(b"\r") {
                let line = clean(&String::from_utf8_lossy(&self.partial));
                self.partial.clear();
                if !line.trim().is_empty() {
                    self.tail.push_back(line);
                }
            }
        }
        while self.tail.len() > TAIL {
            self.tail.pop_front();
        }
        self.draw();
    }

    fn transfer(&mut self, what: String, done: u64, total: Option<u64>) {
        match self.transfers.iter_mut().find(|(name, _, _)| *name == what) {
            Some(known) => (known.1, known.2) = (done, total),
            None => self.transfers.push((what, done, total)),
        }
        self.draw();
    }

    fn draw(&self) {
        let mut message = String::new();
        for (what, done, total) in &self.transfers {
            if total.is_some_and(|total| *done >= total) {
                continue;
            }
            let of = total.map_or_else(String::new, |total| format!(" / {}", size(total)));
            message.push_str(&format!("\n    {}", fit(&format!("{what} {}{of}", size(*done)), 6)));
        }
        for line in &self.tail {
            message.push_str("\n    ");
            message.push_str(&fit(line, 6));
        }
        self.bar.set_message(message);
    }

    fn last_line(&self, at: Instant, outcome: StepOutcome, colours: bool) -> String {
        let paint = |colour: &str, text: &str| paint(colour, text, colours);
        let (mark, word) = match outcome {
            StepOutcome::Done => (paint("32", "✔"), seconds(at - self.started)),
            StepOutcome::Cached => (paint("36", "="), "CACHED".to_owned()),
            StepOutcome::Failed => (paint("31", "✘"), "ERROR".to_owned()),
            StepOutcome::Cancelled => (paint("33", "-"), "CANCELED".to_owned()),
        };
        let why = self.reason.as_ref().map_or_else(String::new, |reason| format!(" {}", paint("2", &format!("({})", clean(reason)))));
        format!("{mark} {} {}{why}", clean(&self.title), paint("2", &word))
    }
}

fn paint(colour: &str, text: &str, colours: bool) -> String {
    if colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Text without control characters, cut to what the terminal's width leaves when `reserved` columns are taken: a line that wraps would not be erased.
fn fit(text: &str, reserved: usize) -> String {
    let width = Term::stderr().size_checked().map_or(80, |(_, columns)| usize::from(columns)).saturating_sub(reserved).max(10);
    let text = clean(text);
    match text.char_indices().nth(width) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Text without control characters.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}
