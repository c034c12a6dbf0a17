//! `context ls`: what is sent, how large it is, and which pattern decided.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::World;

fn world() -> World {
    let world = World::new();
    world.write("Dockerfile", "FROM scratch\n").write(".dockerignore", "# what is made\nout\n!out/keep\n*.log\n");
    world.write("out/large", vec![0; 5000]).write("out/keep/a", "12345").write("src/main.rs", vec![0; 2000]).write("x.log", "");
    world
}

#[test]
fn what_is_sent_is_listed_in_order_with_a_total() {
    let world = world();
    let done = world.strake(["context", "ls", "ctx"]).ok();
    assert_eq!(
        done.stdout,
        "    SIZE  KIND    PATH\n     55B  file    .dockerignore\n     13B  file    Dockerfile\n       -  dir     out\n       -  dir     out/keep\n      5B  file    \
         out/keep/a\n       -  dir     src\n  2.00kB  file    src/main.rs\ntotal 2.06kB: 4 files, 3 directories; ignore file ctx/.dockerignore\n"
            .replace("55B", &format!("{}B", "# what is made\nout\n!out/keep\n*.log\n".len()))
            .replace("2.06kB", "2.05kB")
    );
    assert!(!world.root().exists(), "a store was made");
    let list: Value = serde_json::from_str(&world.strake(["context", "ls", "--format=json"]).dir(world.context()).ok().stdout).unwrap();
    assert_eq!(list["entries"][4], json!({"path": "out/keep/a", "escaped": false, "kind": "file", "size": 5}));
    assert_eq!((&list["total"]["files"], &list["total"]["directories"]), (&json!(4), &json!(3)));
}

#[test]
fn by_size_a_directory_counts_with_what_is_below_it() {
    let world = world();
    let done = world.strake(["context", "ls", "--sort", "size", "ctx"]).ok();
    let paths: Vec<&str> = done.stdout.lines().skip(1).take(3).filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(paths, ["src", "src/main.rs", ".dockerignore"], "{done}");
    assert!(done.stdout.contains("      5B  dir     out/keep\n"), "{done}");
}

#[test]
fn why_names_the_pattern_that_decided() {
    let world = world();
    for (path, expected) in [
        ("out/large", &["not sent: out/large (file)", ".dockerignore:2: `out` ignores `out` above it"][..]),
        ("./out/keep/a", &["sent: out/keep/a (file)", ".dockerignore:3: `!out/keep` brings back `out/keep` above it"]),
        ("out", &["sent: out (dir)", ".dockerignore:2: `out` ignores it", "for what is brought back below it"]),
        ("/src/main.rs", &["sent: src/main.rs (file)", "no pattern of ctx/.dockerignore matches it"]),
        ("new.log", &["would not be sent: new.log (it does not exist)", ".dockerignore:4: `*.log` ignores it"]),
        ("Dockerfile", &["sent: Dockerfile", "it is the Dockerfile: the builder reads it in any case"]),
        (".dockerignore", &["sent: .dockerignore", "it is the ignore file"]),
    ] {
        let done = world.strake(["context", "ls", "--why", path, "ctx"]).ok();
        for part in expected {
            assert!(done.stdout.contains(part), "{part:?} in {done}");
        }
    }
    world.strake(["context", "ls", "--why", "../x", "ctx"]).fails().says(&["`../x` is outside of the context"]);
    let absolute = world.context().canonicalize().unwrap().join("out/large");
    let done = world
        .strake([OsStr::new("context"), "ls".as_ref(), "--format=json".as_ref(), "--why".as_ref(), absolute.as_ref(), "ctx".as_ref()])
        .ok();
    let why: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!((&why["sent"], &why["decided_by"]["line"], &why["decided_by"]["matched"]), (&json!(false), &json!(2), &json!("out")));
}

#[test]
fn the_ignore_file_of_the_dockerfile_replaces_that_of_the_context() {
    let world = world();
    world.write("other.Dockerfile", "FROM scratch\n").write("other.Dockerfile.dockerignore", "*\n!x.log\n");
    let done = world.strake(["context", "ls", "-f", "other.Dockerfile", "ctx"]).ok();
    assert!(done.stdout.contains("1 file, 0 directories; ignore file ctx/other.Dockerfile.dockerignore"), "{done}");
    world.write("other.Dockerfile.dockerignore", "fine\n[b-a]*\n");
    world
        .strake(["context", "ls", "-f", "other.Dockerfile", "ctx"])
        .fails()
        .says(&["other.Dockerfile.dockerignore:2: bad pattern `[b-a]*`"]);
}

#[test]
fn names_that_are_not_text_stay_on_one_line() {
    let world = World::new();
    for name in [&b"a\nb"[..], b"\xff", b"c\\d", b"\x1b[31m"] {
        std::fs::write(world.context().join(OsStr::from_bytes(name)), "").unwrap();
    }
    let done = world.strake(["context", "ls", "ctx"]).ok();
    let lines: Vec<&str> = done.stdout.lines().skip(1).collect();
    assert!(
        lines.len() == 5 && done.stdout.contains("\\u{1b}[31m\n") && done.stdout.contains("a\\nb\n") && done.stdout.contains("c\\\\d\n"),
        "{done}"
    );
    assert!(done.stdout.contains("\\xff\n"), "{done}");
    let list: Value = serde_json::from_str(&world.strake(["context", "ls", "--format=json", "ctx"]).ok().stdout).unwrap();
    assert_eq!((&list["entries"][1]["path"], &list["entries"][3]["escaped"]), (&json!("a\nb"), &json!(true)));
}

#[test]
fn what_is_no_directory_is_told_clearly() {
    let world = world();
    world.strake(["context", "ls", "missing"]).fails().says(&["build context `missing` does not exist"]);
    world.strake(["context", "ls", "ctx/Dockerfile"]).fails().says(&["is not a directory"]);
    world.strake(["context", "ls", "-"]).fails().says(&["standard input cannot be listed"]);
}

#[test]
fn a_large_tree_is_listed_at_once_and_a_reader_may_leave() {
    let world = World::new();
    for directory in 0..50 {
        let directory = world.context().join(format!("d{directory}"));
        std::fs::create_dir(&directory).unwrap();
        (0..200).for_each(|file| std::fs::write(directory.join(file.to_string()), "").unwrap());
    }
    let started = Instant::now();
    let done = world.strake(["context", "ls", "ctx"]).ok();
    assert!(done.stdout.ends_with("10000 files, 50 directories; no ignore file\n"));
    assert!(started.elapsed() < Duration::from_secs(10), "took {:?}", started.elapsed());

    let mut run = world.strake(["context", "ls", "ctx"]);
    let mut child = run.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
