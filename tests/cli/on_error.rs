//! `--on-error=shell`, by way of a real pseudo-terminal: what the shell in a failed step's sandbox sees, and what is left when it has gone.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::common::{World, able, wait_for};

fn world() -> Option<World> {
    able(&["docker-registry", "script"]).then(|| {
        let world = World::new();
        world.busybox();
        world
    })
}

/// A build at a terminal of its own.
struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    fn build(world: &World, dockerfile: &str, args: &str) -> Terminal {
        world.write("Dockerfile", dockerfile);
        let line = format!("{} build --progress=plain --on-error=shell {args} {}", env!("CARGO_BIN_EXE_strake"), world.context().display());
        let mut command = Command::new("script");
        command.args(["-qefc", &line, "/dev/null"]).env("STRAKE_ROOT", world.root()).env("HOME", world.path("home")).env("TERM", "vt100");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut output, shown) = (child.stdout.take().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                shown.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        });
        Terminal { keys: child.stdin.take(), child, screen }
    }

    fn types(&mut self, keys: &str) -> &mut Terminal {
        self.keys.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
        self
    }

    #[track_caller]
    fn shows(&mut self, text: &str) -> &mut Terminal {
        let screen = self.screen.clone();
        for _ in 0..600 {
            if screen.lock().unwrap().contains(text) {
                return self;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("`{text}` is not shown:\n{}", screen.lock().unwrap());
    }

    #[track_caller]
    fn ends(mut self) -> (i32, String) {
        let mut status = None;
        wait_for("the end of the build", 20, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        std::thread::sleep(std::time::Duration::from_millis(100));
        (status.unwrap().code().unwrap(), self.screen.lock().unwrap().clone())
    }
}

#[test]
fn a_shell_sees_the_failed_steps_files_mounts_variables_user_directory_and_network() {
    let Some(world) = world() else { return };
    world.write("from-context", "context\n");
    std::fs::set_permissions(world.context().join("from-context"), std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    std::fs::write(world.path("secret"), "hidden").unwrap();
    let text = "FROM localhost/busybox\nENV GREETING=hello\nWORKDIR /work\nRUN chmod 777 /work\nUSER nobody\n\
                RUN --network=none --mount=type=cache,target=/cache,uid=65534 --mount=type=bind,target=/bound,rw --mount=type=secret,id=s,uid=65534 \
                echo half > made && echo kept > /cache/file && echo more >> /bound/from-context; exit 42\n";
    let secret = format!("--secret id=s,src={}", world.path("secret").display());
    let mut terminal = Terminal::build(&world, text, &secret);
    terminal.shows("exited with status 42").shows("sandbox of the failed step");
    terminal.types("echo $(cat made)-$GREETING-$(id -un)-$(pwd)-$(cat /cache/file)-$(cat /run/secrets/s)\n");
    terminal.shows("half-hello-nobody-/work-kept-hidden");
    terminal.types("echo lines=$(wc -l < /bound/from-context) links=$(grep -c : /proc/net/dev) term=$TERM tty=$(test -t 0 && echo yes)\n");
    terminal.shows("lines=2 links=1 term=vt100 tty=yes");
    // A key that is a signal is the shell's.
    terminal.types("sleep 600\n");
    std::thread::sleep(std::time::Duration::from_millis(300));
    terminal.types("\u{3}").types("echo after=$((40 + 2))\n").shows("after=42");
    terminal.types("exit 7\n");
    let (code, screen) = terminal.ends();
    assert_eq!(code, 1, "{screen}");
    // Nothing of it is a result, and the next build works.
    let text = text.replace("exit 42", "true").replace("echo half > made", "test ! -e made");
    world.build(&text, &["--secret", &secret["--secret ".len()..]]).ok();
    assert_eq!(std::fs::read_to_string(world.context().join("from-context")).unwrap(), "context\n");
}

#[test]
fn an_image_without_a_shell_and_a_command_that_cannot_start_are_told() {
    let Some(world) = world() else { return };
    let bare = "FROM localhost/busybox AS b\nFROM scratch\nCOPY --from=b /bin/busybox /tool\nRUN [\"/tool\", \"false\"]\n";
    let terminal = Terminal::build(&world, bare, "");
    let (code, screen) = terminal.ends();
    assert!(code == 1 && screen.contains("the image has no shell: there is no /bin/sh, /bin/bash, /busybox/sh"), "{code} {screen}");
    let mut terminal = Terminal::build(&world, "FROM localhost/busybox\nRUN [\"/no/such/tool\"]\n", "");
    terminal.shows("/no/such/tool").shows("sandbox of the failed step");
    terminal.types("echo in-$((1 + 1))\n").shows("in-2").types("exit\n");
    assert_eq!(terminal.ends().0, 1);
}

#[test]
fn the_shell_of_a_build_for_several_platforms_is_in_the_step_that_failed() {
    let Some(world) = world() else { return };
    let there = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };
    let text = format!(
        "FROM --platform=$BUILDPLATFORM localhost/busybox\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch; test $TARGETARCH != {there} || exit 5\n"
    );
    let mut terminal = Terminal::build(&world, &text, "--platform linux/amd64,linux/arm64");
    terminal.shows("exited with status 5").shows("sandbox of the failed step");
    terminal.types("echo in-$(cat /arch)-$TARGETARCH\n").shows(&format!("in-{there}-{there}")).types("exit\n");
    assert_eq!(terminal.ends().0, 1);
    // Where all fail there is one shell.
    let text = "FROM --platform=$BUILDPLATFORM localhost/busybox\nARG TARGETARCH\nRUN echo $TARGETARCH && exit 6\n";
    let mut terminal = Terminal::build(&world, text, "--platform linux/amd64,linux/arm64");
    terminal.shows("sandbox of the failed step").types("echo in-$((1 + 1))\n").shows("in-2").types("exit\n");
    let (code, screen) = terminal.ends();
    assert!(code == 1 && screen.matches("sandbox of the failed step").count() == 1, "{screen}");
}

#[test]
fn without_a_terminal_it_is_refused_and_with_one_a_good_build_has_no_shell() {
    let Some(world) = world() else { return };
    let done = world.build("FROM localhost/busybox\nRUN false\n", &["--on-error=shell"]).fails();
    done.says(&["--on-error=shell needs a terminal"]).omits(&["RUN false"]);
    let (code, screen) = Terminal::build(&world, "FROM localhost/busybox\nRUN true\n", "").ends();
    assert!(code == 0 && !screen.contains("sandbox of the failed step"), "{code} {screen}");
}

#[test]
fn a_shell_whose_build_is_told_to_end_ends_with_it() {
    let Some(world) = world() else { return };
    let mut terminal = Terminal::build(&world, "FROM localhost/busybox\nRUN exit 3\n", "");
    terminal.shows("sandbox of the failed step").types("sleep 98765 & echo up-$((1 + 1))\n").shows("up-2");
    let builds = Command::new("pgrep").args(["-f", &format!("strake build.*{}", world.context().display())]).output().unwrap();
    for pid in String::from_utf8(builds.stdout).unwrap().split_whitespace() {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        if name.trim() == "strake" {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse().unwrap()), nix::sys::signal::Signal::SIGTERM).unwrap();
        }
    }
    assert_ne!(terminal.ends().0, 0);
    let left = Command::new("pgrep").args(["-f", "sleep 98765"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
}
