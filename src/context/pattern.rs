//! Patterns over paths: Go's `filepath.Match` for wildcards, and moby's patternmatcher (which adds `**`) for ignore rules.
//!
//! One list of tokens serves both. Matching keeps the sorted set of positions that the tokens so far can end at and moves it over one token
//! after the other: at most tokens × length steps, however many `**` there are, where backtracking would be exponential.
//!
//! As in Go, a character is a UTF-8 sequence or one byte that is not part of any, and a class may match `/`. This file does not clean patterns or know `!`.

use super::error::BadPattern;

/// A piece of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// These bytes.
    Literal(Vec<u8>),
    /// `?`: one character but `/`.
    AnyCharacter,
    /// `*`: any characters but `/`.
    Star,
    /// `**` or `**/` with something after it: nothing, or anything that ends in `/`.
    Directories,
    /// `**` at the end: anything.
    Anything,
    /// `[...]`.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// What `*` means when there are two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// `filepath.Match`: the same as one.
    Glob,
    /// Ignore rules: any number of directories.
    Ignore,
}

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matcher {
    tokens: Vec<Token>,
    /// How to match without the tokens.
    shape: Shape,
}

/// Patterns that need no tokens, which are most.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// No wildcard: the path is this.
    Exact(Vec<u8>),
    /// Only a `**` at the end: the path starts with this.
    Prefix(Vec<u8>),
    /// Only a `**` at the start: the path ends with this; if it starts with `/`, the rest alone matches too.
    Suffix(Vec<u8>),
    /// Everything else; the path has to start and end with these before the tokens are tried.
    Tokens { start: Vec<u8>, end: Vec<u8> },
}

impl Matcher {
    /// Compiles `pattern`, which for [`Dialect::Ignore`] is clean already.
    pub(super) fn new(pattern: &[u8], dialect: Dialect) -> Result<Matcher, BadPattern> {
        let tokens = tokenize(pattern, dialect)?;
        let shape = shape(&tokens, pattern);
        Ok(Matcher { tokens, shape })
    }

    /// Whether the whole of `text` matches.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        match &self.shape {
            Shape::Exact(path) => text == path,
            Shape::Prefix(prefix) => text.starts_with(prefix),
            Shape::Suffix(suffix) => text.ends_with(suffix) || (suffix.first() == Some(&b'/') && text == &suffix[1..]),
            Shape::Tokens { start, end } => text.starts_with(start) && text.ends_with(end) && self.run(text),
        }
    }

    /// Whether some path below the directory `dir` may match. May say yes too often, never no.
    pub(super) fn may_match_below(&self, dir: &[u8]) -> bool {
        match &self.shape {
            Shape::Exact(path) => path.starts_with(dir) && path.get(dir.len()) == Some(&b'/'),
            Shape::Prefix(prefix) => {
                let common = prefix.len().min(dir.len());
                prefix[..common] == dir[..common] && prefix.get(dir.len()).is_none_or(|next| *next == b'/')
            }
            Shape::Suffix(_) => true,
            Shape::Tokens { .. } => {
                let mut below = dir.to_vec();
                below.push(b'/');
                self.reaches_end(&below)
            }
        }
    }

    fn run(&self, text: &[u8]) -> bool {
        let mut positions = vec![0];
        for token in &self.tokens {
            positions = token.step(&positions, text);
            if positions.is_empty() {
                return false;
            }
        }
        positions.last() == Some(&text.len())
    }

    /// Whether a text that goes on after `start` can match.
    fn reaches_end(&self, start: &[u8]) -> bool {
        let mut positions = vec![0];
        for token in &self.tokens {
            if let Token::Literal(bytes) = token
                && positions.iter().any(|at| bytes.starts_with(&start[*at..]))
            {
                return true;
            }
            positions = token.step(&positions, start);
            match positions.last() {
                None => return false,
                Some(last) if *last == start.len() => return true,
                // What `**` stands for may end anywhere after the part that is known.
                Some(_) if matches!(token, Token::Directories | Token::Anything) => return true,
                Some(_) => {}
            }
        }
        false
    }
}

impl Token {
    /// Where this token can end in `text` when it starts at one of `from`. Both are sorted without repetitions.
    fn step(&self, from: &[usize], text: &[u8]) -> Vec<usize> {
        match self {
            Token::Literal(bytes) => from.iter().filter(|at| text[**at..].starts_with(bytes)).map(|at| at + bytes.len()).collect(),
            Token::AnyCharacter => single(from, text, |character| character != '/'),
            Token::Class { negated, ranges } => {
                single(from, text, |character| ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated)
            }
            Token::Star => spread(from, text, |byte| byte != b'/', |_| true),
            // A newline ends what `**` stands for, as `.` does in moby's regular expressions.
            Token::Anything => spread(from, text, |byte| byte != b'\n', |_| true),
            Token::Directories => spread(from, text, |byte| byte != b'\n', |before| before == b'/'),
        }
    }
}

/// Moves every position over one character that is `wanted`.
fn single(from: &[usize], text: &[u8], wanted: impl Fn(char) -> bool) -> Vec<usize> {
    let step = |at: &usize| {
        let (character, length) = first_character(&text[*at..])?;
        wanted(character).then_some(at + length)
    };
    from.iter().filter_map(step).collect()
}

