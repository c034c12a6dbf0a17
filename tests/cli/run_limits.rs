//! What RUN steps may do and use: entitlements, limits, names and sizes that the command line gives.

use crate::common::world;

/// One step after the base.
fn step(text: &str) -> String {
    format!("FROM localhost/busybox\nRUN {text}\n")
}

/// CVE-2024-23653 of BuildKit was a way around that.
#[test]
fn a_privileged_step_needs_to_be_allowed() {
    let Some(world) = world() else { return };
    // What it can: mount, change the kernel's view of its name, make and open a device; nothing of it is in the layer.
    let text = "FROM localhost/busybox\nRUN mkdir /mnt\nRUN --security=insecure mount -t tmpfs none /mnt && touch /mnt/x && echo renamed > /proc/sys/kernel/hostname \
                && grep Seccomp: /proc/self/status && test -w /sys/kernel && hostname && test -e /dev/full && mknod /tmp-dev c 1 3 && echo x > /tmp-dev && rm /tmp-dev\n";
    let refused = world.build(text, &[]).fails();
    refused.says(&["Dockerfile:3:16", "`security.insecure`", "hint: allow it with `--allow security.insecure`"]).omits(&["[2/3]"]);
    world.build(text, &["--allow", "network.host"]).fails().says(&["`security.insecure`"]);
    let done = world.build(text, &["--allow", "security.insecure"]).ok();
    done.says(&["renamed\n", "Seccomp:\t0\n"]);
    let image = world.image(text, &["--allow=security.insecure"]);
    assert!(image.layers[2].is_empty(), "{:?}", image.layers[2].keys());
    // Said explicitly, the sandbox is what it always is.
    world.build(&step("--security=sandbox grep Seccomp: /proc/self/status"), &[]).ok().says(&["Seccomp:\t2\n"]);
    // A stage that nothing needs asks for nothing, and who only looks at the file is not stopped.
    let unneeded = "FROM localhost/busybox\nRUN --security=insecure true\nFROM localhost/busybox\nRUN true\n";
    world.build(unneeded, &[]).ok();
    world.build(text, &["--check"]).ok();
}

#[test]
fn the_hosts_network_needs_to_be_allowed_to_a_step_that_asks_for_it() {
    let Some(world) = world() else { return };
    let own = format!("netns={}", std::fs::read_link("/proc/self/ns/net").unwrap().display());
    let text = step("--network=host echo netns=$(readlink /proc/self/ns/net)");
    let refused = world.build(&text, &[]).fails();
    refused.says(&["Dockerfile:2:15", "`network.host`", "hint: allow it with `--allow network.host`"]);
    world.build(&text, &["--allow", "network.host"]).ok().says(&[&own]);
    // The flag for all steps allows it, as with `docker build`; a step of its own mind keeps it.
    world.build(&text, &["--network", "host", "--no-cache"]).ok().says(&[&own]);
    let own_mind = step("--network=none echo netns=$(readlink /proc/self/ns/net)");
    world.build(&own_mind, &["--network", "host"]).ok().omits(&[&own]);
    let both = format!("{text}RUN --security=insecure true\n");
    world.build(&both, &["--allow", "network.host,security.insecure"]).ok();
    for unknown in ["network", "all", "fs.read=/"] {
        world.build(&text, &["--allow", unknown]).fails().says(&[unknown, "no such entitlement"]);
    }
    world.build(&text, &["--allow", "device=x"]).fails().says(&["no name of a device"]);
    let device = world.build(&step("--device=vendor.com/class=one true"), &["--allow", "device=vendor.com/other"]).fails();
    device.says(&["Dockerfile:2:", "vendor.com/class=one", "--allow device=vendor.com/class=one"]);
    world.build(&text, &["--network", "bridge"]).fails().says(&["bridge", "default, none, host"]);
}

#[test]
fn added_hosts_are_in_the_file_and_only_their_names_in_the_key() {
    let Some(world) = world() else { return };
    let text = step("cat /etc/hosts; hostname");
    let args = [
        "--add-host",
        "db:10.1.1.1",
        "--add-host",
        "both=10.1.1.2,[2001:db8::1]",
        "--add-host",
        "six:2001:db8::2",
        "--add-host=gw:host-gateway",
    ];
    let done = world.build(&text, &args).ok();
    done.says(&["10.1.1.1\tdb\n", "10.1.1.2\tboth\n", "2001:db8::1\tboth\n", "2001:db8::2\tsix\n", "\tgw\n", "\tbuildkitsandbox\n"]);
    let gateway = done.stderr.lines().find(|line| line.ends_with("\tgw")).unwrap();
    assert!(!gateway.contains("host-gateway") && gateway.contains('.'), "{gateway}");
    let mut moved = args;
    moved[1] = "db:10.9.9.9";
    assert_eq!(world.build(&text, &moved).ok().step("[2/2]"), "CACHED");
    moved[1] = "other:10.1.1.1";
    assert_eq!(world.build(&text, &moved).ok().step("[2/2]"), "DONE");
    // In every network; the step's own name is in its file.
    world.build(&text, &["--add-host", "db:10.1.1.1", "--network=none"]).ok().says(&["10.1.1.1\tdb\n"]);
    world.build(&text, &["--add-host", "db:10.1.1.1", "--network=host"]).ok().says(&["10.1.1.1\tdb\n"]);
    let named = world.build(&text, &["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=mine", "--no-cache"]).ok();
    named.says(&["\tmine\n", " mine\n"]).omits(&["buildkitsandbox"]);
    for bad in ["db", "db:nowhere", ":1.1.1.1", "a b:1.1.1.1"] {
        world.build(&text, &["--add-host", bad]).fails().says(&["--add-host"]);
    }
}

