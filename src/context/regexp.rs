//! Moby's translation of a pattern of an ignore file into a regular expression, and the reading of that expression as Go does.
//!
//! Moby copies most of a pattern into the expression and lets the expression decide what it means. So `\d` is a digit, `[[:alpha:]]` a letter, a `^` behind
//! the first character never matches, beside a wildcard `|` separates alternatives and `a{2}` is `aa`, and a wildcard inside of brackets becomes something
//! that nobody wants (`[*]` is `[[^/]*]`). Docker's users have these meanings, so we have them too: the expression is made exactly as moby makes it, then parsed
//! into [`Token`]s. Of Go's syntax only what such an expression can hold is known. Classes of Unicode (`\pL`) are refused.

use std::iter::Peekable;
use std::str::Chars;

use super::error::BadPattern;

/// A piece of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// These bytes.
    Literal(Vec<u8>),
    /// One character of a class.
    One(Class),
    /// Any number of characters of a class.
    Many(Class),
    /// `(.*/)?`: nothing, or anything that ends in `/`.
    Directories,
    /// `.*`: anything but line breaks.
    Anything,
    /// The start of the text.
    Start,
    /// The end of the text.
    End,
    /// Between a word and something else, or (`false`) not so.
    Boundary(bool),
    /// A piece so many times.
    Repeat {
        /// What is repeated: no repetition itself.
        token: Box<Token>,
        /// At least so often.
        min: u32,
        /// At most so often, if there is a limit.
        max: Option<u32>,
    },
}

/// A set of characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Class {
    negated: bool,
    ranges: Vec<(u32, u32)>,
}

impl Class {
    /// Whether the character is in the set.
    pub(super) fn contains(&self, character: char) -> bool {
        let code = u32::from(character);
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&code)) != self.negated
    }
}

/// How moby compares a pattern with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    /// The pattern is the path.
    Exact,
    /// The path starts with the pattern without its last two bytes.
    Prefix,
    /// The path ends with the pattern without its first two bytes.
    Suffix,
    /// By the expression.
    Expression,
}

/// The alternatives of an expression. Each may match anywhere in a text; a [`Token::Start`] says where not.
pub(super) type Expression = Vec<Vec<Token>>;

/// How often Go lets something be repeated.
const MAX_REPEAT: u32 = 1000;

/// How `pattern`, which is clean, is compared, and the text of its expression.
pub(super) fn translate(pattern: &str) -> (Comparison, String) {
    // What reads the pattern for moby drops a byte order mark at its start.
    let mut chars = pattern.strip_prefix('\u{feff}').unwrap_or(pattern).chars().peekable();
    let mut comparison = Comparison::Exact;
    let mut text = String::with_capacity(pattern.len() + 16);
    text.push('^');
    let mut first = true;
    while let Some(character) = chars.next() {
        match character {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                let at_end = chars.peek().is_none();
                text.push_str(if at_end { ".*" } else { "(.*/)?" });
                comparison = match (first, at_end, comparison) {
                    (true, ..) => Comparison::Suffix,
                    (false, true, Comparison::Exact) => Comparison::Prefix,
                    _ => Comparison::Expression,
                };
            }
            '*' => {
                text.push_str("[^/]*");
                comparison = Comparison::Expression;
            }
            '?' => {
                text.push_str("[^/]");
                comparison = Comparison::Expression;
            }
            // Moby means to do so with `|`, `{` and `}` too; its table has no room for them.
            '.' | '+' | '(' | ')' | '$' => {
                text.push('\\');
                text.push(character);
            }
            '\\' => {
                text.push('\\');
                if let Some(escaped) = chars.next() {
                    text.push(escaped);
                    comparison = Comparison::Expression;
                }
            }
            '[' | ']' => {
                text.push(character);
                comparison = Comparison::Expression;
            }
            other => text.push(other),
        }
        first = false;
    }
    text.push('$');
    (comparison, text)
}

