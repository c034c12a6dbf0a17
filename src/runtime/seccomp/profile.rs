//! Profiles as JSON: those of Docker, and the `linux.seccomp` of an OCI configuration, which is what is left of them when Docker has chosen.
//!
//! The deserializer refuses what is wrong where it stands, so that the message can name the place. What a profile says of capabilities, architectures and kernels is
//! decided by [`SeccompProfile::rules`], for one machine and one container.

use std::borrow::Cow;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use super::rules::{Comparison, Condition, SeccompAction, SeccompRule, SeccompRules};
use super::tables::Abi;
use super::{MOST_INSTRUCTIONS, compile};
use crate::runtime::Capabilities;

/// A seccomp profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeccompProfile {
    #[serde(default)]
    default_action: Action,
    default_errno_ret: Option<Errno>,
    architectures: Option<Vec<Architecture>>,
    arch_map: Option<Vec<ArchitectureWithOthers>>,
    flags: Option<Vec<Flag>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

/// Why a profile makes no filter.
#[derive(Debug, thiserror::Error)]
pub enum SeccompProfileError {
    /// The text is not a profile.
    #[error("{message}")]
    Malformed {
        /// What is wrong.
        message: String,
        /// The line, from 1; 0 where the whole text is meant.
        line: usize,
        /// The byte in the line, from 1.
        column: usize,
    },
    /// Two ways to say the same.
    #[error("the profile has both `architectures` and `archMap`")]
    TwoListsOfArchitectures,
    /// There are rules, and nothing for the rest.
    #[error("the profile has no `defaultAction`")]
    NoDefault,
    /// An error number for an action that takes none.
    #[error("`{action}` takes no error number")]
    NoErrorNumber {
        /// The action.
        action: &'static str,
    },
    /// A program would have to be told.
    #[error("the profile has a program asked about system calls (`SCMP_ACT_NOTIFY`, `listenerPath`), and only `strake oci` can do this")]
    Listener,
    /// Nobody is named who could be told.
    #[error("`SCMP_ACT_NOTIFY` needs a program that is asked about system calls, and the profile names none (`listenerPath`)")]
    NoListener,
    /// The kernel has an end.
    #[error("the profile makes a program of {instructions} instructions; the kernel takes {MOST_INSTRUCTIONS}")]
    TooLong {
        /// How many there are.
        instructions: usize,
    },
}

/// What a profile may depend on.
#[derive(Clone, Copy, Debug)]
pub struct SeccompHost {
    /// The capabilities in the container's bounding set.
    pub capabilities: Capabilities,
    /// The kernel's version: the first two numbers.
    pub kernel: (u32, u32),
}

impl SeccompHost {
    /// This machine, with a container of these capabilities.
    pub fn of_this_machine(capabilities: Capabilities) -> SeccompHost {
        let uname = rustix::system::uname();
        let release = uname.release().to_string_lossy();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
        SeccompHost { capabilities, kernel: (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) }
    }
}

impl SeccompProfile {
    /// Reads the text of a profile.
    pub fn parse(text: &str) -> Result<SeccompProfile, SeccompProfileError> {
        serde_json::from_str(text).map_err(|error| {
            let place = format!(" at line {} column {}", error.line(), error.column());
            let message = error.to_string();
            let message = message.strip_suffix(&place).unwrap_or(&message).to_owned();
            SeccompProfileError::Malformed { message, line: error.line(), column: error.column() }
        })
    }

    /// What it says for one container; `None` where it is empty, which stands for no filter. No other program is asked about system calls.
    pub fn rules(&self, host: &SeccompHost) -> Result<Option<SeccompRules>, SeccompProfileError> {
        let rules = self.all_rules(host)?;
        match &rules {
            Some(rules) if rules.asks() || self.listener().is_some() => Err(SeccompProfileError::Listener),
            _ => Ok(rules),
        }
    }

    /// Who is asked about system calls: the path of its socket, and what it is told beside.
    pub(in crate::runtime) fn listener(&self) -> Option<(&str, &str)> {
        let path = self.listener_path.as_deref().filter(|path| !path.is_empty())?;
        Some((path, self.listener_metadata.as_deref().unwrap_or_default()))
    }

