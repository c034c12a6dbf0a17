//! Containers with users of their own (`--userns auto`): nobody outside, as the image says on disk.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;

use crate::common::{Done, World, wait_for, world};

/// The IDs of the host that such containers have (docs/security.md).
const IDS: std::ops::Range<u32> = 1_879_048_192..2_147_352_576;

fn inside(world: &World, flags: &[&str], script: &str) -> Done {
    let mut args = vec!["run", "--rm", "--userns", "auto"];
    args.extend(flags);
    args.extend(["localhost/busybox", "sh", "-c", script]);
    world.strake(args).run()
}

/// Starts a container that runs `script` and then waits.
fn start(world: &World, name: &str, flags: &[&str], script: &str) {
    let mut args = vec!["run", "-d", "--name", name, "--userns", "auto"];
    args.extend(flags);
    let script = format!("{script}; touch /dev/shm/ready; exec sleep 1000");
    args.extend(["localhost/busybox", "sh", "-c", &script]);
    world.strake(args).ok();
    wait_for("the container", 20, || exec(world, name, "ls /dev/shm/ready").code == 0);
}

fn exec(world: &World, name: &str, script: &str) -> Done {
    world.strake(["exec", name, "sh", "-c", script]).run()
}

/// Who the first process of a container is for the host.
fn outside(world: &World, name: &str) -> u32 {
    let pid = world.strake(["inspect", "--format", "{{.State.Pid}}", name]).ok().stdout;
    fs::metadata(format!("/proc/{}", pid.trim())).unwrap().uid()
}

/// The directory of a volume's files.
fn volume(world: &World, name: &str) -> PathBuf {
    world.strake(["volume", "inspect", "--format", "{{.Mountpoint}}", name]).ok().stdout.trim().into()
}

#[test]
fn root_of_such_a_container_is_somebody_else_outside_and_in_every_other_container() {
    let Some(world) = world() else { return };
    start(&world, "one", &[], "true");
    start(&world, "two", &["--user", "1000"], "true");
    let (one, two) = (outside(&world, "one"), outside(&world, "two"));
    assert!(IDS.contains(&one) && IDS.contains(&two), "{one} {two}");
    assert_eq!(((two - 1000) % 65_536, one % 65_536), (0, 0), "the users of an image are counted from its root");
    assert_ne!(one, two - 1000);
    for (name, id) in [("one", "0:0"), ("two", "1000:0")] {
        assert_eq!(exec(&world, name, "echo $(id -u):$(id -g)").stdout, format!("{id}\n"));
    }
    // A restart keeps none of it, and all of its files.
    assert_eq!(exec(&world, "one", "echo text > /f && chown 5:6 /f").stdout, "");
    world.strake(["restart", "-t", "0", "one"]).ok();
    assert!(IDS.contains(&outside(&world, "one")));
    assert_eq!(exec(&world, "one", "stat -c %u:%g /f").stdout, "5:6\n");
    let mode = world.strake(["inspect", "--format", "{{.HostConfig.UsernsMode}}", "one"]).ok();
    assert_eq!(mode.stdout, "auto\n");
    // What the host has is not theirs, also where they see it.
    let secret = world.path("secret");
    fs::write(&secret, "untouched").unwrap();
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let flag = format!("{}:/secret", secret.display());
    let done =
        inside(&world, &["-v", &flag, "--cap-add", "ALL"], "cat /secret; echo over > /secret; chmod 777 /secret; stat -c %u /secret");
    assert_eq!((done.stdout.as_str(), fs::read_to_string(&secret).unwrap().as_str()), ("65534\n", "untouched"), "{done}");
}

