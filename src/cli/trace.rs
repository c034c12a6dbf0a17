//! `--debug` and `--log-level`: what the code tells of itself for those who look for a mistake, on standard error.
//!
//! Without either nothing listens. What the user can act on is never told this way alone.

use std::fmt::{Debug, Write as _};

use clap::ValueEnum;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::report;

/// `--log-level`, in Docker's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    /// Everything
    Debug,
    /// What is done
    Info,
    /// What may be wrong
    Warn,
    /// What is wrong
    Error,
    /// The failure of the command alone, which is told in any case
    Fatal,
}

/// Listens from now on.
pub(super) fn listen(level: LogLevel) {
    let level = match level {
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Info => Level::INFO,
        LogLevel::Warn => Level::WARN,
        LogLevel::Error => Level::ERROR,
        LogLevel::Fatal => return,
    };
    // Nobody else listens: this is called once.
    let _ = tracing::subscriber::set_global_default(Listener { level });
}

struct Listener {
    level: Level,
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.target().starts_with("strake")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line { message: String::new(), fields: String::new() };
        event.record(&mut line);
        report::tell(&format!("{}: {}{}", event.metadata().level().as_str().to_lowercase(), line.message, line.fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a text cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}
