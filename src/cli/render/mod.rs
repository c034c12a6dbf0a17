//! Renderers of progress: plain lines for logs, a live tree for terminals, JSON for machines, nothing for `-q`. Each is a fold over the same events.

mod plain;
mod profile;
pub(in crate::cli) mod rawjson;
mod screen;
mod summary;
mod tty;

use std::io::IsTerminal;
use std::sync::Arc;

use clap::ValueEnum;

use crate::cli::env;
use crate::progress::{Event, Explanation, Progress, Sink, Verdict};

pub(in crate::cli) use profile::Profile;
pub(in crate::cli) use screen::clean;
pub(in crate::cli) use summary::Summary;

/// `--progress`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// A live tree on a terminal, plain lines elsewhere.
    #[default]
    #[value(alias = "")]
    Auto,
    /// Plain lines.
    Plain,
    /// A live tree.
    Tty,
    /// JSON objects, one a line, as BuildKit's.
    #[value(name = "rawjson")]
    RawJson,
    /// Nothing but errors.
    #[value(alias = "none")]
    Quiet,
}

/// Looks at events beside the renderer.
pub(in crate::cli) trait Observer: Send + Sync {
    /// Takes note of one event.
    fn observe(&self, event: &Event);

    /// Whether what steps use is of interest.
    fn wants_usage(&self) -> bool {
        false
    }
}

/// Shows events to observers, then to the renderer.
struct Observed {
    observers: Vec<Arc<dyn Observer>>,
    sink: Arc<dyn Sink>,
}

impl Sink for Observed {
    fn emit(&self, event: Event) {
        self.observers.iter().for_each(|observer| observer.observe(&event));
        self.sink.emit(event);
    }

    fn wants_usage(&self) -> bool {
        self.observers.iter().any(|observer| observer.wants_usage())
    }

    fn close(&self) {
        self.sink.close();
    }
}

/// The progress of a command, drawn on standard error.
pub(in crate::cli) fn progress(mode: ProgressMode) -> Progress {
    Progress::new(sink(mode))
}

/// The same, with others looking on.
pub(in crate::cli) fn observed(mode: ProgressMode, observers: Vec<Arc<dyn Observer>>) -> Progress {
    Progress::new(Arc::new(Observed { observers, sink: sink(mode) }))
}

fn sink(mode: ProgressMode) -> Arc<dyn Sink> {
    let tty = match mode {
        // Where the cursor cannot move, a live tree would show nothing at all.
        ProgressMode::Tty => !env::dumb_terminal(),
        ProgressMode::Plain => false,
        ProgressMode::RawJson => return Arc::new(rawjson::RawJson::new()),
        ProgressMode::Quiet => return Arc::new(Quiet),
        ProgressMode::Auto => std::io::stderr().is_terminal() && !env::dumb_terminal(),
    };
    if tty { Arc::new(tty::Tty::new(env::colours())) } else { Arc::new(plain::Plain::new()) }
}

struct Quiet;

impl Sink for Quiet {
    fn emit(&self, _: Event) {}
}

/// What `--explain` says of a step, line by line.
fn explained(explanation: &Explanation) -> Vec<String> {
    let Explanation { title, key, verdict } = explanation;
    let key = key.get(..16).unwrap_or(key);
    match verdict {
        Verdict::Hit { by, cache } => {
            let place = cache.as_ref().map_or_else(|| "in the store".to_owned(), |name| format!("in the cache `{name}`"));
            vec![format!("explain: {title}: hit by {by} {place} (key {key})")]
        }
        Verdict::Miss { reason, differences } => {
            let all =
                if differences.is_empty() { vec![reason.clone()] } else { differences.iter().map(|found| found.text.clone()).collect() };
            let mut lines = vec![format!("explain: {title}: miss (key {key})")];
            lines.extend(all.into_iter().map(|text| format!("explain:   {text}")));
            lines
        }
    }
}

/// A duration as people read it: `0.3s`, `41.2s`, `2m03s`.
pub(in crate::cli) fn seconds(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 100.0 { format!("{seconds:.1}s") } else { format!("{}m{:02}s", duration.as_secs() / 60, duration.as_secs() % 60) }
}

/// A size as people read it, in powers of 1000 as Docker does: `1.23MB`.
pub(in crate::cli) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes}B");
    }
    let digits = if value >= 100.0 { 0 } else { usize::from(value < 10.0) + 1 };
    format!("{value:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [(0, "0B"), (999, "999B"), (1000, "1.00kB"), (12_345, "12.3kB"), (123_456_789, "123MB"), (4_860_000, "4.86MB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}
