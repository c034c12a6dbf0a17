//! What the vectors of `testdata/expand` do not say: hints, places, and what is true of any word.

use proptest::prelude::*;

use super::*;
use crate::diag::{SourceFile, Span};

fn variables(name: &str) -> Option<String> {
    match name {
        "A" => Some("hello".to_owned()),
        "E" => Some(String::new()),
        "N" => Some("a\nb*é$0\\".to_owned()),
        _ => None,
    }
}

#[track_caller]
fn hint(word: &str) -> String {
    expand(word, '\\', &variables, Mode::Word).unwrap_err().hint.unwrap_or_default()
}

#[test]
fn habits_from_bash_get_a_hint() {
    for (word, part) in [
        ("${A,,}", "letter case"),
        ("${A^}", "letter case"),
        ("${A[@]}", "no arrays"),
        ("${A:0:3}", "`${A#pattern}`"),
        ("${A: -3}", "`${A%pattern}`"),
        ("${A:=x}", "`${A:-value}`"),
        ("${A=x}", "`${A:-value}`"),
        ("${A:#x}", "write `${A#pattern}`"),
        ("${A:%x}", "write `${A%pattern}`"),
        ("${A:/x/y}", "write `${A/pattern/replacement}`"),
        ("${A@Q}", "transformations"),
        ("${#A}", "length"),
        ("${!A}", "another one"),
        ("${$A}", "without `$`"),
        ("${A.b}", "names have letters"),
        ("${A|x}", "one of"),
        ("${A:x}", "one of"),
        ("${{ github.ref }}", "--build-arg"),
        ("${}", "name of a variable"),
        ("${A", "`}`"),
        ("${A/x}", "write `${A/pattern/replacement}`"),
        ("${A//x}", "write `${A//pattern/replacement}`"),
        ("${A#\\x}", "a backslash stands before"),
        ("it's", "JSON form"),
        ("\"$(date", "not executed"),
    ] {
        assert!(hint(word).contains(part), "{word}: {}", hint(word));
    }
}

#[test]
fn a_mistake_of_a_word_is_shown_at_its_part_with_its_hint() {
    let file = SourceFile::new("Dockerfile", "USER é${A^^}x");
    let word = Word { text: "é${A^^}x".to_owned(), span: Span::new(5, 14) };
    let error = word.expand('\\', &variables, Mode::Word).unwrap_err();
    let shown = word.diagnostic(&file, &error);
    assert_eq!((file.slice(shown.span), shown.hint), ("${A^^}", error.hint));
}

#[test]
fn a_word_tells_which_variables_it_mentions() {
    let word = Word { text: "$B${A:-$C}'$D'\"${E/$F/$G}\"${H#$I}\\$J".to_owned(), span: Span::new(0, 0) };
    assert_eq!(word.variables('\\').into_iter().collect::<String>(), "ABCEFGHI");
}

#[test]
fn substitutions_nest_a_hundred_times() {
    let nested = |depth: usize| format!("{}x{}", "${U:-".repeat(depth), "}".repeat(depth));
    assert_eq!(expand(&nested(100), '\\', &variables, Mode::Word).unwrap().text, "x");
    let error = expand(&nested(101), '\\', &variables, Mode::Word).unwrap_err();
    assert!(error.message.contains("deep"), "{error}");
}

/// Words of what words are made of.
fn words() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "$", "${", "}", "${A", "${U", "${N", ":-", "-", ":+", "+", ":?", "?", "#", "##", "%", "%%", "/", "//", "*", "\\", "`", "'", "\"",
        "a", " ", "\n", "é", "한", "$A", "${N//?/", "${A#", "${A%", "$0", "²",
    ]);
    prop::collection::vec(part, 0..30).prop_map(|parts| parts.concat())
}

const WAYS: [(char, Mode); 4] = [('\\', Mode::Word), ('`', Mode::Word), ('\\', Mode::Split), ('\\', Mode::Heredoc)];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_faults_are_ranges_of_the_word(word in words(), text in any::<String>()) {
        for word in [&word, &text] {
            for (escape, mode) in WAYS {
                if let Err(error) = expand(word, escape, &variables, mode) {
                    prop_assert!(word.get(error.range.clone()).is_some_and(|part| !part.is_empty()), "{error:?}");
                }
            }
        }
    }

    #[test]
    fn without_values_and_defaults_a_word_never_grows(word in "[a${} \\\\'\"é]{0,40}") {
        for (escape, mode) in WAYS {
            if let Ok(expanded) = expand(&word, escape, &|_: &str| None, mode) {
                prop_assert!(expanded.text.len() <= word.len());
            }
        }
    }

    #[test]
    fn words_of_split_mode_are_the_text_without_blanks(word in "[a$N{}:-b \n'\"]{0,40}") {
        if let Ok(expanded) = expand(&word, '\\', &variables, Mode::Split) {
            let solid = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            prop_assert_eq!(solid(&expanded.words.concat()), solid(&expanded.text));
        }
    }

    #[test]
    fn quoting_a_text_keeps_it(text in "[^']*") {
        prop_assert_eq!(&expand(&format!("'{text}'"), '\\', &variables, Mode::Word).unwrap().text, &text);
    }

    #[test]
    fn escaping_every_character_keeps_the_text(text in any::<String>()) {
        let escaped: String = text.chars().flat_map(|c| ['\\', c]).collect();
        for mode in [Mode::Word, Mode::Heredoc] {
            prop_assert_eq!(&expand(&escaped, '\\', &variables, mode).unwrap().text, &text);
        }
    }
}
