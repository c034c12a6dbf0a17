//! One logical line to a statement: keyword, flags, arguments.
//!
//! Heredoc bodies are read before the arguments are, since they follow the line. An instruction inside of `ONBUILD` is read by the same code, from the
//! same line; nesting ends there, so that no input can make this recurse.

use std::ops::Range;

use crate::diag::{Diagnostic, RuleId, SourceFile, Span, Spanned, did_you_mean};

use super::ast::{ArgDeclaration, From, Heredoc, Instruction, KeyValue, Onbuild, ShellOrExec, StageName, Statement, Word};
use super::flags::{self, Flag, Flags, Kind};
use super::json::{self, Json};
use super::lexer::{Lexer, Line};
use super::scope::Scope;
use super::{copy, healthcheck, heredoc, run, signals, words};

/// All keywords.
const KEYWORDS: [&str; 18] = [
    "FROM",
    "RUN",
    "CMD",
    "LABEL",
    "MAINTAINER",
    "EXPOSE",
    "ENV",
    "ADD",
    "COPY",
    "ENTRYPOINT",
    "VOLUME",
    "USER",
    "WORKDIR",
    "ARG",
    "ONBUILD",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "SHELL",
];

/// What a line turned out to be.
pub(super) struct Read {
    /// The statement, where it has no mistake.
    pub(super) statement: Option<Statement>,
    /// The keyword, in capitals; `None` where there is no such instruction.
    pub(super) keyword: Option<&'static str>,
    /// Where the keyword stands.
    pub(super) keyword_span: Span,
}

/// Where the parts of an instruction stand on its line.
struct Layout<'a> {
    keyword: &'static str,
    keyword_range: Range<usize>,
    flags: Vec<Flag<'a>>,
    rest: Range<usize>,
}

/// The arguments of an instruction.
pub(super) struct Arguments<'a> {
    /// The flags, unchecked.
    pub(super) flags: Vec<Flag<'a>>,
    /// The bytes behind the flags, without blanks around them.
    pub(super) rest: Range<usize>,
    /// The heredocs of the line.
    pub(super) heredocs: Vec<Heredoc>,
    /// Bytes to blame where something is missing: the keyword.
    pub(super) keyword: Range<usize>,
}

/// Reads the instruction on `line`; takes the bodies of its heredocs from the lexer.
pub(super) fn read(lexer: &mut Lexer<'_>, file: &SourceFile, line: &Line, escape: char, diagnostics: &mut Vec<Diagnostic>) -> Read {
    let whole = words::trim(&line.text, 0..line.text.len());
    let mut scope = Scope { file, line, keyword: "", escape, diagnostics };
    let first = keyword_range(&line.text, whole.clone());
    let keyword_span = line.span(first.clone());
    let Some(layout) = layout(&mut scope, whole.clone()) else {
        return Read { statement: None, keyword: None, keyword_span };
    };
    let keyword = layout.keyword;
    // The instruction that an ONBUILD holds.
    let inner = (keyword == "ONBUILD" && !layout.rest.is_empty()).then(|| trigger_layout(&mut scope, layout.rest.clone()));
    if let Some(None) = inner {
        return Read { statement: None, keyword: Some(keyword), keyword_span };
    }
    let inner = inner.flatten();
    let marked = inner.as_ref().unwrap_or(&layout);
    let mut end = line.span(whole.clone()).end;
    let heredocs = match holds_heredocs(&line.text, marked) {
        true => bodies(&mut scope, lexer, whole.clone(), &mut end),
        false => Some(Vec::new()),
    };
    let statement = heredocs.and_then(|heredocs| {
        let start = whole.start;
        let (span, original) = (Span::new(line.span(whole.clone()).start, end), original(&line.text[whole], &heredocs));
        let comment = line.comment.clone();
        let keyword = scope.spanned(first);
        let instruction = match inner {
            Some(inner) => onbuild(&mut scope, layout, inner, heredocs, &original, start, end)?,
            None => instruction(&mut scope, layout, heredocs)?,
        };
        Some(Statement { instruction, keyword, span, original, comment })
    });
    Read { statement, keyword: Some(keyword), keyword_span }
}

