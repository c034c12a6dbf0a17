//! `--call` and `--check` of `strake build`: how they are spelled, and how their answers are shown, as text or in the JSON that BuildKit writes.
//!
//! Field names, and what is left out when empty, are BuildKit's (`lint`, `outline` and `targets` of its subrequests). Locations are lines: one range for each line of an
//! instruction. The texts of the answers are our own.

use std::error::Error as StdError;
use std::process::ExitCode;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{env, report, table::Table};
use crate::diag::{Diagnostic, SourceFile, Span, Style, render};
use crate::engine::{Call, CallOutcome, CheckReport, Error, Lines};
use crate::graph::{Outline, OutlineMount, Target};

/// What `--call` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallFlag {
    /// `None`: to build.
    pub(super) call: Option<Call>,
    json: bool,
    ignore_status: bool,
}

impl CallFlag {
    /// `--check`.
    pub(super) const CHECK: CallFlag = CallFlag { call: Some(Call::Check), json: false, ignore_status: false };
}

/// Reads the value of `--call`: a name, then options.
pub(super) fn call_flag(text: &str) -> Result<CallFlag, String> {
    let mut flag = CallFlag { call: None, json: false, ignore_status: false };
    for (index, field) in text.split(',').enumerate() {
        match (field.split_once('='), field) {
            (Some(("format", "json")), _) => flag.json = true,
            (Some(("format", "text")), _) => flag.json = false,
            (Some(("format", other)), _) => return Err(format!("the format `{other}` is not known: expected text or json")),
            (Some(("ignorestatus", value)), _) => {
                flag.ignore_status = value.parse().map_err(|_| format!("`{value}` is neither true nor false"))?;
            }
            (Some((key, _)), _) => return Err(format!("the option `{key}` is not known: expected format or ignorestatus")),
            (None, "build") if index == 0 => flag.call = None,
            (None, "check" | "lint") if index == 0 => flag.call = Some(Call::Check),
            (None, "outline") if index == 0 => flag.call = Some(Call::Outline),
            (None, "targets") if index == 0 => flag.call = Some(Call::Targets),
            (None, other) => return Err(format!("`{other}` is not known: expected build, check, outline or targets")),
        }
    }
    Ok(flag)
}

/// Shows an answer; returns the exit status.
pub(super) fn show(outcome: &CallOutcome, flag: CallFlag) -> ExitCode {
    match outcome {
        CallOutcome::Check(found) => return check(found, flag),
        CallOutcome::Outline(file, outline) if flag.json => json(&JsonOutline::new(file, outline)),
        CallOutcome::Outline(_, outline) => outline_text(outline),
        CallOutcome::Targets(file, targets) if flag.json => json(&JsonTargets::new(file, targets)),
        CallOutcome::Targets(_, targets) => targets_text(targets),
    }
    ExitCode::SUCCESS
}

/// What `--metadata-file` has of an answer, in the words of `docker buildx build`.
pub(super) fn metadata(outcome: &CallOutcome) -> serde_json::Value {
    let result = match outcome {
        CallOutcome::Check(found) => serde_json::to_value(JsonCheck::new(found)),
        CallOutcome::Outline(file, outline) => serde_json::to_value(JsonOutline::new(file, outline)),
        CallOutcome::Targets(file, targets) => serde_json::to_value(JsonTargets::new(file, targets)),
    };
    // Plain structures become JSON.
    serde_json::json!({ "result.json": result.unwrap_or_default() })
}

