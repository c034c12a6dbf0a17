//! Attempts to get out of a container, as root with the default options: those that were published against container engines, and the obvious ones. All must fail
//! inside, and leave what is outside as it was.

use std::fs;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::process::Stdio;

use crate::common::terminal::Terminal;
use crate::common::{Done, World, able, wait_for, world};
use crate::failures::Unmount;
use crate::networks::sh;

/// A world with a compiler.
fn world_with_cc() -> Option<World> {
    able(&["docker-registry", "cc"]).then(world).flatten()
}

/// Runs a shell command in a container with these flags.
fn inside(world: &World, flags: &[&str], script: &str) -> Done {
    let mut args = vec!["run", "--rm"];
    args.extend(flags);
    args.extend(["localhost/busybox", "sh", "-c", script]);
    world.strake(args).run()
}

/// A directory of the host with a file in it that nobody inside may see or change.
fn treasure(world: &World) -> std::path::PathBuf {
    let dir = world.path("treasure");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("secret"), "untouched").unwrap();
    dir
}

#[track_caller]
fn is_untouched(dir: &Path) {
    let names: Vec<_> = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!((names, fs::read_to_string(dir.join("secret")).unwrap()), (vec!["secret".into()], "untouched".to_owned()));
}

/// Each line is a name and a call: it says which of them the kernel let through.
const CALLS: &str = r#"
    #define _GNU_SOURCE
    #include <errno.h>
    #include <fcntl.h>
    #include <sched.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/mount.h>
    #include <sys/syscall.h>
    #include <sys/timex.h>
    #include <unistd.h>
    #ifndef SYS_io_uring_setup
    #define SYS_io_uring_setup 425
    #endif
    static void try(const char *name, long result) { if (result >= 0) printf("%s is open\n", name); }
    #define TRY(name, ...) do { if (fork() == 0) { try(name, syscall(__VA_ARGS__)); fflush(stdout); _exit(0); } usleep(1000); } while (0)
    int main() {
        char big[256] = {0};
        struct { unsigned bytes; int type; unsigned char handle[128]; } handle = { 8, 1, {2} };
        TRY("mount", SYS_mount, "none", "/tmp", "tmpfs", 0, 0);
        TRY("bind mount", SYS_mount, "/etc", "/tmp", 0, MS_BIND, 0);
        TRY("remount of /proc/sys", SYS_mount, "none", "/proc/sys", 0, MS_REMOUNT | MS_BIND, 0);
        TRY("umount of a mask", SYS_umount2, "/proc/kcore", MNT_DETACH);
        TRY("pivot_root", SYS_pivot_root, "/", "/tmp");
        TRY("fsopen", 430, "tmpfs", 0);
        TRY("open_tree", 428, AT_FDCWD, "/", 1);
        TRY("mount_setattr", 442, AT_FDCWD, "/proc/sys", 0, big, 32);
        TRY("unshare user", SYS_unshare, CLONE_NEWUSER);
        TRY("unshare mount", SYS_unshare, CLONE_NEWNS);
        TRY("unshare cgroup", SYS_unshare, CLONE_NEWCGROUP);
        TRY("unshare net", SYS_unshare, CLONE_NEWNET);
        TRY("clone with a user namespace", SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0);
        TRY("clone3", 435, big, 88);
        TRY("setns", SYS_setns, open("/proc/self/ns/net", O_RDONLY), 0);
        TRY("setns by pidfd", SYS_setns, (int)syscall(434, 1, 0), CLONE_NEWNS);
        TRY("bpf", SYS_bpf, 0, big, sizeof big);
        TRY("perf_event_open", SYS_perf_event_open, big, 0, -1, -1, 0);
        TRY("userfaultfd", SYS_userfaultfd, 0);
        TRY("io_uring_setup", SYS_io_uring_setup, 8, big);
        TRY("kexec_load", SYS_kexec_load, 0, 0, 0, 0);
        TRY("init_module", SYS_init_module, big, 1, "");
        TRY("finit_module", SYS_finit_module, 0, "", 0);
        TRY("delete_module", SYS_delete_module, "dummy", 0);
        TRY("keyctl: the session keyring", SYS_keyctl, 0, -3, 0);
        TRY("keyctl: the user's keyring", SYS_keyctl, 0, -4, 0);
        TRY("add_key", SYS_add_key, "user", "x", "y", 1, -4);
        TRY("request_key", SYS_request_key, "user", "x", 0, -4);
        TRY("open_by_handle_at", SYS_open_by_handle_at, AT_FDCWD, &handle, O_RDONLY);
        TRY("reboot", SYS_reboot, 0xfee1dead, 672274793, 0, 0);
        TRY("swapon", SYS_swapon, "/tmp/x", 0);
        TRY("swapoff", SYS_swapoff, "/tmp/x");
        TRY("syslog", SYS_syslog, 3, big, sizeof big);
        TRY("settimeofday", SYS_settimeofday, big, 0);
        TRY("clock_settime", SYS_clock_settime, 0, big);
        TRY("sethostname", SYS_sethostname, "evil", 4);
        TRY("acct", SYS_acct, "/tmp/acct");
        TRY("quotactl", SYS_quotactl, 0x800001, "/dev/sda", 0, big);
        TRY("fanotify_init", SYS_fanotify_init, 0, 0);
        TRY("lookup_dcookie", SYS_lookup_dcookie, 1L, big, sizeof big);
        TRY("personality without randomised addresses", SYS_personality, 0x0040000);
        TRY("vsock", SYS_socket, 40, 1, 0);
        TRY("the kernel's cryptography", SYS_socket, 38, 5, 0);
        TRY("ptrace of PID 1", SYS_ptrace, 16, 0x7fffffff, 0, 0);
        TRY("kill of a process outside", SYS_kill, 0x3fffff, 0);
    #ifdef SYS_iopl
        TRY("iopl", SYS_iopl, 3);
        TRY("ioperm", SYS_ioperm, 0x80, 1, 1);
    #endif
        sleep(1);
        puts("tried");
        return 0;
    }"#;

