//! One logical line to a statement: keyword, flags, arguments.
//!
//! Heredoc bodies are read before the arguments are, since they follow the line. An instruction inside of `ONBUILD` is read by the same code, from the
//! same line; nesting ends there, so that no input can make this recurse.

use std::ops::Range;
use std::sync::Arc;

use crate::diag::{Diagnostic, RuleId, Span, Spanned, did_you_mean};

use super::ast::{From, Heredoc, Instruction, LogicalLine, Onbuild, ShellOrExec, StageName, Statement, Text, Word};
use super::flags::{self, Found, Kind};
use super::heredoc::{self, Marks};
use super::json::{self, Json};
use super::keyword::{self, Keyword};
use super::lexer::{Lexer, Line};
use super::scope::Scope;
use super::shell::Unreadable;
use super::{copy, healthcheck, pairs, run, signals, words};

/// What a line turned out to be.
pub(super) struct Read {
    /// The keyword; `None` where there is no such instruction.
    pub(super) keyword: Option<Keyword>,
    /// Where the keyword stands.
    pub(super) keyword_span: Span,
}

/// Where the parts of an instruction stand on its line.
struct Layout {
    keyword: Keyword,
    keyword_range: Range<usize>,
    flags: Found,
    rest: Range<usize>,
}

/// What an `ONBUILD` holds.
enum Inner {
    /// This is none, or an empty one.
    None,
    /// An instruction.
    Layout(Layout),
    /// Something that no builder knows.
    Unknown,
    /// What may not be triggered.
    Refused,
}

/// The arguments of an instruction.
pub(super) struct Arguments {
    /// The flags, unchecked.
    pub(super) flags: Found,
    /// The bytes behind the flags, without blanks around them.
    pub(super) rest: Range<usize>,
    /// The heredocs of the line.
    pub(super) heredocs: Vec<Heredoc>,
    /// Bytes to blame where something is missing: the keyword.
    pub(super) keyword: Range<usize>,
}

/// Reads the instruction on the scope's line; takes the bodies of its heredocs from the lexer. The statement is added to `statements`, unless it has a mistake.
pub(super) fn read(lexer: &mut Lexer<'_>, mut scope: Scope<'_>, statements: &mut Vec<Statement>) -> Read {
    let line = scope.line;
    scope.flags.clear();
    let whole = words::trim(&line.text, 0..line.text.len());
    let first = keyword_range(&line.text, whole.clone());
    let keyword_span = line.span(first.clone());
    let Some(layout) = layout(&mut scope, whole.clone()) else {
        return Read { keyword: None, keyword_span };
    };
    let keyword = layout.keyword;
    let read = Read { keyword: Some(keyword), keyword_span };
    let inner = match layout.keyword == Keyword::Onbuild && !layout.rest.is_empty() {
        true => trigger_layout(&mut scope, layout.rest.clone()),
        false => Inner::None,
    };
    let marked = match &inner {
        Inner::None => Some(&layout),
        Inner::Layout(inner) => Some(inner),
        Inner::Unknown => None,
        Inner::Refused => return read,
    };
    let mut end = line.whole.end();
    let heredocs = match marked.is_some_and(|marked| holds_heredocs(&line.text, marked)) {
        true => bodies(&mut scope, lexer, &mut end),
        false => Some(Vec::new()),
    };
    let Some(heredocs) = heredocs else { return read };
    let text = logical_line(line, whole, &heredocs, end);
    let instruction = match inner {
        Inner::None => instruction(&mut scope, layout, heredocs),
        Inner::Layout(inner) => onbuild(&mut scope, layout, Some(inner), heredocs, end),
        _ => onbuild(&mut scope, layout, None, heredocs, end),
    };
    if let Some(instruction) = instruction {
        let keyword = Spanned::new(keyword.as_written(scope.text(first)), keyword_span);
        let span = Span::new(line.whole.start(), end);
        statements.push(Statement { instruction, keyword, span, line: text, comment: line.comment() });
    }
    read
}

/// The instruction as one line; `end` is where its last heredoc ends.
fn logical_line(line: &Line, whole: Range<usize>, heredocs: &[Heredoc], end: usize) -> LogicalLine {
    let bodies: usize = heredocs.iter().map(|heredoc| 1 + heredoc.written().len() + heredoc.delimiter.len()).sum();
    // Where nothing was left out (a carriage return, a tab before a delimiter), the text is as long as what stands in the file.
    match line.in_file(whole.clone()) {
        Some(span) if heredocs.is_empty() => LogicalLine::InFile(span),
        Some(span) if span.range().len() + bodies == end - span.start() => LogicalLine::InFile(Span::new(span.start(), end)),
        _ => LogicalLine::Joined(with_bodies(&line.text[whole], heredocs).into()),
    }
}

