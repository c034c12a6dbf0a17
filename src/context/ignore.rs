//! Ignore rules: `.dockerignore` files and the patterns of COPY's `--exclude`, with the meaning that Docker gives them.
//!
//! A pattern matches a path or any directory above it; the last rule that matches decides; a rule with `!` brings back what earlier ones ignored, also
//! below an ignored directory. What a directory's rules decided is carried down in a [`DirectoryState`], exactly as Docker's walk does, and this shows in
//! one corner: a negation counts for a directory only if something was ignored there by then (`a/b` and then `!a` leaves `a/b` ignored).
//!
//! Patterns are cleaned twice, as they are on their way through Docker: first as lines of a file, then as patterns. That shows as well: `/!a` is a negation.
//! This file reads no files.

use crate::path::RootPath;

use super::error::{BadPattern, Error};
use super::pattern::Matcher;

/// The rules of one ignore file, in order.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    rules: Vec<Rule>,
    negations: bool,
}

#[derive(Clone, Debug)]
struct Rule {
    matcher: Matcher,
    negated: bool,
    line: usize,
    text: String,
}

/// What the rules say of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// Whether the path is ignored.
    pub ignored: bool,
    /// The rule that decided: its line (from 1) and its text. `None` where no rule matches.
    pub pattern: Option<(usize, &'a str)>,
}

/// What the rules say of a path, and through what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// Whether the path is ignored.
    pub ignored: bool,
    /// The rule that decided: its line (from 1) and its text. `None` where no rule matches.
    pub pattern: Option<(usize, &'a str)>,
    /// How many bytes of the path the rule matches: all, or a directory above it.
    pub matched: usize,
}

/// Which rules matched a directory, and so everything below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirectoryState {
    matched: Vec<u64>,
}

impl DirectoryState {
    fn has(&self, rule: usize) -> bool {
        self.matched.get(rule / 64).is_some_and(|word| word & (1 << (rule % 64)) != 0)
    }

    fn add(&mut self, rule: usize) {
        if self.matched.len() <= rule / 64 {
            self.matched.resize(rule / 64 + 1, 0);
        }
        self.matched[rule / 64] |= 1 << (rule % 64);
    }
}