fn check(found: &CheckReport, flag: CallFlag) -> ExitCode {
    if flag.json {
        json(&JsonCheck::new(found));
    } else {
        match (found.findings.len(), &found.error) {
            (0, Some(_)) => {}
            (0, None) => report::result("Check complete, no warnings found."),
            (1, _) => report::result("Check complete, 1 warning has been found!"),
            (count, _) => report::result(&format!("Check complete, {count} warnings have been found!")),
        }
        let style = if env::colours() { Style::Colour } else { Style::Plain };
        found.findings.iter().for_each(|(finding, _)| report::result(&format!("\n{}", render(finding, style))));
    }
    report::diagnostics(&found.notes);
    if let Some((error, _)) = &found.error {
        report::error(error);
    }
    let good = found.findings.is_empty() && found.error.is_none();
    if good || flag.ignore_status { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn outline_text(outline: &Outline) {
    let mut parts = Vec::new();
    if outline.name.is_some() || outline.description.is_some() {
        let mut part = format!("TARGET:      {}", outline.name.as_deref().unwrap_or("(default)"));
        if let Some(description) = &outline.description {
            part.push_str(&format!("\nDESCRIPTION: {description}"));
        }
        parts.push(part);
    }
    if !outline.args.is_empty() {
        let mut table = Table::new(&["BUILD ARG", "VALUE", "DESCRIPTION"]).with_narrowest(0);
        for arg in &outline.args {
            table.row(vec![arg.name.clone(), arg.value.clone().unwrap_or_default(), arg.description.clone().unwrap_or_default()]);
        }
        parts.push(table.render());
    }
    for (title, mounts) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !mounts.is_empty() {
            let mut table = Table::new(&[title, "REQUIRED"]).with_narrowest(0);
            mounts.iter().for_each(|mount| table.row(vec![mount.name.clone(), if mount.required { "true".into() } else { String::new() }]));
            parts.push(table.render());
        }
    }
    if !outline.caches.is_empty() {
        let mut table = Table::new(&["CACHE MOUNT"]).with_narrowest(0);
        outline.caches.iter().for_each(|cache| table.row(vec![cache.name.clone()]));
        parts.push(table.render());
    }
    if !parts.is_empty() {
        report::result(&parts.join("\n\n"));
    }
}

fn targets_text(targets: &[Target]) {
    let mut table = Table::new(&["TARGET", "DESCRIPTION"]).with_narrowest(0);
    for target in targets {
        let name = match (&target.name, target.default) {
            (None, true) => "(default)".to_owned(),
            (Some(name), true) => format!("{name} (default)"),
            (name, false) => name.clone().unwrap_or_default(),
        };
        table.row(vec![name, target.description.clone().unwrap_or_default()]);
    }
    report::result(&table.render());
}

fn json(value: &impl Serialize) {
    report::result(&serde_json::to_string_pretty(value).expect("plain structures become JSON"));
}

/// Where something is: BuildKit's `pb.Location`.
#[derive(Debug, Default, Serialize)]
struct JsonLocation {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<JsonRange>,
}

#[derive(Debug, Serialize)]
struct JsonRange {
    start: JsonPosition,
    end: JsonPosition,
}

#[derive(Debug, Serialize)]
struct JsonPosition {
    line: usize,
}

/// How many lines of an instruction are listed: one of a million lines says nothing more than its first thousands.
const MAX_LINES: usize = 10_000;

impl JsonLocation {
    fn new(lines: &Lines) -> JsonLocation {
        let range = |line| JsonRange { start: JsonPosition { line }, end: JsonPosition { line } };
        JsonLocation { ranges: lines.clone().take(MAX_LINES).map(range).collect() }
    }

    fn of_span(file: &SourceFile, span: Span) -> JsonLocation {
        let last = span.end().saturating_sub(1).max(span.start());
        JsonLocation::new(&(file.line(span.start())..=file.line(last)))
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonCheck {
    warnings: Vec<JsonWarning>,
    sources: Vec<JsonSource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    build_error: Option<JsonError>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonWarning {
    rule_name: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    detail: String,
    location: JsonLocation,
}

#[derive(Debug, Serialize)]
struct JsonSource {
    filename: String,
    data: String,
    language: &'static str,
}

#[derive(Debug, Serialize)]
struct JsonError {
    message: String,
    location: JsonLocation,
}

impl JsonCheck {
    fn new(found: &CheckReport) -> JsonCheck {
        let source =
            JsonSource { filename: found.file.name().to_owned(), data: STANDARD.encode(found.file.text()), language: "Dockerfile" };
        let error = |(error, lines): &(Error, Option<Lines>)| JsonError {
            message: message_of(error),
            location: lines.as_ref().map(JsonLocation::new).unwrap_or_default(),
        };
        let warnings = found.findings.iter().filter_map(|(finding, lines)| JsonWarning::new(finding, lines)).collect();
        JsonCheck { warnings, sources: vec![source], build_error: found.error.as_ref().map(error) }
    }
}

impl JsonWarning {
    fn new(finding: &Diagnostic, lines: &Lines) -> Option<JsonWarning> {
        let id = finding.rule?;
        let rule = id.rule();
        let detail = match finding.hint.as_deref().filter(|hint| hint.starts_with("did you mean")) {
            Some(hint) => format!("{} ({hint})", finding.message),
            None => finding.message.clone(),
        };
        Some(JsonWarning {
            rule_name: id.0,
            description: rule.map_or("", |rule| rule.description),
            url: rule.map(|rule| rule.url()),
            detail,
            location: JsonLocation::new(lines),
        })
    }
}

/// An error in one line: the first mistake, or the error and what is behind it.
pub(super) fn message_of(error: &Error) -> String {
    if let Error::Diagnostics(list) = error
        && let Some(first) = list.iter().find(|diagnostic| diagnostic.is_error())
    {
        return first.message.clone();
    }
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        let text = source.to_string();
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = source.source();
    }
    message
}

#[derive(Debug, Serialize)]
struct JsonOutline<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<JsonArg<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<JsonMount<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<JsonMount<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cache: Vec<JsonCache<'a>>,
    sources: Vec<String>,
}

#[derive(Debug, Serialize)]
struct JsonArg<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    location: JsonLocation,
}

#[derive(Debug, Serialize)]
struct JsonMount<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: JsonLocation,
}