/// Reads the text that [`translate`] made.
pub(super) fn parse(text: &str) -> Result<Expression, BadPattern> {
    let mut parser = Parser { rest: text, tokens: Vec::new(), repeatable: Repeatable::Nothing };
    let mut alternatives = Vec::new();
    while let Some(first) = parser.rest.chars().next() {
        match first {
            '\\' if parser.rest.starts_with("\\Q") => {
                // Without its end, it takes the `$` with it.
                let (literal, rest) = parser.rest[2..].split_once("\\E").unwrap_or((&parser.rest[2..], ""));
                literal.chars().for_each(|character| parser.literal(character));
                parser.rest = rest;
            }
            '\\' => parser.escape()?,
            '[' => {
                let class = parser.class()?;
                parser.push_class(class);
            }
            '^' => parser.push(Token::Start, 1),
            '$' => parser.push(Token::End, 1),
            '(' => parser.push(Token::Directories, "(.*/)?".len()),
            '.' => parser.push(Token::Anything, ".*".len()),
            '|' => {
                alternatives.push(std::mem::take(&mut parser.tokens));
                parser.repeatable = Repeatable::Nothing;
                parser.rest = &parser.rest[1..];
            }
            '{' if parser.repeat()? => {}
            other => {
                parser.literal(other);
                parser.rest = &parser.rest[other.len_utf8()..];
            }
        }
    }
    alternatives.push(parser.tokens);
    Ok(alternatives)
}

struct Parser<'a> {
    rest: &'a str,
    tokens: Vec<Token>,
    repeatable: Repeatable,
}

/// What a repetition would repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeatable {
    /// There is nothing before it.
    Nothing,
    /// The last token, or the last character of a literal.
    Last,
    /// A repetition, which cannot be repeated.
    Repetition,
}

