//! Expansion by table.

use super::*;

/// A: `hello`, E: empty, P: a path, S: blanks, G: a glob, everything else unset.
fn variables(name: &str) -> Option<String> {
    let value = match name {
        "A" => "hello",
        "E" => "",
        "P" => "/usr/local/lib/libz.so.1",
        "S" => " a  b ",
        "G" => "h*l",
        "Q" => "it's \"q\" $A",
        "PORTS" => "80 443/tcp",
        "Ü" => "umlaut",
        "_x1" => "underscore",
        _ => return None,
    };
    Some(value.to_owned())
}

fn word(text: &str) -> String {
    match expand(text, '\\', &variables, Mode::Word) {
        Ok(expanded) => expanded.text,
        Err(error) => format!("!{} @{}", error.message, &text[error.range]),
    }
}

#[test]
fn words_expand_as_the_table_says() {
    for (text, expected) in [
        // Names.
        ("", ""),
        ("plain", "plain"),
        ("$A", "hello"),
        ("${A}", "hello"),
        ("$A$A", "hellohello"),
        ("a${A}b", "ahellob"),
        ("$Ab", ""),
        ("$A.b", "hello.b"),
        ("$A-b", "hello-b"),
        ("$A/b", "hello/b"),
        ("$_x1", "underscore"),
        ("$Ü", "umlaut"),
        ("é$A", "éhello"),
        ("$U", ""),
        ("a${U}b", "ab"),
        ("$E", ""),
        // A dollar that means itself, and special names.
        ("$", "$"),
        ("a$", "a$"),
        ("$.", "$."),
        ("$/x", "$/x"),
        ("$ A", "$ A"),
        ("$%", "$%"),
        ("$$", ""),
        ("$1", ""),
        ("$1A", "A"),
        ("$12x", "x"),
        ("$@", ""),
        ("$*", ""),
        ("$#", ""),
        ("$?", ""),
        ("$-", ""),
        ("$!", ""),
        ("${1}", ""),
        ("${@}", ""),
        ("$0x", "x"),
        // Quotes and escapes.
        ("'$A'", "$A"),
        ("\"$A\"", "hello"),
        ("\"a b\"", "a b"),
        ("'a b'c", "a bc"),
        ("a'b'\"c\"", "abc"),
        ("''", ""),
        ("\"\"", ""),
        ("\"it's\"", "it's"),
        ("'say \"x\"'", "say \"x\""),
        ("\\$A", "$A"),
        ("\\\\$A", "\\hello"),
        ("\\'$A", "'hello"),
        ("\\\"", "\""),
        ("a\\b", "ab"),
        ("a\\", "a"),
        ("\"\\$A\"", "$A"),
        ("\"\\\"\"", "\""),
        ("\"\\\\\"", "\\"),
        ("\"\\a\"", "\\a"),
        ("\"\\'\"", "\\'"),
        ("'\\'", "\\"),
        ("'\\$A'", "\\$A"),
        ("$Q", "it's \"q\" $A"),
        ("\"$S\"", " a  b "),
        ("$S", " a  b "),
        ("\\${A}", "${A}"),
        ("\"${A}\"x", "hellox"),
        // Defaults.
        ("${A:-x}", "hello"),
        ("${A-x}", "hello"),
        ("${U:-x}", "x"),
        ("${U-x}", "x"),
        ("${E:-x}", "x"),
        ("${E-x}", ""),
        ("${U:-}", ""),
        ("${U:-$A}", "hello"),
        ("${U:-${V:-deep}}", "deep"),
        ("${U:-a b}", "a b"),
        ("${U:-'a}b'}", "a}b"),
        ("${U:-\"a}b\"}", "a}b"),
        ("${U:-a\\}b}", "a}b"),
        ("${U:-/a/b:c}", "/a/b:c"),
        ("${U:--}", "-"),
        ("${U--}", "-"),
        ("x${U:-1}y${U:-2}z", "x1y2z"),
        // Alternatives.
        ("${A:+x}", "x"),
        ("${A+x}", "x"),
        ("${U:+x}", ""),
        ("${U+x}", ""),
        ("${E:+x}", ""),
        ("${E+x}", "x"),
        ("${A:+$A!}", "hello!"),
        ("${A:+${E:+no}}", ""),
        // Required.
        ("${A:?gone}", "hello"),
        ("${A?gone}", "hello"),
        ("${E?gone}", ""),
        ("${U:?gone}", "!U: gone @${U:?gone}"),
        ("${U?gone}", "!U: gone @${U?gone}"),
        ("${E:?gone}", "!E: gone @${E:?gone}"),
        ("${U:?}", "!U: is not allowed to be unset @${U:?}"),
        ("${E:?}", "!E: is not allowed to be empty @${E:?}"),
        ("${U?}", "!U: is not allowed to be unset @${U?}"),
        ("a${U:?say $A}b", "!U: say hello @${U:?say $A}"),
        // What is not needed is not looked at.
        ("${A:-${U:?gone}}", "hello"),
        ("${U:+${U:?gone}}", ""),
        // Prefixes.
        ("${P#/}", "usr/local/lib/libz.so.1"),
        ("${P#*/}", "usr/local/lib/libz.so.1"),
        ("${P##*/}", "libz.so.1"),
        ("${P#/usr}", "/local/lib/libz.so.1"),
        ("${P#usr}", "/usr/local/lib/libz.so.1"),
        ("${A#h?}", "llo"),
        ("${A##*l}", "o"),
        ("${A#*l}", "lo"),
        ("${A#*l*}", "lo"),
        ("${A##*l*}", ""),
        ("${A#$G}", "lo"),
        ("${A##$G}", "o"),
        ("${A#}", "hello"),
        ("${A##}", "hello"),
        ("${A#*}", "hello"),
        ("${A##*}", ""),
        ("${A#\\*}", "hello"),
        ("${A#[h]}", "hello"),
        ("${U#x}", ""),
        // Suffixes.
        ("${P%/*}", "/usr/local/lib"),
        ("${P%%/*}", ""),
        ("${P%.*}", "/usr/local/lib/libz.so"),
        ("${P%%.*}", "/usr/local/lib/libz"),
        ("${P%.?}", "/usr/local/lib/libz.so"),
        ("${A%l*}", "hel"),
        ("${A%%l*}", "he"),
        ("${A%x}", "hello"),
        ("${A%\"lo\"}", "hel"),
        ("${A%'lo'}", "hel"),
        // Replacement.
        ("${A/l/L}", "heLlo"),
        ("${A//l/L}", "heLLo"),
        ("${A/l/}", "helo"),
        ("${A//l/}", "heo"),
        ("${A/x/y}", "hello"),
        ("${A/l*/L}", "heL"),
        ("${A/?/H}", "Hello"),
        ("${A//?/x}", "xxxxx"),
        ("${A/*/x}", "x"),
        ("${A//*/x}", "x"),
        ("${P//\\//:}", ":usr:local:lib:libz.so.1"),
        ("${A/h/$A}", "helloello"),
        ("${A/$G/x}", "xo"),
        ("${A/e*l/_}", "h_o"),
        ("${A///-}", "-h-e-l-l-o-"),
        ("${A/\\}/x}", "hello"),
        ("${U/a/b}", ""),
        // Mistakes.
        ("${}", "!bad substitution @${}"),
        ("${{A}", "!bad substitution @${{A}"),
        ("${:}", "!bad substitution @${:}"),
        ("a${", "!missing `}` @${"),
        ("a${A", "!missing `}` @${A"),
        ("${A:", "!missing `}` @${A:"),
        ("${A:-x", "!missing `}` @${A:-x"),
        ("${A/x", "!missing `/` in `${…}` @${A/x"),
        ("${A/x/y", "!missing `}` @${A/x/y"),
        ("${A^^}", "!unsupported modifier `^` in substitution @${A^^}"),
        ("${A,,}", "!unsupported modifier `,` in substitution @${A,,}"),
        ("${A:#x}", "!unsupported modifier `:#` in substitution @${A:#x}"),
        ("${A:%x}", "!unsupported modifier `:%` in substitution @${A:%x}"),
        ("${A:0:1}", "!unsupported modifier `:0` in substitution @${A:0:1}"),
        ("${A=x}", "!unsupported modifier `=` in substitution @${A=x}"),
        ("${A b}", "!unsupported modifier ` ` in substitution @${A b}"),
        ("x'a", "!no closing `'` @'a"),
        ("x\"a", "!no closing `\"` @\"a"),
        ("${A#\\x}", "!invalid pattern `\\x` in substitution: invalid escape `\\x` @${A#\\x}"),
    ] {
        assert_eq!(word(text), expected, "{text}");
    }
}

