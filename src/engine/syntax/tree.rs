//! The syntax tree as tools see it: the fields of `docs/parse.md`, made from the parser's tree.
//!
//! Every field is always there; what does not apply is `null` or empty. A field is never renamed or given another meaning without a new version (`schema`); new ones may
//! come at any time. Lines and columns count from 1, ends of line ranges are part of them; byte spans end before their end.

use serde::Serialize;

use crate::diag::{Diagnostic, Severity, SourceFile, Span};
use crate::parser::{Dockerfile, Healthcheck, Heredoc, Instruction, KeyValue, ShellOrExec, Stage, Statement, Text, Word, Written};

/// The version of the fields.
const SCHEMA: u32 = 1;

/// A whole Dockerfile.
#[derive(Clone, Debug, Serialize)]
pub struct SyntaxTree {
    /// The version of these fields.
    pub schema: u32,
    /// The file as it was named; `-` for standard input.
    pub file: String,
    /// The parser directives at the top.
    pub directives: Directives,
    /// The `ARG` instructions before the first `FROM`.
    pub global_args: Vec<InstructionNode>,
    /// The stages, in order.
    pub stages: Vec<StageNode>,
    /// What is wrong with the file, in its order.
    pub diagnostics: Vec<DiagnosticNode>,
}

/// Bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ByteSpan {
    /// The first byte.
    pub start: usize,
    /// The byte behind the last.
    pub end: usize,
}

/// The parser directives.
#[derive(Clone, Debug, Serialize)]
pub struct Directives {
    /// `# syntax=`.
    pub syntax: Option<DirectiveNode>,
    /// The escape character.
    pub escape: char,
    /// `# check=`.
    pub check: Option<DirectiveNode>,
}

/// A directive.
#[derive(Clone, Debug, Serialize)]
pub struct DirectiveNode {
    /// Its value.
    pub value: String,
    /// Its line.
    pub line: usize,
    /// The bytes of the value.
    pub span: ByteSpan,
}

/// A stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageNode {
    /// Its number, from 0.
    pub index: usize,
    /// Its name in lower case.
    pub name: Option<String>,
    /// Image, stage or `scratch`, unexpanded.
    pub base: String,
    /// `--platform`, unexpanded.
    pub platform: Option<String>,
    /// Where its `FROM` begins.
    pub start_line: usize,
    /// Where its last instruction ends.
    pub end_line: usize,
    /// From its `FROM` to the end of its last instruction.
    pub span: ByteSpan,
    /// The `FROM`.
    pub from: InstructionNode,
    /// The instructions behind it.
    pub instructions: Vec<InstructionNode>,
}

/// An instruction.
#[derive(Clone, Debug, Serialize)]
pub struct InstructionNode {
    /// The keyword in capitals.
    pub keyword: &'static str,
    /// The keyword as written.
    pub written: String,
    /// The line that it begins on.
    pub start_line: usize,
    /// The line that it ends on, heredocs included.
    pub end_line: usize,
    /// Its bytes, heredocs included.
    pub span: ByteSpan,
    /// It as one logical line, with heredocs behind it.
    pub original: String,
    /// The comment above.
    pub comment: Option<String>,
    /// The flags, in order.
    pub flags: Vec<FlagNode>,
    /// `exec` for a JSON array, `shell` for what could be one; `null` where there is no choice.
    pub form: Option<&'static str>,
    /// The arguments, unexpanded.
    pub arguments: Vec<String>,
    /// The pairs of `ARG`, `ENV` and `LABEL`.
    pub pairs: Vec<PairNode>,
    /// The heredocs, in order.
    pub heredocs: Vec<HeredocNode>,
    /// What `ONBUILD` triggers.
    pub trigger: Option<TriggerNode>,
}

/// A flag.
#[derive(Clone, Debug, Serialize)]
pub struct FlagNode {
    /// Without `--`.
    pub name: String,
    /// Behind `=`, without quotes, unexpanded; `null` without `=`.
    pub value: Option<String>,
}

/// A key and its value.
#[derive(Clone, Debug, Serialize)]
pub struct PairNode {
    /// The key, unexpanded.
    pub key: String,
    /// The value, unexpanded, with its quotes; `null` for an `ARG` without default.
    pub value: Option<String>,
    /// Whether it was written `KEY value`.
    pub legacy: bool,
}

/// A heredoc.
#[derive(Clone, Debug, Serialize)]
pub struct HeredocNode {
    /// The delimiter without quotes.
    pub delimiter: String,
    /// The body; without leading tabs where `strip_tabs` is set.
    pub body: String,
    /// The body with its tabs.
    pub written: String,
    /// Whether no part of the delimiter was quoted.
    pub expand: bool,
    /// Whether it was written `<<-`.
    pub strip_tabs: bool,
    /// The number before `<<`.
    pub file_descriptor: Option<u32>,
    /// The bytes of the body.
    pub span: ByteSpan,
}