#[test]
fn no_system_call_reaches_out() {
    let Some(world) = world_with_cc() else { return };
    let program = world.program("calls", CALLS, &[]);
    let volume = format!("{}:/calls:ro", program.display());
    let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for flags in [&[][..], &["-u", "daemon"], &["--security-opt", "no-new-privileges"], &["--cap-drop", "ALL"], &["--network", "host"]] {
        let mut args = vec!["run", "--rm", "-v", &volume];
        args.extend(flags);
        args.extend(["localhost/busybox", "/calls"]);
        let done = world.strake(args).run();
        assert!(done.code == 0 && done.stdout == "tried\n", "{flags:?}: {done}");
    }
    // A build's steps are no other.
    world.write("calls", fs::read(&program).unwrap());
    let done = world
        .build("FROM localhost/busybox\nCOPY --chmod=755 calls /calls\nRUN /calls > /said; cat /said; test \"$(cat /said)\" = tried\n", &[])
        .run();
    assert_eq!(done.code, 0, "{done}");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), host_name);
}

/// Among them CVE-2022-0492 of the kernel: `release_agent`.
#[test]
fn the_kernels_files_can_be_neither_written_nor_read_where_that_matters() {
    let Some(world) = world() else { return };
    let core_pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let script = "
        for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/kernel/hostname /proc/sys/vm/panic_on_oom /proc/sys/fs/suid_dumpable \
            /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/uevent_helper /sys/power/state /sys/kernel/mm/ksm/run \
            /sys/module/dummy/parameters/x /sys/fs/cgroup/release_agent /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/memory/release_agent /proc/bus/pci/devices; do
            if (printf '' >> $f) 2>/dev/null; then echo $f can be written; fi
        done
        for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/interrupts; do [ -e $f ] && [ -n \"$(head -c 1 $f 2>/dev/null)\" ] && echo $f can be read; done
        for d in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do [ -d $d ] && [ -n \"$(ls $d)\" ] && echo $d can be listed; done
        for f in /dev/kmsg /dev/mem /dev/port /dev/sda /dev/vda /dev/loop0 /dev/loop-control /dev/fuse /dev/kvm /dev/disk; do [ -e $f ] && echo $f is there; done
        for dev in 'b 7 0' 'b 8 0' 'b 252 0' 'b 254 0' 'c 1 1' 'c 1 2' 'c 1 4' 'c 1 11' 'c 10 229'; do
            rm -f /tmp/node; mknod /tmp/node $dev && (head -c 1 /tmp/node >/dev/null) 2>/dev/null && echo $dev can be opened
        done
        mkdir /sys/fs/cgroup/x 2>/dev/null && echo groups can be made
        mkdir /tmp/cg; mount -t cgroup -o memory cgroup /tmp/cg 2>/dev/null && echo a hierarchy can be mounted
        unshare -Ur mount -t cgroup -o rdma cgroup /tmp/cg 2>/dev/null && echo a hierarchy can be mounted in a namespace
        mount -t proc proc /tmp/cg 2>/dev/null && echo proc can be mounted
        mount -o remount,rw /sys 2>/dev/null && echo sys can be mounted again
        umount /proc/kcore 2>/dev/null && echo masks can be taken off
        echo tried";
    let done = inside(&world, &[], script);
    assert!(done.stdout == "tried\n", "{done}");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), core_pattern);
    assert_eq!(inside(&world, &["--cap-add", "SYS_ADMIN"], "echo x > /proc/sys/kernel/core_pattern").code, 1);
}

