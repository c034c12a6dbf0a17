//! What a running container uses, and its processes: from its control groups where it has some, and from its processes where it has none.

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::runtime::container::{State, processes_of};

use super::super::{Engine, Error};
use super::ContainerInfo;

/// Clock ticks of `/proc` in a second (`USER_HZ`), which is the same on every architecture.
const TICKS: u64 = 100;

/// What a container uses at one moment.
#[derive(Clone, Debug)]
pub struct ContainerUsage {
    /// When this was seen.
    pub at: Instant,
    /// CPU time so far, in nanoseconds.
    pub cpu: u64,
    /// Bytes of memory, without files that can be dropped.
    pub memory: u64,
    /// How many it may use.
    pub memory_limit: u64,
    /// Bytes received and sent over its own network.
    pub network: (u64, u64),
    /// Bytes read from and written to disks.
    pub blocks: (u64, u64),
    /// Processes and threads.
    pub tasks: u64,
}

/// A process of a container, as the host sees it.
#[derive(Clone, Debug)]
pub struct ProcessRow {
    /// Its ID.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its user.
    pub uid: u32,
    /// Its state in a letter.
    pub state: char,
    /// Its terminal: `?` for none.
    pub terminal: String,
    /// CPU time, in seconds.
    pub cpu: u64,
    /// Seconds since it started.
    pub age: u64,
    /// Resident memory in KiB.
    pub resident: u64,
    /// Address space in KiB.
    pub virtual_memory: u64,
    /// Its niceness.
    pub nice: i64,
    /// Its name.
    pub name: String,
    /// Its command line; its name in brackets where it has none.
    pub command: String,
}

impl Engine {
    /// The processes of a running container.
    pub fn container_processes(&self, info: &ContainerInfo) -> Result<Vec<ProcessRow>, Error> {
        let Some(State::Running { pid, .. }) = &info.state else {
            return Err(Error::Usage { message: format!("the container `{}` is not running", info.record.name), hint: None });
        };
        self.event("container", "top", info, &[]);
        let uptime: f64 = read("/proc/uptime").split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        Ok(processes_of(*pid).into_iter().filter_map(|pid| process(pid, uptime)).collect())
    }

    /// What a container uses now; `None` where it does not run.
    pub fn container_usage(&self, info: &ContainerInfo) -> Option<ContainerUsage> {
        let Some(State::Running { pid, cgroups, .. }) = &info.state else { return None };
        let processes = processes_of(*pid);
        let total = memory_of_machine();
        let (memory, limit) = memory(cgroups).unwrap_or_else(|| (processes.iter().map(|pid| resident(*pid)).sum(), total));
        Some(ContainerUsage {
            at: Instant::now(),
            cpu: cpu(cgroups).unwrap_or_else(|| processes.iter().map(|pid| cpu_ticks(*pid)).sum::<u64>() * (1_000_000_000 / TICKS)),
            memory,
            memory_limit: limit.min(total),
            network: network(*pid),
            blocks: blocks(cgroups).unwrap_or_else(|| moved(&processes)),
            tasks: number(cgroups, "pids.current").unwrap_or_else(|| processes.iter().map(|pid| threads(*pid)).sum()),
        })
    }
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn number(groups: &[PathBuf], file: &str) -> Option<u64> {
    groups.iter().find_map(|group| read(group.join(file)).trim().parse().ok())
}

/// The value of a key in a file of `key value` lines.
fn keyed(groups: &[PathBuf], file: &str, key: &str) -> Option<u64> {
    let of = |text: String| text.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key)?.1.trim().parse().ok());
    groups.iter().find_map(|group| of(read(group.join(file))))
}

fn cpu(groups: &[PathBuf]) -> Option<u64> {
    keyed(groups, "cpu.stat", "usage_usec").map(|time| time * 1000).or_else(|| number(groups, "cpuacct.usage"))
}