/// Lets every position run on over the bytes that `passes` allows; it may stop where it started and after each byte that `stops` accepts.
fn spread(from: &[usize], text: &[u8], passes: impl Fn(u8) -> bool, stops: impl Fn(u8) -> bool) -> Vec<usize> {
    let mut reached: Vec<usize> = Vec::new();
    let mut done = 0;
    let mut starts = from.iter().copied().peekable();
    while let Some(start) = starts.next() {
        if start < done {
            // An earlier run passed here; it did not necessarily stop.
            continue;
        }
        let mut at = start;
        reached.push(at);
        while let Some((_, length)) = first_character(&text[at..]) {
            if !passes(text[at]) {
                break;
            }
            at += length;
            let is_start = starts.next_if(|next| *next == at).is_some();
            if is_start || stops(text[at - 1]) {
                reached.push(at);
            }
        }
        done = at + 1;
    }
    reached
}

/// The first character and its length; a byte that is not UTF-8 counts as U+FFFD.
fn first_character(text: &[u8]) -> Option<(char, usize)> {
    let first = *text.first()?;
    if first < 0x80 {
        return Some((char::from(first), 1));
    }
    let window = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(window) {
        Ok(valid) => valid,
        Err(error) => std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default(),
    };
    Some(valid.chars().next().map_or((char::REPLACEMENT_CHARACTER, 1), |character| (character, character.len_utf8())))
}

fn tokenize(pattern: &[u8], dialect: Dialect) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'*' if dialect == Dialect::Ignore && rest.first() == Some(&b'*') => {
                rest = &rest[1..];
                rest = rest.strip_prefix(b"/").unwrap_or(rest);
                let token = if rest.is_empty() { Token::Anything } else { Token::Directories };
                // A run of them means the same as one.
                if tokens.last() != Some(&token) {
                    tokens.push(token);
                }
            }
            b'*' => {
                if tokens.last() != Some(&Token::Star) {
                    tokens.push(Token::Star);
                }
            }
            b'?' => tokens.push(Token::AnyCharacter),
            b'[' => {
                let (token, after) = class(rest, dialect)?;
                tokens.push(token);
                rest = after;
            }
            b'\\' => {
                let (&escaped, after) = rest.split_first().ok_or(BadPattern::TrailingEscape)?;
                push_literal(&mut tokens, escaped);
                rest = after;
            }
            byte => push_literal(&mut tokens, byte),
        }
    }
    Ok(tokens)
}

fn push_literal(tokens: &mut Vec<Token>, byte: u8) {
    match tokens.last_mut() {
        Some(Token::Literal(bytes)) => bytes.push(byte),
        _ => tokens.push(Token::Literal(vec![byte])),
    }
}

/// The class that starts after `[`, and what comes after its `]`.
fn class(mut rest: &[u8], dialect: Dialect) -> Result<(Token, &[u8]), BadPattern> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if let (Some(b']'), false) = (rest.first(), ranges.is_empty()) {
            return Ok((Token::Class { negated, ranges }, &rest[1..]));
        }
        let (low, after) = class_character(rest)?;
        rest = after;
        let mut high = low;
        if let Some(after) = rest.strip_prefix(b"-") {
            (high, rest) = class_character(after)?;
        }
        // Go's wildcards take such a range as empty; its regular expressions, which ignore rules become, refuse it.
        if high < low && dialect == Dialect::Ignore {
            return Err(BadPattern::ReversedRange);
        }
        ranges.push((low, high));
    }
}

fn class_character(rest: &[u8]) -> Result<(char, &[u8]), BadPattern> {
    let rest = match rest.first() {
        None => return Err(BadPattern::OpenClass),
        Some(b'-' | b']') => return Err(BadPattern::BadClass),
        Some(b'\\') => &rest[1..],
        Some(_) => rest,
    };
    let (character, length) = first_character(rest).ok_or(BadPattern::OpenClass)?;
    if character == char::REPLACEMENT_CHARACTER && length == 1 {
        return Err(BadPattern::BadClass);
    }
    // The closing bracket has to come still.
    if rest.len() == length { Err(BadPattern::OpenClass) } else { Ok((character, &rest[length..])) }
}

fn shape(tokens: &[Token], pattern: &[u8]) -> Shape {
    match tokens {
        [] => Shape::Exact(Vec::new()),
        [Token::Literal(bytes)] => Shape::Exact(bytes.clone()),
        [Token::Anything] => Shape::Suffix(Vec::new()),
        [Token::Literal(bytes), Token::Anything] => Shape::Prefix(bytes.clone()),
        // Taken from the pattern as written: `**/x` and `**x` have the same tokens, but the second also matches the end of a name.
        [Token::Directories, Token::Literal(bytes)] => match pattern.strip_prefix(b"**") {
            Some(suffix) if suffix.strip_prefix(b"/").unwrap_or(suffix) == bytes => Shape::Suffix(suffix.to_vec()),
            _ => tokens_shape(tokens),
        },
        _ => tokens_shape(tokens),
    }
}

fn tokens_shape(tokens: &[Token]) -> Shape {
    let literal = |token: Option<&Token>| match token {
        Some(Token::Literal(bytes)) => bytes.clone(),
        _ => Vec::new(),
    };
    Shape::Tokens { start: literal(tokens.first()), end: literal(tokens.last()) }
}
