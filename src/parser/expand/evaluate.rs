//! Evaluates a template: pieces and variables to text.
//!
//! Text in patterns keeps its escape characters, since the pattern has its own use for them.

use std::collections::HashSet;

use super::template::{Action, Part, Variable};
use super::{ExpandError, Expanded, Variables, pattern};

/// Evaluates the pieces of a word; `split` also collects its words.
pub(super) fn evaluate(parts: &[Part<'_>], escape: char, variables: &dyn Variables, split: bool) -> Result<Expanded, ExpandError> {
    let mut evaluation = Evaluation { escape, variables, undefined: Vec::new(), seen: HashSet::new(), substituted: 0 };
    let mut text = String::new();
    let mut words = Words::default();
    for part in parts {
        let start = text.len();
        evaluation.part(part, false, &mut text)?;
        if split {
            match part {
                Part::Text(_) | Part::Variable(_) => words.add(&text[start..]),
                _ => words.add_quoted(&text[start..]),
            }
        }
    }
    Ok(Expanded { text, words: words.finish(), undefined: evaluation.undefined })
}

/// Collects words.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn add(&mut self, text: &str) {
        for c in text.chars() {
            if !c.is_whitespace() {
                self.word.push(c);
            } else if !self.word.is_empty() {
                self.done.push(std::mem::take(&mut self.word));
            }
        }
    }

    fn add_quoted(&mut self, text: &str) {
        self.word.push_str(text);
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

struct Evaluation<'v> {
    escape: char,
    variables: &'v dyn Variables,
    undefined: Vec<String>,
    seen: HashSet<String>,
    /// How many bytes variables have given so far.
    substituted: usize,
}

/// How many bytes the variables of one word may give. More is no use, since the kernel takes no such argument or variable; and a few lines that each repeat
/// the one before (`ENV B=$A$A…`) would fill the memory.
const MAX_SUBSTITUTED: usize = 1 << 20;

impl Evaluation<'_> {
    /// The text of `parts`; `raw` keeps escape characters.
    fn text(&mut self, parts: &[Part<'_>], raw: bool) -> Result<String, ExpandError> {
        let mut text = String::new();
        for part in parts {
            self.part(part, raw, &mut text)?;
        }
        Ok(text)
    }

    fn part(&mut self, part: &Part<'_>, raw: bool, out: &mut String) -> Result<(), ExpandError> {
        match part {
            Part::Text(text) | Part::Single(text) => out.push_str(text),
            Part::Escaped(c) => {
                if raw {
                    out.push(self.escape);
                }
                out.extend(*c);
            }
            Part::Backslash => {
                // A pattern takes one backslash for an escape, so that a literal one is written twice.
                if raw {
                    out.push(self.escape);
                }
                out.push(self.escape);
            }
            Part::Double(parts) => {
                for part in parts {
                    self.part(part, raw, out)?;
                }
            }
            Part::Variable(variable) => self.variable(variable, out)?,
        }
        Ok(())
    }

    fn variable(&mut self, variable: &Variable<'_>, out: &mut String) -> Result<(), ExpandError> {
        let value = self.variables.get(variable.name);
        let missing = |colon: bool| value.as_ref().is_none_or(|value| colon && value.is_empty());
        let Some(action) = &variable.action else {
            let value = self.defined(variable.name, value);
            return self.substitute(variable, &value, out);
        };
        let text = match &**action {
            Action::Default { colon, word } if missing(*colon) => self.text(word, false)?,
            Action::Alternative { colon, word } if !missing(*colon) => self.text(word, false)?,
            Action::Alternative { .. } => return Ok(()),
            Action::Required { colon, message } if missing(*colon) => {
                let message = self.text(message, false)?;
                let why = match (message.is_empty(), value.is_none()) {
                    (false, _) => message.as_str(),
                    (true, true) => "is not allowed to be unset",
                    (true, false) => "is not allowed to be empty",
                };
                return Err(ExpandError::new(variable.range.clone(), format!("{}: {why}", variable.name)));
            }
            Action::Default { .. } | Action::Required { .. } => self.defined(variable.name, value),
            Action::TrimPrefix { longest, pattern } => {
                let pattern = self.pattern(variable, pattern)?;
                let value = self.defined(variable.name, value);
                pattern.trim_prefix(&value, *longest).to_owned()
            }
            Action::TrimSuffix { longest, pattern } => {
                let pattern = self.pattern(variable, pattern)?;
                let value = self.defined(variable.name, value);
                pattern.trim_suffix(&value, *longest).to_owned()
            }
            Action::Replace { all, pattern, replacement } => {
                let pattern = self.pattern(variable, pattern)?;
                let replacement = self.text(replacement, true)?;
                let value = self.defined(variable.name, value);
                pattern.replace(&value, &replacement, *all)
            }
        };
        self.substitute(variable, &text, out)
    }

    fn substitute(&mut self, variable: &Variable<'_>, text: &str, out: &mut String) -> Result<(), ExpandError> {
        self.substituted += text.len();
        if self.substituted > MAX_SUBSTITUTED {
            let message = format!("the variables of this word expand to more than {MAX_SUBSTITUTED} bytes");
            return Err(ExpandError::new(variable.range.clone(), message));
        }
        out.push_str(text);
        Ok(())
    }

    /// The value, or nothing and a note that the name is not set.
    fn defined(&mut self, name: &str, value: Option<String>) -> String {
        value.unwrap_or_else(|| {
            if !self.seen.contains(name) {
                self.seen.insert(name.to_owned());
                self.undefined.push(name.to_owned());
            }
            String::new()
        })
    }

    fn pattern(&mut self, variable: &Variable<'_>, parts: &[Part<'_>]) -> Result<pattern::Pattern, ExpandError> {
        let text = self.text(parts, true)?;
        pattern::Pattern::parse(&text).map_err(|c| {
            ExpandError::new(variable.range.clone(), format!("invalid pattern `{text}` in substitution: invalid escape `\\{c}`"))
        })
    }
}
