//! What a RUN step sees of the machine, and what of the sandbox it leaves behind: nothing.

use crate::common::{Image, Registry, Run, World, able, wait_for, world};

#[test]
fn a_step_that_changes_nothing_has_an_empty_layer() {
    let Some(world) = world() else { return };
    let text =
        "FROM localhost/busybox\nRUN true\nRUN ls -lR /bin >/dev/null; cat /etc/hosts /etc/resolv.conf >/dev/null; touch /dev/shm/x\n";
    let image = world.image(text, &[]);
    assert_eq!(image.layers.len(), 3);
    assert!(image.layers[1].is_empty(), "{:?}", image.layers[1].keys());
    assert!(image.layers[2].is_empty(), "{:?}", image.layers[2].keys());
}

#[test]
fn no_mount_point_stays_in_an_image_from_nothing() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox AS b\nFROM scratch\nCOPY --from=b /bin/busybox /busybox\nRUN [\"/busybox\", \"ls\", \"/proc\", \"/dev\"]\n\
                RUN --mount=type=cache,target=/var/deep/cache --mount=type=tmpfs,target=/scratch/tmp [\"/busybox\", \"true\"]\n";
    let image = world.image(text, &[]);
    assert_eq!(image.tree().keys().collect::<Vec<_>>(), ["busybox"]);
}

#[test]
fn a_layer_has_what_the_step_changed_and_deletions_as_whiteouts() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN mkdir -p /d/e && echo 1 > /d/e/f && echo 2 > /d/g\n\
                RUN rm /d/g && echo 3 > /d/e/f && ln /d/e/f /d/h\nRUN rm -r /d && mkdir /d && touch /d/new\n";
    let image = world.image(text, &[]);
    assert_eq!(image.layers[1].keys().collect::<Vec<_>>(), ["d", "d/e", "d/e/f", "d/g"]);
    let second: Vec<&str> = image.layers[2].keys().map(String::as_str).collect();
    assert!(second.contains(&"d/.wh.g") && second.contains(&"d/e/f") && second.contains(&"d/h"), "{second:?}");
    let below: Vec<String> = image.tree().into_keys().filter(|path| path == "d" || path.starts_with("d/")).collect();
    assert_eq!(below, ["d", "d/new"]);
}

#[test]
fn a_step_has_no_secrets_and_no_powers_of_the_machine() {
    let Some(world) = world() else { return };
    let script = "echo pid $$; echo caps $(grep CapEff /proc/self/status); env | sort; (echo x > /proc/sys/kernel/hostname) 2>&1; \
                  (mknod /tmp/dev b 254 0 && cat /tmp/dev) 2>&1; hostname; (mount -t tmpfs none /mnt) 2>&1; rm -f /tmp/dev; \
                  echo fds $(ls /proc/self/fd | wc -l)";
    world.write("Dockerfile", format!("FROM localhost/busybox\nRUN {script}\n"));
    let done = world.build_as_it_is(&[]).env("HOST_SECRET", "hunter2").ok();
    done.says(&["pid 1\n", "00000000a80425fb", "HOME=/root", "buildkitsandbox\n", "fds 4\n"]);
    done.omits(&["HOST_SECRET", "hunter2", "DOCKER_CONFIG", "STRAKE_ROOT"]);
    let lines = done.stderr.to_lowercase();
    assert!(lines.contains("read-only file system"), "{done}");
    assert!(lines.contains("permission denied") || lines.contains("operation not permitted"), "{done}");
}

#[test]
fn background_processes_end_with_the_step() {
    let Some(world) = world() else { return };
    let done = world.build("FROM localhost/busybox\nRUN (sleep 54321 &) ; echo started\n", &[]).ok();
    assert!(done.elapsed.as_secs() < 20, "{done}");
    assert!(!running("54321"), "the sleep is still there");
}

/// Whether a process with this argument is running.
fn running(argument: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    })
}

#[test]
fn the_network_is_private_the_hosts_or_none() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN echo netns=$(readlink /proc/self/ns/net) links=$(grep -c : /proc/net/dev)\n";
    let own = format!("netns={}", std::fs::read_link("/proc/self/ns/net").unwrap().display());
    world.build(text, &["--network", "host"]).ok().says(&[&own]);
    world.build(text, &["--network", "none"]).ok().omits(&[&own]).says(&["links=1\n"]);
    world.build(text, &["--no-cache"]).ok().omits(&[&own]).says(&["links=2\n"]);
    let in_file =
        "FROM localhost/busybox\nRUN --network=none echo own netns=$(readlink /proc/self/ns/net) links=$(grep -c : /proc/net/dev)\n";
    world.build(in_file, &[]).ok().omits(&[&own]).says(&["links=1\n"]);
}

#[test]
fn names_resolve_in_a_step() {
    if !able(&["docker-registry"]) {
        return;
    }
    let (world, registry) = (World::new(), Registry::with_bases());
    let text = format!("FROM {}\nRUN getent hosts deb.debian.org && getent hosts localhost\n", registry.name("minbase:bookworm"));
    world.build(&text, &[]).ok();
}