/// CVE-2024-21626 of runc: the working directory through a descriptor that leaked.
#[test]
fn no_working_directory_leads_out_through_a_descriptor() {
    let Some(world) = world() else { return };
    let out = treasure(&world);
    let look = format!(
        "cat .{0}/secret ../../../../../../../../..{0}/secret; for i in 3 4 5 6 7 8 9 10 11 12; do cat /proc/self/fd/$i{0}/secret; done",
        out.display()
    );
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sleep", "1000"]).ok();
    for number in [3, 4, 5, 6, 7, 8, 9, 10, 12, 16] {
        let dir = format!("/proc/self/fd/{number}");
        for done in [
            inside(&world, &["-w", &dir], &look),
            inside(&world, &["-w", &format!("{dir}/../../..")], &look),
            world.strake(["exec", "-w", &dir, "c", "sh", "-c", &look]).run(),
        ] {
            assert!(!done.stdout.contains("untouched") && done.code != 0, "{number}: {done}");
        }
    }
    for number in [3, 7, 8, 9] {
        let text = format!("FROM localhost/busybox\nWORKDIR /proc/self/fd/{number}\nRUN {look}\n");
        let done = world.build(&text, &[]).run();
        assert!(!done.stderr.contains("untouched") && done.code != 0, "{number}: {done}");
        let text = format!("FROM localhost/busybox\nRUN ln -s /proc/self/fd/{number} /dir\nWORKDIR /dir\nRUN {look}\n");
        let done = world.build(&text, &[]).run();
        assert!(!done.stderr.contains("untouched") && done.code != 0, "{number}: {done}");
    }
    is_untouched(&out);
}

