//! Parser directives: `# syntax=`, `# escape=` and `# check=` above everything else.
//!
//! They end for good at the first line that is none: a blank line, another comment, an instruction. Frontends are not fetched: every
//! `docker/dockerfile` image names the language that this parser reads, and any other is refused.

use crate::diag::{Diagnostic, SourceFile, Span, Spanned, did_you_mean};

use super::ast::Directives;
use super::lexer::{Lexer, PhysicalLine};

/// Reads the directives; the lexer stands at the line behind them afterwards, and knows the escape character.
pub(super) fn parse(lexer: &mut Lexer<'_>, file: &SourceFile, diagnostics: &mut Vec<Diagnostic>) -> Directives {
    let mut directives = Directives { syntax: None, escape: '\\', check: None };
    let mut escape_seen: Option<Span> = None;
    // A script's first line says how to build with this file; `# syntax` may follow it.
    let shebang = lexer.peek().is_some_and(|line| line.text.starts_with("#!"));
    if shebang {
        lexer.next();
    }
    while let Some(directive) = lexer.peek().and_then(directive) {
        let seen = match directive.key.value.as_str() {
            "syntax" => directives.syntax.as_ref().map(|syntax| syntax.span),
            "check" => directives.check.as_ref().map(|check| check.span),
            "escape" if !shebang => escape_seen,
            _ => break,
        };
        lexer.next();
        if let Some(seen) = seen {
            let message = format!("only one `{}` parser directive may be given", directive.key.value);
            diagnostics.push(Diagnostic::error(file, directive.key.span, message).with_related(seen, "the first one"));
            continue;
        }
        match directive.key.value.as_str() {
            "syntax" => directives.syntax = Some(syntax(directive.value, file, diagnostics)),
            "check" => directives.check = Some(directive.value),
            _ => {
                escape_seen = Some(directive.value.span);
                match directive.value.value.as_str() {
                    "`" => directives.escape = '`',
                    "\\" => directives.escape = '\\',
                    other => diagnostics.push(
                        Diagnostic::error(file, directive.value.span, format!("invalid escape character `{other}`"))
                            .with_hint("it is a backslash or a backtick"),
                    ),
                }
            }
        }
    }
    lexer.set_escape(directives.escape);
    directives
}

struct Directive {
    key: Spanned<String>,
    value: Spanned<String>,
}

/// Reads `# key = value`.
fn directive(line: PhysicalLine<'_>) -> Option<Directive> {
    let at = |part: &str| {
        let start = line.start + (part.as_ptr() as usize - line.text.as_ptr() as usize);
        Span::new(start, start + part.len())
    };
    let (key, value) = line.text.trim_start().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let known = ["syntax", "escape", "check"].into_iter().find(|known| key.eq_ignore_ascii_case(known))?;
    if value.is_empty() {
        return None;
    }
    Some(Directive { key: Spanned::new(known.to_owned(), at(key)), value: Spanned::new(value.to_owned(), at(value)) })
}

/// The frontend's name: the first word. Checks that it is ours.
fn syntax(value: Spanned<String>, file: &SourceFile, diagnostics: &mut Vec<Diagnostic>) -> Spanned<String> {
    let name = value.value.split_whitespace().next().unwrap_or_default().to_owned();
    let span = Span::new(value.span.start, value.span.start + name.len());
    let path = name.strip_prefix("docker.io/").unwrap_or(&name);
    if !path.starts_with("docker/dockerfile") {
        let mut diagnostic = Diagnostic::error(file, span, format!("the frontend `{name}` is not supported"))
            .with_hint("frontend images are not run; `docker/dockerfile` and its variants are built in");
        let repository = path.split([':', '@']).next().unwrap_or_default();
        if did_you_mean(repository, ["docker/dockerfile"]).is_some() {
            diagnostic = diagnostic.with_suggestion(span, "docker/dockerfile:1");
        }
        diagnostics.push(diagnostic);
    }
    Spanned::new(name, span)
}
