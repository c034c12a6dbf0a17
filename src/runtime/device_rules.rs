//! Which devices the processes of a control group may use.
//!
//! A bundle says so. A sandbox has only the nodes of its `/dev` on file systems where nodes work, so it needs no such rules ([`devices`](super::devices)); but where what the
//! host mounts later shows up in it as well, or where it may mount file systems itself, there are nodes beyond those: then only its group keeps them shut. And only a group
//! can let it read a device and not write to it, or use a device that it has no node of yet.
//!
//! Groups of v1 have a controller for that. Those of v2 have an eBPF program that the kernel asks about each use of a device (`BPF_PROG_TYPE_CGROUP_DEVICE`): the later
//! rule wins, so the program looks at the last one first. What an allowing rule does not allow whole goes on to the earlier ones; what a denying rule denies in part
//! is refused.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::bundle::DeviceRule;
use super::capabilities::Capabilities;
use super::error::{Failure, LimitKind};
use super::spec::{DeviceAccess, DeviceSpec, MountSpec, NodeKind, Privileges, Propagation, SandboxSpec};
use crate::sys::bpf::{Instruction, attach_device_filter};
use crate::sys::privilege;

/// Devices that every container may use: kind, major and minor number (`None` is any), what for.
const ALWAYS: [(&str, Option<i64>, Option<i64>, &str); 12] = [
    ("c", None, None, "m"),
    ("b", None, None, "m"),
    ("c", Some(1), Some(3), "rwm"),
    ("c", Some(1), Some(5), "rwm"),
    ("c", Some(1), Some(7), "rwm"),
    ("c", Some(1), Some(8), "rwm"),
    ("c", Some(1), Some(9), "rwm"),
    ("c", Some(5), Some(0), "rwm"),
    ("c", Some(5), Some(1), "rwm"),
    ("c", Some(5), Some(2), "rwm"),
    ("c", Some(136), None, "rwm"),
    ("c", Some(10), Some(200), "rwm"),
];

fn rule(kind: &str, major: Option<i64>, minor: Option<i64>, access: &str) -> DeviceRule {
    DeviceRule { allow: true, kind: kind.to_owned(), major, minor, access: access.to_owned() }
}

/// These rules, and what every container may use.
pub(super) fn with_default(rules: impl IntoIterator<Item = DeviceRule>) -> Vec<DeviceRule> {
    rules.into_iter().chain(ALWAYS.iter().map(|(kind, major, minor, access)| rule(kind, *major, *minor, access))).collect()
}

/// What a rule is written for: `c 10:229 rwm`, as Docker has it.
///
/// # Errors
/// A sentence about what it should be.
pub fn parse_rule(text: &str) -> Result<DeviceRule, String> {
    let malformed = || "expected `KIND MAJOR:MINOR ACCESS`, such as `c 10:229 rwm` or `b 8:* r`".to_owned();
    let number = |text: &str| match text {
        "*" => Ok(None),
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse::<u32>().map(|number| Some(number.into())).map_err(|_| malformed())
        }
        _ => Err(malformed()),
    };
    let words: Vec<&str> = text.split(' ').collect();
    let [kind @ ("a" | "b" | "c"), numbers, access] = words[..] else { return Err(malformed()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(malformed)?;
    access.parse::<DeviceAccess>()?;
    Ok(DeviceRule { allow: true, kind: kind.to_owned(), major: number(major)?, minor: number(minor)?, access: access.to_owned() })
}

/// The rules that let a sandbox use its devices, as far as it may, and what else it was given.
pub(super) fn given(spec: &SandboxSpec) -> Vec<DeviceRule> {
    let device = |device: &DeviceSpec| {
        let (kind, major, minor) = match &device.node {
            Some(node) if node.kind == NodeKind::Pipe => return None,
            Some(node) => (node.kind, node.major, node.minor),
            None => {
                let found = std::fs::metadata(&device.source).ok()?;
                let kind = if found.file_type().is_block_device() { NodeKind::Block } else { NodeKind::Character };
                (kind, rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()))
            }
        };
        Some(rule(kind.letter(), Some(major.into()), Some(minor.into()), &device.access.to_string()))
    };
    spec.devices.iter().filter_map(device).chain(spec.device_rules.iter().cloned()).collect()
}

/// The rules for a sandbox, where it needs any. `own_users` says whether it has users of its own: for what is mounted there the kernel knows no nodes that work.
///
/// # Errors
/// It needs them, and nobody may set them here.
pub(super) fn of_sandbox(spec: &SandboxSpec, own_users: bool) -> Result<Option<Vec<DeviceRule>>, Failure> {
    if spec.privileges == Privileges::Insecure {
        return Ok(None);
    }
    let fail = |reason: &str| Err(Failure::Limit { what: LimitKind::Devices, reason: reason.to_owned() });
    let none = DeviceRule { allow: false, ..DeviceRule::default() };
    let rules = || with_default(std::iter::once(none).chain(given(spec)));
    let restricted = spec.devices.iter().any(|device| device.access.is_restricted());
    let ruled = !spec.device_rules.is_empty();
    if (restricted || ruled) && !privilege::in_initial_user_namespace() {
        return fail("rules for devices need root");
    }
    if ruled && own_users {
        return fail("a container with users of its own cannot use the nodes that it makes");
    }
    let follows = |mount: &MountSpec| matches!(mount, MountSpec::Bind { propagation, .. } if *propagation != Propagation::Private);
    let mounts = spec.privileges.capabilities().contains(Capabilities::SYS_ADMIN) || spec.mounts.iter().any(follows);
    // In a user namespace the kernel opens no node of a file system that was mounted there.
    let mounts = mounts && !own_users && privilege::in_initial_user_namespace();
    Ok((mounts || restricted || ruled).then(rules))
}

