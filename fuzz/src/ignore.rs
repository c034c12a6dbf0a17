//! Ignore files: what is read, and what matches.
//!
//! ```text
//! *.log          patterns
//! !keep.log
//! ===
//! a/b.log        paths
//! ```

use std::time::Duration;

use strake::context::{Decision, IgnoreRules, Pattern};

use crate::{cost, reference};

/// Panics where something does not hold for these patterns and paths.
pub fn check(data: &[u8]) {
    let separator = b"\n===\n";
    let at = data.windows(separator.len()).position(|window| window == separator);
    let (patterns, paths) = at.map_or((data, &[][..]), |at| (&data[..at], &data[at + separator.len()..]));
    let patterns = String::from_utf8_lossy(patterns);
    let outcome = cost::within(Duration::from_secs(1), "reading patterns", || IgnoreRules::parse(&patterns, ".dockerignore"));
    let expected = reference::Rules::parse(&patterns);
    let Ok(rules) = outcome else {
        assert!(expected.is_none(), "patterns are refused that nothing is wrong with");
        return;
    };
    for path in paths.split(|byte| *byte == b'\n').take(20) {
        check_path(path, &rules, expected.as_ref());
    }
    check_globs(&patterns, paths);
}

fn check_path(path: &[u8], rules: &IgnoreRules, expected: Option<&reference::Rules>) {
    let clean = !path.is_empty() && path.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b".."));
    if !clean || path.len() > 200 {
        return;
    }
    let Decision { ignored, .. } = cost::within(Duration::from_secs(1), "matching", || rules.decide(path));
    if let Some(expected) = expected.and_then(|expected| expected.ignores(path)) {
        assert_eq!(ignored, expected, "{}", String::from_utf8_lossy(path));
    }
    // A directory that is not searched holds nothing that is brought back.
    for (end, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let directory = &path[..end];
        if rules.decide(directory).ignored && !rules.may_reinclude_below(directory) {
            assert!(ignored, "{} is brought back below a directory that is not searched", String::from_utf8_lossy(path));
        }
    }
}

/// The wildcards of COPY: one name each.
fn check_globs(patterns: &str, names: &[u8]) {
    for line in patterns.lines().filter(|line| line.len() <= 100).take(20) {
        let Ok(pattern) = Pattern::new(line) else { continue };
        for name in names.split(|byte| *byte == b'\n').filter(|name| name.len() <= 100).take(20) {
            let matches = cost::within(Duration::from_secs(1), "matching a name", || pattern.matches(name));
            if !Pattern::is_wildcard(line) && !line.contains('\\') {
                assert_eq!(matches, line.as_bytes() == name, "{line:?} is no wildcard");
            }
        }
    }
}