#[test]
fn files_have_the_owners_of_the_image_wherever_they_are_kept() {
    let Some(world) = world() else { return };
    let script = "mkdir /v/d && echo text > /v/d/f && chown 7:8 /v/d/f && echo own > /own && chown 1:2 /own";
    start(&world, "one", &["-v", "data:/v"], script);
    let file = fs::metadata(volume(&world, "data").join("d/f")).unwrap();
    assert_eq!((file.uid(), file.gid()), (7, 8), "a volume");
    assert_eq!(inside(&world, &["-v", "data:/v"], "stat -c %u:%g /v /v/d /v/d/f").stdout, "0:0\n0:0\n7:8\n", "the next container");
    world.strake(["commit", "one", "committed"]).ok();
    let plain = world.strake(["run", "--rm", "committed", "stat", "-c", "%u:%g %n", "/own", "/bin"]).ok();
    assert_eq!(plain.stdout, "1:2 /own\n0:0 /bin\n", "an image of it");
    // A volume with a file system of its own.
    world.strake(["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=uid=1000,mode=700", "memory"]).ok();
    assert_eq!(inside(&world, &["-v", "memory:/v", "--user", "1000"], "touch /v/x && stat -c %u /v/x").stdout, "1000\n");
    // A directory of the host, where it was asked for.
    let shared = world.path("shared");
    fs::create_dir(&shared).unwrap();
    for (option, seen, made) in [("rw", "65534\n", None), ("idmap", "0\n", Some(0))] {
        let script = "stat -c %u /s; touch /s/made";
        assert_eq!(inside(&world, &["-v", &format!("{}:/s:{option}", shared.display())], script).stdout, seen, "{option}");
        assert_eq!(fs::metadata(shared.join("made")).ok().map(|file| file.uid()), made, "{option}");
    }
    // Copies in and out, while it runs.
    let dir = world.path("copied");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("x"), "x").unwrap();
    chown(dir.join("x"), Some(11), Some(12)).unwrap();
    let from = dir.to_str().unwrap();
    world.strake(["cp", "-a", from, "one:/kept"]).ok();
    world.strake(["cp", from, "one:/roots"]).ok();
    assert_eq!(exec(&world, "one", "stat -c %u:%g /kept/x /roots/x /roots").stdout, "11:12\n0:0\n0:0\n");
    // A file that something is mounted on gets another content, and stays what it is.
    exec(&world, "one", "grep -c /etc/hosts /proc/mounts > /before");
    world.strake(["cp", dir.join("x").to_str().unwrap(), "one:/etc/hosts"]).ok();
    assert_eq!(exec(&world, "one", "cat /etc/hosts; grep -c /etc/hosts /proc/mounts | diff - /before").stdout, "x");
    chown(dir.join("x"), Some(70_000), Some(12)).unwrap();
    world.strake(["cp", "-a", dir.join("x").to_str().unwrap(), "one:/much"]).fails().says(&["no user 70000"]);
    // A copy reaches no further than the container's root: not to a directory of the host's that a link leads to.
    let hosts = world.path("hosts");
    fs::create_dir(&hosts).unwrap();
    fs::write(hosts.join("x"), "untouched").unwrap();
    start(&world, "linked", &["-v", &format!("{}:/h", hosts.display())], "ln -s /h /app");
    for running in [true, false] {
        let done = world.strake(["cp", dir.join("x").to_str().unwrap(), "linked:/app/x"]).run();
        assert_ne!(done.code, 0, "{running}: {done}");
        let file = fs::metadata(hosts.join("x")).unwrap();
        assert_eq!((fs::read_to_string(hosts.join("x")).unwrap().as_str(), file.uid()), ("untouched", 0), "{running}");
        world.strake(["stop", "-t", "0", "linked"]).ok();
    }
    let out = world.path("out");
    world.strake(["cp", "-a", "one:/own", out.to_str().unwrap()]).ok();
    let out = fs::metadata(out).unwrap();
    assert_eq!((out.uid(), out.gid()), (1, 2));
}

