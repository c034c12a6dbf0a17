//! Classic BPF as seccomp runs it: decisions as binary trees over the ranges of a number.
//!
//! A system call passes through about nine comparisons, however many the profile names, instead of one comparison per name.

use crate::sys::process::BpfInstruction;

const LD_W_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const JMP_JGE_K: u16 = 0x35;
const ALU_AND_K: u16 = 0x54;
const RET_K: u16 = 0x06;

/// Offset of the system call's number in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
/// Offset of the architecture.
pub(super) const ARCH: u32 = 4;

/// Offset of the low half of an argument (little-endian).
fn argument_low(index: u32) -> u32 {
    16 + 8 * index
}

/// Offset of the high half of an argument.
fn argument_high(index: u32) -> u32 {
    argument_low(index) + 4
}

/// What happens to a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    /// It fails with this error.
    Errno(u16),
    /// The process is killed.
    Kill,
    /// It depends on a 64-bit argument: the ranges of values that are allowed (inclusive); others fail with the error.
    IfArgument {
        index: u32,
        allowed: Vec<(u32, u32)>,
        otherwise: u16,
    },
    /// It is allowed where no bit of the mask is set in the low half of an argument, and fails with the error otherwise.
    IfNoBits {
        index: u32,
        mask: u32,
        otherwise: u16,
    },
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

/// The instructions for an action. None of them falls through.
pub(super) fn act(action: &Action) -> Vec<BpfInstruction> {
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    const KILL_PROCESS: u32 = 0x8000_0000;
    match action {
        Action::Allow => vec![instruction(RET_K, ALLOW)],
        Action::Errno(errno) => vec![instruction(RET_K, ERRNO | u32::from(*errno))],
        Action::Kill => vec![instruction(RET_K, KILL_PROCESS)],
        Action::IfArgument { index, allowed, otherwise } => {
            let deny = Action::Errno(*otherwise);
            let mut starts = vec![(0, deny.clone())];
            for (low, high) in allowed {
                starts.retain(|(start, _)| start != low);
                starts.push((*low, Action::Allow));
                starts.extend(high.checked_add(1).map(|next| (next, deny.clone())));
            }
            let mut code = vec![load(argument_high(*index)), jump(JMP_JEQ_K, 0, 1, 0)];
            code.extend(act(&deny));
            code.push(load(argument_low(*index)));
            code.extend(tree(&starts));
            code
        }
        Action::IfNoBits { index, mask, otherwise } => {
            let mut code = vec![load(argument_low(*index)), instruction(ALU_AND_K, *mask), jump(JMP_JEQ_K, 0, 0, 1)];
            code.extend(act(&Action::Allow));
            code.extend(act(&Action::Errno(*otherwise)));
            code
        }
    }
}

/// A tree of comparisons of the loaded number. Each entry holds from its start to the next entry's; the first starts at 0.
pub(super) fn tree(starts: &[(u32, Action)]) -> Vec<BpfInstruction> {
    match starts {
        [] => act(&Action::Kill),
        [(_, action)] => act(action),
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
