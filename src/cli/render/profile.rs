//! `build --profile FILE`: the build as a Chrome trace, to be opened in Perfetto or `chrome://tracing`.
//!
//! A fold over the same events as progress. Steps, transfers and phases are spans; what overlaps lies on tracks of its own, so that the spans of a track nest or
//! follow each other. Times are microseconds since the command began, sizes are bytes.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::progress::{Event, EventKind, StepId, StepOutcome, StepUsage, Transfer};

use super::Observer;

/// Gathers spans.
pub(in crate::cli) struct Profile {
    origin: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: HashMap<StepId, OpenStep>,
    spans: Vec<Span>,
}

struct OpenStep {
    title: String,
    reason: Option<String>,
    began: Instant,
    usage: StepUsage,
    transfers: Vec<OpenTransfer>,
}

struct OpenTransfer {
    what: String,
    began: Instant,
    moved: u64,
    transfer: Transfer,
}

/// On which tracks a span lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Phase,
    Step,
    Transfer,
}

struct Span {
    kind: Kind,
    name: String,
    began: Instant,
    ended: Instant,
    args: Map<String, Value>,
}

impl Profile {
    /// A profile that begins now.
    pub(in crate::cli) fn new() -> Profile {
        Profile { origin: Instant::now(), state: Mutex::default() }
    }

    /// Writes the trace. What has not ended by now ends now.
    pub(in crate::cli) fn write(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, self.trace(Instant::now()).to_string())
    }

    fn trace(&self, now: Instant) -> Value {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<StepId> = state.open.keys().copied().collect();
        open.into_iter().for_each(|step| state.finish(step, StepOutcome::Cancelled, now));
        state.spans.push(Span { kind: Kind::Phase, name: "build".into(), began: self.origin, ended: now, args: Map::new() });
        let mut events = vec![json!({ "ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": { "name": "strake build" } })];
        let mut first = 1;
        for (kind, name) in [(Kind::Phase, "phases"), (Kind::Step, "steps"), (Kind::Transfer, "transfers")] {
            let mut spans: Vec<&Span> = state.spans.iter().filter(|span| span.kind == kind).collect();
            let tracks = lay_out(&mut spans);
            let count = tracks.iter().max().map_or(0, |last| last + 1);
            for track in 0..count {
                let args = json!({ "name": if count == 1 { name.to_owned() } else { format!("{name} {}", track + 1) } });
                events.push(json!({ "ph": "M", "name": "thread_name", "pid": 1, "tid": first + track, "args": args }));
                events.push(json!({ "ph": "M", "name": "thread_sort_index", "pid": 1, "tid": first + track, "args": { "sort_index": first + track } }));
            }
            events.extend(spans.iter().zip(&tracks).map(|(span, track)| self.event(span, first + track, name)));
            first += count;
        }
        json!({ "displayTimeUnit": "ms", "traceEvents": events })
    }

    fn event(&self, span: &Span, track: usize, category: &str) -> Value {
        json!({
            "ph": "X", "cat": category, "name": span.name, "pid": 1, "tid": track,
            "ts": micros(span.began.saturating_duration_since(self.origin)),
            "dur": micros(span.length()),
            "args": span.args,
        })
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1000.0
}

impl Span {
    /// Never nothing: viewers do not show what takes no time.
    fn length(&self) -> Duration {
        self.ended.saturating_duration_since(self.began).max(Duration::from_nanos(1))
    }

    fn end(&self) -> Instant {
        self.began + self.length()
    }
}

/// Gives each span the first track where it follows, or lies within, whatever is there; the longer of those that begin together comes first.
fn lay_out(spans: &mut [&Span]) -> Vec<usize> {
    spans.sort_by_key(|span| (span.began, std::cmp::Reverse(span.ended)));
    // For each track the ends of the spans that are open there, the innermost last.
    let mut tracks: Vec<Vec<Instant>> = Vec::new();
    let mut places = Vec::with_capacity(spans.len());
    for span in spans.iter() {
        let nests = span.kind == Kind::Phase;
        let place = tracks.iter_mut().position(|open| {
            while open.last().is_some_and(|end| *end <= span.began) {
                open.pop();
            }
            open.is_empty() || nests && open.last().is_some_and(|end| *end >= span.end())
        });
        let place = place.unwrap_or_else(|| {
            tracks.push(Vec::new());
            tracks.len() - 1
        });
        tracks[place].push(span.end());
        places.push(place);
    }
    places
}

