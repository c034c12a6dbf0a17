//! Flags of instructions: `--name[=value]` words behind the keyword, up to the first other word or a bare `--`.
//!
//! Quotes and backslashes are taken out of a flag when it is read, before variables are expanded; a backslash escapes here whatever the file's escape
//! character is. Flags that an instruction does not know are mistakes, never part of its command.

use std::borrow::Cow;
use std::ops::Range;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while1};
use nom::character::complete::{anychar, char};
use nom::combinator::{consumed, map, opt, peek};
use nom::multi::fold_many0;
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

use crate::diag::did_you_mean;

use super::ast::Word;
use super::scope::Scope;
use super::words;

/// A flag as written.
#[derive(Debug)]
pub(super) struct Flag<'a> {
    /// Without `--`.
    pub(super) name: Cow<'a, str>,
    /// Behind `=`, without quotes and escapes.
    pub(super) value: Option<Cow<'a, str>>,
    /// The bytes of the name.
    pub(super) name_range: Range<usize>,
    /// The bytes of the value.
    pub(super) value_range: Range<usize>,
    /// All bytes.
    pub(super) range: Range<usize>,
}

/// Reads the flags at the start of `text[range]`; returns them and where the rest begins.
pub(super) fn parse(text: &str, range: Range<usize>) -> (Vec<Flag<'_>>, usize) {
    let mut flags = Vec::new();
    let mut rest = &text[range.clone()];
    let offset = |rest: &str| range.end - rest.len();
    loop {
        rest = rest.trim_start_matches(is_blank);
        if !rest.starts_with("--") {
            return (flags, offset(rest));
        }
        let Ok((after, (written, word))) = consumed(word).parse(rest) else { return (flags, offset(rest)) };
        if word == "--" {
            return (flags, offset(after));
        }
        let start = offset(rest);
        flags.push(flag(written, word, start));
        rest = after;
    }
}

/// Whether the character ends a flag. Blanks beyond ASCII do not: BuildKit reads flags byte by byte, and takes bytes of other letters for blanks at times,
/// which nobody can have meant.
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

fn flag<'a>(written: &str, word: Cow<'a, str>, start: usize) -> Flag<'a> {
    let end = start + written.len();
    // The name holds no quotes in practice, so that its bytes are those before the first `=`.
    let equals = written.find('=').map_or(end, |at| start + at);
    let (name, value) = match word {
        Cow::Borrowed(word) => split(word, Cow::Borrowed),
        Cow::Owned(word) => split(&word, |part| Cow::Owned(part.to_owned())),
    };
    Flag { name, value, name_range: (start + 2).min(equals)..equals, value_range: (equals + 1).min(end)..end, range: start..end }
}

/// Name and value of a flag.
fn split<'w, T>(word: &'w str, part: impl Fn(&'w str) -> T) -> (T, Option<T>) {
    let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
    (part(name.strip_prefix("--").unwrap_or(name)), value.map(part))
}

/// A word that begins with `--`, without its quotes and escapes.
fn word(input: &str) -> IResult<&str, Cow<'_, str>> {
    let (_, _) = peek(tag("--")).parse(input)?;
    let (rest, plain) = plain(input)?;
    if !rest.starts_with(['\\', '"', '\'']) {
        return Ok((rest, Cow::Borrowed(plain)));
    }
    let parts = alt((self::plain.map(Cow::Borrowed), escaped.map(Cow::Owned), quoted('"').map(Cow::Owned), quoted('\'').map(Cow::Owned)));
    let mut text = fold_many0(parts, || plain.to_owned(), |text, part: Cow<'_, str>| text + &part);
    text.parse(rest).map(|(rest, text)| (rest, Cow::Owned(text)))
}

/// Text up to a blank, a quote or a backslash.
fn plain(input: &str) -> IResult<&str, &str> {
    let length = input.bytes().position(|b| is_blank(char::from(b)) || matches!(b, b'\\' | b'"' | b'\''));
    match length.unwrap_or(input.len()) {
        0 => Err(nom::Err::Error(nom::error::Error::new(input, nom::error::ErrorKind::TakeWhile1))),
        length => Ok((&input[length..], &input[..length])),
    }
}

/// A backslash and the character that it keeps; at the end of the line it is dropped.
fn escaped(input: &str) -> IResult<&str, String> {
    map(preceded(char('\\'), opt(anychar)), |c| c.map(String::from).unwrap_or_default()).parse(input)
}

/// Quoted text; an open quote reaches to the end of the line.
fn quoted<'a>(quote: char) -> impl Parser<&'a str, Output = String, Error = nom::error::Error<&'a str>> {
    let plain = map(take_while1(move |c| c != quote && c != '\\'), str::to_owned);
    let inner = fold_many0(alt((plain, escaped)), String::new, |mut text: String, part| {
        text.push_str(&part);
        text
    });
    terminated(preceded(char(quote), inner), opt(char(quote)))
}

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A value.
    Text,
    /// A value; the flag may be repeated.
    Many,
    /// Nothing, `true` or `false`.
    Bool,
}