    /// [`rules`](Self::rules), where [`listener`](Self::listener) can be asked about system calls.
    pub(in crate::runtime) fn rules_for_listener(&self, host: &SeccompHost) -> Result<Option<SeccompRules>, SeccompProfileError> {
        let rules = self.all_rules(host)?;
        match &rules {
            Some(rules) if rules.asks() && self.listener().is_none() => Err(SeccompProfileError::NoListener),
            _ => Ok(rules),
        }
    }

    fn all_rules(&self, host: &SeccompHost) -> Result<Option<SeccompRules>, SeccompProfileError> {
        let listed = self.syscalls.as_deref().unwrap_or_default();
        let Action(default) = self.default_action;
        if default.is_none() && listed.is_empty() {
            return Ok(None);
        }
        let default = default.ok_or(SeccompProfileError::NoDefault)?.action(self.default_errno_ret)?;
        let mut rules = Vec::new();
        for rule in listed.iter().filter(|rule| rule.applies(host)) {
            rules.extend(rule.rules()?);
        }
        let flags = self.flags.as_deref().unwrap_or_default();
        let rules = SeccompRules {
            default,
            abis: self.abis()?,
            rules,
            log: flags.contains(&Flag::Log),
            // Where a profile says nothing of flags, other runtimes take this one.
            allow_speculation: self.flags.is_none() || flags.contains(&Flag::SpecAllow),
            killable_wait: flags.contains(&Flag::WaitKillable),
        };
        match compile(&rules).len() {
            instructions if instructions > MOST_INSTRUCTIONS => Err(SeccompProfileError::TooLong { instructions }),
            _ => Ok(Some(rules)),
        }
    }

    /// The ABIs of this machine that it allows beside the native one.
    fn abis(&self) -> Result<Vec<Abi>, SeccompProfileError> {
        let listed = self.architectures.as_deref().unwrap_or_default();
        let map = self.arch_map.as_deref().unwrap_or_default();
        if !listed.is_empty() && !map.is_empty() {
            return Err(SeccompProfileError::TwoListsOfArchitectures);
        }
        let ours = map.iter().find(|entry| entry.architecture.0 == Some(Abi::NATIVE));
        let others = ours.and_then(|entry| entry.sub_architectures.as_deref()).unwrap_or_default();
        Ok(listed.iter().chain(others).filter_map(|architecture| architecture.0).collect())
    }
}

