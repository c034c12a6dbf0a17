//! Build checks that need nothing but the syntax tree.
//!
//! Checks of variables, platforms and base images belong to the graph. `NoEmptyContinuation` is found by the parser itself, since the tree does not
//! keep blank lines.

use std::collections::HashMap;

use super::ast::{Dockerfile, Instruction, KeyValue, ShellOrExec, Stage, Statement, Word};
use super::scope::MAX_WARNINGS;
use crate::diag::{Diagnostic, RuleId, SourceFile, Span};

/// Names of stages that mean something else.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// All warnings about the style of a file, in its order.
pub fn lint(dockerfile: &Dockerfile) -> Vec<Diagnostic> {
    let mut lint = Lint { file: &dockerfile.file, found: Vec::new() };
    lint.casing(dockerfile);
    lint.stage_names(&dockerfile.stages);
    for stage in &dockerfile.stages {
        lint.as_casing(stage);
        lint.repeated(stage);
        let has_shell = stage.instructions.iter().any(|statement| matches!(statement.instruction, Instruction::Shell(_)));
        for statement in &stage.instructions {
            lint.statement(statement, has_shell);
            if let Instruction::Onbuild(onbuild) = &statement.instruction
                && let Some(trigger) = &onbuild.statement
            {
                lint.statement(trigger, has_shell);
            }
        }
    }
    lint.found.sort_by_key(|diagnostic| diagnostic.span.start);
    lint.found
}

struct Lint<'a> {
    file: &'a SourceFile,
    found: Vec<Diagnostic>,
}

impl Lint<'_> {
    fn warn(&mut self, rule: &'static str, span: Span, message: impl Into<String>) -> &mut Diagnostic {
        if self.found.len() >= MAX_WARNINGS {
            self.found.pop();
        }
        self.found.push(Diagnostic::warning(self.file, span, message).with_rule(RuleId(rule)));
        let last = self.found.len() - 1;
        &mut self.found[last]
    }

    /// Keywords are all in capitals or all in small letters: whichever is the majority.
    fn casing(&mut self, dockerfile: &Dockerfile) {
        let in_stages = dockerfile.stages.iter().flat_map(|stage| std::iter::once(&stage.statement).chain(&stage.instructions));
        let keywords = || dockerfile.global_args.iter().chain(in_stages.clone()).map(|statement| &statement.keyword);
        let upper = keywords().filter(|keyword| is_upper(&keyword.value)).count();
        let lower = keywords().filter(|keyword| is_lower(&keyword.value)).count();
        let (fits, case): (fn(&str) -> bool, _) = if lower > upper { (is_lower, "lower") } else { (is_upper, "upper") };
        for keyword in keywords().filter(|keyword| !fits(&keyword.value)) {
            let message = format!("`{}` should be in {case} case, as most keywords of this file are", keyword.value);
            let replacement = if case == "lower" { keyword.value.to_ascii_lowercase() } else { keyword.value.to_ascii_uppercase() };
            let suggestion = crate::diag::Suggestion { span: keyword.span, replacement };
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

    /// `FROM … AS` in one case.
    fn as_casing(&mut self, stage: &Stage) {
        let Some(name) = &stage.from.name else { return };
        // Between the image and the name stands nothing but `AS`, unless the line is broken there.
        let between = Span::new(stage.from.image.span.end, name.written.span.start);
        let text = self.file.slice(between);
        let as_word = text.trim();
        if !as_word.eq_ignore_ascii_case("as") {
            return;
        }
        let keyword = &stage.statement.keyword.value;
        let start = between.start + (text.len() - text.trim_start().len());
        if (is_upper(keyword) && !is_upper(as_word)) || (is_lower(keyword) && !is_lower(as_word)) {
            let message = format!("`{as_word}` should be written in the case of `{keyword}`");
            self.warn("FromAsCasing", Span::new(start, start + as_word.len()), message);
        }
    }

    /// Instructions of which only the last one of a stage counts.
    fn repeated(&mut self, stage: &Stage) {
        let mut last: HashMap<&'static str, Span> = HashMap::new();
        for statement in stage.instructions.iter().rev() {
            let keyword = match statement.instruction {
                Instruction::Cmd(_) => "CMD",
                Instruction::Entrypoint(_) => "ENTRYPOINT",
                Instruction::Healthcheck(_) => "HEALTHCHECK",
                _ => continue,
            };
            let span = statement.keyword.span;
            if let Some(last) = last.get(keyword) {
                let related = (*last, "this one counts".to_owned());
                let message = format!("only the last `{keyword}` of a stage counts");
                self.warn("MultipleInstructionsDisallowed", span, message).related.push(related);
                continue;
            }
            last.insert(keyword, span);
        }
    }

    fn statement(&mut self, statement: &Statement, has_shell: bool) {
        match &statement.instruction {
            Instruction::Maintainer(name) => {
                let hint = format!("write `LABEL org.opencontainers.image.authors=\"{}\"`", name.text.replace('"', "\\\""));
                self.warn("MaintainerDeprecated", statement.keyword.span, "`MAINTAINER` is deprecated").hint = Some(hint);
            }
            Instruction::Env(pairs) | Instruction::Label(pairs) => self.legacy(statement, pairs),
            Instruction::Expose(ports) => self.ports(ports),
            // A `SHELL` says that the shell is meant.
            Instruction::Cmd(ShellOrExec::Shell(word)) | Instruction::Entrypoint(ShellOrExec::Shell(word))
                // A broken exec form has a warning already.
                if !has_shell && !word.text.starts_with('[') =>
            {
                let keyword = statement.keyword.value.to_ascii_uppercase();
                let message = format!("a shell runs this `{keyword}`, so that signals do not reach the program");
                let span = if word.text.is_empty() { statement.keyword.span } else { word.span };
                self.warn("JSONArgsRecommended", span, message).hint = Some(format!("write `{keyword} [\"program\", \"argument\"]`"));
            }
            _ => {}
        }
    }

    fn legacy(&mut self, statement: &Statement, pairs: &[KeyValue]) {
        for pair in pairs.iter().filter(|pair| pair.legacy) {
            let keyword = statement.keyword.value.to_ascii_uppercase();
            let message = format!("`{keyword} name value` is an old form");
            let hint = format!("write `{keyword} {}=value`", pair.key.text);
            self.warn("LegacyKeyValueFormat", pair.key.span.to(pair.value.span), message).hint = Some(hint);
        }
    }

    fn ports(&mut self, ports: &[Word]) {
        for port in ports {
            if let Some((_, protocol)) = port.text.rsplit_once('/')
                && protocol.bytes().any(|b| b.is_ascii_uppercase())
                && !protocol.contains('$')
            {
                self.warn("ExposeProtoCasing", port.span, format!("the protocol `{protocol}` should be in lower case"));
            }
            if super::ports::has_host_part(&port.text) && !port.text.contains('$') {
                let hint = "ports of the host are chosen when the container is run".to_owned();
                self.warn("ExposeInvalidFormat", port.span, "`EXPOSE` names ports of the container only").hint = Some(hint);
            }
        }
    }
}

fn is_upper(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_lowercase())
}

fn is_lower(text: &str) -> bool {
    !text.bytes().any(|b| b.is_ascii_uppercase())
}
