//! Limits of a bundle's container: from `linux.resources` to files of its control groups (config-linux.md, "Control groups").
//!
//! What is to be written is planned first, for v1 or v2; what a version cannot do is an error that names the member. Relative weights have other ranges on v2, and are
//! converted as everyone does.

use std::fs::File;
use std::io;

use super::super::cgroup::cpu_weight;
use super::super::device_rules;
use super::cgroups::Groups;
use super::config::{BlockIo, Cpu, Memory, Resources, ThrottleDevice};
use super::dbus::Value;
use super::{Error, systemd};

/// One value of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Write {
    controller: &'static str,
    file: String,
    value: String,
    /// Whether a kernel without the file is good enough.
    optional: bool,
}

/// Whether anything is limited that a container without groups would lack.
pub(super) fn has_limits(resources: &Resources) -> bool {
    let Resources { devices: _, memory, cpu, pids, block_io, hugepage_limits, network, rdma, unified } = resources;
    *memory != Memory::default()
        || *cpu != Cpu::default()
        || pids.limit.is_some_and(|limit| limit > 0)
        || *block_io != BlockIo::default()
        || !hugepage_limits.is_empty()
        || network.class.is_some()
        || !network.priorities.is_empty()
        || !rdma.is_empty()
        || !unified.is_empty()
}

/// Writes limits to the groups. `devices` says whether rules for devices are written, which `update` leaves alone.
pub(super) fn apply(groups: &Groups, resources: &Resources, devices: bool) -> Result<(), Error> {
    if groups.groups.is_empty() {
        return Ok(());
    }
    check_before_update(groups, &resources.memory)?;
    let mut writes = if groups.unified { unified(resources)? } else { legacy(resources)? };
    // Lower and higher limits need opposite orders, as memory alone may never exceed memory with swap: what is refused at first is tried again at last.
    for last in [false, true] {
        let mut refused = Vec::new();
        for write in writes {
            match write_one(groups, &write) {
                Err(_) if !last => refused.push(write),
                other => other?,
            }
        }
        writes = refused;
        writes.reverse();
    }
    if devices && !resources.devices.is_empty() {
        let rules = device_rules::with_default(resources.devices.iter().cloned());
        if let Some(path) = groups.of(if groups.unified { "" } else { "devices" }) {
            let set = if groups.unified {
                File::open(path).and_then(|group| device_rules::attach(&group, &rules))
            } else {
                device_rules::write(path, &rules)
            };
            set.map_err(Error::file("set the rules for devices of", path))?;
        }
    }
    Ok(())
}

/// The limits as properties of a unit of systemd, as far as it knows them.
pub(super) fn properties(resources: &Resources) -> Result<Vec<(String, Value)>, Error> {
    Ok(unified(resources)?.iter().filter_map(|write| systemd::property(&write.file, &write.value)).collect())
}

fn write_one(groups: &Groups, write: &Write) -> Result<(), Error> {
    let Some(group) = groups.of(write.controller) else {
        let reason = format!("the `{}` cgroup controller is not mounted, so `{}` cannot be set", write.controller, write.file);
        return if write.optional { Ok(()) } else { Err(Error::Unsupported(reason)) };
    };
    let path = group.join(&write.file);
    match std::fs::write(&path, &write.value) {
        Err(error) if write.optional && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(()),
        // Files of control groups cannot be made: one that is not there is refused like that.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) && !path.exists() => {
            Err(Error::Unsupported(format!(
                "this kernel has no `{}`, or the control group has not the `{}` controller",
                write.file, write.controller
            )))
        }
        other => other.map_err(Error::file("set the limit in", &path)),
    }
}

/// `memory.checkBeforeUpdate`: a limit below what is used is refused, instead of making the kernel kill something.
fn check_before_update(groups: &Groups, memory: &Memory) -> Result<(), Error> {
    let (Some(true), Some(limit), Some(group)) = (memory.check_before_update, memory.limit, groups.of("memory")) else { return Ok(()) };
    let used = ["memory.current", "memory.usage_in_bytes"]
        .iter()
        .find_map(|file| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<i64>().ok());
    match used {
        Some(used) if limit >= 0 && used > limit => {
            Err(Error::invalid("linux.resources.memory.limit", format!("{limit} is less than the {used} bytes that are used")))
        }
        _ => Ok(()),
    }
}