/// What `ONBUILD` triggers.
#[derive(Clone, Debug, Serialize)]
pub struct TriggerNode {
    /// The text that the image keeps.
    pub text: String,
    /// The instruction; `null` where it cannot be read.
    pub instruction: Option<Box<InstructionNode>>,
}

/// A mistake or warning.
#[derive(Clone, Debug, Serialize)]
pub struct DiagnosticNode {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// The rule that found it.
    pub rule: Option<&'static str>,
    /// What is wrong.
    pub message: String,
    /// The line of the first character.
    pub line: usize,
    /// Its column, in characters.
    pub column: usize,
    /// The bytes that are wrong.
    pub span: ByteSpan,
    /// A few words on these bytes.
    pub label: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// A replacement that mends it.
    pub suggestion: Option<SuggestionNode>,
    /// Other places that matter.
    pub related: Vec<RelatedNode>,
}

/// A replacement.
#[derive(Clone, Debug, Serialize)]
pub struct SuggestionNode {
    /// What to replace.
    pub span: ByteSpan,
    /// With what.
    pub replacement: String,
}

/// Another place.
#[derive(Clone, Debug, Serialize)]
pub struct RelatedNode {
    /// The line of the first character.
    pub line: usize,
    /// Its column, in characters.
    pub column: usize,
    /// The bytes.
    pub span: ByteSpan,
    /// What they have to do with it.
    pub message: String,
}

impl SyntaxTree {
    /// The tree of a file.
    pub(super) fn new(dockerfile: &Dockerfile, diagnostics: &[Diagnostic]) -> SyntaxTree {
        let file = &dockerfile.file;
        let directive = |found: &Option<crate::diag::Spanned<String>>| {
            found.as_ref().map(|found| DirectiveNode {
                value: found.value.clone(),
                line: file.line(found.span.start()),
                span: found.span.into(),
            })
        };
        let directives = &dockerfile.directives;
        SyntaxTree {
            schema: SCHEMA,
            file: file.name().to_owned(),
            directives: Directives {
                syntax: directive(&directives.syntax),
                escape: directives.escape,
                check: directive(&directives.check),
            },
            global_args: dockerfile.global_args.iter().map(|statement| instruction(file, statement)).collect(),
            stages: dockerfile.stages.iter().enumerate().map(|(index, stage)| self::stage(file, index, stage)).collect(),
            diagnostics: diagnostics.iter().map(diagnostic).collect(),
        }
    }

    /// Whether a diagnostic is an error.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|diagnostic| diagnostic.severity == "error")
    }
}

impl From<Span> for ByteSpan {
    fn from(span: Span) -> ByteSpan {
        ByteSpan { start: span.start(), end: span.end() }
    }
}

fn stage(file: &SourceFile, index: usize, stage: &Stage) -> StageNode {
    let span = stage.instructions.iter().fold(stage.statement.span, |span, statement| span.to(statement.span));
    StageNode {
        index,
        name: stage.from.name.as_ref().map(|name| name.name.to_string()),
        base: stage.from.image.text.to_string(),
        platform: stage.from.platform.as_ref().map(|word| word.text.to_string()),
        start_line: file.line(span.start()),
        end_line: file.line(span.end()),
        span: span.into(),
        from: instruction(file, &stage.statement),
        instructions: stage.instructions.iter().map(|statement| instruction(file, statement)).collect(),
    }
}

fn instruction(file: &SourceFile, statement: &Statement) -> InstructionNode {
    let written = statement.written(file);
    let mut node = InstructionNode {
        keyword: keyword(&statement.instruction),
        written: statement.keyword.value.to_string(),
        start_line: file.line(statement.span.start()),
        // A blank line behind a last continuation is part of the instruction.
        end_line: file.line(statement.span.end()),
        span: statement.span.into(),
        original: statement.original(file).to_owned(),
        comment: statement.comment.as_deref().map(str::to_owned),
        flags: written.flags.iter().map(|flag| FlagNode { name: flag.name.clone(), value: flag.value.clone() }).collect(),
        form: None,
        arguments: Vec::new(),
        pairs: Vec::new(),
        heredocs: Vec::new(),
        trigger: None,
    };
    fill(&mut node, file, &statement.instruction, written);
    node
}

