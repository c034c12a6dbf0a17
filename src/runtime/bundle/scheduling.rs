//! How a bundle's processes are scheduled: `process.scheduler`, `process.ioPriority`, `process.execCPUAffinity` and `linux.memoryPolicy`, from words to what the kernel takes.

use rustix::thread::{CpuSet, sched_setaffinity};

use super::Error;
use super::config::{Config, CpuAffinity, IoPriority, MemoryPolicy, Process, Scheduler};
use crate::runtime::error::Failure;
use crate::sys::scheduling::{SchedulerAttributes, set_io_priority, set_memory_policy, set_scheduler};

/// The policies, by the kernel's numbers.
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const POLICY_FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x1),
    ("SCHED_FLAG_RECLAIM", 0x2),
    ("SCHED_FLAG_DL_OVERRUN", 0x4),
    ("SCHED_FLAG_KEEP_POLICY", 0x8),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

const IO_CLASSES: [(&str, u16); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// Where memory comes from (`linux/mempolicy.h`).
pub(super) const MEMORY_MODES: [(&str, i32); 7] = [
    ("MPOL_DEFAULT", 0),
    ("MPOL_PREFERRED", 1),
    ("MPOL_BIND", 2),
    ("MPOL_INTERLEAVE", 3),
    ("MPOL_LOCAL", 4),
    ("MPOL_PREFERRED_MANY", 5),
    ("MPOL_WEIGHTED_INTERLEAVE", 6),
];

pub(super) const MEMORY_FLAGS: [(&str, i32); 3] =
    [("MPOL_F_NUMA_BALANCING", 1 << 13), ("MPOL_F_RELATIVE_NODES", 1 << 14), ("MPOL_F_STATIC_NODES", 1 << 15)];

/// What a process is given before it gives up the right to it.
#[derive(Debug, Default)]
pub(super) struct Scheduling {
    scheduler: Option<SchedulerAttributes>,
    io: Option<(u16, u16)>,
    memory: Option<(i32, Vec<u64>)>,
}

impl Scheduling {
    pub(super) fn new(process: &Process, config: &Config) -> Result<Scheduling, Error> {
        Ok(Scheduling {
            scheduler: process.scheduler.as_ref().map(scheduler).transpose()?,
            io: process.io_priority.as_ref().map(io_priority).transpose()?,
            memory: config.linux.memory_policy.as_ref().map(memory_policy).transpose()?,
        })
    }

    /// Gives it to this process.
    pub(super) fn apply(&self) -> Result<(), Failure> {
        if let Some(attributes) = self.scheduler {
            set_scheduler(attributes).map_err(Failure::step("set", "the scheduler"))?;
        }
        if let Some((class, priority)) = self.io {
            set_io_priority(class, priority).map_err(Failure::step("set", "the priority of reads and writes"))?;
        }
        if let Some((mode, nodes)) = &self.memory {
            set_memory_policy(*mode, nodes).map_err(Failure::step("set", "the memory policy"))?;
        }
        Ok(())
    }
}

/// The CPUs of a further command: before it is in the container's control group, and then.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    initial: Option<CpuSet>,
    later: Option<CpuSet>,
}

impl Affinity {
    /// Before this process is in the group.
    pub(super) fn at_first(&self) -> Result<(), Failure> {
        set_cpus(self.initial.as_ref())
    }

    /// When it is.
    pub(super) fn in_the_group(&self) -> Result<(), Failure> {
        set_cpus(self.later.as_ref())
    }
}

fn set_cpus(cpus: Option<&CpuSet>) -> Result<(), Failure> {
    let Some(cpus) = cpus else { return Ok(()) };
    sched_setaffinity(None, cpus).map_err(Failure::step("set", "the CPUs of the process"))
}

/// The CPUs that a config names.
pub(super) fn affinity(affinity: Option<&CpuAffinity>) -> Result<Affinity, Error> {
    let Some(affinity) = affinity else { return Ok(Affinity::default()) };
    let set = |text: &String| {
        let mut set = CpuSet::new();
        for cpu in numbers(text, CpuSet::MAX_CPU).ok_or_else(|| no_list("process.execCPUAffinity", text))? {
            set.set(cpu);
        }
        Ok::<_, Error>((!text.is_empty()).then_some(set))
    };
    Ok(Affinity { initial: set(&affinity.initial)?, later: set(&affinity.later)? })
}

