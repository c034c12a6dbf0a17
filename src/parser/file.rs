//! Whole files: directives, then instruction after instruction, sorted into stages.

use std::sync::Arc;

use crate::diag::{Diagnostic, MAX_SIZE, RuleId, SourceFile, Span};

use super::ast::{Dockerfile, From, Instruction, LogicalLine, RunMount, Stage, Statement, Text, Word};
use super::directives::{self, Frontend};
use super::instruction::{self, Read};
use super::keyword::Keyword;
use super::lexer::{Lexer, Line};
use super::scope::{Buffers, Found, MAX_DIAGNOSTICS, MAX_WARNINGS, Scope};

/// A file's tree and what is wrong with it. The tree is whole only where no diagnostic is an error.
#[derive(Debug)]
pub struct Parsed {
    /// The tree; statements with mistakes are missing.
    pub dockerfile: Dockerfile,
    /// Mistakes and warnings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// What a build says about how a file is to be read.
#[derive(Clone, Copy, Debug, Default)]
pub struct ParseOptions<'a> {
    /// The frontend that replaces the file's own choice: the build argument `BUILDKIT_SYNTAX`.
    pub syntax: Option<&'a str>,
}

/// Parses a Dockerfile.
pub fn parse(file: &SourceFile) -> Parsed {
    parse_with(file, ParseOptions::default())
}

/// Parses a Dockerfile for a build.
pub fn parse_with(file: &SourceFile, options: ParseOptions<'_>) -> Parsed {
    let mut found = Found::default();
    let mut lexer = Lexer::new(file);
    let (directives, frontend) = directives::parse(&mut lexer, file, options.syntax, &mut found);
    let dockerfile = Dockerfile { file: file.clone(), directives, global_args: Vec::new(), stages: Vec::new() };
    let mut reader =
        Reader { file, dockerfile, found, statements: Vec::new(), instructions: 0, orphans: 0, misspelled: false, full: false };
    let too_large = too_large(file);
    if frontend == Frontend::Foreign || too_large.is_some() {
        // What follows is in another language, or nothing could say where it stands.
        reader.found.diagnostics.extend(too_large);
        return reader.parsed();
    }
    let (mut line, mut buffers) = (Line::default(), Buffers::default());
    while lexer.instruction(&mut line).is_some() {
        if reader.found.diagnostics.len() >= MAX_DIAGNOSTICS {
            let diagnostic = Diagnostic::error(file, line.span(0..line.text.len()), "too many mistakes; the rest is not read");
            reader.found.diagnostics.push(diagnostic);
            reader.full = true;
            break;
        }
        reader.line(&mut lexer, &line, &mut buffers);
    }
    reader.finish()
}

/// Parses an `ONBUILD` trigger as it is stored in an image's config. Spans are bytes of `SourceFile::new(label, text)`.
pub fn parse_trigger(text: &str, label: &str) -> Result<Statement, Vec<Diagnostic>> {
    let file = SourceFile::new(label, text);
    if let Some(diagnostic) = too_large(&file) {
        return Err(vec![diagnostic]);
    }
    let mut found = Found::default();
    let mut lexer = Lexer::new(&file);
    let mut statements = Vec::new();
    let (mut line, mut buffers) = (Line::default(), Buffers::default());
    while lexer.instruction(&mut line).is_some() {
        if found.diagnostics.len() >= MAX_DIAGNOSTICS {
            break;
        }
        warn_of_empty_lines(&line, &file, &mut found);
        let before = statements.len();
        let scope = Scope::new(&file, &line, '\\', &mut found, &mut buffers);
        let Read { keyword, keyword_span } = instruction::read(&mut lexer, scope, &mut statements);
        match keyword {
            Some(Keyword::Onbuild) if statements.len() > before => {
                found.push(Diagnostic::error(&file, keyword_span, "`ONBUILD` cannot trigger another `ONBUILD`"));
            }
            Some(keyword @ (Keyword::From | Keyword::Maintainer)) => {
                let span = line.span(0..line.text.len());
                found.push(Diagnostic::error(&file, span, format!("`{}` cannot be triggered by `ONBUILD`", keyword.name())));
            }
            _ => {}
        }
    }
    let whole = Span::new(0, text.len());
    if found.diagnostics.iter().any(Diagnostic::is_error) {
        return Err(found.diagnostics);
    }
    let mut statements = statements.into_iter();
    match (statements.next(), statements.next()) {
        (Some(mut statement), None) => {
            // The text ends here, and the statement does not.
            statement.line = LogicalLine::Joined(statement.original(&file).into());
            Ok(statement)
        }
        (None, _) => Err(vec![Diagnostic::error(&file, whole, "the trigger holds no instruction")]),
        (Some(_), Some(second)) => Err(vec![Diagnostic::error(&file, second.span, "a trigger is a single instruction")]),
    }
}

