//! What RUN promises beyond running a command: the layer holds what the command changed and nothing else, mounts behave as documented, and nothing is left.

use std::time::{Duration, Instant};

use crate::common::{wait_for, world};

#[test]
fn each_kind_of_change_is_in_the_layer_and_what_only_looks_like_one_is_not() {
    let Some(world) = world() else { return };
    let steps: [(&str, &[&str]); 16] = [
        ("cat /d/a > /dev/null; touch -c /d/absent; ls -lR /d", &[]),
        // As BuildKit has it: that something came and went in a directory is no change.
        ("touch /d/sub/t && rm /d/sub/t; mkdir -p /new/deep && rm -r /new; touch -d 2002-02-02 /d/sub", &[]),
        ("chmod 700 /d/sub && chmod 755 /d/sub; chmod 600 /d/a && chmod 644 /d/a", &[]),
        ("chmod 600 /d/a", &["d", "d/a"]),
        ("chown 5:6 /d/b", &["d", "d/b"]),
        ("rm /d/a && mkdir /d/a && echo z > /d/a/z", &["d", "d/a", "d/a/z"]),
        ("rm -r /d/dir && echo file > /d/dir", &["d", "d/dir"]),
        ("rm /d/link && ln -s b /d/link", &["d", "d/link"]),
        ("rm /d/dir && ln -s a /d/dir", &["d", "d/dir"]),
        ("ln /d/b /d/hard", &["d", "d/b", "d/hard"]),
        ("mv /d/sub /d/moved", &["d", "d/.wh.sub", "d/moved"]),
        ("echo persist > /run/state; echo t > /tmp/t", &["run", "run/state", "tmp", "tmp/t"]),
        ("touch -d 2001-01-01 /d/b", &["d", "d/b"]),
        ("mkdir /d/e && rmdir /d/e && rm /d/link", &["d", "d/.wh.link"]),
        ("mkfifo /d/pipe && mknod /d/null c 1 3", &["d", "d/null", "d/pipe"]),
        ("rm -r /d/a && mkdir /d/a", &["d", "d/a", "d/a/.wh..wh..opq"]),
    ];
    let first = "mkdir -p /d/sub /d/dir /run /tmp && chmod 751 /d && chown 7:8 /d && echo a > /d/a && echo b > /d/b && ln -s a /d/link && echo x > /d/dir/x \
                 && touch -d 2001-01-01 /d/sub && touch -d 2001-01-01 /d";
    let mut text = format!("FROM localhost/busybox\nRUN {first}\n");
    steps.iter().for_each(|(command, _)| text.push_str(&format!("RUN {command}\n")));
    let image = world.image(&text, &[]);
    for ((command, expected), layer) in steps.iter().zip(&image.layers[2..]) {
        assert_eq!(layer.keys().collect::<Vec<_>>(), *expected, "{command}");
    }
    // A parent that is there for a child's sake has the metadata that it has.
    let parent = &image.layers[5]["d"];
    assert_eq!((parent.mode, parent.uid, parent.gid), (0o751, 7, 8));
    assert_eq!(parent.mtime, image.layers[1]["d"].mtime, "a change of a mode is none of the directory's");
    let tree = image.tree();
    assert_eq!((tree["d/pipe"].kind, tree["d/null"].kind, tree["run/state"].content.as_slice()), ("fifo", "char", &b"persist\n"[..]));
    assert_eq!(tree["d/b"].mtime / 86_400, 11_323, "the day that was asked for");
}

#[test]
fn processes_that_detach_themselves_and_ignore_signals_end_with_the_step() {
    let Some(world) = world() else { return };
    let daemon =
        "(setsid sh -c 'trap \"\" TERM HUP INT; while true; do sleep 43219; done' < /dev/null > /dev/null 2>&1 &) ; sleep 0.3; echo left";
    let done = world.build(&format!("FROM localhost/busybox\nRUN {daemon}\nRUN ps | grep -c '[4]3219'; true\n"), &[]).ok();
    done.says(&["left\n", " 0\n"]);
    assert!(!running("43219"), "the daemon is still there");
    // Nor does one that keeps the output open hold the step up.
    let held = world.build("FROM localhost/busybox\nRUN (setsid sleep 43218 &) ; echo quick\n", &[]).ok();
    assert!(held.elapsed < Duration::from_secs(30), "{held}");
    assert!(!running("43218"));
}

