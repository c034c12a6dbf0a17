//! Finds heredocs (`<<WORD`) on a line.
//!
//! Only `RUN`, `COPY` and `ADD` have them, and only in their shell form. The shell's own words are not understood any deeper than quotes, so
//! that a line with a quote that is never closed has no heredocs.

use std::ops::Range;

use nom::bytes::complete::tag;
use nom::character::complete::{char, digit0};
use nom::combinator::{all_consuming, map, opt, rest};
use nom::{IResult, Parser};

use super::words;

/// A `<<WORD` whose body has not been read yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Without quotes.
    pub(super) delimiter: String,
    /// Whether the delimiter had no quotes.
    pub(super) expand: bool,
    /// Whether it was written `<<-`.
    pub(super) strip_tabs: bool,
    /// The number before `<<`.
    pub(super) file_descriptor: Option<u32>,
    /// The bytes of the line.
    pub(super) range: Range<usize>,
}

/// All marks of `text[range]`, in order.
pub(super) fn find(text: &str, range: Range<usize>) -> Vec<Mark> {
    if !text[range.clone()].contains("<<") {
        return Vec::new();
    }
    let words = words::quoted(text, range, '\\');
    if words.open_quote.is_some() {
        return Vec::new();
    }
    words.words.into_iter().filter_map(|range| mark(text, range)).collect()
}

/// Reads the word `text[range]` as a mark.
pub(super) fn mark(text: &str, range: Range<usize>) -> Option<Mark> {
    let (_, (descriptor, strip_tabs, written)) = all_consuming(parts).parse(&text[range.clone()]).ok()?;
    if written.contains('<') {
        return None;
    }
    let delimiter = unquote(written)?;
    let file_descriptor = if descriptor.is_empty() { None } else { Some(descriptor.parse().ok()?) };
    Some(Mark { expand: delimiter == written, delimiter, strip_tabs, file_descriptor, range })
}

fn parts(input: &str) -> IResult<&str, (&str, bool, &str)> {
    map((digit0, tag("<<"), opt(char('-')), rest), |(descriptor, _, dash, word)| (descriptor, dash.is_some(), word)).parse(input)
}

/// The delimiter without quotes and escapes; `None` where that leaves nothing, or it is not one word.
fn unquote(written: &str) -> Option<String> {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        match quote {
            Some(open) if c == open => quote = None,
            Some('\'') => out.push(c),
            Some(_) if c == '\\' => match chars.next() {
                Some(c @ ('"' | '\\' | '$')) => out.push(c),
                other => {
                    out.push('\\');
                    out.extend(other);
                }
            },
            None if c.is_whitespace() => return None,
            None if c == '\\' => out.extend(chars.next()),
            None if c == '\'' || c == '"' => quote = Some(c),
            _ => out.push(c),
        }
    }
    (quote.is_none() && !out.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(word: &str) -> Option<(String, bool, bool, Option<u32>)> {
        mark(word, 0..word.len()).map(|mark| (mark.delimiter, mark.expand, mark.strip_tabs, mark.file_descriptor))
    }

    #[test]
    fn marks_have_a_delimiter_quotes_tabs_and_a_descriptor() {
        assert_eq!(read("<<EOF"), Some(("EOF".into(), true, false, None)));
        assert_eq!(read("<<-EOF"), Some(("EOF".into(), true, true, None)));
        assert_eq!(read("3<<EOF"), Some(("EOF".into(), true, false, Some(3))));
        for quoted in ["<<'EOF'", "<<\"EOF\"", "<<E\"O\"F", "<<E\\OF"] {
            assert_eq!(read(quoted), Some(("EOF".into(), false, false, None)), "{quoted}");
        }
        assert_eq!(read("<<a.txt"), Some(("a.txt".into(), true, false, None)));
    }

    #[test]
    fn words_that_only_look_like_marks_are_not() {
        for word in ["<<", "<<-", "<<<EOF", "<<A<<B", "x<<EOF", "<EOF", "EOF", "<<\"\"", "<<'EOF", "<<EOF cat"] {
            assert_eq!(read(word), None, "{word}");
        }
    }

    #[test]
    fn an_open_quote_hides_all_marks() {
        assert_eq!(find("RUN it's <<EOF", 0..14), vec![]);
        assert_eq!(find("RUN 'x <<A' <<B", 0..15).len(), 1);
    }
}
