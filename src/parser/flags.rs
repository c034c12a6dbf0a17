//! Flags of instructions: `--name[=value]` words behind the keyword, up to the first other word or a bare `--`.
//!
//! Quotes and backslashes are taken out of a flag when it is read, before variables are expanded; a backslash escapes here whatever the file's escape
//! character is. Flags that an instruction does not know are mistakes, never part of its command.

use std::borrow::Cow;
use std::ops::Range;

use nom::branch::alt;
use nom::bytes::complete::take_while1;
use nom::character::complete::{anychar, char};
use nom::combinator::{map, opt};
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

/// Finds the flags at the start of a text: gives the bytes of each.
pub(super) struct FlagFinder<'a> {
    text: &'a str,
    /// Where the next flag begins. Behind the last one, it is where the rest of the text does.
    pub(super) at: usize,
    /// Where the text ends.
    end: usize,
}

impl<'a> FlagFinder<'a> {
    pub(super) fn new(text: &'a str, range: Range<usize>) -> FlagFinder<'a> {
        let mut finder = FlagFinder { text, at: range.start, end: range.end };
        finder.skip_blanks();
        finder
    }

    fn skip_blanks(&mut self) {
        let rest = &self.text.as_bytes()[self.at..self.end];
        self.at = rest.iter().position(|byte| !is_blank(char::from(*byte))).map_or(self.end, |length| self.at + length);
    }
}

impl Iterator for FlagFinder<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let (after, word) = word(&self.text[self.at..self.end])?;
        let written = self.at..self.end - after.len();
        self.at = written.end;
        if word == "--" {
            // Nothing behind it is a flag.
            self.end = self.at;
            return None;
        }
        self.skip_blanks();
        Some(written)
    }
}

/// Reads the flag that stands in `range`, as it was found.
pub(super) fn read(text: &str, range: Range<usize>) -> Flag<'_> {
    let written = &text[range.clone()];
    let word = match has_quotes(written) {
        true => word(written).map_or(Cow::Borrowed(written), |(_, word)| word),
        false => Cow::Borrowed(written),
    };
    flag(written, word, range.start)
}

fn has_quotes(text: &str) -> bool {
    memchr::memchr3(b'\\', b'"', b'\'', text.as_bytes()).is_some()
}

/// Whether the character ends a flag. Blanks beyond ASCII do not: BuildKit reads flags byte by byte, and takes bytes of other letters for blanks at times,
/// which nobody can have meant.
const fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

fn flag<'a>(written: &str, word: Cow<'a, str>, start: usize) -> Flag<'a> {
    let end = start + written.len();
    // The name holds no quotes in practice, so that its bytes are those before the first `=`.
    let equals = equals(written);
    let (name, value) = match word {
        Cow::Borrowed(word) => split(word, equals, Cow::Borrowed),
        Cow::Owned(word) => split(&word, self::equals(&word), |part| Cow::Owned(part.to_owned())),
    };
    let equals = equals.map_or(end, |at| start + at);
    Flag { name, value, name_range: (start + 2).min(equals)..equals, value_range: (equals + 1).min(end)..end, range: start..end }
}

/// Where a flag's name ends. It is a few bytes long, so that a plain search is the fastest.
fn equals(word: &str) -> Option<usize> {
    word.bytes().position(|byte| byte == b'=')
}

/// Name and value of a flag.
fn split<'w, T>(word: &'w str, equals: Option<usize>, part: impl Fn(&'w str) -> T) -> (T, Option<T>) {
    let (name, value) = equals.map_or((word, None), |at| (&word[..at], Some(&word[at + 1..])));
    (part(name.strip_prefix("--").unwrap_or(name)), value.map(part))
}

/// A word that begins with `--`, without its quotes and escapes; `None` where there is none.
fn word(input: &str) -> Option<(&str, Cow<'_, str>)> {
    if !input.starts_with("--") {
        return None;
    }
    let (rest, plain) = plain(input).ok()?;
    if !rest.starts_with(['\\', '"', '\'']) {
        return Some((rest, Cow::Borrowed(plain)));
    }
    let parts = alt((self::plain.map(Cow::Borrowed), escaped.map(Cow::Owned), quoted('"').map(Cow::Owned), quoted('\'').map(Cow::Owned)));
    let mut text = fold_many0(parts, || plain.to_owned(), |text, part: Cow<'_, str>| text + &part);
    text.parse(rest).ok().map(|(rest, text)| (rest, Cow::Owned(text)))
}

/// What ends plain text: blanks, quotes, the backslash.
const ENDS_PLAIN: [bool; 256] = {
    let mut ends = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        ends[byte as usize] = is_blank(byte as char) || matches!(byte, b'\\' | b'"' | b'\'');
        byte += 1;
    }
    ends
};

