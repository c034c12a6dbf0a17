//! Stores where the kernel mounts no overlays: on an overlay itself, as in a container that a CI job runs in. Builds give the same layers there, and containers are what they are
//! elsewhere, by way of copies. The kernel's own overlays, on the disk beside it, say what is right.

use std::path::{Path, PathBuf};

use crate::common::{Run, World, able, processes, wait_for};

/// An overlay at the store's place.
struct Overlay {
    at: PathBuf,
}

impl Overlay {
    fn mount(world: &World) -> Overlay {
        let at = world.root();
        let name = |name: &str| world.path("overlay").join(name);
        for path in [at.clone(), name("lower"), name("upper"), name("work")] {
            std::fs::create_dir_all(path).unwrap();
        }
        let options =
            format!("lowerdir={},upperdir={},workdir={}", name("lower").display(), name("upper").display(), name("work").display());
        Run::new("mount", ["-t", "overlay", "overlay", "-o", &options]).arg(&at).ok();
        Overlay { at }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        Run::new("umount", ["-l"]).arg(&self.at).run();
    }
}

/// A world whose store is on an overlay and has `localhost/busybox`. The overlay goes before the world, and so do its containers.
fn on_overlay() -> Option<(Containers, World)> {
    able(&["docker-registry", "mount"]).then(|| {
        let world = World::new();
        let overlay = Overlay::mount(&world);
        world.busybox();
        (Containers { _overlay: overlay, root: world.root() }, world)
    })
}

/// Removes all containers before the overlay goes.
struct Containers {
    _overlay: Overlay,
    root: PathBuf,
}

impl Drop for Containers {
    fn drop(&mut self) {
        let strake = |args: &[&str]| Run::new(env!("CARGO_BIN_EXE_strake"), args).env("STRAKE_ROOT", &self.root).run();
        for id in strake(&["ps", "-aq"]).stdout.split_whitespace() {
            strake(&["rm", "-f", id]);
        }
    }
}

const EPOCH: &str = "SOURCE_DATE_EPOCH=1700000000";

/// Commands that do to files what can be done to them, with what lies below them.
const NASTY: &str = r"FROM localhost/busybox AS base
RUN mkdir -p /t/gone/deep /t/again/sub /t/dir-to-file /t/dir-to-link/x /t/keep/kept /t/mode /t/owned /t/moved/in /t/touched /t/sticky \
 && echo 1 > /t/gone/deep/f && echo 1 > /t/again/old && echo 1 > /t/again/sub/f && echo 1 > /t/dir-to-file/f \
 && echo 1 > /t/file-to-dir && ln -s keep /t/link-to-dir && echo 1 > /t/keep/kept/f && echo 1 > /t/moved/in/f \
 && echo one > /t/l1 && ln /t/l1 /t/l2 && ln /t/l1 /t/owned/l3 && echo x > /t/alone && echo s > /t/suid && chmod 4755 /t/suid \
 && mknod /t/null c 1 3 && mkfifo /t/pipe && dd if=/dev/zero of=/t/sparse bs=1 count=1 seek=3000000 2>/dev/null \
 && chmod 1777 /t/sticky && chown 12:34 /t/owned && chmod 700 /t/mode && mkdir /t/many && for i in $(seq 300); do echo $i > /t/many/$i; done
COPY ctx /t/copied
RUN rm -r /t/gone && rm -r /t/again && mkdir /t/again && echo 2 > /t/again/new \
 && rm -r /t/dir-to-file && echo 2 > /t/dir-to-file && rm -r /t/dir-to-link && ln -s /t/keep /t/dir-to-link \
 && rm /t/file-to-dir && mkdir -p /t/file-to-dir/sub && rm /t/link-to-dir && mkdir /t/link-to-dir && echo 2 > /t/link-to-dir/f \
 && chmod 755 /t/mode && chown -R 1:2 /t/owned /t/l1 && mv /t/moved /t/away && touch /t/touched/x && rm /t/touched/x \
 && ln /t/alone /t/alone2 && rm /t/l2 && rm /t/pipe && rm /t/null && mkfifo -m 0 /t/odd && mknod /t/zero c 1 5 && chmod 755 /t/suid \
 && echo end >> /t/sparse && rm /t/many/7 && echo seven > /t/many/77 && cp -p /t/many/8 /t/many/new && mv /t/many/new /t/many/8 \
 && mkdir -p /t/copied/d && echo 2 > /t/copied/a && mkdir -m 700 -p /a/b/c && echo deep > /a/b/c/d && mkdir -p /run && echo run > /run/kept && echo h > /etc/motd
