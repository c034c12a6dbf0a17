//! The filter's verdicts, by running its program as the kernel does.

use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

const KILL_PROCESS: u32 = 0x8000_0000;

/// Runs a program on a system call, as in the kernel's `Documentation/networking/filter.rst`; gives the verdict and the number of instructions.
fn run(program: &[BpfInstruction], arch: u32, number: u32, arguments: &[u64]) -> (u32, usize) {
    let mut data = [0u8; 64];
    data[..4].copy_from_slice(&number.to_le_bytes());
    data[4..8].copy_from_slice(&arch.to_le_bytes());
    for (index, argument) in arguments.iter().enumerate() {
        data[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_le_bytes());
    }
    let (mut at, mut accumulator) = (0, 0u32);
    for steps in 1.. {
        let BpfInstruction { code, jump_true, jump_false, constant } = program[at];
        at += 1;
        let taken = match code {
            0x20 => {
                let offset = constant as usize;
                accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
                0
            }
            0x05 => constant as usize,
            0x15 => usize::from(if accumulator == constant { jump_true } else { jump_false }),
            0x25 => usize::from(if accumulator > constant { jump_true } else { jump_false }),
            0x35 => usize::from(if accumulator >= constant { jump_true } else { jump_false }),
            0x54 => {
                accumulator &= constant;
                0
            }
            0x06 => return (constant, steps),
            other => panic!("unknown instruction {other:#x}"),
        };
        at += taken;
    }
    unreachable!()
}

/// The default profile on one call.
#[track_caller]
fn verdict(capabilities: Capabilities, arch: u32, number: u32, argument: u64) -> u32 {
    run(&default_filter(capabilities).program, arch, number, &[argument]).0
}

fn with(name: &str) -> Capabilities {
    Capabilities::DEFAULT.union(Capabilities::named(name).unwrap())
}

/// The program of a profile for a container with the default capabilities on Linux 6.1.
#[track_caller]
fn program(json: &str) -> Vec<BpfInstruction> {
    let host = SeccompHost { capabilities: Capabilities::DEFAULT, kernel: (6, 1) };
    compile(&SeccompProfile::parse(json).unwrap().rules(&host).unwrap().unwrap())
}

/// A native system call under a profile.
#[track_caller]
fn judge(json: &str, name: &str, arguments: &[u64]) -> u32 {
    let arch = if Abi::NATIVE == Abi::X86_64 { X86_64 } else { AUDIT_ARCH_AARCH64 };
    run(&program(json), arch, Abi::NATIVE.number(name).unwrap(), arguments).0
}

