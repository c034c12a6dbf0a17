//! `-i` and `-t`: a terminal before `strake run` and `attach` behaves as one before the program itself.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};

use crate::common::terminal::Terminal;
use crate::common::{wait_for, world};

#[test]
fn a_container_is_left_and_attached_to_again_with_the_terminal_as_it_was() {
    let Some(world) = world() else { return };
    let mut first = Terminal::start(world.strake(["run", "-it", "--name", "t", "localhost/busybox", "sh"]), 30, 90);
    let cooked = first.settings();
    first.expect("#");
    assert_ne!(first.settings().local_flags, cooked.local_flags);
    first.type_in("export KEPT=kept; echo is-$((1+1))\n");
    first.expect("is-2");
    // A part of the keys is only held back.
    first.type_in([16]);
    first.type_in("\x15echo on-$((2+2))\n");
    first.expect("on-4");
    first.type_in([16, 17]);
    assert!(first.end().success());
    assert_eq!(first.settings().local_flags, cooked.local_flags);
    assert_eq!(world.strake(["inspect", "-f", "{{.State.Status}}", "t"]).ok().stdout, "running\n");
    let mut second = Terminal::start(world.strake(["attach", "t"]), 20, 60);
    let cooked = second.settings();
    second.type_in("echo $KEPT-$((3+3)); stty size\n");
    second.expect("kept-6");
    second.expect("20 60");
    // A signal to the client ends it without leaving the terminal raw.
    kill(nix::unistd::Pid::from_raw(i32::try_from(second.child.id()).unwrap()), Signal::SIGHUP).unwrap();
    assert!(!second.end().success());
    assert_eq!(second.settings().local_flags, cooked.local_flags);
    assert_eq!(world.strake(["inspect", "-f", "{{.State.Status}}", "t"]).ok().stdout, "running\n");
    // Leaving what one has not started is told, and a failure, as with Docker.
    let mut guest = Terminal::start(world.strake(["attach", "--detach-keys", "a,b", "t"]), 20, 60);
    guest.type_in("echo $KEPT-$((4+4))\n");
    guest.expect("kept-8");
    guest.type_in("ab");
    guest.expect("read escape sequence");
    assert_eq!(guest.end().code(), Some(1));
    let sizes =
        ["events", "--until", "0s", "--filter", "event=resize", "--format", "{{.Actor.Attributes.height}}x{{.Actor.Attributes.width}}"];
    assert!(world.strake(sizes).ok().stdout.contains("20x60\n"));
    world.strake(["rm", "-f", "t"]).ok();
    let mut third = Terminal::start(world.strake(["run", "-it", "--rm", "--detach-keys", "ctrl-x", "localhost/busybox", "sh"]), 30, 90);
    third.expect("#");
    third.type_in("exit 7\n");
    assert_eq!(third.end().code(), Some(7));
    assert_eq!(third.settings().local_flags, cooked.local_flags);
}

#[test]
fn run_passes_signals_on_to_a_container_with_a_terminal_and_waits_for_it() {
    let Some(world) = world() else { return };
    let script = "trap 'echo asked; exit 4' TERM; echo ready; while :; do sleep 0.1; done";
    let mut terminal = Terminal::start(world.strake(["run", "--rm", "-it", "localhost/busybox", "sh", "-c", script]), 24, 80);
    terminal.expect("ready");
    kill(nix::unistd::Pid::from_raw(i32::try_from(terminal.child.id()).unwrap()), Signal::SIGTERM).unwrap();
    terminal.expect("asked");
    assert_eq!(terminal.end().code(), Some(4));
}

#[test]
fn no_byte_is_lost_at_the_end_of_a_terminal() {
    let Some(world) = world() else { return };
    for _ in 0..5 {
        let mut terminal = Terminal::start(world.strake(["run", "--rm", "-it", "localhost/busybox", "seq", "1", "5000"]), 24, 80);
        terminal.expect("4999\r\n5000\r\n");
        assert!(terminal.end().success());
    }
}

#[test]
fn a_pipe_is_binary_in_both_directions_and_its_end_is_passed_on() {
    let Some(world) = world() else { return };
    let every: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let mut run = world.strake(["run", "--rm", "-i", "localhost/busybox", "cat"]);
    let mut child = run.command().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, sent) = (child.stdin.take().unwrap(), every.clone());
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &sent));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success() && output.stdout == every, "{} bytes", output.stdout.len());
    // Output goes on after the input's end.
    let script = "cat > /dev/null; for i in 1 2 3; do echo $i; sleep 0.1; done";
    assert_eq!(world.strake(["run", "--rm", "-i", "localhost/busybox", "sh", "-c", script]).stdin("x").ok().stdout, "1\n2\n3\n");
    // A command that ends before its input does not wait for it.
    let mut child = world.strake(["run", "--rm", "-i", "localhost/busybox", "true"]).command().stdin(Stdio::piped()).spawn().unwrap();
    wait_for("its end", 60, || child.try_wait().unwrap().is_some());
    let refused = world.strake(["run", "--rm", "-it", "localhost/busybox", "true"]).run();
    assert_eq!(refused.code, 1, "{refused}");
    refused.says(&["TTY"]);
}
