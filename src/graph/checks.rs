//! Build checks of `FROM` lines, which look at every stage of a file, needed or not; and what checks want to know beyond the Dockerfile.
//!
//! They see the values of global arguments; what a `FROM` means is the planner's business, and so are its mistakes.

use std::borrow::Cow;
use std::fmt;

use super::lower::expand_word;
use super::scope::Environment;
use crate::diag::{Diagnostic, MAX_FOUND, RuleId, Span, did_you_mean};
use crate::oci::{Platform, Reference};
use crate::parser::{Dockerfile, Instruction, Stage, Word};

/// What build checks look at, and what they need from outside of the graph.
#[derive(Clone, Copy, Default)]
pub struct CheckScope<'a> {
    /// Whether all stages are planned, not only those that the target reaches.
    pub all_stages: bool,
    /// Whether the ignore rules hide a path of the build context; `None` where that is not known.
    pub ignored: Option<&'a dyn Fn(&str) -> bool>,
}

impl fmt::Debug for CheckScope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckScope").field("all_stages", &self.all_stages).finish_non_exhaustive()
    }
}

/// Checks every `FROM`. `predefined` is what there is before the file's own global `ARG`s, `global` what there is after them.
pub(super) fn check_froms(dockerfile: &Dockerfile, predefined: &Environment, global: &Environment) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    check_defaults(dockerfile, predefined, &mut found);
    for stage in &dockerfile.stages {
        if found.len() >= MAX_FOUND {
            break;
        }
        let mut check = FromCheck { dockerfile, global, found: &mut found };
        check.undefined(&stage.from.image);
        if let Some(platform) = &stage.from.platform {
            check.undefined(platform);
            check.platform(stage, platform);
        }
    }
    found
}

/// Whether the base names are valid when no build argument is given.
fn check_defaults(dockerfile: &Dockerfile, predefined: &Environment, found: &mut Vec<Diagnostic>) {
    let escape = dockerfile.directives.escape;
    let mut defaults = predefined.clone();
    for statement in &dockerfile.global_args {
        let Instruction::Arg(declarations) = &statement.instruction else { continue };
        for declaration in declarations {
            let Some(default) = &declaration.default else { continue };
            let Ok(value) = expand_word(default, escape, &defaults) else { return };
            defaults.set(&declaration.name.text, &value.text);
        }
    }
    for stage in &dockerfile.stages {
        let image = &stage.from.image;
        let name = if image.is_plain(escape) {
            Cow::Borrowed(image.text.as_str())
        } else {
            let Ok(expanded) = expand_word(image, escape, &defaults) else { return };
            Cow::Owned(expanded.text)
        };
        if Reference::check(&name).is_ok() || found.len() >= MAX_FOUND {
            continue;
        }
        let reads = if name.is_empty() { "empty".to_owned() } else { format!("`{name}`, which is no name of an image") };
        let found_here = match image.variables(escape).is_empty() {
            true => warning(dockerfile, "InvalidDefaultArgInFrom", image.span, format!("the base name is {reads}")),
            false => {
                let message = format!("without build arguments, the base name `{}` is {reads}", image.text);
                let hint = "give the ARG before the first FROM a default that makes a valid name";
                warning(dockerfile, "InvalidDefaultArgInFrom", image.span, message).with_hint(hint)
            }
        };
        found.push(found_here);
    }
}

fn warning(dockerfile: &Dockerfile, rule: &'static str, span: Span, message: String) -> Diagnostic {
    Diagnostic::warning(&dockerfile.file, span, message).with_rule(RuleId(rule))
}

struct FromCheck<'a> {
    dockerfile: &'a Dockerfile,
    global: &'a Environment,
    found: &'a mut Vec<Diagnostic>,
}

impl FromCheck<'_> {
    /// Variables that are neither predefined nor declared before the first `FROM`.
    fn undefined(&mut self, word: &Word) {
        let names = word.variables(self.dockerfile.directives.escape);
        for name in names.into_iter().filter(|name| self.global.get(name).is_none()) {
            if self.declared().any(|declared| declared == name) {
                continue;
            }
            let near = did_you_mean(name, self.global.names().chain(self.declared())).map(str::to_owned);
            let message = format!("no ARG before the first FROM declares `{name}`");
            let mut warning = warning(self.dockerfile, "UndefinedArgInFrom", word.span, message);
            warning.hint = Some(match near {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("write `ARG {name}` before the first FROM; an ARG of another stage does not count"),
            });
            self.found.push(warning);
        }
    }

    /// The names of the global `ARG`s, with or without a value.
    fn declared(&self) -> impl Iterator<Item = &str> {
        let declarations = self.dockerfile.global_args.iter().filter_map(|statement| match &statement.instruction {
            Instruction::Arg(declarations) => Some(declarations),
            _ => None,
        });
        declarations.flatten().map(|declaration| declaration.name.text.as_str())
    }

    fn platform(&mut self, stage: &Stage, word: &Word) {
        let escape = self.dockerfile.directives.escape;
        let Ok(expanded) = expand_word(word, escape, self.global) else { return };
        let used = word.variables(escape);
        if used.iter().any(|name| self.global.get(name).is_none()) {
            return;
        }
        if used.iter().eq(["TARGETPLATFORM"].iter()) && self.global.get("TARGETPLATFORM") == Some(expanded.text.as_str()) {
            let message = format!("`--platform={}` says what is so anyway", word.text);
            let warning = warning(self.dockerfile, "RedundantTargetPlatform", word.span, message);
            self.found.push(warning.with_hint("leave it out"));
        }
        if !used.is_empty() {
            return;
        }
        let Ok(platform) = expanded.text.parse::<Platform>() else { return };
        let name = stage.from.name.as_ref().map_or("", |name| name.name.as_str());
        if name.contains(&platform.os) || name.contains(&platform.architecture) {
            return;
        }
        let message = format!("this stage is always for `{}`, whatever is built for", expanded.text);
        let warning = warning(self.dockerfile, "FromPlatformFlagConstDisallowed", word.span, message);
        self.found.push(warning.with_hint("use $BUILDPLATFORM, or put the platform into the stage's name if it is meant"));
    }
}
