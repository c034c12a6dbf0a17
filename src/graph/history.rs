//! History entries, in BuildKit's words, so that `docker history` shows a strake image as it shows one of BuildKit's.

use std::borrow::Borrow;

use crate::oci::{HealthConfig, HistoryEntry, go_duration};

/// The remark on every entry that a Dockerfile made.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// Whether an instruction makes a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// It makes one, and its text ends in `# buildkit`.
    Marked,
    /// It makes one (`WORKDIR`).
    Plain,
    /// It changes the config only.
    None,
}

/// An entry; its time is set when the image is assembled.
pub(super) fn entry(text: &str, layer: Layer) -> HistoryEntry {
    let text = if layer == Layer::Marked { format!("{text} # buildkit") } else { text.to_owned() };
    HistoryEntry {
        created: None,
        created_by: Some(text),
        author: None,
        comment: Some(COMMENT.to_owned()),
        empty_layer: layer == Layer::None,
    }
}

/// A list of strings as Go prints it with `%q`: `["a" "b"]`.
pub(super) fn quoted_list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("[{}]", words.join(" "))
}

/// A string as Go prints it with `%q`.
fn quoted(word: &str) -> String {
    let mut out = String::from('"');
    word.chars().for_each(|c| escape(&mut out, c, '"'));
    out.push('"');
    out
}

/// A number as Go prints it with `%q`: as the character that it is the number of.
fn quoted_number(number: i64) -> String {
    let c = u32::try_from(number).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER);
    let mut out = String::from('\'');
    escape(&mut out, c, '\'');
    out.push('\'');
    out
}

/// A character inside of such quotes.
fn escape(out: &mut String, c: char, quote: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\x0b' => out.push_str("\\v"),
        c if c == quote => out.extend(['\\', c]),
        c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => out.push(c),
    }
}

/// A list of strings as Go prints it with `%v`: `[a b]`.
pub(super) fn plain_list(words: &[impl Borrow<str>]) -> String {
    format!("[{}]", words.join(" "))
}

/// A health check as Go prints a pointer to the structure with `%q`.
pub(super) fn healthcheck(check: &HealthConfig) -> String {
    let durations = [check.interval, check.timeout, check.start_period, check.start_interval].map(|length| quoted(&go_duration(length)));
    format!("&{{{} {} {}}}", quoted_list(&check.test), durations.join(" "), quoted_number(check.retries))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_print_as_in_go() {
        let words = ["/bin/sh".to_owned(), "-c".to_owned(), "echo \"x\"\t\\".to_owned()];
        assert_eq!(quoted_list(&words), r#"["/bin/sh" "-c" "echo \"x\"\t\\"]"#);
        assert_eq!(plain_list(&words[..2]), "[/bin/sh -c]");
    }

    #[test]
    fn a_health_check_prints_as_in_go() {
        let second = 1_000_000_000;
        let mut check =
            HealthConfig { test: vec!["CMD-SHELL".to_owned(), "a \"b\"".to_owned()], timeout: 90 * second, ..HealthConfig::default() };
        let mut printed = |retries| {
            check.retries = retries;
            healthcheck(&check)
        };
        assert_eq!(printed(3), r#"&{["CMD-SHELL" "a \"b\""] "0s" "1m30s" "0s" "0s" '\x03'}"#);
        for (retries, shown) in [
            (0, r"'\x00'"),
            (10, r"'\n'"),
            (34, "'\"'"),
            (39, r"'\''"),
            (92, r"'\\'"),
            (127, r"'\x7f'"),
            (128, r"'\u0080'"),
            (300, "'Ĭ'"),
            (55_296, "'\u{fffd}'"),
        ] {
            assert!(printed(retries).ends_with(&format!("{shown}}}")), "{retries}: {}", printed(retries));
        }
    }

    #[test]
    fn only_marked_layers_end_in_the_mark() {
        assert_eq!(entry("RUN x", Layer::Marked).created_by.as_deref(), Some("RUN x # buildkit"));
        assert!(!entry("WORKDIR /x", Layer::Plain).empty_layer);
        assert!(entry("ENV A=b", Layer::None).empty_layer);
    }
}