/// The line with the bodies of its heredocs behind it.
fn with_bodies(line: &str, heredocs: &[Heredoc]) -> String {
    let bodies = heredocs.iter().map(|heredoc| 1 + heredoc.written().len() + heredoc.delimiter.len());
    let mut text = String::with_capacity(line.len() + bodies.sum::<usize>());
    text.push_str(line);
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(heredoc.written());
        text.push_str(&heredoc.delimiter);
    }
    text
}

fn keyword_range(text: &str, range: Range<usize>) -> Range<usize> {
    let length = text.as_bytes()[range.clone()].iter().position(|byte| words::is_blank_byte(*byte));
    range.start..length.map_or(range.end, |length| range.start + length)
}

/// Finds keyword, flags and the rest; reports unknown keywords.
fn layout(scope: &mut Scope<'_>, range: Range<usize>) -> Option<Layout> {
    let text = &scope.line.text;
    let keyword_range = keyword_range(text, range.clone());
    let written = &text[keyword_range.clone()];
    let Some(keyword) = Keyword::find(written) else {
        unknown_keyword(scope, keyword_range);
        return None;
    };
    scope.keyword = keyword.name();
    let (flags, rest) = scope.flags.find(text, keyword_range.end..range.end);
    let rest = words::trim(text, rest..range.end);
    Some(Layout { keyword, keyword_range, flags, rest })
}

fn unknown_keyword(scope: &mut Scope<'_>, range: Range<usize>) {
    if range.is_empty() {
        let diagnostic = Diagnostic::error(scope.file, scope.line.whole, "no instruction is continued here");
        scope.report(diagnostic.with_hint(format!("remove the `{}`: nothing but the end of the file follows it", scope.escape)));
        return;
    }
    let written = scope.text(range.clone());
    let shown: String = written.chars().take(40).map(|c| if words::is_odd_blank(c) { '·' } else { c }).collect();
    let mut diagnostic = scope.error(range.clone(), format!("unknown instruction `{shown}`"));
    if let Some((at, c)) = written.char_indices().find(|(_, c)| words::is_odd_blank(*c)) {
        let (start, replacement) = (range.start + at, if c.is_whitespace() { " " } else { "" });
        let hint = format!("the character U+{:04X} is invisible and parts no words", u32::from(c));
        let span = scope.span(start..start + c.len_utf8());
        return scope.report(diagnostic.with_hint(hint).with_suggestion(span, replacement));
    }
    // Long words are near to no keyword; comparing them would only take time.
    let near = if written.len() <= 20 { did_you_mean(written, keyword::ALL.map(Keyword::name)) } else { None };
    if let Some(keyword) = near {
        diagnostic = diagnostic.with_hint(format!("did you mean `{keyword}`?")).with_suggestion(scope.span(range), keyword);
    }
    scope.report(diagnostic);
}

fn holds_heredocs(text: &str, layout: &Layout) -> bool {
    matches!(layout.keyword, Keyword::Run | Keyword::Copy | Keyword::Add)
        && heredoc::may_hold_one(text)
        && matches!(json::parse(text, layout.rest.clone(), |_, _| ()), Json::No)
}

/// Reads the bodies of all heredocs on the line; `end` becomes the end of the last.
fn bodies(scope: &mut Scope<'_>, lexer: &mut Lexer<'_>, end: &mut usize) -> Option<Vec<Heredoc>> {
    let marks = match heredoc::find(&scope.line.text) {
        Marks::Found(marks) => marks,
        Marks::Unreadable(unreadable) => {
            warn_of_unread_heredocs(scope, &unreadable);
            return Some(Vec::new());
        }
        Marks::BadWord(range, reason) => {
            scope.refuse(scope.error(range, format!("this heredoc's delimiter cannot be read: {reason}")));
            return None;
        }
    };
    let mut heredocs = Vec::with_capacity(marks.len());
    let mut terminated = true;
    for (mark, range) in marks {
        // It is a shift (`$((1 << 2))`), where BuildKit misses the heredoc's end.
        if mark.apart && !lexer.has_line(&mark.delimiter) {
            continue;
        }
        let read = lexer.heredoc(&mark.delimiter, mark.strip_tabs);
        *end = read.end.unwrap_or(read.body.span.end());
        if read.end.is_none() && terminated {
            terminated = false;
            let message = format!("heredoc `{}` is never ended", words::shown(&mark.delimiter));
            let hint = format!("a line that holds only `{}` ends it", words::shown(&mark.delimiter));
            let diagnostic = scope.error(range.clone(), message);
            scope.refuse(match read.near {
                Some(near) => diagnostic.with_related(near, "this line has blanks around it").with_hint(hint),
                None => diagnostic.with_hint(hint),
            });
        }
        let written = scope.file.slice(read.body.span);
        let indented = (mark.strip_tabs && written.len() != read.body.value.len()).then(|| written.to_owned());
        heredocs.push(Heredoc {
            delimiter: mark.delimiter,
            body: read.body,
            expand: mark.expand,
            strip_tabs: mark.strip_tabs,
            file_descriptor: mark.file_descriptor,
            span: scope.span(range),
            indented,
        });
    }
    terminated.then_some(heredocs)
}

