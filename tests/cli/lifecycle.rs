//! What happens to containers between their start and their end: restarts, pauses, health, changes, and what becomes of their files.

use std::time::Duration;

use crate::common::{Done, World, wait_for, world};

/// Starts a container that sleeps, with these flags.
#[track_caller]
fn sleeper(world: &World, name: &str, flags: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(flags);
    args.extend(["localhost/busybox", "sleep", "1000"]);
    world.strake(args).ok();
}

#[track_caller]
fn shown(world: &World, format: &str, name: &str) -> String {
    world.strake(["inspect", "-f", format, name]).ok().stdout.trim_end().to_owned()
}

fn exec(world: &World, args: &[&str]) -> Done {
    world.strake(std::iter::once(&"exec").chain(args)).run()
}

/// The tar archive's entries.
fn listing(archive: &[u8]) -> Vec<String> {
    let mut tar = tar::Archive::new(archive);
    tar.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().to_string_lossy().trim_end_matches('/').to_owned()).collect()
}

#[test]
fn a_container_is_made_without_being_started_and_restarted_with_its_files() {
    let Some(world) = world() else { return };
    // No name here is the beginning of an ID.
    let script = "echo run >> /runs; wc -l < /runs; exec sleep 1000";
    let id = world.strake(["create", "--name", "old", "localhost/busybox", "sh", "-c", script]).ok().stdout;
    assert_eq!(shown(&world, "{{.State.Status}} {{.Id}}", "old"), format!("created {}", id.trim()));
    assert_eq!(world.strake(["start", "old"]).ok().stdout, "old\n");
    wait_for("the first line", 20, || world.strake(["logs", "old"]).ok().stdout == "1\n");
    assert_eq!(world.strake(["restart", "-t", "0", "old"]).ok().stdout, "old\n");
    wait_for("the second line", 20, || world.strake(["logs", "old"]).ok().stdout == "1\n2\n");
    world.strake(["rename", "old", "new"]).ok();
    assert_eq!(shown(&world, "{{.Name}}", "new"), "/new");
    world.strake(["inspect", "old"]).fails().says(&["`old`"]);
    sleeper(&world, "third", &[]);
    world.strake(["rename", "third", "new"]).fails().says(&["`new`"]);
    assert_eq!(world.strake(["port", "new"]).ok().stdout, "");
    world.strake(["port", "new", "80"]).fails().says(&["80/tcp"]);
}

#[test]
fn what_containers_write_does_not_pile_up_in_the_databases_log() {
    let Some(world) = world() else { return };
    let log = || std::fs::metadata(world.root().join("meta.db-wal")).unwrap().len();
    let (mut before, mut written) = (log(), 0);
    // Until as much was written as is to be written back at the latest, twice.
    while written < 256 << 10 {
        let id = world.strake(["create", "localhost/busybox", "true"]).ok().stdout;
        world.strake(["rm", id.trim()]).ok();
        let now = log();
        written += now.saturating_sub(before);
        before = now;
    }
    wait_for("a short log", 60, || {
        world.strake(["ps"]).ok();
        log() < 128 << 10
    });
}

#[test]
fn a_paused_container_stands_still_until_it_goes_on_or_is_killed() {
    let Some(world) = world() else { return };
    let script = "i=0; while :; do i=$((i+1)); echo $i > /count; sleep 0.01; done";
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sh", "-c", script]).ok();
    let count = || {
        std::fs::read_to_string(world.root().join("containers").join(shown(&world, "{{.Id}}", "c")).join("fs/count")).unwrap_or_default()
    };
    wait_for("the first number", 20, || !count().is_empty());
    let paused = world.strake(["pause", "c"]).run();
    if paused.stderr.contains("freezer") {
        return;
    }
    assert_eq!((paused.code, paused.stdout.as_str()), (0, "c\n"), "{paused}");
    let before = count();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(count(), before);
    assert_eq!(shown(&world, "{{.State.Status}} {{.State.Paused}} {{.State.Running}}", "c"), "paused true true");
    assert!(world.strake(["ps"]).ok().stdout.contains("(Paused)"));
    let done = exec(&world, &["c", "true"]);
    assert_eq!(done.code, 1, "{done}");
    done.says(&["paused", "strake unpause c"]);
    world.strake(["pause", "c"]).fails().says(&["already paused"]);
    assert_eq!(world.strake(["unpause", "c"]).ok().stdout, "c\n");
    wait_for("more numbers", 20, || count() != before);
    world.strake(["unpause", "c"]).fails().says(&["not paused"]);
    world.strake(["pause", "c"]).ok();
    world.strake(["kill", "c"]).ok();
    assert_eq!(world.strake(["wait", "c"]).ok().stdout, "137\n");
    world.strake(["start", "c"]).ok();
    world.strake(["pause", "c"]).ok();
    let group = std::path::Path::new("/sys/fs/cgroup/freezer/strake").join(shown(&world, "{{.Id}}", "c"));
    world.strake(["rm", "-f", "c"]).ok();
    assert!(!group.exists(), "a group is left");
}

