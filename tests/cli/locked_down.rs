//! Strake inside of containers that were given nothing: what CI jobs run in. The outer container is one of `strake run`, whose capabilities and system call filter are Docker's defaults.

use std::path::Path;

use crate::common::{Done, World, bases, world};

/// A directory for the inner store, and a context that an inner build can use without any registry.
fn prepared() -> Option<World> {
    let world = world()?;
    std::fs::create_dir(world.path("inner")).unwrap();
    std::fs::set_permissions(world.path("inner"), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::copy(bases().join("busybox.tar"), world.context().join("busybox.tar")).unwrap();
    world.write("file", "of the context").write("secret", "xyzzy-4711").write(".dockerignore", "secret\n");
    Some(world)
}

/// Runs a script in a container with these flags. There `strake` is this build of it with a store on a real disk, and `/ctx` the context.
fn inside(world: &World, flags: &[&str], script: &str) -> Done {
    let volume = |from: &Path, to: &str| format!("{}:{to}", from.display());
    let binary = volume(Path::new(env!("CARGO_BIN_EXE_strake")), "/usr/local/bin/strake:ro");
    let (store, context) = (volume(&world.path("inner"), "/store"), volume(&world.context(), "/ctx"));
    let mut args = vec!["run", "--rm", "--network", "host", "-v", &binary, "-v", &store, "-v", &context];
    args.extend(["-e", "STRAKE_ROOT=/store/s", "-e", "HOME=/tmp", "-e", "SOURCE_DATE_EPOCH=1700000000", "-w", "/ctx"]);
    args.extend(flags);
    args.extend(["localhost/busybox", "sh", "-c", script]);
    world.strake(args).run()
}

/// All that is special about a step's surroundings.
const DOCKERFILE: &str = "FROM scratch
ADD busybox.tar /
COPY --chown=1000:1001 file /data/file
RUN --mount=type=cache,target=/cache echo kept >> /cache/log && cat /cache/log > /log
RUN --mount=type=secret,id=s,target=/run/secrets/s test $(cat /run/secrets/s | wc -c) = 10
RUN --mount=type=bind,target=/ctx,rw touch /ctx/new && cp /ctx/file /copied
RUN --mount=type=tmpfs,target=/scratch touch /scratch/gone
RUN (setsid sleep 4242 &) ; mkdir /home/user && chown 1000:1000 /home/user && chmod 2750 /home/user
USER 1000:1000
WORKDIR /home/user
RUN id -u > me && test ! -e /run/secrets/s && echo gone > /dev/null
USER 0
RUN rm /log && ln -s /copied /link
";

/// Builds what `DOCKERFILE` says, and shows the ID, the processes that are left and what a container of it says.
const SCRIPT: &str = "strake build --progress plain --reproducible --secret id=s,src=secret -t localhost/t . || exit 1
strake images -q --no-trunc localhost/t
ps -o args | grep -c '^sleep 4242'
strake run --rm --network host localhost/t sh -c 'cat /home/user/me; stat -c %u:%g /data/file; test ! -e /log && echo no log'";

/// The ID that the same build gives root of this machine, and the end of its line.
#[track_caller]
fn id_outside(world: &World) -> String {
    let build = ["build", "-q", "--reproducible", "--secret", "id=s,src=ctx/secret", "-t", "localhost/t", "ctx"];
    world.strake(build).env("SOURCE_DATE_EPOCH", "1700000000").ok();
    world.strake(["images", "-q", "--no-trunc", "localhost/t"]).ok().stdout
}

#[track_caller]
fn same_as_outside(world: &World, done: &Done) {
    assert_eq!(done.code, 0, "{done}");
    let id = id_outside(world);
    assert_eq!(done.stdout, format!("{id}0\n1000\n1000:1001\nno log\n"), "{done}");
}

#[test]
fn root_without_privileges_is_root_of_a_user_namespace() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", DOCKERFILE);
    let done = inside(&world, &["--security-opt", "seccomp=unconfined"], SCRIPT);
    same_as_outside(&world, &done);
    // Parts of the container's /proc are covered, so there can be no other: said by the build and by the run, once each.
    assert_eq!(done.stderr.matches("procMount").count(), 2, "{done}");
}

