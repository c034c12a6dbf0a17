//! Rules as the `linux.seccomp` of an OCI configuration, for other runtimes.
//!
//! They compile it with libseccomp, which takes one comparison for each argument of a rule: a range of values is written as its values.

use serde_json::{Map, Value, json};

use super::builtin;
use super::rules::{Comparison, Condition, SeccompAction, SeccompRules};
use super::tables::Abi;
use crate::runtime::Capabilities;

/// The widest range that is written as its values.
const WIDEST: u64 = 64;

/// The default profile for a process with these capabilities.
pub(in crate::runtime) fn default_document(capabilities: Capabilities) -> Value {
    document(&builtin::rules(capabilities))
}

/// Other rules.
pub(in crate::runtime) fn document(rules: &SeccompRules) -> Value {
    let mut flags = Vec::new();
    if rules.log {
        flags.push("SECCOMP_FILTER_FLAG_LOG");
    }
    if rules.allow_speculation {
        flags.push("SECCOMP_FILTER_FLAG_SPEC_ALLOW");
    }
    let mut architectures = vec![architecture(Abi::NATIVE)];
    architectures.extend(rules.abis.iter().filter(|abi| **abi != Abi::NATIVE).map(|abi| architecture(*abi)));
    let mut syscalls = Vec::new();
    for rule in rules.rules.iter().filter(|rule| rule.action != rules.default) {
        for conditions in without_ranges(&rule.conditions) {
            let mut entry = outcome("action", "errnoRet", rule.action);
            entry.insert("names".to_owned(), json!(rule.names));
            entry.insert("args".to_owned(), conditions.iter().map(condition).collect());
            syscalls.push(Value::Object(entry));
        }
    }
    let mut whole = outcome("defaultAction", "defaultErrnoRet", rules.default);
    whole.insert("architectures".to_owned(), json!(architectures));
    whole.insert("syscalls".to_owned(), Value::Array(syscalls));
    if !flags.is_empty() {
        whole.insert("flags".to_owned(), json!(flags));
    }
    Value::Object(whole)
}

/// The conditions with each range of an argument's values replaced by one of them, for all of them.
fn without_ranges(conditions: &[Condition]) -> Vec<Vec<Condition>> {
    let range = conditions.iter().enumerate().find_map(|(low, first)| {
        let high = conditions.iter().position(|last| last.argument == first.argument && last.comparison == Comparison::LessOrEqual)?;
        let width = conditions[high].value.checked_sub(first.value)?;
        (first.comparison == Comparison::GreaterOrEqual && width <= WIDEST).then_some((low, high))
    });
    let Some((low, high)) = range else { return vec![conditions.to_vec()] };
    let rest = conditions.iter().enumerate().filter(|(index, _)| *index != low && *index != high).map(|(_, condition)| *condition);
    let rest: Vec<Condition> = rest.collect();
    let values = conditions[low].value..=conditions[high].value;
    let each = values.map(|value| Condition { argument: conditions[low].argument, comparison: Comparison::Equal, value });
    each.flat_map(|equal| without_ranges(&[rest.clone(), vec![equal]].concat())).collect()
}

fn architecture(abi: Abi) -> &'static str {
    match abi {
        Abi::X86_64 => "SCMP_ARCH_X86_64",
        Abi::X32 => "SCMP_ARCH_X32",
        Abi::X86 => "SCMP_ARCH_X86",
        Abi::Aarch64 => "SCMP_ARCH_AARCH64",
        Abi::Arm => "SCMP_ARCH_ARM",
    }
}

/// An action and its number, where it has one.
fn outcome(name: &str, number: &str, action: SeccompAction) -> Map<String, Value> {
    let (word, value) = match action {
        SeccompAction::Allow => ("SCMP_ACT_ALLOW", None),
        SeccompAction::Log => ("SCMP_ACT_LOG", None),
        SeccompAction::Errno(errno) => ("SCMP_ACT_ERRNO", Some(errno)),
        SeccompAction::Trace(number) => ("SCMP_ACT_TRACE", Some(number)),
        SeccompAction::Notify => ("SCMP_ACT_NOTIFY", None),
        SeccompAction::Trap => ("SCMP_ACT_TRAP", None),
        SeccompAction::KillThread => ("SCMP_ACT_KILL_THREAD", None),
        SeccompAction::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
    };
    let mut entry = Map::from_iter([(name.to_owned(), json!(word))]);
    entry.extend(value.map(|value| (number.to_owned(), json!(value))));
    entry
}

fn condition(condition: &Condition) -> Value {
    let (op, value, two) = match condition.comparison {
        Comparison::Equal => ("SCMP_CMP_EQ", condition.value, 0),
        Comparison::NotEqual => ("SCMP_CMP_NE", condition.value, 0),
        Comparison::Less => ("SCMP_CMP_LT", condition.value, 0),
        Comparison::LessOrEqual => ("SCMP_CMP_LE", condition.value, 0),
        Comparison::Greater => ("SCMP_CMP_GT", condition.value, 0),
        Comparison::GreaterOrEqual => ("SCMP_CMP_GE", condition.value, 0),
        Comparison::Masked(mask) => ("SCMP_CMP_MASKED_EQ", mask, condition.value),
    };
    json!({ "index": condition.argument, "value": value, "valueTwo": two, "op": op })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::seccomp::{SeccompHost, SeccompProfile, compile};

    #[test]
    fn the_document_of_the_default_profile_means_the_same() {
        for capabilities in [Capabilities::DEFAULT, Capabilities::ALL] {
            let rules = builtin::rules(capabilities);
            let text = document(&rules).to_string();
            let read = SeccompProfile::parse(&text).unwrap().rules(&SeccompHost::of_this_machine(capabilities)).unwrap().unwrap();
            assert_eq!((read.default, read.log), (rules.default, rules.log));
            // What differs is how ranges are written.
            assert!(read.rules.len() > rules.rules.len());
            assert!(read.rules.iter().all(|rule| rule.conditions.len() <= 1));
            assert!(compile(&read).len() < 4096);
        }
    }

    #[test]
    fn ranges_become_their_values() {
        let bound = |comparison, value| Condition { argument: 2, comparison, value };
        let other = Condition { argument: 0, comparison: Comparison::Equal, value: 7 };
        let found = without_ranges(&[bound(Comparison::GreaterOrEqual, 3), other, bound(Comparison::LessOrEqual, 5)]);
        let expected: Vec<Vec<Condition>> = (3..=5).map(|value| vec![other, bound(Comparison::Equal, value)]).collect();
        assert_eq!(found, expected);
        assert_eq!(without_ranges(&[other]), [vec![other]]);
    }
}
