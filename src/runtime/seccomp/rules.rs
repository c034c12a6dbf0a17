//! What a system call filter says, whoever wrote it: the default profile, a profile in a file, or the `linux.seccomp` of an OCI configuration.
//!
//! Names, not numbers: each ABI has numbers of its own, and a name that none of this machine's ABIs has is passed over, so that one profile serves all.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::tables::Abi;

/// A system call filter.
///
/// Of the rules for one system call the first without conditions decides; where there is none, the first whose conditions hold, and then `default`. Rules that say
/// what is said by default anyway do not count. Where the default refuses, system calls with numbers above all that the rules name fail with `ENOSYS`, as on an older
/// kernel, so that libraries take another way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompRules {
    /// What happens to system calls that no rule is about.
    pub default: SeccompAction,
    /// The ABIs that may be used beside the native one; programs of others are killed.
    pub abis: Vec<Abi>,
    /// The rules.
    pub rules: Vec<SeccompRule>,
    /// Whether the kernel logs what is not allowed (`SECCOMP_FILTER_FLAG_LOG`).
    pub log: bool,
    /// Whether speculative execution is left as it is (`SECCOMP_FILTER_FLAG_SPEC_ALLOW`).
    pub allow_speculation: bool,
    /// Whether a system call that another program has been told of ends for fatal signals only (`SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`).
    #[serde(default)]
    pub killable_wait: bool,
}

impl SeccompRules {
    /// Whether another program is asked about some system call.
    pub(in crate::runtime) fn asks(&self) -> bool {
        self.default == SeccompAction::Notify || self.rules.iter().any(|rule| rule.action == SeccompAction::Notify)
    }
}

/// What happens to some system calls, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompRule {
    /// The system calls.
    pub names: Vec<Cow<'static, str>>,
    /// What happens to them.
    pub action: SeccompAction,
    /// What must hold of their arguments, all of it. At most twelve.
    pub conditions: Vec<Condition>,
}

/// What happens to a system call (seccomp(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SeccompAction {
    /// It is made.
    Allow,
    /// It is made, and logged.
    Log,
    /// It fails with this error.
    Errno(u16),
    /// A tracer is told, with this number; without one it fails with `ENOSYS`.
    Trace(u16),
    /// Another program is asked what is to become of it.
    Notify,
    /// The thread gets SIGSYS.
    Trap,
    /// The thread is killed.
    KillThread,
    /// The process is killed.
    KillProcess,
}

impl SeccompAction {
    /// Whether what is newer than a profile is let through. A tracer is taken to know what it does.
    pub(super) fn is_permissive(self) -> bool {
        matches!(self, SeccompAction::Allow | SeccompAction::Log | SeccompAction::Trace(_))
    }

    /// What a filter returns for it.
    pub(super) fn value(self) -> u32 {
        match self {
            SeccompAction::Allow => libc::SECCOMP_RET_ALLOW,
            SeccompAction::Log => libc::SECCOMP_RET_LOG,
            SeccompAction::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            SeccompAction::Trace(number) => libc::SECCOMP_RET_TRACE | u32::from(number),
            SeccompAction::Notify => libc::SECCOMP_RET_USER_NOTIF,
            SeccompAction::Trap => libc::SECCOMP_RET_TRAP,
            SeccompAction::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            SeccompAction::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// What must hold of an argument. Programs with 32 bits are judged by the low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Which argument: 0 to 5.
    pub argument: u8,
    /// How it compares.
    pub comparison: Comparison,
    /// With what.
    pub value: u64,
}

/// How an argument compares with a value, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// They are equal.
    Equal,
    /// They are not.
    NotEqual,
    /// It is less.
    Less,
    /// It is not more.
    LessOrEqual,
    /// It is more.
    Greater,
    /// It is not less.
    GreaterOrEqual,
    /// The bits of this mask are those of the value.
    Masked(u64),
}