#[test]
fn with_a_proc_that_shows_everything_steps_have_their_own_processes() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", "FROM scratch\nADD busybox.tar /\nRUN test $$ = 1 && test \"$(ls /proc | grep -c '^[0-9]')\" -lt 5\n");
    let flags = ["--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"];
    let done = inside(&world, &flags, "strake build --progress plain .");
    assert_eq!(done.code, 0, "{done}");
    done.omits(&["procMount"]);
}

#[test]
fn no_process_outlives_its_step_or_its_container_there() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", "FROM scratch\nADD busybox.tar /\nRUN (setsid sh -c 'sleep 4243 & sleep 4243' &) ; sleep 4243\n");
    let script =
        "started() { for i in $(seq 1 300); do test $(ps -o args | grep -c '^sleep 4243') = 3 && return; sleep 0.1; done; echo never; }
gone() { for i in $(seq 1 300); do test $(ps -o args | grep -c '^sleep 4243') = 0 && echo none && return; sleep 0.1; done; ps; }
for signal in INT KILL; do strake build . > /dev/null 2>&1 & build=$!; started; kill -$signal $build; gone; done
printf 'FROM scratch\\nADD busybox.tar /\\n' > /tmp/Dockerfile; strake build -q -t localhost/b -f /tmp/Dockerfile . > /dev/null
strake run -d --name c --network host localhost/b sh -c '(setsid sleep 4243 &) ; sleep 4243 & exec sleep 4243' > /dev/null; started
strake exec c sh -c 'test -e /dev/null && echo entered'; strake stop -t 0 c; gone";
    let done = inside(&world, &["--security-opt", "seccomp=unconfined"], script);
    assert_eq!(done.stdout, "none\nnone\nentered\nc\nnone\n", "{done}");
}

#[test]
fn limits_that_cannot_be_had_there_are_an_error_that_names_them() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", "FROM scratch\nADD busybox.tar /\nRUN true\n");
    let done = inside(&world, &["--security-opt", "seccomp=unconfined"], "strake build -m 64m .");
    assert_ne!(done.code, 0);
    done.says(&["cgroup"]).omits(&["panicked"]);
}

#[test]
fn without_user_namespaces_another_user_needs_a_sandbox_for_run_only() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", "FROM scratch\nCOPY file /a/b/file\nADD file /added\nENV A=1\nWORKDIR /w\n");
    world.write("Dockerfile.run", "FROM localhost/plain\nRUN true\n");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let script = "strake build -q -t localhost/plain . > /dev/null && strake tag localhost/plain localhost:4567/plain || exit 1
strake registry serve --addr 127.0.0.1:4567 --storage /tmp/registry > /dev/null 2>&1 & server=$!
for i in $(seq 1 300); do strake push -q localhost:4567/plain 2>/dev/null && break; sleep 0.1; done
strake rmi -f localhost/plain localhost:4567/plain > /dev/null; strake pull -q localhost:4567/plain > /dev/null && echo pulled
strake copy localhost:4567/plain localhost:4567/other > /dev/null 2>&1 && echo copied
strake save -o /tmp/a.tar localhost:4567/plain && strake load -q -i /tmp/a.tar > /dev/null && echo loaded
strake inspect localhost:4567/plain | grep -c '\"A=1\"'; strake tag localhost:4567/plain localhost/plain
kill $server; strake build --progress plain -f Dockerfile.run ."
        .replace("4567", &port.to_string());
    let done = inside(&world, &["--user", "1000:1000"], &script);
    assert!(done.stdout.contains("pulled\ncopied\nloaded\n1\n"), "{done}");
    assert_ne!(done.code, 0, "{done}");
    // What is missing, and what to do.
    done.says(&["RUN true", "system call filter", "seccomp=unconfined", "strake doctor"]).omits(&["Operation not permitted"]);
}

