//! Progress as a live tree on a terminal: running steps with their times, transfers and last lines of output, and above them the lines of finished steps, which stay.
//!
//! `indicatif` owns the terminal; what it draws is one text that is laid out here for the rows and columns that the terminal has at that moment. It is drawn ten times
//! a second at most, by a thread of its own, so that events cost no more than being noted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::progress::{Event, EventKind, Sink, StepId, StepOutcome};

use super::screen::{clean, fit, spread};
use super::{explained, seconds, size};

/// How many lines of a running step's output are shown.
const TAIL: usize = 6;

/// How much of a line that has not ended is kept.
const LINE: usize = 4096;

/// How long a part of the work that is no step takes before it is shown.
const NOTABLE: Duration = Duration::from_millis(300);

/// How often the screen is drawn.
const TICK: Duration = Duration::from_millis(100);

/// Draws progress on standard error.
pub(super) struct Tty {
    shared: Arc<Shared>,
    drawer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    closed: Condvar,
}

struct State {
    bar: ProgressBar,
    screen: Screen,
    /// Lines that are to stay, not shown yet.
    lines: Vec<String>,
    is_closed: bool,
}

impl Tty {
    pub(super) fn new(colours: bool) -> Tty {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        let state = State { bar, screen: Screen::new(colours), lines: Vec::new(), is_closed: false };
        Tty { shared: Arc::new(Shared { state: Mutex::new(state), closed: Condvar::new() }), drawer: Mutex::new(None) }
    }

