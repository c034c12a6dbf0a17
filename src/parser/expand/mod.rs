//! Expansion of variables: an unexpanded word and a set of variables to a string.
//!
//! A word is first read to a template (nom parsers), which finds every mistake of syntax, and then evaluated. As in BuildKit, evaluation is eager: the `w` of
//! `${n:-w}` is looked at also when it is not needed, so that `${A:-${B:?no B}}` fails without `B` whatever `A` is.
//!
//! What is expanded where (and when) is the graph's business.

mod evaluate;
mod hints;
mod pattern;
mod template;
mod unicode;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;

use super::Word;
use crate::diag::{Diagnostic, SourceFile, Span};

/// Where the values of variables come from.
pub trait Variables {
    /// The value of `name`, or `None` where it is not set.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Variables for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// How quotes, escapes and blanks of a word are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One word: quotes and escapes are removed.
    Word,
    /// Bodies of `COPY` and `ADD` heredocs: quotes are ordinary characters. Pass `\` as the escape character, whatever the file's is.
    Heredoc,
    /// As `Word`, then split at unquoted blanks, also those that come from variables (`EXPOSE`).
    Split,
}

/// What expansion made of a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The whole text.
    pub text: String,
    /// The words of the text; filled only in [`Mode::Split`].
    pub words: Vec<String>,
    /// Names that were looked up and are set, each once, in order.
    pub used: Vec<String>,
    /// Names that were looked up and are not set, each once, in order: also those with a fallback (`${n:-w}`), and those in a fallback that is not needed.
    pub undefined: Vec<String>,
}

/// Why a word cannot be expanded, and which bytes of the word are to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpandError {
    /// Bytes of the word's text.
    pub range: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl ExpandError {
    pub(super) fn new(range: Range<usize>, message: impl Into<String>) -> ExpandError {
        ExpandError { range, message: message.into(), hint: None }
    }
}

/// Expands the variables of `word`; `escape` is the escape character of the file.
pub fn expand(word: &str, escape: char, variables: &dyn Variables, mode: Mode) -> Result<Expanded, ExpandError> {
    if !word.contains(['$', '\'', '"', escape]) && mode != Mode::Split {
        return Ok(Expanded { text: word.to_owned(), ..Expanded::default() });
    }
    let parts = template::parse(word, escape, mode == Mode::Heredoc)?;
    evaluate::evaluate(&parts, escape, variables, mode == Mode::Split)
}

impl Word {
    /// Expands the variables of the word.
    pub fn expand(&self, escape: char, variables: &dyn Variables, mode: Mode) -> Result<Expanded, ExpandError> {
        expand(&self.text, escape, variables, mode)
    }

    /// The names of the variables that the word mentions, sorted; nothing where the word's syntax is wrong.
    pub fn variables(&self, escape: char) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        if !self.text.contains('$') {
            return names;
        }
        if let Ok(parts) = template::parse(&self.text, escape, false) {
            template::names(&parts, &mut names);
        }
        names
    }

    /// The diagnostic for an error of this word's expansion; `file` is the file that the word is from.
    pub fn diagnostic(&self, file: &SourceFile, error: &ExpandError) -> Diagnostic {
        // Joined lines and JSON escapes hide where a part of the word stands.
        let span = match file.slice(self.span) == self.text {
            true => Span::new(self.span.start() + error.range.start, self.span.start() + error.range.end),
            false => self.span,
        };
        let mut diagnostic = Diagnostic::error(file, span, &error.message);
        diagnostic.hint.clone_from(&error.hint);
        diagnostic
    }

    /// Whether expansion leaves the word as it is.
    pub fn is_plain(&self, escape: char) -> bool {
        !self.text.contains(['$', '\'', '"', escape])
    }
}