#[test]
fn by_docker_s_defaults_root_runs_steps_by_chroot() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", DOCKERFILE);
    let (build, _) = SCRIPT.split_once("strake run").unwrap();
    // What a step leaves behind, whether it fails or not: nothing of its secret, and all of its cache.
    let script = format!(
        "{build}
printf 'FROM scratch\\nADD busybox.tar /\\nRUN --mount=type=secret,id=s --mount=type=cache,target=/cache echo more >> /cache/log && test -s /run/secrets/s && false\\n' > /tmp/D
strake build --progress plain --secret id=s,src=secret -f /tmp/D . > /dev/null 2>&1 && echo it worked
printf 'FROM scratch\\nADD busybox.tar /\\nRUN --mount=type=cache,target=/cache cp /cache/log /log\\n' > /tmp/D
strake build -q -o type=local,dest=/tmp/out -f /tmp/D . > /dev/null && cat /tmp/out/log; ls -A /tmp/out/dev
find /store/s -type f -size -40k ! -path '*/bin/*' | xargs grep -l xyzzy-4711"
    );
    let done = inside(&world, &[], &script);
    let id = id_outside(&world);
    assert_eq!(done.stdout, format!("{id}0\nkept\nmore\n"), "{done}");
    assert_eq!(done.stderr.matches("not isolated").count(), 1, "{done}");
}

#[test]
fn a_step_by_chroot_is_told_what_it_cannot_have() {
    let Some(world) = prepared() else { return };
    for (line, named) in [
        ("RUN --network=none true", "without network"),
        ("RUN --mount=type=cache,id=c,target=/a --mount=type=cache,id=c,target=/b true", "/b"),
    ] {
        world.write("Dockerfile", format!("FROM scratch\nADD busybox.tar /\n{line}\n"));
        let done = inside(&world, &[], "strake build --progress plain .");
        assert_ne!(done.code, 0, "{done}");
        done.says(&[named, "chroot alone", "seccomp=unconfined"]);
    }
}

#[test]
fn a_container_runs_by_chroot_while_it_is_waited_for() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", "FROM scratch\nADD busybox.tar /\nRUN mkdir /home/user && chown 7 /home/user\n");
    let script = "strake build -q -t localhost/b . > /dev/null 2>&1 || exit 1
strake run --rm -e X=1 -w /home/user -u 7:8 --tmpfs /scratch localhost/b sh -c 'touch here /scratch/there && echo $X $(id -u) $(pwd); (setsid sleep 4244 &) ; exit 3'
echo $?; ps -o args | grep -c '^sleep 4244'; strake ps -aq
for flags in '-v /store:/there' --read-only '--network none'; do strake run --rm $flags localhost/b true && echo $flags worked; done
strake run localhost/b true && echo it stayed";
    let done = inside(&world, &[], script);
    assert_eq!(done.stdout, "1 7 /home/user\n3\n0\n", "{done}");
    done.says(&["not isolated", "/there", "has the store in it", "read-only", "network", "run --rm"]).omits(&["panicked"]);
}

#[test]
fn a_container_by_chroot_takes_further_commands_and_has_the_volumes_of_its_image() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", "FROM scratch\nADD busybox.tar /\nRUN mkdir /data && echo seed > /data/seed\nVOLUME /data /made /made/deep/er\nHEALTHCHECK --interval=100ms CMD test -e /data/out\n");
    let script = "strake build -q -t localhost/b . > /dev/null 2>&1 || exit 1
strake run -d --rm --init --name c -w /made/work localhost/b sh -c 'cat /data/seed > /data/out && touch /made/x; exec sleep 4245' > /dev/null 2>&1 || exit 2
for i in $(seq 1 300); do test \"$(strake inspect -f '{{.State.Health.Status}}' c)\" = healthy && echo healthy && break; sleep 0.1; done
strake exec -e A=1 -w /data -u 7 c sh -c 'cat out; echo $A $(id -u) $(pwd) $(ls /made)'
echo input | strake exec -i c cat; strake exec c sh -c 'exit 5'; echo $?; strake exec c nothing-there; echo $?
strake exec c sh -c '(setsid sleep 4246 &)'; ps -o args | grep -c '^sleep 4246'
strake exec c sleep 4247 & client=$!
for i in $(seq 1 300); do ps -o args | grep -q '^sleep 4247' && break; sleep 0.1; done
strake stop -t 0 c > /dev/null; wait $client; echo $?
ps -o args | grep -c '^sleep 424'; strake ps -aq; ls /store/s/volumes";
    let done = inside(&world, &[], script);
    assert_eq!(done.stdout, "healthy\nseed\n1 7 /data deep work x\ninput\n5\n127\n0\n137\n0\n", "{done}");
}