/// Whether a process with this argument is running.
fn running(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    })
}

#[test]
fn a_step_has_no_input_the_usual_mask_and_a_script_of_its_own() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN cat; echo in=$(readlink /proc/self/fd/0) mask=$(umask)\n\
                RUN touch /f && mkdir /g\n\
                RUN <<SCRIPT\n#!/bin/sh -e\necho by=$0 mode=$(stat -c %a $0)\n! echo x >> $0\nls /dev/pipes\nSCRIPT\n\
                RUN <<\"AWK\"\n#!/usr/bin/awk -f\nBEGIN { print \"from awk $HOME\" }\nAWK\n";
    let awk = text.replace("/usr/bin/awk", "/bin/awk");
    let done = world.build(&awk, &[]).ok();
    done.says(&["in=/dev/null mask=0022", "by=/dev/pipes/SCRIPT mode=755", "from awk $HOME"]);
    let image = world.image(&awk, &[]);
    assert_eq!((image.tree()["f"].mode, image.tree()["g"].mode), (0o644, 0o755));
    assert!(image.layers[3].is_empty() && image.layers[4].is_empty(), "{:?}", image.layers[3].keys());
}

#[test]
fn users_and_groups_are_those_of_the_root_file_system() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN printf 'joe:x:1234:77::/home/joe:/bin/sh\\nann:x:1235:78::/home/ann:/bin/sh\\n' >> /etc/passwd && \
                printf 'devs:x:500:joe,ann\\nops:x:501:joe\\n' >> /etc/group\n\
                USER joe\nRUN echo A $(id -u):$(id -g):$(id -G) home=$HOME\nUSER joe:ops\nRUN echo B $(id -u):$(id -g):$(id -G)\n\
                USER 1234\nRUN echo C $(id -u):$(id -g):$(id -G) home=$HOME\nUSER 4321\nRUN echo D $(id -u):$(id -g):$(id -G) home=$HOME\n\
                USER 4321:99\nRUN echo E $(id -u):$(id -g):$(id -G)\nUSER joe:99\nRUN echo F $(id -u):$(id -g):$(id -G)\nUSER root\nRUN echo G $(id -u) home=$HOME\n";
    world.build(text, &[]).ok().says(&[
        "A 1234:77:77 500 501 home=/home/joe",
        "B 1234:501:501",
        "C 1234:77:77 500 501 home=/home/joe",
        "D 4321:0:0 home=/\n",
        "E 4321:99:99",
        "F 1234:99:99",
        "G 0 home=/root",
    ]);
}

#[test]
fn proxies_are_set_without_being_part_of_the_key_or_the_history() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN env | grep -i proxy | sort\n";
    let proxy = |value: &str| format!("HTTP_PROXY={value}");
    let done = world.build(text, &["--build-arg", &proxy("http://one:1"), "--build-arg", "no_proxy=local"]).ok();
    done.says(&["HTTP_PROXY=http://one:1", "no_proxy=local"]);
    let other = proxy("http://two:2");
    assert_eq!(world.build(text, &["--build-arg", &other]).ok().step("[2/2]"), "CACHED");
    let image = world.image(text, &["--build-arg", &other]);
    assert!(!image.config.to_string().contains("two:2"), "{}", image.config);
}

