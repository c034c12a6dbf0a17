//! Physical lines to logical lines, written by hand: continuations, comments and heredoc bodies depend on what came before, line by line.
//!
//! A [`Line`] is one instruction with its continuations joined and comments dropped. It keeps a map back to the file, so that a range of its text
//! has a [`Span`] even where the instruction goes over several physical lines. Everything here reads each byte a fixed number of times.

use std::ops::Range;

use crate::diag::{SourceFile, Span, Spanned};

/// One line of the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct PhysicalLine<'a> {
    /// Without its line break.
    pub(super) text: &'a str,
    /// With its line break.
    pub(super) whole: &'a str,
    /// Where it begins in the file.
    pub(super) start: usize,
}

/// An instruction as one line.
#[derive(Debug)]
pub(super) struct Line {
    /// Continuations joined, comments dropped, leading blanks removed.
    pub(super) text: String,
    /// The comment lines directly above.
    pub(super) comment: Option<String>,
    /// Blank lines inside of the instruction.
    pub(super) empty_continuations: Vec<Span>,
    /// Where the instruction begins and ends: the physical lines that were read for it, without blanks around them.
    pub(super) whole: Span,
    pieces: Vec<Piece>,
}

/// A part of a line's text that is contiguous in the file.
#[derive(Clone, Copy, Debug)]
struct Piece {
    text: usize,
    file: usize,
}

impl Line {
    fn push(&mut self, text: &str, file: usize) {
        if !text.is_empty() || self.pieces.is_empty() {
            self.pieces.push(Piece { text: self.text.len(), file });
            self.text.push_str(text);
        }
    }

    /// Where a range of the text was written.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        if range.is_empty() {
            // An empty range stands behind the character before it.
            let at = if range.start == 0 { self.offset(0) } else { self.offset(range.start - 1) + 1 };
            return Span::new(at, at);
        }
        Span::new(self.offset(range.start), self.offset(range.end - 1) + 1)
    }

    /// Where a byte of the text was written.
    fn offset(&self, at: usize) -> usize {
        let index = self.pieces.partition_point(|piece| piece.text <= at).saturating_sub(1);
        self.pieces.get(index).map_or(0, |piece| piece.file + (at - piece.text))
    }
}

/// A heredoc's body as read from the file.
#[derive(Debug)]
pub(super) struct Body {
    /// The body, with its line breaks as they are.
    pub(super) body: Spanned<String>,
    /// The end of the line that ended it, without the line break; `None` where the file ended first.
    pub(super) end: Option<usize>,
    /// A line that would have ended it without the blanks around.
    pub(super) near: Option<Span>,
}

/// Reads the lines of a file.
#[derive(Clone)]
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    escape: char,
}

impl<'a> Lexer<'a> {
    /// Begins behind the byte order mark, if there is one.
    pub(super) fn new(file: &'a SourceFile) -> Lexer<'a> {
        let at = if file.text().starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Lexer { text: file.text(), at, escape: '\\' }
    }

    pub(super) fn set_escape(&mut self, escape: char) {
        self.escape = escape;
    }

    /// All that has not been read.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Looks at the next physical line.
    pub(super) fn peek(&self) -> Option<PhysicalLine<'a>> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let whole = rest.find('\n').map_or(rest, |end| &rest[..=end]);
        Some(PhysicalLine { text: whole.trim_end_matches(['\r', '\n']), whole, start: self.at })
    }

    /// Takes the next physical line.
    pub(super) fn next(&mut self) -> Option<PhysicalLine<'a>> {
        let line = self.peek()?;
        self.at += line.whole.len();
        Some(line)
    }

    /// Takes the next instruction; blank lines and comments before it are skipped.
    pub(super) fn instruction(&mut self) -> Option<Line> {
        let mut comments: Vec<&str> = Vec::new();
        loop {
            let physical = self.next()?;
            let text = physical.text.trim_start();
            if let Some(comment) = text.strip_prefix('#') {
                // An empty comment parts what is above it from the instruction.
                match comment.trim() {
                    "" => comments.clear(),
                    comment => comments.push(comment),
                }
                continue;
            }
            if text.is_empty() {
                comments.clear();
                continue;
            }
            let start = physical.start + physical.text.len() - text.len();
            let comment = (!comments.is_empty()).then(|| comments.join("\n"));
            return Some(self.continued(text, start, comment));
        }
    }

    /// The instruction that begins with `text`. It is empty where nothing but escape characters follows.
    fn continued(&mut self, text: &str, start: usize, comment: Option<String>) -> Line {
        let whole = Span::new(start, start + text.trim_end().len());
        let mut line = Line { text: String::new(), comment, empty_continuations: Vec::new(), whole, pieces: Vec::new() };
        let (text, mut continues) = self.split_continuation(text);
        line.push(text, start);
        while continues {
            let Some(physical) = self.next() else { break };
            line.whole.end = physical.start + physical.text.trim_end().len();
            let trimmed = physical.text.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                line.empty_continuations.push(Span::new(physical.start, physical.start + physical.text.len()));
                continue;
            }
            let text;
            (text, continues) = self.split_continuation(physical.text);
            line.push(text, physical.start);
        }
        line
    }

    /// Takes the body of a heredoc that ends with the line `delimiter`.
    pub(super) fn heredoc(&mut self, delimiter: &str, strip_tabs: bool) -> Body {
        let start = self.at;
        let mut body = String::new();
        let mut content_end = start;
        let mut near = None;
        while let Some(line) = self.next() {
            let (text, whole) = match strip_tabs {
                true => (line.text.trim_start_matches('\t'), line.whole.trim_start_matches('\t')),
                false => (line.text, line.whole),
            };
            if text == delimiter {
                let end = Some(line.start + line.text.len());
                return Body { body: Spanned::new(body, Span::new(start, content_end)), end, near };
            }
            if near.is_none() && text.len() > delimiter.len() && text.trim() == delimiter {
                near = Some(Span::new(line.start, line.start + line.text.len()));
            }
            body.push_str(whole);
            content_end = self.at;
        }
        Body { body: Spanned::new(body, Span::new(start, content_end)), end: None, near }
    }

    /// The text before a continuation character at the end of `text`, and whether there is one.
    fn split_continuation<'t>(&self, text: &'t str) -> (&'t str, bool) {
        let Some(before) = text.trim_end_matches([' ', '\t']).strip_suffix(self.escape) else { return (text, false) };
        // Two escape characters are one that is escaped.
        if before.ends_with(self.escape) { (text, false) } else { (before, true) }
    }
}
