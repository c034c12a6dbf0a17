//! Whole files: directives, then instruction after instruction, sorted into stages.

use crate::diag::{Diagnostic, RuleId, SourceFile, Span};

use super::ast::{Dockerfile, From, Instruction, Stage, Statement, Word};
use super::directives;
use super::instruction::{self, Read};
use super::lexer::{Lexer, Line};
use super::scope::{MAX_DIAGNOSTICS, MAX_WARNINGS};

/// A file's tree and what is wrong with it. The tree is whole only where no diagnostic is an error.
#[derive(Debug)]
pub struct Parsed {
    /// The tree; statements with mistakes are missing.
    pub dockerfile: Dockerfile,
    /// Mistakes and warnings, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses a Dockerfile.
pub fn parse(file: &SourceFile) -> Parsed {
    let mut diagnostics = Vec::new();
    let mut lexer = Lexer::new(file);
    let directives = directives::parse(&mut lexer, file, &mut diagnostics);
    let dockerfile = Dockerfile { file: file.clone(), directives, global_args: Vec::new(), stages: Vec::new() };
    let mut reader = Reader { dockerfile, diagnostics, instructions: 0, orphans: 0 };
    while let Some(line) = lexer.instruction() {
        if reader.diagnostics.len() >= MAX_DIAGNOSTICS {
            reader.diagnostics.push(Diagnostic::error(file, line.span(0..line.text.len()), "too many mistakes; the rest is not read"));
            break;
        }
        reader.line(&mut lexer, &line);
        lexer.recycle(line);
    }
    reader.finish()
}

/// Parses an `ONBUILD` trigger as it is stored in an image's config. Spans are bytes of `SourceFile::new(label, text)`.
pub fn parse_trigger(text: &str, label: &str) -> Result<Statement, Vec<Diagnostic>> {
    let file = SourceFile::new(label, text);
    let mut diagnostics = Vec::new();
    let mut lexer = Lexer::new(&file);
    let mut statements = Vec::new();
    while let Some(line) = lexer.instruction() {
        if diagnostics.len() >= MAX_DIAGNOSTICS {
            break;
        }
        warn_of_empty_lines(&line, &file, &mut diagnostics);
        match instruction::read(&mut lexer, &file, &line, '\\', &mut diagnostics) {
            Read { statement: Some(statement), .. } if matches!(statement.instruction, Instruction::Onbuild(_)) => {
                diagnostics.push(Diagnostic::error(&file, statement.keyword.span, "`ONBUILD` cannot trigger another `ONBUILD`"));
            }
            Read { keyword: Some(keyword @ ("FROM" | "MAINTAINER")), .. } => {
                let span = line.span(0..line.text.len());
                diagnostics.push(Diagnostic::error(&file, span, format!("`{keyword}` cannot be triggered by `ONBUILD`")));
            }
            Read { statement, .. } => statements.extend(statement),
        }
    }
    let whole = Span::new(0, text.len());
    if diagnostics.iter().any(Diagnostic::is_error) {
        return Err(diagnostics);
    }
    let mut statements = statements.into_iter();
    match (statements.next(), statements.next()) {
        (Some(statement), None) => Ok(statement),
        (None, _) => Err(vec![Diagnostic::error(&file, whole, "the trigger holds no instruction")]),
        (Some(_), Some(second)) => Err(vec![Diagnostic::error(&file, second.span, "a trigger is a single instruction")]),
    }
}

/// Sorts statements into the tree.
struct Reader {
    dockerfile: Dockerfile,
    diagnostics: Vec<Diagnostic>,
    instructions: usize,
    /// Instructions that stand before the first stage and may not.
    orphans: usize,
}

impl Reader {
    fn line(&mut self, lexer: &mut Lexer<'_>, line: &Line) {
        let file = self.dockerfile.file.clone();
        self.instructions += 1;
        warn_of_empty_lines(line, &file, &mut self.diagnostics);
        let Read { statement, keyword, keyword_span } =
            instruction::read(lexer, &file, line, self.dockerfile.directives.escape, &mut self.diagnostics);
        if keyword == Some("FROM") {
            self.stage(statement, line, keyword_span);
            return;
        }
        let Some(stage) = self.dockerfile.stages.last_mut() else {
            return self.global(statement, keyword, keyword_span);
        };
        stage.instructions.extend(statement);
    }

    /// An instruction before the first `FROM`.
    fn global(&mut self, statement: Option<Statement>, keyword: Option<&'static str>, keyword_span: Span) {
        match keyword {
            Some("ARG") => self.dockerfile.global_args.extend(statement),
            Some(keyword) => {
                self.orphans += 1;
                // One is enough to say what is missing.
                if self.orphans == 1 {
                    let message = format!("`{keyword}` stands before the first `FROM`");
                    let diagnostic = Diagnostic::error(&self.dockerfile.file, keyword_span, message);
                    self.diagnostics.push(diagnostic.with_hint("a stage begins with `FROM`; only `ARG` may stand before it"));
                }
            }
            None => {}
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
                let from = From { platform: None, image: Word { text: String::new(), span: keyword_span }, name: None };
                let statement = Statement {
                    instruction: Instruction::From(from.clone()),
                    keyword: crate::diag::Spanned::new("FROM".to_owned(), keyword_span),
                    span: line.span(0..line.text.len()),
                    original: line.text.clone(),
                    comment: line.comment.clone(),
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
        } else if self.dockerfile.stages.is_empty() && self.orphans == 0 && self.diagnostics.len() <= MAX_DIAGNOSTICS {
            Some("the Dockerfile has no `FROM`")
        } else {
            None
        };
        if let Some(message) = missing {
            let hint = "it needs at least a `FROM`, such as `FROM scratch`";
            self.diagnostics.push(Diagnostic::error(file, end, message).with_hint(hint));
        }
        self.diagnostics.sort_by_key(|diagnostic| diagnostic.span.start);
        Parsed { dockerfile: self.dockerfile, diagnostics: self.diagnostics }
    }
}

fn warn_of_empty_lines(line: &Line, file: &SourceFile, diagnostics: &mut Vec<Diagnostic>) {
    let Some(first) = line.empty_continuations.first() else { return };
    if diagnostics.len() >= MAX_WARNINGS {
        return;
    }
    let keyword = line.text.find(char::is_whitespace).unwrap_or(line.text.len());
    diagnostics.push(
        Diagnostic::warning(file, *first, "empty line inside of an instruction")
            .with_rule(RuleId("NoEmptyContinuation"))
            .with_related(line.span(0..keyword), "the instruction begins here")
            .with_hint("remove the line, or make it a comment"),
    );
}