/// CVE-2019-5736 of runc: the engine's own program, overwritten through `/proc/self/exe`.
#[test]
fn the_engines_own_program_is_out_of_reach() {
    let Some(world) = world() else { return };
    let engine = Path::new(env!("CARGO_BIN_EXE_strake"));
    let before = (fs::metadata(engine).unwrap().len(), fs::metadata(engine).unwrap().modified().unwrap());
    let text = "FROM localhost/busybox\nRUN printf '#!/proc/self/exe\\n' > /script && chmod 755 /script && ln -s /proc/self/exe /link\n";
    world.build(text, &["-t", "evil"]).ok();
    world
        .strake([
            "run",
            "-d",
            "--name",
            "c",
            "evil",
            "sh",
            "-c",
            "
        while :; do for p in /proc/[0-9]*; do
            if [ \"$(readlink $p/exe)\" != /bin/busybox ] && [ -n \"$(readlink $p/exe)\" ]; then readlink $p/exe >> /seen; fi
            if (head -c 4 $p/exe | grep -q ELF) 2>/dev/null && ! cmp -s $p/exe /bin/busybox; then echo read $p >> /seen; fi
        done; done",
        ])
        .ok();
    for command in ["/proc/self/exe", "/script", "/link", "/proc/1/../self/exe"] {
        for done in [
            world.strake(["run", "--rm", "--entrypoint", command, "evil", "version"]).run(),
            world.strake(["exec", "c", command, "version"]).run(),
        ] {
            assert!(done.code == 126 && done.stdout.is_empty(), "{command}: {done}");
        }
        world.build(&format!("FROM evil\nRUN [\"{command}\", \"version\"]\n"), &[]).fails();
    }
    for _ in 0..10 {
        world.strake(["exec", "c", "true"]).ok();
    }
    let seen = world.strake(["exec", "c", "cat", "/seen"]).run();
    assert_eq!(seen.stdout, "", "a process of the engine could be looked into: {seen}");
    // The init that stays is no way either.
    let done = inside(
        &world,
        &["--init"],
        "readlink /proc/1/exe; head -c 4 /proc/1/exe; cat /proc/1/mem /proc/1/environ; ls /proc/1/root; echo $$",
    );
    assert!(done.stdout.trim().parse::<u32>().is_ok(), "{done}");
    assert_eq!(before, (fs::metadata(engine).unwrap().len(), fs::metadata(engine).unwrap().modified().unwrap()));
}

/// CVE-2021-30465 of runc, CVE-2024-23651 and -23652 of BuildKit, CVE-2022-23648 of containerd: links in the image where something is mounted or copied.
#[test]
fn links_at_mount_points_stay_inside() {
    let Some(world) = world() else { return };
    let out = treasure(&world);
    let up = format!("../../../../../../../../../..{}", out.display());
    let text = format!(
        "FROM localhost/busybox\nRUN mkdir /deep && ln -s {up} /deep/link && ln -s {0} /abs && ln -s /proc /toproc && ln -s / /root-link\nVOLUME /abs\n",
        out.display()
    );
    world.build(&text, &["-t", "links"]).ok();
    fs::create_dir(world.path("mine")).unwrap();
    fs::write(world.path("mine/own"), "own").unwrap();
    for target in ["/deep/link/x", "/abs/x", "/deep/link", "/root-link/a/b"] {
        let volume = format!("{}:{target}", world.path("mine").display());
        let done = world
            .strake([
                "run",
                "--rm",
                "-v",
                &volume,
                "links",
                "sh",
                "-c",
                &format!("cat {target}/own; cat {target}/../secret {target}/secret /abs/secret"),
            ])
            .run();
        assert!(!done.stdout.contains("untouched"), "{target}: {done}");
        is_untouched(&out);
    }
    for target in ["/toproc/self/attr", "/toproc/sys/kernel", "/proc/self/exe", "/proc/1/fd/0"] {
        let volume = format!("{}:{target}", world.path("mine").display());
        let done = world.strake(["run", "--rm", "-v", &volume, "links", "true"]).run();
        assert_ne!(done.code, 0, "{target}: {done}");
    }
    // What an anonymous volume is filled with is the image's.
    let done = world.strake(["run", "--rm", "links", "sh", "-c", "cat /abs/secret /abs/*; echo done"]).run();
    assert!(done.stdout == "done\n", "{done}");
    // Steps of a build: mounts through links, and what is left where they were.
    for mount in [
        "type=cache,target=/abs/c",
        "type=tmpfs,target=/deep/link/t",
        "type=bind,source=Dockerfile,target=/abs/d",
        "type=cache,target=/deep/link",
    ] {
        let text = format!("FROM links\nRUN --mount={mount} cat /abs/secret /deep/link/secret; true\n");
        let done = world.build(&text, &["--no-cache"]).run();
        assert!(!done.stderr.contains("untouched"), "{mount}: {done}");
        is_untouched(&out);
    }
    let swap = format!(
        "FROM localhost/busybox\nRUN --mount=type=tmpfs,target=/a/secret mv /a /b; ln -s {0} /a; rm -rf /b; ls -la /\nRUN ls /a/; true\n",
        out.display()
    );
    let done = world.build(&swap, &[]).run();
    assert!(!done.stderr.contains("untouched"), "{done}");
    is_untouched(&out);
}

/// The same race (CVE-2024-45310 of runc): a mount point below a volume that another container changes all the time.
#[test]
fn a_mount_point_that_is_exchanged_meanwhile_stays_inside() {
    let Some(world) = world() else { return };
    let out = treasure(&world);
    let flip = format!(
        "mkdir -p /v/d; while :; do mv /v/d /v/e; ln -s / /v/d; rm /v/d; ln -s {} /v/d; rm /v/d; mv /v/e /v/d; done",
        out.display()
    );
    world.strake(["run", "-d", "--name", "flip", "-v", "shared:/v", "localhost/busybox", "sh", "-c", &flip]).ok();
    fs::create_dir(world.path("mine")).unwrap();
    let volume = format!("{}:/v/d/x", world.path("mine").display());
    for _ in 0..6 {
        let done = world
            .strake([
                "run",
                "--rm",
                "-v",
                "shared:/v",
                "-v",
                &volume,
                "localhost/busybox",
                "sh",
                "-c",
                "cat /v/d/secret /v/*/secret; cat /proc/1/comm",
            ])
            .run();
        assert!(!done.stdout.contains("untouched"), "{done}");
        is_untouched(&out);
    }
}

/// CVE-2024-23651 of BuildKit: the source of a mount is exchanged for a link between the look at it and the mounting.
#[test]
fn a_part_of_a_volume_that_is_exchanged_meanwhile_stays_inside() {
    let Some(world) = world_with_cc() else { return };
    let out = treasure(&world);
    let source = r#"
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <stdio.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        int main(int count, char **names) { for (;;) syscall(SYS_renameat2, AT_FDCWD, names[1], AT_FDCWD, names[2], 2); }
    "#;
    let swap = world.program("swap", source, &[]);
    fs::copy(swap, world.context().join("swap")).unwrap();
    world.build("FROM localhost/busybox\nCOPY swap /swap\n", &["-t", "swaps"]).ok();
    let flip = format!("mkdir /v/d; ln -s {} /v/l; exec /swap /v/d /v/l", out.display());
    world.strake(["run", "-d", "--name", "flip", "-v", "parts:/v", "swaps", "sh", "-c", &flip]).ok();
    for _ in 0..30 {
        let mount = "type=volume,src=parts,dst=/x,volume-subpath=d";
        let done =
            world.strake(["run", "--rm", "--network", "none", "--mount", mount, "swaps", "sh", "-c", "cat /x/secret; touch /x/mine"]).run();
        assert!(!done.stdout.contains("untouched"), "{done}");
        is_untouched(&out);
    }
}

/// CVE-2018-15664 and CVE-2019-14271 of Docker: copying while the container exchanges directories for links, and programs of the image that the copier loads.
#[test]
fn copies_cannot_be_led_out() {
    let Some(world) = world() else { return };
    let out = treasure(&world);
    let flip = format!("mkdir -p /d; while :; do mv /d /e; ln -s {} /d; rm /d; mv /e /d; done", out.display());
    world.strake(["run", "-d", "--name", "c", "localhost/busybox", "sh", "-c", &flip]).ok();
    fs::write(world.path("planted"), "planted").unwrap();
    for round in 0..8 {
        world.strake(["cp", "planted", "c:/d/planted"]).run();
        let back = world.path(&format!("back-{round}"));
        world.strake(["cp".as_ref(), "c:/d/secret".as_ref(), back.as_os_str()]).run();
        assert!(!back.exists(), "the host's file came out of the container");
        is_untouched(&out);
    }
}

/// A user of a container exchanges what is being copied into its directory for something of root's, or of its own: neither gets what was meant for the copy.
#[test]
fn what_is_put_in_the_place_of_a_file_that_is_copied_gets_nothing_of_it() {
    let Some(world) = world() else { return };
    let shared = world.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(shared.join("secret"), "untouched").unwrap();
    fs::set_permissions(shared.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let volume = format!("{}:/s", shared.display());
    world.strake(["run", "-d", "--name", "c", "--user", "1000", "-v", &volume, "localhost/busybox", "sleep", "1000"]).ok();
    let inside = |script: &str| world.strake(["exec", "c", "sh", "-c", script]).ok();
    inside("echo program > /s/mine");
    let archive = {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, mode) in [("one", 0o4755), ("two", 0o644)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(1 << 20);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1000);
            tar.append_data(&mut header, name, std::io::repeat(b'x').take(1 << 20)).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let mut copy = world.strake(["cp", "-", "c:/s"]);
    let mut copy = copy.command().stdin(Stdio::piped()).spawn().unwrap();
    let mut input = copy.stdin.take().unwrap();
    // Half of each file, and the exchange while it is being written.
    let (mut rest, half) = (&archive[..], 512 + (1 << 19));
    for (name, other) in [("one", "mine"), ("two", "secret")] {
        let next;
        (next, rest) = rest.split_at(half);
        input.write_all(next).unwrap();
        wait_for("the file", 20, || shared.join(name).exists());
        inside(&format!("mv /s/{name} /s/copy-{name} && mv /s/{other} /s/{name}"));
        let next;
        (next, rest) = rest.split_at(1 << 19);
        input.write_all(next).unwrap();
    }
    input.write_all(rest).unwrap();
    drop(input);
    assert!(copy.wait().unwrap().success());
    let found = |name: &str| {
        let metadata = fs::metadata(shared.join(name)).unwrap();
        (metadata.uid(), metadata.mode() & 0o7777, metadata.len())
    };
    assert_eq!([found("one"), found("two")], [(1000, 0o644, 8), (0, 0o600, 9)], "what was there before");
    assert_eq!([found("copy-one"), found("copy-two")], [(0, 0o4755, 1 << 20), (0, 0o644, 1 << 20)], "the copies");
    assert_eq!(fs::metadata(shared.join("copy-two")).unwrap().mtime(), 1000);
}

/// CVE-2025-31133 and CVE-2025-52565 of runc, CVE-2023-27561 and CVE-2023-28642 before them: places of masks and mounts that are something else.
#[test]
fn an_image_cannot_misplace_what_is_mounted_for_it() {
    let Some(world) = world() else { return };
    let core_pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for change in [
        "rm -rf /proc && ln -s /tmp /proc",
        "rm -rf /sys && ln -s /tmp /sys",
        "rm -rf /dev && ln -s /proc /dev",
        "rm -rf /dev && mkdir /dev && ln -s /proc/sys/kernel/core_pattern /dev/null && ln -s /proc/sys/kernel/core_pattern /dev/console",
        "rm -rf /proc && touch /proc",
    ] {
        // Changed from outside of a sandbox, whose own /proc is in the way.
        let tree = world.path("ctx/tree");
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir(&tree).unwrap();
        let script = change.replace(" /", &format!(" {}/", tree.display())).replace(&format!("ln -s {}/", tree.display()), "ln -s /");
        crate::common::Run::new("sh", ["-c", &format!("mkdir -p {0}/proc {0}/sys {0}/dev; {script}", tree.display())]).ok();
        world.build("FROM localhost/busybox\nCOPY tree/ /\n", &["-t", "odd", "--no-cache"]).run();
        let script = "echo evil > /proc/sys/kernel/core_pattern; echo evil > /dev/null; echo evil > /dev/console; [ -c /dev/null ] || echo no null; head -c 1 /proc/kcore";
        let done = world.strake(["run", "--rm", "odd", "sh", "-c", script]).run();
        assert!(!done.stdout.contains("no null") || done.code != 0, "{change}: {done}");
        assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), core_pattern, "{change}: {done}");
    }
}

