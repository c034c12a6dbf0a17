//! Patterns of `${n#p}`, `${n%p}` and `${n/p/r}`: `*` and `?`, no bracket classes.
//!
//! A pattern is a list of segments between its `*`s. The first segment is matched first, each later one as early as it fits, and only the last
//! one decides between the shortest and the longest match; so no backtracking is needed. Neither `*` nor `?` matches the end of a line: a `*` reaches to the
//! end of the line that it begins on, so that all places where the next segment may begin are on one line.
//!
//! The steps of matching are counted, since segments with `?` need not be linear.

use super::unicode;

/// A pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    /// The texts between the `*`s: one more than there are `*`s.
    segments: Vec<Segment>,
}

/// Text without `*`.
#[derive(Debug, Default)]
struct Segment {
    text: String,
    /// For each character of the text whether it is a `?` that matches any character; empty if there is none.
    any: Vec<bool>,
}

/// How many steps matching may still take.
#[derive(Debug)]
pub(super) struct Budget(u64);

/// Matching takes too long, or its outcome is too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Budget {
    pub(super) fn new(steps: u64) -> Budget {
        Budget(steps)
    }

    /// Takes some steps.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), TooLong> {
        self.0 = self.0.checked_sub(steps as u64).ok_or(TooLong)?;
        Ok(())
    }
}

impl Pattern {
    /// Reads a pattern; fails with the character behind a backslash that may not be escaped (`None` at the end).
    pub(super) fn parse(text: &str) -> Result<Pattern, Option<char>> {
        let mut segments = vec![Segment::default()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let (c, any) = match c {
                '*' => {
                    segments.push(Segment::default());
                    continue;
                }
                '?' => (c, true),
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => (c, false),
                    other => return Err(other),
                },
                c => (c, false),
            };
            if let Some(last) = segments.last_mut() {
                last.push(c, any);
            }
        }
        Ok(Pattern { segments })
    }

    /// `value` without the prefix that matches.
    pub(super) fn trim_prefix<'v>(&self, value: &'v str, longest: bool, budget: &mut Budget) -> Result<&'v str, TooLong> {
        Ok(match self.end_of_match(value, 0, longest, budget)? {
            Some(end) => &value[end..],
            None => value,
        })
    }

    /// `value` with the first match replaced by the text as it is, or with all of them replaced by the template; at most about `limit` bytes.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool, limit: usize, budget: &mut Budget) -> Result<String, TooLong> {
        let template = if all { template(replacement) } else { vec![Piece::Text(replacement)] };
        let mut out = String::new();
        let (mut done, mut from) = (0, 0);
        while let Some((start, end)) = self.find(value, from, budget)? {
            out.push_str(&value[done..start]);
            // An empty match directly behind another match does not count.
            if end > done || start == 0 {
                for piece in &template {
                    let text = match piece {
                        Piece::Text(text) => text,
                        Piece::Match => &value[start..end],
                    };
                    budget.spend(text.len() + 1)?;
                    out.push_str(text);
                    if out.len() > limit {
                        return Err(TooLong);
                    }
                }
            }
            done = end;
            // Step over one character, or the same empty match is found again.
            from = if start == end { end + value[end..].chars().next().map_or(1, char::len_utf8) } else { end };
            if !all || from > value.len() {
                break;
            }
        }
        out.push_str(&value[done..]);
        Ok(out)
    }

    /// The first and then longest match that begins at `from` or later.
    fn find(&self, value: &str, mut from: usize, budget: &mut Budget) -> Result<Option<(usize, usize)>, TooLong> {
        while let Some(start) = self.segments[0].find(value, from, value.len(), budget)? {
            if let Some(end) = self.end_of_match(value, start, true, budget)? {
                return Ok(Some((start, end)));
            }
            // What fails here fails wherever else on the line it begins.
            match value[start..].find('\n') {
                Some(end) => from = start + end + 1,
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Where the match that begins at `start` ends.
    fn end_of_match(&self, value: &str, start: usize, longest: bool, budget: &mut Budget) -> Result<Option<usize>, TooLong> {
        let Some((first, later)) = self.segments.split_first() else { return Ok(Some(start)) };
        let Some(mut at) = first.end_at(value, start, budget)? else { return Ok(None) };
        let Some((last, middle)) = later.split_last() else { return Ok(Some(at)) };
        let mut line = end_of_line(value, at, budget)?;
        for segment in middle {
            let Some(found) = segment.find(value, at, line, budget)? else { return Ok(None) };
            let Some(end) = segment.end_at(value, found, budget)? else { return Ok(None) };
            at = end;
            if at > line {
                line = end_of_line(value, at, budget)?;
            }
        }
        let found = if longest { last.find_last(value, at, line, budget)? } else { last.find(value, at, line, budget)? };
        match found {
            Some(found) => last.end_at(value, found, budget),
            None => Ok(None),
        }
    }
}

impl Segment {
    fn push(&mut self, c: char, any: bool) {
        if any && self.any.is_empty() {
            self.any = vec![false; self.text.chars().count()];
        }
        if any || !self.any.is_empty() {
            self.any.push(any);
        }
        self.text.push(c);
    }

    /// Where the segment ends if it matches at `start`.
    fn end_at(&self, value: &str, start: usize, budget: &mut Budget) -> Result<Option<usize>, TooLong> {
        let rest = &value[start..];
        if self.any.is_empty() {
            budget.spend(1 + self.text.len().min(rest.len()))?;
            return Ok(rest.starts_with(self.text.as_str()).then_some(start + self.text.len()));
        }
        let mut chars = rest.chars();
        for (unit, any) in self.text.chars().zip(&self.any) {
            budget.spend(1)?;
            let fits = |c| if *any { c != '\n' } else { c == unit };
            if !chars.next().is_some_and(fits) {
                return Ok(None);
            }
        }
        Ok(Some(value.len() - chars.as_str().len()))
    }

    /// The first place from `from` to `to` where the segment matches.
    fn find(&self, value: &str, from: usize, to: usize, budget: &mut Budget) -> Result<Option<usize>, TooLong> {
        if self.any.is_empty() {
            let window = self.window(value, from, to);
            let found = window.find(self.text.as_str());
            budget.spend(1 + self.text.len().min(window.len()) + found.unwrap_or(window.len()))?;
            return Ok(found.map(|found| from + found));
        }
        for (at, _) in value[from..to].char_indices().chain([(to - from, ' ')]) {
            if self.end_at(value, from + at, budget)?.is_some() {
                return Ok(Some(from + at));
            }
        }
        Ok(None)
    }

    /// The last place from `from` to `to` where the segment matches.
    fn find_last(&self, value: &str, from: usize, to: usize, budget: &mut Budget) -> Result<Option<usize>, TooLong> {
        if self.any.is_empty() {
            let window = self.window(value, from, to);
            let found = window.rfind(self.text.as_str());
            budget.spend(1 + self.text.len().min(window.len()) + window.len() - found.unwrap_or(0))?;
            return Ok(found.map(|found| from + found));
        }
        for (at, _) in [(to - from, ' ')].into_iter().chain(value[from..to].char_indices().rev()) {
            if self.end_at(value, from + at, budget)?.is_some() {
                return Ok(Some(from + at));
            }
        }
        Ok(None)
    }

    /// The part of `value` that holds the matches which begin from `from` to `to`, and no other match of the text.
    fn window<'v>(&self, value: &'v str, from: usize, to: usize) -> &'v str {
        &value[from..value.floor_char_boundary(to.saturating_add(self.text.len()).min(value.len())).max(from)]
    }
}