/// The flags of one instruction, checked.
#[derive(Debug, Default)]
pub(super) struct Flags {
    found: Vec<(&'static str, Word)>,
    switches: Vec<(&'static str, bool)>,
}

impl Flags {
    /// Checks `flags` against those that the instruction knows, and reports mistakes.
    pub(super) fn check(scope: &mut Scope<'_>, flags: Vec<Flag<'_>>, known: &[(&'static str, Kind)]) -> Flags {
        let mut checked = Flags::default();
        if flags.is_empty() {
            return checked;
        }
        let mut seen: Vec<(&str, Range<usize>)> = Vec::new();
        warn_of_open_quote(scope, flags.last());
        for flag in flags {
            let Some((name, kind)) = known.iter().copied().find(|(name, _)| *name == flag.name) else {
                unknown(scope, &flag, known);
                continue;
            };
            if let (Some((_, first)), false) = (seen.iter().find(|(seen, _)| *seen == name), kind == Kind::Many) {
                let first = scope.span(first.clone());
                scope.report(scope.error(flag.range, format!("flag `--{name}` is given twice")).with_related(first, "the first one"));
                continue;
            }
            if kind != Kind::Many {
                seen.push((name, flag.range.clone()));
            }
            match (kind, flag.value) {
                (Kind::Bool, None) => checked.switches.push((name, true)),
                (Kind::Bool, Some(value)) if value.eq_ignore_ascii_case("true") => checked.switches.push((name, true)),
                (Kind::Bool, Some(value)) if value.eq_ignore_ascii_case("false") => checked.switches.push((name, false)),
                (Kind::Bool, Some(value)) => {
                    let message = match value.is_empty() {
                        true => format!("`--{name}=` needs `true` or `false`"),
                        false => format!("`--{name}` is `true` or `false`, not `{}`", words::shown(&value)),
                    };
                    scope.report(scope.error(flag.value_range, message));
                }
                (_, Some(text)) => checked.found.push((name, Word { text: text.as_ref().into(), span: scope.span(flag.value_range) })),
                (_, None) => {
                    scope
                        .report(scope.error(flag.range, format!("flag `--{name}` needs a value")).with_hint(format!("write `--{name}=…`")));
                }
            }
        }
        checked
    }

    /// The value of a flag; an empty one counts as not given.
    pub(super) fn text(&mut self, name: &str) -> Option<Word> {
        self.given(name).filter(|word| !word.text.is_empty())
    }

    /// The value of a flag, also where it is empty.
    pub(super) fn given(&mut self, name: &str) -> Option<Word> {
        let index = self.found.iter().position(|(found, _)| *found == name)?;
        Some(self.found.remove(index).1)
    }

    /// The values of a flag that may be repeated.
    pub(super) fn many(&mut self, name: &str) -> Vec<Word> {
        self.found.extract_if(.., |(found, _)| *found == name).map(|(_, word)| word).collect()
    }

    /// Whether a switch was given, and what it said.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.switches.iter().find(|(found, _)| *found == name).map(|(_, on)| *on)
    }
}

/// Says that a flag takes all of the line, as only a mistake does.
fn warn_of_open_quote(scope: &mut Scope<'_>, last: Option<&Flag>) {
    let Some(flag) = last else { return };
    let (mut open, mut chars) = (None, scope.text(flag.range.clone()).char_indices());
    while let Some((at, c)) = chars.next() {
        match open {
            _ if c == '\\' => drop(chars.next()),
            Some((_, quote)) if quote == c => open = None,
            None if matches!(c, '"' | '\'') => open = Some((at, c)),
            _ => {}
        }
    }
    if let Some((at, _)) = open {
        let diagnostic = scope.warning(flag.range.start + at..flag.range.end, "this quote is never closed");
        scope.report(diagnostic.with_hint("the flag reaches to the end of the line; close the quote, or escape it with a backslash"));
    }
}

/// Says that flags are not looked at.
pub(super) fn ignore(scope: &mut Scope<'_>, flags: &[Flag<'_>], instruction: &str) {
    let Some(first) = flags.first() else { return };
    let message = format!("`{instruction}` takes no flags: `--{}` is ignored", words::shown(&first.name));
    scope.report(scope.warning(first.range.clone(), message).with_hint("remove it"));
}

fn unknown(scope: &mut Scope<'_>, flag: &Flag<'_>, known: &[(&'static str, Kind)]) {
    if scope.is_full() {
        return;
    }
    let keyword = scope.keyword;
    let message = format!("unknown flag `--{}` for `{keyword}`", words::shown(&flag.name));
    let mut diagnostic = scope.error(flag.name_range.start - 2..flag.name_range.end, message);
    if let Some(name) = did_you_mean(&flag.name, known.iter().map(|(name, _)| *name)) {
        let span = scope.span(flag.name_range.clone());
        diagnostic = diagnostic.with_hint(format!("did you mean `--{name}`?")).with_suggestion(span, name);
    } else if matches!(keyword, "RUN" | "CMD" | "ENTRYPOINT") {
        diagnostic = diagnostic.with_hint("to pass it to the command, write `--` before it");
    } else if known.is_empty() {
        diagnostic = diagnostic.with_hint(format!("`{keyword}` takes no flags; what begins with two dashes stands behind `--`"));
    } else {
        let names: Vec<String> = known.iter().map(|(name, _)| format!("`--{name}`")).collect();
        diagnostic = diagnostic.with_hint(format!("`{keyword}` takes {}", names.join(", ")));
    }
    scope.report(diagnostic);
}