    /// Starts the thread that draws, if it does not run.
    fn draw_from_now_on(&self) {
        let mut drawer = self.drawer.lock().unwrap_or_else(PoisonError::into_inner);
        if drawer.is_none() {
            let shared = self.shared.clone();
            // Without a thread there is no live tree; finished steps are shown all the same.
            *drawer = std::thread::Builder::new().name("progress".into()).spawn(move || shared.draw_until_closed()).ok();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw_until_closed(&self) {
        let mut state = self.state();
        while !state.is_closed {
            state.draw(Instant::now());
            state = self.closed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl State {
    /// Shows the lines that are to stay, and the live tree below them.
    fn draw(&mut self, now: Instant) {
        let (rows, columns) = Term::stderr().size_checked().unwrap_or((24, 80));
        let frame = self.screen.frame(now, usize::from(rows), usize::from(columns));
        if !self.lines.is_empty() {
            let text = std::mem::take(&mut self.lines).join("\n");
            self.bar.println(text);
        }
        if frame.is_empty() {
            self.bar.set_message("");
            self.bar.finish_and_clear();
        } else {
            if self.bar.is_finished() {
                self.bar.reset();
            }
            self.bar.set_message(frame);
            self.bar.tick();
        }
    }
}

impl Sink for Tty {
    fn emit(&self, event: Event) {
        if matches!(event.kind, EventKind::Started { .. } | EventKind::PhaseBegan { .. }) {
            self.draw_from_now_on();
        }
        let mut state = self.shared.state();
        if state.is_closed {
            return;
        }
        let lines = state.screen.fold(event);
        state.lines.extend(lines);
        if state.screen.is_idle() && !state.lines.is_empty() {
            // Nothing is under way, so whatever is written next must find the screen as it stays.
            state.draw(Instant::now());
        }
    }

    fn close(&self) {
        let mut state = self.shared.state();
        if !state.is_closed {
            let lines = state.screen.give_up(Instant::now());
            state.lines.extend(lines);
            state.draw(Instant::now());
            state.is_closed = true;
        }
        drop(state);
        self.shared.closed.notify_all();
        if let Some(drawer) = self.drawer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A thread that panicked has drawn enough.
            let _ = drawer.join();
        }
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.close();
    }
}

/// What is to be seen. Knows no terminal.
struct Screen {
    origin: Instant,
    steps: BTreeMap<StepId, Step>,
    /// What goes on beside steps.
    phases: Vec<(&'static str, Instant)>,
    begun: usize,
    ended: usize,
    colours: bool,
}

struct Step {
    title: String,
    reason: Option<String>,
    started: Instant,
    tail: VecDeque<String>,
    partial: Vec<u8>,
    transfers: Vec<Transfer>,
}

struct Transfer {
    what: String,
    started: Instant,
    done: u64,
    total: Option<u64>,
}

impl Screen {
    fn new(colours: bool) -> Screen {
        Screen { origin: Instant::now(), steps: BTreeMap::new(), phases: Vec::new(), begun: 0, ended: 0, colours }
    }

    fn is_idle(&self) -> bool {
        self.steps.is_empty()
    }

    /// Takes an event in, and gives the lines that it leaves for good.
    fn fold(&mut self, event: Event) -> Vec<String> {
        match event.kind {
            EventKind::Started { step, title, reason } => {
                self.begun += 1;
                let state = Step {
                    title: clean(&title.replace('\n', " ")),
                    reason,
                    started: event.at,
                    tail: VecDeque::new(),
                    partial: Vec::new(),
                    transfers: Vec::new(),
                };
                self.steps.insert(step, state);
            }
            EventKind::Log { step, bytes, .. } => {
                if let Some(step) = self.steps.get_mut(&step) {
                    step.log(&bytes);
                }
            }
            EventKind::Bytes { step, what, done, total, .. } => {
                if let Some(step) = self.steps.get_mut(&step) {
                    step.transfer(what, (done, total), event.at);
                }
            }
            EventKind::Finished { step, outcome } => {
                self.ended += 1;
                return self.steps.remove(&step).map(|step| self.last_line(&step, event.at, outcome)).into_iter().collect();
            }
            EventKind::Warning(text) => return vec![format!("{} {}", self.paint("33", "warning:"), clean(&text.replace('\n', " ")))],
            EventKind::Message(text) => return vec![clean(&text.replace('\n', " "))],
            EventKind::Explained(explanation) => return explained(&explanation).iter().map(|line| clean(line)).collect(),
            EventKind::PhaseBegan { name } => self.phases.push((name, event.at)),
            EventKind::Phase { name, .. } => {
                if let Some(at) = self.phases.iter().rposition(|(open, _)| *open == name) {
                    self.phases.remove(at);
                }
            }
            EventKind::Measured { .. } => {}
        }
        Vec::new()
    }

    /// Ends all steps that are under way.
    fn give_up(&mut self, now: Instant) -> Vec<String> {
        self.phases.clear();
        let steps = std::mem::take(&mut self.steps);
        steps.values().map(|step| self.last_line(step, now, StepOutcome::Cancelled)).collect()
    }

    fn last_line(&self, step: &Step, at: Instant, outcome: StepOutcome) -> String {
        let (mark, word) = match outcome {
            StepOutcome::Done => (self.paint("32", "✔"), seconds(at.saturating_duration_since(step.started))),
            StepOutcome::Cached => (self.paint("36", "="), "CACHED".to_owned()),
            StepOutcome::Failed => (self.paint("31", "✘"), "ERROR".to_owned()),
            StepOutcome::Cancelled => (self.paint("33", "-"), "CANCELED".to_owned()),
        };
        let why = step.reason.as_ref().map_or_else(String::new, |reason| format!(" {}", self.paint("2", &format!("({})", clean(reason)))));
        format!("{mark} {} {}{why}", step.title, self.paint("2", &word))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// What goes on where no step is under way, once it takes a moment.
    fn phase(&self, now: Instant) -> Option<(&'static str, Duration)> {
        let (name, began) = self.phases.last().filter(|_| self.steps.is_empty())?;
        let elapsed = now.saturating_duration_since(*began);
        let words = match *name {
            "read" => "reading the Dockerfile",
            "probe" => "reading the context, looking the steps up",
            "assemble" => "computing the digests of the layers",
            "compress" => "compressing the layers",
            "export" => "exporting the result",
            other => other,
        };
        (elapsed >= NOTABLE).then_some((words, elapsed))
    }

    /// The live tree for a terminal of this size; nothing where nothing is under way. No line reaches the last column, and one row stays free, so that nothing wraps or scrolls.
    fn frame(&self, now: Instant, rows: usize, columns: usize) -> String {
        let phase = self.phase(now);
        if self.steps.is_empty() && phase.is_none() {
            return String::new();
        }
        let columns = columns.saturating_sub(1).max(1);
        let elapsed = seconds(now.saturating_duration_since(self.origin));
        let header = fit(&format!("[+] Building {elapsed} ({}/{})", self.ended, self.begun), columns);
        let mut lines = vec![self.paint("1", &header)];
        lines.extend(phase.map(|(words, elapsed)| spread(&format!(" => {words}"), &seconds(elapsed), columns)));
        let room = rows.saturating_sub(3).max(1);
        let shown = if self.steps.len() <= room { self.steps.len() } else { room - 1 };
        // What the titles leave is for transfers and output, for each step as much.
        let mut spare = room.saturating_sub(self.steps.len());
        for (at, step) in self.steps.values().take(shown).enumerate() {
            let time = seconds(now.saturating_duration_since(step.started));
            lines.push(spread(&format!(" => {}", step.title), &time, columns));
            let share = spare.div_ceil(shown - at);
            let details = step.details(now, share, columns);
            spare -= details.len();
            lines.extend(details.into_iter().map(|line| self.paint("2", &line)));
        }
        if shown < self.steps.len() {
            lines.push(fit(&format!(" => and {} more steps", self.steps.len() - shown), columns));
        }
        lines.join("\n")
    }
}

impl Step {
    /// Notes the end of what was written; what has gone by is not looked at.
    fn log(&mut self, bytes: &[u8]) {
        let mut start = bytes.len();
        for _ in 0..=TAIL {
            match memchr::memrchr(b'\n', &bytes[..start]) {
                Some(at) => start = at,
                None => {
                    start = 0;
                    break;
                }
            }
        }
        if start > 0 {
            self.partial.clear();
        }
        for piece in bytes[start..].split_inclusive(|b| *b == b'\n') {
            self.partial.extend_from_slice(piece);
            let surplus = self.partial.len().saturating_sub(LINE);
            self.partial.drain(..surplus);
            if piece.ends_with(b"\n") {
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
    }

    fn transfer(&mut self, what: String, (done, total): (u64, Option<u64>), at: Instant) {
        match self.transfers.iter_mut().find(|known| known.what == what) {
            Some(known) => (known.done, known.total) = (done, total),
            None => self.transfers.push(Transfer { what, started: at, done, total }),
        }
    }

    /// Transfers under way, then the last lines of output.
    fn details(&self, now: Instant, room: usize, columns: usize) -> Vec<String> {
        let mut lines = Vec::new();
        for transfer in self.transfers.iter().filter(|transfer| transfer.total.is_none_or(|total| transfer.done < total)).take(room) {
            let of = transfer.total.map_or_else(String::new, |total| format!(" / {}", size(total)));
            let time = seconds(now.saturating_duration_since(transfer.started));
            lines.push(spread(&format!(" => => {} {}{of}", clean(&transfer.what), size(transfer.done)), &time, columns));
        }
        // A line that has not ended, such as a question or a bar that grows, is the last one.
        let partial = clean(&String::from_utf8_lossy(&self.partial));
        let output: Vec<&String> = self.tail.iter().chain((!partial.trim().is_empty()).then_some(&partial)).collect();
        let skipped = output.len().saturating_sub(TAIL.min(room - lines.len()));
        lines.extend(output.into_iter().skip(skipped).map(|line| fit(&format!(" => => # {line}"), columns)));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Stream;
    use console::measure_text_width;

    fn event(kind: EventKind) -> Event {
        Event { at: Instant::now(), kind }
    }

    /// A screen with so many running steps, each of which wrote these bytes.
    fn busy(count: usize, output: &[u8]) -> Screen {
        let mut screen = Screen::new(false);
        let progress = crate::progress::Progress::silent();
        for number in 0..count {
            let running = progress.start("", None);
            let step = running.id();
            screen.fold(event(EventKind::Started { step, title: format!("[stage {number}] RUN something"), reason: None }));
            screen.fold(event(EventKind::Log { step, stream: Stream::Stdout, bytes: output.to_vec() }));
        }
        screen
    }

    #[test]
    fn a_frame_never_is_larger_than_the_terminal() {
        let output = "漢字\t\x1b[31mlong line of output that goes on and on and on\x1b[0m\nand\nmore\nlines\nthan\nare\nshown\n".as_bytes();
        for count in [1, 2, 5, 50, 1000] {
            let screen = busy(count, output);
            for (rows, columns) in [(24, 80), (5, 20), (3, 10), (1, 1), (50, 200), (24, 6)] {
                let frame = screen.frame(Instant::now(), rows, columns);
                let lines: Vec<&str> = frame.lines().collect();
                assert!(lines.len() < rows.max(3), "{count} steps on {rows} rows: {frame}");
                assert!(lines.iter().all(|line| measure_text_width(line) < columns.max(2)), "{columns} columns: {frame}");
                assert!(!frame.contains('\x1b'));
            }
        }
    }

    #[test]
    fn the_last_lines_are_shown_and_a_line_that_has_not_ended() {
        let screen = busy(1, b"1\n2\n3\n4\n5\n6\n7\n8\n9%\r10%");
        let frame = screen.frame(Instant::now(), 24, 40);
        let shown: Vec<&str> = frame.lines().skip(2).map(|line| line.trim_start_matches(" => => # ")).collect();
        assert_eq!(shown, ["4", "5", "6", "7", "8", "10%"]);
    }

    #[test]
    fn what_takes_a_moment_between_steps_is_shown() {
        let mut screen = Screen::new(false);
        screen.fold(event(EventKind::PhaseBegan { name: "probe" }));
        let now = Instant::now();
        assert_eq!(screen.frame(now, 24, 60), "");
        let frame = screen.frame(now + Duration::from_secs(2), 24, 60);
        assert!(frame.lines().nth(1).is_some_and(|line| line.contains("context") && line.ends_with("2.0s")), "{frame}");
        screen.fold(event(EventKind::Phase { name: "probe", began: now, hashed: None }));
        assert_eq!(screen.frame(now + Duration::from_secs(2), 24, 60), "");
    }

    #[test]
    fn steps_that_do_not_fit_are_counted() {
        let frame = busy(30, b"").frame(Instant::now(), 10, 60);
        assert_eq!(frame.lines().count(), 8);
        assert!(frame.ends_with(" => and 24 more steps"), "{frame}");
    }
}
