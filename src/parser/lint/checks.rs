//! What becomes of findings: the one place that knows which rules are on, for the file and for each instruction.
//!
//! Parser, lint and graph report all that they find. [`Checks::apply`] then drops what `# check=skip=…` rules out, above the whole file or right above an
//! instruction, and what is experimental and was not asked for. Diagnostics without a rule (mistakes, notes) pass.

use std::ops::RangeInclusive;

use super::options::Options;
use crate::diag::{Diagnostic, MAX_SHOWN, SourceFile, Span};
use crate::parser::ast::{Dockerfile, Heredoc, Instruction, Statement};

/// The build checks of one file.
#[derive(Debug)]
pub struct Checks {
    file: SourceFile,
    options: Options,
    /// In the order of the file.
    statements: Vec<Place>,
    /// What is odd about the options.
    notes: Vec<Diagnostic>,
}

/// An instruction, or the `FROM` of a stage.
#[derive(Debug)]
struct Place {
    span: Span,
    /// Where the instruction itself ends, before its heredocs.
    line_end: usize,
    /// What a `# check=` right above it says, with the file's options.
    options: Option<Options>,
}

impl Checks {
    /// The checks of a file. `argument` is the build argument `BUILDKIT_DOCKERFILE_CHECK`, which replaces what the file says.
    ///
    /// # Errors
    /// Options that cannot be read, at their place.
    pub fn new(dockerfile: &Dockerfile, argument: Option<&str>) -> Result<Checks, Diagnostic> {
        let mut notes = Vec::new();
        let options = match (argument, &dockerfile.directives.check) {
            (Some(argument), _) => {
                let file = SourceFile::new("BUILDKIT_DOCKERFILE_CHECK", argument);
                Options::parse(&file, Span::new(0, argument.len()), &mut notes)?
            }
            (None, Some(check)) => {
                // As with every directive, the value is the first word.
                let word = check.value.find(char::is_whitespace).unwrap_or(check.value.len());
                let options = Options::parse(&dockerfile.file, Span::new(check.span.start(), check.span.start() + word), &mut notes)?;
                if word < check.value.len() {
                    let rest = Span::new(check.span.start() + word + 1, check.span.end());
                    let note =
                        Diagnostic::warning(&dockerfile.file, rest, "the value of `check` ends at the first blank; this is not read");
                    notes.push(note.with_hint("write the options without blanks"));
                }
                options
            }
            (None, None) => Options::default(),
        };
        let mut checks = Checks { file: dockerfile.file.clone(), options, statements: Vec::new(), notes };
        dockerfile.global_args.iter().for_each(|statement| checks.add(statement));
        for stage in &dockerfile.stages {
            checks.add(&stage.statement);
            stage.instructions.iter().for_each(|statement| checks.add(statement));
        }
        Ok(checks)
    }

    fn add(&mut self, statement: &Statement) {
        let options = own_options(statement).map(|own| self.options.merged(&own));
        let heredocs: &[Heredoc] = match &statement.instruction {
            Instruction::Run(run) => &run.heredocs,
            Instruction::Copy(copy) => &copy.paths.heredocs,
            Instruction::Add(add) => &add.paths.heredocs,
            _ => &[],
        };
        let line_end = heredocs.first().map_or(statement.span.end(), |heredoc| heredoc.body.span.start().saturating_sub(1));
        self.statements.push(Place { span: statement.span, line_end, options });
    }

    /// Keeps the findings that are to be shown, in the order of the file, and not more than anyone reads.
    pub fn apply(&self, mut found: Vec<Diagnostic>) -> Vec<Diagnostic> {
        found.retain(|diagnostic| self.allows(diagnostic));
        found.sort_by_key(|diagnostic| diagnostic.span.start());
        let mut warnings = 0;
        found.retain(|diagnostic| {
            warnings += usize::from(!diagnostic.is_error());
            diagnostic.is_error() || warnings <= MAX_SHOWN
        });
        found
    }

    fn allows(&self, diagnostic: &Diagnostic) -> bool {
        let Some(id) = diagnostic.rule else { return true };
        let options = self.place(diagnostic.span).and_then(|place| place.options.as_ref()).unwrap_or(&self.options);
        options.allows(id.0, id.rule().is_some_and(|rule| rule.experimental))
    }

    /// The names of the rules that make the build fail (`error=true`), each once, in order; none where the file does not say so.
    pub fn fatal(&self, shown: &[Diagnostic]) -> Vec<&'static str> {
        let mut names: Vec<&'static str> = shown.iter().filter(|_| self.options.error).filter_map(|d| d.rule).map(|rule| rule.0).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What is odd about the options, such as names of rules that do not exist.
    pub fn notes(&self) -> &[Diagnostic] {
        &self.notes
    }

    /// The lines that a diagnostic is about, as BuildKit counts them: those of the whole instruction.
    pub fn lines(&self, diagnostic: &Diagnostic) -> RangeInclusive<usize> {
        if diagnostic.rule.is_some_and(|rule| rule.0 == "NoEmptyContinuation") {
            let end = self.place(diagnostic.span).map_or(diagnostic.span.start(), |place| place.line_end);
            let line = self.file.line(end);
            return line..=line;
        }
        self.lines_of(diagnostic.span)
    }

    /// The lines of the instruction that a span is in, or of the span where it is in none.
    pub fn lines_of(&self, span: Span) -> RangeInclusive<usize> {
        let whole = self.place(span).map_or(span, |place| place.span);
        let last = if whole.end() > whole.start() { whole.end() - 1 } else { whole.start() };
        self.file.line(whole.start())..=self.file.line(last)
    }

    /// The instruction that a span begins in.
    fn place(&self, span: Span) -> Option<&Place> {
        let after = self.statements.partition_point(|place| place.span.start() <= span.start());
        self.statements.get(after.checked_sub(1)?).filter(|place| span.start() < place.span.end().max(place.span.start() + 1))
    }
}

/// The options in the comment right above an instruction. Only the first `check=` counts; one that cannot be read is an ordinary comment.
fn own_options(statement: &Statement) -> Option<Options> {
    let comment = statement.comment.as_deref()?;
    let value = comment.lines().find_map(|line| {
        let (key, value) = line.split_once('=')?;
        key.trim().eq_ignore_ascii_case("check").then(|| value.trim())
    })?;
    let word = value.split_whitespace().next().unwrap_or_default();
    let file = SourceFile::new("check", word);
    Options::parse(&file, Span::new(0, word.len()), &mut Vec::new()).ok()
}