/// The most statements of a stage that are copied when it ends.
const SMALL_STAGE: usize = 64;

/// Sorts statements into the tree.
struct Reader<'a> {
    file: &'a SourceFile,
    dockerfile: Dockerfile,
    found: Found,
    /// The statements of the stage that is being read: how many it has is known at its end.
    statements: Vec<Statement>,
    instructions: usize,
    /// Instructions that stand before the first stage and may not.
    orphans: usize,
    /// Whether a `FROM` is misspelled: what follows is not to be blamed.
    misspelled: bool,
    /// Whether the rest of the file was not read.
    full: bool,
}

impl Reader<'_> {
    fn line(&mut self, lexer: &mut Lexer<'_>, line: &Line, buffers: &mut Buffers) {
        self.instructions += 1;
        warn_of_empty_lines(line, self.file, &mut self.found);
        let before = self.statements.len();
        let scope = Scope::new(self.file, line, self.dockerfile.directives.escape, &mut self.found, buffers);
        let Read { keyword, keyword_span } = instruction::read(lexer, scope, &mut self.statements);
        let is_read = self.statements.len() > before;
        if self.file.has_replacements() {
            self.check_encoding(line, is_read);
        }
        if keyword == Some(Keyword::From) {
            let statement = if is_read { self.statements.pop() } else { None };
            self.end_stage();
            self.stage(statement, line, keyword_span);
        } else if self.dockerfile.stages.is_empty() {
            let statement = if is_read { self.statements.pop() } else { None };
            self.global(statement, keyword, keyword_span);
        }
    }

    /// Gives the statements so far to their stage.
    fn end_stage(&mut self) {
        if let Some(stage) = self.dockerfile.stages.last_mut() {
            // A few are copied, so that no room is left; very many are handed over as they are.
            stage.instructions = match self.statements.len() {
                0..=SMALL_STAGE => self.statements.drain(..).collect(),
                _ => std::mem::take(&mut self.statements),
            };
        }
    }

    /// Reports bytes of the instruction that are no text; those in comments do no harm. `is_read` says whether its statement is the last one.
    fn check_encoding(&mut self, line: &Line, is_read: bool) {
        let file = self.file;
        let statement = if is_read { self.statements.last() } else { None };
        let on_line = line.text.match_indices('\u{fffd}').map(|(at, _)| line.span(at..at + '\u{fffd}'.len_utf8()));
        let start = line.whole.start().max(line.span(0..line.text.len()).end());
        let in_heredocs = statement.map(|statement| Span::new(start, statement.span.end())).into_iter().flat_map(|below| {
            let found = if below.end() > line.whole.end() { file.slice(below) } else { "" };
            found.match_indices('\u{fffd}').map(move |(at, text)| Span::new(below.start() + at, below.start() + at + text.len()))
        });
        if let Some(span) = on_line.chain(in_heredocs).find(|span| file.is_replacement(span.start())) {
            // Names of people are in old encodings at times, and these values only go into the image's config, as U+FFFD.
            let only_config = |statement: &Statement| matches!(statement.instruction, Instruction::Maintainer(_) | Instruction::Label(_));
            let diagnostic = match statement.is_some_and(only_config) {
                true => Diagnostic::warning(file, span, "this is not UTF-8, and becomes U+FFFD in the image"),
                false => Diagnostic::error(file, span, "this is not UTF-8, so that it cannot be part of an instruction"),
            };
            self.found.push(diagnostic.with_hint("write the file in UTF-8; any bytes are allowed in comments only"));
        }
    }

    /// An instruction before the first `FROM`.
    fn global(&mut self, statement: Option<Statement>, keyword: Option<Keyword>, keyword_span: Span) {
        match keyword {
            Some(Keyword::Arg) => self.dockerfile.global_args.extend(statement),
            Some(keyword) => {
                self.orphans += 1;
                // One is enough to say what is missing.
                if self.orphans == 1 && !self.misspelled {
                    let message = format!("`{}` stands before the first `FROM`", keyword.name());
                    let diagnostic = Diagnostic::error(&self.dockerfile.file, keyword_span, message);
                    self.found.push(diagnostic.with_hint("a stage begins with `FROM`; only `ARG` may stand before it"));
                }
            }
            None => {
                let suggestion = self.found.diagnostics.last().and_then(|diagnostic| diagnostic.suggestion.as_ref());
                self.misspelled |= suggestion.is_some_and(|suggestion| suggestion.replacement == "FROM");
            }
        }
    }

    /// Begins a stage, also where its `FROM` has a mistake: the instructions behind it are still its own.
    fn stage(&mut self, statement: Option<Statement>, line: &Line, keyword_span: Span) {
        let stage = match statement {
            Some(statement) => match &statement.instruction {
                Instruction::From(from) => Stage { from: from.clone(), statement, instructions: Vec::new() },
                _ => return,
            },
            None => {
                let from = Arc::new(From { platform: None, image: Word { text: Text::default(), span: keyword_span }, name: None });
                let statement = Statement {
                    instruction: Instruction::From(from.clone()),
                    keyword: crate::diag::Spanned::new("FROM".into(), keyword_span),
                    span: line.span(0..line.text.len()),
                    line: LogicalLine::Joined(line.text.as_str().into()),
                    comment: line.comment(),
                };
                Stage { from, statement, instructions: Vec::new() }
            }
        };
        self.dockerfile.stages.push(stage);
    }

    fn finish(mut self) -> Parsed {
        let file = &self.dockerfile.file;
        let end = Span::new(0, file.text().lines().next().unwrap_or_default().len());
        let missing = if self.instructions == 0 {
            let empty = file.text().trim_start_matches('\u{feff}').trim().is_empty();
            Some(if empty { "the Dockerfile is empty" } else { "the Dockerfile has no instructions" })
        } else if self.dockerfile.stages.is_empty() && self.orphans == 0 && !self.misspelled && !self.full {
            Some("the Dockerfile has no `FROM`")
        } else {
            None
        };
        if let Some(message) = missing {
            let hint = "it needs at least a `FROM`, such as `FROM scratch`";
            self.found.diagnostics.push(Diagnostic::error(file, end, message).with_hint(hint));
        }
        self.parsed()
    }

    fn parsed(mut self) -> Parsed {
        self.end_stage();
        let Found { mut diagnostics, deferred } = self.found;
        // A file that is refused shows all its mistakes at once.
        if diagnostics.iter().any(Diagnostic::is_error) && !self.full {
            diagnostics.extend(deferred);
            let mounts =
                self.dockerfile.stages.iter().flat_map(|stage| &stage.instructions).filter_map(|statement| match &statement.instruction {
                    Instruction::Run(run) => Some(&run.mounts),
                    _ => None,
                });
            let mistake = |mount: &Word| RunMount::preview(mount, &self.dockerfile.file).err().map(|diagnostic| *diagnostic);
            diagnostics.extend(mounts.flatten().filter_map(mistake).take(MAX_WARNINGS));
        }
        diagnostics.sort_by_key(|diagnostic| diagnostic.span.start());
        Parsed { dockerfile: self.dockerfile, diagnostics }
    }
}

/// What is wrong with a file that has bytes which no span can name.
fn too_large(file: &SourceFile) -> Option<Diagnostic> {
    let message = || format!("the file has more than {MAX_SIZE} bytes, and cannot be read");
    (file.text().len() > MAX_SIZE).then(|| Diagnostic::error(file, Span::new(0, 0), message()))
}

fn warn_of_empty_lines(line: &Line, file: &SourceFile, found: &mut Found) {
    let Some(first) = line.empty_continuations.first() else { return };
    let keyword = line.text.find(char::is_whitespace).unwrap_or(line.text.len());
    found.push(
        Diagnostic::warning(file, *first, "empty line inside of an instruction")
            .with_rule(RuleId("NoEmptyContinuation"))
            .with_related(line.span(0..keyword), "the instruction begins here")
            .with_hint("remove the line, or make it a comment"),
    );
}
