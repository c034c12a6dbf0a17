//! Splits the arguments of an instruction to words.
//!
//! There are two ways: at blanks alone (`FROM`, `EXPOSE`, `COPY`), and at blanks outside of quotes (`ENV`, `LABEL`, `ARG`). Both keep quotes and
//! escapes: those are removed when variables are expanded.

use std::ops::Range;

/// Whether the character separates words in instructions that know no quotes.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// The range of `text[range]` without blanks at its ends.
pub(super) fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..(start + part.trim().len())
}

/// Splits at blanks.
pub(super) fn at_blanks(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let base = range.start;
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in text[range.clone()].char_indices() {
        match (is_blank(c), start) {
            (true, Some(from)) => {
                words.push(from..base + at);
                start = None;
            }
            (false, None) => start = Some(base + at),
            _ => {}
        }
    }
    words.extend(start.map(|from| from..range.end));
    words
}

/// Splits at blanks that are neither quoted nor escaped.
pub(super) fn quoted(text: &str, range: Range<usize>, escape: char) -> Vec<Range<usize>> {
    let base = range.start;
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut chars = text[range.clone()].char_indices();
    while let Some((at, c)) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            words.extend(start.take().map(|from| from..base + at));
            continue;
        }
        start.get_or_insert(base + at);
        match quote {
            Some(open) if c == open => quote = None,
            Some('\'') => {}
            _ if c == escape && chars.next().is_none() => {
                // With nothing behind it, it is dropped.
                words.extend(start.take().map(|from| from..base + at).filter(|word| !word.is_empty()));
            }
            _ if c == escape => {}
            None if c == '\'' || c == '"' => quote = Some(c),
            _ => {}
        }
    }
    words.extend(start.map(|from| from..range.end));
    words
}

/// The text for a message: cut where it is long.
pub(super) fn shown(text: &str) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Whether the character looks like a blank, or like nothing, and parts no words.
pub(super) fn is_odd_blank(c: char) -> bool {
    !c.is_ascii() && (c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{2060}'))
}

/// Whether `written` is the keyword `keyword`, in any case. The two letters beyond ASCII whose small form is an ASCII letter count as well.
pub(super) fn is_keyword(written: &str, keyword: &str) -> bool {
    written.eq_ignore_ascii_case(keyword) || (!written.is_ascii() && lower(written).eq_ignore_ascii_case(keyword))
}

/// The text in small letters, each letter by itself.
pub(super) fn lower(text: &str) -> String {
    text.chars().map(|c| if c == '\u{130}' { 'i' } else { c.to_lowercase().next().unwrap_or(c) }).collect()
}
