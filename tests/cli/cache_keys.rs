//! What a step's key counts and what it does not (the list is that of the keys' documentation), and what is said of it.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::common::web::{Reply, Web};
use crate::common::{Done, Run, World, able, wait_for, world};

/// Builds twice, with a change in between; how the step `title` ended the second time.
#[track_caller]
fn again(world: &World, first: (&str, &[&str]), change: impl FnOnce(), second: (&str, &[&str]), title: &str) -> (String, Done) {
    world.build(first.0, first.1).ok();
    change();
    let done = world.build(second.0, second.1).ok();
    (done.step(title), done)
}

#[test]
fn a_capability_of_a_file_counts_and_other_security_attributes_do_not() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nCOPY ping /\n";
    let path = world.write("ping", "ping").context().join("ping");
    let set = |name: &str, value: &[u8]| rustix::fs::setxattr(&path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let (ended, done) = again(&world, (text, &[]), || set("security.capability", &capability), (text, &[]), "COPY ping");
    assert_eq!(ended, "DONE", "{done}");
    done.says(&["why: ping changed"]);
}

#[test]
fn mode_kind_and_name_of_a_file_are_told_from_its_content() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nCOPY *.txt sub /d/\n";
    world.write("a.txt", "a").write("b.txt", "b").write("sub/f", "f");
    let at = |name: &str| world.context().join(name);
    let mut done = world.build(text, &[]).ok();
    let mut next = |said: &str, change: &dyn Fn()| {
        change();
        done = world.build(text, &[]).ok();
        assert_eq!(done.step("COPY"), "DONE", "{said}: {done}");
        done.says(&[&format!("why: {said}")]);
    };
    next("mode of a.txt: 644 -> 600", &|| std::fs::set_permissions(at("a.txt"), PermissionsExt::from_mode(0o600)).unwrap());
    next("a.txt was renamed to c.txt", &|| std::fs::rename(at("a.txt"), at("c.txt")).unwrap());
    next("b.txt changed", &|| std::fs::write(at("b.txt"), "other").unwrap());
    next("sub/f was a file and is a link", &|| {
        std::fs::remove_file(at("sub/f")).unwrap();
        std::os::unix::fs::symlink("x", at("sub/f")).unwrap();
    });
    next("sub/g is new", &|| std::fs::write(at("sub/g"), "g").unwrap());
    next("sub/f is gone", &|| std::fs::remove_file(at("sub/f")).unwrap());
}

#[test]
fn a_rewrite_of_the_same_size_with_its_old_time_is_noticed() {
    let Some(world) = world() else { return };
    let path = world.write("f", "one").context().join("f");
    let old = SystemTime::now() - Duration::from_secs(3600);
    let backdate = || std::fs::File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
    backdate();
    let text = "FROM localhost/busybox\nCOPY f /\n";
    world.build(text, &[]).ok();
    // Long enough for the file's checksum to be remembered, which the second build does.
    std::thread::sleep(Duration::from_millis(3100));
    world.build(text, &[]).ok();
    std::fs::write(&path, "two").unwrap();
    backdate();
    assert_eq!(world.image(text, &[]).tree()["f"].content, b"two");
}

#[test]
fn what_a_command_cannot_see_is_not_in_its_key() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN --mount=type=secret,id=s --mount=type=cache,target=/c cat /proc/sys/kernel/random/uuid > /stamp; date > /c/x\n";
    world.write("secret", "one");
    let secret = format!("id=s,src={}", world.context().join("secret").display());
    let first = ["--secret", &secret, "--build-arg", "http_proxy=http://one", "--add-host", "there:127.0.0.1"];
    let second = ["--secret", &secret, "--build-arg", "http_proxy=http://two", "--add-host", "there:127.0.0.2"];
    let supported = world.build("FROM scratch\nCOPY secret /\n", &["--add-host", "a:127.0.0.1"]).run().code == 0;
    let count = if supported { 6 } else { 4 };
    let (ended, done) = again(
        &world,
        (text, &first[..count]),
        || {
            world.write("secret", "two");
        },
        (text, &second[..count]),
        "RUN",
    );
    assert_eq!(ended, "CACHED", "{done}");
}

