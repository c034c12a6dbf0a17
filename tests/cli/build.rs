//! What a build makes: config, history and files of the image, and where the result goes.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::common::{Image, Registry, World, able, image, wait_for, world};

/// A world with `localhost/busybox` in its store.
#[test]
fn all_eighteen_instructions_give_the_config_and_history_that_they_ask_for() {
    let Some(world) = world() else { return };
    world.write("file.txt", "content\n");
    let image = world.image(
        r#"ARG BASE=localhost/busybox
FROM ${BASE}
MAINTAINER Ann Author <ann@example.org>
LABEL org.example.a="one two" b=2
ENV GREETING="hello world" PLAIN=yes
ARG VERSION=1.2
SHELL ["/bin/sh", "-ec"]
WORKDIR /app
COPY file.txt copied.txt
ADD file.txt added.txt
RUN echo "$GREETING $VERSION" > run.txt
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --timeout=3s --retries=2 CMD wget -q localhost
ONBUILD RUN echo child
USER nobody:staff
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["cat /app/run.txt"]
"#,
        &[],
    );
    let config = image.run_config();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(config["Env"], json!([path, "GREETING=hello world", "PLAIN=yes"]));
    assert_eq!(config["Labels"], json!({"org.example.a": "one two", "b": "2"}));
    assert_eq!(config["Shell"], json!(["/bin/sh", "-ec"]));
    assert_eq!(config["WorkingDir"], json!("/app"));
    assert_eq!(config["ExposedPorts"], json!({"53/udp": {}, "80/tcp": {}}));
    assert_eq!(config["Volumes"], json!({"/data": {}}));
    assert_eq!(config["StopSignal"], json!("SIGINT"));
    let health = &config["Healthcheck"];
    assert_eq!(health["Test"], json!(["CMD-SHELL", "wget -q localhost"]));
    assert_eq!(
        (&health["Interval"], &health["Timeout"], &health["Retries"]),
        (&json!(5_000_000_000u64), &json!(3_000_000_000u64), &json!(2))
    );
    assert_eq!(config["OnBuild"], json!(["RUN echo child"]));
    assert_eq!(config["User"], json!("nobody:staff"));
    assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-c"]));
    assert_eq!(config["Cmd"], json!(["cat /app/run.txt"]));
    assert_eq!(image.config["author"], json!("Ann Author <ann@example.org>"));
    assert_eq!(image.config["os"], json!("linux"));

    // A trigger is a setting, and has no place in the history, as in BuildKit.
    let history = image.history();
    let own = &history[history.len() - 16..];
    let expected = [
        ("MAINTAINER Ann Author <ann@example.org>", false),
        ("LABEL org.example.a=one two b=2", false),
        ("ENV GREETING=hello world PLAIN=yes", false),
        ("ARG VERSION=1.2", false),
        ("SHELL [/bin/sh -ec]", false),
        ("WORKDIR /app", true),
        ("COPY file.txt copied.txt # buildkit", true),
        ("ADD file.txt added.txt # buildkit", true),
        ("RUN |1 VERSION=1.2 /bin/sh -ec echo \"$GREETING $VERSION\" > run.txt # buildkit", true),
        ("EXPOSE [53/udp 80/tcp]", false),
        ("VOLUME [/data]", false),
        ("STOPSIGNAL SIGINT", false),
        (r#"HEALTHCHECK &{["CMD-SHELL" "wget -q localhost"] "5s" "3s" "0s" "0s" '\x02'}"#, false),
        ("USER nobody:staff", false),
        ("ENTRYPOINT [\"/bin/sh\" \"-c\"]", false),
        ("CMD [\"cat /app/run.txt\"]", false),
    ];
    for (own, expected) in own.iter().zip(expected) {
        assert_eq!((own.0.as_str(), own.1), expected);
    }
    let layers = history.iter().filter(|(_, layer)| *layer).count();
    assert_eq!(layers, image.layers.len(), "one layer for each step that is not marked as empty");
    let tree = image.tree();
    assert_eq!(tree["app/run.txt"].content, b"hello world 1.2\n");
    assert_eq!(tree["app/copied.txt"].content, b"content\n");
    assert_eq!(tree["app/added.txt"].content, b"content\n");
    assert!(!tree.contains_key("data"), "a volume makes no directory");
}

#[test]
fn independent_stages_run_at_the_same_time_and_unneeded_ones_not_at_all() {
    let Some(world) = world() else { return };
    // Each waits for what the other has done.
    let text = "FROM localhost/busybox AS one\nRUN --mount=type=cache,target=/c touch /c/one; timeout 60 sh -c 'until [ -e /c/two ]; do sleep 0.1; done' && echo 1 > /one\n\
                FROM localhost/busybox AS two\nRUN --mount=type=cache,target=/c touch /c/two; timeout 60 sh -c 'until [ -e /c/one ]; do sleep 0.1; done' && echo 2 > /two\n\
                FROM localhost/busybox AS broken\nRUN exit 9\n\
                FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n";
    let done = world.build(text, &[]).ok();
    done.omits(&["exit 9"]);
}

#[test]
fn a_target_stops_at_its_stage_and_stages_build_on_stages() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox AS base\nENV A=1\nRUN echo base > /base\nFROM base AS middle\nRUN echo middle > /middle\nFROM middle\nRUN exit 7\n";
    let image = world.image(text, &["--target", "middle"]);
    let tree = image.tree();
    assert!(tree.contains_key("base") && tree.contains_key("middle"));
    assert!(image.run_config()["Env"].as_array().unwrap().contains(&json!("A=1")));
}

