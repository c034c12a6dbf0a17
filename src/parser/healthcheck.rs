//! `HEALTHCHECK`.

use super::ast::{Healthcheck, Instruction, ShellOrExec, Word};
use super::duration;
use super::flags::{self, Kind};
use super::instruction::{Arguments, shell_or_exec};
use super::scope::Scope;
use super::words;
use crate::diag::Diagnostic;

/// The shortest duration that an image's config may hold, but for none at all.
const MINIMUM: i64 = 1_000_000;

/// Reads the arguments of `HEALTHCHECK`.
pub(super) fn parse(scope: &mut Scope<'_>, arguments: Arguments) -> Option<Instruction> {
    let durations = ["interval", "timeout", "start-period", "start-interval"];
    let known = [
        ("interval", Kind::Text),
        ("timeout", Kind::Text),
        ("start-period", Kind::Text),
        ("start-interval", Kind::Text),
        ("retries", Kind::Text),
    ];
    let rest = arguments.rest;
    let text = scope.text(rest.clone());
    // Blanks beyond ASCII part nothing here.
    let end = text.find(words::is_blank).map_or(rest.end, |at| rest.start + at);
    let start = rest.end - scope.text(end..rest.end).trim_start_matches(words::is_blank).len();
    let (kind, command) = (rest.start..end, start..rest.end);
    let written = scope.text(kind.clone());
    if written.eq_ignore_ascii_case("none") {
        flags::ignore(scope, arguments.flags, "HEALTHCHECK NONE");
        if !command.is_empty() && shell_or_exec(scope, command.clone())? != ShellOrExec::Exec(Vec::new()) {
            return scope.fail(command, "`HEALTHCHECK NONE` takes no arguments");
        }
        return Some(Instruction::Healthcheck(Box::new(Healthcheck::None)));
    }
    flags::check(scope, arguments.flags, &known);
    let [interval, timeout, start_period, start_interval] =
        durations.map(|name| scope.flags.text(name).and_then(|word| length(scope, name, &word)));
    let retries = scope.flags.text("retries").and_then(|word| count(scope, &word));
    if rest.is_empty() {
        return scope.fail_with(arguments.keyword, "`HEALTHCHECK` needs `CMD` or `NONE`", "write `HEALTHCHECK CMD command`");
    }
    if !written.eq_ignore_ascii_case("cmd") {
        if !command.is_empty() {
            shell_or_exec(scope, command)?;
        }
        let message = format!("`HEALTHCHECK` takes `CMD` or `NONE`, not `{}`", words::shown(written));
        return scope.fail_with(kind, message, "write `HEALTHCHECK CMD command`");
    }
    if command.is_empty() {
        return scope.fail(kind, "`HEALTHCHECK CMD` needs a command");
    }
    let form = shell_or_exec(scope, command.clone())?;
    if form == ShellOrExec::Exec(Vec::new()) {
        return scope.fail(command, "`HEALTHCHECK CMD` needs a command");
    }
    let check = Healthcheck::Command { command: form, interval, timeout, start_period, start_interval, retries };
    Some(Instruction::Healthcheck(Box::new(check)))
}

/// A duration.
fn length(scope: &mut Scope<'_>, name: &str, word: &Word) -> Option<i64> {
    let (mistake, hint) = match duration::parse(&word.text) {
        Ok(length) if length == 0 || length >= MINIMUM => return Some(length),
        Ok(_) => (format!("`--{name}` cannot be less than 1ms"), "write `0s` for the default"),
        Err(mistake) => (mistake, "write a number and a unit, such as `30s` or `1m30s`"),
    };
    let diagnostic = Diagnostic::error(scope.file, word.span, mistake);
    scope.report(diagnostic.with_hint(hint));
    None
}

fn count(scope: &mut Scope<'_>, word: &Word) -> Option<i64> {
    let mistake = match word.text.parse::<i32>() {
        Ok(count) if count >= 0 => return Some(i64::from(count)),
        Ok(_) => "`--retries` cannot be negative".to_owned(),
        Err(_) => format!("`--retries` is a number, not `{}`", words::shown(&word.text)),
    };
    let diagnostic = Diagnostic::error(scope.file, word.span, mistake);
    scope.report(diagnostic);
    None
}
