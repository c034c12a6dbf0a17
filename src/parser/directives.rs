//! Parser directives: `# syntax=`, `# escape=` and `# check=` above everything else.
//!
//! They end for good at the first line that is none: a blank line, another comment, an instruction. BuildKit looks for them twice. What chooses the
//! frontend and the checks skips a first line with `#!`, takes no blanks before the `#`, and knows two more ways to name a frontend, since the file may be
//! in any language then; what reads the file takes the escape character, and is the one that minds repetitions.
//!
//! Frontends are not fetched: every `docker/dockerfile` image names the language that this parser reads, and any other is refused.

use crate::diag::{Diagnostic, SourceFile, Span, Spanned, did_you_mean};

use super::ast::Directives;
use super::lexer::{Lexer, PhysicalLine};
use super::scope::Found;
use super::words;

/// Whose language a file is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frontend {
    /// This parser's, or one that was misspelled.
    Own,
    /// Another one's.
    Foreign,
}

/// Reads the directives; the lexer stands at the line behind them afterwards, and knows the escape character. `override_syntax` replaces the file's
/// own choice of a frontend.
pub(super) fn parse(lexer: &mut Lexer<'_>, file: &SourceFile, override_syntax: Option<&str>, found: &mut Found) -> (Directives, Frontend) {
    let (syntax, check) = choices(lexer.clone(), file);
    let escape = escape(lexer, file, found);
    lexer.set_escape(escape);
    let mut directives = Directives { syntax, escape, check };
    let frontend = match (override_syntax, &mut directives.syntax) {
        (Some(value), _) => overridden(value, file, found),
        (None, Some(syntax)) => written(syntax, file, found),
        (None, None) => Frontend::Own,
    };
    (directives, frontend)
}

/// Whether a frontend's image, as `# syntax=` and `BUILDKIT_SYNTAX` name it, is the language that this parser reads: `docker/dockerfile` and
/// `docker/dockerfile-upstream` of Docker Hub, in any version.
pub fn is_built_in(image: &str) -> bool {
    let path = image.strip_prefix("index.").unwrap_or(image);
    let path = path.strip_prefix("docker.io/").unwrap_or(if path.len() == image.len() { image } else { "" });
    matches!(path.split([':', '@']).next(), Some("docker/dockerfile" | "docker/dockerfile-upstream"))
}

/// The frontend and the rules of checks.
fn choices(mut lexer: Lexer<'_>, file: &SourceFile) -> (Option<Spanned<String>>, Option<Spanned<String>>) {
    if lexer.peek().is_some_and(|line| line.text.starts_with("#!")) {
        lexer.next();
    }
    let (syntax, check) = (first_of(lexer.clone(), "#", "syntax"), first_of(lexer.clone(), "#", "check"));
    let syntax = syntax.or_else(|| first_of(lexer.clone(), "//", "syntax")).map(|syntax| {
        // Arguments for the frontend may follow.
        let name = syntax.value.split(' ').next().unwrap_or_default().to_owned();
        let span = Span::new(syntax.span.start(), syntax.span.start() + name.len());
        Spanned::new(name, span)
    });
    (syntax.or_else(|| of_json(lexer.rest(), file)), check)
}

/// The first directive `key`, unless something else stands above it.
fn first_of(mut lexer: Lexer<'_>, comment: &str, key: &str) -> Option<Spanned<String>> {
    let mut seen: Vec<&str> = Vec::new();
    while let Some(directive) = lexer.next().and_then(|line| directive(line, line.text.strip_prefix(comment)?)) {
        if directive.key.value == key {
            return Some(directive.value);
        }
        if seen.contains(&directive.key.value) {
            return None;
        }
        seen.push(directive.key.value);
    }
    None
}

/// `syntax` of a file that is a JSON object.
fn of_json(text: &str, file: &SourceFile) -> Option<Spanned<String>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    let syntax = object.get("syntax")?.as_str()?;
    let start = file.text().find("\"syntax\"").unwrap_or(0);
    Some(Spanned::new(syntax.to_owned(), Span::new(start, start + "\"syntax\"".len())))
}

