//! The words of a line as BuildKit's shell lexer splits them: at blanks outside of quotes, where a substitution may hold blanks, too.
//!
//! Only heredocs need this. Nothing is expanded: variables stay as they are written. What the lexer cannot read (`${a[@]}`, a quote that is never closed)
//! is a mistake of the whole line. Substitutions nest on a stack of our own, so that depth costs no recursion, and each byte is looked at once.

use std::ops::Range;

/// What of quotes and backslashes stays in the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keep {
    /// Quotes.
    pub(super) quotes: bool,
    /// Backslashes that escape.
    pub(super) escapes: bool,
}

/// One word.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ShellWord {
    /// Its text.
    pub(super) text: String,
    /// Where it stands.
    pub(super) range: Range<usize>,
}

/// Why a text cannot be split.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unreadable {
    /// What is wrong, for a message.
    pub(super) reason: &'static str,
    /// Where the quote or substitution begins.
    pub(super) at: usize,
}

/// Splits `text` to words.
pub(super) fn words(text: &str, keep: Keep) -> Result<Vec<ShellWord>, Unreadable> {
    let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let splitter = Splitter {
        text,
        at,
        keep,
        escapes: keep.escapes,
        open: Vec::new(),
        piece: String::new(),
        piece_start: 0,
        quoted: false,
        word: String::new(),
        word_start: 0,
        words: Vec::new(),
    };
    splitter.split()
}

/// What is open.
#[derive(Clone, Copy, Debug)]
enum Open {
    /// A substitution's word, up to a character.
    Until {
        /// The character that ends it.
        end: char,
        /// Whether backslashes were kept outside of it.
        escapes: bool,
        /// Where the substitution begins.
        at: usize,
    },
    /// Double quotes, and where they begin.
    Double(usize),
}

struct Splitter<'a> {
    text: &'a str,
    at: usize,
    keep: Keep,
    /// Whether backslashes are kept here.
    escapes: bool,
    open: Vec<Open>,
    /// What stands in the outermost quotes or substitution.
    piece: String,
    piece_start: usize,
    /// Whether the piece is quoted: it is never split then.
    quoted: bool,
    word: String,
    word_start: usize,
    words: Vec<ShellWord>,
}