/// CVE-2020-15257 of containerd, and all that one process could do to another.
#[test]
fn processes_and_sockets_of_the_host_are_not_there() {
    let Some(world) = world() else { return };
    let own = std::process::id();
    let name = format!("\0strake-escape-{own}");
    let address = <SocketAddr as SocketAddrExt>::from_abstract_name(&name.as_bytes()[1..]).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let done = inside(
        &world,
        &[],
        &format!("ls /proc | grep -c '^[0-9]'; kill -0 {own} 2>&1; grep -c strake-escape /proc/net/unix; ls -d /proc/{own}"),
    );
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines[0].parse::<u32>().unwrap() <= 4 && lines[1].contains("No such process") && lines[2] == "0" && lines.len() == 3, "{done}");
    // With the host's network such names are shared; none of them is the engine's.
    world.strake(["run", "-d", "--network", "host", "--name", "c", "localhost/busybox", "sleep", "1000"]).ok();
    let done = world.strake(["exec", "c", "cat", "/proc/net/unix"]).ok();
    let ours: Vec<&str> = done.stdout.lines().filter(|line| line.contains("@strake") && !line.contains("strake-escape")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}

/// CVE-2022-24769 of Moby (inheritable capabilities), CVE-2022-36109 (groups), and set-user-ID programs.
#[test]
fn a_process_has_no_more_than_it_was_given() {
    let Some(world) = world_with_cc() else { return };
    let source = "#include <stdio.h>\n#include <unistd.h>\nint main() { printf(\"%d %d\\n\", geteuid(), setuid(0)); return 0; }";
    let program = world.program("suid", source, &[]);
    world.write("suid", fs::read(&program).unwrap());
    world.build("FROM localhost/busybox\nCOPY suid /suid\nRUN chmod 4755 /suid\n", &["-t", "suid"]).ok();
    let run = |flags: &[&str], command: &[&str]| {
        let mut args = vec!["run", "--rm"];
        args.extend(flags);
        args.push("suid");
        args.extend(command);
        world.strake(args).ok().stdout
    };
    assert_eq!(run(&["-u", "daemon"], &["/suid"]), "0 0\n");
    assert_eq!(run(&["-u", "daemon", "--security-opt", "no-new-privileges"], &["/suid"]), "1 -1\n");
    // A volume of the host does not bring such programs where it says so; without, they count as anywhere.
    for user in ["root", "daemon", "7:8"] {
        let status = run(&["-u", user], &["grep", "-E", "^(CapInh|CapAmb|Groups):", "/proc/self/status"]);
        let lines: Vec<&str> = status.lines().map(|line| line.split_once(':').unwrap().1.trim()).collect();
        assert_eq!(lines[1..], ["0000000000000000"; 2], "{user}: {status}");
        let groups = match user {
            "root" => "0",
            "daemon" => "1",
            _ => "8",
        };
        assert_eq!(lines[0], groups, "{user}: {status}");
    }
    assert_eq!(run(&["-u", "7:8", "--group-add", "staff"], &["id", "-G"]), "8 50\n");
    // Packets of one's own making need the capability for it.
    let raw = world.strake(["run", "--rm", "--cap-drop", "NET_RAW", "suid", "ping", "-c", "1", "127.0.0.1"]).run();
    assert!(raw.code != 0, "{raw}");
}

