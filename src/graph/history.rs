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
    for c in word.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\x0b' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || c == '\x7f' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A list of strings as Go prints it with `%v`: `[a b]`.
pub(super) fn plain_list(words: &[impl Borrow<str>]) -> String {
    format!("[{}]", words.join(" "))
}

/// A health check as Go prints the structure with `%+v`.
pub(super) fn healthcheck(check: &HealthConfig) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        plain_list(&check.test),
        go_duration(check.interval),
        go_duration(check.timeout),
        go_duration(check.start_period),
        go_duration(check.start_interval),
        check.retries
    )
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
    fn only_marked_layers_end_in_the_mark() {
        assert_eq!(entry("RUN x", Layer::Marked).created_by.as_deref(), Some("RUN x # buildkit"));
        assert!(!entry("WORKDIR /x", Layer::Plain).empty_layer);
        assert!(entry("ENV A=b", Layer::None).empty_layer);
    }
}