#[test]
fn copy_takes_files_from_stages_by_name_and_number_and_from_images() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox AS first\nRUN echo named > /a && echo numbered > /b\nFROM scratch\n\
                COPY --from=first /a /named\nCOPY --from=0 /b /numbered\nCOPY --from=localhost/busybox /etc/passwd /pass/\n";
    let tree = world.image(text, &[]).tree();
    assert_eq!(tree["named"].content, b"named\n");
    assert_eq!(tree["numbered"].content, b"numbered\n");
    assert!(tree["pass/passwd"].content.starts_with(b"root:"));
}

#[test]
fn heredocs_are_scripts_for_run_and_files_for_copy() {
    let Some(world) = world() else { return };
    let text = r#"FROM localhost/busybox
ARG NAME=world
RUN <<EOF
echo one > /run.txt
echo "$NAME" >> /run.txt
EOF
RUN <<'PY' /bin/sh -s x
echo "fed $1" > /fed.txt
PY
COPY <<expanded.txt <<'literal.txt' /files/
hello $NAME
expanded.txt
hello $NAME
literal.txt
"#;
    let tree = world.image(text, &[]).tree();
    assert_eq!(String::from_utf8_lossy(&tree["run.txt"].content), "one\nworld\n");
    assert_eq!(String::from_utf8_lossy(&tree["fed.txt"].content), "fed x\n");
    assert_eq!(String::from_utf8_lossy(&tree["files/expanded.txt"].content), "hello world\n");
    assert_eq!(String::from_utf8_lossy(&tree["files/literal.txt"].content), "hello $NAME\n");
}

#[test]
fn blanks_may_stand_between_the_signs_of_a_heredoc_and_its_word() {
    let Some(world) = world() else { return };
    let text = r#"FROM localhost/busybox
ENV NAME=world
RUN << EOF
echo "script $NAME" > /script.txt
EOF
RUN cat << 'A' > /a.txt && cat <<  B > /b.txt
literal $NAME
A
expanded $NAME
B
RUN << SH
#!/bin/sh
echo "$0" > /name.txt
SH
"#;
    let tree = world.image(text, &[]).tree();
    let content = |path: &str| String::from_utf8_lossy(&tree[path].content).into_owned();
    assert_eq!(content("script.txt"), "script world\n");
    assert_eq!((content("a.txt"), content("b.txt")), ("literal $NAME\n".to_owned(), "expanded world\n".to_owned()));
    assert_eq!(content("name.txt"), "/dev/pipes/SH\n");
    world.build("FROM scratch\nCOPY << EOF /x\ncontent\nEOF\n", &[]).fails().says(&["`COPY` takes no blank between `<<`", "write `<<EOF`"]);
    let tree = world.image("FROM localhost/busybox\nRUN echo $((1 << 2)) > /shift\nRUN echo $(( 1 << 4 )) >> /shift\n", &[]).tree();
    assert_eq!(tree["shift"].content, b"4\n16\n", "without the line that would end it, it is no heredoc");
}

