//! Ignore rules once more, as slowly and plainly as can be: every pattern is tried on every prefix of a path, by backtracking with a limit.
//!
//! Written from Docker's documentation, and compared with `strake::context`. Only patterns of letters, digits, `.`, `-`, `_`, `/`, `*` and `?` are
//! compared: what other characters mean is up to moby's regular expressions, which `src/context/regexp.rs` describes.

/// The rules of a file.
pub(crate) struct Rules(Vec<Rule>);

struct Rule {
    pattern: Vec<u8>,
    negated: bool,
}

/// Steps after which a match is given up.
const MAX_STEPS: usize = 100_000;

impl Rules {
    /// `None` where a pattern has characters that are not compared.
    pub(crate) fn parse(text: &str) -> Option<Rules> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for line in text.split('\n').filter(|line| !line.starts_with('#')) {
            let line = line.trim();
            let (negated, pattern) = line.strip_prefix('!').map_or((false, line), |pattern| (true, pattern.trim()));
            if line.is_empty() {
                continue;
            }
            let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_/*?".contains(c);
            if pattern.is_empty() || !pattern.chars().all(is_plain) {
                return None;
            }
            let mut pattern = clean(pattern);
            // To bring back everything is a mistake.
            if pattern == "/" {
                return None;
            }
            if pattern.len() > 1 && pattern.starts_with('/') {
                pattern.remove(0);
            }
            rules.push(Rule { pattern: pattern.into_bytes(), negated });
        }
        Some(Rules(rules))
    }

    /// Whether a path is ignored; `None` where that takes too long to find out.
    ///
    /// Each directory on the way decides for itself, and a rule that matched one counts for all below it.
    pub(crate) fn ignores(&self, path: &[u8]) -> Option<bool> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end).chain([path.len()]);
        let mut above = vec![false; self.0.len()];
        let mut ignored = false;
        for end in ends {
            let mut now = vec![false; self.0.len()];
            ignored = false;
            for (index, rule) in self.0.iter().enumerate() {
                // A rule that changes nothing is not asked.
                let asked = rule.negated == ignored;
                if above[index] || (asked && matches(&rule.pattern, &path[..end])?) {
                    now[index] = true;
                    ignored = !rule.negated;
                }
            }
            above = now;
        }
        Some(ignored)
    }
}

/// Without empty names, `.` and `..`, as far as the latter can be.
fn clean(pattern: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in pattern.split('/') {
        if name.is_empty() || name == "." {
            continue;
        }
        if name == ".." && !names.is_empty() && names[names.len() - 1] != ".." {
            names.pop();
        } else if name != ".." || !pattern.starts_with('/') {
            names.push(name);
        }
    }
    let joined = names.join("/");
    if pattern.starts_with('/') {
        format!("/{joined}")
    } else if joined.is_empty() {
        ".".to_owned()
    } else {
        joined
    }
}

fn matches(pattern: &[u8], text: &[u8]) -> Option<bool> {
    // `**.md` also ends a name in the middle, unless there is another wildcard: moby compares the end of the path then.
    if let Some(suffix) = pattern.strip_prefix(b"**")
        && !suffix.is_empty()
        && !suffix.iter().any(|byte| b"*?".contains(byte))
    {
        return Some(text.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(text));
    }
    let mut steps = 0;
    search(pattern, text, &mut steps)
}

fn search(pattern: &[u8], text: &[u8], steps: &mut usize) -> Option<bool> {
    *steps += 1;
    if *steps > MAX_STEPS {
        return None;
    }
    let Some((&first, rest)) = pattern.split_first() else { return Some(text.is_empty()) };
    match first {
        b'*' if rest.first() == Some(&b'*') => {
            let rest = &rest[1..];
            let rest = rest.strip_prefix(b"/").unwrap_or(rest);
            // No line break can be passed.
            let limit = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
            if rest.is_empty() {
                return Some(limit == text.len());
            }
            let ends = std::iter::once(0).chain((1..=limit).filter(|end| text[end - 1] == b'/'));
            first_true(ends, |end| search(rest, &text[end..], steps))
        }
        b'*' => {
            let limit = text.iter().position(|byte| *byte == b'/').unwrap_or(text.len());
            let ends = (0..=limit).filter(|end| *end == 0 || is_boundary(text, *end));
            first_true(ends, |end| search(rest, &text[end..], steps))
        }
        b'?' => match character(text) {
            Some((c, length)) if c != '/' => search(rest, &text[length..], steps),
            _ => Some(false),
        },
        literal => match text.split_first() {
            Some((next, text)) if *next == literal => search(rest, text, steps),
            _ => Some(false),
        },
    }
}

fn first_true(ends: impl Iterator<Item = usize>, mut search: impl FnMut(usize) -> Option<bool>) -> Option<bool> {
    for end in ends {
        if search(end)? {
            return Some(true);
        }
    }
    Some(false)
}

/// Whether a character ends here: bytes that are no UTF-8 are one each.
fn is_boundary(text: &[u8], end: usize) -> bool {
    let mut at = 0;
    while at < end {
        at += character(&text[at..]).map_or(1, |(_, length)| length);
    }
    at == end
}

fn character(text: &[u8]) -> Option<(char, usize)> {
    (1..=4.min(text.len()))
        .find_map(|length| std::str::from_utf8(&text[..length]).ok()?.chars().next().map(|c| (c, length)))
        .or_else(|| (!text.is_empty()).then_some((char::REPLACEMENT_CHARACTER, 1)))
}
