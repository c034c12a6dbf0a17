//! Evaluates a template: pieces and variables to text.
//!
//! Every piece is evaluated, also a default that is not needed: a mistake in it counts, and so do the variables that it mentions. Text in patterns keeps its
//! escape characters, since the pattern has its own use for them.

use std::collections::HashSet;

use super::pattern::{Budget, Pattern, TooLong};
use super::template::{Action, Part, Variable};
use super::{ExpandError, Expanded, Variables};

/// How many bytes the variables of one word may give. More is no use, since the kernel takes no such argument or variable; and a few lines that each repeat
/// the one before (`ENV B=$A$A…`) would fill the memory.
const MAX_SUBSTITUTED: usize = 1 << 20;

/// How many bytes of values may be fetched and compared with patterns for one word.
const MAX_STEPS: u64 = 1 << 25;

/// Evaluates the pieces of a word; `split` also collects its words.
pub(super) fn evaluate(parts: &[Part<'_>], escape: char, variables: &dyn Variables, split: bool) -> Result<Expanded, ExpandError> {
    let names = Names::default();
    let mut evaluation =
        Evaluation { escape, variables, used: names, undefined: Names::default(), substituted: 0, budget: Budget::new(MAX_STEPS) };
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
    Ok(Expanded { text, words: words.finish(), used: evaluation.used.list, undefined: evaluation.undefined.list })
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

/// Names, each once, in order.
#[derive(Default)]
struct Names {
    list: Vec<String>,
    seen: HashSet<String>,
}

impl Names {
    fn add(&mut self, name: &str) {
        if !self.seen.contains(name) {
            self.seen.insert(name.to_owned());
            self.list.push(name.to_owned());
        }
    }
}

struct Evaluation<'v> {
    escape: char,
    variables: &'v dyn Variables,
    used: Names,
    undefined: Names,
    /// How many bytes variables have given so far.
    substituted: usize,
    budget: Budget,
}

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
        let value = self.value(variable)?;
        let text = match variable.action.as_deref() {
            None => value.unwrap_or_default(),
            Some(action) => self.action(variable, action, value)?,
        };
        self.substituted += text.len();
        if self.substituted > MAX_SUBSTITUTED {
            let message = format!("the variables of this word expand to more than {MAX_SUBSTITUTED} bytes");
            return Err(ExpandError::new(variable.range.clone(), message));
        }
        out.push_str(&text);
        Ok(())
    }

    fn action(&mut self, variable: &Variable<'_>, action: &Action<'_>, value: Option<String>) -> Result<String, ExpandError> {
        let missing = |colon: bool| value.as_ref().is_none_or(|value| colon && value.is_empty());
        match action {
            Action::Default { colon, word } => {
                let word = self.text(word, false)?;
                Ok(if missing(*colon) { word } else { value.unwrap_or_default() })
            }
            Action::Alternative { colon, word } => {
                let word = self.text(word, false)?;
                Ok(if missing(*colon) { String::new() } else { word })
            }
            Action::Required { colon, message } => {
                let message = self.text(message, false)?;
                if !missing(*colon) {
                    return Ok(value.unwrap_or_default());
                }
                let why = match (message.is_empty(), value.is_none()) {
                    (false, _) => message.as_str(),
                    (true, true) => "is not allowed to be unset",
                    (true, false) => "is not allowed to be empty",
                };
                Err(ExpandError::new(variable.range.clone(), format!("{}: {why}", variable.name)))
            }
            Action::TrimPrefix { pattern } => {
                let text = self.text(pattern, true)?;
                let (pattern, longest) = text.strip_prefix('#').map_or((text.as_str(), false), |rest| (rest, true));
                self.trim_prefix(variable, pattern, pattern, &value.unwrap_or_default(), longest)
            }
            Action::TrimSuffix { pattern } => {
                let text = self.text(pattern, true)?;
                let (pattern, longest) = text.strip_prefix('%').map_or((text.as_str(), false), |rest| (rest, true));
                // A suffix is a prefix of what is read backwards.
                let value = value.unwrap_or_default().chars().rev().collect::<String>();
                let rest = self.trim_prefix(variable, &reversed(pattern), pattern, &value, longest)?;
                Ok(rest.chars().rev().collect())
            }
            Action::Replace { all, pattern, replacement } => {
                let pattern = self.text(pattern, true)?;
                let replacement = self.text(replacement, true)?;
                let pattern = parsed(variable, &pattern, &pattern)?;
                let value = value.unwrap_or_default();
                let replaced = pattern.replace(&value, &replacement, *all, MAX_SUBSTITUTED, &mut self.budget);
                replaced.map_err(|why| too_long(variable, why))
            }
        }
    }

    /// `value` without the prefix that matches `pattern`, which mistakes show as `written`.
    fn trim_prefix(
        &mut self,
        variable: &Variable<'_>,
        pattern: &str,
        written: &str,
        value: &str,
        longest: bool,
    ) -> Result<String, ExpandError> {
        let pattern = parsed(variable, pattern, written)?;
        let rest = pattern.trim_prefix(value, longest, &mut self.budget).map_err(|why| too_long(variable, why))?;
        Ok(rest.to_owned())
    }

    /// The value of a variable; notes which names are set and which are not.
    fn value(&mut self, variable: &Variable<'_>) -> Result<Option<String>, ExpandError> {
        let value = self.variables.get(variable.name);
        match &value {
            Some(value) => {
                self.used.add(variable.name);
                self.budget.spend(value.len()).map_err(|why| too_long(variable, why))?;
            }
            None => self.undefined.add(variable.name),
        }
        Ok(value)
    }
}

/// Reads a pattern, which mistakes show as `written`.
fn parsed(variable: &Variable<'_>, pattern: &str, written: &str) -> Result<Pattern, ExpandError> {
    Pattern::parse(pattern).map_err(|escaped| {
        let message = match escaped {
            Some(c) => format!("invalid escape `\\{c}` in the pattern `{written}`"),
            None => format!("the pattern `{written}` ends in a backslash that escapes nothing"),
        };
        let hint = "in a pattern, a backslash stands before `*`, `?`, `\\`, `}` or `/`".to_owned();
        ExpandError { hint: Some(hint), ..ExpandError::new(variable.range.clone(), message) }
    })
}

fn too_long(variable: &Variable<'_>, _: TooLong) -> ExpandError {
    ExpandError::new(variable.range.clone(), "this substitution takes too many steps, or gives too long a text")
}

/// A pattern read backwards, each backslash still before the character that it escapes.
fn reversed(pattern: &str) -> String {
    let mut units: Vec<&str> = Vec::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let next = rest[c.len_utf8()..].chars().next().filter(|_| c == '\\').map_or(0, char::len_utf8);
        let (unit, behind) = rest.split_at(c.len_utf8() + next);
        units.push(unit);
        rest = behind;
    }
    units.into_iter().rev().collect()
}
