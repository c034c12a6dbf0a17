//! `strake run` and what follows it: statuses, streams, terminals, signals, lifecycle.

use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use crate::common::terminal::Terminal;
use crate::common::{Done, World, wait_for, world};

/// `strake run --rm localhost/busybox …`
fn run(world: &World, args: &[&str]) -> Done {
    world.strake(["run", "--rm", "localhost/busybox"].iter().chain(args)).run()
}

#[test]
fn the_status_is_that_of_the_command() {
    let Some(world) = world() else { return };
    for code in [0, 1, 42, 200] {
        assert_eq!(run(&world, &["sh", "-c", &format!("exit {code}")]).code, code);
    }
    assert_eq!(run(&world, &["sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).code, 137);
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn own_failures_have_the_statuses_125_126_and_127() {
    let Some(world) = world() else { return };
    let missing = run(&world, &["/no/such/program"]);
    assert_eq!(missing.code, 127, "{missing}");
    missing.says(&["/no/such/program"]);
    let forbidden = run(&world, &["/etc/passwd"]);
    assert_eq!(forbidden.code, 126, "{forbidden}");
    let option = world.strake(["run", "--no-such-option", "localhost/busybox"]).run();
    assert_eq!(option.code, 125, "{option}");
    let image = world.strake(["run", "--rm", "127.0.0.1:1/none"]).run();
    assert_eq!(image.code, 125, "{image}");
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn streams_are_kept_apart_and_input_ends() {
    let Some(world) = world() else { return };
    let done = run(&world, &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", "err\n"));
    let done = world.strake(["run", "--rm", "-i", "localhost/busybox", "sh", "-c", "cat; echo end"]).stdin("line\n").ok();
    assert_eq!(done.stdout, "line\nend\n");
    // Without -i there is no input, even where there would be some.
    let done = world.strake(["run", "--rm", "localhost/busybox", "cat"]).stdin("line\n").ok();
    assert_eq!(done.stdout, "");
    let big = vec![b'x'; 5 << 20];
    let done = world.strake(["run", "--rm", "-i", "localhost/busybox", "wc", "-c"]).stdin(big).ok();
    assert_eq!(done.stdout.trim(), (5 << 20).to_string());
}

#[test]
fn settings_of_the_image_hold_and_flags_win() {
    let Some(world) = world() else { return };
    let text = "FROM localhost/busybox\nENV A=image B=image\nWORKDIR /job\nUSER nobody\nENTRYPOINT [\"sh\", \"-c\"]\nCMD [\"echo $A $B $(pwd) $(id -u)\"]\n";
    world.build(text, &["-t", "localhost/settings"]).ok();
    assert_eq!(world.strake(["run", "--rm", "localhost/settings"]).ok().stdout, "image image /job 65534\n");
    let flags = ["run", "--rm", "-e", "B=flag", "-w", "/tmp", "-u", "1:2", "localhost/settings", "echo $A $B $(pwd) $(id -u) $(id -g)"];
    assert_eq!(world.strake(flags).ok().stdout, "image flag /tmp 1 2\n");
    assert_eq!(world.strake(["run", "--rm", "--entrypoint", "echo", "localhost/settings", "x"]).ok().stdout, "x\n");
}

#[test]
fn a_terminal_is_one_inside_too() {
    let Some(world) = world() else { return };
    let mut terminal = Terminal::start(world.strake(["run", "--rm", "-it", "localhost/busybox", "sh"]), 33, 77);
    terminal.expect("#");
    terminal.type_in("test -t 0 && test -t 1 && echo is-a-$((1+1))-tty; stty size\n");
    terminal.expect("is-a-2-tty");
    terminal.expect("33 77");
    terminal.type_in("sh -c 'echo slee$((1))ps; exec sleep 1000'\n");
    terminal.expect("slee1ps");
    terminal.type_in([3]);
    terminal.type_in("echo after-$((2+2))\n");
    terminal.expect("after-4");
    terminal.type_in("exit 7\n");
    assert_eq!(terminal.end().code(), Some(7));
}

#[test]
fn a_signal_to_the_command_reaches_the_container() {
    let Some(world) = world() else { return };
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let mut run = world.strake(["run", "--rm", "localhost/busybox", "sh", "-c", script]);
    let mut child = run.command().stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()), nix::sys::signal::Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "caught\n");
    assert_eq!(child.wait().unwrap().code(), Some(9));
}

#[test]
fn a_container_in_the_background_is_listed_read_stopped_and_removed() {
    let Some(world) = world() else { return };
    let script = "echo started; trap 'echo stopping; exit 3' TERM; while :; do sleep 0.1; done";
    let id = world.strake(["run", "-d", "--name", "bg", "localhost/busybox", "sh", "-c", script]).ok().stdout;
    let id = id.trim();
    assert_eq!(id.len(), 64);
    wait_for("its first line", 10, || world.strake(["logs", "bg"]).ok().stdout == "started\n");
    let ps = world.strake(["ps"]).ok();
    assert!(ps.stdout.contains(&id[..12]) && ps.stdout.contains("bg") && ps.stdout.contains("Up"), "{ps}");
    world.strake(["rm", "bg"]).fails().says(&["bg"]);
    world.strake(["run", "--name", "bg", "localhost/busybox", "true"]).fails().says(&["bg"]);
    let stopped = world.strake(["stop", &id[..12]]).ok();
    assert!(stopped.elapsed < Duration::from_secs(9), "{stopped}");
    assert_eq!(world.strake(["logs", "bg"]).ok().stdout, "started\nstopping\n");
    assert_eq!(world.strake(["ps", "-q"]).ok().stdout, "");
    let all = world.strake(["ps", "-a"]).ok();
    assert!(all.stdout.contains("Exited (3)"), "{all}");
    world.strake(["rm", "bg"]).ok();
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
    world.strake(["logs", "bg"]).fails().says(&["bg"]);
}

#[test]
fn a_container_that_ignores_signals_is_killed_in_the_end() {
    let Some(world) = world() else { return };
    world.strake(["run", "-d", "--name", "deaf", "localhost/busybox", "sh", "-c", "trap '' TERM; while :; do sleep 0.2; done"]).ok();
    let stopped = world.strake(["stop", "-t", "1", "deaf"]).ok();
    assert!(stopped.elapsed < Duration::from_secs(9), "{stopped}");
    assert!(world.strake(["ps", "-a"]).ok().stdout.contains("Exited (137)"));
}

#[test]
fn a_removed_container_leaves_nothing() {
    let Some(world) = world() else { return };
    run(&world, &["true"]);
    let containers = || std::fs::read_dir(world.root().join("containers")).map_or(0, Iterator::count);
    let mounts = || {
        std::fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .filter(|line| line.contains(world.root().to_str().unwrap()))
            .count()
    };
    assert_eq!((containers(), mounts()), (0, 0));
    run(&world, &["sh", "-c", "echo x > /file; mkdir /d; exit 5"]);
    assert_eq!((containers(), mounts()), (0, 0));
    // And what one container writes, the next does not see.
    assert_eq!(run(&world, &["test", "-e", "/file"]).code, 1);
}

#[test]
fn a_container_that_removes_itself_can_be_stopped() {
    let Some(world) = world() else { return };
    for round in 0..6 {
        let name = format!("c{round}");
        world.strake(["run", "-d", "--rm", "--network", "none", "--name", &name, "localhost/busybox", "sleep", "1000"]).ok();
        assert_eq!(world.strake(["stop", "-t", "0", &name]).ok().stdout, format!("{name}\n"));
    }
    wait_for("the last one to be gone", 20, || world.strake(["ps", "-aq"]).ok().stdout.is_empty());
}

#[test]
fn the_network_is_none_or_the_hosts() {
    let Some(world) = world() else { return };
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    let netns =
        |mode: &str| world.strake(["run", "--rm", "--network", mode, "localhost/busybox", "readlink", "/proc/self/ns/net"]).ok().stdout;
    assert_eq!(netns("host").trim(), own.to_str().unwrap());
    assert_ne!(netns("none").trim(), own.to_str().unwrap());
    let links = world.strake(["run", "--rm", "--network", "none", "localhost/busybox", "grep", "-c", ":", "/proc/net/dev"]).ok().stdout;
    assert_eq!(links, "1\n", "only the loopback link");
}

#[test]
fn volumes_and_directories_are_mounted() {
    let Some(world) = world() else { return };
    let dir = world.path("shared");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("in"), "from outside").unwrap();
    let spec = format!("{}:/mnt/s", dir.display());
    assert_eq!(
        world.strake(["run", "--rm", "-v", &spec, "localhost/busybox", "sh", "-c", "cat /mnt/s/in; echo x > /mnt/s/out"]).ok().stdout,
        "from outside"
    );
    assert_eq!(std::fs::read(dir.join("out")).unwrap(), b"x\n");
    world.strake(["run", "--rm", "-v", &format!("{spec}:ro"), "localhost/busybox", "touch", "/mnt/s/no"]).fails();
    world.strake(["run", "--rm", "-v", "data:/d", "localhost/busybox", "sh", "-c", "echo kept > /d/f"]).ok();
    assert_eq!(world.strake(["run", "--rm", "-v", "data:/d", "localhost/busybox", "cat", "/d/f"]).ok().stdout, "kept\n");
}

#[test]
fn a_container_outlives_the_command_that_started_it_and_a_killed_command_leaves_a_store_that_works() {
    let Some(world) = world() else { return };
    let mut child = world.strake(["run", "--name", "orphan", "localhost/busybox", "sleep", "1000"]).start();
    wait_for("the container", 10, || world.strake(["ps"]).ok().stdout.contains("orphan"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(run(&world, &["true"]).code, 0);
    assert!(world.strake(["ps"]).ok().stdout.contains("orphan"));
    world.strake(["rm", "-f", "orphan"]).ok();
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
}