impl IgnoreRules {
    /// Parses an ignore file; `source` is its name for messages.
    pub fn parse(text: &str, source: &str) -> Result<IgnoreRules, Error> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.split('\n').enumerate().filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
        IgnoreRules::build(lines.map(|(index, line)| (index + 1, line.trim(), clean_line(line.trim()))), source)
    }

    /// The same, for the bytes of a file. Comments may be in any encoding; in patterns, a byte that is not UTF-8 is U+FFFD, as in Docker's requests.
    pub fn parse_bytes(bytes: &[u8], source: &str) -> Result<IgnoreRules, Error> {
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
        }
        IgnoreRules::parse(&text, source)
    }

    /// Rules from a list of patterns, such as the values of `--exclude`: `#` starts no comment, and a `/` at the start stays, so that it matches nothing. `source` is their name for messages.
    pub fn from_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>, source: &str) -> Result<IgnoreRules, Error> {
        let numbered = patterns.into_iter().enumerate();
        IgnoreRules::build(numbered.map(|(index, pattern)| (index + 1, pattern, pattern.to_owned())), source)
    }

    /// Rules from lines: number, text as written, pattern.
    fn build<'a>(lines: impl Iterator<Item = (usize, &'a str, String)>, source: &str) -> Result<IgnoreRules, Error> {
        let mut rules = IgnoreRules::default();
        for (line, text, pattern) in lines {
            let pattern = pattern.trim();
            if pattern.is_empty() {
                continue;
            }
            let rule = Rule::parse(pattern, text, line).map_err(|reason| Error::BadIgnorePattern {
                file: source.to_owned(),
                line,
                pattern: text.to_owned(),
                reason,
            })?;
            rules.negations |= rule.negated;
            rules.rules.push(rule);
        }
        Ok(rules)
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether a rule starts with `!`.
    pub fn has_negations(&self) -> bool {
        self.negations
    }

    /// Decides about `path`, whose leading slash is optional. The root itself is never ignored.
    pub fn decide(&self, path: &[u8]) -> Decision<'_> {
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let mut state = DirectoryState::default();
        for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            state = self.enter(&state, &path[..end]);
        }
        self.decide_in(&state, path)
    }

    /// Decides about `path`, and says which directory above it the rule matches. Without leading slash.
    pub fn explain(&self, path: &[u8]) -> Explanation<'_> {
        let mut state = DirectoryState::default();
        let mut above = Vec::new();
        for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            state = self.enter(&state, &path[..end]);
            above.push((end, state.clone()));
        }
        let Some(index) = self.apply(&state, path, |_| ()) else {
            return Explanation { ignored: false, pattern: None, matched: path.len() };
        };
        let matched = above.iter().find(|(_, state)| state.has(index)).map_or(path.len(), |(end, _)| *end);
        let rule = &self.rules[index];
        Explanation { ignored: !rule.negated, pattern: Some((rule.line, &rule.text)), matched }
    }

    /// Decides about a path in a tree.
    pub fn decide_path(&self, path: &RootPath) -> Decision<'_> {
        self.decide(path.as_bytes())
    }

    /// Decides about `path`, an entry of the directory that `parent` was made for. Without leading slash.
    pub fn decide_in(&self, parent: &DirectoryState, path: &[u8]) -> Decision<'_> {
        let decided_by = self.apply(parent, path, |_| ());
        match decided_by.and_then(|index| self.rules.get(index)) {
            Some(rule) => Decision { ignored: !rule.negated, pattern: Some((rule.line, &rule.text)) },
            None => Decision { ignored: false, pattern: None },
        }
    }

    /// The state to decide about the entries of `directory`, itself an entry of the directory that `parent` was made for.
    pub fn enter(&self, parent: &DirectoryState, directory: &[u8]) -> DirectoryState {
        let mut state = DirectoryState::default();
        self.apply(parent, directory, |rule| state.add(rule));
        state
    }

    /// Whether a negation may match something below `directory` (without leading slash): if not, an ignored directory need not be looked into.
    pub fn may_reinclude_below(&self, directory: &[u8]) -> bool {
        self.negations && self.rules.iter().any(|rule| rule.negated && rule.matcher.may_match_below(directory))
    }

    /// Runs the rules; tells `matched` of each that matches and returns the last one.
    fn apply(&self, parent: &DirectoryState, path: &[u8], mut matched: impl FnMut(usize)) -> Option<usize> {
        let mut ignored = false;
        let mut last = None;
        if path.is_empty() || path == b"." {
            return None;
        }
        for (index, rule) in self.rules.iter().enumerate() {
            // A rule that would not change anything is not tried, and so does not count as matched for what is below.
            if parent.has(index) || (rule.negated == ignored && rule.matcher.matches(path)) {
                matched(index);
                ignored = !rule.negated;
                last = Some(index);
            }
        }
        last
    }
}

impl Rule {
    fn parse(pattern: &str, text: &str, line: usize) -> Result<Rule, BadPattern> {
        let cleaned = clean(pattern);
        let (pattern, negated) = match cleaned.strip_prefix('!') {
            Some("") => return Err(BadPattern::LoneNegation),
            Some(pattern) => (pattern, true),
            None => (cleaned.as_str(), false),
        };
        let matcher = Matcher::new(pattern)?;
        Ok(Rule { matcher, negated, line, text: text.to_owned() })
    }
}

/// The pattern that a line of a file gives: clean and relative behind its `!`.
fn clean_line(line: &str) -> String {
    let (negation, path) = match line.strip_prefix('!') {
        Some(path) => ("!", path.trim()),
        None => ("", line),
    };
    if path.is_empty() {
        return negation.to_owned();
    }
    let cleaned = clean(path);
    let relative = cleaned.strip_prefix('/').filter(|relative| !relative.is_empty()).unwrap_or(&cleaned);
    format!("{negation}{relative}")
}

/// Go's `path.Clean`: no `.`, no `//`, `..` taken back where there is something to take back; `.` for nothing.
fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            name => parts.push(name),
        }
    }
    let cleaned = parts.join("/");
    match (rooted, cleaned.is_empty()) {
        (true, _) => format!("/{cleaned}"),
        (false, true) => ".".to_owned(),
        (false, false) => cleaned,
    }
}
