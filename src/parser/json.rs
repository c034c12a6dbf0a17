//! The exec form: a JSON array of strings. What it is made of is read by hand, its escapes by nom parsers.
//!
//! What is no JSON array is a shell command (`[ -f x ] && …`), silently. What is a JSON array but holds something else than strings is a mistake.

use std::borrow::Cow;
use std::ops::Range;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while_m_n, take_while1};
use nom::character::complete::char;
use nom::combinator::{map, map_opt, value};
use nom::multi::fold_many0;
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

use super::words;

/// What stands where an exec form may.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json<T> {
    /// What was made of each string.
    Strings(Vec<T>),
    /// An array with something else in it.
    NotStrings,
    /// No JSON array.
    No,
}

/// Reads `text[range]`; makes something of each string and the bytes that it was written in.
pub(super) fn parse<'a, T>(text: &'a str, range: Range<usize>, mut make: impl FnMut(Cow<'a, str>, Range<usize>) -> T) -> Json<T> {
    let input = &text[range.clone()];
    if !words::trim_start(input).starts_with('[') {
        return Json::No;
    }
    let mut items = Vec::with_capacity(4);
    let end = array(input, |string, written| items.push(make(string, range.start + written.start..range.start + written.end)));
    match end {
        Some(end) if end == input.len() => Json::Strings(items),
        _ if serde_json::from_str::<Vec<serde::de::IgnoredAny>>(input).is_ok() && is_within_bounds(input) => Json::NotStrings,
        _ => Json::No,
    }
}

/// Whether the text begins with an array of strings, whatever follows it.
pub(super) fn begins_with_array(text: &str) -> bool {
    array(text, |_, _| ()).is_some()
}

/// The deepest nesting that BuildKit reads as JSON.
const MAX_DEPTH: usize = 10_000;

/// Whether BuildKit reads this JSON at all: it has bounds for numbers and for nesting.
fn is_within_bounds(json: &str) -> bool {
    let (mut depth, mut rest) = (0_usize, json);
    while let Some(at) = rest.find(|c: char| matches!(c, '"' | '[' | '{' | ']' | '}' | '-' | '0'..='9')) {
        rest = &rest[at..];
        let length = match rest.as_bytes()[0] {
            b'"' => string(rest).map_or(rest.len(), |(after, _)| rest.len() - after.len()),
            b'[' | b'{' => {
                depth += 1;
                1
            }
            b']' | b'}' => {
                depth = depth.saturating_sub(1);
                1
            }
            _ => {
                let end = rest.find([',', ']', '}', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
                if rest[..end].parse::<f64>().is_ok_and(f64::is_infinite) {
                    return false;
                }
                end
            }
        };
        if depth > MAX_DEPTH {
            return false;
        }
        rest = &rest[length..];
    }
    true
}

/// Reads an array of strings at the start of `input`, and gives each to `item` with the bytes that it is written in; returns where the blanks behind it end.
fn array<'a>(input: &'a str, mut item: impl FnMut(Cow<'a, str>, Range<usize>)) -> Option<usize> {
    let bytes = input.as_bytes();
    let after_blanks =
        |at: usize| bytes[at..].iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).map_or(input.len(), |n| at + n);
    // What stands before the array may be blank in any way; what stands in it may not.
    let mut at = input.len() - words::trim_start(input).len();
    if bytes.get(at) != Some(&b'[') {
        return None;
    }
    at = after_blanks(at + 1);
    if bytes.get(at) == Some(&b']') {
        return Some(after_blanks(at + 1));
    }
    loop {
        let (rest, text) = string(&input[at..]).ok()?;
        let end = input.len() - rest.len();
        item(text, at..end);
        at = after_blanks(end);
        match bytes.get(at)? {
            b',' => at = after_blanks(at + 1),
            b']' => return Some(after_blanks(at + 1)),
            _ => return None,
        }
    }
}

fn string(input: &str) -> IResult<&str, Cow<'_, str>> {
    // Mostly there is no escape.
    let inner = input.strip_prefix('"').unwrap_or_default();
    let length = inner.bytes().position(|byte| matches!(byte, b'"' | b'\\' | 0..b' ')).unwrap_or(inner.len());
    if inner.as_bytes().get(length) == Some(&b'"') {
        return Ok((&inner[length + 1..], Cow::Borrowed(&inner[..length])));
    }
    let plain = map(take_while1(|c: char| c != '"' && c != '\\' && c >= ' '), Piece::Text);
    let piece = alt((plain, map(preceded(char('\\'), escaped), Piece::Char)));
    let text = fold_many0(piece, String::new, |mut text, piece| {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Char(c) => text.push(c),
        }
        text
    });
    delimited(char('"'), text, char('"')).map(Cow::Owned).parse(input)
}

#[derive(Clone, Copy)]
enum Piece<'a> {
    Text(&'a str),
    Char(char),
}

fn escaped(input: &str) -> IResult<&str, char> {
    alt((
        value('"', char('"')),
        value('\\', char('\\')),
        value('/', char('/')),
        value('\u{8}', char('b')),
        value('\u{c}', char('f')),
        value('\n', char('n')),
        value('\r', char('r')),
        value('\t', char('t')),
        map_opt((unit, preceded(tag("\\"), unit)), |(high, low)| {
            char::decode_utf16([high, low]).next()?.ok().filter(|_| (high >> 10) == 0x36)
        }),
        // Half of a pair alone stands for no character.
        map(unit, |unit| char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER)),
    ))
    .parse(input)
}

/// `uXXXX`.
fn unit(input: &str) -> IResult<&str, u16> {
    let digits = take_while_m_n(4, 4, |c: char| c.is_ascii_hexdigit());
    map_opt(preceded(char('u'), digits), |digits| u16::from_str_radix(digits, 16).ok()).parse(input)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Vec<String>> {
        match parse(text, 0..text.len(), |item, _| item.into_owned()) {
            Json::Strings(items) => Some(items),
            Json::NotStrings => Some(vec!["<not strings>".to_owned()]),
            Json::No => None,
        }
    }

    #[test]
    fn arrays_of_strings_are_read_with_their_escapes() {
        assert_eq!(read("[]"), Some(vec![]));
        assert_eq!(read(r#" [ "a" , "b c" ] "#), Some(vec!["a".into(), "b c".into()]));
        assert_eq!(read(r#"["\"\\\/\n\u0041\ud83d\ude00\ud800x"]"#), Some(vec!["\"\\/\nA😀\u{fffd}x".into()]));
    }

    #[test]
    fn other_arrays_are_told_from_text_that_is_no_json() {
        for text in ["[1]", r#"["a", null]"#, r#"["a", ["b"]]"#, "[{}]"] {
            assert_eq!(read(text), Some(vec!["<not strings>".into()]), "{text}");
        }
        for text in
            ["", "x", "['a']", r#"["a""#, r#"["a"] x"#, r#"["a",]"#, "[ -f x ]", "[\"a\tb\"]", r#"["\x"]"#, "[1e999]", r#"["a", -1e999]"#]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn items_know_where_they_were_written() {
        let text = r#"COPY ["é", "b"]"#;
        let Json::Strings(written) = parse(text, 5..text.len(), |_, range| &text[range]) else { panic!("not read") };
        assert_eq!(written, [r#""é""#, r#""b""#]);
    }
}
