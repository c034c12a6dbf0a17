//! How a failure is told: `error:` what could not be done, `caused by:` what stopped it, `hint:` what to do.

use std::error::Error as StdError;
use std::io::{IsTerminal, Write};

use crate::diag::{Diagnostic, Style, render};
use crate::engine::{BuildOutcome, EntryDifference, Error, NotReproducible, StepDifference};
use crate::executor::StepFailure;

use super::env;
use super::render::{ProgressMode, clean, rawjson, seconds, size};

/// Writes to standard error; where that is closed, there is nobody to tell.
pub(super) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes a result to standard output. Where that fails (a full disk), the command has failed, whatever it did: the process ends. A reader that has gone
/// (`| head -1`) has what it wanted.
pub(super) fn result(text: &str) {
    written(writeln!(std::io::stdout().lock(), "{text}"));
}

/// The same, for results that are made while they are written.
pub(super) fn output(write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) {
    let mut out = std::io::BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    written(write(&mut out).and_then(|()| out.flush()));
}

/// Ends this process where output could not be written, unless because nobody reads it.
#[expect(clippy::exit, reason = "the one place where output fails, below commands that have nothing left to do")]
pub(super) fn written(result: std::io::Result<()>) {
    if let Err(error) = result
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        tell(&format!("{} cannot write to standard output\ncaused by: {}", red("error:"), without_numbers(&error.to_string())));
        std::process::exit(1);
    }
}

/// Tells of diagnostics, all of them.
pub(super) fn diagnostics(diagnostics: &[Diagnostic]) {
    let style = if env::colours() { Style::Colour } else { Style::Plain };
    for diagnostic in diagnostics {
        tell(&render(diagnostic, style));
    }
}

/// Tells of diagnostics in the form that progress has.
pub(super) fn diagnostics_as(mode: ProgressMode, found: &[Diagnostic]) {
    match mode {
        ProgressMode::RawJson => rawjson::warnings(found),
        ProgressMode::Quiet => {}
        _ => diagnostics(found),
    }
}

/// Remarks something in the form that progress has.
pub(super) fn remark_as(mode: ProgressMode, text: &str) {
    match mode {
        ProgressMode::RawJson => rawjson::message(text),
        ProgressMode::Quiet => {}
        _ => tell(text),
    }
}

/// Tells of an error in the form that progress has.
pub(super) fn error_as(mode: ProgressMode, failure: &Error) {
    match mode {
        ProgressMode::RawJson => rawjson::error(failure),
        _ => error(failure),
    }
}

/// Tells of an error.
pub(super) fn error(error: &Error) {
    match error {
        Error::Diagnostics(list) => {
            diagnostics(list);
            tell(&format!("{} {error}", red("error:")));
        }
        Error::Checks { warnings, .. } => {
            diagnostics(warnings);
            tell(&format!("{} {error}", red("error:")));
        }
        Error::NotReproducible(found) => {
            not_reproducible(found);
            tell(&format!("{} {error}", red("error:")));
        }
        Error::SeccompProfile { place: Some(diagnostic), .. } => diagnostics(std::slice::from_ref(diagnostic)),
        Error::BaseImage { need, source } => {
            let diagnostic = Diagnostic::error(&need.file, need.span, error.to_string());
            diagnostics(&[diagnostic]);
            causes(source);
        }
        Error::Build(build) => {
            match (build, build.step().and_then(|step| step.source.clone())) {
                (crate::executor::Error::Step(failure), place) => step_failed(failure, place),
                (_, Some((file, span))) => diagnostics(&[Diagnostic::error(&file, span, build.to_string())]),
                (_, None) => tell(&format!("{} {build}", red("error:"))),
            }
            if let Some(source) = build.source() {
                causes(source);
            }
        }
        _ => {
            if let Error::Test { tail, .. } = error {
                last_lines(tail);
            }
            tell(&format!("{} {error}", red("error:")));
            if let Some(source) = error.source() {
                causes(source);
            }
        }
    }
    if let Some(hint) = error.hint() {
        tell(&format!("hint: {hint}"));
    }
}

/// Tells of something that could not be done and does not decide how the command ends.
pub(super) fn warning(what: &str, source: &dyn StdError) {
    tell(&format!("warning: {what}"));
    causes(source);
}

/// Tells of what is behind an error, as far down as it goes. Layers that say the same thing are told once.
fn causes(source: &dyn StdError) {
    let mut at = Some(source);
    let mut last = String::new();
    while let Some(cause) = at {
        let text = without_numbers(&cause.to_string());
        if text != last && !last.ends_with(&text) {
            tell(&format!("caused by: {text}"));
        }
        last = text;
        at = cause.source();
    }
}

/// The same without the numbers of the system's errors, which its words for them say already.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |done, part| done + part.split_once(')').map_or(part, |(_, rest)| rest))
}

/// Tells that two builds gave the same, where that was asked; `verified` says whether their times are the same too.
pub(super) fn verified(verified: Option<bool>, outcome: &BuildOutcome) {
    let digest = outcome.manifest.as_ref().map(|manifest| format!(", manifest {}", manifest.digest)).unwrap_or_default();
    match verified {
        Some(true) => tell(&format!("reproducible: two builds gave the image {}{digest}", outcome.image.id)),
        Some(false) => {
            tell("reproducible but for times: two builds gave the same files, with other times");
            tell("hint: `--reproducible` makes times the same too");
        }
        None => {}
    }
}

/// How many files of a step are listed.
const MAX_FILES: usize = 20;

/// Steps that gave two results: where each is written, and what differs.
fn not_reproducible(found: &NotReproducible) {
    for StepDifference { step, files } in &found.steps {
        let message = format!("{} gave two results", step.quoted());
        match &step.source {
            Some((file, span)) => diagnostics(&[Diagnostic::error(file, *span, message)]),
            None => tell(&format!("{} {message}", red("error:"))),
        }
        for EntryDifference { path, what } in files.iter().take(MAX_FILES) {
            tell(&format!("  {path}: {}", what.join(", ")));
        }
        if files.len() > MAX_FILES {
            tell(&format!("  and {} more", files.len() - MAX_FILES));
        }
    }
    if found.not_compared > 0 {
        tell(&format!("steps that start from these, and were not compared: {}", found.not_compared));
    }
}

/// A failed command: the end of its output, then where it is written.
fn step_failed(failure: &StepFailure, place: Option<(crate::diag::SourceFile, crate::diag::Span)>) {
    last_lines(&failure.tail);
    match place {
        Some((file, span)) => diagnostics(&[Diagnostic::error(&file, span, failure.to_string())]),
        None => tell(&format!("{} {failure}", red("error:"))),
    }
    let memory = failure.peak_memory.map_or_else(String::new, |bytes| format!(", at most {} of memory", size(bytes)));
    let stage = if failure.step.stage.is_empty() { String::new() } else { format!("stage `{}`, ", failure.step.stage) };
    tell(&format!("  ({stage}after {}{memory})", seconds(failure.elapsed)));
    if let Some(log) = &failure.log {
        tell(&format!("  the whole output is in {}", log.display()));
    }
}

/// The end of a failed command's output.
fn last_lines(tail: &[String]) {
    if !tail.is_empty() {
        tell(&format!("--- last {} lines of output ---", tail.len()));
        // A terminal would do what a step tells it.
        let is_terminal = std::io::stderr().is_terminal();
        tail.iter().for_each(|line| tell(&format!("| {}", if is_terminal { clean(line) } else { line.clone() })));
    }
}

fn red(text: &str) -> String {
    if env::colours() { format!("\x1b[1;31m{text}\x1b[0m") } else { text.to_owned() }
}