RUN --mount=type=cache,target=/cache/made --mount=type=tmpfs,target=/tmpfs echo x > /cache/made/x && echo y > /tmpfs/y && echo z > /t/z
RUN test ! -e /cache && test ! -e /tmpfs && rm /t/z && test ! -e /t/gone && test ! -e /t/again/old && test -e /t/many/9
WORKDIR /made/by/workdir
RUN echo here > file && rm -rf /t/many && cp -a /t/away /t/back
FROM localhost/busybox
COPY --from=base /t /t
RUN --mount=type=bind,from=base,source=/t,target=/base cp /base/alone /seen && ! touch /base/x
RUN --mount=type=bind,from=base,target=/base,rw echo w > /base/t/alone && cat /base/t/alone > /written
RUN --mount=type=bind,from=base,source=/t,target=/base cmp /base/alone /t/alone && rm -r /t/away
";

fn nasty(world: &World) -> Vec<serde_json::Value> {
    world.write("ctx/a", "1").write("ctx/b", "1").write("Dockerfile", NASTY);
    let mut ids = Vec::new();
    for target in ["base", ""] {
        let mut args = vec!["--reproducible", "--build-arg", EPOCH];
        if !target.is_empty() {
            args.extend(["--target", target]);
        }
        let image = world.image(NASTY, &args);
        ids.push(image.config["rootfs"]["diff_ids"].clone());
    }
    ids
}

/// What a build says of how it makes root file systems.
fn told(stderr: &str) -> usize {
    stderr.matches("are copied, which takes time and space").count()
}

#[test]
fn layers_are_the_same_on_a_disk_on_an_overlay_and_by_choice() {
    let Some((overlay, world)) = on_overlay() else { return };
    let plain = World::new();
    plain.busybox();
    let right = nasty(&plain);
    assert_eq!(told(&plain.build_as_it_is(&["--no-cache"]).ok().stderr), 0);
    assert_eq!(nasty(&world), right, "on an overlay");
    let again = world.build_as_it_is(&["--no-cache"]).ok();
    assert_eq!(told(&again.stderr), 1, "{again}");
    again.says(&["STRAKE_ROOT"]);
    // By choice, where the kernel could do better: nothing to warn of.
    let chosen = World::new();
    chosen.busybox();
    std::fs::create_dir_all(chosen.path("home/.config/strake")).unwrap();
    std::fs::write(chosen.path("home/.config/strake/config.toml"), "[storage]\ndriver = \"copy\"\n").unwrap();
    assert_eq!(nasty(&chosen), right, "by choice");
    assert_eq!(told(&chosen.build_as_it_is(&["--no-cache"]).ok().stderr), 0);
    // Trying out what the file system can keep leaves nothing.
    let tried = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("marks-");
    assert!(!std::fs::read_dir(world.root()).unwrap().flatten().any(tried));
    // What is in the stores is what the digests say, and what moves between them stays that.
    let archive = plain.path("moved.tar");
    plain.build_as_it_is(&["-t", "localhost/nasty", "--target", "base"]).ok();
    plain.strake(["save", "-o", archive.to_str().unwrap(), "localhost/nasty"]).ok();
    world.strake(["load", "-i", archive.to_str().unwrap()]).ok();
    for world in [&world, &chosen] {
        let check = world.strake(["system", "check"]).ok();
        assert!(check.stdout.contains("is good"), "{check}");
        let seen = world.strake(["run", "--rm", "--network", "none", "localhost/busybox", "true"]);
        seen.env("STRAKE_STORAGE_DRIVER", "nonsense").fails().says(&["STRAKE_STORAGE_DRIVER", "overlay, fuse-overlayfs or copy"]);
    }
    let listing = "cd /t && find . | sort && cat again/new dir-to-file many/77 2>&1; stat -c '%n %u:%g %a' owned mode owned/l3; stat -c '%n %h' alone alone2";
    let see = |world: &World| world.strake(["run", "--rm", "--network", "none", "localhost/nasty", "sh", "-c", listing]).ok().stdout;
    assert_eq!(see(&world), see(&plain));
    drop(overlay);
}