impl Splitter<'_> {
    fn split(mut self) -> Result<Vec<ShellWord>, Unreadable> {
        loop {
            match self.open.last().copied() {
                None => {
                    self.plain();
                    let Some(c) = self.peek() else { break };
                    self.outside(c)?;
                }
                Some(Open::Until { end, escapes, at }) => self.until(end, escapes, at)?,
                Some(Open::Double(at)) => self.double(at)?,
            }
            if self.open.is_empty() {
                self.flush();
            }
        }
        self.end_word(self.at);
        Ok(self.words)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Goes over what stands for itself: most of a line.
    fn plain(&mut self) {
        let rest = &self.text[self.at..];
        let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'$' | b'\'' | b'"' | b'\\');
        let length = rest.bytes().position(|byte| !is_plain(&byte)).unwrap_or(rest.len());
        if length > 0 {
            self.begin_word(self.at);
            self.word.push_str(&rest[..length]);
            self.at += length;
        }
    }

    /// A character that is neither quoted nor part of a substitution.
    fn outside(&mut self, c: char) -> Result<(), Unreadable> {
        let start = self.at;
        if matches!(c, '$' | '\'' | '"') {
            (self.piece_start, self.quoted) = (start, c != '$');
            return self.special(c);
        }
        self.next();
        if c == '\\' {
            if self.escapes {
                self.begin_word(start);
                self.word.push(c);
            }
            if let Some(c) = self.next() {
                self.begin_word(start);
                self.word.push(c);
            }
        } else {
            self.add(c, start, start);
        }
        Ok(())
    }

    /// A quote or a dollar.
    fn special(&mut self, c: char) -> Result<(), Unreadable> {
        let start = self.at;
        match c {
            '$' => self.dollar(),
            '\'' => {
                let rest = &self.text[start + 1..];
                let Some(length) = rest.find('\'') else {
                    return Err(Unreadable { reason: "the single quote is never closed", at: start });
                };
                let (outer, inner) = (&self.text[start..start + length + 2], &rest[..length]);
                self.piece.push_str(if self.keep.quotes { outer } else { inner });
                self.at = start + length + 2;
                Ok(())
            }
            _ => {
                self.next();
                self.quote();
                self.open.push(Open::Double(start));
                Ok(())
            }
        }
    }

    fn quote(&mut self) {
        if self.keep.quotes {
            self.piece.push('"');
        }
    }

    /// One step in a substitution's word.
    fn until(&mut self, end: char, escapes: bool, at: usize) -> Result<(), Unreadable> {
        let open = Unreadable { reason: "the substitution is never closed", at };
        let Some(c) = self.peek() else { return Err(open) };
        if c == end {
            self.next();
            self.open.pop();
            self.piece.push(c);
            self.escapes = escapes;
            if end == '/' {
                self.begin_until('}', true, at);
            }
            return Ok(());
        }
        if matches!(c, '$' | '\'' | '"') {
            return self.special(c);
        }
        self.next();
        if c != '\\' {
            self.piece.push(c);
            return Ok(());
        }
        if self.escapes {
            self.piece.push(c);
        }
        let Some(c) = self.next() else { return Err(open) };
        self.piece.push(c);
        Ok(())
    }

    /// One step in double quotes.
    fn double(&mut self, at: usize) -> Result<(), Unreadable> {
        let open = Unreadable { reason: "the double quote is never closed", at };
        let Some(c) = self.peek() else { return Err(open) };
        match c {
            '"' => {
                self.next();
                self.quote();
                self.open.pop();
            }
            '$' => return self.dollar(),
            '\\' => {
                self.next();
                let mut kept = c;
                if self.escapes {
                    self.piece.push(c);
                }
                match self.peek() {
                    None => return Err(open),
                    Some(escaped @ ('"' | '$' | '\\')) => {
                        self.next();
                        kept = escaped;
                    }
                    Some(_) => {}
                }
                self.piece.push(kept);
            }
            _ => {
                let rest = &self.text[self.at..];
                let length = memchr::memchr3(b'"', b'$', b'\\', rest.as_bytes()).unwrap_or(rest.len());
                self.piece.push_str(&rest[..length]);
                self.at += length;
            }
        }
        Ok(())
    }

    /// A `$` and what belongs to it.
    fn dollar(&mut self) -> Result<(), Unreadable> {
        let at = self.at;
        self.next();
        self.piece.push('$');
        if self.peek() != Some('{') {
            self.name();
            return Ok(());
        }
        self.next();
        self.piece.push('{');
        let bad = |reason| Err(Unreadable { reason, at });
        match self.peek() {
            None => return bad("the substitution is never closed"),
            Some('{' | '}' | ':') => return bad("this is no substitution"),
            Some(_) => self.name(),
        }
        match self.next() {
            None => bad("the substitution is never closed"),
            Some('}') => {
                self.piece.push('}');
                Ok(())
            }
            Some(':') => {
                let Some(modifier) = self.next() else { return bad("the substitution is never closed") };
                self.piece.push(':');
                self.piece.push(modifier);
                self.begin_until('}', matches!(modifier, '#' | '%'), at);
                Ok(())
            }
            Some(modifier @ ('+' | '-' | '?' | '#' | '%')) => {
                self.piece.push(modifier);
                self.begin_until('}', matches!(modifier, '#' | '%'), at);
                Ok(())
            }
            Some('/') => {
                self.piece.push('/');
                if self.peek() == Some('/') {
                    self.next();
                }
                self.begin_until('/', true, at);
                Ok(())
            }
            Some(_) => bad("this kind of substitution is not known"),
        }
    }

    fn begin_until(&mut self, end: char, escapes: bool, at: usize) {
        self.open.push(Open::Until { end, escapes: self.escapes, at });
        self.escapes = escapes;
    }

    /// The name of a variable, or none.
    fn name(&mut self) {
        let rest = &self.text[self.at..];
        let length = match rest.chars().next() {
            Some(c) if c.is_ascii_digit() => rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
        };
        self.piece.push_str(&rest[..length]);
        self.at += length;
    }

    /// Adds what was quoted or substituted to the word.
    fn flush(&mut self) {
        if self.piece.is_empty() {
            return;
        }
        let (piece, start) = (std::mem::take(&mut self.piece), self.piece_start);
        if self.quoted {
            self.begin_word(start);
            self.word.push_str(&piece);
        } else {
            for c in piece.chars() {
                self.add(c, start, self.at);
            }
        }
    }

    fn add(&mut self, c: char, start: usize, end: usize) {
        if c.is_whitespace() {
            self.end_word(end);
        } else {
            self.begin_word(start);
            self.word.push(c);
        }
    }

    fn begin_word(&mut self, start: usize) {
        if self.word.is_empty() {
            self.word_start = start;
        }
    }

    fn end_word(&mut self, end: usize) {
        if !self.word.is_empty() {
            self.words.push(ShellWord { text: std::mem::take(&mut self.word), range: self.word_start..end });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Result<Vec<String>, &'static str> {
        let words = words(text, Keep { quotes: true, escapes: true });
        words.map(|words| words.into_iter().map(|word| word.text).collect()).map_err(|unreadable| unreadable.reason)
    }

    #[test]
    fn words_end_at_blanks_outside_of_quotes() {
        assert_eq!(split("a 'b c' d\\ e \"f $g h\"i").unwrap(), ["a", "'b c'", "d\\ e", "\"f $g h\"i"]);
        assert_eq!(split("  a\u{2003}b\u{a0} ").unwrap(), ["a", "b"]);
    }

    #[test]
    fn blanks_in_a_substitution_end_a_word_unless_it_is_quoted() {
        assert_eq!(split("x${a:-b c}y").unwrap(), ["x${a:-b", "c}y"]);
        assert_eq!(split("\"${a:-b c}\"").unwrap(), ["\"${a:-b c}\""]);
        assert_eq!(split("${a//b/c} ${d%e} $1 $ $$ ${f:-${g}}").unwrap(), ["${a/b/c}", "${d%e}", "$1", "$", "$$", "${f:-${g}}"]);
    }

    #[test]
    fn what_the_lexer_cannot_read_is_named() {
        for (text, reason) in [
            ("it's", "the single quote is never closed"),
            ("\"a", "the double quote is never closed"),
            ("\"a\\", "the double quote is never closed"),
            ("${a", "the substitution is never closed"),
            ("${a:-b", "the substitution is never closed"),
            ("${a/b}", "the substitution is never closed"),
            ("${", "the substitution is never closed"),
            ("${}", "this is no substitution"),
            ("${a[@]}", "this kind of substitution is not known"),
            ("${!a}x${a^}", "this kind of substitution is not known"),
        ] {
            assert_eq!(split(text), Err(reason), "{text}");
        }
    }

    #[test]
    fn words_know_where_they_stand() {
        let text = "RUN 'é' <<EOF ${a:- b}";
        let ranges: Vec<&str> =
            words(text, Keep { quotes: true, escapes: true }).unwrap().iter().map(|word| &text[word.range.clone()]).collect();
        assert_eq!(ranges, ["RUN", "'é'", "<<EOF", "${a:- b}", "${a:- b}"]);
    }
}
