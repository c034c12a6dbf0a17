//! Source files and the places in them.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// A range of bytes of a file. A tree holds several for each word, so that they are kept small: see [`MAX_SIZE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    start: u32,
    end: u32,
}

/// The size of the largest file, in bytes, whose every byte a [`Span`] can name. Larger ones are not parsed.
pub const MAX_SIZE: usize = u32::MAX as usize;

impl Span {
    /// The bytes from `start` to before `end`. Places behind [`MAX_SIZE`] become that.
    pub fn new(start: usize, end: usize) -> Span {
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { start: offset(start), end: offset(end.max(start)) }
    }

    /// The first byte.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// The byte after the last.
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// The smallest span that holds both.
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }

    /// The span as a range, to index text with.
    pub fn range(self) -> Range<usize> {
        self.start()..self.end()
    }
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// A value at a place.
    pub fn new(value: T, span: Span) -> Spanned<T> {
        Spanned { value, span }
    }
}

/// A line and a column, both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
}

/// Replaced bytes whose places are kept. Behind the last of so many, every U+FFFD counts as one.
const MAX_REPLACEMENTS: usize = 100_000;

/// A file's name and text. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct SourceFile {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    text: String,
    lines: OnceLock<Vec<usize>>,
    /// Where U+FFFD stands for bytes that are not UTF-8, in order.
    replacements: Vec<usize>,
}

impl SourceFile {
    /// A file called `name` (as messages shall show it) with `text`.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> SourceFile {
        SourceFile::with_replacements(name.into(), text.into(), Vec::new())
    }

    /// A file as it was read. Bytes that are not UTF-8 become U+FFFD, and it is kept where.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> SourceFile {
        let error = match String::from_utf8(bytes) {
            Ok(text) => return SourceFile::new(name, text),
            Err(error) => error,
        };
        let (mut text, mut replacements) = (String::with_capacity(error.as_bytes().len()), Vec::new());
        for chunk in error.as_bytes().utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                if replacements.len() < MAX_REPLACEMENTS {
                    replacements.push(text.len());
                }
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        SourceFile::with_replacements(name.into(), text, replacements)
    }

    fn with_replacements(name: String, text: String, replacements: Vec<usize>) -> SourceFile {
        SourceFile { inner: Arc::new(Inner { name, text, lines: OnceLock::new(), replacements }) }
    }

    /// Whether the file was not all UTF-8.
    pub fn has_replacements(&self) -> bool {
        !self.inner.replacements.is_empty()
    }

    /// Whether the U+FFFD at a byte of the text stands for bytes that are not UTF-8.
    pub fn is_replacement(&self, offset: usize) -> bool {
        let known = &self.inner.replacements;
        known.binary_search(&offset).is_ok() || (known.len() == MAX_REPLACEMENTS && known.last().is_some_and(|last| *last < offset))
    }

    /// The name that messages show.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.inner.text
    }

    /// The text of `span`; empty where the span lies outside of the file.
    pub fn slice(&self, span: Span) -> &str {
        self.inner.text.get(span.range()).unwrap_or("")
    }

    /// Line and column of a byte.
    pub fn position(&self, offset: usize) -> Position {
        let lines = self.inner.lines.get_or_init(|| line_starts(&self.inner.text));
        let line = lines.partition_point(|start| *start <= offset).max(1);
        let start = lines[line - 1];
        let column = self.inner.text.get(start..offset).map_or(offset - start, |text| text.chars().count());
        Position { line, column: column + 1 }
    }

    /// The line (from 1) that a byte is on.
    pub fn line(&self, offset: usize) -> usize {
        self.position(offset).line
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_utf8_are_replaced_and_remembered() {
        let file = SourceFile::from_bytes("Dockerfile", b"a\xff\xefb\xe2\x82 \xef\xbf\xbd".to_vec());
        assert_eq!(file.text(), "a\u{fffd}\u{fffd}b\u{fffd} \u{fffd}");
        let replaced: Vec<usize> = (0..file.text().len()).filter(|at| file.is_replacement(*at)).collect();
        assert_eq!(replaced, [1, 4, 8]);
        assert!(file.has_replacements() && !SourceFile::from_bytes("f", "é\u{fffd}".into()).has_replacements());
    }

    #[test]
    fn places_that_no_span_can_name_become_the_last_that_one_can() {
        assert_eq!(Span::new(MAX_SIZE - 1, MAX_SIZE).range(), MAX_SIZE - 1..MAX_SIZE);
        assert_eq!(Span::new(MAX_SIZE + 7, MAX_SIZE + 9).range(), MAX_SIZE..MAX_SIZE);
        assert_eq!(Span::new(5, 3).range(), 5..5, "a span does not end before it begins");
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        let file = SourceFile::new("Dockerfile", "FROM a\nRUN é x\n");
        assert_eq!(file.position(0), Position { line: 1, column: 1 });
        assert_eq!(file.position(7), Position { line: 2, column: 1 });
        assert_eq!(file.position(14), Position { line: 2, column: 7 });
        assert_eq!(file.position(16), Position { line: 3, column: 1 });
    }
}
