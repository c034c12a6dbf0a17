//! The system call filter: the default profile as programs of every ABI meet it, and profiles in files.

use crate::common::{Done, World, able, world};

/// A world with a compiler.
fn world_with_cc() -> Option<World> {
    able(&["docker-registry", "cc"]).then(world).flatten()
}

/// Runs a shell command in a container.
fn run(world: &World, flags: &[&str], script: &str) -> Done {
    let mut args = vec!["run", "--rm"];
    args.extend(flags);
    args.extend(["localhost/busybox", "sh", "-c", script]);
    world.strake(args).run()
}

const NO_MKDIR: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [
        {"names": ["mkdir", "mkdirat", "call_of_another_machine"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
        {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_KILL_PROCESS"}
    ]
}"#;

#[test]
fn a_profile_in_a_file_judges_the_command_and_what_is_run_later() {
    let Some(world) = world() else { return };
    std::fs::write(world.path("p.json"), NO_MKDIR).unwrap();
    let flag = "--security-opt=seccomp=p.json";
    let done = run(&world, &[flag], "mkdir /x || grep Seccomp: /proc/self/status; unshare -m echo unshared");
    // 28 is ENOSPC; the rest of the default profile does not count.
    assert!(done.stderr.contains("No space left on device") && done.stdout == "Seccomp:\t2\n", "{done}");
    assert!(done.stderr.contains("unshare"), "without CAP_SYS_ADMIN the kernel itself refuses: {done}");
    // 159: ended by SIGSYS.
    assert_eq!(run(&world, &[flag], "exec chmod 700 /tmp").code, 159);
    // As another user, and with no-new-privileges, where the filter is loaded in another way.
    for more in [&["-u", "daemon"][..], &["--security-opt", "no-new-privileges"], &["--privileged"], &["--cap-drop", "ALL"]] {
        let done = run(&world, &[&[flag], more].concat(), "mkdir /tmp/x; exec chmod 777 /tmp");
        assert!(done.stderr.contains("No space left on device") && done.code == 159, "{more:?}: {done}");
    }
    world.strake(["run", "-d", "--name", "c", flag, "localhost/busybox", "sleep", "1000"]).ok();
    world.strake(["exec", "c", "mkdir", "/x"]).fails().says(&["No space left on device"]);
    world.strake(["exec", "--privileged", "c", "mkdir", "/x"]).fails().says(&["No space left on device"]);
    // The text counts, not the file: it may be gone when the container starts again.
    std::fs::remove_file(world.path("p.json")).unwrap();
    world.strake(["restart", "-t", "0", "c"]).ok();
    world.strake(["exec", "c", "mkdir", "/x"]).fails().says(&["No space left on device"]);
    let options = world.strake(["inspect", "--format", "{{json .HostConfig.SecurityOpt}}", "c"]).ok().stdout;
    assert!(options.contains(r#"seccomp={\"defaultAction\":\"SCMP_ACT_ALLOW\",\"syscalls\":[{\"names\":[\"mkdir\","#), "{options}");
}

#[test]
fn a_strict_profile_needs_nothing_but_what_the_command_does() {
    let Some(world) = world_with_cc() else { return };
    let source = r#"
        static long call(long n, long a, long b, long c) {
            long r; __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory"); return r;
        }
        void _start(void) { call(1, 1, (long)"alive\n", 6); long r = call(83, (long)"/x", 0, 0); call(60, -r, 0, 0); }"#;
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let program = world.program("tiny", source, &["-nostdlib", "-ffreestanding"]);
    let strict = r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [{"names": ["execve", "write", "exit"], "action": "SCMP_ACT_ALLOW"},
        {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 77}]}"#;
    std::fs::write(world.path("strict.json"), strict).unwrap();
    let volume = format!("{}:/tiny:ro", program.display());
    for user in ["root", "daemon"] {
        let args = ["run", "--rm", "-u", user, "-v", &volume, "--security-opt", "seccomp=strict.json", "localhost/busybox", "/tiny"];
        let done = world.strake(args).run();
        assert!(done.code == 77 && done.stdout == "alive\n", "{user}: {done}");
    }
}

#[test]
fn rules_may_depend_on_capabilities() {
    let Some(world) = world() else { return };
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28, "excludes": {"caps": ["CAP_SYS_TIME"]}},
        {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 17, "includes": {"caps": ["CAP_SYS_TIME"], "minKernel": "4.8"}}]}"#;
    std::fs::write(world.path("p.json"), profile).unwrap();
    let flag = "--security-opt=seccomp=p.json";
    run(&world, &[flag], "mkdir /x").fails_with("No space left on device");
    run(&world, &[flag, "--cap-add", "SYS_TIME"], "mkdir /x && rmdir /x").fails_with("File exists");
    run(&world, &[flag, "--privileged"], "mkdir /x && rmdir /x").fails_with("File exists");
}

impl Done {
    #[track_caller]
    fn fails_with(&self, text: &str) {
        assert!(self.code != 0 && self.stderr.contains(text), "{self}");
    }
}

