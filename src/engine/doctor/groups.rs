//! Control groups: whether limits can be set.

use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::{Finding, read};
use crate::runtime::lender;

/// The controllers that limits want.
const WANTED: [&str; 5] = ["memory", "cpu", "cpuset", "pids", "io"];

pub(super) fn findings(rootless: bool) -> Vec<Finding> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![version_2(root, rootless)];
    }
    let writable = |name: &str| rustix::fs::access(root.join(name), Access::WRITE_OK).is_ok();
    let mounted: Vec<&str> = ["memory", "cpu", "cpuset", "pids", "blkio"].into_iter().filter(|name| root.join(name).is_dir()).collect();
    vec![match mounted.iter().any(|name| writable(name)) {
        _ if mounted.is_empty() => {
            Finding::warn("cgroups", "none are mounted: no limits, and no memory use", "mount -t cgroup2 cgroup2 /sys/fs/cgroup")
        }
        true => Finding::ok("cgroups", format!("version 1: {}", mounted.join(", "))),
        false => Finding::warn(
            "cgroups",
            "version 1, and not to be written: no limits",
            if rootless {
                "boot with systemd.unified_cgroup_hierarchy=1: groups of version 1 cannot be delegated"
            } else {
                "mount /sys/fs/cgroup writable"
            },
        ),
    }]
}

fn version_2(root: &Path, rootless: bool) -> Finding {
    let own = || -> Option<PathBuf> {
        let groups = read("/proc/self/cgroup");
        Some(root.join(groups.lines().find_map(|line| line.strip_prefix("0::/"))?))
    };
    let writable = |path: &PathBuf| rustix::fs::access(path, Access::WRITE_OK).is_ok();
    let lender = || if rootless { lender() } else { None };
    // What systemd lends has all controllers that a group of this user's can have.
    let Some(group) = Some(root.to_owned()).filter(writable).or_else(lender).or_else(|| own().filter(writable)) else {
        let fix = if rootless {
            "log in by a session of systemd (`apt-get install libpam-systemd dbus-user-session`; for a user without one, `loginctl enable-linger`)"
        } else {
            "mount /sys/fs/cgroup writable"
        };
        return Finding::warn("cgroups", "version 2, and no group is this user's: no limits", fix);
    };
    let has = read(&group.join("cgroup.controllers").display().to_string());
    let lacks: Vec<&str> = WANTED.into_iter().filter(|name| !has.split(' ').any(|known| known == *name)).collect();
    if lacks.is_empty() {
        return Finding::ok("cgroups", format!("version 2: {has}"));
    }
    let fix = match rootless {
        true => "in /etc/systemd/system/user@.service.d/delegate.conf: [Service] Delegate=cpu cpuset io memory pids",
        false => "enable them in the cgroup.subtree_control above",
    };
    Finding::warn("cgroups", format!("version 2, without {}: these limits cannot be set", lacks.join(", ")), fix)
}
