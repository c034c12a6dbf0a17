//! Finds heredocs (`<<WORD`) on a line.
//!
//! Only `RUN`, `COPY` and `ADD` have them, and only in their shell form. The words of the line are those of the shell lexer: a line that it cannot read
//! has no heredocs at all, whatever stands on it. Blanks may stand between `<<` and its word (not behind `<<-`).

use std::borrow::Cow;
use std::ops::Range;

use super::ast::Text;
use super::shell::{self, Keep, Unreadable};
use super::words;

/// A `<<WORD` whose body has not been read yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Without quotes.
    pub(super) delimiter: Text,
    /// Whether the delimiter had no quotes.
    pub(super) expand: bool,
    /// Whether it was written `<<-`.
    pub(super) strip_tabs: bool,
    /// Whether a blank stands between `<<` and the delimiter.
    pub(super) apart: bool,
    /// The number before `<<`.
    pub(super) file_descriptor: Option<u32>,
}

/// The heredocs of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marks {
    /// In order, with the bytes that each stands in.
    Found(Vec<(Mark, Range<usize>)>),
    /// The line cannot be read, so that there are none.
    Unreadable(Unreadable),
    /// This word begins like a heredoc, and cannot be read.
    BadWord(Range<usize>, &'static str),
}

/// Whether a text holds `<<` at all.
pub(super) fn may_hold_one(text: &str) -> bool {
    memchr::memchr(b'<', text.as_bytes()).is_some_and(|first| text[first..].contains("<<"))
}

/// All marks of a line.
pub(super) fn find(line: &str) -> Marks {
    if !may_hold_one(line) {
        return Marks::Found(Vec::new());
    }
    // Without quotes and substitutions, blanks alone part the words, and these are what is written.
    let is_plain = |byte: u8| matches!(byte, b'\t' | b' '..=b'~') && !matches!(byte, b'$' | b'\'' | b'"' | b'\\');
    if line.bytes().all(is_plain) {
        return marks(line, words::at_blanks(line, 0..line.len()).map(|range| (&line[range.clone()], range)));
    }
    match shell::words(line, Keep { quotes: true, escapes: true }) {
        Ok(words) => marks(line, words.iter().map(|word| (word.text.as_str(), word.range.clone()))),
        Err(unreadable) => Marks::Unreadable(unreadable),
    }
}

/// The words that are marks.
fn marks<'a>(line: &str, words: impl Iterator<Item = (&'a str, Range<usize>)>) -> Marks {
    let mut found = Vec::new();
    for (word, range) in joined(line, words) {
        match mark(&word) {
            Ok(Some(mark)) => found.push((mark, range)),
            Ok(None) => {}
            Err(reason) => return Marks::BadWord(range, reason),
        }
    }
    Marks::Found(found)
}

/// The words, of which one that ends in `<<` takes in the next.
fn joined<'a>(line: &str, words: impl Iterator<Item = (&'a str, Range<usize>)>) -> impl Iterator<Item = (Cow<'a, str>, Range<usize>)> {
    let mut words = words.peekable();
    std::iter::from_fn(move || {
        let (word, mut range) = words.next()?;
        let mut word = Cow::Borrowed(word);
        while word.ends_with("<<") {
            let parted_by_blanks = |next: &Range<usize>| line[range.end..next.start].bytes().all(|byte| matches!(byte, b' ' | b'\t'));
            let Some((next, at)) = words.next_if(|(_, at)| parted_by_blanks(at)) else { break };
            let longer = word.to_mut();
            longer.push(' ');
            longer.push_str(next);
            range.end = at.end;
        }
        Some((word, range))
    })
}

/// Whether a word of the line, split at blanks alone, looks like a heredoc.
pub(super) fn seems_to_hold_one(line: &str) -> bool {
    let words = words::at_blanks(line, 0..line.len()).map(|range| (&line[range.clone()], range));
    joined(line, words).any(|(word, _)| matches!(mark(&word), Ok(Some(_))))
}

