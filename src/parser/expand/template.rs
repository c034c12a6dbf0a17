//! The grammar of words with variables, as nom parsers.
//!
//! A template borrows from the word. Nesting of `${…}` is bounded, so that no input can exhaust the stack. Escapes are kept undecided
//! ([`Part::Escaped`]): whether the escape character itself stays depends on where the text is used (patterns keep it).

use std::collections::BTreeSet;
use std::ops::Range;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while1};
use nom::character::complete::{anychar, char, satisfy};
use nom::combinator::{opt, peek, recognize};
use nom::error::{ErrorKind, ParseError};
use nom::{Err, IResult, Parser};

use super::{ExpandError, hints, unicode};

/// Levels of `${…${…}…}` that are read; beyond that a word is refused.
const MAX_DEPTH: usize = 100;

/// A piece of a word.
#[derive(Debug)]
pub(super) enum Part<'a> {
    /// Text as written.
    Text(&'a str),
    /// A character behind the escape character; `None` at the end of the word.
    Escaped(Option<char>),
    /// Text in single quotes.
    Single(&'a str),
    /// Pieces in double quotes.
    Double(Vec<Part<'a>>),
    /// A backslash in double quotes that escapes nothing.
    Backslash,
    /// A variable.
    Variable(Variable<'a>),
}

/// A use of a variable.
#[derive(Debug)]
pub(super) struct Variable<'a> {
    pub(super) name: &'a str,
    /// The bytes of the word, from `$`.
    pub(super) range: Range<usize>,
    /// Boxed, so that the pieces of long plain text stay small.
    pub(super) action: Option<Box<Action<'a>>>,
}

/// What is done with a variable's value, if it is not just used.
#[derive(Debug)]
pub(super) enum Action<'a> {
    /// `${n-w}`; with `:` an empty value counts as unset.
    Default { colon: bool, word: Vec<Part<'a>> },
    /// `${n+w}`.
    Alternative { colon: bool, word: Vec<Part<'a>> },
    /// `${n?message}`.
    Required { colon: bool, message: Vec<Part<'a>> },
    /// `${n#p}`; `p` may begin with another `#`, also one that comes from a variable, for the longest match.
    TrimPrefix { pattern: Vec<Part<'a>> },
    /// `${n%p}`; likewise with `%`.
    TrimSuffix { pattern: Vec<Part<'a>> },
    /// `${n/p/r}`, `${n//p/r}`.
    Replace { all: bool, pattern: Vec<Part<'a>>, replacement: Vec<Part<'a>> },
}

/// A mistake: how much input is left where it begins and behind it.
#[derive(Debug)]
struct Fault {
    left: usize,
    behind: usize,
    message: String,
    hint: Option<String>,
}

impl ParseError<&str> for Fault {
    fn from_error_kind(input: &str, _: ErrorKind) -> Fault {
        Fault { left: input.len(), behind: 0, message: "syntax error".to_owned(), hint: None }
    }

    fn append(_: &str, _: ErrorKind, other: Fault) -> Fault {
        other
    }
}

type Parsed<'a, T> = IResult<&'a str, T, Fault>;

/// A mistake from `at` to the end of the word.
fn fail<'a, T>(at: &str, message: impl Into<String>, hint: impl Into<Option<String>>) -> Parsed<'a, T> {
    Err(Err::Failure(Fault { left: at.len(), behind: 0, message: message.into(), hint: hint.into() }))
}

/// A mistake in the substitution at `at`: up to its `}`, if there is one.
fn fail_in<'a, T>(at: &str, message: impl Into<String>, hint: impl Into<Option<String>>) -> Parsed<'a, T> {
    let behind = at.find('}').map_or(0, |end| at.len() - end - 1);
    Err(Err::Failure(Fault { left: at.len(), behind, message: message.into(), hint: hint.into() }))
}

/// What does not change while a word is read.
#[derive(Clone, Copy)]
struct Grammar {
    length: usize,
    escape: char,
    plain_quotes: bool,
}

/// Reads a whole word.
pub(super) fn parse(word: &str, escape: char, plain_quotes: bool) -> Result<Vec<Part<'_>>, ExpandError> {
    let grammar = Grammar { length: word.len(), escape, plain_quotes };
    match grammar.parts(word, None, 0) {
        Ok((_, parts)) => Ok(parts),
        Err(Err::Failure(fault) | Err::Error(fault)) => {
            let range = word.len() - fault.left..word.len() - fault.behind;
            Err(ExpandError { range, message: fault.message, hint: fault.hint })
        }
        Err(Err::Incomplete(_)) => Err(ExpandError::new(0..word.len(), "syntax error")),
    }
}

/// Adds the names of all variables of `parts`.
pub(super) fn names<'a>(parts: &[Part<'a>], found: &mut BTreeSet<&'a str>) {
    for part in parts {
        match part {
            Part::Double(inner) => names(inner, found),
            Part::Variable(variable) => {
                found.insert(variable.name);
                match variable.action.as_deref() {
                    None => {}
                    Some(Action::Default { word, .. } | Action::Alternative { word, .. }) => names(word, found),
                    Some(Action::Required { message: word, .. }) => names(word, found),
                    Some(Action::TrimPrefix { pattern } | Action::TrimSuffix { pattern }) => names(pattern, found),
                    Some(Action::Replace { pattern, replacement, .. }) => {
                        names(pattern, found);
                        names(replacement, found);
                    }
                }
            }
            Part::Text(_) | Part::Escaped(_) | Part::Single(_) | Part::Backslash => {}
        }
    }
}

impl Grammar {
    /// Pieces up to the unquoted character `stop` (which is consumed), or to the end.
    fn parts<'a>(self, mut input: &'a str, stop: Option<char>, depth: usize) -> Parsed<'a, Vec<Part<'a>>> {
        let start = input;
        let mut parts = Vec::new();
        loop {
            let Some(next) = input.chars().next() else {
                return match stop {
                    None => Ok((input, parts)),
                    Some(_) => Err(Err::Error(Fault { left: start.len(), behind: 0, message: String::new(), hint: None })),
                };
            };
            let (rest, part) = match next {
                _ if Some(next) == stop => return Ok((&input[next.len_utf8()..], parts)),
                '$' => self.dollar(input, depth)?,
                '\'' if !self.plain_quotes => single_quoted(input)?,
                '"' if !self.plain_quotes => self.double_quoted(input, depth)?,
                _ if next == self.escape => {
                    let (rest, _) = anychar(input)?;
                    opt(anychar).map(Part::Escaped).parse(rest)?
                }
                _ => {
                    let special =
                        |c: char| c == '$' || Some(c) == stop || c == self.escape || (!self.plain_quotes && (c == '\'' || c == '"'));
                    take_while1(|c| !special(c)).map(Part::Text).parse(input)?
                }
            };
            parts.push(part);
            input = rest;
        }
    }

    /// `"…"`: variables work, and the escape character escapes only itself, `"` and `$`.
    fn double_quoted<'a>(self, input: &'a str, depth: usize) -> Parsed<'a, Part<'a>> {
        let (mut rest, _) = char('"').parse(input)?;
        let mut parts = Vec::new();
        loop {
            let Some(next) = rest.chars().next() else { return fail(input, "no closing `\"`", hints::quote(input)) };
            let (after, part) = match next {
                '"' => return Ok((&rest[1..], Part::Double(parts))),
                '$' => self.dollar(rest, depth)?,
                _ if next == self.escape => {
                    let behind = &rest[next.len_utf8()..];
                    match behind.chars().next() {
                        Some(c) if c == '"' || c == '$' || c == self.escape => (&behind[c.len_utf8()..], Part::Escaped(Some(c))),
                        _ => (behind, Part::Backslash),
                    }
                }
                _ => take_while1(|c| c != '"' && c != '$' && c != self.escape).map(Part::Text).parse(rest)?,
            };
            parts.push(part);
            rest = after;
        }
    }

    /// `$name`, `${…}`, or a `$` that means itself.
    fn dollar<'a>(self, input: &'a str, depth: usize) -> Parsed<'a, Part<'a>> {
        let (rest, brace) = (char('$'), opt(char('{'))).map(|(_, brace)| brace).parse(input)?;
        let at = |rest: &str| self.length - input.len()..self.length - rest.len();
        if brace.is_none() {
            return Ok(match name(rest) {
                Ok((rest, name)) => (rest, Part::Variable(Variable { name, range: at(rest), action: None })),
                Err(_) => (rest, Part::Text(&input[..1])),
            });
        }
        if depth >= MAX_DEPTH {
            return fail(input, format!("substitutions are nested more than {MAX_DEPTH} levels deep"), None);
        }
        if rest.starts_with(['{', '}', ':']) {
            return fail_in(input, "bad substitution", hints::bad_substitution(rest));
        }
        // Without a name, the value is that of a variable which is never set.
        let (rest, name) = name(rest).unwrap_or((rest, ""));
        match self.action(input, name, rest, depth + 1) {
            Ok((rest, action)) => Ok((rest, Part::Variable(Variable { name, range: at(rest), action: action.map(Box::new) }))),
            // The end of the word: the last substitution that is still open is at fault.
            Err(Err::Error(_)) => fail(input, "missing `}`", hints::missing_brace()),
            Err(other) => Err(other),
        }
    }

    /// What stands behind the name in the substitution at `whole`, with the closing brace. Fails with [`Err::Error`] where the word ends first.
    fn action<'a>(self, whole: &'a str, name: &str, input: &'a str, depth: usize) -> Parsed<'a, Option<Action<'a>>> {
        let word = |rest: &'a str| self.parts(rest, Some('}'), depth);
        let (rest, operator) = alt((recognize((char(':'), anychar)), tag("//"), recognize(anychar))).parse(input)?;
        let colon = operator.starts_with(':');
        match operator {
            "}" => Ok((rest, None)),
            "-" | ":-" => word(rest).map(|(rest, word)| (rest, Some(Action::Default { colon, word }))),
            "+" | ":+" => word(rest).map(|(rest, word)| (rest, Some(Action::Alternative { colon, word }))),
            "?" | ":?" => word(rest).map(|(rest, message)| (rest, Some(Action::Required { colon, message }))),
            "#" => word(rest).map(|(rest, pattern)| (rest, Some(Action::TrimPrefix { pattern }))),
            "%" => word(rest).map(|(rest, pattern)| (rest, Some(Action::TrimSuffix { pattern }))),
            "/" | "//" => {
                let (rest, pattern) = match self.parts(rest, Some('/'), depth) {
                    Err(Err::Error(_)) => return fail(whole, "missing `/` in `${…}`", hints::missing_slash(name, operator)),
                    other => other?,
                };
                let (rest, replacement) = word(rest)?;
                Ok((rest, Some(Action::Replace { all: operator == "//", pattern, replacement })))
            }
            ":" => Err(Err::Error(Fault::from_error_kind(input, ErrorKind::Eof))),
            other => fail_in(whole, format!("unsupported modifier `{}` in substitution", visible(other)), hints::modifier(name, other)),
        }
    }
}

/// `'…'`: nothing in it is special.
fn single_quoted(input: &str) -> Parsed<'_, Part<'_>> {
    let (rest, _) = char('\'').parse(input)?;
    let (rest, text) = take_while(|c| c != '\'').parse(rest)?;
    match peek(char::<&str, Fault>('\'')).parse(rest) {
        Ok(_) => Ok((&rest[1..], Part::Single(text))),
        Err(_) => fail(input, "no closing `'`", hints::quote(input)),
    }
}

/// A name: letters, digits and `_`; or only digits; or one of the shell's special parameters.
fn name(input: &str) -> IResult<&str, &str, Fault> {
    alt((
        take_while1(unicode::is_digit),
        recognize(satisfy(|c| "@*#?-$!".contains(c))),
        take_while1(|c: char| unicode::is_letter(c) || unicode::is_digit(c) || c == '_'),
    ))
    .parse(input)
}

/// Text in which a line break or another control character shows.
fn visible(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}
