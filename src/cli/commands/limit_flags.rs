//! The flags of `strake run`, `create` and `update` about what a container may use, in the ranges that Docker allows.

use clap::Args;

use crate::engine::Error;
use crate::runtime::CgroupSpec;

use super::step_flags::{check_limits, cpu_period, cpu_quota, cpu_shares, memory, memory_swap, number_list};

// What it may use; also what `strake update` changes.
#[derive(Clone, Debug, Args)]
pub(super) struct LimitFlags {
    /// The memory that it may use, such as `512m`
    #[arg(short, long, value_name = "BYTES", value_parser = memory)]
    memory: Option<u64>,
    /// Memory and swap together; `-1` is any amount [default: twice the memory]
    #[arg(long, value_name = "BYTES", allow_negative_numbers = true, value_parser = memory_swap)]
    memory_swap: Option<u64>,
    /// The memory that it keeps when there is too little
    #[arg(long, value_name = "BYTES", value_parser = memory)]
    memory_reservation: Option<u64>,
    /// The processors that it may use, such as `1.5`
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, value_parser = cpus)]
    cpus: Option<u64>,
    /// Its share of CPU time when there is too little; 1024 is normal
    #[arg(short, long, value_name = "NUMBER", value_parser = cpu_shares)]
    cpu_shares: Option<u64>,
    /// The period of --cpu-quota in microseconds
    #[arg(long, value_name = "MICROSECONDS", value_parser = cpu_period)]
    cpu_period: Option<u64>,
    /// The CPU time in each period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true, value_parser = cpu_quota)]
    cpu_quota: Option<u64>,
    /// The processors that it may run on, such as `0-3,7`
    #[arg(long, value_name = "CPUS", value_parser = number_list)]
    cpuset_cpus: Option<String>,
    /// The memory nodes that it may use
    #[arg(long, value_name = "NODES", value_parser = number_list)]
    cpuset_mems: Option<String>,
    /// The number of processes that it may have; `-1` is any
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Its weight among others at the disks: 10 to 1000; 0 is none
    #[arg(long, value_name = "NUMBER", value_parser = blkio_weight)]
    blkio_weight: Option<u64>,
}

impl LimitFlags {
    /// Whether none is given.
    pub(super) fn is_empty(&self) -> bool {
        let numbers = [
            self.blkio_weight,
            self.memory,
            self.memory_swap,
            self.memory_reservation,
            self.cpus,
            self.cpu_shares,
            self.cpu_period,
            self.cpu_quota,
        ];
        numbers.iter().all(Option::is_none) && self.cpuset_cpus.is_none() && self.cpuset_mems.is_none() && self.pids_limit.is_none()
    }

    /// The limits, over those that there are.
    pub(super) fn over(self, known: CgroupSpec) -> Result<CgroupSpec, Error> {
        // Zero is how Docker's flags say "no limit".
        let number = |flag: Option<u64>, known: Option<u64>| flag.or(known).filter(|value| *value > 0);
        let pids = self.pids_limit.map_or(known.pids, |limit| u64::try_from(limit).ok().filter(|limit| *limit > 0));
        let limits = CgroupSpec {
            memory: number(self.memory, known.memory),
            memory_swap: number(self.memory_swap, known.memory_swap),
            memory_reservation: number(self.memory_reservation, known.memory_reservation),
            cpu_millis: number(self.cpus, known.cpu_millis),
            cpu_shares: number(self.cpu_shares, known.cpu_shares),
            cpu_period: number(self.cpu_period, known.cpu_period),
            cpu_quota: number(self.cpu_quota, known.cpu_quota),
            cpuset_cpus: self.cpuset_cpus.or(known.cpuset_cpus),
            cpuset_mems: self.cpuset_mems.or(known.cpuset_mems),
            pids,
            name: known.name,
            parent: known.parent,
            blkio_weight: number(self.blkio_weight, known.blkio_weight),
            throttles: known.throttles,
            swappiness: known.swappiness,
            oom_kill_disable: known.oom_kill_disable,
        };
        check_limits(&limits)?;
        check_processors(&limits)?;
        check_sets(&limits)?;
        Ok(limits)
    }
}

/// Refuses sets of processors and memory nodes that are not all there.
pub(super) fn check_sets(limits: &CgroupSpec) -> Result<(), Error> {
    check_online("--cpuset-cpus", limits.cpuset_cpus.as_deref(), "/sys/devices/system/cpu/online")?;
    check_online("--cpuset-mems", limits.cpuset_mems.as_deref(), "/sys/devices/system/node/online")
}

fn blkio_weight(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(weight @ (0 | 10..=1000)) => Ok(weight),
        _ => Err(format!("`{text}` is not a weight: 10 to 1000, or 0")),
    }
}

/// Reads a number of processors, in thousandths.
pub(super) fn cpus(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        Ok(0.0) => Ok(0),
        Ok(number) if (0.001..=1_000_000.0).contains(&number) => Ok((number * 1000.0).round() as u64),
        _ => Err(format!("`{text}` is not a number of processors")),
    }
}

/// The processors of this machine that this process may use.
fn processors() -> u64 {
    let known = rustix::thread::sched_getaffinity(None).map_or(0, |set| set.count());
    u64::from(known.max(1))
}

/// Whether all of a list of numbers are there, by the kernel's list of those that are; a kernel that has none does not know.
fn check_online(flag: &str, wanted: Option<&str>, list: &str) -> Result<(), Error> {
    let Some(wanted) = wanted else { return Ok(()) };
    let Ok(there) = std::fs::read_to_string(list) else { return Ok(()) };
    let ranges = |text: &str| -> Vec<(u32, u32)> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        text.trim().split(',').filter_map(range).collect()
    };
    let known = ranges(&there);
    let is_there = |number: u32| known.iter().any(|(first, last)| (*first..=*last).contains(&number));
    // A range that is far too long ends at its first number that is not there.
    let missing = ranges(wanted).into_iter().find_map(|(first, last)| (first..=last).find(|number| !is_there(*number)));
    missing.map_or(Ok(()), |number| {
        let message = format!("{flag} names {number}, which is not there: requested {wanted}, available {}", there.trim());
        Err(Error::Usage { message, hint: None })
    })
}

fn check_processors(limits: &CgroupSpec) -> Result<(), Error> {
    let there = processors();
    match limits.cpu_millis {
        Some(wanted) if wanted > there * 1000 => {
            let message = format!("--cpus is above the number of processors: there are {there}");
            Err(Error::Usage { message, hint: Some(format!("give at most `--cpus {there}`")) })
        }
        _ => Ok(()),
    }
}
