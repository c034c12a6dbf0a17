//! What a mistake in a file looks like as data.

use super::{SourceFile, Span};

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something to know; the build goes on.
    Warning,
    /// The build cannot go on.
    Error,
}

/// The name of a rule of the build checks, such as `StageNameCasing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub &'static str);

/// A replacement that would mend a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// What to replace.
    pub span: Span,
    /// With what.
    pub replacement: String,
}

/// One mistake or warning: a message, the bytes that it is about, and what to do.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The rule that found it (build checks only).
    pub rule: Option<RuleId>,
    /// What is wrong: lower case, no final period.
    pub message: String,
    /// The file.
    pub file: SourceFile,
    /// The token that is wrong.
    pub span: Span,
    /// A few words under the caret.
    pub label: Option<String>,
    /// Other places that matter, with a few words each.
    pub related: Vec<(Span, String)>,
    /// What to do, where we know it.
    pub hint: Option<String>,
    /// A replacement that mends it, where we know one.
    pub suggestion: Option<Suggestion>,
}

impl Diagnostic {
    /// An error about the bytes `span` of `file`.
    pub fn error(file: &SourceFile, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            rule: None,
            message: message.into(),
            file: file.clone(),
            span,
            label: None,
            related: Vec::new(),
            hint: None,
            suggestion: None,
        }
    }

    /// A warning about the bytes `span` of `file`.
    pub fn warning(file: &SourceFile, span: Span, message: impl Into<String>) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(file, span, message) }
    }

    /// The same, found by `rule`.
    pub fn with_rule(mut self, rule: RuleId) -> Diagnostic {
        self.rule = Some(rule);
        self
    }

    /// The same with a few words under the caret.
    pub fn with_label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = Some(label.into());
        self
    }

    /// The same with another place that matters.
    pub fn with_related(mut self, span: Span, text: impl Into<String>) -> Diagnostic {
        self.related.push((span, text.into()));
        self
    }

    /// The same with a hint.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Diagnostic {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a replacement that mends it.
    pub fn with_suggestion(mut self, span: Span, replacement: impl Into<String>) -> Diagnostic {
        self.suggestion = Some(Suggestion { span, replacement: replacement.into() });
        self
    }

    /// Whether the build cannot go on.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}