/// Says that the lines below are no heredoc's.
fn warn_of_unread_heredocs(scope: &mut Scope<'_>, unreadable: &Unreadable) {
    let text = &scope.line.text;
    if heredoc::seems_to_hold_one(text) {
        let end = text[unreadable.at..].find(words::is_blank).map_or(text.len(), |length| unreadable.at + length);
        let message = format!("`<<` is no heredoc on this line: {}", unreadable.reason);
        let diagnostic = scope.warning(unreadable.at..end, message);
        scope.report(diagnostic.with_hint("the lines that follow are read as instructions; quote or escape this for the shell"));
    }
}

/// Reads the arguments of any instruction but a filled `ONBUILD`.
fn instruction(scope: &mut Scope<'_>, layout: Layout, heredocs: Vec<Heredoc>) -> Option<Instruction> {
    let Layout { keyword, keyword_range, flags, rest } = layout;
    let arguments = Arguments { flags, rest, heredocs, keyword: keyword_range };
    let instruction = match keyword {
        Keyword::From => from(scope, arguments),
        Keyword::Run => run::parse(scope, arguments),
        Keyword::Copy => copy::copy(scope, arguments),
        Keyword::Add => copy::add(scope, arguments),
        Keyword::Healthcheck => healthcheck::parse(scope, arguments),
        _ => {
            match keyword {
                Keyword::Arg | Keyword::StopSignal => flags::ignore(scope, arguments.flags, keyword.name()),
                _ => flags::check(scope, arguments.flags, &[]),
            }
            without_flags(scope, keyword, arguments.rest, arguments.keyword)
        }
    }?;
    // A mistake in a flag is reported, and the statement still does not count.
    (scope.mistakes == 0).then_some(instruction)
}

fn without_flags(scope: &mut Scope<'_>, keyword: Keyword, rest: Range<usize>, blame: Range<usize>) -> Option<Instruction> {
    match keyword {
        Keyword::Cmd | Keyword::Entrypoint => {
            let command = match rest.is_empty() {
                // Accepted by every builder: a shell with nothing to do.
                true => empty_command(scope, blame),
                false => shell_or_exec(scope, rest)?,
            };
            Some(if keyword == Keyword::Cmd { Instruction::Cmd(command) } else { Instruction::Entrypoint(command) })
        }
        Keyword::Label => pairs::key_values(scope, rest, blame).map(Instruction::Label),
        Keyword::Env => pairs::key_values(scope, rest, blame).map(Instruction::Env),
        Keyword::Arg => pairs::arg(scope, rest, blame),
        Keyword::Maintainer => one(scope, rest, blame, "a name").map(Instruction::Maintainer),
        Keyword::User => one(scope, rest, blame, "a user, such as `USER 1000:1000`").map(Instruction::User),
        Keyword::Workdir => one(scope, rest, blame, "a path").map(Instruction::Workdir),
        Keyword::StopSignal => stop_signal(scope, rest, blame),
        Keyword::Expose => {
            let ports = scope.words_at_blanks(rest);
            if ports.is_empty() {
                return scope.fail(blame, "`EXPOSE` needs at least one port");
            }
            Some(Instruction::Expose(ports))
        }
        Keyword::Volume => volume(scope, rest, blame),
        Keyword::Shell => shell(scope, rest, blame),
        // An empty ONBUILD; the others have their own functions.
        _ => scope.fail_with(blame, format!("`{}` needs an instruction", keyword.name()), "write `ONBUILD RUN command`"),
    }
}