#[test]
fn a_container_on_an_overlay_is_like_any_other() {
    let Some((overlay, world)) = on_overlay() else { return };
    // As if there were no fuse-overlayfs.
    let done = is_like_any_other(&world, ("PATH", "/nowhere"));
    assert_eq!(told(&done), 1, "{done}");
    drop(overlay);
}

#[test]
fn fuse_overlayfs_makes_the_root_of_a_container_where_the_kernel_mounts_none() {
    if !has_fuse_overlayfs() {
        return;
    }
    let Some((overlay, world)) = on_overlay() else { return };
    let done = is_like_any_other(&world, ("A", "B"));
    assert!(done.contains("fuse-overlayfs makes") && told(&done) == 0, "{done}");
    // What was deleted in a layer of the image, or hidden by one, is so for the program as well.
    world.build("FROM localhost/busybox\nRUN mkdir -p /d/e && echo 1 > /d/old && echo 1 > /gone\nRUN rm -r /d /gone && mkdir /d && echo 2 > /d/new\n", &["-t", "localhost/marks"]).ok();
    let script = "ls -A /d; test ! -e /gone && echo gone; find / -xdev -name '*.wh*' -o -xdev -name '.strake*'";
    assert_eq!(world.strake(["run", "--rm", "--network", "none", "localhost/marks", "sh", "-c", script]).ok().stdout, "new\ngone\n");
    let info = world.strake(["info", "--format", "{{.Driver}}"]).ok().stdout;
    assert_eq!(info, "fuse-overlayfs\n");
    let doctor = world.strake(["doctor"]).run();
    assert!(doctor.stdout.contains("those of containers by fuse-overlayfs"), "{doctor}");
    drop(overlay);
}

#[test]
fn fuse_overlayfs_by_choice_makes_what_an_overlay_would_and_ends_with_the_container() {
    let Some(world) = crate::common::world().filter(|_| has_fuse_overlayfs()) else { return };
    let strake = |args: &[&str]| world.strake(args).env("STRAKE_STORAGE_DRIVER", "fuse-overlayfs");
    world
        .build("FROM localhost/busybox\nRUN mkdir -p /d/e /keep /lo && echo 1 > /d/old && echo 1 > /gone && echo 1 > /keep/a && ln -s a /keep/l\n", &["-t", "localhost/app"])
        .ok();
    let script = "rm /gone; rm -r /d; mkdir /d; echo 2 > /d/new; echo more >> /keep/a; chown 77:78 /keep/a; chmod 2750 /keep; mkfifo /p; mkdir -p /x/y; mv /x /z; rm /keep/l; touch -d @1000000 /keep/a /keep; mkdir /t; rmdir /t; ln /d/new /hard; cp /bin/busybox /suid; chmod 4755 /suid; touch -d @1000000 /d/new /hard /suid /p /z /z/y /d; echo up; exec sleep 4250";
    let mut layers = Vec::new();
    for (name, driver) in [("fused", "fuse-overlayfs"), ("plain", "overlay"), ("copied", "copy")] {
        let run = ["run", "-d", "--name", name, "--network", "none", "localhost/app", "sh", "-c", script];
        world.strake(run).env("STRAKE_STORAGE_DRIVER", driver).ok();
        wait_for("the container", 60, || strake(&["logs", name]).ok().stdout == "up\n");
        strake(&["stop", "-t", "0", name]).ok();
        layers.push(strake(&["diff", name]).ok().stdout);
        strake(&["commit", name, &format!("localhost/{name}")]).ok();
    }
    assert_eq!(layers[0], layers[1]);
    assert_eq!(layers[0], layers[2]);
    let [fused, plain] = ["localhost/fused", "localhost/plain"].map(|name| {
        let archive = world.path("committed.tar");
        strake(&["save", "--format", "oci-archive", "-o", archive.to_str().unwrap(), name]).ok();
        let image = crate::common::Image::oci_archive(&archive);
        std::fs::remove_file(&archive).unwrap();
        image
    });
    let tree = |image: &crate::common::Image| {
        image.tree().iter().map(|(path, entry)| (path.clone(), entry.kind, entry.mode, entry.uid, entry.gid)).collect::<Vec<_>>()
    };
    assert_eq!(tree(&fused), tree(&plain));
    // Started again, it has what it had; and nothing of the program is left when a supervisor is killed, nor is anything lost.
    strake(&["start", "fused"]).ok();
    wait_for("the second start", 60, || strake(&["logs", "fused"]).ok().stdout == "up\nup\n");
    assert!(uses_of(&world));
    strake(&["exec", "fused", "sh", "-c", "cat /d/new; dd if=/dev/zero of=/large bs=64k count=100 2>/dev/null"]).ok();
    strake(&["kill", "fused"]).ok();
    wait_for("the end", 60, || strake(&["ps", "-q"]).ok().stdout.is_empty());
    strake(&["cp", "fused:/large", "large"]).ok();
    assert_eq!(std::fs::metadata(world.path("large")).unwrap().len(), 6_553_600);
    strake(&["rm", "fused", "plain", "copied"]).ok();
    wait_for("the end of all programs", 60, || !uses_of(&world));
    let without =
        world.strake(["run", "--rm", "localhost/app", "true"]).env("STRAKE_STORAGE_DRIVER", "fuse-overlayfs").env("PATH", "/nowhere");
    without.fails().says(&["cannot use fuse-overlayfs", "not in the PATH", "apt-get install fuse-overlayfs"]);
}

