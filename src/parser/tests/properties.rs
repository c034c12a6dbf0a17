//! What holds for any text.

use proptest::prelude::*;

use crate::diag::{Diagnostic, SourceFile, Span};
use crate::parser::*;

/// Text made of what Dockerfiles are made of, so that deep code is reached.
fn dockerfile() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        prop::sample::select(vec![
            "FROM",
            "RUN",
            "COPY",
            "ADD",
            "ENV",
            "ARG",
            "LABEL",
            "ONBUILD",
            "HEALTHCHECK",
            "SHELL",
            "VOLUME",
            "EXPOSE",
            "CMD",
            "from",
            "USER",
        ]),
        prop::sample::select(vec![
            " ",
            "\n",
            "\r\n",
            "\t",
            "\\\n",
            "\\",
            "`",
            "\"",
            "'",
            "$",
            "${",
            "}",
            ":-",
            "<<EOF",
            "<<-'A'",
            "EOF\n",
            "A",
            "#",
            "# syntax=",
            "=",
            "[",
            "]",
            "\",\"",
            "--mount=",
            "--from=",
            "--chown=",
            "--",
            "type=cache",
            "target=/x",
            ",",
            "/",
            "é",
            "😀",
            "\u{feff}",
            "\0",
            "\u{2003}",
            "scratch",
            " AS ",
            "NONE",
            "CMD",
            "--interval=1s",
            "80/tcp",
        ]),
    ];
    prop::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat())
}

fn spans_of(statement: &Statement, spans: &mut Vec<Span>) {
    spans.extend([statement.span, statement.keyword.span]);
    let mut words = |words: &[Word]| spans.extend(words.iter().map(|word| word.span));
    match &statement.instruction {
        Instruction::From(from) => words(std::slice::from_ref(&from.image)),
        Instruction::Run(run) => {
            words(&run.mounts);
            spans.extend(run.heredocs.iter().flat_map(|heredoc| [heredoc.span, heredoc.body.span]));
        }
        Instruction::Copy(copy) => {
            words(&copy.paths.sources);
            words(std::slice::from_ref(&copy.paths.destination));
            words(copy.chown.as_slice());
        }
        Instruction::Add(add) => words(&add.paths.sources),
        Instruction::Env(pairs) | Instruction::Label(pairs) => pairs.iter().for_each(|pair| words(&[pair.key.clone(), pair.value.clone()])),
        Instruction::Expose(list) | Instruction::Volume(list) => words(list),
        Instruction::Onbuild(onbuild) => onbuild.statement.iter().for_each(|statement| spans_of(statement, spans)),
        _ => {}
    }
}

fn check(text: &str) {
    let file = SourceFile::new("Dockerfile", text);
    let parsed = parse(&file);
    let mut spans: Vec<Span> = Vec::new();
    let mut all: Vec<Diagnostic> = parsed.diagnostics;
    all.extend(lint(&parsed.dockerfile));
    for diagnostic in &all {
        spans.push(diagnostic.span);
        spans.extend(diagnostic.related.iter().map(|(span, _)| *span));
        spans.extend(diagnostic.suggestion.iter().map(|suggestion| suggestion.span));
    }
    for stage in &parsed.dockerfile.stages {
        spans_of(&stage.statement, &mut spans);
        stage.instructions.iter().for_each(|statement| spans_of(statement, &mut spans));
    }
    parsed.dockerfile.global_args.iter().for_each(|statement| spans_of(statement, &mut spans));
    for span in spans {
        assert!(text.get(span.range()).is_some(), "{span:?} is no range of {text:?}");
    }
    let _ = parse_trigger(text, "trigger");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_parses_and_spans_are_ranges_of_the_file(text in any::<String>()) {
        check(&text);
    }

    #[test]
    fn text_like_a_dockerfile_parses_and_spans_are_ranges_of_the_file(text in dockerfile()) {
        check(&text);
        check(&format!("# escape=`\n{text}"));
    }

    #[test]
    fn text_without_dollars_quotes_and_escapes_expands_to_itself(text in "[^$'\"\\\\]*") {
        for mode in [Mode::Word, Mode::Heredoc, Mode::Split] {
            let expanded = expand(&text, '\\', &|_: &str| None, mode).unwrap();
            prop_assert_eq!(&expanded.text, &text);
        }
    }

    #[test]
    fn expansion_never_panics_and_faults_are_ranges_of_the_word(text in "[$a{}:+?#%/*'\"\\\\`é -]{0,40}") {
        for (escape, mode) in [('\\', Mode::Word), ('`', Mode::Split), ('\\', Mode::Heredoc)] {
            if let Err(error) = expand(&text, escape, &|_: &str| Some("a/b*é".to_owned()), mode) {
                prop_assert!(text.get(error.range.clone()).is_some(), "{error:?}");
            }
        }
    }

    #[test]
    fn helpers_never_panic(text in any::<String>()) {
        let _ = ports::parse_exposed(&text);
        let _ = duration::parse(&text);
        let _ = signals::is_valid(&text);
        let _ = chmod::Mode::parse(&text).map(|mode| mode.apply(0o644, false));
    }

    #[test]
    fn a_stored_trigger_parses_to_itself(text in dockerfile()) {
        let file = SourceFile::new("Dockerfile", format!("FROM scratch\nONBUILD {text}"));
        for statement in parse(&file).dockerfile.stages.iter().flat_map(|stage| &stage.instructions) {
            if let Instruction::Onbuild(onbuild) = &statement.instruction
                && let Some(parsed) = &onbuild.statement
            {
                let again = parse_trigger(&onbuild.trigger, "trigger");
                // A trigger that ends in an escape character or holds a carriage return reads differently on its own.
                if !onbuild.trigger.contains(['\\', '\r', '#']) {
                    prop_assert_eq!(&again.unwrap().original, &parsed.original);
                }
            }
        }
    }
}