#[test]
fn without_user_a_step_needs_no_files_of_users() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN rm /etc/passwd /etc/group && mkdir /etc/passwd /etc/group\nRUN echo ran > /ran\nUSER 5:6\nRUN echo numbers > /tmp/numbers\n";
    let tree = world.image(text, &[]).tree();
    assert_eq!(tree["ran"].content, b"ran\n");
    assert_eq!((tree["tmp/numbers"].uid, tree["tmp/numbers"].gid), (5, 6));
}

#[test]
fn the_config_has_an_absolute_working_directory_as_it_is_written() {
    let Some(world) = world() else { return };
    let image = world.image("FROM localhost/busybox\nWORKDIR /srv/app/\nRUN pwd > here\n", &[]);
    assert_eq!(image.run_config()["WorkingDir"], "/srv/app/");
    assert!(image.history().iter().any(|(entry, layer)| entry == "WORKDIR /srv/app/" && *layer));
    assert_eq!(image.tree()["srv/app/here"].content, b"/srv/app\n");
}

#[test]
fn copied_files_have_the_owner_and_mode_that_the_flags_say() {
    let Some(world) = world() else { return };
    world.write("dir/a", "a").write("dir/b", "b").write("plain", "p");
    std::fs::set_permissions(world.context().join("plain"), PermissionsExt::from_mode(0o4751)).unwrap();
    let text = "FROM localhost/busybox\nCOPY --chown=nobody:staff --chmod=0640 dir/a /a\nCOPY --chown=12:34 dir /d/\nCOPY plain /\nCOPY --chmod=u=rwX,go=rX dir/b /b\n";
    let tree = world.image(text, &[]).tree();
    let of = |path: &str| (tree[path].uid, tree[path].gid, tree[path].mode);
    assert_eq!(of("a"), (65534, 50, 0o640));
    assert_eq!((tree["d/a"].uid, tree["d/a"].gid, tree["d"].uid), (12, 34, 12));
    assert_eq!(of("plain"), (0, 0, 0o4751));
    assert_eq!(of("b"), (0, 0, 0o644));
}

#[test]
fn working_directories_belong_to_the_user_by_the_rules_of_chown() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN echo 'joe:x:1234:77::/home/joe:/bin/sh' >> /etc/passwd\n\
                USER 1234\nWORKDIR /number\nUSER joe\nWORKDIR /name\nUSER joe:none\nWORKDIR /half\nUSER none\nWORKDIR /none\n\
                USER root\nWORKDIR /root-owned\nUSER joe:\nWORKDIR /open\n";
    let done = world.build(text, &[]).ok();
    done.says(&["no group `none`, so `joe:none` is taken for 1234:77", "no user `none`, so `none` is taken for 0:0"]);
    let tree = world.image(text, &[]).tree();
    let of = |path: &str| (tree[path].uid, tree[path].gid);
    assert_eq!((of("number"), of("name"), of("half")), ((1234, 1234), (1234, 77), (1234, 77)));
    assert_eq!((of("none"), of("root-owned"), of("open")), ((0, 0), (0, 0), (1234, 0)));
    // Nor does a root file system without users stop it.
    let done = world.build("FROM scratch\nUSER joe\nWORKDIR /d\n", &[]).ok();
    done.says(&["no user `joe`"]);
}

#[test]
fn ignored_files_are_not_in_the_context() {
    let Some(world) = world() else { return };
    world.write("keep", "").write("drop.log", "").write("sub/drop.log", "").write("sub/keep.log", "").write("node_modules/x", "");
    world.write(".dockerignore", "# comment\n**/*.log\n!sub/keep.log\nnode_modules\nDockerfile\n");
    let tree = world.image("FROM scratch\nCOPY . /c/\n", &[]).tree();
    let names: Vec<&str> = tree.keys().map(String::as_str).filter(|name| tree[*name].kind == "file").collect();
    assert_eq!(names, ["c/.dockerignore", "c/keep", "c/sub/keep.log"]);
}