/// Adds what depends on the keyword.
fn fill(node: &mut InstructionNode, file: &SourceFile, instruction: &Instruction, written: Written) {
    match instruction {
        Instruction::From(_) => node.arguments = written.words,
        Instruction::Arg(declarations) => {
            node.pairs = declarations
                .iter()
                .map(|arg| PairNode {
                    key: arg.name.text.to_string(),
                    value: arg.default.as_ref().map(|default| default.text.to_string()),
                    legacy: false,
                })
                .collect();
        }
        Instruction::Env(pairs) | Instruction::Label(pairs) => node.pairs = pairs.iter().map(pair).collect(),
        Instruction::Run(run) => {
            (node.form, node.arguments) = command(&run.command);
            node.heredocs = run.heredocs.iter().map(heredoc).collect();
        }
        Instruction::Cmd(form) | Instruction::Entrypoint(form) => (node.form, node.arguments) = command(form),
        Instruction::Copy(copy) => {
            node.heredocs = copy.paths.heredocs.iter().map(heredoc).collect();
            list(node, written);
        }
        Instruction::Add(add) => {
            node.heredocs = add.paths.heredocs.iter().map(heredoc).collect();
            list(node, written);
        }
        Instruction::Volume(_) => list(node, written),
        Instruction::Expose(words) => node.arguments = words.iter().map(|word| word.text.to_string()).collect(),
        Instruction::Shell(words) => (node.form, node.arguments) = (Some("exec"), strings(words)),
        Instruction::Maintainer(word) | Instruction::User(word) | Instruction::Workdir(word) | Instruction::StopSignal(word) => {
            node.arguments = vec![word.text.to_string()];
        }
        Instruction::Healthcheck(check) => {
            node.arguments = written.words.into_iter().take(1).collect();
            if let Healthcheck::Command { command: form, .. } = check.as_ref() {
                let (form, words) = command(form);
                node.form = form;
                node.arguments.extend(words);
            }
        }
        Instruction::Onbuild(onbuild) => {
            let instruction = onbuild.statement.as_deref().map(|statement| Box::new(self::instruction(file, statement)));
            node.trigger = Some(TriggerNode { text: onbuild.trigger.clone(), instruction });
        }
    }
}

fn keyword(instruction: &Instruction) -> &'static str {
    match instruction {
        Instruction::From(_) => "FROM",
        Instruction::Arg(_) => "ARG",
        Instruction::Run(_) => "RUN",
        Instruction::Cmd(_) => "CMD",
        Instruction::Entrypoint(_) => "ENTRYPOINT",
        Instruction::Label(_) => "LABEL",
        Instruction::Maintainer(_) => "MAINTAINER",
        Instruction::Expose(_) => "EXPOSE",
        Instruction::Env(_) => "ENV",
        Instruction::Add(_) => "ADD",
        Instruction::Copy(_) => "COPY",
        Instruction::Volume(_) => "VOLUME",
        Instruction::User(_) => "USER",
        Instruction::Workdir(_) => "WORKDIR",
        Instruction::Onbuild(_) => "ONBUILD",
        Instruction::StopSignal(_) => "STOPSIGNAL",
        Instruction::Healthcheck(_) => "HEALTHCHECK",
        Instruction::Shell(_) => "SHELL",
    }
}

fn list(node: &mut InstructionNode, written: Written) {
    node.form = Some(if written.json { "exec" } else { "shell" });
    node.arguments = written.words;
}

fn command(form: &ShellOrExec) -> (Option<&'static str>, Vec<String>) {
    match form {
        ShellOrExec::Shell(Word { text, .. }) => (Some("shell"), (!text.is_empty()).then(|| text.to_string()).into_iter().collect()),
        ShellOrExec::Exec(words) => (Some("exec"), strings(words)),
    }
}

fn strings(words: &[Text]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

fn pair(pair: &KeyValue) -> PairNode {
    PairNode { key: pair.key.text.to_string(), value: Some(pair.value.text.to_string()), legacy: pair.legacy }
}

fn heredoc(heredoc: &Heredoc) -> HeredocNode {
    HeredocNode {
        delimiter: heredoc.delimiter.to_string(),
        body: heredoc.body.value.clone(),
        written: heredoc.written().to_owned(),
        expand: heredoc.expand,
        strip_tabs: heredoc.strip_tabs,
        file_descriptor: heredoc.file_descriptor,
        span: heredoc.body.span.into(),
    }
}

fn diagnostic(diagnostic: &Diagnostic) -> DiagnosticNode {
    let at = diagnostic.file.position(diagnostic.span.start());
    let related = |(span, message): &(Span, String)| {
        let at = diagnostic.file.position(span.start());
        RelatedNode { line: at.line, column: at.column, span: (*span).into(), message: message.clone() }
    };
    DiagnosticNode {
        severity: match diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        rule: diagnostic.rule.map(|rule| rule.0),
        message: diagnostic.message.clone(),
        line: at.line,
        column: at.column,
        span: diagnostic.span.into(),
        label: diagnostic.label.clone(),
        hint: diagnostic.hint.clone(),
        suggestion: diagnostic
            .suggestion
            .as_ref()
            .map(|suggestion| SuggestionNode { span: suggestion.span.into(), replacement: suggestion.replacement.clone() }),
        related: diagnostic.related.iter().map(related).collect(),
    }
}
