//! Wildcards as Go's `filepath.Match` reads them: the sources of COPY and ADD, and the syntax that a pattern of an ignore file must have.
//!
//! Go tries a wildcard from left to right and never takes a choice back, and it lets `*` end inside of a character. Both are repeated here, so that the
//! same names match; both keep it fast, whatever the pattern. A character is a UTF-8 sequence or one byte that is not part of any, and a class may
//! match `/`.

use super::error::BadPattern;

/// A compiled wildcard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wildcard {
    chunks: Vec<Chunk>,
}

/// What stands between two `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chunk {
    /// Whether a `*` stands before it; only the first may have none.
    star: bool,
    /// Only the last may have none.
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// This byte.
    Byte(u8),
    /// `?`: one character but `/`.
    Any,
    /// `[...]`.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Wildcard {
    /// Compiles `pattern`.
    pub(super) fn new(pattern: &[u8]) -> Result<Wildcard, BadPattern> {
        let mut chunks = Vec::new();
        let mut rest = pattern;
        while !rest.is_empty() {
            let (star, text, after) = split(rest);
            chunks.push(Chunk { star, pieces: pieces(text)? });
            rest = after;
        }
        Ok(Wildcard { chunks })
    }

    /// Whether the whole of `name` matches.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let mut rest = name;
        for (index, chunk) in self.chunks.iter().enumerate() {
            if chunk.star && chunk.pieces.is_empty() {
                return !rest.contains(&b'/');
            }
            match chunk.find(rest, index + 1 == self.chunks.len()) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

impl Wildcard {
    /// Whether something else than a `/` in the pattern may match one: some class holds it.
    pub(super) fn crosses_directories(&self) -> bool {
        let slash = |piece: &Piece| match piece {
            Piece::Class { negated, ranges } => ranges.iter().any(|(low, high)| (*low..=*high).contains(&'/')) != *negated,
            Piece::Byte(_) | Piece::Any => false,
        };
        self.chunks.iter().any(|chunk| chunk.pieces.iter().any(slash))
    }
}

/// Refuses the patterns of ignore files that moby refuses: those with a mistake that Go meets while it compares them with `.`. What stands behind the first
/// chunk that does not match is not looked at, and is left to the regular expression.
pub(super) fn check(pattern: &[u8]) -> Result<(), BadPattern> {
    let mut name: &[u8] = b".";
    let mut rest = pattern;
    while !rest.is_empty() {
        let (star, text, after) = split(rest);
        if star && text.is_empty() {
            break;
        }
        match (Chunk { star, pieces: pieces(text)? }).find(name, after.is_empty()) {
            Some(left) => name = left,
            None => break,
        }
        rest = after;
    }
    Ok(())
}

/// Takes a chunk off the start of a pattern: whether a `*` stands before it, its text, and what comes after it.
fn split(pattern: &[u8]) -> (bool, &[u8], &[u8]) {
    let stars = pattern.iter().take_while(|byte| **byte == b'*').count();
    let text = &pattern[stars..];
    let (mut at, mut in_class) = (0, false);
    while let Some(byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'[' => in_class = true,
            b']' => in_class = false,
            b'*' if !in_class => break,
            _ => {}
        }
        at += 1;
    }
    let at = at.min(text.len());
    (stars > 0, &text[..at], &text[at..])
}

fn pieces(chunk: &[u8]) -> Result<Vec<Piece>, BadPattern> {
    let mut pieces = Vec::new();
    let mut rest = chunk;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        pieces.push(match first {
            b'?' => Piece::Any,
            b'[' => {
                let (class, after) = class(rest)?;
                rest = after;
                class
            }
            b'\\' => {
                let (&escaped, after) = rest.split_first().ok_or(BadPattern::TrailingEscape)?;
                rest = after;
                Piece::Byte(escaped)
            }
            byte => Piece::Byte(byte),
        });
    }
    Ok(pieces)
}

impl Chunk {
    /// What is left of `text` behind the first place where this chunk fits; the last chunk leaves nothing.
    fn find<'a>(&self, text: &'a [u8], last: bool) -> Option<&'a [u8]> {
        // A `*` may stand for all up to the next slash, and for nothing.
        let room = if self.star { text.iter().take_while(|byte| **byte != b'/').count() } else { 0 };
        (0..=room).find_map(|skip| self.after(&text[skip..]).filter(|after| !last || after.is_empty()))
    }

    /// What is left of `text` behind this chunk; `None` if it does not begin with it.
    fn after<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = text;
        for piece in &self.pieces {
            let matched = match piece {
                Piece::Byte(byte) => (rest.first() == Some(byte)).then_some(1),
                Piece::Any => first_character(rest).filter(|(character, _)| *character != '/').map(|(_, length)| length),
                Piece::Class { negated, ranges } => first_character(rest)
                    .filter(|(character, _)| ranges.iter().any(|(low, high)| (*low..=*high).contains(character)) != *negated)
                    .map(|(_, length)| length),
            };
            rest = &rest[matched?..];
        }
        Some(rest)
    }
}

/// The class that starts after `[`, and what comes after its `]`.
fn class(mut rest: &[u8]) -> Result<(Piece, &[u8]), BadPattern> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if let (Some(b']'), false) = (rest.first(), ranges.is_empty()) {
            return Ok((Piece::Class { negated, ranges }, &rest[1..]));
        }
        let (low, after) = class_character(rest)?;
        rest = after;
        let mut high = low;
        if let Some(after) = rest.strip_prefix(b"-") {
            (high, rest) = class_character(after)?;
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

/// The first character and its length; a byte that is not UTF-8 counts as U+FFFD.
pub(super) fn first_character(text: &[u8]) -> Option<(char, usize)> {
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
