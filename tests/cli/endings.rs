//! What is asked of containers while they end, are removed, are started by somebody else, or stand still.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Done, World, processes, wait_for, world};

/// Starts a container in the background that removes itself when it has ended.
#[track_caller]
fn passing(world: &World, name: &str, script: &str) {
    world.strake(["run", "-d", "--rm", "--network", "none", "--name", name, "localhost/busybox", "sh", "-c", script]).ok();
}

#[track_caller]
fn state(world: &World, name: &str) -> String {
    world.strake(["inspect", "-f", "{{.State.Status}}", name]).ok().stdout.trim_end().to_owned()
}

/// A command that runs beside the test.
fn beside(world: &World, args: &[&str]) -> Child {
    let mut run = world.strake(args);
    run.command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// How such a command ended.
fn ended(child: Child) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// That a message names no file of the store.
#[track_caller]
fn names_no_file(done: &Done, world: &World) {
    assert!(!done.stderr.contains(world.root().to_str().unwrap()), "{done}");
}

/// Whether the machine can make containers stand still.
fn paused(world: &World, name: &str) -> bool {
    let done = world.strake(["pause", name]).run();
    assert!(done.code == 0 || done.stderr.contains("freezer"), "{done}");
    done.code == 0
}

#[test]
fn who_waits_for_a_container_that_removes_itself_gets_its_exit_code() {
    let Some(world) = world() else { return };
    for code in 3..7 {
        let name = format!("n{code}");
        passing(&world, &name, &format!("while [ ! -e /go ]; do sleep 0.05; done; exit {code}"));
        let waiters: Vec<Child> = (0..3).map(|_| beside(&world, &["wait", &name])).collect();
        wait_for("the waiters", 60, || waiters.iter().all(|waiter| waits_for_a_lock(waiter.id())));
        world.strake(["exec", &name, "touch", "/go"]).ok();
        for waiter in waiters {
            assert_eq!(ended(waiter), (Some(0), format!("{code}\n"), String::new()));
        }
    }
    wait_for("the last one to be gone", 20, || world.strake(["ps", "-aq"]).ok().stdout.is_empty());
    let late = world.strake(["wait", "n3"]).fails();
    late.says(&["no such container", "`n3`"]);
}

/// Whether a process waits for a lock, as the kernel tells it.
fn waits_for_a_lock(pid: u32) -> bool {
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains("->") && line.split_whitespace().any(|word| word == pid.to_string()))
}

#[test]
fn a_container_that_removes_itself_can_be_removed_by_many_at_once() {
    let Some(world) = world() else { return };
    for round in 0..4 {
        let name = format!("n{round}");
        passing(&world, &name, "trap 'exit 0' TERM; echo ready; while :; do sleep 0.05; done");
        let follower = beside(&world, &["logs", "-f", &name]);
        let stopper = beside(&world, &["kill", "-s", "TERM", &name]);
        let removers: Vec<Child> = (0..3).map(|_| beside(&world, &["rm", "-f", &name])).collect();
        for remover in removers {
            let (code, _, stderr) = ended(remover);
            assert_eq!((code, stderr.as_str()), (Some(0), ""));
        }
        let (code, _, stderr) = ended(follower);
        // It may have come when nothing was left.
        assert!(code == Some(0) || stderr.contains("no such container"), "{stderr}");
        ended(stopper);
        assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
    }
}

#[test]
fn the_log_of_a_container_can_be_followed_until_that_is_removed() {
    let Some(world) = world() else { return };
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sh", "-c", "echo ready; exec sleep 1000"]).ok();
    let mut follower = beside(&world, &["logs", "-f", "c"]);
    let mut first = [0; 6];
    follower.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"ready\n");
    world.strake(["rm", "-f", "c"]).ok();
    assert_eq!(ended(follower), (Some(0), String::new(), String::new()));
}