#[test]
fn names_are_no_paths() {
    let Some(world) = world() else { return };
    let out = treasure(&world);
    let path = format!("../../../../../../..{}", out.display());
    for args in [
        &["create", "--name", "../x", "localhost/busybox"][..],
        &["create", "--name", &path, "localhost/busybox"],
        &["volume", "create", "../x"],
        &["volume", "create", &path],
        &["run", "--rm", "-v", "a/../../b:/x", "localhost/busybox", "true"],
        &["run", "--rm", "--mount", "type=volume,source=../../x,target=/x", "localhost/busybox", "true"],
        &["run", "--rm", "../../etc/passwd"],
        &["volume", "rm", "../volumes"],
        &["tag", "localhost/busybox", "../../x"],
    ] {
        world.strake(args).fails();
    }
    is_untouched(&out);
    assert!(!world.path("x").exists() && world.root().join("containers").exists());
    // A mount point is inside, however it is written.
    let done = inside(&world, &["--tmpfs", "/a/../../../b"], "grep -c ' /b tmpfs' /proc/mounts");
    assert_eq!(done.stdout, "1\n", "{done}");
}

/// What a container's environment says is no setting of the engine's.
#[test]
fn the_environment_of_an_image_does_not_steer_the_engine() {
    let Some(world) = world() else { return };
    let out = treasure(&world);
    let text = format!(
        "FROM localhost/busybox\nENV STRAKE_ROOT={0} LD_PRELOAD={0}/secret LD_LIBRARY_PATH={0} DOCKER_CONFIG={0} HOME={0} TMPDIR={0}\n",
        out.display()
    );
    world.build(&text, &["-t", "env"]).ok();
    world.strake(["run", "-d", "--name", "c", "env", "sleep", "1000"]).ok();
    assert_eq!(world.strake(["exec", "-e", "STRAKE_ROOT=/x", "c", "sh", "-c", "echo $STRAKE_ROOT"]).ok().stdout, "/x\n");
    world.strake(["rm", "-f", "c"]).ok();
    is_untouched(&out);
}

/// The caller's terminal and streams: nothing of them is a way to its input.
#[test]
fn the_callers_terminal_is_out_of_reach() {
    let Some(world) = world_with_cc() else { return };
    let source = r#"
        #include <errno.h>
        #include <fcntl.h>
        #include <stdio.h>
        #include <sys/ioctl.h>
        #include <unistd.h>
        int main() {
            int tty = open("/dev/tty", O_RDWR); char c = 'x'; int open = tty >= 0;
            for (int fd = 0; fd < 16; fd++) if (ioctl(fd, TIOCSTI, &c) == 0) open = 2;
            printf("open=%d\n", open); return 0;
        }"#;
    let program = world.program("tty", source, &[]);
    let volume = format!("{}:/tty:ro", program.display());
    let command = world.strake(["run", "--rm", "-i", "-v", &volume, "localhost/busybox", "/tty"]);
    let mut terminal = Terminal::start(command, 24, 80);
    terminal.expect("open=0");
    terminal.end();
}

