//! Patterns of `${n#p}`, `${n%p}` and `${n/p/r}`: `*` and `?`, no bracket classes.
//!
//! A pattern is a list of segments between its `*`s. The first segment is matched first, each later one as early as it fits, and only the last
//! one decides between the shortest and the longest match; so no backtracking is needed.

/// A pattern.
#[derive(Debug)]
pub(super) struct Pattern {
    /// The texts between the `*`s: one more than there are `*`s.
    segments: Vec<Vec<Unit>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Any,
    Char(char),
}

impl Unit {
    fn fits(self, c: char) -> bool {
        self == Unit::Any || self == Unit::Char(c)
    }
}

impl Pattern {
    /// Reads a pattern; fails with the character behind a backslash that may not be escaped.
    pub(super) fn parse(text: &str) -> Result<Pattern, char> {
        let mut segments = vec![Vec::new()];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let unit = match c {
                '*' => {
                    segments.push(Vec::new());
                    continue;
                }
                '?' => Unit::Any,
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Unit::Char(c),
                    other => return Err(other.unwrap_or(' ')),
                },
                c => Unit::Char(c),
            };
            if let Some(last) = segments.last_mut() {
                last.push(unit);
            }
        }
        Ok(Pattern { segments })
    }

    /// `value` without the prefix that matches.
    pub(super) fn trim_prefix<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        let chars: Vec<char> = value.chars().collect();
        match end_of_match(&self.segments, &chars, 0, longest) {
            Some(end) => &value[bytes(&chars[..end])..],
            None => value,
        }
    }

    /// `value` without the suffix that matches.
    pub(super) fn trim_suffix<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        // A suffix is a prefix of what is read backwards.
        let chars: Vec<char> = value.chars().rev().collect();
        let mut segments = self.segments.clone();
        segments.reverse();
        segments.iter_mut().for_each(|segment| segment.reverse());
        match end_of_match(&segments, &chars, 0, longest) {
            Some(end) => &value[..value.len() - bytes(&chars[..end])],
            None => value,
        }
    }

    /// `value` with the first match, or all of them, replaced.
    pub(super) fn replace(&self, value: &str, replacement: &str, all: bool) -> String {
        let chars: Vec<char> = value.chars().collect();
        let mut out = String::with_capacity(value.len());
        let mut done = 0;
        // An empty match directly behind another match does not count.
        let mut last_end = None;
        let mut from = 0;
        while let Some((start, end)) = self.find(&chars, from) {
            out.extend(&chars[done..start]);
            if start != end || last_end != Some(start) {
                out.push_str(replacement);
            }
            (done, last_end) = (end, Some(end));
            from = end;
            if start == end {
                // Step over one character, or the same empty match is found again.
                out.extend(chars.get(end));
                from = end + 1;
                done = from;
            }
            if !all || from > chars.len() {
                break;
            }
        }
        out.extend(chars.get(done..).unwrap_or_default());
        out
    }

    /// The first and then longest match from `from` on.
    fn find(&self, chars: &[char], from: usize) -> Option<(usize, usize)> {
        let start = find_segment(&self.segments[0], chars, from)?;
        end_of_match(&self.segments, chars, start, true).map(|end| (start, end))
    }
}

/// Where the match that begins at `start` ends.
fn end_of_match(segments: &[Vec<Unit>], chars: &[char], start: usize, longest: bool) -> Option<usize> {
    let (first, later) = segments.split_first()?;
    if !fits_at(first, chars, start) {
        return None;
    }
    let mut at = start + first.len();
    let Some((last, middle)) = later.split_last() else { return Some(at) };
    for segment in middle {
        at = find_segment(segment, chars, at)? + segment.len();
    }
    let found = if longest { find_last_segment(last, chars, at) } else { find_segment(last, chars, at) };
    found.map(|found| found + last.len())
}

fn fits_at(segment: &[Unit], chars: &[char], at: usize) -> bool {
    chars.get(at..at + segment.len()).is_some_and(|window| segment.iter().zip(window).all(|(unit, c)| unit.fits(*c)))
}

fn find_segment(segment: &[Unit], chars: &[char], from: usize) -> Option<usize> {
    (from..=chars.len().checked_sub(segment.len())?).find(|at| fits_at(segment, chars, *at))
}

fn find_last_segment(segment: &[Unit], chars: &[char], from: usize) -> Option<usize> {
    (from..=chars.len().checked_sub(segment.len())?).rev().find(|at| fits_at(segment, chars, *at))
}

fn bytes(chars: &[char]) -> usize {
    chars.iter().map(|c| c.len_utf8()).sum()
}
