//! What the parsers of single instructions share: the line, the file, and where to report mistakes.

use std::ops::Range;

use crate::diag::{Diagnostic, Severity, SourceFile, Span};

use super::ast::Word;
use super::flags::Flags;
use super::lexer::Line;
use super::words;

/// Diagnostics that are kept; with more, the file is not meant to be a Dockerfile, and is read no further.
pub(super) const MAX_DIAGNOSTICS: usize = 1000;

/// Diagnostics up to which warnings are kept, so that warnings alone never stop the parser.
pub(super) const MAX_WARNINGS: usize = 500;

/// One instruction that is being read. Ranges are bytes of the line's text.
pub(super) struct Scope<'a> {
    /// The file.
    pub(super) file: &'a SourceFile,
    /// The line.
    pub(super) line: &'a Line,
    /// The keyword in capitals, for messages.
    pub(super) keyword: &'static str,
    /// The escape character.
    pub(super) escape: char,
    /// Where mistakes go.
    pub(super) found: &'a mut Found,
    /// Whether this is what an `ONBUILD` stores: a mistake in it is one of the build that it is triggered in.
    pub(super) trigger: bool,
    /// The mistakes of this instruction.
    pub(super) mistakes: usize,
    /// The flags that were checked last.
    pub(super) flags: &'a mut Flags,
    /// Words of the line, while they are counted.
    pub(super) words: &'a mut Vec<Range<usize>>,
}

/// Memory that all instructions of a file use, one after the other.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    flags: Flags,
    words: Vec<Range<usize>>,
}

/// What is wrong with a file.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Mistakes and warnings.
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Mistakes that make a build fail only where it reaches them: they are shown when the file has to be mended anyway.
    pub(super) deferred: Vec<Diagnostic>,
}

impl Found {
    /// Adds a diagnostic, unless there are far too many already.
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        let limit = if diagnostic.is_error() { MAX_DIAGNOSTICS } else { MAX_WARNINGS };
        if self.diagnostics.len() < limit {
            self.diagnostics.push(diagnostic);
        }
    }
}

impl<'a> Scope<'a> {
    /// Begins to read the instruction on `line`, in a file whose escape character is `escape`.
    pub(super) fn new(file: &'a SourceFile, line: &'a Line, escape: char, found: &'a mut Found, buffers: &'a mut Buffers) -> Scope<'a> {
        let Buffers { flags, words } = buffers;
        Scope { file, line, keyword: "", escape, found, trigger: false, mistakes: 0, flags, words }
    }

    pub(super) fn text(&self, range: Range<usize>) -> &'a str {
        &self.line.text[range]
    }

    pub(super) fn span(&self, range: Range<usize>) -> Span {
        self.line.span(range)
    }

    pub(super) fn word(&self, range: Range<usize>) -> Word {
        Word { text: self.text(range.clone()).into(), span: self.span(range) }
    }

    /// The words of `range` that blanks part.
    pub(super) fn words_at_blanks(&mut self, range: Range<usize>) -> Vec<Word> {
        // Counted first, since there may be a million.
        self.words.clear();
        self.words.extend(words::at_blanks(&self.line.text, range));
        let mut found = Vec::with_capacity(self.words.len());
        found.extend(self.words.iter().map(|range| self.word(range.clone())));
        found
    }

    pub(super) fn error(&self, range: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.file, self.span(range), message)
    }

    pub(super) fn warning(&self, range: Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(self.file, self.span(range), message)
    }

    /// Adds a mistake or a warning.
    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        if !diagnostic.is_error() {
            self.found.push(diagnostic);
        } else if self.trigger {
            self.mistakes += 1;
            let message = format!("this is stored, and fails the build that it is triggered in: {}", diagnostic.message);
            self.found.push(Diagnostic { severity: Severity::Warning, message, ..diagnostic });
        } else {
            self.refuse(diagnostic);
        }
    }

    /// Adds a mistake that not even an `ONBUILD` may hold: the line cannot be taken apart.
    pub(super) fn refuse(&mut self, diagnostic: Diagnostic) {
        self.mistakes += 1;
        self.found.push(diagnostic);
    }

    /// Adds a mistake that matters only where the instruction is reached.
    pub(super) fn defer(&mut self, diagnostic: Diagnostic) {
        if self.trigger {
            self.report(diagnostic);
        } else if self.found.deferred.len() < MAX_WARNINGS {
            self.found.deferred.push(diagnostic);
        }
    }

    /// Whether further diagnostics are dropped.
    pub(super) fn is_full(&self) -> bool {
        self.found.diagnostics.len() >= MAX_DIAGNOSTICS
    }

    /// Reports an error, and gives up on the instruction.
    pub(super) fn fail<T>(&mut self, range: Range<usize>, message: impl Into<String>) -> Option<T> {
        self.report(self.error(range, message));
        None
    }

    /// As [`Scope::fail`], with a hint.
    pub(super) fn fail_with<T>(&mut self, range: Range<usize>, message: impl Into<String>, hint: impl Into<String>) -> Option<T> {
        self.report(self.error(range, message).with_hint(hint));
        None
    }
}