/// The line with the bodies of its heredocs behind it.
fn original(line: &str, heredocs: &[Heredoc]) -> String {
    let mut original = line.to_owned();
    for heredoc in heredocs {
        original.push('\n');
        original.push_str(&heredoc.body.value);
        original.push_str(&heredoc.delimiter);
    }
    original
}

fn keyword_range(text: &str, range: Range<usize>) -> Range<usize> {
    let length = text.as_bytes()[range.clone()].iter().position(|byte| words::is_blank_byte(*byte));
    range.start..length.map_or(range.end, |length| range.start + length)
}

/// Finds keyword, flags and the rest; reports unknown keywords.
fn layout<'a>(scope: &mut Scope<'a>, range: Range<usize>) -> Option<Layout<'a>> {
    let text: &'a str = &scope.line.text;
    let keyword_range = keyword_range(text, range.clone());
    let written = &text[keyword_range.clone()];
    let Some(keyword) = KEYWORDS.into_iter().find(|keyword| written.eq_ignore_ascii_case(keyword)) else {
        unknown_keyword(scope, keyword_range);
        return None;
    };
    scope.keyword = keyword;
    let (flags, rest) = flags::parse(text, keyword_range.end..range.end);
    Some(Layout { keyword, keyword_range, flags, rest: words::trim(text, rest..range.end) })
}

fn unknown_keyword(scope: &mut Scope<'_>, range: Range<usize>) {
    let written = scope.text(range.clone());
    let shown: String = written.chars().take(40).collect();
    let mut diagnostic = scope.error(range.clone(), format!("unknown instruction `{shown}`"));
    // Long words are near to no keyword; comparing them would only take time.
    let near = if written.len() <= 20 { did_you_mean(written, KEYWORDS) } else { None };
    if let Some(keyword) = near {
        diagnostic = diagnostic.with_hint(format!("did you mean `{keyword}`?")).with_suggestion(scope.span(range), keyword);
    }
    scope.report(diagnostic);
}

fn trigger_layout<'a>(scope: &mut Scope<'a>, range: Range<usize>) -> Option<Layout<'a>> {
    let layout = layout(scope, range)?;
    match layout.keyword {
        "ONBUILD" => scope.fail(layout.keyword_range, "`ONBUILD` cannot trigger another `ONBUILD`"),
        "FROM" | "MAINTAINER" => {
            let message = format!("`{}` cannot be triggered by `ONBUILD`", layout.keyword);
            scope.fail(layout.keyword_range, message)
        }
        _ => Some(layout),
    }
}

fn holds_heredocs(text: &str, layout: &Layout<'_>) -> bool {
    matches!(layout.keyword, "RUN" | "COPY" | "ADD")
        && text[layout.rest.clone()].contains("<<")
        && !matches!(json::parse(text, layout.rest.clone()), Json::Strings(_) | Json::NotStrings)
}

/// Reads the bodies of all heredocs on the line; `end` becomes the end of the last.
fn bodies(scope: &mut Scope<'_>, lexer: &mut Lexer<'_>, range: Range<usize>, end: &mut usize) -> Option<Vec<Heredoc>> {
    let mut heredocs = Vec::new();
    let mut terminated = true;
    for mark in heredoc::find(&scope.line.text, range) {
        let read = lexer.heredoc(&mark.delimiter, mark.strip_tabs);
        *end = read.end.unwrap_or(read.body.span.end);
        if read.end.is_none() && terminated {
            terminated = false;
            let message = format!("heredoc `{}` is never ended", mark.delimiter);
            let hint = format!("a line that holds only `{}` ends it", mark.delimiter);
            scope.report(scope.error(mark.range.clone(), message).with_hint(hint));
        }
        heredocs.push(Heredoc {
            delimiter: mark.delimiter,
            body: read.body,
            expand: mark.expand,
            strip_tabs: mark.strip_tabs,
            file_descriptor: mark.file_descriptor,
            span: scope.span(mark.range),
        });
    }
    terminated.then_some(heredocs)
}