#[test]
fn the_name_and_sharing_of_a_cache_mount_may_be_chosen_anew() {
    let Some(world) = world() else { return };
    for (at, (one, two, expected)) in [
        ("id=x", "id=y", "CACHED"),
        ("sharing=locked", "sharing=private", "CACHED"),
        ("id=x", "id=x,sharing=locked", "CACHED"),
        ("id=x", "id=x,uid=7", "DONE"),
        ("id=x", "id=x,ro", "DONE"),
        ("sharing=shared", "id=x", "DONE"),
    ]
    .into_iter()
    .enumerate()
    {
        let text = |options: &str| format!("FROM localhost/busybox AS case{at}\nRUN --mount=type=cache,target=/c,{options} true {at}\n");
        let (ended, done) = again(&world, (&text(one), &[]), || (), (&text(two), &[]), "RUN");
        assert_eq!(ended, expected, "{one} -> {two}: {done}");
    }
}

#[test]
fn what_a_command_sees_is_in_its_key_and_named() {
    let Some(world) = world() else { return };
    let cases: &[(&str, &str, &str)] = &[
        ("RUN true one", "RUN true two", "command: "),
        ("ENV A=1\nRUN true", "ENV A=2\nRUN true", "why: env A: 1 -> 2"),
        ("ENV B=1\nRUN true", "RUN true", "why: env B: 1 -> (none)"),
        ("USER 1\nRUN true", "USER 2\nRUN true", "why: user: 1 -> 2"),
        ("RUN echo net", "RUN --network=none echo net", "why: network: default -> none"),
        ("RUN --mount=type=cache,target=/c true", "RUN --mount=type=cache,target=/c,id=x true", "why: mount /c: "),
        ("RUN --mount=type=tmpfs,target=/c true", "RUN --mount=type=tmpfs,target=/c,size=1m true", "why: mount /c: tmpfs"),
    ];
    for (at, (one, two, said)) in cases.iter().enumerate() {
        // Each case is a stage of its own name, so that none is compared with another.
        let text = |body: &str| format!("FROM localhost/busybox AS case{at}\n{body}\n");
        let (ended, done) = again(&world, (&text(one), &[]), || (), (&text(two), &[]), "RUN");
        assert_eq!(ended, "DONE", "{one} -> {two}: {done}");
        done.says(&[said]);
    }
}

#[test]
fn a_declared_argument_misses_the_first_command_after_it_unless_env_shields_it() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN echo before\nARG V\nCOPY f /\nRUN echo after\nRUN echo later\n";
    world.write("f", "f");
    let build = |value: &str| world.build(text, &["--build-arg", &format!("V={value}")]).ok();
    build("1.2");
    let done = build("1.3");
    assert_eq!(
        [done.step("RUN echo before"), done.step("COPY f"), done.step("RUN echo after"), done.step("RUN echo later")],
        ["CACHED", "CACHED", "DONE", "DONE"]
    );
    done.says(&["why: build-arg V: 1.2 -> 1.3"]);
    let shielded = "FROM localhost/busybox\nARG W\nENV W=always\nRUN echo shielded\n";
    let (ended, done) = again(&world, (shielded, &["--build-arg", "W=1"]), || (), (shielded, &["--build-arg", "W=2"]), "RUN echo shielded");
    assert_eq!(ended, "CACHED", "{done}");
}

#[test]
fn instructions_that_only_change_the_config_never_run_anything_again() {
    let Some(world) = world() else { return };
    let text = |label: &str| {
        format!(
            "FROM localhost/busybox\nLABEL l={label}\nEXPOSE {label}\nCMD [\"{label}\"]\nVOLUME /v{label}\nSTOPSIGNAL {label}\nRUN cat /proc/sys/kernel/random/uuid > /stamp\n"
        )
    };
    let (ended, done) = again(&world, (&text("1"), &[]), || (), (&text("2"), &[]), "RUN");
    assert_eq!(ended, "CACHED", "{done}");
}