impl Observer for Profile {
    fn observe(&self, event: &Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &event.kind {
            EventKind::Started { step, title, reason } => {
                let (title, reason) = (title.clone(), reason.clone());
                state.open.insert(*step, OpenStep { title, reason, began: event.at, usage: StepUsage::default(), transfers: Vec::new() });
            }
            EventKind::Measured { step, usage } => {
                if let Some(open) = state.open.get_mut(step) {
                    open.usage = usage.clone();
                }
            }
            EventKind::Bytes { step, what, moved, done, total, transfer } => {
                state.transferred(*step, what, (*moved, *transfer), total.is_some_and(|total| *done >= total), event.at);
            }
            EventKind::Finished { step, outcome } => state.finish(*step, *outcome, event.at),
            EventKind::Phase { name, began, hashed } => {
                let mut args = Map::new();
                if let Some(hashed) = hashed {
                    args.insert("hashed_bytes".into(), (*hashed).into());
                }
                state.spans.push(Span { kind: Kind::Phase, name: (*name).to_owned(), began: *began, ended: event.at, args });
            }
            EventKind::Log { .. }
            | EventKind::Explained(_)
            | EventKind::PhaseBegan { .. }
            | EventKind::Warning(_)
            | EventKind::Message(_) => {}
        }
    }

    fn wants_usage(&self) -> bool {
        true
    }
}

impl State {
    fn transferred(&mut self, step: StepId, what: &str, (moved, transfer): (u64, Transfer), ended: bool, at: Instant) {
        let Some(open) = self.open.get_mut(&step) else { return };
        let place = open.transfers.iter().position(|known| known.what == what);
        if ended {
            // One that is told of at its end only was not necessary.
            let Some(known) = place.map(|place| open.transfers.swap_remove(place)) else { return };
            self.spans.push(Span::of_transfer(OpenTransfer { moved, ..known }, at));
            return;
        }
        match place {
            Some(place) => open.transfers[place].moved = moved,
            None => open.transfers.push(OpenTransfer { what: what.to_owned(), began: at, moved, transfer }),
        }
    }

    fn finish(&mut self, step: StepId, outcome: StepOutcome, at: Instant) {
        let Some(open) = self.open.remove(&step) else { return };
        self.spans.extend(open.transfers.into_iter().map(|transfer| Span::of_transfer(transfer, at)));
        let mut args = Map::new();
        let outcome = match outcome {
            StepOutcome::Done => "done",
            StepOutcome::Cached => "cached",
            StepOutcome::Failed => "failed",
            StepOutcome::Cancelled => "canceled",
        };
        args.insert("outcome".into(), outcome.into());
        args.insert("cached".into(), (outcome == "cached").into());
        if let Some(reason) = open.reason {
            args.insert("reason".into(), reason.into());
        }
        args.insert("wall_us".into(), micros(at.saturating_duration_since(open.began)).into());
        let StepUsage { user_time, system_time, peak_memory, read, written, hashed } = open.usage;
        for (name, time) in [("cpu_user_us", user_time), ("cpu_system_us", system_time)] {
            args.extend(time.map(|time| (name.to_owned(), micros(time).into())));
        }
        for (name, bytes) in
            [("peak_memory_bytes", peak_memory), ("read_bytes", read), ("written_bytes", written), ("hashed_bytes", hashed)]
        {
            args.extend(bytes.map(|bytes| (name.to_owned(), bytes.into())));
        }
        self.spans.push(Span { kind: Kind::Step, name: open.title, began: open.began, ended: at, args });
    }
}

impl Span {
    fn of_transfer(transfer: OpenTransfer, ended: Instant) -> Span {
        let direction = match transfer.transfer {
            Transfer::Download => "download",
            Transfer::Upload => "upload",
            Transfer::Export => "export",
        };
        let args = Map::from_iter([("bytes".to_owned(), transfer.moved.into()), ("direction".to_owned(), direction.into())]);
        Span { kind: Kind::Transfer, name: transfer.what, began: transfer.began, ended, args }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(kind: Kind, origin: Instant, from: u64, to: u64) -> Span {
        let at = |ms| origin + Duration::from_millis(ms);
        Span { kind, name: format!("{from}-{to}"), began: at(from), ended: at(to), args: Map::new() }
    }

    #[test]
    fn what_overlaps_gets_a_track_of_its_own_and_phases_nest() {
        let origin = Instant::now();
        let lay = |kind, times: &[(u64, u64)]| {
            let spans: Vec<Span> = times.iter().map(|(from, to)| span(kind, origin, *from, *to)).collect();
            let mut sorted: Vec<&Span> = spans.iter().collect();
            let places = lay_out(&mut sorted);
            sorted.iter().map(|span| span.name.clone()).zip(places).collect::<Vec<_>>()
        };
        let named = |list: &[(&str, usize)]| list.iter().map(|(name, place)| ((*name).to_owned(), *place)).collect::<Vec<_>>();
        assert_eq!(lay(Kind::Step, &[(0, 10), (5, 7), (10, 12)]), named(&[("0-10", 0), ("5-7", 1), ("10-12", 0)]));
        assert_eq!(lay(Kind::Phase, &[(1, 4), (0, 10), (4, 5), (9, 12)]), named(&[("0-10", 0), ("1-4", 0), ("4-5", 0), ("9-12", 1)]));
    }
}
