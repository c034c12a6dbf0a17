//! `strake exec`: another command in a running container is in all of its world, and in no more than that.

use std::process::Stdio;

use crate::common::terminal::Terminal;
use crate::common::{Done, World, wait_for, world};

/// Starts a container that sleeps, with these flags.
#[track_caller]
fn sleeper(world: &World, name: &str, flags: &[&str]) {
    let mut args = vec!["run", "-d", "--name", name];
    args.extend(flags);
    args.extend(["localhost/busybox", "sleep", "1000"]);
    world.strake(args).ok();
}

fn exec(world: &World, args: &[&str]) -> Done {
    world.strake(std::iter::once(&"exec").chain(args)).run()
}

#[track_caller]
fn said(world: &World, args: &[&str]) -> String {
    let done = exec(world, args);
    assert_eq!(done.code, 0, "{done}");
    done.stdout
}

#[test]
fn a_command_is_in_every_namespace_of_the_container_and_as_confined_as_it() {
    let Some(world) = world() else { return };
    sleeper(&world, "c", &["--hostname", "inside", "--cap-drop", "NET_RAW", "-e", "SET=container"]);
    let facts = "for n in mnt pid net ipc uts cgroup user; do readlink /proc/self/ns/$n; done; grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; hostname; echo $SET";
    let first = "cat /proc/1/status | grep -E '^(Cap|Seccomp:|NoNewPrivs)'; for n in mnt pid net ipc uts cgroup user; do readlink /proc/1/ns/$n; done";
    let (of_exec, of_first) = (said(&world, &["c", "sh", "-c", facts]), said(&world, &["c", "sh", "-c", first]));
    let (mut one, mut other): (Vec<_>, Vec<_>) = (of_exec.lines().collect(), of_first.lines().collect());
    assert_eq!(one.split_off(one.len() - 2), ["inside", "container"]);
    one.sort_unstable();
    other.sort_unstable();
    assert_eq!(one, other);
    // Its PID 1 is the container's, nothing of the host's is there, and no descriptor leaks in.
    assert_eq!(said(&world, &["c", "cat", "/proc/1/comm"]), "sleep\n");
    assert_eq!(said(&world, &["c", "sh", "-c", "ls /proc/self/fd | wc -l"]).trim(), "4");
    assert_eq!(said(&world, &["c", "sh", "-c", "echo made > /made"]), "");
    assert_eq!(said(&world, &["c", "cat", "/made"]), "made\n");
}

#[test]
fn settings_are_the_containers_unless_flags_say_otherwise() {
    let Some(world) = world() else { return };
    sleeper(&world, "c", &["-w", "/tmp", "-u", "daemon", "-e", "A=1", "-e", "B=1"]);
    assert_eq!(said(&world, &["c", "sh", "-c", "echo $(id -u) $(pwd) $A $B $HOME"]), "1 /tmp 1 1 /usr/sbin\n");
    std::fs::write(world.path("vars"), "# no\nB=file\nC=file\n").unwrap();
    let flags = ["-w", "/etc", "-u", "root", "-e", "A=2", "-e", "C=flag", "--env-file", "vars", "c", "sh", "-c"];
    assert_eq!(said(&world, &[&flags[..], &["echo $(id -u) $(pwd) $A $B $C $HOME"]].concat()), "0 /etc 2 file flag /root\n");
    assert_eq!(said(&world, &["-u", "7:8", "c", "sh", "-c", "echo $(id -u):$(id -g) $(id -G)"]), "7:8 8\n");
    assert_eq!(said(&world, &["--privileged", "-u", "0", "c", "grep", "-cE", "CapEff:.*ffffff|Seccomp:.*0", "/proc/self/status"]), "2\n");
}

#[test]
fn statuses_are_those_of_the_command_and_of_docker() {
    let Some(world) = world() else { return };
    sleeper(&world, "c", &[]);
    for code in [0, 3, 125] {
        assert_eq!(exec(&world, &["c", "sh", "-c", &format!("exit {code}")]).code, code);
    }
    assert_eq!(exec(&world, &["c", "sh", "-c", "kill -9 $$"]).code, 137);
    assert_eq!(exec(&world, &["c", "/no/such"]).code, 127);
    assert_eq!(exec(&world, &["c", "/etc/passwd"]).code, 126);
    assert_eq!(exec(&world, &["-u", "nobody-there", "c", "true"]).code, 126);
    assert_eq!(exec(&world, &["--no-such-flag", "c", "true"]).code, 125);
    let missing = exec(&world, &["not-there", "true"]);
    assert_eq!(missing.code, 1, "{missing}");
    missing.says(&["not-there"]);
    world.strake(["stop", "-t", "0", "c"]).ok();
    let stopped = exec(&world, &["c", "true"]);
    assert_eq!(stopped.code, 1, "{stopped}");
    stopped.says(&["`c` is not running", "strake start c"]);
}

