//! The system call filter: from rules by name to a BPF program that the kernel runs.
//!
//! There is one way from rules to a program ([`SeccompRules`]). The default profile is one set of rules; a profile in a file and the `linux.seccomp` of an OCI
//! configuration are read by [`SeccompProfile`], which makes others:
//!
//! ```ignore
//! let profile: SeccompProfile = serde_json::from_value(config["linux"]["seccomp"].clone())?;
//! let host = SeccompHost::of_this_machine(capabilities_of_the_bounding_set);
//! spec.seccomp = match profile.rules(&host)? {
//!     Some(rules) => Seccomp::Rules(Box::new(rules)),
//!     None => Seccomp::Unconfined,
//! };
//! ```
//!
//! One filter judges every ABI that the kernel offers to programs of this architecture (on x86-64 also 32-bit and x32 programs), so that none is a way
//! around it. That of the default profile is compiled once for each set of capabilities and kept.

mod bpf;
mod builtin;
mod document;
mod profile;
mod rules;
mod tables;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::capabilities::Capabilities;
use crate::sys::process::BpfInstruction;
use bpf::{ARCH, NUMBER, Verdict, act, if_at_least, if_equal, load, tree};
pub(super) use document::{default_document, document};
pub use profile::{SeccompHost, SeccompProfile, SeccompProfileError};
pub use rules::SeccompRules;
use rules::{Comparison, Condition, SeccompAction};
use tables::{Abi, MULTIPLEXED};

/// Not in `libc` yet (`linux/seccomp.h`).
const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: u64 = 1 << 5;

/// How many instructions the kernel takes (`BPF_MAXINSNS`).
const MOST_INSTRUCTIONS: usize = 4096;

/// Private calls of ARM start here; they say nothing of how new a profile is.
const ARM_PRIVATE: u32 = 0xf_0000;

/// Architectures as the kernel's filters see them (`linux/audit.h`).
const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARCH_ARM: u32 = 0x4000_0028;

/// Marks the numbers of x32 programs.
const X32_BIT: u32 = 0x4000_0000;

/// A program, and how the kernel is to take it.
#[derive(Clone, Debug)]
pub(super) struct Filter {
    program: Arc<[BpfInstruction]>,
    flags: u64,
    /// Only together with a listener.
    killable_wait: bool,
}

impl Filter {
    /// Makes the kernel run it on every system call of this process from now on.
    pub(super) fn load(&self) -> std::io::Result<()> {
        crate::sys::process::load_seccomp_filter(&self.program, self.flags)
    }

    /// [`load`](Self::load) for a filter by which another program is asked: that asks and answers through what is returned.
    pub(super) fn load_with_listener(&self) -> std::io::Result<std::os::fd::OwnedFd> {
        let waits = if self.killable_wait { SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV } else { 0 };
        crate::sys::process::load_seccomp_filter_with_listener(&self.program, self.flags | waits)
    }
}

/// The filter of the default profile, for a process with these capabilities.
pub(super) fn default_filter(capabilities: Capabilities) -> Filter {
    static COMPILED: Mutex<Option<HashMap<u64, Arc<[BpfInstruction]>>>> = Mutex::new(None);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let programs = compiled.get_or_insert_default();
    let program = programs.entry(capabilities.bits()).or_insert_with(|| compile(&builtin::rules(capabilities)).into()).clone();
    Filter { program, flags: 0, killable_wait: false }
}

/// The rules of the default profile, for a process with these capabilities.
pub(super) fn default_rules(capabilities: Capabilities) -> SeccompRules {
    builtin::rules(capabilities)
}

/// Compiles the filter of most containers, for whoever has the time.
pub(super) fn compile_default_filter() {
    default_filter(Capabilities::DEFAULT);
}

/// The filter of other rules.
pub(super) fn filter(rules: &SeccompRules) -> Filter {
    let flag = |on: bool, flag: libc::c_ulong| if on { flag } else { 0 };
    let flags = flag(rules.log, libc::SECCOMP_FILTER_FLAG_LOG) | flag(rules.allow_speculation, libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW);
    Filter { program: compile(rules).into(), flags, killable_wait: rules.killable_wait }
}