#[test]
fn a_secret_is_in_the_step_and_nowhere_else() {
    let Some(world) = world() else { return };
    let secret = "a-secret-that-nobody-guesses";
    std::fs::write(world.path("secret"), secret).unwrap();
    let text =
        "FROM localhost/busybox\nRUN --mount=type=secret,id=token md5sum /run/secrets/token && test $(wc -c < /run/secrets/token) = 28\n";
    let spec = format!("id=token,src={}", world.path("secret").display());
    let archive = world.path("s.tar");
    world.build(text, &["--secret", &spec, "-o", &format!("type=docker,dest={}", archive.display())]).ok().omits(&[secret]);
    let found = std::process::Command::new("grep").args(["-rl", secret]).arg(world.root()).arg(&archive).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    let image = Image::docker_archive(&archive);
    assert!(image.layers[1].is_empty(), "{:?}", image.layers[1].keys());
    // Nor is it on the disk while the command runs, where a power cut would leave it.
    let text = "FROM localhost/busybox\nRUN --mount=type=secret,id=token sleep 5.43; test $(wc -c < /run/secrets/token) = 28\n";
    let runs = || Run::new("pgrep", ["-fx", "sleep 5.43"]).run().code == 0;
    std::thread::scope(|scope| {
        let build = scope.spawn(|| world.build(text, &["--secret", &spec]).ok());
        wait_for("the command", 30, runs);
        wait_for("the secret to be gone", 30, || Run::new("grep", ["-rlF", secret]).arg(world.root()).run().stdout.is_empty());
        assert!(runs(), "it was gone only when the command was");
        build.join().unwrap();
    });
    let text = "FROM localhost/busybox\nRUN --mount=type=secret,id=token test $(wc -c < /run/secrets/token) = 28\n";
    // With `type=env` the source is a variable.
    let from_variable = world.build(text, &["--no-cache", "--secret", "id=token,type=env,src=OF_THE_TOKEN"]);
    from_variable.env("OF_THE_TOKEN", secret).ok();
}

#[test]
fn a_cache_mount_keeps_its_files_between_builds_and_out_of_the_image() {
    let Some(world) = world() else { return };
    let text = |n: u32| format!("FROM localhost/busybox\nRUN --mount=type=cache,target=/cache echo v{n} >> /cache/log && cat /cache/log\n");
    world.build(&text(1), &[]).ok();
    let image = world.image(&text(2), &[]);
    assert!(image.layers[1].is_empty(), "{:?}", image.layers[1].keys());
    world.build(&text(3), &[]).ok().says(&[" v1\n", " v2\n", " v3\n"]);
}

#[test]
fn a_step_runs_as_the_user_in_the_directory() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nUSER nobody\nWORKDIR /job/dir\nRUN touch made && id && pwd && echo home=$HOME\n";
    world.build(text, &[]).ok().says(&["uid=65534(nobody) gid=65534(nogroup) groups=", "/job/dir", "home=/home"]);
    let image = world.image(text, &[]);
    assert_eq!(image.tree()["job/dir/made"].uid, 65534);
    assert!(image.last_layer().contains(&"job/dir/made"));
}

#[test]
fn an_empty_home_is_that_of_the_user() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nENV HOME=\nRUN echo home=$HOME=$(env | grep -c ^HOME=)\nUSER 4242\nRUN echo home=$HOME=\n\
                ENV HOME=/own\nRUN echo home=$HOME=\n";
    world.build(text, &[]).ok().says(&["home=/root=1\n", "home=/=\n", "home=/own=\n"]);
}

#[test]
fn a_writable_bind_mount_takes_changes_and_forgets_them() {
    let Some(world) = world() else { return };
    world.write("file", "context\n").write("sub/inner", "inner\n");
    let text = "FROM localhost/busybox AS from\nRUN mkdir -p /part/deep && echo stage > /part/deep/file && chown -R 7:8 /part && chmod 751 /\n\
                FROM localhost/busybox\nWORKDIR /w\n\
                RUN --mount=target=.,rw echo more >> file && cat file && rm sub/inner && mkdir new\n\
                RUN --mount=from=from,target=/w,readwrite --mount=from=from,target=/other,rw=true touch /w/part/x && ls /other/part && stat -c 'mode %a' /w\n\
                RUN --mount=from=from,source=part/deep,target=/s,ro=false echo x >> /s/file && stat -c 'sub %u:%g' /s && cat /s/file\n\
                RUN --mount=source=file,target=/f,rw echo tail >> /f && cat /f\n\
                RUN --mount=from=localhost/busybox,target=/i,rw rm -r /i/bin && touch /i/made && ls /i\n\
                RUN --mount=target=/c cat /c/file /c/sub/inner && ! touch /c/x\n\
                RUN --mount=from=from,target=/c,rw cat /c/part/deep/file && ! test -e /c/part/x\n";
    let image = world.image(text, &[]);
    for (number, layer) in image.layers.iter().enumerate().skip(2) {
        assert!(layer.is_empty(), "layer {number}: {:?}", layer.keys());
    }
    let done = world.build(text, &["--no-cache"]).ok();
    done.says(&["context\n", "more\n", "mode 751\n", "deep\n", "sub 7:8\n", "tail\n", "made\n", "inner\n", "Read-only file system"]);
    assert_eq!(std::fs::read_to_string(world.context().join("file")).unwrap(), "context\n");
    assert!(world.context().join("sub/inner").exists());
}