/// CVE-2019-5736: whoever comes to hold the program that entered a container can do so beyond the end of that process, when the kernel does not refuse to write to it any more.
#[test]
fn the_program_that_enters_containers_cannot_be_written_to_from_inside() {
    let Some(world) = world() else { return };
    // A copy that nobody else executes, as the kernel writes to no program that is.
    let copy = world.path("strake");
    fs::copy(env!("CARGO_BIN_EXE_strake"), &copy).unwrap();
    let own = fs::metadata(&copy).unwrap();
    let strake = |args: &[&str]| world.program_at(copy.to_str().unwrap(), args);
    // All processes that were executed from the binary and start sandboxes, or are in one: held open as a container would.
    let held = |file: &str, text: &str| -> Vec<fs::File> {
        let pids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        let is_meant = |pid: &Path| fs::read(pid.join(file)).is_ok_and(|found| String::from_utf8_lossy(&found).contains(text));
        let found = pids.filter(|pid| is_meant(pid)).filter_map(|pid| fs::File::open(pid.join("exe")).ok());
        let is_own = |file: &fs::File| file.metadata().is_ok_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino()));
        found.filter(is_own).collect()
    };
    let is_out_of_reach = |files: Vec<fs::File>, what: &str| {
        assert!(!files.is_empty(), "no process is {what}");
        for file in files {
            let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            wait_for(what, 20, || {
                let error = fs::File::options().write(true).open(&path).unwrap_err();
                // As long as it is executed, the kernel refuses in another way.
                assert!([30, 26].contains(&error.raw_os_error().unwrap()), "{what}: {error}");
                error.raw_os_error() == Some(30)
            });
        }
    };
    strake(&["run", "-d", "--name", "held", "localhost/busybox", "sleep", "600"]).ok();
    let supervisors = held("cmdline", &format!("strake-supervisor\0detached\0{}", world.root().display()));
    strake(&["rm", "-f", "held"]).ok();
    is_out_of_reach(supervisors, "the supervisor of a container");
    world.write("Dockerfile", "FROM localhost/busybox\nRUN sleep 600\n");
    let mut build = strake(&["build", "--no-cache", world.context().to_str().unwrap()]).start();
    let mut spawners = Vec::new();
    wait_for("a spawner", 30, || {
        spawners = held("status", &format!("PPid:\t{}\n", build.id()));
        !spawners.is_empty()
    });
    build.kill().unwrap();
    build.wait().unwrap();
    is_out_of_reach(spawners, "the spawner of a build");
    // An OCI container that was created: its first process is the program until it is started.
    let bundle = world.path("bundle");
    fs::create_dir_all(bundle.join("rootfs/proc")).unwrap();
    fs::create_dir_all(bundle.join("rootfs/dev")).unwrap();
    fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
    fs::copy("/bin/busybox", bundle.join("rootfs/bin/sh")).unwrap();
    strake(&["oci", "spec", "-b", bundle.to_str().unwrap()]).ok();
    let config = fs::read_to_string(bundle.join("config.json")).unwrap().replace("\"terminal\": true", "\"terminal\": false");
    fs::write(bundle.join("config.json"), config).unwrap();
    let root = world.path("oci");
    // The streams of `create` are those of the container.
    let oci = |args: &[&str]| {
        let mut command = std::process::Command::new(&copy);
        command.args(["oci", "--root", root.to_str().unwrap()]).args(args);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(status.success(), "{args:?}: {status}");
    };
    oci(&["create", "-b", bundle.to_str().unwrap(), "created"]);
    let created = held("cmdline", bundle.to_str().unwrap());
    oci(&["delete", "-f", "created"]);
    is_out_of_reach(created, "the first process of an OCI container");
}

