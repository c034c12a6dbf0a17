//! The exec form: a JSON array of strings, as nom parsers.
//!
//! What is no JSON array is a shell command (`[ -f x ] && …`), silently. What is a JSON array but holds something else than strings is a mistake.

use std::ops::Range;

use nom::branch::alt;
use nom::bytes::complete::{tag, take_while, take_while_m_n, take_while1};
use nom::character::complete::char;
use nom::combinator::{all_consuming, consumed, map, map_opt, value, verify};
use nom::multi::{fold_many0, separated_list0};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

/// What stands where an exec form may.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// Strings, with the bytes that each was written in.
    Strings(Vec<(String, Range<usize>)>),
    /// An array with something else in it.
    NotStrings,
    /// No JSON array.
    No,
}

/// Reads `text[range]`.
pub(super) fn parse(text: &str, range: Range<usize>) -> Json {
    let input = &text[range.clone()];
    if !input.trim_start().starts_with('[') {
        return Json::No;
    }
    let offset = |part: &str| range.start + (part.as_ptr() as usize - input.as_ptr() as usize);
    match all_consuming(array).parse(input) {
        Ok((_, items)) => {
            Json::Strings(items.into_iter().map(|(source, item)| (item, offset(source)..offset(source) + source.len())).collect())
        }
        Err(_) if serde_json::from_str::<Vec<serde::de::IgnoredAny>>(input).is_ok() && is_within_bounds(input) => Json::NotStrings,
        Err(_) => Json::No,
    }
}

/// Whether the text begins with an array of strings, whatever follows it.
pub(super) fn begins_with_array(text: &str) -> bool {
    array(text).is_ok()
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

fn blank(input: &str) -> IResult<&str, &str> {
    take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n')).parse(input)
}

type Item<'a> = (&'a str, String);

fn array(input: &str) -> IResult<&str, Vec<Item<'_>>> {
    let item = delimited(blank, consumed(string), blank);
    let items = alt((
        map(delimited(char('['), blank, char(']')), |_| Vec::new()),
        delimited(char('['), verify(separated_list0(char(','), item), |items: &Vec<Item<'_>>| !items.is_empty()), char(']')),
    ));
    delimited(take_while(char::is_whitespace), items, blank).parse(input)
}

fn string(input: &str) -> IResult<&str, String> {
    let plain = map(take_while1(|c: char| c != '"' && c != '\\' && c >= ' '), Piece::Text);
    let piece = alt((plain, map(preceded(char('\\'), escaped), Piece::Char)));
    let text = fold_many0(piece, String::new, |mut text, piece| {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Char(c) => text.push(c),
        }
        text
    });
    delimited(char('"'), text, char('"')).parse(input)
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
        match parse(text, 0..text.len()) {
            Json::Strings(items) => Some(items.into_iter().map(|(item, _)| item).collect()),
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
        let Json::Strings(items) = parse(text, 5..text.len()) else { panic!("not read") };
        let written: Vec<&str> = items.iter().map(|(_, range)| &text[range.clone()]).collect();
        assert_eq!(written, [r#""é""#, r#""b""#]);
    }
}