#[test]
fn proxies_of_dockers_settings_are_those_of_steps_unless_the_build_names_its_own() {
    let Some(world) = world() else { return };
    let settings = world.path("docker/config.json");
    std::fs::write(&settings, r#"{"proxies": {"default": {"httpProxy": "http://set:1", "noProxy": "near"}}}"#).unwrap();
    let text = "FROM localhost/busybox\nARG no_proxy\nRUN echo \"<$HTTP_PROXY $http_proxy $NO_PROXY $no_proxy $HTTPS_PROXY>\"\n";
    world.build(text, &[]).ok().says(&["<http://set:1 http://set:1 near near >"]).omits(&["warning"]);
    let own = ["--build-arg", "HTTP_PROXY=http://own:2", "--no-cache"];
    world.build(text, &own).ok().says(&["<http://own:2 http://own:2 near near >"]);
    let run = ["run", "--rm", "-e", "http_proxy=http://mine:3", "localhost/busybox", "sh", "-c", "echo $HTTP_PROXY $http_proxy $no_proxy"];
    assert_eq!(world.strake(run).ok().stdout, "http://set:1 http://mine:3 near\n");
    // No reason not to build what needs none.
    std::fs::write(&settings, "{").unwrap();
    world.strake(run).ok().says(&["no proxies are taken from Docker's settings"]);
    world.build("FROM scratch\nCOPY Dockerfile /\n", &[]).ok().says(&["no proxies are taken from Docker's settings", "line 1"]);
}

#[test]
fn cache_mounts_are_seeded_once_have_their_owner_and_are_empty_without_the_cache() {
    let Some(world) = world() else { return };
    world.write("seed/one", "1");
    let text = |n: u32| {
        format!(
            "FROM scratch AS seed\nCOPY seed /given\nFROM localhost/busybox\n\
             RUN --mount=type=cache,target=/c,from=seed,source=/given,mode=0700,uid=12,gid=34 echo run{n} && stat -c 'own %a %u:%g' /c && ls /c && touch /c/made{n}\n\
             RUN --mount=type=cache,target=/c,from=seed,source=/given,mode=0700,uid=12,gid=34,ro echo again{n} $(ls /c) && ! touch /c/x\n"
        )
    };
    world.build(&text(1), &[]).ok().says(&["own 700 12:34", " one\n", "again1 made1 one"]);
    world.build(&text(2), &[]).ok().says(&["again2 made1 made2 one"]);
    let fresh = world.build(&text(3), &["--no-cache"]).ok();
    fresh.says(&["own 700 12:34", "again3 made3 one"]).omits(&["made1"]);
    world.build(&text(4), &[]).ok().says(&["again4 made3 made4 one"]);
    // Without these options it is as the directory was.
    let text = "FROM localhost/busybox AS s\nRUN mkdir -p /h/c && echo 1 > /h/c/f && chown -R 1000:1001 /h && chmod 711 /h/c\n\
        FROM localhost/busybox\nUSER 1000:1001\nRUN --mount=type=cache,from=s,source=/h/c,target=/c touch /c/new && stat -c 'as %a %u:%g' /c && cat /c/f\n";
    world.build(text, &["--no-cache"]).ok().says(&["as 711 1000:1001"]);
}

#[test]
fn cache_mounts_of_one_name_are_apart_where_they_begin_as_something_else() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox AS s\nRUN mkdir -p /a /b && touch /a/from-a /b/from-b && chmod 711 /b\n\
        FROM localhost/busybox\n\
        RUN --mount=type=cache,id=x,target=/c touch /c/plain\n\
        USER 1000:1001\n\
        RUN --mount=type=cache,id=x,target=/c,uid=1000,gid=1001 touch /c/mine && echo owned $(stat -c '%a %u:%g' /c) $(ls /c)\n\
        USER root\n\
        RUN --mount=type=cache,id=x,target=/c,mode=0700 touch /c/closed && echo closed $(stat -c '%a %u:%g' /c) $(ls /c)\n\
        RUN --mount=type=cache,id=x,target=/c,from=s,source=/a touch /c/one && echo seeded $(ls /c)\n\
        RUN --mount=type=cache,id=x,target=/c,from=s,source=/b touch /c/two && echo other $(stat -c %a /c) $(ls /c)\n\
        RUN --mount=type=cache,id=x,target=/c --mount=type=cache,id=x,target=/d,mode=0700 --mount=type=cache,id=x,target=/e echo both $(ls /c /d /e)\n";
    world.build(text, &[]).ok().says(&[
        "owned 755 1000:1001 mine\n",
        "closed 700 0:0 closed\n",
        "seeded from-a one\n",
        "other 711 from-b two\n",
        "both /c: plain /d: closed /e: plain\n",
    ]);
    // What is the same is found again by later builds, and all of them are listed and pruned.
    world
        .build(&text.replace("echo", "printf '%s ' later; echo"), &[])
        .ok()
        .says(&["later owned 755 1000:1001 mine\n", "later seeded from-a one\n"]);
    let listed = world.strake(["builder", "du", "--filter", "type=exec.cachemount"]).ok();
    assert_eq!(listed.stdout.lines().filter(|line| line.contains('*')).count(), 5, "{}", listed.stdout);
    world.strake(["builder", "prune", "-f", "--filter", "type=exec.cachemount"]).ok();
    let listed = world.strake(["builder", "du", "--filter", "type=exec.cachemount"]).ok();
    assert_eq!(listed.stdout.lines().filter(|line| line.contains('*')).count(), 0, "{}", listed.stdout);
}