/// Who enters a container can be stopped in there before its command runs. One that may trace has it then: it must be no more than the command will be (CVE-2016-9962).
#[test]
fn who_may_trace_has_no_more_of_what_enters_than_of_its_command() {
    let Some(world) = world() else { return };
    let dir = treasure(&world);
    // Commands of the shell alone: every process would take the number that the next to enter gets.
    let script = format!(
        "n=2; while [ $n -lt 14 ]; do
            until kill -STOP $n; do :; done 2>/dev/null
            while read key value; do case $key in CapPrm:|CapBnd:|Seccomp:) echo $key $value;; esac; done < /proc/$n/status
            if [ -e /proc/$n/root{} ]; then echo outside; fi
            for fd in /proc/$n/fd/*; do if [ -d $fd ]; then echo leads out; fi; done
            kill -KILL $n; n=$((n+1))
        done; sleep 1000",
        dir.display()
    );
    world.strake(["run", "-d", "--name", "tracer", "--cap-add", "SYS_PTRACE", "localhost/busybox", "sh", "-c", &script]).ok();
    for _ in 2..14 {
        assert_eq!(world.strake(["exec", "tracer", "sleep", "20"]).run().code, 137);
    }
    let logs = world.strake(["logs", "tracer"]).ok();
    let expected = "CapPrm: 00000000a80c25fb\nCapBnd: 00000000a80c25fb\nSeccomp: 2\n".repeat(12);
    assert_eq!(logs.stdout, expected);
    is_untouched(&dir);
    // And what enters is of use.
    world.strake(["run", "-d", "--name", "other", "--cap-add", "SYS_PTRACE", "--memory", "64m", "localhost/busybox", "sleep", "1000"]).ok();
    let said = world
        .strake(["exec", "-i", "-u", "1000:1001", "-w", "/tmp", "other", "sh", "-c", "cat; pwd; id -u; id -g; exit 7"])
        .stdin(*b"in\n")
        .run();
    assert_eq!((said.code, said.stdout.as_str()), (7, "in\n/tmp\n1000\n1001\n"));
    let group = world.strake(["exec", "other", "cat", "/proc/1/cgroup"]).ok().stdout;
    assert_eq!(world.strake(["exec", "other", "cat", "/proc/self/cgroup"]).ok().stdout, group);
    assert_eq!(world.strake(["exec", "other", "nothing-like-that"]).run().code, 127);
}

/// A set-user-ID file of a container is one of the host as well: nobody else may come near it (CVE-2021-41091).
#[test]
fn the_store_is_closed_to_other_users() {
    let Some(world) = world() else { return };
    let mode = || fs::metadata(world.root()).unwrap().mode() & 0o7777;
    assert_eq!(mode(), 0o700);
    // As older versions made it.
    fs::set_permissions(world.root(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    let flags = ["run", "--rm", "--user", "1000", "-v", "data:/data", "localhost/busybox"];
    world.strake(flags.iter().copied().chain(["sh", "-c", "id -u; pwd; ls -d /data"])).ok();
    assert_eq!(mode(), 0o700);
}

/// Nodes of devices work on what the host mounts later, whatever the mounts of the container were made with.
#[test]
fn devices_stay_shut_on_what_is_mounted_later() {
    let Some(world) = world() else { return };
    let dir = world.path("shared");
    fs::create_dir(&dir).unwrap();
    let (path, below) = (dir.display().to_string(), dir.join("later").display().to_string());
    sh(&format!("mount -t tmpfs none {path} && mount --make-shared {path} && mkdir {below}"));
    let _mounted = Unmount(dir);
    let partitions = fs::read_to_string("/proc/partitions").unwrap();
    let Some(disk) = partitions.lines().nth(2) else { return eprintln!("skipped: no disk that could be read") };
    let numbers: Vec<&str> = disk.split_whitespace().take(2).collect();
    let read = "mknod $1/zero c 1 5 && head -c 2 $1/zero | wc -c; mknod $1/disk b NUMBERS && head -c 2 $1/disk | wc -c";
    let read = read.replace("NUMBERS", &numbers.join(" "));
    world.strake(["run", "-d", "--name", "follower", "-v", &format!("{path}:/host:rslave"), "localhost/busybox", "sleep", "1000"]).ok();
    sh(&format!("mount -t tmpfs none {below}"));
    let said = world.strake(["exec", "follower", "sh", "-c", &read, "sh", "/host/later"]).run();
    said.says(&["Operation not permitted"]);
    assert_eq!(said.stdout, "2\n0\n");
    let mounts = format!("mkdir /t && mount -t tmpfs none /t && {read}");
    let said = inside(&world, &["--cap-add", "SYS_ADMIN"], &mounts.replace("$1", "/t"));
    said.says(&["Operation not permitted"]);
    assert_eq!(said.stdout, "2\n0\n");
    // What was given still works, and limits beside it.
    let flags = ["--cap-add", "SYS_ADMIN", "--memory", "64m", "--device", "/dev/zero:/dev/given"];
    assert_eq!(inside(&world, &flags, "head -c 2 /dev/given | wc -c; head -c 2 /dev/urandom | wc -c").stdout, "2\n2\n");
    world.strake(["rm", "-f", "follower"]).ok();
}

#[test]
fn who_may_trace_gets_no_company() {
    let Some(world) = world() else { return };
    let start = |name: &str, flags: &[&str]| {
        world.strake([&["run", "-d", "--name", name][..], flags, &["localhost/busybox", "sleep", "1000"]].concat()).run()
    };
    assert_eq!(start("tracer", &["--cap-add", "SYS_PTRACE"]).code, 0);
    assert_eq!(start("host", &[]).code, 0);
    for (guest, flags) in
        [("guest", &["--pid", "container:tracer"][..]), ("debugger", &["--cap-add", "SYS_PTRACE", "--pid", "container:host"])]
    {
        let refused = start(guest, flags);
        assert_eq!(refused.code, 125, "{guest}");
        refused.says(&["SYS_PTRACE", "hint:", "strake exec"]);
    }
    assert_eq!(start("neighbour", &["--pid", "container:host"]).code, 0);
}
