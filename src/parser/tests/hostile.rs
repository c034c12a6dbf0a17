//! Input that is made to be slow or deep: it has to be read in linear time, on a small stack.

use std::time::Duration;

use crate::diag::SourceFile;
use crate::parser::*;

const STACK: usize = 1 << 20;

/// Linear code needs a tenth of this without optimisation; quadratic code needs minutes.
const LIMIT: Duration = Duration::from_secs(60);

/// Does `work` on a small stack; returns what it gives, and the processor time that it took (other tests run at the same time).
fn on_small_stack<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (T, Duration) {
    let measured = move || {
        let outcome = work();
        let took = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        (outcome, Duration::new(took.tv_sec.try_into().unwrap(), took.tv_nsec.try_into().unwrap()))
    };
    std::thread::Builder::new().stack_size(STACK).spawn(measured).unwrap().join().unwrap()
}

#[track_caller]
fn parses_quickly(name: &str, text: String) {
    let (_, took) = on_small_stack(move || {
        let parsed = parse(&SourceFile::new("Dockerfile", text));
        lint(&parsed.dockerfile).len()
    });
    println!("{name}: {took:?}");
    assert!(took < LIMIT, "{name}: {took:?}");
}

fn filled(unit: &str, size: usize) -> String {
    unit.repeat(size / unit.len())
}

#[test]
fn five_megabytes_of_anything_are_read_in_linear_time() {
    for (head, unit, tail) in [
        ("", "\\", ""),
        ("FROM a\n", "COPY <<A /x\nA\n", ""),
        ("FROM a\nRUN ", "ONBUILD ", "\n"),
        ("FROM a\n", "ONBUILD ", "\n"),
        ("FROM a\nRUN --mount=type=bind,target=", "${a:-", ""),
    ] {
        parses_quickly(&format!("{head:?} {unit:?}"), format!("{head}{}{tail}", filled(unit, 5 << 20)));
    }
}

#[test]
fn half_a_megabyte_of_anything_else_is_read_in_linear_time() {
    let size = 1 << 19;
    for unit in [
        "`",
        "a",
        "\n",
        "#\n",
        "# a\n",
        " ",
        "FROM a\n",
        "FROM a AS b\n",
        "x\n",
        "RUN <<A\n",
        "ENV a=b\n",
        "COPY \"a\" \\\n",
        "--a ",
        "[",
        "{",
        "\"",
        "'",
        "EXPOSE 1-65535\n",
        "FROM a AS b\nCMD a\n",
    ] {
        parses_quickly(&format!("{unit:?}"), filled(unit, size));
        parses_quickly(&format!("{unit:?} in a RUN"), format!("FROM scratch\nRUN {}", filled(unit, size)));
    }
    for (head, unit, tail) in [
        ("FROM a\nRUN ", "\\\n", "true\n"),
        ("FROM a\nRUN ", "\\\n\n", "true\n"),
        ("FROM a\nCOPY ", "<<A ", "/x\n"),
        ("FROM a\nRUN --mount=", "id=a,", "target=/x true\n"),
        ("FROM a\nRUN ", "--mount=type=cache,target=/x ", "true\n"),
        ("FROM a\nCOPY [", "\"a\",", "\"/x\"]\n"),
        ("FROM a\nCMD ", "[", ""),
        ("FROM a\nENV ", "a=b ", "\n"),
        ("FROM a\nENV ", "a ", "\n"),
        ("FROM a\nLABEL ", "=b ", "\n"),
        ("FROM a\nRUN ", "a \\\n", "\n"),
    ] {
        parses_quickly(&format!("{head:?} {unit:?}"), format!("{head}{}{tail}", filled(unit, size)));
    }
}