/// The program for some rules. It may be longer than the kernel takes.
fn compile(rules: &SeccompRules) -> Vec<BpfInstruction> {
    let judged = |abi: Abi| rules.abis.contains(&abi);
    let program = |abi: Abi, base: u32| tree(&ranges(abi, rules, base));
    let with_number = |judged: Vec<BpfInstruction>| [vec![load(NUMBER)], judged].concat();
    let mut programs = Vec::new();
    match Abi::NATIVE {
        Abi::X86_64 | Abi::X32 | Abi::X86 => {
            let x32 = if judged(Abi::X32) { program(Abi::X32, X32_BIT) } else { act(SeccompAction::KillProcess) };
            programs.push((AUDIT_ARCH_X86_64, with_number(if_at_least(X32_BIT, x32, program(Abi::X86_64, 0)))));
            programs.extend(judged(Abi::X86).then(|| (AUDIT_ARCH_I386, with_number(program(Abi::X86, 0)))));
        }
        Abi::Aarch64 | Abi::Arm => {
            programs.push((AUDIT_ARCH_AARCH64, with_number(program(Abi::Aarch64, 0))));
            programs.extend(judged(Abi::Arm).then(|| (AUDIT_ARCH_ARM, with_number(program(Abi::Arm, 0)))));
        }
    }
    // Programs of other architectures are killed.
    let other = act(SeccompAction::KillProcess);
    let judged = programs.into_iter().rev().fold(other, |rest, (arch, program)| if_equal(arch, program, rest));
    [vec![load(ARCH)], judged].concat()
}

/// What rules say of one system call: with conditions, in order, and without.
#[derive(Default)]
struct Said {
    conditional: Vec<(Vec<Condition>, SeccompAction)>,
    always: Option<SeccompAction>,
}

/// What an ABI's system calls get, by number, where rules name them; and the highest number that they name.
fn verdicts(abi: Abi, rules: &SeccompRules) -> (BTreeMap<u32, Verdict>, u32) {
    let mut found: BTreeMap<u32, Said> = BTreeMap::new();
    let mut newest = 0;
    for rule in &rules.rules {
        for name in &rule.names {
            let Some(number) = abi.number(name) else { continue };
            newest = if number < ARM_PRIVATE { newest.max(number) } else { newest };
            if rule.action == rules.default {
                continue;
            }
            let said = found.entry(number).or_default();
            match rule.conditions.is_empty() {
                true => said.always = said.always.or(Some(rule.action)),
                false => said.conditional.push((rule.conditions.clone(), rule.action)),
            }
        }
        if abi == Abi::X86 && rule.action != rules.default {
            for (number, condition) in rule.names.iter().filter_map(|name| multiplexed(name)) {
                // Further arguments are behind a pointer there, so a rule about them cannot let anything through.
                if rule.conditions.is_empty() || !rule.action.is_permissive() {
                    found.entry(number).or_default().conditional.push((vec![condition], rule.action));
                }
            }
        }
    }
    let verdict = |said: Said| Verdict {
        conditional: if said.always.is_some() { Vec::new() } else { said.conditional },
        otherwise: said.always.unwrap_or(rules.default),
        wide: abi.is_wide(),
    };
    (found.into_iter().map(|(number, found)| (number, verdict(found))).collect(), newest)
}

/// The other way to a system call that 32-bit programs of x86 have.
fn multiplexed(name: &str) -> Option<(u32, Condition)> {
    let (_, through, value) = MULTIPLEXED.iter().find(|(known, ..)| *known == name)?;
    Some((Abi::X86.number(through)?, Condition { argument: 0, comparison: Comparison::Equal, value: *value }))
}

/// The ranges of numbers with the same verdict, from 0 (or the ABI's own `base`, which is added to every number).
fn ranges(abi: Abi, rules: &SeccompRules, base: u32) -> Vec<(u32, Verdict)> {
    let plain = |otherwise| Verdict { conditional: Vec::new(), otherwise, wide: abi.is_wide() };
    let (named, newest) = verdicts(abi, rules);
    let newest = newest + base;
    // Who is asked about what no rule names, is asked about what is newer too.
    let is_judged = rules.default.is_permissive() || rules.default == SeccompAction::Notify;
    let newer = if is_judged { rules.default } else { SeccompAction::Errno(libc::ENOSYS as u16) };
    let unnamed = |number: u32| plain(if number > newest && number < base + ARM_PRIVATE { newer } else { rules.default });
    let mut starts: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |start: u32, verdict: Verdict| {
        if starts.last().is_none_or(|(_, last)| *last != verdict) {
            starts.push((start, verdict));
        }
    };
    let mut next = 0;
    for (number, verdict) in named.into_iter().map(|(number, verdict)| (number + base, verdict)) {
        if number > next {
            push(next, unnamed(next));
            if next <= newest && number > newest {
                push(newest + 1, unnamed(newest + 1));
            }
        }
        push(number, verdict);
        next = number + 1;
    }
    push(next, unnamed(next));
    if next <= newest {
        push(newest + 1, plain(newer));
    }
    starts
}

#[cfg(test)]
mod tests;