#[test]
fn the_name_of_a_heredoc_stays_in_its_destination_and_owners_need_a_file_system() {
    let Some(world) = world() else { return };
    let image = world.image("FROM scratch\nCOPY <<../../evil /x/y/z/\nwhat\n../../evil\n", &[]);
    let tree = image.tree();
    assert_eq!(tree["x/y/z/evil"].content, b"what\n");
    assert!(!tree.contains_key("x/evil") && !tree.contains_key("evil"));
    world.write("f", "");
    world.build("FROM scratch\nCOPY --chown=joe f /\n", &[]).fails().says(&["`joe`", "Dockerfile:2", "hint:", "1000:1000"]);
    world.build("FROM scratch\nCOPY --chown=root:0 f /\n", &[]).ok();
    world.build("FROM localhost/busybox\nRUN --mount=type=tmpfs,target=/proc/x true\n", &[]).fails().says(&["/proc/x", "Dockerfile:2"]);
}

#[test]
fn the_source_of_a_cache_mount_is_a_directory_of_it() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\n\
        RUN --mount=type=cache,id=y,target=/c mkdir -p /c/in/deep && touch /c/in/deep/file && ln -s /etc /c/out\n\
        RUN --mount=type=cache,id=y,target=/d,source=in/deep echo below $(ls /d) && touch /d/more\n\
        RUN --mount=type=cache,id=y,target=/c echo whole $(ls /c/in/deep)\n";
    world.build(text, &[]).ok().says(&["below file\n", "whole file more\n"]);
    for missing in ["/sub", "out"] {
        let text = format!("FROM localhost/busybox\nRUN --mount=type=cache,id=y,target=/d,source={missing} true\n");
        world.build(&text, &[]).fails().says(&["the cache has no directory", "Dockerfile:2", "hint:"]);
    }
}

#[test]
fn the_source_of_a_mount_is_found_through_links_of_the_context() {
    let Some(world) = world() else { return };
    world.write("real/dir/file", "inside").write("real/other", "other").write("named/to/x", "named");
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(target, world.context().join(name)).unwrap();
    link("real/dir", "link");
    link("/real", "absolute");
    link("../absolute/dir/file", "real/up");
    link("to", "named/cur");
    let text = "FROM localhost/busybox\n\
        RUN --mount=type=bind,source=link,target=/a --mount=type=bind,source=absolute/dir,target=/b cat /a/file /b/file > /1\n\
        RUN --mount=type=bind,source=real/up,target=/f --mount=type=bind,source=absolute,target=/c cat /f /c/other > /2\n\
        RUN --mount=type=bind,from=named,source=cur,target=/n cat /n/x > /3\n";
    let named = format!("named={}", world.context().join("named").display());
    let image = world.image(text, &["--build-context", &named]);
    let content = |layer: usize, path: &str| String::from_utf8(image.layers[layer][path].content.clone()).unwrap();
    assert_eq!([content(1, "1"), content(2, "2"), content(3, "3")], ["insideinside", "insideother", "named"]);
    // What the links lead to counts.
    assert_eq!(world.build(text, &["--build-context", &named]).ok().step("[2/4]"), "CACHED");
    world.write("real/dir/file", "changed");
    let again = world.build(text, &["--build-context", &named]).ok();
    assert_ne!(again.step("[2/4]"), "CACHED");
    std::fs::remove_file(world.context().join("real/other")).unwrap();
    link("absolute/nowhere", "broken");
    let text = "FROM localhost/busybox\nRUN --mount=type=bind,source=broken,target=/a true\n";
    world.build(text, &[]).fails().says(&["nowhere", "not found"]);
}