#[test]
fn a_mounted_file_counts_by_itself_alone() {
    let Some(world) = world() else { return };
    world.write("go.mod", "m").write("main.go", "1");
    let text = "FROM localhost/busybox\nRUN --mount=type=bind,source=go.mod,target=/go.mod cat /go.mod; cat /proc/sys/kernel/random/uuid > /stamp\n";
    let (ended, done) = again(
        &world,
        (text, &[]),
        || {
            world.write("main.go", "2");
        },
        (text, &[]),
        "RUN --mount",
    );
    assert_eq!(ended, "CACHED", "{done}");
    world.write("go.mod", "n");
    assert_eq!(world.build(text, &[]).ok().step("RUN --mount"), "DONE");
}

#[test]
fn a_mounted_stage_counts_by_the_content_that_is_selected() {
    let Some(world) = world() else { return };
    let text = |comment: &str, content: &str, mount: &str| {
        format!(
            "FROM localhost/busybox AS b\nRUN mkdir /o && echo {content} > /o/f; echo {comment} > /other\nFROM localhost/busybox\nRUN --mount=type=bind,from=b,source=/o,target=/o{mount} cat /o/f; cat /proc/sys/kernel/random/uuid > /stamp\n"
        )
    };
    let (ended, done) = again(&world, (&text("1", "x", ""), &[]), || (), (&text("2", "x", ""), &[]), "RUN --mount");
    assert_eq!(ended, "CACHED", "{done}");
    assert_eq!(world.build(&text("3", "y", ""), &[]).ok().step("RUN --mount"), "DONE");
    // What is written to it is thrown away (BuildKit: testMountRWCache).
    let (ended, done) = again(&world, (&text("1", "x", ",rw"), &[]), || (), (&text("4", "x", ",rw"), &[]), "RUN --mount");
    assert_eq!(ended, "CACHED", "{done}");
    assert_eq!(world.build(&text("5", "z", ",rw"), &[]).ok().step("RUN --mount"), "DONE");
    // In a build with times of its own the command would have been told of them.
    assert_eq!(world.build(&text("6", "z", ",rw"), &["--reproducible"]).ok().step("RUN --mount"), "DONE");
}

#[test]
fn a_base_that_moved_is_named_with_both_digests() {
    if !able(&["docker-registry", "skopeo"]) {
        return;
    }
    let (world, registry) = (World::new(), crate::common::Registry::with_bases());
    // A name of its own: those of the bases are shared with other tests.
    let (base, name) = (registry.name("busybox:latest"), registry.name("moving:latest"));
    let other = World::new();
    other.build(&format!("FROM {base}\nRUN echo old > /old\n"), &["--push", "-t", &name]).ok();
    let text = format!("FROM {name}\nRUN cat /proc/sys/kernel/random/uuid > /stamp\n");
    world.build(&text, &[]).ok();
    assert_eq!(world.build(&text, &["--pull"]).ok().step("RUN cat"), "CACHED", "the same manifest");
    other.build(&format!("FROM {base}\nRUN echo new > /new\n"), &["--push", "-t", &name]).ok();
    let done = world.build(&text, &["--pull"]).ok();
    assert_eq!(done.step("RUN cat"), "DONE");
    done.says(&["why: base 127.0.0.1", " moved from sha256:", " to sha256:"]);
}

#[test]
fn stages_without_cache_are_named_by_name_or_number() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /one\nFROM localhost/busybox\nRUN cat /proc/sys/kernel/random/uuid > /two\nFROM localhost/busybox\nCOPY --from=0 /one /\nRUN cat /proc/sys/kernel/random/uuid > /three\nCOPY --from=1 /two /\n";
    world.build(text, &[]).ok();
    let ended = |args: &[&str]| {
        let done = world.build(text, args).ok();
        ["/one", "/two", "/three"].map(|name| done.step(&format!("RUN cat /proc/sys/kernel/random/uuid > {name}")))
    };
    assert_eq!(ended(&["--no-cache-filter", "ONE"]), ["DONE", "CACHED", "DONE"]);
    assert_eq!(ended(&["--no-cache-filter=1"]), ["CACHED", "DONE", "CACHED"]);
    assert_eq!(ended(&["--no-cache-filter", "one,1"]), ["DONE", "DONE", "DONE"]);
    assert_eq!(ended(&["--no-cache-filter", "one", "--no-cache-filter", "1"]), ["DONE", "DONE", "DONE"]);
    assert_eq!(ended(&["--no-cache-filter", "nobody"]), ["CACHED"; 3]);
    world.build(text, &["--no-cache", "--no-cache-filter", "one"]).fails().says(&["cannot be used together"]);
}

