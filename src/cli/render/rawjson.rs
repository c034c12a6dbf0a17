//! Progress for machines: one JSON object a line, with the fields of BuildKit's `SolveStatus`, as `docker buildx build --progress=rawjson` writes them.
//!
//! Of ours is `reason`: why a step was not taken from the cache. Steps have no inputs here, and their digests only tell them apart.
//!
//! What there is to tell of the Dockerfile is a `warnings` line before the end; its `vertex` stands for the reading of the Dockerfile and is no step. A build that
//! fails ends with a line of ours: `error` says what is wrong, after `FILE:LINE: ` where that is known, with a line for each mistake of a Dockerfile; `hint`, where
//! there is one, says what to do. Names and ID of an image are for `--metadata-file` and `--iidfile`.

use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::cli::call::message_of;
use crate::diag::{Diagnostic, RuleId, SourceFile, Span};
use crate::engine::Error;
use crate::oci::Digest;
use crate::progress::{Event, EventKind, Explanation, Sink, StepId, StepOutcome, Stream, Verdict};

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
            EventKind::Bytes { step, what, done, total, .. } => {
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
            EventKind::Explained(explanation) => Some(json!({ "explanations": [explanation_of(explanation)] })),
            EventKind::Measured { .. } | EventKind::PhaseBegan { .. } | EventKind::Phase { .. } => None,
            EventKind::Warning(text) => Some(json!({ "warnings": [{ "level": 1, "short": STANDARD.encode(text) }] })),
            EventKind::Message(text) => Some(json!({ "message": text })),
        }
    }
}

/// What `--explain` says of a step; of ours as well.
fn explanation_of(explanation: &Explanation) -> Value {
    let Explanation { title, key, verdict } = explanation;
    match verdict {
        Verdict::Hit { by, cache } => json!({ "name": title, "key": key, "outcome": "hit", "by": by, "cache": cache }),
        Verdict::Miss { reason, differences } => {
            let differences: Vec<Value> = differences
                .iter()
                .map(|found| json!({ "text": found.text, "what": found.what, "old": found.old, "new": found.new }))
                .collect();
            json!({ "name": title, "key": key, "outcome": "miss", "reason": reason, "differences": differences })
        }
    }
}

/// Tells of what was found in a Dockerfile.
pub(in crate::cli) fn warnings(found: &[Diagnostic]) {
    let found: Vec<Value> = found.iter().filter(|diagnostic| !diagnostic.is_error()).map(warning).collect();
    if !found.is_empty() {
        write(&json!({ "warnings": found }));
    }
}

/// Remarks something.
pub(in crate::cli) fn message(text: &str) {
    write(&json!({ "message": text }));
}

/// Tells why a command failed.
pub(in crate::cli) fn error(error: &Error) {
    if let Error::Diagnostics(found) | Error::Checks { warnings: found, .. } = error {
        warnings(found);
    }
    write(&failure(error));
}

fn write(line: &Value) {
    // As with all progress: where standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

fn warning(found: &Diagnostic) -> Value {
    let (file, first) = (&found.file, found.file.line(found.span.start()));
    let last = file.line(found.span.end().saturating_sub(1).max(found.span.start()));
    let rule = found.rule.and_then(RuleId::rule);
    let short = match found.rule {
        Some(rule) => format!("{}: {} (line {first})", rule.0, found.message),
        None => found.message.clone(),
    };
    let detail: Vec<String> =
        rule.map(|rule| rule.description).into_iter().chain(found.hint.as_deref()).map(|text| STANDARD.encode(text)).collect();
    let mut warning = json!({
        "vertex": Digest::sha256(file.name().as_bytes()).to_string(),
        "level": 1,
        "short": STANDARD.encode(short),
        "detail": detail,
        "range": [{ "start": { "line": first }, "end": { "line": last } }],
        "sourceInfo": { "filename": file.name() },
    });
    if let Some(rule) = rule {
        warning["url"] = rule.url().into();
    }
    warning
}

fn failure(error: &Error) -> Value {
    let place = |file: &SourceFile, span: Span| format!("{}:{}: ", file.name(), file.line(span.start()));
    let message = match error {
        Error::Diagnostics(found) => {
            let mistakes = found.iter().filter(|diagnostic| diagnostic.is_error());
            let lines: Vec<String> = mistakes.map(|found| place(&found.file, found.span) + &found.message).collect();
            lines.join("\n")
        }
        Error::BaseImage { need, .. } => place(&need.file, need.span) + &message_of(error),
        Error::Build(build) => match build.step().and_then(|step| step.source.as_ref()) {
            Some((file, span)) => place(file, *span) + &message_of(error),
            None => message_of(error),
        },
        _ => message_of(error),
    };
    let mut line = json!({ "error": message });
    if let Some(hint) = error.hint() {
        line["hint"] = hint.into();
    }
    line
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
        step.meter("layer", 5).done();
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