/// `-1` is no limit; the rest are numbers.
fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

struct Plan(Vec<Write>);

impl Plan {
    fn add(&mut self, controller: &'static str, file: impl Into<String>, value: impl ToString) {
        self.0.push(Write { controller, file: file.into(), value: value.to_string(), optional: false });
    }

    fn throttle(&mut self, controller: &'static str, file: &str, devices: &[ThrottleDevice], key: &str) {
        for ThrottleDevice { major, minor, rate } in devices {
            self.add(controller, file, format!("{major}:{minor} {key}{rate}"));
        }
    }
}

/// What is written to groups of v1.
fn legacy(resources: &Resources) -> Result<Vec<Write>, Error> {
    if let Some(file) = resources.unified.keys().next() {
        return Err(Error::invalid("linux.resources.unified", format!("`{file}` needs cgroup v2, and this machine has v1")));
    }
    let mut plan = Plan(Vec::new());
    let memory = &resources.memory;
    if memory.use_hierarchy == Some(true) {
        plan.0.push(Write { controller: "memory", file: "memory.use_hierarchy".into(), value: "1".into(), optional: true });
    }
    for (file, value) in [
        ("memory.limit_in_bytes", memory.limit),
        ("memory.memsw.limit_in_bytes", memory.swap),
        ("memory.soft_limit_in_bytes", memory.reservation),
        ("memory.kmem.tcp.limit_in_bytes", memory.kernel_tcp),
    ] {
        value.filter(|value| *value != 0).into_iter().for_each(|value| plan.add("memory", file, value));
    }
    memory.swappiness.into_iter().for_each(|value| plan.add("memory", "memory.swappiness", value));
    if let Some(disabled) = memory.disable_oom_killer {
        plan.0.push(Write {
            controller: "memory",
            file: "memory.oom_control".into(),
            value: u8::from(disabled).to_string(),
            optional: !disabled,
        });
    }
    let cpu = &resources.cpu;
    cpu.shares.filter(|value| *value != 0).into_iter().for_each(|value| plan.add("cpu", "cpu.shares", value));
    cpu.period.filter(|value| *value != 0).into_iter().for_each(|value| plan.add("cpu", "cpu.cfs_period_us", value));
    cpu.quota.filter(|value| *value != 0).into_iter().for_each(|value| plan.add("cpu", "cpu.cfs_quota_us", value));
    cpu.burst.into_iter().for_each(|value| plan.add("cpu", "cpu.cfs_burst_us", value));
    cpu.realtime_period.filter(|value| *value != 0).into_iter().for_each(|value| plan.add("cpu", "cpu.rt_period_us", value));
    cpu.realtime_runtime.filter(|value| *value != 0).into_iter().for_each(|value| plan.add("cpu", "cpu.rt_runtime_us", value));
    cpu.idle.into_iter().for_each(|value| plan.add("cpu", "cpu.idle", value));
    cpusets(&mut plan, cpu);
    pids(&mut plan, resources);
    let io = &resources.block_io;
    io.weight.filter(|value| *value != 0).into_iter().for_each(|value| plan.add("blkio", "blkio.weight", value));
    io.leaf_weight.filter(|value| *value != 0).into_iter().for_each(|value| plan.add("blkio", "blkio.leaf_weight", value));
    for device in &io.weight_device {
        let name = format!("{}:{}", device.major, device.minor);
        device.weight.into_iter().for_each(|value| plan.add("blkio", "blkio.weight_device", format!("{name} {value}")));
        device.leaf_weight.into_iter().for_each(|value| plan.add("blkio", "blkio.leaf_weight_device", format!("{name} {value}")));
    }
    plan.throttle("blkio", "blkio.throttle.read_bps_device", &io.throttle_read_bps_device, "");
    plan.throttle("blkio", "blkio.throttle.write_bps_device", &io.throttle_write_bps_device, "");
    plan.throttle("blkio", "blkio.throttle.read_iops_device", &io.throttle_read_iops_device, "");
    plan.throttle("blkio", "blkio.throttle.write_iops_device", &io.throttle_write_iops_device, "");
    for huge in &resources.hugepage_limits {
        plan.add("hugetlb", format!("hugetlb.{}.limit_in_bytes", huge.page_size), huge.limit);
    }
    resources.network.class.into_iter().for_each(|value| plan.add("net_cls", "net_cls.classid", value));
    for priority in &resources.network.priorities {
        plan.add("net_prio", "net_prio.ifpriomap", format!("{} {}", priority.name, priority.priority));
    }
    rdma(&mut plan, resources);
    Ok(plan.0)
}

