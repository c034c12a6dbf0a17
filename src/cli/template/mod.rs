//! Go's text templates over JSON, as `--format` takes them: what scripts use of the language, with the functions that Docker adds.
//!
//! Not there: `define`, `template` and `block`, methods of Go's types but `.Label "KEY"`, and functions on functions. Values are JSON: numbers that are whole are Go's
//! integers, `null` is a missing value.

mod absent;
mod eval;
mod functions;
mod parse;
mod shown;

use serde_json::Value;

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Template(Vec<parse::Node>);

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it, for the user.
    pub(super) fn parse(text: &str) -> Result<Template, String> {
        parse::parse(text).map(Template)
    }

    /// Whether it is text without any action.
    pub(super) fn is_text(&self) -> bool {
        self.0.iter().all(|node| matches!(node, parse::Node::Text(_)))
    }

    /// Whether it shows, or looks at, a field of that name.
    pub(super) fn mentions(&self, field: &str) -> bool {
        parse::mentions(&self.0, field)
    }

    /// What it says of a value.
    pub(super) fn render(&self, value: &Value) -> Result<String, Failure> {
        eval::render(&self.0, value, eval::Purpose::Value)
    }

    /// The line above a table of such lines: fields show their titles, and functions leave them alone.
    pub(super) fn header(&self, titles: &Value) -> Result<String, Failure> {
        eval::render(&self.0, titles, eval::Purpose::Header)
    }
}

/// Why a template has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What is wrong.
    pub(super) message: String,
    /// What there is instead.
    pub(super) hint: Option<String>,
}

impl Failure {
    fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None }
    }
}

#[cfg(test)]
mod tests;