/// An action by its name in libseccomp; none where the name is empty.
#[derive(Clone, Copy, Debug, Default)]
struct Action(Option<ActionName>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ActionName {
    Allow,
    Log,
    Errno,
    Trace,
    Notify,
    Trap,
    KillThread,
    KillProcess,
}

impl ActionName {
    fn action(self, errno: Option<Errno>) -> Result<SeccompAction, SeccompProfileError> {
        let plain = |action, name| match errno {
            // The kernel's number for "no error" is how some generators write "none".
            None | Some(Errno(0)) => Ok(action),
            Some(_) => Err(SeccompProfileError::NoErrorNumber { action: name }),
        };
        let number = errno.map_or(libc::EPERM as u16, |Errno(number)| number);
        match self {
            ActionName::Errno => Ok(SeccompAction::Errno(number)),
            ActionName::Trace => Ok(SeccompAction::Trace(number)),
            ActionName::Allow => plain(SeccompAction::Allow, "SCMP_ACT_ALLOW"),
            ActionName::Log => plain(SeccompAction::Log, "SCMP_ACT_LOG"),
            ActionName::Notify => plain(SeccompAction::Notify, "SCMP_ACT_NOTIFY"),
            ActionName::Trap => plain(SeccompAction::Trap, "SCMP_ACT_TRAP"),
            ActionName::KillThread => plain(SeccompAction::KillThread, "SCMP_ACT_KILL"),
            ActionName::KillProcess => plain(SeccompAction::KillProcess, "SCMP_ACT_KILL_PROCESS"),
        }
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Action, D::Error> {
        deserializer.deserialize_str(Word(|name| {
            Ok(Action(Some(match name {
                "" => return Ok(Action(None)),
                "SCMP_ACT_ALLOW" => ActionName::Allow,
                "SCMP_ACT_LOG" => ActionName::Log,
                "SCMP_ACT_ERRNO" => ActionName::Errno,
                "SCMP_ACT_TRACE" => ActionName::Trace,
                "SCMP_ACT_TRAP" => ActionName::Trap,
                "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => ActionName::KillThread,
                "SCMP_ACT_KILL_PROCESS" => ActionName::KillProcess,
                "SCMP_ACT_NOTIFY" => ActionName::Notify,
                _ => return Err(format!("`{name}` is not an action")),
            })))
        }))
    }
}

/// Reads a text by a function. The parser knows the place of what such a visitor refuses, and not of what is refused later.
struct Word<T>(fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Word<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

/// The same for numbers.
struct Whole<T>(fn(u64) -> Result<T, String>);

impl<T> Visitor<'_> for Whole<T> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a whole number that is not negative")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        (self.0)(number).map_err(E::custom)
    }
}

/// An error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Errno(u16);

impl<'de> Deserialize<'de> for Errno {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Errno, D::Error> {
        // The highest that the kernel gives to programs.
        const MAX_ERRNO: u64 = 4095;
        deserializer.deserialize_u64(Whole(|number| match number {
            0..=MAX_ERRNO => Ok(Errno(number as u16)),
            _ => Err(format!("{number} is not an error number: the highest is {MAX_ERRNO}")),
        }))
    }
}

/// An architecture by its name in libseccomp; none where this machine cannot have it.
#[derive(Clone, Copy, Debug)]
struct Architecture(Option<Abi>);

/// Those that no machine of ours can be.
const FOREIGN: [&str; 19] = [
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV32",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
];

impl<'de> Deserialize<'de> for Architecture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Architecture, D::Error> {
        deserializer.deserialize_str(Word(|name| {
            Ok(Architecture(Some(match name {
                "SCMP_ARCH_X86_64" => Abi::X86_64,
                "SCMP_ARCH_X32" => Abi::X32,
                "SCMP_ARCH_X86" => Abi::X86,
                "SCMP_ARCH_AARCH64" => Abi::Aarch64,
                "SCMP_ARCH_ARM" => Abi::Arm,
                "SCMP_ARCH_NATIVE" => Abi::NATIVE,
                foreign if FOREIGN.contains(&foreign) => return Ok(Architecture(None)),
                _ => return Err(format!("`{name}` is not an architecture")),
            })))
        }))
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchitectureWithOthers {
    architecture: Architecture,
    sub_architectures: Option<Vec<Architecture>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Flag {
    #[serde(rename = "SECCOMP_FILTER_FLAG_LOG")]
    Log,
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
    // The process has a single thread when it takes the filter.
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    ThreadSync,
    #[serde(rename = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV")]
    WaitKillable,
}

/// One entry of `syscalls`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "WrittenRule")]
struct Rule {
    names: Vec<String>,
    action: ActionName,
    errno: Option<Errno>,
    args: Vec<Argument>,
    includes: Filter,
    excludes: Filter,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenRule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: Action,
    errno_ret: Option<Errno>,
    args: Option<Vec<Argument>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

impl TryFrom<WrittenRule> for Rule {
    type Error = String;

    fn try_from(written: WrittenRule) -> Result<Rule, String> {
        let names = match (written.name.filter(|name| !name.is_empty()), written.names.unwrap_or_default()) {
            (Some(name), names) if names.is_empty() => vec![name],
            (Some(_), _) => return Err("a rule has both `name` and `names`".to_owned()),
            (None, names) => names,
        };
        let action = written.action.0.ok_or("a rule has no action")?;
        action.action(written.errno_ret).map_err(|error| error.to_string())?;
        Ok(Rule {
            names,
            action,
            errno: written.errno_ret,
            args: written.args.unwrap_or_default(),
            includes: written.includes.unwrap_or_default(),
            excludes: written.excludes.unwrap_or_default(),
        })
    }
}

impl Rule {
    fn applies(&self, host: &SeccompHost) -> bool {
        let Filter { caps, arches, min_kernel } = &self.excludes;
        let has = |name: &String| Capabilities::named(name).is_some_and(|capability| host.capabilities.contains(capability));
        let is_ours = |name: &String| name == architecture_of_docker();
        let excluded = caps.iter().flatten().any(has)
            || arches.iter().flatten().any(is_ours)
            || min_kernel.is_some_and(|KernelVersion(version)| host.kernel >= version);
        let Filter { caps, arches, min_kernel } = &self.includes;
        let arches = arches.as_deref().unwrap_or_default();
        let included = caps.iter().flatten().all(has)
            && (arches.is_empty() || arches.iter().any(is_ours))
            && min_kernel.is_none_or(|KernelVersion(version)| host.kernel >= version);
        included && !excluded
    }

    /// Conditions on different arguments must all hold; where two are on the same one, each of them alone is enough, as in other runtimes.
    fn rules(&self) -> Result<Vec<SeccompRule>, SeccompProfileError> {
        let action = self.action.action(self.errno)?;
        let names: Vec<_> = self.names.iter().cloned().map(Cow::Owned).collect();
        let conditions: Vec<_> = self.args.iter().map(|argument| argument.0).collect();
        let same = |(index, one): (usize, &Condition)| conditions[..index].iter().any(|other| other.argument == one.argument);
        let groups: Vec<Vec<Condition>> = match conditions.iter().enumerate().any(same) {
            true => conditions.into_iter().map(|condition| vec![condition]).collect(),
            false => vec![conditions],
        };
        Ok(groups.into_iter().map(|conditions| SeccompRule { names: names.clone(), action, conditions }).collect())
    }
}

/// What Docker's profiles call this architecture.
fn architecture_of_docker() -> &'static str {
    match Abi::NATIVE {
        Abi::Aarch64 | Abi::Arm => "arm64",
        Abi::X86_64 | Abi::X32 | Abi::X86 => "amd64",
    }
}

/// What a rule depends on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<KernelVersion>,
}

#[derive(Clone, Copy, Debug)]
struct KernelVersion((u32, u32));

impl<'de> Deserialize<'de> for KernelVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KernelVersion, D::Error> {
        deserializer.deserialize_str(Word(|text| {
            let numbers = text.split_once('.').and_then(|(kernel, major)| Some((kernel.parse().ok()?, major.parse().ok()?)));
            numbers.map(KernelVersion).ok_or_else(|| format!("`{text}` is not a version of the kernel, such as `4.8`"))
        }))
    }
}

/// One entry of `args`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(from = "WrittenArgument")]
struct Argument(Condition);

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WrittenArgument {
    index: ArgumentIndex,
    #[serde(default)]
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Operator,
}

#[derive(Clone, Copy, Debug)]
struct ArgumentIndex(u8);

impl<'de> Deserialize<'de> for ArgumentIndex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ArgumentIndex, D::Error> {
        deserializer.deserialize_u64(Whole(|index| match index {
            0..=5 => Ok(ArgumentIndex(index as u8)),
            _ => Err(format!("system calls have no argument {index}: the first is 0, the last 5")),
        }))
    }
}