fn cpusets(plan: &mut Plan, cpu: &Cpu) {
    for (file, value) in [("cpuset.cpus", &cpu.cpus), ("cpuset.mems", &cpu.mems)] {
        if !value.is_empty() {
            plan.add("cpuset", file, value);
        }
    }
}

fn pids(plan: &mut Plan, resources: &Resources) {
    resources.pids.limit.filter(|limit| *limit != 0).into_iter().for_each(|limit| plan.add("pids", "pids.max", or_max(limit)));
}

fn rdma(plan: &mut Plan, resources: &Resources) {
    for (device, limit) in &resources.rdma {
        let part = |name: &str, value: Option<u32>| value.map(|value| format!(" {name}={value}")).unwrap_or_default();
        plan.add("rdma", "rdma.max", format!("{device}{}{}", part("hca_handle", limit.hca_handles), part("hca_object", limit.hca_objects)));
    }
}

/// What is written to a group of v2.
fn unified(resources: &Resources) -> Result<Vec<Write>, Error> {
    let lacks = |member: &str, has: bool| {
        if has { Err(Error::invalid(format!("linux.resources.{member}"), "cgroup v2 has no such limit")) } else { Ok(()) }
    };
    let (memory, cpu, io) = (&resources.memory, &resources.cpu, &resources.block_io);
    lacks("memory.swappiness", memory.swappiness.is_some())?;
    lacks("memory.disableOOMKiller", memory.disable_oom_killer == Some(true))?;
    lacks("memory.kernelTCP", memory.kernel_tcp.is_some_and(|value| value > 0))?;
    lacks(
        "cpu.realtimeRuntime",
        cpu.realtime_runtime.is_some_and(|value| value != 0) || cpu.realtime_period.is_some_and(|value| value != 0),
    )?;
    lacks("blockIO.leafWeight", io.leaf_weight.is_some_and(|value| value != 0))?;
    lacks("network", resources.network.class.is_some_and(|value| value != 0) || !resources.network.priorities.is_empty())?;
    let mut plan = Plan(Vec::new());
    memory.limit.filter(|value| *value != 0).into_iter().for_each(|value| plan.add("memory", "memory.max", or_max(value)));
    if let Some(swap) = memory.swap.filter(|value| *value != 0) {
        plan.add("memory", "memory.swap.max", or_max(swap_alone(swap, memory.limit)?));
    }
    memory.reservation.filter(|value| *value != 0).into_iter().for_each(|value| plan.add("memory", "memory.low", or_max(value)));
    if let Some(shares) = cpu.shares.filter(|value| *value != 0) {
        plan.add("cpu", "cpu.weight", cpu_weight(shares));
    }
    cpu.idle.into_iter().for_each(|value| plan.add("cpu", "cpu.idle", value));
    let (quota, period) = (cpu.quota.filter(|value| *value != 0), cpu.period.filter(|value| *value != 0));
    if quota.is_some() || period.is_some() {
        plan.add("cpu", "cpu.max", format!("{} {}", quota.map_or_else(|| "max".to_owned(), or_max), period.unwrap_or(100_000)));
    }
    cpu.burst.into_iter().for_each(|value| plan.add("cpu", "cpu.max.burst", value));
    cpusets(&mut plan, cpu);
    pids(&mut plan, resources);
    // The range 10..=1000 of v1 on 1..=10000.
    let weight = |value: u16| 1 + u64::from(value.clamp(10, 1000) - 10) * 9999 / 990;
    io.weight.filter(|value| *value != 0).into_iter().for_each(|value| plan.add("io", "io.weight", format!("default {}", weight(value))));
    for device in &io.weight_device {
        let name = format!("{}:{}", device.major, device.minor);
        device.weight.into_iter().for_each(|value| plan.add("io", "io.weight", format!("{name} {}", weight(value))));
    }
    plan.throttle("io", "io.max", &io.throttle_read_bps_device, "rbps=");
    plan.throttle("io", "io.max", &io.throttle_write_bps_device, "wbps=");
    plan.throttle("io", "io.max", &io.throttle_read_iops_device, "riops=");
    plan.throttle("io", "io.max", &io.throttle_write_iops_device, "wiops=");
    for huge in &resources.hugepage_limits {
        plan.add("hugetlb", format!("hugetlb.{}.max", huge.page_size), huge.limit);
    }
    rdma(&mut plan, resources);
    for (file, value) in &resources.unified {
        if file.contains('/') || file.is_empty() {
            return Err(Error::invalid("linux.resources.unified", format!("`{file}` is no name of a file")));
        }
        plan.add("unified", file, value);
    }
    Ok(plan.0)
}