#[test]
fn fuse_overlayfs_has_the_limits_of_its_container_and_ends_with_a_start_that_fails() {
    let Some(world) = crate::common::world().filter(|_| has_fuse_overlayfs()) else { return };
    let strake = |args: &[&str]| world.strake(args).env("STRAKE_STORAGE_DRIVER", "fuse-overlayfs");
    let sleeper = |name: &str, flags: &[&str]| {
        let run = [&["run", "-d", "--name", name, "--network", "none"][..], flags, &["localhost/busybox", "sleep", "4250"]].concat();
        strake(&run).ok();
    };
    sleeper("held", &["--memory", "64m", "--pids-limit", "1"]);
    let program = programs_of(&world).pop().unwrap();
    let groups = |process: &Path| -> Vec<PathBuf> {
        let text = std::fs::read_to_string(process.join("cgroup")).unwrap();
        let fields = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let place = |(controller, path): (&str, &str)| Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/'));
        fields.map(place).filter(|group| ["memory.max", "memory.limit_in_bytes"].iter().any(|file| group.join(file).exists())).collect()
    };
    let [of_program, of_container] =
        [program, PathBuf::from(format!("/proc/{}", strake(&["inspect", "-f", "{{.State.Pid}}", "held"]).ok().stdout.trim()))]
            .map(|process| groups(&process));
    assert_eq!((of_program.len(), of_container.len()), (1, 1));
    assert_ne!(of_program, of_container);
    for group in of_program.iter().chain(&of_container) {
        let limit = ["memory.max", "memory.limit_in_bytes"].iter().find_map(|file| std::fs::read_to_string(group.join(file)).ok());
        assert_eq!(limit.as_deref(), Some("67108864\n"), "{}", group.display());
    }
    // What is written is more than the program may keep.
    strake(&["exec", "held", "dd", "if=/dev/zero", "of=/large", "bs=64k", "count=2000"]).ok();
    strake(&["rm", "-f", "held"]).ok();
    wait_for("the end of the program and its group", 60, || !uses_of(&world) && !of_program[0].exists());
    // An orphan comes to this process, and would wait to be reaped.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    strake(&["run", "--rm", "--network", "none", "--cgroup-parent", "../../x", "localhost/busybox", "true"])
        .fails()
        .says(&["control group"]);
    let children = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    let names = children.split_whitespace().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default());
    assert_eq!(names.filter(|name| name.starts_with("fuse")).count(), 0);
}

/// Whether a program shows layers of the world's store.
fn uses_of(world: &World) -> bool {
    !programs_of(world).is_empty()
}