#[track_caller]
fn malformed(json: &str) -> (String, usize, usize) {
    match SeccompProfile::parse(json) {
        Err(SeccompProfileError::Malformed { message, line, column }) => (message, line, column),
        other => panic!("{other:?}"),
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_number_has_the_verdict_of_its_name() {
    let SeccompRules { rules, .. } = builtin::rules(Capabilities::DEFAULT);
    let program = default_filter(Capabilities::DEFAULT).program;
    for (abi, arch, base) in [(Abi::X86_64, X86_64, 0), (Abi::X32, X86_64, X32_BIT), (Abi::X86, I386, 0)] {
        let newest = rules.iter().flat_map(|rule| &rule.names).filter_map(|name| abi.number(name)).max().unwrap();
        for number in 0..600 {
            let named = rules.iter().find(|rule| rule.names.iter().any(|name| abi.number(name) == Some(number)));
            let expected = match named.map(|rule| rule.action) {
                // The argument is 0: a plain thread or process, an unknown family, the default personality.
                Some(action) => action.value(),
                None if number > newest => ENOSYS,
                None => EPERM,
            };
            assert_eq!(run(&program, arch, base + number, &[0]).0, expected, "{abi:?} {number}");
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn arguments_decide_over_clone_socket_and_personality() {
    let (default, admin) = (Capabilities::DEFAULT, with("SYS_ADMIN"));
    assert_eq!(verdict(default, X86_64, 56, libc::SIGCHLD as u64), ALLOW);
    assert_eq!(verdict(default, X86_64, 56, libc::CLONE_NEWUSER as u64), EPERM);
    assert_eq!(verdict(default, X86_64, 56, (libc::CLONE_NEWNS | libc::SIGCHLD) as u64), EPERM);
    assert_eq!(verdict(default, I386, 120, libc::CLONE_NEWUSER as u64), EPERM);
    assert_eq!(verdict(default, X86_64, X32_BIT + 56, libc::CLONE_NEWUSER as u64), EPERM);
    assert_eq!(verdict(admin, X86_64, 56, libc::CLONE_NEWUSER as u64), ALLOW);
    assert_eq!(verdict(default, X86_64, 435, 0), ENOSYS);
    assert_eq!(verdict(admin, X86_64, 435, 0), ALLOW);
    for (family, expected) in
        [(0, ALLOW), (1, ALLOW), (2, ALLOW), (10, ALLOW), (11, ALLOW), (12, EPERM), (13, ALLOW), (16, ALLOW), (18, ALLOW), (19, EPERM)]
            .into_iter()
            .chain([(23, EPERM), (24, ALLOW), (25, EPERM), (34, EPERM), (38, EPERM), (39, ALLOW), (40, EPERM), (45, ALLOW), (46, EPERM)])
    {
        assert_eq!(verdict(default, X86_64, 41, family), expected, "family {family}");
    }
    // All 64 bits count, though the kernel looks at the low half only; 32-bit programs have no others.
    assert_eq!(verdict(default, X86_64, 41, 1 << 32 | 1), EPERM);
    assert_eq!(verdict(default, I386, 359, 40), EPERM);
    for (personality, expected) in
        [(0, ALLOW), (8, ALLOW), (0x20000, ALLOW), (0x20008, ALLOW), (0xffff_ffff, ALLOW), (0x40000, EPERM), (9, EPERM)]
    {
        assert_eq!(verdict(default, X86_64, 135, personality), expected, "personality {personality:#x}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn capabilities_open_their_system_calls() {
    let call = |name: &str| Abi::X86_64.number(name).unwrap();
    for (capability, names) in [
        ("DAC_READ_SEARCH", "open_by_handle_at"),
        ("SYS_ADMIN", "mount umount2 unshare setns bpf perf_event_open fsopen move_mount sethostname quotactl syslog"),
        ("SYS_BOOT", "reboot"),
        ("SYS_MODULE", "init_module finit_module delete_module"),
        ("SYS_PACCT", "acct"),
        ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
        ("SYS_RAWIO", "iopl ioperm"),
        ("SYS_TIME", "settimeofday clock_settime"),
        ("SYS_TTY_CONFIG", "vhangup"),
        ("SYS_NICE", "mbind get_mempolicy set_mempolicy"),
        ("SYSLOG", "syslog"),
        ("BPF", "bpf"),
        ("PERFMON", "perf_event_open"),
    ] {
        for name in names.split(' ') {
            assert_eq!(verdict(Capabilities::DEFAULT, X86_64, call(name), 0), EPERM, "{name} by default");
            assert_eq!(verdict(with(capability), X86_64, call(name), 0), ALLOW, "{name} with {capability}");
        }
    }
    let none = Capabilities::DEFAULT.without(Capabilities::named("SYS_CHROOT").unwrap());
    assert_eq!([verdict(Capabilities::DEFAULT, X86_64, call("chroot"), 0), verdict(none, X86_64, call("chroot"), 0)], [ALLOW, EPERM]);
    // Not with any capability: what the kernel has too many holes in, or what knows no namespaces.
    for name in ["io_uring_setup", "userfaultfd", "keyctl", "add_key", "request_key", "kexec_load", "pivot_root", "swapon", "move_pages"] {
        assert_eq!(verdict(Capabilities::ALL, X86_64, call(name), 0), EPERM, "{name}");
    }
    assert_eq!(verdict(Capabilities::DEFAULT, X86_64, call("ptrace"), 0), ALLOW);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn programs_are_short_and_decide_in_few_steps() {
    let program = default_filter(Capabilities::DEFAULT).program;
    assert!(program.len() <= MOST_INSTRUCTIONS, "{} instructions are more than the kernel takes", program.len());
    let most = (0..600).map(|number| run(&program, X86_64, number, &[0]).1).max().unwrap();
    assert!(most <= 22, "{most} instructions");
}

#[test]
fn foreign_architectures_are_killed() {
    assert_eq!(verdict(Capabilities::DEFAULT, 0x0000_0016, 0, 0), KILL_PROCESS);
}

#[test]
fn arguments_compare_in_all_64_bits() {
    let big = 0x1_0000_0005_u64;
    for (op, holds, fails) in [
        ("EQ", vec![big], vec![5, big + 1, big + (1 << 32), 0]),
        ("NE", vec![5, big + 1, big - 1, u64::MAX], vec![big]),
        ("LT", vec![0, big - 1, 0xffff_ffff], vec![big, big + 1, u64::MAX, 0x2_0000_0000]),
        ("LE", vec![0, big - 1, big, 0xffff_ffff], vec![big + 1, u64::MAX, 0x2_0000_0000]),
        ("GT", vec![big + 1, u64::MAX, 0x2_0000_0000], vec![0, big - 1, big, 0xffff_ffff]),
        ("GE", vec![big, big + 1, u64::MAX, 0x2_0000_0000], vec![0, big - 1, 0xffff_ffff]),
    ] {
        let json = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
                "args": [{{"index": 2, "value": {big}, "op": "SCMP_CMP_{op}"}}]}}]}}"#
        );
        for value in holds {
            assert_eq!(judge(&json, "mkdirat", &[7, 7, value]), 0x0005_0005, "{op} {value:#x}");
        }
        for value in fails {
            assert_eq!(judge(&json, "mkdirat", &[7, 7, value]), ALLOW, "{op} {value:#x}");
        }
    }
    let masked = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 5, "value": 1095216660735, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}]}"#;
    // The mask is 0xff_0000_00ff.
    for (value, expected) in [(1, ALLOW), (0x101, ALLOW), (0x100_0000_0001, ALLOW), (0, EPERM), (3, EPERM), (0x1_0000_0001, EPERM)] {
        assert_eq!(judge(masked, "mkdirat", &[0, 0, 0, 0, 0, value]), expected, "{value:#x}");
    }
}

