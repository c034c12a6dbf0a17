//! What ignore rules mean: a table of documented behaviour, and random patterns against a matcher that is too simple to be wrong.

use super::error::{BadPattern, Error};
use super::ignore::IgnoreRules;
use super::pattern::Matcher;

#[track_caller]
fn rules(text: &str) -> IgnoreRules {
    IgnoreRules::parse(text, ".dockerignore").unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// One pattern, a path, and whether it is ignored (itself or through a parent).
const SINGLE: &[(&str, &str, bool)] = &[
    // `**` alone.
    ("**", "file", true),
    ("**/", "file", true),
    ("**", "dir/file", true),
    ("**/", "dir/file", true),
    ("**", ".hidden/x", true),
    ("**/**", "dir/file", true),
    ("**/**", "file", true),
    ("**/**/**", "a/b/c/d", true),
    ("***", "a/b", true),
    ("****", "a/b", true),
    // `**` at the end.
    ("dir/**", "dir/file", true),
    ("dir/**", "dir/dir2/file", true),
    ("dir/**", "dir", false),
    ("dir/**", "other/dir/file", false),
    ("dir/**", "dirx/file", false),
    ("abc/**", "abc", false),
    ("abc/**", "abc/def", true),
    ("abc/**", "abc/def/ghi", true),
    ("abc**", "abc", true),
    ("abc**", "abcd", true),
    ("abc**", "abcd/e", true),
    ("abc**", "ab", false),
    ("a/**/", "a/b", true),
    ("a/**/", "a", false),
    // `**` at the start.
    ("**/dir", "dir", true),
    ("**/dir", "dir/file", true),
    ("**/dir", "a/dir", true),
    ("**/dir", "a/b/dir/c", true),
    ("**/dir", "adir", false),
    ("**/dir", "a/dirb", false),
    ("**file", "file", true),
    ("**file", "dir/file", true),
    ("**file", "dir/dir/file", true),
    ("**file", "dir/afile", true),
    ("**file", "filea", false),
    ("**/file", "dir/file", true),
    ("**/file", "dir/dir/file", true),
    ("**/file", "dir/afile", false),
    ("**/file*", "dir/dir/file", true),
    ("**/file*", "dir/dir/file.txt", true),
    ("**/file*txt", "dir/dir/file.txt", true),
    ("**/file*.txt", "dir/dir/file.txt", true),
    ("**/file*.txt*", "dir/dir/file.txt", true),
    ("**file*", "afile", false),
    ("**/foo/bar", "foo/bar", true),
    ("**/foo/bar", "dir/foo/bar", true),
    ("**/foo/bar", "dir/dir2/foo/bar", true),
    ("**/foo/bar", "dir/foo/baz", false),
    ("**/.foo", ".foo", true),
    ("**/.foo", "bar.foo", false),
    ("**/.git", "a/.git/config", true),
    ("**/*.txt", "file.txt", true),
    ("**/*.txt", "a/b/file.txt", true),
    ("**/*.txt", "a/b/file.txt2", false),
    ("**/*.txt", "a.txt/b/c", true),
    ("**/**/*.txt", "dir/dir/file.txt", true),
    ("**/**/*.txt", "file.txt", true),
    ("**/**/*.txt2", "dir/dir/file.txt", false),
    ("**.txt", "a.txt", true),
    ("**.txt", "b/a.txt", true),
    // `**` in the middle and on both sides.
    ("**/dir2/*", "dir/dir2/file", true),
    ("**/dir2/*", "dir2/file", true),
    ("**/dir2/*", "dir2", false),
    ("**/dir2/**", "dir/dir2/dir3/file", true),
    ("**/dir2/**", "dir/dir2", false),
    ("a/**/b", "a/b", true),
    ("a/**/b", "a/x/b", true),
    ("a/**/b", "a/x/y/b", true),
    ("a/**/b", "a/xb", false),
    ("a/**/b", "ab", false),
    ("a/**/b", "x/a/b", false),
    ("a/**b", "a/b", true),
    ("a/**b", "a/xb", false),
    ("a/**b", "a/x/b", true),
    ("a**/*.txt", "a/file.txt", true),
    ("a**/*.txt", "a/dir/file.txt", true),
    ("a**/*.txt", "a/dir/dir/file.txt", true),
    ("a**b", "ab", true),
    ("a**b", "axb", false),
    ("a**b", "a/xb", false),
    ("a**b", "ax/b", true),
    ("a/*.txt**", "a/file.txt", true),
    ("a/*.txt**", "a/file.txt.bak/x", true),
    ("**/a/**/b/**/c", "x/a/y/b/z/c", true),
    ("**/a/**/b/**/c", "a/b/c", true),
    ("**/a/**/b/**/c", "b/a/c", false),
    // `*`.
    ("*", "abc", true),
    ("*", ".hidden", true),
    ("*", "ab/c", true),
    ("*c", "abc", true),
    ("*x", "xxx", true),
    ("a*", "a", true),
    ("a*", "abc", true),
    ("a*", "ab/c", true),
    ("a*", "b/a", false),
    ("a*/b", "abc/b", true),
    ("a*/b", "a/c/b", false),
    ("a/*.txt", "a/file.txt", true),
    ("a/*.txt", "a/dir/file.txt", false),
    ("*/temp*", "a/temporary.txt", true),
    ("*/temp*", "a/temp", true),
    ("*/temp*", "a/b/temp", false),
    ("*/temp*", "temp", false),
    ("*/*/temp*", "a/b/temporary.txt", true),
    ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
    ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
    ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
    ("a*b?c*x", "abxbbxdbxebxczzx", true),
    ("a*b?c*x", "abxbbxdbxebxczzy", false),
    ("a*b", "a/b", false),
    (".*", ".foo", true),
    (".*", "foo", false),
    ("dist/*.whl", "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl", true),
    // `?`.
    ("temp?", "tempa", true),
    ("temp?", "temp", false),
    ("temp?", "tempab", false),
    ("abc?def", "abcZdef", true),
    ("abc?def", "abcdef", false),
    ("a?b", "a/b", false),
    ("a?b", "a☺b", true),
    ("a???b", "a☺b", false),
    ("?", "é", true),
    // Classes.
    ("a[b-d]e", "ace", true),
    ("a[b-d]e", "ae", false),
    ("a[b-d]e", "aae", false),
    ("a[^b-d]e", "aze", true),
    ("ab[c]", "abc", true),
    ("ab[e-g]", "abc", false),
    ("ab[^c]", "abc", false),
    ("ab[^e-g]", "abc", true),
    ("a[^a]b", "a☺b", true),
    ("a[^a][^a][^a]b", "a☺b", false),
    ("[a-ζ]*", "α", true),
    ("*[a-ζ]", "A", false),
    ("[\\]a]", "]", true),
    ("[\\-]", "-", true),
    ("[x\\-]", "x", true),
    ("[x\\-]", "-", true),
    ("[x\\-]", "z", false),
    ("[\\-x]", "-", true),
    ("[\\-x]", "a", false),
    ("[ab]/c", "b/c/d", true),
    ("[!a]", "!", true),
    ("[!a]", "b", false),
    // Wildcards in a class are translated as well: `[*]` becomes `[[^/]*]`, any number of `[`, `^` and `/` before a `]`.
    ("[*]", "*", false),
    ("[*]", "x", false),
    ("[*]", "^]", true),
    ("[[:alpha:]]x", "ax", true),
    ("[[:alpha:]]x", "1x", false),
    ("\\d.txt", "7.txt", true),
    ("\\d.txt", "d.txt", false),
    ("a{2}*", "aab", true),
    ("a{2}*", "ab", false),
    ("*.a|b", "x.a.c", true),
    ("a|b", "a", false),
    ("x^*", "x^y", false),
    // Escapes, and what is special elsewhere.
    ("a\\*b", "a*b", true),
    ("a\\*b", "ab", false),
    ("a\\\\", "a\\", true),
    ("\\!keep", "!keep", true),
    ("\\#file", "#file", true),
    ("abc.def", "abcdef", false),
    ("abc.def", "abc.def", true),
    ("abc.def", "abcZdef", false),
    ("a(b)c/def", "a(b)c/def", true),
    ("a(b)c/def", "a(b)c/xyz", false),
    ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
    ("*.|)$(}+{bc", "a.|)$(}+{bc", true),
    ("a^b*", "a^bc", false),
    ("{a,b}", "a", false),
    ("{a,b}", "{a,b}", true),
    // Parents.
    ("docs", "docs", true),
    ("docs", "docs/a/b/c", true),
    ("docs", "src/docs", false),
    ("docs", "docsx", false),
    ("docs/a", "docs/a/b", true),
    ("docs/a", "docs", false),
    // Cleaning.
    ("docs/", "docs", true),
    ("/docs", "docs/x", true),
    ("//docs//", "docs", true),
    ("./docs", "docs", true),
    ("docs/.", "docs", true),
    ("a/../docs", "docs", true),
    ("/../docs", "docs", true),
    ("../docs", "docs", false),
    ("   docs   ", "docs", true),
    ("\tdocs\t", "docs", true),
    ("with space", "with space", true),
    // What stands for nothing.
    (".", "file", false),
    ("/", "file", false),
    ("./", "file", false),
    ("", "file", false),
    ("docs", ".", false),
    ("**", ".", false),
    ("**", "", false),
    // Letters' case counts.
    ("Docs", "docs", false),
];

#[test]
fn a_single_pattern_matches_as_in_docker() {
    assert!(SINGLE.len() > 150);
    for (pattern, path, expected) in SINGLE {
        assert_eq!(rules(pattern).decide(path.as_bytes()).ignored, *expected, "pattern {pattern:?}, path {path:?}");
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
const PATTERN: &str = r"(\*\*/?|\*|\?|a|b|/|\.|\[ab\]|\[\^a\]|\\a){1,9}";
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
