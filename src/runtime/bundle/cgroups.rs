//! Control groups of a bundle's container: where they are, who is in them, and how they go away. `resources.rs` has what is written to them.
//!
//! A container has one group at the same path of every v1 hierarchy, or one v2 group. Which of them it made itself is on record before they are made, so that one whose
//! `create` was killed can be removed whole, and a group that somebody else made stays.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Error;
use super::systemd::{self, Unit};
use crate::runtime::cgroup::{inherit, is_unified, remove_tree, vacate, visit};
use crate::runtime::hierarchies::hierarchies;
use crate::sys::process::signal_pidfd;

/// How long the kernel may take to be done with processes that were killed, or to stop them.
const PATIENCE: Duration = Duration::from_secs(10);

/// The groups of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Groups {
    /// Whether it is one v2 group.
    pub(super) unified: bool,
    pub(super) groups: Vec<Group>,
    /// The unit of systemd that the group is of, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unit: Option<Unit>,
}

/// The group in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// What the hierarchy controls (`memory`, `name=systemd`); nothing for v2.
    pub(super) controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub(super) mount: PathBuf,
    pub(super) path: PathBuf,
    /// Whether it was made for this container.
    pub(super) made: bool,
}

impl Group {
    fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|known| known == controller)
    }
}

impl Groups {
    /// Where the groups of a container are by its `cgroupsPath`: an absolute path is one in each hierarchy, a relative one (and without any, `id`) is below the group of
    /// this process; on v2 beside it, as a group with processes has no controllers for those below.
    pub(super) fn plan(cgroups_path: &str, id: &str) -> Result<Groups, Error> {
        let wanted = if cgroups_path.is_empty() { id } else { cgroups_path };
        if Path::new(wanted).components().any(|part| part == Component::ParentDir) {
            return Err(Error::invalid("linux.cgroupsPath", format!("`{wanted}` leads upwards")));
        }
        let unified = is_unified();
        let groups = hierarchies(unified).into_iter().map(|hierarchy| {
            let path = match wanted.strip_prefix('/') {
                Some(absolute) => hierarchy.mount.join(absolute.trim_start_matches('/')),
                None if unified => hierarchy.mount.join(hierarchy.own.parent().unwrap_or(Path::new(""))).join(wanted),
                None => hierarchy.mount.join(&hierarchy.own).join(wanted),
            };
            let made = !path.exists();
            Group { controllers: hierarchy.controllers, mount: hierarchy.mount, path, made }
        });
        Ok(Groups { unified, groups: groups.collect(), unit: None })
    }

    /// That of a unit which systemd is to make.
    pub(super) fn of_unit(unit: Unit) -> Result<Groups, Error> {
        let refused =
            |reason: &str| Err(Error::Unsupported(format!("cannot have systemd make control groups (--systemd-cgroup): {reason}")));
        let Some(hierarchy) = hierarchies(true).into_iter().next().filter(|_| is_unified()) else {
            return refused("this machine has those of version 1; have the engine use cgroupfs");
        };
        if !systemd::is_there() {
            return refused("it does not run this machine; have the engine use cgroupfs");
        }
        let path = hierarchy.mount.join(unit.group()?);
        let group = Group { controllers: hierarchy.controllers, mount: hierarchy.mount, path, made: true };
        Ok(Groups { unified: true, groups: vec![group], unit: Some(unit) })
    }

