//! Diagnostics: what is wrong in which bytes of which file, and what to do about it; and values that must not be shown.
//!
//! Offsets are bytes into the file as it was read. A [`Diagnostic`] is data: the parser, the graph and the executor make them, one
//! renderer ([`render()`]) draws them. This folder does no I/O.

mod diagnostic;
mod redact;
mod render;
mod rule;
mod source;

pub use diagnostic::{Diagnostic, RuleId, Severity, Suggestion};
pub use redact::{SafeUrl, Secret};
pub use render::{Style, render};
pub use rule::{CHECKS_PAGE, MAX_FOUND, MAX_SHOWN, RULES, Rule};
pub use source::{MAX_SIZE, Position, SourceFile, Span, Spanned};

/// An error with all of its causes, on one line.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// The word of `known` that `word` was most likely meant to be, if any is near.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    // Short words are near to everything, so they get less slack.
    let slack = match word.chars().count() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    known
        .into_iter()
        .map(|candidate| (edit_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= slack && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 3 {
        return usize::MAX;
    }
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut cost = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                cost = cost.min(before_last[j - 2] + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::did_you_mean;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["build", "run", "copy", "entrypoint"];
        assert_eq!(did_you_mean("biuld", known), Some("build"));
        assert_eq!(did_you_mean("ENTRYPIONT", known), Some("entrypoint"));
        assert_eq!(did_you_mean("zzz", known), None);
    }
}