#[test]
fn a_bad_profile_is_told_with_its_place_and_nothing_is_made() {
    let Some(world) = world() else { return };
    for (text, expected) in [
        ("{\n  \"defaultAction\": \"SCMP_ACT_PERMIT\"\n}", &["p.json:2:20", "`SCMP_ACT_PERMIT` is not an action"][..]),
        ("{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\",\n", &["p.json:2", "EOF"]),
        (
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"syscalls\": [\n{\"names\": [\"a\"], \"action\": \"SCMP_ACT_NOTIFY\"}]}",
            &["seccomp profile `p.json`", "only `strake oci`"],
        ),
        (
            "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"architectures\": [\"SCMP_ARCH_X86\"], \"archMap\": [{\"architecture\": \"SCMP_ARCH_X86\"}]}",
            &["seccomp profile `p.json`", "both `architectures` and `archMap`"],
        ),
    ] {
        std::fs::write(world.path("p.json"), text).unwrap();
        let done = world.strake(["create", "--security-opt", "seccomp=p.json", "localhost/busybox"]).fails();
        done.says(expected);
    }
    world.strake(["create", "--security-opt", "seccomp=missing.json", "localhost/busybox"]).fails().says(&["`missing.json`"]);
    assert_eq!(world.strake(["ps", "-aq"]).ok().stdout, "");
}

/// Makes system calls by number and prints what comes back: through `syscall` with the bit of x32, and as a 32-bit program.
const X32: &str = r#"
    #include <stdio.h>
    #include <errno.h>
    #include <unistd.h>
    #include <sys/syscall.h>
    static void try(const char *what, long number, long a, long b) {
        errno = 0; long r = syscall(number, a, b, 0, 0, 0, 0); printf("%s %ld %d\n", what, r < 0 ? -1L : 0L, r < 0 ? errno : 0); fflush(stdout);
    }
    int main() {
        try("clone3", SYS_clone3, 0, 0); try("unshare", SYS_unshare, 0x10000000, 0); try("vsock", SYS_socket, 40, 1); try("alg", SYS_socket, 38, 5);
        try("personality", SYS_personality, 0x40000, 0); try("newer", 600, 0, 0); try("keyctl", SYS_keyctl, 0, 0);
        try("x32-unshare", 0x40000000 + 272, 0x10000000, 0); try("x32-keyctl", 0x40000000 + 250, 0, 0);
        return 0;
    }"#;

#[test]
fn the_default_profile_judges_every_abi() {
    let Some(world) = world_with_cc() else { return };
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let native = world.program("native", X32, &[]);
    let bits_32 = r#"
        static long call(long n, long a, long b, long c) { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(n), "b"(a), "c"(b), "d"(c) : "memory"); return r; }
        void _start(void) {
            call(4, 1, (long)"32 bits\n", 8);
            long r = 0;
            if (call(310, 0x10000000, 0, 0) != -1) r |= 1;   /* unshare */
            if (call(288, 0, 0, 0) != -1) r |= 2;            /* keyctl */
            if (call(359, 40, 1, 0) != -1) r |= 4;           /* socket(AF_VSOCK) */
            if (call(435, 0, 0, 0) != -38) r |= 8;           /* clone3 */
            if (call(120, 0x10000000, 0, 0) != -1) r |= 16;  /* clone(CLONE_NEWUSER) */
            if (call(20, 0, 0, 0) <= 0) r |= 32;             /* getpid works */
            call(1, r, 0, 0);
        }"#;
    let small = world.program("small", bits_32, &["-m32", "-nostdlib", "-ffreestanding", "-fno-pie", "-fno-stack-protector"]);
    let volumes = [format!("{}:/native:ro", native.display()), format!("{}:/small:ro", small.display())];
    let run = |more: &[&str], program: &str| {
        let mut args = vec!["run", "--rm", "-v", &volumes[0], "-v", &volumes[1]];
        args.extend(more);
        args.extend(["localhost/busybox", program]);
        world.strake(args).run()
    };
    // EPERM is 1, ENOSYS 38.
    let expected =
        "clone3 -1 38\nunshare -1 1\nvsock -1 1\nalg -1 1\npersonality -1 1\nnewer -1 38\nkeyctl -1 1\nx32-unshare -1 1\nx32-keyctl -1 1\n";
    let done = run(&[], "/native");
    assert!(done.code == 0 && done.stdout == expected, "{done}");
    let admin = run(&["--cap-add", "SYS_ADMIN"], "/native");
    assert!(
        admin.stdout.contains("unshare 0 0\n") && admin.stdout.contains("clone3 -1 22\n") && admin.stdout.contains("keyctl -1 1\n"),
        "{admin}"
    );
    let done = run(&[], "/small");
    // A kernel without 32-bit programs says that it cannot execute this one.
    assert!(done.code == 0 && done.stdout == "32 bits\n" || done.code == 126, "{done}");
    // A profile that names no further architectures kills them.
    std::fs::write(world.path("p.json"), r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap();
    let done = run(&["--security-opt", "seccomp=p.json"], "/small");
    assert!(done.code == 159 || done.code == 126, "{done}");
    let all = r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]}"#;
    std::fs::write(world.path("p.json"), all).unwrap();
    let done = run(&["--security-opt", "seccomp=p.json"], "/small");
    assert!(done.stdout == "32 bits\n" || done.code == 126, "{done}");
}
