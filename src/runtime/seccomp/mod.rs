//! The system call filter: from the default profile to a BPF program that the kernel runs.
//!
//! One filter judges every ABI that the kernel offers to programs of this architecture (on x86-64 also 32-bit and x32 programs), so that none is a way
//! around it. It is compiled once for each set of capabilities and kept.

mod bpf;
mod profile;
mod tables;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::capabilities::Capabilities;
use crate::sys::process::BpfInstruction;
use bpf::{ARCH, Action, NUMBER, act, if_at_least, if_equal, load, tree};
use tables::{ARM_PRIVATE, Abi};

/// The program for a process with these capabilities.
pub(super) fn filter(capabilities: Capabilities) -> Arc<[BpfInstruction]> {
    static COMPILED: Mutex<Option<HashMap<u64, Arc<[BpfInstruction]>>>> = Mutex::new(None);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    let programs = compiled.get_or_insert_default();
    programs.entry(capabilities.bits()).or_insert_with(|| compile(capabilities).into()).clone()
}

#[cfg(target_arch = "x86_64")]
fn compile(capabilities: Capabilities) -> Vec<BpfInstruction> {
    const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
    const AUDIT_ARCH_I386: u32 = 0x4000_0003;
    const X32_BIT: u32 = 0x4000_0000;
    let rules = profile::rules(capabilities);
    let mut x86_64 = vec![load(NUMBER)];
    let x32 = tree(&ranges(Abi::X32, &rules, X32_BIT));
    x86_64.extend(if_at_least(X32_BIT, x32, tree(&ranges(Abi::X86_64, &rules, 0))));
    let mut x86 = vec![load(NUMBER)];
    x86.extend(tree(&ranges(Abi::X86, &rules, 0)));
    for_architectures(vec![(AUDIT_ARCH_X86_64, x86_64), (AUDIT_ARCH_I386, x86)])
}

#[cfg(target_arch = "aarch64")]
fn compile(capabilities: Capabilities) -> Vec<BpfInstruction> {
    const AUDIT_ARCH_AARCH64: u32 = 0xc000_00b7;
    const AUDIT_ARCH_ARM: u32 = 0x4000_0028;
    let rules = profile::rules(capabilities);
    let program = |abi| {
        let mut program = vec![load(NUMBER)];
        program.extend(tree(&ranges(abi, &rules, 0)));
        program
    };
    for_architectures(vec![(AUDIT_ARCH_AARCH64, program(Abi::Aarch64)), (AUDIT_ARCH_ARM, program(Abi::Arm))])
}

/// Runs the program of the caller's architecture, and kills it where that is none of these.
fn for_architectures(programs: Vec<(u32, Vec<BpfInstruction>)>) -> Vec<BpfInstruction> {
    let judged = programs.into_iter().rev().fold(act(&Action::Kill), |rest, (arch, program)| if_equal(arch, program, rest));
    let mut out = vec![load(ARCH)];
    out.extend(judged);
    out
}

/// The ranges of numbers with the same action, from 0 (or the ABI's own `base`, which is added to every number).
fn ranges(abi: Abi, rules: &[(&'static str, Action)], base: u32) -> Vec<(u32, Action)> {
    let mut actions = std::collections::BTreeMap::new();
    for (name, action) in rules {
        if let Some(number) = abi.number(name) {
            actions.insert(number + base, action.clone());
        }
    }
    let newest = abi.newest() + base;
    let unnamed = |number: u32| if number > newest && number < base + ARM_PRIVATE { profile::NEWER } else { profile::UNNAMED };
    let mut starts: Vec<(u32, Action)> = Vec::new();
    let mut push = |start: u32, action: Action| {
        if starts.last().is_none_or(|(_, last)| *last != action) {
            starts.push((start, action));
        }
    };
    let mut next = 0;
    for (number, action) in actions {
        if number > next {
            push(next, unnamed(next));
            if next <= newest && number > newest {
                push(newest + 1, unnamed(newest + 1));
            }
        }
        push(number, action);
        next = number + 1;
    }
    push(next, unnamed(next));
    if next <= newest {
        push(newest + 1, profile::NEWER);
    }
    starts
}

#[cfg(test)]
mod tests;