#[test]
fn sizes_and_limits_hold_in_each_step_and_are_not_in_the_key() {
    let Some(world) = world() else { return };
    let text = step("echo shm=$(df -k /dev/shm | awk 'END { print $2 }') soft=$(ulimit -n) hard=$(ulimit -Hn) core=$(ulimit -c)");
    let inherited = format!(
        "soft={}",
        std::process::Command::new("sh").args(["-c", "ulimit -n"]).output().map(|o| String::from_utf8(o.stdout).unwrap()).unwrap()
    );
    let plain = world.build(&text, &[]).ok();
    plain.says(&["shm=65536 ", inherited.trim()]);
    let cached = world.build(&text, &["--shm-size", "128m", "--ulimit", "nofile=100:200", "--memory", "64m", "--cpu-shares", "512"]).ok();
    assert_eq!(cached.step("[2/2]"), "CACHED");
    let limited = ["--no-cache", "--shm-size", "128m", "--ulimit", "nofile=5:6", "--ulimit", "nofile=100:200", "--ulimit", "core=0"];
    world.build(&text, &limited).ok().says(&["shm=131072 soft=100 hard=200 core=0"]);
    for (flag, value, says) in [
        ("--ulimit", "files=1", "nofile"),
        ("--ulimit", "nofile=2:1", "soft limit"),
        ("--shm-size", "much", "much"),
        ("--memory", "1m", "6m"),
        ("--memory-swap", "1g", "--memory"),
        ("--resource", "disk=1g", "memory"),
        ("--cpuset-cpus", "a", "0-3,7"),
        ("--cgroup-parent", "../x", "control group"),
    ] {
        world.build(&text, &[flag, value]).fails().says(&[flag, says]);
    }
    world.build(&text, &["-m", "64m", "--memory-swap", "32m"]).fails().says(&["--memory-swap is less"]);
    for flags in [["--cpuset-cpus", "4000"], ["--cpuset-mems", "0,4000"], ["--resource", "cpuset-cpus=4000"]] {
        world.build(&text, &flags).fails().says(&["names 4000, which is not there", "available 0"]).omits(&["RUN"]);
    }
    // Zero is no limit in all of them.
    let none = ["--no-cache", "--cpus", "0", "-m", "0", "--memory-swap=0", "-c", "0", "--cpu-period=0", "--cpu-quota=0", "--shm-size=0"];
    let groups = step(
        "test ! -e /sys/fs/cgroup/cpu/cpu.cfs_quota_us && ! grep -v max /sys/fs/cgroup/cpu.max 2>/dev/null; free=$?; \
         echo shm=$(df -k /dev/shm | awk 'END { print $2 }') free=$free",
    );
    world.build(&groups, &none).ok().says(&["shm=65536 free=0"]);
}

#[test]
fn each_step_has_its_own_memory_and_running_out_of_it_is_told() {
    let Some(world) = world() else { return };
    if !memory_can_be_limited() {
        return;
    }
    // 40 MB at a time in each of two steps: together more than one may have, each by itself less.
    let twice =
        "FROM localhost/busybox\nRUN head -c 40m /dev/zero | tail -c 40m | wc -c\nRUN head -c 40m /dev/zero | tail -c 40m | wc -c\n";
    world.build(twice, &["-m", "64m"]).ok().says(&["41943040"]);
    for flags in [&["--memory", "32m"][..], &["--resource", "memory=32m,memory-swap=32m"], &["-m", "1g", "--resource", "memory=32m"]] {
        let mut args = vec!["--no-cache"];
        args.extend(flags);
        let done = world.build(&step("head -c 200m /dev/zero | tail -c 200m"), &args).fails();
        done.says(&[
            "Dockerfile:2",
            "ran out of memory: it may use 32 MiB",
            "at most 33.",
            "of memory)",
            "hint: allow steps more with --memory",
        ]);
    }
    // A process that is killed while the step goes on is the step's own business. The kernel may want more than one, and is told which.
    let hungry = "(echo 1000 > /proc/self/oom_score_adj; head -c 200m /dev/zero | tail -c 200m) || true; echo survived";
    world.build(&step(hungry), &["-m", "32m"]).ok().says(&["survived"]);
}

