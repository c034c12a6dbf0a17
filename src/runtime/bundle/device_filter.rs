//! Rules for devices on cgroup v2, which has no controller for them: an eBPF program that the kernel asks about each use of a device (`BPF_PROG_TYPE_CGROUP_DEVICE`).
//!
//! The later rule wins, so the program looks at the last one first. What an allowing rule does not allow whole goes on to the earlier ones; what a denying rule denies in part
//! is refused.

use rustix::fs::{CWD, Mode, OFlags};

use super::Error;
use super::cgroups::Groups;
use super::config::DeviceRule;
use crate::sys::bpf::{Instruction, attach_device_filter};

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const SET: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const IF_EQUAL: u8 = 0x15;
const IF_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// All of mknod (1), read (2) and write (4).
const ALL_ACCESS: i32 = 7;

/// Loads the rules for the container's group.
pub(super) fn attach(groups: &Groups, rules: &[DeviceRule]) -> Result<(), Error> {
    let Some(path) = groups.of("") else { return Ok(()) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let group = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(Error::file("open the control group", path))?;
    match attach_device_filter(&group, &program(rules)) {
        // In a user namespace nobody may, and what devices there are is decided by what is mounted.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied && !crate::sys::privilege::in_initial_user_namespace() => Ok(()),
        other => other.map_err(Error::file("set the rules for devices of", path)),
    }
}

fn op(code: u8, destination: u8, source: u8, offset: i16, constant: i32) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, constant }
}

/// Register 2 is the kind, 3 the access, 4 and 5 the numbers.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(MOVE, 3, 2, 0, 0),
        op(AND, 2, 0, 0, 0xffff),
        op(SHIFT_RIGHT, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    rules.iter().rev().for_each(|rule| program.extend(block(rule)));
    program.extend([op(SET, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    program
}

/// Decides where the rule is about what is asked, and goes on behind its end otherwise.
fn block(rule: &DeviceRule) -> Vec<Instruction> {
    let mut tests: Vec<Vec<Instruction>> = Vec::new();
    match rule.kind.as_str() {
        "b" => tests.push(vec![op(IF_NOT_EQUAL, 2, 0, 0, 1)]),
        "c" | "u" => tests.push(vec![op(IF_NOT_EQUAL, 2, 0, 0, 2)]),
        _ => {}
    }
    let access = access(&rule.access);
    if access != ALL_ACCESS {
        let (bits, code) = if rule.allow { (ALL_ACCESS & !access, IF_NOT_EQUAL) } else { (access, IF_EQUAL) };
        tests.push(vec![op(MOVE, 1, 3, 0, 0), op(AND, 1, 0, 0, bits), op(code, 1, 0, 0, 0)]);
    }
    for (register, number) in [(4, rule.major), (5, rule.minor)] {
        if let Some(number) = number.and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0) {
            tests.push(vec![op(IF_NOT_EQUAL, register, 0, 0, number)]);
        }
    }
    let decide = [op(SET, 0, 0, 0, i32::from(rule.allow)), op(EXIT, 0, 0, 0, 0)];
    let length = tests.iter().map(Vec::len).sum::<usize>() + decide.len();
    let mut out: Vec<Instruction> = tests.into_iter().flatten().collect();
    for (index, instruction) in out.iter_mut().enumerate() {
        if matches!(instruction.code, IF_EQUAL | IF_NOT_EQUAL) {
            // A block has ten instructions at most.
            instruction.offset = (length - index - 1) as i16;
        }
    }
    out.extend(decide);
    out
}

fn access(letters: &str) -> i32 {
    let bits = [('m', 1), ('r', 2), ('w', 4)].iter().filter(|(letter, _)| letters.contains(*letter)).map(|(_, bit)| bit).sum();
    if letters.is_empty() { ALL_ACCESS } else { bits }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program says to one use of a device: kind, access, numbers.
    fn judge(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> u64 {
        let context = [access << 16 | kind, major, minor];
        let (mut registers, mut at) = ([0u64; 11], 0usize);
        loop {
            let Instruction { code, registers: names, offset, constant } = program[at];
            let (to, from) = ((names & 15) as usize, (names >> 4) as usize);
            at += 1;
            match code {
                LOAD_WORD => registers[to] = u64::from(context[offset as usize / 4]),
                MOVE => registers[to] = registers[from],
                SET => registers[to] = constant as u64,
                AND => registers[to] &= constant as u64,
                SHIFT_RIGHT => registers[to] >>= constant,
                IF_EQUAL if registers[to] == constant as u64 => at += offset as usize,
                IF_NOT_EQUAL if registers[to] != constant as u64 => at += offset as usize,
                EXIT => return registers[0],
                _ => {}
            }
        }
    }

    #[test]
    fn the_later_rule_wins() {
        let rules: Vec<DeviceRule> = serde_json::from_value(serde_json::json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            {"allow": true, "type": "b", "major": 8, "access": "r"},
            {"allow": false, "type": "b", "major": 8, "minor": 1, "access": "r"},
        ]))
        .unwrap();
        let program = program(&rules);
        let (block, char, read, write, mknod) = (1, 2, 2, 4, 1);
        assert_eq!(judge(&program, char, read | write, 1, 3), 1);
        assert_eq!(judge(&program, char, read | write | mknod, 1, 3), 0, "more than the rule allows");
        assert_eq!(judge(&program, char, read, 1, 4), 0);
        assert_eq!(judge(&program, block, read, 8, 0), 1);
        assert_eq!(judge(&program, block, read, 8, 1), 0);
        assert_eq!(judge(&program, block, write, 8, 0), 0);
        assert_eq!(judge(&super::program(&[]), block, write, 8, 0), 1, "without rules all is allowed");
    }
}