/// Whether every container may use the device of this node, so that it may be opened wherever it is mounted.
pub(super) fn is_for_all(node: &rustix::fs::Stat) -> bool {
    let is = |number: Option<i64>, found: u32| number.is_none_or(|number| number == i64::from(found));
    let (major, minor) = (rustix::fs::major(node.st_rdev), rustix::fs::minor(node.st_rdev));
    let mut known = ALWAYS.iter().filter(|(.., access)| *access == "rwm");
    rustix::fs::FileType::from_raw_mode(node.st_mode) == rustix::fs::FileType::CharacterDevice
        && known.any(|(_, of_kind, number, _)| is(*of_kind, major) && is(*number, minor))
}

/// Loads the rules for a group of v2.
pub(super) fn attach(group: &impl AsFd, rules: &[DeviceRule]) -> io::Result<()> {
    unless_out_of_reach(attach_device_filter(group, &program(rules)))
}

/// Writes the rules for a group of v1, in this directory.
pub(super) fn write(group: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    let write = |rule: &DeviceRule| {
        let file = if rule.allow { "devices.allow" } else { "devices.deny" };
        std::fs::write(group.join(file), text(rule))
    };
    unless_out_of_reach(rules.iter().try_for_each(write))
}

/// In a user namespace nobody may, and what devices there are is decided by what is mounted.
fn unless_out_of_reach(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !privilege::in_initial_user_namespace() => Ok(()),
        other => other,
    }
}

fn text(rule: &DeviceRule) -> String {
    let number = |number: Option<i64>| number.filter(|number| *number >= 0).map_or_else(|| "*".to_owned(), |number| number.to_string());
    let access = if rule.access.is_empty() { "rwm" } else { &rule.access };
    match rule.kind.as_str() {
        "" | "a" if rule.major.is_none_or(|number| number < 0) && rule.minor.is_none_or(|number| number < 0) && access == "rwm" => {
            "a".to_owned()
        }
        "" => format!("a {}:{} {access}", number(rule.major), number(rule.minor)),
        kind => format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor)),
    }
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbc;
const SET: u8 = 0xb4;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const IF_EQUAL: u8 = 0x15;
const IF_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The instructions of a block that is about everything.
const DECISION: usize = 2;

/// All of mknod (1), read (2) and write (4).
const ALL_ACCESS: i32 = 7;

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
    for rule in rules.iter().rev() {
        let block = block(rule);
        let is_last_word = block.len() == DECISION;
        program.extend(block);
        // The kernel takes no program with instructions that are never reached.
        if is_last_word {
            return program;
        }
    }
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
    let decide: [_; DECISION] = [op(SET, 0, 0, 0, i32::from(rule.allow)), op(EXIT, 0, 0, 0, 0)];
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
    fn rules_are_dockers() {
        let rule = parse_rule("b 8:* r").unwrap();
        assert_eq!((rule.kind.as_str(), rule.major, rule.minor, rule.access.as_str(), rule.allow), ("b", Some(8), None, "r", true));
        assert!(parse_rule("a *:* rwm").is_ok());
        for text in ["", "c 1:3", "d 1:3 r", "c 1 r", "c 1:3 x", "c -1:3 r", "c 1:3  r", "c 1:3 ", "c 1:99999999999 r", "c :3 r"] {
            assert!(parse_rule(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rules_for_devices_are_written_as_the_kernel_reads_them() {
        let rule = |json: serde_json::Value| text(&serde_json::from_value(json).unwrap());
        assert_eq!(rule(serde_json::json!({"allow": false, "access": "rwm"})), "a");
        assert_eq!(rule(serde_json::json!({"allow": true, "type": "c", "major": 1, "access": "rw"})), "c 1:* rw");
        assert_eq!(rule(serde_json::json!({"allow": true, "type": "b", "major": 8, "minor": -1})), "b 8:* rwm");
    }

    #[test]
    fn the_kernel_takes_programs_of_all_kinds_of_rules() {
        // On hosts with both versions the second one is there, without controllers, which this needs none of.
        let version_2 = |path: &&str| rustix::fs::statfs(*path).is_ok_and(|stat| stat.f_type == 0x6367_7270);
        let Some(root) = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().find(version_2) else {
            return eprintln!("skipped: no control groups of version 2");
        };
        let group = Path::new(root).join(format!("strake-test-{}", std::process::id()));
        if std::fs::create_dir(&group).is_err() {
            return eprintln!("skipped: no control group can be made in {root}");
        }
        let json = [
            serde_json::json!([]),
            serde_json::json!([{"allow": false, "access": "rwm"}]),
            serde_json::json!([{"allow": false}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]),
            serde_json::json!([{"allow": true}, {"allow": false, "type": "b", "access": "w"}]),
        ];
        let lists = json.into_iter().map(|rules| serde_json::from_value::<Vec<DeviceRule>>(rules).unwrap());
        let done: Vec<_> = lists
            .flat_map(|rules| [rules.clone(), with_default(rules)])
            .map(|rules| std::fs::File::open(&group).and_then(|group| attach_device_filter(&group, &program(&rules))))
            .collect();
        std::fs::remove_dir(&group).unwrap();
        let is_denied = |done: &io::Result<()>| done.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        if done.iter().all(is_denied) {
            return eprintln!("skipped: this process may load no programs");
        }
        assert!(done.iter().all(Result::is_ok), "{done:?}");
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
