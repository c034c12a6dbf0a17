//! Namespaces and limits that a container shares or has by flags, as `inspect` says them and as they are inside.

use crate::common::{Done, Run, World, able, groups, wait_for, world};

fn run(world: &World, flags: &[&str], script: &str) -> Done {
    let mut args = vec!["run", "--rm"];
    args.extend(flags);
    args.extend(["localhost/busybox", "sh", "-c", script]);
    world.strake(args).run()
}

fn own(namespace: &str) -> String {
    std::fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap().display().to_string()
}

fn host_config(world: &World, name: &str, field: &str) -> String {
    world.strake(["inspect", "--format", &format!("{{{{.HostConfig.{field}}}}}"), name]).ok().stdout.trim().to_owned()
}

#[test]
fn namespaces_are_the_containers_own_unless_flags_say_otherwise() {
    let Some(world) = world() else { return };
    let all = "for n in pid ipc uts cgroup mnt net; do readlink /proc/self/ns/$n; done";
    let inside = run(&world, &[], all).stdout;
    for namespace in ["pid", "ipc", "uts", "cgroup", "mnt", "net"] {
        assert!(!inside.contains(&own(namespace)), "{namespace}: {inside}");
    }
    for (flag, namespace) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--cgroupns", "cgroup")] {
        let shared = run(&world, &[flag, "host"], all).stdout;
        assert!(shared.contains(&own(namespace)) && shared.lines().count() == 6, "{flag}: {shared}");
        assert_eq!(["pid", "ipc", "uts", "cgroup"].iter().filter(|name| shared.contains(&own(name))).count(), 1, "{flag}: {shared}");
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(run(&world, &["--uts", "host"], "hostname").stdout, name);
    let none = run(&world, &["--ipc", "none"], "grep ' /dev/shm ' /proc/mounts; ls -d /dev/shm").stdout;
    assert!(none.is_empty(), "{none}");
    let mounted = run(&world, &["--ipc", "none", "--tmpfs", "/dev/shm"], "grep -c ' /dev/shm ' /proc/mounts").stdout;
    assert_eq!(mounted, "1\n");
    for refused in
        [&["--uts", "host", "--hostname", "x"][..], &["--pid", "container:nobody"], &["--ipc", "strange"], &["--userns", "keep-id"]]
    {
        assert_ne!(run(&world, refused, "true").code, 0, "{refused:?}");
    }
    assert_eq!(run(&world, &["--userns", "host", "--cgroupns", "private", "--pid", "private"], "echo $$").stdout, "1\n");
}

#[test]
fn containers_share_processes_and_memory_with_others() {
    let Some(world) = world() else { return };
    let script = "echo shared > /dev/shm/f; exec sleep 1234";
    world.strake(["run", "-d", "--name", "donor", "--ipc", "shareable", "localhost/busybox", "sh", "-c", script]).ok();
    wait_for("its file", 20, || world.strake(["exec", "donor", "cat", "/dev/shm/f"]).run().stdout == "shared\n");
    let ids = world.strake(["exec", "donor", "sh", "-c", "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc"]).ok().stdout;
    let flags = ["--pid", "container:donor", "--ipc", "container:donor"];
    let done =
        run(&world, &flags, "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; cat /dev/shm/f; tr '\\0' ' ' < /proc/1/cmdline");
    assert_eq!(done.stdout, format!("{ids}shared\nsleep 1234 "), "{done}");
    world
        .strake([
            "run",
            "-d",
            "--name",
            "guest",
            "--pid",
            "container:donor",
            "--ipc",
            "container:donor",
            "localhost/busybox",
            "sleep",
            "1000",
        ])
        .ok();
    let exec = world.strake(["exec", "guest", "sh", "-c", "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc"]).ok();
    assert_eq!(exec.stdout, ids, "a later command is in all of them");
    let id = world.strake(["inspect", "--format", "{{.Id}}", "donor"]).ok().stdout;
    assert_eq!(host_config(&world, "guest", "PidMode"), format!("container:{}", id.trim()));
    assert_eq!((host_config(&world, "donor", "IpcMode"), host_config(&world, "donor", "PidMode")), ("shareable".to_owned(), String::new()));
    world.strake(["rm", "-f", "guest"]).ok();
    // Memory that is one's own stays that, and a container that does not run has none.
    world.strake(["run", "-d", "--name", "private", "localhost/busybox", "sleep", "1000"]).ok();
    run(&world, &["--ipc", "container:private"], "true").says(&["--ipc shareable"]);
    world.strake(["stop", "-t", "0", "donor"]).ok();
    run(&world, &flags, "true").says(&["is not running"]);
}