fn onbuild(
    scope: &mut Scope<'_>,
    outer: Layout<'_>,
    inner: Layout<'_>,
    heredocs: Vec<Heredoc>,
    original: &str,
    line_start: usize,
    end: usize,
) -> Option<Instruction> {
    scope.keyword = "ONBUILD";
    Flags::check(scope, outer.flags, &[]);
    scope.keyword = inner.keyword;
    let keyword = scope.spanned(inner.keyword_range.clone());
    let trigger = original[outer.rest.start - line_start..].to_owned();
    let instruction = instruction(scope, inner, heredocs)?;
    let span = Span::new(keyword.span.start, end);
    let statement = Statement { instruction, keyword, span, original: trigger.clone(), comment: None };
    Some(Instruction::Onbuild(Onbuild { trigger, statement: Box::new(statement) }))
}

/// Reads the arguments of any instruction but a filled `ONBUILD`.
fn instruction(scope: &mut Scope<'_>, layout: Layout<'_>, heredocs: Vec<Heredoc>) -> Option<Instruction> {
    let Layout { keyword, keyword_range, flags, rest } = layout;
    let arguments = Arguments { flags, rest, heredocs, keyword: keyword_range };
    let mistakes = scope.diagnostics.len();
    let instruction = match keyword {
        "FROM" => from(scope, arguments),
        "RUN" => run::parse(scope, arguments),
        "COPY" => copy::copy(scope, arguments),
        "ADD" => copy::add(scope, arguments),
        "HEALTHCHECK" => healthcheck::parse(scope, arguments),
        _ => {
            Flags::check(scope, arguments.flags, &[]);
            without_flags(scope, keyword, arguments.rest, arguments.keyword)
        }
    }?;
    // A mistake in a flag is reported, and the statement still does not count.
    let failed = scope.diagnostics[mistakes..].iter().any(Diagnostic::is_error);
    (!failed).then_some(instruction)
}

fn without_flags(scope: &mut Scope<'_>, keyword: &'static str, rest: Range<usize>, blame: Range<usize>) -> Option<Instruction> {
    match keyword {
        "CMD" | "ENTRYPOINT" => {
            let command = match rest.is_empty() {
                // Accepted by every builder: a shell with nothing to do.
                true => ShellOrExec::Shell(Word { text: String::new(), span: scope.span(blame.end..blame.end) }),
                false => shell_or_exec(scope, rest)?,
            };
            Some(if keyword == "CMD" { Instruction::Cmd(command) } else { Instruction::Entrypoint(command) })
        }
        "LABEL" => key_values(scope, rest, blame).map(Instruction::Label),
        "ENV" => key_values(scope, rest, blame).map(Instruction::Env),
        "ARG" => arg(scope, rest, blame),
        "MAINTAINER" => one(scope, rest, blame, "a name").map(Instruction::Maintainer),
        "USER" => one(scope, rest, blame, "a user, such as `USER 1000:1000`").map(Instruction::User),
        "WORKDIR" => one(scope, rest, blame, "a path").map(Instruction::Workdir),
        "STOPSIGNAL" => stop_signal(scope, rest, blame),
        "EXPOSE" => {
            let ports: Vec<Word> = words::at_blanks(&scope.line.text, rest).into_iter().map(|range| scope.word(range)).collect();
            if ports.is_empty() {
                return scope.fail(blame, "`EXPOSE` needs at least one port");
            }
            Some(Instruction::Expose(ports))
        }
        "VOLUME" => volume(scope, rest, blame),
        "SHELL" => shell(scope, rest, blame),
        // An empty ONBUILD; the others have their own functions.
        _ => scope.fail(blame, format!("`{keyword}` needs an instruction")),
    }
}

