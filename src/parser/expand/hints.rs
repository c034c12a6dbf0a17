//! What to do about a substitution that is not understood: most of them are habits from bash.

/// Behind `${` stands no name.
pub(super) fn bad_substitution(rest: &str) -> Option<String> {
    Some(match rest.chars().next() {
        Some('{') => "templates such as `${{ name }}` are filled in by a CI system, not here; give the value with `--build-arg`".to_owned(),
        _ => "write the name of a variable in the braces; to mean `$` itself, put the escape character before it".to_owned(),
    })
}

/// A substitution is not closed.
pub(super) fn missing_brace() -> Option<String> {
    Some("close the substitution with `}`; to mean `$` itself, put the escape character before it".to_owned())
}

/// `${name/pattern` has no replacement.
pub(super) fn missing_slash(name: &str, operator: &str) -> Option<String> {
    Some(format!("write `${{{name}{operator}pattern/replacement}}`; the replacement may be empty, but not its `/`"))
}

/// A quote is not closed.
pub(super) fn quote(from: &str) -> Option<String> {
    if from.contains("$(") || from.contains('`') {
        return Some("commands are not executed here: `$(…)` is just text; a `RUN` can execute them".to_owned());
    }
    Some("close the quote, or put the escape character before it to mean the quote itself; paths with blanks need the JSON form".to_owned())
}

/// Behind the name stands something else than a modifier.
pub(super) fn modifier(name: &str, operator: &str) -> Option<String> {
    let known = |rest: &str| format!("write `${{{name}{rest}}}`");
    let hint = match operator {
        ":#" | ":%" => known(&format!("{}pattern", &operator[1..])),
        ":/" => known("/pattern/replacement"),
        "=" | ":=" => format!("a substitution cannot set a variable; `${{{name}:-value}}` gives a default"),
        "," | "^" | "~" | ":," | ":^" => "letter case cannot be changed here; a `RUN` can do it".to_owned(),
        "[" => "there are no arrays here, only strings".to_owned(),
        "@" => "bash's transformations do not work here".to_owned(),
        "." => "names have letters, digits and `_`".to_owned(),
        _ if name == "#" => "the length of a value cannot be had here".to_owned(),
        _ if name == "!" => "a variable cannot name another one here".to_owned(),
        _ if name == "$" => "the name in the braces is written without `$`".to_owned(),
        _ if operator.starts_with(':') && operator[1..].starts_with(|c: char| c.is_ascii_digit() || c == ' ') => {
            format!("parts of a value are cut off by pattern: `${{{name}#pattern}}` at the start, `${{{name}%pattern}}` at the end")
        }
        _ if operator.starts_with(':') => format!("behind `${{{name}:` stands one of `-`, `+` and `?`"),
        _ => format!("behind `${{{name}` stands one of `-`, `:-`, `+`, `:+`, `?`, `:?`, `#`, `%`, `/` and `}}`"),
    };
    Some(hint)
}