/// Reads a word as a mark; fails where its delimiter cannot be read.
pub(super) fn mark(word: &str) -> Result<Option<Mark>, &'static str> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let Some(rest) = word[digits..].strip_prefix("<<") else { return Ok(None) };
    let (strip_tabs, apart) = (rest.starts_with('-'), rest.starts_with([' ', '\t']));
    let written = rest.strip_prefix('-').unwrap_or(rest).trim_start_matches(['\t', '\n', '\u{c}', '\r', ' ']);
    if written.is_empty() || written.contains('<') {
        return Ok(None);
    }
    // How the shell lexer reads a plain word is known.
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    // A number that is too large for a descriptor is one all the same.
    let file_descriptor = (digits > 0).then(|| word[..digits].parse().unwrap_or(u32::MAX));
    if is_plain(written) {
        return Ok(Some(Mark { delimiter: written.into(), expand: true, strip_tabs, apart, file_descriptor }));
    }
    // And so is how it reads one that is quoted as a whole.
    let quoted = |quote| written.strip_prefix(quote)?.strip_suffix(quote).filter(|inner: &&str| !inner.is_empty() && is_plain(inner));
    if let Some(inner) = quoted('"').or_else(|| quoted('\'')) {
        return Ok(Some(Mark { delimiter: inner.into(), expand: false, strip_tabs, apart, file_descriptor }));
    }
    let read = |quotes| shell::words(written, Keep { quotes, escapes: false }).map_err(|unreadable| unreadable.reason);
    let mut plain = read(false)?;
    if plain.len() != 1 {
        return Ok(None);
    }
    let quoted = read(true)?;
    if quoted.len() != 1 {
        return Err("its quotes make it more than one word");
    }
    let quotes = |text: &str| text.bytes().filter(|b| matches!(b, b'\'' | b'"')).count();
    let delimiter = plain.swap_remove(0).text;
    let expand = quotes(&delimiter) == quotes(&quoted[0].text);
    Ok(Some(Mark { delimiter: delimiter.into(), expand, strip_tabs, apart, file_descriptor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(word: &str) -> Option<(String, bool, bool, Option<u32>)> {
        mark(word).unwrap().map(|mark| (mark.delimiter.into(), mark.expand, mark.strip_tabs, mark.file_descriptor))
    }

    fn count(line: &str) -> Option<usize> {
        match find(line) {
            Marks::Found(marks) => Some(marks.len()),
            _ => None,
        }
    }

    #[test]
    fn marks_have_a_delimiter_quotes_tabs_and_a_descriptor() {
        assert_eq!(read("<<EOF"), Some(("EOF".into(), true, false, None)));
        assert_eq!(read("<<-EOF"), Some(("EOF".into(), true, true, None)));
        assert_eq!(read("3<<EOF"), Some(("EOF".into(), true, false, Some(3))));
        assert_eq!(read("99999999999999999999<<EOF"), Some(("EOF".into(), true, false, Some(u32::MAX))));
        for quoted in ["<<'EOF'", "<<\"EOF\"", "<<E\"O\"F", "<<EOF''"] {
            assert_eq!(read(quoted), Some(("EOF".into(), false, false, None)), "{quoted}");
        }
        assert_eq!(read("<<E\\OF"), Some(("EOF".into(), true, false, None)), "a backslash is no quote");
        assert_eq!(read("<<a.txt"), Some(("a.txt".into(), true, false, None)));
        assert_eq!(read("<<\"a b\""), Some(("a b".into(), false, false, None)));
        assert_eq!(read("<<$A"), Some(("$A".into(), true, false, None)));
        assert_eq!(read("<< EOF"), Some(("EOF".into(), true, false, None)), "as an element of a JSON array");
    }

    #[test]
    fn words_that_only_look_like_marks_are_not() {
        for word in ["<<", "<<-", "<<<EOF", "<<A<<B", "x<<EOF", "<EOF", "EOF", "<<\"\"", "<<EOF cat"] {
            assert_eq!(read(word), None, "{word}");
        }
        assert!(mark("<<'EOF").is_err());
    }

    #[test]
    fn a_line_that_cannot_be_read_has_no_marks() {
        assert_eq!(count("RUN it's <<EOF"), None);
        assert_eq!(count("RUN x ${a[@]} <<EOF"), None);
        assert_eq!(count("RUN 'x <<A' <<B $((1<<2))"), Some(1));
        assert!(seems_to_hold_one("RUN it's <<EOF") && !seems_to_hold_one("RUN it's $((1<<2))"));
        assert!(seems_to_hold_one("RUN it's << EOF"));
    }

    #[test]
    fn blanks_may_stand_before_the_delimiter() {
        let delimiters = |line: &str| match find(line) {
            Marks::Found(marks) => {
                marks.iter().map(|(mark, range)| format!("{} at {}", mark.delimiter, &line[range.clone()])).collect::<Vec<_>>()
            }
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(delimiters("RUN cat << E > /x"), ["E at << E"]);
        assert_eq!(delimiters("RUN cat <<  E && cat <<\tF"), ["E at <<  E", "F at <<\tF"]);
        assert_eq!(delimiters("RUN 3<< 'E F' cat"), ["E F at 3<< 'E F'"]);
        assert_eq!(delimiters("RUN echo $((1 << 2))"), ["2)) at << 2))"], "as in BuildKit");
        assert_eq!(delimiters("RUN cat << E << F"), ["E at << E", "F at << F"]);
        for line in [
            "RUN cat <<- E",
            "RUN cat<< E",
            "RUN x << <<E",
            "RUN cat << E<< F",
            "RUN cat <<",
            "RUN x '<<' E",
            "RUN x \\<< E",
            "RUN x <<\u{a0}E",
            "RUN x <<< E",
            "RUN x << \"\"",
        ] {
            assert_eq!(delimiters(line), [""; 0], "{line}");
        }
        assert!(matches!(find("RUN cat << E"), Marks::Found(marks) if marks[0].0.expand));
        assert!(matches!(find("RUN cat << 'E'"), Marks::Found(marks) if !marks[0].0.expand));
    }
}