/// `FROM image [AS name]`.
fn from(scope: &mut Scope<'_>, arguments: Arguments<'_>) -> Option<Instruction> {
    let mut flags = Flags::check(scope, arguments.flags, &[("platform", Kind::Text)]);
    let words = words::at_blanks(&scope.line.text, arguments.rest.clone());
    let name = match words.as_slice() {
        [] => {
            return scope.fail_with(
                arguments.keyword,
                "`FROM` needs an image",
                "write `FROM image`, or `FROM scratch` to begin with nothing",
            );
        }
        [_] => None,
        [_, second, name] if scope.text(second.clone()).eq_ignore_ascii_case("as") => Some(stage_name(scope, name.clone())?),
        [_, second, ..] => {
            let as_word = scope.text(second.clone()).eq_ignore_ascii_case("as");
            let message = if as_word { "`AS` needs one name" } else { "`FROM` takes an image, and perhaps `AS name`" };
            let last = words.last().map_or(second.end, |last| last.end);
            return scope.fail_with(second.start..last, message, "write `FROM image AS name`");
        }
    };
    let image = scope.word(words[0].clone());
    Some(Instruction::From(From { platform: flags.text("platform"), image, name }))
}

fn stage_name(scope: &mut Scope<'_>, range: Range<usize>) -> Option<StageName> {
    let written = scope.spanned(range.clone());
    let name = written.value.to_lowercase();
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    if begins && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c)) {
        return Some(StageName { name, written });
    }
    let hint = match written.value.contains('$') {
        true => "variables are not expanded in the name of a stage",
        false => "a name begins with a letter, and goes on with letters, digits, `-`, `_` and `.`",
    };
    scope.fail_with(range, format!("invalid name for a stage: `{}`", written.value), hint)
}

/// A command in shell or exec form; `rest` is not empty.
pub(super) fn shell_or_exec(scope: &mut Scope<'_>, rest: Range<usize>) -> Option<ShellOrExec> {
    match json::parse(&scope.line.text, rest.clone()) {
        Json::Strings(items) => Some(ShellOrExec::Exec(items.into_iter().map(|(item, _)| item).collect())),
        Json::NotStrings => not_strings(scope, rest),
        Json::No => {
            warn_of_broken_json(scope, rest.clone());
            Some(ShellOrExec::Shell(scope.word(rest)))
        }
    }
}

pub(super) fn not_strings<T>(scope: &mut Scope<'_>, rest: Range<usize>) -> Option<T> {
    scope.fail_with(rest, "the exec form is a JSON array of strings only", "put every element in double quotes")
}

/// Says that what looks like the exec form is run by a shell.
fn warn_of_broken_json(scope: &mut Scope<'_>, rest: Range<usize>) {
    let text = scope.text(rest.clone());
    let quoted = text.strip_prefix('[').is_some_and(|inner| inner.trim_start().starts_with(['\'', '"']));
    if !quoted || !text.ends_with(']') {
        return;
    }
    let diagnostic = Diagnostic::warning(scope.file, scope.span(rest), "this is no valid JSON, and is given to the shell as it is")
        .with_rule(RuleId("InvalidExecForm"))
        .with_hint("the exec form needs double quotes, commas between the elements, and none behind the last");
    scope.report(diagnostic);
}

/// The whole rest of the line.
fn one(scope: &mut Scope<'_>, rest: Range<usize>, blame: Range<usize>, what: &str) -> Option<Word> {
    if rest.is_empty() {
        let message = format!("`{}` needs {what}", scope.keyword);
        return scope.fail(blame, message);
    }
    Some(scope.word(rest))
}

fn stop_signal(scope: &mut Scope<'_>, rest: Range<usize>, blame: Range<usize>) -> Option<Instruction> {
    let word = one(scope, rest.clone(), blame, "a signal, such as `SIGTERM`")?;
    if word.is_plain(scope.escape) && !signals::is_valid(&word.text) {
        return scope.fail_with(rest, format!("unknown signal `{}`", word.text), "write a name such as `SIGTERM`, or a number");
    }
    Some(Instruction::StopSignal(word))
}

fn volume(scope: &mut Scope<'_>, rest: Range<usize>, blame: Range<usize>) -> Option<Instruction> {
    let ranges = list(scope, rest)?;
    if ranges.is_empty() {
        return scope.fail(blame, "`VOLUME` needs at least one path");
    }
    if let Some(empty) = ranges.iter().find(|word| word.text.is_empty()) {
        let diagnostic = Diagnostic::error(scope.file, empty.span, "the path of a volume is empty");
        scope.report(diagnostic);
        return None;
    }
    Some(Instruction::Volume(ranges))
}