#[test]
fn two_stages_with_the_same_step_run_it_once() {
    let Some(world) = world() else { return };
    let same = "RUN --mount=type=cache,target=/c echo ran >> /c/log; sleep 1; cat /c/log > /log";
    let text = format!(
        "FROM localhost/busybox AS a\n{same}\nFROM localhost/busybox AS b\n{same}\nFROM localhost/busybox\nCOPY --from=a /log /a\nCOPY --from=b /log /b\n"
    );
    let tree = world.image(&text, &[]).tree();
    assert_eq!((tree["a"].content.as_slice(), tree["b"].content.as_slice()), (&b"ran\n"[..], &b"ran\n"[..]));
}

#[test]
fn two_processes_run_a_step_once_and_one_takes_over_where_the_other_is_killed() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN --mount=type=cache,target=/c echo ran >> /c/log; sleep 2; cat /c/log > /log\n";
    world.write("Dockerfile", text);
    // The side effect, where it can be seen from outside.
    let log = || find(&world.root().join("cachemounts"), "log");
    let both: Vec<Done> = std::thread::scope(|scope| {
        let builds = [(); 2].map(|()| scope.spawn(|| world.build_as_it_is(&[]).ok()));
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    assert_eq!(log().as_deref(), Some("ran\n"));
    assert_eq!(both[0].image_id(), both[1].image_id());
    world.write("Dockerfile", text.replace("sleep 2", "sleep 3"));
    let mut first = world.build_as_it_is(&[]).start();
    wait_for("the first build", 20, || log().as_deref() == Some("ran\nran\n"));
    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| world.build_as_it_is(&[]).ok());
        std::thread::sleep(Duration::from_millis(700));
        first.kill().unwrap();
        first.wait().unwrap();
        second.join().unwrap()
    });
    assert_eq!(second.step("RUN --mount"), "DONE", "{second}");
    assert_eq!(log().as_deref(), Some("ran\nran\nran\n"));
}

/// The content of the first file of that name below a directory.
fn find(dir: &Path, name: &str) -> Option<String> {
    let found = Run::new("find", [dir.as_os_str(), "-name".as_ref(), name.as_ref(), "-type".as_ref(), "f".as_ref()]).run().stdout;
    std::fs::read_to_string(found.lines().next()?).ok()
}

#[test]
fn explain_tells_of_every_step() {
    let Some(world) = world() else { return };
    world.write("a", "1").write("b", "1").write("c", "c");
    let text = "FROM localhost/busybox\nARG V=1\nCOPY c /\nCOPY a b /\nRUN echo $V\n";
    world.build(text, &[]).ok();
    world.write("a", "2").write("b", "2");
    let args = ["--explain", "--build-arg", "V=2"];
    let done = world.build(text, &args).ok();
    done.says(&[
        "explain: [2/4] COPY c /: hit by definition in the store",
        "explain: [3/4] COPY a b /: miss",
        "explain:   a changed\n",
        "explain:   b changed\n",
    ]);
    done.says(&["explain:   build-arg V: 1 -> 2", "explain:   follows `[3/4] COPY a b /`"]);
    world.write("a", "3");
    let json = world.build(text, &[&args[..], &["--progress", "rawjson"]].concat()).ok();
    let found: Vec<serde_json::Value> =
        json.stderr.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok()?.get("explanations").cloned()).collect();
    let of =
        |title: &str| found.iter().map(|found| &found[0]).find(|found| found["name"].as_str().unwrap().contains(title)).unwrap().clone();
    assert_eq!((of("COPY c")["outcome"].as_str(), of("COPY c")["by"].as_str()), (Some("hit"), Some("definition")));
    let miss = of("COPY a b");
    assert_eq!((miss["outcome"].as_str(), miss["differences"][0]["what"].as_str()), (Some("miss"), Some("content of a")), "{miss}");
    assert_eq!(world.build(text, &["--no-cache", "--explain"]).ok().stderr.matches("explain:   --no-cache").count(), 3);
}

