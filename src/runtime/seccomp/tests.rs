//! The filter's verdicts, by running its program as the kernel does.

use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

/// Runs a program on a system call, as in the kernel's `Documentation/networking/filter.rst`; gives the verdict and the number of instructions.
fn run(program: &[BpfInstruction], arch: u32, number: u32, argument: u64) -> (u32, usize) {
    let mut data = [0u8; 64];
    data[..4].copy_from_slice(&number.to_le_bytes());
    data[4..8].copy_from_slice(&arch.to_le_bytes());
    data[16..24].copy_from_slice(&argument.to_le_bytes());
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

#[track_caller]
fn verdict(capabilities: Capabilities, arch: u32, number: u32, argument: u64) -> u32 {
    run(&filter(capabilities), arch, number, argument).0
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_number_has_the_verdict_of_its_name() {
    let rules = profile::rules(Capabilities::DEFAULT);
    let program = filter(Capabilities::DEFAULT);
    for (abi, arch, base) in [(Abi::X86_64, X86_64, 0), (Abi::X32, X86_64, 0x4000_0000), (Abi::X86, I386, 0)] {
        for number in 0..600 {
            let named = rules.iter().rev().find(|(name, _)| abi.number(name) == Some(number));
            let expected = match named {
                Some((_, Action::Allow)) => ALLOW,
                Some((_, Action::Errno(errno))) => 0x0005_0000 | u32::from(*errno),
                Some((_, Action::Kill)) => 0x8000_0000,
                // The argument is 0: a plain thread or process, an unknown family, the default personality.
                Some((_, Action::IfArgument { .. } | Action::IfNoBits { .. })) => ALLOW,
                None if number > abi.newest() => ENOSYS,
                None => EPERM,
            };
            assert_eq!(run(&program, arch, base + number, 0).0, expected, "{abi:?} {number}");
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn arguments_decide_over_clone_socket_and_personality() {
    let default = Capabilities::DEFAULT;
    let admin = default.union(Capabilities::named("SYS_ADMIN").unwrap());
    assert_eq!(verdict(default, X86_64, 56, libc::SIGCHLD as u64), ALLOW);
    assert_eq!(verdict(default, X86_64, 56, libc::CLONE_NEWUSER as u64), EPERM);
    assert_eq!(verdict(default, X86_64, 56, (libc::CLONE_NEWNS | libc::SIGCHLD) as u64), EPERM);
    assert_eq!(verdict(admin, X86_64, 56, libc::CLONE_NEWUSER as u64), ALLOW);
    assert_eq!(verdict(default, X86_64, 435, 0), ENOSYS);
    assert_eq!(verdict(admin, X86_64, 435, 0), ALLOW);
    for (family, expected) in
        [(1, ALLOW), (2, ALLOW), (10, ALLOW), (16, ALLOW), (17, ALLOW), (38, EPERM), (40, EPERM), (45, ALLOW), (46, EPERM)]
    {
        assert_eq!(verdict(default, X86_64, 41, family), expected, "family {family}");
    }
    // The kernel looks at the low half only.
    assert_eq!(verdict(default, X86_64, 41, 1 << 32 | 1), EPERM);
    for (personality, expected) in [(0, ALLOW), (8, ALLOW), (0x20000, ALLOW), (0xffff_ffff, ALLOW), (0x40000, EPERM), (9, EPERM)] {
        assert_eq!(verdict(default, X86_64, 135, personality), expected, "personality {personality:#x}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn programs_are_short_and_decide_in_few_steps() {
    let program = filter(Capabilities::DEFAULT);
    assert!(program.len() < 4096, "{} instructions are more than the kernel takes", program.len());
    let most = (0..600).map(|number| run(&program, X86_64, number, 0).1).max().unwrap();
    assert!(most <= 22, "{most} instructions");
}

#[test]
fn foreign_architectures_are_killed() {
    assert_eq!(verdict(Capabilities::DEFAULT, 0x0000_0016, 0, 0), 0x8000_0000);
}
