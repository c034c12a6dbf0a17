//! `--runtime`: containers that another OCI runtime runs. What is expected of them is what is expected of our own, so most is asked of runc and crun alike.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::terminal::Terminal;
use crate::common::{Run, World, able, processes, wait_for, world};

/// The runtimes that everything must work with.
const BOTH: [&str; 2] = ["runc", "crun"];

/// A world in which the runtimes are to be had.
#[track_caller]
fn world_with_runtimes() -> Option<World> {
    able(&BOTH).then(world).flatten()
}

/// `run` with a runtime; the arguments are those before and after the image.
fn run(world: &World, runtime: &str, flags: &[&str], command: &[&str]) -> Run {
    world.strake(["run", "--runtime", runtime]).arg_all(flags).arg("localhost/busybox").arg_all(command)
}

#[track_caller]
fn shown(world: &World, format: &str, name: &str) -> String {
    world.strake(["inspect", "-f", format, name]).ok().stdout.trim_end().to_owned()
}

/// Everything of a container in the hierarchies of control groups.
fn groups(id: &str) -> Vec<PathBuf> {
    fn look(dir: &Path, id: &str, depth: u32, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.ends_with(id) {
                found.push(path);
            } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                look(&path, id, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    look(Path::new("/sys/fs/cgroup"), id, 3, &mut found);
    found
}

/// A program of the world's that is a runtime.
fn script(world: &World, name: &str, text: &str) -> String {
    let path = world.path(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_other_runtime_is_what_runs_the_container() {
    let Some(world) = world_with_runtimes() else { return };
    let log = world.path("calls");
    let runtime = script(&world, "logging", &format!("echo \"$@\" >> {}\nexec runc \"$@\"", log.display()));
    let done = run(&world, &runtime, &["--name", "c", "-d"], &["sleep", "1000"]).ok();
    let id = done.stdout.trim().to_owned();
    world.strake(["exec", "c", "true"]).ok();
    world.strake(["stop", "-t", "0", "c"]).ok();
    let calls = std::fs::read_to_string(&log).unwrap();
    let verbs: Vec<&str> =
        calls.lines().map(|line| line.split(' ').find(|word| ["create", "start", "exec", "delete"].contains(word)).unwrap()).collect();
    assert_eq!(verbs, ["create", "start", "exec", "delete"], "{calls}");
    assert!(calls.lines().all(|line| line.contains(&id)), "{calls}");
    assert_eq!(shown(&world, "{{.HostConfig.Runtime}}", "c"), runtime);
    world.strake(["run", "-d", "--name", "own", "localhost/busybox", "true"]).ok();
    assert_eq!(shown(&world, "{{.HostConfig.Runtime}}", "own"), "strake");
    run(&world, "strake", &["--rm"], &["true"]).ok();
}

#[test]
fn another_runtime_is_told_the_annotations() {
    let Some(world) = world_with_runtimes() else { return };
    let kept = world.path("config.json");
    let keep = format!(
        "for word in \"$@\"; do [ \"$last\" = --bundle ] && cp $word/config.json {}; last=$word; done\nexec runc \"$@\"",
        kept.display()
    );
    let runtime = script(&world, "keeping", &keep);
    run(&world, &runtime, &["--rm", "--annotation", "com.example/a=b c"], &["true"]).ok();
    let config: serde_json::Value = serde_json::from_slice(&std::fs::read(kept).unwrap()).unwrap();
    assert_eq!(config["annotations"]["com.example/a"], "b c");
}

#[test]
fn a_command_sees_what_it_sees_on_our_own_runtime() {
    let Some(world) = world_with_runtimes() else { return };
    let look = "id; pwd; echo $A; hostname; umask; grep -E 'Cap|NoNew|Seccomp:' /proc/self/status; ulimit -n; cat /proc/self/oom_score_adj; \
                ls /dev | grep -v core; stat -c '%a %u %g' /dev/shm /tmp; df -m /dev/shm | tail -n 1 | awk '{print $2}'; ls /proc/acpi /sys/firmware 2>/dev/null; \
                (echo x > /proc/sys/kernel/domainname) 2>/dev/null || echo sealed; cat /proc/1/cmdline | head -c 2; readlink /proc/1/ns/pid >/dev/null && echo end";
    let flags =
        ["--rm", "-e", "A=b c", "-w", "/var", "-h", "here", "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN", "--ulimit", "nofile=99:100"];
    let more = ["--shm-size", "8m", "--oom-score-adj", "500", "--security-opt", "no-new-privileges"];
    for user in ["0", "nobody:50"] {
        let flags = [&flags[..], &more, &["-u", user]].concat();
        let own = run(&world, "strake", &flags, &["sh", "-c", look]).ok().stdout;
        assert!(own.contains("b c") && own.contains("here") && own.ends_with("end\n"), "{own}");
        for runtime in BOTH {
            let done = run(&world, runtime, &flags, &["sh", "-c", look]).ok();
            assert_eq!(done.stdout, own, "{runtime} as {user}");
        }
    }
}

#[test]
fn streams_and_codes_go_through() {
    let Some(world) = world_with_runtimes() else { return };
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for runtime in BOTH {
        let done = run(&world, runtime, &["--rm"], &["sh", "-c", "echo out; echo err >&2; exit 7"]).run();
        assert_eq!((done.code, done.stdout.as_str(), done.stderr.as_str()), (7, "out\n", "err\n"), "{done}");
        let sum = |runtime: &str| run(&world, runtime, &["--rm", "-i"], &["sha256sum"]).stdin(bytes.clone()).ok().stdout;
        assert_eq!(sum(runtime), sum("strake"));
        let done = run(&world, runtime, &["--rm"], &["no-such-command"]).fails();
        assert_eq!(done.code, 127, "{done}");
        done.says(&[runtime, "no-such-command"]);
        let done = run(&world, runtime, &["--rm"], &["/etc/passwd"]).fails();
        assert_eq!(done.code, 126, "{done}");
    }
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn a_container_of_another_runtime_has_a_whole_life() {
    let Some(world) = world_with_runtimes() else { return };
    for runtime in BOTH {
        let name = runtime;
        let command = ["sh", "-c", "echo begun; trap 'echo asked; exit 3' TERM; while :; do sleep 0.05; done"];
        let id = world.strake(["create", "--runtime", runtime, "--name", name, "localhost/busybox"]).arg_all(&command).ok().stdout;
        let id = id.trim();
        assert_eq!(shown(&world, "{{.State.Status}}", name), "created");
        world.strake(["start", name]).ok();
        wait_for("the first line", 20, || world.strake(["logs", name]).ok().stdout == "begun\n");
        let pid = shown(&world, "{{.State.Pid}}", name);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{status}");
        let top = world.strake(["top", name]).ok().stdout;
        assert!(top.contains("begun") && !top.contains("strake-guardian"), "{top}");
        assert!(top.lines().nth(1).unwrap().split_whitespace().any(|word| word == pid), "{top}");
        // Commands beside it.
        assert_eq!(world.strake(["exec", "-e", "X=y", "-w", "/etc", name, "sh", "-c", "echo $X; pwd"]).ok().stdout, "y\n/etc\n");
        assert_eq!(world.strake(["exec", "-i", name, "cat"]).stdin("typed").ok().stdout, "typed");
        assert_eq!(world.strake(["exec", name, "sh", "-c", "exit 9"]).run().code, 9);
        let done = world.strake(["exec", name, "no-such-command"]).fails();
        assert_eq!(done.code, 127, "{done}");
        assert!(
            groups(id).iter().all(|group| !std::fs::read_to_string(group.join("cgroup.procs")).unwrap().is_empty()),
            "{:?}",
            groups(id)
        );
        // Files.
        std::fs::write(world.path("file"), "content").unwrap();
        world.strake(["cp", "file", &format!("{name}:/root/file")]).ok();
        assert_eq!(world.strake(["exec", name, "cat", "/root/file"]).ok().stdout, "content");
        assert_eq!(world.strake(["diff", name]).ok().stdout, "C /root\nA /root/file\n");
        // Limits, and standing still.
        world.strake(["update", "--pids-limit", "77", name]).ok();
        let limits = groups(id).into_iter().filter_map(|group| std::fs::read_to_string(group.join("pids.max")).ok());
        assert_eq!(limits.collect::<Vec<_>>(), ["77\n"]);
        assert!(world.strake(["stats", "--no-stream", name]).ok().stdout.contains("/ "));
        world.strake(["pause", name]).ok();
        assert_eq!(shown(&world, "{{.State.Status}}", name), "paused");
        world.strake(["exec", name, "true"]).fails().says(&["paused"]);
        world.strake(["unpause", name]).ok();
        // The end, and again.
        world.strake(["restart", name]).ok();
        wait_for("the second run", 20, || world.strake(["logs", name]).ok().stdout == "begun\nasked\nbegun\n");
        world.strake(["kill", "-s", "TERM", name]).ok();
        assert_eq!(world.strake(["wait", name]).ok().stdout, "3\n");
        assert_eq!(groups(id), Vec::<PathBuf>::new());
        world.strake(["rm", name]).ok();
    }
    wait_for("the end of all processes", 20, || processes(&world.root()).is_empty());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(world.root().to_str().unwrap()), "{mounts}");
}

#[test]
fn terminals_of_other_runtimes_are_terminals() {
    let Some(world) = world_with_runtimes() else { return };
    for runtime in BOTH {
        let mut terminal = Terminal::start(run(&world, runtime, &["-it", "--name", runtime], &["sh"]), 31, 97);
        terminal.expect("#");
        terminal.type_in("stty size; tty\n");
        terminal.expect("31 97");
        terminal.expect("/dev/");
        terminal.resize(40, 120);
        terminal.type_in("sleep 1; stty size\n");
        terminal.expect("40 120");
        let mut exec = Terminal::start(world.strake(["exec", "-it", runtime, "sh"]), 20, 60);
        exec.expect("#");
        exec.type_in("stty size\n");
        exec.expect("20 60");
        exec.type_in("exit 5\n");
        assert_eq!(exec.end().code(), Some(5));
        terminal.type_in([16, 17]);
        assert!(terminal.end().success());
        let mut again = Terminal::start(world.strake(["attach", runtime]), 20, 60);
        again.type_in("echo $((40+2)); exit 6\n");
        again.expect("42");
        assert_eq!(again.end().code(), Some(6));
    }
}

#[test]
fn networks_ports_and_names_are_ours() {
    let Some(world) = world_with_runtimes() else { return };
    for runtime in BOTH {
        let server = "while :; do echo hello | nc -l -p 80; done";
        run(
            &world,
            runtime,
            &["-d", "--name", runtime, "-p", "127.0.0.1::80", "--sysctl", "net.ipv4.ip_default_ttl=99"],
            &["sh", "-c", server],
        )
        .ok();
        let address = world.strake(["port", runtime, "80"]).ok().stdout.trim().to_owned();
        wait_for("an answer", 20, || {
            let Ok(mut stream) = TcpStream::connect(&address) else { return false };
            let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _ = stream.write_all(b"\n");
            let mut text = [0; 6];
            stream.read_exact(&mut text).is_ok() && &text == b"hello\n"
        });
        assert_eq!(world.strake(["exec", runtime, "cat", "/proc/sys/net/ipv4/ip_default_ttl"]).ok().stdout, "99\n");
        let own = world.strake(["exec", runtime, "ip", "-4", "addr", "show", "eth0"]).ok().stdout;
        let shared =
            run(&world, runtime, &["--rm", "--network", &format!("container:{runtime}")], &["ip", "-4", "addr", "show", "eth0"]).ok();
        assert_eq!(shared.stdout, own);
        let none = run(
            &world,
            runtime,
            &["--rm", "--network", "none"],
            &["sh", "-c", "ls /sys/class/net; ping -c 1 127.0.0.1 >/dev/null && echo up"],
        )
        .ok();
        assert!(none.stdout.starts_with("lo\n") && none.stdout.ends_with("up\n") && !none.stdout.contains("eth"), "{none}");
        let namespace = std::fs::read_link("/proc/self/ns/net").unwrap();
        let host = run(&world, runtime, &["--rm", "--network", "host"], &["readlink", "/proc/self/ns/net"]).ok();
        assert_eq!(Path::new(host.stdout.trim()), namespace);
        // Our own container joins it.
        let ours = world
            .strake(["run", "--rm", "--network", &format!("container:{runtime}"), "localhost/busybox", "ip", "-4", "addr", "show", "eth0"])
            .ok();
        assert_eq!(ours.stdout, own);
    }
}

#[test]
fn mounts_are_as_on_our_own_runtime_and_leave_nothing() {
    let Some(world) = world_with_runtimes() else { return };
    std::fs::create_dir_all(world.path("dir/below")).unwrap();
    std::fs::write(world.path("dir/file"), "of the host").unwrap();
    let bind = format!("{}:/deep/bind:ro", world.path("dir").display());
    let single = format!("{}:/deep/single", world.path("dir/file").display());
    for runtime in ["strake", "runc", "crun"] {
        let flags = ["--name", runtime, "-v", &bind, "-v", &single, "-v", "data:/data", "--tmpfs", "/scratch:size=1m,mode=1770"];
        let flags = [&flags[..], &["--mount", "type=image,source=localhost/busybox,target=/image"]].concat();
        let script = "cat /deep/bind/file /deep/single; touch /deep/bind/x 2>/dev/null || echo sealed; echo more >> /data/file; wc -l < /data/file; \
                      stat -c %a /scratch; touch /scratch/x; test -x /image/bin/busybox && echo image; touch /image/x 2>/dev/null || echo sealed; \
                      mknod /data/null c 1 3; (echo x > /data/null) 2>/dev/null || echo nodev; rm -f /data/null; echo w > /written";
        let done = run(&world, runtime, &flags, &["sh", "-c", script]).ok();
        let count = ["strake", "runc", "crun"].iter().position(|known| *known == runtime).unwrap() + 1;
        assert_eq!(done.stdout, format!("of the hostof the hostsealed\n{count}\n1770\nimage\nsealed\nnodev\n"), "{runtime}: {done}");
        assert_eq!(world.strake(["diff", runtime]).ok().stdout, "A /written\n", "{runtime}");
    }
    for runtime in BOTH {
        let done =
            run(&world, runtime, &["--rm", "--read-only"], &["sh", "-c", "touch /x || echo sealed; touch /dev/shm/x && echo open"]).ok();
        assert_eq!(done.stdout, "sealed\nopen\n");
        let device = ["--rm", "--device", "/dev/zero:/dev/nought"];
        let done = run(
            &world,
            runtime,
            &device,
            &["sh", "-c", "head -c 3 /dev/nought | wc -c; mknod /dev/kmsg2 c 1 11 && cat /dev/kmsg2 2>/dev/null || echo refused"],
        )
        .ok();
        assert_eq!(done.stdout, "3\nrefused\n");
        let done = run(
            &world,
            runtime,
            &["--rm", "--privileged"],
            &["sh", "-c", "grep Seccomp: /proc/self/status; test -w /sys && mount -t tmpfs none /tmp && echo all"],
        )
        .ok();
        assert_eq!(done.stdout, "Seccomp:\t0\nall\n");
    }
}

#[test]
fn limits_hold_and_a_death_for_want_of_memory_is_told() {
    let Some(world) = world_with_runtimes() else { return };
    for runtime in BOTH {
        let done =
            run(&world, runtime, &["--name", runtime, "--memory", "24m", "--memory-swap", "24m"], &["sh", "-c", "tail /dev/zero"]).run();
        assert_eq!(done.code, 137, "{done}");
        assert_eq!(shown(&world, "{{.State.OOMKilled}} {{.State.ExitCode}}", runtime), "true 137");
        let done =
            run(&world, runtime, &["--rm", "--pids-limit", "5"], &["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; wait"]).run();
        done.says(&["fork"]);
    }
}

#[test]
fn health_restarts_and_removal_work_on_other_runtimes() {
    let Some(world) = world_with_runtimes() else { return };
    for runtime in BOTH {
        let check = ["--health-cmd", "test -e /well", "--health-interval", "200ms", "--health-retries", "2", "--health-timeout", "20s"];
        let flags = [&["-d", "--name", runtime][..], &check].concat();
        run(&world, runtime, &flags, &["sleep", "1000"]).ok();
        wait_for("a failure", 30, || shown(&world, "{{.State.Health.Status}}", runtime) == "unhealthy");
        world.strake(["exec", runtime, "touch", "/well"]).ok();
        wait_for("health", 30, || shown(&world, "{{.State.Health.Status}}", runtime) == "healthy");
        world.strake(["rm", "-f", runtime]).ok();
        run(&world, runtime, &["-d", "--name", runtime, "--restart", "on-failure:2"], &["sh", "-c", "echo run; exit 4"]).ok();
        assert_eq!(world.strake(["wait", runtime]).ok().stdout, "4\n");
        assert_eq!(world.strake(["logs", runtime]).ok().stdout, "run\n".repeat(3));
        let id = run(&world, runtime, &["-d", "--rm"], &["sleep", "1000"]).ok().stdout.trim().to_owned();
        world.strake(["kill", &id]).ok();
        wait_for("the removal", 20, || !world.root().join("containers").join(&id).exists());
        assert_eq!(groups(&id), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_killed_supervisor_takes_the_container_along_and_nothing_is_left() {
    let Some(world) = world_with_runtimes() else { return };
    for runtime in BOTH {
        let id = run(&world, runtime, &["-d", "--name", runtime], &["sleep", "1000"]).ok().stdout.trim().to_owned();
        let pid = shown(&world, "{{.State.Pid}}", runtime);
        let parent = |pid: &str| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned()
        };
        let supervisor: i32 = parent(&parent(&pid)).parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_for("the end of the container", 20, || !Path::new("/proc").join(&pid).exists());
        assert_eq!(shown(&world, "{{.State.Status}} {{.State.ExitCode}}", runtime), "exited 137");
        world.strake(["start", runtime]).ok();
        assert_eq!(world.strake(["exec", runtime, "echo", "again"]).ok().stdout, "again\n");
        let again: i32 = parent(&parent(&shown(&world, "{{.State.Pid}}", runtime))).parse().unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(again), nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_for("its end", 20, || shown(&world, "{{.State.Status}}", runtime) == "exited");
        world.strake(["rm", runtime]).ok();
        assert_eq!(groups(&id), Vec::<PathBuf>::new());
        assert!(!world.root().join("containers").join(&id).exists());
    }
    wait_for("the end of all processes", 20, || processes(&world.root()).is_empty());
}

#[test]
fn what_a_runtime_says_of_its_failure_is_the_failures_reason() {
    let Some(world) = world_with_runtimes() else { return };
    let refused = |runtime: &str, flags: &[&str], said: &[&str]| {
        let done = run(&world, runtime, &[&["--rm"], flags].concat(), &["true"]).fails();
        assert_eq!(done.code, 125, "{done}");
        done.says(said);
    };
    refused("no-such-runtime", &[], &["`no-such-runtime`", "PATH"]);
    refused("/no/such/runtime", &[], &["`/no/such/runtime`", "does not exist"]);
    std::fs::write(world.path("data"), "").unwrap();
    refused(world.path("data").to_str().unwrap(), &[], &["is not executable"]);
    let failing = script(&world, "failing", "echo the dog ate it >&2; exit 3");
    refused(&failing, &[], &[&failing, "create", "the dog ate it"]);
    refused(&failing, &["-t"], &["the dog ate it"]);
    refused(&script(&world, "silent", "exit 3"), &[], &["silent", "exit status: 3"]);
    refused(&script(&world, "idle", "exit 0"), &[], &["idle", "--pid-file"]);
    refused(&script(&world, "idle", "exit 0"), &["-t"], &["--console-socket"]);
    let spoiling = "for word in \"$@\"; do [ \"$last\" = --bundle ] && echo '{' > $word/config.json; last=$word; done\nexec runc \"$@\"";
    refused(&script(&world, "spoiling", spoiling), &[], &["spoiling", "runc create failed"]);
    // What cannot be is said before there is a container.
    refused("runc", &["--pid", "host"], &["`runc`", "--pid"]);
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
    // A runtime that is gone by the time of the start.
    let gone = script(&world, "gone", "exec runc \"$@\"");
    world.strake(["create", "--runtime", &gone, "--name", "c", "localhost/busybox", "true"]).ok();
    std::fs::remove_file(&gone).unwrap();
    let done = world.strake(["start", "c"]).fails();
    done.says(&[&gone, "No such file"]);
    assert!(shown(&world, "{{.State.Error}}", "c").contains(&gone));
}

#[test]
fn an_init_reaps_and_passes_signals_on() {
    let Some(world) = world_with_runtimes() else { return };
    let look = "cat /proc/1/comm; [ $$ != 1 ] && echo second; echo $A; (sleep 0.1 & exec true); sleep 0.5; grep -l 'State:.Z' /proc/[0-9]*/status; echo end";
    for runtime in BOTH {
        let done = run(&world, runtime, &["--rm", "--init", "-e", "A=b c", "-e", "STRAKE_COMPLETE=bash"], &["sh", "-c", look]).ok();
        assert_eq!(done.stdout, "strake-init\nsecond\nb c\nend\n", "{runtime}");
        let codes = |command: &[&str]| run(&world, runtime, &["--rm", "--init", "-u", "nobody"], command).run().code;
        assert_eq!((codes(&["sh", "-c", "exit 7"]), codes(&["nope"]), codes(&["/etc"])), (7, 127, 126), "{runtime}");
        run(&world, runtime, &["-d", "--name", runtime, "--init"], &["sh", "-c", "trap 'exit 9' USR1; while :; do sleep 0.1; done"]).ok();
        wait_for("the trap", 20, || world.strake(["top", runtime]).ok().stdout.contains("sleep 0.1"));
        world.strake(["kill", "-s", "USR1", runtime]).ok();
        assert_eq!(world.strake(["wait", runtime]).ok().stdout, "9\n", "{runtime}");
        // Nothing of it is in the container's files, nor in what is shown of its command.
        assert_eq!(world.strake(["diff", runtime]).ok().stdout, "", "{runtime}");
        assert_eq!(shown(&world, "{{.Path}} {{.HostConfig.Init}}", runtime), "sh true");
        world.strake(["rm", runtime]).ok();
        let mut terminal = Terminal::start(
            run(&world, runtime, &["--rm", "-it", "--init"], &["sh", "-c", "trap 'echo once' INT; (echo ready; exec cat); exit 3"]),
            24,
            80,
        );
        terminal.expect("ready");
        terminal.type_in([3]);
        terminal.expect("once");
        assert_eq!(terminal.end().code(), Some(3), "{runtime}");
    }
}
