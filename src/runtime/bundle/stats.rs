//! What the control groups of a container counted, in the words that callers of `events` read.

use std::path::Path;

use serde_json::{Value, json};

use super::cgroups::Groups;

fn text(group: Option<&Path>, file: &str) -> String {
    group.and_then(|group| std::fs::read_to_string(group.join(file)).ok()).unwrap_or_default()
}

fn number(group: Option<&Path>, file: &str) -> u64 {
    text(group, file).trim().parse().unwrap_or(0)
}

/// A limit; "max" is the largest number.
fn limit(group: Option<&Path>, file: &str) -> u64 {
    match text(group, file).trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    }
}

/// The lines `name number` of a file.
fn table(group: Option<&Path>, file: &str) -> serde_json::Map<String, Value> {
    let text = text(group, file);
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), Value::from(value.trim().parse::<u64>().ok()?)))
    };
    text.lines().filter_map(pair).collect()
}

/// The counters of a container.
pub(super) fn of(groups: &Groups) -> Value {
    let pids = groups.of("pids");
    let pids_limit = match limit(pids, "pids.max") {
        u64::MAX => 0,
        limit => limit,
    };
    let pids = json!({ "current": number(pids, "pids.current"), "limit": pids_limit });
    if groups.unified { unified(groups, pids) } else { legacy(groups, pids) }
}

fn legacy(groups: &Groups, pids: Value) -> Value {
    /// The kernel counts these in hundredths of a second.
    const TICK: u64 = 10_000_000;
    let (cpu, account, memory) = (groups.of("cpu"), groups.of("cpuacct"), groups.of("memory"));
    let times = table(account, "cpuacct.stat");
    let time = |name: &str| times.get(name).and_then(Value::as_u64).unwrap_or(0) * TICK;
    let per_cpu: Vec<u64> = text(account, "cpuacct.usage_percpu").split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let throttling = table(cpu, "cpu.stat");
    let of = |name: &str| throttling.get(name).and_then(Value::as_u64).unwrap_or(0);
    json!({
        "cpu": {
            "usage": { "total": number(account, "cpuacct.usage"), "percpu": per_cpu, "kernel": time("system"), "user": time("user") },
            "throttling": { "periods": of("nr_periods"), "throttledPeriods": of("nr_throttled"), "throttledTime": of("throttled_time") },
        },
        "memory": {
            "usage": {
                "limit": limit(memory, "memory.limit_in_bytes"),
                "usage": number(memory, "memory.usage_in_bytes"),
                "max": number(memory, "memory.max_usage_in_bytes"),
                "failcnt": number(memory, "memory.failcnt"),
            },
            "raw": table(memory, "memory.stat"),
        },
        "pids": pids,
    })
}

fn unified(groups: &Groups, pids: Value) -> Value {
    let group = groups.of("");
    let cpu = table(group, "cpu.stat");
    let of = |name: &str| cpu.get(name).and_then(Value::as_u64).unwrap_or(0);
    json!({
        "cpu": {
            "usage": { "total": of("usage_usec") * 1000, "kernel": of("system_usec") * 1000, "user": of("user_usec") * 1000 },
            "throttling": { "periods": of("nr_periods"), "throttledPeriods": of("nr_throttled"), "throttledTime": of("throttled_usec") * 1000 },
        },
        "memory": {
            "usage": {
                "limit": limit(group, "memory.max"),
                "usage": number(group, "memory.current"),
                "max": number(group, "memory.peak"),
                "failcnt": table(group, "memory.events").get("max").and_then(Value::as_u64).unwrap_or(0),
            },
            "raw": table(group, "memory.stat"),
        },
        "pids": pids,
    })
}
