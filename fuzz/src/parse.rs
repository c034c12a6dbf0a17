//! The parser: any bytes to a tree, the build checks of that tree, and triggers.
//!
//! Most inputs are read as they are. One in 256 is repeated to a long file (or a long line), which has to be read in time that is linear in its length.

use std::time::Duration;

use strake::diag::{Diagnostic, SourceFile, Span, Style, render};
use strake::parser::{CopyPaths, Dockerfile, Instruction, Mode, Parsed, ShellOrExec, Statement, Word, expand, lint, parse, parse_trigger};

use crate::cost;
use crate::fingerprint::{self, Keep};

/// More than the parser keeps, with those that it adds at the end.
const MAX_DIAGNOSTICS: usize = 1010;

/// How long a repeated input becomes.
const LONG: usize = 1 << 16;

/// Linear code takes a twentieth of this.
const LIMIT: Duration = Duration::from_secs(1);

/// Panics where something does not hold for a Dockerfile of these bytes.
pub fn check(data: &[u8]) {
    let file = SourceFile::from_bytes("Dockerfile", data.to_vec());
    let text = file.text();
    if is_repeated(data) {
        read_repeated(text);
    }
    let parsed = parse(&file);
    let warnings = lint(&parsed.dockerfile);
    let mut spans = Vec::new();
    for diagnostic in parsed.diagnostics.iter().chain(&warnings) {
        check_diagnostic(diagnostic, &mut spans);
    }
    assert!(parsed.diagnostics.len() <= MAX_DIAGNOSTICS && warnings.len() <= MAX_DIAGNOSTICS, "too many diagnostics");
    let statements = statements(&parsed.dockerfile);
    for statement in &statements {
        spans_of(statement, &mut spans);
    }
    for span in spans {
        assert!(file.text().get(span.range()).is_some(), "{span:?} lies outside of the file, or within a character");
    }
    check_order(&file, &statements);
    check_drawing(&parsed);
    if text.len() <= 2048 {
        let again = parse(&SourceFile::from_bytes("Dockerfile", data.to_vec()));
        let [first, second] = [&parsed, &again].map(|parsed| fingerprint::of(&parsed.dockerfile.stages, Keep::Everything));
        assert_eq!(first, second, "the same text gave two trees");
        for statement in statements {
            let mut errors = parsed.diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
            let is_refused = errors.any(|error| statement.span.start() <= error.span.start() && error.span.start() <= statement.span.end());
            if !file.has_replacements() && !is_refused {
                check_original(statement, &parsed.dockerfile);
            }
            check_words(statement, parsed.dockerfile.directives.escape);
        }
    }
    let _ = parse_trigger(text, "ONBUILD trigger 1");
}

fn is_repeated(data: &[u8]) -> bool {
    let sum = data.iter().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(*byte));
    sum == 0 && !data.is_empty()
}

/// Repeats the whole text, and its last line.
fn read_repeated(text: &str) {
    let last = text.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
    for (head, unit) in [("", text), (&text[..last], text[last..].trim_end_matches('\n'))] {
        if unit.is_empty() {
            continue;
        }
        let long = format!("{head}{}", unit.repeat(LONG / unit.len() + 1));
        let file = SourceFile::new("Dockerfile", long);
        cost::within(LIMIT, "parsing", || parse(&file).diagnostics.len());
        let parsed = parse(&file);
        cost::within(LIMIT, "linting", || lint(&parsed.dockerfile).len());
    }
}

fn check_diagnostic(diagnostic: &Diagnostic, spans: &mut Vec<Span>) {
    assert!(!diagnostic.message.is_empty());
    spans.push(diagnostic.span);
    spans.extend(diagnostic.related.iter().map(|(span, _)| *span));
    spans.extend(diagnostic.suggestion.as_ref().map(|suggestion| suggestion.span));
}

/// Any diagnostic can be shown; the first few stand for all.
fn check_drawing(parsed: &Parsed) {
    for diagnostic in parsed.diagnostics.iter().take(3) {
        assert!(render(diagnostic, Style::Plain).starts_with(if diagnostic.is_error() { "error" } else { "warning" }));
    }
}

fn statements(dockerfile: &Dockerfile) -> Vec<&Statement> {
    let stages = dockerfile.stages.iter().flat_map(|stage| std::iter::once(&stage.statement).chain(&stage.instructions));
    dockerfile.global_args.iter().chain(stages).collect()
}

/// Each statement ends on a line above the next.
fn check_order(file: &SourceFile, statements: &[&Statement]) {
    for statement in statements {
        let (start, end) = (file.position(statement.span.start()), file.position(statement.span.end()));
        assert!((start.line, start.column) <= (end.line, end.column), "a statement ends before it begins");
    }
    for pair in statements.windows(2) {
        assert!(file.line(pair[0].span.end()) < file.line(pair[1].span.start()), "two statements are on one line: {:?}", pair[1].span);
    }
}