/// A trigger's instruction. What is no instruction at all is stored, too: it fails where it is triggered.
fn trigger_layout(scope: &mut Scope<'_>, range: Range<usize>) -> Inner {
    let keyword_range = keyword_range(&scope.line.text, range.clone());
    // Blanks beyond ASCII do not part a keyword from what follows, but do not hide these either.
    let written = scope.text(keyword_range.clone()).trim();
    let forbidden = ["ONBUILD", "FROM", "MAINTAINER"].into_iter().find(|keyword| words::is_keyword(written, keyword));
    let (message, hint) = match forbidden {
        Some("ONBUILD") => ("`ONBUILD` cannot trigger another `ONBUILD`".to_owned(), "write the instruction without the second `ONBUILD`"),
        Some(keyword) => (format!("`{keyword}` cannot be triggered by `ONBUILD`"), "every other instruction but `ONBUILD` can"),
        None => {
            scope.trigger = true;
            let layout = layout(scope, range);
            scope.trigger = false;
            return layout.map_or(Inner::Unknown, Inner::Layout);
        }
    };
    scope.refuse(scope.error(keyword_range, message).with_hint(hint));
    Inner::Refused
}

fn onbuild(scope: &mut Scope<'_>, outer: Layout, inner: Option<Layout>, heredocs: Vec<Heredoc>, end: usize) -> Option<Instruction> {
    // All of the line behind the keyword is stored, flags and blanks at its end included.
    let text = scope.line.text[outer.keyword_range.end..].trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    let trigger = with_bodies(text, &heredocs);
    scope.keyword = "ONBUILD";
    scope.mistakes = 0;
    flags::check(scope, outer.flags, &[]);
    let acceptable = scope.mistakes == 0;
    let statement = inner.and_then(|inner| {
        scope.keyword = inner.keyword.name();
        scope.trigger = true;
        let keyword =
            Spanned::new(inner.keyword.as_written(scope.text(inner.keyword_range.clone())), scope.span(inner.keyword_range.clone()));
        let original = with_bodies(&scope.line.text[outer.rest], &heredocs);
        let instruction = instruction(scope, inner, heredocs);
        let span = Span::new(keyword.span.start(), end);
        instruction.map(|instruction| {
            Box::new(Statement { instruction, keyword, span, line: LogicalLine::Joined(original.into()), comment: None })
        })
    });
    acceptable.then_some(Instruction::Onbuild(Onbuild { trigger, statement }))
}

/// `FROM image [AS name]`.
fn from(scope: &mut Scope<'_>, arguments: Arguments) -> Option<Instruction> {
    flags::check(scope, arguments.flags, &[("platform", Kind::Text)]);
    let mut words = words::at_blanks(&scope.line.text, arguments.rest.clone());
    let Some(image) = words.next() else {
        let hint = "write `FROM image`, or `FROM scratch` to begin with nothing";
        return scope.fail_with(arguments.keyword, "`FROM` needs an image", hint);
    };
    let name = match (words.next(), words.next(), words.next()) {
        (None, ..) => None,
        (Some(second), Some(name), None) if is_as(scope.text(second.clone())) => Some(stage_name(scope, name)?),
        (Some(second), ..) => {
            let as_word = is_as(scope.text(second.clone()));
            let message = if as_word { "`AS` needs one name" } else { "`FROM` takes an image, and perhaps `AS name`" };
            return scope.fail_with(second.start..arguments.rest.end, message, "write `FROM image AS name`");
        }
    };
    let image = scope.word(image);
    Some(Instruction::From(Arc::new(From { platform: scope.flags.text("platform"), image, name })))
}

/// Whether the word is `AS`; the long s counts as one.
fn is_as(word: &str) -> bool {
    word.eq_ignore_ascii_case("as") || word.eq_ignore_ascii_case("a\u{17f}")
}

fn stage_name(scope: &mut Scope<'_>, range: Range<usize>) -> Option<StageName> {
    let Word { text, span } = scope.word(range.clone());
    let name =
        if text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) { text.clone() } else { words::lower(&text).into() };
    let written = Spanned::new(text, span);
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
    if begins && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c)) {
        return Some(StageName { name, written });
    }
    let hint = match written.value.contains('$') {
        true => "variables are not expanded in the name of a stage",
        false => "a name begins with a letter, and goes on with letters, digits, `-`, `_` and `.`",
    };
    scope.fail_with(range, format!("invalid name for a stage: `{}`", words::shown(&written.value)), hint)
}

