//! Draws diagnostics: message, `file:line:column`, the line, a caret, the hint.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::{Diagnostic, RuleId, Severity};

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Plain text.
    Plain,
    /// With terminal colours.
    Colour,
}

/// Draws one diagnostic; the text ends without a line break.
pub fn render(diagnostic: &Diagnostic, style: Style) -> String {
    let text = diagnostic.file.text();
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut snippet = Snippet::source(text).path(diagnostic.file.name()).line_start(1);
    let primary = AnnotationKind::Primary.span(clamp(text, diagnostic.span.range()));
    snippet = snippet.annotation(match &diagnostic.label {
        Some(label) => primary.label(label.as_str()),
        None => primary,
    });
    for (span, label) in &diagnostic.related {
        snippet = snippet.annotation(AnnotationKind::Context.span(clamp(text, span.range())).label(label.as_str()));
    }
    let message = match diagnostic.rule {
        Some(rule) => format!("{} [{}]", diagnostic.message, rule.0),
        None => diagnostic.message.clone(),
    };
    let group = level.primary_title(message.as_str()).element(snippet);
    let renderer = match style {
        Style::Plain => Renderer::plain(),
        Style::Colour => Renderer::styled(),
    };
    let mut drawn = renderer.render(&[group]).to_string();
    if let Some(hint) = &diagnostic.hint {
        drawn.push_str("\nhint: ");
        drawn.push_str(hint);
    }
    if let Some(rule) = diagnostic.rule.and_then(RuleId::rule) {
        drawn.push_str("\nsee: ");
        drawn.push_str(&rule.url());
    }
    drawn
}

/// Keeps a range inside the text, on character boundaries, and on its first line.
fn clamp(text: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let boundary = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, mut end) = (boundary(range.start), boundary(range.end));
    if let Some(newline) = text[start..end.max(start)].find('\n') {
        end = start + newline;
    }
    start..end.max(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::{SourceFile, Span};

    #[test]
    fn drawing_shows_place_line_caret_and_hint() {
        let file = SourceFile::new("Dockerfile", "FROM a\nCOPY --from=biuld /x /y\n");
        let diagnostic =
            Diagnostic::error(&file, Span::new(19, 24), "no stage or image named `biuld`").with_hint("stage `build` is defined on line 1");
        let drawn = render(&diagnostic, Style::Plain);
        for part in ["error: no stage or image named `biuld`", "Dockerfile:2:13", "COPY --from=biuld /x /y", "^^^^^", "hint: stage"] {
            assert!(drawn.contains(part), "{part} in\n{drawn}");
        }
    }

    #[test]
    fn a_rule_is_named_and_linked() {
        let file = SourceFile::new("Dockerfile", "MAINTAINER me\n");
        let warning = Diagnostic::warning(&file, Span::new(0, 10), "it is deprecated").with_rule(RuleId("MaintainerDeprecated"));
        let drawn = render(&warning, Style::Plain);
        assert!(drawn.contains("it is deprecated [MaintainerDeprecated]"), "{drawn}");
        assert!(drawn.ends_with("/docs/checks.md#maintainerdeprecated"), "{drawn}");
    }

    #[test]
    fn spans_outside_of_the_file_do_not_panic() {
        let file = SourceFile::new("f", "é");
        render(&Diagnostic::error(&file, Span::new(1, 900), "x"), Style::Plain);
        render(&Diagnostic::error(&SourceFile::new("f", ""), Span::new(0, 0), "x"), Style::Plain);
    }
}