#[test]
fn what_its_root_may_do_ends_at_the_container() {
    let Some(world) = world() else { return };
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let script = "mkdir /m && mount -t tmpfs none /m && echo mounted; umount /m; mount -t proc proc /m && echo proc
        echo '|/bin/false' > /m/sys/kernel/core_pattern; echo 1 > /m/sys/kernel/sysrq; mknod /n b 7 0; ip link set lo down && echo down";
    let done = inside(&world, &["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "MKNOD"], script);
    assert_eq!(done.stdout, "mounted\nproc\ndown\n", "{done}");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
    // What is mounted for it cannot be opened up either: devices that an image brings stay shut, and what is read-only stays so.
    world.build("FROM localhost/busybox\nRUN mknod /zero c 1 5 && chmod 666 /zero", &["-t", "devices"]).ok();
    let script = "mount -o remount,bind,dev / && echo opened; head -c 1 /zero; mount -o remount,bind,rw,dev /v && echo opened; touch /v/f && echo written
        mount --bind / /mnt && mount -o remount,bind,dev /mnt && echo opened; head -c 1 /mnt/zero";
    for flags in [&["--read-only"][..], &[]] {
        let mut args = vec!["run", "--rm", "--userns", "auto", "--cap-add", "SYS_ADMIN", "-v", "data:/v:ro"];
        args.extend(flags);
        args.extend(["devices", "sh", "-c", script]);
        let done = world.strake(args).run();
        assert_eq!(done.stdout, "", "{done}");
    }
    for refused in [
        &["--privileged"][..],
        &["--network", "host"],
        &["--pid", "host"],
        &["--ipc", "host"],
        &["--uts", "host"],
        &["--user", "65536"],
        &["--user", "0:65536"],
        &["--tmpfs", "/q:uid=65536"],
        &["--tmpfs", "/q:gid=65536"],
        &["-v", "/tmp:/t:rshared"],
    ] {
        let flags = [refused, &["-v", "more:/more"]].concat();
        let done = inside(&world, &flags, "echo ran");
        assert_eq!((done.code, done.stdout.as_str()), (125, ""), "{refused:?}: {done}");
        assert_eq!(world.strake(["volume", "ls", "-q"]).ok().stdout, "data\n", "a refusal makes nothing");
        done.says(&["users of its own", "--userns host"]);
    }
}

#[test]
fn such_a_container_has_all_else_that_others_have() {
    let Some(world) = world() else { return };
    world.strake(["network", "create", "net"]).ok();
    let script = "mkdir /w; echo page > /w/index.html; httpd -p 80 -h /w";
    start(&world, "web", &["--network", "net", "-p", "127.0.0.1::80", "--init", "--memory", "64m"], script);
    assert_eq!(inside(&world, &["--network", "net"], "wget -qO- http://web/").stdout, "page\n");
    let port = world.strake(["port", "web", "80"]).ok().stdout;
    let mut connection = TcpStream::connect(port.trim()).unwrap();
    connection.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("page\n"), "{answer}");
    let flags = [
        "--read-only",
        "--domainname",
        "ex.org",
        "--tmpfs",
        "/t",
        "--network",
        "none",
        "--sysctl",
        "net.ipv4.ip_forward=1",
        "--ulimit",
        "nofile=123:456",
    ];
    let script = "touch /x; touch /t/x && ls /t; cat /proc/sys/net/ipv4/ip_forward; ulimit -n; ulimit -Hn; stat -c %u /dev/shm /dev/pts; cat /proc/sys/kernel/domainname";
    assert_eq!(inside(&world, &flags, script).stdout, "x\n1\n123\n456\n0\n0\nex.org\n");
    // Its streams can be opened by name, by whoever it runs as.
    for user in ["0", "1000"] {
        let script = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin";
        let args = ["run", "--rm", "-i", "--userns", "auto", "--user", user, "localhost/busybox", "sh", "-c", script];
        let done = world.strake(args).stdin("in").ok();
        assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\nin", "err\n"), "{user}");
        assert_eq!(world.strake(["exec", "--user", user, "web", "sh", "-c", "echo out > /dev/stdout"]).ok().stdout, "out\n", "{user}");
    }
    // Settings make it what containers have, and a flag an exception.
    let settings = world.path("settings.toml");
    fs::write(&settings, "[containers]\nuserns = \"auto\"\n").unwrap();
    let map = |flags: &[&str]| {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.extend(["localhost/busybox", "cat", "/proc/self/uid_map"]);
        let done = world.strake(args).env("STRAKE_CONFIG", &settings).ok();
        done.stdout.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    assert!(IDS.contains(&map(&[])));
    assert!(IDS.contains(&map(&["--userns", ""])), "which is as no flag");
    assert_eq!(map(&["--userns", "host"]), 0);
    // Users that it has not got.
    for user in ["70000", "0:70000", "4294967294"] {
        let id = user.trim_start_matches("0:");
        world.strake(["exec", "--user", user, "web", "true"]).fails().says(&[&format!("no user or group {id}")]);
    }
}

#[test]
fn a_process_that_outlives_its_supervisor_keeps_its_users_until_it_is_ended() {
    let Some(world) = world() else { return };
    // The kernel forgets to kill what has been executed with set-user-ID rights.
    let dockerfile = "FROM localhost/busybox\nRUN cp /bin/busybox /sleep && chmod 4755 /sleep";
    world.build(dockerfile, &["-t", "lasting"]).ok();
    let flags = ["run", "-d", "--name", "one", "--userns", "auto", "--user", "1000", "lasting", "/sleep", "1000"];
    world.strake(flags).ok();
    let pid = world.strake(["inspect", "--format", "{{.State.Pid}}", "one"]).ok().stdout.trim().to_owned();
    let parent = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = parent.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    let users = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(parent), nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("the supervisor's end", 10, || !fs::exists(format!("/proc/{parent}/exe")).unwrap());
    // Nobody has looked since.
    assert!(fs::exists(format!("/proc/{pid}/exe")).unwrap(), "it is to outlive its supervisor");
    let store = world.path("other-store");
    let other =
        world.strake(["--root", store.to_str().unwrap(), "import", crate::common::bases().join("busybox.tar").to_str().unwrap(), "base"]);
    other.ok();
    let map = ["--root", store.to_str().unwrap(), "run", "--rm", "--userns", "auto", "base", "cat", "/proc/self/uid_map"];
    let others = world.strake(map).ok().stdout;
    assert_ne!(others.split_whitespace().nth(1), users.split_whitespace().nth(1), "the next container has other users");
    assert!(world.strake(["ps", "-a"]).ok().stdout.contains("Exited (137)"));
    wait_for("the process's end", 10, || !fs::exists(format!("/proc/{pid}/exe")).unwrap());
}
