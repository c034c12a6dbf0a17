//! Physical lines to logical lines, written by hand: continuations, comments and heredoc bodies depend on what came before, line by line.
//!
//! A [`Line`] is one instruction with its continuations joined and comments dropped. It keeps a map back to the file, so that a range of its text
//! has a [`Span`] even where the instruction goes over several physical lines. Everything here reads each byte a fixed number of times.

use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use crate::diag::{SourceFile, Span, Spanned};

use super::words;

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

/// An instruction as one line. One serves for all instructions of a file, so that its memory is allocated once.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Continuations joined, comments dropped, leading blanks removed.
    pub(super) text: String,
    /// The comment lines directly above, joined by line breaks.
    comment: String,
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
    /// The comment lines directly above.
    pub(super) fn comment(&self) -> Option<Box<str>> {
        (!self.comment.is_empty()).then(|| self.comment.as_str().into())
    }

    /// Adds a comment line.
    fn comment_with(&mut self, comment: &str) {
        // An empty comment parts what is above it from the instruction.
        if comment.is_empty() {
            return self.comment.clear();
        }
        if !self.comment.is_empty() {
            self.comment.push('\n');
        }
        self.comment.push_str(comment);
    }

    fn push(&mut self, text: &str, file: usize) {
        if !text.is_empty() || self.pieces.is_empty() {
            self.pieces.push(Piece { text: self.text.len(), file });
            self.text.push_str(text);
        }
    }

    /// Where a range of the text was written.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        // Most instructions have a line to themselves.
        if let [only] = self.pieces.as_slice() {
            return Span::new(only.file + range.start, only.file + range.end);
        }
        if range.is_empty() {
            // An empty range stands behind the character before it.
            let at = if range.start == 0 { self.offset(0) } else { self.offset(range.start - 1) + 1 };
            return Span::new(at, at);
        }
        let (start, contiguous) = self.place(range.start);
        let end = if range.end <= contiguous { start + range.len() } else { self.offset(range.end - 1) + 1 };
        Span::new(start, end)
    }

    /// Where a range of the text was written, if it stands there just so.
    pub(super) fn in_file(&self, range: Range<usize>) -> Option<Span> {
        (self.pieces.len() == 1).then(|| self.span(range))
    }

    /// Where a byte of the text was written.
    fn offset(&self, at: usize) -> usize {
        self.place(at).0
    }

    /// Where a byte of the text was written, and up to which one the text goes on there as in the file.
    fn place(&self, at: usize) -> (usize, usize) {
        let behind = self.pieces.partition_point(|piece| piece.text <= at).max(1);
        let contiguous = self.pieces.get(behind).map_or(self.text.len(), |next| next.text);
        (self.pieces.get(behind - 1).map_or(0, |piece| piece.file + (at - piece.text)), contiguous)
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
    /// An ASCII character.
    escape: u8,
    /// Where each text stands as a line for the last time; filled when it is first needed.
    last_lines: Option<Rc<HashMap<&'a str, usize>>>,
}

impl<'a> Lexer<'a> {
    /// Begins behind the byte order mark, if there is one.
    pub(super) fn new(file: &'a SourceFile) -> Lexer<'a> {
        let at = if file.text().starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Lexer { text: file.text(), at, escape: b'\\', last_lines: None }
    }

    /// `escape` is an ASCII character.
    pub(super) fn set_escape(&mut self, escape: char) {
        self.escape = escape as u8;
    }

    /// All that has not been read.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// Whether one of the lines that have not been read is `text`.
    pub(super) fn has_line(&mut self, text: &str) -> bool {
        if self.last_lines.is_none() {
            let mut rest = self.clone();
            self.last_lines = Some(Rc::new(std::iter::from_fn(|| rest.next()).map(|line| (line.text, line.start)).collect()));
        }
        self.last_lines.as_ref().and_then(|lines| lines.get(text)).is_some_and(|start| *start >= self.at)
    }

    /// Looks at the next physical line.
    pub(super) fn peek(&self) -> Option<PhysicalLine<'a>> {
        let rest = &self.text[self.at..];
        if rest.is_empty() {
            return None;
        }
        let (mut text, whole) = memchr::memchr(b'\n', rest.as_bytes()).map_or((rest, rest), |end| (&rest[..end], &rest[..=end]));
        while let Some(shorter) = text.strip_suffix('\r') {
            text = shorter;
        }
        Some(PhysicalLine { text, whole, start: self.at })
    }

    /// Takes the next physical line.
    pub(super) fn next(&mut self) -> Option<PhysicalLine<'a>> {
        let line = self.peek()?;
        self.at += line.whole.len();
        Some(line)
    }

    /// Takes the next instruction; blank lines and comments before it are skipped. `None` at the end of the file.
    pub(super) fn instruction(&mut self, line: &mut Line) -> Option<()> {
        line.text.clear();
        line.comment.clear();
        line.empty_continuations.clear();
        line.pieces.clear();
        loop {
            let physical = self.next()?;
            let text = words::trim_start(physical.text);
            if let Some(comment) = text.strip_prefix('#') {
                line.comment_with(comment.trim());
            } else if text.is_empty() {
                line.comment.clear();
            } else {
                self.continued(text, physical.start + physical.text.len() - text.len(), line);
                return Some(());
            }
        }
    }

    /// The instruction that begins with `text`. It is empty where nothing but escape characters follows.
    fn continued(&mut self, text: &str, start: usize, line: &mut Line) {
        let mut end = start + words::trim_end(text).len();
        let (text, mut continues) = self.split_continuation(text);
        line.push(text, start);
        while continues {
            let Some(physical) = self.next() else { break };
            end = physical.start + words::trim_end(physical.text).len();
            let trimmed = words::trim_start(physical.text);
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
        line.whole = Span::new(start, end);
    }

    /// Takes the body of a heredoc that ends with the line `delimiter`.
    pub(super) fn heredoc(&mut self, delimiter: &str, strip_tabs: bool) -> Body {
        let start = self.at;
        let (mut content_end, mut end, mut near) = (start, None, None);
        while let Some(line) = self.next() {
            let text = if strip_tabs { line.text.trim_start_matches('\t') } else { line.text };
            if text == delimiter {
                end = Some(line.start + line.text.len());
                break;
            }
            if near.is_none() && text.len() > delimiter.len() && words::trim_start(text).starts_with(delimiter) && text.trim() == delimiter
            {
                near = Some(Span::new(line.start, line.start + line.text.len()));
            }
            content_end = self.at;
        }
        let written = &self.text[start..content_end];
        let body = match strip_tabs {
            true => {
                let mut body = String::with_capacity(written.len());
                body.extend(written.split_inclusive('\n').map(|line| line.trim_start_matches('\t')));
                body
            }
            false => written.to_owned(),
        };
        Body { body: Spanned::new(body, Span::new(start, content_end)), end, near }
    }

    /// The text before a continuation character at the end of `text`, and whether there is one.
    fn split_continuation<'t>(&self, text: &'t str) -> (&'t str, bool) {
        let bytes = text.as_bytes();
        let length = bytes.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
        match bytes[..length] {
            // Two escape characters are one that is escaped.
            [.., before, last] if last == self.escape && before != self.escape => (&text[..length - 1], true),
            [last] if last == self.escape => ("", true),
            _ => (text, false),
        }
    }
}
