//! Podman with `strake oci` as its runtime.

use crate::common::terminal::Terminal;
use crate::common::{Run, World, able, bases, wait_for};

/// podman with a store of its own and this program as its runtime, where there is an image `bb`.
struct Podman {
    world: World,
}

impl Podman {
    fn new() -> Option<Podman> {
        if !able(&["docker-registry", "podman", "conmon"]) {
            return None;
        }
        let world = World::new();
        // By this name the program is an OCI runtime.
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_strake"), world.path("strake-oci")).unwrap();
        let podman = Podman { world };
        podman.podman(&["import", bases().join("busybox.tar").to_str().unwrap(), "bb"]).ok();
        Some(podman)
    }

    fn podman(&self, args: &[&str]) -> Run {
        let (root, run, tmp, runtime) =
            (self.world.path("peer"), self.world.short().join("run"), self.world.short().join("tmp"), self.world.path("strake-oci"));
        let mut run = Run::new(
            "podman",
            ["--root".as_ref(), root.as_os_str(), "--runroot".as_ref(), run.as_os_str(), "--tmpdir".as_ref(), tmp.as_os_str()],
        )
        .arg_all(&["--storage-driver", "overlay", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime"])
        .arg(runtime)
        .arg_all(args);
        run.command().env("TMPDIR", self.world.path(""));
        run
    }

    fn run(&self, flags: &[&str], command: &[&str]) -> Run {
        // Limits that are not above the machine's own: what podman would choose itself is not allowed everywhere.
        let usual = ["run", "--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
        self.podman(&[&usual[..], flags, &["bb"], command].concat())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.podman(&["rm", "-af", "-t", "0"]).run();
    }
}

#[test]
fn podman_runs_containers_on_it() {
    let Some(podman) = Podman::new() else { return };
    let said = |flags: &[&str], script: &str| podman.run(&[&["--rm"], flags].concat(), &["sh", "-c", script]).ok().stdout;
    assert_eq!(podman.run(&["--rm"], &["sh", "-c", "exit 3"]).run().code, 3);
    assert_eq!(podman.run(&["--rm"], &["nothing-there"]).run().code, 127);
    assert_eq!(podman.run(&["--rm"], &["/etc/passwd"]).run().code, 126);
    assert_eq!(said(&["--user", "65534:50"], "id -u; id -g"), "65534\n50\n");
    assert_eq!(
        said(&["--cap-drop", "all", "--security-opt", "no-new-privileges"], "grep -E 'CapBnd|NoNew|Seccomp:' /proc/self/status")
            .replace('\t', " "),
        "CapBnd: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2\n"
    );
    assert_eq!(said(&["--read-only"], "touch /x 2>/dev/null || echo refused; touch /tmp/x && echo there"), "refused\nthere\n");
    let volume = podman.world.path("volume");
    std::fs::create_dir(&volume).unwrap();
    std::fs::write(volume.join("file"), "of the host\n").unwrap();
    let mount = format!("{}:/v:ro", volume.display());
    assert_eq!(
        said(&["-v", &mount, "--tmpfs", "/etc:size=1m"], "cat /v/file; touch /v/x 2>/dev/null || echo refused; grep -c root /etc/passwd"),
        "of the host\nrefused\n1\n"
    );
    let limits = said(
        &["--memory", "20m", "--pids-limit", "9"],
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max 2>/dev/null || cat memory.max pids.max",
    );
    assert_eq!(limits, "20971520\n9\n");
    if std::path::Path::new("/usr/libexec/podman/catatonit").exists() {
        assert!(
            said(&["--init"], "cat /proc/1/comm").contains("catatonit") || said(&["--init"], "cat /proc/1/comm").contains("podman-init")
        );
    }
    assert_eq!(podman.run(&["--rm", "-i"], &["cat"]).stdin("input").ok().stdout, "input");
}

#[test]
fn podman_manages_containers_on_it() {
    let Some(podman) = Podman::new() else { return };
    // Its streams are conmon's, so nothing here waits for its end.
    podman.run(&["-d", "--name", "d"], &["sh", "-c", "echo started; trap 'echo ending; exit 5' TERM; while :; do sleep 0.1; done"]).ok();
    assert_eq!(podman.podman(&["exec", "d", "sh", "-c", "echo inside; exit 9"]).run().code, 9);
    assert_eq!(podman.podman(&["exec", "-i", "d", "cat"]).stdin("input").ok().stdout, "input");
    assert_eq!(podman.podman(&["exec", "d", "nothing-there"]).run().code, 127);
    let mut terminal = Terminal::start(podman.podman(&["exec", "-it", "d", "sh"]), 24, 80);
    terminal.type_in("tty; exit 4\n");
    terminal.expect("/dev/pts/");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(4));
    podman.podman(&["pause", "d"]).ok();
    podman.podman(&["unpause", "d"]).ok();
    wait_for("the output", 60, || podman.podman(&["logs", "d"]).ok().stdout == "started\n");
    podman.podman(&["stop", "-t", "60", "d"]).ok();
    assert_eq!(podman.podman(&["wait", "d"]).ok().stdout, "5\n");
    assert_eq!(podman.podman(&["logs", "d"]).ok().stdout, "started\nending\n");
    podman.podman(&["start", "d"]).ok();
    podman.podman(&["kill", "d"]).ok();
    assert_eq!(podman.podman(&["wait", "d"]).ok().stdout, "137\n");
    podman.podman(&["rm", "-f", "d"]).ok();
    let mut terminal = Terminal::start(podman.run(&["--rm", "-it"], &["sh", "-c", "read line; echo got $line; stty size"]), 31, 90);
    terminal.type_in("words\n");
    terminal.expect("got words");
    terminal.expect("31 90");
    assert!(terminal.child.wait().unwrap().success());
}
