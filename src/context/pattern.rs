//! One pattern of an ignore file, as moby's patternmatcher compares it with paths.
//!
//! Matching keeps the sorted set of positions that the tokens so far can end at and moves it over one token after the other: at most tokens × length
//! steps, however many `**` there are, where backtracking would be exponential. What a pattern means is decided in [`super::regexp`]; this file does not
//! clean patterns or know `!`.

use super::error::BadPattern;
use super::regexp::{self, Comparison, Expression, Token};
use super::wildcard::{self, first_character};

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Matcher {
    /// No wildcard: the path is this.
    Exact(Vec<u8>),
    /// Only a `**` at the end: the path starts with this.
    Prefix(Vec<u8>),
    /// Only a `**` at the start: the path ends with this; if it starts with `/`, the rest alone matches too.
    Suffix(Vec<u8>),
    /// Everything else; the path has to start and end with these before the alternatives are tried.
    Expression {
        /// What every match starts with.
        start: Vec<u8>,
        /// What every match ends with.
        end: Vec<u8>,
        /// What may match.
        alternatives: Expression,
    },
}

impl Matcher {
    /// Compiles `pattern`, which is clean already.
    pub(super) fn new(pattern: &str) -> Result<Matcher, BadPattern> {
        wildcard::check(pattern.as_bytes())?;
        let bytes = pattern.as_bytes();
        let (comparison, text) = regexp::translate(pattern);
        Ok(match comparison {
            Comparison::Exact => Matcher::Exact(bytes.to_vec()),
            Comparison::Prefix => Matcher::Prefix(bytes[..bytes.len() - 2].to_vec()),
            Comparison::Suffix => Matcher::Suffix(bytes[2..].to_vec()),
            Comparison::Expression => {
                let alternatives = regexp::parse(&text)?;
                let (mut start, mut end) = (Vec::new(), Vec::new());
                if let [only] = alternatives.as_slice() {
                    if let [Token::Start, Token::Literal(bytes), ..] = only.as_slice() {
                        start.clone_from(bytes);
                    }
                    if let [.., Token::Literal(bytes), Token::End] = only.as_slice() {
                        end.clone_from(bytes);
                    }
                }
                Matcher::Expression { start, end, alternatives }
            }
        })
    }

    /// Whether the whole of `text` matches.
    pub(super) fn matches(&self, text: &[u8]) -> bool {
        match self {
            Matcher::Exact(path) => text == path,
            Matcher::Prefix(prefix) => text.starts_with(prefix),
            Matcher::Suffix(suffix) => text.ends_with(suffix) || (suffix.first() == Some(&b'/') && text == &suffix[1..]),
            Matcher::Expression { start, end, alternatives } => {
                text.starts_with(start) && text.ends_with(end) && alternatives.iter().any(|tokens| run(tokens, text))
            }
        }
    }

    /// Whether some path below the directory `dir` may match. May say yes too often, never no.
    pub(super) fn may_match_below(&self, dir: &[u8]) -> bool {
        match self {
            Matcher::Exact(path) => path.starts_with(dir) && path.get(dir.len()) == Some(&b'/'),
            Matcher::Prefix(prefix) => {
                let common = prefix.len().min(dir.len());
                prefix[..common] == dir[..common] && prefix.get(dir.len()).is_none_or(|next| *next == b'/')
            }
            Matcher::Suffix(_) => true,
            Matcher::Expression { alternatives, .. } => {
                let mut below = dir.to_vec();
                below.push(b'/');
                alternatives.iter().any(|tokens| reaches_end(tokens, &below))
            }
        }
    }
}

fn run(tokens: &[Token], text: &[u8]) -> bool {
    let mut positions = match tokens.first() {
        Some(Token::Start) => vec![0],
        _ => spread(&[0], text, |_| true, |_| true),
    };
    for token in tokens {
        positions = token.step(&positions, text);
        if positions.is_empty() {
            return false;
        }
    }
    true
}

/// Whether a text that goes on after `start` can match.
fn reaches_end(tokens: &[Token], start: &[u8]) -> bool {
    if tokens.first() != Some(&Token::Start) {
        return true;
    }
    let mut positions = vec![0];
    for token in tokens {
        if let Token::Literal(bytes) = token
            && positions.iter().any(|at| bytes.starts_with(&start[*at..]))
        {
            return true;
        }
        positions = token.step(&positions, start);
        match positions.last() {
            // What is repeated may lie across the end of what is known.
            _ if matches!(token, Token::Repeat { .. }) => return true,
            None => return false,
            Some(last) if *last == start.len() => return true,
            // What `**` stands for may end anywhere after the part that is known.
            Some(_) if matches!(token, Token::Directories | Token::Anything) => return true,
            Some(_) => {}
        }
    }
    true
}

impl Token {
    /// Where this token can end in `text` when it starts at one of `from`. Both are sorted without repetitions.
    fn step(&self, from: &[usize], text: &[u8]) -> Vec<usize> {
        let at = |wanted: &dyn Fn(usize) -> bool| from.iter().copied().filter(|at| wanted(*at)).collect();
        match self {
            Token::Literal(bytes) => from.iter().filter(|at| text[**at..].starts_with(bytes)).map(|at| at + bytes.len()).collect(),
            Token::One(class) => {
                let step = |at: &usize| {
                    let (character, length) = first_character(&text[*at..])?;
                    class.contains(character).then_some(at + length)
                };
                from.iter().filter_map(step).collect()
            }
            Token::Many(class) => spread(from, text, |character| class.contains(character), |_| true),
            // A newline ends what `**` stands for, as `.` does in Go.
            Token::Anything => spread(from, text, |character| character != '\n', |_| true),
            Token::Directories => spread(from, text, |character| character != '\n', |before| before == b'/'),
            Token::Start => at(&|at| at == 0),
            Token::End => at(&|at| at == text.len()),
            Token::Boundary(wanted) => {
                let word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
                at(&|at| (word(at.checked_sub(1).and_then(|before| text.get(before))) != word(text.get(at))) == *wanted)
            }
            Token::Repeat { token, min, max } => repeat(token, *min, *max, from, text),
        }
    }
}

/// Where `token` can end when it is taken between `min` and `max` times. Stops as soon as nothing changes, which is after as many times as there are bytes.
fn repeat(token: &Token, min: u32, max: Option<u32>, from: &[usize], text: &[u8]) -> Vec<usize> {
    let mut at = from.to_vec();
    for _ in 0..min {
        let next = token.step(&at, text);
        if next == at {
            break;
        }
        at = next;
    }
    let mut reached = at.clone();
    for _ in min..max.unwrap_or(u32::MAX) {
        at = token.step(&at, text);
        let before = reached.len();
        reached.extend(&at);
        reached.sort_unstable();
        reached.dedup();
        if reached.len() == before {
            break;
        }
    }
    reached
}

/// Lets every position run on over the characters that `passes` allows; it may stop where it started and after each byte that `stops` accepts.
fn spread(from: &[usize], text: &[u8], passes: impl Fn(char) -> bool, stops: impl Fn(u8) -> bool) -> Vec<usize> {
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
        while let Some((character, length)) = first_character(&text[at..]) {
            if !passes(character) {
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
