//! `skip=A,B;error=true;experimental=C`: which build checks are on, as `# check=` and `BUILDKIT_DOCKERFILE_CHECK` say it.

use crate::diag::{Diagnostic, RULES, SourceFile, Span, did_you_mean};

/// Which rules are on, and whether they matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    skip: Names,
    experimental: Names,
    /// Whether a finding fails the build.
    pub(super) error: bool,
}

/// A list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Names {
    all: bool,
    names: Vec<String>,
}

impl Names {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}

/// The parts of the options; more of them make no sense, and BuildKit takes no more either.
const MAX_PARTS: usize = 3;

impl Options {
    /// Reads options, which are the bytes `span` of `file`. What names no rule is noted, but no mistake: it may be a rule of another version.
    pub(super) fn parse(file: &SourceFile, span: Span, notes: &mut Vec<Diagnostic>) -> Result<Options, Diagnostic> {
        let mut options = Options::default();
        let text = file.slice(span);
        if text.trim().is_empty() {
            return Ok(options);
        }
        let mut start = span.start();
        for part in text.splitn(MAX_PARTS, ';') {
            let at = start;
            start += part.len() + 1;
            let whole = trimmed(part, at);
            let Some((key, value)) = part.split_once('=') else {
                let error = Diagnostic::error(file, whole, format!("`{}` is not an option of the build checks", part.trim()));
                return Err(
                    error.with_hint("write `skip=RULE,RULE`, `skip=all`, `error=true` or `experimental=RULE`, with `;` between them")
                );
            };
            let place = at + key.len() + 1;
            match key.trim() {
                "skip" => options.skip = names(file, value, place, notes),
                "experimental" => options.experimental = names(file, value, place, notes),
                "error" => {
                    options.error = boolean(value.trim()).ok_or_else(|| {
                        let message = format!("`{}` is neither true nor false", value.trim());
                        Diagnostic::error(file, trimmed(value, place), message).with_hint("write `error=true` or `error=false`")
                    })?;
                }
                other => return Err(unknown_option(file, other, trimmed(key, at))),
            }
        }
        Ok(options)
    }

    /// These options with those of one instruction added. Whether a finding is an error is for the whole file to say.
    pub(super) fn merged(&self, more: &Options) -> Options {
        let join = |a: &Names, b: &Names| Names { all: a.all || b.all, names: a.names.iter().chain(&b.names).cloned().collect() };
        Options { skip: join(&self.skip, &more.skip), experimental: join(&self.experimental, &more.experimental), error: self.error }
    }

    /// Whether findings of a rule are shown. `skip=all` is about the ordinary rules: who asks for an experimental one means it.
    pub(super) fn allows(&self, name: &str, experimental: bool) -> bool {
        if self.skip.has(name) {
            return false;
        }
        if experimental { self.experimental.all || self.experimental.has(name) } else { !self.skip.all }
    }
}

fn unknown_option(file: &SourceFile, key: &str, span: Span) -> Diagnostic {
    let error = Diagnostic::error(file, span, format!("`{key}` is not an option of the build checks"));
    match did_you_mean(key, ["skip", "error", "experimental"]) {
        Some(near) => error.with_hint(format!("did you mean `{near}`?")).with_suggestion(span, near),
        None => error.with_hint("the options are `skip`, `error` and `experimental`"),
    }
}

/// Reads a list of rules, which stands at byte `at`.
fn names(file: &SourceFile, value: &str, at: usize, notes: &mut Vec<Diagnostic>) -> Names {
    if value.trim() == "all" {
        return Names { all: true, names: Vec::new() };
    }
    let mut names = Vec::new();
    let mut start = at;
    for part in value.split(',') {
        let (name, span) = (part.trim(), trimmed(part, start));
        start += part.len() + 1;
        if !name.is_empty() && !RULES.iter().any(|rule| rule.id.0 == name) {
            let note = Diagnostic::warning(file, span, format!("there is no build check `{name}`"));
            notes.push(match did_you_mean(name, RULES.iter().map(|rule| rule.id.0)) {
                Some(near) => note.with_hint(format!("did you mean `{near}`?")).with_suggestion(span, near),
                None => note,
            });
        }
        names.push(name.to_owned());
    }
    Names { all: false, names }
}

/// The span of a part without the blanks around it; the part stands at byte `at`.
fn trimmed(part: &str, at: usize) -> Span {
    let start = at + (part.len() - part.trim_start().len());
    Span::new(start, start + part.trim().len())
}

/// The spellings that Go's `strconv.ParseBool` takes.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