#[test]
fn what_a_container_by_chroot_changes_in_volumes_and_directories_comes_back() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", "FROM scratch\nADD busybox.tar /\nRUN mkdir /data && echo seed > /data/seed\n");
    world.write("out/kept", "1\n").write("out/gone", "1").write("out/d/deep", "1").write("out/same", "1").write("one", "before\n");
    let script = "strake build -q -t localhost/b . > /dev/null 2>&1 || exit 1
same=$(stat -c '%i %Y' out/same); echo tail | dd of=out/wide bs=1 seek=1G 2>/dev/null
strake run --rm -v /ctx/out:/out -v vol:/data -v /ctx/one:/one -v /ctx/out:/sealed:ro localhost/b sh -c 'echo 2 > /out/new; echo more >> /out/kept; rm /out/gone; rm -r /out/d; mkdir /out/e; ln -s kept /out/e/l; chmod 2750 /out/e; chown 7:8 /out/new; truncate -s 1G /out/hollow; cat /out/wide | head -c 1 > /dev/null; mv /out/wide /out/moved; cat /data/seed > /data/x; echo after > /one; echo no > /sealed/same; exit 3'
echo $?; find out | sort | tr '\\n' ' '; cat out/kept out/new; stat -c '%s' out/hollow out/moved; test $(du -k out/hollow out/moved | awk '{n += $1} END {print n}') -lt 1000 && echo hollow; tail -c 5 out/moved; stat -c '%a %u:%g' out/e out/new; readlink out/e/l; cat one
test \"$same\" = \"$(stat -c '%i %Y' out/same)\" && echo untouched
strake run --rm -v vol:/data localhost/b sh -c 'cat /data/x; rm /data/seed; mv /data/x /data/y'
strake run -d --rm --name c -v vol:/data localhost/b sh -c 'echo lost > /data/y; touch /data/up; exec sleep 4248' > /dev/null
for i in $(seq 1 300); do ps -o args | grep -q '^sleep 4248' && break; sleep 0.1; done
killall -9 strake strake-warden; for i in $(seq 1 300); do ps -o args | grep -q '^sleep 4248' || break; sleep 0.1; done
strake run --rm -v vol:/data localhost/b sh -c 'ls -A /data; cat /data/y'";
    let done = inside(&world, &[], script);
    let listing = "out out/e out/e/l out/hollow out/kept out/moved out/new out/same ";
    let expected =
        format!("3\n{listing}1\nmore\n2\n1073741824\n1073741829\nhollow\ntail\n2750 0:0\n644 7:8\nkept\nafter\nuntouched\nseed\ny\nseed\n");
    assert_eq!(done.stdout, expected, "{done}");
}

#[test]
fn what_a_container_by_chroot_has_only_moved_is_there_whatever_becomes_of_it() {
    let Some(world) = prepared() else { return };
    world.write("Dockerfile", "FROM scratch\nADD busybox.tar /\n");
    let script = "strake build -q -t localhost/b . > /dev/null 2>&1 || exit 1
mkdir /small/d /small/dir /small/other; echo x > /small/dir/x; echo y > /small/file; dd if=/dev/zero of=/small/d/a bs=1k count=700 2> /dev/null
strake run --rm -v /small:/v localhost/b sh -c 'mv /v/d /v/zz; for i in 0 1 2 3; do dd if=/dev/zero of=/v/b$i bs=1k count=230; done' 2> said
echo $?; stat -c %s /small/d/a; grep -c 'cannot write back what was changed in the copy of .*/small' said
rm -rf /small/b? /small/zz; dd if=/dev/zero of=/small/d/a bs=1k count=300 2> /dev/null
strake run --rm -v /small:/v localhost/b sh -c 'mv /v/d /v/e; mv /v/dir/x /v/x; rmdir /v/dir; echo now > /v/dir; rm /v/file; mkdir -p /v/file/deep; echo z > /v/file/deep/z; touch -d @1000000 /v/other'
echo $?; cd /small; find . -mindepth 1 | sort | tr '\\n' ' '; cat x dir file/deep/z; stat -c %s e/a; stat -c %Y other";
    let done = inside(&world, &["--tmpfs", "/small:size=1m"], script);
    let expected = "137\n716800\n1\n0\n./dir ./e ./e/a ./file ./file/deep ./file/deep/z ./other ./x x\nnow\nz\n307200\n1000000\n";
    assert_eq!(done.stdout, expected, "{done}");
}