#[test]
fn variables_expand_where_the_language_says() {
    let Some(world) = world() else { return };
    world.write("v1.txt", "one");
    let text = r#"ARG TAG=busybox
FROM localhost/${TAG}
ARG TAG
ARG VERSION=1
ENV abc=hello
ENV abc=bye def=$abc
ENV FALLBACK=${UNSET:-default} ALT=${abc:+alt} LITERAL=\$abc
COPY v${VERSION}.txt /copied-$TAG
WORKDIR /w/$VERSION
RUN echo "$abc-$def-$VERSION" > /out
"#;
    let image = world.image(text, &["--build-arg", "VERSION=1"]);
    let env = image.run_config()["Env"].as_array().unwrap().clone();
    for expected in ["abc=bye", "def=hello", "FALLBACK=default", "ALT=alt", "LITERAL=$abc"] {
        assert!(env.contains(&json!(expected)), "{expected} is not in {env:?}");
    }
    let tree = image.tree();
    assert_eq!(tree["copied-busybox"].content, b"one");
    assert_eq!(image.run_config()["WorkingDir"], json!("/w/1"));
    assert_eq!(String::from_utf8_lossy(&tree["out"].content), "bye-hello-1\n");
}

#[test]
fn the_shell_form_has_a_shell_and_the_exec_form_none() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN [\"/bin/sh\", \"-c\", \"echo exec-$0 > /exec\", \"zero\"]\nRUN [\"/bin/touch\", \"/a b\", \"/$HOME\"]\nRUN echo shell > /shell\nENTRYPOINT run me\nCMD a \"b c\"\n";
    let image = world.image(text, &[]);
    let tree = image.tree();
    assert_eq!(tree["exec"].content, b"exec-zero\n");
    assert!(tree.contains_key("a b") && tree.contains_key("$HOME"), "the exec form expands nothing");
    assert_eq!(image.run_config()["Entrypoint"], json!(["/bin/sh", "-c", "run me"]));
    assert_eq!(image.run_config()["Cmd"], json!(["/bin/sh", "-c", "a \"b c\""]));
}

#[test]
fn an_image_with_triggers_runs_them_in_its_children_only() {
    let Some(world) = world() else { return };
    world.write("trigger.txt", "t");
    world
        .build("FROM localhost/busybox\nONBUILD COPY trigger.txt /triggered\nONBUILD RUN echo ran > /ran\n", &["-t", "localhost/parent"])
        .ok();
    world.build("FROM localhost/parent\nRUN cat /ran\n", &["-t", "localhost/child"]).ok();
    let child = world.image("FROM localhost/parent\nRUN cat /ran\n", &[]);
    assert!(child.tree().contains_key("triggered"));
    assert_eq!(child.tree()["ran"].content, b"ran\n");
    assert!(matches!(child.run_config()["OnBuild"], Value::Null) || child.run_config()["OnBuild"] == json!([]));
    let grandchild = world.image("FROM localhost/child\nLABEL g=1\n", &[]);
    assert_eq!(grandchild.layers.len(), child.layers.len());
}

#[test]
fn a_dockerfile_or_a_whole_context_comes_from_standard_input() {
    let Some(world) = world() else { return };
    world.write("f", "from the context");
    let text = "FROM localhost/busybox\nCOPY f /f\n";
    let iid = world.path("iid");
    let done = world.strake(["build", "-q", "-f", "-", "--iidfile"]).arg(&iid).arg(world.context()).stdin(text).ok();
    let id = std::fs::read_to_string(&iid).unwrap();
    assert_eq!(done.stdout.trim(), id.trim());
    assert!(id.starts_with("sha256:") && id.trim().len() == 71, "{id}");
    assert_eq!(done.stderr, "", "-q shows nothing else");
    world.write("Dockerfile", text);
    let context = std::process::Command::new("tar").arg("-C").arg(world.context()).args(["-cz", "."]).output().unwrap().stdout;
    assert_eq!(world.strake(["build", "-q", "-"]).stdin(context).ok().stdout.trim().len(), 71);
    assert_eq!(world.strake(["build", "-q", "-"]).stdin("FROM localhost/busybox\nLABEL x=1\n").ok().stdout.trim().len(), 71);
}

