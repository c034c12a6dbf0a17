//! `--check` and `--call`: what is said of a build without building, as text and in BuildKit's JSON; and build checks of an ordinary build.

use base64::Engine as _;
use serde_json::Value;

use crate::common::{Done, World, able};

/// A Dockerfile with something for every call; it needs no base image.
const TEXT: &str = "\
# VERSION of the thing
ARG VERSION=3
FROM scratch as tools
ARG TOKEN
RUN --mount=type=secret,id=npm,required --mount=type=ssh --mount=type=cache,target=/c make
# final is what we ship
FROM --platform=$BUILDPLATFORM scratch AS final
ARG VERSION
COPY --from=tools /x /y
CMD run \\
  me
";

#[track_caller]
fn json(done: &Done) -> Value {
    serde_json::from_str(&done.stdout).unwrap_or_else(|error| panic!("{error}: {done}"))
}

/// The lines of a location: one range for each.
fn lines(of: &Value) -> Vec<u64> {
    let ranges = of["location"]["ranges"].as_array().unwrap();
    assert!(ranges.iter().all(|range| range["start"] == range["end"]), "{of}");
    ranges.iter().map(|range| range["start"]["line"].as_u64().unwrap()).collect()
}

fn found(of: &Value) -> Vec<(String, Vec<u64>)> {
    of["warnings"].as_array().unwrap().iter().map(|warning| (warning["ruleName"].as_str().unwrap().to_owned(), lines(warning))).collect()
}

fn decoded(data: &Value) -> String {
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(data.as_str().unwrap()).unwrap()).unwrap()
}

#[test]
fn a_check_without_findings_says_so_and_succeeds() {
    let world = World::new();
    let done = world.build("FROM scratch\nCOPY absent /\n", &["--check"]).ok();
    assert_eq!(done.stdout, "Check complete, no warnings found.\n");
    // Flags about the result are taken, and mean nothing.
    let done = world.build_as_it_is(&["--call=check", "-t", "example/x", "-o", "out", "--quiet"]).ok();
    assert_eq!(done.stdout, "Check complete, no warnings found.\n");
    assert!(!world.path("out").exists());
    assert_eq!(world.strake(["images", "-q"]).ok().stdout, "");
}