/// A command in shell or exec form; `rest` is not empty.
pub(super) fn shell_or_exec(scope: &mut Scope<'_>, rest: Range<usize>) -> Option<ShellOrExec> {
    match json::parse(&scope.line.text, rest.clone(), |item, _| item.as_ref().into()) {
        Json::Strings(items) => Some(ShellOrExec::Exec(items)),
        Json::NotStrings => not_strings(scope, rest),
        Json::No => {
            warn_of_broken_json(scope, rest.clone());
            Some(ShellOrExec::Shell(scope.word(rest)))
        }
    }
}

pub(super) fn not_strings<T>(scope: &mut Scope<'_>, rest: Range<usize>) -> Option<T> {
    let diagnostic = scope.error(rest, "the exec form is a JSON array of strings only");
    scope.refuse(diagnostic.with_hint("put every element in double quotes"));
    None
}

/// Says that what looks like the exec form is run by a shell.
fn warn_of_broken_json(scope: &mut Scope<'_>, rest: Range<usize>) {
    let text = scope.text(rest.clone());
    let Some(inner) = text.strip_prefix('[') else { return };
    // A test of the shell has a blank behind the bracket, and no commas.
    let meant = match inner.strip_prefix([' ', '\t']) {
        None => inner.starts_with(['\'', '"']),
        Some(inner) => inner.trim_start().starts_with(['\'', '"']) && text.ends_with(']') && text.contains(','),
    };
    if !meant {
        return;
    }
    let hint = match json::begins_with_array(text) {
        true => "the exec form ends with its `]`: nothing may follow",
        false => "the exec form needs double quotes, commas between the elements, and none behind the last",
    };
    let diagnostic = Diagnostic::warning(scope.file, scope.span(rest), "this is no valid JSON, and is given to the shell as it is")
        .with_rule(RuleId("InvalidExecForm"))
        .with_hint(hint);
    scope.report(diagnostic);
}

/// A command for the shell with nothing in it.
pub(super) fn empty_command(scope: &Scope<'_>, keyword: Range<usize>) -> ShellOrExec {
    ShellOrExec::Shell(Word { text: Text::default(), span: scope.span(keyword.end..keyword.end) })
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
        let diagnostic = scope.error(rest, format!("unknown signal `{}`", words::shown(&word.text)));
        scope.defer(diagnostic.with_hint("write a name such as `SIGTERM`, or a number"));
    }
    Some(Instruction::StopSignal(word))
}

fn volume(scope: &mut Scope<'_>, rest: Range<usize>, blame: Range<usize>) -> Option<Instruction> {
    let mut paths = list(scope, rest)?;
    if paths.is_empty() {
        return scope.fail(blame, "`VOLUME` needs at least one path");
    }
    for path in paths.iter_mut().filter(|path| path.text.trim().len() != path.text.len()) {
        path.text = path.text.trim().into();
    }
    if let Some(empty) = paths.iter().find(|word| word.text.is_empty()) {
        let diagnostic = Diagnostic::error(scope.file, empty.span, "the path of a volume is empty");
        scope.report(diagnostic);
        return None;
    }
    Some(Instruction::Volume(paths))
}

/// Words as a JSON array or separated by blanks.
pub(super) fn list(scope: &mut Scope<'_>, rest: Range<usize>) -> Option<Vec<Word>> {
    match json::parse(&scope.line.text, rest.clone(), |text, range| Word { text: text.as_ref().into(), span: scope.span(range) }) {
        Json::Strings(items) => Some(items),
        Json::NotStrings => not_strings(scope, rest),
        Json::No => Some(scope.words_at_blanks(rest)),
    }
}

fn shell(scope: &mut Scope<'_>, rest: Range<usize>, blame: Range<usize>) -> Option<Instruction> {
    let hint = "write `SHELL [\"/bin/sh\", \"-c\"]`";
    match json::parse(&scope.line.text, rest.clone(), |item, _| item.as_ref().into()) {
        Json::Strings(items) if items.is_empty() => scope.fail_with(rest, "`SHELL` needs at least one word", hint),
        Json::Strings(items) => Some(Instruction::Shell(items)),
        Json::NotStrings => not_strings(scope, rest),
        Json::No if rest.is_empty() => scope.fail_with(blame, "`SHELL` needs a program", hint),
        Json::No => scope.fail_with(rest, "`SHELL` needs the JSON form", hint),
    }
}

/// The value of a flag that is not expanded.
pub(super) fn literal(word: Word) -> Spanned<Text> {
    Spanned::new(word.text, word.span)
}
