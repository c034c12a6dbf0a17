//! Classic BPF as seccomp runs it: decisions as binary trees over the ranges of a number.
//!
//! A system call passes through about nine comparisons, however many the profile names, instead of one comparison per name.

use super::rules::{Comparison, Condition, SeccompAction};
use crate::sys::process::BpfInstruction;

const LD_W_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const JMP_JGT_K: u16 = 0x25;
const JMP_JGE_K: u16 = 0x35;
const ALU_AND_K: u16 = 0x54;
const RET_K: u16 = 0x06;

/// Offset of the system call's number in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
/// Offset of the architecture.
pub(super) const ARCH: u32 = 4;

/// Offset of the low half of an argument (little-endian).
fn argument_low(index: u8) -> u32 {
    16 + 8 * u32::from(index)
}

/// Offset of the high half of an argument.
fn argument_high(index: u8) -> u32 {
    argument_low(index) + 4
}

/// What happens to a system call: the action of the first entry whose conditions all hold, and where none does, the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Conditions on arguments, and what happens where they hold.
    pub(super) conditional: Vec<(Vec<Condition>, SeccompAction)>,
    /// What happens otherwise.
    pub(super) otherwise: SeccompAction,
    /// Whether all 64 bits of arguments count.
    pub(super) wide: bool,
}

/// Where a comparison leads to.
#[derive(Clone, Copy)]
enum Target {
    /// The next instruction.
    Next,
    /// The end of this condition, which holds.
    Holds,
    /// The end of this entry, as the condition does not hold.
    Fails,
}

/// An instruction of a condition, whose targets are not numbers yet.
enum Step {
    Load(u32),
    And(u32),
    Jump(u16, u32, Target, Target),
}

fn instruction(code: u16, constant: u32) -> BpfInstruction {
    BpfInstruction { code, jump_true: 0, jump_false: 0, constant }
}

fn jump(code: u16, constant: u32, jump_true: u8, jump_false: u8) -> BpfInstruction {
    BpfInstruction { code, jump_true, jump_false, constant }
}

/// Loads a word of `struct seccomp_data`.
pub(super) fn load(offset: u32) -> BpfInstruction {
    instruction(LD_W_ABS, offset)
}

/// Ends the program with an action.
pub(super) fn act(action: SeccompAction) -> Vec<BpfInstruction> {
    vec![instruction(RET_K, action.value())]
}

/// The instructions for a verdict. None of them falls through.
fn judge(verdict: &Verdict) -> Vec<BpfInstruction> {
    let mut code: Vec<_> = verdict.conditional.iter().flat_map(|(conditions, action)| entry(conditions, *action, verdict.wide)).collect();
    code.extend(act(verdict.otherwise));
    code
}

/// The action where all conditions hold; falls through otherwise.
fn entry(conditions: &[Condition], action: SeccompAction, wide: bool) -> Vec<BpfInstruction> {
    let conditions: Vec<Vec<Step>> = conditions.iter().map(|condition| steps(*condition, wide)).collect();
    let end = conditions.iter().map(Vec::len).sum::<usize>() + 1;
    let mut code = Vec::with_capacity(end);
    let mut done = 0;
    for condition in conditions {
        done += condition.len();
        for step in condition {
            let next = code.len() + 1;
            let distance = |target| {
                let far = match target {
                    Target::Next => 0,
                    Target::Holds => done - next,
                    Target::Fails => end - next,
                };
                u8::try_from(far).expect("twelve conditions are less than 255 instructions")
            };
            code.push(match step {
                Step::Load(offset) => load(offset),
                Step::And(mask) => instruction(ALU_AND_K, mask),
                Step::Jump(op, constant, holds, fails) => jump(op, constant, distance(holds), distance(fails)),
            });
        }
    }
    code.extend(act(action));
    code
}

