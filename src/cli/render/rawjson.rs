//! Progress for machines: one JSON object a line, with the fields of BuildKit's `SolveStatus`, as `docker buildx build --progress=rawjson` writes them.
//!
//! Of ours is only `reason`: why a step was not taken from the cache. Steps have no inputs here, and their digests only tell them apart.

use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::oci::Digest;
use crate::progress::{Event, EventKind, Sink, StepId, StepOutcome, Stream};

/// Writes progress as JSON lines to standard error.
pub(super) struct RawJson {
    state: Mutex<State>,
}

struct State {
    /// The same moment on both clocks.
    origin: (Instant, SystemTime),
    steps: HashMap<StepId, Step>,
    /// Makes digests of steps with the same title differ.
    next: usize,
}

struct Step {
    digest: String,
    title: String,
    started: String,
    /// When each transfer began.
    transfers: HashMap<String, String>,
}

impl RawJson {
    pub(super) fn new() -> RawJson {
        RawJson { state: Mutex::new(State::new()) }
    }
}

impl Sink for RawJson {
    fn emit(&self, event: Event) {
        let Ok(mut state) = self.state.lock() else { return };
        if let Some(message) = state.fold(&event) {
            // Under the lock, so that lines come in the order of the events.
            let _ = std::io::stderr().lock().write_all(format!("{message}\n").as_bytes());
        }
    }
}

impl State {
    fn new() -> State {
        State { origin: (Instant::now(), SystemTime::now()), steps: HashMap::new(), next: 0 }
    }

    fn time(&self, at: Instant) -> String {
        let elapsed = at.saturating_duration_since(self.origin.0);
        jiff::Timestamp::try_from(self.origin.1 + elapsed).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
    }

    fn fold(&mut self, event: &Event) -> Option<Value> {
        let now = self.time(event.at);
        match &event.kind {
            EventKind::Started { step, title, reason } => {
                self.next += 1;
                let digest = Digest::sha256(format!("{} {title}", self.next).as_bytes()).to_string();
                let mut vertex = json!({ "digest": digest, "name": title, "started": now });
                if let Some(reason) = reason {
                    vertex["reason"] = reason.as_str().into();
                }
                self.steps.insert(*step, Step { digest, title: title.clone(), started: now, transfers: HashMap::new() });
                Some(json!({ "vertexes": [vertex] }))
            }
            EventKind::Log { step, stream, bytes } => {
                let stream = if *stream == Stream::Stdout { 1 } else { 2 };
                let log = json!({
                    "vertex": self.steps.get(step)?.digest, "stream": stream, "data": STANDARD.encode(bytes), "timestamp": now,
                });
                Some(json!({ "logs": [log] }))
            }
            EventKind::Bytes { step, what, done, total } => {
                let step = self.steps.get_mut(step)?;
                let started = step.transfers.entry(what.clone()).or_insert_with(|| now.clone());
                let mut status = json!({ "id": what, "vertex": step.digest, "current": done, "started": started, "timestamp": now });
                if let Some(total) = total {
                    status["total"] = (*total).into();
                    if done >= total {
                        status["completed"] = now.into();
                    }
                }
                Some(json!({ "statuses": [status] }))
            }
            EventKind::Finished { step, outcome } => {
                let step = self.steps.remove(step)?;
                let mut vertex = json!({ "digest": step.digest, "name": step.title, "started": step.started, "completed": now });
                match outcome {
                    StepOutcome::Done => {}
                    StepOutcome::Cached => vertex["cached"] = true.into(),
                    StepOutcome::Failed => vertex["error"] = "the step failed".into(),
                    StepOutcome::Cancelled => vertex["error"] = "the step was canceled".into(),
                }
                Some(json!({ "vertexes": [vertex] }))
            }
            EventKind::Warning(text) => Some(json!({ "warnings": [{ "level": 1, "short": STANDARD.encode(text) }] })),
            EventKind::Message(text) => Some(json!({ "message": text })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Progress;
    use std::sync::Arc;

    struct Collect(Mutex<(State, Vec<Value>)>);

    impl Sink for Collect {
        fn emit(&self, event: Event) {
            let mut inner = self.0.lock().unwrap();
            let (state, out) = &mut *inner;
            out.extend(state.fold(&event));
        }
    }

    #[test]
    fn a_step_is_the_same_vertex_from_start_to_end() {
        let sink = Arc::new(Collect(Mutex::new((State::new(), Vec::new()))));
        let progress = Progress::new(sink.clone());
        let step = progress.start("[a 1/1] RUN x", Some("`f` changed".into()));
        step.log(Stream::Stderr, b"o\xff".to_vec());
        step.bytes("layer", 5, Some(5));
        step.finish(StepOutcome::Done);
        progress.cached("[a 1/1] RUN x");
        let seen = sink.0.lock().unwrap().1.clone();
        let digest = &seen[0]["vertexes"][0]["digest"];
        assert!(digest.as_str().unwrap().parse::<Digest>().is_ok());
        assert_eq!(seen[0]["vertexes"][0]["reason"], "`f` changed");
        assert_eq!(
            (&seen[1]["logs"][0]["vertex"], &seen[1]["logs"][0]["data"], &seen[1]["logs"][0]["stream"]),
            (digest, &json!("b/8="), &json!(2))
        );
        assert_eq!((&seen[2]["statuses"][0]["vertex"], &seen[2]["statuses"][0]["total"]), (digest, &json!(5)));
        assert!(seen[2]["statuses"][0]["completed"].is_string());
        assert_eq!(&seen[3]["vertexes"][0]["digest"], digest);
        assert!(seen[3]["vertexes"][0]["completed"].is_string() && seen[3]["vertexes"][0].get("cached").is_none());
        assert_ne!(&seen[4]["vertexes"][0]["digest"], digest, "another step of the same title");
        assert_eq!(seen[5]["vertexes"][0]["cached"], true);
    }
}