#[test]
fn a_container_that_removes_itself_is_restarted_and_still_removes_itself() {
    let Some(world) = world() else { return };
    passing(&world, "c", "echo run; trap 'exit 0' TERM; while :; do sleep 0.05; done");
    wait_for("the first line", 20, || world.strake(["logs", "c"]).ok().stdout == "run\n");
    assert_eq!(world.strake(["restart", "c"]).ok().stdout, "c\n");
    wait_for("the second line", 20, || world.strake(["logs", "c"]).ok().stdout == "run\nrun\n");
    world.strake(["stop", "c"]).ok();
    wait_for("it to be gone", 20, || world.strake(["ps", "-aq"]).ok().stdout.is_empty());
}

#[test]
fn the_files_of_a_container_that_removes_itself_go_even_if_nobody_waits_for_it() {
    let Some(world) = world() else { return };
    let left = || {
        let entries = |dir: &str| std::fs::read_dir(world.root().join(dir)).unwrap().count();
        entries("containers") + entries("trash")
    };
    assert_eq!(
        world.strake(["run", "--rm", "localhost/busybox", "sh", "-c", "mkdir -p /a/b && echo x >/a/b/c && echo y"]).ok().stdout,
        "y\n"
    );
    wait_for("the files", 20, || left() == 0);
    // Whoever waited for it is killed while it runs.
    let mut starter = beside(&world, &["run", "--rm", "--name", "c", "localhost/busybox", "sh", "-c", "echo up; sleep 1; touch /x"]);
    let mut first = [0; 3];
    starter.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    starter.kill().unwrap();
    starter.wait().unwrap();
    wait_for("the other's files", 20, || left() == 0);
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn an_interrupt_leaves_nothing_of_a_container_whenever_it_comes() {
    let Some(world) = world() else { return };
    // The store's first container tries out what this machine can mount; an interrupt of that leaves files for `prune`, but none of a container.
    world.strake(["run", "--rm", "--network", "none", "localhost/busybox", "true"]).ok();
    for delay in 0..40 {
        let mut run = world.strake(["run", "--rm", "--network", "none", "localhost/busybox", "sleep", "0.2"]).start();
        std::thread::sleep(std::time::Duration::from_micros(delay * 700));
        kill(Pid::from_raw(run.id().cast_signed()), Signal::SIGINT).unwrap();
        run.wait().unwrap();
    }
    let left = || ["containers", "trash"].map(|dir| std::fs::read_dir(world.root().join(dir)).unwrap().count());
    wait_for("all to be gone", 20, || world.strake(["ps", "-aq"]).ok().stdout.is_empty() && left() == [0, 0]);
}

#[test]
fn a_store_by_a_relative_path_is_the_same_for_the_process_of_a_container() {
    let Some(world) = world() else { return };
    let root = world.root();
    let (above, name) = (root.parent().unwrap(), root.file_name().unwrap().to_str().unwrap());
    let left = || ["containers", "trash"].map(|dir| std::fs::read_dir(root.join(dir)).unwrap().count());
    for detach in [&[][..], &["-d"]] {
        let args = [&["run", "--rm", "--network", "none"][..], detach, &["localhost/busybox", "true"]].concat();
        world.strake(&args).env("STRAKE_ROOT", name).dir(above).ok();
        wait_for("the files", 20, || left() == [0, 0]);
        assert!(!Path::new("/").join(name).exists());
    }
}

/// The process that serves the running container `name`.
fn supervisor_of(world: &World, name: &str) -> Pid {
    let pid = world.strake(["inspect", "-f", "{{.State.Pid}}", name]).ok().stdout;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
    Pid::from_raw(stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap())
}

/// What the end of a login session sends to all processes; a unit that is stopped, or the end of the machine, sends the first of them.
fn end_supervisor(world: &World, name: &str) {
    let supervisor = supervisor_of(world, name);
    kill(supervisor, Signal::SIGTERM).unwrap();
    // It may have ended by then.
    let _ = kill(supervisor, Signal::SIGHUP);
}

const TIDIES_UP: &str = "trap 'echo asked; sleep 1; echo tidy; exit 7' TERM; echo up; while :; do sleep 0.05; done";

#[test]
fn a_container_ends_in_order_with_its_supervisor_and_is_resumed() {
    let Some(world) = world() else { return };
    let code = |name: &str| world.strake(["inspect", "-f", "{{.State.ExitCode}}", name]).ok().stdout;
    let logs = |name: &str| world.strake(["logs", name]).ok().stdout;
    for (name, policy) in [("once", "no"), ("again", "always"), ("unless", "unless-stopped")] {
        world.strake(["run", "-d", "--name", name, "--restart", policy, "localhost/busybox", "sh", "-c", TIDIES_UP]).ok();
        wait_for("its script", 20, || logs(name) == "up\n");
    }
    world.strake(["pause", "unless"]).ok();
    for name in ["once", "again", "unless"] {
        end_supervisor(&world, name);
    }
    for name in ["once", "again", "unless"] {
        wait_for("its end", 20, || state(&world, name) == "exited");
        assert_eq!(code(name), "7\n", "{name}");
        assert_eq!(logs(name), "up\nasked\ntidy\n", "{name}");
    }
    // As after a boot.
    world.strake(["start", "--resume"]).ok();
    assert_eq!(["once", "again", "unless"].map(|name| state(&world, name)), ["exited", "running", "running"]);
    world.strake(["rm", "-f", "again", "unless"]).ok();
}

#[test]
fn a_container_that_does_not_end_with_its_supervisor_is_killed() {
    let Some(world) = world() else { return };
    let script = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    world.strake(["run", "-d", "--name", "c", "--stop-timeout", "1", "localhost/busybox", "sh", "-c", script]).ok();
    wait_for("its script", 20, || world.strake(["logs", "c"]).ok().stdout == "up\n");
    end_supervisor(&world, "c");
    assert_eq!(world.strake(["wait", "c"]).ok().stdout, "137\n");
    // One that waits to be started again is not.
    world.strake(["run", "-d", "--name", "failing", "--restart", "always", "localhost/busybox", "sh", "-c", "sleep 0.3; exit 3"]).ok();
    let supervisor = supervisor_of(&world, "failing");
    wait_for("a restart", 20, || state(&world, "failing") == "restarting");
    kill(supervisor, Signal::SIGTERM).unwrap();
    wait_for("its end", 20, || state(&world, "failing") == "exited");
    wait_for("the end of its supervisor", 20, || !Path::new(&format!("/proc/{supervisor}")).exists());
}

#[test]
fn a_container_in_the_foreground_of_a_unit_that_is_stopped_is_asked_once() {
    let Some(world) = world() else { return };
    let script = "trap 'echo asked' TERM; echo up; for i in $(seq 30); do sleep 0.05; done; exit 5";
    let mut run = beside(&world, &["run", "--rm", "--name", "c", "localhost/busybox", "sh", "-c", script]);
    let mut first = [0; 3];
    run.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let supervisor = supervisor_of(&world, "c");
    for process in [Pid::from_raw(run.id().cast_signed()), supervisor] {
        kill(process, Signal::SIGTERM).unwrap();
    }
    assert_eq!(ended(run), (Some(5), "asked\n".to_owned(), String::new()));
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn the_files_go_as_well_where_the_process_of_the_container_was_killed() {
    let Some(world) = world() else { return };
    let mut starter = beside(&world, &["run", "--rm", "--name", "c", "localhost/busybox", "sh", "-c", "echo up; exec sleep 600"]);
    let mut first = [0; 3];
    starter.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    kill(supervisor_of(&world, "c"), Signal::SIGKILL).unwrap();
    assert_eq!(ended(starter).0, Some(137));
    for dir in ["containers", "trash"] {
        assert_eq!(std::fs::read_dir(world.root().join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[test]
fn a_run_that_makes_no_container_leaves_no_process() {
    let Some(world) = world() else { return };
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sleep", "600"]).ok();
    let supervisors = || processes(&world.root()).iter().filter(|line| line.contains("strake-supervisor")).count();
    assert_eq!(supervisors(), 1);
    for flags in
        [&["--pull", "never", "localhost/missing"][..], &["--name", "c", "localhost/busybox"], &["-u", "nobody-such", "localhost/busybox"]]
    {
        for detach in [&["-d"][..], &[]] {
            assert_eq!(world.strake([&["run"][..], detach, flags].concat()).fails().code, 125, "{flags:?}");
            wait_for(&format!("one process after {flags:?}"), 20, || supervisors() == 1);
        }
    }
    world.strake(["rm", "-f", "c"]).ok();
}

#[test]
fn a_running_container_is_started_already() {
    let Some(world) = world() else { return };
    let script = "while [ ! -e /go ]; do echo tick; sleep 0.05; done; echo late; exit 4";
    world.strake(["create", "--name", "c", "localhost/busybox", "sh", "-c", script]).ok();
    let starters: Vec<Child> = (0..3).map(|_| beside(&world, &["start", "c"])).collect();
    for starter in starters {
        assert_eq!(ended(starter), (Some(0), "c\n".to_owned(), String::new()));
    }
    assert_eq!(world.strake(["start", "c"]).ok().stdout, "c\n");
    assert_eq!(world.strake(["inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "c"]).ok().stdout, "0 running\n");
    let mut attached = beside(&world, &["start", "-a", "c"]);
    let mut first = [0; 5];
    attached.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"tick\n");
    world.strake(["exec", "c", "touch", "/go"]).ok();
    let (code, stdout, _) = ended(attached);
    assert!(code == Some(4) && stdout.ends_with("late\n"), "{code:?} {stdout}");
}

#[test]
fn a_paused_container_is_neither_attached_to_nor_started() {
    let Some(world) = world() else { return };
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sleep", "1000"]).ok();
    if !paused(&world, "c") {
        return;
    }
    for args in [&["attach", "c"][..], &["start", "c"], &["start", "-a", "c"]] {
        let done = world.strake(args).run();
        assert_eq!(done.code, 1, "{done}");
        done.says(&["`c`", "it is paused", "strake unpause c"]);
        names_no_file(&done, &world);
    }
    assert_eq!(state(&world, "c"), "paused");
}

#[test]
fn a_signal_that_is_passed_on_reaches_a_container_that_stands_still() {
    let Some(world) = world() else { return };
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let mut run = beside(&world, &["run", "--name", "c", "localhost/busybox", "sh", "-c", script]);
    let mut first = [0; 6];
    run.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    if paused(&world, "c") {
        let pid = Pid::from_raw(i32::try_from(run.id()).unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        assert_eq!(ended(run).0, Some(9));
    } else {
        world.strake(["kill", "c"]).ok();
        ended(run);
    }
}

#[test]
fn a_command_in_a_container_that_ends_is_told_that_it_does_not_run() {
    let Some(world) = world() else { return };
    world.strake(["create", "--name", "c", "localhost/busybox", "sleep", "0.3"]).ok();
    for _ in 0..3 {
        world.strake(["start", "c"]).ok();
        let done = loop {
            let done = world.strake(["exec", "c", "true"]).run();
            if done.code != 0 {
                break done;
            }
        };
        // A command that had begun is killed with the container.
        if done.code != 137 {
            assert_eq!(done.code, 1, "{done}");
            done.says(&["`c` is not running", "strake start c"]);
            names_no_file(&done, &world);
        }
        world.strake(["wait", "c"]).ok();
    }
}

#[test]
fn a_command_that_cannot_be_where_it_is_to_be_cannot_be_executed() {
    let Some(world) = world() else { return };
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sleep", "1000"]).ok();
    for dir in ["/nosuch", "rel", "/etc/passwd"] {
        let done = world.strake(["exec", "-w", dir, "c", "true"]).run();
        assert_eq!(done.code, 126, "{done}");
        done.says(&[dir]);
    }
    assert_eq!(world.strake(["exec", "-w", "/etc", "c", "pwd"]).ok().stdout, "/etc\n");
}

#[test]
fn a_container_that_is_being_restarted_cannot_be_paused() {
    let Some(world) = world() else { return };
    world.strake(["run", "-d", "--restart", "always", "--name", "c", "localhost/busybox", "false"]).ok();
    for _ in 0..20 {
        let done = world.strake(["pause", "c"]).run();
        if done.code == 0 {
            world.strake(["unpause", "c"]).run();
        } else if !done.stderr.contains("this machine has no freezer") {
            done.says(&["cannot pause the container `c`: it is restarting"]);
            names_no_file(&done, &world);
        }
    }
    wait_for("it to be between two runs", 60, || state(&world, "c") == "restarting");
    world.strake(["restart", "-t", "0", "c"]).ok();
    world.strake(["rm", "-f", "c"]).ok();
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
}

#[test]
fn an_image_that_fails_its_test_gets_no_name() {
    let Some(world) = world() else { return };
    let names = || world.strake(["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().stdout;
    let before = names();
    let text = "FROM localhost/busybox\nRUN echo it > /made\n";
    for more in [&[][..], &["-q"], &["-t", "localhost/second:9"]] {
        let flags: Vec<&str> = ["-t", "localhost/first:9", "--test", "exit 7"].iter().chain(more).copied().collect();
        world.build(text, &flags).fails().says(&["status 7"]);
        let named = |text: &str| text.lines().filter(|line| !line.contains("<none>")).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(named(&names()), named(&before));
    }
    world.build(text, &["-t", "localhost/first:9", "-t", "localhost/second:9", "--test", "test -e /made"]).ok();
    assert!(["localhost/first:9", "localhost/second:9"].iter().all(|name| names().contains(name)), "{}", names());
}

#[test]
fn what_a_killed_command_has_made_of_a_container_that_removes_itself_goes() {
    let Some(world) = world() else { return };
    let killed = |at: &str, command: &[&str]| {
        let done = world.strake(command).env("STRAKE_FAULT", format!("container:{at}:1")).run();
        assert_eq!(done.code, 137, "{at}: {done}");
    };
    let listed = |format: &str| world.strake(["ps", "-a", "--format", format]).ok().stdout;
    // Recorded and no more, all but written down, and made but for its start.
    for at in ["recorded", "prepared", "starting"] {
        for detach in [&[][..], &["-d"]] {
            killed(at, &[&["run", "--rm", "--network", "none", "-v", "/own"][..], detach, &["localhost/busybox", "true"]].concat());
            wait_for(&format!("the end of what was {at}"), 60, || listed("{{.ID}}").is_empty());
        }
    }
    let containers = world.root().join("containers");
    wait_for("the end of their files", 60, || std::fs::read_dir(&containers).unwrap().next().is_none());
    // Others stay until they are removed.
    killed("recorded", &["run", "--network", "none", "--name", "kept", "localhost/busybox", "true"]);
    killed("recorded", &["create", "--rm", "--name", "made", "localhost/busybox", "true"]);
    wait_for("the end of all processes", 60, || processes(&world.root()).is_empty());
    assert_eq!(listed("{{.Names}} {{.State}}"), "made dead\nkept dead\n");
    world.strake(["rm", "kept", "made"]).ok();
    // One that was made to be started later is not the starter's.
    world.strake(["create", "--rm", "--network", "none", "--name", "later", "localhost/busybox", "echo", "late"]).ok();
    killed("starting", &["start", "later"]);
    wait_for("the end of all processes", 60, || processes(&world.root()).is_empty());
    assert_eq!(world.strake(["start", "-a", "later"]).ok().stdout, "late\n");
}