#[test]
fn a_backtick_escapes_where_the_file_says_so() {
    for (text, expected) in [("`$A", "$A"), ("c:\\$A", "c:\\hello"), ("\"`$A\"", "$A"), ("``", "`"), ("a`", "a"), ("${U:-a`}b}", "a}b")] {
        assert_eq!(expand(text, '`', &variables, Mode::Word).unwrap().text, expected, "{text}");
    }
}

#[test]
fn heredoc_bodies_keep_their_quotes() {
    for (text, expected) in [
        ("it's $A\n", "it's hello\n"),
        ("\"$A\"", "\"hello\""),
        ("'$A'", "'hello'"),
        ("\\$A", "$A"),
        ("a\\nb", "anb"),
        ("${U:-it's}", "it's"),
    ] {
        assert_eq!(expand(text, '\\', &variables, Mode::Heredoc).unwrap().text, expected, "{text}");
    }
}

#[test]
fn split_words_come_from_text_and_from_variables() {
    for (text, expected) in [
        ("80", vec!["80"]),
        ("$PORTS", vec!["80", "443/tcp"]),
        ("\"$PORTS\"", vec!["80 443/tcp"]),
        ("1$PORTS", vec!["180", "443/tcp"]),
        ("$PORTS/udp", vec!["80", "443/tcp/udp"]),
        ("$U", vec![]),
        ("", vec![]),
        ("a b", vec!["a", "b"]),
        ("'a b' c", vec!["a b", "c"]),
        ("a\\ b", vec!["a b"]),
        ("$S", vec!["a", "b"]),
        ("x${S}y", vec!["x", "a", "b", "y"]),
        ("${U:-1 2}", vec!["1", "2"]),
    ] {
        assert_eq!(expand(text, '\\', &variables, Mode::Split).unwrap().words, expected, "{text}");
    }
}

#[test]
fn undefined_names_are_listed_once_and_only_where_nothing_stands_in() {
    for (text, expected) in [
        ("$A", vec![]),
        ("$U$V$U", vec!["U", "V"]),
        ("${U:-x}${V+x}", vec![]),
        ("${U:-$V}", vec!["V"]),
        ("${A:-$V}", vec![]),
        ("${U#x}${V/a/b}", vec!["U", "V"]),
        ("'$U'", vec![]),
        ("$E", vec![]),
    ] {
        assert_eq!(expand(text, '\\', &variables, Mode::Word).unwrap().undefined, expected, "{text}");
    }
}

#[test]
fn a_word_tells_which_variables_it_mentions() {
    let word = Word { text: "$B${A:-$C}'$D'\"${E/$F/$G}\"\\$H".to_owned(), span: crate::diag::Span::new(0, 0) };
    assert_eq!(word.variables('\\').into_iter().collect::<String>(), "ABCEFG");
}