#[test]
fn a_step_that_ran_without_a_secret_does_not_stand_for_one_that_needs_it() {
    let Some(world) = world() else { return };
    let text = |required: &str| format!("FROM localhost/busybox\nRUN --mount=type=secret,id=absent{required} echo ran > /ran\n");
    world.build(&text(""), &[]).ok();
    world.build(&text(",required"), &[]).fails().says(&["absent"]);
}

#[test]
fn a_source_is_the_same_however_the_root_of_the_context_is_written() {
    let Some(world) = world() else { return };
    world.write("f", "x");
    world.build("FROM scratch\nCOPY f /to/\n", &[]).ok();
    for source in ["./f", "/f", ".//./f"] {
        assert_eq!(world.build(&format!("FROM scratch\nCOPY {source} /to/\n"), &[]).ok().step("[1/1]"), "CACHED", "{source}");
    }
}

#[test]
fn a_cache_mount_is_shared_private_or_locked_between_two_builds() {
    let Some(world) = world() else { return };
    // Each writes its name, waits, and counts the names that it sees.
    let step = |sharing: &str, name: &str| {
        format!(
            "FROM localhost/busybox\nRUN --mount=type=cache,target=/c,id={sharing},sharing={sharing} touch /c/{name} && sleep 2 && echo {sharing}-{name}-$(ls /c | wc -l)\n"
        )
    };
    let both = |sharing: &str| {
        let started = Instant::now();
        let outputs = ["a", "b"].map(|name| {
            let file = world.context().join(format!("Dockerfile.{sharing}.{name}"));
            std::fs::write(&file, step(sharing, name)).unwrap();
            let run = world.build_as_it_is(&["-f", file.to_str().unwrap()]);
            std::thread::spawn(move || run.ok().stderr)
        });
        let outputs = outputs.map(|output| output.join().unwrap());
        (outputs.join("\n"), started.elapsed())
    };
    let (shared, _) = both("shared");
    assert!(shared.contains("shared-a-2") && shared.contains("shared-b-2"), "{shared}");
    let (private, _) = both("private");
    assert!(private.contains("private-a-1") && private.contains("private-b-1"), "{private}");
    let (locked, took) = both("locked");
    assert!(took >= Duration::from_secs(4), "both at once: {locked}");
    assert!(locked.contains("-1") && locked.contains("-2"), "{locked}");
}

#[test]
fn a_secret_that_nobody_gave_is_an_empty_variable_and_a_variable_goes_before_a_file() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nENV A=image\n\
                RUN --mount=type=secret,id=absent,env=A --mount=type=secret,id=absent,env=B echo \"got-${A}-${B-unset}-\"\n";
    world.build(text, &[]).ok().says(&["got---"]);
    world.write("file", "from the file");
    let text = "FROM localhost/busybox\nRUN --mount=type=secret,id=token cat /run/secrets/token\n";
    let file = format!("id=token,src={},env=TOKEN", world.context().join("file").display());
    world.build(text, &["--secret", &file]).env("TOKEN", "from the variable").ok().says(&["from the variable"]);
}