fn end_of_line(value: &str, at: usize, budget: &mut Budget) -> Result<usize, TooLong> {
    let end = value[at..].find('\n').map_or(value.len(), |end| at + end);
    budget.spend(1 + end - at)?;
    Ok(end)
}

/// A piece of the replacement in `${n//p/r}`.
enum Piece<'r> {
    Text(&'r str),
    /// What the pattern matched.
    Match,
}

/// Reads the replacement of `${n//p/r}`: a `$` that is still in it (from a value, or out of quotes) is special once more. `$0` is what the pattern matched,
/// `$$` a dollar, and any other name stands for nothing.
fn template(mut rest: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    while let Some((before, after)) = rest.split_once('$') {
        pieces.push(Piece::Text(before));
        if let Some(after) = after.strip_prefix('$') {
            pieces.push(Piece::Text("$"));
            rest = after;
            continue;
        }
        let (inner, brace) = after.strip_prefix('{').map_or((after, false), |inner| (inner, true));
        let is_name = |c: char| unicode::is_letter(c) || unicode::is_digit(c) || c == '_';
        let (name, behind) = inner.split_at(inner.find(|c| !is_name(c)).unwrap_or(inner.len()));
        let behind = if brace { behind.strip_prefix('}') } else { Some(behind) };
        match behind {
            Some(behind) if !name.is_empty() => {
                if name == "0" {
                    pieces.push(Piece::Match);
                }
                rest = behind;
            }
            _ => {
                pieces.push(Piece::Text("$"));
                rest = after;
            }
        }
    }
    pieces.push(Piece::Text(rest));
    pieces
}
