//! Build checks of single instructions, in the state that the stage has when they are reached.
//!
//! They look only at stages that the build needs, and at triggers where they are pulled (their place is then the `FROM`), as BuildKit does. Nothing here changes what
//! is built, and mistakes are left to the lowering itself. Which rules are on is not known here.

use super::{Lowering, MAX_HINTS, NOT_IN_ENV, StageState, expand_word};
use crate::diag::{Diagnostic, MAX_FOUND, RuleId, Span, did_you_mean};
use crate::parser::{CopyPaths, Expanded, Instruction, KeyValue, Mode, ShellOrExec, Statement, Word};

/// What checks remember of a stage.
#[derive(Clone, Debug, Default)]
pub(super) struct StageChecks {
    /// Whether a `WORKDIR` of this file was there, also one of the stages below.
    has_workdir: bool,
    /// Where the last `CMD`, `ENTRYPOINT` and `HEALTHCHECK` of the stage itself stand.
    last: [Option<Span>; 3],
}

impl StageChecks {
    /// What a stage that starts from this one begins with.
    pub(super) fn inherited(&self) -> StageChecks {
        StageChecks { has_workdir: self.has_workdir, last: [None; 3] }
    }
}

/// The words of a variable's name that mean a secret, and those that mean that it is none.
const SECRET: &[&str] = &["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
const NO_SECRET: &[&str] = &["public", "file", "version"];

impl Lowering<'_, '_> {
    /// Checks an instruction that is about to be lowered.
    pub(super) fn check(&mut self, state: &mut StageState, statement: &Statement) {
        match &statement.instruction {
            Instruction::Cmd(command) => {
                self.check_command(state, statement, command);
                self.check_repeated(state, statement, 0);
            }
            Instruction::Entrypoint(command) => {
                self.check_command(state, statement, command);
                self.check_repeated(state, statement, 1);
            }
            Instruction::Healthcheck(_) => self.check_repeated(state, statement, 2),
            Instruction::Env(pairs) => {
                self.check_legacy(statement, pairs);
                pairs.iter().for_each(|pair| self.check_secret(state, statement, &pair.key));
            }
            Instruction::Label(pairs) => self.check_legacy(statement, pairs),
            Instruction::Arg(declarations) => {
                declarations.iter().for_each(|declaration| self.check_secret(state, statement, &declaration.name));
            }
            Instruction::Workdir(path) => self.check_workdir(state, path),
            Instruction::Expose(ports) => ports.iter().for_each(|word| self.check_ports(state, word)),
            Instruction::Copy(copy) if copy.from.is_none() => self.check_sources(state, statement, &copy.paths),
            Instruction::Add(add) => self.check_sources(state, statement, &add.paths),
            _ => {}
        }
    }

    fn warn(&mut self, rule: &'static str, span: Span, message: String) -> Option<&mut Diagnostic> {
        if self.outcome.warnings.len() >= MAX_FOUND {
            return None;
        }
        let span = self.trigger_span.unwrap_or(span);
        self.outcome.warnings.push(Diagnostic::warning(&self.file, span, message).with_rule(RuleId(rule)));
        self.outcome.warnings.last_mut()
    }

    fn warn_with(&mut self, rule: &'static str, span: Span, message: String, hint: String) {
        if let Some(warning) = self.warn(rule, span, message) {
            warning.hint = Some(hint);
        }
    }

    /// A command that a shell runs. A `SHELL`, here or in the base image, says that the shell is meant.
    fn check_command(&mut self, state: &StageState, statement: &Statement, command: &ShellOrExec) {
        let ShellOrExec::Shell(word) = command else { return };
        if !state.config.config.shell.is_empty() {
            return;
        }
        let keyword = statement.keyword.value.to_ascii_uppercase();
        let span = if word.text.is_empty() { statement.keyword.span } else { word.span };
        let message = format!("a shell runs this `{keyword}`, so that signals do not reach the program");
        let hint = match word.text.starts_with('[') {
            true => "this is no valid JSON: elements stand in double quotes, with commas between them".to_owned(),
            false => format!("write `{keyword} [\"program\", \"argument\"]`"),
        };
        self.warn_with("JSONArgsRecommended", span, message, hint);
    }

    /// Instructions of which only the last one of a stage counts: the earlier one is told of.
    fn check_repeated(&mut self, state: &mut StageState, statement: &Statement, slot: usize) {
        let span = self.trigger_span.unwrap_or(statement.keyword.span);
        let Some(earlier) = state.checks.last[slot].replace(span) else { return };
        if self.outcome.warnings.len() >= MAX_FOUND {
            return;
        }
        let message = format!("only the last `{}` of a stage counts", statement.keyword.value.to_ascii_uppercase());
        let warning = Diagnostic::warning(&self.file, earlier, message).with_rule(RuleId("MultipleInstructionsDisallowed"));
        self.outcome.warnings.push(warning.with_related(span, "this one takes its place"));
    }

    fn check_legacy(&mut self, statement: &Statement, pairs: &[KeyValue]) {
        for pair in pairs.iter().filter(|pair| pair.legacy) {
            let keyword = statement.keyword.value.to_ascii_uppercase();
            let hint = format!("write `{keyword} {}=value`", pair.key.text);
            self.warn_with(
                "LegacyKeyValueFormat",
                pair.key.span.to(pair.value.span),
                format!("`{keyword} name value` is an old form"),
                hint,
            );
        }
    }

    fn check_secret(&mut self, state: &StageState, statement: &Statement, name: &Word) {
        let Some(text) = self.quietly(state, name) else { return };
        if !is_secret(&text) {
            return;
        }
        let keyword = statement.keyword.value.to_ascii_uppercase();
        let message = format!("`{keyword} {text}` looks like a secret, which anyone can read in the image or its history");
        let hint = "give it to the steps that need it with `RUN --mount=type=secret`".to_owned();
        self.warn_with("SecretsUsedInArgOrEnv", name.span, message, hint);
    }

    fn check_workdir(&mut self, state: &mut StageState, path: &Word) {
        if std::mem::replace(&mut state.checks.has_workdir, true) {
            return;
        }
        let Some(text) = self.quietly(state, path).filter(|text| !text.starts_with('/')) else { return };
        let message = format!("the relative path `{text}` depends on what the base image has as its working directory");
        let hint = format!("write it from the root, such as `/{}`", text.trim_start_matches("./"));
        self.warn_with("WorkdirRelativePath", path.span, message, hint);
    }

    fn check_ports(&mut self, state: &StageState, word: &Word) {
        let escape = self.request.dockerfile.directives.escape;
        let Ok(expanded) = word.expand(escape, &*state.env, Mode::Split) else { return };
        for port in &expanded.words {
            let (host, container) = port.rsplit_once(':').unwrap_or(("", port));
            if let Some((_, protocol)) = container.split_once('/')
                && protocol.bytes().any(|b| b.is_ascii_uppercase())
            {
                self.warn("ExposeProtoCasing", word.span, format!("the protocol `{protocol}` should be in lower case"));
            }
            if host.contains(|c| c != ':') {
                let hint = "ports of the host are chosen when the container is run".to_owned();
                self.warn_with("ExposeInvalidFormat", word.span, format!("`{port}` names more than a port of the container"), hint);
            }
        }
    }

    /// Sources in the build context that the ignore file hides.
    fn check_sources(&mut self, state: &StageState, statement: &Statement, paths: &CopyPaths) {
        let Some(ignored) = self.request.checks.ignored else { return };
        for word in &paths.sources {
            let Some(source) = self.quietly(state, word) else { continue };
            if source.contains("://") || source.starts_with("git@") {
                continue;
            }
            let path = clean(&source);
            if ignored(&path) {
                let keyword = statement.keyword.value.to_ascii_uppercase();
                let message = format!("the ignore file hides `{path}`, so that `{keyword}` does not find it");
                self.warn("CopyIgnoredFile", word.span, message);
            }
        }
    }

    fn quietly(&self, state: &StageState, word: &Word) -> Option<String> {
        expand_word(word, self.request.dockerfile.directives.escape, &state.env).ok().map(|expanded| expanded.text)
    }

    /// Variables that a word used and that nothing set or declared. As in BuildKit, a fallback is no excuse, and one that is not needed is looked at too.
    pub(super) fn warn_undefined(&mut self, word: &Word, expanded: &Expanded, state: &StageState) {
        // A declaration without a value says that the variable may be missing.
        let unknown = |name: &&String| !state.args.contains(name) && !NOT_IN_ENV.contains(&name.as_str());
        for name in expanded.undefined.iter().filter(unknown) {
            self.undefined += 1;
            let is_hinted = self.undefined <= MAX_HINTS;
            let Some(warning) = self.warn("UndefinedVar", word.span, format!("usage of undefined variable `${name}`")) else { return };
            if is_hinted && let Some(near) = did_you_mean(name, state.env.names()) {
                warning.hint = Some(format!("did you mean `${near}`?"));
            }
        }
    }
}

/// Whether a variable's name says that it holds a secret: one of its words, between underscores.
pub fn is_secret(name: &str) -> bool {
    let has = |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
    has(SECRET) && !has(NO_SECRET)
}

/// A path without `.`, `//` and `..`, as Go's `filepath.Clean` makes it.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match part {
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_of_a_name_makes_it_a_secret_unless_another_says_that_it_is_none() {
        for name in ["KEY", "api_key", "SECRET_PASSPHRASE", "super_duper_secret_token", "auth", "DB_PASSWORD", "_token", "git_key"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["KEYRING", "keyboard", "tokens", "PUBLIC_KEY", "public_token", "SECRET_FILE", "KEY_VERSION", "sunflower", ""] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn paths_are_cleaned() {
        for (path, cleaned) in [("./a//b/", "a/b"), ("a/../b", "b"), ("../x", "../x"), ("/../x", "/x"), ("./", "."), ("", "."), ("/", "/")]
        {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }
}