impl Parser<'_> {
    fn push(&mut self, token: Token, length: usize) {
        self.rest = &self.rest[length..];
        let repetition = matches!(token, Token::Directories | Token::Anything | Token::Many(_));
        self.repeatable = if repetition { Repeatable::Repetition } else { Repeatable::Last };
        // A run of these means the same as one, and would only take time.
        if !(repetition && self.tokens.last() == Some(&token)) {
            self.tokens.push(token);
        }
    }

    fn literal(&mut self, character: char) {
        self.repeatable = Repeatable::Last;
        if character == char::REPLACEMENT_CHARACTER {
            // It also stands for what is no character.
            let code = u32::from(character);
            return self.tokens.push(Token::One(Class { negated: false, ranges: vec![(code, code)] }));
        }
        let mut buffer = [0; 4];
        let bytes = character.encode_utf8(&mut buffer).as_bytes();
        match self.tokens.last_mut() {
            Some(Token::Literal(literal)) => literal.extend_from_slice(bytes),
            _ => self.tokens.push(Token::Literal(bytes.to_vec())),
        }
    }

    fn push_class(&mut self, class: Class) {
        match self.rest.starts_with('*') {
            true => self.push(Token::Many(class), 1),
            false => self.push(Token::One(class), 0),
        }
    }

    /// Applies `{2}`, `{2,}` or `{2,3}` to what was last; false if the text is none of these.
    fn repeat(&mut self) -> Result<bool, BadPattern> {
        let Some((counts, rest)) = self.rest[1..].split_once('}') else { return Ok(false) };
        let (min, max) = counts.split_once(',').map_or((counts, None), |(min, max)| (min, Some(max)));
        let (Some(min), Some(max)) =
            (count(min), max.map_or(Some(None), |max| if max.is_empty() { Some(None) } else { count(max).map(Some) }))
        else {
            return Ok(false);
        };
        let max = if counts.contains(',') { max } else { Some(min) };
        if min > MAX_REPEAT || max.is_some_and(|max| max > MAX_REPEAT || max < min) || self.repeatable != Repeatable::Last {
            return Err(BadPattern::BadRepeat);
        }
        self.repeatable = Repeatable::Repetition;
        self.rest = rest;
        let token = self.split_last();
        self.tokens.push(Token::Repeat { token: Box::new(token), min, max });
        Ok(true)
    }

    /// Takes the last token away; of a literal, its last character.
    fn split_last(&mut self) -> Token {
        let Some(last) = self.tokens.pop() else { return Token::Literal(Vec::new()) };
        let Token::Literal(mut bytes) = last else { return last };
        let start = bytes.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
        let character = bytes.split_off(start);
        if !bytes.is_empty() {
            self.tokens.push(Token::Literal(bytes));
        }
        Token::Literal(character)
    }

    /// An escape outside of a class.
    fn escape(&mut self) -> Result<(), BadPattern> {
        let token = match self.rest.as_bytes().get(1) {
            Some(b'A') => Some(Token::Start),
            Some(b'z') => Some(Token::End),
            Some(b'b') => Some(Token::Boundary(true)),
            Some(b'B') => Some(Token::Boundary(false)),
            _ => None,
        };
        if let Some(token) = token {
            self.push(token, 2);
            return Ok(());
        }
        let mut ranges = Vec::new();
        if let Some(rest) = perl_class(self.rest, &mut ranges) {
            self.rest = rest;
            self.push_class(Class { negated: false, ranges });
            return Ok(());
        }
        let (character, rest) = escaped(self.rest)?;
        self.rest = rest;
        self.literal(character);
        Ok(())
    }

    /// The class that begins here.
    fn class(&mut self) -> Result<Class, BadPattern> {
        let mut rest = &self.rest[1..];
        let negated = rest.starts_with('^');
        if negated {
            rest = &rest[1..];
        }
        let mut ranges = Vec::new();
        let mut first = true;
        while first || !rest.starts_with(']') {
            first = false;
            if let Some(after) = named_class(rest, &mut ranges)? {
                rest = after;
                continue;
            }
            if let Some(after) = perl_class(rest, &mut ranges) {
                rest = after;
                continue;
            }
            let (low, after) = class_character(rest)?;
            rest = after;
            let mut high = low;
            // A `-` before the closing bracket means itself.
            if rest.len() >= 2 && rest.starts_with('-') && !rest[1..].starts_with(']') {
                (high, rest) = class_character(&rest[1..])?;
                if high < low {
                    return Err(BadPattern::ReversedRange);
                }
            }
            ranges.push((u32::from(low), u32::from(high)));
        }
        self.rest = &rest[1..];
        Ok(Class { negated, ranges })
    }
}

/// A count of a repetition, at most one more than there may be; as in Go, digits after a `0` make it text.
fn count(digits: &str) -> Option<u32> {
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) && !(digits.len() > 1 && digits.starts_with('0'));
    number.then(|| digits.parse().unwrap_or(MAX_REPEAT + 1))
}

fn class_character(rest: &str) -> Result<(char, &str), BadPattern> {
    match rest.chars().next() {
        None => Err(BadPattern::OpenClass),
        Some('\\') => escaped(rest),
        Some(character) => Ok((character, &rest[character.len_utf8()..])),
    }
}

/// The character that an escape means, and what comes after it.
fn escaped(text: &str) -> Result<(char, &str), BadPattern> {
    let mut chars = text.chars();
    chars.next();
    let first = chars.next().ok_or(BadPattern::TrailingEscape)?;
    let unknown = Err(BadPattern::UnknownEscape(first));
    let control = |code: u8| Ok((char::from(code), &text[2..]));
    match first {
        'a' => control(7),
        'f' => control(12),
        'n' => control(b'\n'),
        'r' => control(b'\r'),
        't' => control(b'\t'),
        'v' => control(11),
        'x' => {
            let mut digit = || chars.next().and_then(|c| c.to_digit(16));
            match (digit(), digit()) {
                (Some(high), Some(low)) => Ok((char::from_u32(high * 16 + low).unwrap_or_default(), chars.as_str())),
                _ => unknown,
            }
        }
        '0'..='7' => {
            let mut chars = text[1..].chars().peekable();
            let code = octal(&mut chars);
            let length = text[1..].chars().take(3).take_while(|c| c.is_digit(8)).count();
            // A digit alone would refer to a group.
            if first != '0' && length == 1 { unknown } else { Ok((code, &text[1 + length..])) }
        }
        other if other.is_ascii() && !other.is_ascii_alphanumeric() => Ok((other, &text[2..])),
        _ => unknown,
    }
}

