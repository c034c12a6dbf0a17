//! Draws a syntax tree as text, one instruction a line, for the expectations of `testdata/parser`.

use std::fmt::Write as _;

use crate::diag::{Diagnostic, SourceFile, Span};
use crate::parser::*;

/// The whole tree.
pub(super) fn tree(dockerfile: &Dockerfile) -> String {
    let mut dump = Dump { file: &dockerfile.file, out: String::new() };
    let directives = &dockerfile.directives;
    if let Some(syntax) = &directives.syntax {
        dump.line(0, &format!("syntax {:?}", syntax.value), syntax.span);
    }
    if directives.escape != '\\' {
        dump.out.push_str(&format!("escape {:?}\n", directives.escape));
    }
    if let Some(check) = &directives.check {
        dump.line(0, &format!("check {:?}", check.value), check.span);
    }
    dockerfile.global_args.iter().for_each(|statement| dump.statement(0, statement));
    for stage in &dockerfile.stages {
        dump.statement(0, &stage.statement);
        stage.instructions.iter().for_each(|statement| dump.statement(1, statement));
    }
    dump.out
}

/// One diagnostic a line.
pub(super) fn diagnostics(diagnostics: &[Diagnostic]) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        let severity = if diagnostic.is_error() { "error" } else { "warning" };
        let rule = diagnostic.rule.map(|rule| format!("[{}]", rule.0)).unwrap_or_default();
        let at = place(&diagnostic.file, diagnostic.span);
        let _ = writeln!(out, "{at} {severity}{rule}: {}", diagnostic.message);
        let _ = writeln!(out, "    at {:?}", diagnostic.file.slice(diagnostic.span));
        for (span, text) in &diagnostic.related {
            let _ = writeln!(out, "    {} {text}", place(&diagnostic.file, *span));
        }
        if let Some(hint) = &diagnostic.hint {
            let _ = writeln!(out, "    hint: {hint}");
        }
        if let Some(suggestion) = &diagnostic.suggestion {
            let _ = writeln!(out, "    replace {:?} with {:?}", diagnostic.file.slice(suggestion.span), suggestion.replacement);
        }
    }
    out
}

fn place(file: &SourceFile, span: Span) -> String {
    let position = file.position(span.start());
    format!("{}:{}", position.line, position.column)
}

struct Dump<'a> {
    file: &'a SourceFile,
    out: String,
}

impl Dump<'_> {
    fn line(&mut self, indent: usize, text: &str, span: Span) {
        let (start, end) = (self.file.position(span.start()), self.file.position(span.end()));
        let lines = if start.line == end.line { format!("{}", start.line) } else { format!("{}-{}", start.line, end.line) };
        let _ = writeln!(self.out, "{}{lines}: {text}", "  ".repeat(indent));
    }

    fn statement(&mut self, indent: usize, statement: &Statement) {
        let mut text = instruction(&statement.instruction);
        if let Some(comment) = &statement.comment {
            let _ = write!(text, " comment={comment:?}");
        }
        self.line(indent, &text, statement.span);
        match &statement.instruction {
            Instruction::Run(run) => {
                self.heredocs(indent + 1, &run.heredocs);
                if !run.heredocs.is_empty() {
                    let _ = writeln!(self.out, "{}script {:?}", "  ".repeat(indent + 1), run.script());
                }
            }
            Instruction::Copy(copy) => self.heredocs(indent + 1, &copy.paths.heredocs),
            Instruction::Add(add) => self.heredocs(indent + 1, &add.paths.heredocs),
            Instruction::Onbuild(onbuild) => {
                let _ = writeln!(self.out, "{}trigger {:?}", "  ".repeat(indent + 1), onbuild.trigger);
                onbuild.statement.iter().for_each(|statement| self.statement(indent + 1, statement));
            }
            _ => {}
        }
    }

    fn heredocs(&mut self, indent: usize, heredocs: &[Heredoc]) {
        for heredoc in heredocs {
            let mut text = format!("heredoc {:?} {:?}", heredoc.delimiter, heredoc.body.value);
            for (flag, name) in [(!heredoc.expand, "literal"), (heredoc.strip_tabs, "tabs stripped")] {
                if flag {
                    let _ = write!(text, " {name}");
                }
            }
            if let Some(descriptor) = heredoc.file_descriptor {
                let _ = write!(text, " descriptor {descriptor}");
            }
            self.line(indent, &text, heredoc.body.span);
        }
    }
}