/// The escape character.
fn escape(lexer: &mut Lexer<'_>, file: &SourceFile, found: &mut Found) -> char {
    let mut escape = '\\';
    let mut seen: Vec<(&str, Span)> = Vec::new();
    while let Some(directive) = lexer.peek().and_then(|line| directive(line, line.text.trim_start().strip_prefix('#')?)) {
        lexer.next();
        let (key, span) = (directive.key.value, directive.key.span);
        if let Some((_, first)) = seen.iter().find(|(seen, _)| *seen == key) {
            let message = format!("only one `{key}` parser directive may be given");
            found.push(Diagnostic::error(file, span, message).with_related(*first, "the first one").with_hint("remove one of them"));
            continue;
        }
        seen.push((key, span));
        if key == "escape" {
            match directive.value.value.as_str() {
                "`" => escape = '`',
                "\\" => escape = '\\',
                other => {
                    let message = format!("invalid escape character `{}`", words::shown(other));
                    let diagnostic = Diagnostic::error(file, directive.value.span, message);
                    found.push(diagnostic.with_hint("it is a backslash or a backtick, with nothing behind it"));
                }
            }
        }
    }
    escape
}

struct Directive {
    key: Spanned<&'static str>,
    value: Spanned<String>,
}

/// Reads `key = value`, the part of `line` behind the characters of a comment.
fn directive(line: PhysicalLine<'_>, text: &str) -> Option<Directive> {
    let at = |part: &str| {
        let start = line.start + (part.as_ptr() as usize - line.text.as_ptr() as usize);
        Span::new(start, start + part.len())
    };
    let text = text.trim_start();
    let length = text.bytes().take_while(u8::is_ascii_alphanumeric).count();
    let (key, rest) = text.split_at(length);
    let blanks = ['\t', '\n', '\u{c}', '\r', ' '];
    let rest = rest.trim_start_matches(blanks).strip_prefix('=')?;
    let value = match rest.trim_matches(blanks) {
        // One blank is a value where there is nothing else.
        "" => rest.get(rest.len().checked_sub(1)?..)?,
        value => value,
    };
    let known = ["syntax", "escape", "check"].into_iter().find(|known| key.eq_ignore_ascii_case(known))?;
    Some(Directive { key: Spanned::new(known, at(key)), value: Spanned::new(value.to_owned(), at(value)) })
}

/// Checks the frontend that the file names.
fn written(syntax: &mut Spanned<String>, file: &SourceFile, found: &mut Found) -> Frontend {
    let name = &syntax.value;
    if is_built_in(name) {
        return Frontend::Own;
    }
    let shown: String = name.chars().take(200).collect();
    let mut diagnostic = Diagnostic::error(file, syntax.span, format!("the frontend `{shown}` is not supported"))
        .with_hint("frontend images are not run; `docker/dockerfile` and its versions are built in");
    let repository = name.strip_prefix("docker.io/").unwrap_or(name).split([':', '@']).next().unwrap_or_default();
    let misspelled = repository.len() < 40 && did_you_mean(repository, ["docker/dockerfile"]).is_some();
    if misspelled {
        diagnostic = diagnostic.with_suggestion(syntax.span, "docker/dockerfile:1");
    }
    found.push(diagnostic);
    if misspelled { Frontend::Own } else { Frontend::Foreign }
}

/// Checks the frontend that the build names.
fn overridden(value: &str, file: &SourceFile, found: &mut Found) -> Frontend {
    let name = value.trim().split(' ').next().unwrap_or_default();
    if is_built_in(name) {
        return Frontend::Own;
    }
    let message = format!("the frontend `{name}`, which `BUILDKIT_SYNTAX` asks for, is not supported");
    let first = file.text().lines().next().unwrap_or_default().len();
    found.push(
        Diagnostic::error(file, Span::new(0, first), message)
            .with_hint("frontend images are not run; `docker/dockerfile` and its versions are built in"),
    );
    Frontend::Foreign
}
