//! `parse`: the tree on standard output, mistakes on standard error, and a status that says whether a build could begin.

use serde_json::Value;

use crate::common::World;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_tree_is_drawn_for_people_and_written_for_tools() {
    let world = World::new();
    world.write("Dockerfile", "ARG V=1\nFROM scratch AS One\nCOPY --from=x a \\\n  b /\nRUN <<EOF\nhi\nEOF\n");
    let text = world.strake(["parse", "ctx/Dockerfile"]).ok();
    assert_eq!(
        text.stdout,
        "1      ARG \"V\"=\"1\"\nstage 0 \"one\" from \"scratch\", lines 2-7\n  2      FROM \"scratch\" \"AS\" \"One\"\n  3-4    COPY --from=\"x\" shell \"a\" \
         \"b\" \"/\"\n  5-7    RUN shell \"<<EOF\"\n           heredoc <<EOF \"hi\\n\"\n"
    );
    let tree = json(&world.strake(["parse", "--format", "json", "ctx/Dockerfile"]).ok().stdout);
    assert_eq!((&tree["schema"], &tree["file"]), (&Value::from(1), &Value::from("ctx/Dockerfile")));
    assert_eq!(tree["stages"][0]["instructions"][1]["heredocs"][0]["body"], "hi\n");
    assert!(!world.root().exists(), "a store was made");
}

#[test]
fn mistakes_are_shown_beside_the_tree_and_fail_the_command() {
    let world = World::new();
    let text = "FROM scratch\nRUNN x\nCOPY a /\n";
    let done = world.strake(["parse", "-"]).stdin(text).fails();
    assert!(done.code == 1 && done.stdout.contains("COPY shell \"a\" \"/\""), "{done}");
    done.says(&["unknown instruction `RUNN`", "-:2:1", "did you mean `RUN`?"]);
    let done = world.strake(["parse", "--format=json", "-"]).stdin(text).fails();
    let tree = json(&done.stdout);
    assert_eq!(tree["diagnostics"][0]["suggestion"]["replacement"], "RUN");
    assert!(done.stderr.is_empty(), "{done}");
    let done = world.strake(["parse", "-"]).stdin("FROM scratch\nRUN a \\\n\n b\n").ok();
    assert!(done.stderr.contains("warning"), "{done}");
}

#[test]
fn what_cannot_be_read_is_told_clearly() {
    let world = World::new();
    world.strake(["parse", "missing"]).fails().says(&["cannot read the Dockerfile `missing`", "No such file"]).omits(&["-f"]);
    world.strake(["parse", "ctx"]).fails().says(&["cannot read the Dockerfile `ctx`", "directory"]);
    let huge = std::fs::File::create(world.context().join("huge")).unwrap();
    huge.set_len(1 << 30).unwrap();
    world.strake(["parse", "ctx/huge"]).fails().says(&["cannot read the Dockerfile `ctx/huge`", "larger than 256 MiB"]);
}

#[test]
fn bytes_that_are_not_utf8_are_a_mistake_where_a_step_would_need_them() {
    let world = World::new();
    let parse = |bytes: &[u8]| world.strake(["parse", "--format=json", "-"]).stdin(bytes.to_vec());
    let done = parse(b"FROM scratch\nENV a=\xff\n").fails();
    let diagnostic = &json(&done.stdout)["diagnostics"][0];
    assert_eq!((&diagnostic["severity"], &diagnostic["line"]), (&"error".into(), &2.into()), "{done}");
    let done = parse(b"FROM scratch\n# caf\xe9\nMAINTAINER Jos\xe9\n").ok();
    let warning = &json(&done.stdout)["diagnostics"][0];
    assert_eq!((&warning["severity"], &warning["line"]), (&"warning".into(), &3.into()), "{done}");
}