    /// Makes the groups that are not there. Where that is not permitted and no limit is asked for (`optional`), the container goes without.
    pub(super) fn make(&mut self, optional: bool) -> Result<(), Error> {
        for group in &self.groups {
            let made = std::fs::create_dir_all(&group.path).and_then(|()| if self.unified { hand_down(group) } else { fill_cpuset(group) });
            match made {
                Err(error) if optional && matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                    self.groups.clear();
                    return Ok(());
                }
                other => other.map_err(Error::file("set up the control group", &group.path))?,
            }
        }
        Ok(())
    }

    /// Moves a process into the groups.
    pub(super) fn join(&self, pid: u32) -> Result<(), Error> {
        for group in &self.groups {
            let procs = group.path.join("cgroup.procs");
            std::fs::write(&procs, pid.to_string()).map_err(Error::file("move the process into", &procs))?;
        }
        Ok(())
    }

    /// The groups below these that `exec --cgroup` names: `PATH` in all hierarchies, or `CONTROLLER[,…]:PATH` in those of the controllers.
    pub(super) fn below(&self, wanted: &[String]) -> Result<Groups, Error> {
        if !wanted.is_empty() && self.groups.is_empty() {
            return Err(Error::Unsupported("the container has no control groups, so there are none below them".to_owned()));
        }
        let mut found = self.clone();
        for entry in wanted {
            let (controllers, path) = entry.split_once(':').map_or((None, entry.as_str()), |(controllers, path)| (Some(controllers), path));
            let relative = path.trim_start_matches('/');
            if Path::new(relative).components().any(|part| part == Component::ParentDir) {
                return Err(Error::Unsupported(format!("`{path}` is not a control group of the container: it leads upwards")));
            }
            for controller in controllers.into_iter().flat_map(|list| list.split(',')) {
                if self.unified || !self.groups.iter().any(|group| group.has(controller)) {
                    return Err(Error::Unsupported(format!(
                        "no hierarchy of the container's control groups has the controller `{controller}`"
                    )));
                }
            }
            let is_meant = |group: &Group| controllers.is_none_or(|list| list.split(',').any(|controller| group.has(controller)));
            for (group, own) in found.groups.iter_mut().zip(&self.groups).filter(|(_, own)| is_meant(own)) {
                group.path = own.path.join(relative);
            }
        }
        Ok(found)
    }

    /// The group that a controller is in.
    pub(super) fn of(&self, controller: &str) -> Option<&Path> {
        let has = |group: &&Group| self.unified || group.has(controller);
        self.groups.iter().find(has).map(|group| group.path.as_path())
    }

    /// The processes in the groups and in those below them, in order.
    pub(super) fn processes(&self) -> Vec<u32> {
        let mut found = BTreeSet::new();
        if let Some(group) = self.of("pids").or_else(|| self.groups.first().map(|group| group.path.as_path())) {
            visit(group, &mut |directory| {
                let text = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
                found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
            });
        }
        found.into_iter().collect()
    }

    /// Whether there are groups, and all of them were made for the container: nobody else has processes in them.
    pub(super) fn are_own(&self) -> bool {
        !self.groups.is_empty() && self.groups.iter().all(|group| group.made)
    }

    /// Sends a signal to every process in the groups; SIGKILL also to those that were born meanwhile.
    pub(super) fn signal(&self, signal: i32) {
        let mut told = BTreeSet::new();
        loop {
            let new: Vec<u32> = self.processes().into_iter().filter(|pid| told.insert(*pid)).collect();
            for pid in &new {
                let Some(pid) = rustix::process::Pid::from_raw(pid.cast_signed()) else { continue };
                // What has ended needs no signal.
                let Ok(process) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { continue };
                let _ = signal_pidfd(process.as_fd(), signal);
            }
            if new.is_empty() || signal != libc::SIGKILL {
                return;
            }
        }
    }

    /// Kills every process in the groups, and removes those that were made for the container.
    pub(super) fn destroy(&self) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        let own = |group: &&Group| group.made && group.path.exists();
        if self.groups.iter().any(|group| own(&group)) {
            let _ = self.freeze(false);
            if let Some(unit) = &self.unit {
                // Before its group goes, which is systemd's. What keeps it from that is no reason to leave anything.
                let _ = unit.stop();
            }
            while !self.processes().is_empty() && Instant::now() < deadline {
                self.signal(libc::SIGKILL);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        for group in self.groups.iter().filter(own) {
            loop {
                match remove_tree(&group.path) {
                    Ok(()) => break,
                    // The kernel takes a moment to account the last process out.
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    Err(error) => return Err(Error::file("remove the control group", &group.path)(error)),
                }
            }
        }
        Ok(())
    }

    /// Whether all processes stand still.
    pub(super) fn is_frozen(&self) -> bool {
        let (controller, file, word) = if self.unified { ("", "cgroup.freeze", "1") } else { ("freezer", "freezer.state", "FROZEN") };
        let Some(group) = self.of(controller) else { return false };
        std::fs::read_to_string(group.join(file)).is_ok_and(|text| text.trim() == word)
    }

    /// Makes all processes stand still, or go on.
    pub(super) fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let none = || Error::Unsupported("the container has no control group that can be frozen".to_owned());
        let group = self.of("freezer").ok_or_else(none)?;
        let (file, word) = match (self.unified, frozen) {
            (true, true) => ("cgroup.freeze", "1"),
            (true, false) => ("cgroup.freeze", "0"),
            (false, true) => ("freezer.state", "FROZEN"),
            (false, false) => ("freezer.state", "THAWED"),
        };
        let path = group.join(file);
        std::fs::write(&path, word).map_err(Error::file("write", &path))?;
        let (report, line) = match (self.unified, frozen) {
            (true, true) => ("cgroup.events", "frozen 1"),
            (true, false) => ("cgroup.events", "frozen 0"),
            (false, _) => (file, word),
        };
        let (report, deadline) = (group.join(report), Instant::now() + PATIENCE);
        loop {
            let text = std::fs::read_to_string(&report).map_err(Error::file("read", &report))?;
            if text.lines().any(|found| found == line) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::file("wait for", &report)(io::Error::from(io::ErrorKind::TimedOut)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// The directories of the groups that any runtime makes for a container with this `cgroupsPath`, which is absolute.
pub(in crate::runtime) fn planned_groups(cgroups_path: &str) -> Vec<PathBuf> {
    let groups = Groups::plan(cgroups_path, "").map(|groups| groups.groups).unwrap_or_default();
    let mut found: Vec<PathBuf> = groups.into_iter().map(|group| group.path).collect();
    // The v2 hierarchy beside those of v1, which some runtimes use as well.
    let beside = Path::new("/sys/fs/cgroup/unified");
    if !is_unified() && beside.is_dir() {
        found.push(beside.join(cgroups_path.trim_start_matches('/')));
    }
    found
}

/// Hands all controllers on to a v2 group, from the root down.
fn hand_down(group: &Group) -> io::Result<()> {
    let relative = group.path.strip_prefix(&group.mount).unwrap_or(Path::new(""));
    let mut at = group.mount.clone();
    for name in relative {
        let words = |file: &str| std::fs::read_to_string(at.join(file)).unwrap_or_default();
        let given: Vec<String> = words("cgroup.subtree_control").split_ascii_whitespace().map(str::to_owned).collect();
        for controller in words("cgroup.controllers").split_ascii_whitespace().filter(|name| !given.iter().any(|known| known == name)) {
            let add = || std::fs::write(at.join("cgroup.subtree_control"), format!("+{controller}"));
            // Who asked for a limit of one that cannot be had is told when that is written.
            match add() {
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) && vacate(&at).is_ok() => drop(add()),
                _ => {}
            }
        }
        at.push(name);
    }
    Ok(())
}

/// A v1 cpuset is born without CPUs and memory, at every level.
fn fill_cpuset(group: &Group) -> io::Result<()> {
    if !group.controllers.iter().any(|name| name == "cpuset") {
        return Ok(());
    }
    let levels: Vec<&Path> = group.path.ancestors().take_while(|path| *path != group.mount).collect();
    for level in levels.into_iter().rev() {
        inherit(level, "cpuset.cpus")?;
        inherit(level, "cpuset.mems")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_upwards_is_refused() {
        assert!(Groups::plan("/a/../../b", "x").is_err());
    }
}
