//! Splits the arguments of an instruction to words.
//!
//! There are two ways: at blanks alone (`FROM`, `EXPOSE`, `COPY`), and at blanks outside of quotes (`ENV`, `LABEL`, `ARG`). Both keep quotes and
//! escapes: those are removed when variables are expanded.

use std::ops::Range;

/// Whether the character separates words in instructions that know no quotes.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// As [`is_blank`]; no byte of a longer character is one.
pub(super) fn is_blank_byte(byte: u8) -> bool {
    is_blank(char::from(byte))
}

/// As `str::trim_start`; mostly there is nothing to do, or a few blanks to pass over.
pub(super) fn trim_start(text: &str) -> &str {
    let bytes = text.as_bytes();
    let blanks = bytes.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    if bytes.get(blanks).is_some_and(u8::is_ascii_graphic) { &text[blanks..] } else { text.trim_start() }
}

/// As `str::trim_end`; mostly there is nothing to do.
pub(super) fn trim_end(text: &str) -> &str {
    if text.as_bytes().last().is_some_and(u8::is_ascii_graphic) { text } else { text.trim_end() }
}

/// The range of `text[range]` without blanks at its ends.
pub(super) fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let start = range.end - trim_start(&text[range.clone()]).len();
    start..start + trim_end(&text[start..range.end]).len()
}

/// Splits at blanks.
pub(super) fn at_blanks(text: &str, range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let bytes = &text.as_bytes()[..range.end];
    let mut at = range.start;
    std::iter::from_fn(move || {
        let start = at + bytes.get(at..)?.iter().position(|byte| !is_blank_byte(*byte))?;
        let end = bytes[start..].iter().position(|byte| is_blank_byte(*byte)).map_or(bytes.len(), |length| start + length);
        at = end;
        Some(start..end)
    })
}

/// Whether an ASCII character is none of blanks, quotes and escape characters.
const PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        plain[byte as usize] = !matches!(byte, b'\'' | b'"' | b'\\' | b'`');
        byte += 1;
    }
    plain
};

/// Splits at blanks that are neither quoted nor escaped; `words` are replaced.
pub(super) fn quoted(text: &str, range: Range<usize>, escape: char, words: &mut Vec<Range<usize>>) {
    words.clear();
    let mut start = None;
    let mut quote: Option<u8> = None;
    let (bytes, escape) = (&text.as_bytes()[..range.end], escape as u8);
    let mut at = range.start;
    while at < range.end {
        let byte = bytes[at];
        let mut length = 1;
        if quote.is_none() {
            let blank = match byte.is_ascii() {
                true => matches!(byte, b' ' | 0x09..=0x0d),
                false => {
                    let c = text[at..].chars().next().unwrap_or_default();
                    length = c.len_utf8();
                    c.is_whitespace()
                }
            };
            if blank {
                words.extend(start.take().map(|from| from..at));
                at += length;
                continue;
            }
        }
        start.get_or_insert(at);
        match quote {
            Some(open) if byte == open => quote = None,
            Some(b'\'') => {}
            _ if byte == escape && at + 1 == range.end => {
                // With nothing behind it, it is dropped.
                words.extend(start.take().map(|from| from..at).filter(|word| !word.is_empty()));
            }
            // The character behind it stands for itself.
            _ if byte == escape => length += text[at + 1..range.end].chars().next().map_or(0, char::len_utf8),
            None if byte == b'\'' || byte == b'"' => quote = Some(byte),
            _ => {}
        }
        at += length;
        // On over what is special nowhere.
        at = bytes[at..].iter().position(|byte| !PLAIN[usize::from(*byte)]).map_or(range.end, |length| at + length);
    }
    words.extend(start.map(|from| from..range.end));
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
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().map(|c| if c == '\u{130}' { 'i' } else { c.to_lowercase().next().unwrap_or(c) }).collect()
}
