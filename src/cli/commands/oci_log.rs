//! What `strake oci` says to its caller: lines in the log file that the caller names, as text or JSON, and on standard error.

use std::io::Write;
use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

use crate::cli::report;

/// How lines of the log look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// `time="…" level=error msg="…"`.
    Text,
    /// One object a line.
    Json,
}

/// Where it is said.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) path: Option<PathBuf>,
    pub(super) format: Format,
}

impl Log {
    /// Says why the command failed.
    pub(super) fn error(&self, message: &str) {
        self.write("error", message);
        report::tell(&format!("error: {message}"));
    }

    /// Says what was left out.
    pub(super) fn warning(&self, message: &str) {
        if self.path.is_some() {
            self.write("warning", message);
        } else {
            report::tell(&format!("warning: {message}"));
        }
    }

    fn write(&self, level: &str, message: &str) {
        let Some(path) = &self.path else { return };
        // To the second, as others write it.
        let time = jiff::Timestamp::now().to_string();
        let line = match self.format {
            Format::Json => json!({ "level": level, "msg": message, "time": time }).to_string(),
            Format::Text => format!("time={time:?} level={level} msg={message:?}"),
        };
        // A log that cannot be written has nobody to be told.
        if let Ok(mut file) = std::fs::OpenOptions::new().create(true).append(true).open(path) {
            let _ = writeln!(file, "{line}");
        }
    }
}