#[derive(Debug, Serialize)]
struct JsonCache<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    location: JsonLocation,
}

impl<'a> JsonOutline<'a> {
    fn new(file: &SourceFile, outline: &'a Outline) -> JsonOutline<'a> {
        let mount = |mount: &'a OutlineMount| JsonMount {
            name: &mount.name,
            required: mount.required,
            location: JsonLocation::of_span(file, mount.span),
        };
        let args = outline.args.iter().map(|arg| JsonArg {
            name: &arg.name,
            description: arg.description.as_deref(),
            value: arg.value.as_deref().filter(|value| !value.is_empty()),
            location: JsonLocation::of_span(file, arg.span),
        });
        let caches = outline.caches.iter().map(|cache| JsonCache { id: &cache.name, location: JsonLocation::of_span(file, cache.span) });
        JsonOutline {
            name: outline.name.as_deref(),
            description: outline.description.as_deref(),
            args: args.collect(),
            secrets: outline.secrets.iter().map(mount).collect(),
            ssh: outline.ssh.iter().map(mount).collect(),
            cache: caches.collect(),
            sources: vec![STANDARD.encode(file.text())],
        }
    }
}

#[derive(Debug, Serialize)]
struct JsonTargets<'a> {
    targets: Vec<JsonTarget<'a>>,
    sources: Vec<String>,
}

#[derive(Debug, Serialize)]
struct JsonTarget<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    location: JsonLocation,
}

impl<'a> JsonTargets<'a> {
    fn new(file: &SourceFile, targets: &'a [Target]) -> JsonTargets<'a> {
        let target = |target: &'a Target| JsonTarget {
            name: target.name.as_deref(),
            default: target.default,
            description: target.description.as_deref(),
            base: &target.base,
            platform: target.platform.as_deref(),
            location: JsonLocation::of_span(file, target.span),
        };
        JsonTargets { targets: targets.iter().map(target).collect(), sources: vec![STANDARD.encode(file.text())] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_spelled_as_buildx_does() {
        let call = |text| call_flag(text).map(|flag| (flag.call, flag.json, flag.ignore_status));
        assert_eq!(call("build"), Ok((None, false, false)));
        assert_eq!(call("lint"), Ok((Some(Call::Check), false, false)));
        assert_eq!(call("outline,format=json"), Ok((Some(Call::Outline), true, false)));
        assert_eq!(call("check,format=text,ignorestatus=true"), Ok((Some(Call::Check), false, true)));
        for wrong in ["", "chek", "check,json", "check,format=xml", "check,color=on", "format=json,check"] {
            assert!(call(wrong).is_err(), "{wrong}");
        }
    }
}
