//! The line at the end of a build: what ran, how long it took and what took longest, what was transferred.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::progress::{Event, EventKind, StepId, StepOutcome, Transfer};

use super::{Observer, seconds, size};

/// How long a step must take to be worth telling that it was the slowest.
const NOTABLE: Duration = Duration::from_millis(100);

/// Counts.
pub(in crate::cli) struct Summary {
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<StepId, (String, bool, Instant)>,
    ran: usize,
    cached: usize,
    slowest: Option<(Duration, String)>,
    /// What each transfer has moved so far.
    downloads: HashMap<(StepId, String), u64>,
    uploads: HashMap<(StepId, String), u64>,
}

impl Summary {
    /// Counts from now on.
    pub(in crate::cli) fn new() -> Summary {
        Summary { origin: Instant::now(), state: Mutex::default() }
    }

    /// The line, for a build that ended now; `image` is the size of what it made, in bytes. Nothing where it failed before it did anything.
    pub(in crate::cli) fn line(&self, image: Option<u64>) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (image.is_some() || state.ran + state.cached > 0).then(|| state.line(self.origin.elapsed(), image))
    }
}

impl State {
    fn line(&self, elapsed: Duration, image: Option<u64>) -> String {
        let mut parts = vec![match (self.ran, self.cached) {
            (0, 0) => "no steps".to_owned(),
            (0, cached) => format!("{} cached", steps(cached)),
            (ran, 0) => format!("{} run", steps(ran)),
            (ran, cached) => format!("{} run, {cached} cached", steps(ran)),
        }];
        if let Some((time, title)) = self.slowest.as_ref().filter(|(time, _)| self.ran > 1 && *time >= NOTABLE) {
            parts.push(format!("slowest {title} ({})", seconds(*time)));
        }
        for (moved, word) in [(&self.downloads, "downloaded"), (&self.uploads, "uploaded")] {
            let bytes = moved.values().sum();
            if bytes > 0 {
                parts.push(format!("{} {word}", size(bytes)));
            }
        }
        let (word, image) = match image {
            Some(bytes) => ("built in", Some(format!("image {}", size(bytes)))),
            None => ("failed after", None),
        };
        parts.extend(image);
        format!("{word} {}: {}", seconds(elapsed), parts.join(", "))
    }
}

fn steps(count: usize) -> String {
    if count == 1 { "1 step".to_owned() } else { format!("{count} steps") }
}

impl Observer for Summary {
    fn observe(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &event.kind {
            // Only steps of the Dockerfile have a reason to run.
            EventKind::Started { step, title, reason } => {
                state.open.insert(*step, (title.clone(), reason.is_some(), event.at));
            }
            EventKind::Finished { step, outcome } => {
                let Some((title, is_step, began)) = state.open.remove(step) else { return };
                match outcome {
                    StepOutcome::Cached => state.cached += 1,
                    _ if is_step => state.ran += 1,
                    _ => return,
                }
                let time = event.at.saturating_duration_since(began);
                if state.slowest.as_ref().is_none_or(|(slowest, _)| time > *slowest) {
                    state.slowest = Some((time, short(&title)));
                }
            }
            EventKind::Bytes { step, what, moved, transfer, .. } => {
                let sums = match transfer {
                    Transfer::Download => &mut state.downloads,
                    Transfer::Upload => &mut state.uploads,
                    Transfer::Export => return,
                };
                sums.insert((*step, what.clone()), *moved);
            }
            _ => {}
        }
    }
}

/// The beginning of a title, on one line.
fn short(title: &str) -> String {
    let line: String = title.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_there_is_to_say() {
        let mut state = State::default();
        assert_eq!(state.line(Duration::from_millis(10), Some(0)), "built in 0.0s: no steps, image 0B");
        state.cached = 3;
        assert_eq!(state.line(Duration::from_secs(1), Some(4_860_000)), "built in 1.0s: 3 steps cached, image 4.86MB");
        state.ran = 2;
        state.slowest = Some((Duration::from_secs(2), "[b 2/2] RUN make".into()));
        state.downloads.insert((crate::progress::Progress::silent().start("x", None).id(), "layer".into()), 1000);
        let line = "failed after 4.0s: 2 steps run, 3 cached, slowest [b 2/2] RUN make (2.0s), 1.00kB downloaded";
        assert_eq!(state.line(Duration::from_secs(4), None), line);
    }
}
