//! Words and diagnostics point at the bytes they are about, also across continuations.

use crate::diag::SourceFile;
use crate::parser::*;

fn first(file: &SourceFile) -> Instruction {
    let parsed = parse(file);
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    parsed.dockerfile.stages[0].instructions[0].instruction.clone()
}

#[test]
fn words_behind_continuations_and_comments_point_into_the_file() {
    let file = SourceFile::new("Dockerfile", "\u{feff}FROM scratch\r\nCOPY --chown=é:1 \\\r\n  # no\r\n  één \\ \r\n two /d\r\n");
    let Instruction::Copy(copy) = first(&file) else { panic!("no COPY") };
    let written: Vec<&str> = copy.paths.sources.iter().map(|word| file.slice(word.span)).collect();
    assert_eq!(written, ["één", "two"]);
    assert_eq!(file.slice(copy.paths.destination.span), "/d");
    assert_eq!(file.slice(copy.chown.unwrap().span), "é:1");
}

#[test]
fn a_word_that_is_broken_by_a_continuation_spans_both_lines() {
    let file = SourceFile::new("Dockerfile", "FROM scratch\nENV A=on\\\ne B=2\n");
    let Instruction::Env(pairs) = first(&file) else { panic!("no ENV") };
    assert_eq!(pairs[0].value.text, "one");
    assert_eq!(file.slice(pairs[0].value.span), "on\\\ne");
    assert_eq!(file.slice(pairs[1].key.span), "B");
}

#[test]
fn heredocs_point_at_their_mark_and_their_body() {
    let text = "FROM scratch\nCOPY <<-A <<B /d/\n\tone\nA\ntwo\nB\nUSER x\n";
    let file = SourceFile::new("Dockerfile", text);
    let Instruction::Copy(copy) = first(&file) else { panic!("no COPY") };
    let [a, b] = copy.paths.heredocs.as_slice() else { panic!("not two") };
    assert_eq!((file.slice(a.span), file.slice(a.body.span), a.body.value.as_str()), ("<<-A", "\tone\n", "one\n"));
    assert_eq!((file.slice(b.span), file.slice(b.body.span)), ("<<B", "two\n"));
    let statement = &parse(&file).dockerfile.stages[0].instructions[0];
    assert_eq!(file.slice(statement.span), "COPY <<-A <<B /d/\n\tone\nA\ntwo\nB");
    assert_eq!(statement.original(&file), "COPY <<-A <<B /d/\n\tone\nA\ntwo\nB");
}

#[test]
fn elements_of_the_json_form_point_at_their_quotes() {
    let file = SourceFile::new("Dockerfile", "FROM scratch\nCOPY [\"a b\", \\\n \"/c d/\"]\n");
    let Instruction::Copy(copy) = first(&file) else { panic!("no COPY") };
    assert_eq!((copy.paths.sources[0].text.as_str(), file.slice(copy.paths.sources[0].span)), ("a b", "\"a b\""));
    assert_eq!(file.slice(copy.paths.destination.span), "\"/c d/\"");
}

#[test]
fn triggers_are_read_again_from_what_is_stored() {
    let text = "FROM scratch\nonbuild \\\n RUN <<E cat\nhello\nE\n";
    let parsed = parse(&SourceFile::new("Dockerfile", text));
    let Instruction::Onbuild(onbuild) = &parsed.dockerfile.stages[0].instructions[0].instruction else { panic!("no ONBUILD") };
    assert_eq!(onbuild.trigger, "RUN <<E cat\nhello\nE");
    let again = parse_trigger(&onbuild.trigger, "ONBUILD trigger 1 of `base`").unwrap();
    let Instruction::Run(run) = again.instruction else { panic!("no RUN") };
    assert_eq!(run.script(), RunScript::Shell("<<E cat\nhello\nE".into()));
}

#[test]
fn triggers_that_are_no_single_instruction_are_refused() {
    for (text, message) in [
        ("", "the trigger holds no instruction"),
        ("# nothing", "the trigger holds no instruction"),
        ("USER a\nUSER b", "a trigger is a single instruction"),
        ("FROM x", "`FROM` cannot be triggered by `ONBUILD`"),
        ("MAINTAINER x", "`MAINTAINER` cannot be triggered by `ONBUILD`"),
        ("ONBUILD USER x", "`ONBUILD` cannot trigger another `ONBUILD`"),
        ("RNU x", "unknown instruction `RNU`"),
    ] {
        let diagnostics = parse_trigger(text, "ONBUILD of base").unwrap_err();
        assert_eq!(diagnostics[0].message, message, "{text}");
        assert_eq!(diagnostics[0].file.name(), "ONBUILD of base");
    }
}

#[test]
fn errors_of_expansion_point_at_the_substitution() {
    let file = SourceFile::new("Dockerfile", "FROM scratch\nCOPY a${b^}c \"x y\" /d\n");
    let Instruction::Copy(copy) = first(&file) else { panic!("no COPY") };
    let fault = |word: &Word| {
        let error = word.expand('\\', &|_: &str| None, Mode::Word).unwrap_err();
        let diagnostic = word.diagnostic(&file, &error);
        (file.slice(diagnostic.span).to_owned(), diagnostic.hint.is_some())
    };
    assert_eq!(fault(&copy.paths.sources[0]), ("${b^}".to_owned(), true));
    assert_eq!(fault(&copy.paths.sources[1]), ("\"x".to_owned(), true));
}

#[test]
fn a_file_of_mistakes_gives_up_after_a_thousand_and_a_file_of_warnings_never() {
    let mistakes = parse(&SourceFile::new("Dockerfile", "x\n".repeat(5000)));
    assert_eq!(mistakes.diagnostics.len(), 1001);
    assert!(mistakes.diagnostics[1000].message.contains("too many mistakes"));
    let warnings = parse(&SourceFile::new("Dockerfile", format!("FROM scratch\n{}", "RUN a \\\n\n b\n".repeat(5000))));
    assert!(!warnings.diagnostics.iter().any(|diagnostic| diagnostic.is_error()));
    assert_eq!(warnings.dockerfile.stages[0].instructions.len(), 5000);
}