#[test]
fn nothing_of_a_container_with_the_hosts_processes_outlives_it() {
    let Some(world) = world() else { return };
    let number = format!("{}", 100_000 + std::process::id());
    let done = run(&world, &["--pid", "host"], &format!("(setsid sleep {number} &); sleep 0.3; ls -d /proc/{}", std::process::id()));
    assert!(done.stdout.contains("/proc/"), "{done}");
    let alive = || {
        let of = |pid: String| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        pids.map(of).filter(|line| String::from_utf8_lossy(line).contains(&number)).filter(|line| line.starts_with(b"sleep")).count()
    };
    assert_eq!(alive(), 0);
}

#[test]
fn limits_of_disks_and_places_of_groups_hold_or_are_refused() {
    let Some(world) = world() else { return };
    let done = run(&world, &["--cgroupns", "host", "--cgroup-parent", "/strake-test-parent"], "cat /proc/self/cgroup");
    assert!(done.stdout.contains("/strake-test-parent/"), "{done}");
    world
        .strake([
            "create",
            "--name",
            "c",
            "--cgroup-parent",
            "/x",
            "--blkio-weight",
            "500",
            "--cgroupns",
            "host",
            "localhost/busybox",
            "true",
        ])
        .ok();
    assert_eq!(["CgroupParent", "BlkioWeight", "CgroupnsMode"].map(|field| host_config(&world, "c", field)), ["/x", "500", "host"]);
    for (flags, said) in [
        (&["--blkio-weight", "5"][..], "10 to 1000"),
        (&["--device-read-bps", "/dev/null:1mb"], "is not a disk"),
        (&["--device-read-bps", "/nowhere:1mb"], "/nowhere"),
        (&["--device", "/dev/null:/dev/../etc/x"], "a target below /dev"),
        (&["--device", "/dev/null:/dev/."], "a target below /dev"),
        (&["--device-cgroup-rule", "c 1:3"], "MAJOR:MINOR"),
        (&["--gpus", "some"], "a number of GPUs"),
        (&["--kernel-memory", "50m"], "--memory"),
        (&["--storage-opt", "size=1g"], "no limits"),
        (&["--security-opt", "apparmor=some-profile"], "AppArmor"),
        (&["--security-opt", "label=nonsense"], "expected"),
    ] {
        run(&world, flags, "true").says(&[said]);
    }
    for directory in [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/cpu",
        "/sys/fs/cgroup/cpuacct",
        "/sys/fs/cgroup/cpuset",
        "/sys/fs/cgroup/pids",
        "/sys/fs/cgroup/blkio",
    ] {
        let _ = std::fs::remove_dir(format!("{directory}/strake-test-parent"));
    }
}

#[test]
fn only_the_streams_that_are_asked_for_are_passed_on() {
    let Some(world) = world() else { return };
    let both = "echo out; echo err >&2";
    let done = run(&world, &["-a", "stderr"], both);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("", "err\n"), "{done}");
    let done = run(&world, &["-a", "STDOUT"], both);
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out\n", ""), "{done}");
    let args = ["run", "--rm", "-i", "-a", "stdin", "-a", "stdout", "localhost/busybox", "cat"];
    assert_eq!(world.strake(args).stdin("in").ok().stdout, "in");
    world.strake(["run", "-d", "-a", "stdout", "localhost/busybox", "true"]).fails();
}

