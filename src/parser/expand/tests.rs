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
    let word = Word { text: "é${A^^}x".into(), span: Span::new(5, 14) };
    let error = word.expand('\\', &variables, Mode::Word).unwrap_err();
    let shown = word.diagnostic(&file, &error);
    assert_eq!((file.slice(shown.span), shown.hint), ("${A^^}", error.hint));
}

#[test]
fn a_word_tells_which_variables_it_mentions() {
    let word = Word { text: "$B${A:-$C}'$D'\"${E/$F/$G}\"${H#$I}\\$J".into(), span: Span::new(0, 0) };
    assert_eq!(word.variables('\\').into_iter().collect::<String>(), "ABCEFGHI");
}

#[test]
fn substitutions_nest_a_hundred_times() {
    let nested = |depth: usize| format!("{}x{}", "${U:-".repeat(depth), "}".repeat(depth));
    assert_eq!(expand(&nested(100), '\\', &variables, Mode::Word).unwrap().text, "x");
    let error = expand(&nested(101), '\\', &variables, Mode::Word).unwrap_err();
    assert!(error.message.contains("deep"), "{error}");
}

/// How many bytes a word expands to, or why it does not, in a time that does not grow faster than its parts.
#[track_caller]
fn quickly(word: &str, value: &str) -> Result<usize, String> {
    let variables = |name: &str| (name == "A").then(|| value.to_owned());
    let start = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let outcome = expand(word, '\\', &variables, Mode::Word).map(|expanded| expanded.text.len()).map_err(|error| error.message);
    let took = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec - start.tv_sec;
    // Linear work takes two seconds without optimisation; work that is not needs minutes.
    assert!(took < 20, "{took} s for {}", &word[..word.len().min(40)]);
    outcome
}

#[test]
fn patterns_of_many_stars_take_linear_time() {
    let value = "a".repeat(200_000);
    let stars = "*a".repeat(5_000);
    for operator in ["#", "##", "%", "%%"] {
        let left = quickly(&format!("${{A{operator}{stars}}}"), &value).unwrap();
        assert_eq!(left, if operator.len() == 2 { 0 } else { 195_000 }, "{operator}");
        assert_eq!(quickly(&format!("${{A{operator}{stars}*b*}}"), &value), Ok(200_000), "{operator}");
    }
    assert_eq!(quickly(&format!("${{A//{stars}/x}}"), &value), Ok(1));
    assert_eq!(quickly(&format!("${{A//{stars}b/x}}"), &value), Ok(200_000));
    assert_eq!(quickly("${A//a*b/x}", &"aaaa\n".repeat(40_000)), Ok(200_000));
    assert_eq!(quickly("${A//*/x}", &"aaaa\n".repeat(40_000)), Ok(80_001));
    assert_eq!(quickly("${A//\\**\\*/x}", &"*a*\n".repeat(50_000)), Ok(100_000));
}

#[test]
fn long_patterns_take_linear_time() {
    let value = "a".repeat(500_000);
    let long = "a".repeat(200_000);
    assert_eq!(quickly(&format!("${{A#{long}}}"), &value), Ok(300_000));
    assert_eq!(quickly(&format!("${{A/{long}b/x}}"), &value), Ok(500_000));
    assert_eq!(quickly(&format!("${{A%%*b{long}}}"), &value), Ok(500_000));
    assert_eq!(quickly(&format!("${{A//{}/xy}}", "?".repeat(10)), &value), Ok(100_000));
    // Here only the number of steps is limited.
    assert!(quickly(&format!("${{A/{}b/x}}", "?".repeat(10_000)), &value).is_err());
    assert!(quickly(&format!("${{A/*{}b/x}}", "?".repeat(10_000)), &value).is_err());
}

#[test]
fn what_a_word_makes_of_its_variables_is_limited() {
    let value = "a".repeat(100_000);
    assert_eq!(quickly(&"$A".repeat(10), &value), Ok(1_000_000));
    for word in ["$A".repeat(11), "${A:+x}".repeat(100_000), "${A##*}".repeat(100_000), format!("${{A//a/{}}}", "b".repeat(100))] {
        assert!(quickly(&word, &value).is_err());
    }
    // Text of the word itself is not limited.
    assert_eq!(quickly(&format!("'{}'", "a".repeat(3 << 20)), &value), Ok(3 << 20));
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