/// The limit of swap alone, where that of both together is known.
fn swap_alone(swap: i64, limit: Option<i64>) -> Result<i64, Error> {
    match limit {
        _ if swap < 0 => Ok(-1),
        Some(limit) if limit > 0 && swap >= limit => Ok(swap - limit),
        Some(limit) if limit > 0 => {
            Err(Error::invalid("linux.resources.memory.swap", format!("{swap} is less than the limit of memory alone, {limit}")))
        }
        _ => Err(Error::invalid("linux.resources.memory.swap", "a limit of memory and swap needs one of memory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(writes: &[Write]) -> Vec<String> {
        writes.iter().map(|write| format!("{}={}", write.file, write.value)).collect()
    }

    fn resources(json: serde_json::Value) -> Resources {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn both_versions_get_the_same_limits_in_their_words() {
        let resources = resources(serde_json::json!({
            "memory": {"limit": 100, "swap": 150, "reservation": 50},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100000, "cpus": "0"},
            "pids": {"limit": 7},
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}]},
        }));
        assert_eq!(
            texts(&legacy(&resources).unwrap()),
            [
                "memory.limit_in_bytes=100",
                "memory.memsw.limit_in_bytes=150",
                "memory.soft_limit_in_bytes=50",
                "cpu.shares=1024",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpuset.cpus=0",
                "pids.max=7",
                "blkio.throttle.read_bps_device=8:0 5",
            ]
        );
        assert_eq!(
            texts(&unified(&resources).unwrap()),
            [
                "memory.max=100",
                "memory.swap.max=50",
                "memory.low=50",
                "cpu.weight=100",
                "cpu.max=50000 100000",
                "cpuset.cpus=0",
                "pids.max=7",
                "io.max=8:0 rbps=5"
            ]
        );
    }

    #[test]
    fn no_limit_is_minus_one_or_max() {
        let resources = resources(serde_json::json!({"memory": {"limit": -1, "swap": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}}));
        assert_eq!(
            texts(&legacy(&resources).unwrap()),
            ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1", "cpu.cfs_quota_us=-1", "pids.max=max"]
        );
        assert_eq!(texts(&unified(&resources).unwrap()), ["memory.max=max", "memory.swap.max=max", "cpu.max=max 100000", "pids.max=max"]);
    }

    #[test]
    fn what_a_version_lacks_is_refused() {
        assert!(legacy(&resources(serde_json::json!({"unified": {"memory.high": "1"}}))).is_err());
        assert!(unified(&resources(serde_json::json!({"memory": {"swappiness": 1}}))).is_err());
        assert!(unified(&resources(serde_json::json!({"memory": {"swap": 10}}))).is_err());
    }
}
