//! The pairs of `ENV`, `LABEL` and `ARG`.

use std::ops::Range;

use super::ast::{ArgDeclaration, Instruction, KeyValue};
use super::scope::Scope;
use super::words;

/// The pairs of `ENV` and `LABEL`.
pub(super) fn key_values(scope: &mut Scope<'_>, rest: Range<usize>, blame: Range<usize>) -> Option<Vec<KeyValue>> {
    let keyword = scope.keyword;
    let mut ranges = std::mem::take(scope.words);
    words::quoted(&scope.line.text, rest.clone(), scope.escape, &mut ranges);
    let Some(first) = ranges.first() else {
        return scope.fail(blame, format!("`{keyword}` needs at least one `name=value`"));
    };
    if !scope.text(first.clone()).contains('=') {
        return legacy_pair(scope, rest).map(|pair| vec![pair]);
    }
    let mut pairs = Vec::with_capacity(ranges.len());
    let mut complete = true;
    for range in ranges.drain(..) {
        let text = scope.text(range.clone());
        let Some(equals) = text.bytes().position(|byte| byte == b'=') else {
            let shown = words::shown(text);
            let diagnostic = scope.error(range, format!("no `=` in `{shown}`"));
            let hint = format!("every word of this `{keyword}` is a `name=value`; values with blanks need quotes");
            scope.refuse(diagnostic.with_hint(hint));
            complete = false;
            continue;
        };
        if equals == 0 {
            scope.report(scope.error(range, format!("a name of `{keyword}` is empty")));
            complete = false;
            continue;
        }
        let at = range.start + equals;
        pairs.push(KeyValue { key: scope.word(range.start..at), value: scope.word(at + 1..range.end), legacy: false });
    }
    *scope.words = ranges;
    complete.then_some(pairs)
}

/// `KEY rest of the line`.
fn legacy_pair(scope: &mut Scope<'_>, rest: Range<usize>) -> Option<KeyValue> {
    let text = scope.text(rest.clone());
    let Some(blank) = text.find(words::is_blank) else {
        let (keyword, shown) = (scope.keyword, words::shown(text));
        let diagnostic = scope.error(rest, format!("`{keyword}` needs a name and a value"));
        let hint = match text.chars().find(|c| words::is_odd_blank(*c)) {
            Some(c) => format!("the character U+{:04X} parts no words here; write a plain blank, or `=`", u32::from(c)),
            None => format!("write `{keyword} {shown}=value`"),
        };
        scope.refuse(diagnostic.with_hint(hint));
        return None;
    };
    // Only the blanks that part words count here.
    let start = rest.end - text[blank..].trim_start_matches(words::is_blank).len();
    let value = start..rest.end;
    Some(KeyValue { key: scope.word(rest.start..rest.start + blank), value: scope.word(value), legacy: true })
}

/// `ARG name[=default] …`.
pub(super) fn arg(scope: &mut Scope<'_>, rest: Range<usize>, blame: Range<usize>) -> Option<Instruction> {
    let mut ranges = std::mem::take(scope.words);
    words::quoted(&scope.line.text, rest, scope.escape, &mut ranges);
    if ranges.is_empty() {
        return scope.fail(blame, "`ARG` needs at least one name");
    }
    let mut declarations = Vec::with_capacity(ranges.len());
    for range in ranges.drain(..) {
        let equals = scope.text(range.clone()).bytes().position(|byte| byte == b'=');
        if equals == Some(0) {
            return scope.fail(range, "a name of `ARG` is empty");
        }
        declarations.push(match equals.map(|at| range.start + at) {
            Some(at) => ArgDeclaration { name: scope.word(range.start..at), default: Some(scope.word(at + 1..range.end)) },
            None => ArgDeclaration { name: scope.word(range), default: None },
        });
    }
    *scope.words = ranges;
    Some(Instruction::Arg(declarations))
}