/// Compares an argument: the high halves first, as the machine has 32 bits.
fn steps(condition: Condition, wide: bool) -> Vec<Step> {
    use Target::{Fails, Holds, Next};
    let Condition { argument, comparison, value } = condition;
    let (high, low) = ((value >> 32) as u32, value as u32);
    // What the comparison of the high halves decides, and what is left to the low ones.
    let (upper, lower) = match comparison {
        Comparison::Equal => (vec![Step::Jump(JMP_JEQ_K, high, Next, Fails)], Step::Jump(JMP_JEQ_K, low, Next, Fails)),
        Comparison::NotEqual => (vec![Step::Jump(JMP_JEQ_K, high, Next, Holds)], Step::Jump(JMP_JEQ_K, low, Fails, Next)),
        Comparison::Greater => (more(high, Holds, Fails), Step::Jump(JMP_JGT_K, low, Next, Fails)),
        Comparison::GreaterOrEqual => (more(high, Holds, Fails), Step::Jump(JMP_JGE_K, low, Next, Fails)),
        Comparison::Less => (more(high, Fails, Holds), Step::Jump(JMP_JGE_K, low, Fails, Next)),
        Comparison::LessOrEqual => (more(high, Fails, Holds), Step::Jump(JMP_JGT_K, low, Fails, Next)),
        Comparison::Masked(mask) => {
            (vec![Step::And((mask >> 32) as u32), Step::Jump(JMP_JEQ_K, high, Next, Fails)], Step::Jump(JMP_JEQ_K, low, Next, Fails))
        }
    };
    let mut steps = Vec::new();
    if wide {
        steps.push(Step::Load(argument_high(argument)));
        steps.extend(upper);
    }
    steps.push(Step::Load(argument_low(argument)));
    if let Comparison::Masked(mask) = comparison {
        steps.push(Step::And(mask as u32));
    }
    steps.push(lower);
    steps
}

/// Decides where the high halves differ.
fn more(high: u32, greater: Target, less: Target) -> Vec<Step> {
    vec![Step::Jump(JMP_JGT_K, high, greater, Target::Next), Step::Jump(JMP_JEQ_K, high, Target::Next, less)]
}

/// A tree of comparisons of the loaded number. Each entry holds from its start to the next entry's; the first starts at 0.
pub(super) fn tree(starts: &[(u32, Verdict)]) -> Vec<BpfInstruction> {
    match starts {
        [] => act(SeccompAction::KillProcess),
        [(_, verdict)] => judge(verdict),
        _ => {
            let (below, from) = starts.split_at(starts.len() / 2);
            branch(JMP_JGE_K, from[0].0, tree(from), tree(below))
        }
    }
}

/// Runs `then` where the loaded number is `constant`, otherwise `or_else`.
pub(super) fn if_equal(constant: u32, then: Vec<BpfInstruction>, or_else: Vec<BpfInstruction>) -> Vec<BpfInstruction> {
    branch(JMP_JEQ_K, constant, then, or_else)
}

/// Runs `then` where the loaded number is at least `constant`, otherwise `or_else`.
pub(super) fn if_at_least(constant: u32, then: Vec<BpfInstruction>, or_else: Vec<BpfInstruction>) -> Vec<BpfInstruction> {
    branch(JMP_JGE_K, constant, then, or_else)
}

/// Conditional jumps reach 255 instructions; unconditional ones any.
fn branch(code: u16, constant: u32, then: Vec<BpfInstruction>, or_else: Vec<BpfInstruction>) -> Vec<BpfInstruction> {
    let mut out = Vec::with_capacity(then.len() + or_else.len() + 2);
    match u8::try_from(or_else.len()) {
        Ok(distance) => out.push(jump(code, constant, distance, 0)),
        Err(_) => {
            out.push(jump(code, constant, 0, 1));
            out.push(instruction(JMP_JA, or_else.len() as u32));
        }
    }
    out.extend(or_else);
    out.extend(then);
    out
}