#[test]
fn what_only_begins_like_something_is_read_in_linear_time() {
    let size = 1 << 17;
    for (head, unit, tail) in [
        ("FROM a\nRUN ", "--a=b ", "true\n"),
        ("FROM a\nRUN ", "--a\"", "true\n"),
        ("FROM a\nCOPY ", "--exclude=a --link ", "a b\n"),
        ("FROM a\nARG ", "--a ", "b\n"),
        ("FROM a\nCOPY ", "'<<A ' <<B ", "/x\n"),
        ("FROM a\nCOPY [", "\"<<A\",", "\"/x\"]\n"),
        ("FROM a\nRUN <<A ", "${a:-", "\n"),
        ("FROM a\nRUN <<A ", "\"${a:-'", "\n"),
        ("FROM a\nRUN <<A ", "${a/", "\n"),
        ("FROM a\nRUN <<", "${a}\"\\", "\n"),
        ("FROM a\nRUN <<EOF\n", " EOF\n", "EO"),
        ("FROM a\nRUN <<-EOF\n", "\tEOF \n", "EOF"),
        ("FROM a\nRUN <<EOF\n", "EOF", "\n"),
        ("FROM a\nRUN <<A <<A\n", "A \n", "A\nA\n"),
        ("FROM a\n", "ONBUILD RUN <<A\nA\n", ""),
        ("FROM a\nONBUILD RUN ", "<<A ", "\n"),
        ("", "# escape=`\n", ""),
        ("#!x\n", "# check=a\n", ""),
        ("", "# foo\n", "FROM a\n"),
        ("{", "\"a\":[1],", "\"syntax\":\"x\"}"),
        ("{\"a\":", "[", ""),
        ("FROM a\nHEALTHCHECK ", "--interval=1s ", "CMD a\n"),
        ("FROM a\nRUN --mount=", "\\\"a\\\",", "b c\n"),
        ("FROM a\nVOLUME [", "\" \",", "\"a\"]\n"),
        ("FROM a\nCMD [\"a\"", " ", "]]\n"),
        ("FROM a\n", "\\\n#\n", ""),
        ("FROM a\n\\\n", " \\\n", ""),
    ] {
        parses_quickly(&format!("{head:?} {unit:?}"), format!("{head}{}{tail}", filled(unit, size)));
    }
}

#[test]
fn bytes_that_are_not_text_are_read_in_linear_time() {
    for (head, unit) in [("FROM a\n", "\u{ff}x\n"), ("FROM a\nRUN ", "\u{ff}"), ("FROM a\nRUN <<A\n", "\u{ff}\n"), ("#", "\u{ff}")] {
        let bytes: Vec<u8> = format!("{head}{}", filled(unit, 1 << 19)).chars().map(|c| u8::try_from(c).unwrap()).collect();
        let (refused, took) = on_small_stack(move || {
            let parsed = parse(&SourceFile::from_bytes("Dockerfile", bytes));
            parsed.diagnostics.iter().any(|diagnostic| diagnostic.is_error())
        });
        assert!(refused && took < LIMIT, "{head:?} {unit:?}: {took:?}");
    }
}

#[test]
fn five_megabytes_of_nested_substitutions_are_refused_on_a_small_stack() {
    for unit in ["${a:-", "\"${a:-", "${a/", "${a#${b", "$", "${", "$a", "${a}", "\"$a", "${a:-b}"] {
        let word = filled(unit, 5 << 20);
        let (outcome, took) = on_small_stack(move || expand(&word, '\\', &|_: &str| None, Mode::Word).map(|expanded| expanded.text.len()));
        println!("{unit}: {took:?}");
        if unit == "${a:-" {
            assert!(outcome.unwrap_err().message.contains("deep"));
        }
        assert!(took < LIMIT, "{unit}: {took:?}");
    }
}

#[test]
fn nesting_up_to_the_limit_works() {
    let word = format!("{}x{}", "${a:-".repeat(40), "}".repeat(40));
    assert_eq!(expand(&word, '\\', &|_: &str| None, Mode::Word).unwrap().text, "x");
}