/// Words as a JSON array or separated by blanks.
pub(super) fn list(scope: &mut Scope<'_>, rest: Range<usize>) -> Option<Vec<Word>> {
    match json::parse(&scope.line.text, rest.clone()) {
        Json::Strings(items) => Some(items.into_iter().map(|(text, range)| Word { text, span: scope.span(range) }).collect()),
        Json::NotStrings => not_strings(scope, rest),
        Json::No => Some(words::at_blanks(&scope.line.text, rest).into_iter().map(|range| scope.word(range)).collect()),
    }
}

fn shell(scope: &mut Scope<'_>, rest: Range<usize>, blame: Range<usize>) -> Option<Instruction> {
    let hint = "write `SHELL [\"/bin/sh\", \"-c\"]`";
    match json::parse(&scope.line.text, rest.clone()) {
        Json::Strings(items) if items.is_empty() => scope.fail_with(rest, "`SHELL` needs at least one word", hint),
        Json::Strings(items) => Some(Instruction::Shell(items.into_iter().map(|(item, _)| item).collect())),
        Json::NotStrings => not_strings(scope, rest),
        Json::No if rest.is_empty() => scope.fail_with(blame, "`SHELL` needs a program", hint),
        Json::No => scope.fail_with(rest, "`SHELL` needs the JSON form", hint),
    }
}

/// The pairs of `ENV` and `LABEL`.
fn key_values(scope: &mut Scope<'_>, rest: Range<usize>, blame: Range<usize>) -> Option<Vec<KeyValue>> {
    let keyword = scope.keyword;
    let ranges = words::quoted(&scope.line.text, rest.clone(), scope.escape).words;
    let Some(first) = ranges.first() else {
        return scope.fail(blame, format!("`{keyword}` needs at least one `name=value`"));
    };
    if !scope.text(first.clone()).contains('=') {
        return legacy_pair(scope, rest).map(|pair| vec![pair]);
    }
    let mut pairs = Vec::with_capacity(ranges.len());
    let mut complete = true;
    for range in ranges {
        let text = scope.text(range.clone());
        let Some(equals) = text.find('=') else {
            let shown: String = text.chars().take(60).collect();
            scope.report(
                scope
                    .error(range, format!("no `=` in `{shown}`"))
                    .with_hint(format!("every word of this `{keyword}` is a `name=value`; values with blanks need quotes")),
            );
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
    complete.then_some(pairs)
}

/// `KEY rest of the line`.
fn legacy_pair(scope: &mut Scope<'_>, rest: Range<usize>) -> Option<KeyValue> {
    let text = scope.text(rest.clone());
    let Some(blank) = text.find(words::is_blank) else {
        let (keyword, shown) = (scope.keyword, text.chars().take(40).collect::<String>());
        return scope.fail_with(rest, format!("`{keyword}` needs a name and a value"), format!("write `{keyword} {shown}=value`"));
    };
    let value = words::trim(&scope.line.text, rest.start + blank..rest.end);
    Some(KeyValue { key: scope.word(rest.start..rest.start + blank), value: scope.word(value), legacy: true })
}

/// `ARG name[=default] …`.
fn arg(scope: &mut Scope<'_>, rest: Range<usize>, blame: Range<usize>) -> Option<Instruction> {
    let ranges = words::quoted(&scope.line.text, rest, scope.escape).words;
    if ranges.is_empty() {
        return scope.fail(blame, "`ARG` needs at least one name");
    }
    let mut declarations = Vec::with_capacity(ranges.len());
    for range in ranges {
        let equals = scope.text(range.clone()).find('=');
        if equals == Some(0) {
            return scope.fail(range, "a name of `ARG` is empty");
        }
        declarations.push(match equals.map(|at| range.start + at) {
            Some(at) => ArgDeclaration { name: scope.word(range.start..at), default: Some(scope.word(at + 1..range.end)) },
            None => ArgDeclaration { name: scope.word(range), default: None },
        });
    }
    Some(Instruction::Arg(declarations))
}

/// The value of a flag that is not expanded.
pub(super) fn literal(word: Word) -> Spanned<String> {
    Spanned::new(word.text, word.span)
}
