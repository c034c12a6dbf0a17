//! Build checks that need nothing but the syntax tree, and what decides about all build checks ([`Checks`]).
//!
//! Checks of single instructions, variables, platforms and base images belong to the graph, since they are about what the target reaches.
//! `NoEmptyContinuation` is found by the parser itself, since the tree does not keep blank lines. The rules here look at every stage, needed or not. None of them
//! knows whether it is switched on.

mod checks;
mod options;

use std::collections::HashMap;

use super::ast::{Dockerfile, Instruction, Stage, Statement};
use crate::diag::{Diagnostic, MAX_FOUND, RuleId, SourceFile, Span, Suggestion};

pub use checks::Checks;

/// Names of stages that mean something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// All warnings about the style of a file, in its order.
pub fn lint(dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    let mut lint = Lint { file: &dockerfile.file, found: Vec::new() };
    lint.casing(dockerfile);
    lint.stage_names(&dockerfile.stages);
    dockerfile.global_args.iter().for_each(|statement| lint.statement(statement));
    for stage in &dockerfile.stages {
        lint.as_casing(stage);
        lint.statement(&stage.statement);
        stage.instructions.iter().for_each(|statement| lint.statement(statement));
    }
    lint.found.sort_by_key(|diagnostic| diagnostic.span.start());
    lint.found
}

struct Lint<'a> {
    file: &'a SourceFile,
    found: Vec<Diagnostic>,
}

impl Lint<'_> {
    fn warn(&mut self, rule: &'static str, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        if self.found.len() >= MAX_FOUND {
            self.found.pop();
        }
        self.found.push(Diagnostic::warning(self.file, span, message).with_rule(RuleId(rule)));
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    /// Keywords are all in capitals or all in small letters: whichever is the majority. Those above the first `FROM` do not count.
    fn casing(&mut self, dockerfile: &Dockerfile) {
        let statements = dockerfile.stages.iter().flat_map(|stage| std::iter::once(&stage.statement).chain(&stage.instructions));
        let keywords = || statements.clone().map(|statement| &statement.keyword);
        let upper = keywords().filter(|keyword| is_upper(&keyword.value)).count();
        let lower = keywords().filter(|keyword| is_lower(&keyword.value)).count();
        let (fits, case): (fn(&str) -> bool, _) = if lower > upper { (is_lower, "lower") } else { (is_upper, "upper") };
        for keyword in keywords().filter(|keyword| !fits(&keyword.value)) {
            let message = format!("`{}` should be in {case} case, as most keywords of this file are", keyword.value);
            let replacement = if case == "lower" { keyword.value.to_ascii_lowercase() } else { keyword.value.to_ascii_uppercase() };
            let suggestion = Suggestion { span: keyword.span, replacement };
            self.warn("ConsistentInstructionCasing", keyword.span, message).suggestion = Some(suggestion);
        }
    }

    fn stage_names(&mut self, stages: &[Stage]) {
        let mut seen: HashMap<&str, Span> = HashMap::new();
        for name in stages.iter().filter_map(|stage| stage.from.name.as_ref()) {
            let (span, written) = (name.written.span, &name.written.value);
            if *written != name.name {
                let message = format!("the name of stage `{written}` should be in lower case");
                self.warn("StageNameCasing", span, message);
            }
            if RESERVED.contains(&name.name.as_str()) {
                self.warn("ReservedStageName", span, format!("`{written}` means something else, and should not name a stage"));
            }
            match seen.get(name.name.as_str()) {
                Some(first) => {
                    let first = (*first, "the first one".to_owned());
                    let message = format!("there is a stage `{}` already", name.name);
                    self.warn("DuplicateStageName", span, message).related.push(first);
                }
                None => {
                    seen.insert(&name.name, span);
                }
            }
        }
    }

    /// `FROM … AS` in one case. A `FROM` that is in neither is the business of another rule.
    fn as_casing(&mut self, stage: &Stage) {
        let Some(name) = &stage.from.name else { return };
        // Between the image and the name stands nothing but `AS`, unless the line is broken there.
        let between = Span::new(stage.from.image.span.end(), name.written.span.start());
        let text = self.file.slice(between);
        let as_word = text.trim();
        if !as_word.eq_ignore_ascii_case("as") {
            return;
        }
        let keyword = &stage.statement.keyword.value;
        let start = between.start() + (text.len() - text.trim_start().len());
        if (is_upper(keyword) && !is_upper(as_word)) || (is_lower(keyword) && !is_lower(as_word)) {
            let message = format!("`{as_word}` should be written in the case of `{keyword}`");
            self.warn("FromAsCasing", Span::new(start, start + as_word.len()), message);
        }
    }

    fn statement(&mut self, statement: &Statement) {
        match &statement.instruction {
            Instruction::Maintainer(name) => {
                let hint = format!("write `LABEL org.opencontainers.image.authors=\"{}\"`", name.text.replace('"', "\\\""));
                self.warn("MaintainerDeprecated", statement.keyword.span, "`MAINTAINER` is deprecated").hint = Some(hint);
            }
            Instruction::Arg(declarations) => {
                let names: Vec<&str> = declarations.iter().map(|declaration| declaration.name.text.as_str()).collect();
                self.description(statement, &names);
            }
            Instruction::From(from) => {
                let names: Vec<&str> = from.name.iter().map(|name| name.name.as_str()).collect();
                self.description(statement, &names);
            }
            _ => {}
        }
    }

    /// The comment above what has a name begins with that name.
    fn description(&mut self, statement: &Statement, names: &[&str]) {
        let Some(comment) = line_above(self.file, statement).filter(|_| !names.is_empty()) else { return };
        if comment.split(' ').next().is_some_and(|word| names.contains(&word)) {
            return;
        }
        let name = if let [name] = names { name } else { "NAME" };
        let message = format!("the comment above this `{}` does not say what it describes", statement.keyword.value.to_uppercase());
        let hint = format!("write `# {name} DESCRIPTION`, or put an empty line between the two");
        self.warn("InvalidDefinitionDescription", statement.keyword.span, message).hint = Some(hint);
    }
}

/// The comment right above a statement: its last line, without the `#`. A parser directive is one too.
fn line_above<'a>(file: &'a SourceFile, statement: &Statement) -> Option<&'a str> {
    let before = file.text().get(..statement.span.start())?;
    // The statement may be indented.
    let before = before.trim_end_matches([' ', '\t']).strip_suffix('\n')?;
    let line = before.rsplit('\n').next()?.trim();
    let comment = line.trim_start_matches('\u{feff}').strip_prefix('#')?.trim();
    (!comment.is_empty()).then_some(comment)
}

fn is_upper(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_lowercase())
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_uppercase())
}