fn instruction(instruction: &Instruction) -> String {
    match instruction {
        Instruction::From(from) => {
            let name = from.name.as_ref().map(|name| format!("{} (written {})", name.name, name.written.value));
            format!("FROM {:?}{}{}", from.image.text, option("platform", from.platform.as_ref()), field("name", name))
        }
        Instruction::Arg(declarations) => {
            let each = declarations.iter().map(|arg| match &arg.default {
                Some(default) => format!("{:?}={:?}", arg.name.text, default.text),
                None => format!("{:?}", arg.name.text),
            });
            format!("ARG {}", each.collect::<Vec<_>>().join(" "))
        }
        Instruction::Run(run) => {
            let mut text = format!("RUN {}", command(&run.command));
            run.mounts.iter().for_each(|mount| text.push_str(&option("mount", Some(mount))));
            text.push_str(&field("network", run.network.as_ref().map(|network| format!("{:?}", network.value))));
            text.push_str(&field("security", run.security.as_ref().map(|security| format!("{:?}", security.value))));
            run.devices.iter().for_each(|device| text.push_str(&field("device", Some(format!("{:?}", device.value)))));
            text
        }
        Instruction::Cmd(form) => format!("CMD {}", command(form)),
        Instruction::Entrypoint(form) => format!("ENTRYPOINT {}", command(form)),
        Instruction::Label(pairs) => format!("LABEL {}", key_values(pairs)),
        Instruction::Maintainer(word) => format!("MAINTAINER {:?}", word.text),
        Instruction::Expose(ports) => format!("EXPOSE {}", words(ports)),
        Instruction::Env(pairs) => format!("ENV {}", key_values(pairs)),
        Instruction::Add(add) => {
            let mut text = format!("ADD {}", paths(&add.paths));
            text.push_str(&option("chown", add.chown.as_ref()));
            text.push_str(&option("chmod", add.chmod.as_ref()));
            text.push_str(&option("checksum", add.checksum.as_ref()));
            text.push_str(&field("link", add.link.then(|| "true".to_owned())));
            text.push_str(&field("keep-git-dir", add.keep_git_dir.map(|on| on.to_string())));
            text.push_str(&field("unpack", add.unpack.map(|on| on.to_string())));
            add.exclude.iter().for_each(|word| text.push_str(&option("exclude", Some(word))));
            text
        }
        Instruction::Copy(copy) => {
            let mut text = format!("COPY {}", paths(&copy.paths));
            text.push_str(&field("from", copy.from.as_ref().map(|from| format!("{:?}", from.value))));
            text.push_str(&option("chown", copy.chown.as_ref()));
            text.push_str(&option("chmod", copy.chmod.as_ref()));
            text.push_str(&field("link", copy.link.then(|| "true".to_owned())));
            text.push_str(&field("parents", copy.parents.then(|| "true".to_owned())));
            copy.exclude.iter().for_each(|word| text.push_str(&option("exclude", Some(word))));
            text
        }
        Instruction::Volume(paths) => format!("VOLUME {}", words(paths)),
        Instruction::User(word) => format!("USER {:?}", word.text),
        Instruction::Workdir(word) => format!("WORKDIR {:?}", word.text),
        Instruction::Onbuild(_) => "ONBUILD".to_owned(),
        Instruction::StopSignal(word) => format!("STOPSIGNAL {:?}", word.text),
        Instruction::Healthcheck(check) => {
            let Healthcheck::Command { command: form, interval, timeout, start_period, start_interval, retries } = check.as_ref() else {
                return "HEALTHCHECK none".to_owned();
            };
            let mut text = format!("HEALTHCHECK {}", command(form));
            let fields = [("interval", interval), ("timeout", timeout), ("start-period", start_period), ("start-interval", start_interval)];
            for (name, value) in fields.into_iter().chain([("retries", retries)]) {
                text.push_str(&field(name, value.map(|value| value.to_string())));
            }
            text
        }
        Instruction::Shell(words) => format!("SHELL {words:?}"),
    }
}

fn field(name: &str, value: Option<String>) -> String {
    value.map(|value| format!(" {name}={value}")).unwrap_or_default()
}

fn option(name: &str, word: Option<&Word>) -> String {
    field(name, word.map(|word| format!("{:?}", word.text)))
}

fn command(form: &ShellOrExec) -> String {
    match form {
        ShellOrExec::Shell(word) => format!("shell {:?}", word.text),
        ShellOrExec::Exec(words) => format!("exec {words:?}"),
    }
}

fn words(words: &[Word]) -> String {
    words.iter().map(|word| format!("{:?}", word.text)).collect::<Vec<_>>().join(" ")
}

fn key_values(pairs: &[KeyValue]) -> String {
    let pair = |pair: &KeyValue| format!("{:?}{}{:?}", pair.key.text, if pair.legacy { " " } else { "=" }, pair.value.text);
    pairs.iter().map(pair).collect::<Vec<_>>().join(" ")
}

fn paths(paths: &CopyPaths) -> String {
    format!("[{}] -> {:?}", words(&paths.sources), paths.destination.text)
}
