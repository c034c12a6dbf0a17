//! Dockerfiles to graphs and configs: expectations come from the Dockerfile reference and from what BuildKit documents.

mod cases;

use std::collections::BTreeMap;

use super::*;
use crate::diag::{Diagnostic, SourceFile};
use crate::oci::{Digest, ImageConfig, ImageId, Platform};
use crate::parser::parse;

struct Given<'a> {
    text: &'a str,
    target: Option<&'a str>,
    args: &'a [(&'a str, &'a str)],
    labels: &'a [(&'a str, &'a str)],
    platform: &'a str,
    /// Whether that is one of several.
    several: bool,
    /// Changes the config of the base image that every reference stands for.
    base: fn(&mut ImageConfig),
}

impl<'a> Given<'a> {
    fn new(text: &'a str) -> Given<'a> {
        Given { text, target: None, args: &[], labels: &[], platform: "linux/amd64", several: false, base: |_| {} }
    }

    fn plan(&self) -> Result<BuildGraph, Vec<Diagnostic>> {
        let parsed = parse(&SourceFile::new("Dockerfile", self.text));
        let errors: Vec<_> = parsed.diagnostics.iter().filter(|d| d.is_error()).map(|d| &d.message).collect();
        assert!(errors.is_empty(), "{errors:?}");
        let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> { pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect() };
        let platform: Platform = "linux/amd64".parse().unwrap();
        let build_args: BTreeMap<String, String> = own(self.args).into_iter().collect();
        let labels = own(self.labels);
        let request = PlanRequest {
            dockerfile: &parsed.dockerfile,
            target: self.target,
            build_args: &build_args,
            labels: &labels,
            contexts: NamedContexts::NONE,
            target_platform: self.platform.parse().unwrap(),
            implicit_platform: !self.several,
            one_of_several: self.several,
            build_platform: platform,
            network: NetworkMode::Default,
            extra_hosts: std::sync::Arc::default(),
            entitlements: crate::graph::Entitlements::ALL,
            no_cache: false,
            no_cache_filter: &[],
            checks: CheckScope::default(),
        };
        let mut images = ResolvedImages::new();
        loop {
            match plan(&request, &images)? {
                Planned::Ready(graph) => return Ok(*graph),
                Planned::NeedsImages(needs) => {
                    for need in needs {
                        let mut config = ImageConfig::empty(&need.platform);
                        (self.base)(&mut config);
                        let digest = Digest::sha256(format!("{} {}", need.reference, need.platform).as_bytes());
                        let image = ResolvedImage { id: ImageId::new(digest.clone()), manifest: digest, config };
                        assert!(images.insert(need.key(), image).is_none(), "asked twice");
                    }
                }
            }
        }
    }

    #[track_caller]
    fn graph(&self) -> BuildGraph {
        self.plan().unwrap_or_else(|errors| panic!("{:?}", errors.iter().map(|e| &e.message).collect::<Vec<_>>()))
    }

    #[track_caller]
    fn error(&self) -> String {
        let errors = self.plan().expect_err("a mistake");
        errors.iter().map(|e| e.message.clone()).collect::<Vec<_>>().join("\n")
    }
}

#[track_caller]
fn graph(text: &str) -> BuildGraph {
    Given::new(text).graph()
}

fn titles(graph: &BuildGraph) -> Vec<String> {
    graph.nodes().map(|id| graph.node(id).step.title()).collect()
}

fn execs(graph: &BuildGraph) -> Vec<ExecOp> {
    let exec = |id| match &graph.node(id).op {
        Op::Exec(exec) => Some(exec.clone()),
        _ => None,
    };
    graph.nodes().filter_map(exec).collect()
}

fn history(graph: &BuildGraph) -> Vec<String> {
    graph.targets[0].config.history.iter().filter_map(|entry| entry.created_by.clone()).collect()
}

fn variable(exec: &ExecOp, name: &str) -> Option<String> {
    exec.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

#[test]
fn only_what_the_target_reaches_is_in_the_graph() {
    let text = "FROM a AS one\nRUN x\nFROM b AS two\nRUN y\nFROM c\nCOPY --from=one /x /\n";
    let all = titles(&graph(text));
    assert!(all.iter().any(|t| t.contains("RUN x")) && !all.iter().any(|t| t.contains("RUN y")), "{all:?}");
    let two = Given { target: Some("TWO"), ..Given::new(text) }.graph();
    assert_eq!(titles(&two), ["[two 1/2] FROM docker.io/library/b:latest", "[two 2/2] RUN y"]);
}

#[test]
fn an_unknown_target_is_an_error_with_the_nearest_name() {
    let given = Given { target: Some("biuld"), ..Given::new("FROM a AS build\n") };
    let errors = given.plan().unwrap_err();
    assert_eq!(errors[0].message, "target stage `biuld` does not exist");
    assert_eq!(errors[0].hint.as_deref(), Some("there is a stage `build`"));
    assert!(Given { target: Some("0"), ..Given::new("FROM a AS build\n") }.plan().is_err());
}

#[test]
fn stages_are_copied_from_by_name_in_any_case_by_number_and_never_before_they_are_defined() {
    graph("FROM a AS One\nRUN x\nFROM b\nCOPY --from=ONE /x /\nCOPY --from=0 /y /\n");
    let error = Given::new("FROM a\nCOPY --from=late /x /\nFROM b AS late\nFROM c\nCOPY --from=0 / /\n").error();
    assert!(error.contains("needs to be defined before"), "{error}");
    assert!(Given::new("FROM a AS x\nCOPY --from=x / /\n").error().contains("cannot copy from itself"));
    assert!(Given::new("FROM a\nCOPY --from=7 / /\n").error().contains("no stage number 7"));
}

#[test]
fn a_mistake_in_an_unreachable_stage_does_not_matter() {
    graph("FROM a AS bad\nENV X=${\nFROM b\nRUN y\n");
}

#[test]
fn global_args_are_for_from_lines_and_stages_that_ask() {
    let text = "ARG V=1\nARG W=${V}2\nFROM base:$W\nRUN a\nARG V\nRUN b\n";
    let graph_of = graph(text);
    assert!(titles(&graph_of)[0].contains("base:12"));
    let runs = execs(&graph_of);
    assert_eq!((variable(&runs[0], "V"), variable(&runs[1], "V")), (None, Some("1".into())));
    let given = Given { args: &[("V", "9")], ..Given::new(text) }.graph();
    assert_eq!(variable(&execs(&given)[1], "V"), Some("9".into()));
    assert!(titles(&given)[0].contains("base:92"));
}

#[test]
fn env_is_simultaneous_and_arg_is_sequential() {
    let runs = execs(&graph("FROM a\nENV abc=hello\nENV abc=bye def=$abc\nARG x=1 y=$x\nRUN z\n"));
    let value = |name| variable(&runs[0], name);
    assert_eq!((value("abc"), value("def"), value("y")), (Some("bye".into()), Some("hello".into()), Some("1".into())));
}

#[test]
fn the_later_of_arg_and_env_wins_for_run_and_only_env_is_in_the_image() {
    let given = graph("FROM a\nENV A=env\nARG A=arg\nRUN x\n");
    assert_eq!(variable(&execs(&given)[0], "A"), Some("arg".into()));
    assert!(given.targets[0].config.config.env.contains(&"A=env".to_owned()));
}

#[test]
fn platform_args_need_a_declaration_in_the_stage() {
    let runs = execs(&graph("FROM a\nRUN x\nARG TARGETARCH\nRUN y\n"));
    assert_eq!((variable(&runs[0], "TARGETARCH"), variable(&runs[1], "TARGETARCH")), (None, Some("amd64".into())));
}

#[test]
fn proxies_reach_commands_without_arg_and_unused_args_are_warned_about() {
    let given = Given { args: &[("http_proxy", "p"), ("NOPE", "1")], ..Given::new("FROM a\nRUN x\n") }.graph();
    assert_eq!(execs(&given)[0].proxy_env.len(), 2);
    assert!(given.warnings.iter().any(|w| w.message.contains("`NOPE`")), "{:?}", given.warnings);
}

#[test]
fn entrypoint_resets_an_inherited_cmd_but_not_one_of_the_same_stage() {
    let base = |config: &mut ImageConfig| config.config.cmd = vec!["inherited".into()];
    let cmd = |text| Given { base, ..Given::new(text) }.graph().targets[0].config.config.cmd.clone();
    assert!(cmd("FROM a\nENTRYPOINT [\"e\"]\n").is_empty());
    assert_eq!(cmd("FROM a\nCMD [\"own\"]\nENTRYPOINT [\"e\"]\n"), ["own"]);
    assert_eq!(cmd("FROM a\n"), ["inherited"]);
}

#[test]
fn the_shell_form_uses_the_shell_of_its_line() {
    let config = graph("FROM a\nCMD one\nSHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT two\n").targets[0].config.config.clone();
    assert_eq!(config.cmd, ["/bin/sh", "-c", "one"]);
    assert_eq!(config.entrypoint, ["/bin/bash", "-c", "two"]);
    assert_eq!(config.shell, ["/bin/bash", "-c"]);
}

#[test]
fn scratch_has_a_path_and_a_working_directory_and_bases_get_a_path() {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let scratch = graph("FROM scratch\n").targets[0].config.config.clone();
    assert_eq!((scratch.env, scratch.working_dir.as_str()), (vec![path.to_owned()], "/"));
    assert_eq!(graph("FROM a\n").targets[0].config.config.env, [path]);
}

#[test]
fn history_is_in_buildkits_words() {
    let text = "FROM a\nARG V=1\nENV A=b C=\"d e\"\nRUN make $A\nCOPY --chown=1:2 x y /z/\nWORKDIR /w\nWORKDIR rel\nEXPOSE 443 80/TCP\n\
                CMD echo \"hi\"\nLABEL k=v\nUSER u\nVOLUME /d\nSTOPSIGNAL SIGINT\nHEALTHCHECK --interval=30s CMD true\nMAINTAINER me\n\
                COPY <<EOF /f\nx\nEOF\n";
    let given = graph(text);
    let expected = [
        "ARG V=1",
        "ENV A=b C=d e",
        "RUN |1 V=1 /bin/sh -c make $A # buildkit",
        "COPY --chown=1:2 x y /z/ # buildkit",
        "WORKDIR /w",
        "WORKDIR /w/rel",
        "EXPOSE [443/tcp 80/tcp]",
        "CMD [\"/bin/sh\" \"-c\" \"echo \\\"hi\\\"\"]",
        "LABEL k=v",
        "USER u",
        "VOLUME [/d]",
        "STOPSIGNAL SIGINT",
        r#"HEALTHCHECK &{["CMD-SHELL" "true"] "30s" "0s" "0s" "0s" '\x00'}"#,
        "MAINTAINER me",
        "COPY <<EOF /f # buildkit",
    ];
    assert_eq!(history(&given), expected);
    let layers: Vec<bool> = given.targets[0].config.history.iter().map(|entry| !entry.empty_layer).collect();
    let with_layer: Vec<usize> = layers.iter().enumerate().filter(|(_, layer)| **layer).map(|(at, _)| at).collect();
    assert_eq!(with_layer, [2, 3, 4, 5, 14]);
    assert_eq!(given.targets[0].config.author.as_deref(), Some("me"));
}

#[test]
fn absolute_working_directories_stay_as_they_are_written() {
    for (lines, directory, last) in [
        ("WORKDIR /a/", "/a/", "WORKDIR /a/"),
        ("WORKDIR /a/b/..", "/a/b/..", "WORKDIR /a/b/.."),
        ("WORKDIR //a//", "//a//", "WORKDIR //a//"),
        ("WORKDIR /a/\nWORKDIR b/", "/a/b", "WORKDIR /a/b"),
        ("WORKDIR /a/\nWORKDIR .", "/a", "WORKDIR /a"),
        ("WORKDIR /a/\nARG X\nWORKDIR $X", "/a/", "WORKDIR /a/"),
        ("WORKDIR a/", "/a", "WORKDIR /a"),
        ("WORKDIR /", "/", "WORKDIR /"),
    ] {
        let given = graph(&format!("FROM a\n{lines}\nRUN pwd\n"));
        let entries = history(&given);
        assert_eq!(given.targets[0].config.config.working_dir, directory, "{lines}");
        assert_eq!(entries[entries.len() - 2], last, "{lines}");
    }
    let given = graph("FROM a\nWORKDIR /a/b/../\nRUN pwd\n");
    assert_eq!(execs(&given)[0].workdir.to_string(), "/a");
}

#[test]
fn triggers_of_the_base_run_first_and_are_not_inherited() {
    let base = |config: &mut ImageConfig| config.config.on_build = vec!["RUN first".into(), "ENV T=1".into()];
    let given = Given { base, ..Given::new("FROM a\nRUN second\nONBUILD RUN later\n") }.graph();
    let runs: Vec<String> = execs(&given).iter().map(|exec| exec.args[2].clone()).collect();
    assert_eq!(runs, ["first", "second"]);
    assert_eq!(given.targets[0].config.config.on_build, ["RUN later"]);
    assert!(titles(&given).iter().any(|t| t == "[2/3] ONBUILD RUN first"), "{:?}", titles(&given));
}

#[test]
fn a_trigger_can_bring_in_a_stage_that_nothing_else_needs() {
    let base = |config: &mut ImageConfig| config.config.on_build = vec!["COPY --from=tools /t /t".into()];
    let given = Given { base, ..Given::new("FROM scratch AS tools\nCOPY t /t\nFROM a\n") }.graph();
    assert!(titles(&given).iter().any(|t| t.contains("COPY t /t")), "{:?}", titles(&given));
}

#[test]
fn a_stage_from_a_stage_inherits_everything_but_its_triggers() {
    let text = "FROM a AS base\nARG X=1\nENV E=2\nWORKDIR /w\nUSER me\nONBUILD RUN t\nFROM base\nRUN r\n";
    let given = graph(text);
    let runs = execs(&given);
    assert_eq!(runs.len(), 2, "the trigger runs too");
    let last = &runs[1];
    assert_eq!((variable(last, "X"), variable(last, "E")), (Some("1".into()), Some("2".into())));
    assert_eq!((last.workdir.to_string().as_str(), last.user.as_str()), ("/w", "me"));
    assert!(given.targets[0].config.config.on_build.is_empty());
}

#[test]
fn config_instructions_make_no_nodes() {
    let given = graph("FROM a\nLABEL a=b\nEXPOSE 1\nCMD x\nUSER u\nVOLUME /v\n");
    assert_eq!(given.len(), 1);
}

#[test]
fn labels_of_the_command_line_win() {
    let given = Given { labels: &[("k", "flag")], ..Given::new("FROM a\nLABEL k=file l=file\n") }.graph();
    assert_eq!(given.targets[0].config.config.labels, BTreeMap::from([("k".into(), "flag".into()), ("l".into(), "file".into())]));
}

#[test]
fn link_makes_a_layer_that_does_not_depend_on_the_base() {
    let given = graph("FROM a\nRUN x\nCOPY --link f /f\n");
    let merge = given.targets[0].node;
    assert_eq!(given.node(merge).op, Op::Merge);
    let copy = given.inputs(merge)[1];
    let base = given.inputs(copy)[0];
    assert_eq!(given.node(base).op, Op::Source(SourceOp::Scratch));
}

#[test]
fn mistakes_in_values_are_reported_where_they_are_written() {
    for (text, part) in [
        ("FROM a\nSTOPSIGNAL $S\n", "not a signal"),
        ("FROM a\nARG P=x\nEXPOSE $P\n", "not a port"),
        ("FROM a\nCOPY --chmod=9x f /f\n", "is no mode"),
        ("FROM a\nCOPY http://x/y /f\n", "cannot read from a URL"),
        ("FROM a\nRUN echo \0\n", "holds a zero byte"),
        ("FROM $NOTHING\n", "is empty once its variables are expanded"),
        ("FROM a AS base\nFROM Base\n", "neither a stage nor an image"),
    ] {
        let error = Given::new(text).error();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn what_the_kernel_cannot_take_and_what_would_fill_the_memory_is_refused() {
    let long = format!("FROM a\nENV LONG={}\nRUN x\n", "y".repeat(200_000));
    assert!(Given::new(&long).error().contains("the variable `LONG` has 200005 bytes"));
    let mut doubling = String::from("FROM a\nENV A0=0123456789\n");
    for i in 1..12 {
        doubling.push_str(&format!("ENV A{i}={}\n", format!("$A{}", i - 1).repeat(10)));
    }
    assert!(Given::new(&doubling).error().contains("expand to more than 1048576 bytes"));
}

#[test]
fn variables_in_from_are_refused_with_a_way_out() {
    for text in ["FROM a AS s\nFROM b\nCOPY --from=$S / /\n", "FROM a AS s\nFROM b\nRUN --mount=from=$S,target=/m x\n"] {
        let parsed = parse(&SourceFile::new("Dockerfile", text));
        let refused = match parsed.diagnostics.iter().any(Diagnostic::is_error) {
            true => parsed.diagnostics,
            false => Given::new(text).plan().expect_err("a mistake"),
        };
        assert!(refused[0].message.contains("variables are not expanded"), "{}", refused[0].message);
        assert!(refused[0].hint.as_ref().is_some_and(|hint| hint.contains("FROM $NAME AS")), "{:?}", refused[0].hint);
    }
}

#[test]
fn undefined_variables_are_warned_about_with_the_nearest_name() {
    let given = graph("FROM a\nENV VERSION=1\nWORKDIR /x/$VERSOIN\n");
    let warning = given.warnings.iter().find(|w| w.message.contains("$VERSOIN")).unwrap();
    assert_eq!(warning.hint.as_deref(), Some("did you mean `$VERSION`?"));
}

#[test]
fn the_same_input_gives_the_same_graph() {
    let text = "FROM a AS x\nRUN 1\nFROM b AS y\nRUN 2\nFROM x\nCOPY --from=y / /\nCOPY --from=img / /\n";
    assert_eq!(format!("{:?}", graph(text)), format!("{:?}", graph(text)));
}

/// The graph for several platforms, planned on amd64.
fn joint(text: &str, platforms: &[&str]) -> BuildGraph {
    BuildGraph::join(platforms.iter().map(|platform| Given { platform, several: true, ..Given::new(text) }.graph()).collect())
}

#[test]
fn what_several_platforms_have_in_common_is_in_their_graph_once() {
    let text = "FROM --platform=$BUILDPLATFORM a AS build\nRUN prepare\nARG TARGETARCH\nRUN compile\nFROM b\nCOPY --from=build /x /\n";
    let both = joint(text, &["linux/amd64", "linux/arm64"]);
    let expected = [
        "[linux/amd64 build 1/3] FROM docker.io/library/a:latest",
        "[linux/amd64 build 2/3] RUN prepare",
        "[linux/amd64 build 3/3] RUN compile",
        "[linux/amd64 stage-1 1/2] FROM docker.io/library/b:latest",
        "[linux/amd64 stage-1 2/2] COPY --from=build /x /",
        "[linux/amd64->arm64 build 3/3] RUN compile",
        "[linux/arm64 stage-1 1/2] FROM docker.io/library/b:latest",
        "[linux/arm64 stage-1 2/2] COPY --from=build /x /",
    ];
    assert_eq!(titles(&both), expected);
    let targets: Vec<String> = both.targets.iter().map(|target| both.node(target.node).step.title()).collect();
    assert_eq!(targets, [expected[4], expected[7]]);
    assert_eq!(both.targets[1].config.architecture, "arm64");
    // Each node comes after what it reads.
    assert!(both.nodes().all(|id| both.inputs(id).iter().all(|input| *input < id)));
    // With one platform there is nothing to join, and nothing to tell apart.
    assert!(titles(&graph(text)).iter().all(|title| !title.contains("linux")));
}

#[test]
fn steps_without_a_platform_of_their_own_are_called_after_none_where_all_share_them() {
    let both = joint("FROM scratch\nCOPY f /\nWORKDIR /d\n", &["linux/amd64", "linux/arm64"]);
    assert_eq!(
        titles(&both).into_iter().filter(|title| title.starts_with('[')).collect::<Vec<_>>(),
        ["[1/2] COPY f /", "[2/2] WORKDIR /d"]
    );
    assert_eq!(both.targets[0].node, both.targets[1].node);
    let step = &both.node(both.targets[0].node).step;
    assert_eq!(*step.platforms, ["linux/amd64", "linux/arm64"]);
    // A command runs for one of them.
    let both = joint("FROM scratch\nRUN [\"/x\"]\n", &["linux/amd64", "linux/arm/v7"]);
    assert_eq!(titles(&both)[1..], ["[linux/amd64 1/1] RUN [\"/x\"]", "[linux/arm/v7 1/1] RUN [\"/x\"]"]);
}

#[test]
fn a_step_is_for_the_target_also_where_it_only_reads_what_is() {
    let text =
        "FROM a AS app\nFROM --platform=$BUILDPLATFORM b AS pack\nCOPY --from=app / /app\nRUN pack\nFROM scratch\nCOPY --from=pack / /\n";
    let all = titles(&joint(text, &["linux/amd64", "linux/arm64"]));
    for title in [
        "[linux/amd64 pack 3/3] RUN pack",
        "[linux/amd64->arm64 pack 2/3] COPY --from=app / /app",
        "[linux/amd64->arm64 pack 3/3] RUN pack",
    ] {
        assert!(all.iter().any(|found| found == title), "{title}: {all:?}");
    }
}

#[test]
fn what_is_told_of_several_platforms_is_told_once() {
    let both = joint("FROM scratch\nENV A=$NOWHERE\n", &["linux/amd64", "linux/arm64"]);
    assert_eq!(both.warnings.iter().filter(|warning| warning.message.contains("$NOWHERE")).count(), 1);
}

#[test]
fn thousands_of_stages_in_a_row_are_planned() {
    let mut text = String::from("FROM scratch AS s0\nRUN 0\n");
    for i in 1..5000 {
        text.push_str(&format!("FROM s{} AS s{i}\nRUN {i}\n", i - 1));
    }
    assert_eq!(graph(&text).len(), 5001);
}