#[test]
fn streams_are_binary_apart_and_end() {
    let Some(world) = world() else { return };
    sleeper(&world, "c", &[]);
    let done = exec(&world, &["c", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", "err\n"));
    let every: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    let sum = world.strake(["exec", "-i", "c", "md5sum"]).stdin(every.clone()).ok().stdout;
    std::fs::write(world.path("every"), &every).unwrap();
    let expected = crate::common::Run::new("md5sum", [world.path("every")]).ok().stdout;
    assert_eq!(sum.split(' ').next(), expected.split(' ').next());
    // Without -i there is no input.
    assert_eq!(world.strake(["exec", "c", "cat"]).stdin("line\n").ok().stdout, "");
    let mut run = world.strake(["exec", "c", "head", "-c", "5000000", "/dev/zero"]);
    let output = run.command().stdin(Stdio::null()).stderr(Stdio::inherit()).output().unwrap();
    assert_eq!((output.stdout.len(), output.status.code()), (5_000_000, Some(0)));
}

#[test]
fn a_terminal_has_a_size_that_follows_and_keys_that_leave_it() {
    let Some(world) = world() else { return };
    sleeper(&world, "c", &[]);
    let mut terminal = Terminal::start(world.strake(["exec", "-it", "c", "sh"]), 31, 71);
    let cooked = terminal.settings();
    terminal.expect("#");
    assert_ne!(terminal.settings().local_flags, cooked.local_flags, "it is raw while attached");
    terminal.type_in("tty; stty size; echo $TERM\n");
    terminal.expect("/dev/pts/");
    terminal.expect("31 71");
    terminal.expect("xterm");
    terminal.resize(40, 100);
    terminal.type_in("until stty size | grep '40 100'; do sleep 0.1; done; echo is-$((40+2))\n");
    terminal.expect("is-42");
    // Job control: the key ends what is in the foreground (what is shown says that it is there), not the shell.
    terminal.type_in("sh -c 'echo slee$((1))ps; exec sleep 1000'\n");
    terminal.expect("slee1ps");
    terminal.type_in([3]);
    terminal.type_in("echo after-$((2+2)); sleep 999 & echo left\n");
    terminal.expect("after-4");
    terminal.expect("left");
    terminal.type_in([16, 17]);
    terminal.expect("read escape sequence");
    assert_eq!(terminal.end().code(), Some(1));
    assert_eq!(terminal.settings().local_flags, cooked.local_flags, "it is as it was");
    // The shell runs on, though nobody looks at it.
    assert!(said(&world, &["c", "ps"]).contains("sleep 999"));
    let mut other = Terminal::start(world.strake(["exec", "-it", "--detach-keys", "ctrl-x,x", "c", "sh"]), 24, 80);
    other.expect("#");
    other.type_in([16, 17]);
    other.type_in("echo still-$((3+3))\n");
    other.expect("still-6");
    other.type_in("exit 5\n");
    assert_eq!(other.end().code(), Some(5));
    assert_eq!(other.settings().local_flags, cooked.local_flags);
}

#[test]
fn commands_in_the_background_are_known_and_end_with_the_container() {
    let Some(world) = world() else { return };
    sleeper(&world, "c", &[]);
    assert_eq!(said(&world, &["-d", "c", "sh", "-c", "echo there > /there; exec sleep 900"]), "");
    wait_for("the command", 20, || exec(&world, &["c", "cat", "/there"]).stdout == "there\n");
    let ids = || world.strake(["inspect", "-f", "{{json .ExecIDs}}", "c"]).ok().stdout;
    let count = || serde_json::from_str::<Option<Vec<String>>>(&ids()).unwrap().map_or(0, |ids| ids.len());
    wait_for("the end of those that looked", 20, || count() == 1);
    let waiting = world.strake(["exec", "c", "sleep", "800"]).command().stdin(Stdio::null()).spawn().unwrap();
    let mut waiting = waiting;
    wait_for("the other command", 20, || count() == 2);
    // A client that is killed does not end its command.
    let mut killed = world.strake(["exec", "c", "sh", "-c", "sleep 2; echo done > /done"]).start();
    wait_for("the third command", 20, || count() == 3);
    killed.kill().unwrap();
    killed.wait().unwrap();
    wait_for("its end", 20, || exec(&world, &["c", "cat", "/done"]).stdout == "done\n");
    world.strake(["kill", "c"]).ok();
    assert_eq!(waiting.wait().unwrap().code(), Some(137));
    assert_eq!(world.strake(["wait", "c"]).ok().stdout, "137\n");
    assert_eq!(ids(), "null\n");
    let processes = crate::common::Run::new("ps", ["-eo", "args"]).ok().stdout;
    assert!(!processes.lines().any(|line| line == "sleep 900" || line == "sleep 800"), "{processes}");
}

#[test]
fn limits_of_the_container_hold_for_commands_in_it() {
    let Some(world) = world() else { return };
    if !std::path::Path::new("/sys/fs/cgroup/pids").is_dir() && !std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        return;
    }
    sleeper(&world, "c", &["--pids-limit", "4"]);
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 30 & done; wait";
    let done = exec(&world, &["c", "sh", "-c", script]);
    done.says(&["fork"]);
    // A container that has as many as it may have can be entered all the same, as with runc.
    for (name, flags) in [("plain", &[][..]), ("tracing", &["--cap-add", "SYS_PTRACE"])] {
        let fill = "sleep 1000 & sleep 1000 & wait";
        let run = ["run", "-d", "--name", name, "--pids-limit", "3", "--user", "nobody"];
        world.strake([&run[..], flags, &["localhost/busybox", "sh", "-c", fill]].concat()).ok();
        wait_for("the processes", 20, || world.strake(["top", name, "-o", "args"]).ok().stdout.matches("sleep 1000\n").count() == 2);
        let several: Vec<_> = (0..4).map(|_| world.strake(["exec", "-u", "0", name, "echo", "in"]).start()).collect();
        for mut one in several {
            assert!(one.wait().unwrap().success(), "{name}");
        }
        let pid = world.strake(["inspect", "-f", "{{.State.Pid}}", name]).ok().stdout;
        let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
        let path = |before: &str| groups.lines().find_map(|line| line.split_once(before)).map(|(_, path)| path.to_owned());
        let group = path(":pids:").map(|path| format!("/sys/fs/cgroup/pids{path}"));
        let group = group.or_else(|| path("0::").map(|path| format!("/sys/fs/cgroup{path}"))).unwrap();
        assert_eq!(std::fs::read_to_string(format!("{group}/pids.max")).unwrap(), "3\n", "{name}");
        exec(&world, &[name, "sh", "-c", "sleep 1 & wait"]).says(&["fork"]);
    }
}

/// Docker's `SetInterspersed(false)`: what follows the image, or the container's name, is none of our flags.
#[test]
fn words_behind_the_image_belong_to_the_command_whatever_they_look_like() {
    let Some(world) = world() else { return };
    let said = |args: &[&str]| world.strake(args).ok().stdout;
    assert_eq!(said(&["run", "--rm", "--entrypoint", "echo", "localhost/busybox", "-p", "A", "-v", "x:/y"]), "-p A -v x:/y\n");
    assert_eq!(said(&["run", "--rm", "--entrypoint", "sh", "localhost/busybox", "-c", "echo $0", "--rm=false"]), "--rm=false\n");
    assert_eq!(said(&["volume", "ls", "-q"]), "");
    world.strake(["create", "--name", "made", "--entrypoint", "echo", "localhost/busybox", "--rm", "--help"]).ok();
    assert_eq!(said(&["start", "-a", "made"]), "--rm --help\n");
    world.strake(["run", "-d", "--name", "runs", "localhost/busybox", "sleep", "60"]).ok();
    let done = world.strake(["exec", "-e", "A=1", "runs", "-e", "B=2"]).run();
    assert_eq!(done.code, 127, "{done}");
    assert!(said(&["top", "runs", "-o", "pid,args"]).contains("sleep 60"));
    world.strake(["rm", "-f", "runs", "made"]).ok();
}

/// A health check that cannot be executed would fill the container's process table.
#[test]
fn a_command_that_cannot_be_executed_leaves_no_process() {
    let Some(world) = world() else { return };
    for (name, flags) in [("plain", &[][..]), ("tracing", &["--cap-add", "SYS_PTRACE"])] {
        world.strake([&["run", "-d", "--name", name][..], flags, &["localhost/busybox", "sleep", "1000"]].concat()).ok();
        for _ in 0..3 {
            assert_eq!(world.strake(["exec", name, "/nothing"]).run().code, 127);
        }
        let processes = world.strake(["exec", name, "ps", "-o", "stat,comm"]).ok().stdout;
        assert!(!processes.contains('Z'), "{name}: {processes}");
    }
}