/// Those that do.
fn programs_of(world: &World) -> Vec<PathBuf> {
    let root = world.root().display().to_string();
    let shows = |process: &PathBuf| {
        let program = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let mounts = std::fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        program.starts_with(b"/fuse-overlayfs\0") && mounts.contains(&root)
    };
    std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).filter(shows).collect()
}

fn has_fuse_overlayfs() -> bool {
    let there = crate::common::which("fuse-overlayfs").is_some() && Path::new("/dev/fuse").exists();
    if !there {
        eprintln!("skipped: needs fuse-overlayfs");
    }
    there
}

/// What a container does, and what is asked of it, in the world's surroundings and with one variable more; gives what was said when it was made.
fn is_like_any_other(world: &World, (variable, value): (&str, &str)) -> String {
    let strake = |args: &[&str]| world.strake(args).env(variable, value);
    world
        .build(
            "FROM localhost/busybox\nRUN mkdir /data /d && echo of-image > /data/f && echo 1 > /d/old && echo 1 > /gone\n",
            &["-t", "localhost/app"],
        )
        .ok();
    let script = "echo mine > /mine; rm /gone; rm -r /d; mkdir /d; echo 2 > /d/new; echo up; exec sleep 1000";
    let run = [
        "run",
        "-d",
        "--name",
        "one",
        "--network",
        "none",
        "-v",
        "vol:/data",
        "--mount",
        "type=image,source=localhost/app,target=/other",
        "localhost/app",
        "sh",
        "-c",
        script,
    ];
    let started = strake(&run).ok().stderr;
    wait_for("the container", 60, || strake(&["logs", "one"]).ok().stdout == "up\n");
    let inside = "cat /mine /data/f /other/gone; touch /other/x 2>/dev/null || echo read-only; ls /d";
    assert_eq!(strake(&["exec", "one", "sh", "-c", inside]).ok().stdout, "mine\nof-image\n1\nread-only\nnew\n");
    // No mount point and no file of the sandbox counts as a change.
    let diff = strake(&["diff", "one"]).ok().stdout;
    for line in ["A /mine", "D /gone", "A /d/new"] {
        assert!(diff.lines().any(|found| found == line), "{line}: {diff}");
    }
    for word in ["/other", "/etc/hosts", "/proc", "/dev", "/bin"] {
        assert!(!diff.contains(word), "{word}: {diff}");
    }
    std::fs::write(world.path("note"), "copied in").unwrap();
    strake(&["cp", "note", "one:/d/note"]).ok();
    strake(&["restart", "-t", "0", "one"]).ok();
    wait_for("the restart", 60, || strake(&["logs", "one"]).ok().stdout == "up\nup\n");
    strake(&["stop", "-t", "0", "one"]).ok();
    strake(&["cp", "one:/mine", "back"]).ok();
    assert_eq!(std::fs::read_to_string(world.path("back")).unwrap(), "mine\n");
    strake(&["commit", "one", "localhost/committed"]).ok();
    let kept = [
        "run",
        "--rm",
        "--network",
        "none",
        "--read-only",
        "localhost/committed",
        "sh",
        "-c",
        "cat /mine; ls /d /other; test ! -e /gone; touch /x",
    ];
    let done = strake(&kept).fails();
    assert!(done.stdout.starts_with("mine\n") && done.stdout.contains("new") && done.stderr.contains("Read-only"), "{done}");
    strake(&["export", "-o", "all.tar", "one"]).ok();
    let listed = Run::new("tar", ["-tf"]).arg(world.path("all.tar")).ok().stdout;
    assert!(
        listed.lines().any(|line| line == "d/new") && !listed.lines().any(|line| line == "gone" || line.starts_with("other")),
        "{listed}"
    );
    strake(&["rm", "one"]).ok();
    strake(&["build", "--test", "cat /mine && echo x > /tested", "-"]).stdin("FROM localhost/committed\n").ok();
    strake(&["system", "check", "-q"]).ok();
    started
}