fn memory(groups: &[PathBuf]) -> Option<(u64, u64)> {
    let (used, limit) = match number(groups, "memory.current") {
        Some(used) => (used, number(groups, "memory.max")),
        None => (number(groups, "memory.usage_in_bytes")?, number(groups, "memory.limit_in_bytes")),
    };
    let cache = keyed(groups, "memory.stat", "total_inactive_file").or_else(|| keyed(groups, "memory.stat", "inactive_file")).unwrap_or(0);
    Some((used.saturating_sub(cache), limit.unwrap_or(u64::MAX)))
}

fn memory_of_machine() -> u64 {
    let text = read("/proc/meminfo");
    text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn blocks(groups: &[PathBuf]) -> Option<(u64, u64)> {
    let text = groups.iter().find_map(|group| std::fs::read_to_string(group.join("io.stat")).ok())?;
    let sum = |key: &str| {
        let fields = text.split_whitespace().filter_map(|field| field.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok());
        fields.sum()
    };
    Some((sum("rbytes"), sum("wbytes")))
}

fn moved(processes: &[u32]) -> (u64, u64) {
    let of = |pid: &u32, key: &str| {
        let text = read(format!("/proc/{pid}/io"));
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let sum = |key: &str| processes.iter().map(|pid| of(pid, key)).sum();
    (sum("read_bytes:"), sum("write_bytes:"))
}

/// Bytes over all links but the loopback; nothing with the host's network, which is not the container's.
fn network(pid: u32) -> (u64, u64) {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    // One that cannot be asked for its own is in another user namespace, and perhaps in the host's network.
    if namespace(&pid.to_string()).is_none_or(|inside| Some(inside) == namespace("self")) {
        return (0, 0);
    }
    let text = read(format!("/proc/{pid}/net/dev"));
    let links = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    links.fold((0, 0), |(received, sent), (_, numbers)| {
        let field = |index: usize| numbers.split_whitespace().nth(index).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        (received + field(0), sent + field(8))
    })
}

/// The fields of `/proc/PID/stat` after the name, which may hold anything; the first is the third of proc(5).
fn stat(pid: u32) -> Option<(String, Vec<String>)> {
    let text = read(format!("/proc/{pid}/stat"));
    let (before, after) = text.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    Some((name, after.split_whitespace().map(str::to_owned).collect()))
}

fn field(fields: &[String], number: usize) -> u64 {
    fields.get(number - 3).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// CPU time of a process and of the children that it waited for.
fn cpu_ticks(pid: u32) -> u64 {
    stat(pid).map_or(0, |(_, fields)| (14..=17).map(|number| field(&fields, number)).sum())
}

fn threads(pid: u32) -> u64 {
    stat(pid).map_or(0, |(_, fields)| field(&fields, 20))
}

fn resident(pid: u32) -> u64 {
    let page = rustix::param::page_size() as u64;
    stat(pid).map_or(0, |(_, fields)| field(&fields, 24) * page)
}

fn process(pid: u32, uptime: f64) -> Option<ProcessRow> {
    let (name, fields) = stat(pid)?;
    let status = read(format!("/proc/{pid}/status"));
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let line = read(format!("/proc/{pid}/cmdline"));
    let command = line.trim_end_matches('\0').replace('\0', " ");
    Some(ProcessRow {
        pid,
        parent: u32::try_from(field(&fields, 4)).unwrap_or(0),
        uid,
        state: fields.first().and_then(|text| text.chars().next()).unwrap_or('?'),
        terminal: terminal(field(&fields, 7)),
        cpu: (field(&fields, 14) + field(&fields, 15)) / TICKS,
        age: (uptime as u64).saturating_sub(field(&fields, 22) / TICKS),
        resident: field(&fields, 24) * rustix::param::page_size() as u64 / 1024,
        virtual_memory: field(&fields, 23) / 1024,
        nice: fields.get(19 - 3).and_then(|text| text.parse().ok()).unwrap_or(0),
        command: if command.is_empty() { format!("[{name}]") } else { command },
        name,
    })
}

/// The terminal that a device number is.
fn terminal(number: u64) -> String {
    let (major, minor) = ((number >> 8) & 0xfff, (number & 0xff) | ((number >> 12) & 0xf_ff00));
    match major {
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}