#[test]
fn a_tmpfs_has_its_size_and_a_secret_its_owner_mode_and_variable() {
    let Some(world) = world() else { return };
    std::fs::write(world.path("token"), "abc").unwrap();
    let text = "FROM localhost/busybox\nRUN --mount=type=tmpfs,target=/t,size=2m df -k /t | tail -1 | awk '{ print \"size=\" $2 }'; ! dd if=/dev/zero of=/t/x bs=1M count=3 2>/dev/null; echo full\n\
                RUN --mount=type=secret,id=token,mode=0440,uid=5,gid=6 stat -c 'file %a %u:%g' /run/secrets/token; ! echo x > /run/secrets/token\n\
                RUN --mount=type=secret,id=token,env=TOKEN test ! -e /run/secrets/token && echo len=${#TOKEN}\n\
                RUN --mount=type=secret,id=token,env=TOKEN,target=/both echo both=${#TOKEN}-$(wc -c < /both)\n\
                RUN --mount=type=secret,id=other echo none=$(ls /run/secrets 2>/dev/null | wc -l)\n";
    let file = format!("id=token,src={}", world.path("token").display());
    let done = world.build(text, &["--secret", &file]).ok();
    done.says(&["size=2048", "full\n", "file 440 5:6", "len=3", "both=3-3", "none=0"]);
    // From the environment, by type, by name alone.
    for spec in ["id=token,env=FROM_ENV", "type=env,id=token,env=FROM_ENV", "type=env,id=FROM_ENV", "id=FROM_ENV"] {
        let id = if spec.contains("id=token") { "token" } else { "FROM_ENV" };
        world.write(
            "Dockerfile",
            format!("FROM localhost/busybox\nRUN --mount=type=secret,id={id} wc -c < /run/secrets/{id} | sed 's/^/bytes /'\n"),
        );
        world.build_as_it_is(&["--secret", spec, "--no-cache"]).env("FROM_ENV", "12345").ok().says(&["bytes 5"]);
    }
    let required = world.build("FROM localhost/busybox\nRUN --mount=type=secret,id=absent,required true\n", &[]).fails();
    required.says(&["Dockerfile:2", "secret `absent`", "hint: give it with --secret id=absent"]);
}

#[test]
fn a_secret_is_read_from_where_buildx_reads_it() {
    let Some(world) = world() else { return };
    std::fs::write(world.path("a,b"), "abc").unwrap();
    let text = "FROM localhost/busybox\nRUN --mount=type=secret,id=s,required echo \"bytes=$(wc -c < /run/secrets/s)\"\n";
    let quoted = format!("ID=s,\"Src={}\"", world.path("a,b").display());
    world.build(text, &["--secret", &quoted]).ok().says(&["bytes=3"]).omits(&["warning"]);
    // A script whose variable is not set builds all the same, and is told of it.
    world.build(text, &["--no-cache", "--secret", "", "--secret", "id=s,env=NOT_SET"]).ok().says(&["bytes=0", "`NOT_SET` is not set"]);
    for (spec, said) in [("id=s,src=/nowhere/x", "/nowhere/x"), ("src=x", "has no id"), ("id=s,dest=x", "has no `dest`")] {
        world.build(text, &["--secret", spec]).fails().says(&[said]);
    }
    std::fs::write(world.path("zero"), [b'a', 0, b'b']).unwrap();
    let text = "FROM localhost/busybox\nRUN --mount=type=secret,id=s,env=S true\n";
    let spec = format!("id=s,src={}", world.path("zero").display());
    world.build(text, &["--secret", &spec]).fails().says(&["Dockerfile:2", "the variable `S`", "leave `env=` out"]);
}

#[test]
fn a_file_system_in_memory_can_be_read_only_and_keeps_the_mode_of_what_it_covers() {
    let Some(world) = world() else { return };
    let modes = "FROM localhost/busybox\nRUN mkdir -m 2710 /kept && ln -s kept /link\n\
                 RUN --mount=type=tmpfs,target=/link --mount=type=tmpfs,target=/made echo one $(stat -c %a /kept /made) && touch /kept/x\n\
                 RUN --mount=type=tmpfs,target=/kept --mount=type=tmpfs,target=/kept/in echo two $(stat -c %a /kept /kept/in)\n\
                 RUN echo after $(stat -c %a /kept) $(ls /kept /made 2>&1)\n";
    let done = world.build(modes, &[]).ok();
    done.says(&["one 2710 1777\n", "two 2710 1777\n", "after 2710 ls: /made: No such file or directory"]);
    let step = |options: &str| format!("RUN --mount=type=tmpfs,target=/t{options} touch /t/x && echo written || echo refused\n");
    let text = |options: &str| format!("FROM localhost/busybox\n{}", step(options));
    world.build(&text(""), &[]).ok().says(&["written\n"]);
    for options in [",ro", ",readonly=true", ",rw=false,size=1m"] {
        world.build(&text(options), &[]).ok().says(&["refused\n"]);
    }
}