#[test]
fn a_dockerfile_alone_has_an_empty_context_and_is_the_only_one() {
    let Some(world) = world() else { return };
    let build = |text: &str, args: &[&str]| world.strake([&["build"], args, &["-"]].concat()).stdin(text);
    let archive = world.path("out.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let text = "FROM localhost/busybox\nCOPY . /all/\nRUN --mount=target=/context ls -A /context | wc -l > /count\n";
    build(text, &["-o", &output]).ok();
    let tree = crate::common::Image::oci_archive(&archive).tree();
    assert_eq!(String::from_utf8_lossy(&tree["count"].content), "0\n");
    assert!(tree.contains_key("all") && !tree.keys().any(|path| path.starts_with("all/")));
    build("FROM scratch\nCOPY f /\n", &[]).fails().says(&["`/f` was not found"]);
    for file in ["Dockerfile", "no/such/file"] {
        build("FROM scratch\nLABEL x=1\n", &["-f", file]).fails().says(&["two Dockerfiles"]);
    }
    build("FROM scratch\nLABEL x=1\n", &["-f", ""]).ok();
}

/// The checksums of compressed archives stand behind the end of the archive in them.
#[test]
fn damaged_archives_are_not_added() {
    let Some(world) = world() else { return };
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_size(600);
    tar.append_data(&mut header, "f", &[b'A'; 600][..]).unwrap();
    let tar = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    std::io::Write::write_all(&mut gzip, &tar).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut changed = gzip.clone();
    let content = changed.windows(4).position(|bytes| bytes == b"AAAA").unwrap();
    changed[content + 10] = b'B';
    let text = "FROM scratch\nADD a.tgz /\n";
    assert_eq!(world.write("a.tgz", &gzip).image(text, &[]).tree()["f"].content.len(), 600);
    for damaged in [&changed, &gzip[..gzip.len() - 20], &gzip[..gzip.len() - 4]] {
        world.write("a.tgz", damaged).build(text, &[]).fails().says(&["Dockerfile:2", "cannot read the archive"]);
    }
}

#[test]
fn results_are_written_as_directory_tar_and_both_archives() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox AS b\nRUN mkdir /o && echo hi > /o/file && ln -s file /o/link && chown 5:6 /o/file && chmod 2750 /o && cp /bin/busybox /o/su && chmod 4755 /o/su\nFROM scratch\nCOPY --from=b /o /o\n";
    let (dir, tar, docker, oci) = (world.path("out"), world.path("out.tar"), world.path("docker.tar"), world.path("oci.tar"));
    for (kind, path) in [("local", &dir), ("tar", &tar), ("docker", &docker), ("oci", &oci)] {
        world.build(text, &["-t", "example/out:1", "-o", &format!("type={kind},dest={}", path.display())]).ok();
    }
    assert_eq!(std::fs::read(dir.join("o/file")).unwrap(), b"hi\n");
    assert_eq!(std::fs::read_link(dir.join("o/link")).unwrap().to_str(), Some("file"));
    let mode = |name: &str| std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("o/su"), 0o4755);
    let tree = image::entries(&std::fs::read(&tar).unwrap());
    assert_eq!((tree["o/file"].uid, tree["o/file"].gid, tree["o/file"].content.as_slice()), (5, 6, &b"hi\n"[..]));
    let docker = Image::docker_archive(&docker);
    assert_eq!(docker.manifest["RepoTags"], json!(["example/out:1"]));
    assert_eq!(docker.tree()["o/file"].content, b"hi\n");
    let oci = Image::oci_archive(&oci);
    assert_eq!(oci.tree(), docker.tree());
    assert_eq!(oci.config, docker.config);
}