#[test]
fn a_source_is_known_by_its_last_name_and_by_what_it_holds() {
    let Some(world) = world() else { return };
    for name in ["a/f", "b/f", "b/g", "a/d/x", "b/d/x", "b/e/x"] {
        world.write(name, name.rsplit('/').next().unwrap());
    }
    world.write("b/other/f", "other");
    for (at, (one, two, expected)) in [
        ("COPY a/f /o/", "COPY ./b//f /o/", "CACHED"),
        ("COPY a/f /o/", "COPY b/g /o/", "DONE"),
        ("COPY a/f /o/", "COPY b/other/f /o/", "DONE"),
        ("COPY a/d /o", "COPY b/d/ /o", "CACHED"),
        ("COPY --parents a/f /o/", "COPY --parents b/f /o/", "DONE"),
    ]
    .into_iter()
    .enumerate()
    {
        let text = |copy: &str| format!("FROM localhost/busybox AS case{at}\nRUN echo {at}\n{copy}\n");
        let (ended, done) = again(&world, (&text(one), &[]), || (), (&text(two), &[]), "COPY");
        assert_eq!(ended, expected, "{one} -> {two}: {done}");
    }
    // Of a stage, both are in the same one: only what they hold tells them apart.
    let stage = "FROM localhost/busybox AS files\nRUN mkdir /a /b && echo a > /a/f && echo b > /b/f\nFROM localhost/busybox\n";
    world.build(&format!("{stage}COPY --from=files /a/f /o\n"), &[]).ok();
    assert_eq!(world.image(&format!("{stage}COPY --from=files /b/f /o\n"), &[]).tree()["o"].content, b"b\n");
}

#[test]
fn with_parents_what_exclude_leaves_below_the_pivot_counts_and_nothing_else() {
    let Some(world) = world() else { return };
    world.write("x/y/f", "1").write("x/y/g", "1");
    let text = "FROM localhost/busybox\nCOPY --parents --exclude=y/f --exclude=x/y/g x /o/\n";
    let build = || world.build(text, &[]).ok().step("COPY");
    build();
    world.write("x/y/g", "2");
    assert_eq!(build(), "CACHED", "x/y/g is left out");
    world.write("x/y/f", "2");
    assert_eq!(build(), "DONE", "x/y/f is not");
    let tree = world.image(text, &[]).tree();
    assert!(tree["o/x/y/f"].content == b"2" && !tree.contains_key("o/x/y/g"));
}

#[test]
fn what_was_copied_from_a_file_that_changed_during_the_build_is_not_found_by_what_it_held_before() {
    let Some(world) = world() else { return };
    world.write("f", "before").write("g", "g");
    let path = world.context().join("f");
    let server = Web::start(move |_| {
        std::fs::write(&path, "after, and longer").unwrap();
        Reply::new(200, "")
    });
    let text = |wait: &str| format!("FROM localhost/busybox\nRUN {wait}\nCOPY f g /\nRUN cp /f /copy\n");
    let waiting = text(&format!("wget -q -O /dev/null {}", server.url("/")));
    let during = world.build(&waiting, &["-t", "localhost/during", "--network", "host"]).ok();
    during.says(&["warning: COPY f g /: `f` changed while the build ran"]);
    let at_rest = |text: &str| {
        let archive = world.path("rest.oci.tar");
        let done = world.build(text, &["-o", &format!("type=oci,dest={}", archive.display()), "--network", "host"]).ok();
        (done, crate::common::Image::oci_archive(&archive).tree())
    };
    // As it was when the first build began.
    world.write("f", "before");
    let (done, tree) = at_rest(&waiting);
    assert_eq!((&tree["f"].content[..], &tree["copy"].content[..]), (&b"before"[..], &b"before"[..]), "{done}");
    assert_eq!(done.step("RUN wget"), "CACHED", "{done}");
    done.says(&["why: f changed while the build before read it"]);
    let (done, _) = at_rest(&waiting);
    assert_eq!((done.step("COPY f g"), done.step("RUN cp")), ("CACHED".to_owned(), "CACHED".to_owned()), "{done}");
}
