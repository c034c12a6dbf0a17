//! Why a build stopped.

use std::path::PathBuf;
use std::time::Duration;

use crate::graph::Step;
use crate::runtime::ExitStatus;

/// Why a build stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A command failed.
    #[error("{0}")]
    Step(Box<StepFailure>),
    /// A step's files could not be read or written.
    #[error("{} failed", step.quoted())]
    Files {
        /// The step.
        step: Box<Step>,
        /// Why.
        source: super::ops::Error,
        /// What else is known of it.
        hint: Option<String>,
    },
    /// A step's sandbox could not be made.
    #[error("cannot run {}", step.quoted())]
    Sandbox {
        /// The step.
        step: Box<Step>,
        /// Why.
        source: crate::runtime::Error,
    },
    /// The build context could not be read.
    #[error("{} cannot read the build context", step.quoted())]
    Context {
        /// The step.
        step: Box<Step>,
        /// Why.
        source: crate::context::Error,
    },
    /// A step cannot be done as it is written.
    #[error("{} cannot be done: {reason}", step.quoted())]
    Refused {
        /// The step.
        step: Box<Step>,
        /// Why.
        reason: String,
        /// What to do.
        hint: Option<String>,
    },
    /// An image or download could not be had.
    #[error("cannot get {what}")]
    Source {
        /// What was wanted.
        what: String,
        /// The step that reads it, where that is known.
        step: Option<Box<Step>>,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
        /// What to do.
        hint: Option<String>,
    },
    /// The store could not be read or written.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// A file of the builder's own could not be read or written.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The user, or the failure of something else, stopped it.
    #[error("the build was cancelled")]
    Cancelled,
}

/// A command that failed.
#[derive(Debug)]
pub struct StepFailure {
    /// The step.
    pub step: Step,
    /// How it ended.
    pub status: ExitStatus,
    /// How long it ran.
    pub elapsed: Duration,
    /// The last lines of its output.
    pub tail: Vec<String>,
    /// Where all of its output is.
    pub log: Option<PathBuf>,
    /// Whether the kernel killed it for want of memory.
    pub out_of_memory: bool,
    /// The most memory it used, in bytes.
    pub peak_memory: Option<u64>,
    /// The memory that it might use, in bytes.
    pub memory_limit: Option<u64>,
}

impl std::fmt::Display for StepFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let step = self.step.quoted();
        if self.out_of_memory {
            write!(f, "{step} was killed because it ran out of memory")?;
            let of_limit = |limit| write!(f, ": it may use {}", binary_size(limit));
            return self.memory_limit.map_or(Ok(()), of_limit);
        }
        match self.status {
            ExitStatus::Code(code) => write!(f, "{step} exited with status {code}"),
            ExitStatus::Signal(signal) => write!(f, "{step} was killed by signal {signal}"),
        }
    }
}

/// A size in the units of the flags that set it, which are powers of 1024.
fn binary_size(bytes: u64) -> String {
    let unit = [("GiB", 30), ("MiB", 20), ("KiB", 10)].into_iter().find(|(_, shift)| bytes.trailing_zeros() >= *shift && bytes > 0);
    unit.map_or_else(|| format!("{bytes} bytes"), |(name, shift)| format!("{} {name}", bytes >> shift))
}

impl Error {
    /// What to do about it, where we know.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Step(failure) => step_hint(failure),
            Error::Files { source, hint, .. } => hint.clone().or_else(|| source.hint()),
            Error::Sandbox { source, .. } => source.hint(),
            Error::Context { source, .. } => source.hint(),
            Error::Refused { hint, .. } | Error::Source { hint, .. } => hint.clone(),
            Error::Store(source) => source.hint(),
            Error::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                Some("free some space, or run `strake prune`".into())
            }
            Error::Io { .. } | Error::Cancelled => None,
        }
    }

    /// The step that failed, where it was one.
    pub fn step(&self) -> Option<&Step> {
        match self {
            Error::Step(failure) => Some(&failure.step),
            Error::Files { step, .. } | Error::Sandbox { step, .. } | Error::Context { step, .. } | Error::Refused { step, .. } => {
                Some(step)
            }
            Error::Source { step, .. } => step.as_deref(),
            Error::Store(_) | Error::Io { .. } | Error::Cancelled => None,
        }
    }

    /// The same of a download that `reader` needs, whose place in the Dockerfile it has then.
    pub(super) fn needed_by(mut self, reader: Option<&Step>) -> Error {
        if let (Error::Source { step: step @ None, .. }, Some(reader)) = (&mut self, reader) {
            *step = Some(Box::new(reader.clone()));
        }
        self
    }
}

/// What the status of a failed command usually means.
fn step_hint(failure: &StepFailure) -> Option<String> {
    match failure.status {
        _ if failure.out_of_memory && failure.memory_limit.is_some() => {
            Some("allow steps more with --memory, or let the command use less (fewer jobs at a time, for instance)".into())
        }
        _ if failure.out_of_memory => Some("give the build more memory, or let the command use less".into()),
        ExitStatus::Code(127) => Some("status 127 means that the shell did not find a command: is it installed in this stage?".into()),
        ExitStatus::Code(126) => {
            Some("status 126 means that a command was found but cannot be executed: is it `chmod +x`, and for this platform?".into())
        }
        ExitStatus::Code(137) | ExitStatus::Signal(9) => Some("signal 9 often means that the machine ran out of memory".into()),
        _ => None,
    }
}