#[test]
fn isolation_can_be_insisted_on() {
    let Some(world) = world() else { return };
    let dockerfile = "FROM localhost/busybox\nRUN --mount=type=cache,target=/cache touch /cache/x && id -u > /id && chown 7:8 /id\nRUN test ! -e /cache/x && rm /id && echo a > /etc/passwd\n";
    let mut ids = Vec::new();
    for isolation in ["oci", "chroot", "default"] {
        ids.push(world.build(dockerfile, &["-q", "--no-cache", "--reproducible", "--isolation", isolation]).ok().stdout);
    }
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    world.build(dockerfile, &["--isolation=rootless"]).fails().says(&["--isolation=rootless", "doctor"]);
    world.build(dockerfile, &["--isolation=hyperv"]).fails().says(&["chroot"]);
}

#[test]
fn the_doctor_names_the_level() {
    let Some(world) = prepared() else { return };
    let unconfined = ["--security-opt", "seccomp=unconfined"];
    for (flags, user, code, said) in [
        (&unconfined[..], "0", 0, "in a user namespace with all ids"),
        (&unconfined[..], "1000:1000", 0, "in a user namespace with one id"),
        (&[][..], "0", 0, "chroot alone"),
        (&[][..], "1000:1000", 1, "no RUN steps"),
    ] {
        let flags = [flags, &["--user", user]].concat();
        let done = inside(&world, &flags, "strake doctor");
        assert!(done.code == code && done.stdout.contains(said), "{flags:?}: {done}");
        assert_eq!(done.stdout.contains("--security-opt seccomp=unconfined"), flags.len() == 2, "{done}");
    }
}

#[test]
fn what_a_step_by_chroot_does_to_its_mounts_reaches_nobody() {
    let Some(world) = world() else { return };
    world.write("from/kept", "as it was").write("Dockerfile", "FROM localhost/busybox\nRUN mkdir -p /opt/a && echo own > /opt/a/file && touch -d '2001-02-03 04:05:06' /opt/a/file /opt/a /opt\nRUN --mount=type=cache,id=c,target=/cache echo one > /cache/x\nRUN --mount=type=cache,id=c,target=/cache rm -r /cache && ln -s /etc /cache\nRUN --mount=type=cache,id=c,target=/cache test -z \"$(ls -A /cache)\" && test ! -e /etc/x\nRUN --mount=type=bind,source=from,target=/opt/a,rw echo other > /opt/a/kept && rm -f /opt/a/file; test ! -e /opt/a/file\nRUN --mount=type=tmpfs,target=/opt/a/deep/down mv /opt /moved\nRUN rm -r /etc\n");
    let archive = world.path("image.oci.tar");
    let output = format!("type=oci,dest={}", archive.display());
    world.build_as_it_is(&["--isolation=chroot", "--network=host", "--allow=network.host", "-o", &output]).ok();
    let image = crate::common::Image::oci_archive(&archive);
    let tree = image.tree();
    let names: Vec<&str> = tree
        .keys()
        .map(String::as_str)
        .filter(|name| name.starts_with("moved") || name.starts_with("opt") || name.starts_with("cache"))
        .collect();
    assert_eq!(names, ["moved", "moved/a", "moved/a/file"]);
    assert!(!tree.contains_key("etc/hosts") && !tree.contains_key("dev/null"), "{:?}", tree.keys());
    assert_eq!(std::fs::read_to_string(world.context().join("from/kept")).unwrap(), "as it was");
}
