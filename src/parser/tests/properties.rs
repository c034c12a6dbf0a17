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
            "<<A <<B /d\n",
            "B\n",
            "${a[@]}",
            "\u{85}",
            "\u{a0}",
            "FROM scratch\n",
            "# c\n",
            "// syntax=",
            "#!",
            "\\\"",
            "NONE []",
        ]),
    ];
    prop::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat())
}

fn spans_of(statement: &Statement, spans: &mut Vec<Span>) {
    spans.extend([statement.span, statement.keyword.span]);
    let mut words = |words: &[Word]| spans.extend(words.iter().map(|word| word.span));
    let mut heredocs = Vec::new();
    match &statement.instruction {
        Instruction::From(from) => {
            words(std::slice::from_ref(&from.image));
            words(from.platform.as_slice());
            heredocs.extend(from.name.iter().map(|name| name.written.span));
        }
        Instruction::Arg(declarations) => declarations.iter().for_each(|declaration| {
            words(std::slice::from_ref(&declaration.name));
            words(declaration.default.as_slice());
        }),
        Instruction::Run(run) => {
            words(&run.mounts);
            heredocs.extend(run.heredocs.iter().flat_map(|heredoc| [heredoc.span, heredoc.body.span]));
            heredocs.extend(run.devices.iter().map(|device| device.span));
            command(&run.command, &mut words);
            let _ = run.script();
        }
        Instruction::Copy(copy) => {
            paths(&copy.paths, &mut words, &mut heredocs);
            words(copy.chown.as_slice());
            words(copy.chmod.as_slice());
            words(&copy.exclude);
            heredocs.extend(copy.from.iter().map(|from| from.span));
        }
        Instruction::Add(add) => {
            paths(&add.paths, &mut words, &mut heredocs);
            words(add.checksum.as_slice());
            words(&add.exclude);
        }
        Instruction::Env(pairs) | Instruction::Label(pairs) => pairs.iter().for_each(|pair| words(&[pair.key.clone(), pair.value.clone()])),
        Instruction::Expose(list) | Instruction::Volume(list) => words(list),
        Instruction::Maintainer(word) | Instruction::User(word) | Instruction::Workdir(word) | Instruction::StopSignal(word) => {
            words(std::slice::from_ref(word));
        }
        Instruction::Cmd(form) | Instruction::Entrypoint(form) => command(form, &mut words),
        Instruction::Onbuild(onbuild) => onbuild.statement.iter().for_each(|statement| spans_of(statement, &mut heredocs)),
        _ => {}
    }
    spans.extend(heredocs);
}

fn command(form: &ShellOrExec, words: &mut impl FnMut(&[Word])) {
    if let ShellOrExec::Shell(word) = form {
        words(std::slice::from_ref(word));
    }
}

fn paths(paths: &CopyPaths, words: &mut impl FnMut(&[Word]), spans: &mut Vec<Span>) {
    words(&paths.sources);
    words(std::slice::from_ref(&paths.destination));
    spans.extend(paths.heredocs.iter().flat_map(|heredoc| [heredoc.span, heredoc.body.span]));
}

fn check(text: &str) {
    check_file(&SourceFile::new("Dockerfile", text));
    let _ = parse_trigger(text, "trigger");
}

fn check_file(file: &SourceFile) {
    let text = file.text();
    let parsed = parse(file);
    let mut spans: Vec<Span> = Vec::new();
    let mut all: Vec<Diagnostic> = parsed.diagnostics;
    all.extend(lint(&parsed.dockerfile));
    for diagnostic in &all {
        spans.push(diagnostic.span);
        spans.extend(diagnostic.related.iter().map(|(span, _)| *span));
        spans.extend(diagnostic.suggestion.iter().map(|suggestion| suggestion.span));
    }
    let stages = &parsed.dockerfile.stages;
    let statements = || stages.iter().flat_map(|stage| std::iter::once(&stage.statement).chain(&stage.instructions));
    statements().for_each(|statement| spans_of(statement, &mut spans));
    parsed.dockerfile.global_args.iter().for_each(|statement| spans_of(statement, &mut spans));
    for span in spans {
        assert!(text.get(span.range()).is_some(), "{span:?} is no range of {text:?}");
    }
    // Instructions follow each other and do not overlap.
    let ends = statements().map(|statement| statement.span).collect::<Vec<_>>();
    assert!(ends.windows(2).all(|pair| pair[0].end() <= pair[1].start()), "{ends:?} in {text:?}");
    // A file that is not refused has all its instructions in the tree.
    let refused = all.iter().any(Diagnostic::is_error);
    assert!(refused || !stages.is_empty(), "no stage and no mistake in {text:?}");
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
    fn any_bytes_parse_and_spans_are_ranges_of_what_was_read(bytes in any::<Vec<u8>>(), text in dockerfile(), at in 0..64_usize) {
        let mut mixed = format!("FROM scratch\n{text}").into_bytes();
        mixed.splice(at.min(mixed.len())..at.min(mixed.len()), bytes.iter().copied().take(4));
        check_file(&SourceFile::from_bytes("Dockerfile", bytes));
        check_file(&SourceFile::from_bytes("Dockerfile", mixed));
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
                    let again = again.unwrap();
                    prop_assert_eq!(again.original(&file), parsed.original(&file));
                }
            }
        }
    }
}