/// Text up to a blank, a quote or a backslash.
fn plain(input: &str) -> IResult<&str, &str> {
    match input.bytes().position(|byte| ENDS_PLAIN[usize::from(byte)]).unwrap_or(input.len()) {
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

/// The flags of one instruction, checked. One serves for all instructions of a file, so that its memory is allocated once.
#[derive(Debug, Default)]
pub(super) struct Flags {
    /// The bytes of all flags on the line: those of an `ONBUILD`, then those of what it holds.
    written: Vec<Range<usize>>,
    found: Vec<(&'static str, Word)>,
    switches: Vec<(&'static str, bool)>,
}

/// The most flags that an instruction knows.
const MAX_KNOWN: usize = 8;

/// Checks the flags that were `found` on the line against those that the instruction knows, keeps them in `scope.flags`, and reports mistakes.
pub(super) fn check(scope: &mut Scope<'_>, found: Found, known: &[(&'static str, Kind)]) {
    scope.flags.found.clear();
    scope.flags.switches.clear();
    if found.0.is_empty() {
        return;
    }
    debug_assert!(known.len() <= MAX_KNOWN, "too many flags are known");
    let line = scope.line;
    let mut seen: [Option<Range<usize>>; MAX_KNOWN] = [const { None }; MAX_KNOWN];
    warn_of_open_quote(scope, scope.flags.written[found.0.end - 1].clone());
    for index in found.0 {
        let flag = read(&line.text, scope.flags.written[index].clone());
        let Some((index, (name, kind))) = known.iter().copied().enumerate().find(|(_, (name, _))| *name == flag.name) else {
            unknown(scope, &flag, known);
            continue;
        };
        if kind != Kind::Many {
            if let Some(first) = &seen[index] {
                let first = scope.span(first.clone());
                scope.report(scope.error(flag.range, format!("flag `--{name}` is given twice")).with_related(first, "the first one"));
                continue;
            }
            seen[index] = Some(flag.range.clone());
        }
        keep(scope, name, kind, flag);
    }
}

/// Keeps the value of a flag that the instruction knows.
fn keep(scope: &mut Scope<'_>, name: &'static str, kind: Kind, flag: Flag<'_>) {
    match (kind, flag.value) {
        (Kind::Bool, None) => scope.flags.switches.push((name, true)),
        (Kind::Bool, Some(value)) if value.eq_ignore_ascii_case("true") => scope.flags.switches.push((name, true)),
        (Kind::Bool, Some(value)) if value.eq_ignore_ascii_case("false") => scope.flags.switches.push((name, false)),
        (Kind::Bool, Some(value)) => {
            let message = match value.is_empty() {
                true => format!("`--{name}=` needs `true` or `false`"),
                false => format!("`--{name}` is `true` or `false`, not `{}`", words::shown(&value)),
            };
            scope.report(scope.error(flag.value_range, message));
        }
        (_, Some(text)) => {
            let word = Word { text: text.as_ref().into(), span: scope.span(flag.value_range) };
            scope.flags.found.push((name, word));
        }
        (_, None) => {
            scope.report(scope.error(flag.range, format!("flag `--{name}` needs a value")).with_hint(format!("write `--{name}=…`")));
        }
    }
}

/// Which flags on the line are an instruction's.
#[derive(Clone, Debug)]
pub(super) struct Found(Range<usize>);

impl Flags {
    /// Forgets the line before.
    pub(super) fn clear(&mut self) {
        self.written.clear();
    }

    /// Finds the flags at the start of `text[range]`; returns them and where the rest begins.
    pub(super) fn find(&mut self, text: &str, range: Range<usize>) -> (Found, usize) {
        let (first, mut finder) = (self.written.len(), FlagFinder::new(text, range));
        self.written.extend(&mut finder);
        (Found(first..self.written.len()), finder.at)
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

/// Says that a flag takes all of the line, as only a mistake does. `range` is the last flag.
fn warn_of_open_quote(scope: &mut Scope<'_>, range: Range<usize>) {
    let text = scope.text(range.clone());
    if !has_quotes(text) {
        return;
    }
    let (mut open, mut chars) = (None, text.char_indices());
    while let Some((at, c)) = chars.next() {
        match open {
            _ if c == '\\' => drop(chars.next()),
            Some((_, quote)) if quote == c => open = None,
            None if matches!(c, '"' | '\'') => open = Some((at, c)),
            _ => {}
        }
    }
    if let Some((at, _)) = open {
        let diagnostic = scope.warning(range.start + at..range.end, "this quote is never closed");
        scope.report(diagnostic.with_hint("the flag reaches to the end of the line; close the quote, or escape it with a backslash"));
    }
}

/// Says that flags are not looked at.
pub(super) fn ignore(scope: &mut Scope<'_>, found: Found, instruction: &str) {
    let Some(first) = scope.flags.written[found.0].first().cloned() else { return };
    let first = read(&scope.line.text, first);
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
