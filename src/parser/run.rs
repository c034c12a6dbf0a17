//! `RUN`: its flags, and what its heredocs make of the command.

use super::ast::{Heredoc, Instruction, Run, RunDevice, RunMount, RunNetwork, RunSecurity, ShellOrExec, Word};
use super::flags::{Flags, Kind};
use super::heredoc;
use super::instruction::{Arguments, shell_or_exec};
use super::scope::Scope;
use crate::diag::{Diagnostic, Spanned, did_you_mean};

/// What a `RUN` executes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunScript {
    /// The text that the shell (`SHELL`) gets as its last argument.
    Shell(String),
    /// A heredoc that begins with `#!`: a file `/dev/pipes/NAME` of mode 0755, executed by the shell by its path.
    Shebang {
        /// The file's name: the delimiter.
        name: String,
        /// What the file holds.
        body: String,
    },
    /// The words of the exec form.
    Exec(Vec<String>),
}

impl Run {
    /// What is executed, with the heredocs put where they belong.
    ///
    /// A command that is only a heredoc is replaced by its body. Any other command gets its heredocs back behind it, for the shell to read.
    pub fn script(&self) -> RunScript {
        let line = match &self.command {
            ShellOrExec::Exec(words) => return RunScript::Exec(words.clone()),
            ShellOrExec::Shell(word) => &word.text,
        };
        match self.heredocs.as_slice() {
            [only] if heredoc::mark(line, 0..line.len()).is_some() => {
                let body = only.body.value.clone();
                match body.starts_with("#!") {
                    true => RunScript::Shebang { name: only.delimiter.clone(), body },
                    false => RunScript::Shell(body),
                }
            }
            heredocs => RunScript::Shell(reassembled(line, heredocs)),
        }
    }
}

fn reassembled(line: &str, heredocs: &[Heredoc]) -> String {
    let mut text = line.to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&heredoc.body.value);
        text.push_str(&heredoc.delimiter);
    }
    text
}

/// Reads the arguments of `RUN`.
pub(super) fn parse(scope: &mut Scope<'_>, arguments: Arguments<'_>) -> Option<Instruction> {
    let known = [("mount", Kind::Many), ("network", Kind::Text), ("security", Kind::Text), ("device", Kind::Many)];
    let mut flags = Flags::check(scope, arguments.flags, &known);
    let mounts = flags.many("mount");
    for mount in &mounts {
        if let Err(diagnostic) = RunMount::check(mount, scope.file) {
            scope.report(*diagnostic);
        }
    }
    let networks = [("default", RunNetwork::Default), ("none", RunNetwork::None), ("host", RunNetwork::Host)];
    let network = flags.text("network").and_then(|word| choice(scope, "network", word, &networks));
    let securities = [("sandbox", RunSecurity::Sandbox), ("insecure", RunSecurity::Insecure)];
    let security = flags.text("security").and_then(|word| choice(scope, "security", word, &securities));
    let devices = flags.many("device").into_iter().filter_map(|word| device(scope, word)).collect();
    if arguments.rest.is_empty() {
        return scope.fail(arguments.keyword, "`RUN` needs a command");
    }
    let command = shell_or_exec(scope, arguments.rest.clone())?;
    if command == ShellOrExec::Exec(Vec::new()) {
        return scope.fail(arguments.rest, "`RUN` needs a command");
    }
    Some(Instruction::Run(Run { command, heredocs: arguments.heredocs, mounts, network, security, devices }))
}

/// One of the words that a flag may say.
fn choice<T: Copy>(scope: &mut Scope<'_>, flag: &str, word: Word, choices: &[(&'static str, T)]) -> Option<Spanned<T>> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word.text) {
        return Some(Spanned::new(*choice, word.span));
    }
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
    let message = format!("`--{flag}` is {}, not `{}`", names.join(" or "), word.text);
    let mut diagnostic = Diagnostic::error(scope.file, word.span, message);
    if word.text.contains('$') {
        diagnostic = diagnostic.with_hint(format!("variables are not expanded in `--{flag}`"));
    } else if let Some(near) = did_you_mean(&word.text, choices.iter().map(|(name, _)| *name)) {
        diagnostic = diagnostic.with_hint(format!("did you mean `{near}`?")).with_suggestion(word.span, near);
    }
    scope.report(diagnostic);
    None
}

/// `[name=]NAME[,required[=bool]]`; a CDI name holds a `=` itself (`vendor.com/class=name`).
fn device(scope: &mut Scope<'_>, word: Word) -> Option<Spanned<RunDevice>> {
    let mut device = RunDevice { name: String::new(), required: false };
    let mut mistake = None;
    for field in word.text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        match (key.to_ascii_lowercase().as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => match super::run_mount::boolean(value) {
                Some(required) => device.required = required,
                None => mistake = Some(format!("`required` is true or false, not `{value}`")),
            },
            ("name", Some(value)) if device.name.is_empty() => value.clone_into(&mut device.name),
            ("name", Some(_)) => mistake = Some("`--device` takes one name".to_owned()),
            _ if device.name.is_empty() => field.clone_into(&mut device.name),
            _ => mistake = Some(format!("unexpected `{field}` in `--device`")),
        }
    }
    if device.name.is_empty() && mistake.is_none() {
        mistake = Some("`--device` needs the name of a device".to_owned());
    }
    let Some(message) = mistake else { return Some(Spanned::new(device, word.span)) };
    let diagnostic = Diagnostic::error(scope.file, word.span, message);
    scope.report(diagnostic.with_hint("write `--device=vendor.com/class=name,required`"));
    None
}