/// On cgroup v1 what stands still does not even end when it is killed.
#[test]
fn a_paused_container_whose_supervisor_was_killed_ends_and_can_be_started_and_removed() {
    let Some(world) = world() else { return };
    sleeper(&world, "c", &[]);
    sleeper(&world, "passing", &["--rm"]);
    let lose = |name: &str| {
        let paused = world.strake(["pause", name]).run();
        if paused.stderr.contains("freezer") {
            return None;
        }
        assert_eq!(paused.code, 0, "{paused}");
        let pid: i32 = shown(&world, "{{.State.Pid}}", name).parse().unwrap();
        nix::sys::signal::kill(supervisor(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
        Some(pid)
    };
    let ended = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
    };
    let Some(pid) = lose("c") else { return };
    wait_for("the truth", 20, || shown(&world, "{{.State.Status}} {{.State.ExitCode}}", "c") == "exited 137");
    wait_for("the end of its process", 20, || ended(pid));
    world.strake(["kill", "c"]).fails().says(&["not running"]);
    world.strake(["start", "c"]).ok();
    assert_eq!(shown(&world, "{{.State.Status}} {{.State.Paused}}", "c"), "running false");
    assert_eq!(exec(&world, &["c", "true"]).code, 0);
    let pid = lose("c").unwrap();
    world.strake(["rm", "-f", "c"]).ok();
    wait_for("the end of its process", 20, || ended(pid));
    let pid = lose("passing").unwrap();
    wait_for("the end of the last", 20, || world.strake(["ps", "-aq"]).ok().stdout.is_empty());
    wait_for("the end of its process", 20, || ended(pid));
}

#[test]
fn policies_start_a_container_again_until_a_user_ends_it() {
    let Some(world) = world() else { return };
    let script = "echo run; exit 3";
    world.strake(["run", "-d", "--restart", "on-failure:2", "--name", "f", "localhost/busybox", "sh", "-c", script]).ok();
    assert_eq!(world.strake(["wait", "f"]).ok().stdout, "3\n");
    assert_eq!(world.strake(["logs", "f"]).ok().stdout, "run\n".repeat(3));
    assert_eq!(shown(&world, "{{.RestartCount}} {{.HostConfig.RestartPolicy.Name}} {{.State.ExitCode}}", "f"), "2 on-failure 3");
    world.strake(["run", "-d", "--restart", "always", "--name", "a", "localhost/busybox", "sleep", "0.1"]).ok();
    let restarts = || shown(&world, "{{.RestartCount}}", "a").parse::<u32>().unwrap();
    wait_for("a restart", 30, || restarts() >= 2);
    assert_eq!(world.strake(["ps", "-q", "--filter", "name=a"]).ok().stdout.lines().count(), 1, "between two runs it is listed as well");
    world.strake(["stop", "-t", "1", "a"]).ok();
    let stopped = restarts();
    assert_eq!(shown(&world, "{{.State.Running}}", "a"), "false");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(restarts(), stopped);
    // What the start of the machine would start again.
    world.strake(["run", "-d", "--restart", "unless-stopped", "--name", "u", "localhost/busybox", "sleep", "1000"]).ok();
    world.strake(["stop", "-t", "0", "u"]).ok();
    assert_eq!(world.strake(["start", "--resume"]).ok().stdout, "a\n");
    let refused = world.strake(["run", "--rm", "--restart", "always", "localhost/busybox", "true"]).run();
    assert_eq!(refused.code, 125, "{refused}");
    world.strake(["update", "--restart", "no", "a"]).ok();
    wait_for("the end", 30, || shown(&world, "{{.State.Running}}", "a") == "false");
}

#[test]
fn health_is_checked_counted_shown_and_waited_for() {
    let Some(world) = world() else { return };
    let check =
        ["--health-cmd", "cat /well && echo fine", "--health-interval", "200ms", "--health-retries", "2", "--health-timeout", "20s"];
    sleeper(&world, "c", &check);
    assert_eq!(shown(&world, "{{.State.Health.Status}}", "c"), "starting");
    assert!(world.strake(["ps"]).ok().stdout.contains("(health: starting)"));
    wait_for("two failures", 30, || shown(&world, "{{.State.Health.Status}}", "c") == "unhealthy");
    assert!(world.strake(["ps"]).ok().stdout.contains("(unhealthy)"));
    exec(&world, &["c", "touch", "/well"]);
    wait_for("a success", 30, || shown(&world, "{{.State.Health.Status}} {{.State.Health.FailingStreak}}", "c") == "healthy 0");
    let health: serde_json::Value = serde_json::from_str(&shown(&world, "{{json .State.Health}}", "c")).unwrap();
    let last = health["Log"].as_array().unwrap().last().unwrap();
    assert_eq!((last["ExitCode"].as_i64(), last["Output"].as_str()), (Some(0), Some("fine\n")), "{health}");
    assert_eq!(world.strake(["ps", "-q", "--filter", "health=healthy"]).ok().stdout.lines().count(), 1);
    // The image says it, and flags change it.
    let text =
        "FROM localhost/busybox\nHEALTHCHECK --interval=100ms --retries=1 CMD test -e /well\nCMD sleep 0.5; touch /well; sleep 1000\n";
    world.build(text, &["-t", "localhost/health"]).ok();
    let begun =
        ["run", "-d", "--wait", "--health-start-period", "30s", "--health-start-interval", "100ms", "--name", "w", "localhost/health"];
    world.strake(begun).ok();
    assert_eq!(shown(&world, "{{.State.Health.Status}}", "w"), "healthy");
    let sick = world.strake(["run", "-d", "--wait", "--name", "s", "localhost/health", "sleep", "1000"]).run();
    assert_eq!(sick.code, 125, "{sick}");
    sick.says(&["`s` is unhealthy"]);
    world.strake(["run", "-d", "--no-healthcheck", "--name", "n", "localhost/health"]).ok();
    assert!(!shown(&world, "{{json .State}}", "n").contains("Health"));
    let slow = ["--health-cmd", "sleep 100", "--health-interval", "100ms", "--health-timeout", "300ms", "--health-retries", "1"];
    sleeper(&world, "t", &slow);
    wait_for("the time limit", 30, || shown(&world, "{{.State.Health.Status}}", "t") == "unhealthy");
    let health: serde_json::Value = serde_json::from_str(&shown(&world, "{{json .State.Health}}", "t")).unwrap();
    assert_eq!(health["Log"][0]["ExitCode"], -1, "{health}");
}

#[test]
fn changes_are_listed_exported_and_made_an_image() {
    let Some(world) = world() else { return };
    let script = "echo new > /tmp/new; rm /etc/group; echo more >> /etc/passwd; mkdir -p /made/deep; touch /made/deep/x; sleep 1000";
    world.strake(["run", "-d", "--name", "c", "-e", "KEPT=1", "-l", "who=me", "localhost/busybox", "sh", "-c", script]).ok();
    wait_for("the last file", 20, || exec(&world, &["c", "test", "-e", "/made/deep/x"]).code == 0);
    let changes = world.strake(["diff", "c"]).ok().stdout;
    let expected = "C /etc\nD /etc/group\nC /etc/passwd\nA /made\nA /made/deep\nA /made/deep/x\nC /tmp\nA /tmp/new\n";
    assert_eq!(changes, expected);
    world.strake(["export", "-o", "out.tar", "c"]).ok();
    let entries = listing(&std::fs::read(world.path("out.tar")).unwrap());
    for (name, there) in [("made/deep/x", true), ("tmp/new", true), ("bin/sh", true), ("etc/group", false)] {
        assert_eq!(entries.iter().any(|entry| entry == name), there, "{name}: {entries:?}");
    }
    let flags = [
        "commit",
        "-a",
        "somebody",
        "-m",
        "a remark",
        "-c",
        "CMD [\"cat\", \"/tmp/new\"]",
        "-c",
        "ENV ADDED=$KEPT",
        "c",
        "localhost/made:1",
    ];
    let id = world.strake(flags).ok().stdout;
    assert!(id.starts_with("sha256:"), "{id}");
    assert_eq!(world.strake(["run", "--rm", "localhost/made:1"]).ok().stdout, "new\n");
    let checked = "echo $KEPT $ADDED; test -e /etc/group || echo gone; tail -1 /etc/passwd";
    assert_eq!(world.strake(["run", "--rm", "localhost/made:1", "sh", "-c", checked]).ok().stdout, "1 1\ngone\nmore\n");
    let image = world.strake(["inspect", "-f", "{{.Author}} {{.Config.Labels.who}}", "localhost/made:1"]).ok().stdout;
    assert_eq!(image, "somebody me\n");
    assert_eq!(shown(&world, "{{.State.Status}}", "c"), "running");
    world.strake(["commit", "-c", "RUN x", "c"]).fails().says(&["RUN x"]);
}

#[test]
fn processes_use_and_limits_of_a_container_are_shown_and_changed() {
    let Some(world) = world() else { return };
    sleeper(&world, "c", &["--pids-limit", "50"]);
    world.strake(["exec", "-d", "c", "sleep", "777"]).ok();
    let mut top = String::new();
    wait_for("both processes", 20, || {
        top = world.strake(["top", "c"]).ok().stdout;
        top.lines().count() == 3
    });
    assert!(top.starts_with("UID ") && top.contains("sleep 1000") && top.contains("sleep 777") && !top.contains("strake"), "{top}");
    let pids = world.strake(["top", "c", "-o", "pid,args"]).ok().stdout;
    let pid = shown(&world, "{{.State.Pid}}", "c");
    assert!(pids.lines().any(|line| line.starts_with(&pid) && line.ends_with("sleep 1000")), "{pids}");
    let stats = world.strake(["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", "c"]).ok().stdout;
    assert!(stats.starts_with("c 2 ") && stats.contains('B'), "{stats}");
    assert!(world.strake(["stats", "--no-stream"]).ok().stdout.contains("CPU %"));
    world.strake(["update", "--pids-limit", "4", "c"]).ok();
    assert_eq!(shown(&world, "{{.HostConfig.PidsLimit}}", "c"), "4");
    exec(&world, &["c", "sh", "-c", "for i in 1 2 3 4 5 6; do sleep 30 & done; wait"]).says(&["fork"]);
    world.strake(["update", "c"]).fails();
}

#[test]
fn a_container_that_was_started_without_limits_gets_them_later() {
    let Some(world) = world() else { return };
    let script = "until test -e /go; do sleep 0.1; done; tail /dev/zero";
    let id = world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sh", "-c", script]).ok().stdout;
    world.strake(["update", "--pids-limit", "4", "--memory", "32m", "--cpus", "1.5", "c"]).ok();
    exec(&world, &["c", "sh", "-c", "for i in 1 2 3 4 5 6; do sleep 30 & done; wait"]).says(&["fork"]);
    assert_eq!(exec(&world, &["c", "tail", "/dev/zero"]).code, 137);
    let stats = world.strake(["stats", "--no-stream", "--format", "{{.MemUsage}}", "c"]).ok().stdout;
    assert!(stats.trim_end().ends_with("/ 32MiB"), "{stats}");
    world.strake(["update", "--memory", "48m", "--memory-swap", "48m", "c"]).ok();
    world.strake(["exec", "c", "touch", "/go"]).ok();
    assert_eq!(world.strake(["wait", "c"]).ok().stdout, "137\n");
    assert_eq!(shown(&world, "{{.State.OOMKilled}} {{.HostConfig.Memory}}", "c"), format!("true {}", 48 << 20));
    assert_eq!(groups(id.trim()), Vec::<std::path::PathBuf>::new());
    world.strake(["start", "c"]).ok();
    assert_eq!(world.strake(["wait", "c"]).ok().stdout, "137\n");
    // Those that a killed supervisor leaves are gone when the container runs again.
    sleeper(&world, "d", &[]);
    world.strake(["update", "--pids-limit", "9", "d"]).ok();
    let (id, pid) = (shown(&world, "{{.Id}}", "d"), shown(&world, "{{.State.Pid}}", "d"));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let supervisor = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("its end", 20, || shown(&world, "{{.State.Status}}", "d") == "exited");
    world.strake(["start", "d"]).ok();
    assert_eq!(groups(&id), Vec::<std::path::PathBuf>::new());
    exec(&world, &["d", "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 0; do sleep 30 & done; wait"]).says(&["fork"]);
}

/// The control groups of that name.
fn groups(name: &str) -> Vec<std::path::PathBuf> {
    let all = walkdir::WalkDir::new("/sys/fs/cgroup").max_depth(3).into_iter().flatten();
    all.filter(|entry| entry.file_name() == name).map(|entry| entry.path().to_owned()).collect()
}

#[test]
fn formats_are_the_templates_that_scripts_use() {
    let Some(world) = world() else { return };
    std::fs::create_dir(world.path("dir")).unwrap();
    let volume = format!("{}:/dir:ro", world.path("dir").display());
    let flags = ["create", "--name", "c", "-v", &volume, "-l", "team.name=x", "--expose", "80", "localhost/busybox", "sleep", "1"];
    world.strake(flags).ok();
    for (format, expected) in [
        ("{{.State.Status}}", "created".to_owned()),
        ("{{json .Config.Cmd}}", r#"["sleep","1"]"#.to_owned()),
        ("{{range .Mounts}}{{.Type}}:{{.Destination}}:{{.RW}};{{end}}", "bind:/dir:false;".to_owned()),
        ("{{if .State.Running}}up{{else}}down{{end}} {{len .Mounts}}", "down 1".to_owned()),
        ("{{index .Config.Labels \"team.name\"}}|{{index .Config.Labels \"none\"}}", "x|".to_owned()),
        ("{{join .Config.Cmd \" \"}} {{upper .Name}}", "sleep 1 /C".to_owned()),
        ("{{range $k, $v := .Config.ExposedPorts}}{{$k}}{{end}}", "80/tcp".to_owned()),
    ] {
        assert_eq!(shown(&world, format, "c"), expected, "{format}");
    }
    let table = world.strake(["ps", "-a", "--format", "table {{.Names}}\\t{{.Image}}\\t{{.Label \"team.name\"}}"]).ok().stdout;
    assert!(table.starts_with("NAMES     IMAGE"), "{table}");
    assert_eq!(table.lines().nth(1), Some("c         localhost/busybox   x"), "{table}");
    let images = world.strake(["images", "--format", "table {{.Repository}}\\t{{.ID}}"]).ok().stdout;
    assert!(images.starts_with("REPOSITORY          IMAGE ID\nlocalhost/busybox   "), "{images}");
    world.strake(["inspect", "--format", "{{.State.Nothing}}", "c"]).fails().says(&["there is no field `Nothing` in `.State`"]);
    world.strake(["ps", "--format", "{{if .ID}}"]).fails().says(&["has no `{{end}}`"]);
}

#[test]
fn what_happens_is_told_in_order_and_filtered() {
    let Some(world) = world() else { return };
    sleeper(&world, "two", &["--health-cmd", "true", "--health-interval", "50ms"]);
    world.strake(["exec", "two", "sh", "-c", "exit 3"]).run();
    wait_for("the first check", 20, || shown(&world, "{{.State.Health.Status}}", "two") == "healthy");
    world.strake(["kill", "-s", "USR1", "two"]).ok();
    world.strake(["rm", "-f", "two"]).ok();
    world.strake(["run", "--rm", "--name", "one", "-l", "x=y", "localhost/busybox", "sh", "-c", "exit 4"]).run();
    world.strake(["volume", "create", "v"]).ok();
    let events = |flags: &[&str]| {
        let mut args = vec!["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"];
        args.extend(flags);
        world.strake(args).ok().stdout
    };
    let of_one = events(&["--filter", "container=one"]);
    assert_eq!(of_one, "container create one\ncontainer attach one\ncontainer start one\ncontainer die one\ncontainer destroy one\n");
    assert_eq!(events(&["--filter", "event=die", "--filter", "label=x=y"]).lines().count(), 1);
    let of_two = events(&["--filter", "container=two", "--filter", "event=kill", "--filter", "event=die", "--filter", "event=destroy"]);
    assert_eq!(of_two, "container kill two\ncontainer kill two\ncontainer die two\ncontainer destroy two\n");
    let commands = events(&[
        "--filter",
        "container=two",
        "--filter",
        "event=exec_create",
        "--filter",
        "event=exec_start",
        "--filter",
        "event=exec_die",
    ]);
    let told = |line: &str| commands.lines().filter(|known| *known == line).count();
    assert_eq!((told("container exec_create: sh -c exit 3 two"), told("container exec_start: sh -c exit 3 two")), (1, 1), "{commands}");
    // A check of its health is a command like any other.
    let checks = told("container exec_start: /bin/sh -c true two");
    assert!(checks >= 1 && told("container exec_die two") >= checks, "{commands}");
    assert_eq!(events(&["--filter", "event=health_status"]), "container health_status: healthy two\n");
    let json = world
        .strake(["events", "--since", "1h", "--until", "0s", "--filter", "event=kill", "--filter", "event=exec_die", "--format", "json"])
        .ok()
        .stdout;
    assert!(
        json.contains(r#""signal":"10""#)
            && json.contains(r#""signal":"9""#)
            && json.contains(r#""exitCode":"3""#)
            && json.contains("execID"),
        "{json}"
    );
    let plain = world.strake(["events", "--since", "1h", "--until", "0s", "--filter", "event=die"]).ok().stdout;
    assert!(plain.contains(" container die ") && plain.contains("exitCode=4"), "{plain}");
    let volumes = world.strake(["events", "--since", "1h", "--until", "0s", "--filter", "type=volume", "--format", "json"]).ok().stdout;
    let value: serde_json::Value = serde_json::from_str(volumes.trim()).unwrap();
    assert_eq!((value["Action"].as_str(), value["Actor"]["ID"].as_str()), (Some("create"), Some("v")));
}

/// The process that a container's first one was made by.
fn supervisor(pid: i32) -> nix::unistd::Pid {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    nix::unistd::Pid::from_raw(parent)
}

#[test]
fn a_container_whose_supervisor_was_stopped_or_killed_can_be_removed_and_is_not_lied_about() {
    let Some(world) = world() else { return };
    sleeper(&world, "stopped", &[]);
    let pid: i32 = shown(&world, "{{.State.Pid}}", "stopped").parse().unwrap();
    nix::sys::signal::kill(supervisor(pid), nix::sys::signal::Signal::SIGSTOP).unwrap();
    let exec = world.strake(["exec", "stopped", "true"]).fails();
    assert!(exec.elapsed < Duration::from_secs(60), "{exec}");
    exec.says(&[&format!("(process {}) is stopped", supervisor(pid)), "kill -CONT"]);
    let removed = world.strake(["rm", "-f", "stopped"]).ok();
    assert!(removed.elapsed < Duration::from_secs(60), "{removed}");
    wait_for("the end of its process", 10, || !std::path::Path::new(&format!("/proc/{pid}")).exists());
    sleeper(&world, "killed", &[]);
    let pid: i32 = shown(&world, "{{.State.Pid}}", "killed").parse().unwrap();
    nix::sys::signal::kill(supervisor(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("the truth", 20, || shown(&world, "{{.State.Status}} {{.State.ExitCode}}", "killed") == "exited 137");
    world.strake(["start", "killed"]).ok();
    world.strake(["rm", "-f", "killed"]).ok();
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn logs_begin_a_new_file_when_one_is_full() {
    let Some(world) = world() else { return };
    let flags = ["run", "--name", "c", "--log-opt", "max-size=2k", "--log-opt", "max-file=3", "localhost/busybox", "seq", "1", "500"];
    world.strake(flags).ok();
    let dir = world.root().join("containers").join(shown(&world, "{{.Id}}", "c"));
    let files =
        std::fs::read_dir(&dir).unwrap().flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("container.log")).count();
    assert!((1..=3).contains(&files), "{files}");
    let logs = world.strake(["logs", "c"]).ok().stdout;
    assert!(logs.ends_with("500\n") || logs.is_empty(), "{logs}");
    assert!(logs.lines().count() < 500);
    world.strake(["run", "--name", "n", "--log-driver", "none", "localhost/busybox", "echo", "x"]).ok();
    world.strake(["logs", "n"]).fails().says(&["`n` keeps no log"]);
    let wrong = world.strake(["run", "--log-driver", "syslog", "localhost/busybox", "true"]).run();
    assert_eq!(wrong.code, 125, "{wrong}");
}

#[test]
fn volumes_are_made_filled_shared_listed_and_removed() {
    let Some(world) = world() else { return };
    world.strake(["volume", "create", "--label", "a=b", "named"]).ok();
    let anonymous = world.strake(["volume", "create"]).ok().stdout;
    assert_eq!(anonymous.trim().len(), 64);
    assert_eq!(world.strake(["volume", "ls", "-q", "--filter", "label=a=b"]).ok().stdout, "named\n");
    assert!(world.strake(["volume", "ls"]).ok().stdout.starts_with("DRIVER    VOLUME NAME\n"));
    let mountpoint = world.strake(["volume", "inspect", "-f", "{{.Mountpoint}}", "named"]).ok().stdout;
    // The image's files go into a volume that is new, with their owners, unless that is not wanted.
    let text = "FROM localhost/busybox\nRUN mkdir /data && echo image > /data/file && chown -R 5:6 /data\nVOLUME /data\n";
    world.build(text, &["-t", "localhost/vol"]).ok();
    world.strake(["run", "--rm", "-v", "named:/data", "localhost/vol", "true"]).ok();
    assert_eq!(std::fs::read_to_string(format!("{}/file", mountpoint.trim())).unwrap(), "image\n");
    let list = ["stat", "-c", "%u:%g %n", "/data", "/data/file"];
    let copied = world.strake(["run", "--rm", "--mount", "type=volume,src=v2,dst=/data", "localhost/vol"].iter().chain(&list)).ok().stdout;
    assert_eq!(copied, "5:6 /data\n5:6 /data/file\n");
    assert_eq!(world.strake(["run", "--rm", "-v", "v3:/data:nocopy", "localhost/vol", "ls", "/data"]).ok().stdout, "");
    world.strake(["run", "-d", "--name", "c", "-v", "named:/named:ro", "localhost/vol", "sleep", "1000"]).ok();
    exec(&world, &["c", "sh", "-c", "echo shared > /data/shared"]);
    let other = world
        .strake(["run", "--rm", "--volumes-from", "c", "localhost/busybox", "sh", "-c", "cat /data/shared; touch /named/x || echo ro"])
        .ok();
    assert_eq!(other.stdout, "shared\nro\n");
    world.strake(["run", "--rm", "--volumes-from", "c:ro", "localhost/busybox", "touch", "/data/x"]).fails();
    world.strake(["run", "--rm", "--volumes-from", "c:rw", "localhost/busybox", "touch", "/named/x"]).fails().says(&["Read-only"]);
    world.strake(["volume", "rm", "named"]).fails().says(&["`c`"]);
    assert_eq!(world.strake(["ps", "-q", "--filter", "volume=named"]).ok().stdout.lines().count(), 1);
    assert_eq!(exec(&world, &["c", "cat", "/data/shared"]).stdout, "shared\n", "the other container's end took nothing away");
    world.strake(["rm", "-f", "-v", "c"]).ok();
    let pruned = world.strake(["volume", "prune", "-f"]).ok().stdout;
    assert!(pruned.contains(anonymous.trim()) && pruned.contains("Total reclaimed space"), "{pruned}");
    assert_eq!(world.strake(["volume", "ls", "-q"]).ok().stdout, "named\nv2\nv3\n");
    world.strake(["volume", "prune", "-f", "-a", "--filter", "label!=a"]).ok();
    assert_eq!(world.strake(["volume", "ls", "-q"]).ok().stdout, "named\n");
    world.strake(["volume", "rm", "named"]).ok();
    world.strake(["volume", "rm", "named"]).fails().says(&["no such volume: `named`"]);
    world.strake(["volume", "rm", "-f", "named"]).ok();
}

#[test]
fn mounts_are_of_every_type_and_refused_where_they_make_no_sense() {
    let Some(world) = world() else { return };
    std::fs::create_dir(world.path("host")).unwrap();
    std::fs::write(world.path("host/file"), "host\n").unwrap();
    let run =
        |spec: &str, command: &[&str]| world.strake(["run", "--rm", "--mount", spec, "localhost/busybox"].iter().chain(command)).run();
    let bind = format!("type=bind,source={},target=/m", world.path("host").display());
    assert_eq!(run(&bind, &["cat", "/m/file"]).stdout, "host\n");
    assert_ne!(run(&format!("{bind},readonly"), &["touch", "/m/x"]).code, 0);
    let missing = run(&format!("type=bind,source={},target=/m", world.path("nowhere").display()), &["true"]);
    assert_eq!(missing.code, 125, "{missing}");
    missing.says(&["nowhere` of a bind mount is not there", "hint: make it first, or name it with -v"]);
    run("type=volume,source=v,target=/m,volume-subpath=nothing", &["true"]).says(&["the volume has no `/nothing`"]);
    // What the system says is told in its words, without its numbers.
    let failed = world.strake(["run", "--env-file", "nothing", "localhost/busybox"]).fails();
    assert!(failed.stderr.ends_with("caused by: No such file or directory\n"), "{failed}");
    assert!(run("type=tmpfs,target=/m,tmpfs-size=1m", &["df", "/m"]).stdout.contains("1024"));
    world.build("FROM scratch\nCOPY Dockerfile /in/file\n", &["-t", "localhost/files"]).ok();
    assert_eq!(run("type=image,source=localhost/files,target=/m", &["ls", "/m/in"]).stdout, "file\n");
    assert_eq!(run("type=image,source=localhost/files,image-subpath=in,target=/m", &["ls", "/m"]).stdout, "file\n");
    assert_ne!(run("type=image,source=localhost/files,target=/m", &["touch", "/m/x"]).code, 0);
    run("type=volume,source=v,target=/m", &["mkdir", "/m/sub"]);
    assert_eq!(run("type=volume,source=v,volume-subpath=sub,target=/m", &["ls", "/m"]).stdout, "");
    for spec in ["type=bind,target=/m", "type=what,target=/m", "type=tmpfs,target=m", "type=image,source=localhost/none,target=/m"] {
        assert_eq!(run(spec, &["true"]).code, 125, "{spec}");
    }
}

#[test]
fn a_context_is_built_and_run_in_one_go() {
    let Some(world) = world() else { return };
    world.write("Dockerfile", "FROM localhost/busybox AS one\nARG WHO=nobody\nENV WHO=$WHO\nENTRYPOINT [\"sh\", \"-c\"]\nCMD [\"echo built for $WHO\"]\nFROM one\nRUN false\n");
    let built = world.strake(["run", "--rm", "--target", "one", "--build-arg", "WHO=me", "--build", "ctx"]).ok();
    assert_eq!(built.stdout, "built for me\n", "{built}");
    let other = world.strake(["run", "--rm", "--target", "one", "--build", "ctx", "exit 6"]).run();
    assert_eq!(other.code, 6, "{other}");
    let failed = world.strake(["run", "--rm", "--build", "ctx"]).run();
    assert_eq!(failed.code, 125, "{failed}");
    failed.says(&["RUN false"]);
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn a_built_image_is_tested_before_it_is_named() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nRUN echo content > /made\nENV WHO=me\nENTRYPOINT [\"false\"]\n";
    let good = world.build(text, &["-t", "localhost/tested", "--test", "echo said-by-$WHO; grep content /made"]).ok();
    good.says(&["said-by-me", "content"]);
    assert_eq!(world.strake(["run", "--rm", "--entrypoint", "", "localhost/tested", "cat", "/made"]).ok().stdout, "content\n");
    world.build(text, &["--test", "[\"test\", \"-e\", \"/made\"]"]).ok();
    let out = format!("type=oci,dest={}", world.path("out.tar").display());
    let bad = world.build(text, &["-t", "localhost/untested", "-o", &out, "--test", "echo why >&2; exit 9"]).fails();
    bad.says(&["why", "exited with status 9"]);
    assert!(!world.path("out.tar").exists());
    world.build(text, &["-q", "--test", "echo why >&2; exit 9"]).fails().says(&["| why\n"]);
    world.strake(["inspect", "localhost/untested"]).fails();
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn files_are_copied_in_and_out_of_containers_that_run_and_that_do_not() {
    let Some(world) = world() else { return };
    std::fs::create_dir_all(world.path("dir/sub")).unwrap();
    std::fs::write(world.path("dir/sub/file"), "content\n").unwrap();
    std::os::unix::fs::symlink("sub/file", world.path("dir/link")).unwrap();
    std::fs::set_permissions(world.path("dir/sub/file"), std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(world.path("dir/sub/file"), Some(7), Some(8)).unwrap();
    sleeper(&world, "run", &["-v", "vol:/vol", "--tmpfs", "/memory"]);
    world
        .strake(["create", "--name", "made", "-v", "vol2:/vol", "localhost/busybox", "sh", "-c", "cat /in/sub/file /vol/dir/sub/file"])
        .ok();
    for name in ["run", "made"] {
        let cp = |from: &str, to: &str| world.strake(["cp", from, to]).run();
        let at = |path: &str| format!("{name}:{path}");
        assert_eq!(cp("dir", &at("/in")).code, 0, "a directory gets the name that nothing has");
        assert_eq!(cp("dir", &at("/vol")).code, 0, "and goes into one that is there");
        assert_eq!(cp("dir/sub/.", &at("/vol")).code, 0, "or its content does");
        assert_eq!(cp("dir/sub/file", &at("/etc/motd")).code, 0);
        for (from, to, why) in [
            ("dir/sub/file", "/none/", "not there"),
            ("dir", "/etc/motd", "directory"),
            ("dir/sub/file", "/none/deep/file", "above"),
            ("dir/none", "/x", "not there"),
        ] {
            let refused = cp(from, &at(to));
            assert_eq!(refused.code, 1, "{refused}");
            refused.says(&[why]);
        }
        assert_eq!(cp(&at("/in"), "out").code, 0);
        assert_eq!(std::fs::read_link(world.path("out/link")).unwrap().to_str(), Some("sub/file"));
        let metadata = std::fs::metadata(world.path("out/sub/file")).unwrap();
        assert_eq!((std::os::unix::fs::MetadataExt::mode(&metadata) & 0o777, std::os::unix::fs::MetadataExt::uid(&metadata)), (0o640, 0));
        assert_eq!(std::fs::read_to_string(world.path("out/sub/file")).unwrap(), "content\n");
        std::fs::remove_dir_all(world.path("out")).unwrap();
        world.strake(["cp", "-a", "dir/sub/file", &at("/owned")]).ok();
        world.strake(["cp", "-aL", &at("/owned"), "owned"]).ok();
        let metadata = std::fs::metadata(world.path("owned")).unwrap();
        assert_eq!((std::os::unix::fs::MetadataExt::uid(&metadata), std::os::unix::fs::MetadataExt::gid(&metadata)), (7, 8));
        // As archives.
        let mut run = world.strake(["cp", &at("/in/sub"), "-"]);
        let archive = run.command().stdin(std::process::Stdio::null()).output().unwrap().stdout;
        assert_eq!(listing(&archive), ["sub", "sub/file"]);
        world.strake(["cp", "-", &at("/vol")]).stdin(archive).ok();
        assert_eq!(cp(&at("/vol/sub/file"), "back").code, 0);
        assert_eq!(std::fs::read_to_string(world.path("back")).unwrap(), "content\n");
    }
    assert_eq!(exec(&world, &["run", "stat", "-c", "%u:%g %a", "/in/sub/file"]).stdout, "0:0 640\n");
    assert_eq!(exec(&world, &["run", "ls", "/vol"]).stdout, "dir\nfile\nsub\n");
    world.strake(["cp", "dir", "run:/memory"]).ok();
    assert_eq!(exec(&world, &["run", "cat", "/memory/dir/sub/file"]).stdout, "content\n");
    assert_eq!(world.strake(["start", "-a", "made"]).ok().stdout, "content\ncontent\n");
}

#[test]
fn links_of_a_container_lead_nowhere_on_this_machine() {
    let Some(world) = world() else { return };
    std::fs::write(world.path("secret"), "secret\n").unwrap();
    std::fs::write(world.path("file"), "file\n").unwrap();
    let outside = world.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let script = format!(
        "ln -s {0} /escape; ln -s {1}/secret /steal; ln -s /proc/self/fd /fds; mkdir -p /dir; ln -s {0} /dir/link; echo in > /inside; ln -s /inside /good; sleep 1000",
        outside.display(),
        world.path("").display()
    );
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sh", "-c", &script]).ok();
    wait_for("the links", 20, || exec(&world, &["c", "test", "-L", "/good"]).code == 0);
    world.strake(["cp", "file", "c:/escape/file"]).fails();
    world.strake(["cp", "-L", "c:/steal", "stolen"]).fails();
    assert!(std::fs::read_dir(&outside).unwrap().next().is_none() && !world.path("stolen").exists());
    world.strake(["cp", "-L", "c:/good", "good"]).ok();
    assert_eq!(std::fs::read_to_string(world.path("good")).unwrap(), "in\n");
    // An archive cannot lead its own files elsewhere by a link that it brings.
    world.strake(["cp", "c:/dir", "copied"]).ok();
    let hostile = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, "way", &outside).unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o644);
        tar.append_data(&mut header, "way/out", &b"x\n"[..]).unwrap();
        tar.into_inner().unwrap()
    };
    world.strake(["cp", "-", "c:/tmp"]).stdin(hostile).run();
    assert!(!outside.join("out").exists());
}

#[test]
fn a_tree_that_is_too_deep_for_a_path_is_an_error_that_names_it() {
    let Some(world) = world() else { return };
    // Sixty levels of a hundred letters.
    let part = format!("{}/", "d".repeat(100)).repeat(20);
    let script = format!("mkdir /x; cd /x; for i in 1 2 3; do mkdir -p {part}; cd {part}; done; touch /dev/shm/ready; sleep 1000");
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sh", "-c", &script]).ok();
    wait_for("the tree", 60, || exec(&world, &["c", "ls", "/dev/shm/ready"]).code == 0);
    for args in [&["commit", "c", "committed"][..], &["diff", "c"], &["cp", "c:/x", "out"]] {
        let done = world.strake(args).fails();
        assert!(done.stderr.contains(&"d".repeat(100)) && done.stderr.contains("long") && !done.stderr.contains("Broken pipe"), "{done}");
    }
    // An archive has no such end.
    let archive = world.strake(["cp", "c:/x", "-"]).command().stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!((archive.status.success(), listing(&archive.stdout).len()), (true, 61));
    crate::common::Run::new("rm", ["-rf".as_ref(), world.path("out").as_os_str()]).ok();
}

#[test]
fn command_lines_are_read_as_docker_reads_them() {
    let Some(world) = world() else { return };
    let run = |flags: &[&str], command: &[&str]| world.strake(["run"]).arg_all(flags).arg("localhost/busybox").arg_all(command);
    let done =
        run(&["--rm=true", "--init=false", "-it=false", "--tmpfs", "/t:uid=5,gid=6,size=10%,mode=700"], &["stat", "-c", "%u:%g %a", "/t"]);
    assert_eq!(done.ok().stdout, "5:6 700\n");
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "", "--rm=true removes it");
    assert_eq!(run(&["--rm", "--entrypoint", "echo"], &["--", "-x", "--rm=false"]).ok().stdout, "-- -x --rm=false\n");
    assert_eq!(run(&["--rm"], &["--", "echo"]).run().code, 127);
    assert_eq!(run(&["--rm", "--shm-size", "0"], &["sh", "-c", "df -k /dev/shm | tail -1 | awk '{ print $2 }'"]).ok().stdout, "65536\n");
    world.write("vars", "\u{feff}A=1\n  B=x y\n# no\n");
    let file = world.context().join("vars");
    let done = run(&["--rm", "--env-file", file.to_str().unwrap()], &["sh", "-c", "echo $A-$B"]);
    assert_eq!(done.ok().stdout, "1-x y\n");
    assert!(run(&["--rm", "--read-only"], &["sh", "-c", "echo x >> /etc/hosts"]).fails().stderr.contains("Read-only"));
    run(&["--name", "said"], &["echo", "words"]).ok();
    for (from, count) in [("2001-02-03", 1), ("2001-02-03T04:05", 1), ("981173100.25", 1), ("2999-01-01", 0)] {
        let shown = world.strake(["logs", "--tail", "-1", "--since", from, "said"]).ok();
        assert_eq!(shown.stdout.lines().count(), count, "{from}");
    }
    assert_ne!(world.strake(["ps", "-aq", "--filter", "ancestor=localhost/busybox:latest"]).ok().stdout, "");
    world.write("vars", "C = 3\n");
    let done = run(&["--rm", "--env-file", file.to_str().unwrap()], &["true"]).fails();
    assert_eq!(done.says(&["`C `", "vars"]).code, 125);
}

#[test]
fn what_waits_for_a_container_that_does_nothing_takes_three_mebibytes_at_most() {
    let Some(world) = world() else { return };
    sleeper(&world, "idle", &[]);
    let pid = shown(&world, "{{.State.Pid}}", "idle");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let supervisor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    let resident = || {
        let rollup = std::fs::read_to_string(format!("/proc/{supervisor}/smaps_rollup")).unwrap();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u32>().unwrap()
    };
    wait_for("the supervisor's rest", 10, || resident() <= 3 << 10);
    // It does all that it did before, and rests again.
    assert_eq!(exec(&world, &["idle", "echo", "awake"]).stdout, "awake\n");
    wait_for("the supervisor's rest", 10, || resident() <= 3 << 10);
    world.strake(["stop", "-t", "0", "idle"]).ok();
}