#[test]
fn a_step_is_below_the_control_group_that_was_asked_for_with_its_limits() {
    let Some(world) = world() else { return };
    if !memory_can_be_limited() {
        return;
    }
    let parent = format!("strake-test-{}/below", std::process::id());
    let root = std::path::Path::new("/sys/fs/cgroup");
    let hierarchy = if root.join("cgroup.controllers").exists() { root.to_owned() } else { root.join("cpu") };
    world.write("Dockerfile", step("sleep 3"));
    let flags = ["--cgroup-parent", &parent, "--cpu-quota", "50000", "--cpu-period", "200000", "-c", "300", "--cpuset-cpus", "0"];
    let mut child = world.build_as_it_is(&flags).start();
    let group = hierarchy.join(&parent);
    let mut own = None;
    crate::common::wait_for("the step's group", 20, || {
        let Ok(entries) = std::fs::read_dir(&group) else { return false };
        let dirs = entries.flatten().filter(|entry| entry.path().is_dir()).map(|entry| entry.path());
        own = dirs.into_iter().find(|dir| std::fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|procs| !procs.is_empty()));
        own.is_some()
    });
    let read = |name: &str| std::fs::read_to_string(own.as_ref().unwrap().join(name)).map(|text| text.trim().to_owned()).ok();
    let quota = read("cpu.max").or_else(|| Some(format!("{} {}", read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?)));
    assert_eq!(quota.as_deref(), Some("50000 200000"));
    assert!(child.wait().unwrap().success());
    crate::common::wait_for("the removal of the step's group", 10, || !own.as_ref().unwrap().exists());
    // The parent is the user's, and these are this test's.
    for controller in ["", "memory", "cpu", "cpuacct", "cpuset", "pids", "blkio"] {
        let top = root.join(controller).join(&parent);
        let _ = std::fs::remove_dir(&top).and_then(|()| std::fs::remove_dir(top.parent().unwrap()));
    }
}

#[test]
fn a_command_finds_its_limits_in_the_control_groups_and_cannot_write_there() {
    let Some(world) = world() else { return };
    if !memory_can_be_limited() {
        return;
    }
    let look = "cd /sys/fs/cgroup && echo limit=$(cat memory.max 2>/dev/null || cat memory/memory.limit_in_bytes); \
        test -e cgroup.controllers || echo $(cat cpu/cpu.shares cpuset/cpuset.cpus cpuacct/cpuacct.usage pids/pids.max | wc -l) lines; \
        ls -d */strake 2>/dev/null; mkdir x */x 2>/dev/null; (echo 1 > cgroup.procs || echo 1 > memory/cgroup.procs) 2>/dev/null && echo $((6 * 7)) times; \
        test $(cat cgroup.procs memory/cgroup.procs 2>/dev/null | wc -l) -lt 6 && echo alone";
    let unified = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let expected = if unified { "limit=67108864\nalone\n" } else { "limit=67108864\n4 lines\nalone\n" };
    let image = world.image(&step(&format!("({look}) > /told 2>&1")), &["--memory", "67108864"]);
    assert_eq!(String::from_utf8_lossy(&image.tree()["told"].content), expected);
    let run = |flags: &[&str]| {
        let all = [&["run", "--rm", "--network", "none", "-m", "67108864"], flags, &["localhost/busybox", "sh", "-c", look]].concat();
        world.strake(all).run()
    };
    assert_eq!(run(&[]).stdout, expected);
    // With the host's groups in sight, that of the container is what is there all the same.
    if !unified {
        assert_eq!(run(&["--cgroupns", "host"]).stdout, expected);
    }
    // Without limits nothing of the host's groups shows.
    let image = world.image(&step("ls -d /sys/fs/cgroup/*/strake > /told 2>&1; true"), &["--no-cache"]);
    assert!(String::from_utf8_lossy(&image.tree()["told"].content).contains("No such file"), "only a pattern without a match");
}

/// Whether this machine's control groups can limit memory; says so if not.
fn memory_can_be_limited() -> bool {
    let root = std::path::Path::new("/sys/fs/cgroup");
    let unified = std::fs::read_to_string(root.join("cgroup.controllers")).is_ok_and(|list| list.contains("memory"));
    let able = unified || root.join("memory/memory.limit_in_bytes").exists() || root.join("memory/cgroup.procs").exists();
    if !able {
        eprintln!("skipped: no control group for memory");
    }
    able
}