/// What a statement says of itself reads as the same statement.
fn check_original(statement: &Statement, dockerfile: &Dockerfile) {
    let escape = dockerfile.directives.escape;
    let original = statement.original(&dockerfile.file);
    let line = original.lines().next().unwrap_or_default();
    if line.trim_end().ends_with(escape) || matches!(&statement.instruction, Instruction::From(from) if from.image.text.is_empty()) {
        return;
    }
    let text = format!("# escape={escape}\nFROM scratch\n{original}");
    let parsed = parse(&SourceFile::new("original", text));
    let errors: Vec<_> = parsed.diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).map(|error| &error.message).collect();
    assert!(errors.is_empty(), "{original:?} is refused: {errors:?}");
    let read = statements(&parsed.dockerfile);
    assert_eq!(read.len(), 2, "{original:?} is not one statement");
    let [before, after] = [&statement.instruction, &read[1].instruction].map(|instruction| fingerprint::of(instruction, Keep::NoDigits));
    // What an ONBUILD stores also keeps the blanks at its end.
    let is_trigger = matches!(statement.instruction, Instruction::Onbuild(_));
    assert!(is_trigger || before == after, "{:?} reads as {:?}", statement.instruction, read[1].instruction);
    assert_eq!(read[1].original(&parsed.dockerfile.file), original);
    if let (Instruction::Onbuild(onbuild), '\\') = (&statement.instruction, escape)
        && let Some(inner) = &onbuild.statement
        // Flags of the ONBUILD itself are stored, too, and no instruction begins with them.
        && !onbuild.trigger.starts_with('-')
    {
        let trigger = parse_trigger(&onbuild.trigger, "ONBUILD").expect("a trigger that was accepted is accepted again");
        let [before, after] = [&inner.instruction, &trigger.instruction].map(|instruction| fingerprint::of(instruction, Keep::NoDigits));
        assert!(before == after, "{:?} reads as {:?}", inner.instruction, trigger.instruction);
    }
}

/// Words can be expanded, and mistakes in them be shown.
fn check_words(statement: &Statement, escape: char) {
    let mut words = Vec::new();
    words_of(&statement.instruction, &mut words);
    for word in words {
        if let Err(error) = expand(&word.text, escape, &|_: &str| Some("v".to_owned()), Mode::Word) {
            assert!(word.text.get(error.range).is_some());
        }
    }
}

fn words_of<'a>(instruction: &'a Instruction, words: &mut Vec<&'a Word>) {
    match instruction {
        Instruction::From(from) => words.extend(std::iter::once(&from.image).chain(&from.platform)),
        Instruction::Arg(declarations) => {
            words.extend(declarations.iter().flat_map(|declaration| std::iter::once(&declaration.name).chain(&declaration.default)));
        }
        Instruction::Run(run) => {
            words.extend(&run.mounts);
            command(&run.command, words);
        }
        Instruction::Cmd(shell_or_exec) | Instruction::Entrypoint(shell_or_exec) => command(shell_or_exec, words),
        Instruction::Label(pairs) | Instruction::Env(pairs) => words.extend(pairs.iter().flat_map(|pair| [&pair.key, &pair.value])),
        Instruction::Maintainer(word) | Instruction::User(word) | Instruction::Workdir(word) | Instruction::StopSignal(word) => {
            words.push(word);
        }
        Instruction::Expose(list) | Instruction::Volume(list) => words.extend(list),
        Instruction::Add(add) => {
            words.extend(add.chown.iter().chain(&add.chmod).chain(&add.exclude).chain(&add.checksum));
            paths(&add.paths, words);
        }
        Instruction::Copy(copy) => {
            words.extend(copy.chown.iter().chain(&copy.chmod).chain(&copy.exclude));
            paths(&copy.paths, words);
        }
        Instruction::Onbuild(onbuild) => onbuild.statement.iter().for_each(|statement| words_of(&statement.instruction, words)),
        Instruction::Healthcheck(_) | Instruction::Shell(_) => {}
    }
}

fn command<'a>(command: &'a ShellOrExec, words: &mut Vec<&'a Word>) {
    if let ShellOrExec::Shell(word) = command {
        words.push(word);
    }
}

fn paths<'a>(paths: &'a CopyPaths, words: &mut Vec<&'a Word>) {
    words.extend(paths.sources.iter().chain([&paths.destination]));
}

fn spans_of(statement: &Statement, spans: &mut Vec<Span>) {
    let mut words = Vec::new();
    words_of(&statement.instruction, &mut words);
    spans.extend([statement.span, statement.keyword.span]);
    spans.extend(words.iter().map(|word| word.span));
    let heredocs = match &statement.instruction {
        Instruction::Run(run) => &run.heredocs,
        Instruction::Copy(copy) => &copy.paths.heredocs,
        Instruction::Add(add) => &add.paths.heredocs,
        Instruction::Onbuild(onbuild) => return onbuild.statement.iter().for_each(|statement| spans_of(statement, spans)),
        _ => return,
    };
    spans.extend(heredocs.iter().flat_map(|heredoc| [heredoc.span, heredoc.body.span]));
}