#[test]
fn conditions_on_different_arguments_all_count_and_on_one_argument_each() {
    let rule = |args: &str| {
        format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["fchmod"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{args}]}}]}}"#
        )
    };
    let both = rule(r#"{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_GT"}"#);
    assert_eq!(judge(&both, "fchmod", &[1, 3]), KILL_PROCESS);
    assert_eq!([judge(&both, "fchmod", &[1, 2]), judge(&both, "fchmod", &[2, 3])], [ALLOW; 2]);
    let either = rule(r#"{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}"#);
    assert_eq!([judge(&either, "fchmod", &[1]), judge(&either, "fchmod", &[5])], [KILL_PROCESS; 2]);
    assert_eq!(judge(&either, "fchmod", &[3]), ALLOW);
}

#[test]
fn actions_have_the_kernels_values() {
    for (action, errno, expected) in [
        ("ALLOW", "", 0x7fff_0000),
        ("LOG", "", 0x7ffc_0000),
        ("ERRNO", "", 0x0005_0001),
        ("ERRNO", r#","errnoRet": 38"#, 0x0005_0026),
        ("TRACE", r#","errnoRet": 7"#, 0x7ff0_0007),
        ("TRAP", "", 0x0003_0000),
        ("KILL", "", 0),
        ("KILL_THREAD", "", 0),
        ("KILL_PROCESS", "", 0x8000_0000),
    ] {
        let json = format!(
            r#"{{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 99,
                "syscalls": [{{"names": ["sync", "no_such_call"], "action": "SCMP_ACT_{action}"{errno}}}]}}"#
        );
        assert_eq!(judge(&json, "sync", &[]), expected, "{action}");
        assert_eq!(judge(&json, "setuid", &[]), 0x0005_0063);
    }
}

#[test]
fn a_rule_without_conditions_wins_and_of_two_the_first() {
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["fchmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["fchmod"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["fchmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2},
        {"name": "fchmod", "action": "SCMP_ACT_ERRNO", "errnoRet": 3}]}"#;
    assert_eq!(judge(json, "fchmod", &[1]), 0x0005_0002);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn what_is_newer_than_a_profile_that_refuses_does_not_exist() {
    let strict = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read", "statx"], "action": "SCMP_ACT_ALLOW"}]}"#;
    assert_eq!([judge(strict, "mkdir", &[]), judge(strict, "openat2", &[])], [EPERM, ENOSYS]);
    let lenient = r#"{"defaultAction": "SCMP_ACT_LOG", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ERRNO"}]}"#;
    assert_eq!(judge(lenient, "openat2", &[]), 0x7ffc_0000);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn only_listed_abis_run_beside_the_native_one() {
    let rules = r#""defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", "socket"], "action": "SCMP_ACT_ERRNO"}]"#;
    let run = |list: &str, arch, number, argument| run(&program(&format!("{{{list} {rules}}}")), arch, number, &[argument]).0;
    assert_eq!([run("", X86_64, 1, 0), run("", X86_64, 90, 0)], [ALLOW, EPERM]);
    assert_eq!([run("", I386, 4, 0), run("", X86_64, X32_BIT + 1, 0)], [KILL_PROCESS; 2]);
    let all = r#""archMap": [{"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],"#;
    assert_eq!([run(all, I386, 4, 0), run(all, I386, 15, 0)], [ALLOW, EPERM]);
    assert_eq!([run(all, X86_64, X32_BIT + 1, 0), run(all, X86_64, X32_BIT + 90, 0)], [ALLOW, EPERM]);
    // The other way to socket(2) that 32-bit programs have.
    assert_eq!([run(all, I386, 102, 1), run(all, I386, 102, 2), run(all, I386, 359, 0)], [EPERM, ALLOW, EPERM]);
    let x86 = r#""architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_S390X"],"#;
    assert_eq!([run(x86, I386, 4, 0), run(x86, X86_64, X32_BIT + 1, 0)], [ALLOW, KILL_PROCESS]);
}

#[test]
fn rules_depend_on_capabilities_architecture_and_kernel() {
    for (filter, applies) in [
        (r#""includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}"#, true),
        (r#""includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}"#, false),
        (r#""excludes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}"#, false),
        (r#""excludes": {"caps": ["CAP_SYS_ADMIN"]}"#, true),
        (r#""includes": {"arches": ["amd64", "arm64"]}"#, true),
        (r#""includes": {"arches": ["s390x"]}"#, false),
        (r#""excludes": {"arches": ["amd64", "arm64"]}"#, false),
        (r#""includes": {"minKernel": "6.1"}, "excludes": {}"#, true),
        (r#""includes": {"minKernel": "6.2"}"#, false),
        (r#""excludes": {"minKernel": "4.8"}"#, false),
        (r#""includes": null, "args": null, "comment": "any""#, true),
    ] {
        let json =
            format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["sync"], "action": "SCMP_ACT_ERRNO", {filter}}}]}}"#);
        assert_eq!(judge(&json, "sync", &[]) == EPERM, applies, "{filter}");
    }
}

#[test]
fn mistakes_have_a_place() {
    let (message, line, column) = malformed("{\n  \"defaultAction\": \"SCMP_ACT_PERMIT\"\n}");
    assert_eq!((message.as_str(), line, column), ("`SCMP_ACT_PERMIT` is not an action", 2, 36));
    let rule = |rule: &str| format!("{{\"defaultAction\": \"SCMP_ACT_ALLOW\",\n\"syscalls\": [\n{rule}\n]}}");
    for (text, expected) in [
        (r#"{"name": "b", "names": ["a"], "action": "SCMP_ACT_LOG"}"#, "both `name` and `names`"),
        (r#"{"names": ["a"]}"#, "missing field `action`"),
        (r#"{"names": ["a"], "action": "SCMP_ACT_LOG", "errnoRet": 1}"#, "`SCMP_ACT_LOG` takes no error number"),
        (r#"{"names": ["a"], "action": "SCMP_ACT_ERRNO", "errnoRet": 70000}"#, "not an error number"),
        (r#"{"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}"#, "no argument 6"),
        (r#"{"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "op": "EQ"}]}"#, "`EQ` is not a comparison"),
        (r#"{"names": ["a"], "action": "SCMP_ACT_LOG", "includes": {"minKernel": "new"}}"#, "`new` is not a version"),
        (r#"{"names": "a", "action": "SCMP_ACT_LOG"}"#, "expected a sequence"),
    ] {
        let (message, line, _) = malformed(&rule(text));
        // What is wrong with a rule as a whole is told at its end.
        assert!(message.contains(expected) && (3..=4).contains(&line), "{text}: {line}: {message}");
    }
    let host = SeccompHost { capabilities: Capabilities::DEFAULT, kernel: (6, 1) };
    let refused = |json: &str| SeccompProfile::parse(json).unwrap().rules(&host).unwrap_err().to_string();
    assert!(refused(r#"{"syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG"}]}"#).contains("no `defaultAction`"));
    assert!(refused(r#"{"defaultAction": "SCMP_ACT_LOG", "defaultErrnoRet": 3}"#).contains("takes no error number"));
    let asking = |path: &str| {
        format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", {path} "syscalls": [{{"names": ["sync"], "action": "SCMP_ACT_NOTIFY"}}]}}"#)
    };
    assert!(refused(&asking("")).contains("only `strake oci`"), "our own containers have nobody who is asked");
    assert!(refused(r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/s"}"#).contains("only `strake oci`"));
    let for_listener = |json: &str| SeccompProfile::parse(json).unwrap().rules_for_listener(&host).map(Option::unwrap);
    assert!(matches!(for_listener(&asking("")), Err(SeccompProfileError::NoListener)));
    assert!(for_listener(&asking(r#""listenerPath": "/s","#)).unwrap().asks());
    assert!(SeccompProfile::parse("{}").unwrap().rules(&host).unwrap().is_none());
}

#[test]
fn a_profile_that_the_kernel_would_not_take_is_refused() {
    let args: Vec<String> = (0..900).map(|value| format!(r#"{{"index": 0, "value": {value}, "op": "SCMP_CMP_EQ"}}"#)).collect();
    let json = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{{"names": ["sync"], "action": "SCMP_ACT_ERRNO", "args": [{}]}}]}}"#,
        args.join(",")
    );
    let host = SeccompHost { capabilities: Capabilities::DEFAULT, kernel: (6, 1) };
    let refused = SeccompProfile::parse(&json).unwrap().rules(&host);
    assert!(matches!(refused, Err(SeccompProfileError::TooLong { .. })), "{refused:?}");
}

#[test]
fn who_is_asked_by_default_is_asked_about_what_is_newer() {
    const NOTIFY: u32 = 0x7fc0_0000;
    let host = SeccompHost { capabilities: Capabilities::DEFAULT, kernel: (6, 1) };
    let arch = if Abi::NATIVE == Abi::X86_64 { X86_64 } else { AUDIT_ARCH_AARCH64 };
    for (rules, read) in [("", NOTIFY), (r#"{"names": ["read"], "action": "SCMP_ACT_ALLOW"}"#, ALLOW)] {
        let json = format!(r#"{{"defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": "/s", "syscalls": [{rules}]}}"#);
        let program = compile(&SeccompProfile::parse(&json).unwrap().rules_for_listener(&host).unwrap().unwrap());
        assert_eq!(run(&program, arch, Abi::NATIVE.number("read").unwrap(), &[]).0, read);
        assert_eq!(run(&program, arch, 460, &[]).0, NOTIFY);
    }
}