#[test]
fn findings_are_shown_with_rule_and_link_and_are_a_failure() {
    let world = World::new();
    let done = world.build("FROM scratch as a\nCMD x\n", &["--check"]).fails();
    assert_eq!(done.code, 1, "{done}");
    let expected =
        ["Check complete, 2 warnings have been found!", "[FromAsCasing]", "Dockerfile:1:14", "docs/checks.md#jsonargsrecommended"];
    expected.iter().for_each(|text| assert!(done.stdout.contains(text), "{text}: {done}"));
    let done = world.build_as_it_is(&["--call=lint,ignorestatus=true", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=FromAsCasing"]).ok();
    assert!(done.stdout.contains("Check complete, 1 warning has been found!") && !done.stdout.contains("FromAsCasing"), "{done}");
}

#[test]
fn a_check_in_json_has_buildkits_fields() {
    let world = World::new();
    // The step of the first stage wants an SSH agent; without it, all can be planned.
    let text = TEXT.replace(" --mount=type=ssh", "");
    let done = world.build(&text, &["--call=check,format=json"]).fails();
    let value = json(&done);
    let expected = [("FromAsCasing", vec![3]), ("SecretsUsedInArgOrEnv", vec![4]), ("JSONArgsRecommended", vec![10, 11])];
    assert_eq!(found(&value), expected.map(|(rule, lines)| (rule.to_owned(), lines)));
    let first = &value["warnings"][0];
    assert!(first["description"].as_str().is_some_and(|text| !text.is_empty()), "{first}");
    assert!(first["url"].as_str().is_some_and(|url| url.ends_with("docs/checks.md#fromascasing")), "{first}");
    assert!(first["detail"].as_str().is_some_and(|text| text.contains("`as`")), "{first}");
    assert_eq!(value["sources"].as_array().unwrap().len(), 1);
    assert!(value["sources"][0]["filename"].as_str().unwrap().ends_with("Dockerfile"), "{}", value["sources"][0]);
    assert_eq!(value["sources"][0]["language"], "Dockerfile");
    assert_eq!(decoded(&value["sources"][0]["data"]), text);
    assert_eq!(value.get("buildError"), None);
}

#[test]
fn an_answer_goes_to_the_metadata_file_too() {
    let world = World::new();
    let file = world.path("meta.json");
    let flags = ["--metadata-file", file.to_str().unwrap()];
    for (call, succeeds) in [("check", false), ("outline", true), ("targets", true)] {
        let json_call = format!("--call={call},format=json");
        let done = world.build(TEXT, &[&flags[..], &[&json_call]].concat());
        let said = if succeeds { json(&done.ok()) } else { json(&done.fails()) };
        let written: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(written, serde_json::json!({ "result.json": said }), "{call}");
        std::fs::remove_file(&file).unwrap();
    }
    // What an earlier call wrote is not taken for this one's.
    std::fs::write(&file, "old").unwrap();
    world.build("FROM scratch\nBADCMD\n", &[&flags[..], &["--call=outline"]].concat()).fails();
    assert!(!file.exists());
    world.build(TEXT, &["--call=outline", "--metadata-file", "/no/such/dir/x"]).fails().says(&["/no/such/dir/x"]);
}

#[test]
fn all_stages_are_checked_unless_a_target_is_named() {
    let world = World::new();
    world.write("Dockerfile", "FROM scratch AS a\nENV x $y\nFROM scratch AS b\nENV z $w\n");
    let rules = |args: &[&str]| found(&json(&world.build_as_it_is(args).fails()));
    let both = |line| [("LegacyKeyValueFormat".to_owned(), vec![line]), ("UndefinedVar".to_owned(), vec![line])];
    assert_eq!(rules(&["--call=check,format=json"]), [both(2), both(4)].concat());
    assert_eq!(rules(&["--call=check,format=json", "--target", "a"]), both(2));
}

#[test]
fn what_cannot_be_built_is_told_with_what_was_found() {
    let world = World::new();
    let done = world.build("FROM scratch AS Bad\nMAINTAINER me\nBADCMD\n", &["--call=check,format=json"]).fails();
    let value = json(&done);
    assert_eq!(found(&value).len(), 2, "{done}");
    assert!(value["buildError"]["message"].as_str().unwrap().contains("BADCMD"), "{done}");
    assert_eq!(lines(&value["buildError"]), [3]);
    done.says(&["Dockerfile:3:1", "BADCMD"]);
    let done = world.build("FROM scratch\nCOPY --from=2 a b\n", &["--check"]).fails();
    assert!(done.stdout.is_empty(), "{done}");
    done.says(&["Dockerfile:2"]);
}

#[test]
fn a_base_image_that_cannot_be_had_does_not_keep_the_rest_from_being_checked() {
    let world = World::new();
    // Nothing listens there.
    let text = "FROM 127.0.0.1:1/none AS tools\nENV a $b\nFROM scratch\nCMD x\n";
    let done = world.build(text, &["--plain-http", "127.0.0.1:1", "--call=check,format=json"]).fails();
    let value = json(&done);
    let rules: Vec<_> = found(&value).into_iter().map(|(rule, _)| rule).collect();
    assert_eq!(rules, ["LegacyKeyValueFormat", "UndefinedVar", "JSONArgsRecommended"], "{done}");
    assert!(value["buildError"]["message"].as_str().unwrap().contains("127.0.0.1:1/none"), "{done}");
    assert_eq!(lines(&value["buildError"]), [1]);
    for call in ["outline", "targets"] {
        world.build_as_it_is(&[&format!("--call={call}")]).ok();
    }
}

#[test]
fn an_outline_says_what_the_target_takes() {
    let world = World::new();
    let value = json(&world.build(TEXT, &["--call=outline,format=json"]).ok());
    assert_eq!((value["name"].as_str(), value["description"].as_str()), (Some("final"), Some("is what we ship")));
    let args = value["args"].as_array().unwrap();
    let args: Vec<_> =
        args.iter().map(|arg| (arg["name"].as_str(), arg["value"].as_str(), arg["description"].as_str(), lines(arg))).collect();
    assert_eq!(args, [(Some("VERSION"), Some("3"), Some("of the thing"), vec![2]), (Some("TOKEN"), None, None, vec![4])]);
    let secret = &value["secrets"][0];
    assert_eq!((secret["name"].as_str(), secret["required"].as_bool(), lines(secret)), (Some("npm"), Some(true), vec![5]));
    assert_eq!((value["ssh"][0]["name"].as_str(), value["ssh"][0].get("required")), (Some("default"), None));
    assert_eq!(value["cache"][0]["ID"], "/c");
    assert_eq!(decoded(&value["sources"][0]), TEXT);
    // With a value of its own, the stage's declaration is the one that counts.
    let given = json(&world.build_as_it_is(&["--call=outline,format=json", "--build-arg=VERSION=4"]).ok());
    assert_eq!((given["args"][1]["value"].as_str(), lines(&given["args"][1])), (Some("4"), vec![8]));
    let tools = json(&world.build_as_it_is(&["--call=outline,format=json", "--target=tools"]).ok());
    assert_eq!((tools["name"].as_str(), tools["args"].as_array().unwrap().len()), (Some("tools"), 1));
    let text = world.build_as_it_is(&["--call=outline"]).ok().stdout;
    for part in [
        "TARGET:      final",
        "DESCRIPTION: is what we ship",
        "BUILD ARG   VALUE   DESCRIPTION",
        "VERSION     3       of the thing",
        "npm      true",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    world.build_as_it_is(&["--call=outline", "--target=fnal"]).fails().says(&["`fnal`", "`final`"]);
}

#[test]
fn the_targets_are_the_stages() {
    let world = World::new();
    let value = json(&world.build(TEXT, &["--call=targets,format=json"]).ok());
    let targets = value["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 2);
    let first: Vec<_> = targets[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(first, ["name", "base", "location"]);
    let last = &targets[1];
    assert_eq!((last["name"].as_str(), last["default"].as_bool()), (Some("final"), Some(true)));
    assert_eq!((last["base"].as_str(), last["platform"].as_str()), (Some("scratch"), Some("$BUILDPLATFORM")));
    assert_eq!((last["description"].as_str(), lines(last)), (Some("is what we ship"), vec![7]));
    assert_eq!(decoded(&value["sources"][0]), TEXT);
    let text = world.build_as_it_is(&["--call=targets"]).ok().stdout;
    assert_eq!(text, "TARGET            DESCRIPTION\ntools\nfinal (default)   is what we ship\n");
    world.build("FROM scratch\nBADCMD\n", &["--call=targets"]).fails().says(&["BADCMD"]);
}

#[test]
fn a_call_that_is_not_known_or_asked_for_twice_is_refused() {
    let world = World::new();
    world.write("Dockerfile", "FROM scratch\n");
    world.build_as_it_is(&["--call=chek"]).fails().says(&["chek", "check"]);
    world.build_as_it_is(&["--call=check,format=xml"]).fails().says(&["xml"]);
    world.build_as_it_is(&["--check", "--call=targets"]).fails().says(&["--check"]);
    world.build_as_it_is(&["--check", "--call=check,format=json"]).ok();
}

#[test]
fn an_interrupted_check_says_nothing_of_downloads() {
    let world = World::new();
    let mut run = world.strake(["build", "--check", "-f", "-", "."]);
    let run = run.command().stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = run.spawn().unwrap();
    // Kept open: at its end the check would go on.
    let _stdin = child.stdin.take();
    // The store is there as soon as the engine is open; then the signals are watched.
    crate::common::wait_for("the store", 20, || world.root().exists());
    std::thread::sleep(std::time::Duration::from_millis(500));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let told = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(told.contains("cancelled") && !told.contains("pull"), "{told}");
}

#[test]
fn an_ignored_file_is_found_by_the_check() {
    let world = World::new();
    world.write(".dockerignore", "*.log\n").write("a.log", "a");
    let done = world.build("FROM scratch\nCOPY a.log /\n", &["--check"]).fails();
    assert!(done.stdout.contains("[CopyIgnoredFile]"), "{done}");
    world.write("Dockerfile.dockerignore", "other\n");
    world.build_as_it_is(&["--check"]).ok();
}

#[test]
fn findings_of_a_build_are_warnings_or_errors_before_any_step() {
    if !able(&[]) {
        return;
    }
    let world = World::new();
    world.write("a", "a");
    let done = world.build("FROM scratch as x\nCOPY a /\n", &[]).ok();
    done.says(&["[FromAsCasing]", "docs/checks.md#fromascasing"]);
    world.build("# check=skip=FromAsCasing\nFROM scratch as x\nCOPY a /\n", &[]).ok().omits(&["FromAsCasing"]);
    let done = world.build("# check=error=true\nFROM scratch as x\nCOPY a /new\nENV A=$B\n", &[]).fails();
    done.says(&["[FromAsCasing]", "[UndefinedVar]", "FromAsCasing, UndefinedVar", "hint:"]).omits(&["COPY a /new\n", "image sha256"]);
    assert!(done.steps().is_empty(), "{done}");
    world.build_as_it_is(&["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"]).ok().omits(&["FromAsCasing", "UndefinedVar"]);
    world.build("# check=skipp=all\nFROM scratch\n", &[]).fails().says(&["Dockerfile:1:9", "skipp", "`skip`"]);
}
