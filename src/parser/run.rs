//! `RUN`: its flags, and what its heredocs make of the command.

use super::ast::{Heredoc, Instruction, Run, RunDevice, RunMount, RunNetwork, RunSecurity, ShellOrExec, Word};
use super::flags::{self, Kind};
use super::heredoc;
use super::instruction::{Arguments, empty_command, shell_or_exec};
use super::scope::Scope;
use super::words;
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
            ShellOrExec::Exec(words) => return RunScript::Exec(words.iter().map(ToString::to_string).collect()),
            ShellOrExec::Shell(word) => &word.text,
        };
        match self.heredocs.as_slice() {
            [only, ..] if matches!(heredoc::mark(line), Ok(Some(_))) => {
                let body = only.body.value.clone();
                // Behind a tab it is no first line, even where `<<-` takes the tab away.
                match only.written().starts_with("#!") {
                    true => RunScript::Shebang { name: only.delimiter.to_string(), body },
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
        text.push_str(heredoc.written());
        text.push_str(&heredoc.delimiter);
    }
    text
}

/// Reads the arguments of `RUN`.
pub(super) fn parse(scope: &mut Scope<'_>, arguments: Arguments) -> Option<Instruction> {
    let known = [("mount", Kind::Many), ("network", Kind::Text), ("security", Kind::Text), ("device", Kind::Many)];
    flags::check(scope, arguments.flags, &known);
    let mounts = scope.flags.many("mount");
    for mount in &mounts {
        check_mount(scope, mount);
    }
    let networks = [("default", RunNetwork::Default), ("none", RunNetwork::None), ("host", RunNetwork::Host)];
    let network = scope.flags.given("network").and_then(|word| choice(scope, "network", word, &networks));
    let securities = [("sandbox", RunSecurity::Sandbox), ("insecure", RunSecurity::Insecure)];
    let security = scope.flags.given("security").and_then(|word| choice(scope, "security", word, &securities));
    let devices = scope.flags.many("device").into_iter().filter_map(|word| device(scope, word)).collect();
    let command = match arguments.rest.is_empty() {
        true => {
            // The shell is started, and has nothing to do.
            scope.report(scope.warning(arguments.keyword.clone(), "this `RUN` has no command").with_hint("remove it"));
            empty_command(scope, arguments.keyword)
        }
        false => shell_or_exec(scope, arguments.rest.clone())?,
    };
    if command == ShellOrExec::Exec(Vec::new()) {
        scope.defer(scope.error(arguments.rest, "`RUN` needs a command"));
    }
    Some(Instruction::Run(Box::new(Run { command, heredocs: arguments.heredocs, mounts, network, security, devices })))
}

/// Reports what is wrong with a mount. A build looks at most of it only when it comes to the step.
fn check_mount(scope: &mut Scope<'_>, mount: &Word) {
    if mount.text.is_empty() {
        let diagnostic = Diagnostic::error(scope.file, mount.span, "flag `--mount` needs a value");
        return scope.report(diagnostic.with_hint("write `--mount=type=bind,target=/path`"));
    }
    // Without these, nothing can be wrong that is known without variables.
    if !mount.text.bytes().any(|byte| matches!(byte, b'"' | b'$')) {
        return;
    }
    if let Err(diagnostic) = RunMount::check(mount, scope.file) {
        scope.report(*diagnostic);
    }
}

/// One of the words that a flag may say.
fn choice<T: Copy>(scope: &mut Scope<'_>, flag: &str, word: Word, choices: &[(&'static str, T)]) -> Option<Spanned<T>> {
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word.text) {
        return Some(Spanned::new(*choice, word.span));
    }
    let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
    let message = match word.text.is_empty() {
        true => format!("`--{flag}` is empty: it is {}", names.join(" or ")),
        false => format!("`--{flag}` is {}, not `{}`", names.join(" or "), words::shown(&word.text)),
    };
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
    let fields = super::run_mount::fields(&word.text);
    if fields.is_none() {
        mistake = Some("`--device` needs the name of a device, with matching quotes".to_owned());
    }
    for field in fields.unwrap_or_default() {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        match (key.to_ascii_lowercase().as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => match super::run_mount::boolean(value) {
                Some(required) => device.required = required,
                None => mistake = Some(format!("`required` is true or false, not `{}`", words::shown(value))),
            },
            ("name", Some(value)) if device.name.is_empty() => value.clone_into(&mut device.name),
            ("name", Some(_)) => mistake = Some("`--device` takes one name".to_owned()),
            _ if device.name.is_empty() => field.clone_into(&mut device.name),
            _ => mistake = Some(format!("unexpected `{}` in `--device`", words::shown(&field))),
        }
    }
    if device.name.is_empty() && mistake.is_none() {
        let diagnostic = Diagnostic::error(scope.file, word.span, "`--device` needs the name of a device");
        scope.defer(diagnostic.with_hint("write `--device=vendor.com/class=name,required`"));
    }
    let Some(message) = mistake else { return Some(Spanned::new(device, word.span)) };
    let diagnostic = Diagnostic::error(scope.file, word.span, message);
    scope.report(diagnostic.with_hint("write `--device=vendor.com/class=name,required`"));
    None
}
