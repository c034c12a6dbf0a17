//! Expansion of variables.
//!
//! ```text
//! w\ a=1 b=two c=        mode (w, h or s), escape character, variables
//! ${a:-x} and the rest   the word
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use strake::diag::{SourceFile, Span};
use strake::parser::{Mode, Word, expand};

use crate::cost;

/// Expansion stops at this many bytes of values, but text of the word itself does not count.
const MAX_SUBSTITUTED: usize = 1 << 20;

/// Panics where something does not hold for the word of this input.
pub fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some((head, word)) = text.split_once('\n') else { return };
    let mut chars = head.chars();
    let mode = match chars.next() {
        Some('h') => Mode::Heredoc,
        Some('s') => Mode::Split,
        _ => Mode::Word,
    };
    let escape = if mode != Mode::Heredoc && chars.next() == Some('`') { '`' } else { '\\' };
    let variables: BTreeMap<&str, &str> = chars.as_str().split(' ').filter_map(|pair| pair.split_once('=')).collect();
    check_word(word, escape, mode, &variables);
}

fn check_word(text: &str, escape: char, mode: Mode, variables: &BTreeMap<&str, &str>) {
    let asked = RefCell::new(Vec::new());
    let lookup = |name: &str| {
        asked.borrow_mut().push(name.to_owned());
        variables.get(name).map(|value| (*value).to_owned())
    };
    let outcome = cost::within(Duration::from_secs(2), "expansion", || expand(text, escape, &lookup, mode));
    assert_eq!(outcome, expand(text, escape, &lookup, mode), "the same word gave two texts");
    let file = SourceFile::new("Dockerfile", text);
    let word = Word { text: text.into(), span: Span::new(0, text.len()) };
    let expanded = match outcome {
        Ok(expanded) => expanded,
        Err(error) => {
            assert!(text.get(error.range.clone()).is_some(), "{error:?} is outside of the word");
            assert!(!error.message.is_empty());
            assert!(file.text().get(word.diagnostic(&file, &error).span.range()).is_some());
            assert!(text.contains(['$', '\'', '"', escape]), "nothing in this word can be wrong");
            return;
        }
    };
    if mode != Mode::Heredoc {
        let names = word.variables(escape);
        for name in asked.borrow().iter() {
            assert!(names.contains(name.as_str()), "`{name}` is used but not mentioned");
        }
    }
    for (index, name) in expanded.undefined.iter().enumerate() {
        assert!(!variables.contains_key(name.as_str()), "`{name}` is defined");
        assert!(!expanded.undefined[..index].contains(name), "`{name}` is listed twice");
    }
    assert!(expanded.text.len() <= text.len() + 2 * MAX_SUBSTITUTED, "the text grew to {} bytes", expanded.text.len());
    if word.is_plain(escape) {
        assert_eq!(expanded.text, text, "plain text was changed");
        assert!(expanded.undefined.is_empty());
    }
    if mode == Mode::Split {
        let joined: String = expanded.words.concat().split_whitespace().collect();
        assert_eq!(joined, expanded.text.split_whitespace().collect::<String>(), "the words are not those of the text");
    } else {
        assert!(expanded.words.is_empty());
    }
    // What is quoted whole means itself.
    if mode == Mode::Word && !text.contains('\'') {
        let quoted = expand(&format!("'{text}'"), escape, &lookup, mode).expect("single quotes hide everything");
        assert_eq!(quoted.text, text);
    }
    check_simple(text, escape, mode, variables, &expanded.text);
}

/// Words of nothing but text and `$name` are put together by hand.
fn check_simple(text: &str, escape: char, mode: Mode, variables: &BTreeMap<&str, &str>, expanded: &str) {
    if mode == Mode::Heredoc || !text.is_ascii() || text.contains(['\'', '"', '{', escape]) {
        return;
    }
    let mut pieces = text.split('$');
    let mut expected = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        // Digits alone, and the shell's special parameters, follow other rules.
        let Some(first) = piece.chars().next().filter(|c| is_name(*c) && !c.is_ascii_digit()) else { return };
        let end = piece.find(|c| !is_name(c)).unwrap_or(piece.len()).max(first.len_utf8());
        expected.push_str(variables.get(&piece[..end]).copied().unwrap_or_default());
        expected.push_str(&piece[end..]);
    }
    if expected.len() <= MAX_SUBSTITUTED {
        assert_eq!(expanded, expected);
    }
}