#[test]
fn what_is_mounted_below_another_mount_is_seen_whichever_stands_first() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN ln -s /run /var/run && mkdir -p /run\n\
                RUN --mount=type=bind,source=Dockerfile,target=/a/b/D --mount=type=tmpfs,target=/a --mount=type=tmpfs,target=/a/b echo seen $(ls -d /a/b/*)\n\
                RUN --mount=type=tmpfs,target=/var/run --mount=type=tmpfs,target=/run/x echo covered $(ls /run)\n\
                RUN --mount=type=tmpfs,target=/dev/pipes --mount=type=tmpfs,target=/t <<EOF\n#!/bin/sh\necho script $0\nEOF\nRUN echo left $(ls -d /a /run/* /t 2>/dev/null)\n";
    world.build(text, &[]).ok().says(&["seen /a/b/D\n", "covered\n", "script /dev/pipes/EOF\n", "left\n"]);
}

#[test]
fn a_mount_that_cannot_be_is_told_at_its_place() {
    let Some(world) = world() else { return };
    let stage = "FROM localhost/busybox\nRUN touch /file && mkdir /dir\n";
    for (mount, said) in [
        ("type=tmpfs,target=/file", "cannot make the directory `/file`"),
        ("type=tmpfs,target=/file/below", "cannot make the directory `/file`"),
        ("type=bind,target=/bin/sh/x", "cannot make the directory `/bin/busybox`"),
        ("type=bind,source=f,target=/dir", "cannot replace the directory `/dir`"),
        ("type=bind,source=nope,target=/x", "`/nope` was not found"),
    ] {
        let text = format!("{stage}RUN --mount={mount} true\n");
        world.write("f", "f").build(&text, &[]).fails().says(&["Dockerfile:3", said]);
    }
}

#[test]
fn an_interrupt_leaves_no_mount_process_or_control_group() {
    let Some(world) = world() else { return };
    let before = groups();
    let text = "FROM localhost/busybox AS a\nRUN --mount=type=cache,target=/c,sharing=locked --mount=type=tmpfs,target=/t (setsid sleep 65431 &) ; trap '' INT TERM; sleep 65432\n\
                FROM localhost/busybox AS b\nRUN --mount=target=/ctx,rw sleep 65433\n\
                FROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b\n";
    world.write("Dockerfile", text);
    let mut child = world.build_as_it_is(&["--memory", "64m"]).start();
    wait_for("the steps", 30, || running("65432") && running("65433") && running("65431"));
    let asked = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), nix::sys::signal::Signal::SIGINT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    // It takes tens of milliseconds; a machine that is busy with other tests gets more.
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    wait_for("the end of the processes", 10, || !["65431", "65432", "65433"].into_iter().any(running));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(world.root().to_str().unwrap()), "{mounts}");
    wait_for("the removal of the groups", 10, || groups().into_iter().all(|group| before.contains(&group)));
    // What was locked is free.
    world.build("FROM localhost/busybox\nRUN --mount=type=cache,target=/c,sharing=locked true\n", &[]).ok();
}

/// The control groups that builds use and that hold no process of another test (those are busy).
#[test]
fn an_interrupt_while_a_result_is_compressed_ends_the_build_and_leaves_no_file() {
    use std::io::BufRead;
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN head -c 60m /dev/urandom > /noise\n";
    world.build(text, &[]).ok();
    // A level that takes a minute.
    let spec = format!("type=oci,dest={},compression=zstd,compression-level=22", world.path("x.tar").display());
    let mut run = world.build_as_it_is(&["-o", &spec]);
    let mut child = run.command().stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("exporting to the OCI archive")), "the export begins");
    let asked = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), nix::sys::signal::Signal::SIGINT).unwrap();
    assert!(lines.any(|line| line == "error: the build was cancelled"), "it is told");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(!world.path("x.tar").exists());
    world.strake(["system", "check"]).ok();
}

fn groups() -> Vec<std::path::PathBuf> {
    let parents = ["/sys/fs/cgroup/strake", "/sys/fs/cgroup/memory/strake"];
    let dirs = parents.iter().filter_map(|parent| std::fs::read_dir(parent).ok()).flatten().flatten().map(|entry| entry.path());
    let idle = |dir: &std::path::PathBuf| std::fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|procs| procs.is_empty());
    dirs.filter(|path| path.is_dir() && idle(path)).collect()
}
