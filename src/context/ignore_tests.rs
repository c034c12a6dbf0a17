//! What ignore rules mean: a table of documented behaviour, and random patterns against a matcher that is too simple to be wrong.

use super::error::{BadPattern, Error};
use super::ignore::IgnoreRules;
use super::pattern::Matcher;

#[track_caller]
fn rules(text: &str) -> IgnoreRules {
    IgnoreRules::parse(text, ".dockerignore").unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// Every case of `testdata/ignore`: lines of an ignore file (`|`), then what they do with paths, or the line that is refused. Their meaning was compared with
/// moby's own matcher.
#[test]
fn every_case_of_the_test_data_is_decided_as_in_docker() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/ignore");
    let (mut checks, mut failures) = (0, String::new());
    for file in ["patterns.txt", "files.txt", "refused.txt"] {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        for case in text.split("\n\n") {
            let rules: Vec<&str> = case.lines().filter_map(|line| line.strip_prefix('|')).collect();
            let parsed = IgnoreRules::parse(&rules.join("\n"), file);
            for line in case.lines().filter(|line| !line.starts_with(['|', '#'])) {
                let (expected, path) = line.split_once(' ').unwrap();
                let actual = match &parsed {
                    Ok(rules) if rules.decide(path.as_bytes()).ignored => "ignored".to_owned(),
                    Ok(_) => "kept".to_owned(),
                    Err(Error::BadIgnorePattern { line, .. }) if *line == path.parse().unwrap_or(0) => "bad".to_owned(),
                    Err(error) => error.to_string(),
                };
                checks += 1;
                if actual != expected {
                    failures.push_str(&format!("{file}: {rules:?}: {path:?} is {actual}, not {expected}\n"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
    assert!(checks > 400, "only {checks} checks");
}

#[test]
fn the_context_itself_is_never_ignored() {
    for pattern in ["docs", "**", ".", "*"] {
        assert!(!rules(pattern).decide(b".").ignored && !rules(pattern).decide(b"").ignored);
    }
    assert!(!rules("").decide(b"file").ignored);
}

#[test]
fn an_explanation_names_the_directory_that_the_pattern_matches() {
    let rules = rules("docs\n!docs/a/*\ndocs/a/b/c\n");
    for (path, expected) in [
        (&b"docs/x/y"[..], (true, Some((1, "docs")), 4)),
        (b"docs", (true, Some((1, "docs")), 4)),
        (b"docs/a/b/z", (false, Some((2, "!docs/a/*")), 8)),
        (b"docs/a/b/c", (true, Some((3, "docs/a/b/c")), 10)),
        (b"src", (false, None, 3)),
    ] {
        let explained = rules.explain(path);
        assert_eq!((explained.ignored, explained.pattern, explained.matched), expected);
    }
}

/// A file, a path, and the line that decides (0 for none) with whether the path is ignored.
const FILES: &[(&str, &str, usize, bool)] = &[
    ("docs\n!docs/README.md", "docs/README.md", 2, false),
    ("docs\n!docs/README.md", "docs/other", 1, true),
    ("docs/\n!docs/README.md", "docs/README.md", 2, false),
    ("docs/*\n!docs/README.md", "docs/README.md", 2, false),
    ("!fileutils.go\n*.go", "fileutils.go", 2, true),
    ("*.go\n!fileutils.go", "fileutils.go", 2, false),
    ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", 3, true),
    ("*.md\n!README*.md\nREADME-secret.md", "README-open.md", 2, false),
    ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", 3, false),
    ("**\n!util/docker/web", "util/docker/web/foo", 2, false),
    ("**\n!util/docker/web", "util/docker/other", 1, true),
    ("**\n!util/docker/web\nutil/docker/web/foo", "util/docker/web/foo", 3, true),
    ("**\n!dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", 2, false),
    ("*\n!src", "src/deep/down", 2, false),
    ("*\n!src\nsrc/target", "src/target/x", 3, true),
    ("*\n!src\nsrc/target\n!src/target/keep", "src/target/keep/y", 4, false),
    ("node_modules\n!node_modules/keep/**", "node_modules/keep/a/b", 2, false),
    ("!a", "a", 0, false),
    // A negation counts for a directory only once something is ignored there.
    ("a/b\n!a", "a/b", 1, true),
    ("a\n!a\na/b", "a/b", 3, true),
    // Comments start in the first column, blank lines count.
    ("# a comment\ndocs", "docs", 2, true),
    ("#docs\n", "#docs", 0, false),
    (" #docs", "#docs", 1, true),
    ("\n\n  \ndocs\n", "docs", 4, true),
    // Line ends and the byte order mark.
    ("docs\r\n!docs/a\r\n", "docs/a", 2, false),
    ("\u{feff}docs", "docs", 1, true),
    ("\u{feff}# docs", "docs", 0, false),
    ("docs\n\u{feff}x", "x", 0, false),
    // Negations are cleaned as well.
    ("*\n! /docs/", "docs/a", 2, false),
    ("*\n!./docs", "docs/a", 2, false),
    ("  !docs", "docs", 0, false),
    ("*\n  !docs  ", "docs", 2, false),
    ("*\n!.", "docs", 1, true),
];

#[test]
fn the_last_matching_line_decides() {
    for (text, path, line, ignored) in FILES {
        let rules = rules(text);
        let decision = rules.decide(path.as_bytes());
        assert_eq!((decision.pattern.map_or(0, |(line, _)| line), decision.ignored), (*line, *ignored), "rules {text:?}, path {path:?}");
    }
}

#[test]
fn a_leading_slash_of_the_path_changes_nothing() {
    let rules = rules("docs\n!docs/a");
    assert!(rules.decide(b"/docs").ignored);
    assert!(!rules.decide(b"/docs/a").ignored);
}

#[test]
fn a_bad_pattern_is_reported_with_its_line() {
    for (pattern, expected) in [
        ("[", BadPattern::OpenClass),
        ("a[", BadPattern::OpenClass),
        ("[^", BadPattern::OpenClass),
        ("[^bc", BadPattern::OpenClass),
        ("[a-", BadPattern::OpenClass),
        ("[]a]", BadPattern::BadClass),
        ("[-]", BadPattern::BadClass),
        ("[x-]", BadPattern::BadClass),
        ("[-x]", BadPattern::BadClass),
        ("[a-b-c]", BadPattern::BadClass),
        ("[]", BadPattern::BadClass),
        ("[^]", BadPattern::BadClass),
        ("[Local-Only]/", BadPattern::ReversedRange),
        ("a\\", BadPattern::TrailingEscape),
        ("!", BadPattern::LoneNegation),
        ("! ", BadPattern::LoneNegation),
        ("!/", BadPattern::LoneNegation),
    ] {
        let text = format!("# first\nfine\n{pattern}\n");
        match IgnoreRules::parse(&text, "x.dockerignore") {
            Err(Error::BadIgnorePattern { file, line, pattern: reported, reason }) => {
                assert_eq!(
                    (file.as_str(), line, reported.as_str(), reason),
                    ("x.dockerignore", 3, pattern.trim(), expected),
                    "{pattern:?}"
                );
            }
            other => panic!("{pattern:?} gave {other:?}"),
        }
    }
}

#[test]
fn patterns_of_an_option_know_no_comments() {
    let rules = IgnoreRules::from_patterns(["#a", "b/", "!b/keep", "/c"], "--exclude").unwrap();
    assert!(rules.decide(b"#a").ignored);
    assert!(rules.decide(b"b/x").ignored);
    assert!(!rules.decide(b"b/keep").ignored);
    assert!(!rules.decide(b"c").ignored);
}

#[test]
fn lines_are_cleaned_before_their_negation_is_seen() {
    let rules = rules("*\n/!a\n./ !c\n");
    assert!(!rules.decide(b"a").ignored);
    assert!(!rules.decide(b"c").ignored);
    assert!(rules.decide(b"!a").ignored);
}

#[test]
fn only_directories_above_a_negation_are_looked_into() {
    for (text, directory, expected) in [
        ("*", "a", false),
        ("*\n!a/b/c", "a", true),
        ("*\n!a/b/c", "a/b", true),
        ("*\n!a/b/c", "a/b/c", false),
        ("*\n!a/b/c", "ab", false),
        ("*\n!a/b/c", "b", false),
        ("*\n!a/b/**", "a/b", true),
        ("*\n!a/b/**", "a/b/c", true),
        ("*\n!a/b/**", "a/c", false),
        ("*\n!*/x", "a", true),
        ("*\n!*/x", "a/b", false),
        ("*\n!src/*.rs", "src", true),
        ("*\n!src/*.rs", "src/a", false),
        ("*\n!src/*.rs", "docs", false),
        ("*\n!**/*.rs", "any/where", true),
        ("*\n!**/x", "any/where", true),
        ("*\n!src/**/*.rs", "src/any/where", true),
        ("*\n!src/**/*.rs", "docs/any", false),
        ("*\n!sr?/x", "src", true),
        ("*\n!sr[a-d]/x", "src", true),
        ("*\n!sr[e-z]/x", "src", false),
    ] {
        assert_eq!(rules(text).may_reinclude_below(directory.as_bytes()), expected, "rules {text:?}, directory {directory:?}");
    }
}

#[test]
fn many_wildcards_do_not_take_exponential_time() {
    // It ends in a wildcard, so that the end of the path cannot tell at once.
    let pattern = "**/a*".repeat(200) + "?c*";
    let path = "aaaa/".repeat(800) + "b";
    let before = std::time::Instant::now();
    assert!(!rules(&pattern).decide_in(&Default::default(), path.as_bytes()).ignored);
    assert!(before.elapsed().as_secs() < 5, "took {:?}", before.elapsed());
}

#[test]
fn names_that_are_not_utf8_are_matched_by_byte() {
    assert!(rules("a?b").decide(b"a\xffb").ignored);
    assert!(rules("a*").decide(b"a\xff\xfe").ignored);
    assert!(!rules("a?b").decide(b"a\xff\xfeb").ignored);
    assert!(rules("*\n!\u{e9}*").decide(b"\xe9").ignored);
}

/// Patterns over few characters, so that they match now and then.
const PATTERN: &str = r"(\*\*/?|\*|\?|a|b|/|\.|\[ab\]|\[\^a\]|\\\.){1,9}";
const PATH: &str = r"[ab.]{1,3}(/[ab.]{1,3}){0,4}";

mod naive {
    //! Moby's translation of a pattern to a regular expression, and a matcher for these that tries everything.

    pub(super) enum Piece {
        Byte(u8),
        NotSlash,
        NotSlashes,
        Directories,
        Anything,
        OneOf(bool, Vec<u8>),
    }

    pub(super) fn translate(pattern: &str) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut chars = pattern.bytes().peekable();
        while let Some(byte) = chars.next() {
            match byte {
                b'*' if chars.next_if_eq(&b'*').is_some() => {
                    chars.next_if_eq(&b'/');
                    pieces.push(if chars.peek().is_none() { Piece::Anything } else { Piece::Directories });
                }
                b'*' => pieces.push(Piece::NotSlashes),
                b'?' => pieces.push(Piece::NotSlash),
                b'[' => {
                    let negated = chars.next_if_eq(&b'^').is_some();
                    let members: Vec<u8> = chars.by_ref().take_while(|byte| *byte != b']').collect();
                    pieces.push(Piece::OneOf(negated, members));
                }
                b'\\' => pieces.extend(chars.next().map(Piece::Byte)),
                byte => pieces.push(Piece::Byte(byte)),
            }
        }
        pieces
    }

    pub(super) fn matches(pieces: &[Piece], text: &[u8]) -> bool {
        let Some((piece, rest)) = pieces.split_first() else { return text.is_empty() };
        let first = text.first();
        match piece {
            Piece::Byte(byte) => first == Some(byte) && matches(rest, &text[1..]),
            Piece::NotSlash => first.is_some_and(|byte| *byte != b'/') && matches(rest, &text[1..]),
            Piece::OneOf(negated, members) => first.is_some_and(|byte| members.contains(byte) != *negated) && matches(rest, &text[1..]),
            Piece::NotSlashes => (0..=text.len()).take_while(|end| !text[..*end].contains(&b'/')).any(|end| matches(rest, &text[end..])),
            Piece::Directories => (0..=text.len()).filter(|end| *end == 0 || text[end - 1] == b'/').any(|end| matches(rest, &text[end..])),
            Piece::Anything => true,
        }
    }

    /// `**x` with nothing else special is compared with the end of the path.
    pub(super) fn is_suffix(pattern: &str) -> Option<&str> {
        pattern.strip_prefix("**").filter(|rest| !rest.contains(['*', '?', '[', '\\']))
    }
}

proptest::proptest! {
    #[test]
    fn the_matcher_agrees_with_one_that_tries_everything(pattern in PATTERN, path in PATH) {
        // Patterns are clean when they get to the matcher.
        let pattern = pattern.trim_end_matches('/');
        let matcher = Matcher::new(pattern).unwrap();
        let expected = match naive::is_suffix(pattern) {
            Some(suffix) => path.ends_with(suffix) || suffix.strip_prefix('/') == Some(&path),
            None => naive::matches(&naive::translate(pattern), path.as_bytes()),
        };
        proptest::prop_assert_eq!(matcher.matches(path.as_bytes()), expected);
    }

    #[test]
    fn a_directory_that_holds_a_match_is_never_pruned(pattern in PATTERN, path in PATH, below in PATH) {
        let matcher = Matcher::new(pattern.trim_end_matches('/')).unwrap();
        if matcher.matches(format!("{path}/{below}").as_bytes()) {
            proptest::prop_assert!(matcher.may_match_below(path.as_bytes()));
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,60}", path in "\\PC{0,30}") {
        if let Ok(rules) = IgnoreRules::parse(&text, "x") {
            rules.decide(path.as_bytes());
            rules.may_reinclude_below(path.as_bytes());
        }
    }
}