#[test]
fn a_build_that_was_killed_leaves_copies_that_prune_removes() {
    let Some((overlay, world)) = on_overlay() else { return };
    world.write("Dockerfile", "FROM localhost/busybox\nRUN echo 1 > /one\nRUN echo ready > /two && sleep 1000\n");
    let mut child = world.build_as_it_is(&[]).start();
    let snapshots = world.root().join("snapshots");
    let copies = || {
        let all = std::fs::read_dir(&snapshots).unwrap().flatten().map(|entry| entry.path());
        all.filter(|path| path.join("fs/bin/busybox").exists() && path.file_name().unwrap().to_string_lossy().starts_with("new-")).count()
    };
    let begun = || std::fs::read_dir(&snapshots).unwrap().flatten().any(|entry| entry.path().join("fs/two").exists());
    wait_for("the second step", 120, begun);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the end of the step", 60, || processes(&world.root()).is_empty());
    assert!(copies() > 0);
    world.strake(["system", "check", "-q"]).ok();
    world.strake(["prune", "-f"]).ok();
    assert_eq!(copies(), 0);
    world.build("FROM localhost/busybox\nRUN echo 1 > /one\nRUN cat /one > /three\n", &[]).ok();
    assert_eq!(copies(), 0, "copies go with the build");
    drop(overlay);
}

#[test]
fn a_pipe_of_an_image_that_looks_like_the_mark_of_a_deletion_is_a_pipe() {
    let Some((overlay, world)) = on_overlay() else { return };
    let plain = World::new();
    plain.busybox();
    for world in [&world, &plain] {
        let pipe = world.path("evil");
        Run::new("mkfifo", ["-m", "0"]).arg(&pipe).ok();
        Run::new("touch", ["-d", "@226377737"]).arg(&pipe).ok();
        Run::new("tar", ["-cf"]).arg(world.context().join("evil.tar")).arg("-C").arg(world.path("")).arg("evil").ok();
        let text = "FROM localhost/busybox AS first\nRUN echo 1 > /evil\nADD evil.tar /\nRUN test -p /evil\nFROM scratch\nADD evil.tar /\n";
        world.build(text, &["-t", "localhost/evil", "--target", "first"]).ok();
        assert_eq!(world.image(text, &[]).tree()["evil"].kind, "fifo");
        // Unpacked as a layer that came from elsewhere, too.
        world.strake(["save", "-o", "evil.tar", "localhost/evil"]).ok();
        world.strake(["rmi", "-f", "localhost/evil"]).ok();
        world.strake(["prune", "-a", "-f"]).run();
        world.strake(["load", "-i", "evil.tar"]).ok();
        world.strake(["run", "--rm", "--network", "none", "localhost/evil", "test", "-p", "/evil"]).ok();
    }
    drop(overlay);
}

#[test]
fn layers_are_the_same_on_fuse_overlayfs() {
    if !able(&["docker-registry", "mount"]) || crate::common::which("fuse-overlayfs").is_none() {
        eprintln!("skipped: needs fuse-overlayfs");
        return;
    }
    let (world, plain) = (World::new(), World::new());
    let at = world.root();
    let name = |name: &str| world.path(name).display().to_string();
    for path in [name("lower"), name("upper"), name("work"), at.display().to_string()] {
        std::fs::create_dir_all(path).unwrap();
    }
    // It seems to keep what overlays consist of, and takes it for its own.
    let options = format!("lowerdir={},upperdir={},workdir={}", name("lower"), name("upper"), name("work"));
    Run::new("fuse-overlayfs", ["-o", &options]).arg(&at).ok();
    let mounted = Overlay { at };
    let text = "FROM localhost/busybox\nRUN mkdir /d && echo 1 > /d/f && echo 1 > /g\nRUN rm /g && rm /d/f && echo 2 > /d/g && echo 3 > /bin/new\n";
    let ids = [&world, &plain].map(|world| {
        world.busybox();
        let done = world.build(text, &["--reproducible", "--build-arg", EPOCH]).ok();
        let copied = world.root() == mounted.at;
        assert_eq!(told(&done.stderr), usize::from(copied), "{done}");
        if copied {
            done.says(&["cannot keep what overlays consist of"]);
        }
        world.image(text, &["--reproducible", "--build-arg", EPOCH]).config["rootfs"]["diff_ids"].clone()
    });
    assert_eq!(ids[0], ids[1]);
    drop(mounted);
}