/// A comparison by its name in libseccomp; that of masked bits has its mask in `value`.
#[derive(Clone, Copy, Debug)]
struct Operator(Comparison);

impl<'de> Deserialize<'de> for Operator {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Operator, D::Error> {
        deserializer.deserialize_str(Word(|name| {
            Ok(Operator(match name {
                "SCMP_CMP_EQ" => Comparison::Equal,
                "SCMP_CMP_NE" => Comparison::NotEqual,
                "SCMP_CMP_LT" => Comparison::Less,
                "SCMP_CMP_LE" => Comparison::LessOrEqual,
                "SCMP_CMP_GE" => Comparison::GreaterOrEqual,
                "SCMP_CMP_GT" => Comparison::Greater,
                "SCMP_CMP_MASKED_EQ" => Comparison::Masked(0),
                _ => return Err(format!("`{name}` is not a comparison")),
            }))
        }))
    }
}

impl From<WrittenArgument> for Argument {
    fn from(written: WrittenArgument) -> Argument {
        let WrittenArgument { index: ArgumentIndex(argument), value, value_two, op: Operator(op) } = written;
        let (comparison, value) = match op {
            Comparison::Masked(_) => (Comparison::Masked(value), value_two),
            other => (other, value),
        };
        Argument(Condition { argument, comparison, value })
    }
}