fn no_list(member: &str, text: &str) -> Error {
    Error::invalid(member, format!("`{text}` is no list of numbers such as `0-3,7`"))
}

/// The numbers of a list such as `0-3,7`, all below `end`.
pub(super) fn numbers(text: &str, end: usize) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim).filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= end {
            return None;
        }
        found.extend(first..=last);
    }
    Some(found)
}

fn named<T: Copy>(table: &[(&str, T)], member: &str, name: &str) -> Result<T, Error> {
    let found = table.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    found.ok_or_else(|| Error::invalid(member, format!("`{name}` is not known")))
}

fn scheduler(wanted: &Scheduler) -> Result<SchedulerAttributes, Error> {
    let flag = |sum: u64, name: &String| Ok::<_, Error>(sum | named(&POLICY_FLAGS, "process.scheduler.flags", name)?);
    Ok(SchedulerAttributes {
        policy: named(&POLICIES, "process.scheduler.policy", &wanted.policy)?,
        flags: wanted.flags.iter().try_fold(0, flag)?,
        nice: wanted.nice,
        priority: wanted.priority,
        runtime: wanted.runtime,
        deadline: wanted.deadline,
        period: wanted.period,
    })
}

fn io_priority(wanted: &IoPriority) -> Result<(u16, u16), Error> {
    if wanted.priority > 7 {
        return Err(Error::invalid("process.ioPriority.priority", format!("{} is above 7, the lowest priority", wanted.priority)));
    }
    Ok((named(&IO_CLASSES, "process.ioPriority.class", &wanted.class)?, wanted.priority))
}

/// More than any kernel has.
const MOST_NODES: usize = 1024;

fn memory_policy(wanted: &MemoryPolicy) -> Result<(i32, Vec<u64>), Error> {
    let flag = |sum: i32, name: &String| Ok::<_, Error>(sum | named(&MEMORY_FLAGS, "linux.memoryPolicy.flags", name)?);
    let mode = wanted.flags.iter().try_fold(named(&MEMORY_MODES, "linux.memoryPolicy.mode", &wanted.mode)?, flag)?;
    let nodes = numbers(&wanted.nodes, MOST_NODES).ok_or_else(|| no_list("linux.memoryPolicy.nodes", &wanted.nodes))?;
    let mut mask = vec![0; nodes.iter().max().map_or(0, |last| last / 64 + 1)];
    nodes.iter().for_each(|node| mask[node / 64] |= 1 << (node % 64));
    Ok((mode, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers() {
        assert_eq!(numbers("0-2,7", 8), Some(vec![0, 1, 2, 7]));
        assert_eq!(numbers("", 8), Some(vec![]));
        for wrong in ["8", "2-1", "a", "1,", "-1", "0-"] {
            assert_eq!(numbers(wrong, 8), None, "{wrong}");
        }
    }

    #[test]
    fn a_policy_names_its_nodes_as_bits() {
        let policy = MemoryPolicy { mode: "MPOL_BIND".into(), nodes: "1,65".into(), flags: vec!["MPOL_F_STATIC_NODES".into()] };
        assert_eq!(memory_policy(&policy).unwrap(), (2 | 1 << 15, vec![2, 2]));
        let unknown = MemoryPolicy { mode: "MPOL_BEST".into(), ..MemoryPolicy::default() };
        assert!(memory_policy(&unknown).unwrap_err().to_string().contains("MPOL_BEST"));
    }

    #[test]
    fn what_the_kernel_has_no_number_for_is_refused() {
        let scheduler =
            |policy: &str, flag: &str| scheduler(&Scheduler { policy: policy.into(), flags: vec![flag.into()], ..Scheduler::default() });
        assert_eq!(scheduler("SCHED_BATCH", "SCHED_FLAG_RESET_ON_FORK").unwrap().policy, 3);
        assert!(scheduler("SCHED_FAST", "SCHED_FLAG_RESET_ON_FORK").is_err());
        assert!(scheduler("SCHED_BATCH", "SCHED_FLAG_FAST").is_err());
        assert!(io_priority(&IoPriority { class: "IOPRIO_CLASS_BE".into(), priority: 8 }).is_err());
    }
}