/// Everything of the kernel's and the store's that a run might leave.
fn leftovers(world: &World) -> Vec<(&'static str, usize)> {
    let lines = |text: String, word: &str| text.lines().filter(|line| line.contains(word)).count();
    let root = world.root();
    let mounts = lines(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), root.to_str().unwrap());
    let entries = |path: &str| std::fs::read_dir(root.join(path)).map_or(0, Iterator::count);
    let names = Run::new("ip", ["netns"]).run().stdout;
    vec![
        ("mounts", mounts),
        ("containers", entries("containers")),
        ("trash", entries("trash")),
        ("leases", entries("leases")),
        ("volumes", entries("volumes")),
        ("processes", crate::common::processes(&root).len()),
        ("named network namespaces", lines(names, "strake")),
    ]
}

#[test]
fn runs_leave_nothing_behind() {
    if !able(&["docker-registry", "ip"]) {
        return;
    }
    let Some(world) = world() else { return };
    run(&world, &[], "true");
    // A supervisor leaves it to the command that started it to remove the container, for half a second.
    wait_for("the end of the supervisor", 20, || crate::common::processes(&world.root()).is_empty());
    let before = leftovers(&world);
    for round in 0..6 {
        assert_eq!(run(&world, &["-v", "/anonymous", "-m", "64m"], "exit 7").code, 7);
        assert_eq!(run(&world, &[], "nonsense-command").code, 127);
        assert_ne!(run(&world, &["-w", "/proc/self/fd/9"], "true").code, 0);
        let name = format!("c{round}");
        world.strake(["run", "-d", "--name", &name, "localhost/busybox", "sleep", "1000"]).ok();
        if round % 2 == 0 {
            let pid = world.strake(["inspect", "--format", "{{.State.Pid}}", &name]).ok().stdout;
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
            let parent: i32 = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(parent), nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        world.strake(["rm", "-f", &name]).ok();
    }
    wait_for("the end of the supervisors", 30, || crate::common::processes(&world.root()).is_empty());
    assert_eq!(leftovers(&world), before);
}

#[test]
fn no_kernel_parameter_of_the_host_is_set() {
    let Some(world) = world() else { return };
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).unwrap();
    world.strake(["run", "-d", "--name", "h", "--network", "host", "localhost/busybox", "sleep", "1000"]).ok();
    for (flags, name, value) in [
        (&["--network", "host"][..], "net.ipv4.ip_default_ttl", "63"),
        (&["--network", "container:h"], "net.ipv4.ip_default_ttl", "62"),
        (&["--ipc", "host"], "kernel.msgmax", "8191"),
    ] {
        let (before, setting) = (read(name), format!("{name}={value}"));
        let args = [&["run", "--rm", "--sysctl", &setting], flags, &["localhost/busybox", "true"]].concat();
        let done = world.strake(args).run();
        assert_eq!((done.code, read(name)), (125, before), "{done}");
        done.says(&[name, "the host's"]);
    }
    let before = read("kernel.domainname");
    let done = world.strake(["run", "--rm", "--uts", "host", "--domainname", "strake.test", "localhost/busybox", "true"]).run();
    assert_eq!((done.code, read("kernel.domainname")), (125, before), "{done}");
    let own = ["run", "--rm", "--sysctl", "net.ipv4.ip_default_ttl=61", "localhost/busybox", "cat", "/proc/sys/net/ipv4/ip_default_ttl"];
    assert_eq!(world.strake(own).ok().stdout, "61\n");
}

#[test]
fn control_groups_that_a_container_makes_go_with_it() {
    let Some(world) = world() else { return };
    let name = format!("made-inside-{}", std::process::id());
    // Version 1 has a directory for memory.
    let script = format!("cd /sys/fs/cgroup; [ ! -d memory ] || cd memory; mkdir -p {name}/deeper && echo made");
    let done = run(&world, &["--privileged", "-m", "64m"], &script);
    assert_eq!(done.stdout, "made\n", "{done}");
    assert_eq!(groups(&name), Vec::<std::path::PathBuf>::new());
}