/// Up to three octal digits.
fn octal(chars: &mut Peekable<Chars<'_>>) -> char {
    let mut code = 0;
    for _ in 0..3 {
        match chars.next_if(|c| c.is_digit(8)).and_then(|c| c.to_digit(8)) {
            Some(digit) => code = code * 8 + digit,
            None => break,
        }
    }
    char::from_u32(code).unwrap_or_default()
}

const DIGIT: &[(char, char)] = &[('0', '9')];
const SPACE: &[(char, char)] = &[('\t', '\n'), ('\u{c}', '\r'), (' ', ' ')];
const WORD: &[(char, char)] = &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')];

/// The named classes; all are ASCII.
const NAMED: &[(&str, &[(char, char)])] = &[
    ("alnum", &[('0', '9'), ('A', 'Z'), ('a', 'z')]),
    ("alpha", &[('A', 'Z'), ('a', 'z')]),
    ("ascii", &[('\0', '\u{7f}')]),
    ("blank", &[('\t', '\t'), (' ', ' ')]),
    ("cntrl", &[('\0', '\u{1f}'), ('\u{7f}', '\u{7f}')]),
    ("digit", DIGIT),
    ("graph", &[('!', '~')]),
    ("lower", &[('a', 'z')]),
    ("print", &[(' ', '~')]),
    ("punct", &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')]),
    ("space", &[('\t', '\r'), (' ', ' ')]),
    ("upper", &[('A', 'Z')]),
    ("word", WORD),
    ("xdigit", &[('0', '9'), ('A', 'F'), ('a', 'f')]),
];

/// Adds `\d` and its kin at the start of `text` to `ranges`; returns what comes after it.
fn perl_class<'a>(text: &'a str, ranges: &mut Vec<(u32, u32)>) -> Option<&'a str> {
    let name = text.strip_prefix('\\')?.chars().next()?;
    let members = match name.to_ascii_lowercase() {
        'd' => DIGIT,
        's' => SPACE,
        'w' => WORD,
        _ => return None,
    };
    add(ranges, members, name.is_ascii_uppercase());
    Some(&text[2..])
}

/// Adds `[:name:]` at the start of `text` to `ranges`; returns what comes after it.
fn named_class<'a>(text: &'a str, ranges: &mut Vec<(u32, u32)>) -> Result<Option<&'a str>, BadPattern> {
    let Some((name, rest)) = text.strip_prefix("[:").and_then(|inner| inner.split_once(":]")) else { return Ok(None) };
    let (name, negated) = name.strip_prefix('^').map_or((name, false), |name| (name, true));
    let members = NAMED.iter().find(|(known, _)| *known == name).ok_or(BadPattern::UnknownClass)?;
    add(ranges, members.1, negated);
    Ok(Some(rest))
}

fn add(ranges: &mut Vec<(u32, u32)>, members: &[(char, char)], negated: bool) {
    let members = members.iter().map(|(low, high)| (u32::from(*low), u32::from(*high)));
    if !negated {
        return ranges.extend(members);
    }
    let mut next = 0;
    for (low, high) in members {
        if low > next {
            ranges.push((next, low - 1));
        }
        next = high + 1;
    }
    ranges.push((next, u32::from(char::MAX)));
}