#[test]
fn the_same_inputs_give_the_same_layers_in_another_store() {
    let (Some(one), Some(two)) = (world(), world()) else { return };
    let layers = [&one, &two].map(|world| {
        world.write("a", "same");
        let file = std::fs::File::open(world.context().join("a")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000)).unwrap();
        world.image("FROM localhost/busybox\nCOPY a /a\nENV X=1\n", &[]).config["rootfs"]["diff_ids"].clone()
    });
    assert_eq!(layers[0], layers[1]);
}

#[test]
fn a_base_comes_from_a_registry() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    let image = world.image(&format!("FROM {}\nRUN echo pulled > /p\n", registry.name("busybox")), &[]);
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.last_layer(), ["p"]);
}

/// The names of the blobs below a directory of the store.
fn blobs(dir: &std::path::Path) -> usize {
    let below = |path: std::path::PathBuf| std::fs::read_dir(path).map(|entries| entries.count()).unwrap_or(0);
    std::fs::read_dir(dir).map(|entries| entries.map(|entry| below(entry.unwrap().path())).sum()).unwrap_or(0)
}

/// Waits until the store has no blob that a power cut would take, and `least` in all; says how many.
fn settled(world: &World, least: usize) -> usize {
    let (fresh, settled) = (world.root().join("fresh"), world.root().join("blobs"));
    wait_for("all blobs of the store to be durable", 120, || blobs(&fresh) == 0 && blobs(&settled) >= least);
    blobs(&settled)
}

#[test]
fn what_a_build_made_is_durable_soon_after_its_end() {
    let Some(world) = world() else { return };
    world.build("FROM localhost/busybox\nRUN echo x > /x\n", &["-t", "made"]).ok();
    let first = settled(&world, 1);
    // Another image of the same layers.
    world.build("FROM localhost/busybox\nRUN echo x > /x\nLABEL a=b\n", &[]).ok();
    settled(&world, first + 1);
    world.strake(["run", "--rm", "made", "cat", "/x"]).ok();
}

#[test]
fn what_was_pulled_or_loaded_is_durable_soon_after() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    world.strake(["pull", &registry.name("busybox")]).ok();
    // Manifest, config and a layer at least.
    settled(&world, 3);
    let (archive, other) = (world.path("saved.tar"), World::new());
    let archive = archive.to_str().unwrap();
    world.strake(["save", "-o", archive, &registry.name("busybox")]).ok();
    other.strake(["load", "-i", archive]).ok();
    settled(&other, 2);
    other.strake(["tag", &registry.name("busybox"), "again"]).ok();
    other.strake(["run", "--rm", "--network", "none", "again", "true"]).ok();
}

#[test]
fn a_store_that_is_removed_after_a_build_stays_removed() {
    let Some(world) = world() else { return };
    world.build("FROM localhost/busybox\nRUN echo x > /x\n", &[]).ok();
    let away = world.path("away");
    std::fs::rename(world.root(), &away).unwrap();
    // The flush that the build left to the background begins a second later and ends before another one that begins after it.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    rustix::fs::sync();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!world.root().exists());
    std::fs::rename(away, world.root()).unwrap();
}

#[test]
fn a_linked_layer_is_whole_above_any_base_also_where_the_first_one_had_the_same_file() {
    let world = World::new();
    world.write("f", "same");
    world.write("g", "other");
    let tree = |base: &str, sources: &str| {
        let path = world.path("image.tar");
        let output = format!("type=oci,dest={}", path.display());
        world.build(&format!("FROM scratch AS base\nCOPY {base} /{base}\nFROM base\nCOPY --link {sources} /\n"), &["-o", &output]).ok();
        let image = Image::oci_archive(&path);
        let names: Vec<String> = image.tree().into_keys().collect();
        names
    };
    for sources in ["f", "f f", "[f]"] {
        assert_eq!(tree("f", sources), ["f"], "{sources}");
        assert_eq!(tree("g", sources), ["f", "g"], "{sources}: the layer was made above a base that has the same file");
    }
}
