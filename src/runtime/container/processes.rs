//! The processes of a running container, as the host sees them.
//!
//! They are the descendants of the supervisor that are not in its own PID namespace: what was started by `exec` has no parent in the container, and a container need not
//! have a control group.

use std::collections::{HashMap, HashSet};

/// One process, from `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the state and the parent follow.
    let parent = text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
    Some(Stat { parent })
}

/// Whether a process is the first one of a PID namespace that is not the reader's.
fn is_first(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    numbers.len() > 1 && numbers.last() == Some(&"1")
}

/// In how many PID namespaces a process is. Which ones may be asked by its owner's namespace only; this by anyone.
fn depth(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("NSpid:")).map_or(0, |numbers| numbers.split_whitespace().count())
}

/// All processes of the container whose PID 1 is the host's process `pid`, in ascending order; none where it has ended.
pub fn processes_of(pid: u32) -> Vec<u32> {
    let Some(Stat { parent }) = stat(pid) else { return Vec::new() };
    // Another runtime's container has a guardian in a namespace of its own between it and the supervisor.
    let guarded = is_first(parent) && is_first(pid);
    let Some(supervisor) = (if guarded { stat(parent).map(|guardian| guardian.parent) } else { Some(parent) }) else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let all = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (child, stat) in all.filter_map(|child| Some((child, stat(child)?))) {
        children.entry(stat.parent).or_default().push(child);
    }
    let mut outside = depth(parent);
    let (mut found, mut seen, mut todo) = (Vec::new(), HashSet::new(), vec![supervisor]);
    // One that shares the host's processes is known by its descendants only.
    if depth(pid) == outside {
        (found, todo, outside) = (vec![pid], vec![pid], 0);
    }
    while let Some(parent) = todo.pop() {
        for child in children.get(&parent).into_iter().flatten().copied() {
            // What serves the container's network is the first of a namespace of its own, as the container is.
            let serves = child != pid && !guarded && depth(child) == outside + 1 && is_first(child);
            if !serves && seen.insert(child) {
                todo.push(child);
                // Those that serve a command beside the container's own are not in it.
                if depth(child) > outside {
                    found.push(child);
                }
            }
        }
    }
    found.sort_unstable();
    found
}
